package main

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/peft"
	"gopeft/train"
)

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name: "inspect", Usage: "show a model's, an adapter's or a method's parameters and what training would take",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "model", Usage: "model folder, or the folder of a run"},
			adapterFlag(),
			&cli.StringFlag{Name: "method", Usage: "show what this method would train: " + strings.Join(peft.Methods(), ", ")},
			&cli.StringFlag{Name: "task", Value: "classify", Usage: "classify, or causal for a language model"},
			&cli.IntFlag{Name: "batch-size", Value: 12, Usage: "of the memory estimate"},
			&cli.IntFlag{Name: "max-length", Value: 128, Usage: "of the memory estimate"},
			&cli.BoolFlag{Name: "load", Usage: "read every tensor, and fail if a value is not finite"},
			&cli.BoolFlag{Name: "layers", Usage: "list every parameter"},
		}, peftFlags(), uiFlags()),
		Action: inspect,
	}
}

// peftFlags are the settings of the methods.
func peftFlags() []cli.Flag {
	var flags []cli.Flag
	var o peft.Options
	train.Fields(reflect.ValueOf(&o).Elem(), func(key, usage string, v reflect.Value) { flags = append(flags, flagOf(key, usage, v)) })
	return flags
}

// inspected is what inspect prints.
type inspected struct {
	Model     string           `json:"model"`
	Adapter   string           `json:"adapter,omitempty"`
	Method    string           `json:"method,omitempty"`
	Info      model.Info       `json:"shape"`
	Labels    []string         `json:"labels,omitempty"`
	Trainable int64            `json:"trainable"`
	Frozen    int64            `json:"frozen"`
	Total     int64            `json:"total"`
	DTypes    map[string]int64 `json:"dtypes"`
	Fresh     []string         `json:"new,omitempty"`
	Memory    train.Memory     `json:"training_memory"`
	Layers    []inspectedParam `json:"parameters,omitempty"`
}

type inspectedParam struct {
	Name      string  `json:"name"`
	Shape     []int64 `json:"shape"`
	DType     string  `json:"dtype"`
	Trainable bool    `json:"trainable"`
}

func inspect(c *cli.Context) error {
	src, err := resolve(c)
	if err != nil {
		return err
	}
	r := inspected{Model: src.Model, Adapter: src.Adapter, Method: c.String("method"), DTypes: map[string]int64{}}
	err = bindings.Do(c.Context, func(s *bindings.Scope) (err error) {
		o := model.Options{Classify: c.String("task") == "classify"}
		if src.Adapter != "" {
			info, err := peft.Probe(src.Adapter)
			if err != nil {
				return err
			}
			o.Labels = info.Labels
			r.Method = info.Method
		}
		m, err := model.Load(s, src.Model, o)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, m.Close()) }()
		method, err := inspectMethod(c, s, src, m)
		if err != nil {
			return err
		}
		r.Info, r.Labels, r.Fresh = m.Info(), m.Labels(), m.Fresh()
		params := slices.Clone(m.Params().All())
		if method != nil {
			params = append(params, method.Params().All()...)
		}
		var ts []bindings.Tensor
		for _, p := range params {
			n := p.T.Numel()
			r.Total += n
			if p.Trainable {
				r.Trainable += n
			}
			r.DTypes[p.T.DType().String()] += n
			r.Layers = append(r.Layers, inspectedParam{p.Name, p.T.Shape(), p.T.DType().String(), p.Trainable})
			ts = append(ts, p.T)
		}
		r.Frozen = r.Total - r.Trainable
		r.Memory = train.EstimateMemory(m, params, c.Int("batch-size"), c.Int("max-length"))
		if c.Bool("load") {
			if i := s.FirstNonFinite(ts); i >= 0 {
				return fmt.Errorf("%s: tensor %s holds values that are not finite", src.Model, params[i].Name)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, r)
	}
	printInspected(c, r)
	return nil
}

// inspectMethod attaches the adapter, or the method asked for, to the model.
func inspectMethod(c *cli.Context, s *bindings.Scope, src train.Source, m model.Model) (peft.Method, error) {
	if src.Adapter != "" {
		return peft.Load(s, src.Adapter, m)
	}
	name := c.String("method")
	if name == "" {
		return nil, nil
	}
	cfg, err := flagsOver(c, train.Defaults())
	if err != nil {
		return nil, err
	}
	method, err := peft.New(name, cfg.Peft)
	if err != nil {
		return nil, &train.UsageError{Err: err}
	}
	return method, method.Attach(s, m)
}

func printInspected(c *cli.Context, r inspected) {
	w := c.App.Writer
	fmt.Fprintf(w, "model      %s\n", r.Model)
	if r.Adapter != "" {
		fmt.Fprintf(w, "adapter    %s\n", r.Adapter)
	}
	if r.Method != "" {
		fmt.Fprintf(w, "method     %s\n", r.Method)
	}
	i := r.Info
	fmt.Fprintf(w, "shape      %s: %d layers, hidden %d, %d heads (%d for keys and values), feed-forward %d, vocabulary %d, %d positions\n",
		i.Family, i.Layers, i.Hidden, i.Heads, i.KVHeads, i.FFN, i.Vocab, i.MaxPositions)
	if len(r.Labels) > 0 {
		fmt.Fprintf(w, "labels     %s\n", strings.Join(r.Labels, ", "))
	}
	if len(r.Fresh) > 0 {
		fmt.Fprintf(w, "new        %s (not in the checkpoint)\n", strings.Join(r.Fresh, ", "))
	}
	fmt.Fprintf(w, "parameters trainable %s / frozen %s / total %s\n", train.Commas(r.Trainable), train.Commas(r.Frozen), train.Commas(r.Total))
	names := make([]string, 0, len(r.DTypes))
	for d, n := range r.DTypes {
		names = append(names, fmt.Sprintf("%s %s", d, train.Commas(n)))
	}
	slices.Sort(names)
	fmt.Fprintf(w, "dtypes     %s\n", strings.Join(names, ", "))
	m := r.Memory
	fmt.Fprintf(w, "training   about %.0f MiB at %d × %d in fp32: weights %.0f, gradients %.0f, optimizer %.0f, activations %.0f\n",
		m.Total(), c.Int("batch-size"), c.Int("max-length"), m.Weights, m.Gradients, m.Optimizer, m.Activations)
	if c.Bool("layers") {
		for _, p := range r.Layers {
			mark := " "
			if p.Trainable {
				mark = "*"
			}
			fmt.Fprintf(w, "%s %-80s %-6s %v\n", mark, p.Name, p.DType, p.Shape)
		}
	}
}
