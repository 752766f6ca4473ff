/* Connecting to rbondd and asking it; ctl/client.h carries the bytes. */
#include "cli/session.h"
#include <errno.h>
#include <string.h>

struct ctl_client *session_open(void)
{
    struct ctl_client *client;
    int rc = ctl_connect(&client, NULL);

    if (!rc) return client;
    if (rc == -ENOENT || rc == -ECONNREFUSED)
        failed("no rbondd answers in this network namespace: start 'rbondd', "
               "or let 'rbond run -- CMD' do it");
    else if (rc == -EPROTO)
        failed("the running rbondd speaks another protocol version: restart it from this release");
    else if (rc == -EACCES || rc == -EPERM)
        failed("rbondd's socket is not yours to open: run as the user who runs rbondd, or as root");
    else
        failed("cannot reach rbondd: %s", strerror(-rc));
    return NULL;
}

bool session_call(struct ctl_client *client, const char *what, enum ctl_type type, const void *body,
                  size_t len, size_t record_size, struct ctl_reply *reply)
{
    int rc = ctl_call(client, type, body, len, record_size, reply);

    if (!rc) return true;
    failed("%s: %s", what, reply->error[0] ? reply->error : strerror(-rc));
    ctl_reply_free(reply);
    return false;
}

bool session_list(const char *what, enum ctl_type type, size_t record_size, struct ctl_reply *reply)
{
    struct ctl_client *client = session_open();
    bool ok;

    if (!client) return false;
    ok = session_call(client, what, type, NULL, 0, record_size, reply);
    ctl_close(client);
    return ok;
}

bool session_name(const char *kind, const char *word, char name[CTL_NAME_LEN])
{
    size_t len = strlen(word);

    if (!len || len >= CTL_NAME_LEN || strpbrk(word, " \t\n/")) {
        misused("'%s' cannot be the name of a %s: 1 to %d characters, no blanks or slashes", word,
                kind, CTL_NAME_LEN - 1);
        return false;
    }
    memset(name, 0, CTL_NAME_LEN);
    memcpy(name, word, len);
    return true;
}
