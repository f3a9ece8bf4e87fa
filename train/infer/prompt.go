package infer

import (
	"context"
	"fmt"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/prompted"
)

// loadPrompt readies the source's prompt to classify by.
func (p *Predictor) loadPrompt() error {
	prompt, err := prompted.Load(p.source.Prompt)
	if err != nil {
		return err
	}
	lm, ok := p.model.(model.CausalLM)
	if !ok {
		return fmt.Errorf("%s is a %s model: it reads texts, it does not write them, which a prompt takes", p.source.Model, p.model.Info().Family)
	}
	sc := prompted.Scorer{LM: lm, On: p.on, Pad: p.pad, Batch: p.opts.Batch, MaxTokens: p.opts.MaxTokens}
	enc := train.CausalEncoder{Tokenizer: p.Tokenizer, Missing: p.noTok, Vocab: lm.Info().Vocab}
	p.prompt = &prompted.Classifier{Prompt: prompt, Encoder: enc, Scorer: sc, Workers: train.MachineSettings{Threads: p.opts.Threads, Group: p.opts.Group}.Cores()}
	p.Labels = prompt.Labels
	return nil
}

// ask classifies examples by the prompt.
func (p *Predictor) ask(ctx context.Context, s *bindings.Scope, examples []data.Example) ([]Prediction, error) {
	p.prompt.MaxLength = p.MaxLength
	scores, err := p.prompt.Scores(ctx, s, examples)
	if err != nil {
		return nil, err
	}
	return Asked(scores, p.Labels), nil
}

// Asked makes predictions of the scores that a prompt gives labels: as logits their shares are the probabilities.
func Asked(scores [][]float64, labels []string) []Prediction {
	out := make([]Prediction, len(scores))
	for i, row := range scores {
		logits := make([]float32, len(row))
		for j, v := range row {
			logits[j] = float32(v)
		}
		out[i] = Prediction{Label: prompted.Best(row), Labels: labels, Probs: softmax(logits), Logits: logits}
	}
	return out
}

// Scorer gives log-likelihoods of what follows prompts, with the adapter attached.
func (g *Generator) Scorer(batch, maxTokens int, progress func(done, total int)) (prompted.Scorer, error) {
	pad, err := g.pad()
	return prompted.Scorer{LM: g.lm, On: g.on, Pad: pad, Batch: batch, MaxTokens: maxTokens, Progress: progress}, err
}

// ScoreShared is Score where all sequences begin alike: those tokens are computed once.
func (g *Generator) ScoreShared(ctx context.Context, s *bindings.Scope, seqs []data.Sequence, o ScoreOptions) ([]RowScore, error) {
	sc, err := g.Scorer(o.Batch, o.MaxTokens, o.Progress)
	if err != nil {
		return nil, err
	}
	losses, targets, err := sc.Losses(ctx, s, seqs)
	if err != nil {
		return nil, err
	}
	scores := make([]RowScore, len(seqs))
	for i := range scores {
		scores[i] = RowScore{losses[i], int(targets[i])}
	}
	return scores, nil
}

// Encoder tokenizes as training does, to at most maxLength tokens; 0: to any.
func (g *Generator) Encoder(maxLength int, withPrompt bool) train.CausalEncoder {
	enc := train.CausalEncoder{Tokenizer: g.Tokenizer, EOS: g.Defaults.EOS, Vocab: model.Vocab(g.lm), MaxLength: maxLength, TrainPrompt: withPrompt, Chat: g.chat}
	if g.Tokenizer == nil {
		enc.Missing = errNoTokenizer(g.source.Model, g.missing)
	}
	return enc
}
