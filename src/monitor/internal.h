#pragma once
/* What the files of this folder share. */

#include <sys/stat.h>

#include "basic/fiber.h"
#include "monitor/monitor.h"

typedef struct MonitorClient MonitorClient;

struct Monitor {
        sd_event *event;
        MonitorConfig config;
        char *path;            /* of the socket */
        struct stat identity;  /* of its file */
        int fds[2];            /* listening; -1: none */
        sd_event_source *sources[2];
        MonitorClient *clients;
        size_t n_clients;
};
