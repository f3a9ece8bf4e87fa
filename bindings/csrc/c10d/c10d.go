// Package c10d is libtorch's distributed engine, c10d: the store where the processes of a run meet, their group, and
// gradients that are summed over it. Its functions mirror c10d.h's one to one: those that can fail return libtorch's
// message, "" for success. Only bindings uses it.
//
// It is apart from csrc so that neither is compiled again for a change of the other.
package c10d

/*
#cgo CXXFLAGS: -std=c++17 -O2 -g0 -DUSE_C10D_GLOO -I${SRCDIR}/stubs -Wno-deprecated-declarations
#cgo LDFLAGS: -lstdc++ -ltorch -lc10 -ltorch_cpu
#include <stdlib.h>
#include "c10d.h"
*/
import "C"

import (
	"unsafe"

	"gopeft/bindings/csrc"
)

// Handles on what c10d.h describes.
type (
	Store     = unsafe.Pointer
	Group     = unsafe.Pointer
	Work      = unsafe.Pointer
	Gradients = unsafe.Pointer
	Parts     = unsafe.Pointer
	Shards    = unsafe.Pointer
)

func message(c *C.char) string {
	if c == nil {
		return ""
	}
	defer C.free(unsafe.Pointer(c))
	return C.GoString(c)
}

func tensors(ts []csrc.Tensor) (*C.gp_tensor, C.int) {
	return (*C.gp_tensor)(unsafe.SliceData(ts)), C.int(len(ts))
}

// Quiet keeps c10d from logging.
func Quiet() { C.gp_c10d_quiet() }

// Serve says who keeps a store.
type Serve int

// The ways: another process, this one, and this one on a socket that listens already.
const (
	Connect Serve = iota
	ServeHere
	ServeSocket
)

// OpenStore opens the store at host:port.
func OpenStore(host string, port int, serve Serve, fd int, prefix string, timeoutMS int64) (Store, string) {
	h, p := C.CString(host), C.CString(prefix)
	defer C.free(unsafe.Pointer(h))
	defer C.free(unsafe.Pointer(p))
	var store C.gp_store
	msg := message(C.gp_store_open(&store, h, C.int(port), C.int(serve), C.int(fd), p, C.int64_t(timeoutMS)))
	return Store(store), msg
}

// CloseStore closes a store.
func CloseStore(s Store) { C.gp_store_close(C.gp_store(s)) }

// Set gives a key a value.
func Set(s Store, key string, value []byte) string {
	k := C.CString(key)
	defer C.free(unsafe.Pointer(k))
	return message(C.gp_store_set(C.gp_store(s), k, unsafe.Pointer(unsafe.SliceData(value)), C.int64_t(len(value))))
}

// Get is a key's value; ok reports whether there is one.
func Get(s Store, key string) (value []byte, ok bool, msg string) {
	k := C.CString(key)
	defer C.free(unsafe.Pointer(k))
	var out unsafe.Pointer
	var n C.int64_t
	if msg := message(C.gp_store_get(C.gp_store(s), k, &out, &n)); msg != "" || out == nil {
		return nil, false, msg
	}
	defer C.free(out)
	return C.GoBytes(out, C.int(n)), true, ""
}

// Gloo makes a group for the CPU.
func Gloo(s Store, address string, rank, size int, timeoutMS int64) (Group, string) {
	a := C.CString(address)
	defer C.free(unsafe.Pointer(a))
	var g C.gp_group
	msg := message(C.gp_group_gloo(&g, C.gp_store(s), a, C.int(rank), C.int(size), C.int64_t(timeoutMS)))
	return Group(g), msg
}

// AddNCCL adds the GPUs' group.
func AddNCCL(g Group, s Store, rank, size int, timeoutMS int64) string {
	return message(C.gp_group_add_nccl(C.gp_group(g), C.gp_store(s), C.int(rank), C.int(size), C.int64_t(timeoutMS)))
}

// Leave ends this process's part of a group.
func Leave(g Group) string { return message(C.gp_group_leave(C.gp_group(g))) }

// Sum adds t up over the ranks.
func Sum(g Group, t csrc.Tensor) (Work, string) {
	var w C.gp_work
	msg := message(C.gp_group_sum(&w, C.gp_group(g), C.gp_tensor(t)))
	return Work(w), msg
}

// Broadcast gives every rank root's t.
func Broadcast(g Group, t csrc.Tensor, root int) (Work, string) {
	var w C.gp_work
	msg := message(C.gp_group_broadcast(&w, C.gp_group(g), C.gp_tensor(t), C.int(root)))
	return Work(w), msg
}

// Gather puts the ranks' parts into whole, one after the other.
func Gather(g Group, whole, part csrc.Tensor) (Work, string) {
	var w C.gp_work
	msg := message(C.gp_group_gather(&w, C.gp_group(g), C.gp_tensor(whole), C.gp_tensor(part)))
	return Work(w), msg
}

// Wait waits for an operation at most some milliseconds.
func Wait(w Work, ms int64) (done bool, msg string) {
	var d C.int
	msg = message(C.gp_work_wait(C.gp_work(w), C.int64_t(ms), &d))
	return d != 0, msg
}

// FreeWork forgets an operation; it goes on.
func FreeWork(w Work) { C.gp_work_free(C.gp_work(w)) }

// NewGradients gathers the gradients of params in buckets of at most limit bytes; 0: unbounded.
func NewGradients(g Group, params []csrc.Tensor, limit int64) (Gradients, string) {
	ts, n := tensors(params)
	var all C.gp_gradients
	msg := message(C.gp_gradients_new(&all, C.gp_group(g), ts, n, C.int64_t(limit)))
	return Gradients(all), msg
}

// FreeGradients gives the parameters their own gradients back.
func FreeGradients(g Gradients) { C.gp_gradients_free(C.gp_gradients(g)) }

// BeginGradients makes all gradients zero.
func BeginGradients(g Gradients) string { return message(C.gp_gradients_begin(C.gp_gradients(g))) }

// LastGradients says that the next backward pass is the step's last.
func LastGradients(g Gradients) string { return message(C.gp_gradients_last(C.gp_gradients(g))) }

// EndGradients starts what has not started.
func EndGradients(g Gradients) string { return message(C.gp_gradients_end(C.gp_gradients(g))) }

// WaitGradients waits at most some milliseconds for all buckets.
func WaitGradients(g Gradients, ms int64) (done bool, msg string) {
	var d C.int
	msg = message(C.gp_gradients_wait(C.gp_gradients(g), C.int64_t(ms), &d))
	return d != 0, msg
}

// NewParts gathers the gradients of params in buckets, of which this rank keeps own, each from an element of its parameter on.
func NewParts(g Group, params, own []csrc.Tensor, from []int64, limit int64) (Parts, string) {
	ts, n := tensors(params)
	os, _ := tensors(own)
	var p C.gp_parts
	msg := message(C.gp_parts_new(&p, C.gp_group(g), ts, os, (*C.int64_t)(unsafe.SliceData(from)), n, C.int64_t(limit)))
	return Parts(p), msg
}

// FreeParts gives the parameters gradients of their own.
func FreeParts(p Parts) { C.gp_parts_free(C.gp_parts(p)) }

// BeginParts makes all parts zero.
func BeginParts(p Parts) string { return message(C.gp_parts_begin(C.gp_parts(p))) }

// PassParts sums what a backward pass left, waiting about some milliseconds.
func PassParts(p Parts, ms int64) (done bool, msg string) {
	var d C.int
	msg = message(C.gp_parts_pass(C.gp_parts(p), C.int64_t(ms), &d))
	return d != 0, msg
}

// PartsCame says which of n parameters got a gradient on any rank.
func PartsCame(p Parts, n int) []bool {
	came, out := make([]C.int, n), make([]bool, n)
	C.gp_parts_came(C.gp_parts(p), unsafe.SliceData(came))
	for i, c := range came {
		out[i] = c != 0
	}
	return out
}

// GiveUp lets what waits in the group's shards end.
func GiveUp(g Group) { C.gp_group_give_up(C.gp_group(g)) }

// Shared is what the group's shards have come to.
func Shared(g Group) (broken bool, begun, waitedNS int64) {
	var b C.int
	var n, ns C.int64_t
	C.gp_group_shared(C.gp_group(g), &b, &n, &ns)
	return b != 0, int64(n), int64(ns)
}

// NewShards makes shards without units.
func NewShards(rank, size int) (Shards, string) {
	var p C.gp_shards
	msg := message(C.gp_shards_new(&p, C.int(rank), C.int(size)))
	return Shards(p), msg
}

// FreeShards ends them.
func FreeShards(p Shards) { C.gp_shards_free(C.gp_shards(p)) }

// AddShards makes a unit of tensors, on a device.
func AddShards(p Shards, device int, list []csrc.Tensor) string {
	ts, n := tensors(list)
	return message(C.gp_shards_add(C.gp_shards(p), C.int(device), ts, n))
}

// JoinShards names the group of the other parts.
func JoinShards(p Shards, g Group) { C.gp_shards_join(C.gp_shards(p), C.gp_group(g)) }

// SpanShards is what of a unit's tensor, laid flat, a rank keeps.
func SpanShards(p Shards, unit, tensor, rank int) (from, n int64, msg string) {
	var f, c C.int64_t
	msg = message(C.gp_shards_span(C.gp_shards(p), C.int64_t(unit), C.int64_t(tensor), C.int(rank), &f, &c))
	return int64(f), int64(c), msg
}

// HeldShards is the bytes that this rank keeps.
func HeldShards(p Shards) int64 { return int64(C.gp_shards_held(C.gp_shards(p))) }

// TurnShards gathers two units and lets go of the others.
func TurnShards(p Shards, at, next int) string {
	return message(C.gp_shards_turn(C.gp_shards(p), C.int64_t(at), C.int64_t(next)))
}

// TurnShardsAtGradient turns once the backward pass has t's gradient.
func TurnShardsAtGradient(p Shards, t csrc.Tensor, at, next int) string {
	return message(C.gp_shards_turn_at_gradient(C.gp_shards(p), C.gp_tensor(t), C.int64_t(at), C.int64_t(next)))
}

// Hash is a number of the tensors' bits.
func Hash(list []csrc.Tensor) (uint64, string) {
	ts, n := tensors(list)
	var h C.uint64_t
	msg := message(C.gp_tensors_hash(&h, ts, n))
	return uint64(h), msg
}
