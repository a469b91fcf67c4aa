/* The main function of rktlet-unpack; unpack.h says how the daemon calls it. */

#include "image/unpack.h"

#include <fcntl.h>
#include <locale.h>
#include <openssl/evp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>

#include "basic/file-util.h"
#include "basic/string-util.h"
#include "image/reference.h"

static int command_layer(char **args, Error *error) {
        _cleanup_(unpack_stream_freep) UnpackStream *stream = NULL;
        _cleanup_(unpack_tree_freep) UnpackTree *tree = NULL;
        struct statvfs fs;
        uint64_t size, available;
        int r;

        if (strv_length(args) != 3 || !digest_is_valid(args[0]) || parse_u64(args[1], &size) < 0 ||
            !digest_is_valid(args[2]))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "Usage: rktlet-unpack layer DIGEST SIZE DIFF-ID");
        if (fstatvfs(UNPACK_TREE_FD, &fs) < 0)
                return error_set(error, -errno, "Cannot look at the layer's file system");

        /* What takes all that is free is refused before it has taken it; others need to write, too. */
        available = (uint64_t) fs.f_bavail * fs.f_frsize;
        r = unpack_stream_new(STDIN_FILENO, size, available - available / 16, &stream, error);
        if (r < 0)
                return r;
        r = unpack_tree_new(UNPACK_TREE_FD, &tree, error);
        if (r < 0)
                return r;
        /* Whoever reads from the daemon without one would find the end of the layer too early, and tmp/ in use. */
        if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
                return error_set(error, -errno, "Cannot ask to end with the daemon");
        /* Names in pax headers are UTF-8 and have to stay so. Before the sandbox: it reads files. */
        if (!setlocale(LC_CTYPE, "C.UTF-8") && !setlocale(LC_CTYPE, "C.utf8"))
                return error_setf(error, GRPC_INTERNAL, "The locale C.UTF-8 is missing");

        r = unpack_sandbox(UNPACK_TREE_FD, SANDBOX_MAKE, error);
        if (r < 0)
                return r;
        r = unpack_layer(stream, tree, fcntl(UNPACK_SUMS_FD, F_GETFD) >= 0 ? UNPACK_SUMS_FD : -1, error);
        if (r < 0)
                return r;
        r = unpack_stream_finish(stream, args[0], args[2], error);
        if (r < 0)
                return r;
        r = unpack_tree_finish(tree, UNPACK_IMPLIED_FD, error);
        if (r < 0)
                return r;
        (void) dprintf(STDOUT_FILENO, "%llu %llu %zu %d\n", (unsigned long long) unpack_tree_bytes(tree),
                      (unsigned long long) unpack_tree_inodes(tree), unpack_tree_implied(tree),
                      unpack_tree_opaque_root(tree));
        return 0;
}

static int command_adopt(char **args, Error *error) {
        int fds[1024];
        size_t n = 0;
        int r;

        if (strv_length(args) != 0)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "Usage: rktlet-unpack adopt");
        while (n < ELEMENTSOF(fds) && fcntl(UNPACK_TREE_FD + (int) n, F_GETFD) >= 0) {
                fds[n] = UNPACK_TREE_FD + (int) n;
                n++;
        }
        if (n == 0)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "There is no tree");
        r = unpack_sandbox(UNPACK_TREE_FD, 0, error);
        if (r < 0)
                return r;
        return unpack_adopt(STDIN_FILENO, fds, n, error);
}

static int command_remove(char **args, Error *error) {
        int r;

        r = unpack_sandbox(UNPACK_TREE_FD, 0, error);
        if (r < 0)
                return r;
        STRV_FOREACH(name, args) {
                r = remove_tree(UNPACK_TREE_FD, *name);
                if (r < 0)
                        return error_set(error, r, "Cannot remove %s", *name);
        }
        return 0;
}

static int command_sync(char **args, Error *error) {
        int r;

        r = unpack_sandbox(-1, 0, error);
        if (r < 0)
                return r;
        return syncfs(UNPACK_TREE_FD) < 0 ? error_set(error, -errno, "Cannot sync the file system") : 0;
}

int main(int argc, char **argv) {
        static const struct {
                const char *name;
                int (*func)(char **args, Error *error);
        } commands[] = {
                        {"layer", command_layer},
                        {"adopt", command_adopt},
                        {"remove", command_remove},
                        {"sync", command_sync},
        };
        _cleanup_error_ Error error = ERROR_INIT;
        int r = -EINVAL;

        (void) umask(0);
        (void) signal(SIGPIPE, SIG_IGN);

        if (argc >= 2)
                for (size_t i = 0; i < ELEMENTSOF(commands); i++)
                        if (streq(argv[1], commands[i].name)) {
                                r = commands[i].func(argv + 2, &error);
                                if (r >= 0)
                                        return EXIT_SUCCESS;
                        }
        (void) error_setf(&error, r == -EINVAL ? GRPC_INVALID_ARGUMENT : grpc_code_from_errno(r),
                         "rktlet-unpack is started by rktlet");
        (void) dprintf(STDERR_FILENO, "%s\n", strempty(error.message));
        return (int) error.code;
}
