/* The program's descriptor is one end of a pair of sockets; answers are put in at the other, so
 * that it polls, blocks and is inherited as any. Where the kernel has RDMA netlink, too, a socket
 * of its stands behind: requests for what is not ours go there, and its answers to the program.
 *
 * A descriptor is known by its inode, so that duplicates are ours, too, and one closed behind our
 * back (close_range, dup2) is not taken for one. */
#include "verbs/netlink.h"

#include "base/list.h"
#include "ctl/client.h"
#include "verbs/nldev.h"
#include "verbs/process.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Answers that may wait in the pair itself, bytes; further ones wait in memory. */
#define PAIR_BYTES (1 << 20)
/* A request has a few attributes. */
#define MAX_REQUEST 65536

struct socket {
    struct list link;
    dev_t dev;
    ino_t ino;                  /* of the program's end */
    int inner;                  /* the other end */
    int kernel;                 /* -1: the kernel has no RDMA netlink */
    uint32_t portid;            /* where there is no `kernel`: 0 until bound */
    struct nldev_reply waiting; /* those from `sent` on are not in the pair yet */
    size_t sent;
};

_Atomic unsigned netlink_sockets;
static struct list sockets = {&sockets, &sockets};
/* Over the list and all in it. Only raw system calls that do not block are made under it: libc's
 * own are hooked. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local bool aside;

__attribute__((constructor)) static void guard(void) { process_guard(&lock, NULL); }

void netlink_stand_aside(bool wanted) { aside = wanted; }

static void close_raw(int fd)
{
    if (fd >= 0) syscall(SYS_close, fd);
}

/* ---- which there are --------------------------------------------------------------------- */

/* Under the lock. */
static struct socket *find(int fd)
{
    struct stat st;

    if (syscall(SYS_fstat, fd, &st) != 0) return NULL;
    list_for_each (node, &sockets) {
        struct socket *s = container_of(node, struct socket, link);
        if (s->ino == st.st_ino && s->dev == st.st_dev) return s;
    }
    return NULL;
}

bool netlink_is_socket(int fd)
{
    const int saved = errno;

    pthread_mutex_lock(&lock);
    bool ours = find(fd) != NULL;
    pthread_mutex_unlock(&lock);
    errno = saved;
    return ours;
}

/* Taken with the lock held; NULL, the lock free and EBADF set where somebody closed it meanwhile.
 */
static struct socket *take(int fd)
{
    pthread_mutex_lock(&lock);
    struct socket *s = find(fd);
    if (s) return s;
    pthread_mutex_unlock(&lock);
    errno = EBADF;
    return NULL;
}

static void forget(struct socket *s)
{
    list_del(&s->link);
    atomic_fetch_sub(&netlink_sockets, 1);
    close_raw(s->inner);
    close_raw(s->kernel);
    free(s->waiting.bytes);
    free(s);
}

/* The other end hangs up when the last descriptor of the program's end has gone, in whatever
 * process. */
void netlink_closed(void)
{
    const int saved = errno;

    pthread_mutex_lock(&lock);
    for (struct list *node = sockets.next, *next; node != &sockets; node = next) {
        struct socket *s = container_of(node, struct socket, link);
        struct pollfd pfd = {.fd = s->inner};
        next = node->next;
        if (poll(&pfd, 1, 0) == 1 && pfd.revents & POLLHUP) forget(s);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
}

/* ---- opening ----------------------------------------------------------------------------- */

static bool rbondd_answers(void)
{
    struct ctl_client *client;

    if (ctl_connect(&client, NULL) != 0) return false;
    ctl_close(client);
    return true;
}

/* The pair, whose inner end is no other program's after an exec; false with errno. */
static bool make_pair(int type, struct socket *s, int *fd)
{
    const int size = PAIR_BYTES;
    struct stat st;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | (type & SOCK_NONBLOCK), 0, pair))
        return false;
    syscall(SYS_setsockopt, pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    syscall(SYS_fstat, pair[0], &st);
    if (!(type & SOCK_CLOEXEC)) fcntl(pair[0], F_SETFD, 0);
    s->dev = st.st_dev;
    s->ino = st.st_ino;
    s->inner = pair[1];
    *fd = pair[0];
    return true;
}

bool netlink_try_open(int type, int *fd)
{
    const int kind = type & ~(SOCK_CLOEXEC | SOCK_NONBLOCK), saved = errno;

    if (aside || (kind != SOCK_RAW && kind != SOCK_DGRAM)) return false;
    netlink_closed();
    if (!rbondd_answers()) {
        errno = saved;
        return false;
    }
    struct socket *s = calloc(1, sizeof *s);
    *fd = -1;
    if (!s) return true;
    if (!make_pair(type, s, fd)) {
        free(s);
        return true;
    }
    s->kernel = (int)syscall(SYS_socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_RDMA);
    errno = saved;
    pthread_mutex_lock(&lock);
    list_add_tail(&sockets, &s->link);
    atomic_fetch_add(&netlink_sockets, 1);
    pthread_mutex_unlock(&lock);
    return true;
}

/* ---- names and options ------------------------------------------------------------------- */

/* Who listens for the kernel's events gets its socket itself, and `s` is no more: rbondd's are told
 * by rbond monitor. -1 with errno, and nothing has changed. */
static int hand_over(struct socket *s, int fd)
{
    if (s->kernel < 0) {
        errno = EOPNOTSUPP;
        return -1;
    }
    int flags = (int)syscall(SYS_fcntl, fd, F_GETFD), fl = (int)syscall(SYS_fcntl, fd, F_GETFL);
    syscall(SYS_fcntl, s->kernel, F_SETFL, fl);
    if (syscall(SYS_dup3, s->kernel, fd, flags & FD_CLOEXEC ? O_CLOEXEC : 0) < 0) return -1;
    forget(s);
    return 0;
}

int netlink_bind(int fd, const struct sockaddr *address, socklen_t len)
{
    struct sockaddr_nl nl;
    struct socket *s;
    int rc = 0;

    if (len < sizeof nl || !address || address->sa_family != AF_NETLINK) {
        errno = EINVAL;
        return -1;
    }
    memcpy(&nl, address, sizeof nl);
    if (!(s = take(fd))) return -1;
    if (s->kernel >= 0) {
        rc = (int)syscall(SYS_bind, s->kernel, &nl, sizeof nl);
        if (rc == 0 && nl.nl_groups) rc = hand_over(s, fd);
    } else if (nl.nl_groups) {
        rc = hand_over(s, fd);
    } else {
        s->portid = nl.nl_pid ? nl.nl_pid : (uint32_t)getpid();
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

static struct sockaddr_nl name_of(struct socket *s)
{
    struct sockaddr_nl nl = {.nl_family = AF_NETLINK, .nl_pid = s->portid};
    socklen_t len = sizeof nl;

    if (s->kernel >= 0) syscall(SYS_getsockname, s->kernel, &nl, &len);
    return nl;
}

static void put_name(const struct sockaddr_nl *nl, struct sockaddr *address, socklen_t *len)
{
    memcpy(address, nl, *len < sizeof *nl ? *len : sizeof *nl);
    *len = sizeof *nl;
}

int netlink_getsockname(int fd, struct sockaddr *address, socklen_t *len)
{
    struct socket *s = take(fd);
    struct sockaddr_nl nl;

    if (!s) return -1;
    nl = name_of(s);
    pthread_mutex_unlock(&lock);
    if (!address || !len) {
        errno = EFAULT;
        return -1;
    }
    put_name(&nl, address, len);
    return 0;
}

int netlink_setsockopt(int fd, int option, const void *value, socklen_t len)
{
    struct socket *s = take(fd);
    int rc = 0;

    if (!s) return -1;
    if (s->kernel >= 0)
        rc = (int)syscall(SYS_setsockopt, s->kernel, SOL_NETLINK, option, value, len);
    if (rc == 0 && option == NETLINK_ADD_MEMBERSHIP) rc = hand_over(s, fd);
    pthread_mutex_unlock(&lock);
    return rc;
}

/* ---- what rbondd knows ------------------------------------------------------------------- */

struct answers {
    struct ctl_reply dev, qp, cm_id, function, stat;
};

static void ask(struct ctl_client *client, enum ctl_type type, size_t size, struct ctl_reply *reply)
{
    if (ctl_call(client, type, NULL, 0, size, reply) != 0) reply->count = 0;
}

/* All empty where rbondd has gone. */
static void gather(unsigned wants, struct answers *a, struct nldev_facts *facts)
{
    struct ctl_client *client;

    if (ctl_connect(&client, NULL) != 0) return;
    ask(client, CTL_DEV_LIST, sizeof *facts->dev, &a->dev);
    if (wants & NLDEV_QPS) ask(client, CTL_QP_LIST, sizeof *facts->qp, &a->qp);
    if (wants & NLDEV_CM_IDS) ask(client, CTL_CM_ID_LIST, sizeof *facts->cm_id, &a->cm_id);
    if (wants & NLDEV_FUNCTIONS)
        ask(client, CTL_FUNCTION_LIST, sizeof *facts->function, &a->function);
    if (wants & NLDEV_STATS) ask(client, CTL_STAT, sizeof *facts->stat, &a->stat);
    ctl_close(client);
    *facts = (struct nldev_facts){
        .dev = a->dev.records,
        .ndev = a->dev.count,
        .qp = a->qp.records,
        .nqp = a->qp.count,
        .cm_id = a->cm_id.records,
        .ncm_id = a->cm_id.count,
        .function = a->function.records,
        .nfunction = a->function.count,
        .stat = a->stat.records,
        .nstat = a->stat.count,
    };
}

static void answers_free(struct answers *a)
{
    ctl_reply_free(&a->dev);
    ctl_reply_free(&a->qp);
    ctl_reply_free(&a->cm_id);
    ctl_reply_free(&a->function);
    ctl_reply_free(&a->stat);
}

/* ---- the kernel's part ------------------------------------------------------------------- */

/* What waits at the kernel's socket; a dump goes on as it is read. Without the end of a dump that
 * ours are to join. */
static void relay(struct socket *s, bool joined)
{
    _Alignas(8) static uint8_t buf[MAX_REQUEST]; /* the lock is held */
    ssize_t n;

    while ((n = syscall(SYS_recvfrom, s->kernel, buf, sizeof buf, MSG_DONTWAIT, NULL, NULL)) > 0) {
        size_t len = (size_t)n;
        for (const struct nlmsghdr *m = (void *)buf; NLMSG_OK(m, len); m = NLMSG_NEXT(m, len)) {
            bool ends = m->nlmsg_type == NLMSG_DONE || m->nlmsg_type == NLMSG_ERROR;
            if (!joined || !ends) nldev_add(&s->waiting, m);
        }
    }
}

static void forward(struct socket *s, const struct nlmsghdr *request, bool joined)
{
    const struct sockaddr_nl to = {.nl_family = AF_NETLINK};

    syscall(SYS_sendto, s->kernel, request, request->nlmsg_len, 0, &to, sizeof to);
    relay(s, joined);
}

/* ---- answers ----------------------------------------------------------------------------- */

/* Into the pair go datagrams as the kernel cuts them: messages of one dump together, others alone.
 */
static size_t datagram(const struct nldev_reply *waiting, size_t from)
{
    size_t at = from;

    while (at < waiting->len) {
        const struct nlmsghdr *m = (const void *)(waiting->bytes + at);
        size_t len = NLMSG_ALIGN(m->nlmsg_len);
        bool of_dump = m->nlmsg_flags & NLM_F_MULTI;
        if (at > from && (!of_dump || at + len - from > NLDEV_MAX_MESSAGE)) break;
        at += len;
        if (!of_dump || m->nlmsg_type == NLMSG_DONE) break;
    }
    return at - from;
}

static void push(struct socket *s)
{
    while (s->sent < s->waiting.len) {
        size_t len = datagram(&s->waiting, s->sent);
        if (syscall(SYS_sendto, s->inner, s->waiting.bytes + s->sent, len,
                    MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0) < 0)
            return;
        s->sent += len;
    }
    s->waiting.len = s->sent = 0;
}

static void answer(struct socket *s, const struct nlmsghdr *request,
                   const struct nldev_facts *facts)
{
    enum nldev_whose whose = NLDEV_OURS;

    if (s->kernel >= 0) whose = nldev_whose(request, facts);
    if (whose != NLDEV_OURS) forward(s, request, whose == NLDEV_BOTH);
    if (whose != NLDEV_KERNELS) nldev_answer(request, name_of(s).nl_pid, facts, &s->waiting);
}

/* A message that is not whole ends the row: the kernel does not answer it either. */
static bool is_whole(const struct nlmsghdr *m, size_t len)
{
    return len >= sizeof *m && m->nlmsg_len >= sizeof *m && m->nlmsg_len <= len;
}

static const struct nlmsghdr *following(const struct nlmsghdr *m, size_t *len)
{
    size_t step = NLMSG_ALIGN(m->nlmsg_len);

    if (step > *len) step = *len;
    *len -= step;
    return (const void *)((const uint8_t *)m + step);
}

static unsigned wants_of(const struct nlmsghdr *m, size_t len)
{
    unsigned wants = 0;

    for (; is_whole(m, len); m = following(m, &len)) wants |= nldev_wants(m);
    return wants;
}

ssize_t netlink_send(int fd, const void *bytes, size_t len)
{
    struct answers answers = {0};
    struct nldev_facts facts = {0};
    struct nlmsghdr *copy;
    struct socket *s;
    size_t rest = len;

    if (len > MAX_REQUEST) {
        errno = EMSGSIZE;
        return -1;
    }
    if (!(copy = malloc(len + NLMSG_HDRLEN))) return -1;
    memcpy(copy, bytes, len);
    gather(wants_of(copy, len), &answers, &facts);
    s = take(fd);
    if (s) {
        if (s->kernel < 0 && !s->portid) s->portid = (uint32_t)getpid();
        for (const struct nlmsghdr *m = copy; is_whole(m, rest); m = following(m, &rest))
            answer(s, m, &facts);
        push(s);
        pthread_mutex_unlock(&lock);
    }
    answers_free(&answers);
    free(copy);
    return s ? (ssize_t)len : -1;
}

void netlink_received(int fd, struct sockaddr *address, socklen_t *len)
{
    const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    const int saved = errno;
    struct socket *s = take(fd);

    if (s) {
        push(s);
        pthread_mutex_unlock(&lock);
        if (address) put_name(&kernel, address, len);
    }
    errno = saved;
}
