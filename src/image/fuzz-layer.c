/* libFuzzer: any bytes are a layer or are refused, and nothing but the tree changes. As root, best on a tmpfs
 * (TMPDIR). */

#include <fcntl.h>
#include <locale.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "basic/string-util.h"
#include "image/unpack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int top_fd = -1;

/* top/ has canary/ and, for each input, fs/. */
static void setup(void) {
        const char *base = getenv("TMPDIR");
        static char top[256];

        (void) snprintf(top, sizeof top, "%s/rktlet-fuzz-XXXXXX", base ? base : "/tmp");
        if (!setlocale(LC_CTYPE, "C.UTF-8") || !mkdtemp(top))
                abort();
        top_fd = open_directory(AT_FDCWD, top);
        if (top_fd < 0 || mkdirat(top_fd, "canary", 0755) < 0)
                abort();
}

static int reject_name(int dir_fd, const char *name, void *userdata) {
        return streq(name, "canary") || streq(name, "fs") ? 0 : 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        _cleanup_(unpack_stream_freep) UnpackStream *stream = NULL;
        _cleanup_(unpack_tree_freep) UnpackTree *tree = NULL;
        _cleanup_close_ int in = -1, root = -1, implied = -1;

        if (top_fd < 0)
                setup();
        in = memfd_create("layer", MFD_CLOEXEC);
        implied = memfd_create("implied", MFD_CLOEXEC);
        if (in < 0 || implied < 0 || write_all(in, data, size) < 0 || lseek(in, 0, SEEK_SET) < 0 ||
            mkdirat(top_fd, "fs", 0755) < 0)
                abort();
        root = open_directory(top_fd, "fs");
        if (root < 0 || unpack_stream_new(in, size, 16U * 1024U * 1024U, &stream, NULL) < 0 ||
            unpack_tree_new(root, &tree, NULL) < 0)
                abort();
        if (unpack_layer(stream, tree, /* sums_fd= */ -1, NULL) >= 0)
                (void) unpack_tree_finish(tree, implied, NULL);

        if (directory_foreach(top_fd, ".", reject_name, NULL) != 0 ||
            directory_foreach(top_fd, "canary", reject_name, NULL) != 0)
                abort();
        if (remove_tree(top_fd, "fs") < 0)
                abort();
        return 0;
}
