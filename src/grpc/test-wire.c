#include "basic/test.h"
#include "grpc/wire.h"

static int timeout(const char *s, uint64_t *ret) {
        return wire_parse_timeout(s, strlen(s), ret);
}

static void timeouts_of_all_units(void) {
        static const struct {
                const char *text;
                uint64_t usec;
        } cases[] = {
                { "1H", 3600 * USEC_PER_SEC },
                { "2M", 120 * USEC_PER_SEC },
                { "3S", 3 * USEC_PER_SEC },
                { "4m", 4000 },
                { "5u", 5 },
                { "1n", 1 },
                { "1000n", 1 },
                { "1001n", 2 },
                { "0S", 0 },
                { "00000007u", 7 },
                { "99999999H", UINT64_C(99999999) * 3600 * USEC_PER_SEC },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                uint64_t usec;

                CHECK_EQ(timeout(cases[i].text, &usec), 0);
                CHECK_EQ(usec, cases[i].usec);
        }
}

static void timeouts_that_are_none(void) {
        static const char *const cases[] = { "",    "1",   "S",    "1s",   "1h",         "-1S",  "+1S", " 1S", "1S ",
                                             "1SS", "1.S", "0x1S", "1 S", "123456789S", "12S3", "\xc2S", "S1" };
        uint64_t usec = 42;

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                CHECK_EQ(timeout(cases[i], &usec), -EINVAL);
        CHECK_EQ(wire_parse_timeout("1\0S", 3, &usec), -EINVAL);
        CHECK_EQ(usec, 42);
}

static void check_request(const char *body, size_t size, size_t max, GrpcCode code) {
        _cleanup_error_ Error error = ERROR_INIT;
        const void *message = NULL;
        size_t message_size = 0;
        int r;

        r = wire_parse_request(body, size, max, &message, &message_size, &error);
        CHECK_EQ(error.code, code);
        CHECK_EQ(r, grpc_code_to_errno(code));
        if (code == GRPC_OK) {
                CHECK(message == body + 5);
                CHECK_EQ(message_size, size - 5);
        } else
                CHECK(!message && error.message);
}

static void request_bodies(void) {
        check_request("\0\0\0\0\3abc", 8, 3, GRPC_OK);
        check_request("\0\0\0\0\0", 5, 0, GRPC_OK);
        check_request("\0\0\0\0\3abc", 8, 2, GRPC_RESOURCE_EXHAUSTED);
        check_request("\1\0\0\0\3abc", 8, 10, GRPC_UNIMPLEMENTED);
        check_request("\2\0\0\0\3abc", 8, 10, GRPC_INTERNAL);
        check_request("\0\0\0\0\4abc", 8, 10, GRPC_INTERNAL);
        check_request("\0\0\0\0\2abc", 8, 10, GRPC_INTERNAL);
        check_request("\0\0\0\0", 4, 10, GRPC_INTERNAL);
        check_request(NULL, 0, 10, GRPC_INTERNAL);
        check_request("\0\377\377\377\377", 5, 16777216, GRPC_RESOURCE_EXHAUSTED);
}

static void prefixes(void) {
        uint8_t p[WIRE_PREFIX];

        wire_put_prefix(p, 0x01020304);
        CHECK(memcmp(p, "\0\1\2\3\4", 5) == 0);
}

static void check_text(const char *text, const char *encoded) {
        _cleanup_free_ char *s = wire_encode_text(text);

        CHECK_STREQ(s, encoded);
}

static void texts_are_percent_encoded(void) {
        check_text("", "");
        check_text("plain text ~!", "plain text ~!");
        check_text("100%", "100%25");
        check_text("a\nb\tc", "a%0Ab%09c");
        check_text("é\x7f", "%C3%A9%7F");
}

static void long_texts_are_cut_between_characters(void) {
        for (unsigned shift = 0; shift < 4; shift++) {
                _cleanup_free_ char *text = malloc(9000), *s = NULL;
                char *p = text;

                CHECK(text);
                for (unsigned i = 0; i < shift; i++)
                        *p++ = 'x';
                for (unsigned i = 0; i < 2000; i++)
                        p = stpcpy(p, "\xf0\x9f\x99\x82");
                s = wire_encode_text(text);
                CHECK(s);
                /* Whole characters: each is 12 bytes when encoded. */
                CHECK_EQ((strlen(s) - shift) % 12, 0);
                CHECK(strlen(s) > (WIRE_TEXT_MAX - 4) * 3 - 3 * shift - 12);
                CHECK(strlen(s) <= WIRE_TEXT_MAX * 3);
        }
}

static void content_types(void) {
        static const char *const yes[] = { "application/grpc", "application/grpc+proto", "Application/GRPC;v=1" };
        static const char *const no[] = { "", "application/grp", "application/grpcx", "text/plain" };

        for (size_t i = 0; i < ELEMENTSOF(yes); i++)
                CHECK(wire_is_grpc(yes[i], strlen(yes[i])));
        for (size_t i = 0; i < ELEMENTSOF(no); i++)
                CHECK(!wire_is_grpc(no[i], strlen(no[i])));
}

TEST_MAIN(TEST_CASE(timeouts_of_all_units), TEST_CASE(timeouts_that_are_none), TEST_CASE(request_bodies),
          TEST_CASE(prefixes), TEST_CASE(texts_are_percent_encoded), TEST_CASE(long_texts_are_cut_between_characters),
          TEST_CASE(content_types))
