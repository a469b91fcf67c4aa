#pragma once
/* Our own D-Bus interface, org.rktlet1 on the system bus: the node's pods and containers as objects, for people and
 * their tools (rktletctl, busctl). See org.rktlet1(5). Without a system bus the daemon does its work all the same. */

#include <systemd/sd-event.h>

#include "basic/error.h"
#include "basic/macro.h"
#include "manager/manager.h"

typedef struct Bus Bus;

/* Connects, now or when the bus appears. manager is borrowed. address NULL: the system bus. */
int bus_new(sd_event *event, Manager *manager, const char *address, Bus **ret);
/* After bus_drain_wait(), or before any method was called. */
Bus *bus_free(Bus *b);
DEFINE_TRIVIAL_CLEANUP_FUNC(Bus *, bus_free);
/* Containers that are started from now on are registered with systemd-machined. */
void bus_set_register_machines(Bus *b, bool yes);
/* Whether the name org.rktlet1 is ours now. */
bool bus_is_served(const Bus *b);
/* manager_load() is done: objects appear from now on, and those that are there are announced. */
void bus_set_loaded(Bus *b);
/* (fiber) Gives the name up, cancels the methods that are under way and waits for their end. */
void bus_drain_wait(Bus *b);
