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
    /* hints are free to ignore */
    assert_int_equal(hca_mr_reg(hca, pd, memory, 8, va, HCA_ACCESS_RELAXED_ORDERING, &mr), 0);
}

static struct {
    void *at;
    size_t len;
    bool write, grants;
    int asked;
} pages;

static bool page_in(void *at, size_t len, bool write)
{
    pages.at = at;
    pages.len = len;
    pages.write = write;
    pages.asked++;
    return pages.grants;
}

static void on_demand(void **state)
{
    const uint64_t va = (uintptr_t)memory;
    hca_free(hca);
    hca = hca_new(&(struct hca_conf){.function = 3, .seed = 9, .page_in = page_in});
    const uint32_t access = HCA_ACCESS_ON_DEMAND | HCA_ACCESS_LOCAL_WRITE | HCA_ACCESS_REMOTE_WRITE;
    uint32_t key = hca_mr_rkey(reg(1000, va, access)), plain = hca_mr_rkey(reg(1000, va, 0));
    pages.asked = 0;
    pages.grants = true;
    assert_ptr_equal(mr_at(hca, pd, plain, va, 8, 0), memory);
    assert_true(mr_remote_grants(hca, pd, 5, key, va, 1000, HCA_ACCESS_REMOTE_WRITE));
    assert_null(mr_at(hca, pd, key, va, 1001, 0));
    assert_int_equal(pages.asked, 0);
    assert_ptr_equal(mr_at(hca, pd, key, va + 8, 16, 0), memory + 8);
    assert_int_equal(pages.asked, 1);
    assert_ptr_equal(pages.at, memory + 8);
    assert_int_equal(pages.len, 16);
    assert_false(pages.write);
    assert_non_null(mr_remote_at(hca, pd, 5, key, va, 8, HCA_ACCESS_REMOTE_WRITE));
    assert_true(pages.write);
    pages.grants = false;
    assert_null(mr_at(hca, pd, key, va, 8, HCA_ACCESS_LOCAL_WRITE));
    assert_null(mr_remote_at(hca, pd, 5, key, va, 8, HCA_ACCESS_REMOTE_WRITE));
    assert_int_equal(pages.asked, 4);
}

/* The whole address space. */
static void implicit(void **state)
{
    struct hca_mr *mr;
    assert_int_equal(hca_mr_reg(hca, pd, NULL, SIZE_MAX, 0, HCA_ACCESS_ON_DEMAND, &mr), 0);
    uint32_t key = hca_mr_lkey(mr);
    assert_ptr_equal(mr_at(hca, pd, key, (uintptr_t)memory, 64, 0), memory);
    assert_null(mr_at(hca, pd, key, UINT64_MAX, 2, 0));
}

static void null_region(void **state)
{
    static const uint8_t zeros[MR_MAX_PIECE];
    struct hca_mr *mr;
    assert_int_equal(hca_mr_reg_null(hca, pd, &mr), 0);
    uint32_t key = hca_mr_lkey(mr);
    const uint64_t anywhere[] = {0, 1, (uintptr_t)memory, UINT64_MAX - 3, UINT64_MAX};
    for (int i = 0; i < 5; i++) {
        uint8_t *sink = mr_at(hca, pd, key, anywhere[i], MR_MAX_PIECE, HCA_ACCESS_LOCAL_WRITE);
        assert_non_null(sink);
        memset(sink, 0xee, MR_MAX_PIECE);
        const uint8_t *source = mr_at(hca, pd, key, anywhere[i], MR_MAX_PIECE, 0);
        assert_memory_equal(source, zeros, MR_MAX_PIECE);
    }
    assert_false(mr_remote_grants(hca, pd, 5, key, 0, 8, HCA_ACCESS_REMOTE_READ));
    assert_false(mr_remote_grants(hca, pd, 5, key, 0, 8, HCA_ACCESS_REMOTE_WRITE));
    assert_int_equal(hca_mr_rereg(hca, mr, pd, memory, 8, 0, 0), -EINVAL);
    assert_int_equal(hca_mr_dereg(hca, mr), 0);
    assert_null(mr_at(hca, pd, key, 0, 8, 0));
}

static void reregistered(void **state)
{
    const uint64_t va = (uintptr_t)memory;
    struct hca_mr *mr = reg(64, va, HCA_ACCESS_LOCAL_WRITE);
    uint32_t key = hca_mr_lkey(mr), pd2 = hca_pd_alloc(hca);
    /* refused: all as before */
    assert_int_equal(hca_mr_rereg(hca, mr, pd2, memory, 8, va, HCA_ACCESS_REMOTE_WRITE), -EINVAL);
    assert_int_equal(hca_mr_rereg(hca, mr, pd2, memory, SIZE_MAX, va, 0), -EINVAL);
    assert_non_null(mr_at(hca, pd, key, va, 64, HCA_ACCESS_LOCAL_WRITE));
    assert_int_equal(hca_mr_rereg(hca, mr, pd2, memory + 100, 8, va + 100, 0), 0);
    assert_int_equal(hca_mr_lkey(mr), key);
    assert_null(mr_at(hca, pd, key, va + 100, 8, 0));
    assert_ptr_equal(mr_at(hca, pd2, key, va + 100, 8, 0), memory + 100);
    assert_null(mr_at(hca, pd2, key, va + 100, 8, HCA_ACCESS_LOCAL_WRITE));
    assert_null(mr_at(hca, pd2, key, va, 8, 0));
}

static void spans(void **state)
{
    const uint64_t va = (uintptr_t)memory;
    struct hca_span span;
    uint32_t key = hca_mr_lkey(reg(64, 0x1000, HCA_ACCESS_ON_DEMAND));
    assert_int_equal(hca_mr_span(hca, pd, key, 0x1010, 48, &span), 0);
    assert_ptr_equal(span.at, memory + 16);
    assert_true(span.on_demand && !span.writable);
    assert_int_equal(hca_mr_span(hca, pd, key, 0x1010, 49, &span), -EFAULT);
    assert_int_equal(hca_mr_span(hca, pd + 1, key, 0x1010, 8, &span), -EPERM);
    assert_int_equal(hca_mr_span(hca, pd, key ^ 1, 0x1010, 8, &span), -ENOENT);
    struct hca_mr *null;
    struct hca_mw *mw;
    assert_int_equal(hca_mr_reg_null(hca, pd, &null), 0);
    assert_int_equal(hca_mr_span(hca, pd, hca_mr_lkey(null), 0, 8, &span), -EINVAL);
    assert_int_equal(hca_mw_alloc(hca, pd, HCA_MW_TYPE_1, &mw), 0);
    assert_int_equal(hca_mr_span(hca, pd, hca_mw_rkey(mw), va, 8, &span), -EINVAL);
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
        cmocka_unit_test_setup_teardown(on_demand, setup, teardown),
        cmocka_unit_test_setup_teardown(implicit, setup, teardown),
        cmocka_unit_test_setup_teardown(null_region, setup, teardown),
        cmocka_unit_test_setup_teardown(reregistered, setup, teardown),
        cmocka_unit_test_setup_teardown(spans, setup, teardown),
        cmocka_unit_test_setup_teardown(old_keys_die, setup, teardown),
        cmocka_unit_test_setup_teardown(many, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
