#pragma once
/* Inside rktletctl: what its commands share. A command gets its arguments and returns the program's exit status, or a
 * negative errno when it has said what is wrong already. */

#include <inttypes.h>
#include <systemd/sd-bus.h>

#include "basic/json-util.h"
#include "basic/macro.h"
#include "basic/string-util.h"

#define BUS_NAME "org.rktlet1"
#define BUS_PATH "/org/rktlet1"
#define MANAGER_INTERFACE BUS_NAME ".Manager"
#define POD_INTERFACE BUS_NAME ".Pod"
#define CONTAINER_INTERFACE BUS_NAME ".Container"
#define IMAGE_INTERFACE BUS_NAME ".Image"
/* Stopping a pod takes as long as its containers' grace, a pull as long as the network wants. */
#define LONG_USEC (3600 * USEC_PER_SEC)

/* As systemctl has them. */
enum {
        EXIT_NOT_RUNNING = 3,
        EXIT_NO_SUCH = 4,
};

typedef enum JsonMode {
        JSON_OFF,
        JSON_PRETTY,
        JSON_SHORT,
} JsonMode;

/* What the options say. */
typedef struct Arguments {
        JsonMode json;
        bool no_pager, follow, timestamps, tty, interactive, detach, keep, host_network, privileged;
        const char *timeout, *signal, *whom, *name, *user, *directory, *delay;
        char **environment;
        uint64_t lines, iterations; /* UINT64_MAX: not given */
} Arguments;
extern Arguments arg;

/* bus.c */
/* Says what went wrong, and returns r. */
int fail(int r, const sd_bus_error *e);
int call(sd_bus *bus, const char *path, const char *interface, const char *member, uint64_t timeout,
         sd_bus_message **ret, const char *types, ...);
/* Calls a method of the manager without arguments that returns an array, and enters it. */
int call_list(sd_bus *bus, const char *member, const char *types, sd_bus_message **ret);
typedef struct Object {
        char *path;
        const char *interface;
} Object;
void object_done(Object *o);
#define _cleanup_object_ _cleanup_(object_done)
typedef enum Kinds {
        KIND_POD = 1 << 0,
        KIND_CONTAINER = 1 << 1,
        KIND_IMAGE = 1 << 2,
} Kinds;
/* The pod, container or image that is called so; -ENOENT: said that there is none. */
int find_object(sd_bus *bus, const char *what, Kinds kinds, Object *ret);
/* All properties as a JSON object. */
int read_properties(sd_bus *bus, const char *path, const char *interface, json_t **ret);

/* output.c */
bool on_terminal(void);
/* "" when there are no colours. */
const char *colour_of_state(const char *state);
const char *colour_off(void);
const char *colour_bold(void);
int print_json(json_t *j);
/* The text, without what would steer a terminal. */
void print_clean(const char *s);
/* "Tue 2026-11-24 18:00:00 UTC", empty for 0. */
void format_time(uint64_t usec, char *ret, size_t size);
/* "5min ago" */
void format_ago(uint64_t usec, char *ret, size_t size);
void format_size(uint64_t size, char *ret, size_t n);
/* What is written goes through a pager from here on, if it goes to a terminal. pager_close() waits for it. */
void pager_open(void);
void pager_close(void);

/* pump.c */
/* Between our standard streams and a command's or container's descriptors until its end. */
typedef struct Pump {
        sd_bus *bus;            /* processed meanwhile; may be NULL */
        int in_fd, out_fd, err_fd; /* -1: none; with a terminal in and out are the same */
        int packets_fd;         /* instead of these: a socket as Attach gives it */
        int result_fd;          /* as Exec gives it, or -1 */
        bool tty;
        bool (*ended)(void *userdata); /* looked at after the bus was processed; may be NULL */
        void *userdata;
} Pump;
/* What came from result_fd goes to result. 1: the user broke the connection. */
int pump_run(const Pump *p, char *result, size_t size);
/* What is there already, when it has ended. */
int pump_drain(const Pump *p);

/* commands */
int list_pods(sd_bus *bus, char **args);
int list_containers(sd_bus *bus, char **args);
int list_images(sd_bus *bus, char **args);
int show_status(sd_bus *bus, char **args);
int show_properties(sd_bus *bus, char **args);
int show_files(sd_bus *bus, char **args);
int show_logs(sd_bus *bus, char **args);
int print_log_end(const char *path, uint64_t lines); /* logs.c; of a log that may be missing */
int exec_command(sd_bus *bus, char **args);
int exec_shell(sd_bus *bus, char **args);
int run_image(sd_bus *bus, char **args);
int pull_image(sd_bus *bus, char **args);
int stop_objects(sd_bus *bus, char **args);
int kill_objects(sd_bus *bus, char **args);
int remove_objects(sd_bus *bus, char **args);
int prune_objects(sd_bus *bus, char **args);
int watch_usage(sd_bus *bus, char **args);
int watch_events(sd_bus *bus, char **args);
int dump_state(sd_bus *bus, char **args);
