/* See client.h. One socket, one request under way at a time; events that cross a reply are kept. */
#include "ctl/client.h"
#include "base/must.h"
#include "ctl/codec.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/* rbondd answers at once; one that does not within this time hangs. */
#define REPLY_TIMEOUT_S 30
/* Events kept for a client that asks but never listens; the eldest go first. */
#define MAX_KEPT_EVENTS 4096
#define MAX_REPLY_BYTES ((size_t)256 << 20)

struct ctl_client {
    int fd;
    uint32_t seq;
    struct ctl_event *kept; /* a ring of MAX_KEPT_EVENTS, made when first needed */
    size_t first, nkept;
    uint8_t buf[CTL_MAX_MSG];
};

/* ---- where ------------------------------------------------------------------------------ */

bool ctl_path(unsigned index, char path[108])
{
    const char *fixed = getenv("RBOND_SOCKET"), *xdg = getenv("XDG_RUNTIME_DIR");
    struct stat ns;

    if (fixed && *fixed) {
        snprintf(path, 108, "%s", fixed);
        return index == 0;
    }
    if (stat("/proc/thread-self/ns/net", &ns) != 0) return false; /* setns moves one thread */
    unsigned long inode = ns.st_ino;
    bool has_xdg = xdg && *xdg && strlen(xdg) < 64;

    if (index == 0) {
        snprintf(path, 108, "/run/rbond/%lu.sock", inode);
    } else if (index == 1 && has_xdg) {
        snprintf(path, 108, "%s/rbond/%lu.sock", xdg, inode);
    } else if (index == 1u + has_xdg) {
        snprintf(path, 108, "/tmp/rbond-%u/%lu.sock", (unsigned)geteuid(), inode);
    } else {
        return false;
    }
    return true;
}

static int connect_to(const char *path)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof sun.sun_path) return -ENAMETOOLONG;
    memcpy(sun.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    int rc;
    do rc = connect(fd, (struct sockaddr *)&sun, sizeof sun);
    while (rc != 0 && errno == EINTR);
    if (rc == 0) return fd;
    rc = -errno;
    close(fd);
    return rc;
}

/* Anybody may make a directory in /tmp under another user's name before he does. */
static bool peer_trusted(int fd, const char *path)
{
    struct ucred cred;
    socklen_t len = sizeof cred;

    if (strncmp(path, "/tmp/rbond-", 11) != 0) return true;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0) return false;
    return cred.uid == geteuid() || cred.uid == 0;
}

/* The likeliest path that answers. Which error counts: something other than "nobody there". */
static int connect_any(void)
{
    char path[108];
    int worst = -ENOENT;

    for (unsigned i = 0; ctl_path(i, path); i++) {
        int fd = connect_to(path);
        if (fd >= 0) {
            if (peer_trusted(fd, path)) return fd;
            close(fd);
            fd = -EPERM;
        }
        if (fd != -ENOENT && worst == -ENOENT) worst = fd;
    }
    return worst;
}

int ctl_connect(struct ctl_client **out, const char *path)
{
    int fd = path ? connect_to(path) : connect_any();
    if (fd < 0) return fd;

    struct ctl_client *c = calloc(1, sizeof *c);
    if (!c) {
        close(fd);
        return -ENOMEM;
    }
    c->fd = fd;
    struct timeval patience = {.tv_sec = REPLY_TIMEOUT_S};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    struct ctl_reply reply;
    int rc = ctl_call(c, CTL_HELLO, NULL, 0, sizeof(struct ctl_hello), &reply);
    if (rc == 0 && reply.count != 1) rc = -EPROTO;
    ctl_reply_free(&reply);
    if (rc != 0) {
        ctl_close(c);
        return rc;
    }
    *out = c;
    return 0;
}

int ctl_fd(const struct ctl_client *client) { return client->fd; }

void ctl_close(struct ctl_client *client)
{
    if (!client) return;
    close(client->fd);
    free(client->kept);
    free(client);
}

/* ---- one packet in, one packet out ------------------------------------------------------- */

/* Descriptors of a message whose reply wants none (fds NULL, or full) are closed. */
static void take_fds(struct msghdr *mh, struct ctl_reply *reply)
{
    for (struct cmsghdr *cm = CMSG_FIRSTHDR(mh); cm; cm = CMSG_NXTHDR(mh, cm)) {
        if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS) continue;
        size_t n = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(cm) + i * sizeof fd, sizeof fd);
            if (reply && reply->nfds < CTL_MAX_FDS)
                reply->fds[reply->nfds++] = fd;
            else
                close(fd);
        }
    }
}

/* Receives one message into client->buf. Negative errno; -EAGAIN: none came, with `wait` within
 * REPLY_TIMEOUT_S. */
static int receive(struct ctl_client *c, struct ctl_hdr *hdr, struct ctl_reply *reply, bool wait)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(CTL_MAX_FDS * sizeof(int))];
    } control;
    struct iovec iov = {c->buf, sizeof c->buf};
    struct msghdr mh = {.msg_iov = &iov,
                        .msg_iovlen = 1,
                        .msg_control = &control,
                        .msg_controllen = sizeof control};
    ssize_t n;

    do n = recvmsg(c->fd, &mh, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
    while (n < 0 && errno == EINTR);
    if (n < 0) return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    if (n == 0) return -ECONNRESET;
    take_fds(&mh, reply);
    return ctl_check(c->buf, mh.msg_flags & MSG_TRUNC ? 0 : (size_t)n, hdr);
}

static int send_request(struct ctl_client *c, const struct ctl_hdr *hdr, const void *body,
                        size_t len, int fd)
{
    union {
        struct cmsghdr cm;
        char room[CMSG_SPACE(sizeof fd)];
    } control = {
        .cm = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)}};
    struct iovec iov[2] = {{(void *)hdr, sizeof *hdr}, {(void *)body, len}};
    struct msghdr mh = {.msg_iov = iov, .msg_iovlen = len ? 2 : 1};
    ssize_t n;

    if (fd >= 0) {
        memcpy(CMSG_DATA(&control.cm), &fd, sizeof fd);
        mh.msg_control = &control;
        mh.msg_controllen = sizeof control;
    }

    do n = sendmsg(c->fd, &mh, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0) return errno == EPIPE ? -ECONNRESET : -errno;
    return 0;
}

/* ---- events ------------------------------------------------------------------------------ */

static bool event_of(const struct ctl_client *c, const struct ctl_hdr *hdr, struct ctl_event *event)
{
    if (hdr->type != CTL_EVENT || hdr->count != 1 || !ctl_check_records(hdr, sizeof *event))
        return false;
    memcpy(event, c->buf + sizeof *hdr, sizeof *event);
    return ctl_string_ok(event->device, sizeof event->device) &&
           ctl_string_ok(event->member, sizeof event->member) &&
           ctl_string_ok(event->old, sizeof event->old);
}

static void keep_event(struct ctl_client *c, const struct ctl_event *event)
{
    if (!c->kept) c->kept = calloc(MAX_KEPT_EVENTS, sizeof *c->kept);
    if (!c->kept) return;
    if (c->nkept == MAX_KEPT_EVENTS) {
        c->first = (c->first + 1) % MAX_KEPT_EVENTS;
        c->nkept--;
    }
    c->kept[(c->first + c->nkept++) % MAX_KEPT_EVENTS] = *event;
}

int ctl_next_event(struct ctl_client *client, struct ctl_event *event, bool wait)
{
    if (client->nkept) {
        *event = client->kept[client->first];
        client->first = (client->first + 1) % MAX_KEPT_EVENTS;
        client->nkept--;
        return 1;
    }
    for (;;) {
        struct ctl_hdr hdr;
        int rc = receive(client, &hdr, NULL, wait);
        if (rc == -EAGAIN && wait) continue;
        if (rc == -EAGAIN) return 0;
        if (rc < 0) return rc == -EBADMSG || rc == -EPROTO ? rc : -ECONNRESET;
        if (event_of(client, &hdr, event)) return 1;
    }
}

int ctl_next_event_with(struct ctl_client *client, struct ctl_event *event, int *fds, size_t *nfds)
{
    struct ctl_reply came = {0};
    struct ctl_hdr hdr;
    int rc;

    while ((rc = receive(client, &hdr, &came, false)) == 0) {
        if (event_of(client, &hdr, event)) {
            memcpy(fds, came.fds, came.nfds * sizeof *fds);
            *nfds = came.nfds;
            return 1;
        }
        ctl_reply_free(&came); /* none that we know */
    }
    ctl_reply_free(&came);
    return rc == -EAGAIN ? 0 : -ECONNRESET;
}

/* ---- a call ------------------------------------------------------------------------------ */

static int add_records(const struct ctl_client *c, const struct ctl_hdr *hdr, size_t record_size,
                       struct ctl_reply *reply)
{
    if (!ctl_check_records(hdr, record_size)) return -EPROTO;
    if (hdr->count == 0) return 0;
    size_t have = reply->count * record_size, more = hdr->count * record_size;
    if (have + more > MAX_REPLY_BYTES) return -EMSGSIZE;
    uint8_t *records = realloc(reply->records, have + more);
    if (!records) return -ENOMEM;
    memcpy(records + have, c->buf + sizeof *hdr, more);
    reply->records = records;
    reply->count += hdr->count;
    return 0;
}

static int take_error(const struct ctl_client *c, const struct ctl_hdr *hdr,
                      struct ctl_reply *reply)
{
    struct ctl_error error;

    if (hdr->status > 0 || hdr->len != sizeof *hdr + sizeof error) return -EPROTO;
    memcpy(&error, c->buf + sizeof *hdr, sizeof error);
    if (!ctl_string_ok(error.text, sizeof error.text)) return -EPROTO;
    memcpy(reply->error, error.text, sizeof reply->error);
    return hdr->status;
}

static int gather(struct ctl_client *c, enum ctl_type type, size_t record_size,
                  struct ctl_reply *reply)
{
    for (;;) {
        struct ctl_hdr hdr;
        struct ctl_event event;
        int rc = receive(c, &hdr, reply, true);
        if (rc < 0) return rc == -EAGAIN ? -ETIMEDOUT : rc;
        if (hdr.type == CTL_EVENT) {
            if (event_of(c, &hdr, &event)) keep_event(c, &event);
            continue;
        }
        if (hdr.seq != c->seq || hdr.type != type) continue; /* of a call that gave up */
        if (hdr.status != 0) return take_error(c, &hdr, reply);
        rc = add_records(c, &hdr, record_size, reply);
        if (rc < 0 || !(hdr.flags & CTL_MORE)) return rc;
    }
}

int ctl_call(struct ctl_client *client, enum ctl_type type, const void *body, size_t len,
             size_t record_size, struct ctl_reply *reply)
{
    return ctl_call_with(client, type, body, len, -1, record_size, reply);
}

int ctl_call_with(struct ctl_client *client, enum ctl_type type, const void *body, size_t len,
                  int fd, size_t record_size, struct ctl_reply *reply)
{
    memset(reply, 0, sizeof *reply);
    for (size_t i = 0; i < CTL_MAX_FDS; i++) reply->fds[i] = -1;
    must(len <= CTL_MAX_MSG - sizeof(struct ctl_hdr));
    struct ctl_hdr hdr = {.version = CTL_VERSION,
                          .type = (uint16_t)type,
                          .len = (uint32_t)(sizeof hdr + len),
                          .seq = ++client->seq,
                          .count = len ? 1 : 0};

    int rc = send_request(client, &hdr, body, len, fd);
    if (rc == 0) rc = gather(client, type, record_size, reply);
    if (rc < 0 && !reply->error[0]) {
        const char *why = rc == -ECONNRESET  ? "rbondd has gone"
                          : rc == -ETIMEDOUT ? "rbondd does not answer"
                          : rc == -EPROTO    ? "rbondd speaks another version of the protocol"
                                             : strerror(-rc);
        ctl_string_set(reply->error, sizeof reply->error, why);
    }
    return rc;
}

void ctl_reply_free(struct ctl_reply *reply)
{
    for (size_t i = 0; i < reply->nfds; i++)
        if (reply->fds[i] >= 0) close(reply->fds[i]);
    free(reply->records);
    reply->records = NULL;
    reply->count = reply->nfds = 0;
}
