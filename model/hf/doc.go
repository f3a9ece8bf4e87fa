// Package hf reads and writes HuggingFace checkpoints: config.json and weights in any of the formats of
// package files, matched by name against what a model wants.
//
// The package's own words:
//
//   - Want: a tensor that a model asks for, by its own name and shape. New: it may be absent. Fresh: it is not looked for.
//   - Request: all of a model's wants, and how the file's names and rows become the model's.
//   - Plan: which of the file's tensors answers each want.
//   - Mapped: of a tensor that lies in the file's memory mapping, instead of in memory of its own.
//   - Quantised: held as codes of 4 to 8 bits and scales. Files hold such a tensor as one or as several; a Want sees one.
//   - Keep: to leave a tensor quantised as the file has it.
//   - Release: to drop a mapped tensor's pages from memory; they are read from the file again when touched.
package hf
