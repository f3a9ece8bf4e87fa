// Package chat renders conversations into prompts by the template that a chat model brings along (Jinja, as
// transformers applies it):
//
//	t, err := chat.New(tok)
//	prompt, err := t.Render([]chat.Message{{Role: "user", Content: "Hello"}}, true)
//
// The text holds the special tokens already: encode it without adding any. A template comes from outside, so
// it sees no files, other templates or clock but the one it is given, and its work and memory are bounded.
//
// Parsing and evaluation are gonja's. What it does otherwise than Jinja, or without a bound, is this package's: the
// source is edited before gonja reads it (source.go), and operators of this package stand where gonja's would be
// (expressions.go, operators.go).
//
// # Terms
//
//   - budget: the steps, bytes and seconds that one rendering may still use
//   - step: a statement, a round of a loop, an operation, or a number of a range
//   - operator: a function that the rewriter puts in place of an index, a loop, a sum, a method's call or a new list
//   - rewriter: walks a parsed template and puts the operators in
//   - edit: a change to the template's text, where gonja would read it otherwise than Jinja
//   - statement: what stands in {% %}; one with a body ends at its end tag
//   - namespace: the only value that a template can change
//   - fault: the first error of a rendering; gonja wraps it in messages of its own
package chat
