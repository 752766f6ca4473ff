/* Random and malformed RoCE v2 datagrams to UDP 4791 of a host:
 *   storm [-v] FROM TO COUNT SEED [QPN...]
 * FROM and TO are IPv4 addresses, FROM one of ours. Half of the datagrams are noise of any length;
 * the others have headers of a random opcode, any of the 256, for queue pair numbers that are
 * likely to be in use. Without -v their ICRC is wrong, so that none may have an effect; with -v it
 * is right. */
#include "wire/icrc.h"
#include "wire/roce.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH 64
#define MAX_BYTES 1200
#define MAX_NOISE 300
#define MAX_TARGETS 64

static uint64_t state;

/* SplitMix64: one seed, one storm. */
static uint64_t draw(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static void noise(uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) bytes[i] = (uint8_t)draw();
}

static uint32_t targets[MAX_TARGETS] = {1};
static size_t ntargets = 1;

static void aim(uint8_t *roce)
{
    uint32_t qpn = draw() % 8 ? targets[draw() % ntargets] : (uint32_t)draw();
    uint32_t psn = (uint32_t)draw();

    roce[0] = (uint8_t)draw();
    roce[1] = (uint8_t)(draw() & (draw() % 4 ? 0xb0 : 0xff)); /* mostly TVer 0 */
    roce[2] = roce[3] = 0xff;
    for (int i = 0; i < 3; i++) {
        roce[5 + i] = (uint8_t)(qpn >> (16 - 8 * i));
        roce[9 + i] = (uint8_t)(psn >> (16 - 8 * i));
    }
}

static void seal(uint8_t *roce, size_t len, const struct sockaddr_in *from,
                 const struct sockaddr_in *to, bool valid)
{
    struct icrc_path path = {.sport = ntohs(from->sin_port),
                             .dport = ROCE_UDP_PORT,
                             .df = true,
                             .udp_len = (uint16_t)(8 + len + ROCE_ICRC_LEN)};
    uint32_t icrc, wrong = (uint32_t)draw();
    uint16_t id;

    memset(&path.src, 0, sizeof path.src);
    memset((uint8_t *)&path.src + 10, 0xff, 2);
    path.dst = path.src;
    memcpy((uint8_t *)&path.src + 12, &from->sin_addr, 4);
    memcpy((uint8_t *)&path.dst + 12, &to->sin_addr, 4);
    icrc = icrc_of(&path, roce, len);
    while (!valid && icrc_explained_v4(icrc, wrong, len, &id)) wrong = (uint32_t)draw();
    if (!valid) icrc = wrong;
    for (int i = 0; i < 4; i++) roce[len + (size_t)i] = (uint8_t)(icrc >> (8 * i));
}

static size_t compose(uint8_t *bytes, const struct sockaddr_in *from, const struct sockaddr_in *to,
                      bool valid)
{
    size_t len;

    if (draw() & 1) {
        len = draw() % MAX_NOISE;
        noise(bytes, len);
        return len;
    }
    len = ROCE_BTH_LEN + draw() % (draw() % 8 ? 64 : MAX_BYTES - 64);
    noise(bytes, len);
    aim(bytes);
    seal(bytes, len, from, to, valid);
    return len + ROCE_ICRC_LEN;
}

static bool storm(int fd, const struct sockaddr_in *from, struct sockaddr_in *to,
                  unsigned long count, bool valid)
{
    static uint8_t bytes[BATCH][MAX_BYTES];
    struct iovec iov[BATCH];
    struct mmsghdr messages[BATCH];

    memset(messages, 0, sizeof messages);
    for (unsigned long sent = 0; sent < count;) {
        int n = count - sent < BATCH ? (int)(count - sent) : BATCH;

        for (int i = 0; i < n; i++) {
            iov[i].iov_base = bytes[i];
            iov[i].iov_len = compose(bytes[i], from, to, valid);
            messages[i].msg_hdr.msg_iov = &iov[i];
            messages[i].msg_hdr.msg_iovlen = 1;
            messages[i].msg_hdr.msg_name = to;
            messages[i].msg_hdr.msg_namelen = sizeof *to;
        }
        n = sendmmsg(fd, messages, (unsigned)n, 0);
        if (n < 0) return false;
        sent += (unsigned long)n;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct sockaddr_in from = {.sin_family = AF_INET},
                       to = {.sin_family = AF_INET, .sin_port = htons(ROCE_UDP_PORT)};
    socklen_t len = sizeof from;
    bool valid = argc > 1 && !strcmp(argv[1], "-v");
    int discover = IP_PMTUDISC_DO, fd = socket(AF_INET, SOCK_DGRAM, 0);

    argv += valid;
    if (argc - valid < 5 || argc - valid > 5 + MAX_TARGETS - 1 ||
        inet_pton(AF_INET, argv[1], &from.sin_addr) != 1 ||
        inet_pton(AF_INET, argv[2], &to.sin_addr) != 1) {
        fprintf(stderr, "usage: storm [-v] FROM TO COUNT SEED [QPN...]\n");
        return 2;
    }
    state = strtoull(argv[4], NULL, 0);
    for (int i = 5; argv[i]; i++) targets[ntargets++] = (uint32_t)strtoul(argv[i], NULL, 0);
    /* Don't-fragment on an unconnected socket: identification 0, which the ICRC covers. */
    if (fd < 0 || setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &discover, sizeof discover) ||
        bind(fd, (struct sockaddr *)&from, sizeof from) ||
        getsockname(fd, (struct sockaddr *)&from, &len) ||
        !storm(fd, &from, &to, strtoul(argv[3], NULL, 0), valid)) {
        perror("storm");
        return 1;
    }
    return 0;
}
