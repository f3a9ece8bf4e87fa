package files

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRefusesMalformedIndexes(t *testing.T) {
	shard := func(names ...string) []byte {
		var b strings.Builder
		var tensors []Tensor
		for _, name := range names {
			tensors = append(tensors, ones(name, 1))
		}
		if err := EncodeSafetensors(&b, tensors, nil); err != nil {
			t.Fatal(err)
		}
		return []byte(b.String())
	}
	cases := []struct {
		name  string
		index string
		want  []string
	}{
		{"not JSON", "weights", []string{"JSON"}},
		{"a list", "[]", []string{"JSON"}},
		{"cut short", `{"weight_map":{"a":"s1.safetensors"`, []string{"JSON"}},
		{"no weight_map", `{"metadata":{}}`, []string{"no weight_map"}},
		{"an empty weight_map", `{"weight_map":{}}`, []string{"empty"}},
		{"weight_map twice", `{"weight_map":{"a":"s1.safetensors"},"weight_map":{"a":"s1.safetensors"}}`, []string{"twice"}},
		{"a shard that is a number", `{"weight_map":{"a":1}}`, []string{`"a"`, "not a file name"}},
		{"a name twice", `{"weight_map":{"a":"s1.safetensors","a":"s2.safetensors"}}`, []string{`"a"`, "listed twice"}},
		{"text after the end", `{"weight_map":{"a":"s1.safetensors"}} x`, []string{"after its end"}},
		{"not UTF-8", "{\"weight_map\":{\"a\xff\":\"s1.safetensors\"}}", []string{"UTF-8"}},
		{"a parent path", `{"weight_map":{"a":"../s1.safetensors"}}`, []string{`"a"`, "does not stay"}},
		{"a parent path inside", `{"weight_map":{"a":"x/../../s1.safetensors"}}`, []string{`"a"`, "does not stay"}},
		{"an absolute path", `{"weight_map":{"a":"/etc/passwd"}}`, []string{`"a"`, "does not stay"}},
		{"a backslash path", `{"weight_map":{"a":"..\\s1.safetensors"}}`, []string{`"a"`, "does not stay"}},
		{"an empty path", `{"weight_map":{"a":""}}`, []string{`"a"`, "does not stay"}},
		{"a NUL in the path", `{"weight_map":{"a":"s1\u0000.safetensors"}}`, []string{`"a"`, "does not stay"}},
		{"a line break in the path", `{"weight_map":{"a":"s1\n.safetensors"}}`, []string{`"a"`, "does not stay"}},
		{"the folder itself", `{"weight_map":{"a":"."}}`, []string{`"a"`, "does not stay"}},
		{"a missing shard", `{"weight_map":{"a":"s9.safetensors"}}`, []string{`"s9.safetensors" is missing`}},
		{"a folder as shard", `{"weight_map":{"a":"folder"}}`, []string{"a folder"}},
		{"itself as shard", `{"weight_map":{"a":"model.safetensors.index.json"}}`, []string{"an index where a shard was expected"}},
		{"a malformed shard", `{"weight_map":{"a":"bad.safetensors"}}`, []string{"bad.safetensors"}},
		{"a tensor listed but absent", `{"weight_map":{"a":"s1.safetensors","z":"s1.safetensors"}}`, []string{`"z" is not in "s1.safetensors"`}},
		{"a tensor in the other shard", `{"weight_map":{"a":"s2.safetensors","c":"s1.safetensors"}}`, []string{`"a" is not in "s2.safetensors"`}},
		{"a tensor in two shards", `{"weight_map":{"a":"s1.safetensors","c":"s3.safetensors"}}`, []string{`"a" is also in`, "s1.safetensors"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			folder := t.TempDir()
			for name, content := range map[string][]byte{
				"s1.safetensors":               shard("a", "b"),
				"s2.safetensors":               shard("c"),
				"s3.safetensors":               shard("c", "a"),
				"bad.safetensors":              st(one, 3),
				"model.safetensors.index.json": []byte(c.index),
			} {
				if err := os.WriteFile(filepath.Join(folder, name), content, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Mkdir(filepath.Join(folder, "folder"), 0o755); err != nil {
				t.Fatal(err)
			}
			_, err := OpenModel(folder)
			wantError(t, err, append(c.want, folder)...)
		})
	}
}
