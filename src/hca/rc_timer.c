/* When an RC requester must resend, and what that costs. rc.c feeds it facts and acts on its
 * verdict.
 *
 * Three clocks run, each a deadline:
 *
 * 1. The local ACK timeout (IBTA 9.7.6.1.3), 4.096 us x 2^timeout, 0 for never. It runs while a
 *    response is awaited, and begins anew with every acknowledged packet. When it strikes, a retry
 * is charged and all is resent from the oldest unacknowledged PSN; with no retry left the request
 *    fails with RETRY_EXC_ERR. So a dead peer is noticed after timeout x (retry_cnt + 1). It alone
 *    charges retries, and acknowledgement alone gives them back.
 *
 * 2. The probe. Programs ask for timeouts of 67 ms and more, made for fabrics that lose nothing.
 * The probe strikes after the measured round trip with its variance (RFC 6298's estimate; at least
 *    PROBE_MIN_NS, at most clock 1), resends the oldest packet with AckReq, and doubles. It charges
 *    nothing, so it cannot make a request fail that clock 1 would have let live.
 *
 * 3. The RNR wait (IBTA 9.7.5.2.8): after an RNR NAK nothing is sent until it is over, and clocks 1
 *    and 2 stand still. rnr_retry counts these; 7 is infinite.
 *
 * Clocks 1 and 2 run as well while the QP has no member to send on: nothing goes out then, but a
 * program still gets its error when it was promised one. */
#include "hca/rc_timer.h"

#define PROBE_MIN_NS (2 * MS_NS)
#define PROBE_START_NS (20 * MS_NS) /* before the first measurement */
#define PROBE_MAX_NS (1 * SEC_NS)   /* where clock 1 never strikes */
#define RNR_RETRY_INFINITE 7
/* Silence: a peer on a busy machine may well be off its CPU for tens of milliseconds. 6 probes that
 * double from 2 ms take 126 ms; two ACK timeouts, as most programs set them, 134 ms. */
#define SILENT_PROBES 6
#define SILENT_RETRIES 2

uint64_t rc_rnr_ns(uint8_t code)
{
    /* Table 45 in steps of 10 us: 65536 for code 0, then 1, 2, 3, 4, 6, 8, 12, 16 and so on: powers
     * of two at even codes, half again as much at the odd ones behind them. */
    uint64_t steps;
    code &= 31;
    if (code == 0)
        steps = 65536;
    else if (code == 1)
        steps = 1;
    else
        steps = code & 1 ? 3ull << (code - 3) / 2 : 1ull << code / 2;
    return steps * 10 * US_NS;
}

static uint64_t probe_ns(const struct rc_timer *t)
{
    uint64_t ns = PROBE_START_NS;
    if (t->have_rtt) {
        ns = t->srtt_ns + 4 * t->rttvar_ns;
        if (ns < PROBE_MIN_NS) ns = PROBE_MIN_NS;
    }
    ns <<= t->backoff;
    uint64_t most = t->ack_ns ? t->ack_ns : PROBE_MAX_NS;
    return ns < most ? ns : most;
}

static void stop(struct rc_timer *t) { t->ack = t->probe = NEVER; }

static void restart(struct rc_timer *t, when_t now)
{
    t->ack = t->ack_ns ? when_add(now, t->ack_ns) : NEVER;
    t->probe = when_add(now, probe_ns(t));
}

void rc_timer_start(struct rc_timer *t)
{
    *t = (struct rc_timer){.ack = NEVER, .probe = NEVER, .rnr = NEVER};
}

void rc_timer_conf(struct rc_timer *t, uint8_t timeout, uint8_t retry_cnt, uint8_t rnr_retry)
{
    timeout &= 31;
    t->ack_ns = timeout ? 4096ull << timeout : 0;
    t->retries = t->retry_cnt = retry_cnt;
    t->rnrs = t->rnr_retry = rnr_retry;
}

void rc_timer_await(struct rc_timer *t, bool awaited, when_t now)
{
    if (!awaited)
        stop(t);
    else if (when_is_never(t->probe) && !rc_timer_in_rnr(t))
        restart(t, now);
}

void rc_timer_sent(struct rc_timer *t, psn_t psn, when_t now)
{
    if (t->timing) return;
    t->timing = true;
    t->timed_psn = psn;
    t->timed_at = now;
}

/* RFC 6298, 2. */
static void measure(struct rc_timer *t, uint64_t rtt_ns)
{
    if (!t->have_rtt) {
        t->have_rtt = true;
        t->srtt_ns = rtt_ns;
        t->rttvar_ns = rtt_ns / 2;
        return;
    }
    uint64_t off = rtt_ns > t->srtt_ns ? rtt_ns - t->srtt_ns : t->srtt_ns - rtt_ns;
    t->rttvar_ns = t->rttvar_ns - t->rttvar_ns / 4 + off / 4;
    t->srtt_ns = t->srtt_ns - t->srtt_ns / 8 + rtt_ns / 8;
}

void rc_timer_ack_seen(struct rc_timer *t, psn_t una, bool awaited, when_t now)
{
    if (t->timing && psn_diff(una, t->timed_psn) > 0) {
        t->timing = false;
        measure(t, when_since(now, t->timed_at));
    }
    t->retries = t->retry_cnt;
    t->rnrs = t->rnr_retry;
    t->backoff = 0;
    t->rnr = NEVER;
    if (awaited)
        restart(t, now);
    else
        stop(t);
}

void rc_timer_rewound(struct rc_timer *t) { t->timing = false; }

void rc_timer_moved(struct rc_timer *t, bool awaited, when_t now)
{
    t->timing = false;
    t->backoff = 0;
    if (rc_timer_in_rnr(t)) return;
    if (awaited)
        restart(t, now);
    else
        stop(t);
}

bool rc_timer_rnr_seen(struct rc_timer *t, uint8_t code, when_t now)
{
    if (t->rnr_retry != RNR_RETRY_INFINITE && t->rnrs-- == 0) return false;
    stop(t);
    t->timing = false;
    t->retries = t->retry_cnt;
    t->backoff = 0;
    t->rnr = when_add(now, rc_rnr_ns(code));
    return true;
}

when_t rc_timer_deadline(const struct rc_timer *t)
{
    return when_min(t->rnr, when_min(t->ack, t->probe));
}

bool rc_timer_is_silent(const struct rc_timer *t)
{
    unsigned charged = t->retry_cnt - t->retries;
    return t->backoff >= SILENT_PROBES || charged >= SILENT_RETRIES ||
           (charged && t->retry_cnt <= SILENT_RETRIES);
}

enum rc_timer_verdict rc_timer_expire(struct rc_timer *t, when_t now)
{
    if (when_due(t->rnr, now)) {
        t->rnr = NEVER;
        return RC_TIMER_RNR_OVER;
    }
    if (when_due(t->ack, now)) {
        if (t->retries == 0) {
            stop(t);
            return RC_TIMER_EXHAUSTED;
        }
        t->retries--;
        restart(t, now);
        return RC_TIMER_RETRY;
    }
    if (when_due(t->probe, now)) {
        if (t->backoff < 16) t->backoff++;
        t->probe = when_add(now, probe_ns(t));
        return RC_TIMER_PROBE;
    }
    return RC_TIMER_IDLE;
}
