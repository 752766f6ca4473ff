/* Who answers for a service id. */
#include "cm/engine.h"

#include <errno.h>
#include <stdlib.h>

int cm_listen(struct cm *cm, uint64_t service_id, enum cm_scope scope, const struct gid *local,
              uint32_t backlog, void *owner, struct cm_listener **out, when_t now)
{
    list_for_each (pos, &cm->listeners) {
        struct cm_listener *l = container_of(pos, struct cm_listener, all);
        if (l->service_id != service_id || l->scope != scope) continue;
        if (scope != CM_SCOPE_ADDRESS || gid_equal(&l->local, local)) return -EADDRINUSE;
    }
    struct cm_listener *l = calloc(1, sizeof *l);
    if (!l) return -ENOMEM;
    l->cm = cm;
    l->service_id = service_id;
    l->scope = scope;
    if (scope == CM_SCOPE_ADDRESS) l->local = *local;
    l->backlog = backlog;
    l->owner = owner;
    list_init(&l->requests);
    list_add_tail(&cm->listeners, &l->all);
    *out = l;
    hold_claim(cm, now);
    return 0;
}

void cm_listener_destroy(struct cm_listener *listener)
{
    list_for_each_safe (pos, tmp, &listener->requests)
        cm_taken(container_of(pos, struct cm_id, waiting));
    list_del(&listener->all);
    free(listener);
}

void cm_waits(struct cm_id *id, struct cm_listener *listener)
{
    id->owner = listener->owner;
    id->listener = listener;
    listener->waiting++;
    list_add_tail(&listener->requests, &id->waiting);
}

void cm_taken(struct cm_id *id)
{
    if (!id->listener) return;
    list_del(&id->waiting);
    id->listener->waiting--;
    id->listener = NULL;
}

static bool answers_for(const struct cm_listener *l, const struct gid *local)
{
    switch (l->scope) {
    case CM_SCOPE_ADDRESS: return gid_equal(&l->local, local);
    case CM_SCOPE_IPV4: return gid_is_ipv4(local);
    case CM_SCOPE_IPV6: return !gid_is_ipv4(local);
    case CM_SCOPE_ANY: return true;
    }
    return false;
}

struct cm_listener *cm_find_listener(struct cm *cm, uint64_t service_id, const struct gid *local)
{
    struct cm_listener *best = NULL;
    list_for_each (pos, &cm->listeners) {
        struct cm_listener *l = container_of(pos, struct cm_listener, all);
        if (l->service_id != service_id || !answers_for(l, local)) continue;
        if (!best || l->scope < best->scope) best = l;
    }
    return best;
}
