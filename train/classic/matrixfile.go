package classic

import (
	"unsafe"

	"gopeft/model/hf/files"
)

// WriteMatrix writes a feature matrix as tensor "features" of a safetensors file, with metadata, which may be nil.
func WriteMatrix(path string, x Matrix, meta map[string]string) error {
	return files.WriteSafetensors(path, []files.Tensor{{Name: "features", DType: files.F32, Shape: []int64{int64(x.Rows), int64(x.Cols)}, Data: x.Bytes()}}, meta)
}

// Bytes views the values as little-endian bytes; gopeft runs on little-endian machines only.
func (x Matrix) Bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x.Data))), 4*len(x.Data))
}
