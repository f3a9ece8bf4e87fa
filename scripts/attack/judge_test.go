package main

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestVerdicts(t *testing.T) {
	fine := "gopeft: rows.csv: line 3: no label\n"
	for _, c := range []struct {
		name string
		r    result
		want string // part of the only verdict; "": there is none
	}{
		{"success", result{}, ""},
		{"a failure in one line", result{code: 1, stderr: fine}, ""},
		{"wrong usage", result{code: 2, stderr: fine}, ""},
		{"the longest line", result{code: 1, stderr: "gopeft: " + strings.Repeat("ä", longestLine-8) + "\n"}, ""},
		{"a longer one", result{code: 1, stderr: "gopeft: " + strings.Repeat("ä", longestLine-7) + "\n"}, "a line of 501 characters"},
		{"two lines", result{code: 1, stderr: fine + fine}, "not one line"},
		{"no line", result{code: 1}, "not one line"},
		{"another's words", result{code: 1, stderr: "no such file\n"}, "not one line"},
		{"a line that does not end", result{code: 1, stderr: "gopeft: x"}, "not one line"},
		{"words with success", result{stderr: fine}, "it succeeds and says"},
		{"an escape", result{code: 1, stderr: "gopeft: \x1b[31mx\n"}, "control characters"},
		{"no UTF-8", result{code: 1, stderr: "gopeft: \xff\n"}, "control characters"},
		{"a dump", result{code: 1, stderr: "gopeft: x\ngoroutine 1 [running]:\n"}, "dump"},
		{"a fault", result{code: 70, stderr: fine}, "70"},
		{"another code", result{code: 3, stderr: fine}, "exits with 3"},
		{"a signal", result{code: -1, signal: "killed"}, "ended by killed"},
		{"no end", result{late: true, code: -1, signal: "killed"}, "not ended after 1s"},
		{"much memory", result{memory: 2 << 10}, "took 2 MB"},
	} {
		got := verdicts(c.r, limits{time: time.Second, memory: 1 << 10})
		if (len(got) > 0) != (c.want != "") || len(got) > 1 || len(got) == 1 && !strings.Contains(got[0], c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// A case is what its seed says, and damage is always possible.
func TestMutationsComeFromTheSeed(t *testing.T) {
	contents := map[string]string{"config.json": `{"a": [1, "x", {"b": null}], "c": 2.5}`, "rows.csv": "text,label\na,b\n", "model.safetensors": "\x02\x00\x00\x00\x00\x00\x00\x00{}", "short.safetensors": "\x01",
		"empty.json": "", "x.bin": "abc", "t.jinja": "{{ x }}"}
	for name, content := range contents {
		changed := 0
		for seed := range uint64(400) {
			make := func() string {
				return string(mutate(rand.New(rand.NewPCG(seed, 1)), name, []byte(content), [][]byte{[]byte("other"), nil}))
			}
			one := make()
			if one != make() {
				t.Fatalf("%s: seed %d gives two files", name, seed)
			}
			if one != content {
				changed++
			}
		}
		if changed < 200 {
			t.Errorf("%s: %d of 400 are damaged", name, changed)
		}
	}
}

func TestLost(t *testing.T) {
	before := map[string]string{"a": "1", "b": "2", "c": "3"}
	if got := strings.Join(lost(before, map[string]string{"a": "1", "b": "x", "d": "4"}), " "); got != "b c" {
		t.Error(got)
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{{"run/best/*", "run/best/a", true}, {"run/best/*", "run/best/state/b", true}, {"run/best/*", "run/last/a", false}, {"a.json", "a.json", true}, {"half/*", "half/last/state/s", true}} {
		if got := matches(c.pattern, c.name); got != c.want {
			t.Errorf("%s, %s: %t", c.pattern, c.name, got)
		}
	}
}
