#pragma once
/* SPDY/3.1 framing, the server's side: bytes in, frames out through callbacks; no input or output of its own. Nothing
 * is kept but one control frame of bounded size and the state of the header compression. Specification: "SPDY Protocol
 * - Draft 3.1" (draft-mbelshe-httpbis-spdy). */

#include "basic/macro.h"

#define SPDY_CONTROL_MAX (16U * 1024U) /* bytes of a control frame; more ends the connection */
#define SPDY_HEADERS_MAX (16U * 1024U) /* bytes of a header block when uncompressed */
#define SPDY_FIELDS_MAX 64U            /* headers in a block */
#define SPDY_FRAME_HEADER 8U
#define SPDY_DATA_MAX 0xffffffU
#define SPDY_WINDOW_INITIAL 65536
#define SPDY_WINDOW_MAX INT32_MAX

typedef enum SpdyStatus {
        SPDY_PROTOCOL_ERROR = 1,
        SPDY_INVALID_STREAM = 2,
        SPDY_REFUSED_STREAM = 3,
        SPDY_CANCEL = 5,
        SPDY_INTERNAL_ERROR = 6,
        SPDY_FLOW_CONTROL_ERROR = 7,
} SpdyStatus;

typedef struct SpdyField {
        const char *name, *value; /* the first of several values */
} SpdyField;

typedef struct SpdyHeaders {
        SpdyField field[SPDY_FIELDS_MAX];
        size_t n;
} SpdyHeaders;

const char *spdy_header(const SpdyHeaders *h, const char *name);

/* A negative result ends spdy_feed(). */
typedef struct SpdyOps {
        int (*stream)(uint32_t id, const SpdyHeaders *h, bool fin, void *userdata);
        /* Data as it comes, with fin after the last of it; n may be 0. */
        int (*data)(uint32_t id, const void *data, size_t n, bool fin, void *userdata);
        int (*reset)(uint32_t id, void *userdata);
        int (*fin)(uint32_t id, void *userdata); /* HEADERS, SYN_REPLY with FLAG_FIN */
        int (*ping)(uint32_t id, void *userdata);
        /* A stream's window (id 0: the connection's) has grown. */
        int (*window)(uint32_t id, uint32_t delta, void *userdata);
        int (*initial_window)(uint32_t size, void *userdata);
        int (*going_away)(void *userdata);
} SpdyOps;

typedef struct Spdy Spdy;

int spdy_new(const SpdyOps *ops, void *userdata, Spdy **ret);
Spdy *spdy_free(Spdy *s);
DEFINE_TRIVIAL_CLEANUP_FUNC(Spdy *, spdy_free);
/* 0, -EPROTO: not SPDY, -EMSGSIZE: beyond a limit, -ENOMEM, or what a callback returned. */
int spdy_feed(Spdy *s, const void *data, size_t size);

/* Frames to send; each returns how many bytes it wrote into `out`. */
void spdy_put_data(uint8_t out[static SPDY_FRAME_HEADER], uint32_t id, bool fin, uint32_t size);
size_t spdy_put_reset(uint8_t out[static 16], uint32_t id, SpdyStatus status);
size_t spdy_put_ping(uint8_t out[static 12], uint32_t id);
size_t spdy_put_window(uint8_t out[static 16], uint32_t id, uint32_t delta);
size_t spdy_put_going_away(uint8_t out[static 16], uint32_t last_id, uint32_t status);
/* Without headers: none is needed by anybody. 0 when out of memory. */
#define SPDY_REPLY_MAX 128U
size_t spdy_put_reply(Spdy *s, uint8_t out[static SPDY_REPLY_MAX], uint32_t id);
