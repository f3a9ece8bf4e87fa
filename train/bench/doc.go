// Package bench measures how fast a method trains or a model answers on a shape, with random weights or a real
// model, on made-up token ids: through the same trainer, evaluator and generator that do the real work.
package bench
