/* The real libibverbs, for every object that is not ours. */
#ifndef RBOND_VERBS_REAL_H
#define RBOND_VERBS_REAL_H

#include <stdatomic.h>
#include <stddef.h>

/* The function `name` of version node `node` (NULL: any) in the real library; NULL where there is
 * no such library or symbol. */
void *real_lookup(const char *name, const char *node);
/* The same, where an object made by the real library proves that it must exist. */
void *real_symbol(const char *name, const char *node);
/* The same in libmlx5, which may be absent. */
void *real_mlx5(const char *name, const char *node);

/* The real function, looked up once, to be called at once: REAL(ibv_alloc_pd, "IBVERBS_1.1")(ctx).
 */
#define REAL(name, node)                                                                           \
    ({                                                                                             \
        static _Atomic(void *) cached_;                                                            \
        void *at_ = atomic_load_explicit(&cached_, memory_order_acquire);                          \
        if (!at_) {                                                                                \
            at_ = real_symbol(#name, node);                                                        \
            atomic_store_explicit(&cached_, at_, memory_order_release);                            \
        }                                                                                          \
        (__typeof__(&name))at_;                                                                    \
    })

#endif
