package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A life is all that a client does with an image and a pod, from the pull to the removal, in steps. The daemon may die at
// any moment of it: the client does what the kubelet does then, that is, it looks what is there and asks again, and each
// step checks that this leads to where the step would have led anyway.

const imageFolder = "/var/lib/rktlet/image"

// killClient talks to the daemon with a connection that is made again at once.
func killClient(t testing.TB) {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+*socketPath, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(kubeletSize)),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 20 * time.Second, Backoff: backoff.Config{
			BaseDelay: 5 * time.Millisecond, Multiplier: 1.2, MaxDelay: 50 * time.Millisecond}}))
	if err != nil {
		t.Fatal(err)
	}
	oldRuntime, oldImage := rt, img
	rt, img = cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn)
	t.Cleanup(func() {
		rt, img = oldRuntime, oldImage
		_ = conn.Close()
	})
}

// once calls an RPC; lost says that the daemon died before it answered (or was not there).
func once[Q, A any](call func(context.Context, Q, ...grpc.CallOption) (A, error), request Q) (answer A, lost bool, err error) {
	ctx, cancel := timeout(time.Minute)
	defer cancel()
	answer, err = call(ctx, request)
	return answer, status.Code(err) == codes.Unavailable, err
}

// persist calls an RPC that may be repeated, until there is an answer.
func persist[Q, A any](call func(context.Context, Q, ...grpc.CallOption) (A, error), request Q) (A, error) {
	for begin := time.Now(); ; time.Sleep(3 * time.Millisecond) {
		answer, lost, err := once(call, request)
		if !lost || time.Since(begin) > time.Minute {
			if err != nil {
				err = fmt.Errorf("%T: %w", request, err)
			}
			return answer, err
		}
	}
}

// until tries again while check says so.
func until(limit time.Duration, what string, check func() error) error {
	for deadline := time.Now().Add(limit * time.Duration(*slow)); ; time.Sleep(3 * time.Millisecond) {
		err := check()
		if err == nil || time.Now().After(deadline) {
			if err != nil {
				err = fmt.Errorf("not within %v: %s: %w", limit, what, err)
			}
			return err
		}
	}
}

// A movingImage is a name in a registry that means one image, and then another.
type movingImage struct {
	registry *frontRegistry
	mutex    sync.Mutex
	now      string
	ids      map[string]string // of the two
	trees    map[string]string // what the layers of an ID have in them
}

func newMovingImage(t testing.TB) *movingImage {
	m := &movingImage{ids: map[string]string{}, trees: map[string]string{}}
	m.registry = front(t, func(w http.ResponseWriter, r *http.Request) bool {
		m.mutex.Lock()
		defer m.mutex.Unlock()
		r.URL.Path = strings.Replace(r.URL.Path, "/moving/", "/"+m.now+"/", 1)
		r.URL.Path = regexp.MustCompile("/manifests/(one|two)$").ReplaceAllString(r.URL.Path, "/manifests/latest")
		return false
	})
	return m
}

func (m *movingImage) ref(tag string) string { return m.registry.ref("moving:" + tag) }

func (m *movingImage) means(name string) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.now = name
}

// complete looks whether all files of an image are what they were when it was complete first.
func (m *movingImage) complete(id string) error {
	var file struct {
		Layers, Blobs []string
	}
	data, err := os.ReadFile(filepath.Join(imageFolder, "images", strings.TrimPrefix(id, "sha256:")+".json"))
	if err == nil {
		err = json.Unmarshal(data, &file)
	}
	if err != nil {
		return err
	}
	sum := sha256.New()
	for _, blob := range file.Blobs {
		data, err := os.ReadFile(filepath.Join(imageFolder, "blobs/sha256", strings.TrimPrefix(blob, "sha256:")))
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%x", sha256.Sum256(data))
	}
	for _, layer := range file.Layers {
		root := filepath.Join(imageFolder, "layers", layer, "fs")
		if err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			st := info.Sys().(*syscall.Stat_t)
			fmt.Fprintf(sum, "%s %v %d %d\n", strings.TrimPrefix(path, root), info.Mode(), st.Uid, st.Gid)
			if info.Mode().IsRegular() {
				data, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				fmt.Fprintf(sum, "%x", sha256.Sum256(data))
			}
			return nil
		}); err != nil {
			return err
		}
	}
	tree := fmt.Sprintf("%x", sum.Sum(nil))
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if known := m.trees[id]; known != "" && known != tree {
		return fmt.Errorf("the layers of image %s are not what they were", id)
	}
	m.trees[id] = tree
	return nil
}

type lifeContainer struct {
	id, name, image string
	config          *cri.ContainerConfig
	started         time.Time
	pid             int
}

type life struct {
	t      testing.TB
	image  *movingImage // nil: it has none of its own
	pulled bool
	// Its pod is on the host's network: made faster, where the network is not what matters.
	host   bool
	kind   lifeKind
	config *cri.PodSandboxConfig
	pod    string
	held   podHoldings // by the pod's process, in the beginning
	ctr    *lifeContainer
}

type lifeStep struct {
	name string
	run  func(l *life) error
	part lifePart
	// Steps that are there for others: nobody kills the daemon in them.
	spared bool
	// Much like an earlier step: not everything that is tried there is tried here.
	variant bool
}

// Lives differ in what their pod is like.
type lifeKind int

const (
	kindPlain   lifeKind = iota
	kindUserns           // with a user namespace
	kindSharing          // the pod's processes see each other, and a container's mounts reach the host
	kindMax
)

const sharedFolder = "/run/e2e/shared-mount"

// makeSharedFolder makes what a bidirectional mount needs.
func makeSharedFolder(t testing.TB) {
	t.Helper()
	if err := os.MkdirAll(sharedFolder, 0o755); err != nil {
		t.Fatal(err)
	}
	command(t, "mount", "--bind", sharedFolder, sharedFolder)
	command(t, "mount", "--make-rshared", sharedFolder)
	t.Cleanup(func() { command(t, "umount", "--recursive", sharedFolder) })
}

func (k lifeKind) pod(c *cri.PodSandboxConfig) {
	switch k {
	case kindUserns:
		if c.Linux.SecurityContext.NamespaceOptions.Network == cri.NamespaceMode_POD {
			userns(c)
		}
	case kindSharing:
		c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
		c.Linux.SecurityContext.Privileged = true
	}
}

func (k lifeKind) container(c *cri.ContainerConfig) {
	if k == kindSharing {
		privileged(c)
		mount(&cri.Mount{HostPath: sharedFolder, ContainerPath: "/shared", Propagation: cri.MountPropagation_PROPAGATION_BIDIRECTIONAL})(c)
	}
}

// A life without some of its parts is one, too: a container needs a pod, and takes another image if its own is left out.
type lifePart string

const (
	partImage     lifePart = "image"
	partPod       lifePart = "pod"
	partContainer lifePart = "container"
	partTerminal  lifePart = "terminal"
	partMissing   lifePart = "missing command"
	partEnded     lifePart = "ended pod"
)

// withParts keeps the steps of some parts.
func withParts(steps []lifeStep, parts map[lifePart]bool) []lifeStep {
	var kept []lifeStep
	for _, s := range steps {
		if parts[s.part] || s.part == partPod && (parts[partContainer] || parts[partTerminal] || parts[partMissing]) {
			kept = append(kept, s)
		}
	}
	return kept
}

func newLife(t testing.TB, image *movingImage) *life { return &life{t: t, image: image} }

// --- images -----------------------------------------------------------------------------------------------------------

func (l *life) imageID(ref string) (string, error) {
	answer, err := persist(img.ImageStatus, &cri.ImageStatusRequest{Image: spec(ref)})
	return answer.GetImage().GetId(), err
}

// pull gets an image; if the daemon died, the image is whole or not there.
func pullStep(tag, name string) func(*life) error {
	return func(l *life) error {
		l.image.means(name)
		for {
			answer, lost, err := once(img.PullImage, &cri.PullImageRequest{Image: spec(l.image.ref(tag))})
			if err != nil && !lost {
				return fmt.Errorf("PullImage: %w", err)
			}
			id, err := l.imageID(l.image.ref(tag))
			if err != nil {
				return err
			}
			known := l.image.ids[name]
			if lost && id == "" {
				continue
			}
			if lost && id != known && known != "" { // what the tag meant before
				if err := l.image.complete(id); err != nil {
					return err
				}
				continue
			}
			if !lost && answer.ImageRef != id {
				return fmt.Errorf("PullImage says %s, ImageStatus %q", answer.ImageRef, id)
			}
			if known != "" && id != known {
				return fmt.Errorf("the image is %s, not %s", id, known)
			}
			l.image.ids[name] = id
			l.pulled = true
			if err := l.image.complete(id); err != nil {
				return err
			}
			if !lost {
				return nil
			}
		}
	}
}

func removeImageStep(ref func(*life) string) func(*life) error {
	return func(l *life) error {
		name := ref(l)
		if _, err := persist(img.RemoveImage, &cri.RemoveImageRequest{Image: spec(name)}); err != nil {
			return err
		}
		id, err := l.imageID(name)
		if err == nil && id != "" {
			err = fmt.Errorf("image %s is still there as %s", name, id)
		}
		return err
	}
}

// --- pods -------------------------------------------------------------------------------------------------------------

func (l *life) findPods() ([]*cri.PodSandbox, error) {
	answer, err := persist(rt.ListPodSandbox, &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{
		LabelSelector: map[string]string{"life": l.config.Metadata.Uid}}})
	return answer.GetItems(), err
}

// runPodStep has one pod afterwards: the one asked for first, or a new one after that was undone.
func runPodStep(mods ...podMod) func(*life) error {
	return func(l *life) error {
		if l.host {
			mods = nil
		}
		l.config = podConfig(l.t, append(slices.Clone(mods), l.kind.pod)...)
		l.config.Labels = map[string]string{"life": l.config.Metadata.Uid}
		request := &cri.RunPodSandboxRequest{Config: l.config}
		for {
			answer, lost, err := once(rt.RunPodSandbox, request)
			if err == nil {
				l.pod = answer.PodSandboxId
				break
			}
			if !lost {
				return fmt.Errorf("RunPodSandbox: %w", err)
			}
			pods, err := l.findPods()
			if err != nil {
				return err
			}
			if len(pods) > 1 {
				return fmt.Errorf("there are %d pods of that name", len(pods))
			}
			if len(pods) == 0 {
				continue
			}
			if pods[0].State != cri.PodSandboxState_SANDBOX_READY {
				return fmt.Errorf("the pod that was found again is %v", pods[0].State)
			}
			// It is the one that the lost answer was about: asked for again it is no second one.
			l.pod = pods[0].Id
			again, lost, err := once(rt.RunPodSandbox, request)
			if lost {
				continue
			}
			if err == nil && again.PodSandboxId != l.pod || err != nil && status.Code(err) != codes.AlreadyExists {
				return fmt.Errorf("asked again for a pod that is there: %v, %v", again, err)
			}
			break
		}
		if err := l.checkPod(cri.PodSandboxState_SANDBOX_READY); err != nil {
			return err
		}
		var err error
		l.held, err = l.holdings()
		return err
	}
}

func (l *life) checkPod(state cri.PodSandboxState) error {
	answer, err := persist(rt.PodSandboxStatus, &cri.PodSandboxStatusRequest{PodSandboxId: l.pod})
	if err != nil {
		return err
	}
	st := answer.Status
	if st.State != state {
		return fmt.Errorf("pod %s is %v, not %v", l.pod, st.State, state)
	}
	host := l.config.Linux.SecurityContext.NamespaceOptions.Network == cri.NamespaceMode_NODE
	if state == cri.PodSandboxState_SANDBOX_READY && !host && st.Network.GetIp() == "" {
		return fmt.Errorf("pod %s has no address", l.pod)
	}
	if st.Metadata.Uid != l.config.Metadata.Uid {
		return fmt.Errorf("pod %s is that of %v", l.pod, st.Metadata)
	}
	return nil
}

// holdings are what the pod's process has of its containers: mounts, descriptors, and those that systemd keeps for it.
func (l *life) holdings() (h podHoldings, err error) {
	unit := "rktlet-pod-" + l.pod + ".service"
	out, err := try("systemctl", "show", "--property=MainPID,NFileDescriptorStore", unit)
	if err != nil {
		return h, fmt.Errorf("systemctl show: %w: %s", err, out)
	}
	pid := 0
	for _, line := range strings.Fields(out) {
		_, _ = fmt.Sscanf(line, "MainPID=%d", &pid)
		_, _ = fmt.Sscanf(line, "NFileDescriptorStore=%d", &h.stored)
	}
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return h, err
	}
	h.descriptors = len(descriptors)
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	h.mounts = strings.Count(string(mounts), "/run/rktlet/containers/")
	return h, err
}

type podHoldings struct{ descriptors, stored, mounts int }

// emptyPodStep looks whether all that the pod's process held for containers went with them.
func emptyPodStep(l *life) error {
	return until(5*time.Second, "the pod's process holds nothing of its containers", func() error {
		now, err := l.holdings()
		if err == nil && (now.descriptors > l.held.descriptors || now.stored > l.held.stored || now.mounts > l.held.mounts) {
			err = fmt.Errorf("it has %+v, in the beginning it had %+v", now, l.held)
		}
		return err
	})
}

func stopPodStep(l *life) error {
	if _, err := persist(rt.StopPodSandbox, &cri.StopPodSandboxRequest{PodSandboxId: l.pod}); err != nil {
		return err
	}
	if err := l.checkPod(cri.PodSandboxState_SANDBOX_NOTREADY); err != nil {
		return err
	}
	if l.ctr == nil {
		return nil
	}
	return l.checkExited(137, "Error")
}

func endPodStep(l *life) error {
	if out, err := try("systemctl", "stop", "rktlet-pod-"+l.pod+".service"); err != nil {
		return fmt.Errorf("systemctl stop: %w: %s", err, out)
	}
	return until(10*time.Second, "the pod is seen to have ended", func() error {
		return l.checkPod(cri.PodSandboxState_SANDBOX_NOTREADY)
	})
}

func removePodStep(l *life) error {
	if _, err := persist(rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: l.pod}); err != nil {
		return err
	}
	_ = os.RemoveAll(l.config.LogDirectory)
	pods, err := l.findPods()
	if err == nil && len(pods) > 0 {
		err = fmt.Errorf("pod %s is still listed", l.pod)
	}
	l.pod, l.ctr = "", nil
	return err
}

// --- containers -------------------------------------------------------------------------------------------------------

const lifeScript = `trap 'echo end; exit 9' TERM; trap 'exit 7' USR1; echo begin; sleep 100000 & wait`

func (l *life) containerImage() string {
	if !l.pulled {
		return ref("test/base")
	}
	return l.image.ref("one")
}

func createStep(name string, mods ...ctrMod) func(*life) error {
	return func(l *life) error {
		p := &podT{t: l.t, id: l.pod, config: l.config}
		request := p.createRequest(append([]ctrMod{sh(lifeScript), func(c *cri.ContainerConfig) {
			c.Metadata.Name, c.LogPath = name, name+".log"
			c.Image.Image = l.containerImage()
			c.Labels = map[string]string{"container": name}
			c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = l.config.Linux.SecurityContext.NamespaceOptions.UsernsOptions
		}, l.kind.container, imageVolume("test/volume", "", "/volume")}, mods...)...)
		l.ctr = &lifeContainer{name: name, config: request.Config}
		for {
			answer, lost, err := once(rt.CreateContainer, request)
			if err == nil {
				l.ctr.id = answer.ContainerId
				break
			}
			if !lost {
				return fmt.Errorf("CreateContainer: %w", err)
			}
			list, err := persist(rt.ListContainers, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{
				PodSandboxId: l.pod, LabelSelector: request.Config.Labels}})
			if err != nil {
				return err
			}
			if len(list.Containers) > 1 {
				return fmt.Errorf("there are %d containers of that name", len(list.Containers))
			}
			if len(list.Containers) == 0 {
				continue
			}
			l.ctr.id = list.Containers[0].Id
			again, lost, err := once(rt.CreateContainer, request)
			if lost {
				continue
			}
			if err == nil && again.ContainerId != l.ctr.id || err != nil && status.Code(err) != codes.AlreadyExists {
				return fmt.Errorf("asked again for a container that is there: %v, %v", again, err)
			}
			break
		}
		st, err := l.containerStatus()
		if err == nil && st.State != cri.ContainerState_CONTAINER_CREATED {
			err = fmt.Errorf("the container is %v after its creation", st.State)
		}
		return err
	}
}

func (l *life) containerStatus() (*cri.ContainerStatus, error) {
	answer, err := persist(rt.ContainerStatus, &cri.ContainerStatusRequest{ContainerId: l.ctr.id, Verbose: true})
	if err != nil {
		return nil, err
	}
	var info struct{ Pid int }
	if json.Unmarshal([]byte(answer.Info["info"]), &info) == nil {
		l.ctr.pid = info.Pid
	}
	return answer.Status, nil
}

func (l *life) logText() string {
	data, _ := os.ReadFile(filepath.Join(l.config.LogDirectory, l.ctr.config.LogPath))
	return string(data)
}

func startStep(l *life) error {
	before := time.Now()
	for {
		_, lost, err := once(rt.StartContainer, &cri.StartContainerRequest{ContainerId: l.ctr.id})
		if err == nil {
			break
		}
		st, statusErr := l.containerStatus()
		if statusErr != nil {
			return statusErr
		}
		if !lost {
			return fmt.Errorf("StartContainer: %w (it is %v)", err, st.State)
		}
		if st.State == cri.ContainerState_CONTAINER_RUNNING {
			break
		}
		if st.State != cri.ContainerState_CONTAINER_CREATED {
			return fmt.Errorf("the container is %v after a start without an answer", st.State)
		}
	}
	st, err := l.containerStatus()
	if err != nil {
		return err
	}
	l.ctr.started = time.Unix(0, st.StartedAt)
	if st.State != cri.ContainerState_CONTAINER_RUNNING || l.ctr.pid <= 0 || !isAlive(l.ctr.pid) {
		return fmt.Errorf("the container is %v, process %d", st.State, l.ctr.pid)
	}
	if l.ctr.started.Before(before.Add(-10*time.Millisecond)) || l.ctr.started.After(time.Now()) {
		return fmt.Errorf("it was started at %v, which is not between %v and %v", l.ctr.started, before, time.Now())
	}
	return until(10*time.Second, "the log begins", func() error {
		if text := l.logText(); strings.Count(text, " begin") != 1 {
			return fmt.Errorf("it is %q", text)
		}
		return nil
	})
}

// startFailsStep is for a container whose command is missing.
func startFailsStep(l *life) error {
	for {
		_, lost, err := once(rt.StartContainer, &cri.StartContainerRequest{ContainerId: l.ctr.id})
		if err == nil {
			return fmt.Errorf("a command that is missing was started")
		}
		st, err := l.containerStatus()
		if err != nil {
			return err
		}
		if lost && st.State == cri.ContainerState_CONTAINER_CREATED {
			continue
		}
		if st.State != cri.ContainerState_CONTAINER_EXITED || st.ExitCode != 128 || st.Reason != "StartError" || st.Message == "" {
			return fmt.Errorf("its state is %v, exit code %d, %s: %s", st.State, st.ExitCode, st.Reason, st.Message)
		}
		return nil
	}
}

func execStep(l *life) error {
	answer, err := persist(rt.ExecSync, &cri.ExecSyncRequest{ContainerId: l.ctr.id, Cmd: []string{"sh", "-c", "echo out; echo err >&2; exit 4"}, Timeout: 20})
	if err != nil {
		return err
	}
	if answer.ExitCode != 4 || string(answer.Stdout) != "out\n" || string(answer.Stderr) != "err\n" {
		return fmt.Errorf("exec: %v", answer)
	}
	return nil
}

func updateContainerStep(l *life) error {
	_, err := persist(rt.UpdateContainerResources, &cri.UpdateContainerResourcesRequest{ContainerId: l.ctr.id,
		Linux: &cri.LinuxContainerResources{CpuShares: 512, MemoryLimitInBytes: 64 << 20}})
	if err != nil {
		return err
	}
	st, err := l.containerStatus()
	if err != nil {
		return err
	}
	if r := st.Resources.GetLinux(); r.GetCpuShares() != 512 || r.GetMemoryLimitInBytes() != 64<<20 {
		return fmt.Errorf("its resources are %v", r)
	}
	if out, err := try("systemctl", "show", "--value", "-p", "MemoryMax", "rktlet-ctr-"+l.ctr.id+".service"); err != nil || strings.TrimSpace(out) != "67108864" {
		return fmt.Errorf("MemoryMax of its unit is %q", out)
	}
	return nil
}

func updatePodStep(l *life) error {
	_, err := persist(rt.UpdatePodSandboxResources, &cri.UpdatePodSandboxResourcesRequest{PodSandboxId: l.pod,
		Resources: &cri.LinuxContainerResources{CpuShares: 768, MemoryLimitInBytes: 128 << 20}})
	return err
}

func reopenStep(l *life) error {
	_, err := persist(rt.ReopenContainerLog, &cri.ReopenContainerLogRequest{ContainerId: l.ctr.id})
	return err
}

func (l *life) checkExited(code int32, reason string) error {
	st, err := l.containerStatus()
	if err != nil {
		return err
	}
	if st.State != cri.ContainerState_CONTAINER_EXITED {
		return fmt.Errorf("container %s is %v", l.ctr.name, st.State)
	}
	if st.ExitCode != code || st.Reason != reason {
		return fmt.Errorf("container %s exited with %d, %s (%s), not %d, %s", l.ctr.name, st.ExitCode, st.Reason, st.Message, code, reason)
	}
	if started := time.Unix(0, st.StartedAt); !started.Equal(l.ctr.started) {
		return fmt.Errorf("container %s was started at %v, %v was said first", l.ctr.name, started, l.ctr.started)
	}
	if st.FinishedAt < st.StartedAt || st.FinishedAt > time.Now().UnixNano() {
		return fmt.Errorf("container %s was started at %d, ended at %d", l.ctr.name, st.StartedAt, st.FinishedAt)
	}
	return nil
}

// exitStep has the container end by itself.
func exitStep(l *life) error {
	before := time.Now()
	if err := syscall.Kill(l.ctr.pid, syscall.SIGUSR1); err != nil {
		return fmt.Errorf("its process %d: %w", l.ctr.pid, err)
	}
	if err := until(20*time.Second, "the end is told", func() error { return l.checkExited(7, "Error") }); err != nil {
		return err
	}
	st, err := l.containerStatus()
	if finished := time.Unix(0, st.GetFinishedAt()); err == nil && (finished.Before(before) || finished.After(before.Add(500*time.Millisecond*time.Duration(*slow)))) {
		err = fmt.Errorf("it was told to end at %v, and is said to have ended at %v", before, finished)
	}
	return err
}

func stopStep(l *life) error {
	if _, err := persist(rt.StopContainer, &cri.StopContainerRequest{ContainerId: l.ctr.id, Timeout: 20}); err != nil {
		return err
	}
	if err := l.checkExited(9, "Error"); err != nil {
		return err
	}
	if text := l.logText(); strings.Count(text, " begin") != 1 || strings.Count(text, " end") != 1 {
		return fmt.Errorf("the log is %q", text)
	}
	return nil
}

func removeStep(l *life) error {
	if _, err := persist(rt.RemoveContainer, &cri.RemoveContainerRequest{ContainerId: l.ctr.id}); err != nil {
		return err
	}
	list, err := persist(rt.ListContainers, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{Id: l.ctr.id}})
	if err == nil && len(list.Containers) > 0 {
		err = fmt.Errorf("container %s is still listed", l.ctr.id)
	}
	l.ctr = nil
	return err
}

// --- the whole --------------------------------------------------------------------------------------------------------

func withHostPort(c *cri.PodSandboxConfig) {
	c.PortMappings = []*cri.PortMapping{{Protocol: cri.Protocol_TCP, ContainerPort: 8080, HostPort: 20000 + int32(number()%10000)}}
}

// podSteps are those of a pod with its containers.
func podSteps() []lifeStep {
	odd := func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Key: "ODD", Value: []byte("\xff")}} }
	terminal := func(c *cri.ContainerConfig) { c.Tty, c.Stdin = true, true }
	return []lifeStep{
		{name: "RunPodSandbox", run: runPodStep(withNetwork, withHostPort), part: partPod},
		{name: "CreateContainer", run: createStep("plain", odd), part: partContainer},
		{name: "StartContainer", run: startStep, part: partContainer},
		{name: "ExecSync", run: execStep, part: partContainer},
		{name: "UpdateContainerResources", run: updateContainerStep, part: partContainer},
		{name: "UpdatePodSandboxResources", run: updatePodStep, part: partContainer},
		{name: "ReopenContainerLog", run: reopenStep, part: partContainer},
		{name: "exit", run: exitStep, part: partContainer},
		{name: "RemoveContainer", run: removeStep, part: partContainer},
		{name: "CreateContainer with a terminal", run: createStep("terminal", terminal), part: partTerminal, variant: true},
		{name: "StartContainer with a terminal", run: startStep, part: partTerminal, variant: true},
		{name: "StopContainer", run: stopStep, part: partTerminal},
		{name: "RemoveContainer with a terminal", run: removeStep, part: partTerminal, variant: true},
		{name: "CreateContainer of a missing command", run: createStep("missing", withCommand("/missing")), part: partMissing, variant: true},
		{name: "StartContainer of a missing command", run: startFailsStep, part: partMissing},
		{name: "RemoveContainer of a missing command", run: removeStep, part: partMissing, variant: true},
		{name: "the pod without containers", run: emptyPodStep, part: partPod, spared: true},
		{name: "CreateContainer for the pod's end", run: createStep("last"), part: partPod, spared: true},
		{name: "StartContainer for the pod's end", run: startStep, part: partPod, spared: true},
		{name: "StopPodSandbox", run: stopPodStep, part: partPod},
		{name: "RemovePodSandbox", run: removePodStep, part: partPod},
	}
}

func imageSteps() (before, after []lifeStep) {
	first, second := "test/layers", "test/empty-layer"
	one, two := func(l *life) string { return l.image.ref("one") }, func(l *life) string { return l.image.ref("two") }
	nameless := func(l *life) string { return l.image.ids[first] }
	return []lifeStep{
			{name: "PullImage", run: pullStep("one", first), part: partImage},
			{name: "PullImage by another name", run: pullStep("two", first), part: partImage},
		}, []lifeStep{
			{name: "RemoveImage of one name", run: removeImageStep(two), part: partImage},
			{name: "PullImage of a name that has moved", run: pullStep("one", second), part: partImage, variant: true},
			{name: "RemoveImage", run: removeImageStep(nameless), part: partImage},
			{name: "RemoveImage of the other", run: removeImageStep(one), part: partImage, variant: true},
		}
}

func allSteps() []lifeStep {
	before, after := imageSteps()
	return slices.Concat(before, podSteps(), []lifeStep{
		{name: "RunPodSandbox of a second pod", run: runPodStep(withParent("life.slice")), part: partEnded, spared: true},
		{name: "end of a pod", run: endPodStep, part: partEnded},
		{name: "RemovePodSandbox of an ended pod", run: removePodStep, part: partEnded, variant: true},
	}, after)
}

// storeNames are the files of the image store, to be compared before and after.
func storeNames() []string {
	var names []string
	for _, pattern := range []string{"images/*", "images/.*", "layers/*", "layers/.*", "blobs/sha256/*", "blobs/sha256/.*", "tmp/*", "tmp/.*"} {
		matches, _ := filepath.Glob(filepath.Join(imageFolder, pattern))
		names = append(names, matches...)
	}
	sort.Strings(names)
	return names
}
