package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"gopeft/model/modeltest"
	"gopeft/train/run"
)

func TestFlagsWinOverAComparisonsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "compare.yaml")
	text := "model: m\ndata: d.csv\nepochs: 2\nlr: 0.5\nmethods: [logreg, lora]\nsettings:\n  lora: {epochs: 5, rank: 2}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "[logreg lora] epochs 5 rank 2 lr 0.5"},
		{[]string{"--epochs", "1"}, "[logreg lora] epochs 1 rank 2 lr 0.5"},
		{[]string{"--methods", "lora", "--rank", "4", "--lr", "1"}, "[lora] epochs 5 rank 4 lr 1"},
	} {
		command := compareCommand()
		got := ""
		command.Action = func(ctx *cli.Context) error {
			cmp, err := readComparison(ctx)
			if err != nil {
				return err
			}
			cfg, err := cmp.Config("lora")
			got = fmt.Sprintf("%v epochs %d rank %d lr %v", cmp.Methods, cfg.Loop.Epochs, cfg.Peft.Rank, cfg.Loop.LR)
			return err
		}
		app := &cli.App{Commands: []*cli.Command{command}}
		if err := app.Run(append([]string{"gopeft", "compare", "--config", file}, c.args...)); err != nil || got != c.want {
			t.Errorf("%v: %s, %v; want %s", c.args, got, err, c.want)
		}
	}
}

func TestCompareSaysWhatItLeavesOut(t *testing.T) {
	t.Setenv("XGBOOST", filepath.Join(t.TempDir(), "none"))
	code, _, stderr := gopeft(t, "", "compare", "--model", modeltest.Testdata(t, "distilbert/tiny"), "--data", filepath.Join(t.TempDir(), "none.csv"))
	if code != exitFailed || !strings.HasPrefix(stderr, "xgboost is left out: XGBOOST=") || !strings.Contains(stderr, "none.csv") {
		t.Errorf("exit %d, %q", code, stderr)
	}
	code, _, stderr = gopeft(t, "", "compare", "--model", modeltest.Testdata(t, "distilbert/tiny"), "--data", writeText(t, "rows.csv", "text,label\n"), "--methods", "lora,xgboost")
	if code != exitFailed || !strings.HasPrefix(stderr, "gopeft: --classifier xgboost: XGBOOST=") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("where it is asked for: exit %d, %q", code, stderr)
	}
}

func TestResumeTakesTheRunsOwnSettings(t *testing.T) {
	cfg := run.Defaults()
	cfg.Model.Path, cfg.Model.Method, cfg.Data.Data, cfg.Loop.LR, cfg.Output.Out = "m", "lora", "d.csv", 0.25, t.TempDir()
	if err := run.WriteConfig(filepath.Join(cfg.Output.Out, "config.yaml"), cfg); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := gopeft(t, "", "train", "--resume", "--out", cfg.Output.Out, "--lr", "1")
	if want := "gopeft: " + cfg.Output.Out + "/config.yaml: the run was started with other settings (--lr); resume it with its own, or start anew with --overwrite\n"; code != exitFailed || stderr != want {
		t.Errorf("exit %d, %q, want %q", code, stderr, want)
	}
}

// A device that is asked for when a run goes on is not one that the run has chosen.
func TestResumedSettingsTellWhatIsAskedFor(t *testing.T) {
	cfg := run.Defaults()
	cfg.Machine.Device, cfg.Automatic, cfg.Output.Out = "cuda:0", []string{"lr", "device"}, t.TempDir()
	if err := run.WriteConfig(filepath.Join(cfg.Output.Out, "config.yaml"), cfg); err != nil {
		t.Fatal(err)
	}
	for device, want := range map[string]string{"": "cuda:0 [lr device]", "cuda:1": "cuda:1 [lr]"} {
		got := ""
		command := trainCommand()
		command.Action = func(c *cli.Context) error {
			cfg, err := resumedConfig(c)
			got = fmt.Sprint(cfg.Machine.Device, " ", cfg.Automatic)
			return err
		}
		args := []string{"gopeft", "train", "--resume", "--out", cfg.Output.Out}
		if device != "" {
			args = append(args, "--device", device)
		}
		if err := (&cli.App{Commands: []*cli.Command{command}}).Run(args); err != nil || got != want {
			t.Errorf("%q: %s, %v; want %s", device, got, err, want)
		}
	}
}
