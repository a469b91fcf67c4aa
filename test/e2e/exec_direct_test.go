package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What a process in a container is, but for what differs between any two.
const facts = `grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Sig(Blk|Ign|Cgt)|Cpus_allowed:|Mems_allowed:)' /proc/self/status
	umask; pwd; env | sort; cat /proc/self/limits
	cat /proc/self/oom_score_adj /proc/self/attr/current 2>/dev/null
	for n in cgroup ipc mnt net pid uts user; do readlink /proc/self/ns/$n; done
	readlink /proc/self/root; cat /proc/self/mountinfo | wc -l
	echo that is all`

// executes says who is the parent of the command that a container executes, seen from the host.
func executes(t *testing.T, c *ctrT) string {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.exec("sleep", "20")
	}()
	found, commands := "", []string{}
	defer func() {
		for _, pid := range commands {
			_, _ = try("kill", pid)
		}
		<-done
	}()
	eventually(t, 15*time.Second, "a command in a cgroup of its own", func() error {
		groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + c.unit() + "/*exec-*/cgroup.procs")
		deep, _ := filepath.Glob("/sys/fs/cgroup/*/*/" + c.unit() + "/*exec-*/cgroup.procs")
		for _, group := range append(groups, deep...) {
			pids, _ := os.ReadFile(group)
			all := ""
			for _, pid := range strings.Fields(string(pids)) {
				line, _ := os.ReadFile("/proc/" + pid + "/cmdline")
				all += string(line)
				if strings.HasPrefix(string(line), "sleep\x0020\x00") {
					commands = append(commands, pid)
				}
			}
			if len(commands) == 0 {
				continue
			}
			found = "rktlet-exec"
			if strings.Contains(all, "--cgroup-manager") {
				found = "the OCI runtime"
			}
			return nil
		}
		return fmt.Errorf("none of %v", append(groups, deep...))
	})
	return found
}

func TestExecIsAllThatTheContainerIs(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	seccomp := func(s *cri.LinuxContainerSecurityContext) {
		s.Seccomp = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}
	}
	user := func(s *cri.LinuxContainerSecurityContext) {
		s.RunAsUser, s.RunAsGroup, s.SupplementalGroups = &cri.Int64Value{Value: 1001}, &cri.Int64Value{Value: 5}, []int64{77, 78}
	}
	profile := scratch(t) + "/profile.json"
	writeFile(t, profile, `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`, 0o644)
	hostPID := func(c *cri.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_NODE }
	containerPID := func(c *cri.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_CONTAINER
	}
	for _, c := range []struct {
		name string
		pod  podMod
		ctr  ctrMod
		by   string
	}{
		{"as it comes", nil, nil, "rktlet-exec"},
		{"with a network", withNetwork, nil, "rktlet-exec"},
		{"with a PID namespace of its own", containerPID, nil, "rktlet-exec"},
		{"with the machine's PID namespace", hostPID, nil, "rktlet-exec"},
		{"the default filter", nil, security(seccomp), "rktlet-exec"},
		{"another user", nil, security(user), "rktlet-exec"},
		{"another user, nothing gained, filtered", nil, security(func(s *cri.LinuxContainerSecurityContext) {
			user(s)
			seccomp(s)
			s.NoNewPrivs = true
		}), "rktlet-exec"},
		{"nothing gained", nil, security(func(s *cri.LinuxContainerSecurityContext) { s.NoNewPrivs = true }), "rktlet-exec"},
		{"no capability, filtered", nil, security(func(s *cri.LinuxContainerSecurityContext) {
			s.Capabilities = &cri.Capability{DropCapabilities: []string{"ALL"}}
			seccomp(s)
		}), "rktlet-exec"},
		{"ambient capabilities", nil, security(func(s *cri.LinuxContainerSecurityContext) {
			user(s)
			s.Capabilities = &cri.Capability{AddCapabilities: []string{"NET_ADMIN"}, AddAmbientCapabilities: []string{"NET_ADMIN"}}
		}), "rktlet-exec"},
		{"all capabilities", nil, security(func(s *cri.LinuxContainerSecurityContext) {
			s.Capabilities = &cri.Capability{AddCapabilities: []string{"ALL"}}
			seccomp(s)
		}), "rktlet-exec"},
		{"privileged", privilegedPod, privileged, "rktlet-exec"},
		{"a root that is read-only, a folder, variables", nil, func(c *cri.ContainerConfig) {
			c.Linux.SecurityContext.ReadonlyRootfs = true
			c.WorkingDir = "/etc"
			c.Envs = []*cri.KeyValue{{Key: "A", Value: []byte("b c=d")}, {Key: "HOME", Value: []byte("/x")}, {Key: "EMPTY"}}
		}, "rktlet-exec"},
		{"variables that are not UTF-8", nil, func(c *cri.ContainerConfig) {
			c.Envs = []*cri.KeyValue{{Key: "RAW", Value: []byte("\xff\xfe")}}
		}, "rktlet-exec"},
		{"a folder that only its user may enter", nil, func(c *cri.ContainerConfig) {
			user(c.Linux.SecurityContext)
			c.WorkingDir = "/root"
		}, "rktlet-exec"},
		{"a user namespace", userns, nil, "the OCI runtime"},
		{"a filter of the machine's own", nil, security(func(s *cri.LinuxContainerSecurityContext) {
			s.Seccomp = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: profile}
		}), "the OCI runtime"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var pods []podMod
			ctrs := []ctrMod{sh(facts + "; sleep 100000")}
			if c.pod != nil {
				pods = append(pods, c.pod)
			}
			if c.ctr != nil {
				ctrs = append(ctrs, c.ctr)
			}
			p := runPod(t, pods...)
			ctr := p.run(ctrs...)
			ctr.waitForLog("that is all")
			got, want := strings.Split(ctr.sh(facts), "\n"), strings.Split(ctr.text("stdout"), "\n")
			equal(t, "lines", len(got), len(want))
			for i := range min(len(got), len(want)) {
				equal(t, "of a command", got[i], want[i])
			}
			equal(t, "its descriptors", ctr.sh("for f in 0 1 2 3 4 5 6 7 8 9; do [ ! -e /proc/$$/fd/$f ] || echo -n $f; done"), "012")
			equal(t, "done by", executes(t, ctr), c.by)
			ctr.stop(0)
		})
	}
}

func sum(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))
}

// CVE-2019-5736: whoever is root in a container writes to the program file of what enters it.
func TestExecCannotBeWrittenTo(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	programs := []string{"/usr/bin/crun", "/usr/libexec/rktlet/rktlet-exec"}
	var before []string
	for _, path := range programs {
		before = append(before, sum(t, path))
	}
	// With the right to trace, and in the machine's PID namespace, it sees most.
	p := runPod(t, func(c *cri.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_CONTAINER
	})
	c := p.run(sh(`printf '#!/proc/self/exe\n' > /tmp/again; chmod 755 /tmp/again
		while :; do for p in /proc/[0-9]*; do
			case $p in /proc/1|/proc/$$) continue;; esac
			if (exec 9>$p/exe) 2>/dev/null; then echo opened $(readlink $p/exe); fi
			for f in $p/fd/*; do case ${f##*/} in 0|1|2) ;; *) l=$(readlink $f) && [ -e "$l" ] && [ -d $f ] && echo folder $l; esac; done
		done; done`), security(func(s *cri.LinuxContainerSecurityContext) {
		s.Capabilities = &cri.Capability{AddCapabilities: []string{"SYS_PTRACE"}}
	}))
	for range 150 {
		c.exec("true")
		c.exec("/tmp/again")
		c.exec("/proc/self/exe")
	}
	lacks(t, "what it could open", c.text("stdout"), "rktlet", "crun", "opened /\n", "folder")
	for i, path := range programs {
		equal(t, path, sum(t, path), before[i])
	}
	c.stop(0)
}
