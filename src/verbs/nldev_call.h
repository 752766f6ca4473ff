/* One request under way: between nldev.c and nldev_list.c. */
#ifndef RBOND_VERBS_NLDEV_CALL_H
#define RBOND_VERBS_NLDEV_CALL_H

#include "verbs/nldev.h"
#include <rdma/rdma_netlink.h>

#define NLDEV_PORT 1 /* every device has this one */

struct nldev_call {
    const struct nlmsghdr *request;
    uint32_t portid;
    const struct nldev_facts *facts;
    struct nldev_reply *reply;
    const struct ctl_dev *dev; /* the device asked about; NULL: none was named */
    bool dump;
    /* Attributes of the request; has: 1 << index in this order */
    uint32_t index, port, lqpn, stat_res, stat_mode;
    unsigned has;
};
#define NLDEV_HAS_INDEX 1u
#define NLDEV_HAS_PORT 2u
#define NLDEV_HAS_LQPN 4u
#define NLDEV_HAS_STAT_RES 8u
#define NLDEV_HAS_STAT_MODE 16u

/* A message that is being written. */
struct nldev_draft {
    _Alignas(8) uint8_t bytes[NLDEV_MAX_MESSAGE];
    struct nlmsghdr *nlh;
};

/* Begins a message of this command about a device, whose index and name it has already. */
void nldev_begin(struct nldev_draft *draft, const struct nldev_call *call, uint16_t command,
                 const struct ctl_dev *dev);
/* A name: a string, or a field of CTL_NAME_LEN bytes that holds one. */
void nldev_put_name(struct nlmsghdr *nlh, uint16_t type, const char *field);

/* Each writes its messages and returns 0, or a negative errno and nothing. The device is there. */
int nldev_res_get(struct nldev_call *call);
int nldev_qp_get(struct nldev_call *call);
int nldev_qp_dump(struct nldev_call *call);
int nldev_cm_id_dump(struct nldev_call *call);
int nldev_ctx_dump(struct nldev_call *call);
int nldev_stat_get(struct nldev_call *call);
int nldev_stat_dump(struct nldev_call *call);
int nldev_stat_status(struct nldev_call *call);

#endif
