/* The direct verbs of adapters' own libraries, which programs probe a device with: each must
 * decline ours, by reading nothing but zeroes behind its public structs. Those not installed are
 * left out. */
#include "end.h"
#include <dlfcn.h>
#include <infiniband/efadv.h>
#include <infiniband/mlx5dv.h>

/* The library's function, or NULL. */
#define IN(library, name) ((__typeof__(&name))(library ? dlsym(library, #name) : NULL))

static void mlx5_declines(void **state)
{
    void *lib = dlopen("libmlx5.so.1", RTLD_NOW | RTLD_LOCAL);
    __typeof__(&mlx5dv_is_supported) is_supported = IN(lib, mlx5dv_is_supported);
    __typeof__(&mlx5dv_query_device) query_device = IN(lib, mlx5dv_query_device);
    __typeof__(&mlx5dv_open_device) open_device = IN(lib, mlx5dv_open_device);
    __typeof__(&mlx5dv_create_qp) create_qp = IN(lib, mlx5dv_create_qp);
    __typeof__(&mlx5dv_create_cq) create_cq = IN(lib, mlx5dv_create_cq);
    __typeof__(&mlx5dv_create_mkey) create_mkey = IN(lib, mlx5dv_create_mkey);
    __typeof__(&mlx5dv_devx_general_cmd) general_cmd = IN(lib, mlx5dv_devx_general_cmd);
    struct end e;
    (void)state;

    if (!is_supported) skip();
    assert_false(is_supported(device));
    open_end(&e, IBV_QPT_RC);
    struct mlx5dv_context attrs = {0};
    assert_int_equal(query_device(e.context, &attrs), EOPNOTSUPP);
    struct mlx5dv_context_attr ca = {.flags = MLX5DV_CONTEXT_FLAGS_DEVX};
    assert_null(open_device(device, &ca));
    assert_int_equal(errno, EOPNOTSUPP);
    struct ibv_qp_init_attr_ex qi = {.send_cq = ibv_cq_ex_to_cq(e.cq),
                                     .recv_cq = ibv_cq_ex_to_cq(e.cq),
                                     .qp_type = IBV_QPT_RC,
                                     .comp_mask = IBV_QP_INIT_ATTR_PD,
                                     .pd = e.pd};
    struct mlx5dv_qp_init_attr mqi = {0};
    assert_null(create_qp(e.context, &qi, &mqi));
    assert_int_equal(errno, EOPNOTSUPP);
    struct ibv_cq_init_attr_ex ci = {.cqe = 8};
    struct mlx5dv_cq_init_attr mci = {0};
    assert_null(create_cq(e.context, &ci, &mci));
    assert_int_equal(errno, EOPNOTSUPP);
    struct mlx5dv_mkey_init_attr mk = {.pd = e.pd, .max_entries = 1};
    assert_null(create_mkey(&mk));
    assert_int_equal(errno, EOPNOTSUPP);
    uint64_t in[4] = {0}, out[4] = {0};
    assert_int_equal(general_cmd(e.context, in, sizeof in, out, sizeof out), EOPNOTSUPP);
    close_end(&e);
}

static void efa_declines(void **state)
{
    void *lib = dlopen("libefa.so.1", RTLD_NOW | RTLD_LOCAL);
    __typeof__(&efadv_query_device) query_device = IN(lib, efadv_query_device);
    __typeof__(&efadv_create_qp_ex) create_qp_ex = IN(lib, efadv_create_qp_ex);
    __typeof__(&efadv_create_driver_qp) create_driver_qp = IN(lib, efadv_create_driver_qp);
    struct end e;
    (void)state;

    if (!query_device) skip();
    open_end(&e, IBV_QPT_RC);
    struct efadv_device_attr attr;
    assert_int_equal(query_device(e.context, &attr, sizeof attr), EOPNOTSUPP);
    struct ibv_qp_init_attr_ex qi = {.send_cq = ibv_cq_ex_to_cq(e.cq),
                                     .recv_cq = ibv_cq_ex_to_cq(e.cq),
                                     .qp_type = IBV_QPT_DRIVER,
                                     .comp_mask = IBV_QP_INIT_ATTR_PD,
                                     .pd = e.pd};
    struct efadv_qp_init_attr ei = {.driver_qp_type = EFADV_QP_DRIVER_TYPE_SRD};
    assert_null(create_qp_ex(e.context, &qi, &ei, sizeof ei));
    assert_int_equal(errno, EOPNOTSUPP);
    struct ibv_qp_init_attr old = {.send_cq = qi.send_cq, .recv_cq = qi.recv_cq};
    assert_null(create_driver_qp(e.pd, &old, EFADV_QP_DRIVER_TYPE_SRD));
    assert_int_equal(errno, EOPNOTSUPP);
    close_end(&e);
}

EDGE_MAIN(cmocka_unit_test(mlx5_declines), cmocka_unit_test(efa_declines))
