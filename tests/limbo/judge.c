/* Judges certificate chains through the library's own verifier: reads what cases.py writes, prints
   each case that is judged otherwise than expected, and last "N cases: A false accepts, R false
   rejects" (without those that are set aside). With the flags that CPython 3.13 has by default.

       judge [FALSE_ACCEPTS FALSE_REJECTS]    fails if there are more than these */
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#define FLAGS (PYSOCK_VERIFY_X509_STRICT | PYSOCK_VERIFY_X509_PARTIAL_CHAIN)
#define CHAIN_MAX 128

typedef struct bytes {
    unsigned char *data;
    size_t size;
} bytes;

static void die(const char *what)
{
    fprintf(stderr, "limbo: %s\n", what);
    exit(2);
}

static int digit(int c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Hexadecimal DER joined by commas; how many. */
static size_t read_list(char *text, bytes *list)
{
    size_t count = 0;
    char *item, *rest = text;

    while ((item = strtok_r(rest, ",-", &rest)) != NULL) {
        size_t n = strlen(item) / 2, i;
        if (count == CHAIN_MAX)
            die("a chain is too long");
        list[count].data = malloc(n ? n : 1);
        list[count].size = n;
        for (i = 0; i < n; i++)
            list[count].data[i] = (unsigned char)(digit(item[2 * i]) << 4 | digit(item[2 * i + 1]));
        count++;
    }
    return count;
}

/* 0: accepted, or why not. As the library does with what a peer sends. */
static int judge(const bytes *anchors, size_t anchor_count, const bytes *sent, size_t sent_count,
                 const char *host, int64_t now)
{
    pysock__store *store = pysock__store_clone(NULL);
    pysock__verifier *v = pysock__alloc(sizeof *v);
    pysock__cert chain[PYSOCK__CHAIN_CERTS];
    pysock__verify_rules rules = {PYSOCK_SERVER_AUTH, FLAGS, 2, 0, host, now};
    pysock__path path;
    const br_x509_class **x;
    const char *problem;
    size_t i;
    int code;

    if (!store || !v)
        die("out of memory");
    v->vtable = &pysock__verifier_class;
    x = &v->vtable;
    for (i = 0; i < anchor_count; i++)
        pysock__store_add_der(store, anchors[i].data, anchors[i].size, 0, &problem);
    v->vtable->start_chain(x, NULL);
    for (i = 0; i < sent_count; i++) {
        v->vtable->start_cert(x, (uint32_t)sent[i].size);
        v->vtable->append(x, sent[i].data, sent[i].size);
        v->vtable->end_cert(x);
    }
    if (v->too_long)
        code = PYSOCK__V_CHAIN_TOO_LONG;
    else if (!v->count || pysock__verifier_parse(v, chain) < 0)
        code = PYSOCK__V_MALFORMED;
    else
        code = pysock__chain_check(&path, store, chain, v->count, &rules);
    pysock__verifier_free(v);
    pysock__store_release(store);
    return code;
}

int main(int argc, char **argv)
{
    static bytes anchors[CHAIN_MAX], sent[CHAIN_MAX];
    size_t room = 0, i;
    int cases = 0, false_accepts = 0, false_rejects = 0;
    char *line = NULL;

    while (getline(&line, &room, stdin) > 0) {
        char *field[7], *rest = line;
        size_t anchor_count, sent_count;
        int code, accept, aside;
        for (i = 0; i < 7; i++)
            if ((field[i] = strtok_r(rest, "\t\n", &rest)) == NULL)
                die("a line has too few fields");
        accept = strcmp(field[1], "accept") == 0;
        aside = strcmp(field[2], "1") == 0;
        anchor_count = read_list(field[5], anchors);
        sent_count = read_list(field[6], sent);
        code =
            judge(anchors, anchor_count, sent, sent_count, field[3], strtoll(field[4], NULL, 10));
        for (i = 0; i < anchor_count; i++)
            free(anchors[i].data);
        for (i = 0; i < sent_count; i++)
            free(sent[i].data);
        cases++;
        if (accept == !code)
            continue;
        printf("%s%s: %s%s\n", aside ? "(aside) " : "", field[0],
               code ? "refused, but valid: " : "accepted, but to be refused",
               code ? pysock__verify_sentence(code) : "");
        false_rejects += !aside && code;
        false_accepts += !aside && !code;
    }
    free(line);
    printf("%d cases: %d false accepts, %d false rejects\n", cases, false_accepts, false_rejects);
    if (argc == 3 && (false_accepts > atoi(argv[1]) || false_rejects > atoi(argv[2])))
        return 1;
    return cases == 0;
}
