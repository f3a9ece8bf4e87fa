// Package provenance records what a run was made of and what it made, in provenance.json in its folder, and compares the
// record with what is there later.
//
// Read are the data, the model with its tokenizer, and the adapter of --adapter-init. Their hashes are taken while the run
// works, weights' by train/run/inputs. Written is all else in the run's folder, hashed once the run has finished: until
// then the record says that it has not. Of a checkpoint's state the checksums are taken over that the state itself holds.
//
// A folder that a command makes at once (merge, convert, quantize) has a record too: of the model and the adapter that it
// was made of, and of its files.
package provenance
