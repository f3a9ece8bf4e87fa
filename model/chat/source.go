package chat

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nikolalohinski/gonja/v2/config"
	"github.com/nikolalohinski/gonja/v2/tokens"
)

// prepare refuses what could not be bounded while a template runs, and writes what the library reads otherwise
// than Jinja in a way that both read alike.
func prepare(source string, cfg *config.Config) (string, error) {
	if len(source) > maxSource {
		return "", fmt.Errorf("%d bytes, more than %d", len(source), maxSource)
	}
	source = strings.ReplaceAll(strings.ReplaceAll(source, "\r\n", "\n"), "\r", "\n") // as Jinja reads it
	list, err := lex(source, cfg)
	if err != nil {
		return "", err
	}
	source = edited(source, spaces(source, list))
	if list, err = lex(source, cfg); err != nil {
		return "", err
	}
	return edited(source, memberships(list)), nil
}

func lex(source string, cfg *config.Config) ([]*tokens.Token, error) {
	var list []*tokens.Token
	depth := 0
	for stream := tokens.LexAll(source, cfg); !stream.End(); stream.Next() {
		token := stream.Current()
		list = append(list, token)
		switch {
		case token.Type == tokens.Multiply || token.Type == tokens.Power:
			return nil, fmt.Errorf("line %d: multiplication is not supported", token.Line)
		case opens(token):
			if depth++; depth > maxNesting {
				return nil, fmt.Errorf("line %d: brackets are nested more than %d deep", token.Line, maxNesting)
			}
		case closes(token):
			depth--
		}
	}
	return list, nil
}

func opens(t *tokens.Token) bool {
	return t.Type == tokens.LeftParenthesis || t.Type == tokens.LeftBracket || t.Type == tokens.LeftBrace
}

func closes(t *tokens.Token) bool {
	return t.Type == tokens.RightParenthesis || t.Type == tokens.RightBracket || t.Type == tokens.RightBrace
}

// edit puts a text in place of some bytes of a source.
type edit struct {
	at, cut int
	text    string
}

func edited(source string, edits []edit) string {
	slices.SortStableFunc(edits, func(a, b edit) int { return a.at - b.at })
	var out strings.Builder
	done := 0
	for _, e := range edits {
		out.WriteString(source[done:e.at])
		out.WriteString(e.text)
		done = e.at + e.cut
	}
	out.WriteString(source[done:])
	return out.String()
}

// spaces puts spaces where lines break within a tag, and behind keywords: the library takes a line break for a
// part of what follows it, and a keyword for a name unless a space follows. It also keeps spaces before a tag
// that begins no line, which the library takes for indentation.
func spaces(source string, list []*tokens.Token) []edit {
	var edits []edit
	done := 0
	for i, t := range list {
		if t.Type == tokens.Data {
			continue
		}
		at := t.Pos
		for ; at < len(source) && source[at] == '\n'; at++ {
			if at >= done {
				edits = append(edits, edit{at, 1, " "})
				done = at + 1
			}
		}
		switch {
		case bareKeyword(list, i):
			edits = append(edits, edit{at + len(strings.TrimLeft(t.Val, "\n")), 0, " "})
		case (t.Val == "{%" || t.Val == "{#") && spaced(source[:at]):
			edits = append(edits, edit{at + len(t.Val), 0, "+"})
		}
	}
	return edits
}

// bareKeyword is whether list[i] is a keyword that the library takes for a name.
func bareKeyword(list []*tokens.Token, i int) bool {
	attribute := i > 0 && list[i-1].Type == tokens.Dot
	parameter := i+1 < len(list) && list[i+1].Type == tokens.Assign
	word := strings.TrimLeft(list[i].Val, "\n")
	return list[i].Type == tokens.Name && !attribute && !parameter && slices.Contains([]string{"and", "or", "not", "in", "is"}, word)
}

// spaced is whether a text ends with white space that begins no line.
func spaced(text string) bool {
	before := strings.TrimRight(text, " \t")
	return before != text && before != "" && !strings.HasSuffix(before, "\n")
}

// memberships puts the right side of x in y | filter, or of x in y + z, in brackets: the library ends it before
// the filter or operator.
func memberships(list []*tokens.Token) []edit {
	var edits []edit
	for i, t := range list {
		if t.Type != tokens.In || ofLoop(list, i) || ofTest(list, i) {
			continue
		}
		if end, compound := operand(list, i+1); compound {
			edits = append(edits, edit{list[i+1].Pos, 0, "("}, edit{list[end].Pos, 0, ")"})
		}
	}
	return edits
}

// ofLoop is whether list[i] stands in "for x in" or "for x, y in".
func ofLoop(list []*tokens.Token, i int) bool {
	begins := func(at int) bool {
		return at > 0 && list[at].Val == "for" && list[at-1].Type == tokens.BlockBegin
	}
	return begins(i-2) || i > 1 && list[i-2].Type == tokens.Comma && begins(i-4)
}

// ofTest is whether list[i] stands in "is in" or "is not in".
func ofTest(list []*tokens.Token, i int) bool {
	if i > 0 && list[i-1].Type == tokens.Not {
		i--
	}
	return i > 0 && list[i-1].Type == tokens.Is
}

// operand finds the token behind the operand of "in" that begins with list[i], and whether it has filters or
// operators.
func operand(list []*tokens.Token, i int) (end int, compound bool) {
	ends := []tokens.Type{tokens.And, tokens.Or, tokens.Not, tokens.In, tokens.Is, tokens.Comma, tokens.Colon, tokens.Assign,
		tokens.Equals, tokens.Ne, tokens.LowerThan, tokens.LowerThanOrEqual, tokens.GreaterThan, tokens.GreaterThanOrEqual,
		tokens.VariableEnd, tokens.BlockEnd}
	operators := []tokens.Type{tokens.Pipe, tokens.Addition, tokens.Subtraction, tokens.Tilde, tokens.Division, tokens.FloorDivision, tokens.Modulo}
	depth := 0
	for ; i < len(list); i++ {
		switch t := list[i]; {
		case opens(t):
			depth++
		case closes(t):
			if depth--; depth < 0 {
				return i, compound
			}
		case depth > 0:
		case slices.Contains(ends, t.Type) || t.Type == tokens.Name && slices.Contains([]string{"if", "else", "recursive"}, t.Val):
			return i, compound
		case slices.Contains(operators, t.Type):
			compound = true
		}
	}
	return i, false
}
