#include "basic/string-util.h"
#include "basic/test.h"

static void test_lists_grow_split_and_join(void) {
        _cleanup_strv_free_ char **l = NULL, **copy = NULL;
        _cleanup_free_ char *joined = NULL;

        CHECK_EQ(strv_split(":a::b:c:", ":", &l), 0);
        for (int i = 0; i < 100; i++)
                CHECK_EQ(strv_extendf(&l, "%d", i), 0);
        CHECK_EQ(strv_length(l), 103);
        CHECK(strv_contains(l, "99") && !strv_contains(l, "100"));
        copy = strv_copy(l);
        CHECK(copy && strv_length(copy) == 103);
        joined = strv_join((char *[]) { (char *) "x", (char *) "y", NULL }, ", ");
        CHECK_STREQ(joined, "x, y");
}

static void test_numbers_are_whole_and_bounded(void) {
        uint64_t v;
        uint32_t w;

        CHECK_EQ(parse_u64("18446744073709551615", &v), 0);
        CHECK(v == UINT64_MAX);
        CHECK_EQ(parse_u64("18446744073709551616", &v), -ERANGE);
        CHECK_EQ(parse_u32("4294967296", &w), -ERANGE);
        const char *const bad[] = { "", " 1", "1 ", "-1", "+1", "0x1", "1a" };
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                CHECK_EQ(parse_u64(bad[i], &v), -EINVAL);
}

static void test_utf8_is_judged_as_rfc_3629_does(void) {
        const char *const good[] = { "", "a", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xef\xbf\xbd" };
        const char *const bad[] = { "\x80",         "\xc0\x80",         "\xc3", "\xe0\x80\x80",
                                    "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff" };
        _cleanup_free_ char *s = NULL;

        for (size_t i = 0; i < ELEMENTSOF(good); i++)
                CHECK(utf8_is_valid(good[i], strlen(good[i])));
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                CHECK(!utf8_is_valid(bad[i], strlen(bad[i])));
        s = utf8_sanitize("a\xff" "b");
        CHECK_STREQ(s, "a\xef\xbf\xbd" "b");
}

static void test_edges_of_lists(void) {
        _cleanup_strv_free_ char **l = NULL, **empty = NULL;
        char *none[] = { NULL };
        _cleanup_free_ char *joined = NULL;
        int n = 0;

        CHECK_EQ(strv_length(NULL), 0);
        CHECK(!strv_copy(NULL) && !strv_contains(NULL, "a"));
        STRV_FOREACH(s, (char *const *) NULL)
                n++;
        CHECK_EQ(n, 0);
        CHECK_EQ(strv_split(" ,, ", " ,", &empty), 0);
        CHECK(empty && !empty[0]);
        joined = strv_join(none, "x");
        CHECK_STREQ(joined, "");
        CHECK_EQ(strv_extend(&l, "a"), 0);
        char *owned = strdup("b");
        CHECK_EQ(strv_push(&l, owned), 0);
        CHECK(l[1] == owned && !l[2]);
}

static void test_identifiers_are_hexadecimal_and_differ(void) {
        char a[ID_LENGTH + 1], b[ID_LENGTH + 1], out[9];

        CHECK_EQ(random_id(a), 0);
        CHECK_EQ(random_id(b), 0);
        CHECK_EQ(strlen(a), ID_LENGTH);
        CHECK(is_hex(a) && !streq(a, b));
        CHECK(!is_hex("") && !is_hex("0G") && !is_hex("AB"));
        hex_encode("\x00\x1f\xa0\xff", 4, out);
        CHECK_STREQ(out, "001fa0ff");
}

static void test_booleans(void) {
        CHECK(parse_bool("yes") == true && parse_bool("ON") == true && parse_bool("1") == true);
        CHECK(parse_bool("no") == false && parse_bool("False") == false && parse_bool("0") == false);
        CHECK_EQ(parse_bool(""), -EINVAL);
        CHECK_EQ(parse_bool("2"), -EINVAL);
}

static void test_a_buffer_grows_and_is_always_terminated(void) {
        _cleanup_(buffer_done) Buffer b = BUFFER_INIT;

        CHECK_EQ(buffer_append(&b, NULL, 0), 0);
        CHECK_STREQ(b.data, "");
        for (int i = 0; i < 1000; i++)
                CHECK_EQ(buffer_appendf(&b, "%d,", i), 0);
        CHECK_EQ(buffer_append(&b, "\0x", 2), 0);
        CHECK_EQ(b.size, 3890 + 2);
        CHECK(b.data[b.size] == 0 && b.data[b.size - 1] == 'x');
        CHECK_EQ(buffer_append(&b, "", SIZE_MAX), -ENOMEM);
        CHECK_EQ(b.size, 3890 + 2);
}

TEST_MAIN(TEST_CASE(test_lists_grow_split_and_join), TEST_CASE(test_numbers_are_whole_and_bounded),
          TEST_CASE(test_utf8_is_judged_as_rfc_3629_does), TEST_CASE(test_edges_of_lists),
          TEST_CASE(test_identifiers_are_hexadecimal_and_differ), TEST_CASE(test_booleans),
          TEST_CASE(test_a_buffer_grows_and_is_always_terminated))
