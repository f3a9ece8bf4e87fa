package main

import (
	"io"

	"gopeft/model/fsutil"
)

// writeFile replaces the file at path by what work writes. Only where writing fails does the error name the file: work
// may have been at something else, such as loading a model.
func writeFile(path string, work func(io.Writer) error) error {
	var failed error
	out := &output{}
	err := fsutil.WriteFile(path, func(w io.Writer) error {
		out.to = w
		failed = work(out)
		return failed
	})
	if failed != nil && out.failed == nil {
		return failed
	}
	return err
}
