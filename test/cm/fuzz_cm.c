/* Two connection managers under libFuzzer. The input is a run of operations: the user's calls on
 * ids in whatever state they are, messages carried, changed, doubled, lost or made up, and time.
 * What is looked for: a crash, an assertion, a byte outside, a message that does not decode, an
 * engine that never comes to rest, ids that stay. */
#include "base/must.h"
#include "cm/cm.h"
#include "fuzz/bytes.h"
#include <errno.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { IDS = 12, LISTENERS = 4, WIRE = 24 };

struct user_id {
    struct cm_id *id;
    bool request; /* came by REQ or SIDR_REQ and is not answered */
};

struct end {
    struct cm *cm;
    struct gid gid;
    struct user_id id[IDS];
    struct cm_listener *listener[LISTENERS];
};

struct on_wire {
    uint8_t from;
    struct cm_out out;
};

static struct end end[2];
static struct on_wire wire[WIRE];
static uint32_t nwire;
static when_t now;

/* ---- events ----------------------------------------------------------------------------- */

static struct user_id *room(struct end *e)
{
    for (int i = 0; i < IDS; i++)
        if (!e->id[i].id) return &e->id[i];
    return NULL;
}

static void take_events(struct end *e)
{
    struct cm_event event;
    while (cm_next_event(e->cm, &event)) {
        must(event.id && event.owner);
        if (event.type != CM_EVENT_REQ && event.type != CM_EVENT_SIDR_REQ) continue;
        struct user_id *u = room(e);
        if (!u) {
            cm_id_destroy(event.id, now);
            continue;
        }
        *u = (struct user_id){event.id, true};
        cm_id_set_owner(event.id, u);
    }
}

/* ---- messages --------------------------------------------------------------------------- */

static void input(int to, const uint8_t *mad, size_t len, const struct cm_route *route)
{
    uint8_t *exact = malloc(len ? len : 1);
    must(exact);
    if (len) memcpy(exact, mad, len);
    cm_input(end[to].cm, exact, len, route, now);
    free(exact);
}

static void pull(void)
{
    for (int side = 0; side < 2; side++) {
        struct cm_out out;
        while (cm_output(end[side].cm, &out, 1)) {
            struct cm_msg m;
            must(cm_msg_decode(&m, out.mad, sizeof out.mad));
            if (nwire < WIRE) wire[nwire++] = (struct on_wire){(uint8_t)side, out};
        }
    }
}

static void carry(struct bytes *in, uint32_t how)
{
    pull();
    if (!nwire) return;
    uint32_t k = how < 4 ? 0 : pick(in, nwire);
    struct on_wire w = wire[k];
    if (how == 5) w.out.mad[16 + take8(in) % (MAD_LEN - 16)] = take8(in);
    if (how != 6) { /* 6: it stays and comes again */
        memmove(&wire[k], &wire[k + 1], (nwire - k - 1) * sizeof *wire);
        nwire--;
    }
    struct cm_route back = {.local = w.out.route.remote, .remote = w.out.route.local};
    if (how != 7) input(!w.from, w.out.mad, MAD_LEN, &back);
}

/* Whole messages as they come, behind a header that is right; perhaps with the ids that the other
 * end's last message had, which name connections that there are. */
static void given(struct bytes *in, int to)
{
    uint8_t mad[MAD_LEN] = {MAD_BASE_VERSION, CM_CLASS, CM_CLASS_VERSION, MAD_METHOD_SEND};
    struct cm_route route = {.local = end[to].gid, .remote = end[!to].gid};
    uint8_t attr = take8(in), how = take8(in);
    size_t len;
    const uint8_t *run = take_run(in, how & 1 ? MAD_LEN : MAD_DATA_LEN, &len);
    if (how & 1) {
        memcpy(mad, run, len);
    } else {
        mad[17] = (uint8_t)(CM_REQ + attr % 11);
        memcpy(mad + MAD_HDR_LEN, run, len);
    }
    if ((how & 2) && nwire) {
        const uint8_t *like = wire[nwire - 1].out.mad;
        memcpy(mad + MAD_HDR_LEN, like + MAD_HDR_LEN + (how & 4 ? 4 : 0), 4);
        memcpy(mad + MAD_HDR_LEN + 4, like + MAD_HDR_LEN + (how & 4 ? 0 : 4), 4);
    }
    if (how & 8) route.remote.raw[15] ^= 3;
    input(to, mad, how & 16 ? take8(in) : MAD_LEN, &route);
}

/* ---- the user's calls ------------------------------------------------------------------- */

static const uint8_t words[256];

static uint64_t service(struct bytes *in) { return 0x01060000u + pick(in, 3); }

static struct cm_offer offer(struct bytes *in)
{
    uint8_t how = take8(in);
    return (struct cm_offer){.qpn = 1 + (how & 3),
                             .qkey = how,
                             .psn = psn_of(how * 77777u),
                             .responder_resources = how,
                             .initiator_depth = (uint8_t)(how >> 1),
                             .retry_count = how & 7,
                             .rnr_retry_count = how >> 3 & 7,
                             .srq = how & 1,
                             .ca_guid = how,
                             .private_data = words,
                             .private_len = take8(in)};
}

static void connect_to(struct bytes *in, int side)
{
    struct end *e = &end[side];
    struct user_id *u = room(e);
    struct cm_route route = {.local = e->gid, .remote = end[!side].gid};
    uint8_t how = take8(in);
    if (!u) return;
    if (how & 1) {
        (void)!cm_sidr(e->cm, &route, service(in), words, take8(in), u, &u->id, now);
        return;
    }
    struct cm_connect_param p = {.route = route,
                                 .service_id = service(in),
                                 .service = how >> 1 & 3,
                                 .path_mtu = 1 + (how >> 3) % 5,
                                 .ack_timeout = how & 31,
                                 .offer = offer(in)};
    if (p.service == 2) p.service = 0; /* reliable datagrams: nobody can ask for them */
    (void)!cm_connect(e->cm, &p, u, &u->id, now);
}

static void listen_on(struct bytes *in, int side)
{
    struct end *e = &end[side];
    struct cm_listener **l = &e->listener[pick(in, LISTENERS)];
    if (*l) {
        cm_listener_destroy(*l);
        *l = NULL;
        return;
    }
    uint8_t how = take8(in);
    if (cm_listen(e->cm, service(in), (enum cm_scope)(how & 3), &e->gid, how >> 4, l, l, now) != 0)
        *l = NULL;
}

static void let_go(struct user_id *u, uint8_t how)
{
    if (u->request && (how & 3) == 1)
        cm_id_drop(u->id);
    else if (u->request && (how & 3) == 2)
        cm_id_give_back(u->id, now);
    else
        cm_id_destroy(u->id, now);
    *u = (struct user_id){0};
}

static void call(struct bytes *in, int side)
{
    struct user_id *u = &end[side].id[pick(in, IDS)];
    uint8_t what = take8(in), how = take8(in);
    struct cm_qp_params params;
    if (!u->id) return;
    switch (what % 9) {
    case 0: {
        struct cm_offer o = offer(in);
        if (cm_accept(u->id, &o, now) == 0) u->request = false;
        break;
    }
    case 1: (void)!cm_ready(u->id, now); break;
    case 2: (void)!cm_established(u->id, now); break;
    case 3:
        if (cm_reject(u->id, how, words, take8(in), now) == 0) u->request = false;
        break;
    case 4: (void)!cm_disconnect(u->id, now); break;
    case 5: let_go(u, how); break;
    case 6:
        if (cm_sidr_answer(u->id, how & 7, how, how, words, take8(in), now) == 0)
            u->request = false;
        break;
    case 7: (void)!cm_qp_params(u->id, &params); break;
    case 8:
        if (u->request) cm_taken(u->id);
        break;
    }
}

/* ---- time ------------------------------------------------------------------------------- */

static void expire(void)
{
    for (int side = 0; side < 2; side++)
        if (when_due(cm_deadline(end[side].cm), now)) cm_expire(end[side].cm, now);
}

static void pass_time(struct bytes *in, int side)
{
    uint8_t how = take8(in);
    when_t at = cm_deadline(end[side].cm);
    if (!(how & 0x80))
        now = when_add(now, 1ull << how % 40);
    else if (!when_is_never(at) && when_before(now, at))
        now = at;
    expire();
}

/* Everybody lets go; the messages that are left are lost. Then time alone ends it all. */
static void wind_up(void)
{
    for (int side = 0; side < 2; side++) {
        for (int i = 0; i < IDS; i++)
            if (end[side].id[i].id) let_go(&end[side].id[i], 0);
        for (int i = 0; i < LISTENERS; i++)
            if (end[side].listener[i]) cm_listener_destroy(end[side].listener[i]);
    }
    for (int side = 0; side < 2; side++) {
        struct cm_event event;
        for (int rounds = 0; !when_is_never(cm_deadline(end[side].cm)); rounds++) {
            must(rounds < 2000);
            if (when_before(now, cm_deadline(end[side].cm))) now = cm_deadline(end[side].cm);
            cm_expire(end[side].cm, now);
            pull();
            nwire = 0;
        }
        must(!cm_next_event(end[side].cm, &event));
        must(cm_ids(end[side].cm) == 0);
    }
    for (int side = 0; side < 2; side++) cm_free(end[side].cm);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes in = {data, size};
    now = (when_t){SEC_NS};
    nwire = 0;
    for (int side = 0; side < 2; side++) {
        end[side] = (struct end){
            .cm = cm_new(&(struct cm_conf){.seed = 3u + (unsigned)side, .max_ids = 20}),
            .gid = {{[10] = 0xff, [11] = 0xff, 10, 0, 0, (uint8_t)(1 + side)}}};
        must(end[side].cm);
    }
    for (int n = 0; in.left && n < 600; n++) {
        uint8_t op = take8(&in);
        int side = op >> 7;
        switch (op & 7) {
        case 0: connect_to(&in, side); break;
        case 1: listen_on(&in, side); break;
        case 2:
        case 3: carry(&in, op >> 4 & 7); break;
        case 4: given(&in, side); break;
        case 5:
        case 6: call(&in, side); break;
        case 7: pass_time(&in, side); break;
        }
        take_events(&end[side]);
        take_events(&end[!side]);
    }
    wind_up();
    return 0;
}
