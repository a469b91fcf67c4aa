/* The small formats of gRPC over HTTP/2; see wire.h. */

#include "grpc/wire.h"

#include <strings.h>

int wire_parse_timeout(const char *s, size_t size, uint64_t *ret_usec) {
        uint64_t value = 0;

        if (size < 2 || size > 9)
                return -EINVAL;
        for (size_t i = 0; i < size - 1; i++) {
                if (s[i] < '0' || s[i] > '9')
                        return -EINVAL;
                value = value * 10 + (uint64_t) (s[i] - '0');
        }

        /* At most eight digits: 99999999 hours are far from overflowing. */
        switch (s[size - 1]) {
        case 'H':
                *ret_usec = value * 3600 * USEC_PER_SEC;
                return 0;
        case 'M':
                *ret_usec = value * 60 * USEC_PER_SEC;
                return 0;
        case 'S':
                *ret_usec = value * USEC_PER_SEC;
                return 0;
        case 'm':
                *ret_usec = value * USEC_PER_MSEC;
                return 0;
        case 'u':
                *ret_usec = value;
                return 0;
        case 'n':
                *ret_usec = (value + NSEC_PER_USEC - 1) / NSEC_PER_USEC;
                return 0;
        default:
                return -EINVAL;
        }
}

int wire_parse_request(const void *body, size_t size, size_t max, const void **ret, size_t *ret_size, Error *error) {
        const uint8_t *b = body;
        size_t length;

        if (size < WIRE_PREFIX)
                return error_setf(error, GRPC_INTERNAL, "The request holds no complete message (%zu bytes)", size);

        length = (size_t) b[1] << 24 | (size_t) b[2] << 16 | (size_t) b[3] << 8 | (size_t) b[4];
        if (b[0] == 1)
                return error_setf(error, GRPC_UNIMPLEMENTED,
                                  "The request message is compressed, which is not supported; send it uncompressed");
        if (b[0] != 0)
                return error_setf(error, GRPC_INTERNAL, "The request message has unknown flags 0x%02x", b[0]);
        if (length > max)
                return error_setf(error, GRPC_RESOURCE_EXHAUSTED,
                                  "The request message of %zu bytes is larger than the limit of %zu", length, max);
        if (length > size - WIRE_PREFIX)
                return error_setf(error, GRPC_INTERNAL, "The request message ends after %zu of %zu bytes",
                                  size - WIRE_PREFIX, length);
        if (length < size - WIRE_PREFIX)
                return error_setf(error, GRPC_INTERNAL, "The request holds more than the one message of this method");

        *ret = b + WIRE_PREFIX;
        *ret_size = length;
        return 0;
}

void wire_put_prefix(uint8_t prefix[static WIRE_PREFIX], size_t size) {
        prefix[0] = 0;
        prefix[1] = (uint8_t) (size >> 24);
        prefix[2] = (uint8_t) (size >> 16);
        prefix[3] = (uint8_t) (size >> 8);
        prefix[4] = (uint8_t) size;
}

char *wire_encode_text(const char *text) {
        static const char digits[] = "0123456789ABCDEF";
        size_t size = strlen(text);
        char *result, *p;

        if (size > WIRE_TEXT_MAX) {
                size = WIRE_TEXT_MAX;
                while (size > WIRE_TEXT_MAX - 3 && ((uint8_t) text[size] & 0xc0) == 0x80)
                        size--;
        }

        p = result = malloc(size * 3 + 1);
        if (!result)
                return NULL;
        for (size_t i = 0; i < size; i++) {
                uint8_t c = (uint8_t) text[i];

                if (c >= 0x20 && c <= 0x7e && c != '%')
                        *p++ = (char) c;
                else {
                        *p++ = '%';
                        *p++ = digits[c >> 4];
                        *p++ = digits[c & 15];
                }
        }
        *p = '\0';
        return result;
}

bool wire_is_grpc(const char *content_type, size_t size) {
        static const char name[] = "application/grpc";
        const size_t n = STRLEN("application/grpc");

        return size >= n && strncasecmp(content_type, name, n) == 0 &&
               (size == n || content_type[n] == '+' || content_type[n] == ';');
}
