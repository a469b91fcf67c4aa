/* What a new daemon finds: pods and containers on disk, their units in systemd, and what a crash left half done. Units
 * are asked side by side. Nothing that runs is touched; nothing needs to be written. */

#include <fcntl.h>
#include <signal.h>

#include "basic/file-util.h"
#include "basic/kill-point.h"
#include "basic/log.h"
#include "manager/internal.h"
#include "manager/recover.h"
#include "manager/state.h"

#define STRAY_STOP_TIMEOUT_USEC (15 * USEC_PER_SEC)

/* One object being looked at in a fiber of its own. */
typedef struct Load {
        Pod *pod;
        Container *container;
        Fiber *fiber;
} Load;

typedef struct LoadList {
        Load *loads;
        size_t n, allocated;
} LoadList;

static void load_list_done(LoadList *l) {
        for (size_t i = 0; i < l->n; i++) {
                fiber_unref(l->loads[i].fiber);
                pod_unref(l->loads[i].pod);
                container_unref(l->loads[i].container);
        }
        free(l->loads);
}

static int load_list_add(LoadList *l, Pod *pod, Container *container) {
        if (l->n == l->allocated) {
                size_t n = MAX(l->allocated * 2, (size_t) 64);
                Load *loads = reallocarray(l->loads, n, sizeof(Load));

                if (!loads)
                        return -ENOMEM;
                l->loads = loads;
                l->allocated = n;
        }
        l->loads[l->n++] = (Load) { .pod = pod_ref(pod), .container = container_ref(container) };
        return 0;
}

static int load_list_run(Manager *m, LoadList *l, FiberFunc func) {
        int r;

        for (size_t i = 0; i < l->n; i++) {
                r = fiber_spawn(m->event, "load", func, &l->loads[i], /* destroy= */ NULL, &l->loads[i].fiber);
                if (r < 0)
                        return r;
        }
        for (size_t i = 0; i < l->n; i++) {
                r = fiber_join(l->loads[i].fiber, NULL);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* One line for each thing that is wrong, as the checker has it. What cannot be mended on disk now (it is full, say) is
 * found and made again by the next start too. */
static void tell_flaws(StateKind kind, const char *id, const char *directory, StateFlaws flaws, const Error *why) {
        const char *what = kind == STATE_POD ? "Pod" : "Container";

        FOREACH_FLAW(flaw, flaws) {
                const FlawText *t = flaw_text(kind, flaw);

                if (flaw == FLAW_HALF_MADE)
                        log_info("%s %s was never begun, removing it", what, id);
                else
                        log_warning("%s %s is damaged: %s%s%s: %s. Lost: %s. It is %s", what, id, directory,
                                    *t->file ? "/" : "", t->file, strempty(why->message), t->lost, t->done);
        }
}

static int drop(Manager *m, StateKind kind, const char *id, const char *directory, StateFlaws flaws, const Error *why) {
        int r;

        tell_flaws(kind, id, directory, flaws, why);
        r = flaws & FLAW_LOST ? state_set_aside(m, kind, id) : state_remove_directory(directory);
        if (r < 0)
                log_warning_errno(r, "Cannot move %s away, ignoring", directory);
        return 0;
}

static int load_pod_directory(int dir_fd, const char *name, void *userdata) {
        Manager *m = userdata;
        _cleanup_(pod_unrefp) Pod *p = NULL;
        _cleanup_error_ Error why = ERROR_INIT, error = ERROR_INIT;
        StateFlaws flaws = 0;
        int r;

        if (startswith(name, STATE_REMOVING))
                (void) remove_tree(dir_fd, name);
        if (strlen(name) != ID_LENGTH || !is_hex(name))
                return 0;
        r = pod_new(m, name, &p);
        if (r < 0)
                return r;
        r = pod_read(p, &flaws, &why);
        if (r < 0)
                return r;
        if (!(flaws & (FLAW_LOST | FLAW_HALF_MADE)) && pod_link(p, &why) < 0)
                flaws = FLAW_LOST;
        if (flaws & (FLAW_LOST | FLAW_HALF_MADE))
                return drop(m, STATE_POD, name, p->directory, flaws, &why);
        if (flaws) {
                tell_flaws(STATE_POD, name, p->directory, flaws, &why);
                if (pod_mend(p, flaws, &error) < 0)
                        log_warning("%s, ignoring", strempty(error.message));
        }
        pod_load_resources(p);
        return 0;
}

/* Those that are there: a running container needs each of them, also when another is missing. */
static char **layers_that_are_there(const Container *c, char *const *all) {
        _cleanup_strv_free_ char **l = NULL;

        STRV_FOREACH(name, all)
                if (image_store_has_layer(c->manager->images, *name) && strv_extend(&l, *name) < 0)
                        return NULL;
        return TAKE_PTR(l);
}

static void hold_layers(Container *c) {
        _cleanup_strv_free_ char **there = NULL, **all = container_all_layers(c);
        int r;

        r = all ? image_store_hold(c->manager->images, c->id, all) : -ENOMEM;
        if (r == -ENOENT) {
                log_warning("Some of the image layers of container %s are gone: if it runs, it lacks files", c->id);
                there = layers_that_are_there(c, all);
                r = image_store_hold(c->manager->images, c->id, there);
        }
        if (r < 0)
                log_warning_errno(r, "Cannot hold the image layers of container %s, ignoring", c->id);
        c->holds_layers = r >= 0;
}

static int load_container_directory(int dir_fd, const char *name, void *userdata) {
        Manager *m = userdata;
        _cleanup_(container_unrefp) Container *c = NULL;
        _cleanup_error_ Error why = ERROR_INIT, error = ERROR_INIT;
        StateFlaws flaws = 0;
        Image *image;
        int r;

        if (startswith(name, STATE_REMOVING))
                (void) remove_tree(dir_fd, name);
        if (strlen(name) != ID_LENGTH || !is_hex(name))
                return 0;
        r = container_new(m, /* pod= */ NULL, name, &c);
        if (r < 0)
                return r;
        r = container_read(c, &flaws, &why);
        if (r < 0)
                return r;
        if (!(flaws & (FLAW_LOST | FLAW_HALF_MADE)) && container_link(c, &why) < 0)
                flaws = FLAW_LOST;
        if (flaws & (FLAW_LOST | FLAW_HALF_MADE))
                return drop(m, STATE_CONTAINER, name, c->directory, flaws, &why);
        if (flaws) {
                tell_flaws(STATE_CONTAINER, name, c->directory, flaws, &why);
                if (container_mend(c, flaws, &error) < 0)
                        log_warning("%s, ignoring", strempty(error.message));
        }
        container_load_resources(c);
        /* Without its state what the image is called now is the best guess. */
        image = image_store_find(m->images, c->image_id ? c->image_id : c->request.config.image.image);
        c->image = image ? image_ref(image) : NULL;
        if (image && !c->image_id) {
                c->image_id = strdup(image->id);
                strv_free(c->layers);
                c->layers = strv_copy(image->layers);
                if (!c->image_id || (image->layers && !c->layers))
                        return -ENOMEM;
                if (container_mend(c, flaws, &error) < 0)
                        log_warning("%s, ignoring", strempty(error.message));
        }
        hold_layers(c);
        return 0;
}

static int load_pod(void *userdata) {
        Load *l = userdata;
        Pod *p = l->pod;
        EnginePod view = pod_engine_view(p);
        EnginePodState state = {};
        _cleanup_error_ Error error = ERROR_INIT;
        _cleanup_(cni_result_done) CniResult result = {};
        int r;

        r = p->manager->engine->ops->pod_load(p->manager->engine, &view, &state, &error);
        if (r < 0) {
                log_warning("Cannot look at pod %s: %s, ignoring", p->id, strempty(error.message));
                state.running = false;
        }
        p->engine_state = state;
        /* The cache of CNI is written before an ADD begins: what is there is owed a DEL, whatever our own file says. */
        if (!pod_uses_host_network(p) && cni_cached_result(p->manager->cni, p->id, &result) >= 0) {
                bool known = p->ips;

                p->network_added = true;
                if (!known)
                        p->ips = TAKE_PTR(result.ips);
                if (!known && p->ips && p->phase != POD_STARTING && pod_state_save(p, NULL) < 0)
                        log_debug("Cannot save the addresses of pod %s, ignoring", p->id);
                p->network_json = TAKE_PTR(result.json);
        }
        if (!pod_uses_host_network(p) && !p->ips && state.running && p->manager->engine->ops->pod_addresses &&
            p->manager->engine->ops->pod_addresses(p->manager->engine, &view, &p->ips, NULL) >= 0 &&
            p->phase != POD_STARTING && pod_state_save(p, NULL) < 0)
                log_debug("Cannot save the addresses of pod %s, ignoring", p->id);
        /* What isn't known yet is told by an event. */
        if ((p->network_added || p->manager->engine->ops->pod_addresses) && state.running && state.pid > 0)
                pod_open_netns(p);
        if (p->phase == POD_READY && !state.running) {
                p->phase = POD_NOT_READY;
                /* Only so that the next start needn't find it out again. */
                (void) pod_state_save(p, NULL);
        }
        return 0;
}

static int load_container(void *userdata) {
        Load *l = userdata;
        Container *c = l->container;
        EnginePod pod;
        EngineContainer view = container_engine_view(c, &pod);
        EngineContainerState state = {};
        _cleanup_error_ Error error = ERROR_INIT;
        int r;

        if (c->phase == CONTAINER_EXITED || c->phase == CONTAINER_CREATING)
                return 0;
        r = c->manager->engine->ops->container_load(c->manager->engine, &view, &state, &error);
        if (r < 0) {
                log_warning("Cannot look at container %s: %s, ignoring", c->id, strempty(error.message));
                return 0;
        }
        container_apply_state(c, &state);
        return 0;
}

static int undo(void *userdata) {
        Load *l = userdata;

        if (l->container)
                container_undo(l->container);
        else
                pod_undo(l->pod);
        return 0;
}

/* "rktlet-pod-ID.service" or "rktlet-ctr-ID.service" with an ID we don't have. */
static bool unit_is_stray(Manager *m, const char *unit) {
        char id[ID_LENGTH + 1], kind[4], rest[16];
        Container *c;
        Pod *p;

        if (sscanf(unit, "rktlet-%3[a-z]-%64[0-9a-f]%15s", kind, id, rest) != 3 || strlen(id) != ID_LENGTH ||
            !streq(rest, ".service"))
                return false;
        if (streq(kind, "pod")) {
                HASH_FIND(hh, m->pods, id, ID_LENGTH, p);
                return !p;
        }
        if (streq(kind, "ctr")) {
                HASH_FIND(hh, m->containers, id, ID_LENGTH, c);
                return !c;
        }
        return false;
}

static void remove_stray_units(Manager *m) {
        static const char *const patterns[] = { "rktlet-pod-*.service", "rktlet-ctr-*.service" };

        for (size_t i = 0; i < ELEMENTSOF(patterns); i++) {
                _cleanup_error_ Error error = ERROR_INIT;
                UnitInfo *units = NULL;
                size_t n = 0;

                if (systemd_list_units(m->systemd, patterns[i], &units, &n, &error) < 0) {
                        log_warning("Cannot list units: %s, ignoring", strempty(error.message));
                        return;
                }
                for (size_t j = 0; j < n; j++) {
                        _cleanup_error_ Error stop_error = ERROR_INIT;

                        if (!unit_is_stray(m, units[j].name))
                                continue;
                        log_notice("Stopping %s, which belongs to no pod or container", units[j].name);
                        (void) unit_kill(m->systemd, units[j].name, "all", SIGKILL, NULL);
                        if (unit_release_wait(m->systemd, units[j].name, STRAY_STOP_TIMEOUT_USEC, &stop_error) < 0)
                                log_warning("Cannot stop %s: %s, ignoring", units[j].name, strempty(stop_error.message));
                        KILL_POINT_OF("load.stray-unit", units[j].name);
                }
                unit_info_free_array(units, n);
        }
}

/* Slices that we made for pods we don't have. */
static void remove_stray_slices(Manager *m) {
        const char *stem = m->config.default_slice;
        int n_stem = (int) strcspn(stem, ".");
        _cleanup_free_ char *pattern = strprintf("%.*s-*.slice", n_stem, stem);
        UnitInfo *units = NULL;
        size_t n = 0;

        if (!pattern || systemd_list_units(m->systemd, pattern, &units, &n, NULL) < 0)
                return;
        for (size_t i = 0; i < n; i++) {
                const char *id = units[i].name + n_stem + 1, *end = endswith(id, ".slice");
                Pod *p;

                if (!end || end - id != ID_LENGTH || strspn(id, "0123456789abcdef") != ID_LENGTH)
                        continue;
                HASH_FIND(hh, m->pods, id, ID_LENGTH, p);
                if (!p && unit_stop_wait(m->systemd, units[i].name, STRAY_STOP_TIMEOUT_USEC, NULL) < 0)
                        log_debug("Cannot stop %s, ignoring", units[i].name);
        }
        unit_info_free_array(units, n);
}

static int remove_stray_pod_directory(int dir_fd, const char *name, void *userdata) {
        Manager *m = userdata;
        Pod *p;

        HASH_FIND(hh, m->pods, name, strlen(name), p);
        if (!p)
                (void) remove_tree(dir_fd, name);
        return 0;
}

static int remove_stray_container_directory(int dir_fd, const char *name, void *userdata) {
        Manager *m = userdata;
        Container *c;

        HASH_FIND(hh, m->containers, name, strlen(name), c);
        if (!c)
                (void) remove_tree(dir_fd, name);
        return 0;
}

/* What OCI runtimes remember of containers, a directory a runtime. */
static int remove_stray_runtime_state(int dir_fd, const char *name, void *userdata) {
        (void) directory_foreach(dir_fd, name, remove_stray_container_directory, userdata);
        return 0;
}

static bool pod_is_known(const char *id, void *userdata) {
        Manager *m = userdata;
        Pod *p;

        HASH_FIND(hh, m->pods, id, strlen(id), p);
        return p;
}

static int foreach_in(const char *base, const char *name, int (*func)(int, const char *, void *), Manager *m, Error *error) {
        _cleanup_free_ char *path = strprintf("%s/%s", base, name);
        int r;

        if (!path)
                return error_oom(error);
        r = directory_foreach(AT_FDCWD, path, func, m);
        if (r < 0 && r != -ENOENT)
                return error_set(error, r, "cannot read %s", path);
        return 0;
}

/* What a crash left over; the pods are served meanwhile. */
static void load_clean_up(Manager *m) {
        _cleanup_error_ Error error = ERROR_INIT, image_error = ERROR_INIT, engine_error = ERROR_INIT;

        KILL_POINT("load.undone");
        remove_stray_units(m);
        remove_stray_slices(m);
        if (m->engine->ops->collect && m->engine->ops->collect(m->engine, pod_is_known, m, &engine_error) < 0)
                log_warning("Cannot clean up pods: %s, ignoring", strempty(engine_error.message));
        if (cni_collect(m->cni, pod_is_known, m, &error) < 0)
                log_warning("Cannot clean up networks: %s, ignoring", strempty(error.message));
        KILL_POINT("load.networks");
        (void) foreach_in(m->config.run_directory, "pods", remove_stray_pod_directory, m, NULL);
        (void) foreach_in(m->config.run_directory, "containers", remove_stray_container_directory, m, NULL);
        (void) foreach_in(m->config.run_directory, "crun", remove_stray_container_directory, m, NULL);
        (void) foreach_in(m->config.run_directory, "runtimes", remove_stray_runtime_state, m, NULL);
        KILL_POINT("load.directories");
        if (image_store_collect(m->images, &image_error) < 0)
                log_warning("Cannot clean up images: %s, ignoring", strempty(image_error.message));
        KILL_POINT("load.images");
}

int manager_load(Manager *m, Error *error) {
        _cleanup_(load_list_done) LoadList pods = {}, containers = {}, half_done = {}, half_done_pods = {};
        _cleanup_error_ Error image_error = ERROR_INIT, begin_error = ERROR_INIT;
        Container *c, *next_container;
        Pod *p, *next_pod;
        int r;

        /* Without them the containers are as they are, only shown without their image's name. */
        r = image_store_refresh(m->images, &image_error);
        if (r < 0)
                log_warning("%s, ignoring", strempty(image_error.message));
        if (m->engine->ops->recover) {
                _cleanup_error_ Error recover_error = ERROR_INIT;

                if (m->engine->ops->recover(m->engine, m->config.state_directory, &recover_error) < 0)
                        log_warning("Cannot look for pods that only the engine knows: %s, ignoring",
                                    strempty(recover_error.message));
        }
        r = foreach_in(m->config.state_directory, "pods", load_pod_directory, m, error);
        if (r < 0)
                return r;
        r = foreach_in(m->config.state_directory, "containers", load_container_directory, m, error);
        if (r < 0)
                return r;

        KILL_POINT("load.read");
        HASH_ITER(hh, m->pods, p, next_pod) {
                r = load_list_add(&pods, p, NULL);
                /* Told before anybody can ask for the name again: who does waits until it is free. */
                p->undoing = p->phase == POD_STARTING;
                if (r >= 0 && p->undoing)
                        r = load_list_add(&half_done_pods, p, NULL);
                if (r < 0)
                        return error_oom(error);
        }
        HASH_ITER(hh, m->containers, c, next_container) {
                r = load_list_add(&containers, NULL, c);
                c->undoing = c->phase == CONTAINER_CREATING;
                if (r >= 0 && c->undoing)
                        r = load_list_add(&half_done, NULL, c);
                if (r < 0)
                        return error_oom(error);
        }
        if (m->engine->ops->load_begin && m->engine->ops->load_begin(m->engine, &begin_error) < 0)
                log_warning("Cannot look at all pods and containers at once: %s; looking at each",
                            strempty(begin_error.message));
        r = load_list_run(m, &pods, load_pod);
        if (r >= 0)
                r = load_list_run(m, &containers, load_container);
        if (m->engine->ops->load_end)
                m->engine->ops->load_end(m->engine);
        if (r < 0)
                return error_set(error, r, "cannot look at pods and containers");

        KILL_POINT("load.looked");
        m->loaded = true;
        fiber_queue_wake(&m->load_queue, 0);

        r = load_list_run(m, &half_done, undo);
        if (r >= 0)
                r = load_list_run(m, &half_done_pods, undo);
        if (r < 0)
                return error_set(error, r, "cannot undo what was half done");
        load_clean_up(m);
        return 0;
}
