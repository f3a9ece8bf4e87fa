package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// target is a kind of input, and the commands that read it.
type target struct {
	needs    string // inputs that a case brings, by name
	damage   string // patterns of the files of which one is damaged
	commands []string
	open     bool // what is damaged may ask for endless work, which ends when it is told to
}

const quick = " --quiet --threads 1"

func targets() []target {
	classify := []string{"predict --model encoder --data rows.csv" + quick, "eval --model encoder --data rows.csv" + quick, "inspect --model encoder --load --quiet", "verify encoder --quiet",
		"embed --model encoder --data rows.csv --out e.npy" + quick, "train --model encoder --data rows.csv --method lora --max-steps 1 --out run" + quick,
		"train --model encoder --data rows.csv --method features --out run" + quick, "merge --model encoder --adapter adapter --out merged" + quick}
	write := []string{"generate --model decoder --prompt the --max-new-tokens 4" + quick, "generate --model decoder --prompt q --chat --max-new-tokens 4" + quick, "inspect --model decoder --quiet",
		"eval --model decoder --data alpaca.jsonl --template {instruction}->{output}" + quick, "train --task causal --model decoder --data alpaca.jsonl --template {instruction}->{output} --method prefix --max-steps 1 --out run" + quick}
	data := func(file string) target {
		return target{needs: "encoder " + file, damage: file, commands: []string{"prepare --data " + file + " --out parts --quiet", "predict --model encoder --data " + file + quick,
			"tokenize --model encoder --data " + file + " --quiet", "train --model encoder --method bitfit --max-steps 2 --out run --data " + file + quick, "eval --model encoder --data " + file + quick}}
	}
	return []target{
		{needs: "encoder adapter rows.csv", damage: "encoder/config.json", commands: classify},
		{needs: "encoder adapter rows.csv", damage: "encoder/model.safetensors", commands: classify},
		{needs: "encoder adapter rows.csv", damage: "encoder/tokenizer.json encoder/tokenizer_config.json", commands: append(slices.Clone(classify), "tokenize --model encoder --data rows.csv --quiet")},
		{needs: "encoder-bin", damage: "encoder-bin/pytorch_model.bin", commands: []string{"inspect --model encoder-bin --load --quiet", "verify encoder-bin --quiet"}},
		{needs: "encoder-sharded", damage: "encoder-sharded/*", commands: []string{"inspect --model encoder-sharded --load --quiet", "verify encoder-sharded --quiet"}},
		{needs: "decoder alpaca.jsonl", damage: "decoder/config.json decoder/generation_config.json", commands: write},
		{needs: "decoder alpaca.jsonl", damage: "decoder/tokenizer.json decoder/tokenizer_config.json", commands: append(slices.Clone(write), "tokenize --model decoder --data alpaca.jsonl --template {instruction}->{output} --text-column instruction --quiet")},
		{needs: "decoder.gguf", damage: "decoder.gguf", commands: []string{"generate --model decoder.gguf --prompt the --max-new-tokens 4" + quick, "inspect --model decoder.gguf --load --quiet",
			"generate --model decoder.gguf --prompt q --chat --max-new-tokens 4" + quick, "verify decoder.gguf --quiet"}},
		{needs: "blocks.gguf", damage: "blocks.gguf", commands: []string{"inspect --model blocks.gguf --load --quiet"}},
		{needs: "decoder-nf4", damage: "decoder-nf4/*", commands: []string{"inspect --model decoder-nf4 --load --quiet"}},
		{needs: "decoder-gptq", damage: "decoder-gptq/*", commands: []string{"inspect --model decoder-gptq --load --quiet"}},
		{needs: "encoder adapter rows.csv", damage: "adapter/*", commands: []string{"predict --model encoder --adapter adapter --data rows.csv" + quick, "inspect --model encoder --adapter adapter --quiet",
			"merge --model encoder --adapter adapter --out merged" + quick, "convert --model encoder --adapter adapter --to adapterhub --out converted" + quick, "verify adapter --model encoder --quiet"}},
		{needs: "encoder adapter-hub rows.csv", damage: "adapter-hub/*", commands: []string{"predict --model encoder --adapter adapter-hub --data rows.csv" + quick,
			"convert --model encoder --adapter adapter-hub --to peft --out converted" + quick}},
		{needs: "decoder adapter-causal", damage: "adapter-causal/*", commands: []string{"generate --model decoder --adapter adapter-causal --prompt the --max-new-tokens 3" + quick}},
		{needs: "encoder run rows.csv", damage: "run/config.yaml run/best/* run/inputs.json run/provenance.json run/summary.json", commands: []string{"predict --model run --data rows.csv" + quick, "verify run --quiet",
			"train --resume --out run" + quick, "inspect --model run --quiet"}, open: true},
		{needs: "encoder half rows.csv", damage: "half/*", commands: []string{"train --resume --out half" + quick, "train --resume=auto --out half" + quick, "verify half --quiet"}, open: true},
		{needs: "encoder features rows.csv", damage: "features/classifier.safetensors features/config.yaml", commands: []string{"predict --model features --data rows.csv" + quick}},
		{needs: "encoder rows.csv home", damage: "home/gopeft/features/*", commands: []string{"train --model encoder --data rows.csv --method features --out run" + quick}},
		{needs: "encoder rows.csv tokens", damage: "tokens/*", commands: []string{"train --model encoder --data rows.csv --method bitfit --max-steps 2 --cache-dir tokens --out run" + quick}},
		{needs: "encoder rows.csv train.yaml", damage: "train.yaml", commands: []string{"train --config train.yaml --model encoder --data rows.csv --out run --quiet"}, open: true},
		{needs: "encoder rows.csv compare.yaml", damage: "compare.yaml", commands: []string{"compare --config compare.yaml --model encoder --data rows.csv --out run --quiet"}, open: true},
		{needs: "decoder prompts.jsonl", damage: "prompts.jsonl", commands: []string{"generate --model decoder --prompts prompts.jsonl --max-new-tokens 3" + quick}},
		{needs: "decoder alpaca.jsonl", damage: "alpaca.jsonl", commands: []string{"train --task causal --model decoder --data alpaca.jsonl --template {instruction}->{output} --method ia3 --max-steps 2 --out run" + quick, "eval --model decoder --data alpaca.jsonl --template {instruction}->{output}" + quick}},
		data("rows.csv"), data("rows.tsv"), data("rows.jsonl"), data("rows.json"), data("rows.csv.gz"), data("rows.parquet"), data("ids.jsonl"),
		{needs: "nested.parquet", damage: "nested.parquet", commands: []string{"prepare --data nested.parquet --out parts --quiet"}},
		{needs: "decoder", damage: templates, commands: []string{"generate --model decoder --prompt q --chat --max-new-tokens 3" + quick, "generate --model decoder --prompt q --chat --system s --max-new-tokens 3" + quick}},
	}
}

// templates stands for a chat template that is made up, not damaged.
const templates = "template"

// prepareFuzz makes runs, whole and stopped ones, and what caches hold.
func prepareFuzz(h *harness) error {
	train := "train --model encoder --data rows.csv --batch-size 8 --amp none" + quick
	return errors.Join(
		h.build([]string{"encoder", "rows.csv"}, map[string]string{"run": "run"}, train+" --method lora --epochs 1 --out run"),
		h.build([]string{"encoder", "rows.csv"}, map[string]string{"half": "half"}, train+" --method lora --epochs 2 --max-steps 3 --checkpoint-every 1 --out half"),
		h.build([]string{"encoder", "rows.csv"}, map[string]string{"features": "features", "home": "home"}, train+" --method features --out features"),
		h.build([]string{"encoder", "rows.csv"}, map[string]string{"tokens": "tokens"}, train+" --method bitfit --max-steps 2 --cache-dir tokens --out run"),
	)
}

func fuzzCase(c *attempt) error {
	all := targets()
	t := all[c.n%len(all)]
	if err := c.bring(strings.Fields(t.needs)...); err != nil {
		return err
	}
	command := strings.Fields(t.commands[c.IntN(len(t.commands))])
	if t.damage == templates {
		c.about = "a chat template"
		if err := os.WriteFile(c.in("decoder/chat_template.jinja"), []byte(template(c.Rand, 0)), 0o666); err != nil {
			return err
		}
	} else {
		names, err := c.listed(strings.Fields(t.damage)...)
		if err != nil {
			return err
		}
		if len(names) == 0 {
			return fmt.Errorf("there is nothing at %s to damage", t.damage)
		}
		name := names[c.IntN(len(names))]
		c.about = name
		if err := c.damage(c.in(name)); err != nil {
			return err
		}
	}
	l := usual
	told := false
	r := c.start(l, func(p *os.Process, ended <-chan struct{}) {
		patient := 6 * time.Second
		switch {
		case c.waits:
			settled(p, ended)
			patient = 0
		case !t.open:
			return
		}
		select {
		case <-ended:
		case <-time.After(patient):
			told = true
			_ = p.Signal(syscall.SIGTERM)
		}
	}, command...)
	c.judge(r, l)
	if r.code == 130 && !told {
		c.find("it says that it was interrupted, and was not")
	}
	return nil
}

// damage changes a file, or puts something else into its place.
func (c *attempt) damage(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if c.IntN(25) == 0 {
		if err := os.Remove(path); err != nil {
			return err
		}
		switch c.IntN(6) {
		case 0:
			c.about += ", a FIFO"
			ext := filepath.Ext(path)
			c.waits = filepath.Dir(path) == c.dir && ext != ".gguf" // data and settings may come from one
			return syscall.Mkfifo(path, 0o666)
		case 1:
			c.about += ", a link to /dev/zero"
			return os.Symlink("/dev/zero", path)
		case 2:
			c.about += ", a folder"
			return os.Mkdir(path, 0o777)
		case 3:
			c.about += ", a link to itself"
			return os.Symlink(filepath.Base(path), path)
		case 4:
			c.about += ", gone"
			return nil
		default:
			c.about += ", empty"
			return os.WriteFile(path, nil, 0o666)
		}
	}
	var others [][]byte
	for _, name := range []string{"rows.csv", "rows.jsonl", "decoder.gguf", "encoder/model.safetensors"} {
		other, err := os.ReadFile(c.at(name))
		if err != nil {
			return err
		}
		others = append(others, other)
	}
	return os.WriteFile(path, mutate(c.Rand, path, raw, others), 0o666)
}
