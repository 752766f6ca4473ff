/* ARP for IPv4 over Ethernet, as much of it as an announcement needs: bytes out, pure. */
#ifndef RBOND_WIRE_ARP_H
#define RBOND_WIRE_ARP_H

#include <stdint.h>

#define ARP_LEN 28

enum { ETH_TYPE_ARP = 0x0806 };

/* An announcement (RFC 5227, 2.3): a request of `mac` for its own address. Who knows the address
 * takes the MAC; others do nothing. Writes ARP_LEN bytes. */
void arp_announcement(uint8_t *buf, const uint8_t mac[6], const uint8_t ipv4[4]);

#endif
