// Package folder guards the folder of a run: what --overwrite replaces is lost only once the new run has something to show.
//
// A hidden folder ".replaced" holds what an earlier run has left until the new one has a checkpoint. Beside it stands
// ".lock" while a run is at work, for one at a time writes there.
package folder
