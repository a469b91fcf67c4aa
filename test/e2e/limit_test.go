package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Limits need real cgroup controllers: these run in test/uml.

func needControllers(t testing.TB, names ...string) {
	t.Helper()
	data, _ := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	for _, name := range names {
		if !strings.Contains(" "+strings.TrimSpace(string(data))+" ", " "+name+" ") {
			t.Skipf("no %s controller here", name)
		}
	}
}

func resources(r *cri.LinuxContainerResources) ctrMod {
	return func(c *cri.ContainerConfig) { c.Linux.Resources = r }
}

// group reads a file of the container's cgroup.
func (c *ctrT) group(file string) string {
	c.t.Helper()
	data, err := os.ReadFile("/sys/fs/cgroup" + unitProperty(c.t, c.unit(), "ControlGroup") + "/" + file)
	if err != nil {
		c.t.Error(err)
	}
	return strings.TrimSpace(string(data))
}

func TestLimitMemoryKillsAndIsReported(t *testing.T) {
	needControllers(t, "memory")
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	limit := &cri.LinuxContainerResources{MemoryLimitInBytes: 32 << 20, MemorySwapLimitInBytes: 32 << 20}
	t.Run("the limit is in force", func(t *testing.T) {
		c := p.with(t).run(resources(limit))
		equal(t, "memory.max", c.group("memory.max"), fmt.Sprint(32<<20))
		equal(t, "memory.swap.max", c.group("memory.swap.max"), "0")
		st := c.status()
		equal(t, "limit in the status", st.Resources.GetLinux().GetMemoryLimitInBytes(), 32<<20)
	})
	t.Run("the main process killed is OOMKilled", func(t *testing.T) {
		c := p.with(t).run(withCommand("sh", "-c", "echo start; exec tail /dev/zero"), resources(limit))
		st := c.wait()
		equal(t, "reason", st.Reason, "OOMKilled")
		equal(t, "exit code", st.ExitCode, 137)
		equal(t, "log", c.text("stdout"), "start\n")
	})
	t.Run("a child killed: the container goes on", func(t *testing.T) {
		c := p.with(t).run(sh("tail /dev/zero; echo child $?; exec sleep 100000"), resources(limit))
		c.waitForLog("child 137")
		equal(t, "state", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
		c.stop(0)
	})
	t.Run("memory.oom.group takes all of it", func(t *testing.T) {
		group := &cri.LinuxContainerResources{MemoryLimitInBytes: 32 << 20, MemorySwapLimitInBytes: 32 << 20, Unified: map[string]string{"memory.oom.group": "1"}}
		c := p.with(t).run(sh("tail /dev/zero; echo survived; exec sleep 100000"), resources(group))
		st := c.wait()
		equal(t, "reason", st.Reason, "OOMKilled")
		lacks(t, "log", c.text("stdout"), "survived")
	})
	t.Run("an exit that only looks like it is an error", func(t *testing.T) {
		st := p.with(t).run(sh("exit 137"), resources(limit)).wait()
		equal(t, "reason", st.Reason, "Error")
	})
}

func TestLimitCPU(t *testing.T) {
	needControllers(t, "cpu")
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	c := p.run(sh("while :; do :; done"), resources(&cri.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 20000, CpuShares: 1024}))
	equal(t, "cpu.max", c.group("cpu.max"), "20000 100000")
	equal(t, "cpu.weight", c.group("cpu.weight"), "39")
	used := func() int64 {
		for _, line := range strings.Split(c.group("cpu.stat"), "\n") {
			if value, ok := strings.CutPrefix(line, "usage_usec "); ok {
				n, _ := strconv.ParseInt(value, 10, 64)
				return n
			}
		}
		return 0
	}
	before, begin := used(), time.Now()
	time.Sleep(3 * time.Second)
	share := float64(used()-before) / float64(time.Since(begin).Microseconds())
	if share > 0.3 {
		t.Errorf("it took %.2f of a CPU", share)
	}
	defaults := p.run()
	equal(t, "cpu.max without a limit", defaults.group("cpu.max"), "max 100000")
}

func TestLimitProcesses(t *testing.T) {
	needControllers(t, "pids")
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	equal(t, "pids.max without a limit", p.run().group("pids.max"), "max")
	c := p.run(resources(&cri.LinuxContainerResources{Unified: map[string]string{"pids.max": "20"}}))
	equal(t, "pids.max", c.group("pids.max"), "20")
	if answer := c.exec("sh", "-c", "for i in $(seq 1 40); do sleep 5 & done; wait"); answer.ExitCode == 0 {
		t.Error("forty processes fit into twenty")
	}
	equal(t, "state", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
}

func TestLimitOOMScore(t *testing.T) {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1"), 0); err != nil {
		t.Skip("this machine does not let root lower it")
	}
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	for _, score := range []int64{-998, -500, 3, 1000} {
		c := p.run(resources(&cri.LinuxContainerResources{OomScoreAdj: score}))
		equal(t, "oom_score_adj", strings.TrimSpace(readProc(t, c.pid(), "oom_score_adj")), itoa(score))
		equal(t, "an exec's", strings.TrimSpace(c.sh("cat /proc/self/oom_score_adj")), itoa(score))
	}
	refused(t, rt.CreateContainer, p.createRequest(resources(&cri.LinuxContainerResources{OomScoreAdj: 1001})), codes.InvalidArgument)
}

func TestLimitSetBySystemctlIsSeen(t *testing.T) {
	needControllers(t, "memory", "cpu")
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	asked := &cri.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuShares: 512, CpuQuota: 50000, CpuPeriod: 100000}
	c := p.run(resources(asked))
	plain := p.run()
	status := func(c *ctrT) *cri.LinuxContainerResources { return c.status().Resources.GetLinux() }
	equal(t, "limits that were asked for", status(c).String(), asked.String())
	if r := plain.status().Resources; r != nil {
		t.Errorf("limits of a container without any: %v", r)
	}
	command(t, "systemctl", "set-property", "--runtime", c.unit(), "MemoryMax=96M", "CPUWeight=200", "CPUQuota=25%")
	equal(t, "memory.max", c.group("memory.max"), fmt.Sprint(96<<20))
	r := status(c)
	equal(t, "memory limit", r.MemoryLimitInBytes, 96<<20)
	equal(t, "CPU rate in per cent", r.CpuQuota*100/r.CpuPeriod, 25)
	if r.CpuShares < 5000 || r.CpuShares > 5300 {
		t.Errorf("CPU shares for a weight of 200: %d", r.CpuShares)
	}
	command(t, "systemctl", "set-property", "--runtime", plain.unit(), "MemoryMax=80M")
	equal(t, "memory limit of the other one", status(plain).GetMemoryLimitInBytes(), 80<<20)
	command(t, "systemctl", "set-property", "--runtime", c.unit(), "MemoryMax=infinity", "CPUQuota=")
	r = status(c)
	equal(t, "no memory limit", r.MemoryLimitInBytes, 0)
	equal(t, "no CPU quota", r.CpuQuota, -1)
	// What the kubelet sets counts again.
	do(t, rt.UpdateContainerResources, &cri.UpdateContainerResourcesRequest{ContainerId: c.id, Linux: asked})
	equal(t, "limits that were asked for again", status(c).String(), asked.String())
}
