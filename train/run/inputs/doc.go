// Package inputs knows what a run has read of its model and of the adapter that it goes on from, so that a resumed run
// does not go on with other ones.
//
// A record is a list of files with their sizes, where and when they were written, and their SHA-256. Files that are where
// they were, unchanged by size, inode and times, are taken for what they are. Others are hashed: small ones at once,
// weights in the background; no checkpoint is written before that is done and found right.
package inputs
