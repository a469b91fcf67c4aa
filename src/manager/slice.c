#include "manager/slice.h"

#include "basic/string-util.h"

#define UNIT_NAME_MAX 255U /* systemd.unit(5) */

/* The characters systemd allows in a unit's name. */
static bool slice_name_is_valid(const char *name) {
        size_t n = strlen(name);
        char previous = '-';

        if (n > UNIT_NAME_MAX || !endswith(name, ".slice") || n == STRLEN(".slice"))
                return false;
        n -= STRLEN(".slice");
        for (size_t i = 0; i < n; i++) {
                char c = name[i];

                if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr(":-_.\\", c)))
                        return false;
                /* An empty piece between dashes has no parent. */
                if (c == '-' && previous == '-')
                        return false;
                previous = c;
        }
        return previous != '-';
}

int slice_from_cgroup_parent(const char *cgroup_parent, char **ret, Error *error) {
        _cleanup_free_ char *name = NULL, *clean = NULL;
        const char *base;
        size_t n;

        clean = strdup(cgroup_parent);
        if (!clean)
                return error_oom(error);
        for (n = strlen(clean); n > 0 && clean[n - 1] == '/'; n--)
                clean[n - 1] = 0;
        base = strrchr(clean, '/');
        base = base ? base + 1 : clean;

        if (streq(base, "-.slice") || !slice_name_is_valid(base))
                return error_setf(error, GRPC_INVALID_ARGUMENT,
                                  "cgroup_parent \"%s\" is not the name of a systemd slice (\"….slice\"): set the "
                                  "kubelet's cgroupDriver to systemd",
                                  cgroup_parent);

        /* "a-b-c.slice" is /a.slice/a-b.slice/a-b-c.slice for systemd, whatever the path says. */
        if (base != clean) {
                _cleanup_(buffer_done) Buffer b = BUFFER_INIT;
                const char *given = clean + strspn(clean, "/");
                int r = 0;

                for (const char *dash = strchr(base, '-'); dash && r >= 0; dash = strchr(dash + 1, '-'))
                        r = buffer_appendf(&b, "%.*s.slice/", (int) (dash - base), base);
                if (r >= 0)
                        r = buffer_appendf(&b, "%s", base);
                if (r < 0)
                        return error_oom(error);
                if (!streq(given, b.data) && !streq(given, base))
                        return error_setf(error, GRPC_INVALID_ARGUMENT,
                                          "cgroup_parent \"%s\" cannot be: systemd puts slice %s at \"/%s\"",
                                          cgroup_parent, base, b.data);
        }

        name = strdup(base);
        if (!name)
                return error_oom(error);
        *ret = TAKE_PTR(name);
        return 0;
}
