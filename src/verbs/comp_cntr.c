/* Completion counters (IBVERBS_1.18, rdma-core 65): not supported, which ibv_create_comp_cntr(3)
 * calls ENOTSUP. Our headers may be older than they: the types are only passed on. */
#include "verbs/object.h"
#include "verbs/real.h"

struct ibv_comp_cntr {
    struct ibv_context *context;
    uint32_t handle;
};

struct ibv_comp_cntr_init_attr;
struct ibv_qp_attach_comp_cntr_attr;

/* The counter, hence the verb, is the real library's: no context of ours ever makes one. */
#define COUNTER_VERB(name)                                                                         \
    EXPORT int name(struct ibv_comp_cntr *counter, uint64_t value);                                \
    int name(struct ibv_comp_cntr *counter, uint64_t value)                                        \
    {                                                                                              \
        if (context_is_ours(counter->context)) return verb_result(EINVAL);                         \
        return REAL(name, "IBVERBS_1.18")(counter, value);                                         \
    }

#define READ_VERB(name)                                                                            \
    EXPORT int name(struct ibv_comp_cntr *counter, uint64_t *value);                               \
    int name(struct ibv_comp_cntr *counter, uint64_t *value)                                       \
    {                                                                                              \
        if (context_is_ours(counter->context)) return verb_result(EINVAL);                         \
        return REAL(name, "IBVERBS_1.18")(counter, value);                                         \
    }

COUNTER_VERB(ibv_set_comp_cntr)
COUNTER_VERB(ibv_set_err_comp_cntr)
COUNTER_VERB(ibv_inc_comp_cntr)
COUNTER_VERB(ibv_inc_err_comp_cntr)
READ_VERB(ibv_read_comp_cntr)
READ_VERB(ibv_read_err_comp_cntr)

EXPORT int _ibv_query_comp_cntr_caps(struct ibv_context *context, void *caps, size_t size);
int _ibv_query_comp_cntr_caps(struct ibv_context *context, void *caps, size_t size)
{
    if (!context_is_ours(context))
        return REAL(_ibv_query_comp_cntr_caps, "IBVERBS_1.18")(context, caps, size);
    return verb_result(ENOTSUP);
}

EXPORT struct ibv_comp_cntr *ibv_create_comp_cntr(struct ibv_context *context,
                                                  struct ibv_comp_cntr_init_attr *attr);
struct ibv_comp_cntr *ibv_create_comp_cntr(struct ibv_context *context,
                                           struct ibv_comp_cntr_init_attr *attr)
{
    if (!context_is_ours(context)) return REAL(ibv_create_comp_cntr, "IBVERBS_1.18")(context, attr);
    return fail_with(ENOTSUP);
}

EXPORT int ibv_destroy_comp_cntr(struct ibv_comp_cntr *counter);
int ibv_destroy_comp_cntr(struct ibv_comp_cntr *counter)
{
    if (context_is_ours(counter->context)) return verb_result(EINVAL);
    return REAL(ibv_destroy_comp_cntr, "IBVERBS_1.18")(counter);
}

EXPORT int ibv_qp_attach_comp_cntr(struct ibv_qp *qp, struct ibv_comp_cntr *counter,
                                   struct ibv_qp_attach_comp_cntr_attr *attr);
int ibv_qp_attach_comp_cntr(struct ibv_qp *qp, struct ibv_comp_cntr *counter,
                            struct ibv_qp_attach_comp_cntr_attr *attr)
{
    if (!context_is_ours(qp->context))
        return REAL(ibv_qp_attach_comp_cntr, "IBVERBS_1.18")(qp, counter, attr);
    return verb_result(ENOTSUP);
}
