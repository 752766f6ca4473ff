/* Device memory. Ours is the host's, as the device is: a mapping of a memfd, which can be exported.
 * It is reached by offsets from its start, of 4 bytes as on adapters (ibv_alloc_dm(3)). */
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/import.h"
#include "verbs/mr.h"
#include "verbs/newer.h"
#include "verbs/real.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX_LOG_ALIGN = 12 }; /* a page: mappings begin at one */

#define DM_ACCESS                                                                                  \
    ((unsigned)(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |        \
                IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_ZERO_BASED | IBV_ACCESS_OPTIONAL_RANGE))

RB_OBJECT(rb_dm, rb_dm, struct ibv_dm, ibv, RB_DM)

static int check_copy(const struct rb_dm *dm, uint64_t offset, size_t length)
{
    if (!dm || (offset & 3) || (length & 3)) return EINVAL;
    return offset <= dm->length && length <= dm->length - offset ? 0 : EFAULT;
}

static int copy_to(struct ibv_dm *ibv, uint64_t offset, const void *from, size_t length)
{
    struct rb_dm *dm = rb_dm(ibv);
    int rc = check_copy(dm, offset, length);
    if (rc == 0) memcpy(dm->at + offset, from, length);
    return verb_result(rc);
}

static int copy_from(void *to, struct ibv_dm *ibv, uint64_t offset, size_t length)
{
    struct rb_dm *dm = rb_dm(ibv);
    int rc = check_copy(dm, offset, length);
    if (rc == 0) memcpy(to, dm->at + offset, length);
    return verb_result(rc);
}

static int map_memfd(struct rb_dm *dm, size_t length)
{
    void *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, dm->fd, 0);
    if (at == MAP_FAILED) return errno;
    dm->at = at;
    dm->length = length;
    return 0;
}

/* Maps `length` bytes of new memory. 0 or an errno. */
static int map(struct rb_dm *dm, size_t length)
{
    dm->fd = memfd_create("rbond device memory", MFD_CLOEXEC);
    if (dm->fd < 0) return errno;
    if (ftruncate(dm->fd, (off_t)length) != 0) return errno;
    return map_memfd(dm, length);
}

static void dm_free(struct rb_dm *dm)
{
    if (dm->at) munmap(dm->at, dm->length);
    if (dm->fd >= 0) close(dm->fd);
    dm->tag.magic = 0;
    free(dm);
}

/* Takes it out of what the context may have; false: there is not so much left. */
static bool take(struct rb_context *ctx, size_t length)
{
    size_t used = atomic_load(&ctx->dm_used);
    do {
        if (length > DM_MAX - used) return false;
    } while (!atomic_compare_exchange_weak(&ctx->dm_used, &used, used + length));
    return true;
}

static void dm_fill(struct rb_dm *dm, struct ibv_context *context, struct rb_tag tag)
{
    dm->tag = tag;
    dm->ibv = (struct ibv_dm){
        .context = context, .memcpy_to_dm = copy_to, .memcpy_from_dm = copy_from, .handle = tag.id};
}

struct ibv_dm *rb_alloc_dm(struct ibv_context *context, struct ibv_alloc_dm_attr *attr)
{
    struct rb_context *ctx = rb_context(context);
    if (attr->comp_mask || attr->length == 0 || attr->log_align_req > MAX_LOG_ALIGN)
        return fail_with(EINVAL);
    if (!take(ctx, attr->length)) return fail_with(ENOMEM);
    struct rb_dm *dm = calloc(1, sizeof *dm);
    int rc = dm ? map(dm, attr->length) : ENOMEM;
    if (rc) {
        if (dm) dm_free(dm);
        atomic_fetch_sub(&ctx->dm_used, attr->length);
        return fail_with(rc);
    }
    dm_fill(dm, context, tag_new(ctx, RB_DM));
    export_add(ctx->f, &dm->export, dm->tag);
    return &dm->ibv;
}

struct ibv_dm *dm_again(struct ibv_context *context, const struct rb_dm *from)
{
    struct rb_dm *dm = calloc(1, sizeof *dm);
    if (!dm) return fail_with(ENOMEM);
    list_init(&dm->export.link);
    dm->imported = true;
    dm->fd = fcntl(from->fd, F_DUPFD_CLOEXEC, 0);
    int rc = dm->fd < 0 ? errno : map_memfd(dm, from->length);
    if (rc) {
        dm_free(dm);
        return fail_with(rc);
    }
    dm_fill(dm, context, from->tag);
    return &dm->ibv;
}

void dm_unimport(struct ibv_dm *ibv)
{
    struct rb_dm *dm = rb_dm(ibv);
    if (dm && dm->imported) rb_free_dm(ibv);
}

int rb_free_dm(struct ibv_dm *ibv)
{
    struct rb_dm *dm = rb_dm(ibv);
    if (!dm) return verb_result(EINVAL);
    if (atomic_load(&dm->refs)) return verb_result(EBUSY);
    if (!dm->imported) atomic_fetch_sub(&rb_context(ibv->context)->dm_used, dm->length);
    export_del(rb_context(ibv->context)->f, &dm->export);
    dm_free(dm);
    return 0;
}

struct ibv_mr *rb_reg_dm_mr(struct ibv_pd *pd, struct ibv_dm *ibv, uint64_t offset, size_t length,
                            unsigned access)
{
    struct rb_dm *dm = rb_dm(ibv);
    if (!dm || pd->context != ibv->context) return fail_with(EINVAL);
    if (!(access & IBV_ACCESS_ZERO_BASED) || (access & ~DM_ACCESS)) return fail_with(EINVAL);
    if (offset > dm->length || length > dm->length - offset) return fail_with(EINVAL);
    struct rb_mr *mr = mr_register(
        pd, &(struct mr_memory){
                .addr = dm->at + offset, .length = length, .access = access, .kind = MR_DM});
    if (!mr) return NULL;
    atomic_fetch_add(&dm->refs, 1);
    mr->dm = dm;
    return &mr->ibv;
}

/* Not a dma-buf of the kernel's, but a descriptor to be mapped, and to be registered by
 * ibv_reg_dmabuf_mr. */
EXPORT int ibv_dm_export_dmabuf_fd(struct ibv_dm *ibv)
{
    if (!context_is_ours(ibv->context)) return REAL(ibv_dm_export_dmabuf_fd, "IBVERBS_1.16")(ibv);
    struct rb_dm *dm = rb_dm(ibv);
    if (!dm) {
        errno = EINVAL;
        return -1;
    }
    return fcntl(dm->fd, F_DUPFD_CLOEXEC, 0);
}
