/* SPDY, WebSocket and HTTP on bytes alone, in one piece and byte by byte. */

#include <endian.h>
#include <zlib.h>

#include "basic/string-util.h"
#include "basic/test.h"
#include "stream/http.h"
#include "stream/session.h"
#include "stream/spdy-dictionary.h"

/* --- SPDY -------------------------------------------------------------------------------------------------------- */

static Buffer seen;

static void note(const char *format, ...) _printf_(1, 2);
static void note(const char *format, ...) {
        _cleanup_free_ char *text = NULL;
        va_list ap;

        va_start(ap, format);
        CHECK(vasprintf(&text, format, ap) >= 0);
        va_end(ap);
        CHECK(buffer_append(&seen, text, strlen(text)) >= 0);
}

static int on_stream(uint32_t id, const SpdyHeaders *h, bool fin, void *userdata) {
        note("stream %u %s %s%s;", id, strempty(spdy_header(h, "streamtype")), strempty(spdy_header(h, "port")),
             fin ? " fin" : "");
        return 0;
}
static size_t n_data;
static int on_data(uint32_t id, const void *data, size_t n, bool fin, void *userdata) {
        n_data += n;
        if (n > 0)
                note("%.*s", (int) n, (const char *) data);
        if (fin)
                note("/fin %u;", id);
        return 0;
}
static int on_reset(uint32_t id, void *userdata) {
        note("reset %u;", id);
        return 0;
}
static int on_fin(uint32_t id, void *userdata) {
        note("fin %u;", id);
        return 0;
}
static int on_ping(uint32_t id, void *userdata) {
        note("ping %u;", id);
        return 0;
}
static int on_window(uint32_t id, uint32_t delta, void *userdata) {
        note("window %u %u;", id, delta);
        return 0;
}
static int on_initial(uint32_t size, void *userdata) {
        note("initial %u;", size);
        return 0;
}
static int on_going(void *userdata) {
        note("away;");
        return 0;
}
static const SpdyOps ops = { on_stream, on_data, on_reset, on_fin, on_ping, on_window, on_initial, on_going };

static void put32(Buffer *b, uint32_t n) {
        n = htobe32(n);
        CHECK(buffer_append(b, &n, 4) >= 0);
}

/* The client's side of the compression. */
static z_stream client;

static void client_begin(void) {
        client = (z_stream) {};
        CHECK_EQ(deflateInit(&client, 9), Z_OK);
        CHECK_EQ(deflateSetDictionary(&client, spdy_dictionary, SPDY_DICTIONARY_SIZE), Z_OK);
        buffer_done(&seen);
        n_data = 0;
}

static void put_compressed(Buffer *b, const void *block, size_t size) {
        static uint8_t out[64 * 1024];

        client.next_in = (Bytef *) block;
        client.avail_in = (uInt) size;
        client.next_out = out;
        client.avail_out = sizeof out;
        CHECK_EQ(deflate(&client, Z_SYNC_FLUSH), Z_OK);
        CHECK(buffer_append(b, out, sizeof out - client.avail_out) >= 0);
}

static void put_stream(Buffer *b, uint32_t id, bool fin, const char *const *headers) {
        _cleanup_(buffer_done) Buffer block = BUFFER_INIT, body = BUFFER_INIT;
        uint32_t n = 0;

        while (headers[n])
                n++;
        put32(&block, n / 2);
        for (uint32_t i = 0; i < n; i++) {
                put32(&block, (uint32_t) strlen(headers[i]));
                CHECK(buffer_append(&block, headers[i], strlen(headers[i])) >= 0);
        }
        put32(&body, id);
        put32(&body, 0);
        CHECK(buffer_append(&body, "\0\0", 2) >= 0);
        put_compressed(&body, block.data, block.size);
        put32(b, 0x80030001);
        put32(b, (uint32_t) body.size | (fin ? 1U << 24 : 0));
        CHECK(buffer_append(b, body.data, body.size) >= 0);
}

static int feed_spdy(const Buffer *b, size_t step) {
        _cleanup_(spdy_freep) Spdy *s = NULL;
        int r = 0;

        CHECK_EQ(spdy_new(&ops, NULL, &s), 0);
        for (size_t i = 0; i < b->size && r >= 0; i += step)
                r = spdy_feed(s, b->data + i, MIN(step, b->size - i));
        return r;
}

static void spdy_frames_come_out_however_they_are_cut(void) {
        static const char expected[] = "stream 1 error ;stream 3 data 8080 fin;hello/fin 1;reset 3;ping 7;window 0 5;"
                                       "initial 9;away;";

        for (size_t step = 1; step < 200; step += step < 20 ? 1 : 60) {
                _cleanup_(buffer_done) Buffer b = BUFFER_INIT;
                uint8_t frame[16];

                client_begin();
                put_stream(&b, 1, false, (const char *[]) { "streamtype", "error", NULL });
                put_stream(&b, 3, true, (const char *[]) { "streamtype", "data", "port", "8080", NULL });
                spdy_put_data(frame, 1, true, 5);
                CHECK(buffer_append(&b, frame, 8) >= 0 && buffer_append(&b, "hello", 5) >= 0);
                CHECK(buffer_append(&b, frame, spdy_put_reset(frame, 3, SPDY_CANCEL)) >= 0);
                CHECK(buffer_append(&b, frame, spdy_put_ping(frame, 7)) >= 0);
                CHECK(buffer_append(&b, frame, spdy_put_window(frame, 0, 5)) >= 0);
                put32(&b, 0x80030004), put32(&b, 12), put32(&b, 1), put32(&b, 7), put32(&b, 9);
                CHECK(buffer_append(&b, frame, spdy_put_going_away(frame, 3, 0)) >= 0);
                CHECK_EQ(feed_spdy(&b, step), 0);
                (void) deflateEnd(&client);
                if (step >= 5)
                        CHECK_STREQ(seen.data, expected);
                CHECK_EQ(n_data, 5);
        }
}

static int feed_words(const uint32_t *words, size_t n) {
        _cleanup_(buffer_done) Buffer b = BUFFER_INIT;

        client_begin();
        (void) deflateEnd(&client);
        for (size_t i = 0; i < n; i++)
                put32(&b, words[i]);
        return feed_spdy(&b, b.size);
}
#define FEED_WORDS(...) feed_words((const uint32_t[]) { __VA_ARGS__ }, ELEMENTSOF(((const uint32_t[]) { __VA_ARGS__ })))

static void spdy_that_breaks_the_rules_is_refused(void) {
        CHECK_EQ(FEED_WORDS(0x80020006, 4, 1), -EPROTO);            /* version 2 */
        CHECK_EQ(FEED_WORDS(0x80030006, 8, 1, 1), -EPROTO);         /* a ping of 8 bytes */
        CHECK_EQ(FEED_WORDS(0x80030009, 8, 1, 0), -EPROTO);         /* a window that grows by nothing */
        CHECK_EQ(FEED_WORDS(0x80030004, 12, 2, 7, 9), -EPROTO);     /* settings that are not there */
        CHECK_EQ(FEED_WORDS(0x80030001, 0x00ffffff), -EMSGSIZE);    /* a header of 16 MiB */
        CHECK_EQ(FEED_WORDS(0x80030001, 12, 1, 0, 0), -EPROTO);     /* no compressed block */
        CHECK_EQ(FEED_WORDS(0x80030063, 4, 1), 0);                  /* unknown: to be ignored */
}

static void spdy_stream_numbers_grow_and_are_odd(void) {
        static const uint32_t wrong[][2] = { { 2, 3 }, { 3, 1 }, { 3, 3 } };

        for (size_t i = 0; i < ELEMENTSOF(wrong); i++) {
                _cleanup_(buffer_done) Buffer b = BUFFER_INIT;

                client_begin();
                put_stream(&b, wrong[i][0], false, (const char *[]) { NULL });
                put_stream(&b, wrong[i][1], false, (const char *[]) { NULL });
                CHECK_EQ(feed_spdy(&b, b.size), -EPROTO);
                (void) deflateEnd(&client);
        }
}

static void spdy_header_blocks_are_bounded(void) {
        static char bomb[SPDY_HEADERS_MAX * 4];
        _cleanup_(buffer_done) Buffer b = BUFFER_INIT, body = BUFFER_INIT;

        client_begin();
        put32(&body, 1), put32(&body, 0);
        CHECK(buffer_append(&body, "\0\0", 2) >= 0);
        put_compressed(&body, bomb, sizeof bomb);
        put32(&b, 0x80030001), put32(&b, (uint32_t) body.size);
        CHECK(buffer_append(&b, body.data, body.size) >= 0);
        CHECK_EQ(feed_spdy(&b, b.size), -EMSGSIZE);
        (void) deflateEnd(&client);
}

static void spdy_replies_can_be_read(void) {
        uint8_t frame[SPDY_REPLY_MAX], out[64];
        _cleanup_(spdy_freep) Spdy *s = NULL;
        z_stream z = {};

        CHECK_EQ(spdy_new(&ops, NULL, &s), 0);
        CHECK_EQ(inflateInit(&z), Z_OK);
        for (uint32_t id = 1; id < 100; id += 2) {
                size_t n = spdy_put_reply(s, frame, id);

                CHECK(n > 12 && frame[0] == 0x80 && frame[3] == 2 && frame[11] == id);
                CHECK_EQ(frame[7] + 8U, n);
                z.next_in = frame + 12;
                z.avail_in = (uInt) n - 12;
                z.next_out = out;
                z.avail_out = sizeof out;
                while (z.avail_in > 0) {
                        int r = inflate(&z, Z_SYNC_FLUSH);

                        if (r == Z_NEED_DICT)
                                r = inflateSetDictionary(&z, spdy_dictionary, SPDY_DICTIONARY_SIZE);
                        CHECK_EQ(r, Z_OK);
                }
                CHECK_EQ(sizeof out - z.avail_out, 4);
                CHECK(memcmp(out, "\0\0\0\0", 4) == 0);
        }
        (void) inflateEnd(&z);
}

static void the_dictionary_is_that_of_the_specification(void) {
        CHECK_EQ(SPDY_DICTIONARY_SIZE, 1423);
        CHECK_EQ(adler32(adler32(0, NULL, 0), spdy_dictionary, SPDY_DICTIONARY_SIZE), 0xe3c6a7c2);
}

/* --- WebSocket --------------------------------------------------------------------------------------------------- */

static int on_message(WebSocketOpcode opcode, const uint8_t *data, size_t n, bool first, bool last, void *userdata) {
        if (first)
                note("%s:", opcode == WEBSOCKET_TEXT ? "text" : "binary");
        note("%.*s%s", (int) n, (const char *) data, last ? ";" : "");
        return 0;
}
static int on_control(WebSocketOpcode opcode, const uint8_t *data, size_t n, void *userdata) {
        note("control %u %.*s;", opcode, (int) n, (const char *) data);
        return 0;
}
static const WebSocketOps websocket_ops = { on_message, on_control };

static void put_masked(Buffer *b, uint8_t first, const char *data, size_t n, bool masked) {
        static const uint8_t mask[4] = { 0x12, 0x34, 0x56, 0x78 };
        uint8_t header[WEBSOCKET_HEADER_MAX];
        size_t size = websocket_put_header(header, 0, n);

        header[0] = first;
        header[1] |= masked ? 0x80 : 0;
        CHECK(buffer_append(b, header, size) >= 0);
        if (masked)
                CHECK(buffer_append(b, mask, 4) >= 0);
        for (size_t i = 0; i < n; i++)
                CHECK(buffer_append(b, &(char) { (char) (data[i] ^ (masked ? mask[i % 4] : 0)) }, 1) >= 0);
}

static int feed_websocket(const Buffer *b, size_t step) {
        WebSocket w = { .ops = &websocket_ops };
        _cleanup_free_ uint8_t *copy = malloc(b->size);
        int r = 0;

        CHECK(copy);
        memcpy(copy, b->data, b->size);
        buffer_done(&seen);
        for (size_t i = 0; i < b->size && r >= 0; i += step)
                r = websocket_feed(&w, copy + i, MIN(step, b->size - i));
        return r;
}

static void websocket_messages_come_out_however_they_are_cut(void) {
        _cleanup_(buffer_done) Buffer b = BUFFER_INIT;
        static char large[70000];

        put_masked(&b, 0x82, "one", 3, true);
        put_masked(&b, 0x01, "tw", 2, true);
        put_masked(&b, 0x89, "p", 1, true);
        put_masked(&b, 0x80, "o", 1, true);
        put_masked(&b, 0x82, "", 0, true);
        for (size_t step = 1; step < 64; step++) {
                CHECK_EQ(feed_websocket(&b, step), 0);
                CHECK_STREQ(seen.data, "binary:one;text:twcontrol 9 p;o;binary:;");
        }
        memset(large, 'x', sizeof large);
        put_masked(&b, 0x82, large, 300, true);
        put_masked(&b, 0x82, large, sizeof large, true);
        put_masked(&b, 0x88, "\x03\xe8", 2, true);
        put_masked(&b, 0x82, "not read any more", 17, true);
        for (size_t step = 1000; step < 5000; step += 777) {
                CHECK_EQ(feed_websocket(&b, step), 0);
                CHECK(seen.size > sizeof large + 300 && endswith(seen.data, "control 8 \x03\xe8;"));
        }
}

static int feed_one(uint8_t first, size_t n, bool masked) {
        _cleanup_(buffer_done) Buffer b = BUFFER_INIT;
        static const char data[200];

        put_masked(&b, first, data, n, masked);
        return feed_websocket(&b, b.size);
}

static void websocket_that_breaks_the_rules_is_refused(void) {
        CHECK_EQ(feed_one(0x82, 1, true), 0);
        CHECK_EQ(feed_one(0x82, 1, false), -EPROTO); /* not masked */
        CHECK_EQ(feed_one(0xc2, 1, true), -EPROTO);  /* a reserved bit */
        CHECK_EQ(feed_one(0x83, 1, true), -EPROTO);  /* an unknown opcode */
        CHECK_EQ(feed_one(0x80, 1, true), -EPROTO);  /* goes on with nothing */
        CHECK_EQ(feed_one(0x09, 1, true), -EPROTO);  /* a ping in pieces */
        CHECK_EQ(feed_one(0x89, 126, true), -EPROTO); /* a ping too long */
        CHECK_EQ(feed_websocket(&(Buffer) { (char *) "\x82\xfe\0\x05mask", 8, 8 }, 8), -EPROTO); /* 5 in two bytes */
        CHECK_EQ(feed_websocket(&(Buffer) { (char *) "\x02\x80mask\x02\x80mask", 12, 12 }, 12), -EPROTO);
}

static void websocket_handshake(void) {
        char accept[WEBSOCKET_ACCEPT_SIZE + 1];

        /* The example of RFC 6455. */
        CHECK_EQ(websocket_accept("dGhlIHNhbXBsZSBub25jZQ==", accept), 0);
        CHECK_STREQ(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        CHECK_EQ(websocket_accept("dGhlIHNhbXBsZSBub25jZQ=", accept), -EINVAL);
        CHECK_EQ(websocket_accept("dGhlIHNhbXBsZSBub25j====", accept), -EINVAL);
        CHECK_EQ(websocket_accept("!!!!IHNhbXBsZSBub25jZQ==", accept), -EINVAL);
}

/* --- HTTP, status ------------------------------------------------------------------------------------------------ */

static int parse(const char *text, HttpRequest *q) {
        static char head[1024];

        CHECK(strlen(text) < sizeof head);
        memcpy(head, text, strlen(text) + 1);
        CHECK_EQ(http_head_size(head, strlen(head)), strlen(head));
        return http_parse(head, strlen(head), q);
}

static void http_heads_are_read(void) {
        HttpRequest q;

        CHECK_EQ(parse("POST /exec/x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nX-A:1 \r\nx-a:  2\r\n\r\n", &q),
                 0);
        CHECK_STREQ(q.method, "POST");
        CHECK_STREQ(q.target, "/exec/x");
        CHECK_STREQ(http_field(&q, "x-A", 0), "1");
        CHECK_STREQ(http_field(&q, "x-A", 1), "2");
        CHECK(!http_field(&q, "x-A", 2));
        CHECK(http_field_has(&q, "connection", "upgrade") && !http_field_has(&q, "connection", "up"));
        CHECK_EQ(parse("GET / HTTP/1.1\r\n\r\n", &q), 0);
        CHECK_EQ(parse("GET / HTTP/1.0\r\n\r\n", &q), -EBADMSG);
        CHECK_EQ(parse("GET x HTTP/1.1\r\n\r\n", &q), -EBADMSG);
        CHECK_EQ(parse("GET /\r\n\r\n", &q), -EBADMSG);
        CHECK_EQ(parse("\r\n\r\n", &q), -EBADMSG);
        CHECK_EQ(parse("GET / HTTP/1.1\r\nno colon\r\n\r\n", &q), -EBADMSG);
        CHECK_EQ(parse("GET / HTTP/1.1\r\nA : b\r\n\r\n", &q), -EBADMSG);
        CHECK_EQ(parse("GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", &q), -EBADMSG);
        CHECK_EQ(http_head_size("GET / HTTP/1.1\r\n", 16), 0);
}

static void a_status_says_how_it_ended(void) {
        const Error error = { GRPC_INTERNAL, (char *) "why \"not\" \xff" };
        char *text;

        CHECK_STREQ(text = status_text(4, 0, 0, NULL), "{\"metadata\":{},\"status\":\"Success\"}");
        free(text);
        CHECK(strstr(text = status_text(5, 0, 7, NULL), "\"reason\":\"NonZeroExitCode\",\"details\":{\"causes\":"
                                                        "[{\"reason\":\"ExitCode\",\"message\":\"7\"}]}"));
        free(text);
        CHECK(strstr(text = status_text(4, -EIO, 0, &error), "why \\\"not\\\""));
        free(text);
        CHECK_STREQ(text = status_text(1, 0, 0, NULL), "");
        free(text);
        CHECK(strstr(text = status_text(2, 0, 9, NULL), "exit code: 9"));
        free(text);
}

static void last(void) {
        buffer_done(&seen);
}

TEST_MAIN(TEST_CASE(spdy_frames_come_out_however_they_are_cut), TEST_CASE(spdy_that_breaks_the_rules_is_refused),
          TEST_CASE(spdy_stream_numbers_grow_and_are_odd), TEST_CASE(spdy_header_blocks_are_bounded),
          TEST_CASE(spdy_replies_can_be_read), TEST_CASE(the_dictionary_is_that_of_the_specification),
          TEST_CASE(websocket_messages_come_out_however_they_are_cut),
          TEST_CASE(websocket_that_breaks_the_rules_is_refused), TEST_CASE(websocket_handshake),
          TEST_CASE(http_heads_are_read), TEST_CASE(a_status_says_how_it_ended), { "nothing is left", last })
