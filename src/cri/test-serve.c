/* The handlers over the stubs, served for real: test/proto/wire_test.go calls it with the CRI's own Go client. Ends
 * with its standard input. */

#include <sys/epoll.h>

#include "cri/test-stub.h"

#define N_CONTAINERS 5000

static int on_input(sd_event_source *source, int fd, uint32_t events, void *userdata) {
        return sd_event_exit(sd_event_source_get_event(source), 0);
}

static void make_crowd(void) {
        Container *many = calloc(N_CONTAINERS, sizeof(Container));

        CHECK(many);
        for (size_t i = 0; i < N_CONTAINERS; i++) {
                Container *k = &many[i];

                make_container(k, '7', &pods[1], "crowd", CONTAINER_EXITED);
                HASH_DELETE(hh, manager.containers, k);
                (void) snprintf(k->id, sizeof k->id, "%064zx", i);
                HASH_ADD(hh, manager.containers, id, ID_LENGTH, k);
        }
        pods[1].containers = NULL;
}

int main(int argc, char *argv[]) {
        _cleanup_(grpc_server_freep) GrpcServer *server = NULL;
        _cleanup_error_ Error error = ERROR_INIT;
        char *output = malloc(ENGINE_EXEC_OUTPUT_MAX);
        sd_event *event = NULL;
        int r;

        CHECK(argc == 2 && output);
        log_set_max_level(LOG_ERR);
        build();
        fill_container(&containers[1]);
        make_crowd();
        memset(output, 0xff, ENGINE_EXEC_OUTPUT_MAX);
        stub.exec = (EngineExecResult) { 3, output, output, ENGINE_EXEC_OUTPUT_MAX, ENGINE_EXEC_OUTPUT_MAX };
        CHECK(sd_event_new(&event) >= 0);
        CHECK(sd_event_add_io(event, NULL, STDIN_FILENO, EPOLLIN | EPOLLHUP, on_input, NULL) >= 0);
        CHECK(grpc_server_new(event, cri_methods(), cri, &server) >= 0);
        r = grpc_server_listen_unix(server, argv[1], &error);
        if (r < 0) {
                fprintf(stderr, "%s\n", error.message);
                return EXIT_FAILURE;
        }
        puts("ready");
        (void) fflush(stdout);
        r = sd_event_loop(event);
        server = grpc_server_free(server);
        sd_event_unref(event);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
