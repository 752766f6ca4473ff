/* rbondd died and came back. While it was away the data path went on with the last table. Now the
 * function goes to the new one under its old number, with its QPs and connections: what changes is
 * everything that rbondd gives, sockets and pages.
 *
 * The sockets must go before the new ones come (struct ctl_reclaim): until then nothing is sent or
 * received and no timer runs, which to the peers is a short loss. */
#include "verbs/function.h"
#include <errno.h>
#include <string.h>

/* A bond may be there only later: until then all stays as it is. */
static bool shows_device(struct ctl_client *ctl, const char *name)
{
    struct ctl_reply reply;
    bool shown = false;

    if (ctl_call(ctl, CTL_DEV_LIST, NULL, 0, sizeof(struct ctl_dev), &reply) == 0) {
        const struct ctl_dev *dev = reply.records;
        for (size_t i = 0; i < reply.count && !shown; i++)
            shown = strncmp(dev[i].name, name, sizeof dev[i].name) == 0;
    }
    ctl_reply_free(&reply);
    return shown;
}

static void close_port(struct function *f)
{
    pthread_mutex_lock(&f->lock);
    if (f->port) {
        f->gone.rx_icrc_errors += f->port->stats.rx_icrc_errors;
        f->gone.rx_short += f->port->stats.rx_short;
        f->gone.tx_errors += f->port->stats.tx_errors;
        f->port->ops->close(f->port);
        f->port = NULL;
    }
    pthread_mutex_unlock(&f->lock);
}

/* 0 or a negative errno. */
static int settle(struct function *f, struct ctl_reply *reply)
{
    struct ctl_opened opened;
    struct function_parts parts;

    if (reply->count != 1) return -EPROTO;
    memcpy(&opened, reply->records, sizeof opened);
    if (opened.function != f->opened.function) return -EPROTO;
    int rc = function_take(reply, &opened, &parts);
    if (rc) return rc;
    pthread_mutex_lock(&f->lock);
    function_refit(f, &parts);
    f->opened.dev = opened.dev;
    publish_now(f, function_now());
    pthread_mutex_unlock(&f->lock);
    return 0;
}

static int reclaim(struct function *f, struct ctl_client *ctl)
{
    struct ctl_reclaim wanted = {.function = f->opened.function};
    struct ctl_reply reply;

    memcpy(wanted.name, f->opened.dev.name, sizeof wanted.name);
    close_port(f);
    int rc = ctl_call(ctl, CTL_RECLAIM, &wanted, sizeof wanted, sizeof(struct ctl_opened), &reply);
    if (rc == 0) rc = settle(f, &reply);
    ctl_reply_free(&reply);
    return rc;
}

bool function_rejoin(struct function *f)
{
    struct ctl_client *ctl;

    if (ctl_connect(&ctl, NULL)) return true; /* not yet */
    int rc = -ECONNRESET;
    if (shows_device(ctl, f->opened.dev.name)) rc = reclaim(f, ctl);
    if (rc) {
        ctl_close(ctl);
        return rc == -ECONNRESET || rc == -ETIMEDOUT;
    }
    f->ctl = ctl;
    return true;
}
