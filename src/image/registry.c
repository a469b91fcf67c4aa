/* One repository, asked for manifests and blobs. Each host is tried in turn; each request follows redirects, answers
 * one challenge, and is tried again with growing pauses after what may pass. */

#include "image/registry.h"

#include <fcntl.h>
#include <openssl/evp.h>

#include "basic/fiber.h"
#include "basic/file-util.h"
#include "basic/log.h"
#include "image/manifest.h"

#define ATTEMPTS_MAX         5U
#define CONNECT_ATTEMPTS_MAX 2U
#define REDIRECTS_MAX        10U
#define BACKOFF_USEC         (100 * USEC_PER_MSEC)
#define RETRY_AFTER_MAX_SEC  20U
#define PASSWORD_MAX         4096U
/* Bytes between two torn connections that make the next one a first attempt again. */
#define PROGRESS_BYTES (64U * 1024U)

typedef struct HostState {
        char *authorization; /* header value that worked or was just obtained */
} HostState;

struct RegistrySession {
        unsigned n_ref;
        HttpClient *http;
        ImageReference reference;
        RegistryHosts hosts;
        HostState *state;
        char *username, *password, *identity_token, *registry_token;
        uint64_t progress_timeout_usec;
};

RegistrySession *registry_session_ref(RegistrySession *s) {
        s->n_ref++;
        return s;
}

RegistrySession *registry_session_unref(RegistrySession *s) {
        if (!s || --s->n_ref > 0)
                return NULL;
        for (size_t i = 0; s->state && i < s->hosts.n_hosts; i++)
                (void) secret_free(s->state[i].authorization);
        free(s->state);
        (void) secret_free(s->password);
        (void) secret_free(s->identity_token);
        (void) secret_free(s->registry_token);
        free(s->username);
        image_reference_done(&s->reference);
        registry_hosts_done(&s->hosts);
        free(s);
        return NULL;
}

size_t registry_session_hosts(const RegistrySession *s) {
        return s->hosts.n_hosts;
}

const char *registry_session_name(const RegistrySession *s) {
        return s->reference.name;
}

const char *registry_session_host(const RegistrySession *s, size_t host) {
        return s->hosts.hosts[host].authority;
}

void registry_document_done(RegistryDocument *d) {
        if (!d)
                return;
        d->text = mfree(d->text);
        d->content_type = mfree(d->content_type);
}

static bool is_docker_hub(const char *host) {
        return streq(host, "docker.io") || streq(host, "index.docker.io") || streq(host, "registry-1.docker.io");
}

/* Credentials are for one registry; those for another are not shown to this one. */
static bool auth_is_for(const ImageAuth *auth, const char *domain) {
        _cleanup_free_ char *host = NULL;

        if (isempty(auth->server_address))
                return true;
        host = url_authority(auth->server_address);
        return host && (streq(host, domain) || (is_docker_hub(host) && is_docker_hub(domain)));
}

static int copy_secret(const char *s, char **ret) {
        if (isempty(s))
                return 0;
        *ret = strdup(s);
        return *ret ? 0 : -ENOMEM;
}

static int take_auth(RegistrySession *s, const ImageAuth *auth, Error *error) {
        int r;

        if (!auth || !auth_is_for(auth, s->reference.domain))
                return 0;
        if (!isempty(auth->registry_token) && !auth_token_is_valid(auth->registry_token))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "The registry token has characters no token has");
        if ((r = copy_secret(auth->registry_token, &s->registry_token)) < 0 ||
            (r = copy_secret(auth->identity_token, &s->identity_token)) < 0 ||
            (r = copy_secret(auth->username, &s->username)) < 0 || (r = copy_secret(auth->password, &s->password)) < 0)
                return error_oom(error);
        if (!s->username && !isempty(auth->auth)) {
                r = auth_decode(auth->auth, &s->username, &s->password);
                if (r == -ENOMEM)
                        return error_oom(error);
                if (r < 0)
                        return error_setf(error, GRPC_INVALID_ARGUMENT,
                                          "The registry credentials' \"auth\" is not base64 of user:password");
        }
        return 0;
}

int registry_session_new(HttpClient *http, const ImageReference *reference, const ImageAuth *auth,
                         const char *registries_directory, uint64_t progress_timeout_usec, RegistrySession **ret,
                         Error *error) {
        _cleanup_(registry_session_unrefp) RegistrySession *s = calloc(1, sizeof *s);
        int r;

        if (!s)
                return error_oom(error);
        s->n_ref = 1;
        s->http = http;
        s->progress_timeout_usec = progress_timeout_usec;
        s->reference.domain = strdup(reference->domain);
        s->reference.path = strdup(reference->path);
        s->reference.name = strdup(reference->name);
        if (!s->reference.domain || !s->reference.path || !s->reference.name)
                return error_oom(error);
        r = registry_hosts_load(registries_directory, reference->domain, &s->hosts, error);
        if (r < 0)
                return r;
        s->state = calloc(s->hosts.n_hosts, sizeof *s->state);
        if (!s->state)
                return error_oom(error);
        r = take_auth(s, auth, error);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(s);
        return 0;
}

/* The words for a status that ends the matter. */
static int status_error(const RegistryHost *h, const char *what, const HttpResponse *p, bool had_credentials,
                        Error *error) {
        _cleanup_free_ char *text = registry_error_text(p->body.data, p->body.size);
        const char *hint = "", *host = h->authority;
        GrpcCode code = GRPC_UNKNOWN;

        switch (p->status) {
        case 401:
                code = GRPC_UNAUTHENTICATED;
                hint = had_credentials ? ": check the credentials of the image pull secret"
                                       : ": it asks for credentials and none were given; check the image's name, or "
                                         "add an "
                                         "image pull secret";
                break;
        case 403:
                code = GRPC_PERMISSION_DENIED;
                hint = had_credentials ? ": these credentials may not pull it" : ": it may need an image pull secret";
                break;
        case 404:
                code = GRPC_NOT_FOUND;
                hint = ": check the image's name and tag";
                break;
        case 408:
        case 429:
                code = GRPC_RESOURCE_EXHAUSTED;
                hint = ": the registry limits its clients; try again later or with credentials";
                break;
        default:
                if (p->status >= 500) {
                        code = GRPC_UNAVAILABLE;
                        hint = ": the registry has a problem; try again later";
                }
        }
        return error_setf(error, code, "Cannot get %s from %s: HTTP status %u%s%s", what, host, p->status,
                          strempty(text), hint);
}

static int read_password(const RegistryHost *h, char **ret, Error *error) {
        char *p;
        size_t n;
        int r;

        if (!h->password_file) {
                *ret = NULL;
                return 0;
        }
        r = read_file(AT_FDCWD, h->password_file, PASSWORD_MAX, &p, &n);
        if (r < 0)
                return error_set(error, r, "Cannot read the password of registry %s from %s", h->authority,
                                 h->password_file);
        p[strcspn(p, "\r\n")] = '\0';
        *ret = p;
        return 0;
}

static void request_tls(const RegistryHost *h, HttpRequest *q) {
        q->ca = h->ca;
        q->client_certificate = h->client_certificate;
        q->client_key = h->client_key;
        q->insecure = h->insecure;
        q->no_proxy = registry_authority_is_loopback(h->authority);
}

/* A request's credentials are for the registry it names, never for a mirror somebody put in front. */
static bool is_own(const RegistrySession *s, const RegistryHost *h) {
        return !h->mirror || streq(h->authority, s->reference.domain);
}

static bool has_credentials(const RegistrySession *s, size_t host) {
        const RegistryHost *h = &s->hosts.hosts[host];

        return h->username || (is_own(s, h) && (s->username || s->identity_token || s->registry_token));
}

/* Answers a challenge: sets the host's Authorization. 0 when the request is worth another try. */
static int authenticate(RegistrySession *s, size_t host, const HttpResponse *challenge, const char *what,
                        Error *error) {
        const RegistryHost *h = &s->hosts.hosts[host];
        _cleanup_auth_challenge_ AuthChallenge c = {};
        _cleanup_http_response_ HttpResponse response = {};
        _cleanup_(buffer_done) Buffer scope = BUFFER_INIT;
        _cleanup_error_ Error inner = ERROR_INIT;
        char *password = NULL, *token = NULL, *basic;
        TokenRequest q = {.challenge = &c, .allow_plain = !h->https};
        int r;

        if (is_own(s, h) && (s->username || s->identity_token)) {
                q.username = s->username;
                q.password = s->password;
                q.identity_token = s->identity_token;
        } else if (h->username) {
                r = read_password(h, &password, error);
                if (r < 0)
                        return r;
                q.username = h->username;
                q.password = password;
        }

        r = auth_challenge_parse(challenge->challenges, &c);
        if (r < 0 || (!c.bearer && !q.username)) {
                (void) secret_free(password);
                return status_error(h, what, challenge, has_credentials(s, host), error);
        }
        if (!c.bearer) {
                basic = auth_basic(q.username, q.password);
                (void) secret_free(password);
                if (!basic)
                        return error_oom(error);
                (void) secret_free(s->state[host].authorization);
                s->state[host].authorization = basic;
                return 0;
        }

        q.base.progress_timeout_usec = s->progress_timeout_usec;
        {
                _cleanup_free_ char *authority = url_authority(c.realm);

                if (!authority)
                        return error_oom(error);
                request_tls(h, &q.base);
                /* CA= is about the registry; a token server elsewhere has its own. */
                if (!streq(authority, h->authority))
                        q.base.ca = q.base.client_certificate = q.base.client_key = NULL;
                q.base.no_proxy = registry_authority_is_loopback(authority);
        }
        if (buffer_appendf(&scope, "repository:%s%s%s:pull", h->prefix[0] ? h->prefix + 1 : "",
                           h->prefix[0] ? "/" : "", s->reference.path) < 0) {
                (void) secret_free(password);
                return error_oom(error);
        }
        q.default_scope = scope.data;
        for (unsigned attempt = 0;; attempt++) {
                http_response_done(&response);
                error_clear(&inner);
                r = auth_fetch_token(s->http, &q, &token, &response, &inner);
                if (attempt + 1 >= CONNECT_ATTEMPTS_MAX || r == -ECANCELED || r == -ETIME ||
                    !((r < 0 && response.retry) || (r >= 0 && response.status >= 500)))
                        break;
                if (fiber_sleep(BACKOFF_USEC) < 0)
                        break;
        }
        (void) secret_free(password);
        if (r == -ECANCELED || r == -ETIME)
                return r;
        if (r < 0) {
                _cleanup_free_ char *authority = url_authority(c.realm);

                error_move(error, &inner);
                return error_prefix(error, r, "Cannot get a token for %s from the token server %s", s->reference.name,
                                    strempty(authority));
        }
        if (!token) {
                /* Servers say 400 or 401 or 403 for wrong credentials; and the registry's own 401 stays what happened.
                 */
                if (response.status >= 400 && response.status < 500 && response.status != 429 &&
                    response.status != 403)
                        response.status = 401;
                return status_error(h, what, &response, has_credentials(s, host), error);
        }
        (void) secret_free(s->state[host].authorization);
        s->state[host].authorization = strprintf("Bearer %s", token);
        (void) secret_free(token);
        return s->state[host].authorization ? 0 : error_oom(error);
}

static bool status_may_pass(unsigned status) {
        return status == 408 || status == 429 || status == 500 || status == 502 || status == 503 || status == 504;
}

/* One request to one host until it is answered for good. The response's body or sink is the caller's business. `q` has
 * method, body_max and sink set. */
static int request_host(RegistrySession *s, size_t host, HttpRequest *q, const char *path, const char *accept,
                        const char *what, HttpResponse *ret, Error *error) {
        const RegistryHost *h = &s->hosts.hosts[host];
        _cleanup_free_ char *start = NULL, *url = NULL;
        unsigned attempt = 0, redirects = 0;
        uint64_t offset = q->sink_offset, last_offset = offset;
        bool challenged = false;
        int r;

        /* Pull-through caches for several registries tell them apart by ns. */
        start = strprintf("%s://%s/v2%s/%s%s%s%s", h->https ? "https" : "http", h->authority, h->prefix,
                          s->reference.path, path, h->mirror ? "?ns=" : "", h->mirror ? s->reference.domain : "");
        url = start ? strdup(start) : NULL;
        if (!url)
                return error_oom(error);
        if (!s->state[host].authorization && s->registry_token && is_own(s, h)) {
                s->state[host].authorization = strprintf("Bearer %s", s->registry_token);
                if (!s->state[host].authorization)
                        return error_oom(error);
        }

        for (;;) {
                _cleanup_http_response_ HttpResponse p = {};
                _cleanup_strv_free_ char **headers = NULL;
                _cleanup_error_ Error inner = ERROR_INIT;
                _cleanup_free_ char *authority = url_authority(url);
                uint64_t pause = BACKOFF_USEC << (2 * attempt);
                bool at_home;

                if (!authority)
                        return error_oom(error);
                at_home = streq(authority, h->authority) && (url[4] == 's') == h->https;
                if (accept && strv_extendf(&headers, "Accept: %s", accept) < 0)
                        return error_oom(error);
                if (at_home && s->state[host].authorization &&
                    strv_extendf(&headers, "Authorization: %s", s->state[host].authorization) < 0)
                        return error_oom(error);
                q->url = url;
                q->headers = headers;
                q->sink_offset = offset;
                q->progress_timeout_usec = s->progress_timeout_usec;
                request_tls(h, q);
                if (!at_home) {
                        q->ca = q->client_certificate = q->client_key = NULL;
                        q->no_proxy = registry_authority_is_loopback(authority);
                }

                r = http_perform(s->http, q, &p, &inner);
                offset = p.sink_end;
                if (offset - last_offset >= PROGRESS_BYTES) {
                        attempt = 0;
                        pause = BACKOFF_USEC;
                        last_offset = offset;
                }
                STRV_FOREACH(line, headers)
                        explicit_bzero(*line, strlen(*line));
                log_debug("%s %s: %d, HTTP status %u", q->method, authority, r, p.status);

                if (r == -ECANCELED || r == -ETIME || r == -EPIPE || r == -ENOMEM) {
                        error_move(error, &inner);
                        return r;
                }
                if (r < 0) {
                        bool connect = r == -EHOSTUNREACH;

                        if (p.retry && attempt + 1 < (connect ? CONNECT_ATTEMPTS_MAX : ATTEMPTS_MAX)) {
                                attempt++;
                                r = fiber_sleep(pause);
                                if (r < 0)
                                        return r;
                                /* A redirect may have been good for a while only. */
                                free(url);
                                url = strdup(start);
                                if (!url)
                                        return error_oom(error);
                                continue;
                        }
                        error_move(error, &inner);
                        return error_prefix(error, r, "Cannot get %s from %s", what, authority);
                }

                if (p.status == 200 || p.status == 206) {
                        if (q->sink_fd > 0 && offset < q->sink_size) {
                                /* The connection ended early, in a way that HTTP can't tell from the end. */
                                if (++attempt >= ATTEMPTS_MAX)
                                        return error_setf(error, GRPC_DATA_LOSS,
                                                          "Cannot get %s from %s: it sends %llu of %llu bytes", what,
                                                          authority, (unsigned long long) offset,
                                                          (unsigned long long) q->sink_size);
                                r = fiber_sleep(pause);
                                if (r < 0)
                                        return r;
                                continue;
                        }
                        *ret = p;
                        p = (HttpResponse){};
                        return 0;
                }
                if (p.redirect && p.status >= 300 && p.status < 400) {
                        if (++redirects > REDIRECTS_MAX)
                                return error_setf(error, GRPC_UNAVAILABLE, "Cannot get %s from %s: too many redirects",
                                                  what, h->authority);
                        if (!startswith(p.redirect, "https://") && (h->https || !startswith(p.redirect, "http://")))
                                return error_setf(error, GRPC_UNAVAILABLE,
                                                  "Cannot get %s from %s: it redirects to an address without https",
                                                  what, h->authority);
                        free(url);
                        url = TAKE_PTR(p.redirect);
                        continue;
                }
                /* Once: what is refused with a fresh token stays refused. */
                if (p.status == 401 && at_home && !challenged) {
                        challenged = true;
                        r = authenticate(s, host, &p, what, error);
                        if (r < 0)
                                return r;
                        continue;
                }
                /* One that wants more patience than we have is told so at once. */
                if (status_may_pass(p.status) && attempt + 1 < ATTEMPTS_MAX &&
                    (p.retry_after_sec == UINT64_MAX || p.retry_after_sec <= RETRY_AFTER_MAX_SEC)) {
                        attempt++;
                        if (p.retry_after_sec != UINT64_MAX)
                                pause = MAX(p.retry_after_sec * USEC_PER_SEC, pause);
                        r = fiber_sleep(pause);
                        if (r < 0)
                                return r;
                        free(url);
                        url = strdup(start);
                        if (!url)
                                return error_oom(error);
                        redirects = 0;
                        continue;
                }
                return status_error(h, what, &p, has_credentials(s, host), error);
        }
}

/* Whether another host may do better. */
static bool worth_another_host(int r) {
        return r < 0 && r != -ECANCELED && r != -ETIME && r != -ENOMEM && r != -EPIPE;
}

/* Adds a mirror's failure to what the last host says. */
static void merge_errors(Error *error, const Error *mirrors) {
        if (error_is_set(error) && error_is_set(mirrors)) {
                char *joined = strprintf("%s (before that: %s)", strempty(error->message), strempty(mirrors->message));

                if (joined) {
                        free(error->message);
                        error->message = joined;
                }
        }
}

static int digest_of(const void *data, size_t size, char ret[static 72]) {
        uint8_t md[32];
        unsigned n = 0;

        if (EVP_Digest(data, size, md, &n, EVP_sha256(), NULL) != 1 || n != sizeof md)
                return -EIO;
        memcpy(ret, "sha256:", 7);
        hex_encode(md, sizeof md, ret + 7);
        return 0;
}

/* A document from one host; expected_digest NULL: any. */
static int get_document_from(RegistrySession *s, size_t host, const char *path, const char *accept, const char *what,
                             size_t max, const char *expected_digest, RegistryDocument *ret, Error *error) {
        _cleanup_http_response_ HttpResponse p = {};
        _cleanup_registry_document_ RegistryDocument d = {};
        HttpRequest q = {.method = "GET", .body_max = max};
        int r;

        r = request_host(s, host, &q, path, accept, what, &p, error);
        if (r < 0)
                return r;
        r = digest_of(p.body.data ? p.body.data : "", p.body.size, d.digest);
        if (r < 0)
                return error_set(error, r, "Cannot compute a digest");
        if (expected_digest && !streq(d.digest, expected_digest))
                return error_setf(error, GRPC_DATA_LOSS, "Cannot use %s from %s: its digest is %s, not %s", what,
                                  registry_session_host(s, host), d.digest, expected_digest);
        /* Without an expected digest the registry's own word must at least fit what it sent. */
        if (!expected_digest && digest_is_valid(p.content_digest) && !streq(d.digest, p.content_digest))
                return error_setf(error, GRPC_DATA_LOSS,
                                  "Cannot use %s from %s: its digest is %s, the registry says it is %s", what,
                                  registry_session_host(s, host), d.digest, p.content_digest);
        d.size = p.body.size;
        d.text = p.body.data ? TAKE_PTR(p.body.data) : strdup("");
        if (!d.text)
                return error_oom(error);
        p.body = (Buffer){};
        d.content_type = TAKE_PTR(p.content_type);
        *ret = d;
        d = (RegistryDocument){};
        return 0;
}

static int get_document(RegistrySession *s, const char *path, const char *accept, const char *what, size_t max,
                        const char *expected_digest, RegistryDocument *ret, Error *error) {
        _cleanup_error_ Error mirrors = ERROR_INIT, inner = ERROR_INIT;
        int r = -ENOENT;

        for (size_t i = 0; i < s->hosts.n_hosts; i++) {
                error_move(&mirrors, &inner);
                r = get_document_from(s, i, path, accept, what, max, expected_digest, ret, &inner);
                if (!worth_another_host(r))
                        break;
        }
        if (r < 0) {
                merge_errors(&inner, &mirrors);
                error_move(error, &inner);
        }
        return r;
}

int registry_get_manifest(RegistrySession *s, const char *tag_or_digest, RegistryDocument *ret, Error *error) {
        bool digest = digest_is_valid(tag_or_digest);
        _cleanup_free_ char *path = strprintf("/manifests/%s", tag_or_digest),
                            *what = strprintf("the manifest of %s%s%s", s->reference.name, digest ? "@" : ":",
                                              tag_or_digest);

        if (!path || !what)
                return error_oom(error);
        return get_document(s, path, manifest_accept, what, MANIFEST_SIZE_MAX, digest ? tag_or_digest : NULL, ret,
                            error);
}

int registry_head_manifest(RegistrySession *s, const char *tag_or_digest, char **ret_digest, Error *error) {
        _cleanup_free_ char *path = strprintf("/manifests/%s", tag_or_digest),
                            *what = strprintf("the manifest of %s", s->reference.name);
        _cleanup_error_ Error mirrors = ERROR_INIT, inner = ERROR_INIT;
        int r = -ENOENT;

        if (!path || !what)
                return error_oom(error);
        for (size_t i = 0; i < s->hosts.n_hosts; i++) {
                _cleanup_http_response_ HttpResponse p = {};
                HttpRequest q = {.method = "HEAD", .body_max = MANIFEST_SIZE_MAX};

                error_move(&mirrors, &inner);
                r = request_host(s, i, &q, path, manifest_accept, what, &p, &inner);
                if (r >= 0) {
                        *ret_digest = digest_is_valid(p.content_digest) ? TAKE_PTR(p.content_digest) : NULL;
                        return 0;
                }
                if (!worth_another_host(r))
                        break;
        }
        merge_errors(&inner, &mirrors);
        error_move(error, &inner);
        return r;
}

int registry_get_blob(RegistrySession *s, const char *digest, uint64_t size, RegistryDocument *ret, Error *error) {
        _cleanup_free_ char *path = strprintf("/blobs/%s", digest),
                            *what = strprintf("the config of %s (%.19s…)", s->reference.name, digest);
        int r;

        if (!path || !what)
                return error_oom(error);
        r = get_document(s, path, NULL, what, (size_t) size, digest, ret, error);
        if (r < 0)
                return r;
        if (ret->size != size) {
                r = error_setf(error, GRPC_DATA_LOSS, "Cannot use %s: it has %zu bytes, its manifest says %llu", what,
                               ret->size, (unsigned long long) size);
                registry_document_done(ret);
                return r;
        }
        return 0;
}

int registry_stream_blob(RegistrySession *s, size_t host, const char *digest, uint64_t size, int sink_fd,
                         uint64_t *progress, Error *error) {
        _cleanup_free_ char *path = strprintf("/blobs/%s", digest),
                            *what = strprintf("layer %.19s… of %s", digest, s->reference.name);
        _cleanup_http_response_ HttpResponse p = {};
        HttpRequest q = {.method = "GET", .sink_fd = sink_fd, .sink_size = size, .sink_progress = progress};

        if (!path || !what)
                return error_oom(error);
        return request_host(s, host, &q, path, NULL, what, &p, error);
}
