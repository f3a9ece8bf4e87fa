package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"

	"gopeft/model/fsutil"
	"gopeft/train"
	"gopeft/train/run/provenance"
)

// modelFiles are the files of models and adapters, as gopeft and the libraries whose formats it writes name them.
func modelFiles() []string {
	return []string{
		"config.json", "generation_config.json", "model*.safetensors", "model*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json",
		"tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json",
		"vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model",
		"adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "adapter.safetensors", "gopeft.yaml", "head_config.json", "model_head.safetensors",
		"pytorch_adapter.bin", "pytorch_model_head.bin", "README.md", ".gitattributes", // what hubs put beside them
		provenance.FileName,
	}
}

// replaceable is an error where folder out holds anything but a model or an adapter, which --overwrite would remove.
func replaceable(out string) error {
	entries, err := os.ReadDir(out)
	if err != nil || len(entries) == 0 {
		return err
	}
	var names []string
	for _, e := range entries {
		known := slices.ContainsFunc(modelFiles(), func(pattern string) bool {
			ok, _ := path.Match(pattern, e.Name())
			return ok
		})
		if !known || e.IsDir() {
			return train.Usage("%s holds %s, which is no part of a model or an adapter: --overwrite leaves it alone, give another --out", out, e.Name())
		}
		names = append(names, e.Name())
	}
	if !slices.Contains(names, "config.json") && !slices.Contains(names, "adapter_config.json") {
		return train.Usage("%s holds %s, but no config.json: it is no model or adapter, which --overwrite leaves alone; give another --out", out, names[0])
	}
	return nil
}

// replaceableFile is an error where out is there and no checkpoint file, as torch writes it.
func replaceableFile(out string) error {
	target, err := fsutil.Target(out)
	if err != nil {
		return err
	}
	f, err := fsutil.OpenRegular(target)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	magic := make([]byte, 4)
	if _, err := io.ReadFull(f, magic); err == nil && bytes.Equal(magic, []byte("PK\x03\x04")) {
		return nil
	}
	return train.Usage("%s is no checkpoint: --overwrite leaves it alone, give another --out", out)
}

// freeFile makes sure that the checkpoint file out may be written.
func freeFile(out string, overwrite bool) error {
	if exists(out) && !overwrite {
		return fmt.Errorf("%s is there already: give another --out, or --overwrite it", out)
	}
	if err := replaceableFile(out); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(filepath.Clean(out)), 0o777); err != nil {
		return err
	}
	return fsutil.CheckFile(out)
}

// freeFolder makes sure that folder out may be written: nothing is there, or --overwrite was given and it holds a model or an adapter alone.
func freeFolder(out string, overwrite bool) error {
	if entries, err := os.ReadDir(out); (err != nil && exists(out) || len(entries) > 0) && !overwrite {
		return fmt.Errorf("%s is there already: give another --out, or --overwrite it", out)
	}
	if exists(out) {
		if err := replaceable(out); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(filepath.Clean(out)), 0o777); err != nil {
		return err
	}
	fsutil.Sweep(out)
	return fsutil.CheckDir(out)
}
