package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestExecSync(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	c := p.run(env("FROM=container"), security(func(s *cri.LinuxContainerSecurityContext) {
		if *engine != "rkt" { // which knows only root for commands
			s.RunAsUser, s.SupplementalGroups = &cri.Int64Value{Value: 1001}, []int64{77}
		}
	}))
	t.Run("both streams and the exit code", func(t *testing.T) {
		answer := c.with(t).exec("sh", "-c", "echo out; echo err >&2; exit 3")
		equal(t, "exit code", answer.ExitCode, 3)
		equal(t, "standard output", string(answer.Stdout), "out\n")
		equal(t, "standard error", string(answer.Stderr), "err\n")
	})
	t.Run("a signal", func(t *testing.T) { equal(t, "exit code", c.with(t).exec("sh", "-c", "kill -9 $$").ExitCode, 137) })
	t.Run("the container's environment and user", func(t *testing.T) {
		equal(t, "output", c.with(t).sh("echo $FROM $(id -u) $(id -g) $(id -G | tr ' ' '\\n' | sort -n)"), "container 1001 1001 77 1001 2001 2002\n")
	})
	t.Run("the container's cgroup and namespaces", func(t *testing.T) {
		equal(t, "pid namespace", c.with(t).sh("readlink /proc/self/ns/pid"), c.sh("readlink /proc/1/ns/pid"))
		// A cgroup of its own below the container's, so that all of it can be ended at once.
		if group := c.with(t).sh("grep ^0:: /proc/self/cgroup"); !strings.HasPrefix(group, "0::/") || strings.Contains(group, "..") {
			t.Errorf("cgroup is %s", group)
		}
	})
	t.Run("no input, no controlling terminal, no descriptor more", func(t *testing.T) {
		equal(t, "output", c.with(t).sh("cat; readlink /proc/self/fd/0; ls /proc/self/fd | wc -l"), "/dev/null\n4\n")
	})
	t.Run("special characters arrive unchanged", func(t *testing.T) {
		equal(t, "output", string(c.with(t).exec("echo", "$HOME", "%n", "a  b", "", "'").Stdout), "$HOME %n a  b  '\n")
	})
	t.Run("a command that is not there", func(t *testing.T) {
		ctx, cancel := timeout(20 * time.Second)
		defer cancel()
		answer, err := rt.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"no-such-command"}, Timeout: 5})
		if err != nil {
			contains(t, "the error", checkRefusal(t, err), "no-such-command")
		} else if answer.ExitCode != 127 && answer.ExitCode != 126 {
			t.Errorf("it exited with %d", answer.ExitCode)
		}
	})
	t.Run("no command", func(t *testing.T) {
		refused(t, rt.ExecSync, &cri.ExecSyncRequest{ContainerId: c.id}, codes.InvalidArgument)
	})
	t.Run("a timeout ends the whole of it", func(t *testing.T) {
		begin := time.Now()
		refused(t, rt.ExecSync, &cri.ExecSyncRequest{ContainerId: c.id, Timeout: 1,
			Cmd: []string{"sh", "-c", "trap '' TERM; sleep 8765 & setsid sleep 8765 & sleep 8765"}}, codes.DeadlineExceeded)
		if took := time.Since(begin); took < 900*time.Millisecond || took > 4*time.Second {
			t.Errorf("a timeout of 1 s took %v", took)
		}
		lacks(t, "processes", c.with(t).sh("ps"), "sleep 8765")
		equal(t, "state", c.with(t).status().State, cri.ContainerState_CONTAINER_RUNNING)
	})
	t.Run("a client that leaves ends it", func(t *testing.T) {
		ctx, cancel := timeout(300 * time.Millisecond)
		defer cancel()
		_, _ = rt.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"sleep", "7654"}})
		eventually(t, 3*time.Second, "the process is gone", func() error {
			if text := c.with(t).sh("ps"); strings.Contains(text, "sleep 7654") {
				return fmt.Errorf("%s", text)
			}
			return nil
		})
	})
	t.Run("something left in the background does not keep the call", func(t *testing.T) {
		begin := time.Now()
		answer := c.with(t).exec("sh", "-c", "sleep 6543 >/dev/null 2>&1 & echo done")
		equal(t, "output", string(answer.Stdout), "done\n")
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		c.with(t).exec("sh", "-c", "kill -9 $(ps | awk '$3 == \"sleep\" && $4 == \"6543\" { print $1 }')")
	})
	t.Run("endless output is cut and costs no memory", func(t *testing.T) {
		before := rss(t)
		answer := do(t, rt.ExecSync, &cri.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"timeout", "2", "yes"}, Timeout: 20})
		if n := len(answer.Stdout); n < 4<<20 || n > 16<<20 {
			t.Errorf("%d bytes came back", n)
		}
		if !bytes.HasPrefix(answer.Stdout, []byte("y\ny\n")) {
			t.Error("they are not what was written")
		}
		eventually(t, 5*time.Second, "the memory is given back", func() error {
			if now := rss(t); now > before+8<<10 {
				return fmt.Errorf("%d KiB before, %d KiB after", before, now)
			}
			return nil
		})
	})
	t.Run("fifty at once", func(t *testing.T) {
		var wait sync.WaitGroup
		for i := range 50 {
			wait.Add(1)
			go func() {
				defer wait.Done()
				ctx, cancel := timeout(30 * time.Second)
				defer cancel()
				answer, err := rt.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"echo", fmt.Sprint(i)}, Timeout: 20})
				if err != nil || string(answer.Stdout) != fmt.Sprintln(i) {
					t.Errorf("%d: %v %v", i, answer, err)
				}
			}()
		}
		wait.Wait()
	})
	t.Run("not in one that doesn't run", func(t *testing.T) {
		created := p.with(t).create()
		refused(t, rt.ExecSync, &cri.ExecSyncRequest{ContainerId: created.id, Cmd: []string{"true"}}, codes.FailedPrecondition)
		exited := p.with(t).run(withCommand("true"))
		exited.wait()
		refused(t, rt.ExecSync, &cri.ExecSyncRequest{ContainerId: exited.id, Cmd: []string{"true"}}, codes.FailedPrecondition)
		refused(t, rt.ExecSync, &cri.ExecSyncRequest{ContainerId: "nobody", Cmd: []string{"true"}}, codes.NotFound)
	})
	t.Run("one under way when the container stops is ended", func(t *testing.T) {
		c := p.with(t).run()
		ended := make(chan error, 1)
		go func() {
			ctx, cancel := timeout(30 * time.Second)
			defer cancel()
			_, err := rt.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"sleep", "1000"}})
			ended <- err
		}()
		time.Sleep(300 * time.Millisecond)
		c.stop(0)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Error("the call goes on")
		}
	})
}

// rss is the daemon's resident memory in KiB.
func rss(t testing.TB) int {
	t.Helper()
	data, err := os.ReadFile("/proc/" + daemonPID(t) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	var kib int
	_, _ = fmt.Sscanf(procStatus(string(data), "VmRSS"), "%d", &kib)
	return kib
}

// A unit that an administrator froze: the command waits, and nobody else does.
func TestExecSyncInAFrozenContainer(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	c := p.run()
	command(t, "systemctl", "freeze", c.unit())
	refused(t, rt.ExecSync, &cri.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"true"}, Timeout: 1}, codes.DeadlineExceeded)
	done := make(chan error, 1)
	go func() {
		_, err := rt.ExecSync(context.Background(), &cri.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"true"}})
		done <- err
	}()
	equal(t, "meanwhile", p.output("echo else"), "else\n")
	select {
	case err := <-done:
		t.Errorf("it did not wait: %v", err)
	default:
	}
	command(t, "systemctl", "thaw", c.unit())
	if err := <-done; err != nil {
		t.Error(err)
	}
	command(t, "systemctl", "freeze", c.unit())
	go func() {
		_, err := rt.ExecSync(context.Background(), &cri.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"true"}})
		done <- err
	}()
	c.stop(0)
	checkRefusal(t, <-done, codes.FailedPrecondition)
}
