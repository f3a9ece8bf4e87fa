package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
)

// odd are values that programs tend to get wrong, as JSON.
var odd = []string{"-1", "0", "1", "-0.0", "1e309", "1e-400", "2147483648", "4294967297", "9223372036854775807", "18446744073709551616", "-9223372036854775809", "1e9", "0.5", "3.7",
	"null", "true", "false", `""`, `"\u0000"`, `"\u001b[31mx"`, `"../gone/nothing"`, `"/dev/zero"`, `"\ud800"`, `"{{1%0}}"`, "[]", "{}", "[[]]", `[1e308,-1]`, `{"type":"BPE"}`,
	`{"a":{"a":{"a":[]}}}`, "NaN", "\"" + strings.Repeat("x", 3000) + "\"", strings.Repeat("[", 12000), `"(a+)+$"`, `"[a-"`, `"\u202e"`}

// mutate damages a file's content in one to four ways, some that know what kind of file it is.
func mutate(r *rand.Rand, name string, raw []byte, others [][]byte) []byte {
	raw = bytes.Clone(raw)
	for range 1 + r.IntN(4)*r.IntN(2) {
		ext := filepath.Ext(name)
		switch {
		case ext == ".safetensors" && r.IntN(3) > 0:
			raw = mutateHeader(r, raw)
		case (ext == ".json" || ext == ".jsonl") && r.IntN(3) > 0:
			raw = mutateJSON(r, raw)
		case (ext == ".yaml" || ext == ".csv" || ext == ".tsv" || ext == ".jinja") && r.IntN(3) > 0:
			raw = mutateText(r, raw)
		default:
			raw = mutateBytes(r, raw, others)
		}
	}
	return raw
}

// mutateBytes knows nothing of what the bytes mean.
func mutateBytes(r *rand.Rand, raw []byte, others [][]byte) []byte {
	if len(raw) == 0 {
		return []byte{byte(r.Uint32())}
	}
	at := r.IntN(len(raw))
	if r.IntN(2) == 0 { // where formats keep their sizes
		at = r.IntN(min(len(raw), 200))
	}
	end := min(len(raw), at+1+r.IntN(1+r.IntN(64)))
	switch r.IntN(9) {
	case 0:
		raw[at] ^= 1 << r.IntN(8)
	case 1:
		raw[at] = byte(r.Uint32())
	case 2:
		return raw[:at]
	case 3:
		return slices.Delete(raw, at, end)
	case 4:
		return slices.Insert(raw, at, bytes.Repeat(raw[at:end], 1+r.IntN(3))...)
	case 5: // an integer of some size
		value := []uint64{0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 1 << 40, 1<<63 - 1, 1 << 63, ^uint64(0)}[r.IntN(13)]
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], value)
		copy(raw[at:], b[:1<<r.IntN(4)])
	case 6:
		for i := at; i < end; i++ {
			raw[i] = byte(r.Uint32())
		}
	case 7:
		if len(others) > 0 {
			if other := others[r.IntN(len(others))]; len(other) > 0 {
				from := r.IntN(len(other))
				return slices.Concat(raw[:at], other[from:min(len(other), from+1+r.IntN(2000))], raw[end:])
			}
		}
		return nil
	case 8:
		return slices.Insert(raw, at, []byte(odd[r.IntN(len(odd))])...)
	}
	return raw
}

// mutateHeader damages the JSON of a safetensors file, and mostly keeps its length right.
func mutateHeader(r *rand.Rand, raw []byte) []byte {
	if len(raw) < 8 {
		return mutateBytes(r, raw, nil)
	}
	n := binary.LittleEndian.Uint64(raw)
	if n > uint64(len(raw)-8) {
		return mutateBytes(r, raw, nil)
	}
	header := mutateJSON(r, bytes.Clone(raw[8:8+n]))
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	if r.IntN(8) == 0 {
		out = binary.LittleEndian.AppendUint64(nil, r.Uint64()>>r.IntN(64))
	}
	return slices.Concat(out, header, raw[8+n:])
}

// mutateJSON puts an odd value in place of a value, or repeats, renames or removes one. What it does not understand it
// damages as text.
func mutateJSON(r *rand.Rand, raw []byte) []byte {
	if r.IntN(4) == 0 {
		return mutateText(r, raw)
	}
	starts := valueStarts(raw)
	if len(starts) == 0 {
		return mutateText(r, raw)
	}
	at := starts[r.IntN(len(starts))]
	d := json.NewDecoder(bytes.NewReader(raw[at:]))
	var v json.RawMessage
	if d.Decode(&v) != nil {
		return mutateText(r, raw)
	}
	end := at + int(d.InputOffset())
	switch r.IntN(8) {
	case 0: // another value of the same file
		from := starts[r.IntN(len(starts))]
		d := json.NewDecoder(bytes.NewReader(raw[from:]))
		var other json.RawMessage
		if d.Decode(&other) == nil {
			return slices.Concat(raw[:at], other, raw[end:])
		}
	case 1: // nested, or repeated
		return slices.Concat(raw[:at], []byte("["), v, []byte(","), v, []byte("]"), raw[end:])
	case 2: // a number a little off
		if len(v) > 0 && v[0] >= '0' && v[0] <= '9' {
			return slices.Concat(raw[:at], v[:len(v)-1], []byte{'0' + byte(r.IntN(10))}, raw[end:])
		}
	case 3: // a text with odd characters in it
		if len(v) > 2 && v[0] == '"' {
			cut := 1 + r.IntN(len(v)-2)
			return slices.Concat(raw[:at+cut], []byte([]string{"\\u0000", "\\ud83d", "é", "\\n", "\xff", "\\u001b]0;x\\u0007", " "}[r.IntN(7)]), raw[at+cut:])
		}
	}
	return slices.Concat(raw[:at], []byte(odd[r.IntN(len(odd))]), raw[end:])
}

// valueStarts lists where values begin: behind a colon, a comma or a bracket, outside texts.
func valueStarts(raw []byte) (starts []int) {
	inText := false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case !inText && (c == ':' || c == '[' || c == ','):
			j := i + 1
			for j < len(raw) && (raw[j] == ' ' || raw[j] == '\n') {
				j++
			}
			if j < len(raw) {
				starts = append(starts, j)
			}
		}
	}
	return starts
}

// mutateText damages lines and words.
func mutateText(r *rand.Rand, raw []byte) []byte {
	lines := bytes.SplitAfter(raw, []byte("\n"))
	at := r.IntN(len(lines))
	switch r.IntN(7) {
	case 0:
		return bytes.Join(slices.Delete(lines, at, at+1), nil)
	case 1:
		return bytes.Join(slices.Insert(lines, at, lines[r.IntN(len(lines))]), nil)
	case 2:
		other := r.IntN(len(lines))
		lines[at], lines[other] = lines[other], lines[at]
		return bytes.Join(lines, nil)
	case 3, 4: // a word
		words := bytes.FieldsFunc(raw, func(c rune) bool { return strings.ContainsRune(" \n\t,:\"[]{}%", c) })
		if len(words) > 0 {
			word := words[r.IntN(len(words))]
			value := odd[r.IntN(len(odd))]
			return bytes.Replace(raw, word, []byte(strings.Trim(value, `"`)), 1)
		}
	case 5:
		return mutateBytes(r, raw, nil)
	case 6: // an encoding that is not UTF-8
		i := r.IntN(len(raw) + 1)
		return slices.Concat(raw[:i], [][]byte{{0xff, 0xfe}, {0xe9}, {0}, {0xef, 0xbb, 0xbf}, {'"'}, {'\r'}}[r.IntN(6)], raw[i:])
	}
	return bytes.Join(lines, nil)
}
