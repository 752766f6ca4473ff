/* XRC domains: which XRC targets may deliver to which XRC SRQs. One that is made of a file is the
 * same for all who open it by the same inode, on the same device. */
#include "verbs/context.h"
#include "verbs/function.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

struct domain {
    struct list link;
    uint32_t number, refs;
    bool has_file;
    dev_t dev;
    ino_t ino;
    const struct ibv_device *device;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct list domains = {&domains, &domains};
static uint32_t last_number;

uint32_t xrcd_number(const struct rb_xrcd *xrcd) { return xrcd->domain->number; }

/* ---- domains ------------------------------------------------------------------------------ */

static struct domain *domain_of(const struct stat *file, const struct ibv_device *device)
{
    list_for_each (node, &domains) {
        struct domain *d = container_of(node, struct domain, link);
        if (d->has_file && d->dev == file->st_dev && d->ino == file->st_ino && d->device == device)
            return d;
    }
    return NULL;
}

static struct domain *domain_new(const struct stat *file /* or NULL */,
                                 const struct ibv_device *device)
{
    struct domain *d = calloc(1, sizeof *d);
    if (!d) return NULL;
    d->number = ++last_number;
    d->device = device;
    if (file) {
        d->has_file = true;
        d->dev = file->st_dev;
        d->ino = file->st_ino;
    }
    list_add_tail(&domains, &d->link);
    return d;
}

/* The manual page says when it fails, not how: these are the kernel's errors. */
static int domain_open(int fd, int oflag, const struct ibv_device *device, struct domain **out)
{
    struct stat file;
    struct domain *d = NULL;

    if (fd == -1 && !(oflag & O_CREAT)) return EINVAL;
    if (fd != -1 && fstat(fd, &file) != 0) return EBADF;
    if (fd != -1) d = domain_of(&file, device);
    if (d && (oflag & O_CREAT) && (oflag & O_EXCL)) return EINVAL;
    if (!d && !(oflag & O_CREAT)) return EAGAIN;
    if (!d) d = domain_new(fd == -1 ? NULL : &file, device);
    if (!d) return ENOMEM;
    d->refs++;
    *out = d;
    return 0;
}

static void domain_close(struct domain *d)
{
    if (--d->refs) return;
    list_del(&d->link);
    free(d);
}

/* ---- the verbs ---------------------------------------------------------------------------- */

struct ibv_xrcd *rb_open_xrcd(struct ibv_context *context, struct ibv_xrcd_init_attr *init)
{
    const uint32_t both = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS;
    struct rb_context *ctx = rb_context(context);

    if (init->comp_mask & ~both) return fail_with(EOPNOTSUPP);
    if (init->comp_mask != both || (init->oflags & ~(O_CREAT | O_EXCL))) return fail_with(EINVAL);
    if (function_is_dead(ctx->f)) return fail_with(EIO);
    struct rb_xrcd *xrcd = calloc(1, sizeof *xrcd);
    if (!xrcd) return fail_with(ENOMEM);
    pthread_mutex_lock(&lock);
    int rc = domain_open(init->fd, init->oflags, context->device, &xrcd->domain);
    pthread_mutex_unlock(&lock);
    if (rc) {
        free(xrcd);
        return fail_with(rc);
    }
    xrcd->tag = tag_new(ctx, RB_XRCD);
    xrcd->ibv.context = context;
    return &xrcd->ibv;
}

int rb_close_xrcd(struct ibv_xrcd *ibv)
{
    struct rb_xrcd *xrcd = rb_xrcd(ibv);

    if (!xrcd) return EINVAL;
    if (atomic_load(&xrcd->refs)) return EBUSY;
    pthread_mutex_lock(&lock);
    domain_close(xrcd->domain);
    pthread_mutex_unlock(&lock);
    xrcd->tag.magic = 0;
    free(xrcd);
    return 0;
}
