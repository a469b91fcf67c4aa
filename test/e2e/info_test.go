package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The verbose answers: what `crictl info`, `inspectp`, `inspect` and `inspecti` show, under the names that the peers' users
// know.

// parseInfo reads the one JSON object of a verbose answer, as crictl does.
func parseInfo(t testing.TB, info map[string]string, key string) map[string]any {
	t.Helper()
	if len(info) != 1 {
		t.Errorf("info has %d entries", len(info))
	}
	var parsed map[string]any
	if err := json.Unmarshal([]byte(info[key]), &parsed); err != nil {
		t.Fatalf("info[%q] is no JSON object: %v: %.200q", key, err, info[key])
	}
	return parsed
}

// at follows a path of names and, in lists, of "type=network".
func at(t testing.TB, value any, path string) string {
	t.Helper()
	for _, name := range strings.Split(path, "/") {
		var next any
		switch v := value.(type) {
		case map[string]any:
			next = v[name]
		case []any:
			key, want, _ := strings.Cut(name, "=")
			for _, item := range v {
				if o, _ := item.(map[string]any); o != nil && fmt.Sprint(o[key]) == want {
					next = o
				}
			}
		}
		if next == nil {
			t.Errorf("%s: there is no %q", path, name)
			return ""
		}
		value = next
	}
	if f, ok := value.(float64); ok {
		return fmt.Sprintf("%.0f", f)
	}
	return fmt.Sprint(value)
}

func TestInfoOfThePod(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, withNetwork, func(c *cri.PodSandboxConfig) {
		c.Hostname, c.Labels = "web", map[string]string{"app": "x"}
		c.Annotations = map[string]string{"note": "y"}
		c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
	})
	status := func() map[string]any {
		return parseInfo(t, do(t, rt.PodSandboxStatus, &cri.PodSandboxStatusRequest{PodSandboxId: p.id, Verbose: true}).Info, "info")
	}
	info := status()
	pid := unitProperty(t, "rktlet-pod-"+p.id+".service", "MainPID")
	equal(t, "pid", at(t, info, "pid"), pid)
	equal(t, "unit", at(t, info, "unit"), "rktlet-pod-"+p.id+".service")
	equal(t, "slice", at(t, info, "slice"), unitProperty(t, "rktlet-pod-"+p.id+".service", "Slice"))
	equal(t, "handler", at(t, info, "runtimeHandler"), *handler)
	equal(t, "interface", at(t, info, "cniResult/interfaces/name=eth0/name"), "eth0")
	equal(t, "name", at(t, info, "config/metadata/name"), p.config.Metadata.Name)
	equal(t, "label", at(t, info, "config/labels/app"), "x")
	equal(t, "annotation", at(t, info, "config/annotations/note"), "y")
	equal(t, "hostname", at(t, info, "runtimeSpec/hostname"), "web")
	equal(t, "cgroup", at(t, info, "runtimeSpec/linux/cgroupsPath"), unitProperty(t, at(t, info, "slice"), "ControlGroup"))
	// The paths are good for nsenter.
	c := p.run()
	for kind, name := range map[string]string{"network": "net", "uts": "uts", "ipc": "ipc", "pid": "pid"} {
		ours, err := os.Readlink(at(t, info, "runtimeSpec/linux/namespaces/type="+kind+"/path"))
		theirs, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", c.pid(), name))
		if err != nil || ours != theirs {
			t.Errorf("%s namespace is %s (%v), the container's is %s", kind, ours, err, theirs)
		}
	}
	p.stop()
	equal(t, "pid when stopped", at(t, status(), "pid"), "0")
	if info := do(t, rt.PodSandboxStatus, &cri.PodSandboxStatusRequest{PodSandboxId: p.id}).Info; len(info) != 0 {
		t.Error("info although it was not asked for")
	}
}

func TestInfoOfTheContainer(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, func(c *cri.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true })
	c := p.run(func(c *cri.ContainerConfig) {
		c.Envs = []*cri.KeyValue{{Key: "A", Value: []byte("b")}}
		c.Labels = map[string]string{"app": "x"}
	})
	status := func() map[string]any {
		return parseInfo(t, do(t, rt.ContainerStatus, &cri.ContainerStatusRequest{ContainerId: c.id, Verbose: true}).Info, "info")
	}
	info := status()
	equal(t, "pid", at(t, info, "pid"), itoa(int64(c.pid())))
	equal(t, "sandbox", at(t, info, "sandboxID"), p.id)
	equal(t, "unit", at(t, info, "unit"), c.unit())
	equal(t, "cgroup", at(t, info, "cgroup"), unitProperty(t, c.unit(), "ControlGroup"))
	equal(t, "privileged", at(t, info, "privileged"), "false")
	equal(t, "command", at(t, info, "config/command"), "[sleep 100000]")
	equal(t, "label", at(t, info, "config/labels/app"), "x")
	equal(t, "arguments", at(t, info, "runtimeSpec/process/args"), "[sleep 100000]")
	contains(t, "environment", at(t, info, "runtimeSpec/process/env"), "A=b", "PATH=")
	equal(t, "a mount", at(t, info, "runtimeSpec/mounts/type=proc/destination"), "/proc")
	if rootfs := at(t, info, "runtimeSpec/root/path"); !strings.Contains(rootfs, c.id) {
		t.Errorf("root is %s", rootfs)
	}
	equal(t, "image", at(t, info, "imageID"), c.status().ImageId)
	c.stop(0)
	equal(t, "pid when stopped", at(t, status(), "pid"), "0")
	equal(t, "arguments when stopped", at(t, status(), "runtimeSpec/process/args"), "[sleep 100000]")
	q := p.run(privileged)
	equal(t, "privileged", at(t, parseInfo(t, do(t, rt.ContainerStatus, &cri.ContainerStatusRequest{ContainerId: q.id, Verbose: true}).Info, "info"), "privileged"), "true")
}

func TestInfoOfTheImage(t *testing.T) {
	daemonStays(t)
	id := pull(t, "test/base")
	info := parseInfo(t, do(t, img.ImageStatus, &cri.ImageStatusRequest{Image: spec(id), Verbose: true}).Info, "info")
	equal(t, "system", at(t, info, "imageSpec/os"), "linux")
	equal(t, "kind of root", at(t, info, "imageSpec/rootfs/type"), "layers")
	contains(t, "digest", at(t, info, "manifestDigest"), "sha256:")
	if layers, _ := info["layers"].([]any); len(layers) == 0 {
		t.Error("no layers")
	}
}

func TestInfoOfTheRuntime(t *testing.T) {
	daemonStays(t)
	info := parseInfo(t, do(t, rt.Status, &cri.StatusRequest{Verbose: true}).Info, "config")
	equal(t, "cgroup driver", at(t, info, "cgroupDriver"), "systemd")
	equal(t, "network", at(t, info, "network"), "rktlet")
	equal(t, "network's state", at(t, info, "lastCNILoadStatus"), "OK")
	equal(t, "a setting", at(t, info, "settings/Manager/StateDirectory"), "/var/lib/rktlet")
	equal(t, "a runtime", at(t, info, "settings/Runtime runc/Path"), "/usr/sbin/runc")
}
