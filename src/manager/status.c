/* What systemctl status shows of a pod: its state, addresses and containers, as the status text of its unit. It is
 * told a moment after the last change, so that a pod in the making is told of once, and short-lived ones not at all.
 */

#include "basic/log.h"
#include "manager/internal.h"

#define STATUS_DELAY_USEC USEC_PER_SEC
#define STATUS_TEXT_MAX 400U /* bytes; the pod's process takes a little more */

static int append_containers(Buffer *b, const Pod *p) {
        const char *separator = "; containers: ";
        int r = 0;

        for (const Container *c = p->containers; c && r >= 0; c = c->pod_next) {
                if (c->phase == CONTAINER_CREATING || c->removed)
                        continue;
                if (b->size > STATUS_TEXT_MAX)
                        return buffer_appendf(b, ", …");
                r = buffer_appendf(b, "%s%s %s", separator, strempty(c->request.config.metadata.name),
                                   container_phase_to_string(c->phase));
                if (r >= 0 && c->phase == CONTAINER_EXITED)
                        r = buffer_appendf(b, " (%d)", c->exit_code);
                separator = ", ";
        }
        return r;
}

static int make_text(const Pod *p, Buffer *b) {
        int r;

        r = buffer_appendf(b, "%s", p->phase == POD_READY ? "Ready" : "Not ready");
        if (r >= 0 && !p->ips)
                r = buffer_appendf(b, ", on the host's network");
        for (char **ip = p->ips; ip && *ip && r >= 0; ip++)
                r = buffer_appendf(b, "%s%s", ip == p->ips ? ", " : " ", *ip);
        return r < 0 ? r : append_containers(b, p);
}

static void tell(Pod *p) {
        _cleanup_(buffer_done) Buffer text = BUFFER_INIT;
        _cleanup_error_ Error error = ERROR_INIT;
        EnginePod view = pod_engine_view(p);

        /* Whoever holds the lock starts or stops it, and there will be something new to tell. */
        if (p->removed || p->lock.owner || p->phase != POD_READY || make_text(p, &text) < 0)
                return;
        /* Names are the kubelet's: one that would end the line is its own fault, not the status's. */
        for (size_t i = 0; i < text.size; i++)
                if ((unsigned char) text.data[i] < ' ')
                        text.data[i] = '?';
        if (p->manager->engine->ops->pod_status(p->manager->engine, &view, text.data, &error) < 0)
                log_debug("The status of pod %s could not be told: %s, ignoring", p->id, strempty(error.message));
}

static int teller_run(void *userdata) {
        Manager *m = userdata;
        bool more = true;

        while (more) {
                more = false;
                for (Pod *p = m->pods; p; p = p->hh.next) {
                        if (!p->status_due)
                                continue;
                        _cleanup_(pod_unrefp) Pod *held = pod_ref(p);
                        held->status_due = false;
                        tell(held);
                        if (fiber_check() < 0)
                                return 0;
                        /* The table may be another now. */
                        more = true;
                        break;
                }
        }
        m->teller = fiber_unref(m->teller);
        return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        Manager *m = userdata;

        m->status_timer = sd_event_source_disable_unref(m->status_timer);
        /* One that is at it sees what has become due. */
        if (!m->teller && fiber_spawn(m->event, "pod-status", teller_run, m, NULL, &m->teller) < 0)
                m->teller = NULL;
        else if (m->teller && fiber_is_done(m->teller))
                m->teller = fiber_unref(m->teller);
        return 0;
}

void status_note_event(Manager *m, ManagerEvent event, Pod *pod) {
        if (!m->engine || !m->engine->ops->pod_status || event == MANAGER_POD_REMOVED || pod->phase != POD_READY)
                return;
        pod->status_due = true;
        if (!m->status_timer && sd_event_add_time_relative(m->event, &m->status_timer, CLOCK_MONOTONIC,
                                                           STATUS_DELAY_USEC, STATUS_DELAY_USEC / 5, on_timer, m) < 0)
                log_debug("The status of pods can't be told, ignoring");
}

void status_done(Manager *m) {
        m->status_timer = sd_event_source_disable_unref(m->status_timer);
        if (m->teller) {
                fiber_cancel(m->teller);
                m->teller = fiber_unref(m->teller);
        }
}
