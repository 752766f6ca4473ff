/* The daemon's log: one line an entry on standard error, where systemd and the lab pick it up. */
#ifndef RBOND_DAEMON_LOG_H
#define RBOND_DAEMON_LOG_H

#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

void log_set_level(enum log_level level);
bool log_wants(enum log_level level);
/* "error", "warning", "info", "debug"; false for other words. */
bool log_level_parse(const char *word, enum log_level *level);
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)                                                                             \
    do {                                                                                           \
        if (log_wants(LOG_LEVEL_DEBUG)) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__);                    \
    } while (0)

#endif
