#include "daemon/urgency.h"
#include "daemon/log.h"
#include <sched.h>
#include <sys/resource.h>
#include <time.h>

#define WINDOW_NS (100 * MS_NS)
#define SHARE_NS (25 * MS_NS) /* of a window at realtime priority */
#define DEMOTED_MS 500
#define NICE -10

static uint64_t clock_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * SEC_NS + (uint64_t)ts.tv_nsec;
}

static bool raise_priority(void)
{
    struct sched_param param = {.sched_priority = 1};

    return sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &param) == 0;
}

static void new_window(struct urgency *u, uint64_t now, uint64_t cpu)
{
    u->window_start_ns = now;
    u->window_cpu_ns = cpu;
}

static void on_timer(uv_timer_t *timer)
{
    struct urgency *u = timer->data;

    new_window(u, clock_ns(CLOCK_MONOTONIC), clock_ns(CLOCK_THREAD_CPUTIME_ID));
    u->raised = raise_priority();
}

static void demote(struct urgency *u)
{
    struct sched_param param = {0};

    u->raised = false;
    sched_setscheduler(0, SCHED_OTHER, &param);
    uv_timer_start(&u->timer, on_timer, DEMOTED_MS, 0);
    log_debug("busy: ordinary scheduling for %d ms", DEMOTED_MS);
}

static void on_check(uv_check_t *check)
{
    struct urgency *u = check->data;

    if (!u->raised) return;
    uint64_t now = clock_ns(CLOCK_MONOTONIC), cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    if (cpu - u->window_cpu_ns > SHARE_NS)
        demote(u);
    else if (now - u->window_start_ns > WINDOW_NS)
        new_window(u, now, cpu);
}

void urgency_start(struct urgency *u, uv_loop_t *loop)
{
    setpriority(PRIO_PROCESS, 0, NICE); /* counts whenever the scheduling is ordinary */
    u->permitted = u->raised = raise_priority();
    log_debug("realtime priority: %s", u->permitted ? "yes" : "no right to it");
    uv_check_init(loop, &u->check);
    uv_timer_init(loop, &u->timer);
    u->check.data = u->timer.data = u;
    if (!u->permitted) return;
    new_window(u, clock_ns(CLOCK_MONOTONIC), clock_ns(CLOCK_THREAD_CPUTIME_ID));
    uv_check_start(&u->check, on_check);
}
