#include "basic/string-util.h"
#include "basic/test.h"
#include "image/image-config.h"
#include "image/manifest.h"

#define OCI_MANIFEST    "application/vnd.oci.image.manifest.v1+json"
#define OCI_INDEX       "application/vnd.oci.image.index.v1+json"
#define DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define HEX             "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define CONFIG                                                                                                        \
        "\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"sha256:" HEX             \
        "\",\"size\":7}"
#define LAYER                                                                                                         \
        "{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"sha256:" HEX "\",\"size\":9}"
#define IMAGE "{\"schemaVersion\":2," CONFIG ",\"layers\":[" LAYER "," LAYER "]}"

static const ImagePlatform amd64 = {"linux", "amd64", ""};
static const ImagePlatform armv7 = {"linux", "arm", "v7"};
static const ImagePlatform arm64 = {"linux", "arm64", "v8"};

static GrpcCode parse(const char *text, const char *content_type, const char *expected, const ImagePlatform *platform,
                      ImageManifest *ret) {
        _cleanup_error_ Error e = ERROR_INIT;
        ImageManifest m = {};
        int r;

        r = image_manifest_parse(text, strlen(text), content_type, expected, platform, &m, &e);
        if (r < 0) {
                CHECK(error_is_set(&e) && e.message);
                CHECK(!m.layers && !m.config.digest && !m.chosen.digest);
                return e.code;
        }
        CHECK(!error_is_set(&e));
        if (ret)
                *ret = m;
        else
                image_manifest_done(&m);
        return GRPC_OK;
}

static void a_manifest_has_a_config_and_layers(void) {
        _cleanup_image_manifest_ ImageManifest m = {};

        CHECK_EQ(parse(IMAGE, OCI_MANIFEST, NULL, &amd64, &m), GRPC_OK);
        CHECK(!m.is_index);
        CHECK_STREQ(m.config.digest, "sha256:" HEX);
        CHECK_EQ(m.config.size, 7);
        CHECK_EQ(m.n_layers, 2);
        CHECK_EQ(m.layers[1].size, 9);
}

static void media_types_have_to_agree(void) {
        CHECK_EQ(parse(IMAGE, NULL, NULL, &amd64, NULL), GRPC_OK);
        CHECK_EQ(parse(IMAGE, "text/plain; charset=utf-8", NULL, &amd64, NULL), GRPC_OK);
        CHECK_EQ(parse(IMAGE, "Application/VND.oci.image.manifest.v1+json; charset=utf-8", NULL, &amd64, NULL),
                 GRPC_OK);
        CHECK_EQ(parse(IMAGE, OCI_MANIFEST, OCI_MANIFEST, &amd64, NULL), GRPC_OK);
        CHECK_EQ(parse(IMAGE, DOCKER_MANIFEST, OCI_MANIFEST, &amd64, NULL), GRPC_DATA_LOSS);
        CHECK_EQ(parse(IMAGE, NULL, OCI_INDEX, &amd64, NULL), GRPC_DATA_LOSS);
        CHECK_EQ(parse("{\"mediaType\":\"" OCI_MANIFEST "\",\"schemaVersion\":2," CONFIG ",\"layers\":[" LAYER "]}",
                       DOCKER_MANIFEST, NULL, &amd64, NULL),
                 GRPC_DATA_LOSS);
        CHECK_EQ(parse("{\"mediaType\":\"" OCI_INDEX "\",\"schemaVersion\":2," CONFIG ",\"layers\":[" LAYER "]}",
                       "application/json", NULL, &amd64, NULL),
                 GRPC_DATA_LOSS);
        CHECK_EQ(parse(IMAGE, "text/html", NULL, &amd64, NULL), GRPC_FAILED_PRECONDITION);
}

static void index_and_image_in_one_is_refused(void) {
        static const char *const types[] = {OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, "application/json", NULL};

        for (size_t i = 0; i < ELEMENTSOF(types); i++) {
                CHECK_EQ(parse("{\"schemaVersion\":2," CONFIG ",\"layers\":[" LAYER "],\"manifests\":[]}", types[i],
                               NULL, &amd64, NULL),
                         GRPC_DATA_LOSS);
                CHECK_EQ(parse("{\"schemaVersion\":2,\"layers\":[" LAYER "],\"manifests\":[" LAYER "]}", types[i],
                               NULL, &amd64, NULL),
                         GRPC_DATA_LOSS);
                CHECK_EQ(parse("{\"schemaVersion\":2," CONFIG ",\"manifests\":null}", types[i], NULL, &amd64, NULL),
                         GRPC_DATA_LOSS);
        }
        CHECK_EQ(parse("{\"schemaVersion\":2,\"layers\":[],\"layers\":[]}", NULL, NULL, &amd64, NULL), GRPC_DATA_LOSS);
        CHECK_EQ(parse("{\"schemaVersion\":2,\"fsLayers\":[]," CONFIG ",\"layers\":[" LAYER "]}", OCI_MANIFEST, NULL,
                       &amd64, NULL),
                 GRPC_UNIMPLEMENTED);
}

#define ENTRY(size, platform)                                                                                         \
        "{\"mediaType\":\"" OCI_MANIFEST "\",\"digest\":\"sha256:" HEX "\",\"size\":" #size platform "}"
#define PLATFORM(os, arch, variant)                                                                                   \
        ",\"platform\":{\"os\":\"" os "\",\"architecture\":\"" arch "\",\"variant\":\"" variant "\"}"
#define INDEX(entries) "{\"schemaVersion\":2,\"manifests\":[" entries "]}"

static uint64_t choose(const char *text, const ImagePlatform *platform) {
        _cleanup_image_manifest_ ImageManifest m = {};

        if (parse(text, OCI_INDEX, NULL, platform, &m) != GRPC_OK)
                return 0;
        CHECK(m.is_index);
        return m.chosen.size;
}

static void an_index_is_searched_for_the_platform(void) {
        /* clang-format off */
        static const char all[] = INDEX(
                        ENTRY(1, PLATFORM("windows", "amd64", "")) ","
                        ENTRY(2, PLATFORM("linux", "arm", "v6")) ","
                        ENTRY(3, PLATFORM("linux", "arm", "v7")) ","
                        ENTRY(4, PLATFORM("linux", "arm64", "v8")) ","
                        ENTRY(5, PLATFORM("linux", "amd64", "")) ","
                        ENTRY(6, PLATFORM("linux", "amd64", "")) ","
                        ENTRY(7, PLATFORM("unknown", "unknown", "")));
        /* clang-format on */

        CHECK_EQ(choose(all, &amd64), 5); /* the first of equals */
        CHECK_EQ(choose(all, &armv7), 3);
        CHECK_EQ(choose(all, &arm64), 4);
        CHECK_EQ(choose(INDEX(ENTRY(1, PLATFORM("linux", "arm", "v6"))), &armv7), 1);
        CHECK_EQ(choose(INDEX(ENTRY(1, PLATFORM("linux", "arm", "v8"))), &armv7), 0);
        CHECK_EQ(choose(INDEX(ENTRY(1, PLATFORM("linux", "arm64", "v9"))), &arm64), 0);
        CHECK_EQ(choose(INDEX(ENTRY(1, PLATFORM("linux", "arm64", ""))), &arm64), 1);
        CHECK_EQ(choose(INDEX(ENTRY(1, "") "," ENTRY(2, PLATFORM("linux", "amd64", ""))), &amd64), 2);
        CHECK_EQ(choose(INDEX(ENTRY(1, "")), &amd64), 1);
        CHECK_EQ(parse(INDEX(""), OCI_INDEX, NULL, &amd64, NULL), GRPC_NOT_FOUND);
        CHECK_EQ(parse(INDEX("1,null,[]"), OCI_INDEX, NULL, &amd64, NULL), GRPC_NOT_FOUND);
        CHECK_EQ(parse("{\"schemaVersion\":2,\"manifests\":{}}", OCI_INDEX, NULL, &amd64, NULL), GRPC_DATA_LOSS);
}

static void this_machine_has_a_platform(void) {
        ImagePlatform p;

        image_platform_host(&p);
        CHECK_STREQ(p.os, "linux");
        CHECK(p.architecture[0]);
        CHECK_EQ(image_platform_rank(&p, "linux", p.architecture, p.variant), 0);
        CHECK(image_platform_rank(&p, NULL, NULL, NULL) >= 0);
        CHECK(image_platform_rank(&p, "windows", p.architecture, NULL) < 0);
}

static void a_config_is_read_with_nulls_and_refused_with_nonsense(void) {
        static const char good[] = "{\"architecture\":\"amd64\",\"os\":\"linux\",\"created\":\"2024-01-02T03:04:05Z\","
                                   "\"config\":{"
                                   "\"Env\":[\"A=b\"],\"Cmd\":[\"sh\"],\"Entrypoint\":null,\"User\":\"1:2\","
                                   "\"WorkingDir\":\"/w\","
                                   "\"StopSignal\":\"\",\"Volumes\":{\"/"
                                   "v\":{}},\"Labels\":{\"k\":\"v\"}},\"rootfs\":{\"diff_ids\":"
                                   "[\"sha256:" HEX "\"]}}";
        static const char *const bad[] = {
                        "",
                        "[]",
                        "{\"config\":1}",
                        "{\"os\":1}",
                        "{\"config\":{\"Env\":[1]}}",
                        "{\"config\":{\"Labels\":{\"a\":null}}}",
                        "{\"config\":{\"Volumes\":[]}}",
                        "{\"config\":{\"User\":1}}",
                        "{\"rootfs\":{\"diff_ids\":[\"x\"]}}",
                        "{\"rootfs\":{\"diff_ids\":\"x\"}}",
                        "{\"config\":{\"User\":\"a\\u0000b\"}}",
        };
        ImageConfig c;
        char **ids;

        CHECK_EQ(image_config_parse(good, strlen(good), &c, &ids, NULL), 0);
        CHECK_STREQ(c.env[0], "A=b");
        CHECK(!c.entrypoint && !c.stop_signal && !c.variant);
        CHECK_STREQ(c.cmd[0], "sh");
        CHECK_STREQ(c.user, "1:2");
        CHECK_STREQ(c.volumes[0], "/v");
        CHECK_STREQ(c.label_keys[0], "k");
        CHECK_STREQ(c.label_values[0], "v");
        CHECK_STREQ(ids[0], "sha256:" HEX);
        strv_free(ids);
        image_config_done(&c);

        CHECK_EQ(image_config_parse("{}", 2, &c, &ids, NULL), 0);
        CHECK(!ids && !c.env);
        CHECK_STREQ(c.user, "");
        image_config_done(&c);

        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                CHECK(image_config_parse(bad[i], strlen(bad[i]), &c, &ids, NULL) < 0);
}

TEST_MAIN(TEST_CASE(a_manifest_has_a_config_and_layers), TEST_CASE(media_types_have_to_agree),
          TEST_CASE(index_and_image_in_one_is_refused), TEST_CASE(an_index_is_searched_for_the_platform),
          TEST_CASE(this_machine_has_a_platform), TEST_CASE(a_config_is_read_with_nulls_and_refused_with_nonsense))
