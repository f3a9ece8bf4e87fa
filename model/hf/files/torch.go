package files

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
)

// OpenTorch opens a file written by torch.save: a zip archive (PyTorch 1.6 and
// later) or the older sequence of pickles. The pickle is interpreted over an
// allow-list of tensor constructors; no code in it is ever run. Tensors that are
// contiguous in their storage are views of the mapped file, others are copied.
//
// The entries are the tensors of the saved dict. Nested dicts give dotted names;
// when the tensors of a training checkpoint all lie under "state_dict", "model",
// "model_state_dict" or "module", those are the entries. Numbers, strings and
// truth values beside them are the metadata.
func OpenTorch(path string) (Archive, error) {
	m, err := mapFile(path)
	if err != nil {
		return nil, err
	}
	entries, metadata, err := parseTorch(m)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: PyTorch file: %w", path, err), m.close())
	}
	a, err := newArchive(path, m, entries, metadata)
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	return a, nil
}

const zipMagic = "PK\x03\x04"

func looksPickled(head []byte) bool {
	return bytes.HasPrefix(head, []byte(zipMagic)) || len(head) > 1 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5
}

func parseTorch(m *mapping) ([]Entry, map[string]string, error) {
	u := &unpickler{data: m.data, storages: map[string]*pyStorage{}}
	var root any
	var err error
	if bytes.HasPrefix(m.data, []byte(zipMagic)) {
		root, err = readTorchZip(u, m.data)
	} else {
		root, err = readTorchLegacy(u)
	}
	if err != nil {
		return nil, nil, err
	}
	state, err := readState(root)
	if err != nil {
		return nil, nil, err
	}
	entries, err := state.entries(m)
	return entries, state.metadata, err
}

// torchZip is the archive that torch.save writes: records stored uncompressed
// below one folder, data.pkl with the structure and data/<key> with the numbers.
type torchZip struct {
	data    []byte
	records map[string]*zip.File
}

func readTorchZip(u *unpickler, data []byte) (any, error) {
	reader, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, fmt.Errorf("%w: the archive is damaged or cut short", err)
	}
	z := torchZip{data: data, records: make(map[string]*zip.File, len(reader.File))}
	prefix, found := "", false
	for _, f := range reader.File {
		if z.records[f.Name] != nil {
			return nil, fmt.Errorf("record %s appears twice", quote(f.Name))
		}
		z.records[f.Name] = f
		if folder, ok := strings.CutSuffix(f.Name, "data.pkl"); ok && strings.Count(folder, "/") <= 1 && (folder == "" || strings.HasSuffix(folder, "/")) {
			if found {
				return nil, errors.New("the archive holds more than one data.pkl")
			}
			prefix, found = folder, true
		}
	}
	if !found {
		return nil, errors.New("a zip archive without data.pkl: it was not written by torch.save")
	}
	if z.records[prefix+"constants.pkl"] != nil {
		return nil, errors.New("a TorchScript archive, which holds a program: save the state dict of the model instead")
	}
	if z.records[prefix+"byteorder"] != nil {
		at, size, err := z.locate(prefix + "byteorder")
		if err != nil {
			return nil, err
		}
		if order := string(data[at : at+size]); order != "little" {
			return nil, fmt.Errorf("byte order %s is not supported", quote(order))
		}
	}
	at, size, err := z.locate(prefix + "data.pkl")
	if err != nil {
		return nil, err
	}
	u.data = data[at : at+size]
	if sum := crc32.ChecksumIEEE(u.data); sum != z.records[prefix+"data.pkl"].CRC32 {
		return nil, errors.New("the checksum of data.pkl is wrong: the file is damaged")
	}
	root, err := u.load()
	if err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(u.storages)) {
		s := u.storages[key]
		if s.at, s.size, err = z.locate(prefix + "data/" + s.key); err != nil {
			return nil, err
		}
		if want := s.count * int64(s.dtype.Size()); s.size != want {
			return nil, fmt.Errorf("storage %s holds %d bytes, %s[%d] takes %d", quote(s.key), s.size, s.dtype, s.count, want)
		}
		s.found = true
	}
	return root, nil
}

// locate finds a record's bytes in the file.
func (z torchZip) locate(name string) (at, size int64, err error) {
	f := z.records[name]
	if f == nil {
		return 0, 0, fmt.Errorf("record %s is missing", quote(name))
	}
	if f.Method != zip.Store || f.Flags&1 != 0 || f.CompressedSize64 != f.UncompressedSize64 {
		return 0, 0, fmt.Errorf("record %s is compressed or encrypted, which torch.save never does: load and save the file with PyTorch", quote(name))
	}
	at, err = f.DataOffset()
	if err != nil {
		return 0, 0, fmt.Errorf("record %s: %w", quote(name), err)
	}
	if total := uint64(len(z.data)); at < 0 || uint64(at) > total || f.UncompressedSize64 > total-uint64(at) {
		return 0, 0, fmt.Errorf("record %s lies outside the file: it is cut short", quote(name))
	}
	return at, int64(f.UncompressedSize64), nil
}

// legacyMagic is the number that the older format begins with.
var legacyMagic = pyLong{0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19}

// readTorchLegacy reads the format before PyTorch 1.6: pickles of a magic number,
// a version, the writer's system, the object and the storage keys, then for each
// key the count of its numbers and the numbers.
func readTorchLegacy(u *unpickler) (any, error) {
	magic, err := u.load()
	if err != nil {
		return nil, err
	}
	if long, ok := magic.(pyLong); !ok || !bytes.Equal(long, legacyMagic) {
		return nil, errors.New("a pickle that torch.save did not write: load it in Python and save the tensors with torch.save or safetensors")
	}
	version, err := u.load()
	if err != nil {
		return nil, err
	}
	if version != any(int64(1001)) {
		return nil, fmt.Errorf("format version %s is not 1001", pyKind(version))
	}
	system, err := u.load()
	if err != nil {
		return nil, err
	}
	if d, ok := system.(*pyDict); !ok || !d.has("little_endian", true) {
		return nil, errors.New("the file was written on a big-endian system")
	}
	root, err := u.load()
	if err != nil {
		return nil, err
	}
	list, err := u.load()
	if err != nil {
		return nil, err
	}
	keys, ok := list.(*pyList)
	if !ok {
		return nil, fmt.Errorf("the list of storages is %s", pyKind(list))
	}
	for _, item := range keys.items {
		key, _ := item.(string)
		s := u.storages[key]
		if s == nil || s.found {
			return nil, fmt.Errorf("storage %s is listed twice or belongs to no tensor", pyKind(item))
		}
		count, err := u.bytes(8)
		if err != nil {
			return nil, fmt.Errorf("storage %s: %w", quote(key), err)
		}
		if n := binary.LittleEndian.Uint64(count); n != uint64(s.count) {
			return nil, fmt.Errorf("storage %s holds %d numbers, %d were announced", quote(key), n, s.count)
		}
		s.at, s.size, s.found = int64(u.at), s.count*int64(s.dtype.Size()), true
		if _, err := u.bytes(uint64(s.size)); err != nil {
			return nil, fmt.Errorf("storage %s: %w", quote(key), err)
		}
	}
	return root, nil
}

func (d *pyDict) has(key string, value any) bool {
	for i, k := range d.keys {
		if k == any(key) && d.values[i] == value {
			return true
		}
	}
	return false
}
