/* Keys, bounds, access and addresses of memory regions. */
#include "bed.h"
#include <errno.h>
#include <stdlib.h>

static uint8_t memory[4096];
static struct hca *hca;
static uint32_t pd;

static int setup(void **state)
{
    hca = hca_new(&(struct hca_conf){.function = 3, .seed = 9});
    pd = hca_pd_alloc(hca);
    return 0;
}

static int teardown(void **state)
{
    hca_free(hca);
    return 0;
}

static struct hca_mr *reg(size_t len, uint64_t iova, uint32_t access)
{
    struct hca_mr *mr;
    assert_int_equal(hca_mr_reg(hca, pd, memory, len, iova, access, &mr), 0);
    return mr;
}

static void bounds(void **state)
{
    const uint64_t va = (uintptr_t)memory;
    uint32_t key = hca_mr_lkey(reg(1000, va, 0));
    assert_ptr_equal(mr_at(hca, pd, key, va, 1000, 0), memory);
    assert_ptr_equal(mr_at(hca, pd, key, va + 999, 1, 0), memory + 999);
    assert_null(mr_at(hca, pd, key, va, 1001, 0));
    assert_null(mr_at(hca, pd, key, va + 1000, 1, 0));
    assert_null(mr_at(hca, pd, key, va - 1, 2, 0));
    assert_null(mr_at(hca, pd, key, va + 500, UINT64_MAX, 0));
    assert_null(mr_at(hca, pd, key, UINT64_MAX, 2, 0));
    assert_non_null(mr_at(hca, pd, key, 0, 0, 0));
    assert_null(mr_at(hca, pd, key + 1, va, 0, 0));
    assert_null(mr_at(hca, pd + 1, key, va, 1, 0));
    assert_null(mr_at(hca, pd, 0, va, 1, 0));
    assert_null(mr_at(hca, pd, UINT32_MAX, va, 1, 0));
}

static void access_flags(void **state)
{
    const uint64_t va = (uintptr_t)memory;
    uint32_t key = hca_mr_rkey(reg(64, va, HCA_ACCESS_LOCAL_WRITE | HCA_ACCESS_REMOTE_READ));
    assert_non_null(mr_at(hca, pd, key, va, 64, HCA_ACCESS_REMOTE_READ));
    assert_null(mr_at(hca, pd, key, va, 64, HCA_ACCESS_REMOTE_WRITE));
    assert_null(mr_at(hca, pd, key, va, 64, HCA_ACCESS_REMOTE_READ | HCA_ACCESS_REMOTE_ATOMIC));
    assert_non_null(mr_at(hca, pd, key, va, 64, HCA_ACCESS_LOCAL_WRITE));
}

static void iova_and_zero_based(void **state)
{
    uint32_t key = hca_mr_rkey(reg(64, 0x1000, 0));
    assert_ptr_equal(mr_at(hca, pd, key, 0x1010, 4, 0), memory + 16);
    assert_null(mr_at(hca, pd, key, (uintptr_t)memory, 4, 0));
    key = hca_mr_rkey(reg(64, (uintptr_t)memory, HCA_ACCESS_ZERO_BASED));
    assert_ptr_equal(mr_at(hca, pd, key, 60, 4, 0), memory + 60);
    assert_null(mr_at(hca, pd, key, 61, 4, 0));
}

static void refused(void **state)
{
    struct hca_mr *mr;
    const uint64_t va = (uintptr_t)memory;
    assert_int_equal(hca_mr_reg(hca, pd, memory, 8, va, HCA_ACCESS_REMOTE_WRITE, &mr), -EINVAL);
    assert_int_equal(hca_mr_reg(hca, pd, memory, 8, va, HCA_ACCESS_REMOTE_ATOMIC, &mr), -EINVAL);
    assert_int_equal(hca_mr_reg(hca, pd, memory, SIZE_MAX, va, 0, &mr), -EINVAL);
    assert_int_equal(hca_mr_reg(hca, pd, memory, 8, UINT64_MAX - 4, 0, &mr), -EINVAL);
    assert_int_equal(hca_mr_reg(hca, pd, memory, 8, va, 1u << 15, &mr), -EINVAL);
    assert_int_equal(hca_mr_reg(hca, pd, memory, 8, va, HCA_ACCESS_ON_DEMAND, &mr), -EOPNOTSUPP);
    /* hints are free to ignore */
    assert_int_equal(hca_mr_reg(hca, pd, memory, 8, va, HCA_ACCESS_RELAXED_ORDERING, &mr), 0);
}

static void old_keys_die(void **state)
{
    const uint64_t va = (uintptr_t)memory;
    uint32_t last = 0;
    for (int i = 0; i < 1000; i++) {
        struct hca_mr *mr = reg(64, va, 0);
        uint32_t key = hca_mr_lkey(mr);
        assert_int_not_equal(key, last);
        assert_null(mr_at(hca, pd, last, va, 1, 0));
        assert_non_null(mr_at(hca, pd, key, va, 1, 0));
        assert_int_equal(hca_mr_dereg(hca, mr), 0);
        assert_null(mr_at(hca, pd, key, va, 1, 0));
        last = key;
    }
}

static void many(void **state)
{
    enum { N = 5000 };
    struct hca_mr *mr[N];
    for (int i = 0; i < N; i++) mr[i] = reg(64, (uint64_t)i << 32, 0);
    for (int i = 0; i < N; i++)
        assert_non_null(mr_at(hca, pd, hca_mr_lkey(mr[i]), ((uint64_t)i << 32) + 1, 63, 0));
    for (int i = 0; i < N; i += 2) hca_mr_dereg(hca, mr[i]);
    for (int i = 0; i < N; i++)
        assert_int_equal(!!mr_at(hca, pd, hca_mr_lkey(mr[i]), (uint64_t)i << 32, 64, 0), i & 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bounds, setup, teardown),
        cmocka_unit_test_setup_teardown(access_flags, setup, teardown),
        cmocka_unit_test_setup_teardown(iova_and_zero_based, setup, teardown),
        cmocka_unit_test_setup_teardown(refused, setup, teardown),
        cmocka_unit_test_setup_teardown(old_keys_die, setup, teardown),
        cmocka_unit_test_setup_teardown(many, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
