// Package e2e proves that the daemon does what the CRI promises, from the outside: it talks to the real socket inside a
// machine whose PID 1 is systemd, as the kubelet would, and looks at what the kernel and systemd say about the result.
//
// It is built on any machine (go test -c) and run, as root, inside of test/machine. Everything it makes it takes away,
// and after each test it looks for what was left behind.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var (
	socketPath  = flag.String("socket", "/run/rktlet/rktlet.sock", "the daemon's socket")
	registry    = flag.String("registry", "127.0.0.1:5000", "where the test images are")
	daemonUnit  = flag.String("daemon-unit", "rktlet.service", "the daemon's unit")
	handler     = flag.String("handler", "", "the runtime handler of all pods")
	engine      = flag.String("engine", "native", "what the daemon runs pods with: native or rkt")
	slow        = flag.Int("slow", 1, "how many times slower than usual this machine is")
	rt          cri.RuntimeServiceClient
	img         cri.ImageServiceClient
	workDir     = "/run/e2e"
	nextNumber  atomic.Int64
	kubeletSize = 16 << 20 // the largest message the kubelet's client takes
)

// dial makes a connection of its own; the suite's common one is rt and img.
func dial() (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+*socketPath,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(kubeletSize)))
}

func TestMain(m *testing.M) {
	flag.Parse()
	conn, err := dial()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	rt, img = cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn)
	_ = os.MkdirAll(workDir, 0o755)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	_, err = rt.Version(ctx, &cri.VersionRequest{}, grpc.WaitForReady(true))
	cancel()
	if err != nil {
		fmt.Fprintf(os.Stderr, "the daemon does not answer at %s: %v\n", *socketPath, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// do calls an RPC that has to succeed, within a minute.
func do[Q, A any](t testing.TB, call func(context.Context, Q, ...grpc.CallOption) (A, error), request Q) A {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	answer, err := call(ctx, request)
	if err != nil {
		t.Fatalf("%T: %v", request, err)
	}
	return answer
}

// refused calls an RPC that has to fail with one of the codes, and with a sentence. Returns the sentence.
func refused[Q, A any](t testing.TB, call func(context.Context, Q, ...grpc.CallOption) (A, error), request Q, want ...codes.Code) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := call(ctx, request)
	if err == nil {
		t.Fatalf("%T succeeded, it should be refused with %v", request, want)
	}
	return checkRefusal(t, err, want...)
}

func checkRefusal(t testing.TB, err error, want ...codes.Code) string {
	t.Helper()
	s := status.Convert(err)
	ok := len(want) == 0
	for _, c := range want {
		ok = ok || c == s.Code()
	}
	if !ok {
		t.Errorf("refused with %v, not %v: %s", s.Code(), want, s.Message())
	}
	if len(s.Message()) < 10 {
		t.Errorf("the error's text says nothing: %q", s.Message())
	}
	return s.Message()
}

func number() int64 { return nextNumber.Add(1) }

func ref(name string) string {
	if !strings.Contains(name, ":") {
		name += ":latest"
	}
	return *registry + "/" + name
}

// pull makes sure that the image is there and returns its ID.
func pull(t testing.TB, name string) string {
	t.Helper()
	return do(t, img.PullImage, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref(name)}}).ImageRef
}

// A podT is a pod of a test; it is removed when the test ends.
type podT struct {
	t      testing.TB
	id     string
	config *cri.PodSandboxConfig
}

type podMod = func(*cri.PodSandboxConfig)

// podConfig describes a pod on the host's network with a name of its own.
func podConfig(t testing.TB, mods ...podMod) *cri.PodSandboxConfig {
	n := number()
	config := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: fmt.Sprintf("pod-%d", n), Namespace: "e2e", Uid: fmt.Sprintf("uid-%d", n)},
		LogDirectory: filepath.Join(workDir, fmt.Sprintf("logs-%d", n)),
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_CONTAINER}}},
	}
	for _, mod := range mods {
		mod(config)
	}
	if err := os.MkdirAll(config.LogDirectory, 0o755); err != nil {
		t.Fatal(err)
	}
	return config
}

func withNetwork(c *cri.PodSandboxConfig) {
	c.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_POD
}

func withParent(slice string) podMod {
	return func(c *cri.PodSandboxConfig) { c.Linux.CgroupParent = slice }
}

// podRequest asks for a pod with the handler that the tests are run with.
func podRequest(config *cri.PodSandboxConfig) *cri.RunPodSandboxRequest {
	return &cri.RunPodSandboxRequest{Config: config, RuntimeHandler: *handler}
}

func runPod(t testing.TB, mods ...podMod) *podT {
	t.Helper()
	config := podConfig(t, mods...)
	p := &podT{t: t, config: config, id: do(t, rt.RunPodSandbox, podRequest(config)).PodSandboxId}
	t.Cleanup(p.remove)
	return p
}

// with is the same pod, reporting to a subtest.
func (p *podT) with(t testing.TB) *podT { return &podT{t: t, id: p.id, config: p.config} }

func (p *podT) stop() {
	p.t.Helper()
	do(p.t, rt.StopPodSandbox, &cri.StopPodSandboxRequest{PodSandboxId: p.id})
}

func (p *podT) remove() {
	p.t.Helper()
	do(p.t, rt.StopPodSandbox, &cri.StopPodSandboxRequest{PodSandboxId: p.id})
	do(p.t, rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: p.id})
	_ = os.RemoveAll(p.config.LogDirectory)
}

func (p *podT) status() *cri.PodSandboxStatus {
	p.t.Helper()
	return do(p.t, rt.PodSandboxStatus, &cri.PodSandboxStatusRequest{PodSandboxId: p.id}).Status
}

func (p *podT) unit() string { return "rktlet-pod-" + p.id + ".service" }

// A ctrT is a container of a test.
type ctrT struct {
	t      testing.TB
	id     string
	pod    *podT
	config *cri.ContainerConfig
}

type ctrMod = func(*cri.ContainerConfig)

func withImage(name string) ctrMod {
	return func(c *cri.ContainerConfig) { c.Image.Image = ref(name) }
}

func withCommand(argv ...string) ctrMod {
	return func(c *cri.ContainerConfig) { c.Command, c.Args = argv, nil }
}

// sh is a command for the shell in the image.
func sh(script string) ctrMod { return withCommand("sh", "-c", script) }

// security changes the security context.
func security(change func(*cri.LinuxContainerSecurityContext)) ctrMod {
	return func(c *cri.ContainerConfig) { change(c.Linux.SecurityContext) }
}

// What the kubelet asks to be hidden and protected, unless the container is privileged.
var (
	maskedPaths = []string{"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// privileged asks for it as the kubelet does.
var privileged = security(func(s *cri.LinuxContainerSecurityContext) {
	s.Privileged, s.MaskedPaths, s.ReadonlyPaths = true, nil, nil
})

// containerConfig describes a container of the base image that sleeps.
func (p *podT) containerConfig(mods ...ctrMod) *cri.ContainerConfig {
	name := fmt.Sprintf("ctr-%d", number())
	config := &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: name},
		Image:    &cri.ImageSpec{Image: ref("test/base")},
		Command:  []string{"sleep", "100000"},
		LogPath:  name + ".log",
		Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
			MaskedPaths: maskedPaths, ReadonlyPaths: readonlyPaths,
			NamespaceOptions: &cri.NamespaceOption{
				Network: p.config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork(),
				Pid:     p.config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetPid(),
				Ipc:     p.config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetIpc()}}},
	}
	for _, mod := range mods {
		mod(config)
	}
	return config
}

func (p *podT) createRequest(mods ...ctrMod) *cri.CreateContainerRequest {
	return &cri.CreateContainerRequest{PodSandboxId: p.id, Config: p.containerConfig(mods...), SandboxConfig: p.config}
}

func (p *podT) create(mods ...ctrMod) *ctrT {
	p.t.Helper()
	request := p.createRequest(mods...)
	if do(p.t, img.ImageStatus, &cri.ImageStatusRequest{Image: request.Config.Image}).Image == nil {
		do(p.t, img.PullImage, &cri.PullImageRequest{Image: request.Config.Image})
	}
	id := do(p.t, rt.CreateContainer, request).ContainerId
	return &ctrT{t: p.t, id: id, pod: p, config: request.Config}
}

// run creates and starts a container.
func (p *podT) run(mods ...ctrMod) *ctrT {
	p.t.Helper()
	c := p.create(mods...)
	c.start()
	return c
}

// output runs a shell script to its end and returns what it wrote to standard output. It has to exit with 0.
func (p *podT) output(script string, mods ...ctrMod) string {
	p.t.Helper()
	c := p.run(append([]ctrMod{sh(script)}, mods...)...)
	st := c.wait()
	out, errs := c.text("stdout"), c.text("stderr")
	if st.ExitCode != 0 {
		p.t.Fatalf("%q exited with %d (%s %s): %s%s", script, st.ExitCode, st.Reason, st.Message, out, errs)
	}
	c.remove()
	return out
}

func (c *ctrT) with(t testing.TB) *ctrT {
	return &ctrT{t: t, id: c.id, pod: c.pod.with(t), config: c.config}
}

func (c *ctrT) unit() string { return "rktlet-ctr-" + c.id + ".service" }

func (c *ctrT) start() {
	c.t.Helper()
	do(c.t, rt.StartContainer, &cri.StartContainerRequest{ContainerId: c.id})
}

func (c *ctrT) stop(timeout int64) {
	c.t.Helper()
	do(c.t, rt.StopContainer, &cri.StopContainerRequest{ContainerId: c.id, Timeout: timeout})
}

func (c *ctrT) remove() {
	c.t.Helper()
	do(c.t, rt.RemoveContainer, &cri.RemoveContainerRequest{ContainerId: c.id})
}

func (c *ctrT) status() *cri.ContainerStatus {
	c.t.Helper()
	return do(c.t, rt.ContainerStatus, &cri.ContainerStatusRequest{ContainerId: c.id}).Status
}

// wait returns the status once the container has exited.
func (c *ctrT) wait() *cri.ContainerStatus {
	c.t.Helper()
	var st *cri.ContainerStatus
	eventually(c.t, 20*time.Second, "the container exits", func() error {
		st = c.status()
		if st.State != cri.ContainerState_CONTAINER_EXITED {
			return fmt.Errorf("state is %v", st.State)
		}
		return nil
	})
	return st
}

func (c *ctrT) logPath() string { return filepath.Join(c.pod.config.LogDirectory, c.config.LogPath) }

// exec runs a command in the container; its exit code is not looked at.
func (c *ctrT) exec(argv ...string) *cri.ExecSyncResponse {
	c.t.Helper()
	return do(c.t, rt.ExecSync, &cri.ExecSyncRequest{ContainerId: c.id, Cmd: argv, Timeout: 20})
}

// sh runs a script in the container, which has to exit with 0, and returns its standard output.
func (c *ctrT) sh(script string) string {
	c.t.Helper()
	answer := c.exec("sh", "-c", script)
	if answer.ExitCode != 0 {
		c.t.Fatalf("%q exited with %d: %s%s", script, answer.ExitCode, answer.Stdout, answer.Stderr)
	}
	return string(answer.Stdout)
}

// A logLine is one line of a CRI log file.
type logLine struct {
	time    time.Time
	stream  string
	partial bool
	text    string
}

var logPattern = regexp.MustCompile(`^(\S+) (stdout|stderr) ([FP]) ((?s).*)$`)

// readLog reads a log file and checks each line's form.
func readLog(t testing.TB, path string) []logLine {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("log: %v", err)
	}
	var lines []logLine
	if len(data) > 0 && data[len(data)-1] != '\n' {
		t.Fatalf("the log ends within a line: %q", data[max(0, len(data)-80):])
	}
	for _, raw := range bytes.SplitAfter(data, []byte("\n")) {
		if len(raw) == 0 {
			continue
		}
		m := logPattern.FindSubmatch(bytes.TrimSuffix(raw, []byte("\n")))
		if m == nil {
			t.Fatalf("not a line of a CRI log: %.200q", raw)
		}
		when, err := time.Parse(time.RFC3339Nano, string(m[1]))
		if err != nil {
			t.Fatalf("time in the log: %v", err)
		}
		lines = append(lines, logLine{when, string(m[2]), string(m[3]) == "P", string(m[4])})
	}
	return lines
}

func (c *ctrT) log() []logLine {
	c.t.Helper()
	return readLog(c.t, c.logPath())
}

// text is what was written to a stream, put together again.
func (c *ctrT) text(stream string) string {
	c.t.Helper()
	return joinLog(c.log(), stream)
}

func joinLog(lines []logLine, stream string) string {
	var b strings.Builder
	for _, l := range lines {
		if l.stream != stream {
			continue
		}
		b.WriteString(l.text)
		if !l.partial {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// waitForLog waits until the log has the text on some stream.
func (c *ctrT) waitForLog(text string) {
	c.t.Helper()
	eventually(c.t, 10*time.Second, fmt.Sprintf("the log says %q", text), func() error {
		data, err := os.ReadFile(c.logPath())
		if err != nil {
			return err
		}
		if !bytes.Contains(data, []byte(text)) {
			return fmt.Errorf("the log is %.300q", data)
		}
		return nil
	})
}

// eventually tries again until check returns nil, and fails the test when that takes too long.
func eventually(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(limit * time.Duration(*slow))
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s: %v", limit, what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func equal[V comparable](t testing.TB, what string, got, want V) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %v, not %v", what, got, want)
	}
}

func contains(t testing.TB, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s has no %q in it: %.2000s", what, part, text)
		}
	}
}

func lacks(t testing.TB, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(text, part) {
			t.Errorf("%s has %q in it: %.2000s", what, part, text)
		}
	}
}

func isTimeout(err error) bool {
	return status.Code(err) == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded)
}
