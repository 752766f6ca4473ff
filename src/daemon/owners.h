/* Who had which function last. rbondd forgets its functions when it dies, while programs live on
 * and claim their numbers from the next one (CTL_RECLAIM): with a number come the packets that its
 * peers send on. So the numbers' owners are kept in a file beside the socket, and nobody else may
 * claim one. */
#ifndef RBOND_DAEMON_OWNERS_H
#define RBOND_DAEMON_OWNERS_H

#include "daemon/functions.h"

struct owners {
    struct owner {
        uint32_t uid_and_1; /* 0: nobody yet */
        int32_t pid;
    } last[FUNCTIONS_MAX];
    bool kept;
    int fd; /* where kept */
    char path[128];
};

/* Reads what an earlier rbondd left at `socket` and goes on there. Negative errno: nothing is kept,
 * and all zero is as good a beginning. */
int owners_open(struct owners *owners, const char *socket);
/* `alive`: programs have functions, and will claim them from the next rbondd. Else the file goes.
 */
void owners_close(struct owners *owners, bool alive);
void owners_set(struct owners *owners, unsigned number, uid_t uid, pid_t pid);
/* May this process have the number back? The process itself may, whoever it is now; so may its
 * user, and root. */
bool owners_allow(const struct owners *owners, unsigned number, uid_t uid, pid_t pid);

#endif
