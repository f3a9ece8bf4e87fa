package run

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"

	"gopeft/model"
	"gopeft/train"
)

// free are the settings that change nothing of what a run computes (on CPU with the same number of threads): a
// resumed run may have others.
var free = [...]string{"out", "checkpoint-every", "checkpoint-minutes", "threads", "tensorboard", "no-train-eval", "cache-dir", "stream-weights", "shard-frozen", "shard-optimizer"}

// fixed are the settings that a resumed run must share with the one it goes on from, by key; one GPU is as good as
// another.
func (c Config) fixed() map[string]string {
	values := map[string]string{}
	c.each(func(key string, v reflect.Value) {
		value := fmt.Sprint(v.Interface())
		switch {
		case key == "device":
			value, _, _ = strings.Cut(value, ":")
		case key == "quantize" && value == "none":
			value = "" // as runs have it from before there was the setting
		case key == "read-as" && value == model.FirstReading:
			value = "" // as all BERTs were read before there was the setting
		case key == "pool" && value == train.PoolFirst:
			value = "" // which it was by default, of decoders too
		}
		if !slices.Contains(free[:], key) {
			values[key] = value
		}
	})
	return values
}

// fingerprint identifies those settings and the data. Settings at their defaults are left out, so that a run goes on
// under a later version that has more of them.
func (c Config) fingerprint(data string) string {
	values, usual := c.fixed(), Defaults().fixed()
	h := sha256.New()
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if values[key] != usual[key] {
			writeSetting(h, key, values[key])
		}
	}
	fmt.Fprintf(h, "%q\n", data)
	return "2-" + hex.EncodeToString(h.Sum(nil)[:8])
}

// matches reports whether a fingerprint is that of c and data, by the rule of the version that wrote it.
func (c Config) matches(fingerprint, data string) bool {
	if !strings.HasPrefix(fingerprint, "2-") {
		return fingerprint == c.firstFingerprint(data)
	}
	return fingerprint == c.fingerprint(data)
}

// firstFingerprint is the fingerprint of runs from before 0.1.0: of every setting there was then, in the order of then.
func (c Config) firstFingerprint(data string) string {
	values := c.fixed()
	h := sha256.New()
	for _, key := range strings.Fields(firstSettings) {
		if key == "pool" && values[key] == "" {
			values[key] = train.PoolFirst
		}
		writeSetting(h, key, values[key])
	}
	fmt.Fprintf(h, "%q\n", data)
	return hex.EncodeToString(h.Sum(nil)[:8])
}

const firstSettings = `task method model train val test data split stratify text-column label-column limit sample skip-bad-rows max-length
	template mask-prompt pack device amp seed deterministic tf32 epochs max-steps batch-size max-tokens lr optimizer momentum
	weight-decay schedule warmup grad-accum clip dropout early-stop monitor no-shuffle no-bucket checkpoint-activations
	cache-features without log-every adapter-init classifier pool unfreeze virtual-tokens init init-text prefix-projection
	prefix-hidden peft-compat bottleneck reduction-factor activation train-layernorm adapter-layers adapter-length gate gate-tanh
	skip-lm-head rank alpha lora-dropout rslora dora targets adapter-name`

func writeSetting(w io.Writer, key, value string) { fmt.Fprintf(w, "%q %q\n", key, value) }

// differences names the settings of c that a run begun with was cannot be resumed with. A setting that both leave open
// is no difference: c then takes what that run chose.
func (c Config) differences(was Config) (keys []string) {
	c = c.adopt(was)
	now, then := c.fixed(), was.fixed()
	c.each(func(key string, _ reflect.Value) { // in the order of the settings
		if now[key] != then[key] {
			keys = append(keys, key)
		}
	})
	return keys
}
