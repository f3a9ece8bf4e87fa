package peft_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/modeltest"
	"gopeft/peft"
)

// TestTheREADMEsTableOfFamilies: which libraries' files each method has for each family is what writing them says.
func TestTheREADMEsTableOfFamilies(t *testing.T) {
	letters := map[peft.Dialect]string{peft.DialectPeft: "p", peft.DialectHub: "a", peft.DialectLitLLaMA: "c", peft.DialectLLaMAFile: "c"}
	var names []string
	for _, d := range peft.Builtin() {
		names = append(names, d.Name)
	}
	lines := []string{"| family | " + strings.Join(names, " | ") + " |", "|---" + strings.Repeat("|---", len(names)) + "|"}
	for _, i := range model.Architectures() {
		row := []string{"`" + i.Family + "`"}
		for _, name := range names {
			row = append(row, written(t, i, name, letters))
		}
		lines = append(lines, "| "+strings.Join(row, " | ")+" |")
	}
	raw, err := os.ReadFile(filepath.Join(modeltest.Root(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(raw), "<!-- family table -->\n")
	got, _, found := strings.Cut(rest, "<!-- end of family table -->")
	if want := strings.Join(lines, "\n") + "\n"; !found || got != want {
		t.Errorf("README.md's table of families is to be:\n%s", want)
	}
}

// written are the letters of the dialects in which a method on a family's model can be written for their own libraries.
func written(t *testing.T, i model.Info, method string, letters map[peft.Dialect]string) (out string) {
	at := slices.IndexFunc(families, func(f family) bool {
		return strings.HasPrefix(f.folder, i.Family+"/") && f.classify != i.Decoder
	})
	if at < 0 {
		t.Fatalf("no model of %s among families", i.Family)
	}
	o := peft.Options{PromptOptions: peft.PromptOptions{VirtualTokens: 2}, BottleneckOptions: peft.BottleneckOptions{Bottleneck: 4},
		OFTOptions: peft.OFTOptions{BlockSize: 4}, LLaMAAdapterOptions: peft.LLaMAAdapterOptions{AdapterLength: 2, Gate: "layer"},
		PoolOptions: peft.PoolOptions{PeftCompat: method == "prompt"}}
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := families[at].load(t, s)
		defer m.Close()
		a, err := peft.New(method, o)
		if err == nil {
			err = a.Attach(s, m)
		}
		if err != nil {
			return fmt.Errorf("%s on %s: %w", method, i.Family, err)
		}
		own := filepath.Join(t.TempDir(), "own")
		if err := a.Save(s, own, m); err != nil {
			return fmt.Errorf("%s on %s: %w", method, i.Family, err)
		}
		a.Close()
		var found []string
		if info, err := peft.Probe(own); err != nil {
			return err
		} else if info.Dialect == peft.DialectModelFolder {
			found = append(found, "f")
		}
		for _, d := range peft.Dialects() {
			path := filepath.Join(t.TempDir(), "theirs")
			if letters[d] == "c" {
				path += ".pth"
			}
			if err := peft.Convert(s, own, path, d, m); err == nil && !slices.Contains(found, letters[d]) {
				found = append(found, letters[d])
			}
		}
		slices.Sort(found)
		if out = strings.Join(found, " "); out == "" {
			out = "·"
		}
		return nil
	})
	return out
}
