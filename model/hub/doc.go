// Package hub fetches models and data sets from the HuggingFace hub into the cache that its Python libraries
// use, and finds what they have fetched.
//
//	client, err := hub.FromEnv(os.Getenv)
//	folder, err := client.Pull(ctx, hub.Repo{ID: "distilbert-base-uncased"}, hub.ModelFiles)
//
// A file is downloaded under its hash, checked against size and hash, and linked into a snapshot folder only
// then; a download that was cut goes on where it stopped. Nothing that the server says is trusted: not the names
// of files, not their sizes, and the token goes to the hub alone, never to where it redirects.
//
// # Terms
//
//   - repository: a model or data set on the hub, "org/name"
//   - revision: a branch, tag or commit of a repository
//   - listing: the commit that a revision stands for, and the names of its files
//   - blob: a file's content, kept in the cache under its hash
//   - snapshot: a folder of the cache with a commit's files, as links to blobs
//   - reference: the file refs/REVISION in the cache, which holds the commit that the revision stood for
//   - partial file: the part of a blob that has been downloaded
//   - passing error: one that may be gone at the next attempt, so that the request is made again
package hub
