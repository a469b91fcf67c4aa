/* libFuzzer: whatever a client sends as a request is decoded or refused; what was decoded can be encoded, and decoding
 * that gives the same bytes again. The first byte chooses the message. */

#include "basic/message.h"
#include "runtime.pb.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUESTS(X)                                                                                                   \
        X(RunPodSandboxRequest)                                                                                       \
        X(CreateContainerRequest)                                                                                     \
        X(ListPodSandboxRequest)                                                                                      \
        X(ListContainersRequest)                                                                                      \
        X(PodSandboxStatusRequest)                                                                                    \
        X(StopContainerRequest)                                                                                       \
        X(ExecSyncRequest)                                                                                            \
        X(PullImageRequest)                                                                                           \
        X(UpdateContainerResourcesRequest)                                                                            \
        X(UpdatePodSandboxResourcesRequest)                                                                           \
        X(PortForwardRequest)

#define MEMBER(name) runtime_v1_##name name;
#define FIELDS(name) runtime_v1_##name##_fields,

typedef union Request {
        REQUESTS(MEMBER)
} Request;

static const pb_msgdesc_t *const requests[] = { REQUESTS(FIELDS) };

static void must(int r) {
        if (r < 0)
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        _cleanup_error_ Error error = ERROR_INIT;
        _cleanup_free_ void *first = NULL, *second = NULL;
        size_t first_size, second_size;
        const pb_msgdesc_t *fields;
        Request request = {}, again = {};

        if (size == 0)
                return 0;
        fields = requests[data[0] % ELEMENTSOF(requests)];
        if (message_decode(fields, data + 1, size - 1, &request, &error) < 0)
                return 0;
        must(message_encode(fields, &request, NULL, SIZE_MAX, &first, &first_size, NULL));
        must(message_decode(fields, first, first_size, &again, NULL));
        must(message_encode(fields, &again, NULL, SIZE_MAX, &second, &second_size, NULL));
        if (first_size != second_size || memcmp(first, second, first_size) != 0)
                abort();
        pb_release(fields, &request);
        pb_release(fields, &again);
        return 0;
}
