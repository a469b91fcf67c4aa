#include "cri/test-call.h"

/* --- the transport ---------------------------------------------------------------------------------------------- */

void *grpc_message_alloc(size_t size) {
        return malloc(size);
}
void *grpc_message_realloc(void *message, size_t size) {
        return realloc(message, size);
}
void grpc_message_free(void *message) {
        free(message);
}
int grpc_call_send_take(GrpcCall *c, void *message, size_t size) {
        CHECK(c->n_sent < ELEMENTSOF(c->sent));
        CHECK(size <= GRPC_MESSAGE_MAX);
        c->sent[c->n_sent].data = message;
        c->sent[c->n_sent++].size = size;
        return 0;
}
const GrpcMethod *grpc_call_method(const GrpcCall *c) {
        return c->method;
}

/* --- calling ---------------------------------------------------------------------------------------------------- */

GrpcCall call;
Error last_error;

static void clear_call(void) {
        for (size_t i = 0; i < call.n_sent; i++)
                free(call.sent[i].data);
        call = (GrpcCall) {};
        error_clear(&last_error);
}

int call_raw(const char *method, const void *data, size_t size) {
        const GrpcMethod *m;

        clear_call();
        for (m = cri_methods(); m->path; m++)
                if (streq(strrchr(m->path, '/') + 1, method))
                        break;
        CHECK(m->path);
        call.method = m;
        return m->handler(&call, data, size, cri, &last_error);
}

int call_message(const char *method, const pb_msgdesc_t *fields, const void *request) {
        _cleanup_free_ void *data = NULL;
        size_t size;

        CHECK_EQ(message_encode(fields, request, NULL, SIZE_MAX, &data, &size, NULL), 0);
        return call_raw(method, data, size);
}

void decode_reply(size_t i, const pb_msgdesc_t *fields, void *ret) {
        pb_istream_t stream;

        CHECK(i < call.n_sent);
        stream = pb_istream_from_buffer(call.sent[i].data, call.sent[i].size);
        CHECK(pb_decode(&stream, fields, ret));
}

/* Lists are callbacks: the first byte of each entry's ID is enough to know it. */
char ids[8192];
bool collect_ids(pb_istream_t *stream, const pb_field_iter_t *field, void **arg) {
        const pb_msgdesc_t *fields = *arg;
        union {
                runtime_v1_PodSandbox pod;
                runtime_v1_Container container;
                runtime_v1_Image image;
        } u = {};
        const char *id;

        CHECK(pb_decode(stream, fields, &u));
        id = fields == runtime_v1_PodSandbox_fields  ? u.pod.id
             : fields == runtime_v1_Container_fields ? u.container.id
                                                     : u.image.id;
        if (strlen(ids) < sizeof ids - 1)
                ids[strlen(ids)] = startswith(id, "sha256:") ? id[7] : id[0];
        pb_release(fields, &u);
        return true;
}


int run_tests(const TestCase *cases, size_t n) {
        int r;

        /* The failures are wanted. */
        log_set_max_level(LOG_CRIT);
        r = test_main(cases, n);
        clear_call();
        free(stub.argv);
        free(stub.auth);
        HASH_CLEAR(hh, manager.pods);
        HASH_CLEAR(hh, manager.containers);
        cri = cri_free(cri);
        return r;
}
