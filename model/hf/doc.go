// Package hf reads and writes HuggingFace checkpoints: config.json and weights in any of the formats of
// package files, matched by name against what a model wants.
package hf
