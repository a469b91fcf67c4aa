/* Containers as machines of systemd-machined, so that machinectl, nss-mymachines and others that look there find them.
 * Only told, never asked: a container doesn't depend on it. machined lets go of it by itself when the unit is gone. */

#include "bus/internal.h"

#include "basic/log.h"

#define NAME_PART 24 /* characters of the pod's and of the container's name: 64 are allowed in all */

/* "web-0-main-5ce6db05": a machine's name is a hostname. */
static void machine_name(const Container *c, char *ret, size_t size) {
        (void) snprintf(ret, size, "%.*s-%.*s-%.8s", NAME_PART, strempty(c->pod->request.config.metadata.name),
                       NAME_PART, strempty(c->request.config.metadata.name), c->id);
        for (char *p = ret; *p; p++)
                if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-", *p))
                        *p = '-';
        if (ret[0] == '-')
                ret[0] = 'x';
}

static int on_registered(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Bus *b = userdata;

        if (!sd_bus_message_is_method_error(m, NULL) || b->told_machines)
                return 0;
        b->told_machines = true;
        log_warning("Containers can't be registered as machines (RegisterMachines=): %s. Is systemd-machined "
                    "installed?",
                    strempty(sd_bus_message_get_error(m)->message));
        return 0;
}

void machine_register(Bus *b, const Container *c) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        uint8_t id[16] = {};
        char name[65];
        int r;

        if (!b->register_machines || c->phase != CONTAINER_RUNNING || c->pid <= 0)
                return;
        machine_name(c, name, sizeof name);
        for (size_t i = 0; i < sizeof id; i++)
                (void) sscanf(c->id + 2 * i, "%2hhx", &id[i]);
        r = sd_bus_message_new_method_call(b->bus, &m, "org.freedesktop.machine1", "/org/freedesktop/machine1",
                                           "org.freedesktop.machine1.Manager", "RegisterMachine");
        if (r >= 0)
                r = sd_bus_message_append(m, "s", name);
        if (r >= 0)
                r = sd_bus_message_append_array(m, 'y', id, sizeof id);
        if (r >= 0)
                r = sd_bus_message_append(m, "ssus", "rktlet", "container", (uint32_t) c->pid, "");
        if (r >= 0)
                r = sd_bus_call_async(b->bus, NULL, m, on_registered, b, 0);
        if (r < 0)
                log_debug_errno(r, "Container %s can't be registered as a machine, ignoring", c->id);
}
