package xgboost

// #cgo LDFLAGS: -ldl
// #include <stdlib.h>
// #include "capi.h"
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"unsafe"
)

// Library is XGBoost's, opened. It stays so until the program ends: OpenMP's threads may run in it.
type Library struct {
	Path    string
	Version [3]int
	api     C.xgboost_api
}

// Open opens the library that Find finds.
func Open() (*Library, error) {
	path, err := Find()
	if err != nil {
		return nil, err
	}
	l := &Library{Path: path}
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	if message := C.xgboost_open(name, &l.api); message != nil {
		defer C.free(unsafe.Pointer(message))
		return nil, fmt.Errorf("open XGBoost's library: %s", strings.Join(strings.Fields(C.GoString(message)), " "))
	}
	var major, minor, patch C.int
	C.xgboost_version(&l.api, &major, &minor, &patch)
	l.Version = [3]int{int(major), int(minor), int(patch)}
	return l, nil
}

// check makes an error of what a function returned. It runs on the function's thread.
func (l *Library) check(doing string, rc C.int) error {
	if rc == 0 {
		return nil
	}
	return fmt.Errorf("XGBoost: %s: %s", doing, reason(C.GoString(C.xgboost_error(&l.api))))
}

// listen keeps what the library says on this thread for heard, where it would print it.
func (l *Library) listen() error {
	return l.check("take its messages", C.xgboost_listen(&l.api))
}

// heard is what the library has said on this thread since listen.
func heard() []string {
	var all []string
	for line := range strings.Lines(C.GoString(C.xgboost_heard())) {
		if line = plain(line); line != "" {
			all = append(all, line)
		}
	}
	return all
}

// matrix is the library's copy of data.
type matrix struct {
	library *Library
	handle  C.handle
}

// array describes values in memory as NumPy's array interface does, for the length of a call that fn makes.
func array(values []float32, shape string, fn func(description *C.char) C.int) C.int {
	var pin runtime.Pinner // the address passes through text, where cgo does not see it
	defer pin.Unpin()
	pin.Pin(unsafe.SliceData(values))
	text := C.CString(fmt.Sprintf(`{"data":[%d,true],"shape":[%s],"typestr":"<f4","version":3}`, uintptr(unsafe.Pointer(unsafe.SliceData(values))), shape))
	defer C.free(unsafe.Pointer(text))
	return fn(text)
}

func (l *Library) newMatrix(d Data, threads int) (*matrix, error) {
	if d.Rows < 1 || d.Cols < 1 || len(d.Values)/d.Cols != d.Rows || len(d.Values)%d.Cols != 0 || len(d.Labels) > 0 && len(d.Labels) != d.Rows {
		return nil, fmt.Errorf("XGBoost: %d values and %d labels are no %d × %d matrix", len(d.Values), len(d.Labels), d.Rows, d.Cols)
	}
	m := &matrix{library: l}
	config := C.CString(fmt.Sprintf(`{"missing":NaN,"nthread":%d}`, threads))
	defer C.free(unsafe.Pointer(config))
	var made C.handle
	rc := array(d.Values, fmt.Sprintf("%d,%d", d.Rows, d.Cols), func(text *C.char) C.int {
		return C.xgboost_matrix_create(&l.api, text, config, &made)
	})
	if err := l.check("take the features", rc); err != nil {
		return nil, err
	}
	m.handle = made
	if len(d.Labels) == 0 {
		return m, nil
	}
	field := C.CString("label")
	defer C.free(unsafe.Pointer(field))
	rc = array(d.Labels, fmt.Sprint(d.Rows), func(text *C.char) C.int { return C.xgboost_matrix_set(&l.api, m.handle, field, text) })
	if err := l.check("take the labels", rc); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

func (m *matrix) close() error {
	return m.library.check("free features", C.xgboost_matrix_free(&m.library.api, m.handle))
}

// Booster is a trained model. Close frees it.
type Booster struct {
	library *Library
	handle  C.handle
}

// newBooster makes an untrained one, of the matrices that it will be trained and validated on.
func (l *Library) newBooster(matrices ...*matrix) (*Booster, error) {
	var on [2]C.handle
	for i, m := range matrices {
		on[i] = m.handle
	}
	b := &Booster{library: l}
	var made C.handle
	err := l.check("begin", C.xgboost_create(&l.api, on[0], on[1], &made))
	b.handle = made
	return b, err
}

func (b *Booster) free() error {
	return b.library.check("free a model", C.xgboost_free(&b.library.api, b.handle))
}

func (b *Booster) set(name, value string) error {
	n, v := C.CString(name), C.CString(value)
	defer C.free(unsafe.Pointer(n))
	defer C.free(unsafe.Pointer(v))
	return b.library.check("set "+name, C.xgboost_set(&b.library.api, b.handle, n, v))
}

func (b *Booster) update(round int, m *matrix) error {
	return b.library.check("train", C.xgboost_update(&b.library.api, b.handle, C.int(round), m.handle))
}

// evaluate returns the library's line of scores on m.
func (b *Booster) evaluate(round int, m *matrix) (string, error) {
	name := C.CString("validation")
	defer C.free(unsafe.Pointer(name))
	var line *C.char // the library's, until its next call
	if err := b.library.check("score", C.xgboost_evaluate(&b.library.api, b.handle, C.int(round), m.handle, name, &line)); err != nil {
		return "", err
	}
	return C.GoString(line), nil
}

// save is the model in XGBoost's JSON.
func (b *Booster) save() ([]byte, error) {
	config := C.CString(`{"format":"json"}`)
	defer C.free(unsafe.Pointer(config))
	var bytes C.uint64_t
	var from *C.char
	if err := b.library.check("save the model", C.xgboost_save(&b.library.api, b.handle, config, &bytes, &from)); err != nil {
		return nil, err
	}
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(from)), int(bytes))...), nil
}

// Load makes a booster of XGBoost's JSON, which must have been checked.
func (l *Library) Load(model []byte) (b *Booster, err error) {
	err = onThread(func() (err error) {
		if err := l.listen(); err != nil {
			return err
		}
		if b, err = l.newBooster(); err != nil {
			return err
		}
		err = l.check("read the model", C.xgboost_load(&l.api, b.handle, unsafe.Pointer(unsafe.SliceData(model)), C.uint64_t(len(model))))
		if err != nil {
			return errors.Join(err, b.free())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Predict gives what the first rounds (0: all) of the model say of each row: as many values a row as it has outputs.
func (b *Booster) Predict(d Data, rounds, threads int) (out []float32, err error) {
	err = onThread(func() (err error) {
		if err := b.library.listen(); err != nil {
			return err
		}
		m, err := b.library.newMatrix(d, threads)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, m.close()) }()
		if err := b.set("nthread", fmt.Sprint(threads)); err != nil {
			return err
		}
		config := C.CString(fmt.Sprintf(`{"type":0,"training":false,"iteration_begin":0,"iteration_end":%d,"strict_shape":true}`, rounds))
		defer C.free(unsafe.Pointer(config))
		var values C.uint64_t
		var from *C.float // the library's, for this thread
		if err := b.library.check("predict", C.xgboost_predict(&b.library.api, b.handle, m.handle, config, &values, &from)); err != nil {
			return err
		}
		out = append(out, unsafe.Slice((*float32)(unsafe.Pointer(from)), int(values))...)
		return nil
	})
	return out, err
}

// Close frees the booster.
func (b *Booster) Close() error { return onThread(b.free) }
