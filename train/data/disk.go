package data

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"sync"

	"gopeft/train/data/spool"
)

// Sources gives the index of the file that each example is from; nil where they are all from one.
func (s *Set) Sources() []uint16 { return s.sources }

// Len is the number of examples.
func (s *Set) Len() int {
	if s.disk != nil {
		return s.disk.len()
	}
	return len(s.Examples)
}

// Example gives an example, wherever it is kept.
func (s *Set) Example(i int) (Example, error) {
	if s.disk == nil {
		return s.Examples[i], nil
	}
	ex, err := s.disk.example(s.disk.row(i))
	if ex.Label >= 0 && ex.Label < len(s.Labels) {
		ex.Name = s.Labels[ex.Label]
	}
	return ex, err
}

// Class is the label of an example.
func (s *Set) Class(i int) int {
	if s.disk != nil {
		return int(s.disk.class[s.disk.row(i)])
	}
	return s.Examples[i].Label
}

func (s *Set) empty(i int) bool {
	if s.disk != nil {
		return s.disk.empty(i)
	}
	return s.Examples[i].empty()
}

// places says where the examples of a set on disk are. In memory an example takes a few bytes, however long its text.
type places struct {
	file *spool.File
	at   []int64  // of every example read: twice its place, and 1 for an empty text
	rows []uint32 // of them, those of the set in its order; nil: all

	buffers *sync.Pool // for records while they are read

	// Of classification, for each example read:
	class []int32
	text  []uint64 // a hash of its text, 0 where it is ids

	// While they are read:
	names   []string // of classes that only all of the file's rows put in order
	index   map[string]int32
	ids     []uint64 // hashes of the rows' own identifiers
	scratch []byte
}

func newPlaces(file *spool.File) *places {
	return &places{file: file, buffers: &sync.Pool{}, index: map[string]int32{}}
}

func (p *places) len() int {
	if p.rows != nil {
		return len(p.rows)
	}
	return len(p.at)
}

// row is where in the lists of all that was read the set's example i stands.
func (p *places) row(i int) int {
	if p.rows != nil {
		return int(p.rows[i])
	}
	return i
}

func (p *places) empty(i int) bool { return p.at[p.row(i)]&1 != 0 }

func (p *places) pick(indices []int) *places {
	part := *p
	part.rows = make([]uint32, len(indices))
	for k, i := range indices {
		part.rows[k] = uint32(p.row(i))
	}
	return &part
}

// relabel gives class i the number index[i].
func (p *places) relabel(index []int) {
	for i, class := range p.class {
		if class >= 0 {
			p.class[i] = int32(index[class])
		}
	}
}

// joinPlaces puts sets on one disk file one behind the other.
func joinPlaces(sets []*places) *places {
	all := &places{file: sets[0].file, buffers: &sync.Pool{}}
	for _, p := range sets {
		before := uint32(len(all.at))
		for i := range p.len() {
			all.rows = append(all.rows, before+uint32(p.row(i)))
		}
		all.at, all.class, all.text = append(all.at, p.at...), append(all.class, p.class...), append(all.text, p.text...)
	}
	return all
}

func (p *places) append(record []byte, empty bool) error {
	at, err := p.file.Append(record)
	at *= 2
	if empty {
		at++
	}
	p.at = append(p.at, at)
	return err
}

// add puts an example on disk. Where its label is a name yet, that is numbered by its first appearance.
func (p *places) add(ex Example, named bool) error {
	e := encoder{p.scratch[:0]}
	e.text(ex.Text)
	text := uint64(0)
	if ex.IDs == nil {
		text = max(1, hash64(e.b[len(e.b)-len(ex.Text):]))
	}
	e.numbers(ex.IDs)
	e.origin(ex.File, ex.Line, ex.Row)
	p.scratch = e.b
	class := int32(ex.Label)
	if named {
		var known bool
		if class, known = p.index[ex.Name]; !known {
			class = int32(len(p.names))
			p.names = append(p.names, ex.Name)
			p.index[ex.Name] = class
		}
	}
	p.class = append(p.class, class)
	p.text = append(p.text, text)
	if ex.ID != "" {
		p.ids = append(p.ids, hash64([]byte(ex.ID)))
	}
	return p.append(e.b, ex.empty())
}

// hash64 stands for a text where it is only counted: that two have the same one is less likely than a disk's error.
func hash64(b []byte) uint64 {
	sum := sha256.Sum256(b)
	return binary.LittleEndian.Uint64(sum[:])
}

// read ends the adding of examples, and counts the identifiers that an earlier row has too.
func (p *places) read() (duplicates int, err error) {
	slices.Sort(p.ids)
	duplicates = len(p.ids) - len(slices.Compact(p.ids))
	p.ids, p.scratch = nil, nil
	return duplicates, p.file.Flush()
}

// example reads the example of a row.
func (p *places) example(row int) (Example, error) {
	d, done, err := p.record(row)
	defer done()
	ex := Example{Text: d.text(), IDs: d.numbers(), Label: int(p.class[row])}
	ex.File, ex.Line, ex.Row = d.origin()
	return ex, cmp.Or(err, d.err)
}

// record reads a row's record, in memory that serves others after done.
func (p *places) record(row int) (d decoder, done func(), err error) {
	buf, _ := p.buffers.Get().(*[]byte)
	if buf == nil {
		first := make([]byte, 1<<14)
		buf = &first
	}
	raw, err := p.file.Read(*buf, p.at[row]/2)
	if cap(raw) > cap(*buf) {
		*buf = raw
	}
	return decoder{b: raw}, func() { p.buffers.Put(buf) }, err
}

// addCausal puts an example on disk.
func (p *places) addCausal(ex CausalExample) error {
	e := encoder{p.scratch[:0]}
	e.text(ex.Prompt)
	e.text(ex.Answer)
	e.numbers(ex.IDs)
	e.numbers(ex.Targets)
	e.count(len(ex.Messages), ex.Messages == nil)
	for _, m := range ex.Messages {
		e.text(m.Role)
		e.text(m.Content)
	}
	e.origin(ex.File, ex.Line, ex.Row)
	p.scratch = e.b
	return p.append(e.b, false)
}

// causal reads the example of a row.
func (p *places) causal(row int) (CausalExample, error) {
	d, done, err := p.record(row)
	defer done()
	ex := CausalExample{Prompt: d.text(), Answer: d.text(), IDs: d.numbers(), Targets: d.numbers()}
	if n, none := d.count(); !none {
		ex.Messages = make([]Message, n)
		for i := range ex.Messages {
			ex.Messages[i] = Message{d.text(), d.text()}
		}
	}
	ex.File, ex.Line, ex.Row = d.origin()
	return ex, cmp.Or(err, d.err)
}

// encoder appends values to a record, each behind its length.
type encoder struct{ b []byte }

func (e *encoder) text(s string) {
	e.b = append(binary.AppendUvarint(e.b, uint64(len(s))), s...)
}

// count tells a list's length, and an empty one from none.
func (e *encoder) count(n int, none bool) {
	if none {
		n = -1
	}
	e.b = binary.AppendUvarint(e.b, uint64(n+1))
}

func (e *encoder) numbers(v []int64) {
	e.count(len(v), v == nil)
	for _, n := range v {
		e.b = binary.AppendVarint(e.b, n)
	}
}

// origin tells where a row is from.
func (e *encoder) origin(file string, line, row int) {
	e.text(file)
	e.b = binary.AppendUvarint(e.b, uint64(line))
	e.b = binary.AppendUvarint(e.b, uint64(row))
}

var errRecord = errors.New("a row kept on disk cannot be read back")

// decoder reads what an encoder wrote. After an error it gives zeros.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) number() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.b, d.err = nil, errRecord
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) text() string {
	n := d.number()
	if n > uint64(len(d.b)) {
		d.b, d.err = nil, errRecord
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

func (d *decoder) count() (n int, none bool) {
	v := d.number()
	if v == 0 {
		return 0, true
	}
	if v-1 > uint64(len(d.b)) { // each takes a byte at least
		d.b, d.err = nil, errRecord
		return 0, false
	}
	return int(v - 1), false
}

func (d *decoder) numbers() []int64 {
	n, none := d.count()
	if none {
		return nil
	}
	v := make([]int64, n)
	for i := range v {
		value, size := binary.Varint(d.b)
		if size <= 0 {
			d.b, d.err = nil, errRecord
			return v
		}
		v[i], d.b = value, d.b[size:]
	}
	return v
}

func (d *decoder) origin() (file string, line, row int) {
	return d.text(), int(d.number()), int(d.number())
}
