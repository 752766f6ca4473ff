/* Plans made by hand, for tests that want one thing to happen. Two hosts with equal ports; queue
 * pairs between them; requests; cuts. Receives are made to fit by script_end. */
#ifndef RBOND_SIM_SCRIPT_H
#define RBOND_SIM_SCRIPT_H

#include "sim/plan.h"

#define SCRIPT_MAX_REQUESTS 64

/* 10 Gb/s, 10 us a way, active-backup, no loss; change what you like before script_end. */
void script_begin(struct plan *p, uint64_t seed, uint8_t members, enum fabric fabric);
/* A pair between host 0 and host 1: the index of host 0's end, host 1's is the next. MTU 4096,
 * timeout 14 (67 ms), retry 7. */
uint32_t script_pair(struct plan *p, enum hca_qp_type type);
/* One more request of queue pair `qp`, signalled. */
struct request *script_request(struct plan *p, uint32_t qp, enum hca_wr_opcode op, uint32_t len);
/* Both ends of the wire of this member; `mend_ns` 0: for ever. */
void script_cut(struct plan *p, uint64_t at_ns, uint64_t mend_ns, uint8_t member);
void script_cut_port(struct plan *p, uint64_t at_ns, uint64_t mend_ns, uint8_t host,
                     uint8_t member);
void script_end(struct plan *p);

#endif
