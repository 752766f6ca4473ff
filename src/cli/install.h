/* Where the rest of rbond lies, seen from the running binary: in the build tree or installed. */
#ifndef RBOND_CLI_INSTALL_H
#define RBOND_CLI_INSTALL_H

#include <limits.h>
#include <stdbool.h>

/* False after one line on stderr. */
bool install_library(char path[PATH_MAX]);
bool install_daemon(char path[PATH_MAX]);

/* Sets LD_PRELOAD and LD_LIBRARY_PATH for the program that is about to be started; false after one
 * line on stderr. */
bool install_preload(void);

#endif
