package peft_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gopeft/model"
	"gopeft/peft"
)

// variant is a method with options worth a proof of its own.
type variant struct {
	name    string
	method  string
	o       peft.Options
	neutral bool // logits at the start equal the base model's
	rounded bool // but for rounding, of what is taken out of weights and added again
	// own are the names of the method's own parameters in order, count is how many numbers they hold by formula; nil
	// for none. tuned is how many numbers of the model, its head apart, it trains; nil where it trains none, or what
	// checkNames lists.
	own          func(f family, i model.Info) []string
	count, tuned func(f family, i model.Info) int
}

// layout is how a family names its parts.
type layout struct {
	blocks, attention string
	slots, maps       string // of a block, in the model's order
	// norms are the numbers in a block's normalisations, other in the model's beside them.
	norms, other func(i model.Info) int
	shifts       bool // normalisations have a bias as well, which is half of their numbers
	pooler       bool // there is a frozen map before the head, whose bias is a bias too
}

const (
	bertMaps   = "attention.self.query attention.self.key attention.self.value attention.output.dense intermediate.dense output.dense"
	plainSlots = "q k v o up down"
	gatedSlots = "q k v o gate up down"
	gatedMaps  = "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj mlp.down_proj"
)

func hiddens(n int) func(model.Info) int { return func(i model.Info) int { return n * i.Hidden } }

var layouts = map[string]layout{
	"distilbert": {"distilbert.transformer.layer", "attention", plainSlots,
		"attention.q_lin attention.k_lin attention.v_lin attention.out_lin ffn.lin1 ffn.lin2", hiddens(4), hiddens(2), true, false},
	"bert":    {"bert.encoder.layer", "attention", plainSlots, bertMaps, hiddens(4), hiddens(2), true, true},
	"roberta": {"roberta.encoder.layer", "attention", plainSlots, bertMaps, hiddens(4), hiddens(2), true, false},
	"llama":   {"model.layers", "self_attn", gatedSlots, gatedMaps, hiddens(2), hiddens(1), false, false},
	"qwen3":   {"model.layers", "self_attn", gatedSlots, gatedMaps, func(i model.Info) int { return 2*i.Hidden + 2*i.HeadDim }, hiddens(1), false, false},
	"gpt2": {"transformer.h", "attn", "q k v o up down", "attn.c_attn.q attn.c_attn.k attn.c_attn.v attn.c_proj mlp.c_fc mlp.c_proj",
		hiddens(4), hiddens(2), true, false},
	"phi3": {"model.layers", "self_attn", gatedSlots, "self_attn.qkv_proj.q self_attn.qkv_proj.k self_attn.qkv_proj.v self_attn.o_proj " +
		"mlp.gate_up_proj.gate mlp.gate_up_proj.up mlp.down_proj", hiddens(2), hiddens(1), false, false},
	"olmo2":   {"model.layers", "self_attn", gatedSlots, gatedMaps, func(i model.Info) int { return 2*i.Hidden + (i.Heads+i.KVHeads)*i.HeadDim }, hiddens(1), false, false},
	"smollm3": {"model.layers", "self_attn", gatedSlots, gatedMaps, hiddens(2), hiddens(1), false, false},
	"granite": {"model.layers", "self_attn", gatedSlots, gatedMaps, hiddens(2), hiddens(1), false, false},
	"gemma2":  {"model.layers", "self_attn", gatedSlots, gatedMaps, hiddens(4), hiddens(1), false, false},
	"gemma3":  {"model.layers", "self_attn", gatedSlots, gatedMaps, func(i model.Info) int { return 4*i.Hidden + 2*i.HeadDim }, hiddens(1), false, false},
}

// maps are the linear maps of a block by slot, in the model's order.
func maps(i model.Info) (slots, names []string) {
	l := layouts[i.Family]
	return strings.Fields(l.slots), strings.Fields(l.maps)
}

const allSlots = "q k v o gate up down"

// widths adds in and out widths over the maps of a block.
func widths(i model.Info, slots string) (in, out int) {
	q, kv := i.Heads*i.HeadDim, i.KVHeads*i.HeadDim
	has, _ := maps(i)
	for _, slot := range strings.Fields(slots) {
		if !slices.Contains(has, slot) {
			continue
		}
		w := map[string][2]int{"q": {i.Hidden, q}, "k": {i.Hidden, kv}, "v": {i.Hidden, kv}, "o": {q, i.Hidden}, "up": {i.Hidden, i.FFN}, "gate": {i.Hidden, i.FFN}, "down": {i.FFN, i.Hidden}}[slot]
		in, out = in+w[0], out+w[1]
	}
	return in, out
}

// inBlocks names parts of every block from a layer on.
func inBlocks(i model.Info, from int, parts ...string) (names []string) {
	prefix := layouts[i.Family].blocks
	for layer := from; layer < i.Layers; layer++ {
		for _, part := range parts {
			names = append(names, fmt.Sprintf("%s.%d.%s", prefix, layer, part))
		}
	}
	return names
}

// onMaps names parts of the maps in slots of every block.
func onMaps(slots string, parts ...string) func(family, model.Info) []string {
	return func(_ family, i model.Info) []string {
		var of []string
		has, names := maps(i)
		for n, slot := range has {
			for _, part := range parts {
				if slices.Contains(strings.Fields(slots), slot) {
					of = append(of, names[n]+"."+part)
				}
			}
		}
		return inBlocks(i, 0, of...)
	}
}

// bottlenecks names the adapters at sites of every block.
func bottlenecks(sites ...string) func(family, model.Info) []string {
	return func(_ family, i model.Info) []string {
		var of []string
		for _, site := range sites {
			for _, part := range []string{"adapter_down.0.weight", "adapter_down.0.bias", "adapter_up.weight", "adapter_up.bias"} {
				of = append(of, site+"."+part)
			}
		}
		return inBlocks(i, 0, of...)
	}
}

// prompts names adaption prompts and gates from a layer on; counted from the top where it is negative.
func prompts(from int) func(family, model.Info) []string {
	return func(_ family, i model.Info) []string {
		attention := layouts[i.Family].attention
		return inBlocks(i, (from+i.Layers)%i.Layers, attention+".adaption_prompt", attention+".adaption_gate")
	}
}

func these(names ...string) func(family, model.Info) []string {
	return func(family, model.Info) []string { return names }
}

func bottleneckCount(sites int) func(family, model.Info) int {
	return func(_ family, i model.Info) int { return sites * i.Layers * (2*4*i.Hidden + 4 + i.Hidden) }
}

// blockNorms are the numbers in the normalisations of the blocks, allNorms in all of the model's.
func blockNorms(_ family, i model.Info) int { return i.Layers * layouts[i.Family].norms(i) }

func allNorms(f family, i model.Info) int { return blockNorms(f, i) + layouts[i.Family].other(i) }

var variants = []variant{
	{name: "full", method: "full", neutral: true},
	{name: "full-unfreeze", method: "full", o: peft.Options{Unfreeze: []string{"*.1.*"}}, neutral: true},
	{name: "last", method: "last", neutral: true},
	{name: "last-unfreeze", method: "last", o: peft.Options{Unfreeze: []string{"*.1.*"}}, neutral: true},
	{name: "lora", method: "lora", o: peft.Options{LoRAOptions: peft.LoRAOptions{Rank: 4}}, neutral: true, own: onMaps("q v", "lora_A.weight", "lora_B.weight"), count: func(_ family, i model.Info) int {
		in, out := widths(i, "q v")
		return i.Layers * 4 * (in + out)
	}},
	{name: "lora-all", method: "lora", o: peft.Options{LoRAOptions: peft.LoRAOptions{Rank: 2, RSLoRA: true, LoRADropout: 0.5}, TargetOptions: peft.TargetOptions{Targets: []string{"all"}}}, neutral: true, own: onMaps(allSlots, "lora_A.weight", "lora_B.weight"), count: func(_ family, i model.Info) int {
		in, out := widths(i, allSlots)
		return i.Layers * 2 * (in + out)
	}},
	{name: "lora-pissa", method: "lora", o: peft.Options{LoRAOptions: peft.LoRAOptions{Rank: 4, LoRAInit: "pissa", LoRADropout: 0.1}}, neutral: true, rounded: true, own: onMaps("q v", "lora_A.weight", "lora_B.weight", "lora_A.start", "lora_B.start"), count: func(_ family, i model.Info) int {
		in, out := widths(i, "q v")
		return i.Layers * 4 * (in + out)
	}},
	{name: "dora-olora", method: "dora", o: peft.Options{LoRAOptions: peft.LoRAOptions{Rank: 2, LoRAInit: "olora", LoRADropout: 0.1}}, neutral: true, rounded: true, own: onMaps("q v", "lora_A.weight", "lora_B.weight", "lora_A.start", "lora_B.start", "lora_magnitude_vector"), count: func(_ family, i model.Info) int {
		in, out := widths(i, "q v")
		return i.Layers * (2*(in+out) + out)
	}},
	{name: "lora-patterns", method: "lora", o: peft.Options{
		LoRAOptions:   peft.LoRAOptions{Rank: 2, RSLoRA: true, LoRAInit: "pissa_niter_3", RankPattern: []string{"0.*=3", `([vo]_(lin|proj)|value|(c_attn|qkv_proj)\.v)=1`}, AlphaPattern: []string{`(q_|que|(c_attn|qkv_proj)\.q).*=7`}},
		TargetOptions: peft.TargetOptions{Layers: []int{0, 1}},
	}, neutral: true, rounded: true, own: func(_ family, i model.Info) (names []string) {
		return slices.DeleteFunc(onMaps("q v", "lora_A.weight", "lora_B.weight", "lora_A.start", "lora_B.start")(family{}, i), func(name string) bool { return strings.Contains(name, ".2.") })
	}, count: func(_ family, i model.Info) int {
		qIn, qOut := widths(i, "q")
		vIn, vOut := widths(i, "v")
		return 3*(qIn+qOut+vIn+vOut) + 2*(qIn+qOut) + 1*(vIn+vOut)
	}},
	{name: "dora", method: "dora", o: peft.Options{LoRAOptions: peft.LoRAOptions{Rank: 4}, TargetOptions: peft.TargetOptions{Targets: []string{"q", "down"}}}, neutral: true, own: onMaps("q down", "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"), count: func(_ family, i model.Info) int {
		in, out := widths(i, "q down")
		return i.Layers * (4*(in+out) + out)
	}},
	{name: "ia3", method: "ia3", neutral: true, own: onMaps("k v down", "ia3_l"), count: func(_ family, i model.Info) int {
		_, kv := widths(i, "k v")
		return i.Layers * (kv + i.FFN)
	}},
	{name: "bitfit", method: "bitfit", neutral: true, own: func(f family, i model.Info) []string {
		if f.biased {
			return nil
		}
		return onMaps(allSlots, "bias")(f, i)
	}, count: func(f family, i model.Info) int { return i.Layers * biases(i) * toInt(!f.biased) }, tuned: func(f family, i model.Info) int {
		n := i.Layers * biases(i) * toInt(f.biased)
		if layouts[i.Family].shifts {
			n += allNorms(f, i) / 2
		}
		if layouts[i.Family].pooler {
			n += i.Hidden
		}
		return n
	}},
	{name: "oft", method: "oft", o: peft.Options{OFTOptions: peft.OFTOptions{BlockSize: 4}}, neutral: true, own: onMaps("q v", "oft_R.weight"), count: func(_ family, i model.Info) int {
		in, _ := widths(i, "q v")
		return i.Layers * in / 4 * 6
	}},
	{name: "boft", method: "boft", o: peft.Options{BOFTOptions: peft.BOFTOptions{Butterflies: 2}}, neutral: true, own: onMaps("q v", "boft_R", "boft_s"), count: func(_ family, i model.Info) int {
		in, out := widths(i, "q v")
		return i.Layers * (2*in*4 + out)
	}},
	{name: "ln-tuning", method: "ln-tuning", neutral: true, tuned: allNorms},
	{name: "prompt", method: "prompt", o: peft.Options{PromptOptions: peft.PromptOptions{VirtualTokens: 5}}, own: these("prompt_embeddings"), count: func(_ family, i model.Info) int { return 5 * i.Hidden }},
	{name: "prefix", method: "prefix", o: peft.Options{PromptOptions: peft.PromptOptions{VirtualTokens: 5}}, own: these("prompt_embeddings"), count: func(_ family, i model.Info) int { return 5 * 2 * i.Layers * i.KVHeads * i.HeadDim }},
	{name: "prefix-projection", method: "prefix", o: peft.Options{PromptOptions: peft.PromptOptions{VirtualTokens: 5}, PrefixOptions: peft.PrefixOptions{PrefixProjection: true, PrefixHidden: 6}}, own: func(_ family, i model.Info) []string {
		names := []string{"embedding.weight", "transform.0.weight", "transform.0.bias"}
		for layer := range i.Layers {
			names = append(names, fmt.Sprintf("transform.2.%d.weight", layer), fmt.Sprintf("transform.2.%d.bias", layer))
		}
		return names
	}, count: func(_ family, i model.Info) int {
		w := i.KVHeads * i.HeadDim
		return 5*w + 6*w + 6 + 2*i.Layers*w*(6+1)
	}},
	{name: "houlsby", method: "houlsby", o: peft.Options{BottleneckOptions: peft.BottleneckOptions{Bottleneck: 4}}, own: bottlenecks("attention_adapters", "output_adapters"), count: bottleneckCount(2)},
	{name: "houlsby-norms", method: "houlsby", o: peft.Options{BottleneckOptions: peft.BottleneckOptions{Bottleneck: 4, TrainLayerNorm: true}}, own: bottlenecks("attention_adapters", "output_adapters"), count: bottleneckCount(2), tuned: blockNorms},
	{name: "pfeiffer", method: "pfeiffer", o: peft.Options{BottleneckOptions: peft.BottleneckOptions{Bottleneck: 4}}, own: bottlenecks("output_adapters"), count: bottleneckCount(1)},
	{name: "llama-adapter", method: "llama-adapter", o: peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{AdapterLength: 4}}, neutral: true, own: prompts(0), count: func(_ family, i model.Info) int { return i.Layers * (4*i.Hidden + i.Heads) }},
	{name: "llama-adapter-tanh", method: "llama-adapter", o: peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{AdapterLength: 4, AdapterLayers: 1, Gate: "layer", GateTanh: true}}, neutral: true, own: prompts(-1), count: func(_ family, i model.Info) int { return 4*i.Hidden + 1 }},
	{name: "llama-adapter-v2", method: "llama-adapter-v2", o: peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{AdapterLength: 4}}, neutral: true, own: func(f family, i model.Info) []string {
		names := slices.Concat(prompts(0)(f, i), onMaps(allSlots, "adapter_bias", "adapter_scale")(f, i))
		if !f.classify {
			names = append(names, "lm_head.adapter_bias", "lm_head.adapter_scale")
		}
		return names
	}, count: func(f family, i model.Info) int {
		_, out := widths(i, allSlots)
		return i.Layers*(4*i.Hidden+i.Heads+2*out) + 2*i.Vocab*toInt(!f.classify)
	}, tuned: allNorms},
}

// biases are the numbers in the biases of a block's maps.
func biases(i model.Info) int {
	_, out := widths(i, allSlots)
	return out
}

func toInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func checkCount(t *testing.T, f family, v variant, m model.Model, method peft.Method) {
	t.Helper()
	own, _ := method.Params().Count() // frozen ones apart
	want := 0
	if v.count != nil {
		want = v.count(f, m.Info())
	}
	if own != int64(want) {
		t.Errorf("%d parameters of its own, want %d", own, want)
	}
	if v.tuned != nil {
		tuned := int64(0)
		for _, p := range m.Params().Trainable() {
			if !ofHead(m, p) {
				tuned += p.T.Numel()
			}
		}
		if want := v.tuned(f, m.Info()); tuned != int64(want) {
			t.Errorf("%d of the model's parameters are trained beside the head, want %d", tuned, want)
		}
	}
	if v.method == "bitfit" || v.method == "llama-adapter-v2" && len(m.Labels()) > 0 {
		return // Count knows the model's shape alone
	}
	n, err := peft.Count(v.method, v.o, m.Info())
	if err != nil || n != own {
		t.Errorf("Count says %d (%v), there are %d", n, err, own)
	}
}

func ofHead(m model.Model, p *model.Param) bool {
	return slices.ContainsFunc(m.HeadNames(), func(h string) bool { return strings.HasPrefix(p.Name, h+".") })
}

// checkNames checks the names of what is trained: all of the method's own, the head, and nothing of the model beyond
// what the method trains.
func checkNames(t *testing.T, f family, v variant, m model.Model, method peft.Method, trainable []*model.Param) {
	t.Helper()
	if len(trainable) == 0 {
		t.Error("nothing is trainable")
	}
	var names, want []string
	next := 0
	for _, p := range method.Params().All() {
		names = append(names, p.Name)
		switch {
		case strings.HasSuffix(p.Name, ".start"):
			if p.Trainable {
				t.Errorf("%s is trainable", p.Name)
			}
		case !trainable[next].Trainable || trainable[next] != p:
			t.Errorf("%s is not trainable", p.Name)
		default:
			next++
		}
	}
	if v.own != nil {
		want = v.own(f, m.Info())
	}
	slices.Sort(names)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("the method's parameters are %v, want %v", names, want)
	}
	for _, p := range m.Params().All() {
		want := ofHead(m, p)
		norm := strings.Contains(strings.ToLower(p.Name), "norm") || strings.Contains(p.Name, ".ln_")
		switch v.name {
		case "full":
			want = true
		case "full-unfreeze", "last-unfreeze":
			want = want || strings.Contains(p.Name, ".1.")
		case "bitfit":
			want = want || strings.HasSuffix(p.Name, ".bias")
		case "houlsby-norms":
			want = want || norm && strings.HasPrefix(p.Name, layouts[m.Info().Family].blocks+".")
		case "llama-adapter-v2", "ln-tuning":
			want = want || norm
		}
		if v.method == "last" && !f.classify {
			head := "lm_head.weight"
			if m.Params().Get(head) == nil {
				head = m.Hooks().Words.Name
			}
			want = want || slices.Contains([]string{head, "model.norm.weight", "transformer.ln_f.weight", "transformer.ln_f.bias"}, p.Name)
		}
		if p.Trainable != want {
			t.Errorf("%s: trainable is %v, want %v", p.Name, p.Trainable, want)
		}
	}
}
