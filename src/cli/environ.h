/* What programs expect around a verbs device, in a mount namespace of the program's own:
 * /sys/class/infiniband, /sys/class/infiniband_verbs and /dev/infiniband, as rbondd's tree
 * (ctl/tree.h) has them.
 *   environ.c        the namespace, and the order of things
 *   environ_stage.c  directories to which entries can be added */
#ifndef RBOND_CLI_ENVIRON_H
#define RBOND_CLI_ENVIRON_H

#include <stdbool.h>

/* Gives this process, and what it starts, the directories. It needs root, or user namespaces that
 * an ordinary user may make; where it cannot be done, or RBOND_ENVIRON=0 forbids it, nothing
 * changes: librbond then leads the program's calls there. To be called right before the program
 * starts, with one thread. */
void environ_make(void);

/* Lets each directory in `tree` be seen at the same name in `parent`, beside all that is there:
 * what stands in `parent` under that name already keeps its entries and gets those of the tree. */
void environ_stage(const char *parent, const char *tree);
/* Is that so already? */
bool environ_staged(const char *parent, const char *tree);

#endif
