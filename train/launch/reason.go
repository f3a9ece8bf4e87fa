package launch

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"
)

// maxReason bounds the reason of a failure, so that it fits into a pipe which nobody reads before the process has ended.
const maxReason = 4 << 10

// failure is what torchrun reads of a file that it names in TORCHELASTIC_ERROR_FILE.
type failure struct {
	Message struct {
		Message string `json:"message"`
		Extra   struct {
			Timestamp string `json:"timestamp"` // in seconds
		} `json:"extraInfo"`
	} `json:"message"`
}

// Fail tells the launcher why this process is about to fail, if it wants to know.
func (w World) Fail(reason string, now time.Time) error {
	if w.ErrorFile == "" {
		return nil
	}
	if len(reason) > maxReason {
		reason = reason[:maxReason]
	}
	var f failure
	f.Message.Message, f.Message.Extra.Timestamp = reason, strconv.FormatInt(now.Unix(), 10)
	raw, err := json.Marshal(f)
	if err == nil {
		err = os.WriteFile(w.ErrorFile, raw, 0o600)
	}
	if err != nil {
		return fmt.Errorf("tell %s why this process failed: %w", w.Source, err)
	}
	return nil
}

// reasonOf reads what Fail has written, "" for what is something else.
func reasonOf(raw []byte) string {
	var f failure
	if err := json.Unmarshal(raw, &f); err != nil {
		return ""
	}
	return f.Message.Message
}
