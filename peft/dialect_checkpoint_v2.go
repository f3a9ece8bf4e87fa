package peft

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf/files"
)

// LLaMA-Adapter v2 in checkpoints of lit-llama and litgpt: prompts and gates as in the first version, a shift and a scale
// for every linear map, and the norms. There one map makes queries, keys and values.

// litV2Key is a tensor that the second version adds.
var litV2Key = regexp.MustCompile(`^(?:lm_head|transformer\.h\.\d{1,4}\.(?:attn|mlp)\.\w+)\.adapter_(?:bias|scale)$|^transformer\.(?:ln_f|h\.\d{1,4}\.(?:norm|rms)_[12])\.(?:weight|scale)$`)

// fusedMaps is a layout of the map that makes queries, keys and values.
type fusedMaps struct {
	name string
	maps string // which maps prompts go through
	// split gives queries', keys' and values' parts of a vector over the map's outputs.
	split func(s *bindings.Scope, t bindings.Tensor, i model.Info) []bindings.Tensor
}

// fused are those of all versions.
var fused = [...]fusedMaps{
	{"attn.attn", mapsAdapted, splitGroups},      // litgpt: heads in turn, each group's queries before its key and value
	{"attn.qkv", mapsInterleaved, splitInOrder},  // litgpt later
	{"attn.c_attn", mapsAdapted, splitAndUnturn}, // lit-llama: rotated by pairs of neighbours
}

func splitGroups(s *bindings.Scope, t bindings.Tensor, i model.Info) []bindings.Tensor {
	group := int64(i.Heads / i.KVHeads)
	t = s.Reshape(t, int64(i.KVHeads), group+2, int64(i.HeadDim))
	var out []bindings.Tensor
	for _, part := range [][2]int64{{0, group}, {group, 1}, {group + 1, 1}} {
		out = append(out, s.Reshape(s.Narrow(t, 1, part[0], part[1]), -1))
	}
	return out
}

func splitInOrder(s *bindings.Scope, t bindings.Tensor, i model.Info) []bindings.Tensor {
	q, kv := int64(i.Heads*i.HeadDim), int64(i.KVHeads*i.HeadDim)
	return []bindings.Tensor{s.Narrow(t, 0, 0, q), s.Narrow(t, 0, q, kv), s.Narrow(t, 0, q+kv, kv)}
}

func splitAndUnturn(s *bindings.Scope, t bindings.Tensor, i model.Info) []bindings.Tensor {
	out := splitInOrder(s, t, i)
	for n, heads := range []int{i.Heads, i.KVHeads} {
		pairs := s.Reshape(out[n], int64(heads), int64(i.HeadDim)/2, 2)
		out[n] = s.Reshape(s.Transpose(pairs, 1, 2), -1)
	}
	return out
}

// plainMaps are the other maps' names: litgpt's, then lit-llama's.
var plainMaps = map[model.Slot][]string{
	model.O: {"attn.proj", "attn.c_proj"}, model.Gate: {"mlp.fc_1", "mlp.c_fc1"}, model.Up: {"mlp.fc_2", "mlp.c_fc2"}, model.Down: {"mlp.proj", "mlp.c_proj"},
}

// prepareV2 completes the options of a checkpoint of the second version.
func prepareV2(m model.Model, archive files.Archive, o *Options) error {
	if i := m.Info(); i.Family != "llama" || len(m.Labels()) > 0 {
		return errors.New("LLaMA-Adapter v2 of such a file belongs to a LLaMA language model")
	}
	_, head := archive.Lookup("lm_head.adapter_scale")
	o.SkipLMHead = !head
	o.PromptMaps = fusedKind(archive).maps
	return nil
}

// fusedKind finds the layout of the fused maps in a file: the first one where it has none, of which reading tells.
func fusedKind(archive files.Archive) fusedMaps {
	for _, kind := range fused {
		if slices.ContainsFunc(archive.Entries(), func(e files.Entry) bool { return strings.Contains(e.Name, "."+kind.name+".adapter_") }) {
			return kind
		}
	}
	return fused[0]
}

// valuesV2 reads shifts, scales and norms, and has pick look at all keys of the file.
func valuesV2(s *bindings.Scope, path string, archive files.Archive, m model.Model, a *method, g storedValues) error {
	i, kind := m.Info(), fusedKind(archive)
	var wants []want
	var put []func(t bindings.Tensor)
	ask := func(width int, use func(t bindings.Tensor), keys ...string) {
		wants, put = append(wants, want{keys, []int64{int64(width)}, false}), append(put, use)
	}
	both := func(width int, use func(suffix string, t bindings.Tensor), names ...string) {
		for _, suffix := range []string{affineBias, affineScale} {
			var keys []string
			for _, name := range names {
				keys = append(keys, name+suffix)
			}
			ask(width, func(t bindings.Tensor) { use(suffix, t) }, keys...)
		}
	}
	norm := func(p *model.Param, names ...string) {
		ask(i.Hidden, func(t bindings.Tensor) { g.model[p.Name] = t }, names...)
	}
	structure := structureOf(m)
	for n, b := range structure.Blocks {
		at := fmt.Sprintf("transformer.h.%d.", n)
		own := func(slot model.Slot) string {
			module, _ := b.Module(slot)
			return b.Name + "." + module.Name
		}
		both((i.Heads+2*i.KVHeads)*i.HeadDim, func(suffix string, t bindings.Tensor) {
			for part, t := range kind.split(s, t, i) {
				g.own[own([]model.Slot{model.Q, model.K, model.V}[part])+suffix] = t
			}
		}, at+kind.name)
		for _, slot := range []model.Slot{model.O, model.Gate, model.Up, model.Down} {
			module, _ := b.Module(slot)
			both(module.Out, func(suffix string, t bindings.Tensor) { g.own[own(slot)+suffix] = t }, at+plainMaps[slot][0], at+plainMaps[slot][1])
		}
		for k, p := range normsOf(m, b.Name+".") {
			norm(p, fmt.Sprintf("%snorm_%d.weight", at, k+1), fmt.Sprintf("%srms_%d.scale", at, k+1))
		}
	}
	if !a.o.SkipLMHead {
		both(i.Vocab, func(suffix string, t bindings.Tensor) { g.own[i.LMHead+suffix] = t }, "lm_head")
	}
	for _, p := range m.Params().All() {
		if p.Norm && !strings.HasPrefix(p.Name, i.Blocks+".") {
			norm(p, "transformer.ln_f.weight", "transformer.ln_f.scale")
		}
	}
	ts, err := pick(s, path, archive, wants, litKey.MatchString)
	for n, t := range ts {
		put[n](t)
	}
	return err
}

// normsOf are the norms of a block, that before attention first.
func normsOf(m model.Model, block string) []*model.Param {
	return slices.DeleteFunc(slices.Clone(m.Params().All()), func(p *model.Param) bool { return !p.Norm || !strings.HasPrefix(p.Name, block) })
}
