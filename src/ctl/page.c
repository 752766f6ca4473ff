/* The device page's seqlock. One writer (rbondd); readers in any process, through a read-only
 * mapping, so they cannot leave a mark: the writer never waits for them. */
#include "ctl/page.h"
#include <sched.h>
#include <string.h>
#include <time.h>

/* While seq stands still at an odd value a reader yields this often, then naps; after READ_NAPS
 * naps (one second) the writer has died in the midst of a write: what stands there is all there
 * will be. */
#define READ_YIELDS 1000
#define READ_NAPS 1000

void page_write(struct device_page *page, const struct device_state *state)
{
    uint32_t seq = atomic_load_explicit(&page->seq, memory_order_relaxed);

    /* An odd seq is visible before any byte of the new state: pairs with the fence in page_read. */
    atomic_store_explicit(&page->seq, seq + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    memcpy(&page->state, state, sizeof page->state);
    atomic_store_explicit(&page->seq, seq + 2, memory_order_release);
    /* Last, so that whoever sees the new generation finds the page whole. */
    atomic_store_explicit(&page->generation, state->steering.generation, memory_order_release);
}

static void backoff(unsigned round)
{
    if (round < READ_YIELDS) {
        sched_yield();
    } else {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

void page_read(const struct device_page *page, struct device_state *out)
{
    uint32_t last = 0;
    unsigned stuck = 0;

    for (;;) {
        uint32_t before = atomic_load_explicit(&page->seq, memory_order_acquire);
        memcpy(out, &page->state, sizeof *out);
        atomic_thread_fence(memory_order_acquire);
        uint32_t after = atomic_load_explicit(&page->seq, memory_order_relaxed);
        if ((before & 1) == 0 && before == after) return;
        stuck = before == last ? stuck + 1 : 0;
        last = before;
        if (stuck >= READ_YIELDS + READ_NAPS) return;
        backoff(stuck);
    }
}
