package chat

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nikolalohinski/gonja/v2/builtins"
	"github.com/nikolalohinski/gonja/v2/config"
	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/loaders"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string // "system", "user", "assistant"
	Content string
}

// Template is a model's chat template. It is safe for concurrent use.
type Template struct {
	mu     sync.Mutex // the budget is one rendering's
	parsed *exec.Template
	budget *budget
	tokens map[string]string
	now    func() time.Time
}

// Tokenizer is what New asks of a tokenizer.
type Tokenizer interface {
	ChatTemplate() string
	BOSID() (int64, bool)
	EOSID() (int64, bool)
	UnkID() (int64, bool)
	PadID() (int64, bool)
	IDToToken(id int64) (string, bool)
}

// ErrNoTemplate is returned by New for a tokenizer without a chat template.
var ErrNoTemplate = errors.New("the model has no chat template: it was not trained on chats; give it plain prompts")

// New makes the template of a tokenizer.
func New(t Tokenizer) (*Template, error) {
	source := t.ChatTemplate()
	if source == "" {
		return nil, ErrNoTemplate
	}
	tokens := map[string]string{}
	for name, id := range map[string]func() (int64, bool){"bos_token": t.BOSID, "eos_token": t.EOSID, "unk_token": t.UnkID, "pad_token": t.PadID} {
		if id, ok := id(); ok {
			if token, ok := t.IDToToken(id); ok {
				tokens[name] = token
			}
		}
	}
	return Parse(source, tokens)
}

// Parse reads a template. tokens are the special tokens it may name, such as "bos_token".
func Parse(source string, tokens map[string]string) (t *Template, err error) {
	defer recovered(&err)
	b := &budget{}
	cfg := config.New()
	cfg.TrimBlocks, cfg.LeftStripBlocks = true, true
	if source, err = prepare(source, cfg); err != nil {
		return nil, fmt.Errorf("chat template: %w", err)
	}
	loader, err := loaders.NewMemoryLoader(map[string]string{"/chat": source})
	if err != nil {
		return nil, fmt.Errorf("chat template: %w", err)
	}
	parsed, err := exec.NewTemplate("/chat", cfg, loader, &exec.Environment{
		Context: exec.NewContext(b.globals()), Filters: b.filters(), Tests: builtins.Tests,
		ControlStructures: b.controlStructures(), Methods: noMethods(),
	})
	if err != nil {
		return nil, fmt.Errorf("chat template: %s", cause(err))
	}
	w := &rewriter{}
	if w.nodes(parsed.Root().Nodes); w.err != nil {
		return nil, fmt.Errorf("chat template: %w", w.err)
	}
	return &Template{parsed: parsed, budget: b, tokens: tokens, now: time.Now}, nil
}

// noMethods takes the library's methods away: the operator opCall has this package's own.
func noMethods() exec.Methods {
	return exec.Methods{
		Bool: exec.NewMethodSet[bool](nil), Int: exec.NewMethodSet[int](nil), Float: exec.NewMethodSet[float64](nil),
		Str: exec.NewMethodSet[string](nil), Dict: exec.NewMethodSet[map[string]any](nil), List: exec.NewMethodSet[[]any](nil),
	}
}

// Render is the text of a conversation; with begin, the beginning of the assistant's next turn follows. An
// error that the template itself raises, say about the order of roles, is passed on.
func (t *Template) Render(messages []Message, begin bool) (text string, err error) {
	defer recovered(&err)
	t.mu.Lock()
	defer t.mu.Unlock()
	turns := make([]any, len(messages))
	for i, m := range messages {
		turns[i] = m.dict()
	}
	data := map[string]any{"messages": turns, "add_generation_prompt": begin, "tools": nil, "documents": nil}
	for name, token := range t.tokens {
		data[name] = token
	}
	t.budget.start(t.now())
	var out strings.Builder
	if err := t.parsed.Execute(&metered{to: &out, budget: t.budget, limit: maxOutput}, exec.NewContext(data)); err != nil {
		if t.budget.raised != "" {
			return "", fmt.Errorf("chat template: %s", t.budget.raised)
		}
		if fault := t.budget.fault; fault != nil && strings.HasSuffix(err.Error(), fault.Error()) {
			err = fault
		}
		return "", fmt.Errorf("chat template: %s", cause(err))
	}
	return out.String(), nil
}

// dict is the message as templates see it; they may ask for its keys in order.
func (m Message) dict() *exec.Dict {
	return &exec.Dict{Pairs: []*exec.Pair{
		{Key: exec.AsValue("role"), Value: exec.AsValue(m.Role)},
		{Key: exec.AsValue("content"), Value: exec.AsValue(m.Content)},
	}}
}

// cause is the innermost message of the library's errors, which quote the template around it.
func cause(err error) string {
	for inner := within(err); inner != nil; inner = within(inner) {
		err = inner
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	const most = 300
	if len(line) > most {
		line = line[:most] + "..."
	}
	return line
}

// within is the error that an error, or a value that is one, holds.
func within(err error) error {
	if v, ok := err.(*exec.Value); ok {
		inner, _ := v.Interface().(error)
		return inner
	}
	return errors.Unwrap(err)
}

// recovered turns a panic of the template library into an error.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("chat template: it is not valid, or uses what is not supported (%v)", r)
	}
}
