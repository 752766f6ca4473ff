/* The answers to the list requests: from the daemon's objects to records of the protocol. */
#ifndef RBOND_DAEMON_LISTS_H
#define RBOND_DAEMON_LISTS_H

#include "daemon/cmbroker.h"
#include "daemon/functions.h"
#include "daemon/registry.h"

/* One list never has more records. */
#define LIST_MAX_RECORDS 65536

/* A growing array of records of one size. */
struct records {
    void *bytes; /* malloc'd */
    size_t count, size, room;
    bool failed; /* memory ran out */
};

void list_devices(const struct registry *reg, struct records *out);
void list_gids(const struct registry *reg, struct records *out);
void list_bonds(const struct registry *reg, struct records *out);
void list_links(const struct registry *reg, struct records *out);
void list_functions(const struct functions *fs, struct records *out);
void list_qps(const struct functions *fs, struct records *out);
void list_cm_ids(struct cmbroker *broker, struct records *out);
void list_stats(const struct registry *reg, const struct functions *fs,
                const struct cmbroker *broker, struct records *out);

#endif
