package model

import (
	"slices"
	"strings"
)

// refused says what a model_type stands for that no family here will ever load, "" of others.
func refused(modelType string) string {
	for _, kind := range []struct{ what, types string }{
		{"it is a mixture of experts", "mixtral qwen2_moe qwen3_moe qwen3_next phimoe granitemoe granitemoehybrid granitemoeshared olmoe " +
			"deepseek_v2 deepseek_v3 gpt_oss llama4_text dbrx jamba jetmoe minimax ernie4_5_moe glm4_moe hunyuan_v1_moe switch_transformers"},
		{"it is an encoder with a decoder", "t5 mt5 umt5 longt5 bart mbart pegasus pegasus_x marian m2m_100 led blenderbot blenderbot-small prophetnet " +
			"encoder-decoder whisper speech_to_text fsmt nllb-moe t5gemma bigbird_pegasus plbart"},
		{"it sees pictures, and only text models are read", "gemma3 gemma3n llama4 mllama llava llava_next llava_onevision qwen2_vl qwen2_5_vl qwen3_vl qwen2_5_omni " +
			"paligemma idefics idefics2 idefics3 smolvlm pixtral mistral3 internvl phi4_multimodal vit clip siglip blip blip-2 aya_vision kosmos-2"},
	} {
		if slices.Contains(strings.Fields(kind.types), modelType) {
			return kind.what
		}
	}
	return ""
}

// nearest is the name among known ones that the fewest changes of a letter make of name.
func nearest(name string, known []string) string {
	best, fewest := "", -1
	for _, k := range known {
		if n := changes(name, k); fewest < 0 || n < fewest {
			best, fewest = k, n
		}
	}
	return best
}

// changes counts the letters to put in, take out or replace to make b of a (Levenshtein 1966).
func changes(a, b string) int {
	const most = 64 // a name from a file may be long
	a, b = a[:min(len(a), most)], b[:min(len(b), most)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			same := 1
			if a[i] == b[j] {
				same = 0
			}
			before, row[j+1] = row[j+1], min(before+same, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
