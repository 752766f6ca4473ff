/* Stands in while the connection manager is not built: every program is told so. */
#include "daemon/cmbroker.h"
#include <errno.h>
int cmbroker_new(struct cmbroker **out, const struct cmbroker_conf *conf) { return -EOPNOTSUPP; }
void cmbroker_free(struct cmbroker *broker) {}
int cmbroker_open(struct cmbroker *broker, pid_t pid, struct cmbroker_channel **channel,
                  struct ctl_cm_opened *opened, int *event_fd) { return -EOPNOTSUPP; }
ssize_t cmbroker_command(struct cmbroker_channel *channel, const void *bytes, size_t len, void *reply,
                         size_t cap) { return -EOPNOTSUPP; }
void cmbroker_close(struct cmbroker_channel *channel) {}
void cmbroker_devices_changed(struct cmbroker *broker) {}
bool cmbroker_counter(const struct cmbroker *broker, size_t index, const char **name,
                      uint64_t *value) { return false; }
