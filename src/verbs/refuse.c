/* What takes an object of ours and is not supported: a documented error instead of a crash in the
 * real library, which would look behind our structs for its own. */
#include "verbs/context.h"
#include "verbs/real.h"

/* ---- in the operation tables ------------------------------------------------------------- */

/* Two stand for all refused operations: their arguments are not looked at, and the calling
 * conventions of the platforms we build for allow it. */
static int refuse_int(void) { return verb_result(EOPNOTSUPP); }
static void *refuse_pointer(void) { return fail_with(EOPNOTSUPP); }

/* libibverbs' private part of a context. Its layout is another in every release; a newer program
 * reaches it only through verbs that we do not wrap yet, and finds a refusal wherever it looks. */
static void (*const refusals[512])(void) = {[0 ... 511] = (void (*)(void))refuse_int};

void refuse_the_rest(struct verbs_context *v)
{
#define INT(op)                                                                                    \
    if (!v->op) v->op = (__typeof__(v->op))(void (*)(void))refuse_int
#define POINTER(op)                                                                                \
    if (!v->op) v->op = (__typeof__(v->op))(void (*)(void))refuse_pointer
    INT(read_counters);
    INT(attach_counters_point_flow);
    POINTER(create_counters);
    INT(destroy_counters);
    INT(modify_flow_action_esp);
    INT(destroy_flow_action);
    POINTER(create_flow_action_esp);
    INT(post_srq_ops);
    INT(destroy_rwq_ind_table);
    POINTER(create_rwq_ind_table);
    INT(destroy_wq);
    INT(modify_wq);
    POINTER(create_wq);
    INT(ibv_destroy_flow);
    POINTER(ibv_create_flow);
#undef INT
#undef POINTER
    v->priv = (struct verbs_ex_private *)refusals;
}

/* ---- exported ---------------------------------------------------------------------------- */

EXPORT int ibv_set_ece(struct ibv_qp *qp, struct ibv_ece *ece)
{
    if (!context_is_ours(qp->context)) return REAL(ibv_set_ece, "IBVERBS_1.10")(qp, ece);
    return verb_result(EOPNOTSUPP);
}

EXPORT int ibv_query_ece(struct ibv_qp *qp, struct ibv_ece *ece)
{
    if (!context_is_ours(qp->context)) return REAL(ibv_query_ece, "IBVERBS_1.10")(qp, ece);
    return verb_result(EOPNOTSUPP);
}
