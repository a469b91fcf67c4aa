#include <fcntl.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "basic/json-util.h"
#include "basic/test.h"
#include "engine/native/cdi-spec.h"
#include "engine/native/cdi.h"

static char root[] = "/tmp/test-cdi-XXXXXX";
static char first[64], second[64];
static const char *const folders[] = { first, second, "/tmp/no/such/folder", NULL };

static void put(const char *folder, const char *name, const char *text) {
        char path[128];

        CHECK(snprintf(path, sizeof path, "%s/%s", folder, name) > 0);
        CHECK_EQ(write_file_atomic(AT_FDCWD, path, text, strlen(text), 0644, 0), 0);
}

static void clean(void) {
        CHECK_EQ(remove_tree(AT_FDCWD, root), 0);
        CHECK_EQ(mkdir_parents(AT_FDCWD, first, 0755), 0);
        CHECK_EQ(mkdir_parents(AT_FDCWD, second, 0755), 0);
}

static json_t *fresh_config(void) {
        json_t *j = json_pack("{s:{s:{s:i, s:i, s:[i]}, s:[s, s]}, s:{s:[{s:s}]}, s:[{s:s}, {s:s}]}", "process", "user",
                              "uid", 7, "gid", 8, "additionalGids", 8, "env", "PATH=/bin", "A=old", "linux", "devices",
                              "path", "/dev/there", "mounts", "destination", "/proc", "destination", "/data/below");

        CHECK(j);
        return j;
}

/* The configuration afterwards; NULL: refused, with the words in the error. */
static json_t *add(const char *const *names, const char *words, GrpcCode code) {
        runtime_v1_CDIDevice devices[8];
        _cleanup_error_ Error error = ERROR_INIT;
        json_t *config = fresh_config();
        size_t n = 0;

        for (; names[n]; n++)
                devices[n] = (runtime_v1_CDIDevice) { .name = (char *) names[n] };
        if (cdi_add_to_config(devices, n, folders, config, NULL, &error) < 0) {
                json_decref(config);
                if (!words || !strstr(error.message, words) || error.code != code) {
                        fprintf(stderr, "%s\n", error.message);
                        CHECK(false);
                }
                return NULL;
        }
        CHECK(!words);
        return config;
}

static void refused(const char *name, const char *words, GrpcCode code) {
        CHECK(!add((const char *[]) { name, NULL }, words, code));
}

static void text_is(const json_t *j, const char *want) {
        _cleanup_free_ char *got = json_dumps(j, JSON_COMPACT | JSON_ENCODE_ANY);

        CHECK_STREQ(got, want);
}

#define HEAD "{\"cdiVersion\":\"1.1.0\",\"kind\":\"v.example/c\",\"devices\":["
#define DEVICE(name, edits) "{\"name\":\"" name "\",\"containerEdits\":{" edits "}}"

static void test_everything_is_added(void) {
        _cleanup_json_ json_t *j = NULL;
        json_t *linux_part;

        clean();
        put(first, "a.json",
            HEAD DEVICE("one",
                        "\"env\":[\"A=new\",\"B=2\"],"
                        "\"deviceNodes\":[{\"path\":\"/dev/there\",\"hostPath\":\"/dev/null\"},{\"path\":\"/dev/x\",\"type\":\"b\","
                        "\"major\":9,\"minor\":1,\"fileMode\":384,\"permissions\":\"r\",\"uid\":3,\"gid\":4}],"
                        "\"mounts\":[{\"hostPath\":\"/\",\"containerPath\":\"/data\",\"options\":[\"ro\",\"nosuid\"]},"
                        "{\"hostPath\":\"tmpfs\",\"containerPath\":\"/t\",\"type\":\"tmpfs\"}],"
                        "\"additionalGids\":[0,8,99],\"intelRdt\":{\"closID\":\"x\"}") ","
                 DEVICE("two", "\"env\":[\"TWO=2\"]") "],\"containerEdits\":{\"env\":[\"ALL=1\"],"
            "\"hooks\":[{\"hookName\":\"createContainer\",\"path\":\"/bin/true\",\"args\":[\"true\",\"x\"],\"timeout\":5}]}}");
        j = add((const char *[]) { "v.example/c=one", "v.example/c=two", "v.example/c=one", NULL }, NULL, 0);
        linux_part = json_object_get(j, "linux");
        text_is(json_object_get(json_object_get(j, "process"), "env"), "[\"PATH=/bin\",\"A=new\",\"ALL=1\",\"B=2\",\"TWO=2\"]");
        text_is(json_object_get(json_object_get(json_object_get(j, "process"), "user"), "additionalGids"), "[8,99]");
        text_is(json_object_get(linux_part, "devices"),
                "[{\"path\":\"/dev/there\",\"type\":\"c\",\"major\":1,\"minor\":3,\"fileMode\":438,\"uid\":7,\"gid\":8},"
                "{\"path\":\"/dev/x\",\"type\":\"b\",\"major\":9,\"minor\":1,\"fileMode\":384,\"uid\":3,\"gid\":4}]");
        text_is(json_object_get(j, "mounts"),
                "[{\"destination\":\"/proc\"},{\"destination\":\"/data\",\"type\":\"bind\",\"source\":\"/\",\"options\":[\"ro\",\"nosuid\","
                "\"rbind\"]},{\"destination\":\"/data/below\"},{\"destination\":\"/t\",\"type\":\"tmpfs\",\"source\":\"tmpfs\",\"options\":[]}]");
        text_is(json_object_get(j, "hooks"),
                "{\"createContainer\":[{\"path\":\"/bin/true\",\"args\":[\"true\",\"x\"],\"timeout\":5}]}");
        text_is(json_object_get(linux_part, "intelRdt"), "{\"closID\":\"x\"}");
}

static void test_which_file(void) {
        _cleanup_json_ json_t *j = NULL;

        clean();
        refused("v.example/c=one", "not on this node", GRPC_FAILED_PRECONDITION);
        put(first, "a.json", HEAD DEVICE("one", "\"env\":[\"FROM=first\"]") "]}");
        put(second, "b.yaml",
            "# as tools write it\n---\ncdiVersion: 0.5.0\nkind: v.example/c\ndevices:\n- name: \"one\"\n  containerEdits:\n"
            "    env:\n    - FROM=second\n    deviceNodes:\n    - path: /dev/y\n      type: c\n      major: 1\n      minor: 0x3\n"
            "      fileMode: 0o600\n");
        put(second, "ignored.txt", "nonsense");
        put(second, ".hidden.json", "nonsense");
        j = add((const char *[]) { "v.example/c=one", NULL }, NULL, 0);
        text_is(json_object_get(json_object_get(j, "process"), "env"), "[\"PATH=/bin\",\"A=old\",\"FROM=second\"]");
        text_is(json_array_get(json_object_get(json_object_get(j, "linux"), "devices"), 1),
                "{\"path\":\"/dev/y\",\"type\":\"c\",\"major\":1,\"minor\":3,\"fileMode\":384,\"uid\":7,\"gid\":8}");

        put(second, "c.json", HEAD DEVICE("one", "\"env\":[]") "]}");
        refused("v.example/c=one", "is in two files", GRPC_FAILED_PRECONDITION);
        refused("v.example/c=other", "not on this node", GRPC_FAILED_PRECONDITION);
        refused("v.example/d=one", "not on this node", GRPC_FAILED_PRECONDITION);
        put(first, "bad.json", "{");
        refused("v.example/c=other", "bad.json", GRPC_FAILED_PRECONDITION);
        for (size_t i = 0; i < 8; i++) {
                const char *const names[] = { "", "one", "v.example/c", "v.example=one", "v.example/c=", "/c=one", "v/c=a b",
                                              "9v/c=one" };

                refused(names[i], "no name of a CDI device", GRPC_INVALID_ARGUMENT);
        }
}

static void test_edits_that_are_refused(void) {
        const struct {
                const char *edits, *words;
        } cases[] = {
                { "\"env\":[\"X\"]", "no environment variable" },
                { "\"deviceNodes\":[{\"path\":\"/dev/no/such/device\"}]", "No such file" },
                { "\"deviceNodes\":[{\"path\":\"dev\"}]", "not absolute" },
                { "\"deviceNodes\":[{\"path\":\"/etc/passwd\"}]", "no such device" },
                { "\"deviceNodes\":[{\"path\":\"/dev/null\",\"type\":\"b\"}]", "no such device" },
                { "\"deviceNodes\":[{\"path\":\"/dev/null\",\"type\":\"z\"}]", "none of" },
                { "\"deviceNodes\":[{\"path\":\"/dev/null\",\"permissions\":\"x\"}]", "something else" },
                { "\"mounts\":[{\"hostPath\":\"/no/such/path\",\"containerPath\":\"/x\"}]", "No such file" },
                { "\"mounts\":[{\"hostPath\":\"/\",\"containerPath\":\"x\"}]", "not absolute" },
                { "\"mounts\":[{\"hostPath\":\"/\",\"containerPath\":\"/x\",\"options\":[\"rshared\"]}]", "propagate" },
                { "\"hooks\":[{\"hookName\":\"poststop\",\"path\":\"/bin/true\"}]", "'poststop' is not supported" },
                { "\"hooks\":[{\"hookName\":\"prestart\",\"path\":\"true\"}]", "not absolute" },
                { "\"hooks\":[{\"hookName\":\"prestart\",\"path\":\"/bin/true\",\"timeout\":0}]", "timeout" },
                { "\"netDevices\":{\"eth0\":{}}", "netDevices" },
                { "\"additionalGids\":[4294967296]", "no group" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *text = NULL;

                clean();
                CHECK(asprintf(&text, HEAD "{\"name\":\"one\",\"containerEdits\":{%s}}]}", cases[i].edits) > 0);
                put(first, "a.json", text);
                refused("v.example/c=one", cases[i].words, GRPC_FAILED_PRECONDITION);
                refused("v.example/c=one", "a.json", GRPC_FAILED_PRECONDITION);
        }
}

static void parse_refused(const char *text, bool yaml, const char *words) {
        _cleanup_error_ Error error = ERROR_INIT;
        json_t *j = NULL;

        CHECK(cdi_spec_parse(text, strlen(text), yaml, &j, &error) < 0);
        CHECK_EQ(error.code, GRPC_FAILED_PRECONDITION);
        if (!strstr(error.message, words)) {
                fprintf(stderr, "%s, not %s\n", error.message, words);
                CHECK(false);
        }
}

static void test_specs_that_are_refused(void) {
        parse_refused("[]", false, "cdiVersion");
        parse_refused("{\"cdiVersion\":\"1.2.0\",\"kind\":\"v/c\",\"devices\":[]}", false, "1.2.0");
        parse_refused("{\"cdiVersion\":\"1.0\",\"kind\":\"v/c\",\"devices\":[]}", false, "'1.0'");
        parse_refused("{\"cdiVersion\":\"1.0.0\",\"devices\":[]}", false, "'kind'");
        parse_refused("{\"cdiVersion\":\"1.0.0\",\"kind\":\"v\",\"devices\":[]}", false, "VENDOR/CLASS");
        parse_refused("{\"cdiVersion\":\"1.0.0\",\"kind\":\"v/c\"}", false, "'devices'");
        parse_refused("{\"cdiVersion\":\"1.0.0\",\"kind\":\"v/c\",\"devices\":[],\"extra\":1}", false, "'extra' in it is unknown");
        parse_refused(HEAD "{\"name\":\"-\",\"containerEdits\":{}}]}", false, "'-'");
        parse_refused(HEAD "{\"name\":\"a\"}]}", false, "'containerEdits' in it is missing");
        parse_refused(HEAD DEVICE("a", "\"env\":[1]") "]}", false, "right type");
        parse_refused(HEAD DEVICE("a", "\"deviceNodes\":[{\"path\":1}]") "]}", false, "right type");
        parse_refused("{\"cdiVersion\":\"0.6.0\",\"kind\":\"v/c\",\"devices\":[" DEVICE("a", "\"additionalGids\":[1]") "]}", false,
                      "not known to its version");
        parse_refused("{\"cdiVersion\":\"1.0.0\",\"kind\":\"v/c\",\"devices\":[" DEVICE("a", "\"netDevices\":{}") "]}", false,
                      "not known to its version");
}

static void test_yaml(void) {
        static const char good[] = "a: 1\nb: [x, 'y', \"1\", -5, 0x10, 010, ~, true, no, 1.5]\nc: {d: {e: f}}\n";
        _cleanup_error_ Error error = ERROR_INIT;
        _cleanup_json_ json_t *j = NULL;
        char deep[256];

        CHECK_EQ(yaml_to_json(good, strlen(good), &j, &error), 0);
        text_is(j, "{\"a\":1,\"b\":[\"x\",\"y\",\"1\",-5,16,8,null,true,\"no\",\"1.5\"],\"c\":{\"d\":{\"e\":\"f\"}}}");
        parse_refused("", true, "YAML");
        parse_refused("a: &x 1\nb: *x\n", true, "aliases");
        parse_refused("a: 1\n---\nb: 1\n", true, "one document");
        parse_refused("a: 1\na: 2\n", true, "twice");
        parse_refused("[a]: 1\n", true, "key");
        parse_refused("a: [", true, "YAML");
        parse_refused("a: \"\\0\"\n", true, "NUL");
        parse_refused("\tx", true, "YAML");
        memset(deep, '[', 200);
        deep[200] = 0;
        parse_refused(deep, true, "deep");
}

int main(void) {
        static const TestCase cases[] = {
                TEST_CASE(test_everything_is_added),
                TEST_CASE(test_which_file),
                TEST_CASE(test_edits_that_are_refused),
                TEST_CASE(test_specs_that_are_refused),
                TEST_CASE(test_yaml),
        };
        int r;

        CHECK(mkdtemp(root));
        (void) snprintf(first, sizeof first, "%s/a", root);
        (void) snprintf(second, sizeof second, "%s/b", root);
        r = test_main(cases, ELEMENTSOF(cases));
        (void) remove_tree(AT_FDCWD, root);
        return r;
}
