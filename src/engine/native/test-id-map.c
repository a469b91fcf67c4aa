#include <fcntl.h>
#include <linux/nsfs.h>
#include <sys/stat.h>

#include "basic/test.h"
#include "engine/native/id-map.h"

static runtime_v1_IDMapping range(uint32_t inside, uint32_t outside, uint32_t count) {
        return (runtime_v1_IDMapping) { .container_id = inside, .host_id = outside, .length = count };
}

static void test_ids(void) {
        runtime_v1_IDMapping users[] = { range(0, 1000, 10), range(100, 5000, 5) }, groups[] = { range(0, 7, 1) };
        _cleanup_error_ Error error = ERROR_INIT;
        IdMap m, other;
        uint32_t id;

        CHECK_EQ(id_map_from_cri(users, 2, groups, 1, "x", &m, &error), 0);
        CHECK(id_map_is_set(&m));
        CHECK_EQ(id_ranges_outside(&m.uids, 0, &id), 0);
        CHECK_EQ(id, 1000U);
        CHECK_EQ(id_ranges_outside(&m.uids, 9, &id), 0);
        CHECK_EQ(id, 1009U);
        CHECK_EQ(id_ranges_outside(&m.uids, 104, &id), 0);
        CHECK_EQ(id, 5004U);
        CHECK_EQ(id_ranges_outside(&m.uids, 10, &id), -ENOENT);
        CHECK_EQ(id_ranges_outside(&m.uids, 105, &id), -ENOENT);
        CHECK_EQ(id_ranges_outside(&m.uids, UINT32_MAX, &id), -ENOENT);
        CHECK_EQ(id_ranges_outside(&m.gids, 1, &id), -ENOENT);
        CHECK_EQ(id_ranges_outside(&(IdRanges) {}, 77, &id), 0);
        CHECK_EQ(id, 77U);

        other = m;
        CHECK(id_map_equal(&m, &other));
        other.gids.ranges[0].outside = 8;
        CHECK(!id_map_equal(&m, &other));
}

static void test_what_is_refused(void) {
        const struct {
                runtime_v1_IDMapping a, b;
        } cases[] = {
                { range(0, 0, 0), range(1, 1, 1) },
                { range(0, 0, 5), range(4, 100, 1) },
                { range(0, 100, 5), range(10, 104, 1) },
                { range(0, UINT32_MAX - 4, 5), range(10, 1, 1) },
                { range(UINT32_MAX, 0, 1), range(10, 1, 1) },
        };
        runtime_v1_IDMapping many[ID_MAP_RANGES_MAX + 1], one = range(0, 0, 1);
        Error error = ERROR_INIT;
        IdMap m;

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                runtime_v1_IDMapping both[] = { cases[i].a, cases[i].b };

                CHECK(id_map_from_cri(both, 2, &one, 1, "the pod", &m, &error) < 0);
                CHECK_EQ(error.code, GRPC_INVALID_ARGUMENT);
                error_clear(&error);
                CHECK(id_map_from_cri(&one, 1, both, 2, "the pod", &m, &error) < 0);
                error_clear(&error);
        }
        for (size_t i = 0; i < ELEMENTSOF(many); i++)
                many[i] = range((uint32_t) i, (uint32_t) i, 1);
        CHECK_EQ(id_map_from_cri(many, ID_MAP_RANGES_MAX, &one, 1, "the pod", &m, &error), 0);
        CHECK(id_map_from_cri(many, ID_MAP_RANGES_MAX + 1, &one, 1, "the pod", &m, &error) < 0);
        error_clear(&error);
        CHECK(id_map_from_cri(NULL, 0, &one, 1, "the pod", &m, &error) < 0);
        error_clear(&error);
        CHECK_EQ(id_map_from_cri(&one, 1, &one, 1, "the pod", &m, &error), 0);
}

static void test_namespace(void) {
        const IdMap m = { .uids = { .ranges = { { 0, 100000, 10 }, { 10, 5, 1 } }, .n = 2 },
                          .gids = { .ranges = { { 0, 200000, 10 } }, .n = 1 } };
        _cleanup_error_ Error error = ERROR_INIT;
        struct stat ours, theirs;
        int fd = -1;

        if (geteuid() != 0)
                return;
        CHECK_EQ(id_map_make_namespace(&m, &fd, &error), 0);
        CHECK_EQ(stat("/proc/self/ns/user", &ours), 0);
        CHECK_EQ(fstat(fd, &theirs), 0);
        CHECK(ours.st_ino != theirs.st_ino && ours.st_dev == theirs.st_dev);
        CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        close(fd);
}

int main(void) {
        static const TestCase cases[] = {
                TEST_CASE(test_ids),
                TEST_CASE(test_what_is_refused),
                TEST_CASE(test_namespace),
        };

        return test_main(cases, ELEMENTSOF(cases));
}
