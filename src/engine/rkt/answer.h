#pragma once
/* What rkt answers, read with suspicion: JSON of pods, apps and images, the hash of a fetched image. */

#include "basic/error.h"
#include "basic/json-util.h"
#include "basic/macro.h"

#define RKT_UUID_LENGTH 36

bool rkt_uuid_is_valid(const char *s);
/* "sha512-" and 64 hexadecimal digits. */
bool rkt_hash_is_valid(const char *s);
/* "null" gives an empty list. */
int rkt_parse_json(const char *what, const char *text, size_t size, json_t **ret, Error *error);

typedef enum RktAppState {
        RKT_APP_CREATED,
        RKT_APP_RUNNING,
        RKT_APP_EXITED,
        RKT_APP_UNKNOWN,
} RktAppState;

typedef struct RktApp {
        RktAppState state;
        uint64_t created_usec, started_usec, finished_usec; /* 0: not said */
        int exit_code;                                      /* -1: not said */
} RktApp;

/* The answer of `rkt app status --format=json`. */
int rkt_parse_app(const char *text, size_t size, RktApp *ret, Error *error);
/* Of one pod in `rkt status` or `rkt list`; addresses in the order of its networks, owned by the caller. */
int rkt_pod_addresses(const json_t *pod, char ***ret);
/* Whether the pod's processes are there ("running"); all other states are before or after that. */
bool rkt_pod_is_running(const json_t *pod);
/* One of its user annotations, or NULL. Borrowed. */
const char *rkt_pod_annotation(const json_t *pod, const char *key);
