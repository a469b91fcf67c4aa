#include "basic/error.h"
#include "basic/test.h"

static void test_the_first_text_stays_and_prefixes_go_before_it(void) {
        _cleanup_error_ Error e = ERROR_INIT;

        CHECK_EQ(error_setf(&e, GRPC_NOT_FOUND, "no %s", "pod"), -ENOENT);
        CHECK_EQ(error_set(&e, -EIO, "later"), -EIO);
        CHECK_EQ(error_prefix(&e, -ENOENT, "cannot stop"), -ENOENT);
        CHECK_STREQ(e.message, "cannot stop: no pod");
        CHECK_EQ(e.code, GRPC_NOT_FOUND);
}

static void test_every_code_has_an_errno_that_leads_back(void) {
        for (GrpcCode c = GRPC_OK + 1; c < _GRPC_CODE_MAX; c++)
                CHECK_EQ(grpc_code_from_errno(grpc_code_to_errno(c)), c);
}

static void test_what_is_used_up_is_read_from_words(void) {
        CHECK(text_says_exhausted("cannot mkdir `proc`: No space left on device"));
        CHECK(text_says_exhausted("runc create failed: mkdirat proc: no space left on device"));
        CHECK(text_says_exhausted("fork: Cannot allocate memory"));
        CHECK(text_says_exhausted("open /proc: too many open files"));
        CHECK(!text_says_exhausted("mount `x`: No such file or directory"));
        CHECK(!text_says_exhausted(""));
}

TEST_MAIN(TEST_CASE(test_the_first_text_stays_and_prefixes_go_before_it),
          TEST_CASE(test_every_code_has_an_errno_that_leads_back),
          TEST_CASE(test_what_is_used_up_is_read_from_words))
