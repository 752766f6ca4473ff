/* XRC domains: which XRC targets may deliver to which XRC SRQs.
 *
 * One that is made of a file is the same for all who open it by its inode: handles of one context
 * are one domain here; what other contexts and processes have of it is theirs, and rbondd
 * introduces us to them (kin.c). */
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/kin.h"
#include "verbs/process.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct domain {
    struct list link;
    uint32_t number, refs;
    struct function *f; /* NULL: it has gone */
    bool has_file;
    dev_t dev;
    ino_t ino;
    struct kin_share *share; /* a file's */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct list domains = {&domains, &domains};
static uint32_t last_number;

__attribute__((constructor)) static void guard(void) { process_guard(&lock, NULL); }

uint32_t xrcd_number(const struct rb_xrcd *xrcd) { return xrcd->domain->number; }

bool xrcd_is_shared(const struct rb_xrcd *xrcd) { return xrcd->domain->has_file; }

/* ---- domains ------------------------------------------------------------------------------ */

static struct domain *known(const struct stat *file, const struct function *f)
{
    list_for_each (node, &domains) {
        struct domain *d = container_of(node, struct domain, link);
        if (d->has_file && d->dev == file->st_dev && d->ino == file->st_ino && d->f == f) return d;
    }
    return NULL;
}

static struct domain *domain_new(struct function *f)
{
    struct domain *d = calloc(1, sizeof *d);
    if (!d) return NULL;
    d->number = ++last_number;
    d->f = f;
    list_add_tail(&domains, &d->link);
    return d;
}

static void domain_free(struct domain *d)
{
    list_del(&d->link);
    free(d);
}

/* 0 or an errno. */
static int take_part(struct domain *d, int fd, uint32_t flags)
{
    struct ctl_client *claim;

    int rc = kin_claim(d->f, fd, flags, &claim);
    if (rc) return rc;
    int file = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    rc = file < 0 ? errno : function_lock(d->f);
    if (rc == 0) {
        d->share = kin_join(d->f, d->number, claim, file);
        if (d->share)
            kin_await_introductions(d->f, d->share);
        else
            rc = ENOMEM;
        function_unlock(d->f);
    }
    if (rc == 0) return 0;
    if (file >= 0) close(file);
    ctl_close(claim);
    return rc;
}

static int open_file(int fd, int oflag, struct function *f, struct domain **out)
{
    struct stat file;
    bool create = oflag & O_CREAT, exclusive = create && (oflag & O_EXCL);

    if (fstat(fd, &file) != 0) return EBADF;
    *out = known(&file, f);
    if (*out) return exclusive ? EINVAL : 0;
    struct domain *d = domain_new(f);
    if (!d) return ENOMEM;
    d->has_file = true;
    d->dev = file.st_dev;
    d->ino = file.st_ino;
    int rc = take_part(d, fd, (create ? CTL_XRCD_CREATE : 0) | (exclusive ? CTL_XRCD_EXCL : 0));
    if (rc == 0)
        *out = d;
    else
        domain_free(d);
    return rc == ENOENT ? EAGAIN : rc == EEXIST ? EINVAL : rc;
}

/* The manual page says when it fails, not how: EINVAL and EAGAIN are the kernel's. */
static int domain_open(int fd, int oflag, struct function *f, struct domain **out)
{
    if (fd == -1) {
        if (!(oflag & O_CREAT)) return EINVAL;
        *out = domain_new(f);
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
    /* In a forked child the share is the parent's. */
    if (d->share && d->f && function_lock(d->f) == 0) {
        kin_leave(d->f, d->share);
        function_unlock(d->f);
    }
    domain_free(d);
}

/* A program may close its device with domains open. The shares go with the function. */
void xrcd_function_gone(const struct function *f)
{
    pthread_mutex_lock(&lock);
    list_for_each_safe (node, tmp, &domains) {
        struct domain *d = container_of(node, struct domain, link);
        if (d->f != f) continue;
        list_del(&d->link);
        d->share = NULL;
        d->f = NULL;
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
