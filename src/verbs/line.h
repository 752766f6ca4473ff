/* What goes by a line between two functions (kin.h): calls of hca/call.h and their answers, each with
 * its bytes behind it, and notes of qp_remote.c. Of one machine: in its byte order. Who speaks another
 * version is not spoken to. */
#ifndef RBOND_VERBS_LINE_H
#define RBOND_VERBS_LINE_H

#include "hca/hca.h"
#include <assert.h>

#define LINE_VERSION 1

struct call_msg {
    uint16_t version, kind; /* enum hca_call_kind */
    uint32_t qpn, epoch, src_qpn, access, mtu;
    uint8_t min_rnr_timer, hdr_len, failed, pad;
    uint8_t hdr[ROCE_MAX_HDR_LEN];
    uint64_t va;
    uint32_t srqn, rkey, bytes, pad2;
};
static_assert(sizeof(struct call_msg) == 120, "call_msg");

struct answer_msg {
    uint16_t version, kind;
    uint32_t qpn, epoch, psn;
    uint8_t syndrome, fatal;
    int8_t event;
    uint8_t pad;
    uint32_t bytes;
    uint64_t result;
};
static_assert(sizeof(struct answer_msg) == 32, "answer_msg");

enum kin_note_kind { KIN_QP_OPEN = 16, KIN_QP_MODIFY, KIN_QP_QUERY, KIN_QP_CLOSE, KIN_QP_EVENT };

/* Of a target that the other has opened, or has here; asked, and answered by the same. */
struct kin_note {
    uint16_t version, kind;
    uint32_t qpn, seq;
    int32_t result; /* in an answer: 0 or an errno */
    uint32_t mask;  /* KIN_QP_MODIFY: enum hca_attr_mask; KIN_QP_EVENT: 1 << enum ibv_event_type */
    uint32_t addressed;
    struct hca_qp_attr attr;
};

#endif
