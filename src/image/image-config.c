/* The config blob: what a container takes from it, and the digests its unpacked layers must have. */

#include "image/image-config.h"

#include "basic/json-util.h"
#include "basic/string-util.h"
#include "image/reference.h"

void image_config_done(ImageConfig *c) {
        if (!c)
                return;
        strv_free(c->env);
        strv_free(c->entrypoint);
        strv_free(c->cmd);
        strv_free(c->volumes);
        strv_free(c->label_keys);
        strv_free(c->label_values);
        free(c->working_dir);
        free(c->user);
        free(c->stop_signal);
        free(c->architecture);
        free(c->os);
        free(c->variant);
        free(c->created);
        *c = (ImageConfig){};
}

static int refuse(Error *error, const char *key) {
        return error_setf(error, GRPC_DATA_LOSS, "The image's config is not valid: \"%s\" is not what it should be",
                          key);
}

/* Go writes null for what is empty: null, missing and of the right type are all fine, anything else is not. */
static int read_string(const json_t *o, const char *key, char **ret, Error *error) {
        const json_t *j = json_object_get(o, key);
        char *s;

        if (!j || json_is_null(j)) {
                *ret = NULL;
                return 0;
        }
        if (!json_is_string(j))
                return refuse(error, key);
        s = strdup(json_string_value(j));
        if (!s)
                return error_oom(error);
        *ret = s;
        return 0;
}

static int read_strv(const json_t *o, const char *key, char ***ret, Error *error) {
        const json_t *j = json_object_get(o, key);
        int r;

        if (!j || json_is_null(j)) {
                *ret = NULL;
                return 0;
        }
        /* Windows images and very old ones have a string here. */
        if (!json_is_array(j))
                return refuse(error, key);
        r = json_to_strv(j, ret);
        if (r == -EINVAL)
                return refuse(error, key);
        return r < 0 ? error_oom(error) : 0;
}

/* The keys of an object and, if ret_values is given, its string values. */
static int read_map(json_t *o, const char *key, char ***ret_keys, char ***ret_values, Error *error) {
        _cleanup_strv_free_ char **keys = NULL, **values = NULL;
        json_t *j = json_object_get(o, key), *v;
        const char *k;

        if (j && !json_is_null(j) && !json_is_object(j))
                return refuse(error, key);
        json_object_foreach(j, k, v) {
                if (ret_values && !json_is_string(v))
                        return refuse(error, key);
                if (strv_extend(&keys, k) < 0 || (ret_values && strv_extend(&values, json_string_value(v)) < 0))
                        return error_oom(error);
        }
        *ret_keys = TAKE_PTR(keys);
        if (ret_values)
                *ret_values = TAKE_PTR(values);
        return 0;
}

int image_config_parse(const char *text, size_t size, ImageConfig *ret, char ***ret_diff_ids, Error *error) {
        _cleanup_image_config_ ImageConfig c = {};
        _cleanup_strv_free_ char **diff_ids = NULL;
        _cleanup_json_ json_t *j = NULL;
        json_t *config;
        int r;

        if (size > CONFIG_SIZE_MAX)
                return error_setf(error, GRPC_RESOURCE_EXHAUSTED, "The image's config is larger than 4 MiB");
        r = json_parse(text, size, &j, /* error= */ NULL);
        if (r == -ENOMEM)
                return error_oom(error);
        if (r < 0 || !json_is_object(j))
                return error_setf(error, GRPC_DATA_LOSS, "The image's config is no JSON object");

        r = read_strv(json_object_get(j, "rootfs"), "diff_ids", &diff_ids, error);
        if (r < 0)
                return r;
        STRV_FOREACH(d, diff_ids)
                if (!digest_is_valid(*d))
                        return error_setf(error, GRPC_UNIMPLEMENTED,
                                          "The image's config has a layer digest that is no sha256 one, which is the "
                                          "only algorithm supported");

        if ((r = read_string(j, "architecture", &c.architecture, error)) < 0 ||
            (r = read_string(j, "os", &c.os, error)) < 0 || (r = read_string(j, "variant", &c.variant, error)) < 0 ||
            (r = read_string(j, "created", &c.created, error)) < 0)
                return r;

        config = json_object_get(j, "config");
        if (config && !json_is_null(config) && !json_is_object(config))
                return refuse(error, "config");
        if ((r = read_strv(config, "Env", &c.env, error)) < 0 ||
            (r = read_strv(config, "Entrypoint", &c.entrypoint, error)) < 0 ||
            (r = read_strv(config, "Cmd", &c.cmd, error)) < 0 ||
            (r = read_string(config, "WorkingDir", &c.working_dir, error)) < 0 ||
            (r = read_string(config, "User", &c.user, error)) < 0 ||
            (r = read_string(config, "StopSignal", &c.stop_signal, error)) < 0 ||
            (r = read_map(config, "Volumes", &c.volumes, NULL, error)) < 0 ||
            (r = read_map(config, "Labels", &c.label_keys, &c.label_values, error)) < 0)
                return r;
        /* "" is how Go leaves it out. */
        if (c.stop_signal && !c.stop_signal[0])
                c.stop_signal = mfree(c.stop_signal);
        if (!c.user && !(c.user = strdup("")))
                return error_oom(error);

        *ret = c;
        c = (ImageConfig){};
        if (ret_diff_ids)
                *ret_diff_ids = TAKE_PTR(diff_ids);
        return 0;
}
