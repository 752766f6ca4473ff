/* Management datagrams (IBTA 13.4.2): the 24-byte header that all classes share. What follows it is
 * the class's own; the connection manager's is cm_msg.h. */
#ifndef RBOND_WIRE_MAD_H
#define RBOND_WIRE_MAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAD_LEN 256
#define MAD_HDR_LEN 24
#define MAD_DATA_LEN (MAD_LEN - MAD_HDR_LEN)

#define MAD_BASE_VERSION 1
#define MAD_METHOD_SEND 0x03

struct mad_hdr {
    uint8_t base_version, mgmt_class, class_version, method;
    uint16_t status, class_specific;
    uint64_t tid;
    uint16_t attr_id;
    uint32_t attr_mod;
};

/* False where `len` is not a whole MAD's or the base version is unknown. */
bool mad_decode(struct mad_hdr *h, const uint8_t *mad, size_t len);
void mad_encode(uint8_t *mad /* MAD_HDR_LEN */, const struct mad_hdr *h);

#endif
