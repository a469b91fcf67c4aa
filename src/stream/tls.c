#include "stream/tls.h"

#include <openssl/err.h>
#include <sys/stat.h>

#include "basic/log.h"
#include "basic/string-util.h"

typedef enum TlsFile { TLS_CERTIFICATE, TLS_KEY, TLS_CLIENT_CA, _TLS_FILE_MAX } TlsFile;

/* Tells one version of a file from another. */
typedef struct FileVersion {
        dev_t device;
        ino_t inode;
        off_t size;
        struct timespec modified;
} FileVersion;

struct StreamTls {
        SSL_CTX *context;
        char *paths[_TLS_FILE_MAX];
        FileVersion versions[_TLS_FILE_MAX];
};

/* --- files ------------------------------------------------------------------------------------------------------- */

/* The oldest error OpenSSL has to tell, which is the cause of the others; the rest is thrown away. */
static const char *tls_reason(void) {
        const char *reason = ERR_reason_error_string(ERR_peek_error());

        ERR_clear_error();
        return reason ?: "unknown error";
}

static void look(const StreamTls *t, FileVersion *versions) {
        for (size_t i = 0; i < _TLS_FILE_MAX; i++) {
                struct stat st;

                versions[i] = (FileVersion) {};
                if (t->paths[i] && stat(t->paths[i], &st) >= 0)
                        versions[i] = (FileVersion) { st.st_dev, st.st_ino, st.st_size, st.st_mtim };
        }
}

static bool same(const FileVersion *a, const FileVersion *b) {
        return a->device == b->device && a->inode == b->inode && a->size == b->size &&
               a->modified.tv_sec == b->modified.tv_sec && a->modified.tv_nsec == b->modified.tv_nsec;
}

/* Streams begin as HTTP/1.1, and nothing else. */
static int choose_protocol(SSL *ssl, const unsigned char **ret, unsigned char *ret_size, const unsigned char *offered,
                           unsigned size, void *userdata) {
        static const unsigned char ours[] = "\x08http/1.1";
        unsigned char *chosen = NULL;

        if (SSL_select_next_proto(&chosen, ret_size, ours, sizeof ours - 1, offered, size) != OPENSSL_NPN_NEGOTIATED)
                return SSL_TLSEXT_ERR_NOACK;
        *ret = chosen;
        return SSL_TLSEXT_ERR_OK;
}

DEFINE_TRIVIAL_CLEANUP_FUNC(SSL_CTX *, SSL_CTX_free);

static bool use_client_ca(SSL_CTX *context, const char *path) {
        STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(path);

        if (!names)
                return false;
        SSL_CTX_set_client_CA_list(context, names); /* is the context's now */
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
        return SSL_CTX_load_verify_file(context, path) == 1;
}

static int load(const StreamTls *t, SSL_CTX **ret, Error *error) {
        _cleanup_(SSL_CTX_freep) SSL_CTX *context = SSL_CTX_new(TLS_server_method());
        const char *wrong = NULL;

        if (!context)
                return error_oom(error);
        (void) SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
        (void) SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
        (void) SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                                 SSL_MODE_RELEASE_BUFFERS);
        (void) SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
        SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);

        ERR_clear_error();
        if (SSL_CTX_use_certificate_chain_file(context, t->paths[TLS_CERTIFICATE]) != 1)
                wrong = t->paths[TLS_CERTIFICATE];
        else if (SSL_CTX_use_PrivateKey_file(context, t->paths[TLS_KEY], SSL_FILETYPE_PEM) != 1 ||
                 SSL_CTX_check_private_key(context) != 1)
                wrong = t->paths[TLS_KEY];
        else if (t->paths[TLS_CLIENT_CA] && !use_client_ca(context, t->paths[TLS_CLIENT_CA]))
                wrong = t->paths[TLS_CLIENT_CA];
        if (wrong)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "cannot use %s for the TLS of streams: %s", wrong,
                                  tls_reason());
        *ret = TAKE_PTR(context);
        return 0;
}

int stream_tls_new(const StreamTlsConfig *config, StreamTls **ret, Error *error) {
        _cleanup_(stream_tls_freep) StreamTls *t = calloc(1, sizeof *t);
        int r;

        if (!t)
                return error_oom(error);
        t->paths[TLS_CERTIFICATE] = strdup(config->certificate);
        t->paths[TLS_KEY] = strdup(config->key);
        if (config->client_ca)
                t->paths[TLS_CLIENT_CA] = strdup(config->client_ca);
        if (!t->paths[TLS_CERTIFICATE] || !t->paths[TLS_KEY] || (config->client_ca && !t->paths[TLS_CLIENT_CA]))
                return error_oom(error);
        look(t, t->versions);
        r = load(t, &t->context, error);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(t);
        return 0;
}

StreamTls *stream_tls_free(StreamTls *t) {
        if (!t)
                return NULL;
        SSL_CTX_free(t->context);
        for (size_t i = 0; i < _TLS_FILE_MAX; i++)
                free(t->paths[i]);
        return mfree(t);
}

/* A half written file, or a key that does not belong to the certificate yet, is looked at again with the next client. */
static void reload(StreamTls *t) {
        _cleanup_error_ Error error = ERROR_INIT;
        FileVersion versions[_TLS_FILE_MAX];
        SSL_CTX *context = NULL;
        bool changed = false;

        look(t, versions);
        for (size_t i = 0; i < _TLS_FILE_MAX; i++)
                changed = changed || !same(&versions[i], &t->versions[i]);
        if (!changed)
                return;
        if (load(t, &context, &error) < 0) {
                log_warning("Streams go on with the certificate they had: %s", error.message);
                return;
        }
        SSL_CTX_free(t->context);
        t->context = context;
        memcpy(t->versions, versions, sizeof versions);
        log_info("The certificate for streams was read again from %s", t->paths[TLS_CERTIFICATE]);
}

/* --- connections ------------------------------------------------------------------------------------------------- */

int stream_tls_accept(StreamTls *t, int fd, SSL **ret) {
        SSL *ssl;

        reload(t);
        ssl = SSL_new(t->context);
        if (!ssl)
                return -ENOMEM;
        if (SSL_set_fd(ssl, fd) != 1) {
                SSL_free(ssl);
                return -ENOMEM;
        }
        SSL_set_accept_state(ssl);
        *ret = ssl;
        return 0;
}

/* What a failed call of OpenSSL's means; errno is as it left it. */
static int tls_error(SSL *ssl, int r, bool *ret_writable) {
        int saved = errno;

        *ret_writable = false;
        switch (SSL_get_error(ssl, r)) {
        case SSL_ERROR_WANT_WRITE:
                *ret_writable = true;
                return -EAGAIN;
        case SSL_ERROR_WANT_READ:
                return -EAGAIN;
        case SSL_ERROR_ZERO_RETURN:
                return 0;
        case SSL_ERROR_SYSCALL:
                return saved > 0 ? -saved : -ECONNRESET;
        default:
                log_debug("TLS of a stream: %s", tls_reason());
                return -EPROTO;
        }
}

ssize_t stream_tls_read(SSL *ssl, void *data, size_t size, bool *ret_writable) {
        size_t n;
        int r;

        ERR_clear_error();
        errno = 0;
        r = SSL_read_ex(ssl, data, size, &n);
        if (r == 1) {
                *ret_writable = false;
                return (ssize_t) n;
        }
        return tls_error(ssl, r, ret_writable);
}

ssize_t stream_tls_write(SSL *ssl, const void *data, size_t size) {
        bool writable;
        size_t n;
        int r;

        ERR_clear_error();
        errno = 0;
        r = SSL_write_ex(ssl, data, size, &n);
        if (r == 1)
                return (ssize_t) n;
        r = tls_error(ssl, r, &writable);
        return r == 0 ? -EPIPE : r;
}
