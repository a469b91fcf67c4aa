/* libFuzzer: what registries, images and administrators write is read or refused. The first byte chooses the parser.
 */

#include "basic/string-util.h"
#include "image/hosts.h"
#include "image/image-config.h"
#include "image/manifest.h"
#include "image/reference.h"
#include "image/registry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_reference(const char *text) {
        _cleanup_image_reference_ ImageReference r = {}, again = {};
        _cleanup_free_ char *canonical = NULL;

        if (image_reference_parse(text, &r, NULL) < 0)
                return;
        canonical = strprintf("%s%s%s%s%s", r.name, r.tag ? ":" : "", strempty(r.tag), r.digest ? "@" : "",
                              strempty(r.digest));
        /* What is canonical stays as it is. */
        if (!canonical || image_reference_parse(canonical, &again, NULL) < 0 || !streq(r.name, again.name) ||
            !streq_ptr(r.tag, again.tag) || !streq_ptr(r.digest, again.digest))
                abort();
}

static void fuzz_manifest(const char *text, size_t size) {
        static const ImagePlatform platform = {"linux", "amd64", ""};
        _cleanup_image_manifest_ ImageManifest m = {};

        if (image_manifest_parse(text, size, NULL, NULL, &platform, &m, NULL) < 0)
                return;
        if (m.is_index ? !digest_is_valid(m.chosen.digest) : !digest_is_valid(m.config.digest) || m.n_layers == 0)
                abort();
}

static void fuzz_config(const char *text, size_t size) {
        _cleanup_image_config_ ImageConfig c = {};
        _cleanup_strv_free_ char **ids = NULL;

        (void) image_config_parse(text, size, &c, &ids, NULL);
}

static void fuzz_hosts(const char *text) {
        _cleanup_registry_hosts_ RegistryHosts mirrors = {};
        _cleanup_(registry_host_done) RegistryHost origin = {};
        bool fallback = true;

        (void) registry_hosts_parse(text, "fuzz", &mirrors, &origin, &fallback, NULL);
}

static void fuzz_challenge(char *text) {
        _cleanup_auth_challenge_ AuthChallenge c = {};

        (void) auth_challenge_parse((char *[]){text, NULL}, &c);
        free(registry_error_text(text, strlen(text)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        _cleanup_free_ char *text = NULL;

        if (size == 0)
                return 0;
        text = strndup((const char *) data + 1, size - 1);
        if (!text)
                return 0;
        switch (data[0] % 5) {
        case 0:
                fuzz_reference(text);
                break;
        case 1:
                fuzz_manifest(text, strlen(text));
                break;
        case 2:
                fuzz_config(text, strlen(text));
                break;
        case 3:
                fuzz_hosts(text);
                break;
        case 4:
                fuzz_challenge(text);
                break;
        }
        return 0;
}
