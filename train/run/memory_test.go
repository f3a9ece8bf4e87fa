package run_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/train/report"
	"gopeft/train/run"
)

// Runs hold what was predicted, each side in a process of its own: how much of libtorch one has touched counts.
func TestEstimateMemoryIsWhatARunTakes(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: trains models of 100 MB; run without -short")
	}
	dir := t.TempDir()
	for name, config := range map[string]string{
		"llama": `{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 8000, "hidden_size": 512, "intermediate_size": 1408,
			"num_hidden_layers": 6, "num_attention_heads": 8, "initializer_range": 0.02}`,
		"bert": `{"model_type": "bert", "vocab_size": 8000, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6, "num_attention_heads": 8}`,
		"qwen3": `{"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "vocab_size": 8000, "hidden_size": 512, "intermediate_size": 1408,
			"num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 96}`,
		"gpt2": `{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 8000, "n_embd": 512, "n_layer": 6, "n_head": 8}`,
	} {
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m, err := model.New(s, []byte(config), model.Options{Classify: name == "bert"})
			if err != nil {
				return err
			}
			path := filepath.Join(dir, name)
			return errors.Join(os.Mkdir(path, 0o700), model.Save(s, path, m), m.Close())
		})
	}
	r := rand.New(rand.NewPCG(5, 6))
	var b strings.Builder
	for row := range 8 {
		ids := make([]int, 128)
		for i := range ids {
			ids[i] = 3 + r.IntN(7990)
		}
		raw, err := json.Marshal(ids)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "{\"input_ids\": %s, \"label\": %d}\n", raw, row%2)
	}
	rows := filepath.Join(dir, "rows.jsonl")
	if err := os.WriteFile(rows, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	type kind struct {
		method    string
		amp       string
		recompute bool
		quantize  string
		way       string
		processes int
		model     string // "": llama, or bert to classify
	}
	cases := []kind{
		{"full", "none", false, "", "", 1, ""}, {"full", "none", true, "", "", 1, ""}, {"lora", "none", false, "", "", 1, ""}, {"lora", "none", true, "", "", 1, ""},
		{"last", "none", false, "", "", 1, ""}, {"channel-scale", "none", false, "", "", 1, ""}, {"lora", "none", false, "nf4", "", 1, ""}, {"lora", "none", true, "int8", "", 1, ""},
		{"lora", "none", false, "", "stream", 1, ""}, {"lora", "none", true, "", "stream", 1, ""}, {"full", "none", false, "", "", 2, ""}, {"lora", "none", false, "", "", 2, ""},
		{"lora", "none", false, "", "shard", 2, ""}, {"full", "none", false, "", "optimizer", 2, ""}, {"full", "none", false, "", "shard", 2, ""},
		{"full", "none", false, "", "classify", 1, ""}, {"lora", "none", false, "", "classify", 1, ""}, {"lora", "none", true, "", "classify", 1, ""},
	}
	for _, name := range []string{"qwen3", "gpt2"} {
		cases = append(cases, kind{"full", "none", false, "", "", 1, name}, kind{"lora", "none", false, "", "", 1, name}, kind{"lora", "none", true, "", "", 1, name})
	}
	cases = append(cases, kind{"lora", "none", true, "", "shard", 3, ""}) // last, for it changes the environment
	for _, c := range cases {
		if c.processes == 3 {
			// Its tensors are below 1 MiB. glibc maps those from 128 KiB on as long as none was freed, and keeps them in heaps of
			// 64 MiB, of which nothing goes back, from then on; told to, it goes on mapping them. What heaps keep is not predicted.
			t.Setenv("MALLOC_MMAP_THRESHOLD_", "131072")
		}
		cfg := run.Defaults()
		cfg.Model.Task, cfg.Model.Method, cfg.Model.Path, cfg.Data.Train, cfg.Output.Out = "causal", c.method, filepath.Join(dir, cmp.Or(c.model, "llama")), rows, filepath.Join(dir, "run")
		cfg.Model.Quantize, cfg.Machine.Stream, cfg.Machine.Shard, cfg.Loop.ShardState = c.quantize, c.way == "stream", c.way == "shard", c.way == "optimizer"
		cfg.Machine.AMP, cfg.Loop.Recompute, cfg.Loop.BatchSize, cfg.Data.MaxLength, cfg.Loop.MaxSteps, cfg.Machine.Threads = c.amp, c.recompute, 8, 128, 1, 2
		cfg.Data.MaskPrompt, cfg.Output.NoTrainEval = false, true
		if c.way == "classify" {
			cfg.Model.Task, cfg.Model.Path = c.way, filepath.Join(dir, "bert")
		}
		said := run.Memory{}
		ask := inChild(t, "estimate", cfg)
		ask.Env = append(ask.Env, fmt.Sprint("GOPEFT_TEST_PROCESSES=", c.processes))
		raw, err := ask.Output()
		if err == nil {
			err = json.Unmarshal(raw, &said)
		}
		if err != nil {
			t.Fatalf("estimate: %v", err)
		}
		if c.processes > 1 {
			inRanks(t, cfg, c.processes, rankPlan{Mode: run.Overwrite})
		} else if out, err := inChild(t, "train", cfg).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		sum, err := report.ReadSummary(filepath.Join(cfg.Output.Out, "summary.json"))
		if err != nil {
			t.Fatal(err)
		}
		ratio := said.Total / float64(sum.PeakRSSMB)
		t.Logf("%+v: %.3f of the %.0f MiB taken: %v", c, ratio, sum.PeakRSSMB, said)
		if ratio < 0.88 || ratio > 1.12 {
			t.Errorf("%+v: predicted %.0f MiB, the run took %.0f", c, said.Total, sum.PeakRSSMB)
		}
	}
}
