// Package train fine-tunes models: the loop with mixed precision, schedules, checkpoints and exact resume, and
// the run folder it leaves behind.
package train
