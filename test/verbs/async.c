/* Async events: of the port as its link and addresses change, of a device that goes, more than the
 * pipe holds, and destroyers that wait for acknowledgements. */
#include "end.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

static void run(const char *command)
{
    if (system(command) != 0) fail_msg("failed: %s", command);
}

/* Reads until an event of this type comes; acknowledges all. */
static struct ibv_async_event await_event(struct ibv_context *c, enum ibv_event_type type)
{
    struct ibv_async_event event;
    struct pollfd pfd = {.fd = c->async_fd, .events = POLLIN};

    do {
        if (poll(&pfd, 1, WAIT_MS) != 1) fail_msg("no %s", ibv_event_type_str(type));
        assert_int_equal(ibv_get_async_event(c, &event), 0);
        ibv_ack_async_event(&event);
    } while (event.event_type != type);
    return event;
}

static void tells_of_link_and_addresses(void **state)
{
    struct ibv_context *c = ibv_open_device(device);
    struct ibv_port_attr port;
    (void)state;

    run("ip link set vb down");
    struct ibv_async_event event = await_event(c, IBV_EVENT_PORT_ERR);
    assert_int_equal(event.element.port_num, 1);
    assert_int_equal(ibv_query_port(c, 1, &port), 0);
    assert_int_equal(port.state, IBV_PORT_DOWN);
    assert_int_equal(port.phys_state, 3); /* disabled */
    run("ip link set vb up");
    event = await_event(c, IBV_EVENT_PORT_ACTIVE);
    assert_int_equal(event.element.port_num, 1);
    assert_int_equal(ibv_query_port(c, 1, &port), 0);
    assert_int_equal(port.state, IBV_PORT_ACTIVE);
    run("ip addr add 10.78.7.1/24 dev va");
    event = await_event(c, IBV_EVENT_GID_CHANGE);
    assert_int_equal(event.element.port_num, 1);
    run("ip addr del 10.78.7.1/24 dev va");
    await_event(c, IBV_EVENT_GID_CHANGE);
    assert_int_equal(ibv_close_device(c), 0);
}

/* ---- more than fit ----------------------------------------------------------------------- */

enum { MANY = 400 };

static void loses_none_when_nobody_reads(void **state)
{
    struct end e;
    struct ibv_qp *qps[MANY];
    bool told[MANY] = {0};
    (void)state;

    open_end(&e, IBV_QPT_RC);
    assert_int_equal(fcntl(e.context->async_fd, F_SETPIPE_SZ, 4096), 4096); /* 256 events */
    struct ibv_srq_init_attr si = {.attr = {.max_wr = 4, .max_sge = 1}};
    assert_non_null(e.srq = ibv_create_srq(e.pd, &si));
    struct ibv_qp *own = e.qp;
    for (int i = 0; i < MANY; i++) {
        make_qp(&e, IBV_QPT_RC);
        qps[i] = e.qp;
        struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
        assert_int_equal(ibv_modify_qp(e.qp, &attr, IBV_QP_STATE), 0);
    }
    e.qp = own;
    /* of the waiting ones, some whose event is in the pipe and some whose is not go unheard */
    for (int i = 0; i < MANY; i += 100) {
        assert_int_equal(ibv_destroy_qp(qps[i]), 0);
        qps[i] = NULL;
    }
    for (int n = 0; n < MANY - 4; n++) {
        struct ibv_async_event event = await_event(e.context, IBV_EVENT_QP_LAST_WQE_REACHED);
        int i = 0;
        while (i < MANY && qps[i] != event.element.qp) i++;
        assert_in_range(i, 0, MANY - 1);
        assert_false(told[i]);
        told[i] = true;
    }
    struct pollfd pfd = {.fd = e.context->async_fd, .events = POLLIN};
    while (poll(&pfd, 1, 30)) { /* the port's may come at any time */
        struct ibv_async_event event;
        assert_int_equal(ibv_get_async_event(e.context, &event), 0);
        assert_int_not_equal(event.event_type, IBV_EVENT_QP_LAST_WQE_REACHED);
        ibv_ack_async_event(&event);
    }
    for (int i = 0; i < MANY; i++)
        if (qps[i]) assert_int_equal(ibv_destroy_qp(qps[i]), 0);
    assert_int_equal(ibv_destroy_srq(e.srq), 0);
    close_end(&e);
}

/* ---- acknowledging ----------------------------------------------------------------------- */

static atomic_bool gone;

static void *destroys(void *qp)
{
    int rc = ibv_destroy_qp(qp);
    atomic_store(&gone, true);
    return rc ? qp : NULL;
}

static void waits_for_acknowledgement(void **state)
{
    struct end e;
    struct ibv_async_event event;
    pthread_t thread;
    void *wrong;
    (void)state;

    open_end(&e, IBV_QPT_RC);
    assert_int_equal(ibv_destroy_qp(e.qp), 0);
    struct ibv_srq_init_attr si = {.attr = {.max_wr = 4, .max_sge = 1}};
    assert_non_null(e.srq = ibv_create_srq(e.pd, &si));
    make_qp(&e, IBV_QPT_RC);
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    assert_int_equal(ibv_modify_qp(e.qp, &attr, IBV_QP_STATE), 0);
    for (;;) { /* the port's may come before it */
        assert_int_equal(ibv_get_async_event(e.context, &event), 0);
        if (event.event_type == IBV_EVENT_QP_LAST_WQE_REACHED) break;
        ibv_ack_async_event(&event);
    }
    atomic_store(&gone, false);
    assert_int_equal(pthread_create(&thread, NULL, destroys, e.qp), 0);
    usleep(50000);
    assert_false(atomic_load(&gone)); /* got, and not acknowledged */
    ibv_ack_async_event(&event);
    pthread_join(thread, &wrong);
    assert_null(wrong);
    e.qp = NULL;
    assert_int_equal(ibv_destroy_srq(e.srq), 0);
    close_end(&e);
}

/* ---- a device that goes: the last test, for it does ---------------------------------------- */

static void ends_rbondd(void)
{
    const char *pid = getenv("EDGE_DAEMON");

    assert_non_null(pid);
    assert_int_equal(kill((pid_t)atoi(pid), SIGTERM), 0);
    usleep(300000);
}

static double cpu_seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* A program that keeps a dead device open costs nothing. */
static void idles(void)
{
    double from = cpu_seconds();
    usleep(500000);
    assert_true(cpu_seconds() - from < 0.1);
}

static void tells_of_a_device_that_goes(void **state)
{
    struct end a, b;
    struct ibv_wc wc;
    (void)state;

    open_pair(&a, &b);
    post_recv(&b, 5, 0, 64);
    run("ip link del va");
    await_event(b.context, IBV_EVENT_DEVICE_FATAL);
    await(&b, &wc);
    assert_int_equal(wc.wr_id, 5);
    assert_int_equal(wc.status, IBV_WC_WR_FLUSH_ERR);
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1};
    struct ibv_qp_init_attr init;
    assert_int_equal(ibv_query_qp(b.qp, &attr, IBV_QP_STATE, &init), 0);
    assert_int_equal(attr.qp_state, IBV_QPS_ERR);
    init = (struct ibv_qp_init_attr){
        .send_cq = ibv_cq_ex_to_cq(b.cq), .recv_cq = ibv_cq_ex_to_cq(b.cq), .qp_type = IBV_QPT_RC};
    assert_null(ibv_create_qp(b.pd, &init));
    assert_int_equal(errno, EIO);
    ends_rbondd();
    idles();
    close_end(&a); /* teardown works */
    close_end(&b);
}

EDGE_MAIN(cmocka_unit_test(tells_of_link_and_addresses),
          cmocka_unit_test(loses_none_when_nobody_reads),
          cmocka_unit_test(waits_for_acknowledgement),
          cmocka_unit_test(tells_of_a_device_that_goes))
