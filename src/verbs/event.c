/* Async and completion events: pipes that carry the kernel's own structs, so that poll(2),
 * O_NONBLOCK and the real library's getters work on them.
 *
 * ibv_destroy_*(3) waits until every event that was got has been acknowledged. An object counts the
 * events written; destroying it takes those that nobody has read out of the pipe again. */
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/qp_remote.h"
#include "verbs/real.h"
#include <fcntl.h>
#include <rdma/ib_user_verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIPE_BYTES (1 << 20)

/* The reading end blocks unless the program says otherwise; the writing end never does. */
int events_pipe(int fds[2])
{
    if (pipe2(fds, O_CLOEXEC) < 0) return -errno;
    fcntl(fds[1], F_SETPIPE_SZ, PIPE_BYTES); /* beyond the user's quota: 64 KiB as it was */
    fcntl(fds[1], F_SETFL, O_NONBLOCK);
    return 0;
}

/* A second description of the pipe's reading end, which does not block whatever the program has set
 * on its own; changing the program's flags for a moment would reach its other threads. -1 without
 * /proc. */
static int reader_of_our_own(int rd)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", rd);
    return open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
}

/* All records now in the pipe, or NULL. The caller keeps writers out; a reader that comes between
 * waits or finds nothing, as if it had come before them. */
static uint8_t *drain(int rd, size_t size, size_t *n)
{
    uint8_t *all = NULL;
    int fd = reader_of_our_own(rd);

    *n = 0;
    while (fd >= 0) {
        uint8_t *more = realloc(all, (*n + 1) * size);
        if (!more) break;
        all = more;
        if (read(fd, all + *n * size, size) != (ssize_t)size) break;
        ++*n;
    }
    if (fd >= 0) close(fd);
    return all;
}

uint32_t events_purge(int rd, int wr, size_t size, uint64_t element)
{
    size_t n;
    uint32_t purged = 0;
    uint8_t *all = drain(rd, size, &n);

    for (size_t i = 0; i < n; i++) {
        uint64_t its; /* both structs begin with it */
        memcpy(&its, all + i * size, sizeof its);
        if (its == element) {
            purged++;
        } else {
            ssize_t rc = write(wr, all + i * size, size); /* it was in there: there is room */
            (void)rc;
        }
    }
    free(all);
    return purged;
}

/* ---- writing ----------------------------------------------------------------------------- */

static bool put_async(struct rb_context *ctx, uint64_t element, enum ibv_event_type type)
{
    struct ib_uverbs_async_event_desc desc = {.element = element, .event_type = type};
    return write(ctx->async_wr, &desc, sizeof desc) == sizeof desc;
}

static void note_port(struct rb_context *ctx, enum ibv_event_type type)
{
    /* Where both wait, the newer one is what is true. */
    if (type == IBV_EVENT_PORT_ACTIVE || type == IBV_EVENT_PORT_ERR)
        ctx->late_port &= ~(1u << IBV_EVENT_PORT_ACTIVE | 1u << IBV_EVENT_PORT_ERR);
    ctx->late_port |= 1u << type;
}

void events_port(struct function *f, enum ibv_event_type type)
{
    note_port(f->ctx, type);
    list_for_each (node, &f->imports) note_port(container_of(node, struct rb_context, link), type);
    f->ports_late = true;
    events_deliver(f);
}

/* True: all are in the pipe. */
static bool deliver_port(struct rb_context *ctx)
{
    for (uint32_t left = ctx->late_port; left; left &= left - 1) {
        enum ibv_event_type type = (enum ibv_event_type)__builtin_ctz(left);
        if (put_async(ctx, 1, type)) ctx->late_port &= ~(1u << type);
    }
    return ctx->late_port == 0;
}

static void deliver_ports(struct function *f)
{
    bool all = deliver_port(f->ctx);
    list_for_each (node, &f->imports)
        all &= deliver_port(container_of(node, struct rb_context, link));
    f->ports_late = !all;
}

static void deliver_qp(struct function *f, struct rb_qp *qp)
{
    struct rb_context *ctx = rb_context(qp->ex.qp_base.context);
    if (qp->stands_for && qp->late && qp_remote_tell(f, qp, qp->late)) qp->late = 0;
    for (uint32_t left = qp->stands_for ? 0 : qp->late; left; left &= left - 1) {
        enum ibv_event_type type = (enum ibv_event_type)__builtin_ctz(left);
        if (!put_async(ctx, (uintptr_t)qp_public(qp), type)) break;
        qp->late &= ~(1u << type);
        qp->async_events++;
    }
    if (qp->late) f->qps_late = true;
}

/* Each handle of an XRC target hears of its events, by its own context's pipe. */
void events_qp(struct function *f, struct rb_qp *qp, uint32_t events)
{
    qp->late |= events;
    deliver_qp(f, qp);
    list_for_each (node, &qp->handles) {
        struct rb_qp *other = container_of(node, struct rb_qp, handles);
        other->late |= events;
        deliver_qp(f, other);
    }
}

static void retry_qps(struct function *f)
{
    f->qps_late = false;
    list_for_each (node, &f->qps) events_qp(f, container_of(node, struct rb_qp, link), 0);
}

static bool deliver_async(struct function *f, const struct hca_event *event)
{
    uint64_t element = (uintptr_t)event->owner; /* public structs come first in ours */
    bool of_cq = event->type == HCA_EVENT_CQ_ERR;
    if (!of_cq && event->type != HCA_EVENT_SRQ_ERR && event->type != HCA_EVENT_SRQ_LIMIT_REACHED) {
        events_qp(f, event->owner, 1u << event->type);
        return true;
    }
    struct ibv_context *context = of_cq ? ((struct rb_cq *)event->owner)->ex.context
                                        : ((struct ibv_srq *)event->owner)->context;
    if (!put_async(rb_context(context), element, (enum ibv_event_type)event->type)) return false;
    if (of_cq)
        ((struct rb_cq *)event->owner)->async_events++;
    else
        ((struct rb_srq *)event->owner)->async_events++;
    return true;
}

static void deliver_completion(struct function *f, struct rb_cq *cq)
{
    struct rb_channel *channel = rb_channel(cq->ex.channel);
    if (!channel) return;
    if (channel_put(channel, cq) == 0) {
        cq->comp_events++;
    } else {
        cq->unsent++;
        f->unsent = true;
    }
}

static void retry_unsent(struct function *f)
{
    f->unsent = false;
    list_for_each (node, &f->cqs) {
        struct rb_cq *cq = container_of(node, struct rb_cq, link);
        while (cq->unsent && channel_put(rb_channel(cq->ex.channel), cq) == 0) {
            cq->unsent--;
            cq->comp_events++;
        }
        if (cq->unsent) f->unsent = true;
    }
}

/* Until the pipe is full: what does not fit waits, in order, in the adapter. */
static void deliver_all_async(struct function *f)
{
    if (f->ports_late) deliver_ports(f);
    if (f->qps_late) retry_qps(f);
    while (f->is_late || hca_next_event(f->hca, &f->late)) {
        f->is_late = !deliver_async(f, &f->late);
        if (f->is_late) break;
    }
    if (f->is_late || f->ports_late || f->qps_late) f->unsent = true;
}

void events_deliver(struct function *f)
{
    void *cq;

    if (f->unsent) retry_unsent(f);
    while ((cq = hca_next_notified(f->hca))) deliver_completion(f, cq);
    deliver_all_async(f);
    /* Nobody tells of room in a pipe: the worker looks. */
    if (f->unsent) function_hasten(f, when_add(function_now(), SOON_NS));
}

uint32_t events_purge_async(struct function *f, struct rb_context *ctx, const void *object)
{
    if (f->is_late && f->late.owner == object) f->is_late = false;
    return events_purge(ctx->v.context.async_fd, ctx->async_wr,
                        sizeof(struct ib_uverbs_async_event_desc), (uintptr_t)object);
}

/* ---- reading ----------------------------------------------------------------------------- */

EXPORT int ibv_get_async_event(struct ibv_context *context, struct ibv_async_event *event)
{
    struct ib_uverbs_async_event_desc desc;

    if (!context_is_ours(context)) return REAL(ibv_get_async_event, "IBVERBS_1.1")(context, event);
    if (read(context->async_fd, &desc, sizeof desc) != sizeof desc) return -1;
    function_consumed(rb_context(context)->f);
    event->event_type = desc.event_type;
    switch (desc.event_type) {
    case IBV_EVENT_CQ_ERR: event->element.cq = (void *)(uintptr_t)desc.element; break;
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
    case IBV_EVENT_COMM_EST:
    case IBV_EVENT_SQ_DRAINED:
    case IBV_EVENT_QP_LAST_WQE_REACHED: event->element.qp = (void *)(uintptr_t)desc.element; break;
    case IBV_EVENT_SRQ_ERR:
    case IBV_EVENT_SRQ_LIMIT_REACHED: event->element.srq = (void *)(uintptr_t)desc.element; break;
    default: event->element.port_num = (int)desc.element; break;
    }
    return 0;
}

static void acknowledge(struct ibv_context *context, pthread_mutex_t *mutex, pthread_cond_t *cond,
                        uint32_t *completed)
{
    if (context_is_ours(context)) function_consumed(rb_context(context)->f);
    pthread_mutex_lock(mutex);
    ++*completed;
    pthread_cond_signal(cond);
    pthread_mutex_unlock(mutex);
}

/* Counts in public fields, the same for real objects; WQs alone are the real library's. */
EXPORT void ibv_ack_async_event(struct ibv_async_event *event)
{
    struct ibv_cq *cq = event->element.cq;
    struct ibv_qp *qp = event->element.qp;
    struct ibv_srq *srq = event->element.srq;

    switch (event->event_type) {
    case IBV_EVENT_CQ_ERR:
        acknowledge(cq->context, &cq->mutex, &cq->cond, &cq->async_events_completed);
        break;
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
    case IBV_EVENT_COMM_EST:
    case IBV_EVENT_SQ_DRAINED:
    case IBV_EVENT_PATH_MIG:
    case IBV_EVENT_PATH_MIG_ERR:
    case IBV_EVENT_QP_LAST_WQE_REACHED:
        acknowledge(qp->context, &qp->mutex, &qp->cond, &qp->events_completed);
        break;
    case IBV_EVENT_SRQ_ERR:
    case IBV_EVENT_SRQ_LIMIT_REACHED:
        acknowledge(srq->context, &srq->mutex, &srq->cond, &srq->events_completed);
        break;
    case IBV_EVENT_WQ_FATAL: REAL(ibv_ack_async_event, "IBVERBS_1.1")(event); break;
    default: break; /* of the port or device: nothing waits for it */
    }
}
