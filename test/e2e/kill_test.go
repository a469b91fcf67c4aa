package e2e

import (
	"flag"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The daemon killed at every one of its kill points (src/basic/kill-point.h), and at random. For these tests it is built
// with -Dkill-points=true.
//
// One life is lived without a kill, and all points noted that are passed in each step of it. Then life after life, in each
// step the daemon is killed at another one of them, until there has been a death at every passing of every point. The
// client of such a life does what the kubelet does, and the life must end as if nothing had happened. Bystanders, pods
// and containers in all states that nobody touches, must be just the same after each death, and in the end nothing may
// be left of any life.

const (
	killFolder = "/run/rktlet-kill-points"
	recovered  = "load.images" // the last point after a start
)

// For whoever looks into a failure: only these deaths, by their names in the output.
var killAt = flag.String("kill-at", "", "die only where this expression matches, such as 'StartContainer: container-running'")

// Points that no step passes, and why.
var unreached = map[string]string{}

func arm(t testing.TB, points ...string) {
	t.Helper()
	temporary := filepath.Join(killFolder, ".armed")
	if err := os.WriteFile(temporary, []byte(strings.Join(points, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temporary, filepath.Join(killFolder, "armed")); err != nil {
		t.Fatal(err)
	}
}

func isArmed() bool {
	_, err := os.Stat(filepath.Join(killFolder, "armed"))
	return err == nil
}

func disarm() { _ = os.Remove(filepath.Join(killFolder, "armed")) }

// passings returns the points passed since forgetPassings, in order.
func passings(t testing.TB) []passing {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(killFolder, "passed"))
	if err != nil {
		t.Fatal(err)
	}
	var all []passing
	for _, line := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
		if name, detail, _ := strings.Cut(line, " "); name != "" {
			all = append(all, passing{name, detail})
		}
	}
	return all
}

func countPassings(all []passing, name string) int {
	n := 0
	for _, p := range all {
		if p.name == name {
			n++
		}
	}
	return n
}

func forgetPassings(t testing.TB) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(killFolder, "passed"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// withKillPoints has the daemon look for its kill points, and returns their names.
func withKillPoints(t testing.TB) []string {
	t.Helper()
	out, err := exec.Command("rktlet", "--list-kill-points").Output()
	if err != nil {
		t.Skip("the daemon was built without kill points (-Dkill-points=true)")
	}
	if err := os.MkdirAll(killFolder, 0o700); err != nil {
		t.Fatal(err)
	}
	const dropIn = "/run/systemd/system/rktlet.service.d/kill-points.conf"
	writeFile(t, dropIn, "[Service]\nEnvironment=RKTLET_KILL_POINTS="+killFolder+"\nRestartSec=1ms\n", 0o644)
	forgetPassings(t)
	command(t, "systemctl", "daemon-reload")
	restartDaemon(t)
	t.Cleanup(func() {
		disarm()
		_ = os.Remove(dropIn)
		command(t, "systemctl", "daemon-reload")
		restartDaemon(t)
		_ = os.RemoveAll(killFolder)
	})
	killClient(t)
	return strings.Fields(string(out))
}

// waitForRecovery returns when a daemon that was started after a death has cleaned up behind the dead one.
func waitForRecovery(t testing.TB, points []string) error {
	t.Helper()
	want := 1
	for _, point := range points {
		if strings.HasPrefix(point, recovered+" ") {
			want++
		}
	}
	return until(30*time.Second, "the daemon is there again", func() error {
		if all := passings(t); countPassings(all, recovered) < want {
			return fmt.Errorf("%d points passed since, the last are %v", len(all), all[max(0, len(all)-3):])
		}
		return nil
	})
}

// --- every point ------------------------------------------------------------------------------------------------------

// A target is a passing of a point in a step: the n-th there.
type target struct {
	point string
	n     int
}

func (g target) String() string { return fmt.Sprintf("%s %d", g.point, g.n) }

// A passing is a line of the noted ones.
type passing struct{ name, detail string }

// asking are the calls by which a client looks; a death in them says little.
var asking = []string{"ContainerStatus", "PodSandboxStatus", "ImageStatus", "ListContainers", "ListPodSandbox"}

// inOrder are the passings of a step at which there shall be a death: the first of each name, and the last.
func inOrder(step string, noted []passing, most int) []target {
	wanted, seen := map[string][]int{}, map[string]int{}
	for _, p := range noted {
		seen[p.name]++
		if !(strings.HasPrefix(p.name, "call.") && slices.Contains(asking, p.detail)) {
			wanted[p.name] = append(wanted[p.name], seen[p.name])
		}
	}
	clear(seen)
	only := regexp.MustCompile(*killAt)
	var all []target
	for _, p := range noted {
		seen[p.name]++
		numbers := wanted[p.name]
		if i := slices.Index(numbers, seen[p.name]); i < 0 || i >= most-1 && i < len(numbers)-1 {
			continue
		}
		if g := (target{p.name, seen[p.name]}); only.MatchString(step + ": " + g.String()) {
			all = append(all, g)
		}
	}
	return all
}

type killRun struct {
	t         *testing.T
	noted     []passing // in the last step
	onStep    func(s lifeStep)
	around    *bystanders
	footprint footprint
	store     []string
	image     *movingImage
	lives     int
	kills     int
	missed    int
	killed    map[string]int
}

// settled waits until what a step left to do in the background has been done, as far as points show it.
func settled(t testing.TB) {
	for n := -1; ; time.Sleep(15 * time.Millisecond) {
		now := len(passings(t))
		if now == n {
			return
		}
		n = now
	}
}

// step runs one step with a death at the target (nil: none), and says how that went.
func (k *killRun) step(t testing.TB, l *life, s lifeStep, points []string) error {
	forgetPassings(t)
	if points != nil {
		arm(t, points...)
	}
	err := s.run(l)
	if points != nil {
		if isArmed() { // it may yet come
			_ = until(200*time.Millisecond, "", func() error {
				if isArmed() {
					return os.ErrExist
				}
				return nil
			})
		}
		left := isArmed()
		disarm()
		switch {
		case left && countPassings(passings(t), "load.read") == 0: // not even the first
			k.missed++
			t.Logf("%s does not come by %v this time", s.name, points)
		default:
			for i, point := range points {
				if i == 0 || !left {
					k.kills++
					k.killed[strings.Fields(point)[0]]++
				}
			}
			if again := waitForRecovery(t, points); err == nil {
				err = again
			}
		}
	}
	settled(t)
	k.noted = passings(t)
	if k.onStep != nil {
		k.onStep(s)
	}
	if err == nil {
		err = k.around.check()
	}
	return err
}

// left says what is there that was not there before, once nothing goes away any more.
func (k *killRun) left() error {
	return until(3*time.Second, "nothing is left behind", func() error {
		var left []string
		for _, line := range takeFootprint(k.t).without(k.footprint) {
			if strings.HasPrefix(line, "rule :CNI-HOSTPORT-") || strings.HasPrefix(line, "rule -A CNI-HOSTPORT-MASQ") ||
				strings.HasPrefix(line, "rule -A CNI-HOSTPORT-SETMARK") || strings.HasPrefix(line, "rule -A PREROUTING") ||
				strings.HasPrefix(line, "rule -A OUTPUT") || strings.HasPrefix(line, "rule -A POSTROUTING") {
				continue // they stay for the next pod
			}
			left = append(left, line)
		}
		for _, name := range storeNames() {
			if !slices.Contains(k.store, name) {
				left = append(left, name)
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
		}
		return nil
	})
}

// live lives a life of some steps, with deaths at the points of each step, one subtest each.
func (k *killRun) live(steps []lifeStep, points func(step string) []string) {
	l := newLife(k.t, k.image)
	l.kind = lifeKind(k.lives) % kindMax
	k.lives++
	l.host = !slices.ContainsFunc(steps, func(s lifeStep) bool { return s.part == partPod && points(s.name) != nil })
	var done []string
	for _, s := range steps {
		at := points(s.name)
		name := s.name + ": " + strings.Join(at, ", ")
		ok := true
		if at == nil {
			if err := k.step(k.t, l, s, nil); err != nil {
				k.t.Errorf("%s, after deaths at %s: %v", s.name, strings.Join(done, "; "), err)
				ok = false
			}
		} else {
			done = append(done, name)
			ok = k.t.Run(name, func(t *testing.T) {
				if err := k.step(t, l, s, at); err != nil {
					t.Fatalf("%v\n%s", err, journal(*daemonUnit))
				}
			})
		}
		if !ok {
			k.clear()
			return
		}
	}
	if err := k.left(); err != nil {
		k.t.Errorf("after deaths at\n  %s\n%v", strings.Join(done, "\n  "), err)
		k.clear()
	}
}

// thinOut leaves every fourth death in steps that are much like others, and those at points that no other step passes.
func thinOut(steps []lifeStep, plan map[string][]target) {
	known := map[string]bool{}
	for _, s := range steps {
		for _, g := range plan[s.name] {
			known[g.point] = known[g.point] || !s.variant
		}
	}
	for _, s := range steps {
		if !s.variant {
			continue
		}
		var kept []target
		for i, g := range plan[s.name] {
			if i%4 == 3 || !known[g.point] {
				kept = append(kept, g)
				known[g.point] = true
			}
		}
		plan[s.name] = kept
	}
}

// clear takes away what a life that failed has left, so that the next one is about itself.
func (k *killRun) clear() {
	disarm()
	pods, _ := persist(rt.ListPodSandbox, &cri.ListPodSandboxRequest{})
	for _, pod := range pods.GetItems() {
		if !slices.ContainsFunc(k.around.pods, func(p *podT) bool { return p.id == pod.Id }) {
			_, _ = persist(rt.StopPodSandbox, &cri.StopPodSandboxRequest{PodSandboxId: pod.Id})
			_, _ = persist(rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: pod.Id})
		}
	}
	for _, id := range k.image.ids {
		_, _ = persist(img.RemoveImage, &cri.RemoveImageRequest{Image: spec(id)})
	}
	settled(k.t)
	k.footprint, k.store = takeFootprint(k.t), storeNames()
}

func TestKillPoints(t *testing.T) {
	leavesNothing(t)
	points := withKillPoints(t)
	pull(t, "test/base")
	pull(t, "test/volume")
	makeSharedFolder(t)
	k := &killRun{image: newMovingImage(t), killed: map[string]int{}}
	k.around = newBystanders(t)
	k.settle(t)

	begin := time.Now()
	for _, phase := range []struct {
		name string
		run  func()
	}{
		{"in a request", k.inRequests},
		{"in a recovery", k.inRecoveries},
		{"behind", k.behind},
	} {
		t.Run(phase.name, func(t *testing.T) {
			k.t = t
			phase.run()
		})
	}
	k.around.end()
	t.Logf("%d deaths at %d of %d points in %v; %d did not come by", k.kills, len(k.killed), len(points), time.Since(begin).Round(time.Second), k.missed)
	if *killAt != "" || strings.Contains(flag.Lookup("test.run").Value.String(), "/") {
		return
	}
	var never []string
	for _, point := range points {
		why, known := unreached[point]
		switch {
		case k.killed[point] == 0 && !known:
			never = append(never, point)
		case k.killed[point] > 0 && known:
			t.Errorf("%s is said to be out of reach (%s), but isn't", point, why)
		}
	}
	if len(never) > 0 {
		sort.Strings(never)
		t.Errorf("nobody died at\n  %s", strings.Join(never, "\n  "))
	}
}

// settle lives a life without a kill: it makes what stays (the bridge, chains of rules), and what is there after it is
// what shall be there after each of the others.
func (k *killRun) settle(t *testing.T) {
	k.t = t
	l := newLife(t, k.image)
	for _, s := range allSteps() {
		if err := k.step(t, l, s, nil); err != nil {
			t.Fatalf("without a kill: %s: %v", s.name, err)
		}
	}
	k.footprint, k.store = takeFootprint(t), storeNames()
}

// inRequests has a death at every passing that there is in a life, but for the many of one point in one step.
func (k *killRun) inRequests() {
	steps := allSteps()
	plan := map[string][]target{}
	l := newLife(k.t, k.image)
	for _, s := range steps {
		if err := k.step(k.t, l, s, nil); err != nil {
			k.t.Fatalf("without a kill: %s: %v", s.name, err)
		}
		if !s.spared {
			plan[s.name] = inOrder(s.name, k.noted, 3)
		}
	}
	if err := k.left(); err != nil {
		k.t.Fatalf("without a kill: %v", err)
	}
	thinOut(steps, plan)
	for _, s := range steps {
		k.t.Logf("%-40s %3d deaths", s.name, len(plan[s.name]))
	}
	for round := 0; ; round++ {
		parts := map[lifePart]bool{}
		for _, s := range steps {
			if round < len(plan[s.name]) {
				parts[s.part] = true
			}
		}
		if len(parts) == 0 {
			return
		}
		k.live(withParts(steps, parts), func(step string) []string {
			if round < len(plan[step]) {
				return []string{plan[step][round].String()}
			}
			return nil
		})
	}
}

// inRecoveries has the daemon die a second time, while it cleans up after the first.
func (k *killRun) inRecoveries() {
	tried := map[string]int{}
	for _, first := range []struct {
		step, point string
		part        lifePart
	}{
		{"RunPodSandbox", "cni-add.plugin-done 1", partPod},
		{"CreateContainer", "container-make.streams 1", partContainer},
		{"PullImage", "image-layer.committed 2", partImage},
		{"exit", "container-exit.killed 1", partContainer},
		{"RunPodSandbox", "pod-run.noted 1", partPod},
		{"CreateContainer with a terminal", "container-make.unit 1", partTerminal},
		{"StopPodSandbox", "pod-stop.network 1", partPod},
		{"RemovePodSandbox", "pod-clear.slice 1", partPod},
		{"RemoveContainer", "container-release.pod 1", partContainer},
		{"RemoveImage", "image-file.removed 1", partImage},
	} {
		steps := withParts(allSteps(), map[lifePart]bool{first.part: true})
		var second []target
		dieTwice := func(again []string) {
			k.live(steps, func(step string) []string {
				if step == first.step {
					return append([]string{first.point}, again...)
				}
				return nil
			})
		}
		k.onStep = func(s lifeStep) {
			if s.name == first.step {
				second = inOrder(s.name, recoveryIn(k.noted, first.point), 2)
			}
		}
		dieTwice(nil)
		k.onStep = nil
		if second == nil {
			k.t.Errorf("no recovery after a death in %s at %s", first.step, first.point)
		}
		for _, g := range second {
			// What every recovery does is tried in two of them.
			if tried[g.point]++; tried[g.point] <= 2 {
				dieTwice([]string{g.String()})
			}
		}
	}
}

// recoveryIn are the passings from the death at a point to the end of the clean-up.
func recoveryIn(noted []passing, death string) []passing {
	var name string
	var n int
	_, _ = fmt.Sscan(death, &name, &n)
	for i, p := range noted {
		if p.name == name {
			n--
		}
		if n == 0 {
			noted = noted[i+1:]
			break
		}
	}
	for i, p := range noted {
		if p.name == recovered {
			return noted[:i+1]
		}
	}
	return nil
}

// behind has a death in what no request waits for.
func (k *killRun) behind() {
	before, after := imageSteps()
	for _, point := range []string{"image-sync.synced 1", "image-sync.noted 1"} {
		steps := slices.Concat(before, []lifeStep{{name: "sync", part: partImage, run: func(l *life) error {
			if err := until(15*time.Second, "the store is synced", func() error {
				if isArmed() {
					return os.ErrExist
				}
				return nil
			}); err != nil {
				return err
			}
			return l.image.complete(l.image.ids["test/layers"])
		}}}, after)
		k.live(steps, func(step string) []string {
			if step == "sync" {
				return []string{point}
			}
			return nil
		})
	}

	// A unit that is named as ours are, and belongs to nobody.
	stray := "rktlet-ctr-" + strings.Repeat("5a", 32) + ".service"
	k.live([]lifeStep{{name: "a stray unit", run: func(l *life) error {
		if out, err := try("systemd-run", "--unit="+stray, "sleep", "100000"); err != nil {
			return fmt.Errorf("systemd-run: %v: %s", err, out)
		}
		_, _ = try("systemctl", "restart", *daemonUnit)
		return until(10*time.Second, stray+" is gone", func() error {
			if out, _ := try("systemctl", "is-active", stray); strings.TrimSpace(out) != "inactive" {
				return fmt.Errorf("it is %s", out)
			}
			return nil
		})
	}}}, func(string) []string { return []string{"load.stray-unit 1"} })
}

// --- random moments ---------------------------------------------------------------------------------------------------

func TestKillAtRandomMoments(t *testing.T) {
	leavesNothing(t)
	killClient(t)
	pull(t, "test/base")
	pull(t, "test/volume")
	makeSharedFolder(t)
	image := newMovingImage(t)
	around := newBystanders(t)
	store := storeNames()

	stop := make(chan struct{})
	var workers sync.WaitGroup
	var lives sync.Map
	worker := func(name string, image *movingImage, steps []lifeStep) {
		defer workers.Done()
		for n := 0; ; n++ {
			select {
			case <-stop:
				lives.Store(name, n)
				return
			default:
			}
			l := newLife(t, image)
			l.kind = lifeKind(rand.Intn(int(kindMax)))
			for _, s := range steps {
				if err := s.run(l); err != nil {
					t.Errorf("%s: %s: %v", name, s.name, err)
					return
				}
			}
		}
	}
	workers.Add(4)
	for i := range 3 {
		go worker(fmt.Sprint("pods ", i), nil, podSteps())
	}
	go worker("images and pods", image, allSteps())

	kills := 0
	for kills < 40 && !t.Failed() {
		// Most daemons get to work first, some die while they still look around.
		if kills%4 > 0 {
			if _, err := persist(rt.ListPodSandbox, &cri.ListPodSandboxRequest{}); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Duration(10+rand.Intn(300)) * time.Millisecond)
		pid := 0
		_, _ = fmt.Sscan(daemonPID(t), &pid)
		if pid <= 0 || syscall.Kill(pid, syscall.SIGKILL) != nil {
			continue
		}
		kills++
		if err := around.check(); err != nil {
			t.Errorf("after %d kills: %v", kills, err)
		}
	}
	close(stop)
	workers.Wait()
	lives.Range(func(name, n any) bool { t.Logf("%v: %v lives", name, n); return true })
	if err := around.check(); err != nil {
		t.Error(err)
	}
	around.end()
	if err := until(5*time.Second, "the image store is as it was", func() error {
		if now := storeNames(); !slices.Equal(now, store) {
			return fmt.Errorf("it has %v, it had %v", now, store)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
