/* The ucma channel on the control protocol. CTL_CM_OPEN (no body) -> ctl_cm_opened and one
 * descriptor: a stream socket on which rbondd writes one byte for each event that waits.
 * CTL_CM_CMD carries the very bytes of one write() to /dev/infiniband/rdma_cm (struct
 * rdma_ucm_cmd_hdr, then hdr.in bytes), and behind them what the command points to and the daemon
 * cannot see: SET_OPTION's option value. The reply's bytes are what the kernel would have stored at
 * the command's response pointer. In MIGRATE_ID the descriptor field carries ctl_cm_opened.channel
 * of the channel that the id leaves. */
#ifndef RBOND_CTL_UCMA_H
#define RBOND_CTL_UCMA_H

#include <assert.h>
#include <stdint.h>

#define CTL_CM_MAX_CMD 2048 /* the largest command is CONNECT, with its 256 bytes of private data \
                             */
#define CTL_CM_MAX_REPLY 2048

struct ctl_cm_opened {
    uint32_t channel; /* names it to MIGRATE_ID; of meaning within this program only */
    uint32_t pad;
};
static_assert(sizeof(struct ctl_cm_opened) == 8, "ctl_cm_opened");

#endif
