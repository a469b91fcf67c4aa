#pragma once
/* Inside src/systemd: putting a UnitProperties list into a message. */

#include "systemd/systemd.h"

/* Appends the list as a(sv). Returns the first failure remembered while the list grew (-ENOMEM, -EINVAL), too. */
int unit_properties_append(const UnitProperties *p, sd_bus_message *m);
/* The Description among them, or NULL. Borrowed. */
const char *unit_properties_description(const UnitProperties *p);
