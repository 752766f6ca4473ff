/* See function.h: opens a function, drives its adapter. */
#include "verbs/function.h"
#include "base/must.h"
#include "verbs/import.h"
#include "verbs/kin.h"
#include "verbs/pages.h"
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Bursts sent per round: bounds how long the lock is held. */
#define BURSTS_PER_ROUND 4
/* Rounds of a QP's end: what has arrived is taken, what that calls for is sent. */
#define SETTLE_ROUNDS 64
/* How long to wait for room in the transmit socket before the rest of a burst counts as lost. */
#define TX_WAIT_MS 20
/* After so many rounds of a spinning program that found nothing, offer the CPU to others: the peer
 * may be one of them. */
#define IDLE_SPINS 64
/* How often a poll offers the CPU to whoever drives before it answers by what is known so far. */
#define LOCK_TRIES 16
/* With so many packets a round takes as long as so many polls; with less, as one. */
#define LONG_ROUND 8

when_t function_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (when_t){(uint64_t)ts.tv_sec * SEC_NS + (uint64_t)ts.tv_nsec};
}

/* ---- the lock ---------------------------------------------------------------------------- */

/* It is held for some microseconds at a time: a short wait is cheaper awake than asleep. */
void function_lock_init(struct function *f)
{
    pthread_mutexattr_t attr;

    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(&f->lock, &attr);
    pthread_mutexattr_destroy(&attr);
}

static void lock(struct function *f)
{
    if (pthread_mutex_trylock(&f->lock) == 0) return;
    atomic_fetch_add(&f->waiters, 1);
    pthread_mutex_lock(&f->lock);
    atomic_fetch_sub(&f->waiters, 1);
}

int function_lock(struct function *f)
{
    if (function_is_dead(f)) return EIO;
    lock(f);
    function_touch(f);
    return 0;
}

void function_unlock(struct function *f) { pthread_mutex_unlock(&f->lock); }

/* ---- driving ----------------------------------------------------------------------------- */

static void take_packet(void *arg, const struct hca_rx *rx)
{
    struct function *f = arg;
    hca_input(f->hca, rx, f->now);
}

/* rbondd has published: hands the adapter the new table, the port its members and addresses. */
static void follow_page(struct function *f, when_t now)
{
    struct port_member members[STEER_MAX_MEMBERS];
    struct gid local[CTL_MAX_GIDS];
    size_t n = 0;

    page_read(f->page, &f->state);
    uint8_t nmembers = f->state.steering.nmembers;
    if (nmembers > STEER_MAX_MEMBERS) return; /* not a page that we know how to read */
    for (uint8_t m = 0; m < nmembers; m++) members[m].ifindex = f->state.member_ifindex[m];
    for (size_t i = 0; i < CTL_MAX_GIDS; i++)
        if (!gid_is_zero(&f->state.gid[i])) local[n++] = f->state.gid[i];
    f->port->ops->set_members(f->port, members, nmembers);
    f->port->ops->set_local(f->port, local, n);
    hca_set_mtu(f->hca, 128u << function_mtu(f->state.mtu));
    hca_set_speed(f->hca, (uint64_t)f->state.speed_mbps * 1000000 / 8);
    hca_steer(f->hca, &f->state.steering, now);
    mcast_follow(f);
}

static void look_at_page(struct function *f, when_t now)
{
    if (!f->port) return;
    uint32_t generation = atomic_load_explicit(&f->page->generation, memory_order_acquire);
    if (generation != f->state.steering.generation) follow_page(f, now);
}

/* Payloads in `tx` point into user memory and are valid only until the next call on the adapter, so
 * what the socket does not take soon is dropped: to the transport a loss like any other. */
static void transmit(struct function *f, size_t n)
{
    size_t sent = f->port->ops->tx(f->port, f->tx, n);
    while (sent < n) {
        struct pollfd pfd = {.fd = f->port->tx_fd, .events = POLLOUT};
        if (poll(&pfd, 1, TX_WAIT_MS) <= 0) break;
        size_t more = f->port->ops->tx(f->port, f->tx + sent, n - sent);
        if (more == 0) break;
        sent += more;
    }
    f->port->stats.tx_errors += n - sent;
}

/* How many packets went. */
static size_t send_waiting(struct function *f, when_t now)
{
    size_t sent = 0;
    for (int i = 0; i < BURSTS_PER_ROUND; i++) {
        size_t n = hca_output(f->hca, f->tx, PORT_BURST, now);
        if (n == 0) break;
        sent += n;
        transmit(f, n);
    }
    return sent;
}

/* Also what other functions are to execute, which an answer may wait for. */
static size_t send_all(struct function *f, when_t now)
{
    size_t sent = send_waiting(f, now);

    if (__builtin_expect(f->kin != NULL, 0) && kin_send(f, now)) sent += send_waiting(f, now);
    return sent;
}

/* The worker sleeps until a deadline that may now be too late. While it is away it looks again soon
 * in any case. */
void function_hasten(struct function *f, when_t at)
{
    if (!when_before(at, f->wake_at) || atomic_load(&f->away)) return;
    f->wake_at = at;
    function_ring(f);
}

static void hasten_worker(struct function *f)
{
    function_hasten(f, when_min(hca_deadline(f->hca), hold_deadline(f)));
}

/* What goes on without sockets. */
static void without_port(struct function *f, when_t now)
{
    hca_cq_expire(f->hca, now);
    events_deliver(f);
    function_hasten(f, hca_cq_deadline(f->hca));
}

void function_dirty(struct function *f, when_t now)
{
    if (f->dirty) return;
    f->dirty = true;
    function_hasten(f, when_add(now, SOON_NS));
}

void function_flush(struct function *f, when_t now)
{
    if (__builtin_expect(!f->port, 0)) {
        without_port(f, now);
        return;
    }
    look_at_page(f, now);
    hold_release(f);
    size_t sent = send_all(f, now);
    if (sent) {
        function_dirty(f, now);
        function_touch(f);
    }
    spin_count(&f->spin, sent >= LONG_ROUND ? (uint32_t)sent : 1);
    events_deliver(f);
    hasten_worker(f);
}

bool function_drive(struct function *f, bool by_worker, when_t now)
{
    if (__builtin_expect(!f->port, 0)) {
        without_port(f, now);
        return false;
    }
    look_at_page(f, now);
    f->now = now;
    size_t packets = (size_t)f->port->ops->rx(f->port, take_packet, f);
    bool work = packets > 0;
    if (when_due(hca_deadline(f->hca), now)) {
        hca_expire(f->hca, now);
        work = true;
    }
    if (__builtin_expect(f->kin != NULL, 0) && kin_drive(f, now)) work = true;
    hold_decide(f, by_worker, work, now);
    size_t sent = send_all(f, now);
    if (sent) work = true;
    hold_note(f, now);
    events_deliver(f);
    if (work) {
        if (by_worker)
            f->dirty = true; /* it looks before it sleeps */
        else
            function_dirty(f, now);
        function_touch(f);
    }
    if (!by_worker && packets + sent >= LONG_ROUND)
        spin_count(&f->spin, (uint32_t)(packets + sent));
    publish_if_due(f, now);
    return work;
}

void function_settle(struct function *f, when_t now)
{
    for (int i = 0; i < SETTLE_ROUNDS && function_drive(f, false, now); i++) continue;
    function_flush(f, now);
}

bool function_spin(struct function *f)
{
    /* Before looking, not after: the caller goes by what is true now. */
    if (atomic_load_explicit(&f->idle_spins, memory_order_relaxed) >= IDLE_SPINS) sched_yield();
    when_t now = function_now();

    spin_polled(&f->spin, now);
    /* Another drives, perhaps the worker, and perhaps it has lost its CPU in the middle. */
    for (int i = 0; pthread_mutex_trylock(&f->lock) != 0; i++) {
        if (i == LOCK_TRIES) return true; /* what it completes shows in the CQ */
        sched_yield();
    }
    bool work = !f->dead && function_drive(f, false, now);
    uint32_t idle = atomic_load_explicit(&f->idle_spins, memory_order_relaxed);
    atomic_store_explicit(&f->idle_spins, work ? 0 : idle + 1, memory_order_relaxed);
    if (work) hasten_worker(f);
    pthread_mutex_unlock(&f->lock);
    return work;
}

void function_ring(struct function *f)
{
    uint64_t one = 1;
    ssize_t rc = write(f->doorbell, &one, sizeof one);
    (void)rc; /* full: it rings already */
}

void function_armed(struct function *f)
{
    /* Pairs with worker.c, which judges and then, still under the lock, sets `away`. */
    spin_armed(&f->spin);
    if (atomic_load(&f->away)) function_ring(f);
}

void function_state(struct function *f, struct device_state *state)
{
    lock(f); /* the page goes when there is a new rbondd */
    page_read(f->page, state);
    pthread_mutex_unlock(&f->lock);
}

uint8_t function_mtu(uint32_t l3_mtu)
{
    /* IPv6 40, UDP 8, BTH 12, the largest extended headers 16 (RETH; atomics carry no payload)
     * and immediate 4, ICRC 4. */
    const uint32_t overhead = 40 + 8 + 12 + 16 + 4 + 4;
    uint8_t mtu = IBV_MTU_4096;
    while (mtu > IBV_MTU_256 && (128u << mtu) + overhead > l3_mtu) mtu--;
    return mtu;
}

/* ---- opening ----------------------------------------------------------------------------- */

static int complain(const char *device, const char *what, int error)
{
    fprintf(stderr, "librbond: %s: %s\n", device, what);
    return error;
}

/* Congestion begins at the peer's receive buffer, which is like ours: an unprivileged one holds
 * some 200 KiB, of which the kernel's bookkeeping takes up to half. */
static void set_windows(struct hca_conf *conf, uint32_t rcvbuf)
{
    uint32_t room = rcvbuf < 256u << 10 ? 256u << 10 : rcvbuf > 16u << 20 ? 16u << 20 : rcvbuf;
    conf->max_window = room / 2;
    conf->start_window = room / 4 < 128u << 10 ? room / 4 : 128u << 10;
    conf->inflight_cap = room / 4 * 3;
}

static void *map(int fd, size_t size, int prot)
{
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0 || (uint64_t)st.st_size < size) return NULL;
    void *at = mmap(NULL, size, prot, MAP_SHARED, fd, 0);
    return at == MAP_FAILED ? NULL : at;
}

int function_take(struct ctl_reply *reply, const struct ctl_opened *opened,
                  struct function_parts *parts)
{
    const uint32_t ntx = opened->ntx;

    *parts = (struct function_parts){0};
    if (ntx == 0 || ntx > CTL_TX_SOCKETS || reply->nfds != 3 + ntx) return -EPROTO;
    if (opened->function >= 1u << HCA_FUNCTION_BITS) return -EPROTO;
    parts->page = map(reply->fds[0], sizeof *parts->page, PROT_READ);
    parts->out = map(reply->fds[1], sizeof *parts->out, PROT_READ | PROT_WRITE);
    if (parts->page && parts->out) {
        for (size_t i = 2; i < reply->nfds; i++) fcntl(reply->fds[i], F_SETFD, FD_CLOEXEC);
        parts->port = port_udp_new((uint16_t)opened->function, reply->fds[2], &reply->fds[3], ntx);
    }
    if (!parts->port) {
        int rc = parts->page && parts->out ? -ENOMEM : -EPROTO;
        if (parts->page) munmap((void *)parts->page, sizeof *parts->page);
        if (parts->out) munmap(parts->out, sizeof *parts->out);
        return rc;
    }
    for (size_t i = 2; i < reply->nfds; i++) reply->fds[i] = -1; /* the port's now */
    return 0;
}

void function_refit(struct function *f, const struct function_parts *parts)
{
    function_touch(f); /* in the old page, which children have */
    munmap((void *)f->page, sizeof *f->page);
    munmap(f->out, sizeof *f->out);
    f->page = parts->page;
    f->out = parts->out;
    f->port = parts->port;
    f->memberships = 0; /* in the new page; mcast_follow joins again */
    follow_page(f, function_now());
}

static int ask(struct function *f, const char *device)
{
    struct ctl_name name = {0};
    struct function_parts parts;
    struct ctl_reply reply;

    int rc = ctl_connect(&f->ctl, NULL);
    if (rc) return complain(device, "no rbondd answers", rc);
    snprintf(name.name, sizeof name.name, "%s", device);
    rc = ctl_call(f->ctl, CTL_OPEN, &name, sizeof name, sizeof f->opened, &reply);
    if (rc) {
        complain(device, reply.error, rc);
    } else if (reply.count != 1) {
        rc = complain(device, "rbondd's answer is malformed", -EPROTO);
    } else {
        memcpy(&f->opened, reply.records, sizeof f->opened);
        rc = function_take(&reply, &f->opened, &parts);
        f->page = parts.page;
        f->out = parts.out;
        f->port = parts.port;
        if (rc) complain(device, "rbondd's descriptors are not as expected", rc);
    }
    ctl_reply_free(&reply);
    return rc;
}

static int build(struct function *f)
{
    struct hca_conf conf = {
        .function = (uint16_t)f->opened.function, .seed = f->opened.key_seed, .page_in = pages_in};

    set_windows(&conf, f->opened.rcvbuf);
    f->hca = hca_new(&conf);
    if (!f->hca) return -ENOMEM;
    f->next_bucket = (uint8_t)f->opened.function;
    follow_page(f, function_now());
    f->doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (f->doorbell < 0) return -errno;
    return worker_start(f);
}

int function_open(struct rb_context *ctx, const char *device, struct function **out)
{
    struct function *f = calloc(1, sizeof *f);
    if (!f) return -ENOMEM;
    f->ctx = ctx;
    f->doorbell = f->owner = -1;
    list_init(&f->qps);
    list_init(&f->questions);
    list_init(&f->cqs);
    list_init(&f->imports);
    list_init(&f->exports);
    function_lock_init(f);

    int rc = ask(f, device);
    if (rc == 0) rc = build(f);
    if (rc) {
        function_close(f);
        return rc;
    }
    process_add(f);
    *out = f;
    return 0;
}

void function_close(struct function *f)
{
    process_remove(f);
    if (f->has_worker) worker_stop(f);
    if (f->hca && !f->dead) {
        when_t now = function_now();
        function_flush(f, now);
        publish_now(f, now);
        function_touch(f);
        if (f->ctl) shutdown(ctl_fd(f->ctl), SHUT_RDWR); /* a child may have it, too */
    }
    if (f->owner >= 0) close(f->owner);
    if (f->port) f->port->ops->close(f->port);
    kin_free(f);
    if (f->hca) hca_free(f->hca);
    import_free_all(f);
    if (f->page) munmap((void *)f->page, sizeof *f->page);
    if (f->out) munmap(f->out, sizeof *f->out);
    if (f->ctl) ctl_close(f->ctl);
    if (f->doorbell >= 0) close(f->doorbell);
    pthread_mutex_destroy(&f->lock);
    free(f);
}
