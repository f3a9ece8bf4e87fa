package hf

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"gopeft/bindings"
	"gopeft/model/hf/files"
)

// Want is a tensor that a model asks of a checkpoint.
type Want struct {
	Name  string   // the model's own name for it, HuggingFace's canonical one
	Names []string // other names it may have in the file, tried after Name
	Shape []int64
	Place Place          // where the file holds it otherwise
	New   bool           // may be absent: the caller initialises it
	Fresh bool           // is not even looked for: a head that is to be initialised anew
	DType bindings.DType // of the result; the request's unless set
	Host  bool           // is left on the CPU, whatever the request's device
	// Quantise says how a matrix is held. One that is held quantised is a placeholder, and Request.Quantised is told of it.
	Quantise Quantisation
}

// Request is what Load matches against the checkpoint's tensors.
type Request struct {
	Wants []Want
	// Rename maps a name in the file to the name to match, e.g. to drop or add a prefix; nil is identity.
	Rename func(string) string
	// Ignore reports file names (after Rename) that are known to have no use.
	Ignore func(string) bool
	// Interleaved says how many heads a tensor (by its wanted name) has whose rows the file holds with the two halves of
	// each head interleaved, as GGUF files do for some queries and keys; 0 for rows in order. nil: all are in order.
	Interleaved func(name string) (heads int64)
	DType       bindings.DType // of the result; fp32 unless set
	Device      bindings.Device
	Copy        bool // no tensor shares the file's mapping: it may be closed
	// Mapped, unless nil, is told of every want whose tensor shares the file's mapping, with the entry that it lies in. Pages
	// that the entry releases are read from the file again when touched, so what was written to them would be lost.
	Mapped func(want int, e files.Entry)
	// Quantised is given the matrix of every want that is held quantised; its tensors are owned by Load's scope. It may be
	// nil where no want asks for more than Plain.
	Quantised func(want int, q *bindings.Quantised)
}

// Load gives the wanted tensors in order, owned by s; one that is Fresh, or New and not in the file, is none.
// All missing, unexpected and mis-shaped keys are listed in one error. Tensors are read in file order. Unless r.Copy is
// set, one that is stored as it is wanted, on the CPU, shares the file's mapping (copy-on-write). Others are converted
// some rows at a time, so that memory holds little more than the result.
func (c *Checkpoint) Load(s *bindings.Scope, r Request) ([]bindings.Tensor, error) {
	if r.DType == 0 {
		r.DType = bindings.Float
	}
	plan, err := c.Plan(r)
	if err != nil {
		return nil, err
	}
	entries := c.Weights.Entries()
	place := make(map[string]int, len(entries))
	for i, e := range entries {
		place[e.Name] = i
	}
	var order []int
	for i, e := range plan {
		if e != nil {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return place[plan[a].Name] - place[plan[b].Name] })
	ts := make([]bindings.Tensor, len(r.Wants))
	for _, i := range order {
		if ts[i], err = c.tensor(s, r, i, *plan[i]); err != nil {
			return nil, err
		}
	}
	return ts, nil
}

// Plan finds the entry of each want, nil for one that is Fresh, or New and not in the file. Errors are Load's.
func (c *Checkpoint) Plan(r Request) ([]*files.Entry, error) {
	entries := c.Weights.Entries()
	byName := make(map[string]files.Entry, len(entries))
	for _, e := range entries {
		name := e.Name
		if r.Rename != nil {
			name = r.Rename(name)
		}
		if other, twice := byName[name]; twice {
			return nil, fmt.Errorf("model %s: tensors %q and %q both stand for %s", c.Path, other.Name, e.Name, name)
		}
		byName[name] = e
	}
	return c.match(r, byName)
}

// match finds the entry of each want, nil for an absent optional one.
func (c *Checkpoint) match(r Request, byName map[string]files.Entry) ([]*files.Entry, error) {
	plan := make([]*files.Entry, len(r.Wants))
	var missing, misshaped, unexpected []string
	used := make(map[string]bool, len(byName))
	for i, w := range r.Wants {
		if w.Fresh {
			used[w.Name] = true
			continue
		}
		names, shape := append([]string{w.Name}, w.Names...), w.Shape
		if w.Place.elsewhere() {
			names, shape = []string{w.Place.Name}, w.Place.Shape(w.Shape)
		}
		for _, name := range names {
			e, ok := byName[name]
			if !ok {
				continue
			}
			used[name] = true
			if plan[i] != nil {
				continue // an alias beside the name itself, such as a tied head
			}
			if !slices.Equal(e.Shape, shape) {
				if text := fmt.Sprintf("%s is %v, want %v", e.Name, e.Shape, shape); !slices.Contains(misshaped, text) {
					misshaped = append(misshaped, text)
				}
			} else if part, err := w.Place.entry(e, w); err != nil {
				return nil, fmt.Errorf("model %s: %w", c.Path, err)
			} else {
				e = part
			}
			plan[i] = &e
		}
		if plan[i] == nil && !w.New && !slices.Contains(missing, names[0]) {
			missing = append(missing, names[0])
		}
	}
	for name, e := range byName {
		if !used[name] && (r.Ignore == nil || !r.Ignore(name)) {
			unexpected = append(unexpected, e.Name)
		}
	}
	slices.Sort(unexpected)
	var parts []string
	for _, p := range []struct {
		what string
		keys []string
	}{{"missing", missing}, {"unexpected", unexpected}, {"of the wrong shape", misshaped}} {
		if len(p.keys) > 0 {
			parts = append(parts, fmt.Sprintf("%d %s (%s)", len(p.keys), p.what, List(p.keys)))
		}
	}
	if len(parts) > 0 {
		return nil, fmt.Errorf("model %s: the weights do not fit its config.json: %s", c.Path, strings.Join(parts, "; "))
	}
	return plan, nil
}

// List joins keys for a message, the first 20 of them.
func List(keys []string) string {
	const most = 20
	if len(keys) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(keys[:most], ", "), len(keys)-most)
	}
	return strings.Join(keys, ", ")
}

var dtypes = map[files.DType]bindings.DType{
	files.F64: bindings.Double, files.F32: bindings.Float, files.F16: bindings.Half, files.BF16: bindings.BFloat16,
	files.I64: bindings.Int64, files.I32: bindings.Int, files.I16: bindings.Int16, files.I8: bindings.Int8,
	files.U8: bindings.Uint8, files.Bool: bindings.Bool,
}

// Tensor makes a tensor of an entry in its own dtype, sharing the entry's memory; the archive must stay open
// while the tensor lives.
func Tensor(s *bindings.Scope, e files.Entry) (bindings.Tensor, error) {
	d, ok := dtypes[e.DType]
	if !ok {
		return bindings.Tensor{}, fmt.Errorf("%s: tensor %s has dtype %v, which has no place in a model", e.File, e.Name, e.DType)
	}
	if !inPlace(e) {
		return s.FromRaw(e.Data, d, e.Shape...), nil
	}
	return s.OverMemory(e.Data, d, e.Shape...), nil
}

// inPlace reports whether a tensor may lie in an entry's own memory. Unaligned elements, and memory that Go's
// collector may take, are copied.
func inPlace(e files.Entry) bool { return e.Mapped() && e.Aligned() }

func (c *Checkpoint) tensor(s *bindings.Scope, r Request, want int, e files.Entry) (bindings.Tensor, error) {
	if d := r.Wants[want].DType; d != 0 {
		r.DType = d
	}
	if r.Wants[want].Host {
		r.Device = bindings.CPU
	}
	heads := int64(0)
	if r.Interleaved != nil {
		heads = r.Interleaved(r.Wants[want].Name)
	}
	held, err := r.Wants[want].staysQuantised(e)
	switch {
	case err != nil:
		return bindings.Tensor{}, err
	case held:
		return hold(s, r, want, e, heads)
	case r.Wants[want].Place.turned(e.Shape):
		return turned(s, e, r.Wants[want], r.DType, r.Device)
	case e.DType.Grouped():
		t, err := dequantised(s, e, heads, r.DType, r.Device)
		return t, errors.Join(err, e.Release())
	case e.DType.Quantised() || heads > 0:
		t, err := byRows(s, e, heads, r.DType, r.Device)
		return t, errors.Join(err, e.Release())
	}
	if !e.DType.Float() {
		return bindings.Tensor{}, notFloat(e)
	}
	if r.Copy || r.Device != bindings.CPU || r.DType != dtypes[e.DType] || !inPlace(e) {
		return converted(s, e, r.DType, r.Device)
	}
	t, err := Tensor(s, e)
	if err == nil && r.Mapped != nil {
		r.Mapped(want, e)
	}
	return t, err
}

func notFloat(e files.Entry) error {
	return fmt.Errorf("%s: tensor %s holds %v, want floating-point weights", e.File, e.Name, e.DType)
}

// converted copies an entry into a tensor of dtype d, some rows at a time, and releases each as soon as it is copied.
func converted(s *bindings.Scope, e files.Entry, d bindings.DType, dev bindings.Device) (bindings.Tensor, error) {
	const piece = 4 << 20 // bytes
	var err error
	t := s.In(func(s *bindings.Scope) bindings.Tensor {
		if len(e.Shape) == 0 || len(e.Data) <= piece {
			var t bindings.Tensor
			if t, err = Tensor(s, e); err != nil {
				return t
			}
			whole := s.Empty(e.Shape, d, dev)
			s.Copy(whole, t)
			err = e.Release()
			return whole
		}
		t := s.Empty(e.Shape, d, dev)
		rows := e.Shape[0]
		step := max(1, piece*rows/int64(len(e.Data)))
		for first := int64(0); first < rows && err == nil; first += step {
			err = s.Run(func(s *bindings.Scope) error {
				part, err := e.Rows(first, min(step, rows-first))
				if err != nil {
					return err
				}
				from, err := Tensor(s, part)
				if err != nil {
					return err
				}
				s.Copy(s.Narrow(t, 0, first, part.Shape[0]), from)
				return part.Release()
			})
		}
		return t
	})
	return t, err
}

// byRows dequantises an entry some rows at a time into a tensor of dtype d. With heads, each head's rows lie
// interleaved in the file: 2i is row i of the first half, 2i+1 row i of the second.
func byRows(s *bindings.Scope, e files.Entry, heads int64, d bindings.DType, dev bindings.Device) (bindings.Tensor, error) {
	if len(e.Shape) == 0 || heads > 0 && (e.Shape[0]%heads != 0 || e.Shape[0]/heads%2 != 0) {
		return bindings.Tensor{}, fmt.Errorf("%s: tensor %s of shape %v does not hold the rows of %d heads", e.File, e.Name, e.Shape, heads)
	}
	if !e.DType.Quantised() && !e.DType.Float() {
		return bindings.Tensor{}, notFloat(e)
	}
	rows, cols := e.Shape[0], int64(1)
	for _, n := range e.Shape[1:] {
		cols *= n
	}
	if len(e.Shape) == 1 { // quantised vectors are blocks along their one dimension
		rows, cols = 1, e.Shape[0]
		if heads > 0 {
			rows, cols = e.Shape[0], 1
		}
	}
	const piece = 1 << 20 // elements
	step := max(1, piece/max(cols, 1))
	if heads > 0 {
		step = rows / heads
	}
	var err error
	t := s.In(func(s *bindings.Scope) bindings.Tensor {
		t := s.Empty([]int64{rows, cols}, d, dev)
		scratch := s.Empty([]int64{step, cols}, bindings.Float, bindings.CPU)
		for first := int64(0); first < rows && err == nil; first += step {
			err = s.Run(func(s *bindings.Scope) error {
				n := min(step, rows-first)
				from := s.Narrow(scratch, 0, 0, n)
				if err := from.View(func(raw []byte) error {
					return e.Float32(unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(raw))), n*cols), first*cols)
				}); err != nil {
					return err
				}
				if heads > 0 {
					from = s.Reshape(s.Transpose(s.Reshape(from, n/2, 2, cols), 0, 1), n, cols)
				}
				s.Copy(s.Narrow(t, 0, first, n), from)
				return nil
			})
		}
		return s.Reshape(t, e.Shape...)
	})
	return t, err
}
