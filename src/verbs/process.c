/* What befalls the process that has functions open: it forks, or it ends.
 *
 * A child has the whole adapter by copy, but a QP can live in one process only: the parent goes on,
 * and in the child every call fails with EIO. When the parent has ended, as that of a daemon does
 * right after the fork, the child inherits: its first call takes the adapter over, with its QPs and
 * connections as they were. It cannot where the parent has changed anything after the fork, since
 * the child's copy has not seen it; the function's page, which all of them share, says so by its
 * epoch. One child inherits: the epoch moves on. */
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

static struct list functions;
static pthread_mutex_t functions_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* ---- fork -------------------------------------------------------------------------------- */

static bool make_quiet(struct function *f)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + QUIET_NS;
    until.tv_sec += (time_t)(ns / SEC_NS);
    until.tv_nsec = (long)(ns % SEC_NS);
    return pthread_mutex_timedlock(&f->lock, &until) == 0;
}

static void before_fork(void)
{
    pthread_mutex_lock(&functions_lock);
    list_for_each (node, &functions) {
        struct function *f = container_of(node, struct function, link);
        f->quiet = make_quiet(f);
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
        f->forked = true;
        if (!f->dead && f->owner >= 0) {
            close(f->owner);
            f->owner = -1;
        }
        if (f->quiet) pthread_mutex_unlock(&f->lock);
    }
    pthread_mutex_unlock(&functions_lock);
}

static void in_child(void)
{
    pthread_mutex_init(&functions_lock, NULL);
    list_for_each (node, &functions) {
        struct function *f = container_of(node, struct function, link);
        pthread_mutex_init(&f->lock, NULL);
        f->has_worker = false;
        f->waiters = 0;
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
    f->forked = true; /* sisters must see that we have moved on */
    return worker_start(f) == 0;
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

static void begin(void)
{
    list_init(&functions);
    pthread_atfork(before_fork, in_parent, in_child);
}

void process_add(struct function *f)
{
    pthread_once(&once, begin);
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
    if (!functions.next || pthread_mutex_trylock(&functions_lock) != 0) return;
    list_for_each (node, &functions) {
        struct function *f = container_of(node, struct function, link);
        if (f->dead || pthread_mutex_trylock(&f->lock) != 0) continue;
        function_flush(f, function_now());
        pthread_mutex_unlock(&f->lock);
    }
    pthread_mutex_unlock(&functions_lock);
}
