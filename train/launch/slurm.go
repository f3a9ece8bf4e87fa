package launch

import (
	"fmt"
	"strconv"
	"strings"
)

// stepTasks is set by srun, in a step alone. What sbatch sets looks alike, but is of the job: its script is one process,
// with SLURM_PROCID 0 and SLURM_NTASKS as many as the job may start.
const stepTasks = "SLURM_STEP_NUM_TASKS"

// startedInStep reports whether RANK and WORLD_SIZE, not the step, say what this process is: where srun started one script
// that starts the processes. A contradiction is an error.
func (v *vars) startedInStep() bool {
	if !v.has("RANK") || !v.has("WORLD_SIZE") {
		return false
	}
	tasks, size := v.number(stepTasks, 1), v.number("WORLD_SIZE", 1)
	if v.err != nil || tasks == 1 {
		return true
	}
	rank, proc := v.number("RANK", 0), v.number("SLURM_PROCID", 0)
	if v.err == nil && (tasks != size || rank != proc) {
		v.fail("RANK is %d of WORLD_SIZE %d, but SLURM_PROCID is %d of %s %d: unset RANK and WORLD_SIZE", rank, size, proc, stepTasks, tasks)
	}
	return false
}

// outsideStep refuses to be one process where a job has been given several.
func (v *vars) outsideStep() {
	if n := v.number("SLURM_NTASKS", 1); v.err == nil && n > 1 {
		v.err = &NotStartedError{fmt.Sprintf("SLURM_NTASKS is %d, but this process is in no step of the job: start it with `srun gopeft …`, or say --nproc 1 for one process", n)}
	}
}

func (v *vars) slurm() World {
	w := World{Source: SourceSlurm, Size: v.number(stepTasks, 1), LocalSize: 1}
	w.Restarts = v.optional("SLURM_RESTART_COUNT", 0) // of a job that was put back into the queue
	if v.err != nil || w.Size == 1 {
		return w
	}
	w.Rank = v.below("SLURM_PROCID", stepTasks, w.Size)
	const perNode = "SLURM_STEP_TASKS_PER_NODE"
	w.LocalSize = v.tasksOn(v.number("SLURM_NODEID", 0), perNode, w.Size)
	w.LocalRank = v.below("SLURM_LOCALID", perNode, w.LocalSize)
	job, step := v.number("SLURM_JOB_ID", 0), v.number("SLURM_STEP_ID", 0)
	w.Attempt = fmt.Sprintf("%d.%d.%d", job, step, w.Restarts)

	how := "the host is MASTER_ADDR's"
	switch {
	case v.has("MASTER_ADDR"):
		w.Host = v.get("MASTER_ADDR")
	case w.LocalSize == w.Size:
		w.Host, how = "127.0.0.1", "all processes are on this machine"
	default:
		const nodes = "SLURM_STEP_NODELIST"
		var err error
		if w.Host, err = firstHost(v.text(nodes)); err != nil {
			v.fail("%s: %w", nodes, err)
		}
		how = "the host is the step's first"
	}
	if v.has("MASTER_PORT") {
		w.Port = v.port("MASTER_PORT")
		how += ", the port is MASTER_PORT's"
	} else {
		// Every task makes the same number, other steps others; the kernel gives out ports from 32768 by itself.
		w.Port = 15000 + (7*job+step)%16000
		how += fmt.Sprintf(", the port is made of job %d and step %d; MASTER_PORT sets another", job, step)
	}
	w.Note = fmt.Sprintf("store at %s (%s)", address(w.Host, w.Port), how)
	return w
}

// tasksOn reads how many tasks a node has from a list such as "2(x3),1": three nodes with two each, one with one.
func (v *vars) tasksOn(node int, name string, all int) int {
	list := v.text(name)
	if v.err != nil {
		return 0
	}
	wrong := func() int {
		v.fail("%s is %q, want tasks per node as in 2(x3),1, %d in all", name, list, all)
		return 0
	}
	nodes, sum, here := 0, 0, 0
	for part := range strings.SplitSeq(list, ",") {
		count, times, repeated := strings.Cut(strings.TrimSpace(part), "(x")
		n, err := strconv.Atoi(count)
		many := 1
		if err == nil && repeated {
			var closed bool
			if times, closed = strings.CutSuffix(times, ")"); !closed {
				return wrong()
			}
			many, err = strconv.Atoi(times)
		}
		if err != nil || n < 1 || many < 1 || n > all || many > all {
			return wrong()
		}
		if node >= nodes && node < nodes+many {
			here = n
		}
		nodes, sum = nodes+many, sum+n*many
	}
	if sum != all {
		return wrong()
	}
	if here == 0 {
		v.fail("SLURM_NODEID is %d, but %s is %q: %d nodes", node, name, list, nodes)
	}
	return here
}

// firstHost is the first of a list of hosts such as "gpu[03-05,9],login1".
func firstHost(list string) (string, error) {
	var host strings.Builder
	for rest := list; ; {
		end := strings.IndexAny(rest, "[,")
		if end < 0 {
			host.WriteString(rest)
			break
		}
		host.WriteString(rest[:end])
		if rest[end] == ',' {
			break
		}
		inside, after, closed := strings.Cut(rest[end+1:], "]")
		first := inside
		if i := strings.IndexAny(inside, "-,"); i >= 0 {
			first = inside[:i]
		}
		if !closed || first == "" {
			return "", fmt.Errorf("%q is no list of hosts", list)
		}
		host.WriteString(first)
		rest = after
	}
	if host.Len() == 0 || strings.ContainsAny(host.String(), "[] ") {
		return "", fmt.Errorf("%q is no list of hosts", list)
	}
	return host.String(), nil
}
