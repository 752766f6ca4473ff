/* The common MAD header. */
#include "wire/mad.h"
#include "base/bits.h"

bool mad_decode(struct mad_hdr *h, const uint8_t *mad, size_t len)
{
    *h = (struct mad_hdr){0};
    if (len != MAD_LEN || mad[0] != MAD_BASE_VERSION) return false;
    h->base_version = mad[0];
    h->mgmt_class = mad[1];
    h->class_version = mad[2];
    h->method = mad[3];
    h->status = get_be16(mad + 4);
    h->class_specific = get_be16(mad + 6);
    h->tid = get_be64(mad + 8);
    h->attr_id = get_be16(mad + 16);
    h->attr_mod = get_be32(mad + 20);
    return true;
}

void mad_encode(uint8_t *mad, const struct mad_hdr *h)
{
    memset(mad, 0, MAD_HDR_LEN);
    mad[0] = h->base_version;
    mad[1] = h->mgmt_class;
    mad[2] = h->class_version;
    mad[3] = h->method;
    put_be16(mad + 4, h->status);
    put_be16(mad + 6, h->class_specific);
    put_be64(mad + 8, h->tid);
    put_be16(mad + 16, h->attr_id);
    put_be32(mad + 20, h->attr_mod);
}
