package e2e

import (
	"bytes"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"k8s.io/client-go/tools/remotecommand"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The machine's clock jumps, as it does when NTP gets hold of it. Only in user-mode-linux, whose clock is its own: the other
// machine shares the clock of the one it runs on.

// jump sets the clock that much forward, or back.
func jump(t testing.TB, by time.Duration) {
	t.Helper()
	tv := syscall.NsecToTimeval(time.Now().UnixNano() + int64(by))
	if err := syscall.Settimeofday(&tv); err != nil {
		t.Fatal(err)
	}
	if off := time.Since(time.Unix(tv.Sec, tv.Usec*1000)); off.Abs() > 10*time.Second {
		t.Fatalf("the clock is off by %v", off)
	}
}

func TestClockJumpsAreNotNoticed(t *testing.T) {
	if text, _ := os.ReadFile("/proc/cpuinfo"); !strings.Contains(string(text), "User Mode Linux") {
		t.Skip("the clock is not this machine's own")
	}
	leavesNothing(t)
	p := runPod(t, withNetwork)
	c := p.run(sh(writer(50, "sleep 0.05")))
	c.waitForLog(" 100\n")
	daemon := daemonPID(t)
	alive := survivors(c)
	for name, by := range map[string]time.Duration{"a day forward": 24 * time.Hour, "two days back": -48 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			c, p := c.with(t), p.with(t)
			stubborn := p.run(sh("trap '' TERM; echo up; while :; do sleep 0.05; done"))
			stubborn.waitForLog("up")
			exits := p.run(sh("while [ ! -e /gone ]; do sleep 0.05; done; exit 9"))
			u := execURL(t, c, false, false, "echo", "still good")
			c.stats()
			begin := time.Now() // with its monotonic part
			before := begin.UnixNano()

			jump(t, by)
			if usage := c.stats().GetCpu().GetUsageNanoCores().GetValue(); usage > 20e9 {
				t.Errorf("%d nanocores are used", usage)
			}
			equal(t, "state", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
			var out, errs bytes.Buffer
			if err := stream(t, transports[0].make, u, remotecommand.StreamOptions{}, &out, &errs); err != nil {
				t.Errorf("the URL of an exec, given before: %v", err)
			}
			equal(t, "output", out.String(), "still good\n")

			begin = time.Now()
			refused(t, rt.ExecSync, &cri.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"sleep", "1000"}, Timeout: 1}, codes.DeadlineExceeded)
			if took := time.Since(begin); took < 900*time.Millisecond || took > 10*time.Second*time.Duration(*slow) {
				t.Errorf("a timeout of a second took %v", took)
			}
			begin = time.Now()
			stubborn.stop(2)
			if took := time.Since(begin); took < 1900*time.Millisecond || took > 15*time.Second*time.Duration(*slow) {
				t.Errorf("a grace of two seconds took %v", took)
			}
			equal(t, "exit code", stubborn.status().ExitCode, 137)
			exits.sh("touch /gone")
			st := exits.wait()
			equal(t, "exit code", st.ExitCode, 9)
			if off := time.Duration(st.FinishedAt-before) - by; off < 0 || off > time.Minute*time.Duration(*slow) {
				t.Errorf("finished_at is %v away from the new time", off)
			}
			another := runPod(t, withNetwork)
			equal(t, "output of a new pod", another.output("echo hi"), "hi\n")
			another.remove()
			equal(t, "the daemon", daemonPID(t), daemon)

			killDaemonNow(t)
			daemon = daemonPID(t)
			checkSurvivors(t, alive)
			equal(t, "state after a restart", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
			equal(t, "status of the one that had ended", exits.status().String(), st.String())
		})
	}
	jump(t, 24*time.Hour)
	c.stop(10)
	equal(t, "exit code", c.status().ExitCode, 0)
	checkWriter(t, c.logPath())
}
