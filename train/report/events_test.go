package report

import (
	"encoding/hex"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The bytes were read back with TensorBoard's EventAccumulator: the version,
// the start of a session at step 31, loss 0.5 and accuracy 0.75 at step 40.
const goldenEvents = "" +
	"1a00000000000000129bd82d0900002040fc54d94110001a0d627261696e2e4576656e743a32bf8a691d0f0000000000" +
	"00006d532b090900002040fc54d941101f3a020801217f83723200000000000000241956ec0900002040fc54d9411028" +
	"2a250a110a0a747261696e2f6c6f7373150000003f0a100a09747261696e2f616363150000403fd5141bb0"

func TestEventsAreTheBytesTensorBoardReads(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tb")
	at := time.Unix(1700000000, 500_000_000)
	e, err := OpenEvents(dir, 30, at)
	if err != nil {
		t.Fatal(err)
	}
	err = e.Write(40, at, Scalar{"train/loss", 0.5}, Scalar{"val/loss", math.NaN()}, Scalar{"train/acc", 0.75})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Write(50, at, Scalar{"val/loss", math.Inf(1)}); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	if name := entries[0].Name(); !strings.HasPrefix(name, "events.out.tfevents.1700000000500000000.") {
		t.Errorf("file name %s", name)
	}
	got := hex.EncodeToString([]byte(read(t, filepath.Join(dir, entries[0].Name()))))
	if got != goldenEvents {
		t.Errorf("bytes\n%s, want\n%s", got, goldenEvents)
	}
}

func TestMaskedCRC(t *testing.T) {
	// The CRC-32C of these digits is e3069283 by the standard; rotated right by
	// 15 bits, plus a282ead8.
	if got := maskedCRC([]byte("123456789")); got != 0xc78ab0e5 {
		t.Errorf("%08x", got)
	}
}
