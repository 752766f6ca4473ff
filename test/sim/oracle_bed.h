/* A pair of queue pairs, their requests posted, and what a correct adapter would do with them: by hand, since
 * the oracle is what is tested. */
#ifndef TEST_SIM_ORACLE_BED_H
#define TEST_SIM_ORACLE_BED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sim/oracle.h"
#include "sim/script.h"

/* The requests of RC; UC and UD have four SENDs with immediate. */
enum { SEND, WRITE, READ, ADD, WRITE_IMM, SEND_IMM, SILENT_WRITE, FLUSH, ATOMIC_WRITE, LAST };

extern struct plan plan;
extern struct oracle oracle;
extern struct oracle_qp qps[4];
extern struct recv_queue *queues[4];
extern when_t now;

/* Setups and teardown. */
int begin_rc(void **state);
int begin_uc(void **state);
int begin_ud(void **state);
int end(void **state);

struct request *request(uint32_t i);
/* The request takes effect; `receive` is the receive it uses, if it uses one. */
void execute(uint32_t i, uint32_t receive);
/* The oracle hears of completions. */
void completes(uint32_t i, enum hca_wc_status status);
struct hca_wc receive_wc(uint32_t receive, uint32_t i);
void receives(uint32_t receive, uint32_t i);
/* Requests 0 .. n-1, all well. */
void run_well(uint32_t n);
/* And from `first` on, and the end. */
void run_rest(uint32_t first);

/* It has found nothing; it has found this. */
void content(void);
void caught(const char *words);

#endif
