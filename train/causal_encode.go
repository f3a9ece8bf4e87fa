package train

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"gopeft/model/chat"
	"gopeft/model/tokenizer"
	"gopeft/train/data"
	"gopeft/train/data/rows"
)

// CausalEncoder turns examples into token sequences.
type CausalEncoder struct {
	Tokenizer   *tokenizer.Tokenizer
	Missing     error   // why there is no Tokenizer
	EOS         []int64 // the model's end tokens: the first ends answers where the tokenizer names none
	Vocab       int     // token ids the model knows; 0: not checked
	MaxLength   int
	Longest     int  // most tokens of a text or a rendered chat, whose rest TextIDs and ChatIDs leave out; 0: any
	TrainPrompt bool // learn the prompt too
	// Chat renders a chat up to and including message n; with open the assistant's turn is begun.
	Chat func(messages []data.Message, n int, open bool) (string, error)
}

// Encode tokenizes one example: the prompt and its answer as one text, an end token behind it, targets on the
// answer alone. Ids that the model does not know are an error.
func (e CausalEncoder) Encode(x data.CausalExample) (data.Sequence, error) {
	seq, err := e.encode(x)
	if err != nil {
		return seq, err
	}
	if err := data.CheckVocab("input_ids", seq.IDs, e.Vocab); err != nil {
		return seq, err
	}
	return seq, data.CheckVocab("labels", seq.Targets, e.Vocab)
}

func (e CausalEncoder) encode(x data.CausalExample) (data.Sequence, error) {
	switch {
	case x.IDs != nil:
		targets := x.Targets
		if targets == nil {
			targets = x.IDs
		}
		return data.Sequence{IDs: x.IDs, Targets: firstIgnored(targets)}.Cut(e.MaxLength), nil
	case e.Tokenizer == nil:
		return data.Sequence{}, e.Missing
	case x.Messages != nil:
		return e.chat(x.Messages)
	}
	ids, err := e.TextIDs(x.Prompt + x.Answer)
	if err != nil {
		return data.Sequence{}, err
	}
	shared := 0
	if x.Prompt != "" {
		prompt, err := e.TextIDs(x.Prompt)
		if err != nil {
			return data.Sequence{}, err
		}
		shared = commonPrefix(ids, prompt)
	}
	if eos, ok := e.end(); ok && (len(ids) == 0 || ids[len(ids)-1] != eos) {
		ids = append(ids, eos)
	}
	return data.NewSequence(ids[:shared], ids[shared:], e.MaxLength, e.TrainPrompt), nil
}

// chat learns what the assistant says: its turns, with the tokens that end them.
func (e CausalEncoder) chat(messages []data.Message) (data.Sequence, error) {
	if e.Chat == nil {
		return data.Sequence{}, errors.New("chat messages need a model with a chat template: its tokenizer_config.json has none")
	}
	var seq data.Sequence
	for n := range messages {
		if messages[n].Role != "assistant" {
			continue
		}
		before, err := e.Chat(messages, n, true)
		if err != nil {
			return seq, err
		}
		after, err := e.Chat(messages, n+1, false)
		if err != nil {
			return seq, err
		}
		prompt, err := e.ChatIDs(before)
		if err != nil {
			return seq, err
		}
		full, err := e.ChatIDs(after)
		if err != nil {
			return seq, err
		}
		shared := commonPrefix(full, prompt)
		targets := make([]int64, len(full))
		for i, id := range full {
			targets[i] = id
			if i < shared && !e.TrainPrompt {
				targets[i] = data.IgnoreTarget
				if i < len(seq.Targets) && i < len(seq.IDs) && seq.IDs[i] == id {
					targets[i] = seq.Targets[i] // an earlier turn of the assistant
				}
			}
		}
		seq = data.Sequence{IDs: full, Targets: firstIgnored(targets)}
	}
	if seq.IDs == nil {
		return seq, errors.New("the chat has no message of the assistant to learn from")
	}
	return seq.Cut(e.MaxLength), nil
}

// TextIDs tokenizes with the tokenizer's begin token. What its template puts behind a text, an end token, is taken off; one
// that the text itself ends with stays.
func (e CausalEncoder) TextIDs(text string) ([]int64, error) {
	before, behind := e.Tokenizer.Around()
	o := tokenizer.Options{AddSpecial: true}
	if e.Longest > 0 {
		o.MaxLength = e.Longest + len(before) + len(behind)
	}
	ids, err := e.Tokenizer.EncodeIDs(nil, text, o)
	if err != nil {
		return nil, err
	}
	return ids[:len(ids)-len(behind)], nil
}

// end is the token that ends an answer.
func (e CausalEncoder) end() (int64, bool) {
	if id, ok := e.Tokenizer.EOSID(); ok || len(e.EOS) == 0 {
		return id, ok
	}
	return e.EOS[0], true
}

// ChatIDs tokenizes a rendered chat, which holds its special tokens as text.
func (e CausalEncoder) ChatIDs(text string) ([]int64, error) {
	return e.Tokenizer.EncodeIDs(nil, text, tokenizer.Options{MaxLength: e.Longest})
}

func commonPrefix(a, b []int64) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

func firstIgnored(targets []int64) []int64 {
	out := append([]int64(nil), targets...)
	if len(out) > 0 {
		out[0] = data.IgnoreTarget
	}
	return out
}

// EncodeCausal tokenizes a set on several goroutines. An example whose answer was cut off whole teaches
// nothing; a set of only such is an error.
func EncodeCausal(ctx context.Context, enc CausalEncoder, set *data.CausalSet, workers int) ([]data.Sequence, error) {
	seqs := make([]data.Sequence, len(set.Examples))
	var targets atomic.Int64
	err := data.ForEach(ctx, len(seqs), workers, func(i int) error {
		var err error
		seqs[i], err = enc.EncodeRow(set.Examples[i])
		targets.Add(int64(seqs[i].NumTargets()))
		return err
	})
	if err != nil {
		return nil, err
	}
	if targets.Load() == 0 {
		return nil, enc.NoTargets(set.File)
	}
	return seqs, nil
}

// EncodeRow is Encode whose error names the row.
func (e CausalEncoder) EncodeRow(x data.CausalExample) (data.Sequence, error) {
	seq, err := e.Encode(x)
	if err != nil {
		return data.Sequence{}, &rows.Error{File: x.File, Line: x.Line, Row: x.Row, Err: err}
	}
	return seq, nil
}

// NoTargets is the error of a file whose sequences have no target.
func (e CausalEncoder) NoTargets(file string) error {
	return fmt.Errorf("%s: nothing to learn: every answer is cut off by --max-length %d", file, e.MaxLength)
}

// ChatRenderer renders the first n messages of a chat by the tokenizer's template, with the assistant's next turn
// begun if open; nil without a template. One that cannot be read fails when it is first used.
func ChatRenderer(t *tokenizer.Tokenizer) func(messages []data.Message, n int, open bool) (string, error) {
	if t == nil {
		return nil
	}
	template, err := chat.New(t)
	if errors.Is(err, chat.ErrNoTemplate) {
		return nil
	}
	return func(messages []data.Message, n int, open bool) (string, error) {
		if err != nil {
			return "", err
		}
		turns := make([]chat.Message, n)
		for i, m := range messages[:n] {
			turns[i] = chat.Message(m)
		}
		return template.Render(turns, open)
	}
}
