#include "cri/json.h"

#include <pb_common.h>

#include "basic/json-util.h"
#include "basic/string-util.h"
#include "runtime.pb.h"

/* nanopb's descriptors have no names, but the generated field lists have. */
typedef struct FieldName {
        uint32_t tag;
        const char *name;
} FieldName;

typedef struct MessageNames {
        const pb_msgdesc_t *fields;
        const FieldName *names;
        size_t n;
} MessageNames;

#define MESSAGES(X)                                                                                                   \
        X(PodSandboxConfig)                                                                                           \
        X(PodSandboxMetadata)                                                                                         \
        X(DNSConfig)                                                                                                  \
        X(PortMapping)                                                                                                \
        X(LinuxPodSandboxConfig)                                                                                      \
        X(LinuxSandboxSecurityContext)                                                                                \
        X(NamespaceOption)                                                                                            \
        X(UserNamespace)                                                                                              \
        X(IDMapping)                                                                                                  \
        X(SELinuxOption)                                                                                              \
        X(Int64Value)                                                                                                 \
        X(SecurityProfile)                                                                                            \
        X(LinuxContainerResources)                                                                                    \
        X(HugepageLimit)                                                                                              \
        X(ContainerConfig)                                                                                            \
        X(ContainerMetadata)                                                                                          \
        X(ImageSpec)                                                                                                  \
        X(KeyValue)                                                                                                   \
        X(Mount)                                                                                                      \
        X(Device)                                                                                                     \
        X(CDIDevice)                                                                                                  \
        X(LinuxContainerConfig)                                                                                       \
        X(LinuxContainerSecurityContext)                                                                              \
        X(Capability)

#define FIELD_NAME(unused, allocation, label, type, field, number) { (number), #field },
#define NAMES(message) \
        static const FieldName names_##message[] = { runtime_v1_##message##_FIELDLIST(FIELD_NAME, 0) };
MESSAGES(NAMES)
#define ENTRY(message) { runtime_v1_##message##_fields, names_##message, ELEMENTSOF(names_##message) },
static const MessageNames messages[] = { MESSAGES(ENTRY) };

static const pb_msgdesc_t *const maps[] = {
        runtime_v1_PodSandboxConfig_LabelsEntry_fields,       runtime_v1_PodSandboxConfig_AnnotationsEntry_fields,
        runtime_v1_LinuxPodSandboxConfig_SysctlsEntry_fields, runtime_v1_LinuxContainerResources_UnifiedEntry_fields,
        runtime_v1_ContainerConfig_LabelsEntry_fields,        runtime_v1_ContainerConfig_AnnotationsEntry_fields,
        runtime_v1_ImageSpec_AnnotationsEntry_fields,
};

static const MessageNames *find_names(const pb_msgdesc_t *fields) {
        for (size_t i = 0; i < ELEMENTSOF(messages); i++)
                if (messages[i].fields == fields)
                        return &messages[i];
        return NULL;
}

static const char *field_name(const MessageNames *m, uint32_t tag) {
        for (size_t i = 0; i < m->n; i++)
                if (m->names[i].tag == tag)
                        return m->names[i].name;
        return NULL;
}

static bool is_map(const pb_msgdesc_t *fields) {
        for (size_t i = 0; i < ELEMENTSOF(maps); i++)
                if (maps[i] == fields)
                        return true;
        return false;
}

/* All of these have the same shape, see describe.c. */
static json_t *map_to_json(const runtime_v1_PodSandboxConfig_LabelsEntry *entries, size_t n) {
        json_t *o = json_object();

        for (size_t i = 0; i < n && o; i++)
                if (json_object_set_new(o, strempty(entries[i].key), json_string(strempty(entries[i].value))) < 0) {
                        json_decref(o);
                        return NULL;
                }
        return o;
}

static json_t *number_to_json(const pb_field_iter_t *field, const void *p) {
        switch (PB_LTYPE(field->type)) {
        case PB_LTYPE_BOOL:
                return json_boolean(*(const bool *) p);
        case PB_LTYPE_VARINT:
                return json_integer(field->data_size == 8 ? *(const int64_t *) p : *(const int32_t *) p);
        default:
                /* Enums are unsigned here. */
                return json_integer(field->data_size == 8
                                                    ? (json_int_t) MIN(*(const uint64_t *) p, (uint64_t) INT64_MAX)
                                                    : (json_int_t) *(const uint32_t *) p);
        }
}

static json_t *bytes_to_json(const pb_bytes_array_t *b) {
        _cleanup_free_ char *raw = strndup((const char *) b->bytes, b->size);
        _cleanup_free_ char *text = raw ? utf8_sanitize(raw) : NULL;

        return text ? json_string(text) : NULL;
}

/* Values of the environment are strings that need not be UTF-8. */
static json_t *text_to_json(const char *s) {
        json_t *j = json_string(strempty(s));
        _cleanup_free_ char *text = j ? NULL : utf8_sanitize(strempty(s));

        return j ? j : text ? json_string(text) : NULL;
}

static json_t *value_to_json(const pb_field_iter_t *field, const void *p) {
        switch (PB_LTYPE(field->type)) {
        case PB_LTYPE_STRING:
                return text_to_json(p);
        case PB_LTYPE_BYTES:
                return bytes_to_json(p);
        case PB_LTYPE_SUBMESSAGE:
                return message_to_json(field->submsg_desc, p);
        default:
                return number_to_json(field, p);
        }
}

static json_t *list_to_json(const pb_field_iter_t *field, size_t n) {
        const char *p = field->pData;
        json_t *a = json_array();

        for (size_t i = 0; i < n && a; i++) {
                const void *item = p + i * field->data_size;

                if (PB_LTYPE(field->type) == PB_LTYPE_STRING)
                        item = *(const char *const *) item;
                if (json_array_append_new(a, value_to_json(field, item)) < 0) {
                        json_decref(a);
                        return NULL;
                }
        }
        return a;
}

static bool is_zero(const pb_field_iter_t *field) {
        static const uint8_t zeros[8];

        if (!field->pData)
                return true;
        switch (PB_LTYPE(field->type)) {
        case PB_LTYPE_STRING:
                return !*(const char *) field->pData;
        case PB_LTYPE_BYTES:
                return ((const pb_bytes_array_t *) field->pData)->size == 0;
        case PB_LTYPE_SUBMESSAGE:
                return !field->pSize || !*(const bool *) field->pSize;
        default:
                return memcmp(field->pData, zeros, field->data_size) == 0;
        }
}

static bool is_known(const pb_field_iter_t *field) {
        return PB_LTYPE(field->type) != PB_LTYPE_SUBMESSAGE || is_map(field->submsg_desc) ||
               find_names(field->submsg_desc);
}

json_t *message_to_json(const pb_msgdesc_t *fields, const void *message) {
        const MessageNames *names = find_names(fields);
        json_t *o = json_object();
        pb_field_iter_t field;

        if (!o || !names || !pb_field_iter_begin_const(&field, fields, message))
                return o;
        do {
                json_t *value;

                if (!is_known(&field))
                        continue;
                if (PB_HTYPE(field.type) == PB_HTYPE_REPEATED) {
                        size_t n = *(const pb_size_t *) field.pSize;

                        if (n == 0)
                                continue;
                        value = PB_LTYPE(field.type) == PB_LTYPE_SUBMESSAGE && is_map(field.submsg_desc)
                                                ? map_to_json(field.pData, n)
                                                : list_to_json(&field, n);
                } else if (is_zero(&field))
                        continue;
                else
                        value = value_to_json(&field, field.pData);
                if (json_object_set_new(o, field_name(names, field.tag), value) < 0) {
                        json_decref(o);
                        return NULL;
                }
        } while (pb_field_iter_next(&field));
        return o;
}

json_t *json_from_text(const char *text) {
        json_t *j;

        /* With json_parse()'s limits: some of it comes with images. */
        return text && json_parse(text, strlen(text), &j, NULL) >= 0 ? j : json_null();
}

int json_to_arena(json_t *j, Arena *arena, char **ret, Error *error) {
        _cleanup_free_ char *text = j ? json_dumps(j, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;

        *ret = text ? arena_strdup(arena, text) : NULL;
        return *ret ? 0 : error_oom(error);
}
