package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"slices"

	"github.com/urfave/cli/v2"

	"gopeft/model"
	"gopeft/model/tokenizer"
	"gopeft/train"
	"gopeft/train/data"
)

func tokenizeCommand() *cli.Command {
	return &cli.Command{
		Name: "tokenize", Usage: "show texts as the model sees them: one JSON object per row with ids, tokens and offsets",
		Flags: slices.Concat(inGroup(groupModel,
			&cli.StringFlag{Name: "model", Usage: "model folder, or the folder of a run"},
		), dataFlags(), lengthFlag(), inGroup(groupData,
			&cli.BoolFlag{Name: "no-special", Usage: "leave out special tokens"},
		), uiFlags()),
		Action: tokenize,
	}
}

func tokenize(c *cli.Context) error {
	if c.String("model") == "" {
		return &train.UsageError{Err: errNoModel}
	}
	src, err := resolve(c)
	if err != nil {
		return err
	}
	tok, err := tokenizer.Load(src.Model)
	if err != nil {
		return err
	}
	length := c.Int("max-length")
	if length == 0 {
		length = src.MaxLength // as in training
	}
	if facts, err := model.ReadFacts(src.Model); err == nil && (length == 0 || length > facts.Room) { // a folder may hold a tokenizer alone
		length = facts.Room
	}
	rows, err := openExamples(c, src.Run, data.OneLabel, nil)
	if err != nil {
		return err
	}
	defer rows.Close()
	out := bufio.NewWriter(c.App.Writer)
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	for c.Context.Err() == nil {
		example, err := rows.Next()
		if errors.Is(err, io.EOF) {
			saySkipped(newUI(c), rows)
			return out.Flush()
		}
		if err != nil {
			return errors.Join(out.Flush(), err)
		}
		row := map[string]any{}
		ids := example.IDs
		if ids == nil {
			enc, err := tok.Encode(example.Text, tokenizer.Options{AddSpecial: !c.Bool("no-special"), MaxLength: length})
			if err != nil {
				return errors.Join(out.Flush(), err)
			}
			ids, row["offsets"] = enc.IDs, enc.Offsets
		} else if length > 0 && len(ids) > length {
			ids = ids[:length]
		}
		tokens := make([]string, len(ids))
		for i, id := range ids {
			tokens[i], _ = tok.IDToToken(id)
		}
		row["ids"], row["tokens"] = ids, tokens
		if err := e.Encode(row); err != nil {
			return err
		}
	}
	return errors.Join(out.Flush(), c.Context.Err())
}
