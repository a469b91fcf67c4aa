package e2e

import (
	"fmt"
	"os"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// systemd is executed anew, or reads its units again, and the bus is restarted, in the middle of calls: no client notices.

// workThrough has pods made, stopped and removed while something is done again and again. No call may fail.
func workThrough(t *testing.T, times, pods int, disturb func(i int)) {
	t.Helper()
	keeper := runPod(t, withNetwork)
	c := keeper.run(sh(writer(100, "sleep 0.02")))
	c.waitForLog(" 500\n")
	alive := survivors(c)
	l := startLabour(t, 4, true)
	for i := 0; i < times || int(l.rounds.Load()) < pods && l.failed.Load() == 0; i++ {
		time.Sleep(time.Duration(20+i*i*71%200) * time.Millisecond)
		if i < times {
			disturb(i)
		}
		checkSurvivors(t, alive)
	}
	l.end()
	equal(t, "state", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
	c.stop(10)
	equal(t, "exit code", c.status().ExitCode, 0)
	lines := checkWriter(t, c.logPath())
	keeper.remove()
	t.Logf("%d disturbances during %d pods: %d failed calls, %d exit codes, %d lines", times, l.rounds.Load(), l.failed.Load(), l.exited.Load(), lines)
}

func TestFaultSystemdReexecutedFailsNoCall(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	workThrough(t, 9, 60, func(int) { command(t, "systemctl", "daemon-reexec") })
}

func TestFaultSystemdReloadedFailsNoCall(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	workThrough(t, 20, 30, func(int) { command(t, "systemctl", "daemon-reload") })
}

// restartBus ends the bus, in good order or all of a sudden, and waits for the next one.
func restartBus(t testing.TB, suddenly bool) {
	t.Helper()
	if suddenly {
		_, _ = try("systemctl", "kill", "--kill-who=main", "--signal=KILL", "dbus.service")
	} else {
		_, _ = try("systemctl", "restart", "dbus.service")
	}
	eventually(t, 20*time.Second, "the bus is back", func() error {
		if out, err := try("busctl", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetId"); err != nil {
			_, _ = try("systemctl", "start", "dbus.service")
			return fmt.Errorf("%s", out)
		}
		return nil
	})
}

func TestFaultBusRestartedFailsNoCall(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	workThrough(t, 6, 30, func(i int) { restartBus(t, i%2 == 1) })
}

// dbus-broker takes the place of dbus-daemon, is restarted, and gives it back.
func TestFaultOtherBusRestartedFailsNoCall(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	const alias = "/etc/systemd/system/dbus.service"
	choose := func(name string) {
		t.Helper()
		_ = os.Remove(alias)
		if name == "dbus-broker.service" {
			if err := os.Symlink("/lib/systemd/system/"+name, alias); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = try("systemctl", "stop", "dbus.service")
		command(t, "systemctl", "daemon-reload")
		restartBus(t, false)
		equal(t, "the bus", unitProperty(t, "dbus.service", "Id"), name)
		equal(t, "its state", unitProperty(t, "dbus.service", "ActiveState"), "active")
	}
	defer choose("dbus.service")
	workThrough(t, 5, 30, func(i int) {
		if i == 0 {
			choose("dbus-broker.service")
		} else {
			restartBus(t, i%2 == 1)
		}
	})
}

// What ends while there is no bus is known when it is back.
func TestFaultExitsWithoutABusAreKnown(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	c := p.run(sh("trap 'exit 8' TERM; echo up; while :; do sleep 0.05; done"))
	own := p.run(sh("echo up; while [ ! -e /gone ]; do sleep 0.02; done; exit 9"))
	c.waitForLog("up")
	own.waitForLog("up")
	root := fmt.Sprintf("/proc/%d/root/gone", own.pid())
	pid := own.pid()
	command(t, "systemctl", "stop", "dbus.socket", "dbus.service")
	defer func() { _, _ = try("systemctl", "start", "dbus.socket") }()
	command(t, "touch", root)
	eventually(t, 10*time.Second, "the process ends", func() error {
		if isAlive(pid) {
			return fmt.Errorf("%d lives", pid)
		}
		return nil
	})
	command(t, "systemctl", "start", "dbus.socket", "dbus.service")
	st := own.wait()
	equal(t, "exit code", st.ExitCode, 9)
	equal(t, "reason", st.Reason, "Error")
	if off := time.Duration(st.FinishedAt - exitTime(t, own.unit())*1000).Abs(); off > 5*time.Millisecond {
		t.Errorf("finished_at is off by %v", off)
	}
	c.stop(10)
	equal(t, "exit code", c.status().ExitCode, 8)
}
