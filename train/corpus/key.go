package corpus

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"gopeft/model/fsutil"
	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/data/rows"
)

// version rises when the same data and settings give other tokens than before.
const version = 1

// FromSize is how many bytes of data make it worth a file, where none is asked for.
const FromSize = 32 << 20

// packed is how many bytes of text a byte of a compressed file counts for.
const packed = 4

// None is the --cache-dir that keeps data in memory.
const None = "none"

// Source says what the data of a run is.
type Source struct {
	Settings  data.Settings
	Seed      uint64
	Model     string   // folder of the model, or its GGUF file
	MaxLength int      // tokens of an example that are read
	Vocab     int      // tokens the model knows; 0: not known
	NewTokens []string // that the tokenizer has beside those of the model's files
	UI        train.UI
	Workers   int // goroutines that tokenize
}

// paths are the data files, by what they are for.
func (s Source) paths() (roles, paths []string) {
	for _, n := range s.Settings.Named() {
		files, err := data.Files(n.Files)
		if err != nil {
			continue // the settings were checked; a file that has come or gone since then is missed by who reads it
		}
		for _, f := range files {
			roles, paths = append(roles, n.Key), append(paths, f.Path)
		}
	}
	return roles, paths
}

// Folder is where the tokens of the data are kept; "" for data that stays in memory: small data, unless a folder is asked
// for, and what can be read once only.
func (s Source) Folder() (string, error) {
	if s.Settings.CacheDir == None {
		return "", nil
	}
	switch size := s.size(); {
	case size < 0:
		return "", nil
	case s.Settings.CacheDir != "":
		return s.Settings.CacheDir, nil
	case size < FromSize:
		return "", nil
	}
	home, err := fsutil.Home()
	if err != nil {
		return "", fmt.Errorf("%w (--cache-dir names a folder for tokens, or none)", err)
	}
	return filepath.Join(home, "tokens"), nil
}

// size is how many bytes the data files have; -1 if one can be read only once, or not at all, which its reader will tell.
func (s Source) size() (sum int64) {
	_, paths := s.paths()
	for _, path := range paths {
		size, err := sizeOf(path)
		if err != nil {
			return -1
		}
		sum += size
	}
	return sum
}

// stamps tell whether a data file was changed.
func (s Source) stamps() (string, error) {
	var b strings.Builder
	_, paths := s.paths()
	for _, path := range paths {
		err := walk(path, func(name string, info fs.FileInfo) error {
			_, err := fmt.Fprintf(&b, "%q %d %d\n", name, info.Size(), info.ModTime().UnixNano())
			return err
		})
		if err != nil {
			return "", fmt.Errorf("data: %w", err)
		}
	}
	return b.String(), nil
}

// errOnce is the error of what can be read only once.
var errOnce = errors.New("not a regular file")

// sizeOf is how many bytes the data at path, a file or a folder, has, or about how many where it is compressed.
func sizeOf(path string) (sum int64, err error) {
	if path == "-" {
		return 0, errOnce
	}
	err = walk(path, func(name string, info fs.FileInfo) error {
		size := info.Size()
		if ext := strings.ToLower(filepath.Ext(name)); ext == ".gz" || ext == ".parquet" {
			size *= packed
		}
		sum += size
		return nil
	})
	return sum, err
}

// walk calls use for the files that a reader of the data at path reads, in order.
func walk(path string, use func(name string, info fs.FileInfo) error) error {
	names, err := rows.Files(path)
	if err != nil {
		return err
	}
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return errOnce
		}
		if err := use(name, info); err != nil {
			return err
		}
	}
	return nil
}

// key identifies what the file of tokens holds: of these settings and what depends on the task.
func (s Source) key(ctx context.Context, task any) (string, error) {
	tokenizer, err := train.TokenizerHash(ctx, s.Model)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintln(h, "tokens", version, tokenizer, s.MaxLength, s.Vocab)
	if len(s.NewTokens) > 0 {
		fmt.Fprintf(h, "new %q\n", s.NewTokens)
	}
	d := s.Settings
	// What changes no token, or is among the arguments above.
	d.CacheDir, d.Pack, d.MaxLength = "", false, 0
	seed := s.Seed
	if d.Data == "" {
		d.Split, d.Stratify = nil, false
		if d.Sample == 0 {
			seed = 0 // nothing is drawn
		}
	}
	d.Train, d.Val, d.Test, d.Data = "", "", "", ""
	if err := json.NewEncoder(h).Encode([]any{d, seed, task}); err != nil {
		return "", err
	}
	roles, paths := s.paths()
	for i, path := range paths {
		fmt.Fprintln(h, roles[i], filepath.Base(path)) // whose ending tells the format
		err := walk(path, func(name string, info fs.FileInfo) error {
			relative, err := filepath.Rel(path, name)
			if err != nil {
				return err
			}
			fmt.Fprintf(h, "%q %d\n", relative, info.Size())
			return fsutil.CopyFile(ctx, h, name)
		})
		if err != nil {
			return "", fmt.Errorf("data: %w", err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:20]), nil
}
