package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"gopeft/train"
	"gopeft/train/run"
)

// usageError rewrites what the flag parser says of a command's flags as one clear line. The parser's errors differ in their
// texts alone.
func usageError(c *cli.Command, err error) error {
	text := err.Error()
	name, unknown := strings.CutPrefix(text, "flag provided but not defined: -")
	if unknown {
		return &train.UsageError{Err: noFlag(c, strings.TrimLeft(name, "-"))}
	}
	if name, ok := strings.CutPrefix(text, "flag needs an argument: -"); ok {
		return train.Usage("--%s needs a value", strings.TrimLeft(name, "-"))
	}
	return &train.UsageError{Err: errors.New(strings.NewReplacer(" for flag -", " for --", " for -", " for --",
		"boolean value", "value", ": parse error", ": want "+wanted(text)).Replace(text))}
}

// wanted says which values a flag takes, by the parser's complaint about one that it does not.
func wanted(text string) string {
	if strings.HasPrefix(text, "invalid boolean value") {
		return "true or false"
	}
	return "a number"
}

// noFlag is the error of a flag that a command does not have.
func noFlag(c *cli.Command, name string) error {
	dashed := "--" + name
	if len(name) == 1 {
		dashed = "-" + name
	}
	if len(c.Subcommands) > 0 { // the program itself
		return fmt.Errorf("there is no flag %s before the command; `gopeft COMMAND --help` lists those of a command", dashed)
	}
	if nearest := run.Nearest(name, flagNames(c)); nearest != "" {
		return fmt.Errorf("there is no flag %s; did you mean --%s?", dashed, nearest)
	}
	return fmt.Errorf("there is no flag %s; `gopeft %s --help` lists them", dashed, c.Name)
}

// noCommand is the error of a command that there is not.
func noCommand(name string) error {
	var known []string
	for _, c := range commands() {
		known = append(known, c.Name)
	}
	if nearest := run.Nearest(name, known); nearest != "" {
		return train.Usage("%q is not a command; did you mean `gopeft %s`?", name, nearest)
	}
	return train.Usage("%q is not a command; `gopeft --help` lists them", name)
}

// flagNames are the names of a command's flags that help shows.
func flagNames(c *cli.Command) []string {
	var names []string
	for _, f := range c.VisibleFlags() {
		names = append(names, f.Names()[0])
	}
	return names
}
