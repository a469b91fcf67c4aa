#pragma once
/* A connection to a port on the loopback of a pod's network namespace. */

#include "basic/error.h"
#include "basic/macro.h"

#define PORT_CONNECT_USEC (10 * USEC_PER_SEC)

/* (fiber) A connected socket, non-blocking: 127.0.0.1 first, then [::1]. netns: path, or NULL for our own. */
int port_connect(const char *netns, uint16_t port, int *ret_fd, Error *error);
