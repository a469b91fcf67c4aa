#include "net/cni-template.h"

#include <arpa/inet.h>

#include "basic/json-util.h"
#include "basic/string-util.h"

#define EACH "@EACH_POD_CIDR@"

static bool is_ipv6(const char *cidr) {
        return strchr(cidr, ':') != NULL;
}

static int check_cidr(const char *cidr, Error *error) {
        _cleanup_free_ char *address = strdup(cidr);
        const int family = is_ipv6(cidr) ? AF_INET6 : AF_INET;
        struct in6_addr ignored;
        uint64_t prefix;
        char *slash;

        if (!address)
                return error_oom(error);
        slash = strchr(address, '/');
        if (slash)
                *slash = 0;
        if (!slash || parse_u64(slash + 1, &prefix) < 0 || prefix > (family == AF_INET6 ? 128 : 32) ||
            inet_pton(family, address, &ignored) != 1)
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "'%.64s' is no pod CIDR: one looks like 10.88.0.0/16 or fd00:88::/64", cidr);
        return 0;
}

int cni_parse_cidrs(const char *text, char ***ret, Error *error) {
        _cleanup_strv_free_ char **l = NULL;
        size_t n = 0;
        int r;

        r = strv_split(text, ", ", &l);
        if (r < 0)
                return error_oom(error);
        STRV_FOREACH(cidr, l) {
                r = check_cidr(*cidr, error);
                if (r < 0)
                        return r;
                n++;
        }
        if (n == 0 || n > CNI_CIDRS_MAX || (n == 2 && is_ipv6(l[0]) == is_ipv6(l[1])))
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "pod CIDRs '%.128s': there must be one, or one of IPv4 and one of IPv6", text);
        *ret = TAKE_PTR(l);
        return 0;
}

static json_t *fill(const json_t *j, char *const *cidrs, const char *cidr);

static json_t *fill_array(const json_t *j, char *const *cidrs, const char *cidr) {
        const char *first = json_string_value(json_array_get(j, 0));
        const bool each = first && streq(first, EACH);
        json_t *array = json_array();
        char *const one[] = { (char *) cidr, NULL };

        STRV_FOREACH(c, each ? cidrs : (char *const *) one)
                for (size_t i = each ? 1 : 0; i < json_array_size(j); i++)
                        /* Takes the new value also when it fails, and fails for none. */
                        if (json_array_append_new(array, fill(json_array_get(j, i), cidrs, *c)) < 0) {
                                json_decref(array);
                                return NULL;
                        }
        return array;
}

static json_t *fill(const json_t *j, char *const *cidrs, const char *cidr) {
        const char *text = json_string_value(j), *key;
        json_t *object, *value;

        if (json_is_array(j))
                return fill_array(j, cidrs, cidr);
        if (text && streq(text, "@POD_CIDR@"))
                return json_string(cidr);
        if (text && streq(text, "@DEFAULT_ROUTE@"))
                return json_string(is_ipv6(cidr) ? "::/0" : "0.0.0.0/0");
        if (!json_is_object(j))
                return json_deep_copy(j);
        object = json_object();
        json_object_foreach((json_t *) j, key, value)
                if (json_object_set_new(object, key, fill(value, cidrs, cidr)) < 0) {
                        json_decref(object);
                        return NULL;
                }
        return object;
}

int cni_template_fill(const json_t *template, char *const *cidrs, json_t **ret, Error *error) {
        json_t *filled = fill(template, cidrs, cidrs[0]);

        if (!filled)
                return error_oom(error);
        *ret = filled;
        return 0;
}
