package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Pods with another OCI runtime than the default. (The whole suite can be run so too: test/e2e/run BUILD --handler runc.)

// runPodWith makes a pod with that runtime handler.
func runPodWith(t testing.TB, handler string, mods ...podMod) *podT {
	t.Helper()
	config := podConfig(t, mods...)
	request := &cri.RunPodSandboxRequest{Config: config, RuntimeHandler: handler}
	p := &podT{t: t, config: config, id: do(t, rt.RunPodSandbox, request).PodSandboxId}
	t.Cleanup(p.remove)
	return p
}

func TestHandlerUnknownIsRefused(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	for _, name := range []string{"no-such-handler", "../crun", "runc ", strings.Repeat("x", 100000)} {
		text := refused(t, rt.RunPodSandbox, &cri.RunPodSandboxRequest{Config: podConfig(t), RuntimeHandler: name}, codes.InvalidArgument)
		contains(t, "the error", text, "crun, runc", "rktlet.conf")
		if len(text) > 1000 {
			t.Errorf("the error has %d bytes", len(text))
		}
	}
}

func TestHandlerFeaturesAreInTheStatus(t *testing.T) {
	daemonStays(t)
	features := map[string]*cri.RuntimeHandlerFeatures{}
	status := do(t, rt.Status, &cri.StatusRequest{})
	for i, h := range status.RuntimeHandlers {
		if features[h.Name] != nil {
			t.Errorf("%q is there twice", h.Name)
		}
		features[h.Name] = h.Features
		equal(t, "the default is the first", h.Name == "", i == 0)
	}
	equal(t, "handlers", len(features), 5) // and "stand-in", see the script `configure`
	for _, name := range []string{"", "crun", "runc"} {
		if f := features[name]; f == nil || !f.RecursiveReadOnlyMounts {
			t.Errorf("features of %q are %v", name, f)
		}
	}
	if f := features["gone"]; f == nil || f.RecursiveReadOnlyMounts || f.UserNamespaces {
		t.Errorf("features of a runtime that is not installed are %v", f)
	}
}

func TestHandlerIsShown(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	for _, name := range []string{"", "crun", "runc"} {
		p := runPodWith(t, name)
		equal(t, "in the status", do(t, rt.PodSandboxStatus, &cri.PodSandboxStatusRequest{PodSandboxId: p.id}).Status.RuntimeHandler, name)
		items := do(t, rt.ListPodSandbox, &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{Id: p.id}}).Items
		if len(items) != 1 || items[0].RuntimeHandler != name {
			t.Errorf("listed: %v", items)
		}
	}
}

// A runtime that isn't installed fails the container, with its name, and leaves nothing.
func TestHandlerThatIsNotInstalled(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	pull(t, "test/base")
	p := runPodWith(t, "gone")
	contains(t, "the error", refused(t, rt.CreateContainer, p.createRequest()), "/usr/sbin/no-such-runtime")
}

// The container is in a leaf below its unit, the runtime's own processes are gone, and systemd's view is the same as with
// the default.
func TestHandlerRuncLivesInALeafOfTheUnit(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPodWith(t, "runc")
	c := p.run(sh("trap 'exit 9' TERM; echo up; while :; do sleep 1; done"))
	c.waitForLog("up")
	group := unitProperty(t, c.unit(), "ControlGroup")
	line := func(pid int) string {
		for _, l := range strings.Split(readProc(t, pid, "cgroup"), "\n") {
			if strings.HasPrefix(l, "0::") {
				return l[3:]
			}
		}
		return ""
	}
	equal(t, "cgroup of the container", line(c.pid()), group+"/container")
	contains(t, "its parent", readProc(t, c.pid(), "status"), "PPid:\t1\n")
	for _, pid := range unitPIDs(t, c.unit()) {
		lacks(t, "a process of the unit", readProc(t, pid, "comm"), "runc", "rktlet")
	}
	if _, err := os.Stat("/run/rktlet/runtimes/runc/" + c.id + "/state.json"); err != nil {
		t.Error(err)
	}
	stats := do(t, rt.ContainerStats, &cri.ContainerStatsRequest{ContainerId: c.id}).Stats
	if stats.Cpu.GetUsageCoreNanoSeconds().GetValue() == 0 {
		t.Errorf("no CPU time: %v", stats.Cpu)
	}
	do(t, rt.UpdateContainerResources, &cri.UpdateContainerResourcesRequest{ContainerId: c.id, Linux: &cri.LinuxContainerResources{CpuShares: 2048}})
	equal(t, "in force for the unit", unitProperty(t, c.unit(), "CPUWeight"), "79")
	c.stop(10)
	equal(t, "exit code", c.status().ExitCode, 9)
}

// What a command of an exec leaves in the background goes on; a timeout ends all of it.
func TestHandlerRuncExec(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	c := runPodWith(t, "runc").run()
	answer := c.exec("sh", "-c", "echo out; echo err >&2; (sleep 100000 >/dev/null 2>&1 &); exit 3")
	equal(t, "output", string(answer.Stdout)+string(answer.Stderr), "out\nerr\n")
	equal(t, "exit code", answer.ExitCode, 3)
	equal(t, "killed", c.exec("sh", "-c", "kill -9 $$").ExitCode, 137)
	contains(t, "the cgroup it sees", c.sh("cat /proc/self/cgroup"), "0::/rktlet-exec-")
	contains(t, "one that was left", c.sh("ps -o args"), "sleep 100000")
	before := len(unitPIDs(t, c.unit()))
	refused(t, rt.ExecSync, &cri.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"sh", "-c", "sleep 1000 & sleep 1000"}, Timeout: 1}, codes.DeadlineExceeded)
	eventually(t, 5*time.Second, "all of it is ended", func() error {
		if n := len(unitPIDs(t, c.unit())); n != before {
			return fmt.Errorf("%d processes instead of %d", n, before)
		}
		return nil
	})
	contains(t, "a command that isn't there", refused(t, rt.ExecSync, &cri.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"/nope"}}, codes.FailedPrecondition), "no such file")
	files, _ := os.ReadDir("/run/rktlet/containers/" + c.id)
	for _, f := range files {
		lacks(t, "a file of the container", f.Name(), "exec-")
	}
}

// A container that was created, one that runs and one that ended, over a daemon that is killed.
func TestHandlerRuncSurvivesTheDaemon(t *testing.T) {
	leavesNothing(t)
	p := runPodWith(t, "runc")
	created, running, ended := p.create(sh("echo started; sleep 100000")), p.run(sh("echo runs; sleep 100000")), p.run(sh("exit 7"))
	ended.wait()
	killDaemon(t)
	equal(t, "created", created.status().State, cri.ContainerState_CONTAINER_CREATED)
	equal(t, "running", running.status().State, cri.ContainerState_CONTAINER_RUNNING)
	equal(t, "ended", ended.status().ExitCode, 7)
	equal(t, "handler", do(t, rt.PodSandboxStatus, &cri.PodSandboxStatusRequest{PodSandboxId: p.id}).Status.RuntimeHandler, "runc")
	created.start()
	created.waitForLog("started")
	equal(t, "exec", running.sh("echo x"), "x\n")
	equal(t, "exec in the other", created.sh("echo y"), "y\n")
	created.stop(0)
	equal(t, "exit code", created.status().ExitCode, 137)
	another := p.run()
	equal(t, "one made since", another.sh("echo z"), "z\n")
}

// A handler that is no longer configured: its pods are listed, stopped and removed; nothing new is done with them.
func TestHandlerTakenOutOfTheConfiguration(t *testing.T) {
	leavesNothing(t)
	const file = "/etc/rktlet/rktlet.conf.d/90-test.conf"
	t.Cleanup(func() { _ = os.Remove(file); restartDaemon(t) })
	writeFile(t, file, "[Runtime temporary]\nPath=/usr/sbin/runc\n", 0o644)
	restartDaemon(t)
	p := runPodWith(t, "temporary")
	c := p.run(sh("trap 'exit 4' TERM; echo up; while :; do sleep 0.2; done"))
	c.waitForLog("up")
	_ = os.Remove(file)
	restartDaemon(t)
	equal(t, "state", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
	contains(t, "exec", refused(t, rt.ExecSync, &cri.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"true"}}, codes.FailedPrecondition), "not configured any more")
	contains(t, "create", refused(t, rt.CreateContainer, p.createRequest(), codes.InvalidArgument, codes.FailedPrecondition), "temporary")
	c.stop(10)
	equal(t, "exit code", c.status().ExitCode, 4)
	p.remove()
	if _, err := os.Stat("/run/rktlet/runtimes/temporary/" + c.id); err == nil {
		t.Error("the runtime's state is left")
	}
}

// The limits of the unit are what programs in the container find in their own cgroup.
func TestLimitHandlerRunc(t *testing.T) {
	needControllers(t, "memory", "cpu", "pids")
	leavesNothing(t)
	daemonStays(t)
	p := runPodWith(t, "runc")
	limit := &cri.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuQuota: 50000, CpuPeriod: 100000}
	c := p.run(resources(limit))
	equal(t, "memory.max of the unit", c.group("memory.max"), fmt.Sprint(64<<20))
	equal(t, "inside", c.sh("cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max"), fmt.Sprintf("%d\n50000 100000\n", 64<<20))
	do(t, rt.UpdateContainerResources, &cri.UpdateContainerResourcesRequest{ContainerId: c.id, Linux: &cri.LinuxContainerResources{MemoryLimitInBytes: 48 << 20}})
	equal(t, "updated", c.group("memory.max"), fmt.Sprint(48<<20))
	equal(t, "inside", c.sh("cat /sys/fs/cgroup/memory.max"), fmt.Sprintf("%d\n", 48<<20))
	equal(t, "exec works", c.exec("sh", "-c", "sleep 100000 >/dev/null 2>&1 & exit 5").ExitCode, 5)
	victim := p.run(withCommand("sh", "-c", "exec tail /dev/zero"), resources(&cri.LinuxContainerResources{MemoryLimitInBytes: 32 << 20, MemorySwapLimitInBytes: 32 << 20}))
	equal(t, "reason", victim.wait().Reason, "OOMKilled")
}
