#pragma once
/* MESSAGE_ID= of entries in the journal that somebody may look for, or want to have explained: units/rktlet.catalog has a
 * text for each ("journalctl -x"). An ID never changes its meaning. */

#define MESSAGE_READY "MESSAGE_ID=def614ee9ad84dacb0491c9dc61a627a" /* the daemon serves, and knows what there was at its start */
#define MESSAGE_CALL_FAILED "MESSAGE_ID=ab33e3dcf61dc5552720d80cfc0aa6a0" /* a CRI call failed */
#define MESSAGE_CONTAINER_EXITED "MESSAGE_ID=9eeb1e1bff6f4de61a94ea8afd8c5994" /* with something else than 0 */
#define MESSAGE_CONTAINER_OOM "MESSAGE_ID=21e08333bdd25f19e972f078ea66145e" /* a container was killed, or some of it, since its memory was used up */
#define MESSAGE_POD_ENDED "MESSAGE_ID=dd33a39d6a730f78f429884edfbe5fb7" /* by itself */
