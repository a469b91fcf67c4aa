package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// An orderly end of the machine with 20 pods. The tests are a pair, with the reboot between them (see the script `run`).

const (
	shutdownFolder = "/var/lib/e2e-shutdown"
	shutdownPods   = 20
	shutdownWork   = 2                // seconds that a container takes to end
	shutdownGrace  = 10 * time.Second // UnitStopTimeoutSec=
)

type shutdownState struct {
	Begin      int64             // when the machine was told to go down, about
	Containers map[string]string // kinds by ID
	Pods       []string
}

// stamp reads what `date +%s%N` wrote.
func stamp(t testing.TB, name string) int64 {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(shutdownFolder, name))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestShutdownBefore(t *testing.T) {
	_ = os.RemoveAll(shutdownFolder)
	state := shutdownState{Containers: map[string]string{}}
	// Stands for the machine's network: it is up before network.target and told to end after it.
	writeFile(t, "/run/systemd/system/e2e-network.service", "[Unit]\nBefore=network.target\nWants=network.target\nAfter=local-fs.target\n[Service]\nType=oneshot\n"+
		"RemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/bin/sh -c 'date +%%s%%N >"+shutdownFolder+"/network'\n", 0o644)
	writeFile(t, shutdownFolder+"/.keep", "", 0o644)
	command(t, "systemctl", "daemon-reload")
	command(t, "systemctl", "start", "e2e-network.service")
	for i := range shutdownPods {
		mods := []podMod{func(c *cri.PodSandboxConfig) {
			c.LogDirectory = filepath.Join(shutdownFolder, fmt.Sprint(i))
			c.Metadata.Name, c.Metadata.Uid = fmt.Sprintf("shutdown-%d", i), fmt.Sprintf("uid-shutdown-%d", i)
		}}
		if i%2 == 0 {
			mods = append(mods, withNetwork)
		}
		config := podConfig(t, mods...)
		p := &podT{t: t, config: config, id: do(t, rt.RunPodSandbox, &cri.RunPodSandboxRequest{Config: config}).PodSandboxId}
		state.Pods = append(state.Pods, p.id)
		// They take their time to end, and then say so; one in five takes no notice of the signal.
		kind, script := "orderly", fmt.Sprintf("trap 'sleep %d; echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done", shutdownWork)
		if i%5 == 0 {
			kind, script = "stubborn", "trap '' TERM; echo up; while :; do sleep 0.1; done"
		}
		c := p.run(sh(script))
		c.waitForLog("up")
		state.Containers[c.id] = kind
	}
	state.Begin = time.Now().UnixNano()
	data, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(shutdownFolder, "state"), string(data), 0o600)
}

func TestShutdownAfter(t *testing.T) {
	var state shutdownState
	data, err := os.ReadFile(filepath.Join(shutdownFolder, "state"))
	if err == nil {
		err = json.Unmarshal(data, &state)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(shutdownFolder) })
	waitForDaemon(t)
	network := stamp(t, "network")
	var st syscall.Stat_t
	if err := syscall.Stat("/proc/1", &st); err != nil {
		t.Fatal(err)
	}
	down := st.Ctim.Nano() // the new PID 1
	last := int64(0)
	for id, kind := range state.Containers {
		s := do(t, rt.ContainerStatus, &cri.ContainerStatusRequest{ContainerId: id}).Status
		// Its end was seen, and so is known now.
		want := map[string]int32{"orderly": 3, "stubborn": 137}[kind]
		if s.State != cri.ContainerState_CONTAINER_EXITED || s.ExitCode != want {
			t.Errorf("the %s one is %v with %d (%s), not exited with %d", kind, s.State, s.ExitCode, s.Reason, want)
		}
		last = max(last, s.FinishedAt)
		if kind == "orderly" {
			if text := joinLog(readLog(t, s.LogPath), "stdout"); !strings.HasSuffix(text, "bye\n") {
				t.Errorf("the log of the orderly one ends with %q", text)
			}
		}
		if took := time.Duration(s.FinishedAt - state.Begin); took > shutdownGrace+5*time.Second*time.Duration(*slow) {
			t.Errorf("the %s one took %v to end", kind, took)
		}
	}
	if network < last {
		t.Errorf("the network went %v before the last container", time.Duration(last-network))
	}
	took := time.Duration(down - state.Begin)
	t.Logf("%d pods: the last container ended after %v, the network after %v, the machine was up again after %v", shutdownPods,
		time.Duration(last-state.Begin), time.Duration(network-state.Begin), took)
	if took > shutdownGrace+15*time.Second*time.Duration(*slow) {
		t.Errorf("it took %v until the machine was up again", took)
	}
	for _, id := range state.Pods {
		do(t, rt.StopPodSandbox, &cri.StopPodSandboxRequest{PodSandboxId: id})
		do(t, rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: id})
	}
}
