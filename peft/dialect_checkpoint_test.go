package peft_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model/hf/files"
	"gopeft/model/modeltest"
	"gopeft/peft"
)

// TestEarlyCheckpointsOfLLaMAAdapter reads the layouts of gates that lit-llama and litgpt have had.
func TestEarlyCheckpointsOfLLaMAAdapter(t *testing.T) {
	f := family{folder: "llama/base", batch: "right"}
	src := modeltest.Testdata(t, "peft/llama-causal-adaption")
	a, err := files.OpenSafetensors(filepath.Join(src, "adapter_model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	lit := func(gate []int64, repeat int) []files.Tensor {
		var ts []files.Tensor
		for _, layer := range []string{"1", "2"} {
			p, _ := a.Lookup("base_model.model.model.layers." + layer + ".self_attn.adaption_prompt")
			g, _ := a.Lookup("base_model.model.model.layers." + layer + ".self_attn.adaption_gate")
			ts = append(ts, files.Tensor{Name: "transformer.h." + layer + ".attn.adapter_wte.weight", DType: files.F32, Shape: p.Shape[1:], Data: bytes.Clone(p.Data)},
				files.Tensor{Name: "transformer.h." + layer + ".attn.gating_factor", DType: files.F32, Shape: gate, Data: bytes.Repeat(g.Data, repeat)})
		}
		return ts
	}
	g := modeltest.OpenGolden(t, "peft/llama-causal-adaption/golden.safetensors")
	for name, ts := range map[string][]files.Tensor{
		"scalar": lit([]int64{1}, 1), "lit-llama": lit([]int64{1, 4, 1, 1}, 4), "litgpt": lit([]int64{1, 1, 4, 1}, 4),
	} {
		path := filepath.Join(t.TempDir(), "lit.safetensors")
		if err := files.WriteSafetensors(path, ts, nil); err != nil {
			t.Fatal(err)
		}
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := f.load(t, s)
			defer m.Close()
			method, err := peft.Load(s, path, m)
			if err != nil {
				return err
			}
			defer method.Close()
			closeTo(t, s, 1e-5, name, logits(s, m, f.input(g, s)), g.Tensor(s, "right.logits"))
			return nil
		})
	}
	for name, c := range map[string]struct {
		ts   []files.Tensor
		want string
	}{
		"gap":         {rename("h.1.", "h.0.")(lit([]int64{1}, 1)), "without gaps"},
		"not on top":  {rename("h.2.", "h.1.")(rename("h.1.", "h.0.")(lit([]int64{1}, 1))), "2 layers, this one has 3"},
		"extra":       {rename("h.1.attn.gating_factor", "h.1.attn.bias")(lit([]int64{1}, 1)), "unexpected keys"},
		"no gate":     {lit([]int64{1}, 1)[:3], "one prompt and one gate"},
		"three gates": {lit([]int64{3}, 3), "want 4 gates"},
		"nothing":     {rename("transformer.h", "x")(lit([]int64{1}, 1)), "not an adapter"},
		"v2 in part": {append(lit([]int64{1, 4, 1, 1}, 4), files.Tensor{Name: "transformer.h.1.attn.attn.adapter_bias", DType: files.F32, Shape: []int64{48}, Data: ones([]int64{48})}),
			"missing (transformer.h.0.attn.attn.adapter_bias"},
	} {
		path := filepath.Join(t.TempDir(), "lit.safetensors")
		if err := files.WriteSafetensors(path, c.ts, nil); err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) { loadFails(t, f, path, c.want) })
	}
}

// TestGatesOfAllLayers reads files as LLaMA-Adapter's repository publishes them: a table of the upper layers'
// prompts beside the gates of all layers.
func TestGatesOfAllLayers(t *testing.T) {
	f := family{folder: "llama/base", batch: "right"} // 3 layers, of which 2 have prompts of 5
	src := modeltest.Testdata(t, "peft/llama-causal-adaption")
	g := modeltest.OpenGolden(t, "peft/llama-causal-adaption/golden.safetensors")
	dir := t.TempDir()
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := f.load(t, s)
		defer m.Close()
		return peft.Convert(s, src, filepath.Join(dir, "upper.safetensors"), peft.DialectLLaMAFile, m)
	})
	upper, err := os.ReadFile(filepath.Join(dir, "upper.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	gate := func(ts []files.Tensor, layer string) []byte {
		return ts[slices.IndexFunc(ts, func(x files.Tensor) bool { return x.Name == "layers."+layer+".attention.gate" })].Data
	}
	lowest := func(data []byte) func([]files.Tensor) []files.Tensor {
		return func(ts []files.Tensor) []files.Tensor {
			return append(ts, files.Tensor{Name: "layers.0.attention.gate", DType: files.F32, Shape: []int64{1, 4, 1, 1}, Data: data})
		}
	}
	none, some := make([]byte, 16), slices.Concat(make([]byte, 12), []byte{0, 0, 0x80, 0x3f})
	negative := slices.Repeat([]byte{0, 0, 0, 0x80}, 4)
	untrained := func(ts []files.Tensor) []files.Tensor {
		clear(gate(ts, "1"))
		clear(gate(ts, "2"))
		return lowest(none)(ts)
	}
	for _, c := range []struct {
		name           string
		change         func([]files.Tensor) []files.Tensor
		given          int // LoadOptions.AdapterLength
		layers, length int
		same           bool // computes what the source does
		want           string
	}{
		{name: "the upper layers' alone", change: lowest(nil), layers: 2, length: 5, same: true},
		{name: "zeros below", change: lowest(none), layers: 2, length: 5, same: true},
		{name: "negative zeros below", change: lowest(negative), layers: 2, length: 5, same: true},
		{name: "length given", change: lowest(none), given: 5, layers: 2, length: 5, same: true},
		{name: "another length given", change: lowest(none), given: 10, want: "adapter-length 10 does not fit: adapter_query.weight has 10 rows, and 2 to 3 layers have prompts"},
		{name: "a length that divides nothing", change: lowest(none), given: 4, want: "adapter-length 4 does not fit"},
		{name: "a gate without prompt", change: lowest(some), want: "adapter_query.weight has 10 rows for 3 to 3 layers, which does not tell the prompts' length: give it as adapter-length"},
		{name: "untrained", change: untrained, layers: 1, length: 10},
		{name: "untrained, length given", change: untrained, given: 5, layers: 2, length: 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "adapter.safetensors")
			if err := os.WriteFile(path, upper, 0o600); err != nil {
				t.Fatal(err)
			}
			if c.name != "the upper layers' alone" {
				rewrite(t, path, c.change)
			}
			if c.want != "" && c.given == 0 {
				loadFails(t, f, path, c.want)
				return
			}
			bindingstest.Do(t, func(s *bindings.Scope) error {
				m := f.load(t, s)
				defer m.Close()
				method, err := peft.LoadWith(s, path, m, peft.LoadOptions{AdapterLength: c.given})
				if c.want != "" {
					if err == nil || !strings.Contains(err.Error(), c.want) {
						t.Errorf("got %v, want %q", err, c.want)
					}
					return nil
				}
				if err != nil {
					return err
				}
				defer method.Close()
				if o := method.Options(); o.AdapterLayers != c.layers || o.AdapterLength != c.length || !o.GateTanh {
					t.Errorf("%d layers with prompts of %d, want %d and %d", o.AdapterLayers, o.AdapterLength, c.layers, c.length)
				}
				if c.same {
					closeTo(t, s, 1e-5, "logits", logits(s, m, f.input(g, s)), g.Tensor(s, "right.logits"))
				}
				return nil
			})
		})
	}
}

// TestThePublishedLayout probes files with the numbers of the published 7B adapter, but for the width: 300 prompts and
// 32 layers with gates.
func TestThePublishedLayout(t *testing.T) {
	for zeros, want := range map[int]int{2: 30, 0: 0, 9: 30} { // 300 rows are none of 32 layers, and not of 23
		path := filepath.Join(t.TempDir(), "adapter.safetensors")
		ts := []files.Tensor{{Name: "adapter_query.weight", DType: files.F32, Shape: []int64{300, 8}, Data: ones([]int64{300, 8})}}
		for i := range 32 {
			data := ones([]int64{1, 2, 1, 1})
			if i < zeros {
				clear(data)
			}
			ts = append(ts, files.Tensor{Name: fmt.Sprintf("layers.%d.attention.gate", i), DType: files.F32, Shape: []int64{1, 2, 1, 1}, Data: data})
		}
		if err := files.WriteSafetensors(path, ts, nil); err != nil {
			t.Fatal(err)
		}
		info, err := peft.Probe(path)
		if err != nil {
			t.Fatal(err)
		}
		if o := info.Options; o.AdapterLayers != want || want > 0 && o.AdapterLength != 10 {
			t.Errorf("%d gates are zero: %d layers with prompts of %d", zeros, o.AdapterLayers, o.AdapterLength)
		}
	}
}

// TestSecondVersionsOfLitGPT reads what litgpt has written of LLaMA-Adapter v2, whose queries, keys and values are one map,
// and the same in lit-llama's layout. Saved as gopeft does, it stays what it is.
func TestSecondVersionsOfLitGPT(t *testing.T) {
	f := family{folder: "llama/gqa", batch: "full"}
	litLLaMA := filepath.Join(t.TempDir(), "lit-llama.safetensors")
	rewriteAs(t, modeltest.Testdata(t, "litgpt/v2-attn.safetensors"), litLLaMA, toLitLLaMA)
	for _, c := range []struct{ path, golden string }{
		{modeltest.Testdata(t, "litgpt/v2-attn.safetensors"), "attn"}, {modeltest.Testdata(t, "litgpt/v2-qkv.safetensors"), "qkv"}, {litLLaMA, "attn"},
	} {
		g := modeltest.OpenGolden(t, "litgpt/v2-"+c.golden+".golden.safetensors")
		whole := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
		t.Run(filepath.Base(c.path), func(t *testing.T) {
			bindingstest.Do(t, func(s *bindings.Scope) error {
				m := f.load(t, s)
				defer m.Close()
				method, err := peft.Load(s, c.path, m)
				if err != nil {
					return err
				}
				if o := method.Options(); method.Name() != "llama-adapter-v2" || o.AdapterLayers != 1 || o.AdapterLength != 4 {
					t.Errorf("%s with %+v", method.Name(), o)
				}
				in := f.input(g, s)
				want := logits(s, m, in)
				closeTo(t, s, 1e-5, "logits", want, g.Tensor(s, "full.logits"))
				generatesWithACache(t, s, f, m, whole)
				dir := filepath.Join(t.TempDir(), "own")
				if err := method.Save(s, dir, m); err != nil {
					return err
				}
				method.Close()
				if method, err = peft.Load(s, dir, m); err != nil {
					return err
				}
				defer method.Close()
				modeltest.Close(t, "saved", logits(s, m, in), want, 0)
				return nil
			})
		})
	}
}

// toLitLLaMA gives litgpt's tensors the names and the order that lit-llama has: all queries, then keys, then values, rotated
// by pairs of neighbours. The model has 4 heads of 4 for queries and 2 for keys and values.
func toLitLLaMA(ts []files.Tensor) []files.Tensor {
	const number, width = 4, 4
	names := strings.NewReplacer("attn.attn.", "attn.c_attn.", "attn.proj.", "attn.c_proj.", "mlp.fc_", "mlp.c_fc", "mlp.proj.", "mlp.c_proj.",
		"norm_1.weight", "rms_1.scale", "norm_2.weight", "rms_2.scale", "ln_f.weight", "ln_f.scale")
	for i, x := range ts {
		if strings.Contains(x.Name, ".attn.attn.") {
			head := func(n int, turn bool) (out []byte) { // the n-th of those in turn: 2 queries, a key, a value
				data := x.Data[n*width*number:][:width*number]
				for k := range width {
					from := k
					if turn { // neighbours are half a head apart elsewhere
						from = k%2*(width/2) + k/2
					}
					out = append(out, data[from*number:][:number]...)
				}
				return out
			}
			ts[i].Data = slices.Concat(head(0, true), head(1, true), head(4, true), head(5, true), head(2, true), head(6, true), head(3, false), head(7, false))
		}
		ts[i].Name = names.Replace(x.Name)
	}
	return ts
}
