#include "basic/json-util.h"
#include "basic/string-util.h"
#include "basic/test.h"

static int parse(const char *text, json_t **ret, Error *error) {
        return json_parse(text, strlen(text), ret, error);
}

static void test_members_are_got_by_type(void) {
        _cleanup_json_ json_t *j = NULL;

        CHECK_EQ(parse("{\"s\":\"x\",\"n\":1,\"a\":[1],\"o\":{}}", &j, NULL), 0);
        CHECK_STREQ(json_get_string(j, "s"), "x");
        CHECK(!json_get_string(j, "n") && !json_get_string(j, "absent") && !json_get_string(NULL, "s"));
        CHECK(json_get_array(j, "a") && !json_get_array(j, "o") && !json_get_array(NULL, "a"));
        CHECK(json_get_object(j, "o") && !json_get_object(j, "a") && !json_get_object(json_get_array(j, "a"), "o"));
}

static void test_what_is_not_json_is_an_error_that_says_where(void) {
        static const char *const bad[] = { "",       "{",        "{\"a\":}",      "nonsense",
                                           "[1,]",   "\"\xff\"", "\"a\\u0000b\"", "{} x",
                                           "[1e999]" };

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_error_ Error e = ERROR_INIT;
                json_t *j = NULL;

                CHECK(parse(bad[i], &j, &e) < 0);
                CHECK(!j);
                CHECK_EQ(e.code, GRPC_INVALID_ARGUMENT);
                CHECK(strstr(e.message, "line 1") && utf8_is_valid(e.message, strlen(e.message)));
        }
}

static void test_deep_nesting_is_refused_before_it_is_parsed(void) {
        enum { N = 1000000 };
        _cleanup_free_ char *text = malloc(N + 1);
        _cleanup_error_ Error e = ERROR_INIT;
        _cleanup_json_ json_t *j = NULL;
        char nested[2 * 128 + 1];

        CHECK(text);
        memset(text, '[', N);
        text[N] = 0;
        CHECK_EQ(parse(text, &j, &e), -EINVAL);
        CHECK(strstr(e.message, "nested deeper"));
        memset(nested, '[', 128);
        memset(nested + 128, ']', 128);
        nested[sizeof nested - 1] = 0;
        CHECK_EQ(parse(nested, &j, NULL), 0);
        j = (json_decref(j), NULL);
        /* Brackets in strings are text. */
        memset(text, '[', 1000);
        memcpy(text, "[\"\\\"", 4);
        memcpy(text + 1000, "\"]", 3);
        CHECK_EQ(parse(text, &j, NULL), 0);
        CHECK_EQ(strlen(json_string_value(json_array_get(j, 0))), 1000 - 3);
}

static void test_lists_of_strings_go_both_ways(void) {
        _cleanup_json_ json_t *a = NULL, *back = NULL, *bad = json_pack("[s, i]", "a", 1);
        _cleanup_strv_free_ char **l = NULL, **none = (char **) &l;

        CHECK_EQ(parse("[\"a\", \"\", \"\xc3\xa4\"]", &a, NULL), 0);
        CHECK_EQ(json_to_strv(a, &l), 0);
        CHECK_EQ(strv_length(l), 3);
        CHECK_STREQ(l[2], "\xc3\xa4");
        back = json_from_strv(l);
        CHECK(json_equal(a, back));
        CHECK_EQ(json_to_strv(NULL, &none), 0);
        CHECK(!none);
        CHECK_EQ(json_to_strv(bad, &none), -EINVAL);
        CHECK(!none);
}

TEST_MAIN(TEST_CASE(test_members_are_got_by_type), TEST_CASE(test_what_is_not_json_is_an_error_that_says_where),
          TEST_CASE(test_deep_nesting_is_refused_before_it_is_parsed), TEST_CASE(test_lists_of_strings_go_both_ways))
