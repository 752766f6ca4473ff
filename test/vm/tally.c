/* Two ends that check what RC promises about duplicates, whatever the path loses or doubles:
 *   tally serve ADDRESS N        tally ask ADDRESS N
 * N fetch-and-adds and N compare-and-swaps, each of which must find what the one before it left; N
 * WRITEs of random pieces, READ back and compared; N SENDs, numbered, to an end that is slow to
 * post receives, so that RNR NAKs fly. Ends with 0 where all is as it should be. */
#include <rdma/rdma_cma.h>
#include <rdma/rdma_verbs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define AREA 16384
#define DEPTH 8
#define MESSAGE 1500
#define PORT "7490"

struct shared {
    uint64_t added, swapped;
    uint8_t area[AREA];
};

struct where {
    uint64_t addr;
    uint32_t rkey;
};

/* One end: its id and the memory that it works in. */
struct end {
    struct rdma_cm_id *id;
    struct shared *shared;
    struct ibv_mr *mr;
};

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void wrong(const char *what, uint64_t got, uint64_t want)
{
    printf("%s: %llu, not %llu\n", what, (unsigned long long)got, (unsigned long long)want);
    exit(1);
}

static void await(struct ibv_cq *cq, unsigned n)
{
    struct ibv_wc wc;
    while (n) {
        int got = ibv_poll_cq(cq, 1, &wc);
        if (got < 0) die("ibv_poll_cq");
        if (got && wc.status != IBV_WC_SUCCESS) wrong(ibv_wc_status_str(wc.status), wc.status, 0);
        n -= (unsigned)got;
    }
}

static void begin(struct end *e)
{
    e->shared = aligned_alloc(4096, sizeof *e->shared + 4096 - sizeof *e->shared % 4096);
    if (!e->shared) die("aligned_alloc");
    memset(e->shared, 0, sizeof *e->shared);
    e->mr = ibv_reg_mr(e->id->pd, e->shared, sizeof *e->shared,
                       IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE |
                           IBV_ACCESS_REMOTE_ATOMIC);
    if (!e->mr) die("ibv_reg_mr");
}

static void endpoint(const char *address, int flags, struct rdma_cm_id **id)
{
    struct rdma_addrinfo hints = {.ai_port_space = RDMA_PS_TCP, .ai_flags = flags}, *info;
    struct ibv_qp_init_attr attr = {.qp_type = IBV_QPT_RC, .sq_sig_all = 1};
    attr.cap = (struct ibv_qp_cap){2 * DEPTH, 2, 1, 1, 0};
    if (rdma_getaddrinfo(address, PORT, &hints, &info) != 0) die("rdma_getaddrinfo");
    if (rdma_create_ep(id, info, NULL, &attr) != 0) die("rdma_create_ep");
    rdma_freeaddrinfo(info);
}

/* ---- the end that asks ------------------------------------------------------------------- */

static void post(struct end *e, struct ibv_send_wr *wr, void *at, uint32_t len)
{
    struct ibv_sge sge = {(uintptr_t)at, len, e->mr->lkey};
    struct ibv_send_wr *bad;
    wr->sg_list = &sge;
    wr->num_sge = 1;
    if (ibv_post_send(e->id->qp, wr, &bad) != 0) die("ibv_post_send");
}

/* The results land in the area, DEPTH at a time. */
static void atomics(struct end *e, const struct where *peer, enum ibv_wr_opcode opcode, unsigned n)
{
    bool swap = opcode == IBV_WR_ATOMIC_CMP_AND_SWP;
    uint64_t *result = (uint64_t *)e->shared->area;
    for (unsigned i = 0; i < n; i += DEPTH) {
        for (unsigned k = 0; k < DEPTH; k++) {
            struct ibv_send_wr wr = {.opcode = opcode};
            wr.wr.atomic.remote_addr = peer->addr + (swap ? 8 : 0);
            wr.wr.atomic.rkey = peer->rkey;
            wr.wr.atomic.compare_add = swap ? i + k : 1;
            wr.wr.atomic.swap = i + k + 1;
            post(e, &wr, result + k, 8);
        }
        await(e->id->send_cq, DEPTH);
        for (unsigned k = 0; k < DEPTH; k++)
            if (result[k] != i + k)
                wrong(swap ? "compare and swap" : "fetch and add", result[k], i + k);
    }
}

static void pieces(struct end *e, const struct where *peer, unsigned n)
{
    uint8_t *out = e->shared->area, *back = out + AREA / 2;
    for (unsigned i = 0; i < n; i++) {
        uint32_t len = (uint32_t)rand() % (AREA / 2) + 1;
        uint64_t at = peer->addr + 16 + (uint32_t)rand() % (AREA - len + 1);
        for (uint32_t k = 0; k < len; k++) out[k] = (uint8_t)rand();
        memset(back, 0, len);
        struct ibv_send_wr wr = {.opcode = IBV_WR_RDMA_WRITE, .wr.rdma = {at, peer->rkey}};
        post(e, &wr, out, len);
        wr.opcode = IBV_WR_RDMA_READ;
        post(e, &wr, back, len);
        await(e->id->send_cq, 2);
        if (memcmp(out, back, len) != 0) wrong("READ of what was written, piece", i, i);
    }
}

static void messages(struct end *e, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        memset(e->shared->area, (int)i, MESSAGE);
        struct ibv_send_wr wr = {.opcode = IBV_WR_SEND_WITH_IMM, .imm_data = htobe32(i)};
        post(e, &wr, e->shared->area, MESSAGE);
        await(e->id->send_cq, 1);
    }
}

static int ask(const char *address, unsigned n)
{
    struct end e;
    struct rdma_conn_param param = {
        .responder_resources = 4, .initiator_depth = 4, .retry_count = 7, .rnr_retry_count = 7};
    struct where peer;
    endpoint(address, 0, &e.id);
    begin(&e);
    /* 67 ms: rdma_cm's own would cost seconds with every loss. */
    uint8_t timeout = 14;
    if (rdma_set_option(e.id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout,
                        sizeof timeout) != 0)
        die("rdma_set_option");
    if (rdma_connect(e.id, &param) != 0) die("rdma_connect");
    memcpy(&peer, e.id->event->param.conn.private_data, sizeof peer);
    atomics(&e, &peer, IBV_WR_ATOMIC_FETCH_AND_ADD, n);
    atomics(&e, &peer, IBV_WR_ATOMIC_CMP_AND_SWP, n);
    pieces(&e, &peer, n);
    messages(&e, n);
    rdma_disconnect(e.id);
    return 0;
}

/* ---- the end that serves ----------------------------------------------------------------- */

static int serve(const char *address, unsigned n)
{
    struct end e;
    struct rdma_cm_id *listener;
    endpoint(address, RAI_PASSIVE, &listener);
    if (rdma_listen(listener, 1) != 0) die("rdma_listen");
    if (rdma_get_request(listener, &e.id) != 0) die("rdma_get_request");
    begin(&e);
    struct where here = {(uintptr_t)e.shared, e.mr->rkey};
    struct rdma_conn_param param = {.responder_resources = 4,
                                    .initiator_depth = 4,
                                    .rnr_retry_count = 7,
                                    .private_data = &here,
                                    .private_data_len = sizeof here};
    if (rdma_accept(e.id, &param) != 0) die("rdma_accept");
    /* rdma_cm leaves the RNR timer at 0, which is 655 ms; 12 is 0.64 ms. */
    struct ibv_qp_attr attr = {.min_rnr_timer = 12};
    if (ibv_modify_qp(e.id->qp, &attr, IBV_QP_MIN_RNR_TIMER) != 0) die("ibv_modify_qp");

    uint8_t *in = malloc(MESSAGE);
    struct ibv_mr *mr = in ? rdma_reg_msgs(e.id, in, MESSAGE) : NULL;
    if (!mr) die("rdma_reg_msgs");
    for (unsigned i = 0; i < n; i++) {
        struct ibv_wc wc = {0};
        if (rdma_post_recv(e.id, NULL, in, MESSAGE, mr) != 0) die("rdma_post_recv");
        while (ibv_poll_cq(e.id->recv_cq, 1, &wc) == 0) continue;
        if (wc.status != IBV_WC_SUCCESS) wrong(ibv_wc_status_str(wc.status), wc.status, 0);
        if (be32toh(wc.imm_data) != i) wrong("message", be32toh(wc.imm_data), i);
        for (uint32_t k = 0; k < MESSAGE; k++)
            if (in[k] != (uint8_t)i) wrong("byte of a message", in[k], (uint8_t)i);
        nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
    }
    if (e.shared->added != n) wrong("sum", e.shared->added, n);
    if (e.shared->swapped != n) wrong("swapped", e.shared->swapped, n);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 4) return 2;
    unsigned n = (unsigned)atoi(argv[3]) / DEPTH * DEPTH;
    if (strcmp(argv[1], "serve") == 0) return serve(argv[2], n);
    return ask(argv[2], n);
}
