/* The root of a container. Layers are named relative to the store's folder, because the kernel's option string is a
 * page at most, and a single option of the newer mount calls 255 bytes. */

#include "engine/native/rootfs.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "basic/file-util.h"
#include "basic/kill-point.h"
#include "basic/process.h"
#include "basic/string-util.h"

#define OPTION_MAX 255U        /* fsconfig(2) */
#define SMALL_TREE_ENTRIES 256 /* removed in place, which takes a millisecond or two */
#define SMALL_TREE_DEPTH 16

/* "2/fs:1/fs": the uppermost first. padding: a folder below all; may be NULL unless there are no layers. */
static int make_lower(char *const *layers, const char *padding, char **ret) {
        _cleanup_(buffer_done) Buffer b = BUFFER_INIT;
        size_t n = strv_length(layers);
        int r = 0;

        for (size_t i = n; r >= 0 && i-- > 0;)
                r = buffer_appendf(&b, "%s/fs%s", layers[i], i > 0 || padding ? ":" : "");
        if (r >= 0 && padding)
                r = buffer_append(&b, padding, strlen(padding));
        if (r < 0)
                return r;
        *ret = TAKE_PTR(b.data);
        return 0;
}

/* The root directory itself has the owner and mode that the uppermost layer gives it. */
static int make_upper(const EngineContainer *c, int dir_fd, const char *layers_path, const IdMap *map, Error *error) {
        size_t n = strv_length(c->layers);
        struct stat st = { .st_mode = 0755 };
        uint32_t uid, gid;

        if (n > 0) {
                _cleanup_free_ char *top = strprintf("%s/%s/fs", layers_path, c->layers[n - 1]);

                if (!top)
                        return error_oom(error);
                if (stat(top, &st) < 0)
                        return error_set(error, -errno, "cannot look at layer %s of the image", c->layers[n - 1]);
        }
        uid = st.st_uid;
        gid = st.st_gid;
        /* An ID that isn't mapped belongs to nobody. */
        if (map && (id_ranges_outside(&map->uids, st.st_uid, &uid) < 0 || id_ranges_outside(&map->gids, st.st_gid, &gid) < 0))
                return error_setf(error, GRPC_FAILED_PRECONDITION,
                                  "the image's root belongs to user %u, group %u, which the pod's user namespace hasn't",
                                  st.st_uid, st.st_gid);
        if (mkdirat(dir_fd, "upper", 0700) < 0 || fchownat(dir_fd, "upper", uid, gid, 0) < 0 ||
            fchmodat(dir_fd, "upper", st.st_mode & 07777, 0) < 0 || mkdirat(dir_fd, "work", 0700) < 0)
                return error_set(error, -errno, "cannot make the writable layer in %s", c->directory);
        KILL_POINT_OF("container-make.upper", c->id);
        if (n == 0 && mkdirat(dir_fd, "empty", 0755) < 0)
                return error_set(error, -errno, "cannot make a folder in %s", c->directory);
        return 0;
}

typedef struct Overlay {
        char *lower, *upper, *work; /* without the last two it is read-only */
} Overlay;

static void overlay_done(Overlay *o) {
        free(o->lower);
        free(o->upper);
        free(o->work);
}

/* What the kernel has to say about a mount that failed, if anything. */
static void fs_message(int fs_fd, char *buffer, size_t size) {
        ssize_t n = read(fs_fd, buffer, size - 1);

        buffer[n > 0 ? n : 0] = 0;
        buffer[strcspn(buffer, "\n")] = 0;
}

/* "volatile": what a container writes is of no use after a crash of the machine, since it is never started again; so
 * nothing is synced for it, above all not the whole file system at each unmount. redirect_dir, metacopy: attributes
 * that an image could bring along are not obeyed. */
static int mount_detached(const Overlay *o, int *ret_fd, Error *error) {
        _cleanup_close_ int fs_fd = -1;
        const char *const strings[][2] = {
                { "source", "overlay" },        { "lowerdir", o->lower }, { "redirect_dir", "nofollow" },
                { "metacopy", "off" },          { "upperdir", o->upper }, { "workdir", o->work },
        };
        char why[256];
        int r = 0, fd;

        fs_fd = fsopen("overlay", FSOPEN_CLOEXEC);
        if (fs_fd < 0)
                return error_set(error, -errno, "overlay file systems can't be mounted");
        for (size_t i = 0; r >= 0 && i < ELEMENTSOF(strings) && strings[i][1]; i++)
                r = fsconfig(fs_fd, FSCONFIG_SET_STRING, strings[i][0], strings[i][1], 0);
        if (r >= 0 && o->upper)
                r = fsconfig(fs_fd, FSCONFIG_SET_FLAG, "volatile", NULL, 0);
        if (r >= 0)
                r = fsconfig(fs_fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
        if (r < 0) {
                r = -errno;
                fs_message(fs_fd, why, sizeof why);
                return error_set(error, r, "cannot mount the layers of the image%s%s", why[0] ? ": " : "", why);
        }
        fd = fsmount(fs_fd, FSMOUNT_CLOEXEC, 0);
        if (fd < 0)
                return error_set(error, -errno, "cannot mount the layers of the image");
        *ret_fd = fd;
        return 0;
}

/* The same by way of a mount point, for images of many layers. */
static int mount_at_scratch(const Overlay *o, const char *scratch, int *ret_fd, Error *error) {
        _cleanup_free_ char *upper = o->upper ? strprintf(",upperdir=%s,workdir=%s,volatile", o->upper, o->work)
                                              : strdup(""),
                            *options = upper ? strprintf("lowerdir=%s,redirect_dir=nofollow,metacopy=off%s", o->lower,
                                                         upper)
                                             : NULL;
        int fd, r = 0;

        if (!options)
                return error_oom(error);
        if (strlen(options) > ROOTFS_OPTIONS_MAX)
                return error_setf(error, GRPC_FAILED_PRECONDITION,
                                  "the image has too many layers: overlayfs takes no more than %u bytes of names",
                                  ROOTFS_OPTIONS_MAX);
        if (mount("overlay", scratch, "overlay", 0, options) < 0)
                return error_set(error, -errno, "cannot mount the layers of the image");
        fd = open_tree(AT_FDCWD, scratch, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        if (fd < 0)
                r = error_set(error, -errno, "cannot detach the layers of the image");
        (void) umount2(scratch, MNT_DETACH);
        if (r >= 0)
                *ret_fd = fd;
        return r;
}

/* Where an overlay cannot make what it needs in its work directory, the kernel mounts it read-only and says so in its own
 * log alone. The directory could be written to a moment ago, so what is missing is room. */
static int check_writable(const EngineContainer *c, int fd, Error *error) {
        struct statvfs st;

        if (fstatvfs(fd, &st) < 0)
                return error_set(error, -errno, "cannot look at the root of the container");
        if (!(st.f_flag & ST_RDONLY))
                return 0;
        return error_set(error, -ENOSPC, "the root of the container can't be written to: there is no room for its work "
                         "directory in %s", c->directory);
}

int mount_map_ids(int mount_fd, int userns_fd) {
        struct mount_attr attributes = { .attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t) userns_fd };

        if (mount_setattr(mount_fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof attributes) >= 0 ||
            mount_setattr(mount_fd, "", AT_EMPTY_PATH, &attributes, sizeof attributes) >= 0)
                return 0;
        return -errno;
}

/* The store's folder of layers once more, its IDs mapped. Overlayfs takes lower directories that are mounted somewhere
 * only: it is at `scratch` until the overlay is there, which keeps its own reference. */
static int map_layers(const char *layers_path, const char *scratch, int userns_fd, int *ret_fd, Error *error) {
        _cleanup_close_ int tree_fd = -1;
        int fd, r;

        tree_fd = open_tree(AT_FDCWD, layers_path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        if (tree_fd < 0)
                return error_set(error, -errno, "cannot clone the mount of %s", layers_path);
        r = mount_map_ids(tree_fd, userns_fd);
        if (r < 0)
                return error_set(error, r, "the file system of %s cannot map IDs, which pods with a user namespace need",
                                 layers_path);
        if (move_mount(tree_fd, "", AT_FDCWD, scratch, MOVE_MOUNT_F_EMPTY_PATH) < 0)
                return error_set(error, -errno, "cannot mount the layers at %s", scratch);
        fd = open_directory(AT_FDCWD, scratch);
        if (fd < 0) {
                (void) umount2(scratch, MNT_DETACH);
                return error_set(error, fd, "cannot open %s", scratch);
        }
        *ret_fd = fd;
        return 0;
}

/* Mounts it with the layers as working directory. */
static int overlay_mount(const Overlay *o, const char *layers_path, const char *scratch, int userns_fd, int *ret_fd,
                         Error *error) {
        _cleanup_close_ int layers_fd = -1, back_fd = -1;
        int r;

        back_fd = open_directory(AT_FDCWD, ".");
        if (back_fd < 0)
                return error_set(error, back_fd, "cannot open the working directory");
        if (userns_fd >= 0) {
                r = map_layers(layers_path, scratch, userns_fd, &layers_fd, error);
                if (r < 0)
                        return r;
        } else {
                layers_fd = open_directory(AT_FDCWD, layers_path);
                if (layers_fd < 0)
                        return error_set(error, layers_fd, "cannot open %s", layers_path);
        }
        r = fchdir(layers_fd) < 0 ? error_set(error, -errno, "cannot go to %s", layers_path) : 0;
        if (r >= 0 && strlen(o->lower) <= OPTION_MAX && strlen(strempty(o->upper)) <= OPTION_MAX &&
            strlen(strempty(o->work)) <= OPTION_MAX)
                r = mount_detached(o, ret_fd, error);
        else if (r >= 0)
                r = mount_at_scratch(o, scratch, ret_fd, error);
        (void) !fchdir(back_fd);
        if (userns_fd >= 0)
                (void) umount2(scratch, MNT_DETACH);
        return r;
}

int rootfs_mount(const EngineContainer *c, const char *scratch, const IdMap *map, int userns_fd, int *ret_fd,
                 Error *error) {
        _cleanup_(overlay_done) Overlay o = {};
        _cleanup_close_ int dir_fd = -1, fd = -1;
        _cleanup_free_ char *empty = NULL;
        int r;

        dir_fd = open_directory(AT_FDCWD, c->directory);
        if (dir_fd < 0)
                return error_set(error, dir_fd, "cannot open %s", c->directory);
        r = make_upper(c, dir_fd, c->layers_path, map, error);
        if (r < 0)
                return r;

        empty = strprintf("%s/empty", c->directory);
        o.upper = strprintf("%s/upper", c->directory);
        o.work = strprintf("%s/work", c->directory);
        if (!empty || !o.upper || !o.work ||
            make_lower(c->layers, strv_length(c->layers) == 0 ? empty : NULL, &o.lower) < 0)
                return error_oom(error);
        r = overlay_mount(&o, c->layers_path, scratch, userns_fd, &fd, error);
        if (r >= 0)
                r = check_writable(c, fd, error);
        if (r < 0)
                return r;
        *ret_fd = TAKE_FD(fd);
        return 0;
}

int layers_mount(const EngineContainer *c, char *const *layers, const char *scratch, int userns_fd, int *ret_fd,
                 Error *error) {
        _cleanup_free_ char *empty = strprintf("%s/empty", c->directory);
        _cleanup_(overlay_done) Overlay o = {};

        /* Overlayfs wants two at least. */
        if (!empty || make_lower(layers, empty, &o.lower) < 0)
                return error_oom(error);
        if (strv_length(layers) == 0)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "it has no layers");
        if (mkdir(empty, 0755) < 0 && errno != EEXIST)
                return error_set(error, -errno, "cannot make %s", empty);
        return overlay_mount(&o, c->layers_path, scratch, userns_fd, ret_fd, error);
}

/* --- removal ----------------------------------------------------------------------------------------------------- */

typedef struct Count {
        int left, depth;
} Count;

/* -E2BIG as soon as there are more entries, or levels, than a small tree has. */
static int count_entry(int dir_fd, const char *name, void *userdata) {
        Count *c = userdata;
        struct stat st;
        int r;

        if (--c->left < 0)
                return -E2BIG;
        if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode))
                return 0;
        if (c->depth >= SMALL_TREE_DEPTH)
                return -E2BIG;
        c->depth++;
        r = directory_foreach(dir_fd, name, count_entry, c);
        c->depth--;
        return r == -E2BIG ? r : 0;
}

static int remove_by_child(const char *helper, const char *path, Error *error) {
        const char *const argv[] = { helper, "--remove", path, NULL };
        _cleanup_(process_result_done) ProcessResult result = {};
        int r;

        r = process_run(&(ProcessOptions) { .argv = argv, .error_max = 4096 }, &result, error);
        if (r < 0)
                return r;
        if (result.code != CLD_EXITED || result.status != 0) {
                _cleanup_free_ char *why = utf8_sanitize(strempty(result.error));

                return error_setf(error, GRPC_INTERNAL, "cannot remove %s: %s %s", path,
                                  process_result_describe(&result), strempty(why));
        }
        return 0;
}

int rootfs_remove(const char *directory, const char *helper, Error *error) {
        static const char *const names[] = { "upper", "work", "empty" };
        _cleanup_close_ int dir_fd = -1;
        int r;

        dir_fd = open_directory(AT_FDCWD, directory);
        if (dir_fd == -ENOENT)
                return 0;
        if (dir_fd < 0)
                return error_set(error, dir_fd, "cannot open %s", directory);
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                Count count = { .left = SMALL_TREE_ENTRIES };
                _cleanup_free_ char *path = strprintf("%s/%s", directory, names[i]);

                if (!path)
                        return error_oom(error);
                r = directory_foreach(dir_fd, names[i], count_entry, &count);
                if (r == -ENOENT)
                        continue;
                if (r == -E2BIG) {
                        r = remove_by_child(helper, path, error);
                        if (r < 0)
                                return r;
                        continue;
                }
                r = remove_tree(dir_fd, names[i]);
                if (r < 0)
                        return error_set(error, r, "cannot remove %s", path);
        }
        return 0;
}
