/* The files of a device in /sys/class/infiniband, written into a directory of the test's own. */
#include "daemon/tree.h"
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static int sysfs;
static char home[] = "/tmp/rbond-test-environ-XXXXXX";

static struct ctl_dev dev;
static struct ctl_gid gids[2];
static struct ctl_stat stats[4];
static struct tree_facts facts = {.gids = {.bytes = gids, .count = 2},
                                  .stats = {.bytes = stats, .count = 4}};

static void says(const char *path, const char *want)
{
    char got[128] = "";
    int fd = openat(sysfs, path, O_RDONLY);

    assert_true(fd >= 0);
    assert_true(read(fd, got, sizeof got - 1) >= 0);
    close(fd);
    assert_string_equal(got, want);
}

static bool is_there(const char *path)
{
    struct stat st;

    return !fstatat(sysfs, path, &st, AT_SYMLINK_NOFOLLOW);
}

static void write_it(void) { tree_device_write(sysfs, &dev, &facts); }

static int begin(void **state)
{
    dev = (struct ctl_dev){.name = "rb_x0",
                           .netdev = "no-such-netdev",
                           .guid = 0x0123456789abcdef,
                           .speed_mbps = 25000,
                           .port_state = CTL_PORT_ACTIVE,
                           .numa_node = 0xff};
    gids[0] = (struct ctl_gid){.device = "rb_x0", .netdev = "x0", .index = 3};
    memcpy(gids[0].gid, (uint8_t[16]){0xfe, 0x80, [15] = 1}, 16);
    gids[1] = (struct ctl_gid){.device = "rb_other", .netdev = "y0", .index = 4, .gid = {1}};
    stats[0] = (struct ctl_stat){"rb_x0", "", "tx_bytes", 4003};
    stats[1] = (struct ctl_stat){"rb_x0", "m0", "tx_bytes", 1};
    stats[2] = (struct ctl_stat){"rb_x0", "m0", "link_downs", 2};
    stats[3] = (struct ctl_stat){"rb_other", "", "tx_bytes", 9};
    strcpy(home + sizeof home - 7, "XXXXXX");
    if (!mkdtemp(home)) return -1;
    sysfs = open(home, O_RDONLY | O_DIRECTORY);
    return sysfs < 0 ? -1 : 0;
}

static int end(void **state)
{
    ctl_tree_remove(sysfs, "rb_x0");
    close(sysfs);
    return rmdir(home); /* nothing is left */
}

static void test_formats(void **state)
{
    write_it();
    says("rb_x0/node_type", "1: CA\n");
    says("rb_x0/node_guid", "0123:4567:89ab:cdef\n");
    says("rb_x0/device/numa_node", "-1\n");
    says("rb_x0/ports/1/state", "4: ACTIVE\n");
    says("rb_x0/ports/1/phys_state", "5: LinkUp\n");
    says("rb_x0/ports/1/gids/3", "fe80:0000:0000:0000:0000:0000:0000:0001\n");
    says("rb_x0/ports/1/gids/4", "0000:0000:0000:0000:0000:0000:0000:0000\n");
    says("rb_x0/ports/1/gid_attrs/types/3", "RoCE v2\n");
    says("rb_x0/ports/1/gid_attrs/ndevs/3", "x0\n");
    assert_false(is_there("rb_x0/ports/1/gid_attrs/types/4"));
    says("rb_x0/ports/1/counters/port_xmit_data", "1000\n"); /* units of four bytes */
    says("rb_x0/ports/1/counters/link_downed", "2\n");
    says("rb_x0/ports/1/counters/symbol_error", "0\n");
    says("rb_x0/ports/1/hw_counters/rnr_nak_retry_err", "0\n");
    says("rb_x0/ports/1/hw_counters/tx_bytes", "4003\n");
}

/* The kernel's own words for these speeds (ib_port's rate attribute). */
static void test_rates(void **state)
{
    static const struct {
        uint32_t mbps;
        const char *rate;
    } RATES[] = {{1000, "2.5 Gb/sec (1X SDR)\n"},   {10000, "10 Gb/sec (1X FDR10)\n"},
                 {25000, "25 Gb/sec (1X EDR)\n"},   {40000, "40 Gb/sec (4X FDR10)\n"},
                 {100000, "100 Gb/sec (4X EDR)\n"}, {200000, "200 Gb/sec (4X HDR)\n"},
                 {400000, "400 Gb/sec (4X NDR)\n"}};

    for (size_t i = 0; i < sizeof RATES / sizeof *RATES; i++) {
        dev.speed_mbps = RATES[i].mbps;
        write_it();
        says("rb_x0/ports/1/rate", RATES[i].rate);
    }
}

/* A file changes in place, under a reader that keeps it open, also to something shorter. */
static void test_changes(void **state)
{
    char text[32] = "";
    int fd;

    write_it();
    fd = openat(sysfs, "rb_x0/ports/1/state", O_RDONLY);
    assert_true(fd >= 0);
    dev.port_state = CTL_PORT_DOWN;
    gids[0].index = 5;
    stats[0].value = 7;
    write_it();
    assert_int_equal(pread(fd, text, sizeof text, 0), 8);
    assert_string_equal(text, "1: DOWN\n");
    close(fd);
    says("rb_x0/ports/1/phys_state", "3: Disabled\n");
    says("rb_x0/ports/1/gids/3", "0000:0000:0000:0000:0000:0000:0000:0000\n");
    assert_false(is_there("rb_x0/ports/1/gid_attrs/ndevs/3"));
    says("rb_x0/ports/1/gid_attrs/ndevs/5", "x0\n");
    says("rb_x0/ports/1/hw_counters/tx_bytes", "7\n");
    says("rb_x0/ports/1/counters/port_xmit_data", "1\n");
}

/* A real device of this name is a symbolic link, and not ours to write behind. */
static void test_real_device(void **state)
{
    assert_int_equal(mkdirat(sysfs, "real", 0755), 0);
    assert_int_equal(symlinkat("real", sysfs, "rb_x0"), 0);
    write_it();
    assert_false(is_there("real/node_type"));
    assert_int_equal(unlinkat(sysfs, "rb_x0", 0), 0);
    assert_int_equal(unlinkat(sysfs, "real", AT_REMOVEDIR), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_formats, begin, end),
        cmocka_unit_test_setup_teardown(test_rates, begin, end),
        cmocka_unit_test_setup_teardown(test_changes, begin, end),
        cmocka_unit_test_setup_teardown(test_real_device, begin, end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
