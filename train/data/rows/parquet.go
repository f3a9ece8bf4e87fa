package rows

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// parquetBatch is how many rows are decoded at a time.
const parquetBatch = 64

// parquetReader reads flat columns, structs (as "a.b"), lists of values and
// lists of structs; columns nested deeper are left out.
type parquetReader struct {
	f      *os.File
	name   string
	src    *source // for the encoding policy
	file   *parquet.File
	leaves []*parquetLeaf // by leaf index; nil: left out
	names  []string

	group int
	rows  parquet.Rows
	batch []parquet.Row
	next  int
	fill  int
	row   int
}

// parquetLeaf says where a leaf's values go.
type parquetLeaf struct {
	field   int
	inner   string // the struct field within a list element, "" for plain values
	list    bool
	present int // definition level from which a list element exists
}

func openParquet(f *os.File, size int64, name string, opts Options) (Reader, error) {
	r := &parquetReader{f: f, name: name, src: &source{name: name, opts: opts}, group: -1}
	err := guarded(name, func() error {
		if err := checkFooter(f, size); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		file, err := parquet.OpenFile(f, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		r.file = file
		return r.layout()
	})
	if err != nil {
		f.Close()
		return nil, err
	}
	return r, nil
}

// guarded runs a step of the parquet library, whose panics on malformed files
// become errors.
func guarded(name string, step func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: malformed parquet file: %v", name, p)
		}
	}()
	return step()
}

// layout maps the schema's leaves to columns.
func (r *parquetReader) layout() error {
	schema := r.file.Schema()
	paths := schema.Columns()
	if len(paths) > maxColumns {
		return fmt.Errorf("%s: %d columns, more than %d", r.name, len(paths), maxColumns)
	}
	r.leaves = make([]*parquetLeaf, len(paths))
	index := map[string]int{}
	for i, path := range paths {
		leaf, name, ok := r.leaf(schema, path)
		if !ok {
			continue
		}
		at, known := index[name]
		if !known {
			at = len(r.names)
			index[name] = at
			r.names = append(r.names, name)
		}
		leaf.field = at
		r.leaves[i] = leaf
	}
	for i := range r.file.Metadata().RowGroups {
		if err := r.checkGroup(&r.file.Metadata().RowGroups[i], schema, paths); err != nil {
			return fmt.Errorf("%s: row group %d: %w", r.name, i, err)
		}
	}
	return nil
}

func (r *parquetReader) leaf(schema *parquet.Schema, path []string) (*parquetLeaf, string, bool) {
	column, ok := schema.Lookup(path...)
	if !ok || column.MaxRepetitionLevel > 1 {
		return nil, "", false
	}
	leaf := &parquetLeaf{}
	if column.MaxRepetitionLevel == 0 {
		return leaf, strings.Join(path, "."), true
	}
	// Walk down to the repeated node: what is above names the column, what is
	// below (without the "element" level of three-level lists) the struct field.
	var node parquet.Node = schema
	level := 0
	for i, name := range path {
		if node = child(node, name); node == nil {
			return nil, "", false
		}
		if node.Optional() || node.Repeated() {
			level++
		}
		if !node.Repeated() {
			continue
		}
		leaf.list = true
		leaf.present = level
		above, below := path[:i], path[i+1:]
		if len(above) == 0 { // a bare repeated field
			above = path[:1]
		} else if len(below) > 0 && len(node.Fields()) == 1 {
			below = below[1:]
		}
		leaf.inner = strings.Join(below, ".")
		return leaf, strings.Join(above, "."), true
	}
	return nil, "", false
}

func child(node parquet.Node, name string) parquet.Node {
	for _, f := range node.Fields() {
		if f.Name() == name {
			return f
		}
	}
	return nil
}

func (r *parquetReader) Next() (Row, error) {
	if r.next == r.fill {
		if err := guarded(r.name, r.read); err != nil {
			return Row{}, err
		}
	}
	raw := r.batch[r.next]
	r.next++
	r.row++
	row := Row{File: r.name, Number: r.row, names: r.names, values: make([]any, len(r.names))}
	var fault error
	err := guarded(r.name, func() error {
		raw.Range(func(column int, values []parquet.Value) bool {
			if column < len(r.leaves) && r.leaves[column] != nil {
				fault = r.set(&row, r.leaves[column], values)
			}
			return fault == nil
		})
		return nil
	})
	if err != nil {
		return Row{}, err
	}
	if fault != nil {
		return Row{}, &Error{File: r.name, Row: r.row, Err: fault}
	}
	return row, nil
}

// read fills the batch with the next rows of this group or of a later one.
func (r *parquetReader) read() error {
	if r.batch == nil {
		r.batch = make([]parquet.Row, parquetBatch)
	}
	r.next, r.fill = 0, 0
	for {
		if r.rows == nil {
			groups := r.file.RowGroups()
			if r.group++; r.group >= len(groups) {
				r.group = len(groups)
				return io.EOF
			}
			r.rows = groups[r.group].Rows()
		}
		for i := range r.batch {
			r.batch[i] = r.batch[i][:0]
		}
		n, err := r.rows.ReadRows(r.batch)
		if n > 0 {
			r.fill = n
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%s: after row %d: %w", r.name, r.row, err)
		}
		err = r.rows.Close()
		r.rows = nil
		if err != nil {
			return fmt.Errorf("%s: after row %d: %w", r.name, r.row, err)
		}
	}
}

// set puts one leaf's values of one row into its column.
func (r *parquetReader) set(row *Row, leaf *parquetLeaf, values []parquet.Value) error {
	if !leaf.list {
		if len(values) != 1 {
			return fmt.Errorf("column %q: %d values in one row", r.names[leaf.field], len(values))
		}
		v, err := r.value(leaf, values[0])
		row.values[leaf.field] = v
		return err
	}
	elements := make([]any, 0, len(values))
	for _, raw := range values {
		if raw.DefinitionLevel() < leaf.present {
			continue // the one placeholder of an empty or absent list
		}
		v, err := r.value(leaf, raw)
		if err != nil {
			return err
		}
		elements = append(elements, v)
	}
	if leaf.inner == "" {
		row.values[leaf.field] = elements
		return nil
	}
	structs, _ := row.values[leaf.field].([]any)
	if structs == nil {
		structs = make([]any, len(elements))
		for i := range structs {
			structs[i] = map[string]any{}
		}
		row.values[leaf.field] = structs
	}
	if len(structs) != len(elements) {
		return fmt.Errorf("column %q: list lengths differ between its fields", r.names[leaf.field])
	}
	for i, v := range elements {
		structs[i].(map[string]any)[leaf.inner] = v
	}
	return nil
}

func (r *parquetReader) value(leaf *parquetLeaf, v parquet.Value) (any, error) {
	if v.IsNull() {
		return nil, nil
	}
	// By the value's own kind, not the schema's: the other may not be in memory.
	switch v.Kind() {
	case parquet.ByteArray, parquet.FixedLenByteArray:
		raw := v.ByteArray()
		if limit := r.src.opts.maxRow(); len(raw) > limit {
			return nil, fmt.Errorf("column %q: %w", r.names[leaf.field], errTooLong(limit))
		}
		text, err := r.src.decode(string(raw)) // a copy: the batch's pages are reused
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", r.names[leaf.field], err)
		}
		return text, nil
	case parquet.Boolean:
		return v.Boolean(), nil
	case parquet.Int32:
		return int64(v.Int32()), nil
	case parquet.Int64:
		return v.Int64(), nil
	case parquet.Float:
		return v.Float(), nil
	case parquet.Double:
		return v.Double(), nil
	}
	return v.String(), nil // INT96, a timestamp
}

// ClassNames gives the label names that HuggingFace's datasets library keeps in
// the file's metadata for a ClassLabel column, nil if there are none.
func (r *parquetReader) ClassNames(column string) []string {
	raw, ok := r.file.Lookup("huggingface")
	if !ok {
		return nil
	}
	var meta struct {
		Info struct {
			Features map[string]json.RawMessage `json:"features"`
		} `json:"info"`
	}
	if json.Unmarshal([]byte(raw), &meta) != nil {
		return nil
	}
	var feature struct {
		Type  string   `json:"_type"`
		Names []string `json:"names"`
	}
	if json.Unmarshal(meta.Info.Features[column], &feature) != nil || feature.Type != "ClassLabel" {
		return nil
	}
	return feature.Names
}

func (r *parquetReader) Close() error {
	err := guarded(r.name, func() error {
		if r.rows == nil {
			return nil
		}
		return r.rows.Close()
	})
	return errors.Join(err, r.f.Close())
}
