/* Invariants of our own: checked in every build, release included. A caller's mistake is an errno
 * and a peer's misbehaviour a verdict; neither belongs here. */
#ifndef RBOND_BASE_MUST_H
#define RBOND_BASE_MUST_H

#include <stdio.h>
#include <stdlib.h>

#define must(cond)                                                                                 \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0)) {                                                        \
            fprintf(stderr, "rbond: %s:%d: broken invariant: %s\n", __FILE__, __LINE__, #cond);    \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#endif
