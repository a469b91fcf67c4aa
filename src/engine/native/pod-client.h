#pragma once
/* The daemon's side of a pod process's control socket (src/pod). The socket listens at RUN_DIRECTORY/pod.sock (0600);
 * its listening descriptor is in the unit's FD store, so that a connection made while systemd starts the process again
 * waits in the backlog. Each operation is one connection: request with descriptors, reply, done; one that is cut off
 * (the process was killed) is sent again, and all of them may be repeated without harm.
 *
 * All functions wait and must be called in a fiber. Errors carry the pod process's own words. */

#include "basic/error.h"
#include "basic/macro.h"

/* The pipes (or terminal) of one container and the log file they end in. The pod process keeps both ends of both pipes,
 * so that no writer ever gets EPIPE and no reader end of file. */
typedef struct PodStreams {
        const char *container_id;
        const char *log_path;  /* absolute; NULL: read and drop */
        int stdin_read_fd, stdin_write_fd; /* -1, -1: none (/dev/null); kept for attach and stdin_once */
        int stdout_read_fd, stdout_write_fd;
        int stderr_read_fd, stderr_write_fd;
        int tty_fd;            /* the terminal's master instead of the pipes, or -1 */
        size_t line_max;       /* bytes of text in a log line before it is split with P; 0: 16384, at most 131072 */
} PodStreams;

/* Hands the descriptors over (duplicated; the caller closes its own) and opens the log file: created 0640, appended to,
 * never through a symlink, a regular file or refused. A container_id that is there already is replaced. */
int pod_client_add_streams(const char *socket_path, const PodStreams *streams, Error *error);
/* Opens the log path again (kubelet has renamed the file): what was read before goes to the old file, the rest to the
 * new one, nothing is lost or doubled. -ENOENT: no such container. */
int pod_client_reopen_log(const char *socket_path, const char *container_id, Error *error);
/* Returns when all that is in the pipes is in the file, a partial last line included (it gets F). When the log cannot be
 * written for some seconds: why (-ENOSPC, …); nothing is lost, and the process goes on trying. */
int pod_client_drain(const char *socket_path, const char *container_id, Error *error);
/* Drains, then closes and forgets. Unknown: 0. What a log doesn't take for some seconds is dropped. */
int pod_client_remove_streams(const char *socket_path, const char *container_id, Error *error);

/* Attaches a detached mount (open_tree(OPEN_TREE_CLONE), fsmount()) in the pod process's mount namespace, where PID 1
 * doesn't see it. The target directory (or file, for the mount of one) is made when missing. Whatever is mounted there already is replaced. */
int pod_client_mount(const char *socket_path, int mount_fd, const char *target, Error *error);
/* Lazily unmounts what is there and removes the directory (or file); nothing there: 0. */
int pod_client_unmount(const char *socket_path, const char *target, Error *error);

/* Writes "NAME=VALUE" in the pod's namespaces; for sysctls of interfaces, which CNI makes after the pod's start (the
 * others are arguments of the process). Only of a namespace that the pod has for itself, else -EPERM. */
int pod_client_sysctl(const char *socket_path, const char *assignment, Error *error);

/* The container's lines go to the journal from now on, too, under this name. */
int pod_client_journal(const char *socket_path, const char *container_id, const char *name, Error *error);

/* What the unit's status text says from now on, until the process is started again. */
int pod_client_status(const char *socket_path, const char *text, Error *error);

/* Attaches to a container's streams: *ret_fd is a non-blocking SOCK_SEQPACKET socket, owned by the caller, that carries
 * PodPacket of pod-protocol.h. flags: PodAttachFlags. -ENOENT: no such container, -EPIPE: stdin was asked for and there
 * is none. */
int pod_client_attach(const char *socket_path, const char *container_id, uint32_t flags, int *ret_fd, Error *error);
