#pragma once
/* Plays the service manager for a pod process under test: keeps its FD store, starts it again with it. */

#include <sys/types.h>

#include "basic/macro.h"
#include "pod/pod-protocol.h"

#define HARNESS_STORE_MAX 1200

typedef struct Harness {
        char directory[64]; /* its own, below /tmp */
        char socket[96];
        const char *args[16];
        int notify;
        pid_t pid;          /* 0: not running */
        bool ready;
        char status[512];
        int status_errno;
        size_t n_store;
        struct {
                char name[64];
                int fd;
        } store[HARNESS_STORE_MAX];
} Harness;

/* Makes the directory and the notification socket; args: extra arguments, NULL at the end. */
void harness_init(Harness *h, const char *const *args);
void harness_done(Harness *h);

void harness_spawn(Harness *h);
/* Until READY=1; fails the test when the process ends instead. */
void harness_wait_ready(Harness *h);
static inline void harness_start(Harness *h) {
        harness_spawn(h);
        harness_wait_ready(h);
}
/* Takes what was sent so far. */
void harness_process(Harness *h);
/* SIGKILL, reap, take what it sent. */
void harness_kill(Harness *h);
/* Sends the signal and returns the wait status. */
int harness_stop(Harness *h, int signo);
/* Lets it run under ptrace until the n-th stop at the entry or exit of a system call, goes on for `steps` instructions,
 * and kills it. False: it went idle before, and lives. `poke` (may be NULL) is called when it is attached. */
bool harness_kill_at(Harness *h, unsigned n, unsigned steps, void (*poke)(void *userdata), void *userdata);
/* Starts it under ptrace and kills it at the n-th stop. False: it got ready. */
bool harness_spawn_kill_at(Harness *h, unsigned n);

size_t harness_store_count(const Harness *h, const char *prefix);

/* One request; fds: one for each kind of enum PodDescriptor, or -1 (NULL: none). Without a reply -ECONNRESET.
 * words (may be NULL): POD_WORDS_MAX + 1 bytes. */
int harness_request(Harness *h, uint32_t operation, const char *id, const char *path, uint32_t line_max, const int *fds,
                    char *words);
/* The two halves of it. */
int harness_send(Harness *h, uint32_t operation, const char *id, const char *path, uint32_t line_max, const int *fds);
int harness_receive(Harness *h, int fd, char *words);

/* A container's pipes. */
typedef struct Pipes {
        int fds[_POD_DESCRIPTOR_MAX];
} Pipes;
void pipes_open(Pipes *p, bool with_stdin);
void pipes_close(Pipes *p);

/* n bytes of lines, some of them long; the same for the same seed. */
char *text_make(uint32_t seed, size_t n);
/* Reads log files one after the other and checks that they hold exactly the streams' texts, properly split at line_max. */
void log_check(const char *const *paths, size_t line_max, const char *out, size_t n_out, const char *err, size_t n_err);
