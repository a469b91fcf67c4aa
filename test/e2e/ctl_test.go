package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// rktletctl as a person and as a script use it. Each of its commands is here.

type ctlResult struct {
	out, err string
	code     int
}

// ctl runs rktletctl, not on a terminal.
func ctl(t testing.TB, input string, argv ...string) ctlResult {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command("rktletctl", argv...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errs
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Run()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
	return ctlResult{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// ctlOK has to succeed; its output is returned.
func ctlOK(t testing.TB, argv ...string) string {
	t.Helper()
	r := ctl(t, "", argv...)
	if r.code != 0 {
		t.Fatalf("rktletctl %s: exit code %d: %s%s", strings.Join(argv, " "), r.code, r.out, r.err)
	}
	return r.out
}

// onTerminal runs a command line on a terminal that sees the input typed; without carriage returns.
func onTerminal(t testing.TB, input, line string) (string, int) {
	t.Helper()
	cmd := exec.Command("timeout", "40", "script", "--quiet", "--return", "--command", line, "/dev/null")
	cmd.Env = append(os.Environ(), "TERM=xterm", "SYSTEMD_PAGER=cat")
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(out), "\r", ""), cmd.ProcessState.ExitCode()
}

func ctlJSON[T any](t testing.TB, argv ...string) T {
	t.Helper()
	var v T
	out := ctlOK(t, argv...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return v
}

func TestCtlLists(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, withNetwork, func(c *cri.PodSandboxConfig) { c.Metadata.Namespace, c.Metadata.Name = "shop", "web-0" })
	running := p.run(func(c *cri.ContainerConfig) { c.Metadata.Name = "main" })
	ended := p.run(sh("exit 3"), func(c *cri.ContainerConfig) { c.Metadata.Name = "job" })
	ended.wait()

	contains(t, "list-pods", ctlOK(t, "list-pods"), "ID NAMESPACE NAME STATE AGE IP UNIT\n", p.id+" shop web-0 ready ", p.status().Network.Ip+" "+p.unit()+"\n")
	equal(t, "the default", ctlOK(t, "--no-legend"), ctlOK(t, "--no-legend", "list-pods"))
	contains(t, "list-containers", ctlOK(t, "list-containers"), running.id+" "+p.id+" main running ", " job exited(3) ")
	contains(t, "list-images", ctlOK(t, "list-images"), " "+ref("test/base")+" ")
	pods := ctlJSON[[]map[string]any](t, "list-pods", "--json=short")
	equal(t, "pods", len(pods), 1)
	equal(t, "id", pods[0]["id"].(string), p.id)
	for _, c := range ctlJSON[[]map[string]any](t, "list-containers", "-j") {
		if c["id"] == ended.id {
			equal(t, "exit code", c["exit_code"].(float64), 3)
		}
	}
	if len(ctlJSON[[]map[string]any](t, "list-images", "--json=pretty")) == 0 {
		t.Error("no images in JSON")
	}

	out, code := onTerminal(t, "", "rktletctl list-pods")
	equal(t, "exit code", code, 0)
	contains(t, "the table on a terminal", out, "\033[0;1;32mready\033[0m", "\n1 pods listed.\n", p.id[:12]+" shop")
	lacks(t, "the table on a terminal", out, p.id)
	out, _ = onTerminal(t, "", "SYSTEMD_PAGER='sed s/^/paged:/' rktletctl list-pods --no-legend")
	contains(t, "what goes through the pager", out, "paged:"+p.id[:12])
	out, _ = onTerminal(t, "", "SYSTEMD_PAGER='sed s/^/paged:/' rktletctl list-pods --no-legend --no-pager")
	lacks(t, "what does not go through the pager", out, "paged:")
	nobody, err := try("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "rktletctl", "list-pods")
	if err == nil || !strings.Contains(nobody, "Only root may look at rktlet") || strings.Contains(nobody, p.id) {
		t.Errorf("nobody sees %q (%v)", nobody, err)
	}
	out, _ = onTerminal(t, "", "SYSTEMD_COLORS=0 rktletctl list-containers --no-legend --full")
	contains(t, "without colours", out, ended.id)
	lacks(t, "without colours", out, "\033[", "listed.")
}

func TestCtlStatusShowCat(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, func(c *cri.PodSandboxConfig) {
		c.Metadata.Namespace, c.Metadata.Name = "shop", "web-0"
		c.Labels = map[string]string{"app": "web"}
	})
	c := p.run(sh("echo hello; echo oops >&2; exec sleep 1000"), func(c *cri.ContainerConfig) { c.Metadata.Name = "main" })
	c.waitForLog("oops")

	contains(t, "status", ctlOK(t, "status"), "State: serving", "Pods: 1", "Containers: 1", "systemd: 252")
	// By ID, a beginning of it, the unit and the names.
	for _, name := range []string{p.id, p.id[:8], p.unit(), "rktlet-pod-" + p.id, "shop/web-0", "web-0"} {
		contains(t, "status "+name, ctlOK(t, "status", name), "● shop/web-0 - pod\n", "State: ready", p.unit(), "main running")
	}
	for _, name := range []string{c.id, c.id[:8], c.unit(), "shop/web-0/main", "main"} {
		contains(t, "status "+name, ctlOK(t, "status", name), "● shop/web-0/main - container\n", "State: running", "\nhello\noops\n")
	}
	contains(t, "status of an image", ctlOK(t, "status", ref("test/base")), "Tags: "+ref("test/base"))
	lacks(t, "status -n 0", ctlOK(t, "status", "-n", "0", c.id), "hello")
	contains(t, "show", ctlOK(t, "show", p.id, c.id), "Labels.app=web\n", "State=ready\n", "State=running\n", "Unit="+c.unit()+"\n")
	equal(t, "show in JSON", ctlJSON[map[string]any](t, "show", "--json=short", c.id)["PodId"].(string), p.id)
	contains(t, "show without a name", ctlOK(t, "show"), "StateDirectory=/var/lib/rktlet\n")
	contains(t, "cat", ctlOK(t, "cat", p.id, c.id), "# /run/systemd/transient/"+p.unit()+"\n", "ExecStart=", "# /run/rktlet/containers/"+c.id+"/config.json\n", `"ociVersion"`)

	equal(t, "exit code for what isn't there", ctl(t, "", "status", "nothing").code, 4)
	equal(t, "exit code for what isn't there", ctl(t, "", "show", "nothing").code, 4)
	c.stop(0)
	r := ctl(t, "", "status", c.id)
	equal(t, "exit code for what has ended", r.code, 3)
	contains(t, "status of what has ended", r.out, "○ ", "Exit code: 137 (Error)")
}

func TestCtlLogs(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	c := p.run(sh("i=0; while [ $i -lt 5 ]; do i=$((i+1)); echo line $i; done; printf 'a long one '; head -c 20000 /dev/zero | tr '\\0' x; echo; while ! [ -e /go ]; do sleep 0.05; done; echo after; exit 4"))
	c.waitForLog(" F xx")
	lines := strings.Split(strings.TrimSuffix(ctlOK(t, "logs", c.id), "\n"), "\n")
	equal(t, "lines", len(lines), 6)
	equal(t, "the first", lines[0], "line 1")
	equal(t, "the long one", len(lines[5]), 11+20000)
	equal(t, "the pod stands for its container", ctlOK(t, "logs", p.id), ctlOK(t, "logs", c.id))
	if out := ctlOK(t, "logs", "--timestamps", "-n", "7", c.id); !regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT[0-9:.]+(Z|[-+][0-9:]+) line 1$`).MatchString(out) {
		t.Errorf("no time in %.300s", out)
	}

	// Followed over a rotation, until its end.
	var out lockedBuffer
	follow := exec.Command("rktletctl", "logs", "-f", "--lines=0", c.id)
	follow.Stdout, follow.Stderr = &out, &out
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond) // until it follows; what it missed would be a failure below
	if err := os.Rename(c.logPath(), c.logPath()+".1"); err != nil {
		t.Fatal(err)
	}
	do(t, rt.ReopenContainerLog, &cri.ReopenContainerLogRequest{ContainerId: c.id})
	c.sh("touch /go")
	done := make(chan error, 1)
	go func() { done <- follow.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("logs -f: %v", err)
		}
	case <-time.After(20 * time.Second):
		_ = follow.Process.Kill()
		t.Fatalf("logs -f does not end with the container: %s", out.String())
	}
	equal(t, "what was followed", out.String(), "after\n")
	equal(t, "exit code for what isn't there", ctl(t, "", "logs", "nothing").code, 4)
}

func TestCtlExecAndShell(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, func(c *cri.PodSandboxConfig) { c.Metadata.Namespace, c.Metadata.Name = "shop", "web-0" })
	c := p.run(func(c *cri.ContainerConfig) { c.Metadata.Name = "main" })
	r := ctl(t, "", "exec", "shop/web-0/main", "sh", "-c", "echo out; echo err >&2; exit 9")
	equal(t, "result of exec", r, ctlResult{"out\n", "err\n", 9})
	r = ctl(t, "typed in\n", "exec", "-i", c.id, "cat")
	equal(t, "result of exec -i", r, ctlResult{"typed in\n", "", 0})
	r = ctl(t, "", "exec", c.id, "sh", "-c", "head -c 3000000 /dev/zero")
	equal(t, "bytes", len(r.out), 3000000)
	r = ctl(t, "", "exec", c.id, "/no/such/command")
	equal(t, "exit code of what isn't there", r.code, 1)
	contains(t, "why", r.err, "/no/such/command")
	equal(t, "exit code in a container that isn't there", ctl(t, "", "exec", "nothing", "true").code, 4)

	out, code := onTerminal(t, "", "rktletctl exec --tty "+c.id+" sh -c 'tty; stty size 2>/dev/null; exit 5'")
	equal(t, "exit code", code, 5)
	contains(t, "on a terminal", out, "/dev/pts/")
	out, code = onTerminal(t, "echo $((40 + 2)) $0\nexit 6\n", "rktletctl shell "+c.unit())
	equal(t, "exit code of the shell", code, 6)
	contains(t, "shell", out, "42 sh")
	out, _ = onTerminal(t, "\x1d\x1d\x1d", "rktletctl shell "+c.unit())
	contains(t, "^] three times", out, "Disconnected.")

	// Whoever is gone takes the command along.
	cmd := exec.Command("rktletctl", "exec", c.id, "sleep", "4242")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sleeps := func() int {
		return strings.Count(c.sh("for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done"), "sleep 4242")
	}
	eventually(t, 10*time.Second, "the command runs", func() error {
		if sleeps() != 1 {
			return fmt.Errorf("it does not")
		}
		return nil
	})
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	eventually(t, 10*time.Second, "the command is gone with its caller", func() error {
		if sleeps() != 0 {
			return fmt.Errorf("it is not")
		}
		return nil
	})
}

func TestCtlRun(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	image := ref("test/base")
	pull(t, "test/base")
	r := ctl(t, "", "run", "--setenv=COLOUR=blue", "--working-directory=/tmp", image, "sh", "-c", "echo $COLOUR $PWD $(hostname | cut -c1-4); echo err >&2; exit 8")
	equal(t, "result of run", r, ctlResult{"blue /tmp run-\n", "err\n", 8})
	r = ctl(t, "typed in\n", "run", "-i", image, "cat")
	equal(t, "result of run -i", r, ctlResult{"typed in\n", "", 0})
	out, code := onTerminal(t, "exit 3\n", "rktletctl run --tty "+image+" sh -c 'tty; exec sh'")
	equal(t, "exit code", code, 3)
	contains(t, "on a terminal", out, "/dev/")
	r = ctl(t, "", "run", image, "/no/such/command")
	if r.code == 0 || !strings.Contains(r.err, "/no/such/command") {
		t.Errorf("a command that isn't there: %+v", r)
	}
	r = ctl(t, "", "run", "127.0.0.1:5000/no/such:image")
	if r.code != 1 || r.err == "" {
		t.Errorf("an image that isn't there: %+v", r)
	}
	if pods := do(t, rt.ListPodSandbox, &cri.ListPodSandboxRequest{}).Items; len(pods) != 0 {
		t.Errorf("%d pods are left", len(pods))
	}
	id := strings.TrimSpace(ctlOK(t, "run", "--detach", "--name=try", "--host-network", image, "sh", "-c", "echo here; exec sleep 1000"))
	st := do(t, rt.ContainerStatus, &cri.ContainerStatusRequest{ContainerId: id}).Status
	equal(t, "state", st.State, cri.ContainerState_CONTAINER_RUNNING)
	eventually(t, 5*time.Second, "its log", func() error {
		if out := ctlOK(t, "logs", "rktletctl/try"); out != "here\n" {
			return fmt.Errorf("%q", out)
		}
		return nil
	})
	ctlOK(t, "remove", "rktletctl/try")
}

func TestCtlPullAndRemoveImages(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	image := ref("test/base")
	id := pull(t, "test/base")
	equal(t, "output of remove", ctlOK(t, "remove", image), "")
	if do(t, img.ImageStatus, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: image}}).Image != nil {
		t.Error("the image is still there")
	}
	equal(t, "pull", ctlOK(t, "pull", image), id+"\n")
	equal(t, "pull in JSON", ctlJSON[map[string]string](t, "pull", "--json=short", image)["id"], id)
	ctlOK(t, "remove", image)
	out, code := onTerminal(t, "", "rktletctl pull "+image)
	equal(t, "exit code", code, 0)
	contains(t, "pull on a terminal", out, id)
	r := ctl(t, "", "pull", ref("no/such"))
	if r.code != 1 || len(r.err) < 10 {
		t.Errorf("an image that isn't there: %+v", r)
	}
	r = ctl(t, "", "pull", "--username=me", image)
	contains(t, "without a password", r.err, "There is no password")
}

func TestCtlStopKillRemovePrune(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, func(c *cri.PodSandboxConfig) { c.Metadata.Namespace, c.Metadata.Name = "shop", "web-0" })
	trap := sh("trap 'exit 5' USR1; trap 'exit 6' TERM; echo up; while :; do sleep 0.05; done")
	c := p.run(trap)
	c.waitForLog("up")
	ctlOK(t, "kill", "--signal=SIGUSR1", c.id)
	equal(t, "exit code after kill", c.wait().ExitCode, 5)
	r := ctl(t, "", "kill", c.id)
	equal(t, "kill of what has ended", r.code, 1)
	contains(t, "why", r.err, "exited")

	c2 := p.run(trap)
	c2.waitForLog("up")
	ctlOK(t, "stop", "--timeout=20s", c2.unit())
	equal(t, "exit code after stop", c2.status().ExitCode, 6)
	c3, c4 := p.run(trap), p.run(trap)
	c3.waitForLog("up")
	c4.waitForLog("up")
	ctlOK(t, "kill", "-s", "USR1", "shop/web-0")
	equal(t, "exit code after the pod's kill", c3.wait().ExitCode, 5)
	equal(t, "exit code after the pod's kill", c4.wait().ExitCode, 5)
	ctlOK(t, "remove", c3.id)
	removed := ctlOK(t, "prune", "containers")
	contains(t, "prune", removed, "container "+c.id+"\n", "container "+c2.id+"\n", "container "+c4.id+"\n")
	ctlOK(t, "stop", "shop/web-0")
	equal(t, "state", p.status().State, cri.PodSandboxState_SANDBOX_NOTREADY)
	contains(t, "prune", ctlOK(t, "prune", "pods"), "pod "+p.id+"\n")

	// An image is removed only while nobody uses it.
	q := runPod(t)
	q.create()
	id := pull(t, "test/base")
	lacks(t, "prune", ctlOK(t, "prune", "images"), id)
	q.remove()
	contains(t, "prune", ctlOK(t, "prune"), "image "+id+"\n")
	r = ctl(t, "", "prune", "everything")
	equal(t, "prune of what isn't a kind", r.code, 1)
}

func TestCtlTopEventsDump(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	pull(t, "test/base")
	var events lockedBuffer
	cmd := exec.Command("rktletctl", "events", "--json=short", "--iterations=7")
	cmd.Stdout, cmd.Stderr = &events, &events
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // it says nothing when it listens
	p := runPod(t, func(c *cri.PodSandboxConfig) { c.Metadata.Namespace, c.Metadata.Name = "shop", "web-0" })
	c := p.run(sh("while :; do :; done"), func(c *cri.ContainerConfig) { c.Metadata.Name = "busy" })

	var usage []map[string]any
	eventually(t, 10*time.Second, "top sees the CPU used", func() error {
		usage = ctlJSON[[]map[string]any](t, "top", "--json=short", "--delay=300ms")
		if len(usage) != 1 || usage[0]["cpu_percent"].(float64) < 5 {
			return fmt.Errorf("%v", usage)
		}
		return nil
	})
	equal(t, "tasks", usage[0]["tasks"].(float64), 1)
	contains(t, "top", ctlOK(t, "top", "--delay=50ms"), c.id+" "+p.id+" busy ")
	out, _ := onTerminal(t, "", "rktletctl top --delay=50ms --iterations=2")
	contains(t, "top on a terminal", out, "\033[H\033[J", "busy")

	dump := ctlJSON[map[string]any](t, "dump")
	equal(t, "pods in the dump", len(dump["pods"].([]any)), 1)
	contains(t, "dump", ctlOK(t, "dump", "--json=short"), c.id, ref("test/base"))
	p.remove()
	if err := cmd.Wait(); err != nil {
		t.Errorf("events: %v", err)
	}
	var seen []string
	for _, line := range strings.Split(strings.TrimSpace(events.String()), "\n") {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		seen = append(seen, e["event"].(string))
	}
	equal(t, "events", strings.Join(seen, " "), "pod-started container-created container-started container-exited pod-stopped container-removed pod-removed")
}

func TestCtlCompletion(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, func(c *cri.PodSandboxConfig) { c.Metadata.Namespace, c.Metadata.Name = "shop", "web-0" })
	complete := func(words ...string) string {
		script := ". /usr/share/bash-completion/completions/rktletctl; COMP_WORDS=(rktletctl \"$@\"); COMP_CWORD=$#; _rktletctl; printf '%s\\n' \"${COMPREPLY[@]}\""
		return command(t, append([]string{"bash", "-c", script, "bash"}, words...)...)
	}
	equal(t, "completion of a command", complete("list-c"), "list-containers\n")
	equal(t, "completion of an option", complete("--no-p"), "--no-pager\n")
	equal(t, "completion of an ID", complete("status", p.id[:6]), p.id+"\n")
	equal(t, "completion of a name", complete("stop", "shop/"), "shop/web-0\n")
	equal(t, "completion of a mode", complete("list-pods", "--json", "=", "s"), "short\n")
	// What it knows is what there is.
	help := ctlOK(t, "--help")
	for _, option := range regexp.MustCompile(`--[a-z][a-z-]+=?`).FindAllString(strings.Split(help, "See rktletctl(1)")[0], -1) {
		if !strings.Contains(complete(strings.TrimSuffix(option, "=")), option) {
			t.Errorf("%s is not completed", option)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z][a-z-]+) `).FindAllStringSubmatch(help, -1) {
		contains(t, "completed commands", complete(""), m[1])
	}
}
