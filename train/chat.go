package train

import (
	"errors"

	"gopeft/model/chat"
	"gopeft/model/tokenizer"
	"gopeft/train/data"
)

// chatRenderer renders the first n messages of a chat by the tokenizer's template, with the assistant's next turn
// begun if open; nil without a template. One that cannot be read fails when it is first used.
func chatRenderer(t *tokenizer.Tokenizer) func(messages []data.Message, n int, open bool) (string, error) {
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
