package peft

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"gopeft/model/fsutil"
	"gopeft/model/hf/files"
)

// writeTorch writes fp32 tensors as torch.save does: a zip of a pickled dict and one entry per tensor's data.
// Names that stand for the same tensor, by its place in ts, share its data.
func writeTorch(path string, ts []files.Tensor, names []alias) error {
	return fsutil.WriteFile(path, func(w io.Writer) error {
		top := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
		z := zip.NewWriter(w)
		add := func(name string, content []byte) error {
			e, err := z.CreateHeader(&zip.FileHeader{Name: top + "/" + name, Method: zip.Store})
			if err == nil {
				_, err = e.Write(content)
			}
			return err
		}
		if err := add("data.pkl", pickled(ts, names)); err != nil {
			return err
		}
		if err := add("byteorder", []byte("little")); err != nil {
			return err
		}
		for i, t := range ts {
			if t.DType != files.F32 {
				return fmt.Errorf("tensor %s is %v, want F32", t.Name, t.DType)
			}
			var raw bytes.Buffer
			if err := t.Write(&raw); err != nil {
				return err
			}
			if err := add(fmt.Sprintf("data/%d", i), raw.Bytes()); err != nil {
				return err
			}
		}
		if err := add("version", []byte("3\n")); err != nil {
			return err
		}
		return z.Close()
	})
}

// alias is a name for a tensor of a list.
type alias struct {
	name string
	at   int
}

// ownNames gives every tensor its own name.
func ownNames(ts []files.Tensor) []alias {
	names := make([]alias, len(ts))
	for i, t := range ts {
		names[i] = alias{t.Name, i}
	}
	return names
}

// pickled is the dict of tensors, in pickle protocol 2.
func pickled(ts []files.Tensor, names []alias) []byte {
	var b bytes.Buffer
	text := func(s string) { // BINUNICODE
		b.WriteByte('X')
		_ = binary.Write(&b, binary.LittleEndian, uint32(len(s)))
		b.WriteString(s)
	}
	number := func(n int64) {
		if n <= 1<<31-1 { // BININT
			b.WriteByte('J')
			_ = binary.Write(&b, binary.LittleEndian, int32(n))
			return
		}
		b.Write([]byte{0x8a, 8}) // LONG1
		_ = binary.Write(&b, binary.LittleEndian, n)
	}
	tuple := func(ns []int64) { // MARK … TUPLE
		b.WriteByte('(')
		for _, n := range ns {
			number(n)
		}
		b.WriteByte('t')
	}
	b.WriteString("\x80\x02}(") // PROTO 2, EMPTY_DICT, MARK
	for _, n := range names {
		t := ts[n.at]
		elements, strides := int64(1), make([]int64, len(t.Shape))
		for d := len(t.Shape) - 1; d >= 0; d-- {
			strides[d] = elements
			elements *= t.Shape[d]
		}
		text(n.name)
		b.WriteString("ctorch._utils\n_rebuild_tensor_v2\n(")
		b.WriteByte('(') // the storage's persistent id
		text("storage")
		b.WriteString("ctorch\nFloatStorage\n")
		text(fmt.Sprint(n.at))
		text("cpu")
		number(elements)
		b.WriteString("tQ") // TUPLE, BINPERSID
		number(0)
		tuple(t.Shape)
		tuple(strides)
		b.WriteString("\x89ccollections\nOrderedDict\n)R") // NEWFALSE; an empty OrderedDict of hooks
		b.WriteString("tR")                                // TUPLE, REDUCE
	}
	b.WriteString("u.") // SETITEMS, STOP
	return b.Bytes()
}
