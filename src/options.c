#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "basic/kill-point.h"

static void help(void) {
        printf("rktlet [OPTIONS...]\n\n"
               "Serves the Kubernetes Container Runtime Interface: pods and containers as systemd units.\n\n"
               "  -h --help               Show this help\n"
               "     --version            Show the version\n"
               "  -c --config=FILE        Read FILE and FILE.d/*.conf instead of rktlet.conf\n"
               "     --dump-config        Show the configuration in force, and end\n"
               "     --check              Look for damage in what is kept on disk, and end\n"
               "     --repair             Mend it as well; rktlet must not run\n"
               "     --socket=PATH        Listen there, whatever the configuration says\n"
               "     --log-level=LEVEL    err, warning, notice, info, debug\n\n"
               "See rktlet(8) and rktlet.conf(5).\n");
}

int options_parse(int argc, char *argv[], Options *ret) {
        enum {
                OPTION_VERSION = 256,
                OPTION_DUMP_CONFIG,
                OPTION_CHECK,
                OPTION_REPAIR,
                OPTION_SOCKET,
                OPTION_LOG_LEVEL,
#if KILL_POINTS
                OPTION_LIST_KILL_POINTS,
#endif
        };
        static const struct option options[] = {
                { "help", no_argument, NULL, 'h' },
                { "version", no_argument, NULL, OPTION_VERSION },
                { "config", required_argument, NULL, 'c' },
                { "dump-config", no_argument, NULL, OPTION_DUMP_CONFIG },
                { "check", no_argument, NULL, OPTION_CHECK },
                { "repair", no_argument, NULL, OPTION_REPAIR },
                { "socket", required_argument, NULL, OPTION_SOCKET },
                { "log-level", required_argument, NULL, OPTION_LOG_LEVEL },
#if KILL_POINTS
                { "list-kill-points", no_argument, NULL, OPTION_LIST_KILL_POINTS },
#endif
                {},
        };
        Options o = {};
        int c;

        while ((c = getopt_long(argc, argv, "hc:", options, NULL)) >= 0)
                switch (c) {
                case 'h':
                        help();
                        return 1;
                case OPTION_VERSION:
                        printf("rktlet %s\n", PROJECT_VERSION);
                        return 1;
                case 'c':
                        o.config_path = optarg;
                        break;
                case OPTION_DUMP_CONFIG:
                        o.action = ACTION_DUMP_CONFIG;
                        break;
                case OPTION_CHECK:
                        o.action = ACTION_CHECK;
                        break;
                case OPTION_REPAIR:
                        o.action = ACTION_REPAIR;
                        break;
                case OPTION_SOCKET:
                        if (optarg[0] != '/' || strlen(optarg) >= 108) {
                                fprintf(stderr, "--socket= wants an absolute path of less than 108 bytes\n");
                                return -EINVAL;
                        }
                        o.socket = optarg;
                        break;
                case OPTION_LOG_LEVEL:
                        o.log_level = optarg;
                        break;
#if KILL_POINTS
                case OPTION_LIST_KILL_POINTS:
                        kill_points_list(stdout);
                        return 1;
#endif
                default:
                        return -EINVAL;
                }
        if (optind < argc) {
                fprintf(stderr, "rktlet takes no arguments, only options; see --help\n");
                return -EINVAL;
        }
        *ret = o;
        return 0;
}
