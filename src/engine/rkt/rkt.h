#pragma once
/* The rkt engine: pods and containers by executing the rkt binary, as the design document has it. A pod is a transient
 * service whose main process is `rkt app sandbox`; containers are its apps. What rkt has nothing for is done beside it,
 * and what can't be done is refused with a sentence (limits.c). rktlet-rkt(7) tells people about it. */

#include "engine/engine.h"
#include "image/image.h"

typedef struct RktConfig {
        const char *path;              /* /usr/bin/rkt */
        const char *directory;         /* rkt's data: --dir= */
        const char *stage1_name;       /* --stage1-name= of sandboxes; empty: rkt's own default */
        const char *insecure_options;  /* --insecure-options=, with commas; empty: none */
        const char *network_directory; /* /etc/rkt/net.d: its first configuration is the pods' network */
        const char *run_directory;     /* /run/rktlet */
        const char *libexec_path;      /* folder of rktlet-create, which measures trees */
        uint64_t timeout_usec;         /* of each call that is not below */
        uint64_t ready_timeout_usec;   /* of a sandbox, until its supervisor is ready */
        uint64_t fetch_timeout_usec;   /* of an image fetch */
        size_t log_line_max;           /* bytes; 0: 16384 */
} RktConfig;

int rkt_engine_new(sd_event *event, Systemd *systemd, const RktConfig *config, const EngineEvents *events, Engine **ret,
                   Error *error);

/* rkt's image store as ours. pinned: globs of references, as ImageStoreConfig has them. Doesn't look into it yet:
 * image_store_refresh() does. */
int rkt_image_store_new(const RktConfig *config, char *const *pinned, ImageStore **ret, Error *error);
/* "sha512-…" of an image of that store, for the command line; borrowed from the image. */
const char *rkt_image_id(const Image *i);
