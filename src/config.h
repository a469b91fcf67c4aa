#pragma once
/* The daemon's configuration: rktlet.conf(5). Each setting has a default that works. */

#include "basic/error.h"
#include "basic/macro.h"
#include "config-runtime.h"

#define CONFIG_PATH "/etc/rktlet/rktlet.conf"

typedef struct Config {
        /* [Manager] */
        char *socket;           /* of the CRI */
        char *state_directory, *run_directory;
        char *default_slice;    /* parent of the slices of pods that come without one */
        int log_level;          /* LOG_ERR … LOG_DEBUG */
        uint64_t stop_timeout_usec; /* of containers whose pod is stopped */
        uint64_t register_machines; /* 0 or 1: with systemd-machined */
        char *stream_address;   /* where the streaming server listens */
        uint64_t stream_port;   /* 0: any */
        char *stream_certificate_file, *stream_key_file; /* both or neither ("") */
        char *stream_trusted_certificate_file;           /* of clients; "": they need none */
        char *metrics_socket;   /* "": none */
        uint64_t metrics_port;  /* on the loopback interface; 0: none */
        /* [Engine] */
        char *engine;           /* "native" or "rkt" */
        char *crun, *libexec_directory;
        uint64_t unit_stop_timeout_usec;
        uint64_t log_to_journal; /* 0 or 1 */
        uint64_t journal_interval_usec, journal_burst;
        uint64_t log_line_max;  /* bytes */
        /* [Runtime NAME] */
        ConfigRuntimes runtimes;
        /* [Rkt] */
        char *rkt_path, *rkt_directory, *rkt_stage1_name, *rkt_network_directory;
        char **rkt_insecure_options;
        uint64_t rkt_timeout_usec, rkt_ready_timeout_usec, rkt_fetch_timeout_usec;
        /* [Network] */
        char **cni_conf_directories, **cni_bin_directories;
        char *cni_template;     /* "": none */
        uint64_t cni_timeout_usec;
        /* [Image] */
        char *image_directory, *registries_directory, *verifiers_directory;
        char **pinned_images;   /* globs of references */
        uint64_t parallel_layers;
        uint64_t image_progress_timeout_usec;

        char **files;      /* that were read, in their order */
        uint64_t assigned; /* which settings a file has given; for config.c */
} Config;

void config_done(Config *c);
#define _cleanup_config_ _cleanup_(config_done)

/* Called for each line that is not understood, with one sentence that begins with "FILE:LINE: ". */
typedef void (*ConfigWarnFunc)(const char *message, void *userdata);

/* Reads path and then PATH.d/"*.conf" by name. NULL: rktlet.conf of the first directory that has one, of /etc/rktlet,
 * /run/rktlet, /usr/local/lib/rktlet, /usr/lib/rktlet, and then rktlet.conf.d/"*.conf" of all of them by name; of two with
 * one name that of the earlier directory counts, and a link to /dev/null masks it. What isn't set keeps its default.
 * Unknown sections, keys and bad values are warned about and left out. A missing file is no error where path is NULL.
 * -errno with the error set when a file can't be read. */
int config_load(const char *path, ConfigWarnFunc warn, void *userdata, Config *ret, Error *error);
/* The same for any directories. */
int config_load_directories(char *const *directories, ConfigWarnFunc warn, void *userdata, Config *ret, Error *error);
/* Merges one file's text; for the above and for tests. `name` is what warnings call it. */
int config_parse(Config *c, const char *name, const char *text, ConfigWarnFunc warn, void *userdata);
int config_init(Config *ret);
/* Derives what was not set from what was: Socket from RunDirectory, ImageDirectory and RktDirectory from
 * StateDirectory. */
int config_complete(Config *c);

/* Runtimes without a path are none: warned about and left out. */
void config_drop_incomplete(Config *c, const char *shown, ConfigWarnFunc warn, void *userdata);

/* Moves the settings that can change while the daemon runs from fresh to c, and c's to fresh. *ret_taken and *ret_left
 * are the names of those of both kinds that differed, owned by the caller. On failure (-ENOMEM) some may have been moved. */
int config_take_live(Config *c, Config *fresh, char ***ret_taken, char ***ret_left);

/* All settings as a file that would give them again. */
int config_dump(const Config *c, FILE *f);

/* "90", "1min 30s", "500ms", "infinity", as in systemd.time(7); in µs. */
int config_parse_time(const char *s, uint64_t *ret);
