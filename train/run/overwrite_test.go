package run_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gopeft/train"
	"gopeft/train/run"
)

// Settings that are found wrong late cost the finished run nothing.
func TestOverwriteRestoresTheRunOfAFailedOne(t *testing.T) {
	first := tinyConfig(t, "lora")
	first.Loop.Epochs = 1
	mustRun(t, first, run.Refuse)
	want := comparable(t, first.Output.Out)
	bad := filepath.Join(t.TempDir(), "bad.jsonl")
	if err := os.WriteFile(bad, []byte("{broken\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, set := range map[string]func(*run.Config){
		"rank":           func(c *run.Config) { c.Peft.Rank = -3 },
		"targets":        func(c *run.Config) { c.Peft.Targets = []string{"nope"} },
		"device":         func(c *run.Config) { c.Machine.Device = "cuda:17" },
		"virtual tokens": func(c *run.Config) { c.Model.Method, c.Peft.VirtualTokens = "prompt", 600 },
		"learning rate":  func(c *run.Config) { c.Loop.LR = 1e30 },
		"model":          func(c *run.Config) { c.Model.Path = t.TempDir() },
		"data":           func(c *run.Config) { c.Data.Data = bad },
	} {
		cfg := first
		set(&cfg)
		if _, err := run.Run(context.Background(), cfg, run.Overwrite, train.Quiet{}); err == nil {
			t.Errorf("%s: no error", name)
		}
		sameRun(t, comparable(t, first.Output.Out), want)
		if left, _ := filepath.Glob(filepath.Join(first.Output.Out, ".*")); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
	mustRun(t, first, run.Resume)
	sameRun(t, comparable(t, first.Output.Out), want)
}

// Data that comes through a pipe can be read once.
func TestOverwriteReadsTheDataOnce(t *testing.T) {
	cfg := tinyConfig(t, "bitfit")
	cfg.Loop.Epochs = 1
	mustRun(t, cfg, run.Refuse)
	raw, err := os.ReadFile(cfg.Data.Data)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Data.Data = filepath.Join(t.TempDir(), "rows.jsonl")
	if err := syscall.Mkfifo(cfg.Data.Data, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		if to, err := os.OpenFile(cfg.Data.Data, os.O_WRONLY, 0); err == nil {
			_, _ = to.Write(raw)
			_ = to.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := run.Run(ctx, cfg, run.Overwrite, train.Quiet{}); err != nil {
		t.Fatal(err)
	}
}

// A folder with somebody's settings alone is not a run's that failed early.
func TestSettingsOfAPersonStay(t *testing.T) {
	cfg := tinyConfig(t, "bitfit")
	cfg.Loop.Epochs, cfg.Output.Out = 1, t.TempDir()
	path := filepath.Join(cfg.Output.Out, "config.yaml")
	for text, overwrite := range map[string]bool{"of another program": false, "model: m # the big one\nmethod: lora\n": true} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, mode := range []run.OutMode{run.Refuse, run.Overwrite} {
			if mode == run.Overwrite && overwrite {
				continue // it is asked for, and they are settings of gopeft's
			}
			if _, err := run.Run(context.Background(), cfg, mode, train.Quiet{}); err == nil || !strings.Contains(err.Error(), cfg.Output.Out) {
				t.Errorf("mode %d, %q: %v", mode, text, err)
			}
			if raw, err := os.ReadFile(path); err != nil || string(raw) != text {
				t.Errorf("mode %d: %q became %q, %v", mode, text, raw, err)
			}
		}
	}
	// What a run has written that failed before its first step is no hindrance.
	if err := run.WriteConfig(path, cfg); err != nil {
		t.Fatal(err)
	}
	mustRun(t, cfg, run.Refuse)
}

func TestARunHoldsItsFolder(t *testing.T) {
	cfg := tinyConfig(t, "bitfit")
	cfg.Loop.Epochs = 1
	lock := filepath.Join(cfg.Output.Out, ".lock")
	second := &atFirstNote{do: func() {
		for _, mode := range []run.OutMode{run.Refuse, run.Overwrite, run.Resume} {
			_, err := run.Run(context.Background(), cfg, mode, train.Quiet{})
			host, _ := os.Hostname()
			if want := fmt.Sprintf("process %d on %s", os.Getpid(), host); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("mode %d: %v, want %q", mode, err, want)
			}
		}
		if _, err := os.Stat(lock); err != nil {
			t.Error(err)
		}
	}}
	if _, err := run.Run(context.Background(), cfg, run.Refuse, second); err != nil {
		t.Fatal(err)
	}
	if second.do != nil {
		t.Error("the run has said nothing")
	}
	if _, err := os.Stat(lock); !os.IsNotExist(err) {
		t.Errorf("the lock stays: %v", err)
	}
	// What a killed run leaves is no lock, and no run.
	other := cfg
	other.Output.Out = t.TempDir()
	if err := os.WriteFile(filepath.Join(other.Output.Out, ".lock"), []byte("process 1 on nowhere\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, other, run.Refuse)
	if left, _ := filepath.Glob(filepath.Join(other.Output.Out, ".*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// A lock does not outlive its process.
func TestAKillEndsTheLock(t *testing.T) {
	if _, err := exec.LookPath("flock"); err != nil {
		t.Skip("needs util-linux's flock")
	}
	cfg := tinyConfig(t, "bitfit")
	cfg.Loop.Epochs, cfg.Output.Out = 1, t.TempDir()
	holder := exec.Command("flock", filepath.Join(cfg.Output.Out, ".lock"), "sh", "-c", "echo; exec sleep 60")
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if _, err := run.Run(context.Background(), cfg, run.Refuse, train.Quiet{}); err == nil || !strings.Contains(err.Error(), "another process") || time.Since(begun) > time.Second {
		t.Errorf("after %v: %v", time.Since(begun), err)
	}
	if err := exec.Command("sh", "-c", fmt.Sprintf("kill -9 $(ps -o pid= --ppid %d) %d", holder.Process.Pid, holder.Process.Pid)).Run(); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait()
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) { // the other of the two may take a moment to go
		_, err := run.Run(context.Background(), cfg, run.Refuse, train.Quiet{})
		if err == nil {
			break
		}
		if time.Since(begun) > 10*time.Second {
			t.Fatal(err)
		}
	}
}

// atFirstNote does something once, when a run says its first word.
type atFirstNote struct {
	train.Quiet
	do func()
}

func (n *atFirstNote) Note(string, ...any) {
	if do := n.do; do != nil {
		n.do = nil
		do()
	}
}
