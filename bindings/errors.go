package bindings

import (
	"fmt"
	"strings"
	"unsafe"

	lib "github.com/sugarme/gotch/libtch"

	"gopeft/bindings/csrc"
)

// OpError is a tensor operation that libtorch refused.
type OpError struct {
	Op      string   // the operation, e.g. "matmul"
	Args    []string // dtype and shape of each tensor argument, e.g. "float[2 3]"
	Message string   // libtorch's message without its stack
	Detail  string   // the same with it
}

func (e *OpError) Error() string {
	if len(e.Args) == 0 {
		return fmt.Sprintf("%s: %s", e.Op, e.Message)
	}
	return fmt.Sprintf("%s(%s): %s", e.Op, strings.Join(e.Args, ", "), e.Message)
}

// fail panics with the *OpError that Do turns into its return value.
func fail(op, message string, args ...Tensor) {
	e := &OpError{Op: op, Message: firstLine(message), Detail: message}
	for _, a := range args {
		e.Args = append(e.Args, a.String())
	}
	panic(e)
}

// lastError takes gotch's thread-local message.
func lastError() string {
	c := unsafe.Pointer(lib.GetAndResetLastErr())
	if c == nil {
		return "libtorch gave no reason"
	}
	var b strings.Builder
	for p := (*byte)(c); *p != 0; p = (*byte)(unsafe.Add(unsafe.Pointer(p), 1)) {
		b.WriteByte(*p)
	}
	csrc.Free(c)
	return b.String()
}

// firstLine drops what libtorch appends to its messages: a C++ stack, or the list of every backend.
func firstLine(s string) string {
	for _, tail := range []string{"\nException raised from", " This could be because the operator doesn't exist for this backend"} {
		if i := strings.Index(s, tail); i >= 0 {
			s = s[:i]
		}
	}
	return strings.Join(strings.Fields(s), " ")
}
