package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/client-go/tools/remotecommand"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Clients that leave in the middle.

// cancelled makes a call n times, each time given up a little later, from at once to after it would have ended, and each
// time makes it again without a pause. `again` has to succeed at the first try: nobody refuses it because of the first.
// `done` clears up. Returns how many of the calls were really cut off.
func cancelled(t testing.TB, n int, call func(ctx context.Context, i int) error, again func(i int) error, done func(i int)) int {
	t.Helper()
	took := time.Second // the machine may be busy just now: the fastest of three counts
	for range 3 {
		begin := time.Now()
		if err := call(context.Background(), 0); err != nil {
			t.Fatal(err)
		}
		took = min(took, time.Since(begin))
		done(0)
	}
	cut := 0
	for i := 1; i <= n; i++ {
		ctx, cancel := context.WithTimeout(context.Background(), took*time.Duration(i)/time.Duration(n)+100*time.Microsecond)
		err := call(ctx, i)
		cancel()
		if err != nil {
			if code := status.Code(err); code != codes.DeadlineExceeded && code != codes.Canceled {
				t.Errorf("the call that was given up ended with %v", err)
			}
			cut++
			if err = again(i); err != nil {
				t.Errorf("the retry: %v", err)
			}
		}
		done(i)
	}
	return cut
}

func TestFaultCancelledRunsCanBeRetriedAtOnce(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	for name, mods := range map[string][]podMod{"host network": nil, "own network": {withNetwork}} {
		var config *cri.PodSandboxConfig
		var id string
		run := func(ctx context.Context, i int) error {
			config = podConfig(t, mods...)
			answer, err := rt.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config})
			id = answer.GetPodSandboxId()
			return err
		}
		cut := cancelled(t, 50, run, func(int) error {
			ctx, cancel := timeout(20 * time.Second)
			defer cancel()
			answer, err := rt.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config})
			id = answer.GetPodSandboxId()
			// The pod may have been complete when the client left, its answer still on the way: then it is there to be
			// listed, as the kubelet does. Only a complete one may keep the name.
			if status.Code(err) == codes.AlreadyExists {
				for _, pod := range do(t, rt.ListPodSandbox, &cri.ListPodSandboxRequest{}).Items {
					if pod.Metadata.Uid == config.Metadata.Uid && pod.State == cri.PodSandboxState_SANDBOX_READY {
						id, err = pod.Id, nil
					}
				}
			}
			return err
		}, func(int) {
			do(t, rt.StopPodSandbox, &cri.StopPodSandboxRequest{PodSandboxId: id})
			do(t, rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: id})
			_ = os.RemoveAll(config.LogDirectory)
		})
		t.Logf("%s: 50 calls, %d cut off, no retry refused", name, cut)
	}
}

func TestFaultCancelledCreatesAndStartsCanBeRetriedAtOnce(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	pull(t, "test/base")
	p := runPod(t)
	var request *cri.CreateContainerRequest
	var id string
	create := func(ctx context.Context) (err error) {
		var answer *cri.CreateContainerResponse
		answer, err = rt.CreateContainer(ctx, request)
		id = answer.GetContainerId()
		return err
	}
	remove := func(int) { do(t, rt.RemoveContainer, &cri.RemoveContainerRequest{ContainerId: id}) }
	cut := cancelled(t, 50, func(ctx context.Context, i int) error {
		request = p.createRequest()
		return create(ctx)
	}, func(int) error {
		ctx, cancel := timeout(20 * time.Second)
		defer cancel()
		err := create(ctx)
		if status.Code(err) == codes.AlreadyExists { // only the answer came too late
			for _, item := range do(t, rt.ListContainers, &cri.ListContainersRequest{}).Containers {
				if item.Metadata.Name == request.Config.Metadata.Name {
					id, err = item.Id, nil
				}
			}
		}
		return err
	}, remove)
	t.Logf("CreateContainer: 50 calls, %d cut off, no retry refused", cut)

	start := func(ctx context.Context) error {
		_, err := rt.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: id})
		return err
	}
	cut = cancelled(t, 50, func(ctx context.Context, i int) error {
		request = p.createRequest(sh("echo up; exec sleep 10000"))
		if err := create(context.Background()); err != nil {
			t.Fatal(err)
		}
		return start(ctx)
	}, func(int) error {
		err := start(context.Background())
		if status.Code(err) == codes.FailedPrecondition { // it runs: only the answer came too late
			if st := do(t, rt.ContainerStatus, &cri.ContainerStatusRequest{ContainerId: id}).Status; st.State == cri.ContainerState_CONTAINER_RUNNING {
				return nil
			}
		}
		return err
	}, func(i int) {
		st := do(t, rt.ContainerStatus, &cri.ContainerStatusRequest{ContainerId: id}).Status
		equal(t, "state", st.State, cri.ContainerState_CONTAINER_RUNNING)
		remove(i)
	})
	t.Logf("StartContainer: 50 calls, %d cut off, no retry refused", cut)
	equal(t, "containers", len(do(t, rt.ListContainers, &cri.ListContainersRequest{}).Containers), 0)
}

func TestFaultCancelledPullsCanBeRetriedAtOnce(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	store := func() string { return imageStore(t) }
	for name, n := range map[string]int{"test/layers": 50, "test/big": 6} {
		removeImage(t, ref(name))
		before := store()
		pullIt := func(ctx context.Context) error {
			_, err := img.PullImage(ctx, &cri.PullImageRequest{Image: spec(ref(name))})
			return err
		}
		cut := cancelled(t, n, func(ctx context.Context, i int) error { return pullIt(ctx) },
			func(int) error { return pullIt(context.Background()) }, func(int) { removeImage(t, ref(name)) })
		eventually(t, 10*time.Second, "nothing is left in the store", func() error {
			if now := store(); now != before {
				return fmt.Errorf("before:\n%s\nnow:\n%s", before, now)
			}
			return nil
		})
		t.Logf("PullImage of %s: %d calls, %d cut off, no retry refused", name, n, cut)
	}
}

// peakRSS is the most that the daemon's process has had resident while f ran, in KiB.
func peakRSS(t testing.TB, f func()) int {
	t.Helper()
	var most atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	path := "/proc/" + daemonPID(t) + "/status"
	go func() {
		defer close(done)
		for {
			if data, err := os.ReadFile(path); err == nil {
				var kib int64
				_, _ = fmt.Sscanf(procStatus(string(data), "VmRSS"), "%d", &kib)
				most.Store(max(most.Load(), kib))
			}
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	f()
	close(stop)
	<-done
	return int(most.Load())
}

func TestFaultExecOfEndlessOutputCostsTheCapAndNoMore(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	c := runPod(t).run()
	before := rss(t)
	for _, seconds := range []string{"1", "4"} { // longer doesn't mean more
		most := peakRSS(t, func() {
			answer := do(t, rt.ExecSync, &cri.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"timeout", seconds, "yes"}, Timeout: 60})
			if n := len(answer.Stdout); n > 16<<20 || n == 0 {
				t.Errorf("%d bytes came back", n)
			}
		})
		t.Logf("ExecSync of `yes` for %s s: %d KiB before, %d KiB at most", seconds, before, most)
		// The capped output, and once more of it as the answer.
		if most > before+36<<10 {
			t.Errorf("%d KiB before, %d KiB at most", before, most)
		}
	}
	eventually(t, 5*time.Second, "the memory is given back", func() error {
		if now := rss(t); now > before+8<<10 {
			return fmt.Errorf("%d KiB before, %d KiB after", before, now)
		}
		return nil
	})
}

// A torn line stands between a client and the daemon's stream server, and breaks when told.
type tornLine struct {
	listener net.Listener
	mutex    sync.Mutex
	conns    []net.Conn
}

func newTornLine(u *url.URL) (*tornLine, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l, target := &tornLine{listener: listener}, u.Host
	u.Host = listener.Addr().String()
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				_ = client.Close()
				return
			}
			l.mutex.Lock()
			l.conns = append(l.conns, client, server)
			l.mutex.Unlock()
			go func() { _, _ = io.Copy(server, client) }()
			go func() { _, _ = io.Copy(client, server) }()
		}
	}()
	return l, nil
}

// tear ends all connections with a reset, as a machine does that was switched off and on, or by an orderly end of TCP alone.
func (l *tornLine) tear(reset bool) {
	_ = l.listener.Close()
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for _, conn := range l.conns {
		if reset {
			_ = conn.(*net.TCPConn).SetLinger(0)
		}
		_ = conn.Close()
	}
}

func TestFaultTornStreamsLeaveNothing(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, withNetwork)
	c := p.run(sh("trap 'exit 0' TERM; nc -ll -p 7001 -e cat & while :; do echo tick; sleep 0.1; done"), withStdin(false))
	c.waitForLog("tick")
	eventually(t, 10*time.Second, "it listens", func() error {
		if text := c.sh("cat /proc/net/tcp /proc/net/tcp6"); !strings.Contains(text, ":1B59") {
			return errors.New(text)
		}
		return nil
	})
	own := len(unitPIDs(t, c.unit()))

	exec := func(i int) error {
		u, _ := url.Parse(execURL(t, c, i%2 == 0, true, "sh", "-c", "trap '' HUP TERM; echo tick; sleep 7777 & sleep 7777"))
		return tearStream(u, i, i%2 == 0, true)
	}
	attached := func(i int) error {
		u, _ := url.Parse(attachURL(t, c, false, i%3 == 0))
		return tearStream(u, i, false, i%3 == 0)
	}
	forwarded := func(i int) error {
		u, _ := url.Parse(do(t, rt.PortForward, &cri.PortForwardRequest{PodSandboxId: p.id}).Url)
		line, err := newTornLine(u)
		if err != nil {
			return err
		}
		f, err := startForward(plainHTTP, u, i%2 == 0, "0:7001")
		if err != nil {
			return err
		}
		defer f.stop()
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", f.ports[0].Local))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = io.WriteString(conn, "x")
		if _, err = io.ReadFull(conn, make([]byte, 1)); err != nil {
			return err
		}
		line.tear(i%4 < 2)
		return nil
	}
	work := func(n int) {
		var wait sync.WaitGroup
		for worker := range 8 {
			wait.Add(1)
			go func() {
				defer wait.Done()
				for i := worker; i < n; i += 8 {
					for what, f := range map[string]func(int) error{"exec": exec, "attach": attached, "port-forward": forwarded} {
						if err := f(i / 8); err != nil {
							t.Errorf("%s: %v", what, err)
						}
					}
				}
			}()
		}
		wait.Wait()
	}
	settled := func(files int) func() error {
		return func() error {
			if now := len(unitPIDs(t, c.unit())); now > own+1 { // a sleep may just begin
				return fmt.Errorf("%d processes in the container, at first %d", now, own)
			}
			if now := descriptors(t); now > files {
				return fmt.Errorf("%d descriptors, at first %d", now, files)
			}
			return nil
		}
	}
	base := descriptors(t)
	work(8)
	eventually(t, 20*time.Second, "descriptors and processes are as before", settled(base+4))
	base = descriptors(t)
	work(80)
	eventually(t, 20*time.Second, "descriptors and processes are as before", settled(base))
	lacks(t, "the container's processes", c.sh("ps"), "7777")
	begin := time.Now()
	c.stop(10)
	took := time.Since(begin)
	if took > 3*time.Second*time.Duration(*slow) {
		t.Errorf("StopContainer took %v", took)
	}
	equal(t, "exit code", c.status().ExitCode, 0)
	t.Logf("240 torn streams: %d descriptors before, %d after; StopContainer took %v", base, descriptors(t), took)
}

// tearStream opens a stream over a line, waits for "tick" to arrive, and tears the line.
func tearStream(u *url.URL, i int, tty, withInput bool) error {
	line, err := newTornLine(u)
	if err != nil {
		return err
	}
	executor, err := transports[i%2].make(u.String())
	if err != nil {
		return err
	}
	ctx, cancel := timeout(30 * time.Second)
	defer cancel()
	ticked := make(chan struct{})
	var once sync.Once
	ended := make(chan error, 1)
	input, in := io.Pipe()
	defer func() { _ = in.Close() }()
	options := remotecommand.StreamOptions{Tty: tty, Stdout: writerFunc(func(b []byte) (int, error) {
		if strings.Contains(string(b), "tick") {
			once.Do(func() { close(ticked) })
		}
		return len(b), nil
	})}
	if !tty {
		options.Stderr = io.Discard
	}
	if withInput {
		options.Stdin = input
	}
	go func() { ended <- executor.StreamWithContext(ctx, options) }()
	select {
	case <-ticked:
	case err := <-ended:
		line.tear(true)
		return fmt.Errorf("the stream ended before its output came: %v", err)
	}
	line.tear(i%4 < 2)
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		return errors.New("the client has not noticed")
	}
	return nil
}
