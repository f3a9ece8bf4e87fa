package prompted

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model/fsutil"
	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/data/rows"
)

// FewShot puts examples with their answers before what a language model is asked: texts with a blank line between them, or the
// turns of chats.
type FewShot struct {
	Encoder train.CausalEncoder // its MaxLength is what rows alone are cut to; 0: to nothing
	Room    int                 // tokens that the model reads

	examples []data.CausalExample
}

// Longest is how many tokens the longest of some rows has.
func (f *FewShot) Longest(asked ...[]data.CausalExample) (int, error) {
	longest := 0
	for _, part := range asked {
		for _, x := range part {
			seq, err := f.Encoder.EncodeRow(x)
			if err != nil {
				return 0, err
			}
			longest = max(longest, len(seq.IDs))
		}
	}
	return longest, nil
}

// Choose draws the examples from training data, of which those count that fit beside a row of so many tokens. A row takes at
// most half of the room away from them. It gives their number.
func (f *FewShot) Choose(training []data.CausalExample, shots, longest int, seed, draw uint64) (int, error) {
	f.examples = nil
	left := f.Room - min(longest, f.Room/2)
	for _, i := range data.DrawBalanced(make([]int, len(training)), shots, seed, draw) {
		x := training[i]
		if _, err := kindOf(x); err != nil {
			return 0, fmt.Errorf("%s, row %d: %w", x.File, x.Row, err)
		}
		seq, err := f.Encoder.EncodeRow(x)
		if err != nil {
			return 0, err
		}
		if left -= len(seq.IDs) + 2; left < 0 { // a blank line's tokens
			break
		}
		f.examples = append(f.examples, x)
	}
	if len(f.examples) == 0 && shots > 0 {
		return 0, train.Usage("--shots %d: not one of the examples drawn fits into the model's %d tokens beside the longest row (%d tokens): cut rows with --max-length, or give --shots 0",
			shots, f.Room, longest)
	}
	return len(f.examples), nil
}

// kinds of instruction data.
const (
	pairs = "a prompt with an answer"
	chats = "a chat"
)

func kindOf(x data.CausalExample) (string, error) {
	switch {
	case x.IDs != nil:
		return "", errors.New("the row holds token ids: prompts are made of texts")
	case x.Messages != nil:
		return chats, nil
	case x.Prompt == "":
		return "", errors.New("the row is plain text: examples have a prompt and an answer")
	}
	return pairs, nil
}

// Before gives x with the examples before its prompt, or its first turn. A chat keeps its own system message; examples'
// are left out.
func (f *FewShot) Before(x data.CausalExample) (data.CausalExample, error) {
	kind, err := kindOf(x)
	if err != nil {
		return x, err
	}
	for _, shot := range f.examples {
		if of, _ := kindOf(shot); of != kind {
			return x, fmt.Errorf("the row is %s, the examples before it are each %s", kind, of)
		}
	}
	if kind == pairs {
		x.Prompt = f.text() + x.Prompt
		return x, nil
	}
	x.Messages = slices.Insert(slices.Clone(x.Messages), system(x), f.turns()...)
	return x, nil
}

// system is how many messages of a chat come before its first turn.
func system(x data.CausalExample) int {
	if len(x.Messages) > 0 && x.Messages[0].Role == "system" {
		return 1
	}
	return 0
}

func (f *FewShot) text() string {
	var b strings.Builder
	for _, x := range f.examples {
		b.WriteString(x.Prompt + x.Answer + "\n\n")
	}
	return b.String()
}

func (f *FewShot) turns() []data.Message {
	var turns []data.Message
	for _, x := range f.examples {
		last := len(x.Messages)
		for last > 0 && x.Messages[last-1].Role != "assistant" {
			last--
		}
		for _, m := range x.Messages[:last] {
			if m.Role != "system" {
				turns = append(turns, m)
			}
		}
	}
	return turns
}

// Encode tokenizes x with the examples before it. Its targets are x's own; what it is cut by alone is cut here too.
func (f *FewShot) Encode(x data.CausalExample) (data.Sequence, error) {
	enc := f.Encoder
	enc.MaxLength = 0
	with, err := f.Before(x)
	if err != nil {
		return data.Sequence{}, err
	}
	seq, err := enc.Encode(with)
	if err != nil {
		return seq, err
	}
	if added := len(with.Messages) - len(x.Messages); added > 0 { // the examples' turns are the assistant's too
		before, err := enc.Chat(with.Messages, system(x)+added, false)
		if err != nil {
			return seq, err
		}
		ids, err := enc.ChatIDs(before)
		if err != nil {
			return seq, err
		}
		for i := 0; i < min(len(ids), len(seq.IDs)) && ids[i] == seq.IDs[i]; i++ {
			seq.Targets[i] = data.IgnoreTarget
		}
	}
	if n := f.Encoder.MaxLength; n > 0 {
		alone, err := enc.Encode(x)
		if err != nil {
			return seq, err
		}
		seq = seq.Cut(len(seq.IDs) - max(0, len(alone.IDs)-n))
	}
	return seq.Cut(f.Room), nil
}

// Stop is what an answer surely ends before: the beginning of another example, as a model writes that has seen some; "" where
// nothing sets them apart.
func (f *FewShot) Stop() string {
	if len(f.examples) == 0 || f.examples[0].Messages != nil {
		return ""
	}
	begin, blank := f.examples[0].Prompt, false
	for _, x := range f.examples {
		n := 0
		for n < min(len(begin), len(x.Prompt)) && begin[n] == x.Prompt[n] {
			n++
		}
		begin, blank = begin[:n], blank || strings.Contains(x.Answer, "\n\n")
	}
	begin, _, _ = strings.Cut(begin, "\n")
	if begin = strings.ToValidUTF8(begin, ""); blank && begin == "" {
		return ""
	}
	return "\n\n" + begin
}

// Loss is the mean negative log-likelihood, per token, of some rows' answers.
func (f *FewShot) Loss(ctx context.Context, s *bindings.Scope, sc Scorer, asked []data.CausalExample, workers int) (float64, error) {
	seqs := make([]data.Sequence, len(asked))
	err := data.ForEach(ctx, len(asked), workers, func(i int) (err error) {
		x := asked[i]
		if seqs[i], err = f.Encode(x); err != nil {
			return &rows.Error{File: x.File, Line: x.Line, Row: x.Row, Err: err}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	losses, targets, err := sc.Losses(ctx, s, seqs)
	if err != nil {
		return 0, err
	}
	sum, n := 0.0, int64(0)
	for i := range losses {
		sum, n = sum+losses[i], n+targets[i]
	}
	return sum / math.Max(1, float64(n)), nil
}

// storedExamples is the file of the examples of instructions.
type storedExamples struct {
	Examples []storedExample `json:"examples"`
}

type storedExample struct {
	Prompt   string         `json:"prompt,omitempty"`
	Answer   string         `json:"answer,omitempty"`
	Messages []data.Message `json:"messages,omitempty"`
}

// Save writes the examples into a run's folder.
func (f *FewShot) Save(dir string) error {
	stored := storedExamples{Examples: []storedExample{}}
	for _, x := range f.examples {
		stored.Examples = append(stored.Examples, storedExample{x.Prompt, x.Answer, x.Messages})
	}
	return fsutil.WriteFile(filepath.Join(dir, FileName), func(w io.Writer) error { return encode(w, stored) })
}

// Load reads the examples that Save has written, and gives their number.
func (f *FewShot) Load(path string) (int, error) {
	raw, err := fsutil.ReadSmall(path, fsutil.MaxSettings)
	if err != nil {
		return 0, err
	}
	var stored storedExamples
	if err := json.Unmarshal(raw, &stored); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	if stored.Examples == nil {
		return 0, fmt.Errorf("%s holds no examples of instructions", path)
	}
	f.examples = nil
	for i, x := range stored.Examples {
		x := data.CausalExample{Prompt: x.Prompt, Answer: x.Answer, Messages: x.Messages}
		if _, err := kindOf(x); err != nil {
			return 0, fmt.Errorf("%s: example %d: %w", path, i+1, err)
		}
		f.examples = append(f.examples, x)
	}
	return len(f.examples), nil
}
