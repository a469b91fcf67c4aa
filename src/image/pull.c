/* Pulling an image: what the reference means now, the manifest for this machine, its config, its layers side by side,
 * and then, all at once, the image. */

#include <openssl/evp.h>

#include "basic/kill-point.h"
#include "basic/log.h"
#include "image/manifest.h"
#include "image/store.h"
#include "image/verify.h"

/* An index may name an index. */
#define INDEX_DEPTH_MAX 3U

typedef struct Pull {
        unsigned n_ref;
        LayerStore *store;
        RegistrySession *session;
        ImageReference reference;
        char *name; /* the reference in full, for who looks on */
        char key[72]; /* reference and credentials, hashed: who may not pull must not profit from who may */
        Fiber *fiber;
        FiberQueue queue;
        unsigned n_waiters;
        bool done;
        int result;
        Error error;
        Image *image;
        const struct Plan *plan; /* while the fiber runs */
} Pull;

static Pull *pull_unref(Pull *p) {
        if (!p || --p->n_ref > 0)
                return NULL;
        registry_session_unref(p->session);
        image_reference_done(&p->reference);
        free(p->name);
        fiber_unref(p->fiber);
        error_clear(&p->error);
        image_unref(p->image);
        store_unref(p->store);
        free(p);
        return NULL;
}
DEFINE_TRIVIAL_CLEANUP_FUNC(Pull *, pull_unref);

/* What is known about the image while it is pulled. */
typedef struct Plan {
        RegistryDocument top, manifest_document, config_document;
        bool via_index;
        ImageManifest manifest;
        char **diff_ids;
        char (*chains)[72];
        ImageLayer **layers;
        size_t n_layers;
        StoredImage *image;
} Plan;

static void plan_done(Plan *p) {
        registry_document_done(&p->top);
        registry_document_done(&p->manifest_document);
        registry_document_done(&p->config_document);
        image_manifest_done(&p->manifest);
        strv_free(p->diff_ids);
        free(p->chains);
        layers_unuse(p->layers, p->n_layers);
        stored_image_free(p->image);
}

static char *tag_name(const Pull *p) {
        return strprintf("%s:%s", p->reference.name, p->reference.tag);
}

static char *digest_name(const Pull *p, const char *digest) {
        return strprintf("%s@%s", p->reference.name, digest);
}

/* An image we have already, if the registry says that the reference still means it (and we may have it). */
static int pull_unchanged(Pull *p, Image **ret) {
        _cleanup_free_ char *name = NULL, *digest = NULL, *known = NULL;
        Image *image;
        int r;

        name = p->reference.digest ? digest_name(p, p->reference.digest) : tag_name(p);
        if (!name)
                return -ENOMEM;
        if (!layer_store_find(&p->store->base, name))
                return 0;
        r = registry_head_manifest(p->session, p->reference.digest ? p->reference.digest : p->reference.tag, &digest,
                                   NULL);
        if (r == -ECANCELED || r == -ETIME)
                return r;
        /* Whatever else: the full request tells more. */
        if (r < 0 || (!digest && !p->reference.digest))
                return 0;
        known = digest_name(p, p->reference.digest ? p->reference.digest : digest);
        if (!known)
                return -ENOMEM;
        image = layer_store_find(&p->store->base, name);
        if (!image || !strv_contains(image->repo_digests, known))
                return 0;
        *ret = image_ref(image);
        return 1;
}

static int pull_manifest(Pull *p, Plan *plan, Error *error) {
        const char *what = p->reference.digest ? p->reference.digest : p->reference.tag;
        ImagePlatform platform;
        int r;

        image_platform_host(&platform);
        r = registry_get_manifest(p->session, what, &plan->top, error);
        if (r < 0)
                return r;
        r = image_manifest_parse(plan->top.text, plan->top.size, plan->top.content_type, NULL, &platform,
                                 &plan->manifest, error);
        for (unsigned depth = 0; r >= 0 && plan->manifest.is_index; depth++) {
                _cleanup_image_manifest_ ImageManifest index = plan->manifest;

                plan->manifest = (ImageManifest){};
                if (depth >= INDEX_DEPTH_MAX)
                        return error_setf(error, GRPC_DATA_LOSS, "The image's index leads to another index too often");
                registry_document_done(&plan->manifest_document);
                plan->via_index = true;
                r = registry_get_manifest(p->session, index.chosen.digest, &plan->manifest_document, error);
                if (r < 0)
                        return r;
                if (plan->manifest_document.size != index.chosen.size)
                        return error_setf(error, GRPC_DATA_LOSS,
                                          "The image's manifest has %zu bytes, its index says %llu",
                                          plan->manifest_document.size, (unsigned long long) index.chosen.size);
                r = image_manifest_parse(plan->manifest_document.text, plan->manifest_document.size,
                                         plan->manifest_document.content_type, index.chosen.media_type, &platform,
                                         &plan->manifest, error);
        }
        return r;
}

static int make_chains(Plan *plan, Error *error) {
        int r = image_chains(plan->diff_ids, &plan->chains);

        return r < 0 ? error_set(error, r, "Cannot hash the layers' names") : 0;
}

static int pull_config(Pull *p, Plan *plan, Error *error) {
        const ImageDescriptor *d = &plan->manifest.config;
        RegistryDocument *doc = &plan->config_document;
        _cleanup_(stored_image_freep) StoredImage *i = calloc(1, sizeof *i);
        ImagePlatform platform;
        int r;

        if (!i)
                return error_oom(error);
        i->image.n_ref = 1;
        i->image.destroy = stored_image_destroy;
        r = registry_get_blob(p->session, d->digest, d->size, doc, error);
        if (r < 0)
                return r;
        r = image_config_parse(doc->text, doc->size, &i->image.config, &plan->diff_ids, error);
        if (r < 0)
                return r;
        if (strv_length(plan->diff_ids) != plan->manifest.n_layers)
                return error_setf(error, GRPC_DATA_LOSS, "The image's manifest has %zu layers, its config %zu",
                                  plan->manifest.n_layers, strv_length(plan->diff_ids));

        image_platform_host(&platform);
        if (image_platform_rank(&platform, i->image.config.os, i->image.config.architecture, i->image.config.variant) <
            0)
                return error_setf(error, GRPC_NOT_FOUND, "The image is for %s/%s, and this node is %s/%s",
                                  strempty(i->image.config.os), strempty(i->image.config.architecture), platform.os,
                                  platform.architecture);
        plan->image = TAKE_PTR(i);
        return make_chains(plan, error);
}

/* Some fibers that take one layer after the other. */
typedef struct Jobs {
        Pull *pull;
        Plan *plan;
        size_t next, running;
        FiberQueue queue;
        Fiber **fibers;
        size_t n_fibers;
        int result;
        Error error;
} Jobs;

static void jobs_cancel(Jobs *jobs) {
        for (size_t i = 0; i < jobs->n_fibers; i++)
                fiber_cancel(jobs->fibers[i]);
}

static int job_run(void *userdata) {
        Jobs *jobs = userdata;
        Plan *plan = jobs->plan;

        while (jobs->result >= 0 && jobs->next < plan->n_layers) {
                _cleanup_error_ Error error = ERROR_INIT;
                size_t i = jobs->next++;
                const ImageDescriptor *d = plan->manifest.layers + i;
                int r;

                r = store_get_layer(jobs->pull->store, jobs->pull->session, d->digest, d->size, plan->diff_ids[i],
                                    plan->chains[i], &plan->layers[i], &error);
                /* The first failure counts; the others are the cancellation that follows from it. */
                if (r < 0 && jobs->result >= 0) {
                        jobs->result = r;
                        error_move(&jobs->error, &error);
                        jobs_cancel(jobs);
                }
        }
        jobs->running--;
        fiber_queue_wake(&jobs->queue, 0);
        return 0;
}

static int pull_layers(Pull *p, Plan *plan, Error *error) {
        size_t n = plan->manifest.n_layers;
        Jobs jobs = {.pull = p, .plan = plan};
        int r = 0;

        plan->layers = calloc(n, sizeof *plan->layers);
        jobs.fibers = calloc(n, sizeof *jobs.fibers);
        if (!plan->layers || !jobs.fibers) {
                free(jobs.fibers);
                return error_oom(error);
        }
        plan->n_layers = n;

        for (size_t i = 0; i < MIN(n, (size_t) p->store->max_parallel_layers) && jobs.result >= 0; i++) {
                jobs.running++;
                r = fiber_spawn(p->store->event, "image-layers", job_run, &jobs, NULL, &jobs.fibers[jobs.n_fibers]);
                if (r < 0) {
                        jobs.running--;
                        jobs.result = error_set(&jobs.error, r, "Cannot start to get layers");
                        jobs_cancel(&jobs);
                        break;
                }
                jobs.n_fibers++;
        }
        r = 0;
        while (jobs.running > 0 && r >= 0)
                r = fiber_queue_wait(&jobs.queue);
        if (r < 0) {
                FIBER_SHIELDED_SCOPE;

                jobs_cancel(&jobs);
                while (jobs.running > 0)
                        (void) fiber_queue_wait(&jobs.queue);
        } else if (jobs.result < 0) {
                error_move(error, &jobs.error);
                r = jobs.result;
        }
        for (size_t i = 0; i < jobs.n_fibers; i++)
                fiber_unref(jobs.fibers[i]);
        free(jobs.fibers);
        error_clear(&jobs.error);
        if (r < 0)
                return r;

        for (size_t i = 0; i < n; i++)
                if (plan->layers[i]->chain && !plan->layers[i]->adopted) {
                        r = store_adopt_layer(p->store, plan->layers, i, error);
                        if (r < 0)
                                return r;
                }
        return 0;
}

/* No waiting from here to the end: nobody sees half an image. */
static int pull_commit(Pull *p, Plan *plan, Error *error) {
        const RegistryDocument *documents[] = {&plan->config_document, &plan->top, &plan->manifest_document};
        const char *manifest_digest = plan->via_index ? plan->manifest_document.digest : plan->top.digest;
        _cleanup_free_ char *tag = p->reference.digest ? NULL : tag_name(p),
                            *digest = digest_name(p, plan->top.digest);
        StoredImage *i = store_find_id(p->store, plan->manifest.config.digest);
        uint64_t size = plan->manifest.config.size;
        int r;

        if ((!tag && !p->reference.digest) || !digest)
                return error_oom(error);
        if (i) {
                r = store_name_image(p->store, i, tag, digest, error);
                if (r >= 0)
                        p->image = image_ref(&i->image);
                return r;
        }

        i = plan->image;
        i->image.id = strdup(plan->manifest.config.digest);
        i->image.manifest_digest = strdup(manifest_digest);
        i->image.config_json = TAKE_PTR(plan->config_document.text);
        if (!i->image.id || !i->image.manifest_digest)
                return error_oom(error);
        for (size_t k = 0; k < plan->manifest.n_layers; k++)
                size += plan->manifest.layers[k].size;
        i->image.size = size;
        i->layers = TAKE_PTR(plan->layers);
        i->n_layers = plan->n_layers;
        plan->n_layers = 0;
        if (stored_image_list_layers(i) < 0)
                return error_oom(error);

        r = 0;
        for (size_t k = 0; k < (plan->via_index ? 3U : 2U) && r >= 0; k++) {
                const char *text = k == 0 ? i->image.config_json : documents[k]->text;

                r = strv_extend(&i->blobs, documents[k]->digest) < 0
                                    ? error_oom(error)
                                    : store_write_blob(p->store, documents[k]->digest, text, documents[k]->size,
                                                       error);
        }
        KILL_POINT_OF("image-pull.blobs", p->reference.name);
        if (r >= 0)
                r = store_name_image(p->store, i, tag, digest, error);
        KILL_POINT_OF("image-pull.named", p->reference.name);
        if (r < 0) {
                store_remove_unneeded_blobs(p->store, i->blobs);
                return r;
        }
        p->image = image_ref(&TAKE_PTR(plan->image)->image);
        return 0;
}

static int pull_work(Pull *p, Plan *plan, Error *error) {
        StoredImage *i;
        int r;

        KILL_POINT_OF("image-pull.begin", p->reference.name);
        /* Who verifies wants to be asked each time, and for that the manifest is needed. */
        r = image_has_verifiers(p->store->verifiers_directory) ? 0 : pull_unchanged(p, &p->image);
        if (r != 0)
                return r;
        r = pull_manifest(p, plan, error);
        if (r >= 0)
                r = image_verify(p->store->verifiers_directory, p->name, &plan->top, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("image-pull.manifest", p->reference.name);
        i = store_find_id(p->store, plan->manifest.config.digest);
        if (i)
                return pull_commit(p, plan, error);
        r = pull_config(p, plan, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("image-pull.config", p->reference.name);
        r = pull_layers(p, plan, error);
        if (r < 0)
                return r;
        KILL_POINT_OF("image-pull.layers", p->reference.name);
        return pull_commit(p, plan, error);
}

static int pull_run(void *userdata) {
        Pull *p = userdata;
        Plan plan = {};
        int r;

        p->plan = &plan;
        r = pull_work(p, &plan, &p->error);
        p->plan = NULL;
        /* Several pulls may fail side by side: each error says whose it is. */
        if (r < 0 && !(p->error.message && strstr(p->error.message, p->reference.name)))
                (void) error_prefix(&p->error, r, "Cannot pull %s", p->reference.name);
        plan_done(&plan);
        if (r < 0)
                store_wait_doomed(p->store);
        p->result = r;
        p->done = true;
        list_remove(&p->store->pulls, &p->store->n_pulls, p);
        fiber_queue_wake(&p->queue, 0);
        return r;
}

static void pull_destroy(void *userdata) {
        pull_unref(userdata);
}

static int pull_key(const ImageReference *r, const ImageAuth *a, char ret[static 72]) {
        const char *parts[] = {
                        r->name,
                        r->tag,
                        r->digest,
                        a ? a->username : NULL,
                        a ? a->password : NULL,
                        a ? a->auth : NULL,
                        a ? a->server_address : NULL,
                        a ? a->identity_token : NULL,
                        a ? a->registry_token : NULL,
        };
        EVP_MD_CTX *c = EVP_MD_CTX_new();
        uint8_t md[32];
        int ok = c && EVP_DigestInit_ex(c, EVP_sha256(), NULL) == 1;

        for (size_t i = 0; i < ELEMENTSOF(parts); i++)
                ok = ok && EVP_DigestUpdate(c, strempty(parts[i]), strlen(strempty(parts[i])) + 1) == 1;
        ok = ok && EVP_DigestFinal_ex(c, md, NULL) == 1;
        EVP_MD_CTX_free(c);
        if (!ok)
                return -EIO;
        hex_encode(md, sizeof md, ret);
        return 0;
}

static int pull_start(LayerStore *s, ImageReference *reference, const ImageAuth *auth, const char *key, Pull **ret,
                      Error *error) {
        _cleanup_(pull_unrefp) Pull *p = calloc(1, sizeof *p);
        int r;

        if (!p)
                return error_oom(error);
        p->n_ref = 1;
        p->store = store_ref(s);
        memcpy(p->key, key, sizeof p->key);
        p->reference = *reference;
        *reference = (ImageReference){};
        p->name = p->reference.digest ? digest_name(p, p->reference.digest) : tag_name(p);
        if (!p->name)
                return error_oom(error);
        r = registry_session_new(s->http, &p->reference, auth, s->registries_directory, s->progress_timeout_usec,
                                 &p->session, error);
        if (r < 0)
                return r;
        r = list_append(&s->pulls, &s->n_pulls, p);
        if (r < 0)
                return error_oom(error);
        p->n_ref++; /* the fiber's */
        r = fiber_spawn(s->event, "image-pull", pull_run, p, pull_destroy, &p->fiber);
        if (r < 0) {
                p->n_ref--;
                list_remove(&s->pulls, &s->n_pulls, p);
                return error_set(error, r, "Cannot start the pull");
        }
        *ret = TAKE_PTR(p);
        return 0;
}

static Pull *find_pull(LayerStore *s, const char *key) {
        for (size_t i = 0; i < s->n_pulls; i++)
                if (streq(s->pulls[i]->key, key))
                        return s->pulls[i];
        return NULL;
}

/* Of several that wait for one pull each gets its error. */
static int copy_error(const Pull *p, Error *error) {
        if (error_is_set(&p->error)) {
                (void) error_setf(error, p->error.code, "%s", strempty(p->error.message));
                return p->result;
        }
        return error_set(error, p->result, "Cannot pull %s", p->reference.name);
}

int layer_store_pull(ImageStore *store, const char *reference, const ImageAuth *auth, Image **ret, Error *error) {
        LayerStore *s = layer_store(store);
        _cleanup_image_reference_ ImageReference parsed = {};
        _cleanup_(pull_unrefp) Pull *p = NULL;
        char key[72] = {};
        int r;

        r = image_reference_parse(reference, &parsed, error);
        if (r < 0)
                return r;
        r = pull_key(&parsed, auth, key);
        if (r < 0)
                return error_set(error, r, "Cannot compute a digest");
        p = find_pull(s, key);
        if (p)
                p->n_ref++;
        else {
                r = pull_start(s, &parsed, auth, key, &p, error);
                if (r < 0)
                        return r;
        }

        p->n_waiters++;
        r = 0;
        while (!p->done && r >= 0)
                r = fiber_queue_wait(&p->queue);
        p->n_waiters--;
        if (!p->done) {
                if (p->n_waiters == 0) {
                        FIBER_SHIELDED_SCOPE;

                        /* Whoever comes now begins anew. */
                        list_remove(&s->pulls, &s->n_pulls, p);
                        fiber_cancel(p->fiber);
                        (void) fiber_join(p->fiber, NULL);
                }
                return error_set(error, r, "The pull of %s was given up", p->reference.name);
        }
        if (p->result < 0)
                return copy_error(p, error);
        *ret = image_ref(p->image);
        return 0;
}

static void pull_look(const Pull *p, ImagePullProgress *ret) {
        const Plan *plan = p->plan;

        *ret = (ImagePullProgress) { .name = p->name };
        if (!plan || plan->n_layers == 0)
                return;
        ret->n_layers = plan->n_layers;
        for (size_t i = 0; i < plan->n_layers; i++) {
                uint64_t size = plan->manifest.layers[i].size;

                ret->size += size;
                if (plan->layers[i])
                        ret->n_done++;
                ret->fetched += plan->layers[i] ? size : MIN(size, store_fetched_bytes(p->store, plan->diff_ids[i]));
        }
}

int layer_store_pulls(ImageStore *store, ImagePullProgress **ret, size_t *ret_n) {
        LayerStore *s = layer_store(store);
        ImagePullProgress *l = calloc(MAX(s->n_pulls, (size_t) 1), sizeof *l);

        if (!l)
                return -ENOMEM;
        for (size_t i = 0; i < s->n_pulls; i++)
                pull_look(s->pulls[i], l + i);
        *ret = l;
        *ret_n = s->n_pulls;
        return 0;
}

void store_cancel_pulls(LayerStore *s) {
        for (size_t i = 0; i < s->n_pulls; i++)
                fiber_cancel(s->pulls[i]->fiber);
}
