/* Regions of a dma-buf, or of another descriptor that can be mapped (a memfd, exported device
 * memory). The adapter is the processor, so it maps the buffer as the processor would; the exporter
 * must allow that, and keep the buffer coherent (DMA_BUF_IOCTL_SYNC is not called per access). */
#include "verbs/function.h"
#include "verbs/mr.h"
#include "verbs/real.h"
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define DMABUF_ACCESS                                                                              \
    ((unsigned)(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |        \
                IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_OPTIONAL_RANGE))

/* A dma-buf tells its size by lseek, and has no position that this could move; a file's position is
 * the program's. Negative: it has no size. */
static off_t size_of(int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0) return -1;
    return S_ISREG(st.st_mode) ? st.st_size : lseek(fd, 0, SEEK_END);
}

/* 0, or an errno: the buffer has [offset, offset + length), as beyond its end is SIGBUS. */
static int check_range(int fd, uint64_t offset, size_t length)
{
    uint64_t end;
    off_t size = size_of(fd);
    if (size < 0) return errno == EBADF ? EBADF : EINVAL;
    if (length == 0 || __builtin_add_overflow(offset, length, &end)) return EINVAL;
    return end <= (uint64_t)size ? 0 : EINVAL;
}

struct ibv_mr *dmabuf_register(struct ibv_pd *pd, uint64_t offset, size_t length, uint64_t iova,
                               int fd, unsigned access)
{
    const uint64_t in_page = (uint64_t)sysconf(_SC_PAGESIZE) - 1;
    int prot = PROT_READ | (mr_writes(access) ? PROT_WRITE : 0);

    if ((access & ~DMABUF_ACCESS) || ((offset ^ iova) & in_page)) return fail_with(EINVAL);
    int rc = check_range(fd, offset, length);
    if (rc) return fail_with(rc);
    size_t mapped = length + (size_t)(offset & in_page);
    uint8_t *at = mmap(NULL, mapped, prot, MAP_SHARED, fd, (off_t)(offset & ~in_page));
    if (at == MAP_FAILED) return fail_with(errno == ENOMEM ? ENOMEM : EOPNOTSUPP);
    struct rb_mr *mr = mr_register(pd, &(struct mr_memory){.addr = at + (offset & in_page),
                                                           .length = length,
                                                           .iova = iova,
                                                           .access = access,
                                                           .kind = MR_DMABUF});
    if (!mr) {
        rc = errno;
        munmap(at, mapped);
        return fail_with(rc);
    }
    mr->mapping = at;
    mr->mapping_len = mapped;
    mr->ibv.addr = (void *)(uintptr_t)offset; /* as libibverbs has it */
    return &mr->ibv;
}

EXPORT struct ibv_mr *ibv_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t offset, size_t length,
                                        uint64_t iova, int fd, int access)
{
    if (!context_is_ours(pd->context))
        return REAL(ibv_reg_dmabuf_mr, "IBVERBS_1.12")(pd, offset, length, iova, fd, access);
    return dmabuf_register(pd, offset, length, iova, fd, (unsigned)access);
}
