/* rbondd's functions from outside: numbers and who may have them, sockets, pages, and what is
 * believed of them. */
#include "live.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

static struct live live;
static struct ctl_client *client;

static int start(void **state)
{
    live_start(&live, "{ \"bonds\": [] }");
    client = live_connect(&live);
    return 0;
}

static int stop(void **state)
{
    ctl_close(client);
    live_stop(&live);
    return 0;
}

static unsigned functions_now(void)
{
    struct ctl_reply r;

    assert_int_equal(ctl_call(client, CTL_FUNCTION_LIST, NULL, 0, sizeof(struct ctl_function), &r),
                     0);
    unsigned n = (unsigned)r.count;
    ctl_reply_free(&r);
    return n;
}

static void await_functions(unsigned want)
{
    for (unsigned i = 0; i < 500 && functions_now() != want; i++) usleep(10000);
    assert_int_equal(functions_now(), want);
}

static void test_killed_client(void **state)
{
    struct opened o;
    struct ctl_event event;
    char text[232];

    assert_int_equal(call_text(client, CTL_MONITOR, NULL, 0, text), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct ctl_client *c = live_connect(&live);
        if (open_device(c, "rb_va0", &o) != 0 || open_device(c, "rb_va1", &o) != 0) _exit(1);
        raise(SIGKILL);
    }
    assert_int_equal(exit_code(pid), -SIGKILL);
    assert_true(await_event(client, CTL_EV_FUNCTION_ADD, &event));
    assert_true(await_event(client, CTL_EV_FUNCTION_DEL, &event));
    await_functions(0);
}

static int reclaim(struct ctl_client *c, unsigned number)
{
    struct ctl_reclaim wanted = {.name = "rb_va0", .function = number};
    struct ctl_reply r;
    int rc = ctl_call(c, CTL_RECLAIM, &wanted, sizeof wanted, sizeof(struct ctl_opened), &r);

    ctl_reply_free(&r);
    return rc;
}

/* A number is given back to who had it, and to nobody else: its peers send on. */
static void test_reclaim(void **state)
{
    struct ctl_client *owner = live_connect(&live);
    struct opened o;

    assert_int_equal(open_device(owner, "rb_va0", &o), 0);
    ctl_close(owner);
    close_opened(&o);
    await_functions(0);
    pid_t pid = fork();
    if (pid == 0) {
        if (setuid(12345) != 0) _exit(EPERM); /* no such user here */
        _exit(-reclaim(live_connect(&live), o.info.function));
    }
    assert_int_equal(exit_code(pid), EPERM);
    owner = live_connect(&live);
    assert_int_equal(reclaim(owner, o.info.function), 0);
    ctl_close(owner);
    await_functions(0);
}

/* A datagram to every function's QP numbers arrives at its socket and no other. */
static void test_steering(void **state)
{
    enum { N = 300 };
    static struct opened o[N];
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(4791)};
    static const char *const hosts[2] = {"::ffff:127.0.0.1", "::1"};
    struct ctl_client *owner = live_connect(&live);
    uint8_t bth[16], got[64];

    for (unsigned i = 0; i < N; i++) {
        int rc = open_device(owner, i & 1 ? "rb_va0" : "rb_va1", &o[i]);
        if (rc != 0) fail_msg("function %u: %s", i, strerror(-rc));
    }
    assert_int_equal(functions_now(), N);
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);
    for (unsigned round = 0; round < 2; round++) {
        assert_int_equal(inet_pton(AF_INET6, hosts[round], &to.sin6_addr), 1);
        for (unsigned i = 0; i < N; i++) {
            uint32_t qpn = o[i].info.function << HCA_INDEX_BITS | (i * 37 % HCA_MAX_QP);
            memset(bth, 0, sizeof bth);
            bth[5] = (uint8_t)(qpn >> 16);
            bth[6] = (uint8_t)(qpn >> 8);
            bth[7] = (uint8_t)qpn;
            assert_int_equal(sendto(fd, bth, sizeof bth, 0, (struct sockaddr *)&to, sizeof to), 16);
        }
        for (unsigned i = 0; i < N; i++) {
            assert_int_equal(recv(o[i].rx_fd, got, sizeof got, MSG_DONTWAIT), 16);
            assert_int_equal((got[5] << 16 | got[6] << 8 | got[7]) >> HCA_INDEX_BITS,
                             o[i].info.function);
            assert_int_equal(recv(o[i].rx_fd, got, sizeof got, MSG_DONTWAIT), -1);
        }
    }
    close(fd);
    ctl_close(owner);
    for (unsigned i = 0; i < N; i++) close_opened(&o[i]);
    await_functions(0);
}

static void test_too_many(void **state)
{
    struct ctl_client *owner = live_connect(&live);
    struct ctl_name name = {"rb_va0"};
    struct ctl_reply r;
    unsigned n = 0;
    int rc = 0;

    while (n < 1100) {
        rc = ctl_call(owner, CTL_OPEN, &name, sizeof name, sizeof(struct ctl_opened), &r);
        if (rc != 0) break;
        n++;
        ctl_reply_free(&r);
    }
    assert_int_equal(n, 1023);
    assert_int_equal(rc, -EUSERS);
    assert_non_null(strstr(r.error, "too many functions"));
    ctl_reply_free(&r);
    ctl_close(owner);
    await_functions(0);
    struct opened o;
    assert_int_equal(open_device(client, "rb_va0", &o), 0);
    close_opened(&o);
}

/* A program writes nonsense into its page: only records that hold together are shown. */
static void test_distrust(void **state)
{
    struct opened o;
    struct ctl_reply r;

    assert_int_equal(open_device(client, "rb_va0", &o), 0);
    struct function_page *page =
        mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, o.function_fd, 0);
    assert_ptr_not_equal(page, MAP_FAILED);
    uint32_t base = o.info.function << HCA_INDEX_BITS;
    memset(&page->qp[100], 0xee, 50 * sizeof page->qp[0]);
    page->qp[7] = (struct hca_qp_view){.qpn = base | 7,
                                       .rq_psn = {5},
                                       .sq_psn = {0xffffff},
                                       .type = HCA_QPT_RC,
                                       .state = HCA_QPS_RTS};
    page->qp[8] = (struct hca_qp_view){.qpn = base | 9, .type = HCA_QPT_RC};
    page->qp[9] = (struct hca_qp_view){.qpn = base | 9, .type = 1};
    page->qp[11] =
        (struct hca_qp_view){.qpn = base | 11, .sq_psn = {0x1000000}, .type = HCA_QPT_RC};
    page->qp[10] = (struct hca_qp_view){.qpn = base | 10, .type = HCA_QPT_UD, .home = 8};
    page->qp[HCA_MAX_QP - 1] =
        (struct hca_qp_view){.qpn = base | (HCA_MAX_QP - 1), .type = HCA_QPT_UD, .home = 0xff};
    atomic_store(&page->counters[0], 12345);
    assert_int_equal(ctl_call(client, CTL_QP_LIST, NULL, 0, sizeof(struct ctl_qp), &r), 0);
    assert_int_equal(r.count, 2);
    struct ctl_qp *qp = r.records;
    assert_int_equal(qp[0].qpn, base | 7);
    assert_int_equal(qp[0].rq_psn, 5);
    assert_int_equal(qp[0].sq_psn, 0xffffff);
    assert_string_equal(qp[0].device, "rb_va0");
    assert_string_equal(qp[0].home_name, "va0");
    assert_int_equal(qp[1].qpn, base | (HCA_MAX_QP - 1));
    assert_string_equal(qp[1].home_name, "");
    ctl_reply_free(&r);

    for (unsigned round = 0; round < 2; round++) {
        uint64_t sent = 0;
        assert_int_equal(ctl_call(client, CTL_STAT, NULL, 0, sizeof(struct ctl_stat), &r), 0);
        for (size_t i = 0; i < r.count; i++) {
            const struct ctl_stat *s = (struct ctl_stat *)r.records + i;
            if (strcmp(s->device, "rb_va0") == 0 && !s->member[0] &&
                strcmp(s->name, "tx_packets") == 0)
                sent = s->value;
        }
        ctl_reply_free(&r);
        assert_int_equal(sent, 12345); /* the second time: its program has gone, its counts not */
        ctl_close(client);
        client = live_connect(&live);
        await_functions(0);
    }
    munmap(page, sizeof *page);
    close_opened(&o);
}

#define LIVE(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LIVE(test_killed_client), LIVE(test_reclaim),  LIVE(test_steering),
        LIVE(test_too_many),      LIVE(test_distrust),
    };
    if (!live_enter("ip link set lo up; ip link add va0 type veth peer name vb0;"
                    "ip link add va1 type veth peer name vb1;"
                    "for i in va0 vb0 va1 vb1; do ip link set $i up; done"))
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
