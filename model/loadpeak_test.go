package model_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/hf"
)

// TestMain lets a test load a model in a process of its own, to see what that takes.
func TestMain(m *testing.M) {
	if path := os.Getenv("GOPEFT_TEST_LOAD"); path != "" {
		grown, err := loadPeak(path, os.Getenv("GOPEFT_TEST_DTYPE"))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(grown)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// loadPeak loads a model, reads every weight, and gives by how many bytes the process's peak grew.
func loadPeak(path, as string) (grown int64, err error) {
	err = bindings.Do(context.Background(), func(s *bindings.Scope) error {
		o := model.Options{Classify: strings.Contains(path, "distilbert")}
		switch as {
		case "bf16":
			o.DType = bindings.BFloat16
		case "bf16 base":
			o.Base = bindings.BFloat16
		case "nf4":
			o.Base, o.Quantise = bindings.BFloat16, hf.NF4
		}
		if err := readAll(s, "../testdata/llama/base", model.Options{}); err != nil { // what libtorch sets up once
			return err
		}
		before, err := statusBytes("VmRSS:")
		if err != nil {
			return err
		}
		if err := readAll(s, path, o); err != nil {
			return err
		}
		after, err := statusBytes("VmHWM:")
		grown = after - before
		return err
	})
	return grown, err
}

// readAll loads a model and reads every weight.
func readAll(s *bindings.Scope, path string, o model.Options) error {
	m, err := model.Load(s, path, o)
	if err != nil {
		return err
	}
	if p := model.FirstNonFinite(s, m.Params().All()); p != nil {
		err = fmt.Errorf("%s is not finite", p.Name)
	}
	return errors.Join(err, m.Close())
}

// statusBytes is a figure of /proc/self/status.
func statusBytes(field string) (int64, error) {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(raw), field)
	words := strings.Fields(rest)
	if len(words) == 0 {
		return 0, fmt.Errorf("no %s in /proc/self/status", field)
	}
	kib, err := strconv.ParseInt(words[0], 10, 64)
	return kib << 10, err
}

func configOf(t *testing.T, raw []byte) string {
	t.Helper()
	var c struct {
		DType string `json:"torch_dtype"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	return c.DType
}

// Loading takes little more than the weights as they are held, whatever the file's dtype.
func TestLoadingPeak(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: writes models of 200 MB; run without -short")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		config string
		most   float64
	}{
		{"llama", `{"model_type": "llama", "vocab_size": 32000, "hidden_size": 640, "intermediate_size": 1728, "num_hidden_layers": 10, "num_attention_heads": 10, "initializer_range": 0.02}`, 1.15},
		{"distilbert", `{"model_type": "distilbert", "dim": 768, "hidden_dim": 3072, "n_layers": 4, "n_heads": 12}`, 1.3},
	} {
		dir := map[bindings.DType]string{}
		var elements, maps int64
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m, err := model.New(s, []byte(c.config), model.Options{Classify: c.name == "distilbert"})
			if err != nil {
				return err
			}
			_, elements = m.Params().Count()
			for _, p := range m.Params().All() {
				if strings.Contains(p.Name, "layer") && p.T.Dim() == 2 {
					maps += p.T.Numel()
				}
			}
			for _, d := range []bindings.DType{bindings.Float, bindings.Half, bindings.BFloat16} {
				if dir[d], err = os.MkdirTemp(t.TempDir(), c.name); err != nil {
					return err
				}
				if err := model.SaveAs(s, dir[d], m, d); err != nil {
					return err
				}
			}
			return m.Close()
		})
		for _, as := range []struct {
			file bindings.DType
			load string
			size float64 // bytes
			most float64
		}{
			{bindings.Float, "fp32", 4 * float64(elements), c.most}, {bindings.Half, "fp32", 4 * float64(elements), c.most}, {bindings.Float, "bf16", 2 * float64(elements), c.most},
			{bindings.BFloat16, "bf16 base", 2 * float64(elements), 1.05},
			{bindings.BFloat16, "nf4", 2*float64(elements-maps) + 0.516*float64(maps), 1.1},
		} {
			runtime := 0.0
			if as.most != c.most {
				runtime = 16 << 20 // what reading them sets up besides
			}
			child := exec.Command(exe)
			child.Env = append(os.Environ(), "GOPEFT_TEST_LOAD="+dir[as.file], "GOPEFT_TEST_DTYPE="+as.load)
			out, err := child.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			grown, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			ratio := (float64(grown) - runtime) / as.size
			t.Logf("%s, %v file as %s: %.3f × %.0f MiB", c.name, as.file, as.load, ratio, as.size/(1<<20))
			if ratio > as.most || ratio < 0.9 {
				t.Errorf("%s, %v file as %s: loading grew the process by %.3f × the weights, want at most %v (and all of them read)", c.name, as.file, as.load, ratio, as.most)
			}
		}
	}
}
