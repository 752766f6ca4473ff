/* What control requests mean: the table of handlers behind ctl/server, and who hears which event.
 * A connection may own functions, be a monitor, carry a connection manager's channel. */
#ifndef RBOND_DAEMON_SERVICE_H
#define RBOND_DAEMON_SERVICE_H

#include "ctl/server.h"
#include "daemon/cmbroker.h"
#include "daemon/functions.h"
#include "daemon/owners.h"
#include "daemon/registry.h"
#include "daemon/tree.h"
#include "daemon/xrc.h"

struct service {
    struct registry *registry;
    struct functions *functions;
    struct cmbroker *broker; /* NULL: no connection manager */
    struct tree *tree;       /* NULL: none yet */
    struct owners owners;
    struct xrc xrc;
    struct ctl_server *server;
};

/* The group of functions is there: requests that waited for it are answered. */
void service_ready(struct service *s);
/* How many programs wait to have their function back. */
unsigned service_claims(const struct service *s);

extern const struct ctl_server_ops service_ops;    /* ctx: struct service */
extern const struct registry_ops service_listener; /* ctx: struct service */

#endif
