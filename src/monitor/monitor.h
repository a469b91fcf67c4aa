#pragma once
/* What the daemon counts of itself, for Prometheus: rktlet.metrics(7). Served by HTTP on a UNIX socket and, when it is
 * wanted, on a port of the loopback interface. Counting costs nothing worth speaking of; gathering is done when asked. */

#include <systemd/sd-event.h>

#include "basic/error.h"
#include "basic/histogram.h"
#include "cri/cri.h"
#include "grpc/grpc.h"
#include "image/image.h"
#include "manager/manager.h"
#include "systemd/systemd.h"

typedef struct Monitor Monitor;

#define MONITOR_CONNECTIONS_MAX 16U

typedef struct MonitorConfig {
        const char *socket; /* "" or NULL: none */
        uint16_t port;      /* on 127.0.0.1; 0: none */
        /* Borrowed, and outliving the monitor. */
        const Cri *cri;
        GrpcServer *server;
        const Systemd *systemd;
        Manager *manager;
        ImageStore *images;
        const Histogram *turns; /* of the loop */
} MonitorConfig;

int monitor_new(sd_event *event, const MonitorConfig *config, Monitor **ret, Error *error);
/* Cuts clients off. */
Monitor *monitor_free(Monitor *m);
DEFINE_TRIVIAL_CLEANUP_FUNC(Monitor *, monitor_free);

/* (fiber) All metrics as text. */
int monitor_write(Monitor *m, FILE *f);

/* As sd_event_loop(), and measures each turn: how long the loop was busy with one thing and deaf to others. */
int monitor_loop(sd_event *event, Histogram *turns);
