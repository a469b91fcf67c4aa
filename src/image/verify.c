#include "image/verify.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "basic/file-util.h"
#include "basic/json-util.h"
#include "basic/log.h"
#include "basic/process.h"
#include "basic/string-util.h"

#define VERIFIER_TIMEOUT_USEC (30 * USEC_PER_SEC)
#define REASON_MAX 1024U
#define DESCRIPTOR_TYPE "application/vnd.oci.descriptor.v1+json"

static int is_verifier(const struct dirent *d) {
        return d->d_name[0] != '.';
}

/* The names, sorted; *ret is NULL when there is none. */
static int list_verifiers(const char *directory, char ***ret) {
        _cleanup_strv_free_ char **l = NULL;
        struct dirent **names;
        int n, r = 0;

        n = isempty(directory) ? 0 : scandir(directory, &names, is_verifier, alphasort);
        if (n < 0 && errno != ENOENT)
                return -errno;
        for (int i = 0; i < n; i++) {
                if (r >= 0)
                        r = strv_extend(&l, names[i]->d_name);
                free(names[i]);
        }
        if (n > 0 || (n == 0 && !isempty(directory)))
                free(names);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(l);
        return 0;
}

bool image_has_verifiers(const char *directory) {
        _cleanup_strv_free_ char **l = NULL;

        /* One that can't be read must not let images pass. */
        return list_verifiers(directory, &l) < 0 || l;
}

static int ask(const char *path, const char *name, const RegistryDocument *document, const char *descriptor, Error *error) {
        const char *const argv[] = { path, "-name", name, "-digest", document->digest, "-stdin-media-type",
                                     DESCRIPTOR_TYPE, NULL };
        _cleanup_(process_result_done) ProcessResult result = {};
        _cleanup_free_ char *why = NULL;
        int r;

        r = process_run(&(ProcessOptions) {
                                .argv = argv,
                                .input = descriptor,
                                .input_size = strlen(descriptor),
                                .output_max = REASON_MAX,
                                .error_max = REASON_MAX,
                                .timeout_usec = VERIFIER_TIMEOUT_USEC,
                                .kill_group = true,
                        },
                        &result, error);
        if (r == -ECANCELED || r == -ETIME)
                return r;
        if (r < 0) {
                if (error_is_set(error))
                        error->code = GRPC_PERMISSION_DENIED;
                return error_prefix(error, r, "verifier %s can't be asked about %s", path, name);
        }
        why = utf8_sanitize(strempty(isempty(result.output) ? result.error : result.output));
        if (why)
                why[strcspn(why, "\n")] = 0;
        if (result.code == CLD_EXITED && result.status == 0) {
                log_debug("Verifier %s agrees to %s@%s: %s", path, name, document->digest, strempty(why));
                return 0;
        }
        return error_setf(error, GRPC_PERMISSION_DENIED, "verifier %s refuses %s@%s: it %s%s%s", path, name,
                          document->digest, process_result_describe(&result), isempty(why) ? "" : ", and says: ",
                          strempty(why));
}

int image_verify(const char *directory, const char *name, const RegistryDocument *document, Error *error) {
        _cleanup_strv_free_ char **names = NULL;
        _cleanup_json_ json_t *o = NULL;
        _cleanup_free_ char *descriptor = NULL, *kept = strdup(strempty(directory));
        int r;

        /* The configuration may be read again meanwhile. */
        if (!kept)
                return error_oom(error);
        directory = kept;
        r = list_verifiers(directory, &names);
        if (r < 0) {
                (void) error_setf(error, GRPC_PERMISSION_DENIED, "cannot read the folder of verifiers %s: %s", directory,
                                  strerror(-r));
                return -EACCES;
        }
        if (!names)
                return 0;
        o = json_pack("{s:s, s:s, s:I}", "mediaType", strempty(document->content_type), "digest", document->digest, "size",
                      (json_int_t) document->size);
        descriptor = o ? json_dumps(o, JSON_COMPACT) : NULL;
        if (!descriptor)
                return error_oom(error);
        STRV_FOREACH(v, names) {
                _cleanup_free_ char *path = strprintf("%s/%s", directory, *v);

                if (!path)
                        return error_oom(error);
                r = ask(path, name, document, descriptor, error);
                if (r < 0)
                        return r;
        }
        return 0;
}
