package e2e

import (
	"fmt"
	"strings"
	"syscall"
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

func TestPodProcessKilledIsStartedAgainAndNothingIsLost(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	for name, mods := range map[string][]podMod{
		"host network": nil,
		"own network":  {withNetwork},
		"shared PIDs":  {withNetwork, func(c *cri.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD }},
	} {
		t.Run(name, func(t *testing.T) {
			p := runPod(t, mods...)
			c := p.run(sh("trap 'exit 0' TERM; i=0; while :; do i=$((i+1)); echo $i; [ $((i % 100)) = 0 ] && sleep 0.01; done"))
			c.waitForLog(" 500\n")
			before, network := c.pid(), p.status().Network.String()
			for range 5 {
				main := unitProperty(t, p.unit(), "MainPID")
				command(t, "systemctl", "kill", "--kill-who=main", "--signal=KILL", p.unit())
				eventually(t, 5*time.Second, "systemd starts it again", func() error {
					if now := unitProperty(t, p.unit(), "MainPID"); now == main || now == "0" || unitProperty(t, p.unit(), "ActiveState") != "active" {
						return fmt.Errorf("main process is %s", now)
					}
					return nil
				})
				equal(t, "state of the pod", p.status().State, cri.PodSandboxState_SANDBOX_READY)
				equal(t, "state of the container", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
				equal(t, "process of the container", c.pid(), before)
			}
			equal(t, "network", p.status().Network.String(), network)
			contains(t, "exec", c.sh("echo works"), "works")
			another := p.run(sh("echo hello"))
			equal(t, "exit code of another container", another.wait().ExitCode, 0)
			equal(t, "its log", another.text("stdout"), "hello\n")
			c.stop(10)
			checkCounting(t, c)
		})
	}
}

// checkCounting looks whether a log counts up from 1 without a gap or a double.
func checkCounting(t testing.TB, c *ctrT) {
	t.Helper()
	for i, l := range c.log() {
		if l.text != fmt.Sprint(i+1) {
			t.Fatalf("line %d of the log is %q", i+1, l.text)
		}
	}
}

const counting = "trap 'exit 0' TERM; i=0; while :; do i=$((i+1)); echo $i; [ $((i % 100)) = 0 ] && sleep 0.01; done"

func TestDaemonRestartKeepsContainersLogsAndExitCodes(t *testing.T) {
	for name, restart := range map[string]func(t testing.TB, meanwhile func()){
		"systemctl restart": func(t testing.TB, meanwhile func()) { restartDaemon(t); meanwhile() },
		"SIGKILL":           func(t testing.TB, meanwhile func()) { killDaemon(t); meanwhile() },
		"stopped for a while": func(t testing.TB, meanwhile func()) {
			command(t, "systemctl", "stop", *daemonUnit)
			meanwhile()
			command(t, "systemctl", "start", *daemonUnit)
			waitForDaemon(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			leavesNothing(t)
			p := runPod(t, withNetwork, func(c *cri.PodSandboxConfig) { c.Labels = map[string]string{"k": "v"} })
			stopped := runPod(t)
			stopped.stop()
			counter := p.run(sh(counting))
			counter.waitForLog(" 500\n")
			created := p.create(sh("exit 4"))
			exited := p.run(sh("exit 5"))
			exited.wait()
			dying := p.run(sh("trap 'exit 7' USR1; echo up; while :; do sleep 0.02; done"))
			dying.waitForLog("up")
			pid, dyingPID, statusBefore, exitedBefore := counter.pid(), dying.pid(), p.status().String(), exited.status().String()

			var died time.Time
			restart(t, func() {
				if err := syscall.Kill(dyingPID, syscall.SIGUSR1); err != nil {
					t.Error(err)
				}
				for isAlive(dyingPID) {
					time.Sleep(time.Millisecond)
				}
				died = time.Now()
			})

			equal(t, "status of the pod", p.status().String(), statusBefore)
			equal(t, "status of the exited container", exited.status().String(), exitedBefore)
			equal(t, "state of the stopped pod", stopped.status().State, cri.PodSandboxState_SANDBOX_NOTREADY)
			equal(t, "state of the created container", created.status().State, cri.ContainerState_CONTAINER_CREATED)
			equal(t, "state of the running container", counter.status().State, cri.ContainerState_CONTAINER_RUNNING)
			equal(t, "its process", counter.pid(), pid)
			st := dying.wait()
			equal(t, "exit code of the one that ended meanwhile", st.ExitCode, 7)
			if off := time.Unix(0, st.FinishedAt).Sub(died).Abs(); off > 300*time.Millisecond {
				t.Errorf("its time is off by %v", off)
			}
			created.start()
			equal(t, "exit code of the one started afterwards", created.wait().ExitCode, 4)
			contains(t, "exec", counter.sh("echo works"), "works")
			counter.stop(10)
			equal(t, "exit code", counter.status().ExitCode, 0)
			checkCounting(t, counter)
		})
	}
}

func TestDaemonKilledAgainAndAgainUnderWorkLosesNothing(t *testing.T) {
	leavesNothing(t)
	keeper := runPod(t, withNetwork)
	c := keeper.run(sh(counting))
	c.waitForLog(" 500\n")
	pid := c.pid()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			// Whatever a call answers while the daemon is being killed; afterwards nothing may be left.
			ctx, cancel := timeout(5 * time.Second)
			config := podConfig(t)
			if i%2 == 0 {
				withNetwork(config)
			}
			if answer, err := rt.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config}); err == nil {
				request := keeper.createRequest(sh("exit 3"))
				request.PodSandboxId, request.SandboxConfig = answer.PodSandboxId, config
				if ctr, err := rt.CreateContainer(ctx, request); err == nil {
					_, _ = rt.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: ctr.ContainerId})
				}
				_, _ = rt.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: answer.PodSandboxId})
			}
			cancel()
		}
	}()
	for i := range 15 {
		time.Sleep(time.Duration(50+i*17) * time.Millisecond)
		killDaemon(t)
	}
	close(stop)
	<-done
	for _, item := range do(t, rt.ListPodSandbox, &cri.ListPodSandboxRequest{}).Items {
		if item.Id != keeper.id {
			do(t, rt.StopPodSandbox, &cri.StopPodSandboxRequest{PodSandboxId: item.Id})
			do(t, rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: item.Id})
		}
	}
	equal(t, "process of the container", c.pid(), pid)
	equal(t, "state of the container", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
	c.stop(10)
	checkCounting(t, c)
}

func TestSystemdReexecutedLosesNothing(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	c := p.run(sh(counting))
	c.waitForLog(" 500\n")
	for range 3 {
		command(t, "systemctl", "daemon-reexec")
		another := runPod(t)
		equal(t, "output", another.output("echo hi"), "hi\n")
		another.remove()
	}
	command(t, "systemctl", "daemon-reload")
	equal(t, "state", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
	c.stop(10)
	equal(t, "exit code", c.status().ExitCode, 0)
	checkCounting(t, c)
}

func TestBusRestartedIsSurvived(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	c := p.run(sh("trap 'exit 8' TERM; echo up; while :; do sleep 0.05; done"))
	c.waitForLog("up")
	_, _ = try("systemctl", "restart", "dbus.service")
	eventually(t, 10*time.Second, "another pod can be run", func() error {
		ctx, cancel := timeout(10 * time.Second)
		defer cancel()
		answer, err := rt.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: podConfig(t)})
		if err == nil {
			do(t, rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: answer.PodSandboxId})
		}
		return err
	})
	c.stop(10)
	equal(t, "exit code", c.status().ExitCode, 8)
}

func TestDiskFullIsAnErrorAndIsRecoveredFrom(t *testing.T) {
	leavesNothing(t)
	const folder = "/var/lib/rktlet"
	command(t, "systemctl", "stop", *daemonUnit)
	command(t, "mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", folder)
	command(t, "systemctl", "start", *daemonUnit)
	waitForDaemon(t)
	t.Cleanup(func() {
		command(t, "systemctl", "stop", *daemonUnit)
		command(t, "umount", folder)
		command(t, "systemctl", "start", *daemonUnit)
		waitForDaemon(t)
	})
	text := refused(t, img.PullImage, &cri.PullImageRequest{Image: spec(ref("test/big"))})
	contains(t, "the error", strings.ToLower(text), "no space left")
	used := strings.Fields(command(t, "du", "-sk", folder))[0]
	if len(used) > 3 {
		t.Errorf("%s KiB are still in use", used)
	}
	p := runPod(t)
	equal(t, "a small image still works", p.output("echo yes"), "yes\n")
	c := p.run(sh("echo up; exec sleep 100000"))

	// Full to the last byte: errors, but nothing that runs is lost, not even over a restart.
	_, _ = try("sh", "-c", "dd if=/dev/zero of="+folder+"/filler bs=64k; dd if=/dev/zero of="+folder+"/filler2 bs=1")
	refused(t, rt.RunPodSandbox, &cri.RunPodSandboxRequest{Config: podConfig(t)})
	killDaemon(t)
	equal(t, "state of the container", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
	equal(t, "state of the pod", p.status().State, cri.PodSandboxState_SANDBOX_READY)
	c.stop(0)
	equal(t, "exit code", c.status().ExitCode, 137)
	p.remove()
	_, _ = try("sh", "-c", "rm -f "+folder+"/filler "+folder+"/filler2")
	again := runPod(t)
	equal(t, "with space again", again.output("echo yes"), "yes\n")
	again.remove()
}
