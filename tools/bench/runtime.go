package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Runtime is one CRI server to be measured.
type Runtime struct {
	Name    string   // in tables and results
	Socket  string   // path
	Unit    string   // its systemd service
	Helpers []string // names of the processes that it keeps for each pod, as in /proc/PID/comm (15 bytes at most)

	conn *grpc.ClientConn
	rt   cri.RuntimeServiceClient
	img  cri.ImageServiceClient
}

const (
	namespace  = "bench" // of all pods of ours
	callLimit  = 2 * time.Minute
	startLimit = time.Minute
)

var podNumber atomic.Int64

// parseRuntime reads name=N,socket=PATH,unit=UNIT,helpers=A:B.
func parseRuntime(text string) (*Runtime, error) {
	r := &Runtime{}
	for field := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "name":
			r.Name = value
		case "socket":
			r.Socket = value
		case "unit":
			r.Unit = value
		case "helpers":
			for helper := range strings.SplitSeq(value, ":") {
				r.Helpers = append(r.Helpers, helper[:min(len(helper), 15)])
			}
		default:
			return nil, fmt.Errorf("%q in --runtime: name=, socket=, unit= and helpers= are known", field)
		}
	}
	if r.Name == "" || r.Socket == "" || r.Unit == "" {
		return nil, fmt.Errorf("--runtime %s: name=, socket= and unit= are needed", text)
	}
	return r, nil
}

// connect makes a new connection and waits until Version is answered; a daemon that is starting is tried again each
// millisecond.
func (r *Runtime) connect() error {
	r.disconnect()
	deadline := time.Now().Add(startLimit)
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	for {
		err := r.tryConnect(ctx)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not answer at %s: %w", r.Name, r.Socket, err)
		}
		time.Sleep(time.Millisecond)
	}
}

func (r *Runtime) tryConnect(ctx context.Context) error {
	// Connected here: gRPC's own waiting between attempts would be part of the result.
	socket, err := net.Dial("unix", r.Socket)
	if err != nil {
		return err
	}
	used := false
	conn, err := grpc.NewClient("passthrough:///"+r.Socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			if used {
				return net.Dial("unix", r.Socket)
			}
			used = true
			return socket, nil
		}))
	if err != nil {
		_ = socket.Close()
		return err
	}
	if _, err := cri.NewRuntimeServiceClient(conn).Version(ctx, &cri.VersionRequest{}); err != nil {
		_ = conn.Close()
		return err
	}
	r.conn, r.rt, r.img = conn, cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn)
	return nil
}

func (r *Runtime) disconnect() {
	if r.conn != nil {
		_ = r.conn.Close()
		r.conn = nil
	}
}

// call makes one RPC; the error names it.
func call[Q, A any](method func(context.Context, Q, ...grpc.CallOption) (A, error), request Q) (A, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	answer, err := method(ctx, request)
	if err != nil {
		return answer, fmt.Errorf("%s: %w", requestName(request), err)
	}
	return answer, nil
}

// timed makes one RPC and returns how many milliseconds it took.
func timed[Q, A any](method func(context.Context, Q, ...grpc.CallOption) (A, error), request Q) (A, float64, error) {
	begin := time.Now()
	from := monotonic()
	answer, err := call(method, request)
	took := milliseconds(time.Since(begin))
	mark(requestName(request), from, monotonic())
	return answer, took, err
}

func requestName(request any) string {
	return strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%T", request), "*v1."), "Request")
}

// marks gets a line for each timed call: its name, when it began and when it was answered, in nanoseconds of
// CLOCK_MONOTONIC. With a trace of the same time it tells what happened in which call (see trace.py).
var (
	marks     *os.File
	marksLock sync.Mutex
)

func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

func mark(name string, begin, end int64) {
	if marks != nil {
		marksLock.Lock()
		defer marksLock.Unlock()
		fmt.Fprintln(marks, name, begin, end)
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

func unimplemented(err error) bool {
	var s interface{ GRPCStatus() *status.Status }
	return errors.As(err, &s) && s.GRPCStatus().Code() == codes.Unimplemented
}

// pod is a pod with at most one container, and how long each call for it took, in milliseconds.
type pod struct {
	r         *Runtime
	config    *cri.PodSandboxConfig
	id, ctr   string
	logPath   string
	run       float64
	create    float64
	start     float64
	stop, del float64
}

// newPod describes a pod the way the kubelet does.
func (b *Bench) newPod(r *Runtime, network cri.NamespaceMode) *pod {
	n := podNumber.Add(1)
	name, uid := fmt.Sprintf("pod-%d", n), fmt.Sprintf("00000000-0000-4000-8000-%012d", n)
	labels := map[string]string{"app": "bench", "io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": namespace, "io.kubernetes.pod.uid": uid}
	p := &pod{r: r, config: &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Namespace: namespace, Uid: uid},
		LogDirectory: filepath.Join(b.LogRoot, r.Name+"_"+uid),
		DnsConfig:    &cri.DNSConfig{Servers: []string{"10.96.0.10"}, Searches: []string{"svc.cluster.local"}, Options: []string{"ndots:5"}},
		Labels:       labels,
		Annotations:  map[string]string{"kubernetes.io/config.seen": "2024-01-01T00:00:00Z", "kubernetes.io/config.source": "api"},
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent: b.Parent,
			SecurityContext: &cri.LinuxSandboxSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{Network: network, Pid: cri.NamespaceMode_CONTAINER}},
		},
	}}
	if network == cri.NamespaceMode_POD {
		p.config.Hostname = name
	}
	return p
}

// What the kubelet asks to be hidden and protected.
var (
	maskedPaths = []string{"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

func (b *Bench) containerConfig(p *pod, command ...string) *cri.ContainerConfig {
	n := podNumber.Add(1)
	name := fmt.Sprintf("ctr-%d", n)
	return &cri.ContainerConfig{
		Metadata:    &cri.ContainerMetadata{Name: name},
		Image:       &cri.ImageSpec{Image: b.Image},
		Command:     command,
		Envs:        []*cri.KeyValue{{Key: "KUBERNETES_SERVICE_HOST", Value: []byte("10.96.0.1")}, {Key: "KUBERNETES_SERVICE_PORT", Value: []byte("443")}},
		Labels:      map[string]string{"io.kubernetes.container.name": name, "io.kubernetes.pod.name": p.config.Metadata.Name},
		Annotations: map[string]string{"io.kubernetes.container.restartCount": "0"},
		LogPath:     name + ".log",
		Linux: &cri.LinuxContainerConfig{
			Resources: &cri.LinuxContainerResources{OomScoreAdj: 1000},
			SecurityContext: &cri.LinuxContainerSecurityContext{
				MaskedPaths: maskedPaths, ReadonlyPaths: readonlyPaths,
				NamespaceOptions: p.config.Linux.SecurityContext.NamespaceOptions}},
	}
}

// up runs the pod and a container in it.
func (b *Bench) up(p *pod, command ...string) error {
	if err := b.upSandbox(p); err != nil {
		return err
	}
	return b.upContainer(p, command...)
}

func (b *Bench) upSandbox(p *pod) error {
	// The kubelet makes it as well.
	if err := os.MkdirAll(p.config.LogDirectory, 0o755); err != nil {
		return err
	}
	ran, ms, err := timed(p.r.rt.RunPodSandbox, &cri.RunPodSandboxRequest{Config: p.config})
	if err != nil {
		return err
	}
	p.id, p.run = ran.PodSandboxId, ms
	return nil
}

func (b *Bench) upContainer(p *pod, command ...string) error {
	if len(command) == 0 {
		command = []string{"workload"}
	}
	config := b.containerConfig(p, command...)
	created, ms, err := timed(p.r.rt.CreateContainer, &cri.CreateContainerRequest{PodSandboxId: p.id, Config: config, SandboxConfig: p.config})
	if err != nil {
		return err
	}
	p.ctr, p.create, p.logPath = created.ContainerId, ms, filepath.Join(p.config.LogDirectory, config.LogPath)
	_, p.start, err = timed(p.r.rt.StartContainer, &cri.StartContainerRequest{ContainerId: p.ctr})
	return err
}

func (p *pod) down() error {
	var err error
	if _, p.stop, err = timed(p.r.rt.StopPodSandbox, &cri.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		return err
	}
	if _, p.del, err = timed(p.r.rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: p.id}); err != nil {
		return err
	}
	return os.RemoveAll(p.config.LogDirectory)
}

// clear removes every pod of ours, from an earlier run too.
func (r *Runtime) clear() error {
	list, err := call(r.rt.ListPodSandbox, &cri.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	for _, item := range list.Items {
		if item.Metadata.Namespace != namespace {
			continue
		}
		if _, err := call(r.rt.StopPodSandbox, &cri.StopPodSandboxRequest{PodSandboxId: item.Id}); err != nil {
			return err
		}
		if _, err := call(r.rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: item.Id}); err != nil {
			return err
		}
	}
	return nil
}

func systemctl(args ...string) (string, error) {
	text, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, text)
	}
	return strings.TrimSpace(string(text)), nil
}

func (r *Runtime) mainPID() (int, error) {
	text, err := systemctl("show", "--property=MainPID", "--value", r.Unit)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(text)
	if err != nil || pid == 0 {
		return 0, fmt.Errorf("%s is not running", r.Unit)
	}
	return pid, nil
}

// restartTimes are milliseconds.
type restartTimes struct {
	gap   float64 // from the request to restart until the new process answers Version
	start float64 // from the end of the old process until then
	lists float64 // from there until all pods and containers are shown as they are
	wrong float64 // how many lists were answered before that, with something missing
}

// restart restarts the daemon's service.
func (r *Runtime) restart(pods int) (t restartTimes, err error) {
	pid, err := r.mainPID()
	if err != nil {
		return t, err
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return t, err
	}
	defer func() { _ = unix.Close(pidfd) }()
	r.disconnect()
	// As often as we do it, systemd would refuse it for a while.
	if _, err := systemctl("reset-failed", r.Unit); err != nil {
		return t, err
	}

	begin := time.Now()
	if _, err = systemctl("restart", "--no-block", r.Unit); err != nil {
		return t, err
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(startLimit.Milliseconds()))
		if n > 0 {
			break
		}
		if err != unix.EINTR {
			return t, fmt.Errorf("the old process of %s does not end", r.Unit)
		}
	}
	ended := time.Now()
	if err = r.connect(); err != nil {
		return t, err
	}
	t.gap, t.start = milliseconds(time.Since(begin)), milliseconds(time.Since(ended))
	wrong, err := r.waitComplete(pods)
	t.lists, t.wrong = milliseconds(time.Since(ended)), float64(wrong)
	return t, err
}

// waitComplete waits until so many pods and containers are shown, ready and running. It returns how many answers were
// without some.
func (r *Runtime) waitComplete(pods int) (int, error) {
	deadline := time.Now().Add(startLimit)
	for wrong := 0; ; {
		ready, running := -1, -1
		sandboxes, err := call(r.rt.ListPodSandbox, &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{
			State: &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY}}})
		if err == nil {
			ready = len(sandboxes.Items)
			containers, err := call(r.rt.ListContainers, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{
				State: &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING}}})
			if err == nil {
				running = len(containers.Containers)
			}
		}
		if ready == pods && running == pods {
			return wrong, nil
		}
		if err == nil {
			wrong++
		}
		if time.Now().After(deadline) {
			return wrong, fmt.Errorf("%s shows %d pods and %d containers, not %d", r.Name, ready, running, pods)
		}
		time.Sleep(time.Millisecond)
	}
}
