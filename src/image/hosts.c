/* Mirrors, credentials and certificates of registries, as the administrator wrote them. */

#include "image/hosts.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>

#include "basic/file-util.h"
#include "basic/log.h"
#include "basic/string-util.h"

#define HOSTS_FILE_MAX (64U * 1024U)
#define MIRRORS_MAX    32U

void registry_host_done(RegistryHost *h) {
        if (!h)
                return;
        free(h->authority);
        free(h->prefix);
        free(h->ca);
        free(h->client_certificate);
        free(h->client_key);
        free(h->username);
        free(h->password_file);
        *h = (RegistryHost){};
}

void registry_hosts_done(RegistryHosts *h) {
        if (!h)
                return;
        for (size_t i = 0; i < h->n_hosts; i++)
                registry_host_done(h->hosts + i);
        h->hosts = mfree(h->hosts);
        h->n_hosts = 0;
}

bool registry_authority_is_loopback(const char *authority) {
        char host[256];
        struct in_addr a;
        size_t n;

        if (startswith(authority, "[::1]"))
                return true;
        n = strcspn(authority, ":");
        if (n >= sizeof host)
                return false;
        memcpy(host, authority, n);
        host[n] = '\0';
        if (streq(host, "localhost"))
                return true;
        return inet_pton(AF_INET, host, &a) == 1 && (ntohl(a.s_addr) >> 24) == 127;
}

static int hosts_push(RegistryHosts *h, RegistryHost *host) {
        RegistryHost *n = reallocarray(h->hosts, h->n_hosts + 1, sizeof *n);

        if (!n)
                return -ENOMEM;
        h->hosts = n;
        h->hosts[h->n_hosts++] = *host;
        *host = (RegistryHost){};
        return 0;
}

/* http[s]://authority[/prefix] or authority[/prefix]. */
static int host_set_url(RegistryHost *h, const char *url) {
        const char *rest = url;
        size_t n, colons = 0;

        if (startswith(url, "https://") || startswith(url, "http://")) {
                h->https = url[4] == 's';
                h->https_given = true;
                rest = url + (h->https ? 8 : 7);
        }

        n = strcspn(rest, "/");
        if (n == 0)
                return -EINVAL;
        for (size_t i = 0; rest[i]; i++) {
                if (rest[i] <= ' ' || rest[i] >= 127 || strchr("\"<>\\^`{|}?#@", rest[i]))
                        return -EINVAL;
                colons += i < n && rest[i] == ':';
        }
        /* Only one outside of brackets, so that nothing but a port can follow it. */
        if (rest[0] != '[' && colons > 1)
                return -EINVAL;

        free(h->authority);
        free(h->prefix);
        h->authority = strndup(rest, n);
        h->prefix = strdup(rest + n);
        if (!h->authority || !h->prefix)
                return -ENOMEM;
        while ((n = strlen(h->prefix)) > 0 && h->prefix[n - 1] == '/')
                h->prefix[n - 1] = '\0';
        /* Some write the API's root down with the address. */
        if (startswith(h->prefix, "/v2") && (h->prefix[3] == '/' || h->prefix[3] == '\0'))
                memmove(h->prefix, h->prefix + 3, strlen(h->prefix + 3) + 1);
        return 0;
}

static int replace(char **p, const char *value) {
        char *s = NULL;

        if (value[0] && !(s = strdup(value)))
                return -ENOMEM;
        free(*p);
        *p = s;
        return 0;
}

/* 1: the key was one of these; 0: it wasn't. */
static int host_set(RegistryHost *h, const char *key, const char *value) {
        static const struct {
                const char *key;
                size_t offset;
        } strings[] = {
                        {"CA", offsetof(RegistryHost, ca)},
                        {"ClientCertificate", offsetof(RegistryHost, client_certificate)},
                        {"ClientKey", offsetof(RegistryHost, client_key)},
                        {"Username", offsetof(RegistryHost, username)},
                        {"PasswordFile", offsetof(RegistryHost, password_file)},
        };
        int r;

        if (streq(key, "URL")) {
                r = host_set_url(h, value);
                return r < 0 ? r : 1;
        }
        if (streq(key, "PlainHTTP")) {
                r = parse_bool(value);
                if (r < 0)
                        return r;
                h->https = !r;
                h->https_given = true;
                return 1;
        }
        if (streq(key, "Insecure")) {
                r = parse_bool(value);
                if (r < 0)
                        return r;
                h->insecure = r;
                return 1;
        }
        for (size_t i = 0; i < ELEMENTSOF(strings); i++)
                if (streq(key, strings[i].key)) {
                        if (!streq(key, "Username") && value[0] && value[0] != '/')
                                return -EINVAL;
                        r = replace((char **) ((char *) h + strings[i].offset), value);
                        return r < 0 ? r : 1;
                }
        return 0;
}

static char *strip(char *s) {
        size_t n;

        while (*s == ' ' || *s == '\t')
                s++;
        for (n = strlen(s); n > 0 && strchr(" \t\r", s[n - 1]); n--)
                s[n - 1] = '\0';
        return s;
}

int registry_hosts_parse(const char *text, const char *where, RegistryHosts *mirrors, RegistryHost *origin,
                         bool *fallback, Error *error) {
        _cleanup_free_ char *copy = strdup(text);
        enum { NOWHERE, REGISTRY, MIRROR, UNKNOWN } section = NOWHERE;
        unsigned number = 0;
        int r;

        if (!copy)
                return error_oom(error);

        for (char *next = copy, *line; (line = strsep(&next, "\n"));) {
                char *value;

                number++;
                line = strip(line);
                if (!line[0] || line[0] == '#' || line[0] == ';')
                        continue;
                if (line[0] == '[') {
                        if (streq(line, "[Registry]"))
                                section = REGISTRY;
                        else if (streq(line, "[Mirror]")) {
                                RegistryHost m = {.https = true, .mirror = true};

                                if (mirrors->n_hosts >= MIRRORS_MAX)
                                        return error_setf(error, GRPC_FAILED_PRECONDITION, "%s:%u: too many mirrors",
                                                          where, number);
                                if (hosts_push(mirrors, &m) < 0)
                                        return error_oom(error);
                                section = MIRROR;
                        } else {
                                log_warning("%s:%u: unknown section %s, ignoring", where, number, line);
                                section = UNKNOWN;
                        }
                        continue;
                }

                value = strchr(line, '=');
                if (!value)
                        return error_setf(error, GRPC_FAILED_PRECONDITION, "%s:%u: this is no KEY=VALUE line", where,
                                          number);
                *value++ = '\0';
                line = strip(line);
                value = strip(value);

                if (section == UNKNOWN)
                        continue;
                if (section == NOWHERE)
                        return error_setf(error, GRPC_FAILED_PRECONDITION,
                                          "%s:%u: \"%s\" stands before any [Registry] or [Mirror] line", where, number,
                                          line);
                if (section == REGISTRY && streq(line, "Fallback")) {
                        r = parse_bool(value);
                        if (r >= 0) {
                                *fallback = r;
                                r = 1;
                        }
                } else if (section == REGISTRY && streq(line, "Mirror")) {
                        char *word;

                        r = 1;
                        while (r > 0 && (word = strsep(&value, " \t,"))) {
                                RegistryHost m = {.https = true, .mirror = true};

                                if (!word[0])
                                        continue;
                                r = mirrors->n_hosts >= MIRRORS_MAX ? -E2BIG : host_set_url(&m, word);
                                if (r >= 0)
                                        r = hosts_push(mirrors, &m);
                                registry_host_done(&m);
                                if (r >= 0)
                                        r = 1;
                        }
                } else
                        r = host_set(section == REGISTRY ? origin : mirrors->hosts + mirrors->n_hosts - 1, line,
                                     value);
                if (r == -ENOMEM)
                        return error_oom(error);
                if (r < 0)
                        return error_setf(error, GRPC_FAILED_PRECONDITION, "%s:%u: the value of \"%s\" is not valid",
                                          where, number, line);
                if (r == 0)
                        log_warning("%s:%u: unknown key %s, ignoring", where, number, line);
        }

        for (size_t i = 0; i < mirrors->n_hosts; i++)
                if (!mirrors->hosts[i].authority)
                        return error_setf(error, GRPC_FAILED_PRECONDITION, "%s: a [Mirror] has no URL=", where);
        return 0;
}

static int collect_name(int dir_fd, const char *name, void *userdata) {
        char ***names = userdata;

        if (name[0] == '.' || !endswith(name, ".conf"))
                return 0;
        return strv_extend(names, name);
}

static int compare(const void *a, const void *b) {
        return strcmp(*(char *const *) a, *(char *const *) b);
}

int registry_hosts_load(const char *directory, const char *domain, RegistryHosts *ret, Error *error) {
        _cleanup_registry_hosts_ RegistryHosts hosts = {};
        _cleanup_(registry_host_done) RegistryHost origin = {.https = true};
        _cleanup_strv_free_ char **names = NULL;
        _cleanup_close_ int dir_fd = -1;
        _cleanup_free_ char *path = NULL;
        bool fallback = true;
        int r;

        if (directory)
                /* The domain passed the reference's grammar: it has no slash and is not "..". */
                for (unsigned i = 0; i < 2 && dir_fd < 0; i++) {
                        free(path);
                        path = strprintf("%s/%s", directory, i == 0 ? domain : "_default");
                        if (!path)
                                return error_oom(error);
                        dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                        if (dir_fd < 0 && errno != ENOENT && errno != ENOTDIR)
                                return error_set(error, -errno, "Cannot open %s", path);
                }
        if (dir_fd >= 0) {
                r = directory_foreach(dir_fd, ".", collect_name, &names);
                if (r < 0)
                        return error_set(error, r, "Cannot read %s", path);
                if (names)
                        qsort(names, strv_length(names), sizeof *names, compare);
        }

        r = host_set_url(&origin, streq(domain, "docker.io") ? "registry-1.docker.io" : domain);
        if (r < 0)
                return error_set(error, r, "Cannot use the registry %s", domain);

        STRV_FOREACH(name, names) {
                _cleanup_free_ char *text = NULL, *where = strprintf("%s/%s", path, *name);
                size_t size;

                if (!where)
                        return error_oom(error);
                r = read_file(dir_fd, *name, HOSTS_FILE_MAX, &text, &size);
                if (r < 0)
                        return error_set(error, r, "Cannot read %s", where);
                r = registry_hosts_parse(text, where, &hosts, &origin, &fallback, error);
                if (r < 0)
                        return r;
        }

        if (fallback || hosts.n_hosts == 0) {
                r = hosts_push(&hosts, &origin);
                if (r < 0)
                        return error_oom(error);
        }
        for (size_t i = 0; i < hosts.n_hosts; i++)
                if (!hosts.hosts[i].https_given)
                        hosts.hosts[i].https = !registry_authority_is_loopback(hosts.hosts[i].authority);

        *ret = hosts;
        hosts = (RegistryHosts){};
        return 0;
}
