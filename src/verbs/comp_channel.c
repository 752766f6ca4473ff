/* Completion channels: a pipe of struct ib_uverbs_comp_event_desc, one per fired CQ. */
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/real.h"
#include <rdma/ib_user_verbs.h>
#include <stdlib.h>
#include <unistd.h>

struct rb_channel *rb_channel(struct ibv_comp_channel *channel)
{
    struct rb_channel *c = container_of(channel, struct rb_channel, ibv);
    return channel && c->tag.magic == RB_CHANNEL ? c : NULL;
}

int channel_put(struct rb_channel *channel, struct rb_cq *cq)
{
    struct ib_uverbs_comp_event_desc desc = {.cq_handle = (uintptr_t)cq_public(cq)};
    return write(channel->wr_fd, &desc, sizeof desc) == sizeof desc ? 0 : -errno;
}

EXPORT struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *context)
{
    int fds[2];
    if (!context_is_ours(context)) return REAL(ibv_create_comp_channel, "IBVERBS_1.0")(context);

    struct rb_channel *channel = calloc(1, sizeof *channel);
    if (!channel) return fail_with(ENOMEM);
    int rc = function_is_dead(rb_context(context)->f) ? EIO : events_pipe(fds);
    if (rc) {
        free(channel);
        return fail_with(rc);
    }
    channel->tag = tag_new(rb_context(context), RB_CHANNEL);
    channel->ibv.context = context;
    channel->ibv.fd = fds[0];
    channel->wr_fd = fds[1];
    return &channel->ibv;
}

EXPORT int ibv_destroy_comp_channel(struct ibv_comp_channel *ibv)
{
    if (!context_is_ours(ibv->context)) return REAL(ibv_destroy_comp_channel, "IBVERBS_1.0")(ibv);

    struct rb_channel *channel = rb_channel(ibv);
    struct ibv_context *context = ibv->context;
    if (!channel) return verb_result(EINVAL);
    pthread_mutex_lock(&context->mutex);
    int refs = ibv->refcnt;
    pthread_mutex_unlock(&context->mutex);
    if (refs) return verb_result(EBUSY);
    close(ibv->fd);
    close(channel->wr_fd);
    channel->tag.magic = 0;
    free(channel);
    return 0;
}

EXPORT int ibv_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **cq_context)
{
    struct ib_uverbs_comp_event_desc desc;

    if (!context_is_ours(channel->context))
        return REAL(ibv_get_cq_event, "IBVERBS_1.1")(channel, cq, cq_context);
    if (read(channel->fd, &desc, sizeof desc) != sizeof desc) return -1;
    function_consumed(rb_context(channel->context)->f);
    *cq = (struct ibv_cq *)(uintptr_t)desc.cq_handle;
    *cq_context = (*cq)->cq_context;
    return 0;
}

EXPORT void ibv_ack_cq_events(struct ibv_cq *cq, unsigned nevents)
{
    if (!context_is_ours(cq->context)) {
        REAL(ibv_ack_cq_events, "IBVERBS_1.1")(cq, nevents);
        return;
    }
    function_consumed(rb_context(cq->context)->f);
    pthread_mutex_lock(&cq->mutex);
    cq->comp_events_completed += nevents;
    pthread_cond_signal(&cq->cond);
    pthread_mutex_unlock(&cq->mutex);
}
