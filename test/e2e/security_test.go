package e2e

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Fields of the security context beyond those of isolation_test.go and process_test.go.

func runtimeStatus(t testing.TB) *cri.StatusResponse {
	t.Helper()
	return do(t, rt.Status, &cri.StatusRequest{})
}

func defaultHandler(t testing.TB) *cri.RuntimeHandlerFeatures {
	t.Helper()
	for _, h := range runtimeStatus(t).RuntimeHandlers {
		if h.Name == "" {
			return h.Features
		}
	}
	t.Fatal("the status has no handler without a name")
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
	equal(t, "the feature", defaultHandler(t).GetRecursiveReadOnlyMounts(), true)
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
