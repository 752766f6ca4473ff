/* The client's side of the control protocol, blocking: librbond and the CLI. Not thread safe. */
#ifndef RBOND_CTL_CLIENT_H
#define RBOND_CTL_CLIENT_H

#include "ctl/proto.h"
#include <stdbool.h>
#include <stddef.h>

#define CTL_MAX_FDS 16

struct ctl_client;

struct ctl_reply {
    void *records; /* `count` records, malloc'd */
    size_t count;
    int fds[CTL_MAX_FDS];
    size_t nfds;
    char error[sizeof((struct ctl_error *)0)->text]; /* when ctl_call fails: one line for the user */
};

/* Where the daemon of the calling thread's network namespace may listen, likeliest first:
 * $RBOND_SOCKET alone if set; else /run/rbond/<inode of /proc/thread-self/ns/net>.sock,
 * $XDG_RUNTIME_DIR/rbond/..., /tmp/rbond-<euid>/...
 * Writes path number `index` to `path`; false: no more. The daemon binds the first it can. */
bool ctl_path(unsigned index, char path[108]);

/* Connects (NULL: tries every ctl_path) and exchanges CTL_HELLO. -ECONNREFUSED or -ENOENT: no rbondd
 * answers; -EPROTO: another version. */
int ctl_connect(struct ctl_client **out, const char *path);
int ctl_fd(const struct ctl_client *client); /* readable: an event waits, or the daemon has gone */
void ctl_close(struct ctl_client *client);

/* Sends a request and gathers its reply's records, of `record_size` bytes each (longer ones from a
 * newer daemon are refused). Events that arrive meanwhile are kept for ctl_next_event. 0 or a negative
 * errno with reply->error set; the reply is to be freed in either case. */
int ctl_call(struct ctl_client *client, enum ctl_type type, const void *body, size_t len,
             size_t record_size, struct ctl_reply *reply);
/* The same, passing a descriptor, which stays the caller's. */
int ctl_call_with(struct ctl_client *client, enum ctl_type type, const void *body, size_t len, int fd,
                  size_t record_size, struct ctl_reply *reply);
/* Frees the records and closes descriptors still in `fds` (set taken ones to -1). */
void ctl_reply_free(struct ctl_reply *reply);

/* 1: *event is the next; 0: none waits (wait == false); -ECONNRESET: the daemon has gone. */
int ctl_next_event(struct ctl_client *client, struct ctl_event *event, bool wait);
/* The same without waiting, of a client that makes no calls any more: `fds` are the event's
 * descriptors, the caller's from now on, CTL_MAX_FDS at most. */
int ctl_next_event_with(struct ctl_client *client, struct ctl_event *event, int *fds, size_t *nfds);

#endif
