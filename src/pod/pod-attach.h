#pragma once
/* Attached clients: each has a packet socket, over which it gets what the container writes from then on, and gives what
 * is typed (PodPacket in pod-protocol.h). The socket's buffer is the only one: a client that lets it run full is left
 * behind, so that none ever slows the log down. Clients are not kept over a restart of this process: they come again. */

#include "pod/pod-log.h"

#define EPOLL_ATTACH (EPOLL_OTHER + 0x2000U)

/* Takes the socket over on success. */
int attach_add(int fd, uint32_t container, uint32_t flags, Text *why);
void attach_event(uint32_t number);
/* What a stream has read, before it is in the log. */
void attach_output(uint32_t index, const char *data, size_t n);
/* The container is going away. */
void attach_forget(uint32_t container);
/* Gives memory back. */
void attach_trim(void);
