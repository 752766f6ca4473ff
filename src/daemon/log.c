#include "daemon/log.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const words[] = {"error", "warning", "info", "debug"};
static enum log_level threshold = LOG_LEVEL_INFO;

void log_set_level(enum log_level level) { threshold = level; }
bool log_wants(enum log_level level) { return level <= threshold; }

bool log_level_parse(const char *word, enum log_level *level)
{
    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(word, words[i]) != 0) continue;
        *level = (enum log_level)i;
        return true;
    }
    return false;
}

void log_line(enum log_level level, const char *format, ...)
{
    char line[512];
    va_list args;

    if (!log_wants(level)) return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    fprintf(stderr, "rbondd: %s%s%s\n", level == LOG_LEVEL_INFO ? "" : words[level],
            level == LOG_LEVEL_INFO ? "" : ": ", line);
}
