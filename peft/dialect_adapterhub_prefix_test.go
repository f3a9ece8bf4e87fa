package peft_test

import (
	"path/filepath"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model/modeltest"
	"gopeft/peft"
)

// TestPrefixesOfDecodersInAdapterHub: that library does not count a prefix's positions, peft does. Converted, a
// prefix computes the same; saved again, it stays what it is; and it works with caches and packed rows.
func TestPrefixesOfDecodersInAdapterHub(t *testing.T) {
	ropes := func(kind string) family { return family{name: kind, folder: "llama/" + kind, batch: "left"} }
	for _, f := range []family{families[1], families[2], families[4], ropes("rope-linear"), ropes("rope-llama3")} {
		g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
		for _, projection := range []bool{false, true} {
			t.Run(f.name+map[bool]string{true: "-projection"}[projection], func(t *testing.T) {
				dir := t.TempDir()
				at := func(name string) string { return filepath.Join(dir, name) }
				bindingstest.Do(t, func(s *bindings.Scope) error {
					s.Seed(4)
					m := f.load(t, s)
					defer m.Close()
					in := f.input(g, s)
					method := shaken(t, s, "prefix", peft.Options{PromptOptions: peft.PromptOptions{VirtualTokens: 7}, PrefixOptions: peft.PrefixOptions{PrefixProjection: projection}}, m, 0.5)
					want := logits(s, m, in)
					if err := method.Save(s, at("peft"), m); err != nil {
						return err
					}
					method.Close()
					if err := peft.Convert(s, at("peft"), at("hub"), peft.DialectHub, m); err != nil {
						return err
					}
					for name, keys := range weightsFiles(t, at("hub")) {
						for _, key := range keys {
							if !strings.Contains(key, ".self_prefix.") && !strings.HasPrefix(key, "score.") {
								t.Errorf("%s holds %s", name, key)
							}
						}
					}
					method, err := peft.Load(s, at("hub"), m)
					if err != nil {
						return err
					}
					closeTo(t, s, 5e-6, "converted", logits(s, m, in), want)
					if n := m.Hooks().MemoryLen(); n != 0 {
						t.Errorf("the prefix takes %d positions", n)
					}
					if !f.classify {
						generatesWithACache(t, s, f, m, g)
						packsRows(t, s, f.name, m, g, method.Trainable(m))
					}
					if err := method.Save(s, at("again"), m); err != nil {
						return err
					}
					same := logits(s, m, in)
					method.Close()
					if err := peft.Convert(s, at("again"), at("back"), peft.DialectPeft, m); err != nil {
						return err
					}
					for name, dialect := range map[string]peft.Dialect{"again": peft.DialectHub, "back": peft.DialectPeft} {
						method, err := peft.Load(s, at(name), m)
						if err != nil {
							return err
						}
						if info, err := peft.Probe(at(name)); err != nil || info.Dialect != dialect || method.Options().PrefixProjection != projection {
							t.Errorf("%s: %s, %+v (%v)", name, info.Dialect, method.Options(), err)
						}
						tolerance := map[string]float64{"again": 0, "back": 5e-6}[name]
						closeTo(t, s, tolerance, name, logits(s, m, in), map[string]bindings.Tensor{"again": same, "back": want}[name])
						method.Close()
						if m.Hooks().Uncounted {
							t.Error("the model counts no positions after the method is gone")
						}
					}
					return nil
				})
			})
		}
	}
}

// TestPrefixesOfDynamicRotationsStay: their keys cannot be turned once for texts of all lengths.
func TestPrefixesOfDynamicRotationsStay(t *testing.T) {
	f := family{folder: "llama/rope-dynamic", batch: "right"}
	for _, projection := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "adapter")
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := f.load(t, s)
			defer m.Close()
			method := shaken(t, s, "prefix", peft.Options{PromptOptions: peft.PromptOptions{VirtualTokens: 3}, PrefixOptions: peft.PrefixOptions{PrefixProjection: projection}}, m, 0.1)
			if err := method.Save(s, dir, m); err != nil {
				return err
			}
			method.Close()
			err := peft.Convert(s, dir, dir+"-hub", peft.DialectHub, m)
			if err == nil || !strings.Contains(err.Error(), "the other does not: the model's rotation of keys depends on the text's length") {
				t.Errorf("got %v", err)
			}
			return nil
		})
	}
}
