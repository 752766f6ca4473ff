/* XRC domains of files: which functions take part in which. A connection claims a part for a function
 * and proves that its program may open the file by passing it, open. Those that take part in one are
 * introduced to each other; what they then say is theirs. */
#ifndef RBOND_DAEMON_XRC_H
#define RBOND_DAEMON_XRC_H

#include "base/list.h"
#include "ctl/server.h"
#include "daemon/functions.h"

struct xrc_claim;

struct xrc {
    struct list claims;
};

void xrc_init(struct xrc *xrc);

/* What CTL_XRCD asks for; `fd` is the claim's from now on, also where it is refused. NULL: the
 * request has been answered with an error. */
struct xrc_claim *xrc_claim(struct xrc *xrc, const struct functions *functions,
                            struct ctl_conn *conn, const struct ctl_hdr *hdr,
                            const struct ctl_xrcd *wanted, int fd);
/* The function has ended, before its claims' connections: they are void. */
void xrc_function_gone(struct xrc *xrc, unsigned number);
/* The connection has ended. */
void xrc_release(struct xrc_claim *claim);

#endif
