#pragma once
/* Where a registry's images are fetched from: registries.d/HOST/ *.conf, read anew at each pull.
 *
 *   [Registry]                 how HOST itself is reached; all keys are optional
 *   URL=https://host[/prefix]  another address for it
 *   PlainHTTP=yes              HTTP instead of HTTPS (the default for loopback addresses)
 *   Insecure=yes               don't check its certificate
 *   CA=/path                   trust these certificates alone
 *   ClientCertificate=, ClientKey=   PEM files
 *   Username=, PasswordFile=   credentials, used when the request brings none
 *   Mirror=URL [URL…]          mirrors without settings of their own; may be repeated
 *   Fallback=no                don't ask HOST itself when the mirrors failed
 *
 *   [Mirror]                   a section each; tried in their order before HOST
 *   URL=…                      and the keys above but Mirror and Fallback
 *
 * HOST is the domain of the reference with its port ("localhost:5000"), or _default for all that have no directory. */

#include "basic/error.h"
#include "basic/macro.h"

typedef struct RegistryHost {
        bool https;
        bool https_given; /* said by the configuration, not derived */
        bool mirror;
        bool insecure;
        char *authority; /* host[:port] */
        char *prefix;    /* "" or "/path", between /v2 and the repository */
        char *ca, *client_certificate, *client_key;
        char *username, *password_file;
} RegistryHost;

typedef struct RegistryHosts {
        RegistryHost *hosts; /* in the order to try them, the origin last unless left out */
        size_t n_hosts;
} RegistryHosts;

void registry_hosts_done(RegistryHosts *h);
#define _cleanup_registry_hosts_ _cleanup_(registry_hosts_done)

/* directory may be NULL or missing. FailedPrecondition with file and line for a file that can't be understood. */
int registry_hosts_load(const char *directory, const char *domain, RegistryHosts *ret, Error *error);
/* One file's text, for the function above, tests and fuzzing; `where` is the file's name for errors. */
int registry_hosts_parse(const char *text, const char *where, RegistryHosts *mirrors, RegistryHost *origin,
                         bool *fallback, Error *error);
void registry_host_done(RegistryHost *h);
/* 127.0.0.0/8, [::1], localhost, with or without a port. */
bool registry_authority_is_loopback(const char *authority);
