#include "base/must.h"
#include "daemon/tree.h"
#include <errno.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void ring(int fd)
{
    const uint64_t one = 1;

    must(write(fd, &one, sizeof one) == sizeof one);
}

static void *work(void *arg)
{
    struct tree_pen *pen = arg;
    uint64_t orders;

    for (;;) {
        if (read(pen->order, &orders, sizeof orders) < 0) {
            must(errno == EINTR);
            continue;
        }
        if (atomic_load_explicit(&pen->ends, memory_order_acquire)) return NULL;
        pen->write(pen->arg);
        ring(pen->done);
    }
}

int tree_pen_start(struct tree_pen *pen, void (*write)(void *arg), void *arg)
{
    int rc = 0;

    *pen = (struct tree_pen){.write = write, .arg = arg};
    pen->order = eventfd(0, EFD_CLOEXEC);
    pen->done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pen->order < 0 || pen->done < 0)
        rc = -errno;
    else
        rc = -pthread_create(&pen->thread, NULL, work, pen);
    if (rc == 0) return 0;
    if (pen->order >= 0) close(pen->order);
    if (pen->done >= 0) close(pen->done);
    return rc;
}

void tree_pen_order(struct tree_pen *pen) { ring(pen->order); }

bool tree_pen_done(struct tree_pen *pen)
{
    uint64_t times;

    return read(pen->done, &times, sizeof times) == sizeof times;
}

void tree_pen_end(struct tree_pen *pen)
{
    atomic_store_explicit(&pen->ends, true, memory_order_release);
    ring(pen->order);
    pthread_join(pen->thread, NULL);
    close(pen->order);
    close(pen->done);
}
