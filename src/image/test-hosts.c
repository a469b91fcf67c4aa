#include <fcntl.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "basic/string-util.h"
#include "basic/test.h"
#include "image/hosts.h"
#include "image/registry.h"

static void without_configuration_there_is_the_origin(void) {
        static const struct {
                const char *domain, *authority;
                bool https;
        } list[] = {
                        {"docker.io", "registry-1.docker.io", true}, {"registry.example", "registry.example", true},
                        {"localhost:5000", "localhost:5000", false}, {"127.0.0.1:5000", "127.0.0.1:5000", false},
                        {"127.3.2.1", "127.3.2.1", false},           {"[::1]:5000", "[::1]:5000", false},
                        {"10.0.0.1:5000", "10.0.0.1:5000", true},    {"localhost.example", "localhost.example", true},
        };

        for (size_t i = 0; i < ELEMENTSOF(list); i++) {
                _cleanup_registry_hosts_ RegistryHosts h = {};

                CHECK_EQ(registry_hosts_load(i % 2 ? NULL : "/nonexistent", list[i].domain, &h, NULL), 0);
                CHECK_EQ(h.n_hosts, 1);
                CHECK_STREQ(h.hosts[0].authority, list[i].authority);
                CHECK_EQ(h.hosts[0].https, list[i].https);
                CHECK(!h.hosts[0].mirror);
        }
}

static void mirrors_come_first_in_their_order(void) {
        char directory[] = "/tmp/rktlet-test-hosts-XXXXXX";
        static const char one[] =
                        "# mirrors\n[Registry]\nMirror = http://a:5000/  https://b/prefix/v2,c/v2/x \n"
                        "Username=u\nPasswordFile=/run/secret\r\n\n[Mirror]\nURL=http://d\nInsecure=yes\nCA=/ca\n",
                          two[] = "; more\n[Mirror]\nURL=127.0.0.1:9\n[Registry]\nPlainHTTP=yes\n";
        _cleanup_registry_hosts_ RegistryHosts h = {}, other = {};
        _cleanup_close_ int fd = -1;

        CHECK(mkdtemp(directory));
        fd = open_directory(AT_FDCWD, directory);
        CHECK(fd >= 0);
        CHECK_EQ(mkdir_parents(fd, "r.example:1", 0700), 0);
        CHECK_EQ(write_file_atomic(fd, "r.example:1/hosts.conf", one, strlen(one), 0600, 0), 0);
        CHECK_EQ(write_file_atomic(fd, "r.example:1/zz.conf", two, strlen(two), 0600, 0), 0);
        CHECK_EQ(write_file_atomic(fd, "r.example:1/hosts.conf.bak", "junk", 4, 0600, 0), 0);
        CHECK_EQ(registry_hosts_load(directory, "r.example:1", &h, NULL), 0);
        CHECK_EQ(registry_hosts_load(directory, "r.example", &other, NULL), 0);
        CHECK_EQ(other.n_hosts, 1);
        CHECK_EQ(remove_tree(AT_FDCWD, directory), 0);

        CHECK_EQ(h.n_hosts, 6);
        CHECK_STREQ(h.hosts[0].authority, "a:5000");
        CHECK_STREQ(h.hosts[0].prefix, "");
        CHECK(!h.hosts[0].https && h.hosts[0].mirror && !h.hosts[0].username);
        CHECK_STREQ(h.hosts[1].authority, "b");
        CHECK_STREQ(h.hosts[1].prefix, "/prefix/v2");
        CHECK(h.hosts[1].https);
        CHECK_STREQ(h.hosts[2].prefix, "/x");
        CHECK_STREQ(h.hosts[3].authority, "d");
        CHECK(h.hosts[3].insecure && !h.hosts[3].https);
        CHECK_STREQ(h.hosts[3].ca, "/ca");
        CHECK(!h.hosts[4].https); /* loopback */
        CHECK_STREQ(h.hosts[5].authority, "r.example:1");
        CHECK(!h.hosts[5].mirror && !h.hosts[5].https);
        CHECK_STREQ(h.hosts[5].username, "u");
        CHECK_STREQ(h.hosts[5].password_file, "/run/secret");
}

static void nonsense_is_refused_with_its_line(void) {
        static const char *const bad[] = {
                        "\n\nKey=1",
                        "\n\n[Registry",
                        "[Registry]\n\nMirror=https://",
                        "[Registry]\n\nURL=http://a b/",
                        "[Registry]\n\nURL=http://u:p@h/",
                        "[Registry]\n\nURL=http://h:1:2/",
                        "[Registry]\n\nURL=http://h/?x",
                        "[Registry]\n\nFallback=maybe",
                        "[Registry]\n\nCA=ca.pem",
                        "[Registry]\n\n=\n=",
        };

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_registry_hosts_ RegistryHosts mirrors = {};
                _cleanup_(registry_host_done) RegistryHost origin = {};
                _cleanup_error_ Error e = ERROR_INIT;
                bool fallback = true;
                int r = registry_hosts_parse(bad[i], "file", &mirrors, &origin, &fallback, &e);

                if (i == 1 || i == ELEMENTSOF(bad) - 1) {
                        CHECK_EQ(r, 0); /* an unknown section or key is a warning */
                        continue;
                }
                CHECK(r < 0);
                CHECK_EQ(e.code, GRPC_FAILED_PRECONDITION);
                CHECK(startswith(e.message, "file:3:"));
        }
}

static void challenges_are_read(void) {
        static const struct {
                const char *value;
                bool bearer, basic;
                const char *realm, *service, *scope;
        } list[] = {
                        {"Bearer realm=\"https://a/t?x=1\",service=\"s, t\",scope=\"repository:a/b:pull\"", true,
                         false, "https://a/t?x=1", "s, t", "repository:a/b:pull"},
                        {"bearer REALM=https://a/t , service=s", true, false, "https://a/t", "s", NULL},
                        {"Basic realm=\"x\"", false, true, NULL, NULL, NULL},
                        {"Basic realm=\"x\", Bearer realm=\"y\\\"z\"", true, true, "y\"z", NULL, NULL},
                        {"Negotiate, Basic", false, true, NULL, NULL, NULL},
        };
        static const char *const bad[] = {
                        "", "Bearer", "Bearer realm", "Bearer realm=\"x", "Digest realm=\"x\"", "=", ",,,", "\""};

        for (size_t i = 0; i < ELEMENTSOF(list); i++) {
                _cleanup_auth_challenge_ AuthChallenge c = {};

                CHECK_EQ(auth_challenge_parse((char *[]){(char *) list[i].value, NULL}, &c), 0);
                CHECK_EQ(c.bearer, list[i].bearer);
                CHECK_EQ(c.basic, list[i].basic);
                CHECK(streq_ptr(c.realm, list[i].realm) && streq_ptr(c.service, list[i].service) &&
                      streq_ptr(c.scope, list[i].scope));
        }
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                CHECK_EQ(auth_challenge_parse((char *[]){(char *) bad[i], NULL}, &(AuthChallenge){}), -EINVAL);
}

static void credentials_are_coded_and_decoded(void) {
        _cleanup_free_ char *user = NULL, *password = NULL, *basic = auth_basic("user", "pa:ss");
        char *none = NULL;

        CHECK_STREQ(basic, "Basic dXNlcjpwYTpzcw==");
        CHECK_EQ(auth_decode("dXNlcjpwYTpzcw==", &user, &password), 0);
        CHECK_STREQ(user, "user");
        CHECK_STREQ(password, "pa:ss");
        CHECK_EQ(auth_decode("dXNlcg==", &none, &none), -EINVAL);
        CHECK_EQ(auth_decode("!!!!", &none, &none), -EINVAL);
        CHECK_EQ(auth_decode("", &none, &none), -EINVAL);
        CHECK(auth_token_is_valid("abc.def-_~+/="));
        CHECK(!auth_token_is_valid("a\r\nX: y") && !auth_token_is_valid("") && !auth_token_is_valid("a b"));
}

static void error_texts_are_clean(void) {
        static const struct {
                const char *body, *text;
        } list[] = {
                        {"{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no\\nno\\u001b[1m\"}]}",
                         " (DENIED: no no [1m)"},
                        {"{\"errors\":[{\"code\":\"DENIED\"}]}", " (DENIED)"},
                        {"{\"errors\":[{\"message\":\"m\"}]}", " (m)"},
                        {"{\"error\":\"x\",\"error_description\":\"y\"}", " (x: y)"},
                        {"{\"details\":\"y\"}", " (y)"},
                        {"{\"errors\":[]}", ""},
                        {"{\"errors\":{}}", ""},
                        {"<html>", ""},
                        {"", ""},
        };

        for (size_t i = 0; i < ELEMENTSOF(list); i++) {
                _cleanup_free_ char *t = registry_error_text(list[i].body, strlen(list[i].body));

                CHECK(t && streq(t, list[i].text));
        }
}

TEST_MAIN(TEST_CASE(without_configuration_there_is_the_origin), TEST_CASE(mirrors_come_first_in_their_order),
          TEST_CASE(nonsense_is_refused_with_its_line), TEST_CASE(challenges_are_read),
          TEST_CASE(credentials_are_coded_and_decoded), TEST_CASE(error_texts_are_clean))
