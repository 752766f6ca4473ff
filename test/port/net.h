/* Two hosts for a test: network namespaces A and B joined by two veth links, va0-vb0 and va1-vb1.
 * They live as long as the process. Needs root or the right to make a user namespace. */
#ifndef RBOND_TEST_PORT_NET_H
#define RBOND_TEST_PORT_NET_H

#include "wire/gid.h"
#include <stdbool.h>
#include <stdint.h>

enum net_host { HOST_A, HOST_B };

/* False where the kernel forbids it: then the test skips. */
bool net_up(int mtu);
/* The calling thread's sockets and interfaces are this host's from now on. */
void net_enter(enum net_host host);
/* Runs `ip ARGS` on the current host; false on failure. */
bool net_ip(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint32_t net_ifindex(const char *name);
/* Link 0 is 10.7.0.0/24 and fd07::/64, link 1 is 10.7.1.0/24 and fd07:1::/64; A is 1, B is 2. */
struct gid net_gid(bool ipv4, enum net_host host, int link);
/* fe80::1 for A, fe80::2 for B, on either link. */
struct gid net_link_local(enum net_host host);
/* Takes checksum offload, and with it UDP segmentation, from a device: GSO is then done above it
 * and a capture sees the frames as a wire would. */
bool net_no_offload(const char *name);
/* A capture of a device of the current host: a non-blocking AF_PACKET socket. */
int net_capture(const char *name);

#endif
