/* How a registry is told who asks: Basic, or a token from the server that the registry names (the distribution
 * project's token specification, with OAuth2 for identity tokens). */

#include <openssl/evp.h>
#include <strings.h>

#include "basic/json-util.h"
#include "image/registry.h"

#define TOKEN_RESPONSE_MAX (1024U * 1024U)
#define TOKEN_LENGTH_MAX   (64U * 1024U)

char *secret_free(char *s) {
        if (s)
                explicit_bzero(s, strlen(s));
        free(s);
        return NULL;
}

void auth_challenge_done(AuthChallenge *c) {
        if (!c)
                return;
        c->realm = mfree(c->realm);
        c->service = mfree(c->service);
        c->scope = mfree(c->scope);
}

bool auth_token_is_valid(const char *token) {
        size_t n = strlen(token);

        if (n == 0 || n > TOKEN_LENGTH_MAX)
                return false;
        for (size_t i = 0; i < n; i++)
                if (token[i] <= ' ' || token[i] >= 127)
                        return false;
        return true;
}

static const char *skip_space(const char *p) {
        return p + strspn(p, " \t,");
}

/* key=token or key="quoted \" string"; returns what follows, or NULL when it is none. */
static const char *read_parameter(const char *p, char **ret_key, char **ret_value) {
        _cleanup_free_ char *key = NULL, *value = NULL;
        size_t n = strcspn(p, "= \t,\"");

        if (n == 0 || p[n] != '=')
                return NULL;
        key = strndup(p, n);
        p += n + 1;
        value = calloc(1, strlen(p) + 1);
        if (!key || !value)
                return NULL;
        n = 0;
        if (*p == '"') {
                for (p++; *p && *p != '"'; p++) {
                        if (*p == '\\' && p[1])
                                p++;
                        value[n++] = *p;
                }
                if (*p != '"')
                        return NULL;
                p++;
        } else
                while (*p && *p != ',' && *p != ' ' && *p != '\t')
                        value[n++] = *p++;
        *ret_key = TAKE_PTR(key);
        *ret_value = TAKE_PTR(value);
        return p;
}

int auth_challenge_parse(char *const *values, AuthChallenge *ret) {
        _cleanup_auth_challenge_ AuthChallenge c = {};

        STRV_FOREACH(v, values) {
                bool in_bearer = false;

                for (const char *p = skip_space(*v); *p; p = skip_space(p)) {
                        _cleanup_free_ char *key = NULL, *value = NULL;
                        const char *next = read_parameter(p, &key, &value);
                        size_t n;

                        if (next) {
                                char **field = !in_bearer                        ? NULL
                                               : strcasecmp(key, "realm") == 0   ? &c.realm
                                               : strcasecmp(key, "service") == 0 ? &c.service
                                               : strcasecmp(key, "scope") == 0   ? &c.scope
                                                                                 : NULL;
                                if (field && !*field)
                                        *field = TAKE_PTR(value);
                                p = next;
                                continue;
                        }
                        /* A scheme's name. */
                        n = strcspn(p, " \t,");
                        if (n == 0)
                                break;
                        in_bearer = n == 6 && strncasecmp(p, "Bearer", 6) == 0 && !c.bearer;
                        c.bearer = c.bearer || in_bearer;
                        c.basic = c.basic || (n == 5 && strncasecmp(p, "Basic", 5) == 0);
                        p += n;
                }
        }
        if (c.bearer && !c.realm)
                c.bearer = false;
        if (!c.bearer && !c.basic)
                return -EINVAL;
        *ret = c;
        c = (AuthChallenge){};
        return 0;
}

char *auth_basic(const char *username, const char *password) {
        char *plain = strprintf("%s:%s", username, strempty(password)), *r = NULL;
        size_t n;

        if (!plain)
                return NULL;
        n = strlen(plain);
        r = malloc(6 + (n + 2) / 3 * 4 + 1);
        if (r) {
                memcpy(r, "Basic ", 6);
                (void) EVP_EncodeBlock((unsigned char *) r + 6, (const unsigned char *) plain, (int) n);
        }
        (void) secret_free(plain);
        return r;
}

int auth_decode(const char *auth, char **ret_username, char **ret_password) {
        _cleanup_(freep) char *plain = NULL;
        char *colon;
        size_t n = strlen(auth);
        int k;

        if (n == 0 || n % 4 != 0 || n > TOKEN_LENGTH_MAX)
                return -EINVAL;
        plain = calloc(1, n / 4 * 3 + 1);
        if (!plain)
                return -ENOMEM;
        k = EVP_DecodeBlock((unsigned char *) plain, (const unsigned char *) auth, (int) n);
        if (k < 0)
                return -EINVAL;
        colon = strchr(plain, ':');
        if (!colon)
                return -EINVAL;
        *ret_username = strndup(plain, (size_t) (colon - plain));
        *ret_password = strdup(colon + 1);
        explicit_bzero(plain, n / 4 * 3);
        if (!*ret_username || !*ret_password) {
                *ret_username = mfree(*ret_username);
                *ret_password = secret_free(*ret_password);
                return -ENOMEM;
        }
        return 0;
}

static int append_escaped(Buffer *b, const char *s) {
        int r = 0;

        for (; *s && r >= 0; s++) {
                bool plain = (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') ||
                             strchr("-._~", *s);

                r = plain ? buffer_append(b, s, 1) : buffer_appendf(b, "%%%02X", (unsigned char)*s);
        }
        return r;
}

static int append_parameter(Buffer *b, char separator, const char *key, const char *value) {
        int r;

        r = buffer_appendf(b, "%c%s=", separator, key);
        return r < 0 ? r : append_escaped(b, value);
}

int auth_fetch_token(HttpClient *http, const TokenRequest *q, char **ret_token, HttpResponse *ret_response,
                     Error *error) {
        _cleanup_http_response_ HttpResponse response = {};
        _cleanup_(buffer_done) Buffer url = BUFFER_INIT, body = BUFFER_INIT;
        _cleanup_strv_free_ char **headers = NULL;
        _cleanup_json_ json_t *j = NULL;
        const AuthChallenge *c = q->challenge;
        const char *scope = c->scope ? c->scope : q->default_scope, *token;
        HttpRequest request = q->base;
        bool secret = q->identity_token || q->username;
        int r = 0;

        if (!startswith(c->realm, "https://") && !(startswith(c->realm, "http://") && (q->allow_plain || !secret)))
                return error_setf(error, GRPC_UNAUTHENTICATED,
                                  "the registry names a token server that isn't reached by https, which would show it "
                                  "the "
                                  "credentials");

        /* A separator is set down for each parameter; the first one of a URL is "?" unless the realm has one. */
        r = buffer_appendf(&url, "%s", c->realm);
        if (q->identity_token) {
                r = r < 0 ? r : buffer_appendf(&body, "grant_type=refresh_token&client_id=rktlet");
                if (r >= 0 && c->service)
                        r = append_parameter(&body, '&', "service", c->service);
                if (r >= 0 && scope)
                        r = append_parameter(&body, '&', "scope", scope);
                if (r >= 0)
                        r = append_parameter(&body, '&', "refresh_token", q->identity_token);
                if (r >= 0)
                        r = strv_extend(&headers, "Content-Type: application/x-www-form-urlencoded");
                request.method = "POST";
                request.body = body.data;
        } else {
                char separator = strchr(c->realm, '?') ? '&' : '?';

                if (r >= 0 && c->service) {
                        r = append_parameter(&url, separator, "service", c->service);
                        separator = '&';
                }
                if (r >= 0 && scope)
                        r = append_parameter(&url, separator, "scope", scope);
                if (r >= 0 && q->username) {
                        char *basic = auth_basic(q->username, q->password);

                        r = basic ? strv_extendf(&headers, "Authorization: %s", basic) : -ENOMEM;
                        (void) secret_free(basic);
                }
                request.method = "GET";
        }
        if (r < 0)
                return error_oom(error);
        request.url = url.data;
        request.headers = headers;
        request.body_max = TOKEN_RESPONSE_MAX;

        r = http_perform(http, &request, &response, error);
        STRV_FOREACH(h, headers)
                explicit_bzero(*h, strlen(*h));
        if (body.data)
                explicit_bzero(body.data, body.size);
        *ret_response = response;
        response = (HttpResponse){};
        if (r < 0)
                return r;
        if (ret_response->status != 200)
                return 0; /* for the caller to look at; *ret_token stays */

        r = json_parse(ret_response->body.data ? ret_response->body.data : "", ret_response->body.size, &j, NULL);
        if (r == -ENOMEM)
                return error_oom(error);
        token = json_get_string(j, "token");
        if (isempty(token))
                token = json_get_string(j, "access_token");
        if (ret_response->body.data)
                explicit_bzero(ret_response->body.data, ret_response->body.size);
        if (isempty(token) || !auth_token_is_valid(token))
                return error_setf(error, GRPC_UNAVAILABLE, "the token server's answer has no usable token");
        *ret_token = strdup(token);
        return *ret_token ? 0 : error_oom(error);
}

/* Control characters would let a registry write lines of its own into a log. */
static void make_printable(char *s) {
        for (; *s; s++)
                if ((unsigned char)*s < ' ' || *s == 127)
                        *s = ' ';
}

char *registry_error_text(const char *body, size_t size) {
        _cleanup_json_ json_t *j = NULL;
        _cleanup_free_ char *clean = NULL, *text = NULL;
        const char *code = NULL, *message = NULL;
        const json_t *e;

        if (!body || size == 0 || json_parse(body, size, &j, NULL) < 0)
                return strdup("");
        e = json_array_get(json_get_array(j, "errors"), 0);
        if (e) {
                code = json_get_string(e, "code");
                message = json_get_string(e, "message");
        } else {
                code = json_get_string(j, "error");
                message = json_get_string(j, "error_description");
                if (!message)
                        message = json_get_string(j, "message");
                if (!message)
                        message = json_get_string(j, "details");
        }
        if (isempty(code) && isempty(message))
                return strdup("");
        text = strprintf(" (%.60s%s%.240s)", strempty(code), isempty(code) || isempty(message) ? "" : ": ",
                         strempty(message));
        if (!text)
                return NULL;
        clean = utf8_sanitize(text);
        if (clean)
                make_printable(clean);
        return TAKE_PTR(clean);
}

char *url_authority(const char *url) {
        const char *p = strstr(url, "://");

        p = p ? p + 3 : url;
        return strndup(p, strcspn(p, "/?#"));
}
