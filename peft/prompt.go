package peft

import (
	"errors"
	"fmt"

	"gopeft/bindings"
	"gopeft/model"
)

// PromptOptions are the settings of prompt, which prefix shares.
type PromptOptions struct {
	VirtualTokens int     `yaml:"virtual-tokens" usage:"of prompt and prefix: number of virtual tokens (20)"`
	Init          string  `yaml:"init" usage:"of prompt: vocab (random vocabulary rows), text or random; of prefix: vocab, text (real keys and values) or random"`
	InitText      string  `yaml:"init-text" usage:"of prompt and prefix: the text of --init text"`
	InitIDs       []int64 `yaml:"-"` // InitText's token ids, filled in by the caller
}

func (o *PromptOptions) complete() error { return checkCount("virtual-tokens", &o.VirtualTokens, 20) }

// PoolOptions are further settings of prompt. What peft wrote has PeftCompat, what gopeft trains has not.
type PoolOptions struct {
	PeftCompat bool `yaml:"peft-compat" usage:"of prompt: classify from the position the peft library pools"`
}

// promptMethod is soft prompt tuning (Lester et al. 2021): trained vectors before the token embeddings.
func promptMethod() Definition {
	return Definition{
		Name:        "prompt",
		Complete:    func(o *Options) error { return choose("init", &o.Init, "vocab", "text", "random") },
		New:         func(o Options) Tuner { return &prompt{o: o} },
		Dialects:    []Dialect{DialectPeft},
		Unmergeable: "virtual tokens are input, not weights",
	}
}

type prompt struct {
	Common
	o Options
}

const promptName = "prompt_embeddings"

func (p *prompt) Adds(x *Structure) ([]NewParam, error) {
	return []NewParam{{Name: promptName, Shape: []int64{int64(p.o.VirtualTokens), int64(x.Info.Hidden)}, Init: p.init}}, nil
}

func (p *prompt) init(s *bindings.Scope, m model.Model, shape []int64) (bindings.Tensor, error) {
	words := m.Hooks().Words
	rows := words.T.Size(0)
	var ids bindings.Tensor
	switch p.o.Init {
	case "random": // as PyTorch initialises embeddings
		return Gaussian(1)(s, m, shape)
	case "text":
		list, err := repeat(p.o.InitIDs, shape[0], rows)
		if err != nil {
			return bindings.Tensor{}, err
		}
		ids = s.Int64sOn(words.Device(), list, shape[0])
	default:
		ids = s.Int64sOn(words.Device(), randomIDs(s, shape[0], rows), shape[0])
	}
	return s.Detach(words.Rows(s, ids, bindings.Float)), nil
}

// randomIDs draws n token ids with libtorch's generator.
func randomIDs(s *bindings.Scope, n, vocab int64) []int64 {
	ids := make([]int64, n)
	_ = s.Run(func(s *bindings.Scope) error {
		for i, u := range s.Uniform([]int64{n}, 0, 1, bindings.Double, bindings.CPU).Float64s() {
			ids[i] = min(int64(u*float64(vocab)), vocab-1)
		}
		return nil
	})
	return ids
}

// repeat is n token ids: those of the initial text, cut off or begun again.
func repeat(ids []int64, n, vocab int64) ([]int64, error) {
	if len(ids) == 0 {
		return nil, errors.New("init text: give the text with init-text")
	}
	out := make([]int64, n)
	for i := range out {
		out[i] = ids[i%len(ids)]
		if out[i] < 0 || out[i] >= vocab {
			return nil, fmt.Errorf("init text: token id %d is not in a vocabulary of %d", out[i], vocab)
		}
	}
	return out, nil
}

func (p *prompt) Attach(x *Attachment) error {
	x.Hooks.Prompt = &softPrompt{x.Param(promptName)}
	if p.o.PeftCompat {
		x.Hooks.Pool = hfPool(x.Info)
	}
	return nil
}

func (p *prompt) Needs() Needs { return Needs{VirtualTokens: p.o.VirtualTokens} }
func (p *prompt) LR() float64  { return 1e-2 }

func (p *prompt) Describe() string {
	from := map[string]string{"vocab": "random rows of the embeddings", "text": "a text's embeddings", "random": "N(0, 1)"}[p.o.Init]
	return fmt.Sprintf("%d virtual tokens, from %s", p.o.VirtualTokens, from)
}

type softPrompt struct{ p *model.Param }

// Len implements model.Prompt.
func (p *softPrompt) Len() int { return int(p.p.T.Size(0)) }

// Vectors implements model.Prompt.
func (p *softPrompt) Vectors(s *bindings.Scope) bindings.Tensor { return p.p.T }
