/* Image volumes and id-mapped mounts. */

#include "engine/native/volume.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "engine/native/rootfs.h"

bool volume_is_ours(const runtime_v1_Mount *m) {
        return (m->has_image && !isempty(m->image.image)) || m->uidMappings_count > 0 || m->gidMappings_count > 0;
}

char *volume_path(const EngineContainer *c, size_t index) {
        return strprintf("%s/mounts/%zu", c->run_directory, index);
}

static const EngineVolume *find_volume(const EngineContainer *c, size_t index) {
        for (size_t i = 0; i < c->n_volumes; i++)
                if (c->volumes[i].mount == index)
                        return &c->volumes[i];
        return NULL;
}

/* --- images ------------------------------------------------------------------------------------------------------ */

/* A clone of what is at the path below the mount. Only a mount that is somewhere can be cloned: it is at `scratch` for
 * that, where nobody else sees it. */
static int clone_below(int mount_fd, const char *path, const char *scratch, int *ret_fd, Error *error) {
        _cleanup_close_ int root_fd = -1, path_fd = -1;
        struct stat st;
        int fd;

        if (move_mount(mount_fd, "", AT_FDCWD, scratch, MOVE_MOUNT_F_EMPTY_PATH) < 0)
                return error_set(error, -errno, "cannot mount the image at %s", scratch);
        root_fd = open(scratch, O_PATH | O_DIRECTORY | O_CLOEXEC);
        path_fd = root_fd < 0 ? -errno : open_in_root(root_fd, path, O_PATH, 0);
        fd = path_fd < 0 ? path_fd : open_tree(path_fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        if (fd == -1)
                fd = -errno;
        (void) umount2(scratch, MNT_DETACH);
        if (path_fd < 0)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "the image has no \"%s\" to be mounted: %s", path,
                                  strerror(-path_fd));
        if (fd < 0)
                return error_set(error, fd, "cannot clone the mount of the image");
        if (fstat(fd, &st) < 0 || (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))) {
                (void) close(fd);
                return error_setf(error, GRPC_INVALID_ARGUMENT, "\"%s\" of the image is neither a directory nor a file",
                                  path);
        }
        *ret_fd = fd;
        return 0;
}

/* As Kubernetes says: read-only, and nothing of it can be executed. */
static int mount_image(NativeEngine *e, const EngineContainer *c, size_t index, int userns_fd, int *ret_fd, Error *error) {
        const runtime_v1_Mount *m = &c->config->mounts[index];
        const EngineVolume *v = find_volume(c, index);
        struct mount_attr attributes = {
                .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
        };
        _cleanup_close_ int whole_fd = -1, fd = -1;
        int r;

        if (!v)
                return error_setf(error, GRPC_UNIMPLEMENTED, "this engine cannot mount images");
        r = layers_mount(c, v->layers, e->scratch, userns_fd, &whole_fd, error);
        if (r < 0)
                return r;
        if (isempty(m->image_sub_path))
                fd = TAKE_FD(whole_fd);
        else {
                r = clone_below(whole_fd, m->image_sub_path, e->scratch, &fd, error);
                if (r < 0)
                        return r;
        }
        if (mount_setattr(fd, "", AT_EMPTY_PATH, &attributes, sizeof attributes) < 0)
                return error_set(error, -errno, "cannot make the mount of the image read-only");
        *ret_fd = TAKE_FD(fd);
        return 0;
}

/* --- id-mapped mounts -------------------------------------------------------------------------------------------- */

static int mount_mapped(const runtime_v1_Mount *m, const IdMap *map, int userns_fd, int *ret_fd, Error *error) {
        struct mount_attr read_only = { .attr_set = MOUNT_ATTR_RDONLY };
        _cleanup_close_ int own_fd = -1, fd = -1;
        IdMap own;
        int r;

        r = id_map_from_cri(m->uidMappings, m->uidMappings_count, m->gidMappings, m->gidMappings_count, "its mapping", &own,
                            error);
        if (r < 0)
                return r;
        /* The kubelet maps volumes as it maps the pod. */
        if (!id_map_equal(&own, map)) {
                r = id_map_make_namespace(&own, &own_fd, error);
                if (r < 0)
                        return r;
                userns_fd = own_fd;
        }
        fd = open_tree(AT_FDCWD, m->host_path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
        if (fd < 0)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "%s: %s", m->host_path, strerror(errno));
        r = mount_map_ids(fd, userns_fd);
        if (r < 0)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "the file system of %s can't map IDs: %s",
                                  m->host_path, strerror(-r));
        if (m->recursive_read_only &&
            mount_setattr(fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &read_only, sizeof read_only) < 0)
                return error_set(error, -errno, "cannot make it read-only");
        *ret_fd = TAKE_FD(fd);
        return 0;
}

/* ----------------------------------------------------------------------------------------------------------------- */

int volumes_attach(NativeEngine *e, const EngineContainer *c, const IdMap *map, int userns_fd, const char *socket_path,
                   Error *error) {
        int r;

        for (size_t i = 0; i < c->config->mounts_count; i++) {
                const runtime_v1_Mount *m = &c->config->mounts[i];
                _cleanup_free_ char *path = NULL;
                _cleanup_close_ int fd = -1;

                if (!volume_is_ours(m))
                        continue;
                path = volume_path(c, i);
                if (!path)
                        return error_oom(error);
                r = m->has_image ? mount_image(e, c, i, userns_fd, &fd, error)
                                 : mount_mapped(m, map, userns_fd, &fd, error);
                if (r < 0)
                        return error_prefix(error, r, "mount %s", m->container_path);
                r = pod_client_mount(socket_path, fd, path, error);
                if (r < 0)
                        return r;
        }
        return 0;
}

int volumes_detach(const EngineContainer *c, const char *socket_path, Error *error) {
        int r;

        for (size_t i = 0; i < c->config->mounts_count; i++) {
                _cleanup_free_ char *path = NULL;

                if (!volume_is_ours(&c->config->mounts[i]))
                        continue;
                path = volume_path(c, i);
                if (!path)
                        return error_oom(error);
                r = pod_client_unmount(socket_path, path, error);
                if (r < 0)
                        return r;
        }
        return 0;
}
