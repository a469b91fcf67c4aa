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
        const char *const bad[] = { "\x80", "\xc0\x80", "\xc3", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff" };
        _cleanup_free_ char *s = NULL;

        for (size_t i = 0; i < ELEMENTSOF(good); i++)
                CHECK(utf8_is_valid(good[i], strlen(good[i])));
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                CHECK(!utf8_is_valid(bad[i], strlen(bad[i])));
        s = utf8_sanitize("a\xff" "b");
        CHECK_STREQ(s, "a\xef\xbf\xbd" "b");
}

TEST_MAIN(TEST_CASE(test_lists_grow_split_and_join), TEST_CASE(test_numbers_are_whole_and_bounded),
          TEST_CASE(test_utf8_is_judged_as_rfc_3629_does))
