/* A program that is not linked to libibverbs but asks a handle of it for every function, as NCCL
 * does: with the preload and the directory of the shim, with the shim alone, with librdmacm loaded
 * first or later, and under RTLD_DEEPBIND. Each way is a process of its own: this program again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#undef ibv_reg_mr
#undef ibv_query_port

static const char *device_name;

/* ---- what such a program loads ----------------------------------------------------------- */

#define SYMBOLS(X)                                                                                 \
    X(ibv_get_device_list, "1.1")                                                                  \
    X(ibv_free_device_list, "1.1")                                                                 \
    X(ibv_get_device_name, "1.1")                                                                  \
    X(ibv_open_device, "1.1")                                                                      \
    X(ibv_close_device, "1.1")                                                                     \
    X(ibv_get_async_event, "1.1")                                                                  \
    X(ibv_ack_async_event, "1.1")                                                                  \
    X(ibv_query_device, "1.1")                                                                     \
    X(ibv_query_port, "1.1")                                                                       \
    X(ibv_query_gid, "1.1")                                                                        \
    X(ibv_query_qp, "1.1")                                                                         \
    X(ibv_alloc_pd, "1.1")                                                                         \
    X(ibv_dealloc_pd, "1.1")                                                                       \
    X(ibv_reg_mr, "1.1")                                                                           \
    X(ibv_reg_mr_iova2, "1.8")                                                                     \
    X(ibv_reg_dmabuf_mr, "1.12")                                                                   \
    X(ibv_dereg_mr, "1.1")                                                                         \
    X(ibv_create_comp_channel, "1.0")                                                              \
    X(ibv_destroy_comp_channel, "1.0")                                                             \
    X(ibv_create_cq, "1.1")                                                                        \
    X(ibv_destroy_cq, "1.1")                                                                       \
    X(ibv_create_qp, "1.1")                                                                        \
    X(ibv_modify_qp, "1.1")                                                                        \
    X(ibv_destroy_qp, "1.1")                                                                       \
    X(ibv_fork_init, "1.1")                                                                        \
    X(ibv_event_type_str, "1.1")                                                                   \
    X(ibv_query_ece, "1.10")                                                                       \
    X(ibv_set_ece, "1.10")

static struct {
#define X(name, node) __typeof__(&name) name;
    SYMBOLS(X)
#undef X
} v;

static int lacks(const char *what)
{
    printf("handle: %s: %s\n", what, dlerror());
    return 1;
}

static int load(void *handle)
{
#define X(name, node)                                                                              \
    v.name = (__typeof__(&name))dlvsym(handle, #name, "IBVERBS_" node);                            \
    if (!v.name) return lacks(#name);
    SYMBOLS(X)
#undef X
    /* Others do without the node. */
    if (dlsym(handle, "ibv_open_device") != (void *)v.ibv_open_device)
        return lacks("another ibv_open_device");
    if (!dlsym(handle, "ibv_wc_status_str")) return lacks("ibv_wc_status_str");
    return 0;
}

/* ---- and does with it -------------------------------------------------------------------- */

static struct ibv_context *open_device(void)
{
    int n, at = 0;
    struct ibv_device **list = v.ibv_get_device_list(&n);
    struct ibv_context *context = NULL;

    while (at < n && strcmp(v.ibv_get_device_name(list[at]), device_name) != 0) at++;
    if (at < n) context = v.ibv_open_device(list[at]);
    if (list) v.ibv_free_device_list(list);
    return context;
}

/* A queue pair that is connected to itself. */
static int connect_to_itself(struct ibv_qp *qp)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1};
    int rc = v.ibv_modify_qp(qp, &attr,
                             IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);

    attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTR,
                                .path_mtu = IBV_MTU_1024,
                                .dest_qp_num = qp->qp_num,
                                .max_dest_rd_atomic = 1,
                                .min_rnr_timer = 12,
                                .ah_attr = {.is_global = 1, .port_num = 1}};
    union ibv_gid *gid = &attr.ah_attr.grh.dgid;
    uint8_t *index = &attr.ah_attr.grh.sgid_index; /* of an IPv4 address: those are there at once */
    while (*index < 32 && !v.ibv_query_gid(qp->context, 1, *index, gid) && gid->raw[10] != 0xff)
        ++*index;
    rc |= v.ibv_modify_qp(qp, &attr,
                          IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                              IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
    attr = (struct ibv_qp_attr){
        .qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 1};
    return rc | v.ibv_modify_qp(qp, &attr,
                                IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
                                    IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
}

static int send_to_itself(struct ibv_qp *qp, char *text, const struct ibv_mr *mr)
{
    struct ibv_sge from = {(uintptr_t)text, 32, mr->lkey},
                   to = {(uintptr_t)text + 32, 32, mr->lkey};
    struct ibv_recv_wr recv = {.sg_list = &to, .num_sge = 1}, *bad_recv;
    struct ibv_send_wr send = {.sg_list = &from,
                               .num_sge = 1,
                               .opcode = IBV_WR_SEND,
                               .send_flags = IBV_SEND_SIGNALED},
                       *bad_send;
    struct ibv_wc wc;
    int done = 0;
    time_t until = time(NULL) + 10;

    strcpy(text, "through the handle");
    if (ibv_post_recv(qp, &recv, &bad_recv) || ibv_post_send(qp, &send, &bad_send))
        return lacks("post");
    while (done < 2 && time(NULL) < until)
        if (ibv_poll_cq(qp->send_cq, 1, &wc) == 1 && wc.status == IBV_WC_SUCCESS) done++;
    return done == 2 && strcmp(text + 32, "through the handle") == 0 ? 0 : lacks("send");
}

static int use(void)
{
    static char text[64];
    struct ibv_context *context = open_device();
    if (!context) return lacks(device_name);
    struct ibv_pd *pd = v.ibv_alloc_pd(context);
    struct ibv_mr *mr = v.ibv_reg_mr(pd, text, sizeof text, IBV_ACCESS_LOCAL_WRITE);
    struct ibv_cq *cq = v.ibv_create_cq(context, 8, NULL, NULL, 0);
    struct ibv_qp_init_attr init = {
        .send_cq = cq, .recv_cq = cq, .cap = {4, 4, 1, 1, 0}, .qp_type = IBV_QPT_RC};
    struct ibv_qp *qp = cq ? v.ibv_create_qp(pd, &init) : NULL;
    if (!mr || !qp) return lacks("objects");
    if (connect_to_itself(qp)) return lacks("connect");
    if (send_to_itself(qp, text, mr)) return 1;
    if (v.ibv_destroy_qp(qp) || v.ibv_destroy_cq(cq) || v.ibv_dereg_mr(mr) ||
        v.ibv_dealloc_pd(pd) || v.ibv_close_device(context))
        return lacks("destroy");
    return 0;
}

/* mlx5's own calls, on a device that is none of its. */
static int use_mlx5(void)
{
    void *mlx5 = dlopen("libmlx5.so.1", RTLD_NOW);
    bool (*is_supported)(struct ibv_device *) =
        mlx5 ? dlvsym(mlx5, "mlx5dv_is_supported", "MLX5_1.8") : NULL;
    struct ibv_context *context;

    if (!is_supported) return lacks("mlx5dv_is_supported");
    context = open_device();
    if (!context) return lacks(device_name);
    if (is_supported(context->device)) return lacks("is an mlx5 device");
    return v.ibv_close_device(context);
}

/* In the process of its own: `way` names what is loaded, in which order and how. */
static int child(const char *way)
{
    /* A sanitizer's runtime does not allow deep binding. */
    bool deep = strstr(way, "deep") && !getenv("EDGE_PRELOAD");
    int flags = RTLD_NOW | (deep ? RTLD_DEEPBIND : 0);
    const char *name = strstr(way, "devel") ? "libibverbs.so" : "libibverbs.so.1";

    if (strstr(way, "cm-first") && !dlopen("librdmacm.so.1", flags)) return lacks("librdmacm");
    void *handle = dlopen(name, flags);
    if (!handle) return lacks(name);
    if (strstr(way, "cm-later") && !dlopen("librdmacm.so.1", flags)) return lacks("librdmacm");
    if (load(handle)) return 1;
    return use() || (strstr(way, "mlx5") && use_mlx5());
}

/* ---- the ways ---------------------------------------------------------------------------- */

static void go(const char *way)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        const char *need = getenv("EDGE_PRELOAD"); /* a sanitizer's runtime */
        if (strstr(way, "alone")) setenv("LD_PRELOAD", need ? need : "", 1);
        execl("/proc/self/exe", "handle", device_name, way, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void by_name(void **state) { go("plain"); }
static void by_developers_name(void **state) { go("devel"); }
static void after_librdmacm(void **state) { go("cm-first"); }
static void before_librdmacm(void **state) { go("cm-later"); }
static void bound_deep(void **state) { go("cm-first deep"); }
static void beside_mlx5(void **state) { go("mlx5"); }
static void without_preload(void **state) { go("alone"); }
static void without_preload_after_librdmacm(void **state) { go("alone cm-first deep"); }

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_name),         cmocka_unit_test(by_developers_name),
        cmocka_unit_test(after_librdmacm), cmocka_unit_test(before_librdmacm),
        cmocka_unit_test(bound_deep),      cmocka_unit_test(beside_mlx5),
        cmocka_unit_test(without_preload), cmocka_unit_test(without_preload_after_librdmacm),
    };

    device_name = argc > 1 ? argv[1] : "";
    if (argc > 2) return child(argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
