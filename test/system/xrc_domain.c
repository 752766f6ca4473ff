/* The XRC domain of a file between processes: `owner` has an SRQ and memory, `target` the target
 * QP, `initiator` sends, writes, reads and adds from the other host. What they must know of each
 * other lies in files of a folder, whose file `domain` is the domain's.
 *
 *   xrc_domain FOLDER owner NAME
 *   xrc_domain FOLDER target NAME INITIATOR
 *   xrc_domain FOLDER initiator NAME TARGET OWNER SECONDS
 *
 * 0: all was as it should be; 2: a request failed; 3: the target's QP is in error. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    RECEIVES = 128,
    MESSAGE = 3000,
    AREA = 65536,
    ROOM = AREA + RECEIVES * MESSAGE,
    WORD = 60000
};
enum { WRITTEN = 40000 };
#define END 0xe4d

struct facts {
    uint32_t qpn, srqn, rkey, pad;
    uint64_t addr;
    union ibv_gid gid;
};

static const char *folder;
static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_comp_channel *channel;
static struct ibv_cq *cq;
static struct ibv_mr *mr;
static uint8_t *buf;
static union ibv_gid gid;
static uint8_t gid_index;

static void die(const char *what)
{
    fprintf(stderr, "xrc_domain: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* ---- the folder ---------------------------------------------------------------------------- */

static char *path(const char *name, const char *what)
{
    static char to[4096];
    snprintf(to, sizeof to, "%s/%s.%s", folder, name, what);
    return to;
}

static void tell(const char *name, const char *what, const struct facts *facts)
{
    char draft[4096];
    snprintf(draft, sizeof draft, "%s/%s.draft", folder, name);
    int fd = open(draft, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, facts, sizeof *facts) != sizeof *facts) die(draft);
    close(fd);
    if (rename(draft, path(name, what)) != 0) die(draft);
}

static struct facts hear(const char *name, const char *what)
{
    struct facts facts = {0};
    for (int i = 0; i < 6000; i++, usleep(10000)) {
        int fd = open(path(name, what), O_RDONLY);
        if (fd < 0) continue;
        if (read(fd, &facts, sizeof facts) != sizeof facts) die(name);
        close(fd);
        return facts;
    }
    errno = ETIMEDOUT;
    die(name);
    return facts;
}

/* ---- verbs --------------------------------------------------------------------------------- */

static void open_device(void)
{
    struct ibv_gid_entry entries[32];
    const int all = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
                    IBV_ACCESS_REMOTE_ATOMIC;
    int n;
    struct ibv_device **list = ibv_get_device_list(&n);
    for (int i = 0; i < n && !context; i++)
        if (strcmp(ibv_get_device_name(list[i]), "rb_bond0") == 0)
            context = ibv_open_device(list[i]);
    if (!context) die("rb_bond0");
    ibv_free_device_list(list);
    ssize_t ngids = ibv_query_gid_table(context, entries, 32, 0);
    for (ssize_t i = 0; i < ngids; i++)
        if (entries[i].gid.raw[10] == 0xff && entries[i].gid.raw[11] == 0xff) {
            gid = entries[i].gid;
            gid_index = (uint8_t)entries[i].gid_index;
        }
    pd = ibv_alloc_pd(context);
    channel = ibv_create_comp_channel(context);
    cq = ibv_create_cq(context, 512, NULL, channel, 0);
    buf = aligned_alloc(4096, (ROOM + 4095) & ~4095);
    if (!pd || !channel || !cq || !buf) die("objects");
    memset(buf, 0, ROOM);
    mr = ibv_reg_mr(pd, buf, ROOM, all);
    if (!mr) die("ibv_reg_mr");
}

static struct ibv_xrcd *open_domain(void)
{
    int fd = open(path("domain", "file"), O_RDWR | O_CREAT, 0600);
    struct ibv_xrcd_init_attr init = {.comp_mask =
                                          IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS,
                                      .fd = fd,
                                      .oflags = O_CREAT};
    struct ibv_xrcd *xrcd = ibv_open_xrcd(context, &init);
    if (!xrcd) die("ibv_open_xrcd");
    close(fd);
    return xrcd;
}

static void connect_qp(struct ibv_qp *qp, const struct facts *to)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT,
                               .port_num = 1,
                               .qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
                                                  IBV_ACCESS_REMOTE_ATOMIC};
    if (ibv_modify_qp(qp, &attr,
                      IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS))
        die("INIT");
    attr = (struct ibv_qp_attr){
        .qp_state = IBV_QPS_RTR,
        .path_mtu = IBV_MTU_1024,
        .dest_qp_num = to->qpn,
        .max_dest_rd_atomic = 8,
        .min_rnr_timer = 1,
        .ah_attr = {.is_global = 1,
                    .port_num = 1,
                    .grh = {.dgid = to->gid, .sgid_index = gid_index, .hop_limit = 64}}};
    if (ibv_modify_qp(qp, &attr,
                      IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                          IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER))
        die("RTR");
    attr = (struct ibv_qp_attr){
        .qp_state = IBV_QPS_RTS, .timeout = 16, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 8};
    if (ibv_modify_qp(qp, &attr,
                      IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                          IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC))
        die("RTS");
}

/* The next completion, asleep until it comes. */
static struct ibv_wc await(void)
{
    struct ibv_wc wc;
    for (;;) {
        struct ibv_cq *which;
        void *ctx;
        int n = ibv_poll_cq(cq, 1, &wc);
        if (n == 0) {
            if (ibv_req_notify_cq(cq, 0)) die("ibv_req_notify_cq");
            n = ibv_poll_cq(cq, 1, &wc);
        }
        if (n < 0) die("ibv_poll_cq");
        if (n == 1) return wc;
        if (ibv_get_cq_event(channel, &which, &ctx)) die("ibv_get_cq_event");
        ibv_ack_cq_events(which, 1);
    }
}

/* What a message or area of this number holds. */
static void fill(uint8_t *at, size_t len, uint64_t number)
{
    for (size_t i = 0; i < len; i++) at[i] = (uint8_t)(number * 31 + i * 7 + i / 256);
}

static int is_filled(const uint8_t *at, size_t len, uint64_t number)
{
    uint8_t want[MESSAGE];
    fill(want, len, number);
    return memcmp(at, want, len) == 0;
}

/* ---- roles --------------------------------------------------------------------------------- */

static void give_receive(struct ibv_srq *srq, uint64_t slot)
{
    struct ibv_sge sge = {(uintptr_t)buf + AREA + slot * MESSAGE, MESSAGE, mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = slot, .sg_list = &sge, .num_sge = 1}, *bad;
    if (ibv_post_srq_recv(srq, &wr, &bad)) die("ibv_post_srq_recv");
}

/* Each message once, in order, whole; as many additions as messages; the last area as written. */
static int be_owner(const char *name)
{
    struct ibv_srq_init_attr_ex si = {.attr = {.max_wr = RECEIVES, .max_sge = 1},
                                      .comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD |
                                                   IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ,
                                      .srq_type = IBV_SRQT_XRC,
                                      .pd = pd,
                                      .xrcd = open_domain(),
                                      .cq = cq};
    struct ibv_srq *srq = ibv_create_srq_ex(context, &si);
    struct facts facts = {.rkey = mr->rkey, .addr = (uintptr_t)buf};
    uint64_t number = 0, sum;
    struct ibv_wc wc;
    if (!srq || ibv_get_srq_num(srq, &facts.srqn)) die("SRQ");
    for (uint64_t slot = 0; slot < RECEIVES; slot++) give_receive(srq, slot);
    tell(name, "facts", &facts);
    for (;; number++) {
        wc = await();
        if (wc.status != IBV_WC_SUCCESS) {
            printf("message %llu: %s\n", (unsigned long long)number, ibv_wc_status_str(wc.status));
            return 2;
        }
        if ((wc.wc_flags & IBV_WC_WITH_IMM) && be32toh(wc.imm_data) == END) break;
        if (wc.byte_len != MESSAGE ||
            !is_filled(buf + AREA + wc.wr_id * MESSAGE, MESSAGE, number)) {
            printf("message %llu is not what was sent\n", (unsigned long long)number);
            return 1;
        }
        give_receive(srq, wc.wr_id);
    }
    memcpy(&sum, buf + WORD, 8);
    printf("%llu messages, sum %llu\n", (unsigned long long)number, (unsigned long long)sum);
    if (!number || sum != number || !is_filled(buf + WRITTEN, MESSAGE, number)) return 1;
    return ibv_destroy_srq(srq) || ibv_close_xrcd(si.xrcd);
}

static int be_target(const char *name, const char *initiator)
{
    struct ibv_qp_init_attr_ex qi = {
        .qp_type = IBV_QPT_XRC_RECV, .comp_mask = IBV_QP_INIT_ATTR_XRCD, .xrcd = open_domain()};
    struct ibv_qp *qp = ibv_create_qp_ex(context, &qi);
    struct facts facts = {.gid = gid};
    struct ibv_qp_attr attr;
    struct ibv_qp_init_attr init;
    if (!qp) die("ibv_create_qp_ex");
    facts.qpn = qp->qp_num;
    tell(name, "facts", &facts);
    struct facts peer = hear(initiator, "facts");
    connect_qp(qp, &peer);
    tell(name, "connected", &facts);
    do {
        usleep(20000);
        if (ibv_query_qp(qp, &attr, IBV_QP_STATE, &init)) die("ibv_query_qp");
        if (attr.qp_state == IBV_QPS_ERR) return 3;
    } while (access(path(name, "stop"), F_OK) != 0);
    return ibv_destroy_qp(qp) || ibv_close_xrcd(qi.xrcd);
}

static void post(struct ibv_qp *qp, const struct facts *to, enum ibv_wr_opcode op, size_t at,
                 size_t len)
{
    struct ibv_sge sge = {(uintptr_t)buf + at, (uint32_t)len, mr->lkey};
    struct ibv_send_wr wr = {.wr_id = op,
                             .sg_list = &sge,
                             .num_sge = 1,
                             .opcode = op,
                             .send_flags = IBV_SEND_SIGNALED,
                             .imm_data = htobe32(END),
                             .qp_type.xrc.remote_srqn = to->srqn},
                       *bad;
    if (op == IBV_WR_ATOMIC_FETCH_AND_ADD) {
        wr.wr.atomic.remote_addr = to->addr + WORD;
        wr.wr.atomic.rkey = to->rkey;
        wr.wr.atomic.compare_add = 1;
    } else {
        wr.wr.rdma.remote_addr = to->addr + WRITTEN;
        wr.wr.rdma.rkey = to->rkey;
    }
    if (ibv_post_send(qp, &wr, &bad)) die("ibv_post_send");
}

static int all_done(int n)
{
    for (; n; n--) {
        struct ibv_wc wc = await();
        if (wc.status == IBV_WC_SUCCESS) continue;
        printf("request %d: %s\n", (int)wc.wr_id, ibv_wc_status_str(wc.status));
        return 0;
    }
    return 1;
}

/* A message, an area written and read back, an addition. */
static int exchange(struct ibv_qp *qp, const struct facts *to, uint64_t number)
{
    uint64_t before;
    fill(buf, MESSAGE, number);
    fill(buf + 8192, MESSAGE, number + 1);
    post(qp, to, IBV_WR_SEND, 0, MESSAGE);
    post(qp, to, IBV_WR_RDMA_WRITE, 8192, MESSAGE);
    post(qp, to, IBV_WR_RDMA_READ, 16384, MESSAGE);
    post(qp, to, IBV_WR_ATOMIC_FETCH_AND_ADD, 24576, 8);
    if (!all_done(4)) return 2;
    memcpy(&before, buf + 24576, 8);
    if (before != number) {
        printf("added to %llu, not %llu\n", (unsigned long long)before, (unsigned long long)number);
        return 1;
    }
    if (is_filled(buf + 16384, MESSAGE, number + 1)) return 0;
    printf("round %llu: what was read is not what was written\n", (unsigned long long)number);
    return 1;
}

static int be_initiator(const char *name, const char *target, const char *owner, double time)
{
    struct ibv_qp_init_attr_ex qi = {.qp_type = IBV_QPT_XRC_SEND,
                                     .comp_mask = IBV_QP_INIT_ATTR_PD,
                                     .pd = pd,
                                     .send_cq = cq,
                                     .cap = {.max_send_wr = 16, .max_send_sge = 1}};
    struct ibv_qp *qp = ibv_create_qp_ex(context, &qi);
    struct facts facts = {.gid = gid};
    uint64_t number = 0;
    if (!qp) die("ibv_create_qp_ex");
    facts.qpn = qp->qp_num;
    tell(name, "facts", &facts);
    struct facts peer = hear(target, "facts"), to = hear(owner, "facts");
    connect_qp(qp, &peer);
    hear(target, "connected");
    for (double until = seconds() + time; seconds() < until; number++) {
        int rc = exchange(qp, &to, number);
        if (rc) return rc;
    }
    printf("%llu rounds\n", (unsigned long long)number);
    post(qp, &to, IBV_WR_SEND_WITH_IMM, 0, 1);
    return all_done(1) ? 0 : 2;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 4) return 1;
    alarm(240); /* whatever keeps us waiting */
    folder = argv[1];
    open_device();
    if (strcmp(argv[2], "owner") == 0) return be_owner(argv[3]);
    if (argc == 5 && strcmp(argv[2], "target") == 0) return be_target(argv[3], argv[4]);
    if (argc == 7 && strcmp(argv[2], "initiator") == 0)
        return be_initiator(argv[3], argv[4], argv[5], atof(argv[6]));
    return 1;
}
