#include "manager/check.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "basic/layout.h"
#include "manager/internal.h"
#include "manager/recover.h"
#include "manager/state.h"

typedef struct Context {
        Manager *m;
        Cni *cni;
        Check *check;
        StateKind kind;
        char **layers;
        bool sure;
} Context;

static const char *kind_name(StateKind kind) {
        return kind == STATE_POD ? "pods" : "containers";
}

static bool is_id(const char *name) {
        return strlen(name) == ID_LENGTH && is_hex(name);
}

/* One line for each flaw, and the mending of all of them: r is how it went. */
static void report(Context *c, const char *directory, StateFlaws flaws, const Error *why, int r) {
        FOREACH_FLAW(flaw, flaws) {
                const FlawText *t = flaw_text(c->kind, flaw);
                _cleanup_free_ char *path = strprintf("%s%s%s", directory, *t->file ? "/" : "", t->file);

                check_found(c->check, path ? path : directory, strempty(why->message), t->lost, t->done, r);
        }
}

static int drop(Context *c, const char *id, const char *directory, StateFlaws flaws) {
        if (!c->check->repair)
                return 0;
        return MIN(flaws & FLAW_LOST ? state_set_aside(c->m, c->kind, id) : state_remove_directory(directory), 0);
}

static int look_at_pod(Context *c, const char *id) {
        _cleanup_error_ Error why = ERROR_INIT;
        _cleanup_(pod_unrefp) Pod *p = NULL;
        StateFlaws flaws = 0;
        int r;

        r = pod_new(c->m, id, &p);
        if (r >= 0)
                r = pod_read(p, &flaws, &why);
        if (r < 0)
                return r;
        if (!(flaws & (FLAW_LOST | FLAW_HALF_MADE)) && pod_link(p, &why) < 0)
                flaws = FLAW_LOST;
        if (c->check->in_use && ((flaws & FLAW_HALF_MADE) || access(p->directory, F_OK) < 0))
                return 0;
        if (flaws & (FLAW_LOST | FLAW_HALF_MADE))
                r = drop(c, id, p->directory, flaws);
        else if (flaws && c->check->repair) {
                CniResult result = {};

                /* The state had its addresses, the CNI result has them too. */
                if ((flaws & FLAW_STATE) && c->cni && cni_cached_result(c->cni, p->id, &result) >= 0 && !p->ips)
                        p->ips = TAKE_PTR(result.ips);
                cni_result_done(&result);
                r = pod_mend(p, flaws, NULL);
        }
        report(c, p->directory, flaws, &why, r);
        return check_temporaries(c->check, p->directory);
}

static int look_at_upper(Context *c, const Container *k) {
        _cleanup_free_ char *path = strprintf("%s/upper", k->directory);
        struct stat st;

        if (!path)
                return -ENOMEM;
        if (k->phase == CONTAINER_CREATING || c->check->in_use || !k->layers || (lstat(path, &st) >= 0 && S_ISDIR(st.st_mode)))
                return 0;
        check_found(c->check, path, "the container's writable layer is gone", "what the container has written (if it runs, it "
                    "goes on); remove the container", NULL, 0);
        return 0;
}

static int look_at_container(Context *c, const char *id) {
        _cleanup_(container_unrefp) Container *k = NULL;
        _cleanup_error_ Error why = ERROR_INIT;
        StateFlaws flaws = 0;
        int r;

        r = container_new(c->m, NULL, id, &k);
        if (r >= 0)
                r = container_read(k, &flaws, &why);
        if (r < 0)
                return r;
        if (!(flaws & (FLAW_LOST | FLAW_HALF_MADE)) && container_link(k, &why) < 0)
                flaws = FLAW_LOST;
        if (c->check->in_use && ((flaws & FLAW_HALF_MADE) || access(k->directory, F_OK) < 0))
                return 0;
        if (flaws & (FLAW_LOST | FLAW_HALF_MADE))
                r = drop(c, id, k->directory, flaws);
        else
                r = flaws && c->check->repair ? container_mend(k, flaws, NULL) : 0;
        report(c, k->directory, flaws, &why, r);
        c->sure = c->sure && !(flaws & FLAW_STATE);
        if (flaws & (FLAW_LOST | FLAW_HALF_MADE))
                return 0;
        STRV_FOREACH(l, k->layers) {
                r = strv_contains(c->layers, *l) ? 0 : strv_extend(&c->layers, *l);
                if (r < 0)
                        return r;
        }
        r = look_at_upper(c, k);
        return r < 0 ? r : check_temporaries(c->check, k->directory);
}

static int look_at(int dir_fd, const char *name, void *userdata) {
        _cleanup_free_ char *path = NULL;
        Context *c = userdata;

        if (is_id(name)) {
                c->check->n_looked++;
                return c->kind == STATE_POD ? look_at_pod(c, name) : look_at_container(c, name);
        }
        if (c->check->in_use)
                return 0;
        path = strprintf("%s/%s/%s", c->m->config.state_directory, kind_name(c->kind), name);
        if (!path)
                return -ENOMEM;
        if (startswith(name, STATE_REMOVING))
                check_found(c->check, path, "its removal was cut off", "nothing", "removed",
                            c->check->repair ? remove_tree(dir_fd, name) : 0);
        else
                check_note(c->check, path, "this is not rktlet's, and left alone");
        return 0;
}

static int look_at_folder(Context *c, StateKind kind, Error *error) {
        _cleanup_free_ char *path = strprintf("%s/%s", c->m->config.state_directory, kind_name(kind));
        int r;

        if (!path)
                return error_oom(error);
        c->kind = kind;
        r = directory_foreach(AT_FDCWD, path, look_at, c);
        if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP)
                check_found(c->check, path, "this is no directory, or missing", kind == STATE_POD ? "all pods" : "all containers",
                            "made anew, what was there moved aside", c->check->repair ? MIN(layout_make_directory(AT_FDCWD, path, 0700), 0) : 0);
        else if (r < 0)
                return error_set(error, r, "Cannot check %s", path);
        return 0;
}

/* --- what runs on without its files, and files without what runs ------------------------------------------------ */

static int look_at_run(int dir_fd, const char *name, void *userdata) {
        _cleanup_free_ char *path = NULL;
        Context *c = userdata;
        Container *k = NULL;
        Pod *p = NULL;

        if (!is_id(name))
                return 0;
        if (c->kind == STATE_POD)
                HASH_FIND(hh, c->m->pods, name, ID_LENGTH, p);
        else
                HASH_FIND(hh, c->m->containers, name, ID_LENGTH, k);
        if (p || k)
                return 0;
        path = strprintf("%s/%s/%s", c->m->config.run_directory, kind_name(c->kind), name);
        if (!path)
                return -ENOMEM;
        check_found(c->check, path, "it belongs to nothing rktlet knows", "nothing", "removed",
                    c->check->repair ? remove_tree(dir_fd, name) : 0);
        return 0;
}

static int look_at_damaged(int dir_fd, const char *name, void *userdata) {
        Context *c = userdata;
        _cleanup_free_ char *path = strprintf("%s/damaged/%s", c->m->config.state_directory, name);

        if (!path)
                return -ENOMEM;
        check_note(c->check, path, "this was damaged beyond use and set aside; when nobody wants to look at it, remove it");
        return 0;
}

static int foreach_below(const char *base, const char *name, int (*func)(int, const char *, void *), Context *c) {
        _cleanup_free_ char *path = strprintf("%s/%s", base, name);
        int r;

        if (!path)
                return -ENOMEM;
        r = directory_foreach(AT_FDCWD, path, func, c);
        return r == -ENOMEM ? r : 0;
}

/* --- networks ---------------------------------------------------------------------------------------------------- */

static int look_at_network(Context *c, Pod *p) {
        _cleanup_free_ char *path = NULL;
        CniResult result = {};
        CniPod pod;
        int r;

        if (pod_uses_host_network(p) || !p->network_added || p->phase == POD_STARTING)
                return 0;
        r = cni_cached_result(c->cni, p->id, &result);
        cni_result_done(&result);
        if (r >= 0 || r == -ENOMEM || (c->check->in_use && access(p->directory, F_OK) < 0))
                return MIN(r, 0);
        path = strprintf("%s/cni/%s.json", c->m->config.state_directory, p->id);
        if (!path)
                return -ENOMEM;
        pod = (CniPod) {
                .id = p->id,
                .name = p->request.config.metadata.name,
                .namespace_ = p->request.config.metadata.namespace,
                .uid = p->request.config.metadata.uid,
        };
        check_found(c->check, path, r == -ENOENT ? "the CNI result of a pod is missing" : "the CNI result of a pod is damaged",
                    "what plugins are told of earlier when they take the pod away",
                    "made again from the network that is configured now",
                    c->check->repair ? cni_make_cache_again(c->cni, &pod, p->ips, NULL) : 0);
        return 0;
}

static int look_at_cache(int dir_fd, const char *name, void *userdata) {
        const char *suffix = endswith(name, ".json");
        _cleanup_free_ char *path = NULL, *id = NULL;
        Context *c = userdata;
        Pod *p;

        if (!suffix || check_is_temporary(name))
                return 0;
        c->check->n_looked++;
        id = strndup(name, (size_t) (suffix - name));
        path = strprintf("%s/cni/%s", c->m->config.state_directory, name);
        if (!id || !path)
                return -ENOMEM;
        HASH_FIND(hh, c->m->pods, id, strlen(id), p);
        if (!p)
                check_note(c->check, path, "its pod is gone; rktlet gives its addresses back when it starts");
        return 0;
}

static int look_at_networks(Context *c) {
        _cleanup_free_ char *path = strprintf("%s/cni", c->m->config.state_directory);
        Pod *p, *next;
        int r;

        if (!path)
                return -ENOMEM;
        HASH_ITER(hh, c->m->pods, p, next) {
                r = look_at_network(c, p);
                if (r < 0)
                        return r;
        }
        if (!c->check->in_use) {
                r = foreach_below(path, ".", look_at_cache, c);
                if (r < 0)
                        return r;
        }
        return check_temporaries(c->check, path);
}

/* --- all of it --------------------------------------------------------------------------------------------------- */

static int look_at_version(Context *c, Error *error) {
        const char *directory = c->m->config.state_directory;
        _cleanup_free_ char *path = strprintf("%s/" LAYOUT_FILE, directory);
        _cleanup_error_ Error why = ERROR_INIT;
        _cleanup_close_ int fd = open_directory(AT_FDCWD, directory);
        unsigned version = 0;
        int r;

        if (!path)
                return error_oom(error);
        if (fd < 0)
                return error_set(error, fd, "Cannot open %s", directory);
        r = layout_read(fd, &version, &why);
        /* A later one is refused here, and an earlier one is no damage. */
        if (r > 0 && version > STATE_VERSION)
                return state_open(directory, error);
        if (r < 0)
                check_found(c->check, path, strempty(why.message), "nothing: each file says its version too", "written again",
                            c->check->repair ? state_open(directory, NULL) : 0);
        return 0;
}

int manager_check(const ManagerConfig *config, Cni *cni, Check *check, char ***ret_layers, bool *ret_sure, Error *error) {
        Manager m = { .config = *config };
        Context c = { .m = &m, .cni = cni, .check = check, .sure = true };
        Container *k, *next_container;
        Pod *p, *next_pod;
        int r;

        r = look_at_version(&c, error);
        if (r >= 0)
                r = look_at_folder(&c, STATE_POD, error);
        if (r >= 0)
                r = look_at_folder(&c, STATE_CONTAINER, error);
        if (r >= 0 && cni)
                r = look_at_networks(&c);
        for (StateKind kind = STATE_POD; r >= 0 && !check->in_use && kind <= STATE_CONTAINER; kind++) {
                c.kind = kind;
                r = foreach_below(config->run_directory, kind_name(kind), look_at_run, &c);
        }
        if (r >= 0)
                r = foreach_below(config->state_directory, "damaged", look_at_damaged, &c);
        if (r >= 0)
                r = check_temporaries(check, config->state_directory);

        HASH_ITER(hh, m.containers, k, next_container)
                container_unlink(k);
        HASH_ITER(hh, m.pods, p, next_pod)
                pod_unlink(p);
        if (r < 0) {
                strv_free(c.layers);
                return error_set(error, r, "Cannot check %s", config->state_directory);
        }
        *ret_layers = c.layers;
        *ret_sure = c.sure;
        return 0;
}
