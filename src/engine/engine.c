/* What all engines share: the results they hand out. */

#include "engine/engine.h"

void engine_container_info_done(EngineContainerInfo *i) {
        free(i->supplementary_groups);
        *i = (EngineContainerInfo) {};
}

void engine_exec_result_done(EngineExecResult *r) {
        free(r->output);
        free(r->error);
        *r = (EngineExecResult) {};
}
