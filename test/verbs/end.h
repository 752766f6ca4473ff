/* Both ends in one process, over the device named by the program's argument: what the test programs
 * of this folder share. test/verbs/edge.sh makes the network around them. */
#ifndef RBOND_TEST_END_H
#define RBOND_TEST_END_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ROOM 65536
#define ALL_ACCESS                                                                                 \
    (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |                   \
     IBV_ACCESS_REMOTE_ATOMIC)

/* How long a test waits for what must come; long, for a machine that has more to do. */
#define WAIT_MS 20000

/* The one under test. */
extern struct ibv_device *device;

/* One end: a context of its own, hence a function of its own. */
struct end {
    struct ibv_context *context;
    struct ibv_pd *pd;
    struct ibv_comp_channel *channel;
    struct ibv_cq_ex *cq;
    struct ibv_mr *mr;
    struct ibv_qp *qp;
    struct ibv_srq *srq; /* the test's own affair; make_qp uses it */
    uint8_t *buf;
};

/* A QP in INIT, and all it wants. */
void open_end(struct end *e, enum ibv_qp_type type);
void close_end(struct end *e);
/* Its QP alone, to INIT, of e->pd and e->cq. */
void make_qp(struct end *e, enum ibv_qp_type type);
/* To RTS; `timeout` as in struct ibv_qp_attr. */
void connect_rc(struct end *e, const struct end *to, uint8_t timeout);
/* Two RC QPs, connected. */
void open_pair(struct end *a, struct end *b);

/* The index of the device's IPv4 GID, -1: none. */
int gid_index(struct ibv_context *context, union ibv_gid *gid);
double seconds(void);
/* The next completion, for which the test fails after WAIT_MS. */
void await(struct end *e, struct ibv_wc *wc);
void post_recv(struct end *e, uint64_t id, size_t offset, uint32_t len);
/* Signaled, wr_id 100 + opcode, from the start of e's buffer to the start of to's. */
int post(struct end *e, struct end *to, enum ibv_wr_opcode opcode, uint32_t len);

/* main(): finds the device that argv names, runs the tests. */
int edge_run(int argc, char **argv, const struct CMUnitTest *tests, size_t n);
#define EDGE_MAIN(...)                                                                             \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        const struct CMUnitTest tests[] = {__VA_ARGS__};                                           \
        return edge_run(argc, argv, tests, sizeof tests / sizeof *tests);                          \
    }

#endif
