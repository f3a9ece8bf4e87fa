package files

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"gopeft/model/fsutil"
)

// Tensor is one tensor to be written. Its bytes, little-endian and contiguous,
// are given as Data or, so that only one tensor at a time need be in memory,
// produced by Write when its turn comes.
type Tensor struct {
	Name  string
	DType DType
	Shape []int64
	Data  []byte
	Write func(io.Writer) error
	// Together keeps a tensor in the shard of the one before it: readers look for the parts of a quantised weight there.
	Together bool
}

// DefaultShardSize is the size, in bytes, above which weights are split into
// several files: the 5 GB of transformers.
const DefaultShardSize int64 = 5_000_000_000

// safetensorsRank orders the types as the reference implementation does: wider
// alignment first, so that every tensor is aligned to its element size.
var safetensorsRank = map[DType]int{
	I64: 0, F64: 1, F32: 2, I32: 3, BF16: 4, F16: 5, I16: 6, I8: 7, U8: 8, Bool: 9,
}

// planned is a tensor with its checked size.
type planned struct {
	Tensor
	size int64
}

// EncodeSafetensors streams the tensors to w, ordered as the reference
// implementation orders them (type by falling alignment, then name), so that the
// bytes equal those that it writes. metadata is written as it is; nil means
// {"format": "pt"}, without which transformers refuses a file.
func EncodeSafetensors(w io.Writer, tensors []Tensor, metadata map[string]string) error {
	plan, err := planSafetensors(tensors)
	if err != nil {
		return err
	}
	return encodeSafetensors(w, plan, metadata)
}

// WriteSafetensors writes the tensors to a file as [EncodeSafetensors] does. An
// existing file is replaced only once all is written.
func WriteSafetensors(path string, tensors []Tensor, metadata map[string]string) error {
	plan, err := planSafetensors(tensors)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return fsutil.WriteFile(path, func(w io.Writer) error {
		return encodeSafetensors(w, plan, metadata)
	})
}

func planSafetensors(tensors []Tensor) ([]planned, error) {
	seen := make(map[string]bool, len(tensors))
	plan := make([]planned, len(tensors))
	for i, t := range tensors {
		if err := checkName(t.Name); err != nil {
			return nil, err
		}
		if t.Name == "__metadata__" {
			return nil, fmt.Errorf("tensor %s: the name is reserved", quote(t.Name))
		}
		if seen[t.Name] {
			return nil, fmt.Errorf("tensor %s appears twice", quote(t.Name))
		}
		seen[t.Name] = true
		if _, ok := safetensorsRank[t.DType]; !ok {
			return nil, fmt.Errorf("tensor %s: dtype %s has no place in a safetensors file", quote(t.Name), t.DType)
		}
		size, err := byteSize(t.DType, t.Shape)
		if err != nil {
			return nil, fmt.Errorf("tensor %s: %w", quote(t.Name), err)
		}
		if t.Write == nil && int64(len(t.Data)) != size {
			return nil, fmt.Errorf("tensor %s: %s%v takes %d bytes, %d are given", quote(t.Name), t.DType, t.Shape, size, len(t.Data))
		}
		plan[i] = planned{t, size}
	}
	return plan, nil
}

func encodeSafetensors(w io.Writer, plan []planned, metadata map[string]string) error {
	plan = slices.SortedFunc(slices.Values(plan), func(a, b planned) int {
		return cmp.Or(safetensorsRank[a.DType]-safetensorsRank[b.DType], cmp.Compare(a.Name, b.Name))
	})
	header, err := safetensorsHeader(plan, metadata)
	if err != nil {
		return err
	}
	if _, err := w.Write(header); err != nil {
		return err
	}
	for _, t := range plan {
		if err := t.encode(w); err != nil {
			return fmt.Errorf("tensor %s: %w", quote(t.Name), err)
		}
	}
	return nil
}

func safetensorsHeader(plan []planned, metadata map[string]string) ([]byte, error) {
	if metadata == nil {
		metadata = map[string]string{"format": "pt"}
	}
	var b bytes.Buffer
	b.Write(make([]byte, 8))
	b.WriteByte('{')
	comma := ""
	if len(metadata) > 0 {
		b.WriteString(`"__metadata__":`)
		if err := appendJSON(&b, metadata); err != nil {
			return nil, err
		}
		comma = ","
	}
	at := int64(0)
	for _, t := range plan {
		b.WriteString(comma)
		comma = ","
		if err := appendJSON(&b, t.Name); err != nil {
			return nil, err
		}
		shape := t.Shape
		if shape == nil {
			shape = []int64{}
		}
		b.WriteByte(':')
		err := appendJSON(&b, struct {
			DType   string   `json:"dtype"`
			Shape   []int64  `json:"shape"`
			Offsets [2]int64 `json:"data_offsets"`
		}{t.DType.String(), shape, [2]int64{at, at + t.size}})
		if err != nil {
			return nil, err
		}
		at += t.size
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	length := b.Len() - 8
	if length > maxSafetensorsHeader {
		return nil, fmt.Errorf("the header takes %d bytes, readers accept %d", length, maxSafetensorsHeader)
	}
	binary.LittleEndian.PutUint64(b.Bytes(), uint64(length))
	return b.Bytes(), nil
}

// appendJSON encodes without HTML escapes and without the encoder's newline.
func appendJSON(b *bytes.Buffer, value any) error {
	encoder := json.NewEncoder(b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1)
	return nil
}

func (t planned) encode(w io.Writer) error {
	if t.Write == nil {
		_, err := w.Write(t.Data)
		return err
	}
	counted := &countingWriter{w: w, left: t.size}
	if err := t.Write(counted); err != nil {
		return err
	}
	if counted.left != 0 {
		return fmt.Errorf("%d bytes were written for %s%v, which takes %d", t.size-counted.left, t.DType, t.Shape, t.size)
	}
	return nil
}

// countingWriter holds a tensor to the size that the header promises.
type countingWriter struct {
	w    io.Writer
	left int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > c.left {
		return 0, errors.New("more bytes were written than its shape takes")
	}
	n, err := c.w.Write(p)
	c.left -= int64(n)
	return n, err
}

// shardName matches the files of a sharded set after its base name.
var shardName = regexp.MustCompile(`^-\d{5}-of-\d{5}\.safetensors$`)

// WriteSharded writes the tensors to a folder as base.safetensors or, when they
// take more than maxShard bytes (0 means [DefaultShardSize]), as
// base-00001-of-0000N.safetensors with base.safetensors.index.json, filling the
// shards in the given order. It gives the names of the files written. A tensor
// larger than maxShard gets a shard of its own.
//
// Everything is written beside the old files first and moved into place at the
// end, so an error or a full disk leaves an earlier set as it was; files of an
// earlier set that the new one does not use are removed. Only a crash during the
// final renames can mix two sets; build the folder with fsutil.WriteDir to
// exclude that too.
func WriteSharded(folder, base string, tensors []Tensor, metadata map[string]string, maxShard int64) (names []string, err error) {
	if maxShard <= 0 {
		maxShard = DefaultShardSize
	}
	plan, err := planSafetensors(tensors)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", filepath.Join(folder, base), err)
	}
	shards := splitShards(plan, maxShard)
	staging, err := os.MkdirTemp(folder, "."+base+".tmp-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(staging)) }()

	index := shardIndex{WeightMap: map[string]string{}}
	for i, shard := range shards {
		name := base + ".safetensors"
		if len(shards) > 1 {
			name = fmt.Sprintf("%s-%05d-of-%05d.safetensors", base, i+1, len(shards))
		}
		err := fsutil.WriteFile(filepath.Join(staging, name), func(w io.Writer) error {
			return encodeSafetensors(w, shard, metadata)
		})
		if err != nil {
			return nil, fmt.Errorf("write %s: %w", filepath.Join(folder, name), err)
		}
		names = append(names, name)
		for _, t := range shard {
			index.WeightMap[t.Name] = name
			index.Metadata.TotalSize += t.size
		}
	}
	if len(shards) > 1 {
		// Last, so that the index never names a shard that is not there yet.
		name := base + ".safetensors.index.json"
		err := fsutil.WriteFile(filepath.Join(staging, name), func(w io.Writer) error {
			encoder := json.NewEncoder(w)
			encoder.SetEscapeHTML(false)
			encoder.SetIndent("", "  ")
			return encoder.Encode(index)
		})
		if err != nil {
			return nil, fmt.Errorf("write %s: %w", filepath.Join(folder, name), err)
		}
		names = append(names, name)
	}
	for _, name := range names {
		if err := os.Rename(filepath.Join(staging, name), filepath.Join(folder, name)); err != nil {
			return nil, err
		}
	}
	if err := removeStale(folder, base, names); err != nil {
		return nil, err
	}
	return names, syncFolder(folder)
}

// shardIndex is the JSON beside a sharded set.
type shardIndex struct {
	Metadata struct {
		TotalSize int64 `json:"total_size"`
	} `json:"metadata"`
	WeightMap map[string]string `json:"weight_map"`
}

func splitShards(plan []planned, maxShard int64) [][]planned {
	shards := [][]planned{nil}
	filled := int64(0)
	for i, t := range plan {
		last := len(shards) - 1
		size := t.size
		for _, next := range plan[i+1:] {
			if !next.Together {
				break
			}
			size += next.size
		}
		if len(shards[last]) > 0 && !t.Together && size > maxShard-filled {
			shards = append(shards, nil)
			last, filled = last+1, 0
		}
		shards[last] = append(shards[last], t)
		filled += t.size
	}
	return shards
}

// removeStale deletes what is left of an earlier set: readers would prefer a
// single file over the index, and shards outside the index only take up space.
func removeStale(folder, base string, keep []string) error {
	listing, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, file := range listing {
		rest, ours := bytes.CutPrefix([]byte(file.Name()), []byte(base))
		ours = ours && (string(rest) == ".safetensors" || string(rest) == ".safetensors.index.json" || shardName.Match(rest))
		if !ours || slices.Contains(keep, file.Name()) {
			continue
		}
		if err := os.Remove(filepath.Join(folder, file.Name())); err != nil {
			return err
		}
	}
	return nil
}

func syncFolder(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
