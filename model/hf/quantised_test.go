package hf_test

import (
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model/hf"
	"gopeft/model/hf/files"
	"gopeft/model/modeltest"
)

const seen = "model.layers.0.self_attn.k_proj.weight" // of every folder the golden file has it dequantised

var folders = map[string]bindings.QuantKind{
	"nf4": bindings.NF4, "nf4-double": bindings.NF4, "nf4-storage": bindings.NF4, "fp4": bindings.FP4, "int8": bindings.Int8Rows,
	"gptq": bindings.Int4, "gptq-v2": bindings.Int4, "awq": bindings.Int4, "compressed-tensors": bindings.Int4, "compressed-tensors-zeros": bindings.Int4,
}

func folder(t testing.TB, name string) string {
	return modeltest.Testdata(t, "quantised_folders/"+name)
}

func open(t testing.TB, path string) *hf.Checkpoint {
	t.Helper()
	c, err := hf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// request asks for everything that the checkpoint has.
func request(c *hf.Checkpoint, as hf.Quantisation) hf.Request {
	var r hf.Request
	for _, e := range c.Weights.Entries() {
		r.Wants = append(r.Wants, hf.Want{Name: e.Name, Shape: e.Shape, Quantise: as})
	}
	return r
}

func wantOf(r hf.Request, name string) int {
	return slices.IndexFunc(r.Wants, func(w hf.Want) bool { return w.Name == name })
}

func TestPlainWantsAreDequantised(t *testing.T) {
	for name := range folders {
		t.Run(name, func(t *testing.T) {
			bindingstest.Do(t, func(s *bindings.Scope) error {
				c := open(t, folder(t, name))
				r := request(c, hf.Plain)
				ts, err := c.Load(s, r)
				if err != nil {
					return err
				}
				want := modeltest.OpenGolden(t, "quantised_folders/"+name+"/golden.safetensors").Tensor(s, "dequantised."+seen)
				modeltest.Close(t, seen, ts[wantOf(r, seen)], want, 0)
				r.DType = bindings.BFloat16
				if ts, err = c.Load(s, r); err != nil {
					return err
				}
				modeltest.Close(t, seen, ts[wantOf(r, seen)], s.To(want, bindings.BFloat16), 0)
				return nil
			})
		})
	}
}

func TestKeepHandsOutWhatTheFileHolds(t *testing.T) {
	for name, kind := range folders {
		for _, copied := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " copied ", copied), func(t *testing.T) {
				bindingstest.Do(t, func(s *bindings.Scope) error {
					c := open(t, folder(t, name))
					r := request(c, hf.Keep)
					r.Copy = copied
					kept, mapped := map[string]*bindings.Quantised{}, map[string]func() error{}
					r.Quantised = func(want int, q *bindings.Quantised) { kept[r.Wants[want].Name] = q }
					r.Mapped = func(want int, e files.Entry) { mapped[r.Wants[want].Name] = e.Release }
					ts, err := c.Load(s, r)
					if err != nil {
						return err
					}
					if len(kept) != 14 {
						t.Errorf("kept are %v", slices.Sorted(maps.Keys(kept)))
					}
					q := kept[seen]
					if q == nil || q.Kind != kind || q.Rows != 32 || q.Cols != 64 {
						t.Fatalf("%s is %+v", seen, q)
					}
					if placeholder := ts[wantOf(r, seen)]; !slices.Equal(placeholder.Shape(), []int64{32, 64}) || placeholder.DType() != bindings.Float {
						t.Errorf("its placeholder is %v", placeholder)
					}
					inFile := !copied && !strings.HasPrefix(name, "gptq") && name != "awq"
					if release := mapped[seen]; (release != nil) != inFile {
						t.Errorf("it lies in the file: %v", release != nil)
					} else if inFile {
						if err := release(); err != nil {
							return err
						}
					}
					if copied {
						if err := c.Close(); err != nil {
							return err
						}
					}
					want := modeltest.OpenGolden(t, "quantised_folders/"+name+"/golden.safetensors").Tensor(s, "dequantised."+seen)
					modeltest.Close(t, seen, s.Dequantise(q, bindings.Float), want, 0)
					return nil
				})
			})
		}
	}
}

// archive is one of entries that a test makes.
type archive []files.Entry

func (a archive) Entries() []files.Entry { return a }
func (a archive) Lookup(name string) (files.Entry, bool) {
	i := slices.IndexFunc(a, func(e files.Entry) bool { return e.Name == name })
	if i < 0 {
		return files.Entry{}, false
	}
	return a[i], true
}
func (a archive) Metadata() map[string]string { return nil }
func (a archive) Unchanged() error            { return nil }
func (a archive) Close() error                { return nil }

// blocks are GGUF's, of every quantised type: 6 rows of 256, as two heads hold them.
func blocks(t testing.TB) *hf.Checkpoint {
	t.Helper()
	var a archive
	for _, e := range open(t, filepath.Join("files", "testdata", "blocks.gguf")).Weights.Entries() {
		if e.DType.Quantised() {
			e.Shape = []int64{6, 256}
			a = append(a, e)
		}
	}
	slices.SortFunc(a, func(x, y files.Entry) int { return strings.Compare(x.Name, y.Name) })
	return &hf.Checkpoint{Path: "blocks", Weights: a}
}

func TestGGUFBlocksAreKept(t *testing.T) {
	for _, heads := range []int64{0, 1, 3} {
		t.Run(fmt.Sprint(heads, " heads"), func(t *testing.T) {
			bindingstest.Do(t, func(s *bindings.Scope) error {
				c := blocks(t)
				r := request(c, hf.Plain)
				r.Interleaved = func(string) int64 { return heads }
				want, err := c.Load(s, r)
				if err != nil {
					return err
				}
				r = request(c, hf.Keep)
				r.Interleaved = func(string) int64 { return heads }
				kept, mapped := 0, 0
				r.Quantised = func(i int, q *bindings.Quantised) {
					kept++
					modeltest.Close(t, r.Wants[i].Name, s.Dequantise(q, bindings.Float), want[i], 0)
				}
				r.Mapped = func(int, files.Entry) { mapped++ }
				if _, err = c.Load(s, r); err != nil {
					return err
				}
				if kept != 8 || mapped != map[bool]int{true: 8, false: 0}[heads == 0] {
					t.Errorf("%d kept, %d of them in the file", kept, mapped)
				}
				return nil
			})
		})
	}
}

func TestPlainMatricesAreQuantised(t *testing.T) {
	const table = "model.embed_tokens.weight"
	for _, name := range []string{"int8", "nf4-storage", "gptq"} { // fp32, bf16 and fp16
		for as, kind := range map[hf.Quantisation]bindings.QuantKind{hf.NF4: bindings.NF4, hf.Int8: bindings.Int8Rows} {
			t.Run(name+" "+as.String(), func(t *testing.T) {
				bindingstest.Do(t, func(s *bindings.Scope) error {
					c := open(t, folder(t, name))
					r := request(c, hf.Plain)
					i := wantOf(r, table)
					ts, err := c.Load(s, r)
					if err != nil {
						return err
					}
					r.Wants[i].Quantise = as
					var got *bindings.Quantised
					r.Quantised = func(_ int, q *bindings.Quantised) { got = q }
					if _, err := c.Load(s, r); err != nil {
						return err
					}
					if got == nil || got.Kind != kind || (got.NestedBlock > 0) != (as == hf.NF4) {
						t.Fatalf("it is %+v", got)
					}
					want := s.Dequantise(s.Quantise(ts[i], kind, as == hf.NF4), bindings.Float)
					modeltest.Close(t, table, s.Dequantise(got, bindings.Float), want, 0)
					return nil
				})
			})
		}
	}
}

func TestLoadRefusesToQuantiseAnew(t *testing.T) {
	llama := modeltest.Testdata(t, "llama/base")
	for _, c := range []struct {
		name string
		open func() *hf.Checkpoint
		as   hf.Quantisation
		want []string
	}{
		{"blocks as nf4", func() *hf.Checkpoint { return blocks(t) }, hf.NF4, []string{"Q4_0", "already", "keep"}},
		{"blocks as int8", func() *hf.Checkpoint { return blocks(t) }, hf.Int8, []string{"Q4_0", "already", "keep"}},
		{"int8 as nf4", func() *hf.Checkpoint { return open(t, folder(t, "int8")) }, hf.NF4, []string{"down_proj", "INT8 already", "keep"}},
		{"nf4 as int8", func() *hf.Checkpoint { return open(t, folder(t, "nf4")) }, hf.Int8, []string{"down_proj", "NF4 already", "keep"}},
		{"fp4 as nf4", func() *hf.Checkpoint { return open(t, folder(t, "fp4")) }, hf.NF4, []string{"down_proj", "FP4 already", "keep"}},
		{"gptq as nf4", func() *hf.Checkpoint { return open(t, folder(t, "gptq")) }, hf.NF4, []string{"down_proj", "INT4 already", "keep"}},
		{"rows of 16 as nf4", func() *hf.Checkpoint { return open(t, llama) }, hf.NF4, []string{"lm_head.weight", "16", "64"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bindingstest.Do(t, func(s *bindings.Scope) error {
				checkpoint := c.open()
				r := request(checkpoint, hf.Plain)
				for i := range r.Wants {
					if !strings.Contains(r.Wants[i].Name, "embed") {
						r.Wants[i].Quantise = c.as
					}
				}
				slices.SortFunc(r.Wants, func(a, b hf.Want) int { return strings.Compare(a.Name, b.Name) })
				r.Quantised = func(int, *bindings.Quantised) {}
				_, err := checkpoint.Load(s, r)
				refused(t, err, c.want...)
				return nil
			})
		})
	}
}

func refused(t testing.TB, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that says %q", want)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) || strings.Contains(err.Error(), "\n") {
			t.Errorf("error %q does not say %q in one line", err, w)
		}
	}
}

func TestScalesThatAreNoNumbersAreRefused(t *testing.T) {
	for name, part := range map[string]string{
		"nf4": seen + ".absmax", "nf4-double": seen + ".nested_absmax", "int8": strings.TrimSuffix(seen, "weight") + "SCB",
		"gptq": strings.TrimSuffix(seen, "weight") + "scales",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(folder(t, name))); err != nil {
				t.Fatal(err)
			}
			a, err := files.Open(filepath.Join(dir, "model.safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			var out []files.Tensor
			for _, e := range a.Entries() {
				data := slices.Clone(e.Data)
				if e.Name == part {
					if err := files.EncodeFloat32(data[:e.DType.Size()], e.DType, []float32{float32(math.NaN())}); err != nil {
						t.Fatal(err)
					}
				}
				out = append(out, files.Tensor{Name: e.Name, DType: e.DType, Shape: e.Shape, Data: data})
			}
			if _, err := files.WriteSharded(dir, "model", out, nil, 0); err != nil {
				t.Fatal(err)
			}
			for _, as := range []hf.Quantisation{hf.Plain, hf.Keep} {
				bindingstest.Do(t, func(s *bindings.Scope) error {
					c := open(t, dir)
					r := request(c, as)
					r.Quantised = func(int, *bindings.Quantised) {}
					_, err := c.Load(s, r)
					refused(t, err, seen)
					return nil
				})
			}
		})
	}
}

func TestOpenNamesAQuantisationThatItDoesNotKnow(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(folder(t, "gptq"))); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "config.json")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(raw), `"gptq"`, `"aqlm"`, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = hf.Open(dir)
	refused(t, err, dir, "config.json", "aqlm")
}
