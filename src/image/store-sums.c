/* Whether a layer's files are still what the unpacker wrote. */

#include <fcntl.h>
#include <zlib.h>

#include "basic/file-util.h"
#include "image/store.h"

#define SUMS_MAX  (1024U * 1024U * 1024U)
#define READ_SIZE (128U * 1024U)

static int sum_file(int fd, uint32_t *ret) {
        _cleanup_free_ unsigned char *buffer = malloc(READ_SIZE);
        uLong crc = 0;

        if (!buffer)
                return -ENOMEM;
        for (;;) {
                ssize_t n = read(fd, buffer, READ_SIZE);

                if (n < 0) {
                        if (errno == EINTR)
                                continue;
                        return -errno;
                }
                if (n == 0)
                        break;
                crc = crc32_z(crc, buffer, (size_t) n);
        }
        *ret = (uint32_t) crc;
        return 0;
}

static int check_file(int fs_fd, const char *line, Error *error) {
        char sum[9] = "", size[24] = "", actual[9];
        _cleanup_close_ int fd = -1;
        struct stat st;
        uint32_t crc = 0;
        int r, n = 0;

        if (sscanf(line, "%8s %20s %n", sum, size, &n) != 2 || n == 0 || !line[n]) {
                (void) error_setf(error, GRPC_DATA_LOSS, "its list of checksums is damaged");
                return -EBADMSG;
        }
        /* The last component is no symbolic link where the unpacker has written a file. */
        fd = open_in_root(fs_fd, line + n, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
        if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
                (void) error_setf(error, GRPC_DATA_LOSS, "its file %.500s is missing", line + n);
                return -EBADMSG;
        }
        (void) snprintf(actual, sizeof actual, "-");
        if (!streq(sum, "-")) {
                r = sum_file(fd, &crc);
                if (r < 0) {
                        (void) error_set(error, r, "its file %.500s cannot be read", line + n);
                        return r == -ENOMEM ? r : -EBADMSG;
                }
                (void) snprintf(actual, sizeof actual, "%08x", crc);
        }
        if (strtoull(size, NULL, 10) != (unsigned long long) st.st_size || !streq(actual, sum)) {
                (void) error_setf(error, GRPC_DATA_LOSS, "its file %.500s is not what was unpacked", line + n);
                return -EBADMSG;
        }
        return 0;
}

int layer_check_sums(int dir_fd, Error *error) {
        _cleanup_close_ int fs_fd = open_directory(dir_fd, "fs");
        _cleanup_free_ char *text = NULL;
        size_t size;
        int r;

        if (fs_fd < 0) {
                (void) error_setf(error, GRPC_DATA_LOSS, "it has no tree");
                return -EBADMSG;
        }
        r = read_file(dir_fd, "sums", SUMS_MAX, &text, &size);
        if (r == -ENOENT || r == -ENOMEM)
                return r == -ENOMEM ? r : 0;
        if (r < 0) {
                (void) error_set(error, r, "its list of checksums cannot be read");
                return -EBADMSG;
        }
        for (const char *p = text; p < text + size; p += strlen(p) + 1) {
                r = check_file(fs_fd, p, error);
                if (r < 0)
                        return r;
        }
        return 0;
}
