#include "net/cni-plugin.h"

#include <sys/wait.h>

#include "basic/json-util.h"
#include "basic/process.h"
#include "basic/string-util.h"
#include "net/cni-config.h"

#define CANCEL_GRACE_USEC (2 * USEC_PER_SEC)
#define OUTPUT_MAX (1U * 1024U * 1024U)
#define QUOTE_MAX 200 /* bytes of a plugin's nonsense that an error repeats */
#define ERROR_OUTPUT_MAX (8U * 1024U)
#define CNI_ERROR_TRY_AGAIN 11 /* the specification's well-known code: transient, ask again later */

/* The plugin's part of the list with what the runtime adds to it. */
static int plugin_config(const CniRuntime *runtime, const json_t *plugin, const json_t *prev_result, char **ret) {
        _cleanup_json_ json_t *conf = json_deep_copy(plugin), *runtime_config = json_object();
        json_t *capabilities = json_get_object(plugin, "capabilities");
        const char *name;
        json_t *wanted;

        if (!conf || !runtime_config)
                return -ENOMEM;
        if (json_object_set_new(conf, "name", json_string(runtime->network_name)) < 0 ||
            json_object_set_new(conf, "cniVersion", json_string(runtime->version)) < 0)
                return -ENOMEM;
        json_object_foreach(capabilities, name, wanted) {
                json_t *value = json_object_get(runtime->capability_args, name);

                if (json_is_true(wanted) && value && json_object_set(runtime_config, name, value) < 0)
                        return -ENOMEM;
        }
        if (json_object_size(runtime_config) > 0 && json_object_set(conf, "runtimeConfig", runtime_config) < 0)
                return -ENOMEM;
        if (prev_result && json_object_set(conf, "prevResult", (json_t *) prev_result) < 0)
                return -ENOMEM;
        *ret = json_dumps(conf, JSON_COMPACT);
        return *ret ? 0 : -ENOMEM;
}

static int plugin_environment(const CniRuntime *runtime, const char *command, char ***ret) {
        _cleanup_strv_free_ char **env = NULL;
        _cleanup_free_ char *path = strv_join(runtime->bin_directories, ":");

        if (!path || strv_extendf(&env, "CNI_COMMAND=%s", command) < 0 ||
            strv_extendf(&env, "CNI_CONTAINERID=%s", runtime->container_id) < 0 ||
            strv_extendf(&env, "CNI_NETNS=%s", strempty(runtime->netns)) < 0 ||
            strv_extend(&env, "CNI_IFNAME=" CNI_INTERFACE) < 0 ||
            strv_extendf(&env, "CNI_ARGS=%s", strempty(runtime->args)) < 0 ||
            strv_extendf(&env, "CNI_PATH=%s", path) < 0 ||
            /* Plugins call iptables, nft and the like. */
            strv_extend(&env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin") < 0)
                return -ENOMEM;
        *ret = TAKE_PTR(env);
        return 0;
}

/* A failed plugin says why as JSON on its standard output; one that crashed on standard error, if at all. */
static int plugin_failed(const CniRuntime *runtime, const char *type, const char *command, const ProcessResult *result,
                         Error *error) {
        _cleanup_json_ json_t *j = NULL;
        _cleanup_free_ char *words = NULL;
        const char *msg = NULL, *details = NULL;
        GrpcCode code = GRPC_INTERNAL;
        char number[32] = "";

        if (json_parse(result->output, result->output_size, &j, NULL) >= 0) {
                msg = json_get_string(j, "msg");
                details = json_get_string(j, "details");
                if (json_is_integer(json_object_get(j, "code"))) {
                        json_int_t n = json_integer_value(json_object_get(j, "code"));

                        (void) snprintf(number, sizeof number, " (code %" JSON_INTEGER_FORMAT ")", n);
                        if (n == CNI_ERROR_TRY_AGAIN)
                                code = GRPC_UNAVAILABLE;
                }
        }
        words = utf8_sanitize(!isempty(msg) ? msg : strempty(result->error));
        if (words) {
                words[strcspn(words, "\n")] = 0;
                if (code == GRPC_INTERNAL && text_says_exhausted(words))
                        code = GRPC_RESOURCE_EXHAUSTED;
        }
        return error_setf(error, code, "CNI plugin \"%s\" of network \"%s\" %s at %s: %s%s%s%s", type,
                          runtime->network_name, process_result_describe(result), command,
                          isempty(words) ? "it said nothing" : words, isempty(details) ? "" : ": ", strempty(details),
                          number);
}

int cni_plugin_run(const CniRuntime *runtime, const char *command, const json_t *plugin, const json_t *prev_result,
                   json_t **ret, Error *error) {
        const char *type = json_get_string(plugin, "type");
        _cleanup_(process_result_done) ProcessResult result = {};
        _cleanup_free_ char *path = NULL, *conf = NULL;
        _cleanup_strv_free_ char **env = NULL;
        _cleanup_json_ json_t *j = NULL;
        ProcessOptions options;
        int r;

        r = cni_plugin_find(runtime->bin_directories, type, &path, error);
        if (r < 0)
                return r;
        if (plugin_config(runtime, plugin, prev_result, &conf) < 0 || plugin_environment(runtime, command, &env) < 0)
                return error_oom(error);

        options = (ProcessOptions) {
                .argv = (const char *const[]) { path, NULL },
                .env = (const char *const *) env,
                .input = conf,
                .input_size = strlen(conf),
                .output_max = OUTPUT_MAX,
                .error_max = ERROR_OUTPUT_MAX,
                .kill_on_overflow = true,
                .timeout_usec = runtime->timeout_usec,
                /* Killed in the middle, plugins leave what no DEL finds: an address file without its owner's name, a
                 * chain of rules whose interface is gone. They take milliseconds, so let them finish. */
                .cancel_grace_usec = CANCEL_GRACE_USEC,
                .kill_group = true,
        };
        r = process_run(&options, &result, error);
        if (r < 0)
                return error_prefix(error, r, "CNI plugin \"%s\" of network \"%s\" at %s", type, runtime->network_name,
                                    command);
        if (result.output_truncated)
                return error_setf(error, GRPC_INTERNAL,
                                  "CNI plugin \"%s\" of network \"%s\" printed more than %u bytes at %s, and was killed",
                                  type, runtime->network_name, OUTPUT_MAX, command);
        if (result.code != CLD_EXITED || result.status != 0)
                return plugin_failed(runtime, type, command, &result, error);
        if (!ret)
                return 0;
        if (strspn(result.output, " \t\r\n") < result.output_size) {
                r = json_parse(result.output, result.output_size, &j, error);
                if (r < 0 || !json_is_object(j)) {
                        _cleanup_free_ char *words = NULL;
                        _cleanup_error_ Error e = ERROR_INIT;

                        error_move(&e, error);
                        result.output[MIN(strcspn(result.output, "\n"), (size_t) QUOTE_MAX)] = 0;
                        words = utf8_sanitize(result.output);
                        return error_setf(error, GRPC_INTERNAL,
                                          "CNI plugin \"%s\" of network \"%s\" printed no JSON result at %s (%s), but: %s",
                                          type, runtime->network_name, command, strempty(e.message), strempty(words));
                }
        }
        *ret = TAKE_PTR(j);
        return 0;
}
