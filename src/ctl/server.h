/* The daemon's side of the control protocol: a SOCK_SEQPACKET listener on a libuv loop, one object
 * per connection, framing, descriptors, bounded queues. What requests mean is daemon/service.c's.
 *
 * A connection's requests are handled one by one: while a reply of its waits to be read, no further
 * request is taken. A client that lets events pile up beyond CTL_QUEUE_MAX is dropped. */
#ifndef RBOND_CTL_SERVER_H
#define RBOND_CTL_SERVER_H

#include "ctl/proto.h"
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <uv.h>

#define CTL_MAX_CONNS 4096
/* One user's, who is neither root nor the daemon's own; and what those two alone may have. */
#define CTL_CONNS_PER_USER 2048
#define CTL_CONNS_RESERVED 64
#define CTL_QUEUE_MAX ((size_t)32 << 20)      /* bytes that wait for one client */
#define CTL_QUEUE_ALL_MAX ((size_t)128 << 20) /* for all of them */

struct ctl_server;
struct ctl_conn;

struct ctl_server_ops {
    /* A request that passed ctl_check_request. Answer with ctl_send_reply or ctl_send_error, once.
     */
    void (*request)(void *ctx, struct ctl_conn *conn, const struct ctl_hdr *hdr, const void *body,
                    size_t len);
    /* The connection has ended, whoever ended it; its last call. Not called from within a send. */
    void (*gone)(void *ctx, struct ctl_conn *conn);
};

/* Where a daemon listens: the socket, and beside it a lock file that says it lives. */
struct ctl_listener {
    int fd, lock_fd;
    char path[108], lock_path[116];
};

/* Binds `path` (NULL: the first ctl_path that can be), mode 0666, in a directory made with 0755
 * where there is none. -EADDRINUSE: another rbondd holds it. A stale socket is replaced. On an
 * error `path` of the listener says where it happened. */
int ctl_listen(struct ctl_listener *listener, const char *path);
/* Removes the socket and the lock file. */
void ctl_listener_close(struct ctl_listener *listener);

/* Does not take ownership of the listener. */
int ctl_server_new(struct ctl_server **out, uv_loop_t *loop, const struct ctl_listener *listener,
                   const struct ctl_server_ops *ops, void *ctx);
/* Ends every connection (ops->gone is called for each) and the listener's handle; memory goes as
 * the loop runs on. */
void ctl_server_close(struct ctl_server *server);

/* `count` records of `record_size` bytes each, in as many messages as it takes; the descriptors go
 * with the first and stay the caller's. */
void ctl_send_reply(struct ctl_conn *conn, const struct ctl_hdr *request, const void *records,
                    size_t count, size_t record_size, const int *fds, size_t nfds);
/* `status` is a negative errno; the text one line for the user. */
void ctl_send_error(struct ctl_conn *conn, const struct ctl_hdr *request, int status,
                    const char *format, ...) __attribute__((format(printf, 4, 5)));
void ctl_send_event(struct ctl_conn *conn, const struct ctl_event *event);
/* With descriptors, which stay the caller's. */
void ctl_send_event_with(struct ctl_conn *conn, const struct ctl_event *event, const int *fds,
                         size_t nfds);

/* The next connection after `prev` (NULL: the first); NULL past the last. */
struct ctl_conn *ctl_conn_next(struct ctl_server *server, struct ctl_conn *prev);

void *ctl_conn_data(const struct ctl_conn *conn);
void ctl_conn_set_data(struct ctl_conn *conn, void *data);
pid_t ctl_conn_pid(const struct ctl_conn *conn);
uid_t ctl_conn_uid(const struct ctl_conn *conn);
/* From within ops->request: the descriptor that came with it, the caller's from now on, to be given
 * back by ctl_discard; -1: none. It is hostile like all else: whatever may wait for whoever serves its
 * file (fstat, close) would hold up the loop. */
int ctl_conn_take_fd(struct ctl_conn *conn);

#endif
