// Package rows reads tables from files, a row at a time.
//
// [Open] reads CSV, TSV, JSONL, JSON, Parquet, plain text, the ground-truth files of VADER and the aclImdb folder
// layout, in constant memory, and unpacks gzip as it reads; [New] reads a stream. Both give a [Reader] of [Row]s. What
// is wrong with one row is an [*Error] that names file and line, after which the reader goes on with the next row.
// Nothing in a file can make the package panic. What a row's columns mean is not decided here: package data makes
// examples of them.
//
// # Text encoding
//
// Files are UTF-8, with or without a byte-order mark. A row that is not is a bad
// row unless [Options].Encoding says what to do about it; UTF-16 files are
// refused. JSON escapes of lone surrogates become U+FFFD.
//
// # Quoting and line ends
//
// CSV is RFC 4180: quotes may hold commas, doubled quotes and newlines, and CRLF
// inside quotes reads as LF. TSV is the GLUE dialect: one row per line, quotes
// are ordinary characters (see Options.QuotedTSV for the other dialect).
// Blank lines of CSV, TSV and JSONL are no rows; those of plain text are empty
// texts.
//
// # Bounds
//
// A row is of at most 64 MiB ([Options].MaxRowBytes), a line of column names of 1 MiB and 4,096 names. A row of CSV may
// have 2 million separators, and one of JSON 2 million values, of which an object counts for nine: small ones take many
// times their bytes. So memory is bounded by the size of a row, whatever is in it.
//
// # Terms
//
//   - row: one record of a file: named values in the file's order
//   - column: the values of one name in all rows; a field of a struct in Parquet is the column "struct.field"
//   - value: what a row holds in a column: a text, a number, a bool, null, a list or an object
//   - bad row: a row that cannot be read or used, while those around it can
//   - format: how a file holds rows, such as CSV; told by its name's ending and its content unless given
//   - encoding: what becomes of text that is not UTF-8
//   - aclImdb folder: reviews as a text file each, in folders pos and neg, which are their labels
//   - part of such a folder: its training or its test data, in folders train and test
package rows
