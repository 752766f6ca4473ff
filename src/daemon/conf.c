#include "daemon/conf.h"
#include <errno.h>
#include <fnmatch.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FILE (1 << 20)

/* Where we are, for messages: the file and the first thing that was wrong. */
struct reader {
    const char *file;
    struct conf_error *error;
};

__attribute__((format(printf, 2, 3))) static int wrong(const struct reader *r, const char *format,
                                                       ...)
{
    char what[140];
    va_list args;

    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    snprintf(r->error->text, sizeof r->error->text, "%.50s: %s", r->file, what);
    return -EINVAL;
}

static int read_string(const struct reader *r, const char *key, json_object *value, char *to,
                       size_t size)
{
    if (!json_object_is_type(value, json_type_string))
        return wrong(r, "\"%s\" wants a string", key);
    if ((size_t)json_object_get_string_len(value) >= size)
        return wrong(r, "\"%s\" is longer than %zu characters", key, size - 1);
    snprintf(to, size, "%s", json_object_get_string(value));
    return 0;
}

static int read_number(const struct reader *r, const char *key, json_object *value, uint32_t *to)
{
    if (!json_object_is_type(value, json_type_int) || json_object_get_int64(value) < 0 ||
        json_object_get_int64(value) > INT32_MAX)
        return wrong(r, "\"%s\" wants a number that is not negative", key);
    *to = (uint32_t)json_object_get_int64(value);
    return 0;
}

static int read_array(const struct reader *r, const char *key, json_object *value, size_t max,
                      size_t *n)
{
    if (!json_object_is_type(value, json_type_array)) return wrong(r, "\"%s\" wants a list", key);
    *n = json_object_array_length(value);
    if (*n > max) return wrong(r, "\"%s\" has more than %zu entries", key, max);
    return 0;
}

static int read_globs(const struct reader *r, const char *key, json_object *value,
                      char (*to)[CONF_GLOB_LEN], size_t *n)
{
    int rc = read_array(r, key, value, CONF_MAX_GLOBS, n);

    for (size_t i = 0; rc == 0 && i < *n; i++)
        rc = read_string(r, key, json_object_array_get_idx(value, i), to[i], CONF_GLOB_LEN);
    return rc;
}

static int read_members(const struct reader *r, json_object *value, struct ctl_bond_conf *bond)
{
    size_t n = 0;
    int rc = read_array(r, "members", value, CTL_MAX_MEMBERS, &n);

    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = read_string(r, "members", json_object_array_get_idx(value, i), bond->member[i],
                         IFNAMSIZ);
    if (rc == 0) bond->nmembers = (uint8_t)n;
    return rc;
}

uint32_t conf_bond_mode(const char *word)
{
    if (strcmp(word, "active-backup") == 0) return CTL_MODE_ACTIVE_BACKUP;
    if (strcmp(word, "balance-xor") == 0) return CTL_MODE_BALANCE_XOR;
    return 0;
}

static int read_mode(const struct reader *r, json_object *value, struct ctl_bond_conf *bond)
{
    char word[32];

    int rc = read_string(r, "mode", value, word, sizeof word);
    if (rc < 0) return rc;
    bond->mode = conf_bond_mode(word);
    return bond->mode ? 0 : wrong(r, "unknown bond mode \"%s\" (active-backup, balance-xor)", word);
}

static int read_bond(const struct reader *r, json_object *value, struct ctl_bond_conf *bond)
{
    int rc = 0;

    memset(bond, 0, sizeof *bond);
    bond->mode = CTL_MODE_ACTIVE_BACKUP;
    if (!json_object_is_type(value, json_type_object)) return wrong(r, "a bond is an object");
    json_object_object_foreach(value, key, v)
    {
        if (rc < 0) break;
        if (strcmp(key, "name") == 0)
            rc = read_string(r, key, v, bond->name, IFNAMSIZ);
        else if (strcmp(key, "netdev") == 0)
            rc = read_string(r, key, v, bond->netdev, IFNAMSIZ);
        else if (strcmp(key, "primary") == 0)
            rc = read_string(r, key, v, bond->primary, IFNAMSIZ);
        else if (strcmp(key, "mode") == 0)
            rc = read_mode(r, v, bond);
        else if (strcmp(key, "members") == 0)
            rc = read_members(r, v, bond);
        else if (strcmp(key, "min_links") == 0)
            rc = read_number(r, key, v, &bond->min_links);
        else if (strcmp(key, "updelay") == 0)
            rc = read_number(r, key, v, &bond->updelay_ms);
        else if (strcmp(key, "downdelay") == 0)
            rc = read_number(r, key, v, &bond->downdelay_ms);
        else
            rc = wrong(r, "unknown key \"%.40s\" of a bond", key);
    }
    return rc;
}

static int read_bonds(const struct reader *r, json_object *value, struct conf *conf)
{
    int rc = read_array(r, "bonds", value, CONF_MAX_BONDS, &conf->nbonds);

    for (size_t i = 0; rc == 0 && i < conf->nbonds; i++)
        rc = read_bond(r, json_object_array_get_idx(value, i), &conf->bond[i]);
    return rc;
}

static int read_log_level(const struct reader *r, json_object *value, struct conf *conf)
{
    char word[16];

    int rc = read_string(r, "log_level", value, word, sizeof word);
    if (rc < 0) return rc;
    conf->has_log_level = log_level_parse(word, &conf->log_level);
    return conf->has_log_level ? 0 : wrong(r, "unknown log level \"%s\"", word);
}

static int read_top(const struct reader *r, json_object *top, struct conf *conf)
{
    int rc = 0;

    if (!json_object_is_type(top, json_type_object)) return wrong(r, "not a JSON object");
    json_object_object_foreach(top, key, v)
    {
        if (rc < 0) break;
        if (strcmp(key, "include") == 0)
            rc = read_globs(r, key, v, conf->include, &conf->ninclude);
        else if (strcmp(key, "exclude") == 0)
            rc = read_globs(r, key, v, conf->exclude, &conf->nexclude);
        else if (strcmp(key, "bonds") == 0)
            rc = read_bonds(r, v, conf);
        else if (strcmp(key, "log_level") == 0)
            rc = read_log_level(r, v, conf);
        else
            rc = wrong(r, "unknown key \"%.40s\"", key);
    }
    return rc;
}

int conf_parse(struct conf *conf, const char *text, const char *name, struct conf_error *error)
{
    struct reader r = {name, error};
    enum json_tokener_error why;

    memset(conf, 0, sizeof *conf);
    json_object *top = json_tokener_parse_verbose(text, &why);
    if (!top) return wrong(&r, "%s", json_tokener_error_desc(why));
    int rc = read_top(&r, top, conf);
    json_object_put(top);
    return rc;
}

int conf_read(struct conf *conf, const char *path, struct conf_error *error)
{
    FILE *f = fopen(path, "re");

    memset(conf, 0, sizeof *conf);
    if (!f) {
        int err = errno;
        snprintf(error->text, sizeof error->text, "%.100s: %s", path, strerror(err));
        return -err;
    }
    char *text = malloc(MAX_FILE + 1);
    size_t n = text ? fread(text, 1, MAX_FILE, f) : 0;
    fclose(f);
    if (!text) return -ENOMEM;
    text[n] = 0;
    int rc = conf_parse(conf, text, path, error);
    free(text);
    return rc;
}

static bool matches(const char (*globs)[CONF_GLOB_LEN], size_t n, const char *netdev)
{
    for (size_t i = 0; i < n; i++)
        if (fnmatch(globs[i], netdev, 0) == 0) return true;
    return false;
}

bool conf_includes(const struct conf *conf, const char *netdev)
{
    return matches(conf->include, conf->ninclude, netdev);
}

bool conf_excludes(const struct conf *conf, const char *netdev)
{
    return matches(conf->exclude, conf->nexclude, netdev);
}
