// demo runs a pod by the daemon's own interface, as a kubelet would, and shows what became of it: calls and answers, the
// units as systemd shows them, our D-Bus tree, the container's log. tools/try runs it inside of a throw-away machine.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var (
	socket = flag.String("socket", "/run/rktlet/rktlet.sock", "the daemon's socket")
	image  = flag.String("image", "127.0.0.1:5000/test/web:latest", "an image with a web server on port 8080")
	keep   = flag.Bool("keep", false, "leave the pod running")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func title(format string, a ...any) { fmt.Printf("\n\033[1m### "+format+"\033[0m\n", a...) }

// call makes one RPC and says how long it took.
func call[Q, A any](ctx context.Context, name string, method func(context.Context, Q, ...grpc.CallOption) (A, error), request Q) (A, error) {
	begin := time.Now()
	answer, err := method(ctx, request)
	fmt.Printf("%-18s %6.1f ms\n", name, float64(time.Since(begin).Microseconds())/1000)
	if err != nil {
		return answer, fmt.Errorf("%s: %w", name, err)
	}
	return answer, nil
}

// show runs a command and prints it with what it says.
func show(argv ...string) {
	title("%s", strings.Join(argv, " "))
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	_ = cmd.Run() // systemctl status exits with the unit's state
}

func run() error {
	conn, err := grpc.NewClient("unix://"+*socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	runtime, images := cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()

	title("What a kubelet asks for")
	version, err := call(ctx, "Version", runtime.Version, &cri.VersionRequest{})
	if err != nil {
		return err
	}
	pulled, err := call(ctx, "PullImage", images.PullImage, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: *image}})
	if err != nil {
		return err
	}
	logs := "/var/log/pods/shop_web-0"
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return err
	}
	network := &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER}
	pod := &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: "web-0", Namespace: "shop", Uid: "11111111-2222-3333-4444-555555555555"},
		Hostname: "web-0", LogDirectory: logs, Labels: map[string]string{"app": "web"},
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent:    "kubepods-besteffort-pod11111111_2222_3333_4444_555555555555.slice",
			SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: network}},
	}
	sandbox, err := call(ctx, "RunPodSandbox", runtime.RunPodSandbox, &cri.RunPodSandboxRequest{Config: pod})
	if err != nil {
		return err
	}
	if !*keep {
		defer func() {
			title("Taken down again")
			_, _ = call(ctx, "StopPodSandbox", runtime.StopPodSandbox, &cri.StopPodSandboxRequest{PodSandboxId: sandbox.PodSandboxId})
			_, _ = call(ctx, "RemovePodSandbox", runtime.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: sandbox.PodSandboxId})
		}()
	}
	created, err := call(ctx, "CreateContainer", runtime.CreateContainer, &cri.CreateContainerRequest{
		PodSandboxId: sandbox.PodSandboxId, SandboxConfig: pod,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: "httpd"}, Image: &cri.ImageSpec{Image: *image}, LogPath: "httpd/0.log",
			Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: network}}}})
	if err != nil {
		return err
	}
	if _, err = call(ctx, "StartContainer", runtime.StartContainer, &cri.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		return err
	}
	status, err := call(ctx, "PodSandboxStatus", runtime.PodSandboxStatus, &cri.PodSandboxStatusRequest{PodSandboxId: sandbox.PodSandboxId})
	if err != nil {
		return err
	}
	ip := status.Status.Network.GetIp()
	fmt.Printf("\n%s %s, image %.19s, pod %.12s at %s, container %.12s\n", version.RuntimeName, version.RuntimeVersion,
		pulled.ImageRef, sandbox.PodSandboxId, ip, created.ContainerId)

	title("GET http://%s:8080/", ip)
	page, err := fetch(ctx, "http://"+ip+":8080/")
	if err != nil {
		return err
	}
	fmt.Print(page)
	answer, err := runtime.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: created.ContainerId, Cmd: []string{"ps"}, Timeout: 10})
	if err != nil {
		return err
	}
	title("ExecSync ps")
	fmt.Print(string(answer.Stdout))

	show("systemctl", "status", "--no-pager", "--full", "--lines=0", "rktlet.service")
	show("systemctl", "status", "--no-pager", "--full", "--lines=5", "rktlet-pod-"+sandbox.PodSandboxId+".service")
	show("systemctl", "status", "--no-pager", "--full", "--lines=5", "rktlet-ctr-"+created.ContainerId+".service")
	show("systemd-cgls", "--no-pager", "--xattr=no", "--cgroup-id=no", "--unit", "kubepods.slice")
	show("rktletctl", "list-pods")
	show("rktletctl", "status", "shop/web-0")
	show("busctl", "--no-pager", "tree", "org.rktlet1")
	title("The container's log, %s", filepath.Join(logs, "httpd/0.log"))
	text, err := os.ReadFile(filepath.Join(logs, "httpd/0.log"))
	if err != nil {
		return err
	}
	fmt.Print(string(text))
	return nil
}

func fetch(ctx context.Context, url string) (string, error) {
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return "", err
		}
		answer, err := http.DefaultClient.Do(request)
		if err == nil {
			defer answer.Body.Close()
			body, err := io.ReadAll(answer.Body)
			return string(body), err
		}
		if ctx.Err() != nil {
			return "", err
		}
		time.Sleep(50 * time.Millisecond) // the server in the container is still starting
	}
}
