/* Manifests and indexes. A document is read as what its media type says, and refused when it looks like both kinds:
 * otherwise a scanner could be shown one image and the node another. */

#include "image/manifest.h"

#include <sys/utsname.h>

#include "basic/json-util.h"
#include "basic/string-util.h"
#include "image/reference.h"

#define TYPE_DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define TYPE_DOCKER_LIST     "application/vnd.docker.distribution.manifest.list.v2+json"
#define TYPE_OCI_MANIFEST    "application/vnd.oci.image.manifest.v1+json"
#define TYPE_OCI_INDEX       "application/vnd.oci.image.index.v1+json"
#define TYPE_DOCKER_SCHEMA1  "application/vnd.docker.distribution.manifest.v1"

#define INDEX_ENTRIES_MAX 10000U

const char manifest_accept[] =
                TYPE_OCI_INDEX ", " TYPE_DOCKER_LIST ", " TYPE_OCI_MANIFEST ", " TYPE_DOCKER_MANIFEST ", */*;q=0.1";

static void image_descriptor_done(ImageDescriptor *d) {
        d->media_type = mfree(d->media_type);
        d->digest = mfree(d->digest);
}

void image_manifest_done(ImageManifest *m) {
        if (!m)
                return;
        image_descriptor_done(&m->chosen);
        image_descriptor_done(&m->config);
        for (size_t i = 0; i < m->n_layers; i++)
                image_descriptor_done(m->layers + i);
        m->layers = mfree(m->layers);
        m->n_layers = 0;
}

void image_platform_host(ImagePlatform *ret) {
        static const struct {
                const char *machine, *architecture, *variant;
        } table[] = {
                        {"x86_64", "amd64", ""},    {"aarch64", "arm64", "v8"},     {"armv8l", "arm", "v7"},
                        {"armv7l", "arm", "v7"},    {"armv6l", "arm", "v6"},        {"i686", "386", ""},
                        {"i386", "386", ""},        {"ppc64le", "ppc64le", ""},     {"s390x", "s390x", ""},
                        {"riscv64", "riscv64", ""}, {"loongarch64", "loong64", ""},
        };
        struct utsname u = {};
        ImagePlatform p = {.os = "linux"};

        (void) uname(&u);
        (void) snprintf(p.architecture, sizeof p.architecture, "%.15s", u.machine);
        for (size_t i = 0; i < ELEMENTSOF(table); i++)
                if (streq(u.machine, table[i].machine)) {
                        (void) snprintf(p.architecture, sizeof p.architecture, "%s", table[i].architecture);
                        (void) snprintf(p.variant, sizeof p.variant, "%s", table[i].variant);
                        break;
                }
        *ret = p;
}

static int variant_number(const char *v) {
        return v[0] == 'v' && v[1] >= '1' && v[1] <= '9' && !v[2] ? v[1] - '0' : -1;
}

int image_platform_rank(const ImagePlatform *host, const char *os, const char *architecture, const char *variant) {
        int have, want;

        if (!isempty(os) && !streq(os, host->os))
                return -1;
        if (isempty(architecture))
                return 100;
        if (streq(architecture, "x86_64") || streq(architecture, "x86-64"))
                architecture = "amd64";
        if (streq(architecture, "aarch64"))
                architecture = "arm64";
        if (!streq(architecture, host->architecture))
                return -1;
        variant = strempty(variant);

        if (streq(architecture, "amd64")) {
                if (!variant[0] || streq(variant, "v1"))
                        return 0;
#if defined(__x86_64__)
                __builtin_cpu_init();
                /* The levels of the x86-64 psABI. */
                if (streq(variant, "v2") && __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt"))
                        return 1;
                if (streq(variant, "v3") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") &&
                    __builtin_cpu_supports("fma"))
                        return 2;
                if (streq(variant, "v4") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl"))
                        return 3;
#endif
                return -1;
        }

        if (!variant[0])
                return streq(architecture, "arm") ? 50 : 0; /* an unmarked arm image: any, so better a marked one */
        have = variant_number(variant);
        want = variant_number(host->variant);
        if (have < 0 || want < 0)
                return streq(variant, host->variant) ? 0 : -1;
        /* A newer core runs what was built for an older one. */
        return have <= want ? want - have : -1;
}

static int refuse(Error *error, const char *why) {
        return error_setf(error, GRPC_DATA_LOSS, "The registry's manifest is refused: %s", why);
}

/* A media type without its parameters, in lower case; the result is always a string. */
static void media_type_copy(const char *s, char ret[static 128]) {
        size_t n = 0;

        s = strempty(s);
        while (*s == ' ')
                s++;
        for (; s[n] && s[n] != ';' && s[n] != ' ' && n < 127; n++)
                ret[n] = s[n] >= 'A' && s[n] <= 'Z' ? (char)(s[n] + 32) : s[n];
        ret[n] = '\0';
}

typedef enum Kind {
        KIND_UNKNOWN,
        KIND_IMAGE,
        KIND_INDEX,
        KIND_SCHEMA1,
        KIND_FOREIGN,
} Kind;

static Kind kind_of(const char *type) {
        if (streq(type, TYPE_DOCKER_MANIFEST) || streq(type, TYPE_OCI_MANIFEST))
                return KIND_IMAGE;
        if (streq(type, TYPE_DOCKER_LIST) || streq(type, TYPE_OCI_INDEX))
                return KIND_INDEX;
        if (startswith(type, TYPE_DOCKER_SCHEMA1))
                return KIND_SCHEMA1;
        /* What servers and proxies put there when they know nothing better. */
        if (!type[0] || streq(type, "application/json") || streq(type, "text/plain") ||
            streq(type, "application/octet-stream") || streq(type, "binary/octet-stream"))
                return KIND_UNKNOWN;
        return KIND_FOREIGN;
}

static int descriptor_parse(const json_t *j, uint64_t size_max, ImageDescriptor *ret, Error *error) {
        const char *digest = json_get_string(j, "digest"), *type = json_get_string(j, "mediaType");
        const json_t *size = json_object_get(j, "size");
        _cleanup_free_ char *t = NULL, *d = NULL;

        if (!json_is_object(j))
                return refuse(error, "a descriptor is no object");
        if (!digest)
                return refuse(error, "a descriptor has no digest");
        if (!digest_is_valid(digest))
                return error_setf(error, GRPC_UNIMPLEMENTED,
                                  "The registry's manifest is refused: it has a digest that is no sha256 one, "
                                  "which is the only algorithm supported");
        if (!json_is_integer(size) || json_integer_value(size) < 0)
                return refuse(error, "a descriptor has no valid size");
        if ((uint64_t) json_integer_value(size) > size_max)
                return error_setf(error, GRPC_RESOURCE_EXHAUSTED,
                                  "The registry's manifest is refused: it names an object of %lld bytes, at most %llu "
                                  "are accepted",
                                  (long long) json_integer_value(size), (unsigned long long) size_max);

        t = strdup(strempty(type));
        d = strdup(digest);
        if (!t || !d)
                return error_oom(error);
        *ret = (ImageDescriptor){
                        .media_type = TAKE_PTR(t),
                        .digest = TAKE_PTR(d),
                        .size = (uint64_t) json_integer_value(size),
        };
        return 0;
}

static int index_choose(const json_t *j, const ImagePlatform *platform, ImageManifest *m, Error *error) {
        const json_t *list = json_get_array(j, "manifests"), *best = NULL;
        int best_rank = -1;

        if (!list)
                return refuse(error, "it is an index without manifests");
        if (json_array_size(list) > INDEX_ENTRIES_MAX)
                return refuse(error, "the index has too many entries");

        for (size_t i = 0; i < json_array_size(list); i++) {
                const json_t *e = json_array_get(list, i), *p = json_get_object(e, "platform");
                char type[128];
                int rank;

                media_type_copy(json_get_string(e, "mediaType"), type);
                /* Attestations, signatures and artifacts live beside the images. */
                if (kind_of(type) != KIND_IMAGE && kind_of(type) != KIND_INDEX)
                        continue;
                rank = p ? image_platform_rank(platform, json_get_string(p, "os"), json_get_string(p, "architecture"),
                                               json_get_string(p, "variant"))
                         : 200;
                if (rank >= 0 && (!best || rank < best_rank)) {
                        best = e;
                        best_rank = rank;
                }
        }
        if (!best)
                return error_setf(error, GRPC_NOT_FOUND,
                                  "The image exists, but its index has no manifest for %s/%s%s%s: "
                                  "ask its publisher for this platform",
                                  platform->os, platform->architecture, platform->variant[0] ? "/" : "",
                                  platform->variant);
        return descriptor_parse(best, MANIFEST_SIZE_MAX, &m->chosen, error);
}

static int image_read(const json_t *j, ImageManifest *m, Error *error) {
        const json_t *layers = json_get_array(j, "layers");
        char type[128];
        int r;

        if (!layers || !json_get_object(j, "config"))
                return refuse(error, "it has no config or no layers");
        r = descriptor_parse(json_get_object(j, "config"), CONFIG_SIZE_MAX, &m->config, error);
        if (r < 0)
                return r;
        media_type_copy(m->config.media_type, type);
        if (!streq(type, "application/vnd.oci.image.config.v1+json") &&
            !streq(type, "application/vnd.docker.container.image.v1+json") && !streq(type, "application/octet-stream"))
                return error_setf(error, GRPC_FAILED_PRECONDITION,
                                  "This is no container image: its config is of type \"%.100s\"", type);

        if (json_array_size(layers) == 0)
                return refuse(error, "it has no layer");
        if (json_array_size(layers) > MANIFEST_LAYERS_MAX)
                return error_setf(error, GRPC_RESOURCE_EXHAUSTED,
                                  "The image has %zu layers; at most %u are supported: squash it",
                                  json_array_size(layers), MANIFEST_LAYERS_MAX);
        m->layers = calloc(json_array_size(layers), sizeof *m->layers);
        if (!m->layers)
                return error_oom(error);
        for (size_t i = 0; i < json_array_size(layers); i++) {
                r = descriptor_parse(json_array_get(layers, i), LAYER_SIZE_MAX, m->layers + i, error);
                if (r < 0)
                        return r;
                m->n_layers++;

                media_type_copy(m->layers[i].media_type, type);
                if (endswith(type, "+encrypted"))
                        return error_setf(error, GRPC_UNIMPLEMENTED,
                                          "The image's layers are encrypted, which is not supported");
                if (!startswith(type, "application/vnd.oci.image.layer.") &&
                    !startswith(type, "application/vnd.docker.image.rootfs."))
                        return error_setf(error, GRPC_FAILED_PRECONDITION,
                                          "This is no container image: it has a layer of type \"%.100s\"", type);
        }
        return 0;
}

int image_manifest_parse(const char *text, size_t size, const char *content_type, const char *expected_type,
                         const ImagePlatform *platform, ImageManifest *ret, Error *error) {
        _cleanup_image_manifest_ ImageManifest m = {};
        _cleanup_json_ json_t *j = NULL, *strict = NULL;
        char header[128], field[128], expected[128];
        const json_t *version;
        Kind kind;
        int r;

        if (size > MANIFEST_SIZE_MAX)
                return refuse(error, "it is larger than 4 MiB");
        r = json_parse(text, size, &j, /* error= */ NULL);
        if (r == -ENOMEM)
                return error_oom(error);
        if (r < 0 || !json_is_object(j))
                return refuse(error, "it is no JSON object");
        /* Of two members with one name readers may take either. */
        strict = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
        if (!strict)
                return refuse(error, "it has two members of the same name");

        media_type_copy(content_type, header);
        media_type_copy(json_get_string(j, "mediaType"), field);
        media_type_copy(expected_type, expected);

        /* Every statement about what this is has to agree. */
        if (field[0] && kind_of(header) != KIND_UNKNOWN && !streq(field, header))
                return error_setf(error, GRPC_DATA_LOSS,
                                  "The registry's manifest is refused: it says it is \"%s\", but was sent as \"%s\"",
                                  field, header);
        if (expected[0] && kind_of(header) != KIND_UNKNOWN && !streq(expected, header))
                return error_setf(
                                error, GRPC_DATA_LOSS,
                                "The registry's manifest is refused: the index says it is \"%s\", but it was sent as "
                                "\"%s\"",
                                expected, header);
        if (expected[0] && field[0] && !streq(expected, field))
                return error_setf(
                                error, GRPC_DATA_LOSS,
                                "The registry's manifest is refused: it says it is \"%s\", but the index says \"%s\"",
                                field, expected);

        version = json_object_get(j, "schemaVersion");
        kind = kind_of(kind_of(header) != KIND_UNKNOWN ? header : field[0] ? field : expected);
        if (kind == KIND_SCHEMA1 || json_object_get(j, "fsLayers") ||
            (json_is_integer(version) && json_integer_value(version) == 1))
                return error_setf(
                                error, GRPC_UNIMPLEMENTED,
                                "The image has a manifest of Docker's schema 1, which is no longer supported: push it "
                                "again with a current tool");
        if (kind == KIND_FOREIGN)
                return error_setf(error, GRPC_FAILED_PRECONDITION,
                                  "This is no container image: its manifest is of type \"%s\"",
                                  header[0] ? header : field);
        if (!json_is_integer(version) || json_integer_value(version) != 2)
                return refuse(error, "its schemaVersion is not 2");

        if (json_object_get(j, "manifests") && (json_object_get(j, "layers") || json_object_get(j, "config")))
                return refuse(error, "it is an index and an image at once");
        if (kind == KIND_UNKNOWN)
                kind = json_object_get(j, "manifests") ? KIND_INDEX : KIND_IMAGE;

        m.is_index = kind == KIND_INDEX;
        r = m.is_index ? index_choose(j, platform, &m, error) : image_read(j, &m, error);
        if (r < 0)
                return r;

        *ret = m;
        m = (ImageManifest){};
        return 0;
}
