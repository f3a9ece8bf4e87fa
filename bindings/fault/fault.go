// Package fault makes errors of what would end the process: a panic of a goroutine that others wait for, and mapped
// memory that cannot be read any more.
//
//	go func() { done <- fault.Guard(work) }()
package fault

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// ErrMapping is of mapped memory whose pages cannot be had.
var ErrMapping = errors.New("the mapped file cannot be read any more: it was shortened, or its disk failed")

// Panic is a panic as an error. It says that a program is wrong, and not what it was given.
type Panic struct {
	Value any
	Stack []byte
}

// Error implements error.
func (p *Panic) Error() string { return fmt.Sprintf("panic: %v", p.Value) }

// Guard runs work and returns its error; a panic is a *Panic then, and a read of mapped memory that fails is ErrMapping.
func Guard(work func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = Recovered(r)
		}
	}()
	return work()
}

// Recovered is the error of a panic with the value given. It is called where that is recovered, so that its stack is known.
func Recovered(r any) error {
	switch r := r.(type) {
	case interface{ Addr() uintptr }: // debug.SetPanicOnFault's
		return ErrMapping
	case *Panic: // of another goroutine
		return r
	default:
		return &Panic{r, debug.Stack()}
	}
}
