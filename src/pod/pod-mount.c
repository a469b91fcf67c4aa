#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/stat.h>
#include <sys/stat.h>

#include "pod/pod-mount.h"

#ifndef MNT_DETACH
#define MNT_DETACH 2
#endif
#ifndef UMOUNT_NOFOLLOW
#define UMOUNT_NOFOLLOW 8
#endif

#define DIRECTORY_MODE 0711
#define FILE_MODE 0600
#define STACKED_MAX 64

typedef enum Target {
        TARGET_THERE, /* a directory or file that is there */
        TARGET_DIRECTORY,
        TARGET_FILE,
} Target;

static int target_make(int dir_fd, const char *name, bool file) {
        int r = file ? SYS(mknodat, dir_fd, name, S_IFREG | FILE_MODE, 0) : SYS(mkdirat, dir_fd, name, DIRECTORY_MODE);

        return r == -EEXIST ? 0 : r;
}

/* Walks to the target component by component, never through a symbolic link; makes what is missing when told. */
static int target_open(const char *root, const char *target, Target kind, Text *why) {
        const char *p = startswith(target, root);
        int fd, r;

        if (!p || *p != '/')
                return fail(why, -EINVAL, "mounts are made below ", root, " only, not at ", target, NULL);

        fd = SYS(openat, AT_FDCWD, root, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
        if (fd < 0)
                return fail(why, fd, "cannot open ", root, NULL);
        while (*p) {
                struct open_how how;
                char name[256];
                size_t n = 0;
                int next;

                for (p++; *p && *p != '/'; p++)
                        if (n + 1 < sizeof name)
                                name[n++] = *p;
                name[n] = 0;
                if (n == 0 || n + 1 == sizeof name || streq(name, ".") || streq(name, "..")) {
                        (void) sys_close(fd);
                        return fail(why, -EINVAL, "no plain path: ", target, NULL);
                }
                if (kind != TARGET_THERE) {
                        r = target_make(fd, name, !*p && kind == TARGET_FILE);
                        if (r < 0) {
                                (void) sys_close(fd);
                                return fail(why, r, "cannot make ", target, NULL);
                        }
                }
                how = (struct open_how) {
                        .flags = O_PATH | O_CLOEXEC | (*p || kind == TARGET_DIRECTORY ? O_DIRECTORY : 0),
                        .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
                };
                next = SYS(openat2, fd, name, &how, sizeof how);
                (void) sys_close(fd);
                if (next < 0)
                        return kind != TARGET_THERE || next != -ENOENT ? fail(why, next, "cannot open ", target, NULL)
                                                                       : next;
                fd = next;
        }
        return fd;
}

static int mount_id(int fd, uint64_t *ret, bool *ret_directory) {
        struct statx st;
        int r;

        r = SYS(statx, fd, "", AT_EMPTY_PATH, STATX_MNT_ID | STATX_TYPE, &st);
        if (r < 0)
                return r;
        *ret = st.stx_mnt_id;
        *ret_directory = (st.stx_mode & S_IFMT) == S_IFDIR;
        return 0;
}

static int unmount_all(const char *target, Text *why) {
        int r = 0;

        for (int i = 0; i < STACKED_MAX && r >= 0; i++)
                r = SYS(umount2, target, MNT_DETACH | UMOUNT_NOFOLLOW);
        if (r < 0 && r != -EINVAL)
                return fail(why, r, "cannot unmount ", target, NULL);
        return 0;
}

int mount_attach(const char *root, int mount_fd, const char *target, Text *why) {
        bool directory = true, other;
        uint64_t ours, there;
        int fd, r;

        r = mount_id(mount_fd, &ours, &directory);
        if (r < 0)
                return fail(why, r, "cannot look at the mount", NULL);
        fd = target_open(root, target, directory ? TARGET_DIRECTORY : TARGET_FILE, why);
        if (fd < 0)
                return fd;
        r = mount_id(fd, &there, &other);
        (void) sys_close(fd);
        if (r < 0)
                return fail(why, r, "cannot look at ", target, NULL);
        if (ours == there)
                return 0; /* sent again */

        r = unmount_all(target, why);
        if (r < 0)
                return r;
        fd = target_open(root, target, directory ? TARGET_DIRECTORY : TARGET_FILE, why);
        if (fd < 0)
                return fd;
        r = SYS(move_mount, mount_fd, "", fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
        (void) sys_close(fd);
        if (r < 0)
                return fail(why, r, "cannot mount at ", target, NULL);
        return 0;
}

int mount_detach(const char *root, const char *target, Text *why) {
        int fd, r;

        fd = target_open(root, target, TARGET_THERE, why);
        if (fd == -ENOENT)
                return 0;
        if (fd < 0)
                return fd;
        (void) sys_close(fd);

        r = unmount_all(target, why);
        if (r < 0)
                return r;
        r = SYS(unlinkat, AT_FDCWD, target, AT_REMOVEDIR);
        if (r == -ENOTDIR)
                r = SYS(unlinkat, AT_FDCWD, target, 0);
        if (r < 0 && r != -ENOENT)
                return fail(why, r, "cannot remove ", target, NULL);
        return 0;
}
