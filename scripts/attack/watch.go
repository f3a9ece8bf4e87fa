package main

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// watched is a process of which is noted, while it runs, what it holds.
type watched struct {
	result
	samples []sample
}

// sample is what a process holds at one moment.
type sample struct {
	own         int64 // kB of memory that is its own, not a file's
	peak        int64 // kB of all memory, the most until then
	threads     int
	descriptors int
}

// mostSamples bounds what is kept: beyond it every other one goes, and they are taken half as often.
const mostSamples = 4096

func (w *watched) watch(p *os.Process, ended <-chan struct{}) {
	for every := 20 * time.Millisecond; ; {
		select {
		case <-ended:
			return
		case <-time.After(every):
		}
		s, err := sampleOf(p.Pid)
		if err != nil {
			return // it has ended
		}
		if w.samples = append(w.samples, s); len(w.samples) == mostSamples {
			for i := range mostSamples / 2 {
				w.samples[i] = w.samples[2*i]
			}
			w.samples = w.samples[:mostSamples/2]
			every *= 2
		}
	}
}

// sampleOf reads what Linux says of a process.
func sampleOf(pid int) (s sample, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return s, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		words := strings.Fields(value)
		if len(words) == 0 {
			continue
		}
		n, _ := strconv.ParseInt(words[0], 10, 64) // of other lines it is of no interest
		switch name {
		case "RssAnon":
			s.own = n
		case "VmHWM":
			s.peak = n
		case "Threads":
			s.threads = int(n)
		}
	}
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	s.descriptors = len(names)
	if s.own == 0 {
		err = os.ErrProcessDone
	}
	return s, err
}

// grown lists what a process held more of in the last quarter of its life than in the second. Memory may be 5 % and 8 MB
// more, since the garbage collector's tide is in no step with the samples.
func (w *watched) grown() (found []string) {
	n := len(w.samples)
	if n < 8 {
		return []string{"it ended too soon to tell whether it grows"}
	}
	then, now := most(w.samples[n/4:n/2]), most(w.samples[3*n/4:])
	if now.own > then.own+then.own/20+8<<10 {
		found = append(found, fmt.Sprintf("its memory grew from %d to %d MB", then.own>>10, now.own>>10))
	}
	if now.threads > then.threads+2 { // Go starts one when another is kept by a system call
		found = append(found, fmt.Sprintf("its threads grew from %d to %d", then.threads, now.threads))
	}
	if now.descriptors > then.descriptors+2 {
		found = append(found, fmt.Sprintf("its open files grew from %d to %d", then.descriptors, now.descriptors))
	}
	return found
}

// most is the most of each that samples show.
func most(samples []sample) (m sample) {
	for _, s := range samples {
		m.own, m.peak, m.threads, m.descriptors = max(m.own, s.own), max(m.peak, s.peak), max(m.threads, s.threads), max(m.descriptors, s.descriptors)
	}
	return m
}

// summary shows the quarters of a process's life.
func (w *watched) summary() string {
	n := len(w.samples)
	if n < 4 {
		return "too short to sample"
	}
	var own, threads, descriptors []string
	for q := range 4 {
		m := most(w.samples[q*n/4 : (q+1)*n/4])
		own, threads, descriptors = append(own, fmt.Sprint(m.own>>10)), append(threads, fmt.Sprint(m.threads)), append(descriptors, fmt.Sprint(m.descriptors))
	}
	show := func(values []string) string { return strings.Join(slices.Compact(values), " ") }
	return fmt.Sprintf("by quarters MB %s, threads %s, open files %s", strings.Join(own, " "), show(threads), show(descriptors))
}
