package e2e

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func (c *ctrT) stats() *cri.ContainerStats {
	c.t.Helper()
	return do(c.t, rt.ContainerStats, &cri.ContainerStatsRequest{ContainerId: c.id}).Stats
}

func (p *podT) stats() *cri.LinuxPodSandboxStats {
	p.t.Helper()
	return do(p.t, rt.PodSandboxStats, &cri.PodSandboxStatsRequest{PodSandboxId: p.id}).Stats.Linux
}

// hasController tells whether a controller counts in this machine; without it the figures are left out.
func hasController(name string) bool {
	data, _ := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	return strings.Contains(" "+strings.TrimSpace(string(data))+" ", " "+name+" ")
}

func between[V int64 | uint64](t testing.TB, what string, got, low, high V) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s is %v, not between %v and %v", what, got, low, high)
	}
}

func TestStatsContainer(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	c := p.run(sh("while :; do :; done"))
	begin := time.Now()
	first := c.stats()
	equal(t, "ID", first.Attributes.Id, c.id)
	equal(t, "name", first.Attributes.Metadata.Name, c.config.Metadata.Name)
	if first.Cpu.UsageNanoCores != nil {
		t.Error("a rate is known after one reading")
	}
	time.Sleep(2 * time.Second)
	second := c.stats()
	passed := uint64(time.Since(begin))
	used := second.Cpu.UsageCoreNanoSeconds.GetValue() - first.Cpu.UsageCoreNanoSeconds.GetValue()
	between(t, "CPU used", used, passed/20, passed+passed/5)
	window := uint64(second.Cpu.Timestamp - first.Cpu.Timestamp)
	rate := uint64(float64(used) / float64(window) * 1e9)
	between(t, "nano cores", second.Cpu.UsageNanoCores.GetValue(), rate*99/100, rate*101/100)
	between(t, "time stamp", second.Cpu.Timestamp, begin.UnixNano(), time.Now().UnixNano())
	// Without the controller these are what its processes say.
	between(t, "working set", second.Memory.GetWorkingSetBytes().GetValue(), 4096, 64<<20)
	between(t, "RSS", second.Memory.GetRssBytes().GetValue(), 4096, 64<<20)
	between(t, "page faults", second.Memory.GetPageFaults().GetValue(), 1, 1<<40)
	if second.Memory.AvailableBytes != nil {
		t.Error("memory is available without a limit")
	}
	data, err := os.ReadFile("/sys/fs/cgroup" + unitProperty(t, c.unit(), "ControlGroup") + "/io.pressure")
	if (err == nil && len(data) > 0) != (second.Io != nil) {
		t.Errorf("IO pressure is %v, and the kernel's file %q (%v)", second.Io, data, err)
	}
	c.stop(0)
	refused(t, rt.ContainerStats, &cri.ContainerStatsRequest{ContainerId: c.id}, codes.FailedPrecondition, codes.NotFound)
	refused(t, rt.ContainerStats, &cri.ContainerStatsRequest{ContainerId: "nonexistent"}, codes.NotFound)
}

func TestStatsWritableLayer(t *testing.T) {
	leavesNothing(t)
	p := runPod(t)
	c := p.run(sh("head -c 3000000 /dev/zero | tr '\\0' x >/large; mkdir /d; for i in $(seq 1 20); do echo >/d/$i; done; echo done; exec sleep 100000"))
	c.waitForLog("done")
	layer := c.stats().WritableLayer
	between(t, "bytes", layer.GetUsedBytes().GetValue(), 3000000, 4500000)
	between(t, "inodes", layer.GetInodesUsed().GetValue(), 22, 60)
	if _, err := os.Stat(layer.GetFsId().GetMountpoint()); err != nil {
		t.Errorf("where it is: %v", err)
	}
	if again := c.stats().WritableLayer; again.Timestamp != layer.Timestamp {
		t.Error("it is walked again at once")
	}
	// More than the daemon counts by itself.
	many := p.run(sh("mkdir -p /a/b/c; for i in $(seq 1 600); do echo x >/a/b/c/$i; done; echo done; exec sleep 100000"))
	many.waitForLog("done")
	eventually(t, 20*time.Second, "a large layer is measured", func() error {
		l := many.stats().WritableLayer
		if n := l.GetInodesUsed().GetValue(); n < 603 || n > 640 {
			return fmt.Errorf("%d inodes", n)
		}
		return nil
	})
	info := do(t, img.ImageFsInfo, &cri.ImageFsInfoRequest{})
	if len(info.ImageFilesystems) != 1 || len(info.ContainerFilesystems) != 1 {
		t.Fatalf("file systems: %v", info)
	}
	between(t, "bytes of all writable layers", info.ContainerFilesystems[0].GetUsedBytes().GetValue(), 5400000, 9000000)
	between(t, "inodes of all writable layers", info.ContainerFilesystems[0].GetInodesUsed().GetValue(), 625, 720)
}

func TestStatsLists(t *testing.T) {
	leavesNothing(t)
	label := func(k, v string) ctrMod {
		return func(c *cri.ContainerConfig) { c.Labels = map[string]string{k: v, "all": "yes"} }
	}
	p := runPod(t, func(c *cri.PodSandboxConfig) { c.Labels = map[string]string{"which": "first"} })
	q := runPod(t, func(c *cri.PodSandboxConfig) { c.Labels = map[string]string{"which": "second"} })
	a, b, d := p.run(label("n", "a")), p.run(label("n", "b")), q.run(label("n", "d"))
	ended := p.run(sh("exit 0"), label("n", "ended"))
	ended.wait()
	p.create(label("n", "created"))
	list := func(f *cri.ContainerStatsFilter) map[string]bool {
		ids := map[string]bool{}
		for _, s := range do(t, rt.ListContainerStats, &cri.ListContainerStatsRequest{Filter: f}).Stats {
			ids[s.Attributes.Id] = true
		}
		stream, err := rt.StreamContainerStats(t.Context(), &cri.StreamContainerStatsRequest{Filter: f})
		if err != nil {
			t.Fatal(err)
		}
		streamed := 0
		for {
			m, err := stream.Recv()
			if err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			for _, s := range m.ContainerStats {
				streamed++
				if !ids[s.Attributes.Id] {
					t.Errorf("%s is streamed, not listed", s.Attributes.Id)
				}
			}
		}
		equal(t, "number streamed", streamed, len(ids))
		return ids
	}
	want := func(what string, got map[string]bool, ids ...string) {
		t.Helper()
		equal(t, "number of "+what, len(got), len(ids))
		for _, id := range ids {
			if !got[id] {
				t.Errorf("%s: %s is missing", what, id)
			}
		}
	}
	want("all", list(nil), a.id, b.id, d.id)
	want("by ID", list(&cri.ContainerStatsFilter{Id: a.id[:12]}), a.id)
	want("by pod", list(&cri.ContainerStatsFilter{PodSandboxId: p.id}), a.id, b.id)
	want("by label", list(&cri.ContainerStatsFilter{LabelSelector: map[string]string{"n": "d", "all": "yes"}}), d.id)
	want("by contradiction", list(&cri.ContainerStatsFilter{Id: a.id, PodSandboxId: q.id}))
	pods := func(f *cri.PodSandboxStatsFilter) map[string]bool {
		ids := map[string]bool{}
		for _, s := range do(t, rt.ListPodSandboxStats, &cri.ListPodSandboxStatsRequest{Filter: f}).Stats {
			ids[s.Attributes.Id] = true
		}
		return ids
	}
	want("pods", pods(nil), p.id, q.id)
	want("pods by ID", pods(&cri.PodSandboxStatsFilter{Id: q.id[:12]}), q.id)
	want("pods by label", pods(&cri.PodSandboxStatsFilter{LabelSelector: map[string]string{"which": "first"}}), p.id)
	q.stop()
	want("pods that run", pods(nil), p.id)
	refused(t, rt.PodSandboxStats, &cri.PodSandboxStatsRequest{PodSandboxId: q.id}, codes.FailedPrecondition, codes.NotFound)
}

func TestStatsPod(t *testing.T) {
	leavesNothing(t)
	p := runPod(t, withNetwork)
	s := p.stats()
	if s.Cpu.GetUsageCoreNanoSeconds().GetValue() == 0 {
		t.Error("a pod that has just been made used no CPU at all")
	}
	c := p.run(sh("sleep 100000 & sleep 100000 & wait"))
	eventually(t, 5*time.Second, "all processes are counted", func() error {
		// The pod's own, the shell and two more.
		if n := p.stats().Process.GetProcessCount().GetValue(); n != 4 && (*engine != "rkt" || n < 4) { // rkt has more of its own
			return fmt.Errorf("%d processes", n)
		}
		return nil
	})
	s = p.stats()
	equal(t, "containers", len(s.Containers), 1)
	equal(t, "the container", s.Containers[0].Attributes.Id, c.id)
	if s.Network.GetDefaultInterface().GetName() != "eth0" {
		t.Fatalf("network: %v", s.Network)
	}
	before := s.Network.DefaultInterface
	gateway := strings.TrimSpace(c.sh("ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'"))
	c.exec("ping", "-c", "5", "-s", "1000", gateway)
	after := p.stats().Network.DefaultInterface
	between(t, "bytes sent", after.TxBytes.GetValue()-before.TxBytes.GetValue(), 5000, 20000)
	between(t, "bytes received", after.RxBytes.GetValue()-before.RxBytes.GetValue(), 5000, 20000)
	if host := runPod(t); host.stats().Network != nil {
		t.Error("a pod on the host's network has a network of its own")
	}
}

func TestStatsMetrics(t *testing.T) {
	leavesNothing(t)
	p := runPod(t, withNetwork)
	c := p.run()
	keys := map[string][]string{}
	for _, d := range do(t, rt.ListMetricDescriptors, &cri.ListMetricDescriptorsRequest{}).Descriptors {
		if d.Help == "" || len(d.LabelKeys) == 0 {
			t.Errorf("%v", d)
		}
		keys[d.Name] = d.LabelKeys
	}
	metrics := do(t, rt.ListPodSandboxMetrics, &cri.ListPodSandboxMetricsRequest{}).PodMetrics
	if len(metrics) != 1 || metrics[0].PodSandboxId != p.id || len(metrics[0].ContainerMetrics) != 1 {
		t.Fatalf("%v", metrics)
	}
	values := map[string]uint64{}
	check := func(list []*cri.Metric, container string) {
		for _, m := range list {
			if len(keys[m.Name]) != len(m.LabelValues) {
				t.Errorf("%s has %d labels, its descriptor %d", m.Name, len(m.LabelValues), len(keys[m.Name]))
				continue
			}
			labels := map[string]string{}
			for i, k := range keys[m.Name] {
				labels[k] = m.LabelValues[i]
			}
			equal(t, "container", labels["container"], container)
			equal(t, "pod", labels["pod"], p.config.Metadata.Name)
			equal(t, "namespace", labels["namespace"], "e2e")
			if _, err := os.Stat("/sys/fs/cgroup" + labels["id"]); err != nil {
				t.Errorf("the id of %s: %v", m.Name, err)
			}
			values[container+"/"+m.Name+"/"+labels["interface"]] = m.Value.Value
		}
	}
	check(metrics[0].Metrics, "")
	check(metrics[0].ContainerMetrics[0].Metrics, c.config.Metadata.Name)
	equal(t, "processes", values[c.config.Metadata.Name+"/container_processes/"], 1)
	if n := values["/container_processes/"]; n != 2 && (*engine != "rkt" || n < 2) { // rkt has more of its own
		t.Errorf("the pod has %d processes, not 2", n)
	}
	between(t, "start time", values[c.config.Metadata.Name+"/container_start_time_seconds/"], uint64(time.Now().Unix()-60), uint64(time.Now().Unix()))
	for _, name := range []string{"/container_network_receive_bytes_total/eth0", "/container_cpu_usage_seconds_total/",
		c.config.Metadata.Name + "/container_cpu_usage_seconds_total/", c.config.Metadata.Name + "/container_fs_usage_bytes/",
		c.config.Metadata.Name + "/container_fs_limit_bytes/", c.config.Metadata.Name + "/container_file_descriptors/"} {
		if _, ok := values[name]; !ok {
			t.Errorf("no %s", name)
		}
	}
	if values[c.config.Metadata.Name+"/container_file_descriptors/"] < 3 {
		t.Error("it has no open files")
	}
}

// Limits that are changed.

func update(t testing.TB, c *ctrT, r *cri.LinuxContainerResources) {
	t.Helper()
	do(t, rt.UpdateContainerResources, &cri.UpdateContainerResourcesRequest{ContainerId: c.id, Linux: r,
		Annotations: map[string]string{"CPUWeight": "1", "systemd.MemoryMax": "1"}})
}

func TestStatsUpdateIsShownAndSurvivesARestart(t *testing.T) {
	leavesNothing(t)
	p := runPod(t)
	c := p.run(resources(&cri.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 20000, CpuShares: 512,
		MemoryLimitInBytes: 64 << 20, MemorySwapLimitInBytes: 64 << 20, OomScoreAdj: 7}))
	update(t, c, &cri.LinuxContainerResources{CpuQuota: 50000, OomScoreAdj: 9})
	update(t, c, &cri.LinuxContainerResources{MemoryLimitInBytes: 96 << 20})
	check := func() {
		t.Helper()
		got := c.status().Resources.GetLinux()
		equal(t, "quota", got.CpuQuota, 50000)
		equal(t, "period", got.CpuPeriod, 100000)
		equal(t, "shares", got.CpuShares, 512)
		equal(t, "memory", got.MemoryLimitInBytes, 96<<20)
		equal(t, "memory and swap", got.MemorySwapLimitInBytes, 96<<20)
		equal(t, "OOM score", got.OomScoreAdj, 7)
		equal(t, "the unit's quota", unitProperty(t, c.unit(), "CPUQuotaPerSecUSec"), "500ms")
		equal(t, "the unit's memory", unitProperty(t, c.unit(), "MemoryMax"), strconv.Itoa(96<<20))
		equal(t, "the unit's swap", unitProperty(t, c.unit(), "MemorySwapMax"), "0")
		equal(t, "the unit's weight", unitProperty(t, c.unit(), "CPUWeight"), "20")
	}
	check()
	restartDaemon(t)
	check()
	created := p.create()
	update(t, created, &cri.LinuxContainerResources{CpuShares: 2048})
	equal(t, "shares of one that was not started", created.status().Resources.GetLinux().GetCpuShares(), 2048)
	refused(t, rt.UpdateContainerResources, &cri.UpdateContainerResourcesRequest{ContainerId: c.id,
		Linux: &cri.LinuxContainerResources{CpuPeriod: 1}}, codes.InvalidArgument)
	refused(t, rt.UpdateContainerResources, &cri.UpdateContainerResourcesRequest{ContainerId: c.id,
		Linux: &cri.LinuxContainerResources{MemorySwapLimitInBytes: 1 << 20}}, codes.InvalidArgument)
	check()
	c.stop(0)
	refused(t, rt.UpdateContainerResources, &cri.UpdateContainerResourcesRequest{ContainerId: c.id,
		Linux: &cri.LinuxContainerResources{CpuShares: 1024}}, codes.FailedPrecondition)
	refused(t, rt.UpdateContainerResources, &cri.UpdateContainerResourcesRequest{ContainerId: "nonexistent",
		Linux: &cri.LinuxContainerResources{CpuShares: 1024}}, codes.NotFound)
	name := c.unit()
	c.remove()
	if _, err := os.Stat("/run/systemd/system.control/" + name + ".d"); err == nil {
		t.Error("the changes are still there for a unit that is not")
	}
}

func TestStatsUpdatePod(t *testing.T) {
	leavesNothing(t)
	p := runPod(t)
	do(t, rt.UpdatePodSandboxResources, &cri.UpdatePodSandboxResourcesRequest{PodSandboxId: p.id,
		Overhead:  &cri.LinuxContainerResources{MemoryLimitInBytes: 16 << 20},
		Resources: &cri.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 50000, MemoryLimitInBytes: 64 << 20}})
	slice := unitProperty(t, p.unit(), "Slice")
	equal(t, "the slice's memory", unitProperty(t, slice, "MemoryMax"), strconv.Itoa(80<<20))
	equal(t, "the slice's quota", unitProperty(t, slice, "CPUQuotaPerSecUSec"), "500ms")
	p.stop()
	refused(t, rt.UpdatePodSandboxResources, &cri.UpdatePodSandboxResourcesRequest{PodSandboxId: p.id}, codes.FailedPrecondition)
	p.remove()
	if _, err := os.Stat("/run/systemd/system.control/" + slice + ".d"); err == nil {
		t.Error("the changes are still there for a slice that is not")
	}
}

func TestLimitUpdateIsInForce(t *testing.T) {
	needControllers(t, "cpu", "memory", "pids")
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	c := p.run(sh("while :; do :; done"))
	equal(t, "cpu.max before", c.group("cpu.max"), "max 100000")
	update(t, c, &cri.LinuxContainerResources{CpuPeriod: 50000, CpuQuota: 10000, CpuShares: 1024,
		MemoryLimitInBytes: 64 << 20, Unified: map[string]string{"pids.max": "33", "memory.high": "50000000"}})
	equal(t, "cpu.max", c.group("cpu.max"), "10000 50000")
	equal(t, "memory.max", c.group("memory.max"), strconv.Itoa(64<<20))
	equal(t, "pids.max", c.group("pids.max"), "33")
	first := c.stats()
	time.Sleep(3 * time.Second)
	second := c.stats()
	between(t, "nano cores under a quota of a fifth", second.Cpu.UsageNanoCores.GetValue(), 100e6, 260e6)
	between(t, "memory left", second.Memory.AvailableBytes.GetValue(), 32<<20, 64<<20)
	between(t, "page faults", second.Memory.PageFaults.GetValue(), first.Memory.PageFaults.GetValue(), 1<<40)
	update(t, c, &cri.LinuxContainerResources{CpuQuota: -1})
	// systemd writes its default period where there is no quota (cgroup_cpu_adjust_period_and_log()).
	equal(t, "cpu.max without a limit again", c.group("cpu.max"), "max 100000")
	equal(t, "CPUQuotaPeriodUSec", unitProperty(t, c.unit(), "CPUQuotaPeriodUSec"), "50ms")
	update(t, c, &cri.LinuxContainerResources{CpuQuota: 20000})
	equal(t, "cpu.max with a quota again, of the period it had", c.group("cpu.max"), "20000 50000")
}
