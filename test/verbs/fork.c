/* A program that forks. */
#include "end.h"
#include <sys/wait.h>

static int in_child(struct end *a, struct end *b)
{
    struct ibv_wc wc;
    if (post(a, b, IBV_WR_SEND, 8) == 0) return 1;
    if (ibv_poll_cq(ibv_cq_ex_to_cq(a->cq), 1, &wc) >= 0) return 2;
    if (ibv_alloc_pd(a->context)) return 3;
    if (ibv_destroy_qp(a->qp)) return 4;
    if (ibv_close_device(b->context)) return 5;
    return 0;
}

static void leaves_the_adapter_to_the_parent(void **state)
{
    struct end a, b;
    struct ibv_wc wc;
    int status;
    (void)state;

    open_pair(&a, &b);
    pid_t pid = fork();
    if (pid == 0) _exit(in_child(&a, &b));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(post(&a, &b, IBV_WR_RDMA_WRITE, 64), 0);
    await(&a, &wc);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    close_end(&a);
    close_end(&b);
}

EDGE_MAIN(cmocka_unit_test(leaves_the_adapter_to_the_parent))
