#include "daemon/xrc.h"
#include "ctl/discard.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

struct xrc_claim {
    struct list node;
    struct ctl_conn *conn;
    int fd; /* holds the file: its inode is not given to another one meanwhile */
    dev_t dev;
    uint64_t ino;
    uint32_t function;
    char device[CTL_NAME_LEN];
};

void xrc_init(struct xrc *xrc) { list_init(&xrc->claims); }

/* Of what is cached: nobody who serves the file is asked, who might not answer. O_PATH is no proof:
 * it wants no right to the file. */
static int look_at(struct xrc_claim *claim)
{
    struct statx st;
    int flags = fcntl(claim->fd, F_GETFL);

    if (flags < 0 || (flags & O_PATH)) return -EBADF;
    if (statx(claim->fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &st) != 0)
        return -errno;
    claim->dev = makedev(st.stx_dev_major, st.stx_dev_minor);
    claim->ino = st.stx_ino;
    return 0;
}

static bool same_domain(const struct xrc_claim *a, const struct xrc_claim *b)
{
    return a->dev == b->dev && a->ino == b->ino &&
           strncmp(a->device, b->device, sizeof a->device) == 0;
}

static bool owns(const struct ctl_conn *conn, const struct function *fn)
{
    return ctl_conn_uid(conn) == 0 || ctl_conn_uid(conn) == fn->uid;
}

static const struct xrc_claim *other_of(const struct xrc *xrc, const struct xrc_claim *claim)
{
    list_for_each (node, &xrc->claims) {
        const struct xrc_claim *other = container_of(node, struct xrc_claim, node);
        if (same_domain(other, claim)) return other;
    }
    return NULL;
}

/* 0 or a negative errno, with what to say. */
static int consider(const struct xrc *xrc, const struct functions *functions,
                    const struct ctl_xrcd *wanted, struct xrc_claim *claim, const char **why)
{
    const struct function *fn = functions_at(functions, wanted->function);

    *why = "no such function";
    if (!fn) return -ENODEV;
    *why = "the function is another user's";
    if (!owns(claim->conn, fn)) return -EPERM;
    memcpy(claim->device, fn->device_name, sizeof claim->device);
    claim->function = fn->number;
    *why = "a descriptor of the file, open, must come along";
    if (claim->fd < 0) return -EBADF;
    int rc = look_at(claim);
    if (rc < 0) return rc;
    const struct xrc_claim *other = other_of(xrc, claim);
    *why = "another function has the XRC domain of this file";
    if (other) return -EBUSY;
    *why = "nobody has made an XRC domain of this file";
    return wanted->flags & CTL_XRCD_CREATE ? 0 : -ENOENT;
}

struct xrc_claim *xrc_claim(struct xrc *xrc, const struct functions *functions,
                            struct ctl_conn *conn, const struct ctl_hdr *hdr,
                            const struct ctl_xrcd *wanted, int fd)
{
    const char *why = "out of memory";
    struct xrc_claim *claim = calloc(1, sizeof *claim);
    int rc = -ENOMEM;

    if (claim) {
        claim->conn = conn;
        claim->fd = fd;
        rc = consider(xrc, functions, wanted, claim, &why);
    }
    if (rc < 0) {
        ctl_send_error(conn, hdr, rc, "%s", why);
        ctl_discard(fd);
        free(claim);
        return NULL;
    }
    list_add_tail(&xrc->claims, &claim->node);
    ctl_send_reply(conn, hdr, NULL, 0, 0, NULL, 0);
    return claim;
}

void xrc_function_gone(struct xrc *xrc, unsigned number)
{
    list_for_each_safe (node, tmp, &xrc->claims)
        if (container_of(node, struct xrc_claim, node)->function == number) list_del(node);
}

void xrc_release(struct xrc_claim *claim)
{
    list_del(&claim->node);
    ctl_discard(claim->fd);
    free(claim);
}
