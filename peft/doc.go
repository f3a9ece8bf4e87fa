// Package peft holds the parameter-efficient fine-tuning methods and the adapter files on disk.
//
// A method is made by New and put on a model by Attach: it then works through the model's hook points and
// decides what is trainable. Detach gives the base model back bit for bit, and Attach puts the method, with
// what it has learned, on again. Save writes it in the format the rest of the world reads (a peft or an
// AdapterHub folder); Load reads those and more.
//
//	method, err := peft.New("lora", peft.Options{LoRAOptions: peft.LoRAOptions{Rank: 8}})
//	…
//	err = method.Attach(s, m)
//	for _, p := range method.Trainable(m) { … }
//	err = method.Save(s, "adapter", m)
//
// A method is one file, which tells all that others ask of it in a Definition; a Catalog is a list of those. A library's
// adapter files are a dialect, in files named dialect_*.go. CONTRIBUTING.md says how to add either.
//
// The package's own words:
//
//   - method: a way to fine-tune, full fine-tuning included; as a Method, one that was made and can be attached;
//   - adapter: what a method has learned, on disk;
//   - definition: what a method's file says of it; catalog: a list of definitions;
//   - tuner: a method's working part, which adds parameters and puts them on hook points;
//   - structure: a model's blocks and widths, known without weights; target: a linear map that a method changes;
//   - attachment: a model's hook points with the method's parameters, which a tuner attaches itself with;
//   - memo: tensors computed from parameters alone, kept while these stay the same;
//   - trained weights: the model's own weights that a method trains too, as copies unless it trains in place;
//   - silent: said of a parameter whose first gradient may be zero by construction;
//   - stored values: what a file has for parameters, in place of their first values;
//   - dialect: one library's layout of adapter files; portable: that library computes the same from them;
//   - sidecar: gopeft.yaml, which holds what a library's files have no place for;
//   - fingerprint: a base model's shape and a sample of its weights, to tell it from others;
//   - table: the token embeddings or the language-model head, of which LoRA may have an update or rows of its own;
//   - folded: said of a library's files that are read as the LoRA that computes the same;
//   - spread: said of a prefix with keys and values for every head of the queries, where the model's own are shared;
//   - uncounted: said of a prefix whose positions the rotation of a text does not count.
package peft
