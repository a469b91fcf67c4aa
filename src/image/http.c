/* libcurl on sd-event: curl says which sockets to watch and when to be called, and calls back with what came. */

#include "image/http.h"

#include <strings.h>

#include "basic/fiber.h"
#include "basic/log.h"
#include "image/curl-library.h"

#define FAILURE_BODY_MAX     (64U * 1024U)
#define CONNECT_TIMEOUT_MSEC 30000L
#define HEADERS_MAX          (64U * 1024U)

struct HttpClient {
        sd_event *event;
        CURLM *multi;
        sd_event_source *timer;
};

typedef struct Socket {
        HttpClient *client;
        sd_event_source *source;
} Socket;

typedef struct Transfer {
        HttpClient *client;
        CURL *easy;
        Fiber *fiber;
        const HttpRequest *request;
        HttpResponse *response;
        bool done, paused, too_large, out_of_memory;
        CURLcode result;
        uint64_t last_activity;
        size_t header_bytes;
        uint64_t to_skip; /* bytes the sink has already: of the whole response, or of a piece written in part */
        bool checked_range;
        uint64_t range_start; /* of a Content-Range, UINT64_MAX: not given */
        sd_event_source *writable;
        char text[CURL_ERROR_SIZE];
} Transfer;

static uint64_t event_now(HttpClient *c) {
        uint64_t t;

        return sd_event_now(c->event, CLOCK_MONOTONIC, &t) < 0 ? now_usec(CLOCK_MONOTONIC) : t;
}

static void collect_done(HttpClient *c) {
        CURLMsg *m;
        int left;

        while ((m = curl.multi_info_read(c->multi, &left))) {
                Transfer *t = NULL;

                if (m->msg != CURLMSG_DONE)
                        continue;
                (void) curl.easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &t);
                t->done = true;
                t->result = m->data.result;
                fiber_wake(t->fiber, 0);
        }
}

static int on_socket(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        HttpClient *c = ((Socket *) userdata)->client;
        int action = 0, running;

        if (revents & (EPOLLIN | EPOLLHUP))
                action |= CURL_CSELECT_IN;
        if (revents & EPOLLOUT)
                action |= CURL_CSELECT_OUT;
        if (revents & EPOLLERR)
                action |= CURL_CSELECT_ERR;
        (void) curl.multi_socket_action(c->multi, fd, action, &running);
        collect_done(c);
        return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        HttpClient *c = userdata;
        int running;

        (void) curl.multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
        collect_done(c);
        return 0;
}

static int socket_callback(CURL *easy, curl_socket_t fd, int what, void *userdata, void *socket_data) {
        HttpClient *c = userdata;
        Socket *s = socket_data;
        uint32_t events = 0;

        if (what == CURL_POLL_REMOVE) {
                if (s)
                        sd_event_source_disable_unref(s->source);
                free(s);
                (void) curl.multi_assign(c->multi, fd, NULL);
                return 0;
        }
        if (what & CURL_POLL_IN)
                events |= EPOLLIN;
        if (what & CURL_POLL_OUT)
                events |= EPOLLOUT;
        if (s)
                return sd_event_source_set_io_events(s->source, events) < 0 ? -1 : 0;

        s = calloc(1, sizeof *s);
        if (!s)
                return -1;
        s->client = c;
        if (sd_event_add_io(c->event, &s->source, fd, events, on_socket, s) < 0) {
                free(s);
                return -1;
        }
        (void) curl.multi_assign(c->multi, fd, s);
        return 0;
}

static int timer_callback(CURLM *multi, long timeout_msec, void *userdata) {
        HttpClient *c = userdata;

        if (timeout_msec < 0)
                return sd_event_source_set_enabled(c->timer, SD_EVENT_OFF) < 0 ? -1 : 0;
        if (sd_event_source_set_time(c->timer, now_usec(CLOCK_MONOTONIC) + (uint64_t) timeout_msec * USEC_PER_MSEC) <
                            0 ||
            sd_event_source_set_enabled(c->timer, SD_EVENT_ONESHOT) < 0)
                return -1;
        return 0;
}

HttpClient *http_client_free(HttpClient *c) {
        if (!c)
                return NULL;
        if (c->multi)
                (void) curl.multi_cleanup(c->multi);
        sd_event_source_disable_unref(c->timer);
        sd_event_unref(c->event);
        free(c);
        return NULL;
}

int http_client_new(sd_event *event, HttpClient **ret) {
        _cleanup_(http_client_freep) HttpClient *c = NULL;
        int r;

        c = calloc(1, sizeof *c);
        if (!c)
                return -ENOMEM;
        c->event = sd_event_ref(event);
        r = sd_event_add_time(event, &c->timer, CLOCK_MONOTONIC, UINT64_MAX, 1, on_timer, c);
        if (r < 0)
                return r;
        r = sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(c);
        return 0;
}

typedef struct Loading {
        Fiber *fiber;
        Error *error;
        int r;
        bool done;
} Loading;

static int on_load(sd_event_source *source, void *userdata) {
        Loading *l = userdata;

        l->r = curl_library_load(l->error);
        l->done = true;
        fiber_wake(l->fiber, 0);
        return 0;
}

/* On the loop's own stack: what thirty libraries do when they are loaded is too much for a fiber's. */
static int load_library(HttpClient *c, Error *error) {
        Loading l = { .fiber = fiber_current(), .error = error };
        sd_event_source *source = NULL;
        FIBER_SHIELDED_SCOPE;
        int r;

        r = sd_event_add_defer(c->event, &source, on_load, &l);
        if (r < 0)
                return error_set(error, r, "cannot load what fetches images");
        while (!l.done)
                (void) fiber_suspend();
        sd_event_source_disable_unref(source);
        return l.r;
}

/* What only a client that is used needs. */
static int client_prepare(HttpClient *c, Error *error) {
        CURLM *multi;
        int r;

        if (c->multi)
                return 0;
        r = load_library(c, error);
        if (r < 0)
                return r;
        /* Somebody else's request came in between. */
        if (c->multi)
                return 0;
        multi = curl.multi_init();
        if (!multi)
                return error_oom(error);
        if (curl.multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, socket_callback) != CURLM_OK ||
            curl.multi_setopt(multi, CURLMOPT_SOCKETDATA, c) != CURLM_OK ||
            curl.multi_setopt(multi, CURLMOPT_TIMERFUNCTION, timer_callback) != CURLM_OK ||
            curl.multi_setopt(multi, CURLMOPT_TIMERDATA, c) != CURLM_OK ||
            curl.multi_setopt(multi, CURLMOPT_MAXCONNECTS, 8L) != CURLM_OK) {
                (void) curl.multi_cleanup(multi);
                return error_oom(error);
        }
        c->multi = multi;
        return 0;
}

void http_response_done(HttpResponse *r) {
        if (!r)
                return;
        r->content_type = mfree(r->content_type);
        r->content_digest = mfree(r->content_digest);
        r->redirect = mfree(r->redirect);
        strv_free(r->challenges);
        r->challenges = NULL;
        buffer_done(&r->body);
}

/* The value of a header line "Name: value\r\n" if it has that name; fresh memory. */
static bool header_value(const char *line, size_t n, const char *name, Transfer *t, char **ret) {
        size_t l = strlen(name);
        char *s;

        if (n <= l || line[l] != ':' || strncasecmp(line, name, l) != 0)
                return false;
        line += l + 1;
        n -= l + 1;
        while (n > 0 && (*line == ' ' || *line == '\t')) {
                line++;
                n--;
        }
        while (n > 0 && strchr(" \t\r\n", line[n - 1]))
                n--;
        s = strndup(line, n);
        if (!s) {
                t->out_of_memory = true;
                return true;
        }
        free(*ret);
        *ret = s;
        return true;
}

static size_t header_callback(char *line, size_t size, size_t n, void *userdata) {
        Transfer *t = userdata;
        HttpResponse *p = t->response;
        _cleanup_free_ char *value = NULL;

        n *= size;
        t->last_activity = event_now(t->client);
        t->header_bytes += n;
        if (t->header_bytes > HEADERS_MAX)
                return 0;
        if (n >= 5 && memcmp(line, "HTTP/", 5) == 0) {
                /* A further head: after 100 Continue or a proxy's answer. */
                p->content_type = mfree(p->content_type);
                p->content_digest = mfree(p->content_digest);
                strv_free(TAKE_PTR(p->challenges));
                p->retry_after_sec = UINT64_MAX;
                t->range_start = UINT64_MAX;
                return n;
        }
        if (header_value(line, n, "Content-Type", t, &p->content_type) ||
            header_value(line, n, "Docker-Content-Digest", t, &p->content_digest))
                ;
        else if (header_value(line, n, "WWW-Authenticate", t, &value)) {
                if (value && strv_length(p->challenges) < 16 && strv_push(&p->challenges, value) >= 0)
                        TAKE_PTR(value);
        } else if (header_value(line, n, "Retry-After", t, &value)) {
                if (value)
                        (void) parse_u64(value, &p->retry_after_sec);
        } else if (header_value(line, n, "Content-Range", t, &value)) {
                if (value && strncasecmp(value, "bytes ", 6) == 0) {
                        char *end;
                        unsigned long long start = strtoull(value + 6, &end, 10);

                        if (*end == '-')
                                t->range_start = start;
                }
        }
        return t->out_of_memory ? 0 : n;
}

static int on_writable(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        Transfer *t = userdata;
        CURLcode result;

        (void) sd_event_source_set_enabled(source, SD_EVENT_OFF);
        t->paused = false;
        t->last_activity = event_now(t->client);
        /* May call write_callback(), which may pause again; or fail, which curl tells here and nowhere else. */
        result = curl.easy_pause(t->easy, CURLPAUSE_CONT);
        collect_done(t->client);
        if (result != CURLE_OK && !t->done) {
                t->done = true;
                t->result = result;
                fiber_wake(t->fiber, 0);
        }
        return 0;
}

static size_t sink_write(Transfer *t, const char *data, size_t n) {
        HttpResponse *p = t->response;
        size_t left = n;

        if (t->to_skip > 0) {
                size_t k = (size_t) MIN(t->to_skip, (uint64_t) n);

                t->to_skip -= k;
                data += k;
                left -= k;
        }
        if (left > t->request->sink_size - p->sink_end) {
                t->too_large = true;
                return 0;
        }
        while (left > 0) {
                ssize_t k = write(t->request->sink_fd, data, left);

                if (k < 0) {
                        if (errno == EINTR)
                                continue;
                        if (errno != EAGAIN) {
                                p->sink_failed = true;
                                return 0;
                        }
                        /* curl brings the whole piece again; skip what has gone. */
                        if (sd_event_source_set_enabled(t->writable, SD_EVENT_ON) < 0)
                                return 0;
                        t->to_skip = n - left;
                        t->paused = true;
                        return CURL_WRITEFUNC_PAUSE;
                }
                data += k;
                left -= (size_t) k;
                p->sink_end += (uint64_t) k;
                if (t->request->sink_progress)
                        *t->request->sink_progress = p->sink_end;
        }
        return n;
}

static size_t write_callback(char *data, size_t size, size_t n, void *userdata) {
        Transfer *t = userdata;
        HttpResponse *p = t->response;
        long status = 0;

        n *= size;
        t->last_activity = event_now(t->client);
        (void) curl.easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);

        if (status != 200 && status != 206) {
                size_t room = FAILURE_BODY_MAX - MIN(p->body.size, (size_t) FAILURE_BODY_MAX);

                return buffer_append(&p->body, data, MIN(n, room)) < 0 ? 0 : n;
        }
        if (t->request->sink_fd > 0) {
                if (!t->checked_range) {
                        t->checked_range = true;
                        if (status == 200)
                                t->to_skip = p->sink_end; /* the server doesn't do ranges */
                        else if (t->range_start != p->sink_end)
                                return 0;
                }
                return sink_write(t, data, n);
        }
        if (n > t->request->body_max - MIN(p->body.size, t->request->body_max)) {
                t->too_large = true;
                return 0;
        }
        if (buffer_append(&p->body, data, n) < 0) {
                t->out_of_memory = true;
                return 0;
        }
        return n;
}

static int transfer_setup(Transfer *t, struct curl_slist **headers) {
        const HttpRequest *q = t->request;
        CURL *e = t->easy;
        CURLcode r = CURLE_OK;

#define SET(option, value)                                                                                            \
        do {                                                                                                          \
                if (r == CURLE_OK)                                                                                    \
                        r = curl.easy_setopt(e, (option), (value));                                                   \
        } while (0)
        SET(CURLOPT_PRIVATE, t);
        SET(CURLOPT_URL, q->url);
        SET(CURLOPT_PROTOCOLS_STR, "http,https");
        SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
        SET(CURLOPT_NOSIGNAL, 1L);
        SET(CURLOPT_USERAGENT, "rktlet/" PROJECT_VERSION);
        SET(CURLOPT_ERRORBUFFER, t->text);
        SET(CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MSEC);
        SET(CURLOPT_BUFFERSIZE, 256L * 1024L);
        SET(CURLOPT_HEADERFUNCTION, header_callback);
        SET(CURLOPT_HEADERDATA, t);
        SET(CURLOPT_WRITEFUNCTION, write_callback);
        SET(CURLOPT_WRITEDATA, t);
        if (q->no_proxy)
                SET(CURLOPT_PROXY, "");
        if (q->insecure) {
                SET(CURLOPT_SSL_VERIFYPEER, 0L);
                SET(CURLOPT_SSL_VERIFYHOST, 0L);
        }
        if (q->ca) {
                SET(CURLOPT_CAINFO, q->ca);
                SET(CURLOPT_CAPATH, NULL);
        }
        if (q->client_certificate)
                SET(CURLOPT_SSLCERT, q->client_certificate);
        if (q->client_key)
                SET(CURLOPT_SSLKEY, q->client_key);
        if (streq(q->method, "HEAD"))
                SET(CURLOPT_NOBODY, 1L);
        else if (streq(q->method, "POST"))
                SET(CURLOPT_COPYPOSTFIELDS, strempty(q->body));
        if (q->sink_fd > 0 && q->sink_offset > 0) {
                char range[32];

                (void) snprintf(range, sizeof range, "%llu-", (unsigned long long) q->sink_offset);
                SET(CURLOPT_RANGE, range);
        }
        STRV_FOREACH(h, q->headers) {
                struct curl_slist *l = curl.slist_append(*headers, *h);

                if (!l)
                        return -ENOMEM;
                *headers = l;
        }
        SET(CURLOPT_HTTPHEADER, *headers);
#undef SET
        return r == CURLE_OK ? 0 : r == CURLE_OUT_OF_MEMORY ? -ENOMEM : -EINVAL;
}

/* What curl's result means to the caller. */
static int transport_error(Transfer *t, Error *error) {
        const char *text = t->text[0] ? t->text : curl.easy_strerror(t->result);

        t->response->retry = true;
        switch (t->result) {
        case CURLE_COULDNT_RESOLVE_HOST:
        case CURLE_COULDNT_RESOLVE_PROXY:
                return error_setf(error, GRPC_UNAVAILABLE,
                                  "its name can't be resolved (%s): check the name and the node's DNS", text),
                       -EHOSTUNREACH;
        case CURLE_COULDNT_CONNECT:
                return error_setf(error, GRPC_UNAVAILABLE,
                                  "it can't be reached (%s): check the network and that the registry runs", text),
                       -EHOSTUNREACH;
        case CURLE_PEER_FAILED_VERIFICATION:
        case CURLE_SSL_CACERT_BADFILE:
        case CURLE_SSL_ISSUER_ERROR:
                t->response->retry = false;
                return error_setf(error, GRPC_UNAVAILABLE,
                                  "its certificate is not trusted (%s): set CA= for it in registries.d", text),
                       -EKEYREJECTED;
        case CURLE_SSL_CONNECT_ERROR:
        case CURLE_SSL_CERTPROBLEM:
        case CURLE_SSL_CIPHER:
                t->response->retry = false;
                return error_setf(error, GRPC_UNAVAILABLE,
                                  "TLS failed (%s): set PlainHTTP=yes for it in registries.d if it speaks HTTP", text),
                       -EPROTO;
        case CURLE_OUT_OF_MEMORY:
                t->response->retry = false;
                return error_oom(error);
        case CURLE_URL_MALFORMAT:
        case CURLE_UNSUPPORTED_PROTOCOL:
                t->response->retry = false;
                return error_setf(error, GRPC_UNAVAILABLE, "its address can't be used (%s)", text), -EINVAL;
        default:
                return error_setf(error, GRPC_UNAVAILABLE, "the connection failed (%s)", text), -ECONNRESET;
        }
}

static int transfer_wait(Transfer *t, Error *error) {
        int r;

        while (!t->done) {
                uint64_t until = t->paused ? USEC_INFINITY : t->last_activity + t->request->progress_timeout_usec;

                r = fiber_suspend_until(until);
                if (t->done || r >= 0)
                        continue;
                if (r != -ETIMEDOUT)
                        return r;
                if (t->paused || now_usec(CLOCK_MONOTONIC) < t->last_activity + t->request->progress_timeout_usec)
                        continue;
                t->response->retry = true;
                return error_setf(error, GRPC_UNAVAILABLE, "it sent nothing for %llu s",
                                  (unsigned long long) (t->request->progress_timeout_usec / USEC_PER_SEC)),
                       -ECONNRESET;
        }
        return 0;
}

static int transfer_end(Transfer *t, Error *error) {
        HttpResponse *p = t->response;
        long status = 0;
        char *redirect = NULL;
        curl_off_t length = -1;

        if (t->out_of_memory)
                return error_oom(error);
        if (p->sink_failed)
                return -EPIPE;
        if (t->too_large)
                return error_setf(error, t->request->sink_fd > 0 ? GRPC_DATA_LOSS : GRPC_RESOURCE_EXHAUSTED,
                                  "it sent more than the %llu bytes expected",
                                  (unsigned long long) (t->request->sink_fd > 0 ? t->request->sink_size
                                                                               : t->request->body_max)),
                       -E2BIG;
        if (t->result != CURLE_OK)
                return transport_error(t, error);

        (void) curl.easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
        (void) curl.easy_getinfo(t->easy, CURLINFO_REDIRECT_URL, &redirect);
        (void) curl.easy_getinfo(t->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
        p->status = (unsigned) status;
        p->content_length = length >= 0 ? (uint64_t) length : UINT64_MAX;
        if (redirect) {
                p->redirect = strdup(redirect);
                if (!p->redirect)
                        return error_oom(error);
        }
        return 0;
}

int http_perform(HttpClient *c, const HttpRequest *request, HttpResponse *ret, Error *error) {
        Transfer t = {
                        .client = c,
                        .fiber = fiber_current(),
                        .request = request,
                        .response = ret,
                        .range_start = UINT64_MAX,
                        .last_activity = now_usec(CLOCK_MONOTONIC),
        };
        struct curl_slist *headers = NULL;
        int r;

        *ret = (HttpResponse){
                        .retry_after_sec = UINT64_MAX,
                        .content_length = UINT64_MAX,
                        .sink_end = request->sink_offset,
        };
        r = fiber_check();
        if (r >= 0)
                r = client_prepare(c, error);
        if (r < 0)
                return r;
        t.easy = curl.easy_init();
        if (!t.easy)
                return error_oom(error);
        r = transfer_setup(&t, &headers);
        if (r >= 0 && request->sink_fd > 0) {
                r = sd_event_add_io(c->event, &t.writable, request->sink_fd, EPOLLOUT, on_writable, &t);
                if (r >= 0)
                        r = sd_event_source_set_enabled(t.writable, SD_EVENT_OFF);
        }
        if (r < 0)
                r = error_set(error, r, "the request can't be made");
        else if (curl.multi_add_handle(c->multi, t.easy) != CURLM_OK)
                r = error_oom(error);
        else {
                r = transfer_wait(&t, error);
                if (r >= 0)
                        r = transfer_end(&t, error);
                (void) curl.multi_remove_handle(c->multi, t.easy);
        }

        sd_event_source_disable_unref(t.writable);
        curl.easy_cleanup(t.easy);
        curl.slist_free_all(headers);
        return r;
}
