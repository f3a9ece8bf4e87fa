package data

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"gopeft/train/data/rows"
	"gopeft/train/data/spool"
)

// Message is one turn of a chat.
type Message struct {
	Role    string // system, user, assistant, …
	Content string
}

// CausalExample is what a causal language model learns from one row: a prompt and
// the answer to it, or a chat whose rendering belongs to the model, or token ids.
type CausalExample struct {
	Prompt, Answer string    // Prompt is "" for plain text
	Messages       []Message // a chat, in place of Prompt and Answer
	IDs            []int64   // token ids, in place of all of these
	Targets        []int64   // with IDs: what to predict, [IgnoreTarget] where nothing; nil: IDs

	File string
	Line int // from 1; 0 where the format has no lines
	Row  int // data row, from 1; a row may give several examples

	Extra []string // the columns asked for by CausalOptions.Extra, "" where absent
}

// CausalStyle is how rows become examples.
type CausalStyle string

const (
	AutoStyle   CausalStyle = ""          // by the columns of the first row
	AlpacaStyle CausalStyle = "alpaca"    // instruction, optional input, output: the Alpaca prompt
	ChatStyle   CausalStyle = "chat"      // messages (role, content) or conversations (from, value)
	PairStyle   CausalStyle = "pair"      // prompt and completion as they are, or by templates
	PlainStyle  CausalStyle = "text"      // one text, no prompt
	IDsStyle    CausalStyle = "input_ids" // token ids, optional labels of the same length
)

// CausalOptions says how a file becomes causal examples.
type CausalOptions struct {
	Read  rows.Options
	Style CausalStyle

	Template       string // prompt and answer in one, see SplitTemplate; or the two apart:
	PromptTemplate string
	AnswerTemplate string
	TextColumn     string // of PlainStyle; default: guessed

	PromptOnly  bool // rows are prompts to answer: answers may be missing and are not read
	SkipBadRows bool
	Limit       int      // the first N examples only; 0: all
	Extra       []string // further columns wanted as text

	// For LoadCausal alone: a seeded random sample of N, in file order, after Limit.
	Sample int
	Seed   uint64
	Spool  *spool.File // the set's examples are kept there in place of memory, without Extra
}

// CausalStats counts what a reader has read so far.
type CausalStats struct {
	Examples     int
	Skipped      int // bad rows
	FirstSkipped error
	EmptyAnswers int // kept: they teach the model to say nothing
	EmptyTexts   int // plain texts of white space alone: left out
}

// CausalReader streams causal examples in constant memory.
type CausalReader struct {
	in    rows.Reader
	file  string
	opts  CausalOptions
	read  func(rows.Row) ([]CausalExample, error) // makes examples of a row; nil until the first
	how   string
	queue []CausalExample
	stats CausalStats
}

// OpenCausal opens a file for streaming. Sample is ignored here.
func OpenCausal(path string, opts CausalOptions) (*CausalReader, error) {
	in, err := rows.Open(path, opts.Read)
	if err != nil {
		return nil, err
	}
	return NewCausalReader(in, path, opts)
}

// NewCausalReader streams examples from in, which it owns; file stands in errors.
func NewCausalReader(in rows.Reader, file string, opts CausalOptions) (*CausalReader, error) {
	r := &CausalReader{in: in, file: file, opts: opts}
	if err := r.checkOptions(); err != nil {
		in.Close()
		return nil, err
	}
	return r, nil
}

func (r *CausalReader) checkOptions() error {
	o := r.opts
	switch {
	case o.Template != "" && (o.PromptTemplate != "" || o.AnswerTemplate != ""):
		return errors.New("give one template, or a prompt template and an answer template, not both")
	case o.AnswerTemplate != "" && o.PromptTemplate == "", o.PromptTemplate != "" && o.AnswerTemplate == "" && !o.PromptOnly:
		return errors.New("prompt template and answer template go together")
	case r.templated() && o.Style != AutoStyle && o.Style != PairStyle:
		return fmt.Errorf("templates do not go with style %q", o.Style)
	case !slices.Contains([]CausalStyle{AutoStyle, AlpacaStyle, ChatStyle, PairStyle, PlainStyle, IDsStyle}, o.Style):
		return fmt.Errorf("unknown style %q of causal data", o.Style)
	}
	_, _, err := r.templates()
	return err
}

func (r *CausalReader) templated() bool {
	return r.opts.Template != "" || r.opts.PromptTemplate != ""
}

func (r *CausalReader) templates() (prompt, answer Template, err error) {
	if r.opts.Template != "" {
		return SplitTemplate(r.opts.Template)
	}
	if prompt, err = ParseTemplate(r.opts.PromptTemplate); err != nil {
		return prompt, answer, err
	}
	answer, err = ParseTemplate(r.opts.AnswerTemplate)
	return prompt, answer, err
}

// How tells people how rows are read; "" before the first.
func (r *CausalReader) How() string { return r.how }

// Stats counts what has been read so far.
func (r *CausalReader) Stats() CausalStats { return r.stats }

// Close releases the file.
func (r *CausalReader) Close() error { return r.in.Close() }

// Next returns the next example, io.EOF after the last. A *rows.Error leaves the
// reader usable.
func (r *CausalReader) Next() (CausalExample, error) {
	for {
		if r.opts.Limit > 0 && r.stats.Examples >= r.opts.Limit {
			return CausalExample{}, io.EOF
		}
		if len(r.queue) > 0 {
			ex := r.queue[0]
			r.queue = r.queue[1:]
			r.stats.Examples++
			if ex.IDs == nil && ex.Messages == nil && ex.Answer == "" && !r.opts.PromptOnly {
				r.stats.EmptyAnswers++
			}
			return ex, nil
		}
		row, err := r.in.Next()
		if err == nil && r.read == nil {
			if err := r.chooseStyle(row); err != nil {
				return CausalExample{}, err
			}
		}
		if err == nil {
			r.queue, err = r.read(row)
		}
		if err == nil {
			for i := range r.queue {
				r.queue[i].File, r.queue[i].Line, r.queue[i].Row = row.File, row.Line, row.Number
				for _, name := range r.opts.Extra {
					text, _ := row.Text(name)
					r.queue[i].Extra = append(r.queue[i].Extra, text)
				}
			}
			continue
		}
		if !r.opts.SkipBadRows || !rows.IsBad(err) {
			return CausalExample{}, err
		}
		if r.stats.Skipped == 0 {
			r.stats.FirstSkipped = err
		}
		r.stats.Skipped++
	}
}

// Usual names of the parts of an instruction.
var (
	instructionNames = []string{"instruction", "question", "query"}
	inputNames       = []string{"input", "context"}
	outputNames      = []string{"output", "response", "answer", "completion"}
	promptNames      = []string{"prompt"}
)

// chooseStyle chooses by the first row how rows become examples.
func (r *CausalReader) chooseStyle(row rows.Row) error {
	names := row.Columns()
	style := r.opts.Style
	pick := func(likely []string) string { name, _ := usual(names, likely); return name }
	instruction, output, prompt := pick(instructionNames), pick(outputNames), pick(promptNames)
	answered := output != "" || r.opts.PromptOnly
	if style == AutoStyle {
		switch {
		case r.templated():
			style = PairStyle
		case slices.Contains(names, inputIDs):
			style = IDsStyle
		case slices.Contains(names, "messages"), slices.Contains(names, "conversations"):
			style = ChatStyle
		case instruction != "" && (answered || slices.Contains(names, "instances")):
			style = AlpacaStyle
		case prompt != "" && answered:
			style = PairStyle
		default:
			style = PlainStyle
		}
	}
	missing := func(what string) error {
		return fmt.Errorf(`%s: no %s column among %s: say how to use them, as in --template "{a} -> {b}"`, r.file, what, rows.BriefList(names))
	}
	switch style {
	case IDsStyle:
		r.how, r.read = `token ids in column "input_ids"`, r.fromIDs
	case ChatStyle:
		r.how, r.read = "chats", r.fromChat
	case AlpacaStyle:
		input := pick(inputNames)
		nested := slices.Contains(names, "instances") && output == ""
		switch {
		case instruction == "":
			return missing("instruction")
		case nested:
			r.how = fmt.Sprintf("Alpaca prompt from columns %q and \"instances\"", instruction)
			r.read = func(row rows.Row) ([]CausalExample, error) { return r.fromInstances(row, instruction) }
			return nil
		case !answered:
			return missing("output")
		}
		r.how = fmt.Sprintf("Alpaca prompt from columns %s", rows.BriefList(without([]string{instruction, input, output}, "")))
		r.read = func(row rows.Row) ([]CausalExample, error) { return r.fromAlpaca(row, instruction, input, output) }
	case PairStyle:
		ask, answer, err := r.templates()
		switch {
		case err != nil:
			return err
		case r.templated():
			r.how = "by the given template"
			used := ask.Columns()
			if !r.opts.PromptOnly {
				used = append(used, answer.Columns()...)
			}
			for _, name := range used {
				if !slices.Contains(names, name) {
					return missingColumn(r.file, name, "template", names)
				}
			}
		case prompt == "":
			return missing("prompt")
		case !answered:
			return missing("completion")
		default:
			r.how = fmt.Sprintf("prompts and answers from columns %s", rows.BriefList(without([]string{prompt, output}, "")))
			ask = Template{pieces: []piece{{column: prompt}}}
			answer = Template{pieces: []piece{{column: output}}}
		}
		r.read = func(row rows.Row) ([]CausalExample, error) { return r.fromPair(row, ask, answer) }
	case PlainStyle:
		column := r.opts.TextColumn
		if column == "" {
			if column, _ = usual(names, textNames); column == "" && len(names) == 1 {
				column = names[0]
			}
		}
		if column == "" {
			return missing("text, instruction or messages")
		}
		if !slices.Contains(names, column) {
			return missingColumn(r.file, column, "text", names)
		}
		r.how = fmt.Sprintf("plain text from column %q", column)
		r.read = func(row rows.Row) ([]CausalExample, error) { return r.fromText(row, column) }
	}
	return nil
}

func (r *CausalReader) fromText(row rows.Row, column string) ([]CausalExample, error) {
	text, err := row.Text(column)
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(text) == "" {
		r.stats.EmptyTexts++
		return nil, nil
	}
	if r.opts.PromptOnly {
		return []CausalExample{{Prompt: text}}, nil
	}
	return []CausalExample{{Answer: text}}, nil
}

func (r *CausalReader) fromPair(row rows.Row, prompt, answer Template) ([]CausalExample, error) {
	var ex CausalExample
	var err error
	if ex.Prompt, err = prompt.Render(row); err != nil {
		return nil, err
	}
	if !r.opts.PromptOnly {
		if ex.Answer, err = answer.Render(row); err != nil {
			return nil, err
		}
	}
	return []CausalExample{ex}, nil
}

func (r *CausalReader) fromAlpaca(row rows.Row, instruction, input, output string) ([]CausalExample, error) {
	task, err := row.Text(instruction)
	if err != nil {
		return nil, err
	}
	var given, answer string
	if v, ok := row.Lookup(input); ok && v != nil && input != "" { // without an input column its name is "", as is that of an index that pandas wrote
		if given, err = row.Text(input); err != nil {
			return nil, err
		}
	}
	if !r.opts.PromptOnly {
		if answer, err = row.Text(output); err != nil {
			return nil, err
		}
	}
	return []CausalExample{{Prompt: AlpacaPrompt(task, given), Answer: answer}}, nil
}

// fromInstances reads Self-Instruct's seed tasks: one instruction with a list of
// inputs and outputs, each an example.
func (r *CausalReader) fromInstances(row rows.Row, instruction string) ([]CausalExample, error) {
	task, err := row.Text(instruction)
	if err != nil {
		return nil, err
	}
	value, _ := row.Lookup("instances")
	instances, ok := value.([]any)
	if !ok || len(instances) == 0 {
		return nil, row.Errorf(`column "instances" holds %s, not a list of inputs and outputs`, rows.KindOf(value))
	}
	var examples []CausalExample
	for i, v := range instances {
		instance, _ := v.(map[string]any)
		input, inOK := instance["input"].(string)
		output, outOK := instance["output"].(string)
		if !inOK || !outOK {
			return nil, row.Errorf("instance %d lacks the texts input and output", i)
		}
		examples = append(examples, CausalExample{Prompt: AlpacaPrompt(task, input), Answer: output})
	}
	return examples, nil
}

func (r *CausalReader) fromIDs(row rows.Row) ([]CausalExample, error) {
	ids, err := row.IDs(inputIDs, 0)
	if err != nil {
		return nil, err
	}
	ex := CausalExample{IDs: ids}
	if v, ok := row.Lookup("labels"); ok && v != nil && !r.opts.PromptOnly {
		if ex.Targets, err = row.IDs("labels", IgnoreTarget); err != nil {
			return nil, err
		}
		if len(ex.Targets) != len(ids) {
			return nil, row.Errorf("%d labels for %d input_ids", len(ex.Targets), len(ids))
		}
	}
	return []CausalExample{ex}, nil
}

// The prompts of Stanford Alpaca (Taori et al. 2023). Models tuned on such data
// have seen exactly these bytes.
const (
	alpacaWithInput = "Below is an instruction that describes a task, paired with an input that provides further context. " +
		"Write a response that appropriately completes the request.\n\n" +
		"### Instruction:\n%s\n\n### Input:\n%s\n\n### Response:"
	alpacaWithoutInput = "Below is an instruction that describes a task. " +
		"Write a response that appropriately completes the request.\n\n" +
		"### Instruction:\n%s\n\n### Response:"
)

// AlpacaPrompt gives the prompt of Stanford Alpaca for an instruction; input may
// be empty.
func AlpacaPrompt(instruction, input string) string {
	if input == "" {
		return fmt.Sprintf(alpacaWithoutInput, instruction)
	}
	return fmt.Sprintf(alpacaWithInput, instruction, input)
}
