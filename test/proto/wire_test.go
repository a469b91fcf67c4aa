// Calls our handlers, served over stubs by src/cri/test-serve, with the CRI's own Go client. WIRE_SERVER names it.
package proto

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const messageMax = 16 << 20 // what the kubelet's client takes

func wireServer(t *testing.T) *grpc.ClientConn {
	t.Helper()
	server := os.Getenv("WIRE_SERVER")
	if server == "" {
		t.Skip("WIRE_SERVER is not set: run this through meson test")
	}
	socket := filepath.Join(t.TempDir(), "cri.sock")
	cmd := exec.Command(server, socket)
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = input.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	if line, err := bufio.NewReader(output).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the server said %q, %v", line, err)
	}
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageMax)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func patience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// An empty request to each method is answered as one of these, with a sentence; a server that answers what the client
// cannot decode gives Internal.
func TestWireEveryMethodAnswers(t *testing.T) {
	conn := wireServer(t)
	services := theirFile().Services()
	for i := 0; i < services.Len(); i++ {
		s := services.Get(i)
		for k := 0; k < s.Methods().Len(); k++ {
			m := s.Methods().Get(k)
			in, err := protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName())
			if err != nil {
				t.Fatal(err)
			}
			out, err := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
			if err != nil {
				t.Fatal(err)
			}
			path := "/" + string(s.FullName()) + "/" + string(m.Name())
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			if m.Name() == "GetContainerEvents" {
				cancel()
				ctx, cancel = context.WithTimeout(context.Background(), 300*time.Millisecond)
			}
			if m.IsStreamingServer() {
				err = readStream(ctx, conn, path, in.New().Interface(), func() proto.Message { return out.New().Interface() })
			} else {
				err = conn.Invoke(ctx, path, in.New().Interface(), out.New().Interface())
			}
			cancel()
			switch code := status.Code(err); {
			case m.Name() == "GetContainerEvents":
				if code != codes.DeadlineExceeded {
					t.Errorf("%s: %v", path, err)
				}
			case code != codes.OK && code != codes.InvalidArgument && code != codes.Unimplemented:
				t.Errorf("%s: %v", path, err)
			case code != codes.OK && len(status.Convert(err).Message()) < 10:
				t.Errorf("%s: %v has no sentence", path, err)
			}
		}
	}
}

func readStream(ctx context.Context, conn *grpc.ClientConn, path string, in proto.Message, out func() proto.Message) error {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, path)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(in); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		if err := stream.RecvMsg(out()); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func TestWireContainerStatusIsComplete(t *testing.T) {
	client := runtimeapi.NewRuntimeServiceClient(wireServer(t))
	answer, err := client.ContainerStatus(patience(t), &runtimeapi.ContainerStatusRequest{ContainerId: strings.Repeat("2", 64), Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	want := &runtimeapi.ContainerStatus{
		Id:         strings.Repeat("2", 64),
		Metadata:   &runtimeapi.ContainerMetadata{Name: "init", Attempt: 1},
		State:      runtimeapi.ContainerState_CONTAINER_EXITED,
		CreatedAt:  1700000000000002000,
		StartedAt:  1700000000000003000,
		FinishedAt: 1700000000000004000,
		ExitCode:   137,
		Image:      &runtimeapi.ImageSpec{Image: "nginx"},
		ImageRef:   "sha256:aa",
		ImageId:    "sha256:aa",
		Reason:     "OOMKilled",
		Message:    "out of memory",
		Mounts: []*runtimeapi.Mount{
			{ContainerPath: "/data", HostPath: "/srv", Readonly: true, Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL},
			{ContainerPath: "/img", Image: &runtimeapi.ImageSpec{Image: "data:1"}},
		},
		LogPath:    "/var/log/pods/x/main/0.log",
		Resources:  &runtimeapi.ContainerResources{Linux: &runtimeapi.LinuxContainerResources{CpuShares: 512, OomScoreAdj: -5}},
		User:       &runtimeapi.ContainerUser{Linux: &runtimeapi.LinuxContainerUser{Uid: 1000, Gid: 2000, SupplementalGroups: []int64{5, 6}}},
		StopSignal: runtimeapi.Signal_SIGQUIT,
	}
	if !proto.Equal(answer.Status, want) {
		t.Errorf("got  %v\nwant %v", answer.Status, want)
	}
	if !strings.Contains(answer.Info["info"], `"pid":99`) {
		t.Errorf("info is %q", answer.Info)
	}
}

func TestWirePodSandboxStatus(t *testing.T) {
	client := runtimeapi.NewRuntimeServiceClient(wireServer(t))
	answer, err := client.PodSandboxStatus(patience(t), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: "aa"})
	if err != nil {
		t.Fatal(err)
	}
	want := &runtimeapi.PodSandboxStatus{
		Id:          strings.Repeat("a", 64),
		Metadata:    &runtimeapi.PodSandboxMetadata{Name: "web", Uid: "uid-1", Namespace: "default", Attempt: 2},
		CreatedAt:   1700000000000001000,
		Network:     &runtimeapi.PodSandboxNetworkStatus{},
		Linux:       &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{Options: &runtimeapi.NamespaceOption{}}},
		Labels:      map[string]string{"app": "shop", "tier": "web"},
		Annotations: map[string]string{"note": ""},
	}
	if !proto.Equal(answer.Status, want) {
		t.Errorf("got  %v\nwant %v", answer.Status, want)
	}
	if len(answer.ContainersStatuses) != 2 {
		t.Errorf("%d containers", len(answer.ContainersStatuses))
	}
}

func TestWireListsAndStreamsAgree(t *testing.T) {
	client := runtimeapi.NewRuntimeServiceClient(wireServer(t))
	list, err := client.ListContainers(patience(t), &runtimeapi.ListContainersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Containers) != 5003 {
		t.Errorf("%d containers are listed", len(list.Containers))
	}
	stream, err := client.StreamContainers(patience(t), &runtimeapi.StreamContainersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var streamed []*runtimeapi.Container
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if len(m.Containers) == 0 {
			t.Error("a message without an item")
		}
		streamed = append(streamed, m.Containers...)
	}
	if len(streamed) != len(list.Containers) {
		t.Fatalf("%d containers are streamed", len(streamed))
	}
	for i := range streamed {
		if !proto.Equal(streamed[i], list.Containers[i]) {
			t.Fatalf("container %d: listed %v, streamed %v", i, list.Containers[i], streamed[i])
		}
	}
}

// Both streams of 16 MiB: the answer still is a message that the client takes.
func TestWireExecSyncFitsTheClient(t *testing.T) {
	client := runtimeapi.NewRuntimeServiceClient(wireServer(t))
	answer, err := client.ExecSync(patience(t), &runtimeapi.ExecSyncRequest{ContainerId: "1", Cmd: []string{"yes"}})
	if err != nil {
		t.Fatal(err)
	}
	size := proto.Size(answer)
	if size > messageMax || size < messageMax-100 {
		t.Errorf("the answer has %d bytes", size)
	}
	if len(answer.Stdout) < messageMax/2-100 || len(answer.Stderr) < messageMax/2-100 || answer.ExitCode != 3 {
		t.Errorf("%d, %d, exit code %d", len(answer.Stdout), len(answer.Stderr), answer.ExitCode)
	}
	if !bytes.Equal(answer.Stdout[:3], []byte{0xff, 0xff, 0xff}) {
		t.Error("the bytes are changed")
	}
}

func TestWireEventsArriveWhenTheyHappen(t *testing.T) {
	client := runtimeapi.NewRuntimeServiceClient(wireServer(t))
	events, err := client.GetContainerEvents(patience(t), &runtimeapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond) // nothing tells that the stream is open before its first message
	for range 10 {
		if _, err := client.StartContainer(patience(t), &runtimeapi.StartContainerRequest{ContainerId: "1"}); err != nil {
			t.Fatal(err)
		}
		e, err := events.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if e.ContainerId != strings.Repeat("1", 64) || e.ContainerEventType != runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT ||
			e.PodSandboxStatus.GetId() != strings.Repeat("a", 64) || len(e.ContainersStatuses) != 2 {
			t.Errorf("event %v", e)
		}
	}
}

func TestWireErrorsKeepCodeAndText(t *testing.T) {
	client := runtimeapi.NewRuntimeServiceClient(wireServer(t))
	_, err := client.ContainerStatus(patience(t), &runtimeapi.ContainerStatusRequest{ContainerId: "grün%\n"})
	if status.Code(err) != codes.NotFound || !strings.Contains(status.Convert(err).Message(), "grün%\n") {
		t.Errorf("%v", err)
	}
	_, err = client.ContainerStatus(patience(t), &runtimeapi.ContainerStatusRequest{ContainerId: "a\x00b"})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(status.Convert(err).Message(), "NUL") {
		t.Errorf("%v", err)
	}
}
