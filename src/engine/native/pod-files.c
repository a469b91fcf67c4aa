/* What a pod's containers see of it as files: its name, its hosts, its name servers; and its sysctls. */

#include <fcntl.h>

#include "basic/file-util.h"
#include "engine/native/internal.h"

#define HOST_FILE_MAX (1024U * 1024U)
#define SYSCTLS_MAX 64U /* as many as the pod process takes */

void pod_files_done(OciPodFiles *f) {
        free((char *) f->hostname);
        free((char *) f->hosts);
        free((char *) f->resolv_conf);
        free((char *) f->shm);
        *f = (OciPodFiles) {};
}

int pod_files_paths(const EnginePod *pod, OciPodFiles *ret) {
        OciPodFiles f = {
                .hostname = strprintf("%s/hostname", pod->run_directory),
                .hosts = strprintf("%s/hosts", pod->run_directory),
                .resolv_conf = strprintf("%s/resolv.conf", pod->run_directory),
                .shm = pod_has_ipc(pod) ? strprintf("%s/shm", pod->run_directory) : strdup("/dev/shm"),
        };

        if (!f.hostname || !f.hosts || !f.resolv_conf || !f.shm) {
                pod_files_done(&f);
                return -ENOMEM;
        }
        *ret = f;
        return 0;
}

/* A word of resolv.conf: what would end it, or the line, is refused. */
static int check_words(char *const *words, size_t n, const char *what, Error *error) {
        for (size_t i = 0; i < n; i++) {
                for (const char *s = words[i]; *s; s++)
                        if ((unsigned char) *s <= ' ' || *s == 0x7f)
                                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                                  "a %s of the DNS configuration has a blank or control character",
                                                  what);
                if (!words[i][0])
                        return error_setf(error, GRPC_INVALID_ARGUMENT, "a %s of the DNS configuration is empty",
                                          what);
        }
        return 0;
}

static int add_line(Buffer *b, const char *keyword, char *const *words, size_t n) {
        int r = n > 0 ? buffer_appendf(b, "%s", keyword) : 0;

        for (size_t i = 0; r >= 0 && i < n; i++)
                r = buffer_appendf(b, " %s", words[i]);
        return r < 0 || n == 0 ? r : buffer_appendf(b, "\n");
}

static int make_resolv_conf(const runtime_v1_DNSConfig *dns, Buffer *b, Error *error) {
        int r;

        r = check_words(dns->searches, dns->searches_count, "search domain", error);
        if (r >= 0)
                r = check_words(dns->servers, dns->servers_count, "server", error);
        if (r >= 0)
                r = check_words(dns->options, dns->options_count, "option", error);
        if (r < 0)
                return r;
        r = add_line(b, "search", dns->searches, dns->searches_count);
        for (size_t i = 0; r >= 0 && i < dns->servers_count; i++)
                r = buffer_appendf(b, "nameserver %s\n", dns->servers[i]);
        if (r >= 0)
                r = add_line(b, "options", dns->options, dns->options_count);
        return r < 0 ? error_oom(error) : 0;
}

/* The host's file as it is now; without one, an empty one. */
static int copy_host_file(const char *path, Buffer *b, Error *error) {
        _cleanup_free_ char *text = NULL;
        size_t size;
        int r;

        r = read_file(AT_FDCWD, path, HOST_FILE_MAX, &text, &size);
        if (r == -ENOENT)
                return 0;
        if (r < 0)
                return error_set(error, r, "cannot read %s", path);
        return buffer_append(b, text, size) < 0 ? error_oom(error) : 0;
}

static int write_run_file(int dir_fd, const char *name, const Buffer *b, Error *error) {
        int r;

        r = write_file_atomic(dir_fd, name, b->data ?: "", b->size, 0644, 0);
        return r < 0 ? error_set(error, r, "cannot write %s of the pod", name) : 0;
}

static int write_hostname(const EnginePod *pod, int dir_fd, Error *error) {
        _cleanup_(buffer_done) Buffer b = BUFFER_INIT;
        _cleanup_free_ char *hostname = pod_hostname(pod);

        if (!hostname || buffer_appendf(&b, "%s\n", hostname) < 0)
                return error_oom(error);
        return write_run_file(dir_fd, "hostname", &b, error);
}

static int write_hosts(int dir_fd, Error *error) {
        _cleanup_(buffer_done) Buffer b = BUFFER_INIT;
        int r;

        r = copy_host_file("/etc/hosts", &b, error);
        if (r < 0)
                return r;
        return write_run_file(dir_fd, "hosts", &b, error);
}

static int write_resolv_conf(const EnginePod *pod, int dir_fd, Error *error) {
        _cleanup_(buffer_done) Buffer b = BUFFER_INIT;
        int r = 0;

        if (pod->config->has_dns_config)
                r = make_resolv_conf(&pod->config->dns_config, &b, error);
        if (r >= 0 && b.size == 0)
                r = copy_host_file("/etc/resolv.conf", &b, error);
        if (r < 0)
                return r;
        return write_run_file(dir_fd, "resolv.conf", &b, error);
}

int pod_files_write(const EnginePod *pod, Error *error) {
        _cleanup_close_ int dir_fd = -1;
        int r;

        dir_fd = open_directory(AT_FDCWD, pod->run_directory);
        if (dir_fd < 0)
                return error_set(error, dir_fd, "cannot open %s", pod->run_directory);
        r = write_hostname(pod, dir_fd, error);
        if (r >= 0)
                r = write_hosts(dir_fd, error);
        if (r >= 0)
                r = write_resolv_conf(pod, dir_fd, error);
        return r;
}

/* --- sysctls ----------------------------------------------------------------------------------------------------- */

/* "net.ipv4.ip_forward" or "net/ipv4/conf/eth0.1/forwarding": the first separator decides, as in sysctl.d(5). The
 * result has slashes. NULL when it is none. */
static char *sysctl_path(const char *name) {
        char separator = name[strcspn(name, "./")], *path;

        if (!separator || strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./@:") !=
                                  strlen(name))
                return NULL;
        path = strdup(name);
        for (char *s = path; s && *s; s++)
                if (separator == '.' && (*s == '.' || *s == '/'))
                        *s = *s == '.' ? '/' : '.';
        return path;
}

/* No empty component, none of dots alone. */
static bool components_are_fine(const char *path) {
        for (const char *s = path;;) {
                size_t n = strcspn(s, "/");

                if (n == 0 || strspn(s, ".") >= n)
                        return false;
                if (!s[n])
                        return true;
                s += n + 1;
        }
}

static bool is_ipc_sysctl(const char *path) {
        static const char *const names[] = {
                "kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall", "kernel/shmmax",
                "kernel/shmmni", "kernel/shm_rmid_forced",
        };

        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                if (streq(path, names[i]))
                        return true;
        return startswith(path, "fs/mqueue/") != NULL;
}

static int check_sysctl(const EnginePod *pod, const char *name, const char *path, const char *value, Error *error) {
        if (!path || strlen(path) > 256 || !components_are_fine(path))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "'%.64s' is no name of a sysctl", name);
        for (const char *s = value; *s; s++)
                if (((unsigned char) *s < ' ' && *s != '\t') || *s == 0x7f || *s == '+' || *s == '=')
                        return error_setf(error, GRPC_INVALID_ARGUMENT,
                                          "the value of sysctl %s has a control character, '+' or '='", name);
        if (strlen(value) > 1024)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "the value of sysctl %s is longer than 1024 bytes",
                                  name);
        if (startswith(path, "net/")) {
                if (!pod_has_network(pod))
                        return error_setf(error, GRPC_INVALID_ARGUMENT,
                                          "sysctl %s can't be set: the pod has the host's network", name);
                return 0;
        }
        if (is_ipc_sysctl(path)) {
                if (!pod_has_ipc(pod))
                        return error_setf(error, GRPC_INVALID_ARGUMENT,
                                          "sysctl %s can't be set: the pod has the host's IPC namespace", name);
                return 0;
        }
        return error_setf(error, GRPC_INVALID_ARGUMENT, "sysctl %s belongs to the node, not to a pod", name);
}

int pod_sysctl_arguments(const EnginePod *pod, char ***argv, Error *error) {
        const runtime_v1_PodSandboxConfig *config = pod->config;
        int r;

        if (!config->has_linux)
                return 0;
        if (config->linux.sysctls_count > SYSCTLS_MAX)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "more than %u sysctls", SYSCTLS_MAX);
        for (size_t i = 0; i < config->linux.sysctls_count; i++) {
                const char *name = strempty(config->linux.sysctls[i].key),
                           *value = strempty(config->linux.sysctls[i].value);
                _cleanup_free_ char *path = sysctl_path(name);

                r = check_sysctl(pod, name, path, value, error);
                if (r < 0)
                        return r;
                r = strv_extendf(argv, "--sysctl=%s=%s", path, value);
                if (r < 0)
                        return error_oom(error);
        }
        return 0;
}
