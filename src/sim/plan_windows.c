/* Which connections work through memory windows, and when these open and close: see
 * plan_windows.h. */
#include "sim/plan_windows.h"
#include "base/must.h"
#include <stdlib.h>
#include <string.h>

#define MAX_EPOCHS 4

static bool is_rdma(const struct request *r)
{
    return r->op == HCA_WR_RDMA_WRITE || r->op == HCA_WR_RDMA_WRITE_WITH_IMM ||
           r->op == HCA_WR_RDMA_READ || r->op == HCA_WR_ATOMIC_WRITE || r->word;
}

/* The user's requests in turn; the last of each epoch tells that it is over, or closes the window
 * itself. */
static void draw_epochs(struct rng *rng, struct plan_qp *user, uint32_t epochs, bool *remote_close)
{
    uint32_t n = user->nrequests;
    for (uint32_t i = 0; i < n; i++) {
        struct request *r = &user->request[i];
        r->epoch = 1 + i * epochs / n;
        if (i + 1 < n && 1 + (i + 1) * epochs / n == r->epoch) continue;
        r->flags |= HCA_SEND_SIGNALED;
        remote_close[r->epoch] = r->op == HCA_WR_SEND && rng_percent(rng, 60);
        if (!remote_close[r->epoch]) continue;
        r->op = HCA_WR_SEND_WITH_INV;
        r->flags |= HCA_SEND_FENCE; /* a READ whose answer is lost is asked for again */
    }
}

/* Binds and invalidates among the owner's own requests, in order. */
static void insert(struct rng *rng, struct plan_qp *owner, uint32_t epochs,
                   const bool *remote_close)
{
    uint32_t old = owner->nrequests, n = 0, taken = 0;
    struct request *all = calloc(old + 2 * epochs + 1, sizeof *all);
    must(all);
    for (uint32_t k = 0; k < 2 * epochs; k++) {
        uint32_t epoch = k / 2 + 1;
        if (k % 2 && remote_close[epoch]) continue;
        uint32_t some = (uint32_t)rng_below(rng, old - taken + 1) / (2 * epochs - k);
        memcpy(&all[n], &owner->request[taken], some * sizeof *all);
        n += some;
        taken += some;
        all[n++] = (struct request){.op = k % 2 ? HCA_WR_LOCAL_INV : HCA_WR_BIND_MW,
                                    .flags = HCA_SEND_SIGNALED |
                                             (rng_percent(rng, 20) ? (uint32_t)HCA_SEND_FENCE : 0),
                                    .to = owner->peer,
                                    .epoch = epoch};
    }
    memcpy(&all[n], &owner->request[taken], (old - taken) * sizeof *all);
    free(owner->request);
    owner->request = all;
    owner->nrequests = n + old - taken;
}

void plan_windows(struct plan *p, struct rng *rng, uint32_t qi)
{
    struct plan_qp *owner = &p->qp[qi], *user = &p->qp[owner->peer];
    uint32_t epochs = (uint32_t)rng_range(rng, 1, MAX_EPOCHS);
    bool remote_close[MAX_EPOCHS + 1] = {false};
    if (owner->type != HCA_QPT_RC || owner->window || user->window) return;
    if (user->nrequests < epochs) return;
    owner->window = true;
    p->windows = true;
    draw_epochs(rng, user, epochs, remote_close);
    insert(rng, owner, epochs, remote_close);
    struct request *last = &user->request[user->nrequests - 1];
    if (!is_rdma(last) || !last->len || rng_percent(rng, 50)) return;
    user->provoke = PROVOKE_CLOSED_WINDOW;
    user->provoke_at = user->nrequests - 1;
    last->must_fail = 1u << HCA_WC_REM_ACCESS_ERR;
    last->after_close = true;
    if (user->nrequests > 1) user->request[user->nrequests - 2].flags |= HCA_SEND_SIGNALED;
}
