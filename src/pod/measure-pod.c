/* Not a test: prints how fast a pod process moves lines into logs, and what it costs.
 * RKTLET_POD=build/src/pod/rktlet-pod build/src/pod/measure-pod [CONTAINERS [LINE_SIZE [LINES_PER_WRITE [MIB]]]] */

#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "basic/test.h"
#include "pod/test-pod-harness.h"

#define CONTAINERS_MAX 64

static double now(void) {
        struct timespec ts;

        CHECK_EQ(clock_gettime(CLOCK_MONOTONIC, &ts), 0);
        return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

/* Memory of its own and in all, in KiB. */
static void print_memory(pid_t pid, const char *when) {
        long rss = 0, own = 0, k;
        char path[64], line[256];
        FILE *f;

        CHECK(snprintf(path, sizeof path, "/proc/%d/status", pid) > 0);
        f = fopen(path, "re");
        CHECK(f);
        while (fgets(line, sizeof line, f)) {
                if (sscanf(line, "RssAnon: %ld kB", &k) == 1 || sscanf(line, "RssShmem: %ld kB", &k) == 1)
                        own += k;
                if (sscanf(line, "VmRSS: %ld kB", &k) == 1)
                        rss = k;
        }
        fclose(f);
        printf("%s: RSS %ld KiB, %ld KiB of them its own\n", when, rss, own);
}

static size_t argument(int argc, char **argv, int i, size_t otherwise) {
        return argc > i ? strtoul(argv[i], NULL, 10) : otherwise;
}

int main(int argc, char **argv) {
        size_t n = MIN(argument(argc, argv, 1, 1), (size_t) CONTAINERS_MAX), line = argument(argc, argv, 2, 128),
               lines = argument(argc, argv, 3, 1), bytes = argument(argc, argv, 4, 512) << 20;
        char path[160], id[16], *block;
        pid_t writers[CONTAINERS_MAX];
        struct rusage pod, all;
        Pipes p[CONTAINERS_MAX];
        double begin, seconds;
        Harness h;

        CHECK(line > 0 && lines > 0 && n > 0);
        block = malloc(line * lines);
        CHECK(block);
        memset(block, 'x', line * lines);
        for (size_t i = 0; i < lines; i++)
                block[(i + 1) * line - 1] = '\n';

        harness_init(&h, NULL);
        harness_start(&h);
        print_memory(h.pid, "idle");
        for (size_t i = 0; i < n; i++) {
                (void) snprintf(path, sizeof path, "%s/%zu.log", h.directory, i);
                (void) snprintf(id, sizeof id, "c%zu", i);
                pipes_open(&p[i], false);
                CHECK_EQ(harness_request(&h, POD_ADD_STREAMS, id, path, 0, p[i].fds, NULL), 0);
        }

        begin = now();
        for (size_t i = 0; i < n; i++) {
                writers[i] = fork();
                CHECK(writers[i] >= 0);
                if (writers[i] == 0) {
                        for (size_t k = 0; k < bytes / n; k += line * lines)
                                CHECK_EQ(write(p[i].fds[POD_STDOUT_WRITE], block, line * lines), line * lines);
                        _exit(0);
                }
        }
        for (size_t i = 0; i < n; i++)
                CHECK_EQ(waitpid(writers[i], NULL, 0), writers[i]);
        for (size_t i = 0; i < n; i++) {
                (void) snprintf(id, sizeof id, "c%zu", i);
                CHECK_EQ(harness_request(&h, POD_DRAIN, id, NULL, 0, NULL, NULL), 0);
        }
        seconds = now() - begin;
        print_memory(h.pid, "after the work");
        sleep(2);
        print_memory(h.pid, "idle again");

        CHECK_EQ(getrusage(RUSAGE_CHILDREN, &all), 0);
        harness_done(&h);
        CHECK_EQ(getrusage(RUSAGE_CHILDREN, &pod), 0);
        printf("%zu containers, %zu byte lines, %zu lines a write: %.0f MiB/s; pod process %.0f ms user, %.0f ms system "
               "for %zu MiB\n",
               n, line, lines, (double) bytes / seconds / (1 << 20),
               (double) (pod.ru_utime.tv_sec - all.ru_utime.tv_sec) * 1e3 +
                               (double) (pod.ru_utime.tv_usec - all.ru_utime.tv_usec) / 1e3,
               (double) (pod.ru_stime.tv_sec - all.ru_stime.tv_sec) * 1e3 +
                               (double) (pod.ru_stime.tv_usec - all.ru_stime.tv_usec) / 1e3,
               bytes >> 20);
        free(block);
        return EXIT_SUCCESS;
}
