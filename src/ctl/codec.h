/* The checks that every control message passes before anyone looks inside (server.c for requests,
 * client.c for replies and events), and the one way to lay a message out. Pure. */
#ifndef RBOND_CTL_CODEC_H
#define RBOND_CTL_CODEC_H

#include "ctl/proto.h"
#include <stdbool.h>
#include <stddef.h>

/* The header of a message of `n` bytes. -EBADMSG: too short, too long, or its length disagrees with
 * `n`; -EPROTO: another version (hdr is filled: type and seq can be answered). */
int ctl_check(const void *msg, size_t n, struct ctl_hdr *hdr);

/* Is `len` bytes at `body` a right body for this request? -EOPNOTSUPP: no such request; -EBADMSG:
 * wrong length; -EINVAL: an unterminated string or a count beyond its array. */
int ctl_check_request(const struct ctl_hdr *hdr, const void *body, size_t len);

/* Does the message hold exactly hdr->count records of `record_size` bytes? */
bool ctl_check_records(const struct ctl_hdr *hdr, size_t record_size);

/* Is there a NUL within the field? */
bool ctl_string_ok(const char *field, size_t size);
/* Copies with truncation; the rest of the field is zero. */
void ctl_string_set(char *field, size_t size, const char *text);

/* The name of a request or event type, for logs and the CLI; "?" where unknown. */
const char *ctl_type_name(uint32_t type);
const char *ctl_event_name(uint32_t type);

#endif
