/* Kin: functions of other contexts and processes that take part in an XRC domain of a file with one
 * of ours. rbondd introduces them; then each has a line to call the other by and one to be called
 * by, on which hca/call.h's calls and answers go. */
#ifndef RBOND_VERBS_KIN_H
#define RBOND_VERBS_KIN_H

#include "base/when.h"
#include "ctl/client.h"
#include <stdbool.h>
#include <stdint.h>

struct function;
struct kin_note;
struct kin_share;

/* All but kin_renew: holding the function's lock. */

/* From now on the function takes part in the domain that the adapter knows as `xrcd`; claim and file
 * are the share's. NULL: no memory or descriptors, and they are the caller's still. */
struct kin_share *kin_join(struct function *f, uint32_t xrcd, struct ctl_client *claim, int file);
/* Those who took part before are known when it returns, so that their targets can be opened. Lets go
 * of the lock meanwhile; the caller keeps the share. */
void kin_await_introductions(struct function *f, struct kin_share *share);
/* The others hear that we have gone. */
void kin_leave(struct function *f, struct kin_share *share);
/* All of them; in a forked child the parent's lines stay as they are. */
void kin_free(struct function *f);

/* Readable: kin_drive has something to do. -1: there is no share. */
int kin_fd(const struct function *f);
/* Executes calls, takes answers, sends calls. True: there was work. */
bool kin_drive(struct function *f, when_t now);
/* Sends calls alone. True: the adapter may have packets that it had not before. */
bool kin_send(struct function *f, when_t now);

/* What is no matter of the adapters', by the line to call that function: qp_remote.h. 0, -EAGAIN: no room,
 * -ENOENT: it does not take part. */
int kin_put_note(struct function *f, uint32_t xrcd, uint16_t function, struct kin_note *note);

/* Asks rbondd for a share, proving it by the file: 0 or an errno: ENOENT where there is no domain and
 * `flags` do not say to make one, EEXIST. */
int kin_claim(const struct function *f, int file, uint32_t flags, struct ctl_client **claim);
/* When a share that rbondd has forgotten is to be claimed again; NEVER: none is. Without the lock. */
when_t kin_renew_at(const struct function *f);
/* The worker, without the lock: claims it. */
void kin_renew(struct function *f, when_t now);

#endif
