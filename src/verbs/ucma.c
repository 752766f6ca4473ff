/* Channels of the RDMA connection manager: one control connection to rbondd each, and one visible
 * descriptor, the end of a stream socket on which rbondd puts a byte (a token) for every event that
 * waits. So poll, epoll and O_NONBLOCK work on it as on the kernel's device: GET_EVENT first takes
 * a token by an ordinary read, which blocks or not by the descriptor's own flags, then asks rbondd.
 *
 * by_fd may hold a channel whose descriptor was closed behind our back (close_range, dup2, exec of
 * a raw system call); so each use compares the descriptor's inode with the channel's. */
#include "verbs/ucma.h"

#include "base/list.h"
#include "ctl/client.h"
#include "ctl/ucma.h"
#include "verbs/process.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <rdma/rdma_user_cm.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_FD 65536

struct channel {
    struct ctl_client *ctl; /* under lock */
    pthread_mutex_t lock;
    _Atomic int refs; /* by_fd's, and one for each call under way */
    uint32_t number;  /* as MIGRATE_ID names it */
    dev_t dev;
    ino_t ino;
};

static _Atomic(struct channel *) by_fd[MAX_FD];
/* Guards the step from by_fd to a reference. Taken only for descriptors found in by_fd. */
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;

/* Another thread's call was under way: the parent's. */
static void free_channels(void)
{
    for (size_t fd = 0; fd < MAX_FD; fd++) {
        struct channel *ch = atomic_load_explicit(&by_fd[fd], memory_order_relaxed);
        if (ch) pthread_mutex_init(&ch->lock, NULL);
    }
}

__attribute__((constructor)) static void guard(void) { process_guard(&table_lock, free_channels); }

static int real_fstat(int fd, struct stat *st) { return (int)syscall(SYS_fstat, fd, st); }

static void channel_put(struct channel *ch)
{
    if (atomic_fetch_sub(&ch->refs, 1) != 1) return;
    ctl_close(ch->ctl);
    pthread_mutex_destroy(&ch->lock);
    free(ch);
}

bool ucma_is_channel(int fd)
{
    return (unsigned)fd < MAX_FD && atomic_load_explicit(&by_fd[fd], memory_order_relaxed) != NULL;
}

/* The channel of this descriptor with a reference, or NULL where the descriptor is another's now.
 */
static struct channel *channel_get(int fd)
{
    struct stat st;
    if (!ucma_is_channel(fd) || real_fstat(fd, &st) < 0) return NULL;
    pthread_mutex_lock(&table_lock);
    struct channel *ch = atomic_load(&by_fd[fd]);
    if (ch && (ch->dev != st.st_dev || ch->ino != st.st_ino)) {
        atomic_store(&by_fd[fd], NULL);
        channel_put(ch);
        ch = NULL;
    }
    if (ch) atomic_fetch_add(&ch->refs, 1);
    pthread_mutex_unlock(&table_lock);
    return ch;
}

void ucma_forget(int fd)
{
    pthread_mutex_lock(&table_lock);
    struct channel *ch = atomic_exchange(&by_fd[fd], NULL);
    if (ch) channel_put(ch);
    pthread_mutex_unlock(&table_lock);
}

static int set_flags(int fd, int flags)
{
    int fl = fcntl(fd, F_GETFL);
    if (fl < 0 || fcntl(fd, F_SETFL, (fl & ~O_NONBLOCK) | (flags & O_NONBLOCK)) < 0) return -1;
    return fcntl(fd, F_SETFD, flags & O_CLOEXEC ? FD_CLOEXEC : 0);
}

/* Asks rbondd for the channel; the visible descriptor or a negative errno. */
static int channel_start(struct channel *ch)
{
    int err = ctl_connect(&ch->ctl, NULL);
    if (err) return -ENXIO;
    struct ctl_reply reply;
    err = ctl_call(ch->ctl, CTL_CM_OPEN, NULL, 0, sizeof(struct ctl_cm_opened), &reply);
    int fd = err;
    if (!err && (reply.count != 1 || reply.nfds != 1)) fd = -EPROTO;
    if (!err && fd == 0) {
        const struct ctl_cm_opened *opened = reply.records;
        ch->number = opened->channel;
        fd = reply.fds[0];
        reply.fds[0] = -1;
    }
    ctl_reply_free(&reply);
    return fd;
}

int ucma_open(int flags)
{
    struct channel *ch = calloc(1, sizeof *ch);
    if (!ch) return -1;
    pthread_mutex_init(&ch->lock, NULL);
    atomic_init(&ch->refs, 1);
    int fd = channel_start(ch);
    if (fd < 0) {
        if (ch->ctl) ctl_close(ch->ctl);
        pthread_mutex_destroy(&ch->lock);
        free(ch);
        errno = -fd;
        return -1;
    }
    struct stat st;
    if (fd >= MAX_FD || real_fstat(fd, &st) < 0 || set_flags(fd, flags) < 0) {
        close(fd);
        channel_put(ch);
        errno = EMFILE;
        return -1;
    }
    ch->dev = st.st_dev;
    ch->ino = st.st_ino;
    ucma_forget(fd);
    atomic_store(&by_fd[fd], ch);
    return fd;
}

void ucma_disguise(int fd, struct stat *st)
{
    struct channel *ch = channel_get(fd);
    if (!ch) return;
    channel_put(ch);
    /* With the kernel's module loaded librdmacm knows the device number that it must see. */
    struct stat real;
    st->st_rdev = stat(UCMA_DEV_PATH, &real) == 0 ? real.st_rdev : 0;
    st->st_mode = S_IFCHR | 0666;
}

/* rbondd has gone, and with it what it knew of the channel's ids. What gives something back does,
 * with no events left to be acknowledged; all else finds no device. */
static int call_of_a_lost(const void *cmd, void *response, size_t room)
{
    const struct rdma_ucm_destroy_id_resp none = {0};
    struct rdma_ucm_cmd_hdr hdr;
    memcpy(&hdr, cmd, sizeof hdr);
    if (hdr.cmd != RDMA_USER_CM_CMD_DESTROY_ID && hdr.cmd != RDMA_USER_CM_CMD_LEAVE_MCAST)
        return -ENODEV;
    if (response) memcpy(response, &none, room < sizeof none ? room : sizeof none);
    return 0;
}

/* One command, already in the daemon's terms; its response is stored at `response`. */
static int channel_call(struct channel *ch, const void *cmd, size_t len, void *response,
                        size_t room)
{
    struct ctl_reply reply;
    pthread_mutex_lock(&ch->lock);
    int err = ctl_call(ch->ctl, CTL_CM_CMD, cmd, len, 1, &reply);
    pthread_mutex_unlock(&ch->lock);
    if (!err) {
        size_t n = reply.count < room ? reply.count : room;
        if (n && response) memcpy(response, reply.records, n);
    }
    ctl_reply_free(&reply);
    return err == -ECONNRESET ? call_of_a_lost(cmd, response, room) : err;
}

/* A token for an event whose id was destroyed meanwhile finds nothing: wait for the next. */
static int get_event(struct channel *ch, int fd, const void *cmd, size_t len, void *response,
                     size_t room)
{
    for (;;) {
        char token;
        ssize_t n = read(fd, &token, 1);
        if (n < 0) return -errno;
        if (n == 0) return -ENODEV; /* rbondd has gone */
        int err = channel_call(ch, cmd, len, response, room);
        if (err != -EAGAIN) return err;
    }
}

/* Where a command keeps its response pointer: most lead with it, CREATE_ID has it second, and some
 * have none. */
static bool response_offset(uint32_t cmd, size_t *offset)
{
    switch (cmd) {
    case RDMA_USER_CM_CMD_CREATE_ID:
        *offset = offsetof(struct rdma_ucm_create_id, response);
        return true;
    case RDMA_USER_CM_CMD_DESTROY_ID:
    case RDMA_USER_CM_CMD_LEAVE_MCAST:
    case RDMA_USER_CM_CMD_QUERY_ROUTE:
    case RDMA_USER_CM_CMD_QUERY:
    case RDMA_USER_CM_CMD_INIT_QP_ATTR:
    case RDMA_USER_CM_CMD_GET_EVENT:
    case RDMA_USER_CM_CMD_JOIN_IP_MCAST:
    case RDMA_USER_CM_CMD_JOIN_MCAST:
    case RDMA_USER_CM_CMD_MIGRATE_ID: *offset = 0; return true;
    default: return false;
    }
}

/* Turns what only this process can see into what the daemon can: the channel behind MIGRATE_ID's
 * descriptor, the value behind SET_OPTION's pointer. The new length, or a negative errno. */
static ssize_t translate(uint8_t *cmd, size_t len, size_t cap)
{
    struct rdma_ucm_cmd_hdr hdr;
    memcpy(&hdr, cmd, sizeof hdr);
    uint8_t *body = cmd + sizeof hdr;
    if (hdr.cmd == RDMA_USER_CM_CMD_MIGRATE_ID && hdr.in >= sizeof(struct rdma_ucm_migrate_id)) {
        struct rdma_ucm_migrate_id m;
        memcpy(&m, body, sizeof m);
        struct channel *from = channel_get((int)m.fd);
        if (!from) return -EINVAL;
        m.fd = from->number;
        channel_put(from);
        memcpy(body, &m, sizeof m);
    }
    if (hdr.cmd == RDMA_USER_CM_CMD_SET_OPTION && hdr.in >= sizeof(struct rdma_ucm_set_option)) {
        struct rdma_ucm_set_option o;
        memcpy(&o, body, sizeof o);
        if (o.optlen > cap - len) return -EINVAL;
        if (o.optlen) memcpy(cmd + len, (const void *)(uintptr_t)o.optval, o.optlen);
        len += o.optlen;
    }
    return (ssize_t)len;
}

static int run(struct channel *ch, int fd, const void *buf, size_t len)
{
    struct rdma_ucm_cmd_hdr hdr;
    uint8_t cmd[CTL_CM_MAX_CMD];
    if (len < sizeof hdr || len > sizeof cmd) return -EINVAL;
    memcpy(cmd, buf, len);
    memcpy(&hdr, cmd, sizeof hdr);
    if (hdr.in > len - sizeof hdr) return -EINVAL;

    size_t offset = 0;
    void *response = NULL;
    if (response_offset(hdr.cmd, &offset)) {
        uint64_t pointer;
        if (hdr.in < offset + sizeof pointer) return -EINVAL;
        memcpy(&pointer, cmd + sizeof hdr + offset, sizeof pointer);
        response = (void *)(uintptr_t)pointer;
    }
    ssize_t n = translate(cmd, sizeof hdr + hdr.in, sizeof cmd);
    if (n < 0) return (int)n;
    if (hdr.cmd == RDMA_USER_CM_CMD_GET_EVENT)
        return get_event(ch, fd, cmd, (size_t)n, response, hdr.out);
    return channel_call(ch, cmd, (size_t)n, response, hdr.out);
}

ssize_t ucma_write(int fd, const void *buf, size_t len)
{
    struct channel *ch = channel_get(fd);
    if (!ch) return syscall(SYS_write, fd, buf, len);
    int err = run(ch, fd, buf, len);
    channel_put(ch);
    if (err) {
        errno = -err;
        return -1;
    }
    return (ssize_t)len;
}
