package run

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"gopeft/bindings"
	"gopeft/model/fsutil"
	"gopeft/model/hf/files"
	"gopeft/train/classic"
	"gopeft/train/run/inputs"
)

// modelHash identifies a model by its files' contents.
func modelHash(ctx context.Context, path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return inputs.Hash(ctx, path)
	}
	h := sha256.New()
	for _, pattern := range []string{"config.json", "*.safetensors", "pytorch_model*.bin", "*.gguf",
		"tokenizer.json", "vocab.txt", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"} {
		names, err := filepath.Glob(filepath.Join(path, pattern))
		if err != nil {
			return "", err
		}
		slices.Sort(names)
		for _, name := range names {
			sum, err := inputs.Hash(ctx, name)
			if err != nil {
				return "", err
			}
			fmt.Fprintln(h, filepath.Base(name), sum)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func featureKey(model, set, pool string, length int, d, base bindings.DType, quantize string, dev bindings.Device) string {
	h := sha256.New()
	fmt.Fprintln(h, "features 3", model, set, pool, length, d, dev, bindings.Version())
	if base != bindings.Float {
		fmt.Fprintln(h, "base", base)
	}
	if quantize != "none" {
		fmt.Fprintln(h, "quantize", quantize)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func featurePath(key string) (string, error) {
	home, err := fsutil.Home()
	return filepath.Join(home, "features", key+".safetensors"), err
}

// readFeatures reads a cached matrix and how many seconds it took to compute.
func readFeatures(key string) (x classic.Matrix, seconds float64, err error) {
	path, err := featurePath(key)
	if err != nil {
		return x, 0, err
	}
	a, err := files.Open(path)
	if err != nil {
		return x, 0, err
	}
	defer a.Close()
	e, ok := a.Lookup("features")
	if !ok || e.DType != files.F32 || len(e.Shape) != 2 {
		return x, 0, fmt.Errorf("%s: no matrix of features in it", path)
	}
	if seconds, err = strconv.ParseFloat(a.Metadata()["seconds"], 64); err != nil {
		return x, 0, fmt.Errorf("%s: how long it took is not in it: %w", path, err)
	}
	x = classic.Matrix{Rows: int(e.Shape[0]), Cols: int(e.Shape[1]), Data: make([]float32, e.Elements())}
	for i := range x.Data {
		x.Data[i] = math.Float32frombits(binary.LittleEndian.Uint32(e.Data[4*i:]))
	}
	return x, seconds, nil
}

func writeFeatures(key string, x classic.Matrix, seconds float64) error {
	path, err := featurePath(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	return classic.WriteMatrix(path, x, map[string]string{"seconds": strconv.FormatFloat(seconds, 'g', -1, 64)})
}
