#include "image/curl-library.h"

#include <dlfcn.h>

#include "basic/macro.h"

#define LIBRARY "libcurl.so.4" /* its interface has been the same since 2006 */

CurlLibrary curl;

int curl_library_load(Error *error) {
        static bool loaded;
        CurlLibrary l;
        void *handle;

        if (loaded)
                return 0;
        handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        if (!handle)
                return error_setf(error, GRPC_FAILED_PRECONDITION, "cannot load " LIBRARY ", which fetches images: %s",
                                  dlerror());
        const struct {
                const char *name;
                void **function;
        } functions[] = {
#define CURL_FUNCTION(symbol) { "curl_" #symbol, (void **) &l.symbol },
                CURL_FUNCTIONS(CURL_FUNCTION)
#undef CURL_FUNCTION
        };
        for (size_t i = 0; i < ELEMENTSOF(functions); i++) {
                *functions[i].function = dlsym(handle, functions[i].name);
                if (!*functions[i].function)
                        return error_setf(error, GRPC_FAILED_PRECONDITION, LIBRARY " has no %s", functions[i].name);
        }
        if (l.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
                return error_setf(error, GRPC_INTERNAL, LIBRARY " cannot be used");
        curl = l;
        loaded = true;
        return 0;
}
