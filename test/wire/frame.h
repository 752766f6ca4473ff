/* Captured frames for tests: a pcap reader, and a RoCE v2 frame taken apart. */
#ifndef RBOND_TEST_WIRE_FRAME_H
#define RBOND_TEST_WIRE_FRAME_H

#include "wire/eth.h"
#include "wire/icrc.h"
#include "wire/ip.h"
#include "wire/udp.h"
#include <stdio.h>

struct pcap {
    FILE *file;
    uint8_t frame[65536];
    size_t len;
};

/* Opens a little-endian microsecond capture of Ethernet frames; false for anything else. */
bool pcap_open(struct pcap *p, const char *path);
/* The next whole frame into p->frame; false at the end. */
bool pcap_next(struct pcap *p);
void pcap_close(struct pcap *p);

struct frame {
    struct eth_hdr eth;
    struct ip_hdr ip;
    struct udp_hdr udp;
    const uint8_t *roce; /* BTH .. pad */
    size_t roce_len;
    uint32_t icrc; /* as received, read little endian */
};

/* False where the frame is no UDP datagram to port 4791 that could hold a BTH and an ICRC. */
bool frame_open(struct frame *f, const uint8_t *bytes, size_t len);
/* The ICRC that the frame should have. */
uint32_t frame_icrc(const struct frame *f);

#endif
