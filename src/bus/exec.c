/* Exec and Attach: the caller gets the descriptors themselves, the terminal's master or the pipes, and moves the
 * bytes; not one of them goes through the bus or the daemon. */

#include "bus/internal.h"

#include <fcntl.h>

#include "basic/file-util.h"
#include "basic/log.h"

typedef struct Exec {
        Task *task;
        bool in, tty;
        int result_fd; /* where the command's end is told; the caller's end of it closed: the command is given up */
        sd_event_source *gone;
} Exec;

static void exec_done(Exec *x) {
        x->gone = sd_event_source_disable_unref(x->gone);
        x->result_fd = safe_close(x->result_fd);
}

static int on_caller_gone(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        Exec *x = userdata;

        x->gone = sd_event_source_disable_unref(x->gone);
        fiber_cancel(x->task->fiber);
        return 0;
}

static int reply_with(Exec *x, const EnginePipes *pipes, int result_fd) {
        const int fds[] = { pipes->tty, pipes->in, pipes->out, pipes->err };
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        int r;

        r = sd_bus_message_new_method_return(x->task->message, &reply);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'a', "h");
        for (size_t i = 0; i < ELEMENTSOF(fds) && r >= 0; i++)
                if (fds[i] >= 0)
                        r = sd_bus_message_append(reply, "h", fds[i]);
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        if (r >= 0)
                r = sd_bus_message_append(reply, "h", result_fd);
        return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

static int exec_started(EnginePipes *pipes, void *userdata) {
        _cleanup_close_ int reader = -1;
        Exec *x = userdata;
        int fds[2], r;

        if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
                r = -errno;
        else {
                reader = fds[0];
                x->result_fd = fds[1];
                /* No event is asked for: an error comes by itself when the last reader is gone. */
                r = sd_event_add_io(x->task->bus->event, &x->gone, x->result_fd, 0, on_caller_gone, x);
                if (r >= 0)
                        r = reply_with(x, pipes, reader);
        }
        x->task->replied = r >= 0;
        (void) safe_close(pipes->in);
        (void) safe_close(pipes->out);
        (void) safe_close(pipes->err);
        (void) safe_close(pipes->tty);
        return r;
}

/* "exit 3", or "error NotFound why". A pipe takes as much at once. */
static void tell_result(const Exec *x, int r, int code, const Error *error) {
        char text[1024];
        int n;

        if (x->result_fd < 0)
                return;
        if (r >= 0)
                n = snprintf(text, sizeof text, "exit %d\n", code);
        else
                n = snprintf(text, sizeof text, "error %s %.900s\n",
                             grpc_code_to_string(error_is_set(error) ? error->code : GRPC_UNKNOWN),
                             error_is_set(error) ? strempty(error->message) : strerror(-r));
        if (write(x->result_fd, text, (size_t) n) < 0)
                log_debug_errno(-errno, "The end of a command could not be told, ignoring");
}

int task_exec(Task *t, Error *error) {
        _cleanup_(exec_done) Exec x = { .task = t, .result_fd = -1 };
        _cleanup_strv_free_ char **argv = NULL;
        int r, tty, in, code = 0;

        r = sd_bus_message_read_strv(t->message, &argv);
        if (r >= 0)
                r = sd_bus_message_read(t->message, "bb", &tty, &in);
        if (r < 0)
                return r;
        if (!argv || isempty(argv[0]))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "there is no command to execute");
        r = container_exec(t->container,
                           &(EngineExec) {
                                   .argv = (const char *const *) argv,
                                   .in = in || tty,
                                   .out = true,
                                   .err = !tty,
                                   .tty = tty,
                                   .started = exec_started,
                                   .userdata = &x,
                           },
                           &code, error);
        tell_result(&x, r, code, error);
        return r;
}

int task_attach(Task *t, Error *error) {
        _cleanup_close_ int fd = -1;
        int r, in;

        r = sd_bus_message_read(t->message, "b", &in);
        if (r < 0)
                return r;
        r = container_attach(t->container,
                             (in ? ENGINE_ATTACH_STDIN : 0) | ENGINE_ATTACH_STDOUT | ENGINE_ATTACH_STDERR, &fd, error);
        if (r < 0)
                return r;
        r = sd_bus_message_new_method_return(t->message, &t->reply);
        return r < 0 ? r : sd_bus_message_append(t->reply, "h", fd);
}
