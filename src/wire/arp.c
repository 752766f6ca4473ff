#include "wire/arp.h"
#include "base/bits.h"

void arp_announcement(uint8_t *buf, const uint8_t mac[6], const uint8_t ipv4[4])
{
    put_be16(buf, 1); /* Ethernet */
    put_be16(buf + 2, 0x0800);
    buf[4] = 6;
    buf[5] = 4;
    put_be16(buf + 6, 1); /* a request */
    memcpy(buf + 8, mac, 6);
    memcpy(buf + 14, ipv4, 4);
    memset(buf + 18, 0, 6);
    memcpy(buf + 24, ipv4, 4);
}
