/* Verbs that came after the installed libibverbs: a newer one's programs find them in librbond. */
#include "verbs/newer.h"
#include "end.h"
#include <dlfcn.h>

#undef ibv_reg_mr

static void *verb(const char *name, const char *node)
{
    void *at = dlvsym(RTLD_DEFAULT, name, node);
    if (!at) fail_msg("no %s in %s", name, node);
    return at;
}

#define VERB(name, node) ((__typeof__(&name))verb(#name, node))

static struct end e;

static struct ibv_mr *reg_ex(struct ibv_mr_init_attr attr)
{
    errno = 0;
    struct ibv_mr *mr = VERB(ibv_reg_mr_ex, "IBVERBS_1.15")(e.pd, &attr);
    assert_true(!mr == (errno != 0));
    return mr;
}

static void refused(struct ibv_mr_init_attr attr, int error)
{
    assert_null(reg_ex(attr));
    assert_int_equal(errno, error);
}

static void by_attributes(void **state)
{
    (void)state;
    open_end(&e, IBV_QPT_RC);
    int fd = memfd_create("buffer", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, 8192), 0);
    const struct ibv_mr_init_attr plain = {
        .length = 4096, .access = ALL_ACCESS, .comp_mask = IBV_REG_MR_MASK_ADDR, .addr = e.buf};
    struct ibv_mr *mr = reg_ex(plain);
    assert_ptr_equal(mr->addr, e.buf);
    assert_int_equal(mr->length, 4096);
    assert_int_equal(ibv_dereg_mr(mr), 0);
    struct ibv_mr_init_attr a = {.length = 4096,
                                 .access = ALL_ACCESS,
                                 .comp_mask = IBV_REG_MR_MASK_FD | IBV_REG_MR_MASK_FD_OFFSET |
                                              IBV_REG_MR_MASK_IOVA,
                                 .fd = fd,
                                 .fd_offset = 4096};
    assert_int_equal(ibv_dereg_mr(reg_ex(a)), 0);
    a.comp_mask &= ~(uint64_t)IBV_REG_MR_MASK_IOVA;
    refused(a, EINVAL);
    a.comp_mask |= IBV_REG_MR_MASK_ADDR | IBV_REG_MR_MASK_IOVA;
    refused(a, EINVAL);
    a = plain;
    a.comp_mask = 0;
    refused(a, EINVAL);
    a.comp_mask = 1 << 20;
    refused(a, EOPNOTSUPP);
    close(fd);
    close_end(&e);
}

static void dma_handles(void **state)
{
    (void)state;
    open_end(&e, IBV_QPT_RC);
    __typeof__(&ibv_alloc_dmah) alloc = VERB(ibv_alloc_dmah, "IBVERBS_1.15");
    struct ibv_dmah_init_attr attr = {.comp_mask = IBV_DMAH_INIT_ATTR_MASK_PH, .ph = 4};
    assert_null(alloc(e.context, &attr));
    attr = (struct ibv_dmah_init_attr){0};
    assert_null(alloc(e.context, &attr));
    attr = (struct ibv_dmah_init_attr){.comp_mask = IBV_DMAH_INIT_ATTR_MASK_PH |
                                                    IBV_DMAH_INIT_ATTR_MASK_CPU_ID};
    assert_null(alloc(e.context, &attr));
    attr.comp_mask |= IBV_DMAH_INIT_ATTR_MASK_TPH_MEM_TYPE;
    struct ibv_dmah *dmah = alloc(e.context, &attr);
    assert_non_null(dmah);
    struct ibv_mr *mr =
        reg_ex((struct ibv_mr_init_attr){.length = 4096,
                                         .comp_mask = IBV_REG_MR_MASK_ADDR | IBV_REG_MR_MASK_DMAH,
                                         .addr = e.buf,
                                         .dmah = dmah});
    assert_int_equal(ibv_dereg_mr(mr), 0);
    assert_int_equal(VERB(ibv_dealloc_dmah, "IBVERBS_1.15")(dmah), 0);
    close_end(&e);
}

static void buffers(void **state)
{
    (void)state;
    open_end(&e, IBV_QPT_RC);
    struct ibv_buf *buf;
    __typeof__(&ibv_alloc_buf) alloc = VERB(ibv_alloc_buf, "IBVERBS_1.17");
    __typeof__(&ibv_reg_buf_mr) reg = VERB(ibv_reg_buf_mr, "IBVERBS_1.17");
    assert_null(alloc(e.pd, 0, &buf));
    uint8_t *at = alloc(e.pd, 10000, &buf);
    assert_non_null(at);
    assert_int_equal((uintptr_t)at & 4095, 0);
    memset(at, 1, 10000);
    struct ibv_mr *mr = reg(e.pd, buf, at + 100, 9900, ALL_ACCESS);
    assert_non_null(mr);
    assert_ptr_equal(mr->addr, at + 100);
    errno = 0;
    assert_null(reg(e.pd, buf, at + 100, 9901, ALL_ACCESS));
    assert_null(reg(e.pd, buf, at - 1, 10, ALL_ACCESS));
    struct ibv_pd *other = ibv_alloc_pd(e.context);
    assert_null(reg(other, buf, at, 10, ALL_ACCESS));
    assert_int_equal(errno, EINVAL);
    assert_int_equal(VERB(ibv_export_buf_dmabuf_fd, "IBVERBS_1.18")(buf), -1);
    assert_int_equal(errno, ENODATA);
    assert_int_equal(ibv_dereg_mr(mr), 0);
    assert_int_equal(ibv_dealloc_pd(e.pd), EBUSY);
    VERB(ibv_free_buf, "IBVERBS_1.17")(buf);
    assert_int_equal(ibv_dealloc_pd(other), 0);
    close_end(&e);
}

EDGE_MAIN(cmocka_unit_test(by_attributes), cmocka_unit_test(dma_handles), cmocka_unit_test(buffers))
