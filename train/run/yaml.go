package run

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/xrash/smetrics"
	"gopkg.in/yaml.v3"

	"gopeft/model"
	"gopeft/model/fsutil"
	"gopeft/train/data"
)

// ReadConfig reads a YAML file over base. Unknown keys, and numbers that do not fit their field (epochs: 3.5),
// are errors naming the line.
func ReadConfig(path string, base Config) (Config, error) {
	raw, err := fsutil.ReadSettings(path, fsutil.MaxSettings)
	return configFrom(path, raw, err, base)
}

// ReadWritten is ReadConfig of the settings that a run has written, which are a file: it waits for no pipe.
func ReadWritten(path string, base Config) (Config, error) {
	raw, err := fsutil.ReadSmall(path, fsutil.MaxSettings)
	return configFrom(path, raw, err, base)
}

func configFrom(path string, raw []byte, err error, base Config) (Config, error) {
	if err != nil {
		return base, err
	}
	if base, err = parseConfig(raw, base); err != nil {
		return base, fmt.Errorf("%s: %w", path, err)
	}
	return base, nil
}

// parseConfig reads YAML over base, keys of others left out.
func parseConfig(raw []byte, base Config, others ...string) (Config, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return base, err
	}
	if len(doc.Content) == 0 { // an empty file
		return base, nil
	}
	return overlay(base, doc.Content[0], others...)
}

// overlay puts a YAML mapping over a configuration, keys of others left out. Unknown keys are errors naming their line,
// as are fractions where a field is an integer, which yaml would cut off.
func overlay(base Config, n *yaml.Node, others ...string) (Config, error) {
	if n.Kind != yaml.MappingNode {
		return base, fmt.Errorf("line %d: want settings, each a line of the form `key: value`", n.Line)
	}
	kinds := map[string]reflect.Kind{"automatic": reflect.Slice}
	new(Config).each(func(key string, v reflect.Value) { kinds[key] = v.Kind() })
	own := *n
	own.Content = slices.Clone(n.Content)
	RemoveKeys(&own, others...)
	given := map[string]bool{}
	for i := 0; i+1 < len(own.Content); i += 2 {
		if data.IsFiles(own.Content[i].Value) {
			own.Content[i+1] = joined(own.Content[i+1])
		}
		key, value := own.Content[i], own.Content[i+1]
		given[key.Value] = true
		switch kind, known := kinds[key.Value]; {
		case !known:
			return base, fmt.Errorf("line %d: %w", key.Line, unknown(key.Value, append(slices.Collect(maps.Keys(kinds)), others...)))
		case (kind == reflect.Int || kind == reflect.Int64 || kind == reflect.Uint64) && value.Tag != "!!int":
			return base, fmt.Errorf("line %d: %s is %q, want a whole number", value.Line, key.Value, value.Value)
		}
	}
	if err := own.Decode(&base); err != nil {
		return base, errors.New(strings.Join(strings.Fields(err.Error()), " "))
	}
	if !given["read-as"] && !slices.ContainsFunc(strings.Fields(firstSettings), func(key string) bool { return !given[key] }) {
		base.Model.ReadAs = model.FirstReading // all settings, as runs write them, from before there was this one
	}
	return base, nil
}

// joined makes one text of a list of texts, a line each.
func joined(list *yaml.Node) *yaml.Node {
	if list.Kind != yaml.SequenceNode {
		return list
	}
	var lines []string
	for _, n := range list.Content {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			return list // which decoding refuses
		}
		lines = append(lines, n.Value)
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: strings.Join(lines, "\n"), Line: list.Line, Column: list.Column}
}

// unknown is the error of a key that is none of those known.
func unknown(key string, known []string) error {
	slices.Sort(known) // of two that are as near, always the same
	if nearest := Nearest(key, known); nearest != "" {
		return fmt.Errorf("there is no setting %q; did you mean %q?", key, nearest)
	}
	return fmt.Errorf("there is no setting %q", key)
}

// RemoveKeys takes keys out of a YAML mapping.
func RemoveKeys(m *yaml.Node, keys ...string) {
	for i := len(m.Content) - 2; i >= 0; i -= 2 {
		if slices.Contains(keys, m.Content[i].Value) {
			m.Content = slices.Delete(m.Content, i, i+2)
		}
	}
}

// WriteConfig writes every setting.
func WriteConfig(path string, c Config) error { return writeYAML(path, c) }

func writeYAML(path string, v any) error {
	return fsutil.WriteFile(path, func(w io.Writer) error {
		e := yaml.NewEncoder(w)
		e.SetIndent(2)
		return errors.Join(e.Encode(v), e.Close())
	})
}

// likeness is how alike two words must be, from 0 to 1, for one to be taken for the other mistyped.
const likeness = 0.84

// Nearest is the word of those known that is most like what was typed, by the similarity of Jaro and Winkler, which
// weighs the beginning of words; "" if none is alike.
func Nearest(typed string, known []string) string {
	best, nearest := likeness, ""
	for _, word := range known {
		if s := smetrics.JaroWinkler(strings.ToLower(typed), strings.ToLower(word), 0.7, 4); s > best {
			best, nearest = s, word
		}
	}
	return nearest
}
