package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The daemon as a service of systemd: watched, reloaded, restarted, sandboxed.

// invocationJournal is what the daemon has logged since it was started.
func invocationJournal(t testing.TB) string {
	t.Helper()
	return command(t, "journalctl", "--no-pager", "--output=cat", "_SYSTEMD_INVOCATION_ID="+unitProperty(t, *daemonUnit, "InvocationID"))
}

// override sets something in the daemon's unit for one test, and restarts it.
func override(t testing.TB, text string) {
	t.Helper()
	dir := "/run/systemd/system/" + *daemonUnit + ".d"
	writeFile(t, dir+"/test.conf", text, 0o644)
	reset := func() {
		command(t, "systemctl", "daemon-reload")
		restartDaemon(t)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir); reset() })
	reset()
}

// dropIn writes a file of the daemon's configuration for one test.
func dropIn(t testing.TB, path, text string) {
	t.Helper()
	writeFile(t, path, text, 0o644)
	t.Cleanup(func() { _ = os.Remove(path) })
}

func reloadDaemon(t testing.TB) {
	t.Helper()
	before := strings.Count(invocationJournal(t), "Configuration read again")
	command(t, "systemctl", "reload", *daemonUnit)
	eventually(t, 10*time.Second, "the reload is done", func() error {
		if now := strings.Count(invocationJournal(t), "Configuration read again"); now <= before {
			return errors.New(invocationJournal(t))
		}
		if state := unitProperty(t, *daemonUnit, "ActiveState"); state != "active" {
			return errors.New(state)
		}
		return nil
	})
}

func TestServiceWhoseLoopStandsStillIsRestartedWithNothingLost(t *testing.T) {
	leavesNothing(t)
	c := newPatient(t)
	override(t, "[Service]\nWatchdogSec=3s\n")
	equal(t, "watchdog", unitProperty(t, *daemonUnit, "WatchdogUSec"), "3s")
	// One that turns is left alone.
	pid := daemonPID(t)
	time.Sleep(4 * time.Second)
	equal(t, "process", daemonPID(t), pid)
	command(t, "kill", "-STOP", pid)
	eventually(t, 30*time.Second, "a new one takes over", func() error {
		if now := daemonPID(t); now == pid || now == "0" {
			return fmt.Errorf("main process is %s", now)
		}
		return nil
	})
	waitForDaemon(t)
	contains(t, "journal", command(t, "journalctl", "--no-pager", "--unit="+*daemonUnit, "--lines=100"), "Watchdog timeout")
	c.isWell(t)
	for i, line := range c.running.log() {
		if line.text != "tick" {
			t.Errorf("line %d of the log is %q", i, line.text)
		}
	}
}

func TestServiceReloadTakesOverWhatCanBe(t *testing.T) {
	leavesNothing(t, "path /run/rktlet/runtimes")
	daemonStays(t)
	c := newPatient(t)
	pinned := func() bool {
		return do(t, img.ImageStatus, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: ref("test/base")}}).Image.Pinned
	}
	status := func() *cri.StatusResponse { return do(t, rt.Status, &cri.StatusRequest{}) }
	networkIsReady := func() bool {
		for _, condition := range status().Status.Conditions {
			if condition.Type == "NetworkReady" {
				return condition.Status
			}
		}
		return false
	}
	if pinned() || !networkIsReady() {
		t.Fatal("the image is pinned, or the network not ready, before anything")
	}

	// What systemd sees of it.
	monitor := exec.Command("busctl", "monitor", "--match=type='signal',path='/org/freedesktop/systemd1/unit/rktlet_2eservice'")
	var seen strings.Builder
	monitor.Stdout = &seen
	if err := monitor.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = monitor.Process.Kill(); _ = monitor.Wait() }()
	time.Sleep(300 * time.Millisecond) // until it listens, which it doesn't say

	etc := "/etc/rktlet/rktlet.conf.d/50-test.conf"
	dropIn(t, "/usr/lib/rktlet/rktlet.conf.d/50-test.conf", "[Manager]\nLogLevel=emerg\n") // hidden by the next
	dropIn(t, etc, fmt.Sprintf("[Manager]\nLogLevel=debug\nDefaultSlice=other.slice\nFrobnicate=1\n"+
		"[Image]\nPinnedImages=%s\n[Network]\nCniConfDirectories=/nonexistent\n[Runtime another]\nPath=/usr/bin/crun\n", ref("test/base")))
	reloadDaemon(t)
	log := invocationJournal(t)
	contains(t, "journal", log, "Configuration read again: LogLevel= CniConfDirectories= PinnedImages= [Runtime]",
		"not taken over before rktlet is restarted (which stops no container): DefaultSlice=",
		etc+":4: Unknown key Frobnicate= in section [Manager]")
	if !pinned() {
		t.Error("the image is not pinned")
	}
	if *engine == "native" { // rkt has networks and a runtime of its own
		if networkIsReady() {
			t.Error("the network is ready without a configuration")
		}
		found := false
		for _, handler := range status().RuntimeHandlers {
			found = found || handler.Name == "another"
		}
		if !found {
			t.Errorf("the new runtime is not among %v", status().RuntimeHandlers)
		}
		p := podConfig(t)
		request := &cri.RunPodSandboxRequest{Config: p, RuntimeHandler: "another"}
		pod := &podT{t: t, config: p, id: do(t, rt.RunPodSandbox, request).PodSandboxId}
		equal(t, "output by the new runtime", pod.output("echo hello"), "hello\n")
		pod.remove()
	}
	c.isWell(t)

	// What cannot be read changes nothing.
	writeFile(t, etc, "[Manager]\nLogLevel=err\n\x00", 0o644)
	command(t, "systemctl", "reload", *daemonUnit)
	eventually(t, 10*time.Second, "it says so", func() error {
		if log := invocationJournal(t); !strings.Contains(log, "The configuration was not taken over: Cannot read "+etc) {
			return errors.New(log)
		}
		return nil
	})
	if !pinned() {
		t.Error("the image is not pinned any more")
	}

	_ = os.Remove(etc)
	_ = os.Remove("/usr/lib/rktlet/rktlet.conf.d/50-test.conf")
	reloadDaemon(t)
	if pinned() || !networkIsReady() {
		t.Error("what was configured before does not come back")
	}
	contains(t, "what systemd tells", seen.String(), `"reloading"`)
	contains(t, "status", unitProperty(t, *daemonUnit, "StatusText"), "Serving on")
	c.isWell(t)
}

func TestServiceEndsOrderlyAndIsStartedAgainWhateverHappens(t *testing.T) {
	equal(t, "type", unitProperty(t, *daemonUnit, "Type"), "notify")
	equal(t, "restart", unitProperty(t, *daemonUnit, "Restart"), "always")
	for _, signal := range []string{"KILL", "SEGV", "ABRT", "TERM"} {
		before := daemonPID(t)
		command(t, "systemctl", "kill", "--kill-who=main", "--signal="+signal, *daemonUnit)
		eventually(t, 20*time.Second, "it comes back after SIG"+signal, func() error {
			if now := daemonPID(t); now == before || now == "0" {
				return fmt.Errorf("main process is %s", now)
			}
			return nil
		})
		waitForDaemon(t)
	}
}

// The exposure that units/README.md has on record; it says why it isn't less.
func TestServiceIsSandboxedAsFarAsIsRecorded(t *testing.T) {
	out, _ := try("systemd-analyze", "security", "--no-pager", *daemonUnit)
	m := regexp.MustCompile(`Overall exposure level for rktlet.service: ([0-9.]+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatal(out)
	}
	level, _ := strconv.ParseFloat(m[1], 64)
	if level > 9.3 {
		t.Errorf("the exposure is %v, more than units/README.md says:\n%s", level, out)
	}
	for _, protection := range []string{"PrivateMounts=", "KeyringMode=", "NotifyAccess=", "AmbientCapabilities="} {
		if !regexp.MustCompile(`(?m)^✓ ` + protection).MatchString(out) {
			t.Errorf("%s is not in force:\n%s", protection, out)
		}
	}
	units, _ := filepath.Glob("/usr/lib/systemd/system/rktlet*")
	if len(units) == 0 {
		units, _ = filepath.Glob("/lib/systemd/system/rktlet*")
	}
	out, err := try(append([]string{"systemd-analyze", "verify", "--man=no"}, units...)...)
	if err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("systemd-analyze verify: %v: %s", err, out)
	}
}
