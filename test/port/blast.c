/* How fast the UDP port moves packets from one namespace to another, without a protocol above:
 * `blast [MTU] [PAYLOAD] [ipv4|ipv6]` prints Gb/s and what was lost. */
#include "net.h"
#include "packets.h"
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static _Atomic uint64_t got_bytes, got_packets;
static atomic_bool done;
static struct packets pk;

static void count(void *ctx, const struct hca_rx *rx)
{
    atomic_fetch_add_explicit(&got_bytes, rx->len, memory_order_relaxed);
    atomic_fetch_add_explicit(&got_packets, 1, memory_order_relaxed);
}

static void *receiver(void *arg)
{
    struct port *port = arg;
    while (!atomic_load(&done)) {
        if (port->ops->rx(port, count, NULL) > 0) continue;
        struct pollfd pfd = {.fd = port->rx_fd, .events = POLLIN};
        poll(&pfd, 1, 10);
    }
    return NULL;
}

static double seconds(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    int mtu = argc > 1 ? atoi(argv[1]) : 9000;
    uint32_t payload = argc > 2 ? (uint32_t)atoi(argv[2]) : 4096;
    bool ipv4 = argc <= 3 || strcmp(argv[3], "ipv6") != 0;
    if (!net_up(mtu)) return 77;
    struct port *a = packets_port(0, HOST_A, port_udp_rx_socket(), 4);
    net_enter(HOST_B);
    struct port *b = packets_port(0, HOST_B, port_udp_rx_socket(), 1);
    net_enter(HOST_A);
    for (int i = 0; i < PORT_BURST; i++) packets_add(&pk, ipv4, 5, payload, payload ? 1 : 0);
    pthread_t thread;
    pthread_create(&thread, NULL, receiver, b);
    double start = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), elapsed;
    do {
        a->ops->tx(a, pk.tx, pk.n);
        elapsed = seconds(CLOCK_MONOTONIC) - start;
    } while (elapsed < 2);
    atomic_store(&done, true);
    pthread_join(thread, NULL);
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    printf("mtu %d payload %u %s: sent %.1f Gb/s, received %.1f Gb/s, %.2f Mpkt/s, lost %.1f %%, "
           "%.0f CPU ns a packet\n",
           mtu, payload, ipv4 ? "ipv4" : "ipv6",
           (double)a->stats.tx_packets * (payload + 16) * 8e-9 / elapsed,
           (double)got_bytes * 8e-9 / elapsed, (double)got_packets * 1e-6 / elapsed,
           100.0 - 100.0 * (double)got_packets / (double)a->stats.tx_packets,
           cpu * 1e9 / (double)got_packets);
    return 0;
}
