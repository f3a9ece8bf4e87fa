package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"gopeft/model/modeltest"
)

func TestEveryCommandReadsItsFlagsFromAFile(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	for _, c := range commands() {
		for text, want := range map[string]string{"nonsense: 1\n": "nonsense", "- 1\n": "", "quiet: [\n": "yaml"} {
			file := writeText(t, "config.yaml", text)
			code, _, stderr := gopeft(t, "", c.Name, "--config", file)
			last := stderr[strings.LastIndex(strings.TrimSpace(stderr), "\n")+1:]
			if code != exitUsage || !strings.HasPrefix(last, "gopeft: "+file) || !strings.Contains(last, want) {
				t.Errorf("%s, %q: exit %d, %s", c.Name, text, code, last)
			}
		}
		if code, _, _ := gopeft(t, "", c.Name, "--config", filepath.Join(t.TempDir(), "none.yaml")); code != exitUsage {
			t.Errorf("%s: exit %d of a missing file", c.Name, code)
		}
	}
}

func TestFlagsWinOverTheFile(t *testing.T) {
	data, _ := tokenRows(t, 9)
	out := filepath.Join(t.TempDir(), "x.npy")
	file := writeText(t, "config.yaml", fmt.Sprintf("model: %s\ndata: %s\nlimit: 5\nthreads: 1\nnormalize: true\njson: true\nout: %s\n",
		modeltest.Testdata(t, "distilbert/tiny"), data, out))
	for want, args := range map[int][]string{5: nil, 3: {"--limit", "3"}} {
		stdout, _ := must(t, "", append([]string{"embed", "--config", file}, args...)...)
		var got embedded
		if err := json.Unmarshal([]byte(stdout), &got); err != nil || got != (embedded{out, want, 16, 0}) {
			t.Errorf("%v: %v, %s", args, err, stdout)
		}
	}
}

func TestListsInTheFile(t *testing.T) {
	file := writeText(t, "config.yaml", "split: [0.5, 0.5]\nstop: [a, 'b,c']\n")
	app := &cli.App{DisableSliceFlagSeparator: true, Commands: []*cli.Command{{
		Name: "x", Flags: []cli.Flag{configFlag(), &cli.StringFlag{Name: "split"}, &cli.StringSliceFlag{Name: "stop"}},
		Before: flagsFromFile,
		Action: func(c *cli.Context) error {
			if got := fmt.Sprintf("%q %q", c.String("split"), c.StringSlice("stop")); got != `"0.5,0.5" ["a" "b,c"]` {
				t.Errorf("got %s", got)
			}
			return nil
		},
	}}}
	if err := app.Run([]string{"gopeft", "x", "--config", file}); err != nil {
		t.Fatal(err)
	}
}

func TestCountsThatCannotBe(t *testing.T) {
	for _, c := range commands() {
		for _, f := range c.Flags {
			if f.Names()[0] != "threads" {
				continue
			}
			if code, _, stderr := gopeft(t, "", c.Name, "--threads", "-1"); code != exitUsage || !strings.Contains(stderr, "--threads") {
				t.Errorf("%s: exit %d, %s", c.Name, code, stderr)
			}
		}
	}
}

func TestSkippedRowsAreCounted(t *testing.T) {
	run, text := filepath.Join(t.TempDir(), "run"), ""
	_, text = tokenRows(t, 40)
	data := writeText(t, "rows.jsonl", text+"{broken\n")
	must(t, "", "train", "--model", modeltest.Testdata(t, "distilbert/tiny"), "--method", "bitfit", "--data", data, "--skip-bad-rows", "--epochs", "1", "--threads", "1",
		"--amp", "none", "--out", run)
	out := filepath.Join(t.TempDir(), "x.npy")
	for _, args := range [][]string{{"eval"}, {"predict"}, {"embed", "--out", out}} {
		if _, stderr := must(t, "", append(args, "--model", run, "--data", data, "--skip-bad-rows", "--threads", "1")...); !strings.Contains(stderr, "1 bad rows skipped") {
			t.Errorf("%v: %s", args, stderr)
		}
	}
	stdout, _ := must(t, "", "eval", "--model", run, "--data", data, "--skip-bad-rows", "--threads", "1", "--json")
	var e evaluated
	if err := json.Unmarshal([]byte(stdout), &e); err != nil || e.Skipped != 1 || e.Rows != 40 {
		t.Errorf("%v: %s", err, stdout)
	}
	parts := filepath.Join(t.TempDir(), "parts")
	stdout, _ = must(t, "", "prepare", "--data", writeText(t, "a.csv", "text,label\na,x\nb,y\nc\nc,x\nd,y\n"), "--split", "0.5,0.5", "--skip-bad-rows", "--out", parts, "--json")
	var p struct {
		Parts   []map[string]any `json:"parts"`
		Skipped int              `json:"skipped"`
	}
	if err := json.Unmarshal([]byte(stdout), &p); err != nil || len(p.Parts) != 2 || p.Skipped != 1 {
		t.Errorf("%v: %s", err, stdout)
	}
	if _, err := os.Stat(filepath.Join(parts, "train.csv")); err != nil {
		t.Error(err)
	}
	model := modeltest.Shared(t, "models/distilbert-minilm-l3-v8k-fp16")
	if _, stderr := must(t, "", "tokenize", "--model", model, "--data", writeText(t, "t.jsonl", "{\"text\": \"a\"}\n{broken\n"), "--skip-bad-rows"); !strings.Contains(stderr, "1 bad rows skipped") {
		t.Errorf("tokenize: %s", stderr)
	}
}

// A flag of data files may be given several times; a file's list of them is one setting.
func TestSeveralDataFiles(t *testing.T) {
	file := writeText(t, "run.yaml", "data: [a.csv:0.7, 'b,c.csv:0.3']\n")
	for want, args := range map[string][]string{
		"x.csv":                      {"--data", "x.csv"},
		"x,y.csv:2\nz.csv:1":         {"--data", "x,y.csv:2", "--data", "z.csv:1"},
		"a.csv:0.7\nb,c.csv:0.3":     {"--config", file},
		"flags.csv\nwin.csv\nall.gz": {"--config", file, "--data", "flags.csv", "--data=win.csv", "--data", "all.gz"},
		"":                           nil,
	} {
		app := &cli.App{DisableSliceFlagSeparator: true, Commands: []*cli.Command{{
			Name: "x", Flags: configFlags(),
			Action: func(c *cli.Context) error {
				if cfg, err := readConfig(c); err != nil || cfg.Data.Data != want {
					t.Errorf("%q: %q, %v", args, cfg.Data.Data, err)
				}
				return nil
			},
		}}}
		if err := app.Run(append([]string{"gopeft", "x"}, args...)); err != nil {
			t.Fatal(err)
		}
	}
}
