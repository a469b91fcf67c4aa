package e2e

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	internalapi "k8s.io/cri-api/pkg/apis"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	remote "k8s.io/cri-client/pkg"
)

func TestVersionNamesTheRuntimeAndItsInterface(t *testing.T) {
	v := do(t, rt.Version, &cri.VersionRequest{Version: "v1"})
	equal(t, "runtime name", v.RuntimeName, "rktlet")
	equal(t, "interface version", v.RuntimeApiVersion, "v1")
	if v.RuntimeVersion == "" {
		t.Error("no version of the runtime")
	}
}

func TestStatusSaysRuntimeAndNetworkAreReady(t *testing.T) {
	answer := do(t, rt.Status, &cri.StatusRequest{Verbose: true})
	seen := map[string]bool{}
	for _, c := range answer.Status.Conditions {
		seen[c.Type] = c.Status
		if !c.Status {
			t.Errorf("%s is false: %s %s", c.Type, c.Reason, c.Message)
		}
	}
	if !seen["RuntimeReady"] || !seen["NetworkReady"] {
		t.Errorf("conditions are %v", answer.Status.Conditions)
	}
	if len(answer.Info) == 0 {
		t.Error("verbose status has no info")
	}
	if info := do(t, rt.Status, &cri.StatusRequest{}).Info; len(info) != 0 {
		t.Error("info although it was not asked for")
	}
}

func TestStatusSaysNetworkIsNotReadyWithoutAConfiguration(t *testing.T) {
	const conf, away = "/etc/cni/net.d/10-rktlet.conflist", "/etc/cni/10-rktlet.away"
	if err := os.Rename(conf, away); err != nil {
		t.Fatal(err)
	}
	back := func() { _ = os.Rename(away, conf) }
	defer back()
	ready := func() (bool, string) {
		for _, c := range do(t, rt.Status, &cri.StatusRequest{}).Status.Conditions {
			if c.Type == "NetworkReady" {
				return c.Status, c.Reason + ": " + c.Message
			}
		}
		return false, "no condition"
	}
	eventually(t, 5*time.Second, "NetworkReady is false", func() error {
		if ok, text := ready(); ok || len(text) < 10 {
			return os.ErrExist
		}
		return nil
	})
	refused(t, rt.RunPodSandbox, &cri.RunPodSandboxRequest{Config: podConfig(t, withNetwork)},
		codes.Unavailable, codes.FailedPrecondition)
	back()
	eventually(t, 5*time.Second, "NetworkReady is true again", func() error {
		if ok, _ := ready(); !ok {
			return os.ErrNotExist
		}
		return nil
	})
}

func TestRuntimeConfigAnswersTheSystemdCgroupDriver(t *testing.T) {
	equal(t, "cgroup driver", do(t, rt.RuntimeConfig, &cri.RuntimeConfigRequest{}).GetLinux().GetCgroupDriver(), cri.CgroupDriver_SYSTEMD)
}

func TestUnknownMethodIsUnimplemented(t *testing.T) {
	conn, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, method := range []string{"/runtime.v1.RuntimeService/NoSuchMethod", "/runtime.v1alpha2.RuntimeService/Version", "/x/y"} {
		err = conn.Invoke(context.Background(), method, &cri.VersionRequest{}, &cri.VersionResponse{})
		equal(t, method, status.Code(err), codes.Unimplemented)
	}
}

func TestKubeletsOwnClientIsServed(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var service internalapi.RuntimeService
	service, err := remote.NewRemoteRuntimeService(ctx, "unix://"+*socketPath, 10*time.Second, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := service.Version(ctx, "v1"); err != nil {
		t.Error(err)
	}
	if _, err := service.Status(ctx, true); err != nil {
		t.Error(err)
	}
	if _, err := service.ListPodSandbox(ctx, nil); err != nil {
		t.Error(err)
	}
	images, err := remote.NewRemoteImageService(ctx, "unix://"+*socketPath, 10*time.Second, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := images.ListImages(ctx, nil); err != nil {
		t.Error(err)
	}
	if _, err := images.ImageFsInfo(ctx); err != nil {
		t.Error(err)
	}
}

func TestFoldersAndSocketAreClosedToOthers(t *testing.T) {
	for path, want := range map[string]os.FileMode{"/var/lib/rktlet": 0o700, "/run/rktlet": 0o711, *socketPath: 0o660} {
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
			continue
		}
		equal(t, "mode of "+path, info.Mode().Perm(), want)
		if st := info.Sys().(*syscall.Stat_t); st.Uid != 0 || st.Gid != 0 {
			t.Errorf("%s belongs to %d:%d", path, st.Uid, st.Gid)
		}
	}
}

func TestDaemonHasNoAbstractSocketAndNoTCPPort(t *testing.T) {
	sockets, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(sockets), "\n") {
		if strings.Contains(line, "@") && strings.Contains(line, "rktlet") {
			t.Errorf("an abstract socket of ours: %s", line)
		}
	}
	ports, _ := try("ss", "--listening", "--tcp", "--numeric", "--processes", "--no-header")
	for _, line := range strings.Split(ports, "\n") {
		if strings.Contains(line, "rktlet") && !strings.Contains(line, "127.0.0.1:") && !strings.Contains(line, "[::1]:") {
			t.Errorf("a port that others can reach: %s", line)
		}
	}
}

func TestUnitIsNotifyAndSaysWhatItDoes(t *testing.T) {
	equal(t, "type", unitProperty(t, *daemonUnit, "Type"), "notify")
	equal(t, "state", unitProperty(t, *daemonUnit, "ActiveState"), "active")
	if unitProperty(t, *daemonUnit, "StatusText") == "" {
		t.Error("the unit has no status text")
	}
}
