/* Numbers of this function -> objects: QPs, and XRC SRQs in a space of their own. Indices 0 and 1
 * are kept out: of function 0 they are the management QPs. So is the last: of the last function it
 * is the multicast QPN. */
#include "hca/adapter.h"
#include <errno.h>

enum { FIRST_INDEX = 2, NINDEX = HCA_QPS };

int numbers_add(struct hca *hca, struct numbers *numbers, void *object, uint32_t *number)
{
    for (uint32_t i = 0; i < NINDEX; i++) {
        uint32_t index = FIRST_INDEX + (numbers->cursor + i) % NINDEX;
        if (numbers->at[index]) continue;
        numbers->at[index] = object;
        numbers->cursor = (index - FIRST_INDEX + 1) % NINDEX;
        *number = (uint32_t)hca->conf.function << HCA_INDEX_BITS | index;
        return 0;
    }
    return -ENOMEM;
}

void numbers_del(struct numbers *numbers, uint32_t number)
{
    numbers->at[number & (HCA_MAX_QP - 1)] = NULL;
}

void *numbers_find(const struct hca *hca, const struct numbers *numbers, uint32_t number)
{
    if (number >> HCA_INDEX_BITS != hca->conf.function) return NULL;
    return numbers->at[number & (HCA_MAX_QP - 1)];
}
