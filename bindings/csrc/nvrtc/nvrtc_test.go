package nvrtc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// need opens the NVRTC in the folder GOPEFT_NVRTC, which scripts/check.sh nvrtc fetches.
func need(t *testing.T) *Compiler {
	t.Helper()
	folder := os.Getenv("GOPEFT_NVRTC")
	if folder == "" {
		t.Skip("SKIPPED: GPU kernels are not compiled here: `scripts/check.sh nvrtc` fetches the compiler and does it")
	}
	c, err := Open(filepath.Join(folder, names[0]))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var kernelName = regexp.MustCompile(`(?m)^KERNEL (\w+)\(`)

// kernelsOf are the kernels in a source, sorted.
func kernelsOf(source string) (names []string) {
	for _, m := range kernelName.FindAllStringSubmatch(source, -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	return names
}

// Every kernel compiles for each generation of GPUs and keeps all it computes with in registers.
func TestKernelsCompileWithoutSpills(t *testing.T) {
	c := need(t)
	for _, g := range Groups() {
		for _, e := range []Element{Float, BFloat16, Half} {
			source := Source(g, e)
			for _, a := range []int{80, 86, 89, 90, 100, 120} {
				t.Run(fmt.Sprintf("%s/%v/sm_%d", g, e, a), func(t *testing.T) {
					target, err := c.TargetFor(a/10, a%10)
					if err != nil || target.PTX {
						t.Fatalf("%v, %v", target, err)
					}
					code, usage, err := c.Compile(source, target)
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.HasPrefix(code, []byte("\x7fELF")) {
						t.Errorf("the code begins with %q", code[:4])
					}
					var got []string
					for _, u := range usage {
						got = append(got, u.Kernel)
						if u.Stack+u.Stores+u.Loads > 0 {
							t.Errorf("%+v: it does not fit in registers", u)
						}
						if u.Registers > 128 {
							t.Errorf("%+v: its blocks, of up to 512 threads, take more than the 65,536 registers of a processor", u)
						}
						t.Logf("%s: %d registers", u.Kernel, u.Registers)
					}
					slices.Sort(got)
					if want := kernelsOf(source); len(want) == 0 || !slices.Equal(got, want) {
						t.Errorf("compiled were %v, of %v", got, want)
					}
				})
			}
		}
	}
}

func TestEveryFileBelongsToAGroup(t *testing.T) {
	files, err := kernels.ReadDir("kernels")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(f.Name(), ".cu")
		if !slices.ContainsFunc(Groups(), func(g Group) bool { return slices.Contains(g.files(), name) }) {
			t.Errorf("%s is in none", f.Name())
		}
	}
}

func TestAGPUNewerThanTheCompilerGetsPTX(t *testing.T) {
	c := need(t)
	target, err := c.TargetFor(99, 0)
	if err != nil || target != (Target{80, true}) {
		t.Fatalf("%v, %v", target, err)
	}
	for _, g := range Groups() {
		code, _, err := c.Compile(Source(g, BFloat16), target)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(code, []byte(".target sm_80")) {
			t.Errorf("%s is not PTX for sm_80", g)
		}
	}
	if _, err := c.TargetFor(7, 5); err == nil || !strings.Contains(err.Error(), "7.5") {
		t.Errorf("a GPU that is too old: %v", err)
	}
}

func TestASourceThatDoesNotCompileSaysWhere(t *testing.T) {
	_, _, err := need(t).Compile("KERNEL f() {}", Target{Architecture: 80})
	if err == nil || !strings.Contains(err.Error(), "gopeft.cu(1)") {
		t.Fatal(err)
	}
}

func TestSpillsAreSeen(t *testing.T) {
	// An array that is written where only the run knows lies in memory.
	const source = `extern "C" __global__ void f(int* x, int n) {
	int a[64] = {};
	for (int k = 0; k < n; k++) a[x[k] & 63] += k;
	for (int k = 0; k < 64; k++) x[k] = a[k];
}`
	_, usage, err := need(t).Compile(source, Target{Architecture: 80})
	if err != nil {
		t.Fatal(err)
	}
	if len(usage) != 1 || usage[0].Stack < 256 {
		t.Fatalf("%+v", usage)
	}
}

func TestCache(t *testing.T) {
	c := need(t)
	const source = `extern "C" __global__ void f(float* x) { x[0] = 1; }`
	k, target := Cache{filepath.Join(t.TempDir(), "kernels")}, Target{Architecture: 80}
	code := func() []byte {
		t.Helper()
		code, warn, err := k.Code(c, source, target)
		if err != nil || warn != nil {
			t.Fatal(warn, err)
		}
		return code
	}
	first, path := code(), k.path(c.key(source, target))
	if again := code(); !bytes.Equal(first, again) {
		t.Error("the kept code differs")
	}
	kept, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func() []byte{
		"cut short": func() []byte { return kept[:20] },
		"damaged":   func() []byte { d := bytes.Clone(kept); d[len(d)-1] ^= 1; return d },
	} {
		if err := os.WriteFile(path, change(), 0o666); err != nil {
			t.Fatal(err)
		}
		got, warn, err := k.Code(c, source, target)
		if err != nil || warn == nil || !strings.Contains(warn.Error(), name) || !bytes.Equal(got, first) {
			t.Errorf("%s: %v, %v", name, warn, err)
		}
		code() // whole again
	}
	for name, key := range map[string]string{
		"source": c.key(source+" ", target), "target": c.key(source, Target{Architecture: 90}), "kind": c.key(source, Target{80, true}),
	} {
		if key == c.key(source, target) {
			t.Errorf("another %s has the same key", name)
		}
	}
	files, err := os.ReadDir(k.Folder)
	if err != nil || len(files) != 1 {
		t.Errorf("%d files, %v", len(files), err)
	}
}

func TestACacheThatCannotBeWrittenIsAWarning(t *testing.T) {
	c := need(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	code, warn, err := Cache{filepath.Join(file, "kernels")}.Code(c, `extern "C" __global__ void f() {}`, Target{Architecture: 80})
	if len(code) == 0 || warn == nil || err != nil {
		t.Fatal(len(code), warn, err)
	}
}

func TestNoLibrary(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "libnvrtc.so.13")); err == nil || !strings.Contains(err.Error(), "open NVRTC") {
		t.Fatal(err)
	}
}
