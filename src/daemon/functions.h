/* Functions: the numbers that divide the QP number space, the sockets of the reuseport group, each
 * program's page.
 *
 * The steering program's answer is an index into the group, in the order in which sockets joined.
 * So function n is the n-th socket for ever: they are made in turn, one duplicate stays here, and a
 * socket whose function has ended waits, is drained and used again. Number 0 is rbondd's own. */
#ifndef RBOND_DAEMON_FUNCTIONS_H
#define RBOND_DAEMON_FUNCTIONS_H

#include "ctl/client.h"
#include "ctl/page.h"
#include "daemon/device.h"
#include <sys/types.h>

#define FUNCTIONS_MAX (1u << HCA_FUNCTION_BITS)
/* What one user may have open who is neither root nor rbondd's own: nobody takes all of them. */
#define FUNCTIONS_PER_USER (FUNCTIONS_MAX / 2)

struct function {
    struct list node; /* of its owner's list */
    uint16_t number;
    pid_t pid;
    uid_t uid;
    char comm[CTL_NAME_LEN];
    char device_name[CTL_NAME_LEN];
    struct device *device; /* NULL once the device has gone */
    int page_fd;
};

struct functions {
    struct function_slot {
        int rx_fd;
        bool spoiled; /* its program connected the socket: not to be given again */
        struct function *function;
        when_t freed;
    } slot[FUNCTIONS_MAX];
    unsigned nslots;
};

/* Makes function 0's socket and the group's steering, or takes over what fdstore.h has. -EADDRINUSE:
 * somebody has UDP port 4791. */
int functions_init(struct functions *fs, when_t now);
void functions_fini(struct functions *fs);
/* A duplicate of function 0's rx socket, for its user; negative errno. */
int functions_own_rx(const struct functions *fs);
/* Makes the CTL_TX_SOCKETS tx sockets of a function; negative errno, and none is left open. */
int functions_make_tx(int *fds, uint32_t *ntx);

/* Is the group there? */
static inline bool functions_ready(const struct functions *fs) { return fs->nslots > 0; }

/* Opens one on a device: number `wanted`, or any where that is 0. `fds`: device page, function
 * page, rx, then *ntx tx sockets; after sending call functions_sent. -EUSERS: all numbers are
 * taken; -EBUSY: that one is; -EDQUOT: the user has FUNCTIONS_PER_USER of them; or another negative
 * errno. */
int functions_open(struct functions *fs, struct device *device, pid_t pid, uid_t uid,
                   unsigned wanted, when_t now, struct function **out, int fds[CTL_MAX_FDS],
                   uint32_t *ntx);
void functions_sent(int fds[CTL_MAX_FDS], uint32_t ntx);
/* The owner has gone. Its counts stay with the device. */
void functions_close(struct functions *fs, struct function *fn, when_t now);
/* The device goes: functions live on without it. */
void functions_detach(struct functions *fs, const struct device *device);

/* Function number `n` or NULL. */
/* The name of a process; "" where it has gone. */
void process_comm(pid_t pid, char *to, size_t size);

struct function *functions_at(const struct functions *fs, unsigned n);

/* ---- a function's page, which its program writes as it likes ------------------------------ */

struct function_counts {
    uint64_t counter[64];
    struct hca_member_counters member[STEER_MAX_MEMBERS];
};

/* Zeros where the page cannot be read. */
void function_read_counts(const struct function *fn, struct function_counts *out);
/* Calls `each` for every record that holds together: number and slot agree, enumerations are in
 * range. Stops when `each` returns false. */
void function_read_qps(const struct function *fn,
                       bool (*each)(void *ctx, const struct function *fn,
                                    const struct hca_qp_view *view),
                       void *ctx);

#endif
