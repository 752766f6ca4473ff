/* What ibv_query_device says can be had: that many objects, each as large as it says, and an error
 * for more. */
#include "end.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define MEMORY_IS_OURS 0
#else
#define MEMORY_IS_OURS 1
#endif
/* A queue pair with one request of one SGE each way. */
#define QP_BYTES_MAX 16384
/* Of what is bounded by memory alone. */
#define SOME 20000
#define AS_MANY_AS(max) ((max) < SOME ? (max) : SOME)

static struct ibv_context *context;
static struct ibv_device_attr attr;
static struct ibv_pd *pd;
static struct ibv_cq *cq;

static long resident(void)
{
    long size, pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");

    assert_non_null(file);
    assert_int_equal(fscanf(file, "%ld %ld", &size, &pages), 2);
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

static int begin(void **state)
{
    (void)state;
    if (!(context = ibv_open_device(device)) || ibv_query_device(context, &attr)) return -1;
    pd = ibv_alloc_pd(context);
    cq = ibv_create_cq(context, 16, NULL, NULL, 0);
    return pd && cq ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    if (ibv_destroy_cq(cq) || ibv_dealloc_pd(pd)) return -1;
    return ibv_close_device(context);
}

static struct ibv_qp *qp_of(uint32_t wr, uint32_t sge)
{
    struct ibv_qp_init_attr init = {
        .send_cq = cq, .recv_cq = cq, .cap = {wr, wr, sge, sge, 0}, .qp_type = IBV_QPT_RC};

    errno = 0;
    return ibv_create_qp(pd, &init);
}

static void queue_pairs(void **state)
{
    struct ibv_qp **qp = calloc((size_t)attr.max_qp, sizeof *qp);
    (void)state;

    assert_non_null(qp);
    assert_true(attr.max_qp > 16000);
    long before = resident();
    for (int i = 0; i < attr.max_qp; i++)
        if (!(qp[i] = qp_of(1, 1))) fail_msg("QP %d: %s", i, strerror(errno));
    long each = (resident() - before) / attr.max_qp;
    print_message("%d queue pairs, %ld bytes each\n", attr.max_qp, each);
    if (MEMORY_IS_OURS) assert_true(each < QP_BYTES_MAX);
    assert_null(qp_of(1, 1));
    assert_int_equal(errno, ENOMEM);
    assert_int_equal(ibv_destroy_qp(qp[77]), 0);
    assert_non_null(qp[77] = qp_of(1, 1));
    for (int i = 0; i < attr.max_qp; i++) assert_int_equal(ibv_destroy_qp(qp[i]), 0);
    free(qp);
}

static void requests(void **state)
{
    struct ibv_qp *qp;
    (void)state;

    assert_non_null(qp = qp_of((uint32_t)attr.max_qp_wr, (uint32_t)attr.max_sge));
    assert_int_equal(ibv_destroy_qp(qp), 0);
    assert_null(qp_of((uint32_t)attr.max_qp_wr + 1, 1));
    assert_int_equal(errno, EINVAL);
    assert_null(qp_of(1, (uint32_t)attr.max_sge + 1));
    assert_int_equal(errno, EINVAL);
}

static void completion_queues(void **state)
{
    struct ibv_cq **many = calloc((size_t)attr.max_cq, sizeof *many), *large;
    int n = 1; /* ours */
    (void)state;

    assert_non_null(many);
    for (; n < attr.max_cq; n++)
        if (!(many[n] = ibv_create_cq(context, 1, NULL, NULL, 0))) fail_msg("CQ %d", n);
    for (n = 1; n < attr.max_cq; n++) assert_int_equal(ibv_destroy_cq(many[n]), 0);
    free(many);
    assert_non_null(large = ibv_create_cq(context, attr.max_cqe, NULL, NULL, 0));
    assert_int_equal(ibv_destroy_cq(large), 0);
    errno = 0;
    assert_null(ibv_create_cq(context, attr.max_cqe + 1, NULL, NULL, 0));
    assert_int_equal(errno, EINVAL);
}

static void shared_receive_queues(void **state)
{
    struct ibv_srq_init_attr init = {.attr = {.max_wr = 1, .max_sge = 1}};
    struct ibv_srq **many = calloc(SOME, sizeof *many), *large;
    const int n = AS_MANY_AS(attr.max_srq);
    (void)state;

    assert_non_null(many);
    assert_true(n > 1000);
    for (int i = 0; i < n; i++) assert_non_null(many[i] = ibv_create_srq(pd, &init));
    for (int i = 0; i < n; i++) assert_int_equal(ibv_destroy_srq(many[i]), 0);
    free(many);
    init.attr.max_wr = (uint32_t)attr.max_srq_wr;
    init.attr.max_sge = (uint32_t)attr.max_srq_sge;
    assert_non_null(large = ibv_create_srq(pd, &init));
    assert_int_equal(ibv_destroy_srq(large), 0);
    init.attr.max_wr++;
    errno = 0;
    assert_null(ibv_create_srq(pd, &init));
    assert_int_equal(errno, EINVAL);
}

static void regions(void **state)
{
    static char page[4096];
    struct ibv_mr **many = calloc(SOME, sizeof *many);
    const int n = AS_MANY_AS(attr.max_mr);
    (void)state;

    assert_non_null(many);
    assert_true(n > 1000);
    for (int i = 0; i < n; i++)
        assert_non_null(many[i] = ibv_reg_mr(pd, page, sizeof page, IBV_ACCESS_LOCAL_WRITE));
    for (int i = 0; i < n; i++) assert_int_equal(ibv_dereg_mr(many[i]), 0);
    free(many);
}

static void domains_and_addresses(void **state)
{
    struct ibv_pd **domain = calloc(SOME, sizeof *domain);
    struct ibv_ah **ah = calloc(SOME, sizeof *ah);
    struct ibv_ah_attr to = {.is_global = 1, .port_num = 1};
    (void)state;

    assert_true(domain && ah && attr.max_pd >= SOME && attr.max_ah >= SOME);
    to.grh.sgid_index = (uint8_t)gid_index(context, &to.grh.dgid);
    for (int i = 0; i < SOME; i++) {
        assert_non_null(domain[i] = ibv_alloc_pd(context));
        assert_non_null(ah[i] = ibv_create_ah(domain[i], &to));
    }
    for (int i = 0; i < SOME; i++) {
        assert_int_equal(ibv_destroy_ah(ah[i]), 0);
        assert_int_equal(ibv_dealloc_pd(domain[i]), 0);
    }
    free(domain);
    free(ah);
}

EDGE_MAIN(cmocka_unit_test_setup_teardown(queue_pairs, begin, end),
          cmocka_unit_test_setup_teardown(requests, begin, end),
          cmocka_unit_test_setup_teardown(completion_queues, begin, end),
          cmocka_unit_test_setup_teardown(shared_receive_queues, begin, end),
          cmocka_unit_test_setup_teardown(regions, begin, end),
          cmocka_unit_test_setup_teardown(domains_and_addresses, begin, end))
