package files

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

// maxSafetensorsHeader is the limit of the reference implementation.
const maxSafetensorsHeader = 100_000_000

// OpenSafetensors maps a safetensors file and checks its header: the format's
// own rules (header length, offsets without overlaps or holes, dtype × shape =
// bytes) and names that are valid UTF-8 and appear once.
func OpenSafetensors(path string) (Archive, error) {
	m, err := mapFile(path)
	if err != nil {
		return nil, err
	}
	entries, metadata, err := parseSafetensors(m)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), m.close())
	}
	a, err := newArchive(path, m, entries, metadata)
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	return a, nil
}

// DecodeSafetensors reads a safetensors file that is in memory, with the checks of [OpenSafetensors]. The entries share
// content.
func DecodeSafetensors(content []byte) (Archive, error) {
	entries, metadata, err := parseSafetensors(&mapping{data: content})
	if err != nil {
		return nil, err
	}
	for i := range entries {
		entries[i].source = nil // no file's pages
	}
	return newArchive("safetensors", nil, entries, metadata)
}

// stInfo is a tensor as the header describes it; offsets count from the end of
// the header.
type stInfo struct {
	name       string
	dtype      DType
	shape      []int64
	begin, end int64
}

func parseSafetensors(m *mapping) ([]Entry, map[string]string, error) {
	const prefix = 8
	if len(m.data) < prefix {
		return nil, nil, fmt.Errorf("safetensors: %d bytes are too few for a header", len(m.data))
	}
	length := binary.LittleEndian.Uint64(m.data)
	switch {
	case length > maxSafetensorsHeader:
		return nil, nil, fmt.Errorf("safetensors: header of %d bytes, more than %d", length, maxSafetensorsHeader)
	case length > uint64(len(m.data)-prefix):
		return nil, nil, fmt.Errorf("safetensors: header of %d bytes in a file of %d: the file is cut short", length, len(m.data))
	}
	start := prefix + int64(length)
	infos, metadata, err := parseSafetensorsHeader(m.data[prefix:start])
	if err != nil {
		return nil, nil, fmt.Errorf("safetensors: %w", err)
	}
	if err := checkSafetensorsLayout(infos, int64(len(m.data))-start); err != nil {
		return nil, nil, fmt.Errorf("safetensors: %w", err)
	}
	entries := make([]Entry, len(infos))
	for i, info := range infos {
		entries[i] = Entry{Name: info.name, DType: info.dtype, Shape: info.shape}
		m.view(&entries[i], start+info.begin, info.end-info.begin)
	}
	return entries, metadata, nil
}

// checkSafetensorsLayout sorts the tensors into file order and checks that they
// fill the data section exactly.
func checkSafetensorsLayout(infos []stInfo, size int64) error {
	slices.SortStableFunc(infos, func(a, b stInfo) int {
		if a.begin != b.begin {
			return int(max(-1, min(1, a.begin-b.begin)))
		}
		return int(max(-1, min(1, a.end-b.end)))
	})
	at := int64(0)
	for _, info := range infos {
		name := quote(info.name)
		if info.end < info.begin {
			return fmt.Errorf("tensor %s: data offsets [%d, %d] run backwards", name, info.begin, info.end)
		}
		want, err := byteSize(info.dtype, info.shape)
		if err != nil {
			return fmt.Errorf("tensor %s: %w", name, err)
		}
		if want != info.end-info.begin {
			return fmt.Errorf("tensor %s: %s%v takes %d bytes, its data offsets [%d, %d] hold %d",
				name, info.dtype, info.shape, want, info.begin, info.end, info.end-info.begin)
		}
		if info.begin < at {
			return fmt.Errorf("tensor %s: data offsets [%d, %d] overlap the tensor before, which ends at %d", name, info.begin, info.end, at)
		}
		if info.begin > at {
			return fmt.Errorf("tensor %s: data offsets [%d, %d] leave a hole after %d", name, info.begin, info.end, at)
		}
		if info.end > size {
			return fmt.Errorf("tensor %s: data offsets [%d, %d] lie outside the %d bytes of data: the file is cut short", name, info.begin, info.end, size)
		}
		at = info.end
	}
	if at != size {
		return fmt.Errorf("%d bytes of data belong to no tensor", size-at)
	}
	return nil
}

func parseSafetensorsHeader(header []byte) ([]stInfo, map[string]string, error) {
	if len(header) == 0 || header[0] != '{' {
		return nil, nil, errors.New("the header does not begin with {")
	}
	if !utf8.Valid(header) {
		return nil, nil, errors.New("the header is not valid UTF-8")
	}
	r := jsonReader{json.NewDecoder(bytes.NewReader(header))}
	r.UseNumber()
	var infos []stInfo
	var metadata map[string]string
	err := r.object(func(name string) error {
		if name == "__metadata__" {
			if metadata != nil {
				return errors.New("__metadata__ appears twice")
			}
			metadata = map[string]string{}
			return r.metadata(metadata)
		}
		if err := checkName(name); err != nil {
			return err
		}
		info, err := r.tensor()
		if err != nil {
			return fmt.Errorf("tensor %s: %w", quote(name), err)
		}
		info.name = name
		infos = append(infos, info)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if rest := bytes.Trim(header[r.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return nil, nil, fmt.Errorf("the header goes on after its end at byte %d", r.InputOffset())
	}
	return infos, metadata, nil
}

func (r jsonReader) metadata(into map[string]string) error {
	return r.object(func(key string) error {
		token, err := r.token()
		if err != nil {
			return err
		}
		value, ok := token.(string)
		if !ok {
			return fmt.Errorf("__metadata__ %s is %s, not a string", quote(key), describe(token))
		}
		if _, found := into[key]; found {
			return fmt.Errorf("__metadata__ %s appears twice", quote(key))
		}
		into[key] = value
		return nil
	})
}

func (r jsonReader) tensor() (stInfo, error) {
	var info stInfo
	var offsets []int64
	var hasDType, hasShape, hasOffsets bool
	once := func(seen *bool, key string) error {
		if *seen {
			return fmt.Errorf("%s appears twice", key)
		}
		*seen = true
		return nil
	}
	err := r.object(func(key string) (err error) {
		switch key {
		case "dtype":
			if err := once(&hasDType, key); err != nil {
				return err
			}
			info.dtype, err = r.dtype()
		case "shape":
			if err := once(&hasShape, key); err != nil {
				return err
			}
			info.shape, err = r.integers(key, maxDims)
		case "data_offsets":
			if err := once(&hasOffsets, key); err != nil {
				return err
			}
			offsets, err = r.integers(key, 2)
		default:
			var ignored json.RawMessage
			if err = r.Decode(&ignored); err != nil {
				err = fmt.Errorf("JSON: %w", err)
			}
		}
		return err
	})
	switch {
	case err != nil:
		return stInfo{}, err
	case !hasDType:
		return stInfo{}, errors.New("has no dtype")
	case !hasShape:
		return stInfo{}, errors.New("has no shape")
	case !hasOffsets:
		return stInfo{}, errors.New("has no data_offsets")
	case len(offsets) != 2:
		return stInfo{}, fmt.Errorf("data_offsets has %d numbers, not 2", len(offsets))
	}
	info.begin, info.end = offsets[0], offsets[1]
	return info, nil
}

func (r jsonReader) dtype() (DType, error) {
	token, err := r.token()
	if err != nil {
		return Invalid, err
	}
	name, ok := token.(string)
	if !ok {
		return Invalid, fmt.Errorf("dtype is %s, not a string", describe(token))
	}
	d, err := ParseDType(name)
	if err == nil && d.Quantised() {
		err = fmt.Errorf("dtype %q is not a safetensors type", name)
	}
	return d, err
}
