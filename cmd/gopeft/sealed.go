package main

import (
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"gopeft/train/infer"
	"gopeft/train/run/provenance"
)

// sealed makes what puts a record into the folder that a command makes of a model and perhaps of an adapter, both as they
// are now.
func sealed(c *cli.Context, model, adapter string) (infer.Seal, error) {
	m, err := provenance.Make(provenance.Record{Program: provenance.ThisProgram(version(), buildID()), Settings: settingsOf(c), Model: model, Adapter: adapter})
	if err != nil {
		return nil, err
	}
	return func(dir string) error { return m.Write(c.Context, dir) }, nil
}

// settingsOf are the command and its flags as they were given, but for those of how it talks and where it writes.
func settingsOf(c *cli.Context) map[string]any {
	settings := map[string]any{"command": c.Command.Name}
	for _, name := range c.LocalFlagNames() {
		if slices.Contains([]string{"out", "overwrite", "quiet", "json", "debug"}, name) {
			continue
		}
		settings[name] = fmt.Sprint(c.Value(name))
		if list, ok := c.Value(name).(cli.StringSlice); ok {
			settings[name] = list.Value()
		}
	}
	return settings
}
