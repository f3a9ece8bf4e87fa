package model_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
)

const streamedConfig = `{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 3000, "hidden_size": 512, "intermediate_size": 1024,
	"num_hidden_layers": 6, "num_attention_heads": 8, "max_position_embeddings": 64, "initializer_range": 0.05}`

// A pass forward and one backward leave two units of a streamed model in memory, and all blocks of another.
func TestStreamedWeightsLeaveMemory(t *testing.T) {
	bindingstest.Do(t, func(s *bindings.Scope) error {
		dir := t.TempDir()
		m, err := model.New(s, []byte(streamedConfig), model.Options{})
		if err != nil {
			return err
		}
		if err := errors.Join(model.Save(s, dir, m), m.Close()); err != nil {
			return err
		}
		for _, stream := range []bool{false, true} {
			for _, recompute := range []bool{false, true} {
				if err := passes(t, s, dir, stream, recompute); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func passes(t *testing.T, s *bindings.Scope, dir string, stream, recompute bool) error {
	m, err := model.Load(s, dir, model.Options{})
	if err != nil {
		return err
	}
	var blocks, one int64
	for _, b := range m.Hooks().Blocks {
		one = 0
		for _, x := range b.Modules {
			one += x.Dense.W.Bytes()
		}
		blocks += one
	}
	trained := m.Params().Get("model.layers.0.input_layernorm.weight")
	trained.SetTrainable(s, true)
	if stream {
		if r, err := m.Stream(bindings.CPU); err != nil || r.Moved != blocks || r.Held != 0 || r.DType != bindings.Float {
			t.Errorf("%+v of %d bytes (%v)", r, blocks, err)
		}
	}
	lm, in := m.(model.CausalLM), model.Input{CheckpointActivations: recompute}
	head := lm.LMHead().Bytes()
	check := func(when string) {
		t.Helper()
		got := residentBytes(t, filepath.Join(dir, "model.safetensors"))
		// The kernel maps some pages around each that is touched, among them those that units share.
		if most := 2*max(one, head) + 4<<20; stream && got > most || !stream && got < blocks {
			t.Errorf("stream %t, recompute %t, %s: %d bytes of the file are in memory; blocks have %d, the head %d", stream, recompute, when, got, one, head)
		}
	}
	err = s.Run(func(s *bindings.Scope) error {
		in.IDs = s.FromInt64s([]int64{5, 6, 7, 8, 9, 10, 11, 12}, 1, 8)
		loss := s.Mean(lm.Logits(s, m.Forward(s, in).Hidden))
		check("after the pass forward")
		s.Backward(loss)
		check("after the pass backward")
		s.NoGrad(func() { lm.Logits(s, m.Forward(s, in).Hidden) })
		check("after a pass without gradients")
		if stream {
			before := pagesInMemory(t, lm.LMHead())
			in.HiddenOnly = true
			s.NoGrad(func() { m.Forward(s, in) })
			if after := pagesInMemory(t, lm.LMHead()); before < int(head)/os.Getpagesize()/2 || after > before/8 {
				t.Errorf("a pass without logits leaves %d pages of the head in memory, of %d before", after, before)
			}
		}
		return nil
	})
	return errors.Join(err, m.Close())
}

// pagesInMemory is how many pages of a weight this process has in memory.
func pagesInMemory(t *testing.T, p *model.Param) (n int) {
	t.Helper()
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = p.T.View(func(raw []byte) error {
		page, first := uintptr(os.Getpagesize()), uintptr(unsafe.Pointer(unsafe.SliceData(raw)))
		entries := make([]byte, 8*(uintptr(len(raw))/page))
		if _, err := f.ReadAt(entries, int64(first/page*8)); err != nil {
			return err
		}
		for i := 7; i < len(entries); i += 8 { // the highest bit of each entry says so
			n += int(entries[i] >> 7)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// residentBytes is how much of a mapped file is in this process's memory.
func residentBytes(t *testing.T, path string) (sum int64) {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, ours := bufio.NewScanner(f), false
	for lines.Scan() {
		line := lines.Text()
		if first, _, _ := strings.Cut(line, " "); !strings.HasSuffix(first, ":") {
			ours = strings.HasSuffix(line, path)
		}
		var kib int64
		if _, err := fmt.Sscanf(line, "Rss: %d kB", &kib); err == nil && ours {
			sum += kib << 10
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return sum
}

// A weight that is trained later is no longer given back: its pages are all there is of it.
func TestStreamingLetsTrainedWeightsBe(t *testing.T) {
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := savedModel(t, s)
		if _, err := m.Stream(bindings.CPU); err != nil {
			return err
		}
		lm, in := m.(model.CausalLM), model.Input{IDs: s.FromInt64s([]int64{5, 6, 7}, 1, 3)}
		pass := func() { s.NoGrad(func() { lm.Logits(s, m.Forward(s, in).Hidden) }) }
		pass()
		p := m.Params().Get("model.layers.0.mlp.up_proj.weight")
		p.SetTrainable(s, true)
		s.NoGrad(func() { s.Fill(p.T, 3) })
		p.SetTrainable(s, false)
		pass()
		pass()
		for _, v := range p.T.Float32s() {
			if v != 3 {
				t.Fatal("what was trained is gone")
			}
		}
		return m.Close()
	})
}
