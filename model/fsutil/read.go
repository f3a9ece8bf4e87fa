package fsutil

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// MaxSettings bounds settings of all kinds; a tokenizer's tables may be larger.
const MaxSettings = 16 << 20

// OpenRegular opens a regular file to read. Anything else is refused without
// waiting for it: a device has no end, a named pipe perhaps no writer.
func OpenRegular(path string) (*os.File, error) { return open(path, syscall.O_NONBLOCK) }

func open(path string, how int) (*os.File, error) {
	pipes := how == 0
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if err := readable(info, pipes); err != nil { // a device is not even opened
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|how, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = readable(info, pipes)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// ReadSmall reads a regular file that is held in memory as a whole, of at most
// most bytes.
func ReadSmall(path string, most int64) ([]byte, error) {
	return readSmall(path, most, syscall.O_NONBLOCK)
}

// ReadSettings is ReadSmall that takes a pipe too, such as /dev/stdin.
func ReadSettings(path string, most int64) ([]byte, error) { return readSmall(path, most, 0) }

func readSmall(path string, most int64, how int) ([]byte, error) {
	f, err := open(path, how)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(raw)) > most {
		err = fmt.Errorf("more than %d MB, too large for what it should be", most>>20)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return raw, nil
}

func readable(info fs.FileInfo, pipes bool) error {
	switch mode := info.Mode(); {
	case mode.IsRegular() || pipes && mode&(fs.ModeNamedPipe|fs.ModeSocket) != 0:
		return nil
	case mode.IsDir():
		return errors.New("a folder, not a file")
	default:
		return errors.New("not a regular file")
	}
}
