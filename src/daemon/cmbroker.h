/* The connection manager broker: what the kernel's rdma_ucm module is to librdmacm.
 *
 * A program's librdmacm writes ucma commands (<rdma/rdma_user_cm.h>) to what it takes for
 * /dev/infiniband/rdma_cm; librbond (verbs/ucma.c) forwards each over a control connection of the
 * channel's own, in the records of ctl/ucma.h, and ctl/server hands them to this file. Ids, port
 * numbers and events are ucma_*.c; the handshake is the sans-IO engine of cm/; gsi.c carries its
 * MADs over function 0's sockets. Single threaded: every call comes from the loop's thread. */
#ifndef RBOND_DAEMON_CMBROKER_H
#define RBOND_DAEMON_CMBROKER_H

#include "ctl/page.h"
#include "ctl/proto.h"
#include "ctl/ucma.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

struct cmbroker;
struct cmbroker_channel;

/* A listed device as the broker reads it. `state` is what the device page holds (the GIDs and their
 * ifindexes, the steering table, the members' ifindexes, the MTU); it must stay valid until the
 * callback that gave it is called again or control returns to the loop. */
struct cmbroker_device {
    const char *name;
    uint64_t guid; /* node GUID, host order */
    const struct device_state *state;
};

struct cmbroker_conf {
    uv_loop_t *loop;
    void *ctx;
    /* Device number `index` of those now listed (plain ports and bonds, no hidden members), in any
     * order that holds still between two changes; false past the last. */
    bool (*device)(void *ctx, size_t index, struct cmbroker_device *out);
    /* Function 0's sockets (port_udp_rx_socket, port_udp_tx_socket), the steering program attached;
     * the broker takes ownership. The caller keeps a duplicate of rx_fd for the reuseport order. */
    int rx_fd;
    int tx_fd[CTL_TX_SOCKETS];
    size_t ntx;
};

/* 0 or a negative errno (the descriptors are then still the caller's). */
int cmbroker_new(struct cmbroker **out, const struct cmbroker_conf *conf);
/* Established connections get a DREQ on the way out; every channel is closed. Handles are
 * uv_close'd: run the loop until it is empty (or once more) before freeing it; memory goes with the
 * last. */
void cmbroker_free(struct cmbroker *broker);

/* CTL_CM_OPEN: a new channel for this control connection. `pid` and `uid` are the peer's
 * (SO_PEERCRED). The reply to send is *opened as the only record, with descriptor *event_fd, which
 * the caller closes after sending it. 0 or a negative errno (-EMFILE: too many channels; -EDQUOT:
 * the user has his share of them). One channel a connection. */
int cmbroker_open(struct cmbroker *broker, pid_t pid, uid_t uid, struct cmbroker_channel **channel,
                  struct ctl_cm_opened *opened, int *event_fd);

/* CTL_CM_CMD: the bytes after the ctl_hdr in, the reply's bytes out (`cap` >= CTL_CM_MAX_REPLY):
 * send them with hdr.count = their number, as records of one byte. Returns their number, or a
 * negative errno for the reply's status; -EAGAIN from GET_EVENT means that no event waits. */
ssize_t cmbroker_command(struct cmbroker_channel *channel, const void *bytes, size_t len,
                         void *reply, size_t cap);

/* The connection has gone: its ids go, established ones with a DREQ. The channel is freed. */
void cmbroker_close(struct cmbroker_channel *channel);

/* Devices came or went, or their GIDs, members, tables changed: call after the change. */
void cmbroker_devices_changed(struct cmbroker *broker);

/* Id number *cursor or a later one for CTL_CM_ID_LIST, all but `comm`; *cursor goes past it. False:
 * no more. */
bool cmbroker_id(struct cmbroker *broker, size_t *cursor, struct ctl_cm_id *out);

/* Counters by name for CTL_STAT; false past the last. */
bool cmbroker_counter(const struct cmbroker *broker, size_t index, const char **name,
                      uint64_t *value);

#endif
