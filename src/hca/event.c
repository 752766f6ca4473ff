/* Async events that wait for the owner to take them: a list of the objects that have some. */
#include "hca/adapter.h"

void event_raise(struct hca *hca, struct event_source *source, enum hca_event_type type)
{
    source->pending |= 1u << type;
    if (list_empty(&source->node)) list_add_tail(&hca->events, &source->node);
}

void event_forget(struct event_source *source)
{
    source->pending = 0;
    list_del(&source->node);
}

bool hca_next_event(struct hca *hca, struct hca_event *event)
{
    if (list_empty(&hca->events)) return false;
    struct event_source *source = container_of(hca->events.next, struct event_source, node);
    event->type = (enum hca_event_type)__builtin_ctz(source->pending);
    event->owner = source->owner;
    source->pending &= source->pending - 1;
    list_del(&source->node);
    if (source->pending) list_add_tail(&hca->events, &source->node);
    return true;
}
