/* Methods that wait: each runs in a fiber of its own, which is cancelled when the daemon ends. */

#include "bus/internal.h"

#include <utlist.h>

#include "basic/log.h"

int bus_error(sd_bus_error *error, const Error *e) {
        char name[64];

        (void) snprintf(name, sizeof name, BUS_NAME ".Error.%s", grpc_code_to_string(e->code));
        return sd_bus_error_setf(error, name, "%s", strempty(e->message));
}

int bus_fail(sd_bus_error *error, int r, const Error *e) {
        return error_is_set(e) ? bus_error(error, e) : r;
}

int read_options(sd_bus_message *m, int (*func)(sd_bus_message *m, const char *key, void *userdata, Error *error),
                 void *userdata, Error *error) {
        int r;

        r = sd_bus_message_enter_container(m, 'a', "{sv}");
        if (r < 0)
                return error_set(error, r, "the options can't be read");
        while ((r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                const char *key = "", *contents;

                r = sd_bus_message_read(m, "s", &key);
                if (r >= 0)
                        r = sd_bus_message_peek_type(m, NULL, &contents);
                if (r >= 0)
                        r = sd_bus_message_enter_container(m, 'v', contents);
                if (r >= 0)
                        r = func(m, key, userdata, error);
                if (r == -ENXIO || (r < 0 && !error_is_set(error)))
                        return error_setf(error, GRPC_INVALID_ARGUMENT, "option %s is unknown or of another type",
                                          key);
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
                if (r < 0)
                        return error_set(error, r, "the options can't be read");
        }
        if (r >= 0)
                r = sd_bus_message_exit_container(m);
        return r < 0 ? error_set(error, r, "the options can't be read") : 0;
}

int append_strings(sd_bus_message *reply, const char *const *pairs, size_t n) {
        int r;

        r = sd_bus_message_open_container(reply, 'a', "{ss}");
        for (size_t i = 0; i < n && r >= 0; i++)
                r = sd_bus_message_append(reply, "{ss}", strempty(pairs[2 * i]), strempty(pairs[2 * i + 1]));
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int task_fiber(void *userdata) {
        _cleanup_error_ Error error = ERROR_INIT;
        Task *t = userdata;
        int r;

        t->fiber = fiber_current();
        r = t->func(t, &error);
        if (t->replied)
                return 0;
        if (r >= 0 && t->reply)
                r = sd_bus_send(NULL, t->reply, NULL);
        else if (r >= 0)
                r = sd_bus_reply_method_return(t->message, NULL);
        else {
                _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;

                (void) error_set(&error, r, "Cannot do it");
                (void) bus_error(&e, &error);
                r = sd_bus_reply_method_error(t->message, &e);
        }
        if (r < 0)
                log_debug_errno(r, "A method's caller got no reply, ignoring");
        return 0;
}

static void task_free(Task *t) {
        Bus *b = t->bus;

        DL_DELETE(b->tasks, t);
        b->n_tasks--;
        (void) pod_unref(t->pod);
        (void) container_unref(t->container);
        (void) image_unref(t->image);
        sd_bus_message_unref(t->reply);
        sd_bus_message_unref(t->message);
        free(t);
        if (b->n_tasks == 0)
                fiber_queue_wake(&b->idle, 0);
}

static void task_destroy(void *userdata) {
        task_free(userdata);
}

int bus_task_run(Bus *b, sd_bus_message *m, TaskFunc func, Pod *pod, Container *container, Image *image,
                 sd_bus_error *error) {
        Task *t;
        int r;

        if (!b || b->draining)
                return sd_bus_error_set(error, BUS_NAME ".Error.Unavailable", "rktlet is ending");
        if (b->n_tasks >= TASKS_MAX)
                return sd_bus_error_setf(error, BUS_NAME ".Error.ResourceExhausted",
                                         "%u methods are under way already; try again later", TASKS_MAX);
        t = calloc(1, sizeof *t);
        if (!t)
                return -ENOMEM;
        *t = (Task) {
                .bus = b,
                .message = sd_bus_message_ref(m),
                .func = func,
                .pod = pod ? pod_ref(pod) : NULL,
                .container = container ? container_ref(container) : NULL,
                .image = image ? image_ref(image) : NULL,
        };
        DL_APPEND(b->tasks, t);
        b->n_tasks++;
        /* It may end, and t be gone, before this returns; so the fiber is asked for itself in task_fiber(). */
        r = fiber_spawn(b->event, "bus-method", task_fiber, t, task_destroy, NULL);
        if (r < 0) {
                task_free(t);
                return r;
        }
        return 1;
}

void bus_task_cancel_all(Bus *b) {
        for (Task *t = b->tasks; t; t = t->next)
                if (t->fiber)
                        fiber_cancel(t->fiber);
}
