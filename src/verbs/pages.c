/* See pages.h. The kernel is asked by madvise, which finds out and faults in what an access would,
 * but says so by an error instead of a signal. */
#include "verbs/pages.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ /* Linux 5.14 */
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

static uintptr_t page_size(void)
{
    static _Atomic uintptr_t known;
    uintptr_t size = atomic_load_explicit(&known, memory_order_relaxed);
    if (size == 0) {
        size = (uintptr_t)sysconf(_SC_PAGESIZE);
        atomic_store_explicit(&known, size, memory_order_relaxed);
    }
    return size;
}

/* EINVAL of madvise means two things where the advice may be unknown: asked once, for a page that
 * is there. */
bool pages_on_demand(void)
{
    static _Atomic int known; /* 0: not asked yet, 1 yes, 2 no */
    int k = atomic_load_explicit(&known, memory_order_relaxed);

    if (k == 0) {
        size_t page = page_size();
        void *at = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        k = at != MAP_FAILED && madvise(at, page, MADV_POPULATE_READ) == 0 ? 1 : 2;
        if (at != MAP_FAILED) munmap(at, page);
        atomic_store_explicit(&known, k, memory_order_relaxed);
    }
    return k == 1;
}

struct range {
    uintptr_t from, to;
};

/* The whole pages around [addr, addr + length); false where that wraps. */
static bool whole_pages(const void *addr, size_t length, struct range *r)
{
    uintptr_t page = page_size(), end;
    if (__builtin_add_overflow((uintptr_t)addr, length, &end)) return false;
    if (__builtin_add_overflow(end, page - 1, &end)) return false;
    r->from = (uintptr_t)addr & ~(page - 1);
    r->to = end & ~(page - 1);
    return true;
}

static bool populate(struct range r, bool write)
{
    int rc;
    do
        rc = madvise((void *)r.from, r.to - r.from,
                     write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
    while (rc && (errno == EINTR || errno == EAGAIN));
    return rc == 0;
}

int pages_look(const void *addr, size_t length)
{
    unsigned char resident[4096];
    struct range r;
    if (!whole_pages(addr, length, &r)) return EINVAL;
    const uintptr_t step = sizeof resident * page_size();

    for (; r.from < r.to; r.from += step) {
        size_t len = r.to - r.from < step ? r.to - r.from : step;
        if (mincore((void *)r.from, len, resident) != 0 && errno == ENOMEM) return EFAULT;
    }
    return 0;
}

int pages_probe(const void *addr, size_t length, bool write)
{
    struct range r;
    if (length == 0) return 0;
    if (!whole_pages(addr, length, &r)) return EINVAL;
    if (!pages_on_demand()) return pages_look(addr, length);
    return populate(r, write) ? 0 : EFAULT;
}

bool pages_in(void *at, size_t len, bool write)
{
    struct range r;
    return whole_pages(at, len, &r) && populate(r, write);
}
