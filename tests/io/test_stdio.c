/* Sockets as FILEs of the C library: pysock_fdopen(). */
#include "io/files.h"

/* ---- FILE ---- */

T_TEST(a_FILE_reads_and_writes_lines, 60) {
    for (int kind = 0; kind < KINDS; kind++) {
        pysock *pair[2];
        FILE *in, *out;
        char line[64], *grown = NULL;
        size_t room = 0;
        if (!open_pair(kind, pair))
            continue;
        out = T_OK(pysock_fdopen(pair[0], "w"));
        in = T_OK(pysock_fdopen(pair[1], "r"));
        T_EQ(fprintf(out, "%s %d\n", "number", 42), 10);
        T_EQ(fputs("a longer one, for getline\nand the rest", out) >= 0, 1);
        expect_silence(pair[1]);
        T_EQ(fflush(out), 0);
        T_CHECK(fgets(line, sizeof line, in) == line);
        T_CHECK(strcmp(line, "number 42\n") == 0);
        T_EQ(getline(&grown, &room, in), 26);
        T_CHECK(strcmp(grown, "a longer one, for getline\n") == 0);
        T_EQ(fread(line, 1, 4, in), 4);
        T_CHECK(memcmp(line, "and ", 4) == 0);
        T_EQ(fgetc(in), 't');
        T_EQ(ungetc('t', in), 't');
        T_EQ(fclose(out), 0);
        T_OK(pysock_shutdown(pair[0], SHUT_WR));
        T_EQ(fread(line, 1, sizeof line, in), 8);
        T_CHECK(memcmp(line, "the rest", 8) == 0);
        T_CHECK(feof(in));
        T_CHECK(!ferror(in));
        T_EQ(getline(&grown, &room, in), -1);
        free(grown);
        T_EQ(fclose(in), 0);
        t_close_pair(pair);
    }
}

T_TEST(two_FILEs_of_a_socket_go_both_ways, 60) {
    for (int kind = 0; kind < KINDS; kind++) {
        pysock *pair[2];
        FILE *in, *out;
        char line[64];
        if (!open_pair(kind, pair))
            continue;
        in = T_OK(pysock_fdopen(pair[0], "rb"));
        out = T_OK(pysock_fdopen(pair[0], "wb"));
        for (int i = 0; i < 3; i++) {
            T_EQ(fprintf(out, "ask %d\n", i), 6);
            T_EQ(fflush(out), 0);
            t_expect(pair[1], i == 0 ? "ask 0\n" : i == 1 ? "ask 1\n" : "ask 2\n");
            t_say(pair[1], "answer\n");
            T_CHECK(fgets(line, sizeof line, in) == line);
            T_CHECK(strcmp(line, "answer\n") == 0);
        }
        T_EQ(fclose(in), 0);
        T_EQ(fclose(out), 0);
        t_say(pair[0], "still mine");
        t_expect(pair[1], "still mine");
        t_close_pair(pair);
    }
}

T_TEST(a_FILE_takes_any_buffering, 30) {
    pysock *pair[2];
    FILE *f;
    t_pair(pair);
    f = T_OK(pysock_fdopen(pair[0], "w"));
    T_EQ(setvbuf(f, NULL, _IOLBF, 1024), 0);
    T_CHECK(fputs("half ", f) >= 0);
    expect_silence(pair[1]);
    T_CHECK(fputs("a line\n", f) >= 0);
    t_expect(pair[1], "half a line\n");
    T_EQ(fclose(f), 0);
    f = T_OK(pysock_fdopen(pair[0], "w"));
    T_EQ(setvbuf(f, NULL, _IONBF, 0), 0);
    T_EQ(fputc('x', f), 'x');
    t_expect(pair[1], "x");
    T_EQ(fclose(f), 0);
    t_close_pair(pair);
}

typedef struct bulk {
    FILE *f;
    size_t size;
} bulk;

static void *bulk_thread(void *arg) {
    bulk *b = arg;
    for (size_t i = 0, done = 0; done < b->size; i++) {
        size_t n = odd_sizes[i % ODD_SIZES] < b->size - done ? odd_sizes[i % ODD_SIZES]
                                                             : b->size - done;
        T_EQ(fwrite(t_bytes(done, 6), 1, n, b->f), n);
        done += n;
    }
    T_EQ(fclose(b->f), 0);
    return NULL;
}

T_TEST(bulk_goes_through_a_FILE, 60) {
    static const double timeouts[] = {PYSOCK_NO_TIMEOUT, 60};
    unsigned char *buf = malloc(40000);
    T_CHECK(buf != NULL);
    for (int kind = 0; kind < KINDS; kind++)
        for (int timed = 0; timed < 2; timed++) {
            pysock *pair[2];
            t_thread t;
            bulk b;
            FILE *in;
            size_t done = 0, n;
            if (!open_pair(kind, pair))
                continue;
            T_OK(pysock_settimeout(pair[0], timeouts[timed]));
            b.size = T_SCALE(3000017, 700017);
            b.f = T_OK(pysock_fdopen(pair[0], "w"));
            T_OK(pysock_close(pair[0]));
            in = T_OK(pysock_fdopen(pair[1], "r"));
            t_spawn(&t, bulk_thread, &b);
            while ((n = fread(buf, 1, 39989, in)) > 0) {
                t_verify(buf, n, done, 6);
                done += n;
            }
            T_CHECK(feof(in) && !ferror(in));
            T_EQ(done, b.size);
            t_join(&t);
            T_EQ(fclose(in), 0);
            T_OK(pysock_close(pair[1]));
            T_FAILS(pysock_fileno(pair[0]), PYSOCK_OS_ERROR, EBADF);
        }
    free(buf);
}

T_TEST(a_FILE_tells_its_errors_in_errno, 60) {
    for (int kind = 0; kind < KINDS; kind++) {
        pysock *pair[2];
        FILE *f;
        char line[16];
        if (!open_pair(kind, pair))
            continue;
        T_STEP("%s, non-blocking", kind_names[kind]);
        f = T_OK(pysock_fdopen(pair[0], "r"));
        T_OK(pysock_setblocking(pair[0], 0));
        errno = 0;
        T_EQ(fgetc(f), EOF);
        T_EQ(errno, EAGAIN);
        T_CHECK(ferror(f) && !feof(f));
        clearerr(f);
        t_say(pair[1], "x\n");
        T_EQ(t_readable(pair[0], PYSOCK_NO_TIMEOUT), 1);
        T_EQ(fgetc(f), 'x');
        T_EQ(fgetc(f), '\n');
        T_STEP("%s, timed", kind_names[kind]);
        T_OK(pysock_settimeout(pair[0], 0.02));
        errno = 0;
        T_CHECK(fgets(line, sizeof line, f) == NULL);
        T_EQ(errno, ETIMEDOUT);
        T_CHECK(ferror(f) && !feof(f));
        T_EQ(fclose(f), 0);
        T_STEP("%s, the wrong direction", kind_names[kind]);
        f = T_OK(pysock_fdopen(pair[0], "w"));
        errno = 0;
        T_EQ(fgetc(f), EOF);
        T_EQ(errno, EBADF);
        T_EQ(fclose(f), 0);
        f = T_OK(pysock_fdopen(pair[0], "r"));
        errno = 0;
        T_EQ(fputc('x', f), EOF);
        T_EQ(errno, EBADF);
        T_EQ(fclose(f), 0);
        t_close_pair(pair);
    }
}

typedef struct getter {
    FILE *f;
    int result, code;
    int done; /* atomic */
} getter;

static void *getter_thread(void *arg) {
    getter *g = arg;
    errno = 0;
    g->result = fgetc(g->f);
    g->code = errno;
    __atomic_store_n(&g->done, 1, __ATOMIC_RELEASE);
    return NULL;
}

T_TEST(an_interrupted_FILE_goes_on_after_clearerr, 60) {
    let_signals_interrupt();
    for (int kind = 0; kind < KINDS; kind++) {
        pysock *pair[2];
        t_thread t;
        getter g;
        if (!open_pair(kind, pair))
            continue;
        memset(&g, 0, sizeof g);
        g.f = T_OK(pysock_fdopen(pair[0], "r"));
        t_spawn(&t, getter_thread, &g);
        t_wait_asleep(&t);
        interrupt_until(&t, &g.done);
        t_join(&t);
        T_EQ(g.result, EOF);
        T_EQ(g.code, EINTR);
        T_CHECK(ferror(g.f) && !feof(g.f));
        clearerr(g.f);
        t_say(pair[1], "x");
        T_EQ(fgetc(g.f), 'x');
        T_EQ(fclose(g.f), 0);
        t_close_pair(pair);
    }
    pysock_set_interrupt_hook(NULL, NULL);
}

T_TEST(a_FILE_tells_what_the_peer_did, 60) {
    pysock *pair[2];
    FILE *f;
    char line[16];
    T_STEP("no TLS");
    t_tls_pair(pair, client_ctx, server_ctx);
    f = T_OK(pysock_fdopen(pair[0], "r"));
    t_raw_write(pysock_fileno(pair[1]), "this is no record at all", 24);
    errno = 0;
    pysock_error_clear();
    T_CHECK(fgets(line, sizeof line, f) == NULL);
    T_EQ(errno, EPROTO);
    T_CHECK(ferror(f));
    T_CHECK(pysock_error() >= PYSOCK_SSL_ERROR && pysock_error_message()[0]);
    T_EQ(fclose(f), 0);
    t_close_pair(pair);
    for (int kind = 0; kind < KINDS; kind++) {
        if (!open_pair(kind, pair))
            continue;
        T_STEP("%s, gone", kind_names[kind]);
        f = T_OK(pysock_fdopen(pair[0], "w"));
        T_OK(pysock_close(pair[1]));
        do
            errno = 0;
        while (fputc('x', f) == 'x' && fflush(f) == 0);
        T_CHECK(errno == EPIPE || errno == ECONNRESET || errno == EPROTO);
        T_CHECK(ferror(f));
        (void)fclose(f);
        T_OK(pysock_close(pair[0]));
        T_STEP("%s, told by fclose", kind_names[kind]);
        T_CHECK(open_pair(kind, pair));
        T_OK(pysock_shutdown(pair[0], SHUT_WR));
        f = T_OK(pysock_fdopen(pair[0], "w"));
        T_EQ(fputc('x', f), 'x');
        errno = 0;
        T_EQ(fclose(f), EOF);
        T_CHECK(errno != 0);
        t_close_pair(pair);
    }
}

T_TEST(a_FILE_keeps_its_socket_open, 60) {
    int fds;
    pysock_cleanup();
    fds = t_count_fds();
    for (int kind = 0; kind < KINDS; kind++) {
        pysock *pair[2];
        pysock_file *f;
        FILE *in, *out;
        char line[16], byte;
        if (!open_pair(kind, pair))
            continue;
        in = T_OK(pysock_fdopen(pair[0], "r"));
        out = T_OK(pysock_fdopen(pair[0], "w"));
        f = T_OK(pysock_makefile(pair[0], "rb", 0));
        T_OK(pysock_close(pair[0]));
        t_say(pair[1], "line\n");
        T_CHECK(fgets(line, sizeof line, in) == line);
        T_EQ(fclose(in), 0);
        T_EQ(fputs("bye", out) >= 0, 1);
        T_OK(pysock_file_close(f));
        T_CHECK(pysock_fileno(pair[0]) >= 0);
        T_EQ(fclose(out), 0);
        T_FAILS(pysock_fileno(pair[0]), PYSOCK_OS_ERROR, EBADF);
        t_expect(pair[1], "bye");
        T_EQ(pysock_recv(pair[1], &byte, 1, 0), 0);
        T_OK(pysock_close(pair[1]));
    }
    pysock_cleanup();
    T_EQ(t_count_fds(), fds);
}

T_TEST(a_FILE_survives_cleanup, 30) {
    pysock *pair[2];
    FILE *in, *out;
    t_pair(pair);
    in = T_OK(pysock_fdopen(pair[0], "r"));
    out = T_OK(pysock_fdopen(pair[0], "w"));
    t_say(pair[1], "ab");
    T_EQ(fgetc(in), 'a');
    T_EQ(fputc('x', out), 'x');
    pysock_cleanup();
    T_EQ(fgetc(in), 'b');
    errno = 0;
    T_EQ(fgetc(in), EOF);
    T_EQ(errno, EBADF);
    T_CHECK(ferror(in));
    errno = 0;
    T_EQ(fflush(out), EOF);
    T_EQ(errno, EBADF);
    T_EQ(fclose(in), 0);
    (void)fclose(out);
}

T_TEST(fdopen_refuses_what_it_cannot_open, 30) {
    static const char *const wrong[] = {"", "x", "+", "r+", "w+", "rw", "a", "b", "rx"};
    pysock *pair[2];
    t_pair(pair);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        T_STEP("mode '%s'", wrong[i]);
        T_FAILS(pysock_fdopen(pair[0], wrong[i]), PYSOCK_VALUE_ERROR, EINVAL);
    }
    T_FAILS(pysock_fdopen(pair[0], NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_fdopen(NULL, "r"), PYSOCK_VALUE_ERROR, EINVAL);
    t_close_pair(pair);
    T_FAILS(pysock_fdopen(pair[0], "r"), PYSOCK_OS_ERROR, EBADF);
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts)
