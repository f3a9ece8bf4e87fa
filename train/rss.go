package train

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// PeakRSSMB is the most memory this process has held resident, in MiB.
func PeakRSSMB() float64 {
	if status, err := os.ReadFile("/proc/self/status"); err == nil {
		if kb, ok := highWater(status); ok {
			return kb / 1024
		}
	}
	// Elsewhere, and where /proc is hidden. On Linux this figure outlives exec: it may be that of the parent process.
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Maxrss) / 1024
}

// highWater reads VmHWM, in kB, from the text of /proc/PID/status.
func highWater(status []byte) (kb float64, ok bool) {
	for line := range bytes.Lines(status) {
		if rest, found := bytes.CutPrefix(line, []byte("VmHWM:")); found {
			kb, err := strconv.ParseFloat(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte("kB")))), 64)
			return kb, err == nil
		}
	}
	return 0, false
}
