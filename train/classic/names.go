package classic

import (
	"path/filepath"

	"gopeft/model/fsutil"
)

// The files of a run's classifier: XGBoost's own format has an ending of its own.
const (
	fileOfTensors = "classifier.safetensors"
	fileOfTrees   = "classifier" + boostedEnding

	boostedEnding = ".json"
)

// FileNames are the names that SaveIn gives files.
func FileNames() []string { return []string{fileOfTensors, fileOfTrees} }

// SaveIn is Save into a folder, under the name of the classifier's kind.
func SaveIn(dir string, s Saved) error {
	if s.Model.Kind() == KindBoosted {
		return Save(filepath.Join(dir, fileOfTrees), s)
	}
	return Save(filepath.Join(dir, fileOfTensors), s)
}

// FileIn is the file that SaveIn wrote into dir, "" if there is none.
func FileIn(dir string) string {
	for _, name := range FileNames() {
		if path := filepath.Join(dir, name); fsutil.Exists(path) {
			return path
		}
	}
	return ""
}
