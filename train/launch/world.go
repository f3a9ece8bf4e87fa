package launch

import (
	"fmt"
	"net"
	"strconv"
	"time"
)

// World says which process of a run this one is, and where it meets the others.
type World struct {
	Rank, Size           int    // of the run's processes; Size 1 is a process alone
	LocalRank, LocalSize int    // of those on this machine
	Host                 string // where the store is; "" for a process alone
	Port                 int
	Served               bool      // the launcher keeps the store, and rank 0 is a client of it as the others are
	Listen               int       // the descriptor of the store's listening socket that rank 0 inherits, 0 for none
	Attempt              string    // differs between attempts that share a store: what the keys in it begin with
	Restarts             int       // how often the run was started again
	Begun                time.Time // when the run was first started, zero where that is not known
	Source               string    // who started the processes, e.g. "torchrun"; "" for a process alone
	Note                 string    // how host and port came about
	ErrorFile            string    // where the launcher looks for the reason of a failure, "" for nowhere
}

// Who starts processes, in World.Source.
const (
	SourceLaunch      = "gopeft launch"
	SourceTorchrun    = "torchrun"
	SourceSlurm       = "Slurm"
	SourcePod         = "Kubernetes"
	SourceEnvironment = "the environment"
)

// String names the process and who has started it.
func (w World) String() string {
	if w.Source == SourceEnvironment {
		return fmt.Sprintf("process %d of %d by RANK and WORLD_SIZE", w.Rank, w.Size)
	}
	return fmt.Sprintf("process %d of %d, started by %s", w.Rank, w.Size, w.Source)
}

// The variables that are gopeft launch's own. Beside them it sets those of torchrun's that others read too.
const (
	ownAttempt  = "GOPEFT_LAUNCH_ATTEMPT" // marks a process that gopeft launch started
	ownRestarts = "GOPEFT_LAUNCH_RESTARTS"
	ownBegun    = "GOPEFT_LAUNCH_BEGUN" // in nanoseconds since 1970
	ownSocket   = "GOPEFT_LAUNCH_SOCKET"
	ownErrors   = "GOPEFT_LAUNCH_ERRORS"
)

// NotStartedError is that of an environment which asks for several processes that nobody has started yet.
type NotStartedError struct{ text string }

func (e *NotStartedError) Error() string { return e.text }

// FromEnv reads what the launcher of this process has set: gopeft launch, torchrun, a step of Slurm, or the variables
// RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT that Kubernetes' PyTorchJob and other programs set. Where there is nothing
// the process is alone. An error names the variable that is wrong.
func FromEnv(getenv func(string) string) (World, error) {
	v := &vars{get: getenv}
	w := v.world()
	switch {
	case v.err != nil:
		return World{}, v.err
	case w.Size == 1:
		w.Host, w.Port, w.Listen, w.Note = "", 0, 0, "" // there is nobody to meet
	}
	return w, nil
}

func (v *vars) world() World {
	switch {
	case v.has(ownAttempt):
		return v.own()
	case v.has("TORCHELASTIC_RUN_ID"):
		return v.torchrun()
	case v.has(stepTasks) && !v.startedInStep():
		return v.slurm()
	case v.has("WORLD_SIZE") || v.has("PET_NNODES"):
		return v.environment()
	case v.has("RANK") && v.has("MASTER_ADDR"):
		v.fail("WORLD_SIZE is not set, though RANK and MASTER_ADDR are")
	case v.has("SLURM_JOB_ID") && v.has("SLURM_NTASKS"):
		v.outsideStep()
	}
	return World{Size: 1, LocalSize: 1}
}

// ranks reads the variables that torchrun and gopeft launch set alike.
func (v *vars) ranks() World {
	w := World{Size: v.number("WORLD_SIZE", 1)}
	w.Rank = v.below("RANK", "WORLD_SIZE", w.Size)
	v.local(&w)
	if w.Size > 1 {
		v.master(&w)
	}
	return w
}

func (v *vars) local(w *World) {
	w.LocalSize = v.number("LOCAL_WORLD_SIZE", 1)
	w.LocalRank = v.below("LOCAL_RANK", "LOCAL_WORLD_SIZE", w.LocalSize)
	if w.LocalSize > w.Size {
		v.fail("LOCAL_WORLD_SIZE is %d, more than the %d of WORLD_SIZE", w.LocalSize, w.Size)
	}
}

func (v *vars) master(w *World) {
	w.Host, w.Port = v.text("MASTER_ADDR"), v.port("MASTER_PORT")
	w.Note = fmt.Sprintf("store at %s (MASTER_ADDR, MASTER_PORT)", address(w.Host, w.Port))
}

func (v *vars) own() World {
	w := v.ranks()
	w.Source, w.Attempt, w.ErrorFile = SourceLaunch, v.get(ownAttempt), v.get(ownErrors)
	w.Restarts = v.optional(ownRestarts, 0)
	w.Listen = v.optional(ownSocket, 0)
	if n := v.optional(ownBegun, 0); n > 0 {
		w.Begun = time.Unix(0, int64(n))
	}
	return w
}

func (v *vars) torchrun() World {
	w := v.ranks()
	w.Source, w.ErrorFile = SourceTorchrun, v.get("TORCHELASTIC_ERROR_FILE")
	w.Restarts = v.optional("TORCHELASTIC_RESTART_COUNT", 0)
	w.Attempt = fmt.Sprintf("%s.%d", v.get("TORCHELASTIC_RUN_ID"), w.Restarts)
	w.Served = v.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
	return w
}

// environ is how gopeft launch tells a process what it is: FromEnv reads it.
func (w World) environ() []string {
	env := []string{ownAttempt + "=" + w.Attempt, ownErrors + "=" + w.ErrorFile, "MASTER_ADDR=" + w.Host}
	for _, n := range []struct {
		name  string
		value int
	}{
		{"RANK", w.Rank}, {"WORLD_SIZE", w.Size}, {"LOCAL_RANK", w.LocalRank}, {"LOCAL_WORLD_SIZE", w.LocalSize}, {"MASTER_PORT", w.Port},
		{ownRestarts, w.Restarts}, {ownSocket, w.Listen},
	} {
		env = append(env, n.name+"="+strconv.Itoa(n.value))
	}
	if !w.Begun.IsZero() {
		env = append(env, ownBegun+"="+strconv.FormatInt(w.Begun.UnixNano(), 10))
	}
	return env
}

func address(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
