package report

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func trainRow(step int, loss float64) Row {
	r := NewRow(step, float64(step)/100)
	r.LR, r.TrainLoss, r.TrainAcc, r.SamplesPerS = 2e-5, loss, 0.5, 31.25
	return r
}

const (
	oldHeader = "step,epoch,lr,train_loss,train_acc,val_loss,val_acc,samples_per_s"
	header    = oldHeader + ",epoch_train_loss,epoch_train_acc"
)

func TestMetricsRowsAreInTheFileAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.csv")
	m, err := OpenMetrics(path, FromStart, "grad_norm", "scale")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Write(trainRow(10, 0.6931471805599453)); err != nil {
		t.Fatal(err)
	}
	val := NewRow(100, 1)
	val.ValLoss, val.ValAcc, val.EpochTrainLoss, val.EpochTrainAcc = 0.25, 0.875, 0.5, 0.75
	val.Extra = map[string]float64{"scale": 65536}
	if err := m.Write(val); err != nil {
		t.Fatal(err)
	}
	want := header + ",grad_norm,scale\n" +
		"10,0.1,2e-05,0.6931472,0.5,,,31.25,,,,\n" +
		"100,1,,,,0.25,0.875,,0.5,0.75,,65536\n"
	if diff := cmp.Diff(want, read(t, path)); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
	unknown := NewRow(1, 0)
	unknown.Extra = map[string]float64{"typo": 1}
	if err := m.Write(unknown); err == nil || !strings.Contains(err.Error(), `no column "typo"`) {
		t.Errorf("error %v", err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}

	rows, extra, err := ReadMetrics(path)
	if err != nil {
		t.Fatal(err)
	}
	first := trainRow(10, 0.6931472)
	if diff := cmp.Diff([]Row{first, val}, rows, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"grad_norm", "scale"}, extra); diff != "" {
		t.Errorf("extra (-want +got):\n%s", diff)
	}
}

func TestAResumedMetricsFileEqualsAnUninterruptedOne(t *testing.T) {
	write := func(t *testing.T, path string, resumeAt, from, to int) {
		t.Helper()
		m, err := OpenMetrics(path, resumeAt, "x")
		if err != nil {
			t.Fatal(err)
		}
		for step := from; step <= to; step += 10 {
			if err := m.Write(trainRow(step, 1/float64(step))); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	whole := filepath.Join(t.TempDir(), "metrics.csv")
	write(t, whole, FromStart, 10, 90)

	tests := []struct {
		name string
		tail string // what the killed run left after its last whole row
	}{
		{"whole rows", ""},
		{"a row cut short", "60,0.6,2e-0"},
		{"a number cut short", "6"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "metrics.csv")
			write(t, path, FromStart, 10, 50) // killed after 50, its checkpoint is of 30
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString(test.tail); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			write(t, path, 30, 40, 90)
			if diff := cmp.Diff(read(t, whole), read(t, path)); diff != "" {
				t.Errorf("file (-uninterrupted +resumed):\n%s", diff)
			}
		})
	}
	t.Run("no file yet", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "metrics.csv")
		write(t, path, 0, 10, 90)
		if read(t, whole) != read(t, path) {
			t.Error("another file")
		}
	})
	t.Run("from the start again", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "metrics.csv")
		write(t, path, FromStart, 10, 50)
		write(t, path, FromStart, 10, 90)
		if read(t, whole) != read(t, path) {
			t.Error("another file")
		}
	})
}

func TestAMalformedMetricsFileIsAnErrorThatNamesTheLine(t *testing.T) {
	tests := []struct{ name, content, want string }{
		{"empty", "", "header"},
		{"another table", "a,b\n1,2\n", "not a metrics file"},
		{"another column", strings.Replace(oldHeader, "lr", "rate", 1) + "\n", `column 3 is "rate", want "lr"`},
		{"step no number", oldHeader + "\nx,,,,,,,\n", `line 2: column step: "x"`},
		{"negative step", oldHeader + "\n-1,,,,,,,\n", `line 2: column step: "-1"`},
		{"value no number", oldHeader + "\n1,,,,,,,\n2,1,,no,,,,\n", `line 3: column train_loss: "no"`},
		{"extra no number", oldHeader + ",x\n1,,,,,,,,?\n", `line 2: column x: "?"`},
		{"half of the epoch's columns", header[:len(header)-len("acc")] + "x\n", `column 10 is "epoch_train_x", want "epoch_train_acc"`},
		{"an epoch's mean no number", header + "\n1,,,,,,,,?,\n", `line 2: column epoch_train_loss: "?"`},
		{"too few fields", oldHeader + "\n1,2\n", "wrong number of fields"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "metrics.csv")
			if err := os.WriteFile(path, []byte(test.content), 0o666); err != nil {
				t.Fatal(err)
			}
			_, _, err := ReadMetrics(path)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v, want one with the path and %q", err, test.want)
			}
		})
	}
}

// A file of an earlier release has an epoch's mean among the means between two logged rows.
func TestAFileOfAnEarlierReleaseIsReadAndGoneOnWith(t *testing.T) {
	for _, test := range []struct{ name, old, want string }{
		{"with validation", oldHeader + "\n2,0.5,0.1,4,0.5,,,9\n4,1,0.1,3,0.6,,,9\n4,1,0.1,3.5,0.55,2,0.7,9\n6,1.5,0.1,1,1,,,9\n",
			header + "\n2,0.5,0.1,4,0.5,,,9,,\n4,1,0.1,3,0.6,,,9,,\n4,1,0.1,,,2,0.7,9,3.5,0.55\n"},
		{"without", oldHeader + "\n2,0.5,0.1,4,0.5,,,9\n", header + "\n2,0.5,0.1,4,0.5,,,9,,\n"},
		{"with a column of its own", oldHeader + ",x\n2,0.5,0.1,4,0.5,1,1,9,8\n", header + ",x\n2,0.5,0.1,,,1,1,9,4,0.5,8\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "metrics.csv")
			if err := os.WriteFile(path, []byte(test.old), 0o666); err != nil {
				t.Fatal(err)
			}
			before, extra, err := ReadMetrics(path)
			if err != nil {
				t.Fatal(err)
			}
			m, err := OpenMetrics(path, 4, extra...)
			if err != nil {
				t.Fatal(err)
			}
			next := NewRow(8, 2)
			next.EpochTrainLoss = 0.25
			if err := errors.Join(m.Write(next), m.Close()); err != nil {
				t.Fatal(err)
			}
			want := test.want + "8,2,,,,,,,0.25," + strings.Repeat(",", len(extra)) + "\n"
			if diff := cmp.Diff(want, read(t, path)); diff != "" {
				t.Errorf("file (-want +got):\n%s", diff)
			}
			after, _, err := ReadMetrics(path)
			if err != nil {
				t.Fatal(err)
			}
			kept := strings.Count(test.want, "\n") - 1
			if diff := cmp.Diff(before[:kept], after[:len(after)-1], cmpopts.EquateNaNs()); diff != "" {
				t.Errorf("rows (-before +after):\n%s", diff)
			}
		})
	}
}

func TestOpenMetricsRefusesOtherColumns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.csv")
	m, err := OpenMetrics(path, FromStart, "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenMetrics(path, 10, "b"); err == nil || !strings.Contains(err.Error(), `extra columns ["a"]`) {
		t.Errorf("error %v", err)
	}
	if _, err := OpenMetrics(path, FromStart, "a,b"); err == nil || !strings.Contains(err.Error(), `column name "a,b"`) {
		t.Errorf("error %v", err)
	}
	if got := read(t, path); got != header+",a\n" {
		t.Errorf("file %q was touched", got)
	}
}

func TestInfiniteLossSurvivesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.csv")
	m, err := OpenMetrics(path, FromStart)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Write(trainRow(1, math.Inf(1))); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	rows, _, err := ReadMetrics(path)
	if err != nil || !math.IsInf(rows[0].TrainLoss, 1) {
		t.Errorf("rows %v, error %v", rows, err)
	}
}
