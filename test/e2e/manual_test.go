package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// manualCommands reads the commands of a page's examples: the lines that begin with the prompt of root.
func manualCommands(t testing.TB, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var l []string
	example := false
	for _, line := range strings.Split(string(data), "\n") {
		switch {
		case line == ".nf":
			example = true
		case line == ".fi":
			example = false
		case example && strings.HasPrefix(line, "# /"): // a file, as systemctl cat heads it
		case example && strings.HasPrefix(line, "# "):
			l = append(l, strings.NewReplacer(`\-`, "-", `\(dq`, `"`, `\e`, `\`).Replace(line[2:]))
		}
	}
	return l
}

// Each command of the manual's examples does what it should, on a node with the pod that they are about.
func TestManualExamples(t *testing.T) {
	leavesNothing(t)
	pull(t, "test/base")
	p := runPod(t, withNetwork, func(c *cri.PodSandboxConfig) {
		c.Metadata.Namespace, c.Metadata.Name = "shop", "web-0"
	})
	p.run(sh("echo hello; exec sleep 100000"), func(c *cri.ContainerConfig) { c.Metadata.Name = "main" }).waitForLog("hello")
	p.run(sh("exit 3"), func(c *cri.ContainerConfig) { c.Metadata.Name = "job" }).wait()
	pages, _ := filepath.Glob("/usr/share/man/man*/*rktlet*")
	if len(pages) < 9 {
		t.Fatalf("pages installed: %v", pages)
	}
	n := 0
	for _, page := range pages {
		for _, line := range manualCommands(t, page) {
			n++
			// Those that go on until they are interrupted are.
			limit, endless := "60", strings.Contains(line, " monitor ") || strings.Contains(line, " --follow")
			if endless {
				limit = "1"
			}
			out, err := try("timeout", limit, "bash", "-c", line)
			if err != nil && !(endless && err.Error() == "exit status 124") {
				t.Errorf("%s: # %s: %v: %.500s", filepath.Base(page), line, err, out)
			}
			t.Logf("%s: # %s\n%.300s", filepath.Base(page), line, out)
		}
	}
	if n < 30 {
		t.Errorf("only %d commands in the manual", n)
	}
	waitForDaemon(t)
	equal(t, "state of the pod that all were about", p.status().State, cri.PodSandboxState_SANDBOX_READY)
}
