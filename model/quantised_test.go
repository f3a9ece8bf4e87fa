package model_test

import (
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/hf"
	"gopeft/model/modeltest"
)

// quantisedFolders are those of testdata/quantised_folders, with how their files hold the blocks' maps.
var quantisedFolders = map[string]string{
	"nf4": "NF4", "nf4-double": "NF4", "nf4-storage": "NF4", "fp4": "FP4", "int8": "INT8", "gptq": "INT4", "gptq-v2": "INT4", "awq": "INT4",
	"compressed-tensors": "INT4", "compressed-tensors-zeros": "INT4",
}

func TestQuantisedFoldersComputeAsTheirLibraries(t *testing.T) {
	for name := range quantisedFolders {
		for _, held := range []hf.Quantisation{hf.Plain, hf.Keep} {
			quantisedComputesAsItsLibrary(t, name, held)
		}
	}
}

func quantisedComputesAsItsLibrary(t *testing.T, name string, held hf.Quantisation) {
	t.Run(name+"/"+held.String(), func(t *testing.T) {
		g := modeltest.OpenGolden(t, "quantised_folders/"+name+"/golden.safetensors")
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := causalLM(t, load(t, s, modeltest.Testdata(t, "quantised_folders/"+name), model.Options{Quantise: held}))
			if model.Quantised(m) != (held == hf.Keep) {
				t.Error("the weights are held otherwise")
			}
			in := batch(g, s, "full")
			h := m.Forward(s, in).Hidden
			modeltest.Close(t, "logits", m.Logits(s, h), g.Tensor(s, "full.logits"), 5e-5) // of up to 24
			h, targets := shifted(s, h, g.Tensor(s, "full.labels"))
			modeltest.Close(t, "loss", s.LMCrossEntropy(h, m.LMHead().Value(), targets, -100, true, 0), g.Tensor(s, "full.loss"), 1e-5)
			if q, ok := m.Config()["quantization_config"]; ok {
				t.Errorf("a model of plain weights has the quantization_config %v", q)
			}
			return m.Close()
		})
	})
}

func TestDescribeSaysHowWeightsAreQuantised(t *testing.T) {
	for name, dtype := range quantisedFolders {
		bindingstest.Do(t, func(s *bindings.Scope) error {
			d, err := model.Describe(s, modeltest.Testdata(t, "quantised_folders/"+name), model.Options{})
			if err != nil {
				return err
			}
			quantised := 0
			for _, p := range d.Params {
				if p.DType == dtype && len(p.Shape) == 2 {
					quantised++
				}
			}
			if quantised != 14 || len(d.Params) != 20 {
				t.Errorf("%s: %d of %d parameters are %s: %v", name, quantised, len(d.Params), dtype, d.Params)
			}
			return nil
		})
	}
}

// The mean row of a head is that of its rows in fp32, whatever it is held in, frozen or trained.
func TestMeanRowIsThatOfTheRows(t *testing.T) {
	for _, c := range []struct {
		folder string
		o      model.Options
	}{{"llama/gqa", model.Options{}}, {"llama/base-bf16", model.Options{Base: bindings.BFloat16}}, {"quantised_folders/nf4", model.Options{Quantise: hf.Keep}}} {
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := causalLM(t, load(t, s, modeltest.Testdata(t, c.folder), c.o))
			head := m.LMHead()
			all := head.Rows(s, s.Arange(0, head.T.Size(0), bindings.Int64, bindings.CPU), bindings.Float)
			modeltest.Close(t, c.folder, head.MeanRow(s), s.MeanDim(all, 0, false), 1e-6)
			return m.Close()
		})
	}
}
