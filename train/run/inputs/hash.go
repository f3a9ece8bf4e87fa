package inputs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"gopeft/model/fsutil"
)

// Hash is the SHA-256 of a file. It is remembered for as long as the file is the same by its identity.
func Hash(ctx context.Context, path string) (string, error) {
	id, err := identify(path)
	if err != nil {
		return "", err
	}
	memory := remembered(id)
	if raw, err := os.ReadFile(memory); err == nil && len(raw) == 2*sha256.Size {
		now := time.Now()
		_ = os.Chtimes(memory, now, now) // it is of use
		return string(raw), nil
	}
	sum, err := HashAnew(ctx, path)
	if err != nil {
		return "", err
	}
	after, err := identify(path)
	if err != nil {
		return "", err
	}
	if after != id {
		return "", fmt.Errorf("%s is being written while it is read", path)
	}
	if memory != "" && time.Now().UnixNano()-id.Changed > tick {
		remember(memory, sum)
	}
	return sum, nil
}

// HashAnew is the SHA-256 of a file as it is read now, whatever is remembered of it. A device or a pipe, which may have no
// end, is an error.
func HashAnew(ctx context.Context, path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h, buf := sha256.New(), make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := f.Read(buf)
		h.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// remembered is where the hash of a file is kept.
func remembered(id identity) string {
	home, err := fsutil.Home()
	if err != nil {
		return ""
	}
	key := sha256.Sum256(fmt.Appendf(nil, "%+v", id))
	return filepath.Join(home, "hashes", hex.EncodeToString(key[:16]))
}

const forgotten = 90 * 24 * time.Hour

// remember keeps a hash, and drops those that nobody has asked for in a long time. Where it cannot, hashing is only slower.
func remember(path, sum string) {
	dir := filepath.Dir(path)
	if os.MkdirAll(dir, 0o777) != nil {
		return
	}
	_ = fsutil.WriteFile(path, func(w io.Writer) error { _, err := io.WriteString(w, sum); return err })
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > forgotten {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
