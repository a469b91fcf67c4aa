package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// An authority signs certificates of a test's servers and clients.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

var serial int64 = 1

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{}
	a.pem, a.key = signed(t, nil, &x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	block, _ := pem.Decode(a.pem)
	var err error
	if a.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	}
	return a
}

// signed makes a certificate in PEM, and its key. Without an authority it signs itself.
func signed(t testing.TB, by *authority, template *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial++
	template.SerialNumber = big.NewInt(serial)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, parentKey := template, key
	if by != nil {
		parent, parentKey = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key
}

func keyPEM(t testing.TB, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

func (a *authority) server(t testing.TB, name string) (cert, key []byte) {
	cert, k := signed(t, a, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return cert, keyPEM(t, k)
}

func (a *authority) client(t testing.TB) (cert, key []byte) {
	cert, k := signed(t, a, &x509.Certificate{Subject: pkix.Name{CommonName: "kubelet"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return cert, keyPEM(t, k)
}

// replace writes a file as a renewal of certificates does.
func replace(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// configured gives the daemon a drop-in for the time of a test.
func configured(t testing.TB, text string) {
	t.Helper()
	path := fmt.Sprintf("/etc/rktlet/rktlet.conf.d/e2e-%d.conf", number())
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = os.Remove(path)
		restartDaemon(t)
	})
	restartDaemon(t)
}

func secure(config rest.TLSClientConfig) []struct {
	name string
	make connector
} {
	return []struct {
		name string
		make connector
	}{
		{"SPDY", func(u string) (remotecommand.Executor, error) {
			parsed, err := url.Parse(u)
			if err != nil {
				return nil, err
			}
			return remotecommand.NewSPDYExecutor(&rest.Config{TLSClientConfig: config}, "POST", parsed)
		}},
		{"WebSocket", func(u string) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutor(&rest.Config{TLSClientConfig: config}, "GET", u)
		}},
	}
}

func TestStreamsOverTLS(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	ours, others := newAuthority(t), newAuthority(t)
	cert, key := ours.server(t, "first")
	replace(t, file("cert.pem"), cert)
	replace(t, file("key.pem"), key)
	replace(t, file("clients.pem"), ours.pem)
	configured(t, fmt.Sprintf("[Manager]\nStreamCertificateFile=%s\nStreamKeyFile=%s\nStreamTrustedCertificateFile=%s\n",
		file("cert.pem"), file("key.pem"), file("clients.pem")))
	leavesNothing(t)
	daemonStays(t)
	p := runPod(t, withNetwork)
	c := p.run(sh("nc -ll -p 7001 -e cat & sleep 1000"))
	clientCert, clientKey := ours.client(t)
	known := rest.TLSClientConfig{CAData: ours.pem, CertData: clientCert, KeyData: clientKey}

	contains(t, "the URL", execURL(t, c, false, false, "true"), "https://127.0.0.1:")
	for _, transport := range secure(known) {
		t.Run("megabytes both ways over "+transport.name, func(t *testing.T) {
			data := make([]byte, 16<<20+321)
			_, _ = rand.Read(data)
			sum := sha256.New()
			err := stream(t, transport.make, execURL(t, c, false, true, "cat"),
				remotecommand.StreamOptions{Stdin: bytes.NewReader(data)}, sum, io.Discard)
			equal(t, "exit code", exitCode(err), 0)
			want := sha256.Sum256(data)
			equal(t, "what came back", fmt.Sprintf("%x", sum.Sum(nil)), fmt.Sprintf("%x", want[:]))
		})
		t.Run("the exit code and both outputs over "+transport.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			err := stream(t, transport.make, execURL(t, c, false, false, "sh", "-c", "echo out; echo err >&2; exit 3"),
				remotecommand.StreamOptions{}, &out, &errs)
			equal(t, "exit code", exitCode(err), 3)
			equal(t, "outputs", out.String()+errs.String(), "out\nerr\n")
		})
	}
	for _, tunnel := range []bool{false, true} {
		t.Run(fmt.Sprintf("port-forward, in a tunnel: %v", tunnel), func(t *testing.T) {
			u, err := url.Parse(do(t, rt.PortForward, &cri.PortForwardRequest{PodSandboxId: p.id}).Url)
			if err != nil {
				t.Fatal(err)
			}
			f, err := startForward(&rest.Config{TLSClientConfig: known}, u, tunnel, "0:7001")
			if err != nil {
				t.Fatal(err)
			}
			defer f.stop()
			conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", f.ports[0].Local))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
			data := make([]byte, 1<<20)
			_, _ = rand.Read(data)
			go func() { _, _ = conn.Write(data) }()
			back := make([]byte, len(data))
			if _, err := io.ReadFull(conn, back); err != nil || !bytes.Equal(data, back) {
				t.Errorf("what came back differs, or %v", err)
			}
		})
	}

	refusedBy := func(t *testing.T, config rest.TLSClientConfig, words ...string) {
		t.Helper()
		for _, transport := range secure(config) {
			u := execURL(t, c, false, false, "true")
			err := stream(t, transport.make, u, remotecommand.StreamOptions{}, io.Discard, io.Discard)
			if err == nil {
				t.Errorf("%s: it was served", transport.name)
				continue
			}
			found := false
			for _, word := range words {
				found = found || strings.Contains(err.Error(), word)
			}
			if !found {
				t.Errorf("%s: %v", transport.name, err)
			}
			// Whoever was not let in has not used the URL up.
			if err := stream(t, secure(known)[0].make, u, remotecommand.StreamOptions{}, io.Discard, io.Discard); err != nil {
				t.Error(err)
			}
		}
	}
	t.Run("a client without a certificate", func(t *testing.T) {
		refusedBy(t, rest.TLSClientConfig{CAData: ours.pem}, "certificate required", "reset", "broken pipe", "EOF")
	})
	t.Run("a client with somebody else's certificate", func(t *testing.T) {
		strange, strangeKey := others.client(t)
		refusedBy(t, rest.TLSClientConfig{CAData: ours.pem, CertData: strange, KeyData: strangeKey},
			"unknown certificate authority", "reset", "broken pipe", "EOF", "certificate required")
	})
	t.Run("a client that speaks no TLS", func(t *testing.T) {
		u := execURL(t, c, false, false, "true")
		plain := "http" + strings.TrimPrefix(u, "https")
		if answer, err := http.Get(plain); err == nil {
			t.Errorf("it was answered with %s", answer.Status)
		}
		if err := stream(t, secure(known)[0].make, u, remotecommand.StreamOptions{}, io.Discard, io.Discard); err != nil {
			t.Error(err)
		}
	})
	t.Run("old TLS", func(t *testing.T) {
		u, _ := url.Parse(execURL(t, c, false, false, "true"))
		conn, err := tls.Dial("tcp", u.Host, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
		if err == nil {
			_ = conn.Close()
			t.Error("it was served")
		}
	})
	shown := func(t *testing.T) string {
		t.Helper()
		u, _ := url.Parse(execURL(t, c, false, false, "true"))
		pair, err := tls.X509KeyPair(clientCert, clientKey)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := tls.Dial("tcp", u.Host, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	t.Run("a renewed certificate is used without a restart", func(t *testing.T) {
		equal(t, "before", shown(t), "first")
		cert, key := ours.server(t, "second")
		replace(t, file("cert.pem"), cert)
		equal(t, "while its key is missing", shown(t), "first")
		replace(t, file("key.pem"), key)
		equal(t, "after", shown(t), "second")
		replace(t, file("cert.pem"), []byte("not a certificate"))
		equal(t, "when it is broken", shown(t), "second")
		contains(t, "the journal", journal(*daemonUnit), "cert.pem")
		replace(t, file("cert.pem"), cert)
	})
	t.Run("clients that die in the handshake leave nothing", func(t *testing.T) {
		u, _ := url.Parse(execURL(t, c, false, false, "true"))
		before := descriptors(t)
		hello := []byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3}
		for i := range 200 {
			conn, err := net.Dial("tcp", u.Host)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = conn.Write(hello[:i%len(hello)])
			if i%2 == 0 {
				_ = conn.(*net.TCPConn).SetLinger(0)
			}
			_ = conn.Close()
		}
		eventually(t, 10*time.Second, "the descriptors are closed", func() error {
			if now := descriptors(t); now > before+5 {
				return fmt.Errorf("%d before, %d now", before, now)
			}
			return nil
		})
	})
	t.Run("requests go on", func(t *testing.T) {
		refused(t, rt.Exec, &cri.ExecRequest{ContainerId: "nobody", Cmd: []string{"true"}, Stdout: true}, codes.NotFound)
	})
}

func TestStreamTLSFilesThatAreWrongStopTheStart(t *testing.T) {
	// The daemon itself says what is wrong, before it does anything.
	dir := t.TempDir()
	cert, key := newAuthority(t).server(t, "x")
	_, otherKey := newAuthority(t).server(t, "y")
	files := map[string][]byte{"cert": cert, "key": key, "other": otherKey, "garbage": []byte("garbage\n")}
	for name, data := range files {
		replace(t, filepath.Join(dir, name), data)
	}
	for _, test := range []struct{ name, cert, key, ca, says string }{
		{"a certificate without a key", "cert", "", "", "go together"},
		{"authorities without a certificate", "", "", "cert", "needs both"},
		{"no such file", "nowhere", "key", "", "nowhere"},
		{"garbage", "garbage", "key", "", "garbage"},
		{"somebody else's key", "cert", "other", "", "other"},
		{"garbage as authorities", "cert", "key", "garbage", "garbage"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := func(name string) string {
				if name == "" {
					return ""
				}
				return filepath.Join(dir, name)
			}
			run := t.TempDir()
			config := filepath.Join(run, "rktlet.conf")
			replace(t, config, []byte(fmt.Sprintf("[Manager]\nSocket=%s/s\nStateDirectory=%s/lib\nRunDirectory=%s/run\n"+
				"StreamCertificateFile=%s\nStreamKeyFile=%s\nStreamTrustedCertificateFile=%s\n",
				run, run, run, path(test.cert), path(test.key), path(test.ca))))
			out, err := try("timeout", "10", "/usr/sbin/rktlet", "--config="+config)
			if err == nil {
				t.Error("it ran")
			}
			contains(t, "what it said", out, test.says)
		})
	}
}
