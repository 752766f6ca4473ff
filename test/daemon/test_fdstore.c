/* rbondd under a service manager that keeps descriptors (here: this test) is killed, and the next
 * one has its sockets: no order is lost while there is none, and nobody waits for anybody. */
#include "hca/hca.h"
#include "live.h"
#include <arpa/inet.h>
#include <poll.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { PROGRAMS = 3 };

static struct live live;
static int manager;
static char place[64];

/* ---- the manager ------------------------------------------------------------------------- */

static int kept[64];
static unsigned nkept;

static void manager_start(void)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};

    snprintf(place, sizeof place, "/tmp/rbond-notify-%d", (int)getpid());
    snprintf(at.sun_path, sizeof at.sun_path, "%s", place);
    manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(manager, (struct sockaddr *)&at, sizeof at), 0);
    setenv("NOTIFY_SOCKET", place, 1);
}

/* What rbondd has sent until now. */
static void manager_listen(void)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    char text[128], want[64];
    struct iovec iov = {text, sizeof text - 1};
    ssize_t n;

    for (;;) {
        struct msghdr mh = {.msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = &control,
                            .msg_controllen = sizeof control};
        n = recvmsg(manager, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0) return;
        text[n] = 0;
        snprintf(want, sizeof want, "FDSTORE=1\nFDPOLL=0\nFDNAME=rbond1-%u", nkept);
        assert_string_equal(text, want);
        assert_non_null(CMSG_FIRSTHDR(&mh));
        memcpy(&kept[nkept++], CMSG_DATA(CMSG_FIRSTHDR(&mh)), sizeof(int));
    }
}

/* Starts rbondd with what is kept, all but the first `without`. */
static void start_again(unsigned without)
{
    char names[1024] = "", number[16];

    live.pid = fork();
    if (live.pid == 0) {
        for (unsigned i = 0; i < nkept - without; i++) { /* above all that is open */
            int fd = fcntl(kept[i + without], F_DUPFD_CLOEXEC, 200);
            snprintf(names + strlen(names), sizeof names - strlen(names), "%srbond1-%u",
                     i ? ":" : "", i + without);
            kept[i + without] = fd;
        }
        for (unsigned i = 0; i < nkept - without; i++) dup2(kept[i + without], 3 + (int)i);
        snprintf(number, sizeof number, "%u", nkept - without);
        setenv("LISTEN_FDS", number, 1);
        setenv("LISTEN_FDNAMES", names, 1);
        snprintf(number, sizeof number, "%d", (int)getpid());
        setenv("LISTEN_PID", number, 1);
        execl(getenv("RBONDD"), "rbondd", "--socket", live.path, "--config", live.config, "-l",
              "error", NULL);
        _exit(127);
    }
}

/* ---- packets ----------------------------------------------------------------------------- */

static void send_to(unsigned function)
{
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(4791)};
    uint32_t qpn = function << HCA_INDEX_BITS;
    uint8_t bth[16] = {[5] = (uint8_t)(qpn >> 16), (uint8_t)(qpn >> 8), (uint8_t)qpn};
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);

    to.sin6_addr = in6addr_loopback;
    assert_int_equal(sendto(fd, bth, sizeof bth, 0, (struct sockaddr *)&to, sizeof to), 16);
    close(fd);
}

static bool hears(int fd)
{
    char got[64];
    return recv(fd, got, sizeof got, MSG_DONTWAIT) == 16;
}

static int reclaim(struct ctl_client *c, unsigned number, int *rx_fd)
{
    struct ctl_reclaim wanted = {.name = "rb_va0", .function = number};
    struct ctl_reply r;
    int rc = ctl_call(c, CTL_RECLAIM, &wanted, sizeof wanted, sizeof(struct ctl_opened), &r);

    if (rc == 0) {
        *rx_fd = r.fds[2];
        r.fds[2] = -1;
    }
    ctl_reply_free(&r);
    return rc;
}

/* ---- the tests --------------------------------------------------------------------------- */

static void kill_it(void)
{
    kill(live.pid, SIGKILL);
    assert_int_equal(exit_code(live.pid), -SIGKILL);
}

static void test_killed_and_back(void **state)
{
    struct ctl_client *c[PROGRAMS], *again, *fresh;
    struct opened o[PROGRAMS], new;
    int rx = -1;

    for (int i = 0; i < PROGRAMS; i++) {
        c[i] = live_connect(&live);
        assert_int_equal(open_device(c[i], "rb_va0", &o[i]), 0);
        assert_int_equal(o[i].info.function, i + 1);
    }
    manager_listen();
    assert_int_equal(nkept, 1 + PROGRAMS);
    kill_it();
    close_opened(&o[0]); /* a program ends */
    for (unsigned n = 2; n <= 3; n++) {
        send_to(n);
        assert_true(hears(o[n - 1].rx_fd));
    }
    start_again(0);
    again = live_connect(&live);
    uint64_t began = now_ns();
    close(o[2].rx_fd);
    assert_int_equal(reclaim(again, 3, &rx), 0); /* the second has not come yet */
    assert_true(now_ns() - began < 5 * SEC_NS);
    send_to(3);
    assert_true(hears(rx));
    send_to(2);
    assert_true(hears(o[1].rx_fd));
    fresh = live_connect(&live);
    assert_int_equal(open_device(fresh, "rb_va0", &new), 0);
    assert_int_equal(new.info.function, 4); /* the others' owners may be about to come */
    send_to(4);
    assert_true(hears(new.rx_fd));
    manager_listen();
    assert_int_equal(nkept, 2 + PROGRAMS);
    close(rx);
    close(o[1].rx_fd);
    close_opened(&new);
    for (int i = 0; i < PROGRAMS; i++) ctl_close(c[i]);
    ctl_close(again);
    ctl_close(fresh);
}

/* A store with a gap has another order than the group: it is not taken. */
static void test_gap(void **state)
{
    struct opened o;

    kill_it();
    start_again(1);
    for (unsigned i = 0; i < nkept; i++) close(kept[i]);
    nkept = 0;
    struct ctl_client *c = live_connect(&live);
    assert_int_equal(open_device(c, "rb_va0", &o), 0); /* once all are closed */
    send_to(o.info.function);
    assert_true(hears(o.rx_fd));
    close_opened(&o);
    ctl_close(c);
    manager_listen();
    assert_int_equal(nkept, 1 + o.info.function);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_killed_and_back),
                                       cmocka_unit_test(test_gap)};

    if (!netns_enter()) return 77; /* skipped */
    sh("ip link set lo up; ip link add va0 type veth peer name vb0;"
       "ip link set va0 up; ip link set vb0 up");
    manager_start();
    live_start(&live, "{}");
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    kill(live.pid, SIGTERM);
    exit_code(live.pid);
    unlink(live.config);
    rmdir(live.dir);
    unlink(place);
    return rc;
}
