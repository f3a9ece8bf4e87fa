package generate

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"gopeft/bindings"
	"gopeft/model"
)

// Run continues every prompt, given as token ids, and returns the continuations in the order of the prompts.
// Prompts of like length are decoded together. on, unless nil, is told of every token as it comes; its error
// ends the run. A prompt that is empty, too long or holds ids outside the vocabulary is an error naming it,
// before anything is computed.
func Run(s *bindings.Scope, m model.CausalLM, prompts [][]int64, o Options, on func(Event) error) ([]Result, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	if m.LMHead() == nil && m.Hooks().Unembed == nil {
		return nil, fmt.Errorf("generate: the model has no language-model head")
	}
	r := run{m: m, o: o, on: on, results: make([]Result, len(prompts)), limit: o.Context}
	if r.limit == 0 {
		r.limit = m.Info().MaxPositions
	}
	r.fixed = m.Hooks().MemoryLen()
	if p := m.Hooks().Prompt; p != nil {
		r.fixed += p.Len()
	}
	fitting, err := r.checkPrompts(prompts)
	if err != nil {
		return nil, err
	}
	r.device = m.Params().All()[0].Device()
	s.Inference(func() {
		if err = r.share(s, prompts, fitting); err != nil {
			return
		}
		if r.shared != nil {
			defer r.shared.Close()
		}
		for _, group := range groups(prompts, fitting, cmp.Or(o.Batch, 16)) {
			if err = s.Run(func(s *bindings.Scope) error { return r.batch(s, prompts, group) }); err != nil {
				return
			}
		}
	})
	return r.results, err
}

// PromptError is what is wrong with one prompt.
type PromptError struct {
	Prompt int // index in the list
	Err    error
}

func (e *PromptError) Error() string { return fmt.Sprintf("generate: prompt %d %v", e.Prompt+1, e.Err) }

// Unwrap gives the cause.
func (e *PromptError) Unwrap() error { return e.Err }

type run struct {
	m       model.CausalLM
	o       Options
	on      func(Event) error
	limit   int // positions the model holds
	fixed   int // positions of memories and virtual tokens
	device  bindings.Device
	results []Result
	shared  *model.Cache // of one row: the tokens that all prompts begin with; nil: none
	begun   int          // how many there are
}

// share computes what prompts begin with, but for the last token of each.
func (r *run) share(s *bindings.Scope, prompts [][]int64, fitting []int) error {
	if !r.o.Share || r.o.NoCache || len(fitting) < 2 || r.m.Info().Window > 0 { // a window would count the padding behind what is shared
		return nil
	}
	first := prompts[fitting[0]]
	n, width := len(first)-1, 0
	for _, i := range fitting {
		p := prompts[i]
		width = max(width, len(p))
		k := 0
		for k < min(n, len(p)-1) && p[k] == first[k] {
			k++
		}
		n = k
	}
	if n == 0 || model.Restretches(r.m, 1, r.fixed+width+cmp.Or(r.o.MaxNew, r.limit)) {
		return nil
	}
	r.begun, r.shared = n, model.NewCache(s, r.fixed+n)
	err := s.Run(func(s *bindings.Scope) error {
		in := model.Input{IDs: r.upload(s, first[:n], 1, n), Cache: r.shared, HiddenOnly: true, FullLength: r.fixed + width}
		_, err := r.prefill(s, in, pieceOf(1, int64(n), false), true)
		return err
	})
	if err != nil {
		r.shared.Close()
	}
	return err
}

// place is the prompt's place in the whole list.
func (r *run) place(prompt int) int {
	if r.o.Places == nil {
		return prompt
	}
	return r.o.Places[prompt]
}

// checkPrompts gives the prompts to continue: all, or with SkipLong those that leave room. The others' results are
// written.
func (r *run) checkPrompts(prompts [][]int64) (fitting []int, err error) {
	if r.o.Places != nil && len(r.o.Places) != len(prompts) {
		return nil, fmt.Errorf("generate: %d places for %d prompts", len(r.o.Places), len(prompts))
	}
	vocab := int64(model.Vocab(r.m))
	for i, p := range prompts {
		if len(p) == 0 {
			return nil, &PromptError{i, errors.New("is empty: give it at least one token, such as the tokenizer's <s>")}
		}
		if len(p)+r.fixed >= r.limit {
			if r.o.SkipLong {
				r.results[i].Reason = Context
				continue
			}
			return nil, &PromptError{i, fmt.Errorf("has %d tokens, the model holds %d positions (%d of them the method's): shorten it to leave room for an answer", len(p), r.limit, r.fixed)}
		}
		for _, id := range p {
			if id < 0 || id >= vocab {
				return nil, &PromptError{i, fmt.Errorf("holds token %d, the model's vocabulary has %d", id, vocab)}
			}
		}
		fitting = append(fitting, i)
	}
	return fitting, nil
}

// groups puts prompts of like length together, those in order, the longest first: padding never takes more than
// about a fifth of a batch.
func groups(prompts [][]int64, order []int, most int) [][]int {
	slices.SortStableFunc(order, func(a, b int) int { return len(prompts[b]) - len(prompts[a]) })
	var out [][]int
	for len(order) > 0 {
		longest := len(prompts[order[0]])
		n := 1
		for n < min(most, len(order)) && len(prompts[order[n]]) >= longest-longest/5-4 {
			n++
		}
		out = append(out, order[:n])
		order = order[n:]
	}
	return out
}

// row is a continuation in progress.
type row struct {
	index  int     // of its prompt
	ids    []int64 // prompt and continuation
	prompt int     // length of the prompt
	sample *sampler
	text   *textStream
}

// batch continues a group of prompts together.
func (r *run) batch(s *bindings.Scope, prompts [][]int64, group []int) error {
	rows := make([]*row, len(group))
	width := 0
	for i, p := range group {
		rows[i] = &row{index: p, ids: slices.Clone(prompts[p]), prompt: len(prompts[p]), sample: newSampler(r.o, r.place(p)), text: newTextStream(r.o, prompts[p])}
		width = max(width, len(prompts[p]))
	}
	var cache *model.Cache
	most := cmp.Or(r.o.MaxNew, r.limit)
	if !r.o.NoCache && !model.Restretches(r.m, r.fixed+width, r.fixed+width+most) {
		room := width + min(cmp.Or(r.o.MaxNew, 256), 256)
		if r.shared == nil {
			cache = model.NewCache(s, r.fixed+room)
		} else {
			cache = r.shared.Fork(s, make([]int, len(rows)), r.shared.Len(), room-r.begun)
		}
		defer cache.Close()
	}
	in := r.input(s, rows)
	for len(rows) > 0 {
		if err := s.Context().Err(); err != nil {
			return err
		}
		var next []int64
		err := s.Run(func(s *bindings.Scope) (err error) {
			next, err = r.step(s, rows, in, cache)
			return err
		})
		if err != nil {
			return err
		}
		var going []int
		for i, w := range rows {
			done, err := r.take(w, next[i])
			if err != nil {
				return err
			}
			if !done {
				going = append(going, i)
			}
		}
		s.Free(in.IDs)
		s.Free(in.Mask)
		if len(going) < len(rows) {
			kept := make([]*row, len(going))
			for i, at := range going {
				kept[i] = rows[at]
			}
			rows = kept
			if cache != nil && len(rows) > 0 {
				cache.Keep(s, going)
			}
		}
		if cache == nil {
			in = r.input(s, rows)
		} else {
			in = r.lastTokens(s, rows)
		}
	}
	return nil
}

// input is all tokens of the rows behind those that are shared, padded on the left.
func (r *run) input(s *bindings.Scope, rows []*row) model.Input {
	width, padded := longest(rows)-r.begun, false
	for _, w := range rows {
		padded = padded || len(w.ids)-r.begun != width
	}
	if len(rows) == 0 {
		return model.Input{}
	}
	ids, mask := make([]int64, len(rows)*width), make([]int64, len(rows)*width)
	for i, w := range rows {
		at := (i+1)*width - len(w.ids) + r.begun
		copy(ids[at:], w.ids[r.begun:])
		for j := at; j < (i+1)*width; j++ {
			mask[j] = 1
		}
	}
	in := model.Input{IDs: r.upload(s, ids, len(rows), width)}
	if padded {
		in.Mask = r.upload(s, mask, len(rows), width)
	}
	return in
}

func (r *run) lastTokens(s *bindings.Scope, rows []*row) model.Input {
	ids := make([]int64, len(rows))
	for i, w := range rows {
		ids[i] = w.ids[len(w.ids)-1]
	}
	return model.Input{IDs: r.upload(s, ids, len(rows), 1)}
}

func (r *run) upload(s *bindings.Scope, v []int64, rows, width int) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		return s.Int64sOn(r.device, v, int64(rows), int64(width))
	})
}

// Prompts are computed in pieces where all at once would take too much memory: activations grow with the tokens of
// a pass, and the mask of a padded piece, or of one that follows others, is piece × prompt.
const (
	prefillTokens = 8192 // of all rows
	prefillPiece  = 512  // of a row
)

// pieceOf is how many tokens of prompts [rows, width] are computed at once.
func pieceOf(rows, width int64, padded bool) int64 {
	if rows*width <= prefillTokens && (!padded || width <= prefillPiece) {
		return width
	}
	return min(prefillPiece, max(prefillTokens/rows, 16))
}

// step computes the next token of every row.
func (r *run) step(s *bindings.Scope, rows []*row, in model.Input, cache *model.Cache) ([]int64, error) {
	in.Cache = cache
	if n := in.IDs.Size(1); cache != nil && n > 1 {
		width := pieceOf(in.IDs.Size(0), n, in.Mask.Defined())
		if width < n || r.begun > 0 {
			in.FullLength = r.fixed + longest(rows)
		}
		var err error
		if in, err = r.prefill(s, in, width, false); err != nil {
			return nil, err
		}
	}
	h := r.m.Forward(s, in).Hidden
	logits := r.m.Logits(s, s.Select(h, 1, h.Size(1)-1))
	if r.o.Temperature == 0 && r.o.penalty() == 1 {
		best, at := s.TopK(s.To(logits, bindings.Float), 1, -1)
		for i, v := range best.Float32s() {
			if v-v != 0 {
				return nil, r.notFinite(rows[i])
			}
		}
		return at.Int64s(), nil
	}
	vocab := int(logits.Size(1))
	scores := logits.Float32s()
	next := make([]int64, len(rows))
	for i, w := range rows {
		id, ok := w.sample.next(scores[i*vocab:(i+1)*vocab], w.ids)
		if !ok {
			return nil, r.notFinite(w)
		}
		next[i] = id
	}
	return next, nil
}

// prefill computes pieces of a width, and gives the last one, which it leaves to the caller unless all are wanted.
func (r *run) prefill(s *bindings.Scope, in model.Input, width int64, all bool) (model.Input, error) {
	n, from := in.IDs.Size(1), int64(0)
	for ; n-from > width || all && from < n; from += width {
		if err := s.Context().Err(); err != nil {
			return in, err
		}
		_ = s.Run(func(s *bindings.Scope) error {
			r.m.Forward(s, piece(s, in, from, min(width, n-from)))
			return nil
		})
	}
	if all {
		return in, nil
	}
	return piece(s, in, from, n-from), nil
}

func piece(s *bindings.Scope, in model.Input, from, length int64) model.Input {
	in.IDs = s.Narrow(in.IDs, 1, from, length)
	if in.Mask.Defined() {
		in.Mask = s.Narrow(in.Mask, 1, from, length)
	}
	return in
}

// longest is the length of the longest row.
func longest(rows []*row) int {
	n := 0
	for _, w := range rows {
		n = max(n, len(w.ids))
	}
	return n
}

func (r *run) notFinite(w *row) error {
	return &PromptError{w.index, fmt.Errorf("at new token %d: the model's scores are not finite", len(w.ids)-w.prompt+1)}
}

// take adds a token to a row, tells of it, and reports whether it was the last.
func (r *run) take(w *row, id int64) (done bool, err error) {
	w.ids = append(w.ids, id)
	n := len(w.ids) - w.prompt
	e := Event{Prompt: w.index, ID: id}
	ended := slices.Contains(r.o.EOS, id)
	stopped := false
	if !ended {
		e.Text, stopped = w.text.push(id)
	}
	switch {
	case ended:
		e.Reason = EOS
	case stopped:
		e.Reason = Stop
	case n == r.o.MaxNew:
		e.Reason = Length
	case len(w.ids)+r.fixed >= r.limit:
		e.Reason = Context
	}
	if done = e.Reason != ""; done {
		rest, stopped := w.text.flush()
		e.Text += rest
		if stopped && e.Reason != EOS {
			e.Reason = Stop
		}
		r.results[w.index] = Result{IDs: w.ids[w.prompt:], Text: w.text.String(), Reason: e.Reason}
	}
	if r.on != nil {
		err = r.on(e)
	}
	return done, err
}
