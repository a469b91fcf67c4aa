#include "basic/test.h"
#include "image/reference.h"

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void good(const char *text, const char *domain, const char *path, const char *tag, const char *digest) {
        _cleanup_image_reference_ ImageReference r = {};
        _cleanup_error_ Error e = ERROR_INIT;
        char name[512];

        if (image_reference_parse(text, &r, &e) < 0) {
                fprintf(stderr, "%s: %s\n", text, e.message);
                abort();
        }
        CHECK_STREQ(r.domain, domain);
        CHECK_STREQ(r.path, path);
        CHECK(streq_ptr(r.tag, tag));
        CHECK(streq_ptr(r.digest, digest));
        (void) snprintf(name, sizeof name, "%s/%s", domain, path);
        CHECK_STREQ(r.name, name);
}

static void bad(const char *text) {
        _cleanup_image_reference_ ImageReference r = {};
        _cleanup_error_ Error e = ERROR_INIT;

        if (image_reference_parse(text, &r, &e) != -EINVAL) {
                fprintf(stderr, "accepted: %s\n", text);
                abort();
        }
        CHECK_EQ(e.code, GRPC_INVALID_ARGUMENT);
        CHECK(e.message && e.message[0]);
        CHECK(!r.domain && !r.path && !r.tag && !r.digest && !r.name);
}

static void missing_parts_get_the_defaults(void) {
        good("nginx", "docker.io", "library/nginx", "latest", NULL);
        good("nginx:1.25", "docker.io", "library/nginx", "1.25", NULL);
        good("user/app", "docker.io", "user/app", "latest", NULL);
        good("docker.io/nginx", "docker.io", "library/nginx", "latest", NULL);
        good("index.docker.io/nginx", "docker.io", "library/nginx", "latest", NULL);
        good("index.docker.io/a/b:c", "docker.io", "a/b", "c", NULL);
        good("docker.io/library/nginx:x", "docker.io", "library/nginx", "x", NULL);
        good("a@sha256:" HEX64, "docker.io", "library/a", NULL, "sha256:" HEX64);
}

static void domains_ports_and_tags_are_told_apart(void) {
        good("localhost/a", "localhost", "a", "latest", NULL);
        good("localhost:5000/a", "localhost:5000", "a", "latest", NULL);
        good("localhost:5000/a:5000", "localhost:5000", "a", "5000", NULL);
        good("host:5000/a/b/c:tag", "host:5000", "a/b/c", "tag", NULL);
        good("registry.example/pause:3.9", "registry.example", "pause", "3.9", NULL);
        good("127.0.0.1:5000/x", "127.0.0.1:5000", "x", "latest", NULL);
        good("[::1]:5000/x:y", "[::1]:5000", "x", "y", NULL);
        good("[fd00::1]/x", "[fd00::1]", "x", "latest", NULL);
        good("UPPER/x", "UPPER", "x", "latest", NULL);
        good("a.b/x:t@sha256:" HEX64, "a.b", "x", "t", "sha256:" HEX64);
        /* Without a slash a colon is a tag's, whatever stands before it. */
        good("host:5000", "docker.io", "library/host", "5000", NULL);
        good("a.b:c", "docker.io", "library/a.b", "c", NULL);
        good("xn--n3h.com/my__app/a-b--c.d_e", "xn--n3h.com", "my__app/a-b--c.d_e", "latest", NULL);
}

static void what_the_grammar_refuses_is_refused(void) {
        static const char *const list[] = {
                        "",
                        ":",
                        "@",
                        "/",
                        "//",
                        ":tag",
                        "@sha256:" HEX64,
                        "a:",
                        "a@",
                        "a/",
                        "/a",
                        "a//b",
                        "a/b/",
                        "Nginx",
                        "a/B",
                        "host:5000/A",
                        "a:b:c",
                        "a:.x",
                        "a:-x",
                        "a:x y",
                        "a b",
                        " a",
                        "a ",
                        "a\n",
                        "a\tb",
                        "-a",
                        "a-",
                        "_a",
                        "a_",
                        "a___b",
                        "a..b",
                        "a._b",
                        ".a",
                        "a.",
                        "../a",
                        "a/../b",
                        "a/.",
                        "localhost:/a",
                        "host:x/a",
                        "host:65536/a",
                        "host:123456789012345678901234567890/a",
                        "-host.com/a",
                        "host-.com/a",
                        "a..b/c",
                        ".com/a",
                        "a.com./b",
                        "[::1/a",
                        "[]/a",
                        "[::1]x/a",
                        "[::g]/a",
                        "[::1]:/a",
                        "http://a/b",
                        "a@sha256:abc",
                        "a@sha256:" HEX64 "0",
                        "a@sha512:" HEX64 HEX64,
                        "a@md5:d41d8cd98f00b204e9800998ecf8427e",
                        "a@sha256:" HEX64 ":x",
                        "a@sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef",
                        "a@sha256:" HEX64 "@sha256:" HEX64,
                        HEX64,
                        "a\xff",
                        "\xc3\xa4",
                        "a:\xc3\xa4",
                        "a%2fb",
                        "a\\b",
                        "a?b",
                        "a#b",
                        "user:pass@host/a",
        };
        for (size_t i = 0; i < ELEMENTSOF(list); i++)
                bad(list[i]);
}

static void lengths_are_bounded(void) {
        char text[3000], path[sizeof text + 16];

        /* docker.io/library/ and 237 characters are 255. */
        memset(text, 'a', sizeof text);
        text[255 - strlen("docker.io/library/")] = '\0';
        (void) snprintf(path, sizeof path, "library/%s", text);
        good(text, "docker.io", path, "latest", NULL);
        text[255 - strlen("docker.io/library/")] = 'a';
        text[256 - strlen("docker.io/library/")] = '\0';
        bad(text);

        memset(text, 't', sizeof text);
        memcpy(text, "a:", 2);
        text[2 + 128] = '\0';
        good(text, "docker.io", "library/a", text + 2, NULL);
        text[2 + 128] = 't';
        text[2 + 129] = '\0';
        bad(text);

        memset(text, 'a', sizeof text);
        text[sizeof text - 1] = '\0';
        bad(text);
        CHECK_EQ(image_reference_parse(NULL, &(ImageReference){}, NULL), -EINVAL);
}

static void digests(void) {
        CHECK(digest_is_valid("sha256:" HEX64));
        CHECK(!digest_is_valid("sha256:" HEX64 "a"));
        CHECK(!digest_is_valid("sha256:"));
        CHECK(!digest_is_valid(HEX64));
        CHECK(!digest_is_valid("SHA256:" HEX64));
        CHECK(!digest_is_valid("sha256:../../../../../../../../../../../../../../../../../../../etc/"));
        CHECK(!digest_is_valid(NULL));
}

TEST_MAIN(TEST_CASE(missing_parts_get_the_defaults), TEST_CASE(domains_ports_and_tags_are_told_apart),
          TEST_CASE(what_the_grammar_refuses_is_refused), TEST_CASE(lengths_are_bounded), TEST_CASE(digests))
