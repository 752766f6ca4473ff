/* When an RC requester must resend, and what that costs. rc.c feeds it facts and acts on its
 * verdict.
 *
 * Three clocks run, each a deadline:
 *
 * 1. The local ACK timeout (IBTA 9.7.6.1.3), 4.096 us x 2^timeout, 0 for never. It runs while a
 *    response is awaited, and begins anew with every acknowledged packet. When it strikes, a retry
 *    is charged and the oldest unacknowledged packet is resent, the rest as its answers tell
 *    (rc_doubt.c); with no retry left the request fails with RETRY_EXC_ERR. So a dead peer is
 *    noticed after timeout x (retry_cnt + 1). It alone charges retries, and acknowledgement alone
 *    gives them back.
 *
 *    Where answers are known to take longer than that, it waits for them, up to the four times that
 *    C9-141 allows; where even that is less, retries are charged in time but nothing is resent
 *    before an answer can be there.
 *
 * 2. The probe. Programs ask for timeouts of 67 ms and more, made for fabrics that lose nothing.
 *    The probe strikes after the measured round trip with its variance (RFC 6298's estimate; at
 *    least PROBE_MIN_NS, at most clock 1 or that estimate), resends the oldest packet with AckReq,
 *    and doubles. It charges nothing, so it cannot make a request fail that clock 1 would have let
 *    live.
 *
 * 3. The RNR wait (IBTA 9.7.5.2.8): after an RNR NAK nothing is sent until it is over, and clocks 1
 *    and 2 stand still. rnr_retry counts these; 7 is infinite.
 *
 * An answer to what was resent measures nothing, since it may be to the first sending or the last.
 * But where a second answer shows that the first sending had arrived, clocks 1 and 2 wait so long
 * from then on, until one can be measured (after Karn's rule, RFC 6298, 5.7): else a round trip
 * longer than the first guess would be overtaken by a resend every time.
 *
 * Clocks 1 and 2 run as well while the QP has no member to send on: nothing goes out then, but a
 * program still gets its error when it was promised one. */
#include "hca/rc_timer.h"

#define PROBE_MIN_NS (2 * MS_NS)
#define PROBE_START_NS (20 * MS_NS) /* before the first measurement */
#define PROBE_MAX_NS (1 * SEC_NS)   /* where clock 1 never strikes */
#define PATIENCE_MAX_NS (4 * SEC_NS)
#define ACK_STRETCH 4 /* IBTA C9-141: no later than so many timeouts */
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

/* By when an answer should be there; 0: nothing is known. */
static uint64_t expected_ns(const struct rc_timer *t)
{
    uint64_t ns = t->have_rtt ? t->srtt_ns + 4 * t->rttvar_ns : 0;
    return ns > t->patience_ns ? ns : t->patience_ns;
}

static uint64_t ack_ns(const struct rc_timer *t)
{
    uint64_t ns = expected_ns(t), most = ACK_STRETCH * t->timeout_ns;
    if (ns < t->timeout_ns) return t->timeout_ns;
    return ns < most ? ns : most;
}

static uint64_t probe_ns(const struct rc_timer *t)
{
    uint64_t expected = expected_ns(t), ns = expected ? expected : PROBE_START_NS;
    uint64_t most = t->timeout_ns ? ack_ns(t) : PROBE_MAX_NS;
    if (ns < PROBE_MIN_NS) ns = PROBE_MIN_NS;
    if (most < expected) most = expected;
    ns <<= t->backoff;
    return ns < most ? ns : most;
}

/* Can there be an answer by now? Taken for yes when half of all retries' time is over. */
static bool is_overdue(const struct rc_timer *t, when_t now)
{
    uint64_t expected = expected_ns(t), most = ack_ns(t) * (t->retry_cnt + 1u) / 2;
    return when_since(now, t->silent_since) >= (expected < most ? expected : most);
}

static void stop(struct rc_timer *t)
{
    t->ack = t->probe = NEVER;
    t->resent = false;
}

static void restart(struct rc_timer *t, when_t now)
{
    t->ack = t->timeout_ns ? when_add(now, ack_ns(t)) : NEVER;
    t->probe = when_add(now, probe_ns(t));
    t->silent_since = t->path_since = now;
    t->resent = false;
}

void rc_timer_start(struct rc_timer *t)
{
    *t = (struct rc_timer){.ack = NEVER, .probe = NEVER, .rnr = NEVER};
}

void rc_timer_conf(struct rc_timer *t, uint8_t timeout, uint8_t retry_cnt, uint8_t rnr_retry)
{
    timeout &= 31;
    t->timeout_ns = timeout ? 4096ull << timeout : 0;
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

void rc_timer_resent(struct rc_timer *t, psn_t psn, uint32_t n)
{
    int32_t at = psn_diff(t->timed_psn, psn);
    if (at >= 0 && at < (int32_t)n) t->timing = false;
}

/* The least is what the path takes without queues; it may grow, slowly. */
static void keep_least(struct rc_timer *t, uint64_t rtt_ns)
{
    if (t->least_rtt_ns == 0 || rtt_ns < t->least_rtt_ns)
        t->least_rtt_ns = rtt_ns;
    else
        t->least_rtt_ns += (rtt_ns - t->least_rtt_ns) / 64;
}

/* RFC 6298, 2. */
static void measure(struct rc_timer *t, uint64_t rtt_ns)
{
    keep_least(t, rtt_ns);
    t->patience_ns = t->took_ns = 0;
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
    if (t->resent) {
        t->took_ns = when_since(now, t->silent_since);
        t->timing = false;
    } else if (t->timing && psn_diff(una, t->timed_psn) > 0) {
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

void rc_timer_was_hasty(struct rc_timer *t)
{
    if (t->took_ns == 0) return;
    t->patience_ns = t->took_ns < PATIENCE_MAX_NS ? t->took_ns + t->took_ns / 4 : PATIENCE_MAX_NS;
    t->took_ns = 0;
    if (when_is_never(t->probe)) return;
    when_t later = when_add(t->silent_since, probe_ns(t));
    if (when_before(t->probe, later)) t->probe = later;
}

void rc_timer_moved(struct rc_timer *t, bool awaited, when_t now)
{
    t->timing = false;
    t->least_rtt_ns = t->took_ns = 0;
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

bool rc_timer_is_silent(const struct rc_timer *t, when_t now)
{
    unsigned charged = t->retry_cnt - t->retries;
    if (when_since(now, t->path_since) < expected_ns(t)) return false;
    return t->backoff >= SILENT_PROBES || charged >= SILENT_RETRIES ||
           (charged && t->retry_cnt <= SILENT_RETRIES);
}

void rc_timer_detoured(struct rc_timer *t, when_t now)
{
    t->path_since = now;
    t->least_rtt_ns = 0;
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
        t->ack = when_add(now, ack_ns(t));
        if (is_overdue(t, now)) {
            t->probe = when_add(now, probe_ns(t));
            t->resent = true;
            return RC_TIMER_RETRY;
        }
    }
    if (when_due(t->probe, now)) {
        if (t->backoff < 16) t->backoff++;
        t->probe = when_add(now, probe_ns(t));
        t->resent = true;
        return RC_TIMER_PROBE;
    }
    return RC_TIMER_IDLE;
}
