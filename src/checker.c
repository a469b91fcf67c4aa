#include "checker.h"

#include <fcntl.h>
#include <sys/file.h>

#include "basic/check.h"
#include "basic/file-util.h"
#include "basic/log.h"
#include "basic/string-util.h"
#include "image/image.h"
#include "manager/check.h"
#include "manager/manager.h"
#include "net/cni.h"

/* The daemon's lock. *ret_fd is kept while files are changed, so that none can start; -1 where the daemon has it. */
static int take_lock(const Config *c, bool repair, int *ret_fd, Error *error) {
        _cleanup_free_ char *path = strprintf("%s/lock", c->run_directory);
        _cleanup_close_ int fd = -1;
        int r;

        if (!path)
                return error_oom(error);
        if (repair) {
                r = mkdir_parents(AT_FDCWD, c->run_directory, 0711);
                if (r < 0)
                        return error_set(error, r, "Cannot make %s", c->run_directory);
        }
        fd = open(path, (repair ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return errno == ENOENT && !repair ? (*ret_fd = -1, 0) : error_set(error, -errno, "Cannot open %s", path);
        if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
                if (errno != EWOULDBLOCK)
                        return error_set(error, -errno, "Cannot lock %s", path);
                if (repair)
                        return error_setf(error, GRPC_FAILED_PRECONDITION,
                                          "rktlet runs on %s: stop it first, which stops no container (\"systemctl stop "
                                          "rktlet.socket rktlet.service\")", c->run_directory);
                return 1;
        }
        *ret_fd = TAKE_FD(fd);
        return 0;
}

static int check_all(const Config *c, Check *check, Error *error) {
        _cleanup_free_ char *cache = strprintf("%s/cni", c->state_directory);
        _cleanup_(cni_freep) Cni *cni = NULL;
        _cleanup_strv_free_ char **layers = NULL;
        bool sure = false;
        int r;

        if (!cache)
                return error_oom(error);
        r = cni_new(NULL,
                    &(CniConfig) {
                            .conf_directories = c->cni_conf_directories,
                            .bin_directories = c->cni_bin_directories,
                            .cache_directory = cache,
                            .timeout_usec = c->cni_timeout_usec,
                    },
                    &cni);
        if (r < 0)
                return error_oom(error);
        r = manager_check(&(ManagerConfig) {
                                  .state_directory = c->state_directory,
                                  .run_directory = c->run_directory,
                                  .default_slice = c->default_slice,
                          },
                          cni, check, &layers, &sure, error);
        return r < 0 ? r : image_store_check(c->image_directory, layers, sure, check, error);
}

int checker_run(const Config *config, bool repair) {
        Check check = { .repair = repair, .out = stdout };
        _cleanup_error_ Error error = ERROR_INIT;
        _cleanup_close_ int lock_fd = -1;
        int r;

        r = take_lock(config, repair, &lock_fd, &error);
        if (r > 0) {
                check.in_use = true;
                check_note(&check, config->run_directory, "rktlet runs there; what it is doing right now is passed over");
        }
        if (!repair)
                lock_fd = safe_close(lock_fd);
        if (r >= 0 && access(config->state_directory, F_OK) < 0)
                printf("%s: there is nothing to check.\n", config->state_directory);
        else if (r >= 0)
                r = check_all(config, &check, &error);
        if (r < 0) {
                fflush(stdout);
                log_error("%s", error_is_set(&error) ? strempty(error.message) : strerror(-r));
                return CHECK_FAILED;
        }
        printf("%u objects were looked at, %u damaged, %u repaired.\n", check.n_looked, check.n_found, check.n_repaired);
        if (fflush(stdout) != 0 || ferror(stdout))
                return CHECK_FAILED;
        return check_exit_status(&check);
}
