/* Completion queues: moderation, resizing under load, what an extended one tells, overruns. */
#include "end.h"
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

static struct ibv_cq *plain(struct end *e) { return ibv_cq_ex_to_cq(e->cq); }

static int moderate(struct end *e, uint16_t count, uint16_t period_us)
{
    struct ibv_modify_cq_attr attr = {.attr_mask = IBV_CQ_ATTR_MODERATE,
                                      .moderate = {count, period_us}};
    return ibv_modify_cq(plain(e), &attr);
}

static bool has_event(struct end *e, int ms)
{
    struct pollfd pfd = {.fd = e->channel->fd, .events = POLLIN};
    struct ibv_cq *cq;
    void *context;

    if (poll(&pfd, 1, ms) == 0) return false;
    assert_int_equal(ibv_get_cq_event(e->channel, &cq, &context), 0);
    ibv_ack_cq_events(cq, 1);
    return true;
}

static void sends(struct end *a, struct end *b, int n)
{
    struct ibv_wc wc;
    for (int i = 0; i < n; i++) {
        post_recv(b, 1, 0, 64);
        assert_int_equal(post(a, b, IBV_WR_SEND, 64), 0);
        await(a, &wc);
    }
}

static void drain(struct end *e)
{
    struct ibv_wc wc;
    while (ibv_poll_cq(plain(e), 1, &wc) == 1) {
    }
}

static void holds_events_back(void **state)
{
    struct end a, b;
    struct ibv_device_attr_ex da;
    (void)state;

    open_pair(&a, &b);
    assert_int_equal(ibv_query_device_ex(a.context, NULL, &da), 0);
    assert_int_equal(da.cq_mod_caps.max_cq_count, UINT16_MAX);
    assert_int_equal(da.cq_mod_caps.max_cq_period, UINT16_MAX);
    struct ibv_modify_cq_attr unknown = {.attr_mask = 1 << 5};
    assert_int_equal(ibv_modify_cq(plain(&b), &unknown), EINVAL);

    assert_int_equal(moderate(&b, 4, 0), 0);
    assert_int_equal(ibv_req_notify_cq(plain(&b), 0), 0);
    sends(&a, &b, 3);
    assert_false(has_event(&b, 20));
    sends(&a, &b, 1);
    assert_true(has_event(&b, 2000));
    drain(&b);

    assert_int_equal(moderate(&b, 0, 60000), 0);
    assert_int_equal(ibv_req_notify_cq(plain(&b), 0), 0);
    double from = seconds();
    sends(&a, &b, 2);
    assert_true(has_event(&b, 2000)); /* the worker brings it: nobody polls */
    assert_true(seconds() - from >= 0.059);
    drain(&b);

    assert_int_equal(moderate(&b, 0, 0), 0);
    assert_int_equal(ibv_req_notify_cq(plain(&b), 0), 0);
    sends(&a, &b, 1);
    assert_true(has_event(&b, 2000));
    close_end(&a);
    close_end(&b);
}

/* ---- resizing ---------------------------------------------------------------------------- */

static atomic_bool loaded;

static void *resizes(void *arg)
{
    static const int sizes[] = {256, 4096, 512, 300, 1000};
    struct end *e = arg;

    for (unsigned i = 0; atomic_load(&loaded); i++) {
        int want = sizes[i % 5];
        if (ibv_resize_cq(plain(e), want) != 0 || plain(e)->cqe < want) return arg;
        usleep(200);
    }
    return NULL;
}

static void resizes_under_load(void **state)
{
    struct end a, b;
    pthread_t thread;
    void *wrong;
    struct ibv_wc wc[16];
    uint64_t next = 0, posted = 0, sent = 0; /* received, asked for, and acknowledged sends */
    (void)state;

    open_pair(&a, &b);
    atomic_store(&loaded, true);
    assert_int_equal(pthread_create(&thread, NULL, resizes, &b), 0);
    double until = seconds() + 20;
    while (next < 5000 && seconds() < until) {
        for (; posted < 5000 && posted < next + 32 && posted < sent + 32; posted++) {
            post_recv(&b, posted, 0, 64);
            assert_int_equal(post(&a, &b, IBV_WR_SEND, 64), 0);
        }
        int n = ibv_poll_cq(plain(&a), 16, wc);
        assert_true(n >= 0);
        sent += (uint64_t)n;
        n = ibv_poll_cq(plain(&b), 16, wc);
        assert_true(n >= 0);
        for (int i = 0; i < n; i++) assert_int_equal(wc[i].wr_id, next++);
    }
    atomic_store(&loaded, false);
    pthread_join(thread, &wrong);
    assert_null(wrong);
    assert_int_equal(next, 5000);
    assert_int_equal(ibv_resize_cq(plain(&b), 0), EINVAL);
    drain(&a);
    close_end(&a);
    close_end(&b);
}

/* ---- polling while another thread destroys ------------------------------------------------- */

static void *destroys(void *qp) { return (void *)(intptr_t)ibv_destroy_qp(qp); }

/* Programs post between ibv_start_poll and ibv_end_poll, whoever waits for the CQ meanwhile. */
static void posts_while_it_polls(void **state)
{
    struct end a, b;
    struct ibv_poll_cq_attr attr = {0};
    pthread_t thread;
    void *rc;
    (void)state;

    open_pair(&a, &b);
    struct ibv_qp *first = a.qp;
    make_qp(&a, IBV_QPT_RC);
    struct ibv_qp *second = a.qp;
    a.qp = first;
    assert_int_equal(post(&a, &b, IBV_WR_RDMA_WRITE, 64), 0);
    double until = seconds() + 3;
    while (ibv_start_poll(a.cq, &attr) != 0) assert_true(seconds() < until);
    alarm(20);
    assert_int_equal(pthread_create(&thread, NULL, destroys, second), 0);
    usleep(50000);
    post_recv(&a, 1, 0, 64);
    ibv_end_poll(a.cq);
    pthread_join(thread, &rc);
    alarm(0);
    assert_null(rc);
    close_end(&a);
    close_end(&b);
}

/* ---- what an extended CQ tells ----------------------------------------------------------- */

static uint64_t wall_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static uint64_t raw_ns(struct ibv_context *context)
{
    struct ibv_values_ex values = {.comp_mask = IBV_VALUES_MASK_RAW_CLOCK};
    assert_int_equal(ibv_query_rt_values_ex(context, &values), 0);
    assert_int_equal(values.comp_mask, IBV_VALUES_MASK_RAW_CLOCK);
    return (uint64_t)values.raw_clock.tv_sec * 1000000000 + (uint64_t)values.raw_clock.tv_nsec;
}

static void reads_every_field(void **state)
{
    struct end a, b;
    struct ibv_poll_cq_attr none = {0}, some = {.comp_mask = 1};
    struct ibv_device_attr_ex da;
    (void)state;

    open_end(&a, IBV_QPT_RC);
    open_end(&b, IBV_QPT_RC);
    assert_int_equal(ibv_destroy_qp(b.qp), 0);
    assert_int_equal(ibv_destroy_cq(plain(&b)), 0);
    struct ibv_cq_init_attr_ex ci = {.cqe = 16,
                                     .channel = b.channel,
                                     .wc_flags = IBV_WC_STANDARD_FLAGS |
                                                 IBV_WC_EX_WITH_COMPLETION_TIMESTAMP |
                                                 IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK,
                                     .comp_mask = IBV_CQ_INIT_ATTR_MASK_FLAGS,
                                     .flags = IBV_CREATE_CQ_ATTR_SINGLE_THREADED};
    assert_non_null(b.cq = ibv_create_cq_ex(b.context, &ci));
    make_qp(&b, IBV_QPT_RC);
    connect_rc(&a, &b, 14);
    connect_rc(&b, &a, 14);
    assert_int_equal(ibv_query_device_ex(b.context, NULL, &da), 0);
    assert_int_equal(da.hca_core_clock, 1000000); /* kHz: the stamp counts nanoseconds */
    assert_true(da.completion_timestamp_mask == UINT64_MAX);

    uint64_t wall = wall_ns(), raw = raw_ns(b.context);
    assert_int_equal(ibv_start_poll(b.cq, &some), EINVAL);
    post_recv(&b, 77, 0, 64);
    assert_int_equal(post(&a, &b, IBV_WR_SEND_WITH_IMM, 40), 0);
    double until = seconds() + 3;
    while (ibv_start_poll(b.cq, &none) == ENOENT) assert_true(seconds() < until);
    assert_int_equal(b.cq->wr_id, 77);
    assert_int_equal(b.cq->status, IBV_WC_SUCCESS);
    assert_int_equal(ibv_wc_read_opcode(b.cq), IBV_WC_RECV);
    assert_int_equal(ibv_wc_read_vendor_err(b.cq), 0);
    assert_int_equal(ibv_wc_read_byte_len(b.cq), 40);
    assert_int_equal(ibv_wc_read_imm_data(b.cq), 0x12345678);
    assert_int_equal(ibv_wc_read_qp_num(b.cq), b.qp->qp_num);
    assert_int_equal(ibv_wc_read_wc_flags(b.cq), IBV_WC_WITH_IMM);
    assert_int_equal(ibv_wc_read_slid(b.cq), 0);
    assert_int_equal(ibv_wc_read_dlid_path_bits(b.cq), 0);
    assert_int_equal(ibv_wc_read_sl(b.cq), 0);
    (void)ibv_wc_read_src_qp(b.cq);
    uint64_t at = ibv_wc_read_completion_ts(b.cq);
    assert_true(at >= raw && at <= raw_ns(b.context));
    at = ibv_wc_read_completion_wallclock_ns(b.cq);
    assert_true(at >= wall - 1000000 && at <= wall_ns() + 1000000);
    ibv_end_poll(b.cq);
    close_end(&a);
    close_end(&b);
}

/* Between ibv_start_poll and ibv_end_poll: what would wait for the thread itself is refused, what
 * touches the CQ's entries besides goes through. */
static void does_not_wait_for_itself(void **state)
{
    struct end a, b;
    struct ibv_poll_cq_attr none = {0};
    struct ibv_wc wc;
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RESET};
    (void)state;

    open_pair(&a, &b);
    alarm(WAIT_MS / 1000);
    for (int i = 0; i < 2; i++) assert_int_equal(post(&a, &b, IBV_WR_RDMA_WRITE, 64), 0);
    while (ibv_start_poll(a.cq, &none)) continue;
    assert_int_equal(ibv_start_poll(a.cq, &none), EBUSY);
    assert_int_equal(ibv_destroy_cq(plain(&a)), EBUSY);
    assert_int_equal(errno, EBUSY);
    assert_int_equal(ibv_resize_cq(plain(&a), 512), 0);
    while (ibv_poll_cq(plain(&a), 1, &wc) == 0) continue;
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    assert_int_equal(ibv_modify_qp(a.qp, &attr, IBV_QP_STATE), 0);
    assert_int_equal(ibv_destroy_qp(a.qp), 0);
    a.qp = NULL;
    assert_int_equal(ibv_next_poll(a.cq), ENOENT);
    assert_int_equal(ibv_wc_read_opcode(a.cq), IBV_WC_RDMA_WRITE);
    ibv_end_poll(a.cq);
    assert_int_equal(ibv_start_poll(a.cq, &none), ENOENT);
    alarm(0);
    close_end(&a);
    close_end(&b);
}

static void refuses_what_it_cannot_tell(void **state)
{
    static const uint64_t refused[] = {IBV_WC_EX_WITH_CVLAN, IBV_WC_EX_WITH_FLOW_TAG,
                                       IBV_WC_EX_WITH_TM_INFO, 1ull << 40};
    struct ibv_context *c = ibv_open_device(device);
    (void)state;

    for (unsigned i = 0; i < 4; i++) {
        struct ibv_cq_init_attr_ex ci = {.cqe = 16, .wc_flags = refused[i]};
        assert_null(ibv_create_cq_ex(c, &ci));
        assert_int_equal(errno, EOPNOTSUPP);
    }
    struct ibv_cq_init_attr_ex ci = {.cqe = 16, .comp_mask = 1 << 9};
    assert_null(ibv_create_cq_ex(c, &ci));
    assert_int_equal(errno, EOPNOTSUPP);
    ci = (struct ibv_cq_init_attr_ex){
        .cqe = 16, .comp_mask = IBV_CQ_INIT_ATTR_MASK_FLAGS, .flags = 1 << 9};
    assert_null(ibv_create_cq_ex(c, &ci));
    assert_int_equal(errno, EOPNOTSUPP);
    assert_int_equal(c->num_comp_vectors, 1); /* one worker brings all events */
    assert_null(ibv_create_cq(c, 16, NULL, NULL, 1));
    assert_int_equal(errno, EINVAL);
    assert_null(ibv_create_cq(c, 0, NULL, NULL, 0));
    assert_int_equal(errno, EINVAL);
    assert_int_equal(ibv_close_device(c), 0);
}

/* ---- overrun ----------------------------------------------------------------------------- */

static void fill(struct end *a, struct end *b, uint32_t flags)
{
    open_end(a, IBV_QPT_RC);
    open_end(b, IBV_QPT_RC);
    assert_int_equal(ibv_destroy_qp(b->qp), 0);
    assert_int_equal(ibv_destroy_cq(plain(b)), 0);
    struct ibv_cq_init_attr_ex ci = {
        .cqe = 4, .channel = b->channel, .comp_mask = IBV_CQ_INIT_ATTR_MASK_FLAGS, .flags = flags};
    assert_non_null(b->cq = ibv_create_cq_ex(b->context, &ci));
    assert_int_equal(b->cq->cqe, 4);
    make_qp(b, IBV_QPT_RC);
    connect_rc(a, b, 14);
    connect_rc(b, a, 14);
    struct ibv_wc wc;
    for (int i = 0; i < 6; i++) post_recv(b, (uint64_t)i, 0, 64);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(post(a, b, IBV_WR_SEND, 8), 0);
        await(a, &wc);
    }
}

static void tells_of_an_overrun(void **state)
{
    struct end a, b;
    struct ibv_wc wc[8];
    struct ibv_async_event event;
    struct ibv_qp_attr attr;
    struct ibv_qp_init_attr init;
    (void)state;

    fill(&a, &b, 0);
    do assert_int_equal(ibv_get_async_event(b.context, &event), 0);
    while (event.event_type == IBV_EVENT_COMM_EST && (ibv_ack_async_event(&event), true));
    assert_int_equal(event.event_type, IBV_EVENT_CQ_ERR);
    assert_ptr_equal(event.element.cq, plain(&b));
    ibv_ack_async_event(&event);
    assert_int_equal(ibv_query_qp(b.qp, &attr, IBV_QP_STATE, &init), 0);
    assert_int_equal(attr.qp_state, IBV_QPS_ERR);
    assert_int_equal(ibv_poll_cq(plain(&b), 8, wc), 4);
    assert_true(ibv_poll_cq(plain(&b), 8, wc) < 0);
    close_end(&a);
    close_end(&b);

    fill(&a, &b, IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN);
    assert_int_equal(ibv_poll_cq(plain(&b), 8, wc), 4);
    assert_int_equal(ibv_poll_cq(plain(&b), 8, wc), 0); /* two were lost */
    sends(&a, &b, 1);
    await(&b, wc);
    assert_int_equal(wc[0].status, IBV_WC_SUCCESS);
    close_end(&a);
    close_end(&b);
}

EDGE_MAIN(cmocka_unit_test(holds_events_back), cmocka_unit_test(resizes_under_load),
          cmocka_unit_test(posts_while_it_polls), cmocka_unit_test(reads_every_field),
          cmocka_unit_test(does_not_wait_for_itself), cmocka_unit_test(refuses_what_it_cannot_tell),
          cmocka_unit_test(tells_of_an_overrun))
