/* rbond's extensions of the verbs API, in the shape of mlx5dv. Link with -lrbond, or look the
 * functions up with dlsym(RTLD_DEFAULT, ...) in a program that runs under the preload. */
#ifndef RBOND_RBONDDV_H
#define RBOND_RBONDDV_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Member numbers count from 0, in the order of the bond's configuration (`rbond bond show`). */
#define RBONDDV_NO_MEMBER 0xff

/* Is this a device of rbond's, so that the functions below take its queue pairs? Any thread. */
bool rbonddv_is_supported(struct ibv_device *device);

/* Which member the QP is configured to use, and which it uses now; they differ while the configured
 * one is down. RBONDDV_NO_MEMBER: none is usable. Either pointer may be NULL. Any thread.
 * Returns 0, or EOPNOTSUPP for a QP of another device, EINVAL for a bad handle. Compare
 * mlx5dv_query_qp_lag_port(3), whose ports count from 1. */
int rbonddv_query_qp_affinity(struct ibv_qp *qp, uint8_t *configured, uint8_t *active);

/* Makes `member` the QP's configured one, in any state, from its next packet on; a later change of
 * the bond's members' state does not undo the choice. The default is round robin over QPs. Any
 * thread. Returns 0; EINVAL for a member that the bond does not have; EOPNOTSUPP for a QP of
 * another device, or where the bond's mode leaves no choice (active-backup). Compare
 * mlx5dv_modify_qp_lag_port(3). */
int rbonddv_modify_qp_affinity(struct ibv_qp *qp, uint8_t member);

/* What an allocator of ibv_alloc_parent_domain(3) is asked for, its `resource_type`. */
enum rbonddv_resource_type {
    RBONDDV_RESOURCE_QP = 1, /* the send queue, and the receive queue unless the QP has an SRQ */
    RBONDDV_RESOURCE_CQ = 2,
};

#ifdef __cplusplus
}
#endif

#endif
