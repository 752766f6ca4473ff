/* XRC domains: which XRC targets may deliver to which XRC SRQs.
 *
 * One that is made of a file is the same for all handles that are opened by its inode. An adapter
 * cannot put messages into another's receives, so a domain lives in one context (and those that
 * import it): while it does, opening it in another, of this process or any of the host, fails with
 * EOPNOTSUPP. rbondd knows who has which. */
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/process.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct domain {
    struct list link;
    uint32_t number, refs;
    const struct function *f;
    bool has_file;
    dev_t dev;
    ino_t ino;
    struct ctl_client *claim; /* a file's: rbondd counts us in while this connection lasts */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct list domains = {&domains, &domains};
static uint32_t last_number;

__attribute__((constructor)) static void guard(void) { process_guard(&lock, NULL); }

uint32_t xrcd_number(const struct rb_xrcd *xrcd) { return xrcd->domain->number; }

/* ---- domains ------------------------------------------------------------------------------ */

/* Those of other functions are rbondd's to tell of, even in this process. */
static struct domain *known(const struct stat *file, const struct function *f)
{
    list_for_each (node, &domains) {
        struct domain *d = container_of(node, struct domain, link);
        if (d->has_file && d->dev == file->st_dev && d->ino == file->st_ino && d->f == f) return d;
    }
    return NULL;
}

static struct domain *domain_new(const struct function *f, struct ctl_client *claim,
                                 const struct stat *file)
{
    struct domain *d = calloc(1, sizeof *d);
    if (!d) return NULL;
    d->number = ++last_number;
    d->f = f;
    d->claim = claim;
    if (claim) {
        d->has_file = true;
        d->dev = file->st_dev;
        d->ino = file->st_ino;
    }
    list_add_tail(&domains, &d->link);
    return d;
}

/* 0, EBUSY where another function has it, ENOENT where there is none and none is to be made, or
 * what kept us from asking. */
static int claim_file(const struct function *f, int fd, bool create, struct ctl_client **out)
{
    struct ctl_xrcd xrcd = {.function = f->opened.function, .flags = create ? CTL_XRCD_CREATE : 0};
    struct ctl_reply reply;

    int rc = ctl_connect(out, NULL);
    if (rc) return -rc;
    rc = -ctl_call_with(*out, CTL_XRCD, &xrcd, sizeof xrcd, fd, 0, &reply);
    ctl_reply_free(&reply);
    if (rc) ctl_close(*out);
    return rc;
}

static int open_file(int fd, int oflag, const struct function *f, struct domain **out)
{
    struct stat file;
    struct ctl_client *claim;
    bool exclusive = (oflag & O_CREAT) && (oflag & O_EXCL);

    if (fstat(fd, &file) != 0) return EBADF;
    *out = known(&file, f);
    if (*out) return exclusive ? EINVAL : 0;
    int rc = claim_file(f, fd, oflag & O_CREAT, &claim);
    if (rc == EBUSY) return exclusive ? EINVAL : EOPNOTSUPP;
    if (rc == ENOENT) return EAGAIN;
    if (rc) return rc;
    *out = domain_new(f, claim, &file);
    if (*out) return 0;
    ctl_close(claim);
    return ENOMEM;
}

/* The manual page says when it fails, not how: EINVAL and EAGAIN are the kernel's. */
static int domain_open(int fd, int oflag, const struct function *f, struct domain **out)
{
    if (fd == -1) {
        if (!(oflag & O_CREAT)) return EINVAL;
        *out = domain_new(f, NULL, NULL);
    } else {
        int rc = open_file(fd, oflag, f, out);
        if (rc) return rc;
    }
    if (!*out) return ENOMEM;
    (*out)->refs++;
    return 0;
}

static void domain_close(struct domain *d)
{
    if (--d->refs) return;
    list_del(&d->link);
    if (d->claim) ctl_close(d->claim);
    free(d);
}

/* A program may close its device with domains open. */
void xrcd_function_gone(const struct function *f)
{
    pthread_mutex_lock(&lock);
    list_for_each_safe (node, tmp, &domains) {
        struct domain *d = container_of(node, struct domain, link);
        if (d->f != f) continue;
        list_del(&d->link);
        if (d->claim) ctl_close(d->claim);
        d->claim = NULL;
    }
    pthread_mutex_unlock(&lock);
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
    int rc = domain_open(init->fd, init->oflags, ctx->f, &xrcd->domain);
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

    if (!xrcd) return verb_result(EINVAL);
    if (atomic_load(&xrcd->refs)) return verb_result(EBUSY);
    pthread_mutex_lock(&lock);
    domain_close(xrcd->domain);
    pthread_mutex_unlock(&lock);
    xrcd->tag.magic = 0;
    free(xrcd);
    return 0;
}
