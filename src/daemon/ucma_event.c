/* Events wait in their channel's queue, and for each one a byte, its token, on the channel's
 * socket, which is what the program's descriptor shows to poll. The program takes a token, then
 * asks; so for an event that is dropped the token must be taken back, and where the program was
 * quicker its question finds nothing (-EAGAIN) and it waits for the next token. The socket may be
 * full: then tokens are owed, and put when some have been taken. */
#include "daemon/ucma.h"

#include <stdlib.h>
#include <sys/socket.h>

static void balance_tokens(struct cmbroker_channel *ch)
{
    char token = 0;
    while (ch->tokens < ch->nevents && !ch->full) {
        if (send(ch->token_in, &token, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1)
            ch->tokens++;
        else
            ch->full = true; /* until one is taken */
    }
    while (ch->tokens > ch->nevents && recv(ch->token_out, &token, 1, MSG_DONTWAIT) == 1) {
        ch->tokens--;
        ch->full = false;
    }
}

static void enqueue(struct cmbroker_channel *ch, struct ucma_event *e)
{
    list_add_tail(&ch->events, &e->all);
    ch->nevents++;
    e->id->nevents++;
    balance_tokens(ch);
}

static void dequeue(struct cmbroker_channel *ch, struct ucma_event *e)
{
    list_del(&e->all);
    ch->nevents--;
    e->id->nevents--;
}

/* The program would wait for it for ever: instead it reads all that went before, then the end. */
static struct ucma_event *lose(struct ucma_id *id)
{
    struct cmbroker *b = id->broker;
    shutdown(id->channel->token_in, SHUT_RDWR);
    b->lost = (struct ucma_event){.id = id};
    return &b->lost;
}

struct ucma_event *ucma_report(struct ucma_id *id, enum ucma_event_type type, int status)
{
    struct ucma_event *e = calloc(1, sizeof *e);
    if (!e) return lose(id);
    e->id = id;
    e->resp.uid = id->uid;
    e->resp.id = id->handle;
    e->resp.event = type;
    e->resp.status = (uint32_t)status;
    enqueue(id->channel, e);
    return e;
}

struct ucma_event *ucma_take_event(struct cmbroker_channel *ch)
{
    struct ucma_event *e = NULL;
    if (ch->tokens > 0) ch->tokens--; /* the program has one in its hand */
    ch->full = false;
    if (!list_empty(&ch->events)) {
        e = container_of(ch->events.next, struct ucma_event, all);
        dequeue(ch, e);
    }
    balance_tokens(ch);
    return e;
}

static void enter(struct ucma_id *id, struct cmbroker_channel *channel)
{
    list_del(&id->all);
    list_add_tail(&channel->ids, &id->all);
    id->channel = channel;
}

void ucma_move(struct ucma_id *id, struct cmbroker_channel *to)
{
    struct cmbroker_channel *from = id->channel;
    enter(id, to);
    list_for_each_safe (pos, tmp, &from->events) {
        struct ucma_event *e = container_of(pos, struct ucma_event, all);
        if (e->id != id) continue;
        dequeue(from, e);
        if (e->request) enter(e->request, to);
        enqueue(to, e);
    }
    balance_tokens(from);
}

static void discard(struct cmbroker_channel *ch, struct ucma_event *e)
{
    dequeue(ch, e);
    /* A request has no events of its own yet: its uid is not set. */
    if (e->request) {
        if (e->request->cm) cm_id_give_back(e->request->cm, broker_now());
        e->request->cm = NULL;
        ucma_id_free(e->request);
    }
    free(e);
}

/* `mcast` NULL: all the id's. */
static void drop(struct ucma_id *id, const struct ucma_mcast *mcast)
{
    struct cmbroker_channel *ch = id->channel;
    if (id->nevents == 0) return;
    list_for_each_safe (pos, tmp, &ch->events) {
        struct ucma_event *e = container_of(pos, struct ucma_event, all);
        if (e->id == id && (!mcast || e->mcast == mcast)) discard(ch, e);
    }
    balance_tokens(ch);
}

/* At once: id by id, each would look through all of them. */
void ucma_drop_channel_events(struct cmbroker_channel *ch)
{
    while (!list_empty(&ch->events))
        discard(ch, container_of(ch->events.next, struct ucma_event, all));
}

void ucma_drop_events(struct ucma_id *id) { drop(id, NULL); }
void ucma_drop_mcast_events(struct ucma_mcast *mcast) { drop(mcast->id, mcast); }
