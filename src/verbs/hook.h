/* Hooks of libc's functions. Their symbols carry no version node (a node of ours would break
 * programs that want libc's own). */
#ifndef RBOND_VERBS_HOOK_H
#define RBOND_VERBS_HOOK_H

#include <dlfcn.h>

#define HOOK __attribute__((visibility("default")))

/* libc's own as `real`, found at the first call: a constructor of somebody else may run before
 * ours. */
#define LIBC(name)                                                                                 \
    static __typeof__(&name) real;                                                                 \
    if (__builtin_expect(!__atomic_load_n(&real, __ATOMIC_RELAXED), 0))                            \
    __atomic_store_n(&real, (__typeof__(&name))dlsym(RTLD_NEXT, #name), __ATOMIC_RELAXED)

#endif
