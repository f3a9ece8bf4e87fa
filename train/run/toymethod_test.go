package run_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/modeltest"
	"gopeft/peft"
	"gopeft/train/data"
	"gopeft/train/infer"
	"gopeft/train/run"
)

// channelScale multiplies every output of attention's output map by a factor that is learned: a method that gopeft does
// not have, as CONTRIBUTING.md says to write one. All that follows it in this file uses it.
type channelScale struct{ peft.Common }

func channelScaleMethod() peft.Definition {
	return peft.Definition{Name: "channel-scale", New: func(peft.Options) peft.Tuner { return channelScale{} }}
}

func (channelScale) Adds(x *peft.Structure) ([]peft.NewParam, error) {
	targets, err := x.Targets(string(model.O))
	var out []peft.NewParam
	for _, t := range targets {
		out = append(out, peft.NewParam{Name: t.Name + ".scale", Shape: []int64{int64(t.Out)}, Init: peft.Constant(1)})
	}
	return out, err
}

func (channelScale) Attach(x *peft.Attachment) error {
	targets, err := x.Targets(string(model.O))
	for _, t := range targets {
		t.Block.SetWrap(t.Slot, &scaledMap{t.Dense, x.Param(t.Name + ".scale")})
	}
	return err
}

func (channelScale) Needs() peft.Needs { return peft.Needs{KeptOutputs: 1} } // y, for the gradient of the factors in g·y
func (channelScale) LR() float64       { return 1e-2 }
func (channelScale) Describe() string  { return "a factor of one on every output of attention" }

func (channelScale) Merge(s *bindings.Scope, x *peft.Attachment) ([]peft.Merged, error) {
	targets, err := x.Targets(string(model.O))
	var out []peft.Merged
	for _, t := range targets {
		g := s.Detach(x.Param(t.Name + ".scale").T)
		n := peft.Merged{Target: t, Weight: s.Mul(s.To(s.Detach(t.Dense.W.T), bindings.Float), s.Unsqueeze(g, 1))}
		if b := t.Dense.B; b != nil {
			n.Bias = s.Mul(s.To(s.Detach(b.T), bindings.Float), g)
		}
		out = append(out, n)
	}
	return out, err
}

type scaledMap struct {
	dense *model.Dense
	scale *model.Param // [out]
}

// Forward implements model.Linear.
func (l *scaledMap) Forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		y := l.dense.Forward(s, x)
		return s.To(s.Mul(y, l.scale.T), y.DType())
	})
}

// withToy is every method that gopeft has, and channel-scale.
func withToy() peft.Catalog { return append(peft.Builtin(), channelScaleMethod()) }

// TestAMethodIsOneFile: a method that this file alone knows trains, lists, resumes, saves, loads, merges and is refused
// by who does not know it, on every family. Its memory is measured with the others', in
// TestEstimateMemoryIsWhatARunTakes.
func TestAMethodIsOneFile(t *testing.T) {
	const name = "channel-scale"
	if !slices.Contains(withToy().Names(), name) || slices.Contains(peft.Methods(), name) {
		t.Errorf("the methods are %v, gopeft's own %v", withToy().Names(), peft.Methods())
	}
	decoder := func(t *testing.T, method string) run.Config {
		cfg := tinyConfig(t, method)
		cfg.Model.Path, cfg.Data.Data = modeltest.Testdata(t, "llama/seqcls"), writeClasses(t, 120)
		return cfg
	}
	for _, family := range []struct {
		name   string
		config func(t *testing.T, method string) run.Config
	}{
		{"encoder", tinyConfig}, {"decoder", decoder}, {"language model", packedConfig},
	} {
		t.Run(family.name, func(t *testing.T) {
			whole := family.config(t, name)
			whole.Methods, whole.Loop.LR = withToy(), 0
			listed := whole
			listed.Model.Method = "no-such"
			if err := listed.Check(); err == nil || !strings.HasSuffix(err.Error(), ", "+name) {
				t.Errorf("an unknown method gives %v", err)
			}
			sum := mustRun(t, whole, run.Refuse)
			if whole.Model.Task == "classify" && !(sum.Accuracy.Test > 0) || sum.Method != name {
				t.Errorf("the run's summary is %+v", sum)
			}

			stopped := whole
			stopped.Output.Out = filepath.Join(t.TempDir(), "stopped")
			interrupt(t, stopped, "train", 2)
			mustRun(t, stopped, run.Resume)
			sameRun(t, comparable(t, stopped.Output.Out), comparable(t, whole.Output.Out))

			usesToy(t, whole, filepath.Join(whole.Output.Out, "best"))
		})
	}
}

// usesToy loads, estimates and merges what a run has trained.
func usesToy(t *testing.T, cfg run.Config, adapter string) {
	t.Helper()
	if _, err := peft.Probe(adapter); err == nil || !strings.Contains(err.Error(), `peft_type "CHANNEL_SCALE" is not supported`) {
		t.Errorf("gopeft's own methods read the folder: %v", err)
	}
	classify := cfg.Model.Task == "classify"
	info, err := cfg.Methods.Probe(adapter)
	if err != nil || info.Method != cfg.Model.Method || info.NumLabels > 0 != classify {
		t.Errorf("the folder is %+v (%v)", info, err)
	}
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m, err := model.Load(s, cfg.Model.Path, model.Options{Classify: classify, Labels: info.Labels})
		if err != nil {
			return err
		}
		defer m.Close()
		method, err := cfg.Methods.Load(s, adapter, m)
		if err != nil {
			return err
		}
		defer method.Close()
		_, own := method.Params().Count()
		if planned, err := cfg.Methods.Count(method.Name(), peft.Options{}, m.Info()); err != nil || planned != own || own != int64(m.Info().Layers*m.Info().Hidden) {
			t.Errorf("%d parameters of its own, %d were said (%v)", own, planned, err)
		}
		moved := false
		for _, p := range method.Params().All() {
			for _, v := range p.T.Float32s() {
				moved = moved || v != 1
			}
		}
		if !moved {
			t.Error("what was loaded is what training started from")
		}
		return nil
	})
	rows, err := data.OpenExamples(cfg.Data.Data, data.LoadOptions{NoLabels: true, Limit: 8})
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	merged := filepath.Join(t.TempDir(), "merged")
	bindingstest.Do(t, func(s *bindings.Scope) error {
		src := infer.Source{Model: cfg.Model.Path, Adapter: adapter, Methods: cfg.Methods}
		r, err := infer.Merge(context.Background(), s, src, infer.FoldOptions{Out: merged, DType: "fp32", Threads: 1, Data: rows, MaxLength: 16})
		if err == nil && (r.Method != cfg.Model.Method || !(r.Difference < 1e-4)) {
			t.Errorf("merged: %+v", r)
		}
		return err
	})
	if _, err := os.Stat(filepath.Join(merged, "model.safetensors")); err != nil {
		t.Error(err)
	}
}
