package chat

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nikolalohinski/gonja/v2/config"
	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/tokens"
)

// fromEnd is the function that a negative index is written as.
const fromEnd = "_from_end"

// maxIndices bounds the negative indices of a template.
const maxIndices = 200

// prepare refuses what could not be bounded while a template runs, and writes x[-n] as a call of fromEnd: the
// library's own negative index misses the first element and cuts characters apart.
func prepare(source string, cfg *config.Config) (string, error) {
	if len(source) > maxSource {
		return "", fmt.Errorf("%d bytes, more than %d", len(source), maxSource)
	}
	source = strings.ReplaceAll(source, "\r\n", "\n") // as Jinja reads it
	for range maxIndices {
		list, err := lex(source, cfg)
		if err != nil {
			return "", err
		}
		next, found := rewriteIndex(source, list)
		if !found {
			return source, nil
		}
		source = next
	}
	return "", fmt.Errorf("more than %d negative indices", maxIndices)
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

// rewriteIndex rewrites the first x[-n].
func rewriteIndex(source string, list []*tokens.Token) (string, bool) {
	for i := 1; i+3 < len(list); i++ {
		if list[i].Type != tokens.LeftBracket || list[i+1].Type != tokens.Subtraction || list[i+2].Type != tokens.Integer || list[i+3].Type != tokens.RightBracket {
			continue
		}
		first, ok := operand(list, i-1)
		if n, err := strconv.Atoi(list[i+2].Val); !ok || err != nil || n == 0 {
			continue
		}
		from, bracket, to := list[first].Pos, list[i].Pos, list[i+3].Pos+1
		if from > bracket || to > len(source) {
			continue
		}
		return fmt.Sprintf("%s%s(%s, %s)%s", source[:from], fromEnd, source[from:bracket], list[i+2].Val, source[to:]), true
	}
	return source, false
}

// operand finds the first token of the operand that ends with list[i]: names, attributes, calls and indices.
// It fails where a bracket behind list[i] would begin a list instead.
func operand(list []*tokens.Token, i int) (first int, ok bool) {
	for ; i >= 0; i-- {
		switch t := list[i]; {
		case closes(t):
			for depth := 0; i >= 0; i-- {
				if closes(list[i]) {
					depth++
				} else if opens(list[i]) {
					depth--
				}
				if depth == 0 {
					break
				}
			}
			if i < 0 {
				return 0, false
			}
			if i > 0 && (closes(list[i-1]) || isOperandName(list[i-1]) || list[i-1].Type == tokens.String) && list[i].Type != tokens.LeftBrace {
				continue // the arguments or index of what stands before
			}
		case isOperandName(t), t.Type == tokens.String:
		default:
			return 0, false
		}
		if i == 0 || list[i-1].Type != tokens.Dot {
			return i, true
		}
		i-- // an attribute of what stands before the dot
	}
	return 0, false
}

func isOperandName(t *tokens.Token) bool {
	keywords := []string{"if", "else", "elif", "and", "or", "not", "in", "is", "for", "set", "do", "recursive"}
	return t.Type == tokens.Name && !slices.Contains(keywords, t.Val)
}

// itemFromEnd is the n-th element or character from the end, undefined where there are fewer.
func itemFromEnd(_ *exec.Evaluator, args *exec.VarArgs) (*exec.Value, error) {
	if len(args.Args) != 2 || !args.Args[1].IsInteger() {
		return nil, errors.New("an index from the end takes a number")
	}
	list, n := args.Args[0], args.Args[1].Integer()
	if list.IsNil() {
		return nil, errors.New("a None has no elements")
	}
	if !list.CanSlice() || n < 1 || n > list.Len() {
		return exec.AsValue(nil), nil
	}
	return list.Index(list.Len() - n), nil
}
