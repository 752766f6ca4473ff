/* Makes a fuzzer's first inputs: fuzz-seeds FUZZER DIRECTORY. Most are of the golden traces: a
 * trace becomes an input, or each packet does, in the form in which that fuzzer reads its bytes. */
#include "ctl/proto.h"
#include "wire/frame.h"
#include "wire/mad.h"
#include "wire/roce.h"
#include <dirent.h>
#include <linux/netlink.h>
#include <rdma/rdma_netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define INPUT_MAX 4096

struct input {
    uint8_t bytes[INPUT_MAX];
    size_t len;
};

static const char *directory;
static unsigned written;

static void put(struct input *in, const void *bytes, size_t len)
{
    if (in->len + len > sizeof in->bytes) return;
    memcpy(in->bytes + in->len, bytes, len);
    in->len += len;
}

static void put_byte(struct input *in, unsigned byte) { put(in, &(uint8_t){(uint8_t)byte}, 1); }

static void write_out(struct input *in)
{
    char path[512];
    if (!in->len) return;
    snprintf(path, sizeof path, "%s/seed-%04u", directory, written++);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(in->bytes, 1, in->len, f) != in->len || fclose(f) != 0) {
        perror(path);
        exit(1);
    }
    in->len = 0;
}

static bool is_mad(const struct frame *f)
{
    return f->roce_len == ROCE_BTH_LEN + 8 + MAD_LEN && f->roce[0] == 0x64 && f->roce[7] == 1;
}

/* ---- one function for each form --------------------------------------------------------- */

static void as_roce(struct input *in, const struct frame *f)
{
    put(in, f->roce, f->roce_len);
    write_out(in);
}

static void as_mad(struct input *in, const struct frame *f)
{
    if (!is_mad(f)) return;
    put(in, f->roce + ROCE_BTH_LEN + 8, MAD_LEN);
    write_out(in);
}

/* fuzz_cm.c: each end listens, the MAD comes whole, as `given` takes it, and is answered. */
static void as_connections(struct input *in, const struct frame *f)
{
    static const uint8_t listens[] = {0x01, 0, 0xf3, 0, 0x81, 0, 0xf3, 0};
    if (!is_mad(f)) return;
    if (!in->len) put(in, listens, sizeof listens);
    put_byte(in, 4 | (f->ip.src.raw[15] & 1) << 7);
    put_byte(in, 0);
    put_byte(in, 1);
    put(in, f->roce + ROCE_BTH_LEN + 8, MAD_LEN);
    put(in, "\x05\0\0\0\0\0\x02\x02", 8);
}

/* fuzz_hca.c, `given`: the operation, the length, which queue pair, that its number is put in; then
 * both sides speak. */
static void as_packets(struct input *in, const struct frame *f)
{
    static const uint8_t queue_pair[] = {[0] = 0, [1] = 4, [3] = 6};
    size_t len = f->roce_len < 1100 ? f->roce_len : 1100;
    put_byte(in, 7 | (f->ip.src.raw[15] & 1) << 7);
    put_byte(in, (unsigned)len & 0xff);
    put_byte(in, (unsigned)len >> 8);
    put_byte(in, queue_pair[f->roce[0] >> 5 & 3]);
    put_byte(in, 1);
    put(in, f->roce, len);
    put_byte(in, 13);
    for (int i = 0; i < 16; i++) put_byte(in, 15);
    if (in->len > INPUT_MAX - 1400) write_out(in);
}

/* ---- inputs of no trace ----------------------------------------------------------------- */

/* fuzz_cm.c: whole lives of a connection and of a resolution, told of both ends. Operations of the
 * second end have the top bit. */
static void lives(struct input *in)
{
    static const uint8_t connection[] = {
        0x81, 0,    0x33, 0,    0x00, 0,    0, 0x11, 3,    0x02,       /* listen; connect: REQ */
        0x85, 0,    8,    0,    0x85, 0,    0, 0,    0x12, 3,    0x02, /* taken, accepted: REP */
        0x05, 0,    1,    0,    0x02, 0x05, 0, 7,    0,                /* ready: RTU */
        0x05, 0,    4,    0,    0x02, 0x85, 0, 4,    0,    0x02,       /* DREQ, DREP */
        0x07, 0x80, 0x07, 0x80, 0x05, 0,    5, 0};
    static const uint8_t crossing[] = {
        0x81, 0, 0x33, 0, 0x00, 0, 0,    0x11, 3, 0x02, 0x85, 0, 0, 0, 0x12, 3,    0x02, 0x05, 0,
        1,    0, 0x85, 0, 2,    0, 0x05, 0,    4, 0,    0x85, 0, 4, 0, 0x02, 0x02, 0x02, 0x02};
    static const uint8_t refusal[] = {0x81, 0, 0x33, 0,  0x00, 0,    0,    0x11, 3, 0x02,
                                      0x85, 0, 3,    28, 5,    0x02, 0x85, 0,    5, 0};
    static const uint8_t resolution[] = {0x81, 0, 0x33, 0, 0x00, 1,    0, 9, 0x02, 0x85,
                                         0,    6, 0,    4, 0x02, 0x05, 0, 5, 0};
    put(in, connection, sizeof connection);
    write_out(in);
    put(in, crossing, sizeof crossing);
    write_out(in);
    put(in, refusal, sizeof refusal);
    write_out(in);
    put(in, resolution, sizeof resolution);
    write_out(in);
}

/* fuzz_ucma.c: program, command, how, place; then the address, and which of its ids. Programs 0 and
 * 64 are two: the second lets the loop run. */
static void connections(struct input *in)
{
    static const uint8_t talk[] = {
        0,   0,  0, 0, 0,                                /* create, bind, listen */
        0,   2,  1, 0, 0, 0,   0,   0,  7, 0, 0, 0,   0, /* */
        64,  0,  0, 0, 0, 64,  3,   1,  0, 0, 0, 0,      /* create, resolve the address */
        64,  12, 0, 0, 0, 64,  4,   0,  0, 0, 0,         /* its event; the route */
        64,  12, 0, 0, 0, 64,  6,   2,  0, 0, 0,         /* its event; connect */
        192, 12, 0, 0, 0, 192, 11,  0,  0, 0, 1, 192, 8,  2, 0, 0, 1, /* request; accept */
        64,  12, 0, 0, 0, 64,  8,   0,  0, 0, 0,                      /* response; accept */
        192, 12, 0, 0, 0, 192, 10,  0,  0, 0, 1, 64,  12, 0, 0, 0,    /* established; disconnect */
        64,  10, 0, 0, 0, 0,   192, 12, 0, 0, 0, 64,  1,  0, 0, 0, 0};
    static const uint8_t datagrams[] = {
        0,   0,  2, 0, 0, 0,   2,  1,  0, 0, 0, 0,  0,  7,  0, 0, 0, 0, /* a UDP listener */
        64,  0,  2, 0, 0, 64,  3,  1,  0, 0, 0, 0,  64, 12, 0, 0, 0,    /* */
        64,  4,  0, 0, 0, 0,   64, 12, 0, 0, 0, 64, 6,  2,  0, 0, 0,    /* */
        192, 12, 0, 0, 0, 192, 8,  2,  0, 0, 1, 64, 12, 0,  0, 0};
    static const uint8_t group[] = {0, 0,  2, 0, 0, 0, 2, 1, 0,  0, 0, 0, /* bound, UDP */
                                    0, 22, 1, 0, 0, 3, 0, 0, 12, 0, 0, 0,
                                    0, 16, 1, 0, 0, 3, 0, /* joins */
                                    0, 17, 0, 0, 0, 1, 0, 1, 0,  0, 0, 0};
    put(in, talk, sizeof talk);
    write_out(in);
    put(in, datagrams, sizeof datagrams);
    write_out(in);
    put(in, group, sizeof group);
    write_out(in);
}

/* fuzz_hca.c, `post_send`: one request of each kind on each queue pair, well made, and carried. */
static void put_request_of(struct input *in, unsigned qp, unsigned opcode, unsigned flags)
{
    put(in, (uint8_t[]){0, (uint8_t)qp, (uint8_t)opcode, (uint8_t)flags}, 4);
    if (opcode < 11)
        put(in, (uint8_t[]){1, 1, 0, 0, 0, 200, 0}, 7); /* one SGE: region 1, from 0, 200 bytes */
    else
        put_byte(in, 0);
    put(in, (uint8_t[]){1, 8, 0}, 3); /* to region 1, at 8 */
    if (opcode == 8)
        put(in, (uint8_t[]){1, 0, 1, 40}, 4); /* a window, bound to region 0 */
    else
        put(in, (uint8_t[]){0, 1, 1, 1}, 4); /* the peer's key of region 1; operands */
    put_byte(in, qp);
    put(in, (uint8_t[]){13, 0, 0, 0, 0}, 5);
}

static void exchanges(struct input *in)
{
    for (unsigned qp = 0; qp < 10; qp++)
        for (unsigned opcode = 0; opcode < 13; opcode++)
            for (unsigned flags = 2; flags <= 10; flags += 8) {
                for (int times = 0; times < 3; times++) put_request_of(in, qp, opcode, flags);
                write_out(in);
            }
}

/* fuzz_service.c: the type, the length, the body. */
static void put_request(struct input *in, enum ctl_type type, const void *body, size_t len)
{
    put_byte(in, type);
    put_byte(in, (unsigned)len & 0xff);
    put_byte(in, (unsigned)len >> 8);
    if (len) put(in, body, len);
}

static void requests(struct input *in)
{
    struct ctl_name name = {"rb_a"}, bond_name = {"bond0"}, device = {"rb_bond0"};
    struct ctl_bond_conf bond = {.name = "bond0",
                                 .netdev = "lo",
                                 .mode = CTL_MODE_ACTIVE_BACKUP,
                                 .nmembers = 2,
                                 .member = {"a", "b"}};
    for (unsigned type = CTL_HELLO; type <= CTL_GID_LIST; type++) put_request(in, type, NULL, 0);
    put_request(in, CTL_OPEN, &name, sizeof name);
    put_request(in, CTL_FUNCTION_LIST, NULL, 0);
    put_request(in, CTL_BOND_ADD, &bond, sizeof bond);
    put_request(in, CTL_OPEN, &device, sizeof device);
    bond.mask = CTL_BOND_MODE | CTL_BOND_UPDELAY;
    bond.mode = CTL_MODE_BALANCE_XOR;
    put_request(in, CTL_BOND_SET, &bond, sizeof bond);
    put_request(in, CTL_BOND_DEL, &bond_name, sizeof bond_name);
    write_out(in);
}

/* fuzz_ctl.c: a whole message. */
static void messages(struct input *in)
{
    for (unsigned type = CTL_HELLO; type <= CTL_GID_LIST; type++) {
        struct ctl_hdr hdr = {.version = CTL_VERSION, .type = (uint16_t)type, .len = sizeof hdr};
        struct ctl_name name = {"rb_a"};
        put(in, &hdr, sizeof hdr);
        write_out(in);
        hdr.len += sizeof name;
        hdr.count = 1;
        put(in, &hdr, sizeof hdr);
        put(in, &name, sizeof name);
        write_out(in);
    }
}

/* fuzz_nldev.c: a request, of the first device and port, by number and as a dump. */
static void netlink_requests(struct input *in)
{
    static const struct {
        struct nlattr head;
        uint32_t value;
    } attrs[] = {{{8, RDMA_NLDEV_ATTR_DEV_INDEX}, 0x10000},
                 {{8, RDMA_NLDEV_ATTR_PORT_INDEX}, 1},
                 {{8, RDMA_NLDEV_ATTR_RES_LQPN}, 0x4002},
                 {{8, RDMA_NLDEV_ATTR_STAT_RES}, RDMA_NLDEV_ATTR_RES_QP}};
    for (unsigned op = 1; op < RDMA_NLDEV_NUM_OPS; op++)
        for (unsigned n = 0; n <= sizeof attrs / sizeof *attrs; n++) {
            struct nlmsghdr nlh = {.nlmsg_type = RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, op),
                                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK};
            if (op & 1) nlh.nlmsg_flags |= NLM_F_DUMP;
            put(in, &nlh, sizeof nlh);
            put(in, attrs, n * sizeof *attrs);
            write_out(in);
        }
}

static const struct {
    const char *fuzzer;
    void (*write)(struct input *in);
} scripts[] = {{"hca", exchanges},    {"cm", lives},     {"ucma", connections},
               {"service", requests}, {"ctl", messages}, {"nldev", netlink_requests}};

static const struct form {
    const char *fuzzer;
    void (*add)(struct input *in, const struct frame *f);
} forms[] = {{"roce", as_roce}, {"cm_msg", as_mad}, {"hca", as_packets}, {"cm", as_connections}};

static void read_trace(const struct form *form, const char *path)
{
    static struct pcap p;
    static struct input in;
    struct frame f;
    if (!pcap_open(&p, path)) return;
    while (written < 2000 && pcap_next(&p))
        if (frame_open(&f, p.frame, p.len)) form->add(&in, &f);
    pcap_close(&p);
    write_out(&in);
}

int main(int argc, char **argv)
{
    const char *golden = getenv("RBOND_GOLDEN");
    if (argc != 3 || !golden) return 2;
    directory = argv[2];
    mkdir(directory, 0777);
    static struct input in;
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++)
        if (strcmp(scripts[i].fuzzer, argv[1]) == 0) scripts[i].write(&in);
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (strcmp(forms[i].fuzzer, argv[1]) != 0) continue;
        DIR *dir = opendir(golden);
        if (!dir) return 1;
        for (struct dirent *e; (e = readdir(dir));) {
            char path[512];
            snprintf(path, sizeof path, "%s/%s", golden, e->d_name);
            read_trace(&forms[i], path);
        }
        closedir(dir);
    }
    return 0;
}
