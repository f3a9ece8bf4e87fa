package xgboost

import (
	"fmt"
	"os"
	"path/filepath"

	"gopeft/model/fsutil"
)

// Pinned is the version that the set-up fetches.
const Pinned = "3.2.0"

const fileName = "libxgboost.so"

// Find is the path of the library: what XGBOOST names, itself or a folder that holds it, or what the set-up has fetched
// into GOPEFT_HOME. Its error says how to get one.
func Find() (string, error) {
	if own := os.Getenv("XGBOOST"); own != "" {
		// The last two are a Python package's folder, and the folder of all packages.
		for _, path := range []string{own, filepath.Join(own, fileName), filepath.Join(own, "lib", fileName), filepath.Join(own, "xgboost", "lib", fileName)} {
			if i, err := os.Stat(path); err == nil && !i.IsDir() {
				return filepath.Abs(path) // a bare name would be looked for among the system's libraries
			}
		}
		return "", fmt.Errorf("XGBOOST=%s: neither %s nor a folder that holds it", own, fileName)
	}
	home, err := fsutil.Home()
	if err != nil {
		return "", err
	}
	path := filepath.Join(home, "xgboost-"+Pinned, "xgboost", "lib", fileName)
	if !fsutil.Exists(path) {
		return "", fmt.Errorf("XGBoost's library is not there: `make xgboost` fetches it (5.6 MB) into %s, or set XGBOOST to your own %s", home, fileName)
	}
	return path, nil
}
