#pragma once
/* libcurl, loaded when the first request is made. With the thirty libraries that it needs itself it is larger than all
 * the rest of the daemon and takes as long to load; and most of its life a daemon fetches nothing. */

#define CURL_DISABLE_TYPECHECK 1
#include <curl/curl.h>

#include "basic/error.h"

#define CURL_FUNCTIONS(F)                                                                                              \
        F(easy_cleanup)                                                                                                \
        F(easy_getinfo)                                                                                                \
        F(easy_init)                                                                                                   \
        F(easy_pause)                                                                                                  \
        F(easy_setopt)                                                                                                 \
        F(easy_strerror)                                                                                               \
        F(global_init)                                                                                                 \
        F(multi_add_handle)                                                                                            \
        F(multi_assign)                                                                                                \
        F(multi_cleanup)                                                                                               \
        F(multi_info_read)                                                                                             \
        F(multi_init)                                                                                                  \
        F(multi_remove_handle)                                                                                         \
        F(multi_setopt)                                                                                                \
        F(multi_socket_action)                                                                                         \
        F(slist_append)                                                                                                \
        F(slist_free_all)

/* curl.easy_init() is curl_easy_init(3), and so on. */
typedef struct CurlLibrary {
#define CURL_FUNCTION(name) __typeof__(curl_##name) *name;
        CURL_FUNCTIONS(CURL_FUNCTION)
#undef CURL_FUNCTION
} CurlLibrary;

extern CurlLibrary curl;

/* Before anything else; at once when it is loaded. FailedPrecondition where it is not installed. */
int curl_library_load(Error *error);
