package generate_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model/generate"
	"gopeft/model/modeltest"
)

// Prompts that begin alike get the same tokens whether what they share is computed once or with each; so do those of which
// one is the beginning of another, and those that share nothing.
func TestSharedBeginningsChangeNoToken(t *testing.T) {
	for _, folder := range []string{"base", "gqa", "mistral", "qwen2"} {
		for _, methods := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, methods %v", folder, methods), func(t *testing.T) {
				bindingstest.Do(t, func(s *bindings.Scope) error {
					m := load(t, s, modeltest.Testdata(t, "llama/"+folder))
					if methods {
						attach(s, m)
					}
					begin := []int64{1, 7, 9, 20, 11, 30, 8, 5}
					for _, ps := range [][][]int64{
						{slices.Concat(begin, []int64{4, 6}), slices.Concat(begin, []int64{5}), slices.Concat(begin, []int64{6, 3, 8, 12})},
						{begin, begin[:5], slices.Concat(begin, []int64{6, 3})},
						{begin, begin},
						{{3, 4}, {5, 6, 7}},
						{{3}, {3, 6, 7}},
					} {
						o := generate.Options{MaxNew: 12}
						want, err := generate.Run(s, m, ps, o, nil)
						if err != nil {
							return err
						}
						o.Share = true
						got, err := generate.Run(s, m, ps, o, nil)
						if err != nil {
							return err
						}
						if diff := cmp.Diff(newIDs(want), newIDs(got)); diff != "" {
							t.Errorf("%v: %s", ps, diff)
						}
					}
					return m.Close()
				})
			})
		}
	}
}
