/* rktletctl: looks at the pods, containers and images of this node, and handles them, over org.rktlet1 on the system
 * bus. */

#include <getopt.h>

#include "rktletctl/ctl.h"
#include "rktletctl/table.h"

Arguments arg = { .lines = UINT64_MAX, .iterations = UINT64_MAX };

#define MANY SIZE_MAX
static const struct {
        const char *name;
        size_t min, max; /* arguments */
        bool raw;        /* what follows the first argument is not ours, options included */
        int (*func)(sd_bus *bus, char **args);
} commands[] = {
        { "list-pods", 0, 0, false, list_pods },
        { "list-containers", 0, 0, false, list_containers },
        { "list-images", 0, 0, false, list_images },
        { "status", 0, MANY, false, show_status },
        { "show", 0, MANY, false, show_properties },
        { "cat", 1, MANY, false, show_files },
        { "logs", 1, 1, false, show_logs },
        { "top", 0, 0, false, watch_usage },
        { "events", 0, 0, false, watch_events },
        { "dump", 0, 0, false, dump_state },
        { "exec", 1, MANY, true, exec_command },
        { "shell", 1, MANY, true, exec_shell },
        { "run", 1, MANY, true, run_image },
        { "pull", 1, 1, false, pull_image },
        { "stop", 1, MANY, false, stop_objects },
        { "kill", 1, MANY, false, kill_objects },
        { "remove", 1, MANY, false, remove_objects },
        { "prune", 0, 3, false, prune_objects },
};

static void help(void) {
        printf("rktletctl [OPTIONS...] COMMAND ...\n\n"
               "Looks at the pods, containers and images of this node, and handles them.\n\n"
               "Looking:\n"
               "  list-pods               List pods (the default)\n"
               "  list-containers         List containers\n"
               "  list-images             List images\n"
               "  status [NAME...]        Show what rktlet, or a pod, container or image is doing\n"
               "  show [NAME...]          Show all properties\n"
               "  cat NAME...             Show the unit and the OCI configuration\n"
               "  logs NAME               Show what a container wrote\n"
               "  top                     Show what containers use\n"
               "  events                  Show what happens\n"
               "  dump                    Show what the daemon knows, for a bug report\n\n"
               "Handling:\n"
               "  exec NAME COMMAND...    Execute a command in a container\n"
               "  shell NAME [COMMAND...] The same with a terminal; without a command its shell\n"
               "  run IMAGE [ARGUMENT...] Run a container of an image, and remove it in the end\n"
               "  pull IMAGE              Pull an image\n"
               "  stop NAME...            Stop pods or containers\n"
               "  kill NAME...            Send a signal to pods or containers\n"
               "  remove NAME...          Remove pods, containers or images\n"
               "  prune [KIND...]         Remove what nobody uses: containers, pods, images\n\n"
               "Options:\n"
               "  -h --help               Show this help\n"
               "     --version            Show the version\n"
               "     --json=MODE          Write JSON: pretty, short, off\n"
               "  -j                      The same as --json=pretty on a terminal, else --json=short\n"
               "  -l --full               Do not shorten IDs and units\n"
               "     --no-legend          Leave out headers and sums\n"
               "     --no-pager           Do not use a pager\n"
               "  -n --lines=N            Show so many lines of the log\n"
               "  -f --follow             Go on as the log grows\n"
               "     --timestamps         Show when a line was written\n"
               "     --timeout=TIME       Grace before SIGKILL for stop (default: 10s)\n"
               "  -s --signal=SIGNAL      What kill sends (default: TERM)\n"
               "     --kill-whom=WHOM     To whom: main, all (default: main)\n"
               "  -t --tty                Give exec or run a terminal\n"
               "  -i --interactive        Give exec or run our standard input\n"
               "     --name=NAME          Name of run's pod\n"
               "  -e --setenv=NAME=VALUE  Environment of run's container\n"
               "     --working-directory=PATH  Working directory of run's container\n"
               "     --host-network       Let run use the host's network\n"
               "     --privileged         Let run's container do everything\n"
               "  -d --detach             Let run return at once, and leave the pod\n"
               "     --keep               Let run leave the pod in the end\n"
               "     --username=USER      User at the registry; the password is asked for\n"
               "     --delay=TIME         Time between two readings of top (default: 1s)\n"
               "     --iterations=N       End after so many readings, or events\n\n"
               "NAME is an ID or its beginning, a unit, or NAMESPACE/POD[/CONTAINER]. See rktletctl(1).\n");
}

static int parse_json(const char *s) {
        if (streq(s, "pretty"))
                arg.json = JSON_PRETTY;
        else if (streq(s, "short"))
                arg.json = JSON_SHORT;
        else if (streq(s, "off"))
                arg.json = JSON_OFF;
        else {
                fprintf(stderr, "--json=%s: pretty, short and off are the modes there are\n", s);
                return -EINVAL;
        }
        return 0;
}

static int parse_number(const char *option, const char *s, uint64_t *ret) {
        if (parse_u64(s, ret) >= 0 && *ret < UINT64_MAX)
                return 0;
        fprintf(stderr, "%s=%s is no number\n", option, s);
        return -EINVAL;
}

/* Options up to the command, or those that follow it: 1 to go on, 0 when all is done. */
static int parse_options(int argc, char *argv[], bool permute) {
        enum {
                OPTION_VERSION = 256,
                OPTION_JSON,
                OPTION_NO_LEGEND,
                OPTION_NO_PAGER,
                OPTION_TIMESTAMPS,
                OPTION_TIMEOUT,
                OPTION_WHOM,
                OPTION_NAME,
                OPTION_DIRECTORY,
                OPTION_HOST_NETWORK,
                OPTION_PRIVILEGED,
                OPTION_KEEP,
                OPTION_USERNAME,
                OPTION_DELAY,
                OPTION_ITERATIONS,
        };
        static const struct option options[] = {
                { "help", no_argument, NULL, 'h' },
                { "version", no_argument, NULL, OPTION_VERSION },
                { "json", required_argument, NULL, OPTION_JSON },
                { "full", no_argument, NULL, 'l' },
                { "no-legend", no_argument, NULL, OPTION_NO_LEGEND },
                { "no-pager", no_argument, NULL, OPTION_NO_PAGER },
                { "lines", required_argument, NULL, 'n' },
                { "follow", no_argument, NULL, 'f' },
                { "timestamps", no_argument, NULL, OPTION_TIMESTAMPS },
                { "timeout", required_argument, NULL, OPTION_TIMEOUT },
                { "signal", required_argument, NULL, 's' },
                { "kill-whom", required_argument, NULL, OPTION_WHOM },
                { "tty", no_argument, NULL, 't' },
                { "interactive", no_argument, NULL, 'i' },
                { "name", required_argument, NULL, OPTION_NAME },
                { "setenv", required_argument, NULL, 'e' },
                { "working-directory", required_argument, NULL, OPTION_DIRECTORY },
                { "host-network", no_argument, NULL, OPTION_HOST_NETWORK },
                { "privileged", no_argument, NULL, OPTION_PRIVILEGED },
                { "detach", no_argument, NULL, 'd' },
                { "keep", no_argument, NULL, OPTION_KEEP },
                { "username", required_argument, NULL, OPTION_USERNAME },
                { "delay", required_argument, NULL, OPTION_DELAY },
                { "iterations", required_argument, NULL, OPTION_ITERATIONS },
                {},
        };
        int c, r = 0;

        optind = 0;
        while (r >= 0 &&
               (c = getopt_long(argc, argv, permute ? "hjln:fs:tie:d" : "+hjln:fs:tie:d", options, NULL)) >= 0)
                switch (c) {
                case 'h':
                        help();
                        return 0;
                case OPTION_VERSION:
                        printf("rktletctl %s\n", PROJECT_VERSION);
                        return 0;
                case OPTION_JSON:
                        r = parse_json(optarg);
                        break;
                case 'j':
                        arg.json = on_terminal() ? JSON_PRETTY : JSON_SHORT;
                        break;
                case 'l':
                        table_full = true;
                        break;
                case OPTION_NO_LEGEND:
                        table_legend = false;
                        break;
                case OPTION_NO_PAGER:
                        arg.no_pager = true;
                        break;
                case 'n':
                        r = parse_number("--lines", optarg, &arg.lines);
                        break;
                case 'f':
                        arg.follow = true;
                        break;
                case OPTION_TIMESTAMPS:
                        arg.timestamps = true;
                        break;
                case OPTION_TIMEOUT:
                        arg.timeout = optarg;
                        break;
                case 's':
                        arg.signal = optarg;
                        break;
                case OPTION_WHOM:
                        arg.whom = optarg;
                        break;
                case 't':
                        arg.tty = true;
                        break;
                case 'i':
                        arg.interactive = true;
                        break;
                case OPTION_NAME:
                        arg.name = optarg;
                        break;
                case 'e':
                        r = strv_extend(&arg.environment, optarg);
                        break;
                case OPTION_DIRECTORY:
                        arg.directory = optarg;
                        break;
                case OPTION_HOST_NETWORK:
                        arg.host_network = true;
                        break;
                case OPTION_PRIVILEGED:
                        arg.privileged = true;
                        break;
                case 'd':
                        arg.detach = true;
                        break;
                case OPTION_KEEP:
                        arg.keep = true;
                        break;
                case OPTION_USERNAME:
                        arg.user = optarg;
                        break;
                case OPTION_DELAY:
                        arg.delay = optarg;
                        break;
                case OPTION_ITERATIONS:
                        r = parse_number("--iterations", optarg, &arg.iterations);
                        break;
                default:
                        return -EINVAL;
                }
        return r < 0 ? r : 1;
}

static int run_command(size_t i, char **args) {
        _cleanup_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
        size_t n = strv_length(args);
        int r;

        if (n < commands[i].min || n > commands[i].max) {
                if (commands[i].max == 0)
                        fprintf(stderr, "%s takes no arguments\n", commands[i].name);
                else
                        fprintf(stderr, "%s wants %s; see 'rktletctl --help'\n", commands[i].name,
                                n < commands[i].min ? "at least one argument"
                                : commands[i].max == 1 ? "one argument" : "fewer arguments");
                return -EINVAL;
        }
        r = sd_bus_open_system(&bus);
        if (r < 0) {
                fprintf(stderr, "Cannot connect to the system bus: %s\n", strerror(-r));
                return r;
        }
        r = commands[i].func(bus, args);
        pager_close();
        if (r == -ENOMEM)
                fprintf(stderr, "Out of memory\n");
        return r;
}

int main(int argc, char *argv[]) {
        static char *no_arguments[] = { NULL };
        const char *command = "list-pods";
        char **args = no_arguments;
        int r, first;

        r = parse_options(argc, argv, /* permute= */ false);
        if (r <= 0)
                return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
        first = optind;
        if (first < argc)
                command = argv[first];
        for (size_t i = 0; i < ELEMENTSOF(commands); i++) {
                if (!streq(commands[i].name, command))
                        continue;
                if (first < argc) {
                        r = parse_options(argc - first, argv + first, /* permute= */ !commands[i].raw);
                        if (r <= 0)
                                return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
                        args = argv + first + optind;
                }
                r = run_command(i, args);
                strv_free(arg.environment);
                return r < 0 ? EXIT_FAILURE : r;
        }
        fprintf(stderr, "Unknown command \"%s\"; see 'rktletctl --help'\n", command);
        return EXIT_FAILURE;
}
