package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The process of a pod dies, under load: systemd starts it again with all it had.

func mainPID(t testing.TB, unit string) int {
	t.Helper()
	pid, err := strconv.Atoi(unitProperty(t, unit, "MainPID"))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// killPodProcesses ends the processes of pods, all at once, and waits until systemd has started others.
func killPodProcesses(t testing.TB, pods []*podT) {
	t.Helper()
	before := map[*podT]int{}
	for _, p := range pods {
		before[p] = mainPID(t, p.unit())
	}
	for _, p := range pods {
		if err := syscall.Kill(before[p], syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	for _, p := range pods {
		eventually(t, 10*time.Second, "systemd starts it again", func() error {
			if now := mainPID(t, p.unit()); now == 0 || now == before[p] || unitProperty(t, p.unit(), "ActiveState") != "active" {
				return fmt.Errorf("main process is %d, was %d", now, before[p])
			}
			return nil
		})
	}
}

func TestFaultPodProcessesKilledUnderLoadLoseNothing(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	var pods []*podT
	var containers, writers []*ctrT
	for i := range 10 {
		kinds := [][]podMod{nil, {withNetwork}, {withNetwork, func(c *cri.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
		}}}
		p := runPod(t, kinds[i%len(kinds)]...)
		pods = append(pods, p)
		writers = append(writers, p.run(sh(writer(300, "sleep 0.01"))))
	}
	const echo = `echo ready; while read -r line; do echo "got $line"; done`
	terminal := pods[1].run(sh(echo), withStdin(false), func(c *cri.ContainerConfig) { c.Tty = true })
	input := pods[2].run(sh(echo), withStdin(false))
	containers = append(append(containers, writers...), terminal, input)
	for _, c := range writers {
		c.waitForLog(" 1000\n")
	}
	alive := survivors(containers...)
	connect := transports[1].make
	var networks []string
	for _, p := range pods {
		networks = append(networks, p.status().Network.String())
	}
	const kills = 4
	for i := range kills {
		watching := attach(t, connect, terminal, true, true)
		_, _ = fmt.Fprintf(watching.in, "before %d\n", i)
		watching.expect(t, fmt.Sprintf("got before %d", i))
		killPodProcesses(t, pods)
		checkSurvivors(t, alive)
		// The stream of a process that died ends; it can be had anew at once.
		watching.cancel()
		for _, c := range []*ctrT{terminal, input} {
			again := attach(t, connect, c, c.config.Tty, true)
			_, _ = fmt.Fprintf(again.in, "after %d\n", i)
			again.expect(t, fmt.Sprintf("got after %d", i))
			again.cancel()
		}
	}
	for i, p := range pods {
		st := p.status()
		equal(t, "state of the pod", st.State, cri.PodSandboxState_SANDBOX_READY)
		equal(t, "network", st.Network.String(), networks[i])
		equal(t, "state of the container", writers[i].status().State, cri.ContainerState_CONTAINER_RUNNING)
		contains(t, "exec", writers[i].sh("echo works"), "works")
		another := p.run(sh("echo hello"))
		equal(t, "exit code of another container", another.wait().ExitCode, 0)
		equal(t, "its log", another.text("stdout"), "hello\n")
	}
	lines := 0
	for _, c := range writers {
		c.stop(10)
		equal(t, "exit code", c.status().ExitCode, 0)
		lines += checkWriter(t, c.logPath())
	}
	for _, p := range pods {
		p.remove()
	}
	for _, s := range alive {
		if isAlive(s.process) {
			t.Errorf("container %s lives on after its removal", s.id)
		}
	}
	t.Logf("%d kills of the processes of %d pods: %d lines, none lost", kills, len(pods), lines)
}

// The folder of the logs is full for a while: containers wait, and go on when there is room.
func TestFaultLogsOnAFullDiskLoseNothing(t *testing.T) {
	leavesNothing(t)
	p := runPod(t)
	folder := p.config.LogDirectory
	command(t, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder)
	unmount := func() { _, _ = try("umount", folder) }
	defer unmount()
	c := p.run(sh(writer(1000, ":")))
	stuck := p.run(sh("exec sleep 10000"))
	full := func() error {
		var s syscall.Statfs_t
		if err := syscall.Statfs(folder, &s); err != nil || s.Bfree > 0 {
			return fmt.Errorf("%d blocks are free (%v)", s.Bfree, err)
		}
		return nil
	}
	eventually(t, 20*time.Second, "the log's disk is full", full)
	for i := range 3 {
		equal(t, "state", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
		if i == 1 {
			killPodProcesses(t, []*podT{p})
		}
		if i == 2 {
			killDaemonNow(t)
		}
		command(t, "mount", "-o", fmt.Sprintf("remount,size=%dm", 2+i), folder)
		eventually(t, 20*time.Second, "the log goes on until it is full again", full)
	}
	// A container that has nothing to write is stopped while nothing can be written.
	begin := time.Now()
	stuck.stop(0)
	if took := time.Since(begin); took > 10*time.Second*time.Duration(*slow) {
		t.Errorf("StopContainer took %v", took)
	}
	command(t, "mount", "-o", "remount,size=64m", folder)
	c.stop(30)
	equal(t, "exit code", c.status().ExitCode, 0)
	lines := checkWriter(t, c.logPath())
	t.Logf("%d lines, none lost", lines)
	c.remove()
	stuck.remove()
	// No inode for a new log: the container is refused, and made when there is one.
	d := &smallDisk{t, folder}
	_, inodes := d.used()
	d.remount("nr_inodes", inodes)
	request := p.createRequest()
	checkFull(t, "the error", refused(t, rt.CreateContainer, request, codes.ResourceExhausted))
	d.remount("nr_inodes", inodes+10)
	do(t, rt.RemoveContainer, &cri.RemoveContainerRequest{ContainerId: do(t, rt.CreateContainer, request).ContainerId})
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		_ = os.Remove(filepath.Join(folder, e.Name()))
	}
}
