/* The compressed layer as a stream: read, hashed, decompressed, hashed again, in pieces that stay in the cache. What
 * it is shows its first bytes, as everywhere in the field: media types are wrong too often. */

#include <openssl/evp.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>
#if HAVE_ISAL
#include <isa-l/igzip_lib.h>
#endif

#include "basic/string-util.h"
#include "image/unpack.h"

#define IN_SIZE  (256U * 1024U)
#define OUT_SIZE (256U * 1024U)
/* zstd's window: 128 MiB is what the format's own default decoder accepts. */
#define ZSTD_WINDOW_LOG_MAX 27

typedef enum Compression {
        COMPRESSION_UNKNOWN,
        COMPRESSION_NONE,
        COMPRESSION_GZIP,
        COMPRESSION_ZSTD,
} Compression;

struct UnpackStream {
        int fd;
        uint64_t size, n_in; /* compressed: announced, read */
        uint64_t out_max, n_out;
        Compression compression;
        bool eof;
        bool in_frame; /* within a gzip member or zstd frame */
        EVP_MD_CTX *in_hash, *out_hash;
        uint8_t *in, *out;
        size_t in_start, in_end;
        ZSTD_DStream *zstd;
#if HAVE_ISAL
        struct inflate_state *isal;
#else
        z_stream *zlib;
#endif
};

UnpackStream *unpack_stream_free(UnpackStream *s) {
        if (!s)
                return NULL;
        EVP_MD_CTX_free(s->in_hash);
        EVP_MD_CTX_free(s->out_hash);
        ZSTD_freeDStream(s->zstd);
#if HAVE_ISAL
        free(s->isal);
#else
        if (s->zlib)
                (void) inflateEnd(s->zlib);
        free(s->zlib);
#endif
        free(s->in);
        free(s->out);
        free(s);
        return NULL;
}

int unpack_stream_new(int fd, uint64_t size, uint64_t out_max, UnpackStream **ret, Error *error) {
        _cleanup_(unpack_stream_freep) UnpackStream *s = calloc(1, sizeof *s);

        if (!s)
                return error_oom(error);
        s->fd = fd;
        s->size = size;
        s->out_max = out_max;
        s->in = malloc(IN_SIZE);
        s->out = malloc(OUT_SIZE);
        s->in_hash = EVP_MD_CTX_new();
        s->out_hash = EVP_MD_CTX_new();
        if (!s->in || !s->out || !s->in_hash || !s->out_hash)
                return error_oom(error);
        if (EVP_DigestInit_ex(s->in_hash, EVP_sha256(), NULL) != 1 ||
            EVP_DigestInit_ex(s->out_hash, EVP_sha256(), NULL) != 1)
                return error_setf(error, GRPC_INTERNAL, "SHA-256 is not available");
        *ret = TAKE_PTR(s);
        return 0;
}

/* Fills the input buffer's free end; sets eof. */
static int fill(UnpackStream *s, Error *error) {
        ssize_t n;

        if (s->eof)
                return 0;
        if (s->in_start > 0) {
                memmove(s->in, s->in + s->in_start, s->in_end - s->in_start);
                s->in_end -= s->in_start;
                s->in_start = 0;
        }
        if (s->in_end == IN_SIZE)
                return 0;
        do
                n = read(s->fd, s->in + s->in_end, IN_SIZE - s->in_end);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return error_set(error, -errno, "Cannot read the layer");
        if (n == 0) {
                s->eof = true;
                if (s->n_in != s->size)
                        return error_setf(error, GRPC_DATA_LOSS, "The layer has %llu bytes, its manifest says %llu",
                                          (unsigned long long) s->n_in, (unsigned long long) s->size);
                return 0;
        }
        s->n_in += (uint64_t) n;
        if (s->n_in > s->size)
                return error_setf(error, GRPC_DATA_LOSS, "The layer has more than the %llu bytes its manifest says",
                                  (unsigned long long) s->size);
        if (EVP_DigestUpdate(s->in_hash, s->in + s->in_end, (size_t) n) != 1)
                return error_setf(error, GRPC_INTERNAL, "SHA-256 failed");
        s->in_end += (size_t) n;
        return 0;
}

static int detect(UnpackStream *s, Error *error) {
        static const struct {
                const char *magic;
                size_t size;
                const char *name;
        } unsupported[] = {
                        {"\xfd"
                         "7zXZ\0",
                         6, "xz"},
                        {"BZh", 3, "bzip2"},
                        {"\x04\x22\x4d\x18", 4, "lz4"},
                        {"\x5d\0\0", 3, "lzma"},
                        {"PK\3\4", 4, "zip"},
        };
        const uint8_t *p;
        size_t n;
        int r;

        while (s->in_end < 6 && !s->eof) {
                r = fill(s, error);
                if (r < 0)
                        return r;
        }
        p = s->in;
        n = s->in_end;
        for (size_t i = 0; i < ELEMENTSOF(unsupported); i++)
                if (n >= unsupported[i].size && memcmp(p, unsupported[i].magic, unsupported[i].size) == 0)
                        return error_setf(
                                        error, GRPC_UNIMPLEMENTED,
                                        "The layer is compressed by %s, which is not supported: gzip, zstd and plain "
                                        "tar are",
                                        unsupported[i].name);

        if (n >= 2 && p[0] == 0x1f && p[1] == 0x8b) {
                s->compression = COMPRESSION_GZIP;
#if HAVE_ISAL
                s->isal = calloc(1, sizeof *s->isal);
                if (!s->isal)
                        return error_oom(error);
                isal_inflate_init(s->isal);
                s->isal->crc_flag = ISAL_GZIP;
#else
                s->zlib = calloc(1, sizeof *s->zlib);
                if (!s->zlib || inflateInit2(s->zlib, 15 + 16) != Z_OK)
                        return error_oom(error);
#endif
        } else if (n >= 4 && ((p[0] == 0x28 && p[1] == 0xb5 && p[2] == 0x2f && p[3] == 0xfd) ||
                              ((p[0] & 0xf0) == 0x50 && p[1] == 0x2a && p[2] == 0x4d && p[3] == 0x18))) {
                s->compression = COMPRESSION_ZSTD;
                s->zstd = ZSTD_createDStream();
                if (!s->zstd)
                        return error_oom(error);
                (void) ZSTD_DCtx_setParameter(s->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX);
        } else
                s->compression = COMPRESSION_NONE;
        return 0;
}

static int damaged(Error *error, const char *what) {
        return error_setf(error, GRPC_DATA_LOSS, "The layer's %s data is damaged", what);
}

#if HAVE_ISAL
static int run_gzip(UnpackStream *s, size_t *ret_n, Error *error) {
        struct inflate_state *z = s->isal;
        int r;

        if (!s->in_frame) {
                isal_inflate_reset(z);
                s->in_frame = true;
        }
        z->next_in = s->in + s->in_start;
        z->avail_in = (uint32_t) (s->in_end - s->in_start);
        z->next_out = s->out;
        z->avail_out = OUT_SIZE;
        r = isal_inflate(z);
        if (r < 0)
                return damaged(error, "gzip");
        s->in_start = s->in_end - z->avail_in;
        *ret_n = OUT_SIZE - z->avail_out;
        if (z->block_state == ISAL_BLOCK_FINISH)
                s->in_frame = false;
        return 0;
}
#else
static int run_gzip(UnpackStream *s, size_t *ret_n, Error *error) {
        z_stream *z = s->zlib;
        int r;

        if (!s->in_frame) {
                if (inflateReset(z) != Z_OK)
                        return damaged(error, "gzip");
                s->in_frame = true;
        }
        z->next_in = s->in + s->in_start;
        z->avail_in = (uInt) (s->in_end - s->in_start);
        z->next_out = s->out;
        z->avail_out = OUT_SIZE;
        r = inflate(z, Z_NO_FLUSH);
        if (r == Z_MEM_ERROR)
                return error_oom(error);
        if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR)
                return damaged(error, "gzip");
        s->in_start = s->in_end - z->avail_in;
        *ret_n = OUT_SIZE - z->avail_out;
        if (r == Z_STREAM_END)
                s->in_frame = false;
        return 0;
}
#endif

static int run_zstd(UnpackStream *s, size_t *ret_n, Error *error) {
        ZSTD_inBuffer in = {.src = s->in, .size = s->in_end, .pos = s->in_start};
        ZSTD_outBuffer out = {.dst = s->out, .size = OUT_SIZE};
        size_t r;

        r = ZSTD_decompressStream(s->zstd, &out, &in);
        if (ZSTD_isError(r)) {
                if (ZSTD_getErrorCode(r) == ZSTD_error_frameParameter_windowTooLarge)
                        return error_setf(
                                        error, GRPC_RESOURCE_EXHAUSTED,
                                        "The layer needs a zstd window of more than 128 MiB, which is not supported");
                if (ZSTD_getErrorCode(r) == ZSTD_error_memory_allocation)
                        return error_oom(error);
                return damaged(error, "zstd");
        }
        s->in_start = in.pos;
        *ret_n = out.pos;
        s->in_frame = r != 0;
        return 0;
}

ssize_t unpack_stream_next(UnpackStream *s, const void **ret, Error *error) {
        const void *data = s->out;
        size_t n = 0;
        int r;

        if (s->compression == COMPRESSION_UNKNOWN) {
                r = detect(s, error);
                if (r < 0)
                        return r;
        }

        while (n == 0) {
                size_t before;

                if (s->in_start == s->in_end) {
                        r = fill(s, error);
                        if (r < 0)
                                return r;
                        if (s->in_start == s->in_end && s->eof) {
                                if (s->compression == COMPRESSION_NONE || !s->in_frame)
                                        return 0;
                                return error_setf(error, GRPC_DATA_LOSS, "The layer's compressed data is cut off");
                        }
                }
                before = s->in_start;

                switch (s->compression) {
                case COMPRESSION_NONE:
                        data = s->in + s->in_start;
                        n = s->in_end - s->in_start;
                        s->in_start = s->in_end;
                        break;
                case COMPRESSION_GZIP:
                        r = run_gzip(s, &n, error);
                        if (r < 0)
                                return r;
                        break;
                case COMPRESSION_ZSTD:
                        r = run_zstd(s, &n, error);
                        if (r < 0)
                                return r;
                        break;
                case COMPRESSION_UNKNOWN:
                default:
                        return error_setf(error, GRPC_INTERNAL, "No decompressor");
                }

                if (n == 0 && s->in_start == before) {
                        /* It wants more than there is in the buffer. */
                        size_t had = s->in_end - s->in_start;

                        r = fill(s, error);
                        if (r < 0)
                                return r;
                        if (s->in_end - s->in_start == had) {
                                if (s->eof)
                                        return error_setf(error, GRPC_DATA_LOSS,
                                                          "The layer's compressed data is cut off");
                                return damaged(error, "compressed");
                        }
                }
        }

        s->n_out += n;
        if (s->n_out > s->out_max)
                return error_setf(error, GRPC_RESOURCE_EXHAUSTED,
                                  "The layer unpacks to more than the %llu bytes that are free on the file system of "
                                  "the "
                                  "image store",
                                  (unsigned long long) s->out_max);
        /* A plain layer has one digest. */
        if (s->compression != COMPRESSION_NONE && EVP_DigestUpdate(s->out_hash, data, n) != 1)
                return error_setf(error, GRPC_INTERNAL, "SHA-256 failed");
        *ret = data;
        return (ssize_t) n;
}

static int digest_final(EVP_MD_CTX *c, char ret[static 72]) {
        uint8_t md[EVP_MAX_MD_SIZE];
        unsigned n = 0;

        if (EVP_DigestFinal_ex(c, md, &n) != 1 || n != 32)
                return -EIO;
        memcpy(ret, "sha256:", 7);
        hex_encode(md, n, ret + 7);
        return 0;
}

int unpack_stream_finish(UnpackStream *s, const char *digest, const char *diff_id, Error *error) {
        char in[72], out[72];
        const void *data;
        ssize_t n;

        do {
                n = unpack_stream_next(s, &data, error);
                if (n < 0)
                        return (int) n;
        } while (n > 0);

        if (digest_final(s->in_hash, in) < 0 || digest_final(s->out_hash, out) < 0)
                return error_setf(error, GRPC_INTERNAL, "SHA-256 failed");
        if (s->compression == COMPRESSION_NONE)
                memcpy(out, in, sizeof out);
        if (!streq(in, digest))
                return error_setf(error, GRPC_DATA_LOSS, "The layer's digest is %s, its manifest says %s", in, digest);
        if (!streq(out, diff_id))
                return error_setf(error, GRPC_DATA_LOSS,
                                  "The unpacked layer's digest is %s, the image's config says %s", out, diff_id);
        return 0;
}
