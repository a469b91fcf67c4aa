#pragma once
/* What a pod process must know again after a SIGKILL at any moment. It is a memfd in the unit's FD store, mapped shared:
 * what was stored before the kill is there after it. Every change is ordered so that a stop between any two stores, or
 * inside any system call, leaves something that recovery can finish.
 *
 * The program on disk may have been replaced meanwhile: a newer one must read what older ones have left. So this layout
 * only ever grows into what is reserved and at its end, or STATE_VERSION changes together with code that converts. */

#include "pod/pod-protocol.h"
#include "pod/sys.h"

#define STATE_MAGIC 0x7473646f70746b72U /* "rktpodst" */
#define STATE_VERSION 1

/* A read takes at most this much. */
#define BLOCK_MAX (128U * 1024U)
/* A stream's window never starts beyond 2 * POD_LINE_MAX (see stream_settle()), so that a block always fits behind it. */
#define BUFFER_SIZE (512U * 1024U)
#define N_STREAMS (POD_CONTAINERS_MAX * 2)
#define PATH_INLINE 383
#define JOURNAL_NAME_MAX 63

enum StreamPhase {
        PHASE_IDLE,
        PHASE_READING, /* staging pipe → buffer is under way */
        PHASE_WRITING, /* buffer → log is under way */
};

/* The phase and the window, the part of the buffer that holds bytes not yet in the log; one word, changed at once. */
typedef uint64_t Word;
#define WORD_FLUSH (UINT64_C(1) << 8) /* WRITING: an unfinished last line is written too */
static inline Word word_make(uint64_t phase, uint64_t start, uint64_t size) {
        return phase | start << 16 | size << 40;
}
static inline unsigned word_phase(Word w) {
        return (unsigned) (w & 0xff);
}
static inline size_t word_start(Word w) {
        return (size_t) (w >> 16 & 0xffffff);
}
static inline size_t word_size(Word w) {
        return (size_t) (w >> 40);
}

/* 2026-11-24T15:08:07.123456789Z */
#define STAMP_SIZE 30

typedef struct StreamRecord {
        Word word;
        Word before;       /* READING: the window before it */
        uint64_t log_size; /* WRITING: the log's size before it */
        uint32_t n_staged; /* READING: bytes in the staging pipe before it */
        uint32_t buffer;   /* index + 1; 0: none */
        char stamp[STAMP_SIZE + 2]; /* WRITING: the lines' time */
} StreamRecord;

typedef struct ContainerRecord {
        uint32_t generation;     /* part of the descriptors' name in the FD store */
        uint32_t log_generation; /* the same of the log; 0: no log */
        uint32_t line_max;
        uint32_t path_size;
        uint64_t inode[_POD_PIPES_MAX / 2]; /* of the pipes of stdin, stdout, stderr: tells them apart */
        StreamRecord stream[2];  /* stdout (or the terminal), stderr */
        char id[POD_ID_MAX + 1];
        uint32_t journal;        /* 1: its lines go to the journal, too, under journal_name */
        uint32_t reserved_too;
        uint64_t reserved[3];
        char path[PATH_INLINE + 1]; /* when it is short enough, as nearly all are */
} ContainerRecord;

/* A sparse file: pages that were never touched, or were punched out, cost nothing. */
typedef struct State {
        uint64_t magic;
        uint32_t version;
        uint32_t staging_owner; /* stream index + 1 that the bytes in the staging pipe belong to */
        uint32_t generation;    /* the last one given */
        uint32_t reserved[9];
        uint64_t used[POD_CONTAINERS_MAX / 64]; /* bits: containers that are there; set last, cleared first */
        ContainerRecord container[POD_CONTAINERS_MAX];
        char long_path[POD_CONTAINERS_MAX][POD_PATH_MAX + 1];
        char buffer[N_STREAMS][BUFFER_SIZE] __attribute__((__aligned__(4096)));
        /* Grown at the end: a file that is shorter is made longer. */
        char journal_name[POD_CONTAINERS_MAX][JOURNAL_NAME_MAX + 1];
} State;

/* Orders stores to the state, for the one who reads it after a kill: a compiler's matter only, the kernel's memory is
 * coherent for a process and its successor. */
static inline void barrier(void) {
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
}
static inline void commit32(uint32_t *where, uint32_t value) {
        barrier();
        *(volatile uint32_t *) where = value;
        barrier();
}
static inline void commit(Word *where, Word value) {
        barrier();
        *(volatile Word *) where = value;
        barrier();
}
