/* See xrc_end.h. */
#include "xrc_end.h"
#include <dirent.h>

struct ibv_xrcd *open_domain(struct ibv_context *context, int file, int oflags)
{
    struct ibv_xrcd_init_attr init = {.comp_mask =
                                          IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS,
                                      .fd = file,
                                      .oflags = oflags};
    return ibv_open_xrcd(context, &init);
}

struct ibv_qp *new_target(struct ibv_context *context, struct ibv_xrcd *domain)
{
    struct ibv_qp_init_attr_ex qi = {
        .qp_type = IBV_QPT_XRC_RECV, .comp_mask = IBV_QP_INIT_ATTR_XRCD, .xrcd = domain};
    return ibv_create_qp_ex(context, &qi);
}

struct ibv_qp *open_target(struct ibv_context *context, struct ibv_xrcd *domain, uint32_t num,
                           void *qp_context)
{
    struct ibv_qp_open_attr attr = {.comp_mask = IBV_QP_OPEN_ATTR_NUM | IBV_QP_OPEN_ATTR_XRCD |
                                                 IBV_QP_OPEN_ATTR_CONTEXT | IBV_QP_OPEN_ATTR_TYPE,
                                    .qp_num = num,
                                    .xrcd = domain,
                                    .qp_context = qp_context,
                                    .qp_type = IBV_QPT_XRC_RECV};
    return ibv_open_qp(context, &attr);
}

struct ibv_qp *new_sender(const struct end *e)
{
    struct ibv_qp_init_attr_ex qi = {.qp_type = IBV_QPT_XRC_SEND,
                                     .comp_mask =
                                         IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
                                     .pd = e->pd,
                                     .send_cq = ibv_cq_ex_to_cq(e->cq),
                                     .cap = {.max_send_wr = 64, .max_send_sge = 1},
                                     .send_ops_flags = IBV_QP_EX_WITH_SEND};
    return ibv_create_qp_ex(e->context, &qi);
}

struct ibv_srq_init_attr_ex srq_init(const struct end *e, struct ibv_xrcd *domain)
{
    return (struct ibv_srq_init_attr_ex){.attr = {.max_wr = 64, .max_sge = 2},
                                         .comp_mask = IBV_SRQ_INIT_ATTR_TYPE |
                                                      IBV_SRQ_INIT_ATTR_PD |
                                                      IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ,
                                         .srq_type = IBV_SRQT_XRC,
                                         .pd = e->pd,
                                         .xrcd = domain,
                                         .cq = ibv_cq_ex_to_cq(e->cq)};
}

struct ibv_srq *new_xrc_srq(const struct end *e, struct ibv_xrcd *domain, uint32_t *num)
{
    struct ibv_srq_init_attr_ex si = srq_init(e, domain);
    struct ibv_srq *srq = ibv_create_srq_ex(e->context, &si);
    assert_non_null(srq);
    assert_int_equal(ibv_get_srq_num(srq, num), 0);
    return srq;
}

void up(struct end *e, struct ibv_qp *qp, struct ibv_qp *peer, uint8_t timeout)
{
    struct end near = *e, far = {.qp = peer};
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = ALL_ACCESS};
    near.qp = qp;
    assert_int_equal(
        ibv_modify_qp(qp, &attr,
                      IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS),
        0);
    connect_rc(&near, &far, timeout);
}

void expect(struct end *e, uint64_t id, enum ibv_wc_status status)
{
    struct ibv_wc wc;
    await(e, &wc);
    assert_int_equal(wc.status, status);
    assert_int_equal(wc.wr_id, id);
}

struct ibv_async_event next_event(struct ibv_context *context)
{
    struct ibv_async_event event;
    struct pollfd pfd = {.fd = context->async_fd, .events = POLLIN};
    do {
        assert_int_equal(poll(&pfd, 1, WAIT_MS), 1);
        assert_int_equal(ibv_get_async_event(context, &event), 0);
        ibv_ack_async_event(&event);
    } while (event.event_type == IBV_EVENT_COMM_EST);
    return event;
}

static unsigned open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned n = 0;

    assert_non_null(dir);
    while (readdir(dir)) n++;
    closedir(dir);
    return n;
}

struct end ini, tgt;
struct ibv_xrcd *xrcd;
int fd;
static unsigned fds_before;

void bed_up(void)
{
    char name[] = "/tmp/rbond-xrc-XXXXXX";

    fds_before = open_fds();
    fd = mkstemp(name);
    assert_true(fd >= 0);
    unlink(name);
    open_end(&ini, IBV_QPT_RC);
    open_end(&tgt, IBV_QPT_RC);
    assert_non_null(xrcd = open_domain(tgt.context, fd, O_CREAT | O_EXCL));
}

void bed_down(void)
{
    assert_int_equal(ibv_close_xrcd(xrcd), 0);
    close_end(&ini);
    close_end(&tgt);
    close(fd);
    assert_int_equal(open_fds(), fds_before);
}
