#include "basic/layout.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "basic/json-util.h"
#include "basic/log.h"
#include "basic/string-util.h"

#define LAYOUT_FILE_MAX 4096U

int layout_read(int dir_fd, unsigned *ret_version, Error *error) {
        _cleanup_free_ char *text = NULL;
        _cleanup_json_ json_t *j = NULL;
        json_int_t version;
        size_t size;
        int r;

        r = read_file(dir_fd, LAYOUT_FILE, LAYOUT_FILE_MAX, &text, &size);
        if (r == -ENOENT)
                return 0;
        if (r == -ENOMEM)
                return error_oom(error);
        if (r < 0) {
                (void) error_set(error, r, "it cannot be read");
                return -EBADMSG;
        }
        r = json_parse_sealed(text, size, &j, error);
        if (r < 0)
                return r;
        version = json_integer_value(json_object_get(j, "version"));
        if (version < 1 || version > INT32_MAX) {
                (void) error_setf(error, GRPC_DATA_LOSS, "it has no version");
                return -EBADMSG;
        }
        *ret_version = (unsigned) version;
        return 1;
}

/* Synced, once in a directory's life: it decides whether everything else can be read. */
static int layout_write(int dir_fd, unsigned version) {
        _cleanup_json_ json_t *j = json_pack("{s:i, s:s}", "version", (int) version, "writer", "rktlet " PROJECT_VERSION);
        _cleanup_free_ char *text = json_dump_sealed(j, 0);

        if (!text)
                return -ENOMEM;
        (void) layout_clear_file(dir_fd, LAYOUT_FILE);
        return write_file_atomic(dir_fd, LAYOUT_FILE, text, strlen(text), 0600, WRITE_SYNC);
}

int layout_open(int dir_fd, const char *shown, const Layout *l, Error *error) {
        _cleanup_error_ Error why = ERROR_INIT;
        unsigned version = 0;
        int r;

        r = layout_read(dir_fd, &version, &why);
        if (r == -ENOMEM)
                return error_oom(error);
        if (r > 0 && version > l->version) {
                (void) error_setf(error, GRPC_FAILED_PRECONDITION,
                                  "%s is of version %u, this rktlet (" PROJECT_VERSION ") knows %u and nothing later: start "
                                  "the rktlet that wrote it, or move it away", shown, version, l->version);
                return -EPROTONOSUPPORT;
        }
        if (r > 0 && version == l->version)
                return 0;
        if (r < 0) {
                log_warning("%s/" LAYOUT_FILE " is damaged (%s), writing it again", shown, strempty(why.message));
                version = 0;
        }
        for (; l->upgrade && version < l->version; version++) {
                r = l->upgrade(dir_fd, version, l->userdata, error);
                if (r < 0)
                        return error_prefix(error, r, "cannot bring %s from version %u to %u", shown, version, version + 1);
        }
        r = layout_write(dir_fd, l->version);
        if (r < 0)
                log_warning_errno(r, "Cannot write %s/" LAYOUT_FILE ", ignoring", shown);
        return 0;
}

int layout_make_directory(int dir_fd, const char *path, mode_t mode) {
        struct stat st;
        int r;

        r = mkdir_parents(dir_fd, path, mode);
        if (r != -ENOTDIR && r != -ENOENT && r != -ELOOP)
                return r;
        /* A symbolic link to nowhere, a file, …: but only if it is this one, and not one of those above. */
        if (fstatat(dir_fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0 || S_ISDIR(st.st_mode))
                return r;
        for (unsigned i = 0; i < 1000; i++) {
                _cleanup_free_ char *aside = strprintf("%s.damaged-%u", path, i);

                if (!aside)
                        return -ENOMEM;
                if (renameat2(dir_fd, path, dir_fd, aside, RENAME_NOREPLACE) >= 0) {
                        r = mkdir_parents(dir_fd, path, mode);
                        return r < 0 ? r : 1;
                }
                if (errno != EEXIST)
                        return -errno;
        }
        return -EEXIST;
}

int layout_clear_file(int dir_fd, const char *path) {
        struct stat st;

        if (fstatat(dir_fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return errno == ENOENT ? 0 : -errno;
        return S_ISREG(st.st_mode) ? 0 : remove_tree(dir_fd, path);
}
