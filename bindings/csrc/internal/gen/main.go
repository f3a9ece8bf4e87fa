// Command gen writes the Go side of csrc's C functions: for every prototype in the headers a Go function that
// converts its arguments. `go generate` runs it in package csrc's folder.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
)

func main() {
	out := flag.String("o", "calls.go", "file to write")
	flag.Parse()
	if err := run(*out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(out string, headers []string) error {
	if len(headers) == 0 {
		return errors.New("no headers are named")
	}
	var functions []function
	for _, h := range headers {
		text, err := os.ReadFile(h)
		if err != nil {
			return err
		}
		found, err := parse(string(text))
		if err != nil {
			return fmt.Errorf("%s: %w", h, err)
		}
		functions = append(functions, found...)
	}
	code, err := source(headers, functions)
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(headers, ", "), err)
	}
	return os.WriteFile(out, code, 0o644)
}
