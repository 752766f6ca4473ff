/* A log in a peer's memory, as programs keep one with FLUSH and ATOMIC WRITE: each record is
 * written, flushed, and published by its number. The reader looks at its own memory alone: the
 * number never goes back, which a repeated ATOMIC WRITE would make it do, and the record that it
 * names lies there whole.
 *
 *   publish -s ADDRESS           the reader
 *   publish ADDRESS SECONDS      the writer */
#include "verbs/newer.h"
#include <rdma/rdma_cma.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PORT "7471"
#define SLOTS 256
#define RECORD 3000 /* bytes of a slot of 4096 */
#define DEPTH 8     /* records under way */
#define END (UINT64_C(1) << 63)
#define LOG_BYTES ((SLOTS + 1) * 4096) /* the number is in the first slot */

struct place {
    uint64_t addr;
    uint32_t rkey;
};

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "publish: %s: error\n", #cond);                                        \
            perror("publish");                                                                     \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct rdma_addrinfo *look_up(const char *address, int flags)
{
    struct rdma_addrinfo hints = {.ai_flags = flags, .ai_port_space = RDMA_PS_TCP}, *found;
    CHECK(rdma_getaddrinfo(address, PORT, &hints, &found) == 0);
    return found;
}

static uint8_t *memory(void)
{
    uint8_t *at = aligned_alloc(4096, LOG_BYTES);
    CHECK(at);
    memset(at, 0, LOG_BYTES);
    return at;
}

static size_t slot(uint64_t n) { return (1 + n % SLOTS) * 4096; }

static void fill(uint8_t *at, uint64_t n)
{
    for (size_t i = 0; i < RECORD / 8; i++) memcpy(at + 8 * i, &n, 8);
}

/* ---- the reader -------------------------------------------------------------------------- */

/* Record n, unless the writer may have come round to its slot meanwhile. */
static bool is_whole(const uint8_t *log, uint64_t n, bool *overtaken)
{
    uint8_t copy[RECORD], want[RECORD];
    memcpy(copy, log + slot(n), sizeof copy);
    uint64_t later = __atomic_load_n((const uint64_t *)(const void *)log, __ATOMIC_ACQUIRE) & ~END;
    *overtaken = later + 2 * DEPTH >= n + SLOTS;
    fill(want, n);
    return *overtaken || memcmp(copy, want, RECORD / 8 * 8) == 0;
}

static void follow(const uint8_t *log)
{
    uint64_t last = 0, looked = 0, n;
    do {
        n = __atomic_load_n((const uint64_t *)(const void *)log, __ATOMIC_ACQUIRE);
        uint64_t number = n & ~END;
        bool overtaken = true;
        if (number < last) {
            printf("the number went back from %lu to %lu\n", (long)last, (long)number);
            exit(1);
        }
        if (number != last && !is_whole(log, number, &overtaken)) {
            printf("record %lu is not whole\n", (long)number);
            exit(1);
        }
        looked += !overtaken;
        last = number;
    } while (!(n & END));
    printf("records %lu, looked at %lu\n", (long)last, (long)looked);
    if (looked < 10) exit(1);
}

static void read_log(const char *address)
{
    struct rdma_cm_id *listener, *id;
    struct rdma_addrinfo *ai = look_up(address, RAI_PASSIVE | RAI_NUMERICHOST);
    struct ibv_qp_init_attr init = {
        .qp_type = IBV_QPT_RC,
        .cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1}};
    uint8_t *log = memory();
    CHECK(rdma_create_ep(&listener, ai, NULL, NULL) == 0);
    CHECK(rdma_listen(listener, 0) == 0);
    CHECK(rdma_get_request(listener, &id) == 0);
    CHECK(rdma_create_qp(id, NULL, &init) == 0);
    const int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_FLUSH_GLOBAL;
    struct ibv_mr *mr = ibv_reg_mr(id->pd, log, LOG_BYTES, access);
    CHECK(mr);
    struct place place = {(uintptr_t)log, mr->rkey};
    struct rdma_conn_param param = {.private_data = &place,
                                    .private_data_len = sizeof place,
                                    .responder_resources = 16,
                                    .initiator_depth = 16};
    CHECK(rdma_accept(id, &param) == 0);
    follow(log);
    rdma_disconnect(id);
    ibv_dereg_mr(mr);
    rdma_destroy_ep(id);
    rdma_destroy_ep(listener);
    rdma_freeaddrinfo(ai);
    free(log);
}

/* ---- the writer -------------------------------------------------------------------------- */

static struct rdma_cm_id *id;
static struct place place;

static void publish(struct ibv_qp_ex *ex, uint64_t number)
{
    ex->wr_id = number;
    ex->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_atomic_write(ex, place.rkey, place.addr, &number);
}

static void write_record(struct ibv_qp_ex *ex, const struct ibv_mr *mr, uint8_t *log, uint64_t n)
{
    wr_flush_fn *flush;
    memcpy(&flush, (const char *)ex + WR_FLUSH_OFFSET, sizeof(void *));
    fill(log + slot(n), n);
    ibv_wr_start(ex);
    ex->wr_id = n;
    ex->wr_flags = 0;
    ibv_wr_rdma_write(ex, place.rkey, place.addr + slot(n));
    ibv_wr_set_sge(ex, mr->lkey, (uintptr_t)log + slot(n), RECORD);
    flush(ex, place.rkey, place.addr + slot(n), RECORD, IBV_FLUSH_GLOBAL, IBV_FLUSH_RANGE);
    publish(ex, n);
    CHECK(ibv_wr_complete(ex) == 0);
}

/* Waits for the record published longest ago. */
static void wait_for(uint64_t n)
{
    struct ibv_wc wc;
    int got;
    while ((got = ibv_poll_cq(id->send_cq, 1, &wc)) == 0) continue;
    CHECK(got == 1);
    if (wc.status != IBV_WC_SUCCESS) printf("%s\n", ibv_wc_status_str(wc.status));
    CHECK(wc.status == IBV_WC_SUCCESS && wc.wr_id == n && wc.opcode == IBV_WC_ATOMIC_WRITE);
}

static void connect_to(const char *address)
{
    struct rdma_addrinfo *ai = look_up(address, RAI_NUMERICHOST);
    struct rdma_conn_param param = {
        .responder_resources = 16, .initiator_depth = 16, .retry_count = 7, .rnr_retry_count = 7};
    CHECK(rdma_create_ep(&id, ai, NULL, NULL) == 0);
    struct ibv_qp_init_attr_ex init = {
        .qp_type = IBV_QPT_RC,
        .cap = {.max_send_wr = 3 * DEPTH + 1,
                .max_recv_wr = 1,
                .max_send_sge = 1,
                .max_recv_sge = 1},
        .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        .pd = id->pd,
        .send_ops_flags =
            IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_FLUSH | IBV_QP_EX_WITH_ATOMIC_WRITE};
    CHECK(rdma_create_qp_ex(id, &init) == 0);
    if (rdma_connect(id, &param) != 0) { /* the reader may not be there yet: lib.sh, meet */
        perror("publish: rejected or unreachable");
        exit(1);
    }
    CHECK(id->event->param.conn.private_data_len >= sizeof place);
    memcpy(&place, id->event->param.conn.private_data, sizeof place);
    rdma_freeaddrinfo(ai);
}

static void write_log(const char *address, double for_seconds)
{
    connect_to(address);
    uint8_t *log = memory();
    struct ibv_mr *mr = ibv_reg_mr(id->pd, log, LOG_BYTES, IBV_ACCESS_LOCAL_WRITE);
    struct ibv_qp_ex *ex = ibv_qp_to_qp_ex(id->qp);
    CHECK(mr && ex);
    uint64_t n = 0, done = 0;
    for (double end = seconds() + for_seconds; seconds() < end;) {
        while (n - done < DEPTH) write_record(ex, mr, log, ++n);
        wait_for(++done);
    }
    while (done < n) wait_for(++done);
    ibv_wr_start(ex);
    publish(ex, n | END);
    CHECK(ibv_wr_complete(ex) == 0);
    wait_for(n | END);
    printf("records %lu\n", (long)n);
    rdma_disconnect(id);
    ibv_dereg_mr(mr);
    rdma_destroy_ep(id);
    free(log);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc != 3) {
        fprintf(stderr, "usage: publish -s ADDRESS | publish ADDRESS SECONDS\n");
        return 2;
    }
    if (strcmp(argv[1], "-s") == 0)
        read_log(argv[2]);
    else
        write_log(argv[1], atof(argv[2]));
    return 0;
}
