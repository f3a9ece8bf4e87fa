package nvrtc

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Cache keeps compiled kernels in a folder from run to run. With "" it keeps nothing.
type Cache struct{ Folder string }

// key tells apart what the code depends on.
func (c *Compiler) key(source string, t Target) string {
	h := sha256.New()
	fmt.Fprintln(h, c.Version(), options(t), len(source))
	h.Write([]byte(source))
	return fmt.Sprintf("%x", h.Sum(nil))
}

// Code is the code of a source for a target: the cache's, or compiled and put there. Where it cannot be kept, warn says
// why; the code is right all the same.
func (k Cache) Code(c *Compiler, source string, t Target) (code []byte, warn, err error) {
	key := c.key(source, t)
	if k.Folder != "" {
		if code, err := k.read(key); err == nil {
			return code, nil, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			warn = err // it is written anew
		}
	}
	code, _, err = c.Compile(source, t)
	if err != nil || k.Folder == "" {
		return code, nil, err
	}
	if err := k.write(key, code); err != nil {
		warn = fmt.Errorf("keep compiled GPU kernels: %w", err)
	}
	return code, warn, nil
}

func (k Cache) path(key string) string { return filepath.Join(k.Folder, key+".kernels") }

// A file is the SHA-256 of what follows, and the code.
func (k Cache) read(key string) ([]byte, error) {
	data, err := os.ReadFile(k.path(key))
	if err != nil {
		return nil, err
	}
	if len(data) <= sha256.Size {
		return nil, fmt.Errorf("%s is cut short", k.path(key))
	}
	code := data[sha256.Size:]
	if sum := sha256.Sum256(code); !bytes.Equal(sum[:], data[:sha256.Size]) {
		return nil, fmt.Errorf("%s is damaged", k.path(key))
	}
	return code, nil
}

// write puts a file there in one step, so that other processes see all of it or nothing.
func (k Cache) write(key string, code []byte) error {
	if err := os.MkdirAll(k.Folder, 0o777); err != nil {
		return err
	}
	part, err := os.CreateTemp(k.Folder, "."+key+".*")
	if err != nil {
		return err
	}
	sum := sha256.Sum256(code)
	_, err = part.Write(append(sum[:], code...))
	if closing := part.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(part.Name(), k.path(key))
	}
	if err != nil {
		os.Remove(part.Name())
	}
	return err
}
