package e2e

import (
	"fmt"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Pods and containers as systemd sees them.

func TestUnitsAreReadableToAPerson(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, func(c *cri.PodSandboxConfig) { c.Metadata.Name, c.Metadata.Namespace = "web-0", "shop" })
	c := p.run(func(c *cri.ContainerConfig) { c.Metadata.Name = "nginx" })
	contains(t, "description of the pod", unitProperty(t, p.unit(), "Description"), "shop/web-0")
	contains(t, "description of the container", unitProperty(t, c.unit(), "Description"), "nginx", "shop/web-0")
	for _, unit := range []string{p.unit(), c.unit()} {
		equal(t, "state of "+unit, unitProperty(t, unit, "ActiveState")+" "+unitProperty(t, unit, "SubState"), "active running")
		equal(t, "transient", unitProperty(t, unit, "Transient"), "yes")
		text := command(t, "systemctl", "status", "--no-pager", "--full", unit)
		t.Log("\n" + text)
		contains(t, "systemctl status", text, "Active: active (running)")
	}
	if unitProperty(t, p.unit(), "StatusText") == "" {
		t.Error("the pod's unit has no status text")
	}
	equal(t, "slice", unitProperty(t, c.unit(), "Slice"), unitProperty(t, p.unit(), "Slice"))
	fields := unitProperty(t, c.unit(), "LogExtraFields") + unitProperty(t, p.unit(), "LogExtraFields")
	contains(t, "journal fields", fields, "shop", "web-0")
	equal(t, "main process", itoa(int64(c.pid())), unitProperty(t, c.unit(), "MainPID"))
}

func TestUnitsLiveInTheParentSlice(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	const slice = "kubepods-besteffort-pode2e_1.slice"
	for _, parent := range []string{slice, "/kubepods.slice/kubepods-besteffort.slice/" + slice} {
		p := runPod(t, withParent(parent))
		c := p.run()
		equal(t, "slice of the pod", unitProperty(t, p.unit(), "Slice"), slice)
		equal(t, "slice of the container", unitProperty(t, c.unit(), "Slice"), slice)
		contains(t, "cgroup", readProc(t, c.pid(), "cgroup"), "/kubepods.slice/kubepods-besteffort.slice/"+slice+"/"+c.unit())
		p.remove()
	}
	t.Cleanup(func() { _, _ = try("systemctl", "stop", "kubepods.slice") })
}

func TestUnitStoppedBySystemctlIsSeenAsExit(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	c := p.run(sh("trap 'exit 6' TERM; echo up; while :; do sleep 0.05; done"))
	c.waitForLog("up")
	command(t, "systemctl", "stop", c.unit())
	st := c.wait()
	equal(t, "exit code", st.ExitCode, 6)
	if st.FinishedAt < st.StartedAt {
		t.Errorf("finished at %d", st.FinishedAt)
	}
	equal(t, "state of the pod", p.status().State, cri.PodSandboxState_SANDBOX_READY)
	c.remove()
}

func TestUnitKeepsTheExitCodeUntilTheContainerIsRemoved(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	c := p.run(sh("exit 23"))
	c.wait()
	equal(t, "ExecMainStatus", unitProperty(t, c.unit(), "ExecMainStatus"), "23")
	c.remove()
	equal(t, "LoadState after removal", unitProperty(t, c.unit(), "LoadState"), "not-found")
}

func TestUnitOfThePodStoppedBySystemctlMakesThePodNotReady(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, withNetwork)
	c := p.run()
	command(t, "systemctl", "stop", p.unit())
	eventually(t, 5*time.Second, "the pod is not ready", func() error {
		if st := p.status().State; st != cri.PodSandboxState_SANDBOX_NOTREADY {
			return fmt.Errorf("state is %v", st)
		}
		return nil
	})
	_ = c
}
