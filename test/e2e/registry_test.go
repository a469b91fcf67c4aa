package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A registry of ours in front of the real one, that asks for credentials or misbehaves.
type frontRegistry struct {
	address  string
	requests atomic.Int64
	blobs    atomic.Int64
}

// front starts one; change sees each request first and returns true when it has answered it.
func front(t testing.TB, change func(w http.ResponseWriter, r *http.Request) bool) *frontRegistry {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &frontRegistry{address: listener.Addr().String()}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: *registry})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.requests.Add(1)
		if strings.Contains(r.URL.Path, "/blobs/") {
			f.blobs.Add(1)
		}
		if change == nil || !change(w, r) {
			r.Header.Del("Authorization")
			proxy.ServeHTTP(w, r)
		}
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return f
}

func (f *frontRegistry) ref(name string) string { return f.address + "/" + name }

func isBlob(r *http.Request) bool     { return strings.Contains(r.URL.Path, "/blobs/") }
func isManifest(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }

const secret = "s3cret-that-no-log-may-have"

func TestRegistryBasicCredentials(t *testing.T) {
	daemonStays(t)
	f := front(t, func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, ok := r.BasicAuth(); ok && user == "me" && password == secret {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
		return true
	})
	image := f.ref("test/tags:1")
	pullWith := func(auth *cri.AuthConfig) *cri.PullImageRequest {
		return &cri.PullImageRequest{Image: spec(image), Auth: auth}
	}
	denied := []codes.Code{codes.Unauthenticated, codes.PermissionDenied}
	t.Run("none given is refused", func(t *testing.T) { refused(t, img.PullImage, pullWith(nil), denied...) })
	t.Run("wrong ones are refused and not repeated in the error", func(t *testing.T) {
		text := refused(t, img.PullImage, pullWith(&cri.AuthConfig{Username: "me", Password: secret + "x"}), denied...)
		lacks(t, "the error", text, secret)
	})
	t.Run("user name and password", func(t *testing.T) {
		id := do(t, img.PullImage, pullWith(&cri.AuthConfig{Username: "me", Password: secret})).ImageRef
		removeImage(t, id)
	})
	t.Run("base64 in auth", func(t *testing.T) {
		auth := base64.StdEncoding.EncodeToString([]byte("me:" + secret))
		id := do(t, img.PullImage, pullWith(&cri.AuthConfig{Auth: auth})).ImageRef
		removeImage(t, id)
	})
	t.Run("no log has them", func(t *testing.T) {
		lacks(t, "the journal", journal(*daemonUnit), secret, base64.StdEncoding.EncodeToString([]byte("me:"+secret)))
	})
}

func TestRegistryBearerTokens(t *testing.T) {
	daemonStays(t)
	var tokens atomic.Int64
	var f *frontRegistry
	f = front(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			tokens.Add(1)
			if service, scope := r.FormValue("service"), r.FormValue("scope"); service != "registry.test" || scope != "repository:test/tags:pull" {
				http.Error(w, "service "+service+", scope "+scope, http.StatusBadRequest)
				return true
			}
			user, password, _ := r.BasicAuth()
			refresh := r.Method == http.MethodPost && r.FormValue("refresh_token") == secret
			if !(user == "me" && password == secret) && !refresh {
				http.Error(w, "who?", http.StatusUnauthorized)
				return true
			}
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"token":"the-token","access_token":"the-token","expires_in":60}`)
			return true
		}
		if r.Header.Get("Authorization") == "Bearer the-token" {
			return false
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(
			`Bearer realm="http://%s/token",service="registry.test",scope="repository:test/tags:pull"`, f.address))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	image := f.ref("test/tags:1")
	denied := []codes.Code{codes.Unauthenticated, codes.PermissionDenied}
	for name, auth := range map[string]*cri.AuthConfig{
		"a token is fetched with user and password": {Username: "me", Password: secret},
		"a token is fetched with an identity token": {IdentityToken: secret},
		"a registry token is used as it is":         {RegistryToken: "the-token"},
	} {
		t.Run(name, func(t *testing.T) {
			id := do(t, img.PullImage, &cri.PullImageRequest{Image: spec(image), Auth: auth}).ImageRef
			removeImage(t, id)
		})
	}
	t.Run("one token serves a whole pull", func(t *testing.T) {
		tokens.Store(0)
		do(t, img.PullImage, &cri.PullImageRequest{Image: spec(image), Auth: &cri.AuthConfig{Username: "me", Password: secret}})
		equal(t, "tokens fetched", tokens.Load(), 1)
		removeImage(t, image)
	})
	t.Run("wrong credentials are refused", func(t *testing.T) {
		refused(t, img.PullImage, &cri.PullImageRequest{Image: spec(image), Auth: &cri.AuthConfig{Username: "me", Password: "no"}}, denied...)
	})
}

func TestRegistryBlobsElsewhereGetNoCredentials(t *testing.T) {
	daemonStays(t)
	var leaked atomic.Bool
	other := front(t, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "" {
			leaked.Store(true)
		}
		return false
	})
	f := front(t, func(w http.ResponseWriter, r *http.Request) bool {
		if user, _, _ := r.BasicAuth(); user != "me" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		if isBlob(r) {
			http.Redirect(w, r, "http://"+other.address+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	id := do(t, img.PullImage, &cri.PullImageRequest{Image: spec(f.ref("test/tags:2")), Auth: &cri.AuthConfig{Username: "me", Password: secret}}).ImageRef
	removeImage(t, id)
	if other.blobs.Load() == 0 {
		t.Error("the redirect was not followed")
	}
	if leaked.Load() {
		t.Error("the credentials went to another host")
	}
}

func TestRegistryPullsALayerOnce(t *testing.T) {
	daemonStays(t)
	f := front(t, nil)
	pull(t, "test/base") // its one layer is now in the store
	image := f.ref("test/tags:3")
	do(t, img.PullImage, &cri.PullImageRequest{Image: spec(image)})
	if n := f.blobs.Load(); n > 2 { // the config and the second layer
		t.Errorf("%d blobs were fetched, two were new", n)
	}
	first := f.blobs.Load()
	do(t, img.PullImage, &cri.PullImageRequest{Image: spec(image)})
	equal(t, "blobs fetched by a second pull", f.blobs.Load()-first, 0)
	removeImage(t, image)
}

func TestRegistryThatMisbehavesIsAnErrorAndLeavesNothing(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	removeImage(t, ref("test/zstd"))
	endless := func(w http.ResponseWriter) {
		chunk := make([]byte, 1<<16)
		for i := range chunk {
			chunk[i] = ' '
		}
		for i := 0; i < 1<<14; i++ { // 1 GiB
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}
	for name, change := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"other bytes than the digest says": func(w http.ResponseWriter, r *http.Request) bool {
			if !isBlob(r) {
				return false
			}
			fmt.Fprint(w, strings.Repeat("x", 1000))
			return true
		},
		"a blob cut off": func(w http.ResponseWriter, r *http.Request) bool {
			if !isBlob(r) {
				return false
			}
			w.Header().Set("Content-Length", "100000")
			fmt.Fprint(w, "short")
			return true
		},
		"an endless blob": func(w http.ResponseWriter, r *http.Request) bool {
			if !isBlob(r) {
				return false
			}
			endless(w)
			return true
		},
		"an endless manifest": func(w http.ResponseWriter, r *http.Request) bool {
			if !isManifest(r) {
				return false
			}
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			endless(w)
			return true
		},
		"an endless header": func(w http.ResponseWriter, r *http.Request) bool {
			for i := 0; i < 2000; i++ {
				w.Header().Add(fmt.Sprintf("X-%d", i), strings.Repeat("h", 4000))
			}
			return false
		},
		"a manifest that is no JSON": func(w http.ResponseWriter, r *http.Request) bool {
			if !isManifest(r) {
				return false
			}
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			fmt.Fprint(w, "<html>hello</html>")
			return true
		},
		"a manifest with both layers and manifests": func(w http.ResponseWriter, r *http.Request) bool {
			if !isManifest(r) {
				return false
			}
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			fmt.Fprint(w, `{"schemaVersion":2,"layers":[],"manifests":[],"config":{}}`)
			return true
		},
		"a media type that contradicts the header": func(w http.ResponseWriter, r *http.Request) bool {
			if !isManifest(r) {
				return false
			}
			w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			fmt.Fprint(w, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[],"config":{}}`)
			return true
		},
		"JSON nested very deep": func(w http.ResponseWriter, r *http.Request) bool {
			if !isManifest(r) {
				return false
			}
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			fmt.Fprint(w, strings.Repeat("[", 1000000))
			return true
		},
		"an index that names itself": func(w http.ResponseWriter, r *http.Request) bool {
			if !isManifest(r) {
				return false
			}
			w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			fmt.Fprintf(w, `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:%064d","size":10,"platform":{"architecture":"amd64","os":"linux"}}]}`, 0)
			return true
		},
		"redirects without end": func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, r.URL.Path+"?x=1", http.StatusTemporaryRedirect)
			return true
		},
		"a redirect to a file": func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(http.StatusTemporaryRedirect)
			return true
		},
		"a challenge that points at a file": func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("WWW-Authenticate", `Bearer realm="file:///etc/passwd",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		},
		"status 500": func(w http.ResponseWriter, r *http.Request) bool {
			http.Error(w, "sorry", http.StatusInternalServerError)
			return true
		},
		"status 429": func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Retry-After", "3600")
			http.Error(w, "slower", http.StatusTooManyRequests)
			return true
		},
		"an error text full of control characters": func(w http.ResponseWriter, r *http.Request) bool {
			http.Error(w, "{\"errors\":[{\"code\":\"X\",\"message\":\"\\u001b[31m\\nfake log line\\r\\u0000\"}]}", http.StatusForbidden)
			return true
		},
		"a connection that is cut": func(w http.ResponseWriter, r *http.Request) bool {
			panic(http.ErrAbortHandler)
		},
		"bytes that are no HTTP": func(w http.ResponseWriter, r *http.Request) bool {
			if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
				_, _ = io.WriteString(conn, "\x00\x01\x02 hello\r\n\r\n")
				_ = conn.Close()
			}
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := front(t, change)
			ctx, cancel := timeout(20 * time.Second)
			defer cancel()
			_, err := img.PullImage(ctx, &cri.PullImageRequest{Image: spec(f.ref("test/zstd:latest"))})
			if err == nil {
				t.Fatal("it was accepted")
			}
			if isTimeout(err) {
				t.Error("it took more than 20 s")
			}
			text := checkRefusal(t, err)
			lacks(t, "the error", text, "root:x:0:0", "\x1b", "\n", "\r")
			if imageStatus(t, f.ref("test/zstd:latest")) != nil {
				t.Error("an image came of it")
			}
		})
	}
}

func TestRegistryThatHangsIsLeftWhenTheClientLeaves(t *testing.T) {
	leavesNothing(t)
	daemonStays(t)
	hang := make(chan struct{})
	defer close(hang)
	f := front(t, func(w http.ResponseWriter, r *http.Request) bool {
		if isBlob(r) {
			_, _ = w.Write([]byte("a"))
			w.(http.Flusher).Flush()
			select {
			case <-hang:
			case <-r.Context().Done():
			}
			return true
		}
		return false
	})
	removeImage(t, ref("test/zstd"))
	ctx, cancel := context.WithTimeout(context.Background(), 700*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := img.PullImage(ctx, &cri.PullImageRequest{Image: spec(f.ref("test/zstd:latest"))}); !isTimeout(err) {
		t.Errorf("the pull ended with %v", err)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
	eventually(t, 5*time.Second, "the store's temporary folder is empty", func() error {
		entries, err := os.ReadDir("/var/lib/rktlet/image/tmp")
		if err == nil && len(entries) > 0 {
			return os.ErrExist
		}
		return err
	})
}

func TestRegistryMirrorsAreTriedInOrder(t *testing.T) {
	daemonStays(t)
	f := front(t, nil)
	dir := "/etc/rktlet/registries.d/mirrored.invalid"
	writeFile(t, dir+"/test.conf", "[Registry]\nFallback=no\n[Mirror]\nURL=http://127.0.0.1:1\n[Mirror]\nURL=http://"+f.address+"\n", 0o644)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	image := "mirrored.invalid/test/tags:2"
	id := do(t, img.PullImage, &cri.PullImageRequest{Image: spec(image)}).ImageRef
	if f.requests.Load() == 0 {
		t.Error("the mirror was not asked")
	}
	if st := imageStatus(t, image); st == nil || st.Id != id {
		t.Errorf("not found by its own name: %v", st)
	}
	removeImage(t, image)
	writeFile(t, dir+"/test.conf", "Fallback=no\n[Registry]\n", 0o644)
	contains(t, "the error", refused(t, img.PullImage, &cri.PullImageRequest{Image: spec(image)}), "test.conf")
}
