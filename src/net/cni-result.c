#include "net/cni-result.h"

#include <arpa/inet.h>

#include "basic/json-util.h"
#include "basic/string-util.h"
#include "net/cni-plugin.h"

#define ADDRESSES_MAX 64U

void cni_result_done(CniResult *r) {
        strv_free(r->ips);
        free(r->json);
        *r = (CniResult) {};
}

/* An address of the result without its prefix length. The same one twice is one. */
static int add_ip(char ***ips, const char *address, Error *error) {
        _cleanup_free_ char *ip = strndup(strempty(address), strcspn(strempty(address), "/"));
        struct in6_addr unused;
        int r;

        if (!ip)
                return error_oom(error);
        if (inet_pton(AF_INET, ip, &unused) != 1 && inet_pton(AF_INET6, ip, &unused) != 1)
                return error_setf(error, GRPC_INTERNAL, "the CNI result's \"%.100s\" is no address",
                                  strempty(address));
        if (strv_contains(*ips, ip))
                return 0;
        if (strv_length(*ips) >= ADDRESSES_MAX)
                return error_setf(error, GRPC_INTERNAL, "the CNI result has more than %u addresses", ADDRESSES_MAX);
        r = strv_push(ips, ip);
        if (r < 0)
                return error_oom(error);
        TAKE_PTR(ip);
        return 0;
}

typedef enum Belongs {
        BELONGS_HOST,  /* to an interface outside of the pod's namespace, such as the bridge itself */
        BELONGS_OTHER, /* to another interface of the pod */
        BELONGS_POD,   /* to eth0; or the plugin doesn't say: it has made nothing but that */
} Belongs;

static Belongs ip_belongs_to(const json_t *result, const json_t *ip) {
        json_t *index = json_object_get(ip, "interface"), *interface;

        if (!json_is_integer(index) || json_integer_value(index) < 0)
                return BELONGS_POD;
        interface = json_array_get(json_get_array(result, "interfaces"), (size_t) json_integer_value(index));
        if (!interface)
                return BELONGS_POD;
        if (isempty(json_get_string(interface, "sandbox")))
                return BELONGS_HOST;
        return streq_ptr(json_get_string(interface, "name"), CNI_INTERFACE) ? BELONGS_POD : BELONGS_OTHER;
}

static int add_ips(const json_t *result, Belongs whose, char ***ips, Error *error) {
        json_t *ip;
        size_t i;
        int r;

        json_array_foreach(json_get_array(result, "ips"), i, ip) {
                if (ip_belongs_to(result, ip) != whose)
                        continue;
                r = add_ip(ips, json_get_string(ip, "address"), error);
                if (r < 0)
                        return r;
        }
        return 0;
}

int cni_result_from_json(const json_t *j, CniResult *ret, Error *error) {
        _cleanup_(cni_result_done) CniResult result = {};
        int r;

        r = add_ips(j, BELONGS_POD, &result.ips, error);
        if (r >= 0 && !result.ips)
                r = add_ips(j, BELONGS_OTHER, &result.ips, error);
        for (const char *const *key = (const char *const[]) { "ip4", "ip6", NULL }; *key && r >= 0; key++) {
                json_t *ip = json_get_object(j, *key);

                if (ip)
                        r = add_ip(&result.ips, json_get_string(ip, "ip"), error);
        }
        if (r < 0)
                return r;
        if (!result.ips)
                return error_setf(error, GRPC_INTERNAL, "the CNI result has no address of the pod's " CNI_INTERFACE);
        result.json = json_dumps(j, JSON_COMPACT);
        if (!result.json)
                return error_oom(error);
        *ret = result;
        result = (CniResult) {};
        return 0;
}
