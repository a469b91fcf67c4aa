#pragma once
/* The service manager's side of things: sd_notify(3) and the FD store, spoken by hand. */

#include "pod/sys.h"

/* Opens the socket, in the network namespace that the process is in now. Without NOTIFY_SOCKET everything below does
 * nothing. */
int notify_open(char **envp, Text *why);

/* READY=1, STOPPING=1 and the like, with STATUS= and ERRNO= (negative errno, or 0). `state` and `status` may be NULL. */
void notify_status(const char *state, const char *status, int error);
/* Puts descriptors into the store under one name; they stay there whatever happens to their other end. Waits while the
 * manager's queue is full; once sent they are safe, as the manager reads its queue before it looks at dead children. */
int notify_store(const char *name, const int *fds, size_t n);
void notify_forget(const char *name);

/* What the store gave back at the start: calls func with each descriptor and its name. Returns how many there were. */
int notify_received(char **envp, void (*func)(const char *name, int fd, void *userdata), void *userdata);

/* A line for the journal. */
void say(const char *words);
