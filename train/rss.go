package train

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// PeakRSSMB is the most memory this process has held resident, in MiB.
func PeakRSSMB() float64 {
	if kb, ok := statusKB("VmHWM:"); ok {
		return kb / 1024
	}
	// Elsewhere, and where /proc is hidden. On Linux this figure outlives exec: it may be that of the parent process.
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Maxrss) / 1024
}

// RSSMB is the memory this process holds resident now, in MiB; 0 where that is not told.
func RSSMB() float64 {
	kb, _ := statusKB("VmRSS:")
	return kb / 1024
}

// statusKB reads a figure of /proc/self/status, in kB.
func statusKB(name string) (kb float64, ok bool) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, false
	}
	return figureKB(status, name)
}

func figureKB(status []byte, name string) (kb float64, ok bool) {
	for line := range bytes.Lines(status) {
		if rest, found := bytes.CutPrefix(line, []byte(name)); found {
			kb, err := strconv.ParseFloat(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte("kB")))), 64)
			return kb, err == nil
		}
	}
	return 0, false
}
