package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func get(t testing.TB, url string) string {
	t.Helper()
	var text string
	client := http.Client{Timeout: 2 * time.Second}
	eventually(t, 10*time.Second, url+" answers", func() error {
		answer, err := client.Get(url)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		text = string(body)
		return err
	})
	return text
}

func TestNetworkPodHasItsOwnAddressesAndServes(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, withNetwork)
	network := p.status().Network
	ip := net.ParseIP(network.GetIp())
	if ip == nil || ip.To4() == nil || !strings.HasPrefix(network.Ip, "10.88.") {
		t.Fatalf("the address is %q", network.GetIp())
	}
	if len(network.AdditionalIps) != 1 || !strings.HasPrefix(network.AdditionalIps[0].Ip, "fd00:88::") {
		t.Errorf("further addresses are %v", network.AdditionalIps)
	}
	c := p.run(withImage("test/web"), withCommand())
	equal(t, "page", get(t, "http://"+network.Ip+":8080/"), "hello from the pod\n")
	equal(t, "page by IPv6", get(t, "http://["+network.AdditionalIps[0].Ip+"]:8080/"), "hello from the pod\n")
	addresses := c.sh("ip -o addr")
	contains(t, "addresses inside", addresses, network.Ip, "127.0.0.1", "eth0")
	other := runPod(t, withNetwork)
	contains(t, "page seen by another pod", other.output("wget -qO- http://"+network.Ip+":8080/"), "hello from the pod")
	if other.status().Network.Ip == network.Ip {
		t.Error("two pods have one address")
	}
	p.stop()
	if files, _ := filepath.Glob("/var/lib/cni/networks/rktlet/" + network.Ip); len(files) != 0 {
		t.Error("the address was not given back by StopPodSandbox")
	}
}

func TestNetworkHostPorts(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, withNetwork, func(c *cri.PodSandboxConfig) {
		c.PortMappings = []*cri.PortMapping{{Protocol: cri.Protocol_TCP, ContainerPort: 8080, HostPort: 18080}, {Protocol: cri.Protocol_TCP, ContainerPort: 9090}}
	})
	p.run(withImage("test/web"), withCommand())
	get(t, "http://"+p.status().Network.Ip+":8080/")
	addresses, _ := net.InterfaceAddrs()
	var own string
	for _, a := range addresses {
		if ip := a.(*net.IPNet).IP; ip.To4() != nil && strings.HasPrefix(ip.String(), "10.88.") {
			own = ip.String()
		}
	}
	equal(t, "page by the host's port", get(t, "http://"+own+":18080/"), "hello from the pod\n")
	rules := command(t, "iptables-save")
	contains(t, "rules", rules, "18080")
	p.stop()
	lacks(t, "rules after the stop", command(t, "iptables-save"), "18080")
}

func TestNetworkSurvivesTheDaemonAndIsTakenDownAfterwards(t *testing.T) {
	leavesNothing(t)
	p := runPod(t, withNetwork)
	p.run(withImage("test/web"), withCommand())
	before := p.status().Network
	url := "http://" + before.Ip + ":8080/"
	get(t, url)
	restartDaemon(t)
	equal(t, "addresses", p.status().Network.String(), before.String())
	get(t, url)
	killDaemon(t)
	equal(t, "addresses", p.status().Network.String(), before.String())
	get(t, url)
}

// The second plugin of the chain is a script that does what the test says.
func withFaultyPlugin(t testing.TB, script string) {
	t.Helper()
	writeFile(t, "/usr/lib/cni/faulty", "#!/bin/sh\ncat > /dev/null\n"+script, 0o755)
	writeFile(t, "/etc/cni/net.d/00-faulty.conflist", `{"cniVersion":"1.0.0","name":"rktlet","plugins":[
		{"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.88.0.0/16"}]]}},
		{"type":"portmap","capabilities":{"portMappings":true}},
		{"type":"faulty"}]}`, 0o644)
	t.Cleanup(func() {
		_ = os.Remove("/etc/cni/net.d/00-faulty.conflist")
		_ = os.Remove("/usr/lib/cni/faulty")
	})
	time.Sleep(200 * time.Millisecond) // the folder is watched, or looked at when used
}

func TestNetworkPluginThatFailsLeavesNothing(t *testing.T) {
	for name, script := range map[string]string{
		"with an error of its own":     `[ $CNI_COMMAND = DEL ] || { echo '{"cniVersion":"1.0.0","code":123,"msg":"out of cheese","details":"really"}'; exit 1; }`,
		"with words on standard error": `[ $CNI_COMMAND = DEL ] || { echo "out of cheese" >&2; exit 3; }`,
		"with a signal":                `[ $CNI_COMMAND = DEL ] || { echo "out of cheese" >&2; kill -9 $$; }`,
		"with a result that is none":   `[ $CNI_COMMAND = DEL ] || echo "out of cheese"`,
		"with a result without end":    `[ $CNI_COMMAND = DEL ] || { echo '{"msg":"out of cheese'; exec yes; }`,
		"in its undoing as well":       `echo '{"cniVersion":"1.0.0","code":123,"msg":"out of cheese"}'; exit 1`,
	} {
		t.Run(name, func(t *testing.T) {
			leavesNothing(t)
			daemonStays(t)
			withFaultyPlugin(t, script)
			ctx, cancel := timeout(5 * time.Second)
			defer cancel()
			answer, err := rt.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: podConfig(t, withNetwork, func(c *cri.PodSandboxConfig) {
				c.PortMappings = []*cri.PortMapping{{ContainerPort: 80, HostPort: 18081}}
			})})
			if err == nil {
				t.Error("it was accepted")
				do(t, rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: answer.PodSandboxId})
				return
			}
			text := checkRefusal(t, err)
			switch name {
			case "with a result without end":
				return // ended by the daemon, or with the call
			case "with a signal", "with a result that is none":
			default:
				contains(t, "the error", text, "out of cheese")
			}
			contains(t, "the error", text, "faulty")
		})
	}
	t.Run("because it is not there, nor another network", func(t *testing.T) {
		leavesNothing(t)
		withFaultyPlugin(t, "")
		_ = os.Remove("/usr/lib/cni/faulty")
		const conf, away = "/etc/cni/net.d/10-rktlet.conflist", "/etc/cni/10-rktlet.away"
		if err := os.Rename(conf, away); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.Rename(away, conf) }()
		contains(t, "the error", refused(t, rt.RunPodSandbox, &cri.RunPodSandboxRequest{Config: podConfig(t, withNetwork)}), "faulty")
	})
}

func TestNetworkPluginThatHangsIsEndedWithTheCall(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	withFaultyPlugin(t, `[ $CNI_COMMAND = DEL ] || exec sleep 7777`)
	config := podConfig(t, withNetwork)
	ctx, cancel := timeout(1500 * time.Millisecond)
	defer cancel()
	if _, err := rt.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config}); !isTimeout(err) {
		t.Errorf("the call ended with %v", err)
	}
	eventually(t, 5*time.Second, "the plugin is gone", func() error {
		if out, err := try("pgrep", "-f", "sleep 7777"); err == nil {
			return fmt.Errorf("processes %s", out)
		}
		return nil
	})
	_ = os.Remove("/etc/cni/net.d/00-faulty.conflist")
	time.Sleep(200 * time.Millisecond)
	eventually(t, 5*time.Second, "a retry works", func() error {
		ctx, cancel := timeout(10 * time.Second)
		defer cancel()
		answer, err := rt.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config})
		if err == nil {
			do(t, rt.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: answer.PodSandboxId})
		}
		return err
	})
}

func TestNetworkPluginThatFailsToUndoLeavesThePodRemovable(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	flag := filepath.Join(workDir, "del-fails")
	writeFile(t, flag, "", 0o644)
	withFaultyPlugin(t, `if [ $CNI_COMMAND = DEL ]; then [ ! -e `+flag+` ] || { echo '{"code":11,"msg":"try later"}'; exit 1; }
else echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"x"}],"ips":[{"address":"10.88.77.77/16","interface":0}]}'; fi`)
	p := runPod(t, withNetwork)
	refused(t, rt.StopPodSandbox, &cri.StopPodSandboxRequest{PodSandboxId: p.id}, codes.Unknown, codes.Internal, codes.Unavailable, codes.Aborted, codes.FailedPrecondition)
	_ = os.Remove(flag)
	p.stop()
}

// A node without a network add-on: the kubelet tells the pod CIDRs, and the template becomes the pods' network.
func TestNetworkIsMadeOfTheTemplateAndThePodCIDRs(t *testing.T) {
	dir := t.TempDir()
	template, conf := filepath.Join(dir, "template.json"), filepath.Join(dir, "net.d")
	writeFile(t, template, `{"cniVersion": "1.0.0", "name": "from-template", "plugins": [{
		"type": "bridge", "bridge": "cnitemplate", "isGateway": true, "ipam": { "type": "host-local",
			"ranges": ["@EACH_POD_CIDR@", [{ "subnet": "@POD_CIDR@" }]],
			"routes": ["@EACH_POD_CIDR@", { "dst": "@DEFAULT_ROUTE@" }] } }]}`, 0o644)
	t.Cleanup(func() {
		_, _ = try("ip", "link", "delete", "cnitemplate")
		_ = os.RemoveAll("/var/lib/cni/networks/from-template")
	})
	configured(t, fmt.Sprintf("[Network]\nCniConfDirectories=%s\nCniTemplate=%s\n", conf, template))
	tell := func(cidrs string) *cri.UpdateRuntimeConfigRequest {
		return &cri.UpdateRuntimeConfigRequest{RuntimeConfig: &cri.RuntimeConfig{NetworkConfig: &cri.NetworkConfig{PodCidr: cidrs}}}
	}
	ready := func() bool {
		for _, c := range do(t, rt.Status, &cri.StatusRequest{}).Status.Conditions {
			if c.Type == "NetworkReady" {
				return c.Status
			}
		}
		return false
	}
	equal(t, "ready without a CIDR", ready(), false)
	for _, wrong := range []string{"10.99.0.0", "10.99.0.0/33", "10.99.0.0/24,10.98.0.0/24", "x"} {
		contains(t, "the error", refused(t, rt.UpdateRuntimeConfig, tell(wrong), codes.InvalidArgument), "CIDR")
	}
	equal(t, "ready after nonsense", ready(), false)
	do(t, rt.UpdateRuntimeConfig, tell(""))
	equal(t, "ready after nothing", ready(), false)
	do(t, rt.UpdateRuntimeConfig, tell("10.99.0.0/24,fd00:99::/64"))
	equal(t, "ready", ready(), true)
	p := runPod(t, withNetwork)
	network := p.status().Network
	if !strings.HasPrefix(network.GetIp(), "10.99.0.") || len(network.AdditionalIps) != 1 ||
		!strings.HasPrefix(network.AdditionalIps[0].Ip, "fd00:99::") {
		t.Errorf("the pod's addresses: %v", network)
	}
	contains(t, "routes", p.output("ip route; ip -6 route"), "default via 10.99.0.1", "default via fd00:99::1")

	// Told again, nothing changes; told otherwise, the next pod gets an address there.
	file := filepath.Join(conf, "10-rktlet-pod-cidr.conflist")
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	do(t, rt.UpdateRuntimeConfig, tell("10.99.0.0/24,fd00:99::/64"))
	after, err := os.Stat(file)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the same was written again (%v)", err)
	}
	p.remove()
	command(t, "ip", "link", "delete", "cnitemplate") // the plugin keeps to the address it gave it
	do(t, rt.UpdateRuntimeConfig, tell("10.97.0.0/24"))
	q := runPod(t, withNetwork)
	if ip := q.status().Network.GetIp(); !strings.HasPrefix(ip, "10.97.0.") {
		t.Errorf("the next pod has %s", ip)
	}
	q.remove()

	// An administrator's network is left alone.
	writeFile(t, filepath.Join(conf, "05-own.conflist"), `{"cniVersion": "1.0.0", "name": "own", "plugins": [{"type": "bridge"}]}`, 0o644)
	do(t, rt.UpdateRuntimeConfig, tell("10.96.0.0/24"))
	if data, err := os.ReadFile(file); err != nil || strings.Contains(string(data), "10.96") {
		t.Errorf("it was written: %s %v", data, err)
	}

	// A template that is none says so.
	_ = os.Remove(filepath.Join(conf, "05-own.conflist"))
	writeFile(t, template, `{"name": "n"`, 0o644)
	contains(t, "the error", refused(t, rt.UpdateRuntimeConfig, tell("10.95.0.0/24"), codes.FailedPrecondition), template)
}
