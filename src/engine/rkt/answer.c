#include "engine/rkt/answer.h"

#include "basic/string-util.h"

bool rkt_uuid_is_valid(const char *s) {
        for (size_t i = 0; i < RKT_UUID_LENGTH; i++)
                if (i == 8 || i == 13 || i == 18 || i == 23 ? s[i] != '-' : !strchr("0123456789abcdef", s[i]) || !s[i])
                        return false;
        return !s[RKT_UUID_LENGTH];
}

bool rkt_hash_is_valid(const char *s) {
        const char *hex = startswith(s, "sha512-");

        return hex && strlen(hex) == 64 && is_hex(hex);
}

int rkt_parse_json(const char *what, const char *text, size_t size, json_t **ret, Error *error) {
        _cleanup_error_ Error cause = ERROR_INIT;
        _cleanup_free_ char *shown = NULL;
        int r;

        /* Go prints an empty list as null, which is no text by itself for the parser. */
        if (startswith(text, "null") && strspn(text + 4, " \r\n") + 4 == size) {
                *ret = json_array();
                return *ret ? 0 : error_oom(error);
        }
        r = json_parse(text, size, ret, &cause);
        if (r >= 0 || r == -ENOMEM)
                return r < 0 ? error_oom(error) : 0;
        shown = strndup(text, 80);
        if (shown) {
                char *clean = utf8_sanitize(shown);

                free(shown);
                shown = clean;
        }
        for (char *c = shown; c && *c; c++)
                if ((unsigned char) *c < ' ')
                        *c = ' ';
        return error_setf(error, GRPC_INTERNAL, "rkt's answer to %s is not understood (%s): %s", what,
                          strempty(cause.message), size == 0 ? "it is empty" : strempty(shown));
}

static uint64_t get_usec(const json_t *o, const char *key) {
        json_int_t i = json_integer_value(json_object_get(o, key));

        return i > 0 ? (uint64_t) i / NSEC_PER_USEC : 0;
}

int rkt_parse_app(const char *text, size_t size, RktApp *ret, Error *error) {
        static const char *const states[] = {
                [RKT_APP_CREATED] = "created",
                [RKT_APP_RUNNING] = "running",
                [RKT_APP_EXITED] = "exited",
        };
        _cleanup_json_ json_t *o = NULL;
        const json_t *exit_code;
        const char *state;
        int r;

        r = rkt_parse_json("app status", text, size, &o, error);
        if (r < 0)
                return r;
        state = json_get_string(o, "state");
        if (!state)
                return error_setf(error, GRPC_INTERNAL, "rkt's answer to app status has no state");
        exit_code = json_object_get(o, "exit_code");
        *ret = (RktApp) {
                .state = RKT_APP_UNKNOWN,
                .created_usec = get_usec(o, "created_at"),
                .started_usec = get_usec(o, "started_at"),
                .finished_usec = get_usec(o, "finished_at"),
                .exit_code = json_is_integer(exit_code) ? (int) (json_integer_value(exit_code) & 0xff) : -1,
        };
        for (size_t i = 0; i < ELEMENTSOF(states); i++)
                if (streq(state, states[i]))
                        ret->state = (RktAppState) i;
        return 0;
}

int rkt_pod_addresses(const json_t *pod, char ***ret) {
        _cleanup_strv_free_ char **l = NULL;
        const json_t *network;
        size_t i;
        int r;

        json_array_foreach(json_get_array(pod, "networks"), i, network) {
                const char *ip = json_get_string(network, "ip");

                /* Plugins of a newer CNI than rkt knows give none. */
                if (isempty(ip))
                        continue;
                r = strv_extend(&l, ip);
                if (r < 0)
                        return r;
        }
        *ret = TAKE_PTR(l);
        return 0;
}

bool rkt_pod_is_running(const json_t *pod) {
        return streq(strempty(json_get_string(pod, "state")), "running");
}

const char *rkt_pod_annotation(const json_t *pod, const char *key) {
        return json_get_string(json_get_object(pod, "user_annotations"), key);
}
