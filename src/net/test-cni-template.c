#include "basic/json-util.h"
#include "basic/string-util.h"
#include "basic/test.h"
#include "net/cni-template.h"

static void expect(const char *template, const char *cidrs, const char *text) {
        _cleanup_json_ json_t *j = NULL, *filled = NULL, *wanted = NULL;
        _cleanup_strv_free_ char **l = NULL;

        CHECK_EQ(json_parse(template, strlen(template), &j, NULL), 0);
        CHECK_EQ(json_parse(text, strlen(text), &wanted, NULL), 0);
        CHECK_EQ(cni_parse_cidrs(cidrs, &l, NULL), 0);
        CHECK_EQ(cni_template_fill(j, l, &filled, NULL), 0);
        CHECK(json_equal(filled, wanted));
}

static void test_words_are_replaced_where_they_stand(void) {
        static const char template[] = "{\"name\":\"n\",\"subnet\":\"@POD_CIDR@\",\"mtu\":1400,\"x\":[true,null,"
                                       "{\"dst\":\"@DEFAULT_ROUTE@\"}],\"text\":\"not @POD_CIDR@\"}";

        expect(template, "10.1.0.0/16",
               "{\"name\":\"n\",\"subnet\":\"10.1.0.0/16\",\"mtu\":1400,\"x\":[true,null,{\"dst\":\"0.0.0.0/0\"}],"
               "\"text\":\"not @POD_CIDR@\"}");
        expect(template, "fd00::/64,10.1.0.0/16",
               "{\"name\":\"n\",\"subnet\":\"fd00::/64\",\"mtu\":1400,\"x\":[true,null,{\"dst\":\"::/0\"}],"
               "\"text\":\"not @POD_CIDR@\"}");
}

static void test_arrays_are_repeated_for_each(void) {
        static const char template[] = "{\"ranges\":[\"@EACH_POD_CIDR@\",[{\"subnet\":\"@POD_CIDR@\"}]],"
                                       "\"routes\":[\"@EACH_POD_CIDR@\",{\"dst\":\"@DEFAULT_ROUTE@\"}]}";

        expect(template, "10.1.0.0/16",
               "{\"ranges\":[[{\"subnet\":\"10.1.0.0/16\"}]],\"routes\":[{\"dst\":\"0.0.0.0/0\"}]}");
        expect(template, "10.1.0.0/16, fd00::/64",
               "{\"ranges\":[[{\"subnet\":\"10.1.0.0/16\"}],[{\"subnet\":\"fd00::/64\"}]],"
               "\"routes\":[{\"dst\":\"0.0.0.0/0\"},{\"dst\":\"::/0\"}]}");
}

static void test_what_is_no_cidr_is_refused(void) {
        static const char *const wrong[] = {
                "", ",", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "x/8", "10.0.0.0/8,10.1.0.0/16",
                "10.0.0.0/8,fd00::/64,fd01::/64", "10.0.0.0/-1", "10.0.0.0/8/8", "10.0.0.0/8;rm",
        };

        for (size_t i = 0; i < ELEMENTSOF(wrong); i++) {
                _cleanup_error_ Error e = ERROR_INIT;
                char **l = NULL;

                CHECK(cni_parse_cidrs(wrong[i], &l, &e) < 0);
                CHECK_EQ(e.code, GRPC_INVALID_ARGUMENT);
                CHECK(!l);
        }
}

TEST_MAIN(TEST_CASE(test_words_are_replaced_where_they_stand), TEST_CASE(test_arrays_are_repeated_for_each),
          TEST_CASE(test_what_is_no_cidr_is_refused))
