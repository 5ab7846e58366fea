/* The examples about TLS, as their users run them: STARTTLS, certificates on both sides, a
   certificate for each name. Their peers are openssl, curl, python3's ssl and each other. */
#include "support/support.h"
#include "support/files.h"
#include "support/process.h"
#include "support/programs.h"
#include "support/shell.h"

#define CA T_CERTS "ca.pem"
#define CERT T_CERTS "server-ec.pem"
#define KEY T_CERTS "server-ec.key"
#define CLIENT_CERT T_CERTS "client.pem"
#define CLIENT_KEY T_CERTS "client.key"
#define HOST_A "a.example.test=" T_CERTS "server-rsa.pem," T_CERTS "server-rsa.key"
#define HOST_B "other.test=" T_CERTS "wrong-host.pem," T_CERTS "wrong-host.key"
#define HOST_C "*.example.test=" CERT "," KEY
#define LETTER "Subject: test\n\nDear all,\n"

static p_process one, two;

static void must_not_have_said(p_process *p, const char *text) {
    p_pump(p, 0);
    if (p_has_said(p, text))
        P_FAIL(p, "%s said '%s'", p->program, text);
}

/* ==== smtp_starttls ==== */

/* Starts the server; answer: instead of its own, as "RCPT=550 no", or NULL. Its port, in digits. */
static const char *start_smtp_server(const char *mode, const char *answer) {
    p_args args = {{NULL}, 0};
    p_add(&args, "python3", "tests/peers/smtp.py", "--cert", CERT, "--key", KEY, "--mode", mode,
          NULL);
    if (answer)
        p_add(&args, "--answer", answer, NULL);
    p_start(&one, &args);
    return digits(listening_port(&one));
}

/* Sends the text from one sender to two recipients; the exit status. */
static int send_letter(const char *port, const char *text) {
    start(&two, "smtp_starttls", "--cafile", CA, "--from", "me@example.test", "--to",
          "you@example.test", "--to", "her@example.test", "localhost", port, NULL);
    p_say(&two, text);
    p_close_fd(&two.in);
    return p_exit_status(&two);
}

T_TEST(starttls_shows_what_the_server_can_do_behind_tls, 60) {
    NEED_EXAMPLE("smtp_starttls");
    P_NEED("python3");
    const char *port = start_smtp_server("good", NULL);
    T_EQ(run(&two, "smtp_starttls", "--cafile", CA, "localhost", port, NULL), 0);
    must_have_said(&two, "TLSv1.2");
    must_have_said(&two, "verified");
    must_have_said(&two, "8BITMIME");
    must_not_have_said(&two, "STARTTLS"); /* that was before */
    p_wait_for(&one, "command QUIT");
    must_have_said(&one, "command EHLO [127.0.0.1]\ncommand STARTTLS\ntls TLSv1.2\ncommand EHLO");
}

T_TEST(a_message_arrives_as_it_was_whatever_its_lines_begin_and_end_with, 120) {
    NEED_EXAMPLE("smtp_starttls");
    P_NEED("python3");
    static const char *const texts[][2] = {
        {LETTER, "'Subject: test\\r\\n\\r\\nDear all,\\r\\n.\\r\\n'"},
        {".\n..\n.a\nb.\n", "'..\\r\\n...\\r\\n..a\\r\\nb.\\r\\n.\\r\\n'"},
        {"crlf\r\n\r\n.\r\nlf\n", "'crlf\\r\\n\\r\\n..\\r\\nlf\\r\\n.\\r\\n'"},
        {"a\r.\rb\n\r.\n", "'a\\r\\n..\\r\\nb\\r\\n\\r\\n..\\r\\n.\\r\\n'"},
        {"no end", "'no end\\r\\n.\\r\\n'"},
        {"caf\xc3\xa9\n", "'caf\\xc3\\xa9\\r\\n.\\r\\n'"},
    };
    const char *port = start_smtp_server("good", NULL);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        T_STEP("text %zu", i);
        if (send_letter(port, texts[i][0]) != 0)
            P_FAIL(&two, "text %zu was not sent", i);
        must_have_said(&two, "sent: queued");
        p_wait_for(&one, p_format("message b%s", texts[i][1]));
    }
    must_have_said(&one, "command MAIL FROM:<me@example.test>\ncommand RCPT TO:<you@example.test>\n"
                         "command RCPT TO:<her@example.test>\ncommand DATA\n");
    must_have_said(&one, "command MAIL FROM:<me@example.test> BODY=8BITMIME\n");
}

T_TEST(plain_text_behind_the_answer_to_starttls_is_refused, 60) {
    NEED_EXAMPLE("smtp_starttls");
    P_NEED("python3");
    T_EQ(send_letter(start_smtp_server("inject", NULL), LETTER), 1);
    must_have_said(&two, "plain text came behind the answer to STARTTLS");
    p_wait_for(&one, "done");
    must_not_have_said(&one, "message");
}

T_TEST(a_server_without_starttls_gets_nothing, 60) {
    NEED_EXAMPLE("smtp_starttls");
    P_NEED("python3");
    T_EQ(send_letter(start_smtp_server("hide", NULL), LETTER), 1);
    must_have_said(&two, "does not offer STARTTLS");
    p_wait_for(&one, "done");
    must_not_have_said(&one, "command MAIL");
}

T_TEST(each_refusal_is_told_with_its_code_and_what_it_means, 180) {
    NEED_EXAMPLE("smtp_starttls");
    P_NEED("python3");
    static const char *const cases[][3] = {
        {"CONNECT=421 too busy", "connecting: 421 too busy", "try again later"},
        {"CONNECT=554 go away", "connecting: 554 go away", "refuses us"},
        {"EHLO=502 no", "EHLO [127.0.0.1]: 502 no", "has not got the command"},
        {"STARTTLS=454 no key", "STARTTLS: 454 no key", "cannot do TLS at the moment"},
        {"MAIL=530 log in", "MAIL FROM:<me@example.test>: 530 log in", "who we are"},
        {"RCPT=550 nobody", "RCPT TO:<you@example.test>: 550 nobody", "no such mailbox"},
        {"RCPT=499 well", "499 well", "may work later"},
        {"DATA=599 never", "DATA: 599 never", "not work later either"},
        {"MESSAGE=552 too much", "the message: 552 too much", "mailbox is full"},
        {"MAIL=999 what", "no SMTP reply", "999 what"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        T_STEP("%s", cases[i][0]);
        T_EQ(send_letter(start_smtp_server("good", cases[i][0]), LETTER), 1);
        must_have_said(&two, cases[i][1]);
        must_have_said(&two, cases[i][2]);
        must_not_have_said(&two, "sent:");
    }
}

T_TEST(text_that_the_server_or_mail_cannot_take_is_not_sent, 60) {
    NEED_EXAMPLE("smtp_starttls");
    P_NEED("python3");
    char line[1200];
    const char *port = start_smtp_server("7bit", NULL);
    T_EQ(send_letter(port, "caf\xc3\xa9\n"), 1);
    must_have_said(&two, "8-bit");
    p_wait_for(&one, "done");
    must_not_have_said(&one, "command MAIL");
    memset(line, 'x', sizeof line);
    snprintf(line + 999, sizeof line - 999, "\n");
    T_EQ(send_letter(port, line), 1);
    must_have_said(&two, "998 bytes");
    T_EQ(send_letter(port, ""), 1);
    must_have_said(&two, "no message");
}

T_TEST(the_certificate_of_a_mail_server_is_verified_unless_told_otherwise, 60) {
    NEED_EXAMPLE("smtp_starttls");
    P_NEED("python3");
    const char *port = start_smtp_server("good", NULL);
    T_EQ(run(&two, "smtp_starttls", "--cafile", T_CERTS "other-ca.pem", "localhost", port, NULL),
         1);
    must_have_said(&two, "certificate verify failed");
    must_not_have_said(&two, "8BITMIME");
    T_EQ(run(&two, "smtp_starttls", "--insecure", "localhost", port, NULL), 0);
    must_have_said(&two, "NOT verified");
    must_have_said(&two, "8BITMIME");
}

T_TEST(a_mail_server_that_is_silent_or_none_is_told, 60) {
    NEED_EXAMPLE("smtp_starttls");
    P_NEED("python3");
    T_EQ(run(&two, "smtp_starttls", "--cafile", CA, "--timeout", "0.3", "127.0.0.1",
             start_smtp_server("silent", NULL), NULL),
         1);
    must_have_said(&two, "no answer");
    T_EQ(run(&two, "smtp_starttls", "--cafile", CA, "127.0.0.1", start_smtp_server("garbage", NULL),
             NULL),
         1);
    must_have_said(&two, "no SMTP reply: \"HTTP/1.0 400 Bad Request\"");
}

T_TEST(addresses_that_hold_more_than_an_address_are_refused, 60) {
    NEED_EXAMPLE("smtp_starttls");
    static const char *const bad[] = {"",      "nobody", "a@b>\r\nRCPT TO:<c@d",
                                      "a@b c", "<a@b>",  "a@\xc3\xa9"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        T_EQ(run(&two, "smtp_starttls", "--from", bad[i], "--to", "a@b", "127.0.0.1", NULL), 2);
        T_EQ(run(&two, "smtp_starttls", "--from", "a@b", "--to", bad[i], "127.0.0.1", NULL), 2);
    }
    T_EQ(run(&two, "smtp_starttls", "--from", "a@b", "127.0.0.1", NULL), 2);
    T_EQ(run(&two, "smtp_starttls", "--to", "a@b", "127.0.0.1", NULL), 2);
}

/* ==== mutual_tls ==== */

static int start_mutual_server(void) {
    start(&one, "mutual_tls", "server", "--cert", CERT, "--key", KEY, "--cafile", CA, "-p", "0",
          NULL);
    return listening_port(&one);
}

T_TEST(mutual_tls_demonstrates_itself, 60) {
    NEED_EXAMPLE("mutual_tls");
    T_EQ(run(&one, "mutual_tls", NULL), 0);
    must_have_said(&one, "Good day, Ada!");
    must_have_said(&one, "the client sent no certificate");
    must_have_said(&one, "certificate verify failed");
    must_not_have_said(&one, "Mallory");
}

T_TEST(a_client_is_greeted_by_its_certificates_name, 60) {
    NEED_EXAMPLE("mutual_tls");
    const char *port = digits(start_mutual_server());
    T_EQ(run(&two, "mutual_tls", "client", "--cert", CLIENT_CERT, "--key", CLIENT_KEY, "--cafile",
             CA, "127.0.0.1", port, NULL),
         0);
    must_have_printed(&two, "Good day, client!\n");
    p_wait_for(&one, "greeted client");
}

T_TEST(a_client_whose_certificate_is_missing_or_not_trusted_learns_which, 60) {
    NEED_EXAMPLE("mutual_tls");
    const char *port = digits(start_mutual_server());
    T_EQ(run(&two, "mutual_tls", "client", "--cafile", CA, "127.0.0.1", port, NULL), 1);
    must_have_said(&two, "give --cert");
    p_wait_for(&one, "the client sent no certificate");
    T_EQ(run(&two, "mutual_tls", "client", "--cert", T_CERTS "untrusted.pem", "--key",
             T_CERTS "untrusted.key", "--cafile", CA, "127.0.0.1", port, NULL),
         1);
    must_have_said(&two, "does not accept our certificate");
    p_wait_for(&one, "certificate verify failed");
    /* One that is for servers. */
    T_EQ(run(&two, "mutual_tls", "client", "--cert", CERT, "--key", KEY, "--cafile", CA,
             "127.0.0.1", port, NULL),
         1);
    must_have_said(&two, "does not accept our certificate");
    must_not_have_said(&one, "greeted");
    /* And one that the client does not believe. */
    T_EQ(run(&two, "mutual_tls", "client", "--cert", CLIENT_CERT, "--key", CLIENT_KEY, "--cafile",
             T_CERTS "other-ca.pem", "127.0.0.1", port, NULL),
         1);
    must_have_said(&two, "certificate verify failed");
    must_not_have_said(&two, "does not accept");
}

T_TEST(openssl_s_client_is_greeted_and_without_a_certificate_refused, 60) {
    NEED_EXAMPLE("mutual_tls");
    P_NEED("openssl");
    p_args args = {{NULL}, 0};
    const char *at = p_format("127.0.0.1:%d", start_mutual_server());
    p_add(&args, "openssl", "s_client", "-connect", at, "-CAfile", CA, "-quiet",
          "-verify_return_error", NULL);
    T_CHECK(p_run(&two, &args) != 0);
    must_not_have_said(&two, "Good day");
    p_add(&args, "-cert", CLIENT_CERT, "-key", CLIENT_KEY, NULL);
    p_run(&two, &args);
    must_have_said(&two, "Good day, client!");
}

T_TEST(openssl_s_server_sees_the_clients_certificate, 60) {
    NEED_EXAMPLE("mutual_tls");
    P_NEED("openssl");
    p_args args = {{NULL}, 0};
    int port;
    p_add(&args, "openssl", "s_server", "-accept", "127.0.0.1:" P_PORT, "-cert", CERT, "-key", KEY,
          "-CAfile", CA, "-Verify", "1", "-verify_return_error", NULL);
    T_OK(pysock_close(p_start_server(&one, &args, &port)));
    T_EQ(run(&two, "mutual_tls", "client", "--cafile", CA, "127.0.0.1", digits(port), NULL), 1);
    must_have_said(&two, "give --cert");
    start(&two, "mutual_tls", "client", "--cert", CLIENT_CERT, "--key", CLIENT_KEY, "--cafile", CA,
          "127.0.0.1", digits(port), NULL);
    p_wait_for(&one, "CIPHER is");
    must_have_said(&one, "CN = client");
    p_say(&one, "Welcome\n");
    p_wait_for(&two, "Welcome\n");
}

/* ==== sni_server ==== */

static int start_sni_server(const char *option) {
    if (option)
        start(&one, "sni_server", "-p", "0", option, HOST_A, HOST_B, HOST_C, NULL);
    else
        start(&one, "sni_server", "-p", "0", HOST_A, HOST_B, HOST_C, NULL);
    return listening_port(&one);
}

/* openssl's client, which asks for name (NULL: for none), until its handshake is over. */
static void ask_by_openssl(int port, const char *name) {
    p_args args = {{NULL}, 0};
    p_add(&args, "openssl", "s_client", "-connect", p_format("127.0.0.1:%d", port), "-CAfile", CA,
          name ? "-servername" : "-noservername", name, NULL);
    p_run(&two, &args);
}

T_TEST(each_name_gets_its_own_certificate, 120) {
    NEED_EXAMPLE("sni_server");
    P_NEED("openssl");
    int port = start_sni_server(NULL);
    ask_by_openssl(port, "a.example.test"); /* rather than the wildcard behind it */
    must_have_said(&two, "Peer signature type: RSA");
    must_have_said(&two, "CN = localhost");
    p_wait_for(&one, "asks for a.example.test: gets a.example.test\n");
    ask_by_openssl(port, "Other.TEST");
    must_have_said(&two, "CN = other.test");
    p_wait_for(&one, ": gets other.test\n");
    ask_by_openssl(port, "b.example.test");
    must_have_said(&two, "Peer signature type: ECDSA");
    must_have_said(&two, "CN = localhost");
    p_wait_for(&one, "asks for b.example.test: gets *.example.test\n");
}

T_TEST(unknown_names_get_the_alert_or_with_default_the_first_host, 120) {
    NEED_EXAMPLE("sni_server");
    P_NEED("openssl");
    for (int turn = 0; turn < 2; turn++) {
        int port = start_sni_server(turn ? "--default" : NULL);
        const char *result = turn ? "gets a.example.test" : "refused";
        const char *answer = turn ? "Peer signature type: RSA" : "alert number 112";
        ask_by_openssl(port, "unknown.test");
        must_have_said(&two, answer);
        p_wait_for(&one, p_format("asks for unknown.test: %s\n", result));
        ask_by_openssl(port, "x.b.example.test"); /* the wildcard is for one label */
        must_have_said(&two, answer);
        p_wait_for(&one, p_format("asks for x.b.example.test: %s\n", result));
        ask_by_openssl(port, NULL);
        must_have_said(&two, "Peer signature type: RSA");
        p_wait_for(&one, "asks for no name: gets a.example.test\n");
    }
}

T_TEST(curl_gets_a_page_from_each_host_and_verifies_it, 120) {
    NEED_EXAMPLE("sni_server");
    P_NEED("curl");
    static const char *const names[] = {"a.example.test", "other.test", "b.example.test"};
    int port = start_sni_server(NULL);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        p_args args = {{NULL}, 0};
        p_add(&args, "curl", "-sS", "--noproxy", "*", "--cacert", CA, "--resolve",
              p_format("%s:%d:127.0.0.1", names[i], port),
              p_format("https://%s:%d/", names[i], port), NULL);
        T_EQ(p_run(&two, &args), 0);
        must_have_printed(&two, p_format("This is %s.\n", names[i]));
    }
}

T_TEST(a_client_that_says_nothing_holds_nobody_up, 120) {
    NEED_EXAMPLE("sni_server");
    P_NEED("openssl");
    int port = start_sni_server(NULL);
    pysock *silent = p_connect(&one, port);
    ask_by_openssl(port, "other.test");
    must_have_said(&two, "CN = other.test");
    p_wait_for(&one, "took too long");
    T_OK(pysock_close(silent));
}

T_TEST(hosts_that_cannot_be_served_are_told, 60) {
    NEED_EXAMPLE("sni_server");
    T_EQ(run(&one, "sni_server", "-p", "0", "a.example.test=missing.pem", NULL), 1);
    must_have_said(&one, "missing.pem");
    T_EQ(run(&one, "sni_server", "-p", "0", "a.example.test=" CERT "," CLIENT_KEY, NULL), 1);
    must_have_said(&one, "a.example.test: ");
    T_EQ(run(&one, "sni_server", "-p", "0", "no-certificate", NULL), 1);
    must_have_said(&one, "NAME=CERT.pem");
}

/* ==== all of them ==== */

T_TEST(each_example_has_a_usage_text, 60) {
    static const char *const names[] = {"smtp_starttls", "mutual_tls", "sni_server"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        NEED_EXAMPLE(names[i]);
        for (int turn = 0; turn < 2; turn++) {
            T_EQ(run(&one, names[i], turn ? "-h" : "--help", NULL), 0);
            T_CHECK(strncmp(p_string(&one.said), "usage: ", 7) == 0);
            T_EQ(one.complained.size, 0);
        }
        T_EQ(run(&one, names[i], "--nonsense", NULL), 2);
        T_CHECK(one.complained.size > 0);
    }
}

/* ==== tls_inspect, https_get with a certificate, embed_ca ==== */

/* openssl's server, which answers HTTP; more are arguments of its own. */
static int start_openssl(const char *cert, const char *key, const char *more) {
    p_args args = {{NULL}, 0};
    int port;
    p_add(&args, "openssl", "s_server", "-accept", "127.0.0.1:" P_PORT, "-cert", cert, "-key", key,
          "-cert_chain", cert, "-www", "-CAfile", CA, more, more ? "1" : NULL, NULL);
    T_OK(pysock_close(p_start_server(&one, &args, &port)));
    return port;
}

T_TEST(tls_inspect_shows_protocol_chain_and_verdict, 60) {
    NEED_EXAMPLE("tls_inspect");
    P_NEED("openssl");
    const char *at = p_format("localhost:%d",
                              start_openssl(T_CERTS "chain-ec.pem", T_CERTS "chain-ec.key", NULL));
    T_EQ(run(&two, "tls_inspect", "--cafile", CA, at, NULL), 0);
    must_have_said(&two, "TLSv1.2");
    must_have_said(&two, "ECDHE-ECDSA-");
    must_have_said(&two, "localhost");
    T_STEP("a chain that nobody vouches for is shown, too");
    T_EQ(run(&two, "tls_inspect", "--cafile", T_CERTS "other-ca.pem", at, NULL), 1);
    must_have_said(&two, "unable to get local issuer certificate");
    must_have_said(&two, "ECDHE-ECDSA-");
    T_EQ(run(&two, "tls_inspect", "--no-such-option", NULL), 2);
    T_EQ(run(&two, "tls_inspect", "--cafile", CA, "127.0.0.1:1", NULL), 1);
    must_have_said(&two, "refused");
}

T_TEST(https_get_shows_its_certificate_to_a_server_that_asks, 60) {
    NEED_EXAMPLE("https_get");
    P_NEED("openssl");
    const char *url = p_format("https://localhost:%d/", start_openssl(CERT, KEY, "-Verify"));
    T_EQ(run(&two, "https_get", "-v", "--cacert", CA, "--cert", CLIENT_CERT, "--key", CLIENT_KEY,
             url, NULL),
         0);
    must_have_said(&two, "s_server");
    must_have_said(&two, "TLSv1.2");
    T_CHECK(run(&two, "https_get", "--cacert", CA, url, NULL) != 0);
    T_CHECK(run(&two, "https_get", "--cert", CLIENT_CERT, "--key", CLIENT_KEY, url, NULL) != 0);
    must_have_said(&two, "certificate verify failed");
    T_STEP("--insecure goes on, and says what that means");
    T_EQ(
        run(&two, "https_get", "--insecure", "--cert", CLIENT_CERT, "--key", CLIENT_KEY, url, NULL),
        0);
    must_have_said(&two, "not verified");
}

T_TEST(embed_ca_makes_a_header_that_verifies, 180) {
    static const char source[] =
        "#define PYSOCK_IMPLEMENTATION\n#include \"pysock.h\"\n#include \"cas.h\"\n"
        "int main(int argc, char **argv)\n{\n"
        "    pysock_ssl_context *ctx = pysock_ssl_context_new(PYSOCK_SERVER_AUTH);\n"
        "    pysock *s = pysock_create_connection(\"127.0.0.1\", atoi(argv[argc - 1]), 20);\n"
        "    if (pysock_ssl_load_verify_data(ctx, cas, sizeof cas) < 0\n"
        "        || pysock_ssl_wrap_socket(s, ctx, \"localhost\") < 0) {\n"
        "        puts(pysock_error_message());\n        return 1;\n    }\n"
        "    printf(\"verified by one of %d\\n\", (int)pysock_ssl_ca_count(ctx));\n"
        "    return 0;\n}\n";
    NEED_EXAMPLE("embed_ca");
    P_NEED("openssl");
    p_args args = {{NULL}, 0};
    int port = start_openssl(CERT, KEY, NULL);
    T_EQ(run(&two, "embed_ca", "-n", "cas", "-o", f_path("cas.h"), T_CERTS "other-ca.pem", CA, CA,
             T_CERTS "expired.pem", NULL),
         0);
    must_have_said(&two, "expired");
    f_write_text("main.c", source);
    p_add(&args, "cc", "-I.", "-o", f_path("main"), f_path("main.c"), "-lbearssl", "-pthread",
          NULL);
    if (p_run(&two, &args) != 0)
        P_FAIL(&two, "the header does not compile");
    args.count = 0;
    p_add(&args, f_path("main"), digits(port), NULL);
    if (p_run(&two, &args) != 0)
        P_FAIL(&two, "the embedded certificates do not verify");
    must_have_said(&two, "verified by one of 2");
    T_EQ(run(&two, "embed_ca", "-n", "9", "-o", f_path("cas.h"), CA, NULL), 2);
    T_EQ(run(&two, "embed_ca", "-o", f_path("none.h"), f_path("no-such-file"), NULL), 1);
}

T_MAIN(.setup = ignore_SIGPIPE, .each_teardown = p_clear_away)
