package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Which images may come, from where, and what the kubelet is told of them.

func TestImageUserOfTheConfig(t *testing.T) {
	daemonStays(t)
	for name, want := range map[string]struct {
		uid  int64
		user string
	}{
		"test/users":           {-1, "app"},
		"test/user-name-group": {-1, "app"},
		"test/user-number":     {1234, ""},
		"test/base":            {-1, ""},
	} {
		st := imageStatus(t, pull(t, name))
		uid := int64(-1)
		if st.Uid != nil {
			uid = st.Uid.Value
		}
		equal(t, "uid of "+name, uid, want.uid)
		equal(t, "user name of "+name, st.Username, want.user)
	}
}

func TestImagePinned(t *testing.T) {
	leavesNothing(t)
	const file = "/etc/rktlet/rktlet.conf.d/90-pinned.conf"
	t.Cleanup(func() { _ = os.Remove(file); restartDaemon(t) })
	pinned := func() map[string]bool {
		m := map[string]bool{}
		for _, i := range do(t, img.ListImages, &cri.ListImagesRequest{}).Images {
			for _, tag := range i.RepoTags {
				m[tag] = i.Pinned
			}
		}
		return m
	}
	pull(t, "test/tags:1")
	pull(t, "test/base")
	equal(t, "not asked for", pinned()[ref("test/tags:1")], false)
	writeFile(t, file, "[Image]\nPinnedImages="+*registry+"/test/tags:*\n", 0o644)
	restartDaemon(t)
	equal(t, "pinned", pinned()[ref("test/tags:1")], true)
	equal(t, "in the status", imageStatus(t, ref("test/tags:1")).Pinned, true)
	equal(t, "another", pinned()[ref("test/base")], false)
	removeImage(t, ref("test/tags:1"))
	pull(t, "test/tags:2")
	equal(t, "one that came since", pinned()[ref("test/tags:2")], true)
	removeImage(t, ref("test/tags:2"))
}

func TestImageRuntimeHandler(t *testing.T) {
	daemonStays(t)
	image := &cri.ImageSpec{Image: ref("test/base"), RuntimeHandler: "runc"}
	id := do(t, img.PullImage, &cri.PullImageRequest{Image: image}).ImageRef
	equal(t, "id", id, pull(t, "test/base"))
	st := do(t, img.ImageStatus, &cri.ImageStatusRequest{Image: image}).Image
	equal(t, "handler in the status", st.Spec.RuntimeHandler, "runc")
	equal(t, "without one", imageStatus(t, id).Spec.RuntimeHandler, "")
	image.RuntimeHandler = "no-such-handler"
	contains(t, "the error", refused(t, img.PullImage, &cri.PullImageRequest{Image: image}, codes.InvalidArgument), "no-such-handler")
}

// hangingRegistry sends a byte of each blob and nothing more.
func hangingRegistry(t testing.TB) *frontRegistry {
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	return front(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !isBlob(r) || strings.HasSuffix(r.Header.Get("Accept"), "json") {
			return false
		}
		response, err := http.Get("http://" + *registry + r.URL.Path)
		if err != nil {
			return false
		}
		defer response.Body.Close()
		data, _ := io.ReadAll(response.Body)
		if data[0] == '{' { // the image's configuration
			_, _ = w.Write(data)
			return true
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:1])
		w.(http.Flusher).Flush()
		select {
		case <-hang:
		case <-r.Context().Done():
		}
		return true
	})
}

func TestImagePullProgressIsLogged(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	f := hangingRegistry(t)
	removeImage(t, ref("test/big"))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := img.PullImage(ctx, &cri.PullImageRequest{Image: spec(f.ref("test/big"))})
		done <- err
	}()
	eventually(t, 20*time.Second, "the journal says how far it is", func() error {
		text := journal(*daemonUnit)
		if line := strings.LastIndex(text, "PullImage, image "+f.ref("test/big")+":latest: "); line < 0 || !strings.Contains(text[line:], " of 12 layers") {
			return errors.New(text)
		}
		return nil
	})
	cancel()
	<-done
}

// What a daemon that was killed in the middle had fetched is gone, and the next pull is whole.
func TestImagePullOfADaemonThatIsKilled(t *testing.T) {
	leavesNothing(t)
	f := hangingRegistry(t)
	removeImage(t, ref("test/big"))
	go func() {
		_, _ = img.PullImage(context.Background(), &cri.PullImageRequest{Image: spec(f.ref("test/big"))})
	}()
	const tmp = "/var/lib/rktlet/image/tmp"
	eventually(t, 10*time.Second, "a layer is being unpacked", func() error {
		if entries, err := os.ReadDir(tmp); err != nil || len(entries) == 0 {
			return fmt.Errorf("nothing in %s (%v)", tmp, err)
		}
		return nil
	})
	killDaemon(t)
	eventually(t, 10*time.Second, "nothing of it is left", func() error {
		if entries, err := os.ReadDir(tmp); err != nil || len(entries) != 0 {
			return fmt.Errorf("%v in %s (%v)", entries, tmp, err)
		}
		return nil
	})
	if imageStatus(t, f.ref("test/big")) != nil {
		t.Error("half an image is listed")
	}
	pull(t, "test/big")
	removeImage(t, ref("test/big"))
}

func TestImageVerifiers(t *testing.T) {
	daemonStays(t)
	const dir = "/etc/rktlet/image-verifiers.d"
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	request := &cri.PullImageRequest{Image: spec(ref("test/tags:1"))}
	removeImage(t, ref("test/tags:1"))
	verifier := func(name, script string) { writeFile(t, dir+"/"+name, "#!/bin/sh\n"+script+"\n", 0o755) }
	verifier("10-notes", "cat > /run/e2e/descriptor; echo \"$@\" > /run/e2e/arguments")
	verifier("20-refuses", "echo not this one; exit 1")
	text := refused(t, img.PullImage, request, codes.PermissionDenied)
	contains(t, "the error", text, "20-refuses", "not this one", ref("test/tags:1"))
	if imageStatus(t, ref("test/tags:1")) != nil {
		t.Error("it came all the same")
	}
	_ = os.Remove(dir + "/20-refuses")
	id := do(t, img.PullImage, request).ImageRef
	digest := strings.Split(imageStatus(t, id).RepoDigests[0], "@")[1]
	arguments, _ := os.ReadFile("/run/e2e/arguments")
	equal(t, "arguments", string(arguments), "-name "+ref("test/tags:1")+" -digest "+digest+" -stdin-media-type application/vnd.oci.descriptor.v1+json\n")
	descriptor, _ := os.ReadFile("/run/e2e/descriptor")
	contains(t, "descriptor", string(descriptor), `"digest":"`+digest+`"`, `"mediaType":"application/vnd.`, `"size":`)

	// Asked again for what is there already; one that can't be executed doesn't agree.
	verifier("20-refuses", "exit 3")
	refused(t, img.PullImage, request, codes.PermissionDenied)
	verifier("20-refuses", "kill -9 $$")
	contains(t, "the error", refused(t, img.PullImage, request, codes.PermissionDenied), "KILL")
	writeFile(t, dir+"/20-refuses", "", 0o644)
	contains(t, "the error", refused(t, img.PullImage, request, codes.PermissionDenied), "20-refuses")
	equal(t, "what was there stays", imageStatus(t, ref("test/tags:1")).Id, id)
	_ = os.RemoveAll(dir)
	do(t, img.PullImage, request)
	removeImage(t, id)
}

// certificate makes a key and a certificate that signs itself, as PEM.
func certificate(t testing.TB) (cert, key []byte, pair tls.Certificate) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(number()), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, _ := x509.MarshalPKCS8PrivateKey(private)
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	pair, err = tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return
}

// Settings of a registry's host are read at each pull: nothing is restarted here.
func TestRegistryOverTLS(t *testing.T) {
	daemonStays(t)
	cert, _, pair := certificate(t)
	clientCert, clientKey, _ := certificate(t)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: *registry})
	wantClient := false
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if wantClient && len(r.TLS.PeerCertificates) == 0 {
			http.Error(w, "a certificate is wanted", http.StatusForbidden)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	files := scratch(t)
	writeFile(t, files+"/ca.pem", string(cert), 0o644)
	writeFile(t, files+"/client.pem", string(clientCert), 0o644)
	writeFile(t, files+"/client.key", string(clientKey), 0o600)
	dir := "/etc/rktlet/registries.d/tls.invalid"
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	image := "tls.invalid/test/tags:1"
	request := &cri.PullImageRequest{Image: spec(image)}
	set := func(settings string) {
		writeFile(t, dir+"/test.conf", "[Registry]\nURL="+server.URL+"\n"+settings, 0o644)
	}
	works := func(settings string) {
		t.Helper()
		set(settings)
		do(t, img.PullImage, request)
		removeImage(t, image)
	}
	set("")
	contains(t, "the error", refused(t, img.PullImage, request, codes.Unavailable), "certificate")
	works("CA=" + files + "/ca.pem\n")
	works("Insecure=yes\n")
	set("CA=" + files + "/client.pem\n")
	refused(t, img.PullImage, request, codes.Unavailable)
	wantClient = true
	set("CA=" + files + "/ca.pem\n")
	refused(t, img.PullImage, request, codes.PermissionDenied, codes.Unauthenticated)
	works("CA=" + files + "/ca.pem\nClientCertificate=" + files + "/client.pem\nClientKey=" + files + "/client.key\n")
	server.Config.SetKeepAlivesEnabled(false)
	set("PlainHTTP=yes\n")
	refused(t, img.PullImage, request)
}
