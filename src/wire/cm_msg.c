/* CM messages: the offsets are those of IBTA tables 106 to 127, counted after the MAD header. */
#include "wire/cm_msg.h"
#include "base/bits.h"
#include "base/must.h"

const char *cm_msg_name(enum cm_attr attr)
{
    switch (attr) {
#define X(name, id, priv)                                                                          \
    case CM_##name: return #name;
        CM_MSGS(X)
#undef X
    }
    return "?";
}

/* ---- REQ ------------------------------------------------------------------------------------ */

enum { PRIMARY_AT = 52, ALTERNATE_AT = 96 };

static void get_path(struct cm_path *p, const uint8_t *b)
{
    p->local_lid = get_be16(b);
    p->remote_lid = get_be16(b + 2);
    memcpy(p->local_gid.raw, b + 4, 16);
    memcpy(p->remote_gid.raw, b + 20, 16);
    p->flow_label = get_be32(b + 36) >> 12;
    p->packet_rate = b[39] & 0x3f;
    p->traffic_class = b[40];
    p->hop_limit = b[41];
    p->sl = b[42] >> 4;
    p->subnet_local = b[42] >> 3 & 1;
    p->local_ack_timeout = b[43] >> 3;
}

static void put_path(uint8_t *b, const struct cm_path *p)
{
    put_be16(b, p->local_lid);
    put_be16(b + 2, p->remote_lid);
    memcpy(b + 4, p->local_gid.raw, 16);
    memcpy(b + 20, p->remote_gid.raw, 16);
    put_be32(b + 36, p->flow_label << 12 | (p->packet_rate & 0x3f));
    b[40] = p->traffic_class;
    b[41] = p->hop_limit;
    b[42] = (uint8_t)(p->sl << 4 | p->subnet_local << 3);
    b[43] = (uint8_t)(p->local_ack_timeout << 3);
}

static void get_req(struct cm_req *r, const uint8_t *b)
{
    r->local_comm_id = get_be32(b);
    r->ece.vendor_id = get_be24(b + 5);
    r->service_id = get_be64(b + 8);
    r->local_ca_guid = get_be64(b + 16);
    r->local_qkey = get_be32(b + 28);
    r->local_qpn = get_be24(b + 32);
    r->responder_resources = b[35];
    r->local_eecn = get_be24(b + 36);
    r->initiator_depth = b[39];
    r->remote_eecn = get_be24(b + 40);
    r->remote_cm_response_timeout = b[43] >> 3;
    r->transport_service_type = b[43] >> 1 & 3;
    r->flow_control = b[43] & 1;
    r->starting_psn = psn_of(get_be24(b + 44));
    r->local_cm_response_timeout = b[47] >> 3;
    r->retry_count = b[47] & 7;
    r->pkey = get_be16(b + 48);
    r->path_mtu = b[50] >> 4;
    r->rdc_exists = b[50] >> 3 & 1;
    r->rnr_retry_count = b[50] & 7;
    r->max_cm_retries = b[51] >> 4;
    r->srq = b[51] >> 3 & 1;
    r->ext_transport_type = b[51] & 7;
    get_path(&r->primary, b + PRIMARY_AT);
    get_path(&r->alternate, b + ALTERNATE_AT);
    memcpy(r->private_data, b + 140, CM_REQ_PRIVATE);
}

static void put_req(uint8_t *b, const struct cm_req *r)
{
    put_be32(b, r->local_comm_id);
    put_be24(b + 5, r->ece.vendor_id);
    put_be64(b + 8, r->service_id);
    put_be64(b + 16, r->local_ca_guid);
    put_be32(b + 28, r->local_qkey);
    put_be24(b + 32, r->local_qpn);
    b[35] = r->responder_resources;
    put_be24(b + 36, r->local_eecn);
    b[39] = r->initiator_depth;
    put_be24(b + 40, r->remote_eecn);
    b[43] = (uint8_t)(r->remote_cm_response_timeout << 3 | (r->transport_service_type & 3) << 1 |
                      r->flow_control);
    put_be24(b + 44, r->starting_psn.v);
    b[47] = (uint8_t)(r->local_cm_response_timeout << 3 | (r->retry_count & 7));
    put_be16(b + 48, r->pkey);
    b[50] = (uint8_t)(r->path_mtu << 4 | r->rdc_exists << 3 | (r->rnr_retry_count & 7));
    b[51] = (uint8_t)(r->max_cm_retries << 4 | r->srq << 3 | (r->ext_transport_type & 7));
    put_path(b + PRIMARY_AT, &r->primary);
    put_path(b + ALTERNATE_AT, &r->alternate);
    memcpy(b + 140, r->private_data, CM_REQ_PRIVATE);
}

/* ---- MRA, REJ ------------------------------------------------------------------------------- */

static void get_mra(struct cm_mra *r, const uint8_t *b)
{
    r->local_comm_id = get_be32(b);
    r->remote_comm_id = get_be32(b + 4);
    r->answers = b[8] >> 6;
    r->service_timeout = b[9] >> 3;
    memcpy(r->private_data, b + 10, CM_MRA_PRIVATE);
}

static void put_mra(uint8_t *b, const struct cm_mra *r)
{
    put_be32(b, r->local_comm_id);
    put_be32(b + 4, r->remote_comm_id);
    b[8] = (uint8_t)(r->answers << 6);
    b[9] = (uint8_t)(r->service_timeout << 3);
    memcpy(b + 10, r->private_data, CM_MRA_PRIVATE);
}

static void get_rej(struct cm_rej *r, const uint8_t *b)
{
    r->local_comm_id = get_be32(b);
    r->remote_comm_id = get_be32(b + 4);
    r->answers = b[8] >> 6;
    r->ari_len = b[9] >> 1;
    r->reason = get_be16(b + 10);
    memcpy(r->ari, b + 12, CM_ARI_LEN);
    memcpy(r->private_data, b + 84, CM_REJ_PRIVATE);
}

static void put_rej(uint8_t *b, const struct cm_rej *r)
{
    put_be32(b, r->local_comm_id);
    put_be32(b + 4, r->remote_comm_id);
    b[8] = (uint8_t)(r->answers << 6);
    b[9] = (uint8_t)(r->ari_len << 1);
    put_be16(b + 10, r->reason);
    memcpy(b + 12, r->ari, CM_ARI_LEN);
    memcpy(b + 84, r->private_data, CM_REJ_PRIVATE);
}

/* ---- REP ------------------------------------------------------------------------------------ */

static void get_rep(struct cm_rep *r, const uint8_t *b)
{
    r->local_comm_id = get_be32(b);
    r->remote_comm_id = get_be32(b + 4);
    r->local_qkey = get_be32(b + 8);
    r->local_qpn = get_be24(b + 12);
    r->local_eecn = get_be24(b + 16);
    r->starting_psn = psn_of(get_be24(b + 20));
    r->responder_resources = b[24];
    r->initiator_depth = b[25];
    r->target_ack_delay = b[26] >> 3;
    r->failover_accepted = b[26] >> 1 & 3;
    r->flow_control = b[26] & 1;
    r->rnr_retry_count = b[27] >> 5;
    r->srq = b[27] >> 4 & 1;
    r->local_ca_guid = get_be64(b + 28);
    r->ece.vendor_id = (uint32_t)b[15] << 16 | b[19] << 8 | b[23];
    memcpy(r->private_data, b + 36, CM_REP_PRIVATE);
}

static void put_rep(uint8_t *b, const struct cm_rep *r)
{
    put_be32(b, r->local_comm_id);
    put_be32(b + 4, r->remote_comm_id);
    put_be32(b + 8, r->local_qkey);
    put_be24(b + 12, r->local_qpn);
    put_be24(b + 16, r->local_eecn);
    put_be24(b + 20, r->starting_psn.v);
    b[24] = r->responder_resources;
    b[25] = r->initiator_depth;
    b[26] = (uint8_t)(r->target_ack_delay << 3 | (r->failover_accepted & 3) << 1 | r->flow_control);
    b[27] = (uint8_t)(r->rnr_retry_count << 5 | r->srq << 4);
    put_be64(b + 28, r->local_ca_guid);
    b[15] = (uint8_t)(r->ece.vendor_id >> 16);
    b[19] = (uint8_t)(r->ece.vendor_id >> 8);
    b[23] = (uint8_t)r->ece.vendor_id;
    memcpy(b + 36, r->private_data, CM_REP_PRIVATE);
}

/* ---- RTU, DREQ, DREP, LAP, APR -------------------------------------------------------------- */

static void get_rtu(struct cm_rtu *r, const uint8_t *b)
{
    r->local_comm_id = get_be32(b);
    r->remote_comm_id = get_be32(b + 4);
    memcpy(r->private_data, b + 8, CM_RTU_PRIVATE);
}

static void put_rtu(uint8_t *b, const struct cm_rtu *r)
{
    put_be32(b, r->local_comm_id);
    put_be32(b + 4, r->remote_comm_id);
    memcpy(b + 8, r->private_data, CM_RTU_PRIVATE);
}

static void get_dreq(struct cm_dreq *r, const uint8_t *b)
{
    r->local_comm_id = get_be32(b);
    r->remote_comm_id = get_be32(b + 4);
    r->remote_qpn = get_be24(b + 8);
    memcpy(r->private_data, b + 12, CM_DREQ_PRIVATE);
}

static void put_dreq(uint8_t *b, const struct cm_dreq *r)
{
    put_be32(b, r->local_comm_id);
    put_be32(b + 4, r->remote_comm_id);
    put_be24(b + 8, r->remote_qpn);
    memcpy(b + 12, r->private_data, CM_DREQ_PRIVATE);
}

static void get_drep(struct cm_drep *r, const uint8_t *b)
{
    r->local_comm_id = get_be32(b);
    r->remote_comm_id = get_be32(b + 4);
    memcpy(r->private_data, b + 8, CM_DREP_PRIVATE);
}

static void put_drep(uint8_t *b, const struct cm_drep *r)
{
    put_be32(b, r->local_comm_id);
    put_be32(b + 4, r->remote_comm_id);
    memcpy(b + 8, r->private_data, CM_DREP_PRIVATE);
}

static void get_raw(struct cm_raw *r, const uint8_t *b)
{
    r->local_comm_id = get_be32(b);
    r->remote_comm_id = get_be32(b + 4);
    memcpy(r->rest, b + 8, sizeof r->rest);
}

static void put_raw(uint8_t *b, const struct cm_raw *r)
{
    put_be32(b, r->local_comm_id);
    put_be32(b + 4, r->remote_comm_id);
    memcpy(b + 8, r->rest, sizeof r->rest);
}

/* ---- SIDR ----------------------------------------------------------------------------------- */

static void get_sidr_req(struct cm_sidr_req *r, const uint8_t *b)
{
    r->request_id = get_be32(b);
    r->pkey = get_be16(b + 4);
    r->service_id = get_be64(b + 8);
    memcpy(r->private_data, b + 16, CM_SIDR_REQ_PRIVATE);
}

static void put_sidr_req(uint8_t *b, const struct cm_sidr_req *r)
{
    put_be32(b, r->request_id);
    put_be16(b + 4, r->pkey);
    put_be64(b + 8, r->service_id);
    memcpy(b + 16, r->private_data, CM_SIDR_REQ_PRIVATE);
}

static void get_sidr_rep(struct cm_sidr_rep *r, const uint8_t *b)
{
    r->request_id = get_be32(b);
    r->status = b[4];
    r->ari_len = b[5];
    r->vendor_id = (uint32_t)get_be16(b + 6) << 8 | b[11];
    r->qpn = get_be24(b + 8);
    r->service_id = get_be64(b + 12);
    r->qkey = get_be32(b + 20);
    memcpy(r->ari, b + 24, CM_ARI_LEN);
    memcpy(r->private_data, b + 96, CM_SIDR_REP_PRIVATE);
}

static void put_sidr_rep(uint8_t *b, const struct cm_sidr_rep *r)
{
    put_be32(b, r->request_id);
    b[4] = r->status;
    b[5] = r->ari_len;
    put_be16(b + 6, (uint16_t)(r->vendor_id >> 8));
    put_be24(b + 8, r->qpn);
    b[11] = (uint8_t)r->vendor_id;
    put_be64(b + 12, r->service_id);
    put_be32(b + 20, r->qkey);
    memcpy(b + 24, r->ari, CM_ARI_LEN);
    memcpy(b + 96, r->private_data, CM_SIDR_REP_PRIVATE);
}

/* ---- the MAD -------------------------------------------------------------------------------- */

bool cm_msg_decode(struct cm_msg *m, const uint8_t *mad, size_t len)
{
    struct mad_hdr h;
    *m = (struct cm_msg){0};
    if (!mad_decode(&h, mad, len)) return false;
    if (h.mgmt_class != CM_CLASS || h.class_version != CM_CLASS_VERSION) return false;
    if (h.method != MAD_METHOD_SEND) return false;
    m->attr = (enum cm_attr)h.attr_id;
    m->tid = h.tid;
    const uint8_t *b = mad + MAD_HDR_LEN;
    switch (m->attr) {
    case CM_REQ:
        get_req(&m->req, b);
        m->req.ece.attr_mod = h.attr_mod;
        return true;
    case CM_MRA: get_mra(&m->mra, b); return true;
    case CM_REJ: get_rej(&m->rej, b); return true;
    case CM_REP:
        get_rep(&m->rep, b);
        m->rep.ece.attr_mod = h.attr_mod;
        return true;
    case CM_RTU: get_rtu(&m->rtu, b); return true;
    case CM_DREQ: get_dreq(&m->dreq, b); return true;
    case CM_DREP: get_drep(&m->drep, b); return true;
    case CM_SIDR_REQ: get_sidr_req(&m->sidr_req, b); return true;
    case CM_SIDR_REP: get_sidr_rep(&m->sidr_rep, b); return true;
    case CM_LAP:
    case CM_APR: get_raw(&m->raw, b); return true;
    }
    return false;
}

void cm_msg_encode(uint8_t *mad, const struct cm_msg *m)
{
    uint32_t attr_mod = m->attr == CM_REQ   ? m->req.ece.attr_mod
                        : m->attr == CM_REP ? m->rep.ece.attr_mod
                                            : 0;
    memset(mad, 0, MAD_LEN);
    mad_encode(mad, &(struct mad_hdr){.base_version = MAD_BASE_VERSION,
                                      .mgmt_class = CM_CLASS,
                                      .class_version = CM_CLASS_VERSION,
                                      .method = MAD_METHOD_SEND,
                                      .tid = m->tid,
                                      .attr_id = (uint16_t)m->attr,
                                      .attr_mod = attr_mod});
    uint8_t *b = mad + MAD_HDR_LEN;
    switch (m->attr) {
    case CM_REQ: put_req(b, &m->req); return;
    case CM_MRA: put_mra(b, &m->mra); return;
    case CM_REJ: put_rej(b, &m->rej); return;
    case CM_REP: put_rep(b, &m->rep); return;
    case CM_RTU: put_rtu(b, &m->rtu); return;
    case CM_DREQ: put_dreq(b, &m->dreq); return;
    case CM_DREP: put_drep(b, &m->drep); return;
    case CM_SIDR_REQ: put_sidr_req(b, &m->sidr_req); return;
    case CM_SIDR_REP: put_sidr_rep(b, &m->sidr_rep); return;
    case CM_LAP:
    case CM_APR: put_raw(b, &m->raw); return;
    }
    must(!"a CM attribute outside the table");
}

/* ---- RDMA-CM private header ----------------------------------------------------------------- */

static void get_address(struct gid *gid, const uint8_t *b, bool ipv4)
{
    if (!ipv4) {
        memcpy(gid->raw, b, 16);
        return;
    }
    *gid = (struct gid){{[10] = 0xff, [11] = 0xff}};
    memcpy(gid->raw + 12, b + 12, 4);
}

static void put_address(uint8_t *b, const struct gid *gid, bool ipv4)
{
    memset(b, 0, 16);
    if (ipv4)
        memcpy(b + 12, gid->raw + 12, 4);
    else
        memcpy(b, gid->raw, 16);
}

bool rdma_cm_hdr_decode(struct rdma_cm_hdr *h, const uint8_t *data, size_t len)
{
    *h = (struct rdma_cm_hdr){0};
    if (len < RDMA_CM_HDR_LEN || data[0] >> 4 != 0) return false;
    uint8_t version = data[1] >> 4;
    if (version != 4 && version != 6) return false;
    h->port = get_be16(data + 2);
    get_address(&h->src, data + 4, version == 4);
    get_address(&h->dst, data + 20, version == 4);
    return true;
}

void rdma_cm_hdr_encode(uint8_t *data, const struct rdma_cm_hdr *h)
{
    bool ipv4 = gid_is_ipv4(&h->dst);
    data[0] = 0;
    data[1] = ipv4 ? 0x40 : 0x60;
    put_be16(data + 2, h->port);
    put_address(data + 4, &h->src, ipv4);
    put_address(data + 20, &h->dst, ipv4);
}
