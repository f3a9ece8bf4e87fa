// Package infer uses what was trained: it classifies texts, scores and continues them, turns them into vectors, switches
// between several adapters on one base model, folds an adapter into its base or writes it in another format, and writes a model quantised.
//
// Its own words:
//
//   - source: what a path given as a model or adapter stands for: a folder, an adapter, the result of a run;
//   - bare model: the base model without any of the adapters loaded on it;
//   - stretch: rows of a data file that are read and tokenized at a time.
package infer
