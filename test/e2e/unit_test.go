package e2e

import (
	"fmt"
	"strings"
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
	eventually(t, 5*time.Second, "the pod's unit says what it is", func() error {
		if text := unitProperty(t, p.unit(), "StatusText"); text != "Ready, on the host's network; containers: nginx running" {
			return fmt.Errorf("%q", text)
		}
		return nil
	})
	contains(t, "documentation", unitProperty(t, p.unit(), "Documentation")+" "+unitProperty(t, c.unit(), "Documentation"), "man:rktlet-pod(8)", "man:rktlet(8)")
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

func TestUnitStatusFollowsThePod(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, withNetwork)
	st := p.status().Network
	p.run(sh("exit 3"), func(c *cri.ContainerConfig) { c.Metadata.Name = "job" }).wait()
	says := func(what string, parts ...string) {
		eventually(t, 5*time.Second, what, func() error {
			text := unitProperty(t, p.unit(), "StatusText")
			for _, part := range parts {
				if !strings.Contains(text, part) {
					return fmt.Errorf("it says %q", text)
				}
			}
			return nil
		})
	}
	says("the status has addresses and containers", "Ready, "+st.Ip, "job exited (3)")
	command(t, "systemctl", "kill", "--kill-who=main", "--signal=KILL", p.unit())
	says("it has them again after the pod's process was killed", "Ready, "+st.Ip, "job exited (3)")
}

func TestUnitStoppedBySystemctlGetsTheContainersStopSignal(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	c := p.run(sh("trap 'exit 9' USR2; trap 'exit 8' TERM; echo up; while :; do sleep 0.05; done"),
		func(c *cri.ContainerConfig) { c.StopSignal = cri.Signal_SIGUSR2 })
	c.waitForLog("up")
	command(t, "systemctl", "stop", c.unit())
	equal(t, "exit code", c.wait().ExitCode, 9)
}

func TestUnitKilledBySystemctlIsSeenAsExit(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	c := p.run(sh("trap 'exit 4' USR1; echo up; while :; do sleep 0.05; done"))
	c.waitForLog("up")
	command(t, "systemctl", "kill", "--signal=USR1", c.unit())
	equal(t, "exit code", c.wait().ExitCode, 4)
	c = p.run()
	command(t, "systemctl", "kill", "--signal=KILL", c.unit())
	equal(t, "exit code", c.wait().ExitCode, 137)
}

func TestUnitFrozenBySystemctl(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	c := p.run(sh("trap 'exit 4' TERM; while :; do date +%N; sleep 0.05; done"))
	lines := func() int { return len(c.log()) }
	eventually(t, 5*time.Second, "it writes", func() error {
		if lines() < 3 {
			return fmt.Errorf("%d lines", lines())
		}
		return nil
	})
	command(t, "systemctl", "freeze", c.unit())
	equal(t, "FreezerState", unitProperty(t, c.unit(), "FreezerState"), "frozen")
	time.Sleep(200 * time.Millisecond) // what was in its pipe is written
	before := lines()
	time.Sleep(300 * time.Millisecond)
	equal(t, "lines of what is frozen", lines(), before)
	equal(t, "state", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
	command(t, "systemctl", "thaw", c.unit())
	eventually(t, 5*time.Second, "it goes on", func() error {
		if lines() <= before {
			return fmt.Errorf("%d lines", lines())
		}
		return nil
	})
	// A frozen one is stopped as well: it can't take the signal, and is killed after the grace.
	command(t, "systemctl", "freeze", c.unit())
	c.stop(1)
	equal(t, "exit code of what was frozen", c.status().ExitCode, 137)
}

func TestUnitFilesAreFine(t *testing.T) {
	files := strings.Fields(command(t, "sh", "-c", "ls -d /usr/lib/systemd/system/rktlet*"))
	if len(files) < 3 {
		t.Fatalf("units installed: %v", files)
	}
	if out := command(t, append([]string{"systemd-analyze", "verify", "--man=no", "--recursive-errors=no"}, files...)...); out != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
	out, _ := try("systemd-analyze", "security", "--no-pager", "rktlet.service")
	t.Log("\n" + out[max(0, len(out)-200):])
}
