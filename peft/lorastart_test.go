package peft_test

import (
	"math"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model/modeltest"
	"gopeft/peft"
)

// TestLoRAStartsWithPartsOfTheWeights: what peft's folders cannot tell of how LoRA begins: that PiSSA's factors share the singular
// values evenly, that iterations come near to it, and that OLoRA's B is orthonormal.
func TestLoRAStartsWithPartsOfTheWeights(t *testing.T) {
	const scale = 5.0 / 3
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := families[3].load(t, s)
		defer m.Close()
		name := "model.layers.1.self_attn.v_proj"
		factors := func(init string) (a, b, product bindings.Tensor) {
			s.Seed(5)
			method, err := peft.New("lora", peft.Options{LoRAOptions: peft.LoRAOptions{Rank: 3, Alpha: 5, LoRAInit: init}})
			if err == nil {
				err = method.Attach(s, m)
			}
			if err != nil {
				t.Error(err)
				return a, b, product
			}
			get := func(end string) bindings.Tensor { return s.Clone(s.Detach(method.Params().Get(name + end).T)) }
			a, b = get(".lora_A.weight"), get(".lora_B.weight")
			modeltest.Close(t, init+": A as it is subtracted", get(".lora_A.start"), a, 0)
			modeltest.Close(t, init+": B as it is subtracted", get(".lora_B.start"), s.Neg(b), 0)
			method.Close()
			return a, b, s.MatMul(b, a)
		}
		square := func(x bindings.Tensor) bindings.Tensor { return s.MatMul(s.Transpose(x, 0, 1), x) }
		var w bindings.Tensor
		for _, p := range m.Params().All() {
			if p.Name == name+".weight" {
				w = p.Stored(s, bindings.Float)
			}
		}
		_, sigma, _ := s.SVD(w)
		a, b, exact := factors("pissa")
		diagonal := make([]float32, 9)
		for i, v := range sigma.Float32s()[:3] {
			diagonal[4*i] = v / scale
		}
		want := s.FromFloat32s(diagonal, 3, 3)
		modeltest.Close(t, "AAᵀ of PiSSA", square(s.Transpose(a, 0, 1)), want, 1e-5)
		modeltest.Close(t, "BᵀB of PiSSA", square(b), want, 1e-5)
		_, _, near := factors("pissa_niter_30")
		modeltest.Close(t, "BA after 30 iterations", near, exact, 1e-4)
		_, _, far := factors("pissa_niter_0")
		if d := modeltest.MaxDiff(far, exact); d < 1e-2 || math.IsNaN(d) {
			t.Errorf("BA without an iteration differs from the exact one by %g alone", d)
		}
		_, b, _ = factors("olora")
		modeltest.Close(t, "BᵀB of OLoRA", square(b), s.FromFloat32s([]float32{1, 0, 0, 0, 1, 0, 0, 0, 1}, 3, 3), 1e-5)
		return nil
	})
}

// TestBegunLoRAIsReadBackWhole: both pairs of factors are read from the plain LoRA that was saved, to the bit.
func TestBegunLoRAIsReadBackWhole(t *testing.T) {
	dir := t.TempDir()
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := families[0].load(t, s)
		defer m.Close()
		method := shaken(t, s, "lora", peft.Options{LoRAOptions: peft.LoRAOptions{Rank: 4, RSLoRA: true, LoRAInit: "pissa", AlphaPattern: []string{"v_lin=3"}}}, m, 0.1)
		if err := method.Save(s, dir, m); err != nil {
			return err
		}
		var names []string
		var sums []uint64
		for _, p := range method.Params().All() {
			names, sums = append(names, p.Name), append(sums, checksum(p.T))
		}
		method.Close()
		back, err := peft.Load(s, dir, m)
		if err != nil {
			return err
		}
		defer back.Close()
		for i, name := range names {
			if p := back.Params().Get(name); p == nil || checksum(p.T) != sums[i] {
				t.Errorf("%s is not what was saved", name)
			}
		}
		if o := back.Options(); o.Rank != 4 || o.LoRAInit != "pissa" || o.Alpha != 8 {
			t.Errorf("read back with rank %d, alpha %g, begun with %q", o.Rank, o.Alpha, o.LoRAInit)
		}
		return nil
	})
}
