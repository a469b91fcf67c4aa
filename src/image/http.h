#pragma once
/* HTTP requests of the registry client: libcurl's multi interface on the sd-event loop. One request at a time looks
 * synchronous to its fiber; redirects, retries and authentication are the caller's. HTTP/1.1: each layer has a
 * connection of its own, so that a slow unpacker holds back nobody else. */

#include <systemd/sd-event.h>

#include "basic/error.h"
#include "basic/macro.h"
#include "basic/string-util.h"

typedef struct HttpClient HttpClient;

int http_client_new(sd_event *event, HttpClient **ret);
/* No request may be under way. */
HttpClient *http_client_free(HttpClient *c);
DEFINE_TRIVIAL_CLEANUP_FUNC(HttpClient *, http_client_free);

typedef struct HttpRequest {
        const char *method; /* "GET", "HEAD", or "POST" with body */
        const char *url;
        char *const *headers; /* "Name: value" */
        const char *body;
        const char *ca, *client_certificate, *client_key; /* paths, NULL: the system's, none */
        bool insecure;                                    /* take any certificate */
        bool no_proxy;
        uint64_t progress_timeout_usec; /* without a byte for so long the request fails */
        size_t body_max;                /* of a successful response kept in memory */

        int sink_fd;          /* > 0: a successful response goes to this non-blocking pipe instead, */
        uint64_t sink_offset; /* which has these first bytes already (asked for by Range), */
        uint64_t sink_size;   /* and gets no more than this in all */
        uint64_t *sink_progress; /* told how much it has, while it comes in; may be NULL */
} HttpRequest;

typedef struct HttpResponse {
        unsigned status;
        char *content_type, *content_digest, *redirect;
        char **challenges;        /* values of WWW-Authenticate */
        uint64_t retry_after_sec; /* UINT64_MAX: not given */
        uint64_t content_length;  /* UINT64_MAX: not given */
        Buffer body;              /* of a failure at most 64 KiB */
        uint64_t sink_end;        /* bytes the sink has now; valid on failure as well */
        bool retry;               /* a transport failure that a second try may not have */
        bool sink_failed;         /* the reader of the pipe went away */
} HttpResponse;

void http_response_done(HttpResponse *r);
#define _cleanup_http_response_ _cleanup_(http_response_done)

/* (fiber) Sends a request and waits for the end of its response, whatever its status. A negative result means that
 * there is no (whole) response: -ECANCELED, -ETIME, -EPIPE (sink_failed), -E2BIG, else a transport failure, with
 * *error saying why in words without addresses or credentials. *ret is filled in any case and must be freed. */
int http_perform(HttpClient *c, const HttpRequest *request, HttpResponse *ret, Error *error);
