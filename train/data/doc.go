// Package data turns files into what a training loop consumes.
//
// From the outside in:
//
//   - [Open] reads CSV, TSV, JSONL, JSON, Parquet, plain text, the vader
//     ground-truth files and the aclImdb folder layout row by row in constant
//     memory, gzip read through. Every bad row is a [*RowError] that names file
//     and line; nothing in a file can make the package panic.
//   - [OpenExamples] and [Load] make classification examples of rows (which
//     column is the text, which the label, what integer a label is);
//     [LoadCausal] makes prompt/answer pairs, chats or plain texts of them.
//   - [LoadSplits], [LoadCausalSplits] and [Prepare] divide and sample data by a
//     seed, the same way on every machine.
//   - [Sampler] orders token sequences into batches, [Pack] packs them into
//     rows, [Collate] and [CollatePacked] lay them out as flat arrays, and
//     [Prefetch] runs all of that ahead of the thread that trains.
//
// Tokenization is not done here: the caller turns an [Example] into ids.
//
// # Text encoding
//
// Files are UTF-8, with or without a byte-order mark. A row that is not is a bad
// row unless [ReadOptions].Encoding says what to do about it; UTF-16 files are
// refused. JSON escapes of lone surrogates become U+FFFD.
//
// # Quoting and line ends
//
// CSV is RFC 4180: quotes may hold commas, doubled quotes and newlines, and CRLF
// inside quotes reads as LF. TSV is the GLUE dialect: one row per line, quotes
// are ordinary characters (see ReadOptions.QuotedTSV for the other dialect).
// Blank lines of CSV, TSV and JSONL are no rows; those of plain text are empty
// texts.
//
// # Randomness
//
// Every random choice is a Fisher–Yates shuffle driven by PCG-DXSM
// (math/rand/v2.PCG) seeded from the user's seed, the purpose and the epoch, so
// it is a pure function of those on any machine and Go version.
package data
