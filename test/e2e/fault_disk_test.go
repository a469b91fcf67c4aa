package e2e

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A disk is full, or has no inodes left.

const (
	stateFolder = "/var/lib/rktlet"
	runFolder   = "/run/rktlet"
	cniFolder   = "/var/lib/cni"
)

// A small disk is mounted over a folder for the time of a test; it has as much room as the test says.
type smallDisk struct {
	t      testing.TB
	folder string
}

func newSmallDisk(t testing.TB, folder string) *smallDisk {
	t.Helper()
	stop := func() { command(t, "systemctl", "stop", "rktlet.socket", *daemonUnit) }
	start := func() {
		command(t, "systemctl", "start", "rktlet.socket", *daemonUnit)
		waitForDaemon(t)
	}
	stop()
	command(t, "mount", "-t", "tmpfs", "-o", "size=200m,nr_inodes=100000,mode="+map[string]string{stateFolder: "0700", runFolder: "0711", cniFolder: "0755"}[folder], "tmpfs", folder)
	t.Cleanup(func() {
		stop()
		_, _ = try("umount", folder)
		start()
	})
	start()
	return &smallDisk{t, folder}
}

// used is how many blocks and inodes are taken.
func (d *smallDisk) used() (blocks, inodes uint64) {
	d.t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(d.folder, &s); err != nil {
		d.t.Fatal(err)
	}
	return s.Blocks - s.Bfree, s.Files - s.Ffree
}

func (d *smallDisk) remount(option string, n uint64) {
	d.t.Helper()
	command(d.t, "mount", "-o", fmt.Sprintf("remount,%s=%d", option, max(n, 1)), d.folder)
}

// A shortage is one of what can be used up.
type shortage struct {
	name string
	// leave lets so many more be used.
	leave func(d *smallDisk, n uint64)
}

var shortages = []shortage{
	{"blocks", func(d *smallDisk, n uint64) {
		blocks, _ := d.used()
		d.remount("nr_blocks", blocks+n)
	}},
	{"inodes", func(d *smallDisk, n uint64) {
		_, inodes := d.used()
		d.remount("nr_inodes", inodes+n)
	}},
}

func (d *smallDisk) plenty() {
	d.t.Helper()
	command(d.t, "mount", "-o", "remount,nr_blocks=100000,nr_inodes=100000", d.folder)
}

// checkFull looks whether an error says that there is no room: as the kernel does, or ours, before it comes to that.
func checkFull(t testing.TB, what, text string) {
	t.Helper()
	if text = strings.ToLower(text); !strings.Contains(text, "no space left") && !strings.Contains(text, "free on the file system") {
		t.Errorf("%s says %q", what, text)
	}
}

// sweep makes a call with room for n, n+1… more until it succeeds, so that it fails at each of its writes once. A failure
// has to say what is short, and to leave nothing behind; then, with room, the same call works. `undo` takes back what the
// call made. The steps grow with `step`.
func sweep[Q, A any](d *smallDisk, s shortage, step func(n uint64) uint64, call func(context.Context, Q, ...grpc.CallOption) (A, error), request Q, undo func(A)) {
	t := d.t
	t.Helper()
	failures := 0
	begin := uint64(0)
	for n := begin; ; n = step(n) {
		blocks, inodes := d.used()
		s.leave(d, n)
		ctx, cancel := timeout(time.Minute)
		answer, err := call(ctx, request)
		cancel()
		d.plenty()
		if err == nil {
			undo(answer)
			break
		}
		failures++
		checkFull(t, fmt.Sprintf("the error with room for %d %s", n, s.name), checkRefusal(t, err, codes.ResourceExhausted))
		if pods, containers := len(do(t, rt.ListPodSandbox, &cri.ListPodSandboxRequest{}).Items), len(do(t, rt.ListContainers, &cri.ListContainersRequest{}).Containers); pods > 1 || containers > 0 {
			t.Errorf("%d pods and %d containers are listed after the failure with room for %d %s", pods, containers, n, s.name)
		}
		if nowBlocks, nowInodes := d.used(); nowBlocks > blocks || nowInodes > inodes {
			t.Errorf("with room for %d %s, after the failure %d blocks and %d inodes are used, before %d and %d:\n%s", n, s.name, nowBlocks, nowInodes, blocks, inodes,
				command(t, "find", d.folder))
		}
		if failures%4 == 1 { // it works at once when there is room
			undo(do(t, call, request))
		}
		if t.Failed() || n > 1<<20 {
			return
		}
	}
	if failures == 0 {
		t.Errorf("%T did not fail without any %s", request, s.name)
	}
	t.Logf("%s: %T failed %d times for want of %s and left nothing", d.folder, request, failures, s.name)
}

func TestFaultDiskFullAtEveryWriteIsAnErrorAndLeavesNothing(t *testing.T) {
	leavesNothing(t)
	d := newSmallDisk(t, stateFolder)
	for _, s := range shortages {
		sweep(d, s, func(n uint64) uint64 { return n*2 + 1 }, img.PullImage, &cri.PullImageRequest{Image: spec(ref("test/layers"))},
			func(*cri.PullImageResponse) { removeImage(t, ref("test/layers")) })
	}
	pull(t, "test/base")
	sweepPods(d)
}

// The same where what is gone after a reboot lies.
func TestFaultRunFolderFullAtEveryWriteIsAnErrorAndLeavesNothing(t *testing.T) {
	leavesNothing(t)
	d := newSmallDisk(t, runFolder)
	pull(t, "test/base")
	sweepPods(d)
	// What is there needs no room to be executed in, stopped and removed.
	for _, s := range shortages {
		p := runPod(t, withNetwork)
		c, created := p.run(), p.create(sh("exit 4"))
		s.leave(d, 0)
		contains(t, "exec", c.sh("echo works"), "works")
		created.start()
		equal(t, "exit code", created.wait().ExitCode, 4)
		killDaemonNow(t)
		equal(t, "state after a restart", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
		contains(t, "exec", c.sh("echo works"), "works")
		c.stop(0)
		created.remove()
		p.remove()
		d.plenty()
	}
}

// The same where the network plugins keep their addresses.
func TestFaultNetworkStateFullIsAnErrorAndLeavesNothing(t *testing.T) {
	leavesNothing(t)
	d := newSmallDisk(t, cniFolder)
	runPod(t, withNetwork).remove() // makes what the plugins keep
	for _, s := range shortages {
		p := runPod(t, withNetwork)
		s.leave(d, 0)
		p.remove() // gives room for what follows, one by one
		d.plenty()
		sweep(d, s, func(n uint64) uint64 { return n + 1 }, rt.RunPodSandbox, &cri.RunPodSandboxRequest{Config: podConfig(t, withNetwork)}, removeRun(t))
	}
}

func removeRun(t testing.TB) func(a *cri.RunPodSandboxResponse) {
	return func(a *cri.RunPodSandboxResponse) {
		do(t, rt.StopPodSandbox, &cri.StopPodSandboxRequest{PodSandboxId: a.PodSandboxId})
		do(t, rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: a.PodSandboxId})
	}
}

// sweepPods has pods and containers of several kinds fail at each of their writes.
func sweepPods(d *smallDisk) {
	t := d.t
	oneMore := func(n uint64) uint64 { return n + 1 }
	for _, s := range shortages {
		for _, mods := range [][]podMod{nil, {withNetwork}} {
			sweep(d, s, oneMore, rt.RunPodSandbox, &cri.RunPodSandboxRequest{Config: podConfig(t, mods...)}, removeRun(t))
		}
		p := runPod(t)
		for _, mod := range []ctrMod{func(c *cri.ContainerConfig) { c.Stdin = true }, func(c *cri.ContainerConfig) { c.Tty = true }} {
			sweep(d, s, oneMore, rt.CreateContainer, p.createRequest(mod), func(a *cri.CreateContainerResponse) {
				do(t, rt.StartContainer, &cri.StartContainerRequest{ContainerId: a.ContainerId})
				do(t, rt.RemoveContainer, &cri.RemoveContainerRequest{ContainerId: a.ContainerId})
			})
		}
		p.remove()
	}
}

func TestFaultDaemonKilledWithTheDiskFullForgetsNothing(t *testing.T) {
	for _, s := range shortages {
		t.Run(s.name, func(t *testing.T) {
			leavesNothing(t)
			d := newSmallDisk(t, stateFolder)
			pull(t, "test/base")
			pull(t, "test/tags:1")
			p := runPod(t, withNetwork)
			c := p.run(sh(writer(100, "sleep 0.02")))
			created, exits, before := p.create(sh("exit 5")), p.run(sh("while [ ! -e /dev/shm/go ]; do sleep 0.02; done; exit 6")), p.run(sh("exit 7"))
			kills := p.run(sh("exec sleep 10000"))
			before.wait()
			c.waitForLog(" 500\n")
			other := runPod(t, withNetwork)
			other.run()
			alive := survivors(c)
			network, exitedBefore := p.status().Network.String(), before.status().String()

			s.leave(d, 0)
			checkFull(t, "the error", refused(t, rt.RunPodSandbox, &cri.RunPodSandboxRequest{Config: podConfig(t)}, codes.ResourceExhausted))
			// What changes while nothing can be written is known nonetheless, and still so after the next daemon's start.
			created.start()
			equal(t, "exit code", created.wait().ExitCode, 5)
			c.sh("touch /dev/shm/go")
			equal(t, "exit code", exits.wait().ExitCode, 6)
			kills.stop(0)
			equal(t, "exit code", kills.status().ExitCode, 137)
			other.stop()
			finished := exits.status().FinishedAt
			for range 2 {
				killDaemonNow(t)
				checkSurvivors(t, alive)
				equal(t, "state of the pod", p.status().State, cri.PodSandboxState_SANDBOX_READY)
				equal(t, "network of the pod", p.status().Network.String(), network)
				equal(t, "state of the other pod", other.status().State, cri.PodSandboxState_SANDBOX_NOTREADY)
				equal(t, "state of the container", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
				equal(t, "status of the one that had ended before", before.status().String(), exitedBefore)
				equal(t, "exit code of the one started meanwhile", created.status().ExitCode, 5)
				equal(t, "exit code of the one that ended meanwhile", exits.status().ExitCode, 6)
				equal(t, "its end", exits.status().FinishedAt, finished)
				equal(t, "exit code of the one killed meanwhile", kills.status().ExitCode, 137)
				equal(t, "pods", len(do(t, rt.ListPodSandbox, &cri.ListPodSandboxRequest{}).Items), 2)
				equal(t, "images", len(do(t, img.ListImages, &cri.ListImagesRequest{}).Images), 2)
				contains(t, "exec", c.sh("echo works"), "works")
			}
			c.stop(10)
			equal(t, "exit code", c.status().ExitCode, 0)
			checkWriter(t, c.logPath())
			created.remove()
			c.remove()
			other.remove()
			p.remove()
			removeImage(t, ref("test/tags:1"))
			equal(t, "images", len(do(t, img.ListImages, &cri.ListImagesRequest{}).Images), 1)
			d.plenty()
			again := runPod(t)
			equal(t, "with room again", again.output("echo yes"), "yes\n")
			again.remove()
		})
	}
}

// An image that does not fit is refused, and what was unpacked of it goes.
func TestFaultImageThatDoesNotFitLeavesNothing(t *testing.T) {
	leavesNothing(t)
	d := newSmallDisk(t, stateFolder)
	blocks, inodes := d.used()
	d.remount("nr_blocks", 6000)
	checkFull(t, "the error", refused(t, img.PullImage, &cri.PullImageRequest{Image: spec(ref("test/big"))}, codes.ResourceExhausted))
	if nowBlocks, nowInodes := d.used(); nowBlocks > blocks || nowInodes > inodes {
		t.Errorf("%d blocks and %d inodes are used, before %d and %d", nowBlocks, nowInodes, blocks, inodes)
	}
	d.plenty()
	pull(t, "test/big")
}
