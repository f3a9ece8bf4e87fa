//go:build !linux

package fsutil

import "errors"

func exchange(string, string) error { return errors.ErrUnsupported }
