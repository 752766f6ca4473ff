#include "ctl/discard.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

#define MOST 64

static atomic_uint under_way;

bool ctl_discard_has_room(void) { return atomic_load(&under_way) < MOST; }

static void *close_it(void *arg)
{
    close((int)(intptr_t)arg);
    atomic_fetch_sub(&under_way, 1);
    return NULL;
}

void ctl_discard(int fd)
{
    pthread_attr_t attr;
    pthread_t thread;

    if (fd < 0) return;
    atomic_fetch_add(&under_way, 1);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    /* Without a thread it stays open, and counts as being closed: there is an end to that, too. */
    (void)!pthread_create(&thread, &attr, close_it, (void *)(intptr_t)fd);
    pthread_attr_destroy(&attr);
}
