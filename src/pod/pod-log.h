#pragma once
/* The log pump: what containers write into their pipes, or on their terminal, becomes lines of CRI log files; each byte
 * exactly once, whenever this process is killed. Here are the containers and their descriptors; pod-stream.h moves the
 * bytes. */

#include "pod/pod-state.h"

typedef struct Container {
        int pipe[_POD_PIPES_MAX]; /* POD_STDIN_READ …, or -1 */
        int tty;
        int log;                  /* -1: read and drop */
        bool watched[2];          /* in the epoll set */
        bool ended[2];            /* a terminal that was closed */
        uint32_t n_read[2];       /* bytes read, wraps around */
} Container;

typedef struct Pump {
        State *state;
        int state_fd;
        int staging_read, staging_write;
        int epoll;
        uint64_t buffers[N_STREAMS / 64]; /* bits: buffers that belong to a stream */
        uint32_t touched;                 /* buffers below this may have pages */
        bool dirty;                       /* there are pages to give back */
        bool stuck;                       /* a log cannot be written: pump_retry() */
        Container container[POD_CONTAINERS_MAX];
} Pump;

extern Pump pump;

/* epoll's data for a stream is its index; everything else uses numbers from here. */
#define EPOLL_OTHER 0x10000U

static inline bool bit_test(const uint64_t *bits, uint32_t i) {
        return bits[i / 64] >> (i % 64) & 1;
}
#define FOREACH_CONTAINER(i)                                                                                           \
        for (uint32_t i = 0; i < POD_CONTAINERS_MAX; i++)                                                              \
                if (bit_test(pump.state->used, i))

/* Makes the epoll set; first of all. */
int pump_start(Text *why);
/* Makes the state and the staging pipe; pump_commit() puts the state into the FD store, after everything else that the
 * first start has to do: it being there says that all is. */
int pump_make(Text *why);
int pump_commit(Text *why);
/* A descriptor from the FD store. Returns false when it isn't one of the pump's own. */
bool pump_take(const char *name, int fd);
/* Maps the state that was taken. -ENODATA: there is none, everything has to be made anew. */
int pump_map(Text *why);
/* A container's descriptor from the FD store; what was not committed is dropped. False: not a container's. */
bool pump_adopt(const char *name, int fd);
/* Finishes what the process before was at. */
int pump_recover(Text *why);

/* Tries again the streams whose log could not be written. */
void pump_retry(void);
/* Nothing happened for a while: gives pages back. */
void pump_trim(void);

/* Index of the container, or -ENOENT. */
int container_find(const char *id);
/* Takes the descriptors (fds[POD_STDIN_READ … POD_TTY], -1 for none) over on success. */
int container_add(const char *id, const char *path, uint32_t line_max, int *fds, Text *why);
int container_reopen(uint32_t i, Text *why);
/* 0: all that was in the pipes is in the log, an unfinished line included; else why the log cannot be written now. */
int container_drain(uint32_t i);
void container_forget(uint32_t i);
/* Lets the container read the end of its input, for good; nothing for a terminal. */
void container_close_stdin(uint32_t i);
const char *container_log_path(uint32_t i);
