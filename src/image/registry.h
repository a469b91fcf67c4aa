#pragma once
/* The distribution protocol (registry API v2), as a client: manifests and blobs of one repository, from its mirrors
 * and its registry, with authentication, redirects and retries. */

#include "image/hosts.h"
#include "image/http.h"
#include "image/image.h"
#include "image/reference.h"

typedef struct RegistrySession RegistrySession;

/* A session is about one repository and one caller's credentials (copied; auth may be NULL). */
int registry_session_new(HttpClient *http, const ImageReference *reference, const ImageAuth *auth,
                         const char *registries_directory, uint64_t progress_timeout_usec, RegistrySession **ret,
                         Error *error);
RegistrySession *registry_session_ref(RegistrySession *s);
RegistrySession *registry_session_unref(RegistrySession *s);
DEFINE_TRIVIAL_CLEANUP_FUNC(RegistrySession *, registry_session_unref);

typedef struct RegistryDocument {
        char *text; /* NUL-terminated */
        size_t size;
        char *content_type;
        char digest[72]; /* computed */
} RegistryDocument;
void registry_document_done(RegistryDocument *d);
#define _cleanup_registry_document_ _cleanup_(registry_document_done)

/* (fiber) A manifest by tag or digest; with a digest the bytes are known to have it. */
int registry_get_manifest(RegistrySession *s, const char *tag_or_digest, RegistryDocument *ret, Error *error);
/* (fiber) What a tag means now, without its manifest: *ret_digest is NULL when the registry doesn't say. */
int registry_head_manifest(RegistrySession *s, const char *tag_or_digest, char **ret_digest, Error *error);
/* (fiber) A small blob into memory; its size and digest are checked. */
int registry_get_blob(RegistrySession *s, const char *digest, uint64_t size, RegistryDocument *ret, Error *error);

/* How many hosts there are to ask. */
size_t registry_session_hosts(const RegistrySession *s);
/* The repository's canonical name, and the authority of a host, for error texts. */
const char *registry_session_name(const RegistrySession *s);
const char *registry_session_host(const RegistrySession *s, size_t host);
/* (fiber) A large blob from one host into a non-blocking pipe, resumed when the connection breaks. Its size is exact;
 * the digest is for the reader to check. *progress (may be NULL) counts the bytes as they come. -EPIPE without *error
 * when the reader went away. */
int registry_stream_blob(RegistrySession *s, size_t host, const char *digest, uint64_t size, int sink_fd,
                         uint64_t *progress, Error *error);

/* registry-auth.c */
typedef struct AuthChallenge {
        bool bearer, basic;
        char *realm, *service, *scope;
} AuthChallenge;
void auth_challenge_done(AuthChallenge *c);
#define _cleanup_auth_challenge_ _cleanup_(auth_challenge_done)
/* Reads WWW-Authenticate values; a Bearer one goes before a Basic one. */
int auth_challenge_parse(char *const *values, AuthChallenge *ret);
/* "user:password" to an Authorization value; NULL when out of memory. */
char *auth_basic(const char *username, const char *password);
/* base64 of user:password, as Docker's configuration has it. -EINVAL. */
int auth_decode(const char *auth, char **ret_username, char **ret_password);
/* Whether it can stand in a header. */
bool auth_token_is_valid(const char *token);
/* Frees a secret so that it doesn't stay in memory. Returns NULL. */
char *secret_free(char *s);

typedef struct TokenRequest {
        const AuthChallenge *challenge;
        const char *username, *password, *identity_token;
        bool allow_plain; /* the registry itself is asked without TLS */
        const char *default_scope;
        HttpRequest base; /* timeout and TLS settings */
} TokenRequest;
/* (fiber) Asks the token server. *ret_token is for a Bearer header. */
int auth_fetch_token(HttpClient *http, const TokenRequest *request, char **ret_token, HttpResponse *ret_response,
                     Error *error);

/* The registry's own words for a failed request, in parentheses with a leading space, or ""; owned by the caller. */
char *registry_error_text(const char *body, size_t size);
/* host[:port] of an http(s) URL; owned by the caller. */
char *url_authority(const char *url);
