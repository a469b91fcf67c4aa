/* libFuzzer: whatever is in a configuration file or printed by a plugin is an error, or a network, or addresses. */

#include "basic/json-util.h"
#include "basic/string-util.h"
#include "net/cni-config.h"
#include "net/cni-result.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        _cleanup_(cni_network_done) CniNetwork network = {};
        _cleanup_(cni_result_done) CniResult result = {};
        _cleanup_error_ Error parse_error = ERROR_INIT, network_error = ERROR_INIT, result_error = ERROR_INIT;
        _cleanup_json_ json_t *j = NULL;

        if (json_parse((const char *) data, size, &j, &parse_error) < 0) {
                if (!error_is_set(&parse_error) || !utf8_is_valid(parse_error.message, strlen(parse_error.message)))
                        abort();
                return 0;
        }
        if (cni_network_parse(j, "fuzz", &network, &network_error) < 0 ? !error_is_set(&network_error)
                                                                       : !network.plugins)
                abort();
        if (cni_result_from_json(j, &result, &result_error) < 0 ? !error_is_set(&result_error) : !result.ips)
                abort();
        return 0;
}
