package train

import "golang.org/x/sys/unix"

// PeakRSSMB is the most memory this process has held resident, in MiB.
func PeakRSSMB() float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Maxrss) / 1024
}
