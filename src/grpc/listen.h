#pragma once
/* Listening AF_UNIX stream sockets: our own, or checked ones from somebody else. */

#include <sys/stat.h>

#include "basic/error.h"
#include "basic/macro.h"

/* Binds and listens, mode 0660, owner and group of the process. A socket nobody answers on is replaced; -EADDRINUSE
 * for one somebody does, -EEXIST for something else of that name. *ret_identity is the new file, for
 * listen_unlink(). */
int listen_unix(const char *path, int *ret_fd, struct stat *ret_identity, Error *error);
/* Removes the socket file unless another has taken its place. */
void listen_unlink(const char *path, const struct stat *identity);
/* Whether fd is a listening AF_UNIX stream socket; makes it non-blocking and close-on-exec. */
int listen_check(int fd, Error *error);
