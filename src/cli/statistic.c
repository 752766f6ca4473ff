/* rbond statistic: counters of devices and members, as they stand (`show`) or per interval
 * (`rate`). */
#include "cli/session.h"
#include "cli/table.h"
#include "cli/words.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RATE_INTERVAL_MS 1000
#define RATE_MAX_MS 3600000

static const struct column COUNTER_COLUMNS[] = {
    {"device", "DEVICE"},
    {"member", "MEMBER"},
    {"counter", "COUNTER"},
    {"value", "VALUE"},
};

static const struct column RATE_COLUMNS[] = {
    {"time_s", "TIME_S"},   {"device", "DEVICE"},   {"member", "MEMBER"},
    {"tx_gbps", "TX_GBPS"}, {"rx_gbps", "RX_GBPS"},
};

static bool is_field(const char *field, size_t size, const char *text)
{
    return strnlen(field, size) == strlen(text) && !memcmp(field, text, strlen(text));
}

#define field_is(field, text) is_field(field, sizeof(field), text)

static int show(struct cli *cli, int argc, char **argv)
{
    struct ctl_reply reply;
    const struct ctl_stat *stat;
    struct table *table;
    bool all = cli->json;

    if (argc > 1) return misused("statistic show takes one device: '%s' is too much", argv[1]);
    if (!session_list("cannot read counters", CTL_STAT, sizeof *stat, &reply)) return CLI_FAILED;
    stat = reply.records;
    table = table_new(cli, COUNTER_COLUMNS, sizeof COUNTER_COLUMNS / sizeof *COUNTER_COLUMNS);
    for (size_t i = 0; i < reply.count; i++) {
        if (argc && !field_is(stat[i].device, argv[0])) continue;
        if (!all && !stat[i].value) continue;
        table_row(table);
        table_field(table, "device", stat[i].device);
        table_field(table, "member", stat[i].member);
        table_field(table, "counter", stat[i].name);
        table_number(table, "value", stat[i].value);
    }
    ctl_reply_free(&reply);
    return table_print(table);
}

/* The counter before the interval; a program that ended takes its counts along, which is no rate.
 */
static double gbps(const struct ctl_stat *now, const struct ctl_reply *before, double seconds)
{
    const struct ctl_stat *old = before->records;

    for (size_t i = 0; i < before->count; i++)
        if (!memcmp(old[i].device, now->device, sizeof now->device) &&
            !memcmp(old[i].member, now->member, sizeof now->member) &&
            !memcmp(old[i].name, now->name, sizeof now->name))
            return now->value > old[i].value
                       ? (double)(now->value - old[i].value) * 8 / seconds / 1e9
                       : 0;
    return 0;
}

static const struct ctl_stat *twin(const struct ctl_reply *reply, const struct ctl_stat *of,
                                   const char *name)
{
    const struct ctl_stat *stat = reply->records;

    for (size_t i = 0; i < reply->count; i++)
        if (field_is(stat[i].name, name) &&
            !memcmp(stat[i].device, of->device, sizeof of->device) &&
            !memcmp(stat[i].member, of->member, sizeof of->member))
            return stat + i;
    return NULL;
}

static void put_rates(struct table *table, const struct ctl_reply *now,
                      const struct ctl_reply *before, const char *device, double at, double seconds)
{
    const struct ctl_stat *stat = now->records, *rx;

    for (size_t i = 0; i < now->count; i++) {
        if (!field_is(stat[i].name, "tx_bytes") || !*stat[i].member) continue;
        if (device && !field_is(stat[i].device, device)) continue;
        rx = twin(now, stat + i, "rx_bytes");
        table_row(table);
        table_real(table, "time_s", at);
        table_field(table, "device", stat[i].device);
        table_field(table, "member", stat[i].member);
        table_real(table, "tx_gbps", gbps(stat + i, before, seconds));
        table_real(table, "rx_gbps", rx ? gbps(rx, before, seconds) : 0);
    }
}

static double monotonic(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void sleep_until(double at)
{
    double rest = at - monotonic();
    struct timespec pause;

    if (rest <= 0) return;
    pause.tv_sec = (time_t)rest;
    pause.tv_nsec = (long)((rest - (double)pause.tv_sec) * 1e9);
    nanosleep(&pause, NULL);
}

/* `count` 0: until interrupted. */
static int stream_rates(struct cli *cli, const char *device, uint32_t interval_ms, uint32_t count)
{
    struct ctl_client *client = session_open();
    struct ctl_reply before = {0}, now;
    struct table *table;
    double begin, last, at;
    bool ok;

    if (!client) return CLI_FAILED;
    table = table_new(cli, RATE_COLUMNS, sizeof RATE_COLUMNS / sizeof *RATE_COLUMNS);
    begin = last = monotonic();
    ok = session_call(client, "cannot read counters", CTL_STAT, NULL, 0, sizeof(struct ctl_stat),
                      &before);
    for (uint32_t i = 1; ok && (!count || i <= count); i++) {
        sleep_until(begin + (double)i * interval_ms / 1e3);
        ok = session_call(client, "cannot read counters", CTL_STAT, NULL, 0,
                          sizeof(struct ctl_stat), &now);
        if (!ok) break;
        at = monotonic();
        put_rates(table, &now, &before, device, at - begin, at - last);
        table_stream(table);
        ctl_reply_free(&before);
        before = now;
        last = at;
    }
    ctl_reply_free(&before);
    table_free(table);
    ctl_close(client);
    return ok ? CLI_OK : CLI_FAILED;
}

static int rate(struct cli *cli, int argc, char **argv)
{
    static const char *const KEYS[] = {"interval", "count"};
    uint32_t interval_ms = RATE_INTERVAL_MS, count = 0;
    const char *device = NULL;
    int i = 0;

    if (argc && words_find(argv[0], KEYS, 2) < 0) device = argv[i++];
    for (; i < argc; i += 2) {
        int key = words_find(argv[i], KEYS, 2);

        if (key < 0)
            return misused("'%s' is unknown to 'statistic rate': interval and count are", argv[i]);
        if (i + 1 == argc || !words_number(argv[i + 1], RATE_MAX_MS, key ? &count : &interval_ms) ||
            (!key && interval_ms < 1))
            return misused("%s wants a number from 1 to %d after it", KEYS[key], RATE_MAX_MS);
    }
    return stream_rates(cli, device, interval_ms, count);
}

int statistic_main(struct cli *cli, int argc, char **argv)
{
    static const struct command COMMANDS[] = {
        {"show", "[DEV]", "counters of each device and member; text leaves zeros out", show},
        {"rate", "[DEV] [interval MS] [count N]",
         "gigabits per second of each member, line by line", rate},
    };

    return words_run(cli, "statistic", COMMANDS, sizeof COMMANDS / sizeof *COMMANDS, argc, argv);
}
