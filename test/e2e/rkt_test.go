package e2e

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// These are about the rkt engine: that it executes rkt as it should, and gets over what rkt does wrong. Those that tell the
// stand-in to go wrong need it; the others do on a real rkt as well.

const rktControl = "/run/rkt-test" // see test/rkt/README.md

func needsStandIn(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/usr/lib/rkt-stand-in/rkt"); err != nil {
		t.Skip("this machine's rkt is a real one")
	}
}

// rktFault lets the next calls of a command of rkt go wrong; how is "hang", "crash", "garbage", "empty", "fail", with ":middle"
// for once it has begun.
func rktFault(t testing.TB, command, how string) {
	t.Helper()
	path := filepath.Join(rktControl, "fault-"+strings.ReplaceAll(command, " ", "-"))
	writeFile(t, path, how, 0o600)
	t.Cleanup(func() { _ = os.Remove(path) })
}

func rktRepair() {
	files, _ := filepath.Glob(rktControl + "/fault-*")
	for _, file := range files {
		_ = os.Remove(file)
	}
}

//go:embed rkt_calls.txt
var rktCalls string

// What a pod's whole life makes of rkt's command line, held against the list that was measured with the real one.
func TestRktCommandLinesOfAPodsLife(t *testing.T) {
	needsStandIn(t)
	leavesNothing(t)
	pull(t, "test/base")
	calls := filepath.Join(rktControl, "calls")
	writeFile(t, calls, "", 0o600)
	t.Cleanup(func() { _ = os.Remove(calls) })

	folder := scratch(t)
	writeFile(t, folder+"/file", "x", 0o644)
	p := runPod(t, withNetwork, func(c *cri.PodSandboxConfig) {
		c.Metadata = &cri.PodSandboxMetadata{Name: "web", Namespace: "shop", Uid: "uid-web", Attempt: 1}
		c.Hostname = "web-0"
		c.DnsConfig = &cri.DNSConfig{Servers: []string{"10.0.0.10"}, Searches: []string{"svc.local"}, Options: []string{"ndots:5"}}
		c.PortMappings = []*cri.PortMapping{{ContainerPort: 80, HostPort: 8080, HostIp: "127.0.0.1"}}
		c.Labels, c.Annotations = map[string]string{"app": "web"}, map[string]string{"x": "y=z"}
	})
	pull(t, "test/base")
	c := p.create(withCommand("/bin/sh", "-c", "echo $HOME; exec sleep 100000"), func(c *cri.ContainerConfig) {
		c.Metadata.Name, c.LogPath = "httpd", "httpd/0.log"
		c.Labels, c.Annotations = map[string]string{"l": "m"}, map[string]string{"a": "b"}
		c.Envs = []*cri.KeyValue{{Key: "FOO", Value: []byte("baz")}}
		c.WorkingDir, c.Stdin = "/tmp", true
		c.Mounts = []*cri.Mount{{HostPath: folder, ContainerPath: "/data"}, {HostPath: folder + "/file", ContainerPath: "/etc/file", Readonly: true}}
		c.Linux.Resources = &cri.LinuxContainerResources{CpuShares: 512, CpuQuota: 10000, CpuPeriod: 100000, MemoryLimitInBytes: 64 << 20, OomScoreAdj: 100}
	}, security(func(s *cri.LinuxContainerSecurityContext) {
		s.RunAsUser, s.RunAsGroup, s.SupplementalGroups = &cri.Int64Value{Value: 0}, &cri.Int64Value{Value: 0}, []int64{5, 6}
		s.Capabilities = &cri.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"CHOWN", "KILL"}}
		s.ReadonlyRootfs = true
	}))
	c.start()
	c.waitForLog("/root")
	c.exec("/bin/echo", "a b")
	c.stop(5)
	c.remove()
	p.remove()

	data, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	uuid := regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	hash := regexp.MustCompile(`sha512-[0-9a-f]{64}`)
	var got []string
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		var argv []string
		if err := json.Unmarshal([]byte(line), &argv); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		text := strings.Join(argv, "\n    ")
		text = strings.NewReplacer(c.id, "CONTAINER", p.id, "POD", folder, "FOLDER", p.config.LogDirectory, "LOGS", *registry, "REGISTRY").Replace(text)
		text = hash.ReplaceAllString(uuid.ReplaceAllString(text, "UUID"), "IMAGE")
		// How often it is asked depends on how things fall.
		asks := strings.Contains(text, "\n    status\n    UUID\n    --app") || strings.Contains(text, "\n    list\n    --full")
		if asks && len(got) > 0 && strings.Contains(strings.Join(got, "\n"), text) {
			continue
		}
		got = append(got, text)
	}
	want := strings.TrimSpace(rktCalls)
	if text := strings.Join(got, "\n"); text != want {
		t.Errorf("rkt was executed so:\n%s\nand not so:\n%s", text, want)
	}
}

// rktLife takes a pod and a container from beginning to end and returns the first error, after it has cleaned up.
func rktLife(t testing.TB) (failed string, err error) {
	t.Helper()
	note := func(what string, e error) bool {
		if e != nil && err == nil {
			failed, err = what, e
		}
		return e == nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	image := &cri.ImageSpec{Image: ref("test/base")}
	_, e := img.PullImage(ctx, &cri.PullImageRequest{Image: image})
	if !note("PullImage", e) {
		return
	}
	config := podConfig(t)
	defer os.RemoveAll(config.LogDirectory)
	pod, e := rt.RunPodSandbox(ctx, podRequest(config))
	if !note("RunPodSandbox", e) {
		return
	}
	p := &podT{t: t, id: pod.PodSandboxId, config: config}
	defer func() {
		for i := 0; i < 2; i++ { // the second time without the fault
			_, e := rt.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.id})
			if note("StopPodSandbox", e) {
				_, e = rt.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.id})
				if note("RemovePodSandbox", e) {
					return
				}
			}
			rktRepair()
		}
		t.Errorf("the pod can't be removed")
	}()
	request := p.createRequest(withCommand("/bin/sh", "-c", "echo up; exec sleep 100000"))
	ctr, e := rt.CreateContainer(ctx, request)
	if !note("CreateContainer", e) {
		return
	}
	c := &ctrT{t: t, id: ctr.ContainerId, pod: p, config: request.Config}
	_, e = rt.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: c.id})
	if note("StartContainer", e) {
		answer, e := rt.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"/bin/echo", "hello"}, Timeout: 2})
		if note("ExecSync", e) && string(answer.Stdout) != "hello\n" {
			note("ExecSync", fmt.Errorf("it said %q", answer.Stdout))
		}
		_, e = rt.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: c.id, Timeout: 2})
		note("StopContainer", e)
	}
	_, e = rt.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: c.id})
	note("RemoveContainer", e)
	return
}

// Whatever rkt does, once: the call ends soon with a sentence, or well, and nothing is left once all is removed.
func TestRktThatGoesWrong(t *testing.T) {
	needsStandIn(t)
	const file = "/etc/rktlet/rktlet.conf.d/90-test.conf"
	writeFile(t, file, "[Rkt]\nRktTimeoutSec=3s\nRktReadyTimeoutSec=5s\nRktFetchTimeoutSec=5s\n", 0o644)
	t.Cleanup(func() { _ = os.Remove(file); restartDaemon(t) })
	restartDaemon(t)
	daemonStays(t)
	pull(t, "test/base")
	rktLife(t)

	parsed := []string{"crash", "fail", "garbage", "empty", "hang"}
	plain := []string{"crash", "fail", "hang"}
	for _, test := range []struct {
		command string
		how     []string
		fails   string // the RPC that has to fail; "" where it can do without
	}{
		{"image fetch", append(parsed, "crash:middle", "endless"), "PullImage"},
		{"image list", parsed, "PullImage"},
		{"app sandbox", append(plain, "crash:middle", "hang:middle", "crash:ready", "garbage"), "RunPodSandbox"},
		{"status", parsed, "RunPodSandbox"},
		{"app add", append(plain, "crash:middle", "hang:middle"), "CreateContainer"},
		{"app start", append(plain, "crash:after"), "StartContainer"},
		{"app status", parsed, ""},
		{"app exec", plain, "ExecSync"},
		{"app rm", append(plain, "crash:middle"), "RemoveContainer"},
		{"stop", append(plain, "garbage"), ""},
		{"rm", append(plain, "crash:middle", "hang:middle"), "RemovePodSandbox"},
	} {
		for _, how := range test.how {
			t.Run(test.command+" "+how, func(t *testing.T) {
				leavesNothing(t)
				rktFault(t, test.command, how+" 1")
				failed, err := rktLife(t)
				rktRepair()
				exits := test.command == "app exec" && strings.HasPrefix(how, "crash") // as a command that was killed
				switch {
				case err == nil && test.fails != "" && !exits:
					t.Errorf("%s did not fail", test.fails)
				case err != nil && test.fails != "" && failed != test.fails:
					t.Errorf("%s failed, not %s: %v", failed, test.fails, err)
				case err != nil && test.fails == "":
					t.Errorf("%s failed: %v", failed, err)
				case err != nil:
					if s := status.Convert(err); !exits && (s.Code() == codes.Unknown || len(s.Message()) < 20) {
						t.Errorf("the error says nothing: %v", err)
					}
				}
			})
		}
		if failed, err := rktLife(t); err != nil {
			t.Errorf("after %s went wrong, %s fails: %v", test.command, failed, err)
		}
	}
	if pods, _ := filepath.Glob("/var/lib/rktlet/rkt/pods/run/*"); len(pods) > 0 {
		t.Errorf("rkt still has the pods %v", pods)
	}
}

// The traps of the real rkt that are not the subject of another test.
func TestRktTraps(t *testing.T) {
	leavesNothing(t)
	p := runPod(t)
	t.Run("a created container is created, whatever the pod's status says of it, also after a restart", func(t *testing.T) {
		c := p.with(t).create()
		equal(t, "state", c.status().State, cri.ContainerState_CONTAINER_CREATED)
		restartDaemon(t)
		equal(t, "state", c.status().State, cri.ContainerState_CONTAINER_CREATED)
		c.start()
		equal(t, "state", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
		c.remove()
	})
	t.Run("exit codes are 128 and the signal", func(t *testing.T) {
		p := p.with(t)
		c := p.run()
		c.stop(10)
		equal(t, "exit code of a TERM death", c.wait().ExitCode, 143)
		c.remove()
		c = p.run()
		c.stop(0)
		equal(t, "exit code of a KILL death", c.wait().ExitCode, 137)
		c.remove()
		c = p.run(sh("exit 42"))
		st := c.wait()
		equal(t, "exit code", st.ExitCode, 42)
		equal(t, "reason", st.Reason, "Error")
		c.remove()
	})
	t.Run("who ignores SIGTERM is killed after the grace, not after 90 s", func(t *testing.T) {
		c := p.with(t).run(sh("trap '' TERM; echo up; while :; do sleep 1; done"))
		c.waitForLog("up")
		begin := time.Now()
		c.stop(1)
		if took := time.Since(begin); took < 900*time.Millisecond || took > 20*time.Second {
			t.Errorf("a stop with a grace of 1 s took %v", took)
		}
		equal(t, "exit code", c.wait().ExitCode, 137)
		c.remove()
	})
	t.Run("the stop signal is that of the configuration", func(t *testing.T) {
		c := p.with(t).run(sh("trap 'echo usr1; exit 5' USR1; echo up; while :; do sleep 0.1; done"),
			func(c *cri.ContainerConfig) { c.StopSignal = cri.Signal_SIGUSR1 })
		c.waitForLog("up")
		c.stop(10)
		equal(t, "exit code", c.wait().ExitCode, 5)
		contains(t, "the log", c.text("stdout"), "usr1\n")
		c.remove()
	})
	t.Run("names that rkt doesn't take, and that differ in case only", func(t *testing.T) {
		var all []*ctrT
		for _, name := range []string{"FooBar", "foobar", "foo_bar.1", "-x"} {
			all = append(all, p.with(t).run(func(c *cri.ContainerConfig) { c.Metadata.Name, c.LogPath = name, name+"/0.log" }, sh("echo "+name+"; sleep 1000")))
		}
		for _, c := range all {
			c.waitForLog(" stdout F " + c.config.Metadata.Name + "\n")
			c.remove()
		}
	})
	t.Run("a container that failed is made again under its name", func(t *testing.T) {
		for attempt := uint32(0); attempt < 3; attempt++ {
			c := p.with(t).run(sh(fmt.Sprintf("echo attempt %d; exit 1", attempt)),
				func(c *cri.ContainerConfig) { c.Metadata.Name, c.Metadata.Attempt = "again", attempt })
			c.wait()
			contains(t, "the log", c.text("stdout"), fmt.Sprintf("attempt %d\n", attempt))
			c.remove()
		}
	})
	t.Run("a volume that isn't there leaves no half-made app", func(t *testing.T) {
		p := p.with(t)
		refused(t, rt.CreateContainer, p.createRequest(func(c *cri.ContainerConfig) {
			c.Metadata.Name = "half"
			c.Mounts = []*cri.Mount{{HostPath: "/nonexistent", ContainerPath: "/data"}}
		}), codes.NotFound, codes.InvalidArgument, codes.FailedPrecondition)
		p.run(func(c *cri.ContainerConfig) { c.Metadata.Name = "half" }).remove()
	})
	t.Run("a command that isn't there", func(t *testing.T) {
		c := p.with(t).create(withCommand("/bin/nosuch"))
		_, err := rt.StartContainer(context.Background(), &cri.StartContainerRequest{ContainerId: c.id})
		st := c.wait()
		if err != nil {
			checkRefusal(t, err, codes.FailedPrecondition)
			equal(t, "reason", st.Reason, "StartError")
		} else {
			equal(t, "exit code", st.ExitCode, 203)
		}
		c.remove()
	})
	t.Run("a log gets its tags, stderr is stderr, a long line is split", func(t *testing.T) {
		c := p.with(t).run(sh("echo out; echo err >&2; head -c 40000 /dev/zero | tr '\\0' x; echo; echo end"))
		c.wait()
		equal(t, "stderr", c.text("stderr"), "err\n")
		equal(t, "stdout", c.text("stdout"), "out\n"+strings.Repeat("x", 40000)+"\nend\n")
		for _, line := range c.log() {
			if len(line.text) > 16384 {
				t.Errorf("a line of %d bytes", len(line.text))
			}
		}
		c.remove()
	})
	t.Run("commands run as root only where the container does", func(t *testing.T) {
		c := p.with(t).run(security(func(s *cri.LinuxContainerSecurityContext) { s.RunAsUser = &cri.Int64Value{Value: 1000} }))
		message := refused(t, rt.ExecSync, &cri.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"/bin/id"}}, codes.Unimplemented)
		contains(t, "the error", message, "root", "rktlet-rkt(7)")
		c.remove()
	})
	t.Run("resources can't be changed", func(t *testing.T) {
		c := p.with(t).run()
		message := refused(t, rt.UpdateContainerResources, &cri.UpdateContainerResourcesRequest{ContainerId: c.id,
			Linux: &cri.LinuxContainerResources{CpuShares: 10}}, codes.Unimplemented)
		contains(t, "the error", message, "rktlet-rkt(7)")
		message = refused(t, rt.CheckpointContainer, &cri.CheckpointContainerRequest{ContainerId: c.id, Location: "/run/e2e/x.tar"}, codes.Unimplemented)
		contains(t, "the error", message, "rktlet-rkt(7)")
		c.remove()
	})
	t.Run("a pod's sandbox killed hard: its containers are told ended, all can be removed", func(t *testing.T) {
		p := runPod(t)
		c := p.run()
		command(t, "systemctl", "kill", "--signal=KILL", p.unit())
		equal(t, "exit code", c.wait().ExitCode, 137)
		eventually(t, 10*time.Second, "the pod is not ready", func() error {
			if s := p.status().State; s != cri.PodSandboxState_SANDBOX_NOTREADY {
				return fmt.Errorf("it is %v", s)
			}
			return nil
		})
	})
	t.Run("pods of one name after each other", func(t *testing.T) {
		config := podConfig(t)
		for i := 0; i < 3; i++ {
			id := do(t, rt.RunPodSandbox, podRequest(config)).PodSandboxId
			command(t, "systemctl", "kill", "--signal=KILL", "rktlet-pod-"+id+".service")
			do(t, rt.StopPodSandbox, &cri.StopPodSandboxRequest{PodSandboxId: id})
			do(t, rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: id})
		}
		_ = os.RemoveAll(config.LogDirectory)
	})
	t.Run("an image that isn't there is removed without an error", func(t *testing.T) {
		do(t, img.RemoveImage, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: ref("no/such")}})
		do(t, img.RemoveImage, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: "sha256:" + strings.Repeat("0", 64)}})
	})
}

func TestRktWithoutANetwork(t *testing.T) {
	leavesNothing(t)
	const file = "/etc/rkt/net.d/10-rktlet.conf"
	if err := os.Rename(file, file+".away"); err != nil {
		t.Skip("the network is configured elsewhere")
	}
	t.Cleanup(func() { _ = os.Rename(file+".away", file) })
	for _, c := range do(t, rt.Status, &cri.StatusRequest{}).Status.Conditions {
		if c.Type == cri.NetworkReady && (c.Status || !strings.Contains(c.Message, "/etc/rkt/net.d")) {
			t.Errorf("the network is %v", c)
		}
	}
	message := refused(t, rt.RunPodSandbox, podRequest(podConfig(t, withNetwork)), codes.FailedPrecondition)
	contains(t, "the error", message, "/etc/rkt/net.d")
	runPod(t) // the host's will do

	// One that rkt itself refuses: its words are in the error, its pod and unit gone.
	writeFile(t, file, `{"cniVersion":"0.2.0","name":"broken","type":"no-such-plugin"}`, 0o644)
	defer os.Remove(file)
	message = refused(t, rt.RunPodSandbox, podRequest(podConfig(t, withNetwork)))
	contains(t, "the error", message, "no-such-plugin")
}

func TestRktThatCannotBeExecuted(t *testing.T) {
	const file = "/etc/rktlet/rktlet.conf.d/90-test.conf"
	writeFile(t, file, "[Rkt]\nRktPath=/no/such/rkt\n", 0o644)
	defer func() { _ = os.Remove(file); restartDaemon(t) }()
	restartDaemon(t)
	for _, c := range do(t, rt.Status, &cri.StatusRequest{}).Status.Conditions {
		if c.Type == cri.RuntimeReady && (c.Status || !strings.Contains(c.Message, "/no/such/rkt")) {
			t.Errorf("the runtime is %v", c)
		}
	}
	contains(t, "the error", refused(t, img.ListImages, &cri.ListImagesRequest{}), "/no/such/rkt")
}

func TestRktCredentialsAreGoneAfterTheCall(t *testing.T) {
	for _, auth := range []*cri.AuthConfig{{Username: "u", Password: "p4ssw0rd"}, {Auth: "dTpwNHNzdzByZA=="}} {
		_, _ = img.PullImage(context.Background(), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref("test/base")}, Auth: auth})
	}
	if left, _ := filepath.Glob("/run/rktlet/rkt-auth-*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	lacks(t, "the journal", journal(*daemonUnit), "p4ssw0rd", "dTpwNHNzdzByZA==")
	message := refused(t, img.PullImage, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref("test/base")},
		Auth: &cri.AuthConfig{RegistryToken: "t0ken"}}, codes.Unimplemented)
	contains(t, "the error", message, "rktlet-rkt(7)")
	lacks(t, "the error", message, "t0ken")
}

// What rkt was in the middle of when the daemon died is found and taken away, and what ran goes on.
func TestRktDaemonKilledInTheMiddle(t *testing.T) {
	needsStandIn(t)
	leavesNothing(t)
	p := runPod(t)
	c := p.run(sh("i=0; while :; do echo line $i; i=$((i+1)); sleep 0.01; done"))
	for _, command := range []string{"app sandbox", "status", "app add", "app start"} {
		rktFault(t, command, "1500 1") // ms
		config := podConfig(t)
		done := make(chan error, 1)
		go func() {
			ctx, cancel := timeout(10 * time.Second)
			defer cancel()
			pod, err := rt.RunPodSandbox(ctx, podRequest(config))
			if err == nil {
				q := &podT{t: t, id: pod.PodSandboxId, config: config}
				var ctr *cri.CreateContainerResponse
				if ctr, err = rt.CreateContainer(ctx, q.createRequest()); err == nil {
					_, err = rt.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: ctr.ContainerId})
				}
			}
			done <- err
		}()
		eventually(t, 10*time.Second, "rkt is at it", func() error {
			if _, err := os.Stat(filepath.Join(rktControl, "fault-"+strings.ReplaceAll(command, " ", "-"))); err == nil {
				return fmt.Errorf("not yet")
			}
			return nil
		})
		killDaemon(t)
		<-done
		rktRepair()
		for _, pod := range do(t, rt.ListPodSandbox, &cri.ListPodSandboxRequest{}).Items {
			if pod.Id != p.id {
				do(t, rt.StopPodSandbox, &cri.StopPodSandboxRequest{PodSandboxId: pod.Id})
				do(t, rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: pod.Id})
			}
		}
		_ = os.RemoveAll(config.LogDirectory)
	}
	equal(t, "state", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
	c.stop(0)
	for i, line := range strings.Split(strings.TrimSpace(c.text("stdout")), "\n") {
		if line != fmt.Sprintf("line %d", i) {
			t.Fatalf("line %d of the log is %q", i, line)
		}
	}
	eventually(t, 10*time.Second, "rkt has one pod", func() error {
		if pods, _ := filepath.Glob("/var/lib/rktlet/rkt/pods/run/*"); len(pods) != 1 {
			return fmt.Errorf("it has %v", pods)
		}
		return nil
	})
}

// All that the CRI wants to know can be read back from rkt alone.
func TestRktKnowsItAllByItself(t *testing.T) {
	leavesNothing(t)
	p := runPod(t, withNetwork, withParent("kubepods-podrkt.slice"), func(c *cri.PodSandboxConfig) {
		c.Labels, c.Annotations = map[string]string{"app": "web"}, map[string]string{"x": "y=z", "lines": "a\nb"}
	})
	t.Cleanup(func() { _, _ = try("systemctl", "stop", "kubepods-podrkt.slice", "kubepods.slice") })
	runs := p.run(sh("i=0; while :; do echo line $i; i=$((i+1)); sleep 0.02; done"), func(c *cri.ContainerConfig) {
		c.Metadata.Attempt, c.Labels, c.Annotations = 3, map[string]string{"l": "m"}, map[string]string{"a": "b"}
	})
	ended := p.run(sh("exit 4"))
	ended.wait()
	created := p.create()
	pod, ctr := p.status(), runs.status()

	command(t, "systemctl", "stop", "rktlet.socket", *daemonUnit)
	command(t, "sh", "-c", "rm -rf /var/lib/rktlet/pods/* /var/lib/rktlet/containers/*")
	command(t, "systemctl", "start", *daemonUnit)
	waitForDaemon(t)

	st := p.status()
	equal(t, "the pod's metadata", st.Metadata.String(), pod.Metadata.String())
	equal(t, "state", st.State, pod.State)
	equal(t, "labels", fmt.Sprint(st.Labels), fmt.Sprint(pod.Labels))
	equal(t, "annotations", fmt.Sprint(st.Annotations), fmt.Sprint(pod.Annotations))
	equal(t, "address", st.Network.Ip, pod.Network.Ip)
	now := runs.status()
	equal(t, "the container's metadata", now.Metadata.String(), ctr.Metadata.String())
	equal(t, "state", now.State, ctr.State)
	equal(t, "labels", fmt.Sprint(now.Labels), fmt.Sprint(ctr.Labels))
	equal(t, "annotations", fmt.Sprint(now.Annotations), fmt.Sprint(ctr.Annotations))
	equal(t, "image", now.ImageId, ctr.ImageId)
	equal(t, "log", now.LogPath, ctr.LogPath)
	equal(t, "started", now.StartedAt/1e9, ctr.StartedAt/1e9)
	equal(t, "exit code", ended.status().ExitCode, 4)
	equal(t, "state", created.status().State, cri.ContainerState_CONTAINER_CREATED)
	created.start()
	runs.stop(0)
	for i, line := range strings.Split(strings.TrimSpace(runs.text("stdout")), "\n") {
		if line != fmt.Sprintf("line %d", i) {
			t.Fatalf("line %d of the log is %q", i, line)
		}
	}
}
