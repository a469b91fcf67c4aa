#include <arpa/inet.h>

#include "basic/json-util.h"
#include "basic/string-util.h"
#include "basic/test.h"
#include "net/cni-result.h"

static int parse_n(const char *text, size_t size, CniResult *ret, Error *error) {
        _cleanup_json_ json_t *j = NULL;
        int r;

        r = json_parse(text, size, &j, error);
        return r < 0 ? r : cni_result_from_json(j, ret, error);
}

static void expect(const char *text, const char *ips) {
        _cleanup_(cni_result_done) CniResult r = {};
        _cleanup_error_ Error e = ERROR_INIT;
        _cleanup_free_ char *joined = NULL;

        CHECK_EQ(parse_n(text, strlen(text), &r, &e), 0);
        joined = strv_join(r.ips, " ");
        CHECK_STREQ(joined, ips);
        CHECK(r.json && r.json[0] == '{');
}

static void refuse(const char *text, const char *words) {
        _cleanup_(cni_result_done) CniResult r = {};
        _cleanup_error_ Error e = ERROR_INIT;

        CHECK_EQ(parse_n(text, strlen(text), &r, &e), -EIO);
        CHECK(!r.ips && !r.json);
        CHECK(strstr(e.message, words));
}

static const char full[] =
                "{\"cniVersion\":\"1.0.0\",\"interfaces\":[{\"name\":\"cni0\"},{\"name\":\"veth1\",\"sandbox\":\"\"},"
                "{\"name\":\"net1\",\"sandbox\":\"/proc/1/ns/net\"},{\"name\":\"eth0\",\"sandbox\":\"/proc/1/ns/"
                "net\"}],"
                "\"ips\":[{\"interface\":0,\"address\":\"10.0.0.1/24\"},{\"interface\":2,\"address\":\"10.0.0.2/24\"},"
                "{\"interface\":3,\"address\":\"10.0.0.3/24\",\"gateway\":\"10.0.0.1\"},"
                "{\"interface\":3,\"address\":\"fd00::3/64\"},{\"interface\":3,\"address\":\"10.0.0.3/24\"}],"
                "\"routes\":[{\"dst\":\"0.0.0.0/0\"}],\"dns\":{}}";

static void test_the_addresses_of_eth0_are_taken_in_order_and_once(void) {
        expect(full, "10.0.0.3 fd00::3");
}

static void test_addresses_of_another_interface_are_taken_where_eth0_has_none(void) {
        expect("{\"interfaces\":[{\"name\":\"cni0\"},{\"name\":\"vm0\",\"sandbox\":\"x\"}],\"ips\":["
               "{\"interface\":0,\"address\":\"10.0.0.1/24\"},{\"interface\":1,\"address\":\"10.0.0.2/24\"}]}",
               "10.0.0.2");
}

static void test_an_address_without_an_interface_is_the_pods(void) {
        expect("{\"ips\":[{\"version\":\"4\",\"address\":\"10.0.0.2/24\"}]}", "10.0.0.2");
        expect("{\"ips\":[{\"interface\":-1,\"address\":\"10.0.0.2\"}]}", "10.0.0.2");
        expect("{\"interfaces\":[],\"ips\":[{\"interface\":7,\"address\":\"::1/128\"}]}", "::1");
}

static void test_old_results_are_understood(void) {
        expect("{\"ip4\":{\"ip\":\"10.0.0.2/24\",\"gateway\":\"10.0.0.1\"},\"dns\":{}}", "10.0.0.2");
        expect("{\"ip6\":{\"ip\":\"fd00::2/64\"},\"ip4\":{\"ip\":\"10.0.0.2/24\"}}", "10.0.0.2 fd00::2");
}

static void test_what_is_no_address_is_refused(void) {
        _cleanup_(buffer_done) Buffer many = BUFFER_INIT;

        refuse("{}", "no address");
        refuse("{\"ips\":{}}", "no address");
        refuse("{\"ips\":[{\"interface\":0,\"address\":\"10.0.0.1/24\"}],\"interfaces\":[{\"name\":\"br\"}]}",
               "no address of the pod");
        refuse("{\"ips\":[7]}", "is no address");
        refuse("{\"ips\":[{\"address\":5}]}", "is no address");
        refuse("{\"ips\":[{\"address\":\"/24\"}]}", "is no address");
        refuse("{\"ips\":[{\"address\":\"10.0.0.256/24\"}]}", "\"10.0.0.256/24\" is no address");
        refuse("{\"ips\":[{\"address\":\"10.0.0.2 /24\"}]}", "is no address");
        refuse("{\"ip4\":{\"ip\":\"\"}}", "is no address");
        CHECK_EQ(buffer_appendf(&many, "{\"ips\":[{\"address\":\"10.1.0.0\"}"), 0);
        for (int i = 0; i < 1000; i++)
                CHECK_EQ(buffer_appendf(&many, ",{\"address\":\"10.0.%d.%d\"}", i / 256, i % 256), 0);
        CHECK_EQ(buffer_appendf(&many, "]}"), 0);
        refuse(many.data, "more than 64 addresses");
}

/* Whatever a plugin prints is an error, or addresses. */
static void test_damaged_results_give_addresses_or_errors(void) {
        static const char pieces[] = "{}[]\",:0129.\\nul/-etrf \xff";
        uint32_t seed = 1;
        int good = 0, bad = 0;

        for (int i = 0; i < 20000; i++) {
                _cleanup_(cni_result_done) CniResult r = {};
                _cleanup_error_ Error e = ERROR_INIT;
                char text[sizeof full];
                size_t n = sizeof full - 1;

                memcpy(text, full, sizeof full);
                for (uint32_t k = 0; k < 1 + seed % 3; k++) {
                        seed = seed * 1664525 + 1013904223;
                        text[(seed >> 8) % n] = pieces[(seed >> 3) % STRLEN("{}[]\",:0129.\\nul/-etrf \xff")];
                }
                if (seed % 16 == 0)
                        n = (seed >> 8) % n;
                if (parse_n(text, n, &r, &e) < 0) {
                        CHECK(error_is_set(&e) && !r.ips && !r.json);
                        CHECK(utf8_is_valid(e.message, strlen(e.message)));
                        bad++;
                        continue;
                }
                good++;
                CHECK(strv_length(r.ips) > 0);
                STRV_FOREACH(ip, r.ips) {
                        struct in6_addr a;

                        CHECK(inet_pton(strchr(*ip, ':') ? AF_INET6 : AF_INET, *ip, &a) == 1);
                }
        }
        CHECK(good > 1000 && bad > 1000);
}

TEST_MAIN(TEST_CASE(test_the_addresses_of_eth0_are_taken_in_order_and_once),
          TEST_CASE(test_addresses_of_another_interface_are_taken_where_eth0_has_none),
          TEST_CASE(test_an_address_without_an_interface_is_the_pods), TEST_CASE(test_old_results_are_understood),
          TEST_CASE(test_what_is_no_address_is_refused), TEST_CASE(test_damaged_results_give_addresses_or_errors))
