/* librbond.so and rbondd are looked for beside this binary first, so that a build tree and several
 * installed versions can live side by side. */
#include "cli/install.h"
#include "cli/cli.h"
#include <dlfcn.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PRELOAD_MAX (3 * PATH_MAX)

/* Relative to the directory of the binary, or absolute. */
static const char *const LIBRARY_AT[] = {"../verbs/librbond.so",
                                         RBOND_FROM_BINDIR_TO_LIBDIR "/librbond.so",
                                         RBOND_LIBDIR "/librbond.so"};
static const char *const SHIM_AT[] = {"../verbs/shim/libibverbs.so.1",
                                      RBOND_FROM_BINDIR_TO_LIBDIR "/rbond/libibverbs.so.1",
                                      RBOND_LIBDIR "/rbond/libibverbs.so.1"};
static const char *const DAEMON_AT[] = {"../daemon/rbondd", "../sbin/rbondd", "rbondd",
                                        RBOND_SBINDIR "/rbondd"};

static bool find(const char *const at[], size_t count, int access_mode, char path[PATH_MAX])
{
    char self[PATH_MAX], tried[2 * PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    const char *dir;

    if (len < 0) return false;
    self[len] = 0;
    dir = dirname(self);
    for (size_t i = 0; i < count; i++) {
        if (at[i][0] == '/')
            snprintf(tried, sizeof tried, "%s", at[i]);
        else
            snprintf(tried, sizeof tried, "%s/%s", dir, at[i]);
        if (realpath(tried, path) && !access(path, access_mode)) return true;
    }
    return false;
}

bool install_library(char path[PATH_MAX])
{
    if (find(LIBRARY_AT, sizeof LIBRARY_AT / sizeof *LIBRARY_AT, R_OK, path)) return true;
    failed(
        "librbond.so is neither beside this binary nor in %s: build with 'make' or 'make install'",
        RBOND_LIBDIR);
    return false;
}

bool install_daemon(char path[PATH_MAX])
{
    if (find(DAEMON_AT, sizeof DAEMON_AT / sizeof *DAEMON_AT, X_OK, path)) return true;
    failed("rbondd is neither beside this binary nor in %s: build with 'make' or 'make install'",
           RBOND_SBINDIR);
    return false;
}

/* An instrumented library wants the sanitizer's runtime to be loaded before the program's libc
 * calls. */
static const char *sanitizer_runtime(void)
{
    void *init = dlsym(RTLD_DEFAULT, "__asan_init");
    Dl_info info;

    return init && dladdr(init, &info) && strstr(info.dli_fname, "libasan") ? info.dli_fname : "";
}

/* Programs that a preload does not reach find our libibverbs.so.1 first (verbs/shim). It needs the
 * real one at the place where that was when we were built; elsewhere the preload alone must do. */
static void lead_to_shim(void)
{
    char shim[PATH_MAX], list[PRELOAD_MAX];
    const char *others = getenv("LD_LIBRARY_PATH"), *dir;

    if (access(RBOND_REAL_LIBIBVERBS, R_OK)) return;
    if (!find(SHIM_AT, sizeof SHIM_AT / sizeof *SHIM_AT, R_OK, shim)) return;
    dir = dirname(shim);
    if (others && strstr(others, dir)) return;
    snprintf(list, sizeof list, "%s%s%s", dir, others && *others ? ":" : "", others ? others : "");
    setenv("LD_LIBRARY_PATH", list, 1);
}

bool install_preload(void)
{
    char library[PATH_MAX], list[PRELOAD_MAX], quiet[512];
    const char *first = sanitizer_runtime(), *others = getenv("LD_PRELOAD");

    if (!install_library(library)) return false;
    lead_to_shim();
    if (others && strstr(others, library)) return true;
    snprintf(list, sizeof list, "%s%s%s%s%s", first, *first ? ":" : "", library,
             others && *others ? ":" : "", others ? others : "");
    if (*first) {
        const char *options = getenv("ASAN_OPTIONS");

        /* Programs that are not ours may leak as they please. */
        snprintf(quiet, sizeof quiet, "%s:detect_leaks=0", options ? options : "");
        setenv("ASAN_OPTIONS", quiet, 1);
    }
    return !setenv("LD_PRELOAD", list, 1);
}
