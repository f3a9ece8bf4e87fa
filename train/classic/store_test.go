package classic

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// saved trains one model of each kind and writes it.
func saved(t testing.TB) map[string]string {
	t.Helper()
	x, y := testData(15, 80, 4, 3)
	for i := range x.Cols { // two equal rows of different classes: a mixed leaf
		x.Row(1)[i] = x.Row(0)[i]
	}
	y[0], y[1] = 0, 2
	logreg, err := FitLogisticRegression(t.Context(), x, y, 3, LogisticOptions{})
	if err != nil {
		t.Fatal(err)
	}
	forest, err := FitForest(t.Context(), x, y, 3, ForestOptions{Trees: 8})
	if err != nil {
		t.Fatal(err)
	}
	paths := map[string]string{}
	for _, m := range []Classifier{logreg, forest} {
		paths[m.Kind()] = filepath.Join(t.TempDir(), "classifier.safetensors")
		err := Save(paths[m.Kind()], Saved{Model: m, Labels: []string{"neg", "so so", "Ünïcode\n"}, Meta: map[string]string{"pool": "cls"}})
		if err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

func TestALoadedModelPredictsTheSame(t *testing.T) {
	x, y := testData(16, 300, 7, 4)
	x, y = without(x, y, 2)
	logreg, err := FitLogisticRegression(t.Context(), x, y, 4, LogisticOptions{})
	if err != nil {
		t.Fatal(err)
	}
	forest, err := FitForest(t.Context(), x, y, 4, ForestOptions{Trees: 20, MinSamplesSplit: 20})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []Classifier{logreg, forest} {
		t.Run(m.Kind(), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "c.safetensors")
			want := Saved{Model: m, Labels: []string{"a", "b", "c", "d"}, Meta: map[string]string{"pool": "mean"}}
			if err := Save(path, want); err != nil {
				t.Fatal(err)
			}
			got, err := Load(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want.Labels, got.Labels); diff != "" {
				t.Errorf("labels (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(want.Meta, got.Meta); diff != "" {
				t.Errorf("meta (-want +got):\n%s", diff)
			}
			a, err := m.PredictProba(t.Context(), x)
			if err != nil {
				t.Fatal(err)
			}
			b, err := got.Model.PredictProba(t.Context(), x)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(a, b); diff != "" {
				t.Error("other probabilities")
			}
		})
	}
}

func TestSaveRefusesTheWrongNumberOfLabels(t *testing.T) {
	path := saved(t)[KindForest]
	s, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	s.Labels = s.Labels[:1]
	if err := Save(path, s); err == nil || !strings.Contains(err.Error(), "1 labels for 3 classes") {
		t.Errorf("error %v", err)
	}
}

// edit changes a file's header and data in place. The header may grow: offsets
// in it count from its end.
func edit(t *testing.T, path string, header func(map[string]any), data func(tensors map[string]any, data []byte)) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(content)
	var h map[string]any
	if err := json.Unmarshal(content[8:8+n], &h); err != nil {
		t.Fatal(err)
	}
	body := content[8+n:]
	if header != nil {
		header(h)
	}
	if data != nil {
		data(h, body)
	}
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(text)))
	if err := os.WriteFile(path, append(append(out, text...), body...), 0o666); err != nil {
		t.Fatal(err)
	}
}

// meta sets one entry of the header's metadata.
func meta(name, value string) func(map[string]any) {
	return func(h map[string]any) { h["__metadata__"].(map[string]any)[name] = value }
}

// put overwrites element i of a tensor with little-endian bytes.
func put(name string, i int, value any) func(map[string]any, []byte) {
	return func(h map[string]any, data []byte) {
		at := int(h[name].(map[string]any)["data_offsets"].([]any)[0].(float64))
		b, _ := binary.Append(nil, binary.LittleEndian, value)
		copy(data[at+i*len(b):], b)
	}
}

func TestAMalformedFileIsAnErrorThatNamesTheField(t *testing.T) {
	nan := uint32(0x7fc00000)
	tests := []struct {
		name, kind string
		header     func(map[string]any)
		data       func(map[string]any, []byte)
		want       string
	}{
		{"another format", KindLogistic, meta("format", "pt"), nil, `format "pt"`},
		{"another version", KindLogistic, meta("version", "9"), nil, `version "9"`},
		{"unknown kind", KindLogistic, meta("kind", "svm"), nil, `kind "svm"`},
		{"no features", KindLogistic, meta("features", "0"), nil, `features is "0"`},
		{"features no number", KindForest, meta("features", "x"), nil, `features is "x"`},
		{"other features", KindLogistic, meta("features", "5"), nil, "tensor coef has shape [3 4], want [3 5]"},
		{"too many classes", KindForest, meta("classes", "70000"), nil, `classes is "70000"`},
		{"labels no JSON", KindForest, meta("labels", "["), nil, "labels:"},
		{"too few labels", KindForest, meta("labels", `["a"]`), nil, "labels: 1 of them for 3"},
		{"meta no JSON", KindForest, meta("meta", "1"), nil, "meta:"},
		{"tensor missing", KindForest, func(h map[string]any) {
			h["renamed"] = h["threshold"]
			delete(h, "threshold")
		}, nil, "tensor threshold is missing"},
		{"tensor of another type", KindForest, func(h map[string]any) {
			h["feature"].(map[string]any)["dtype"] = "F32"
		}, nil, "tensor feature is of type F32"},
		{"seen out of order", KindLogistic, nil, put("seen", 1, int64(0)), "tensor seen: class 0 at 1"},
		{"seen too high", KindLogistic, nil, put("seen", 2, int64(1)<<40), "tensor seen: class 1099511627776"},
		{"NaN coefficient", KindLogistic, nil, put("coef", 5, uint64(0x7ff8000000000001)), "output 1, column 1 is NaN"},
		{"a loop", KindForest, nil, put("next", 0, int32(0)), "tree 0, node 0: next: children at 0"},
		{"children outside", KindForest, nil, put("next", 0, int32(1<<30)), "tree 0, node 0: next: children at 1073741824"},
		{"feature outside", KindForest, nil, put("feature", 0, int32(4)), "tree 0, node 0: feature: column 4"},
		{"negative feature", KindForest, nil, put("feature", 0, int32(-3)), "tree 0, node 0: feature: column -3"},
		{"leaf's class outside", KindForest, nil, func(h map[string]any, d []byte) {
			put("feature", 0, int32(pureLeaf))(h, d)
			put("next", 0, int32(3))(h, d)
		}, "tree 0, node 0: next: class 3"},
		{"leaf without distribution", KindForest, nil, func(h map[string]any, d []byte) {
			put("feature", 0, int32(mixedLeaf))(h, d)
			put("next", 0, int32(999))(h, d)
		}, "tree 0, node 0: next: leaf 999"},
		{"NaN threshold", KindForest, nil, put("threshold", 0, nan), "tree 0, node 0: threshold: NaN"},
		{"share above 1", KindForest, nil, put("mixed", 1, float32(1.5)), "tensor mixed: leaf 0, class 1 is 1.5"},
		{"empty tree", KindForest, nil, put("nodes_per_tree", 2, int64(0)), "tensor nodes_per_tree: tree 2 has 0"},
		{"tree too long", KindForest, nil, put("nodes_per_tree", 7, int64(1)<<50), "tensor nodes_per_tree: tree 7 has"},
		{"leaves too many", KindForest, nil, put("mixed_leaves_per_tree", 0, int64(1)<<50), "tensor mixed_leaves_per_tree: tree 0 has"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := saved(t)[test.kind]
			edit(t, path, test.header, test.data)
			_, err := Load(path)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v, want one with the path and %q", err, test.want)
			}
		})
	}
}

func TestTruncatedAndMissingFiles(t *testing.T) {
	for kind, path := range saved(t) {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{0, 7, 8, 100, len(content) - 1} {
			if _, err := parse(content[:n]); err == nil {
				t.Errorf("%s cut to %d bytes: no error", kind, n)
			}
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); !os.IsNotExist(err) {
		t.Errorf("error %v", err)
	}
}

// FuzzParse looks for a file that makes loading or predicting panic.
func FuzzParse(f *testing.F) {
	for _, path := range saved(f) {
		content, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		s, err := parse(content)
		if err != nil || s.Model.Features() > 1000 {
			return
		}
		if _, err := s.Model.Predict(t.Context(), NewMatrix(2, s.Model.Features())); err != nil {
			t.Error(err)
		}
	})
}
