package main

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"gopkg.in/yaml.v3"

	"gopeft/model/fsutil"
	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/launch"
	"gopeft/train/run"
)

// configFlags makes a flag of every setting of a run, but for those left out.
func configFlags(leaveOut ...string) []cli.Flag {
	defaults := run.Defaults()
	return append([]cli.Flag{configFlag()}, settingFlags(reflect.ValueOf(&defaults).Elem(), leaveOut...)...)
}

func configFlag() cli.Flag {
	return &cli.StringFlag{Name: "config", Usage: "read settings from a YAML file; flags win over it"}
}

// flagsFromFile sets flags from --config's file, whose keys are the flags' names. A flag that was given stays as it is.
func flagsFromFile(c *cli.Context) error {
	path := c.String("config")
	if path == "" {
		return nil
	}
	wrong := func(format string, args ...any) error {
		return &train.UsageError{Err: fmt.Errorf("%s: "+format, append([]any{path}, args...)...)}
	}
	raw, err := awaitSettings(c, func() ([]byte, error) { return fsutil.ReadSettings(path, fsutil.MaxSettings) })
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return wrong("%w", err)
	}
	if len(doc.Content) == 0 { // an empty file
		return nil
	}
	if doc.Content[0].Kind != yaml.MappingNode {
		return wrong("want lines of the form `flag: value`")
	}
	flags := map[string]cli.Flag{}
	for _, f := range c.Command.Flags {
		for _, name := range f.Names() {
			flags[name] = f
		}
	}
	w, err := launch.FromEnv(os.Getenv)
	launched := err == nil && w.Source == launch.SourceLaunch // as --nproc, left out of this process's arguments, has asked
	pairs := doc.Content[0].Content
	for i := 0; i+1 < len(pairs); i += 2 {
		key, value := pairs[i], pairs[i+1]
		flag, ok := flags[key.Value]
		if !ok || key.Value == "config" {
			return wrong("line %d: %w", key.Line, noSetting(c.Command, key.Value))
		}
		if c.IsSet(key.Value) || key.Value == "nproc" && launched {
			continue
		}
		nodes := []*yaml.Node{value}
		if value.Kind == yaml.SequenceNode {
			nodes = value.Content
		}
		var values []string
		for _, v := range nodes {
			if v.Kind != yaml.ScalarNode || v.Tag == "!!null" {
				return wrong("line %d: %s wants a value, or a list of them", v.Line, key.Value)
			}
			values = append(values, v.Value)
		}
		_, generic := flag.(*cli.GenericFlag) // of a setting: other commands' --data is one file
		if _, many := flag.(*cli.StringSliceFlag); !many && !(generic && data.IsFiles(key.Value)) {
			values = []string{strings.Join(values, ",")}
		}
		for _, v := range values {
			if err := c.Set(key.Value, v); err != nil {
				return wrong("line %d: %s is %q: %w", key.Line, key.Value, v, err)
			}
		}
	}
	return nil
}

// awaitSettings reads --config's file, for as long as nothing ends the command.
func awaitSettings[T any](c *cli.Context, read func() (T, error)) (settings T, err error) {
	var found T
	err = fsutil.Await(c.Context, func() (err error) {
		found, err = read()
		return err
	})
	if c.Context.Err() != nil {
		return settings, c.Context.Err() // found may still be written
	}
	if err != nil {
		return settings, &train.UsageError{Err: err}
	}
	return found, nil
}

// noSetting is the error of a key in --config's file that is none of a command's flags.
func noSetting(c *cli.Command, key string) error {
	if nearest := run.Nearest(key, flagNames(c)); nearest != "" {
		return fmt.Errorf("%s has no setting %q; did you mean %q?", c.Name, key, nearest)
	}
	return fmt.Errorf("%s has no setting %q; `gopeft %s --help` lists them", c.Name, key, c.Name)
}

// settingFlags makes a flag of every setting of an addressable struct such as run.Config.
func settingFlags(defaults reflect.Value, leaveOut ...string) []cli.Flag {
	var flags []cli.Flag
	run.Fields(defaults, func(group, key, usage string, v reflect.Value) {
		if !slices.Contains(leaveOut, key) {
			flag := flagOf(key, usage, v)
			if group == "-" {
				reflect.ValueOf(flag).Elem().FieldByName("Hidden").SetBool(true)
			}
			flags = append(flags, inGroup(group, flag)...)
		}
	})
	return flags
}

// chosenFlags makes a flag of some settings of a run.
func chosenFlags(keys ...string) []cli.Flag {
	defaults := run.Defaults()
	var leaveOut []string
	run.Fields(reflect.ValueOf(&defaults).Elem(), func(_, key, _ string, _ reflect.Value) {
		if !slices.Contains(keys, key) {
			leaveOut = append(leaveOut, key)
		}
	})
	return settingFlags(reflect.ValueOf(&defaults).Elem(), leaveOut...)
}

func flagOf(key, usage string, v reflect.Value) cli.Flag {
	text := fmt.Sprint(v.Interface())
	switch v.Kind() {
	case reflect.String:
		if data.IsFiles(key) {
			return &cli.GenericFlag{Name: key, Usage: usage, Value: new(filesValue)}
		}
		return &cli.StringFlag{Name: key, Usage: usage, Value: v.String()}
	case reflect.Bool:
		return &cli.BoolFlag{Name: key, Usage: usage, Value: v.Bool()}
	case reflect.Int:
		return &cli.IntFlag{Name: key, Usage: usage, Value: int(v.Int())}
	case reflect.Uint64:
		return &cli.Uint64Flag{Name: key, Usage: usage, Value: v.Uint()}
	case reflect.Float64:
		return &cli.Float64Flag{Name: key, Usage: usage, Value: v.Float()}
	case reflect.Slice:
		return &cli.StringFlag{Name: key, Usage: usage + " (comma-separated)", DefaultText: strings.Trim(strings.ReplaceAll(text, " ", ","), "[]")}
	}
	panic("gopeft: setting " + key + " has a kind without a flag")
}

// filesValue is a flag that names files and may be given several times.
type filesValue string

// Set implements flag.Value.
func (l *filesValue) Set(value string) error {
	if *l != "" {
		value = string(*l) + "\n" + value
	}
	*l = filesValue(value)
	return nil
}

// String implements flag.Value.
func (l *filesValue) String() string { return string(*l) }

// readConfig returns the settings of a run: the defaults, changed by --config's file, changed by the flags given.
func readConfig(c *cli.Context) (run.Config, error) {
	cfg := run.Defaults()
	if path := c.String("config"); path != "" {
		read, err := awaitSettings(c, func() (run.Config, error) { return run.ReadConfig(path, cfg) })
		if err != nil {
			return cfg, err
		}
		cfg = read
	}
	return flagsOver(c, cfg)
}

// flagsOver returns cfg with the flags that were given.
func flagsOver(c *cli.Context, cfg run.Config) (run.Config, error) {
	err := setFromFlags(c, reflect.ValueOf(&cfg).Elem())
	return cfg, err
}

// setFromFlags sets the fields of an addressable struct of settings from the flags that were given.
func setFromFlags(c *cli.Context, settings reflect.Value) error {
	var failed error
	run.Fields(settings, func(_, key, _ string, v reflect.Value) {
		if !c.IsSet(key) || failed != nil {
			return
		}
		if slices.Contains(nonzero[:], key) && (v.Kind() == reflect.Int && c.Int(key) == 0 || v.Kind() == reflect.Float64 && c.Float64(key) == 0) {
			failed = train.Usage("--%s is 0, want a positive number; leave it out for the default", key)
			return
		}
		switch v.Kind() {
		case reflect.String:
			v.SetString(c.String(key))
		case reflect.Bool:
			v.SetBool(c.Bool(key))
		case reflect.Int:
			v.SetInt(int64(c.Int(key)))
		case reflect.Uint64:
			v.SetUint(c.Uint64(key))
		case reflect.Float64:
			v.SetFloat(c.Float64(key))
		case reflect.Slice:
			failed = setSlice(v, c.String(key), key)
		}
	})
	return failed
}

// nonzero are the settings of which 0 stands for a default in files, and is a mistake as a flag.
var nonzero = [...]string{"lr", "rank", "alpha", "bottleneck", "reduction-factor", "virtual-tokens", "prefix-hidden", "adapter-layers", "adapter-length", "butterflies"}

// setSlice reads a comma-separated list.
func setSlice(v reflect.Value, text, key string) error {
	out := reflect.MakeSlice(v.Type(), 0, 4)
	for _, part := range strings.Split(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		if v.Type().Elem().Kind() == reflect.String {
			out = reflect.Append(out, reflect.ValueOf(part))
			continue
		}
		e := reflect.New(v.Type().Elem()).Elem()
		if _, err := fmt.Sscan(part, e.Addr().Interface()); err != nil {
			return &train.UsageError{Err: fmt.Errorf("--%s %q: %q is not a number", key, text, part)}
		}
		out = reflect.Append(out, e)
	}
	v.Set(out)
	return nil
}

// outFlags are shared by the commands that write a run folder.
func outFlags() []cli.Flag {
	return inGroup(groupOutput,
		&cli.BoolFlag{Name: "overwrite", Usage: "replace what --out holds"},
		&cli.GenericFlag{Name: "resume", Value: &resumeValue{}, Usage: "go on from the last checkpoint in --out; --resume=auto begins where there is none"},
	)
}

// uiFlags are shared by every command that takes a while.
func uiFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "quiet", Usage: "say nothing but errors and the result"},
		&cli.BoolFlag{Name: "json", Usage: "print the result as one JSON object"},
		&cli.BoolFlag{Name: "debug", Usage: "show the stack of a failure"},
	}
}
