/* Finds the real libibverbs beside this library. A preload shadows its names, so every lookup goes
 * through a handle of that very file (dlvsym on a handle searches only it and what it needs). */
#include "verbs/real.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const candidates[] = {
    "libibverbs.so.1",
#if defined(__x86_64__)
    "/usr/lib/x86_64-linux-gnu/libibverbs.so.1",
#elif defined(__aarch64__)
    "/usr/lib/aarch64-linux-gnu/libibverbs.so.1",
#endif
    "/usr/lib64/libibverbs.so.1",
    "/usr/lib/libibverbs.so.1",
};

static void *handle;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Does this handle lead to us instead? True for the shim that carries the real library's name. */
static int is_self(void *candidate)
{
    Dl_info mine, its;
    void *sym = dlvsym(candidate, "ibv_get_device_list", "IBVERBS_1.1");
    if (!sym) return 1;
    return dladdr((void *)real_lookup, &mine) && dladdr(sym, &its) &&
           mine.dli_fbase == its.dli_fbase;
}

static void *try_open(const char *path, int flags)
{
    void *candidate = dlopen(path, RTLD_LAZY | RTLD_LOCAL | flags);
    if (candidate && is_self(candidate)) {
        dlclose(candidate);
        return NULL;
    }
    return candidate;
}

static void find(void)
{
    const char *named = secure_getenv("RBOND_LIBIBVERBS");
    if (named) {
        handle = try_open(named, 0);
        if (handle) return;
    }
    handle = try_open(candidates[0], RTLD_NOLOAD); /* the program's own, if it has one */
    for (size_t i = 0; !handle && i < sizeof candidates / sizeof *candidates; i++)
        handle = try_open(candidates[i], 0);
}

static void *in_handle(void *from, const char *name, const char *node)
{
    return node ? dlvsym(from, name, node) : dlsym(from, name);
}

void *real_lookup(const char *name, const char *node)
{
    pthread_once(&once, find);
    return handle ? in_handle(handle, name, node) : NULL;
}

void *real_symbol(const char *name, const char *node)
{
    void *at = real_lookup(name, node);
    if (!at) {
        fprintf(stderr,
                "librbond: the real libibverbs has no %s (%s): set RBOND_LIBIBVERBS to its path\n",
                name, node ? node : "private");
        abort();
    }
    return at;
}

void *real_mlx5(const char *name, const char *node)
{
    void *mlx5 = dlopen("libmlx5.so.1", RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
    void *at = mlx5 ? in_handle(mlx5, name, node) : NULL;
    if (mlx5) dlclose(mlx5); /* the program keeps it loaded */
    return at;
}
