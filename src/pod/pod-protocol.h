#pragma once
/* What is said between the daemon and a pod process, and how its unit has to be set up.
 *
 *     rktlet-pod --socket=PATH [--run-directory=/run/rktlet] [--journal=/run/systemd/journal/socket] [--net] [--ipc] [--uts [--hostname=H] [--domainname=D]]
 *                [--pid] [--sysctl=NAME=VALUE]... [--uid-map=INSIDE:OUTSIDE:COUNT... --gid-map=INSIDE:OUTSIDE:COUNT...]
 *
 * The unit: Type=notify, NotifyAccess=main, KillMode=process, Restart=on-abnormal, RestartSec=0, StartLimitIntervalSec=0,
 * FileDescriptorStoreMax=POD_FDSTORE_MAX, LimitNOFILE at least POD_FDSTORE_MAX + 64 (hard), a short TimeoutStopSec.
 * With Restart=on-abnormal a SIGKILL starts it again with its FD store, whereas an orderly end (exit 0) and an error
 * (POD_EXIT_FAILED, POD_EXIT_INIT_DIED) end the unit. When the unit fails before READY=1, its StatusText says why and
 * StatusErrno holds the errno; the journal has the same sentence.
 *
 * The main process's /proc/PID/ns/{net,ipc,uts,mnt} are always the pod's; with --pid so is /proc/PID/ns/pid_for_children.
 * With --uid-map these but mnt belong to a user namespace (ioctl_ns(2) tells it), in which the process itself is not.
 *
 * One request a connection on the SOCK_SEQPACKET socket: one packet with descriptors (SCM_RIGHTS), one packet back. A
 * pod process may be older than the daemon: numbers here are never used again for something else. */

#include <stdint.h>

#define POD_PROTOCOL_MAGIC 0x31646f70U /* "pod1" */

#define POD_CONTAINERS_MAX 128                               /* at one time, in one pod */
#define POD_FDSTORE_MAX (POD_CONTAINERS_MAX * 7 + 32)        /* stdin, stdout and stderr (both ends), log; our own */
#define POD_ID_MAX 127                                       /* bytes of a container's ID */
#define POD_PATH_MAX 4095                                    /* bytes of a path */
#define POD_LINE_MAX (128U * 1024U)                          /* largest line_max */
#define POD_LINE_DEFAULT (16U * 1024U)
#define POD_REQUEST_MAX 8192                                 /* bytes of a request */
#define POD_WORDS_MAX 504                                    /* bytes of a reply's words */

#define POD_EXIT_FAILED 100    /* it could not be set up, or not be continued */
#define POD_EXIT_INIT_DIED 101 /* the init of the pod's pid namespace is gone, and all processes in it */

enum PodOperation {
        POD_ADD_STREAMS = 1,
        POD_REOPEN_LOG = 2,
        POD_DRAIN = 3,
        POD_REMOVE_STREAMS = 4,
        POD_MOUNT = 5,   /* path: the target */
        POD_UNMOUNT = 6, /* path: the target */
        POD_SYSCTL = 7,  /* path: NAME=VALUE */
        POD_ATTACH = 8,  /* flags: PodAttachFlags; after the reply the connection carries PodPacket */
        POD_STATUS = 9,  /* path: what the unit's status text says from now on */
        POD_JOURNAL = 10, /* path: the container's name, under which its output goes to the journal, too */
};

enum PodAttachFlags {
        POD_ATTACH_STDIN = 1,
        POD_ATTACH_STDOUT = 2,
        POD_ATTACH_STDERR = 4,
        POD_ATTACH_STDIN_ONCE = 8, /* the container's input ends with this client's */
};

/* The first byte of a packet, data follows. */
enum PodPacket {
        POD_PACKET_STDIN = 0,     /* to the pod process */
        POD_PACKET_STDOUT = 1,    /* from it */
        POD_PACKET_STDERR = 2,
        POD_PACKET_STDIN_END = 3, /* to it */
        POD_PACKET_RESIZE = 4,    /* to it: columns and rows, uint16_t each */
        POD_PACKET_END = 5,       /* from it: the container is gone */
        POD_PACKET_OVERRUN = 6,   /* from it: the client was too slow, and is detached */
};
#define POD_PACKET_MAX 16384U /* bytes of data */

/* Which descriptors come with the request: bits of PodRequest.descriptors, passed in the order of the bits. */
enum PodDescriptor {
        POD_STDIN_READ,
        POD_STDIN_WRITE,
        POD_STDOUT_READ,
        POD_STDOUT_WRITE,
        POD_STDERR_READ,
        POD_STDERR_WRITE,
        _POD_PIPES_MAX,
        POD_TTY = _POD_PIPES_MAX,
        POD_MOUNT_FD,
        _POD_DESCRIPTOR_MAX,
};

typedef struct PodRequest {
        uint32_t magic;
        uint32_t operation;
        uint32_t descriptors;
        uint32_t line_max;  /* 0: POD_LINE_DEFAULT */
        uint16_t id_size;   /* without a NUL; the ID follows, then the path */
        uint16_t path_size;
        uint32_t flags;     /* of POD_ATTACH, else 0 */
} PodRequest;

typedef struct PodReply {
        uint32_t magic;
        int32_t result;     /* 0 or negative errno; words follow, without a NUL */
} PodReply;
