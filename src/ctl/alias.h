/* Counters that RoCE adapters have under names of their own, and which of ours each means. Shown
 * beside ours wherever the kernel's hw_counters would be. */
#ifndef RBOND_CTL_ALIAS_H
#define RBOND_CTL_ALIAS_H

#define CTL_HW_ALIASES(X)                                                                          \
    X(rnr_nak_retry_err, rnr_nak_received)                                                         \
    X(out_of_buffer, rnr_nak_sent)                                                                 \
    X(rp_cnp_handled, cnp_received)                                                                \
    X(np_cnp_sent, cnp_sent)                                                                       \
    X(np_ecn_marked_roce_packets, ecn_marked)

#endif
