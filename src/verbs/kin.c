/* See kin.h. What comes by a line is another process's word: sizes and version are looked at here,
 * the rest by the adapter.
 *
 * A line is for calls one way and their answers back. An answer that finds no room is kept, and no
 * further call taken from that line until it has gone; answers are always taken. So two functions
 * that call each other at once cannot wait for each other. */
#include "verbs/kin.h"
#include "hca/call.h"
#include "verbs/function.h"
#include "verbs/line.h"
#include "verbs/qp_remote.h"
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* Messages of a line in a round: others have their turn, and the lock is let go. */
#define MESSAGES_AT_ONCE 64
#define LINES_AT_ONCE 16
#define RENEW_NS (200 * MS_NS)
/* How long rbondd may take to name those who take part, and how often to look. */
#define PATIENCE_NS (2 * SEC_NS)
#define LOOK_MS 2

/* What the epoll instance tells of. */
struct ear {
    enum { EAR_CLAIM, EAR_CALL, EAR_SERVE } kind;
    void *of;
    int fd; /* -1: not listened to */
};

struct kin_share {
    struct list node; /* in kinship.shares */
    uint32_t xrcd;
    int file;                 /* what the share is claimed by */
    struct ctl_client *claim; /* NULL: rbondd has gone, or forgot us */
    struct ear ear;
    bool introduced; /* to all who took part before */
    struct list kin;
};

struct kin {
    struct list node; /* in kin_share.kin, or kinship.dead */
    struct kin_share *share;
    uint16_t function;
    struct ear call, serve; /* the two lines */
    bool call_full;
    void *stuck; /* an answer that waits for room */
    size_t stuck_len;
};

struct kinship {
    int epoll;
    struct list shares, dead;
    bool driving;
    _Atomic bool unclaimed; /* some share has lost its claim */
    when_t renew_at;
    union {
        struct call_msg call;
        struct answer_msg answer;
        struct kin_note note;
        uint8_t bytes[sizeof(struct call_msg) + HCA_CALL_DATA];
    } in;
};

/* ---- ears ---------------------------------------------------------------------------------- */

static int listen_to(struct kinship *ks, struct ear *ear, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = ear};
    return epoll_ctl(ks->epoll, EPOLL_CTL_ADD, ear->fd, &ev);
}

static void listen_for(struct kinship *ks, struct ear *ear, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = ear};
    epoll_ctl(ks->epoll, EPOLL_CTL_MOD, ear->fd, &ev);
}

/* Parent and forked child have one epoll instance, and lines that are the parent's. */
static void hang_up(struct function *f, struct ear *ear)
{
    if (ear->fd < 0) return;
    if (!f->dead) {
        epoll_ctl(f->kin->epoll, EPOLL_CTL_DEL, ear->fd, NULL);
        shutdown(ear->fd, SHUT_RDWR);
    }
    if (ear->kind != EAR_CLAIM) close(ear->fd);
    ear->fd = -1;
}

/* ---- life ---------------------------------------------------------------------------------- */

/* Its memory stays until the round is over, in which it may have been listened to. */
static void kin_end(struct function *f, struct kin *k)
{
    hang_up(f, &k->call);
    hang_up(f, &k->serve);
    list_del(&k->node);
    list_add_tail(&f->kin->dead, &k->node);
}

static void bury(struct kinship *ks)
{
    while (!list_empty(&ks->dead)) {
        struct kin *k = container_of(ks->dead.next, struct kin, node);
        list_del(&k->node);
        free(k->stuck);
        free(k);
    }
}

static void lose_claim(struct function *f, struct kin_share *s)
{
    if (!s->claim) return;
    hang_up(f, &s->ear);
    ctl_close(s->claim);
    s->claim = NULL;
}

static int keep_claim(struct function *f, struct kin_share *s, struct ctl_client *claim)
{
    s->ear = (struct ear){.kind = EAR_CLAIM, .of = s, .fd = ctl_fd(claim)};
    if (listen_to(f->kin, &s->ear, EPOLLIN) != 0) return -errno;
    s->claim = claim;
    return 0;
}

static struct kinship *kinship_new(void)
{
    struct kinship *ks = calloc(1, sizeof *ks);
    if (!ks) return NULL;
    list_init(&ks->shares);
    list_init(&ks->dead);
    ks->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (ks->epoll >= 0) return ks;
    free(ks);
    return NULL;
}

struct kin_share *kin_join(struct function *f, uint32_t xrcd, struct ctl_client *claim, int file)
{
    if (!f->kin) f->kin = kinship_new();
    struct kin_share *s = f->kin ? calloc(1, sizeof *s) : NULL;
    if (!s) return NULL;
    s->xrcd = xrcd;
    s->file = file;
    list_init(&s->kin);
    if (keep_claim(f, s, claim) < 0) {
        free(s);
        return NULL;
    }
    list_add_tail(&f->kin->shares, &s->node);
    function_ring(f); /* the worker listens from now on */
    return s;
}

static void share_free(struct function *f, struct kin_share *s)
{
    lose_claim(f, s);
    list_for_each_safe (node, tmp, &s->kin) kin_end(f, container_of(node, struct kin, node));
    bury(f->kin);
    list_del(&s->node);
    close(s->file);
    free(s);
}

void kin_leave(struct function *f, struct kin_share *s)
{
    when_t now = function_now();

    kin_send(f, now);
    f->kin->driving = true; /* what follows must not */
    while (!list_empty(&s->kin)) {
        struct kin *k = container_of(s->kin.next, struct kin, node);
        kin_end(f, k);
        hca_function_gone(f->hca, s->xrcd, k->function, now);
        qp_remote_gone(f, s->xrcd, k->function);
    }
    f->kin->driving = false;
    share_free(f, s);
}

void kin_free(struct function *f)
{
    if (!f->kin) return;
    qp_remote_free(f);
    while (!list_empty(&f->kin->shares))
        share_free(f, container_of(f->kin->shares.next, struct kin_share, node));
    close(f->kin->epoll);
    free(f->kin);
    f->kin = NULL;
}

int kin_fd(const struct function *f) { return f->kin ? f->kin->epoll : -1; }

/* ---- calls out ----------------------------------------------------------------------------- */

static struct kin *find(const struct function *f, uint32_t xrcd, uint16_t function)
{
    list_for_each (node, &f->kin->shares) {
        struct kin_share *s = container_of(node, struct kin_share, node);
        if (s->xrcd != xrcd) continue;
        list_for_each (n, &s->kin) {
            struct kin *k = container_of(n, struct kin, node);
            if (k->function == function) return k;
        }
    }
    return NULL;
}

/* 0, -EAGAIN, or another negative errno. */
static int put(int fd, struct iovec *iov, size_t n)
{
    struct msghdr mh = {.msg_iov = iov, .msg_iovlen = n};
    ssize_t rc;

    do rc = sendmsg(fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (rc < 0 && errno == EINTR);
    return rc >= 0 ? 0 : errno == EWOULDBLOCK ? -EAGAIN : -errno;
}

static int send_call(const struct kin *k, const struct hca_call *call)
{
    struct call_msg m = {.version = LINE_VERSION,
                         .kind = (uint16_t)call->kind,
                         .qpn = call->qpn,
                         .epoch = call->epoch};
    struct iovec iov[2] = {{&m, sizeof m}};
    size_t n = 1;

    if (call->kind == HCA_CALL_REQUEST) {
        m.src_qpn = call->src_qpn;
        m.access = call->access;
        m.mtu = call->mtu;
        m.min_rnr_timer = call->min_rnr_timer;
        m.hdr_len = call->hdr_len;
        memcpy(m.hdr, call->hdr, call->hdr_len);
        iov[n++] = (struct iovec){(void *)call->payload, call->len};
    } else if (call->kind == HCA_CALL_READ) {
        m.va = call->va;
        m.srqn = call->srqn;
        m.rkey = call->rkey;
        m.bytes = call->bytes;
    } else {
        m.failed = call->failed;
    }
    return put(k->call.fd, iov, n);
}

static void part_with(struct function *f, struct kin *k, when_t now);

static void wait_for_room(struct function *f, struct kin *k)
{
    if (k->call_full) return;
    k->call_full = true;
    listen_for(f->kin, &k->call, EPOLLIN | EPOLLOUT);
}

/* -EAGAIN where we wait for room already: the order of calls is the line's. */
static int try_call(struct function *f, struct kin *k, const struct hca_call *call)
{
    int rc = k->call_full ? -EAGAIN : send_call(k, call);
    if (rc == -EAGAIN) wait_for_room(f, k);
    return rc;
}

/* A function that we have not heard of yet may have been introduced just now. */
static struct kin *meet(struct function *f, uint32_t xrcd, uint16_t function, when_t now);

bool kin_send(struct function *f, when_t now)
{
    struct hca_call call;
    bool changed = false;

    while (hca_next_call(f->hca, &call)) {
        struct kin *k = meet(f, call.xrcd, call.function, now);
        int rc = k ? try_call(f, k, &call) : -ENOENT;
        if (rc == 0) {
            hca_call_sent(f->hca, &call);
        } else if (rc == -EAGAIN) {
            hca_call_full(f->hca, &call);
        } else {
            hca_call_lost(f->hca, &call, now);
            if (k) part_with(f, k, now);
            changed = true;
        }
    }
    return changed;
}

int kin_put_note(struct function *f, uint32_t xrcd, uint16_t function, struct kin_note *note)
{
    struct kin *k = f->kin ? find(f, xrcd, function) : NULL;
    struct iovec iov = {note, sizeof *note};

    if (!k && f->kin && note->kind == KIN_QP_OPEN) k = meet(f, xrcd, function, function_now());
    if (!k) return -ENOENT;
    note->version = LINE_VERSION;
    int rc = k->call_full ? -EAGAIN : put(k->call.fd, &iov, 1);
    if (rc == -EAGAIN) wait_for_room(f, k);
    return rc == 0 || rc == -EAGAIN ? rc : -ENOENT; /* its end is heard of elsewhere */
}

/* ---- what comes ---------------------------------------------------------------------------- */

/* Bytes of a message; -EAGAIN: none; another negative errno: the line is at its end. */
static ssize_t get(struct kinship *ks, int fd, size_t least)
{
    struct iovec iov = {&ks->in, sizeof ks->in};
    struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    do n = recvmsg(fd, &mh, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0) return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    if ((size_t)n < least || (mh.msg_flags & MSG_TRUNC) || ks->in.call.version != LINE_VERSION)
        return -ECONNRESET;
    return n;
}

static int take_answer(struct function *f, struct kin *k, when_t now)
{
    const struct answer_msg *m = &f->kin->in.answer;
    ssize_t n = get(f->kin, k->call.fd, sizeof *m);
    if (n < 0) return (int)n;
    if (m->kind >= KIN_QP_OPEN) {
        if ((size_t)n != sizeof(struct kin_note)) return -ECONNRESET;
        qp_remote_answered(f, k->function, &f->kin->in.note);
        return 0;
    }

    struct hca_answer a = {.kind = (enum hca_call_kind)m->kind, .qpn = m->qpn, .epoch = m->epoch};
    if (a.kind == HCA_CALL_READ) {
        a.bytes = m->bytes;
        a.pieces = 1;
        a.piece[0] = (struct iovec){f->kin->in.bytes + sizeof *m, (size_t)n - sizeof *m};
    } else {
        a.psn = psn_of(m->psn);
        a.syndrome = m->syndrome;
        a.fatal = m->fatal;
        a.event = m->event;
        a.result = m->result;
    }
    hca_answer_input(f->hca, k->share->xrcd, k->function, &a, now);
    return 0;
}

static size_t gather(const struct hca_answer *a, struct answer_msg *m, struct iovec *iov)
{
    size_t n = 1;

    *m = (struct answer_msg){
        .version = LINE_VERSION, .kind = (uint16_t)a->kind, .qpn = a->qpn, .epoch = a->epoch};
    iov[0] = (struct iovec){m, sizeof *m};
    if (a->kind == HCA_CALL_READ) {
        m->bytes = a->bytes;
        for (uint32_t i = 0; i < a->pieces; i++) iov[n++] = a->piece[i];
    } else {
        m->psn = a->psn.v;
        m->syndrome = a->syndrome;
        m->fatal = a->fatal;
        m->event = a->event;
        m->result = a->result;
    }
    return n;
}

static int keep_stuck(struct function *f, struct kin *k, const struct iovec *iov, size_t n)
{
    size_t len = 0;

    for (size_t i = 0; i < n; i++) len += iov[i].iov_len;
    uint8_t *at = k->stuck = malloc(len);
    if (!at) return -ENOMEM;
    k->stuck_len = len;
    for (size_t i = 0; i < n; at += iov[i++].iov_len) memcpy(at, iov[i].iov_base, iov[i].iov_len);
    listen_for(f->kin, &k->serve, EPOLLOUT);
    return -EAGAIN; /* no further call for now */
}

static int send_answer(struct function *f, struct kin *k, struct hca_answer *a)
{
    struct iovec iov[1 + HCA_CALL_PIECES];
    struct answer_msg m;

    size_t n = gather(a, &m, iov);
    int rc = put(k->serve.fd, iov, n);
    if (rc == -EFAULT) { /* the program has unmapped what it has registered */
        a->bytes = a->pieces = 0;
        n = gather(a, &m, iov);
        rc = put(k->serve.fd, iov, n);
    }
    return rc == -EAGAIN ? keep_stuck(f, k, iov, n) : rc;
}

/* What it asks may drive the function, and with it the lines: the note is copied first. */
static int take_note(struct function *f, struct kin *k, size_t n)
{
    const struct kin_note note = f->kin->in.note;
    struct kin_note answer;
    struct iovec iov = {&answer, sizeof answer};

    if (n != sizeof note) return -ECONNRESET;
    if (!qp_remote_serve(f, k->share->xrcd, k->function, &note, &answer)) return 0;
    if (k->serve.fd < 0) return 0;
    answer.version = LINE_VERSION;
    int rc = put(k->serve.fd, &iov, 1);
    return rc == -EAGAIN ? keep_stuck(f, k, &iov, 1) : rc;
}

static int take_call(struct function *f, struct kin *k, when_t now)
{
    const struct call_msg *m = &f->kin->in.call;
    struct hca_answer answer;
    ssize_t n = get(f->kin, k->serve.fd, sizeof *m);
    if (n < 0) return (int)n;
    if (m->kind >= KIN_QP_OPEN) return take_note(f, k, (size_t)n);

    struct hca_call call = {.kind = (enum hca_call_kind)m->kind, .qpn = m->qpn, .epoch = m->epoch};
    if (call.kind == HCA_CALL_REQUEST) {
        call.src_qpn = m->src_qpn;
        call.access = m->access;
        call.mtu = m->mtu;
        call.min_rnr_timer = m->min_rnr_timer;
        call.hdr_len = m->hdr_len;
        memcpy(call.hdr, m->hdr, sizeof call.hdr);
        call.payload = f->kin->in.bytes + sizeof *m;
        call.len = (uint32_t)((size_t)n - sizeof *m);
    } else if (call.kind == HCA_CALL_READ) {
        call.va = m->va;
        call.srqn = m->srqn;
        call.rkey = m->rkey;
        call.bytes = m->bytes;
    } else {
        call.failed = m->failed;
    }
    if (!hca_call_input(f->hca, k->share->xrcd, k->function, &call, &answer, now)) return 0;
    return send_answer(f, k, &answer);
}

static int send_stuck(struct function *f, struct kin *k)
{
    struct iovec iov = {k->stuck, k->stuck_len};

    int rc = put(k->serve.fd, &iov, 1);
    if (rc) return rc;
    free(k->stuck);
    k->stuck = NULL;
    listen_for(f->kin, &k->serve, EPOLLIN);
    return -EAGAIN; /* what waits is told of again */
}

/* ---- the end of a line --------------------------------------------------------------------- */

/* The other function ended, or speaks what we do not. */
static void part_with(struct function *f, struct kin *k, when_t now)
{
    uint32_t xrcd = k->share->xrcd;
    uint16_t function = k->function;

    if (k->call.fd < 0) return;
    while (take_answer(f, k, now) == 0) continue; /* what it said before counts */
    kin_end(f, k);
    hca_function_gone(f->hca, xrcd, function, now);
    hca_calls_resume(f->hca);
    qp_remote_gone(f, xrcd, function);
}

/* ---- introductions ------------------------------------------------------------------------- */

static bool is_live(const struct kin *k)
{
    struct pollfd pfd = {.fd = k->call.fd, .events = POLLRDHUP};
    return poll(&pfd, 1, 0) == 0;
}

static void add(struct function *f, struct kin_share *s, uint16_t function, const int fds[2])
{
    struct kin *k = calloc(1, sizeof *k);
    if (k) {
        k->share = s;
        k->function = function;
        k->call = (struct ear){EAR_CALL, k, fds[0]};
        k->serve = (struct ear){EAR_SERVE, k, fds[1]};
        list_add_tail(&s->kin, &k->node);
        if (listen_to(f->kin, &k->call, EPOLLIN) == 0 && listen_to(f->kin, &k->serve, EPOLLIN) == 0)
            return;
        kin_end(f, k);
        return;
    }
    close(fds[0]);
    close(fds[1]);
}

/* A new rbondd introduces again who have known each other all along: they keep their lines. */
static void introduced(struct function *f, struct kin_share *s, uint16_t function, const int fds[2],
                       when_t now)
{
    struct kin *known = find(f, s->xrcd, function);
    if (known && is_live(known)) {
        close(fds[0]);
        close(fds[1]);
        return;
    }
    if (known) part_with(f, known, now); /* its number is another's now */
    add(f, s, function, fds);
}

static void listen_to_claim(struct function *f, struct kin_share *s, when_t now)
{
    struct ctl_event event;
    int fds[CTL_MAX_FDS], rc = 0;
    size_t nfds;

    while (s->claim && (rc = ctl_next_event_with(s->claim, &event, fds, &nfds)) == 1) {
        if (event.type == CTL_EV_XRC_PEER && nfds == 2 && event.value < 1u << HCA_FUNCTION_BITS) {
            introduced(f, s, (uint16_t)event.value, fds, now);
            continue;
        }
        if (event.type == CTL_EV_XRC_PEER && nfds == 0) s->introduced = true;
        for (size_t i = 0; i < nfds; i++) close(fds[i]);
    }
    if (rc < 0) {
        lose_claim(f, s);
        f->kin->unclaimed = true;
    }
}

void kin_await_introductions(struct function *f, struct kin_share *s)
{
    when_t now = function_now(), until = when_add(now, PATIENCE_NS);

    for (;; now = function_now()) {
        listen_to_claim(f, s, now);
        if (s->introduced || !s->claim || when_due(until, now)) return;
        struct pollfd pfd = {.fd = s->ear.fd, .events = POLLIN};
        pthread_mutex_unlock(&f->lock);
        poll(&pfd, 1, LOOK_MS); /* the worker may hear it first */
        pthread_mutex_lock(&f->lock);
    }
}

static struct kin *meet(struct function *f, uint32_t xrcd, uint16_t function, when_t now)
{
    struct kin *k = find(f, xrcd, function);
    if (k) return k;
    list_for_each (node, &f->kin->shares) {
        struct kin_share *s = container_of(node, struct kin_share, node);
        if (s->xrcd == xrcd) listen_to_claim(f, s, now);
    }
    return find(f, xrcd, function);
}

/* ---- driving ------------------------------------------------------------------------------- */

static void hear_answers(struct function *f, struct kin *k, uint32_t events, when_t now)
{
    int rc = 0;

    for (int i = 0; i < MESSAGES_AT_ONCE && rc == 0; i++) rc = take_answer(f, k, now);
    if (rc < 0 && rc != -EAGAIN) {
        part_with(f, k, now);
    } else if (events & EPOLLOUT) {
        k->call_full = false;
        listen_for(f->kin, &k->call, EPOLLIN);
        hca_calls_resume(f->hca);
    }
}

static void hear_calls(struct function *f, struct kin *k, when_t now)
{
    int rc = k->stuck ? send_stuck(f, k) : 0;

    for (int i = 0; i < MESSAGES_AT_ONCE && rc == 0; i++) rc = take_call(f, k, now);
    if (rc < 0 && rc != -EAGAIN) part_with(f, k, now);
}

static void hear(struct function *f, struct ear *ear, uint32_t events, when_t now)
{
    if (ear->fd < 0) return; /* hung up in this round */
    switch (ear->kind) {
    case EAR_CLAIM: listen_to_claim(f, ear->of, now); break;
    case EAR_CALL: hear_answers(f, ear->of, events, now); break;
    case EAR_SERVE: hear_calls(f, ear->of, now); break;
    }
}

bool kin_drive(struct function *f, when_t now)
{
    struct epoll_event ev[LINES_AT_ONCE];

    if (list_empty(&f->kin->shares) || f->kin->driving) return false;
    f->kin->driving = true;
    int n = epoll_wait(f->kin->epoll, ev, LINES_AT_ONCE, 0);
    for (int i = 0; i < n; i++) hear(f, ev[i].data.ptr, ev[i].events, now);
    bool changed = kin_send(f, now);
    bury(f->kin);
    f->kin->driving = false;
    return n > 0 || changed;
}

/* ---- claims -------------------------------------------------------------------------------- */

int kin_claim(const struct function *f, int file, uint32_t flags, struct ctl_client **claim)
{
    struct ctl_xrcd xrcd = {.function = f->opened.function, .flags = flags};
    struct ctl_reply reply;

    int rc = ctl_connect(claim, NULL);
    if (rc) return -rc;
    rc = -ctl_call_with(*claim, CTL_XRCD, &xrcd, sizeof xrcd, file, 0, &reply);
    ctl_reply_free(&reply);
    if (rc) ctl_close(*claim);
    return rc;
}

static struct kin_share *first_unclaimed(const struct function *f)
{
    list_for_each (node, &f->kin->shares) {
        struct kin_share *s = container_of(node, struct kin_share, node);
        if (!s->claim) return s;
    }
    return NULL;
}

when_t kin_renew_at(const struct function *f)
{
    return f->kin && f->ctl && f->kin->unclaimed ? f->kin->renew_at : NEVER;
}

void kin_renew(struct function *f, when_t now)
{
    struct ctl_client *claim;
    struct kin_share *s;

    pthread_mutex_lock(&f->lock);
    bool due = when_due(kin_renew_at(f), now);
    s = due ? first_unclaimed(f) : NULL;
    int file = s ? dup(s->file) : -1;
    uint32_t xrcd = s ? s->xrcd : 0;
    if (due) f->kin->renew_at = when_add(now, RENEW_NS);
    if (due && !s) f->kin->unclaimed = false;
    pthread_mutex_unlock(&f->lock);
    if (file < 0) return;
    int rc = kin_claim(f, file, CTL_XRCD_CREATE, &claim);
    close(file);
    if (rc) return;
    pthread_mutex_lock(&f->lock);
    s = first_unclaimed(f); /* it may have been left meanwhile */
    if (!s || s->xrcd != xrcd || keep_claim(f, s, claim) < 0) ctl_close(claim);
    f->kin->renew_at = now; /* the next one */
    pthread_mutex_unlock(&f->lock);
}
