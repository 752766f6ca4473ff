/* An MPI job whose every byte is checked: a token goes around the ring, all ranks exchange with
 * all, and a window is put to and added to, with messages from one byte to several megabytes.
 * test/system/mpi runs it. mpi ROUNDS */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST (4 << 20)

static int rank, size;

static unsigned char pattern(int from, int to, size_t i, int round)
{
    return (unsigned char)(from * 31 + to * 17 + (int)i * 7 + round);
}

static void fill(unsigned char *buf, int from, int to, size_t len, int round)
{
    for (size_t i = 0; i < len; i++) buf[i] = pattern(from, to, i, round);
}

static void check(const char *what, const unsigned char *buf, int from, int to, size_t len,
                  int round)
{
    for (size_t i = 0; i < len; i++) {
        if (buf[i] == pattern(from, to, i, round)) continue;
        fprintf(stderr, "rank %d: %s, round %d: byte %zu of %zu from rank %d is wrong\n", rank,
                what, round, i, len, from);
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
}

static void ring(unsigned char *out, unsigned char *in, size_t len, int round)
{
    int next = (rank + 1) % size, before = (rank + size - 1) % size;

    fill(out, rank, next, len, round);
    MPI_Sendrecv(out, (int)len, MPI_BYTE, next, round, in, (int)len, MPI_BYTE, before, round,
                 MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    check("ring", in, before, rank, len, round);
}

static void all_to_all(unsigned char *out, unsigned char *in, size_t len, int round)
{
    for (int to = 0; to < size; to++) fill(out + (size_t)to * len, rank, to, len, round);
    MPI_Alltoall(out, (int)len, MPI_BYTE, in, (int)len, MPI_BYTE, MPI_COMM_WORLD);
    for (int from = 0; from < size; from++)
        check("alltoall", in + (size_t)from * len, from, rank, len, round);
}

/* Everybody adds to everybody's counter, and puts its rank beside it. */
static void one_sided(int rounds)
{
    long *window, one = 1, mine = rank;
    MPI_Win win;

    MPI_Win_allocate((MPI_Aint)((size_t)(size + 1) * sizeof *window), sizeof *window, MPI_INFO_NULL,
                     MPI_COMM_WORLD, &window, &win);
    memset(window, 0, (size_t)(size + 1) * sizeof *window);
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Win_lock_all(0, win);
    for (int i = 0; i < rounds; i++)
        for (int to = 0; to < size; to++)
            MPI_Accumulate(&one, 1, MPI_LONG, to, 0, 1, MPI_LONG, MPI_SUM, win);
    for (int to = 0; to < size; to++) MPI_Put(&mine, 1, MPI_LONG, to, rank + 1, 1, MPI_LONG, win);
    MPI_Win_flush_all(win);
    MPI_Win_unlock_all(win);
    MPI_Barrier(MPI_COMM_WORLD);
    for (int i = 0; i <= size; i++) {
        long want = i == 0 ? (long)rounds * size : i - 1;
        if (window[i] == want) continue;
        fprintf(stderr, "rank %d: window[%d] is %ld, not %ld\n", rank, i, window[i], want);
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    MPI_Win_free(&win);
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 10;
    char host[MPI_MAX_PROCESSOR_NAME];
    int n;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) puts("all have begun");
    fflush(stdout);
    unsigned char *out = malloc(MOST), *in = malloc(MOST);
    for (int round = 0; round < rounds; round++)
        for (size_t len = 1; len * (size_t)size <= MOST; len *= 8) {
            ring(out, in, len, round);
            all_to_all(out, in, len, round);
        }
    one_sided(rounds);
    MPI_Get_processor_name(host, &n);
    printf("rank %d of %d on %s: %d rounds\n", rank, size, host, rounds);
    MPI_Finalize();
    free(out);
    free(in);
    return 0;
}
