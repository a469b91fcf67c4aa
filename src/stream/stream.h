#pragma once
/* The streaming server: where Exec, Attach and PortForward send the kubelet, which then speaks SPDY/3.1 or WebSocket
 * to us on behalf of a client. A request is prepared, which gives a URL with a token in it: secret, good for one use
 * and a minute. Whoever comes with it gets a session, whose work is done by the request's operations in a fiber that
 * is cancelled when the client is gone.
 *
 * No client costs more than bounded memory: what it doesn't read isn't read from the container either. */

#include <systemd/sd-event.h>

#include "basic/error.h"
#include "basic/macro.h"
#include "stream/tls.h"

#define STREAM_TOKENS_MAX 1000U        /* URLs handed out and not yet used: ResourceExhausted beyond */
#define STREAM_TOKEN_USEC (60 * USEC_PER_SEC)
#define STREAM_CONNECTIONS_MAX 1000U   /* at one time; more are closed at once */
#define STREAM_HEAD_USEC (10 * USEC_PER_SEC)     /* until a client has sent its request */
#define STREAM_CREATION_USEC (30 * USEC_PER_SEC) /* until it has opened its SPDY streams */
#define STREAM_IDLE_USEC (4 * 3600 * USEC_PER_SEC) /* without a byte in either direction; as the peers have it */
#define STREAM_CHANNELS_MAX 1024U      /* SPDY streams of one connection: refused beyond */
#define STREAM_INPUT_MAX (256U * 1024U) /* bytes of one connection that wait for their reader, all channels together */

typedef struct StreamServer StreamServer;
typedef struct StreamSession StreamSession;

typedef enum StreamKind {
        STREAM_EXEC,
        STREAM_ATTACH,
        STREAM_PORT_FORWARD,
        _STREAM_KIND_MAX,
} StreamKind;

/* The numbers of the WebSocket sub-protocols. */
typedef enum StreamChannel {
        STREAM_STDIN,
        STREAM_STDOUT,
        STREAM_STDERR,
        STREAM_ERROR,
        STREAM_RESIZE,
        _STREAM_CHANNEL_MAX,
} StreamChannel;

/* What a session does; all called in fibers, and may wait. */
typedef struct StreamOps {
        /* Exec, attach: until the command, or the container, has ended. *ret_exit_code: 0 is success for the client. */
        int (*run)(StreamSession *s, void *userdata, int *ret_exit_code, Error *error);
        /* Port-forward: a connected stream socket, non-blocking. Called once for each connection. */
        int (*connect)(uint16_t port, void *userdata, int *ret_fd, Error *error);
        /* After the last use, or when the token has expired. */
        void (*free)(void *userdata);
} StreamOps;

typedef struct StreamRequest {
        StreamKind kind;
        bool in, out, err, tty; /* not of port-forward */
        const StreamOps *ops;
        void *userdata;
} StreamRequest;

/* Listens at address (IPv4 or IPv6, numeric; NULL: 127.0.0.1) and port (0: any). tls: NULL for none. SIGPIPE is ignored
 * from here on. */
int stream_server_new(sd_event *event, const char *address, uint16_t port, const StreamTlsConfig *tls,
                      StreamServer **ret, Error *error);
/* Cuts all connections. (The sessions' fibers go on until they have cleaned up: run the loop.) */
StreamServer *stream_server_free(StreamServer *s);
DEFINE_TRIVIAL_CLEANUP_FUNC(StreamServer *, stream_server_free);
/* No new connections, and all sessions are cut; (fiber) returns when their fibers have ended. */
int stream_server_stop(StreamServer *s, uint64_t timeout_usec);

/* Keeps the request, with its userdata in any case (`free` is called on failure as well), and gives the URL that
 * stands for it, owned by the caller. */
int stream_server_prepare(StreamServer *s, const StreamRequest *request, char **ret_url, Error *error);

/* For tests and metrics. */
size_t stream_server_sessions(const StreamServer *s);
size_t stream_server_tokens(const StreamServer *s);
/* Forgets those that are too old at that time (CLOCK_MONOTONIC); the server does so by itself. */
void stream_server_expire(StreamServer *s, uint64_t now);

/* Our ends of a command's standard streams, non-blocking; -1 where there is none. With a terminal all is in `tty`. */
typedef struct StreamPipes {
        int in, out, err, tty;
} StreamPipes;
#define STREAM_PIPES_NONE ((StreamPipes) { -1, -1, -1, -1 })

/* In run(): moves bytes between client and descriptors from now on; takes the descriptors in any case. */
int stream_session_start(StreamSession *s, StreamPipes *pipes);
/* In run(), once the command has ended: moves what is still in the pipes. */
int stream_session_finish(StreamSession *s);

/* In run(), for what has no descriptors of that kind: `socket` speaks StreamPacket, see below. Returns when it ends
 * (0; -ENOBUFS: we were too slow; -EPIPE: without a word). Borrowed. */
int stream_session_packets(StreamSession *s, int socket);
/* From any context: stream_session_packets() returns after what is in the socket now. */
void stream_session_end(StreamSession *s);

/* One packet of a SOCK_SEQPACKET socket: this byte, then data. */
typedef enum StreamPacket {
        STREAM_PACKET_STDIN = 0,   /* to it */
        STREAM_PACKET_STDOUT = 1,  /* from it */
        STREAM_PACKET_STDERR = 2,
        STREAM_PACKET_STDIN_END = 3, /* to it */
        STREAM_PACKET_RESIZE = 4,  /* to it: columns and rows, uint16_t each, in the machine's order */
        STREAM_PACKET_END = 5,     /* from it: nothing more will come */
        STREAM_PACKET_OVERRUN = 6, /* from it: we didn't read fast enough and are left behind; nothing more will come */
} StreamPacket;
#define STREAM_PACKET_MAX 16384U /* bytes of data */
