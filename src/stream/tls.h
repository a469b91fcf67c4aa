#pragma once
/* TLS for the streaming server: its certificate, and the clients' when they shall have one. The files are read again
 * when they have changed, so that a renewed certificate needs no restart. */

#include <openssl/ssl.h>

#include "basic/error.h"
#include "basic/macro.h"

typedef struct StreamTlsConfig {
        const char *certificate; /* PEM files; with the chain behind it */
        const char *key;
        const char *client_ca;   /* NULL: clients need no certificate */
} StreamTlsConfig;

typedef struct StreamTls StreamTls;

/* Reads the files, once, so that what is wrong with them is said at the start. */
int stream_tls_new(const StreamTlsConfig *config, StreamTls **ret, Error *error);
StreamTls *stream_tls_free(StreamTls *t);
DEFINE_TRIVIAL_CLEANUP_FUNC(StreamTls *, stream_tls_free);

/* Our end of a new connection over a connected, non-blocking socket, which is borrowed. Owned by the caller. Files
 * that changed and can't be read are an error in the journal, and the old ones stay in use. */
int stream_tls_accept(StreamTls *t, int fd, SSL **ret);

/* As recv() and send() have it, negative errno: -EAGAIN when the socket has to be waited for. *ret_writable: until it
 * can be written to (TLS writes when it reads, and the other way round). */
ssize_t stream_tls_read(SSL *ssl, void *data, size_t size, bool *ret_writable);
ssize_t stream_tls_write(SSL *ssl, const void *data, size_t size);
