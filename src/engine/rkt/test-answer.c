/* rkt's answers, as it gave them when it was measured, and what it might give when it is broken. */

#include "engine/rkt/answer.h"

#include "basic/string-util.h"
#include "basic/test.h"
#include "engine/rkt/call.h"

#define UUID "669f2088-e718-4bfd-af98-83de7b17c052"

static int parse_app(const char *text, RktApp *ret) {
        return rkt_parse_app(text, strlen(text), ret, NULL);
}

static void apps_are_understood(void) {
        RktApp a;

        CHECK_EQ(parse_app("{\"name\":\"0-c2\",\"state\":\"exited\",\"created_at\":1795490089810165122,\"started_at\":"
                           "1795490089852243622,\"finished_at\":1795490090982482657,\"exit_code\":15,\"image_id\":\"sha512-80\"}\n",
                           &a), 0);
        CHECK_EQ(a.state, RKT_APP_EXITED);
        CHECK_EQ(a.created_usec, UINT64_C(1795490089810165));
        CHECK_EQ(a.finished_usec, UINT64_C(1795490090982482));
        CHECK_EQ(a.exit_code, 15);
        CHECK_EQ(parse_app("{\"name\":\"0-k\",\"state\":\"exited\",\"created_at\":1795490276656237077}", &a), 0);
        CHECK_EQ(a.exit_code, -1); /* it went with its pod */
        CHECK_EQ(a.finished_usec, 0);
        CHECK_EQ(parse_app("{\"name\":\"a\",\"state\":\"created\"}", &a), 0);
        CHECK_EQ(a.state, RKT_APP_CREATED);
        CHECK_EQ(parse_app("{\"name\":\"a\",\"state\":\"running\"}", &a), 0);
        CHECK_EQ(a.state, RKT_APP_RUNNING);
        CHECK_EQ(parse_app("{\"name\":\"a\",\"state\":\"dancing\"}", &a), 0);
        CHECK_EQ(a.state, RKT_APP_UNKNOWN);
}

static void garbage_is_an_error_with_its_text(void) {
        static const char *const texts[] = { "", "\x01\xff{not json", "[]", "{}", "null", "{\"state\":3}", "nullx" };
        RktApp a;

        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                _cleanup_error_ Error error = ERROR_INIT;

                CHECK(rkt_parse_app(texts[i], strlen(texts[i]), &a, &error) < 0);
                CHECK_EQ(error.code, GRPC_INTERNAL);
                CHECK(strstr(error.message, "rkt's answer to app status") != NULL);
        }
}

static void pods_are_understood(void) {
        static const char text[] =
                "{\"name\":\"" UUID "\",\"state\":\"running\",\"networks\":[{\"netName\":\"rkt.kubernetes.io\",\"ip\":"
                "\"10.88.0.2\"},{\"netName\":\"deb031\",\"ip\":\"\",\"mask\":\"\"},{\"netName\":\"second\",\"ip\":\"10.9.0.1\"}],"
                "\"user_annotations\":{\"org.rktlet1/pod-id\":\"abc\"}}";
        _cleanup_json_ json_t *o = NULL, *none = NULL;
        _cleanup_strv_free_ char **ips = NULL;

        CHECK_EQ(rkt_parse_json("status", text, strlen(text), &o, NULL), 0);
        CHECK(rkt_pod_is_running(o));
        CHECK_STREQ(rkt_pod_annotation(o, "org.rktlet1/pod-id"), "abc");
        CHECK(!rkt_pod_annotation(o, "x"));
        CHECK_EQ(rkt_pod_addresses(o, &ips), 0);
        CHECK_EQ(strv_length(ips), 2);
        CHECK_STREQ(ips[0], "10.88.0.2");
        CHECK_STREQ(ips[1], "10.9.0.1");
        CHECK_EQ(rkt_parse_json("list", "null\n", 5, &none, NULL), 0);
        CHECK_EQ(json_array_size(none), 0);
}

static void names_are_checked(void) {
        CHECK(rkt_uuid_is_valid(UUID));
        CHECK(!rkt_uuid_is_valid(UUID "0"));
        CHECK(!rkt_uuid_is_valid("669f2088-e718-4bfd-af98-83de7b17c05"));
        CHECK(!rkt_uuid_is_valid("../../../../../../../../etc/passwd00"));
        CHECK(!rkt_uuid_is_valid(""));
        CHECK(rkt_hash_is_valid("sha512-80d5f3e52921236315392572f7d2fd9aaa4bc1c0854babd0e6781ef1506f4d14"));
        CHECK(!rkt_hash_is_valid("sha512-80d5f3e52921236315392572f7d2fd9a"));
        CHECK(!rkt_hash_is_valid("sha256:80d5f3e52921236315392572f7d2fd9aaa4bc1c0854babd0e6781ef1506f4d14"));
}

static void check_error(const char *words, GrpcCode code, const char *kept) {
        _cleanup_error_ Error error = ERROR_INIT;

        CHECK(rkt_error(&(RktResult) { .exit_code = 254, .error = (char *) words }, "do it", &error) < 0);
        CHECK_EQ(error.code, code);
        CHECK(strstr(error.message, kept) != NULL);
        CHECK(startswith(error.message, "cannot do it: rkt ended with status 254") != NULL);
}

static void words_become_codes_and_are_kept(void) {
        check_error("add: group \"rkt\" not found, will use default gid when rendering images\n"
                    "add: error adding app to pod: error: multiple apps with name 0-c1\n",
                    GRPC_ALREADY_EXISTS, ": add: error adding app to pod: error: multiple apps with name 0-c1");
        check_error("status: problem retrieving pod: no matches found for \"zzz\"\n", GRPC_NOT_FOUND, "zzz");
        check_error("rm: error removing app: error: nonexistent app \"0-c3\"\n", GRPC_NOT_FOUND, "0-c3");
        check_error("add: pod \"x\" isn't currently running\n", GRPC_FAILED_PRECONDITION, "isn't currently running");
        check_error("add: supervisor for pod \"x\" is not yet ready\n", GRPC_UNAVAILABLE, "not yet ready");
        check_error("status: error waiting for pod readiness: context deadline exceeded\n", GRPC_DEADLINE_EXCEEDED, "readiness");
        check_error("fetch: attempted fallback to API v1 but not supported\n", GRPC_NOT_FOUND, "API v1");
        check_error("fetch: Get \"https://127.0.0.1:5999/v2/\": dial tcp 127.0.0.1:5999: connect: connection refused\n",
                    GRPC_UNAVAILABLE, "connection refused");
        check_error("Error: unknown command \"app\" for \"rkt\"\nRun 'rkt --help' for usage.\n", GRPC_FAILED_PRECONDITION,
                    "unknown command \"app\" for \"rkt\"; Run");
        check_error("add: error adding app to pod: exit status 254\n", GRPC_INTERNAL, "exit status 254");
        check_error("\n", GRPC_INTERNAL, "and said nothing");
        check_error("a\001b\xff\n", GRPC_INTERNAL, "a b");
}

TEST_MAIN(TEST_CASE(apps_are_understood), TEST_CASE(garbage_is_an_error_with_its_text), TEST_CASE(pods_are_understood),
          TEST_CASE(names_are_checked), TEST_CASE(words_become_codes_and_are_kept))
