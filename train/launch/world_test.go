package launch

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// env makes a getenv of lines NAME=VALUE.
func env(lines ...string) func(string) string {
	set := map[string]string{}
	for _, line := range lines {
		for _, pair := range strings.Fields(line) {
			name, value, _ := strings.Cut(pair, "=")
			set[name] = value
		}
	}
	return func(name string) string { return set[name] }
}

const (
	torchrunEnv = "RANK=3 WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=node1 MASTER_PORT=4711 TORCHELASTIC_RUN_ID=abc"
	jobEnv      = "SLURM_JOB_ID=200505 SLURM_NTASKS=7 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_TASKS_PER_NODE=2(x3),1 SLURM_JOB_NODELIST=gpu[03-06]"
	stepEnv     = "SLURM_STEP_ID=2 SLURM_STEP_NUM_TASKS=7 SLURM_PROCID=5 SLURM_LOCALID=1 SLURM_NODEID=2 SLURM_STEP_TASKS_PER_NODE=2(x3),1 SLURM_STEP_NODELIST=gpu[03-06]"
	podEnv      = "RANK=1 WORLD_SIZE=3 MASTER_ADDR=run-master-0 MASTER_PORT=23456"
	trainJobEnv = "PET_NNODES=2 PET_NODE_RANK=1 PET_MASTER_ADDR=run-node-0-0.run PET_MASTER_PORT=29500"
)

func TestFromEnv(t *testing.T) {
	own := World{Rank: 0, Size: 2, LocalRank: 0, LocalSize: 2, Host: "127.0.0.1", Port: 40001, Listen: 4, Attempt: "x.1", Restarts: 1, Begun: time.Unix(0, 1800000000123456789), Source: SourceLaunch,
		ErrorFile: "/dev/fd/3", Note: "store at 127.0.0.1:40001 (MASTER_ADDR, MASTER_PORT)"}
	torchrun := World{Rank: 3, Size: 8, LocalRank: 1, LocalSize: 2, Host: "node1", Port: 4711, Attempt: "abc.0", Source: SourceTorchrun,
		Note: "store at node1:4711 (MASTER_ADDR, MASTER_PORT)"}
	served := torchrun
	served.Served, served.Restarts, served.Attempt, served.ErrorFile = true, 2, "abc.2", "/tmp/error.json"
	step := World{Rank: 5, Size: 7, LocalRank: 1, LocalSize: 2, Host: "gpu03", Port: 15000 + (7*200505+2)%16000, Attempt: "200505.2.0", Source: SourceSlurm}
	pod := World{Rank: 1, Size: 3, LocalSize: 1, Host: "run-master-0", Port: 23456, Attempt: "0", Source: SourceEnvironment,
		Note: "store at run-master-0:23456 (MASTER_ADDR, MASTER_PORT)"}
	alone := World{Size: 1, LocalSize: 1}
	for name, c := range map[string]struct {
		env  []string
		want World
	}{
		"nothing":                          {nil, alone},
		"a stray RANK":                     {[]string{"RANK=8"}, alone},
		"gopeft launch":                    {own.environ(), own},
		"gopeft launch in a step":          {append(own.environ(), jobEnv, stepEnv), own},
		"gopeft launch in a pod":           {append(own.environ(), "PET_NNODES=2 PET_NPROC_PER_NODE=2"), own},
		"torchrun":                         {[]string{torchrunEnv}, torchrun},
		"torchrun, its own store, again":   {[]string{torchrunEnv, "TORCHELASTIC_USE_AGENT_STORE=True TORCHELASTIC_RESTART_COUNT=2 TORCHELASTIC_ERROR_FILE=/tmp/error.json"}, served},
		"torchrun in a step":               {[]string{torchrunEnv, jobEnv, stepEnv}, torchrun},
		"torchrun, one process":            {[]string{"RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 TORCHELASTIC_RUN_ID=abc"}, World{Size: 1, LocalSize: 1, Attempt: "abc.0", Source: SourceTorchrun}},
		"a step":                           {[]string{jobEnv, stepEnv}, step},
		"a step, RANK as well":             {[]string{jobEnv, stepEnv, "RANK=5 WORLD_SIZE=7"}, step},
		"a step of one task":               {[]string{jobEnv, "SLURM_STEP_NUM_TASKS=1 SLURM_RESTART_COUNT=1"}, World{Size: 1, LocalSize: 1, Restarts: 1, Source: SourceSlurm}},
		"a step of one task, then by hand": {[]string{jobEnv, "SLURM_STEP_NUM_TASKS=1", podEnv}, pod},
		"a job of one task":                {[]string{"SLURM_JOB_ID=1 SLURM_NTASKS=1 SLURM_PROCID=0"}, alone},
		"PyTorchJob":                       {[]string{podEnv}, pod},
		"WORLD_SIZE 1":                     {[]string{"WORLD_SIZE=1 RANK=0"}, World{Size: 1, LocalSize: 1, Attempt: "0", Source: SourceEnvironment}},
		"one machine by hand": {[]string{"RANK=1 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=4000"}, World{Rank: 1, Size: 2, LocalRank: 1, LocalSize: 2, Host: "127.0.0.1", Port: 4000,
			Attempt: "0", Source: SourceEnvironment, Note: "store at 127.0.0.1:4000 (MASTER_ADDR, MASTER_PORT); all processes are on this machine"}},
		"TrainJob": {[]string{trainJobEnv, "PET_NPROC_PER_NODE=auto"}, World{Rank: 1, Size: 2, LocalSize: 1, Host: "run-node-0-0.run", Port: 29500, Attempt: "0",
			Source: SourcePod, Note: "store at run-node-0-0.run:29500 (PET_MASTER_ADDR, PET_MASTER_PORT)"}},
	} {
		got, err := FromEnv(env(c.env...))
		if c.want.Source == SourceSlurm { // its note has a test of its own
			got.Note = ""
		}
		if err != nil || got != c.want {
			t.Errorf("%s: %v,\n got %+v\nwant %+v", name, err, got, c.want)
		}
	}
}

func TestFromEnvRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		env        []string
		want       string
		notStarted bool
	}{
		"no number":                 {[]string{torchrunEnv, "RANK=first"}, `RANK is "first", want a whole number`, false},
		"a rank too high":           {[]string{torchrunEnv, "RANK=8"}, "RANK is 8, but WORLD_SIZE is 8: they count from 0", false},
		"a rank below 0":            {[]string{torchrunEnv, "RANK=-1"}, "RANK is -1, want at least 0", false},
		"no processes":              {[]string{podEnv, "WORLD_SIZE=0"}, "WORLD_SIZE is 0, want at least 1", false},
		"a local rank too high":     {[]string{torchrunEnv, "LOCAL_RANK=2"}, "LOCAL_RANK is 2, but LOCAL_WORLD_SIZE is 2", false},
		"more here than there are":  {[]string{torchrunEnv, "LOCAL_WORLD_SIZE=9"}, "LOCAL_WORLD_SIZE is 9, more than the 8", false},
		"no port":                   {[]string{podEnv, "MASTER_PORT="}, "MASTER_PORT is not set", false},
		"no host":                   {[]string{podEnv, "MASTER_ADDR="}, "MASTER_ADDR is not set", false},
		"no rank":                   {[]string{podEnv, "RANK="}, "RANK is not set", false},
		"no size":                   {[]string{podEnv, "WORLD_SIZE="}, "WORLD_SIZE is not set", false},
		"a port too high":           {[]string{podEnv, "MASTER_PORT=70000"}, "MASTER_PORT is 70000, want a port", false},
		"no local size":             {[]string{podEnv, "LOCAL_RANK=0"}, "LOCAL_WORLD_SIZE is not set", false},
		"restarts of torchrun":      {[]string{torchrunEnv, "TORCHELASTIC_RESTART_COUNT=once"}, `TORCHELASTIC_RESTART_COUNT is "once"`, false},
		"a job outside a step":      {[]string{jobEnv}, "SLURM_NTASKS is 7, but this process is in no step", true},
		"a step without a rank":     {[]string{jobEnv, stepEnv, "SLURM_PROCID="}, "SLURM_PROCID is not set", false},
		"a step's rank too high":    {[]string{jobEnv, stepEnv, "SLURM_PROCID=7"}, "SLURM_PROCID is 7, but SLURM_STEP_NUM_TASKS is 7", false},
		"a step against RANK":       {[]string{jobEnv, stepEnv, "RANK=0 WORLD_SIZE=7"}, "RANK is 0 of WORLD_SIZE 7, but SLURM_PROCID is 5", false},
		"a step's node":             {[]string{jobEnv, stepEnv, "SLURM_NODEID=4"}, "SLURM_NODEID is 4, but SLURM_STEP_TASKS_PER_NODE", false},
		"a step's tasks":            {[]string{jobEnv, stepEnv, "SLURM_STEP_TASKS_PER_NODE=2(x3)"}, `SLURM_STEP_TASKS_PER_NODE is "2(x3)"`, false},
		"a step's tasks, open":      {[]string{jobEnv, stepEnv, "SLURM_STEP_TASKS_PER_NODE=2(x3,1"}, `SLURM_STEP_TASKS_PER_NODE is "2(x3,1"`, false},
		"a step's tasks, no number": {[]string{jobEnv, stepEnv, "SLURM_STEP_TASKS_PER_NODE=two"}, `SLURM_STEP_TASKS_PER_NODE is "two"`, false},
		"a step's tasks, very many": {[]string{jobEnv, stepEnv, "SLURM_STEP_TASKS_PER_NODE=1(x999999999999)"}, "SLURM_STEP_TASKS_PER_NODE", false},
		"a step's hosts":            {[]string{jobEnv, stepEnv, "SLURM_STEP_NODELIST=gpu[03"}, `SLURM_STEP_NODELIST: "gpu[03" is no list of hosts`, false},
		"a step's port":             {[]string{jobEnv, stepEnv, "MASTER_PORT=any"}, `MASTER_PORT is "any"`, false},
		"a pod of several":          {[]string{podEnv, "PET_NPROC_PER_NODE=4"}, "PET_NPROC_PER_NODE is 4, but this is one process of its pod: run `gopeft launch --nproc 4", true},
		"pods that may change":      {[]string{trainJobEnv, "PET_NNODES=1:3"}, `PET_NNODES is "1:3", want a number of pods`, false},
		"pods against processes":    {[]string{podEnv, trainJobEnv}, "", false}, // RANK and PET_NODE_RANK agree, PET_NNODES and WORLD_SIZE do not
		"a TrainJob without a port": {[]string{trainJobEnv, "PET_MASTER_PORT="}, "PET_MASTER_PORT is not set", false},
		"a TrainJob's rank":         {[]string{trainJobEnv, "PET_NODE_RANK=2"}, "PET_NODE_RANK is 2, but PET_NNODES is 2", false},
	} {
		w, err := FromEnv(env(c.env...))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %+v, %v; want %q", name, w, err, c.want)
		}
		if not := (*NotStartedError)(nil); errors.As(err, &not) != c.notStarted {
			t.Errorf("%s: %v: of the kind that is not started yet: %t", name, err, !c.notStarted)
		}
	}
}

func TestSlurmSaysWhereTheStoreIs(t *testing.T) {
	one := "SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=1 SLURM_NODEID=0 SLURM_STEP_TASKS_PER_NODE=2"
	for name, c := range map[string]struct{ env, want string }{
		"by itself":   {"", "store at gpu03:26537 (the host is the step's first, the port is made of job 200505 and step 2; MASTER_PORT sets another)"},
		"one machine": {one, "store at 127.0.0.1:26537 (all processes are on this machine, the port is made of job 200505 and step 2; MASTER_PORT sets another)"},
		"both given":  {"MASTER_ADDR=10.0.0.7 MASTER_PORT=5000", "store at 10.0.0.7:5000 (the host is MASTER_ADDR's, the port is MASTER_PORT's)"},
		"IPv6":        {"MASTER_ADDR=fd00::7 MASTER_PORT=5000", "store at [fd00::7]:5000 (the host is MASTER_ADDR's, the port is MASTER_PORT's)"},
	} {
		w, err := FromEnv(env(jobEnv, stepEnv, c.env))
		if err != nil || w.Note != c.want {
			t.Errorf("%s: %v, %q, want %q", name, err, w.Note, c.want)
		}
	}
}

func TestTasksOnANode(t *testing.T) {
	for _, c := range []struct {
		list      string
		all, node int
		want      int
	}{{"4", 4, 0, 4}, {"2(x3),1", 7, 0, 2}, {"2(x3),1", 7, 2, 2}, {"2(x3),1", 7, 3, 1}, {"1,3(x2),2", 9, 1, 3}, {"1,3(x2),2", 9, 3, 2}, {"1(x4)", 4, 3, 1}} {
		v := &vars{get: env("TASKS=" + c.list)}
		if got := v.tasksOn(c.node, "TASKS", c.all); v.err != nil || got != c.want {
			t.Errorf("node %d of %s: %d, %v; want %d", c.node, c.list, got, v.err, c.want)
		}
	}
}

func TestFirstHost(t *testing.T) {
	for list, want := range map[string]string{
		"node1": "node1", "node1,node2": "node1", "gnode[10,20,25,37]": "gnode10", "gpu[03-05,9],login1": "gpu03", "r[0-1]n[2-3]": "r0n2",
		"a[1-2]-ib,b": "a1-ib", "n7.cluster.example": "n7.cluster.example", "": "", ",a": "", "a[": "", "a[]": "", "a]": "",
	} {
		got, err := firstHost(list)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", list, got, err, want)
		}
	}
}

func TestNodesFromEnv(t *testing.T) {
	for text, want := range map[string]Nodes{
		"":             {},
		podEnv:         {},
		trainJobEnv:    {Count: 2, Rank: 1, Host: "run-node-0-0.run", Port: 29500},
		"PET_NNODES=1": {Count: 1},
	} {
		if got, err := NodesFromEnv(env(text)); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{"PET_NNODES=1:2": "PET_NNODES", "PET_NNODES=2": "PET_NODE_RANK", "PET_NNODES=2 PET_NODE_RANK=0": "PET_MASTER_ADDR"} {
		if got, err := NodesFromEnv(env(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v; want an error about %s", text, got, err, want)
		}
	}
}

func TestWhoStartedIt(t *testing.T) {
	for text, want := range map[string]string{torchrunEnv: "process 3 of 8, started by torchrun", podEnv: "process 1 of 3 by RANK and WORLD_SIZE", jobEnv + " " + stepEnv: "process 5 of 7, started by Slurm"} {
		if w, err := FromEnv(env(text)); err != nil || w.String() != want {
			t.Errorf("%q, %v; want %q", w, err, want)
		}
	}
}
