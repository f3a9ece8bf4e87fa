package classic

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gopeft/model/fsutil"
	"gopeft/train/classic/xgboost"
)

// boostedGolden mirrors testdata/xgboost.json, which scripts/goldens/boosted.py writes.
type boostedGolden struct {
	Fitted []struct {
		Name                                        string
		Seed                                        uint64
		Rows, Validation, Test, Cols, Classes, Drop int
		EarlyStop                                   int `json:"early_stop"`
		Seen                                        []int
		Proba                                       [][]float32
		BestIteration                               int     `json:"best_iteration"`
		BestScore                                   float64 `json:"best_score"`
		Rounds                                      int
	}
	Written struct {
		Seed                      uint64
		Rows, Cols, Classes, Test int
		Proba                     [][]float32
	}
}

func readBoostedGolden(t *testing.T) (g boostedGolden) {
	t.Helper()
	content, err := os.ReadFile("testdata/xgboost.json")
	if err == nil {
		err = json.Unmarshal(content, &g)
	}
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// needXGBoost skips a test where the library is not.
func needXGBoost(t testing.TB) {
	t.Helper()
	if _, err := xgboost.Open(); err != nil {
		t.Skip("SKIPPED: ", err)
	}
}

func part(x Matrix, from, to int) Matrix {
	return Matrix{Rows: to - from, Cols: x.Cols, Data: x.Data[from*x.Cols : to*x.Cols]}
}

// farthest is the largest difference of probabilities, those of want being of the classes seen.
func farthest(got Matrix, want [][]float32, seen []int) float64 {
	worst := 0.0
	for r := range got.Rows {
		full := make([]float32, got.Cols)
		for k, c := range seen {
			full[c] = want[r][k]
		}
		for c, v := range got.Row(r) {
			worst = max(worst, math.Abs(float64(v-full[c])))
		}
	}
	return worst
}

func TestBoostedTreesEqualPythonsXGBoost(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	needXGBoost(t)
	for _, want := range readBoostedGolden(t).Fitted {
		t.Run(want.Name, func(t *testing.T) {
			end := want.Rows + want.Validation
			x, y := testData(want.Seed, end+want.Test, want.Cols, want.Classes)
			train, labels := without(part(x, 0, want.Rows), y[:want.Rows], want.Drop)
			o := BoostOptions{EarlyStop: want.EarlyStop, Workers: 1, Note: t.Errorf}
			if want.Validation > 0 {
				o.Validation, o.ValidationLabels = part(x, want.Rows, end), y[want.Rows:end]
			}
			rounds := 0
			o.Progress = func(done, _ int) { rounds = done }
			b, err := FitBoosted(t.Context(), train, labels, want.Classes, o)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			test := part(x, end, end+want.Test)
			p, err := b.PredictProba(t.Context(), test)
			if err != nil {
				t.Fatal(err)
			}
			if len(want.Proba) != want.Test || p.Rows != want.Test {
				t.Fatalf("%d rows, Python has %d, want %d", p.Rows, len(want.Proba), want.Test)
			}
			if worst := farthest(p, want.Proba, want.Seen); worst > 1e-6 {
				t.Errorf("probabilities differ by %.2g", worst)
			}
			if want.Validation > 0 && (b.rounds != want.BestIteration+1 || math.Abs(b.score-want.BestScore) > 1e-9 || rounds != want.Rounds) {
				t.Errorf("round %d with %v is the best of %d, in Python it is %d with %v of %d", b.rounds-1, b.score, rounds, want.BestIteration,
					want.BestScore, want.Rounds)
			}

			path := filepath.Join(t.TempDir(), "b.json")
			saved := Saved{Model: b, Labels: []string{"a", "Ü\n\"\\", "c\u2028<>", "d"}[:want.Classes], Meta: map[string]string{"pool": "mean"}}
			if err := Save(path, saved); err != nil {
				t.Fatal(err)
			}
			got, err := Load(path)
			if err != nil {
				t.Fatal(err)
			}
			defer got.Model.Close()
			if diff := cmp.Diff([]any{saved.Labels, saved.Meta, b.rounds, b.score}, []any{got.Labels, got.Meta, got.Model.(*Boosted).rounds, got.Model.(*Boosted).score}); diff != "" {
				t.Errorf("what is kept beside the model (-saved +loaded):\n%s", diff)
			}
			again, err := got.Model.PredictProba(t.Context(), test)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(p, again); diff != "" {
				t.Error("the loaded model gives other probabilities")
			}
		})
	}
}

func TestAFileOfPythonsIsRead(t *testing.T) {
	needXGBoost(t)
	want := readBoostedGolden(t).Written
	s, err := Load("testdata/boosted.json")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Model.Close()
	if diff := cmp.Diff([]string{"neg", "so so", "Ünïcode\n<>"}, s.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	x, _ := testData(want.Seed, want.Rows, want.Cols, want.Classes)
	p, err := s.Model.PredictProba(t.Context(), part(x, want.Rows-want.Test, want.Rows))
	if err != nil {
		t.Fatal(err)
	}
	if worst := farthest(p, want.Proba, []int{0, 1, 2}); worst > 1e-6 || len(want.Proba) != want.Test {
		t.Errorf("probabilities of %d rows differ by %.2g", len(want.Proba), worst)
	}
}

// pythonWithXGBoost is the program named in GOPEFT_PYTHON, or that of the environment that `make goldens` makes.
func pythonWithXGBoost(t *testing.T) string {
	t.Helper()
	python := os.Getenv("GOPEFT_PYTHON")
	if home, err := fsutil.Home(); python == "" && err == nil {
		python = filepath.Join(home, "goldens-venv", "bin", "python")
	}
	if out, err := exec.Command(python, "-c", "import xgboost, sklearn").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: GOPEFT_PYTHON names no Python with xgboost and scikit-learn: %v %s", err, out)
	}
	return python
}

func TestPythonOpensTheFile(t *testing.T) {
	needXGBoost(t)
	python := pythonWithXGBoost(t)
	x, y := testData(32, 350, 6, 3)
	two, twoLabels := without(x, y, 1)
	test := part(x, 0, 50)
	for name, o := range map[string]BoostOptions{
		"all rounds": {Workers: 1}, "early stop": {Workers: 1, EarlyStop: 4, Validation: part(x, 250, 350), ValidationLabels: y[250:]},
		"two classes": {Workers: 1, EarlyStop: 4, Validation: part(two, 150, two.Rows), ValidationLabels: twoLabels[150:]},
	} {
		t.Run(name, func(t *testing.T) {
			train, labels, seen := part(x, 0, 250), y[:250], []int{0, 1, 2}
			if name == "two classes" {
				train, labels, seen = part(two, 0, 150), twoLabels[:150], []int{0, 2}
			}
			b, err := FitBoosted(t.Context(), train, labels, 3, o)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			path := filepath.Join(t.TempDir(), "classifier.json")
			if err := Save(path, Saved{Model: b, Labels: []string{"neg", "so \"so\"\\", "Ünïcode\n\u2028<>"}}); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(python, "-B", "../../scripts/goldens/boosted.py", "open", path)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			var want [][]float32
			if err := json.Unmarshal(out, &want); err != nil {
				t.Fatal(err)
			}
			got, err := b.PredictProba(t.Context(), test)
			if err != nil {
				t.Fatal(err)
			}
			if worst := farthest(got, want, seen); len(want) != test.Rows || worst > 1e-6 {
				t.Errorf("Python gives %d rows, probabilities differ by %.2g", len(want), worst)
			}
		})
	}
}

func TestBoostedTreesRefuse(t *testing.T) {
	needXGBoost(t)
	x, y := testData(33, 60, 4, 3)
	two, twoLabels := without(x, y, 2)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name   string
		ctx    context.Context
		x      Matrix
		labels []int
		o      BoostOptions
		want   string
	}{
		{"one class", t.Context(), x, make([]int, x.Rows), BoostOptions{}, "boosted trees: all 60 training rows have label 0: two classes are needed"},
		{"negative rounds", t.Context(), x, y, BoostOptions{Rounds: -1}, "-1 rounds"},
		{"no validation data", t.Context(), x, y, BoostOptions{EarlyStop: 2}, "validation data: features are 0 × 0"},
		{"a class that only the validation data has", t.Context(), two, twoLabels, BoostOptions{EarlyStop: 2, Validation: x, ValidationLabels: y}, "which no training row has"},
		{"a context that has ended", cancelled, x, y, BoostOptions{}, "context canceled"},
	} {
		if _, err := FitBoosted(test.ctx, test.x, test.labels, 3, test.o); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
	b, err := FitBoosted(t.Context(), x, y, 3, BoostOptions{Rounds: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := Save(filepath.Join(t.TempDir(), "c.safetensors"), Saved{Model: b}); err == nil || !strings.Contains(err.Error(), "ends in .json") {
		t.Errorf("another ending: %v", err)
	}
	if _, err := b.Predict(t.Context(), two); err != nil {
		t.Error(err)
	}
	if _, err := b.Predict(t.Context(), NewMatrix(1, 5)); err == nil || !strings.Contains(err.Error(), "features have 5 columns, the classifier was trained on 4") {
		t.Errorf("other columns: %v", err)
	}
	if err := errors.Join(b.Close(), b.Close()); err != nil {
		t.Error(err)
	}
	if _, err := b.Predict(t.Context(), x); err == nil || !strings.Contains(err.Error(), "it is closed") {
		t.Errorf("closed: %v", err)
	}
}

// changed is the fixture with one text in place of another, the first of its kind.
func changed(t testing.TB, from, to string) []byte {
	t.Helper()
	content, err := os.ReadFile("testdata/boosted.json")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(content), from) {
		t.Fatalf("the fixture has no %s", from)
	}
	return []byte(strings.Replace(string(content), from, to, 1))
}

// version is that of the fixture.
var version = [3]int{3, 2, 0}

func TestADamagedFileOfBoostedTreesIsAnErrorThatNamesTheField(t *testing.T) {
	for _, test := range []struct{ name, from, to, want string }{
		{"cut", `,"version":[3,2,0]}`, ``, "not XGBoost's JSON: unexpected end of JSON input"},
		{"no version", `"version"`, `"edition"`, "version is missing"},
		{"newer", `"version":[3,2,0]`, `"version":[3,3,0]`, "it is of XGBoost 3.3.0, the library here is 3.2.0: set XGBOOST to one as new"},
		{"much newer", `"version":[3,2,0]`, `"version":[10,0,1]`, "it is of XGBoost 10.0.1"},
		{"deep", `"feature_names":[]`, `"feature_names":` + strings.Repeat("[", 100) + strings.Repeat("]", 100), "values nested deeper than 32"},
		{"feature names", `"feature_names":[]`, `"feature_names":["a"]`, "feature_names: 1 of them, want none"},
		{"no attribute", `"gopeft"`, `"other"`, "gopeft is missing: not a classifier file"},
		{"another version of ours", `\"version\": \"1\"`, `\"version\": \"9\"`, `version "9"`},
		{"too many classes", `\"classes\": 3`, `\"classes\": 70000`, "classes is 70000"},
		{"labels", `\"so so\", `, ``, "labels: 2 of them for 3 classes"},
		{"seen outside", `[0, 1, 2]`, `[0, 1, 3]`, "seen: class 3 at 2"},
		{"seen fewer", `[0, 1, 2]`, `[0, 1]`, `num_class is "3", want a number from 0 to 0`},
		{"best round", `"attributes":{`, `"attributes":{"best_iteration":"3","best_score":"1",`, "best_iteration is 3 of 3 rounds"},
		{"best round negative", `"attributes":{`, `"attributes":{"best_iteration":"-1",`, `best_iteration is "-1"`},
		{"no score", `"attributes":{`, `"attributes":{"best_iteration":"1",`, `best_score is ""`},
		{"base scores", `"base_score":"[`, `"base_score":"[1,`, "base_score is"},
		{"targets", `"num_target":"1"`, `"num_target":"2"`, "num_target"},
		{"objective", `"multi:softprob"`, `"reg:squarederror"`, `objective: "reg:squarederror", want multi:softprob for 3 classes`},
		{"objective's classes", `"softmax_multiclass_param":{"num_class":"3"`, `"softmax_multiclass_param":{"num_class":"9"`, "softmax_multiclass_param: num_class"},
		{"booster", `"gbtree"`, `"dart"`, `gradient_booster: "dart"`},
		{"number of trees", `"num_trees":"9"`, `"num_trees":"8"`, "num_trees"},
		{"parallel trees", `"num_parallel_tree":"1"`, `"num_parallel_tree":"3"`, "num_parallel_tree"},
		{"outputs", `"tree_info":[0,1,2`, `"tree_info":[0,1,9`, "tree 2 is of output 9"},
		{"rounds", `"iteration_indptr":[0,3,6`, `"iteration_indptr":[0,3,60`, "round 2 begins at tree 60"},
		{"categories", `"categories":[]`, `"categories":[1]`, "tree 0: categories: 1 of them"},
		{"number of nodes", `"num_nodes":"7"`, `"num_nodes":"8"`, "left_children has 7 values, want 8"},
		{"leaf vectors", `"size_leaf_vector":"1"`, `"size_leaf_vector":"3"`, "size_leaf_vector"},
		{"child outside", `"left_children":[1,`, `"left_children":[1000000000,`, "tree 0: node 0: child 1000000000"},
		{"child negative", `"left_children":[1,`, `"left_children":[-7,`, "tree 0: node 0: child -7"},
		{"a loop", `"left_children":[1,`, `"left_children":[0,`, "tree 0: node 0: child 0"},
		{"a child of two", `"left_children":[1,3`, `"left_children":[1,2`, "tree 0: node 1: child 2"},
		{"twins", `"left_children":[1,`, `"left_children":[2,`, "both children are 2"},
		{"column outside", `"split_indices":[`, `"split_indices":[9`, "tree 0: node 0: split_indices: column 9"},
		{"kind of split", `"split_type":[0`, `"split_type":[1`, "tree 0: node 0: split_type is 1"},
		{"a number that is none", `"split_conditions":[`, `"split_conditions":[1E999,`, "split_conditions"},
		{"a key twice", `"left_children":`, `"left_children":[9,9,9],"Left_Children":[],"left_children":`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, b, err := parseBoosted(changed(t, test.from, test.to), version)
			if test.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				// XGBoost has to see what was checked.
				if text, err := encodeJSON(b.model); err != nil || strings.Contains(string(text), "[9,9,9]") {
					t.Errorf("the list that was not looked at is kept: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestADamagedFileNamesItself(t *testing.T) {
	needXGBoost(t)
	path := filepath.Join(t.TempDir(), "classifier.json")
	if err := os.WriteFile(path, changed(t, `"left_children":[1,`, `"left_children":[9,`), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.HasPrefix(err.Error(), "classifier "+path+": learner: gradient_booster: model: tree 0: node 0: child 9") {
		t.Error(err)
	}
}

// stump is Python's file of one tree with two leaves: a small one, since go test takes long to make large input smaller.
const stump = `{"learner":{"attributes":{"gopeft":"{\"version\": \"1\", \"classes\": 2, \"seen\": [0, 1]}"},"feature_names":[],"feature_types":[],"gradient_booster":{"model":{"cats":{"enc":[],"feature_segments":[],"sorted_idx":[]},"gbtree_model_param":{"num_parallel_tree":"1","num_trees":"1"},"iteration_indptr":[0,1],"tree_info":[0],"trees":[{"base_weights":[-5.985404E-8,2.3684211E-1,-3.184616E-1],"categories":[],"categories_nodes":[],"categories_segments":[],"categories_sizes":[],"default_left":[0,0,0],"id":0,"left_children":[1,-1,-1],"loss_changes":[1.41910925E1,0E0,0E0],"parents":[2147483647,0,0],"right_children":[2,-1,-1],"split_conditions":[1.0269775E0,2.3684211E-1,-3.184616E-1],"split_indices":[1,0,0],"split_type":[0,0,0],"sum_hessian":[1.4933332E1,8.711111E0,6.222222E0],"tree_param":{"num_deleted":"0","num_feature":"2","num_nodes":"3","size_leaf_vector":"1"}}]},"name":"gbtree"},"learner_model_param":{"base_score":"[4.6666667E-1]","boost_from_average":"1","num_class":"0","num_feature":"2","num_target":"1"},"objective":{"name":"binary:logistic","reg_loss_param":{"scale_pos_weight":"1"}}},"version":[3,2,0]}`

func FuzzBoostedFile(f *testing.F) {
	f.Add([]byte(stump))
	lib, err := xgboost.Open()
	f.Fuzz(func(t *testing.T, content []byte) {
		_, b, bad := parseBoosted(content, version)
		if err != nil || bad != nil || b.features > 1<<12 || b.open(lib) != nil {
			return
		}
		defer b.Close()
		_, _ = b.Predict(t.Context(), NewMatrix(2, b.features)) // what was not refused must not end the process
	})
}
