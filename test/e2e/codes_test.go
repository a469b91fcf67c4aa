package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Which gRPC code a request is refused with, and what becomes of one that is repeated.

type codeCase struct {
	name string
	call func(ctx context.Context, id string) error
	// for an ID that nobody has; OK where there is nothing to do then
	unknown codes.Code
	// for a pod that is stopped, or a container that has ended
	ended codes.Code
}

func callOf[Q, A any](call func(context.Context, Q, ...grpc.CallOption) (A, error), request func(id string) Q) func(context.Context, string) error {
	return func(ctx context.Context, id string) error {
		_, err := call(ctx, request(id))
		return err
	}
}

func podCases() []codeCase {
	config := &cri.PodSandboxConfig{Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
		NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_CONTAINER}}}}
	stream := func(port int32) func(string) *cri.PortForwardRequest {
		return func(id string) *cri.PortForwardRequest {
			return &cri.PortForwardRequest{PodSandboxId: id, Port: []int32{port}}
		}
	}
	return []codeCase{
		{"StopPodSandbox", callOf(rt.StopPodSandbox, func(id string) *cri.StopPodSandboxRequest { return &cri.StopPodSandboxRequest{PodSandboxId: id} }), codes.OK, codes.OK},
		{"PodSandboxStatus", callOf(rt.PodSandboxStatus, func(id string) *cri.PodSandboxStatusRequest { return &cri.PodSandboxStatusRequest{PodSandboxId: id} }), codes.NotFound, codes.OK},
		{"PodSandboxStats", callOf(rt.PodSandboxStats, func(id string) *cri.PodSandboxStatsRequest { return &cri.PodSandboxStatsRequest{PodSandboxId: id} }), codes.NotFound, codes.FailedPrecondition},
		{"UpdatePodSandboxResources", callOf(rt.UpdatePodSandboxResources, func(id string) *cri.UpdatePodSandboxResourcesRequest {
			return &cri.UpdatePodSandboxResourcesRequest{PodSandboxId: id, Resources: &cri.LinuxContainerResources{CpuShares: 512}}
		}), codes.NotFound, codes.FailedPrecondition},
		{"CreateContainer", callOf(rt.CreateContainer, func(id string) *cri.CreateContainerRequest {
			return &cri.CreateContainerRequest{PodSandboxId: id, Config: (&podT{config: config}).containerConfig()}
		}), codes.NotFound, codes.FailedPrecondition},
		{"PortForward", callOf(rt.PortForward, stream(80)), codes.NotFound, codes.FailedPrecondition},
		{"RemovePodSandbox", callOf(rt.RemovePodSandbox, func(id string) *cri.RemovePodSandboxRequest { return &cri.RemovePodSandboxRequest{PodSandboxId: id} }), codes.OK, codes.OK},
	}
}

func containerCases() []codeCase {
	return []codeCase{
		{"StopContainer", callOf(rt.StopContainer, func(id string) *cri.StopContainerRequest { return &cri.StopContainerRequest{ContainerId: id} }), codes.OK, codes.OK},
		{"StartContainer", callOf(rt.StartContainer, func(id string) *cri.StartContainerRequest { return &cri.StartContainerRequest{ContainerId: id} }), codes.NotFound, codes.FailedPrecondition},
		{"ContainerStatus", callOf(rt.ContainerStatus, func(id string) *cri.ContainerStatusRequest { return &cri.ContainerStatusRequest{ContainerId: id} }), codes.NotFound, codes.OK},
		{"ContainerStats", callOf(rt.ContainerStats, func(id string) *cri.ContainerStatsRequest { return &cri.ContainerStatsRequest{ContainerId: id} }), codes.NotFound, codes.FailedPrecondition},
		{"UpdateContainerResources", callOf(rt.UpdateContainerResources, func(id string) *cri.UpdateContainerResourcesRequest {
			return &cri.UpdateContainerResourcesRequest{ContainerId: id, Linux: &cri.LinuxContainerResources{CpuShares: 512}}
		}), codes.NotFound, codes.FailedPrecondition},
		{"ReopenContainerLog", callOf(rt.ReopenContainerLog, func(id string) *cri.ReopenContainerLogRequest { return &cri.ReopenContainerLogRequest{ContainerId: id} }), codes.NotFound, codes.FailedPrecondition},
		{"ExecSync", callOf(rt.ExecSync, func(id string) *cri.ExecSyncRequest {
			return &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{"true"}}
		}), codes.NotFound, codes.FailedPrecondition},
		{"Exec", callOf(rt.Exec, func(id string) *cri.ExecRequest {
			return &cri.ExecRequest{ContainerId: id, Cmd: []string{"true"}, Stdout: true}
		}), codes.NotFound, codes.FailedPrecondition},
		{"Attach", callOf(rt.Attach, func(id string) *cri.AttachRequest { return &cri.AttachRequest{ContainerId: id, Stdout: true} }), codes.NotFound, codes.FailedPrecondition},
		{"RemoveContainer", callOf(rt.RemoveContainer, func(id string) *cri.RemoveContainerRequest { return &cri.RemoveContainerRequest{ContainerId: id} }), codes.OK, codes.OK},
	}
}

func (c *codeCase) expect(t *testing.T, id string, want codes.Code) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := c.call(ctx, id)
	if status.Code(err) != want {
		t.Errorf("%s of %.70q: %v, not %v", c.name, id, err, want)
	} else if err != nil {
		checkRefusal(t, err, want)
	}
}

// Every method that takes an ID: one that nobody has, none, one that fits several.
func TestCodesOfIDs(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	pull(t, "test/base")
	// Of 17 IDs two begin with the same digit.
	first := map[byte]int{}
	p := runPod(t)
	for range 16 {
		first[runPod(t).id[0]]++
	}
	first[p.id[0]]++
	seen := map[byte]int{}
	for range 17 {
		seen[p.create().id[0]]++
	}
	ambiguous := func(digits map[byte]int) string {
		for digit, n := range digits {
			if n > 1 {
				return string(digit)
			}
		}
		t.Fatal("no two IDs begin with the same digit")
		return ""
	}
	for kind, cases := range map[string][]codeCase{ambiguous(first): podCases(), ambiguous(seen): containerCases()} {
		for _, c := range cases {
			c.expect(t, strings.Repeat("0123456789abcdef", 4), c.unknown)
			c.expect(t, "", codes.InvalidArgument)
			c.expect(t, kind, codes.InvalidArgument)
		}
	}
}

// A stopped pod and a container that has ended, by a prefix of their IDs; then each is removed by it.
func TestCodesOfWhatHasEnded(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	c := p.run(withCommand("true"))
	c.wait()
	for _, k := range containerCases() {
		k.expect(t, c.id[:13], k.ended)
	}
	refused(t, rt.ContainerStatus, &cri.ContainerStatusRequest{ContainerId: c.id}, codes.NotFound)
	p.stop()
	for _, k := range podCases() {
		k.expect(t, p.id[:13], k.ended)
	}
	refused(t, rt.PodSandboxStatus, &cri.PodSandboxStatusRequest{PodSandboxId: p.id}, codes.NotFound)
}

// By a prefix each method does what it does by the whole ID.
func TestCodesPrefixesWorkEverywhere(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t)
	c := p.run()
	running := containerCases()
	for _, k := range running[2 : len(running)-1] { // neither stopped nor started nor removed
		k.expect(t, c.id[:13], codes.OK)
	}
	pods := podCases()
	for _, k := range pods[1 : len(pods)-1] {
		k.expect(t, p.id[:13], codes.OK)
	}
	for _, s := range do(t, rt.ListContainerStats, &cri.ListContainerStatsRequest{Filter: &cri.ContainerStatsFilter{Id: c.id[:13], PodSandboxId: p.id[:13]}}).Stats {
		equal(t, "figures of", s.Attributes.Id, c.id)
	}
	equal(t, "figures of pods", len(do(t, rt.ListPodSandboxStats, &cri.ListPodSandboxStatsRequest{Filter: &cri.PodSandboxStatsFilter{Id: p.id[:13]}}).Stats), 1)
}

// More than the transport takes.
func TestCodesOfARequestThatIsTooLarge(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	config := podConfig(t, func(c *cri.PodSandboxConfig) {
		c.Annotations = map[string]string{"large": strings.Repeat("x", 17<<20)}
	})
	refused(t, rt.RunPodSandbox, &cri.RunPodSandboxRequest{Config: config}, codes.ResourceExhausted)
	refused(t, rt.ExecSync, &cri.ExecSyncRequest{ContainerId: "x", Cmd: []string{strings.Repeat("x", 17<<20)}}, codes.ResourceExhausted)
}

// Each request again, and after the daemon was killed again: the same end, and one of each.
func TestRepeatedRequestsComeToTheSameEnd(t *testing.T) {
	leavesNothing(t)
	pull(t, "test/base")
	labels := map[string]string{}
	for i := range 20 { // Go's clients send maps in another order each time
		labels[fmt.Sprint("label-", i)] = fmt.Sprint(i)
	}
	config := podConfig(t, withNetwork, func(c *cri.PodSandboxConfig) { c.Labels, c.Annotations = labels, labels })
	request := podRequest(config)
	id := do(t, rt.RunPodSandbox, request).PodSandboxId
	p := &podT{t: t, id: id, config: config}
	t.Cleanup(p.remove)
	refused(t, rt.RunPodSandbox, request, codes.AlreadyExists)
	// Nobody knows who got an answer from the daemon that was killed.
	killDaemon(t)
	equal(t, "the pod of the same request", do(t, rt.RunPodSandbox, request).PodSandboxId, id)
	refused(t, rt.RunPodSandbox, request, codes.AlreadyExists)
	killDaemon(t)
	other := podRequest(podConfig(t, withNetwork))
	other.Config.Metadata, other.Config.LogDirectory = config.Metadata, config.LogDirectory
	refused(t, rt.RunPodSandbox, other, codes.AlreadyExists)

	create := p.createRequest(sh("echo once; sleep 100000"))
	c := &ctrT{t: t, id: do(t, rt.CreateContainer, create).ContainerId, pod: p, config: create.Config}
	refused(t, rt.CreateContainer, create, codes.AlreadyExists)
	killDaemon(t)
	equal(t, "the container of the same request", do(t, rt.CreateContainer, create).ContainerId, c.id)
	refused(t, rt.RunPodSandbox, request, codes.AlreadyExists)
	c.start()
	refused(t, rt.StartContainer, &cri.StartContainerRequest{ContainerId: c.id}, codes.FailedPrecondition)
	refused(t, rt.CreateContainer, create, codes.AlreadyExists)
	killDaemon(t)
	c.start()
	refused(t, rt.CreateContainer, create, codes.AlreadyExists)
	c.waitForLog("once")
	for range 2 {
		c.stop(0)
		killDaemon(t)
		c.stop(0)
	}
	equal(t, "log", c.text("stdout"), "once\n")
	for range 2 {
		c.remove()
		killDaemon(t)
		c.remove()
	}
	for range 2 {
		p.stop()
		killDaemon(t)
		p.stop()
	}
	do(t, rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: id})
	if again := do(t, rt.RunPodSandbox, request).PodSandboxId; again == id {
		t.Error("a new pod has the ID of the old one")
	} else {
		p.id = again
	}
	equal(t, "pods", len(do(t, rt.ListPodSandbox, &cri.ListPodSandboxRequest{}).Items), 1)
	if logs, _ := filepath.Glob(config.LogDirectory + "/*"); len(logs) != 1 {
		t.Errorf("logs: %v", logs)
	}
}

// A client that gives up whenever, and asks again until it gets an answer, has one pod with one container that runs.
func TestRepeatedRequestsOfAnImpatientClient(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	pull(t, "test/base")
	for patience := 2 * time.Millisecond; patience < 60*time.Millisecond; patience += 7 * time.Millisecond {
		config := podConfig(t)
		p := &podT{t: t, config: config}
		p.id = untilAnswered(t, patience, func(ctx context.Context) (string, error) {
			answer, err := rt.RunPodSandbox(ctx, podRequest(config))
			return answer.GetPodSandboxId(), err
		}, func() string {
			items := do(t, rt.ListPodSandbox, &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{LabelSelector: config.Labels}}).Items
			return items[0].Id
		})
		create := p.createRequest()
		c := &ctrT{t: t, pod: p, config: create.Config}
		c.id = untilAnswered(t, patience, func(ctx context.Context) (string, error) {
			answer, err := rt.CreateContainer(ctx, create)
			return answer.GetContainerId(), err
		}, func() string {
			return do(t, rt.ListContainers, &cri.ListContainersRequest{}).Containers[0].Id
		})
		untilAnswered(t, patience, func(ctx context.Context) (string, error) {
			_, err := rt.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: c.id})
			if status.Code(err) == codes.FailedPrecondition && c.status().State == cri.ContainerState_CONTAINER_RUNNING {
				return "", nil // only the answer came too late
			}
			return "", err
		}, nil)
		equal(t, "state", c.status().State, cri.ContainerState_CONTAINER_RUNNING)
		equal(t, "pods", len(do(t, rt.ListPodSandbox, &cri.ListPodSandboxRequest{}).Items), 1)
		equal(t, "containers", len(do(t, rt.ListContainers, &cri.ListContainersRequest{}).Containers), 1)
		p.remove()
	}
}

// untilAnswered repeats a call with a deadline that doubles. AlreadyExists is an answer where it was sent and came too late: then
// what was asked for is in the list.
func untilAnswered(t testing.TB, patience time.Duration, call func(context.Context) (string, error), find func() string) string {
	t.Helper()
	for ; patience < time.Minute; patience *= 2 {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		id, err := call(ctx)
		cancel()
		switch {
		case err == nil:
			return id
		case status.Code(err) == codes.AlreadyExists && find != nil:
			return find()
		case !isTimeout(err):
			t.Fatal(err)
		}
	}
	t.Fatal("no answer within a minute")
	return ""
}
