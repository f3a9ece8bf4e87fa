package main

import (
	"strings"
	"testing"
)

func TestEachPrototypeBecomesAFunction(t *testing.T) {
	for _, c := range []struct{ name, prototype, want string }{
		{"a result", "int64_t gp_size(gp_tensor t, int64_t dim);  // may be negative",
			"func Size(t Tensor, dim int64) int64 {\n\treturn int64(C.gp_size(C.gp_tensor(t), C.int64_t(dim)))\n}"},
		{"a message", "char* gp_set_threads(int n);",
			"func SetThreads(n int) string {\n\treturn message(C.gp_set_threads(C.int(n)))\n}"},
		{"booleans, and a name of its own spelling", "gp_bool gp_cuda_allow_tf32(gp_bool on);",
			"func CUDAAllowTF32(on bool) bool {\n\treturn C.gp_cuda_allow_tf32(cbool(on)) != 0\n}"},
		{"in place", "void gp_fill_(gp_tensor t /* never NULL */,\n  double v);",
			"func FillInPlace(t Tensor, v float64) {\n\tC.gp_fill_(C.gp_tensor(t), C.double(v))\n}"},
		{"arrays with their length", "char* gp_empty(gp_tensor* out, const int64_t* sizes, int n, gp_bool pinned);",
			"func Empty(out *Tensor, sizes []int64, pinned bool) string {\n\treturn message(C.gp_empty((*C.gp_tensor)(out), (*C.int64_t)(unsafe.SliceData(sizes)), C.int(len(sizes)), cbool(pinned)))\n}"},
		{"a place for a result", "char* gp_norm(gp_tensor* ts, int n, double* total);",
			"func Norm(ts []Tensor, total *float64) string {\n\treturn message(C.gp_norm((*C.gp_tensor)(unsafe.SliceData(ts)), C.int(len(ts)), (*C.double)(total)))\n}"},
		{"strings", "const char* gp_path(const char* of);",
			"func Path(of string) string {\n\tcof := C.CString(of)\n\tdefer C.free(unsafe.Pointer(cof))\n\treturn C.GoString(C.gp_path(cof))\n}"},
	} {
		functions, err := parse("#pragma once\nextern \"C\" {\ntypedef void* gp_tensor;\n" + c.prototype + "\n}\n")
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		code, err := source([]string{"a.h"}, functions)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if !strings.Contains(string(code), c.want) {
			t.Errorf("%s: got\n%s\nwant in it\n%s", c.name, code, c.want)
		}
	}
}

func TestOnlyWhatRunsNoGoIsCalledWithoutCallbacks(t *testing.T) {
	functions, err := parse("GP_CALLS_GO char* gp_backward(gp_tensor loss);\nint gp_threads(void);\n")
	if err != nil {
		t.Fatal(err)
	}
	code, err := source([]string{"a.h"}, functions)
	if err != nil {
		t.Fatal(err)
	}
	if s := string(code); strings.Contains(s, "#cgo nocallback gp_backward\n") || !strings.Contains(s, "#cgo nocallback gp_threads\n") {
		t.Error(s)
	}
}

func TestWhatIsNotUnderstoodIsAnError(t *testing.T) {
	for _, header := range []string{
		"float gp_f(int a);",
		"int gp_f(float a);",
		"int gp_f(int);",
		"int other(int a);",
		"struct gp_s { int a; };",
	} {
		functions, err := parse(header)
		if err == nil {
			_, err = source([]string{"a.h"}, functions)
		}
		if err == nil {
			t.Errorf("%s: no error", header)
		}
	}
}
