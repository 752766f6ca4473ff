/* Any bytes as a datagram: decode is safe, and what decodes encodes to as many bytes. */
#include "base/must.h"
#include "wire/roce.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct roce_hdr h, again;
    size_t hdr_len, again_len;
    if (roce_decode(&h, data, len, &hdr_len) != ROCE_OK) return 0;
    must(hdr_len + h.pad <= len);
    uint8_t buf[ROCE_MAX_HDR_LEN + 3];
    must(roce_encode(buf, &h) == hdr_len);
    must(roce_decode(&again, buf, hdr_len + h.pad, &again_len) == ROCE_OK);
    must(again.psn.v == h.psn.v && again.dqpn == h.dqpn && again_len == hdr_len);
    return 0;
}
