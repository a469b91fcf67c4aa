package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What the kernel and systemd say, as opposed to what the daemon says.

// command runs a program of the machine; it has to succeed.
func command(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// try is the same where failure is an answer too.
func try(argv ...string) (string, error) {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	return string(out), err
}

// unitProperty reads one property of a unit.
func unitProperty(t testing.TB, unit, name string) string {
	t.Helper()
	return strings.TrimSpace(command(t, "systemctl", "show", "--value", "--property="+name, unit))
}

// unitPIDs lists the processes in a unit's cgroup and those below it.
func unitPIDs(t testing.TB, unit string) []int {
	t.Helper()
	group := unitProperty(t, unit, "ControlGroup")
	var pids []int
	if group == "" {
		return nil
	}
	_ = filepath.WalkDir("/sys/fs/cgroup"+group, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "cgroup.procs" {
			data, _ := os.ReadFile(path)
			for _, field := range strings.Fields(string(data)) {
				pid, _ := strconv.Atoi(field)
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// pid is the container's first process as the machine numbers it.
func (c *ctrT) pid() int {
	c.t.Helper()
	if *engine == "rkt" {
		return c.rktPID()
	}
	pid, err := strconv.Atoi(unitProperty(c.t, c.unit(), "MainPID"))
	if err != nil || pid <= 0 {
		c.t.Fatalf("unit %s has no main process", c.unit())
	}
	return pid
}

// rktPID is the same where the container is an app of rkt's: it has no unit, but a cgroup below that of its pod's.
func (c *ctrT) rktPID() int {
	c.t.Helper()
	group := unitProperty(c.t, c.pod.unit(), "ControlGroup")
	data, err := os.ReadFile("/sys/fs/cgroup" + group + "/payload/system.slice/" + c.id + ".service/cgroup.procs")
	pids := strings.Fields(string(data))
	if err != nil || len(pids) == 0 {
		c.t.Fatalf("container %s has no process: %v", c.id, err)
	}
	pid, _ := strconv.Atoi(pids[0])
	return pid
}

func isAlive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(data), ") Z ")
}

// procStatus reads a field of /proc/PID/status.
func procStatus(text, field string) string {
	for _, line := range strings.Split(text, "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && name == field {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// A footprint is what pods and containers take up in the system, one line a thing.
type footprint map[string]bool

func takeFootprint(t testing.TB) footprint {
	t.Helper()
	f := footprint{}
	add := func(kind, name string) { f[kind+" "+name] = true }

	units, _ := try("systemctl", "list-units", "--all", "--plain", "--no-legend", "--full", "rktlet-*", "kubepods*", "crun-*", "libpod-*")
	for _, line := range strings.Split(units, "\n") {
		if fields := strings.Fields(line); len(fields) > 3 {
			add("unit", fields[0]+" "+fields[2])
		}
	}
	mounts, _ := os.ReadFile("/proc/1/mountinfo")
	for _, line := range strings.Split(string(mounts), "\n") {
		if fields := strings.Fields(line); len(fields) > 4 {
			add("mount", fields[4])
		}
	}
	links, _ := try("ip", "-o", "link")
	for _, line := range strings.Split(links, "\n") {
		if fields := strings.Fields(line); len(fields) > 1 {
			name, _, _ := strings.Cut(fields[1], "@")
			add("link", name)
		}
	}
	for _, pattern := range []string{
		"/run/netns/*", "/var/run/netns/*", "/var/lib/cni/networks/*/[0-9a-f]*", "/var/lib/cni/results/*", "/run/crun/*",
		"/var/lib/rktlet/pods/*", "/var/lib/rktlet/containers/*", "/var/lib/rktlet/image/tmp/*", "/var/lib/rktlet/network/*",
		"/var/lib/rktlet/rkt/pods/run/*", "/var/lib/rktlet/rkt/log/*", "/run/rktlet/*", "/run/rktlet/*/*", "/tmp/*", "/dev/shm/*"} {
		matches, _ := filepath.Glob(pattern)
		for _, match := range matches {
			if !strings.HasPrefix(match, "/tmp/systemd-private-") {
				add("path", match)
			}
		}
	}
	rules, _ := try("iptables-save")
	for _, line := range strings.Split(rules, "\n") {
		if strings.HasPrefix(line, "-A") || strings.HasPrefix(line, ":CNI-") {
			chain, _, _ := strings.Cut(line, " [")
			add("rule", chain)
		}
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (strings.Contains(path, "rktlet-") || strings.Contains(path, "kubepods") || strings.Contains(path, "crun")) {
			add("cgroup", path)
		}
		return nil
	})
	processes, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, p := range processes {
		name, _ := os.ReadFile(p)
		switch text := strings.TrimSpace(string(name)); text {
		case "crun", "rktlet-pod", "rktlet-unpack", "pause", "iptables", "bridge", "host-local":
			add("process", text+" "+p)
		}
	}
	return f
}

func (f footprint) without(other footprint) []string {
	var rest []string
	for line := range f {
		if !other[line] {
			rest = append(rest, line)
		}
	}
	sort.Strings(rest)
	return rest
}

// leavesNothing takes a footprint now, and when the test (with all its clean-up registered later) is done compares: units,
// mounts, interfaces, addresses, rules, folders, cgroups and processes that were not there before are an error, but for
// those that begin as said.
func leavesNothing(t testing.TB, allowed ...string) {
	t.Helper()
	before := takeFootprint(t)
	t.Cleanup(func() {
		t.Helper()
		var left []string
		for deadline := time.Now().Add(3 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			left = takeFootprint(t).without(before)
			// The bridge stays for the next pod, its gateway's rules with it.
			kept := left[:0]
			for _, line := range left {
				switch {
				case slices.ContainsFunc(allowed, func(begin string) bool { return strings.HasPrefix(line, begin) }):
				case strings.HasPrefix(line, "link cni0"), strings.HasPrefix(line, "rule -A POSTROUTING"),
					strings.HasPrefix(line, "rule -A PREROUTING"), strings.HasPrefix(line, "rule -A OUTPUT"),
					strings.HasPrefix(line, "rule :CNI-HOSTPORT-"), strings.HasPrefix(line, "rule -A CNI-HOSTPORT-MASQ"),
					strings.HasPrefix(line, "rule -A CNI-HOSTPORT-SETMARK"):
				default:
					kept = append(kept, line)
				}
			}
			left = kept
			if len(left) == 0 || time.Now().After(deadline) {
				break
			}
		}
		if len(left) > 0 {
			t.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
		}
		if pods := do(t, rt.ListPodSandbox, &cri.ListPodSandboxRequest{}).Items; len(pods) > 0 {
			t.Errorf("%d pods are still listed", len(pods))
			for _, pod := range pods { // so that the tests after this one are about themselves
				_, _ = rt.StopPodSandbox(context.Background(), &cri.StopPodSandboxRequest{PodSandboxId: pod.Id})
				_, _ = rt.RemovePodSandbox(context.Background(), &cri.RemovePodSandboxRequest{PodSandboxId: pod.Id})
			}
		}
		if containers := do(t, rt.ListContainers, &cri.ListContainersRequest{}).Containers; len(containers) > 0 {
			t.Errorf("%d containers are still listed", len(containers))
		}
	})
}

// waitForDaemon returns once the daemon answers again.
func waitForDaemon(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var err error
	for ctx.Err() == nil {
		if _, err = rt.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{}, grpc.WaitForReady(true)); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("the daemon does not come back: %v\n%s", err, journal(*daemonUnit))
}

func daemonPID(t testing.TB) string {
	t.Helper()
	return unitProperty(t, *daemonUnit, "MainPID")
}

func restartDaemon(t testing.TB) {
	t.Helper()
	command(t, "systemctl", "restart", *daemonUnit)
	waitForDaemon(t)
}

// killDaemon ends the daemon as a crash would and waits until systemd has started it again.
func killDaemon(t testing.TB) {
	t.Helper()
	before := daemonPID(t)
	command(t, "systemctl", "kill", "--kill-who=main", "--signal=KILL", *daemonUnit)
	eventually(t, 10*time.Second, "systemd starts the daemon again", func() error {
		if now := daemonPID(t); now == before || now == "0" {
			return fmt.Errorf("main process is %s", now)
		}
		return nil
	})
	waitForDaemon(t)
}

func journal(unit string) string {
	out, _ := try("journalctl", "--no-pager", "--output=cat", "--lines=50", "--unit="+unit)
	return out
}

// daemonStays checks at the test's end that the daemon is still the same process: nothing in the test made it crash.
func daemonStays(t testing.TB) {
	t.Helper()
	before := daemonPID(t)
	t.Cleanup(func() {
		t.Helper()
		if now := daemonPID(t); now != before {
			t.Errorf("the daemon ended and was started again (process %s, was %s):\n%s", now, before, journal(*daemonUnit))
		}
	})
}

func writeFile(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// scratch is a folder of the machine for one test.
func scratch(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(workDir, fmt.Sprintf("scratch-%d", number()))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func readProc(t testing.TB, pid int, name string) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func timeout(limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), limit)
}

// A lockedBuffer collects what a program writes while a test reads it.
type lockedBuffer struct {
	lock sync.Mutex
	data bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.lock.Lock()
	defer b.lock.Unlock()
	return b.data.Write(p)
}

func (b *lockedBuffer) String() string {
	b.lock.Lock()
	defer b.lock.Unlock()
	return b.data.String()
}
