package prompted

import (
	"context"
	"fmt"

	"gopeft/model/tokenizer"
	"gopeft/train"
	"gopeft/train/data"
)

// CheckShots refuses more shots than there are examples.
func CheckShots(shots, examples int, file string) error {
	if shots > examples {
		return train.Usage("--shots is %d, %s has %d examples to take them from", shots, file, examples)
	}
	return nil
}

// Choose puts examples into the prompt, of those drawn from the training data as many as fit beside the longest of the texts
// to be asked about. A text takes at most half of the context away from them. It gives how many examples there are.
func (c *Classifier) Choose(ctx context.Context, training []data.Example, shots int, seed, draw uint64, asked ...[]data.Example) (int, error) {
	c.Shots, c.empty = nil, nil
	if err := c.checkFits(); err != nil || shots == 0 {
		return 0, err
	}
	longest, err := c.longest(ctx, asked)
	if err != nil {
		return 0, err
	}
	classes := make([]int, len(training))
	for i, x := range training {
		classes[i] = x.Label
	}
	room := c.Scorer.Room()
	left := room - min(longest, room/2)
	for _, i := range data.DrawBalanced(classes, shots, seed, draw) {
		x := training[i]
		if x.IDs != nil {
			return 0, fmt.Errorf("%s, row %d: the row holds token ids: prompts are made of texts", x.File, x.Row)
		}
		text, err := c.shorten(x.Text, c.MaxLength)
		if err != nil {
			return 0, err
		}
		shot := Shot{text, x.Label}
		ids, err := c.Encoder.Tokenizer.EncodeIDs(nil, c.example(shot), tokenizer.Options{})
		if err != nil {
			return 0, err
		}
		if left -= len(ids); left < 0 {
			break
		}
		c.Shots = append(c.Shots, shot)
	}
	if len(c.Shots) == 0 {
		return 0, train.Usage("--shots %d: not one of the examples drawn fits into the model's %d tokens beside the longest text (%d tokens): cut texts with --max-length, or give --shots 0",
			shots, room, longest)
	}
	return len(c.Shots), nil
}

// checkFits refuses a template that leaves no room for a text.
func (c *Classifier) checkFits() error {
	if c.Encoder.Tokenizer == nil {
		return c.Encoder.Missing
	}
	r, err := c.encode(c.Ask(""))
	if err != nil {
		return err
	}
	if room := c.Scorer.Room(); r.Len() >= room {
		return train.Usage("template %q takes %d tokens without a text, the model reads %d: no room for one", c.Template, r.Len(), room)
	}
	return nil
}

// longest is how many tokens the longest of some texts takes with the template and a label.
func (c *Classifier) longest(ctx context.Context, asked [][]data.Example) (int, error) {
	longest := 0
	for _, part := range asked {
		lengths := make([]int, len(part))
		err := data.ForEach(ctx, len(part), c.Workers, func(i int) error {
			text, err := c.shorten(part[i].Text, c.MaxLength)
			if err != nil {
				return err
			}
			r, err := c.encode(c.Template.ask(text, c.Words))
			lengths[i] = r.Len()
			return err
		})
		if err != nil {
			return 0, err
		}
		for _, n := range lengths {
			longest = max(longest, n)
		}
	}
	return longest, nil
}

// SayShots tells how many examples stand in a prompt, of those asked for.
func SayShots(n, asked, room int) string {
	switch {
	case asked == 0:
		return "no examples in the prompt"
	case n < asked:
		return fmt.Sprintf("%d of the %d examples asked for fit into the model's %d tokens", n, asked, room)
	}
	return fmt.Sprintf("%d examples in the prompt", n)
}
