package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Fields of the security context beyond those of isolation_test.go and process_test.go.

func runtimeStatus(t testing.TB) *cri.StatusResponse {
	t.Helper()
	return do(t, rt.Status, &cri.StatusRequest{})
}

func handlerFeatures(t testing.TB) *cri.RuntimeHandlerFeatures {
	t.Helper()
	for _, h := range runtimeStatus(t).RuntimeHandlers {
		if h.Name == *handler {
			return h.Features
		}
	}
	t.Fatalf("the status has no handler %q", *handler)
	return nil
}

func TestSupplementalGroupsPolicyIsAnnounced(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	equal(t, "the feature", runtimeStatus(t).Features.GetSupplementalGroupsPolicy(), true)
	p := runPod(t)
	for policy, want := range map[cri.SupplementalGroupsPolicy]string{
		cri.SupplementalGroupsPolicy_Merge:  "1001 77 2001 2002",
		cri.SupplementalGroupsPolicy_Strict: "1001 77",
	} {
		t.Run(policy.String(), func(t *testing.T) {
			c := p.with(t).run(withImage("test/users"), security(func(s *cri.LinuxContainerSecurityContext) {
				s.SupplementalGroups, s.SupplementalGroupsPolicy = []int64{77}, policy
			}))
			var groups []string
			for _, g := range c.status().User.Linux.SupplementalGroups {
				groups = append(groups, itoa(g))
			}
			equal(t, "groups in the status", strings.Join(groups, " "), want)
			equal(t, "groups of the process", procStatus(readProc(t, c.pid(), "status"), "Groups"), sortedNumbers(want))
			equal(t, "groups of an exec", procStatus(c.sh("cat /proc/self/status"), "Groups"), sortedNumbers(want))
		})
	}
}

func TestMountReadOnlyAllTheWayDown(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	equal(t, "the feature", handlerFeatures(t).GetRecursiveReadOnlyMounts(), true)
	dir := scratch(t)
	writeFile(t, dir+"/file", "text\n", 0o644)
	if err := os.MkdirAll(dir+"/below/deeper", 0o755); err != nil {
		t.Fatal(err)
	}
	command(t, "mount", "-t", "tmpfs", "tmpfs", dir+"/below")
	t.Cleanup(func() { command(t, "umount", "--recursive", dir+"/below") })
	if err := os.MkdirAll(dir+"/below/deeper", 0o755); err != nil {
		t.Fatal(err)
	}
	command(t, "mount", "-t", "tmpfs", "tmpfs", dir+"/below/deeper")
	p := runPod(t)
	plain := &cri.Mount{HostPath: dir, ContainerPath: "/mnt", Readonly: true}
	all := &cri.Mount{HostPath: dir, ContainerPath: "/mnt", Readonly: true, RecursiveReadOnly: true}
	t.Run("plain read-only leaves what is mounted below writable", func(t *testing.T) {
		p.with(t).output("! touch /mnt/x && touch /mnt/below/x /mnt/below/deeper/x && rm /mnt/below/x /mnt/below/deeper/x", mount(plain))
	})
	t.Run("recursive", func(t *testing.T) {
		c := p.with(t).run(mount(all))
		c.sh("cat /mnt/file && ! touch /mnt/x && ! touch /mnt/below/x && ! touch /mnt/below/deeper/x")
		equal(t, "in the status", c.status().Mounts[0].RecursiveReadOnly, true)
	})
	t.Run("of a privileged container, too", func(t *testing.T) {
		runPod(t, privilegedPod).output("! touch /mnt/below/x", mount(all), privileged)
	})
	t.Run("a file", func(t *testing.T) {
		p.with(t).output("cat /file && ! sh -c 'echo x > /file'",
			mount(&cri.Mount{HostPath: dir + "/file", ContainerPath: "/file", Readonly: true, RecursiveReadOnly: true}))
	})
	for name, m := range map[string]*cri.Mount{
		"not read-only":          {HostPath: dir, ContainerPath: "/mnt", RecursiveReadOnly: true},
		"with host to container": {HostPath: dir, ContainerPath: "/mnt", Readonly: true, RecursiveReadOnly: true, Propagation: cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER},
		"bidirectional":          {HostPath: dir, ContainerPath: "/mnt", Readonly: true, RecursiveReadOnly: true, Propagation: cri.MountPropagation_PROPAGATION_BIDIRECTIONAL},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			contains(t, "the error", refused(t, rt.CreateContainer, p.createRequest(mount(m)), codes.InvalidArgument), "recursive_read_only")
		})
	}
}

// What an image has at the paths where something is mounted is hidden, or resolved within the image.
func TestEvilMountPoints(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	victim := "/tmp/victim"
	writeFile(t, victim, "still here\n", 0o644)
	t.Cleanup(func() { _ = os.Remove(victim) })
	p := runPod(t)
	check := func(t *testing.T, image, script string, mods ...ctrMod) {
		t.Helper()
		p.with(t).output(script, append([]ctrMod{withImage("evil/" + image)}, mods...)...)
	}
	t.Run("below /dev", func(t *testing.T) {
		check(t, "dev-deep", `grep -q ' /dev/shm tmpfs ' /proc/mounts && grep -q ' /dev/pts devpts ' /proc/mounts &&
			grep -q ' /dev/mqueue mqueue ' /proc/mounts && test -c /dev/null && test "$(readlink /dev/fd)" = /proc/self/fd`)
	})
	t.Run("devices below a link in /dev", func(t *testing.T) {
		check(t, "dev-deep", "test -c /dev/net/tun", func(c *cri.ContainerConfig) {
			c.Devices = []*cri.Device{{HostPath: "/dev/net/tun", ContainerPath: "/dev/net/tun", Permissions: "rw"}}
		})
	})
	t.Run("below /proc", func(t *testing.T) {
		check(t, "proc-deep", "grep -q ' /proc/sys proc ro' /proc/mounts && test -e /proc/1/status")
	})
	t.Run("below /sys", func(t *testing.T) {
		check(t, "sys-deep", "grep -q ' /sys/fs/cgroup cgroup2 ro' /proc/mounts && test -d /sys/kernel")
		check(t, "sys-cgroup", "grep -q ' /sys/fs/cgroup cgroup2 ro' /proc/mounts")
	})
	t.Run("the pod's files through links", func(t *testing.T) {
		check(t, "etc-files", "cat /tmp/escaped /tmp/escaped-too /etc/hosts > /dev/null && test -s /etc/hostname")
	})
	t.Run("masked and read-only paths through links", func(t *testing.T) {
		check(t, "masked-symlink", "! touch /protected/x 2> /dev/null && ! touch /tmp/x 2> /dev/null && test ! -s /masked",
			security(func(s *cri.LinuxContainerSecurityContext) {
				s.MaskedPaths, s.ReadonlyPaths = []string{"/masked"}, []string{"/protected"}
			}))
	})
	t.Run("a device through a link", func(t *testing.T) {
		check(t, "masked-symlink", "test -c /protected/escaped && test -c /tmp/escaped", func(c *cri.ContainerConfig) {
			c.Devices = []*cri.Device{{HostPath: "/dev/net/tun", ContainerPath: "/protected/escaped", Permissions: "rw"}}
		})
	})
	for _, image := range []string{"etc-fifo", "etc-device", "etc-loop", "etc-magic", "proc-file", "sys-symlink"} {
		t.Run(image+" is refused at once", func(t *testing.T) {
			if image == "etc-magic" && *handler == "runc" {
				t.Skip("runc looks for it in the image instead")
			}
			pull(t, "evil/"+image)
			refused(t, rt.CreateContainer, p.createRequest(withImage("evil/"+image)), codes.FailedPrecondition)
		})
	}
	if data, _ := os.ReadFile(victim); string(data) != "still here\n" {
		t.Error("a file of the host is gone or changed")
	}
}

// sortedNumbers is "2 1 3" as "1 2 3", as the kernel lists groups.
func sortedNumbers(s string) string {
	fields := strings.Fields(s)
	slices.SortFunc(fields, func(a, b string) int {
		x, _ := strconv.Atoi(a)
		y, _ := strconv.Atoi(b)
		return x - y
	})
	return strings.Join(fields, " ")
}

// userns gives the pod a user namespace, as the kubelet asks for one.
func userns(c *cri.PodSandboxConfig) {
	c.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_POD
	c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &cri.UserNamespace{Mode: cri.NamespaceMode_POD,
		Uids: []*cri.IDMapping{{ContainerId: 0, HostId: 1000000, Length: 65536}},
		Gids: []*cri.IDMapping{{ContainerId: 0, HostId: 2000000, Length: 65536}}}
}

// ownerOf is the user namespace that another namespace of a process belongs to, as an inode number.
func ownerOf(t testing.TB, pid int, kind string) uint64 {
	t.Helper()
	file, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	const nsGetUserns = 0xb701
	fd, _, errno := syscall.Syscall(syscall.SYS_IOCTL, file.Fd(), nsGetUserns, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	defer syscall.Close(int(fd))
	var st syscall.Stat_t
	if err := syscall.Fstat(int(fd), &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func inode(t testing.TB, path string) uint64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestUserNamespace(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	equal(t, "the feature", handlerFeatures(t).GetUserNamespaces(), true)
	for name, mode := range map[string]cri.NamespaceMode{"PIDs of its own": cri.NamespaceMode_CONTAINER, "PIDs of the pod": cri.NamespaceMode_POD} {
		t.Run(name, func(t *testing.T) {
			p := runPod(t, userns, func(c *cri.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions.Pid = mode })
			c := p.run()
			equal(t, "users", strings.Join(strings.Fields(c.sh("cat /proc/self/uid_map")), " "), "0 1000000 65536")
			equal(t, "groups", strings.Join(strings.Fields(c.sh("cat /proc/self/gid_map")), " "), "0 2000000 65536")
			equal(t, "user inside", c.sh("id -u; id -g"), "0\n0\n")
			status := readProc(t, c.pid(), "status")
			equal(t, "user outside", strings.Fields(procStatus(status, "Uid"))[0], "1000000")
			equal(t, "group outside", strings.Fields(procStatus(status, "Gid"))[0], "2000000")
			own := inode(t, fmt.Sprintf("/proc/%d/ns/user", c.pid()))
			for _, kind := range []string{"net", "ipc", "uts", "pid", "mnt", "cgroup"} {
				equal(t, "owner of "+kind, ownerOf(t, c.pid(), kind), own)
			}
			equal(t, "a second container's", inode(t, fmt.Sprintf("/proc/%d/ns/user", p.run().pid())), own)
			if own == inode(t, "/proc/1/ns/user") {
				t.Error("it is the host's")
			}
			equal(t, "its pod's status", p.status().Linux.Namespaces.Options.UsernsOptions.GetUids()[0].HostId, 1000000)
		})
	}
}

func TestUserNamespaceFiles(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	dir := scratch(t)
	for _, name := range []string{"root", "mine"} {
		writeFile(t, dir+"/"+name, name+"\n", 0o600)
	}
	if err := os.Chown(dir+"/mine", 1000000, 2000000); err != nil {
		t.Fatal(err)
	}
	p := runPod(t, userns)
	t.Run("the image's files belong to whom the image says", func(t *testing.T) {
		c := p.with(t).run()
		equal(t, "owners", c.sh("stat -c '%u:%g' / /bin /bin/busybox /etc/passwd /dev/shm | sort -u"), "0:0\n")
		c.sh("chown 1001:1001 /etc/group && touch /new && echo x >> /etc/passwd && mkdir -p /tmp/a && chmod 700 /tmp/a")
		upper := "/var/lib/rktlet/containers/" + c.id + "/upper"
		for path, want := range map[string][2]uint32{"": {1000000, 2000000}, "/new": {1000000, 2000000}, "/etc/group": {1001001, 2001001}, "/etc/passwd": {1000000, 2000000}} {
			var st syscall.Stat_t
			if err := syscall.Lstat(upper+path, &st); err != nil {
				t.Error(err)
			} else if st.Uid != want[0] || st.Gid != want[1] {
				t.Errorf("%s belongs to %d:%d on the host", path, st.Uid, st.Gid)
			}
		}
		c.stop(0)
		c.remove()
		equal(t, "the image's file in another container", p.with(t).output("stat -c %u /etc/group"), "0\n")
	})
	t.Run("an image of many layers", func(t *testing.T) {
		equal(t, "owners", p.with(t).output("stat -c %u /data0/0 /data9/3 /small/1999 | sort -u", withImage("test/big")), "0\n")
	})
	t.Run("what is not mapped is nobody's", func(t *testing.T) {
		equal(t, "owners", p.with(t).output("stat -c '%u' /mnt/root /mnt/mine", mount(&cri.Mount{HostPath: dir, ContainerPath: "/mnt"})), "65534\n0\n")
		p.with(t).output("cat /mnt/mine && ! cat /mnt/root", mount(&cri.Mount{HostPath: dir, ContainerPath: "/mnt"}))
	})
	t.Run("a folder that only root can reach", func(t *testing.T) {
		writeFile(t, dir+"/closed/open/file", "text\n", 0o644)
		if err := os.Chmod(dir+"/closed", 0o700); err != nil {
			t.Fatal(err)
		}
		equal(t, "content", p.with(t).output("cat /mnt/file", mount(&cri.Mount{HostPath: dir + "/closed/open", ContainerPath: "/mnt"})), "text\n")
	})
	t.Run("the log can be opened again", func(t *testing.T) {
		c := p.with(t).run(sh("echo one > /dev/stdout; echo two > /proc/self/fd/2; exec sleep 100000"))
		c.waitForLog("two")
		equal(t, "log", c.text("stdout"), "one\n")
		user := p.with(t).run(sh("echo three > /dev/stdout"), security(func(s *cri.LinuxContainerSecurityContext) { s.RunAsUser = &cri.Int64Value{Value: 4321} }))
		equal(t, "exit code", user.wait().ExitCode, 0)
		equal(t, "log of a user", user.text("stdout"), "three\n")
	})
	t.Run("the pod's files", func(t *testing.T) {
		p.with(t).output("cat /etc/hosts /etc/hostname /etc/resolv.conf > /dev/null && touch /dev/shm/x && echo > /dev/null && test -w /dev/shm")
	})
	t.Run("variables that are no UTF-8", func(t *testing.T) {
		equal(t, "value", p.with(t).output("printf %s \"$X\" | od -An -tx1 | tr -d ' '", func(c *cri.ContainerConfig) {
			c.Envs = []*cri.KeyValue{{Key: "X", Value: []byte{0xff}}}
		}), "ff\n")
	})
	t.Run("a root that is read-only", func(t *testing.T) {
		p.with(t).output("! touch /x && ! touch /etc/hosts && touch /dev/shm/y", security(func(s *cri.LinuxContainerSecurityContext) { s.ReadonlyRootfs = true }))
	})
}

func TestUserNamespaceProcesses(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, userns, func(c *cri.PodSandboxConfig) {
		c.Hostname = "mapped"
		c.Linux.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "80", "kernel.shm_rmid_forced": "1", "kernel.msgmax": "16384"}
	})
	c := p.run()
	equal(t, "sysctls", c.sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced /proc/sys/kernel/msgmax"), "80\n1\n16384\n")
	equal(t, "name", c.sh("hostname"), "mapped\n")
	equal(t, "parent", procStatus(readProc(t, c.pid(), "status"), "PPid"), "1")
	t.Run("root in there is none out here", func(t *testing.T) {
		for name, script := range map[string]string{
			"a device node": "mknod /tmp/x b 8 0", "a kernel setting": "cat /proc/sys/kernel/panic > /proc/sys/kernel/panic",
			"the memory of PID 1's parent": "cat /proc/1/root/proc/kcore", "an unmapped user": "chown 70000 /tmp",
		} {
			if c.with(t).exec("sh", "-c", script).ExitCode == 0 {
				t.Errorf("%s worked", name)
			}
		}
	})
	t.Run("all capabilities, and the host's settings stay closed", func(t *testing.T) {
		all := security(func(s *cri.LinuxContainerSecurityContext) {
			s.Capabilities = &cri.Capability{AddCapabilities: []string{"ALL"}}
			s.Seccomp = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}
		})
		p.with(t).output("mount -t tmpfs tmpfs /tmp && umount /tmp && ip link add d0 type dummy 2> /dev/null; ! mknod /tmp/x b 8 0", all)
	})
	t.Run("network", func(t *testing.T) {
		contains(t, "addresses", c.with(t).sh("ip addr"), p.with(t).status().Network.Ip)
		web := p.with(t).run(withImage("test/web"), withCommand("httpd", "-f", "-p", "80", "-h", "/www"))
		eventually(t, 10e9, "it serves", func() error {
			out, err := try("busybox", "wget", "-qO-", "http://"+p.status().Network.Ip+":80/")
			if err != nil || !strings.Contains(out, "hello from the pod") {
				return fmt.Errorf("%v: %s", err, out)
			}
			return nil
		})
		web.stop(0)
	})
	t.Run("devices", func(t *testing.T) {
		p.with(t).output("test -c /dev/null && echo > /dev/null && head -c1 /dev/zero > /dev/null && test -c /dev/net/tun", func(c *cri.ContainerConfig) {
			c.Devices = []*cri.Device{{HostPath: "/dev/net/tun", ContainerPath: "/dev/net/tun", Permissions: "rw"}}
		})
	})
	t.Run("a terminal", func(t *testing.T) {
		tty := p.with(t).run(sh("tty; stat -c %u $(tty); exec sleep 100000"), func(c *cri.ContainerConfig) { c.Tty = true })
		tty.waitForLog("/dev/")
		tty.waitForLog(" 0")
	})
}

func TestUserNamespaceOutlivesThePodsProcessAndTheDaemon(t *testing.T) {
	leavesNothing(t)
	p := runPod(t, userns, func(c *cri.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD })
	c := p.run()
	before := inode(t, fmt.Sprintf("/proc/%d/ns/user", c.pid()))
	main := unitProperty(t, p.unit(), "MainPID")
	command(t, "systemctl", "kill", "--kill-who=main", "--signal=KILL", p.unit())
	eventually(t, 5e9, "systemd starts it again", func() error {
		if now := unitProperty(t, p.unit(), "MainPID"); now == main || now == "0" || unitProperty(t, p.unit(), "ActiveState") != "active" {
			return fmt.Errorf("main process is %s", now)
		}
		return nil
	})
	killDaemon(t)
	equal(t, "an exec", c.sh("id -u"), "0\n")
	late := p.run()
	equal(t, "a later container's", inode(t, fmt.Sprintf("/proc/%d/ns/user", late.pid())), before)
	equal(t, "its network", inode(t, fmt.Sprintf("/proc/%d/ns/net", late.pid())), inode(t, fmt.Sprintf("/proc/%d/ns/net", c.pid())))
}

func TestUserNamespaceRefusals(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	options := func(change func(*cri.NamespaceOption)) podMod {
		return func(c *cri.PodSandboxConfig) { userns(c); change(c.Linux.SecurityContext.NamespaceOptions) }
	}
	for name, mod := range map[string]podMod{
		"no users":                options(func(o *cri.NamespaceOption) { o.UsernsOptions.Uids = nil }),
		"no groups":               options(func(o *cri.NamespaceOption) { o.UsernsOptions.Gids = nil }),
		"an empty range":          options(func(o *cri.NamespaceOption) { o.UsernsOptions.Uids[0].Length = 0 }),
		"no root":                 options(func(o *cri.NamespaceOption) { o.UsernsOptions.Uids[0].ContainerId = 1 }),
		"no root's group":         options(func(o *cri.NamespaceOption) { o.UsernsOptions.Gids[0].ContainerId = 1 }),
		"a range beyond the end":  options(func(o *cri.NamespaceOption) { o.UsernsOptions.Uids[0].HostId = 0xffffff00 }),
		"the host's PIDs":         options(func(o *cri.NamespaceOption) { o.Pid = cri.NamespaceMode_NODE }),
		"the host's IPC":          options(func(o *cri.NamespaceOption) { o.Ipc = cri.NamespaceMode_NODE }),
		"a mode that is none":     options(func(o *cri.NamespaceOption) { o.UsernsOptions.Mode = 9 }),
		"the host's, with ranges": options(func(o *cri.NamespaceOption) { o.UsernsOptions.Mode = cri.NamespaceMode_NODE }),
		"a user mapped twice": options(func(o *cri.NamespaceOption) {
			o.UsernsOptions.Uids = append(o.UsernsOptions.Uids, &cri.IDMapping{ContainerId: 65535, HostId: 5, Length: 1})
		}),
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, rt.RunPodSandbox, podRequest(podConfig(t, mod)), codes.InvalidArgument)
		})
	}
	p := runPod(t, userns)
	same := p.config.Linux.SecurityContext.NamespaceOptions.UsernsOptions
	p.output("true", security(func(s *cri.LinuxContainerSecurityContext) { s.NamespaceOptions.UsernsOptions = same }))
	for name, change := range map[string]func(*cri.LinuxContainerSecurityContext){
		"another namespace than the pod's": func(s *cri.LinuxContainerSecurityContext) {
			s.NamespaceOptions.UsernsOptions = &cri.UserNamespace{Uids: []*cri.IDMapping{{HostId: 1, Length: 1}}, Gids: same.Gids}
		},
		"the host's": func(s *cri.LinuxContainerSecurityContext) {
			s.NamespaceOptions.UsernsOptions = &cri.UserNamespace{Mode: cri.NamespaceMode_NODE}
		},
		"a user that it hasn't":  func(s *cri.LinuxContainerSecurityContext) { s.RunAsUser = &cri.Int64Value{Value: 65536} },
		"a group that it hasn't": func(s *cri.LinuxContainerSecurityContext) { s.SupplementalGroups = []int64{70000} },
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, rt.CreateContainer, p.createRequest(security(change)), codes.InvalidArgument)
		})
	}
	t.Run("one where the pod has none", func(t *testing.T) {
		refused(t, rt.CreateContainer, runPod(t).createRequest(security(func(s *cri.LinuxContainerSecurityContext) { s.NamespaceOptions.UsernsOptions = same })), codes.InvalidArgument)
	})
}

func TestUserNamespaceOnTheHostsNetwork(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	equal(t, "the feature", runtimeStatus(t).Features.GetUserNamespacesHostNetwork(), true)
	p := runPod(t, userns, func(c *cri.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_NODE
	})
	c := p.run()
	equal(t, "user outside", strings.Fields(procStatus(readProc(t, c.pid(), "status"), "Uid"))[0], "1000000")
	equal(t, "network", inode(t, fmt.Sprintf("/proc/%d/ns/net", c.pid())), inode(t, "/proc/1/ns/net"))
	c.sh("ip link > /dev/null && ls /sys/class/net/lo > /dev/null && ! mkdir /sys/fs/cgroup/x && ! ip link set lo down")
}

func TestUserNamespacePrivileged(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, userns, privilegedPod)
	c := p.run(privileged)
	equal(t, "user outside", strings.Fields(procStatus(readProc(t, c.pid(), "status"), "Uid"))[0], "1000000")
	c.sh("mount -t tmpfs tmpfs /tmp && umount /tmp && ! mknod /tmp/x b 8 0 && cat /proc/mounts")
}

// The kernels of the test machines have neither; where one has, it is not asked here.
func TestSecurityModulesThatTheKernelHasNot(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	if data, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled"); strings.HasPrefix(string(data), "Y") {
		t.Log("this kernel has AppArmor")
	} else {
		profile := func(kind cri.SecurityProfile_ProfileType, name string) ctrMod {
			return security(func(s *cri.LinuxContainerSecurityContext) {
				s.Apparmor = &cri.SecurityProfile{ProfileType: kind, LocalhostRef: name}
			})
		}
		old := func(name string) ctrMod {
			return security(func(s *cri.LinuxContainerSecurityContext) { s.ApparmorProfile = name })
		}
		p.output("true", profile(cri.SecurityProfile_RuntimeDefault, ""))
		p.output("true", profile(cri.SecurityProfile_Unconfined, ""))
		p.output("true", old("runtime/default"))
		for _, mod := range []ctrMod{profile(cri.SecurityProfile_Localhost, "mine"), profile(cri.SecurityProfile_Localhost, "localhost/mine"), old("localhost/mine")} {
			contains(t, "the error", refused(t, rt.CreateContainer, p.createRequest(mod), codes.FailedPrecondition), "'mine'", "AppArmor")
		}
		for _, mod := range []ctrMod{profile(9, ""), profile(cri.SecurityProfile_Localhost, ""), profile(cri.SecurityProfile_Localhost, "a b"), old("mine")} {
			refused(t, rt.CreateContainer, p.createRequest(mod), codes.InvalidArgument)
		}
	}
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		t.Log("this kernel has SELinux")
		return
	}
	options := &cri.SELinuxOption{User: "system_u", Role: "system_r", Type: "container_t", Level: "s0:c1,c2"}
	contains(t, "the error", refused(t, rt.CreateContainer, p.createRequest(security(func(s *cri.LinuxContainerSecurityContext) {
		s.SelinuxOptions = options
	})), codes.FailedPrecondition), "SELinux")
	contains(t, "the error", refused(t, rt.RunPodSandbox, podRequest(podConfig(t, func(c *cri.PodSandboxConfig) {
		c.Linux.SecurityContext.SelinuxOptions = options
	})), codes.FailedPrecondition), "SELinux")
	refused(t, rt.CreateContainer, p.createRequest(security(func(s *cri.LinuxContainerSecurityContext) {
		s.SelinuxOptions = &cri.SELinuxOption{Type: "container_t\nx"}
	})), codes.InvalidArgument)
	p.output("true", security(func(s *cri.LinuxContainerSecurityContext) { s.SelinuxOptions = &cri.SELinuxOption{} }))
}

func TestDevicePermissions(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	device := func(permissions string) ctrMod {
		return func(c *cri.ContainerConfig) {
			c.Devices = []*cri.Device{{HostPath: "/dev/net/tun", ContainerPath: "/dev/mine", Permissions: permissions}}
		}
	}
	// The kernel's filter is asked, not the node's mode: a shell opens it for reading, or for writing.
	const try = "r=no; w=no; (: < /dev/mine) 2> /dev/null && r=yes; (: > /dev/mine) 2> /dev/null && w=yes; echo $r $w"
	equal(t, "all", p.output(try, device("rwm")), "yes yes\n")
	equal(t, "none given is all", p.output(try, device("")), "yes yes\n")
	equal(t, "reading", p.output(try, device("r")), "yes no\n")
	equal(t, "writing", p.output(try, device("w")), "no yes\n")
	equal(t, "a node of the same device made inside", p.output("mknod /tmp/x c 10 200 && ! sh -c ': < /tmp/x' 2> /dev/null && echo closed"), "closed\n")
	c := p.run(device("r"))
	equal(t, "of the unit", strings.Contains(unitProperty(t, c.unit(), "DeviceAllow"), "10:200 r"), true)
	equal(t, "an exec's", c.sh("(: > /dev/mine) 2> /dev/null || echo denied"), "denied\n")
}

// The CRI has no resource limits of processes. They are systemd's: the unit's own, which a drop-in of all containers' units
// can change.
func TestProcessLimitsAreTheUnits(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	limits := "ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -u"
	c := p.run(sh(limits + "; exec sleep 100000"))
	eventually(t, 10e9, "its limits are in the log", func() error {
		if n := strings.Count(c.text("stdout"), "\n"); n < 4 {
			return fmt.Errorf("%d lines", n)
		}
		return nil
	})
	equal(t, "limits of an exec", c.sh(limits), c.text("stdout"))
	dir := "/run/systemd/system/rktlet-ctr-.service.d"
	writeFile(t, dir+"/50-e2e.conf", "[Service]\nLimitNOFILE=1234:2345\nLimitCORE=4096\n", 0o644)
	command(t, "systemctl", "daemon-reload")
	t.Cleanup(func() {
		_ = os.RemoveAll(dir)
		command(t, "systemctl", "daemon-reload")
	})
	with := p.run()
	for name, want := range map[string]string{"Max open files": "1234 2345", "Max core file size": "4096 4096"} {
		for _, line := range strings.Split(readProc(t, with.pid(), "limits"), "\n") {
			if rest, ok := strings.CutPrefix(line, name); ok {
				equal(t, name, strings.Join(strings.Fields(rest)[:2], " "), want)
			}
		}
	}
	equal(t, "limits of an exec", c.with(t).pod.with(t).run().sh("ulimit -Sn; ulimit -Hn"), "1234\n2345\n")
}

// Nothing of a request is text of a unit file, or a specifier of systemd's.
func TestThreatNamesAreNoUnitText(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	t.Cleanup(func() { _ = os.Remove("/tmp/escaped") })
	evil := "x\n[Service]\nExecStartPost=/bin/touch /tmp/escaped\nMemoryMax=12345\\\n%n %h $HOME ${X} \"'\\x"
	hostile := map[string]string{"a\nExecStartPost": "/bin/touch /tmp/escaped\nb", "%n": "$HOME"}
	config := podConfig(t, func(c *cri.PodSandboxConfig) {
		c.Metadata.Name, c.Metadata.Namespace, c.Metadata.Uid = evil, evil, evil
		c.Labels, c.Annotations = hostile, hostile
	})
	p := &podT{t: t, config: config, id: do(t, rt.RunPodSandbox, podRequest(config)).PodSandboxId}
	t.Cleanup(p.remove)
	c := p.run(func(c *cri.ContainerConfig) {
		c.Metadata.Name, c.Labels, c.Annotations = evil, hostile, hostile
		c.Command, c.Args = []string{"sh", "-c", "echo \"$1\"; exec sleep 100000", "%n $HOME"}, []string{"%n $HOME ${HOME} $$\nExecStartPost=/bin/touch /tmp/escaped"}
	})
	c.waitForLog("ExecStartPost")
	equal(t, "the argument", c.text("stdout"), "%n $HOME ${HOME} $$\nExecStartPost=/bin/touch /tmp/escaped\n")
	for _, unit := range []string{p.unit(), c.unit()} {
		equal(t, "ExecStartPost of "+unit, unitProperty(t, unit, "ExecStartPost"), "")
		lacks(t, "MemoryMax", unitProperty(t, unit, "MemoryMax"), "12345")
		if strings.Contains(unitProperty(t, unit, "Description"), "\n") {
			t.Errorf("the description of %s has several lines", unit)
		}
		file, err := os.ReadFile("/run/systemd/transient/" + unit)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(file), "\n") {
			if strings.HasPrefix(line, "ExecStartPost") || strings.HasPrefix(line, "MemoryMax=12345") || line == "[Service]\r" {
				t.Errorf("a line of %s: %s", unit, line)
			}
		}
	}
	// systemd reads the files again.
	command(t, "systemctl", "daemon-reload")
	equal(t, "ExecStartPost after a reload", unitProperty(t, c.unit(), "ExecStartPost"), "")
	st := do(t, rt.PodSandboxStatus, &cri.PodSandboxStatusRequest{PodSandboxId: p.id}).Status
	equal(t, "the name given back", st.Metadata.Name, evil)
	equal(t, "the labels given back", fmt.Sprint(st.Labels), fmt.Sprint(hostile))
	c.stop(0)
	if _, err := os.Stat("/tmp/escaped"); err == nil {
		t.Error("/tmp/escaped was made")
	}
}

func TestSeccompDefaultDeniesWhatItShould(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, privilegedPod)
	profile := func(kind cri.SecurityProfile_ProfileType, add ...string) ctrMod {
		return security(func(s *cri.LinuxContainerSecurityContext) {
			s.Seccomp = &cri.SecurityProfile{ProfileType: kind}
			s.Capabilities = &cri.Capability{AddCapabilities: add}
		})
	}
	const script = "unshare -U true 2> /dev/null && echo -n userns; unshare -m true 2> /dev/null && echo -n ' mountns'; echo"
	equal(t, "unconfined", p.output(script, profile(cri.SecurityProfile_Unconfined)), "userns\n")
	equal(t, "the default", p.output(script, profile(cri.SecurityProfile_RuntimeDefault)), "\n")
	equal(t, "the default with CAP_SYS_ADMIN", p.output(script, profile(cri.SecurityProfile_RuntimeDefault, "SYS_ADMIN")), "userns mountns\n")
	equal(t, "a privileged container has none", procStatus(p.output("cat /proc/self/status", privileged, security(func(s *cri.LinuxContainerSecurityContext) {
		s.Seccomp = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}
	})), "Seccomp"), "0")
	c := p.run(profile(cri.SecurityProfile_RuntimeDefault))
	equal(t, "an exec", c.sh(script), "\n")
}
