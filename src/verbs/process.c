/* What befalls the process that has functions open: it forks, or it ends.
 *
 * A child has the whole adapter by copy, but a QP can live in one process only: the parent goes on,
 * and in the child every call fails with EIO. When the parent has ended, as that of a daemon does
 * right after the fork, the child inherits: its first call takes the adapter over, with its QPs and
 * connections as they were. It cannot where the parent has changed anything after the fork, since
 * the child's copy has not seen it; the function's page, which all of them share, says so by its
 * epoch. One child inherits: the epoch moves on. */
#include "verbs/process.h"
#include "base/must.h"
#include "verbs/function.h"
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Whoever holds a function's lock lets it go within a round of driving. A thread that forks while
 * it holds it itself (from a signal handler) must not wait for ever. */
#define QUIET_NS (200 * MS_NS)

static struct list functions = {&functions, &functions};
static pthread_mutex_t functions_lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- the library's other locks ------------------------------------------------------------- */

/* One for each file that has a list of its own. */
#define GUARDS 8

static struct guard {
    pthread_mutex_t *lock;
    void (*in_child)(void);
    bool held;
} guards[GUARDS];
static size_t nguards;

void process_guard(pthread_mutex_t *lock, void (*in_child)(void))
{
    must(nguards < GUARDS);
    guards[nguards++] = (struct guard){.lock = lock, .in_child = in_child};
}

static bool take_soon(pthread_mutex_t *lock)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + QUIET_NS;
    until.tv_sec += (time_t)(ns / SEC_NS);
    until.tv_nsec = (long)(ns % SEC_NS);
    return pthread_mutex_timedlock(lock, &until) == 0;
}

/* ---- fork -------------------------------------------------------------------------------- */

static void before_fork(void)
{
    for (size_t i = 0; i < nguards; i++) guards[i].held = take_soon(guards[i].lock);
    pthread_mutex_lock(&functions_lock);
    list_for_each (node, &functions) {
        struct function *f = container_of(node, struct function, link);
        f->quiet = take_soon(&f->lock);
        /* Before there is a child: a thread that takes a completion must not miss it. */
        f->forked = true;
        if (f->dead) continue;
        /* Not in the child, which may come to run when the parent is far ahead. */
        f->epoch = atomic_load(&f->out->epoch);
        f->owner = f->quiet ? (int)syscall(SYS_pidfd_open, getpid(), 0) : -1;
    }
}

static void in_parent(void)
{
    list_for_each (node, &functions) {
        struct function *f = container_of(node, struct function, link);
        if (!f->dead && f->owner >= 0) {
            close(f->owner);
            f->owner = -1;
        }
        if (f->quiet) pthread_mutex_unlock(&f->lock);
    }
    pthread_mutex_unlock(&functions_lock);
    for (size_t i = nguards; i-- > 0;)
        if (guards[i].held) pthread_mutex_unlock(guards[i].lock);
}

/* What other threads of the parent held: there is only the one that forked. What that one holds it
 * lets go itself. The lists are whole only where the function was quiet. */
static void forget_threads(struct function *f)
{
    const uintptr_t self = thread_self();

    list_for_each (node, &f->cqs) {
        struct rb_cq *cq = container_of(node, struct rb_cq, link);
        pthread_mutex_init(&cq->ex.mutex, NULL);
        if (atomic_load(&cq->consumer) == self) continue;
        cq->consumer_depth = 0;
        atomic_store(&cq->consumer, 0);
    }
    list_for_each (node, &f->qps) {
        struct rb_qp *qp = container_of(node, struct rb_qp, link);
        pthread_mutex_init(&qp->ex.qp_base.mutex, NULL);
        if (qp->stager == self) continue;
        qp->stager = 0;
        pthread_mutex_init(&qp->staging, NULL);
    }
    pthread_mutex_init(&f->ctx->v.context.mutex, NULL);
    list_for_each (node, &f->imports)
        pthread_mutex_init(&container_of(node, struct rb_context, link)->v.context.mutex, NULL);
}

static void in_child(void)
{
    for (size_t i = 0; i < nguards; i++) {
        pthread_mutex_init(guards[i].lock, NULL);
        if (guards[i].in_child) guards[i].in_child();
    }
    pthread_mutex_init(&functions_lock, NULL);
    list_for_each (node, &functions) {
        struct function *f = container_of(node, struct function, link);
        function_lock_init(f);
        f->has_worker = false;
        f->waiters = 0;
        if (f->quiet) forget_threads(f);
        if (f->dead) continue; /* not the parent's either */
        atomic_store(&f->dead, true);
    }
}

/* ---- inheriting -------------------------------------------------------------------------- */

static bool owner_lives(const struct function *f)
{
    struct pollfd pfd = {.fd = f->owner, .events = POLLIN};

    return poll(&pfd, 1, 0) != 1 || !(pfd.revents & POLLIN);
}

/* The doorbell was shared with the parent. */
static bool take_over(struct function *f)
{
    if (f->owner < 0 || owner_lives(f)) return false;
    int doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (doorbell < 0) return false;
    if (!atomic_compare_exchange_strong(&f->out->epoch, &f->epoch, f->epoch + 1)) {
        close(doorbell);
        close(f->owner);
        f->owner = -1;
        return false;
    }
    close(f->doorbell);
    f->doorbell = doorbell;
    f->away = false;
    return worker_start(f) == 0;
}

void function_consumed_after_fork(struct function *f)
{
    if (function_is_dead(f)) return;
    pthread_mutex_lock(&f->lock); /* the page goes when there is a new rbondd */
    function_touch(f);
    pthread_mutex_unlock(&f->lock);
}

static bool inherit(struct function *f)
{
    pthread_mutex_lock(&f->lock);
    if (f->dead && take_over(f)) {
        close(f->owner);
        f->owner = -1;
        atomic_store(&f->dead, false);
    }
    bool ours = !f->dead;
    pthread_mutex_unlock(&f->lock);
    return ours;
}

/* With it the process's others, for which no call may come: they may be waiting for their peers. */
bool function_inherit(struct function *f)
{
    int saved = errno;
    bool ours = inherit(f);

    if (ours) {
        pthread_mutex_lock(&functions_lock);
        list_for_each (node, &functions) inherit(container_of(node, struct function, link));
        pthread_mutex_unlock(&functions_lock);
    }
    errno = saved;
    return ours;
}

/* ---- which there are --------------------------------------------------------------------- */

__attribute__((constructor)) static void begin(void)
{
    pthread_atfork(before_fork, in_parent, in_child);
}

void process_add(struct function *f)
{
    pthread_mutex_lock(&functions_lock);
    list_add_tail(&functions, &f->link);
    pthread_mutex_unlock(&functions_lock);
}

void process_remove(struct function *f)
{
    pthread_mutex_lock(&functions_lock);
    list_del(&f->link);
    pthread_mutex_unlock(&functions_lock);
}

/* ---- exit -------------------------------------------------------------------------------- */

/* A program may end right after its last completion, whose ACK waits for a post that will not come.
 * A lock that is taken belongs to a thread that drives. */
__attribute__((destructor)) static void send_what_is_held(void)
{
    if (pthread_mutex_trylock(&functions_lock) != 0) return;
    list_for_each (node, &functions) {
        struct function *f = container_of(node, struct function, link);
        if (f->dead || pthread_mutex_trylock(&f->lock) != 0) continue;
        function_flush(f, function_now());
        pthread_mutex_unlock(&f->lock);
    }
    pthread_mutex_unlock(&functions_lock);
}
