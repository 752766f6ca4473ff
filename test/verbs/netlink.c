/* An RDMA netlink socket of a program's is a descriptor like any: it polls, is duplicated,
 * inherited and closed; and what the program sends need not be a request. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <poll.h>
#include <rdma/rdma_netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAIT_MS 20000
#define MANY 2000

static const char *name; /* of the device */

static int open_netlink(int flags)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | flags, NETLINK_RDMA);
    assert_true(fd >= 0);
    return fd;
}

/* A dump of all devices, as number `seq`. */
static size_t write_dump(void *at, uint32_t seq)
{
    struct nlmsghdr *nlh = mnl_nlmsg_put_header(at);

    nlh->nlmsg_type = RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_GET);
    nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    nlh->nlmsg_seq = seq;
    return nlh->nlmsg_len;
}

static void ask(int fd)
{
    uint8_t request[64];
    size_t len = write_dump(request, 1);

    assert_int_equal(send(fd, request, len, 0), len);
}

static int each(const struct nlmsghdr *nlh, void *found)
{
    const struct nlattr *attr;

    mnl_attr_for_each(attr, nlh, 0) if (mnl_attr_get_type(attr) == RDMA_NLDEV_ATTR_DEV_NAME) *
        (bool *)found |= !strcmp(mnl_attr_get_str(attr), name);
    return MNL_CB_OK;
}

/* The whole answer to `ask`, with the device in it, from the kernel's address. */
static bool told(int fd)
{
    _Alignas(8) uint8_t buf[4096];
    struct sockaddr_nl from;
    struct iovec iov = {buf, sizeof buf};
    struct msghdr msg = {
        .msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &iov, .msg_iovlen = 1};
    bool found = false;
    int rc = MNL_CB_OK;

    while (rc == MNL_CB_OK) {
        ssize_t n = recvmsg(fd, &msg, 0);
        if (n <= 0 || msg.msg_namelen != sizeof from || from.nl_family != AF_NETLINK || from.nl_pid)
            return false;
        rc = mnl_cb_run(buf, (size_t)n, 1, 0, each, &found);
    }
    return found && rc == MNL_CB_STOP;
}

static unsigned descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned n = 0;

    assert_non_null(dir);
    while (readdir(dir)) n++;
    closedir(dir);
    return n;
}

static void nothing_waits(int fd)
{
    char byte;

    assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
}

/* ---- as a library uses it ---------------------------------------------------------------- */

static void names_itself(void **state)
{
    struct mnl_socket *nl = mnl_socket_open(NETLINK_RDMA);
    int one = 1;

    assert_non_null(nl);
    assert_int_equal(mnl_socket_setsockopt(nl, NETLINK_CAP_ACK, &one, sizeof one), 0);
    assert_int_equal(mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID), 0);
    assert_int_not_equal(mnl_socket_get_portid(nl), 0);
    ask(mnl_socket_get_fd(nl));
    assert_true(told(mnl_socket_get_fd(nl)));
    assert_int_equal(mnl_socket_close(nl), 0);
}

static void takes_every_call(void **state)
{
    uint8_t request[64];
    size_t len = write_dump(request, 1);
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK}, from;
    socklen_t fromlen = sizeof from;
    char answer[4096];
    struct iovec iov[2] = {{request, 5}, {request + 5, len - 5}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    int fd = open_netlink(0);

    assert_int_equal(write(fd, request, len), len);
    assert_true(told(fd));
    assert_int_equal(sendto(fd, request, len, 0, (struct sockaddr *)&kernel, sizeof kernel), len);
    assert_true(told(fd));
    assert_int_equal(sendmsg(fd, &msg, 0), len);
    assert_true(told(fd));
    ask(fd);
    from.nl_pid = 1;
    assert_true(recvfrom(fd, answer, sizeof answer, 0, (struct sockaddr *)&from, &fromlen) > 0);
    assert_int_equal(fromlen, sizeof from);
    assert_int_equal(from.nl_family, AF_NETLINK);
    assert_int_equal(from.nl_pid, 0);
    nothing_waits(fd);
    close(fd);
}

static void polls(void **state)
{
    int fd = open_netlink(SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    char byte;

    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(poll(&pfd, 1, 0), 0);
    assert_int_equal(recv(fd, &byte, 1, 0), -1);
    assert_int_equal(errno, EAGAIN);
    ask(fd);
    assert_int_equal(poll(&pfd, 1, WAIT_MS), 1);
    assert_true(told(fd));
    close(fd);
}

/* ---- as a descriptor --------------------------------------------------------------------- */

static void is_duplicated_and_closed(void **state)
{
    const unsigned before = descriptors();
    int fd = open_netlink(0), second = dup(fd), pair[2];
    char byte = 'x';

    ask(second);
    close(fd);
    assert_true(told(second));
    ask(second);
    assert_true(told(second));
    close(second);
    assert_int_equal(descriptors(), before);

    /* The number is somebody else's now. */
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(send(pair[0], &byte, 1, 0), 1);
    assert_int_equal(recv(pair[1], &byte, 1, 0), 1);
    close(pair[0]);
    close(pair[1]);

    /* Closed behind our back: found at the next. */
    fd = open_netlink(0);
    assert_int_equal(dup2(STDERR_FILENO, fd), fd);
    close(fd);
    close(open_netlink(0));
    assert_int_equal(descriptors(), before);
}

static void is_inherited(void **state)
{
    int fd = open_netlink(0), status;
    pid_t child = fork();

    if (!child) {
        ask(fd);
        bool ok = told(fd);
        close(fd);
        _exit(ok ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    ask(fd);
    assert_true(told(fd));
    close(fd);
}

/* ---- what is no request ------------------------------------------------------------------ */

static void survives_noise(void **state)
{
    static char big[70000];
    uint8_t request[64];
    size_t len = write_dump(request, 1);
    struct nlmsghdr *nlh = (void *)request;
    int fd = open_netlink(0);

    assert_int_equal(send(fd, "abc", 3, 0), 3);
    assert_int_equal(send(fd, "", 0, 0), 0);
    nlh->nlmsg_len = 4;
    assert_int_equal(send(fd, request, len, 0), len);
    nlh->nlmsg_len = 4000;
    assert_int_equal(send(fd, request, len, 0), len);
    nothing_waits(fd);
    assert_int_equal(send(fd, big, sizeof big, 0), -1);
    assert_int_equal(errno, EMSGSIZE);
    ask(fd);
    assert_true(told(fd));
    close(fd);
}

/* More answers than the socket holds: they come as they are taken. */
static void keeps_what_has_no_room(void **state)
{
    static uint8_t requests[MANY * 16];
    uint8_t buf[4096];
    size_t len = 0;
    unsigned ends = 0;
    int fd = open_netlink(SOCK_NONBLOCK);
    ssize_t n;

    for (uint32_t i = 0; i < MANY; i++) len += write_dump(requests + len, i);
    for (int i = 0; i < 4; i++) assert_int_equal(send(fd, requests, len, 0), len);
    while ((n = recv(fd, buf, sizeof buf, 0)) > 0) {
        const struct nlmsghdr *m = (const void *)buf;
        int left = (int)n;
        for (; mnl_nlmsg_ok(m, left); m = mnl_nlmsg_next(m, &left))
            if (m->nlmsg_type == NLMSG_DONE) assert_int_equal(m->nlmsg_seq, ends++ % MANY);
    }
    assert_int_equal(ends, 4 * MANY);
    close(fd);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_itself),
        cmocka_unit_test(takes_every_call),
        cmocka_unit_test(polls),
        cmocka_unit_test(is_duplicated_and_closed),
        cmocka_unit_test(is_inherited),
        cmocka_unit_test(survives_noise),
        cmocka_unit_test(keeps_what_has_no_room),
    };

    name = argc > 1 ? argv[1] : "";
    return cmocka_run_group_tests(tests, NULL, NULL);
}
