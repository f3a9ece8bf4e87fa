// Package corpus gives a run its data as tokens from a file that all processes of a machine share, so that data is
// tokenized once and may be larger than memory.
//
// [Classification] and [Causal] say what the data of a run is and how it becomes tokens. Their Open gives the file of
// package tokens that holds it, made where there is none: rows are read one by one, kept on disk until it is known which
// part of the data each belongs to, tokenized in the order of the parts, and written. Nothing of this holds texts or tokens
// in memory. What comes out is bit for bit what the same data gives in memory.
//
// # Terms
//
//   - key: the name of a file, a hash of all that decides its content: the data files' bytes, the settings that divide and
//     cut them, the tokenizer's files
//   - folder: where the files are; "" for data that is kept in memory
package corpus
