#include <fcntl.h>
#include <linux/stat.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "pod/pod-attach.h"
#include "pod/pod-journal.h"
#include "pod/pod-notify.h"
#include "pod/pod-stream.h"

#define ROOM_SIZE (64 * 1024) /* bytes of a write() */
#define DIE_PAUSE_NSEC (200 * 1000 * 1000)

/* Pages of their own, so that they can be given back. */
static struct {
        char text[ROOM_SIZE];
} room __attribute__((__aligned__(4096)));

void stream_trim(void) {
        (void) SYS(madvise, &room, sizeof room, MADV_DONTNEED);
}

static StreamRecord *stream_record(uint32_t index) {
        return &pump.state->container[index / 2].stream[index % 2];
}
static Container *stream_container(uint32_t index) {
        return &pump.container[index / 2];
}
static bool has_log(uint32_t index) {
        return pump.state->container[index / 2].log_generation > 0;
}

int stream_source(uint32_t index) {
        Container *c = stream_container(index);

        if (index % 2 == 0)
                return c->tty >= 0 ? c->tty : c->pipe[POD_STDOUT_READ];
        return c->pipe[POD_STDERR_READ];
}

void stream_watch(uint32_t index, bool watch) {
        struct epoll_event event = { .events = EPOLLIN, .data.u64 = index };
        Container *c = stream_container(index);
        int fd = stream_source(index);

        watch = watch && !c->ended[index % 2];
        if (fd < 0 || c->watched[index % 2] == watch)
                return;
        if (SYS(epoll_ctl, pump.epoll, watch ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, fd, &event) >= 0)
                c->watched[index % 2] = watch;
}

void stream_stuck(uint32_t index, int r) {
        Text t = {};

        for (uint32_t i = index & ~1U; i <= (index | 1); i++)
                stream_watch(i, false);
        if (pump.stuck)
                return;
        pump.stuck = true;
        (void) fail(&t, r, "cannot write log ", container_log_path(index / 2), " (will try again)", NULL);
        notify_status(NULL, t.s, 0);
        say(t.s);
}

/* The kernel didn't do what it cannot refuse (memory ran out in a page fault, say). The state is good: be started again
 * by the service manager, a little later. */
static _Noreturn void die(const char *what) {
        struct timespec pause = { .tv_nsec = DIE_PAUSE_NSEC };

        say(what);
        (void) SYS(nanosleep, &pause, NULL);
        (void) SYS(kill, SYS(getpid, 0), SIGKILL);
        sys_exit(EXIT_FAILURE);
}

static char *stream_buffer(uint32_t index) {
        StreamRecord *r = stream_record(index);

        if (r->buffer == 0) {
                uint32_t b = 0;

                while (bit_test(pump.buffers, b)) /* there are as many as streams */
                        b++;
                pump.buffers[b / 64] |= UINT64_C(1) << (b % 64);
                pump.touched = MAX(pump.touched, b + 1);
                commit32(&r->buffer, b + 1);
        }
        return pump.state->buffer[r->buffer - 1];
}

void stream_release(uint32_t index) {
        StreamRecord *r = stream_record(index);
        uint32_t b = r->buffer;

        commit(&r->word, 0);
        commit32(&r->buffer, 0);
        if (b > 0)
                pump.buffers[(b - 1) / 64] &= ~(UINT64_C(1) << ((b - 1) % 64));
}

/* Makes the window small again: nothing left, or what is left moved to the front of the buffer. */
static void stream_settle(uint32_t index) {
        StreamRecord *r = stream_record(index);
        size_t start = word_start(r->word), size = word_size(r->word);
        char *buffer;

        if (size == 0) {
                stream_release(index);
                return;
        }
        /* Only where it doesn't overlap: then a kill in the middle loses nothing. Else it is near the front anyway. */
        if (start < size)
                return;
        buffer = stream_buffer(index);
        memcpy(buffer, buffer + start, size);
        commit(&r->word, word_make(PHASE_IDLE, 0, size));
}

/* Reads the n bytes in the staging pipe, all of which are this stream's, into its buffer. */
static void stream_unstage(uint32_t index, uint32_t n) {
        StreamRecord *r = stream_record(index);
        char *buffer = stream_buffer(index);

        pump.dirty = true;
        while (n > 0) {
                size_t start = word_start(r->word), size = word_size(r->word);
                int k;

                r->before = r->word;
                r->n_staged = n;
                commit(&r->word, word_make(PHASE_READING, start, size));
                k = SYS(read, pump.staging_read, buffer + start + size, n);
                if (k <= 0)
                        die("cannot read the staging pipe");
                commit(&r->word, word_make(PHASE_IDLE, start, size + (size_t) k));
                attach_output(index, buffer + start + size, (size_t) k);
                n -= (uint32_t) k;
                stream_container(index)->n_read[index % 2] += (uint32_t) k;
        }
        if (!has_log(index))
                stream_release(index);
}

int stream_read(uint32_t index) {
        int n;

        commit32(&pump.state->staging_owner, index + 1);
        n = SYS(splice, stream_source(index), NULL, pump.staging_write, NULL, BLOCK_MAX, SPLICE_F_NONBLOCK);
        if (n == -EAGAIN || n == -EINTR)
                return 0;
        if (n <= 0)
                return n < 0 ? n : -EIO;
        stream_unstage(index, (uint32_t) n);
        return n;
}

typedef struct Piece {
        bool full;       /* the line ends here */
        bool newline;    /* its newline is part of the text */
        size_t size;     /* bytes of the buffer */
} Piece;

/* The next log line that can be made of the n bytes at p. */
static inline bool piece_next(const char *p, size_t n, size_t line_max, bool flush, Piece *ret) {
        const char *newline = find_newline(p, MIN(n, line_max + 1));

        if (newline)
                *ret = (Piece) { true, true, (size_t) (newline - p) + 1 };
        else if (n > line_max)
                *ret = (Piece) { false, false, line_max };
        else if (flush && n > 0)
                *ret = (Piece) { true, false, n };
        else
                return false;
        return true;
}

/* Lines on their way into a file; their first `skip` bytes are there already. */
typedef struct Output {
        int fd;
        uint64_t skip;
        size_t n; /* bytes in the room */
} Output;

static int output_flush(Output *o) {
        size_t k = MIN((uint64_t) o->n, o->skip);

        o->skip -= k;
        while (k < o->n) {
                int r = SYS(write, o->fd, room.text + k, o->n - k);

                if (r == -EINTR)
                        continue;
                if (r <= 0)
                        return r < 0 ? r : -ENOSPC;
                k += (size_t) r;
        }
        o->n = 0;
        return 0;
}

static int output_put(Output *o, const char *p, size_t n) {
        int r;

        for (;;) {
                size_t k = MIN(n, sizeof room.text - o->n), i = 0;

                for (; i + 8 <= k; i += 8)
                        __builtin_memcpy(room.text + o->n + i, p + i, 8);
                for (; i < k; i++)
                        room.text[o->n + i] = p[i];
                o->n += k;
                if (k == n)
                        return 0;
                p += k;
                n -= k;
                r = output_flush(o);
                if (r < 0)
                        return r;
        }
}

/* What was just written to the log, to the journal. */
static void stream_tell_journal(uint32_t index, const char *p, size_t n, bool flush) {
        size_t line_max = pump.state->container[index / 2].line_max;
        Piece piece;

        while (piece_next(p, n, line_max, flush, &piece)) {
                journal_line(index, p, piece.size - piece.newline, piece.full);
                p += piece.size;
                n -= piece.size;
        }
}

/* The WRITING phase; `skip` bytes of what it makes are in the file already. */
static int stream_write_lines(uint32_t index, uint64_t skip) {
        StreamRecord *r = stream_record(index);
        size_t line_max = pump.state->container[index / 2].line_max, start = word_start(r->word),
               left = word_size(r->word);
        const char *p = stream_buffer(index) + start;
        char prefix[2][STAMP_SIZE + STRLEN(" stdout F ")];
        Output output = { .fd = stream_container(index)->log, .skip = skip };
        bool flush = r->word & WORD_FLUSH;
        Piece piece;
        int q;

        for (size_t full = 0; full < 2; full++) {
                memcpy(prefix[full], r->stamp, STAMP_SIZE);
                memcpy(prefix[full] + STAMP_SIZE, index % 2 ? " stderr P " : " stdout P ", STRLEN(" stdout F "));
                if (full)
                        prefix[full][STAMP_SIZE + STRLEN(" stdout ")] = 'F';
        }

        while (piece_next(p, left, line_max, flush, &piece)) {
                size_t n = sizeof prefix[0] + piece.size + !piece.newline;

                /* Whole lines in each write, unless they are longer than that. */
                q = n > sizeof room.text - output.n ? output_flush(&output) : 0;
                if (q >= 0)
                        q = output_put(&output, prefix[piece.full], sizeof prefix[0]);
                if (q >= 0)
                        q = output_put(&output, p, piece.size);
                if (q >= 0 && !piece.newline)
                        q = output_put(&output, "\n", 1);
                if (q < 0)
                        return q;
                p += piece.size;
                left -= piece.size;
        }
        q = output_flush(&output);
        if (q < 0)
                return q;
        if (journal_wants(index))
                stream_tell_journal(index, stream_buffer(index) + start, word_size(r->word), flush);

        commit(&r->word, word_make(PHASE_IDLE, (uint64_t) (p - pump.state->buffer[r->buffer - 1]), left));
        stream_settle(index);
        return 0;
}

static int log_size(uint32_t index, uint64_t *ret) {
        struct statx st;
        int r;

        r = SYS(statx, stream_container(index)->log, "", AT_EMPTY_PATH, STATX_SIZE, &st);
        if (r < 0)
                return r;
        *ret = st.stx_size;
        return 0;
}

static void put_digits(char *p, uint64_t n, int digits) {
        while (digits-- > 0) {
                p[digits] = (char) ('0' + n % 10);
                n /= 10;
        }
}

/* The time now as RFC 3339 with nine digits, UTC. */
static void stamp_make(char stamp[STAMP_SIZE]) {
        uint64_t now = sys_now(CLOCK_REALTIME), seconds = now / NSEC_PER_SEC, day = seconds / 86400, rest = seconds % 86400;
        /* Days since 1 March of year 0, in eras of 400 years, as the proleptic Gregorian calendar repeats itself. */
        uint64_t z = day + 719468, era = z / 146097, doe = z % 146097;
        uint64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
        uint64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
        uint64_t month = mp < 10 ? mp + 3 : mp - 9, year = yoe + era * 400 + (month <= 2);

        memcpy(stamp, "0000-00-00T00:00:00.000000000Z", STAMP_SIZE);
        put_digits(stamp, year, 4);
        put_digits(stamp + 5, month, 2);
        put_digits(stamp + 8, doy - (153 * mp + 2) / 5 + 1, 2);
        put_digits(stamp + 11, rest / 3600, 2);
        put_digits(stamp + 14, rest / 60 % 60, 2);
        put_digits(stamp + 17, rest % 60, 2);
        put_digits(stamp + 20, now % NSEC_PER_SEC, 9);
}

int stream_write(uint32_t index, bool flush) {
        StreamRecord *r = stream_record(index), *other = stream_record(index ^ 1);
        size_t start = word_start(r->word), size = word_size(r->word);
        uint64_t skip;
        const char *p;
        int q;

        /* They share the file: what one has half written must be finished first. */
        if (word_phase(other->word) == PHASE_WRITING) {
                q = log_size(index ^ 1, &skip);
                if (q < 0)
                        return q;
                q = stream_write_lines(index ^ 1, skip > other->log_size ? skip - other->log_size : 0);
                if (q < 0)
                        return q;
        }

        if (word_phase(r->word) == PHASE_WRITING) {
                q = log_size(index, &skip);
                if (q < 0)
                        return q;
                q = stream_write_lines(index, skip > r->log_size ? skip - r->log_size : 0);
                if (q < 0 || !flush)
                        return q;
                start = word_start(r->word);
                size = word_size(r->word);
        }

        if (size == 0)
                return 0;
        p = stream_buffer(index) + start;
        if (!flush && size <= pump.state->container[index / 2].line_max && !find_last_newline(p, size))
                return 0;

        q = log_size(index, &r->log_size);
        if (q < 0)
                return q;
        stamp_make(r->stamp);
        commit(&r->word, word_make(PHASE_WRITING, start, size) | (flush ? WORD_FLUSH : 0));
        return stream_write_lines(index, 0);
}

bool stream_unwrite(uint32_t index) {
        StreamRecord *r = stream_record(index);
        uint64_t size;

        if (word_phase(r->word) != PHASE_WRITING)
                return true;
        if (log_size(index, &size) < 0 || size != r->log_size)
                return false;
        commit(&r->word, word_make(PHASE_IDLE, word_start(r->word), word_size(r->word)));
        return true;
}

void stream_ready(uint32_t index) {
        Container *c = stream_container(index);
        int r;

        if (!c->watched[index % 2])
                return; /* changed by an event before this one */
        r = stream_read(index);
        if (r < 0) {
                c->ended[index % 2] = true;
                stream_watch(index, false);
        }
        r = stream_write(index, /* flush= */ r < 0);
        if (r < 0)
                stream_stuck(index, r);
}

void stream_claim(uint32_t index) {
        uint32_t b = stream_record(index)->buffer;

        if (b == 0 || b > N_STREAMS)
                return;
        pump.buffers[(b - 1) / 64] |= UINT64_C(1) << ((b - 1) % 64);
}

void stream_recover(uint32_t index) {
        StreamRecord *r = stream_record(index);
        bool owner = pump.state->staging_owner == index + 1;
        int n = 0;

        if (owner && SYS(ioctl, pump.staging_read, FIONREAD, &n) < 0)
                die("cannot look into the staging pipe");

        if (word_phase(r->word) == PHASE_READING)
                commit(&r->word, word_make(PHASE_IDLE, word_start(r->before),
                                           word_size(r->before) + r->n_staged - (uint32_t) n));
        if (n > 0)
                stream_unstage(index, (uint32_t) n);
        if (!has_log(index))
                stream_release(index);
        else if (word_phase(r->word) == PHASE_IDLE)
                stream_settle(index);
}
