package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestPodLifecycle(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	begin := time.Now()
	p := runPod(t, func(c *cri.PodSandboxConfig) {
		c.Labels = map[string]string{"app": "web", "empty": "", "ünï": "cödé\nnew line"}
		c.Annotations = map[string]string{"long": strings.Repeat("x", 200000), "json": `{"a": "\u0000"}`}
		c.Metadata.Attempt = 7
	})
	if len(p.id) != 64 || strings.Trim(p.id, "0123456789abcdef") != "" {
		t.Errorf("ID %q is no 64 hexadecimal digits", p.id)
	}
	st := p.status()
	equal(t, "state", st.State, cri.PodSandboxState_SANDBOX_READY)
	equal(t, "metadata", st.Metadata.String(), p.config.Metadata.String())
	if !maps.Equal(st.Labels, p.config.Labels) || !maps.Equal(st.Annotations, p.config.Annotations) {
		t.Error("labels or annotations came back changed")
	}
	if created := time.Unix(0, st.CreatedAt); created.Before(begin) || created.After(time.Now()) {
		t.Errorf("created at %v", created)
	}
	if st.Network.GetIp() != "" {
		t.Errorf("a pod on the host's network has the address %s", st.Network.Ip)
	}
	equal(t, "network mode", st.Linux.Namespaces.Options.Network, cri.NamespaceMode_NODE)
	verbose := do(t, rt.PodSandboxStatus, &cri.PodSandboxStatusRequest{PodSandboxId: p.id, Verbose: true})
	if len(verbose.Info) == 0 {
		t.Error("verbose status has no info")
	}

	p.stop()
	equal(t, "state after stop", p.status().State, cri.PodSandboxState_SANDBOX_NOTREADY)
	p.stop()
	remove := func() { do(t, rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: p.id}) }
	remove()
	remove()
	p.stop()
	refused(t, rt.PodSandboxStatus, &cri.PodSandboxStatusRequest{PodSandboxId: p.id}, codes.NotFound)
}

func TestPodStopAndRemoveOfUnknownOnesAreFine(t *testing.T) {
	unknown := strings.Repeat("0", 64)
	do(t, rt.StopPodSandbox, &cri.StopPodSandboxRequest{PodSandboxId: unknown})
	do(t, rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: unknown})
	refused(t, rt.PodSandboxStatus, &cri.PodSandboxStatusRequest{PodSandboxId: unknown}, codes.NotFound)
	refused(t, rt.PodSandboxStatus, &cri.PodSandboxStatusRequest{}, codes.InvalidArgument, codes.NotFound)
	for _, id := range []string{"../../etc", "rktlet-pod-*", "%s%n", strings.Repeat("a", 100000)} {
		refused(t, rt.PodSandboxStatus, &cri.PodSandboxStatusRequest{PodSandboxId: id}, codes.NotFound, codes.InvalidArgument)
	}
}

func TestPodStopsAndRemovesItsContainers(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	running, created := p.run(), p.create()
	exited := p.run(withCommand("true"))
	exited.wait()
	pid := running.pid()
	p.stop()
	equal(t, "state of the running container", running.status().State, cri.ContainerState_CONTAINER_EXITED)
	if isAlive(pid) {
		t.Error("its process is alive")
	}
	do(t, rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: p.id})
	for _, c := range []*ctrT{running, created, exited} {
		refused(t, rt.ContainerStatus, &cri.ContainerStatusRequest{ContainerId: c.id}, codes.NotFound)
	}
}

func TestPodRemovedWhileRunning(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, withNetwork)
	p.run()
	do(t, rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: p.id})
	refused(t, rt.PodSandboxStatus, &cri.PodSandboxStatusRequest{PodSandboxId: p.id}, codes.NotFound)
}

func TestPodNameIsUniqueUntilRemoved(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	text := refused(t, rt.RunPodSandbox, &cri.RunPodSandboxRequest{Config: p.config}, codes.AlreadyExists)
	contains(t, "the error", text, p.config.Metadata.Name)
	p.stop()
	refused(t, rt.RunPodSandbox, &cri.RunPodSandboxRequest{Config: p.config}, codes.AlreadyExists)
	do(t, rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: p.id})
	again := do(t, rt.RunPodSandbox, &cri.RunPodSandboxRequest{Config: p.config}).PodSandboxId
	if again == p.id {
		t.Error("the new pod has the old one's ID")
	}
	p.id = again
}

func TestPodNamesThatDifferInCaseAndSeparatorsDoNotCollide(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	seen := map[string]bool{}
	for _, m := range []*cri.PodSandboxMetadata{
		{Name: "a", Namespace: "b_c", Uid: "u"}, {Name: "a_b", Namespace: "c", Uid: "u"}, {Name: "A", Namespace: "b_c", Uid: "u"},
		{Name: "a", Namespace: "b", Uid: "c_u"}, {Name: "a", Namespace: "b_c", Uid: "u", Attempt: 1},
	} {
		p := runPod(t, func(c *cri.PodSandboxConfig) { c.Metadata = m })
		if seen[p.id] {
			t.Error("two pods have one ID")
		}
		seen[p.id] = true
	}
}

func TestPodRequestsThatAreRefused(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	for name, mod := range map[string]podMod{
		"no metadata":                    func(c *cri.PodSandboxConfig) { c.Metadata = nil },
		"no name":                        func(c *cri.PodSandboxConfig) { c.Metadata.Name = "" },
		"no namespace":                   func(c *cri.PodSandboxConfig) { c.Metadata.Namespace = "" },
		"no uid":                         func(c *cri.PodSandboxConfig) { c.Metadata.Uid = "" },
		"a name of a megabyte":           func(c *cri.PodSandboxConfig) { c.Metadata.Name = strings.Repeat("n", 1<<20) },
		"a NUL in the name":              func(c *cri.PodSandboxConfig) { c.Metadata.Name = "a\x00b" },
		"a parent that is no slice":      withParent("/kubepods/pod1"),
		"a parent that is a service":     withParent("system.service"),
		"a parent with ..":               withParent("../evil.slice"),
		"a parent that is only .slice":   withParent(".slice"),
		"a parent with a newline":        withParent("a\nb.slice"),
		"a parent with a space":          withParent("a b.slice"),
		"a parent with empty parts":      withParent("a--b.slice"),
		"a host name that is too long":   func(c *cri.PodSandboxConfig) { withNetwork(c); c.Hostname = strings.Repeat("h", 65) },
		"a runtime handler that is none": nil,
		"a sysctl that is not the pod's": func(c *cri.PodSandboxConfig) { c.Linux.Sysctls = map[string]string{"kernel.panic": "1"} },
		"a sysctl with a path": func(c *cri.PodSandboxConfig) {
			withNetwork(c)
			c.Linux.Sysctls = map[string]string{"net.ipv4/../../kernel.panic": "1"}
		},
		"a sysctl value with a newline": func(c *cri.PodSandboxConfig) {
			withNetwork(c)
			c.Linux.Sysctls = map[string]string{"net.ipv4.ip_forward": "1\nkernel.panic=1"}
		},
		"a sysctl value with + and =": func(c *cri.PodSandboxConfig) {
			c.Linux.Sysctls = map[string]string{"kernel.shm_rmid_forced": "1+kernel.core_pattern=|/bin/sh"}
		},
		"a network sysctl on the host's network": func(c *cri.PodSandboxConfig) {
			c.Linux.Sysctls = map[string]string{"net.ipv4.ip_forward": "0"}
		},
		"an IPC sysctl on the host's IPC": func(c *cri.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Ipc = cri.NamespaceMode_NODE
			c.Linux.Sysctls = map[string]string{"kernel.shmmax": "1000000"}
		},
		"a namespace mode that is none": func(c *cri.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions.Network = 77 },
		"a log folder that is relative": func(c *cri.PodSandboxConfig) { c.LogDirectory = "logs" },
		"a log folder with ..":          func(c *cri.PodSandboxConfig) { c.LogDirectory = "/run/e2e/../../etc" },
		"a port that is none": func(c *cri.PodSandboxConfig) {
			withNetwork(c)
			c.PortMappings = []*cri.PortMapping{{ContainerPort: 70000, HostPort: 80}}
		},
		"a host address that is none": func(c *cri.PodSandboxConfig) {
			withNetwork(c)
			c.PortMappings = []*cri.PortMapping{{ContainerPort: 80, HostPort: 80, HostIp: "300.1.1.1"}}
		},
		"a name server with a newline": func(c *cri.PodSandboxConfig) {
			withNetwork(c)
			c.DnsConfig = &cri.DNSConfig{Servers: []string{"10.0.0.1\noptions x"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			request := &cri.RunPodSandboxRequest{}
			if mod != nil {
				request.Config = podConfig(t)
				mod(request.Config)
			} else {
				request.Config = podConfig(t)
				request.RuntimeHandler = "no-such-handler"
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			answer, err := rt.RunPodSandbox(ctx, request)
			if err == nil {
				t.Error("it was accepted")
				do(t, rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: answer.PodSandboxId})
				return
			}
			checkRefusal(t, err, codes.InvalidArgument, codes.NotFound)
		})
	}
	refused(t, rt.RunPodSandbox, &cri.RunPodSandboxRequest{}, codes.InvalidArgument)
}

func TestPodManyAtOnce(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	pull(t, "test/base")
	const count = 100
	pods, containers := make([]*podT, count), make([]*ctrT, count)
	var wait sync.WaitGroup
	var lock sync.Mutex
	parallel := func(what string, f func(i int) error) {
		begin := time.Now()
		for i := range count {
			wait.Add(1)
			go func() {
				defer wait.Done()
				if err := f(i); err != nil {
					lock.Lock()
					t.Errorf("%s %d: %v", what, i, err)
					lock.Unlock()
				}
			}()
		}
		wait.Wait()
		t.Logf("%s: %d in %v", what, count, time.Since(begin).Round(time.Millisecond))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	for i := range pods {
		pods[i] = &podT{t: t, config: podConfig(t)}
	}
	t.Cleanup(func() {
		for _, p := range pods {
			if p.id != "" {
				p.remove()
			}
		}
	})
	parallel("pods run", func(i int) error {
		answer, err := rt.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: pods[i].config})
		if err == nil {
			pods[i].id = answer.PodSandboxId
		}
		return err
	})
	if t.Failed() {
		return
	}
	parallel("containers run", func(i int) error {
		request := pods[i].createRequest(sh(fmt.Sprintf("echo I am %d; sleep 1000", i)))
		answer, err := rt.CreateContainer(ctx, request)
		if err != nil {
			return err
		}
		containers[i] = &ctrT{t: t, id: answer.ContainerId, pod: pods[i], config: request.Config}
		_, err = rt.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: answer.ContainerId})
		return err
	})
	if t.Failed() {
		return
	}
	equal(t, "pods listed", len(do(t, rt.ListPodSandbox, &cri.ListPodSandboxRequest{}).Items), count)
	equal(t, "containers listed", len(do(t, rt.ListContainers, &cri.ListContainersRequest{}).Containers), count)
	for i, c := range containers {
		equal(t, "state", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
		c.waitForLog(fmt.Sprintf("I am %d", i))
	}
	parallel("pods removed", func(i int) error {
		if _, err := rt.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: pods[i].id}); err != nil {
			return err
		}
		_, err := rt.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: pods[i].id})
		return err
	})
}

func TestPodHostname(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	machine, _ := os.Hostname()
	own := runPod(t, withNetwork, func(c *cri.PodSandboxConfig) { c.Hostname = "my-pod" })
	equal(t, "hostname", own.output("hostname; cat /etc/hostname; echo $HOSTNAME; cat /proc/sys/kernel/hostname"), strings.Repeat("my-pod\n", 4))
	host := runPod(t)
	equal(t, "hostname on the host's network", host.output("hostname"), machine+"\n")
	if now, _ := os.Hostname(); now != machine {
		t.Errorf("the machine is now called %s", now)
	}
}

func TestPodResolvConf(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, withNetwork, func(c *cri.PodSandboxConfig) {
		c.DnsConfig = &cri.DNSConfig{Servers: []string{"10.96.0.10", "fd00::10"}, Searches: []string{"default.svc.cluster.local", "cluster.local"},
			Options: []string{"ndots:5", "timeout:1"}}
	})
	equal(t, "resolv.conf", p.output("grep '^[^#]' /etc/resolv.conf"),
		"search default.svc.cluster.local cluster.local\nnameserver 10.96.0.10\nnameserver fd00::10\noptions ndots:5 timeout:1\n")
	writeFile(t, "/etc/resolv.conf", "nameserver 192.0.2.1\n", 0o644)
	defer writeFile(t, "/etc/resolv.conf", "", 0o644)
	equal(t, "resolv.conf without a configuration", runPod(t).output("grep '^[^#]' /etc/resolv.conf"), "nameserver 192.0.2.1\n")
}

func TestPodSysctls(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	before, _ := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	p := runPod(t, withNetwork, func(c *cri.PodSandboxConfig) {
		c.Linux.Sysctls = map[string]string{"net.ipv4.ip_local_port_range": "2000 3000", "kernel.shm_rmid_forced": "1", "net/ipv4/ip_unprivileged_port_start": "80"}
	})
	equal(t, "sysctls", p.output("cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_unprivileged_port_start"),
		"2000\t3000\n1\n80\n")
	if now, _ := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); string(now) != string(before) {
		t.Errorf("the machine's own is now %s", now)
	}
}

func TestPodNamespacesAreSharedAsAsked(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	link := func(kind string) string { l, _ := os.Readlink("/proc/1/ns/" + kind); return l }
	read := "for k in net ipc uts pid mnt cgroup user; do readlink /proc/self/ns/$k; done"
	spaces := func(text string) map[string]string {
		m := map[string]string{}
		for _, line := range strings.Fields(text) {
			kind, _, _ := strings.Cut(line, ":")
			m[kind] = line
		}
		return m
	}
	t.Run("containers of a pod share network, IPC and host name, and nothing else", func(t *testing.T) {
		p := runPod(t, withNetwork)
		a, b := spaces(p.run().sh(read)), spaces(p.run().sh(read))
		for _, kind := range []string{"net", "ipc", "uts"} {
			if a[kind] != b[kind] || a[kind] == link(kind) {
				t.Errorf("%s: %s and %s, the machine has %s", kind, a[kind], b[kind], link(kind))
			}
		}
		for _, kind := range []string{"pid", "mnt", "cgroup"} {
			if a[kind] == b[kind] || a[kind] == link(kind) {
				t.Errorf("%s: %s and %s, the machine has %s", kind, a[kind], b[kind], link(kind))
			}
		}
	})
	t.Run("the host's network, IPC and PIDs", func(t *testing.T) {
		p := runPod(t, func(c *cri.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Ipc = cri.NamespaceMode_NODE
			c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_NODE
		})
		c := p.run()
		a := spaces(c.sh(read))
		for _, kind := range []string{"net", "ipc", "pid"} {
			equal(t, kind, a[kind], link(kind))
		}
		if a["mnt"] == link("mnt") {
			t.Error("the mounts are the machine's")
		}
		contains(t, "the processes it sees", c.sh("cat /proc/1/comm"), "systemd")
	})
	t.Run("PIDs shared in the pod", func(t *testing.T) {
		p := runPod(t, func(c *cri.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD })
		a, b := p.run(withCommand("sleep", "4321")), p.run()
		equal(t, "namespace", spaces(a.sh(read))["pid"], spaces(b.sh(read))["pid"])
		contains(t, "what the other sees", b.sh("ps"), "sleep 4321")
		a.stop(0)
		equal(t, "state of the other", b.status().State, cri.ContainerState_CONTAINER_RUNNING)
		// An orphan is adopted by the pod's init and reaped.
		b.sh("(sleep 0.1 &) ; sleep 0.4")
		lacks(t, "processes", b.sh("cat /proc/[0-9]*/stat"), ") Z ")
	})
	t.Run("PIDs of another container", func(t *testing.T) {
		p := runPod(t)
		target := p.run(withCommand("sleep", "5432"))
		debug := p.run(security(func(s *cri.LinuxContainerSecurityContext) {
			s.NamespaceOptions.Pid, s.NamespaceOptions.TargetId = cri.NamespaceMode_TARGET, target.id
		}))
		contains(t, "what it sees", debug.sh("ps"), "sleep 5432")
	})
	t.Run("a host port needs no capability over the machine", func(t *testing.T) {
		lacks(t, "links of a pod with a network", runPod(t, withNetwork).run().sh("ip -o link"), "cni0")
	})
}
