// Package chat renders conversations into prompts by the template that a chat model brings along (Jinja, as
// transformers applies it):
//
//	t, err := chat.New(tok)
//	prompt, err := t.Render([]chat.Message{{Role: "user", Content: "Hello"}}, true)
//
// The text holds the special tokens already: encode it without adding any. A template comes from outside, so
// it sees no files, other templates or clock but the one it is given, and its work and memory are bounded.
package chat
