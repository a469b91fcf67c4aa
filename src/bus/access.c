/* Who may do what, looked at before any method: root all; others may read, if polkit's policy (org.rktlet1.policy)
 * lets them; whatever changes something is for root alone. The D-Bus policy keeps signals from others. */

#include "bus/internal.h"

#include <utlist.h>

#include "basic/log.h"

#define POLKIT_ALLOW_INTERACTION 1U
#define POLKIT_USEC (120 * USEC_PER_SEC) /* somebody may have to type a password */

/* A message that waits for what the bus, or polkit, says of its sender. */
struct Query {
        Bus *bus;
        sd_bus_message *message;
        sd_bus_slot *slot;
        bool allowed; /* it is dispatched again */
        Query *prev, *next;
};

static void query_free(Query *q) {
        DL_DELETE(q->bus->queries, q);
        q->bus->n_queries--;
        sd_bus_slot_unref(q->slot);
        sd_bus_message_unref(q->message);
        free(q);
}

static Query *query_find(Bus *b, sd_bus_message *m) {
        Query *q = NULL;

        DL_FOREACH(b->queries, q)
                if (q->message == m)
                        return q;
        return NULL;
}

static int query_new(Bus *b, sd_bus_message *m, Query **ret, sd_bus_error *error) {
        Query *q = NULL;

        if (b->n_queries >= QUERIES_MAX)
                return sd_bus_error_setf(error, SD_BUS_ERROR_LIMITS_EXCEEDED,
                                         "%u callers wait for their authorization already; try again later",
                                         QUERIES_MAX);
        q = calloc(1, sizeof *q);
        if (!q)
                return -ENOMEM;
        *q = (Query) { .bus = b, .message = sd_bus_message_ref(m) };
        DL_APPEND(b->queries, q);
        b->n_queries++;
        *ret = q;
        return 0;
}

void access_forget(Bus *b) {
        while (b->queries)
                query_free(b->queries);
        for (size_t i = 0; i < CALLERS_MAX; i++)
                b->callers[i].name = mfree(b->callers[i].name);
}

static const Caller *caller_find(const Bus *b, const char *name) {
        for (size_t i = 0; i < CALLERS_MAX; i++)
                if (b->callers[i].name && streq(b->callers[i].name, name))
                        return &b->callers[i];
        return NULL;
}

static int caller_remember(Bus *b, const char *name, uint32_t uid) {
        Caller *c = &b->callers[b->next_caller++ % CALLERS_MAX];
        char *copy = strdup(name);

        if (!copy)
                return -ENOMEM;
        free(c->name);
        *c = (Caller) { .name = copy, .uid = uid };
        return 0;
}

/* Whether the message only looks. */
static bool only_reads(sd_bus_message *m) {
        static const char *const members[] = { "ListPods",   "ListContainers", "ListImages", "ListUsage", "ListPulls",
                                               "GetPod",     "GetContainer",   "GetImage" };
        const char *interface = strempty(sd_bus_message_get_interface(m)),
                   *member = strempty(sd_bus_message_get_member(m));

        if (streq(interface, "org.freedesktop.DBus.Properties"))
                return streq(member, "Get") || streq(member, "GetAll");
        if (streq(interface, "org.freedesktop.DBus.Introspectable") ||
            streq(interface, "org.freedesktop.DBus.ObjectManager"))
                return true;
        if (streq(interface, MANAGER_INTERFACE))
                for (size_t i = 0; i < ELEMENTSOF(members); i++)
                        if (streq(member, members[i]))
                                return true;
        return false;
}

static int deny(sd_bus_message *m, const char *why) {
        int r;

        r = sd_bus_reply_method_errorf(m, SD_BUS_ERROR_ACCESS_DENIED, "%s", why);
        if (r < 0)
                log_debug_errno(r, "A caller who may not call got no reply, ignoring");
        return 1;
}

static int dispatch_again(Query *q) {
        int r;

        r = sd_bus_enqueue_for_read(q->bus->bus, q->message);
        if (r < 0) {
                (void) deny(q->message, "rktlet could not look at the call again");
                query_free(q);
        }
        return 1;
}

static int on_polkit(sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        int authorized = 0, challenge = 0;
        Query *q = userdata;

        if (sd_bus_message_is_method_error(reply, NULL)) {
                log_debug("polkit does not answer: %s", strempty(sd_bus_message_get_error(reply)->message));
                (void) deny(q->message,
                           "Only root may look at rktlet: polkit, which could allow it to others, is not there");
                query_free(q);
                return 1;
        }
        if (sd_bus_message_enter_container(reply, 'r', "bba{ss}") < 0 ||
            sd_bus_message_read(reply, "bb", &authorized, &challenge) < 0)
                authorized = false;
        if (!authorized) {
                (void) deny(q->message, challenge ? "Authentication is required to look at rktlet (" READ_ACTION ")"
                                                  : "Not authorized to look at rktlet (" READ_ACTION ")");
                query_free(q);
                return 1;
        }
        q->allowed = true;
        return dispatch_again(q);
}

static int ask_polkit(Bus *b, sd_bus_message *m, sd_bus_error *error) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *call = NULL;
        Query *q = NULL;
        int r;

        r = sd_bus_message_new_method_call(b->bus, &call, "org.freedesktop.PolicyKit1",
                                           "/org/freedesktop/PolicyKit1/Authority",
                                           "org.freedesktop.PolicyKit1.Authority", "CheckAuthorization");
        if (r < 0)
                return r;
        r = sd_bus_message_append(call, "(sa{sv})sa{ss}us", "system-bus-name", 1, "name", "s",
                                  sd_bus_message_get_sender(m), READ_ACTION, 0,
                                  sd_bus_message_get_allow_interactive_authorization(m) > 0 ? POLKIT_ALLOW_INTERACTION
                                                                                           : 0,
                                  "");
        if (r < 0)
                return r;
        r = query_new(b, m, &q, error);
        if (r < 0)
                return r;
        r = sd_bus_call_async(b->bus, &q->slot, call, on_polkit, q, POLKIT_USEC);
        if (r < 0) {
                query_free(q);
                return r;
        }
        return 1;
}

static int on_user(sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        Query *q = userdata;
        uint32_t uid;

        if (sd_bus_message_is_method_error(reply, NULL) || sd_bus_message_read(reply, "u", &uid) < 0 ||
            caller_remember(q->bus, sd_bus_message_get_sender(q->message), uid) < 0) {
                /* It is gone already, most likely. */
                (void) deny(q->message, "The bus does not know who calls");
                query_free(q);
                return 1;
        }
        q->slot = sd_bus_slot_unref(q->slot);
        return dispatch_again(q);
}

static int ask_user(Bus *b, sd_bus_message *m, const char *sender, sd_bus_error *error) {
        Query *q = NULL;
        int r;

        r = query_new(b, m, &q, error);
        if (r < 0)
                return r;
        r = sd_bus_call_method_async(b->bus, &q->slot, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                     "org.freedesktop.DBus", "GetConnectionUnixUser", on_user, q, "s", sender);
        if (r < 0) {
                query_free(q);
                return r;
        }
        return 1;
}

int access_filter(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *sender = sd_bus_message_get_sender(m);
        Bus *b = userdata;
        const Caller *c;
        Query *q = NULL;

        if (!sd_bus_message_is_method_call(m, NULL, NULL) || !sender)
                return 0;
        q = query_find(b, m);
        if (q) {
                bool allowed = q->allowed;

                query_free(q);
                if (allowed)
                        return 0;
        }
        c = caller_find(b, sender);
        if (!c)
                return ask_user(b, m, sender, error);
        if (c->uid == 0 || c->uid == geteuid())
                return 0;
        if (!only_reads(m))
                return deny(m, "Only root may do this with rktlet");
        return ask_polkit(b, m, error);
}
