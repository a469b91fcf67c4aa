package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What the journal has.

type journalEntry map[string]any

func (e journalEntry) text(field string) string {
	s, _ := e[field].(string)
	return s
}

// journalEntries reads what journalctl selects with the arguments.
func journalEntries(t testing.TB, argv ...string) []journalEntry {
	t.Helper()
	var l []journalEntry
	for _, line := range strings.Split(command(t, append([]string{"journalctl", "--no-pager", "--output=json", "--quiet", "--all"}, argv...)...), "\n") {
		if line == "" {
			continue
		}
		var e journalEntry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		l = append(l, e)
	}
	return l
}

func messages(l []journalEntry) string {
	var text []string
	for _, e := range l {
		text = append(text, e.text("MESSAGE"))
	}
	return strings.Join(text, "\n")
}

// messageID reads an ID from the catalog by a word of its subject.
func messageID(t testing.TB, subject string) string {
	t.Helper()
	data, err := os.ReadFile("/usr/lib/systemd/catalog/rktlet.catalog")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(data), "\n-- ")[1:] {
		id, rest, _ := strings.Cut(part, "\n")
		if strings.Contains(strings.SplitN(rest, "\n", 2)[0], subject) {
			return id
		}
	}
	t.Fatalf("the catalog has nothing about %q", subject)
	return ""
}

func TestJournalHasFieldsAndExplanations(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	command(t, "journalctl", "--update-catalog")
	p := runPod(t, func(c *cri.PodSandboxConfig) { c.Metadata.Namespace, c.Metadata.Name = "shop", "web-0" })
	c := p.run(sh("exit 3"), func(c *cri.ContainerConfig) { c.Metadata.Name = "job" })
	c.wait()
	find := func(what string, argv ...string) journalEntry {
		var l []journalEntry
		eventually(t, 5*time.Second, "the journal has "+what, func() error {
			if l = journalEntries(t, argv...); len(l) == 0 {
				return fmt.Errorf("nothing for %v", argv)
			}
			return nil
		})
		return l[len(l)-1]
	}
	e := find("the call", "CRI_METHOD=StartContainer", "CONTAINER_ID="+c.id)
	for field, want := range map[string]string{"POD_ID": p.id, "POD_NAMESPACE": "shop", "POD_NAME": "web-0", "POD_UID": p.config.Metadata.Uid,
		"CONTAINER_NAME": "job", "_SYSTEMD_UNIT": *daemonUnit} {
		equal(t, field, e.text(field), want)
	}
	e = find("the exit", "MESSAGE_ID="+messageID(t, "ended with an error"), "CONTAINER_ID="+c.id)
	equal(t, "exit code", e.text("EXIT_CODE"), "3")
	contains(t, "the container's unit in the journal", messages(journalEntries(t, "--unit="+c.unit())), "Container job of pod shop/web-0 ended with exit code 3 (Error)")
	contains(t, "its explanation", command(t, "journalctl", "--no-pager", "--catalog", "MESSAGE_ID="+messageID(t, "ended with an error"), "CONTAINER_ID="+c.id),
		"Container job of pod shop/web-0 ended with an error", "exit code 3")
	refused(t, rt.StartContainer, &cri.StartContainerRequest{ContainerId: c.id})
	find("the failed call", "MESSAGE_ID="+messageID(t, "call of the Container Runtime Interface failed"), "CONTAINER_ID="+c.id)
	find("the start", "MESSAGE_ID="+messageID(t, "serves"))
	q := runPod(t)
	command(t, "systemctl", "stop", q.unit())
	find("the pod's end", "MESSAGE_ID="+messageID(t, "ended by itself"), "POD_ID="+q.id)
	// One that was asked for is no news.
	p.stop()
	if l := journalEntries(t, "MESSAGE_ID="+messageID(t, "ended by itself"), "POD_ID="+p.id); len(l) > 0 {
		t.Errorf("a pod that was stopped: %v", messages(l))
	}
}

// withSettings restarts the daemon with a drop-in for the test.
func withSettings(t testing.TB, text string) {
	t.Helper()
	const path = "/etc/rktlet/rktlet.conf.d/50-test.conf"
	writeFile(t, path, text, 0o644)
	t.Cleanup(func() {
		_ = os.Remove(path)
		restartDaemon(t)
	})
	restartDaemon(t)
}

func TestJournalHasContainersOutputWhenConfigured(t *testing.T) {
	leavesNothing(t)
	withSettings(t, "[Engine]\nLogToJournal=yes\nJournalRateLimitBurst=100\n")
	p := runPod(t, func(c *cri.PodSandboxConfig) {
		c.Metadata.Namespace, c.Metadata.Name = "shop", fmt.Sprintf("journal-%d", number())
	})
	c := p.run(sh("echo to stdout; echo to stderr >&2; printf 'no newline'; sleep 1000"), func(c *cri.ContainerConfig) { c.Metadata.Name = "talker" })
	c.waitForLog("to stderr")
	for what, argv := range map[string][]string{
		"the container's unit": {"--unit=" + c.unit()},
		"the pod's unit":       {"--unit=" + p.unit()},
		"the pod's name":       {"POD_NAME=" + p.config.Metadata.Name, "CONTAINER_STREAM=stdout", "CONTAINER_STREAM=stderr"},
		"the container's ID":   {"CONTAINER_ID=" + c.id},
	} {
		eventually(t, 5*time.Second, "the journal has the output by "+what, func() error {
			if text := messages(journalEntries(t, argv...)); !strings.Contains(text, "to stdout") || !strings.Contains(text, "to stderr") {
				return fmt.Errorf("it has %q", text)
			}
			return nil
		})
	}
	for _, e := range journalEntries(t, "CONTAINER_ID="+c.id, "CONTAINER_STREAM=stderr") {
		for field, want := range map[string]string{"PRIORITY": "3", "SYSLOG_IDENTIFIER": "talker", "CONTAINER_NAME": "talker", "POD_NAMESPACE": "shop", "POD_UID": p.config.Metadata.Uid, "POD_ID": p.id} {
			equal(t, field, e.text(field), want)
		}
	}
	lacks(t, "the journal", messages(journalEntries(t, "CONTAINER_ID="+c.id)), "no newline")
	c.stop(0)
	eventually(t, 5*time.Second, "the journal has the line without an end", func() error {
		if text := messages(journalEntries(t, "--unit="+c.unit())); !strings.Contains(text, "no newline") {
			return fmt.Errorf("it has %q", text)
		}
		return nil
	})

	// A pod that talks too much is limited; its log file has everything.
	c = p.run(sh("i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; done"))
	c.wait()
	equal(t, "lines in the file", len(c.log()), 2000)
	if n := len(journalEntries(t, "CONTAINER_ID="+c.id, "CONTAINER_STREAM=stdout")); n == 0 || n > 1000 {
		t.Errorf("%d lines in the journal", n)
	}
}
