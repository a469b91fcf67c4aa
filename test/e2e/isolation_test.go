package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What a container may see and do.

func mount(m *cri.Mount) ctrMod {
	return func(c *cri.ContainerConfig) { c.Mounts = append(c.Mounts, m) }
}

func TestMountsOfFoldersAndFiles(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	dir := scratch(t)
	writeFile(t, dir+"/real/file", "text\n", 0o644)
	if err := os.Symlink(dir+"/real", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	t.Run("writable", func(t *testing.T) {
		equal(t, "output", p.with(t).output("cat /mnt/file; echo new > /mnt/new", mount(&cri.Mount{HostPath: dir + "/real", ContainerPath: "/mnt"})), "text\n")
		if data, err := os.ReadFile(dir + "/real/new"); string(data) != "new\n" {
			t.Errorf("%q, %v", data, err)
		}
	})
	t.Run("read-only", func(t *testing.T) {
		contains(t, "output", p.with(t).output("echo x 2>&1 > /mnt/denied || true; cat /mnt/file", mount(&cri.Mount{HostPath: dir + "/real", ContainerPath: "/mnt", Readonly: true})), "text\n")
		if _, err := os.Stat(dir + "/real/denied"); err == nil {
			t.Error("it could be written")
		}
	})
	t.Run("a file", func(t *testing.T) {
		equal(t, "output", p.with(t).output("cat /etc/motd", mount(&cri.Mount{HostPath: dir + "/real/file", ContainerPath: "/etc/motd"})), "text\n")
	})
	t.Run("a link on the host is followed", func(t *testing.T) {
		equal(t, "output", p.with(t).output("cat /mnt/file", mount(&cri.Mount{HostPath: dir + "/link", ContainerPath: "/mnt"})), "text\n")
	})
	t.Run("a target that has to be made, below another mount", func(t *testing.T) {
		equal(t, "output", p.with(t).output("cat /deep/er/file; ls /deep", mount(&cri.Mount{HostPath: dir + "/real", ContainerPath: "/deep/er"})), "text\ner\n")
	})
	t.Run("order: the outer one first", func(t *testing.T) {
		if err := os.MkdirAll(dir+"/outer/inner", 0o755); err != nil {
			t.Fatal(err)
		}
		equal(t, "output", p.with(t).output("cat /mnt/inner/file",
			mount(&cri.Mount{HostPath: dir + "/real", ContainerPath: "/mnt/inner"}), mount(&cri.Mount{HostPath: dir + "/outer", ContainerPath: "/mnt"})), "text\n")
	})
	t.Run("a source that is not there is an error and is not made", func(t *testing.T) {
		text := refused(t, rt.CreateContainer, p.createRequest(mount(&cri.Mount{HostPath: dir + "/missing", ContainerPath: "/mnt"})),
			codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition)
		contains(t, "the error", text, dir+"/missing")
		if _, err := os.Stat(dir + "/missing"); err == nil {
			t.Error("it was made")
		}
	})
	t.Run("refused", func(t *testing.T) {
		for _, m := range []*cri.Mount{{HostPath: "", ContainerPath: "/mnt"}, {HostPath: dir, ContainerPath: ""}, {HostPath: "relative", ContainerPath: "/mnt"},
			{HostPath: dir, ContainerPath: "/mnt", Propagation: 9}, {HostPath: dir, ContainerPath: "/a\x00b"}} {
			refused(t, rt.CreateContainer, p.createRequest(mount(m)), codes.InvalidArgument)
		}
	})
	t.Run("a target through a link of the image stays in the image", func(t *testing.T) {
		p.with(t).output("true", withImage("evil/mount-symlink"), mount(&cri.Mount{HostPath: dir + "/real", ContainerPath: "/mnt/escaped"}))
		if _, err := os.Lstat("/tmp/escaped"); err == nil {
			t.Error("/tmp/escaped was made on the host")
		}
	})
	t.Run("mounts come back in the status", func(t *testing.T) {
		c := p.with(t).create(mount(&cri.Mount{HostPath: dir + "/real", ContainerPath: "/mnt", Readonly: true}))
		mounts := c.status().Mounts
		if len(mounts) != 1 || mounts[0].ContainerPath != "/mnt" || mounts[0].HostPath != dir+"/real" || !mounts[0].Readonly {
			t.Errorf("mounts are %v", mounts)
		}
	})
}

func privilegedPod(c *cri.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true }

func TestMountPropagation(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	dir := scratch(t)
	command(t, "mount", "--bind", dir, dir)
	command(t, "mount", "--make-rshared", dir)
	t.Cleanup(func() { command(t, "umount", "--recursive", dir) })
	p := runPod(t, privilegedPod)
	later := func(name string) {
		if err := os.MkdirAll(dir+"/"+name, 0o755); err != nil {
			t.Fatal(err)
		}
		command(t, "mount", "-t", "tmpfs", "tmpfs", dir+"/"+name)
		writeFile(t, dir+"/"+name+"/seen", "", 0o644)
		t.Cleanup(func() { command(t, "umount", dir+"/"+name) })
	}
	private := p.run(mount(&cri.Mount{HostPath: dir, ContainerPath: "/mnt"}))
	slave := p.run(mount(&cri.Mount{HostPath: dir, ContainerPath: "/mnt", Propagation: cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER}))
	shared := p.run(mount(&cri.Mount{HostPath: dir, ContainerPath: "/mnt", Propagation: cri.MountPropagation_PROPAGATION_BIDIRECTIONAL}),
		privileged)
	later("later")
	equal(t, "private sees", private.sh("ls /mnt/later"), "")
	equal(t, "host to container sees", slave.sh("ls /mnt/later"), "seen\n")
	equal(t, "bidirectional sees", shared.sh("ls /mnt/later"), "seen\n")
	shared.sh("mkdir /mnt/inside && mount -t tmpfs tmpfs /mnt/inside && touch /mnt/inside/from-container")
	if _, err := os.Stat(dir + "/inside/from-container"); err != nil {
		t.Error("a mount made inside is not seen on the host")
	}
	shared.sh("umount /mnt/inside")
	slave.stop(0)
}

func TestRootReadOnly(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	dir := scratch(t)
	p := runPod(t)
	c := p.run(security(func(s *cri.LinuxContainerSecurityContext) { s.ReadonlyRootfs = true }), mount(&cri.Mount{HostPath: dir, ContainerPath: "/data"}))
	for _, path := range []string{"/x", "/etc/x", "/tmp/x", "/etc/hostname", "/etc/resolv.conf"} {
		if c.exec("touch", path).ExitCode == 0 {
			t.Errorf("%s could be written", path)
		}
	}
	c.sh("touch /data/x /dev/shm/x && echo > /dev/null")
	p.output("echo > /x && rm -r /etc/passwd /bin/vi")
	equal(t, "another container of the image", p.output("ls /etc/passwd /bin/vi"), "/bin/vi\n/etc/passwd\n")
}

func TestCapabilities(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, privilegedPod)
	status := func(t testing.TB, mods ...ctrMod) string { return p.with(t).output("cat /proc/self/status", mods...) }
	caps := func(c *cri.Capability) ctrMod {
		return security(func(s *cri.LinuxContainerSecurityContext) { s.Capabilities = c })
	}
	user := security(func(s *cri.LinuxContainerSecurityContext) { s.RunAsUser = &cri.Int64Value{Value: 1000} })
	const defaults = "00000000a80425fb"
	all, _ := os.ReadFile("/proc/self/status")
	full := procStatus(string(all), "CapBnd")
	for name, c := range map[string]struct {
		mods               []ctrMod
		bnd, eff, prm, amb string
	}{
		"the default fourteen":         {nil, defaults, defaults, defaults, "0"},
		"one added":                    {[]ctrMod{caps(&cri.Capability{AddCapabilities: []string{"NET_ADMIN"}})}, "00000000a80435fb", "00000000a80435fb", "00000000a80435fb", "0"},
		"with the prefix CAP_":         {[]ctrMod{caps(&cri.Capability{AddCapabilities: []string{"CAP_NET_ADMIN"}})}, "00000000a80435fb", "00000000a80435fb", "00000000a80435fb", "0"},
		"one dropped":                  {[]ctrMod{caps(&cri.Capability{DropCapabilities: []string{"CHOWN"}})}, "00000000a80425fa", "00000000a80425fa", "00000000a80425fa", "0"},
		"all dropped":                  {[]ctrMod{caps(&cri.Capability{DropCapabilities: []string{"ALL"}})}, "0", "0", "0", "0"},
		"all dropped, one added":       {[]ctrMod{caps(&cri.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"KILL"}})}, "20", "20", "20", "0"},
		"all added":                    {[]ctrMod{caps(&cri.Capability{AddCapabilities: []string{"ALL"}})}, full, full, full, "0"},
		"all added, one dropped":       {[]ctrMod{caps(&cri.Capability{AddCapabilities: []string{"ALL"}, DropCapabilities: []string{"CHOWN"}})}, full[:15] + "e", full[:15] + "e", full[:15] + "e", "0"},
		"privileged":                   {[]ctrMod{privileged}, full, full, full, "0"},
		"another user has none":        {[]ctrMod{user}, defaults, "0", "0", "0"},
		"another user with an ambient": {[]ctrMod{user, caps(&cri.Capability{AddAmbientCapabilities: []string{"NET_BIND_SERVICE"}})}, defaults, "400", "400", "400"},
	} {
		t.Run(name, func(t *testing.T) {
			text := status(t, c.mods...)
			for field, want := range map[string]string{"CapBnd": c.bnd, "CapEff": c.eff, "CapPrm": c.prm, "CapAmb": c.amb} {
				equal(t, field, procStatus(text, field), strings.Repeat("0", 16-len(want))+want)
			}
			if c.amb == "0" {
				equal(t, "CapInh", procStatus(text, "CapInh"), strings.Repeat("0", 16))
			}
		})
	}
	t.Run("an exec has no more", func(t *testing.T) {
		equal(t, "CapEff", procStatus(p.with(t).run(caps(&cri.Capability{DropCapabilities: []string{"ALL"}})).sh("cat /proc/self/status"), "CapEff"), strings.Repeat("0", 16))
	})
	refused(t, rt.CreateContainer, p.createRequest(caps(&cri.Capability{AddCapabilities: []string{"NO_SUCH"}})), codes.InvalidArgument)
}

func TestPrivileged(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, privilegedPod)
	c := p.run(privileged)
	equal(t, "seccomp", procStatus(c.sh("cat /proc/self/status"), "Seccomp"), "0")
	c.sh("ls /dev/fuse /dev/net/tun && mount -t tmpfs tmpfs /tmp && umount /tmp && cat /proc/sys/kernel/panic > /proc/sys/kernel/panic")
	lacks(t, "sysfs", c.sh("grep ' /sys ' /proc/mounts"), " ro,")
	text := refused(t, rt.CreateContainer, runPod(t).createRequest(privileged),
		codes.InvalidArgument, codes.FailedPrecondition, codes.PermissionDenied)
	contains(t, "the error", text, "privileged")
}

func TestUnprivilegedIsClosed(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, withNetwork)
	c := p.run()
	for name, script := range map[string]string{
		"mount":                       "mount -t tmpfs tmpfs /tmp",
		"writing a kernel setting":    "cat /proc/sys/kernel/panic > /proc/sys/kernel/panic",
		"writing below /sys":          "mkdir /sys/fs/cgroup/evil",
		"SysRq":                       "echo h > /proc/sysrq-trigger",
		"making a device node":        "mknod /tmp/sda b 8 0 && cat /tmp/sda > /dev/null",
		"memory":                      "mknod /tmp/mem c 1 1 && cat /tmp/mem > /dev/null",
		"the kernel's log":            "test -e /dev/kmsg",
		"devices of the machine":      "test -e /dev/fuse",
		"changing the host name":      "hostname evil",
		"the machine's file systems":  "ls /proc/1/root/../../../../run/rktlet",
		"raw disks":                   "ls /dev/vda /dev/sda",
		"loading a module":            "insmod /x",
		"adding an interface":         "ip link add x type dummy",
		"keyrings and tracing others": "cat /proc/1/environ /sys/kernel/debug/x",
	} {
		t.Run(name+" is denied", func(t *testing.T) {
			if answer := c.with(t).exec("sh", "-c", script); answer.ExitCode == 0 {
				t.Errorf("%s worked: %s", script, answer.Stdout)
			}
		})
	}
	equal(t, "/proc/keys", c.sh("cat /proc/keys | wc -c"), "0\n")
	equal(t, "standard devices", c.sh("cd /dev; ls -d full null ptmx pts random shm stdin stdout stderr tty urandom zero fd mqueue | tr '\\n' ' '"),
		"fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ")
}

func TestMaskedAndReadOnlyPaths(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	c := p.run(security(func(s *cri.LinuxContainerSecurityContext) {
		s.MaskedPaths, s.ReadonlyPaths = []string{"/etc/passwd", "/home", "/not/there"}, []string{"/etc/group", "/root"}
	}))
	equal(t, "a masked file", c.sh("cat /etc/passwd"), "")
	equal(t, "a masked folder", c.sh("ls -A /home"), "")
	for _, path := range []string{"/etc/group", "/root/x", "/home/x"} {
		if c.exec("touch", path).ExitCode == 0 {
			t.Errorf("%s could be written", path)
		}
	}
}

func TestNoNewPrivileges(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	field := func(on bool) string {
		return procStatus(p.output("cat /proc/self/status", security(func(s *cri.LinuxContainerSecurityContext) { s.NoNewPrivs = on })), "NoNewPrivs")
	}
	equal(t, "on", field(true), "1")
	equal(t, "off", field(false), "0")
}

func TestSeccompProfiles(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	profile := func(kind cri.SecurityProfile_ProfileType, path string) ctrMod {
		return security(func(s *cri.LinuxContainerSecurityContext) {
			s.Seccomp = &cri.SecurityProfile{ProfileType: kind, LocalhostRef: path}
		})
	}
	equal(t, "the runtime's default filters", procStatus(p.output("cat /proc/self/status", profile(cri.SecurityProfile_RuntimeDefault, "")), "Seccomp"), "2")
	equal(t, "unconfined filters nothing", procStatus(p.output("cat /proc/self/status", profile(cri.SecurityProfile_Unconfined, "")), "Seccomp"), "0")
	path := scratch(t) + "/profile.json"
	writeFile(t, path, `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`, 0o644)
	p.output("! mkdir /tmp/x", profile(cri.SecurityProfile_Localhost, path))
	for name, mod := range map[string]ctrMod{
		"a file that is not there": profile(cri.SecurityProfile_Localhost, path+".missing"), "no file": profile(cri.SecurityProfile_Localhost, ""),
		"a relative file": profile(cri.SecurityProfile_Localhost, "profile.json"), "a type that is none": profile(9, ""),
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			refused(t, rt.CreateContainer, p.createRequest(mod), codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition)
		})
	}
	writeFile(t, path, "not json", 0o644)
	refused(t, rt.CreateContainer, p.createRequest(profile(cri.SecurityProfile_Localhost, path)), codes.InvalidArgument, codes.FailedPrecondition)
}

func TestDevicesAreGivenAsAsked(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	device := func(host, inside, permissions string) ctrMod {
		return func(c *cri.ContainerConfig) {
			c.Devices = append(c.Devices, &cri.Device{HostPath: host, ContainerPath: inside, Permissions: permissions})
		}
	}
	equal(t, "a device", p.output("stat -c '%t:%T %F' /dev/mine", device("/dev/fuse", "/dev/mine", "rwm")), "a:e5 character special file\n")
	refused(t, rt.CreateContainer, p.createRequest(device("/dev/no-such", "/dev/x", "rwm")), codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition)
	refused(t, rt.CreateContainer, p.createRequest(device("/dev/fuse", "/dev/x", "rwx")), codes.InvalidArgument)
}

// The evil images: refused, or harmless. Nothing appears on the host, nothing of the host appears inside.
func TestEvilImages(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	victim := "/tmp/victim"
	writeFile(t, victim, "still here\n", 0o644)
	t.Cleanup(func() { _ = os.Remove(victim) })
	p := runPod(t)
	for _, name := range []string{"dotdot", "dotdot-inside", "absolute", "symlink-write", "symlink-dotdot", "symlink-two-layers", "hardlink",
		"hardlink-absolute", "hardlink-symlink", "whiteout-symlink", "whiteout-dotdot", "whiteout-names", "opaque-root", "overlay-whiteout",
		"overlay-xattr", "device", "deep", "passwd-fifo", "passwd-symlink", "passwd-outside", "passwd-device", "passwd-huge", "passwd-newline",
		"user-huge", "user-negative", "user-hex", "user-space", "etc-symlink", "dev-symlink", "proc-symlink", "sys-symlink", "proc-file",
		"dev-deep", "proc-deep", "sys-deep", "sys-cgroup", "etc-files", "etc-magic", "etc-loop", "etc-fifo", "etc-device", "workdir-symlink",
		"workdir-fd", "mount-symlink", "volume-symlink", "labels", "env", "stop-signal", "diff-id", "diff-id-count", "config-type"} {
		t.Run(name, func(t *testing.T) {
			p := p.with(t)
			image := spec(ref("evil/" + name))
			defer func() {
				if _, err := os.Lstat("/tmp/escaped"); err == nil {
					t.Error("/tmp/escaped appeared on the host")
					_ = os.RemoveAll("/tmp/escaped")
				}
				if data, _ := os.ReadFile(victim); string(data) != "still here\n" {
					t.Error("a file of the host is gone or changed")
					writeFile(t, victim, "still here\n", 0o644)
				}
			}()
			ctx, cancel := timeout(40e9)
			defer cancel()
			if _, err := img.PullImage(ctx, &cri.PullImageRequest{Image: image}); err != nil {
				t.Logf("refused when pulled: %s", checkRefusal(t, err, codes.InvalidArgument, codes.DataLoss, codes.FailedPrecondition, codes.OutOfRange, codes.ResourceExhausted))
				return
			}
			defer removeImage(t, image.Image)
			script := "cat /etc/hostname; id -u; test ! -e /proc/1/root/escaped"
			created, err := rt.CreateContainer(ctx, p.createRequest(withImage("evil/"+name), sh(script)))
			if err != nil {
				t.Logf("refused when created: %s", checkRefusal(t, err, codes.InvalidArgument, codes.FailedPrecondition, codes.NotFound, codes.ResourceExhausted, codes.Internal))
				return
			}
			c := &ctrT{t: t, id: created.ContainerId, pod: p, config: &cri.ContainerConfig{}}
			defer c.remove()
			config, _ := filepath.Glob("/var/lib/rktlet/containers/" + c.id + "/*.json")
			for _, file := range config {
				data, _ := os.ReadFile(file)
				lacks(t, file, string(data), "run.oci.", "org.criu", "org.systemd.property", "LD_PRELOAD")
			}
			if _, err := rt.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: c.id}); err != nil {
				t.Logf("refused when started: %s", checkRefusal(t, err))
				return
			}
			t.Logf("harmless: exit code %d", c.wait().ExitCode)
		})
	}
	t.Run("a number stays a number where passwd has it as a name", func(t *testing.T) {
		// "1000" is a name of root in this image; it must not become root by that.
		c := p.with(t).create(withImage("evil/user-uid-name"), sh("id -u"))
		c.start()
		equal(t, "user", c.lines()[0], "1000")
	})
	t.Run("a label and an annotation change nothing of a unit", func(t *testing.T) {
		hostile := map[string]string{"org.systemd.property.MemoryMax": "uint64 12345", "org.systemd.property.ExecStartPost": "/bin/touch /tmp/escaped",
			"run.oci.handler": "wasm", "run.oci.hooks.stdout": "/tmp/escaped", "org.criu.config": "/tmp/x", "run.oci.systemd.subgroup": "evil",
			"io.kubernetes.cri-o.userns-mode": "auto", "run.oci.keep_original_groups": "1"}
		p := runPod(t, func(c *cri.PodSandboxConfig) { c.Annotations, c.Labels = hostile, hostile })
		c := p.run(withImage("evil/labels"), func(c *cri.ContainerConfig) { c.Annotations, c.Labels = hostile, hostile })
		for _, unit := range []string{p.unit(), c.unit()} {
			all := command(t, "systemctl", "show", unit)
			lacks(t, unit, all, "12345", "escaped", "wasm", "criu", "evil\n")
		}
		files, _ := exec.Command("grep", "-rlE", "--include=*.json", `run\.oci\.|org\.criu|org\.systemd\.property`, "/var/lib/rktlet/containers", "/run/rktlet").Output()
		equal(t, "OCI configurations with such annotations", string(files), "")
		st := c.status()
		equal(t, "annotations given back", fmt.Sprint(st.Annotations), fmt.Sprint(hostile))
	})
}
