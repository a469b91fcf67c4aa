/* The configuration file, written as systemd's are: [Section], Key=value, # and ; for comments, a backslash at the
 * end of a line to go on in the next, lists with blanks between, an empty value to begin a list anew. */

#include "config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>

#include "basic/log.h"
#include "basic/string-util.h"

typedef struct Setting Setting;
typedef int (*SettingParse)(const Setting *s, const char *value, void *field);
typedef void (*SettingPrint)(const Setting *s, const void *field, FILE *f);

struct Setting {
        const char *section, *key;
        SettingParse parse;
        SettingPrint print;
        size_t offset;
        const char *initial;
        uint64_t min, max;         /* of numbers */
        const char *expected;      /* what a right value is, for warnings */
};

static int parse_string(const char *value, char **field) {
        char *copy = strdup(value);

        if (!copy)
                return -ENOMEM;
        free(*field);
        *field = copy;
        return 0;
}

static int parse_path(const Setting *s, const char *value, void *field) {
        if (value[0] != '/' || strlen(value) >= 4096)
                return -EINVAL;
        for (const char *c = value; *c; c++)
                if ((unsigned char) *c < ' ')
                        return -EINVAL;
        return parse_string(value, field);
}

static void print_optional_socket(const Setting *s, const void *field, FILE *f) {
        const char *value = *(char *const *) field;

        fputs(*value ? value : "none", f);
}

static void print_string(const Setting *s, const void *field, FILE *f) {
        fputs(*(char *const *) field, f);
}

/* The path of an AF_UNIX socket must fit into sockaddr_un. */
static int parse_socket(const Setting *s, const char *value, void *field) {
        return strlen(value) >= 108 ? -EINVAL : parse_path(s, value, field);
}

static int parse_optional_path(const Setting *s, const char *value, void *field) {
        return isempty(value) ? parse_string(value, field) : parse_path(s, value, field);
}

static int parse_optional_socket(const Setting *s, const char *value, void *field) {
        return streq(value, "none") ? parse_string("", field) : parse_socket(s, value, field);
}

static int parse_address(const Setting *s, const char *value, void *field) {
        struct in6_addr address;

        if (inet_pton(AF_INET, value, &address) != 1 && inet_pton(AF_INET6, value, &address) != 1)
                return -EINVAL;
        return parse_string(value, field);
}

static int parse_slice(const Setting *s, const char *value, void *field) {
        const char *end = endswith(value, ".slice");

        if (!end || end == value || strlen(value) > 128 || value[0] == '-' || end[-1] == '-' || strstr(value, "--"))
                return -EINVAL;
        for (const char *c = value; *c; c++)
                if (!isascii((unsigned char) *c) || (!isalnum((unsigned char) *c) && !strchr(":-_.\\", *c)))
                        return -EINVAL;
        return parse_string(value, field);
}

static int parse_engine(const Setting *s, const char *value, void *field) {
        return streq(value, "native") || streq(value, "rkt") ? parse_string(value, field) : -EINVAL;
}

/* rkt looks for networks in net.d below its configuration, and can only be told where that is. */
static int parse_network_directory(const Setting *s, const char *value, void *field) {
        const char *end = endswith(value, "/net.d");

        return end && end > value ? parse_path(s, value, field) : -EINVAL;
}

/* The name of a stage1 image of rkt: no blank, no option. */
static int parse_name(const Setting *s, const char *value, void *field) {
        if (value[0] == '-' || strlen(value) > 255)
                return -EINVAL;
        for (const char *c = value; *c; c++)
                if ((unsigned char) *c <= ' ' || *c == 0x7f)
                        return -EINVAL;
        return parse_string(value, field);
}

static int parse_log_level(const Setting *s, const char *value, void *field) {
        int level = value[0] >= '0' && value[0] <= '7' && !value[1] ? value[0] - '0' : log_level_from_string(value);

        if (level < 0)
                return -EINVAL;
        *(int *) field = level;
        return 0;
}

static void print_log_level(const Setting *s, const void *field, FILE *f) {
        fputs(log_level_to_string(*(const int *) field), f);
}

int config_parse_time(const char *s, uint64_t *ret) {
        static const struct {
                const char *name;
                uint64_t usec;
        } units[] = {
                { "us", 1 },
                { "ms", USEC_PER_MSEC },
                { "min", 60 * USEC_PER_SEC },
                { "s", USEC_PER_SEC },
                { "sec", USEC_PER_SEC },
                { "m", 60 * USEC_PER_SEC },
                { "h", 3600 * USEC_PER_SEC },
                { "d", 86400 * USEC_PER_SEC },
        };
        uint64_t sum = 0;
        bool any = false;

        if (streq(s, "infinity")) {
                *ret = USEC_INFINITY;
                return 0;
        }
        for (;;) {
                uint64_t n = 0, unit = USEC_PER_SEC;
                size_t l;

                s += strspn(s, " \t");
                if (!*s)
                        break;
                if (!isdigit((unsigned char) *s))
                        return -EINVAL;
                for (; isdigit((unsigned char) *s); s++)
                        if (__builtin_mul_overflow(n, 10U, &n) ||
                            __builtin_add_overflow(n, (unsigned) (*s - '0'), &n))
                                return -ERANGE;
                s += strspn(s, " \t");
                for (l = 0; isalpha((unsigned char) s[l]); l++)
                        ;
                if (l > 0) {
                        size_t i;

                        for (i = 0; i < ELEMENTSOF(units); i++)
                                if (strlen(units[i].name) == l && memcmp(s, units[i].name, l) == 0)
                                        break;
                        if (i == ELEMENTSOF(units))
                                return -EINVAL;
                        unit = units[i].usec;
                }
                s += l;
                if (__builtin_mul_overflow(n, unit, &n) || __builtin_add_overflow(sum, n, &sum) ||
                    sum == USEC_INFINITY)
                        return -ERANGE;
                any = true;
        }
        if (!any)
                return -EINVAL;
        *ret = sum;
        return 0;
}

static int parse_time(const Setting *s, const char *value, void *field) {
        uint64_t usec;
        int r;

        r = config_parse_time(value, &usec);
        if (r < 0)
                return r;
        if (usec < s->min || usec > s->max)
                return -ERANGE;
        *(uint64_t *) field = usec;
        return 0;
}

static void print_time(const Setting *s, const void *field, FILE *f) {
        uint64_t usec = *(const uint64_t *) field;

        if (usec == USEC_INFINITY)
                fputs("infinity", f);
        else if (usec % USEC_PER_SEC == 0)
                fprintf(f, "%" PRIu64 "s", usec / USEC_PER_SEC);
        else
                fprintf(f, "%" PRIu64 "us", usec);
}

/* With K, M or G for powers of 1024. */
static int parse_boolean(const Setting *s, const char *value, void *field) {
        int r = parse_bool(value);

        if (r >= 0)
                *(uint64_t *) field = (uint64_t) r;
        return r;
}

static void print_boolean(const Setting *s, const void *field, FILE *f) {
        fputs(*(const uint64_t *) field ? "yes" : "no", f);
}

static int parse_number(const Setting *s, const char *value, void *field) {
        static const char suffixes[] = "KMG";
        _cleanup_free_ char *digits = strdup(value);
        const char *suffix;
        size_t l = strlen(value);
        uint64_t n, factor = 1;
        int r;

        if (!digits)
                return -ENOMEM;
        suffix = l > 1 ? strchr(suffixes, value[l - 1]) : NULL;
        if (suffix) {
                digits[l - 1] = 0;
                factor = UINT64_C(1) << (10 * (suffix - suffixes + 1));
        }
        r = parse_u64(digits, &n);
        if (r < 0)
                return r;
        if (__builtin_mul_overflow(n, factor, &n) || n < s->min || n > s->max)
                return -ERANGE;
        *(uint64_t *) field = n;
        return 0;
}

static void print_number(const Setting *s, const void *field, FILE *f) {
        fprintf(f, "%" PRIu64, *(const uint64_t *) field);
}

static int parse_list(const Setting *s, const char *value, void *field, bool paths) {
        _cleanup_strv_free_ char **words = NULL, **list = NULL;
        char ***old = field;
        int r;

        if (isempty(value)) {
                strv_free(*old);
                *old = NULL;
                return 0;
        }
        r = strv_split(value, " \t", &words);
        if (r < 0)
                return r;
        if (*old) {
                list = strv_copy(*old);
                if (!list)
                        return -ENOMEM;
        }
        STRV_FOREACH(w, words) {
                if (paths && (*w)[0] != '/')
                        return -EINVAL;
                r = strv_extend(&list, *w);
                if (r < 0)
                        return r;
        }
        strv_free(*old);
        *old = TAKE_PTR(list);
        return 0;
}

static int parse_paths(const Setting *s, const char *value, void *field) {
        return parse_list(s, value, field, /* paths= */ true);
}

static int parse_words(const Setting *s, const char *value, void *field) {
        return parse_list(s, value, field, /* paths= */ false);
}

static void print_list(const Setting *s, const void *field, FILE *f) {
        const char *separator = "";

        STRV_FOREACH(w, *(char **const *) field) {
                fprintf(f, "%s%s", separator, *w);
                separator = " ";
        }
}

#define FIELD(name) offsetof(Config, name)
#define PATH(section, key, field, initial)                                                                             \
        { section, key, parse_path, print_string, FIELD(field), initial, .expected = "an absolute path" }
#define OPTIONAL_PATH(section, key, field)                                                                             \
        { section, key, parse_optional_path, print_string, FIELD(field), "",                                          \
          .expected = "an absolute path, or nothing" }
#define TIME(section, key, field, initial, min, max)                                                                   \
        { section, key, parse_time, print_time, FIELD(field), initial, min, max, "a time span such as \"30s\"" }
#define NUMBER(section, key, field, initial, min, max, words)                                                          \
        { section, key, parse_number, print_number, FIELD(field), initial, min, max, words }

/* In the order of --dump-config and of rktlet.conf(5). */
static const Setting settings[] = {
        { "Manager", "Socket", parse_socket, print_string, FIELD(socket), "/run/rktlet/rktlet.sock",
          .expected = "an absolute path of less than 108 bytes" },
        PATH("Manager", "StateDirectory", state_directory, "/var/lib/rktlet"),
        PATH("Manager", "RunDirectory", run_directory, "/run/rktlet"),
        { "Manager", "LogLevel", parse_log_level, print_log_level, FIELD(log_level), "info",
          .expected = "one of emerg, alert, crit, err, warning, notice, info, debug" },
        { "Manager", "DefaultSlice", parse_slice, print_string, FIELD(default_slice), "rktlet.slice",
          .expected = "a slice name such as \"rktlet.slice\"" },
        TIME("Manager", "StopTimeoutSec", stop_timeout_usec, "0", 0, 3600 * USEC_PER_SEC),
        { "Manager", "RegisterMachines", parse_boolean, print_boolean, FIELD(register_machines), "no",
          .expected = "yes or no" },
        { "Manager", "StreamAddress", parse_address, print_string, FIELD(stream_address), "127.0.0.1",
          .expected = "an IPv4 or IPv6 address" },
        NUMBER("Manager", "StreamPort", stream_port, "0", 0, 65535, "a port number, or 0"),
        OPTIONAL_PATH("Manager", "StreamCertificateFile", stream_certificate_file),
        OPTIONAL_PATH("Manager", "StreamKeyFile", stream_key_file),
        OPTIONAL_PATH("Manager", "StreamTrustedCertificateFile", stream_trusted_certificate_file),
        { "Manager", "MetricsSocket", parse_optional_socket, print_optional_socket, FIELD(metrics_socket), "/run/rktlet/metrics.sock",
          .expected = "an absolute path of less than 108 bytes, or \"none\"" },
        NUMBER("Manager", "MetricsPort", metrics_port, "0", 0, 65535, "a port number, or 0"),
        { "Engine", "Engine", parse_engine, print_string, FIELD(engine), "native", .expected = "native or rkt" },
        PATH("Engine", "Crun", crun, "/usr/bin/crun"),
        PATH("Engine", "LibexecDirectory", libexec_directory, RKTLET_LIBEXECDIR),
        TIME("Engine", "UnitStopTimeoutSec", unit_stop_timeout_usec, "10s", 100 * USEC_PER_MSEC, 3600 * USEC_PER_SEC),
        NUMBER("Engine", "LogLineMax", log_line_max, "16384", 256, 1024 * 1024, "a number of bytes from 256 to 1M"),
        { "Engine", "LogToJournal", parse_boolean, print_boolean, FIELD(log_to_journal), "no", .expected = "yes or no" },
        TIME("Engine", "JournalRateLimitIntervalSec", journal_interval_usec, "30s", 0, 24 * 3600 * USEC_PER_SEC),
        NUMBER("Engine", "JournalRateLimitBurst", journal_burst, "10000", 0, UINT32_MAX, "a number of lines"),
        PATH("Rkt", "RktPath", rkt_path, "/usr/bin/rkt"),
        PATH("Rkt", "RktDirectory", rkt_directory, "/var/lib/rktlet/rkt"),
        { "Rkt", "RktStage1Name", parse_name, print_string, FIELD(rkt_stage1_name), "",
          .expected = "the name of an image" },
        { "Rkt", "RktInsecureOptions", parse_words, print_list, FIELD(rkt_insecure_options), "image ondisk",
          .expected = "words of rkt's --insecure-options" },
        { "Rkt", "RktNetworkDirectory", parse_network_directory, print_string, FIELD(rkt_network_directory),
          "/etc/rkt/net.d", .expected = "an absolute path that ends in /net.d" },
        TIME("Rkt", "RktTimeoutSec", rkt_timeout_usec, "60s", USEC_PER_SEC, 3600 * USEC_PER_SEC),
        TIME("Rkt", "RktReadyTimeoutSec", rkt_ready_timeout_usec, "60s", USEC_PER_SEC, 3600 * USEC_PER_SEC),
        TIME("Rkt", "RktFetchTimeoutSec", rkt_fetch_timeout_usec, "15min", USEC_PER_SEC, 24 * 3600 * USEC_PER_SEC),
        { "Network", "CniConfDirectories", parse_paths, print_list, FIELD(cni_conf_directories), "/etc/cni/net.d",
          .expected = "absolute paths" },
        { "Network", "CniBinDirectories", parse_paths, print_list, FIELD(cni_bin_directories),
          "/opt/cni/bin /usr/lib/cni", .expected = "absolute paths" },
        OPTIONAL_PATH("Network", "CniTemplate", cni_template),
        TIME("Network", "CniTimeoutSec", cni_timeout_usec, "60s", USEC_PER_SEC, 3600 * USEC_PER_SEC),
        PATH("Image", "ImageDirectory", image_directory, "/var/lib/rktlet/image"),
        PATH("Image", "RegistriesDirectory", registries_directory, "/etc/rktlet/registries.d"),
        PATH("Image", "VerifiersDirectory", verifiers_directory, "/etc/rktlet/image-verifiers.d"),
        { "Image", "PinnedImages", parse_words, print_list, FIELD(pinned_images), "",
          .expected = "globs of image references" },
        NUMBER("Image", "ParallelLayers", parallel_layers, "3", 1, 32, "a number from 1 to 32"),
        TIME("Image", "ImageProgressTimeoutSec", image_progress_timeout_usec, "60s", USEC_PER_SEC,
             24 * 3600 * USEC_PER_SEC),
};

_Static_assert(ELEMENTSOF(settings) <= 64, "Config.assigned has a bit for each");

static bool is_list(const Setting *s) {
        return s->parse == parse_paths || s->parse == parse_words;
}

void config_done(Config *c) {
        for (size_t i = 0; i < ELEMENTSOF(settings); i++) {
                void *field = (char *) c + settings[i].offset;

                if (is_list(settings + i))
                        strv_free(*(char ***) field);
                else if (settings[i].print == print_string || settings[i].print == print_optional_socket)
                        free(*(char **) field);
        }
        config_runtimes_done(&c->runtimes);
        strv_free(c->files);
        *c = (Config) {};
}

int config_init(Config *ret) {
        _cleanup_config_ Config c = {};
        int r;

        for (size_t i = 0; i < ELEMENTSOF(settings); i++) {
                r = settings[i].parse(settings + i, settings[i].initial, (char *) &c + settings[i].offset);
                if (r < 0)
                        return r;
        }
        r = config_complete(&c);
        if (r < 0)
                return r;
        *ret = c;
        c = (Config) {};
        return 0;
}

static int derive(Config *c, char **field, const char *directory, const char *name) {
        for (size_t i = 0; i < ELEMENTSOF(settings); i++)
                if ((char **) ((char *) c + settings[i].offset) == field && (c->assigned & (UINT64_C(1) << i)))
                        return 0;
        free(*field);
        *field = strprintf("%s/%s", directory, name);
        return *field ? 0 : -ENOMEM;
}

int config_complete(Config *c) {
        int r;

        r = derive(c, &c->socket, c->run_directory, "rktlet.sock");
        if (r < 0)
                return r;
        r = derive(c, &c->rkt_directory, c->state_directory, "rkt");
        if (r < 0)
                return r;
        r = derive(c, &c->metrics_socket, c->run_directory, "metrics.sock");
        if (r < 0)
                return r;
        return derive(c, &c->image_directory, c->state_directory, "image");
}

typedef struct Parser {
        Config *config;
        const char *name;
        unsigned line;
        char *section;
        bool section_known;
        const char *runtime; /* the name in [Runtime NAME], borrowed from section; NULL: another section */
        ConfigWarnFunc warn;
        void *userdata;
} Parser;

static void warn(Parser *p, const char *format, ...) _printf_(2, 3);
static void warn(Parser *p, const char *format, ...) {
        _cleanup_free_ char *text = NULL, *message = NULL;
        va_list ap;
        int n;

        if (!p->warn)
                return;
        va_start(ap, format);
        n = vasprintf(&text, format, ap);
        va_end(ap);
        if (n < 0)
                text = NULL;
        message = strprintf("%s:%u: %s", p->name, p->line, strempty(text));
        p->warn(strempty(message), p->userdata);
}

static char *strip(char *s) {
        size_t l;

        s += strspn(s, " \t\r");
        for (l = strlen(s); l > 0 && strchr(" \t\r", s[l - 1]); l--)
                ;
        s[l] = 0;
        return s;
}

static int begin_runtime(Parser *p) {
        ConfigRuntime *runtime;
        int r;

        r = config_runtime_get(&p->config->runtimes, p->runtime, &runtime);
        if (r == -ENOMEM)
                return r;
        if (r < 0) {
                warn(p, r == -E2BIG ? "Section [%s] is one too many of its kind, ignoring what is in it"
                                    : "Section [%s] has no good name for a runtime, ignoring what is in it",
                     p->section);
                p->runtime = NULL;
        }
        return 0;
}

static int assign_runtime(Parser *p, const char *key, const char *value) {
        const char *expected = NULL;
        ConfigRuntime *runtime;
        int r;

        r = config_runtime_get(&p->config->runtimes, p->runtime, &runtime);
        if (r < 0)
                return r;
        r = config_runtime_assign(runtime, key, value, &expected);
        if (r == -EINVAL)
                warn(p, "%s=%s is not %s, ignoring", key, value, expected);
        else if (r == -ENOENT && !startswith(key, "X-"))
                warn(p, "Unknown key %s= in section [%s], ignoring", key, p->section);
        return r == -ENOMEM ? r : 0;
}

static int parse_section(Parser *p, char *s) {
        size_t l = strlen(s);

        if (l < 3 || s[l - 1] != ']') {
                warn(p, "\"%s\" is no section header, ignoring", s);
                return 0;
        }
        s[l - 1] = 0;
        free(p->section);
        p->section = strdup(s + 1);
        if (!p->section)
                return -ENOMEM;
        p->section_known = false;
        p->runtime = NULL;
        if (config_runtime_is_section(p->section, &p->runtime))
                return begin_runtime(p);
        for (size_t i = 0; i < ELEMENTSOF(settings); i++)
                p->section_known |= streq(settings[i].section, p->section);
        if (!p->section_known && !startswith(p->section, "X-"))
                warn(p, "Unknown section [%s], ignoring what is in it", p->section);
        return 0;
}

/* An empty value stands for the default, or for an empty list. Lists of several assignments add up; the first replaces
 * the default. */
static int assign(Parser *p, size_t i, const char *value) {
        const Setting *s = settings + i;
        void *field = (char *) p->config + s->offset;
        uint64_t bit = UINT64_C(1) << i;
        int r;

        if (is_list(s) && !(p->config->assigned & bit)) {
                char **list = NULL;

                r = s->parse(s, value, &list);
                if (r >= 0) {
                        strv_free(*(char ***) field);
                        *(char ***) field = list;
                }
        } else
                r = s->parse(s, isempty(value) && !is_list(s) ? s->initial : value, field);
        if (r == -ENOMEM)
                return r;
        if (r < 0) {
                warn(p, "%s=%s is not %s, ignoring", s->key, value, s->expected);
                return 0;
        }
        if (isempty(value) && !is_list(s))
                p->config->assigned &= ~bit;
        else
                p->config->assigned |= bit;
        return 0;
}

static int parse_assignment(Parser *p, char *s) {
        char *equals = strchr(s, '='), *key, *value;

        if (!equals) {
                warn(p, "\"%s\" is no \"Key=value\", ignoring", s);
                return 0;
        }
        *equals = 0;
        key = strip(s);
        value = strip(equals + 1);
        if (!p->section) {
                warn(p, "%s= stands before the first section, ignoring", key);
                return 0;
        }
        if (p->runtime)
                return assign_runtime(p, key, value);
        if (!p->section_known)
                return 0;
        for (size_t i = 0; i < ELEMENTSOF(settings); i++) {
                if (streq(settings[i].section, p->section) && streq(settings[i].key, key))
                        return assign(p, i, value);
        }
        if (!startswith(key, "X-"))
                warn(p, "Unknown key %s= in section [%s], ignoring", key, p->section);
        return 0;
}

static int parse_line(Parser *p, char *line) {
        char *s = strip(line);

        if (!*s)
                return 0;
        return *s == '[' ? parse_section(p, s) : parse_assignment(p, s);
}

int config_parse(Config *c, const char *name, const char *text, ConfigWarnFunc warn_func, void *userdata) {
        Parser p = { .config = c, .name = name, .warn = warn_func, .userdata = userdata };
        _cleanup_(buffer_done) Buffer line = BUFFER_INIT;
        unsigned number = 0;
        int r = 0;

        while (*text && r >= 0) {
                size_t l = strcspn(text, "\n"), used = l;
                const char *begin = text + strspn(text, " \t");
                bool comment = *begin == '#' || *begin == ';', more;

                number++;
                while (used > 0 && text[used - 1] == '\r')
                        used--;
                /* Comments may stand between the lines of one value. */
                more = (comment && line.size > 0) || (!comment && used > 0 && text[used - 1] == '\\');
                if (!comment) {
                        if (line.size == 0)
                                p.line = number;
                        r = buffer_append(&line, text, more ? used - 1 : used);
                        if (r >= 0 && more)
                                r = buffer_append(&line, " ", 1);
                }
                text += l + (text[l] == '\n');
                if (r < 0 || (more && *text) || line.size == 0)
                        continue;
                r = parse_line(&p, line.data);
                line.size = 0;
        }
        free(p.section);
        return r < 0 ? r : 0;
}

void config_drop_incomplete(Config *c, const char *shown, ConfigWarnFunc warn_func, void *userdata) {
        char *name;

        while ((name = config_runtimes_drop_incomplete(&c->runtimes))) {
                _cleanup_free_ char *message = strprintf("%s: Section [Runtime %s] has no Path=, ignoring it", shown, name);

                if (warn_func)
                        warn_func(strempty(message), userdata);
                free(name);
        }
}

int config_dump(const Config *c, FILE *f) {
        const char *section = "";

        for (size_t i = 0; i < ELEMENTSOF(settings); i++) {
                const Setting *s = settings + i;

                if (!streq(section, s->section))
                        fprintf(f, "%s[%s]\n", *section ? "\n" : "", s->section);
                section = s->section;
                fprintf(f, "%s=", s->key);
                s->print(s, (const char *) c + s->offset, f);
                fputc('\n', f);
        }
        config_runtimes_dump(&c->runtimes, f);
        return ferror(f) ? -EIO : 0;
}

/* --- changes while the daemon runs ------------------------------------------------------------------------------- */

/* Settings that the parts take over when they are told to. */
static const char *const live_keys[] = {
        "LogLevel", "StopTimeoutSec", "Crun", "UnitStopTimeoutSec", "LogLineMax", "LogToJournal", "JournalRateLimitIntervalSec",
        "JournalRateLimitBurst", "CniConfDirectories", "CniBinDirectories", "CniTemplate",
        "CniTimeoutSec", "RegistriesDirectory", "VerifiersDirectory", "PinnedImages", "ParallelLayers", "ImageProgressTimeoutSec",
};

static bool is_live(const Setting *s) {
        for (size_t i = 0; i < ELEMENTSOF(live_keys); i++)
                if (streq(live_keys[i], s->key))
                        return true;
        return false;
}

static int print_setting(const Setting *s, const Config *c, char **ret) {
        char *text = NULL;
        size_t size;
        FILE *f = open_memstream(&text, &size);

        if (!f)
                return -ENOMEM;
        if (s)
                s->print(s, (const char *) c + s->offset, f);
        else
                config_runtimes_dump(&c->runtimes, f);
        if (fclose(f) != 0) {
                free(text);
                return -ENOMEM;
        }
        *ret = text;
        return 0;
}

/* 1: it differs. */
static int setting_differs(const Setting *s, const Config *a, const Config *b) {
        _cleanup_free_ char *text_a = NULL, *text_b = NULL;
        int r;

        r = print_setting(s, a, &text_a);
        if (r >= 0)
                r = print_setting(s, b, &text_b);
        return r < 0 ? r : !streq(text_a, text_b);
}

static size_t field_size(const Setting *s) {
        if (s->print == print_boolean)
                return sizeof(bool);
        return s->print == print_log_level ? sizeof(int) : is_list(s) || s->print == print_string || s->print == print_optional_socket ? sizeof(void *) : sizeof(uint64_t);
}

int config_take_live(Config *c, Config *fresh, char ***ret_taken, char ***ret_left) {
        _cleanup_strv_free_ char **taken = NULL, **left = NULL;
        ConfigRuntimes runtimes = c->runtimes;
        int r;

        for (size_t i = 0; i < ELEMENTSOF(settings); i++) {
                const Setting *s = settings + i;
                char *from = (char *) fresh + s->offset, *to = (char *) c + s->offset, swap[8];

                r = setting_differs(s, c, fresh);
                if (r > 0)
                        r = strv_extendf(is_live(s) ? &taken : &left, "%s=", s->key);
                if (r < 0)
                        return r;
                if (!is_live(s))
                        continue;
                memcpy(swap, to, field_size(s));
                memcpy(to, from, field_size(s));
                memcpy(from, swap, field_size(s));
        }
        r = setting_differs(NULL, c, fresh);
        if (r > 0)
                r = strv_extend(&taken, "[Runtime]");
        if (r < 0)
                return r;
        c->runtimes = fresh->runtimes;
        fresh->runtimes = runtimes;
        *ret_taken = TAKE_PTR(taken);
        *ret_left = TAKE_PTR(left);
        return 0;
}
