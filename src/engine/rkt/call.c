#include "engine/rkt/call.h"

#include "basic/log.h"
#include "basic/string-util.h"

#define WORDS_MAX 1000U /* bytes of rkt's words in an error */
/* How long rkt may go on when its caller has given up: a pod it works on under locks and in several steps. */
#define CANCEL_GRACE_USEC (10 * USEC_PER_SEC)

const char *const rkt_environment[] = {
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "RKT_EXPERIMENT_APP=true",
        "RKT_EXPERIMENT_ATTACH=true",
        NULL,
};

static int copy(const char *s, char **ret) {
        *ret = strdup(strempty(s));
        return *ret ? 0 : -ENOMEM;
}

int rkt_init(Rkt *rkt, const RktConfig *config, Error *error) {
        const char *slash = strrchr(config->network_directory, '/');

        *rkt = (Rkt) {
                .timeout_usec = config->timeout_usec,
                .ready_timeout_usec = config->ready_timeout_usec,
                .fetch_timeout_usec = config->fetch_timeout_usec,
                .log_line_max = config->log_line_max > 0 ? config->log_line_max : 16384,
        };
        if (!slash || !streq(slash, "/net.d"))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "RktNetworkDirectory=%s does not end in /net.d, where rkt "
                                  "looks for networks below its configuration", config->network_directory);
        if (copy(config->path, &rkt->path) < 0 || copy(config->directory, &rkt->directory) < 0 ||
            copy(config->stage1_name, &rkt->stage1_name) < 0 ||
            copy(config->insecure_options, &rkt->insecure_options) < 0 ||
            copy(config->network_directory, &rkt->network_directory) < 0 ||
            copy(config->run_directory, &rkt->run_directory) < 0)
                return error_oom(error);
        rkt->local_config = strndup(config->network_directory, (size_t) (slash - config->network_directory));
        return rkt->local_config ? 0 : error_oom(error);
}

void rkt_done(Rkt *rkt) {
        free(rkt->path);
        free(rkt->directory);
        free(rkt->stage1_name);
        free(rkt->insecure_options);
        free(rkt->network_directory);
        free(rkt->local_config);
        free(rkt->run_directory);
        *rkt = (Rkt) {};
}

int rkt_argv_new(const Rkt *rkt, const char *word, const char *more_insecure, char ***ret) {
        _cleanup_strv_free_ char **argv = NULL;
        const char *comma = isempty(rkt->insecure_options) || isempty(more_insecure) ? "" : ",";
        int r;

        r = strv_extend(&argv, rkt->path);
        if (r >= 0)
                r = strv_extend(&argv, word);
        if (r >= 0)
                r = strv_extendf(&argv, "--dir=%s", rkt->directory);
        if (r >= 0 && (!isempty(rkt->insecure_options) || !isempty(more_insecure)))
                r = strv_extendf(&argv, "--insecure-options=%s%s%s", rkt->insecure_options, comma,
                                 strempty(more_insecure));
        if (r >= 0 && !streq(rkt->local_config, "/etc/rkt"))
                r = strv_extendf(&argv, "--local-config=%s", rkt->local_config);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(argv);
        return 0;
}

void rkt_result_done(RktResult *r) {
        free(r->output);
        free(r->error);
        *r = (RktResult) {};
}

int rkt_run(const Rkt *rkt, char *const *argv, uint64_t timeout_usec, RktResult *ret, Error *error) {
        _cleanup_(process_result_done) ProcessResult result = {};
        uint64_t timeout = timeout_usec > 0 ? timeout_usec : rkt->timeout_usec;
        int r;

        r = process_run(&(ProcessOptions) {
                                .argv = (const char *const *) argv,
                                .env = rkt_environment,
                                .host_mounts = true,
                                .output_max = RKT_OUTPUT_MAX,
                                .error_max = RKT_ERROR_MAX,
                                .kill_on_overflow = true,
                                .timeout_usec = timeout,
                                .cancel_grace_usec = streq(argv[1], "image") ? 0 : CANCEL_GRACE_USEC,
                                .kill_group = true,
                        },
                        &result, error);
        if (r == -ETIMEDOUT && error) {
                _cleanup_free_ char *words = rkt_words(result.error);

                error_clear(error);
                (void) error_setf(error, GRPC_DEADLINE_EXCEEDED, "%s %s %s did not end within %llu s and was killed%s%s",
                                  argv[0], argv[1], strempty(strv_length(argv) > 4 ? argv[4] : ""),
                                  (unsigned long long) (timeout / USEC_PER_SEC), isempty(words) ? "" : "; it said: ",
                                  strempty(words));
                return -ETIMEDOUT;
        }
        if (r < 0)
                return error_prefix(error, r, "cannot execute %s", argv[0]);
        *ret = (RktResult) {
                .exit_code = result.code == CLD_EXITED ? result.status : 128 + result.status,
                .output = TAKE_PTR(result.output),
                .error = TAKE_PTR(result.error),
                .output_size = result.output_size,
        };
        if (!ret->output || !ret->error) {
                rkt_result_done(ret);
                return error_oom(error);
        }
        return 0;
}

/* Said by every `app add` on a node without that group, and of no consequence. */
static bool is_noise(const char *line) {
        return strstr(line, "group \"rkt\" not found, will use default gid") ||
               strstr(line, "warning: error setting journal ACLs") || startswith(line, "Downloading ") ||
               strspn(line, " \t\r") == strlen(line);
}

char *rkt_words(const char *text) {
        _cleanup_(buffer_done) Buffer b = BUFFER_INIT;
        _cleanup_free_ char *clean = utf8_sanitize(strempty(text));
        char *next;

        for (char *line = clean; line && *line; line = next) {
                next = line + strcspn(line, "\n");
                if (*next)
                        *next++ = 0;
                if (is_noise(line))
                        continue;
                for (char *c = line; *c; c++)
                        if ((unsigned char) *c < ' ')
                                *c = ' ';
                if (buffer_appendf(&b, "%s%s", b.size > 0 ? "; " : "", line) < 0)
                        return NULL;
                if (b.size > WORDS_MAX)
                        break;
        }
        return b.data ? utf8_sanitize(b.data) : strdup("");
}

static GrpcCode code_of(const char *words) {
        static const struct {
                const char *words;
                GrpcCode code;
        } known[] = {
                { "no matches found for", GRPC_NOT_FOUND },
                { "nonexistent app", GRPC_NOT_FOUND },
                { "cannot find app", GRPC_NOT_FOUND },
                { "no image IDs found", GRPC_NOT_FOUND },
                { "image was not found in the store", GRPC_NOT_FOUND },
                { "attempted fallback to API v1 but not supported", GRPC_NOT_FOUND },
                { "discovery failed", GRPC_NOT_FOUND },
                { "multiple apps with name", GRPC_ALREADY_EXISTS },
                { "isn't currently running", GRPC_FAILED_PRECONDITION },
                { "is currently running", GRPC_FAILED_PRECONDITION },
                { "is not yet ready", GRPC_UNAVAILABLE },
                { "context deadline exceeded", GRPC_DEADLINE_EXCEEDED },
                { "networks not found", GRPC_FAILED_PRECONDITION },
                { "unknown command", GRPC_FAILED_PRECONDITION },
                { "connection refused", GRPC_UNAVAILABLE },
                { "401", GRPC_UNAUTHENTICATED },
                { "nauthorized", GRPC_UNAUTHENTICATED },
                { "authentication required", GRPC_UNAUTHENTICATED },
        };

        for (size_t i = 0; i < ELEMENTSOF(known); i++)
                if (strstr(words, known[i].words))
                        return known[i].code;
        return GRPC_INTERNAL;
}

int rkt_error(const RktResult *r, const char *what, Error *error) {
        _cleanup_free_ char *words = rkt_words(r->error);

        if (r->exit_code > 128 && r->exit_code < 128 + 65)
                return error_setf(error, GRPC_INTERNAL, "cannot %s: rkt was killed by signal %d%s%s", what,
                                  r->exit_code - 128, isempty(words) ? "" : "; it said: ", strempty(words));
        return error_setf(error, code_of(strempty(words)), "cannot %s: rkt ended with status %d%s%s", what, r->exit_code,
                          isempty(words) ? " and said nothing" : ": ", strempty(words));
}

int rkt_call(const Rkt *rkt, char *const *argv, uint64_t timeout_usec, const char *what, RktResult *ret, Error *error) {
        _cleanup_rkt_result_ RktResult result = {};
        int r;

        r = rkt_run(rkt, argv, timeout_usec, &result, error);
        if (r < 0)
                return error_prefix(error, r, "cannot %s", what);
        if (result.exit_code != 0)
                return rkt_error(&result, what, error);
        if (ret) {
                *ret = result;
                result = (RktResult) {};
        }
        return 0;
}
