/* rbondd: who takes part in the XRC domain of a file (CTL_XRCD). */
#include "live.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static struct live live;
static struct ctl_client *owner; /* of the function `o` */
static struct opened o;
static int file;

static int start(void **state)
{
    char name[] = "/tmp/rbond-test-xrc-XXXXXX";
    (void)state;

    file = mkstemp(name);
    assert_true(file >= 0);
    unlink(name);
    live_start(&live, "{}");
    owner = live_connect(&live);
    assert_int_equal(open_device(owner, "rb_va0", &o), 0);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    ctl_close(owner);
    close_opened(&o);
    live_stop(&live);
    close(file);
    return 0;
}

static int claim(struct ctl_client *c, unsigned function, unsigned flags, int fd)
{
    struct ctl_xrcd xrcd = {.function = function, .flags = flags};
    struct ctl_reply r;
    int rc = ctl_call_with(c, CTL_XRCD, &xrcd, sizeof xrcd, fd, 0, &r);

    ctl_reply_free(&r);
    return rc;
}

/* On a connection that ends with it. */
static int try_claim(unsigned function, unsigned flags, int fd)
{
    struct ctl_client *c = live_connect(&live);
    int rc = claim(c, function, flags, fd);

    ctl_close(c);
    return rc;
}

/* The file must be open, and the function there. */
static void test_proof(void **state)
{
    char path[32];
    (void)state;

    assert_int_equal(try_claim(o.info.function, CTL_XRCD_CREATE, -1), -EBADF);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    int seen = open(path, O_PATH); /* anybody who finds the file has that */
    assert_true(seen >= 0);
    assert_int_equal(try_claim(o.info.function, CTL_XRCD_CREATE, seen), -EBADF);
    close(seen);
    assert_int_equal(try_claim(o.info.function + 1, CTL_XRCD_CREATE, file), -ENODEV);
    assert_int_equal(try_claim(0, CTL_XRCD_CREATE, file), -ENODEV);
    assert_int_equal(try_claim(o.info.function, 4, file), -EINVAL);
    assert_int_equal(try_claim(o.info.function, 0, file), -ENOENT);

    struct ctl_client *c = live_connect(&live);
    assert_int_equal(claim(c, o.info.function, CTL_XRCD_CREATE, file), 0);
    assert_int_equal(claim(c, o.info.function, CTL_XRCD_CREATE, file), -EINVAL); /* one each */
    ctl_close(c);
}

static void test_another_users_function(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        if (setgid(54321) != 0 || setuid(54321) != 0) _exit(77);
        _exit(-try_claim(o.info.function, CTL_XRCD_CREATE, file));
    }
    int code = exit_code(pid);
    if (code == 77) skip(); /* a user namespace of one user */
    assert_int_equal(code, EPERM);
}

/* What a claim holds is that file, also when its name leads to another one. */
static void test_files(void **state)
{
    struct ctl_client *c = live_connect(&live);
    int twin = dup(file), other = open("/proc/self/exe", O_RDONLY);
    struct ctl_client *second = live_connect(&live);
    struct opened p;
    (void)state;

    assert_int_equal(open_device(second, "rb_va0", &p), 0);
    assert_int_equal(claim(c, o.info.function, CTL_XRCD_CREATE, file), 0);
    assert_int_equal(try_claim(p.info.function, CTL_XRCD_CREATE | CTL_XRCD_EXCL, twin), -EEXIST);
    assert_int_equal(try_claim(p.info.function, 0, twin), 0);
    assert_int_equal(try_claim(o.info.function, 0, other), -ENOENT);
    assert_int_equal(try_claim(o.info.function, CTL_XRCD_CREATE, other), 0);
    ctl_close(c);
    for (int i = 0; try_claim(p.info.function, 0, file) != -ENOENT; i++) {
        assert_true(i < 500);
        usleep(10000);
    }
    ctl_close(second);
    close_opened(&p);
    close(twin);
    close(other);
}

/* A function opens what it has closed just now, perhaps before rbondd has heard of that. */
static void test_claimed_anew(void **state)
{
    struct ctl_client *c[2] = {live_connect(&live), live_connect(&live)};
    const unsigned how = CTL_XRCD_CREATE | CTL_XRCD_EXCL;
    (void)state;

    for (int i = 0; i < 2; i++) assert_int_equal(claim(c[i], o.info.function, how, file), 0);
    ctl_close(c[0]);
    c[0] = live_connect(&live);
    assert_int_equal(claim(c[0], o.info.function, 0, file), -ENOENT);
    assert_int_equal(claim(c[0], o.info.function, how, file), 0);
    ctl_close(c[1]);
    ctl_close(c[0]);
}

/* The claim of a function that has ended is none of the next one's of that number. */
static void test_function_ends(void **state)
{
    struct ctl_client *c = live_connect(&live), *next;
    struct opened p;
    (void)state;

    next = live_connect(&live);
    assert_int_equal(open_device(next, "rb_va0", &p), 0);
    assert_int_equal(claim(c, p.info.function, CTL_XRCD_CREATE, file), 0);
    ctl_close(next);
    close_opened(&p);
    for (int i = 0; try_claim(o.info.function, 0, file) != -ENOENT; i++) {
        assert_true(i < 500);
        usleep(10000);
    }
    ctl_close(c);
}

/* The lines that an introduction brings: to call, to be called. */
static uint32_t await_peer(struct ctl_client *c, int lines[2])
{
    struct ctl_event event;
    int fds[CTL_MAX_FDS], rc = 0;
    size_t n;

    for (int i = 0; i < 3000 && rc == 0; i++) {
        rc = ctl_next_event_with(c, &event, fds, &n);
        if (rc == 0) usleep(1000);
        if (rc == 1 && n == 0) rc = 0; /* all have been named that were there */
    }
    assert_int_equal(rc, 1);
    assert_int_equal(event.type, CTL_EV_XRC_PEER);
    assert_int_equal(n, 2);
    memcpy(lines, fds, sizeof fds[0] * 2);
    return event.value;
}

static void goes_through(int from, int to, const char *word)
{
    char got[16] = "";

    assert_int_equal(send(from, word, strlen(word), 0), strlen(word));
    assert_int_equal(recv(to, got, sizeof got, MSG_DONTWAIT), strlen(word));
    assert_string_equal(got, word);
}

/* Two that take part are told of each other, and a third of both. */
static void test_introductions(void **state)
{
    struct ctl_client *owners[2], *c[3];
    struct opened p[2];
    int lines[3][2][2]; /* of whom, to whom else in order, which */
    (void)state;

    for (int i = 0; i < 2; i++) {
        owners[i] = live_connect(&live);
        assert_int_equal(open_device(owners[i], "rb_va0", &p[i]), 0);
    }
    const unsigned number[] = {o.info.function, p[0].info.function, p[1].info.function};
    for (int i = 0; i < 3; i++) {
        c[i] = live_connect(&live);
        if (i)
            assert_int_equal(try_claim(number[i], CTL_XRCD_CREATE | CTL_XRCD_EXCL, file), -EEXIST);
        assert_int_equal(claim(c[i], number[i], i ? 0 : CTL_XRCD_CREATE | CTL_XRCD_EXCL, file), 0);
        for (int k = 0; k < i; k++) {
            assert_int_equal(await_peer(c[i], lines[i][k]), number[k]);
            assert_int_equal(await_peer(c[k], lines[k][i - 1]), number[i]);
        }
    }
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < i; k++) {
            goes_through(lines[i][k][0], lines[k][i - 1][1], "call");
            goes_through(lines[k][i - 1][1], lines[i][k][0], "answer");
            goes_through(lines[k][i - 1][0], lines[i][k][1], "back");
        }
    for (int i = 0; i < 3; i++) {
        ctl_close(c[i]);
        for (int k = 0; k < 2; k++) {
            close(lines[i][k][0]);
            close(lines[i][k][1]);
        }
    }
    for (int i = 0; i < 2; i++) {
        ctl_close(owners[i]);
        close_opened(&p[i]);
    }
}

#define LIVE(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LIVE(test_proof),         LIVE(test_another_users_function), LIVE(test_files),
        LIVE(test_function_ends), LIVE(test_introductions),          LIVE(test_claimed_anew),
    };

    if (!live_enter("ip link set lo up; ip link add va0 type veth peer name vb0;"
                    "for i in va0 vb0; do ip link set $i up; done"))
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
