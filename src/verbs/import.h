/* Objects that other handles of their context may import: see import.c. */
#ifndef RBOND_VERBS_IMPORT_H
#define RBOND_VERBS_IMPORT_H

#include "verbs/object.h"

/* Without function->lock: puts the object on its function's list, under its tag's handle. */
void export_add(struct function *f, struct rb_export *export, struct rb_tag tag);
void export_del(struct function *f, struct rb_export *export);
/* The function closes: frees what was unimported with objects of it left. */
void import_free_all(struct function *f);

/* dm.c: another handle of this memory, which outlives it. NULL with errno. */
struct ibv_dm *dm_again(struct ibv_context *context, const struct rb_dm *dm);
void dm_unimport(struct ibv_dm *dm);

#endif
