#pragma once
/* Inside src/bus: the objects and how their methods are run. */

#include <systemd/sd-bus.h>

#include "basic/fiber.h"
#include "basic/string-util.h"
#include "bus/bus.h"

#define BUS_NAME "org.rktlet1"
#define BUS_PATH "/org/rktlet1"
#define MANAGER_INTERFACE "org.rktlet1.Manager"
#define POD_INTERFACE "org.rktlet1.Pod"
#define POD_PATH BUS_PATH "/pod"
#define CONTAINER_INTERFACE "org.rktlet1.Container"
#define CONTAINER_PATH BUS_PATH "/container"
#define IMAGE_INTERFACE "org.rktlet1.Image"
#define IMAGE_PATH BUS_PATH "/image"
#define LOG_CONTROL_INTERFACE "org.freedesktop.LogControl1"
#define LOG_CONTROL_PATH "/org/freedesktop/LogControl1"
/* What polkit is asked about those who are not root. */
#define READ_ACTION "org.rktlet1.inspect"

/* Methods that wait, at once. */
#define TASKS_MAX 64U
/* Callers whose user is remembered; callers polkit is asked about at once. */
#define CALLERS_MAX 64U
#define QUERIES_MAX 64U

typedef struct Task Task;
typedef int (*TaskFunc)(Task *t, Error *error);
struct Task {
        Bus *bus;
        sd_bus_message *message; /* its arguments are read by func */
        sd_bus_message *reply;   /* made by func; NULL: an empty one */
        bool replied;            /* by func itself */
        TaskFunc func;
        Pod *pod;
        Container *container;
        Image *image;
        Fiber *fiber; /* no reference: the task ends with it */
        Task *prev, *next;
};

typedef struct Caller {
        char *name; /* a unique name, which a bus never gives twice */
        uint32_t uid;
} Caller;

typedef struct Query Query;

struct Bus {
        sd_event *event;
        Manager *manager;
        char *address;
        sd_bus *bus;
        sd_event_source *retry;
        ManagerSubscription subscription;
        bool served, loaded, told, draining;
        /* An object that is going: it can be found once more, to say so. */
        Pod *leaving_pod;
        Container *leaving_container;
        Image *leaving_image;
        Task *tasks;
        size_t n_tasks;
        FiberQueue idle;
        /* access.c */
        Caller callers[CALLERS_MAX];
        size_t next_caller;
        Query *queries;
        size_t n_queries;
        bool register_machines, told_machines; /* machine.c */
        /* pull.c */
        unsigned n_pulls;
        sd_event_source *progress;
};

extern const sd_bus_vtable manager_vtable[], pod_vtable[], container_vtable[], image_vtable[], log_control_vtable[];
int pod_object_find(sd_bus *bus, const char *path, const char *interface, void *userdata, void **ret_found,
                    sd_bus_error *error);
int pod_node_enumerator(sd_bus *bus, const char *prefix, void *userdata, char ***ret, sd_bus_error *error);
int container_object_find(sd_bus *bus, const char *path, const char *interface, void *userdata, void **ret_found,
                          sd_bus_error *error);
int container_node_enumerator(sd_bus *bus, const char *prefix, void *userdata, char ***ret, sd_bus_error *error);
int image_object_find(sd_bus *bus, const char *path, const char *interface, void *userdata, void **ret_found,
                      sd_bus_error *error);
int image_node_enumerator(sd_bus *bus, const char *prefix, void *userdata, char ***ret, sd_bus_error *error);
char *pod_object_path(const Pod *p);
char *container_object_path(const Container *c);
char *image_object_path(const Image *i);
bool pod_is_shown(const Pod *p);
bool container_is_shown(const Container *c);
const char *container_image_name(const Container *c);
/* A tag, else a digest, else the ID. */
const char *image_display_name(const Image *i);

/* lookup.c: by an ID or its beginning, a unit's name, or a name: "namespace/pod", "namespace/pod/container", or the
 * last part of these where it is unambiguous. An image by whatever image_store_find() takes. Borrowed. */
int lookup_pod(Manager *m, const char *what, Pod **ret, Error *error);
int lookup_container(Manager *m, const char *what, Container **ret, Error *error);
int lookup_image(Manager *m, const char *what, Image **ret, Error *error);

/* task.c: runs func in a fiber and replies: with t->reply, an empty return, or the error. Returns what a method
 * handler must return. References to pod, container and image (may be NULL) are taken. */
int bus_task_run(Bus *b, sd_bus_message *m, TaskFunc func, Pod *pod, Container *container, Image *image,
                 sd_bus_error *error);
void bus_task_cancel_all(Bus *b);
/* org.rktlet1.Error.NotFound and the like. */
int bus_error(sd_bus_error *error, const Error *e);
/* The same from a method handler, whatever failed. */
int bus_fail(sd_bus_error *error, int r, const Error *e);
/* The Bus an object's vtable belongs to: sd-bus hands the object alone to its methods. */
Bus *bus_of_manager(const Manager *m);
Bus *the_bus(void);

/* access.c: a filter: root may do everything; others may read if polkit says so; nobody else anything. */
int access_filter(sd_bus_message *m, void *userdata, sd_bus_error *error);
void access_forget(Bus *b);

/* machine.c: tells machined of a container that has been started, when configured. */
void machine_register(Bus *b, const Container *c);

/* Work of several objects, for tasks. */
int task_stop_pod(Task *t, Error *error);       /* pod-object.c, container-object.c */
int task_remove_pod(Task *t, Error *error);
int task_stop_container(Task *t, Error *error); /* timeout */
int task_remove_container(Task *t, Error *error);
int task_pull(Task *t, Error *error);           /* pull.c: PullImage */
int task_prune(Task *t, Error *error);          /* prune.c: Prune */
int task_run_container(Task *t, Error *error);  /* run.c: Run */
void run_forget_logs(Bus *b, const Pod *p);     /* of pods that it made */
int task_exec(Task *t, Error *error);           /* exec.c: Exec, Attach of t->container */
int task_attach(Task *t, Error *error);
int task_kill_container(Task *t, Error *error); /* kill.c: whom, signal; of t->container */
int task_kill_pod(Task *t, Error *error);       /* signal; all containers of t->pod */
int dump_state(Bus *b, char **ret);             /* dump.c: JSON */

/* A map of strings to variants at the message's reading position; func is called for each, inside of the variant.
 * Unknown keys are refused by it with -EINVAL. */
int read_options(sd_bus_message *m, int (*func)(sd_bus_message *m, const char *key, void *userdata, Error *error),
                 void *userdata, Error *error);
/* a{ss} of n pairs of key and value, one behind the other. */
int append_strings(sd_bus_message *reply, const char *const *pairs, size_t n);
