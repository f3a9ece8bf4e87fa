package main

import (
	"fmt"
	"io"
	"reflect"
	"slices"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"gopeft/train"
	"gopeft/train/bench"
	"gopeft/train/dist"
	"gopeft/train/report"
)

func benchCommand() *cli.Command {
	return &cli.Command{
		Name: "bench", Usage: "measure the speed and memory of a method on a shape or a model",
		Flags: slices.Concat(benchFlags(), processFlags(), uiFlags()),
		Action: func(c *cli.Context) error {
			cfg := bench.Defaults()
			if err := setFromFlags(c, reflect.ValueOf(&cfg).Elem()); err != nil {
				return err
			}
			if launched, err := inProcesses(c, cfg.Device, cfg.Threads); launched || err != nil {
				return err
			}
			return shared(c, func(group *dist.Group) error {
				cfg.Group = group
				r, err := bench.Run(c.Context, cfg)
				if err != nil {
					return err
				}
				if c.Bool("json") {
					return printJSON(firstPrints(c, group), r)
				}
				return printBench(firstPrints(c, group), r)
			})
		},
	}
}

// benchFlags are a flag for every setting of a bench, in groups.
func benchFlags() []cli.Flag {
	defaults := bench.Defaults()
	flags := settingFlags(reflect.ValueOf(&defaults).Elem())
	for group, names := range map[string][]string{
		groupModel: {"arch", "model", "layers", "hidden", "heads", "kv-heads", "ffn", "vocab", "labels", "dropout", "dtype", "base-dtype", "quantize", "method"},
		groupMeasure: {"mode", "steps", "warmup", "batch", "seq", "lengths", "pad", "new-tokens", "features", "holdout", "classifier", "texts",
			"profile"},
		groupTraining: {"optimizer", "checkpoint-activations"},
		groupMachine:  {"device", "amp", "tf32", "threads", "seed", "without"},
	} {
		for _, f := range flags {
			if slices.Contains(names, f.Names()[0]) {
				inGroup(group, f)
			}
		}
	}
	for _, f := range flags { // the rest is the methods'
		if f.(cli.CategorizableFlag).GetCategory() == "" {
			inGroup(groupMethods, f)
		}
	}
	return flags
}

// printBench writes a measurement for people.
func printBench(out io.Writer, r bench.Result) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	if r.Arch == "" {
		line("bench", "%s %s, %d threads", r.Mode, r.Method, r.Threads)
	} else {
		line("bench", "%s %s, %s, %d × %d, amp %s, weights %s, %d threads, %s", r.Mode, r.Method, r.Arch, r.Batch, r.Seq, r.AMP, r.DType, r.Threads, r.Device)
		line("parameters", "trainable %s / total %s", report.Commas(r.Trainable), report.Commas(r.Total))
	}
	line("step", "median %.4g s, %.4g to %.4g s in %d steps behind %d of warm-up", r.StepS.Median, r.StepS.Min, r.StepS.Max, r.Steps-r.Warmup, r.Warmup)
	line("rate", "%.4g samples/s, %.5g tokens/s", r.SamplesPerS, r.TokensPerS)
	if r.NewTokens > 0 {
		line("decoding", "%.4g tokens/s (median %.4g); prompts at %.5g tokens/s", r.DecodeTokensPerS, r.DecodeMedian, r.PrefillTokensPS)
	}
	line("start", "ready after %.2f s, first step done after %.2f s", r.StartupS, r.FirstStepS)
	line("memory", "peak %.0f MiB, Go heap %.1f MiB", r.PeakRSSMB, r.GoHeapMB)
	if r.PeakCUDAMB > 0 {
		line("GPU memory", "peak %.0f MiB", r.PeakCUDAMB)
	}
	line("Go", "%.0f allocations per step", r.GoAllocsPerStep)
	if r.LastLoss > 0 {
		line("loss", "%.5f", r.LastLoss)
	}
	if r.Accuracy > 0 {
		line("accuracy", "%.4f", r.Accuracy)
	}
	if r.Padding > 0 {
		line("padding", "%.1f %% of the positions", 100*r.Padding)
	}
	for rank, p := range r.Processes {
		line(fmt.Sprintf("process %d", rank), "waits %.1f %% of the time for the others, peak %.0f MiB", 100*p.Waiting, p.PeakRSSMB)
	}
	for p := range train.Phases {
		if s, ok := r.PhaseS[p.String()]; ok {
			line(p.String(), "%.4g s per step", s)
		}
	}
	return w.Flush()
}
