/* The daemon: reads its configuration, puts the parts together, and runs the loop until it is told to end. */

#include "config.h"

#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <systemd/sd-daemon.h>

#include "basic/fiber.h"
#include "basic/file-util.h"
#include "basic/kill-point.h"
#include "basic/leftover.h"
#include "basic/log.h"
#include "basic/message-id.h"
#include "basic/string-util.h"
#include "bus/bus.h"
#include "checker.h"
#include "cri/cri.h"
#include "engine/engine.h"
#include "engine/rkt/rkt.h"
#include "grpc/grpc.h"
#include "image/image.h"
#include "manager/manager.h"
#include "manager/state.h"
#include "monitor/monitor.h"
#include "net/cni.h"
#include "options.h"
#include "stream/stream.h"
#include "systemd/systemd.h"

/* How long calls under way may take when the daemon is told to end; what is then left is cancelled and undone. */
#define DRAIN_USEC (10 * USEC_PER_SEC)
#define STREAMS_USEC (2 * USEC_PER_SEC) /* streams have no end of their own: they are cut */
#define UNDO_USEC (15 * USEC_PER_SEC)
#define SHUTDOWN_USEC (60 * USEC_PER_SEC) /* for containers, when the machine goes down */
/* How long helpers of a daemon that was killed may take to finish. */
#define SYNC_USEC (5 * USEC_PER_SEC)
#define LEFTOVER_USEC (5 * USEC_PER_SEC)
/* Streams, exec sessions and registries need descriptors; beyond this it isn't load but a leak. */
#define NOFILE_MAX 65536U

typedef struct Daemon {
        Config config;
        Options options;

        sd_event *event;
        Systemd *systemd;
        ImageStore *images;
        Cni *cni;
        Manager *manager;
        Engine *engine;
        Cri *cri;
        StreamServer *streams;
        GrpcServer *server;
        Bus *bus;
        Monitor *monitor;
        Histogram turns;
        int lock_fd;
        Fiber *loader, *waiter;
        bool stopping;
        char *status; /* what systemd shows; NULL until it is loaded */
} Daemon;

static void daemon_done(Daemon *d) {
        (void) monitor_free(d->monitor);
        (void) bus_free(d->bus);
        (void) grpc_server_free(d->server);
        (void) stream_server_free(d->streams);
        (void) cri_free(d->cri);
        (void) manager_free(d->manager);
        (void) engine_free(d->engine);
        (void) cni_free(d->cni);
        (void) image_store_free(d->images);
        (void) systemd_free(d->systemd);
        (void) fiber_unref(d->loader);
        (void) fiber_unref(d->waiter);
        sd_event_unref(d->event);
        config_done(&d->config);
        free(d->status);
        (void) safe_close(d->lock_fd);
}

/* --- configuration ---------------------------------------------------------------------------------------------- */

static void warn_of_config(const char *message, void *userdata) {
        log_warning("%s", message);
}

static int read_config(Daemon *d, Config *ret, Error *error) {
        _cleanup_config_ Config c = {};
        int r;

        r = config_load(d->options.config_path, warn_of_config, NULL, &c, error);
        if (r < 0)
                return r;
        if (d->options.socket) {
                free(c.socket);
                c.socket = strdup(d->options.socket);
                if (!c.socket)
                        return error_oom(error);
        }
        if (d->options.log_level) {
                _cleanup_free_ char *text = strprintf("[Manager]\nLogLevel=%s\n", d->options.log_level);

                r = text ? config_parse(&c, "--log-level", text, warn_of_config, NULL) : -ENOMEM;
                if (r < 0)
                        return error_set(error, r, "Cannot set the log level");
        }
        *ret = c;
        c = (Config) {};
        return 0;
}

/* --- the process ------------------------------------------------------------------------------------------------ */

/* One arena, given back early: a node is small, and pods are many. */
static void tune_malloc(void) {
        (void) mallopt(M_ARENA_MAX, 1);
        (void) mallopt(M_MMAP_THRESHOLD, 128 * 1024);
        (void) mallopt(M_TRIM_THRESHOLD, 128 * 1024);
        (void) mallopt(M_TOP_PAD, 64 * 1024);
}

static void raise_nofile(void) {
        struct rlimit l;

        if (getrlimit(RLIMIT_NOFILE, &l) < 0)
                return;
        l.rlim_cur = MIN(l.rlim_max, (rlim_t) NOFILE_MAX);
        if (setrlimit(RLIMIT_NOFILE, &l) < 0)
                log_debug_errno(-errno, "Cannot raise the limit of open files, ignoring");
}

/* What is mounted here for a moment (layers, volumes) is nobody else's business: PID 1 would make a unit of each
 * mount. What the host mounts is still seen. */
static int own_mounts(Error *error) {
        if (unshare(CLONE_NEWNS) < 0)
                return error_set(error, -errno, "Cannot make a mount namespace; does rktlet run as root, with "
                                 "CAP_SYS_ADMIN?");
        if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
                return error_set(error, -errno, "Cannot make the mounts below / slaves of the host's");
        return 0;
}

/* Two daemons on one state directory would undo each other's work. */
static int lock_directory(Daemon *d, Error *error) {
        _cleanup_free_ char *path = strprintf("%s/lock", d->config.run_directory);
        int r;

        if (!path)
                return error_oom(error);
        r = mkdir_parents(AT_FDCWD, d->config.run_directory, 0711);
        if (r < 0)
                return error_set(error, r, "Cannot make %s", d->config.run_directory);
        d->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (d->lock_fd < 0)
                return error_set(error, -errno, "Cannot open %s", path);
        if (flock(d->lock_fd, LOCK_EX | LOCK_NB) < 0) {
                if (errno == EWOULDBLOCK)
                        return error_setf(error, GRPC_FAILED_PRECONDITION, "Another rktlet runs on %s already; stop "
                                          "it first, or give this one a RunDirectory= and StateDirectory= of its own",
                                          d->config.run_directory);
                return error_set(error, -errno, "Cannot lock %s", path);
        }
        return 0;
}

/* --- ending ----------------------------------------------------------------------------------------------------- */

static void end_fiber(Fiber *f) {
        if (!f)
                return;
        fiber_cancel(f);
        (void) fiber_join(f, NULL);
}

static int sync_fiber(void *userdata) {
        return image_store_sync(((Daemon *) userdata)->images, NULL);
}

/* The machine may be about to be switched off: then an image pulled just now would have to be fetched again. A disk that
 * is slow doesn't keep us for long. */
static void sync_images(Daemon *d) {
        _cleanup_(fiber_unrefp) Fiber *f = NULL;
        int r = 0;

        if (!d->images || fiber_spawn(d->event, "sync-images", sync_fiber, d, NULL, &f) < 0)
                return;
        (void) fiber_set_deadline(f, now_usec(CLOCK_MONOTONIC) + SYNC_USEC);
        if (fiber_join(f, &r) < 0 || r < 0)
                log_notice("Images pulled just now are not yet safe on disk");
}

/* When the machine goes down, systemd stops containers and us at the same time: how they end is still written down. */
static void see_containers_end(Daemon *d) {
        uint64_t until = now_usec(CLOCK_MONOTONIC) + MIN(d->config.unit_stop_timeout_usec + USEC_PER_SEC, SHUTDOWN_USEC);
        bool stopping = false;
        Container *c, *next;

        if (!d->manager || !d->manager->loaded || systemd_is_stopping(d->systemd, &stopping, NULL) < 0 || !stopping)
                return;
        (void) sd_notify(false, "STATUS=The machine goes down: waiting for the end of containers");
        HASH_ITER(hh, d->manager->containers, c, next) {
                _cleanup_(container_unrefp) Container *held = container_ref(c);

                while (held->phase == CONTAINER_RUNNING && !held->removed)
                        if (fiber_queue_wait_until(&held->exited, until) < 0)
                                return;
        }
}

static int stop_fiber(void *userdata) {
        Daemon *d = userdata;
        uint64_t until;

        (void) sd_notify(false, "STOPPING=1\nSTATUS=Finishing calls under way");
        if (d->server) {
                grpc_server_drain(d->server);
                cri_end_streams(d->cri);
                if (grpc_server_drain_wait(d->server, DRAIN_USEC) < 0)
                        log_notice("Some calls did not end within %u s and were cancelled",
                                   (unsigned) (DRAIN_USEC / USEC_PER_SEC));
        }
        if (d->streams && stream_server_stop(d->streams, STREAMS_USEC) < 0)
                log_notice("Some streams are still open");
        if (d->bus)
                bus_drain_wait(d->bus);
        see_containers_end(d);
        sync_images(d);
        end_fiber(d->loader);
        end_fiber(d->waiter);
        /* What was cancelled takes back what it began. */
        until = now_usec(CLOCK_MONOTONIC) + UNDO_USEC;
        while (fiber_count() > 1 && now_usec(CLOCK_MONOTONIC) < until)
                (void) fiber_sleep(10 * USEC_PER_MSEC);
        return sd_event_exit(d->event, 0);
}

static void begin_to_stop(Daemon *d) {
        if (d->stopping) {
                (void) sd_event_exit(d->event, 0);
                return;
        }
        d->stopping = true;
        if (fiber_spawn(d->event, "stop", stop_fiber, d, NULL, NULL) < 0)
                (void) sd_event_exit(d->event, EXIT_FAILURE);
}

/* --- signals ---------------------------------------------------------------------------------------------------- */

static int on_stop_signal(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata) {
        Daemon *d = userdata;

        log_info("Got SIG%s, %s", sigabbrev_np((int) si->ssi_signo),
                 d->stopping ? "ending at once" : "ending when the calls under way are done");
        begin_to_stop(d);
        return 0;
}

static void reload(Daemon *d);

static int on_hangup(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata) {
        Daemon *d = userdata;

        /* While it starts READY=1 would say too much. */
        if (d->status)
                (void) sd_notifyf(false, "RELOADING=1\nMONOTONIC_USEC=%llu\nSTATUS=Reading the configuration again",
                                  (unsigned long long) now_usec(CLOCK_MONOTONIC));
        reload(d);
        if (d->status)
                (void) sd_notifyf(false, "READY=1\nSTATUS=%s", d->status);
        return 0;
}

static int add_signals(Daemon *d, Error *error) {
        static const struct {
                int signo;
                sd_event_signal_handler_t handler;
        } signals[] = {
                { SIGTERM, on_stop_signal },
                { SIGINT, on_stop_signal },
                { SIGHUP, on_hangup },
        };
        sigset_t set;

        (void) signal(SIGPIPE, SIG_IGN);
        sigemptyset(&set);
        for (size_t i = 0; i < ELEMENTSOF(signals); i++)
                sigaddset(&set, signals[i].signo);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return error_set(error, -errno, "Cannot block signals");
        for (size_t i = 0; i < ELEMENTSOF(signals); i++) {
                int r;

                r = sd_event_add_signal(d->event, NULL, signals[i].signo, signals[i].handler, d);
                if (r < 0)
                        return error_set(error, r, "Cannot wait for signals");
        }
        return 0;
}

/* --- beginning -------------------------------------------------------------------------------------------------- */

static int listen_all(Daemon *d, Error *error) {
        bool own = true;
        int n, r;

        n = sd_listen_fds(/* unset_environment= */ true);
        if (n < 0)
                return error_set(error, n, "Cannot take over systemd's sockets");
        for (int fd = SD_LISTEN_FDS_START; fd < SD_LISTEN_FDS_START + n; fd++) {
                if (sd_is_socket_unix(fd, SOCK_STREAM, /* listening= */ 1, NULL, 0) <= 0)
                        return error_setf(error, GRPC_INVALID_ARGUMENT, "systemd passed a socket that is no listening "
                                          "AF_UNIX stream socket; look at ListenStream= of rktlet.socket");
                if (sd_is_socket_unix(fd, SOCK_STREAM, /* listening= */ 1, d->config.socket, 0) > 0)
                        own = false;
                r = fd_set_nonblock(fd, true);
                if (r < 0)
                        return error_set(error, r, "Cannot set up the socket from systemd");
                r = grpc_server_listen(d->server, fd, error);
                if (r < 0)
                        return r;
        }
        return own ? grpc_server_listen_unix(d->server, d->config.socket, error) : 0;
}

static int start_streams(Daemon *d, Error *error) {
        const Config *c = &d->config;
        const StreamTlsConfig tls = {
                .certificate = c->stream_certificate_file,
                .key = c->stream_key_file,
                .client_ca = isempty(c->stream_trusted_certificate_file) ? NULL : c->stream_trusted_certificate_file,
        };

        if (isempty(tls.certificate) != isempty(tls.key) || (tls.client_ca && isempty(tls.certificate)))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "StreamCertificateFile= and StreamKeyFile= go together, "
                                  "and StreamTrustedCertificateFile= needs both");
        return stream_server_new(d->event, c->stream_address, (uint16_t) c->stream_port,
                                 isempty(tls.certificate) ? NULL : &tls, &d->streams, error);
}

/* The verbose Status has them. */
static int show_settings(Daemon *d) {
        _cleanup_free_ char *text = NULL;
        size_t size;
        FILE *f = open_memstream(&text, &size);
        int r;

        if (!f)
                return -ENOMEM;
        r = config_dump(&d->config, f);
        if (fclose(f) != 0 || r < 0)
                return -ENOMEM;
        return cri_set_settings(d->cri, text);
}

static ImageStoreConfig image_config(const Config *c, const char *unpack_path) {
        return (ImageStoreConfig) {
                .directory = c->image_directory,
                .registries_directory = c->registries_directory,
                .verifiers_directory = c->verifiers_directory,
                .unpack_path = unpack_path,
                .pinned = c->pinned_images,
                .max_parallel_layers = (unsigned) c->parallel_layers,
                .progress_timeout_usec = c->image_progress_timeout_usec,
        };
}

static CniConfig cni_config(const Config *c, const char *cache_directory) {
        return (CniConfig) {
                .conf_directories = c->cni_conf_directories,
                .bin_directories = c->cni_bin_directories,
                .cache_directory = cache_directory,
                .timeout_usec = c->cni_timeout_usec,
                .template = c->cni_template,
        };
}

/* *ret_runtimes is what it borrows, owned by the caller. */
static int engine_config(const Config *c, NativeRuntime **ret_runtimes, NativeEngineConfig *ret) {
        NativeRuntime *runtimes = calloc(c->runtimes.n + 1, sizeof *runtimes);

        if (!runtimes)
                return -ENOMEM;
        for (size_t i = 0; i < c->runtimes.n; i++)
                runtimes[i] = (NativeRuntime) {
                        .name = c->runtimes.list[i].name,
                        .path = c->runtimes.list[i].path,
                        .type = c->runtimes.list[i].type == CONFIG_RUNTIME_CRUN ? NATIVE_RUNTIME_CRUN
                                                                                : NATIVE_RUNTIME_RUNC,
                };
        *ret = (NativeEngineConfig) {
                .crun_path = c->crun,
                .runtimes = runtimes,
                .n_runtimes = c->runtimes.n,
                .libexec_path = c->libexec_directory,
                .run_directory = c->run_directory,
                .max_container_log_line = (int) c->log_line_max,
                .unit_stop_timeout_usec = c->unit_stop_timeout_usec,
                .log_to_journal = c->log_to_journal,
                .journal_interval_usec = c->journal_interval_usec,
                .journal_burst = (uint32_t) c->journal_burst,
        };
        *ret_runtimes = runtimes;
        return 0;
}

static bool is_rkt(const Daemon *d) {
        return streq(d->config.engine, "rkt");
}

/* The engine brings its images with it. */
static int make_images(Daemon *d, const RktConfig *rkt, Error *error) {
        const Config *c = &d->config;
        _cleanup_free_ char *unpack = strprintf("%s/rktlet-unpack", c->libexec_directory);
        ImageStoreConfig images;

        if (!unpack)
                return error_oom(error);
        if (is_rkt(d))
                return rkt_image_store_new(rkt, c->pinned_images, &d->images, error);
        images = image_config(c, unpack);
        return image_store_open(d->event, &images, &d->images, error);
}

static int make_engine(Daemon *d, const RktConfig *rkt, Error *error) {
        EngineEvents events = manager_engine_events(d->manager);
        _cleanup_free_ NativeRuntime *runtimes = NULL;
        NativeEngineConfig native;

        if (is_rkt(d))
                return rkt_engine_new(d->event, d->systemd, rkt, &events, &d->engine, error);
        if (engine_config(&d->config, &runtimes, &native) < 0)
                return error_oom(error);
        return native_engine_new(d->event, d->systemd, &native, &events, &d->engine, error);
}

/* A node does without its metrics rather than without its runtime. */
static void start_monitor(Daemon *d) {
        _cleanup_error_ Error error = ERROR_INIT;
        const MonitorConfig config = {
                .socket = d->config.metrics_socket,
                .port = (uint16_t) d->config.metrics_port,
                .cri = d->cri,
                .server = d->server,
                .systemd = d->systemd,
                .manager = d->manager,
                .images = d->images,
                .turns = &d->turns,
        };

        if (monitor_new(d->event, &config, &d->monitor, &error) < 0)
                log_warning("%s, ignoring", strempty(error.message));
}

static int make_parts(Daemon *d, Error *error) {
        const Config *c = &d->config;
        _cleanup_free_ char *cni_cache = strprintf("%s/cni", c->state_directory),
                            *insecure = strv_join(c->rkt_insecure_options, ",");
        const RktConfig rkt = {
                .path = c->rkt_path,
                .directory = c->rkt_directory,
                .stage1_name = c->rkt_stage1_name,
                .insecure_options = insecure,
                .network_directory = c->rkt_network_directory,
                .run_directory = c->run_directory,
                .libexec_path = c->libexec_directory,
                .timeout_usec = c->rkt_timeout_usec,
                .ready_timeout_usec = c->rkt_ready_timeout_usec,
                .fetch_timeout_usec = c->rkt_fetch_timeout_usec,
                .log_line_max = c->log_line_max,
        };
        CniConfig cni;
        int r;

        if (!cni_cache || !insecure)
                return error_oom(error);
        r = systemd_new(d->event, &d->systemd);
        if (r < 0)
                return error_set(error, r, "Cannot set up the connection to systemd");
        r = mkdir_parents(AT_FDCWD, c->state_directory, 0700);
        if (r < 0)
                return error_set(error, r, "Cannot make %s", c->state_directory);
        /* Before anything in it is touched. */
        r = state_open(c->state_directory, error);
        if (r < 0)
                return r;
        r = make_images(d, &rkt, error);
        if (r < 0)
                return r;
        cni = cni_config(c, cni_cache);
        r = cni_new(d->event, &cni, &d->cni);
        if (r < 0)
                return error_set(error, r, "Cannot set up pod networks");
        r = manager_new(d->event,
                        &(ManagerConfig) {
                                .state_directory = c->state_directory,
                                .run_directory = c->run_directory,
                                .default_slice = c->default_slice,
                                .stop_timeout_usec = c->stop_timeout_usec,
                        },
                        d->systemd, d->images, d->cni, &d->manager, error);
        if (r < 0)
                return r;
        r = make_engine(d, &rkt, error);
        if (r < 0)
                return r;
        manager_set_engine(d->manager, d->engine);
        r = cri_new(d->manager, &d->cri);
        if (r < 0)
                return error_set(error, r, "Cannot set up the Container Runtime Interface");
        r = start_streams(d, error);
        if (r < 0)
                return r;
        cri_set_streams(d->cri, d->streams);
        r = show_settings(d);
        if (r < 0)
                return error_set(error, r, "Cannot set up the Container Runtime Interface");
        r = grpc_server_new(d->event, cri_methods(), d->cri, &d->server);
        if (r < 0)
                return error_set(error, r, "Cannot set up the gRPC server");
        r = bus_new(d->event, d->manager, NULL, &d->bus);
        if (r < 0)
                return error_set(error, r, "Cannot set up the D-Bus interface");
        bus_set_register_machines(d->bus, c->register_machines);
        start_monitor(d);
        return 0;
}

/* --- reloading -------------------------------------------------------------------------------------------------- */

/* Hands the parts what can change while they work. */
static int apply_config(Daemon *d, Error *error) {
        const Config *c = &d->config;
        _cleanup_free_ NativeRuntime *runtimes = NULL;
        NativeEngineConfig engine;
        ImageStoreConfig images = image_config(c, NULL);
        CniConfig cni = cni_config(c, NULL);
        int r;

        (void) log_set_max_level(c->log_level);
        manager_set_stop_timeout(d->manager, c->stop_timeout_usec);
        r = image_store_configure(d->images, &images);
        if (r >= 0)
                r = cni_configure(d->cni, &cni);
        if (r >= 0)
                r = engine_config(c, &runtimes, &engine);
        if (r < 0)
                return error_oom(error);
        r = is_rkt(d) ? 0 : native_engine_configure(d->engine, &engine, error);
        if (r < 0)
                return r;
        r = show_settings(d);
        return r < 0 ? error_oom(error) : 0;
}

/* What cannot be read changes nothing. Settings that are built into the parts wait for a restart, which stops no
 * container. (Registries' own files are read at each pull, networks' whenever they have changed.) */
static void reload(Daemon *d) {
        _cleanup_strv_free_ char **taken = NULL, **left = NULL;
        _cleanup_free_ char *taken_text = NULL, *left_text = NULL;
        _cleanup_error_ Error error = ERROR_INIT;
        _cleanup_config_ Config c = {};
        int r;

        r = read_config(d, &c, &error);
        if (r >= 0)
                r = config_take_live(&d->config, &c, &taken, &left);
        if (r >= 0 && d->bus)
                r = apply_config(d, &error);
        if (r < 0) {
                log_error("The configuration was not taken over: %s",
                          error_is_set(&error) ? strempty(error.message) : strerror(-r));
                return;
        }
        taken_text = strv_join(taken, " ");
        left_text = strv_join(left, " ");
        log_notice("Configuration read again: %s", taken ? strempty(taken_text) : "nothing has changed that can be taken over");
        if (left)
                log_notice("Changed as well, but not taken over before rktlet is restarted (which stops no container): %s",
                           strempty(left_text));
}

static int load_fiber(void *userdata) {
        _cleanup_error_ Error error = ERROR_INIT;
        Daemon *d = userdata;
        int r;

        /* Even where there is nothing to load: the first pod shall not have to wait, and what is wrong be seen
         * early. */
        r = systemd_connect(d->systemd, &error);
        if (r < 0 && !d->stopping)
                log_warning("%s", strempty(error.message));
        error_clear(&error);
        /* What they undo or finish now need not be cleaned up, and would be missed if it were looked for too early. */
        r = leftover_wait(LEFTOVER_USEC);
        if (r >= 0)
                r = manager_load(d->manager, &error);
        if (r >= 0 || d->stopping)
                return 0;
        log_error("Cannot take over the pods and containers there are: %s", strempty(error.message));
        return sd_event_exit(d->event, EXIT_FAILURE);
}

static int wait_fiber(void *userdata) {
        Daemon *d = userdata;
        unsigned pods, containers;

        if (manager_wait_loaded(d->manager, NULL) < 0 || d->stopping)
                return 0;
        pods = HASH_COUNT(d->manager->pods);
        containers = HASH_COUNT(d->manager->containers);
        bus_set_loaded(d->bus);
        log_struct(LOG_INFO, ((const char *const[]) { MESSAGE_READY, NULL }), "Serving on %s: systemd %s, %u pods and %u containers found", d->config.socket,
                 strempty(systemd_version(d->systemd)), pods, containers);
        d->status = strprintf("Serving on %s; %u pods and %u containers were there at the start", d->config.socket, pods,
                              containers);
        (void) sd_notifyf(false, "READY=1\nSTATUS=%s", strempty(d->status));
        (void) malloc_trim(0);
        return 0;
}

/* The socket is served first: Version answers at once, and whoever asks for more waits for the loading to end. */
static int begin(Daemon *d, Error *error) {
        int r;

        r = sd_event_default(&d->event);
        if (r < 0)
                return error_set(error, r, "Cannot make an event loop");
        r = add_signals(d, error);
        if (r < 0)
                return r;
        r = sd_event_set_watchdog(d->event, true);
        if (r < 0)
                log_warning_errno(r, "Cannot answer systemd's watchdog, ignoring");
        r = lock_directory(d, error);
        if (r < 0)
                return r;
        raise_nofile();
        r = own_mounts(error);
        if (r < 0)
                return r;
        r = make_parts(d, error);
        if (r < 0)
                return r;
        r = listen_all(d, error);
        if (r < 0)
                return r;
        (void) sd_notify(false, "STATUS=Looking for pods and containers");
        r = fiber_spawn(d->event, "wait-loaded", wait_fiber, d, NULL, &d->waiter);
        if (r < 0)
                return error_set(error, r, "Cannot start");
        r = fiber_spawn(d->event, "load", load_fiber, d, NULL, &d->loader);
        return r < 0 ? error_set(error, r, "Cannot start") : 0;
}

/* As "systemctl cat" does: which files it is made of, then what comes of them. */
static int dump_config(const Config *c) {
        STRV_FOREACH(f, c->files)
                printf("# %s\n", *f);
        return config_dump(c, stdout) < 0 || fflush(stdout) != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int run(int argc, char *argv[]) {
        _cleanup_(daemon_done) Daemon d = { .lock_fd = -1 };
        _cleanup_error_ Error error = ERROR_INIT;
        int r;

        r = options_parse(argc, argv, &d.options);
        if (r != 0)
                return r > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
        r = read_config(&d, &d.config, &error);
        if (r < 0) {
                log_error("%s", strempty(error.message));
                return EXIT_FAILURE;
        }
        if (d.options.action == ACTION_DUMP_CONFIG)
                return dump_config(&d.config);
        (void) log_set_max_level(d.config.log_level);
        if (d.options.action != ACTION_SERVE)
                return checker_run(&d.config, d.options.action == ACTION_REPAIR);
        kill_points_begin();

        r = begin(&d, &error);
        if (r < 0) {
                log_error("Cannot start: %s", error_is_set(&error) ? strempty(error.message) : strerror(-r));
                (void) sd_notifyf(false, "STATUS=%s\nERRNO=%d", strempty(error.message), -r);
                /* What another attempt cannot change; rktlet.service makes none then. */
                return r == -EPROTONOSUPPORT ? EX_CONFIG : EXIT_FAILURE;
        }
        r = monitor_loop(d.event, &d.turns);
        if (r < 0)
                log_error_errno(r, "The event loop failed");
        return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char *argv[]) {
        tune_malloc();
        return run(argc, argv);
}
