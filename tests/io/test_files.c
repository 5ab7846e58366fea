/* Files over sockets: pysock_makefile() and all that is called on what it returns, on plain and TLS
   sockets of every family that can have them. */
#include "io/files.h"

/* ---- pairs of every kind ---- */

static const ptrdiff_t bufferings[] = {-1, 0, 1, 2, 7, 8192, 1 << 20};
#define BUFFERINGS (sizeof bufferings / sizeof bufferings[0])

static void *send_thread(void *arg) {
    void **both = arg;
    t_say(both[0], both[1]);
    return NULL;
}

/* ---- every way to read, under one name ---- */

enum { READ, READINTO, READALL, READLINE, READLINES, READ1, OPS };

static const char *const op_names[OPS] = {"read",     "readinto",  "readall",
                                          "readline", "readlines", "read1"};

typedef struct job {
    pysock_file *f;
    int op;
    size_t want; /* of read, readinto and read1 */
    char data[256];
    ptrdiff_t result; /* bytes, or -1 */
    int code;
    pysock_error_kind kind;
    int done; /* atomic */
} job;

static ptrdiff_t run_readall(job *j) {
    pysock_buf *b = pysock_file_readall(j->f);
    ptrdiff_t n;
    if (!b)
        return -1;
    n = (ptrdiff_t)pysock_buf_size(b);
    T_CHECK((size_t)n <= sizeof j->data);
    if (n)
        memcpy(j->data, pysock_buf_data(b), (size_t)n);
    pysock_buf_release(b);
    return n;
}

static ptrdiff_t run_readlines(job *j) {
    pysock_buf **lines = NULL;
    ptrdiff_t count = pysock_file_readlines(j->f, 0, &lines), n = 0;
    if (count < 0)
        return -1;
    for (ptrdiff_t i = 0; i < count; i++) {
        size_t size = pysock_buf_size(lines[i]);
        T_CHECK(size > 0 && (size_t)n + size <= sizeof j->data);
        memcpy(j->data + n, pysock_buf_data(lines[i]), size);
        n += (ptrdiff_t)size;
    }
    pysock_file_freelines(lines, (size_t)count);
    return n;
}

static ptrdiff_t run_op(job *j) {
    errno = 0;
    switch (j->op) {
    case READ: j->result = pysock_file_read(j->f, j->data, j->want); break;
    case READINTO: j->result = pysock_file_readinto(j->f, j->data, j->want); break;
    case READALL: j->result = run_readall(j); break;
    case READLINE: j->result = pysock_file_readline(j->f, j->data, sizeof j->data); break;
    case READLINES: j->result = run_readlines(j); break;
    default: j->result = pysock_file_read1(j->f, j->data, j->want); break;
    }
    j->code = errno;
    j->kind = pysock_error();
    return j->result;
}

static void *op_thread(void *arg) {
    job *j = arg;
    run_op(j);
    __atomic_store_n(&j->done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static job job_of(pysock_file *f, int op, size_t want) {
    job j;
    memset(&j, 0, sizeof j);
    j.f = f;
    j.op = op;
    j.want = want;
    return j;
}

static void expect_job(const job *j, const char *text) {
    if (j->result != (ptrdiff_t)strlen(text) || memcmp(j->data, text, strlen(text)) != 0)
        T_FAIL("%s gave %ld bytes '%.*s', not '%s' (errno %d)", op_names[j->op], (long)j->result,
               j->result > 0 ? (int)j->result : 0, j->data, text, j->code);
}

/* Reads exactly this text. */
static void file_expect(pysock_file *f, const char *text) {
    job j = job_of(f, READ, strlen(text));
    run_op(&j);
    expect_job(&j, text);
}

static void file_line(pysock_file *f, const char *text) {
    job j = job_of(f, READLINE, 0);
    run_op(&j);
    expect_job(&j, text);
    T_EQ(j.data[strlen(text)], 0);
}

static void file_end(pysock_file *f) {
    char byte;
    T_EQ(pysock_file_read(f, &byte, 1), 0);
}

static void write_text(pysock_file *f, const char *text) {
    T_EQ(pysock_file_write(f, text, strlen(text), NULL), strlen(text));
}

static void close_files(pysock_file *a, pysock_file *b) {
    T_OK(pysock_file_close(a));
    T_OK(pysock_file_close(b));
}

/* ---- modes and arguments ---- */

T_TEST(the_modes_are_pythons, 60) {
    static const char *const modes[] = {"r", "w", "rw", "rb", "wb", "rwb",
                                        "b", "",  "wr", "br", "bwr"};
    static const char *const wrong[] = {"x", "+", "a", "rt", "r+", "U", "rbx", "R", " r", "wx"};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        int writes = strchr(modes[i], 'w') != NULL;
        int reads = !writes || strchr(modes[i], 'r');
        pysock *pair[2];
        pysock_file *f;
        char byte;
        t_pair(pair);
        T_STEP("mode '%s'", modes[i]);
        f = T_OK(pysock_makefile(pair[0], modes[i], -1));
        t_say(pair[1], "x");
        if (reads)
            file_expect(f, "x");
        else
            T_FAILS(pysock_file_read(f, &byte, 1), PYSOCK_OS_ERROR, EBADF);
        if (writes) {
            write_text(f, "y");
            T_OK(pysock_file_flush(f));
            t_expect(pair[1], "y");
        } else {
            T_FAILS(pysock_file_write(f, "y", 1, NULL), PYSOCK_OS_ERROR, EBADF);
        }
        T_OK(pysock_file_close(f));
        t_close_pair(pair);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        pysock *pair[2];
        t_pair(pair);
        T_STEP("mode '%s'", wrong[i]);
        T_FAILS(pysock_makefile(pair[0], wrong[i], -1), PYSOCK_VALUE_ERROR, EINVAL);
        T_FAILS(pysock_makefile(pair[0], wrong[i], 0), PYSOCK_VALUE_ERROR, EINVAL);
        T_STEP("a file that was not made keeps nothing open");
        T_OK(pysock_close(pair[0]));
        T_FAILS(pysock_fileno(pair[0]), PYSOCK_OS_ERROR, EBADF);
        T_OK(pysock_close(pair[1]));
    }
}

T_TEST(a_file_does_only_what_its_mode_allows, 60) {
    pysock *pair[2];
    for (size_t b = 0; b < BUFFERINGS; b++) {
        pysock_file *reader, *writer;
        pysock_buf **lines = NULL;
        char buf[8];
        size_t taken = 99;
        t_pair(pair);
        T_STEP("buffering %td", bufferings[b]);
        reader = T_OK(pysock_makefile(pair[0], "rb", bufferings[b]));
        writer = T_OK(pysock_makefile(pair[0], "wb", bufferings[b]));
        t_say(pair[1], "line\n");
        T_FAILS(pysock_file_read(writer, buf, 4), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_file_readinto(writer, buf, 4), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_file_read1(writer, buf, 4), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_file_readall(writer), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_file_readline(writer, buf, sizeof buf), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_file_readlines(writer, 0, &lines), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_file_write(reader, "x", 1, &taken), PYSOCK_OS_ERROR, EBADF);
        T_EQ(taken, 0);
        T_STEP("flushing a file that is only read is nothing, as in Python");
        T_EQ(pysock_file_flush(reader), 0);
        file_line(reader, "line\n");
        write_text(writer, "back");
        T_OK(pysock_file_flush(writer));
        t_expect(pair[1], "back");
        close_files(reader, writer);
        t_close_pair(pair);
    }
}

T_TEST(wrong_arguments_are_refused, 30) {
    pysock *pair[2];
    pysock_file *f;
    pysock_buf **lines = NULL;
    char buf[8];
    t_pair(pair);
    T_FAILS(pysock_makefile(pair[0], NULL, -1), PYSOCK_VALUE_ERROR, EINVAL);
    if (SIZE_MAX > UINT32_MAX) { /* else the system may have it */
        T_FAILS(pysock_makefile(pair[0], "rb", PTRDIFF_MAX), T_ANY, T_ANY);
        T_FAILS(pysock_makefile(pair[0], "rwb", PTRDIFF_MAX / 2 + 1), T_ANY, T_ANY);
    }
    T_STEP("NULL for a file");
    T_FAILS(pysock_file_read(NULL, buf, 1), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_file_readinto(NULL, buf, 1), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_file_read1(NULL, buf, 1), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_file_readall(NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_file_readline(NULL, buf, sizeof buf), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_file_readlines(NULL, 0, &lines), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_file_write(NULL, "x", 1, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_file_flush(NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_EQ(pysock_file_close(NULL), 0);
    pysock_file_freelines(NULL, 0);
    T_STEP("NULL and sizes that cannot be");
    f = T_OK(pysock_makefile(pair[0], "rwb", -1));
    t_say(pair[1], "data\n");
    T_FAILS(pysock_file_read(f, NULL, 1), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_file_readinto(f, NULL, 1), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_file_read1(f, NULL, 1), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_file_readline(f, NULL, 8), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_file_readline(f, buf, 0), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_file_readline(f, buf, 1), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_file_readlines(f, 0, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_file_write(f, NULL, 1, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_file_read(f, buf, SIZE_MAX), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_file_readinto(f, buf, SIZE_MAX), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_file_read1(f, buf, SIZE_MAX), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_file_write(f, buf, SIZE_MAX, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_STEP("nothing at all is fine");
    T_EQ(pysock_file_read(f, buf, 0), 0);
    T_EQ(pysock_file_read(f, NULL, 0), 0);
    T_EQ(pysock_file_readinto(f, NULL, 0), 0);
    T_EQ(pysock_file_read1(f, NULL, 0), 0);
    T_EQ(pysock_file_write(f, NULL, 0, NULL), 0);
    T_EQ(pysock_file_flush(f), 0);
    file_line(f, "data\n");
    T_OK(pysock_file_close(f));
    t_close_pair(pair);
    T_FAILS(pysock_makefile(pair[0], "rb", -1), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_makefile(pair[0], "rb", 0), PYSOCK_OS_ERROR, EBADF);
}

T_TEST(a_file_of_an_unconnected_socket_tells_so, 30) {
    pysock *s;
    pysock_file *f;
    char byte;
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    f = T_OK(pysock_makefile(s, "rb", -1));
    T_FAILS(pysock_file_read(f, &byte, 1), PYSOCK_OS_ERROR, ENOTCONN);
    T_OK(pysock_file_close(f));
    T_OK(pysock_close(s));
}

/* ---- reading ---- */

T_TEST(reads_give_what_was_sent_and_then_the_end, 120) {
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t b = 0; b < BUFFERINGS; b++) {
            pysock *pair[2];
            pysock_file *f;
            char buf[64];
            if (!open_pair(kind, pair))
                continue;
            T_STEP("%s, buffering %td", kind_names[kind], bufferings[b]);
            f = T_OK(pysock_makefile(pair[0], "rb", bufferings[b]));
            t_say(pair[1], "Michael Gilfix was here\r\n");
            T_OK(pysock_shutdown(pair[1], SHUT_WR));
            file_expect(f, "Michael ");
            T_EQ(pysock_file_readinto(f, buf, 7), 7);
            T_CHECK(memcmp(buf, "Gilfix ", 7) == 0);
            for (const char *text = "was here"; *text; text++) {
                T_EQ(pysock_file_read(f, buf, 1), 1);
                T_EQ(buf[0], *text);
            }
            T_EQ(pysock_file_read(f, buf, sizeof buf), 2);
            T_CHECK(memcmp(buf, "\r\n", 2) == 0);
            for (int i = 0; i < 2; i++) {
                job all = job_of(f, READALL, 0), lines = job_of(f, READLINES, 0);
                T_EQ(pysock_file_read(f, buf, sizeof buf), 0);
                T_EQ(pysock_file_readinto(f, buf, sizeof buf), 0);
                T_EQ(pysock_file_read1(f, buf, sizeof buf), 0);
                T_EQ(pysock_file_readline(f, buf, sizeof buf), 0);
                T_EQ(buf[0], 0);
                T_EQ(run_op(&all), 0);
                T_EQ(run_op(&lines), 0);
            }
            T_OK(pysock_file_close(f));
            t_close_pair(pair);
        }
}

/* A read sleeps until it has all that was asked for; unbuffered it is one recv. */
T_TEST(a_read_waits_for_all_of_it_unless_it_is_unbuffered, 120) {
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t b = 0; b < BUFFERINGS; b++)
            for (int op = READ; op <= READINTO; op++) {
                pysock *pair[2];
                pysock_file *f;
                t_thread t;
                job j;
                if (!open_pair(kind, pair))
                    continue;
                T_STEP("%s, buffering %td, %s", kind_names[kind], bufferings[b], op_names[op]);
                f = T_OK(pysock_makefile(pair[0], "rb", bufferings[b]));
                j = job_of(f, op, 10);
                t_spawn(&t, op_thread, &j);
                t_wait_asleep(&t);
                t_say(pair[1], "abc");
                if (bufferings[b]) {
                    t_wait_asleep(&t);
                    T_EQ(__atomic_load_n(&j.done, __ATOMIC_ACQUIRE), 0);
                    t_say(pair[1], "defg");
                    t_wait_asleep(&t);
                    t_say(pair[1], "hijklm");
                }
                t_join(&t);
                expect_job(&j, bufferings[b] ? "abcdefghij" : "abc");
                if (bufferings[b])
                    file_expect(f, "klm");
                T_OK(pysock_file_close(f));
                t_close_pair(pair);
            }
}

T_TEST(read1_gives_what_there_is, 60) {
    static const ptrdiff_t sizes[] = {-1, 0, 7, 8192};
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t b = 0; b < sizeof sizes / sizeof sizes[0]; b++) {
            pysock *pair[2];
            pysock_file *f;
            t_thread t;
            job j;
            if (!open_pair(kind, pair))
                continue;
            T_STEP("%s, buffering %td", kind_names[kind], sizes[b]);
            f = T_OK(pysock_makefile(pair[0], "rb", sizes[b]));
            t_say(pair[1], "abc");
            j = job_of(f, READ1, 100);
            run_op(&j);
            expect_job(&j, "abc");
            t_say(pair[1], "defg");
            file_expect(f, "d");
            j.want = 1;
            run_op(&j);
            expect_job(&j, "e");
            j.want = 100;
            run_op(&j);
            expect_job(&j, "fg");
            T_STEP("with nothing there it waits");
            t_spawn(&t, op_thread, &j);
            t_wait_asleep(&t);
            t_say(pair[1], "h");
            t_join(&t);
            expect_job(&j, "h");
            T_OK(pysock_file_close(f));
            t_close_pair(pair);
        }
}

/* The text is larger than some of the buffers, and the buffer of a read larger than others. */
T_TEST(readall_gives_everything_up_to_the_end, 120) {
    enum { SIZE = 50021 };
    static unsigned char sent[SIZE];
    t_fill(sent, SIZE, 0, 5);
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t b = 0; b < BUFFERINGS; b++) {
            pysock *pair[2];
            pysock_file *f;
            pysock_buf *all;
            char first[3];
            if (!open_pair(kind, pair))
                continue;
            T_STEP("%s, buffering %td", kind_names[kind], bufferings[b]);
            f = T_OK(pysock_makefile(pair[0], "rb", bufferings[b]));
            T_OK(pysock_sendall(pair[1], sent, SIZE, 0));
            T_OK(pysock_shutdown(pair[1], SHUT_WR));
            T_EQ(pysock_file_read(f, first, 3), 3);
            T_CHECK(memcmp(first, sent, 3) == 0);
            all = T_OK(pysock_file_readall(f));
            T_EQ(pysock_buf_size(all), SIZE - 3);
            t_verify(pysock_buf_data(all), SIZE - 3, 3, 5);
            pysock_buf_release(all);
            T_OK(pysock_file_close(f));
            t_close_pair(pair);
        }
}

/* ---- lines ---- */

T_TEST(lines_come_one_by_one, 120) {
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t b = 0; b < BUFFERINGS; b++)
            for (int newline = 0; newline < 2; newline++) {
                pysock *pair[2];
                pysock_file *f;
                char line[8];
                if (!open_pair(kind, pair))
                    continue;
                T_STEP("%s, buffering %td, the last line %s '\\n'", kind_names[kind], bufferings[b],
                       newline ? "with" : "without");
                f = T_OK(pysock_makefile(pair[0], "rb", bufferings[b]));
                t_say(pair[1], "first\r\nsec");
                t_say(pair[1], newline ? "ond one\n\n\nlast\n" : "ond one\n\n\nlast");
                T_OK(pysock_shutdown(pair[1], SHUT_WR));
                file_line(f, "first\r\n");
                file_line(f, "second one\n");
                file_line(f, "\n");
                file_line(f, "\n");
                file_line(f, newline ? "last\n" : "last");
                for (int i = 0; i < 2; i++) {
                    strcpy(line, "x");
                    T_EQ(pysock_file_readline(f, line, sizeof line), 0);
                    T_EQ(line[0], 0);
                }
                T_OK(pysock_file_close(f));
                t_close_pair(pair);
            }
}

/* Pieces of at most size - 1 bytes, each terminated, up to the end; that they are the text, and
   that each line ends its piece. */
static void lines_in_pieces(pysock_file *f, const char *text, size_t size) {
    char *piece = malloc(size + 1);
    size_t done = 0, all = strlen(text);
    T_CHECK(piece != NULL);
    while (done < all) {
        const char *end = strchr(text + done, '\n');
        size_t line = end ? (size_t)(end - text) + 1 - done : all - done;
        size_t want = line < size - 1 ? line : size - 1;
        memset(piece, 'x', size + 1);
        T_EQ(pysock_file_readline(f, piece, size), want);
        T_CHECK(memcmp(piece, text + done, want) == 0);
        T_EQ(piece[want], 0);
        T_EQ(piece[size], 'x');
        done += want;
    }
    T_EQ(pysock_file_readline(f, piece, size), 0);
    free(piece);
}

T_TEST(a_line_longer_than_the_room_for_it_comes_in_pieces, T_SCALE(120, 240)) {
    enum { LONG = 20000 };
    static const size_t sizes[] = {2, 3, 7, 8, 9, 100, 9000, LONG + 1, LONG + 2, LONG + 100};
    static const ptrdiff_t buffers[] = {-1, 0, 1, 16};
    static char text[LONG + 64];
    memset(text, 'y', LONG);
    strcpy(text + LONG, "\nabcdef\n\nabcdefg\nz\ntail");
    for (size_t k = 0; k < FEW_KINDS; k++)
        for (size_t b = 0; b < sizeof buffers / sizeof buffers[0]; b++)
            for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
                pysock *pair[2];
                pysock_file *f;
                T_CHECK(open_pair(few_kinds[k], pair));
                T_STEP("%s, buffering %td, room for %zu", kind_names[few_kinds[k]], buffers[b],
                       sizes[i]);
                f = T_OK(pysock_makefile(pair[0], "rb", buffers[b]));
                t_say(pair[1], text);
                T_OK(pysock_shutdown(pair[1], SHUT_WR));
                lines_in_pieces(f, text, sizes[i]);
                T_OK(pysock_file_close(f));
                t_close_pair(pair);
            }
}

T_TEST(a_line_may_hold_any_byte, 60) {
    static const ptrdiff_t sizes[] = {-1, 0, 2};
    for (size_t b = 0; b < sizeof sizes / sizeof sizes[0]; b++) {
        pysock *pair[2];
        pysock_file *f;
        char line[16];
        t_pair(pair);
        f = T_OK(pysock_makefile(pair[0], "r", sizes[b]));
        T_OK(pysock_sendall(pair[1], "a\0b\r\xff\n\0\n", 8, 0));
        T_EQ(pysock_file_readline(f, line, sizeof line), 6);
        T_CHECK(memcmp(line, "a\0b\r\xff\n", 7) == 0);
        T_EQ(pysock_file_readline(f, line, sizeof line), 2);
        T_CHECK(memcmp(line, "\0\n", 3) == 0);
        T_OK(pysock_file_close(f));
        t_close_pair(pair);
    }
}

/* Python's reason for unbuffered files: what follows a line is left in the socket. */
T_TEST(an_unbuffered_file_takes_no_more_than_its_line, 60) {
    for (int kind = 0; kind < KINDS; kind++) {
        pysock *pair[2];
        pysock_file *f;
        if (!open_pair(kind, pair))
            continue;
        t_say(pair[1], "A. line\nB. line\nC. line\nthe rest");
        f = T_OK(pysock_makefile(pair[0], "rb", 0));
        file_line(f, "A. line\n");
        T_OK(pysock_file_close(f));
        f = T_OK(pysock_makefile(pair[0], "rb", 0));
        file_line(f, "B. line\n");
        t_expect(pair[0], "C. line\n");
        file_expect(f, "the ");
        t_expect(pair[0], "rest");
        T_OK(pysock_file_close(f));
        t_close_pair(pair);
    }
}

T_TEST(readlines_stops_after_the_hint, 60) {
    static const struct {
        ptrdiff_t hint, lines;
    } cases[] = {{-1, 5}, {0, 5}, {1, 1},  {3, 1},    {4, 2},
                 {5, 2},  {9, 3}, {15, 4}, {1000, 5}, {PTRDIFF_MAX, 5}};
    static const ptrdiff_t sizes[] = {-1, 0, 2};
    for (size_t b = 0; b < sizeof sizes / sizeof sizes[0]; b++)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            pysock *pair[2];
            pysock_file *f;
            pysock_buf **lines = NULL;
            job rest;
            t_pair(pair);
            T_STEP("buffering %td, hint %td", sizes[b], cases[i].hint);
            f = T_OK(pysock_makefile(pair[0], "rb", sizes[b]));
            t_say(pair[1], "abc\nabc\nabc\nabc\nabc");
            T_OK(pysock_shutdown(pair[1], SHUT_WR));
            T_EQ(pysock_file_readlines(f, cases[i].hint, &lines), cases[i].lines);
            for (ptrdiff_t n = 0; n < cases[i].lines; n++) {
                size_t want = n < 4 ? 4 : 3;
                T_EQ(pysock_buf_size(lines[n]), want);
                T_CHECK(memcmp(pysock_buf_data(lines[n]), "abc\n", want) == 0);
            }
            pysock_file_freelines(lines, (size_t)cases[i].lines);
            T_STEP("what follows is still there");
            rest = job_of(f, READALL, 0);
            T_EQ(run_op(&rest), cases[i].lines == 5 ? 0 : 19 - 4 * cases[i].lines);
            T_STEP("and at the end there is none");
            lines = NULL;
            T_EQ(pysock_file_readlines(f, cases[i].hint, &lines), 0);
            pysock_file_freelines(lines, 0);
            T_OK(pysock_file_close(f));
            t_close_pair(pair);
        }
}

/* ---- what fails, and what it may lose: nothing ---- */

/* Operations that need more than the first half of what is sent. */
static int op_waits(int op, ptrdiff_t buffering) {
    return op < READ1 && (buffering != 0 || op > READINTO);
}

/* EAGAIN, as often as it is asked; then the whole. */
T_TEST(a_read_without_blocking_can_be_repeated, 120) {
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t b = 0; b < BUFFERINGS; b++)
            for (int op = READ; op < READ1; op++) {
                pysock *pair[2];
                pysock_file *f;
                job j;
                if (!op_waits(op, bufferings[b]) || !open_pair(kind, pair))
                    continue;
                T_STEP("%s, buffering %td, %s", kind_names[kind], bufferings[b], op_names[op]);
                f = T_OK(pysock_makefile(pair[0], "rb", bufferings[b]));
                T_OK(pysock_setblocking(pair[0], 0));
                j = job_of(f, op, 7);
                T_FAILS(run_op(&j), PYSOCK_OS_ERROR, EAGAIN);
                t_say(pair[1], "abc");
                T_EQ(t_readable(pair[0], PYSOCK_NO_TIMEOUT), 1);
                for (int i = 0; i < 3; i++)
                    T_FAILS(run_op(&j), PYSOCK_OS_ERROR, EAGAIN);
                t_say(pair[1], "def\n");
                T_OK(pysock_shutdown(pair[1], SHUT_WR));
                while (run_op(&j) < 0) {
                    T_EQ(j.code, EAGAIN);
                    T_EQ(t_readable(pair[0], PYSOCK_NO_TIMEOUT), 1);
                }
                expect_job(&j, "abcdef\n");
                T_OK(pysock_file_close(f));
                t_close_pair(pair);
            }
}

/* One operation begins, another one takes what it had got. */
T_TEST(what_one_read_had_got_another_one_can_have, 120) {
    for (size_t k = 0; k < FEW_KINDS; k++)
        for (size_t b = 0; b < BUFFERINGS; b++)
            for (int op = READ; op < READ1; op++)
                for (int then = READ; then < OPS; then++) {
                    pysock *pair[2];
                    pysock_file *f;
                    job j, next;
                    if (!op_waits(op, bufferings[b]))
                        continue;
                    T_CHECK(open_pair(few_kinds[k], pair));
                    T_STEP("%s, buffering %td, %s then %s", kind_names[few_kinds[k]], bufferings[b],
                           op_names[op], op_names[then]);
                    f = T_OK(pysock_makefile(pair[0], "rb", bufferings[b]));
                    T_OK(pysock_setblocking(pair[0], 0));
                    t_say(pair[1], "abcd");
                    T_EQ(t_readable(pair[0], PYSOCK_NO_TIMEOUT), 1);
                    j = job_of(f, op, 7);
                    T_FAILS(run_op(&j), PYSOCK_OS_ERROR, EAGAIN);
                    file_expect(f, "a");
                    T_OK(pysock_shutdown(pair[1], SHUT_WR));
                    T_OK(pysock_setblocking(pair[0], 1));
                    next = job_of(f, then, 3);
                    run_op(&next);
                    expect_job(&next, "bcd");
                    file_end(f);
                    T_OK(pysock_file_close(f));
                    t_close_pair(pair);
                }
}

T_TEST(an_interrupted_read_can_be_repeated, 120) {
    static const double timeouts[] = {PYSOCK_NO_TIMEOUT, 60};
    static const ptrdiff_t sizes[] = {-1, 0, 2};
    let_signals_interrupt();
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t b = 0; b < sizeof sizes / sizeof sizes[0]; b++)
            for (int op = READ; op < READ1; op++)
                for (int timed = 0; timed < 2; timed++) {
                    pysock *pair[2];
                    pysock_file *f;
                    t_thread t;
                    job j;
                    if (!op_waits(op, sizes[b]) || !open_pair(kind, pair))
                        continue;
                    T_STEP("%s, buffering %td, %s, timeout %g", kind_names[kind], sizes[b],
                           op_names[op], timeouts[timed]);
                    f = T_OK(pysock_makefile(pair[0], "rb", sizes[b]));
                    T_OK(pysock_settimeout(pair[0], timeouts[timed]));
                    t_say(pair[1], "abc");
                    j = job_of(f, op, 7);
                    t_spawn(&t, op_thread, &j);
                    t_wait_asleep(&t);
                    interrupt_until(&t, &j.done);
                    t_join(&t);
                    T_EQ(j.result, -1);
                    T_EQ(j.kind, PYSOCK_OS_ERROR);
                    T_EQ(j.code, EINTR);
                    t_say(pair[1], "def\n");
                    T_OK(pysock_shutdown(pair[1], SHUT_WR));
                    run_op(&j);
                    expect_job(&j, "abcdef\n");
                    T_OK(pysock_file_close(f));
                    t_close_pair(pair);
                }
    pysock_set_interrupt_hook(NULL, NULL);
}

#define FAILS_AS_TIMED_OUT(call)                                                                   \
    do {                                                                                           \
        T_FAILS(call, PYSOCK_OS_ERROR, T_ANY);                                                     \
        T_CHECK(strstr(pysock_error_message(), "cannot read from timed out object") != NULL);      \
    } while (0)

/* Python's rule: where a read has timed out, nobody knows where in the stream one is. */
T_TEST(after_a_timeout_a_file_gives_what_it_has_and_no_more, 120) {
    static const ptrdiff_t sizes[] = {-1, 0, 2};
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t b = 0; b < sizeof sizes / sizeof sizes[0]; b++)
            for (int op = READ; op < READ1; op++) {
                pysock *pair[2];
                pysock_file *f, *other;
                pysock_buf **lines = NULL;
                char line[16];
                double start;
                job j;
                if (!op_waits(op, sizes[b]) || !open_pair(kind, pair))
                    continue;
                T_STEP("%s, buffering %td, %s", kind_names[kind], sizes[b], op_names[op]);
                f = T_OK(pysock_makefile(pair[0], "rb", sizes[b]));
                T_OK(pysock_settimeout(pair[0], 0.03));
                t_say(pair[1], "abc");
                T_EQ(t_readable(pair[0], PYSOCK_NO_TIMEOUT), 1);
                j = job_of(f, op, 7);
                start = t_now();
                T_FAILS(run_op(&j), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
                T_CHECK(t_now() - start >= 0.029);
                for (int i = 0; i < 2; i++)
                    FAILS_AS_TIMED_OUT(run_op(&j));
                T_STEP("what had come");
                file_expect(f, "ab");
                file_expect(f, "c");
                T_STEP("what comes later is not for this file");
                t_say(pair[1], "x\n");
                T_EQ(t_readable(pair[0], PYSOCK_NO_TIMEOUT), 1);
                T_OK(pysock_settimeout(pair[0], PYSOCK_NO_TIMEOUT));
                FAILS_AS_TIMED_OUT(pysock_file_read(f, line, 1));
                FAILS_AS_TIMED_OUT(pysock_file_readinto(f, line, 1));
                FAILS_AS_TIMED_OUT(pysock_file_read1(f, line, 1));
                FAILS_AS_TIMED_OUT(pysock_file_readline(f, line, sizeof line));
                FAILS_AS_TIMED_OUT(pysock_file_readall(f));
                FAILS_AS_TIMED_OUT(pysock_file_readlines(f, 0, &lines));
                T_STEP("but for another one of the socket");
                other = T_OK(pysock_makefile(pair[0], "rb", sizes[b]));
                file_line(other, "x\n");
                close_files(f, other);
                t_close_pair(pair);
            }
}

T_TEST(a_read_with_nothing_there_times_out_too, 60) {
    for (size_t k = 0; k < FEW_KINDS; k++)
        for (size_t b = 0; b < BUFFERINGS; b++)
            for (int op = READ; op < OPS; op++) {
                pysock *pair[2];
                pysock_file *f;
                job j;
                T_CHECK(open_pair(few_kinds[k], pair));
                T_STEP("%s, buffering %td, %s", kind_names[few_kinds[k]], bufferings[b],
                       op_names[op]);
                f = T_OK(pysock_makefile(pair[0], "rwb", bufferings[b]));
                T_OK(pysock_settimeout(pair[0], 0.01));
                j = job_of(f, op, 7);
                T_FAILS(run_op(&j), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
                FAILS_AS_TIMED_OUT(run_op(&j));
                T_STEP("writing goes on");
                write_text(f, "still");
                T_OK(pysock_file_flush(f));
                t_expect(pair[1], "still");
                T_OK(pysock_file_close(f));
                t_close_pair(pair);
            }
}

T_TEST(a_timed_file_reads_what_comes_in_time, 60) {
    for (int kind = 0; kind < KINDS; kind++) {
        pysock *pair[2];
        pysock_file *f;
        void *both[2];
        t_thread t;
        if (!open_pair(kind, pair))
            continue;
        f = T_OK(pysock_makefile(pair[0], "rb", -1));
        T_OK(pysock_settimeout(pair[0], 30));
        both[0] = pair[1];
        both[1] = "in time\n";
        t_spawn(&t, send_thread, both);
        file_line(f, "in time\n");
        t_join(&t);
        T_OK(pysock_file_close(f));
        t_close_pair(pair);
    }
}

/* ---- peers that go ---- */

/* The kernel gives what came before the reset, and so does the file. */
T_TEST(a_reset_is_told_and_what_came_before_it_is_kept, 60) {
    static const ptrdiff_t sizes[] = {-1, 0, 2};
    for (size_t b = 0; b < sizeof sizes / sizeof sizes[0]; b++)
        for (int op = READ; op < READ1; op++) {
            int port, raw = t_raw_listen(&port), peer;
            pysock *s;
            pysock_file *f;
            job j;
            if (op_waits(op, sizes[b])) {
                s = T_OK(pysock_create_connection("127.0.0.1", port, PYSOCK_NO_TIMEOUT));
                peer = t_raw_accept(raw);
                T_STEP("buffering %td, %s", sizes[b], op_names[op]);
                f = T_OK(pysock_makefile(s, "rb", sizes[b]));
                t_raw_write(peer, "abc", 3);
                t_raw_reset(peer);
                j = job_of(f, op, 7);
                T_FAILS(run_op(&j), PYSOCK_OS_ERROR, ECONNRESET);
                file_expect(f, "abc");
                T_OK(pysock_file_close(f));
                T_OK(pysock_close(s));
                close(peer);
            }
            close(raw);
        }
}

T_TEST(garbage_instead_of_tls_is_told_and_what_came_before_it_is_kept, 60) {
    for (int op = READ; op < READ1; op++) {
        pysock *pair[2];
        pysock_file *f;
        job j;
        t_tls_pair(pair, client_ctx, server_ctx);
        T_STEP("%s", op_names[op]);
        f = T_OK(pysock_makefile(pair[0], "rb", -1));
        t_say(pair[1], "abc");
        t_raw_write(pysock_fileno(pair[1]), "this is no record at all", 24);
        j = job_of(f, op, 7);
        T_FAILS(run_op(&j), T_ANY, EPROTO);
        T_CHECK(pysock_error() >= PYSOCK_SSL_ERROR);
        file_expect(f, "abc");
        T_FAILS(pysock_file_read(f, j.data, 1), T_ANY, T_ANY);
        T_OK(pysock_file_close(f));
        t_close_pair(pair);
    }
}

T_TEST(a_ragged_end_is_told_where_that_was_asked_for, 60) {
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    for (int raises = 0; raises < 2; raises++) {
        pysock *pair[2];
        pysock_file *f;
        t_thread t;
        job j;
        T_STEP("raise_ragged_eofs %d", raises);
        options.raise_ragged_eofs = raises;
        options.no_handshake_on_connect = 1;
        t_pair(pair);
        T_OK(pysock_ssl_wrap_socket_ex(pair[1], server_ctx, &options));
        t_spawn(&t, t_handshake_thread, pair[1]);
        T_OK(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"));
        t_join(&t);
        f = T_OK(pysock_makefile(pair[1], "rb", -1));
        t_say(pair[0], "abc");
        T_EQ(shutdown(pysock_fileno(pair[0]), SHUT_WR), 0);
        j = job_of(f, READ, 7);
        if (raises)
            T_FAILS(run_op(&j), PYSOCK_SSL_EOF_ERROR, EPROTO);
        file_expect(f, "abc");
        if (!raises)
            file_end(f);
        T_OK(pysock_file_close(f));
        t_close_pair(pair);
    }
}

/* EPIPE or a reset, told by a write, a flush or the close; and no SIGPIPE, which would end us. */
T_TEST(writing_to_a_peer_that_is_gone_fails_without_a_signal, 60) {
    struct sigaction action;
    T_EQ(sigaction(SIGPIPE, NULL, &action), 0);
    T_CHECK(action.sa_handler == SIG_DFL);
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t b = 0; b < BUFFERINGS; b++) {
            pysock *pair[2];
            pysock_file *f;
            int rc;
            if (!open_pair(kind, pair))
                continue;
            T_STEP("%s, buffering %td", kind_names[kind], bufferings[b]);
            f = T_OK(pysock_makefile(pair[0], "wb", bufferings[b]));
            T_OK(pysock_close(pair[1]));
            do {
                errno = 0;
                rc = pysock_file_write(f, "x", 1, NULL) < 0 || pysock_file_flush(f) < 0;
            } while (!rc);
            T_CHECK(errno == EPIPE || errno == ECONNRESET || errno == EPROTO);
            if (kind < TLS)
                T_EQ(pysock_error(), PYSOCK_OS_ERROR);
            T_STEP("the byte that could not be sent is told by the close");
            if (bufferings[b])
                T_FAILS(pysock_file_close(f), T_ANY, T_ANY);
            else
                T_OK(pysock_file_close(f));
            T_OK(pysock_close(pair[0]));
        }
}

/* ---- writing ---- */

T_TEST(writes_wait_in_the_buffer_for_a_flush, 60) {
    static const ptrdiff_t sizes[] = {-1, 10, 8192, 1 << 20};
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t b = 0; b < sizeof sizes / sizeof sizes[0]; b++) {
            pysock *pair[2];
            pysock_file *f;
            size_t taken = 0;
            if (!open_pair(kind, pair))
                continue;
            T_STEP("%s, buffering %td", kind_names[kind], sizes[b]);
            f = T_OK(pysock_makefile(pair[0], "wb", sizes[b]));
            write_text(f, "abc");
            T_EQ(pysock_file_write(f, "def", 3, &taken), 3);
            expect_silence(pair[1]);
            T_OK(pysock_file_flush(f));
            t_expect(pair[1], "abcdef");
            T_OK(pysock_file_flush(f));
            expect_silence(pair[1]);
            write_text(f, "closing ");
            write_text(f, "it");
            expect_silence(pair[1]);
            T_STEP("a close flushes");
            T_OK(pysock_file_close(f));
            t_expect(pair[1], "closing it");
            T_STEP("and leaves the socket alone");
            t_say(pair[0], "fine");
            t_expect(pair[1], "fine");
            t_close_pair(pair);
        }
}

T_TEST(unbuffered_writes_go_at_once, 60) {
    for (int kind = 0; kind < KINDS; kind++) {
        pysock *pair[2];
        pysock_file *f;
        if (!open_pair(kind, pair))
            continue;
        f = T_OK(pysock_makefile(pair[0], "wb", 0));
        write_text(f, "abc");
        t_expect(pair[1], "abc");
        write_text(f, "d");
        t_expect(pair[1], "d");
        T_OK(pysock_file_flush(f));
        T_OK(pysock_file_close(f));
        expect_silence(pair[1]);
        t_close_pair(pair);
    }
}

T_TEST(what_does_not_fit_the_buffer_goes_to_the_socket, 60) {
    for (int kind = 0; kind < KINDS; kind++)
        for (ptrdiff_t size = 1; size <= 9; size++) {
            static const char text[] = "abcdefghijklmnopqrstuvwxyz";
            char buf[26];
            pysock *pair[2];
            pysock_file *f;
            if (!open_pair(kind, pair))
                continue;
            T_STEP("%s, buffering %td", kind_names[kind], size);
            f = T_OK(pysock_makefile(pair[0], "wb", size));
            T_EQ(pysock_file_write(f, text, 3, NULL), 3);
            T_EQ(pysock_file_write(f, text + 3, 20, NULL), 20);
            T_EQ(pysock_file_write(f, text + 23, 3, NULL), 3);
            t_recv_exactly(pair[1], buf, 26 - (size_t)size);
            T_OK(pysock_file_flush(f));
            t_recv_exactly(pair[1], buf + 26 - size, (size_t)size);
            T_CHECK(memcmp(buf, text, 26) == 0);
            T_OK(pysock_file_close(f));
            t_close_pair(pair);
        }
}

T_TEST(one_file_may_read_and_write, 60) {
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t b = 0; b < BUFFERINGS; b++) {
            pysock *pair[2];
            pysock_file *a, *z;
            if (!open_pair(kind, pair))
                continue;
            T_STEP("%s, buffering %td", kind_names[kind], bufferings[b]);
            a = T_OK(pysock_makefile(pair[0], "rw", bufferings[b]));
            z = T_OK(pysock_makefile(pair[1], "rwb", bufferings[b]));
            for (int i = 0; i < 3; i++) {
                write_text(a, "GET / HTTP/1.0\r\n\r\n");
                T_OK(pysock_file_flush(a));
                file_line(z, "GET / HTTP/1.0\r\n");
                write_text(z, "200 OK\n");
                file_line(z, "\r\n");
                write_text(z, "body");
                T_OK(pysock_file_flush(z));
                file_line(a, "200 OK\n");
                file_expect(a, "body");
            }
            close_files(a, z);
            t_close_pair(pair);
        }
}

/* Bulk, both ways at once: a thread for each of four files. */
typedef struct stream {
    pysock_file *f;
    size_t size;
    unsigned int seed;
} stream;

static void *write_stream(void *arg) {
    stream *w = arg;
    size_t done = 0;
    for (size_t i = 0; done < w->size; i++) {
        size_t n = odd_sizes[i % ODD_SIZES] < w->size - done ? odd_sizes[i % ODD_SIZES]
                                                             : w->size - done;
        T_EQ(pysock_file_write(w->f, t_bytes(done, w->seed), n, NULL), n);
        done += n;
        if (i % 5 == 4)
            T_OK(pysock_file_flush(w->f));
    }
    T_OK(pysock_file_flush(w->f));
    return NULL;
}

static void *read_stream(void *arg) {
    stream *r = arg;
    unsigned char *buf = malloc(65536);
    size_t done = 0;
    T_CHECK(buf != NULL);
    for (size_t i = 3; done < r->size; i++) {
        size_t n = odd_sizes[i % ODD_SIZES] < r->size - done ? odd_sizes[i % ODD_SIZES]
                                                             : r->size - done;
        ptrdiff_t got;
        if (i % 4 == 0)
            got = T_OK(pysock_file_read1(r->f, buf, n));
        else if (i % 4 == 1)
            got = T_OK(pysock_file_readline(r->f, (char *)buf, n + 1));
        else if (i % 4 == 2)
            got = T_OK(pysock_file_readinto(r->f, buf, n));
        else
            got = T_OK(pysock_file_read(r->f, buf, n));
        T_CHECK(got > 0 && (size_t)got <= n);
        t_verify(buf, (size_t)got, done, r->seed);
        done += (size_t)got;
    }
    free(buf);
    return NULL;
}

T_TEST(streams_of_any_size_go_both_ways_at_once, T_SCALE(120, 240)) {
    static const double timeouts[] = {PYSOCK_NO_TIMEOUT, 60};
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t b = 0; b < BUFFERINGS; b++) {
            size_t size = bufferings[b] < 0 || bufferings[b] > 10 ? T_SCALE(700001, 200001) : 60001;
            pysock *pair[2];
            pysock_file *files[4];
            stream streams[4];
            t_thread threads[4];
            if (!open_pair(kind, pair))
                continue;
            T_STEP("%s, buffering %td", kind_names[kind], bufferings[b]);
            for (int i = 0; i < 4; i++) {
                files[i] = T_OK(pysock_makefile(pair[i & 1], i & 2 ? "rb" : "wb", bufferings[b]));
                T_OK(pysock_settimeout(pair[i & 1], timeouts[b & 1]));
                streams[i].f = files[i];
                streams[i].size = size;
                streams[i].seed = i == 0 || i == 3 ? 7 : 8; /* 0 writes to 3, 1 to 2 */
            }
            for (int i = 0; i < 4; i++)
                t_spawn(&threads[i], i & 2 ? read_stream : write_stream, &streams[i]);
            for (int i = 0; i < 4; i++)
                t_join(&threads[i]);
            close_files(files[0], files[1]);
            close_files(files[2], files[3]);
            t_close_pair(pair);
        }
}

/* Takes what is there, which must be the next of the stream; returns how much there was. */
static size_t drain(pysock *s, uint64_t *offset, unsigned int seed) {
    static unsigned char buf[65536];
    size_t all = 0;
    while (t_readable(s, 0)) {
        ptrdiff_t n = T_OK(pysock_recv(s, buf, sizeof buf, 0));
        T_CHECK(n > 0);
        t_verify(buf, (size_t)n, *offset, seed);
        *offset += (uint64_t)n;
        all += (size_t)n;
    }
    return all;
}

/* Waits until pair[1] has something to read, and takes it, or pair[0] has room again: both may be
   true of the same bytes, when they are read before they are acknowledged. */
static void make_room(pysock *pair[2], uint64_t *offset, unsigned int seed) {
    int in = T_OK(pysock_fileno(pair[1])), out = T_OK(pysock_fileno(pair[0]));
    size_t ins = 1, outs = 1;
    T_CHECK(pysock_select(&in, &ins, &out, &outs, NULL, NULL, PYSOCK_NO_TIMEOUT) > 0);
    (void)drain(pair[1], offset, seed);
}

/* Writes until the socket takes no more, says how much was taken, and goes on from there: the
   stream is whole. With a timeout of 0 it is EAGAIN, with another one ETIMEDOUT. Unbuffered, a
   write is one send, which may take less. */
static void write_past_failures(pysock *pair[2], ptrdiff_t buffering, double timeout) {
    pysock_file *f = T_OK(pysock_makefile(pair[0], "wb", buffering));
    uint64_t written = 0, received = 0, last = UINT64_MAX;
    int failures = 0;
    T_OK(pysock_settimeout(pair[0], timeout));
    while (written < last) {
        size_t want = last - written < 30011 ? (size_t)(last - written) : 30011;
        size_t taken = SIZE_MAX;
        ptrdiff_t n;
        n = pysock_file_write(f, t_bytes(written, 9), want, &taken);
        if (n >= 0) {
            if (buffering)
                T_EQ(n, want);
            T_CHECK(n > 0 && (size_t)n <= want);
            written += (uint64_t)n;
            continue;
        }
        T_EQ(errno, timeout > 0 ? ETIMEDOUT : EAGAIN);
        T_CHECK(taken <= want);
        written += taken;
        if (++failures == 1)
            last = written + 200003;
        if (failures < 3)
            continue; /* again, with no room made */
        make_room(pair, &received, 9);
    }
    T_CHECK(failures > 0);
    while (pysock_file_flush(f) < 0) {
        T_EQ(errno, timeout > 0 ? ETIMEDOUT : EAGAIN);
        make_room(pair, &received, 9);
    }
    while (received < written) {
        T_EQ(t_readable(pair[1], PYSOCK_NO_TIMEOUT), 1);
        T_CHECK(drain(pair[1], &received, 9) > 0);
    }
    T_EQ(received, written);
    expect_silence(pair[1]);
    T_OK(pysock_file_close(f));
}

T_TEST(a_failed_write_says_what_was_taken_and_loses_nothing, T_SCALE(120, 240)) {
    static const ptrdiff_t sizes[] = {-1, 0, 1, 100000};
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t b = 0; b < sizeof sizes / sizeof sizes[0]; b++)
            for (int timed = 0; timed < 2; timed++) {
                pysock *pair[2];
                if (!open_pair(kind, pair))
                    continue;
                T_STEP("%s, buffering %td, timeout %s", kind_names[kind], sizes[b],
                       timed ? "some" : "0");
                T_OK(pysock_setsockopt_int(pair[0], SOL_SOCKET, SO_SNDBUF, 32768));
                write_past_failures(pair, sizes[b], timed ? 0.02 : 0);
                t_close_pair(pair);
            }
}

/* Writes without blocking until nothing more is taken, then fills the buffer. */
static void stuff(pysock *s, pysock_file *f) {
    size_t taken = 0;
    T_OK(pysock_setblocking(s, 0));
    while (pysock_file_write(f, t_flood(), 65536, &taken) >= 0)
        ;
    T_EQ(errno, EAGAIN);
}

T_TEST(a_close_that_cannot_flush_tells_so_and_frees, 60) {
    for (int kind = 0; kind < KINDS; kind++) {
        pysock *pair[2];
        pysock_file *f;
        char *sink = malloc(65536);
        T_CHECK(sink != NULL);
        if (open_pair(kind, pair)) {
            f = T_OK(pysock_makefile(pair[0], "wb", -1));
            stuff(pair[0], f);
            T_FAILS(pysock_file_flush(f), PYSOCK_OS_ERROR, EAGAIN);
            T_FAILS(pysock_file_close(f), PYSOCK_OS_ERROR, EAGAIN);
            T_STEP("the socket lives on");
            T_OK(pysock_shutdown(pair[0], SHUT_WR));
            while (T_OK(pysock_recv(pair[1], sink, 65536, 0)) > 0)
                ;
            T_STEP("and is kept open by nothing");
            T_OK(pysock_close(pair[0]));
            T_FAILS(pysock_fileno(pair[0]), PYSOCK_OS_ERROR, EBADF);
            T_OK(pysock_close(pair[1]));
        }
        free(sink);
    }
}

/* A write that is ended in the middle has sent part of it, and knows how much. Unbuffered, a write
   is one send, and several are needed. */
typedef struct long_write {
    pysock_file *f;
    const unsigned char *data;
    size_t size, taken;
    ptrdiff_t result;
    int code;
    int done; /* atomic */
} long_write;

static void *long_write_thread(void *arg) {
    long_write *w = arg;
    do {
        size_t taken = 0;
        w->result = pysock_file_write(w->f, w->data + w->taken, w->size - w->taken, &taken);
        w->code = errno;
        w->taken += w->result < 0 ? taken : (size_t)w->result;
    } while (w->result >= 0 && w->taken < w->size);
    __atomic_store_n(&w->done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void *finish_write_thread(void *arg) {
    long_write *w = arg;
    while (w->taken < w->size)
        w->taken += (size_t)T_OK(
            pysock_file_write(w->f, w->data + w->taken, w->size - w->taken, NULL));
    T_OK(pysock_file_flush(w->f));
    return NULL;
}

T_TEST(an_interrupted_write_can_be_continued, T_SCALE(120, 240)) {
    static const ptrdiff_t sizes[] = {-1, 0, 100000};
    static const double timeouts[] = {PYSOCK_NO_TIMEOUT, 60};
    enum { SIZE = 8 * 1024 * 1024 + 11 };
    unsigned char *data = malloc(SIZE), *buf = malloc(65536);
    T_CHECK(data && buf);
    t_fill(data, SIZE, 0, 4);
    let_signals_interrupt();
    for (size_t k = 0; k < 2 * FEW_KINDS; k++)
        for (size_t b = 0; b < sizeof sizes / sizeof sizes[0]; b++) {
            pysock *pair[2];
            t_thread t;
            long_write w;
            memset(&w, 0, sizeof w);
            T_CHECK(open_pair(few_kinds[k / 2], pair));
            T_STEP("%s, buffering %td, timeout %g", kind_names[few_kinds[k / 2]], sizes[b],
                   timeouts[k & 1]);
            T_OK(pysock_settimeout(pair[0], timeouts[k & 1]));
            w.f = T_OK(pysock_makefile(pair[0], "wb", sizes[b]));
            w.data = data;
            w.size = SIZE;
            t_spawn(&t, long_write_thread, &w);
            t_wait_asleep(&t);
            interrupt_until(&t, &w.done);
            t_join(&t);
            T_EQ(w.result, -1);
            T_EQ(w.code, EINTR);
            T_CHECK(w.taken > 0 && w.taken < SIZE);
            t_spawn(&t, finish_write_thread, &w);
            for (size_t done = 0; done < SIZE;) {
                ptrdiff_t n = T_OK(pysock_recv(pair[1], buf, 65536, 0));
                T_CHECK(n > 0);
                t_verify(buf, (size_t)n, done, 4);
                done += (size_t)n;
            }
            t_join(&t);
            expect_silence(pair[1]);
            T_OK(pysock_file_close(w.f));
            t_close_pair(pair);
        }
    pysock_set_interrupt_hook(NULL, NULL);
    free(data);
    free(buf);
}

/* ---- files and the life of their socket ---- */

T_TEST(a_file_keeps_its_socket_open, 60) {
    for (int kind = 0; kind < KINDS; kind++)
        for (int unbuffered = 0; unbuffered < 2; unbuffered++) {
            pysock *pair[2];
            pysock_file *f;
            char byte;
            int fd;
            if (!open_pair(kind, pair))
                continue;
            f = T_OK(pysock_makefile(pair[0], "rb", unbuffered ? 0 : -1));
            fd = T_OK(pysock_fileno(pair[0]));
            T_EQ(pysock_close(pair[0]), 0);
            T_EQ(pysock_close(pair[0]), 0);
            T_STEP("%s: the file reads, and as in Python so does the socket", kind_names[kind]);
            t_say(pair[1], "line\n");
            file_line(f, "line\n");
            T_EQ(pysock_fileno(pair[0]), fd);
            t_say(pair[1], "raw");
            t_expect(pair[0], "raw");
            t_say(pair[0], "answer");
            t_expect(pair[1], "answer");
            T_STEP("closed with the file");
            T_OK(pysock_file_close(f));
            T_FAILS(pysock_recv(pair[0], &byte, 1, 0), PYSOCK_OS_ERROR, EBADF);
            T_FAILS(pysock_fileno(pair[0]), PYSOCK_OS_ERROR, EBADF);
            T_EQ(pysock_recv(pair[1], &byte, 1, 0), 0);
            if (kind >= TLS)
                T_EQ(pysock_ssl_eof_is_clean(pair[1]), 1);
            T_EQ(pysock_close(pair[0]), 0);
            T_OK(pysock_close(pair[1]));
        }
}

T_TEST(the_last_of_several_files_closes_the_socket, 60) {
    for (int order = 0; order < 6; order++) {
        static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                         {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
        pysock *pair[2];
        pysock_file *files[3];
        char byte;
        T_STEP("order %d", order);
        t_pair(pair);
        files[0] = T_OK(pysock_makefile(pair[0], "rb", -1));
        files[1] = T_OK(pysock_makefile(pair[0], "wb", -1));
        T_OK(pysock_close(pair[0]));
        T_STEP("one may be made of a socket that waits for its files, as in Python");
        files[2] = T_OK(pysock_makefile(pair[0], "rwb", 0));
        write_text(files[1], "out");
        for (int i = 0; i < 3; i++) {
            T_CHECK(pysock_fileno(pair[0]) >= 0);
            T_OK(pysock_file_close(files[orders[order][i]]));
        }
        T_FAILS(pysock_fileno(pair[0]), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_makefile(pair[0], "rb", -1), PYSOCK_OS_ERROR, EBADF);
        t_expect(pair[1], "out");
        T_EQ(pysock_recv(pair[1], &byte, 1, 0), 0);
        T_OK(pysock_close(pair[1]));
    }
}

T_TEST(a_closed_file_leaves_its_socket_to_its_owner, 60) {
    int fds;
    pysock_cleanup();
    fds = t_count_fds();
    for (int kind = 0; kind < KINDS; kind++) {
        pysock *pair[2];
        if (!open_pair(kind, pair))
            continue;
        T_OK(pysock_file_close(T_OK(pysock_makefile(pair[0], "rb", -1))));
        T_OK(pysock_file_close(T_OK(pysock_makefile(pair[0], "rwb", 0))));
        t_say(pair[1], "Michael Gilfix was here");
        t_expect(pair[0], "Michael Gilfix was here");
        T_OK(pysock_close(pair[0]));
        T_FAILS(pysock_fileno(pair[0]), PYSOCK_OS_ERROR, EBADF);
        T_OK(pysock_close(pair[1]));
    }
    pysock_cleanup(); /* whatever the reactor still had to finish */
    T_EQ(t_count_fds(), fds);
}

T_TEST(what_a_file_still_held_is_sent_before_the_socket_closes, 60) {
    for (int kind = 0; kind < KINDS; kind++) {
        pysock *pair[2];
        pysock_file *f;
        char byte;
        if (!open_pair(kind, pair))
            continue;
        f = T_OK(pysock_makefile(pair[0], "wb", -1));
        write_text(f, "last words");
        T_OK(pysock_close(pair[0]));
        write_text(f, " and more");
        expect_silence(pair[1]);
        T_OK(pysock_file_close(f));
        t_expect(pair[1], "last words and more");
        T_EQ(pysock_recv(pair[1], &byte, 1, 0), 0);
        T_OK(pysock_close(pair[1]));
    }
}

/* A close that is put off disturbs nobody; the one that is real does. */
T_TEST(who_waits_on_the_socket_is_woken_by_the_last_file, 60) {
    static const double timeouts[] = {PYSOCK_NO_TIMEOUT, 60};
    for (int i = 0; i < 4; i++) {
        pysock *pair[2];
        pysock_file *f;
        t_waiter w;
        t_thread t;
        T_CHECK(open_pair(i & 1 ? TLS : TCP, pair));
        memset(&w, 0, sizeof w);
        w.what = T_WAIT_RECV;
        w.s = pair[0];
        T_OK(pysock_settimeout(pair[0], timeouts[i / 2]));
        f = T_OK(pysock_makefile(pair[0], "rwb", -1));
        t_spawn(&t, t_wait_thread, &w);
        t_wait_asleep(&t);
        T_OK(pysock_close(pair[0]));
        t_wait_asleep(&t);
        write_text(f, "x");
        T_OK(pysock_file_flush(f));
        t_expect(pair[1], "x");
        T_OK(pysock_file_close(f));
        t_join(&t);
        T_EQ(w.result, -1);
        T_EQ(w.kind, PYSOCK_OS_ERROR);
        T_EQ(w.code, EBADF);
        T_OK(pysock_close(pair[1]));
    }
}

T_TEST(a_read_that_waits_is_not_disturbed_by_a_close_that_is_put_off, 60) {
    for (int kind = 0; kind < KINDS; kind++)
        for (int unbuffered = 0; unbuffered < 2; unbuffered++) {
            pysock *pair[2];
            t_thread t;
            job j;
            if (!open_pair(kind, pair))
                continue;
            j = job_of(T_OK(pysock_makefile(pair[0], "rb", unbuffered ? 0 : -1)), READLINE, 0);
            t_spawn(&t, op_thread, &j);
            t_wait_asleep(&t);
            T_OK(pysock_close(pair[0]));
            t_wait_asleep(&t);
            t_say(pair[1], "a line\n");
            t_join(&t);
            expect_job(&j, "a line\n");
            T_OK(pysock_file_close(j.f));
            T_FAILS(pysock_fileno(pair[0]), PYSOCK_OS_ERROR, EBADF);
            T_OK(pysock_close(pair[1]));
        }
}

static void *greet_thread(void *arg) {
    pysock_file *f = T_OK(pysock_makefile(arg, "rwb", -1));
    file_line(f, "hello\n");
    write_text(f, "hello yourself\n");
    T_OK(pysock_file_close(f));
    return NULL;
}

T_TEST(the_first_use_of_a_file_does_the_handshake, 30) {
    pysock *pair[2];
    pysock_file *f;
    t_thread t;
    t_pair(pair);
    t_wrap_later(pair[0], client_ctx, "localhost");
    t_wrap_later(pair[1], server_ctx, NULL);
    t_spawn(&t, greet_thread, pair[1]);
    f = T_OK(pysock_makefile(pair[0], "rwb", -1));
    write_text(f, "hello\n");
    T_OK(pysock_file_flush(f));
    file_line(f, "hello yourself\n");
    t_join(&t);
    T_CHECK(strcmp(pysock_ssl_version(pair[0]), "TLSv1.2") == 0);
    T_OK(pysock_file_close(f));
    t_close_pair(pair);
}

T_TEST(a_file_of_a_detached_socket_is_dead, 30) {
    pysock *pair[2];
    pysock_file *reader, *writer;
    char byte;
    int fd;
    t_pair(pair);
    reader = T_OK(pysock_makefile(pair[0], "rb", -1));
    writer = T_OK(pysock_makefile(pair[0], "wb", 0));
    fd = T_OK(pysock_detach(pair[0]));
    t_say(pair[1], "x");
    T_FAILS(pysock_file_read(reader, &byte, 1), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_file_write(writer, "y", 1, NULL), PYSOCK_OS_ERROR, EBADF);
    close_files(reader, writer);
    T_STEP("the descriptor is not closed with its files");
    T_EQ(t_raw_read(fd, &byte, 1), 1);
    T_EQ(byte, 'x');
    T_EQ(close(fd), 0);
    T_OK(pysock_close(pair[1]));
}

/* Buffered bytes are still given; then the socket is gone, and no younger one is taken for it. */
T_TEST(after_cleanup_files_fail_and_can_be_closed, 60) {
    for (int kind = 0; kind < KINDS; kind++) {
        pysock *pair[2], *young[2];
        pysock_file *reader, *writer, *idle, *raw;
        char buf[8];
        int fd;
        if (!open_pair(kind, pair))
            continue;
        fd = T_OK(pysock_fileno(pair[0]));
        reader = T_OK(pysock_makefile(pair[0], "rb", -1));
        writer = T_OK(pysock_makefile(pair[0], "wb", -1));
        idle = T_OK(pysock_makefile(pair[0], "rwb", -1));
        raw = T_OK(pysock_makefile(pair[0], "rwb", 0));
        t_say(pair[1], "abcdef");
        file_expect(reader, "abc");
        write_text(writer, "never sent");
        if (kind & 1)
            T_OK(pysock_close(pair[0])); /* put off, and then overtaken */
        T_STEP("%s: cleanup", kind_names[kind]);
        pysock_cleanup();
        T_EQ(fcntl(fd, F_GETFD), -1);
        T_CHECK(open_pair(LOCAL, young)); /* likely with that descriptor */
        t_say(young[0], "for others");
        t_say(young[1], "for others");
        file_expect(reader, "def");
        T_FAILS(pysock_file_read(reader, buf, 1), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_file_readline(reader, buf, sizeof buf), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_file_readall(idle), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_file_read1(raw, buf, 1), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_file_write(raw, "x", 1, NULL), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_file_flush(writer), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_file_close(writer), PYSOCK_OS_ERROR, EBADF);
        close_files(reader, idle);
        T_OK(pysock_file_close(raw));
        t_expect(young[0], "for others");
        t_expect(young[1], "for others");
        t_close_pair(young);
    }
}

T_TEST(cleanup_ends_reads_and_writes_that_wait, 60) {
    static const double timeouts[] = {PYSOCK_NO_TIMEOUT, 60};
    (void)t_flood();
    for (int i = 0; i < 4; i++) {
        pysock *pairs[2][2];
        pysock_file *files[2];
        t_thread threads[2];
        long_write w;
        job j;
        for (int n = 0; n < 2; n++) {
            T_CHECK(open_pair(i & 1 ? TLS : TCP, pairs[n]));
            T_OK(pysock_settimeout(pairs[n][0], timeouts[i / 2]));
            files[n] = T_OK(pysock_makefile(pairs[n][0], "rwb", -1));
        }
        j = job_of(files[0], READLINE, 0);
        memset(&w, 0, sizeof w);
        w.f = files[1];
        w.data = (unsigned char *)t_flood();
        w.size = T_FLOOD;
        t_spawn(&threads[0], op_thread, &j);
        t_spawn(&threads[1], long_write_thread, &w);
        t_wait_asleep(&threads[0]);
        t_wait_asleep(&threads[1]);
        T_STEP("cleanup %d", i);
        pysock_cleanup();
        t_join(&threads[0]);
        t_join(&threads[1]);
        T_EQ(j.result, -1);
        T_EQ(j.code, ESHUTDOWN);
        T_EQ(w.result, -1);
        T_EQ(w.code, ESHUTDOWN);
        T_OK(pysock_file_close(files[0]));
        (void)pysock_file_close(files[1]); /* its buffer may hold something, or not */
    }
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts)
