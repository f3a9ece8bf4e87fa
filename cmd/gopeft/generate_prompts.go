package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/data/rows"
)

// unescape reads \n, \t and \\ as templates do.
func unescape(texts []string) []string {
	var out []string
	for _, text := range texts {
		out = append(out, strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\t`, "\t").Replace(text))
	}
	return out
}

// openPrompts reads --prompts, or --prompt as a file of one row.
func openPrompts(c *cli.Context) (*data.CausalReader, error) {
	o := data.CausalOptions{PromptOnly: true, Read: rows.Options{Format: rows.Format(c.String("format")), Context: c.Context},
		TextColumn: c.String("text-column"), Limit: c.Int("limit"), Extra: []string{"adapter"}}
	column := "text"
	switch template := c.String("template"); template {
	case "":
		if o.TextColumn != "" {
			o.Style, column = data.PlainStyle, o.TextColumn
		}
	case "alpaca":
		o.Style, column = data.AlpacaStyle, "instruction"
	default:
		o.Template = template
		prompt, _, err := data.SplitTemplate(template)
		if err != nil {
			return nil, &train.UsageError{Err: fmt.Errorf("--template: %w", err)}
		}
		if names := prompt.Columns(); c.IsSet("prompt") && len(names) != 1 {
			return nil, &train.UsageError{Err: fmt.Errorf("--template has %d columns before the answer, --prompt fills one: use --prompts", len(names))}
		} else if len(names) > 0 {
			column = names[0]
		}
	}
	if path := c.String("prompts"); path == "-" {
		in, err := rows.New(io.NopCloser(c.App.Reader), "standard input", o.Read)
		if err != nil {
			return nil, err
		}
		return data.NewCausalReader(in, "standard input", o)
	} else if path != "" {
		return data.OpenCausal(path, o)
	}
	if c.String("prompt") == "" {
		return nil, &train.UsageError{Err: errors.New("--prompt is empty; a begin token such as '<s>' starts from nothing")}
	}
	row, err := json.Marshal(map[string]string{column: c.String("prompt")})
	if err != nil {
		return nil, err
	}
	o.Read.Format = rows.JSONL
	in, err := rows.New(io.NopCloser(bytes.NewReader(row)), "--prompt", o.Read)
	if err != nil {
		return nil, err
	}
	if o.Style == "" && o.Template == "" {
		o.Style = data.PlainStyle
	}
	return data.NewCausalReader(in, "--prompt", o)
}

// chatOf makes a chat of a prompt, or puts the system message before a row's chat.
func chatOf(c *cli.Context, x data.CausalExample) data.CausalExample {
	if !c.Bool("chat") || x.IDs != nil {
		return x
	}
	messages := x.Messages
	if messages == nil {
		messages = []data.Message{{Role: "user", Content: x.Prompt}}
	}
	if system := c.String("system"); system != "" && messages[0].Role != "system" {
		messages = append([]data.Message{{Role: "system", Content: system}}, messages...)
	}
	x.Messages = messages
	return x
}
