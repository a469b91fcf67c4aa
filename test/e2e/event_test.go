package e2e

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A subscriber collects events, over a connection of its own, until it is told to stop.
type subscriber struct {
	sync.Mutex
	events []*cri.ContainerEventResponse
	stream cri.RuntimeService_GetContainerEventsClient
	ended  chan error
}

// subscribe returns once the subscription is in force: the daemon has answered a call that came after it.
func subscribe(t testing.TB) *subscriber {
	t.Helper()
	conn, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	client := cri.NewRuntimeServiceClient(conn)
	s := &subscriber{ended: make(chan error, 1)}
	s.stream, err = client.GetContainerEvents(t.Context(), &cri.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	do(t, client.Version, &cri.VersionRequest{})
	return s
}

func (s *subscriber) collect() {
	go func() {
		for {
			event, err := s.stream.Recv()
			if err != nil {
				s.ended <- err
				return
			}
			s.Lock()
			s.events = append(s.events, event)
			s.Unlock()
		}
	}()
}

// of are the events told with an ID so far.
func (s *subscriber) of(id string) (events []*cri.ContainerEventResponse) {
	s.Lock()
	defer s.Unlock()
	for _, e := range s.events {
		if e.ContainerId == id {
			events = append(events, e)
		}
	}
	return events
}

// kinds waits for so many events of an ID and says which they are.
func (s *subscriber) kinds(t testing.TB, id string, n int) string {
	t.Helper()
	eventually(t, 10*time.Second, fmt.Sprintf("%d events", n), func() error {
		if got := len(s.of(id)); got < n {
			return fmt.Errorf("%d", got)
		}
		return nil
	})
	return kinds(s.of(id))
}

func kinds(events []*cri.ContainerEventResponse) string {
	var names []string
	for _, e := range events {
		names = append(names, strings.TrimSuffix(strings.TrimPrefix(e.ContainerEventType.String(), "CONTAINER_"), "_EVENT"))
	}
	return strings.Join(names, " ")
}

func TestEventsReachEverySubscriberInOrder(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	subscribers := []*subscriber{subscribe(t), subscribe(t), subscribe(t)}
	for _, s := range subscribers {
		s.collect()
	}
	begin := time.Now().UnixNano()
	p := runPod(t)
	c := p.run(sh("exit 5"))
	c.wait()
	other := p.run()
	c.remove()
	p.remove()
	for _, s := range subscribers {
		equal(t, "the container's events", s.kinds(t, c.id, 4), "CREATED STARTED STOPPED DELETED")
		equal(t, "the other's", s.kinds(t, other.id, 4), "CREATED STARTED STOPPED DELETED")
		equal(t, "the pod's", s.kinds(t, p.id, 4), "CREATED STARTED STOPPED DELETED")
		stopped := s.of(c.id)[2]
		equal(t, "the pod", stopped.PodSandboxStatus.GetId(), p.id)
		equal(t, "its state", stopped.PodSandboxStatus.GetState(), cri.PodSandboxState_SANDBOX_READY)
		if len(stopped.ContainersStatuses) != 1 {
			t.Fatalf("%d containers when there was one", len(stopped.ContainersStatuses))
		}
		equal(t, "the container", stopped.ContainersStatuses[0].Id, c.id)
		equal(t, "its state", stopped.ContainersStatuses[0].State, cri.ContainerState_CONTAINER_EXITED)
		equal(t, "its exit code", stopped.ContainersStatuses[0].ExitCode, 5)
		deleted := s.of(c.id)[3]
		if len(deleted.ContainersStatuses) != 1 || deleted.ContainersStatuses[0].Id != other.id {
			t.Errorf("after the removal there are %v", deleted.ContainersStatuses)
		}
		equal(t, "the pod in the end", s.of(p.id)[2].PodSandboxStatus.GetState(), cri.PodSandboxState_SANDBOX_NOTREADY)
		last := begin
		for _, e := range s.events {
			if e.CreatedAt < last {
				t.Errorf("an event of %d after one of %d", e.CreatedAt, last)
			}
			last = e.CreatedAt
		}
	}
	for _, s := range subscribers[1:] {
		for i, e := range s.events {
			if !proto.Equal(e, subscribers[0].events[i]) {
				t.Errorf("event %d differs: %v, %v", i, e, subscribers[0].events[i])
			}
		}
	}
}

func TestEventsOfManyAtOnceAreAllTold(t *testing.T) {
	leavesNothing(t)
	s := subscribe(t)
	s.collect()
	pull(t, "test/base")
	var wait sync.WaitGroup
	ids := make([]string, 24)
	for i := range ids {
		wait.Add(1)
		go func() {
			defer wait.Done()
			p := runPod(t)
			c := p.run(sh(fmt.Sprintf("exit %d", i)))
			ids[i] = c.id
			c.wait()
			p.remove()
		}()
	}
	wait.Wait()
	for i, id := range ids {
		equal(t, "events", s.kinds(t, id, 4), "CREATED STARTED STOPPED DELETED")
		for _, st := range s.of(id)[2].ContainersStatuses {
			equal(t, "exit code", st.ExitCode, int32(i))
		}
	}
}

// What a subscriber doesn't read waits in the daemon, but not without end; the others don't notice.
func TestEventsUnreadEndTheirStreamOnly(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	before := rss(t)
	slow, quick := subscribe(t), subscribe(t)
	quick.collect()
	// Each event has the pod's annotations in it.
	p := runPod(t, func(c *cri.PodSandboxConfig) {
		c.Annotations = map[string]string{"much": strings.Repeat("0123456789", 60_000)}
	})
	var ids []string
	for range 12 {
		c := p.run(sh("exit 0"))
		c.wait()
		c.remove()
		ids = append(ids, c.id)
	}
	if now := rss(t); now > before+40<<10 {
		t.Errorf("%d KiB before, %d KiB with 28 MiB of unread events", before, now)
	}
	for _, id := range ids {
		equal(t, "the quick one's events", quick.kinds(t, id, 4), "CREATED STARTED STOPPED DELETED")
	}
	slow.collect()
	select {
	case err := <-slow.ended:
		checkRefusal(t, err, codes.ResourceExhausted)
		contains(t, "the error", status.Convert(err).Message(), "list")
	case <-time.After(20 * time.Second):
		t.Error("it goes on")
	}
	// What it got before has no gap.
	slow.Lock()
	defer slow.Unlock()
	if len(slow.events) == 0 || len(slow.events) >= len(quick.events) {
		t.Errorf("the slow one got %d events, the quick one %d", len(slow.events), len(quick.events))
	}
	for i, e := range slow.events {
		if !proto.Equal(e, quick.events[i]) {
			t.Fatalf("event %d differs", i)
		}
	}
}

func TestEventsEndWithTheDaemonAndGoOnAfterwards(t *testing.T) {
	leavesNothing(t)
	p := runPod(t)
	c := p.run(sh("trap 'exit 9' TERM; while :; do sleep 0.1; done"))
	s := subscribe(t)
	s.collect()
	restartDaemon(t)
	select {
	case err := <-s.ended:
		if err != io.EOF {
			checkRefusal(t, err, codes.Unavailable)
		}
	case <-time.After(10 * time.Second):
		t.Error("the stream goes on without its daemon")
	}
	again := subscribe(t)
	again.collect()
	c.stop(10)
	equal(t, "events", again.kinds(t, c.id, 1), "STOPPED")
	equal(t, "exit code", again.of(c.id)[0].ContainersStatuses[0].ExitCode, 9)
}

// received is all that a stream sends.
func received[M any](t testing.TB, stream grpc.ServerStreamingClient[M], err error) (messages []*M) {
	t.Helper()
	for err == nil {
		var m *M
		if m, err = stream.Recv(); err == nil {
			messages = append(messages, m)
		}
	}
	if err != io.EOF {
		t.Fatal(err)
	}
	return messages
}

// sameItems compares a list with what was streamed in the same order, leaving out what changes from moment to moment.
func sameItems[M proto.Message](t testing.TB, what string, listed, streamed []M, id func(M) string) {
	t.Helper()
	if len(listed) == 0 || len(listed) != len(streamed) {
		t.Fatalf("%d %s are listed, %d streamed", len(listed), what, len(streamed))
	}
	seen := map[string]bool{}
	for _, item := range listed {
		seen[id(item)] = true
	}
	for _, item := range streamed {
		if !seen[id(item)] {
			t.Errorf("%s %q is streamed and not listed", what, id(item))
		}
	}
}

func TestListsThatStreamAreTheLists(t *testing.T) {
	leavesNothing(t)
	ctx := t.Context()
	pull(t, "test/web")
	p, q := runPod(t, withNetwork), runPod(t)
	p.run()
	p.create()
	q.run(sh("exit 0")).wait()

	var pods []*cri.PodSandbox
	stream, err := rt.StreamPodSandboxes(ctx, &cri.StreamPodSandboxesRequest{})
	for _, m := range received(t, stream, err) {
		pods = append(pods, m.PodSandboxes...)
	}
	listed := do(t, rt.ListPodSandbox, &cri.ListPodSandboxRequest{}).Items
	sameItems(t, "pods", listed, pods, func(p *cri.PodSandbox) string { return p.String() })

	var containers []*cri.Container
	ctrStream, err := rt.StreamContainers(ctx, &cri.StreamContainersRequest{})
	for _, m := range received(t, ctrStream, err) {
		containers = append(containers, m.Containers...)
	}
	sameItems(t, "containers", do(t, rt.ListContainers, &cri.ListContainersRequest{}).Containers, containers,
		func(c *cri.Container) string { return c.String() })

	var images []*cri.Image
	imageStream, err := img.StreamImages(ctx, &cri.StreamImagesRequest{})
	for _, m := range received(t, imageStream, err) {
		images = append(images, m.Images...)
	}
	sameItems(t, "images", do(t, img.ListImages, &cri.ListImagesRequest{}).Images, images,
		func(i *cri.Image) string { return i.String() })

	var stats []*cri.PodSandboxStats
	statsStream, err := rt.StreamPodSandboxStats(ctx, &cri.StreamPodSandboxStatsRequest{})
	for _, m := range received(t, statsStream, err) {
		stats = append(stats, m.PodSandboxStats...)
	}
	sameItems(t, "statistics of pods", do(t, rt.ListPodSandboxStats, &cri.ListPodSandboxStatsRequest{}).Stats, stats,
		func(s *cri.PodSandboxStats) string { return s.Attributes.String() })

	var metrics []*cri.PodSandboxMetrics
	metricsStream, err := rt.StreamPodSandboxMetrics(ctx, &cri.StreamPodSandboxMetricsRequest{})
	for _, m := range received(t, metricsStream, err) {
		metrics = append(metrics, m.PodSandboxMetrics...)
	}
	sameItems(t, "metrics of pods", do(t, rt.ListPodSandboxMetrics, &cri.ListPodSandboxMetricsRequest{}).PodMetrics, metrics,
		func(m *cri.PodSandboxMetrics) string { return fmt.Sprint(m.PodSandboxId, len(m.ContainerMetrics)) })

	// One of nothing ends without a message.
	nobody, err := rt.StreamContainers(ctx, &cri.StreamContainersRequest{Filter: &cri.ContainerFilter{Id: "no-such"}})
	equal(t, "messages", len(received(t, nobody, err)), 0)
	one, err := rt.StreamPodSandboxes(ctx, &cri.StreamPodSandboxesRequest{Filter: &cri.PodSandboxFilter{Id: q.id}})
	found := received(t, one, err)
	if len(found) != 1 || len(found[0].PodSandboxes) != 1 || found[0].PodSandboxes[0].Id != q.id {
		t.Errorf("filtered by its ID: %v", found)
	}
}
