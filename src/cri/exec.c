/* Commands in containers: ExecSync. */

#include <inttypes.h>

#include "cri/internal.h"

/* What the message has besides the output: two keys and lengths, and the exit code. */
#define REPLY_OVERHEAD_MAX 64U
#define REPLY_OUTPUT_MAX   (GRPC_MESSAGE_MAX - REPLY_OVERHEAD_MAX)

typedef struct Output {
        const char *data;
        size_t size;
} Output;

static bool put_output(pb_ostream_t *stream, const pb_field_iter_t *field, void *const *arg) {
        const Output *output = *arg;

        return message_put_bytes(stream, field, output->data, output->size);
}

/* Each stream has a cap of its own, but a client takes no message larger than one cap: then each gets at least half.
 */
static void cut_to_fit(Output *out, Output *err) {
        size_t half = REPLY_OUTPUT_MAX / 2, reserved = MIN(err->size, half);

        out->size = MIN(out->size, REPLY_OUTPUT_MAX - reserved);
        err->size = MIN(err->size, REPLY_OUTPUT_MAX - out->size);
}

int cri_exec_sync(CriCall *c, Error *error) {
        const runtime_v1_ExecSyncRequest *request = c->request;
        _cleanup_(engine_exec_result_done) EngineExecResult result = {};
        runtime_v1_ExecSyncResponse response;
        const char **argv;
        Output out, err;
        Container *k;
        int r;

        if (request->cmd_count == 0 || isempty(request->cmd[0]))
                return error_setf(error, GRPC_INVALID_ARGUMENT, "cmd is empty: name a command to execute");
        if (request->timeout < 0)
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "timeout is %" PRId64 " seconds: give 0 for none, or a positive number",
                                  request->timeout);
        r = cri_find_container(c, request->container_id, &k, error);
        if (r < 0)
                return r;

        argv = arena_new(&c->arena, const char *, request->cmd_count + 1U);
        if (!argv)
                return error_oom(error);
        for (size_t i = 0; i < request->cmd_count; i++)
                argv[i] = request->cmd[i];

        r = container_exec_sync(k, argv,
                                (uint64_t) MIN(request->timeout, (int64_t) (INT64_MAX / USEC_PER_SEC)) * USEC_PER_SEC,
                                &result, error);
        if (r == -ETIMEDOUT && !error_is_set(error))
                return error_setf(error, GRPC_DEADLINE_EXCEEDED,
                                  "the command did not end within %" PRId64 " seconds and was killed",
                                  request->timeout);
        if (r < 0)
                return r;

        out = (Output) { result.output, result.output_size };
        err = (Output) { result.error, result.error_size };
        cut_to_fit(&out, &err);
        response = (runtime_v1_ExecSyncResponse) {
                .stdout = { .funcs.encode = put_output, .arg = &out },
                .stderr = { .funcs.encode = put_output, .arg = &err },
                .exit_code = result.exit_code,
        };
        return CRI_REPLY(c, ExecSyncResponse, &response, error);
}
