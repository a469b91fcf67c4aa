/* Attach: the container's streams, of which the pod's process has the descriptors. */

#include "engine/native/exec.h"
#include "pod/pod-protocol.h"
#include "stream/stream.h"

/* The packets go through as they are. */
_Static_assert((int) POD_PACKET_STDIN == (int) STREAM_PACKET_STDIN &&
                               (int) POD_PACKET_STDOUT == (int) STREAM_PACKET_STDOUT &&
                               (int) POD_PACKET_STDERR == (int) STREAM_PACKET_STDERR &&
                               (int) POD_PACKET_STDIN_END == (int) STREAM_PACKET_STDIN_END &&
                               (int) POD_PACKET_RESIZE == (int) STREAM_PACKET_RESIZE &&
                               (int) POD_PACKET_END == (int) STREAM_PACKET_END &&
                               (int) POD_PACKET_OVERRUN == (int) STREAM_PACKET_OVERRUN &&
                               POD_PACKET_MAX == STREAM_PACKET_MAX,
               "stream.h and pod-protocol.h say the same");

int native_container_attach(Engine *engine, const EngineContainer *c, EngineAttachFlags flags, int *ret_fd,
                            Error *error) {
        _cleanup_free_ char *socket_path = strprintf("%s/pod.sock", c->pod->run_directory);
        uint32_t pod_flags = (flags & ENGINE_ATTACH_STDIN ? POD_ATTACH_STDIN : 0U) |
                             (flags & ENGINE_ATTACH_STDOUT ? POD_ATTACH_STDOUT : 0U) |
                             (flags & ENGINE_ATTACH_STDERR ? POD_ATTACH_STDERR : 0U) |
                             (c->config->stdin_once ? POD_ATTACH_STDIN_ONCE : 0U);
        NativeContainer *n = native_container_find(native_engine(engine), c->id);
        int r;

        if (!socket_path)
                return error_oom(error);
        if (!n || n->exiting || !n->watch)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "container %s doesn't run", c->id);
        r = pod_client_attach(socket_path, c->id, pod_flags, ret_fd, error);
        if (r == -EPIPE && error)
                error->code = GRPC_FAILED_PRECONDITION;
        return r;
}
