/* Networks are rkt's own business: which one pods get, and what addresses came of it. */

#include <dirent.h>
#include <fcntl.h>

#include "basic/file-util.h"
#include "engine/rkt/internal.h"

#define CONF_MAX (64U * 1024U)

static int is_conf(const struct dirent *d) {
        return d->d_name[0] != '.' && endswith(d->d_name, ".conf");
}

static int read_name(const Rkt *rkt, int dir_fd, const char *file, char **ret, Error *error) {
        _cleanup_json_ json_t *o = NULL;
        _cleanup_free_ char *text = NULL;
        const char *name;
        size_t size;
        int r;

        r = read_file(dir_fd, file, CONF_MAX, &text, &size);
        if (r < 0)
                return error_set(error, r, "cannot read %s/%s", rkt->network_directory, file);
        r = json_parse(text, size, &o, error);
        if (r < 0)
                return error_prefix(error, r, "%s/%s is no network configuration", rkt->network_directory, file);
        name = json_get_string(o, "name");
        if (isempty(name) || strpbrk(name, ",:= "))
                return error_setf(error, GRPC_FAILED_PRECONDITION, "the network in %s/%s has no usable name",
                                  rkt->network_directory, file);
        *ret = strdup(name);
        return *ret ? 0 : error_oom(error);
}

int rkt_network_name(const Rkt *rkt, char **ret, Error *error) {
        _cleanup_close_ int fd = open(rkt->network_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        struct dirent **names;
        int n, r;

        n = fd < 0 ? -1 : scandirat(fd, ".", &names, is_conf, alphasort);
        if (n < 0 && errno != ENOENT)
                return error_set(error, -errno, "cannot read %s", rkt->network_directory);
        if (n <= 0) {
                if (n == 0)
                        free(names);
                return error_setf(error, GRPC_FAILED_PRECONDITION,
                                  "no network for pods: there is no *.conf of rkt in %s", rkt->network_directory);
        }
        r = read_name(rkt, fd, names[0]->d_name, ret, error);
        for (int i = 0; i < n; i++)
                free(names[i]);
        free(names);
        return r;
}

int rkt_network_status(Engine *engine, Error *error) {
        _cleanup_free_ char *name = NULL;

        return rkt_network_name(&rkt_engine(engine)->rkt, &name, error);
}

int rkt_pod_get_addresses(Engine *engine, const EnginePod *pod, char ***ret, Error *error) {
        RktEngine *e = rkt_engine(engine);
        RktPod *p = rkt_pod_find(e, pod->id);
        _cleanup_json_ json_t *o = NULL;
        int r;

        if (!p || !p->uuid)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "pod %s is not running", pod->id);
        r = rkt_pod_query(&e->rkt, p->uuid, /* wait_ready_usec= */ 0, &o, error);
        if (r < 0)
                return r;
        return rkt_pod_addresses(o, ret) < 0 ? error_oom(error) : 0;
}
