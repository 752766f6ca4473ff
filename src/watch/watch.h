/* rtnetlink of this network namespace as typed facts: links and addresses. First a dump, then what
 * the kernel multicasts; when the kernel had to drop messages, a dump again. Holds no table: the
 * consumer does (daemon/registry.c). */
#ifndef RBOND_WATCH_WATCH_H
#define RBOND_WATCH_WATCH_H

#include "base/when.h"
#include "wire/gid.h"
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

struct watch_link {
    uint32_t ifindex;
    uint16_t type; /* ARPHRD_* */
    char name[IFNAMSIZ];
    char kind[16]; /* IFLA_INFO_KIND: "bridge", "veth", ...; "" for a physical one */
    uint8_t mac[6];
    bool has_mac;
    uint32_t mtu;
    uint32_t master;   /* ifindex, 0: none */
    uint8_t operstate; /* IF_OPER_* */
    bool up;           /* administratively */
    bool running;
    bool carrier;
};

struct watch_addr {
    uint32_t ifindex;
    struct gid addr;    /* IPv4 mapped */
    uint8_t prefix_len; /* of the family's own length */
    uint8_t scope;      /* RT_SCOPE_* */
    uint32_t flags;     /* IFA_F_* */
};

/* `gone`: it was deleted (only ifindex, name and addr count then). `when`: the message was read. */
struct watch_ops {
    void (*link)(void *ctx, const struct watch_link *link, bool gone, when_t when);
    void (*addr)(void *ctx, const struct watch_addr *addr, bool gone, when_t when);
    /* A dump begins: what is not told of until it ends is no more. */
    void (*dump_begin)(void *ctx);
    void (*dump_end)(void *ctx, when_t when);
};

struct watch;

/* Subscribes; no fact is told before watch_dump. Negative errno. */
int watch_new(struct watch **out, const struct watch_ops *ops, void *ctx);
void watch_free(struct watch *watch);
/* Readable when facts wait: then watch_read. */
int watch_fd(const struct watch *watch);
/* Tells of everything that is. */
int watch_dump(struct watch *watch);
/* Tells what has come; dumps by itself after a loss. Never blocks but for a dump. */
int watch_read(struct watch *watch);
uint64_t watch_overruns(const struct watch *watch);

#endif
