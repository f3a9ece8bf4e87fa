// Package tokens keeps tokenized data in files that every process on a machine may map, so that it is tokenized once and
// takes no memory.
//
// A [Cache] is a folder of such files by key. [Cache.Open] gives the file of a key, and makes it where there is none, or
// one that is damaged: the first process that asks builds it, with a [Writer], while others wait. A [File] is checked
// whole before it is used and gives single examples afterwards.
//
// # A file
//
// A magic line; the body; a header in JSON; a trailer with the header's length, the SHA-256 of all before it, and a magic
// line again. The header stands behind the body since it holds what is known only then: sizes, counts and whatever the
// builder says of the data. Of each part the body holds the examples' records one behind the other, and lists of numbers,
// one per example: lengths in tokens, ends of records, and labels and sources where there are any. Numbers are little
// endian. A record is the ids, in 2 bytes each where the vocabulary allows it, else 4; and where there are targets, which
// of the ids they are.
//
// # Terms
//
//   - key: a hash of all that decides what a file holds
//   - part: training, validation or test data
//   - example: token ids, and their targets or their label
//   - source: of several files that make a part, the one an example is from
//   - prune: remove the files that were not used for the longest time, above a bound of the folder's size
package tokens
