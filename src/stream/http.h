#pragma once
/* The head of an HTTP/1.1 request, which is all that this server reads before it changes protocols (RFC 9112). */

#include "basic/macro.h"

#define HTTP_HEAD_MAX (16U * 1024U) /* bytes */
#define HTTP_FIELDS_MAX 100U

typedef struct HttpRequest {
        const char *method, *target;
        struct {
                const char *name, *value; /* without blanks around it */
        } field[HTTP_FIELDS_MAX];
        size_t n_fields;
} HttpRequest;

/* Whether the head is complete: its size with the empty line, or 0. */
size_t http_head_size(const char *data, size_t size);
/* Takes a complete head apart; it is changed and borrowed. -EBADMSG: not HTTP/1.1, -E2BIG: too many fields. */
int http_parse(char *head, size_t size, HttpRequest *ret);

/* The i-th value of that name (ASCII case doesn't matter), or NULL. */
const char *http_field(const HttpRequest *q, const char *name, size_t i);
/* Whether a comma-separated list, in any number of fields, has the token (case doesn't matter). */
bool http_field_has(const HttpRequest *q, const char *name, const char *token);
