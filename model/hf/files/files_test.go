package files

import (
	"bytes"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gopeft/model/modeltest/realdata"
)

// copyTo gives a folder with copies of test files under other names.
func copyTo(t *testing.T, names map[string]string) string {
	t.Helper()
	folder := t.TempDir()
	for to, from := range names {
		content, err := os.ReadFile(filepath.Join("testdata", from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, to), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func TestOpenModelPrefersWhatTransformersPrefers(t *testing.T) {
	safe := map[string]string{"format": "pt"}
	cases := []struct {
		name   string
		files  map[string]string
		opened string
		meta   map[string]string
	}{
		{"safetensors before bin", map[string]string{"model.safetensors": "every_type.safetensors", "pytorch_model.bin": "zip.bin"}, "model.safetensors", safe},
		{"bin before gguf", map[string]string{"pytorch_model.bin": "legacy.bin", "x.gguf": "blocks.gguf"}, "pytorch_model.bin", map[string]string{}},
		{"a single gguf of any name", map[string]string{"tiny[1].gguf": "blocks.gguf"}, "tiny[1].gguf", nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			folder := copyTo(t, c.files)
			a, err := OpenModel(folder)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			if got := filepath.Base(a.Entries()[0].File); got != c.opened {
				t.Errorf("opened %s, want %s", got, c.opened)
			}
			if diff := cmp.Diff(c.meta, a.Metadata()); c.meta != nil && diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOpensShardedTorchFiles(t *testing.T) {
	folder := copyTo(t, map[string]string{"a.bin": "zip.bin", "b.bin": "training.pt"})
	index := `{"metadata":{"total_size":9},"weight_map":{"linear.weight":"a.bin","0.weight":"b.bin"}}`
	if err := os.WriteFile(filepath.Join(folder, "pytorch_model.bin.index.json"), []byte(index), 0o644); err != nil {
		t.Fatal(err)
	}
	a, err := OpenModel(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	// Tensors that the index leaves out are there all the same.
	if got := len(a.Entries()); got != 19+4 {
		t.Errorf("%d tensors", got)
	}
	first, last := a.Entries()[0], a.Entries()[22]
	if filepath.Base(first.File) != "a.bin" || filepath.Base(last.File) != "b.bin" {
		t.Errorf("order: first from %s, last from %s", first.File, last.File)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	folder := t.TempDir()
	put := func(name, content string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pipe := filepath.Join(folder, "pipe.bin")
	if err := syscall.Mkfifo(pipe, 0o644); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name, path string
		want       []string
	}{
		{"absent", filepath.Join(folder, "absent.safetensors"), []string{"absent.safetensors", "no such file"}},
		{"absent index", filepath.Join(folder, "absent.index.json"), []string{"absent.index.json", "no such file"}},
		{"a folder", folder, []string{"a folder"}},
		{"a named pipe", pipe, []string{"pipe.bin", "not a regular file"}},
		{"empty", put("empty.bin", ""), []string{"empty.bin", "the file is empty"}},
		{"text", put("notes.bin", "hello, world"), []string{"notes.bin", "not a safetensors, PyTorch or GGUF file", "hello"}},
		{"git-lfs", put("lfs.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), []string{"lfs.safetensors", "git lfs pull"}},
		{"big-endian", put("be.gguf", "FUGG\x00\x00\x00\x03"), []string{"be.gguf", "big-endian"}},
		{"damaged safetensors", put("x.safetensors", "\xff\xff\xff\xff\xff\xff\xff\xff{}"), []string{"x.safetensors", "header of"}},
		{"damaged gguf", put("x.gguf", "GGUF"), []string{"x.gguf", "cut short"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a, err := Open(c.path)
			wantError(t, err, c.want...)
			if a != nil {
				t.Error("an archive beside the error")
			}
		})
	}
}

func TestAFolderWithoutWeightsSaysWhatWasLookedFor(t *testing.T) {
	empty := t.TempDir()
	_, err := OpenModel(empty)
	wantError(t, err, empty, "model.safetensors", "pytorch_model.bin")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v does not match fs.ErrNotExist", err)
	}
	_, err = OpenModel(copyTo(t, map[string]string{"a.gguf": "blocks.gguf", "b.gguf": "blocks.gguf"}))
	wantError(t, err, "2 GGUF files", "a.gguf")
	_, err = OpenModel(filepath.Join(empty, "absent"))
	wantError(t, err, "absent")
	_, err = OpenFirst(filepath.Join(empty, "absent"), "a.bin")
	wantError(t, err, "absent")
	file := writeTemp(t, "file", []byte("x"))
	_, err = OpenFirst(file, "a.bin")
	wantError(t, err, "file")
	a, err := OpenFirst(copyTo(t, map[string]string{"adapter_model.bin": "zip.bin"}), "adapter_model.safetensors", "adapter_model.bin")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
}

func TestDTypesKnowTheirLayout(t *testing.T) {
	for d := F64; int(d) < len(kinds); d++ {
		back, err := ParseDType(d.String())
		if err != nil || back != d {
			t.Errorf("%s parses as %v, %v", d, back, err)
		}
		elems, size := d.Block()
		if d.Quantised() != (elems > 1 || d == Int8) || d.Quantised() != (d.Size() == 0) || size == 0 {
			t.Errorf("%s: block of %d in %d bytes, size %d", d, elems, size, d.Size())
		}
	}
	if !BF16.Float() || I64.Float() || Q8_0.Float() {
		t.Error("Float")
	}
	if s := DType(200).String(); s != "invalid" {
		t.Errorf("an unknown type is %q", s)
	}
	_, err := ParseDType("F8_E4M3")
	wantError(t, err, "F8_E4M3")
}

func TestAlignedTellsWhereDataBegin(t *testing.T) {
	a := mustOpen(t, writeTemp(t, "odd.safetensors",
		st(`{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"F32","shape":[1],"data_offsets":[3,7]},"e":{"dtype":"F64","shape":[0],"data_offsets":[7,7]}}    `, 7)))
	var got []bool
	for _, e := range a.Entries() {
		got = append(got, e.Aligned())
	}
	if diff := cmp.Diff([]bool{true, false, true}, got); diff != "" {
		t.Error(diff)
	}
}

func TestRealModelsAreReadAndWrittenAgainByteForByte(t *testing.T) {
	models := realdata.Shared(t, "models")
	for _, c := range []struct {
		name     string
		elements int64
	}{{"llama-stories260k", 260_032}, {"distilbert-minilm-l3-v8k-fp16", 8_666_496}} {
		t.Run(c.name, func(t *testing.T) {
			a, err := OpenModel(filepath.Join(models, c.name))
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			var tensors []Tensor
			total := int64(0)
			for _, e := range a.Entries() {
				total += e.Elements()
				values := make([]float32, e.Elements())
				if err := e.Float32(values, 0); err != nil {
					t.Fatal(err)
				}
				for i, v := range values {
					if math.IsNaN(float64(v)) || math.Abs(float64(v)) > 1e3 {
						t.Fatalf("%s: element %d is %g", e.Name, i, v)
					}
				}
				again := make([]byte, len(e.Data))
				if err := EncodeFloat32(again, e.DType, values); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(again, e.Data) {
					t.Errorf("%s does not survive the way through float32", e.Name)
				}
				tensors = append(tensors, Tensor{Name: e.Name, DType: e.DType, Shape: e.Shape, Data: again})
			}
			if total != c.elements {
				t.Errorf("%d elements, want %d", total, c.elements)
			}
			slices.Reverse(tensors)
			var written bytes.Buffer
			if err := EncodeSafetensors(&written, tensors, a.Metadata()); err != nil {
				t.Fatal(err)
			}
			original, err := os.ReadFile(filepath.Join(models, c.name, "model.safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(written.Bytes(), original) {
				t.Error("the file written again differs from the original")
			}
		})
	}
}
