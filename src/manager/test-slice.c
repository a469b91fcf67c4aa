#include "basic/test.h"
#include "manager/slice.h"

static void accepts(const char *parent, const char *slice) {
        _cleanup_free_ char *s = NULL;
        _cleanup_error_ Error e = ERROR_INIT;

        CHECK_EQ(slice_from_cgroup_parent(parent, &s, &e), 0);
        CHECK_STREQ(s, slice);
}

static void refuses(const char *parent) {
        _cleanup_free_ char *s = NULL;
        _cleanup_error_ Error e = ERROR_INIT;

        CHECK_EQ(slice_from_cgroup_parent(parent, &s, &e), -EINVAL);
        CHECK(e.code == GRPC_INVALID_ARGUMENT && strstr(e.message, parent));
}

static void test_a_slice_by_name_or_path_is_taken(void) {
        accepts("pods.slice", "pods.slice");
        accepts("/pods.slice", "pods.slice");
        accepts("/pods.slice/", "pods.slice");
        accepts("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12_3.slice",
                "kubepods-burstable-pod12_3.slice");
        accepts("kubepods-burstable-pod12.slice", "kubepods-burstable-pod12.slice");
        accepts("/kubepods-burstable-pod12.slice", "kubepods-burstable-pod12.slice");
}

static void test_what_is_no_slice_is_refused_with_its_name(void) {
        refuses("/kubepods/pod1");
        refuses("pod.scope");
        refuses(".slice");
        refuses("-.slice");
        refuses("a--b.slice");
        refuses("-a.slice");
        refuses("a-.slice");
        refuses("a b.slice");
        refuses("a%n.slice");
        refuses("/x.slice/a-b.slice");
        refuses("../a.slice");
}

TEST_MAIN(TEST_CASE(test_a_slice_by_name_or_path_is_taken), TEST_CASE(test_what_is_no_slice_is_refused_with_its_name))
