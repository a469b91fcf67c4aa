#include "basic/message.h"
#include "basic/message-equal.h"

#include "basic/test.h"
#include "runtime.pb.h"

static const MessageRaw raw_list[] = { { runtime_v1_KeyValue_fields, runtime_v1_KeyValue_value_tag }, {} };

/* Raw fields, to make messages nanopb's encoder would not. */
typedef struct Raw {
        uint8_t data[512 * 1024];
        size_t n;
} Raw;
static Raw raw;

static void raw_varint(uint64_t v) {
        for (; v >= 0x80; v >>= 7)
                raw.data[raw.n++] = (uint8_t) v | 0x80;
        raw.data[raw.n++] = (uint8_t) v;
}

static void raw_bytes(uint32_t tag, const void *data, size_t n) {
        raw_varint(tag << 3 | 2);
        raw_varint(n);
        memcpy(raw.data + raw.n, data, n);
        raw.n += n;
}

static int decode_raw(const pb_msgdesc_t *fields, void *ret, Error *error) {
        return message_decode(fields, raw.data, raw.n, ret, error);
}

static void expect_refused(const pb_msgdesc_t *fields, const char *text) {
        static union {
                runtime_v1_CreateContainerRequest create;
                runtime_v1_RunPodSandboxRequest run;
        } u;
        _cleanup_error_ Error error = ERROR_INIT;

        memset(&u, 0, sizeof u);
        CHECK_EQ(decode_raw(fields, &u, &error), -EINVAL);
        CHECK_EQ(error.code, GRPC_INVALID_ARGUMENT);
        if (!strstr(error.message, text)) {
                fprintf(stderr, "\"%s\" is not in: %s\n", text, error.message);
                abort();
        }
}

#define ENCODE(name, message, max, ret, ret_size, error)                                                              \
        message_encode(runtime_v1_##name##_fields, (message), /* allocator= */ NULL, (max), (ret), (ret_size), (error))

/* A container configuration that uses every kind of field. */
static runtime_v1_CreateContainerRequest sample(void) {
        static char *args[] = { (char *) "a", (char *) "", (char *) "gr\xc3\xbc\xc3\x9f" };
        static runtime_v1_ContainerConfig_LabelsEntry labels[] = {
                { (char *) "k", (char *) "v" },
                { (char *) "empty", NULL },
        };
        static runtime_v1_Mount mounts[2] = {
                { .container_path = (char *) "/a",
                  .propagation = runtime_v1_MountPropagation_PROPAGATION_BIDIRECTIONAL },
                { .host_path = (char *) "/b", .readonly = true },
        };
        static int64_t groups[] = { 0, -1, 1, INT64_MAX, INT64_MIN };
        static runtime_v1_KeyValue envs[1] = { { .key = (char *) "K" } };
        runtime_v1_CreateContainerRequest r = { .pod_sandbox_id = (char *) "pod" };

        envs[0].value = (char *) "\xff\xfe=x";
        r.has_config = true;
        r.config.has_metadata = true;
        r.config.metadata.name = (char *) "n";
        r.config.metadata.attempt = UINT32_MAX;
        r.config.args = args;
        r.config.args_count = 3;
        r.config.labels = labels;
        r.config.labels_count = 2;
        r.config.mounts = mounts;
        r.config.mounts_count = 2;
        r.config.envs = envs;
        r.config.envs_count = 1;
        r.config.tty = true;
        r.config.stop_signal = runtime_v1_Signal_SIGRTMAX;
        r.config.has_linux = true;
        r.config.linux.has_resources = true;
        r.config.linux.resources.oom_score_adj = -998;
        r.config.linux.resources.memory_limit_in_bytes = INT64_MAX;
        r.config.linux.has_security_context = true;
        r.config.linux.security_context.has_run_as_user = true; /* with the value 0 */
        r.config.linux.security_context.supplemental_groups = groups;
        r.config.linux.security_context.supplemental_groups_count = ELEMENTSOF(groups);
        return r;
}

static void test_encodes_what_nanopb_encodes(void) {
        runtime_v1_CreateContainerRequest request = sample();
        _cleanup_error_ Error error = ERROR_INIT;
        _cleanup_free_ void *ours = NULL;
        uint8_t theirs[4096];
        pb_ostream_t stream = pb_ostream_from_buffer(theirs, sizeof theirs);
        size_t size;

        CHECK(pb_encode(&stream, runtime_v1_CreateContainerRequest_fields, &request));
        CHECK_EQ(ENCODE(CreateContainerRequest, &request, SIZE_MAX, &ours, &size, &error), 0);
        CHECK_EQ(size, stream.bytes_written);
        CHECK(memcmp(ours, theirs, size) == 0);
}

static void test_round_trip(void) {
        runtime_v1_CreateContainerRequest request = sample(), back = {};
        _cleanup_error_ Error error = ERROR_INIT;
        _cleanup_free_ void *first = NULL, *second = NULL;
        size_t n1, n2;

        CHECK_EQ(ENCODE(CreateContainerRequest, &request, SIZE_MAX, &first, &n1, &error), 0);
        CHECK_EQ(message_decode(runtime_v1_CreateContainerRequest_fields, first, n1, &back, &error), 0);
        CHECK_STREQ(back.config.args[2], "gr\xc3\xbc\xc3\x9f");
        CHECK_EQ(back.config.linux.security_context.supplemental_groups[4], INT64_MIN);
        CHECK(back.config.linux.security_context.has_run_as_user);
        CHECK_STREQ(back.config.envs[0].value, "\xff\xfe=x");
        CHECK_EQ(back.config.linux.resources.oom_score_adj, -998);
        CHECK_EQ(ENCODE(CreateContainerRequest, &back, SIZE_MAX, &second, &n2, &error), 0);
        CHECK_EQ(n1, n2);
        CHECK(memcmp(first, second, n1) == 0);
        pb_release(runtime_v1_CreateContainerRequest_fields, &back);
}

/* Doubles and 64-bit numbers, as nanopb writes them. */
static void test_numbers(void) {
        runtime_v1_PsiStats psi = { .has_Full = true, .Full = { UINT64_MAX, 0.25, -1e300, 0 } };
        _cleanup_error_ Error error = ERROR_INIT;
        _cleanup_free_ void *ours = NULL;
        uint8_t theirs[256];
        pb_ostream_t stream = pb_ostream_from_buffer(theirs, sizeof theirs);
        size_t size;

        CHECK(pb_encode(&stream, runtime_v1_PsiStats_fields, &psi));
        CHECK_EQ(ENCODE(PsiStats, &psi, SIZE_MAX, &ours, &size, &error), 0);
        CHECK_EQ(size, stream.bytes_written);
        CHECK(memcmp(ours, theirs, size) == 0);
}

/* Lengths of one, two, three and four bytes: the submessage is moved by the right amount. */
static void test_submessages_of_all_lengths(void) {
        static const size_t lengths[] = { 0,   1,   120,   121,   122,   123,   124,   125,     126,    127,
                                          128, 129, 16370, 16380, 16383, 16384, 70000, 2097151, 2097160 };
        _cleanup_free_ char *text = malloc(2097161);

        CHECK(text);
        for (size_t i = 0; i < ELEMENTSOF(lengths); i++) {
                runtime_v1_PodSandboxStatusResponse out = {}, in = {};
                _cleanup_error_ Error error = ERROR_INIT;
                _cleanup_free_ void *data = NULL;
                size_t size;

                memset(text, 'x', lengths[i]);
                text[lengths[i]] = '\0';
                out.has_status = true;
                out.status.has_metadata = true;
                out.status.metadata.name = text;
                out.timestamp = 7;
                CHECK_EQ(ENCODE(PodSandboxStatusResponse, &out, SIZE_MAX, &data, &size, &error), 0);
                CHECK_EQ(message_decode(runtime_v1_PodSandboxStatusResponse_fields, data, size, &in, &error), 0);
                CHECK_EQ(in.timestamp, 7);
                CHECK_STREQ(in.status.metadata.name ? in.status.metadata.name : "", text);
                pb_release(runtime_v1_PodSandboxStatusResponse_fields, &in);
        }
}

static void test_empty_message(void) {
        runtime_v1_StopPodSandboxResponse response = {};
        _cleanup_error_ Error error = ERROR_INIT;
        _cleanup_free_ void *data = NULL;
        size_t size = 1;

        CHECK_EQ(ENCODE(StopPodSandboxResponse, &response, 100, &data, &size, &error), 0);
        CHECK_EQ(size, 0);
        CHECK(data);
        CHECK_EQ(message_decode(runtime_v1_StopPodSandboxResponse_fields, NULL, 0, &response, &error), 0);
}

static void test_encode_refuses_bad_utf8(void) {
        runtime_v1_ContainerStatusResponse response = { .has_status = true, .status.message = (char *) "x\xff" };
        _cleanup_error_ Error error = ERROR_INIT;
        void *data = NULL;
        size_t size;

        CHECK(ENCODE(ContainerStatusResponse, &response, SIZE_MAX, &data, &size, &error) < 0);
        CHECK_EQ(error.code, GRPC_INTERNAL);
        CHECK(strstr(error.message, "1.11"));
        CHECK(!data);
}

static void test_encode_keeps_the_limit(void) {
        runtime_v1_VersionResponse response = { .version = (char *) "0123456789" };
        _cleanup_error_ Error error = ERROR_INIT;
        _cleanup_free_ void *data = NULL;
        void *none = NULL;
        size_t size;

        CHECK_EQ(ENCODE(VersionResponse, &response, 12, &data, &size, &error), 0);
        CHECK_EQ(size, 12);
        CHECK(ENCODE(VersionResponse, &response, 11, &none, &size, &error) < 0);
        CHECK_EQ(error.code, GRPC_RESOURCE_EXHAUSTED);
        CHECK(strstr(error.message, "11 bytes"));
}

static bool put_containers(pb_ostream_t *stream, const pb_field_iter_t *field, void *const *arg) {
        for (int i = 0; i < *(const int *) *arg; i++) {
                runtime_v1_Container c = { .id = (char *) "id", .created_at = i };

                if (!message_put(stream, field, runtime_v1_Container_fields, &c))
                        return false;
        }
        return true;
}

static bool put_output(pb_ostream_t *stream, const pb_field_iter_t *field, void *const *arg) {
        return message_put_bytes(stream, field, *arg, strlen(*arg));
}

static void test_callbacks(void) {
        int n = 3;
        runtime_v1_ListContainersResponse list = { .containers = { { .encode = put_containers }, &n } };
        runtime_v1_ExecSyncResponse exec = {
                .stdout = { { .encode = put_output }, (void *) "out\xff" },
                .stderr = { { .encode = put_output }, (void *) "" },
                .exit_code = -1,
        };
        static const uint8_t expect_list[] = { 10,  4,  10, 2,  'i', 'd', 10, 6,   10,  2,  'i',
                                               'd', 56, 1,  10, 6,   10,  2,  'i', 'd', 56, 2 };
        static const uint8_t expect_exec[] = { 10,   4,    'o',  'u',  't',  0xff, 24,   0xff, 0xff,
                                               0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1 };
        _cleanup_error_ Error error = ERROR_INIT;
        _cleanup_free_ void *a = NULL, *b = NULL;
        void *none = NULL;
        size_t size;

        CHECK_EQ(ENCODE(ListContainersResponse, &list, SIZE_MAX, &a, &size, &error), 0);
        CHECK_EQ(size, sizeof expect_list);
        CHECK(memcmp(a, expect_list, size) == 0);
        CHECK_EQ(ENCODE(ExecSyncResponse, &exec, SIZE_MAX, &b, &size, &error), 0);
        CHECK_EQ(size, sizeof expect_exec);
        CHECK(memcmp(b, expect_exec, size) == 0);
        /* A limit met inside a callback keeps its words. */
        CHECK(ENCODE(ListContainersResponse, &list, 10, &none, &size, &error) < 0);
        CHECK_EQ(error.code, GRPC_RESOURCE_EXHAUSTED);
}

static void test_decode_refuses_bad_utf8_and_nul(void) {
        raw.n = 0;
        raw_bytes(1, "pod\xc3", 4);
        expect_refused(runtime_v1_CreateContainerRequest_fields, "field 1 of the message is not UTF-8");
        raw.n = 0;
        raw_bytes(1, "p\0d", 3);
        expect_refused(runtime_v1_CreateContainerRequest_fields, "field 1 of the message has a NUL");
        /* deep inside: config.args[0] */
        raw.n = 0;
        raw_bytes(2, "\x22\x02\xed\xa0", 4);
        expect_refused(runtime_v1_CreateContainerRequest_fields, "field 2.4 of the message is not UTF-8");
        /* a value is bytes, and may be anything */
        raw.n = 0;
        raw_bytes(2, "\x32\x03\x12\x01\xff", 5);
        runtime_v1_CreateContainerRequest ok = {};
        _cleanup_error_ Error error = ERROR_INIT;
        CHECK_EQ(decode_raw(runtime_v1_CreateContainerRequest_fields, &ok, &error), 0);
        CHECK_STREQ(ok.config.envs[0].value, "\xff");
        pb_release(runtime_v1_CreateContainerRequest_fields, &ok);
}

static void test_decode_names_limits(void) {
        static char big[MESSAGE_BYTES_MAX + 16];
        runtime_v1_LinuxContainerSecurityContext full = {};
        _cleanup_error_ Error error = ERROR_INIT;

        /* A list one too long, in a submessage. */
        Raw *inner = calloc(1, sizeof(Raw));
        CHECK(inner);
        raw.n = 0;
        for (unsigned i = 0; i < MESSAGE_LIST_MAX + 1; i++)
                raw_bytes(5, "", 0); /* port_mappings */
        memcpy(inner, &raw, sizeof raw);
        raw.n = 0;
        raw_bytes(1, inner->data, inner->n);
        free(inner);
        expect_refused(runtime_v1_RunPodSandboxRequest_fields,
                       "field 1.5 of the message is a list of more than 65535 entries");

        /* As many as may be. nanopb grows lists one by one, and the sanitizer's realloc() copies each time. */
#ifdef __SANITIZE_ADDRESS__
        const unsigned most = 5000;
#else
        const unsigned most = MESSAGE_LIST_MAX;
#endif
        raw.n = 0;
        for (unsigned i = 0; i < most; i++)
                raw_bytes(13, "x", 1); /* masked_paths */
        CHECK_EQ(decode_raw(runtime_v1_LinuxContainerSecurityContext_fields, &full, &error), 0);
        CHECK_EQ(full.masked_paths_count, most);
        CHECK_STREQ(full.masked_paths[most - 1], "x");
        pb_release(runtime_v1_LinuxContainerSecurityContext_fields, &full);

        /* packed numbers count one by one: supplemental_groups */
        raw.n = 0;
        raw_bytes(8, big, MESSAGE_LIST_MAX + 1);
        runtime_v1_LinuxContainerSecurityContext sc = {};
        CHECK_EQ(decode_raw(runtime_v1_LinuxContainerSecurityContext_fields, &sc, &error), -EINVAL);
        CHECK(strstr(error.message, "field 8 of the message is a list of more than 65535"));

        _cleanup_error_ Error error2 = ERROR_INIT;
        runtime_v1_KeyValue kv = {};
        raw.n = 0;
        raw_bytes(2, big, MESSAGE_BYTES_MAX + 1);
        CHECK_EQ(decode_raw(runtime_v1_KeyValue_fields, &kv, &error2), -EINVAL);
        CHECK(strstr(error2.message, "field 2 of the message has a NUL"));

        /* a string may be longer */
        _cleanup_error_ Error error3 = ERROR_INIT;
        memset(big, 'x', sizeof big);
        raw.n = 0;
        raw_bytes(1, big, sizeof big);
        memset(big, 0xff, sizeof big); /* and one that is raw need not be UTF-8 */
        raw_bytes(2, big, sizeof big);
        CHECK_EQ(decode_raw(runtime_v1_KeyValue_fields, &kv, &error3), 0);
        CHECK_EQ(strlen(kv.key), sizeof big);
        CHECK_EQ(strlen(kv.value), sizeof big);
        pb_release(runtime_v1_KeyValue_fields, &kv);
}

static void test_decode_refuses_damage(void) {
        static const struct {
                const char *data;
                size_t n;
        } bad[] = {
                { "\x0a", 1 },             /* no length */
                { "\x0a\x05x", 3 },        /* cut off */
                { "\x00\x00", 2 },         /* field 0 */
                { "\x12\x02\x0a\x09", 4 }, /* an inner length beyond the outer one */
                { "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11 },
                { "\x0b\x0c", 2 }, /* a group */
                { "\x08\x01", 2 }, /* a number where a string belongs */
                { "\x12\x02\x70\x80", 4 },
                { "\x09\x01\x02", 3 },
                { "\x9a\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12 }, /* unknown field, length 2^64 - 1 */
        };

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                memcpy(raw.data, bad[i].data, bad[i].n);
                raw.n = bad[i].n;
                expect_refused(runtime_v1_CreateContainerRequest_fields, "the message");
        }
}

static void test_decode_skips_unknown_fields(void) {
        runtime_v1_VersionRequest request = {};
        _cleanup_error_ Error error = ERROR_INIT;
        static const char data[] = "\xa2\x06\x02\xff\xff\xa8\x06\x01\x0a\x02v1\xb1\x06"
                                   "12345678";

        CHECK_EQ(message_decode(runtime_v1_VersionRequest_fields, data, sizeof data - 1, &request, &error), 0);
        CHECK_STREQ(request.version, "v1");
        pb_release(runtime_v1_VersionRequest_fields, &request);
}

/* Every prefix and every changed byte of a real message: decoded or refused, never more. */
static void test_decode_of_mutations(void) {
        runtime_v1_CreateContainerRequest request = sample();
        _cleanup_error_ Error error = ERROR_INIT;
        _cleanup_free_ uint8_t *data = NULL;
        size_t size, refused = 0;

        CHECK_EQ(ENCODE(CreateContainerRequest, &request, SIZE_MAX, (void **) &data, &size, &error), 0);
        for (size_t i = 0; i < size; i++) {
                for (unsigned k = 0; k < 9; k++) {
                        runtime_v1_CreateContainerRequest back = {};
                        _cleanup_error_ Error e = ERROR_INIT;
                        _cleanup_free_ uint8_t *copy = malloc(size);
                        int r;

                        CHECK(copy);
                        memcpy(copy, data, size);
                        if (k < 8)
                                copy[i] ^= 1U << k;
                        r = message_decode(runtime_v1_CreateContainerRequest_fields, copy, k < 8 ? size : i, &back,
                                           &e);
                        if (r < 0)
                                refused++;
                        CHECK((r < 0) == error_is_set(&e));
                        pb_release(runtime_v1_CreateContainerRequest_fields, &back);
                }
        }
        CHECK(refused > size);
}

static bool same(const runtime_v1_CreateContainerRequest *a, const runtime_v1_CreateContainerRequest *b) {
        return message_equal(runtime_v1_CreateContainerRequest_fields, a, b);
}

static void test_raw_fields_are_told(void) {
        runtime_v1_KeyValue kv = {};
        _cleanup_error_ Error error = ERROR_INIT;

        message_set_raw(NULL);
        raw.n = 0;
        raw_bytes(2, "\xff", 1);
        CHECK_EQ(decode_raw(runtime_v1_KeyValue_fields, &kv, &error), -EINVAL);
        CHECK(strstr(error.message, "field 2 of the message is not UTF-8"));
        message_set_raw(raw_list);
        CHECK_EQ(decode_raw(runtime_v1_KeyValue_fields, &kv, NULL), 0);
        CHECK_STREQ(kv.value, "\xff");
        pb_release(runtime_v1_KeyValue_fields, &kv);
}

static void test_equal(void) {
        runtime_v1_CreateContainerRequest a = sample(), b = sample(), empty = {}, decoded = {};
        runtime_v1_ContainerConfig_LabelsEntry turned[2], twice[2];
        _cleanup_free_ void *data = NULL;
        runtime_v1_Mount mounts[2];
        size_t size;

        CHECK(same(&a, &b) && same(&empty, &empty) && !same(&a, &empty) && !same(&empty, &a));
        CHECK_EQ(ENCODE(CreateContainerRequest, &a, 65536, &data, &size, NULL), 0);
        CHECK_EQ(message_decode(runtime_v1_CreateContainerRequest_fields, data, size, &decoded, NULL), 0);
        CHECK(same(&a, &decoded) && same(&decoded, &a));
        pb_release(runtime_v1_CreateContainerRequest_fields, &decoded);

        /* a map in another order, but not a list */
        CHECK_EQ(b.config.labels_count, 2);
        turned[0] = b.config.labels[1];
        turned[1] = b.config.labels[0];
        b.config.labels = turned;
        CHECK(same(&a, &b));
        twice[0] = twice[1] = turned[0];
        b.config.labels = twice;
        CHECK(!same(&a, &b));
        b = sample();
        CHECK_EQ(b.config.mounts_count, 2);
        mounts[0] = b.config.mounts[1];
        mounts[1] = b.config.mounts[0];
        b.config.mounts = mounts;
        CHECK(!same(&a, &b));

        /* each kind of field */
        b = sample();
        b.pod_sandbox_id = (char *) "other";
        CHECK(!same(&a, &b));
        b = sample();
        b.config.args_count--;
        CHECK(!same(&a, &b));
        b = sample();
        b.config.metadata.attempt++;
        CHECK(!same(&a, &b));
        b = sample();
        b.config.tty = !b.config.tty;
        CHECK(!same(&a, &b));
        b = sample();
        b.has_sandbox_config = !b.has_sandbox_config;
        CHECK(!same(&a, &b));
}

TEST_MAIN(TEST_CASE(test_raw_fields_are_told), TEST_CASE(test_equal), TEST_CASE(test_encodes_what_nanopb_encodes), TEST_CASE(test_round_trip), TEST_CASE(test_numbers),
          TEST_CASE(test_submessages_of_all_lengths), TEST_CASE(test_empty_message),
          TEST_CASE(test_encode_refuses_bad_utf8), TEST_CASE(test_encode_keeps_the_limit), TEST_CASE(test_callbacks),
          TEST_CASE(test_decode_refuses_bad_utf8_and_nul), TEST_CASE(test_decode_names_limits),
          TEST_CASE(test_decode_refuses_damage), TEST_CASE(test_decode_skips_unknown_fields),
          TEST_CASE(test_decode_of_mutations))
