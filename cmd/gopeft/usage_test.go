package main

import (
	"strings"
	"testing"
)

func TestMistypedWordsAreAnsweredWithTheNearest(t *testing.T) {
	file := writeText(t, "config.yaml", "model: m\nbatchsize: 3\n")
	none := writeText(t, "none.yaml", "zzz: 3\n")
	for _, c := range []struct{ args, want string }{
		{"tarin", "\"tarin\" is not a command; did you mean `gopeft train`?"},
		{"generat --prompt x", "\"generat\" is not a command; did you mean `gopeft generate`?"},
		{"zzz", "\"zzz\" is not a command; `gopeft --help` lists them"},
		{"train --epoch 3", "there is no flag --epoch; did you mean --epochs?"},
		{"train -epoch=3", "there is no flag --epoch; did you mean --epochs?"},
		{"compare --method lora", "there is no flag --method; did you mean --methods?"},
		{"eval --modle x", "there is no flag --modle; did you mean --model?"},
		{"doctor --jsn", "there is no flag --jsn; did you mean --json?"},
		{"train --hepl", "there is no flag --hepl; did you mean --help?"},
		{"train --error-fil x", "there is no flag --error-fil; `gopeft train --help` lists them"},
		{"train --zzz", "there is no flag --zzz; `gopeft train --help` lists them"},
		{"train -x", "there is no flag -x; `gopeft train --help` lists them"},
		{"--epochs 3 train", "there is no flag --epochs before the command; `gopeft COMMAND --help` lists those of a command"},
		{"train --lr", "--lr needs a value"},
		{"train --epochs x", `invalid value "x" for --epochs: want a number`},
		{"train --json=x", `invalid value "x" for --json: want true or false`},
		{"train --config " + file, file + `: line 2: there is no setting "batchsize"; did you mean "batch-size"?`},
		{"compare --config " + file, file + `: line 2: there is no setting "batchsize"; did you mean "batch-size"?`},
		{"predict --config " + file, file + `: line 2: predict has no setting "batchsize"; did you mean "batch-size"?`},
		{"predict --config " + none, none + ": line 1: predict has no setting \"zzz\"; `gopeft predict --help` lists them"},
	} {
		code, stdout, stderr := gopeft(t, "", strings.Fields(c.args)...)
		if code != exitUsage || stderr != "gopeft: "+c.want+"\n" || stdout != "" {
			t.Errorf("gopeft %s: exit %d, %q %q, want exit 2 and %q", c.args, code, stdout, stderr, c.want)
		}
	}
}
