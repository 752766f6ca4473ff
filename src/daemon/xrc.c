#include "daemon/xrc.h"
#include "ctl/discard.h"
#include "daemon/log.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
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

static bool others_take_part(const struct xrc *xrc, const struct xrc_claim *claim)
{
    list_for_each (node, &xrc->claims) {
        const struct xrc_claim *other = container_of(node, struct xrc_claim, node);
        if (same_domain(other, claim) && other->function != claim->function) return true;
    }
    return false;
}

/* A function that claims anew has given up what it had, and we have not heard of that yet. */
static void forget_former(struct xrc *xrc, const struct xrc_claim *claim)
{
    list_for_each_safe (node, tmp, &xrc->claims) {
        struct xrc_claim *former = container_of(node, struct xrc_claim, node);
        if (same_domain(former, claim) && former->function == claim->function) list_del(node);
    }
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
    *why = "there is an XRC domain of this file";
    if (others_take_part(xrc, claim)) return wanted->flags & CTL_XRCD_EXCL ? -EEXIST : 0;
    *why = "nobody has made an XRC domain of this file";
    return wanted->flags & CTL_XRCD_CREATE ? 0 : -ENOENT;
}

/* ---- introductions ------------------------------------------------------------------------- */

static void tell(const struct xrc_claim *whom, const struct xrc_claim *of, int to_call, int called)
{
    struct ctl_event event = {.type = CTL_EV_XRC_PEER, .value = of->function};
    int fds[2] = {to_call, called};

    memcpy(event.device, whom->device, sizeof event.device);
    ctl_send_event_with(whom->conn, &event, fds, 2);
}

/* Room for a good many packets that wait for a callee, if the kernel's limits allow it. */
static int pair(int fds[2])
{
    const int room = 1 << 20;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0)
        return -errno;
    for (int i = 0; i < 2; i++) setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    return 0;
}

static void introduce(const struct xrc_claim *a, const struct xrc_claim *b)
{
    int a_calls[2], b_calls[2];

    int rc = pair(a_calls);
    if (rc == 0) {
        rc = pair(b_calls);
        if (rc == 0) {
            tell(a, b, a_calls[0], b_calls[1]);
            tell(b, a, b_calls[0], a_calls[1]);
            close(b_calls[0]);
            close(b_calls[1]);
        }
        close(a_calls[0]);
        close(a_calls[1]);
    }
    if (rc < 0)
        log_warning("functions %u and %u of an XRC domain cannot meet: %s", a->function,
                    b->function, strerror(-rc));
}

static void introduce_to_all(const struct xrc *xrc, const struct xrc_claim *claim)
{
    struct ctl_event all = {.type = CTL_EV_XRC_PEER, .value = claim->function};

    list_for_each (node, &xrc->claims) {
        const struct xrc_claim *other = container_of(node, struct xrc_claim, node);
        if (other != claim && same_domain(other, claim)) introduce(other, claim);
    }
    memcpy(all.device, claim->device, sizeof all.device);
    ctl_send_event(claim->conn, &all);
}

/* ---- claims -------------------------------------------------------------------------------- */

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
    forget_former(xrc, claim);
    list_add_tail(&xrc->claims, &claim->node);
    ctl_send_reply(conn, hdr, NULL, 0, 0, NULL, 0);
    introduce_to_all(xrc, claim);
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
