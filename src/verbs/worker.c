/* The worker thread of a function: drives the adapter while the program does not, and listens to
 * rbondd. It sleeps in one of two ways:
 *
 *   on watch   the program does not spin, or has just armed a CQ: woken by packets, the adapter's
 *              next deadline, the doorbell and rbondd
 *   away       the program spins in ibv_poll_cq and drives by itself: woken by the doorbell and
 *              rbondd only, and now and then to see whether it still spins
 *
 * spin.h is how it judges. */
#include "base/must.h"
#include "verbs/function.h"
#include "verbs/kin.h"
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* How often to look whether rbondd is back. */
#define REJOIN_NS (200 * MS_NS)

/* ---- rbondd ------------------------------------------------------------------------------ */

static void device_gone(struct function *f, when_t now)
{
    const struct hca_qp_attr to_error = {.state = HCA_QPS_ERR};

    if (f->fatal) return;
    f->fatal = true;
    events_port(f, IBV_EVENT_DEVICE_FATAL);
    list_for_each (node, &f->qps) {
        struct rb_qp *qp = container_of(node, struct rb_qp, link);
        int rc = hca_qp_modify(f->hca, qp->hca, &to_error, HCA_QP_STATE, now);
        must(rc == 0); /* any state goes to ERR */
    }
}

static void take_event(struct function *f, const struct ctl_event *event, when_t now)
{
    if (strncmp(event->device, f->opened.dev.name, sizeof event->device) != 0) return;
    switch (event->type) {
    case CTL_EV_PORT_ACTIVE: events_port(f, IBV_EVENT_PORT_ACTIVE); break;
    case CTL_EV_PORT_ERR: events_port(f, IBV_EVENT_PORT_ERR); break;
    case CTL_EV_GID_CHANGE: events_port(f, IBV_EVENT_GID_CHANGE); break;
    case CTL_EV_DEVICE_DEL: device_gone(f, now); break;
    default: break; /* the table: its generation is looked at in every round */
    }
}

/* True: rbondd had news. Without rbondd the data path goes on with the last table. */
static bool listen_to_rbondd(struct function *f, when_t now)
{
    struct ctl_event event;
    bool news = false;
    int rc = 0;

    for (; f->ctl && (rc = ctl_next_event(f->ctl, &event, false)) == 1; news = true)
        take_event(f, &event, now);
    if (rc < 0) {
        ctl_close(f->ctl);
        f->ctl = NULL;
    }
    return news;
}

/* Programs outlive rbondd, and hand their function back to the next one. */
static bool looks_for_rbondd(const struct function *f) { return !f->ctl && !f->fatal; }

/* ---- scheduling -------------------------------------------------------------------------- */

/* As <linux/sched/types.h> has it; libc's header knows neither struct nor call before glibc 2.41.
 */
struct slice_attr {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

/* Asks for a short slice (Linux 6.12 and later; elsewhere it changes nothing). The worker computes
 * little and is waited for: with a short slice it preempts at once a program that spins on its own
 * memory for an RDMA WRITE to arrive, instead of after the millisecond or more of that one's slice.
 */
static void want_short_slice(void)
{
    struct slice_attr attr = {.size = sizeof attr};

    if (syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0) != 0) return;
    if (attr.policy != SCHED_OTHER) return; /* the administrator has chosen */
    attr.runtime = 100 * US_NS;
    syscall(SYS_sched_setattr, 0, &attr, 0);
}

/* Sleeps of some 20 us are meant (hold.c); the default slack is 50. */
static void want_exact_timers(void) { prctl(PR_SET_TIMERSLACK, 1000ul); }

/* ---- sleeping ---------------------------------------------------------------------------- */

static when_t wake_at(struct function *f, when_t now)
{
    when_t at =
        f->port ? when_min(hca_deadline(f->hca), hold_deadline(f)) : hca_cq_deadline(f->hca);
    if (looks_for_rbondd(f)) at = when_min(at, f->rejoin_at);
    at = when_min(at, kin_renew_at(f));
    if (f->unsent || f->dirty) at = when_min(at, when_add(now, SOON_NS));
    return at;
}

/* True: rbondd has something to say. */
static bool sleep_until(struct function *f, when_t at, bool away)
{
    struct pollfd fds[4] = {{.fd = f->doorbell, .events = POLLIN},
                            {.fd = f->ctl ? ctl_fd(f->ctl) : -1, .events = POLLIN},
                            {.fd = away || !f->port ? -1 : f->port->rx_fd, .events = POLLIN},
                            {.fd = away || !f->port ? -1 : kin_fd(f), .events = POLLIN}};
    uint64_t left = when_is_never(at) ? 0 : when_since(at, function_now());
    struct timespec ts = {(time_t)(left / SEC_NS), (long)(left % SEC_NS)};

    ppoll(fds, 4, when_is_never(at) ? NULL : &ts, NULL);
    if (fds[0].revents) {
        uint64_t rings;
        ssize_t rc = read(f->doorbell, &rings, sizeof rings);
        (void)rc;
    }
    return fds[1].revents != 0;
}

/* Whoever holds the lock drives. It is not waited for: they would have to let us through. */
static bool program_drives(struct function *f)
{
    if (pthread_mutex_trylock(&f->lock) != 0) return true;
    pthread_mutex_unlock(&f->lock);
    return false;
}

static void stay_away(struct function *f)
{
    do {
        when_t look_at = when_add(function_now(), spin_look_after(&f->spin));
        if (sleep_until(f, look_at, true)) return;
        if (looks_for_rbondd(f) && when_due(f->rejoin_at, function_now())) return;
        if (when_due(kin_renew_at(f), function_now())) return;
    } while (!atomic_load(&f->stop) && spin_goes_on(&f->spin, program_drives(f), function_now()));
}

/* A mutex is not fair: lets those through who wait for it. Asleep, since to yield beside a program
 * that spins on its memory is to give it a whole slice, some milliseconds. */
static void step_aside(struct function *f)
{
    const struct timespec nap = {.tv_nsec = 10 * US_NS};

    for (int i = 0; i < 10 && atomic_load(&f->waiters); i++) nanosleep(&nap, NULL);
}

static void look_for_rbondd(struct function *f)
{
    when_t now = function_now();

    if (!looks_for_rbondd(f) || !when_due(f->rejoin_at, now)) return;
    f->rejoin_at = when_add(now, REJOIN_NS);
    if (function_rejoin(f)) return;
    pthread_mutex_lock(&f->lock);
    device_gone(f, now);
    pthread_mutex_unlock(&f->lock);
}

static void *work(void *arg)
{
    struct function *f = arg;

    want_short_slice();
    want_exact_timers();
    while (!atomic_load(&f->stop)) {
        look_for_rbondd(f);
        if (when_due(kin_renew_at(f), function_now())) kin_renew(f, function_now());
        pthread_mutex_lock(&f->lock);
        when_t now = function_now();
        bool news = listen_to_rbondd(f, now);
        if (news) function_touch(f);
        bool away = spin_leave(&f->spin, now);
        bool busy = (!away || news) && function_drive(f, true, now);
        if (!busy) publish_if_due(f, now);
        atomic_store(&f->away, away); /* after the judgement: pairs with function_armed */
        when_t at = f->wake_at = wake_at(f, now);
        pthread_mutex_unlock(&f->lock);
        if (away)
            stay_away(f);
        else if (busy)
            step_aside(f);
        else
            sleep_until(f, at, false);
    }
    return NULL;
}

int worker_start(struct function *f)
{
    sigset_t all, before;
    char name[16];

    sigfillset(&all); /* signals are the program's business */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&f->worker, NULL, work, f);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) return -rc;
    f->has_worker = true;
    snprintf(name, sizeof name, "rbond-f%u", f->opened.function);
    pthread_setname_np(f->worker, name);
    return 0;
}

void worker_stop(struct function *f)
{
    atomic_store(&f->stop, true);
    function_ring(f);
    pthread_join(f->worker, NULL);
    f->has_worker = false;
}
