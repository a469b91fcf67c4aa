/* What happens without anybody having asked for it, told in the journal: containers that end with an error, pods that
 * end by themselves. What was asked for is told by whoever asked. */

#include "basic/log.h"
#include "basic/message-id.h"
#include "manager/internal.h"

int log_fields_of(const Pod *p, const Container *c, char ***fields) {
        const runtime_v1_PodSandboxMetadata *m = &p->request.config.metadata;
        int r;

        r = strv_extendf(fields, "POD_ID=%s", p->id);
        if (r >= 0)
                r = strv_extendf(fields, "POD_NAMESPACE=%s", strempty(m->namespace));
        if (r >= 0)
                r = strv_extendf(fields, "POD_NAME=%s", strempty(m->name));
        if (r >= 0)
                r = strv_extendf(fields, "POD_UID=%s", strempty(m->uid));
        if (r < 0 || !c)
                return r;
        r = strv_extendf(fields, "CONTAINER_ID=%s", c->id);
        return r < 0 ? r : strv_extendf(fields, "CONTAINER_NAME=%s", strempty(c->request.config.metadata.name));
}

static void container_exited(const Pod *p, const Container *c) {
        const runtime_v1_PodSandboxMetadata *m = &p->request.config.metadata;
        const char *name = strempty(c->request.config.metadata.name);
        _cleanup_strv_free_ char **fields = NULL;

        if (strv_extend(&fields, c->oom_killed ? MESSAGE_CONTAINER_OOM : MESSAGE_CONTAINER_EXITED) < 0 ||
            log_fields_of(p, c, &fields) < 0 || strv_extendf(&fields, "EXIT_CODE=%d", c->exit_code) < 0 ||
            strv_extendf(&fields, "OBJECT_SYSTEMD_UNIT=%s", c->unit) < 0)
                return;
        if (c->oom_killed)
                log_struct(LOG_WARNING, (const char *const *) fields,
                           "Container %s of pod %s/%s ran out of memory and was killed", name, strempty(m->namespace),
                           strempty(m->name));
        else
                log_struct(LOG_INFO, (const char *const *) fields,
                           "Container %s of pod %s/%s ended with exit code %d (%s)", name, strempty(m->namespace),
                           strempty(m->name), c->exit_code, strempty(c->reason));
}

static void pod_ended(const Pod *p) {
        const runtime_v1_PodSandboxMetadata *m = &p->request.config.metadata;
        _cleanup_strv_free_ char **fields = NULL;

        if (strv_extend(&fields, MESSAGE_POD_ENDED) >= 0 && log_fields_of(p, NULL, &fields) >= 0 &&
            strv_extendf(&fields, "OBJECT_SYSTEMD_UNIT=%s", p->unit) >= 0)
                log_struct(LOG_WARNING, (const char *const *) fields, "Pod %s/%s ended by itself",
                           strempty(m->namespace), strempty(m->name));
}

void journal_note_event(ManagerEvent event, const Pod *p, const Container *c) {
        if (event == MANAGER_CONTAINER_STOPPED && (c->exit_code != 0 || c->oom_killed))
                container_exited(p, c);
        /* Who stops it holds its lock. */
        if (event == MANAGER_POD_CHANGED && p->phase == POD_NOT_READY && !p->lock.owner)
                pod_ended(p);
}
