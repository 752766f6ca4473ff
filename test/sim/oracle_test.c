/* The oracle itself: a correct course of events contents it, and each broken promise is caught.
 * There is no adapter here: completions and memory are made by hand. */
#include "oracle_bed.h"
#include <stdlib.h>
#include <string.h>

static void all_well(void **state)
{
    run_well(LAST + 1);
    oracle_state(&oracle, &qps[0], HCA_QPS_RTS);
    oracle_finish(&oracle);
    content();
}

static void completes_twice(void **state)
{
    run_well(2);
    completes(WRITE, HCA_WC_SUCCESS);
    caught("complete already");
}

static void never_completes(void **state)
{
    run_well(3);
    oracle_finish(&oracle);
    caught("never completed");
}

static void out_of_order(void **state)
{
    execute(SEND, 0);
    receives(0, SEND);
    execute(WRITE, 0);
    completes(WRITE, HCA_WC_SUCCESS);
    caught("was signalled, yet request 1 completed before it");
}

static void before_its_bytes(void **state)
{
    completes(SEND, HCA_WC_SUCCESS);
    caught("before its bytes");
}

static void write_before_its_bytes(void **state)
{
    run_well(1);
    execute(WRITE, 0);
    request(WRITE)->remote->bytes[4999] ^= 1;
    completes(WRITE, HCA_WC_SUCCESS);
    caught("first wrong at 4999");
}

static void read_of_wrong_bytes(void **state)
{
    run_well(2);
    execute(READ, 0);
    request(READ)->local.plot[0]->bytes[0] ^= 0x80;
    completes(READ, HCA_WC_SUCCESS);
    caught("does not hold the bytes read");
}

static void unsignalled_completes(void **state)
{
    run_well(SILENT_WRITE);
    execute(SILENT_WRITE, 0);
    completes(SILENT_WRITE, HCA_WC_SUCCESS);
    caught("unsignalled, has a completion");
}

/* A FLUSH stands for what was written before it. */
static void unsignalled_without_effect(void **state)
{
    run_well(SILENT_WRITE);
    completes(FLUSH, HCA_WC_SUCCESS);
    caught("request 6 (WRITE, 700 bytes): succeeded, but");
}

static void flush_writes(void **state)
{
    run_well(FLUSH + 1);
    content();
    request(FLUSH)->remote->bytes[3] ^= 1;
    run_rest(ATOMIC_WRITE);
    caught("buffer was written to when nobody should");
}

static void atomic_write_in_part(void **state)
{
    run_well(ATOMIC_WRITE);
    pattern_fill(request(ATOMIC_WRITE)->remote->bytes, request(ATOMIC_WRITE)->key, 0, 4);
    completes(ATOMIC_WRITE, HCA_WC_SUCCESS);
    caught("first wrong at 4");
}

static void atomic_write_twice(void **state)
{
    run_well(ATOMIC_WRITE + 1);
    execute(ATOMIC_WRITE, 0);
    run_rest(LAST);
    caught("buffer was written to when nobody should");
}

static void wrong_opcode_and_length(void **state)
{
    run_well(2);
    execute(READ, 0);
    struct hca_wc wc = {.wr_id = oracle_send_id(&qps[0], READ),
                        .opcode = HCA_WC_RDMA_READ,
                        .qpn = 100,
                        .byte_len = 2999};
    oracle_completion(&oracle, 0, &wc, now);
    caught("byte_len 2999");
    oracle.violation[0] = 0;
    qps[0].head = READ;
    wc.opcode = HCA_WC_SEND;
    oracle_completion(&oracle, 0, &wc, now);
    caught("opcode 0");
}

static void wrong_immediate(void **state)
{
    run_well(WRITE_IMM);
    execute(WRITE_IMM, 1);
    struct hca_wc wc = receive_wc(1, WRITE_IMM);
    wc.imm_be ^= 1;
    oracle_completion(&oracle, 1, &wc, now);
    caught("does not hold request 4");
}

static void in_another_receive(void **state)
{
    execute(SEND, 1);
    receives(1, SEND);
    caught("receive 1 completes, 0 was next");
}

static void beyond_the_message(void **state)
{
    run_well(SEND_IMM);
    struct buf *room = &queues[1]->receive[2].room;
    execute(SEND_IMM, 2);
    if (room->len == request(SEND_IMM)->len) {
        /* no room behind it: the guard zone is hit instead */
        room->plot[room->n - 1]->bytes[room->plot[room->n - 1]->len] ^= 1;
        receives(2, SEND_IMM);
        oracle_finish(&oracle);
        caught("between buffers");
        return;
    }
    room->plot[room->n - 1]->bytes[room->plot[room->n - 1]->len - 1] ^= 1;
    receives(2, SEND_IMM);
    caught("bytes behind the message");
}

static void guard_zone(void **state)
{
    run_well(LAST + 1);
    request(WRITE)->remote->bytes[5000] ^= 1;
    oracle_finish(&oracle);
    caught("between buffers");
}

/* A WRITE that is executed again after its completion: its plot is repainted, so that shows. */
static void executed_again(void **state)
{
    run_well(LAST + 1);
    execute(WRITE, 0);
    oracle_finish(&oracle);
    caught("written to when nobody should");
}

static void receive_written_again(void **state)
{
    run_well(LAST + 1);
    execute(SEND, 0);
    oracle_finish(&oracle);
    caught("written to when nobody should");
}

static void atomic_twice(void **state)
{
    run_well(LAST + 1);
    struct request *r = request(ADD);
    uint64_t value;
    memcpy(&value, r->word->plot->bytes, 8);
    value += r->compare_add;
    memcpy(r->word->plot->bytes, &value, 8);
    oracle_finish(&oracle);
    caught("no sequence of single executions");
}

static void atomic_fetches_nonsense(void **state)
{
    run_well(ADD);
    execute(ADD, 0);
    request(ADD)->local.plot[0]->bytes[3] ^= 1;
    completes(ADD, HCA_WC_SUCCESS);
    execute(WRITE_IMM, 1);
    receives(1, WRITE_IMM);
    completes(WRITE_IMM, HCA_WC_SUCCESS);
    oracle_killed(&oracle, &qps[0]);
    for (uint32_t i = SEND_IMM; i <= LAST; i++) completes(i, HCA_WC_WR_FLUSH_ERR);
    oracle_finish(&oracle);
    caught("no sequence of single executions");
}

/* Executed or not, nobody knows: both are fine for an atomic whose completion was a flush. */
static void atomic_in_doubt(void **state)
{
    for (int executed = 0; executed < 2; executed++) {
        run_well(ADD);
        if (executed) execute(ADD, 0);
        oracle_killed(&oracle, &qps[0]);
        for (uint32_t i = ADD; i <= LAST; i++) completes(i, HCA_WC_WR_FLUSH_ERR);
        oracle_finish(&oracle);
        content();
        end(state);
        begin_rc(state);
    }
}

static void flush_without_cause(void **state)
{
    run_well(3);
    for (uint32_t i = ADD; i <= LAST; i++) completes(i, HCA_WC_WR_FLUSH_ERR);
    oracle_finish(&oracle);
    caught("flushed without a cause");
}

static void flush_passes_one_over(void **state)
{
    run_well(ADD);
    oracle_killed(&oracle, &qps[0]);
    completes(ADD, HCA_WC_WR_FLUSH_ERR);
    completes(WRITE_IMM, HCA_WC_WR_FLUSH_ERR);
    completes(SEND_IMM, HCA_WC_WR_FLUSH_ERR);
    completes(LAST, HCA_WC_WR_FLUSH_ERR); /* the unsignalled one too must be flushed aloud */
    caught("passed over by a flush in silence");
}

static void success_after_flush(void **state)
{
    run_well(ADD);
    oracle_killed(&oracle, &qps[0]);
    completes(ADD, HCA_WC_WR_FLUSH_ERR);
    execute(WRITE_IMM, 1);
    completes(WRITE_IMM, HCA_WC_SUCCESS);
    caught("succeeded after an earlier one was flushed");
}

static void error_without_cause(void **state)
{
    run_well(1);
    completes(WRITE, HCA_WC_REM_ACCESS_ERR);
    caught("failed with REM_ACCESS_ERR");
}

static void fault_not_reported(void **state)
{
    request(WRITE)->must_fail = 1u << HCA_WC_REM_ACCESS_ERR;
    run_well(1);
    execute(WRITE, 0);
    completes(WRITE, HCA_WC_SUCCESS);
    caught("should have failed");
}

static void retry_exc_on_good_links(void **state)
{
    run_well(1);
    now = when_add(now, SEC_NS);
    completes(WRITE, HCA_WC_RETRY_EXC_ERR);
    for (uint32_t i = READ; i <= LAST; i++) completes(i, HCA_WC_WR_FLUSH_ERR);
    oracle_finish(&oracle);
    caught("although the links had been good");
}

static void retry_exc(uint64_t after_ns)
{
    run_well(1);
    oracle_path(&oracle, &qps[0], false, now);
    now = when_add(now, after_ns);
    completes(WRITE, HCA_WC_RETRY_EXC_ERR);
    for (uint32_t i = READ; i <= LAST; i++) completes(i, HCA_WC_WR_FLUSH_ERR);
    oracle_finish(&oracle);
}

static void retry_exc_when_due(void **state)
{
    retry_exc(8 * (4096ull << 14));
    content();
}

static void retry_exc_too_early(void **state)
{
    retry_exc(3 * (4096ull << 14));
    caught("before the retries were used up");
}

static void retry_exc_too_late(void **state)
{
    retry_exc(60 * (4096ull << 14));
    caught("RETRY_EXC only after");
}

static void retry_exc_where_links_survive(void **state)
{
    oracle.must_survive = true;
    retry_exc(8 * (4096ull << 14));
    caught("whose outages the retries cover");
}

static void reset_takes_completions_along(void **state)
{
    run_well(2);
    oracle_gone(&oracle, &qps[0]);
    completes(READ, HCA_WC_WR_FLUSH_ERR);
    caught("complete already or gone");
}

static void lost_receive_completion(void **state)
{
    execute(SEND, 0);
    completes(SEND, HCA_WC_SUCCESS);
    content();
    oracle_killed(&oracle, &qps[0]);
    for (uint32_t i = WRITE; i <= LAST; i++) completes(i, HCA_WC_WR_FLUSH_ERR);
    oracle_finish(&oracle);
    caught("the peer saw no completion");
}

static void strange_completions(void **state)
{
    struct hca_wc wc = {.wr_id = 0x1234, .qpn = 100};
    oracle_completion(&oracle, 0, &wc, now);
    caught("nobody posted");
    oracle.violation[0] = 0;
    wc = (struct hca_wc){.wr_id = oracle_send_id(&qps[0], 40), .qpn = 100};
    oracle_completion(&oracle, 0, &wc, now);
    caught("not posted");
}

static void state_without_cause(void **state)
{
    oracle_state(&oracle, &qps[0], HCA_QPS_ERR);
    caught("in ERR without a cause");
    oracle.violation[0] = 0;
    oracle_killed(&oracle, &qps[0]);
    oracle_state(&oracle, &qps[0], HCA_QPS_RTS);
    caught("has failed, yet is in state 3");
}

/* UC may lose messages, never their order; UD may lose that too, but doubles nothing. */
static void uc_gap(void **state)
{
    execute(2, 0);
    receives(0, 2);
    content();
    execute(1, 1);
    receives(1, 1);
    caught("the peer has sent nothing like it");
}

static void ud_any_order(void **state)
{
    execute(2, 0);
    receives(0, 2);
    execute(1, 1);
    receives(1, 1);
    content();
    execute(2, 2);
    receives(2, 2);
    caught("arrived twice");
}

static void ud_doubled_by_a_link(void **state)
{
    oracle.links_double = true;
    execute(2, 0);
    receives(0, 2);
    execute(2, 1);
    receives(1, 2);
    content();
}

#define RC(f) cmocka_unit_test_setup_teardown(f, begin_rc, end)
#define UC(f) cmocka_unit_test_setup_teardown(f, begin_uc, end)
#define UD(f) cmocka_unit_test_setup_teardown(f, begin_ud, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RC(all_well),
        RC(completes_twice),
        RC(never_completes),
        RC(out_of_order),
        RC(before_its_bytes),
        RC(write_before_its_bytes),
        RC(read_of_wrong_bytes),
        RC(unsignalled_completes),
        RC(unsignalled_without_effect),
        RC(flush_writes),
        RC(atomic_write_in_part),
        RC(atomic_write_twice),
        RC(wrong_opcode_and_length),
        RC(wrong_immediate),
        RC(in_another_receive),
        RC(beyond_the_message),
        RC(guard_zone),
        RC(executed_again),
        RC(receive_written_again),
        RC(atomic_twice),
        RC(atomic_fetches_nonsense),
        RC(atomic_in_doubt),
        RC(flush_without_cause),
        RC(flush_passes_one_over),
        RC(success_after_flush),
        RC(error_without_cause),
        RC(fault_not_reported),
        RC(retry_exc_on_good_links),
        RC(retry_exc_when_due),
        RC(retry_exc_too_early),
        RC(retry_exc_too_late),
        RC(retry_exc_where_links_survive),
        RC(reset_takes_completions_along),
        RC(lost_receive_completion),
        RC(strange_completions),
        RC(state_without_cause),
        UC(uc_gap),
        UD(ud_any_order),
        UD(ud_doubled_by_a_link),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
