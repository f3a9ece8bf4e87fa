// Package csrc is gopeft's own C++ over libtorch: what gotch does not offer (see shim.h), and the fused kernels.
//
// It is apart from package bindings so that editing Go there does not recompile C++. Its functions mirror
// shim.h one to one: those that can fail return libtorch's message, "" for success. Only bindings uses it.
package csrc

/*
#cgo CXXFLAGS: -std=c++17 -O3 -g0 -DGOPEFT_OWN_CXX -Wno-deprecated-declarations
#cgo LDFLAGS: -lstdc++ -ltorch -lc10 -ltorch_cpu
#include <stdlib.h>
#include "shim.h"
#cgo noescape gp_dim
#cgo nocallback gp_dim
#cgo noescape gp_size
#cgo nocallback gp_size
#cgo noescape gp_numel
#cgo nocallback gp_numel
#cgo noescape gp_dtype
#cgo nocallback gp_dtype
#cgo noescape gp_device
#cgo nocallback gp_device
#cgo noescape gp_is_contiguous
#cgo nocallback gp_is_contiguous
#cgo noescape gp_requires_grad
#cgo nocallback gp_requires_grad
#cgo noescape gp_is_leaf
#cgo nocallback gp_is_leaf
#cgo noescape gp_data
#cgo nocallback gp_data
#cgo noescape gp_item_size
#cgo nocallback gp_item_size
#cgo noescape gp_from_blob
#cgo nocallback gp_from_blob
#cgo noescape gp_empty
#cgo nocallback gp_empty
#cgo noescape gp_full
#cgo nocallback gp_full
#cgo noescape gp_arange
#cgo nocallback gp_arange
#cgo noescape gp_uniform_
#cgo nocallback gp_uniform_
#cgo noescape gp_normal_
#cgo nocallback gp_normal_
#cgo noescape gp_to
#cgo nocallback gp_to
#cgo noescape gp_copy_
#cgo nocallback gp_copy_
#cgo noescape gp_read
#cgo nocallback gp_read
#cgo noescape gp_add_scalar
#cgo nocallback gp_add_scalar
#cgo noescape gp_mul_scalar
#cgo nocallback gp_mul_scalar
#cgo noescape gp_pow_scalar
#cgo nocallback gp_pow_scalar
#cgo noescape gp_masked_fill
#cgo nocallback gp_masked_fill
#cgo noescape gp_clamp
#cgo nocallback gp_clamp
#cgo noescape gp_compare_scalar
#cgo nocallback gp_compare_scalar
#cgo noescape gp_compare
#cgo nocallback gp_compare
#cgo noescape gp_slice
#cgo nocallback gp_slice
#cgo noescape gp_clone
#cgo nocallback gp_clone
#cgo noescape gp_attention
#cgo nocallback gp_attention
#cgo noescape gp_add_
#cgo nocallback gp_add_
#cgo noescape gp_mul_scalar_
#cgo nocallback gp_mul_scalar_
#cgo noescape gp_fill_
#cgo nocallback gp_fill_
#cgo noescape gp_set_requires_grad
#cgo nocallback gp_set_requires_grad
#cgo noescape gp_backward
#cgo noescape gp_grad_of
#cgo noescape gp_get_grad
#cgo nocallback gp_get_grad
#cgo noescape gp_set_grad
#cgo nocallback gp_set_grad
#cgo noescape gp_grad_enabled
#cgo nocallback gp_grad_enabled
#cgo noescape gp_set_grad_enabled
#cgo nocallback gp_set_grad_enabled
#cgo noescape gp_inference_enter
#cgo nocallback gp_inference_enter
#cgo noescape gp_inference_leave
#cgo nocallback gp_inference_leave
#cgo noescape gp_autocast_set
#cgo nocallback gp_autocast_set
#cgo noescape gp_seed
#cgo nocallback gp_seed
#cgo noescape gp_rng_get
#cgo nocallback gp_rng_get
#cgo noescape gp_rng_set
#cgo nocallback gp_rng_set
#cgo noescape gp_threads
#cgo nocallback gp_threads
#cgo noescape gp_set_threads
#cgo nocallback gp_set_threads
#cgo noescape gp_set_deterministic
#cgo nocallback gp_set_deterministic
#cgo noescape gp_flush_denormal
#cgo nocallback gp_flush_denormal
#cgo noescape gp_keep_large_blocks
#cgo nocallback gp_keep_large_blocks
#cgo noescape gp_torch_version
#cgo nocallback gp_torch_version
#cgo noescape gp_cpu_capability
#cgo nocallback gp_cpu_capability
#cgo noescape gp_library_path
#cgo nocallback gp_library_path
#cgo noescape gp_is_cxx11_abi
#cgo nocallback gp_is_cxx11_abi
#cgo noescape gp_load_library
#cgo nocallback gp_load_library
#cgo noescape gp_cuda_count
#cgo nocallback gp_cuda_count
#cgo noescape gp_cuda_capability
#cgo nocallback gp_cuda_capability
#cgo noescape gp_cuda_peak
#cgo nocallback gp_cuda_peak
#cgo noescape gp_cuda_synchronize
#cgo nocallback gp_cuda_synchronize
#cgo noescape gp_cuda_allow_tf32
#cgo nocallback gp_cuda_allow_tf32
#cgo noescape gp_cuda_no_cudnn_attention
#cgo nocallback gp_cuda_no_cudnn_attention
#cgo noescape gp_adam_step
#cgo nocallback gp_adam_step
#cgo noescape gp_sgd_step
#cgo nocallback gp_sgd_step
#cgo noescape gp_unscale
#cgo nocallback gp_unscale
#cgo noescape gp_update_scale
#cgo nocallback gp_update_scale
#cgo noescape gp_norm
#cgo nocallback gp_norm
#cgo noescape gp_first_nonfinite
#cgo nocallback gp_first_nonfinite
#cgo noescape gp_scale_all_
#cgo nocallback gp_scale_all_
#cgo noescape gp_add_all_
#cgo nocallback gp_add_all_
*/
import "C"

import "unsafe"

// Tensor is an at::Tensor* (gotch's libtch.Ctensor is the same pointer).
type Tensor = unsafe.Pointer

func cbool(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

func dimsPtr(d []int64) *C.int64_t { return (*C.int64_t)(unsafe.Pointer(unsafe.SliceData(d))) }

func listPtr(ts []Tensor) *C.gp_tensor { return (*C.gp_tensor)(unsafe.SliceData(ts)) }

// message takes over a C string that a shim function returned.
func message(c *C.char) string {
	if c == nil {
		return ""
	}
	defer C.free(unsafe.Pointer(c))
	return C.GoString(c)
}

func Dim(t Tensor) int64 {
	return int64(C.gp_dim(C.gp_tensor(t)))
}

func Size(t Tensor, dim int64) int64 {
	return int64(C.gp_size(C.gp_tensor(t), C.int64_t(dim)))
}

func Numel(t Tensor) int64 {
	return int64(C.gp_numel(C.gp_tensor(t)))
}

func Dtype(t Tensor) int {
	return int(C.gp_dtype(C.gp_tensor(t)))
}

func Device(t Tensor) int {
	return int(C.gp_device(C.gp_tensor(t)))
}

func IsContiguous(t Tensor) bool {
	return C.gp_is_contiguous(C.gp_tensor(t)) != 0
}

func RequiresGrad(t Tensor) bool {
	return C.gp_requires_grad(C.gp_tensor(t)) != 0
}

func IsLeaf(t Tensor) bool {
	return C.gp_is_leaf(C.gp_tensor(t)) != 0
}

func Data(t Tensor) unsafe.Pointer {
	return C.gp_data(C.gp_tensor(t))
}

func ItemSize(t Tensor) int64 {
	return int64(C.gp_item_size(C.gp_tensor(t)))
}

func FromBlob(out *Tensor, data unsafe.Pointer, sizes []int64, dtype int) string {
	return message(C.gp_from_blob((*C.gp_tensor)(out), data, dimsPtr(sizes), C.int(len(sizes)), C.int(dtype)))
}

func Empty(out *Tensor, sizes []int64, dtype int, device int, pinned bool) string {
	return message(C.gp_empty((*C.gp_tensor)(out), dimsPtr(sizes), C.int(len(sizes)), C.int(dtype), C.int(device), cbool(pinned)))
}

func Full(out *Tensor, sizes []int64, value float64, dtype int, device int) string {
	return message(C.gp_full((*C.gp_tensor)(out), dimsPtr(sizes), C.int(len(sizes)), C.double(value), C.int(dtype), C.int(device)))
}

func Arange(out *Tensor, start int64, end int64, dtype int, device int) string {
	return message(C.gp_arange((*C.gp_tensor)(out), C.int64_t(start), C.int64_t(end), C.int(dtype), C.int(device)))
}

func UniformInPlace(t Tensor, lo float64, hi float64) string {
	return message(C.gp_uniform_(C.gp_tensor(t), C.double(lo), C.double(hi)))
}

func NormalInPlace(t Tensor, mean float64, std float64) string {
	return message(C.gp_normal_(C.gp_tensor(t), C.double(mean), C.double(std)))
}

func To(out *Tensor, t Tensor, dtype int, device int, nonBlocking bool) string {
	return message(C.gp_to((*C.gp_tensor)(out), C.gp_tensor(t), C.int(dtype), C.int(device), cbool(nonBlocking)))
}

func CopyInPlace(dst Tensor, src Tensor, nonBlocking bool) string {
	return message(C.gp_copy_(C.gp_tensor(dst), C.gp_tensor(src), cbool(nonBlocking)))
}

func Read(t Tensor, dst unsafe.Pointer, dtype int) string {
	return message(C.gp_read(C.gp_tensor(t), dst, C.int(dtype)))
}

func AddScalar(out *Tensor, a Tensor, v float64) string {
	return message(C.gp_add_scalar((*C.gp_tensor)(out), C.gp_tensor(a), C.double(v)))
}

func MulScalar(out *Tensor, a Tensor, v float64) string {
	return message(C.gp_mul_scalar((*C.gp_tensor)(out), C.gp_tensor(a), C.double(v)))
}

func PowScalar(out *Tensor, a Tensor, v float64) string {
	return message(C.gp_pow_scalar((*C.gp_tensor)(out), C.gp_tensor(a), C.double(v)))
}

func MaskedFill(out *Tensor, a Tensor, mask Tensor, v float64) string {
	return message(C.gp_masked_fill((*C.gp_tensor)(out), C.gp_tensor(a), C.gp_tensor(mask), C.double(v)))
}

func Clamp(out *Tensor, a Tensor, lo float64, hi float64) string {
	return message(C.gp_clamp((*C.gp_tensor)(out), C.gp_tensor(a), C.double(lo), C.double(hi)))
}

func CompareScalar(out *Tensor, a Tensor, op int, v float64) string {
	return message(C.gp_compare_scalar((*C.gp_tensor)(out), C.gp_tensor(a), C.int(op), C.double(v)))
}

func Compare(out *Tensor, a Tensor, op int, b Tensor) string {
	return message(C.gp_compare((*C.gp_tensor)(out), C.gp_tensor(a), C.int(op), C.gp_tensor(b)))
}

func Slice(out *Tensor, a Tensor, dim int64, start int64, end int64, step int64) string {
	return message(C.gp_slice((*C.gp_tensor)(out), C.gp_tensor(a), C.int64_t(dim), C.int64_t(start), C.int64_t(end), C.int64_t(step)))
}

func Clone(out *Tensor, a Tensor) string {
	return message(C.gp_clone((*C.gp_tensor)(out), C.gp_tensor(a)))
}

func Attention(out *Tensor, q Tensor, k Tensor, v Tensor, mask Tensor, dropout float64, causal bool, scale float64, gqa bool) string {
	return message(C.gp_attention((*C.gp_tensor)(out), C.gp_tensor(q), C.gp_tensor(k), C.gp_tensor(v), C.gp_tensor(mask), C.double(dropout), cbool(causal), C.double(scale), cbool(gqa)))
}

func AddInPlace(dst Tensor, src Tensor, alpha float64) string {
	return message(C.gp_add_(C.gp_tensor(dst), C.gp_tensor(src), C.double(alpha)))
}

func MulScalarInPlace(t Tensor, v float64) string {
	return message(C.gp_mul_scalar_(C.gp_tensor(t), C.double(v)))
}

func FillInPlace(t Tensor, v float64) string {
	return message(C.gp_fill_(C.gp_tensor(t), C.double(v)))
}

func SetRequiresGrad(t Tensor, on bool) string {
	return message(C.gp_set_requires_grad(C.gp_tensor(t), cbool(on)))
}

func Backward(loss Tensor, grad Tensor) string {
	return message(C.gp_backward(C.gp_tensor(loss), C.gp_tensor(grad)))
}

func GradOf(outs *Tensor, output Tensor, grad Tensor, inputs []Tensor) string {
	return message(C.gp_grad_of((*C.gp_tensor)(outs), C.gp_tensor(output), C.gp_tensor(grad), listPtr(inputs), C.int(len(inputs))))
}

func GetGrad(out *Tensor, t Tensor) string {
	return message(C.gp_get_grad((*C.gp_tensor)(out), C.gp_tensor(t)))
}

func SetGrad(t Tensor, grad Tensor) string {
	return message(C.gp_set_grad(C.gp_tensor(t), C.gp_tensor(grad)))
}

func GradEnabled() bool {
	return C.gp_grad_enabled() != 0
}

func SetGradEnabled(on bool) {
	C.gp_set_grad_enabled(cbool(on))
}

func InferenceEnter() unsafe.Pointer {
	return C.gp_inference_enter()
}

func InferenceLeave(guard unsafe.Pointer) {
	C.gp_inference_leave(guard)
}

func AutocastSet(device int, enabled bool, dtype int, wasEnabled *int32, wasDtype *int32) {
	C.gp_autocast_set(C.int(device), cbool(enabled), C.int(dtype), (*C.int)(wasEnabled), (*C.int)(wasDtype))
}

func Seed(seed uint64) string {
	return message(C.gp_seed(C.uint64_t(seed)))
}

func RNGGet(out *Tensor, device int) string {
	return message(C.gp_rng_get((*C.gp_tensor)(out), C.int(device)))
}

func RNGSet(state Tensor, device int) string {
	return message(C.gp_rng_set(C.gp_tensor(state), C.int(device)))
}

func Threads() int {
	return int(C.gp_threads())
}

func SetThreads(n int) string {
	return message(C.gp_set_threads(C.int(n)))
}

func SetDeterministic(on bool) {
	C.gp_set_deterministic(cbool(on))
}

func FlushDenormal(on bool) {
	C.gp_flush_denormal(cbool(on))
}

func KeepLargeBlocks(on bool) {
	C.gp_keep_large_blocks(cbool(on))
}

func TorchVersion() string {
	return C.GoString(C.gp_torch_version())
}

func CPUCapability() string {
	return C.GoString(C.gp_cpu_capability())
}

func LibraryPath() string {
	return C.GoString(C.gp_library_path())
}

func IsCXX11ABI() bool {
	return C.gp_is_cxx11_abi() != 0
}

func LoadLibrary(path string) string {
	cpath := C.CString(path)
	defer C.free(unsafe.Pointer(cpath))
	return message(C.gp_load_library(cpath))
}

func CUDACount(n *int32) string {
	return message(C.gp_cuda_count((*C.int)(n)))
}

func CUDACapability(device int, major *int32, minor *int32) string {
	return message(C.gp_cuda_capability(C.int(device), (*C.int)(major), (*C.int)(minor)))
}

func CUDAPeak(device int, bytes *int64) string {
	return message(C.gp_cuda_peak(C.int(device), (*C.int64_t)(bytes)))
}

func CUDASynchronize(device int) string {
	return message(C.gp_cuda_synchronize(C.int(device)))
}

func CUDANoCuDNNAttention() { C.gp_cuda_no_cudnn_attention() }

func CUDAAllowTF32(on bool) {
	C.gp_cuda_allow_tf32(cbool(on))
}

func AdamStep(params []Tensor, grads []Tensor, m []Tensor, v []Tensor, steps []Tensor, lr float64, beta1 float64, beta2 float64, weightDecay float64, eps float64, decoupled bool, fused bool) string {
	return message(C.gp_adam_step(listPtr(params), listPtr(grads), listPtr(m), listPtr(v), listPtr(steps), C.int(len(params)), C.double(lr), C.double(beta1), C.double(beta2), C.double(weightDecay), C.double(eps), cbool(decoupled), cbool(fused)))
}

func SgdStep(params []Tensor, grads []Tensor, momentumBuffers []Tensor, lr float64, momentum float64, weightDecay float64, first bool) string {
	return message(C.gp_sgd_step(listPtr(params), listPtr(grads), listPtr(momentumBuffers), C.int(len(params)), C.double(lr), C.double(momentum), C.double(weightDecay), cbool(first)))
}

func Unscale(grads []Tensor, foundInf Tensor, invScale Tensor) string {
	return message(C.gp_unscale(listPtr(grads), C.int(len(grads)), C.gp_tensor(foundInf), C.gp_tensor(invScale)))
}

func UpdateScale(scale Tensor, growthTracker Tensor, foundInf Tensor, growth float64, backoff float64, interval int64) string {
	return message(C.gp_update_scale(C.gp_tensor(scale), C.gp_tensor(growthTracker), C.gp_tensor(foundInf), C.double(growth), C.double(backoff), C.int64_t(interval)))
}

func Norm(ts []Tensor, total *float64) string {
	return message(C.gp_norm(listPtr(ts), C.int(len(ts)), (*C.double)(total)))
}

func FirstNonfinite(ts []Tensor, index *int32) string {
	return message(C.gp_first_nonfinite(listPtr(ts), C.int(len(ts)), (*C.int)(index)))
}

func ScaleAllInPlace(ts []Tensor, factor float64) string {
	return message(C.gp_scale_all_(listPtr(ts), C.int(len(ts)), C.double(factor)))
}

func AddAllInPlace(ts []Tensor, v float64) string {
	return message(C.gp_add_all_(listPtr(ts), C.int(len(ts)), C.double(v)))
}

// Malloc is C memory: unlike Go's, pointers into it may be kept and written by libtorch.
func Malloc(bytes uintptr) unsafe.Pointer { return C.malloc(C.size_t(bytes)) }

// Free gives back what Malloc, or a C function that allocates, returned.
func Free(p unsafe.Pointer) { C.free(p) }
