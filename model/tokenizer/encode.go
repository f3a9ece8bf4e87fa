package tokenizer

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"unicode/utf8"
	"unsafe"

	"golang.org/x/sync/errgroup"

	"gopeft/bindings/fault"
)

// Options say how to encode.
type Options struct {
	// AddSpecial adds the special tokens of the tokenizer's template ([CLS] and [SEP], <s>, ...).
	AddSpecial bool
	// MaxLength is the number of ids, special tokens included, to cut the encoding to; 0 for any.
	// The end of the text is cut; of a pair, the end of the longer one, then of both.
	MaxLength int
}

// Encoding is the tokens of a text, or of a pair of texts.
type Encoding struct {
	IDs     []int64
	TypeIDs []int64 // which of the texts of a pair, as the template numbers them
	// Offsets are the half-open ranges of the tokens in their text, counted in code points as
	// HuggingFace does. Where text is not valid UTF-8, every invalid byte counts as one. Tokens
	// of the template have the range [0, 0).
	Offsets     [][2]int
	SpecialMask []bool // the tokens that the template added

	tok *Tokenizer
}

// Tokens is the tokens of the ids, as the vocabulary writes them.
func (e Encoding) Tokens() []string {
	tokens := make([]string, len(e.IDs))
	for i, id := range e.IDs {
		tokens[i], _ = e.tok.IDToToken(id)
	}
	return tokens
}

// Encode encodes a text. Bytes that are not valid UTF-8 are read as U+FFFD, one for each.
func (t *Tokenizer) Encode(text string, o Options) (Encoding, error) {
	e := t.encoder()
	defer t.put(e)
	return t.encode(e, text, o)
}

// EncodePair encodes two texts that belong together, such as a question and a passage.
func (t *Tokenizer) EncodePair(a, b string, o Options) (Encoding, error) {
	e := t.encoder()
	defer t.put(e)
	room, err := t.room(o, true)
	if err != nil {
		return Encoding{}, err
	}
	first, err := t.sequence(e, a, 0)
	if err != nil {
		return Encoding{}, fmt.Errorf("encode the first of a pair: %w", err)
	}
	second, err := t.sequence(e, b, 0)
	if err != nil {
		return Encoding{}, fmt.Errorf("encode the second of a pair: %w", err)
	}
	first.truncatePair(&second, room)
	return t.post.pair(t, first, second, o.AddSpecial), nil
}

// EncodeIDs appends the ids of a text to dst. It is faster than Encode, which also finds out
// where the tokens come from.
func (t *Tokenizer) EncodeIDs(dst []int64, text string, o Options) ([]int64, error) {
	e := t.encoder()
	defer t.put(e)
	room, err := t.room(o, false)
	if err != nil {
		return dst, err
	}
	if err := e.idsOnly(text, room); err != nil {
		return dst, fmt.Errorf("encode: %w", err)
	}
	ids := e.ids[:min(len(e.ids), room)]
	if !o.AddSpecial {
		return append(dst, ids...), nil
	}
	dst = append(dst, t.post.before...)
	dst = append(dst, ids...)
	return append(dst, t.post.after...), nil
}

// EncodeBatch encodes many texts, in the order they are in, on all cores.
func (t *Tokenizer) EncodeBatch(ctx context.Context, texts []string, o Options) ([]Encoding, error) {
	out := make([]Encoding, len(texts))
	group, running := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, text := range texts {
		if running.Err() != nil {
			break
		}
		group.Go(func() error {
			err := fault.Guard(func() (err error) {
				e := t.encoder()
				defer t.put(e)
				out[i], err = t.encode(e, text, o)
				return err
			})
			if err != nil {
				return fmt.Errorf("text %d: %w", i, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("encode a batch: %w", err)
	}
	return out, nil
}

func (t *Tokenizer) encoder() *encoder {
	if e, ok := t.encoders.Get().(*encoder); ok {
		return e
	}
	return newEncoder(t)
}

func (t *Tokenizer) put(e *encoder) {
	e.release()
	t.encoders.Put(e)
}

func (t *Tokenizer) encode(e *encoder, text string, o Options) (Encoding, error) {
	room, err := t.room(o, false)
	if err != nil {
		return Encoding{}, err
	}
	s, err := t.sequence(e, text, room)
	if err != nil {
		return Encoding{}, fmt.Errorf("encode: %w", err)
	}
	s.truncate(room)
	return t.post.single(t, s, o.AddSpecial), nil
}

// room is how many tokens of the text itself MaxLength leaves.
func (t *Tokenizer) room(o Options, pair bool) (int, error) {
	if o.MaxLength < 0 {
		return 0, fmt.Errorf("encode: the maximal length %d is negative", o.MaxLength)
	}
	if o.MaxLength == 0 {
		return math.MaxInt, nil
	}
	added := 0
	if o.AddSpecial {
		added = t.post.added(pair)
	}
	if o.MaxLength < added {
		return 0, fmt.Errorf("encode: the maximal length %d has no room for the %d special tokens", o.MaxLength, added)
	}
	return o.MaxLength - added, nil
}

// sequence is the tokens of one text before the template comes to it.
type sequence struct {
	ids     []int64
	offsets [][2]int
}

func (s *sequence) truncate(n int) {
	if len(s.ids) > n {
		s.ids, s.offsets = s.ids[:n], s.offsets[:n]
	}
}

// truncatePair cuts the longer of two sequences until it is as long as the other, then both.
func (s *sequence) truncatePair(pair *sequence, room int) {
	short, long := len(s.ids), len(pair.ids)
	if short+long <= room {
		return
	}
	swapped := short > long
	if swapped {
		short, long = long, short
	}
	if short > room {
		long = short
	} else {
		long = max(short, room-short)
	}
	if short+long > room {
		short = room / 2
		long = short + room%2
	}
	if swapped {
		short, long = long, short
	}
	s.truncate(short)
	pair.truncate(long)
}

// maxText bounds a text, in bytes, so that whatever normalization makes of it has 32-bit offsets.
const maxText = 1 << 28

var errTooLong = fmt.Errorf("the text is longer than %d MiB", maxText>>20)

// begin takes text in.
func (e *encoder) begin(text string, room int) error {
	if len(text) > maxText {
		return errTooLong
	}
	e.limit = 0
	if room < math.MaxInt {
		e.limit = max(room, 1)
	}
	if utf8.ValidString(text) {
		e.input = unsafe.Slice(unsafe.StringData(text), len(text)) // read only
		return nil
	}
	e.input = make([]byte, 0, len(text)+len(text)/8)
	for _, r := range text { // an invalid byte is a U+FFFD here
		e.input = utf8.AppendRune(e.input, r)
	}
	if len(e.input) > maxText {
		return errTooLong
	}
	return nil
}

// idsOnly fills e.ids, without offsets.
func (e *encoder) idsOnly(text string, room int) error {
	if err := e.begin(text, room); err != nil {
		return err
	}
	e.offsets = false
	return e.encode()
}

// sequence encodes text up to about limit tokens, with offsets; 0 for no limit.
func (t *Tokenizer) sequence(e *encoder, text string, limit int) (sequence, error) {
	if limit == 0 {
		limit = math.MaxInt
	}
	if err := e.begin(text, limit); err != nil {
		return sequence{}, err
	}
	e.offsets = true
	if err := e.encode(); err != nil {
		return sequence{}, err
	}
	s := sequence{ids: append([]int64(nil), e.ids...), offsets: make([][2]int, len(e.ids))}
	e.countRunes(s.offsets)
	if t.margins != nil {
		for i, m := range e.margins {
			s.offsets[i] = m.trim(s.offsets[i], i == 0, t.post.keepPrefix)
		}
	}
	return s, nil
}

// countRunes turns e.spans, in bytes of e.input, into ranges of code points.
func (e *encoder) countRunes(dst [][2]int) {
	n := len(e.input)
	if utf8.RuneCount(e.input) == n {
		for i, s := range e.spans {
			dst[i] = [2]int{int(s.start), int(s.end)}
		}
		return
	}
	// How many code points begin before a place; most places come in order.
	place, count := 0, 0
	runes := func(to int) int {
		for ; place < to; place++ {
			if utf8.RuneStart(e.input[place]) {
				count++
			}
		}
		for ; place > to; place-- {
			if utf8.RuneStart(e.input[place-1]) {
				count--
			}
		}
		if to < n && !utf8.RuneStart(e.input[to]) {
			return count - 1 // within one
		}
		return count
	}
	for i, s := range e.spans {
		dst[i] = [2]int{runes(int(s.start)), runes(int(s.end))}
	}
}

// trim leaves the white space of a token out of its range. With a space put in front of the text,
// a single leading space of the first token stays: it is not in the text.
func (m margin) trim(at [2]int, first, keepPrefix bool) [2]int {
	lead := int(m.lead)
	if lead == 1 && keepPrefix && (first || at[0] == 0) {
		lead = 0
	}
	at[0] = min(at[0]+lead, at[1])
	if trail := int(m.trail); at[1] >= trail {
		at[1] = max(at[1]-trail, at[0])
	}
	return at
}
