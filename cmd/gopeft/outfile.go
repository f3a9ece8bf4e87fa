package main

import (
	"context"
	"io"

	"gopeft/model/fsutil"
)

// writeFile replaces the file at path by what work writes. An error of work itself, such as a model that cannot be loaded,
// is returned as it is; only an error of writing names the file.
func writeFile(ctx context.Context, path string, work func(io.Writer) error) error {
	var failed error
	out := &output{}
	fsutil.Sweep(path)
	err := fsutil.WriteFileContext(ctx, path, func(w io.Writer) error {
		out.to = w
		failed = work(out)
		return failed
	})
	if failed != nil && out.failed == nil {
		return failed
	}
	return err
}
