/* A conversation with the rbondd of this network namespace, with errors already told to the user.
 */
#ifndef RBOND_CLI_SESSION_H
#define RBOND_CLI_SESSION_H

#include "cli/cli.h"
#include "ctl/client.h"

/* NULL after one line on stderr. */
struct ctl_client *session_open(void);

/* As ctl_call; false after one line on stderr that begins with `what` ("cannot add bond 'bond0'").
 * The reply is to be freed only after true. */
bool session_call(struct ctl_client *client, const char *what, enum ctl_type type, const void *body,
                  size_t len, size_t record_size, struct ctl_reply *reply);

/* Opens, asks for a list without arguments, closes. */
bool session_list(const char *what, enum ctl_type type, size_t record_size,
                  struct ctl_reply *reply);

/* Copies a name given by the user; false after a complaint when it cannot be one. */
bool session_name(const char *kind, const char *word, char name[CTL_NAME_LEN]);

#endif
