#include "watch/watch.h"
#include "watch/parse.h"
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

/* A burst of thousands of links fits; without CAP_NET_ADMIN the kernel grants rmem_max. */
#define SOCKET_BUFFER (8 << 20)
#define DUMP_ATTEMPTS 10
#define READS_PER_CALL 256

struct watch {
    const struct watch_ops *ops;
    void *ctx;
    struct mnl_socket *nl;  /* multicast */
    struct mnl_socket *ask; /* dumps: apart, so that their answers do not mix with the news */
    uint32_t seq;
    uint64_t overruns;
    char buf[32768];
};

static when_t clock_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (when_t){(uint64_t)ts.tv_sec * SEC_NS + (uint64_t)ts.tv_nsec};
}

static void set_buffer(const struct mnl_socket *nl)
{
    int fd = mnl_socket_get_fd(nl), size = SOCKET_BUFFER;

    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) != 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
}

int watch_new(struct watch **out, const struct watch_ops *ops, void *ctx)
{
    struct watch *w = calloc(1, sizeof *w);

    if (!w) return -ENOMEM;
    w->ops = ops;
    w->ctx = ctx;
    w->nl = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | SOCK_NONBLOCK);
    w->ask = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
    if (w->nl) set_buffer(w->nl);
    if (!w->nl || !w->ask ||
        mnl_socket_bind(w->nl, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR,
                        MNL_SOCKET_AUTOPID) < 0 ||
        mnl_socket_bind(w->ask, 0, MNL_SOCKET_AUTOPID) < 0) {
        int rc = -errno;
        watch_free(w);
        return rc;
    }
    *out = w;
    return 0;
}

void watch_free(struct watch *watch)
{
    if (watch->nl) mnl_socket_close(watch->nl);
    if (watch->ask) mnl_socket_close(watch->ask);
    free(watch);
}

int watch_fd(const struct watch *watch) { return mnl_socket_get_fd(watch->nl); }
uint64_t watch_overruns(const struct watch *watch) { return watch->overruns; }

static void tell(struct watch *w, const struct nlmsghdr *nlh, when_t when)
{
    struct watch_link link;
    struct watch_addr addr;

    if (watch_parse_link(nlh, &link))
        w->ops->link(w->ctx, &link, nlh->nlmsg_type == RTM_DELLINK, when);
    else if (watch_parse_addr(nlh, &addr))
        w->ops->addr(w->ctx, &addr, nlh->nlmsg_type == RTM_DELADDR, when);
}

/* ---- dump -------------------------------------------------------------------------------- */

static int ask(struct watch *w, uint16_t type)
{
    struct nlmsghdr *nlh = mnl_nlmsg_put_header(w->buf);

    nlh->nlmsg_type = type;
    nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    nlh->nlmsg_seq = ++w->seq;
    if (type == RTM_GETLINK)
        mnl_nlmsg_put_extra_header(nlh, sizeof(struct ifinfomsg));
    else
        mnl_nlmsg_put_extra_header(nlh, sizeof(struct ifaddrmsg));
    return mnl_socket_sendto(w->ask, nlh, nlh->nlmsg_len) < 0 ? -errno : 0;
}

/* 1: that was the last part; 0: more follow; -EINTR: the tables changed during the dump. */
static int take_part(struct watch *w, int n, when_t when, bool *torn)
{
    for (struct nlmsghdr *nlh = (struct nlmsghdr *)w->buf; mnl_nlmsg_ok(nlh, n);
         nlh = mnl_nlmsg_next(nlh, &n)) {
        if (nlh->nlmsg_seq != w->seq) continue;
        if (nlh->nlmsg_flags & NLM_F_DUMP_INTR) *torn = true;
        if (nlh->nlmsg_type == NLMSG_DONE) return 1;
        if (nlh->nlmsg_type == NLMSG_ERROR) {
            const struct nlmsgerr *err = mnl_nlmsg_get_payload(nlh);
            return err->error ? err->error : 1;
        }
        tell(w, nlh, when);
    }
    return 0;
}

static int dump_one(struct watch *w, uint16_t type, bool *torn)
{
    int rc = ask(w, type);

    while (rc == 0) {
        ssize_t n = mnl_socket_recvfrom(w->ask, w->buf, sizeof w->buf);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -errno;
        rc = take_part(w, (int)n, clock_now(), torn);
    }
    return rc < 0 ? rc : 0;
}

int watch_dump(struct watch *watch)
{
    int rc = 0;
    bool torn = true;

    for (int i = 0; i < DUMP_ATTEMPTS && rc == 0 && torn; i++) {
        torn = false;
        watch->ops->dump_begin(watch->ctx);
        rc = dump_one(watch, RTM_GETLINK, &torn);
        if (rc == 0) rc = dump_one(watch, RTM_GETADDR, &torn);
    }
    /* After so many torn ones the last counts: the news that follow mend it. */
    if (rc == 0) watch->ops->dump_end(watch->ctx, clock_now());
    return rc;
}

/* ---- news -------------------------------------------------------------------------------- */

int watch_read(struct watch *watch)
{
    for (int i = 0; i < READS_PER_CALL; i++) {
        ssize_t size = mnl_socket_recvfrom(watch->nl, watch->buf, sizeof watch->buf);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return 0;
        if (size < 0 && (errno == ENOBUFS || errno == ENOSPC)) {
            watch->overruns++;
            int rc = watch_dump(watch);
            if (rc < 0) return rc;
            continue;
        }
        if (size < 0) return -errno;
        when_t when = clock_now();
        int n = (int)size;
        for (struct nlmsghdr *nlh = (struct nlmsghdr *)watch->buf; mnl_nlmsg_ok(nlh, n);
             nlh = mnl_nlmsg_next(nlh, &n))
            tell(watch, nlh, when);
    }
    return 0;
}
