//go:build unix

package tokenizer

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gopeft/model/modeltest/realdata"
)

// benchText is the file that GOPEFT_TOKENIZER_TEXT names, line by line, else made-up English.
func benchText(b *testing.B) []string {
	path := os.Getenv("GOPEFT_TOKENIZER_TEXT")
	if path == "" {
		var r recording
		readGzip(b, filepath.Join("testdata", "tiny-bert-cased.golden.json.gz"), &r)
		var lines []string
		for range 50 {
			for _, c := range r.Cases {
				lines = append(lines, c.Text)
			}
		}
		return lines
	}
	data, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	return strings.Split(string(data), "\n")
}

// cpu is the processor time that this process has used so far: on a busy machine it says more
// than the time on the wall.
func cpu(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkEncode measures one thread; scripts/goldens/tokenizer.py speed does in Python.
func BenchmarkEncode(b *testing.B) {
	lines := benchText(b)
	size := 0
	for _, line := range lines {
		size += len(line)
	}
	for _, folder := range []string{"tokenizers/bert-base-uncased-30522", "tokenizers/llama-2-32k", "tokenizers/llama-3-128k"} {
		tok := mustLoad(b, realdata.Shared(b, folder))
		b.Run(filepath.Base(folder)+"/offsets", func(b *testing.B) {
			b.SetBytes(int64(size))
			start := cpu(b)
			for b.Loop() {
				for _, line := range lines {
					if _, err := tok.Encode(line, Options{AddSpecial: true}); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(size)*float64(b.N)/1e6/(cpu(b)-start).Seconds(), "cpu-MB/s")
		})
		b.Run(filepath.Base(folder)+"/ids", func(b *testing.B) {
			b.SetBytes(int64(size))
			var ids []int64
			start := cpu(b)
			for b.Loop() {
				for _, line := range lines {
					var err error
					if ids, err = tok.EncodeIDs(ids[:0], line, Options{AddSpecial: true}); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(size)*float64(b.N)/1e6/(cpu(b)-start).Seconds(), "cpu-MB/s")
		})
	}
}

// BenchmarkLongWord measures words of 1 and 10 MB: the time per byte should be about the same.
func BenchmarkLongWord(b *testing.B) {
	for _, folder := range []string{"tokenizers/bert-base-uncased-30522", "tokenizers/llama-2-32k", "tokenizers/llama-3-128k"} {
		tok := mustLoad(b, realdata.Shared(b, folder))
		for _, n := range []int{1 << 20, 10 << 20} {
			for name, piece := range map[string]string{"a": "a", "mixed": "jumpsoverthelazyélève"} {
				word := strings.Repeat(piece, n/len(piece))
				b.Run(filepath.Base(folder)+"/"+name, func(b *testing.B) {
					b.SetBytes(int64(n))
					for b.Loop() {
						if _, err := tok.EncodeIDs(nil, word, Options{}); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}
