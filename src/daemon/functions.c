#include "daemon/functions.h"
#include "ctl/codec.h"
#include "daemon/fdstore.h"
#include "daemon/log.h"
#include "daemon/memfd.h"
#include "port/port.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A number rests this long before it is given again, while there are fresh ones: packets that are
 * under way to its last owner have gone by then. */
#define REST_NS (10 * SEC_NS)
#define DRAIN_MAX 1000000

/* ---- the group --------------------------------------------------------------------------- */

/* Whoever has the port, with or without SO_REUSEPORT, keeps this bind from succeeding. A socket
 * that joined a strangers' group would not have the index that its QP numbers say. */
static int port_is_free(void)
{
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(ROCE_UDP_PORT)};
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0) return -errno;
    int rc = bind(fd, (struct sockaddr *)&any, sizeof any) == 0 ? 0 : -errno;
    close(fd);
    return rc;
}

/* A connected socket takes no packets but its peer's, and skews the choice in the whole group. */
static bool is_connected(int fd)
{
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;

    return getpeername(fd, (struct sockaddr *)&peer, &len) == 0;
}

static void drain(int fd)
{
    char byte;

    for (int i = 0; i < DRAIN_MAX; i++)
        if (recv(fd, &byte, 1, MSG_DONTWAIT | MSG_TRUNC) < 0 && errno != EINTR) return;
}

/* Appends the next socket to the group. */
static int grow(struct functions *fs)
{
    if (fs->nslots == FUNCTIONS_MAX) return -EUSERS;
    int fd = port_udp_rx_socket();
    if (fd < 0) return fd;
    int rc = fs->nslots == 0 ? port_udp_steer(fd) : 0;
    if (rc == 0) rc = port_udp_lock(fd);
    if (rc < 0) {
        /* It was the last to join: closing it disturbs no other index. */
        close(fd);
        return rc;
    }
    fdstore_keep(fs->nslots, fd);
    fs->slot[fs->nslots++] = (struct function_slot){.rx_fd = fd};
    return 0;
}

/* The group as an earlier rbondd left it in the service manager's store. Its programs are about to
 * claim their numbers: as far as we know they have just been given back. What programs had joined
 * that have ended meanwhile stays joined; a datagram that so comes in finds no queue pair. */
static bool adopt(struct functions *fs, when_t now)
{
    static int fds[FUNCTIONS_MAX];
    unsigned n = fdstore_take(fds, FUNCTIONS_MAX);

    if (n == 0) return false;
    if (port_is_free() != -EADDRINUSE) { /* they are another network namespace's */
        for (unsigned i = 0; i < n; i++) close(fds[i]);
        return false;
    }
    for (unsigned i = 0; i < n; i++)
        fs->slot[i] =
            (struct function_slot){.rx_fd = fds[i], .freed = now, .spoiled = is_connected(fds[i])};
    fs->nslots = n;
    drain(fds[0]);
    log_info("the sockets of %u functions were kept", n - 1);
    return true;
}

int functions_init(struct functions *fs, when_t now)
{
    memset(fs, 0, sizeof *fs);
    if (adopt(fs, now)) return 0;
    int rc = port_is_free();
    return rc < 0 ? rc : grow(fs);
}

void functions_fini(struct functions *fs)
{
    for (unsigned n = 0; n < fs->nslots; n++) close(fs->slot[n].rx_fd);
    fs->nslots = 0;
}

int functions_own_rx(const struct functions *fs)
{
    int fd = fcntl(fs->slot[0].rx_fd, F_DUPFD_CLOEXEC, 3);

    return fd < 0 ? -errno : fd;
}

/* ---- choosing a number ------------------------------------------------------------------- */

/* The number that has rested longest; 0: none. */
static unsigned longest_free(const struct functions *fs)
{
    unsigned best = 0;

    for (unsigned n = 1; n < fs->nslots; n++) {
        const struct function_slot *s = &fs->slot[n];
        if (s->function || s->spoiled) continue;
        if (best == 0 || when_before(s->freed, fs->slot[best].freed)) best = n;
    }
    return best;
}

static int take(struct functions *fs, unsigned wanted)
{
    if (wanted >= FUNCTIONS_MAX) return -EINVAL;
    while (fs->nslots <= wanted) {
        int rc = grow(fs);
        if (rc < 0) return rc;
    }
    const struct function_slot *s = &fs->slot[wanted];
    return s->function || s->spoiled ? -EBUSY : (int)wanted;
}

static int choose(struct functions *fs, unsigned wanted, when_t now)
{
    if (wanted) return take(fs, wanted);
    unsigned used = longest_free(fs);

    if (used && when_since(now, fs->slot[used].freed) >= REST_NS) return (int)used;
    int rc = grow(fs);
    if (rc == 0) return (int)fs->nslots - 1;
    return used ? (int)used : rc;
}

/* ---- open and close ---------------------------------------------------------------------- */

void process_comm(pid_t pid, char *to, size_t size)
{
    char path[40], text[CTL_NAME_LEN] = "";

    snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
    FILE *f = fopen(path, "re");
    if (f) {
        if (fgets(text, sizeof text, f)) text[strcspn(text, "\n")] = 0;
        fclose(f);
    }
    ctl_string_set(to, size, text);
}

int functions_make_tx(int *fds, uint32_t *ntx)
{
    for (*ntx = 0; *ntx < CTL_TX_SOCKETS; (*ntx)++) {
        int fd = port_udp_tx_socket();
        if (fd >= 0) {
            fds[*ntx] = fd;
            continue;
        }
        while (*ntx > 0) close(fds[--*ntx]);
        return fd;
    }
    return 0;
}

static bool has_enough(const struct functions *fs, uid_t uid)
{
    unsigned has = 0;

    if (uid == 0 || uid == geteuid()) return false;
    for (unsigned n = 1; n < fs->nslots; n++)
        has += fs->slot[n].function && fs->slot[n].function->uid == uid;
    return has >= FUNCTIONS_PER_USER;
}

int functions_open(struct functions *fs, struct device *device, pid_t pid, uid_t uid,
                   unsigned wanted, when_t now, struct function **out, int fds[CTL_MAX_FDS],
                   uint32_t *ntx)
{
    if (has_enough(fs, uid)) return -EDQUOT;
    struct function *fn = calloc(1, sizeof *fn);
    if (!fn) return -ENOMEM;
    int rc = choose(fs, wanted, now);
    if (rc < 0) goto fail;
    struct function_slot *slot = &fs->slot[rc];
    fn->number = (uint16_t)rc;
    rc = fn->page_fd = memfd_shared("rbond-function", sizeof(struct function_page));
    if (rc < 0) goto fail;
    rc = functions_make_tx(fds + 3, ntx);
    if (rc < 0) {
        close(fn->page_fd);
        goto fail;
    }
    drain(slot->rx_fd);
    fds[0] = device->page_fd;
    fds[1] = fn->page_fd;
    fds[2] = slot->rx_fd;
    fn->pid = pid;
    fn->uid = uid;
    process_comm(pid, fn->comm, sizeof fn->comm);
    memcpy(fn->device_name, device->name, sizeof fn->device_name);
    fn->device = device;
    device->functions++;
    slot->function = fn;
    list_init(&fn->node);
    *out = fn;
    return 0;
fail:
    free(fn);
    return rc;
}

void functions_sent(int fds[CTL_MAX_FDS], uint32_t ntx)
{
    for (uint32_t i = 0; i < ntx; i++) close(fds[3 + i]);
}

static void bequeath(const struct function *fn)
{
    struct function_counts counts;
    struct device *d = fn->device;

    function_read_counts(fn, &counts);
    for (unsigned i = 0; i < 64; i++) d->past[i] += counts.counter[i];
    for (unsigned m = 0; m < STEER_MAX_MEMBERS; m++) {
        d->past_member[m].tx_packets += counts.member[m].tx_packets;
        d->past_member[m].tx_bytes += counts.member[m].tx_bytes;
        d->past_member[m].rx_packets += counts.member[m].rx_packets;
        d->past_member[m].rx_bytes += counts.member[m].rx_bytes;
        d->past_member[m].retransmits += counts.member[m].retransmits;
    }
}

/* pread, not a mapping: holes of the page stay holes, and each record is copied once. */
static bool read_at(const struct function *fn, void *to, size_t len, size_t offset)
{
    return pread(fn->page_fd, to, len, (off_t)offset) == (ssize_t)len;
}

/* The socket lives on here, and would go on to hear them. */
static void leave_groups(const struct function *fn, int rx_fd)
{
    static struct function_membership m[FUNCTION_PAGE_MEMBERSHIPS];

    if (!read_at(fn, m, sizeof m, offsetof(struct function_page, membership))) return;
    for (size_t i = 0; i < FUNCTION_PAGE_MEMBERSHIPS; i++)
        if (m[i].ifindex) port_udp_leave(rx_fd, &m[i].group, m[i].ifindex);
}

void functions_close(struct functions *fs, struct function *fn, when_t now)
{
    struct function_slot *slot = &fs->slot[fn->number];

    if (fn->device) {
        bequeath(fn);
        fn->device->functions--;
    }
    leave_groups(fn, slot->rx_fd);
    slot->function = NULL;
    slot->freed = now;
    slot->spoiled = is_connected(slot->rx_fd);
    if (slot->spoiled)
        log_warning("function %u: %s (pid %d) connected its socket; the number is lost", fn->number,
                    fn->comm, (int)fn->pid);
    list_del(&fn->node);
    close(fn->page_fd);
    free(fn);
}

void functions_detach(struct functions *fs, const struct device *device)
{
    for (unsigned n = 1; n < fs->nslots; n++) {
        struct function *fn = fs->slot[n].function;
        if (fn && fn->device == device) fn->device = NULL;
    }
}

struct function *functions_at(const struct functions *fs, unsigned n)
{
    return n < fs->nslots ? fs->slot[n].function : NULL;
}

/* ---- the page ---------------------------------------------------------------------------- */

void function_read_counts(const struct function *fn, struct function_counts *out)
{
    struct function_counts copy;

    memset(out, 0, sizeof *out);
    if (read_at(fn, copy.counter, sizeof copy.counter, offsetof(struct function_page, counters)) &&
        read_at(fn, copy.member, sizeof copy.member, offsetof(struct function_page, member)))
        *out = copy;
}

static bool view_ok(const struct function *fn, const struct hca_qp_view *v, unsigned slot)
{
    bool type = v->type == HCA_QPT_RC || v->type == HCA_QPT_UC || v->type == HCA_QPT_UD ||
                v->type == HCA_QPT_XRC_SEND || v->type == HCA_QPT_XRC_RECV;

    return v->qpn == ((uint32_t)fn->number << HCA_INDEX_BITS | slot) && type &&
           v->state <= HCA_QPS_ERR && v->dqpn <= 0xffffff && v->rq_psn.v <= 0xffffff &&
           v->sq_psn.v <= 0xffffff && (v->home < STEER_MAX_MEMBERS || v->home == STEER_NO_MEMBER) &&
           (v->active < STEER_MAX_MEMBERS || v->active == STEER_NO_MEMBER);
}

#define VIEWS_AT_ONCE 64

void function_read_qps(const struct function *fn,
                       bool (*each)(void *ctx, const struct function *fn,
                                    const struct hca_qp_view *view),
                       void *ctx)
{
    const size_t base = offsetof(struct function_page, qp), size = sizeof(struct hca_qp_view);
    struct hca_qp_view views[VIEWS_AT_ONCE];

    for (unsigned i = 0; i < FUNCTION_PAGE_QPS; i += VIEWS_AT_ONCE) {
        off_t data = lseek(fn->page_fd, (off_t)(base + i * size), SEEK_DATA);
        if (data < 0) return; /* a hole up to the end */
        if ((size_t)data >= base + (i + VIEWS_AT_ONCE) * size) {
            i = (unsigned)(((size_t)data - base) / size) / VIEWS_AT_ONCE * VIEWS_AT_ONCE;
            if (i >= FUNCTION_PAGE_QPS) return;
        }
        if (!read_at(fn, views, sizeof views, base + i * size)) return;
        for (unsigned k = 0; k < VIEWS_AT_ONCE; k++)
            if (views[k].qpn && view_ok(fn, &views[k], i + k) && !each(ctx, fn, &views[k])) return;
    }
}
