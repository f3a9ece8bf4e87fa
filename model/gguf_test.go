package model_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/hf/files"
	"gopeft/model/modeltest"
)

// ggufFile writes GGUF files the way llama.cpp's converter does, for tests.
type ggufFile struct {
	keys    bytes.Buffer
	n       uint64
	tensors []ggufTensor
}

type ggufTensor struct {
	name  string
	shape []int64
	kind  uint32 // 0 F32, 1 F16, 8 Q8_0
	data  []byte
}

func put(b *bytes.Buffer, vs ...any) {
	for _, v := range vs {
		if s, ok := v.(string); ok {
			put(b, uint64(len(s)))
			b.WriteString(s)
			continue
		}
		_ = binary.Write(b, binary.LittleEndian, v)
	}
}

func (g *ggufFile) key(name string, v any) {
	g.n++
	switch v := v.(type) {
	case string:
		put(&g.keys, name, uint32(8), v)
	case float32:
		put(&g.keys, name, uint32(6), v)
	case int:
		put(&g.keys, name, uint32(4), uint32(v))
	}
}

func (g *ggufFile) write(t testing.TB, path string) {
	t.Helper()
	var head, data bytes.Buffer
	put(&head, []byte("GGUF"), uint32(3), uint64(len(g.tensors)), g.n)
	head.Write(g.keys.Bytes())
	for _, ts := range g.tensors {
		put(&head, ts.name, uint32(len(ts.shape)))
		for i := len(ts.shape) - 1; i >= 0; i-- {
			put(&head, uint64(ts.shape[i]))
		}
		put(&head, ts.kind, uint64(data.Len()))
		data.Write(ts.data)
		data.Write(make([]byte, (32-data.Len()%32)%32))
	}
	head.Write(make([]byte, (32-head.Len()%32)%32))
	if err := os.WriteFile(path, append(head.Bytes(), data.Bytes()...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// interleave puts each head's two halves of rows in turn, as the converter does for LLaMA's q and k.
func interleave(v []float32, heads, cols int) []float32 {
	out := make([]float32, len(v))
	d := len(v) / cols / heads
	for h := range heads {
		for i := range d {
			from := h*d + i%2*d/2 + i/2
			copy(out[(h*d+i)*cols:(h*d+i+1)*cols], v[from*cols:])
		}
	}
	return out
}

var toGGUF = strings.NewReplacer("model.embed_tokens", "token_embd", "model.norm", "output_norm", "lm_head", "output", "model.layers.", "blk.",
	"input_layernorm", "attn_norm", "post_attention_layernorm", "ffn_norm", "self_attn.q_proj", "attn_q", "self_attn.k_proj", "attn_k",
	"self_attn.v_proj", "attn_v", "self_attn.o_proj", "attn_output", "mlp.gate_proj", "ffn_gate", "mlp.up_proj", "ffn_up", "mlp.down_proj", "ffn_down",
	"self_attn.q_norm", "attn_q_norm", "self_attn.k_norm", "attn_k_norm", "transformer.wte", "token_embd", "transformer.wpe", "position_embd",
	"transformer.ln_f", "output_norm", "transformer.h.", "blk.", "ln_1", "attn_norm", "ln_2", "ffn_norm", "attn.c_attn", "attn_qkv",
	"attn.c_proj", "attn_output", "mlp.c_fc", "ffn_up", "mlp.c_proj", "ffn_down")

// convert writes a model with its matrices in the given GGUF type.
func convert(t *testing.T, m model.Model, arch string, kind uint32, extra map[string]any) *ggufFile {
	i := m.Info()
	g := &ggufFile{}
	g.key("general.architecture", arch)
	for k, v := range map[string]any{"embedding_length": i.Hidden, "feed_forward_length": i.FFN, "block_count": i.Layers,
		"attention.head_count": i.Heads, "attention.head_count_kv": i.KVHeads, "context_length": i.MaxPositions,
		"attention.layer_norm_rms_epsilon": float32(1e-5)} {
		g.key(arch+"."+k, v)
	}
	for k, v := range extra {
		g.key(k, v)
	}
	for _, p := range m.Params().All() {
		v, shape := p.T.Float32s(), p.T.Shape()
		for part, heads := range map[string]int{"q_proj": i.Heads, "k_proj": i.KVHeads} {
			if arch == "llama" && strings.Contains(p.Name, part) {
				v = interleave(v, heads, len(v)/int(shape[0]))
			}
		}
		use := kind
		if len(shape) == 1 {
			use = 0
		}
		name := toGGUF.Replace(p.Name)
		if place := p.Place(); place.Name != "" { // parts of one map follow one another
			name = toGGUF.Replace(place.Name)
			if last := len(g.tensors) - 1; place.First > 0 {
				for ; g.tensors[last].name != name; last-- {
				}
				g.tensors[last].shape[0] += shape[0]
				g.tensors[last].data = append(g.tensors[last].data, encode(t, v, use)...)
				continue
			}
		}
		g.tensors = append(g.tensors, ggufTensor{name, shape, use, encode(t, v, use)})
	}
	return g
}

func encode(t *testing.T, v []float32, kind uint32) []byte {
	t.Helper()
	var b bytes.Buffer
	switch kind {
	case 0:
		put(&b, v)
	case 1:
		b.Write(make([]byte, 2*len(v)))
		if err := files.EncodeFloat32(b.Bytes(), files.F16, v); err != nil {
			t.Fatal(err)
		}
	case 8:
		for ; len(v) > 0; v = v[32:] {
			largest := float32(0)
			for _, x := range v[:32] {
				largest = max(largest, float32(math.Abs(float64(x))))
			}
			scale := files.F16ToFloat32(files.F16FromFloat32(largest / 127))
			put(&b, files.F16FromFloat32(scale))
			for _, x := range v[:32] {
				put(&b, int8(math.RoundToEven(float64(x/scale))))
			}
		}
	}
	return b.Bytes()
}

const wideLLaMA = `{"model_type": "llama", "vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
	"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "initializer_range": 0.2}`

const wideGPT2 = `{"model_type": "gpt2", "vocab_size": 64, "n_embd": 64, "n_inner": 96, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2}`

func TestGGUFGivesTheSameModel(t *testing.T) {
	qwen := strings.Replace(strings.Replace(wideLLaMA, `"llama"`, `"qwen2"`, 1), "{", `{"tie_word_embeddings": true, `, 1)
	for _, c := range []struct {
		name, config, arch string
		kind               uint32
		tolerance          float64
		extra              map[string]any
	}{
		{"F32", wideLLaMA, "llama", 0, 0, nil},
		{"F16", wideLLaMA, "llama", 1, 2e-2, nil},
		{"Q8_0", wideLLaMA, "llama", 8, 2e-1, nil},
		{"linear", strings.Replace(wideLLaMA, "{", `{"rope_scaling": {"type": "linear", "factor": 2}, `, 1), "llama", 0, 0,
			map[string]any{"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": float32(2)}},
		{"qwen2", qwen, "qwen2", 0, 0, nil},
		{"qwen3", strings.Replace(strings.Replace(wideLLaMA, `"llama"`, `"qwen3"`, 1), "{", `{"head_dim": 24, `, 1), "qwen3", 0, 0,
			map[string]any{"qwen3.attention.key_length": 24}},
		{"gpt2", wideGPT2, "gpt2", 0, 0, nil},
		{"gpt2 in Q8_0", wideGPT2, "gpt2", 8, 2e-1, nil},
		{"biases on queries, keys and values alone", qwen, "llama", 0, 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			bindingstest.Do(t, func(s *bindings.Scope) error {
				s.Seed(11)
				built, err := model.New(s, []byte(c.config), model.Options{})
				if err != nil {
					return err
				}
				m := causalLM(t, built)
				for _, p := range m.Params().All() {
					if strings.HasSuffix(p.Name, ".bias") {
						s.Copy(p.T, s.Normal(p.T.Shape(), 0, 0.5, bindings.Float, bindings.CPU))
					}
				}
				path := filepath.Join(t.TempDir(), "model.gguf")
				convert(t, m, c.arch, c.kind, c.extra).write(t, path)
				back := causalLM(t, load(t, s, path, model.Options{}))
				in := model.Input{IDs: s.FromInt64s([]int64{1, 5, 9, 33, 63, 2, 7}, 1, 7)}
				got, want := back.Logits(s, back.Forward(s, in).Hidden), m.Logits(s, m.Forward(s, in).Hidden)
				modeltest.Close(t, "logits", got, want, c.tolerance)
				if len(back.Fresh()) != 0 || back.Config()["model_type"] != m.Config()["model_type"] {
					t.Errorf("fresh %v, config %v", back.Fresh(), back.Config())
				}
				dir := t.TempDir() // a GGUF model is saved as a HuggingFace folder
				if err := model.Save(s, dir, back); err != nil {
					return err
				}
				again := causalLM(t, load(t, s, dir, model.Options{}))
				modeltest.Close(t, "saved again", again.Logits(s, again.Forward(s, in).Hidden), got, 0)
				classifier := load(t, s, path, model.Options{Classify: true, Labels: []string{"no", "yes"}})
				if n := classifier.Classify(s, in, classifier.Forward(s, in)).Size(1); n != 2 {
					t.Errorf("%d labels", n)
				}
				return errorsJoin(m.Close(), back.Close(), again.Close(), classifier.Close())
			})
		})
	}
}

func TestBadGGUFModelsAreNamed(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name   string
		change func(*ggufFile)
		want   string
	}{
		{"architecture", func(g *ggufFile) { *g = ggufFile{}; g.key("general.architecture", "mamba") }, `"mamba"`},
		{"key", func(g *ggufFile) { g.keys.Reset(); g.n = 0; g.key("general.architecture", "llama") }, "llama."},
		{"tensor", func(g *ggufFile) { g.tensors = g.tensors[:len(g.tensors)-2] }, "missing (model.norm.weight"},
		{"no words", func(g *ggufFile) { g.tensors = g.tensors[1:] }, "token_embd.weight"},
		{"unknown tensor", func(g *ggufFile) { g.tensors[1].name = "blk.0.strange.weight" }, "unexpected (blk.0.strange.weight"},
		{"yarn", func(g *ggufFile) { g.key("llama.rope.scaling.type", "yarn") }, `"yarn"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(c.name, " ", "-")+".gguf")
			bindingstest.Do(t, func(s *bindings.Scope) error {
				m, err := model.New(s, []byte(wideLLaMA), model.Options{})
				if err != nil {
					return err
				}
				g := convert(t, m, "llama", 0, nil)
				c.change(g)
				g.write(t, path)
				return m.Close()
			})
			base := bindings.Live()
			err := bindings.Do(context.Background(), func(s *bindings.Scope) error {
				_, err := model.Load(s, path, model.Options{})
				return err
			})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, c.want)
			}
			if n := bindings.Live() - base; n != 0 {
				t.Errorf("%d tensors left alive", n)
			}
		})
	}
}

// FuzzGGUFConfig checks that the metadata of any GGUF file are refused or describe a model.
func FuzzGGUFConfig(f *testing.F) {
	for _, arch := range []string{"llama", "qwen2"} {
		for _, more := range []map[string]any{
			nil, {arch + ".rope.scaling.type": "linear", arch + ".rope.scaling.factor": float32(2)}, {arch + ".attention.key_length": 3},
			{"tokenizer.ggml.eos_token_id": 7, arch + ".rope.freq_base": float32(-1)},
		} {
			g := &ggufFile{}
			g.key("general.architecture", arch)
			for k, v := range map[string]any{"embedding_length": 8, "feed_forward_length": 4, "block_count": 1, "attention.head_count": 2, "context_length": 16} {
				g.key(arch+"."+k, v)
			}
			for k, v := range more {
				g.key(k, v)
			}
			for name, shape := range map[string][]int64{"token_embd.weight": {3, 8}, "blk.0.attn_q.bias": {8}, "rope_freqs.weight": {2}} {
				n := shape[0]
				if len(shape) > 1 {
					n *= shape[1]
				}
				g.tensors = append(g.tensors, ggufTensor{name, shape, 0, make([]byte, 4*n)})
			}
			path := filepath.Join(f.TempDir(), "seed.gguf")
			g.write(f, path)
			raw, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(raw)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(t.TempDir(), "x.gguf")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		facts, err := model.ReadFacts(path)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %v", err)
			}
			return
		}
		if facts.Room < 1 || facts.Vocab < 1 || facts.Pad < 0 {
			t.Errorf("accepted %+v", facts)
		}
	})
}
