// Package data turns files into what a training loop consumes.
//
// From the outside in:
//
//   - Package rows reads files of many formats row by row. Every bad row is a
//     [*rows.Error] that names file and line.
//   - [OpenExamples] and [Load] make classification examples of rows (which
//     column is the text, which the label, what integer a label is);
//     [LoadCausal] makes prompt/answer pairs, chats or plain texts of them.
//   - [LoadSplits], [LoadCausalSplits] and [Prepare] divide and sample data by a
//     seed, the same way on every machine.
//   - Several files are one set ([Files]), which [Mix] weighs. With a Spool, the
//     examples of a set are on disk; package tokens keeps them as tokens.
//   - [Sampler] orders token sequences into batches, [Pack] packs them into
//     rows, [Collate] and [CollatePacked] lay them out as flat arrays, and
//     [Prefetch] runs all of that ahead of the thread that trains.
//
// Tokenization is not done here: the caller turns an [Example] into ids.
//
// # Randomness
//
// Every random choice is a Fisher–Yates shuffle driven by PCG-DXSM
// (math/rand/v2.PCG) seeded from the user's seed, the purpose and the epoch, so
// it is a pure function of those on any machine and Go version.
//
// # Terms
//
//   - row: one record of a file, as package rows reads it; a bad row is one that cannot be read or used
//   - example: a text (or its token ids) and its class
//   - causal example: what a language model learns from: a prompt and an answer, a chat, or plain text
//   - style: how a row becomes causal examples, such as Alpaca, chat or plain text
//   - template: text with {column} in it, which a row fills in
//   - set: the examples of a file, or of several, in memory or on disk; splits: the sets of a run, for training, validation and test
//   - label: a class as the file names it; class: its index
//   - note: a sentence for people about what was guessed, skipped or left out
//   - sequence: a causal example as tokens; target: the token to be predicted at a position
//   - source: of several files, the one an example is from; weight: its share of an epoch
//   - packing: several sequences in one row; segment: one of them, which attention does not leave
//   - bucketing: batches of examples of similar length, so that little of a batch is padding
package data
