/* Opening and closing a device: one context is one function. */
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/mr.h"
#include "verbs/real.h"
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static void fill_ops(struct verbs_context *v)
{
    v->context.ops.poll_cq = rb_poll_cq;
    v->context.ops.req_notify_cq = rb_req_notify_cq;
    v->context.ops.post_send = rb_post_send;
    v->context.ops.post_recv = rb_post_recv;
    v->context.ops.post_srq_recv = rb_post_srq_recv;
    v->context.ops.alloc_mw = rb_alloc_mw;
    v->context.ops.bind_mw = rb_bind_mw;
    v->context.ops.dealloc_mw = rb_dealloc_mw;
    v->query_port = rb_query_port;
    v->query_device_ex = rb_query_device_ex;
    v->query_rt_values = rb_query_rt_values;
    v->create_cq_ex = rb_create_cq_ex;
    v->create_qp_ex = rb_create_qp_ex;
    v->create_srq_ex = rb_create_srq_ex;
    v->modify_cq = rb_modify_cq;
    v->modify_qp_rate_limit = rb_modify_qp_rate_limit;
    v->alloc_td = rb_alloc_td;
    v->dealloc_td = rb_dealloc_td;
    v->alloc_parent_domain = rb_alloc_parent_domain;
    v->get_srq_num = rb_get_srq_num;
    v->open_xrcd = rb_open_xrcd;
    v->close_xrcd = rb_close_xrcd;
    v->open_qp = rb_open_qp;
    v->alloc_null_mr = rb_alloc_null_mr;
    v->advise_mr = rb_advise_mr;
    v->alloc_dm = rb_alloc_dm;
    v->free_dm = rb_free_dm;
    v->reg_dm_mr = rb_reg_dm_mr;
    refuse_the_rest(v);
}

static void context_free(struct rb_context *ctx)
{
    struct ibv_context *c = &ctx->v.context;

    if (ctx->f) function_close(ctx->f);
    if (c->async_fd >= 0) close(c->async_fd);
    if (ctx->async_wr >= 0) close(ctx->async_wr);
    if (c->cmd_fd >= 0) close(c->cmd_fd);
    pthread_mutex_destroy(&c->mutex);
    free(ctx);
}

void context_release(struct rb_context *ctx)
{
    if (atomic_fetch_sub(&ctx->holds, 1) == 1) context_free(ctx);
}

EXPORT struct ibv_context *ibv_open_device(struct ibv_device *device)
{
    int fds[2];
    if (!device_is_ours(device)) return REAL(ibv_open_device, "IBVERBS_1.1")(device);

    struct rb_context *ctx = calloc(1, sizeof *ctx);
    if (!ctx) return fail_with(ENOMEM);
    struct ibv_context *c = &ctx->v.context;
    c->device = device;
    c->async_fd = ctx->async_wr = -1;
    c->abi_compat = __VERBS_ABI_IS_EXTENDED;
    c->num_comp_vectors = 1;
    ctx->v.sz = sizeof ctx->v;
    atomic_init(&ctx->handles, 1);
    atomic_init(&ctx->holds, 1);
    pthread_mutex_init(&c->mutex, NULL);
    fill_ops(&ctx->v);

    c->cmd_fd = open("/dev/null", O_RDWR | O_CLOEXEC); /* programs set flags on it */
    int rc = c->cmd_fd < 0 ? -errno : events_pipe(fds);
    if (rc == 0) {
        c->async_fd = fds[0];
        ctx->async_wr = fds[1];
        rc = function_open(ctx, device->name, &ctx->f);
    }
    if (rc) {
        context_free(ctx);
        return fail_with(rc);
    }
    return c;
}

EXPORT int ibv_close_device(struct ibv_context *context)
{
    if (!context_is_ours(context)) return REAL(ibv_close_device, "IBVERBS_1.1")(context);
    context_release(rb_context(context));
    return 0;
}
