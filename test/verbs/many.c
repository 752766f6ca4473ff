/* Many programs on one host: 256 of them with a device open and a queue pair connected, each to the
 * next; then as many functions as there are numbers, and the one beyond.
 *
 * No cmocka: most of this runs in forked children. */
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROGRAMS 256
#define FUNCTIONS 1023 /* 10 bits, of which rbondd has number 0 */
#define HOLDERS 33
#define PATIENCE_S 120

static const char *device_name;

static struct shared {
    _Atomic int arrived[8];
    _Atomic uint32_t qpn[PROGRAMS];
    _Atomic uint64_t open_us[PROGRAMS];
    _Atomic int open, refused, wrong;
} * shared;

static uint64_t now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* Ends the process: where it is not the parent's fault, the parent sees it. */
static void check(bool ok, const char *what)
{
    if (ok) return;
    fprintf(stderr, "many: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void wait_for(int barrier, int n)
{
    uint64_t until = now_us() + PATIENCE_S * 1000000ull;

    shared->arrived[barrier]++;
    while (shared->arrived[barrier] < n) {
        check(now_us() < until, "the others do not come");
        usleep(2000);
    }
}

static struct ibv_context *open_device(void)
{
    int n = 0;
    struct ibv_device **list = ibv_get_device_list(&n);
    struct ibv_context *context = NULL;

    errno = ENODEV;
    for (int i = 0; i < n; i++)
        if (strcmp(ibv_get_device_name(list[i]), device_name) == 0)
            context = ibv_open_device(list[i]);
    int error = errno;
    if (list) ibv_free_device_list(list);
    errno = error;
    return context;
}

/* ---- 256 programs ------------------------------------------------------------------------ */

static void connect_to(struct ibv_qp *qp, uint32_t qpn)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR,
                               .path_mtu = IBV_MTU_1024,
                               .dest_qp_num = qpn,
                               .max_dest_rd_atomic = 1,
                               .min_rnr_timer = 12,
                               .ah_attr = {.is_global = 1, .port_num = 1}};
    struct ibv_global_route *grh = &attr.ah_attr.grh;

    while (grh->sgid_index < 32 && !ibv_query_gid(qp->context, 1, grh->sgid_index, &grh->dgid) &&
           grh->dgid.raw[10] != 0xff)
        grh->sgid_index++;
    check(!ibv_modify_qp(qp, &attr,
                         IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                             IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER),
          "RTR");
    attr = (struct ibv_qp_attr){
        .qp_state = IBV_QPS_RTS, .timeout = 17, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 1};
    check(!ibv_modify_qp(qp, &attr,
                         IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                             IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC),
          "RTS");
}

/* Two queue pairs: to the next program, and from the one before. */
static void program(int number)
{
    static uint64_t word[2];
    uint64_t began = now_us();
    struct ibv_context *context = open_device();
    check(context, "open");
    shared->open_us[number] = now_us() - began;
    struct ibv_pd *pd = ibv_alloc_pd(context);
    struct ibv_cq *cq = ibv_create_cq(context, 16, NULL, NULL, 0);
    struct ibv_mr *mr = ibv_reg_mr(pd, word, sizeof word, IBV_ACCESS_LOCAL_WRITE);
    struct ibv_qp_init_attr init = {
        .send_cq = cq, .recv_cq = cq, .cap = {1, 1, 1, 1, 0}, .qp_type = IBV_QPT_RC};
    struct ibv_qp *out = ibv_create_qp(pd, &init);
    struct ibv_qp *in = ibv_create_qp(pd, &init);
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1};
    const int mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
    check(mr && out && in && !ibv_modify_qp(out, &attr, mask) && !ibv_modify_qp(in, &attr, mask),
          "objects");

    /* The number of `in`; that of `out` is the one before it. */
    check(out->qp_num + 1 == in->qp_num, "queue pair numbers in a row");
    shared->qpn[number] = in->qp_num;
    wait_for(0, PROGRAMS);
    connect_to(out, shared->qpn[(number + 1) % PROGRAMS]);
    connect_to(in, shared->qpn[(number + PROGRAMS - 1) % PROGRAMS] - 1);
    struct ibv_sge to = {(uintptr_t)&word[1], 8, mr->lkey}, from = {(uintptr_t)word, 8, mr->lkey};
    struct ibv_recv_wr recv = {.sg_list = &to, .num_sge = 1}, *bad_recv;
    struct ibv_send_wr send = {.sg_list = &from,
                               .num_sge = 1,
                               .opcode = IBV_WR_SEND,
                               .send_flags = IBV_SEND_SIGNALED},
                       *bad_send;
    word[0] = (uint64_t)number;
    check(!ibv_post_recv(in, &recv, &bad_recv), "post_recv");
    wait_for(1, PROGRAMS);
    check(!ibv_post_send(out, &send, &bad_send), "post_send");
    uint64_t until = now_us() + PATIENCE_S * 1000000ull;
    for (int done = 0; done < 2;) {
        struct ibv_wc wc;
        int n = ibv_poll_cq(cq, 1, &wc);
        check(n >= 0 && now_us() < until, "completions");
        check(n == 0 || wc.status == IBV_WC_SUCCESS, "a completion's status");
        done += n;
        if (n == 0) usleep(1000); /* the workers drive: all of us spinning would take long */
    }
    check(word[1] == (uint64_t)(number + PROGRAMS - 1) % PROGRAMS, "the right neighbour's word");
    wait_for(2, PROGRAMS);
    check(!ibv_destroy_qp(in) && !ibv_destroy_qp(out) && !ibv_destroy_cq(cq) && !ibv_dereg_mr(mr) &&
              !ibv_dealloc_pd(pd) && !ibv_close_device(context),
          "destroy");
    exit(0);
}

/* ---- all functions ----------------------------------------------------------------------- */

/* Opens as many as it can while others do the same. */
static void holder(void)
{
    struct ibv_context *context[FUNCTIONS / HOLDERS + 1];
    int n = 0;

    while (n < FUNCTIONS / HOLDERS + 1 && (context[n] = open_device())) n++;
    shared->open += n;
    if (n < FUNCTIONS / HOLDERS + 1) {
        shared->refused++;
        if (errno != EUSERS) shared->wrong++;
    }
    wait_for(3, HOLDERS + 1);
    wait_for(4, HOLDERS + 1);
    while (n > 0) check(!ibv_close_device(context[--n]), "close");
    exit(0);
}

/* ---- the parent -------------------------------------------------------------------------- */

static void await_all(int n)
{
    int status;

    for (; n > 0; n--) {
        check(wait(&status) > 0, "wait");
        if (status) exit(1);
    }
}

static int compare(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

int main(int argc, char **argv)
{
    device_name = argc > 1 ? argv[1] : "";
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(shared != MAP_FAILED, "mmap");

    uint64_t began = now_us();
    for (int i = 0; i < PROGRAMS; i++)
        if (fork() == 0) program(i);
    await_all(PROGRAMS);
    static uint64_t us[PROGRAMS];
    memcpy(us, shared->open_us, sizeof us);
    qsort(us, PROGRAMS, sizeof *us, compare);
    printf("many: %d programs connected in a ring, %.1f s; opening took %.1f ms (median; longest "
           "%.1f)\n",
           PROGRAMS, (double)(now_us() - began) / 1e6, (double)us[PROGRAMS / 2] / 1e3,
           (double)us[PROGRAMS - 1] / 1e3);

    fflush(stdout);
    began = now_us();
    for (int i = 0; i < HOLDERS; i++)
        if (fork() == 0) holder();
    wait_for(3, HOLDERS + 1);
    printf("many: %d functions open after %.1f s; %d programs were refused one more\n",
           shared->open, (double)(now_us() - began) / 1e6, shared->refused);
    check(shared->open == FUNCTIONS, "as many functions as there are numbers");
    check(shared->refused > 0 && !shared->wrong, "EUSERS for the one beyond");
    wait_for(4, HOLDERS + 1);
    await_all(HOLDERS);
    struct ibv_context *context = open_device();
    check(context && !ibv_close_device(context), "open, when they have gone");
    return 0;
}
