/* rbondd: who takes part in the XRC domain of a file (CTL_XRCD). */
#include "live.h"
#include <fcntl.h>
#include <stdio.h>
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
    assert_int_equal(try_claim(o.info.function, 2, file), -EINVAL);
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
    (void)state;

    assert_int_equal(claim(c, o.info.function, CTL_XRCD_CREATE, file), 0);
    assert_int_equal(try_claim(o.info.function, CTL_XRCD_CREATE, twin), -EBUSY);
    assert_int_equal(try_claim(o.info.function, 0, other), -ENOENT);
    assert_int_equal(try_claim(o.info.function, CTL_XRCD_CREATE, other), 0);
    ctl_close(c);
    for (int i = 0; try_claim(o.info.function, 0, file) != -ENOENT; i++) {
        assert_true(i < 500);
        usleep(10000);
    }
    close(twin);
    close(other);
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

#define LIVE(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LIVE(test_proof),
        LIVE(test_another_users_function),
        LIVE(test_files),
        LIVE(test_function_ends),
    };

    if (!netns_enter()) {
        perror("unshare");
        return 77;
    }
    sh("ip link set lo up; ip link add va0 type veth peer name vb0;"
       "for i in va0 vb0; do ip link set $i up; done");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
