/* A broker with one device, whose address is on lo, in a network namespace of the test's own; and
 * programs that speak to it as librbond does: commands in, events out. */
#ifndef RBOND_TEST_DAEMON_PROG_H
#define RBOND_TEST_DAEMON_PROG_H

#include "daemon/cmbroker.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <rdma/rdma_user_cm.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define GUID 0x1122334455667788ull
#define PORT 7471
#define HERE 0x0a030001u
#define NEAR 0x0a040009u /* on va's link */

/* librdmacm's numbers, whose header cannot stand beside the kernel's. */
enum {
    ADDR_RESOLVED = 0,
    ADDR_ERROR = 1,
    ROUTE_RESOLVED = 2,
    CONNECT_REQUEST = 4,
    CONNECT_RESPONSE = 5,
    REJECTED = 8,
    ESTABLISHED = 9,
    DISCONNECTED = 10,
    DEVICE_REMOVAL = 11,
    MULTICAST_JOIN = 12,
    MULTICAST_ERROR = 13,
    TIMEWAIT_EXIT = 15
};

extern uv_loop_t loop;
extern struct cmbroker *broker;
extern struct device_state state;
extern bool removed; /* the device */

struct prog {
    struct cmbroker_channel *channel;
    struct ctl_cm_opened opened;
    int fd;
    uint8_t reply[CTL_CM_MAX_REPLY];
};

/* Root's. */
void open_prog(struct prog *p, pid_t pid);
/* 0 or cmbroker_open's error. */
int open_prog_of(struct prog *p, pid_t pid, uid_t uid);
void close_prog(struct prog *p);
ssize_t command_of(struct prog *p, uint32_t cmd, const void *body, size_t in);
#define COMMAND(p, name, ...)                                                                      \
    command_of(p, RDMA_USER_CM_CMD_##name, &(__VA_ARGS__), sizeof(__VA_ARGS__))

bool readable(int fd);
/* Runs the loop until an event waits, takes it, and wants it to be of this type. */
struct rdma_ucm_event_resp expect(struct prog *p, uint32_t type);
void expect_none(struct prog *p);

uint32_t create(struct prog *p, uint64_t uid, uint16_t ps);
uint32_t destroy(struct prog *p, uint32_t id); /* events reported */
struct sockaddr_in6 ipv4(uint32_t addr, uint16_t port);
ssize_t bind_to(struct prog *p, uint32_t id, struct sockaddr_in6 addr);
ssize_t resolve(struct prog *p, uint32_t id, uint32_t addr);

/* 0, 77 where no namespace can be made, 1 where no network can. */
int prog_network(void);
int prog_set_up(void **state);
int prog_tear_down(void **state);

#endif
