/* A port's speed in the words of the IBTA's PortInfo: LinkWidthActive and LinkSpeedActive. */
#ifndef RBOND_WIRE_PORT_SPEED_H
#define RBOND_WIRE_PORT_SPEED_H

#include <stddef.h>
#include <stdint.h>

struct port_speed {
    uint8_t width; /* 1: 1x, 2: 4x */
    uint8_t speed; /* SDR 1, DDR 2, QDR 4, FDR10 8, FDR 16, EDR 32, HDR 64, NDR 128 */
};

/* The least pair of width and speed that is not below the net device's: as the kernel has it for
 * RoCE devices. */
static inline struct port_speed port_speed_of(uint32_t mbps)
{
    static const struct {
        uint32_t mbps;
        struct port_speed as;
    } table[] = {{2500, {1, 1}},   {5000, {1, 2}},    {10000, {1, 8}},
                 {14000, {1, 16}}, {25000, {1, 32}},  {40000, {2, 8}},
                 {50000, {1, 64}}, {100000, {2, 32}}, {200000, {2, 64}}};

    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (mbps <= table[i].mbps) return table[i].as;
    return (struct port_speed){2, 128};
}

#endif
