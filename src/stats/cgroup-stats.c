#include "stats/cgroup-stats.h"

#include <dirent.h>
#include <fcntl.h>
#include <time.h>

#include "basic/string-util.h"

#define TEXT_MAX 16384U /* bytes read of a file; memory.stat has about 2000 */

/* --- files of figures -------------------------------------------------------------------------------------------- */

/* The file's text, NUL-terminated; what doesn't fit is cut off at the end of a line. */
static int read_text(int dir_fd, const char *name, char text[static TEXT_MAX]) {
        _cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        size_t size = 0;
        ssize_t n;

        if (fd < 0)
                return -errno;
        do {
                n = read(fd, text + size, TEXT_MAX - 1 - size);
                if (n < 0)
                        return -errno;
                size += (size_t) n;
        } while (n > 0 && size < TEXT_MAX - 1);
        text[size] = 0;
        if (size == TEXT_MAX - 1) {
                char *end = strrchr(text, '\n');

                if (end)
                        end[1] = 0;
        }
        return 0;
}

/* A file that holds one number; "max" and what can't be read are unknown. */
static uint64_t read_number(int dir_fd, const char *name) {
        char text[TEXT_MAX];
        uint64_t v;

        if (read_text(dir_fd, name, text) < 0)
                return STAT_UNKNOWN;
        text[strcspn(text, "\n")] = 0;
        return parse_u64(text, &v) >= 0 ? v : STAT_UNKNOWN;
}

typedef struct Figure {
        const char *key;
        uint64_t *value;
        uint64_t factor;
} Figure;

/* Lines of a key and a number. Keys that aren't there leave their value alone. */
static int read_figures(int dir_fd, const char *name, const Figure *figures, size_t n) {
        char text[TEXT_MAX], *end;
        int r;

        r = read_text(dir_fd, name, text);
        if (r < 0)
                return r;
        for (char *line = text; *line; line = end) {
                char *blank;
                uint64_t v;

                end = line + strcspn(line, "\n");
                if (*end)
                        *end++ = 0;
                blank = strchr(line, ' ');
                if (!blank)
                        continue;
                *blank = 0;
                for (size_t i = 0; i < n; i++)
                        if (streq(line, figures[i].key)) {
                                if (parse_u64(blank + 1, &v) >= 0)
                                        *figures[i].value = v * figures[i].factor;
                                break;
                        }
        }
        return 0;
}

static bool parse_pressure_line(const char *line, PressureLine *ret) {
        unsigned long long total;
        PressureLine p;

        if (sscanf(line, " avg10=%lf avg60=%lf avg300=%lf total=%llu", &p.avg10, &p.avg60, &p.avg300, &total) != 4)
                return false;
        p.total_usec = total;
        *ret = p;
        return true;
}

/* The file is there and can't be read when the kernel was started without PSI. */
static void read_pressure(int dir_fd, const char *name, Pressure *ret) {
        char text[TEXT_MAX];
        const char *full;

        if (read_text(dir_fd, name, text) < 0 || !startswith(text, "some"))
                return;
        ret->known = parse_pressure_line(text + STRLEN("some"), &ret->some);
        /* Older kernels have no "full" for the CPU: there it is zero. */
        full = strstr(text, "\nfull");
        if (full)
                (void) parse_pressure_line(full + STRLEN("\nfull"), &ret->full);
}

/* "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6" */
static bool parse_device(const char *line, DeviceStats *ret) {
        unsigned long long rbytes, wbytes, rios, wios;
        DeviceStats d;

        if (sscanf(line, "%u:%u rbytes=%llu wbytes=%llu rios=%llu wios=%llu", &d.major, &d.minor, &rbytes, &wbytes,
                   &rios, &wios) != 6)
                return false;
        d.read_bytes = rbytes;
        d.write_bytes = wbytes;
        d.reads = rios;
        d.writes = wios;
        *ret = d;
        return true;
}

static void read_devices(int dir_fd, CgroupStats *s) {
        char text[TEXT_MAX];

        if (read_text(dir_fd, "io.stat", text) < 0)
                return;
        for (const char *line = text; *line && s->n_devices < CGROUP_DEVICES_MAX;) {
                if (parse_device(line, &s->devices[s->n_devices]))
                        s->n_devices++;
                line += strcspn(line, "\n");
                line += *line == '\n';
        }
}

/* --- processes --------------------------------------------------------------------------------------------------- */

typedef struct Count {
        const char *file; /* cgroup.procs or cgroup.threads */
        uint64_t processes, files, sockets, max;
        bool descriptors;
        CgroupStats *memory; /* where their memory is added up */
} Count;

static void count_descriptors(const char *pid, Count *c) {
        char path[64];
        DIR *d;

        (void) snprintf(path, sizeof path, "/proc/%.20s/fd", pid);
        d = opendir(path);
        if (!d)
                return;
        for (struct dirent *e; c->files < c->max && (e = readdir(d));) {
                char target[16];
                ssize_t n;

                if (e->d_name[0] == '.')
                        continue;
                c->files++;
                n = readlinkat(dirfd(d), e->d_name, target, sizeof target - 1);
                if (n > 0) {
                        target[n] = 0;
                        c->sockets += startswith(target, "socket:") != NULL;
                }
        }
        (void) closedir(d);
}

/* Of proc(5)'s stat file: its name, in brackets, may hold anything. */
static void add_page_faults(const char *pid, CgroupStats *s) {
        unsigned long long minor, minor_children, major, major_children;
        char path[64], text[TEXT_MAX];
        const char *end;

        (void) snprintf(path, sizeof path, "/proc/%.20s/stat", pid);
        if (read_text(AT_FDCWD, path, text) < 0)
                return;
        end = strrchr(text, ')');
        if (end && sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %*u %llu %llu %llu %llu", &minor, &minor_children, &major,
                          &major_children) == 4) {
                s->memory_page_faults += minor + minor_children;
                s->memory_major_page_faults += major + major_children;
        }
}

/* A process's own figures, in KiB, of proc(5)'s status file. One that ended meanwhile has none. */
static void add_memory(const char *pid, CgroupStats *s) {
        char path[64], text[TEXT_MAX];
        const struct {
                const char *key;
                uint64_t *value;
        } figures[] = {
                { "VmHWM", &s->memory_peak },       { "RssAnon", &s->memory_anon },  { "RssFile", &s->memory_file_mapped },
                { "RssShmem", &s->memory_file },    { "VmPTE", &s->memory_kernel },  { "VmSwap", &s->swap_usage },
        };

        (void) snprintf(path, sizeof path, "/proc/%.20s/status", pid);
        if (read_text(AT_FDCWD, path, text) < 0)
                return;
        for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n')
                for (size_t i = 0; i < ELEMENTSOF(figures); i++) {
                        const char *value = startswith(line, figures[i].key);
                        unsigned long long kib;

                        if (value && sscanf(value, ": %llu kB", &kib) == 1)
                                *figures[i].value += kib * 1024;
                }
}

/* The file can be as long as a node has processes. */
static int count_own(int dir_fd, Count *c) {
        _cleanup_fclose_ FILE *f = NULL;
        char line[32];
        int fd;

        fd = openat(dir_fd, c->file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return -errno;
        f = fdopen(fd, "re");
        if (!f) {
                (void) safe_close(fd);
                return -errno;
        }
        while (fgets(line, sizeof line, f)) {
                line[strcspn(line, "\n")] = 0;
                c->processes++;
                if (c->descriptors && c->files < c->max)
                        count_descriptors(line, c);
                if (c->memory) {
                        add_memory(line, c->memory);
                        add_page_faults(line, c->memory);
                }
        }
        /* A threaded cgroup's processes are those of the domain above it. */
        return ferror(f) && errno != EOPNOTSUPP ? -errno : 0;
}

static int count_tree(int dir_fd, Count *c, int depth) {
        uint64_t below = 1;
        const Figure figures[] = { { "nr_descendants", &below, 1 } };
        DIR *d;
        int fd, r;

        r = count_own(dir_fd, c);
        if (r < 0)
                return r;
        (void) read_figures(dir_fd, "cgroup.stat", figures, ELEMENTSOF(figures));
        if (below == 0 || depth >= CGROUP_DEPTH_MAX)
                return 0;
        fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        d = fdopendir(fd);
        if (!d) {
                (void) safe_close(fd);
                return -errno;
        }
        for (struct dirent *e; (e = readdir(d));) {
                _cleanup_close_ int child = -1;

                if (e->d_type != DT_DIR || e->d_name[0] == '.')
                        continue;
                child = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
                /* Gone meanwhile: nobody is in it. */
                if (child >= 0)
                        (void) count_tree(child, c, depth + 1);
        }
        (void) closedir(d);
        return 0;
}

int cgroup_count_processes(int dir_fd, uint64_t *ret) {
        Count c = { .file = "cgroup.procs" };
        int r;

        r = count_tree(dir_fd, &c, 0);
        if (r >= 0)
                *ret = c.processes;
        return r;
}

static void count_threads(int dir_fd, uint64_t *ret) {
        Count c = { .file = "cgroup.threads" };

        if (count_tree(dir_fd, &c, 0) >= 0)
                *ret = c.processes;
}

int cgroup_count_descriptors(int dir_fd, uint64_t max, uint64_t *ret_files, uint64_t *ret_sockets) {
        Count c = { .file = "cgroup.procs", .max = max, .descriptors = true };
        int r;

        r = count_tree(dir_fd, &c, 0);
        if (r < 0)
                return r;
        *ret_files = c.files;
        *ret_sockets = c.sockets;
        return 0;
}

/* --- all of it --------------------------------------------------------------------------------------------------- */

static int read_cpu(int dir_fd, CgroupStats *s) {
        const Figure figures[] = {
                { "usage_usec", &s->cpu_usage_nsec, NSEC_PER_USEC },
                { "user_usec", &s->cpu_user_nsec, NSEC_PER_USEC },
                { "system_usec", &s->cpu_system_nsec, NSEC_PER_USEC },
                { "nr_periods", &s->cpu_periods, 1 },
                { "nr_throttled", &s->cpu_throttled_periods, 1 },
                { "throttled_usec", &s->cpu_throttled_nsec, NSEC_PER_USEC },
        };

        int r;

        /* This one is there without the controller, too, but has no periods then: nothing is throttled. */
        r = read_figures(dir_fd, "cpu.stat", figures, ELEMENTSOF(figures));
        if (r >= 0 && s->cpu_periods == STAT_UNKNOWN)
                s->cpu_periods = s->cpu_throttled_periods = s->cpu_throttled_nsec = 0;
        return r;
}

/* Without the memory controller: the sum of what the processes have for themselves. What they share counts once for
 * each, and the page cache not at all. */
static void read_memory_of_processes(int dir_fd, CgroupStats *s) {
        CgroupStats sum = {};
        Count c = { .file = "cgroup.procs", .memory = &sum };

        if (count_tree(dir_fd, &c, 0) < 0)
                return;
        s->memory_anon = sum.memory_anon;
        s->memory_file = s->memory_file_mapped = sum.memory_file + sum.memory_file_mapped;
        s->memory_kernel = sum.memory_kernel;
        s->memory_usage = s->memory_working_set = s->memory_anon + s->memory_file + s->memory_kernel;
        s->memory_peak = sum.memory_peak;
        s->memory_page_faults = sum.memory_page_faults;
        s->memory_major_page_faults = sum.memory_major_page_faults;
        s->swap_usage = sum.swap_usage;
        s->memory_limit_hits = s->oom_kills = 0; /* there can be neither */
}

static void read_memory(int dir_fd, CgroupStats *s) {
        uint64_t inactive = 0;
        const Figure figures[] = {
                { "anon", &s->memory_anon, 1 },
                { "file", &s->memory_file, 1 },
                { "file_mapped", &s->memory_file_mapped, 1 },
                { "kernel", &s->memory_kernel, 1 },
                { "inactive_file", &inactive, 1 },
                { "pgfault", &s->memory_page_faults, 1 },
                { "pgmajfault", &s->memory_major_page_faults, 1 },
        };

        s->memory_usage = read_number(dir_fd, "memory.current");
        if (s->memory_usage == STAT_UNKNOWN) {
                if (faccessat(dir_fd, "memory.current", F_OK, 0) < 0)
                        read_memory_of_processes(dir_fd, s);
                return;
        }
        s->memory_limit = read_number(dir_fd, "memory.max");
        if (read_figures(dir_fd, "memory.stat", figures, ELEMENTSOF(figures)) >= 0)
                s->memory_working_set = s->memory_usage > inactive ? s->memory_usage - inactive : 0;
        s->swap_usage = read_number(dir_fd, "memory.swap.current");
        if (s->swap_usage != STAT_UNKNOWN)
                s->swap_limit = read_number(dir_fd, "memory.swap.max");
}

static void read_details(int dir_fd, CgroupStats *s) {
        const Figure figures[] = {
                { "max", &s->memory_limit_hits, 1 },
                { "oom_kill", &s->oom_kills, 1 },
        };

        (void) read_figures(dir_fd, "memory.events", figures, ELEMENTSOF(figures));
        if (s->memory_peak == STAT_UNKNOWN)
                s->memory_peak = read_number(dir_fd, "memory.peak");
        s->threads = read_number(dir_fd, "pids.current");
        if (s->threads == STAT_UNKNOWN)
                count_threads(dir_fd, &s->threads);
        s->threads_limit = read_number(dir_fd, "pids.max");
        (void) cgroup_count_processes(dir_fd, &s->processes);
        read_devices(dir_fd, s);
}

int cgroup_stats_read(int dir_fd, CgroupStatsFlags flags, CgroupStats *ret) {
        uint64_t *const figures[] = {
                &ret->cpu_usage_nsec, &ret->cpu_user_nsec, &ret->cpu_system_nsec, &ret->cpu_periods,
                &ret->cpu_throttled_periods, &ret->cpu_throttled_nsec, &ret->memory_usage, &ret->memory_limit,
                &ret->memory_working_set, &ret->memory_anon, &ret->memory_file, &ret->memory_file_mapped,
                &ret->memory_kernel, &ret->memory_page_faults, &ret->memory_major_page_faults, &ret->swap_usage,
                &ret->swap_limit, &ret->memory_peak, &ret->memory_limit_hits, &ret->oom_kills, &ret->processes,
                &ret->threads, &ret->threads_limit,
        };
        struct timespec now;
        int r;

        *ret = (CgroupStats) {};
        for (size_t i = 0; i < ELEMENTSOF(figures); i++)
                *figures[i] = STAT_UNKNOWN;
        (void) clock_gettime(CLOCK_REALTIME, &now);
        ret->timestamp_nsec = (uint64_t) now.tv_sec * NSEC_PER_SEC + (uint64_t) now.tv_nsec;
        r = read_cpu(dir_fd, ret);
        if (r < 0)
                return r;
        read_memory(dir_fd, ret);
        read_pressure(dir_fd, "cpu.pressure", &ret->cpu_pressure);
        read_pressure(dir_fd, "memory.pressure", &ret->memory_pressure);
        read_pressure(dir_fd, "io.pressure", &ret->io_pressure);
        if (flags & CGROUP_STATS_DETAILS)
                read_details(dir_fd, ret);
        return 0;
}

/* --- rate -------------------------------------------------------------------------------------------------------- */

uint64_t cpu_rate_update(CpuRate *r, uint64_t timestamp_nsec, uint64_t usage_nsec) {
        /* A clock that was set back, or a counter that began anew, begins a new window. */
        if (r->timestamp_nsec == 0 || timestamp_nsec < r->timestamp_nsec || usage_nsec < r->usage_nsec) {
                *r = (CpuRate) { .timestamp_nsec = timestamp_nsec, .usage_nsec = usage_nsec };
                return STAT_UNKNOWN;
        }
        if (timestamp_nsec - r->timestamp_nsec >= CPU_RATE_WINDOW_NSEC) {
                r->nano_cores = (uint64_t) ((double) (usage_nsec - r->usage_nsec) * (double) NSEC_PER_SEC /
                                            (double) (timestamp_nsec - r->timestamp_nsec));
                r->known = true;
                r->timestamp_nsec = timestamp_nsec;
                r->usage_nsec = usage_nsec;
        }
        return r->known ? r->nano_cores : STAT_UNKNOWN;
}
