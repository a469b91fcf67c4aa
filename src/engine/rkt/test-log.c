/* rkt's log into the CRI's: the form, split lines, and that nothing is lost or doubled however often it is begun anew. */

#include "engine/rkt/log.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "basic/string-util.h"
#include "basic/test.h"

#define T "2026-11-24T03:14:52.277754917Z"

static char directory[] = "/tmp/rktlet-test-rkt-log-XXXXXX";

static char *in_directory(const char *name) {
        char *path = strprintf("%s/%s", directory, name);

        CHECK(path != NULL);
        return path;
}

static void append_bytes(const char *path, const char *text, size_t size) {
        _cleanup_close_ int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0755);

        CHECK(fd >= 0);
        CHECK_EQ(write_all(fd, text, size), 0);
}

static void append(const char *path, const char *text) {
        append_bytes(path, text, strlen(text));
}

static char *contents(const char *path) {
        char *text = NULL;

        CHECK_EQ(read_file(AT_FDCWD, path, 64U * 1024U * 1024U, &text, NULL), 0);
        return text;
}

/* Converted with at most `piece` bytes known at a time. */
static char *convert(const char *text, size_t line_max, size_t piece) {
        _cleanup_(buffer_done) Buffer out = BUFFER_INIT;
        char header[RKT_LOG_HEADER_MAX] = "";
        size_t begin = 0, known = 0, size = strlen(text), used;

        while (known < size) {
                known = MIN(known + piece, size);
                CHECK_EQ(rkt_log_convert(text + begin, known - begin, line_max, header, &out, &used), 0);
                begin += used;
        }
        return strdup(out.data ? out.data : "");
}

static void lines_get_their_tag(void) {
        _cleanup_free_ char *out = convert(T " stdout partial rest\n" T " stderr \n" T " stdout a  b \n", 100, 1000);

        CHECK_STREQ(out, T " stdout F partial rest\n" T " stderr F \n" T " stdout F a  b \n");
}

static void long_lines_are_split(void) {
        _cleanup_free_ char *out = convert(T " stderr 0123456789abcdef01234\n" T " stdout 0123456789\n", 10, 1000);

        CHECK_STREQ(out, T " stderr P 0123456789\n" T " stderr P abcdef0123\n" T " stderr F 4\n"
                         T " stdout F 0123456789\n");
}

static void what_is_not_of_rkt_is_kept(void) {
        _cleanup_free_ char *out = convert("what is this\n\nstdout x\n", 100, 1000);

        CHECK_STREQ(out, "1970-01-01T00:00:00Z stdout F what is this\n1970-01-01T00:00:00Z stdout F \n"
                         "1970-01-01T00:00:00Z stdout F stdout x\n");
}

static void an_unfinished_line_waits(void) {
        _cleanup_free_ char *out = convert(T " stdout whole\n" T " stdout unfini", 100, 1000);

        CHECK_STREQ(out, T " stdout F whole\n");
}

static void pieces_make_no_difference(void) {
        _cleanup_(buffer_done) Buffer b = BUFFER_INIT;

        for (unsigned i = 0; i < 40; i++) {
                CHECK_EQ(buffer_appendf(&b, T " %s ", i % 3 ? "stdout" : "stderr"), 0);
                for (unsigned k = 0; k < i * 7; k++)
                        CHECK_EQ(buffer_appendf(&b, "%c", 'a' + (int) ((i + k) % 26)), 0);
                CHECK_EQ(buffer_append(&b, "\n", 1), 0);
        }
        _cleanup_free_ char *whole = convert(b.data, 16, b.size);
        for (size_t piece = 1; piece < 300; piece += 7) {
                _cleanup_free_ char *out = convert(b.data, 16, piece);

                CHECK_STREQ(out, whole);
        }
}

static void a_file_is_followed(void) {
        _cleanup_free_ char *source = in_directory("a"), *target = in_directory("a.log"), *record = in_directory("a.pos"),
                            *text = NULL;
        _cleanup_(rkt_log_freep) RktLog *l = NULL;
        _cleanup_error_ Error error = ERROR_INIT;

        CHECK_EQ(rkt_log_new(source, target, record, 100, &l, &error), 0);
        CHECK_EQ(rkt_log_pump(l), 0); /* rkt has made nothing yet */
        append(source, T " stdout one\n" T " st");
        CHECK_EQ(rkt_log_drain(l), 0);
        append(source, "dout two\n");
        CHECK_EQ(rkt_log_drain(l), 0);
        text = contents(target);
        CHECK_STREQ(text, T " stdout F one\n" T " stdout F two\n");
}

/* As if the daemon had been killed after it wrote the log and before it noted so, at any byte. */
static void nothing_is_doubled_after_a_kill(void) {
        static const char lines[] = T " stdout one\n" T " stderr 0123456789abcdef\n" T " stdout three\n";
        _cleanup_free_ char *whole = convert(lines, 10, 1000);

        for (size_t written = 0; written <= strlen(whole); written++) {
                _cleanup_free_ char *source = in_directory("k"), *target = in_directory("k.log"),
                                    *record = in_directory("k.pos"), *text = NULL;
                _cleanup_error_ Error error = ERROR_INIT;
                RktLog *l;

                (void) unlink(source);
                (void) unlink(target);
                (void) unlink(record);
                CHECK_EQ(rkt_log_new(source, target, record, 10, &l, &error), 0);
                l = rkt_log_free(l);
                append(source, lines);
                append_bytes(target, whole, written);
                CHECK_EQ(rkt_log_new(source, target, record, 10, &l, &error), 0);
                CHECK_EQ(rkt_log_drain(l), 0);
                rkt_log_free(l);
                text = contents(target);
                CHECK_STREQ(text, whole);
        }
}

static void a_reopened_log_goes_on_in_a_new_file(void) {
        _cleanup_free_ char *source = in_directory("r"), *target = in_directory("r.log"), *record = in_directory("r.pos"),
                            *old = in_directory("r.log.1"), *first = NULL, *second = NULL;
        _cleanup_(rkt_log_freep) RktLog *l = NULL;
        _cleanup_error_ Error error = ERROR_INIT;

        CHECK_EQ(rkt_log_new(source, target, record, 100, &l, &error), 0);
        append(source, T " stdout one\n");
        CHECK_EQ(rename(target, old), 0);
        CHECK_EQ(rkt_log_reopen(l, &error), 0);
        append(source, T " stdout two\n");
        CHECK_EQ(rkt_log_drain(l), 0);
        first = contents(old);
        second = contents(target);
        CHECK_STREQ(first, T " stdout F one\n");
        CHECK_STREQ(second, T " stdout F two\n");
        /* And after a restart. */
        l = rkt_log_free(l);
        CHECK_EQ(rkt_log_new(source, target, record, 100, &l, &error), 0);
        append(source, T " stdout three\n");
        CHECK_EQ(rkt_log_drain(l), 0);
        free(second);
        second = contents(target);
        CHECK_STREQ(second, T " stdout F two\n" T " stdout F three\n");
}

static void what_was_converted_is_given_back(void) {
        _cleanup_free_ char *source = in_directory("p"), *target = in_directory("p.log"), *record = in_directory("p.pos"),
                            *line = NULL;
        _cleanup_(rkt_log_freep) RktLog *l = NULL;
        _cleanup_error_ Error error = ERROR_INIT;
        struct stat st;
        off_t expected = 0;

        line = malloc(60000);
        CHECK(line != NULL);
        (void) snprintf(line, 60000, T " stdout ");
        memset(line + 38, 'x', 59000);
        line[59038] = '\n';
        line[59039] = 0;
        CHECK_EQ(rkt_log_new(source, target, record, 16384, &l, &error), 0);
        for (unsigned i = 0; i < 100; i++) {
                append(source, line);
                CHECK_EQ(rkt_log_drain(l), 0);
                expected += 59000 + 4 * 41;
        }
        CHECK(stat(source, &st) >= 0);
        CHECK_EQ(st.st_size, 100 * 59039);
        CHECK(st.st_blocks * 512 < 3 * 1024 * 1024);
        CHECK(stat(target, &st) >= 0);
        CHECK_EQ(st.st_size, expected);
}

static void a_bad_target_is_refused(void) {
        _cleanup_free_ char *source = in_directory("b"), *fifo = in_directory("fifo"), *record = in_directory("b.pos"),
                            *link = in_directory("link"), *elsewhere = in_directory("elsewhere");
        RktLog *l;

        CHECK_EQ(mkfifo(fifo, 0600), 0);
        CHECK(rkt_log_new(source, fifo, record, 100, &l, NULL) < 0);
        CHECK_EQ(symlink(elsewhere, link), 0);
        CHECK(rkt_log_new(source, link, record, 100, &l, NULL) < 0);
        CHECK(access(elsewhere, F_OK) < 0);
}

static void a_folder_is_made(void) {
        CHECK(mkdtemp(directory) != NULL);
}

static void the_folder_is_removed(void) {
        CHECK_EQ(remove_tree(AT_FDCWD, directory), 0);
}

TEST_MAIN(TEST_CASE(a_folder_is_made), TEST_CASE(lines_get_their_tag), TEST_CASE(long_lines_are_split),
          TEST_CASE(what_is_not_of_rkt_is_kept), TEST_CASE(an_unfinished_line_waits), TEST_CASE(pieces_make_no_difference),
          TEST_CASE(a_file_is_followed), TEST_CASE(nothing_is_doubled_after_a_kill),
          TEST_CASE(a_reopened_log_goes_on_in_a_new_file), TEST_CASE(what_was_converted_is_given_back),
          TEST_CASE(a_bad_target_is_refused), TEST_CASE(the_folder_is_removed))
