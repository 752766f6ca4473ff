#include "ctl/server.h"
#include "base/list.h"
#include "base/must.h"
#include "ctl/client.h"
#include "ctl/codec.h"
#include "ctl/discard.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A message of a list holds no more than this, so that one fits any socket buffer. */
#define CHUNK_BYTES 16384
#define ACCEPTS_PER_TURN 16

struct ctl_server {
    const struct ctl_server_ops *ops;
    void *ctx;
    uv_loop_t *loop;
    uv_poll_t poll;
    int listen_fd, spare_fd;
    struct list conns;
    size_t nconns, queued;
    bool closing;
};

struct ctl_conn {
    struct list node;
    struct ctl_server *server;
    uv_poll_t poll;
    int fd;
    int passed; /* what came with the request being handled; -1: nothing */
    bool dying; /* shut down: the loop's next turn ends it */
    void *data;
    struct ucred peer;
    struct list queue;
    size_t queued;
};

struct message {
    struct list node;
    int fds[CTL_MAX_FDS];
    size_t nfds, len;
    uint8_t bytes[];
};

/* A buffer for requests; the loop is one thread. Handlers read bodies in place. */
static _Alignas(16) uint8_t inbox[CTL_MAX_MSG];

/* ---- the end of a connection ------------------------------------------------------------- */

static void message_free(struct ctl_conn *conn, struct message *m)
{
    list_del(&m->node);
    conn->queued -= m->len;
    conn->server->queued -= m->len;
    for (size_t i = 0; i < m->nfds; i++) close(m->fds[i]);
    free(m);
}

static void server_release(struct ctl_server *server)
{
    if (server->closing && list_empty(&server->conns) &&
        uv_handle_get_data((uv_handle_t *)&server->poll) == NULL) {
        if (server->spare_fd >= 0) close(server->spare_fd);
        free(server);
    }
}

static void conn_closed(uv_handle_t *handle)
{
    struct ctl_conn *conn = container_of((uv_poll_t *)handle, struct ctl_conn, poll);
    struct ctl_server *server = conn->server;

    close(conn->fd);
    list_del(&conn->node);
    server->nconns--;
    free(conn);
    server_release(server);
}

/* Not from within a send: the caller of ctl_send_event may be walking the connections. */
static void conn_end(struct ctl_conn *conn)
{
    if (uv_is_closing((uv_handle_t *)&conn->poll)) return;
    conn->dying = true;
    list_for_each_safe (node, tmp, &conn->queue)
        message_free(conn, container_of(node, struct message, node));
    uv_close((uv_handle_t *)&conn->poll, conn_closed);
    conn->server->ops->gone(conn->server->ctx, conn);
}

/* From anywhere: the shutdown makes the descriptor ready, and the loop comes to conn_end. */
static void conn_drop(struct ctl_conn *conn)
{
    conn->dying = true;
    shutdown(conn->fd, SHUT_RDWR);
}

/* ---- sending ----------------------------------------------------------------------------- */

static void conn_ready(uv_poll_t *poll, int status, int events);

static void conn_watch(struct ctl_conn *conn)
{
    if (uv_is_closing((uv_handle_t *)&conn->poll)) return;
    int events = list_empty(&conn->queue) ? UV_READABLE : UV_WRITABLE;
    uv_poll_start(&conn->poll, events | UV_DISCONNECT, conn_ready);
}

static ssize_t put(int fd, const void *bytes, size_t len, const int *fds, size_t nfds)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(CTL_MAX_FDS * sizeof(int))];
    } control;
    struct iovec iov = {(void *)bytes, len};
    struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};

    if (nfds) {
        memset(&control, 0, sizeof control);
        mh.msg_control = &control;
        mh.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
        struct cmsghdr *cm = CMSG_FIRSTHDR(&mh);
        cm->cmsg_level = SOL_SOCKET;
        cm->cmsg_type = SCM_RIGHTS;
        cm->cmsg_len = CMSG_LEN(nfds * sizeof(int));
        memcpy(CMSG_DATA(cm), fds, nfds * sizeof(int));
    }
    ssize_t n;
    do n = sendmsg(fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static void enqueue(struct ctl_conn *conn, const void *bytes, size_t len, const int *fds,
                    size_t nfds)
{
    struct ctl_server *server = conn->server;
    struct message *m = NULL;

    if (conn->queued + len <= CTL_QUEUE_MAX && server->queued + len <= CTL_QUEUE_ALL_MAX)
        m = malloc(sizeof *m + len);
    if (!m) {
        conn_drop(conn);
        return;
    }
    m->len = len;
    m->nfds = 0;
    memcpy(m->bytes, bytes, len);
    list_add_tail(&conn->queue, &m->node);
    conn->queued += len;
    server->queued += len;
    for (size_t i = 0; i < nfds; i++) {
        int fd = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
        if (fd < 0) {
            conn_drop(conn);
            return;
        }
        m->fds[m->nfds++] = fd;
    }
    conn_watch(conn);
}

static void send_message(struct ctl_conn *conn, const void *bytes, size_t len, const int *fds,
                         size_t nfds)
{
    if (conn->dying) return;
    if (list_empty(&conn->queue)) {
        ssize_t n = put(conn->fd, bytes, len, fds, nfds);
        if (n >= 0) return;
        if (n != -EAGAIN) {
            conn_drop(conn);
            return;
        }
    }
    enqueue(conn, bytes, len, fds, nfds);
}

static void flush_queue(struct ctl_conn *conn)
{
    while (!list_empty(&conn->queue)) {
        struct message *m = container_of(conn->queue.next, struct message, node);
        ssize_t n = put(conn->fd, m->bytes, m->len, m->fds, m->nfds);
        if (n == -EAGAIN) return;
        if (n < 0) {
            conn_end(conn);
            return;
        }
        message_free(conn, m);
    }
    conn_watch(conn);
}

void ctl_send_reply(struct ctl_conn *conn, const struct ctl_hdr *request, const void *records,
                    size_t count, size_t record_size, const int *fds, size_t nfds)
{
    uint8_t out[sizeof(struct ctl_hdr) + CHUNK_BYTES];

    must(record_size <= CHUNK_BYTES && nfds <= CTL_MAX_FDS);
    size_t per = record_size ? CHUNK_BYTES / record_size : 1;
    size_t done = 0;
    do {
        size_t n = count - done < per ? count - done : per;
        struct ctl_hdr hdr = {.version = CTL_VERSION,
                              .type = request->type,
                              .len = (uint32_t)(sizeof hdr + n * record_size),
                              .seq = request->seq,
                              .flags = done + n < count ? CTL_MORE : 0,
                              .count = (uint32_t)n};
        memcpy(out, &hdr, sizeof hdr);
        if (n)
            memcpy(out + sizeof hdr, (const uint8_t *)records + done * record_size,
                   n * record_size);
        send_message(conn, out, hdr.len, done ? NULL : fds, done ? 0 : nfds);
        done += n;
    } while (done < count);
}

void ctl_send_error(struct ctl_conn *conn, const struct ctl_hdr *request, int status,
                    const char *format, ...)
{
    struct {
        struct ctl_hdr hdr;
        struct ctl_error error;
    } m = {.hdr = {.version = CTL_VERSION,
                   .type = request->type,
                   .len = sizeof m,
                   .seq = request->seq,
                   .status = status,
                   .count = 1}};
    va_list args;

    must(status < 0);
    va_start(args, format);
    vsnprintf(m.error.text, sizeof m.error.text, format, args);
    va_end(args);
    send_message(conn, &m, sizeof m, NULL, 0);
}

void ctl_send_event(struct ctl_conn *conn, const struct ctl_event *event)
{
    ctl_send_event_with(conn, event, NULL, 0);
}

void ctl_send_event_with(struct ctl_conn *conn, const struct ctl_event *event, const int *fds,
                         size_t nfds)
{
    struct {
        struct ctl_hdr hdr;
        struct ctl_event event;
    } m = {.hdr = {.version = CTL_VERSION, .type = CTL_EVENT, .len = sizeof m, .count = 1},
           .event = *event};

    must(nfds <= CTL_MAX_FDS);
    send_message(conn, &m, sizeof m, fds, nfds);
}

/* ---- receiving --------------------------------------------------------------------------- */

/* One message into the inbox, with the one descriptor that may come along; further ones the kernel
 * drops. */
static ssize_t receive(struct ctl_conn *conn, bool *truncated)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {inbox, sizeof inbox};
    struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};

    if (ctl_discard_has_room()) {
        mh.msg_control = &control;
        mh.msg_controllen = CMSG_LEN(sizeof(int)); /* with the padding there were room for two */
    }
    ssize_t n = recvmsg(conn->fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0) return -errno;
    const struct cmsghdr *cm = CMSG_FIRSTHDR(&mh);
    if (cm && cm->cmsg_level == SOL_SOCKET && cm->cmsg_type == SCM_RIGHTS)
        memcpy(&conn->passed, CMSG_DATA(cm), sizeof conn->passed);
    *truncated = mh.msg_flags & MSG_TRUNC;
    return n;
}

static void take_request(struct ctl_conn *conn, size_t n)
{
    struct ctl_hdr hdr;
    const uint8_t *body = inbox + sizeof hdr;

    int rc = ctl_check(inbox, n, &hdr);
    if (rc == -EPROTO) {
        ctl_send_error(conn, &hdr, rc,
                       "rbondd %s speaks version %d of the control protocol, not %u", RBOND_VERSION,
                       CTL_VERSION, hdr.version);
        return;
    }
    if (rc < 0) { /* not one of ours: nothing to answer to */
        conn_drop(conn);
        return;
    }
    rc = ctl_check_request(&hdr, body, n - sizeof hdr);
    if (rc < 0) {
        ctl_send_error(conn, &hdr, rc, "malformed request (type %u)", hdr.type);
        return;
    }
    conn->server->ops->request(conn->server->ctx, conn, &hdr, body, n - sizeof hdr);
}

static void conn_ready(uv_poll_t *poll, int status, int events)
{
    struct ctl_conn *conn = container_of(poll, struct ctl_conn, poll);

    if (status < 0 || conn->dying) {
        conn_end(conn);
        return;
    }
    if (!list_empty(&conn->queue)) {
        if (events & UV_DISCONNECT)
            conn_end(conn);
        else
            flush_queue(conn);
        return;
    }
    bool truncated = false;
    ssize_t n = receive(conn, &truncated); /* one a turn: clients await the reply */
    if (n == -EAGAIN || n == -EINTR) return;
    if (n <= 0 || truncated)
        conn_end(conn);
    else
        take_request(conn, (size_t)n);
    ctl_discard(ctl_conn_take_fd(conn)); /* the handler did not want it */
}

/* ---- connections ------------------------------------------------------------------------- */

/* So that no user keeps the others out. */
static bool has_room(const struct ctl_server *server, uid_t uid)
{
    size_t has = 0;

    if (uid == 0 || uid == geteuid()) return server->nconns < CTL_MAX_CONNS;
    if (server->nconns >= CTL_MAX_CONNS - CTL_CONNS_RESERVED) return false;
    if (server->nconns < CTL_CONNS_PER_USER) return true;
    list_for_each (node, &server->conns)
        has += container_of(node, struct ctl_conn, node)->peer.uid == uid;
    return has < CTL_CONNS_PER_USER;
}

static void conn_new(struct ctl_server *server, int fd)
{
    struct ctl_conn *conn = calloc(1, sizeof *conn);
    socklen_t len = sizeof conn->peer;

    if (!conn || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &conn->peer, &len) != 0 ||
        !has_room(server, conn->peer.uid) || uv_poll_init(server->loop, &conn->poll, fd) != 0) {
        free(conn);
        close(fd);
        return;
    }
    conn->server = server;
    conn->fd = fd;
    conn->passed = -1;
    list_init(&conn->queue);
    list_add_tail(&server->conns, &conn->node);
    server->nconns++;
    conn_watch(conn);
}

/* Out of descriptors: the spare one makes room to accept and turn away, else the loop would spin.
 */
static void turn_away(struct ctl_server *server)
{
    if (server->spare_fd >= 0) close(server->spare_fd);
    int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0) close(fd);
    server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void listen_ready(uv_poll_t *poll, int status, int events)
{
    struct ctl_server *server = container_of(poll, struct ctl_server, poll);

    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE) turn_away(server);
            return;
        }
        conn_new(server, fd);
    }
}

int ctl_server_new(struct ctl_server **out, uv_loop_t *loop, const struct ctl_listener *listener,
                   const struct ctl_server_ops *ops, void *ctx)
{
    struct ctl_server *server = calloc(1, sizeof *server);

    if (!server) return -ENOMEM;
    server->ops = ops;
    server->ctx = ctx;
    server->loop = loop;
    server->listen_fd = listener->fd;
    server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    list_init(&server->conns);
    int rc = uv_poll_init(loop, &server->poll, listener->fd);
    if (rc != 0) {
        if (server->spare_fd >= 0) close(server->spare_fd);
        free(server);
        return rc;
    }
    uv_handle_set_data((uv_handle_t *)&server->poll, server);
    uv_poll_start(&server->poll, UV_READABLE, listen_ready);
    *out = server;
    return 0;
}

static void server_closed(uv_handle_t *handle)
{
    struct ctl_server *server = container_of((uv_poll_t *)handle, struct ctl_server, poll);

    uv_handle_set_data(handle, NULL);
    server_release(server);
}

void ctl_server_close(struct ctl_server *server)
{
    server->closing = true;
    list_for_each_safe (node, tmp, &server->conns)
        conn_end(container_of(node, struct ctl_conn, node));
    uv_close((uv_handle_t *)&server->poll, server_closed);
}

struct ctl_conn *ctl_conn_next(struct ctl_server *server, struct ctl_conn *prev)
{
    struct list *node = prev ? prev->node.next : server->conns.next;

    return node == &server->conns ? NULL : container_of(node, struct ctl_conn, node);
}

void *ctl_conn_data(const struct ctl_conn *conn) { return conn->data; }
void ctl_conn_set_data(struct ctl_conn *conn, void *data) { conn->data = data; }
pid_t ctl_conn_pid(const struct ctl_conn *conn) { return conn->peer.pid; }
uid_t ctl_conn_uid(const struct ctl_conn *conn) { return conn->peer.uid; }

int ctl_conn_take_fd(struct ctl_conn *conn)
{
    int fd = conn->passed;

    conn->passed = -1;
    return fd;
}
