package provenance

import (
	"bufio"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"gopeft/bindings"
)

// Program is what a run was computed with.
type Program struct {
	Gopeft        string `json:"gopeft"`          // the release, and the commit where it is known
	Build         string `json:"build,omitempty"` // tells builds of one commit apart
	Go            string `json:"go"`
	Libtorch      string `json:"libtorch"`
	LibtorchBuild string `json:"libtorch_build,omitempty"` // what libtorch's own files say: version, platform, commit
	CPU           string `json:"cpu"`                      // instructions of libtorch's kernels, and of ours
}

// ThisProgram describes the program that runs.
func ThisProgram(version, build string) Program {
	return Program{Gopeft: version, Build: build, Go: runtime.Version(), Libtorch: bindings.Version(), LibtorchBuild: libtorchBuild(filepath.Dir(bindings.LibraryFolder())),
		CPU: bindings.CPUCapability() + ", " + bindings.CPUPath()}
}

// libtorchBuild reads which build of libtorch is in a folder: version.py of Python's torch, or the build-version and
// build-hash of an archive; "" where neither is.
func libtorchBuild(dir string) string {
	var parts []string
	if f, err := os.Open(filepath.Join(dir, "version.py")); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			name, value, ok := strings.Cut(lines.Text(), " = ")
			if ok && (name == "__version__" || name == "git_version") {
				parts = append(parts, strings.Trim(value, `'"`))
			}
		}
		return strings.Join(parts, " ")
	}
	for _, name := range []string{"build-version", "build-hash"} {
		if raw, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			parts = append(parts, strings.TrimSpace(string(raw)))
		}
	}
	return strings.Join(parts, " ")
}
