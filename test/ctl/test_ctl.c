/* The control protocol: codec checks, the seqlock, and a live server against the blocking client.
 */
#include "ctl/client.h"
#include "ctl/codec.h"
#include "ctl/page.h"
#include "ctl/server.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

/* ---- codec ------------------------------------------------------------------------------- */

static void test_header(void **state)
{
    struct ctl_hdr hdr = {.version = CTL_VERSION, .type = CTL_HELLO, .len = sizeof hdr}, out;

    assert_int_equal(ctl_check(&hdr, sizeof hdr, &out), 0);
    assert_int_equal(ctl_check(&hdr, sizeof hdr - 1, &out), -EBADMSG);
    hdr.len++;
    assert_int_equal(ctl_check(&hdr, sizeof hdr, &out), -EBADMSG);
    hdr.len--;
    hdr.version++;
    assert_int_equal(ctl_check(&hdr, sizeof hdr, &out), -EPROTO);
    assert_int_equal(out.type, CTL_HELLO);
}

static void test_requests(void **state)
{
    struct ctl_hdr hdr = {.type = CTL_OPEN};
    struct ctl_name name;
    struct ctl_bond_conf conf = {.nmembers = CTL_MAX_MEMBERS};

    memset(&name, 'x', sizeof name);
    assert_int_equal(ctl_check_request(&hdr, &name, sizeof name), -EINVAL);
    name.name[CTL_NAME_LEN - 1] = 0;
    assert_int_equal(ctl_check_request(&hdr, &name, sizeof name), 0);
    assert_int_equal(ctl_check_request(&hdr, &name, sizeof name - 1), -EBADMSG);
    hdr.type = CTL_BOND_ADD;
    assert_int_equal(ctl_check_request(&hdr, &conf, sizeof conf), 0);
    conf.nmembers++;
    assert_int_equal(ctl_check_request(&hdr, &conf, sizeof conf), -EINVAL);
    conf.nmembers = 1;
    memset(conf.member[CTL_MAX_MEMBERS - 1], 'y', CTL_NAME_LEN);
    assert_int_equal(ctl_check_request(&hdr, &conf, sizeof conf), -EINVAL);
    hdr.type = 0;
    assert_int_equal(ctl_check_request(&hdr, NULL, 0), -EOPNOTSUPP);
    hdr.type = CTL_EVENT;
    assert_int_equal(ctl_check_request(&hdr, NULL, 0), -EOPNOTSUPP);
}

static void test_records(void **state)
{
    struct ctl_hdr hdr = {.len = sizeof hdr + 30, .count = 3};

    assert_true(ctl_check_records(&hdr, 10));
    assert_false(ctl_check_records(&hdr, 9));
    hdr.count = 0x80000003u;
    assert_false(ctl_check_records(&hdr, 10));
}

/* ---- the page ---------------------------------------------------------------------------- */

static struct device_page page;
static atomic_bool stop;

static void *writer(void *arg)
{
    static struct device_state state;

    for (uint32_t i = 1; !atomic_load(&stop); i++) {
        memset(&state, (int)(i & 0xff), sizeof state);
        page_write(&page, &state);
        for (unsigned k = 0; k < i % 64; k++) sched_yield();
    }
    return NULL;
}

static void test_page(void **state)
{
    pthread_t thread;
    struct device_state copy;
    unsigned distinct = 0, last = 256;

    assert_int_equal(pthread_create(&thread, NULL, writer, NULL), 0);
    for (unsigned i = 0; i < 20000 || (distinct < 2 && i < 10000000); i++) {
        page_read(&page, &copy);
        const uint8_t *b = (const uint8_t *)&copy;
        assert_memory_equal(b, b + 1, sizeof copy - 1);
        distinct += b[0] != last;
        last = b[0];
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    assert_true(distinct >= 2);
}

/* A writer that died in the midst does not hang its readers. */
static void test_dead_writer(void **state)
{
    static struct device_page dead = {.seq = 7};
    struct device_state copy;

    page_read(&dead, &copy);
}

/* ---- server and client ------------------------------------------------------------------- */

#define LIST_RECORDS 3000

struct world {
    uv_loop_t loop;
    uv_async_t quit;
    struct ctl_listener listener;
    struct ctl_server *server;
    pthread_t thread;
    char dir[64], path[100];
    atomic_uint gone;
};

static void on_request(void *ctx, struct ctl_conn *conn, const struct ctl_hdr *hdr,
                       const void *body, size_t len)
{
    static struct ctl_stat stats[LIST_RECORDS];
    struct ctl_hello hello = {.pid = (uint32_t)getpid()};
    struct ctl_event event = {.type = CTL_EV_TABLE};
    int fds[2];

    switch (hdr->type) {
    case CTL_HELLO: ctl_send_reply(conn, hdr, &hello, 1, sizeof hello, NULL, 0); break;
    case CTL_STAT:
        for (unsigned i = 0; i < LIST_RECORDS; i++) stats[i].value = i;
        ctl_send_event(conn, &event);
        ctl_send_reply(conn, hdr, stats, LIST_RECORDS, sizeof stats[0], NULL, 0);
        break;
    case CTL_OPEN:
        assert_int_equal(pipe(fds), 0);
        ctl_send_reply(conn, hdr, &hello, 1, sizeof hello, fds, 2);
        close(fds[0]);
        close(fds[1]);
        break;
    case CTL_MONITOR:
        ctl_send_reply(conn, hdr, NULL, 0, 0, NULL, 0);
        for (unsigned i = 0; i < 300000; i++) {
            event.value = i;
            ctl_send_event(conn, &event);
        }
        break;
    default: ctl_send_error(conn, hdr, -EBUSY, "%s is busy", ((const struct ctl_name *)body)->name);
    }
}

static void on_gone(void *ctx, struct ctl_conn *conn)
{
    struct world *w = ctx;
    atomic_fetch_add(&w->gone, 1);
}

static const struct ctl_server_ops ops = {.request = on_request, .gone = on_gone};

static void on_quit(uv_async_t *async)
{
    struct world *w = async->data;
    ctl_server_close(w->server);
    uv_close((uv_handle_t *)async, NULL);
}

static void *run(void *arg)
{
    struct world *w = arg;
    uv_run(&w->loop, UV_RUN_DEFAULT);
    return NULL;
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);

    strcpy(w->dir, "/tmp/rbond-test-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->path, sizeof w->path, "%s/s.sock", w->dir);
    assert_int_equal(uv_loop_init(&w->loop), 0);
    assert_int_equal(ctl_listen(&w->listener, w->path), 0);
    assert_int_equal(ctl_server_new(&w->server, &w->loop, &w->listener, &ops, w), 0);
    w->quit.data = w;
    uv_async_init(&w->loop, &w->quit, on_quit);
    pthread_create(&w->thread, NULL, run, w);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    uv_async_send(&w->quit);
    pthread_join(w->thread, NULL);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    ctl_listener_close(&w->listener);
    assert_int_equal(rmdir(w->dir), 0); /* nothing left behind */
    free(w);
    return 0;
}

static void test_list_and_events(void **state)
{
    struct world *w = *state;
    struct ctl_client *c;
    struct ctl_reply reply;
    struct ctl_event event;

    assert_int_equal(ctl_connect(&c, w->path), 0);
    assert_int_equal(ctl_call(c, CTL_STAT, NULL, 0, sizeof(struct ctl_stat), &reply), 0);
    assert_int_equal(reply.count, LIST_RECORDS);
    for (unsigned i = 0; i < LIST_RECORDS; i++)
        assert_int_equal(((struct ctl_stat *)reply.records)[i].value, i);
    ctl_reply_free(&reply);
    assert_int_equal(ctl_next_event(c, &event, false), 1);
    assert_int_equal(event.type, CTL_EV_TABLE);
    assert_int_equal(ctl_next_event(c, &event, false), 0);
    /* a record size that is not the daemon's */
    assert_int_equal(ctl_call(c, CTL_STAT, NULL, 0, 8, &reply), -EPROTO);
    ctl_reply_free(&reply);
    ctl_close(c);
}

static void test_fds_and_errors(void **state)
{
    struct world *w = *state;
    struct ctl_client *c;
    struct ctl_reply reply;
    struct ctl_name name = {"bond7"};
    char byte;

    assert_int_equal(ctl_connect(&c, w->path), 0);
    assert_int_equal(ctl_call(c, CTL_OPEN, &name, sizeof name, sizeof(struct ctl_hello), &reply),
                     0);
    assert_int_equal(reply.nfds, 2);
    assert_int_equal(write(reply.fds[1], "x", 1), 1);
    assert_int_equal(read(reply.fds[0], &byte, 1), 1);
    ctl_reply_free(&reply);
    assert_int_equal(ctl_call(c, CTL_BOND_DEL, &name, sizeof name, 0, &reply), -EBUSY);
    assert_string_equal(reply.error, "bond7 is busy");
    ctl_reply_free(&reply);
    assert_int_equal(ctl_call(c, CTL_BOND_DEL, &name, 3, 0, &reply), -EBADMSG);
    ctl_reply_free(&reply);
    ctl_close(c);
}

/* A descriptor that no handler wants is closed. */
static void test_unwanted_fd(void **state)
{
    struct world *w = *state;
    struct ctl_client *c;
    struct ctl_reply reply;
    int fds[2];
    char byte;

    assert_int_equal(pipe(fds), 0);
    assert_int_equal(ctl_connect(&c, w->path), 0);
    assert_int_equal(ctl_call_with(c, CTL_HELLO, NULL, 0, fds[1], sizeof(struct ctl_hello), &reply),
                     0);
    ctl_reply_free(&reply);
    close(fds[1]);
    assert_int_equal(read(fds[0], &byte, 1), 0); /* waits until the last writer has gone */
    close(fds[0]);
    ctl_close(c);
}

/* A client that never reads is dropped and gone() is told; the others live on. */
static void test_slow_reader(void **state)
{
    struct world *w = *state;
    struct ctl_client *slow, *other;
    struct ctl_reply reply;

    assert_int_equal(ctl_connect(&slow, w->path), 0);
    assert_int_equal(ctl_call(slow, CTL_MONITOR, NULL, 0, 0, &reply), 0);
    ctl_reply_free(&reply);
    for (unsigned i = 0; i < 5000 && atomic_load(&w->gone) == 0; i++) usleep(1000);
    assert_int_equal(atomic_load(&w->gone), 1);
    assert_int_equal(ctl_connect(&other, w->path), 0);
    ctl_close(other);
    ctl_close(slow);
}

static void test_garbage(void **state)
{
    struct world *w = *state;
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    struct ctl_client *c;
    uint8_t junk[600];

    strcpy(sun.sun_path, w->path);
    srand(1);
    for (unsigned i = 0; i < 200; i++) {
        int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&sun, sizeof sun), 0);
        for (size_t k = 0; k < sizeof junk; k++) junk[k] = (uint8_t)rand();
        struct ctl_hdr hdr = {.version = CTL_VERSION, .type = (uint16_t)(i % 80)};
        hdr.len = (uint32_t)(rand() % 600) + 24;
        if (i & 1) memcpy(junk, &hdr, sizeof hdr);
        if (send(fd, junk, i & 1 && hdr.len <= sizeof junk ? hdr.len : 100, MSG_NOSIGNAL) < 0)
            assert_int_equal(errno, EPIPE);
        close(fd);
    }
    assert_int_equal(ctl_connect(&c, w->path), 0);
    ctl_close(c);
}

static void test_listen_twice(void **state)
{
    struct world *w = *state;
    struct ctl_listener second;

    assert_int_equal(ctl_listen(&second, w->path), -EADDRINUSE);
    assert_int_equal(access(w->path, F_OK), 0);
}

static void test_stale_socket(void **state)
{
    char dir[] = "/tmp/rbond-test-XXXXXX", path[100], lock[110];
    struct ctl_listener l;

    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/s.sock", dir);
    snprintf(lock, sizeof lock, "%s.lock", path);
    assert_int_equal(ctl_listen(&l, path), 0);
    close(l.fd); /* as if killed: both files stay, the lock goes */
    close(l.lock_fd);
    struct ctl_client *c;
    assert_int_equal(ctl_connect(&c, path), -ECONNREFUSED);
    assert_int_equal(ctl_listen(&l, path), 0);
    ctl_listener_close(&l);
    assert_int_equal(ctl_connect(&c, path), -ENOENT);
    assert_int_equal(rmdir(dir), 0);
}

static void test_paths(void **state)
{
    char path[108];

    setenv("RBOND_SOCKET", "/x/y", 1);
    assert_true(ctl_path(0, path));
    assert_string_equal(path, "/x/y");
    assert_false(ctl_path(1, path));
    unsetenv("RBOND_SOCKET");
    setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
    assert_true(ctl_path(1, path));
    assert_memory_equal(path, "/run/user/7/rbond/", 18);
    assert_true(ctl_path(2, path));
    assert_memory_equal(path, "/tmp/rbond-", 11);
    assert_false(ctl_path(3, path));
    unsetenv("XDG_RUNTIME_DIR");
    assert_false(ctl_path(2, path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_page),
        cmocka_unit_test(test_dead_writer),
        cmocka_unit_test_setup_teardown(test_list_and_events, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fds_and_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unwanted_fd, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slow_reader, setup, teardown),
        cmocka_unit_test_setup_teardown(test_garbage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_listen_twice, setup, teardown),
        cmocka_unit_test(test_stale_socket),
        cmocka_unit_test(test_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
