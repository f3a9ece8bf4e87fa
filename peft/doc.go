// Package peft holds the parameter-efficient fine-tuning methods and the adapter files on disk.
//
// A method is made by New and put on a model by Attach: it then works through the model's hook points and
// decides what is trainable. Detach gives the base model back bit for bit, and Attach puts the method, with
// what it has learned, on again. Save writes it in the format the rest of the world reads (a peft or an
// AdapterHub folder); Load reads those and more.
//
//	method, err := peft.New("lora", peft.Options{Rank: 8})
//	…
//	err = method.Attach(s, m)
//	for _, p := range method.Trainable(m) { … }
//	err = method.Save(s, "adapter", m)
package peft
