package files

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"

	"gopeft/model/fsutil"
)

// Entry is one named tensor of an archive.
type Entry struct {
	Name  string
	DType DType
	// Shape is in row-major order, [out, in] for a linear weight, in every format
	// (GGUF writes its dimensions the other way round; they are turned here).
	Shape []int64
	// Data holds the elements, little-endian and contiguous. It is a private
	// (copy-on-write) view of the mapped file, or memory of its own where the
	// file does not store the tensor contiguously. It is valid until the archive
	// is closed. See [Entry.Aligned].
	Data []byte
	// File is the path of the file that holds the entry.
	File string
	// Packed is what belongs to the codes in Data where DType is grouped; nil elsewhere.
	Packed *Packed

	source *mapping // nil when Data is not a view of a mapped file
	offset int64    // of Data in source
}

// Elements gives the number of elements; the shape has been checked on opening.
func (e Entry) Elements() int64 {
	n := int64(1)
	for _, d := range e.Shape {
		n *= d
	}
	return n
}

// Rows cuts the entry along its first dimension: the rows first … first+count-1,
// sharing the data. Converting and releasing a large tensor in such parts keeps
// little of the file in memory at a time.
func (e Entry) Rows(first, count int64) (Entry, error) {
	if len(e.Shape) == 0 || len(e.Shape) == 1 && e.DType.Quantised() || e.DType.Grouped() {
		return Entry{}, fmt.Errorf("%s: tensor %s: %s%v cannot be cut into rows", e.File, quote(e.Name), e.DType, e.Shape)
	}
	if rows := e.Shape[0]; first < 0 || count < 0 || first > rows || count > rows-first {
		return Entry{}, fmt.Errorf("%s: tensor %s: rows %d to %d of %d", e.File, quote(e.Name), first, first+count, rows)
	}
	part := e
	part.Shape = slices.Clone(e.Shape)
	part.Shape[0] = count
	width := int64(len(e.Data)) / max(1, e.Shape[0])
	part.Data = e.Data[first*width : (first+count)*width : (first+count)*width]
	part.offset += first * width
	return part, nil
}

// Mapped tells whether Data is a view of the mapped file.
func (e Entry) Mapped() bool { return e.source != nil }

// Aligned tells whether Data begins at a multiple of the element size, as code
// that reads whole numbers from memory may require. Files of other writers need
// not be aligned.
func (e Entry) Aligned() bool {
	size := uintptr(max(1, e.DType.Size()))
	return len(e.Data) == 0 || uintptr(unsafe.Pointer(unsafe.SliceData(e.Data)))%size == 0
}

// Archive is an opened weight file or a set of shards.
type Archive interface {
	// Entries lists the tensors in file order, shard by shard.
	Entries() []Entry
	// Lookup finds a tensor by its exact name.
	Lookup(name string) (Entry, bool)
	// Metadata gives what the file says about itself beside tensors, as text.
	Metadata() map[string]string
	// Unchanged is an error where a mapped file was written to since it was opened.
	Unchanged() error
	// Close unmaps the files; the Data of every entry is invalid afterwards.
	Close() error
}

// archive is the Archive behind every format.
type archive struct {
	entries  []Entry
	byName   map[string]int
	metadata map[string]string
	sources  []*mapping
}

// newArchive indexes the entries of one source and refuses repeated names.
func newArchive(path string, source *mapping, entries []Entry, metadata map[string]string) (*archive, error) {
	a := &archive{byName: make(map[string]int, len(entries)), metadata: metadata}
	if a.metadata == nil {
		a.metadata = map[string]string{}
	}
	if source != nil {
		a.sources = []*mapping{source}
	}
	for _, e := range entries {
		e.File = path
		if err := a.add(e); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return a, nil
}

func (a *archive) add(e Entry) error {
	if i, found := a.byName[e.Name]; found {
		if first := a.entries[i]; first.File != e.File {
			return fmt.Errorf("tensor %s is also in %s", quote(e.Name), first.File)
		}
		return fmt.Errorf("tensor %s appears twice", quote(e.Name))
	}
	a.byName[e.Name] = len(a.entries)
	a.entries = append(a.entries, e)
	return nil
}

func (a *archive) Entries() []Entry { return slices.Clone(a.entries) }

func (a *archive) Lookup(name string) (Entry, bool) {
	i, found := a.byName[name]
	if !found {
		return Entry{}, false
	}
	return a.entries[i], true
}

func (a *archive) Metadata() map[string]string { return maps.Clone(a.metadata) }

func (a *archive) Unchanged() error {
	for _, s := range a.sources {
		if s.file == nil {
			continue
		}
		if err := s.file.Unchanged(); err != nil {
			return err
		}
	}
	return nil
}

func (a *archive) Close() error {
	var errs []error
	for _, s := range a.sources {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}

// Open opens a weight file of any supported format, told apart by its content:
// safetensors, a PyTorch archive (zip or the older plain pickle), GGUF, or a
// *.index.json that lists shards.
func Open(path string) (Archive, error) {
	if strings.HasSuffix(path, ".index.json") {
		return OpenIndex(path)
	}
	head, err := readHead(path, 16)
	if err != nil {
		return nil, err
	}
	switch {
	case len(head) > 8 && head[8] == '{' && bytes.Equal(head[4:8], make([]byte, 4)):
		return OpenSafetensors(path)
	case bytes.HasPrefix(head, []byte("GGUF")):
		g, err := OpenGGUF(path)
		if err != nil {
			return nil, err
		}
		return g, nil
	case looksPickled(head):
		return OpenTorch(path)
	case bytes.HasPrefix(head, []byte("version https://")):
		return nil, fmt.Errorf("%s: a git-lfs pointer, not the file itself: run `git lfs pull` in its folder", path)
	case strings.HasSuffix(path, ".safetensors"):
		return OpenSafetensors(path)
	case bytes.HasPrefix(head, []byte("FUGG")):
		return nil, fmt.Errorf("%s: a big-endian GGUF file, which is not supported", path)
	}
	return nil, fmt.Errorf("%s: not a safetensors, PyTorch or GGUF file (it begins with %q)", path, head)
}

// OpenFirst opens the first of the named files that exists in a folder. The
// error, when none does, lists what was looked for and matches fs.ErrNotExist.
func OpenFirst(folder string, names ...string) (Archive, error) {
	for _, name := range names {
		path := filepath.Join(folder, name)
		if _, err := os.Stat(path); err == nil {
			return Open(path)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if info, err := os.Stat(folder); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s: not a folder", folder)
	}
	return nil, fmt.Errorf("%s: none of %s is there: %w", folder, strings.Join(names, ", "), fs.ErrNotExist)
}

// OpenModel opens the weights of a model: a weight file, or a folder searched in
// the order that transformers uses (model.safetensors, its index,
// pytorch_model.bin, its index), then for a single *.gguf file.
func OpenModel(path string) (Archive, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return Open(path)
	}
	a, err := OpenFirst(path, "model.safetensors", "model.safetensors.index.json",
		"pytorch_model.bin", "pytorch_model.bin.index.json")
	if !errors.Is(err, fs.ErrNotExist) {
		return a, err
	}
	quantised, globErr := filepath.Glob(filepath.Join(escapeGlob(path), "*.gguf"))
	switch {
	case globErr != nil || len(quantised) == 0:
		return nil, err
	case len(quantised) > 1:
		return nil, fmt.Errorf("%s: holds %d GGUF files: name one of them, such as %s", path, len(quantised), quantised[0])
	}
	return Open(quantised[0])
}

func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

func readHead(path string, n int) ([]byte, error) {
	f, err := fsutil.OpenRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, n)
	read, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if read == 0 {
		return nil, fmt.Errorf("%s: the file is empty", path)
	}
	return head[:read], nil
}

// checkName refuses names that no framework writes and that would confuse
// messages, indexes or other readers.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("a tensor has an empty name")
	case len(name) > maxNameBytes:
		return fmt.Errorf("tensor %s: its name has %d bytes, more than %d", quote(name), len(name), maxNameBytes)
	case !utf8.ValidString(name) || strings.ContainsRune(name, utf8.RuneError):
		return fmt.Errorf("tensor %s: its name is not valid UTF-8", quote(name))
	}
	return nil
}

const maxNameBytes = 1024

// quote writes a name from a file for a one-line message, whatever is in it.
func quote(name string) string {
	const most = 120
	if len(name) > most {
		return strconv.Quote(name[:most]) + "..."
	}
	return strconv.Quote(name)
}
