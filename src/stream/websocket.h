#pragma once
/* WebSocket framing (RFC 6455), the server's side: bytes in, data and control frames out through callbacks; no input
 * or output of its own and no buffer but that of one control frame. No extensions. */

#include "basic/macro.h"

typedef enum WebSocketOpcode {
        WEBSOCKET_CONTINUATION = 0,
        WEBSOCKET_TEXT = 1,
        WEBSOCKET_BINARY = 2,
        WEBSOCKET_CLOSE = 8,
        WEBSOCKET_PING = 9,
        WEBSOCKET_PONG = 10,
} WebSocketOpcode;

#define WEBSOCKET_CLOSE_NORMAL 1000
#define WEBSOCKET_CLOSE_PROTOCOL 1002
#define WEBSOCKET_CONTROL_MAX 125U
#define WEBSOCKET_HEADER_MAX 10U /* of what we send */

/* A negative result ends websocket_feed(). */
typedef struct WebSocketOps {
        /* A piece of a message, text or binary, unmasked; `first` and `last` say where the message begins and ends. */
        int (*data)(WebSocketOpcode opcode, const uint8_t *data, size_t n, bool first, bool last, void *userdata);
        /* Close, ping, pong. */
        int (*control)(WebSocketOpcode opcode, const uint8_t *data, size_t n, void *userdata);
} WebSocketOps;

/* Zeroed memory with ops set is a fresh one. */
typedef struct WebSocket {
        const WebSocketOps *ops;
        void *userdata;
        uint8_t header[14];
        size_t header_size;
        uint64_t left;     /* bytes of the frame still to come */
        unsigned mask_at;
        uint8_t message;   /* the opcode of the message that is under way, or 0 */
        bool begun;        /* its first piece was given */
        bool closed;       /* a close frame came; nothing after it counts */
        uint8_t control[WEBSOCKET_CONTROL_MAX];
        size_t control_size;
} WebSocket;

/* Unmasks in place. 0, -EPROTO: not what a client may send, or what a callback returned. */
int websocket_feed(WebSocket *w, uint8_t *data, size_t size);
/* The header of an unfragmented frame; returns its size. */
size_t websocket_put_header(uint8_t out[static WEBSOCKET_HEADER_MAX], WebSocketOpcode opcode, uint64_t size);

/* "Sec-WebSocket-Accept" for a client's key; 28 characters. -EINVAL: no key of 16 bytes. */
#define WEBSOCKET_ACCEPT_SIZE 28U
int websocket_accept(const char *key, char ret[static WEBSOCKET_ACCEPT_SIZE + 1]);
