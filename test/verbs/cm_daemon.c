/* A server on librdmacm that listens, becomes a daemon, and then serves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <rdma/rdma_cma.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct ibv_qp_init_attr queues = {.qp_type = IBV_QPT_RC, .cap = {4, 4, 1, 1, 0}};
static struct rdma_conn_param conn = {
    .responder_resources = 1, .initiator_depth = 1, .retry_count = 7, .rnr_retry_count = 7};

static struct sockaddr_in here(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(7471)};

    inet_pton(AF_INET, "10.78.0.1", &at.sin_addr); /* edge.sh's */
    return at;
}

/* The id of the next event, which must be this one; NULL: it is not. */
static struct rdma_cm_id *next(struct rdma_event_channel *channel, enum rdma_cm_event_type want)
{
    struct rdma_cm_event *event;

    if (rdma_get_cm_event(channel, &event)) return NULL;
    struct rdma_cm_id *id = event->event == want ? event->id : NULL;
    if (!id) printf("cm_daemon: %s came\n", rdma_event_str(event->event));
    rdma_ack_cm_event(event);
    return id;
}

static int serve(struct rdma_event_channel *channel)
{
    struct rdma_cm_id *id = next(channel, RDMA_CM_EVENT_CONNECT_REQUEST);

    if (!id) return 1;
    if (rdma_create_qp(id, NULL, &queues)) return 2;
    if (rdma_accept(id, &conn)) return 3;
    if (!next(channel, RDMA_CM_EVENT_ESTABLISHED)) return 4;
    return next(channel, RDMA_CM_EVENT_DISCONNECTED) ? 0 : 5;
}

/* The first process: what its daemon's work comes to goes to `result`. */
static void become_daemon(int result)
{
    struct rdma_event_channel *channel = rdma_create_event_channel();
    struct sockaddr_in at = here();
    struct rdma_cm_id *listener;

    if (!channel || rdma_create_id(channel, &listener, NULL, RDMA_PS_TCP) ||
        rdma_bind_addr(listener, (struct sockaddr *)&at) || rdma_listen(listener, 1))
        _exit(1);
    if (fork()) _exit(0);
    alarm(30);
    uint8_t rc = (uint8_t)serve(channel);
    _exit(write(result, &rc, 1) != 1);
}

static void connect_to_it(void)
{
    struct rdma_event_channel *channel = rdma_create_event_channel();
    struct sockaddr_in at = here();
    struct rdma_cm_id *id;

    assert_non_null(channel);
    assert_int_equal(rdma_create_id(channel, &id, NULL, RDMA_PS_TCP), 0);
    assert_int_equal(rdma_resolve_addr(id, NULL, (struct sockaddr *)&at, 5000), 0);
    assert_ptr_equal(next(channel, RDMA_CM_EVENT_ADDR_RESOLVED), id);
    assert_int_equal(rdma_resolve_route(id, 5000), 0);
    assert_ptr_equal(next(channel, RDMA_CM_EVENT_ROUTE_RESOLVED), id);
    assert_int_equal(rdma_create_qp(id, NULL, &queues), 0);
    assert_int_equal(rdma_connect(id, &conn), 0);
    assert_ptr_equal(next(channel, RDMA_CM_EVENT_ESTABLISHED), id);
    assert_int_equal(rdma_disconnect(id), 0);
    assert_ptr_equal(next(channel, RDMA_CM_EVENT_DISCONNECTED), id);
    rdma_destroy_qp(id);
    assert_int_equal(rdma_destroy_id(id), 0);
    rdma_destroy_event_channel(channel);
}

static void daemon_serves(void **state)
{
    int result[2], status;
    uint8_t rc;
    (void)state;

    assert_int_equal(pipe(result), 0);
    pid_t pid = fork();
    if (pid == 0) become_daemon(result[1]);
    close(result[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    connect_to_it();
    assert_int_equal(read(result[0], &rc, 1), 1);
    assert_int_equal(rc, 0);
    close(result[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(daemon_serves)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
