/* What every device of ours says of itself, by whatever way it is asked. */
#ifndef RBOND_VERBS_CAPS_H
#define RBOND_VERBS_CAPS_H

#include <infiniband/verbs.h>

/* ibv_device_attr.device_cap_flags, which the kernel's netlink shows, too. */
#define DEVICE_CAP_FLAGS                                                                           \
    (IBV_DEVICE_CURR_QP_STATE_MOD | IBV_DEVICE_RC_RNR_NAK_GEN | IBV_DEVICE_UD_AV_PORT_ENFORCE |    \
     IBV_DEVICE_PORT_ACTIVE_EVENT | IBV_DEVICE_SYS_IMAGE_GUID | IBV_DEVICE_SRQ_RESIZE |            \
     IBV_DEVICE_MEM_WINDOW | IBV_DEVICE_MEM_WINDOW_TYPE_2B | IBV_DEVICE_MEM_MGT_EXTENSIONS |       \
     IBV_DEVICE_XRC)

/* IBTA 14.2.5.6, PortInfo: PortPhysicalState. */
#define PHYS_STATE_DISABLED 3
#define PHYS_STATE_LINK_UP 5

#endif
