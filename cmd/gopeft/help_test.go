package main

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

// headings are the groups of a help text, in order.
func headings(help string) []string {
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^   (\S.*):$`).FindAllStringSubmatch(help, -1) {
		names = append(names, m[1])
	}
	return names
}

func TestHelpGroupsEveryFlagOnce(t *testing.T) {
	for _, c := range commands() {
		help, _ := must(t, "", c.Name, "--help")
		for _, bad := range []string{"(default: -", `""`, "{{", "%!", "(default: 0)", "(default: false)", "(default: )"} {
			if strings.Contains(help, bad) {
				t.Errorf("%s says %s", c.Name, bad)
			}
		}
		for _, line := range strings.Split(help, "\n") {
			if utf8.RuneCountInString(line) > helpWidth && !strings.Contains(line, " - ") || strings.TrimRight(line, " ") != line {
				t.Errorf("%s: line %q", c.Name, line)
			}
		}
		for _, f := range append(c.VisibleFlags(), &cli.BoolFlag{Name: "quiet"}, &cli.BoolFlag{Name: "help"}, &cli.StringFlag{Name: "config"}) {
			flag := regexp.MustCompile(`(?m)^     --` + f.Names()[0] + `( value)?  `)
			if n := len(flag.FindAllString(help, -1)); n != 1 {
				t.Errorf("%s shows --%s %d times", c.Name, f.Names()[0], n)
			}
		}
		groups := headings(help)
		if groups[len(groups)-1] != "General" {
			t.Errorf("%s has the groups %q", c.Name, groups)
		}
		want := 5
		if c.Name == "launch" { // which has no result
			want = 3
		}
		if general := help[strings.Index(help, "   General:"):]; strings.Count(general, "     --") != want {
			t.Errorf("%s has flags without a group:\n%s", c.Name, general)
		}
	}
}

func TestHelpOfTrain(t *testing.T) {
	help, _ := must(t, "", "train", "--help")
	if got := headings(help)[:6]; !slices.Equal(got, []string{"Model", "Data", "Prompts", "Machine", "Training", "Output"}) {
		t.Errorf("groups %q", got)
	}
	for _, want := range []string{"passes over the training data (default: 3)", "auto, cpu, cuda or cuda:N (default: auto)", "(default: 0.8,0.1,0.1)",
		"seed of everything random (default: 42)", "dropout rate of the base model (default: the checkpoint's)\n", "learn the answer only (default: true)",
		"largest gradient norm (0: not clipped)\n"} {
		if !strings.Contains(strings.Join(strings.Fields(help), " "), strings.TrimSpace(want)) || strings.HasSuffix(want, "\n") && !strings.Contains(help, want) {
			t.Errorf("it does not say %q:\n%s", want, help)
		}
	}
	if strings.Contains(help, "error-file") {
		t.Error("it shows a hidden flag")
	}
}

// Groups nested in the methods' settings are shown under their own headings, which need not be repeated in each line.
func TestHelpGroupsMethodByMethod(t *testing.T) {
	type rank struct {
		Rank int `yaml:"rank" usage:"of lora: rank (8)"`
	}
	type methods struct {
		Unfreeze []string `yaml:"unfreeze" usage:"train these parts too"`
		rank     `yaml:",inline" group:"lora"`
		Targets  []string `yaml:"targets" usage:"of lora and ia3: linear maps"`
	}
	var settings struct {
		Out   string  `yaml:"out" usage:"folder"`
		Peft  methods `yaml:",inline" group:"methods"`
		Epoch struct {
			N int `yaml:"epochs" usage:"passes"`
		} `yaml:",inline" group:"training"`
	}
	settings.Epoch.N = 3
	command := &cli.Command{Name: "x", Usage: "try", Flags: settingFlags(reflect.ValueOf(&settings).Elem())}
	want := `NAME:
   gopeft x - try

USAGE:
   gopeft x [options]

OPTIONS:
   Training:
     --epochs value    passes (default: 3)

   Methods:
     --unfreeze value  train these parts too (comma-separated)
     --targets value   of lora and ia3: linear maps (comma-separated)

   lora:
     --rank value      rank (8)

   General:
     --out value       folder
     --help            show this
`
	if got := helpText(command); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestMakingTheHelpIsFast(t *testing.T) {
	begun := time.Now()
	for range 10 {
		for _, c := range commands() {
			helpText(c)
		}
	}
	if took := time.Since(begun); took > 10*100*time.Millisecond {
		t.Errorf("the help of all commands takes %v", took/10)
	}
}
