package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestContainerLifecycle(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	id := pull(t, "test/base")
	begin := time.Now().UnixNano()
	c := p.create(sh("trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"), func(c *cri.ContainerConfig) {
		c.Labels = map[string]string{"role": "db", "ünï": "two\nlines"}
		c.Annotations = map[string]string{"long": strings.Repeat("y", 100000)}
		c.Metadata.Attempt = 3
	})
	st := c.status()
	equal(t, "state", st.State, cri.ContainerState_CONTAINER_CREATED)
	if st.CreatedAt < begin || st.StartedAt != 0 || st.FinishedAt != 0 {
		t.Errorf("times %d %d %d", st.CreatedAt, st.StartedAt, st.FinishedAt)
	}
	equal(t, "metadata", st.Metadata.String(), c.config.Metadata.String())
	if !maps.Equal(st.Labels, c.config.Labels) || !maps.Equal(st.Annotations, c.config.Annotations) {
		t.Error("labels or annotations came back changed")
	}
	equal(t, "image", st.Image.Image, ref("test/base"))
	equal(t, "image_ref", st.ImageRef, id)
	equal(t, "image_id", st.ImageId, id)
	equal(t, "log path", st.LogPath, c.logPath())

	c.start()
	st = c.status()
	equal(t, "state", st.State, cri.ContainerState_CONTAINER_RUNNING)
	if st.StartedAt < st.CreatedAt {
		t.Errorf("started %d, created %d", st.StartedAt, st.CreatedAt)
	}
	refused(t, rt.StartContainer, &cri.StartContainerRequest{ContainerId: c.id}, codes.FailedPrecondition)
	c.waitForLog("up")
	verbose := do(t, rt.ContainerStatus, &cri.ContainerStatusRequest{ContainerId: c.id, Verbose: true})
	if len(verbose.Info) == 0 {
		t.Error("verbose status has no info")
	}

	c.stop(10)
	st = c.status()
	equal(t, "state", st.State, cri.ContainerState_CONTAINER_EXITED)
	equal(t, "exit code", st.ExitCode, 5)
	equal(t, "reason", st.Reason, "Error")
	if st.FinishedAt < st.StartedAt || st.FinishedAt > time.Now().UnixNano() {
		t.Errorf("finished %d, started %d", st.FinishedAt, st.StartedAt)
	}
	c.stop(10)
	refused(t, rt.StartContainer, &cri.StartContainerRequest{ContainerId: c.id}, codes.FailedPrecondition)
	c.remove()
	c.remove()
	c.stop(10)
	refused(t, rt.ContainerStatus, &cri.ContainerStatusRequest{ContainerId: c.id}, codes.NotFound)
	refused(t, rt.StartContainer, &cri.StartContainerRequest{ContainerId: c.id}, codes.NotFound)
}

func TestContainerExitCodes(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	for name, c := range map[string]struct {
		script string
		code   int32
		reason string
	}{
		"0 is completed":               {"exit 0", 0, "Completed"},
		"7 is an error":                {"exit 7", 7, "Error"},
		"255":                          {"exit 255", 255, "Error"},
		"an exit before anybody looks": {"", 0, "Completed"},
		"output right before the end":  {"echo last words; exit 3", 3, "Error"},
	} {
		t.Run(name, func(t *testing.T) {
			st := p.with(t).run(sh(c.script)).wait()
			equal(t, "exit code", st.ExitCode, c.code)
			equal(t, "reason", st.Reason, c.reason)
		})
	}
	t.Run("killed by a signal is 128 and the signal", func(t *testing.T) {
		c := p.with(t).run()
		if err := syscall.Kill(c.pid(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		st := c.wait()
		equal(t, "exit code", st.ExitCode, 137)
		equal(t, "reason", st.Reason, "Error")
	})
	t.Run("processes it leaves behind are ended with it", func(t *testing.T) {
		c := p.with(t).run(sh("sleep 9876 & exec sleep 0.3"))
		c.wait()
		if out, err := try("pgrep", "-f", "sleep 9876"); err == nil {
			t.Errorf("still running: %s", out)
		}
	})
}

func TestContainerStop(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, withNetwork)
	stubborn := sh("trap '' TERM; echo up; while :; do sleep 0.05; done")
	t.Run("SIGKILL follows when the grace is over", func(t *testing.T) {
		c := p.with(t).run(stubborn)
		c.waitForLog("up")
		begin := time.Now()
		c.stop(1)
		if took := time.Since(begin); took < 900*time.Millisecond || took > 3*time.Second {
			t.Errorf("a grace of 1 s took %v", took)
		}
		equal(t, "exit code", c.status().ExitCode, 137)
	})
	t.Run("no grace is SIGKILL at once", func(t *testing.T) {
		c := p.with(t).run(stubborn)
		c.waitForLog("up")
		begin := time.Now()
		c.stop(0)
		if took := time.Since(begin); took > time.Second {
			t.Errorf("it took %v", took)
		}
		equal(t, "exit code", c.status().ExitCode, 137)
	})
	signals := sh("for s in TERM USR1 USR2 HUP INT QUIT; do trap \"echo got $s; exit 29\" $s; done; echo up; while :; do sleep 0.05; done")
	for name, c := range map[string]struct {
		want string
		mods []ctrMod
	}{
		"SIGTERM is the default":            {"got TERM", nil},
		"the image's stop signal":           {"got USR1", []ctrMod{withImage("test/stop-signal")}},
		"the request's stop signal":         {"got HUP", []ctrMod{func(c *cri.ContainerConfig) { c.StopSignal = cri.Signal_SIGHUP }}},
		"the request's wins over image's":   {"got INT", []ctrMod{withImage("test/stop-signal"), func(c *cri.ContainerConfig) { c.StopSignal = cri.Signal_SIGINT }}},
		"an unknown one in the image: term": {"got TERM", []ctrMod{withImage("evil/stop-signal")}},
	} {
		t.Run(name, func(t *testing.T) {
			c2 := p.with(t).run(append(c.mods, signals)...)
			c2.waitForLog("up")
			c2.stop(10)
			contains(t, "log", c2.text("stdout"), c.want)
			equal(t, "exit code", c2.status().ExitCode, 29)
		})
	}
	t.Run("the stop signal is in the status", func(t *testing.T) {
		equal(t, "signal", p.with(t).create(withImage("test/stop-signal")).status().StopSignal, cri.Signal_SIGUSR1)
	})
	t.Run("a created one", func(t *testing.T) {
		c := p.with(t).create()
		c.stop(5)
		c.remove()
	})
	t.Run("a client that gives up does not bring SIGKILL", func(t *testing.T) {
		c := p.with(t).run(stubborn)
		c.waitForLog("up")
		ctx, cancel := timeout(300 * time.Millisecond)
		defer cancel()
		if _, err := rt.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: c.id, Timeout: 1}); !isTimeout(err) {
			t.Errorf("the call ended with %v", err)
		}
		time.Sleep(1500 * time.Millisecond)
		equal(t, "state", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
		c.stop(0)
	})
	t.Run("two at once both succeed", func(t *testing.T) {
		c := p.with(t).run()
		var wait sync.WaitGroup
		for range 2 {
			wait.Add(1)
			go func() {
				defer wait.Done()
				ctx, cancel := timeout(20 * time.Second)
				defer cancel()
				if _, err := rt.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: c.id, Timeout: 1}); err != nil {
					t.Error(err)
				}
			}()
		}
		wait.Wait()
	})
	t.Run("SIGKILL during a long grace by a second call", func(t *testing.T) {
		c := p.with(t).run(stubborn)
		c.waitForLog("up")
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() {
			_, err := rt.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: c.id, Timeout: 60})
			ended <- err
		}()
		time.Sleep(200 * time.Millisecond)
		begin := time.Now()
		c.stop(0)
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("it took %v", took)
		}
		if err := <-ended; err != nil {
			t.Errorf("the first call: %v", err)
		}
		cancel()
	})
	t.Run("unknown ones are fine", func(t *testing.T) {
		do(t, rt.StopContainer, &cri.StopContainerRequest{ContainerId: strings.Repeat("0", 64)})
		do(t, rt.RemoveContainer, &cri.RemoveContainerRequest{ContainerId: strings.Repeat("0", 64)})
	})
	t.Run("remove ends a running one", func(t *testing.T) {
		c := p.with(t).run(stubborn)
		pid := c.pid()
		c.remove()
		if isAlive(pid) {
			t.Error("its process is alive")
		}
	})
}

func TestContainerRequestsThatAreRefused(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	pull(t, "test/base")
	for name, mod := range map[string]ctrMod{
		"no metadata":                   func(c *cri.ContainerConfig) { c.Metadata = nil },
		"no name":                       func(c *cri.ContainerConfig) { c.Metadata.Name = "" },
		"a name of a megabyte":          func(c *cri.ContainerConfig) { c.Metadata.Name = strings.Repeat("n", 1<<20) },
		"no image":                      func(c *cri.ContainerConfig) { c.Image = nil },
		"an image that is not there":    func(c *cri.ContainerConfig) { c.Image.Image = ref("test/never") },
		"a log path with ..":            func(c *cri.ContainerConfig) { c.LogPath = "../../etc/log" },
		"a NUL in an argument":          withCommand("echo", "a\x00b"),
		"a namespace mode that is none": security(func(s *cri.LinuxContainerSecurityContext) { s.NamespaceOptions.Pid = 77 }),
		"a target container not there": security(func(s *cri.LinuxContainerSecurityContext) {
			s.NamespaceOptions.Pid, s.NamespaceOptions.TargetId = cri.NamespaceMode_TARGET, "nobody"
		}),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := timeout(20 * time.Second)
			defer cancel()
			answer, err := rt.CreateContainer(ctx, p.createRequest(mod))
			if err == nil {
				t.Error("it was accepted")
				do(t, rt.RemoveContainer, &cri.RemoveContainerRequest{ContainerId: answer.ContainerId})
				return
			}
			checkRefusal(t, err, codes.InvalidArgument, codes.NotFound)
		})
	}
	t.Run("a pod that is not there", func(t *testing.T) {
		request := p.createRequest()
		request.PodSandboxId = strings.Repeat("0", 64)
		refused(t, rt.CreateContainer, request, codes.NotFound)
	})
	t.Run("no configuration", func(t *testing.T) {
		refused(t, rt.CreateContainer, &cri.CreateContainerRequest{PodSandboxId: p.id}, codes.InvalidArgument)
	})
	t.Run("a name that is taken", func(t *testing.T) {
		c := p.with(t).create()
		request := p.createRequest(func(config *cri.ContainerConfig) { config.Metadata = c.config.Metadata })
		contains(t, "the error", refused(t, rt.CreateContainer, request, codes.AlreadyExists), c.config.Metadata.Name)
		request.Config.Metadata = &cri.ContainerMetadata{Name: c.config.Metadata.Name, Attempt: 1}
		do(t, rt.CreateContainer, request)
		c.remove()
		request.Config.Metadata.Attempt = 0
		do(t, rt.CreateContainer, request)
	})
	t.Run("a pod that is stopped", func(t *testing.T) {
		stopped := runPod(t)
		c := stopped.create()
		stopped.stop()
		refused(t, rt.CreateContainer, stopped.createRequest(), codes.FailedPrecondition)
		refused(t, rt.StartContainer, &cri.StartContainerRequest{ContainerId: c.id}, codes.FailedPrecondition)
	})
}

func TestListFiltersAndPrefixes(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	label := func(value string) podMod {
		return func(c *cri.PodSandboxConfig) { c.Labels = map[string]string{"n": value, "all": "x"} }
	}
	a, b := runPod(t, label("a")), runPod(t, label("b"))
	b.stop()
	clabel := func(value string) ctrMod {
		return func(c *cri.ContainerConfig) { c.Labels = map[string]string{"n": value, "all": "x"} }
	}
	one, two := a.run(clabel("1")), a.create(clabel("2"))
	pods := func(f *cri.PodSandboxFilter) string {
		var names []string
		for _, i := range do(t, rt.ListPodSandbox, &cri.ListPodSandboxRequest{Filter: f}).Items {
			names = append(names, i.Labels["n"])
		}
		return sorted(names)
	}
	containers := func(f *cri.ContainerFilter) string {
		var names []string
		for _, i := range do(t, rt.ListContainers, &cri.ListContainersRequest{Filter: f}).Containers {
			names = append(names, i.Labels["n"])
		}
		return sorted(names)
	}
	state := func(s cri.PodSandboxState) *cri.PodSandboxStateValue { return &cri.PodSandboxStateValue{State: s} }
	cstate := func(s cri.ContainerState) *cri.ContainerStateValue { return &cri.ContainerStateValue{State: s} }
	equal(t, "all pods", pods(nil), "a b")
	equal(t, "empty filter", pods(&cri.PodSandboxFilter{}), "a b")
	equal(t, "by ID", pods(&cri.PodSandboxFilter{Id: a.id}), "a")
	equal(t, "by prefix", pods(&cri.PodSandboxFilter{Id: a.id[:12]}), "a")
	equal(t, "by unknown ID", pods(&cri.PodSandboxFilter{Id: "nope"}), "")
	equal(t, "ready", pods(&cri.PodSandboxFilter{State: state(cri.PodSandboxState_SANDBOX_READY)}), "a")
	equal(t, "not ready", pods(&cri.PodSandboxFilter{State: state(cri.PodSandboxState_SANDBOX_NOTREADY)}), "b")
	equal(t, "by label", pods(&cri.PodSandboxFilter{LabelSelector: map[string]string{"n": "b"}}), "b")
	equal(t, "by two labels", pods(&cri.PodSandboxFilter{LabelSelector: map[string]string{"n": "b", "all": "x"}}), "b")
	equal(t, "by labels that contradict", pods(&cri.PodSandboxFilter{LabelSelector: map[string]string{"n": "b", "all": "y"}}), "")
	equal(t, "by all together", pods(&cri.PodSandboxFilter{Id: a.id[:8], State: state(cri.PodSandboxState_SANDBOX_NOTREADY)}), "")
	equal(t, "all containers", containers(nil), "1 2")
	equal(t, "by ID", containers(&cri.ContainerFilter{Id: one.id}), "1")
	equal(t, "by prefix", containers(&cri.ContainerFilter{Id: two.id[:10]}), "2")
	equal(t, "by pod", containers(&cri.ContainerFilter{PodSandboxId: a.id}), "1 2")
	equal(t, "by the pod's prefix", containers(&cri.ContainerFilter{PodSandboxId: a.id[:10]}), "1 2")
	equal(t, "by another pod", containers(&cri.ContainerFilter{PodSandboxId: b.id}), "")
	equal(t, "running", containers(&cri.ContainerFilter{State: cstate(cri.ContainerState_CONTAINER_RUNNING)}), "1")
	equal(t, "created", containers(&cri.ContainerFilter{State: cstate(cri.ContainerState_CONTAINER_CREATED)}), "2")
	equal(t, "exited", containers(&cri.ContainerFilter{State: cstate(cri.ContainerState_CONTAINER_EXITED)}), "")
	equal(t, "by label", containers(&cri.ContainerFilter{LabelSelector: map[string]string{"n": "2"}}), "2")

	item := do(t, rt.ListContainers, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{Id: one.id}}).Containers[0]
	equal(t, "pod of a container", item.PodSandboxId, a.id)
	equal(t, "image_id", item.ImageId, one.status().ImageId)
	equal(t, "metadata", item.Metadata.String(), one.config.Metadata.String())

	// A prefix does everywhere.
	do(t, rt.PodSandboxStatus, &cri.PodSandboxStatusRequest{PodSandboxId: a.id[:16]})
	do(t, rt.ContainerStatus, &cri.ContainerStatusRequest{ContainerId: one.id[:16]})
	do(t, rt.ExecSync, &cri.ExecSyncRequest{ContainerId: one.id[:16], Cmd: []string{"true"}, Timeout: 5})
	do(t, rt.StartContainer, &cri.StartContainerRequest{ContainerId: two.id[:16]})
	do(t, rt.StopContainer, &cri.StopContainerRequest{ContainerId: two.id[:16]})
	do(t, rt.RemoveContainer, &cri.RemoveContainerRequest{ContainerId: two.id[:16]})
	do(t, rt.StopPodSandbox, &cri.StopPodSandboxRequest{PodSandboxId: b.id[:16]})
	do(t, rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: b.id[:16]})
}

func sorted(names []string) string {
	for i := range names {
		for j := i; j > 0 && names[j] < names[j-1]; j-- {
			names[j], names[j-1] = names[j-1], names[j]
		}
	}
	return strings.Join(names, " ")
}

func TestLogFormat(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	t.Run("both streams, times that grow", func(t *testing.T) {
		begin := time.Now()
		c := p.with(t).run(sh("echo one; echo two >&2; echo; echo '  four  '; printf 'no newline'"))
		c.wait()
		var out []string
		last := begin
		for _, l := range c.log() {
			if l.partial {
				t.Errorf("a partial line: %v", l)
			}
			if l.time.Before(last) || l.time.After(time.Now()) {
				t.Errorf("time %v after %v", l.time, last)
			}
			last = l.time
			if l.stream == "stdout" {
				out = append(out, l.text)
			}
		}
		equal(t, "standard output", strings.Join(out, "|"), "one||  four  |no newline")
		equal(t, "standard error", c.text("stderr"), "two\n")
		info, _ := os.Stat(c.logPath())
		equal(t, "mode of the log", info.Mode().Perm(), 0o640)
	})
	t.Run("lines are split after 16 KiB", func(t *testing.T) {
		c := p.with(t).run(sh("head -c 16384 /dev/zero | tr '\\0' a; echo; head -c 16385 /dev/zero | tr '\\0' b; echo; head -c 100000 /dev/zero | tr '\\0' c; echo; echo end"))
		c.wait()
		var got []string
		for _, l := range c.log() {
			got = append(got, fmt.Sprintf("%c%d%v", l.text[0], len(l.text), l.partial))
		}
		equal(t, "lines", strings.Join(got, " "), "a16384false b16384true b1false "+strings.Repeat("c16384true ", 6)+"c1696false e3false")
	})
	t.Run("bytes arrive as they are", func(t *testing.T) {
		c := p.with(t).run(sh("printf 'a\\000b\\377\\r\\033[0m\\n'"))
		c.wait()
		equal(t, "text", c.log()[0].text, "a\x00b\xff\r\x1b[0m")
	})
	t.Run("a lot at once is complete when the container has exited", func(t *testing.T) {
		c := p.with(t).run(sh("i=0; seq 1 200000"))
		c.wait()
		lines := c.log()
		equal(t, "lines", len(lines), 200000)
		for i, l := range lines {
			if l.text != fmt.Sprint(i+1) {
				t.Fatalf("line %d is %q", i+1, l.text)
			}
		}
	})
	t.Run("complete when StopContainer returns", func(t *testing.T) {
		c := p.with(t).run(sh("trap 'seq 1 50000; exit 0' TERM; echo up; while :; do sleep 0.05; done"))
		c.waitForLog("up")
		c.stop(20)
		equal(t, "lines", len(c.log()), 50001)
	})
	t.Run("no log path: nothing is written", func(t *testing.T) {
		c := p.with(t).run(sh("seq 1 100000"), func(c *cri.ContainerConfig) { c.LogPath = "" })
		equal(t, "exit code", c.wait().ExitCode, 0)
		equal(t, "log path", c.status().LogPath, "")
	})
	t.Run("a folder below the log folder", func(t *testing.T) {
		c := p.with(t).run(sh("echo x"), func(c *cri.ContainerConfig) { c.LogPath = "web/0.log" })
		c.wait()
		equal(t, "text", c.text("stdout"), "x\n")
	})
	t.Run("/dev/stdout and /dev/stderr can be opened", func(t *testing.T) {
		c := p.with(t).run(sh("echo out > /dev/stdout; echo err > /dev/stderr"))
		c.wait()
		equal(t, "standard output", c.text("stdout"), "out\n")
		equal(t, "standard error", c.text("stderr"), "err\n")
	})
	t.Run("/dev/stdout can be opened by another user", func(t *testing.T) {
		c := p.with(t).run(sh("echo out > /dev/stdout"), security(func(s *cri.LinuxContainerSecurityContext) { s.RunAsUser = &cri.Int64Value{Value: 1000} }))
		equal(t, "exit code", c.wait().ExitCode, 0)
		equal(t, "standard output", c.text("stdout"), "out\n")
	})
	for name, prepare := range map[string]func(path string) error{
		"a symbolic link": func(path string) error { return os.Symlink("/run/e2e/elsewhere", path) },
		"a FIFO":          func(path string) error { return syscall.Mkfifo(path, 0o644) },
		"a folder":        func(path string) error { return os.Mkdir(path, 0o755) },
	} {
		t.Run(name+" as the log is refused", func(t *testing.T) {
			request := p.createRequest()
			path := p.config.LogDirectory + "/" + request.Config.LogPath
			if err := prepare(path); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := timeout(20 * time.Second)
			defer cancel()
			answer, err := rt.CreateContainer(ctx, request)
			if err == nil {
				_, err = rt.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: answer.ContainerId})
				defer do(t, rt.RemoveContainer, &cri.RemoveContainerRequest{ContainerId: answer.ContainerId})
			}
			if err == nil {
				t.Error("it was accepted")
			} else {
				checkRefusal(t, err, codes.InvalidArgument, codes.FailedPrecondition)
			}
			if _, err := os.Stat("/run/e2e/elsewhere"); err == nil {
				t.Error("the link was followed")
			}
		})
	}
}

func TestLogReopenLosesAndDoublesNothing(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	c := p.run(sh(writer(50000, ":"))) // as fast as it can
	c.waitForLog(" 1000\n")
	begin := time.Now()
	var parts []string
	for i := range 200 {
		part := fmt.Sprintf("%s.%d", c.logPath(), i)
		if err := os.Rename(c.logPath(), part); err != nil {
			t.Fatal(err)
		}
		parts = append(parts, part)
		do(t, rt.ReopenContainerLog, &cri.ReopenContainerLogRequest{ContainerId: c.id})
		eventually(t, 10*time.Second, "the new file is written to", func() error {
			if info, err := os.Stat(c.logPath()); err != nil || info.Size() == 0 {
				return fmt.Errorf("%v, %v", info, err)
			}
			return nil
		})
	}
	took := time.Since(begin)
	c.stop(10)
	lines := checkWriter(t, append(parts, c.logPath())...)
	t.Logf("200 times reopened in %v: %d lines, none lost, none doubled", took, lines)
	refused(t, rt.ReopenContainerLog, &cri.ReopenContainerLogRequest{ContainerId: c.id}, codes.FailedPrecondition)
	refused(t, rt.ReopenContainerLog, &cri.ReopenContainerLogRequest{ContainerId: "nobody"}, codes.NotFound)
}
