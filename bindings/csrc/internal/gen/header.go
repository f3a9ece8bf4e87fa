package main

import (
	"fmt"
	"regexp"
	"strings"
)

// function is a C prototype.
type function struct {
	name    string // with its gp_
	result  string
	params  []param
	callsGo bool
}

type param struct{ ctype, name string }

var (
	comments   = regexp.MustCompile(`(?s)//[^\n]*|/\*.*?\*/`)
	directives = regexp.MustCompile(`(?m)^#.*$|^extern "C" \{$|^\}$|^typedef .*$`)
	prototype  = regexp.MustCompile(`^(.*?[ *])(gp_\w+)\((.*)\)$`)
	parameter  = regexp.MustCompile(`^(.*?[ *])(\w+)$`)
)

// parse reads the prototypes of a header that declares nothing else.
func parse(header string) ([]function, error) {
	text := directives.ReplaceAllString(comments.ReplaceAllString(header, ""), "")
	var found []function
	for _, statement := range strings.Split(text, ";") {
		statement = strings.Join(strings.Fields(statement), " ")
		if statement == "" {
			continue
		}
		f, err := parseFunction(statement)
		if err != nil {
			return nil, err
		}
		found = append(found, f)
	}
	return found, nil
}

func parseFunction(statement string) (f function, err error) {
	statement, f.callsGo = strings.CutPrefix(statement, "GP_CALLS_GO ")
	m := prototype.FindStringSubmatch(statement)
	if m == nil {
		return f, fmt.Errorf("not a function of ours: %s", statement)
	}
	f.result, f.name = strings.TrimSpace(m[1]), m[2]
	if m[3] == "void" || m[3] == "" {
		return f, nil
	}
	for _, p := range strings.Split(m[3], ",") {
		m := parameter.FindStringSubmatch(strings.TrimSpace(p))
		if m == nil {
			return f, fmt.Errorf("%s: parameter %q has no name", f.name, p)
		}
		f.params = append(f.params, param{strings.TrimSpace(m[1]), m[2]})
	}
	return f, nil
}
