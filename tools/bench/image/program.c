/* The only program of the images that the measurements use: small and static, so that what is measured is the runtime.
 * With the name "pause" it is what pause containers are everywhere: a process that waits. */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
        LINE_SIZE = 128,
        LINES_AT_ONCE = 512,
};

static void on_signal(int sig) {
        (void) sig;
        _exit(EXIT_SUCCESS);
}

static int wait_for_signal(void) {
        struct sigaction action = { .sa_handler = on_signal };

        if (sigaction(SIGTERM, &action, NULL) < 0 || sigaction(SIGINT, &action, NULL) < 0)
                return EXIT_FAILURE;
        for (;;)
                (void) pause();
}

static int write_all(const char *data, size_t size) {
        while (size > 0) {
                ssize_t n = write(STDOUT_FILENO, data, size);
                if (n < 0)
                        return -1;
                data += n;
                size -= (size_t) n;
        }
        return 0;
}

/* Writes lines of LINE_SIZE bytes with their newline, as fast as they are taken; the last one is only "end". */
static int write_lines(unsigned long count) {
        static char block[LINES_AT_ONCE][LINE_SIZE];

        memset(block, 'x', sizeof(block));
        for (size_t i = 0; i < LINES_AT_ONCE; i++)
                block[i][LINE_SIZE - 1] = '\n';
        while (count > 0) {
                size_t n = count < LINES_AT_ONCE ? count : LINES_AT_ONCE;
                if (write_all(block[0], n * LINE_SIZE) < 0)
                        return EXIT_FAILURE;
                count -= n;
        }
        return write_all("end\n", strlen("end\n")) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char *argv[]) {
        const char *name = strrchr(argv[0], '/');

        name = name ? name + 1 : argv[0];
        if (strcmp(name, "true") == 0)
                return EXIT_SUCCESS;
        if (strcmp(name, "pause") == 0 || strcmp(name, "workload") == 0)
                return wait_for_signal();
        if (strcmp(name, "lines") == 0 && argc == 2)
                return write_lines(strtoul(argv[1], NULL, 10));
        (void) fprintf(stderr, "usage: pause | workload | true | lines COUNT\n");
        return 2;
}
