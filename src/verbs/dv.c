/* Affinity of queue pairs to members: rbonddv.h, and the same under mlx5dv's names, so that
 * programs written for its bonded adapters run. */
#include "rbond/rbonddv.h"
#include "verbs/function.h"
#include "verbs/real.h"

static_assert(RBONDDV_NO_MEMBER == STEER_NO_MEMBER, "no member");

EXPORT int mlx5dv_query_qp_lag_port(struct ibv_qp *qp, uint8_t *port, uint8_t *active);
EXPORT int mlx5dv_modify_qp_lag_port(struct ibv_qp *qp, uint8_t port);

EXPORT bool rbonddv_is_supported(struct ibv_device *device) { return device_is_ours(device); }

EXPORT int rbonddv_query_qp_affinity(struct ibv_qp *ibv, uint8_t *configured, uint8_t *active)
{
    struct hca_qp_view view;

    if (!context_is_ours(ibv->context)) return verb_result(EOPNOTSUPP);
    struct rb_qp *qp = rb_qp(ibv);
    if (!qp) return verb_result(EINVAL);
    if (qp->elsewhere) return verb_result(EOPNOTSUPP);
    int rc = function_lock(qp->f);
    if (rc) return verb_result(rc);
    hca_qp_view(qp->hca, &view);
    function_unlock(qp->f);
    if (configured) *configured = view.home;
    if (active) *active = view.active;
    return 0;
}

/* A bucket whose home is this member, not always the same one; -1: the table gives it none. */
static int bucket_of(struct function *f, uint8_t member)
{
    for (unsigned i = 0; i < STEER_BUCKETS; i++) {
        uint8_t bucket = f->next_bucket++;
        if (f->state.steering.home[bucket] == member) return bucket;
    }
    return -1;
}

EXPORT int rbonddv_modify_qp_affinity(struct ibv_qp *ibv, uint8_t member)
{
    if (!context_is_ours(ibv->context)) return verb_result(EOPNOTSUPP);
    struct rb_qp *qp = rb_qp(ibv);
    if (!qp) return verb_result(EINVAL);
    if (qp->elsewhere) return verb_result(EOPNOTSUPP);
    struct function *f = qp->f;
    int rc = function_lock(f);
    if (rc) return verb_result(rc);
    when_t now = function_now();
    function_flush(f, now); /* the newest table, too */
    int bucket = bucket_of(f, member);
    if (member >= f->state.steering.nmembers) {
        rc = EINVAL;
    } else if (bucket < 0) {
        rc = EOPNOTSUPP;
    } else {
        hca_qp_set_bucket(f->hca, qp->hca, (uint8_t)bucket, now);
        publish_qp(f, qp);
        function_flush(f, now);
    }
    function_unlock(f);
    return verb_result(rc);
}

/* ---- mlx5dv: ports count from 1 ---------------------------------------------------------- */

int mlx5dv_query_qp_lag_port(struct ibv_qp *qp, uint8_t *port, uint8_t *active)
{
    if (!context_is_ours(qp->context)) {
        __typeof__(&mlx5dv_query_qp_lag_port) real =
            real_mlx5("mlx5dv_query_qp_lag_port", "MLX5_1.14");
        return real ? real(qp, port, active) : EOPNOTSUPP;
    }
    uint8_t home, now;
    int rc = rbonddv_query_qp_affinity(qp, &home, &now);
    if (rc) return rc;
    *port = home == STEER_NO_MEMBER ? 0 : (uint8_t)(home + 1);
    *active = now == STEER_NO_MEMBER ? 0 : (uint8_t)(now + 1);
    return 0;
}

int mlx5dv_modify_qp_lag_port(struct ibv_qp *qp, uint8_t port)
{
    if (!context_is_ours(qp->context)) {
        __typeof__(&mlx5dv_modify_qp_lag_port) real =
            real_mlx5("mlx5dv_modify_qp_lag_port", "MLX5_1.14");
        return real ? real(qp, port) : EOPNOTSUPP;
    }
    return port == 0 ? verb_result(EINVAL) : rbonddv_modify_qp_affinity(qp, (uint8_t)(port - 1));
}
