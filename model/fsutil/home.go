package fsutil

import (
	"os"
	"path/filepath"
)

// Home is the folder of what gopeft caches: GOPEFT_HOME, else gopeft in the user's cache folder.
func Home() (string, error) {
	if home := os.Getenv("GOPEFT_HOME"); home != "" {
		return home, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "gopeft"), nil
}
