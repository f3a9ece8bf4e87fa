package model_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/hf"
)

// What is copied from the host's memory unit by unit computes the bits of what is always there, forward and backward, plain and
// quantised, with a head of its own and a tied one. Here the device is the CPU.
func TestOffloadedWeightsComputeTheSame(t *testing.T) {
	tied := strings.Replace(streamedConfig, "{", `{"tie_word_embeddings": true, `, 1)
	for _, config := range []string{streamedConfig, tied} {
		for _, quantise := range []hf.Quantisation{hf.Plain, hf.NF4} {
			for _, recompute := range []bool{false, true} {
				t.Run(fmt.Sprint(config == tied, quantise, recompute), func(t *testing.T) {
					bindingstest.Do(t, func(s *bindings.Scope) error {
						dir := t.TempDir()
						m, err := model.New(s, []byte(config), model.Options{Quantise: quantise})
						if err != nil {
							return err
						}
						if err := errors.Join(model.Save(s, dir, m), m.Close()); err != nil {
							return err
						}
						want, err := offloaded(s, dir, false, recompute)
						if err != nil {
							return err
						}
						got, err := offloaded(s, dir, true, recompute)
						if err == nil && !bytes.Equal(got, want) {
							t.Error("other bits")
						}
						return err
					})
				})
			}
		}
	}
}

// offloaded are the bits that two passes, and the gradients of one, give of a model that was saved.
func offloaded(s *bindings.Scope, dir string, offload, recompute bool) (bits []byte, err error) {
	m, err := model.Load(s, dir, model.Options{Quantise: hf.Keep})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	trained := m.Params().Get("model.layers.0.input_layernorm.weight")
	trained.SetTrainable(s, true)
	if offload {
		r, err := model.Offload(m, bindings.CPU)
		if err != nil {
			return nil, err
		}
		if again, err := model.Offload(m, bindings.CPU); err != nil || again.Moved != r.Moved || r.Moved == 0 {
			return nil, fmt.Errorf("%+v, and then %+v are offloaded (%w)", r, again, err)
		}
	}
	lm, in := m.(model.CausalLM), model.Input{CheckpointActivations: recompute}
	err = s.Run(func(s *bindings.Scope) error {
		in.IDs = s.FromInt64s([]int64{5, 6, 7, 8, 9, 10, 11, 12}, 1, 8)
		logits := lm.Logits(s, m.Forward(s, in).Hidden)
		s.Backward(s.Mean(s.Mul(logits, logits)))
		bits = append(logits.Raw(), s.Grad(trained.T).Raw()...)
		s.NoGrad(func() { bits = append(bits, lm.Logits(s, m.Forward(s, in).Hidden).Raw()...) })
		return nil
	})
	return bits, err
}

// A weight that is offloaded cannot be trained, nor one that is trained already be offloaded on another device.
func TestOffloadedWeightsStayFrozen(t *testing.T) {
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := savedModel(t, s)
		if _, err := model.Offload(m, bindings.CPU); err != nil {
			return err
		}
		p := m.Params().Get("model.layers.0.mlp.up_proj.weight")
		defer func() {
			if e, ok := recover().(*bindings.OpError); !ok || !strings.Contains(e.Error(), "streamed") {
				t.Errorf("%v", e)
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}()
		p.SetTrainable(s, true)
		return nil
	})
}
