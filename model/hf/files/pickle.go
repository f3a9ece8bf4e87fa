package files

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"
)

// Limits on a pickle program, far above the state dict of any model (some 60
// instructions a tensor), so that a hostile one ends early.
const (
	maxPickleBytes = 64 << 20
	maxPickleOps   = 1 << 23
	maxPickleStack = 1 << 20
)

// The Python values that a pickle of tensors is made of. None is nil; numbers,
// strings, bytes and truth values are int64, float64, string, []byte and bool.
type (
	pyTuple  []any
	pyList   struct{ items []any }
	pyDict   struct{ keys, values []any }
	pyGlobal string   // module.name, one of those in pickleGlobal
	pyLong   []byte   // an integer of more than 64 bits, little-endian
	pyOpaque struct{} // a harmless value of no interest here
)

// pyTensor is a view of a storage whose bytes are found later.
type pyTensor struct {
	storage       *pyStorage
	offset        int64
	shape, stride []int64
}

// pyStorage is a block of numbers outside the pickle, named by its key.
type pyStorage struct {
	key   string
	dtype DType
	count int64
	// Set once the pickle has been read.
	at, size int64
	found    bool
}

// unpickler runs the pickle machine over an allow-list: it builds plain values
// and tensor descriptions and can call nothing else, for there is nothing else
// here to call. Values refer to each other as in Python, so a program that makes
// exponential or cyclic structures costs only its own length; who walks the
// result must bound the walk.
type unpickler struct {
	data     []byte
	at       int
	stack    []any
	marks    []int
	memo     map[uint64]any
	storages map[string]*pyStorage
	copied   int // items copied by OrderedDict calls so far
}

// load runs one program from the current position and leaves the position after
// its STOP.
func (u *unpickler) load() (any, error) {
	u.stack, u.marks, u.memo = u.stack[:0], u.marks[:0], map[uint64]any{}
	start := u.at
	for range maxPickleOps {
		if u.at-start > maxPickleBytes {
			return nil, fmt.Errorf("pickle of more than %d bytes", maxPickleBytes)
		}
		from := u.at
		op, err := u.byte()
		if err == nil && op == '.' {
			return u.pop()
		}
		if err == nil {
			err = u.step(op)
		}
		if err == nil && len(u.stack) > maxPickleStack {
			err = fmt.Errorf("more than %d values on the stack", maxPickleStack)
		}
		if err != nil {
			return nil, fmt.Errorf("pickle at byte %d: %w", from, err)
		}
	}
	return nil, fmt.Errorf("pickle of more than %d instructions", maxPickleOps)
}

func (u *unpickler) step(op byte) error {
	switch op {
	case 0x80: // PROTO
		version, err := u.byte()
		if err == nil && (version < 2 || version > 5) {
			err = fmt.Errorf("protocol %d is not supported (2 to 5 are)", version)
		}
		return err
	case 0x95: // FRAME
		_, err := u.uint(8)
		return err
	case '(':
		u.marks = append(u.marks, len(u.stack))
		if len(u.marks) > maxPickleStack {
			return fmt.Errorf("more than %d marks", maxPickleStack)
		}
		return nil
	case '0':
		_, err := u.pop()
		return err
	case '1':
		_, err := u.popMark()
		return err
	case '2':
		top, err := u.top()
		u.push(top)
		return err
	case 'q', 'r', 0x94, 'h', 'j':
		return u.memory(op)
	case 'c', 0x93:
		return u.global(op)
	case 'R', 0x81: // REDUCE, NEWOBJ
		return u.reduce()
	case 'Q':
		return u.persistent()
	case 'b':
		return u.build()
	case ')', 0x85, 0x86, 0x87, 't', ']', 'l', 'a', 'e', '}', 'd', 's', 'u':
		return u.container(op)
	}
	return u.scalar(op)
}

func (u *unpickler) push(v any) { u.stack = append(u.stack, v) }

// floor is the first stack place that may be popped: what lies before the last
// mark belongs to an unfinished container.
func (u *unpickler) floor() int {
	if len(u.marks) == 0 {
		return 0
	}
	return u.marks[len(u.marks)-1]
}

var errStack = errors.New("the stack runs empty")

func (u *unpickler) pop() (any, error) {
	v, err := u.top()
	if err == nil {
		u.stack = u.stack[:len(u.stack)-1]
	}
	return v, err
}

func (u *unpickler) top() (any, error) {
	if len(u.stack) <= u.floor() {
		return nil, errStack
	}
	return u.stack[len(u.stack)-1], nil
}

// popMark takes all values above the last mark.
func (u *unpickler) popMark() ([]any, error) {
	if len(u.marks) == 0 {
		return nil, errors.New("there is no mark on the stack")
	}
	from := u.floor()
	items := slices.Clone(u.stack[from:])
	u.stack, u.marks = u.stack[:from], u.marks[:len(u.marks)-1]
	return items, nil
}

// popN takes a fixed number of values.
func (u *unpickler) popN(n int) ([]any, error) {
	if len(u.stack)-u.floor() < n {
		return nil, errStack
	}
	items := slices.Clone(u.stack[len(u.stack)-n:])
	u.stack = u.stack[:len(u.stack)-n]
	return items, nil
}

func (u *unpickler) byte() (byte, error) {
	b, err := u.bytes(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

func (u *unpickler) bytes(n uint64) ([]byte, error) {
	if n > uint64(len(u.data)-u.at) {
		return nil, fmt.Errorf("%d bytes wanted of %d: the file is cut short", n, len(u.data)-u.at)
	}
	b := u.data[u.at : u.at+int(n)]
	u.at += int(n)
	return b, nil
}

func (u *unpickler) uint(width uint64) (uint64, error) {
	raw, err := u.bytes(width)
	var b [8]byte
	copy(b[:], raw)
	return binary.LittleEndian.Uint64(b[:]), err
}

// sized reads bytes behind a length of the given width.
func (u *unpickler) sized(width uint64) ([]byte, error) {
	n, err := u.uint(width)
	if err != nil {
		return nil, err
	}
	return u.bytes(n)
}

func (u *unpickler) line() (string, error) {
	const longest = 1 << 10
	rest := u.data[u.at:min(len(u.data), u.at+longest)]
	for i, b := range rest {
		if b == '\n' {
			u.at += i + 1
			return string(rest[:i]), nil
		}
	}
	return "", errors.New("a line does not end")
}

// operandWidth gives the bytes of the number, or of the length, behind a scalar
// instruction.
func operandWidth(op byte) uint64 {
	switch op {
	case 'M':
		return 2
	case 'J', 0x8b, 'T', 'X', 'B':
		return 4
	case 0x8d, 0x8e, 0x96:
		return 8
	}
	return 1
}

func (u *unpickler) scalar(op byte) error {
	switch op {
	case 'N':
		u.push(nil)
	case 0x88, 0x89: // NEWTRUE, NEWFALSE
		u.push(op == 0x88)
	case 'K', 'M', 'J':
		n, err := u.uint(operandWidth(op))
		if op == 'J' {
			n = uint64(int32(n))
		}
		u.push(int64(n))
		return err
	case 'G':
		raw, err := u.bytes(8)
		if err != nil {
			return err
		}
		u.push(math.Float64frombits(binary.BigEndian.Uint64(raw)))
	case 0x8a, 0x8b: // LONG1, LONG4
		raw, err := u.sized(operandWidth(op))
		if err != nil {
			return err
		}
		u.push(integer(raw))
	case 'U', 'T', 'X', 0x8c, 0x8d: // (SHORT_)BINSTRING, (SHORT_)BINUNICODE(8)
		raw, err := u.sized(operandWidth(op))
		if err != nil {
			return err
		}
		if !utf8.Valid(raw) {
			return errors.New("a string is not valid UTF-8")
		}
		u.push(string(raw))
	case 'C', 'B', 0x8e, 0x96: // (SHORT_)BINBYTES(8), BYTEARRAY8
		raw, err := u.sized(operandWidth(op))
		u.push(raw)
		return err
	default:
		return fmt.Errorf("instruction %#02x is not one that tensors need", op)
	}
	return nil
}

// integer reads a little-endian two's complement number.
func integer(raw []byte) any {
	if len(raw) > 8 {
		return pyLong(raw)
	}
	n := int64(0)
	for i, b := range raw {
		n |= int64(b) << (8 * i)
	}
	if unused := 64 - 8*len(raw); len(raw) > 0 {
		n = n << unused >> unused
	}
	return n
}

// memory stores the top of the stack in the memo, or recalls it.
func (u *unpickler) memory(op byte) error {
	var index uint64
	var err error
	switch op {
	case 'q', 'h':
		index, err = u.uint(1)
	case 'r', 'j':
		index, err = u.uint(4)
	default: // MEMOIZE numbers its values itself
		index = uint64(len(u.memo))
	}
	if err != nil {
		return err
	}
	if op == 'h' || op == 'j' {
		v, found := u.memo[index]
		if !found {
			return fmt.Errorf("memo %d was never stored", index)
		}
		u.push(v)
		return nil
	}
	v, err := u.top()
	if err != nil {
		return err
	}
	u.memo[index] = v
	return nil
}

func (u *unpickler) container(op byte) error {
	var items []any
	var err error
	switch op {
	case 0x85, 0x86, 0x87: // TUPLE1, TUPLE2, TUPLE3
		items, err = u.popN(int(op) - 0x84)
	case 'a':
		items, err = u.popN(1)
	case 's':
		items, err = u.popN(2)
	case 't', 'l', 'd', 'e', 'u':
		items, err = u.popMark()
	}
	if err != nil {
		return err
	}
	switch op {
	case ')', 't', 0x85, 0x86, 0x87:
		u.push(pyTuple(items))
	case ']', 'l':
		u.push(&pyList{items})
	case '}', 'd':
		d := &pyDict{}
		u.push(d)
		return d.set(items)
	case 'a', 'e':
		top, err := u.top()
		if err != nil {
			return err
		}
		list, ok := top.(*pyList)
		if !ok {
			return fmt.Errorf("items are appended to %s", pyKind(top))
		}
		list.items = append(list.items, items...)
	case 's', 'u':
		top, err := u.top()
		if err != nil {
			return err
		}
		dict, ok := top.(*pyDict)
		if !ok {
			return fmt.Errorf("items are set in %s", pyKind(top))
		}
		return dict.set(items)
	}
	return nil
}

func (d *pyDict) set(items []any) error {
	if len(items)%2 != 0 {
		return errors.New("a key has no value")
	}
	for i := 0; i < len(items); i += 2 {
		d.keys = append(d.keys, items[i])
		d.values = append(d.values, items[i+1])
	}
	return nil
}
