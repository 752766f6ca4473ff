/* librbond against the real libibverbs: whatever the real library exports that takes an object of
 * ours must be exported by librbond under the same node, or a program would hand our object to a
 * function that looks behind it for the real library's own fields. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <elf.h>
#include <fnmatch.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char *librbond_path;

/* Public functions that take numbers, strings, records or memory, but no object. */
static const char *const objectless[] = {
    "ibv_copy_*_kern", "ibv_do*fork_range", "ibv_*_str",    "ibv_fork_init",
    "ibv_is_fork_*",   "*ibv_rate*",        "ibv_*sysfs_*", "ibv_register_driver",
    "mult_to_*",       "mbps_to_*",         "IBVERBS_*",
};

static bool takes_no_object(const char *name)
{
    for (size_t i = 0; i < sizeof objectless / sizeof *objectless; i++)
        if (fnmatch(objectless[i], name, 0) == 0) return true;
    return false;
}

/* ---- a shared library's dynamic symbols -------------------------------------------------- */

struct image {
    const char *strings;
    const ElfW(Sym) * symbols;
    const ElfW(Half) * versions;
    const ElfW(Verdef) * nodes;
    size_t nnodes, nsymbols;
};

/* The count of symbols stands in the GNU hash: the highest chain's end. */
static size_t count_symbols(const uint32_t *hash)
{
    uint32_t nbuckets = hash[0], first = hash[1], bloom = hash[2], last = 0;
    const uint32_t *buckets = hash + 4 + bloom * (sizeof(ElfW(Addr)) / 4);
    const uint32_t *chains = buckets + nbuckets;

    for (uint32_t i = 0; i < nbuckets; i++)
        if (buckets[i] > last) last = buckets[i];
    if (last < first) return first;
    while (!(chains[last - first] & 1)) last++;
    return last + 1;
}

static void open_image(struct image *image, const char *path)
{
    struct link_map *map;
    void *handle = dlopen(path, RTLD_LAZY | RTLD_LOCAL);

    if (!handle) fail_msg("%s", dlerror());
    assert_int_equal(dlinfo(handle, RTLD_DI_LINKMAP, &map), 0);
    memset(image, 0, sizeof *image);
    for (const ElfW(Dyn) *d = map->l_ld; d->d_tag != DT_NULL; d++) {
        /* glibc relocates some of these in place and leaves the rest */
        ElfW(Addr) moved = d->d_un.d_ptr < map->l_addr ? map->l_addr : 0;
        const void *at = (const void *)(d->d_un.d_ptr + moved);
        switch (d->d_tag) {
        case DT_STRTAB: image->strings = at; break;
        case DT_SYMTAB: image->symbols = at; break;
        case DT_VERSYM: image->versions = at; break;
        case DT_VERDEF: image->nodes = at; break;
        case DT_VERDEFNUM: image->nnodes = d->d_un.d_val; break;
        case DT_GNU_HASH: image->nsymbols = count_symbols(at); break;
        }
    }
    assert_true(image->strings && image->symbols && image->versions && image->nsymbols > 10);
}

static const char *node_name(const struct image *image, unsigned index)
{
    const ElfW(Verdef) *def = image->nodes;

    for (size_t i = 0; i < image->nnodes; i++) {
        if (def->vd_ndx == index) {
            const ElfW(Verdaux) *aux = (const void *)((const char *)def + def->vd_aux);
            return image->strings + aux->vda_name;
        }
        def = (const void *)((const char *)def + def->vd_next);
    }
    return "";
}

/* The default version of each defined symbol, node "" for one without. */
static size_t for_each_symbol(const struct image *image,
                              void (*use)(void *, const char *name, const char *node), void *arg)
{
    size_t n = 0;

    for (size_t i = 1; i < image->nsymbols; i++) {
        const ElfW(Sym) *sym = &image->symbols[i];
        if (sym->st_shndx == SHN_UNDEF || (image->versions[i] & 0x8000)) continue;
        unsigned ndx = image->versions[i] & 0x7fff;
        use(arg, image->strings + sym->st_name, ndx > 1 ? node_name(image, ndx) : "");
        n++;
    }
    return n;
}

/* ---- the test ---------------------------------------------------------------------------- */

struct search {
    const struct image *in;
    const char *name, *node;
    bool found;
    size_t checked, missing;
};

static void match(void *arg, const char *name, const char *node)
{
    struct search *s = arg;
    if (strcmp(name, s->name) == 0 && strcmp(node, s->node) == 0) s->found = true;
}

static void check_one(void *arg, const char *name, const char *node)
{
    struct search *all = arg;

    if (strncmp(node, "IBVERBS_1.", 10) != 0 || takes_no_object(name)) return;
    struct search one = {.name = name, .node = node};
    for_each_symbol(all->in, match, &one);
    all->checked++;
    if (one.found) return;
    all->missing++;
    fprintf(stderr, "librbond lacks %s@%s\n", name, node);
}

static void every_verb_is_interposed(void **state)
{
    struct image real, ours;
    struct search all = {.in = &ours};

    (void)state;
    open_image(&real, "libibverbs.so.1");
    open_image(&ours, librbond_path);
    for_each_symbol(&real, check_one, &all);
    assert_true(all.checked >= 50);
    assert_int_equal(all.missing, 0);
}

/* What releases newer than the one here export, as rdma-core's libibverbs.map has it. */
static const struct {
    const char *node, *name;
} later[] = {
    {"IBVERBS_1.15", "ibv_alloc_dmah"},          {"IBVERBS_1.15", "ibv_dealloc_dmah"},
    {"IBVERBS_1.15", "ibv_reg_mr_ex"},           {"IBVERBS_1.16", "ibv_dm_export_dmabuf_fd"},
    {"IBVERBS_1.17", "ibv_alloc_buf"},           {"IBVERBS_1.17", "ibv_free_buf"},
    {"IBVERBS_1.17", "ibv_reg_buf_mr"},          {"IBVERBS_1.18", "ibv_export_buf_dmabuf_fd"},
    {"IBVERBS_1.16", "ibv_query_port_speed"},    {"IBVERBS_1.18", "_ibv_query_comp_cntr_caps"},
    {"IBVERBS_1.18", "ibv_create_comp_cntr"},    {"IBVERBS_1.18", "ibv_destroy_comp_cntr"},
    {"IBVERBS_1.18", "ibv_inc_comp_cntr"},       {"IBVERBS_1.18", "ibv_inc_err_comp_cntr"},
    {"IBVERBS_1.18", "ibv_qp_attach_comp_cntr"}, {"IBVERBS_1.18", "ibv_read_comp_cntr"},
    {"IBVERBS_1.18", "ibv_read_err_comp_cntr"},  {"IBVERBS_1.18", "ibv_set_comp_cntr"},
    {"IBVERBS_1.18", "ibv_set_err_comp_cntr"},
};

static void later_verbs_are_interposed(void **state)
{
    struct image ours;
    struct search all = {.in = &ours};

    (void)state;
    open_image(&ours, librbond_path);
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        check_one(&all, later[i].name, later[i].node);
    assert_int_equal(all.missing, 0);
}

/* Private symbols and libc hooks must be in no node, all others in one: a node of ours around a
 * libc name would hide libc's own from programs. */
static void check_node(void *arg, const char *name, const char *node)
{
    size_t *wrong = arg;
    bool verb = strncmp(name, "ibv_", 4) == 0 || strncmp(name, "_ibv_", 5) == 0 ||
                strncmp(name, "mlx5dv_", 7) == 0 || strncmp(name, "rbonddv_", 8) == 0;
    bool is_private = strcmp(name, "ibv_query_gid_type") == 0;

    if (strncmp(name, "IBVERBS_", 8) == 0 || strncmp(name, "MLX5_", 5) == 0 ||
        strncmp(name, "RBOND_", 6) == 0)
        return; /* the nodes themselves */
    if ((verb && !is_private) == (*node != 0)) return;
    fprintf(stderr, "librbond exports %s in node '%s'\n", name, node);
    ++*wrong;
}

static void nodes_only_around_verbs(void **state)
{
    struct image ours;
    size_t wrong = 0;

    (void)state;
    open_image(&ours, librbond_path);
    assert_true(for_each_symbol(&ours, check_node, &wrong) > 50);
    assert_int_equal(wrong, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_verb_is_interposed),
        cmocka_unit_test(later_verbs_are_interposed),
        cmocka_unit_test(nodes_only_around_verbs),
    };
    if (argc != 2) return 2;
    librbond_path = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
