/* rbondd from outside: devices, bonds and their refusals, failover, its end. */
#include "ctl/server.h"
#include "live.h"
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

static struct live live;
static struct ctl_client *client;

static const char config[] = "{ \"exclude\": [\"vx*\"], \"bonds\": [] }";

static int start(void **state)
{
    live_start(&live, config);
    client = live_connect(&live);
    return 0;
}

static int stop(void **state)
{
    ctl_close(client);
    live_stop(&live);
    return 0;
}

static void set_link(const char *name, bool up)
{
    struct ifreq ifr = {0};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
    assert_int_equal(ioctl(fd, SIOCGIFFLAGS, &ifr), 0);
    ifr.ifr_flags = (short)(up ? ifr.ifr_flags | IFF_UP : ifr.ifr_flags & ~IFF_UP);
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &ifr), 0);
    close(fd);
}

static void add_bond(const struct ctl_bond_conf *conf)
{
    char text[232];

    if (call_text(client, CTL_BOND_ADD, conf, sizeof *conf, text) != 0) fail_msg("%s", text);
}

static void del_bond(const char *name)
{
    struct ctl_name n = {""};
    char text[232];

    snprintf(n.name, sizeof n.name, "%s", name);
    if (call_text(client, CTL_BOND_DEL, &n, sizeof n, text) != 0) fail_msg("%s", text);
}

/* ---- devices ----------------------------------------------------------------------------- */

static void test_devices(void **state)
{
    struct ctl_dev dev;

    assert_non_null(find_device(client, "rb_va0", &dev));
    assert_string_equal(dev.netdev, "va0");
    assert_string_equal(dev.member[0], "va0");
    assert_int_equal(dev.nmembers, 1);
    assert_int_equal(dev.guid, 0x000000fffe0000a0ull);
    assert_int_equal(dev.mtu, 1500);
    assert_int_equal(dev.speed_mbps, 10000);
    assert_int_equal(dev.port_state, CTL_PORT_ACTIVE);
    assert_null(find_device(client, "rb_vx0", &dev)); /* excluded */
    assert_null(find_device(client, "rb_lo", &dev));
    assert_null(find_device(client, "rb_br0", &dev)); /* a bridge, not included */
    assert_null(find_device(client, "rb_vm0", &dev)); /* a bridge's port */
}

/* The list says what the page says: the GIDs that are there, by their slots. */
static void check_gid_list(const char *device, const char *netdev, const struct device_state *s)
{
    struct ctl_reply r;
    unsigned listed = 0, held = 0;

    assert_int_equal(ctl_call(client, CTL_GID_LIST, NULL, 0, sizeof(struct ctl_gid), &r), 0);
    for (size_t i = 0; i < r.count; i++) {
        const struct ctl_gid *g = (struct ctl_gid *)r.records + i;
        if (strcmp(g->device, device) != 0) continue;
        listed++;
        assert_string_equal(g->netdev, netdev);
        assert_in_range(g->index, 0, CTL_MAX_GIDS - 1);
        assert_memory_equal(g->gid, &s->gid[g->index], sizeof g->gid);
    }
    for (unsigned i = 0; i < CTL_MAX_GIDS; i++) held += !gid_is_zero(&s->gid[i]);
    assert_int_equal(listed, held);
    ctl_reply_free(&r);
}

static void test_page_and_gids(void **state)
{
    struct opened o;
    struct device_state s;
    struct ctl_event event;
    const struct gid v4 = {{[10] = 0xff, 0xff, 10, 0, 0, 1}},
                     v4b = {{[10] = 0xff, 0xff, 10, 0, 0, 2}};

    assert_int_equal(open_device(client, "rb_va0", &o), 0);
    /* nobody but rbondd writes the device page, nobody changes any page's size */
    assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, o.page_fd, 0),
                     MAP_FAILED);
    assert_int_equal(write(o.page_fd, "x", 1), -1);
    assert_int_equal(ftruncate(o.page_fd, 0), -1);
    assert_int_equal(ftruncate(o.function_fd, 0), -1);
    assert_true(o.info.function > 0 && o.info.key_seed != 0 && o.info.rcvbuf > 0);
    assert_int_equal(o.info.ntx, CTL_TX_SOCKETS);

    sh("ip addr add 10.0.0.1/24 dev va0");
    do { /* the link-local address may come only now; 0 is its place */
        assert_true(await_event(client, CTL_EV_GID_CHANGE, &event));
        page_read(o.page, &s);
    } while (!gid_equal(&s.gid[1], &v4));
    assert_int_equal(s.gid_ifindex[1], if_nametoindex("va0"));
    sh("ip addr add 10.0.0.2/24 dev va0");
    assert_true(await_event(client, CTL_EV_GID_CHANGE, &event));
    sh("ip addr del 10.0.0.1/24 dev va0 2>/dev/null; ip addr flush dev va0 to 10.0.0.1; "
       "ip addr replace 10.0.0.2/24 dev va0");
    for (unsigned i = 0; i < 200; i++) {
        page_read(o.page, &s);
        if (gid_is_zero(&s.gid[1]) && gid_equal(&s.gid[2], &v4b)) break;
        usleep(10000);
    }
    assert_true(gid_is_zero(&s.gid[1]) && gid_equal(&s.gid[2], &v4b));
    check_gid_list("rb_va0", "va0", &s);
    sh("ip addr flush dev va0 to 10.0.0.0/24");
    close_opened(&o);
}

/* ---- bonds ------------------------------------------------------------------------------- */

static void refused(const struct ctl_bond_conf *conf, int status, const char *words)
{
    char text[232];

    assert_int_equal(call_text(client, CTL_BOND_ADD, conf, sizeof *conf, text), status);
    if (!strstr(text, words)) fail_msg("\"%s\" does not say \"%s\"", text, words);
    assert_null(strchr(text, '\n'));
}

static void test_refusals(void **state)
{
    struct ctl_bond_conf good = bond_conf("bond0", "va0", "va1"), c;
    struct ctl_name none = {"bond9"};
    char text[232];

    add_bond(&good);
    refused(&good, -EEXIST, "rb_bond0 exists already");
    c = bond_conf("bond1", "va0", NULL);
    refused(&c, -EBUSY, "va0 is already in bond bond0");
    c = bond_conf("bond1", "va2", NULL);
    refused(&c, -EBUSY, "the addresses of lo belong to bond bond0");
    snprintf(c.netdev, sizeof c.netdev, "nil0");
    refused(&c, -ENODEV, "no such interface: nil0");
    c = bond_conf("bond1", "nil1", NULL);
    refused(&c, -ENODEV, "no such interface: nil1");
    c = bond_conf("bond1", "va2", "va2");
    refused(&c, -EINVAL, "va2 is given twice");
    c = bond_conf("bond1", NULL, NULL);
    refused(&c, -EINVAL, "needs at least one member");
    c = bond_conf("bond1", "lo", NULL);
    refused(&c, -EBUSY, "already in bond"); /* bond0 has its addresses */
    c = bond_conf("bond1", "vm0", NULL);
    refused(&c, -EBUSY, "vm0 belongs to br0");
    c = bond_conf("bond1", "va2", NULL);
    c.mode = 0;
    refused(&c, -EOPNOTSUPP, "balance-rr is not supported");
    c.mode = 77;
    refused(&c, -EINVAL, "unknown bond mode 77");
    c = bond_conf("bond 1", "va2", NULL);
    refused(&c, -EINVAL, "bad name");
    c = bond_conf("", "va2", NULL);
    refused(&c, -EINVAL, "bad name");
    c = bond_conf("bond1", "va2", NULL);
    c.min_links = 2;
    refused(&c, -EINVAL, "min_links 2");
    c.min_links = 0;
    snprintf(c.primary, sizeof c.primary, "va1");
    refused(&c, -EINVAL, "primary va1 is no member");
    c = bond_conf("va2", "va2", NULL);
    refused(&c, -EEXIST, "rb_va2 exists already");
    assert_int_equal(call_text(client, CTL_BOND_DEL, &none, sizeof none, text), -ENOENT);
    assert_string_equal(text, "no such bond: bond9");
    del_bond("bond0");
    c = bond_conf("bond1", "lo", NULL);
    refused(&c, -EINVAL, "lo is not an Ethernet port");
}

static void test_enslave_and_release(void **state)
{
    struct ctl_bond_conf conf = bond_conf("bond0", "va0", "va1");
    struct ctl_event event;
    struct ctl_dev dev;
    struct opened o;
    struct device_state s;

    assert_int_equal(open_device(client, "rb_va0", &o), 0);
    add_bond(&conf);
    assert_true(await_event(client, CTL_EV_DEVICE_DEL, &event));
    assert_string_equal(event.device, "rb_va0");
    page_read(o.page, &s);
    assert_int_equal(s.port_state, CTL_PORT_DOWN);
    assert_int_equal(s.steering.active[0], STEER_NO_MEMBER);
    assert_null(find_device(client, "rb_va0", &dev));
    assert_null(find_device(client, "rb_va1", &dev));
    assert_non_null(find_device(client, "rb_bond0", &dev));
    assert_int_equal(dev.is_bond, 1);
    assert_int_equal(dev.nmembers, 2);
    assert_string_equal(dev.netdev, "lo");
    assert_int_equal(dev.speed_mbps, 10000); /* the active one's */
    uint64_t guid = dev.guid;

    struct ctl_bond_conf set = {.name = "bond0", .mask = CTL_BOND_MODE | CTL_BOND_MIN_LINKS};
    char text[232];
    set.mode = CTL_MODE_BALANCE_XOR;
    set.min_links = 2;
    assert_int_equal(call_text(client, CTL_BOND_SET, &set, sizeof set, text), 0);
    assert_non_null(find_device(client, "rb_bond0", &dev));
    assert_int_equal(dev.speed_mbps, 20000);
    assert_int_equal(dev.guid, guid);
    set.mask = CTL_BOND_MIN_LINKS;
    set.min_links = 3;
    assert_int_equal(call_text(client, CTL_BOND_SET, &set, sizeof set, text), -EINVAL);

    del_bond("bond0");
    assert_non_null(find_device(client, "rb_va0", &dev));
    assert_non_null(find_device(client, "rb_va1", &dev));
    assert_null(find_device(client, "rb_bond0", &dev));
    close_opened(&o); /* its function outlived its device */
}

/* A cut of the active member: how long from the cut to the page? */
static void test_failover(void **state)
{
    enum { CUTS = 20 };
    struct ctl_bond_conf conf = bond_conf("bond0", "va0", "va1");
    static const char *const peer[2] = {"vb0", "vb1"};
    struct ctl_event event;
    struct device_state s;
    struct opened o;
    uint64_t took[CUTS], all = 0, worst = 0;

    add_bond(&conf);
    assert_int_equal(open_device(client, "rb_bond0", &o), 0);
    for (unsigned i = 0; i < CUTS; i++) {
        page_read(o.page, &s);
        uint8_t was = s.steering.active[0];
        assert_true(was < 2);
        uint64_t cut = now_ns();
        set_link(peer[was], false);
        do page_read(o.page, &s);
        while (s.steering.active[0] == was && now_ns() - cut < 3 * SEC_NS);
        took[i] = now_ns() - cut;
        assert_int_equal(s.steering.active[0], 1 - was);
        assert_int_equal(s.port_state, CTL_PORT_ACTIVE);
        assert_in_range(s.steering.changed.ns, cut, cut + took[i]);
        assert_true(await_event(client, CTL_EV_FAILOVER, &event));
        assert_string_equal(event.old, was ? "va1" : "va0");
        assert_string_equal(event.member, was ? "va0" : "va1");
        set_link(peer[was], true);
        assert_true(await_event(client, CTL_EV_LINK_UP, &event));
        all += took[i];
        if (took[i] > worst) worst = took[i];
    }
    print_message("cut to page: mean %llu us, worst %llu us\n",
                  (unsigned long long)(all / CUTS / 1000), (unsigned long long)(worst / 1000));
    assert_true(all / CUTS < 100 * MS_NS); /* some 1 ms where the CPU is free */

    /* both: the port goes, and comes back with the first */
    set_link("vb0", false);
    set_link("vb1", false);
    assert_true(await_event(client, CTL_EV_PORT_ERR, &event));
    set_link("vb1", true);
    assert_true(await_event(client, CTL_EV_PORT_ACTIVE, &event));
    set_link("vb0", true);
    close_opened(&o);
    del_bond("bond0");
}

/* The page is written a moment after the event. */
static void await_member(const struct opened *o, unsigned member, uint32_t ifindex)
{
    struct device_state s;

    for (unsigned i = 0; i < 500; i++) {
        page_read(o->page, &s);
        if (s.member_ifindex[member] == ifindex) return;
        usleep(10000);
    }
    assert_int_equal(s.member_ifindex[member], ifindex);
}

/* A member that is deleted and made again is found again. */
static void test_member_vanishes(void **state)
{
    struct ctl_bond_conf conf = bond_conf("bond0", "va0", "vt0");
    struct ctl_event event;
    struct opened o;
    struct device_state s;

    sh("ip link add vt0 type veth peer name vt1; ip link set vt0 up; ip link set vt1 up");
    add_bond(&conf);
    assert_int_equal(open_device(client, "rb_bond0", &o), 0);
    page_read(o.page, &s);
    assert_int_equal(s.member_ifindex[1], if_nametoindex("vt0"));
    sh("ip link del vt0");
    assert_true(await_event(client, CTL_EV_LINK_DOWN, &event));
    await_member(&o, 1, 0);
    sh("ip link add vt0 type veth peer name vt1; ip link set vt0 up; ip link set vt1 up");
    assert_true(await_event(client, CTL_EV_LINK_UP, &event));
    await_member(&o, 1, if_nametoindex("vt0"));
    close_opened(&o);
    del_bond("bond0");
    sh("ip link del vt0");
}

/* ---- who may, and the end ---------------------------------------------------------------- */

static void test_other_user(void **state)
{
    struct ctl_bond_conf conf = bond_conf("bond0", "va0", "va1");

    pid_t pid = fork();
    if (pid == 0) {
        struct ctl_client *c;
        struct opened o;
        char text[232];
        if (setgid(54321) != 0 || setuid(54321) != 0) _exit(77);
        if (ctl_connect(&c, live.path) != 0) _exit(1);
        if (open_device(c, "rb_va0", &o) != 0) _exit(2); /* anybody may */
        _exit(call_text(c, CTL_BOND_ADD, &conf, sizeof conf, text) == -EPERM ? 0 : 3);
    }
    int code = exit_code(pid);
    if (code == 77) skip(); /* a user namespace of one user */
    assert_int_equal(code, 0);
}

static int say_hello(struct ctl_client *c)
{
    struct ctl_reply reply;
    int rc = ctl_call(c, CTL_HELLO, NULL, 0, sizeof(struct ctl_hello), &reply);

    ctl_reply_free(&reply);
    return rc;
}

/* One user's connections, all he may have and one more; then the others' turn. */
static int crowd(int full, int done)
{
    static struct ctl_client *c[CTL_CONNS_PER_USER + 1];
    const struct rlimit room = {2 * CTL_CONNS_PER_USER, 2 * CTL_CONNS_PER_USER};
    char word = 0;

    if (setrlimit(RLIMIT_NOFILE, &room) != 0) return 77;
    if (setgid(54321) != 0 || setuid(54321) != 0) return 77;
    for (unsigned i = 0; i < CTL_CONNS_PER_USER; i++)
        if (ctl_connect(&c[i], live.path) != 0 || say_hello(c[i]) != 0) return 1;
    if (ctl_connect(&c[CTL_CONNS_PER_USER], live.path) == 0 &&
        say_hello(c[CTL_CONNS_PER_USER]) == 0)
        return 2;
    if (write(full, &word, 1) != 1 || read(done, &word, 1) != 0) return 3;
    return 0;
}

static void test_crowd_of_a_user(void **state)
{
    int full[2], done[2];
    char word;
    struct ctl_client *c;

    assert_true(pipe(full) == 0 && pipe(done) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(full[0]);
        close(done[1]);
        _exit(crowd(full[1], done[0]));
    }
    close(full[1]);
    close(done[0]);
    bool came = read(full[0], &word, 1) == 1;
    if (came) {
        assert_int_equal(ctl_connect(&c, live.path), 0);
        assert_int_equal(say_hello(c), 0);
        ctl_close(c);
    }
    close(done[1]);
    close(full[0]);
    int code = exit_code(pid);
    if (code == 77) skip(); /* a user namespace of one user, or few descriptors */
    assert_int_equal(code, 0);
}

static bool realtime(void)
{
    return (sched_getscheduler(live.pid) & ~SCHED_RESET_ON_FORK) == SCHED_RR;
}

/* Clients that keep the daemon busy do not do so at its priority. */
static void test_urgency(void **state)
{
    struct ctl_reply r;

    if (!realtime()) skip(); /* no right to it here */
    for (uint64_t end = now_ns() + 5 * SEC_NS; realtime() && now_ns() < end;) {
        assert_int_equal(ctl_call(client, CTL_STAT, NULL, 0, sizeof(struct ctl_stat), &r), 0);
        ctl_reply_free(&r);
    }
    assert_false(realtime());
    for (unsigned i = 0; i < 200 && !realtime(); i++) usleep(10000);
    assert_true(realtime());
}

static void test_second_refused(void **state)
{
    struct ctl_dev dev;

    assert_int_equal(exit_code(live_spawn(&live)), 1);
    assert_non_null(find_device(client, "rb_va0", &dev)); /* and the first does not mind */
}

/* Killed: files stay behind; the next one starts all the same. */
static void test_killed_daemon(void **state)
{
    struct ctl_event event;

    kill(live.pid, SIGKILL);
    assert_int_equal(exit_code(live.pid), -SIGKILL);
    assert_int_equal(ctl_next_event(client, &event, true), -ECONNRESET);
    assert_int_equal(access(live.path, F_OK), 0);
    live.pid = live_spawn(&live);
    ctl_close(client);
    client = live_connect(&live);
}

static void test_command_line(void **state)
{
    sh("\"$RBONDD\" --version | grep -q '^rbondd [0-9]'");
    sh("! \"$RBONDD\" word 2>/dev/null && ! \"$RBONDD\" -l loud 2>/dev/null");
}

/* A bond of the configuration takes its ports as they come. */
static void test_configured_bond(void **state)
{
    struct live l;
    struct ctl_event event;
    struct ctl_dev dev;
    char text[232];

    ctl_close(client); /* one daemon at a time has the port */
    live_stop(&live);
    live_start(&l, "{\"include\":[\"va0\",\"br0\"],\"bonds\":[{\"name\":\"late\",\"members\":"
                   "[\"va1\",\"vt0\"],\"primary\":\"vt0\"}]}");
    client = live_connect(&l);
    assert_non_null(find_device(client, "rb_late", &dev));
    assert_int_equal(dev.port_state, CTL_PORT_ACTIVE);
    assert_non_null(find_device(client, "rb_va0", &dev));
    assert_non_null(find_device(client, "rb_br0", &dev)); /* included by name */
    assert_null(find_device(client, "rb_va1", &dev));
    assert_null(find_device(client, "rb_va2", &dev));
    assert_int_equal(call_text(client, CTL_MONITOR, NULL, 0, text), 0);
    sh("ip link add vt0 type veth peer name vt1; ip link set vt0 up; ip link set vt1 up");
    assert_true(await_event(client, CTL_EV_FAILOVER, &event));
    assert_string_equal(event.device, "rb_late");
    assert_string_equal(event.member, "vt0");
    sh("ip link del vt0");
    assert_true(await_event(client, CTL_EV_FAILOVER, &event));
    assert_string_equal(event.member, "va1");
    ctl_close(client);
    live_stop(&l);
    start(state);
}

/* Ended in good order: what programs hold goes on as it stood. */
static void test_programs_outlive(void **state)
{
    struct opened o;
    struct device_state s;
    struct ctl_event event;

    assert_int_equal(open_device(client, "rb_va0", &o), 0);
    kill(live.pid, SIGTERM);
    assert_int_equal(exit_code(live.pid), 0);
    while (ctl_next_event(client, &event, true) == 1) {
    }
    page_read(o.page, &s);
    assert_int_equal(s.port_state, CTL_PORT_ACTIVE);
    assert_int_equal(s.steering.active[0], 0);
    close_opened(&o);
    live.pid = live_spawn(&live);
    ctl_close(client);
    client = live_connect(&live);
}

static void test_bad_config(void **state)
{
    struct live bad = live;
    FILE *f;

    snprintf(bad.config, sizeof bad.config, "%s/bad", live.dir);
    snprintf(bad.path, sizeof bad.path, "%s/other", live.dir);
    f = fopen(bad.config, "w");
    fputs("{ \"bonds\": [ { \"nmae\": \"x\" } ] }", f);
    fclose(f);
    assert_int_equal(exit_code(live_spawn(&bad)), 1);
    unlink(bad.config);
    assert_int_equal(exit_code(live_spawn(&bad)), 1); /* no such file */
    assert_int_equal(access(bad.path, F_OK), -1);
}

#define LIVE(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LIVE(test_devices),         LIVE(test_page_and_gids),
        LIVE(test_refusals),        LIVE(test_enslave_and_release),
        LIVE(test_failover),        LIVE(test_member_vanishes),
        LIVE(test_other_user),      LIVE(test_crowd_of_a_user),
        LIVE(test_urgency),         LIVE(test_second_refused),
        LIVE(test_killed_daemon),   cmocka_unit_test(test_command_line),
        LIVE(test_configured_bond), LIVE(test_programs_outlive),
        LIVE(test_bad_config),
    };
    if (!live_enter(
            "ip link set lo up; ip link add br0 type bridge;"
            "ip link add va0 address 02:00:00:00:00:a0 type veth peer name vb0;"
            "ip link add va1 type veth peer name vb1; ip link add va2 type veth peer name vb2;"
            "ip link add vx0 type veth peer name vm0; ip link set vm0 master br0;"
            "for i in br0 va0 vb0 va1 vb1 va2 vb2 vx0 vm0; do ip link set $i up; done"))
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
