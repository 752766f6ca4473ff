/* A wire that takes its time: carries frames between two ports, each way
 *   slow-wire PORT PORT DELAY_US [LOSS_PPM [MARK_PPM]]
 * of them so many in a million lost, and so many that can tell of congestion marked for it (RFC
 * 3168). Frames come and go with the kernel's offload header, so trains stay trains: where single
 * packets are to be lost the senders' ports must not make any (ip link set gso_max_segs 1). Says
 * "ready" and carries until it is ended. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_FRAME (80 << 10)
#define ROOM 65536 /* frames under way each way */
#define BATCH 64   /* read from a port before the other has its turn */
#define BUFFER (64 << 20)
#define SEC_NS 1000000000ull

struct frame {
    uint64_t due_ns;
    uint32_t len;
    uint8_t bytes[]; /* struct virtio_net_hdr, then Ethernet */
};

/* One direction: constant delay, so first in is first out. */
struct way {
    int from, to;
    struct frame *frame[ROOM];
    uint32_t head, tail;
};

static uint64_t delay_ns, state = 1;
static uint32_t loss_ppm, mark_ppm;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SEC_NS + (uint64_t)t.tv_nsec;
}

static bool chance(uint32_t ppm)
{
    uint64_t z = state += 0x9e3779b97f4a7c15; /* SplitMix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return (z ^ (z >> 31)) % 1000000 < ppm;
}

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "slow-wire: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int open_port(const char *name)
{
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0);
    const int on = 1, size = BUFFER;
    struct sockaddr_ll at = {.sll_family = AF_PACKET,
                             .sll_protocol = htons(ETH_P_ALL),
                             .sll_ifindex = (int)if_nametoindex(name)};
    struct packet_mreq all = {.mr_ifindex = at.sll_ifindex, .mr_type = PACKET_MR_PROMISC};

    if (fd < 0 || at.sll_ifindex == 0) die(name);
    if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) ||
        setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) ||
        setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all))
        die("setsockopt");
    for (int what = 0; what < 2; what++)
        if (setsockopt(fd, SOL_SOCKET, what ? SO_RCVBUFFORCE : SO_SNDBUFFORCE, &size, sizeof size))
            setsockopt(fd, SOL_SOCKET, what ? SO_RCVBUF : SO_SNDBUF, &size, sizeof size);
    if (bind(fd, (struct sockaddr *)&at, sizeof at)) die("bind");
    return fd;
}

/* Congestion experienced, in a datagram that can tell: IPv4 with its header checksum, or IPv6. */
static void mark(uint8_t *ether, size_t len)
{
    uint8_t *ip = ether + ETH_HLEN;
    uint16_t type = (uint16_t)(ether[12] << 8 | ether[13]);
    if (type == ETH_P_IP && len >= ETH_HLEN + 20 && (ip[1] & 3)) {
        uint16_t was = (uint16_t)(ip[0] << 8 | ip[1]), is = was | 3;
        uint32_t sum = (uint16_t) ~(ip[10] << 8 | ip[11]) + (uint32_t)(uint16_t)~was + is;
        sum = (sum & 0xffff) + (sum >> 16);
        sum = ~((sum & 0xffff) + (sum >> 16));
        ip[1] |= 3;
        ip[10] = (uint8_t)(sum >> 8);
        ip[11] = (uint8_t)sum;
    } else if (type == ETH_P_IPV6 && len >= ETH_HLEN + 40 && (ip[1] & 0x30)) {
        ip[1] |= 0x30;
    }
}

static void take(struct way *w)
{
    static uint8_t bytes[MAX_FRAME];
    const size_t head = sizeof(struct virtio_net_hdr);

    for (int i = 0; i < BATCH; i++) {
        ssize_t len = recv(w->from, bytes, sizeof bytes, 0);
        if (len < 0) return;
        if ((size_t)len < head + ETH_HLEN || w->tail - w->head == ROOM || chance(loss_ppm))
            continue;
        if (chance(mark_ppm)) mark(bytes + head, (size_t)len - head);
        struct frame *f = malloc(sizeof *f + (size_t)len);
        if (!f) die("malloc");
        f->due_ns = now_ns() + delay_ns;
        f->len = (uint32_t)len;
        memcpy(f->bytes, bytes, (size_t)len);
        w->frame[w->tail++ % ROOM] = f;
    }
}

/* Sends what is due; when the next one is, 0: none waits. */
static uint64_t give(struct way *w)
{
    while (w->head != w->tail) {
        struct frame *f = w->frame[w->head % ROOM];
        if (f->due_ns > now_ns()) return f->due_ns;
        if (send(w->to, f->bytes, f->len, 0) < 0 && errno == EAGAIN) return now_ns() + 100000;
        free(f);
        w->head++;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static struct way way[2];

    if (argc < 4) {
        fprintf(stderr, "usage: slow-wire PORT PORT DELAY_US [LOSS_PPM [MARK_PPM]]\n");
        return 2;
    }
    delay_ns = strtoull(argv[3], NULL, 10) * 1000;
    if (argc > 4) loss_ppm = (uint32_t)strtoul(argv[4], NULL, 10);
    if (argc > 5) mark_ppm = (uint32_t)strtoul(argv[5], NULL, 10);
    int port[2] = {open_port(argv[1]), open_port(argv[2])};
    for (int i = 0; i < 2; i++) {
        way[i].from = port[i];
        way[i].to = port[!i];
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        uint64_t due = 0;
        for (int i = 0; i < 2; i++) {
            take(&way[i]);
            uint64_t next = give(&way[i]);
            if (next && (due == 0 || next < due)) due = next;
        }
        uint64_t now = now_ns(), ns = due > now ? due - now : 0;
        struct timespec wait = {(time_t)(ns / SEC_NS), (long)(ns % SEC_NS)};
        struct pollfd fds[2] = {{port[0], POLLIN, 0}, {port[1], POLLIN, 0}};
        ppoll(fds, 2, due ? &wait : NULL, NULL);
    }
}
