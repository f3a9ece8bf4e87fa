package data

import (
	"fmt"
	"slices"
	"strings"

	"gopeft/train/data/rows"
)

// chatRoles maps the speakers of "conversations" rows (ShareGPT's form) to roles.
var chatRoles = map[string]string{"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant"}

// fromChat reads a row's turns: messages with role and content, or conversations
// with from and value.
func (r *CausalReader) fromChat(row rows.Row) ([]CausalExample, error) {
	column, who, what := "messages", "role", "content"
	value, ok := row.Lookup(column)
	if !ok {
		column, who, what = "conversations", "from", "value"
		value, _ = row.Lookup(column)
	}
	turns, ok := value.([]any)
	if !ok || len(turns) == 0 {
		return nil, row.Errorf("column %q holds %s, not a list of turns", column, kindOfList(value))
	}
	messages := make([]Message, len(turns))
	for i, v := range turns {
		turn, ok := v.(map[string]any)
		if !ok {
			return nil, row.Errorf("%s: turn %d is %s, not an object", column, i, rows.KindOf(v))
		}
		role, _ := turn[who].(string)
		if role == "" {
			return nil, row.Errorf("%s: turn %d has no %q", column, i, who)
		}
		if column == "conversations" {
			if role, ok = chatRoles[role]; !ok {
				return nil, row.Errorf("%s: turn %d is from %s, who is unknown", column, i, rows.Brief(turn[who]))
			}
		}
		content, err := chatContent(turn[what])
		if err != nil {
			return nil, row.Errorf("%s: turn %d: %q %w", column, i, what, err)
		}
		messages[i] = Message{Role: role, Content: content}
	}
	if !r.opts.PromptOnly && !slices.ContainsFunc(messages, func(m Message) bool { return m.Role == "assistant" }) {
		return nil, row.Errorf("%s: no turn of the assistant to learn from", column)
	}
	return []CausalExample{{Messages: messages}}, nil
}

// chatContent reads a turn's content: a text, or a list of text parts.
func chatContent(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case []any:
		var b strings.Builder
		for _, part := range v {
			p, _ := part.(map[string]any)
			text, ok := p["text"].(string)
			if !ok {
				return "", fmt.Errorf("has a part that is not text")
			}
			b.WriteString(text)
		}
		return b.String(), nil
	}
	return "", fmt.Errorf("is %s, not text", rows.KindOf(v))
}

func kindOfList(v any) string {
	if l, ok := v.([]any); ok && len(l) == 0 {
		return "an empty list"
	}
	return rows.KindOf(v)
}
