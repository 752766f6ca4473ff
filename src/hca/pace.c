/* UC and UD have no window: nothing ever comes back that could hold them. A real adapter sends them
 * at the speed of its port, which is what its peer's receiver is made for; a software adapter would
 * hand them to the kernel as fast as memory allows, and what the peer's socket cannot hold is lost.
 * So these services share a virtual port of the speed that the device reports. RC is not paced: its
 * window follows what the peer takes.
 *
 * The same clock, one a QP, keeps those of any service to the rate limit that their program sets.
 */
#include "hca/pace.h"

enum {
    WIRE_OVERHEAD = 14 + 40 + 8 + 4 + 24, /* Ethernet, IPv6, UDP, ICRC; preamble, FCS and gap */
};
/* How far the port may be given ahead. Enough for trains of packets, little against the buffer of
 * a peer (at 10 Gb/s: 125 KB). */
#define AHEAD_NS (100 * US_NS)
/* The least time for a packet, however small: a receiver in software is bound by packets more than
 * by bytes. At 10 Gb/s this counts for packets below 1.8 KiB. */
#define PACKET_NS 1500

void pace_port(struct pace *pace, uint64_t bytes_per_sec)
{
    pace->bytes_per_sec = bytes_per_sec;
    pace->packet_ns = PACKET_NS;
}

void pace_limit(struct pace *pace, uint32_t kbps)
{
    *pace = (struct pace){.bytes_per_sec = (uint64_t)kbps * 1000 / 8};
}

bool pace_admits(const struct pace *pace, when_t now)
{
    return pace->bytes_per_sec == 0 || pace->idle_at.ns < now.ns + AHEAD_NS;
}

when_t pace_resume_at(const struct pace *pace)
{
    /* Half of it at once: not a wake-up for every packet. */
    return (when_t){pace->idle_at.ns - AHEAD_NS / 2};
}

void pace_sent(struct pace *pace, const struct hca_tx *tx, size_t n, when_t now)
{
    if (pace->bytes_per_sec == 0) return;
    if (when_before(pace->idle_at, now)) pace->idle_at = now;
    for (size_t i = 0; i < n; i++) {
        uint64_t bytes = tx[i].hdr_len + tx[i].payload_len + WIRE_OVERHEAD;
        uint64_t ns = bytes * SEC_NS / pace->bytes_per_sec;
        pace->idle_at = when_add(pace->idle_at, ns > pace->packet_ns ? ns : pace->packet_ns);
    }
}
