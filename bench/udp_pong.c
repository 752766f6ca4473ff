/* UDP ping-pong between two hosts: what a round trip costs on this link before any RDMA protocol.
 *   udp_pong [-b] [-s BYTES] [-n ROUNDS] [HOST]    without HOST: the echoing side, until killed
 * Prints the median half round trip in microseconds, which is what perftest calls latency. -b spins
 * on the socket instead of sleeping in it. */
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORT "7007"
#define MAX_BYTES 8192
#define LOST_SECONDS 2

static double now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Bound without a host, connected with one. */
static int open_socket(const char *host)
{
    struct addrinfo hints = {.ai_family = host ? AF_UNSPEC : AF_INET6,
                             .ai_socktype = SOCK_DGRAM,
                             .ai_flags = host ? 0 : AI_PASSIVE};
    struct addrinfo *found;
    int fd;

    if (getaddrinfo(host, PORT, &hints, &found)) return -1;
    fd = socket(found->ai_family, SOCK_DGRAM, 0);
    if (fd >= 0 && (host ? connect : bind)(fd, found->ai_addr, found->ai_addrlen)) {
        close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    return fd;
}

static _Noreturn void echo(int fd, int flags)
{
    static char bytes[MAX_BYTES];
    struct sockaddr_storage from;

    for (;;) {
        socklen_t len = sizeof from;
        ssize_t got = recvfrom(fd, bytes, sizeof bytes, flags, (struct sockaddr *)&from, &len);

        if (got >= 0) sendto(fd, bytes, (size_t)got, 0, (struct sockaddr *)&from, len);
    }
}

static bool round_trip(int fd, size_t size, int flags)
{
    static char bytes[MAX_BYTES];
    double sent = now_us();

    if (send(fd, bytes, size, 0) != (ssize_t)size) return false;
    while (recv(fd, bytes, sizeof bytes, flags) < 0)
        if (now_us() - sent > LOST_SECONDS * 1e6) return false;
    return true;
}

static int measure(int fd, size_t size, size_t rounds, int flags)
{
    struct timeval patience = {.tv_sec = LOST_SECONDS};
    double *took = calloc(rounds, sizeof *took);

    if (!took) return 1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    for (size_t i = 0; i < rounds; i++) {
        double begin = now_us();

        if (!round_trip(fd, size, flags)) {
            fprintf(stderr, "udp_pong: no answer\n");
            free(took);
            return 1;
        }
        took[i] = (now_us() - begin) / 2;
    }
    qsort(took, rounds, sizeof *took, by_value);
    printf("%.2f\n", took[rounds / 2]);
    free(took);
    return 0;
}

int main(int argc, char **argv)
{
    size_t size = 64, rounds = 10000;
    int flags = 0, option, fd;

    while ((option = getopt(argc, argv, "bs:n:")) != -1) {
        if (option == 'b')
            flags = MSG_DONTWAIT;
        else if (option == 's')
            size = (size_t)atoi(optarg);
        else if (option == 'n')
            rounds = (size_t)atoi(optarg);
        else
            return 2;
    }
    fd = open_socket(argv[optind]);
    if (fd < 0 || !size || size > MAX_BYTES || !rounds) {
        fprintf(stderr, "udp_pong: cannot open the socket, or a size or count out of range\n");
        return 1;
    }
    if (!argv[optind]) echo(fd, flags);
    return measure(fd, size, rounds, flags);
}
