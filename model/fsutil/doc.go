// Package fsutil writes files and folders so that a reader, a crash or a full
// disk never meets a half-written one: the new content is built beside the old
// under a hidden temporary name, flushed to the disk, and only then moved into
// place. Until that move the previous content stays untouched.
//
//	err := fsutil.WriteFile("runs/x/summary.json", func(w io.Writer) error {
//		return json.NewEncoder(w).Encode(summary)
//	})
//
//	err = fsutil.WriteDir("runs/x/last", func(dir string) error {
//		return checkpoint.Save(dir)
//	})
//
// The rest of what gopeft asks of files is here too: locks, bounded reads, waiting
// that ends with a context, checksums, mappings, caches of bounded size.
//
// # Terms
//
//   - temporary name: ".NAME.tmp-RANDOM" beside the target, where its new content is built
//   - exchange: two folders trade names in one step, where the file system can do that
//   - previous: ".NAME.previous", where the old folder is for a moment if it cannot
package fsutil
