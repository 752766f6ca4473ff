/* Starting and stopping an rbondd of our own: for `rbond run` and for the lab's hosts. */
#ifndef RBOND_CLI_RBONDD_H
#define RBOND_CLI_RBONDD_H

#include <sys/types.h>

/* Starts rbondd in the namespaces of the caller, in a session of its own, and waits until it
 * answers at `socket` (NULL: where clients look by default). Its output goes to the file `log`
 * (NULL: warnings go to our stderr). The pid, or -1 after one line on stderr. */
pid_t rbondd_start(const char *socket, const char *log);

/* SIGTERM, a while to end, then SIGKILL. Only for a child of ours. */
void rbondd_stop(pid_t pid);

#endif
