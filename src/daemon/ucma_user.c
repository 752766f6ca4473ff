/* What each user has of that which the broker has only so many of: nobody takes all. Root and
 * rbondd's own user take what there is. */
#include "daemon/ucma.h"

#include <stdlib.h>
#include <unistd.h>

struct ucma_user *ucma_user_in(struct cmbroker *b, uid_t uid)
{
    list_for_each (pos, &b->users) {
        struct ucma_user *u = container_of(pos, struct ucma_user, all);
        if (u->uid != uid) continue;
        u->channels++;
        return u;
    }
    struct ucma_user *u = calloc(1, sizeof *u);
    if (!u) return NULL;
    u->uid = uid;
    u->channels = 1;
    list_add_tail(&b->users, &u->all);
    return u;
}

void ucma_user_out(struct ucma_user *user)
{
    if (--user->channels) return;
    list_del(&user->all);
    free(user);
}

bool ucma_user_may(const struct ucma_user *user, uint32_t has, uint32_t share)
{
    return has < share || user->uid == 0 || user->uid == geteuid();
}
