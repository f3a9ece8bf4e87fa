package launch

import (
	"fmt"
	"net"
	"strconv"
)

// environment reads what Kubernetes' PyTorchJob and TrainJob set, and what others set by hand. Kubernetes counts pods: in
// WORLD_SIZE (in some releases times the processes of one) and RANK, or in PET_NNODES and PET_NODE_RANK, whose names are
// those of torchrun's flags.
func (v *vars) environment() World {
	w := World{Source: SourceEnvironment, LocalSize: 1}
	for _, name := range []string{"PET_NNODES", "PET_NODE_RANK", "PET_NPROC_PER_NODE", "PET_RDZV_ENDPOINT"} {
		if v.has(name) {
			w.Source = SourcePod
		}
	}
	if n, err := strconv.Atoi(v.get("PET_NPROC_PER_NODE")); err == nil && n > 1 { // or "auto", "gpu", "cpu": as many as are started
		v.err = &NotStartedError{fmt.Sprintf("PET_NPROC_PER_NODE is %d, but this is one process of its pod: run `gopeft launch --nproc %d -- train …` in each pod", n, n)}
		return w
	}
	if v.has("WORLD_SIZE") {
		v.plain(&w)
	} else {
		n := v.podGroup()
		if w.Size, w.Rank, w.Host, w.Port = n.Count, n.Rank, n.Host, n.Port; w.Size > 1 {
			w.Note = fmt.Sprintf("store at %s (PET_MASTER_ADDR, PET_MASTER_PORT)", address(w.Host, w.Port))
		}
	}
	w.Attempt = "0"
	return w
}

// plain reads RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Without LOCAL_WORLD_SIZE each machine has one process, unless
// the store's address is one that only this machine has.
func (v *vars) plain(w *World) {
	w.Size = v.number("WORLD_SIZE", 1)
	if v.err != nil || w.Size == 1 {
		return
	}
	w.Rank = v.below("RANK", "WORLD_SIZE", w.Size)
	v.master(w)
	switch {
	case v.has("LOCAL_RANK") || v.has("LOCAL_WORLD_SIZE"):
		v.local(w)
	case isLoopback(w.Host):
		w.LocalRank, w.LocalSize = w.Rank, w.Size
		w.Note += "; all processes are on this machine"
	}
	if v.has("PET_NNODES") {
		if pods := v.pods(); v.err == nil && pods != w.Size {
			v.fail("PET_NNODES is %d, but WORLD_SIZE is %d: in a pod of several processes run `gopeft launch --nproc N -- train …`", pods, w.Size)
		}
	}
}

// podGroup is which of several pods this is, as torchrun's flags have it, and where they meet.
func (v *vars) podGroup() (n Nodes) {
	if n.Count = v.pods(); n.Count > 1 {
		n.Rank = v.below("PET_NODE_RANK", "PET_NNODES", n.Count)
		n.Host, n.Port = v.text("PET_MASTER_ADDR"), v.port("PET_MASTER_PORT")
	}
	return n
}

// pods is how many pods there are. A range of them is for a launcher that can do with fewer.
func (v *vars) pods() int {
	if _, err := strconv.Atoi(v.get("PET_NNODES")); err != nil {
		v.fail("PET_NNODES is %q, want a number of pods: where it may change start gopeft with torchrun", v.get("PET_NNODES"))
		return 0
	}
	return v.number("PET_NNODES", 1)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// NodesFromEnv reads which of several pods this is, where Kubernetes has left it to a launcher in each to start the
// processes; the zero value where it has not.
func NodesFromEnv(getenv func(string) string) (Nodes, error) {
	v := &vars{get: getenv}
	if !v.has("PET_NNODES") {
		return Nodes{}, nil
	}
	return v.podGroup(), v.err
}
