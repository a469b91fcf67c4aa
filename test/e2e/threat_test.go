package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What an image, a container or a request may try, beyond isolation_test.go and security_test.go.

func TestThreatUserNumbers(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	pull(t, "test/base")
	for _, n := range []int64{1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 1000, -1, -1 << 63} {
		id := &cri.Int64Value{Value: n}
		for name, change := range map[string]func(*cri.LinuxContainerSecurityContext){
			"user":               func(s *cri.LinuxContainerSecurityContext) { s.RunAsUser = id },
			"group":              func(s *cri.LinuxContainerSecurityContext) { s.RunAsUser, s.RunAsGroup = &cri.Int64Value{Value: 1}, id },
			"supplemental group": func(s *cri.LinuxContainerSecurityContext) { s.SupplementalGroups = []int64{n} },
			"name":               func(s *cri.LinuxContainerSecurityContext) { s.RunAsUsername = itoa(n) },
		} {
			t.Run(fmt.Sprint(name, " ", n), func(t *testing.T) {
				contains(t, "the error", refused(t, rt.CreateContainer, p.createRequest(security(change)), codes.InvalidArgument), itoa(n))
			})
		}
	}
}

// CVE-2022-27652 and its like: what is inheritable is gained back by a file's capabilities.
func TestThreatInheritableCapabilitiesOfAnExec(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, privilegedPod)
	for name, mod := range map[string]ctrMod{
		"root":       security(func(s *cri.LinuxContainerSecurityContext) {}),
		"a user":     security(func(s *cri.LinuxContainerSecurityContext) { s.RunAsUser = &cri.Int64Value{Value: 1000} }),
		"privileged": privileged,
	} {
		t.Run(name, func(t *testing.T) {
			c := p.with(t).run(mod)
			equal(t, "CapInh of the container", procStatus(readProc(t, c.pid(), "status"), "CapInh"), strings.Repeat("0", 16))
			equal(t, "CapInh of an exec", procStatus(c.sh("cat /proc/self/status"), "CapInh"), strings.Repeat("0", 16))
			equal(t, "CapAmb of an exec", procStatus(c.sh("cat /proc/self/status"), "CapAmb"), strings.Repeat("0", 16))
		})
	}
}

// CVE-2020-15257: an abstract socket is reached by whoever has the network namespace.
func TestThreatHostNetworkPodReachesNoSocketOfOurs(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	c := p.run()
	logs := p.run(func(c *cri.ContainerConfig) { c.Stdin, c.Tty = true, true })
	defer logs.stop(0)
	equal(t, "network", inode(t, fmt.Sprintf("/proc/%d/ns/net", c.pid())), inode(t, "/proc/1/ns/net"))
	for _, line := range strings.Split(c.sh("cat /proc/net/unix"), "\n") {
		if fields := strings.Fields(line); len(fields) > 7 && strings.HasPrefix(fields[7], "@") && strings.Contains(fields[7], "rktlet") {
			t.Errorf("an abstract socket: %s", line)
		}
	}
	c.sh("test ! -e /run/rktlet && test ! -e /run/systemd && test ! -e /run/dbus && test ! -e /var/lib/rktlet")
	// What can't be seen can't be guessed either: another root's files through /proc belong to other namespaces.
	equal(t, "ways to the host's root", c.sh("ls -d /proc/*/root/run/rktlet 2> /dev/null | wc -l"), "0\n")
}

func TestThreatLogPath(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	elsewhere := scratch(t)
	p := runPod(t)
	logs := p.config.LogDirectory
	make := func(name string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	make("a FIFO", syscall.Mkfifo(logs+"/fifo", 0o600))
	make("a socket's place", syscall.Mknod(logs+"/socket", syscall.S_IFSOCK|0o600, 0))
	make("a device", syscall.Mknod(logs+"/device", syscall.S_IFCHR|0o600, 10<<8|130))
	make("a folder", os.Mkdir(logs+"/folder", 0o755))
	make("a link to a file", os.Symlink(elsewhere+"/stolen", logs+"/link"))
	make("a link to a folder", os.Symlink(elsewhere, logs+"/away"))
	for name, path := range map[string]string{
		"a FIFO": "fifo", "a socket": "socket", "a device": "device", "a folder": "folder", "a link": "link", "through a link": "away/log",
		"up": "../log", "up in the middle": "x/../../log",
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			refused(t, rt.CreateContainer, p.createRequest(func(c *cri.ContainerConfig) { c.LogPath = path }), codes.InvalidArgument, codes.FailedPrecondition)
		})
	}
	t.Run("a link put in its place later", func(t *testing.T) {
		c := p.with(t).run(sh("while :; do echo line; sleep 0.01; done"))
		c.waitForLog("line")
		make("the log", os.Rename(c.logPath(), c.logPath()+".old"))
		make("a link", os.Symlink(elsewhere+"/stolen", c.logPath()))
		refused(t, rt.ReopenContainerLog, &cri.ReopenContainerLogRequest{ContainerId: c.id})
		c.stop(0)
		c.remove()
	})
	if entries, _ := os.ReadDir(elsewhere); len(entries) != 0 {
		t.Errorf("something was written through a link: %v", entries)
	}
}

// A container can make a tree that no path reaches to the end of.
func TestThreatDeepTreeIsRemoved(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	const depth = 5000
	p := runPod(t)
	c := p.run()
	fd, err := syscall.Open("/var/lib/rktlet/containers/"+c.id+"/upper", syscall.O_DIRECTORY|syscall.O_RDONLY, 0)
	for i := 0; i < depth && err == nil; i++ {
		var next int
		if err = syscall.Mkdirat(fd, "d", 0o700); err == nil {
			next, err = syscall.Openat(fd, "d", syscall.O_DIRECTORY|syscall.O_RDONLY, 0)
		}
		_ = syscall.Close(fd)
		fd = next
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = syscall.Close(fd)
	c.stop(0)
	before := rss(t)
	most := peakRSS(t, func() {
		ctx, cancel := timeout(5 * time.Minute)
		defer cancel()
		if _, err := rt.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: c.id}); err != nil {
			t.Error(err)
		}
	})
	if most > before+8<<10 {
		t.Errorf("the daemon grew from %d to %d KiB", before, most)
	}
	if _, err := os.Stat("/var/lib/rktlet/containers/" + c.id); err == nil {
		t.Error("it is still there")
	}
}

// The daemon can open nothing more: an error, and all is as before when it can again.
func TestThreatNoDescriptors(t *testing.T) {
	leavesNothing(t)
	p := runPod(t)
	c := p.run()
	pid := daemonPID(t)
	open := func() int {
		entries, _ := os.ReadDir("/proc/" + pid + "/fd")
		return len(entries)
	}
	limits := strings.Fields(command(t, "prlimit", "--pid", pid, "--nofile", "--noheadings", "--output=SOFT,HARD"))
	limit := func(soft string) { command(t, "prlimit", "--pid", pid, "--nofile="+soft+":"+limits[1]) }
	t.Cleanup(func() { _, _ = try("prlimit", "--pid", pid, "--nofile="+limits[0]+":"+limits[1]) })
	failed := 0
	for more := 1; more <= 12; more++ {
		limit(strconv.Itoa(open() + more))
		config := podConfig(t)
		ctx, cancel := timeout(30 * time.Second)
		answer, err := rt.RunPodSandbox(ctx, podRequest(config))
		if err != nil {
			failed++
			checkRefusal(t, err)
		}
		created, err := rt.CreateContainer(ctx, p.createRequest())
		if err != nil {
			failed++
			checkRefusal(t, err)
		}
		_, err = rt.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"true"}, Timeout: 20})
		if err != nil {
			failed++
			checkRefusal(t, err)
		}
		cancel()
		limit(limits[0])
		if answer != nil {
			(&podT{t: t, id: answer.PodSandboxId, config: config}).remove()
		}
		if created != nil {
			do(t, rt.RemoveContainer, &cri.RemoveContainerRequest{ContainerId: created.ContainerId})
		}
		_ = os.RemoveAll(config.LogDirectory)
		equal(t, "state of the container", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
	}
	if failed == 0 {
		t.Error("nothing failed: the limit was none")
	}
	t.Logf("%d of 36 calls failed", failed)
	equal(t, "an exec afterwards", c.sh("echo works"), "works\n")
	p.output("true")
	equal(t, "containers", len(do(t, rt.ListContainers, &cri.ListContainersRequest{}).Containers), 1)
	equal(t, "the daemon", daemonPID(t), pid)
	// What could not even be removed is out of the way, and goes with the next start.
	restartDaemon(t)
	equal(t, "an exec after a restart", c.sh("echo works"), "works\n")
}

// The daemon can start nothing more. Needs the controller, so it runs in test/uml.
func TestLimitOfTheDaemonsOwnProcesses(t *testing.T) {
	needControllers(t, "pids")
	leavesNothing(t)
	p := runPod(t)
	c := p.run()
	pid := daemonPID(t)
	before := unitProperty(t, *daemonUnit, "TasksMax")
	command(t, "systemctl", "set-property", "--runtime", *daemonUnit, "TasksMax=1")
	t.Cleanup(func() {
		command(t, "systemctl", "set-property", "--runtime", *daemonUnit, "TasksMax="+before)
	})
	// A command in a container begins in the container's cgroup, and is none of the daemon's.
	equal(t, "an exec meanwhile", c.sh("echo works"), "works\n")
	refused(t, img.PullImage, &cri.PullImageRequest{Image: spec(ref("test/docker"))})
	equal(t, "state of the container", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
	command(t, "systemctl", "set-property", "--runtime", *daemonUnit, "TasksMax="+before)
	equal(t, "an exec afterwards", c.sh("echo works"), "works\n")
	pull(t, "test/docker")
	removeImage(t, ref("test/docker"))
	equal(t, "the daemon", daemonPID(t), pid)
	// What it would have needed a process to remove goes with the next start.
	restartDaemon(t)
	equal(t, "an exec after a restart", c.sh("echo works"), "works\n")
}

// Files of ours that others could read, or programs that they could change.
func TestThreatModes(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, withNetwork)
	mapped := runPod(t, userns)
	c := p.run(func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Key: "SECRET", Value: []byte{0xff}}} })
	mapped.run(func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Key: "SECRET", Value: []byte{0xff}}} })
	for _, root := range []string{"/run/rktlet", "/var/lib/rktlet"} {
		_ = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return nil
			}
			info, err := os.Lstat(path)
			if err != nil {
				return nil
			}
			switch mode := info.Mode(); {
			case strings.Contains(path, "/layers/"), strings.HasSuffix(path, "/upper"):
				return filepath.SkipDir // the image's own, below a folder that is closed
			case mode&os.ModeSymlink != 0:
			case mode&os.ModeSocket != 0 && mode.Perm()&0o007 == 0 && info.Sys().(*syscall.Stat_t).Gid == 0:
			case filepath.Base(path) == "metrics.sock" && mode.Perm() == 0o660: // of a group that may read them
			case mode.Perm()&0o022 != 0 && mode&os.ModeSticky == 0:
				t.Errorf("%s can be written by others: %v", path, mode)
			case mode.IsDir() && mode.Perm()&0o044 != 0 && strings.HasPrefix(path, "/run/rktlet") && filepath.Base(path) != "shm":
				t.Errorf("%s can be listed by others: %v", path, mode)
			case mode.IsRegular() && mode.Perm()&0o044 != 0 && strings.Contains(filepath.Base(path), "environment"):
				t.Errorf("%s can be read by others: %v", path, mode)
			case mode.IsRegular() && mode.Perm()&0o044 != 0 && strings.HasSuffix(path, ".json"):
				t.Errorf("%s can be read by others: %v", path, mode)
			}
			return nil
		})
	}
	equal(t, "inside", c.sh("ls /dev/.rktlet* | wc -l"), "2\n")
}
