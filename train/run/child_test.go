package run_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/train"
	"gopeft/train/run"
)

// TestMain lets a test run a configuration in a process of its own: see inChild.
func TestMain(m *testing.M) {
	path := os.Getenv("GOPEFT_TEST_RUN")
	if path == "" {
		bindingstest.LoadCUDA()
		os.Exit(m.Run())
	}
	cfg, err := run.ReadConfig(path, run.Defaults())
	cfg.Methods = withToy()
	if err == nil {
		err = asChild(os.Getenv("GOPEFT_TEST_AS"), cfg)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// asChild trains as cfg says; says what that would take in memory ("estimate"); or trains on a disk that is full from
// step 3 on ("full-disk").
func asChild(what string, cfg run.Config) error {
	switch what {
	case "estimate":
		processes, _ := strconv.Atoi(os.Getenv("GOPEFT_TEST_PROCESSES"))
		m, err := estimate(cfg, processes)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(m)
	case "full-disk":
		_, err := run.Run(context.Background(), cfg, run.Refuse, &fullDisk{step: 3, bytes: 4096})
		if errors.Is(err, syscall.EFBIG) {
			return fmt.Errorf("full disk: %w", err)
		}
		return err
	case "rank":
		return asRank(cfg)
	default:
		_, err := run.Run(context.Background(), cfg, run.Overwrite, train.Quiet{})
		return err
	}
}

// inChild is a process that does what with cfg.
func inChild(t *testing.T, what string, cfg run.Config) *exec.Cmd {
	t.Helper()
	path := t.TempDir() + "/config.yaml"
	if err := run.WriteConfig(path, cfg); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "GOPEFT_TEST_RUN="+path, "GOPEFT_TEST_AS="+what)
	return cmd
}

// estimate is what EstimateMemory says of a run.
func estimate(cfg run.Config, processes int) (m run.Memory, err error) {
	err = bindings.Do(context.Background(), func(s *bindings.Scope) (err error) {
		precision, err := train.ChoosePrecision(cfg.Machine.AMP, bindings.CPU)
		if err != nil {
			return err
		}
		o := model.Options{Classify: cfg.Model.Task == "classify"}
		if _, err := cfg.HoldBase(cfg.Model.Path, precision, &o); err != nil {
			return err
		}
		base, err := model.Load(s, cfg.Model.Path, o)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, base.Close()) }()
		method, err := cfg.Methods.New(cfg.Model.Method, cfg.Peft)
		if err != nil {
			return err
		}
		defer method.Close()
		if err := method.Attach(s, base); err != nil {
			return err
		}
		m = run.EstimateMemory(cfg, precision, base, method, max(1, processes))
		return nil
	})
	return m, err
}

// fullDisk lets files grow no further than some bytes from a step on. The limit is the whole process's, its test log's
// too: only a child may have it.
type fullDisk struct {
	train.Quiet
	step  int
	bytes uint64
}

func (u *fullDisk) Progress(phase string, done, _ int, _ string) {
	if phase != "train" || done != u.step {
		return
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		panic(err)
	}
	limit.Cur = min(u.bytes, limit.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		panic(err)
	}
}
