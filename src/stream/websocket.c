#include "stream/websocket.h"

#include <endian.h>
#include <openssl/evp.h>

#define FIN 0x80U
#define RESERVED 0x70U
#define MASKED 0x80U
#define KEY_SIZE 24U /* 16 bytes in base64 */

static bool is_control(unsigned opcode) {
        return opcode & 8;
}

/* Bytes of the header as far as it is known. */
static size_t header_need(const WebSocket *w) {
        unsigned length;

        if (w->header_size < 2)
                return 2;
        length = w->header[1] & 0x7f;
        return 2U + (length == 126 ? 2U : length == 127 ? 8U : 0U) + 4U;
}

static int begin_frame(WebSocket *w) {
        unsigned opcode = w->header[0] & 0x0f, length = w->header[1] & 0x7f;
        bool fin = w->header[0] & FIN;
        uint64_t n = length;

        if (w->header[0] & RESERVED)
                return -EPROTO;
        if (length == 126) {
                n = (uint64_t) w->header[2] << 8 | w->header[3];
                if (n < 126)
                        return -EPROTO;
        } else if (length == 127) {
                memcpy(&n, w->header + 2, sizeof n);
                n = be64toh(n);
                if (n < 65536 || n >> 63)
                        return -EPROTO;
        }
        switch (opcode) {
        case WEBSOCKET_TEXT:
        case WEBSOCKET_BINARY:
                if (w->message)
                        return -EPROTO;
                w->message = (uint8_t) opcode;
                w->begun = false;
                break;
        case WEBSOCKET_CONTINUATION:
                if (!w->message)
                        return -EPROTO;
                break;
        case WEBSOCKET_CLOSE:
        case WEBSOCKET_PING:
        case WEBSOCKET_PONG:
                if (!fin || n > WEBSOCKET_CONTROL_MAX)
                        return -EPROTO;
                w->control_size = 0;
                break;
        default:
                return -EPROTO;
        }
        w->left = n;
        w->mask_at = 0;
        return 0;
}

/* A piece of the frame's payload, the last one maybe. */
static int take_payload(WebSocket *w, uint8_t *data, size_t n) {
        const uint8_t *mask = w->header + w->header_size - 4;
        unsigned opcode = w->header[0] & 0x0f;
        bool last = w->left == n && (w->header[0] & FIN), first;
        uint8_t message = w->message;

        for (size_t i = 0; i < n; i++)
                data[i] ^= mask[(w->mask_at + i) & 3];
        w->mask_at = (w->mask_at + n) & 3;
        w->left -= n;

        if (is_control(opcode)) {
                memcpy(w->control + w->control_size, data, n);
                w->control_size += n;
                if (w->left > 0)
                        return 0;
                w->closed = opcode == WEBSOCKET_CLOSE;
                return w->ops->control(opcode, w->control, w->control_size, w->userdata);
        }
        first = !w->begun;
        if (n == 0 && !last)
                return 0;
        w->begun = true;
        if (last)
                w->message = 0;
        return w->ops->data(message, data, n, first, last, w->userdata);
}

int websocket_feed(WebSocket *w, uint8_t *data, size_t size) {
        int r;

        while (size > 0 && !w->closed) {
                size_t n;

                if (w->header_size < header_need(w)) {
                        w->header[w->header_size++] = *data++;
                        size--;
                        /* Said at once: the mask that is missing would be waited for. */
                        if (w->header_size == 2 && !(w->header[1] & MASKED))
                                return -EPROTO;
                        if (w->header_size < header_need(w))
                                continue;
                        r = begin_frame(w);
                        if (r >= 0 && w->left == 0)
                                r = take_payload(w, data, 0);
                } else {
                        n = (size_t) MIN((uint64_t) size, w->left);
                        r = take_payload(w, data, n);
                        data += n;
                        size -= n;
                }
                if (r < 0)
                        return r;
                if (w->left == 0)
                        w->header_size = 0;
        }
        return 0;
}

size_t websocket_put_header(uint8_t out[static WEBSOCKET_HEADER_MAX], WebSocketOpcode opcode, uint64_t size) {
        out[0] = (uint8_t) (FIN | opcode);
        if (size < 126) {
                out[1] = (uint8_t) size;
                return 2;
        }
        if (size < 65536) {
                out[1] = 126;
                out[2] = (uint8_t) (size >> 8);
                out[3] = (uint8_t) size;
                return 4;
        }
        out[1] = 127;
        size = htobe64(size);
        memcpy(out + 2, &size, sizeof size);
        return 10;
}

int websocket_accept(const char *key, char ret[static WEBSOCKET_ACCEPT_SIZE + 1]) {
        /* RFC 6455, 1.3 */
        static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
        unsigned char digest[EVP_MAX_MD_SIZE], nonce[KEY_SIZE];
        char text[KEY_SIZE + sizeof guid];
        unsigned n;

        if (strlen(key) != KEY_SIZE || EVP_DecodeBlock(nonce, (const unsigned char *) key, KEY_SIZE) != 18 ||
            !endswith(key, "==") || key[KEY_SIZE - 3] == '=')
                return -EINVAL;
        memcpy(text, key, KEY_SIZE);
        memcpy(text + KEY_SIZE, guid, sizeof guid);
        if (EVP_Digest(text, KEY_SIZE + sizeof guid - 1, digest, &n, EVP_sha1(), NULL) != 1 || n != 20)
                return -EIO;
        (void) EVP_EncodeBlock((unsigned char *) ret, digest, (int) n);
        return 0;
}
