package run

import (
	"os"
	"strconv"
	"strings"
)

// residentCode is how many bytes of the program and its libraries are in memory; 0 where that is not told. The kernel
// maps their files in pieces whose size depends on how they came into its cache, so it differs between machines.
func residentCode() float64 {
	raw, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return 0
	}
	program, err := os.Executable()
	if err != nil {
		return 0
	}
	total, code := 0.0, false
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) >= 5 && strings.Contains(fields[0], "-"): // a mapping: addresses, access, offset, device, inode, file
			path := fields[len(fields)-1]
			code = len(fields) > 5 && (strings.Contains(path, ".so") || path == program)
		case code && len(fields) > 1 && fields[0] == "Rss:":
			kib, _ := strconv.ParseFloat(fields[1], 64)
			total += kib * 1024
		}
	}
	return total
}
