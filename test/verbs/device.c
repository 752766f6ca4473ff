/* What a device says of itself. */
#include "end.h"

static void says_what_it_is(void **state)
{
    struct ibv_device_attr_ex attr;
    struct ibv_port_attr port;
    struct ibv_gid_entry entry;
    union ibv_gid gid;
    __be16 pkey;
    (void)state;

    struct ibv_context *c = ibv_open_device(device);
    assert_non_null(c);
    assert_int_equal(ibv_query_device_ex(c, NULL, &attr), 0);
    assert_int_equal(attr.orig_attr.phys_port_cnt, 1);
    assert_true(attr.orig_attr.node_guid == ibv_get_device_guid(device));
    assert_true(attr.orig_attr.node_guid != 0);
    assert_int_equal(ibv_query_port(c, 1, &port), 0);
    assert_int_equal(port.state, IBV_PORT_ACTIVE);
    assert_int_equal(port.link_layer, IBV_LINK_LAYER_ETHERNET);
    assert_int_equal(ibv_query_port(c, 2, &port), EINVAL);
    int i = gid_index(c, &gid);
    assert_true(i >= 0);
    assert_int_equal(ibv_query_gid_ex(c, 1, (uint32_t)i, &entry, 0), 0);
    assert_int_equal(entry.gid_type, IBV_GID_TYPE_ROCE_V2);
    assert_true(entry.ndev_ifindex > 0);
    assert_int_equal(ibv_query_gid_ex(c, 1, 31, &entry, 0), ENODATA);
    assert_int_equal(ibv_query_gid_ex(c, 1, 32, &entry, 0), EINVAL);
    assert_int_equal(ibv_query_gid_ex(c, 1, 0, &entry, 1), EOPNOTSUPP);
    assert_int_equal(ibv_query_pkey(c, 1, 0, &pkey), 0);
    assert_int_equal(pkey, 0xffff);
    assert_int_equal(ibv_query_pkey(c, 1, 1, &pkey), -1);
    assert_int_equal(ibv_close_device(c), 0);
}

static void imports_no_device(void **state)
{
    int fds[2];
    (void)state;

    struct ibv_context *c = ibv_open_device(device);
    assert_non_null(c);
    assert_null(ibv_import_device(c->cmd_fd));
    assert_int_equal(errno, EOPNOTSUPP);
    assert_int_equal(pipe(fds), 0); /* the real library's affair: it must not meet our devices */
    assert_null(ibv_import_device(fds[0]));
    close(fds[0]);
    close(fds[1]);
    assert_null(ibv_import_device(-1));
    assert_int_equal(errno, EBADF);
    assert_int_equal(ibv_close_device(c), 0);
}

EDGE_MAIN(cmocka_unit_test(says_what_it_is), cmocka_unit_test(imports_no_device))
