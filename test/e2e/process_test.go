package e2e

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What a container's process is started with: arguments, environment, folder, user.

func env(pairs ...string) ctrMod {
	return func(c *cri.ContainerConfig) {
		for _, pair := range pairs {
			name, value, _ := strings.Cut(pair, "=")
			c.Envs = append(c.Envs, &cri.KeyValue{Key: name, Value: []byte(value)})
		}
	}
}

func (c *ctrT) lines() []string {
	c.wait()
	return strings.Split(strings.TrimSuffix(c.text("stdout"), "\n"), "\n")
}

func TestProcessArgumentsFollowTheImageAsKubernetesSays(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	for name, c := range map[string]struct {
		command, args []string
		want          string
	}{
		"nothing given: entry point and command of the image": {nil, nil, "args:one two"},
		"arguments given: they replace the image's command":   {nil, []string{"three", "four five"}, "args:three four five"},
		"command given: the image's command goes too":         {[]string{"/bin/show", "x"}, nil, "args:x"},
		"both given: nothing of the image's":                  {[]string{"/bin/show", "x"}, []string{"y"}, "args:x y"},
		"special characters arrive unchanged":                 {nil, []string{"$HOME", "%n", "$$", "\\", "\"", "'", "é\n", "", ";"}, "args:$HOME %n $$ \\ \" ' é"},
	} {
		t.Run(name, func(t *testing.T) {
			ctr := p.with(t).run(withImage("test/config"), func(config *cri.ContainerConfig) {
				config.Command, config.Args = c.command, c.args
				if *engine == "rkt" { // which makes no working directory that isn't there
					config.WorkingDir = "/"
				}
			})
			equal(t, "first line", ctr.lines()[0], c.want)
		})
	}
	t.Run("neither the image nor the request has a command", func(t *testing.T) {
		pull(t, "test/no-command")
		refused(t, rt.CreateContainer, p.createRequest(withImage("test/no-command"), withCommand()), codes.InvalidArgument, codes.FailedPrecondition)
	})
	t.Run("a command that is not there fails at start", func(t *testing.T) {
		c := p.with(t).create(withCommand("/no/such/command"))
		text := refused(t, rt.StartContainer, &cri.StartContainerRequest{ContainerId: c.id})
		contains(t, "the error", text, "/no/such/command")
		st := c.status()
		equal(t, "state", st.State, cri.ContainerState_CONTAINER_EXITED)
		equal(t, "reason", st.Reason, "StartError")
		if st.ExitCode == 0 {
			t.Error("exit code is 0")
		}
	})
	t.Run("a command found in the container's PATH", func(t *testing.T) {
		equal(t, "output", p.with(t).run(withCommand("id", "-u")).lines()[0], "0")
	})
}

func TestProcessEnvironment(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, withNetwork, func(c *cri.PodSandboxConfig) { c.Hostname = "envy" })
	lines := p.run(withImage("test/config"), withCommand(), env("BOTH=request", "OWN=a=b $PATH %h", "DUP=1", "DUP=2")).lines()
	all := "\n" + strings.Join(lines, "\n") + "\n"
	contains(t, "environment", all, "\nFROM_IMAGE=image\n", "\nBOTH=request\n", "\nOWN=a=b $PATH %h\n", "\nDUP=2\n", "\nEMPTY=\n", "\nHOSTNAME=envy\n", "\nHOME=/home/app\n")
	lacks(t, "environment", all, "\nBOTH=image\n", "\nDUP=1\n", "NOTIFY_SOCKET", "LISTEN_", "INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "CREDENTIALS_DIRECTORY")
	binary := p.run(sh("printf %s \"$X\" | od -An -tx1"), func(c *cri.ContainerConfig) {
		c.Envs = []*cri.KeyValue{{Key: "X", Value: []byte{0xff, 0xfe, '\n', '\r', 'a'}}}
	})
	equal(t, "a value that is no UTF-8", strings.TrimSpace(binary.lines()[0]), "ff fe 0a 0d 61")
	for name, kv := range map[string]*cri.KeyValue{
		"an empty name": {Key: "", Value: []byte("x")}, "a name with =": {Key: "A=B", Value: []byte("x")},
		"a name with NUL": {Key: "A\x00B"}, "a value with NUL": {Key: "A", Value: []byte("x\x00y")},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			refused(t, rt.CreateContainer, p.createRequest(func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{kv} }), codes.InvalidArgument)
		})
	}
}

func TestProcessWorkingFolder(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	dir := func(path string) ctrMod { return func(c *cri.ContainerConfig) { c.WorkingDir = path } }
	equal(t, "none given", p.output("pwd"), "/\n")
	equal(t, "one given", p.output("pwd", dir("/etc")), "/etc\n")
	equal(t, "one that is not there", p.output("pwd", dir("/made/for/me")), "/made/for/me\n")
	equal(t, "the image's", p.run(withImage("test/config"), withCommand()).lines()[1], "cwd:/srv/work")
	refused(t, rt.CreateContainer, p.createRequest(dir("relative")), codes.InvalidArgument)
	c := p.run(dir("/etc"))
	equal(t, "exec's", c.sh("pwd"), "/etc\n")
}

func TestProcessUser(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	type context = cri.LinuxContainerSecurityContext
	id := func(n int64) *cri.Int64Value { return &cri.Int64Value{Value: n} }
	for name, c := range map[string]struct {
		image  string
		change func(*context)
		want   string
	}{
		"the default is root":                        {"test/base", func(s *context) {}, "0 0 0"},
		"a name in the image":                        {"test/users", func(s *context) {}, "1001 1001 1001 2001 2002"},
		"a name and a group in the image":            {"test/user-name-group", func(s *context) {}, "1001 2001 2001 2002"},
		"numbers in the image":                       {"test/user-number", func(s *context) {}, "1234 5678 5678"},
		"a number asked for":                         {"test/base", func(s *context) { s.RunAsUser = id(4321) }, "4321 0 0"},
		"the number of a known user":                 {"test/base", func(s *context) { s.RunAsUser = id(1001) }, "1001 1001 1001 2001 2002"},
		"a name asked for":                           {"test/base", func(s *context) { s.RunAsUsername = "www-data" }, "33 33 33 2002"},
		"number and group asked for":                 {"test/base", func(s *context) { s.RunAsUser, s.RunAsGroup = id(4321), id(8765) }, "4321 8765 8765"},
		"asked for wins over the image":              {"test/users", func(s *context) { s.RunAsUser, s.RunAsGroup = id(0), id(0) }, "0 0 0"},
		"further groups":                             {"test/base", func(s *context) { s.RunAsUser, s.SupplementalGroups = id(4321), []int64{77, 99} }, "4321 0 0 77 99"},
		"further groups are merged with the image's": {"test/users", func(s *context) { s.SupplementalGroups = []int64{77} }, "1001 1001 77 1001 2001 2002"},
		"strict: only those asked for": {"test/users", func(s *context) {
			s.SupplementalGroups, s.SupplementalGroupsPolicy = []int64{77}, cri.SupplementalGroupsPolicy_Strict
		}, "1001 1001 77 1001"},
		"without a passwd file":          {"test/no-passwd", func(s *context) { s.RunAsUser = id(12) }, "12 0 0"},
		"the largest user that there is": {"test/base", func(s *context) { s.RunAsUser = id(2147483647) }, "2147483647 0 0"},
	} {
		t.Run(name, func(t *testing.T) {
			p := p.with(t)
			c2 := p.run(withImage(c.image), sh("echo $(id -u) $(id -g) $(id -G | tr ' ' '\\n' | sort -n)"), security(c.change))
			equal(t, "user, group, groups", c2.lines()[0], c.want)
			if user := c2.status().User.GetLinux(); user == nil {
				t.Error("the status has no user")
			} else if want := strings.Fields(c.want); want[0] != itoa(user.Uid) || want[1] != itoa(user.Gid) {
				t.Errorf("the status's user is %v", user)
			}
		})
	}
	for name, c := range map[string]struct {
		image  string
		change func(*context)
	}{
		"an unknown name":              {"test/base", func(s *context) { s.RunAsUsername = "ghost" }},
		"an unknown name in the image": {"test/user-unknown", func(s *context) {}},
		"a name without a passwd file": {"test/no-passwd", func(s *context) { s.RunAsUsername = "app" }},
		"a group without a user":       {"test/base", func(s *context) { s.RunAsGroup = id(5) }},
		"a negative user":              {"test/base", func(s *context) { s.RunAsUser = id(-1) }},
		"a user of 2^32":               {"test/base", func(s *context) { s.RunAsUser = id(1 << 32) }},
		"a negative group":             {"test/base", func(s *context) { s.RunAsUser, s.RunAsGroup = id(1), id(-5) }},
		"a negative further group":     {"test/base", func(s *context) { s.SupplementalGroups = []int64{-1} }},
		"both a number and a name":     {"test/base", func(s *context) { s.RunAsUser, s.RunAsUsername = id(1), "app" }},
		"a policy that is none":        {"test/base", func(s *context) { s.SupplementalGroupsPolicy = 9 }},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			pull(t, c.image)
			refused(t, rt.CreateContainer, p.createRequest(withImage(c.image), security(c.change)), codes.InvalidArgument, codes.FailedPrecondition, codes.NotFound)
		})
	}
}

func TestProcessOfARunningContainerIsSystemds(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	c := p.run()
	equal(t, "parent", procStatus(readProc(t, c.pid(), "status"), "PPid"), "1")
	fds := strings.Fields(c.sh("ls /proc/1/fd"))
	equal(t, "descriptors of the container", strings.Join(fds, " "), "0 1 2")
	equal(t, "descriptors of an exec", strings.TrimSpace(c.sh("ls /proc/self/fd | tr '\\n' ' '")), "0 1 2 3") // 3 is ls's own
	equal(t, "standard input", c.sh("readlink /proc/1/fd/0"), "/dev/null\n")
	contains(t, "cgroup", readProc(t, c.pid(), "cgroup"), c.unit())
}

// As long as the kernel takes, text or not, for the process, an exec, and a daemon that reads it again.
func TestProcessEnvironmentOfLongValues(t *testing.T) {
	leavesNothing(t)
	p := runPod(t)
	for name, value := range map[string]string{
		"64 KiB":                strings.Repeat("x", 65536),
		"the longest of all":    strings.Repeat("long ", 26213) + "x",
		"long, and not UTF-8":   strings.Repeat("\xff\xfe", 40000),
		"long, UTF-8, newlines": strings.Repeat("ü\n", 40000) + "e",
	} {
		t.Run(name, func(t *testing.T) {
			sum := fmt.Sprintf("%x", md5.Sum([]byte(value)))
			c := p.with(t).run(sh(`printf %s "$X" | md5sum; sleep 100000`), func(c *cri.ContainerConfig) {
				c.Envs = []*cri.KeyValue{{Key: "X", Value: []byte(value)}, {Key: "AFTER", Value: []byte("it")}}
			})
			c.waitForLog(sum)
			killDaemon(t)
			equal(t, "in an exec", c.sh(`printf %s "$X" | md5sum; echo $AFTER`), sum+"  -\nit\n")
			verbose := do(t, rt.ContainerStatus, &cri.ContainerStatusRequest{ContainerId: c.id, Verbose: true})
			contains(t, "name in the info", at(t, parseInfo(t, verbose.Info, "info"), "config/envs/key=X/key"), "X")
			c.remove()
		})
	}
	text := refused(t, rt.CreateContainer, p.createRequest(func(c *cri.ContainerConfig) {
		c.Envs = []*cri.KeyValue{{Key: "X", Value: bytes.Repeat([]byte("x"), 128<<10)}}
	}), codes.InvalidArgument)
	contains(t, "the error", text, "'X'", "131071 bytes")
}
