// Command attack attacks the built gopeft: damaged files, signals at random moments, memory and disks that end, wrong uses,
// and single changed bits. It is no part of gopeft and knows it as a user does, by its flags, files and exit codes.
//
//	go run ./scripts/attack --seconds 180 --seed 1
//
// Every case is made from the seed, its kind and its number alone. One that fails is kept in --keep with what it read, what
// the program said, and the commands (again.sh) that show it once more; `--kinds KIND --case N` with the same seed makes it anew.
//
// Terms:
//
//   - kind: fuzz, kill, flip, memory, disk, truncated or misuse; each is a file here. Another is load, made only where --kinds
//     names it: a million rows and steps, a hundred million tokens, rows of 60 MB, several runs at once; --scale 0.01 makes all
//     of that smaller;
//   - case: one attack, of one or several commands, in a folder of its own;
//   - finding: what a case has shown to be wrong; any makes attack exit with 1.
//
// What is asked of every command: it ends in time and in bounded memory, with exit code 0, 1 or 2 (130 where it was
// interrupted; 70, a fault of gopeft's own, is a finding). With --quiet it says nothing where it succeeds, and one line of
// at most 500 characters without control characters where it does not.
package main
