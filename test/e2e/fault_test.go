package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What is lost when something dies, breaks off or is full: nothing. The other fault_*_test.go go on: the pod's process,
// systemd and the bus, clients that leave, full disks. What happened is asked of the kernel and of systemd.

// writer is a script that counts, `burst` lines at a time, until it is told to stop; its last line says how many it wrote.
func writer(burst int, pause string) string {
	return fmt.Sprintf(`trap 'stop=1' TERM; i=0; while [ -z "$stop" ]; do i=$((i+%d)); seq $((i-%d)) $i; %s; done; echo end $i`,
		burst, burst-1, pause)
}

const counting = "trap 'exit 0' TERM; i=0; while :; do i=$((i+1)); echo $i; [ $((i % 100)) = 0 ] && sleep 0.01; done"

// checkCounting looks whether a log counts up from 1 without a gap or a double.
func checkCounting(t testing.TB, c *ctrT) {
	t.Helper()
	checkNumbers(t, false, c.logPath())
}

// checkWriter does the same for a writer's log, in several files perhaps: up to the last line that the writer says it wrote.
// Returns how many these are.
func checkWriter(t testing.TB, paths ...string) int {
	t.Helper()
	return checkNumbers(t, true, paths...)
}

func checkNumbers(t testing.TB, ends bool, paths ...string) int {
	t.Helper()
	n, lost, doubled, ended := 0, 0, 0, false
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewReaderSize(file, 1<<20); ; {
			line, err := lines.ReadSlice('\n')
			if err == io.EOF && len(line) == 0 {
				break
			}
			if err != nil {
				t.Errorf("%s: the log ends within a line: %q", path, line)
				break
			}
			parts := bytes.SplitN(bytes.TrimSuffix(line, []byte("\n")), []byte(" "), 4)
			if len(parts) != 4 || string(parts[1]) != "stdout" || string(parts[2]) != "F" || ended {
				t.Errorf("%s: after line %d comes %q", path, n, line)
				break
			}
			text := string(parts[3])
			if rest, ok := strings.CutPrefix(text, "end "); ok && ends {
				ended = true
				text = rest
				if rest == strconv.Itoa(n) {
					continue
				}
			}
			k, err := strconv.Atoi(text)
			if err != nil {
				t.Errorf("%s: after line %d comes %q", path, n, line)
				break
			}
			if k > n+1 {
				lost += k - n - 1
			} else if k <= n {
				doubled += n + 1 - k
			}
			n = k
		}
		_ = file.Close()
	}
	if lost > 0 || doubled > 0 || ended != ends {
		t.Errorf("%d lines lost and %d doubled of %d in %s (the last one is there: %v)", lost, doubled, n, strings.Join(paths, ", "), ended)
	}
	return n
}

// killDaemonNow ends the daemon by SIGKILL and returns how long it took until the next one has answered with the whole list.
func killDaemonNow(t testing.TB) time.Duration {
	t.Helper()
	pid, err := strconv.Atoi(daemonPID(t))
	if err != nil || pid <= 0 {
		t.Fatalf("the daemon does not run (%v)", err)
	}
	begin := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the daemon has ended", func() error {
		if isAlive(pid) {
			return errors.New("it lives")
		}
		return nil
	})
	waitForDaemon(t)
	return time.Since(begin)
}

// median and the largest, for a row of the report.
func median(durations []time.Duration) (time.Duration, time.Duration) {
	slices.Sort(durations)
	return durations[len(durations)/2], durations[len(durations)-1]
}

// A survivor is a container whose process must be the same, and alive, whatever happens to others.
type survivor struct {
	*ctrT
	process int
}

func survivors(containers ...*ctrT) []survivor {
	var list []survivor
	for _, c := range containers {
		list = append(list, survivor{c, c.pid()})
	}
	return list
}

func checkSurvivors(t testing.TB, list []survivor) {
	t.Helper()
	for _, s := range list {
		if !isAlive(s.process) {
			t.Errorf("the process of container %s is gone", s.id)
		}
		if now := unitProperty(t, s.unit(), "MainPID"); now != strconv.Itoa(s.process) {
			t.Errorf("the process of container %s was %d, now it is %s", s.id, s.process, now)
		}
	}
}

// imageNames is what ListImages has.
func imageNames(t testing.TB) string {
	t.Helper()
	var names []string
	for _, image := range do(t, img.ListImages, &cri.ListImagesRequest{}).Images {
		names = append(names, image.Id+" "+strings.Join(image.RepoTags, ","))
	}
	slices.Sort(names)
	return strings.Join(names, "\n")
}

// imageStore is what the image store has on its disk, but for marks that come and go.
func imageStore(t testing.TB) string {
	t.Helper()
	return command(t, "find", "/var/lib/rktlet/image", "!", "-name", "unsynced", "!", "-path", "*/fs/*")
}

func removeAllPods(t testing.TB, but ...string) {
	t.Helper()
	for _, item := range do(t, rt.ListPodSandbox, &cri.ListPodSandboxRequest{}).Items {
		if !slices.Contains(but, item.Id) {
			do(t, rt.StopPodSandbox, &cri.StopPodSandboxRequest{PodSandboxId: item.Id})
			do(t, rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: item.Id})
		}
	}
}

// A labourer makes pods with containers that exit with a code of their own, looks at it, and removes them, while others
// break what they can. Calls may fail: then it goes on with the next pod, and leaves the rest to whoever counts.
type labour struct {
	t                 testing.TB
	stop              chan struct{}
	wait              sync.WaitGroup
	rounds            atomic.Int64
	failed            atomic.Int64 // calls
	sandboxes, exited atomic.Int64
	removing          sync.Map // container IDs whose end may be a kill
	strict            bool     // a call that fails fails the test
}

const expectLabel = "expect"

func startLabour(t testing.TB, workers int, strict bool) *labour {
	l := &labour{t: t, stop: make(chan struct{}), strict: strict}
	for worker := range workers {
		l.wait.Add(1)
		go func() {
			defer l.wait.Done()
			for i := worker; ; i += workers {
				select {
				case <-l.stop:
					return
				default:
				}
				if err := l.round(i); err != nil {
					l.failed.Add(1)
					if l.strict {
						l.t.Errorf("%v", err)
						return
					}
					time.Sleep(5 * time.Millisecond) // nobody is there just now
				}
				l.rounds.Add(1)
			}
		}()
	}
	return l
}

func (l *labour) end() {
	close(l.stop)
	l.wait.Wait()
}

func (l *labour) round(i int) error {
	ctx, cancel := timeout(30 * time.Second)
	defer cancel()
	p := &podT{t: l.t, config: podConfig(l.t)}
	if i%2 == 0 {
		withNetwork(p.config)
	}
	defer func() { _ = os.RemoveAll(p.config.LogDirectory) }()
	sandbox, err := rt.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: p.config})
	if err != nil {
		return fmt.Errorf("RunPodSandbox: %w", err)
	}
	l.sandboxes.Add(1)
	p.id = sandbox.PodSandboxId
	code := i%99 + 1
	request := p.createRequest(sh(fmt.Sprintf("echo hello; exit %d", code)), func(c *cri.ContainerConfig) {
		c.Labels = map[string]string{expectLabel: strconv.Itoa(code)}
	})
	created, err := rt.CreateContainer(ctx, request)
	if err != nil {
		return fmt.Errorf("CreateContainer: %w", err)
	}
	if _, err = rt.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		return fmt.Errorf("StartContainer: %w", err)
	}
	if i%3 > 0 {
		for {
			answer, err := rt.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: created.ContainerId})
			if err != nil {
				return fmt.Errorf("ContainerStatus: %w", err)
			}
			if answer.Status.State == cri.ContainerState_CONTAINER_EXITED {
				l.check(answer.Status)
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	l.removing.Store(created.ContainerId, true)
	if _, err = rt.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		return fmt.Errorf("StopPodSandbox: %w", err)
	}
	if _, err = rt.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.id}); err != nil {
		return fmt.Errorf("RemovePodSandbox: %w", err)
	}
	return nil
}

// check looks whether an exited container has the code its label says.
func (l *labour) check(st *cri.ContainerStatus) {
	l.exited.Add(1)
	if want := st.Labels[expectLabel]; strconv.Itoa(int(st.ExitCode)) != want || st.Reason != "Error" || st.FinishedAt < st.StartedAt || st.StartedAt < st.CreatedAt {
		l.t.Errorf("container %s ended with %d (%s), not %s; created, started, finished at %d %d %d", st.Id, st.ExitCode, st.Reason, want,
			st.CreatedAt, st.StartedAt, st.FinishedAt)
	}
}

// checkRest looks at what the rounds that were broken off have left listed.
func (l *labour) checkRest() {
	for _, item := range do(l.t, rt.ListContainers, &cri.ListContainersRequest{}).Containers {
		if _, ok := l.removing.Load(item.Id); ok || item.Labels[expectLabel] == "" {
			continue
		}
		answer, err := rt.ContainerStatus(context.Background(), &cri.ContainerStatusRequest{ContainerId: item.Id})
		if err != nil {
			l.t.Errorf("container %s: %v", item.Id, err)
			continue
		}
		switch answer.Status.State {
		case cri.ContainerState_CONTAINER_EXITED:
			l.check(answer.Status)
		case cri.ContainerState_CONTAINER_UNKNOWN:
			l.t.Errorf("container %s is unknown", item.Id)
		default:
		}
	}
}

func TestFaultDaemonKilledUnderLoadLosesNothing(t *testing.T) {
	leavesNothing(t)
	pull(t, "test/base")
	removeImage(t, ref("test/layers"))
	images, store := imageNames(t), imageStore(t)
	keeper := runPod(t, withNetwork)
	var writers []*ctrT
	for range 4 {
		writers = append(writers, keeper.run(sh(writer(200, "sleep 0.01"))))
	}
	for _, c := range writers {
		c.waitForLog(" 1000\n")
	}
	alive := survivors(writers...)
	status := keeper.status().String()
	l := startLabour(t, 6, false)
	pulling, pulled := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-pulling:
				pulled <- n
				return
			default:
			}
			ctx, cancel := timeout(30 * time.Second)
			if _, err := img.PullImage(ctx, &cri.PullImageRequest{Image: spec(ref("test/layers"))}); err == nil {
				n++
				_, _ = img.RemoveImage(ctx, &cri.RemoveImageRequest{Image: spec(ref("test/layers"))})
			} else {
				time.Sleep(5 * time.Millisecond)
			}
			cancel()
		}
	}()
	var took []time.Duration
	for i := range 20 {
		// Now in the middle of what has just begun, now after something has come to its end.
		time.Sleep(time.Duration(20+i*i*53%300) * time.Millisecond)
		for begin, seen := time.Now(), l.exited.Load(); i%2 == 1 && l.exited.Load() < seen+3 && time.Since(begin) < 2*time.Second; {
			time.Sleep(time.Millisecond)
		}
		took = append(took, killDaemonNow(t))
		checkSurvivors(t, alive)
		equal(t, "status of the pod", keeper.status().String(), status)
	}
	l.end()
	close(pulling)
	pulls := <-pulled
	killDaemonNow(t)
	for _, c := range writers {
		equal(t, "state", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
	}
	l.checkRest()
	removeAllPods(t, keeper.id)
	removeImage(t, ref("test/layers"))
	equal(t, "images", imageNames(t), images)
	eventually(t, 10*time.Second, "nothing is left in the image store", func() error {
		if now := imageStore(t); now != store {
			return fmt.Errorf("before:\n%s\nnow:\n%s", store, now)
		}
		return nil
	})
	lines := 0
	for _, c := range writers {
		c.stop(10)
		equal(t, "exit code", c.status().ExitCode, 0)
		lines += checkWriter(t, c.logPath())
	}
	p50, most := median(took)
	t.Logf("%d kills: %d lines, none lost; %d pods and %d exit codes in %d rounds, %d of them broken off; %d pulls; until all is listed again %v, at most %v",
		len(took)+1, lines, l.sandboxes.Load(), l.exited.Load(), l.rounds.Load(), l.failed.Load(), pulls, p50, most)
	if l.exited.Load() == 0 {
		t.Error("no container came to its end: nothing was tested")
	}
}

// Pods that ended long ago, as a node has many, cost the next daemon no time: nothing is waited for that cannot come.
func TestFaultDaemonStartDoesNotWaitForWhatHasEnded(t *testing.T) {
	leavesNothing(t)
	fastest := func() time.Duration {
		least := time.Hour
		for range 5 {
			least = min(least, killDaemonNow(t))
		}
		return least
	}
	running := runPod(t)
	running.run()
	before := fastest()
	for range 5 {
		p := runPod(t)
		p.run(sh("exit 3")).wait()
		p.run()
		p.stop()
	}
	gone := runPod(t) // by itself
	gone.run(sh("exit 3")).wait()
	command(t, "systemctl", "stop", gone.unit())
	eventually(t, 5*time.Second, "its end is seen", func() error {
		if st := gone.status().State; st != cri.PodSandboxState_SANDBOX_NOTREADY {
			return fmt.Errorf("state is %v", st)
		}
		return nil
	})
	after := fastest()
	if after > before+700*time.Millisecond {
		t.Errorf("a start takes %v, it took %v before there were pods that have ended", after, before)
	}
	for _, pod := range do(t, rt.ListPodSandbox, &cri.ListPodSandboxRequest{}).Items {
		want := cri.PodSandboxState_SANDBOX_NOTREADY
		if pod.Id == running.id {
			want = cri.PodSandboxState_SANDBOX_READY
		}
		equal(t, "state", pod.State, want)
	}
	t.Logf("from a kill to complete lists: %v with one pod, %v with six more that have ended", before, after)
}

// daemonDown ends the daemon as a crash does, and keeps it down until the returned function is called.
func daemonDown(t testing.TB) func() {
	t.Helper()
	const dropIn = "/run/systemd/system/rktlet.service.d/test-stays-down.conf"
	writeFile(t, dropIn, "[Service]\nRestart=no\n", 0o644)
	command(t, "systemctl", "daemon-reload")
	// No calls while it is down: the socket would start it.
	command(t, "systemctl", "kill", "--kill-who=main", "--signal=KILL", *daemonUnit)
	eventually(t, 10*time.Second, "the daemon is down", func() error {
		if state := unitProperty(t, *daemonUnit, "ActiveState"); state != "failed" {
			return errors.New(state)
		}
		return nil
	})
	return func() {
		t.Helper()
		_ = os.Remove(dropIn)
		command(t, "systemctl", "daemon-reload")
		command(t, "systemctl", "start", *daemonUnit)
		waitForDaemon(t)
	}
}

// exitTime is what systemd has written down as the end of a unit's main process, in µs.
func exitTime(t testing.TB, unit string) int64 {
	t.Helper()
	text := command(t, "busctl", "get-property", "org.freedesktop.systemd1", unitPath(t, unit), "org.freedesktop.systemd1.Service",
		"ExecMainExitTimestamp")
	n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimPrefix(text, "t ")), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// unitPath is a unit's object path.
func unitPath(t testing.TB, unit string) string {
	t.Helper()
	text := command(t, "busctl", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "GetUnit", "s", unit)
	return strings.Trim(strings.TrimPrefix(strings.TrimSpace(text), "o "), `"`)
}

func TestFaultExitsWhileTheDaemonIsDownAreKnown(t *testing.T) {
	leavesNothing(t)
	p := runPod(t)
	host := runPod(t, func(c *cri.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_NODE })
	type ending struct {
		c      *ctrT
		signal syscall.Signal
		code   int32
		reason string
		before *cri.ContainerStatus
		pid    int
	}
	var endings []*ending
	for _, code := range []int32{0, 1, 2, 3, 7, 42, 77, 100, 126, 127, 128, 137, 143, 255} {
		e := &ending{signal: syscall.SIGUSR1, code: code, reason: "Error"}
		if code == 0 {
			e.reason = "Completed"
		}
		e.c = p.run(sh(fmt.Sprintf("trap 'exit %d' USR1; echo up; while :; do sleep 0.05; done", code)))
		endings = append(endings, e)
	}
	// The first process of a PID namespace ends by a signal only if it is this one.
	endings = append(endings, &ending{c: p.run(sh("echo up; exec sleep 10000")), signal: syscall.SIGKILL, code: 137, reason: "Error"})
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGABRT} {
		endings = append(endings, &ending{c: host.run(sh("echo up; exec sleep 10000")), signal: signal, code: 128 + int32(signal), reason: "Error"})
	}
	for _, e := range endings {
		e.c.waitForLog("up")
		e.before, e.pid = e.c.status(), e.c.pid()
	}

	up := daemonDown(t)
	for _, e := range endings {
		if err := syscall.Kill(e.pid, e.signal); err != nil {
			t.Error(err)
		}
	}
	for _, e := range endings {
		eventually(t, 10*time.Second, "the process ends", func() error {
			if isAlive(e.pid) {
				return fmt.Errorf("%d lives", e.pid)
			}
			return nil
		})
	}
	up()

	wrong, most := 0, time.Duration(0)
	for _, e := range endings {
		st := e.c.wait()
		if st.ExitCode != e.code || st.Reason != e.reason || st.StartedAt == 0 || st.CreatedAt != e.before.CreatedAt {
			t.Errorf("it ended with %d (%s), not %d (%s); before %v, after %v", st.ExitCode, st.Reason, e.code, e.reason, e.before, st)
			wrong++
		}
		if off := time.Duration(st.StartedAt - e.before.StartedAt).Abs(); off > 0 {
			t.Errorf("started_at has changed by %v", off)
		}
		most = max(most, time.Duration(st.FinishedAt-exitTime(t, e.c.unit())*1000).Abs())
	}
	if most > 5*time.Millisecond {
		t.Errorf("finished_at is off by up to %v", most)
	}
	t.Logf("%d exits, %d wrong, finished_at off by %v at most", len(endings), wrong, most)
}

func TestFaultDaemonRestartKeepsContainersLogsAndExitCodes(t *testing.T) {
	for name, restart := range map[string]func(t testing.TB, meanwhile func()){
		"systemctl restart": func(t testing.TB, meanwhile func()) { restartDaemon(t); meanwhile() },
		"SIGKILL":           func(t testing.TB, meanwhile func()) { killDaemon(t); meanwhile() },
		"stopped for a while": func(t testing.TB, meanwhile func()) {
			command(t, "systemctl", "stop", *daemonUnit)
			meanwhile()
			command(t, "systemctl", "start", *daemonUnit)
			waitForDaemon(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			leavesNothing(t)
			p := runPod(t, withNetwork, func(c *cri.PodSandboxConfig) { c.Labels = map[string]string{"k": "v"} })
			stopped := runPod(t)
			stopped.stop()
			counter := p.run(sh(counting))
			counter.waitForLog(" 500\n")
			created := p.create(sh("exit 4"))
			exited := p.run(sh("exit 5"))
			exited.wait()
			dying := p.run(sh("trap 'exit 7' USR1; echo up; while :; do sleep 0.02; done"))
			dying.waitForLog("up")
			pid, dyingPID, statusBefore, exitedBefore := counter.pid(), dying.pid(), p.status().String(), exited.status().String()

			var died time.Time
			restart(t, func() {
				if err := syscall.Kill(dyingPID, syscall.SIGUSR1); err != nil {
					t.Error(err)
				}
				for isAlive(dyingPID) {
					time.Sleep(time.Millisecond)
				}
				died = time.Now()
			})

			equal(t, "status of the pod", p.status().String(), statusBefore)
			equal(t, "status of the exited container", exited.status().String(), exitedBefore)
			equal(t, "state of the stopped pod", stopped.status().State, cri.PodSandboxState_SANDBOX_NOTREADY)
			equal(t, "state of the created container", created.status().State, cri.ContainerState_CONTAINER_CREATED)
			equal(t, "state of the running container", counter.status().State, cri.ContainerState_CONTAINER_RUNNING)
			equal(t, "its process", counter.pid(), pid)
			st := dying.wait()
			equal(t, "exit code of the one that ended meanwhile", st.ExitCode, 7)
			if off := time.Unix(0, st.FinishedAt).Sub(died).Abs(); off > 300*time.Millisecond {
				t.Errorf("its time is off by %v", off)
			}
			created.start()
			equal(t, "exit code of the one started afterwards", created.wait().ExitCode, 4)
			contains(t, "exec", counter.sh("echo works"), "works")
			counter.stop(10)
			equal(t, "exit code", counter.status().ExitCode, 0)
			checkCounting(t, counter)
		})
	}
}
