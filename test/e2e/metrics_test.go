package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const metricsSocket = "/run/rktlet/metrics.sock"

func unixClient(path string) *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}}}
}

var (
	metricLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_][a-zA-Z0-9_]*="[^"\\]*",?)*\})? (\S+)$`)
	metricHead = regexp.MustCompile(`^# (?:HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) \S.*|TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram))$`)
)

// parseMetrics reads Prometheus's text format strictly: each value belongs to a metric with HELP and TYPE before it.
func parseMetrics(t testing.TB, text string) map[string]float64 {
	t.Helper()
	values, types, help := map[string]float64{}, map[string]string{}, map[string]bool{}
	if !strings.HasSuffix(text, "\n") {
		t.Errorf("the last line does not end: %.200q", text)
	}
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if strings.HasPrefix(line, "#") {
			m := metricHead.FindStringSubmatch(line)
			if m == nil {
				t.Fatalf("not a line of metrics: %q", line)
			}
			if m[1] != "" {
				help[m[1]] = true
			} else {
				types[m[2]] = m[3]
			}
			continue
		}
		m := metricLine.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("not a line of metrics: %q", line)
		}
		value, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		name := m[1]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base := strings.TrimSuffix(name, suffix); types[base] == "histogram" {
				name = base
			}
		}
		if types[name] == "" || !help[name] {
			t.Errorf("%s has no TYPE or HELP", name)
		}
		if _, twice := values[m[1]+m[2]]; twice {
			t.Errorf("%s is there twice", m[1]+m[2])
		}
		values[m[1]+m[2]] = value
	}
	return values
}

func getMetrics(t testing.TB, client *http.Client, url string) map[string]float64 {
	t.Helper()
	answer, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != 200 {
		t.Fatalf("%s: %v: %s", answer.Status, err, body)
	}
	contains(t, "content type", answer.Header.Get("Content-Type"), "text/plain", "version=0.0.4")
	return parseMetrics(t, string(body))
}

func TestMetricsCountWhatWasDone(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	client := unixClient(metricsSocket)
	metrics := func() map[string]float64 { t.Helper(); return getMetrics(t, client, "http://localhost/metrics") }
	before := metrics()

	p := runPod(t)
	c := p.run()
	for range 7 {
		do(t, rt.Version, &cri.VersionRequest{})
	}
	refused(t, rt.ContainerStatus, &cri.ContainerStatusRequest{ContainerId: "0123"}, codes.NotFound)
	do(t, img.PullImage, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref("test/base")}})
	refused(t, img.PullImage, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref("test/none-of-that-name")}}, codes.NotFound)
	stopped := p.run()
	stopped.stop(0)

	after := metrics()
	grew := func(name string, by float64) {
		t.Helper()
		if got := after[name] - before[name]; got != by {
			t.Errorf("%s grew by %v, not by %v", name, got, by)
		}
	}
	grew(`rktlet_requests_total{method="Version",code="OK"}`, 7)
	grew(`rktlet_request_duration_seconds_count{method="Version"}`, 7)
	grew(`rktlet_request_duration_seconds_bucket{method="Version",le="+Inf"}`, 7)
	grew(`rktlet_requests_total{method="RunPodSandbox",code="OK"}`, 1)
	grew(`rktlet_requests_total{method="CreateContainer",code="OK"}`, 2)
	grew(`rktlet_requests_total{method="ContainerStatus",code="NotFound"}`, 1)
	grew(`rktlet_requests_total{method="PullImage",code="NotFound"}`, 1)
	grew(`rktlet_pulls_total{result="failed"}`, 1)
	grew(`rktlet_pods{state="ready"}`, 1)
	grew(`rktlet_containers{state="running"}`, 1)
	grew(`rktlet_containers{state="exited"}`, 1)
	grew(`rktlet_unit_jobs_total{job="start",result="done"}`, 3) // a pod, two containers
	grew(`rktlet_unit_job_duration_seconds_count{job="start"}`, 3)
	grew(`rktlet_unit_jobs_total{job="start",result="failed"}`, 0)
	sum := `rktlet_request_duration_seconds_sum{method="RunPodSandbox"}`
	if took := after[sum] - before[sum]; took <= 0 || took > 60 {
		t.Errorf("RunPodSandbox took %v s", took)
	}
	if after["rktlet_loop_turn_duration_seconds_count"] <= before["rktlet_loop_turn_duration_seconds_count"] {
		t.Error("the loop has not turned")
	}
	equal(t, "images", after["rktlet_images"], float64(len(do(t, img.ListImages, &cri.ListImagesRequest{}).Images)))
	fs := do(t, img.ImageFsInfo, &cri.ImageFsInfoRequest{}).ImageFilesystems[0]
	equal(t, "bytes of images", after["rktlet_image_bytes"], float64(fs.UsedBytes.Value))
	equal(t, "connection to systemd", after["rktlet_systemd_connected"], 1)
	resident, _ := strconv.ParseFloat(strings.Fields(procStatus(string(must(os.ReadFile("/proc/"+daemonPID(t)+"/status"))), "VmRSS"))[0], 64)
	if got := after["process_resident_memory_bytes"] / 1024; got < resident*0.8 || got > resident*1.2 {
		t.Errorf("%v KiB are resident, the kernel says %v", got, resident)
	}
	for name, value := range after { // each bucket has those below it in it
		if strings.HasSuffix(name, `le="+Inf"}`) {
			labels := strings.TrimSuffix(strings.TrimSuffix(name[strings.Index(name, "{")+1:], `le="+Inf"}`), ",")
			count := strings.Replace(name[:strings.Index(name, "{")], "_bucket", "_count", 1)
			if labels != "" {
				count += "{" + labels + "}"
			}
			equal(t, count, after[count], value)
		}
	}
	c.remove()
	stopped.remove()
}

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

func TestMetricsAreForRootAndOnNoPortUnlessConfigured(t *testing.T) {
	st, err := os.Stat(metricsSocket)
	if err != nil || st.Mode().Perm() != 0o660 {
		t.Fatalf("%v, %v", st, err)
	}
	client := unixClient(metricsSocket)
	for _, c := range []struct {
		method, path string
		status       int
	}{{"GET", "/", 404}, {"GET", "/metrics/x", 404}, {"POST", "/metrics", 405}, {"HEAD", "/metrics", 200}} {
		request, _ := http.NewRequest(c.method, "http://localhost"+c.path, strings.NewReader(""))
		answer, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		equal(t, c.method+" "+c.path, answer.StatusCode, c.status)
	}
	// Clients that say nothing, too much, or nonsense take nothing from others.
	for i := range 40 {
		conn, err := net.Dial("unix", metricsSocket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		switch i % 4 {
		case 0:
			fmt.Fprint(conn, strings.Repeat("x", 100000))
		case 1:
			fmt.Fprint(conn, "GET /metrics HTTP/1.1\r\n")
			_ = conn.Close()
		case 2:
			fmt.Fprint(conn, "\x00\r\n\r\n")
		}
	}
	eventually(t, 20*time.Second, "others are served again", func() error {
		answer, err := client.Get("http://localhost/metrics")
		if err == nil {
			_ = answer.Body.Close()
		}
		return err
	})

	dropIn(t, "/etc/rktlet/rktlet.conf.d/50-metrics.conf", "[Manager]\nMetricsPort=9999\nMetricsSocket=none\n")
	restartDaemon(t)
	t.Cleanup(func() { _ = os.Remove("/etc/rktlet/rktlet.conf.d/50-metrics.conf"); restartDaemon(t) })
	if v := getMetrics(t, &http.Client{Timeout: 20 * time.Second}, "http://127.0.0.1:9999/metrics"); v["rktlet_systemd_connected"] != 1 {
		t.Errorf("%v", v)
	}
	out, _ := exec.Command("ss", "-Hltn", "sport", "=", "9999").CombinedOutput()
	contains(t, "what listens", string(out), "127.0.0.1:9999")
	if _, err := os.Stat(metricsSocket); err == nil {
		t.Error("the socket is there, too")
	}
}
