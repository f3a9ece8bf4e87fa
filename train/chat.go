package train

import (
	"gopeft/model/tokenizer"
	"gopeft/train/data"
)

// chatRenderer renders chats by the tokenizer's template; nil without one.
func chatRenderer(t *tokenizer.Tokenizer) func(messages []data.Message, n int, open bool) (string, error) {
	return nil
}
