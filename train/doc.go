// Package train is the training loop: what it computes on, its optimizer, schedule and mixed precision, the tasks it
// learns, and the state that it goes on from to the same bits. What a run leaves in a folder is package run's, the use
// of what was trained package infer's.
//
// Its own words:
//
//   - task: how a batch becomes a loss, classification or next-token prediction;
//   - part: one part of the data (training, validation, test), tokenized and ready to be batched;
//   - machine: device, precision and means of speed of a run;
//   - lever: a means of speed that can be left off (--without) and changes no result;
//   - pass: tokens that go through the model at once without gradients;
//   - position: a point in training, in steps, epochs and batches.
package train
