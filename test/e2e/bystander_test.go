package e2e

import (
	"fmt"
	"os"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Bystanders are pods and containers in all states that nobody touches, while something happens to the daemon: they must
// stay just what they are.

type bystanders struct {
	t       testing.TB
	pods    []*podT
	ctrs    []*ctrT
	counter *ctrT
	pid     int
	size    int64
	was     []string
}

func newBystanders(t testing.TB) *bystanders {
	t.Helper()
	running := runPod(t, withNetwork)
	stopped := runPod(t, withNetwork)
	b := &bystanders{t: t, pods: []*podT{running, stopped}}
	b.counter = running.run(sh("trap 'exit 6' TERM; i=0; while :; do i=$((i+1)); echo $i; [ $((i % 20)) = 0 ] && sleep 0.02; done"))
	exited := running.run(sh("echo done; exit 5"))
	exited.wait()
	created := running.create(sh("exit 3"))
	killed := stopped.run()
	stopped.stop()
	b.ctrs = []*ctrT{b.counter, exited, created, killed}
	b.counter.waitForLog(" 100\n")
	b.pid = b.counter.pid()
	var err error
	if b.was, err = b.look(); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bystanders) look() ([]string, error) {
	var all []string
	for _, p := range b.pods {
		answer, err := persist(rt.PodSandboxStatus, &cri.PodSandboxStatusRequest{PodSandboxId: p.id})
		if err != nil {
			return nil, err
		}
		all = append(all, answer.Status.String())
	}
	for _, c := range b.ctrs {
		answer, err := persist(rt.ContainerStatus, &cri.ContainerStatusRequest{ContainerId: c.id})
		if err != nil {
			return nil, err
		}
		all = append(all, answer.Status.String())
	}
	return all, nil
}

// check says what has changed about them.
func (b *bystanders) check() error {
	now, err := b.look()
	if err != nil {
		return err
	}
	for i := range now {
		if now[i] != b.was[i] {
			return fmt.Errorf("a bystander changed from\n  %s\nto\n  %s", b.was[i], now[i])
		}
	}
	if !isAlive(b.pid) {
		return fmt.Errorf("process %d of a running container has ended", b.pid)
	}
	info, err := os.Stat(b.counter.logPath())
	if err == nil && info.Size() < b.size {
		err = fmt.Errorf("the log of a running container went from %d to %d bytes", b.size, info.Size())
	}
	if err == nil {
		b.size = info.Size()
	}
	return err
}

// end ends them, with a last look at what they wrote.
func (b *bystanders) end() {
	b.t.Helper()
	size := b.size
	eventually(b.t, 5*time.Second, "the running container still writes", func() error {
		if err := b.check(); err != nil {
			return err
		}
		if b.size == size {
			return fmt.Errorf("%d bytes", size)
		}
		return nil
	})
	equal(b.t, "process of the running container", b.counter.pid(), b.pid)
	b.counter.stop(20)
	equal(b.t, "its exit code", b.counter.status().ExitCode, 6)
	checkCounting(b.t, b.counter)
	for _, p := range b.pods {
		p.remove()
	}
}
