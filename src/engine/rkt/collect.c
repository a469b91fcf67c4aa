/* What rkt knows of pods: asked for one, for all, and cleaned of those that are nobody's. */

#include "engine/rkt/internal.h"

int rkt_pod_query(const Rkt *rkt, const char *uuid, uint64_t wait_ready_usec, json_t **ret, Error *error) {
        _cleanup_strv_free_ char **argv = NULL;
        _cleanup_rkt_result_ RktResult result = {};
        _cleanup_json_ json_t *o = NULL;
        int r;

        r = rkt_argv_new(rkt, "status", NULL, &argv);
        if (r >= 0)
                r = strv_extend(&argv, uuid);
        if (r >= 0)
                r = strv_extend(&argv, "--format=json");
        if (r >= 0 && wait_ready_usec > 0)
                r = strv_extendf(&argv, "--wait-ready=%llus",
                                 (unsigned long long) MAX(wait_ready_usec / USEC_PER_SEC, UINT64_C(1)));
        if (r < 0)
                return error_oom(error);
        r = rkt_call(rkt, argv, rkt->timeout_usec + wait_ready_usec, "ask for the pod's status", &result, error);
        if (r < 0)
                return r;
        r = rkt_parse_json("status", result.output, result.output_size, &o, error);
        if (r < 0)
                return r;
        if (!json_get_string(o, "state"))
                return error_setf(error, GRPC_INTERNAL, "rkt's answer to status has no state");
        *ret = TAKE_PTR(o);
        return 0;
}

int rkt_pod_query_all(const Rkt *rkt, json_t **ret, Error *error) {
        _cleanup_strv_free_ char **argv = NULL;
        _cleanup_rkt_result_ RktResult result = {};
        _cleanup_json_ json_t *list = NULL;
        int r;

        r = rkt_argv_new(rkt, "list", NULL, &argv);
        if (r >= 0)
                r = strv_extend(&argv, "--format=json");
        if (r < 0)
                return error_oom(error);
        r = rkt_call(rkt, argv, 0, "list the pods", &result, error);
        if (r < 0)
                return r;
        r = rkt_parse_json("list", result.output, result.output_size, &list, error);
        if (r < 0)
                return r;
        if (!json_is_array(list))
                return error_setf(error, GRPC_INTERNAL, "rkt's answer to list is no list");
        *ret = TAKE_PTR(list);
        return 0;
}

/* Only what carries our mark is ours to remove; one that runs has a unit, which is stopped by whoever looks for
 * stray units. */
int rkt_collect(Engine *engine, bool (*is_known)(const char *pod_id, void *userdata), void *userdata, Error *error) {
        const Rkt *rkt = &rkt_engine(engine)->rkt;
        _cleanup_json_ json_t *list = NULL;
        const json_t *pod;
        size_t i;
        int r;

        r = rkt_pod_query_all(rkt, &list, error);
        if (r < 0)
                return r;
        json_array_foreach(list, i, pod) {
                const char *id = rkt_pod_annotation(pod, RKT_KEY_POD_ID), *uuid = json_get_string(pod, "name");
                _cleanup_strv_free_ char **argv = NULL;

                if (!id || !uuid || !rkt_uuid_is_valid(uuid) || is_known(id, userdata) || rkt_pod_is_running(pod))
                        continue;
                log_notice("Removing rkt's pod %s, which belongs to no pod", uuid);
                r = rkt_argv_new(rkt, "rm", NULL, &argv);
                if (r >= 0)
                        r = strv_extend(&argv, uuid);
                if (r < 0)
                        return error_oom(error);
                r = rkt_call(rkt, argv, 0, "remove a pod that nobody knows", NULL, error);
                if (r < 0)
                        return r;
        }
        return 0;
}
