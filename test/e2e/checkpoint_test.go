package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CheckpointContainer. CRIU itself doesn't work where these run; a runtime with a stand-in for it shows everything else.

func readTar(t testing.TB, r io.Reader) (names []string, content map[string]string, headers map[string]*tar.Header) {
	t.Helper()
	content, headers = map[string]string{}, map[string]*tar.Header{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		names, content[name], headers[name] = append(names, name), string(data), h
	}
}

// goesOn checks that the container is neither frozen nor ended.
func (c *ctrT) goesOn() {
	c.t.Helper()
	equal(c.t, "it runs on", c.sh("echo yes"), "yes\n")
	equal(c.t, "state", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
	before := len(c.log())
	eventually(c.t, 10*time.Second, "it writes more", func() error {
		if len(c.log()) <= before {
			return errors.New("nothing new in its log")
		}
		return nil
	})
}

var ticks = sh("echo change >> /etc/passwd; echo new > /new; ln -s /etc/shadow /link; ln /new /hard; mkfifo /fifo; rm /etc/group; " +
	"rm -r /home; mkdir /home; touch /home/own; chmod 4755 /new; while :; do echo tick; sleep 0.1; done")

func TestCheckpoint(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPodWith(t, "stand-in")
	c := p.run(ticks)
	c.waitForLog("tick")
	writeFile(t, "/run/e2e/stand-in-group", unitProperty(t, c.unit(), "ControlGroup")+"/container", 0o644)
	t.Cleanup(func() { _ = os.Remove("/run/e2e/stand-in-group") })
	dir := scratch(t)
	location := dir + "/checkpoint.tar"
	request := &cri.CheckpointContainerRequest{ContainerId: c.id, Location: location, Timeout: 20}
	do(t, rt.CheckpointContainer, request)
	c.goesOn()
	info, err := os.Stat(location)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "mode", info.Mode().Perm(), 0o600)
	data, _ := os.ReadFile(location)
	names, content, _ := readTar(t, bytes.NewReader(data))
	for _, name := range []string{"config.dump", "spec.dump", "rootfs-diff.tar", "deleted.files", "checkpoint", "checkpoint/arguments"} {
		if !slices.Contains(names, name) {
			t.Errorf("no %s in the archive: %v", name, names)
		}
	}
	equal(t, "frozen meanwhile", strings.TrimSpace(content["checkpoint/frozen"]), "1")
	contains(t, "arguments of the runtime", content["checkpoint/arguments"], "--leave-running", c.id)
	var config, spec map[string]any
	if err := errors.Join(json.Unmarshal([]byte(content["config.dump"]), &config), json.Unmarshal([]byte(content["spec.dump"]), &spec)); err != nil {
		t.Fatal(err)
	}
	equal(t, "name", at(t, config, "name"), c.config.Metadata.Name)
	equal(t, "image", at(t, config, "rootfsImageName"), ref("test/base"))
	equal(t, "image's ID", at(t, config, "rootfsImageRef"), c.status().ImageId)
	contains(t, "arguments", at(t, spec, "process/args"), "sleep 0.1")
	equal(t, "name for tools", at(t, spec, "annotations/io.kubernetes.cri.sandbox-name"), p.config.Metadata.Name)

	names, files, headers := readTar(t, strings.NewReader(content["rootfs-diff.tar"]))
	contains(t, "a changed file", files["etc/passwd"], "change\n", "root:")
	contains(t, "a new file", files["new"]+files["hard"], "new\n")
	equal(t, "its mode", headers["new"].Mode&0o7777, 0o4755)
	if headers["new"].Typeflag+headers["hard"].Typeflag != tar.TypeReg+tar.TypeLink {
		t.Error("a hard link became something else")
	}
	equal(t, "a link", headers["link"].Linkname, "/etc/shadow")
	equal(t, "a FIFO", headers["fifo"].Typeflag, tar.TypeFifo)
	if headers["home/own"] == nil || headers["etc/group"] != nil {
		t.Errorf("files are %v", names)
	}
	for name, h := range headers {
		for key := range h.PAXRecords {
			lacks(t, "attributes of "+name, key, "overlay")
		}
	}
	var deleted []string
	if err := json.Unmarshal([]byte(content["deleted.files"]), &deleted); err != nil || !slices.Contains(deleted, "/etc/group") {
		t.Errorf("deleted are %v (%v)", deleted, err)
	}
	if len(do(t, rt.ListContainers, &cri.ListContainersRequest{}).Containers) != 1 {
		t.Error("there is not just one container")
	}
	refused(t, rt.CheckpointContainer, request, codes.AlreadyExists)
	files2, _ := os.ReadDir(dir)
	equal(t, "files", len(files2), 1)
	if _, err := os.Stat("/var/lib/rktlet/containers/" + c.id + "/checkpoint"); err == nil {
		t.Error("the folder of the work is left")
	}
}

// What a removed and remade directory hides is deleted, and nothing else.
func TestCheckpointOfAnOpaqueDirectory(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPodWith(t, "stand-in")
	c := p.run(sh("ls -A /etc > /before; rm -r /etc 2>/dev/null; mkdir -p /etc; touch /etc/passwd; while :; do echo tick; sleep 0.1; done"))
	c.waitForLog("tick")
	before := strings.Fields(c.sh("cat /before"))
	location := scratch(t) + "/c.tar"
	do(t, rt.CheckpointContainer, &cri.CheckpointContainerRequest{ContainerId: c.id, Location: location})
	data, _ := os.ReadFile(location)
	_, content, _ := readTar(t, bytes.NewReader(data))
	var deleted []string
	if err := json.Unmarshal([]byte(content["deleted.files"]), &deleted); err != nil {
		t.Fatal(err)
	}
	left := strings.Fields(c.sh("ls -A /etc"))
	for _, name := range before {
		if slices.Contains(left, name) == slices.Contains(deleted, "/etc/"+name) {
			t.Errorf("/etc/%s: left %v, deleted %v", name, left, deleted)
		}
	}
}

func TestCheckpointThatFailsLeavesTheContainerAsItWas(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPodWith(t, "stand-in")
	c := p.run(ticks)
	c.waitForLog("tick")
	dir := scratch(t)
	request := func(location string) *cri.CheckpointContainerRequest {
		return &cri.CheckpointContainerRequest{ContainerId: c.id, Location: location, Timeout: 1}
	}
	told := func(t testing.TB, what string) {
		writeFile(t, "/run/e2e/stand-in-"+what, "", 0o644)
		t.Cleanup(func() { _ = os.Remove("/run/e2e/stand-in-" + what) })
	}
	after := func(t *testing.T) {
		c.with(t).goesOn()
		if files, _ := os.ReadDir(dir); len(files) != 0 {
			t.Errorf("left in the folder: %v", files)
		}
		if _, err := os.Stat("/var/lib/rktlet/containers/" + c.id + "/checkpoint"); err == nil {
			t.Error("the folder of the work is left")
		}
	}
	t.Run("CRIU fails", func(t *testing.T) {
		told(t, "fails")
		contains(t, "the error", refused(t, rt.CheckpointContainer, request(dir+"/x.tar"), codes.FailedPrecondition), "criu failed", "told to fail")
		after(t)
	})
	t.Run("it takes longer than the timeout", func(t *testing.T) {
		told(t, "hangs")
		refused(t, rt.CheckpointContainer, request(dir+"/x.tar"), codes.DeadlineExceeded)
		after(t)
	})
	t.Run("the client leaves", func(t *testing.T) {
		told(t, "hangs")
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer cancel()
		if _, err := rt.CheckpointContainer(ctx, &cri.CheckpointContainerRequest{ContainerId: c.id, Location: dir + "/x.tar"}); !isTimeout(err) {
			t.Errorf("%v", err)
		}
		after(t)
	})
	for name, location := range map[string]string{"none": "", "a relative one": "x.tar", "a folder": dir + "/", "dots": dir + "/.."} {
		t.Run("location: "+name, func(t *testing.T) {
			refused(t, rt.CheckpointContainer, request(location), codes.InvalidArgument)
		})
	}
	t.Run("location: in a folder that is not there", func(t *testing.T) {
		contains(t, "the error", refused(t, rt.CheckpointContainer, request(dir+"/no/x.tar"), codes.FailedPrecondition), dir+"/no")
	})
	t.Run("location: a link is not followed", func(t *testing.T) {
		if err := os.Symlink("/run/e2e/victim", dir+"/link"); err != nil {
			t.Fatal(err)
		}
		refused(t, rt.CheckpointContainer, request(dir+"/link"), codes.AlreadyExists)
		_ = os.Remove(dir + "/link")
		after(t)
	})
	t.Run("one that has ended", func(t *testing.T) {
		c.with(t).stop(0)
		refused(t, rt.CheckpointContainer, request(dir+"/x.tar"), codes.FailedPrecondition)
	})
}

func TestCheckpointNeedsARuntimeThatCan(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	location := scratch(t) + "/c.tar"
	c := runPodWith(t, "crun").run(sh("while :; do echo tick; sleep 0.1; done"))
	text := refused(t, rt.CheckpointContainer, &cri.CheckpointContainerRequest{ContainerId: c.id, Location: location}, codes.Unimplemented)
	contains(t, "the error", text, "CRIU", "runc")
	c.goesOn()
}

// runc with CRIU itself: an archive, or its own words why not; the container goes on in any case.
func TestCheckpointWithCRIU(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	c := runPodWith(t, "runc").run(ticks)
	c.waitForLog("tick")
	location := scratch(t) + "/c.tar"
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := rt.CheckpointContainer(ctx, &cri.CheckpointContainerRequest{ContainerId: c.id, Location: location})
	if err != nil {
		equal(t, "code", status.Code(err), codes.FailedPrecondition)
		contains(t, "the error", err.Error(), "CRIU says: Error (criu/")
	} else if data, _ := os.ReadFile(location); true {
		names, _, _ := readTar(t, bytes.NewReader(data))
		contains(t, "the archive", fmt.Sprint(names), "checkpoint/core-", "checkpoint/inventory.img")
	}
	c.goesOn()
}

func TestCheckpointIsNotRestored(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	request := p.createRequest(func(c *cri.ContainerConfig) { c.Image.Image = "/var/lib/kubelet/checkpoints/x.tar" })
	contains(t, "the error", refused(t, rt.CreateContainer, request, codes.Unimplemented), "checkpoint")
}
