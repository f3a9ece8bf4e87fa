package infer

import (
	"errors"
	"fmt"
	"regexp"
	"slices"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/generate"
	"gopeft/model/tokenizer"
	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/dist"
)

// GeneratorOptions are how a Generator computes.
type GeneratorOptions struct {
	Device    string
	DType     string // of weights and states: fp32, bf16 or fp16
	BaseDType string // of matrices alone, as --base-dtype has it; "": auto, which is DType unless that is fp32
	Quantize  string // as PredictorOptions has it
	AMP       string // mixed precision of Score; "" and "auto" mean none
	Threads   int
	Stream    bool        // as PredictorOptions has it
	Shard     bool        // as PredictorOptions has it
	Group     *dist.Group // the processes that share what Score computes: all make the same calls; nil: this one alone
}

// Generator continues texts with a language model and its adapters.
type Generator struct {
	Tokenizer *tokenizer.Tokenizer // nil where the model has none
	Defaults  generate.Options     // what the model's own files say about generating from it
	Unusable  error                // what is wrong with what they say about drawing tokens; Defaults then has none of it

	source  Source
	missing error // why there is no Tokenizer
	chat    func(messages []data.Message, n int, open bool) (string, error)
	lm      model.CausalLM
	adapters
}

// OpenGenerator loads what src names. Close it inside the same call of bindings.Do.
func OpenGenerator(s *bindings.Scope, src Source, o GeneratorOptions) (g *Generator, err error) {
	g = &Generator{source: src}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Close())
		}
	}()
	mo := model.Options{}
	if mo.DType, err = parseDType(o.DType); err != nil {
		return g, err
	}
	if err := g.begin(s, train.MachineSettings{Device: o.Device, AMP: o.AMP, Threads: o.Threads, Stream: o.Stream, Shard: o.Shard, Group: o.Group}); err != nil {
		return g, err
	}
	mo.Device, mo.Aside = g.on.Device, g.on.Aside()
	base, err := src.base(o.BaseDType, o.Quantize, g.on.Precision)
	if err != nil {
		return g, err
	}
	mo.Quantise = base.Quantise
	if open := o.BaseDType == "" || o.BaseDType == "auto"; !open || mo.DType == bindings.Float {
		mo.Base = base.DType
	}
	if err := g.on.CheckHold(train.HeldAs(mo, base.File)); err != nil {
		return g, err
	}
	m, err := model.Load(s, src.Model, mo)
	if err != nil {
		return g, err
	}
	lm, ok := m.(model.CausalLM)
	if !ok {
		return g, errors.Join(fmt.Errorf("%s is a %s model: it reads texts, it does not write them", src.Model, m.Info().Family), m.Close())
	}
	g.lm = lm
	if g.Defaults, err = generate.Defaults(src.Model); errors.Is(err, generate.ErrSampling) {
		g.Unusable, err = err, nil
	}
	if err != nil {
		return g, err
	}
	if g.Tokenizer, g.missing = src.tokenizer(); g.missing == nil {
		g.chat = train.ChatRenderer(g.Tokenizer)
		g.Defaults.Decode = func(prompt []int64) generate.Decoder {
			stream := g.Tokenizer.NewStream()
			// A text's leading blank goes with its first token. The continuation is not the beginning.
			for _, id := range prompt[max(0, len(prompt)-8):] {
				stream.Push(id)
			}
			return stream
		}
		// What the model was fine-tuned to end its answers with, whatever its files say.
		if eos, ok := g.Tokenizer.EOSID(); ok && !slices.Contains(g.Defaults.EOS, eos) {
			g.Defaults.EOS = append(g.Defaults.EOS, eos)
		}
	}
	if err := g.load(s, src, lm); err != nil {
		return g, err
	}
	return g, g.hold(lm)
}

func parseDType(name string) (bindings.DType, error) {
	switch name {
	case "", "fp32":
		return bindings.Float, nil
	case "bf16":
		return bindings.BFloat16, nil
	case "fp16":
		return bindings.Half, nil
	}
	return 0, train.Usage("--dtype %q is not known (fp32, bf16, fp16)", name)
}

// Model is the loaded model, with the first adapter attached.
func (g *Generator) Model() model.CausalLM { return g.lm }

// Prompt gives the token ids of an example's prompt, or of its chat with the assistant's turn begun. A mark such
// as <|user|> that is no token of the model is an error, unless literal: the model would read it as letters. Of a prompt that
// no model holds, of a million tokens and more than twice this one's positions, only so many are given.
func (g *Generator) Prompt(x data.CausalExample, literal bool) ([]int64, error) {
	if x.IDs != nil {
		return x.IDs, nil
	}
	if g.Tokenizer == nil {
		return nil, errNoTokenizer(g.source.Model, g.missing)
	}
	text := x.Prompt
	if x.Messages != nil {
		if g.chat == nil {
			return nil, fmt.Errorf("%s has no chat template: leave out --chat, or say how prompts look with --template", g.source.Model)
		}
		var err error
		if text, err = g.chat(x.Messages, len(x.Messages), true); err != nil {
			return nil, err
		}
	}
	if text == "" {
		return nil, errors.New("the prompt is empty")
	}
	if !literal {
		if err := g.checkMarks(text); err != nil {
			return nil, err
		}
	}
	enc := train.CausalEncoder{Tokenizer: g.Tokenizer, EOS: g.Defaults.EOS, Longest: longest}
	if g.lm != nil {
		enc.Longest = max(longest, 2*g.lm.Info().MaxPositions)
	}
	if x.Messages != nil {
		return enc.ChatIDs(text)
	}
	ids, err := enc.TextIDs(text)
	before, _ := g.Tokenizer.Around()
	if bos, ok := g.Tokenizer.BOSID(); ok && slices.Contains(before, bos) && len(ids) > 1 && ids[0] == bos && ids[1] == bos {
		ids = ids[1:] // the prompt spelled it out
	}
	return ids, err
}

// longest is how many tokens of a prompt are counted at least, for what is said of one that the model does not hold.
const longest = 1 << 20

// mark is how LLaMA-3, SmolLM2, Qwen2 and their like write special tokens.
var mark = regexp.MustCompile(`<\|[^<>|\s]{1,64}\|>`)

func (g *Generator) checkMarks(text string) error {
	for _, m := range mark.FindAllString(text, -1) {
		if _, ok := g.Tokenizer.TokenToID(m); !ok {
			return fmt.Errorf("%s is not a token of this model; spell it as the model does, or give --literal to read it as plain text", m)
		}
	}
	return nil
}

// Generate continues prompts, given as token ids, each with the adapter of its name (adapters nil: the first).
// The results come in the order of the prompts. on, unless nil, is told of every token. An error about a prompt
// is a *generate.PromptError.
func (g *Generator) Generate(s *bindings.Scope, prompts [][]int64, adapters []string, o generate.Options, on func(generate.Event) error) ([]generate.Result, error) {
	results := make([]generate.Result, len(prompts))
	err := g.byAdapter(s, len(prompts), adapters, func(rows []int) error {
		o := o
		part, places := make([][]int64, len(rows)), make([]int, len(rows))
		for k, i := range rows {
			part[k], places[k] = prompts[i], i
			if o.Places != nil {
				places[k] = o.Places[i]
			}
		}
		o.Places = places
		got, err := generate.Run(s, g.lm, part, o, func(e generate.Event) error {
			if on == nil {
				return nil
			}
			e.Prompt = rows[e.Prompt]
			return on(e)
		})
		if bad := (*generate.PromptError)(nil); errors.As(err, &bad) {
			return &generate.PromptError{Prompt: rows[bad.Prompt], Err: bad.Err}
		}
		if err != nil {
			return err
		}
		for k, i := range rows {
			results[i] = got[k]
		}
		return g.lm.Unchanged()
	})
	return results, err
}

// Close frees the adapters and the model.
func (g *Generator) Close() error {
	var m model.Model
	if g.lm != nil {
		m = g.lm
	}
	g.lm = nil
	return g.close(m)
}
