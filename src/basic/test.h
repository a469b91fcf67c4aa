#pragma once
/* For the tests beside the code: checks that say where they failed, and a list of test functions run one by one. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(expr)                                                                                                    \
        do {                                                                                                           \
                if (!(expr)) {                                                                                         \
                        fprintf(stderr, "%s:%d: %s: not true: %s\n", __FILE__, __LINE__, __func__, #expr);             \
                        abort();                                                                                       \
                }                                                                                                      \
        } while (0)
#define CHECK_EQ(a, b)                                                                                                 \
        do {                                                                                                           \
                long long _a = (long long) (a), _b = (long long) (b);                                                  \
                if (_a != _b) {                                                                                        \
                        fprintf(stderr, "%s:%d: %s: %s is %lld, not %lld\n", __FILE__, __LINE__, __func__, #a, _a,     \
                                _b);                                                                                   \
                        abort();                                                                                       \
                }                                                                                                      \
        } while (0)
#define CHECK_STREQ(a, b)                                                                                              \
        do {                                                                                                           \
                const char *_a = (a), *_b = (b);                                                                       \
                if (!_a || !_b || strcmp(_a, _b) != 0) {                                                               \
                        fprintf(stderr, "%s:%d: %s: %s is \"%s\", not \"%s\"\n", __FILE__, __LINE__, __func__, #a,     \
                                _a ? _a : "(null)", _b ? _b : "(null)");                                               \
                        abort();                                                                                       \
                }                                                                                                      \
        } while (0)

typedef struct TestCase {
        const char *name;
        void (*func)(void);
} TestCase;
#define TEST_CASE(f) { #f, f }
/* meson's exit code for a test that cannot run here. */
#define TEST_SKIPPED 77

/* Called by a case that cannot run here: the line says so, and why, instead of claiming success. */
__attribute__((__unused__)) static const char *test_skip_reason;
#define TEST_SKIP(reason) ((void) (test_skip_reason = (reason)))

/* `return test_skip_all("why");` from main(): a program none of whose cases can run here. (With TAP the exit code 77
 * would be a failure.) */
static inline int test_skip_all(const char *reason) {
        printf("1..0 # SKIP %s\n", reason);
        return EXIT_SUCCESS;
}

/* Prints a TAP line for each, so that the suite can count them. */
static inline int test_main(const TestCase *cases, size_t n) {
        setbuf(stdout, NULL);
        printf("1..%zu\n", n);
        for (size_t i = 0; i < n; i++) {
                test_skip_reason = NULL;
                cases[i].func();
                printf("ok %zu - %s%s%s\n", i + 1, cases[i].name, test_skip_reason ? " # SKIP " : "",
                       test_skip_reason ? test_skip_reason : "");
        }
        return EXIT_SUCCESS;
}
#define TEST_MAIN(...)                                                                                                 \
        int main(void) {                                                                                               \
                static const TestCase cases[] = { __VA_ARGS__ };                                                       \
                return test_main(cases, sizeof cases / sizeof cases[0]);                                               \
        }
