package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/client-go/tools/remotecommand"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A process dies in the middle of calls that need it.

// Containers are made, executed in, and removed, while the process of their pod is killed again and again. No call fails.
func TestFaultPodProcessesKilledDuringCallsFailNone(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	pull(t, "test/base")
	kinds := [][]podMod{nil, {withNetwork}, {withNetwork, func(c *cri.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
	}}}
	var pods []*podT
	for _, mods := range kinds {
		pods = append(pods, runPod(t, mods...))
	}
	const rounds = 25
	var wait sync.WaitGroup
	var working atomic.Int32
	round := func(p *podT, i int) error {
		ctx, cancel := timeout(time.Minute)
		defer cancel()
		request := p.createRequest(sh(fmt.Sprintf("seq 1 2000; read line; echo got $line; exit %d", i%99+1)), withStdin(true))
		created, err := rt.CreateContainer(ctx, request)
		if err != nil {
			return fmt.Errorf("CreateContainer: %w", err)
		}
		c := &ctrT{t: t, id: created.ContainerId, pod: p, config: request.Config}
		if _, err = rt.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: c.id}); err != nil {
			return fmt.Errorf("StartContainer: %w", err)
		}
		answer, err := rt.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"echo", "works"}, Timeout: 30})
		if err != nil || string(answer.Stdout) != "works\n" {
			return fmt.Errorf("ExecSync: %v %w", answer, err)
		}
		if _, err = rt.ReopenContainerLog(ctx, &cri.ReopenContainerLogRequest{ContainerId: c.id}); err != nil {
			return fmt.Errorf("ReopenContainerLog: %w", err)
		}
		// An attached client loses its stream with the process, and comes back.
		for ; ; time.Sleep(10 * time.Millisecond) {
			st, err := rt.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: c.id})
			if err != nil {
				return fmt.Errorf("ContainerStatus: %w", err)
			}
			if st.Status.State == cri.ContainerState_CONTAINER_EXITED {
				if int(st.Status.ExitCode) != i%99+1 {
					return fmt.Errorf("exit code %d, not %d", st.Status.ExitCode, i%99+1)
				}
				break
			}
			u, err := rt.Attach(ctx, &cri.AttachRequest{ContainerId: c.id, Stdin: true, Stdout: true, Stderr: true})
			if status.Code(err) == codes.FailedPrecondition {
				continue // it has just ended
			}
			if err != nil {
				return fmt.Errorf("Attach: %w", err)
			}
			executor, err := transports[0].make(u.Url)
			if err != nil {
				return err
			}
			attached, leave := context.WithTimeout(ctx, 5*time.Second)
			_ = executor.StreamWithContext(attached, remotecommand.StreamOptions{Stdin: strings.NewReader("line\n"), Stdout: io.Discard, Stderr: io.Discard})
			leave()
		}
		var text []byte
		for n := 0; n < 2; n++ { // the end of a container is told when its log is complete
			if text, err = os.ReadFile(c.logPath()); err != nil {
				return err
			}
		}
		lines := bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
		for k, line := range lines {
			want := fmt.Sprint(k + 1)
			if k == 2000 {
				want = "got line"
			}
			if !bytes.HasSuffix(line, []byte(" stdout F "+want)) || k > 2000 {
				return fmt.Errorf("line %d of the log is %q", k+1, line)
			}
		}
		if len(lines) != 2001 {
			return fmt.Errorf("the log has %d lines", len(lines))
		}
		if _, err = rt.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: c.id}); err != nil {
			return fmt.Errorf("RemoveContainer: %w", err)
		}
		return nil
	}
	for _, p := range pods {
		working.Add(1)
		wait.Add(1)
		go func() {
			defer wait.Done()
			defer working.Add(-1)
			for i := range rounds {
				if err := round(p, i); err != nil {
					t.Errorf("pod %s, round %d: %v", p.config.Metadata.Name, i, err)
					return
				}
			}
		}()
	}
	kills := 0
	for ; working.Load() > 0; kills++ {
		time.Sleep(time.Duration(10+kills*kills*37%150) * time.Millisecond)
		if pid := mainPID(t, pods[kills%len(pods)].unit()); pid > 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	wait.Wait()
	t.Logf("%d kills during %d containers, no call failed", kills, rounds*len(pods))
}

// Streams break with the daemon, soon and with an error; what ran in them ends; they can be had again from the next daemon.
func TestFaultStreamsEndWithTheDaemonAndCanBeHadAgain(t *testing.T) {
	leavesNothing(t)
	p := runPod(t, withNetwork)
	c := p.run(sh("trap 'exit 3' TERM; nc -ll -p 7001 -e cat & while read -r line; do echo got $line; done; wait"), withStdin(false))
	terminal := p.run(sh("while read -r line; do echo got $line; done"), withStdin(false), func(c *cri.ContainerConfig) { c.Tty = true })
	own := len(unitPIDs(t, c.unit()))
	for i := range 2 {
		var clients []*attached
		for k, transport := range transports {
			for _, ctr := range []*ctrT{c, terminal} {
				a := attach(t, transport.make, ctr, ctr.config.Tty, true)
				_, _ = fmt.Fprintf(a.in, "%d%d\n", i, k)
				a.expect(t, fmt.Sprintf("got %d%d", i, k))
				clients = append(clients, a)
			}
		}
		executed := make(chan error, 4) // SPDY's client takes the end of a connection for success, whatever the server
		for k, transport := range transports {
			for _, tty := range []bool{false, true} {
				var out, errs safeBuffer
				u := execURL(t, c, tty, false, "sh", "-c", "trap '' HUP TERM; echo up; sleep 7777")
				go func() {
					options := remotecommand.StreamOptions{Tty: tty, Stdout: &out}
					if !tty {
						options.Stderr = &errs
					}
					executor, err := transports[k].make(u)
					if err == nil {
						err = executor.StreamWithContext(context.Background(), options)
					}
					if err == nil && transport.name == "WebSocket" {
						err = errors.New("a command that was cut off is said to have succeeded")
						t.Error(err)
					}
					executed <- err
				}()
				out.waitFor(t, "up")
			}
		}
		synced := make(chan error, 1)
		go func() {
			_, err := rt.ExecSync(context.Background(), &cri.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"sh", "-c", "trap '' HUP TERM; sleep 7777"}})
			synced <- err
		}()
		events, err := rt.GetContainerEvents(context.Background(), &cri.GetEventsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "all five commands run", func() error {
			if n := len(unitPIDs(t, c.unit())); n < own+5 {
				return fmt.Errorf("%d processes", n)
			}
			return nil
		})

		begin := time.Now()
		killDaemonNow(t)
		for _, a := range clients {
			_ = a.wait(t)
		}
		for range 4 {
			select {
			case <-executed:
			case <-time.After(20 * time.Second):
				t.Fatal("an exec's client waits on")
			}
		}
		select {
		case err := <-synced:
			if code := status.Code(err); code != codes.Unavailable {
				t.Errorf("ExecSync ended with %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("ExecSync's client waits on")
		}
		for err == nil { // it may have had events before
			_, err = events.Recv()
		}
		t.Logf("all streams were broken off within %v", time.Since(begin))
		eventually(t, 10*time.Second, "what was executed is ended", func() error {
			if n := len(unitPIDs(t, c.unit())); n > own {
				return fmt.Errorf("%d processes, at first %d: %s", n, own, c.sh("ps"))
			}
			return nil
		})
		equal(t, "state", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
	}
	c.stop(10)
	equal(t, "exit code", c.status().ExitCode, 3)
}
