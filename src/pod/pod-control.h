#pragma once
/* The control socket: the daemon's requests, as pod-protocol.h has them. */

#include "pod/pod-log.h"
#include "pod/pod-namespace.h"

/* Makes the listening socket and puts it into the FD store. Returns the descriptor. */
int control_make(const PodOptions *o, Text *why);
/* Watches the socket; the options must stay. */
int control_start(const PodOptions *o, int socket, Text *why);
/* An event whose data is `number` (from EPOLL_OTHER up). */
void control_event(uint32_t number);
/* Goes on with drains that wait for a log to take something. */
void control_retry(void);
bool control_is_waiting(void);
