package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What is on disk: damaged, checked, repaired, of another version.

const stateDir = "/var/lib/rktlet"

// checker runs rktlet --check or --repair and returns its exit code and what it says.
func checker(t testing.TB, option string) (int, string) {
	t.Helper()
	out, err := exec.Command("rktlet", option).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		return exit.ExitCode(), string(out)
	}
	return 0, string(out)
}

func stopDaemon(t testing.TB) {
	t.Helper()
	command(t, "systemctl", "stop", "rktlet.socket", *daemonUnit)
	t.Cleanup(func() { command(t, "systemctl", "start", *daemonUnit); waitForDaemon(t) })
}

func startDaemon(t testing.TB) {
	t.Helper()
	command(t, "systemctl", "start", *daemonUnit)
	waitForDaemon(t)
}

// A patient is a pod with an address, a container that runs, and one that has ended with 7.
type patient struct {
	pod           *podT
	running, done *ctrT
	pid           int
	ip            string
}

func newPatient(t testing.TB) *patient {
	t.Helper()
	p := runPod(t, withNetwork)
	c := &patient{pod: p, running: p.run(sh("while :; do echo tick; sleep 0.1; done")), done: p.run(sh("exit 7"))}
	c.done.wait()
	c.running.waitForLog("tick")
	c.pid, c.ip = c.running.pid(), p.status().Network.Ip
	return c
}

// isWell checks that nothing has been lost.
func (c *patient) isWell(t testing.TB) {
	t.Helper()
	equal(t, "process", c.running.with(t).pid(), c.pid)
	equal(t, "state", c.running.with(t).status().State, cri.ContainerState_CONTAINER_RUNNING)
	equal(t, "output", c.running.with(t).sh("echo well"), "well\n")
	status := c.pod.with(t).status()
	equal(t, "pod's state", status.State, cri.PodSandboxState_SANDBOX_READY)
	equal(t, "pod's name", status.Metadata.Name, c.pod.config.Metadata.Name)
	equal(t, "address", status.Network.Ip, c.ip)
	equal(t, "exit code", c.done.with(t).status().ExitCode, 7)
	equal(t, "image", c.running.with(t).status().Image.Image, c.running.config.Image.Image)
}

func (c *patient) files() map[string]string {
	return map[string]string{
		"pod's state":           filepath.Join(stateDir, "pods", c.pod.id, "state.json"),
		"pod's request":         filepath.Join(stateDir, "pods", c.pod.id, "request.pb"),
		"container's state":     filepath.Join(stateDir, "containers", c.running.id, "state.json"),
		"CNI result":            filepath.Join(stateDir, "cni", c.pod.id+".json"),
		"version":               filepath.Join(stateDir, "version.json"),
		"image store's version": filepath.Join(stateDir, "image", "version.json"),
		"layer":                 filepath.Join(stateDir, "image", "layers", c.layer(), "layer.json"),
	}
}

func (c *patient) layer() string {
	data, _ := os.ReadFile(filepath.Join(stateDir, "containers", c.running.id, "state.json"))
	var state struct{ Layers []string }
	_ = json.Unmarshal(data, &state)
	return state.Layers[0]
}

var damages = map[string]func(path string, data []byte) error{
	"missing": func(path string, data []byte) error { return os.Remove(path) },
	"empty":   func(path string, data []byte) error { return os.WriteFile(path, nil, 0o600) },
	"cut off": func(path string, data []byte) error { return os.WriteFile(path, data[:len(data)/2], 0o600) },
	"flipped": func(path string, data []byte) error {
		flipped := bytes.Clone(data)
		flipped[len(flipped)/3] ^= 0x10
		return os.WriteFile(path, flipped, 0o600)
	},
	"no file": func(path string, data []byte) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
}

func TestStateDamagedIsFoundNamedAndRepaired(t *testing.T) {
	leavesNothing(t)
	c := newPatient(t)
	if code, out := checker(t, "--check"); code != 0 || !strings.Contains(out, "rktlet runs there") || !strings.Contains(out, " 0 damaged") {
		t.Errorf("a check beside the daemon: %d, %s", code, out)
	}
	if code, out := checker(t, "--repair"); code != 8 || !strings.Contains(out, "systemctl stop rktlet.socket rktlet.service") {
		t.Errorf("a repair beside the daemon: %d, %s", code, out)
	}
	stopDaemon(t)
	if code, out := checker(t, "--check"); code != 0 {
		t.Fatalf("something is damaged before anything was: %s", out)
	}
	for way, damage := range damages {
		for what, path := range c.files() {
			data, err := os.ReadFile(path)
			if err == nil {
				err = damage(path, data)
			}
			if err != nil {
				t.Fatal(err)
			}
			code, out := checker(t, "--check")
			if strings.Contains(what, "version") && way == "missing" {
				equal(t, what+", "+way, code, 0) // of before there was one
				_ = os.WriteFile(path, data, 0o600)
				continue
			}
			if code != 4 || !strings.Contains(out, path+": ") || !strings.Contains(out, "Lost: ") || !strings.Contains(out, "With --repair: ") {
				t.Errorf("%s, %s: check: %d, %s", what, way, code, out)
			}
			if code, out = checker(t, "--repair"); code != 1 || !strings.Contains(out, path+": ") || !strings.Contains(out, "Repaired: ") {
				t.Errorf("%s, %s: repair: %d, %s", what, way, code, out)
			}
			if code, out = checker(t, "--check"); code != 0 {
				t.Errorf("%s, %s: check again: %d, %s", what, way, code, out)
			}
		}
		startDaemon(t)
		c.isWell(t)
		command(t, "systemctl", "stop", "rktlet.socket", *daemonUnit)
	}
}

func TestStateDamagedLosesNothingHealthyAtTheStart(t *testing.T) {
	leavesNothing(t, "path "+stateDir+"/containers.damaged", "path "+stateDir+"/pods.damaged")
	c := newPatient(t)
	stopDaemon(t)
	for way, damage := range damages {
		for what, path := range c.files() {
			if what == "CNI result" {
				continue // the state is damaged as well: between the two, they know the pod's addresses
			}
			data, err := os.ReadFile(path)
			if err == nil {
				err = damage(path, data)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		startDaemon(t)
		t.Log(way)
		c.isWell(t)
		command(t, "systemctl", "stop", "rktlet.socket", *daemonUnit)
		if code, out := checker(t, "--repair"); code > 1 {
			t.Errorf("%s: %s", way, out)
		}
	}
	startDaemon(t)
	// A container whose request is gone is lost, and nobody else.
	stopped := c.pod.run(sh("sleep 100000"))
	command(t, "systemctl", "stop", "rktlet.socket", *daemonUnit)
	writeFile(t, filepath.Join(stateDir, "containers", stopped.id, "request.pb"), "\xff\xff", 0o600)
	startDaemon(t)
	c.isWell(t)
	contains(t, "journal", journal(*daemonUnit), "Container "+stopped.id+" is damaged")
	eventually(t, 20e9, "its unit is ended", func() error {
		if out, err := try("systemctl", "is-active", stopped.unit()); err == nil {
			return errors.New(out)
		}
		return nil
	})
	command(t, "rm", "-r", filepath.Join(stateDir, "damaged"))
}

func TestStateOfALaterVersionIsRefused(t *testing.T) {
	leavesNothing(t)
	c := newPatient(t)
	for _, path := range []string{stateDir + "/version.json", stateDir + "/image/version.json"} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		stopDaemon(t)
		writeFile(t, path, `{"version": 1000}`, 0o600)
		if out, err := exec.Command("rktlet").CombinedOutput(); err == nil || !strings.Contains(string(out), "is of version 1000, this rktlet") {
			t.Errorf("it starts on a state it does not know: %v, %s", err, out)
		}
		if out, err := try("systemctl", "start", *daemonUnit); err == nil {
			t.Errorf("the unit starts: %s", out)
		}
		equal(t, "exit status", unitProperty(t, *daemonUnit, "ExecMainStatus"), "78")
		equal(t, "state", unitProperty(t, *daemonUnit, "ActiveState"), "failed")
		command(t, "systemctl", "stop", "rktlet.socket")
		if code, out := checker(t, "--repair"); code != 8 || !strings.Contains(out, "is of version 1000, this rktlet") {
			t.Errorf("it repairs a state it does not know: %d, %s", code, out)
		}
		writeFile(t, path, string(data), 0o600)
		startDaemon(t)
		c.isWell(t)
	}
	// One that was written before there was a version, without checksums, is taken over: as by an update.
	stopDaemon(t)
	_ = os.Remove(stateDir + "/version.json")
	_ = os.Remove(stateDir + "/image/version.json")
	for _, pattern := range []string{"pods/*/state.json", "containers/*/state.json", "image/layers/*/layer.json", "image/images/*.json", "cni/*.json"} {
		paths, _ := filepath.Glob(filepath.Join(stateDir, pattern))
		if len(paths) == 0 {
			t.Errorf("there is no %s", pattern)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var o map[string]json.RawMessage
			if err := json.Unmarshal(data, &o); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			delete(o, "crc32")
			delete(o, "request_crc32")
			data, _ = json.Marshal(o)
			writeFile(t, path, string(data), 0o600)
		}
	}
	startDaemon(t)
	c.isWell(t)
	log := command(t, "journalctl", "--no-pager", "_SYSTEMD_INVOCATION_ID="+unitProperty(t, *daemonUnit, "InvocationID"))
	contains(t, "journal", log, "1 pods and 2 containers found")
	lacks(t, "journal", log, "damaged")
	if _, err := os.Stat(stateDir + "/version.json"); err != nil {
		t.Error(err)
	}
}
