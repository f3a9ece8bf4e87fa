package chat

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"

	"github.com/nikolalohinski/gonja/v2/exec"
)

// Bounds of one rendering, far above what any chat needs.
const (
	maxSource   = 256 << 10 // bytes of a template
	maxNesting  = 200       // brackets within brackets, and operations on operations
	maxSteps    = 500_000   // statements, rounds of loops, operations and numbers of ranges
	maxDepth    = 64        // macros within macros, and lists within lists
	maxValue    = 8 << 20   // bytes of a value
	maxMade     = 128 << 20 // bytes of all values and texts that are made on the way
	maxOutput   = 16 << 20
	maxTime     = 10 * time.Second
	elementSize = 16 // bytes that any value takes
	maxElements = maxValue / elementSize
)

var errTooLarge = fmt.Errorf("a value grows beyond %d bytes", maxValue)

// budget is what has been used of one rendering's bounds. Every value that a template can get hold of is within
// maxValue, as whatever makes one asks the budget: operators and filters, bodies that are captured, and literals.
type budget struct {
	now    time.Time
	end    time.Time
	steps  int
	made   int
	depth  int
	raised string // message of the template's own error
	fault  error  // the first error, which the library wraps in its own
}

func (b *budget) start(now time.Time) {
	*b = budget{now: now, end: time.Now().Add(maxTime)}
}

// fail remembers an error.
func (b *budget) fail(err error) error {
	if b.fault == nil {
		b.fault = err
	}
	return err
}

func (b *budget) spend(n int) error {
	if b.steps += n; b.steps > maxSteps || n < 0 {
		return b.fail(fmt.Errorf("takes more than %d steps", maxSteps))
	}
	if time.Now().After(b.end) {
		return b.fail(fmt.Errorf("takes longer than %v", maxTime))
	}
	return nil
}

// produce takes n new bytes off the budget.
func (b *budget) produce(n int) error {
	if b.made += n; b.made > maxMade {
		return b.fail(fmt.Errorf("makes more than %d bytes", maxMade))
	}
	return nil
}

// checked takes a new value off the budget, and refuses one that is too large.
func (b *budget) checked(v *exec.Value) *exec.Value {
	if err, ok := v.Interface().(error); ok {
		return exec.AsValue(b.fail(err))
	}
	if err := checkSize(v.Interface()); err != nil {
		return exec.AsValue(b.fail(err))
	}
	if err := b.produce(weight(v.Interface())); err != nil {
		return exec.AsValue(err)
	}
	return v
}

// metered is a writer that takes what is written off the budget, and refuses more than limit bytes.
type metered struct {
	to      io.Writer
	budget  *budget
	limit   int
	written int
}

func (m *metered) draw(n int) error {
	if m.written += n; m.written > m.limit {
		return m.budget.fail(fmt.Errorf("writes more than %d bytes", m.limit))
	}
	return m.budget.produce(n)
}

func (m *metered) Write(p []byte) (int, error) {
	if err := m.draw(len(p)); err != nil {
		return 0, err
	}
	return m.to.Write(p)
}

// WriteString implements io.StringWriter with the same limit.
func (m *metered) WriteString(s string) (int, error) {
	if err := m.draw(len(s)); err != nil {
		return 0, err
	}
	return io.WriteString(m.to, s)
}

// checkArguments refuses arguments that are too large.
func checkArguments(args *exec.VarArgs) error {
	for _, v := range args.Args {
		if err := checkSize(v); err != nil {
			return err
		}
	}
	for _, v := range args.KwArgs {
		if err := checkSize(v); err != nil {
			return err
		}
	}
	return nil
}

func checkSize(v any) error {
	n, err := size(v, 0)
	if err == nil && n > maxValue {
		err = errTooLarge
	}
	return err
}

// size is about the bytes of a value and all that it holds, counted no further than maxValue. No value may hold a
// namespace, which can grow after its size was checked.
func size(v any, depth int) (int, error) {
	if depth > maxDepth {
		return 0, fmt.Errorf("values are nested more than %d deep", maxDepth)
	}
	switch v := v.(type) {
	case *exec.Value:
		return size(v.Interface(), depth)
	case *exec.Dict:
		return sizes(2*len(v.Pairs), depth, func(i int) any {
			if i%2 == 0 {
				return v.Pairs[i/2].Key
			}
			return v.Pairs[i/2].Value
		})
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.String:
		return r.Len() + elementSize, nil
	case reflect.Slice, reflect.Array:
		return sizes(r.Len(), depth, func(i int) any { return r.Index(i).Interface() })
	case reflect.Map:
		if depth > 0 {
			return 0, errors.New("a namespace within another value is not supported")
		}
		keys := r.MapKeys()
		return sizes(len(keys), depth, func(i int) any { return r.MapIndex(keys[i]).Interface() })
	}
	return elementSize, nil
}

func sizes(n, depth int, element func(int) any) (int, error) {
	total := elementSize
	for i := 0; i < n && total <= maxValue; i++ {
		one, err := size(element(i), depth+1)
		if err != nil {
			return 0, err
		}
		total += one
	}
	return total, nil
}

// weight is about the bytes that a new value takes besides those of its elements, which were there before.
func weight(v any) int {
	if dict, ok := v.(*exec.Dict); ok {
		return elementSize * (1 + 4*len(dict.Pairs))
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.String:
		return elementSize + r.Len()
	case reflect.Slice, reflect.Array:
		return elementSize * (1 + 2*r.Len())
	}
	return elementSize
}
