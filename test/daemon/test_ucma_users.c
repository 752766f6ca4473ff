/* What one user may have of the broker: a share, beside which others and root get theirs; and what
 * becomes of a program whose event finds no memory. */
#include "prog.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

enum { ALICE = 1000, BOB };

/* Linked with --wrap=calloc. */
static bool no_memory;
void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size) { return no_memory ? NULL : __real_calloc(n, size); }

static ssize_t create_id(struct prog *p)
{
    return COMMAND(p, CREATE_ID, (struct rdma_ucm_create_id){.uid = 1, .ps = RDMA_PS_TCP});
}

static void test_ids(void **st)
{
    (void)st;
    struct prog a, more, bob, root;
    uint32_t id, n = 0;
    assert_int_equal(open_prog_of(&a, 10, ALICE), 0);
    assert_int_equal(open_prog_of(&more, 11, ALICE), 0);
    assert_int_equal(open_prog_of(&bob, 12, BOB), 0);
    open_prog(&root, 13);
    ssize_t rc;
    while ((rc = create_id(n % 2 ? &a : &more)) == 4) n++;
    assert_int_equal(rc, -EDQUOT);
    assert_int_equal(n, 16384);
    assert_int_equal(create_id(&bob), 4);
    assert_int_equal(create_id(&root), 4);
    close_prog(&more);
    assert_int_equal(create_id(&a), 4);
    memcpy(&id, a.reply, sizeof id);
    for (n = 1; create_id(&a) == 4; n++) continue;
    assert_int_equal(n, 8192);
    destroy(&a, id);
    assert_int_equal(create_id(&a), 4);
    assert_int_equal(create_id(&a), -EDQUOT);
    close_prog(&a);
    close_prog(&bob);
    for (n = 0; n < 20000; n++) assert_int_equal(create_id(&root), 4); /* root has no share */
    close_prog(&root);
}

static void port_range(const char *range)
{
    FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "w");
    assert_non_null(f);
    assert_true(fputs(range, f) >= 0);
    assert_int_equal(fclose(f), 0);
    sleep(1); /* so long the broker goes by what it has read */
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
}

static ssize_t bind_any(struct prog *p, uint16_t port)
{
    return bind_to(p, create(p, 1, RDMA_PS_TCP), ipv4(HERE, port));
}

static void test_ports(void **st)
{
    (void)st;
    struct prog a, bob, root;
    assert_int_equal(open_prog_of(&a, 10, ALICE), 0);
    assert_int_equal(open_prog_of(&bob, 12, BOB), 0);
    open_prog(&root, 13);
    port_range("40000 40009");
    uint32_t first = create(&a, 1, RDMA_PS_TCP);
    assert_int_equal(bind_to(&a, first, ipv4(HERE, 0)), 0);
    for (int i = 1; i < 5; i++) assert_int_equal(bind_any(&a, 0), 0);
    assert_int_equal(bind_any(&a, 0), -EDQUOT);
    assert_int_equal(bind_any(&a, 40009), -EDQUOT);
    assert_int_equal(bind_any(&a, PORT), 0); /* none of those that all want */
    assert_int_equal(bind_any(&bob, 0), 0);
    destroy(&a, first);
    assert_int_equal(bind_any(&a, 0), -EDQUOT); /* PORT counts, too */
    for (int i = 0; i < 5; i++) assert_int_equal(bind_any(&root, 0), 0);
    assert_int_equal(bind_any(&root, 0), -EADDRNOTAVAIL); /* there are no more */
    close_prog(&a);
    close_prog(&bob);
    close_prog(&root);
    port_range("32768 60999");
}

static void test_channels(void **st)
{
    (void)st;
    static struct prog many[1536];
    struct prog more, bob;
    struct rlimit before, most;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    most = (struct rlimit){before.rlim_max, before.rlim_max};
    if (most.rlim_max < 8192) skip();
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &most), 0);
    for (int i = 0; i < 1536; i++) assert_int_equal(open_prog_of(&many[i], i + 1, ALICE), 0);
    assert_int_equal(open_prog_of(&more, 1, ALICE), -EDQUOT);
    assert_int_equal(open_prog_of(&bob, 2, BOB), 0);
    close_prog(&many[0]);
    assert_int_equal(open_prog_of(&many[0], 1, ALICE), 0);
    for (int i = 0; i < 1536; i++) close_prog(&many[i]);
    close_prog(&bob);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

/* A number of a process is another user's some day. */
static void test_migrate(void **st)
{
    (void)st;
    struct prog a, b;
    assert_int_equal(open_prog_of(&a, 10, ALICE), 0);
    assert_int_equal(open_prog_of(&b, 10, BOB), 0);
    struct rdma_ucm_migrate_id m = {.id = create(&a, 1, RDMA_PS_TCP), .fd = a.opened.channel};
    assert_int_equal(COMMAND(&b, MIGRATE_ID, m), -EINVAL);
    close_prog(&a);
    close_prog(&b);
}

/* The program that must miss an event hears that all is over; the others' go on. */
static void test_no_memory_for_an_event(void **st)
{
    (void)st;
    struct prog p, other;
    char tokens[8];
    open_prog(&p, 10);
    open_prog(&other, 11);
    uint32_t id = create(&p, 1, RDMA_PS_TCP);
    assert_int_equal(resolve(&p, create(&p, 1, RDMA_PS_TCP), HERE), 0);
    no_memory = true;
    assert_int_equal(resolve(&p, id, HERE), 0);
    no_memory = false;
    expect(&p, ADDR_RESOLVED); /* the earlier one */
    assert_true(readable(p.fd));
    assert_int_equal(read(p.fd, tokens, sizeof tokens), 0);
    assert_int_equal(resolve(&other, create(&other, 1, RDMA_PS_TCP), HERE), 0);
    expect(&other, ADDR_RESOLVED);
    close_prog(&p);
    close_prog(&other);
}

int main(void)
{
    int rc = prog_network();
    if (rc) return rc;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_channels),
        cmocka_unit_test(test_migrate),
        cmocka_unit_test(test_no_memory_for_an_event),
    };
    return cmocka_run_group_tests(tests, prog_set_up, prog_tear_down);
}
