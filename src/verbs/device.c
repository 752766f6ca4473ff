/* The device list: the real library's devices, then rbondd's. A device of ours stays allocated for
 * the life of the process, so that its pointer stays good and the same over many lists. */
#include "ctl/client.h"
#include "verbs/context.h"
#include "verbs/netlink.h"
#include "verbs/nldev.h"
#include "verbs/process.h"
#include "verbs/real.h"
#include <endian.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* What a program holds is `at`; the real list behind it must be freed by the real library. `at` is
 * a block of its own, since there are programs that hand it to free(3) (qperf); that leaves this
 * behind, to which a later list at the same place comes first. */
struct device_list {
    struct device_list *next;
    struct ibv_device **real;
    struct ibv_device **at;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t real_lock = PTHREAD_MUTEX_INITIALIZER;
static struct rb_device *devices;
static struct device_list *lists;

__attribute__((constructor)) static void guard(void)
{
    process_guard(&lock, NULL);
    process_guard(&real_lock, NULL);
}

/* Set while the real library asks for the list itself: it looks behind each device for its own. */
static _Thread_local bool real_only;

struct ibv_context *device_mark(struct ibv_device *device, int cmd_fd)
{
    (void)device;
    (void)cmd_fd;
    return fail_with(EOPNOTSUPP);
}

/* ---- rbondd's ---------------------------------------------------------------------------- */

/* One line on stderr, once: a preload that shows no devices should say why. */
static void say_no_rbondd(int error)
{
    static bool said;
    char path[108], tried[512] = "";
    const char *quiet = getenv("RBOND_QUIET");

    if (said || (quiet && *quiet && strcmp(quiet, "0") != 0)) return;
    said = true;
    if (error != -ENOENT && error != -ECONNREFUSED) {
        fprintf(stderr, "librbond: cannot talk to rbondd: %s\n",
                error == -EPROTO ? "it is of another version" : strerror(-error));
        return;
    }
    for (unsigned i = 0; ctl_path(i, path); i++) {
        size_t at = strlen(tried);
        snprintf(tried + at, sizeof tried - at, "%s%s", i ? ", " : "", path);
    }
    fprintf(stderr,
            "librbond: no rbondd answers in this network namespace (tried %s): start rbondd or "
            "use 'rbond run'\n",
            tried);
}

static struct rb_device *known(const char *name)
{
    for (struct rb_device *d = devices; d; d = d->next)
        if (strcmp(d->ibv.name, name) == 0) return d;
    return NULL;
}

static struct rb_device *learn(const struct ctl_dev *ctl)
{
    if (!memchr(ctl->name, 0, sizeof ctl->name)) return NULL;
    struct rb_device *d = known(ctl->name);
    if (!d) {
        d = calloc(1, sizeof *d);
        if (!d) return NULL;
        d->ibv._ops._dummy1 = device_mark;
        d->ibv.node_type = IBV_NODE_CA;
        d->ibv.transport_type = IBV_TRANSPORT_IB;
        snprintf(d->ibv.name, sizeof d->ibv.name, "%s", ctl->name);
        snprintf(d->ibv.dev_name, sizeof d->ibv.dev_name, "%s", ctl->name);
        snprintf(d->ibv.dev_path, sizeof d->ibv.dev_path, "/sys/class/infiniband_verbs/%s",
                 ctl->name);
        snprintf(d->ibv.ibdev_path, sizeof d->ibv.ibdev_path, "/sys/class/infiniband/%s",
                 ctl->name);
        d->next = devices;
        devices = d;
    }
    d->ctl = *ctl;
    return d;
}

/* Asks rbondd. 0 with the reply to be freed, or a negative errno. */
static int ask(struct ctl_reply *reply)
{
    struct ctl_client *client;
    int rc = ctl_connect(&client, NULL);
    if (rc) {
        say_no_rbondd(rc);
        return rc;
    }
    rc = ctl_call(client, CTL_DEV_LIST, NULL, 0, sizeof(struct ctl_dev), reply);
    ctl_close(client);
    if (rc) {
        fprintf(stderr, "librbond: %s\n", reply->error);
        ctl_reply_free(reply);
    }
    return rc;
}

/* ---- the list ---------------------------------------------------------------------------- */

/* The real library has a lock of its own here, which it does not look after at a fork. */
static struct ibv_device **real_list(int *n)
{
    struct ibv_device **(*real)(int *) = real_lookup("ibv_get_device_list", "IBVERBS_1.1");
    struct ibv_device **list = NULL;

    pthread_mutex_lock(&real_lock);
    netlink_stand_aside(true);
    if (real) list = real(n);
    netlink_stand_aside(false);
    pthread_mutex_unlock(&real_lock);
    if (!list) *n = 0; /* ENOSYS without kernel RDMA: none */
    return list;
}

static struct device_list *list_new(size_t n)
{
    struct device_list *list = calloc(1, sizeof *list);

    if (list) list->at = calloc(n + 1, sizeof *list->at);
    if (list && list->at) return list;
    free(list);
    return NULL;
}

EXPORT struct ibv_device **ibv_get_device_list(int *num_devices)
{
    struct ctl_reply reply = {0};
    int nreal, n = 0;
    struct ibv_device **real = real_list(&nreal);
    int rc = real_only ? -EOPNOTSUPP : ask(&reply);

    if (num_devices) *num_devices = 0;
    if (rc) reply.count = 0;
    struct device_list *list = list_new((size_t)nreal + reply.count);
    if (!list) {
        if (real) REAL(ibv_free_device_list, "IBVERBS_1.1")(real);
        if (rc == 0) ctl_reply_free(&reply);
        return fail_with(ENOMEM);
    }
    list->real = real;
    for (; n < nreal; n++) list->at[n] = real[n];
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < reply.count; i++) {
        struct rb_device *d = learn((const struct ctl_dev *)reply.records + i);
        if (d) list->at[n++] = &d->ibv;
    }
    list->next = lists;
    lists = list;
    pthread_mutex_unlock(&lock);
    if (rc == 0) ctl_reply_free(&reply);
    if (num_devices) *num_devices = n;
    return list->at;
}

EXPORT void ibv_free_device_list(struct ibv_device **at)
{
    struct device_list *list = NULL;

    pthread_mutex_lock(&lock);
    for (struct device_list **p = &lists; *p; p = &(*p)->next) {
        if ((*p)->at != at) continue;
        list = *p;
        *p = list->next;
        break;
    }
    pthread_mutex_unlock(&lock);
    if (!list) {
        if (at) REAL(ibv_free_device_list, "IBVERBS_1.1")(at);
        return;
    }
    if (list->real) REAL(ibv_free_device_list, "IBVERBS_1.1")(list->real);
    free(list->at);
    free(list);
}

/* ---- one device -------------------------------------------------------------------------- */

EXPORT const char *ibv_get_device_name(struct ibv_device *device)
{
    return device->name; /* public in real devices, too */
}

EXPORT __be64 ibv_get_device_guid(struct ibv_device *device)
{
    if (!device_is_ours(device)) return REAL(ibv_get_device_guid, "IBVERBS_1.1")(device);
    return htobe64(rb_device(device)->ctl.guid);
}

/* As rdma(8) shows it. */
EXPORT int ibv_get_device_index(struct ibv_device *device)
{
    if (!device_is_ours(device)) return REAL(ibv_get_device_index, "IBVERBS_1.9")(device);
    return (int)(NLDEV_FIRST_INDEX + rb_device(device)->ctl.number);
}

/* The descriptor passes to the new context. */
EXPORT struct ibv_context *ibv_import_device(int cmd_fd)
{
    struct ibv_context *context;
    struct stat st;

    if (fstat(cmd_fd, &st) != 0) return NULL;
    int rc = context_import(cmd_fd, &context);
    if (rc != ENODEV) return rc ? fail_with(rc) : context;
    real_only = true;
    context = REAL(ibv_import_device, "IBVERBS_1.10")(cmd_fd);
    real_only = false;
    return context;
}
