// Package dist lets the processes of one run meet, agree, add up what they computed, and learn why one of them failed.
//
// The engine is libtorch's c10d (bindings.Store, bindings.Group); who the processes are is told by package launch. A nil
// *Group is one process alone: its methods then cost nothing and give back what they were given.
//
// The definition of a run of N processes is that it is the run of one: a batch's rows are dealt to the ranks, sums are
// taken over all of them before anything is divided, and each rank then takes the same step.
//
// The package's own words:
//
//   - rank: a process's number, 0 for the one that writes and prints;
//   - store: the words under keys that all ranks see, kept by rank 0 or by the launcher;
//   - beat: what a rank writes into the store every second, so that the others know that it lives, and where it is;
//   - fault: the reason why a rank failed, left in the store for the others.
package dist
