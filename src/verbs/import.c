/* ibv_import_device(3) and its kin, within the process: more handles of a context, and in them of
 * its domains, regions and device memory. The adapter works on memory by its own pointers, so
 * another process's context cannot be imported.
 *
 * What may be imported is on its function's list under its public handle. An imported PD or MR
 * repeats the numbers of the original; imported device memory is the same memfd, mapped again. */
#include "verbs/import.h"
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/mr.h"
#include "verbs/real.h"
#include <stdlib.h>

/* ---- what may be imported ---------------------------------------------------------------- */

void export_add(struct function *f, struct rb_export *export, struct rb_tag tag)
{
    export->tag = tag;
    if (function_lock(f)) {
        list_init(&export->link);
        return;
    }
    list_add_tail(&f->exports, &export->link);
    function_unlock(f);
}

void export_del(struct function *f, struct rb_export *export)
{
    bool locked = function_lock(f) == 0; /* a forked child frees its copy */
    list_del(&export->link);
    if (locked) function_unlock(f);
}

/* Holding the lock. */
static struct rb_export *find(struct function *f, enum rb_magic magic, uint32_t handle)
{
    list_for_each (node, &f->exports) {
        struct rb_export *e = container_of(node, struct rb_export, link);
        if (e->tag.magic == magic && e->tag.id == handle) return e;
    }
    return NULL;
}

/* The lock, and the object behind the handle; NULL with errno and without the lock. */
static struct rb_export *find_locked(struct function *f, enum rb_magic magic, uint32_t handle)
{
    int rc = function_lock(f);
    if (rc) return fail_with(rc);
    struct rb_export *e = find(f, magic, handle);
    if (e) return e;
    function_unlock(f);
    return fail_with(ENOENT);
}

/* ---- protection domains ------------------------------------------------------------------ */

EXPORT struct ibv_pd *ibv_import_pd(struct ibv_context *context, uint32_t handle)
{
    if (!context_is_ours(context)) return REAL(ibv_import_pd, "IBVERBS_1.10")(context, handle);

    struct function *f = rb_context(context)->f;
    struct rb_pd *pd = calloc(1, sizeof *pd);
    if (!pd) return fail_with(ENOMEM);
    struct rb_export *e = find_locked(f, RB_PD, handle);
    if (!e) {
        free(pd);
        return NULL;
    }
    struct rb_pd *from = container_of(e, struct rb_pd, export);
    pd->source = from->of ? from->of : from;
    pd->num = from->num;
    atomic_fetch_add(&pd->source->refs, 1);
    function_unlock(f);
    list_init(&pd->export.link);
    pd->tag = (struct rb_tag){RB_PD, handle};
    pd->ibv.context = context;
    pd->ibv.handle = handle;
    return &pd->ibv;
}

/* One that still has objects keeps its memory until the adapter goes: their destruction will look
 * at it. */
EXPORT void ibv_unimport_pd(struct ibv_pd *ibv)
{
    if (!context_is_ours(ibv->context)) {
        REAL(ibv_unimport_pd, "IBVERBS_1.10")(ibv);
        return;
    }
    struct rb_pd *pd = rb_pd(ibv);
    if (!pd || !pd->source || pd->unimported || ibv_dealloc_pd(ibv) == 0) return;
    pd->unimported = true;
    atomic_fetch_sub(&pd->source->refs, 1);
    export_add(rb_context(ibv->context)->f, &pd->export, (struct rb_tag){RB_UNIMPORTED, 0});
}

void import_free_all(struct function *f)
{
    struct rb_export *e;
    while ((e = find(f, RB_UNIMPORTED, 0))) {
        list_del(&e->link);
        free(container_of(e, struct rb_pd, export));
    }
}

/* ---- memory ------------------------------------------------------------------------------ */

EXPORT struct ibv_mr *ibv_import_mr(struct ibv_pd *ibv, uint32_t handle)
{
    if (!context_is_ours(ibv->context)) return REAL(ibv_import_mr, "IBVERBS_1.10")(ibv, handle);

    struct rb_pd *pd = rb_pd(ibv);
    if (!pd) return fail_with(EINVAL);
    struct function *f = rb_context(ibv->context)->f;
    struct rb_mr *mr = calloc(1, sizeof *mr);
    if (!mr) return fail_with(ENOMEM);
    struct rb_export *e = find_locked(f, RB_MR, handle);
    if (!e) {
        free(mr);
        return NULL;
    }
    mr->ibv = container_of(e, struct rb_mr, export)->ibv;
    function_unlock(f);
    mr->kind = MR_IMPORTED;
    list_init(&mr->export.link);
    mr->tag = (struct rb_tag){RB_MR, handle};
    mr->ibv.context = ibv->context;
    mr->ibv.pd = ibv;
    mr->ibv.addr = NULL; /* says ibv_import_mr(3) */
    atomic_fetch_add(&pd->refs, 1);
    return &mr->ibv;
}

EXPORT void ibv_unimport_mr(struct ibv_mr *ibv)
{
    if (!context_is_ours(ibv->context)) {
        REAL(ibv_unimport_mr, "IBVERBS_1.10")(ibv);
        return;
    }
    struct rb_mr *mr = rb_mr(ibv);
    if (mr && mr->kind == MR_IMPORTED) ibv_dereg_mr(ibv);
}

EXPORT struct ibv_dm *ibv_import_dm(struct ibv_context *context, uint32_t handle)
{
    if (!context_is_ours(context)) return REAL(ibv_import_dm, "IBVERBS_1.13")(context, handle);

    struct function *f = rb_context(context)->f;
    struct rb_export *e = find_locked(f, RB_DM, handle);
    if (!e) return NULL;
    struct ibv_dm *dm = dm_again(context, container_of(e, struct rb_dm, export));
    function_unlock(f);
    return dm;
}

EXPORT void ibv_unimport_dm(struct ibv_dm *dm)
{
    if (context_is_ours(dm->context))
        dm_unimport(dm);
    else
        REAL(ibv_unimport_dm, "IBVERBS_1.13")(dm);
}
