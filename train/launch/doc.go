// Package launch starts a run of several processes, and tells each process which of them it is. It knows nothing of
// training: the processes meet over a store and share the work elsewhere.
//
//	world, err := launch.FromEnv(os.Getenv) // in each process
//
//	l := launch.Launcher{Command: []string{"gopeft", "train", …}, Procs: 4, Stdout: os.Stdout, Stderr: os.Stderr}
//	err = l.Run(ctx) // in the process that starts them
//
// # Terms
//
//   - world: the processes of a run; rank: the number of one, from 0; size: how many there are
//   - local rank, local size: the same among the processes of one machine
//   - node: a machine, or a pod of Kubernetes, as launchers number them
//   - store: the small server under an address and a port through which the processes find each other; rank 0 keeps it,
//     or the launcher does
//   - attempt: one start of all the processes; after a failure a launcher may start them again
//   - step: what one srun starts within a job of Slurm
package launch
