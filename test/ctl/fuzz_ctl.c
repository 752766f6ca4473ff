/* The codec under libFuzzer: any bytes as a message, in both directions. */
#include "ctl/codec.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ctl_hdr hdr;
    /* A copy of just that size: reading past it is seen. */
    uint8_t *msg = malloc(size ? size : 1);

    memcpy(msg, data, size);
    int rc = ctl_check(msg, size, &hdr);
    if (rc == 0) {
        rc = ctl_check_request(&hdr, msg + sizeof hdr, size - sizeof hdr);
        if (rc == 0 && ctl_type_name(hdr.type)[0] == '?') abort();
        if (ctl_check_records(&hdr, 8) && size != sizeof hdr + 8 * (size_t)hdr.count) abort();
        ctl_event_name(hdr.flags);
    }
    free(msg);
    return 0;
}
