/* The connection manager's messages (IBTA 12.6 to 12.8): MADs of class 7 <-> structs, pure, and the
 * RDMA-CM private header (annex A11) that leads the private data of REQ and SIDR_REQ.
 * Integers are in host order. Reserved fields are ignored when read and zero when written. */
#ifndef RBOND_WIRE_CM_MSG_H
#define RBOND_WIRE_CM_MSG_H

#include "wire/gid.h"
#include "wire/mad.h"
#include "wire/roce.h"

#define CM_CLASS 0x07
#define CM_CLASS_VERSION 2

/* One row per message: name, attribute id, bytes of private data. */
#define CM_MSGS(X)                                                                                 \
    X(REQ, 0x10, 92)                                                                               \
    X(MRA, 0x11, 222)                                                                              \
    X(REJ, 0x12, 148)                                                                              \
    X(REP, 0x13, 196)                                                                              \
    X(RTU, 0x14, 224) X(DREQ, 0x15, 220) X(DREP, 0x16, 224) X(SIDR_REQ, 0x17, 216)                 \
        X(SIDR_REP, 0x18, 136) X(LAP, 0x19, 168) X(APR, 0x1a, 148)

enum cm_attr {
#define X(name, id, priv) CM_##name = id,
    CM_MSGS(X)
#undef X
};

enum cm_private_len {
#define X(name, id, priv) CM_##name##_PRIVATE = priv,
    CM_MSGS(X)
#undef X
};

#define CM_ARI_LEN 72

/* REJ reasons that this side gives or tells apart (IBTA 12.6.7.2). */
enum cm_rej_reason {
    CM_REJ_NO_QP = 1,
    CM_REJ_NO_EEC = 2,
    CM_REJ_NO_RESOURCES = 3,
    CM_REJ_TIMEOUT = 4,
    CM_REJ_UNSUPPORTED_REQUEST = 5,
    CM_REJ_INVALID_COMM_ID = 6,
    CM_REJ_INVALID_COMM_INSTANCE = 7,
    CM_REJ_INVALID_SERVICE_ID = 8,
    CM_REJ_INVALID_TRANSPORT_TYPE = 9,
    CM_REJ_STALE_CONN = 10,
    CM_REJ_RDC_NOT_EXIST = 11,
    CM_REJ_INVALID_GID = 12,
    CM_REJ_INVALID_LID = 13,
    CM_REJ_INVALID_SL = 14,
    CM_REJ_INVALID_TRAFFIC_CLASS = 15,
    CM_REJ_INVALID_HOP_LIMIT = 16,
    CM_REJ_INVALID_PACKET_RATE = 17,
    CM_REJ_INVALID_ALT_GID = 18,
    CM_REJ_INVALID_ALT_LID = 19,
    CM_REJ_INVALID_ALT_SL = 20,
    CM_REJ_INVALID_ALT_TRAFFIC_CLASS = 21,
    CM_REJ_INVALID_ALT_HOP_LIMIT = 22,
    CM_REJ_INVALID_ALT_PACKET_RATE = 23,
    CM_REJ_PORT_CM_REDIRECT = 24,
    CM_REJ_PORT_REDIRECT = 25,
    CM_REJ_INVALID_MTU = 26,
    CM_REJ_INSUFFICIENT_RESP_RESOURCES = 27,
    CM_REJ_CONSUMER_DEFINED = 28,
    CM_REJ_INVALID_RNR_RETRY = 29,
    CM_REJ_DUPLICATE_LOCAL_COMM_ID = 30,
    CM_REJ_INVALID_CLASS_VERSION = 31,
    CM_REJ_INVALID_FLOW_LABEL = 32,
    CM_REJ_INVALID_ALT_FLOW_LABEL = 33,
    CM_REJ_VENDOR_OPTION_NOT_SUPPORTED = 35,
};

/* Which message a MRA or REJ answers: two bits (IBTA tables 108, 109). */
enum cm_msg_answered { CM_ANSWERS_REQ = 0, CM_ANSWERS_REP = 1, CM_ANSWERS_OTHER = 2 };

/* REP's failover_accepted (IBTA 12.6.8.6). */
enum cm_failover { CM_FAILOVER_ACCEPTED = 0, CM_FAILOVER_NOT_SUPPORTED = 1 };

/* SIDR_REP status (IBTA 12.11.2.2). */
enum cm_sidr_status {
    CM_SIDR_OK = 0,
    CM_SIDR_UNSUPPORTED_SERVICE = 1,
    CM_SIDR_REJECTED = 2,
    CM_SIDR_NO_QP = 3,
    CM_SIDR_REDIRECT = 4,
    CM_SIDR_UNSUPPORTED_VERSION = 5,
};

/* A path as REQ has it, twice: primary and alternate. All zero: no alternate. */
struct cm_path {
    uint16_t local_lid, remote_lid;
    struct gid local_gid, remote_gid;
    uint32_t flow_label; /* 20 bits */
    uint8_t packet_rate; /* 6 bits */
    uint8_t traffic_class, hop_limit;
    uint8_t sl; /* 4 bits */
    bool subnet_local;
    uint8_t local_ack_timeout; /* 5 bits */
};

/* REQ's transport_service_type. The fourth value leads to ext_transport_type, where 1 is XRC. */
enum cm_service { CM_SERVICE_RC = 0, CM_SERVICE_UC = 1, CM_SERVICE_RD = 2, CM_SERVICE_EXT = 3 };
#define CM_EXT_XRC 1

/* Enhanced connection establishment: options of one vendor's adapters, carried between the users.
 */
struct cm_ece {
    uint32_t vendor_id; /* 24 bits */
    uint32_t attr_mod;
};

struct cm_req {
    uint32_t local_comm_id;
    uint64_t service_id;
    uint64_t local_ca_guid;
    uint32_t local_qkey;
    qpn_t local_qpn;
    uint8_t responder_resources, initiator_depth;
    uint32_t local_eecn, remote_eecn;   /* 24 bits, RD only */
    uint8_t remote_cm_response_timeout; /* 5 bits: 4.096 us * 2^n, as the timeouts below */
    uint8_t transport_service_type;     /* 2 bits: enum cm_service */
    bool flow_control;                  /* end to end */
    psn_t starting_psn;
    uint8_t local_cm_response_timeout; /* 5 bits */
    uint8_t retry_count;               /* 3 bits */
    uint16_t pkey;
    uint8_t path_mtu; /* 4 bits: 1..5 for 256..4096 */
    bool rdc_exists;
    uint8_t rnr_retry_count; /* 3 bits */
    uint8_t max_cm_retries;  /* 4 bits */
    bool srq;
    uint8_t ext_transport_type; /* 3 bits: CM_EXT_XRC */
    struct cm_path primary, alternate;
    struct cm_ece ece;
    uint8_t private_data[CM_REQ_PRIVATE];
};

struct cm_mra {
    uint32_t local_comm_id, remote_comm_id;
    uint8_t answers;         /* enum cm_msg_answered */
    uint8_t service_timeout; /* 5 bits */
    uint8_t private_data[CM_MRA_PRIVATE];
};

struct cm_rej {
    uint32_t local_comm_id, remote_comm_id;
    uint8_t answers; /* enum cm_msg_answered */
    uint8_t ari_len; /* 7 bits; more than CM_ARI_LEN is the peer's mistake: check before use */
    uint16_t reason; /* enum cm_rej_reason */
    uint8_t ari[CM_ARI_LEN];
    uint8_t private_data[CM_REJ_PRIVATE];
};

struct cm_rep {
    uint32_t local_comm_id, remote_comm_id;
    uint32_t local_qkey;
    qpn_t local_qpn;
    uint32_t local_eecn; /* XRC: the target's QPN, and local_qpn is 0 (annex A14) */
    psn_t starting_psn;
    uint8_t responder_resources, initiator_depth;
    uint8_t target_ack_delay;  /* 5 bits */
    uint8_t failover_accepted; /* 2 bits */
    bool flow_control;
    uint8_t rnr_retry_count; /* 3 bits */
    bool srq;
    uint64_t local_ca_guid;
    struct cm_ece ece;
    uint8_t private_data[CM_REP_PRIVATE];
};

struct cm_rtu {
    uint32_t local_comm_id, remote_comm_id;
    uint8_t private_data[CM_RTU_PRIVATE];
};

struct cm_dreq {
    uint32_t local_comm_id, remote_comm_id;
    qpn_t remote_qpn;
    uint8_t private_data[CM_DREQ_PRIVATE];
};

struct cm_drep {
    uint32_t local_comm_id, remote_comm_id;
    uint8_t private_data[CM_DREP_PRIVATE];
};

struct cm_sidr_req {
    uint32_t request_id;
    uint16_t pkey;
    uint64_t service_id;
    uint8_t private_data[CM_SIDR_REQ_PRIVATE];
};

struct cm_sidr_rep {
    uint32_t request_id;
    uint8_t status; /* enum cm_sidr_status */
    uint8_t ari_len;
    uint32_t vendor_id; /* 24 bits */
    qpn_t qpn;
    uint64_t service_id;
    uint32_t qkey;
    uint8_t ari[CM_ARI_LEN];
    uint8_t private_data[CM_SIDR_REP_PRIVATE];
};

/* LAP and APR lead with the two ids; path migration is not supported, so the rest stays bytes. */
struct cm_raw {
    uint32_t local_comm_id, remote_comm_id;
    uint8_t rest[MAD_DATA_LEN - 8];
};

struct cm_msg {
    enum cm_attr attr;
    uint64_t tid;
    union {
        struct cm_req req;
        struct cm_mra mra;
        struct cm_rej rej;
        struct cm_rep rep;
        struct cm_rtu rtu;
        struct cm_dreq dreq;
        struct cm_drep drep;
        struct cm_sidr_req sidr_req;
        struct cm_sidr_rep sidr_rep;
        struct cm_raw raw; /* LAP, APR */
    };
};

/* "REQ"; "?" for an attribute that is not a CM message. */
const char *cm_msg_name(enum cm_attr attr);

/* False where the MAD is not a CM message that the table above has. Any bytes are safe. */
bool cm_msg_decode(struct cm_msg *m, const uint8_t *mad, size_t len);
/* Writes a whole MAD of MAD_LEN bytes. m->attr must be in the table. */
void cm_msg_encode(uint8_t *mad, const struct cm_msg *m);

/* ---- RDMA-CM private header --------------------------------------------------------------- */

#define RDMA_CM_HDR_LEN 36

struct rdma_cm_hdr {
    uint16_t port;       /* of the source */
    struct gid src, dst; /* both IPv4-mapped, or neither */
};

/* False for another major version or IP version, or fewer bytes. */
bool rdma_cm_hdr_decode(struct rdma_cm_hdr *h, const uint8_t *data, size_t len);
void rdma_cm_hdr_encode(uint8_t *data /* RDMA_CM_HDR_LEN */, const struct rdma_cm_hdr *h);

#endif
