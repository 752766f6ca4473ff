/* The daemon's request handlers under libFuzzer: a real server, registry and functions in a network
 * namespace of their own; the input is a run of messages on one connection. */
#include "../watch/netns.h"
#include "daemon/service.h"
#include <arpa/inet.h>
#include <net/if_arp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uv_loop_t loop;
static struct conf conf;
static struct registry registry;
static struct functions functions;
static struct service service = {.registry = &registry, .functions = &functions};
static struct ctl_listener listener;

static void add_link(uint32_t ifindex, const char *name, uint16_t type)
{
    struct watch_link l = {
        .ifindex = ifindex, .type = type, .mtu = 1500, .up = true, .carrier = true};

    strncpy(l.name, name, sizeof l.name - 1);
    registry_watch_ops.link(&registry, &l, false, (when_t){1});
    registry_settle(&registry);
}

static void remove_socket(void) { ctl_listener_close(&listener); }

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char path[64];

    snprintf(path, sizeof path, "/tmp/rbond-fuzz-%d.sock", (int)getpid());
    log_set_level(LOG_LEVEL_ERROR);
    if (!netns_enter()) {
        fprintf(stderr, "no right to make a network namespace\n");
        exit(77);
    }
    if (uv_loop_init(&loop) != 0 || functions_init(&functions, (when_t){1}) != 0 ||
        registry_init(&registry, &loop, &conf, &service_listener, &service) != 0 ||
        ctl_listen(&listener, path) != 0 ||
        ctl_server_new(&service.server, &loop, &listener, &service_ops, &service) != 0)
        abort();
    atexit(remove_socket);
    xrc_init(&service.xrc);
    add_link(1, "lo", ARPHRD_LOOPBACK);
    add_link(2, "a", ARPHRD_ETHER);
    add_link(3, "b", ARPHRD_ETHER);
    return 0;
}

static int dial(void)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    strncpy(sun.sun_path, listener.path, sizeof sun.sun_path - 1);
    if (connect(fd, (struct sockaddr *)&sun, sizeof sun) != 0) abort();
    return fd;
}

static void drain(int fd)
{
    static uint8_t reply[CTL_MAX_MSG];
    uint8_t control[1024];
    struct iovec iov = {reply, sizeof reply};

    for (;;) {
        struct msghdr mh = {.msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = control,
                            .msg_controllen = sizeof control};
        if (recvmsg(fd, &mh, MSG_DONTWAIT) <= 0) return;
        for (struct cmsghdr *cm = CMSG_FIRSTHDR(&mh); cm; cm = CMSG_NXTHDR(&mh, cm))
            for (size_t i = 0; i < (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
                int passed;
                memcpy(&passed, CMSG_DATA(cm) + i * sizeof passed, sizeof passed);
                close(passed);
            }
    }
}

/* Each message: a byte for its type, two for its length, the bytes. Header fields are put right in
 * most, so that what lies behind the codec is reached. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t msg[CTL_MAX_MSG];
    int fd = dial();

    while (size > 3) {
        struct ctl_hdr hdr = {.version = CTL_VERSION, .type = data[0] & 0x3f};
        size_t len = data[1] | (size_t)data[2] << 8;
        bool raw = data[0] & 0x80;
        data += 3;
        size -= 3;
        if (len > size) len = size;
        if (len > sizeof msg - sizeof hdr) len = sizeof msg - sizeof hdr;
        hdr.len = (uint32_t)(sizeof hdr + len);
        memcpy(msg, &hdr, sizeof hdr);
        memcpy(msg + (raw ? 0 : sizeof hdr), data, len);
        if (send(fd, msg, raw ? len : hdr.len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) break;
        data += len;
        size -= len;
        uv_run(&loop, UV_RUN_NOWAIT);
        drain(fd);
    }
    close(fd);
    for (unsigned i = 0; i < 3; i++) uv_run(&loop, UV_RUN_NOWAIT);
    return 0;
}
