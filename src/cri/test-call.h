#pragma once
/* For the unit tests: calls of the handlers without a transport, and their answers decoded. */

#include "basic/test.h"
#include "cri/test-stub.h"

struct GrpcCall {
        const GrpcMethod *method;
        struct {
                uint8_t *data;
                size_t size;
        } sent[64];
        size_t n_sent;
};

extern GrpcCall call;
extern Error last_error;

/* Runs the cases, quietly, and frees what is left. */
int run_tests(const TestCase *cases, size_t n);

int call_raw(const char *method, const void *data, size_t size);
int call_message(const char *method, const pb_msgdesc_t *fields, const void *request);
#define CALL(method, ...)                                                                                             \
        call_message(#method, runtime_v1_##method##Request_fields, &(runtime_v1_##method##Request){ __VA_ARGS__ })

void decode_reply(size_t i, const pb_msgdesc_t *fields, void *ret);
#define REPLY(method, ret)                                                                                            \
        ({                                                                                                            \
                CHECK_EQ(call.n_sent, 1);                                                                             \
                decode_reply(0, runtime_v1_##method##Response_fields, (ret));                                         \
        })
#define RELEASE(method, reply) pb_release(runtime_v1_##method##Response_fields, (reply))

/* The first digits of the IDs in a list, which is a callback. */
extern char ids[8192];
bool collect_ids(pb_istream_t *stream, const pb_field_iter_t *field, void **arg);
#define LISTED(method, list_field, type)                                                                              \
        ({                                                                                                            \
                runtime_v1_##method##Response _r = { .list_field = { { .decode = collect_ids },                       \
                                                                     (void *) runtime_v1_##type##_fields } };         \
                memset(ids, 0, sizeof ids);                                                                           \
                for (size_t _i = 0; _i < call.n_sent; _i++)                                                           \
                        decode_reply(_i, runtime_v1_##method##Response_fields, &_r);                                  \
                ids;                                                                                                  \
        })
