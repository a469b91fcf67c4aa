#include "stream/http.h"

#include <strings.h>

size_t http_head_size(const char *data, size_t size) {
        const char *end = memmem(data, size, "\r\n\r\n", 4);

        return end ? (size_t) (end - data) + 4 : 0;
}

static bool is_token(const char *s) {
        static const char others[] = "!#$%&'*+-.^_`|~";

        if (!*s)
                return false;
        for (; *s; s++)
                if (!((*s >= '0' && *s <= '9') || (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') ||
                      strchr(others, *s)))
                        return false;
        return true;
}

static char *strip(char *s) {
        size_t n;

        s += strspn(s, " \t");
        for (n = strlen(s); n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t'); n--)
                ;
        s[n] = 0;
        return s;
}

static int parse_request_line(char *line, HttpRequest *q) {
        char *target = strchr(line, ' '), *version = target ? strchr(target + 1, ' ') : NULL;

        if (!version)
                return -EBADMSG;
        *target++ = 0;
        *version++ = 0;
        if (!is_token(line) || target[0] != '/' || !streq(version, "HTTP/1.1"))
                return -EBADMSG;
        q->method = line;
        q->target = target;
        return 0;
}

static int parse_field(char *line, HttpRequest *q) {
        char *colon = strchr(line, ':');

        if (!colon)
                return -EBADMSG;
        *colon = 0;
        if (!is_token(line))
                return -EBADMSG;
        if (q->n_fields == HTTP_FIELDS_MAX)
                return -E2BIG;
        q->field[q->n_fields].name = line;
        q->field[q->n_fields++].value = strip(colon + 1);
        return 0;
}

int http_parse(char *head, size_t size, HttpRequest *ret) {
        char *line = head;
        int r;

        if (size < 4 || memchr(head, 0, size))
                return -EBADMSG;
        ret->n_fields = 0;
        ret->method = NULL;
        head[size - 2] = 0; /* the empty line */
        while (*line) {
                char *end = strstr(line, "\r\n");

                if (!end)
                        return -EBADMSG;
                *end = 0;
                if (strpbrk(line, "\r\n"))
                        return -EBADMSG;
                r = ret->method ? parse_field(line, ret) : parse_request_line(line, ret);
                if (r < 0)
                        return r;
                line = end + 2;
        }
        return ret->method ? 0 : -EBADMSG;
}

const char *http_field(const HttpRequest *q, const char *name, size_t i) {
        for (size_t k = 0; k < q->n_fields; k++)
                if (strcasecmp(q->field[k].name, name) == 0 && i-- == 0)
                        return q->field[k].value;
        return NULL;
}

bool http_field_has(const HttpRequest *q, const char *name, const char *token) {
        const char *value;

        for (size_t i = 0; (value = http_field(q, name, i)); i++)
                while (*value) {
                        size_t n;

                        value += strspn(value, ", \t");
                        n = strcspn(value, ", \t");
                        if (n == strlen(token) && strncasecmp(value, token, n) == 0)
                                return true;
                        value += n;
                }
        return false;
}
