/* The general services interface: QP 1 of every device, on function 0's sockets. Management
 * datagrams go in and out as UD SEND ONLY packets (IBTA 13.5.2); which member a bond's packet
 * leaves by is decided here. Only the connection manager's class has a user. */
#ifndef RBOND_DAEMON_GSI_H
#define RBOND_DAEMON_GSI_H

#include "cm/cm.h"
#include "ctl/page.h"
#include <uv.h>

#define GSI_COUNTERS(X)                                                                            \
    X(gsi_rx)                                                                                      \
    X(gsi_rx_bad) X(gsi_rx_smi) X(gsi_rx_bad_qkey) X(gsi_tx) X(gsi_tx_no_member) X(gsi_tx_failed)

struct gsi_counters {
#define X(name) uint64_t name;
    GSI_COUNTERS(X)
#undef X
};

struct gsi;

struct gsi_ops {
    /* A MAD of MAD_LEN bytes. */
    void (*mad)(void *ctx, const uint8_t *mad, const struct cm_route *route);
    /* A batch has been delivered. */
    void (*idle)(void *ctx);
};

/* Takes the descriptors on success. 0 or a negative errno. */
int gsi_new(struct gsi **out, uv_loop_t *loop, int rx_fd, const int *tx_fds, size_t ntx,
            const struct gsi_ops *ops, void *ctx);
/* Frees itself when the loop has closed its handle. */
void gsi_close(struct gsi *gsi);

/* Sends by a member of the device that route->local belongs to: attempt 0 by the one that the
 * peer's hash picks among those in use, later ones by the others in turn. `local`: the peer is this
 * host. */
void gsi_send(struct gsi *gsi, const struct device_state *device, const struct cm_out *out,
              bool local);

const struct gsi_counters *gsi_counters(const struct gsi *gsi);

#endif
