package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The machine is rebooted with pods running, in good order or all of a sudden. These tests come in pairs, with the reboot
// between them (see the script `run`).

const (
	rebootFolder  = "/var/lib/e2e-reboot"
	rebootAddress = "/var/lib/cni/networks/rktlet"
)

// What the first half tells the second.
type rebootState struct {
	Pods                                         map[string]string // names by ID
	Running, Silent, Created, Exited, ExitedText string
	Addresses                                    []string
	Images, LogPath, Boot                        string
	StoppedPod                                   string
	Configs                                      map[string]*cri.PodSandboxConfig
}

func bootID(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func beforeReboot(t *testing.T, orderly bool) {
	_ = os.RemoveAll(rebootFolder)
	state := rebootState{Pods: map[string]string{}, Configs: map[string]*cri.PodSandboxConfig{}}
	run := func(name string, mods ...podMod) *podT {
		config := podConfig(t, append(mods, func(c *cri.PodSandboxConfig) {
			c.LogDirectory = filepath.Join(rebootFolder, name)
			c.Metadata.Name, c.Metadata.Uid = name, "uid-"+name
		})...)
		p := &podT{t: t, config: config, id: do(t, rt.RunPodSandbox, &cri.RunPodSandboxRequest{Config: config}).PodSandboxId}
		state.Pods[p.id], state.Configs[p.id] = name, config
		return p
	}
	networked := run("networked", withNetwork, func(c *cri.PodSandboxConfig) {
		c.PortMappings = []*cri.PortMapping{{ContainerPort: 8080, HostPort: 18082}}
	})
	host, stopped := run("host"), run("stopped", withNetwork)
	stopped.stop()
	state.StoppedPod = stopped.id
	running, silent := networked.run(sh(writer(100, "sleep 0.02"))), host.run()
	created, exited := networked.create(), networked.run(sh("exit 7"))
	exited.wait()
	running.waitForLog(" 500\n")
	state.Running, state.Silent, state.Created, state.Exited = running.id, silent.id, created.id, exited.id
	state.ExitedText, state.LogPath, state.Images = exited.status().String(), running.logPath(), imageNames(t)
	state.Boot = bootID(t)
	st := networked.status()
	state.Addresses = []string{st.Network.Ip}
	for _, ip := range st.Network.AdditionalIps {
		state.Addresses = append(state.Addresses, ip.Ip)
	}
	for _, ip := range state.Addresses {
		if _, err := os.Stat(filepath.Join(rebootAddress, ip)); err != nil {
			t.Error(err)
		}
	}
	if !orderly { // what was pulled in the last seconds may be fetched again after a power cut
		eventually(t, 20*time.Second, "the images are safe on disk", func() error {
			if links, _ := filepath.Glob("/var/lib/rktlet/image/layers/*/unsynced"); len(links) > 0 {
				return fmt.Errorf("%v", links)
			}
			return nil
		})
	}
	data, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(rebootFolder, "state"), string(data), 0o600)
}

func afterReboot(t *testing.T, orderly bool) {
	var state rebootState
	data, err := os.ReadFile(filepath.Join(rebootFolder, "state"))
	if err == nil {
		err = json.Unmarshal(data, &state)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(rebootFolder) })
	if bootID(t) == state.Boot {
		t.Fatal("the machine was not rebooted")
	}
	waitForDaemon(t)

	// All are known, and none runs.
	pods := do(t, rt.ListPodSandbox, &cri.ListPodSandboxRequest{}).Items
	equal(t, "pods", len(pods), len(state.Pods))
	for _, pod := range pods {
		equal(t, "name of the pod", pod.Metadata.Name, state.Pods[pod.Id])
		equal(t, "state of pod "+pod.Metadata.Name, pod.State, cri.PodSandboxState_SANDBOX_NOTREADY)
	}
	equal(t, "containers", len(do(t, rt.ListContainers, &cri.ListContainersRequest{}).Containers), 4)
	status := func(id string) *cri.ContainerStatus {
		return do(t, rt.ContainerStatus, &cri.ContainerStatusRequest{ContainerId: id}).Status
	}
	equal(t, "status of the container that had exited", status(state.Exited).String(), state.ExitedText)
	for what, id := range map[string]string{"running": state.Running, "running and silent": state.Silent, "created": state.Created} {
		st := status(id)
		equal(t, "state of the one that was "+what, st.State, cri.ContainerState_CONTAINER_EXITED)
		if st.FinishedAt < st.CreatedAt || st.FinishedAt > time.Now().UnixNano() || st.Reason == "" || st.Reason == "Completed" && st.ExitCode != 0 {
			t.Errorf("the one that was %s: %v", what, st)
		}
		// Who was ended with the machine by a signal, or was not seen to end, has no success.
		if st.ExitCode == 0 && what != "running" {
			t.Errorf("the one that was %s ended with success: %v", what, st)
		}
		if !orderly && what != "created" && st.Reason != "Unknown" {
			t.Errorf("nobody can know how the one that was %s ended: %v", what, st)
		}
		t.Logf("the one that was %s: %d, %s", what, st.ExitCode, st.Reason)
		refused(t, rt.StartContainer, &cri.StartContainerRequest{ContainerId: id}, codes.FailedPrecondition)
		refused(t, rt.ExecSync, &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{"true"}}, codes.FailedPrecondition)
	}
	equal(t, "images", imageNames(t), state.Images)
	checkBegin(t, state.LogPath, 500)

	// A new pod gets what it needs while the old ones are there, addresses of its own above all.
	fresh := runPod(t, withNetwork)
	equal(t, "output", fresh.output("echo hi"), "hi\n")
	for _, ip := range state.Addresses {
		if fresh.status().Network.Ip == ip {
			t.Errorf("%s belongs to two pods", ip)
		}
	}
	for id := range state.Pods {
		do(t, rt.StopPodSandbox, &cri.StopPodSandboxRequest{PodSandboxId: id})
	}
	for _, ip := range state.Addresses {
		if _, err := os.Stat(filepath.Join(rebootAddress, ip)); err == nil {
			t.Errorf("address %s was not released", ip)
		}
	}
	do(t, rt.RemoveContainer, &cri.RemoveContainerRequest{ContainerId: state.Running})
	for id := range state.Pods {
		do(t, rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: id})
	}
	fresh.remove()
	for _, pattern := range []string{"/var/lib/rktlet/pods/*", "/var/lib/rktlet/containers/*", "/var/lib/rktlet/cni/*/*", rebootAddress + "/[0-9a-f]*", "/run/rktlet/pods/*",
		"/run/rktlet/containers/*", "/run/rktlet/crun/*"} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	if units, _ := try("systemctl", "list-units", "--all", "--plain", "--no-legend", "rktlet-pod-*", "rktlet-ctr-*"); units != "" {
		t.Errorf("left behind: %s", units)
	}
}

// checkBegin looks whether a log that may have been cut off by the end of the machine counts without a gap as far as it goes.
func checkBegin(t testing.TB, path string, least int) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	n := 0
	for _, line := range lines[:len(lines)-1] { // what comes after the last newline is half a line, or nothing
		fields := strings.SplitN(line, " ", 4)
		if len(fields) == 4 && strings.HasPrefix(fields[3], "end ") && fields[3] == "end "+strconv.Itoa(n) {
			continue
		}
		n++
		if len(fields) != 4 || fields[3] != strconv.Itoa(n) {
			t.Fatalf("line %d of the log is %q", n, line)
		}
	}
	if n < least {
		t.Errorf("the log has %d lines, it had %d", n, least)
	}
}

func TestRebootBefore(t *testing.T)   { beforeReboot(t, true) }
func TestRebootAfter(t *testing.T)    { afterReboot(t, true) }
func TestPowerCutBefore(t *testing.T) { beforeReboot(t, false) }
func TestPowerCutAfter(t *testing.T)  { afterReboot(t, false) }
