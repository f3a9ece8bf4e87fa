package files

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadsTorchFilesAsTorchDoes(t *testing.T) {
	reference := mustOpen(t, "testdata/torch.safetensors")
	for _, name := range []string{"zip.bin", "legacy.bin", "protocol4.bin"} {
		t.Run(name, func(t *testing.T) {
			a := mustOpen(t, "testdata/"+name)
			if got, want := len(a.Entries()), len(reference.Entries()); got != want {
				t.Fatalf("%d tensors, want %d", got, want)
			}
			for _, want := range reference.Entries() {
				got, found := a.Lookup(want.Name)
				if !found {
					t.Errorf("%s is missing", want.Name)
					continue
				}
				if got.DType != want.DType || !slices.Equal(got.Shape, want.Shape) || !bytes.Equal(got.Data, want.Data) {
					t.Errorf("%s is %s%v %x, want %s%v %x", want.Name, got.DType, got.Shape, got.Data, want.DType, want.Shape, want.Data)
				}
				copied := want.Name == "column" || want.Name == "transposed" || want.Name == "permuted" || want.Name == "expanded" || want.Name == "empty"
				if got.Mapped() == copied {
					t.Errorf("%s: mapped %v", want.Name, got.Mapped())
				}
			}
			weight, _ := a.Lookup("linear.weight")
			tied, _ := a.Lookup("tied.weight")
			if &weight.Data[0] != &tied.Data[0] {
				t.Error("tied tensors do not share their data")
			}
		})
	}
}

func TestTorchEntriesAreInFileOrder(t *testing.T) {
	a := mustOpen(t, "testdata/zip.bin")
	last := int64(0)
	for _, e := range a.Entries() {
		if !e.Mapped() {
			continue
		}
		if e.offset < last {
			t.Errorf("%s at %d comes after one at %d", e.Name, e.offset, last)
		}
		last = e.offset
	}
}

func TestATrainingCheckpointGivesItsWeightsAndSettings(t *testing.T) {
	a := mustOpen(t, "testdata/training.pt")
	want := []string{"0.weight F32 [3 2] 24", "0.bias F32 [3] 12", "1.weight F32 [3] 12", "1.bias F32 [3] 12"}
	got := describeEntries(a)
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	metadata := a.Metadata()
	for key, value := range map[string]string{"epoch": "3", "best": "0.5", "name": "run", "finished": "true", "config.bias": "true"} {
		if metadata[key] != value {
			t.Errorf("metadata %s is %q, want %q", key, metadata[key], value)
		}
	}
}

// program assembles pickle instructions: strings are raw bytes, the helpers below
// give those with operands.
func program(parts ...string) string { return "\x80\x02" + strings.Join(parts, "") + "." }

func pyString(s string) string {
	return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s
}

func number(n int64) string {
	return "\x8a\x08" + string(binary.LittleEndian.AppendUint64(nil, uint64(n)))
}

func tuple(items ...string) string { return "(" + strings.Join(items, "") + "t" }

func global(full string) string {
	i := strings.LastIndex(full, ".")
	return "c" + full[:i] + "\n" + full[i+1:] + "\n"
}

func call(full string, args ...string) string { return global(full) + tuple(args...) + "R" }

func storage(class, key string, count int64) string {
	return tuple(pyString("storage"), global(class), pyString(key), pyString("cpu"), number(count)) + "Q"
}

// floats is storage 0 with four F32 numbers; torchFile gives it 16 bytes.
var floats = storage("torch.FloatStorage", "0", 4)

func tensor(storage string, offset int64, shape, stride string) string {
	return call("torch._utils._rebuild_tensor_v2", storage, number(offset), shape, stride, "\x89", "N")
}

func dict(items ...string) string { return "}(" + strings.Join(items, "") + "u" }

var plain = tensor(floats, 0, tuple(number(4)), tuple(number(1)))

type record struct {
	name    string
	content []byte
}

func zipOf(t testing.TB, method uint16, records ...record) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, r := range records {
		f, err := w.CreateHeader(&zip.FileHeader{Name: r.name, Method: method})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(r.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// torchFile is an archive around a pickle, with storage 0 of 16 bytes.
func torchFile(t testing.TB, pickle string) []byte {
	return zipOf(t, zip.Store, record{"x/data.pkl", []byte(pickle)}, record{"x/byteorder", []byte("little")}, record{"x/data/0", make([]byte, 16)})
}

// legacyFile is the older format around a pickle, with a list of storages and
// what follows it.
func legacyFile(pickle, keys string, rest ...byte) []byte {
	magic := program("\x8a\x0a" + string(legacyMagic))
	head := magic + program(number(1001)) + program(dict(pyString("little_endian"), "\x88"))
	return append([]byte(head+pickle+keys), rest...)
}

type torchCase struct {
	name   string
	pickle string
	want   []string
}

func malformedPickles() []torchCase {
	size, step := tuple(number(4)), tuple(number(1))
	deep := "}"
	for range 50 {
		deep = dict(pyString("a"), deep)
	}
	// Each dict holds the one before twice: 2^40 paths to a tensor.
	bomb := dict(pyString("w"), plain) + "q\x00"
	for range 7 {
		items := make([]string, 0, 128)
		for i := range 64 {
			items = append(items, pyString(fmt.Sprint(i)), "h\x00")
		}
		bomb += dict(items...) + "q\x00"
	}
	// A long list given to a call again and again.
	again := "](" + strings.Repeat(tuple("K\x01", "N"), 1<<13) + "eq\x01" + strings.Repeat(global("collections.OrderedDict")+"h\x01\x85R0", 1<<11)
	return []torchCase{
		{"os.system", program(call("os.system", pyString("true"))), []string{`"os.system"`, "never run"}},
		{"posix.system", program(call("posix.system", pyString("true"))), []string{`"posix.system"`}},
		{"builtins.eval", program(call("builtins.eval", pyString("1"))), []string{`"builtins.eval"`}},
		{"a global that is never called", program(global("subprocess.Popen")), []string{`"subprocess.Popen"`}},
		{"a global with protocol 4", program(pyString("os"), pyString("system"), "\x93"), []string{`"os.system"`}},
		{"a global whose name is a number", program(number(1), number(2), "\x93"), []string{"not a string"}},
		{"a dotted way round the list", program("ctorch._utils\n_rebuild_tensor_v2.__globals__\n"), []string{"__globals__"}},
		{"an attribute of torch", program(global("torch.load")), []string{`"torch.load"`}},
		{"storage loader", program(global("torch.storage._load_from_bytes")), []string{`"torch.storage._load_from_bytes"`}},
		{"numpy", program(global("numpy.core.multiarray._reconstruct")), []string{"numpy"}},
		{"INST", program("(ios\nsystem\n"), []string{"0x69"}},
		{"OBJ", program("(o"), []string{"0x6f"}},
		{"EXT1", program("\x82\x01"), []string{"0x82"}},
		{"text persistent id", program("P0\n"), []string{"0x50"}},
		{"protocol 9", "\x80\x09.", []string{"protocol 9"}},
		{"empty", "", []string{"cut short"}},
		{"without an end", "\x80\x02}", []string{"cut short"}},
		{"nothing on the stack", program(), []string{"stack runs empty"}},
		{"a pop too many", program("0"), []string{"stack runs empty"}},
		{"a pop through a mark", program("N(0"), []string{"stack runs empty"}},
		{"a tuple without a mark", program("t"), []string{"no mark"}},
		{"unknown memo", program("h\x07"), []string{"memo 7"}},
		{"string longer than the file", program("X\xff\xff\xff\x7f"), []string{"cut short"}},
		{"string of 2^63 bytes", program("\x8d\xff\xff\xff\xff\xff\xff\xff\xff"), []string{"cut short"}},
		{"string that is not UTF-8", program("X\x01\x00\x00\x00\xff"), []string{"UTF-8"}},
		{"global without an end", "\x80\x02c" + strings.Repeat("x", 5000), []string{"does not end"}},
		{"append to a number", program("K\x01K\x02a"), []string{"appended to"}},
		{"set in a list", program("]NNs"), []string{"set in a list"}},
		{"key without a value", program("}(Nu"), []string{"no value"}},
		{"call of a string", program(pyString("f"), ")R"), []string{`"f" is called`}},
		{"call of a storage class", program(global("torch.FloatStorage"), ")R"), []string{"FloatStorage", "called"}},
		{"call without a tuple", program(global("collections.OrderedDict"), "NR"), []string{"called with None"}},
		{"OrderedDict of a number", program(call("collections.OrderedDict", "K\x01")), []string{"OrderedDict", "the number 1"}},
		{"OrderedDict of two lists", program(call("collections.OrderedDict", "]", "]")), []string{"2 arguments"}},
		{"OrderedDict of a triple", program(call("collections.OrderedDict", "](NNNta")), []string{"not a pair"}},
		{"OrderedDict of numbers", program(call("collections.OrderedDict", "]K\x01a")), []string{"not a pair"}},
		{"OrderedDict of one list many times", program(again), []string{"items in all"}},
		{"attributes of a number", program("K\x01Nb"), []string{"attributes"}},
		{"a million marks", program(strings.Repeat("(", 1<<20+1)), []string{"marks"}},
		{"a million values", program(strings.Repeat("N", 1<<20+1)), []string{"values on the stack"}},
		{"not a dict", program("K\x01"), []string{"not a dict"}},
		{"a single tensor", program(plain), []string{"not a dict"}},
		{"no tensors", program(dict(pyString("a"), "K\x01")), []string{"no tensors"}},
		{"a tensor without a name", program(dict("N", plain)), []string{"name"}},
		{"a tensor named by the empty string", program(dict(pyString(""), plain)), []string{"empty name"}},
		{"a name of 5000 bytes", program(dict(pyString(strings.Repeat("n", 5000)), plain)), []string{"name"}},
		{"a name twice", program(dict(pyString("w"), plain, pyString("w"), plain)), []string{`"w" appears twice`}},
		{"a dict inside itself", program("}q\x00", pyString("a"), "h\x00s"), []string{"contains itself"}},
		{"two dicts inside each other", program("}q\x00}q\x01", pyString("a"), "h\x00s0", pyString("b"), "h\x01s"), []string{"nested"}},
		{"dicts nested deep", program(deep), []string{"nested"}},
		{"dicts shared exponentially", program(bomb), []string{"more than 262144 values"}},
		{"reference that is no storage", program(tuple(pyString("module"), "N", "N", "N", "N"), "Q"), []string{"not a storage"}},
		{"reference that is no tuple", program("NQ"), []string{"not a storage"}},
		{"reference that is too short", program(tuple(pyString("storage")), "Q"), []string{"not a storage"}},
		{"storage class that is a string", program(tuple(pyString("storage"), pyString("F"), pyString("0"), "N", number(4)), "Q"), []string{"malformed"}},
		{"storage class that is a function", program(tuple(pyString("storage"), global("torch.Size"), pyString("0"), "N", number(4)), "Q"), []string{"malformed"}},
		{"unknown storage class", program(storage("torch.QUInt8Storage", "0", 4)), []string{"QUInt8Storage"}},
		{"storage of -1 numbers", program(storage("torch.FloatStorage", "0", -1)), []string{"-1 numbers"}},
		{"storage of 2^62 numbers", program(storage("torch.FloatStorage", "0", 1<<62)), []string{"numbers"}},
		{"storage as two types", program(floats, storage("torch.IntStorage", "0", 4)), []string{`"0"`, "elsewhere"}},
		{"storage view", program(tuple(pyString("storage"), global("torch.FloatStorage"), pyString("0"), "N", number(4), tuple("N")), "Q"), []string{"before 0.4"}},
		{"storage larger than its record", program(dict(pyString("w"), tensor(storage("torch.FloatStorage", "0", 1<<40), 0, size, step))), []string{`"0" holds 16 bytes`}},
		{"storage smaller than its record", program(dict(pyString("w"), tensor(storage("torch.FloatStorage", "0", 3), 0, tuple(number(3)), step))), []string{`"0" holds 16 bytes`}},
		{"storage without a record", program(dict(pyString("w"), tensor(storage("torch.FloatStorage", "7", 4), 0, size, step))), []string{`"x/data/7" is missing`}},
		{"storage that climbs out", program(dict(pyString("w"), tensor(storage("torch.FloatStorage", "../../0", 4), 0, size, step))), []string{"is missing"}},
		{"tensor of a number", program(tensor("K\x01", 0, size, step)), []string{"tensor", "its storage is the number 1"}},
		{"tensor without arguments", program(call("torch._utils._rebuild_tensor_v2")), []string{"0 arguments"}},
		{"negative offset", program(tensor(floats, -1, size, step)), []string{"offset"}},
		{"offset behind the storage", program(tensor(floats, 1, size, step)), []string{"leaves its storage"}},
		{"offset of 2^63-1", program(tensor(floats, 1<<63-1, size, step)), []string{"leaves its storage"}},
		{"shape larger than the storage", program(tensor(floats, 0, tuple(number(5)), step)), []string{"leaves its storage"}},
		{"stride that leaves the storage", program(tensor(floats, 0, tuple(number(2), number(2)), tuple(number(3), number(1)))), []string{"leaves its storage"}},
		{"stride that overflows", program(tensor(floats, 0, tuple(number(3), number(3)), tuple(number(1<<62), number(1<<62)))), []string{"leaves its storage"}},
		{"negative stride", program(tensor(floats, 0, size, tuple(number(-1)))), []string{"strides", "-1"}},
		{"negative dimension", program(tensor(floats, 0, tuple(number(-4)), step)), []string{"shape", "-4"}},
		{"dimension that is a string", program(tensor(floats, 0, tuple(pyString("4")), step)), []string{"shape", `"4"`}},
		{"dimension of more than 64 bits", program(tensor(floats, 0, tuple("\x8a\x09\x01\x00\x00\x00\x00\x00\x00\x00\x01"), step)), []string{"shape"}},
		{"shape that is a list", program(tensor(floats, 0, "]", step)), []string{"shape", "not a tuple"}},
		{"65 dimensions", program(tensor(floats, 0, tuple(strings.Repeat("K\x01", 65)), tuple(strings.Repeat("K\x01", 65)))), []string{"more than 64"}},
		{"fewer strides than dimensions", program(tensor(floats, 0, tuple(number(2), number(2)), step)), []string{"2 dimensions have 1 strides"}},
		{"shape that overflows", program(tensor(floats, 0, tuple(number(1<<40), number(1<<40)), tuple(number(0), number(0)))), []string{"overflows"}},
		{"one number expanded to terabytes", program(dict(pyString("w"), tensor(floats, 0, tuple(number(1<<40)), tuple(number(0))))), []string{`"w"`, "too often"}},
		{"parameter of a string", program(call("torch._utils._rebuild_parameter", pyString("x"))), []string{"a parameter is made of"}},
		{"parameter of nothing", program(call("torch._utils._rebuild_parameter")), []string{"without data"}},
	}
}

func TestRefusesMalformedAndHostilePickles(t *testing.T) {
	for _, c := range malformedPickles() {
		t.Run(c.name, func(t *testing.T) {
			path := writeTemp(t, "bad.bin", torchFile(t, c.pickle))
			_, err := Open(path)
			wantError(t, err, append(c.want, path)...)
		})
	}
}

func malformedTorchFiles(t testing.TB) []struct {
	name string
	file []byte
	want []string
} {
	good := program(dict(pyString("w"), plain))
	whole := torchFile(t, good)
	damaged := bytes.Replace(whole, []byte("FloatStorage"), []byte("HalfXStorage"), 1)
	encrypted := slices.Clone(whole)
	central := bytes.LastIndex(encrypted, []byte("PK\x01\x02")) // of data/0
	encrypted[central+8] |= 1
	outside := slices.Clone(whole)
	binary.LittleEndian.PutUint32(outside[central+20:], 1<<30)
	binary.LittleEndian.PutUint32(outside[central+24:], 1<<30)
	list := program("]" + pyString("0") + "a")
	numbers := append(binary.LittleEndian.AppendUint64(nil, 4), make([]byte, 16)...)
	return []struct {
		name string
		file []byte
		want []string
	}{
		{"zip cut short", whole[:len(whole)-30], []string{"damaged or cut short"}},
		{"zip without data.pkl", zipOf(t, zip.Store, record{"model.onnx", nil}), []string{"not written by torch.save"}},
		{"two data.pkl", zipOf(t, zip.Store, record{"a/data.pkl", nil}, record{"b/data.pkl", nil}), []string{"more than one data.pkl"}},
		{"a record twice", zipOf(t, zip.Store, record{"x/data.pkl", []byte(good)}, record{"x/data/0", make([]byte, 16)}, record{"x/data/0", make([]byte, 16)}), []string{`"x/data/0" appears twice`}},
		{"TorchScript", zipOf(t, zip.Store, record{"x/data.pkl", nil}, record{"x/constants.pkl", nil}), []string{"TorchScript"}},
		{"big-endian", zipOf(t, zip.Store, record{"x/data.pkl", nil}, record{"x/byteorder", []byte("big")}), []string{`"big"`}},
		{"compressed", zipOf(t, zip.Deflate, record{"x/data.pkl", bytes.Repeat([]byte{'N'}, 100)}), []string{`"x/data.pkl" is compressed`}},
		{"encrypted", encrypted, []string{`"x/data/0" is compressed or encrypted`}},
		{"record outside the file", outside, []string{`"x/data/0" lies outside`}},
		{"damaged pickle", damaged, []string{"checksum"}},
		{"plain pickle", []byte(program(dict(pyString("w"), "K\x01"))), []string{"torch.save did not write"}},
		{"legacy with another version", []byte(program("\x8a\x0a"+string(legacyMagic)) + program(number(1002))), []string{"1002"}},
		{"legacy from a big-endian system", []byte(program("\x8a\x0a"+string(legacyMagic)) + program(number(1001)) + program(dict(pyString("little_endian"), "\x89"))), []string{"big-endian"}},
		{"legacy that ends after its head", legacyFile("", ""), []string{"cut short"}},
		{"legacy without its storages", legacyFile(good, program("]")), []string{`"w"`, "not in the file"}},
		{"legacy with a list that is none", legacyFile(good, program("N")), []string{"list of storages"}},
		{"legacy with an unknown storage", legacyFile(good, program("]"+pyString("9")+"a")), []string{`"9"`}},
		{"legacy with a number as storage", legacyFile(good, program("]K\x01a")), []string{"the number 1"}},
		{"legacy with a storage twice", legacyFile(good, program("]"+pyString("0")+"a"+pyString("0")+"a"), append(slices.Clone(numbers), numbers...)...), []string{"twice"}},
		{"legacy with another count", legacyFile(good, list, binary.LittleEndian.AppendUint64(nil, 5)...), []string{"5 numbers, 4"}},
		{"legacy with a storage cut short", legacyFile(good, list, numbers[:20]...), []string{`"0"`, "cut short"}},
		{"legacy with code", legacyFile(program(call("os.system", pyString("true"))), list), []string{`"os.system"`}},
	}
}

func TestRefusesMalformedTorchFiles(t *testing.T) {
	for _, c := range malformedTorchFiles(t) {
		t.Run(c.name, func(t *testing.T) {
			path := writeTemp(t, "bad.bin", c.file)
			_, err := Open(path)
			wantError(t, err, append(c.want, path)...)
		})
	}
}

func TestTheBuildersOfTheseTestsMakeValidFiles(t *testing.T) {
	good := program(dict(pyString("w"), plain))
	keys := program("]" + pyString("0") + "a")
	numbers := append(binary.LittleEndian.AppendUint64(nil, 4), make([]byte, 16)...)
	for name, file := range map[string][]byte{"zip": torchFile(t, good), "legacy": legacyFile(good, keys, numbers...)} {
		a := mustOpen(t, writeTemp(t, name, file))
		if diff := cmp.Diff([]string{"w F32 [4] 16"}, describeEntries(a)); diff != "" {
			t.Error(name, diff)
		}
	}
}

func TestReadsTheOrderedDictsOfPython2(t *testing.T) {
	name := "U\x01w" // SHORT_BINSTRING, Python 2's str
	pair := "](" + name + plain + "e"
	good := program(call("collections.OrderedDict", "]("+pair+tuple("U\x01v", plain)+"e"))
	a := mustOpen(t, writeTemp(t, "old.pth", torchFile(t, good)))
	if diff := cmp.Diff([]string{"w F32 [4] 16", "v F32 [4] 16"}, describeEntries(a)); diff != "" {
		t.Error(diff)
	}
}

func FuzzTorch(f *testing.F) {
	for _, name := range []string{"zip.bin", "legacy.bin", "protocol4.bin", "training.pt"} {
		if valid, err := os.ReadFile("testdata/" + name); err == nil {
			f.Add(valid)
		}
	}
	for _, c := range malformedTorchFiles(f) {
		f.Add(c.file)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		checkFuzzed(t, &mapping{data: file})
	})
}

// FuzzPickle reaches the pickle machine behind a valid archive.
func FuzzPickle(f *testing.F) {
	f.Add([]byte(program(dict(pyString("w"), plain))))
	for _, c := range malformedPickles() {
		if len(c.pickle) < 1<<12 {
			f.Add([]byte(c.pickle))
		}
	}
	f.Fuzz(func(t *testing.T, pickle []byte) {
		checkFuzzed(t, &mapping{data: torchFile(t, string(pickle))})
	})
}

func checkFuzzed(t *testing.T, m *mapping) {
	entries, _, err := parseTorch(m)
	if err != nil {
		if strings.Contains(err.Error(), "\n") {
			t.Fatalf("more than one line: %v", err)
		}
		return
	}
	for _, e := range entries {
		if size, err := byteSize(e.DType, e.Shape); err != nil || size != int64(len(e.Data)) {
			t.Fatalf("tensor %q: %d bytes for %s%v", e.Name, len(e.Data), e.DType, e.Shape)
		}
	}
}
