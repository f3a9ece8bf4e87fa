package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf"
	"gopeft/peft"
	"gopeft/train"
	"gopeft/train/infer"
	"gopeft/train/report"
	"gopeft/train/run"
)

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name: "inspect", Usage: "show a model's, an adapter's or a method's parameters and what training would take",
		Flags: slices.Concat(inGroup(groupModel,
			&cli.StringFlag{Name: "model", Usage: "model folder, or the folder of a run"}),
			adapterFlag(), inGroup(groupModel,
				&cli.StringFlag{Name: "method", Usage: "show what this method would train: " + strings.Join(peft.Methods(), ", ")},
				&cli.StringFlag{Name: "task", Usage: "classify, multi-label, regression, or causal for a language model", DefaultText: "the adapter's or the run's, else what the model was made for"},
				&cli.BoolFlag{Name: "load", Usage: "read every tensor, and fail if a value is not finite"}),
			inGroup(groupTraining, chosenFlags("batch-size", "optimizer", "momentum", "weight-decay", "amp", "base-dtype", "quantize", "stream-weights", "shard-frozen", "shard-optimizer", "checkpoint-activations", "max-steps", "no-train-eval")...),
			inGroup(groupMachine, &cli.IntFlag{Name: "nproc", Value: 1, Usage: "what each of so many processes takes that train together"}),
			inGroup(groupTraining, &cli.IntFlag{Name: "max-length", Usage: "tokens of a row", DefaultText: "the run's, else 128 or what the model can read"}),
			inGroup(groupOutput, &cli.BoolFlag{Name: "layers", Usage: "list every parameter"}),
			peftFlags(), uiFlags()),
		Action: inspect,
	}
}

// peftFlags are the settings of the methods.
func peftFlags() []cli.Flag {
	var settings struct {
		Peft peft.Options `yaml:",inline" group:"methods"` // as run.Config has them
	}
	return settingFlags(reflect.ValueOf(&settings).Elem())
}

// inspected is what inspect prints.
type inspected struct {
	Model     string           `json:"model"`
	Adapter   string           `json:"adapter,omitempty"`
	Method    string           `json:"method,omitempty"`
	Task      string           `json:"task"`
	Info      model.Info       `json:"shape"`
	Labels    []string         `json:"labels,omitempty"`
	Trainable int64            `json:"trainable"`
	Frozen    int64            `json:"frozen"`
	Total     int64            `json:"total"`
	DTypes    map[string]int64 `json:"dtypes"` // as the files store them
	Fresh     []string         `json:"new,omitempty"`
	Groups    []inspectedGroup `json:"groups"`
	Memory    *run.Memory      `json:"training_memory,omitempty"`
	Notes     []string         `json:"notes,omitempty"`
	Params    []inspectedParam `json:"parameters,omitempty"`
}

// inspectedGroup counts the parameters of a block, of the embeddings or of the head.
type inspectedGroup struct {
	Name      string `json:"name"`
	Trainable int64  `json:"trainable"`
	Total     int64  `json:"total"`
}

type inspectedParam struct {
	Name      string  `json:"name"`
	Shape     []int64 `json:"shape"`
	DType     string  `json:"dtype"`
	Trainable bool    `json:"trainable"`
	group     string
}

func (p inspectedParam) elements() int64 {
	n := int64(1)
	for _, d := range p.Shape {
		n *= d
	}
	return n
}

func inspect(c *cli.Context) error {
	src, err := resolve(c)
	if err != nil {
		return err
	}
	x, err := newInspection(c, src)
	if err != nil {
		return err
	}
	if err := bindings.Do(c.Context, x.run); err != nil {
		return err
	}
	r := x.result
	r.count(x.params)
	for _, note := range r.Notes {
		newUI(c).Note("%s", note)
	}
	if c.Bool("layers") {
		r.Params = x.params
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, r)
	}
	return x.print(r)
}

// inspection is an inspect in progress.
type inspection struct {
	c      *cli.Context
	src    infer.Source
	cfg    run.Config // of the run whose memory is estimated
	load   model.Options
	params []inspectedParam
	result inspected

	precision train.Precision // of the products of that run
}

// newInspection finds out from the flags, the adapter and the run which task and method are meant.
func newInspection(c *cli.Context, src infer.Source) (*inspection, error) {
	if n := c.Int("nproc"); n < 1 {
		return nil, train.Usage("--nproc is %d, want at least 1", n)
	}
	cfg := run.Defaults()
	if src.Run != nil {
		var err error
		if cfg, err = run.ReadWritten(filepath.Join(src.Run.Folder, "config.yaml"), cfg); err != nil {
			return nil, err
		}
	}
	x := &inspection{c: c, src: src}
	var err error
	if x.cfg, err = flagsOver(c, cfg); err != nil {
		return nil, err
	}
	facts, err := model.ReadFacts(src.Model)
	if err != nil {
		return nil, err
	}
	classify, problem := !facts.Writes, facts.Problem
	switch {
	case src.Adapter != "":
		if flag := methodFlagGiven(c); flag != "" {
			return nil, &train.UsageError{Err: fmt.Errorf("--%s: the method and its settings are those of the adapter %s", flag, src.Adapter)}
		}
		info, err := peft.Probe(src.Adapter)
		if err != nil {
			return nil, err
		}
		x.cfg.Model.Method, classify, problem = info.Method, info.NumLabels > 0, info.Problem
		x.load.As, x.load.Labels = info.Family, info.HeadLabels(facts.Labels)
	case src.Run != nil && !c.IsSet("method"):
		classify = src.Run.Task != train.TaskCausal && src.Classifier == ""
	case src.Run != nil:
		classify = src.Run.Task != train.TaskCausal
	}
	if task := c.String("task"); task != "" {
		if err := train.CheckTask(task); err != nil {
			return nil, err
		}
		classify, problem = task != train.TaskCausal, train.ProblemOf(task)
	}
	x.load.Classify, x.cfg.Model.Task = classify, train.TaskCausal
	switch {
	case classify && problem != "":
		x.cfg.Model.Task = train.TaskOf(problem.Or(0))
	case classify, src.Classifier != "" && !c.IsSet("task"): // a classic classifier's model is loaded without a head
		x.cfg.Model.Task = train.TaskClassify
	}
	if x.cfg.Data.MaxLength == 0 {
		x.cfg.Data.MaxLength = min(128, facts.Room)
	}
	if x.cfg.Loop.BatchSize < 1 || x.cfg.Data.MaxLength < 1 {
		return nil, &train.UsageError{Err: errors.New("--batch-size and --max-length must be at least 1")}
	}
	x.result = inspected{Model: src.Model, Adapter: src.Adapter, Method: x.cfg.Model.Method, Task: x.cfg.Model.Task, DTypes: map[string]int64{}}
	return x, nil
}

// methodFlagGiven returns the name of a given flag that chooses a method or is a setting of one; "" if there is none.
func methodFlagGiven(c *cli.Context) string {
	if c.IsSet("method") {
		return "method"
	}
	for _, f := range peftFlags() {
		if name := f.Names()[0]; c.IsSet(name) {
			return name
		}
	}
	return ""
}

func (x *inspection) run(s *bindings.Scope) error {
	d, err := model.Describe(s, x.src.Model, x.load)
	if err != nil {
		return err
	}
	r := &x.result
	r.Info, r.Labels = d.Info, d.Labels
	group := groupsOf(d)
	for _, p := range d.Params {
		if p.DType == "" {
			p.DType = "F32"
			r.Fresh = append(r.Fresh, p.Name)
		}
		x.params = append(x.params, inspectedParam{Name: p.Name, Shape: p.Shape, DType: p.DType, group: group(p.Name)})
	}
	trains := x.cfg.Model.Method != "" && x.cfg.Model.Method != train.Features
	if !trains && !x.c.Bool("load") {
		return nil // names and shapes are known without loading
	}
	if trains {
		if err := x.chooseBase(); err != nil {
			return err
		}
	}
	m, err := model.Load(s, x.src.Model, x.load)
	if err != nil {
		return err
	}
	return errors.Join(x.loaded(s, m, trains, group), m.Close())
}

// chooseBase finds out what precision products would have, and in which dtype the base would be held.
func (x *inspection) chooseBase() (err error) {
	dev := bindings.CPU
	if x.cfg.Machine.AMP == "fp16" { // only a GPU computes in fp16
		dev = bindings.CUDA(0)
	}
	if x.precision, err = train.ChoosePrecision(x.cfg.Machine.AMP, dev); err != nil {
		return &train.UsageError{Err: err}
	}
	base, err := x.cfg.HoldBase(x.src.Model, x.precision, &x.load)
	if err != nil {
		return err
	}
	return train.Machine{Stream: x.cfg.Machine.Stream, Shard: x.cfg.Machine.Shard}.CheckHold(base)
}

// loaded looks at the model and at the method on it.
func (x *inspection) loaded(s *bindings.Scope, m model.Model, trains bool, group func(string) string) error {
	all := m.Params().All()
	if trains {
		method, err := x.attach(s, m)
		if err != nil {
			return err
		}
		defer method.Close()
		if err := x.trained(m, method, group); err != nil {
			return err
		}
		all = slices.Concat(all, method.Params().All())
	}
	if !x.c.Bool("load") {
		return nil
	}
	if p := model.FirstNonFinite(s, all); p != nil {
		return fmt.Errorf("%s: tensor %s holds values that are not finite", x.src.Model, p.Name)
	}
	return nil
}

// attach puts the adapter, or the method asked for, on the model.
func (x *inspection) attach(s *bindings.Scope, m model.Model) (peft.Method, error) {
	if x.src.Adapter != "" {
		return peft.Load(s, x.src.Adapter, m)
	}
	method, err := peft.New(x.cfg.Model.Method, x.cfg.Peft)
	if err != nil {
		return nil, &train.UsageError{Err: err}
	}
	return method, method.Attach(s, m)
}

// trained notes what the method trains, and what training it takes.
func (x *inspection) trained(m model.Model, method peft.Method, group func(string) string) error {
	memory := run.EstimateMemory(x.cfg, x.precision, m, method, x.c.Int("nproc"))
	x.result.Memory, x.result.Notes = &memory, method.Notes()
	if labels := method.Labels(); len(labels) > 0 {
		x.result.Labels = labels
	}
	for i := range x.params {
		p := &x.params[i]
		if own := m.Params().Get(p.Name); own != nil && own.Trainable {
			p.Trainable, p.Shape = true, own.T.Shape()
		}
	}
	for _, p := range method.Params().All() {
		d, err := hf.FileDType(p.T.DType())
		if err != nil {
			return err
		}
		name := group(p.Name)
		if name == "" {
			name = method.Name()
		}
		x.params = append(x.params, inspectedParam{Name: p.Name, Shape: p.T.Shape(), DType: d.String(), Trainable: p.Trainable, group: name})
	}
	return nil
}

// groupsOf returns a function that gives a parameter's group: its block, "embeddings" if it stands before the blocks, or
// "head" if it stands behind them. A method's parameters are named after those that they change, and have their group;
// "" is a name that belongs to no part of the model.
func groupsOf(d model.Description) func(name string) string {
	place := map[string]string{}
	where := "embeddings"
	inBlock := func(name string) string {
		for _, b := range d.Blocks {
			if ok, _ := model.Matches(b, name); ok {
				return b
			}
		}
		return ""
	}
	for _, p := range d.Params {
		if b := inBlock(p.Name); b != "" {
			where, place[p.Name] = "head", b
			continue
		}
		place[p.Name] = where
	}
	return func(name string) string {
		if g, ok := place[name]; ok {
			return g
		}
		return inBlock(name)
	}
}

// count sums the parameters up, as a whole and by group.
func (r *inspected) count(params []inspectedParam) {
	index := map[string]int{}
	for _, p := range params {
		i, ok := index[p.group]
		if !ok {
			i = len(r.Groups)
			index[p.group] = i
			r.Groups = append(r.Groups, inspectedGroup{Name: p.group})
		}
		n := p.elements()
		r.Groups[i].Total += n
		r.Total += n
		r.DTypes[p.DType] += n
		if p.Trainable {
			r.Groups[i].Trainable += n
			r.Trainable += n
		}
	}
	r.Frozen = r.Total - r.Trainable
}

func (x *inspection) print(r inspected) error {
	w := tabwriter.NewWriter(x.c.App.Writer, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	line("model", "%s", r.Model)
	if r.Adapter != "" {
		line("adapter", "%s", r.Adapter)
	}
	if r.Method != "" {
		line("method", "%s", r.Method)
	}
	line("task", "%s", r.Task)
	i := r.Info
	line("shape", "%s: %d layers, hidden %d, %d heads (%d for keys and values), feed-forward %d, vocabulary %d, %d positions",
		i.Family, i.Layers, i.Hidden, i.Heads, i.KVHeads, i.FFN, i.Vocab, i.MaxPositions)
	if len(r.Labels) > 0 {
		line("labels", "%s", strings.Join(r.Labels, ", "))
	}
	if len(r.Fresh) > 0 {
		line("new", "%s (not in the checkpoint)", hf.List(r.Fresh))
	}
	line("parameters", "trainable %s / frozen %s / total %s", report.Commas(r.Trainable), report.Commas(r.Frozen), report.Commas(r.Total))
	names := make([]string, 0, len(r.DTypes))
	for d, n := range r.DTypes {
		names = append(names, fmt.Sprintf("%s %s", d, report.Commas(n)))
	}
	slices.Sort(names)
	line("dtypes", "%s", strings.Join(names, ", "))
	if r.Memory != nil {
		how := fmt.Sprintf("%d × %d, %s, amp %s", x.cfg.Loop.BatchSize, x.cfg.Data.MaxLength, x.cfg.Loop.Optimizer, x.cfg.Machine.AMP)
		if x.cfg.Loop.Recompute {
			how += ", activations recomputed"
		}
		if x.cfg.Machine.AMP == "fp16" {
			how += ", were the CPU to compute it"
		}
		line("training", "at %s about %s", how, r.Memory)
	}
	for n, g := range r.Groups {
		name := ""
		if n == 0 {
			name = "layers"
		}
		line(name, "%s: trainable %s / total %s", g.Name, report.Commas(g.Trainable), report.Commas(g.Total))
	}
	for _, p := range r.Params {
		mark := ""
		if p.Trainable {
			mark = "*"
		}
		line(mark, "%s %s %v", p.Name, p.DType, p.Shape)
	}
	return w.Flush()
}
