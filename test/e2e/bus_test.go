package e2e

import (
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"sort"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// org.rktlet1 as others on the bus see it.

const manPage = "/usr/share/man/man5/org.rktlet1.5"

// members reads the live introspection of an object's interface, in the words of the manual page.
func members(t testing.TB, object, name string) []string {
	t.Helper()
	type arg struct {
		Name      string `xml:"name,attr"`
		Type      string `xml:"type,attr"`
		Direction string `xml:"direction,attr"`
	}
	var node struct {
		Interfaces []struct {
			Name    string `xml:"name,attr"`
			Methods []struct {
				Name string `xml:"name,attr"`
				Args []arg  `xml:"arg"`
			} `xml:"method"`
			Signals []struct {
				Name string `xml:"name,attr"`
				Args []arg  `xml:"arg"`
			} `xml:"signal"`
			Properties []struct {
				Name   string `xml:"name,attr"`
				Type   string `xml:"type,attr"`
				Access string `xml:"access,attr"`
			} `xml:"property"`
		} `xml:"interface"`
	}
	if err := xml.Unmarshal([]byte(command(t, "busctl", "introspect", "--xml-interface", "org.rktlet1", object)), &node); err != nil {
		t.Fatal(err)
	}
	list := func(args []arg) string {
		var l []string
		for _, a := range args {
			l = append(l, strings.TrimSpace(a.Direction+" "+a.Type+" "+a.Name))
		}
		return strings.Join(l, ", ")
	}
	var l []string
	for _, i := range node.Interfaces {
		if i.Name != name {
			continue
		}
		for _, m := range i.Methods {
			l = append(l, fmt.Sprintf("%s(%s);", m.Name, list(m.Args)))
		}
		for _, s := range i.Signals {
			l = append(l, fmt.Sprintf("signal %s(%s);", s.Name, list(s.Args)))
		}
		for _, p := range i.Properties {
			l = append(l, fmt.Sprintf("%s %s %s;", map[string]string{"read": "readonly", "readwrite": "readwrite"}[p.Access], p.Type, p.Name))
		}
	}
	sort.Strings(l)
	return l
}

// described reads the same from the part of the manual page that begins with the title.
func described(t testing.TB, title string) []string {
	t.Helper()
	data, err := os.ReadFile(manPage)
	if err != nil {
		t.Fatal(err)
	}
	_, part, ok := strings.Cut(string(data), ".SH "+title+"\n")
	if !ok {
		t.Fatalf("%s has no part %q", manPage, title)
	}
	part, _, _ = strings.Cut(part, "\n.SH ")
	l := regexp.MustCompile(`(?m)^(\w+\(.*\);|signal \w+\(.*\);|read\w+ \S+ \w+;)`).FindAllString(part, -1)
	sort.Strings(l)
	return l
}

func containerObject(id string) string { return "/org/rktlet1/container/" + id }
func podObject(id string) string       { return "/org/rktlet1/pod/" + id }
func imageObject(id string) string     { return "/org/rktlet1/image/" + strings.TrimPrefix(id, "sha256:") }

// busGet reads one property as busctl prints it.
func busGet(t testing.TB, object, kind, property string) string {
	t.Helper()
	return strings.TrimSpace(command(t, "busctl", "get-property", "org.rktlet1", object, "org.rktlet1."+kind, property))
}

func TestBusIsWhatTheManualSays(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	image := pull(t, "test/base")
	p := runPod(t)
	c := p.run()
	for _, o := range []struct{ object, iface, title string }{
		{"/org/rktlet1", "org.rktlet1.Manager", "THE MANAGER OBJECT"},
		{podObject(p.id), "org.rktlet1.Pod", "POD OBJECTS"},
		{containerObject(c.id), "org.rktlet1.Container", "CONTAINER OBJECTS"},
		{imageObject(image), "org.rktlet1.Image", "IMAGE OBJECTS"},
		{"/org/freedesktop/LogControl1", "org.freedesktop.LogControl1", "THE LOG CONTROL OBJECT"},
	} {
		got, want := members(t, o.object, o.iface), described(t, o.title)
		if len(got) == 0 || strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s is\n%s\nand the manual says\n%s", o.iface, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	tree := command(t, "busctl", "tree", "org.rktlet1", "--list")
	contains(t, "busctl tree", tree, podObject(p.id), containerObject(c.id), imageObject(image))
}

func TestBusObjectsFollowTheCRI(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, withNetwork, func(c *cri.PodSandboxConfig) { c.Labels = map[string]string{"app": "web"} })
	c := p.run(sh("exit 5"))
	c.wait()
	equal(t, "state", busGet(t, containerObject(c.id), "Container", "State"), `s "exited"`)
	equal(t, "exit code", busGet(t, containerObject(c.id), "Container", "ExitCode"), "i 5")
	equal(t, "reason", busGet(t, containerObject(c.id), "Container", "Reason"), `s "Error"`)
	equal(t, "pod", busGet(t, containerObject(c.id), "Container", "Pod"), fmt.Sprintf("o %q", podObject(p.id)))
	contains(t, "IPs", busGet(t, podObject(p.id), "Pod", "IPs"), fmt.Sprintf("as 2 %q ", p.status().Network.Ip))
	equal(t, "labels", busGet(t, podObject(p.id), "Pod", "Labels"), `a{ss} 1 "app" "web"`)
	equal(t, "containers", busGet(t, podObject(p.id), "Pod", "Containers"), fmt.Sprintf("ao 1 %q", containerObject(c.id)))
	command(t, "busctl", "call", "org.rktlet1", podObject(p.id), "org.rktlet1.Pod", "Remove")
	if pods := do(t, rt.ListPodSandbox, &cri.ListPodSandboxRequest{}).Items; len(pods) != 0 {
		t.Errorf("%d pods are there after Remove", len(pods))
	}
	if out, err := try("busctl", "introspect", "org.rktlet1", podObject(p.id)); err == nil && strings.Contains(out, "org.rktlet1.Pod") {
		t.Errorf("a removed pod is still an object: %s", out)
	}
}

func TestBusTellsOfEverything(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	pull(t, "test/base")
	do(t, img.RemoveImage, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: ref("test/base")}})
	monitor := exec.Command("busctl", "monitor", "--json=short", "org.rktlet1")
	var out lockedBuffer
	monitor.Stdout, monitor.Stderr = &out, &out
	if err := monitor.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = monitor.Process.Kill(); _ = monitor.Wait() }()
	time.Sleep(300 * time.Millisecond) // it says nothing when it is ready

	pull(t, "test/base")
	p := runPod(t)
	c := p.run(sh("exit 3"))
	c.wait()
	p.remove()
	for _, want := range []string{`"image-added"`, `"pod-started"`, `"container-created"`, `"container-started"`, `"container-exited"`,
		`"exit_code":"3"`, `"pod-stopped"`, `"container-removed"`, `"pod-removed"`, "InterfacesAdded", "InterfacesRemoved", "PropertiesChanged",
		podObject(p.id), containerObject(c.id)} {
		eventually(t, 5*time.Second, "a signal says "+want, func() error {
			if !strings.Contains(out.String(), want) {
				return fmt.Errorf("%.3000s", out.String())
			}
			return nil
		})
	}
}

func TestBusIsForRootOnly(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	for _, argv := range [][]string{
		{"call", "org.rktlet1", "/org/rktlet1", "org.rktlet1.Manager", "ListPods"},
		{"call", "org.rktlet1", "/org/rktlet1", "org.rktlet1.Manager", "StopPod", "s", p.id},
		{"get-property", "org.rktlet1", podObject(p.id), "org.rktlet1.Pod", "Name"},
		{"call", "org.rktlet1", "/org/rktlet1", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"},
		{"set-property", "org.rktlet1", "/org/freedesktop/LogControl1", "org.freedesktop.LogControl1", "LogLevel", "s", "debug"},
	} {
		out, err := try(append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "busctl"}, argv...)...)
		if err == nil {
			t.Errorf("nobody may do %v: %s", argv, out)
		}
		lacks(t, "the refusal", out, p.config.Metadata.Name)
	}
	equal(t, "state", p.status().State, cri.PodSandboxState_SANDBOX_READY)
}

func TestBusChangesTheLogLevel(t *testing.T) {
	daemonStays(t)
	equal(t, "log level", strings.TrimSpace(command(t, "systemctl", "service-log-level", *daemonUnit)), "info")
	t.Cleanup(func() { command(t, "systemctl", "service-log-level", *daemonUnit, "info") })
	logged := func(p *podT) bool {
		return strings.Contains(command(t, "journalctl", "--no-pager", "--unit="+*daemonUnit, "--output=cat", "POD_ID="+p.id), "done in")
	}
	command(t, "systemctl", "service-log-level", *daemonUnit, "warning")
	quiet := runPod(t)
	command(t, "systemctl", "service-log-level", *daemonUnit, "debug")
	loud := runPod(t)
	eventually(t, 5*time.Second, "the journal has what the pod's start says", func() error {
		if !logged(loud) {
			return fmt.Errorf("it has not")
		}
		return nil
	})
	if logged(quiet) {
		t.Error("at level warning a start is logged")
	}
	if out, err := try("systemctl", "service-log-level", *daemonUnit, "loud"); err == nil {
		t.Errorf("\"loud\" is taken for a level: %s", out)
	}
}
