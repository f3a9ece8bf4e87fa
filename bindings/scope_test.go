package bindings_test

import (
	"bytes"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"gopeft/bindings/bindingstest"
)

// lockedBuffer is a log that finalizers write to and a test reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestOnlyScopesLeftOpenAreReported(t *testing.T) {
	var log lockedBuffer
	former := slog.Default()
	defer slog.SetDefault(former)
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	bindingstest.Do(t, func(s *Scope) error {
		for range 10 {
			s.NewScope().Close()
		}
		s.NewScope() // lost; it owns nothing
		return nil
	})
	for begun := time.Now(); !strings.Contains(log.String(), "without Close"); time.Sleep(time.Millisecond) {
		runtime.GC()
		if time.Since(begun) > 10*time.Second {
			t.Fatal("the lost scope was not reported")
		}
	}
	for range 3 {
		runtime.GC()
	}
	if n := strings.Count(log.String(), "without Close"); n != 1 {
		t.Errorf("%d scopes reported lost, want 1:\n%s", n, log.String())
	}
}
