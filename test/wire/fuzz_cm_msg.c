/* Any bytes as a MAD: decode is safe, and encoding what was decoded is stable. */
#include "base/must.h"
#include "wire/cm_msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    struct cm_msg m;
    uint8_t once[MAD_LEN], twice[MAD_LEN];
    if (!cm_msg_decode(&m, data, len)) return 0;
    cm_msg_encode(once, &m);
    must(cm_msg_decode(&m, once, MAD_LEN));
    cm_msg_encode(twice, &m);
    must(memcmp(once, twice, MAD_LEN) == 0);
    struct rdma_cm_hdr h;
    if (m.attr == CM_REQ) (void)rdma_cm_hdr_decode(&h, m.req.private_data, CM_REQ_PRIVATE);
    return 0;
}
