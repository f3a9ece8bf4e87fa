package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"gopeft/peft"
)

// Groups of flags. Help shows each under a heading. The settings of a run name theirs in their struct tags.
const (
	groupModel    = "model"
	groupMeasure  = "measurement"
	groupData     = "data"
	groupPrompts  = "prompts"
	groupDecoding = "decoding"
	groupMachine  = "machine"
	groupTraining = "training"
	groupCheck    = "check of what is written"
	groupOutput   = "output"
	groupMethods  = "methods" // of settings that are no single method's
	groupGeneral  = "general" // of flags without a group

	groupProcesses = "processes"
	groupMachines  = "several machines"
)

// groupOrder is the order in which help shows groups. Groups that are not listed follow in the order of their flags, and
// the general group comes last.
var groupOrder = [...]string{groupModel, groupMeasure, groupData, groupPrompts, groupDecoding, groupMachine, groupTraining, groupCheck, groupOutput}

// inGroup puts flags into a group.
func inGroup(group string, flags ...cli.Flag) []cli.Flag {
	for _, f := range flags {
		reflect.ValueOf(f).Elem().FieldByName("Category").SetString(group)
	}
	return flags
}

// helpText is what `gopeft COMMAND --help` prints. The cli library's own text sorts groups and flags by the alphabet, and
// prints defaults of 0.
func helpText(c *cli.Command) string {
	flags := map[string][]cli.Flag{}
	groups := slices.Clone(groupOrder[:])
	widest := 0
	for _, f := range c.Flags {
		shown, ok := f.(cli.CategorizableFlag)
		if !ok || !shown.IsVisible() {
			continue
		}
		group := shown.GetCategory()
		if group == "" {
			group = groupGeneral
		}
		flags[group] = append(flags[group], f)
		if group != groupGeneral && !slices.Contains(groups, group) {
			groups = append(groups, group)
		}
		widest = max(widest, utf8.RuneCountInString(synopsis(f)))
	}
	flags[groupGeneral] = append(flags[groupGeneral], &cli.BoolFlag{Name: "help", Usage: "show this"})
	var b strings.Builder
	fmt.Fprintf(&b, "NAME:\n   gopeft %s - %s\n\nUSAGE:\n   gopeft %s [options] %s", c.Name, c.Usage, c.Name, c.ArgsUsage)
	text := strings.TrimSpace(b.String())
	b.Reset()
	b.WriteString(text + "\n\nOPTIONS:\n")
	for _, group := range append(groups, groupGeneral) {
		if len(flags[group]) == 0 {
			continue
		}
		fmt.Fprintf(&b, "   %s:\n", heading(group))
		for _, f := range flags[group] {
			for i, line := range wrapped(strings.TrimPrefix(describe(f), "of "+group+": "), helpWidth-widest-7) {
				name := ""
				if i == 0 {
					name = synopsis(f)
				}
				fmt.Fprintf(&b, "     %-*s  %s\n", widest, name, line)
			}
		}
		b.WriteByte('\n')
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// helpWidth is how long a line of help may be.
const helpWidth = 120

// heading is a group's name with a capital letter; one that is made of methods' names is left as it is.
func heading(group string) string {
	if first, _, _ := strings.Cut(group, " "); slices.Contains(peft.Methods(), first) {
		return group
	}
	return strings.ToUpper(group[:1]) + group[1:]
}

// synopsis is how a flag is given.
func synopsis(f cli.Flag) string {
	if takes, ok := f.(cli.DocGenerationFlag); ok && takes.TakesValue() && !standsAlone(f) {
		return "--" + f.Names()[0] + " value"
	}
	return "--" + f.Names()[0]
}

// describe is what a flag does, with its default. Defaults of 0 or below are left out: they mean "not set", and where
// another value is used instead, the usage text names it.
func describe(f cli.Flag) string {
	doc, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	text, value := doc.GetUsage(), strings.Trim(doc.GetDefaultText(), `"`)
	if value == "" || value == "0" || value == "false" || strings.HasPrefix(value, "-") {
		return text
	}
	return text + " (default: " + value + ")"
}

// wrapped breaks a text into lines of a width, at spaces.
func wrapped(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	return append(lines, line)
}
