package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"gopeft/model/hub"
	"gopeft/train"
)

func pullCommand() *cli.Command {
	return &cli.Command{
		Name: "pull", Usage: "fetch a model or data set from the HuggingFace hub into its usual cache, and print the folder", ArgsUsage: "ID",
		Flags: slices.Concat(inGroup("what to fetch",
			&cli.StringFlag{Name: "kind", Value: string(hub.Model), Usage: "model or dataset"},
			&cli.StringFlag{Name: "revision", Value: "main", Usage: "branch, tag or commit"},
			&cli.StringSliceFlag{Name: "include", Usage: "fetch the files of this name, e.g. '*.gguf'; may be given more than once", DefaultText: "of a model what gopeft reads, of a data set all"},
			&cli.BoolFlag{Name: "all", Usage: "fetch every file"},
		), uiFlags()),
		Action: pull,
	}
}

func pull(c *cli.Context) error {
	if c.Args().Len() != 1 {
		return &train.UsageError{Err: errors.New("pull takes one name: gopeft pull org/name")}
	}
	repo := hub.Repo{Kind: hub.Kind(c.String("kind")), ID: c.Args().First(), Revision: c.String("revision")}
	choose := hub.ModelFiles
	switch globs := c.StringSlice("include"); {
	case repo.Kind != hub.Model && repo.Kind != hub.Dataset:
		return &train.UsageError{Err: fmt.Errorf("--kind %q is not known (model, dataset)", repo.Kind)}
	case !hub.ValidID(repo.ID):
		return &train.UsageError{Err: fmt.Errorf("%q is not a name on the hub: want org/name", repo.ID)}
	case len(globs) > 0 && c.Bool("all"):
		return &train.UsageError{Err: errors.New("--include and --all exclude each other")}
	case len(globs) > 0:
		for _, g := range globs {
			if _, err := path.Match(g, ""); err != nil {
				return &train.UsageError{Err: fmt.Errorf("--include %q is no pattern", g)}
			}
		}
		choose = hub.Matching(globs)
	case c.Bool("all") || repo.Kind == hub.Dataset:
		choose = hub.AllFiles
	}
	client, err := hub.FromEnv(os.Getenv)
	if err != nil {
		return err
	}
	folder, err := hub.Fetch(c.Context, client, repo, choose, newUI(c))
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, map[string]string{"kind": string(repo.Kind), "id": repo.ID, "revision": repo.Revision, "folder": folder})
	}
	_, err = fmt.Fprintln(c.App.Writer, folder)
	return err
}

// nameLast moves the name in `gopeft pull NAME --flag` (or verify) behind the flags, because the flag parser stops at the first
// argument that is no flag.
func nameLast(args []string) []string {
	if len(args) > 3 && (args[1] == "pull" || args[1] == "verify") && !strings.HasPrefix(args[2], "-") {
		return slices.Concat(args[:2], args[3:], args[2:3])
	}
	return args
}
