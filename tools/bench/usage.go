package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroupCPU is the CPU time that a control group has used, in milliseconds; 0 if it isn't there.
func cgroupCPU(path string) float64 {
	data, err := os.ReadFile(filepath.Join(cgroupRoot, path, "cpu.stat"))
	if err != nil {
		return 0
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if value, ok := strings.CutPrefix(line, "usage_usec "); ok {
			usec, _ := strconv.ParseFloat(value, 64)
			return usec / 1000
		}
	}
	return 0
}

// hostCPU is the time that all CPUs were not idle, in milliseconds. In a container it is that of the whole machine, with
// whatever else runs there, but it is the only count that has the kernel's own threads.
func hostCPU() float64 {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(data), "\n")
	busy := 0.0
	for i, field := range strings.Fields(line)[1:] {
		value, _ := strconv.ParseFloat(field, 64)
		if i == 3 || i == 4 || i >= 8 { // idle, iowait; guest is in user already
			continue
		}
		busy += value
	}
	return busy * 10 // USER_HZ is 100
}

// cpuTimes are sums since the start, in milliseconds.
type cpuTimes struct {
	host, all       float64
	daemon, manager float64
	bus, journal    float64
	pods            float64
}

// cpuNow takes a reading. all is what the machine under test used but for this program, the registry and the other
// runtimes' daemons; daemon is the service's control group, manager is PID 1's, pods is the slice that pods are asked to be
// in (a runtime may put its per-pod processes elsewhere).
func (b *Bench) cpuNow(r *Runtime) cpuTimes {
	t := cpuTimes{host: hostCPU(), all: cgroupCPU(""), daemon: cgroupCPU("system.slice/" + r.Unit), manager: cgroupCPU("init.scope"),
		bus: cgroupCPU("system.slice/dbus.service"), journal: cgroupCPU("system.slice/systemd-journald.service"),
		pods: cgroupCPU(b.Parent)}
	t.all -= cgroupCPU(b.ownCgroup) + cgroupCPU("system.slice/docker-registry.service")
	for _, other := range b.runtimes {
		if other != r {
			t.all -= cgroupCPU("system.slice/" + other.Unit)
		}
	}
	return t
}

// settle is given to a daemon before a reading: what it does after its answer belongs to the call, too.
const settle = 50 * time.Millisecond

// cpuSince records what was used since a reading. per divides, for work that was done several times.
func (b *Bench) cpuSince(r *Runtime, before cpuTimes, group, what string, per float64) {
	time.Sleep(settle)
	now := b.cpuNow(r)
	b.record(group, what+": CPU", "ms", r, (now.all-before.all)/per)
	b.record(group, what+": CPU, daemon's cgroup", "ms", r, (now.daemon-before.daemon)/per)
	b.record(group, what+": CPU, PID 1", "ms", r, (now.manager-before.manager)/per)
	b.record(group, what+": CPU, bus", "ms", r, (now.bus-before.bus)/per)
	b.record(group, what+": CPU, journal", "ms", r, (now.journal-before.journal)/per)
	b.record(group, what+": CPU, pods' slice", "ms", r, (now.pods-before.pods)/per)
	b.record(group, what+": CPU, host's /proc/stat", "ms", r, (now.host-before.host)/per)
}

func ownCgroup() (string, error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if path, ok := strings.CutPrefix(line, "0::/"); ok {
			if path == "" {
				break
			}
			return path, nil
		}
	}
	return "", fmt.Errorf("this program needs a control group of its own, to leave its CPU time out: run it in a unit")
}

// process is what the memory of one process is, in MiB.
type process struct {
	pid  int
	comm string
	pss  float64
}

func processPSS(pid int) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Pss:" {
			kib, err := strconv.ParseFloat(fields[1], 64)
			return kib / 1024, err
		}
	}
	return 0, nil // a kernel thread
}

// processes are all of the machine but this program.
func processes() ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var list []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil {
			continue // gone
		}
		p := process{pid: pid, comm: string(bytes.TrimSpace(comm))}
		if p.pss, err = processPSS(pid); err != nil {
			continue
		}
		list = append(list, p)
	}
	return list, nil
}

// memory is where the memory of the machine's processes is, in MiB of PSS. workloads, the processes inside of the
// containers, are in none of the others.
type memory struct {
	daemon, helpers, manager, others float64
	helperCount                      int
}

func (r *Runtime) memoryNow() (memory, error) {
	var m memory
	main, err := r.mainPID()
	if err != nil {
		return m, err
	}
	list, err := processes()
	if err != nil {
		return m, err
	}
	for _, p := range list {
		switch {
		case p.pid == main:
			m.daemon += p.pss
		case p.pid == 1:
			m.manager += p.pss
		case p.comm == "workload":
		case slices.Contains(r.Helpers, p.comm):
			m.helpers += p.pss
			m.helperCount++
		default:
			m.others += p.pss
		}
	}
	return m, nil
}
