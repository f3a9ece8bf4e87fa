package launch

import (
	"runtime"
	"testing"
	"testing/fstest"
)

func TestThisMachine(t *testing.T) {
	cpu := func(n, siblings string) (string, *fstest.MapFile) {
		return "sys/devices/system/cpu/cpu" + n + "/topology/thread_siblings_list", &fstest.MapFile{Data: []byte(siblings + "\n")}
	}
	root := fstest.MapFS{}
	for _, name := range []string{"nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "null"} {
		root["dev/"+name] = &fstest.MapFile{}
	}
	for n, siblings := range map[string]string{"0": "0,1", "1": "0,1"} {
		name, file := cpu(n, siblings)
		root[name] = file
	}
	unset := "unset"
	for visible, want := range map[string]int{unset: 3, "": 0, "0": 1, "1,0": 2, "0,-1,1": 1, "-1": 0, "NoDevFiles": 0, "GPU-8932f937,MIG-a": 2} {
		m, err := ThisMachine(root, func(string) (string, bool) { return visible, visible != unset })
		if err != nil || m.GPUs != want || m.Cores != 1 {
			t.Errorf("CUDA_VISIBLE_DEVICES %q: %+v, %v; want %d GPUs and 1 core", visible, m, err, want)
		}
	}
	m, err := ThisMachine(fstest.MapFS{}, func(string) (string, bool) { return "0", true })
	if err != nil || m.GPUs != 0 || m.Cores != runtime.GOMAXPROCS(0) {
		t.Errorf("a machine that tells nothing: %+v, %v", m, err)
	}
}
