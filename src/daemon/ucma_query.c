/* What librdmacm asks of an id: addresses, path, and the attributes for its QP's transitions. The
 * layouts are <rdma/rdma_user_cm.h>'s and <rdma/ib_user_verbs.h>'s. */
#include "daemon/ucma.h"

#include "base/bits.h"
#include "hca/hca.h"
#include <errno.h>
#include <infiniband/ib.h>
#include <infiniband/verbs.h>
#include <rdma/ib_user_verbs.h>

#define NO_DEVICE_INDEX 0xffffffffu /* librdmacm then matches by GUID alone */

struct ib_uverbs_ah_attr ucma_ah_attr(const struct ucma_id *id, uint8_t hop_limit)
{
    struct ib_uverbs_ah_attr ah = {
        .grh = {.sgid_index = id->sgid_index,
                .hop_limit = hop_limit,
                .traffic_class = id->route.traffic_class},
        .is_global = 1,
        .port_num = 1,
    };
    memcpy(ah.grh.dgid, id->route.remote.raw, sizeof ah.grh.dgid);
    return ah;
}

static bool has_path(const struct ucma_id *id) { return id->state >= UCMA_ROUTE_RESOLVED; }

static void fill_path(const struct ucma_id *id, struct ib_user_path_rec *p)
{
    memcpy(p->dgid, id->route.remote.raw, sizeof p->dgid);
    memcpy(p->sgid, id->route.local.raw, sizeof p->sgid);
    p->pkey = htobe16(ROCE_PKEY_DEFAULT);
    if (!has_path(id)) return;
    p->reversible = 1;
    p->mtu = id->path_mtu;
    p->hop_limit = 64;
    p->traffic_class = id->route.traffic_class;
    p->numb_path = 1;
    p->mtu_selector = p->rate_selector = p->packet_life_time_selector = 2; /* exactly */
    p->packet_life_time = UCMA_PACKET_LIFETIME;
}

ssize_t ucma_query_route(struct ucma_id *id, void *reply)
{
    struct rdma_ucm_query_route_resp r = {.ibdev_index = NO_DEVICE_INDEX};
    memcpy(&r.src_addr, &id->src, ucma_addr_len(&id->src));
    memcpy(&r.dst_addr, &id->dst, ucma_addr_len(&id->dst));
    if (id->guid) {
        r.node_guid = htobe64(id->guid);
        r.port_num = 1;
        fill_path(id, &r.ib_route[0]);
        r.num_paths = has_path(id) && id->state != UCMA_LISTENING;
    }
    memcpy(reply, &r, sizeof r);
    return sizeof r;
}

static void fill_sockaddr_ib(void *room, const struct gid *gid, const struct ucma_id *id,
                             uint16_t port)
{
    struct sockaddr_ib sib = {.sib_family = AF_IB, .sib_pkey = htobe16(ROCE_PKEY_DEFAULT)};
    memcpy(sib.sib_addr.sib_raw, gid->raw, sizeof gid->raw);
    sib.sib_sid = htobe64((uint64_t)id->ps << 16 | port);
    sib.sib_sid_mask = htobe64(UINT64_MAX);
    memcpy(room, &sib, sizeof sib);
}

static ssize_t query_addr(const struct ucma_id *id, void *reply)
{
    struct rdma_ucm_query_addr_resp r = {.ibdev_index = NO_DEVICE_INDEX};
    r.src_size = (uint16_t)ucma_addr_len(&id->src);
    r.dst_size = (uint16_t)ucma_addr_len(&id->dst);
    memcpy(&r.src_addr, &id->src, r.src_size);
    memcpy(&r.dst_addr, &id->dst, r.dst_size);
    if (id->is_ib) {
        r.src_size = sizeof(struct sockaddr_ib);
        fill_sockaddr_ib(&r.src_addr, &id->route.local, id, ucma_addr_port(&id->src));
    }
    if (id->guid) {
        r.node_guid = htobe64(id->guid);
        r.port_num = 1;
        r.pkey = htobe16(ROCE_PKEY_DEFAULT);
    }
    memcpy(reply, &r, sizeof r);
    return sizeof r;
}

static ssize_t query_gid(const struct ucma_id *id, void *reply)
{
    struct rdma_ucm_query_addr_resp r = {.ibdev_index = NO_DEVICE_INDEX};
    if (id->guid) {
        r.node_guid = htobe64(id->guid);
        r.port_num = 1;
        r.pkey = htobe16(ROCE_PKEY_DEFAULT);
    }
    r.src_size = r.dst_size = sizeof(struct sockaddr_ib);
    fill_sockaddr_ib(&r.src_addr, &id->route.local, id, ucma_addr_port(&id->src));
    fill_sockaddr_ib(&r.dst_addr, &id->route.remote, id, ucma_addr_port(&id->dst));
    memcpy(reply, &r, sizeof r);
    return sizeof r;
}

/* A PathRecord as the SA has it on the wire (IBTA 15.2.5.16). */
static ssize_t query_path(const struct ucma_id *id, void *reply)
{
    struct rdma_ucm_query_path_resp head = {.num_paths = id->guid && has_path(id)};
    memcpy(reply, &head, sizeof head);
    if (!head.num_paths) return sizeof head;
    struct ib_path_rec_data data = {.flags = IB_PATH_GMP | IB_PATH_PRIMARY | IB_PATH_BIDIRECTIONAL};
    uint8_t *p = (uint8_t *)data.path_rec;
    memcpy(p + 8, id->route.remote.raw, 16);
    memcpy(p + 24, id->route.local.raw, 16);
    put_be32(p + 44, 64); /* flow label, hop limit */
    p[48] = id->route.traffic_class;
    p[49] = 0x81; /* reversible, one path */
    put_be16(p + 50, ROCE_PKEY_DEFAULT);
    p[54] = (uint8_t)(2 << 6 | id->path_mtu);
    p[55] = 2 << 6;
    p[56] = 2 << 6 | UCMA_PACKET_LIFETIME;
    memcpy((uint8_t *)reply + sizeof head, &data, sizeof data);
    return sizeof head + sizeof data;
}

ssize_t ucma_query(struct ucma_id *id, uint32_t option, void *reply)
{
    switch (option) {
    case RDMA_USER_CM_QUERY_ADDR: return query_addr(id, reply);
    case RDMA_USER_CM_QUERY_PATH: return query_path(id, reply);
    case RDMA_USER_CM_QUERY_GID: return query_gid(id, reply);
    default: return -ENOSYS;
    }
}

/* ---- QP attributes ----------------------------------------------------------------------------
 */

static void attr_init(const struct ucma_id *id, const struct cm_qp_params *p,
                      struct ib_uverbs_qp_attr *a)
{
    a->qp_attr_mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT;
    a->port_num = 1;
    if (id->qp_type == IBV_QPT_UD) {
        a->qp_attr_mask |= IBV_QP_QKEY;
        a->qkey = id->qkey;
        return;
    }
    a->qp_attr_mask |= IBV_QP_ACCESS_FLAGS;
    if (!p) return; /* not connecting yet: access is granted when it does */
    a->qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
    if (!p->max_dest_rd_atomic) return;
    a->qp_access_flags |= IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;
    a->qp_access_flags |= HCA_ACCESS_FLUSH_GLOBAL | HCA_ACCESS_FLUSH_PERSISTENT;
}

static void attr_rtr(const struct ucma_id *id, const struct cm_qp_params *p,
                     struct ib_uverbs_qp_attr *a)
{
    a->qp_attr_mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
    a->ah_attr = ucma_ah_attr(id, p->hop_limit);
    a->port_num = 1;
    a->path_mtu = p->path_mtu;
    a->dest_qp_num = p->dest_qpn;
    a->rq_psn = p->rq_psn.v;
    if (id->qp_type == IBV_QPT_UC || id->qp_type == IBV_QPT_XRC_SEND) return;
    a->qp_attr_mask |= IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
    a->max_dest_rd_atomic = p->max_dest_rd_atomic;
    a->min_rnr_timer = UCMA_MIN_RNR_TIMER;
}

static void attr_rts(const struct ucma_id *id, const struct cm_qp_params *p,
                     struct ib_uverbs_qp_attr *a)
{
    a->qp_attr_mask = IBV_QP_STATE | IBV_QP_SQ_PSN;
    a->sq_psn = p->sq_psn.v;
    if (id->qp_type == IBV_QPT_UC) return;
    a->qp_attr_mask |= IBV_QP_TIMEOUT;
    a->timeout = id->ack_timeout ? id->ack_timeout : p->ack_timeout;
    if (id->qp_type == IBV_QPT_XRC_RECV) return;
    a->qp_attr_mask |= IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;
    a->retry_cnt = p->retry_count;
    a->rnr_retry = p->rnr_retry_count;
    a->max_rd_atomic = p->max_rd_atomic;
}

ssize_t ucma_init_qp_attr(struct ucma_id *id, uint32_t qp_state, void *reply)
{
    if (!id->guid) return -EINVAL;
    struct cm_qp_params p;
    bool known = id->cm && cm_qp_params(id->cm, &p) == 0;
    if (id->cm && !known && id->qp_type != IBV_QPT_UD) return -EINVAL;
    struct ib_uverbs_qp_attr a = {.qp_state = qp_state};
    switch (qp_state) {
    case IBV_QPS_INIT: attr_init(id, known ? &p : NULL, &a); break;
    case IBV_QPS_RTR:
        if (!known || !p.remote_known) return -EINVAL;
        attr_rtr(id, &p, &a);
        break;
    case IBV_QPS_RTS:
        if (!known || !p.remote_known) return -EINVAL;
        attr_rts(id, &p, &a);
        break;
    default: return -EINVAL;
    }
    memcpy(reply, &a, sizeof a);
    return sizeof a;
}
