/* Sends a storm to UDP 4791 of a host, for tests of the whole system:
 * `storm ADDRESS [-n COUNT] [-s SEED] [-q QPN]...`. Seven in eight datagrams have the right ICRC.
 */
#include "base/bits.h"
#include "port/port.h"
#include "storm.h"
#include "wire/icrc.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH 64

static int usage(void)
{
    fprintf(stderr, "usage: storm ADDRESS [-n COUNT] [-s SEED] [-q QPN]...\n");
    return 2;
}

static bool parse_address(const char *text, struct sockaddr_in6 *to)
{
    char mapped[64];
    *to = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(ROCE_UDP_PORT)};
    if (inet_pton(AF_INET6, text, &to->sin6_addr) == 1) return true;
    snprintf(mapped, sizeof mapped, "::ffff:%s", text);
    return inet_pton(AF_INET6, mapped, &to->sin6_addr) == 1;
}

/* The source address that the kernel would choose. */
static bool source_for(const struct sockaddr_in6 *to, struct gid *src)
{
    struct sockaddr_in6 self;
    socklen_t len = sizeof self;
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool ok = connect(fd, (const struct sockaddr *)to, sizeof *to) == 0 &&
              getsockname(fd, (struct sockaddr *)&self, &len) == 0;
    if (ok) memcpy(src->raw, &self.sin6_addr, 16);
    close(fd);
    return ok;
}

struct batch {
    struct mmsghdr msg[BATCH];
    struct iovec iov[BATCH];
    uint8_t buf[BATCH][STORM_MAX_LEN + ROCE_ICRC_LEN];
};

static unsigned fill(struct batch *b, struct storm *s, struct icrc_path *path, uint64_t left)
{
    unsigned n = left < BATCH ? (unsigned)left : BATCH;
    for (unsigned i = 0; i < n; i++) {
        size_t len = storm_make(s, b->buf[i]);
        if (len >= ROCE_BTH_LEN) {
            path->udp_len = (uint16_t)(8 + len + ROCE_ICRC_LEN);
            uint32_t icrc = icrc_of(path, b->buf[i], len);
            if (storm_chance(s, 8)) icrc ^= (uint32_t)storm_random(s);
            put_be32(b->buf[i] + len, __builtin_bswap32(icrc));
            len += ROCE_ICRC_LEN;
        }
        b->iov[i] = (struct iovec){b->buf[i], len};
    }
    return n;
}

int main(int argc, char **argv)
{
    static struct batch b;
    static struct storm s;
    uint64_t count = 1000000, seed = 1, sent = 0;
    struct sockaddr_in6 to, self;
    struct icrc_path path = {.dport = ROCE_UDP_PORT, .df = true};
    qpn_t near_qpn[STORM_MAX_NEAR];
    size_t nqpn = 0;
    int opt;

    while ((opt = getopt(argc, argv, "n:s:q:")) != -1) {
        if (opt == 'n')
            count = strtoull(optarg, NULL, 0);
        else if (opt == 's')
            seed = strtoull(optarg, NULL, 0);
        else if (opt == 'q' && nqpn < STORM_MAX_NEAR)
            near_qpn[nqpn++] = (qpn_t)strtoul(optarg, NULL, 0) & 0xffffff;
        else
            return usage();
    }
    if (optind + 1 != argc || !parse_address(argv[optind], &to)) return usage();
    storm_init(&s, seed);
    memcpy(s.qpn, near_qpn, sizeof near_qpn);
    s.nqpn = nqpn;

    int fd = port_udp_tx_socket();
    socklen_t len = sizeof self;
    if (fd < 0 || getsockname(fd, (struct sockaddr *)&self, &len) != 0 ||
        !source_for(&to, &path.src)) {
        fprintf(stderr, "storm: %s: %s\n", argv[optind], strerror(errno));
        return 1;
    }
    path.sport = ntohs(self.sin6_port);
    memcpy(path.dst.raw, &to.sin6_addr, 16);
    for (unsigned i = 0; i < BATCH; i++)
        b.msg[i].msg_hdr = (struct msghdr){
            .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &b.iov[i], .msg_iovlen = 1};
    while (sent < count) {
        unsigned n = fill(&b, &s, &path, count - sent);
        for (unsigned done = 0; done < n;) {
            int rc = sendmmsg(fd, b.msg + done, n - done, 0);
            if (rc < 0 && errno != EAGAIN) {
                fprintf(stderr, "storm: %s: %s\n", argv[optind], strerror(errno));
                return 1;
            }
            if (rc > 0) done += (unsigned)rc;
        }
        sent += n;
    }
    printf("storm: %llu datagrams to %s, seed %llu\n", (unsigned long long)sent, argv[optind],
           (unsigned long long)seed);
    return 0;
}
