/* Kinds of memory: re-registered, null, on demand, the device's, a dma-buf's. */
#include "end.h"
#include <dlfcn.h>

#define PAGE 4096

static struct end a, b;

static enum ibv_wc_status finish(struct end *e)
{
    struct ibv_wc wc;
    await(e, &wc);
    return wc.status;
}

static enum ibv_wc_status rdma(enum ibv_wr_opcode op, uint64_t local, uint32_t lkey, uint32_t len,
                               uint64_t remote, uint32_t rkey)
{
    struct ibv_sge sge = {local, len, lkey};
    struct ibv_send_wr wr = {.sg_list = &sge,
                             .num_sge = 1,
                             .opcode = op,
                             .send_flags = IBV_SEND_SIGNALED},
                       *bad;
    if (op == IBV_WR_ATOMIC_FETCH_AND_ADD) {
        wr.wr.atomic.remote_addr = remote;
        wr.wr.atomic.rkey = rkey;
        wr.wr.atomic.compare_add = 1;
    } else {
        wr.wr.rdma.remote_addr = remote;
        wr.wr.rdma.rkey = rkey;
    }
    assert_int_equal(ibv_post_send(a.qp, &wr, &bad), 0);
    return finish(&a);
}

/* Both ends of a failed pair, to be used again. */
static void reconnect(void)
{
    struct end *ends[2] = {&a, &b};
    for (int i = 0; i < 2; i++) {
        struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RESET};
        assert_int_equal(ibv_modify_qp(ends[i]->qp, &attr, IBV_QP_STATE), 0);
        attr = (struct ibv_qp_attr){
            .qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = ALL_ACCESS};
        assert_int_equal(
            ibv_modify_qp(ends[i]->qp, &attr,
                          IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS),
            0);
    }
    connect_rc(&a, &b, 14);
    connect_rc(&b, &a, 14);
}

static void *pages(size_t n, int prot)
{
    void *at = mmap(NULL, n * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(at != MAP_FAILED);
    return at;
}

/* ---- ibv_rereg_mr ------------------------------------------------------------------------ */

static void refused_rereg(struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *addr,
                          size_t length, int access, int error)
{
    errno = 0;
    assert_int_equal(ibv_rereg_mr(mr, flags, pd, addr, length, access), IBV_REREG_MR_ERR_INPUT);
    assert_int_equal(errno, error);
}

static void reregister(void **state)
{
    enum {
        PLACE = IBV_REREG_MR_CHANGE_TRANSLATION,
        PD = IBV_REREG_MR_CHANGE_PD,
        ACCESS = IBV_REREG_MR_CHANGE_ACCESS
    };
    (void)state;
    open_pair(&a, &b);
    struct ibv_mr *mr = ibv_reg_mr(b.pd, b.buf, PAGE, ALL_ACCESS);
    struct ibv_pd *other = ibv_alloc_pd(b.context);
    uint8_t *fresh = pages(2, PROT_READ | PROT_WRITE);
    assert_non_null(mr);
    uint32_t key = mr->rkey;

    refused_rereg(mr, 0, NULL, NULL, 0, 0, EINVAL);
    refused_rereg(mr, 8, NULL, NULL, 0, 0, EINVAL);
    refused_rereg(mr, PLACE, NULL, NULL, PAGE, 0, EINVAL);
    refused_rereg(mr, PLACE, NULL, fresh, 0, 0, EINVAL);
    refused_rereg(mr, PD, NULL, NULL, 0, 0, EINVAL);
    refused_rereg(mr, PD, a.pd, NULL, 0, 0, EINVAL);
    refused_rereg(mr, PLACE, NULL, fresh, PAGE, ALL_ACCESS, EINVAL);
    refused_rereg(mr, ACCESS, NULL, NULL, 0, IBV_ACCESS_REMOTE_WRITE, EINVAL);
    munmap(fresh + PAGE, PAGE);
    refused_rereg(mr, PLACE, NULL, fresh, 2 * PAGE, 0, EFAULT);
    assert_int_equal(
        rdma(IBV_WR_RDMA_WRITE, (uintptr_t)a.buf, a.mr->lkey, 8, (uintptr_t)b.buf, key),
        IBV_WC_SUCCESS);

    assert_int_equal(ibv_rereg_mr(mr, PLACE, NULL, fresh, PAGE, 0), 0);
    assert_ptr_equal(mr->addr, fresh);
    assert_int_equal(mr->rkey, key);
    memset(a.buf, 0x21, 8);
    assert_int_equal(
        rdma(IBV_WR_RDMA_WRITE, (uintptr_t)a.buf, a.mr->lkey, 8, (uintptr_t)fresh + 8, key),
        IBV_WC_SUCCESS);
    assert_int_equal(fresh[8], 0x21);
    assert_int_equal(ibv_rereg_mr(mr, PD | ACCESS, other, NULL, 0, IBV_ACCESS_LOCAL_WRITE), 0);
    assert_ptr_equal(mr->pd, other);
    assert_int_equal(ibv_dealloc_pd(other), EBUSY);
    assert_int_equal(ibv_rereg_mr(mr, PD, b.pd, NULL, 0, 0), 0);
    assert_int_equal(ibv_dealloc_pd(other), 0);
    assert_int_equal(
        rdma(IBV_WR_RDMA_WRITE, (uintptr_t)a.buf, a.mr->lkey, 8, (uintptr_t)fresh, key),
        IBV_WC_REM_ACCESS_ERR);
    assert_int_equal(ibv_dereg_mr(mr), 0);
    close_end(&a);
    close_end(&b);
    munmap(fresh, PAGE);
}

/* ---- ibv_alloc_null_mr ------------------------------------------------------------------- */

static void null_region(void **state)
{
    (void)state;
    open_pair(&a, &b);
    struct ibv_mr *null = ibv_alloc_null_mr(a.pd);
    assert_non_null(null);
    assert_int_equal(null->rkey, 0);
    memset(b.buf, 0xff, 9000);
    assert_int_equal(rdma(IBV_WR_RDMA_WRITE, 12345, null->lkey, 9000, (uintptr_t)b.buf, b.mr->rkey),
                     IBV_WC_SUCCESS);
    for (int i = 0; i < 9000; i++) assert_int_equal(b.buf[i], 0);
    memset(b.buf, 0xff, 9000);
    assert_int_equal(rdma(IBV_WR_RDMA_READ, 0, null->lkey, 9000, (uintptr_t)b.buf, b.mr->rkey),
                     IBV_WC_SUCCESS);
    refused_rereg(null, IBV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, 0, EINVAL);
    assert_int_equal(ibv_dereg_mr(null), 0);
    close_end(&a);
    close_end(&b);
}

/* ---- on demand --------------------------------------------------------------------------- */

static void on_demand(void **state)
{
    (void)state;
    struct ibv_device_attr_ex attr;
    for (int implicit = 0; implicit < 2; implicit++) {
        open_pair(&a, &b);
        assert_int_equal(ibv_query_device_ex(a.context, NULL, &attr), 0);
        if (!(attr.odp_caps.general_caps & IBV_ODP_SUPPORT)) skip();
        uint8_t *at = pages(4, PROT_READ | PROT_WRITE), *here = pages(4, PROT_READ | PROT_WRITE);
        const int access = ALL_ACCESS | IBV_ACCESS_ON_DEMAND;
        struct ibv_mr *mr = implicit ? ibv_reg_mr(b.pd, NULL, SIZE_MAX, access)
                                     : ibv_reg_mr(b.pd, at, 4 * PAGE, access);
        struct ibv_mr *mine = implicit ? ibv_reg_mr(a.pd, NULL, SIZE_MAX, access)
                                       : ibv_reg_mr(a.pd, here, 4 * PAGE, access);
        assert_non_null(mr);
        assert_non_null(mine);
        const uint64_t remote = (uintptr_t)at, local = (uintptr_t)here;
        memset(here, 0x31, 4 * PAGE);
        assert_int_equal(rdma(IBV_WR_RDMA_WRITE, local, mine->lkey, 4 * PAGE, remote, mr->rkey),
                         IBV_WC_SUCCESS);
        assert_memory_equal(at, here, 4 * PAGE);
        assert_int_equal(rdma(IBV_WR_ATOMIC_FETCH_AND_ADD, local, mine->lkey, 8, remote, mr->rkey),
                         IBV_WC_SUCCESS);
        /* here: not mapped, then not to be written */
        munmap(here + PAGE, PAGE);
        assert_int_equal(rdma(IBV_WR_RDMA_WRITE, local, mine->lkey, 2 * PAGE, remote, mr->rkey),
                         IBV_WC_LOC_PROT_ERR);
        reconnect();
        mprotect(here, PAGE, PROT_READ);
        assert_int_equal(rdma(IBV_WR_RDMA_READ, local, mine->lkey, 64, remote, mr->rkey),
                         IBV_WC_LOC_PROT_ERR);
        reconnect();
        /* there */
        munmap(at + PAGE, PAGE);
        mprotect(at + 2 * PAGE, PAGE, PROT_READ);
        static const struct {
            enum ibv_wr_opcode op;
            uint32_t page;
        } bad[] = {{IBV_WR_RDMA_WRITE, 1},
                   {IBV_WR_RDMA_READ, 1},
                   {IBV_WR_ATOMIC_FETCH_AND_ADD, 1},
                   {IBV_WR_RDMA_WRITE, 2},
                   {IBV_WR_ATOMIC_FETCH_AND_ADD, 2}};
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            assert_int_equal(rdma(bad[i].op, (uintptr_t)a.buf, a.mr->lkey, 8,
                                  remote + bad[i].page * PAGE, mr->rkey),
                             IBV_WC_REM_ACCESS_ERR);
            reconnect();
        }
        /* and mapped again */
        assert_true(mmap(at + PAGE, PAGE, PROT_READ | PROT_WRITE,
                         MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
        assert_int_equal(
            rdma(IBV_WR_RDMA_WRITE, (uintptr_t)a.buf, a.mr->lkey, 64, remote + PAGE, mr->rkey),
            IBV_WC_SUCCESS);
        assert_int_equal(ibv_dereg_mr(mr), 0);
        assert_int_equal(ibv_dereg_mr(mine), 0);
        close_end(&a);
        close_end(&b);
        munmap(at, 4 * PAGE);
        munmap(here, 4 * PAGE);
    }
}

static void implicit_flags(void **state)
{
    (void)state;
    open_end(&a, IBV_QPT_RC);
    errno = 0;
    assert_null(ibv_reg_mr(a.pd, NULL, SIZE_MAX, IBV_ACCESS_ON_DEMAND | IBV_ACCESS_HUGETLB));
    assert_int_equal(errno, EINVAL);
    assert_null(ibv_reg_mr_iova2(a.pd, NULL, SIZE_MAX, 4096, IBV_ACCESS_ON_DEMAND));
    assert_null(ibv_reg_mr(a.pd, NULL, SIZE_MAX, 0));
    close_end(&a);
}

static void advice(void **state)
{
    const enum ibv_advise_mr_advice READ = IBV_ADVISE_MR_ADVICE_PREFETCH,
                                    WRITE = IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE,
                                    LOOK = IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT;
    (void)state;
    open_end(&a, IBV_QPT_RC);
    uint8_t *at = pages(4, PROT_READ | PROT_WRITE);
    unsigned char resident[4];
    struct ibv_mr *ro = ibv_reg_mr(a.pd, at, 4 * PAGE, IBV_ACCESS_ON_DEMAND);
    struct ibv_mr *rw =
        ibv_reg_mr(a.pd, at, 4 * PAGE, IBV_ACCESS_ON_DEMAND | IBV_ACCESS_LOCAL_WRITE);
    assert_true(ro && rw);
    struct ibv_pd *other = ibv_alloc_pd(a.context);
    struct ibv_mw *mw = ibv_alloc_mw(a.pd, IBV_MW_TYPE_1);
    struct ibv_sge sge = {(uintptr_t)at + PAGE, 2 * PAGE, rw->lkey};
    const uint32_t flush = IBV_ADVISE_MR_FLAG_FLUSH;

    assert_int_equal(ibv_advise_mr(a.pd, LOOK, flush, &sge, 1), 0);
    assert_int_equal(mincore(at, 4 * PAGE, resident), 0);
    assert_int_equal(resident[1] & 1, 0);
    assert_int_equal(ibv_advise_mr(a.pd, WRITE, flush, &sge, 1), 0);
    assert_int_equal(mincore(at, 4 * PAGE, resident), 0);
    assert_int_equal(resident[0] & 1, 0);
    assert_int_equal(resident[1] & resident[2] & 1, 1);
    sge.lkey = ro->lkey;
    assert_int_equal(ibv_advise_mr(a.pd, READ, 0, &sge, 1), 0);
    assert_int_equal(ibv_advise_mr(a.pd, WRITE, 0, &sge, 1), EPERM);
    assert_int_equal(ibv_advise_mr(other, READ, 0, &sge, 1), EPERM);
    assert_int_equal(ibv_advise_mr(a.pd, (enum ibv_advise_mr_advice)9, 0, &sge, 1), ENOTSUP);
    assert_int_equal(ibv_advise_mr(a.pd, READ, 2, &sge, 1), EINVAL);
    sge.length = 4 * PAGE;
    assert_int_equal(ibv_advise_mr(a.pd, READ, 0, &sge, 1), EFAULT);
    sge = (struct ibv_sge){(uintptr_t)at, PAGE, ro->lkey ^ 1};
    assert_int_equal(ibv_advise_mr(a.pd, READ, 0, &sge, 1), EFAULT);
    sge.lkey = mw->rkey;
    assert_int_equal(ibv_advise_mr(a.pd, READ, 0, &sge, 1), EINVAL);
    sge = (struct ibv_sge){(uintptr_t)a.buf, PAGE, a.mr->lkey}; /* not on demand */
    assert_int_equal(ibv_advise_mr(a.pd, READ, 0, &sge, 1), EINVAL);
    munmap(at, 4 * PAGE);
    sge = (struct ibv_sge){(uintptr_t)at, PAGE, rw->lkey};
    assert_int_equal(ibv_advise_mr(a.pd, READ, 0, &sge, 1), EFAULT);
    assert_int_equal(ibv_advise_mr(a.pd, LOOK, 0, &sge, 1), EFAULT);
    assert_int_equal(ibv_dealloc_mw(mw), 0);
    assert_int_equal(ibv_dereg_mr(ro), 0);
    assert_int_equal(ibv_dereg_mr(rw), 0);
    assert_int_equal(ibv_dealloc_pd(other), 0);
    close_end(&a);
}

/* ---- device memory, dma-bufs ------------------------------------------------------------- */

static struct ibv_dm *alloc_dm(size_t length, uint32_t align, uint32_t mask)
{
    struct ibv_alloc_dm_attr attr = {.length = length, .log_align_req = align, .comp_mask = mask};
    errno = 0;
    return ibv_alloc_dm(b.context, &attr);
}

static void device_memory(void **state)
{
    struct ibv_device_attr_ex attr;
    uint32_t words[1024];
    (void)state;
    open_pair(&a, &b);
    assert_int_equal(ibv_query_device_ex(b.context, NULL, &attr), 0);
    assert_true(attr.max_dm_size > PAGE);
    assert_null(alloc_dm(attr.max_dm_size + 1, 0, 0));
    assert_int_equal(errno, ENOMEM);
    assert_null(alloc_dm(0, 0, 0));
    assert_null(alloc_dm(PAGE, 30, 0));
    assert_null(alloc_dm(PAGE, 0, 1));
    assert_int_equal(errno, EINVAL);
    struct ibv_dm *all = alloc_dm(attr.max_dm_size, 0, 0);
    assert_non_null(all);
    assert_null(alloc_dm(4, 0, 0));
    assert_int_equal(ibv_free_dm(all), 0);

    struct ibv_dm *dm = alloc_dm(2 * PAGE, 6, 0);
    assert_non_null(dm);
    for (uint32_t i = 0; i < 1024; i++) words[i] = i;
    assert_int_equal(ibv_memcpy_to_dm(dm, PAGE, words, PAGE), 0);
    assert_int_equal(ibv_memcpy_to_dm(dm, PAGE + 4, words, PAGE), EFAULT);
    assert_int_equal(ibv_memcpy_to_dm(dm, 3, words, 4), EINVAL);
    assert_int_equal(ibv_memcpy_from_dm(words, dm, 0, 3), EINVAL);
    const unsigned zb = IBV_ACCESS_ZERO_BASED | IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ |
                        IBV_ACCESS_REMOTE_ATOMIC;
    assert_null(ibv_reg_dm_mr(b.pd, dm, 0, PAGE, zb & ~(unsigned)IBV_ACCESS_ZERO_BASED));
    assert_null(ibv_reg_dm_mr(b.pd, dm, PAGE, PAGE + 4, zb));
    assert_null(ibv_reg_dm_mr(a.pd, dm, 0, PAGE, zb));
    struct ibv_mr *mr = ibv_reg_dm_mr(b.pd, dm, PAGE, PAGE, zb);
    assert_non_null(mr);
    assert_int_equal(rdma(IBV_WR_RDMA_READ, (uintptr_t)a.buf, a.mr->lkey, PAGE, 0, mr->rkey),
                     IBV_WC_SUCCESS);
    assert_memory_equal(a.buf, words, PAGE);
    assert_int_equal(
        rdma(IBV_WR_ATOMIC_FETCH_AND_ADD, (uintptr_t)a.buf, a.mr->lkey, 8, 8, mr->rkey),
        IBV_WC_SUCCESS);
    assert_int_equal(ibv_memcpy_from_dm(words, dm, PAGE + 8, 4), 0);
    assert_int_equal(words[0], 3);
    assert_int_equal(ibv_free_dm(dm), EBUSY);

    /* exported, its region can be made of it again */
    int (*export)(struct ibv_dm *) = (int (*)(struct ibv_dm *))(uintptr_t)dlvsym(
        RTLD_DEFAULT, "ibv_dm_export_dmabuf_fd", "IBVERBS_1.16");
    assert_non_null(export);
    int fd = export(dm);
    assert_true(fd >= 0);
    struct ibv_mr *again = ibv_reg_dmabuf_mr(b.pd, PAGE, PAGE, 0, fd, IBV_ACCESS_REMOTE_READ);
    assert_non_null(again);
    close(fd);
    assert_int_equal(rdma(IBV_WR_RDMA_READ, (uintptr_t)a.buf, a.mr->lkey, 4, 8, again->rkey),
                     IBV_WC_SUCCESS);
    assert_int_equal(*(uint32_t *)a.buf, 3);
    assert_int_equal(ibv_dereg_mr(again), 0);
    assert_int_equal(ibv_dereg_mr(mr), 0);
    assert_int_equal(ibv_free_dm(dm), 0);
    close_end(&a);
    close_end(&b);
}

static void refused_dmabuf(uint64_t offset, size_t length, uint64_t iova, int fd, int access,
                           int error)
{
    errno = 0;
    assert_null(ibv_reg_dmabuf_mr(b.pd, offset, length, iova, fd, access));
    assert_int_equal(errno, error);
}

static void dmabuf(void **state)
{
    (void)state;
    open_pair(&a, &b);
    int fd = memfd_create("buffer", MFD_CLOEXEC), pipefd[2];
    assert_int_equal(ftruncate(fd, 4 * PAGE), 0);
    assert_int_equal(pipe(pipefd), 0);
    assert_int_equal(lseek(fd, 100, SEEK_SET), 100);
    refused_dmabuf(0, 4 * PAGE + 1, 0, fd, ALL_ACCESS, EINVAL);
    assert_int_equal(lseek(fd, 0, SEEK_CUR), 100);       /* the program's own */
    refused_dmabuf(0, PAGE, 16, fd, ALL_ACCESS, EINVAL); /* other offset in the page */
    refused_dmabuf(0, 4 * PAGE + 1, 0, fd, ALL_ACCESS, EINVAL);
    refused_dmabuf(0, PAGE, 0, fd, IBV_ACCESS_REMOTE_WRITE, EINVAL);
    refused_dmabuf(0, PAGE, 0, fd, ALL_ACCESS | IBV_ACCESS_ON_DEMAND, EINVAL);
    refused_dmabuf(0, PAGE, 0, pipefd[0], ALL_ACCESS, EINVAL);
    refused_dmabuf(0, PAGE, 0, 9999, ALL_ACCESS, EBADF);
    int dir = open("/proc/self", O_RDONLY | O_DIRECTORY);
    refused_dmabuf(0, 0, 0, dir, ALL_ACCESS, EINVAL);
    const uint64_t iova = (uint64_t)7 << 40 | 100;
    struct ibv_mr *mr = ibv_reg_dmabuf_mr(b.pd, PAGE + 100, 2 * PAGE, iova, fd,
                                          ALL_ACCESS | IBV_ACCESS_RELAXED_ORDERING);
    assert_non_null(mr);
    memset(a.buf, 0x44, 2 * PAGE);
    assert_int_equal(
        rdma(IBV_WR_RDMA_WRITE, (uintptr_t)a.buf, a.mr->lkey, 2 * PAGE, iova, mr->rkey),
        IBV_WC_SUCCESS);
    uint8_t *seen = mmap(NULL, 4 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
    assert_memory_equal(seen + PAGE + 100, a.buf, 2 * PAGE);
    assert_int_equal(seen[PAGE + 99], 0);
    assert_int_equal(seen[3 * PAGE + 100], 0);
    refused_rereg(mr, IBV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, 0, EINVAL);
    assert_int_equal(ibv_dereg_mr(mr), 0);
    munmap(seen, 4 * PAGE);
    close(fd);
    close(dir);
    close(pipefd[0]);
    close(pipefd[1]);
    close_end(&a);
    close_end(&b);
}

EDGE_MAIN(cmocka_unit_test(reregister), cmocka_unit_test(null_region), cmocka_unit_test(on_demand),
          cmocka_unit_test(implicit_flags), cmocka_unit_test(advice),
          cmocka_unit_test(device_memory), cmocka_unit_test(dmabuf))
