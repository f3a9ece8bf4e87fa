package files

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"gopeft/model/fsutil"
)

// maxIndexBytes bounds the JSON read into memory; the index of a model with
// 100,000 tensors takes about 10 MB.
const maxIndexBytes = 256 << 20

// OpenIndex opens the shards that a *.index.json lists, safetensors or PyTorch,
// as one archive. A shard that is missing or outside the index's folder, a tensor
// that the index lists and its shard lacks, and a tensor held by two shards are
// errors.
func OpenIndex(path string) (Archive, error) {
	listed, err := readIndex(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	all, err := openShards(path, listed)
	if err != nil {
		return nil, errors.Join(err, all.Close())
	}
	return all, nil
}

func openShards(path string, listed map[string]string) (*archive, error) {
	all := &archive{byName: map[string]int{}, metadata: map[string]string{}}
	holder := map[string]string{}
	for _, name := range slices.Sorted(maps.Values(listed)) {
		if _, done := holder[name]; done {
			continue
		}
		holder[name] = filepath.Join(filepath.Dir(path), filepath.FromSlash(name))
		shard, err := openShard(holder[name])
		if errors.Is(err, fs.ErrNotExist) {
			return all, fmt.Errorf("%s: the shard %s is missing", path, quote(name))
		}
		if err != nil {
			return all, err
		}
		all.sources = append(all.sources, shard.sources...)
		maps.Copy(all.metadata, shard.metadata)
		for _, e := range shard.entries {
			if err := all.add(e); err != nil {
				return all, fmt.Errorf("%s: %w", e.File, err)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		e, found := all.Lookup(name)
		if want := holder[listed[name]]; !found || e.File != want {
			return all, fmt.Errorf("%s: tensor %s is not in %s, where the index says it is", path, quote(name), quote(listed[name]))
		}
	}
	return all, nil
}

// openShard opens one file of a set; a shard is never itself an index.
func openShard(path string) (*archive, error) {
	if strings.HasSuffix(path, ".index.json") {
		return nil, fmt.Errorf("%s: an index where a shard was expected", path)
	}
	a, err := Open(path)
	if err != nil {
		return nil, err
	}
	single, ok := a.(*archive)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%s: shards are safetensors or PyTorch files", path), a.Close())
	}
	return single, nil
}

// readIndex gives tensor name → shard file, every path checked to stay in the
// index's folder.
func readIndex(path string) (map[string]string, error) {
	f, err := fsutil.OpenRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxIndexBytes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxIndexBytes {
		return nil, fmt.Errorf("shard index: more than %d bytes", maxIndexBytes)
	}
	return parseIndex(text)
}

func parseIndex(text []byte) (map[string]string, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("shard index: not valid UTF-8")
	}
	r := jsonReader{json.NewDecoder(bytes.NewReader(text))}
	r.UseNumber()
	var listed map[string]string
	err := r.object(func(key string) error {
		if key != "weight_map" {
			var ignored json.RawMessage
			return r.Decode(&ignored)
		}
		if listed != nil {
			return errors.New("weight_map appears twice")
		}
		listed = map[string]string{}
		return r.object(func(name string) error {
			if err := checkName(name); err != nil {
				return err
			}
			token, err := r.token()
			if err != nil {
				return err
			}
			file, ok := token.(string)
			if !ok {
				return fmt.Errorf("tensor %s: its shard is %s, not a file name", quote(name), describe(token))
			}
			if err := checkShardPath(file); err != nil {
				return fmt.Errorf("tensor %s: %w", quote(name), err)
			}
			if _, twice := listed[name]; twice {
				return fmt.Errorf("tensor %s is listed twice", quote(name))
			}
			listed[name] = file
			return nil
		})
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("shard index: %w", err)
	case listed == nil:
		return nil, errors.New("shard index: has no weight_map")
	case len(listed) == 0:
		return nil, errors.New("shard index: weight_map is empty")
	}
	if rest := bytes.TrimSpace(text[r.InputOffset():]); len(rest) > 0 {
		return nil, fmt.Errorf("shard index: goes on after its end at byte %d", r.InputOffset())
	}
	return listed, nil
}

func checkShardPath(file string) error {
	local := filepath.FromSlash(file)
	if strings.Contains(file, `\`) || strings.ContainsFunc(file, unicode.IsControl) || !filepath.IsLocal(local) || filepath.Clean(local) != local || local == "." {
		return fmt.Errorf("the shard path %s does not stay in the index's folder", quote(file))
	}
	return nil
}
