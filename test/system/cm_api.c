/* librdmacm's calls as their man pages have them, both ends in this process by the host's own
 * address: synchronous and asynchronous ids, options, limits of private data, ECE, migration,
 * channels that do not block, events that are acknowledged late.
 *
 *   cm_api ADDRESS */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <rdma/rdma_cma.h>
#include <rdma/rdma_verbs.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *address;
static struct sockaddr_in here;

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "cm_api: %s:%d: %s (errno %d, %s)\n", __func__, __LINE__, #cond,       \
                    errno, strerror(errno));                                                       \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)
#define FAILS(call, code)                                                                          \
    do {                                                                                           \
        errno = 0;                                                                                 \
        CHECK((call) == -1);                                                                       \
        CHECK(errno == (code));                                                                    \
    } while (0)

static struct sockaddr_in at_port(uint16_t port)
{
    struct sockaddr_in a = here;
    a.sin_port = htons(port);
    return a;
}

static struct rdma_cm_event *next(struct rdma_event_channel *ch, enum rdma_cm_event_type type)
{
    struct rdma_cm_event *e;
    CHECK(rdma_get_cm_event(ch, &e) == 0);
    if (e->event != type)
        fprintf(stderr, "cm_api: %s instead of %s, status %d\n", rdma_event_str(e->event),
                rdma_event_str(type), e->status);
    CHECK(e->event == type);
    return e;
}

static void pass(struct rdma_event_channel *ch, enum rdma_cm_event_type type)
{
    rdma_ack_cm_event(next(ch, type));
}

static struct ibv_qp_init_attr qp_attr(void)
{
    return (struct ibv_qp_init_attr){
        .qp_type = IBV_QPT_RC,
        .sq_sig_all = 1,
        .cap = {.max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1}};
}

/* ---- synchronous ids ------------------------------------------------------------------------- */

static struct rdma_cm_id *server_ep;

static void *serve(void *reject)
{
    struct rdma_cm_id *id;
    CHECK(rdma_get_request(server_ep, &id) == 0);
    CHECK(id->event->event == RDMA_CM_EVENT_CONNECT_REQUEST);
    CHECK(memcmp(id->event->param.conn.private_data, "hello", 6) == 0);
    CHECK(id->event->param.conn.private_data_len == 56);
    char data[256] = "no";
    if (reject) {
        FAILS(rdma_reject(id, data, 149), EINVAL);
        CHECK(rdma_reject(id, data, 148) == 0);
        rdma_destroy_ep(id);
        return NULL;
    }
    struct rdma_conn_param param = {.private_data = data, .private_data_len = 196};
    CHECK(rdma_accept(id, &param) == 0);
    struct ibv_mr *mr = rdma_reg_msgs(id, data, sizeof data);
    struct ibv_wc wc;
    CHECK(mr && rdma_post_send(id, NULL, data, 64, mr, 0) == 0);
    CHECK(rdma_get_send_comp(id, &wc) == 1 && wc.status == IBV_WC_SUCCESS);
    CHECK(rdma_disconnect(id) == 0);
    rdma_dereg_mr(mr);
    rdma_destroy_ep(id);
    return NULL;
}

static struct rdma_addrinfo *look_up(const char *port, int flags, int port_space)
{
    struct rdma_addrinfo hints = {.ai_flags = flags, .ai_port_space = port_space}, *res;
    CHECK(rdma_getaddrinfo(address, port, &hints, &res) == 0);
    return res;
}

static void synchronous(bool reject)
{
    struct ibv_qp_init_attr attr = qp_attr();
    struct rdma_addrinfo *ai = look_up("7601", RAI_PASSIVE | RAI_NUMERICHOST, RDMA_PS_TCP);
    CHECK(ai->ai_src_addr && ai->ai_qp_type == IBV_QPT_RC);
    CHECK(rdma_create_ep(&server_ep, ai, NULL, &attr) == 0);
    CHECK(rdma_listen(server_ep, 0) == 0);
    rdma_freeaddrinfo(ai);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, serve, reject ? &reject : NULL) == 0);

    struct rdma_cm_id *id;
    char data[256] = "hello", in[64];
    ai = look_up("7601", 0, RDMA_PS_TCP);
    CHECK(ai->ai_dst_addr);
    attr = qp_attr();
    CHECK(rdma_create_ep(&id, ai, NULL, &attr) == 0);
    rdma_freeaddrinfo(ai);
    uint8_t timeout = 15;
    CHECK(rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout, 1) == 0);
    struct ibv_mr *mr = rdma_reg_msgs(id, in, sizeof in);
    CHECK(mr && rdma_post_recv(id, NULL, in, sizeof in, mr) == 0);
    struct rdma_conn_param param = {.private_data = data, .private_data_len = 57};
    FAILS(rdma_connect(id, &param), EINVAL);
    param.private_data_len = 56;
    if (reject) {
        FAILS(rdma_connect(id, &param), ECONNREFUSED);
        CHECK(id->event->event == RDMA_CM_EVENT_REJECTED && id->event->status == 28);
        CHECK(id->event->param.conn.private_data_len == 148);
        CHECK(memcmp(id->event->param.conn.private_data, "no", 3) == 0);
    } else {
        struct ibv_wc wc;
        struct ibv_qp_attr a;
        CHECK(rdma_connect(id, &param) == 0);
        CHECK(id->event->param.conn.private_data_len == 196);
        CHECK(ibv_query_qp(id->qp, &a, IBV_QP_TIMEOUT, &attr) == 0 && a.timeout == 15);
        CHECK(rdma_get_recv_comp(id, &wc) == 1 && wc.status == IBV_WC_SUCCESS);
        CHECK(rdma_disconnect(id) == 0);
        CHECK(rdma_disconnect(id) == 0); /* too late, and yet no error: as Linux */
    }
    pthread_join(thread, NULL);
    rdma_dereg_mr(mr);
    rdma_destroy_ep(id);
    rdma_destroy_ep(server_ep);
}

static void addrinfo(void)
{
    struct rdma_addrinfo hints = {.ai_flags = RAI_NUMERICHOST}, *res;
    CHECK(rdma_getaddrinfo("no.such.host", "1", &hints, &res) != 0);
    res = look_up("7602", RAI_NOROUTE, RDMA_PS_UDP);
    CHECK(res->ai_port_space == RDMA_PS_UDP && res->ai_qp_type == IBV_QPT_UD);
    CHECK(((struct sockaddr_in *)res->ai_dst_addr)->sin_port == htons(7602));
    rdma_freeaddrinfo(res);
}

/* ---- asynchronous ids ------------------------------------------------------------------------ */

static void options(struct rdma_event_channel *ch)
{
    struct rdma_cm_id *id, *other;
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(7603)};
    struct sockaddr_in a = at_port(7603);
    uint8_t byte = 0x20;
    int on = 1, word = 0;
    CHECK(rdma_create_id(ch, &id, NULL, RDMA_PS_TCP) == 0);
    CHECK(rdma_create_id(ch, &other, NULL, RDMA_PS_TCP) == 0);
    CHECK(rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_TOS, &byte, 1) == 0);
    FAILS(rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_TOS, &word, sizeof word), EINVAL);
    FAILS(rdma_set_option(id, RDMA_OPTION_ID, 99, &word, sizeof word), ENOSYS);
    CHECK(rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_AFONLY, &on, sizeof on) == 0);
    FAILS(rdma_set_option(id, RDMA_OPTION_IB, RDMA_OPTION_IB_PATH, &word, sizeof word), EINVAL);
    CHECK(rdma_bind_addr(id, (struct sockaddr *)&any) == 0);
    CHECK(ntohs(rdma_get_src_port(id)) == 7603 && !id->verbs);
    FAILS(rdma_bind_addr(id, (struct sockaddr *)&any), EINVAL);
    FAILS(rdma_bind_addr(other, (struct sockaddr *)&a), EADDRNOTAVAIL);
    CHECK(rdma_destroy_id(id) == 0);
    CHECK(rdma_bind_addr(other, (struct sockaddr *)&a) == 0 && other->verbs);
    CHECK(other->port_num == 1 && other->pd);
    CHECK(rdma_destroy_id(other) == 0);

    CHECK(rdma_create_id(ch, &id, NULL, RDMA_PS_TCP) == 0);
    a.sin_port = 0;
    CHECK(rdma_bind_addr(id, (struct sockaddr *)&a) == 0 && ntohs(rdma_get_src_port(id)) >= 1024);
    FAILS(rdma_notify(id, IBV_EVENT_COMM_EST), EINVAL);
    FAILS(rdma_connect(id, NULL), EINVAL);
    FAILS(rdma_resolve_route(id, 100), EINVAL);
    CHECK(rdma_destroy_id(id) == 0);
    struct sockaddr_in6 link_local = {.sin6_family = AF_INET6};
    inet_pton(AF_INET6, "fe80::1", &link_local.sin6_addr);
    CHECK(rdma_create_id(ch, &id, NULL, RDMA_PS_TCP) == 0);
    FAILS(rdma_bind_addr(id, (struct sockaddr *)&link_local), EINVAL); /* on which link? */
    CHECK(rdma_destroy_id(id) == 0);
}

static struct rdma_cm_id *resolve(struct rdma_event_channel *ch, uint16_t port)
{
    struct rdma_cm_id *id;
    struct sockaddr_in a = at_port(port);
    struct ibv_qp_init_attr attr = qp_attr();
    CHECK(rdma_create_id(ch, &id, NULL, RDMA_PS_TCP) == 0);
    CHECK(rdma_resolve_addr(id, NULL, (struct sockaddr *)&a, 2000) == 0);
    pass(ch, RDMA_CM_EVENT_ADDR_RESOLVED);
    CHECK(rdma_resolve_route(id, 2000) == 0);
    pass(ch, RDMA_CM_EVENT_ROUTE_RESOLVED);
    CHECK(id->route.num_paths == 1 && id->route.path_rec->mtu >= IBV_MTU_1024);
    CHECK(rdma_create_qp(id, NULL, &attr) == 0);
    return id;
}

/* ECE is for ids whose QPs are the program's own. */
static void ece(struct rdma_event_channel *ch)
{
    struct rdma_cm_id *listener, *id;
    struct sockaddr_in a = at_port(7606);
    struct ibv_ece said = {.vendor_id = 0x123456, .options = 0x789abcde}, heard = {0};
    struct rdma_conn_param param = {.qp_num = 77, .retry_count = 7};
    CHECK(rdma_create_id(ch, &listener, NULL, RDMA_PS_TCP) == 0);
    CHECK(rdma_bind_addr(listener, (struct sockaddr *)&a) == 0 && rdma_listen(listener, 8) == 0);
    id = resolve(ch, 7606);
    rdma_destroy_qp(id);
    CHECK(rdma_set_local_ece(id, &said) == 0 && rdma_connect(id, &param) == 0);
    struct rdma_cm_event *e = next(ch, RDMA_CM_EVENT_CONNECT_REQUEST);
    CHECK(e->param.conn.qp_num == 77);
    CHECK(rdma_get_remote_ece(e->id, &heard) == 0);
    CHECK(heard.vendor_id == said.vendor_id && heard.options == said.options);
    char data[256] = {0};
    param.private_data = data;
    param.private_data_len = 197;
    FAILS(rdma_accept(e->id, &param), EINVAL);
    CHECK(rdma_reject_ece(e->id, "old", 4) == 0);
    CHECK(rdma_destroy_id(e->id) == 0);
    rdma_ack_cm_event(e);
    e = next(ch, RDMA_CM_EVENT_REJECTED);
    CHECK(e->status == 35 && memcmp(e->param.conn.private_data, "old", 4) == 0);
    rdma_ack_cm_event(e);
    CHECK(rdma_destroy_id(id) == 0 && rdma_destroy_id(listener) == 0);
}

static void *acknowledge_late(void *event)
{
    usleep(300000);
    rdma_ack_cm_event(event);
    return NULL;
}

static void asynchronous(struct rdma_event_channel *ch)
{
    struct rdma_event_channel *theirs = rdma_create_event_channel();
    struct rdma_cm_id *listener, *id, *child;
    struct sockaddr_in a = at_port(7604);
    CHECK(rdma_create_id(theirs, &listener, NULL, RDMA_PS_TCP) == 0);
    CHECK(rdma_bind_addr(listener, (struct sockaddr *)&a) == 0 && rdma_listen(listener, 8) == 0);

    /* A channel that does not block. */
    struct rdma_cm_event *e;
    struct pollfd pfd = {.fd = theirs->fd, .events = POLLIN};
    CHECK(fcntl(theirs->fd, F_SETFL, fcntl(theirs->fd, F_GETFL) | O_NONBLOCK) == 0);
    FAILS(rdma_get_cm_event(theirs, &e), EAGAIN);
    CHECK(poll(&pfd, 1, 0) == 0);
    id = resolve(ch, 7604);
    struct rdma_conn_param param = {.retry_count = 7, .rnr_retry_count = 7};
    CHECK(rdma_connect(id, &param) == 0);
    CHECK(poll(&pfd, 1, 5000) == 1);
    CHECK(fcntl(theirs->fd, F_SETFL, fcntl(theirs->fd, F_GETFL) & ~O_NONBLOCK) == 0);

    e = next(theirs, RDMA_CM_EVENT_CONNECT_REQUEST);
    child = e->id;
    CHECK(e->listen_id == listener && child->verbs);
    rdma_ack_cm_event(e);
    struct ibv_qp_init_attr attr = qp_attr();
    CHECK(rdma_create_qp(child, NULL, &attr) == 0);
    CHECK(rdma_accept(child, &param) == 0);
    pass(ch, RDMA_CM_EVENT_ESTABLISHED);
    pass(theirs, RDMA_CM_EVENT_ESTABLISHED);
    FAILS(rdma_notify(child, IBV_EVENT_COMM_EST), EISCONN);

    /* Events follow an id to another channel. */
    struct rdma_event_channel *moved = rdma_create_event_channel();
    CHECK(rdma_migrate_id(child, moved) == 0);
    CHECK(rdma_disconnect(id) == 0);
    e = next(moved, RDMA_CM_EVENT_DISCONNECTED);
    CHECK(e->id == child);
    CHECK(rdma_disconnect(child) == 0);
    pass(ch, RDMA_CM_EVENT_DISCONNECTED);
    pass(ch, RDMA_CM_EVENT_TIMEWAIT_EXIT);

    /* rdma_destroy_id waits for the last acknowledgement. */
    struct timespec before, after;
    pthread_t thread;
    clock_gettime(CLOCK_MONOTONIC, &before);
    CHECK(pthread_create(&thread, NULL, acknowledge_late, e) == 0);
    rdma_destroy_qp(child);
    CHECK(rdma_destroy_id(child) == 0);
    clock_gettime(CLOCK_MONOTONIC, &after);
    CHECK((after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000 >=
          250);
    pthread_join(thread, NULL);
    rdma_destroy_qp(id);
    CHECK(rdma_destroy_id(id) == 0 && rdma_destroy_id(listener) == 0);
    rdma_destroy_event_channel(moved);
    rdma_destroy_event_channel(theirs);
}

/* Many clients at once and a server that is slow to take them up: its backlog is small. */
static void crowd(struct rdma_event_channel *ch)
{
    enum { N = 64 };
    struct rdma_event_channel *theirs = rdma_create_event_channel();
    struct rdma_cm_id *listener, *id[N], *child[N];
    struct sockaddr_in a = at_port(7605);
    struct rdma_conn_param param = {.retry_count = 7, .rnr_retry_count = 7};
    CHECK(rdma_create_id(theirs, &listener, NULL, RDMA_PS_TCP) == 0);
    CHECK(rdma_bind_addr(listener, (struct sockaddr *)&a) == 0 && rdma_listen(listener, 4) == 0);
    for (int i = 0; i < N; i++) id[i] = resolve(ch, 7605);
    for (int i = 0; i < N; i++) CHECK(rdma_connect(id[i], &param) == 0);
    usleep(200000);
    int requests = 0, up = 0;
    while (requests < N || up < N) {
        struct pollfd pfd[2] = {{.fd = theirs->fd, .events = POLLIN},
                                {.fd = ch->fd, .events = POLLIN}};
        struct rdma_cm_event *e;
        CHECK(poll(pfd, 2, 20000) > 0);
        if (pfd[1].revents) pass(ch, RDMA_CM_EVENT_ESTABLISHED);
        if (!pfd[0].revents) continue;
        CHECK(rdma_get_cm_event(theirs, &e) == 0);
        if (e->event == RDMA_CM_EVENT_CONNECT_REQUEST) {
            struct ibv_qp_init_attr attr = qp_attr();
            CHECK(requests < N);
            child[requests++] = e->id;
            CHECK(rdma_create_qp(e->id, NULL, &attr) == 0 && rdma_accept(e->id, &param) == 0);
        } else {
            CHECK(e->event == RDMA_CM_EVENT_ESTABLISHED);
            up++;
        }
        rdma_ack_cm_event(e);
    }
    for (int i = 0; i < N; i++) {
        rdma_destroy_qp(id[i]);
        rdma_destroy_qp(child[i]);
        CHECK(rdma_destroy_id(id[i]) == 0 && rdma_destroy_id(child[i]) == 0);
    }
    CHECK(rdma_destroy_id(listener) == 0);
    rdma_destroy_event_channel(theirs);
}

int main(int argc, char **argv)
{
    if (argc != 2) return 2;
    address = argv[1];
    here.sin_family = AF_INET;
    if (inet_pton(AF_INET, address, &here.sin_addr) != 1) return 2;
    struct rdma_event_channel *ch = rdma_create_event_channel();
    CHECK(ch);
    addrinfo();
    options(ch);
    synchronous(false);
    synchronous(true);
    ece(ch);
    asynchronous(ch);
    crowd(ch);
    rdma_destroy_event_channel(ch);
    puts("cm_api: all as the man pages have it");
    return 0;
}
