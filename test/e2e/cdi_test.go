package e2e

import (
	"os"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Devices by the Container Device Interface.

func cdi(names ...string) ctrMod {
	return func(c *cri.ContainerConfig) {
		for _, name := range names {
			c.CDIDevices = append(c.CDIDevices, &cri.CDIDevice{Name: name})
		}
	}
}

// cdiFile puts a file into a folder of specifications for one test.
func cdiFile(t testing.TB, path, text string) {
	t.Helper()
	writeFile(t, path, text, 0o644)
	t.Cleanup(func() { _ = os.Remove(path) })
}

func TestCDIDevices(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	dir := scratch(t)
	writeFile(t, dir+"/library/file", "from the vendor\n", 0o644)
	cdiFile(t, "/etc/cdi/e2e.json", `{"cdiVersion": "1.0.0", "kind": "e2e.example/net", "annotations": {"any": "thing"},
		"devices": [
			{"name": "tun", "containerEdits": {"env": ["TUN=yes", "BOTH=cdi"], "deviceNodes": [{"path": "/dev/cdi/tun", "hostPath": "/dev/net/tun", "permissions": "r"}]}},
			{"name": "open", "containerEdits": {"deviceNodes": [{"path": "/dev/open", "type": "c", "major": 10, "minor": 229}], "additionalGids": [4711]}},
			{"name": "missing", "containerEdits": {"deviceNodes": [{"path": "/dev/no-such-device"}]}},
			{"name": "late", "containerEdits": {"hooks": [{"hookName": "poststop", "path": "/bin/true"}]}}],
		"containerEdits": {"env": ["ALL=yes"], "mounts": [{"hostPath": "`+dir+`/library", "containerPath": "/usr/lib/vendor", "options": ["ro", "nosuid", "nodev", "rbind"]}],
			"hooks": [{"hookName": "createRuntime", "path": "/bin/sh", "args": ["sh", "-c", "cat > `+dir+`/state; echo $HOOK >> `+dir+`/hook"], "env": ["HOOK=ran"]}]}}`)
	cdiFile(t, "/var/run/cdi/e2e.yaml", `cdiVersion: 0.5.0
kind: e2e.example/plain
devices:
- name: "0"
  containerEdits:
    env:
    - PLAIN=yes
`)
	p := runPod(t)
	t.Run("one", func(t *testing.T) {
		c := p.with(t).run(cdi("e2e.example/net=tun"), env("BOTH=request"))
		equal(t, "environment", c.sh("echo $TUN $ALL $BOTH"), "yes yes cdi\n")
		equal(t, "mount", c.sh("cat /usr/lib/vendor/file; touch /usr/lib/vendor/x 2> /dev/null || echo denied"), "from the vendor\ndenied\n")
		equal(t, "device", c.sh("stat -c '%t:%T' /dev/cdi/tun; (: < /dev/cdi/tun) && echo read; (: > /dev/cdi/tun) 2> /dev/null || echo no more"), "a:c8\nread\nno more\n")
		if data, _ := os.ReadFile(dir + "/hook"); string(data) != "ran\n" {
			t.Errorf("the hook wrote %q", data)
		}
		if data, _ := os.ReadFile(dir + "/state"); len(data) == 0 {
			t.Error("the hook got no state")
		} else {
			contains(t, "its state", string(data), c.id)
		}
	})
	t.Run("several", func(t *testing.T) {
		c := p.with(t).run(cdi("e2e.example/net=open", "e2e.example/plain=0", "e2e.example/net=tun", "e2e.example/net=open"))
		equal(t, "environment", c.sh("echo $TUN $ALL $PLAIN"), "yes yes yes\n")
		c.sh(": > /dev/open")
		contains(t, "groups", procStatus(readProc(t, c.pid(), "status"), "Groups"), "4711")
		contains(t, "groups of an exec", c.sh("id -G"), "4711")
	})
	t.Run("in a user namespace", func(t *testing.T) {
		if *handler == "runc" {
			t.Skip("runc binds a device there from the same path of the host, whatever its numbers")
		}
		equal(t, "output", runPod(t, userns).output("cat /usr/lib/vendor/file; echo $TUN; test -c /dev/cdi/tun && echo there", cdi("e2e.example/net=tun")), "from the vendor\nyes\nthere\n")
	})
	t.Run("privileged", func(t *testing.T) {
		equal(t, "output", runPod(t, privilegedPod).output("test -c /dev/cdi/tun && echo $TUN", privileged, cdi("e2e.example/net=tun")), "yes\n")
	})
	t.Run("a later folder wins, one file and another don't", func(t *testing.T) {
		cdiFile(t, "/etc/cdi/other.json", `{"cdiVersion": "0.3.0", "kind": "e2e.example/plain", "devices": [{"name": "0", "containerEdits": {"env": ["PLAIN=no"]}}]}`)
		equal(t, "environment", p.with(t).output("echo $PLAIN", cdi("e2e.example/plain=0")), "yes\n")
		cdiFile(t, "/var/run/cdi/second.json", `{"cdiVersion": "0.3.0", "kind": "e2e.example/plain", "devices": [{"name": "0", "containerEdits": {"env": ["PLAIN=no"]}}]}`)
		contains(t, "the error", refused(t, rt.CreateContainer, p.createRequest(cdi("e2e.example/plain=0")), codes.FailedPrecondition), "two files", "second.json", "e2e.yaml")
	})
	for name, c := range map[string]struct {
		device string
		code   codes.Code
		words  string
	}{
		"an unknown device":             {"e2e.example/net=none", codes.FailedPrecondition, "/etc/cdi"},
		"an unknown kind":               {"nobody.example/x=y", codes.FailedPrecondition, "nobody.example/x=y"},
		"a device that the host hasn't": {"e2e.example/net=missing", codes.FailedPrecondition, "/dev/no-such-device"},
		"a hook of the end":             {"e2e.example/net=late", codes.FailedPrecondition, "poststop"},
		"no name":                       {"", codes.InvalidArgument, "VENDOR/CLASS=NAME"},
		"half a name":                   {"e2e.example/net", codes.InvalidArgument, "VENDOR/CLASS=NAME"},
		"a path":                        {"../../etc=passwd", codes.InvalidArgument, "VENDOR/CLASS=NAME"},
	} {
		t.Run("refused: "+name, func(t *testing.T) {
			contains(t, "the error", refused(t, rt.CreateContainer, p.createRequest(cdi(c.device)), c.code), c.words)
		})
	}
	t.Run("a file that can't be understood is named", func(t *testing.T) {
		cdiFile(t, "/etc/cdi/broken.yaml", "cdiVersion: 1.0.0\nkind: e2e.example/broken\ndevices: &x [*x]\n")
		contains(t, "the error", refused(t, rt.CreateContainer, p.createRequest(cdi("e2e.example/broken=a")), codes.FailedPrecondition), "broken.yaml")
		equal(t, "the others are there", p.with(t).output("echo $PLAIN", cdi("e2e.example/plain=0")), "yes\n")
	})
	t.Run("an annotation asks for nothing", func(t *testing.T) {
		equal(t, "environment", p.with(t).output("echo \"$PLAIN\"", func(c *cri.ContainerConfig) {
			c.Annotations = map[string]string{"cdi.k8s.io/vendor": "e2e.example/plain=0"}
		}), "\n")
	})
}
