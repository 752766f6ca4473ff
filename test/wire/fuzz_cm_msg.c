/* Any bytes as a MAD: decode is safe, and encoding what was decoded is stable. */
#include "base/must.h"
#include "wire/cm_msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(const uint8_t *mad, size_t len)
{
    struct cm_msg m;
    uint8_t once[MAD_LEN], twice[MAD_LEN];
    if (!cm_msg_decode(&m, mad, len)) return;
    cm_msg_encode(once, &m);
    must(cm_msg_decode(&m, once, MAD_LEN));
    cm_msg_encode(twice, &m);
    must(memcmp(once, twice, MAD_LEN) == 0);
    struct rdma_cm_hdr h;
    if (m.attr == CM_REQ) (void)rdma_cm_hdr_decode(&h, m.req.private_data, CM_REQ_PRIVATE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    check(data, len);
    /* Behind a good header too, which the fuzzer would be long in finding. */
    uint8_t mad[MAD_LEN] = {MAD_BASE_VERSION, CM_CLASS, CM_CLASS_VERSION, MAD_METHOD_SEND};
    if (!len) return 0;
    mad[17] = data[0];
    memcpy(mad + MAD_HDR_LEN, data + 1, len - 1 < MAD_DATA_LEN ? len - 1 : MAD_DATA_LEN);
    check(mad, sizeof mad);
    return 0;
}
