package peft_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model/hf/files"
	"gopeft/model/modeltest"
	"gopeft/peft"
)

// peft finds modules by the ends of their names, and several of a BERT's end in "dense": what is written names those that
// were adapted and no other, neither of the blocks nor behind them.
func TestTargetsOfEncodersAreTheirsAlone(t *testing.T) {
	for _, folder := range []string{"bert/tiny", "roberta/tiny"} {
		for _, targets := range [][]string{{"q"}, {"o"}, {"up"}, {"down"}, {"q", "down"}, {"all"}, {"output.dense"}, {"dense"}, {"1.output.dense"}} {
			for _, method := range []string{"lora", "ia3"} {
				dir := filepath.Join(t.TempDir(), "adapter")
				bindingstest.Do(t, func(s *bindings.Scope) error {
					m := family{folder: folder, classify: true}.load(t, s)
					defer m.Close()
					a, err := peft.New(method, peft.Options{TargetOptions: peft.TargetOptions{Targets: targets}})
					if err != nil {
						return err
					}
					defer a.Close()
					if err := a.Attach(s, m); err != nil {
						return err
					}
					var want, got []string
					for _, p := range a.Params().All() {
						name, _, _ := strings.Cut(p.Name, ".lora_")
						if name = strings.TrimSuffix(name, ".ia3_l"); !slices.Contains(want, name) {
							want = append(want, name)
						}
					}
					if err := a.Save(s, dir, m); err != nil {
						return err
					}
					for _, p := range m.Params().All() {
						module, weight := strings.CutSuffix(p.Name, ".weight")
						named := slices.ContainsFunc(settings(t, dir)["target_modules"].([]any), func(end any) bool {
							return module == end || strings.HasSuffix(module, "."+end.(string))
						})
						if weight && named {
							got = append(got, module)
						}
					}
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("%s, %s on %v (-adapted +named):\n%s", folder, method, targets, diff)
					}
					return nil
				})
			}
		}
	}
}

// What a checkpoint lacks of the head's way begins at random: the adapter has it, a pooler too.
func TestAdaptersHoldAPoolerThatTheBaseLacks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "adapter")
	g := modeltest.OpenGolden(t, "bert/tiny/golden.safetensors")
	f := family{folder: "bert/mlm", batch: "padded", classify: true}
	bindingstest.Do(t, func(s *bindings.Scope) error {
		s.Seed(3)
		m := f.load(t, s)
		defer m.Close()
		a := shaken(t, s, "lora", peft.Options{}, m, 0.1)
		defer a.Close()
		want := logits(s, m, f.input(g, s))
		if err := a.Save(s, dir, m); err != nil {
			return err
		}
		if got := settings(t, dir)["modules_to_save"]; !cmp.Equal(got, []any{"bert.pooler", "classifier"}) {
			t.Errorf("modules_to_save %v", got)
		}
		archive, err := files.OpenSafetensors(filepath.Join(dir, "adapter_model.safetensors"))
		if err != nil {
			return err
		}
		defer archive.Close()
		if _, ok := archive.Lookup("base_model.model.bert.pooler.dense.weight"); !ok {
			t.Error("the file has no pooler")
		}
		other := f.load(t, s) // with other random numbers
		defer other.Close()
		back, err := peft.Load(s, dir, other)
		if err != nil {
			return err
		}
		defer back.Close()
		modeltest.Close(t, "logits", logits(s, other, f.input(g, s)), want, 1e-6)
		return nil
	})
}

// Adapters over a BERT and a RoBERTa are the libraries' own.
func TestAdaptersOverEncodersConvert(t *testing.T) {
	for _, folder := range []string{"bert/tiny", "roberta/tiny"} {
		for method, dialect := range map[string]peft.Dialect{"lora": peft.DialectPeft, "ia3": peft.DialectPeft, "houlsby": peft.DialectHub, "prefix": peft.DialectHub} {
			f, dir := family{folder: folder, batch: "padded", classify: true}, filepath.Join(t.TempDir(), "adapter")
			g := modeltest.OpenGolden(t, folder+"/golden.safetensors")
			bindingstest.Do(t, func(s *bindings.Scope) error {
				m := f.load(t, s)
				defer m.Close()
				a := shaken(t, s, method, peft.Options{}, m, 0.1)
				want := logits(s, m, f.input(g, s))
				if err := a.Save(s, dir, m); err != nil {
					return err
				}
				a.Close()
				if err := peft.Convert(s, dir, dir+"-theirs", dialect, m); err != nil {
					return err
				}
				back, err := peft.Load(s, dir+"-theirs", m)
				if err != nil {
					return err
				}
				defer back.Close()
				modeltest.Close(t, folder+" "+method, logits(s, m, f.input(g, s)), want, 1e-6)
				return nil
			})
		}
	}
}

func TestAdaptersThatEncodersDoNotTake(t *testing.T) {
	bert := family{folder: "bert/tiny", classify: true}
	loadFails(t, bert, modeltest.Testdata(t, "peft/llama-seqcls-prefix"), "peft counts a prefix's positions before those of the text")
	loadFails(t, bert, modeltest.Testdata(t, "peft/distilbert-seqcls-lora"), "target_modules name no linear map of the model's blocks (query, key, value, o, up, down)")
	dir := filepath.Join(t.TempDir(), "adapter")
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := family{folder: "bert/tiny", classify: true, as: "distilbert"}.load(t, s)
		defer m.Close()
		a := shaken(t, s, "lora", peft.Options{}, m, 0.1)
		defer a.Close()
		return a.Save(s, dir, m)
	})
	loadFails(t, bert, dir, "architecture distilbert, this one has bert")
	if info, err := peft.Probe(dir); err != nil || info.Family != "distilbert" {
		t.Errorf("the folder is of a %q, %v", info.Family, err)
	}
}
