/* Opening and closing a device: one context is one function. Imported ones share theirs. */
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/mr.h"
#include "verbs/process.h"
#include "verbs/real.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
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

/* ---- the command descriptor ---------------------------------------------------------------- */

/* Programs set flags on it, and pass it to ibv_import_device: a memfd, which has an inode of its
 * own and tells what it is also in a process that cannot know ours. */
static const char identity[] = "rbond context";

static pthread_mutex_t contexts_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list contexts = {&contexts, &contexts}; /* rb_context.link: those not imported */

__attribute__((constructor)) static void guard(void) { process_guard(&contexts_lock, NULL); }

static int make_cmd_fd(void)
{
    int fd = memfd_create(identity, MFD_CLOEXEC);
    if (fd < 0) return -errno;
    if (write(fd, identity, sizeof identity) == sizeof identity) return fd;
    close(fd);
    return -EIO;
}

static bool is_cmd_fd(int fd)
{
    char word[sizeof identity];
    return pread(fd, word, sizeof word, 0) == sizeof word &&
           memcmp(word, identity, sizeof word) == 0;
}

/* The context that the descriptor is of, held once more; NULL: none of this process. */
static struct rb_context *context_of(const struct stat *st)
{
    struct rb_context *found = NULL;

    pthread_mutex_lock(&contexts_lock);
    list_for_each (node, &contexts) {
        struct rb_context *ctx = container_of(node, struct rb_context, link);
        struct stat its;
        if (fstat(ctx->v.context.cmd_fd, &its) != 0 || its.st_dev != st->st_dev ||
            its.st_ino != st->st_ino)
            continue;
        atomic_fetch_add(&ctx->holds, 1);
        found = ctx;
        break;
    }
    pthread_mutex_unlock(&contexts_lock);
    return found;
}

/* ---- life ---------------------------------------------------------------------------------- */

static void enlist(struct rb_context *ctx)
{
    pthread_mutex_lock(&contexts_lock);
    list_add_tail(&contexts, &ctx->link);
    pthread_mutex_unlock(&contexts_lock);
}

static void context_release(struct rb_context *ctx);

static void leave_origin(struct rb_context *ctx)
{
    bool locked = function_lock(ctx->f) == 0; /* a forked child frees its copy */
    list_del(&ctx->link);
    if (locked) function_unlock(ctx->f);
    context_release(ctx->origin);
}

static void context_free(struct rb_context *ctx)
{
    struct ibv_context *c = &ctx->v.context;

    if (ctx->origin) {
        leave_origin(ctx);
    } else if (ctx->f) {
        xrcd_function_gone(ctx->f);
        function_close(ctx->f);
    }
    if (c->async_fd >= 0) close(c->async_fd);
    if (ctx->async_wr >= 0) close(ctx->async_wr);
    if (c->cmd_fd >= 0) close(c->cmd_fd);
    pthread_mutex_destroy(&c->mutex);
    free(ctx);
}

static void context_release(struct rb_context *ctx)
{
    bool last;

    pthread_mutex_lock(&contexts_lock); /* an importer must not find what goes */
    last = atomic_fetch_sub(&ctx->holds, 1) == 1;
    if (last && !ctx->origin) list_del(&ctx->link);
    pthread_mutex_unlock(&contexts_lock);
    if (last) context_free(ctx);
}

/* Without a function yet; takes cmd_fd, which may be a negative errno. */
static int context_new(struct ibv_device *device, int cmd_fd, struct rb_context **out)
{
    int fds[2];
    struct rb_context *ctx = calloc(1, sizeof *ctx);
    if (!ctx) return -ENOMEM;
    struct ibv_context *c = &ctx->v.context;
    list_init(&ctx->link);
    c->device = device;
    c->cmd_fd = cmd_fd;
    c->async_fd = ctx->async_wr = -1;
    c->abi_compat = __VERBS_ABI_IS_EXTENDED;
    c->num_comp_vectors = 1;
    ctx->v.sz = sizeof ctx->v;
    atomic_init(&ctx->handles, 1);
    atomic_init(&ctx->holds, 1);
    pthread_mutex_init(&c->mutex, NULL);
    fill_ops(&ctx->v);
    int rc = cmd_fd < 0 ? cmd_fd : events_pipe(fds);
    if (rc) {
        c->cmd_fd = -1; /* the caller's still */
        context_free(ctx);
        return rc;
    }
    c->async_fd = fds[0];
    ctx->async_wr = fds[1];
    *out = ctx;
    return 0;
}

EXPORT struct ibv_context *ibv_open_device(struct ibv_device *device)
{
    struct rb_context *ctx;
    if (!device_is_ours(device)) return REAL(ibv_open_device, "IBVERBS_1.1")(device);

    int fd = make_cmd_fd();
    int rc = context_new(device, fd, &ctx);
    if (rc) {
        if (fd >= 0) close(fd);
        return fail_with(rc);
    }
    rc = function_open(ctx, device->name, &ctx->f);
    if (rc) {
        context_free(ctx);
        return fail_with(rc);
    }
    enlist(ctx);
    return &ctx->v.context;
}

int context_import(int cmd_fd, struct ibv_context **out)
{
    struct rb_context *ctx;
    struct stat st;

    if (!is_cmd_fd(cmd_fd) || fstat(cmd_fd, &st) != 0) return ENODEV;
    struct rb_context *origin = context_of(&st);
    if (!origin) return EOPNOTSUPP;
    int rc = function_lock(origin->f);
    if (rc == 0) {
        rc = -context_new(origin->v.context.device, cmd_fd, &ctx);
        if (rc == 0) {
            ctx->origin = origin;
            ctx->f = origin->f;
            list_add_tail(&origin->f->imports, &ctx->link);
            *out = &ctx->v.context;
        }
        function_unlock(origin->f);
    }
    if (rc) context_release(origin);
    return rc;
}

EXPORT int ibv_close_device(struct ibv_context *context)
{
    if (!context_is_ours(context)) return REAL(ibv_close_device, "IBVERBS_1.1")(context);
    context_release(rb_context(context));
    return 0;
}
