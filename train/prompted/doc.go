// Package prompted uses a language model as it is: what is asked of it stands in its prompt, and nothing is trained. A text's
// label is the one that is likeliest to follow (in-context learning; of several templates, hard prompts); an answer is what
// the model writes after examples of others.
//
// Its own words:
//
//   - template: how a text and its label are written, "Review: {text}\nSentiment: {label}"; the prompt ends where the label begins;
//   - words: what stands for each label there, the labels themselves or others;
//   - shot: an example with its label that stands in the prompt before the text that is asked about;
//   - draw: one choice of shots. Accuracy hangs on it, so there can be several.
package prompted
