package tokens

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

const (
	magic = "gopeft tokens 1\n" // its number rises with the format
	// trailerSize is the header's length, a SHA-256 and the magic again.
	trailerSize = 8 + 32 + len(magic)
	// mostHeader bounds the header: names of labels and notes are short.
	mostHeader = 64 << 20
	// mostTokens bounds an example, as a length in 4 bytes does.
	mostTokens = math.MaxInt32
)

// header says where everything is. Offsets are from the file's start.
type header struct {
	Key    string `json:"key"`
	Width  int    `json:"id_bytes"` // of an id: 2 or 4
	Causal bool   `json:"causal"`   // there are targets
	Info   Info   `json:"info"`
	Parts  []part `json:"parts"`
}

// Info is what a builder says of the data as a whole.
type Info struct {
	Labels []string `json:"labels,omitempty"` // names of classes
	Notes  []string `json:"notes,omitempty"`  // for people
	Files  []string `json:"files,omitempty"`  // the data's, as the notes name them
}

// part says where a part's records and lists are.
type part struct {
	Name    string  `json:"name"`
	Hash    string  `json:"hash"` // of the examples before they were tokens
	Count   int64   `json:"count"`
	Records section `json:"records"`
	Lengths section `json:"lengths"` // 4 bytes each
	Ends    section `json:"ends"`    // 8 bytes each, from the records' start
	Labels  section `json:"labels"`  // 4 bytes each, or none
	Sources section `json:"sources"` // 4 bytes each, or none
}

type section struct {
	At   int64 `json:"at"`
	Size int64 `json:"size"`
}

// check reports sections that do not lie in the body, which ends at end, or are not as long as their counts say.
func (h *header) check(end int64) error {
	if h.Width != 2 && h.Width != 4 {
		return fmt.Errorf("ids of %d bytes", h.Width)
	}
	for _, p := range h.Parts {
		if p.Count < 0 || p.Count > math.MaxInt32 {
			return fmt.Errorf("part %q: %d examples", p.Name, p.Count)
		}
		for _, s := range []struct {
			what     string
			section  section
			size     int64 // 0: any
			optional bool
		}{
			{"records", p.Records, 0, false}, {"lengths", p.Lengths, 4 * p.Count, false}, {"ends", p.Ends, 8 * p.Count, false},
			{"labels", p.Labels, 4 * p.Count, true}, {"sources", p.Sources, 4 * p.Count, true},
		} {
			x := s.section
			if s.optional && x.Size == 0 {
				continue
			}
			if x.At < int64(len(magic)) || x.Size < 0 || x.At > end || x.Size > end-x.At || s.what != "records" && x.Size != s.size {
				return fmt.Errorf("part %q: %s at %d, %d bytes, do not fit the file", p.Name, s.what, x.At, x.Size)
			}
		}
	}
	return nil
}

// How a record gives targets behind its ids.
const (
	targetsApart = iota // 4 bytes each
	targetsRuns         // lengths of runs, in turn of ids that are no targets and of ids that are
)

// noTarget marks a token that is not learned; package data uses the same number.
const noTarget = -100

// appendRecord encodes an example; targets are nil where there are none.
func appendRecord(dst []byte, width int, ids, targets []int64) ([]byte, error) {
	if len(ids) > mostTokens {
		return dst, fmt.Errorf("an example of %d tokens", len(ids))
	}
	most := int64(math.MaxInt32)
	if width == 2 {
		most = math.MaxUint16
	}
	for _, id := range ids {
		if id < 0 || id > most {
			return dst, fmt.Errorf("token id %d", id)
		}
		if width == 2 {
			dst = binary.LittleEndian.AppendUint16(dst, uint16(id))
		} else {
			dst = binary.LittleEndian.AppendUint32(dst, uint32(id))
		}
	}
	if targets == nil {
		return dst, nil
	}
	if len(targets) != len(ids) {
		return dst, fmt.Errorf("%d targets for %d tokens", len(targets), len(ids))
	}
	for i, t := range targets {
		if t != noTarget && t != ids[i] {
			return appendTargets(append(dst, targetsApart), targets)
		}
	}
	dst = append(dst, targetsRuns)
	for i := 0; i < len(targets); {
		for _, learned := range []bool{false, true} {
			from := i
			for i < len(targets) && (targets[i] != noTarget) == learned {
				i++
			}
			dst = binary.AppendUvarint(dst, uint64(i-from))
		}
	}
	return dst, nil
}

func appendTargets(dst []byte, targets []int64) ([]byte, error) {
	for _, t := range targets {
		if t < math.MinInt32 || t > math.MaxInt32 {
			return dst, fmt.Errorf("target %d", t)
		}
		dst = binary.LittleEndian.AppendUint32(dst, uint32(int32(t)))
	}
	return dst, nil
}

var errRecord = errors.New("a record is not what its length says")

// decodeRecord is appendRecord's reverse, of n tokens.
func decodeRecord(raw []byte, width, n int, causal bool) (ids, targets []int64, err error) {
	if n < 0 || n > len(raw)/width {
		return nil, nil, errRecord
	}
	ids = make([]int64, n)
	for i := range ids {
		if width == 2 {
			ids[i] = int64(binary.LittleEndian.Uint16(raw[2*i:]))
		} else {
			ids[i] = int64(binary.LittleEndian.Uint32(raw[4*i:]))
		}
	}
	raw = raw[width*n:]
	if !causal {
		if len(raw) > 0 {
			return nil, nil, errRecord
		}
		return ids, nil, nil
	}
	if len(raw) == 0 {
		return nil, nil, errRecord
	}
	how, raw := raw[0], raw[1:]
	targets = make([]int64, n)
	switch {
	case how == targetsApart && len(raw) == 4*n:
		for i := range targets {
			targets[i] = int64(int32(binary.LittleEndian.Uint32(raw[4*i:])))
		}
		return ids, targets, nil
	case how != targetsRuns:
		return nil, nil, errRecord
	}
	for i, learned := 0, false; i < n || learned; learned = !learned {
		run, size := binary.Uvarint(raw)
		if size <= 0 || run > uint64(n-i) {
			return nil, nil, errRecord
		}
		raw = raw[size:]
		for ; run > 0; run-- {
			if targets[i] = noTarget; learned {
				targets[i] = ids[i]
			}
			i++
		}
	}
	if len(raw) > 0 {
		return nil, nil, errRecord
	}
	return ids, targets, nil
}
