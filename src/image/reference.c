/* Image references by the grammar of the distribution project (its `reference` package), normalized the way Docker
 * does: a missing domain is docker.io, a bare name there lies in library/, a missing tag is latest.
 *
 *   reference := name [":" tag] ["@" digest]
 *   name      := [domain "/"] component ("/" component)*
 *   domain    := host [":" port]; host is a DNS name, an IPv4 address or a bracketed IPv6 address
 *   component := [a-z0-9]+ (("." | "_" | "__" | "-"+) [a-z0-9]+)*
 *   tag       := [A-Za-z0-9_] [A-Za-z0-9_.-]{0,127} */

#include "image/reference.h"

#include "basic/string-util.h"

#define NAME_LENGTH_MAX 255U
#define TAG_LENGTH_MAX  128U
/* Nothing longer can match the grammar; what is longer isn't worth a look. */
#define REFERENCE_LENGTH_MAX 1024U

#define DEFAULT_DOMAIN        "docker.io"
#define LEGACY_DEFAULT_DOMAIN "index.docker.io"
#define OFFICIAL_PREFIX       "library/"

static bool is_lower_alnum(char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_alnum(char c) {
        return is_lower_alnum(c) || (c >= 'A' && c <= 'Z');
}

static bool is_lower_hex_n(const char *s, size_t n) {
        for (size_t i = 0; i < n; i++)
                if (!((s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'f')))
                        return false;
        return s[n] == '\0';
}

bool digest_is_valid(const char *s) {
        const char *hex;

        if (!s)
                return false;
        hex = startswith(s, "sha256:");
        return hex && strnlen(hex, 65) == 64 && is_lower_hex_n(hex, 64);
}

void image_reference_done(ImageReference *r) {
        if (!r)
                return;
        r->domain = mfree(r->domain);
        r->path = mfree(r->path);
        r->tag = mfree(r->tag);
        r->digest = mfree(r->digest);
        r->name = mfree(r->name);
}

/* What is printed of a refused reference: it came from outside and may be anything. */
static int refuse(Error *error, const char *text, const char *why) {
        _cleanup_free_ char *shown = NULL, *clean = NULL;

        shown = strndup(text, strnlen(text, 200));
        if (shown)
                clean = utf8_sanitize(shown);
        (void) error_setf(error, GRPC_INVALID_ARGUMENT, "Invalid image reference \"%s\": %s", strempty(clean), why);
        return -EINVAL;
}

static bool domain_is_valid(const char *s, size_t n) {
        size_t i = 0;

        if (n > 0 && s[0] == '[') {
                size_t start = 1;

                for (i = 1; i < n && s[i] != ']'; i++)
                        if (!(is_alnum(s[i]) && (s[i] <= '9' || (s[i] | 32) <= 'f')) && s[i] != ':')
                                return false;
                if (i >= n || i == start)
                        return false;
                i++;
        } else {
                bool label = false; /* a label's character has been seen, and the last one may end it */

                for (; i < n && s[i] != ':'; i++) {
                        if (is_alnum(s[i]))
                                label = true;
                        else if (s[i] == '-') {
                                if (i == 0 || s[i - 1] == '.' || i + 1 >= n || s[i + 1] == '.' || s[i + 1] == ':')
                                        return false;
                        } else if (s[i] == '.') {
                                if (!label)
                                        return false;
                                label = false;
                        } else
                                return false;
                }
                if (!label)
                        return false;
        }

        if (i < n) {
                unsigned long port = 0;
                size_t digits = 0;

                if (s[i] != ':')
                        return false;
                for (i++; i < n; i++, digits++) {
                        if (s[i] < '0' || s[i] > '9')
                                return false;
                        port = port * 10 + (unsigned long) (s[i] - '0');
                        if (port > 65535)
                                return false;
                }
                if (digits == 0)
                        return false;
        }
        return true;
}

static bool path_is_valid(const char *s, size_t n) {
        size_t i = 0;

        if (n == 0)
                return false;
        while (i < n) {
                /* A run of letters and digits, … */
                if (!is_lower_alnum(s[i]))
                        return false;
                while (i < n && is_lower_alnum(s[i]))
                        i++;
                if (i == n)
                        return true;
                /* … then one separator, after which another run must come. */
                if (s[i] == '-')
                        while (i < n && s[i] == '-')
                                i++;
                else if (s[i] == '_') {
                        i++;
                        if (i < n && s[i] == '_')
                                i++;
                } else if (s[i] == '.' || s[i] == '/')
                        i++;
                else
                        return false;
        }
        return false;
}

static bool tag_is_valid(const char *s, size_t n) {
        if (n == 0 || n > TAG_LENGTH_MAX || s[0] == '.' || s[0] == '-')
                return false;
        for (size_t i = 0; i < n; i++)
                if (!is_alnum(s[i]) && s[i] != '_' && s[i] != '.' && s[i] != '-')
                        return false;
        return true;
}

static bool has_upper(const char *s, size_t n) {
        for (size_t i = 0; i < n; i++)
                if (s[i] >= 'A' && s[i] <= 'Z')
                        return true;
        return false;
}

/* Whether what stands before the first slash is a registry's address rather than a part of the repository. */
static bool looks_like_domain(const char *s, size_t n) {
        return memchr(s, '.', n) || memchr(s, ':', n) || (n == 9 && memcmp(s, "localhost", 9) == 0) || has_upper(s, n);
}

int image_reference_parse(const char *text, ImageReference *ret, Error *error) {
        _cleanup_image_reference_ ImageReference r = {};
        const char *end, *at, *slash, *name_end, *path;
        size_t path_n;
        bool official;

        if (isempty(text))
                return refuse(error, "", "it is empty");
        if (strnlen(text, REFERENCE_LENGTH_MAX + 1) > REFERENCE_LENGTH_MAX)
                return refuse(error, text, "it is too long");
        end = text + strlen(text);

        at = strchr(text, '@');
        if (at) {
                if (!digest_is_valid(at + 1))
                        return refuse(error, text,
                                      startswith(at + 1, "sha256:")
                                                      ? "a sha256 digest has 64 lower-case hexadecimal digits"
                                                      : "only sha256 digests are supported");
                r.digest = strdup(at + 1);
                if (!r.digest)
                        return error_oom(error);
                end = at;
        }

        /* A colon after the last slash begins the tag; one before is a port. */
        name_end = end;
        for (const char *p = end; p > text && p[-1] != '/'; p--)
                if (p[-1] == ':')
                        name_end = p - 1;
        if (name_end < end) {
                if (!tag_is_valid(name_end + 1, (size_t) (end - name_end - 1)))
                        return refuse(error, text,
                                      "a tag has up to 128 letters, digits, \"_\", \".\", \"-\", and doesn't begin "
                                      "with \".\" or \"-\"");
                r.tag = strndup(name_end + 1, (size_t) (end - name_end - 1));
                if (!r.tag)
                        return error_oom(error);
        }

        slash = memchr(text, '/', (size_t) (name_end - text));
        if (slash && looks_like_domain(text, (size_t) (slash - text))) {
                size_t n = (size_t) (slash - text);

                if (!domain_is_valid(text, n))
                        return refuse(error, text, "what stands before the first slash is no host[:port]");
                path = slash + 1;
                r.domain = strndup(text, n);
                if (r.domain && streq(r.domain, LEGACY_DEFAULT_DOMAIN)) {
                        free(r.domain);
                        r.domain = strdup(DEFAULT_DOMAIN);
                }
        } else {
                path = text;
                r.domain = strdup(DEFAULT_DOMAIN);
        }
        if (!r.domain)
                return error_oom(error);

        path_n = (size_t) (name_end - path);
        if (!path_is_valid(path, path_n))
                return refuse(error, text,
                              has_upper(path, path_n) ? "the repository's name must be lower case"
                                                      : "the repository's name is not of the form name[/name…]");
        if (path == text && path_n == 64 && !memchr(path, '/', path_n)) {
                _cleanup_free_ char *copy = strndup(path, path_n);

                if (!copy)
                        return error_oom(error);
                if (is_lower_hex_n(copy, 64))
                        return refuse(error, text,
                                      "a name can't be 64 hexadecimal digits, which would be an image ID");
        }

        official = streq(r.domain, DEFAULT_DOMAIN) && !memchr(path, '/', path_n);
        r.path = strprintf("%s%.*s", official ? OFFICIAL_PREFIX : "", (int) path_n, path);
        if (!r.path)
                return error_oom(error);
        r.name = strprintf("%s/%s", r.domain, r.path);
        if (!r.name)
                return error_oom(error);
        if (strlen(r.name) > NAME_LENGTH_MAX)
                return refuse(error, text, "the repository's name is longer than 255 characters");

        if (!r.tag && !r.digest) {
                r.tag = strdup("latest");
                if (!r.tag)
                        return error_oom(error);
        }

        *ret = r;
        r = (ImageReference){};
        return 0;
}
