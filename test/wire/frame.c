/* Captured frames for tests. */
#include "wire/frame.h"
#include "base/bits.h"
#include "wire/roce.h"

#define PCAP_MAGIC 0xa1b2c3d4u
#define LINKTYPE_ETHERNET 1

struct pcap_file_hdr {
    uint32_t magic;
    uint16_t major, minor;
    uint32_t zone, sigfigs, snaplen, linktype;
};

struct pcap_frame_hdr {
    uint32_t sec, usec, caplen, len;
};

bool pcap_open(struct pcap *p, const char *path)
{
    struct pcap_file_hdr h;
    p->file = fopen(path, "rb");
    if (!p->file) return false;
    if (fread(&h, sizeof h, 1, p->file) == 1 && h.magic == PCAP_MAGIC &&
        h.linktype == LINKTYPE_ETHERNET)
        return true;
    fclose(p->file);
    return false;
}

bool pcap_next(struct pcap *p)
{
    struct pcap_frame_hdr h;
    if (fread(&h, sizeof h, 1, p->file) != 1) return false;
    if (h.caplen != h.len || h.caplen > sizeof p->frame) return false;
    p->len = h.caplen;
    return fread(p->frame, 1, p->len, p->file) == p->len;
}

void pcap_close(struct pcap *p) { fclose(p->file); }

bool frame_open(struct frame *f, const uint8_t *bytes, size_t len)
{
    size_t ip_at = eth_decode(&f->eth, bytes, len), ip_len;
    if (!ip_at || (f->eth.type != ETH_TYPE_IPV4 && f->eth.type != ETH_TYPE_IPV6)) return false;
    if (ip_decode(&f->ip, bytes + ip_at, len - ip_at, &ip_len) != IP_OK) return false;
    if (f->ip.proto != IP_PROTO_UDP || f->ip.mf || f->ip.frag_off) return false;
    const uint8_t *udp = bytes + ip_at + ip_len;
    if (!udp_decode(&f->udp, udp, f->ip.payload_len) || f->udp.dport != ROCE_UDP_PORT) return false;
    if (f->udp.len < UDP_HDR_LEN + ROCE_BTH_LEN + ROCE_ICRC_LEN) return false;
    f->roce = udp + UDP_HDR_LEN;
    f->roce_len = f->udp.len - UDP_HDR_LEN - ROCE_ICRC_LEN;
    f->icrc = __builtin_bswap32(get_be32(f->roce + f->roce_len));
    return true;
}

uint32_t frame_icrc(const struct frame *f)
{
    struct icrc_path path = {.src = f->ip.src,
                             .dst = f->ip.dst,
                             .sport = f->udp.sport,
                             .dport = f->udp.dport,
                             .ip_id = f->ip.id,
                             .df = f->ip.df,
                             .udp_len = f->udp.len};
    return icrc_of(&path, f->roce, f->roce_len);
}
