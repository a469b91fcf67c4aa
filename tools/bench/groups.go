package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// group is a set of measurements that are made together.
type group struct {
	name  string
	title string
	every int // rounds are --rounds divided by this
	// setup is run once for each runtime before the rounds; pods that it leaves are removed after them.
	setup func(*Bench, *Runtime) error
	round func(*Bench, *Runtime) error
}

var groups = []*group{
	{"host", "a pod with a container, host network", 1, nil, cycleOf("host", cri.NamespaceMode_NODE)},
	{"cni", "a pod with a container, CNI bridge with ipMasq", 1, nil, cycleOf("cni", cri.NamespaceMode_POD)},
	{"container", "a container in a pod that runs", 1, setupPod, (*Bench).container},
	{"exec", "ExecSync", 1, setupPodContainer, (*Bench).exec},
	{"parallel10", "10 pods with a container in parallel, host network", 3, nil, parallelOf("parallel10", 10, cri.NamespaceMode_NODE)},
	{"parallel10-cni", "10 pods with a container in parallel, CNI", 5, nil, parallelOf("parallel10-cni", 10, cri.NamespaceMode_POD)},
	{"parallel50", "50 pods with a container in parallel, host network", 6, nil, parallelOf("parallel50", 50, cri.NamespaceMode_NODE)},
	{"calls", "calls with 0 pods", 3, nil, func(b *Bench, r *Runtime) error { return b.calls(r, "calls") }},
	{"log", "100 MiB in 819,200 lines to a container's log file", 5, nil, (*Bench).log},
	{"pull", "an image of about 80 MB in 12 gzip layers", 3, nil, (*Bench).pull},
	{"restart", "systemctl restart with 0 pods", 3, nil, restartOf("restart", 0)},
	{"scale", "0, 1, 50 and 100 pods with a container each, host network", 10, nil, (*Bench).scale},
}

func cycleOf(group string, network cri.NamespaceMode) func(*Bench, *Runtime) error {
	return func(b *Bench, r *Runtime) error { return b.cycle(r, group, network) }
}

func parallelOf(group string, count int, network cri.NamespaceMode) func(*Bench, *Runtime) error {
	return func(b *Bench, r *Runtime) error { return b.parallel(r, group, count, network) }
}

func restartOf(group string, pods int) func(*Bench, *Runtime) error {
	return func(b *Bench, r *Runtime) error { return b.restart(r, group, pods) }
}

func groupNames() []string {
	var names []string
	for _, g := range groups {
		names = append(names, g.name)
	}
	return names
}

// cycle runs and removes a pod with a container. Steps are what the CRI calls take; sums are of these.
func (b *Bench) cycle(r *Runtime, group string, network cri.NamespaceMode) error {
	p := b.newPod(r, network)
	before := b.cpuNow(r)
	if err := b.up(p); err != nil {
		return err
	}
	b.record(group, "RunPodSandbox", "ms", r, p.run)
	b.record(group, "CreateContainer", "ms", r, p.create)
	b.record(group, "StartContainer", "ms", r, p.start)
	b.record(group, "pod + container start", "ms", r, p.run+p.create+p.start)
	b.cpuSince(r, before, group, "start", 1)
	before = b.cpuNow(r)
	if err := p.down(); err != nil {
		return err
	}
	b.record(group, "StopPodSandbox", "ms", r, p.stop)
	b.record(group, "RemovePodSandbox", "ms", r, p.del)
	b.record(group, "stop + remove", "ms", r, p.stop+p.del)
	b.cpuSince(r, before, group, "stop + remove", 1)
	return nil
}

// Pods that setup functions leave for the rounds, by runtime.
var standing = map[*Runtime]*pod{}

func setupPod(b *Bench, r *Runtime) error {
	standing[r] = b.newPod(r, cri.NamespaceMode_NODE)
	return b.upSandbox(standing[r])
}

func setupPodContainer(b *Bench, r *Runtime) error {
	standing[r] = b.newPod(r, cri.NamespaceMode_NODE)
	return b.up(standing[r])
}

// container starts, stops and removes a container; its process ends at SIGTERM. If the runtime has GetContainerEvents,
// it is how long the events take, too, counted from the call that causes them.
func (b *Bench) container(r *Runtime) error {
	const group = "container"
	p := standing[r]
	config := b.containerConfig(p, "workload")

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	type arrival struct {
		kind cri.ContainerEventType
		id   string
		at   time.Time
	}
	var arrivals chan arrival
	if stream, err := r.rt.GetContainerEvents(ctx, &cri.GetEventsRequest{}); err == nil {
		arrivals = make(chan arrival, 100)
		go func() {
			defer close(arrivals)
			for {
				event, err := stream.Recv()
				if err != nil {
					return
				}
				arrivals <- arrival{event.ContainerEventType, event.ContainerId, time.Now()}
			}
		}()
		time.Sleep(settle) // until it is subscribed
	}
	eventAfter := func(what string, begin time.Time, kind cri.ContainerEventType, id string) {
		limit := time.After(2 * time.Second)
		for {
			select {
			case a, ok := <-arrivals:
				if !ok { // no such method
					arrivals = nil
					return
				}
				if a.kind == kind && a.id == id {
					b.record(group, what, "ms", r, milliseconds(a.at.Sub(begin)))
					return
				}
			case <-limit:
				b.results.fail(group, r.Name, fmt.Errorf("no event within 2 s: %s", what))
				return
			}
		}
	}

	created, createTime, err := timed(r.rt.CreateContainer,
		&cri.CreateContainerRequest{PodSandboxId: p.id, Config: config, SandboxConfig: p.config})
	if err != nil {
		return err
	}
	id := created.ContainerId
	before := b.cpuNow(r)
	begin := time.Now()
	_, startTime, err := timed(r.rt.StartContainer, &cri.StartContainerRequest{ContainerId: id})
	if err != nil {
		return err
	}
	if arrivals != nil {
		eventAfter("StartContainer call to STARTED event", begin, cri.ContainerEventType_CONTAINER_STARTED_EVENT, id)
	}
	time.Sleep(settle) // until it handles SIGTERM: a container's PID 1 ignores what it does not handle
	begin = time.Now()
	_, stopTime, err := timed(r.rt.StopContainer, &cri.StopContainerRequest{ContainerId: id, Timeout: 30})
	if err != nil {
		return err
	}
	if arrivals != nil {
		eventAfter("StopContainer call to STOPPED event", begin, cri.ContainerEventType_CONTAINER_STOPPED_EVENT, id)
	}
	_, removeTime, err := timed(r.rt.RemoveContainer, &cri.RemoveContainerRequest{ContainerId: id})
	if err != nil {
		return err
	}
	b.record(group, "CreateContainer", "ms", r, createTime)
	b.record(group, "StartContainer", "ms", r, startTime)
	b.record(group, "StopContainer", "ms", r, stopTime)
	b.record(group, "RemoveContainer", "ms", r, removeTime)
	b.cpuSince(r, before, group, "start, stop, remove", 1)
	return nil
}

func (b *Bench) exec(r *Runtime) error {
	const times = 5
	before := b.cpuNow(r)
	for range times {
		answer, ms, err := timed(r.rt.ExecSync,
			&cri.ExecSyncRequest{ContainerId: standing[r].ctr, Cmd: []string{"true"}, Timeout: 10})
		if err != nil {
			return err
		}
		if answer.ExitCode != 0 {
			return fmt.Errorf("exec of 'true' exits with %d: %s", answer.ExitCode, answer.Stderr)
		}
		b.record("exec", "ExecSync true", "ms", r, ms)
	}
	b.cpuSince(r, before, "exec", "one", times)
	return nil
}

// inParallel runs work for all pods at once and returns how many milliseconds it took until the last was done.
func inParallel(pods []*pod, work func(*pod) error) (float64, error) {
	var wait sync.WaitGroup
	errs := make([]error, len(pods))
	begin := time.Now()
	for i, p := range pods {
		wait.Go(func() { errs[i] = work(p) })
	}
	wait.Wait()
	took := milliseconds(time.Since(begin))
	for _, err := range errs {
		if err != nil {
			return took, err
		}
	}
	return took, nil
}

func (b *Bench) parallel(r *Runtime, group string, count int, network cri.NamespaceMode) error {
	var pods []*pod
	for range count {
		pods = append(pods, b.newPod(r, network))
	}
	before := b.cpuNow(r)
	took, err := inParallel(pods, func(p *pod) error { return b.up(p) })
	if err != nil {
		return err
	}
	b.record(group, "starts", "/s", r, float64(count)/took*1000)
	for _, p := range pods {
		b.record(group, "pod + container start", "ms", r, p.run+p.create+p.start)
	}
	b.cpuSince(r, before, group, "one start", float64(count))
	before = b.cpuNow(r)
	if took, err = inParallel(pods, (*pod).down); err != nil {
		return err
	}
	b.record(group, "stops with removal", "/s", r, float64(count)/took*1000)
	b.cpuSince(r, before, group, "one stop + remove", float64(count))
	return nil
}

// calls times what the kubelet asks again and again.
func (b *Bench) calls(r *Runtime, group string) error {
	const times = 50
	note := func(name string, ms float64, err error) error {
		if unimplemented(err) {
			return nil
		}
		if err == nil {
			b.record(group, name, "ms", r, ms)
		}
		return err
	}
	before := b.cpuNow(r)
	for range times {
		_, ms, err := timed(r.rt.Version, &cri.VersionRequest{})
		if err = note("Version", ms, err); err != nil {
			return err
		}
		_, ms, err = timed(r.rt.ListPodSandbox, &cri.ListPodSandboxRequest{})
		if err = note("ListPodSandbox", ms, err); err != nil {
			return err
		}
		_, ms, err = timed(r.rt.ListContainers, &cri.ListContainersRequest{})
		if err = note("ListContainers", ms, err); err != nil {
			return err
		}
		_, ms, err = timed(r.img.ListImages, &cri.ListImagesRequest{})
		if err = note("ListImages", ms, err); err != nil {
			return err
		}
	}
	b.cpuSince(r, before, group, "these four", times)
	for range times / 10 {
		_, ms, err := timed(r.rt.ListContainerStats, &cri.ListContainerStatsRequest{})
		if err = note("ListContainerStats", ms, err); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bench) restart(r *Runtime, group string, pods int) error {
	before := b.cpuNow(r)
	t, err := r.restart(pods)
	if err != nil {
		return err
	}
	now := b.cpuNow(r)
	// The daemon's control group is a new one, its use is in the sum alone.
	b.record(group, "restart: CPU until the lists are complete", "ms", r, now.all-before.all)
	b.record(group, "restart: CPU, PID 1", "ms", r, now.manager-before.manager)
	b.record(group, "restart: CPU, bus", "ms", r, now.bus-before.bus)
	b.record(group, "restart until Version", "ms", r, t.gap)
	b.record(group, "start until Version", "ms", r, t.start)
	b.record(group, "start until the lists are complete", "ms", r, t.lists)
	b.record(group, "lists answered with something missing", "", r, t.wrong)
	time.Sleep(500 * time.Millisecond) // for what it does lazily
	return nil
}

// log times how long it takes until all of a container's output is in its log file, from the call that starts it.
func (b *Bench) log(r *Runtime) error {
	const lines, size = 819200, 128
	p := b.newPod(r, cri.NamespaceMode_NODE)
	if err := b.upSandbox(p); err != nil {
		return err
	}
	before := b.cpuNow(r)
	begin := time.Now()
	if err := b.upContainer(p, "lines", fmt.Sprint(lines)); err != nil {
		return err
	}
	if err := waitForEnd(p.logPath); err != nil {
		return err
	}
	took := time.Since(begin).Seconds()
	b.record("log", "throughput", "MiB/s", r, lines*size/float64(1<<20)/took)
	b.cpuSince(r, before, "log", "100 MiB", 1)
	if err := checkLog(p.logPath, lines, size); err != nil {
		return err
	}
	// containerd may refuse to stop a container that is just ending.
	if err := waitForExit(p); err != nil {
		return err
	}
	return p.down()
}

func (b *Bench) pull(r *Runtime) error {
	image := &cri.ImageSpec{Image: b.BigImage}
	// Left by an earlier run, perhaps.
	if _, err := call(r.img.RemoveImage, &cri.RemoveImageRequest{Image: image}); err != nil {
		return err
	}
	before := b.cpuNow(r)
	_, ms, err := timed(r.img.PullImage, &cri.PullImageRequest{Image: image})
	if err != nil {
		return err
	}
	b.record("pull", "PullImage", "ms", r, ms)
	b.cpuSince(r, before, "pull", "pull", 1)
	before = b.cpuNow(r)
	if _, ms, err = timed(r.img.RemoveImage, &cri.RemoveImageRequest{Image: image}); err != nil {
		return err
	}
	b.record("pull", "RemoveImage", "ms", r, ms)
	b.cpuSince(r, before, "pull", "removal", 1)
	return nil
}

// scale fills the node up to 100 pods and looks at what that costs.
func (b *Bench) scale(r *Runtime) error {
	const group = "scale"
	if err := b.restart(r, group+", 0 pods", 0); err != nil {
		return err
	}
	first, err := r.memoryNow()
	if err != nil {
		return err
	}
	var pods []*pod
	for _, count := range []int{0, 1, 50, 100} {
		for len(pods) < count {
			p := b.newPod(r, cri.NamespaceMode_NODE)
			if err := b.up(p); err != nil {
				return err
			}
			pods = append(pods, p)
		}
		if err := b.still(r, fmt.Sprintf("%s, %d pods", group, count), first, count); err != nil {
			return err
		}
	}
	at := fmt.Sprintf("%s, %d pods", group, len(pods))
	if err := b.calls(r, at); err != nil {
		return err
	}
	for range 3 {
		if err := b.restart(r, at, len(pods)); err != nil {
			return err
		}
	}
	m, err := r.memoryNow()
	if err != nil {
		return err
	}
	b.record(at, "PSS of the daemon after a restart", "MiB", r, m.daemon)
	for _, p := range pods {
		if err := p.down(); err != nil {
			return err
		}
	}
	time.Sleep(time.Second)
	if m, err = r.memoryNow(); err != nil {
		return err
	}
	b.record(group+", removed", "PSS of the daemon", "MiB", r, m.daemon)
	b.record(group+", removed", "growth of PID 1", "MiB", r, m.manager-first.manager)
	if m.helperCount != 0 {
		b.results.fail(group, r.Name, fmt.Errorf("%d processes for pods are left", m.helperCount))
	}
	return nil
}

// still records what a node that nobody asks for anything uses.
func (b *Bench) still(r *Runtime, group string, first memory, count int) error {
	const idle = 10 * time.Second
	time.Sleep(time.Second)
	m, err := r.memoryNow()
	if err != nil {
		return err
	}
	b.record(group, "PSS of the daemon", "MiB", r, m.daemon)
	b.record(group, "PSS of processes for pods", "MiB", r, m.helpers)
	b.record(group, "PSS of both", "MiB", r, m.daemon+m.helpers)
	b.record(group, "processes for pods", "", r, float64(m.helperCount))
	b.record(group, "growth of PID 1", "MiB", r, m.manager-first.manager)
	b.record(group, "growth of everything but workloads", "MiB", r,
		m.daemon+m.helpers+m.manager+m.others-first.daemon-first.helpers-first.manager-first.others)
	if count != 0 && count != 100 {
		return nil
	}
	before, pods := b.cpuNow(r), cgroupCPU(b.Parent)
	time.Sleep(idle)
	now := b.cpuNow(r)
	b.record(group, "idle CPU in 10 s, daemon and pods", "ms", r, now.daemon-before.daemon+cgroupCPU(b.Parent)-pods)
	b.record(group, "idle CPU in 10 s, machine", "ms", r, now.all-before.all)
	return nil
}

func waitForExit(p *pod) error {
	deadline := time.Now().Add(callLimit)
	for {
		answer, err := call(p.r.rt.ContainerStatus, &cri.ContainerStatusRequest{ContainerId: p.ctr})
		if err != nil {
			return err
		}
		if answer.Status.State == cri.ContainerState_CONTAINER_EXITED {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("container %s does not end", p.ctr)
		}
		time.Sleep(time.Millisecond)
	}
}

// waitForEnd waits until the last line of a log is the workload's "end".
func waitForEnd(path string) error {
	deadline := time.Now().Add(callLimit)
	tail := make([]byte, 16)
	for {
		if file, err := os.Open(path); err == nil {
			if info, err := file.Stat(); err == nil && info.Size() > int64(len(tail)) {
				n, _ := file.ReadAt(tail, info.Size()-int64(len(tail)))
				if n == len(tail) && string(tail[n-4:]) == "end\n" {
					return file.Close()
				}
			}
			_ = file.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not complete after %v", path, callLimit)
		}
		time.Sleep(time.Millisecond)
	}
}
