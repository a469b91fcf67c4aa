/* YAML as JSON, for files that are written by either. */

#include <yaml.h>

#include "basic/json-util.h"
#include "basic/string-util.h"
#include "engine/native/cdi-spec.h"

#define DEPTH_MAX 32U
#define NODES_MAX 200000U

typedef struct Reader {
        yaml_parser_t parser;
        unsigned depth, n_nodes;
        Error *error;
} Reader;

static void reader_done(Reader *r) {
        yaml_parser_delete(&r->parser);
}

static void event_done(yaml_event_t *e) {
        yaml_event_delete(e);
}
#define _cleanup_event_ _cleanup_(event_done)

static int refuse(Reader *r, const yaml_mark_t *where, const char *why) {
        return error_setf(r->error, GRPC_FAILED_PRECONDITION, "it is no such YAML: line %zu: %s", where->line + 1, why);
}

static int next_event(Reader *r, yaml_event_t *ret) {
        if (yaml_parser_parse(&r->parser, ret))
                return 0;
        if (r->parser.error == YAML_MEMORY_ERROR)
                return error_oom(r->error);
        return refuse(r, &r->parser.problem_mark, r->parser.problem ?: "it can't be read");
}

/* A plain scalar: null, a truth value, an integer (0x, 0o and the octal ones of YAML 1.1, too), else a string. */
static json_t *plain_value(const char *s) {
        static const char *const nulls[] = { "", "~", "null", "Null", "NULL" };
        static const char *const truths[] = { "true", "True", "TRUE", "false", "False", "FALSE" };
        const char *digits = s + (*s == '-' || *s == '+');
        int base = 10;
        long long v;
        char *end;

        for (size_t i = 0; i < ELEMENTSOF(nulls); i++)
                if (streq(s, nulls[i]))
                        return json_null();
        for (size_t i = 0; i < ELEMENTSOF(truths); i++)
                if (streq(s, truths[i]))
                        return json_boolean(i < 3);
        if (startswith(digits, "0x"))
                base = 16, digits += 2;
        else if (startswith(digits, "0o"))
                base = 8, digits += 2;
        else if (digits[0] == '0' && digits[1])
                base = 8;
        if (digits[0] < '0' || (digits[0] > '9' && base != 16))
                return json_string(s);
        errno = 0;
        v = strtoll(digits, &end, base);
        if (errno != 0 || *end || end == digits)
                return json_string(s);
        return json_integer(*s == '-' ? -v : v);
}

static json_t *scalar(const yaml_event_t *e) {
        const char *s = (const char *) e->data.scalar.value;

        if (strlen(s) != e->data.scalar.length)
                return NULL; /* a NUL in it */
        return e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? plain_value(s) : json_string(s);
}

static int read_node(Reader *r, const yaml_event_t *e, json_t **ret);

static int read_sequence(Reader *r, json_t **ret) {
        _cleanup_json_ json_t *a = json_array();
        int k;

        if (!a)
                return error_oom(r->error);
        for (;;) {
                _cleanup_event_ yaml_event_t e = {};
                json_t *j = NULL;

                k = next_event(r, &e);
                if (k < 0)
                        return k;
                if (e.type == YAML_SEQUENCE_END_EVENT)
                        break;
                k = read_node(r, &e, &j);
                if (k < 0)
                        return k;
                if (json_array_append_new(a, j) < 0)
                        return error_oom(r->error);
        }
        *ret = TAKE_PTR(a);
        return 0;
}

static int read_mapping(Reader *r, json_t **ret) {
        _cleanup_json_ json_t *o = json_object();
        int k;

        if (!o)
                return error_oom(r->error);
        for (;;) {
                _cleanup_event_ yaml_event_t key = {}, e = {};
                const char *name;
                json_t *j = NULL;

                k = next_event(r, &key);
                if (k < 0)
                        return k;
                if (key.type == YAML_MAPPING_END_EVENT)
                        break;
                if (key.type != YAML_SCALAR_EVENT)
                        return refuse(r, &key.start_mark, "a key is no plain word");
                name = (const char *) key.data.scalar.value;
                if (json_object_get(o, name))
                        return refuse(r, &key.start_mark, "a key is there twice");
                k = next_event(r, &e);
                if (k >= 0)
                        k = read_node(r, &e, &j);
                if (k < 0)
                        return k;
                if (json_object_set_new(o, name, j) < 0)
                        return error_oom(r->error);
        }
        *ret = TAKE_PTR(o);
        return 0;
}

/* Aliases could make a short text a long one. */
static int read_node(Reader *r, const yaml_event_t *e, json_t **ret) {
        json_t *j;
        int k;

        if (++r->n_nodes > NODES_MAX)
                return refuse(r, &e->start_mark, "there is too much in it");
        switch (e->type) {
        case YAML_SCALAR_EVENT:
                j = scalar(e);
                if (!j)
                        return refuse(r, &e->start_mark, "a text has a NUL in it, or is no UTF-8");
                *ret = j;
                return 0;
        case YAML_SEQUENCE_START_EVENT:
        case YAML_MAPPING_START_EVENT:
                if (++r->depth > DEPTH_MAX)
                        return refuse(r, &e->start_mark, "it is nested too deep");
                k = e->type == YAML_SEQUENCE_START_EVENT ? read_sequence(r, ret) : read_mapping(r, ret);
                r->depth--;
                return k;
        case YAML_ALIAS_EVENT:
                return refuse(r, &e->start_mark, "aliases are not taken");
        default:
                return refuse(r, &e->start_mark, "it ends too early");
        }
}

int yaml_to_json(const char *text, size_t size, json_t **ret, Error *error) {
        _cleanup_(reader_done) Reader r = { .error = error };
        _cleanup_json_ json_t *j = NULL;
        static const yaml_event_type_t around[] = {
                YAML_STREAM_START_EVENT, YAML_DOCUMENT_START_EVENT, YAML_NO_EVENT /* the node */, YAML_DOCUMENT_END_EVENT,
                YAML_STREAM_END_EVENT,
        };
        int k;

        if (!yaml_parser_initialize(&r.parser))
                return error_oom(error);
        yaml_parser_set_input_string(&r.parser, (const unsigned char *) text, size);
        for (size_t i = 0; i < ELEMENTSOF(around); i++) {
                _cleanup_event_ yaml_event_t e = {};

                k = next_event(&r, &e);
                if (k >= 0 && around[i] == YAML_NO_EVENT)
                        k = read_node(&r, &e, &j);
                else if (k >= 0 && e.type != around[i])
                        k = refuse(&r, &e.start_mark, "it is not one document");
                if (k < 0)
                        return k;
        }
        *ret = TAKE_PTR(j);
        return 0;
}
