#include "basic/json-util.h"

#include <zlib.h>

#include "basic/string-util.h"

#define JSON_TEXT_MAX (64U * 1024U * 1024U)
#define JSON_DEPTH_MAX 128U /* jansson's own 2048 would need more stack than a fiber has */

/* Nesting is counted before jansson, which recurses, sees the text. Brackets in strings don't count. */
static bool depth_is_fine(const char *text, size_t size) {
        bool in_string = false;
        size_t depth = 0;

        for (size_t i = 0; i < size; i++) {
                char c = text[i];

                if (in_string) {
                        if (c == '\\')
                                i++;
                        else if (c == '"')
                                in_string = false;
                } else if (c == '"')
                        in_string = true;
                else if (c == '{' || c == '[') {
                        if (++depth > JSON_DEPTH_MAX)
                                return false;
                } else if ((c == '}' || c == ']') && depth > 0)
                        depth--;
        }
        return true;
}

int json_parse(const char *text, size_t size, json_t **ret, Error *error) {
        json_error_t e;
        json_t *j;

        if (size > JSON_TEXT_MAX)
                return error_setf(error, GRPC_INVALID_ARGUMENT, "JSON text of %zu bytes is larger than %u bytes", size,
                                  JSON_TEXT_MAX);
        if (!depth_is_fine(text, size))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "JSON text is nested deeper than %u", JSON_DEPTH_MAX);
        j = json_loadb(text, size, 0, &e);
        if (!j) {
                _cleanup_free_ char *why = utf8_sanitize(e.text);

                return error_setf(error, GRPC_INVALID_ARGUMENT, "not JSON at line %d, column %d: %s", e.line, e.column,
                                  strempty(why));
        }
        *ret = j;
        return 0;
}

const char *json_get_string(const json_t *o, const char *key) {
        return json_string_value(json_object_get(o, key));
}

json_t *json_get_array(const json_t *o, const char *key) {
        json_t *j = json_object_get(o, key);

        return json_is_array(j) ? j : NULL;
}

json_t *json_get_object(const json_t *o, const char *key) {
        json_t *j = json_object_get(o, key);

        return json_is_object(j) ? j : NULL;
}

int json_to_strv(const json_t *j, char ***ret) {
        _cleanup_strv_free_ char **l = NULL;
        size_t i;
        json_t *v;
        int r;

        if (j) {
                if (!json_is_array(j))
                        return -EINVAL;
                l = calloc(json_array_size(j) + 1, sizeof(char *));
                if (!l)
                        return -ENOMEM;
        }
        json_array_foreach((json_t *) j, i, v) {
                if (!json_is_string(v))
                        return -EINVAL;
                r = (l[i] = strdup(json_string_value(v))) ? 0 : -ENOMEM;
                if (r < 0)
                        return r;
        }
        *ret = TAKE_PTR(l);
        return 0;
}

json_t *json_from_strv(char *const *l) {
        _cleanup_json_ json_t *a = json_array();

        STRV_FOREACH(s, l)
                if (json_array_append_new(a, json_string(*s)) < 0)
                        return NULL;
        return TAKE_PTR(a);
}

/* What follows the text that the checksum is of: it takes the place of the object's closing brace. */
#define SEAL_FORMAT ", \"crc32\": \"%08lx\"}\n"
#define SEAL_LENGTH (STRLEN(", \"crc32\": \"\"}\n") + 8)

static void seal_format(const char *text, size_t size, char ret[static SEAL_LENGTH + 1]) {
        (void) snprintf(ret, SEAL_LENGTH + 1, SEAL_FORMAT, crc32_z(0, (const unsigned char *) text, size));
}

char *json_dump_sealed(const json_t *o, size_t flags) {
        _cleanup_free_ char *text = o ? json_dumps(o, flags) : NULL;
        char *sealed;
        size_t n;

        if (!text)
                return NULL;
        n = strlen(text) - 1; /* the brace */
        while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == ' '))
                n--;
        sealed = realloc(text, n + SEAL_LENGTH + 1);
        if (!sealed)
                return NULL;
        text = NULL;
        seal_format(sealed, n, sealed + n);
        return sealed;
}

int json_parse_sealed(const char *text, size_t size, json_t **ret, Error *error) {
        _cleanup_error_ Error why = ERROR_INIT;
        _cleanup_json_ json_t *j = NULL;
        int r;

        if (size == 0) {
                (void) error_setf(error, GRPC_DATA_LOSS, "it is empty");
                return -EBADMSG;
        }
        r = json_parse(text, size, &j, &why);
        if (r == -ENOMEM)
                return error_oom(error);
        if (r < 0) {
                (void) error_setf(error, GRPC_DATA_LOSS, "%s", strempty(why.message));
                return -EBADMSG;
        }
        if (!json_is_object(j)) {
                (void) error_setf(error, GRPC_DATA_LOSS, "it is no JSON object");
                return -EBADMSG;
        }
        if (json_object_get(j, "crc32")) {
                char seal[SEAL_LENGTH + 1];

                if (size > SEAL_LENGTH)
                        seal_format(text, size - SEAL_LENGTH, seal);
                if (size <= SEAL_LENGTH || memcmp(text + size - SEAL_LENGTH, seal, SEAL_LENGTH) != 0) {
                        (void) error_setf(error, GRPC_DATA_LOSS, "its checksum is not that of its contents");
                        return -EBADMSG;
                }
                (void) json_object_del(j, "crc32");
        }
        *ret = TAKE_PTR(j);
        return 0;
}
