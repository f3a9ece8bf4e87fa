package files

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func ones(name string, count int) Tensor {
	return Tensor{Name: name, DType: U8, Shape: []int64{int64(count)}, Data: bytes.Repeat([]byte{1}, count)}
}

func TestStreamedTensorsAreHeldToTheirSize(t *testing.T) {
	failure := errors.New("source failed")
	cases := []struct {
		name  string
		write func(io.Writer) error
		want  string
	}{
		{"exact, in pieces", func(w io.Writer) error {
			for range 4 {
				if _, err := w.Write([]byte{1, 2}); err != nil {
					return err
				}
			}
			return nil
		}, ""},
		{"short", func(w io.Writer) error { _, err := w.Write(make([]byte, 7)); return err }, "7 bytes were written"},
		{"long", func(w io.Writer) error { _, err := w.Write(make([]byte, 9)); return err }, "more bytes"},
		{"failing", func(io.Writer) error { return failure }, "source failed"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := writeTemp(t, "w.safetensors", []byte("previous"))
			err := WriteSafetensors(path, []Tensor{{Name: "w", DType: F32, Shape: []int64{2}, Write: c.write}}, nil)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff([]string{"w F32 [2] 8"}, describeEntries(mustOpen(t, path))); diff != "" {
					t.Error(diff)
				}
				return
			}
			wantError(t, err, `"w"`, c.want)
			if left, _ := os.ReadFile(path); string(left) != "previous" {
				t.Errorf("the previous file became %q", left)
			}
		})
	}
}

func TestRefusesTensorsThatCannotBeWritten(t *testing.T) {
	cases := []struct {
		name    string
		tensors []Tensor
		want    []string
	}{
		{"a name twice", []Tensor{ones("a", 1), ones("a", 1)}, []string{`"a"`, "twice"}},
		{"an empty name", []Tensor{ones("", 1)}, []string{"empty name"}},
		{"a reserved name", []Tensor{ones("__metadata__", 1)}, []string{"reserved"}},
		{"a name that is not UTF-8", []Tensor{ones("a\xff", 1)}, []string{"UTF-8"}},
		{"a block type", []Tensor{{Name: "a", DType: Q4_0, Shape: []int64{32}, Data: make([]byte, 18)}}, []string{`"a"`, "Q4_0"}},
		{"no type", []Tensor{{Name: "a"}}, []string{`"a"`, "invalid"}},
		{"too few bytes", []Tensor{{Name: "a", DType: F32, Shape: []int64{2}, Data: make([]byte, 4)}}, []string{`"a"`, "takes 8 bytes, 4 are given"}},
		{"a negative dimension", []Tensor{{Name: "a", DType: F32, Shape: []int64{-1}}}, []string{`"a"`, "negative"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "w.safetensors")
			err := WriteSafetensors(path, c.tensors, nil)
			wantError(t, err, append(c.want, path)...)
			_, err = WriteSharded(filepath.Dir(path), "w", c.tensors, nil, 0)
			wantError(t, err, c.want...)
		})
	}
}

func listFolder(t *testing.T, folder string) []string {
	t.Helper()
	listing, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range listing {
		names = append(names, file.Name())
	}
	return names
}

func TestShardsAreFilledInOrderAndReadBack(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "config.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	// b does not fit beside a; huge is larger than a shard; d fits beside c.
	tensors := []Tensor{ones("a", 60), ones("b", 60), ones("huge", 300), ones("c", 40), ones("d", 60)}
	names, err := WriteSharded(folder, "model", tensors, nil, 100)
	if err != nil {
		t.Fatal(err)
	}
	wantNames := []string{
		"model-00001-of-00004.safetensors", "model-00002-of-00004.safetensors",
		"model-00003-of-00004.safetensors", "model-00004-of-00004.safetensors",
		"model.safetensors.index.json",
	}
	if diff := cmp.Diff(wantNames, names); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(append([]string{"config.json"}, wantNames...), listFolder(t, folder)); diff != "" {
		t.Error(diff)
	}
	index, err := os.ReadFile(filepath.Join(folder, "model.safetensors.index.json"))
	if err != nil {
		t.Fatal(err)
	}
	wantIndex := `{
  "metadata": {
    "total_size": 520
  },
  "weight_map": {
    "a": "model-00001-of-00004.safetensors",
    "b": "model-00002-of-00004.safetensors",
    "c": "model-00004-of-00004.safetensors",
    "d": "model-00004-of-00004.safetensors",
    "huge": "model-00003-of-00004.safetensors"
  }
}
`
	if diff := cmp.Diff(wantIndex, string(index)); diff != "" {
		t.Error(diff)
	}
	a, err := OpenModel(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if diff := cmp.Diff([]string{"a U8 [60] 60", "b U8 [60] 60", "huge U8 [300] 300", "c U8 [40] 40", "d U8 [60] 60"}, describeEntries(a)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"format": "pt"}, a.Metadata()); diff != "" {
		t.Error(diff)
	}

	// A smaller set replaces the larger one and leaves nothing of it behind.
	if _, err := WriteSharded(folder, "model", tensors[:1], nil, 100); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"config.json", "model.safetensors"}, listFolder(t, folder)); diff != "" {
		t.Error(diff)
	}
}

func TestShardsKeepTensorsTogether(t *testing.T) {
	folder := t.TempDir()
	c, e := ones("c", 30), ones("e", 90)
	c.Together, e.Together = true, true
	if _, err := WriteSharded(folder, "model", []Tensor{ones("a", 60), ones("b", 30), c, ones("d", 30), e, ones("f", 10)}, nil, 100); err != nil {
		t.Fatal(err)
	}
	a, err := OpenModel(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	var got []string
	for _, e := range a.Entries() {
		got = append(got, e.Name+" "+strings.TrimPrefix(filepath.Base(e.File), "model-0000")[:1])
	}
	if diff := cmp.Diff([]string{"a 1", "b 2", "c 2", "d 3", "e 3", "f 4"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestAFailedShardLeavesTheEarlierSet(t *testing.T) {
	folder := t.TempDir()
	if _, err := WriteSharded(folder, "model", []Tensor{ones("a", 60), ones("b", 60)}, nil, 100); err != nil {
		t.Fatal(err)
	}
	before := listFolder(t, folder)
	full := errors.New("no space left on device")
	broken := Tensor{Name: "b", DType: U8, Shape: []int64{60}, Write: func(io.Writer) error { return full }}
	_, err := WriteSharded(folder, "model", []Tensor{{Name: "a", DType: U8, Shape: []int64{60}, Data: make([]byte, 60)}, broken}, nil, 100)
	if !errors.Is(err, full) {
		t.Fatalf("error %v", err)
	}
	if diff := cmp.Diff(before, listFolder(t, folder)); diff != "" {
		t.Error(diff)
	}
	a, err := OpenModel(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if e, _ := a.Lookup("a"); !bytes.Equal(e.Data, bytes.Repeat([]byte{1}, 60)) {
		t.Error("tensor a was overwritten")
	}
}
