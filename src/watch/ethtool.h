/* What rtnetlink does not tell of a port. */
#ifndef RBOND_WATCH_ETHTOOL_H
#define RBOND_WATCH_ETHTOOL_H

#include <stdint.h>

#define NUMA_NONE 0xff

/* Mb/s; 0 where the driver does not know. */
uint32_t ethtool_speed_mbps(const char *name);
/* The NUMA node of the adapter, NUMA_NONE where it has none or sysfs shows another namespace. */
uint8_t ethtool_numa_node(const char *name, uint32_t ifindex);

#endif
