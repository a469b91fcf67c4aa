#include <fcntl.h>
#include <unistd.h>

#include "basic/file-util.h"
#include "basic/test.h"
#include "engine/native/runtime.h"

static void the_last_message_of_the_log_counts(void) {
        static const char log[] = "{\"msg\":\"first\",\"level\":\"error\"}\nno JSON\n{\"level\":\"error\"}\n"
                                  "{\"msg\":\"last\",\"level\":\"error\"}\n{\"msg\":\"cut o";
        char path[] = "/tmp/test-runtime-XXXXXX";
        _cleanup_free_ char *message = NULL;
        _cleanup_close_ int fd = mkstemp(path);

        CHECK(fd >= 0);
        CHECK_EQ(write_all(fd, log, strlen(log)), 0);
        message = runtime_log_message(AT_FDCWD, path);
        CHECK_STREQ(message, "last");
        CHECK_EQ(unlink(path), 0);
        CHECK(!runtime_log_message(AT_FDCWD, path));
}

static void a_command_that_cannot_be_executed_is_told_from_other_failures(void) {
        _cleanup_free_ char *text = NULL, *none = NULL;

        CHECK_EQ(runtime_error_is_exec("executable file `ghost` not found in $PATH", "ghost", &text), 1);
        CHECK_STREQ(text, "exec: \"ghost\": executable file not found in $PATH");
        CHECK_EQ(runtime_error_is_exec("cannot mkdir `proc`: No space left on device", "ghost", &none), 0);
        CHECK(!none);
}

static void what_is_used_up_has_a_code_of_its_own(void) {
        CHECK_EQ(runtime_error_code("cannot mkdir `proc`: No space left on device"), GRPC_RESOURCE_EXHAUSTED);
        CHECK_EQ(runtime_error_code("runc create failed: mkdirat proc: no space left on device"), GRPC_RESOURCE_EXHAUSTED);
        CHECK_EQ(runtime_error_code("fork: Cannot allocate memory"), GRPC_RESOURCE_EXHAUSTED);
        CHECK_EQ(runtime_error_code("open /proc: Too many open files"), GRPC_RESOURCE_EXHAUSTED);
        CHECK_EQ(runtime_error_code("mount `x`: No such file or directory"), GRPC_FAILED_PRECONDITION);
}

TEST_MAIN(TEST_CASE(the_last_message_of_the_log_counts),
          TEST_CASE(a_command_that_cannot_be_executed_is_told_from_other_failures),
          TEST_CASE(what_is_used_up_has_a_code_of_its_own))
