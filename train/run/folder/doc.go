// Package folder guards the folder of a run: one run at a time writes there, and what --overwrite replaces is lost only
// once the new run has something to show.
//
// Two hidden names may stand in such a folder. ".lock" is locked while a run is at work; what a killed run leaves of it
// is not, and the next run removes it. ".replaced" holds what an earlier run has left until the new one has a checkpoint.
package folder
