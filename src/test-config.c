#include "config.h"

#include <fcntl.h>
#include <syslog.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "basic/string-util.h"
#include "basic/test.h"

static void keep_warning(const char *message, void *userdata) {
        CHECK_EQ(strv_extend(userdata, message), 0);
}

static void defaults_work(void) {
        _cleanup_config_ Config c = {};

        CHECK_EQ(config_init(&c), 0);
        CHECK_STREQ(c.socket, "/run/rktlet/rktlet.sock");
        CHECK_STREQ(c.image_directory, "/var/lib/rktlet/image");
        CHECK_STREQ(c.default_slice, "rktlet.slice");
        CHECK_EQ(c.log_level, LOG_INFO);
        CHECK_EQ(c.stop_timeout_usec, 0);
        CHECK_EQ(strv_length(c.cni_bin_directories), 2);
        CHECK_EQ(strv_length(c.pinned_images), 0);
        CHECK_EQ(c.log_line_max, 16384);
}

static void a_file_is_understood(void) {
        static const char text[] =
                "# comment\n"
                "; another\n"
                "\n"
                "[Manager]\n"
                "  RunDirectory = /run/x \r\n"
                "StateDirectory=/srv/a b\n"
                "LogLevel=debug\n"
                "StopTimeoutSec=1min 30s 5ms\n"
                "[Network]\n"
                "CniBinDirectories=/a \\\n"
                "# in between\n"
                "   /b\n"
                "CniBinDirectories=/c\n"
                "[Engine]\n"
                "LogLineMax=4K\n"
                "X-Mine=1\n"
                "[X-Other]\n"
                "Anything=1\n"
                "[Image]\n"
                "PinnedImages=a b\n"
                "PinnedImages=\n"
                "PinnedImages=registry.example/pause:*\n"
                "ParallelLayers=5";
        _cleanup_strv_free_ char **warnings = NULL;
        _cleanup_config_ Config c = {};

        CHECK_EQ(config_init(&c), 0);
        CHECK_EQ(config_parse(&c, "f", text, keep_warning, &warnings), 0);
        CHECK_EQ(config_complete(&c), 0);
        CHECK_EQ(strv_length(warnings), 0);
        CHECK_STREQ(c.run_directory, "/run/x");
        CHECK_STREQ(c.socket, "/run/x/rktlet.sock");
        CHECK_STREQ(c.state_directory, "/srv/a b");
        CHECK_STREQ(c.image_directory, "/srv/a b/image");
        CHECK_EQ(c.log_level, LOG_DEBUG);
        CHECK_EQ(c.stop_timeout_usec, 90 * USEC_PER_SEC + 5 * USEC_PER_MSEC);
        CHECK_EQ(strv_length(c.cni_bin_directories), 3);
        CHECK_STREQ(c.cni_bin_directories[0], "/a");
        CHECK_STREQ(c.cni_bin_directories[1], "/b");
        CHECK_STREQ(c.cni_bin_directories[2], "/c");
        CHECK_EQ(c.log_line_max, 4096);
        CHECK_EQ(strv_length(c.pinned_images), 1);
        CHECK_STREQ(c.pinned_images[0], "registry.example/pause:*");
        CHECK_EQ(c.parallel_layers, 5);
}

static void what_is_wrong_is_named_with_its_line(void) {
        static const struct {
                const char *text, *warning;
        } cases[] = {
                { "[Manager]\nSoket=/a\n", "f:2: Unknown key Soket= in section [Manager], ignoring" },
                { "[Manager]\n\nSocket=a\n", "f:3: Socket=a is not an absolute path of less than 108 bytes, ignoring" },
                { "[Managr]\nSocket=/a\n", "f:1: Unknown section [Managr], ignoring what is in it" },
                { "Socket=/a\n", "f:1: Socket= stands before the first section, ignoring" },
                { "[Manager\n", "f:1: \"[Manager\" is no section header, ignoring" },
                { "[Manager]\nSocket\n", "f:2: \"Socket\" is no \"Key=value\", ignoring" },
                { "[Manager]\nLogLevel=loud\n", "f:2: LogLevel=loud is not one of emerg, alert, crit, err, warning, "
                                               "notice, info, debug, ignoring" },
                { "[Network]\nCniTimeoutSec=0\n", "f:2: CniTimeoutSec=0 is not a time span such as \"30s\", ignoring" },
                { "[Manager]\nDefaultSlice=a.service\n", "f:2: DefaultSlice=a.service is not a slice name such as "
                                                        "\"rktlet.slice\", ignoring" },
                { "[Manager]\nMetricsSocket=x\n", "f:2: MetricsSocket=x is not an absolute path of less than 108 bytes, or "
                                                  "\"none\", ignoring" },
                { "[Engine]\nLogLineMax=10\n", "f:2: LogLineMax=10 is not a number of bytes from 256 to 1M, ignoring" },
                { "[Engine]\n[Network]\nCniBinDirectories=/a b\n", "f:3: CniBinDirectories=/a b is not absolute paths, "
                                                                  "ignoring" },
                { "[Network]\nCniBinDirectories=/a \\\nb\n", "f:2: CniBinDirectories=/a  b is not absolute paths, "
                                                            "ignoring" },
                { "[Image]\nParallelLayers=-1\n", "f:2: ParallelLayers=-1 is not a number from 1 to 32, ignoring" },
                { "[Image]\nSocket=/a\n", "f:2: Unknown key Socket= in section [Image], ignoring" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_strv_free_ char **warnings = NULL;
                _cleanup_config_ Config c = {};

                CHECK_EQ(config_init(&c), 0);
                CHECK_EQ(config_parse(&c, "f", cases[i].text, keep_warning, &warnings), 0);
                CHECK_EQ(strv_length(warnings), 1);
                CHECK_STREQ(warnings[0], cases[i].warning);
                /* The default stays. */
                CHECK_STREQ(c.socket, "/run/rktlet/rktlet.sock");
                CHECK_EQ(strv_length(c.cni_bin_directories), 2);
        }
}

static void time_spans_are_read(void) {
        static const struct {
                const char *text;
                int r;
                uint64_t usec;
        } cases[] = {
                { "5", 0, 5 * USEC_PER_SEC },
                { "5s", 0, 5 * USEC_PER_SEC },
                { "5 sec", 0, 5 * USEC_PER_SEC },
                { "1h 2min 3s 4ms 5us", 0, 3723 * USEC_PER_SEC + 4005 },
                { "2m", 0, 120 * USEC_PER_SEC },
                { "1d", 0, 86400 * USEC_PER_SEC },
                { "infinity", 0, USEC_INFINITY },
                { "0", 0, 0 },
                { "", -EINVAL, 0 },
                { "-1", -EINVAL, 0 },
                { "s", -EINVAL, 0 },
                { "1 parsec", -EINVAL, 0 },
                { "1.5s", -EINVAL, 0 },
                { "99999999999999999999", -ERANGE, 0 },
                { "9999999999999999999d", -ERANGE, 0 },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                uint64_t usec = 0;

                CHECK_EQ(config_parse_time(cases[i].text, &usec), cases[i].r);
                CHECK(usec == cases[i].usec);
        }
}

static void write_text(const char *directory, const char *name, const char *text) {
        _cleanup_free_ char *path = strprintf("%s/%s", directory, name);
        FILE *f = fopen(path, "we");

        CHECK(f);
        fputs(text, f);
        fclose(f);
}

static void drop_ins_are_read_by_name_and_a_dump_reads_back(void) {
        char directory[] = "/tmp/test-config-XXXXXX";
        _cleanup_free_ char *path = NULL, *d = NULL, *dump = NULL, *dump2 = NULL;
        _cleanup_strv_free_ char **warnings = NULL;
        _cleanup_error_ Error e = ERROR_INIT;
        _cleanup_config_ Config c = {}, again = {};
        size_t size;
        FILE *f;

        CHECK(mkdtemp(directory));
        path = strprintf("%s/rktlet.conf", directory);
        d = strprintf("%s/rktlet.conf.d", directory);
        CHECK_EQ(config_load(path, keep_warning, &warnings, &c, &e), -ENOENT);
        CHECK(strstr(e.message, path));
        error_clear(&e);

        write_text(directory, "rktlet.conf", "[Image]\nParallelLayers=1\nPinnedImages=a\n[Manager]\nLogLevel=err\n");
        CHECK(mkdir(d, 0755) >= 0);
        write_text(d, "20-b.conf", "[Image]\nParallelLayers=3\nPinnedImages=c\n");
        write_text(d, "10-a.conf", "[Image]\nParallelLayers=2\nPinnedImages=b\nNope=1\n");
        write_text(d, "30-c.txt", "[Image]\nParallelLayers=9\n");
        CHECK_EQ(config_load(path, keep_warning, &warnings, &c, &e), 0);
        CHECK_EQ(c.parallel_layers, 3);
        CHECK_EQ(c.log_level, LOG_ERR);
        CHECK_EQ(strv_length(c.pinned_images), 3);
        CHECK_STREQ(c.pinned_images[2], "c");
        CHECK_EQ(strv_length(warnings), 1);
        CHECK(strstr(warnings[0], "/rktlet.conf.d/10-a.conf:4: "));

        f = open_memstream(&dump, &size);
        CHECK_EQ(config_dump(&c, f), 0);
        fclose(f);
        CHECK_EQ(config_init(&again), 0);
        CHECK_EQ(config_parse(&again, "dump", dump, keep_warning, &warnings), 0);
        CHECK_EQ(strv_length(warnings), 1);
        f = open_memstream(&dump2, &size);
        CHECK_EQ(config_dump(&again, f), 0);
        fclose(f);
        CHECK_STREQ(dump, dump2);
        CHECK(strstr(dump, "\nPinnedImages=a b c\n") && strstr(dump, "LogLevel=err\n"));

        for (size_t i = 0; i < 4; i++) {
                _cleanup_free_ char *p = strprintf("%s/%s", i < 3 ? d : directory,
                                                   (const char *[]) { "20-b.conf", "10-a.conf", "30-c.txt", "rktlet.conf" }[i]);
                CHECK(unlink(p) >= 0);
        }
        CHECK(rmdir(d) >= 0 && rmdir(directory) >= 0);
}

static void odd_texts_do_no_harm(void) {
        static const char *const texts[] = {
                "", "\n", "\\", "\\\n", "[", "[]", "=", "[Manager]\n=\n", "[Manager]\nSocket=", "#\\\n[Manager]\nLogLevel=err\\",
                "[Manager]\nLogLevel=\\\n\\\n\\\nerr", "[Manager]\n\xff=\xff\n",
        };

        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                _cleanup_strv_free_ char **warnings = NULL;
                _cleanup_config_ Config c = {};

                CHECK_EQ(config_init(&c), 0);
                CHECK_EQ(config_parse(&c, "f", texts[i], keep_warning, &warnings), 0);
                CHECK_STREQ(c.socket, "/run/rktlet/rktlet.sock");
                if (i == 9 || i == 10)
                        CHECK_EQ(c.log_level, LOG_ERR);
        }
}

static void runtimes_have_sections_of_their_own(void) {
        static const char text[] = "[Runtime runc]\n"
                                   "Path=/usr/sbin/runc\n"
                                   "[Runtime fast]\n"
                                   "Path=/opt/crun-2\n"
                                   "[Runtime other]\n"
                                   "Type=crun\n"
                                   "X-Mine=1\n"
                                   "[Runtime other]\n"
                                   "Path=/opt/other\n"
                                   "[Runtime none]\n";
        static const struct {
                const char *text, *warning;
        } cases[] = {
                { "[Runtime a/b]\nPath=/a\n", "f:1: Section [Runtime a/b] has no good name for a runtime, ignoring what is in it" },
                { "[Runtime ]\n", "f:1: Section [Runtime ] has no good name for a runtime, ignoring what is in it" },
                { "[Runtime ..]\n", "f:1: Section [Runtime ..] has no good name for a runtime, ignoring what is in it" },
                { "[Runtime a]\nPath=runc\n", "f:2: Path=runc is not an absolute path, ignoring" },
                { "[Runtime a]\nType=kata\n", "f:2: Type=kata is not one of crun, runc, ignoring" },
                { "[Runtime a]\nRoot=/\n", "f:2: Unknown key Root= in section [Runtime a], ignoring" },
        };
        _cleanup_strv_free_ char **warnings = NULL;
        _cleanup_free_ char *dump = NULL, *dropped = NULL;
        _cleanup_config_ Config c = {};
        size_t size;
        FILE *f;

        CHECK_EQ(config_init(&c), 0);
        CHECK_EQ(config_parse(&c, "f", text, keep_warning, &warnings), 0);
        CHECK_EQ(strv_length(warnings), 0);
        CHECK_EQ(c.runtimes.n, 4);
        dropped = config_runtimes_drop_incomplete(&c.runtimes);
        CHECK_STREQ(dropped, "none");
        CHECK(!config_runtimes_drop_incomplete(&c.runtimes));
        CHECK_EQ(c.runtimes.n, 3);
        CHECK_STREQ(c.runtimes.list[0].name, "runc");
        CHECK_EQ(c.runtimes.list[0].type, CONFIG_RUNTIME_RUNC);
        CHECK_EQ(c.runtimes.list[1].type, CONFIG_RUNTIME_CRUN);
        CHECK_STREQ(c.runtimes.list[2].path, "/opt/other");
        CHECK_EQ(c.runtimes.list[2].type, CONFIG_RUNTIME_CRUN);
        f = open_memstream(&dump, &size);
        CHECK_EQ(config_dump(&c, f), 0);
        fclose(f);
        CHECK(strstr(dump, "\n[Runtime runc]\nPath=/usr/sbin/runc\nType=runc\n"));

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_strv_free_ char **w = NULL;
                _cleanup_config_ Config d = {};

                CHECK_EQ(config_init(&d), 0);
                CHECK_EQ(config_parse(&d, "f", cases[i].text, keep_warning, &w), 0);
                CHECK_EQ(strv_length(w), 1);
                CHECK_STREQ(w[0], cases[i].warning);
        }
}

static void write_at(const char *root, const char *path, const char *text) {
        _cleanup_free_ char *full = strprintf("%s/%s", root, path);
        _cleanup_free_ char *directory = strndup(full, (size_t) (strrchr(full, '/') - full));

        CHECK_EQ(mkdir_parents(AT_FDCWD, directory, 0755), 0);
        CHECK_EQ(write_file_atomic(AT_FDCWD, full, text, strlen(text), 0644, 0), 0);
}

/* As systemd.syntax(7) has it: /etc before /run before /usr. */
static void files_of_several_folders_hide_each_other_by_name(void) {
        char root[] = "/tmp/test-config-XXXXXX";
        _cleanup_strv_free_ char **directories = NULL, **warnings = NULL;
        _cleanup_free_ char *masked = NULL, *expected = NULL, *files = NULL;
        _cleanup_config_ Config c = {}, none = {};

        CHECK(mkdtemp(root));
        CHECK_EQ(strv_extendf(&directories, "%s/etc", root), 0);
        CHECK_EQ(strv_extendf(&directories, "%s/run", root), 0);
        CHECK_EQ(strv_extendf(&directories, "%s/usr", root), 0);
        CHECK_EQ(config_load_directories(directories, keep_warning, &warnings, &none, NULL), 0);
        CHECK_EQ(strv_length(none.files), 0);
        CHECK_EQ(none.log_level, LOG_INFO);

        write_at(root, "usr/rktlet.conf", "[Manager]\nLogLevel=err\nStreamPort=1\n");
        write_at(root, "run/rktlet.conf", "[Manager]\nStreamPort=2\n");
        write_at(root, "usr/rktlet.conf.d/10-a.conf", "[Image]\nParallelLayers=1\n[Engine]\nLogLineMax=300\n");
        write_at(root, "run/rktlet.conf.d/10-a.conf", "[Image]\nParallelLayers=2\n");
        write_at(root, "etc/rktlet.conf.d/20-b.conf", "[Network]\nCniTimeoutSec=5\n");
        write_at(root, "usr/rktlet.conf.d/30-c.conf", "[Network]\nCniTimeoutSec=7\nNo=1\n");
        write_at(root, "usr/rktlet.conf.d/40-d.conf", "[Network]\nCniTimeoutSec=9\n");
        masked = strprintf("%s/etc/rktlet.conf.d/40-d.conf", root);
        CHECK(symlink("/dev/null", masked) >= 0);
        CHECK_EQ(config_load_directories(directories, keep_warning, &warnings, &c, NULL), 0);
        CHECK_EQ(c.stream_port, 2);
        CHECK_EQ(c.log_level, LOG_INFO); /* of the main files one counts */
        CHECK_EQ(c.parallel_layers, 2);
        CHECK_EQ(c.log_line_max, 16384);
        CHECK_EQ(c.cni_timeout_usec, 7 * USEC_PER_SEC);
        CHECK_EQ(strv_length(warnings), 1);
        CHECK(strstr(warnings[0], "/usr/rktlet.conf.d/30-c.conf:3: Unknown key No= in section [Network]"));
        expected = strprintf("%s/run/rktlet.conf %s/run/rktlet.conf.d/10-a.conf %s/etc/rktlet.conf.d/20-b.conf "
                             "%s/usr/rktlet.conf.d/30-c.conf", root, root, root, root);
        files = strv_join(c.files, " ");
        CHECK_STREQ(files, expected);
        CHECK_EQ(remove_tree(AT_FDCWD, root), 0);
}

static void what_can_change_is_taken_over_and_the_rest_named(void) {
        _cleanup_strv_free_ char **warnings = NULL, **taken = NULL, **left = NULL, **taken2 = NULL, **left2 = NULL;
        _cleanup_config_ Config c = {}, fresh = {};
        _cleanup_free_ char *t = NULL, *l = NULL;

        CHECK_EQ(config_init(&c), 0);
        CHECK_EQ(config_init(&fresh), 0);
        CHECK_EQ(config_take_live(&c, &fresh, &taken, &left), 0);
        CHECK(!taken && !left);
        CHECK_EQ(config_parse(&fresh, "f", "[Manager]\nLogLevel=debug\nStateDirectory=/x\nStreamPort=7\n[Network]\n"
                              "CniConfDirectories=/a /b\n[Runtime kata]\nPath=/usr/bin/kata\n[Image]\nPinnedImages=p\n",
                              keep_warning, &warnings), 0);
        CHECK_EQ(config_take_live(&c, &fresh, &taken, &left), 0);
        t = strv_join(taken, " ");
        l = strv_join(left, " ");
        CHECK_STREQ(t, "LogLevel= CniConfDirectories= PinnedImages= [Runtime]");
        CHECK_STREQ(l, "StateDirectory= StreamPort=");
        CHECK_EQ(c.log_level, LOG_DEBUG);
        CHECK_STREQ(c.cni_conf_directories[1], "/b");
        CHECK_STREQ(c.pinned_images[0], "p");
        CHECK_STREQ(c.runtimes.list[0].name, "kata");
        CHECK_STREQ(c.state_directory, "/var/lib/rktlet");
        CHECK_EQ(c.stream_port, 0);
        CHECK_EQ(fresh.log_level, LOG_INFO);
        CHECK_EQ(fresh.runtimes.n, 0);
        /* What was left differs still, and is named again. */
        CHECK_EQ(config_take_live(&c, &fresh, &taken2, &left2), 0);
        CHECK_EQ(strv_length(left2), 2);
}

TEST_MAIN(TEST_CASE(defaults_work), TEST_CASE(a_file_is_understood), TEST_CASE(what_is_wrong_is_named_with_its_line),
          TEST_CASE(time_spans_are_read), TEST_CASE(drop_ins_are_read_by_name_and_a_dump_reads_back),
          TEST_CASE(files_of_several_folders_hide_each_other_by_name),
          TEST_CASE(what_can_change_is_taken_over_and_the_rest_named), TEST_CASE(odd_texts_do_no_harm), TEST_CASE(runtimes_have_sections_of_their_own))
