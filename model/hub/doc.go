// Package hub fetches models and data sets from the HuggingFace hub into the cache that its Python libraries
// use, and finds what they have fetched.
//
//	client, err := hub.FromEnv(os.Getenv)
//	folder, err := client.Pull(ctx, hub.Repo{ID: "distilbert-base-uncased"}, hub.ModelFiles)
//
// A file is downloaded under its hash, checked against size and hash, and linked into a snapshot folder only
// then; a download that was cut goes on where it stopped. Nothing that the server says is trusted: not the names
// of files, not their sizes, and the token goes to the hub alone, never to where it redirects.
package hub
