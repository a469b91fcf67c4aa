/* Not installed: the image store from the command line, for tests and measurements.
 *
 *   image-tool [OPTION=VALUE…] STORE COMMAND [ARGUMENT…]
 *
 *   pull REF…      all at once; prints each image
 *   list           all images
 *   find REF       one image, or fails
 *   remove REF…    one after the other
 *   hold NAME REF REMOVE…   holds an image's layers, removes the images, prints what is left, releases
 *   collect, info
 *   check [LAYER…], repair [LAYER…]   without opening it; the layers are those that containers have
 *
 * Options: --unpack=PATH --registries=DIRECTORY --user=NAME:PASSWORD --server=ADDRESS --identity-token=T
 * --registry-token=T --timeout=SECONDS --parallel=N --cancel-after=MILLISECONDS --pinned=GLOB --linger=MILLISECONDS
 * --debug */

#include <getopt.h>
#include <signal.h>

#include "basic/fiber.h"
#include "basic/log.h"
#include "basic/string-util.h"
#include "image/image.h"

static struct {
        char *unpack, *registries, *user, *password, *server, *identity, *registry_token;
        char **pinned;
        uint64_t timeout, parallel, cancel_after, linger;
} options;

typedef struct Context {
        ImageStore *store;
        char **args;
} Context;

static void print_list(const char *key, char *const *l) {
        printf(" %s=", key);
        for (size_t i = 0; l && l[i]; i++)
                printf("%s%s", i ? "," : "", l[i]);
}

static void print_image(const Image *i) {
        printf("%s", i->id);
        print_list("tags", i->repo_tags);
        print_list("digests", i->repo_digests);
        print_list("layers", i->layers);
        printf(" size=%llu manifest=%s user=%s pinned=%d\n", (unsigned long long) i->size, i->manifest_digest,
               strempty(i->config.user), i->pinned);
}

static int failed(int r, const Error *e) {
        printf("error %d %s: %s\n", r, grpc_code_to_string(e->code), strempty(e->message));
        return r;
}

typedef struct PullOne {
        ImageStore *store;
        const char *reference;
        Fiber *fiber;
} PullOne;

static int pull_one(void *userdata) {
        PullOne *p = userdata;
        _cleanup_(image_unrefp) Image *image = NULL;
        _cleanup_error_ Error error = ERROR_INIT;
        ImageAuth auth = {
                        .username = options.user,
                        .password = options.password,
                        .server_address = options.server,
                        .identity_token = options.identity,
                        .registry_token = options.registry_token,
        };
        int r;

        r = image_store_pull(p->store, p->reference, &auth, &image, &error);
        if (r < 0)
                return failed(r, &error);
        print_image(image);
        return 0;
}

static int command_pull(Context *c) {
        size_t n = strv_length(c->args);
        PullOne *pulls = calloc(n + 1, sizeof *pulls);
        int r = 0;

        if (!pulls)
                return -ENOMEM;
        for (size_t i = 0; i < n && r >= 0; i++) {
                pulls[i] = (PullOne){.store = c->store, .reference = c->args[i]};
                r = fiber_spawn(fiber_event(fiber_current()), "pull", pull_one, &pulls[i], NULL, &pulls[i].fiber);
        }
        if (options.cancel_after) {
                (void) fiber_sleep(options.cancel_after * USEC_PER_MSEC);
                for (size_t i = 0; i < n; i++)
                        fiber_cancel(pulls[i].fiber);
        }
        for (size_t i = 0; i < n; i++) {
                int k = 0;

                (void) fiber_join(pulls[i].fiber, &k);
                fiber_unref(pulls[i].fiber);
                if (r >= 0)
                        r = k;
        }
        free(pulls);
        return r;
}

static int command_list(Context *c) {
        _cleanup_free_ Image **l = image_store_list(c->store);

        for (size_t i = 0; l && l[i]; i++)
                print_image(l[i]);
        return l ? 0 : -ENOMEM;
}

static int command_find(Context *c) {
        const Image *i = image_store_find(c->store, c->args[0]);

        if (!i)
                return -ENOENT;
        print_image(i);
        return 0;
}

static int command_remove(Context *c) {
        _cleanup_error_ Error error = ERROR_INIT;

        STRV_FOREACH(a, c->args) {
                int r = image_store_remove(c->store, *a, &error);

                if (r < 0)
                        return failed(r, &error);
        }
        return 0;
}

static int command_collect(Context *c) {
        _cleanup_error_ Error error = ERROR_INIT;
        int r = image_store_collect(c->store, &error);

        return r < 0 ? failed(r, &error) : 0;
}

static int command_info(Context *c) {
        ImageFsInfo info;
        int r;

        r = image_store_fs_info(c->store, &info, NULL);
        if (r < 0)
                return r;
        printf("%s bytes=%llu inodes=%llu\n", info.mountpoint, (unsigned long long) info.used_bytes,
               (unsigned long long) info.inodes_used);
        image_fs_info_done(&info);
        return 0;
}

static int command_hold(Context *c) {
        const Image *i = image_store_find(c->store, c->args[1]);
        Context rest = {.store = c->store, .args = c->args + 2};
        int r;

        if (!i)
                return -ENOENT;
        r = image_store_hold(c->store, c->args[0], i->layers);
        if (r < 0)
                return r;
        r = command_remove(&rest);
        if (r >= 0)
                r = command_info(c);
        fflush(stdout);
        (void) system("ls \"$STORE\"/layers | tr '\\n' ' '; echo");
        image_store_release(c->store, c->args[0]);
        if (r >= 0)
                r = command_collect(c);
        return r;
}

static int run(void *userdata) {
        static const struct {
                const char *name;
                int (*func)(Context *c);
                size_t min_args;
        } commands[] = {
                        {"pull", command_pull, 1},     {"list", command_list, 0},       {"find", command_find, 1},
                        {"remove", command_remove, 1}, {"collect", command_collect, 0}, {"info", command_info, 0},
                        {"hold", command_hold, 2},
        };
        Context *c = userdata;
        const char *name = c->args[0];

        c->args++;
        for (size_t i = 0; i < ELEMENTSOF(commands); i++)
                if (streq(name, commands[i].name) && strv_length(c->args) >= commands[i].min_args) {
                        int r = commands[i].func(c);

                        if (options.linger)
                                (void) fiber_sleep(options.linger * USEC_PER_MSEC);
                        return r;
                }
        return -EINVAL;
}

static int check(const char *directory, char **held, bool repair) {
        Check c = {.repair = repair, .out = stdout};
        _cleanup_error_ Error error = ERROR_INIT;

        if (image_store_check(directory, held, /* sure= */ true, &c, &error) < 0) {
                printf("error: %s\n", strempty(error.message));
                return CHECK_FAILED;
        }
        return check_exit_status(&c);
}

int main(int argc, char **argv) {
        static const struct option longs[] = {
                        {"unpack", required_argument, NULL, 'u'},
                        {"registries", required_argument, NULL, 'r'},
                        {"user", required_argument, NULL, 'U'},
                        {"server", required_argument, NULL, 's'},
                        {"identity-token", required_argument, NULL, 'i'},
                        {"registry-token", required_argument, NULL, 't'},
                        {"timeout", required_argument, NULL, 'T'},
                        {"parallel", required_argument, NULL, 'p'},
                        {"cancel-after", required_argument, NULL, 'c'},
                        {"pinned", required_argument, NULL, 'P'},
                        {"linger", required_argument, NULL, 'l'},
                        {"debug", no_argument, NULL, 'd'},
                        {},
        };
        _cleanup_error_ Error error = ERROR_INIT;
        ImageStoreConfig config = {};
        sd_event *event = NULL;
        Context c = {};
        int o, r;

        while ((o = getopt_long(argc, argv, "+", longs, NULL)) >= 0)
                switch (o) {
                case 'u':
                        options.unpack = optarg;
                        break;
                case 'r':
                        options.registries = optarg;
                        break;
                case 'U':
                        options.user = strsep(&optarg, ":");
                        options.password = optarg;
                        break;
                case 's':
                        options.server = optarg;
                        break;
                case 'i':
                        options.identity = optarg;
                        break;
                case 't':
                        options.registry_token = optarg;
                        break;
                case 'T':
                        (void) parse_u64(optarg, &options.timeout);
                        break;
                case 'p':
                        (void) parse_u64(optarg, &options.parallel);
                        break;
                case 'c':
                        (void) parse_u64(optarg, &options.cancel_after);
                        break;
                case 'l':
                        (void) parse_u64(optarg, &options.linger);
                        break;
                case 'P':
                        (void) strv_extend(&options.pinned, optarg);
                        break;
                case 'd':
                        (void) log_set_max_level(LOG_DEBUG);
                        break;
                default:
                        return EXIT_FAILURE;
                }
        if (argc - optind < 2) {
                fprintf(stderr, "usage: image-tool [OPTION…] STORE COMMAND [ARGUMENT…]\n");
                return EXIT_FAILURE;
        }
        if (streq(argv[optind + 1], "check") || streq(argv[optind + 1], "repair"))
                return check(argv[optind], argv + optind + 2, streq(argv[optind + 1], "repair"));
        config = (ImageStoreConfig){
                        .directory = argv[optind],
                        .registries_directory = options.registries,
                        .unpack_path = options.unpack ? options.unpack : RKTLET_LIBEXECDIR "/rktlet-unpack",
                        .pinned = options.pinned,
                        .max_parallel_layers = (unsigned) options.parallel,
                        .progress_timeout_usec = options.timeout * USEC_PER_SEC,
        };
        (void) setenv("STORE", argv[optind], 1);
        r = sd_event_new(&event);
        if (r < 0)
                return EXIT_FAILURE;
        r = image_store_open(event, &config, &c.store, &error);
        if (r < 0) {
                (void) failed(r, &error);
                sd_event_unref(event);
                strv_free(options.pinned);
                return EXIT_FAILURE;
        }
        c.args = argv + optind + 1;
        r = fiber_run(event, run, &c);
        image_store_free(c.store);
        /* What still goes on behind. */
        while (fiber_count() > 0 && sd_event_run(event, 1000000) >= 0)
                ;
        sd_event_unref(event);
        strv_free(options.pinned);
        if (r < 0)
                fprintf(stderr, "image-tool: %s\n", strerror(-r));
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
