// Package run is one training run as a user sees it: its settings, its folder with checkpoints and results, resuming,
// the comparison of several runs, classifiers on frozen features, and the estimate of the memory that a run takes.
//
// Its own words:
//
//   - group: settings that belong together; whatever lies below this package is given its group alone;
//   - chosen, automatic: what a run decided for itself where a setting was left open;
//   - fingerprint: a hash of all that a resumed run must share with the one it goes on from.
package run
