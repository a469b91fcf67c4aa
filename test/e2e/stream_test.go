package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	clientexec "k8s.io/client-go/util/exec"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The two ways in which the kubelet's clients speak.
var transports = []struct {
	name string
	make func(url string) (remotecommand.Executor, error)
}{
	{"SPDY", func(u string) (remotecommand.Executor, error) {
		parsed, err := url.Parse(u)
		if err != nil {
			return nil, err
		}
		return remotecommand.NewSPDYExecutor(&rest.Config{}, "POST", parsed)
	}},
	{"WebSocket", func(u string) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutor(&rest.Config{}, "GET", u)
	}},
}

func overBoth(t *testing.T, what string, test func(t *testing.T, connect func(url string) (remotecommand.Executor, error))) {
	t.Helper()
	for _, transport := range transports {
		t.Run(what+" over "+transport.name, func(t *testing.T) { test(t, transport.make) })
	}
}

type connector = func(url string) (remotecommand.Executor, error)

func execURL(t testing.TB, c *ctrT, tty, in bool, argv ...string) string {
	t.Helper()
	return do(t, rt.Exec, &cri.ExecRequest{ContainerId: c.id, Cmd: argv, Tty: tty, Stdin: in, Stdout: true, Stderr: !tty}).Url
}

// exitCode is what the client was told; -1 for another error.
func exitCode(err error) int {
	var exit clientexec.CodeExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.Code
	}
	return -1
}

// stream runs a command over a new URL and returns both outputs and the client's error.
func stream(t testing.TB, connect connector, u string, options remotecommand.StreamOptions, out, errs io.Writer) error {
	t.Helper()
	executor, err := connect(u)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := timeout(3 * time.Minute)
	defer cancel()
	options.Stdout, options.Stderr = out, errs
	return executor.StreamWithContext(ctx, options)
}

// sizes is a queue of terminal sizes.
type sizes chan remotecommand.TerminalSize

func (s sizes) Next() *remotecommand.TerminalSize {
	if size, ok := <-s; ok {
		return &size
	}
	return nil
}

// descriptors counts the daemon's open ones.
func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/" + daemonPID(t) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestExec(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	c := p.run(env("FROM=container"), security(func(s *cri.LinuxContainerSecurityContext) {
		if *engine != "rkt" { // which knows only root for commands
			s.RunAsUser = &cri.Int64Value{Value: 1001}
		}
	}))

	overBoth(t, "both outputs and the exit code", func(t *testing.T, connect connector) {
		var out, errs bytes.Buffer
		err := stream(t, connect, execURL(t, c, false, false, "sh", "-c", "echo out $FROM; echo err >&2; exit 3"),
			remotecommand.StreamOptions{}, &out, &errs)
		equal(t, "exit code", exitCode(err), 3)
		equal(t, "standard output", out.String(), "out container\n")
		equal(t, "standard error", errs.String(), "err\n")
	})
	overBoth(t, "success", func(t *testing.T, connect connector) {
		var out, errs bytes.Buffer
		if err := stream(t, connect, execURL(t, c, false, false, "true"), remotecommand.StreamOptions{}, &out, &errs); err != nil {
			t.Error(err)
		}
	})
	overBoth(t, "a signal", func(t *testing.T, connect connector) {
		var out, errs bytes.Buffer
		err := stream(t, connect, execURL(t, c, false, false, "sh", "-c", "kill -9 $$"), remotecommand.StreamOptions{}, &out, &errs)
		equal(t, "exit code", exitCode(err), 137)
	})
	overBoth(t, "input until its end, megabytes both ways", func(t *testing.T, connect connector) {
		data := make([]byte, 8<<20+12345)
		_, _ = rand.Read(data)
		sum := sha256.New()
		err := stream(t, connect, execURL(t, c, false, true, "cat"), remotecommand.StreamOptions{Stdin: bytes.NewReader(data)},
			sum, io.Discard)
		equal(t, "exit code", exitCode(err), 0)
		want := sha256.Sum256(data)
		equal(t, "what came back", fmt.Sprintf("%x", sum.Sum(nil)), fmt.Sprintf("%x", want[:]))
	})
	overBoth(t, "the end of the input", func(t *testing.T, connect connector) {
		var out bytes.Buffer
		err := stream(t, connect, execURL(t, c, false, true, "sh", "-c", "wc -c; echo after"),
			remotecommand.StreamOptions{Stdin: strings.NewReader("four")}, &out, io.Discard)
		equal(t, "exit code", exitCode(err), 0)
		equal(t, "output", strings.Join(strings.Fields(out.String()), " "), "4 after")
	})
	overBoth(t, "input that nobody reads", func(t *testing.T, connect connector) {
		var out bytes.Buffer
		err := stream(t, connect, execURL(t, c, false, true, "sh", "-c", "exec <&-; sleep 0.3; echo done"),
			remotecommand.StreamOptions{Stdin: bytes.NewReader(make([]byte, 4<<20))}, &out, io.Discard)
		equal(t, "exit code", exitCode(err), 0)
		equal(t, "output", out.String(), "done\n")
	})
	overBoth(t, "a terminal, with its size", func(t *testing.T, connect connector) {
		var out bytes.Buffer
		queue := make(sizes, 2)
		queue <- remotecommand.TerminalSize{Width: 97, Height: 31}
		defer close(queue)
		in, typed := io.Pipe()
		go func() {
			time.Sleep(time.Second)
			_, _ = io.WriteString(typed, "stty size; test -t 0 && test -t 1 && test -t 2 && echo is''terminal\n")
			time.Sleep(time.Second)
			queue <- remotecommand.TerminalSize{Width: 111, Height: 44}
			time.Sleep(time.Second)
			_, _ = io.WriteString(typed, "stty size; exit 5\n")
		}()
		err := stream(t, connect, execURL(t, c, true, true, "sh"),
			remotecommand.StreamOptions{Stdin: in, Tty: true, TerminalSizeQueue: queue}, &out, nil)
		_ = in.Close()
		equal(t, "exit code", exitCode(err), 5)
		contains(t, "the terminal", out.String(), "31 97\r\n", "isterminal\r\n", "44 111\r\n")
	})
	overBoth(t, "a command that is not there", func(t *testing.T, connect connector) {
		var out bytes.Buffer
		err := stream(t, connect, execURL(t, c, false, false, "no-such-command"), remotecommand.StreamOptions{}, &out, io.Discard)
		if err == nil || exitCode(err) > 0 && exitCode(err) != 126 && exitCode(err) != 127 {
			t.Errorf("it ended with %v", err)
		} else if exitCode(err) < 0 {
			contains(t, "the error", err.Error(), "no-such-command")
		}
		err = stream(t, connect, execURL(t, c, true, true, "no-such-command"),
			remotecommand.StreamOptions{Stdin: strings.NewReader(""), Tty: true}, &out, nil)
		if err == nil {
			t.Error("it succeeded on a terminal")
		}
	})
	overBoth(t, "what goes on in the background does not keep it", func(t *testing.T, connect connector) {
		var out bytes.Buffer
		begin := time.Now()
		err := stream(t, connect, execURL(t, c, false, false, "sh", "-c", "sleep 6543 & echo done"), remotecommand.StreamOptions{}, &out, io.Discard)
		equal(t, "exit code", exitCode(err), 0)
		equal(t, "output", out.String(), "done\n")
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		contains(t, "processes", c.with(t).sh("ps"), "sleep 6543")
		c.with(t).exec("sh", "-c", "kill -9 $(ps | awk '$3 == \"sleep\" && $4 == \"6543\" { print $1 }')")
	})
	overBoth(t, "a client that leaves ends all of it", func(t *testing.T, connect connector) {
		for _, tty := range []bool{false, *engine != "rkt"} { // which gives commands no terminal
			executor, err := connect(execURL(t, c, tty, true, "sh", "-c", "sleep 7651 & sleep 7652"))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := timeout(20 * time.Second)
			ended := make(chan error, 1)
			in, typed := io.Pipe()
			go func() {
				options := remotecommand.StreamOptions{Stdin: in, Stdout: io.Discard, Tty: tty}
				if !tty {
					options.Stderr = io.Discard
				}
				ended <- executor.StreamWithContext(ctx, options)
			}()
			eventually(t, 5*time.Second, "the command runs", func() error {
				if text := c.with(t).sh("ps"); !strings.Contains(text, "sleep 7652") {
					return errors.New(text)
				}
				return nil
			})
			cancel()
			<-ended
			_ = typed.Close()
			eventually(t, 5*time.Second, "the processes are gone", func() error {
				if text := c.with(t).sh("ps"); strings.Contains(text, "sleep 765") {
					return errors.New(text)
				}
				return nil
			})
		}
	})
	overBoth(t, "a client that doesn't read costs no memory", func(t *testing.T, connect connector) {
		before := rss(t)
		blocked, reader := make(chan struct{}), make(chan struct{})
		executor, err := connect(execURL(t, c, false, false, "sh", "-c", "yes 0123456789012345678901234567890123456789"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := timeout(20 * time.Second)
		defer cancel()
		go func() {
			_ = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: writerFunc(func(b []byte) (int, error) {
				select {
				case <-blocked:
				default:
					close(blocked)
				}
				<-ctx.Done()
				return 0, ctx.Err()
			}), Stderr: io.Discard})
			close(reader)
		}()
		<-blocked
		time.Sleep(2 * time.Second)
		if now := rss(t); now > before+4<<10 {
			t.Errorf("%d KiB before, %d KiB with it", before, now)
		}
		contains(t, "processes", c.with(t).sh("ps"), "yes 0123")
		cancel()
		<-reader
	})
	t.Run("a URL is good for one use", func(t *testing.T) {
		u := execURL(t, c, false, false, "true")
		if err := stream(t, transports[0].make, u, remotecommand.StreamOptions{}, io.Discard, io.Discard); err != nil {
			t.Error(err)
		}
		for _, transport := range transports {
			if err := stream(t, transport.make, u, remotecommand.StreamOptions{}, io.Discard, io.Discard); err == nil {
				t.Error("it was used a second time")
			}
		}
		answer, err := http.Get(u)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		equal(t, "status", answer.StatusCode, http.StatusNotFound)
	})
	t.Run("the server is on loopback, and its tokens are long", func(t *testing.T) {
		parsed, err := url.Parse(execURL(t, c, false, false, "true"))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "host", parsed.Hostname(), "127.0.0.1")
		if token := parsed.Path[strings.LastIndex(parsed.Path, "/")+1:]; len(token) < 32 {
			t.Errorf("the token is %q", token)
		}
	})
	t.Run("fifty at once", func(t *testing.T) {
		var wait sync.WaitGroup
		for i := range 50 {
			wait.Add(1)
			go func() {
				defer wait.Done()
				var out bytes.Buffer
				err := stream(t, transports[i%2].make, execURL(t, c, false, false, "echo", fmt.Sprint(i)), remotecommand.StreamOptions{}, &out, io.Discard)
				if err != nil || out.String() != fmt.Sprintln(i) {
					t.Errorf("%d: %q %v", i, out.String(), err)
				}
			}()
		}
		wait.Wait()
	})
	t.Run("requests that make no sense", func(t *testing.T) {
		refused(t, rt.Exec, &cri.ExecRequest{ContainerId: c.id, Stdout: true}, codes.InvalidArgument)
		refused(t, rt.Exec, &cri.ExecRequest{ContainerId: c.id, Cmd: []string{"true"}}, codes.InvalidArgument)
		refused(t, rt.Exec, &cri.ExecRequest{ContainerId: c.id, Cmd: []string{"true"}, Tty: true, Stdout: true, Stderr: true}, codes.InvalidArgument)
		refused(t, rt.Exec, &cri.ExecRequest{ContainerId: "nobody", Cmd: []string{"true"}, Stdout: true}, codes.NotFound)
		created := p.with(t).create()
		refused(t, rt.Exec, &cri.ExecRequest{ContainerId: created.id, Cmd: []string{"true"}, Stdout: true}, codes.FailedPrecondition)
	})
	t.Run("one under way when the container stops is ended", func(t *testing.T) {
		c := p.with(t).run()
		ended := make(chan error, 1)
		u := execURL(t, c, false, false, "sleep", "1000")
		go func() {
			ended <- stream(t, transports[0].make, u, remotecommand.StreamOptions{}, io.Discard, io.Discard)
		}()
		time.Sleep(300 * time.Millisecond)
		c.stop(0)
		select {
		case err := <-ended:
			equal(t, "exit code", exitCode(err), 137)
		case <-time.After(10 * time.Second):
			t.Error("the client waits on")
		}
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// A thousand clients that die without a word, at every stage, leave nothing behind.
func TestStreamDeaths(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	c := p.run()
	head := func(u *url.URL) string {
		return "POST " + u.Path + " HTTP/1.1\r\nHost: " + u.Host + "\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n" +
			"X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"
	}
	websocket := func(u *url.URL) string {
		return "GET " + u.Path + " HTTP/1.1\r\nHost: " + u.Host + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
	}
	die := func(i int) {
		u, _ := url.Parse(execURL(t, c, i%3 == 0, true, "cat"))
		conn, err := net.Dial("tcp", u.Host)
		if err != nil {
			t.Error(err)
			return
		}
		switch i % 5 {
		case 0:
		case 1:
			_, _ = io.WriteString(conn, head(u)[:20])
		case 2:
			_, _ = io.WriteString(conn, head(u))
		case 3, 4:
			_, _ = io.WriteString(conn, websocket(u))
			if i%5 == 4 {
				_, _ = conn.Read(make([]byte, 1024))
			}
		}
		if i%2 == 0 {
			_ = conn.(*net.TCPConn).SetLinger(0)
		}
		_ = conn.Close()
	}
	for i := range 50 {
		die(i)
	}
	time.Sleep(time.Second)
	files, memory := descriptors(t), rss(t)
	var wait sync.WaitGroup
	for worker := range 10 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for i := range 100 {
				die(worker*100 + i)
			}
		}()
	}
	wait.Wait()
	eventually(t, 30*time.Second, "descriptors and memory are as before", func() error {
		if now := descriptors(t); now > files+5 {
			return fmt.Errorf("%d descriptors before, %d after", files, now)
		}
		if now := rss(t); now > memory+8<<10 {
			return fmt.Errorf("%d KiB before, %d KiB after", memory, now)
		}
		return nil
	})
	eventually(t, 10*time.Second, "no command is left", func() error {
		if text := c.sh("ps"); strings.Contains(text, " cat") {
			return errors.New(text)
		}
		return nil
	})
}

func attachURL(t testing.TB, c *ctrT, tty, in bool) string {
	t.Helper()
	return do(t, rt.Attach, &cri.AttachRequest{ContainerId: c.id, Tty: tty, Stdin: in, Stdout: true, Stderr: !tty}).Url
}

func withStdin(once bool) ctrMod {
	return func(c *cri.ContainerConfig) { c.Stdin, c.StdinOnce = true, once }
}

// A safeBuffer is written by a client and read by a test.
type safeBuffer struct {
	sync.Mutex
	b bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.Lock()
	defer b.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.Lock()
	defer b.Unlock()
	return b.b.String()
}

func (b *safeBuffer) waitFor(t testing.TB, text string) {
	t.Helper()
	eventually(t, 10*time.Second, fmt.Sprintf("the client reads %q", text), func() error {
		if got := b.String(); !strings.Contains(got, text) {
			return fmt.Errorf("it is %.500q", got)
		}
		return nil
	})
}

// An attached client in the background.
type attached struct {
	out, errs safeBuffer
	in        *io.PipeWriter
	sizes     sizes
	ended     chan error
	cancel    func()
}

func attach(t testing.TB, connect connector, c *ctrT, tty, in bool) *attached {
	t.Helper()
	executor, err := connect(attachURL(t, c, tty, in))
	if err != nil {
		t.Fatal(err)
	}
	a := &attached{ended: make(chan error, 1), sizes: make(sizes, 4)}
	options := remotecommand.StreamOptions{Stdout: &a.out, Tty: tty}
	if !tty {
		options.Stderr = &a.errs
	} else {
		options.TerminalSizeQueue = a.sizes
	}
	if in {
		var reader *io.PipeReader
		reader, a.in = io.Pipe()
		options.Stdin = reader
	}
	ctx, cancel := timeout(60 * time.Second)
	a.cancel = cancel
	t.Cleanup(func() {
		cancel()
		if a.in != nil {
			_ = a.in.Close()
		}
	})
	go func() { a.ended <- executor.StreamWithContext(ctx, options) }()
	return a
}

// expect waits for output of a client that shall stay attached.
func (a *attached) expect(t testing.TB, text string) {
	t.Helper()
	eventually(t, 10*time.Second, fmt.Sprintf("the client reads %q", text), func() error {
		select {
		case err := <-a.ended:
			t.Fatalf("the client was detached: %v", err)
		default:
		}
		if got := a.out.String(); !strings.Contains(got, text) {
			return fmt.Errorf("it is %.500q", got)
		}
		return nil
	})
}

func (a *attached) wait(t testing.TB) error {
	t.Helper()
	select {
	case err := <-a.ended:
		return err
	case <-time.After(15 * time.Second):
		t.Fatal("the client is still attached")
		return nil
	}
}

func TestAttach(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	echo := sh(`echo ready; while read -r line; do echo "got $line"; echo "err $line" >&2; [ "$line" = end ] && exit 4; done; echo eof; sleep 0.1`)

	overBoth(t, "both outputs, input, and the end of the container", func(t *testing.T, connect connector) {
		c := p.with(t).run(echo, withStdin(false))
		a := attach(t, connect, c, false, true)
		_, _ = io.WriteString(a.in, "one\n")
		a.out.waitFor(t, "got one\n")
		a.errs.waitFor(t, "err one\n")
		_, _ = io.WriteString(a.in, "end\n")
		if err := a.wait(t); err != nil {
			t.Error(err)
		}
		contains(t, "the output", a.out.String(), "got end\n")
		equal(t, "exit code", c.wait().ExitCode, 4)
		equal(t, "the log", c.text("stdout"), "ready\ngot one\ngot end\n")
		c.remove()
	})
	overBoth(t, "a client's end of input is the container's with stdin_once", func(t *testing.T, connect connector) {
		c := p.with(t).run(echo, withStdin(true))
		a := attach(t, connect, c, false, true)
		_, _ = io.WriteString(a.in, "one\n")
		a.out.waitFor(t, "got one\n")
		_ = a.in.Close()
		if err := a.wait(t); err != nil {
			t.Error(err)
		}
		contains(t, "the output", a.out.String(), "eof\n")
		equal(t, "exit code", c.wait().ExitCode, 0)
		c.remove()
	})
	overBoth(t, "without it the next client goes on", func(t *testing.T, connect connector) {
		c := p.with(t).run(echo, withStdin(false))
		a := attach(t, connect, c, false, true)
		_, _ = io.WriteString(a.in, "one\n")
		a.out.waitFor(t, "got one\n")
		a.cancel()
		<-a.ended
		b := attach(t, connect, c, false, true)
		_, _ = io.WriteString(b.in, "two\n")
		b.out.waitFor(t, "got two\n")
		lacks(t, "the second client's output", b.out.String(), "one")
		c.stop(0)
		_ = b.wait(t)
		c.remove()
	})
	overBoth(t, "a terminal, with its size", func(t *testing.T, connect connector) {
		c := p.with(t).run(sh(`while read -r line; do eval "$line"; done`), withStdin(false),
			func(c *cri.ContainerConfig) { c.Tty = true })
		a := attach(t, connect, c, true, true)
		a.sizes <- remotecommand.TerminalSize{Width: 81, Height: 26}
		time.Sleep(time.Second)
		_, _ = io.WriteString(a.in, "stty size\n")
		a.expect(t, "26 81\r\n")
		close(a.sizes)
		_, _ = io.WriteString(a.in, "exit 6\n")
		if err := a.wait(t); err != nil {
			t.Error(err)
		}
		equal(t, "exit code", c.wait().ExitCode, 6)
		contains(t, "the log", c.text("stdout"), "26 81")
		c.remove()
	})
	t.Run("several clients see the same", func(t *testing.T) {
		c := p.with(t).run(echo, withStdin(false))
		var clients []*attached
		for i := range 4 {
			clients = append(clients, attach(t, transports[i%2].make, c, false, true))
		}
		time.Sleep(time.Second)
		_, _ = io.WriteString(clients[0].in, "all\n")
		for _, a := range clients {
			a.out.waitFor(t, "got all\n")
		}
		_, _ = io.WriteString(clients[3].in, "end\n")
		for _, a := range clients {
			if err := a.wait(t); err != nil {
				t.Error(err)
			}
		}
		c.remove()
	})
	t.Run("megabytes of input", func(t *testing.T) {
		c := p.with(t).run(sh("sha256sum; sleep 0.2"), withStdin(true))
		data := make([]byte, 4<<20+77)
		_, _ = rand.Read(data)
		a := attach(t, transports[0].make, c, false, true)
		_, _ = a.in.Write(data)
		_ = a.in.Close()
		if err := a.wait(t); err != nil {
			t.Error(err)
		}
		contains(t, "the output", a.out.String()+a.errs.String(), fmt.Sprintf("%x", sha256.Sum256(data)))
		c.remove()
	})
	t.Run("a client that doesn't read never slows the log", func(t *testing.T) {
		c := p.with(t).run(sh("read go; yes 0123456789012345678901234567890123456789012345678901234567890 | head -c 40000000; echo; echo done"), withStdin(false))
		executor, err := transports[0].make(attachURL(t, c, false, true))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := timeout(60 * time.Second)
		defer cancel()
		ended := make(chan error, 1)
		in, typed := io.Pipe()
		go func() {
			ended <- executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stderr: io.Discard,
				Stdout: writerFunc(func(b []byte) (int, error) { <-ctx.Done(); return 0, ctx.Err() })})
		}()
		_, _ = io.WriteString(typed, "go\n")
		equal(t, "exit code", c.wait().ExitCode, 0)
		if text := c.text("stdout"); !strings.HasSuffix(text, "\ndone\n") || len(text) != 40000000+6 {
			t.Errorf("the log has %d bytes", len(text))
		}
		cancel()
		<-ended
		_ = typed.Close()
		c.remove()
	})
	t.Run("a pod's process that is killed is no end", func(t *testing.T) {
		c := p.with(t).run(echo, withStdin(false))
		a := attach(t, transports[0].make, c, false, true)
		_, _ = io.WriteString(a.in, "one\n")
		a.out.waitFor(t, "got one\n")
		command(t, "systemctl", "kill", "--kill-who=main", "--signal=KILL", p.unit())
		time.Sleep(time.Second)
		_, _ = io.WriteString(a.in, "two\n")
		a.out.waitFor(t, "got two\n")
		c.stop(0)
		_ = a.wait(t)
		c.remove()
	})
	t.Run("requests that make no sense", func(t *testing.T) {
		c := p.with(t).run()
		refused(t, rt.Attach, &cri.AttachRequest{ContainerId: c.id}, codes.InvalidArgument)
		refused(t, rt.Attach, &cri.AttachRequest{ContainerId: c.id, Tty: true, Stdout: true, Stderr: true}, codes.InvalidArgument)
		refused(t, rt.Attach, &cri.AttachRequest{ContainerId: "nobody", Stdout: true}, codes.NotFound)
		created := p.with(t).create()
		refused(t, rt.Attach, &cri.AttachRequest{ContainerId: created.id, Stdout: true}, codes.FailedPrecondition)
		c.stop(0)
		refused(t, rt.Attach, &cri.AttachRequest{ContainerId: c.id, Stdout: true}, codes.FailedPrecondition)
	})
}

var plainHTTP = &rest.Config{}

// A forwarding is a port-forward under way: its local ports, and what ends it.
type forwarding struct {
	ports []portforward.ForwardedPort
	stop  func()
}

// startForward opens a port-forward over SPDY or in a WebSocket tunnel.
func startForward(config *rest.Config, u *url.URL, tunnel bool, ports ...string) (*forwarding, error) {
	var dialer httpstream.Dialer
	var err error
	if tunnel {
		dialer, err = portforward.NewSPDYOverWebsocketDialer(u, config)
	} else {
		var transport http.RoundTripper
		var upgrader spdy.Upgrader
		transport, upgrader, err = spdy.RoundTripperFor(config)
		dialer = spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", u)
	}
	if err != nil {
		return nil, err
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.New(dialer, ports, stop, ready, io.Discard, io.Discard)
	if err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		return nil, err
	}
	f := &forwarding{stop: func() { close(stop); <-ended }}
	if f.ports, err = forwarder.GetPorts(); err != nil {
		f.stop()
		return nil, err
	}
	return f, nil
}

// forward opens one to the pod for the time of the test, and returns its local ports.
func forward(t *testing.T, p *podT, tunnel bool, ports ...string) []portforward.ForwardedPort {
	t.Helper()
	u, err := url.Parse(do(t, rt.PortForward, &cri.PortForwardRequest{PodSandboxId: p.id}).Url)
	if err != nil {
		t.Fatal(err)
	}
	f, err := startForward(plainHTTP, u, tunnel, ports...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.stop)
	return f.ports
}

func TestPortForward(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, withNetwork)
	c := p.run(sh("nc -ll -p 7001 -e cat & nc -ll -p 7002 -e sh -c 'cat >/dev/null; echo whole' & sleep 1000"))
	eventually(t, 10*time.Second, "it listens", func() error {
		if text := c.sh("cat /proc/net/tcp /proc/net/tcp6"); !strings.Contains(text, ":1B59") || !strings.Contains(text, ":1B5A") {
			return errors.New(text)
		}
		return nil
	})
	for _, tunnel := range []bool{false, true} {
		name := map[bool]string{false: " over SPDY", true: " in a WebSocket tunnel"}[tunnel]
		t.Run("megabytes both ways on many connections"+name, func(t *testing.T) {
			local := forward(t, p, tunnel, "0:7001", "0:7002")
			var conns []net.Conn
			for range 16 {
				conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", local[0].Local))
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = conn.Close() }()
				_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
				// One at a time: the server's queue is two long, and what is beyond is reset by the kernel.
				if _, err := conn.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
				conns = append(conns, conn)
			}
			var wait sync.WaitGroup
			for _, conn := range conns {
				wait.Add(1)
				go func() {
					defer wait.Done()
					data := make([]byte, 1<<20)
					_, _ = rand.Read(data)
					go func() { _, _ = conn.Write(data) }()
					back := make([]byte, len(data))
					if _, err := io.ReadFull(conn, back); err != nil || !bytes.Equal(data, back) {
						t.Errorf("what came back differs, or %v", err)
					}
				}()
			}
			wait.Wait()
		})
		t.Run("one side ends before the other"+name, func(t *testing.T) {
			local := forward(t, p, tunnel, "0:7002")
			conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", local[0].Local))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = io.WriteString(conn, "something")
			_ = conn.(*net.TCPConn).CloseWrite()
			answer, err := io.ReadAll(conn)
			if err != nil || string(answer) != "whole\n" {
				t.Errorf("%q %v", answer, err)
			}
		})
		t.Run("a port where nobody listens"+name, func(t *testing.T) {
			local := forward(t, p, tunnel, "0:7999")
			conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", local[0].Local))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			if n, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
	t.Run("requests that make no sense", func(t *testing.T) {
		refused(t, rt.PortForward, &cri.PortForwardRequest{PodSandboxId: "nobody"}, codes.NotFound)
		stopped := runPod(t)
		stopped.stop()
		refused(t, rt.PortForward, &cri.PortForwardRequest{PodSandboxId: stopped.id}, codes.FailedPrecondition)
	})
}

// A gigabyte through a stream arrives whole, and the daemon's memory stays where it was. (Through some it is an eighth,
// for the sake of time.)
func TestStreamGigabyte(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	const gigabyte, less = 1 << 30, 1 << 27
	p := runPod(t, withNetwork)
	c := p.run(sh(fmt.Sprintf("nc -ll -p 7001 -e head -c %d /dev/zero & nc -ll -p 7002 -e head -c %d /dev/zero & sleep 1000", gigabyte, less)))
	flat := func(t *testing.T, size int64, move func() (int64, error)) {
		t.Helper()
		before := rss(t)
		done, most := make(chan struct{}), make(chan int)
		go func() {
			peak := 0
			for {
				select {
				case <-done:
					most <- peak
					return
				case <-time.After(20 * time.Millisecond):
					peak = max(peak, rss(t))
				}
			}
		}()
		n, err := move()
		close(done)
		if peak := <-most; peak > before+4<<10 {
			t.Errorf("%d KiB before, %d KiB meanwhile", before, peak)
		}
		if n != size || err != nil {
			t.Errorf("%d bytes arrived, %v", n, err)
		}
	}
	size := map[bool]int64{false: gigabyte, true: less}
	websocket := func(t *testing.T) bool { return strings.Contains(t.Name(), "WebSocket") }
	overBoth(t, "out of a command", func(t *testing.T, connect connector) {
		size := size[websocket(t)]
		flat(t, size, func() (n int64, _ error) {
			err := stream(t, connect, execURL(t, c, false, false, "head", "-c", fmt.Sprint(size), "/dev/zero"),
				remotecommand.StreamOptions{}, writerFunc(func(b []byte) (int, error) { n += int64(len(b)); return len(b), nil }), io.Discard)
			return n, err
		})
	})
	overBoth(t, "into a command", func(t *testing.T, connect connector) {
		size := size[!websocket(t)]
		flat(t, size, func() (n int64, _ error) {
			var out bytes.Buffer
			err := stream(t, connect, execURL(t, c, false, true, "wc", "-c"),
				remotecommand.StreamOptions{Stdin: io.LimitReader(zeroes{}, size)}, &out, io.Discard)
			_, _ = fmt.Sscan(out.String(), &n)
			return n, err
		})
	})
	for _, tunnel := range []bool{false, true} {
		t.Run(fmt.Sprintf("through a port, in a tunnel: %v", tunnel), func(t *testing.T) {
			flat(t, size[tunnel], func() (int64, error) {
				local := forward(t, p, tunnel, map[bool]string{false: "0:7001", true: "0:7002"}[tunnel])
				conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", local[0].Local))
				if err != nil {
					return 0, err
				}
				defer func() { _ = conn.Close() }()
				_ = conn.SetDeadline(time.Now().Add(3 * time.Minute))
				return io.Copy(io.Discard, conn)
			})
		})
	}
}

type zeroes struct{}

func (zeroes) Read(b []byte) (int, error) { clear(b); return len(b), nil }
