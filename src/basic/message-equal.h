#pragma once
/* Whether two decoded messages say the same. */

#include <pb.h>

#include "basic/macro.h"

/* Both decoded by message_decode(), or zeroed; messages with callback fields can't be compared. Entries of maps may come in
 * any order, and Go's clients send them in another one each time. */
bool message_equal(const pb_msgdesc_t *fields, const void *a, const void *b);
