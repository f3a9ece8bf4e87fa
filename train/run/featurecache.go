package run

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
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

// The cache of features: files of a matrix each, in GOPEFT_HOME.
const (
	featuresEnding = ".safetensors"
	// featuresLimit is how much they take before those go that were not used for the longest time.
	featuresLimit = 16 << 30
)

// modelHash identifies a model by its files' contents.
func modelHash(ctx context.Context, path string) (string, error) {
	r, err := inputs.Find(path, "")
	if err != nil {
		return "", err
	}
	return r.Hash(ctx)
}

func featureKey(model, set, pool string, length int, d, base bindings.DType, quantize string, dev bindings.Device) string {
	h := sha256.New()
	fmt.Fprintln(h, "features 4", model, set, pool, length, d, dev, bindings.Version())
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
	return filepath.Join(home, "features", key+featuresEnding), err
}

// readFeatures reads a cached matrix, which must have so many rows and columns, and how many seconds it took to compute.
func readFeatures(key string, rows, cols int) (x classic.Matrix, seconds float64, err error) {
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
	if !ok || e.DType != files.F32 || !slices.Equal(e.Shape, []int64{int64(rows), int64(cols)}) {
		return x, 0, fmt.Errorf("%s: no features of %d texts, %d each, in it", path, rows, cols)
	}
	meta := a.Metadata()
	if meta["sum"] != featuresSum(key, meta["seconds"], e.Data) {
		return x, 0, fmt.Errorf("%s: its checksum is not that of its content", path)
	}
	if seconds, err = strconv.ParseFloat(meta["seconds"], 64); err != nil {
		return x, 0, fmt.Errorf("%s: how long it took is not in it: %w", path, err)
	}
	x = classic.Matrix{Rows: rows, Cols: cols, Data: make([]float32, rows*cols)}
	copy(x.Bytes(), e.Data)
	fsutil.Touch(path)
	return x, seconds, nil
}

// featuresSum is the checksum of what a file of features holds.
func featuresSum(key, seconds string, data []byte) string {
	s := fsutil.NewSummer()
	fmt.Fprintln(s, key, seconds)
	s.Write(data)
	return s.Sum().CRC32C
}

// writeFeatures keeps a matrix, and drops those that were not used for the longest time if there are too many.
func writeFeatures(key string, x classic.Matrix, seconds float64) error {
	path, err := featurePath(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	// What is there is of no use. It need not be a file: a pipe would be written through, and waited for.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	took := strconv.FormatFloat(seconds, 'g', -1, 64)
	if err := classic.WriteMatrix(path, x, map[string]string{"seconds": took, "sum": featuresSum(key, took, x.Bytes())}); err != nil {
		return err
	}
	return fsutil.Prune(filepath.Dir(path), featuresEnding, filepath.Base(path), featuresLimit, nil)
}
