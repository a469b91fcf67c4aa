#pragma once
/* Pod networks by CNI (specification 0.3.1 to 1.1.0): configuration from folders, plugins executed as child processes,
 * results cached for DEL, CHECK and restarts. Functions marked (fiber) wait. */

#include <systemd/sd-event.h>

#include "basic/error.h"
#include "basic/macro.h"

typedef struct Cni Cni;

typedef struct CniConfig {
        char *const *conf_directories; /* /etc/cni/net.d; the first network by file name is the pods' */
        char *const *bin_directories;  /* /opt/cni/bin, /usr/lib/cni */
        const char *cache_directory;   /* /var/lib/rktlet/cni: one file a pod and network */
        uint64_t timeout_usec;         /* of one plugin; 0: 60 s */
        const char *template;          /* see cni-template.h; NULL or empty: none */
} CniConfig;

int cni_new(sd_event *event, const CniConfig *config, Cni **ret);
/* Takes over all but the cache directory. -ENOMEM: all is as before. */
int cni_configure(Cni *c, const CniConfig *config);
Cni *cni_free(Cni *c);
DEFINE_TRIVIAL_CLEANUP_FUNC(Cni *, cni_free);

/* 0 when there is a usable network: conf parses and its plugins are there; else -ENETDOWN with the error saying what
 * is missing and where it was looked for. Reads the folders again only when they have changed. */
int cni_status(Cni *c, Error *error);
/* The name of the pods' network, or NULL. */
const char *cni_network_name(Cni *c);

/* The kubelet has told the node's pod CIDRs: with a template, the configuration is made of it, in the first folder, as
 * CNI_GENERATED_NAME. Where there is a network of somebody else's already, and without a template, nothing is done. */
int cni_set_pod_cidrs(Cni *c, const char *cidrs, Error *error);

typedef struct CniPortMapping {
        const char *protocol; /* "tcp", "udp", "sctp" */
        uint16_t container_port, host_port;
        const char *host_ip;  /* may be NULL */
} CniPortMapping;

typedef struct CniPod {
        const char *id, *name, *namespace_, *uid; /* K8S_POD_* and the container ID of CNI */
        const char *netns_path;                   /* NULL at DEL when it is gone */
        const char *cgroup_parent;                /* capability cgroupPath; may be NULL */
        bool added;                               /* for DEL: it has been added, whatever the cache says */
        const CniPortMapping *port_mappings;
        size_t n_port_mappings;
        char *const *dns_servers, *const *dns_searches, *const *dns_options; /* capability dns */
        /* Capability bandwidth, bits a second and bits. 0: no limit, and a burst as large as can be. */
        uint64_t ingress_rate, ingress_burst, egress_rate, egress_burst;
} CniPod;

typedef struct CniResult {
        char **ips; /* the pod's addresses without prefix length, the primary first (eth0's, in the result's order) */
        char *json;    /* the last plugin's result, for verbose status */
} CniResult;
void cni_result_done(CniResult *r);

/* (fiber) Runs ADD for the pods' network as eth0. (The pod process has brought lo up already, so no loopback plugin is
 * run.) When a plugin fails, or the caller gives up, DEL is run for all, and the plugin's own words are in the error. What
 * couldn't be undone stays cached, for cni_del() or cni_collect(). A result without an address of the pod is an error. */
int cni_add(Cni *c, const CniPod *pod, CniResult *ret, Error *error);
/* (fiber) DEL with the cached configuration and result, so that it works when the folder has changed. Where the cache is
 * damaged, or missing though the pod was added, the folder's network is taken; nothing cached, and not added: 0. Idempotent. After a failure it is owed still. Of the pod only id and netns_path are needed. */
int cni_del(Cni *c, const CniPod *pod, Error *error);
/* The cached result of a pod that was added before a restart; -ENOENT. */
int cni_cached_result(Cni *c, const char *pod_id, CniResult *ret);
/* For a pod whose cached result is damaged or lost: a new one, of the network as it is configured now, with its
 * addresses (NULL: not known) instead of a result. */
int cni_make_cache_again(Cni *c, const CniPod *pod, char *const *ips, Error *error);
/* (fiber) DEL for each cached pod that keep() denies: what a crash left behind. */
int cni_collect(Cni *c, bool (*keep)(const char *pod_id, void *userdata), void *userdata, Error *error);
