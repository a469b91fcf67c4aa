#pragma once
/* Inside src/bus: the objects and how their methods are run. */

#include <systemd/sd-bus.h>

#include "basic/fiber.h"
#include "bus/bus.h"

#define BUS_NAME "org.rktlet1"
#define BUS_PATH "/org/rktlet1"
#define MANAGER_INTERFACE "org.rktlet1.Manager"
#define POD_INTERFACE "org.rktlet1.Pod"
#define POD_PATH BUS_PATH "/pod"
#define CONTAINER_INTERFACE "org.rktlet1.Container"
#define CONTAINER_PATH BUS_PATH "/container"

/* Methods that wait, at once. */
#define TASKS_MAX 64U

typedef struct Task Task;
struct Task {
        Bus *bus;
        sd_bus_message *message;
        int (*func)(Task *t, Error *error);
        Pod *pod;
        Container *container;
        uint64_t timeout_usec;
        Fiber *fiber; /* no reference: the task ends with it */
        Task *prev, *next;
};

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
        Task *tasks;
        size_t n_tasks;
        FiberQueue idle;
};

extern const sd_bus_vtable manager_vtable[], pod_vtable[], container_vtable[];
int pod_object_find(sd_bus *bus, const char *path, const char *interface, void *userdata, void **ret_found,
                    sd_bus_error *error);
int pod_node_enumerator(sd_bus *bus, const char *prefix, void *userdata, char ***ret, sd_bus_error *error);
int container_object_find(sd_bus *bus, const char *path, const char *interface, void *userdata, void **ret_found,
                          sd_bus_error *error);
int container_node_enumerator(sd_bus *bus, const char *prefix, void *userdata, char ***ret, sd_bus_error *error);
char *pod_object_path(const Pod *p);
char *container_object_path(const Container *c);
bool pod_is_shown(const Pod *p);
bool container_is_shown(const Container *c);
const char *container_image_name(const Container *c);

/* Runs func in a fiber, for root alone, and replies: with an empty return or with the error. Returns what a method
 * handler must return. References to pod and container (may be NULL) are taken. */
int bus_task_run(Bus *b, sd_bus_message *m, int (*func)(Task *t, Error *error), Pod *pod, Container *container,
                 uint64_t timeout_usec, sd_bus_error *error);
/* org.rktlet1.Error.NotFound and the like. */
int bus_error(sd_bus_error *error, const Error *e);
/* The Bus an object's vtable belongs to: sd-bus hands the object alone to its methods. */
Bus *bus_of_manager(const Manager *m);
