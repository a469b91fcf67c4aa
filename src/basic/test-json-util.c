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

static void test_a_seal_tells_each_flipped_bit_and_each_cut(void) {
        _cleanup_json_ json_t *o = json_pack("{s:i, s:s, s:[s, s], s:{}}", "version", 1, "id", "a\"b", "l", "x", "y", "e");
        static const size_t flags[] = { JSON_COMPACT, JSON_INDENT(1), 0 };

        for (size_t k = 0; k < ELEMENTSOF(flags); k++) {
                _cleanup_free_ char *text = json_dump_sealed(o, flags[k]);
                _cleanup_json_ json_t *back = NULL;
                size_t n = strlen(text);

                CHECK_EQ(json_parse_sealed(text, n, &back, NULL), 0);
                CHECK(json_equal(o, back));
                for (size_t i = 0; i < n * 8; i++) {
                        json_t *j = NULL;

                        text[i / 8] ^= (char) (1 << i % 8);
                        /* The flip is found, or it was in the name of the seal, and what was sealed is right. */
                        if (json_parse_sealed(text, n, &j, NULL) >= 0) {
                                json_t *member;
                                const char *key;

                                json_object_foreach(o, key, member)
                                        CHECK(json_equal(member, json_object_get(j, key)));
                                CHECK(i / 8 > n - 22);
                        }
                        json_decref(j);
                        text[i / 8] ^= (char) (1 << i % 8);
                }
                for (size_t i = 0; i + 1 < n; i++) {
                        _cleanup_error_ Error error = ERROR_INIT;
                        json_t *j;

                        CHECK_EQ(json_parse_sealed(text, i, &j, &error), -EBADMSG);
                        CHECK(error_is_set(&error));
                }
        }
}

static void test_files_without_a_seal_are_taken(void) {
        static const char text[] = "{\"version\": 1}", *const bad[] = { "[]", "1", "{\"crc32\": \"00000000\"}", "{\"crc32\": 1}" };
        _cleanup_json_ json_t *j = NULL;

        CHECK_EQ(json_parse_sealed(text, strlen(text), &j, NULL), 0);
        CHECK_EQ(json_integer_value(json_object_get(j, "version")), 1);
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                json_t *o;

                CHECK_EQ(json_parse_sealed(bad[i], strlen(bad[i]), &o, NULL), -EBADMSG);
        }
}

TEST_MAIN(TEST_CASE(test_a_seal_tells_each_flipped_bit_and_each_cut), TEST_CASE(test_files_without_a_seal_are_taken), TEST_CASE(test_members_are_got_by_type), TEST_CASE(test_what_is_not_json_is_an_error_that_says_where),
          TEST_CASE(test_deep_nesting_is_refused_before_it_is_parsed), TEST_CASE(test_lists_of_strings_go_both_ways))
