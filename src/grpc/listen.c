/* Listening AF_UNIX stream sockets; see listen.h. */

#include "grpc/listen.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

static int make_address(const char *path, struct sockaddr_un *ret, Error *error) {
        size_t size = strlen(path);

        *ret = (struct sockaddr_un) { .sun_family = AF_UNIX };
        if (path[0] != '/')
                return error_setf(error, GRPC_INVALID_ARGUMENT, "The socket path '%s' is not absolute", path);
        if (size >= sizeof ret->sun_path)
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "The socket path is too long: %zu bytes, the kernel allows %zu; use a shorter one",
                                  size, sizeof ret->sun_path - 1);
        memcpy(ret->sun_path, path, size + 1);
        return 0;
}

static int new_socket(Error *error) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        return fd >= 0 ? fd : error_set(error, -errno, "Cannot make a socket");
}

/* Removes a socket that nobody listens on. 0 when nothing is in the way now. */
static int remove_stale(const struct sockaddr_un *address, Error *error) {
        _cleanup_close_ int fd = -1;
        struct stat before, after;
        const char *path = address->sun_path;

        if (lstat(path, &before) < 0)
                return errno == ENOENT ? 0 : error_set(error, -errno, "Cannot look at '%s'", path);
        if (!S_ISSOCK(before.st_mode))
                return error_set(error, -EEXIST, "'%s' is not a socket, not replacing it", path);

        fd = new_socket(error);
        if (fd < 0)
                return fd;
        /* Non-blocking: EAGAIN says that the listener's queue is full, so there is one. */
        if (connect(fd, (const struct sockaddr *) address, sizeof *address) >= 0 || errno == EAGAIN)
                return error_set(error, -EADDRINUSE, "Another process serves '%s'", path);
        if (errno != ECONNREFUSED && errno != ENOENT)
                return error_set(error, -errno, "Cannot tell whether a process serves '%s'", path);

        if (lstat(path, &after) >= 0 && after.st_dev == before.st_dev && after.st_ino == before.st_ino &&
            unlink(path) < 0 && errno != ENOENT)
                return error_set(error, -errno, "Cannot remove the old socket '%s'", path);
        return 0;
}

int listen_unix(const char *path, int *ret_fd, struct stat *ret_identity, Error *error) {
        _cleanup_close_ int fd = -1;
        struct sockaddr_un address;
        struct stat st;
        int r;

        r = make_address(path, &address, error);
        if (r < 0)
                return r;
        r = remove_stale(&address, error);
        if (r < 0)
                return r;
        fd = new_socket(error);
        if (fd < 0)
                return fd;

        /* The file is made with the descriptor's mode less the umask: never with more than 0660, whatever the umask
         * is. (Changing the umask instead would be seen by threads of libraries.) */
        if (fchmod(fd, 0660) < 0)
                return error_set(error, -errno, "Cannot set the mode of a socket");
        if (bind(fd, (struct sockaddr *) &address, sizeof address) < 0)
                return error_set(error, -errno, "Cannot bind to '%s'", path);
        if (lstat(path, &st) < 0 || chmod(path, 0660) < 0 || lchown(path, geteuid(), getegid()) < 0 ||
            listen(fd, SOMAXCONN) < 0) {
                r = -errno;
                (void) unlink(path);
                return error_set(error, r, "Cannot set up the socket '%s'", path);
        }

        *ret_fd = TAKE_FD(fd);
        *ret_identity = st;
        return 0;
}

void listen_unlink(const char *path, const struct stat *identity) {
        struct stat st;

        if (lstat(path, &st) >= 0 && st.st_dev == identity->st_dev && st.st_ino == identity->st_ino)
                (void) unlink(path);
}

int listen_check(int fd, Error *error) {
        int domain, type, listening, flags;

        if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &(socklen_t) { sizeof domain }) < 0 ||
            getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &(socklen_t) { sizeof type }) < 0 ||
            getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &(socklen_t) { sizeof listening }) < 0)
                return error_set(error, -errno, "Descriptor %d is no socket", fd);
        if (domain != AF_UNIX || type != SOCK_STREAM || !listening)
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "Descriptor %d is no listening UNIX stream socket; use ListenStream= with a path",
                                  fd);

        flags = fcntl(fd, F_GETFL);
        if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
                return error_set(error, -errno, "Cannot set the flags of descriptor %d", fd);
        return 0;
}
