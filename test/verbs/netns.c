/* A program that changes its network namespace: what it opened belongs to the namespace in which it
 * was opened; what it opens then, to the new one, where no rbondd answers. No RBOND_SOCKET here:
 * the place follows from the namespace. */
#include "end.h"
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

static void goes_on_in_another_namespace(void **state)
{
    struct end a, b;
    struct ibv_wc wc;
    int n;
    (void)state;

    open_pair(&a, &b);
    if (unshare(CLONE_NEWNET)) skip(); /* not root */
    for (int i = 0; i < 20; i++) {
        assert_int_equal(post(&a, &b, IBV_WR_RDMA_WRITE, 64), 0);
        await(&a, &wc);
        assert_int_equal(wc.status, IBV_WC_SUCCESS);
    }
    setenv("RBOND_QUIET", "1", 1);
    struct ibv_device **list = ibv_get_device_list(&n);
    assert_non_null(list);
    assert_int_equal(n, 0);
    ibv_free_device_list(list);
    assert_null(ibv_open_device(device));
    close_end(&a);
    close_end(&b);
}

static int devices_here(void)
{
    int n = -1;
    struct ibv_device **list = ibv_get_device_list(&n);

    if (list) ibv_free_device_list(list);
    return n;
}

static void *in_another_namespace(void *arg)
{
    *(int *)arg = unshare(CLONE_NEWNET) ? -1 : devices_here();
    return NULL;
}

/* Linux knows network namespaces by thread. */
static void follows_the_thread(void **state)
{
    pthread_t thread;
    int there = -2;
    (void)state;

    setenv("RBOND_QUIET", "1", 1);
    assert_true(devices_here() > 0);
    assert_int_equal(pthread_create(&thread, NULL, in_another_namespace, &there), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    if (there == -1) skip();
    assert_int_equal(there, 0);
    assert_true(devices_here() > 0);
}

EDGE_MAIN(cmocka_unit_test(follows_the_thread), cmocka_unit_test(goes_on_in_another_namespace))
