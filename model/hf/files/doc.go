// Package files reads and writes the weight files of the model world without a
// tensor library: safetensors (single and sharded), PyTorch's pickled archives
// and GGUF. It depends on the standard library and the mmap system call only.
//
// Every reader gives an [Archive]: named entries in the order of their bytes on
// disk, whose data are views of the memory-mapped file wherever the format
// allows it. Opening a file therefore costs its header, and reading the entries
// in order reads the disk sequentially.
//
//	archive, err := files.Open("model.safetensors")
//	if err != nil {
//		return err
//	}
//	defer archive.Close()
//	for _, entry := range archive.Entries() {
//		row := make([]float32, entry.Shape[len(entry.Shape)-1])
//		if err := entry.Float32(row, 0); err != nil {
//			return err
//		}
//	}
//
// A quantised weight may lie in several tensors: codes, scales and more. [Group]
// makes one entry of them, which the packages above compute with.
//
// Nothing in a file is trusted. Sizes, offsets, shapes, names, paths in an index
// and pickle programs are checked before they are used, no pickle code is ever
// executed, and a malformed file is one error naming the file and the tensor.
// A file that another process shortens while it is mapped is an error from
// [Entry.Float32]; only code that uses Data in place cannot be defended against
// it.
//
// The writers stream tensor by tensor, never hold more than one in memory, and
// replace the destination atomically.
package files
