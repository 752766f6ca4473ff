/* rbondd is killed under a program on librdmacm: its connection goes on, whoever waits hears of it,
 * no call hangs, all can be given back; and with the next rbondd the program begins anew. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <rdma/rdma_cma.h>
#include <rdma/rdma_verbs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WAIT_S 20

struct side {
    struct rdma_event_channel *channel;
    struct rdma_cm_id *id;
    struct ibv_mr *mr;
    char text[64];
};

static struct side client, server;
static struct rdma_cm_id *listener;
static struct rdma_conn_param conn = {
    .responder_resources = 1, .initiator_depth = 1, .retry_count = 7, .rnr_retry_count = 7};

static double seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static struct rdma_cm_id *next(struct rdma_event_channel *channel, enum rdma_cm_event_type want)
{
    struct rdma_cm_event *event;
    assert_int_equal(rdma_get_cm_event(channel, &event), 0);
    struct rdma_cm_id *id = event->id;
    assert_string_equal(rdma_event_str(event->event), rdma_event_str(want));
    assert_int_equal(rdma_ack_cm_event(event), 0);
    return id;
}

static struct sockaddr_in here(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(7471)};
    inet_pton(AF_INET, "10.78.0.1", &at.sin_addr); /* edge.sh's */
    return at;
}

static void make_queues(struct side *s)
{
    struct ibv_qp_init_attr queues = {.qp_type = IBV_QPT_RC, .cap = {4, 4, 1, 1, 0}};
    assert_int_equal(rdma_create_qp(s->id, NULL, &queues), 0);
    s->mr = rdma_reg_msgs(s->id, s->text, sizeof s->text);
    assert_non_null(s->mr);
    assert_int_equal(rdma_post_recv(s->id, NULL, s->text + 32, 32, s->mr), 0);
}

static void establish(void)
{
    struct sockaddr_in at = here();
    client.channel = rdma_create_event_channel();
    server.channel = rdma_create_event_channel();
    assert_true(client.channel && server.channel);
    assert_int_equal(rdma_create_id(server.channel, &listener, NULL, RDMA_PS_TCP), 0);
    assert_int_equal(rdma_bind_addr(listener, (struct sockaddr *)&at), 0);
    assert_int_equal(rdma_listen(listener, 1), 0);
    assert_int_equal(rdma_create_id(client.channel, &client.id, NULL, RDMA_PS_TCP), 0);
    assert_int_equal(rdma_resolve_addr(client.id, NULL, (struct sockaddr *)&at, 5000), 0);
    next(client.channel, RDMA_CM_EVENT_ADDR_RESOLVED);
    assert_int_equal(rdma_resolve_route(client.id, 5000), 0);
    next(client.channel, RDMA_CM_EVENT_ROUTE_RESOLVED);
    make_queues(&client);
    assert_int_equal(rdma_connect(client.id, &conn), 0);
    server.id = next(server.channel, RDMA_CM_EVENT_CONNECT_REQUEST);
    make_queues(&server);
    assert_int_equal(rdma_accept(server.id, &conn), 0);
    next(client.channel, RDMA_CM_EVENT_ESTABLISHED);
    next(server.channel, RDMA_CM_EVENT_ESTABLISHED);
}

static void completes(struct ibv_cq *cq)
{
    struct ibv_wc wc;
    int n;
    for (double until = seconds() + WAIT_S; (n = ibv_poll_cq(cq, 1, &wc)) == 0;)
        assert_true(seconds() < until);
    assert_int_equal(n, 1);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
}

static void send_text(const char *text)
{
    strcpy(client.text, text);
    assert_int_equal(rdma_post_send(client.id, NULL, client.text, 32, client.mr, IBV_SEND_SIGNALED),
                     0);
    completes(client.id->send_cq);
    completes(server.id->recv_cq);
    assert_string_equal(server.text + 32, text);
    assert_int_equal(rdma_post_recv(server.id, NULL, server.text + 32, 32, server.mr), 0);
}

static void *hear(void *arg)
{
    struct rdma_cm_event *event;
    int rc = rdma_get_cm_event(arg, &event);
    return (void *)(intptr_t)(rc == 0 ? 0 : errno);
}

#define FAILS(call)                                                                                \
    do {                                                                                           \
        errno = 0;                                                                                 \
        int rc_ = (call);                                                                          \
        if (rc_ != -1 || errno != ENODEV) fail_msg("%s: %d, %s", #call, rc_, strerror(errno));     \
    } while (0)

static void give_back(void)
{
    struct side *const both[] = {&client, &server};
    for (int i = 0; i < 2; i++) {
        rdma_dereg_mr(both[i]->mr);
        rdma_destroy_qp(both[i]->id);
        assert_int_equal(rdma_destroy_id(both[i]->id), 0);
    }
    assert_int_equal(rdma_destroy_id(listener), 0);
    rdma_destroy_event_channel(client.channel);
    rdma_destroy_event_channel(server.channel);
}

static void rbondd_is_killed(void **state)
{
    pthread_t thread;
    void *heard;
    struct rdma_cm_id *id;
    struct sockaddr_in at = here();
    (void)state;

    establish();
    send_text("before");
    assert_int_equal(pthread_create(&thread, NULL, hear, client.channel), 0);
    alarm(2 * WAIT_S); /* from here on nothing may hang */
    assert_int_equal(kill(atoi(getenv("EDGE_DAEMON")), SIGKILL), 0);
    pthread_join(thread, &heard);
    assert_int_equal((intptr_t)heard, ENODEV);
    struct pollfd pfd = {.fd = server.channel->fd, .events = POLLIN};
    assert_int_equal(poll(&pfd, 1, WAIT_S * 1000), 1);

    send_text("without it");
    double began = seconds();
    FAILS(rdma_create_id(client.channel, &id, NULL, RDMA_PS_TCP));
    FAILS(rdma_resolve_addr(client.id, NULL, (struct sockaddr *)&at, 5000));
    FAILS(rdma_listen(listener, 2));
    FAILS(rdma_disconnect(client.id));
    give_back();
    assert_true(seconds() - began < 5);
    assert_null(rdma_create_event_channel());
    assert_true(errno == ENOENT || errno == ENODEV);
}

static pid_t start_rbondd(void)
{
    const char *rbondd = getenv("EDGE_RBONDD");
    pid_t pid = fork();
    if (pid == 0) {
        unsetenv("LD_PRELOAD");
        execl(rbondd, rbondd, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static void another_comes(void **state)
{
    struct rdma_event_channel *channel;
    (void)state;

    pid_t pid = start_rbondd();
    for (double until = seconds() + WAIT_S; !(channel = rdma_create_event_channel());) {
        assert_true(seconds() < until);
        usleep(20000);
        if (waitpid(pid, NULL, WNOHANG) == pid) pid = start_rbondd(); /* the killed one was there */
    }
    rdma_destroy_event_channel(channel);
    establish();
    send_text("after");
    assert_int_equal(rdma_disconnect(client.id), 0);
    next(server.channel, RDMA_CM_EVENT_DISCONNECTED);
    assert_int_equal(rdma_disconnect(server.id), 0); /* the DREP */
    next(client.channel, RDMA_CM_EVENT_DISCONNECTED);
    give_back();
    kill(pid, SIGTERM);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rbondd_is_killed),
                                       cmocka_unit_test(another_comes)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
