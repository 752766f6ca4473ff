/* The library's locks that are not a function's, at a fork. */
#ifndef RBOND_VERBS_PROCESS_H
#define RBOND_VERBS_PROCESS_H

#include <pthread.h>

/* From a constructor, for good: a child must not find `lock` held by a thread of the parent's, nor
 * what it guards half changed. No two such locks are held at once; a function's is taken after one of
 * them, never before.
 * `in_child` may be NULL; it runs in the child before anything else does. */
void process_guard(pthread_mutex_t *lock, void (*in_child)(void));

#endif
