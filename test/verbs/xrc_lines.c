/* The lines between members of an XRC domain, with one at the other end that is none of librbond's:
 * it does not read, or says what it likes. */
#include "ctl/client.h"
#include "hca/call.h"
#include "verbs/line.h"
#include "xrc_end.h"
#include <sys/socket.h>

#define ACK 0x1f

static struct ibv_srq *srq; /* tgt's, and so of the function that the stranger has lines to */
static uint32_t srqn;

/* Opens a function as librbond does, and takes part in the domain. */
static struct {
    struct ctl_client *owner, *claim;
    uint32_t function;
    int call, called;
} stranger;

/* ---- the bed ------------------------------------------------------------------------------- */

static void stranger_comes(void)
{
    struct ctl_name name = {""};
    struct ctl_reply reply;
    struct ctl_event event;
    int fds[CTL_MAX_FDS], rc = 0;
    size_t n;

    snprintf(name.name, sizeof name.name, "%s", ibv_get_device_name(device));
    assert_int_equal(ctl_connect(&stranger.owner, NULL), 0);
    assert_int_equal(
        ctl_call(stranger.owner, CTL_OPEN, &name, sizeof name, sizeof(struct ctl_opened), &reply),
        0);
    stranger.function = ((struct ctl_opened *)reply.records)->function;
    ctl_reply_free(&reply);
    struct ctl_xrcd part = {.function = stranger.function};
    assert_int_equal(ctl_connect(&stranger.claim, NULL), 0);
    assert_int_equal(ctl_call_with(stranger.claim, CTL_XRCD, &part, sizeof part, fd, 0, &reply), 0);
    ctl_reply_free(&reply);
    for (int i = 0; i < WAIT_MS && rc == 0; i++) {
        rc = ctl_next_event_with(stranger.claim, &event, fds, &n);
        if (rc == 0) usleep(1000);
    }
    assert_int_equal(rc, 1);
    assert_int_equal(event.type, CTL_EV_XRC_PEER);
    assert_int_equal(event.value, srqn >> 14);
    assert_int_equal(n, 2);
    stranger.call = fds[0];
    stranger.called = fds[1];
}

static void stranger_goes(void)
{
    if (!stranger.owner) return;
    close(stranger.call);
    close(stranger.called);
    ctl_close(stranger.claim);
    ctl_close(stranger.owner);
    memset(&stranger, 0, sizeof stranger);
}

static int set_up(void **state)
{
    (void)state;

    bed_up();
    srq = new_xrc_srq(&tgt, xrcd, &srqn);
    stranger_comes();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    stranger_goes();
    assert_int_equal(ibv_destroy_srq(srq), 0);
    bed_down();
    return 0;
}

struct pair {
    struct ibv_qp *sender, *target;
};

static struct pair new_pair(void)
{
    struct pair pair = {.sender = new_sender(&ini), .target = new_target(tgt.context, xrcd)};
    assert_non_null(pair.sender);
    assert_non_null(pair.target);
    up(&tgt, pair.target, pair.sender, 18);
    up(&ini, pair.sender, pair.target, 18);
    return pair;
}

static void end_pair(struct pair *pair)
{
    assert_int_equal(ibv_destroy_qp(pair->sender), 0);
    assert_int_equal(ibv_destroy_qp(pair->target), 0);
}

static void request(struct pair *pair, enum ibv_wr_opcode op, uint32_t number, uint64_t addr,
                    uint32_t rkey, uint32_t len)
{
    struct ibv_sge sge = {(uintptr_t)ini.buf, len, ini.mr->lkey};
    struct ibv_send_wr wr = {.wr_id = 1,
                             .sg_list = &sge,
                             .num_sge = 1,
                             .opcode = op,
                             .send_flags = IBV_SEND_SIGNALED,
                             .wr.rdma = {addr, rkey},
                             .qp_type.xrc.remote_srqn = number},
                       *bad;
    assert_int_equal(ibv_post_send(pair->sender, &wr, &bad), 0);
}

static enum ibv_wc_status outcome(void)
{
    struct ibv_wc wc;
    await(&ini, &wc);
    return wc.status;
}

/* The function that the stranger had to do with does its work. */
static void is_well(void)
{
    struct pair pair = new_pair();
    memset(ini.buf, 0x5c, 5000);
    request(&pair, IBV_WR_RDMA_WRITE, srqn, (uintptr_t)tgt.buf + 9000, tgt.mr->rkey, 5000);
    assert_int_equal(outcome(), IBV_WC_SUCCESS);
    assert_memory_equal(ini.buf, tgt.buf + 9000, 5000);
    end_pair(&pair);
}

static ssize_t receive(int line, void *to, size_t len)
{
    struct pollfd pfd = {.fd = line, .events = POLLIN};
    assert_int_equal(poll(&pfd, 1, WAIT_MS), 1);
    return recv(line, to, len, MSG_DONTWAIT);
}

/* ---- tests --------------------------------------------------------------------------------- */

/* Answers that nobody fetches wait, then all come, in order. */
static void unread_answers(void **state)
{
    enum { CALLS = 60, BYTES = 60000 };
    static uint8_t got[sizeof(struct answer_msg) + HCA_CALL_DATA];
    (void)state;

    for (size_t i = 0; i < ROOM; i++) tgt.buf[i] = (uint8_t)(i * 13 + i / 256);
    for (uint32_t i = 0; i < CALLS; i++) {
        struct call_msg m = {.version = LINE_VERSION,
                             .kind = HCA_CALL_READ,
                             .qpn = stranger.function << 14 | 9,
                             .epoch = i,
                             .va = (uintptr_t)tgt.buf + i,
                             .srqn = srqn,
                             .rkey = tgt.mr->rkey,
                             .bytes = BYTES};
        assert_int_equal(send(stranger.call, &m, sizeof m, MSG_DONTWAIT), sizeof m);
    }
    usleep(50000); /* until no more answers find room */
    is_well();
    for (uint32_t i = 0; i < CALLS; i++) {
        const struct answer_msg *a = (void *)got;
        assert_int_equal(receive(stranger.call, got, sizeof got), sizeof *a + BYTES);
        assert_int_equal(a->epoch, i);
        assert_int_equal(a->bytes, BYTES);
        /* is_well has written there meanwhile */
        assert_memory_equal(got + sizeof *a + 20000, tgt.buf + i + 20000, BYTES - 20000);
    }
}

/* A call comes, and is said to be executed. */
static void acknowledge(void)
{
    static uint8_t got[sizeof(struct call_msg) + HCA_MAX_MTU];
    const struct call_msg *m = (void *)got;

    assert_true(receive(stranger.called, got, sizeof got) >= (ssize_t)sizeof *m);
    if (m->kind != HCA_CALL_REQUEST) return;
    struct answer_msg a = {.version = LINE_VERSION,
                           .kind = m->kind,
                           .qpn = m->qpn,
                           .epoch = m->epoch,
                           .psn =
                               (uint32_t)m->hdr[9] << 16 | (uint32_t)m->hdr[10] << 8 | m->hdr[11],
                           .syndrome = ACK,
                           .event = -1};
    assert_int_equal(send(stranger.called, &a, sizeof a, MSG_DONTWAIT), sizeof a);
}

static bool has_call(void)
{
    struct pollfd pfd = {.fd = stranger.called, .events = POLLIN};
    return poll(&pfd, 1, 1) == 1;
}

/* More is called for than the line takes. */
static void unread_calls(void **state)
{
    enum { PAIRS = 4, BYTES = 60000 };
    struct pair pairs[PAIRS];
    struct ibv_wc wc;
    int done = 0;
    (void)state;

    for (int i = 0; i < PAIRS; i++) {
        pairs[i] = new_pair();
        for (int k = 0; k < 4; k++)
            request(&pairs[i], IBV_WR_RDMA_WRITE, stranger.function << 14 | 5, 4096, 77, BYTES);
    }
    usleep(100000);
    is_well();
    double until = seconds() + WAIT_MS / 1e3;
    while (done < 4 * PAIRS) {
        assert_true(seconds() < until);
        if (has_call()) acknowledge();
        int n = ibv_poll_cq(ibv_cq_ex_to_cq(ini.cq), 1, &wc);
        assert_true(n >= 0);
        if (n) assert_int_equal(wc.status, IBV_WC_SUCCESS);
        done += n;
    }
    for (int i = 0; i < PAIRS; i++) end_pair(&pairs[i]);
}

/* It ends while much waits for it. */
static void ends_amid_calls(void **state)
{
    struct pair pair = new_pair();
    (void)state;

    request(&pair, IBV_WR_RDMA_WRITE, stranger.function << 14 | 5, 4096, 77, 60000);
    assert_true(has_call() || has_call() || (usleep(500000), has_call()));
    stranger_goes();
    assert_int_equal(outcome(), IBV_WC_REM_INV_REQ_ERR);
    end_pair(&pair);
    is_well();
}

static uint32_t chance(void)
{
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

/* Any words of the right version, and then one of another, which is the end of it. */
static void words(void **state)
{
    struct pair pair = new_pair();
    uint8_t bytes[sizeof(struct call_msg) + 600];
    const uint16_t kinds[] = {1, 2, 3, 16, 17, 18, 19, 20, 21, 0xffff};
    const size_t sizes[] = {sizeof(struct call_msg), sizeof(struct kin_note),
                            sizeof(struct answer_msg), sizeof bytes, 700};
    (void)state;

    for (int i = 0; i < 20000; i++) {
        struct call_msg *m = (void *)bytes;
        size_t size = sizes[chance() % 4];
        for (size_t k = 0; k < sizeof bytes; k++) bytes[k] = (uint8_t)chance();
        m->version = LINE_VERSION;
        m->kind = kinds[chance() % 10];
        if (m->kind >= KIN_QP_OPEN) size = sizeof(struct kin_note);
        if (size < sizeof *m) size = sizeof *m;
        if (chance() % 2) m->qpn = chance() % 2 ? pair.target->qp_num : stranger.function << 14 | 9;
        int line = chance() % 2 ? stranger.call : stranger.called;
        if (send(line, bytes, size, MSG_NOSIGNAL) < 0) {
            assert_int_equal(errno, EAGAIN);
            usleep(100);
        }
        while (recv(stranger.call, bytes, sizeof bytes, MSG_DONTWAIT) > 0) continue;
        while (recv(stranger.called, bytes, sizeof bytes, MSG_DONTWAIT) > 0) continue;
    }
    is_well();
    memset(bytes, 0xee, sizeof bytes);
    while (send(stranger.call, bytes, sizeof(struct call_msg), MSG_NOSIGNAL) < 0)
        assert_int_equal(errno, EAGAIN);
    ssize_t n;
    do n = receive(stranger.call, bytes, sizeof bytes);
    while (n > 0);
    assert_true(n == 0 || errno == ECONNRESET);
    end_pair(&pair);
    is_well();
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

EDGE_MAIN(TEST(unread_answers), TEST(unread_calls), TEST(ends_amid_calls), TEST(words))
