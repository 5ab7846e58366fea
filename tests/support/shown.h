/* Chains of certificates that are shown to a client by a server that says nothing else: it needs no
   key, and no library that would refuse to send them. */
#ifndef TESTS_SUPPORT_SHOWN_H
#define TESTS_SUPPORT_SHOWN_H

#include "support/support.h"
#include "support/handshake.h"
#include "support/mint.h"

/* With its length in three octets before it. */
T_FUNC m_der s_counted(m_der what) {
    m_der d = m_hex(p_format("%06zx", what.size));
    m_add(&d, what);
    return d;
}

T_FUNC m_der s_message(const char *type, m_der body) {
    m_der d = m_hex(type);
    m_add(&d, s_counted(body));
    return d;
}

/* A server's first record: ServerHello and these certificates. */
T_FUNC m_der s_hello_and_chain(const m_der *chain, size_t count, int rsa) {
    m_der hello = m_hex("0303"), list, record = m_hex("160303"), all;
    list.size = 0;
    for (int i = 0; i < 32; i++)
        m_add_hex(&hello, "5a");
    m_add_hex(&hello, rsa ? "00c02f00" : "00c02b00");
    m_add_hex(&hello, "0005ff01000100"); /* renegotiation_info */
    for (size_t i = 0; i < count; i++)
        m_add(&list, s_counted(chain[i]));
    all = s_message("02", hello);
    m_add(&all, s_message("0b", s_counted(list)));
    m_add_hex(&record, p_format("%04zx", all.size));
    m_add(&record, all);
    return record;
}

/* What a client says of that chain; that it wants more if it takes it. */
T_FUNC h_outcome s_show(pysock_ssl_context *client, const m_der *chain, size_t count, int rsa,
                        const char *host) {
    pysock_bio *in = T_OK(pysock_bio_new()), *out = T_OK(pysock_bio_new());
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    m_der record = s_hello_and_chain(chain, count, rsa);
    h_outcome o;
    pysock *s;
    options.server_hostname = host;
    s = T_OK(pysock_ssl_wrap_bio(client, in, out, &options));
    T_FAILS(pysock_ssl_do_handshake(s), PYSOCK_SSL_WANT_READ_ERROR, T_ANY);
    T_EQ(pysock_bio_write(in, record.data, record.size), record.size);
    pysock_error_clear();
    o = h_outcome_of(pysock_ssl_do_handshake(s));
    T_OK(pysock_close(s));
    pysock_bio_release(in);
    pysock_bio_release(out);
    return o;
}

T_FUNC int s_is_taken(const h_outcome *o) {
    return o->result == 0 || o->kind == PYSOCK_SSL_WANT_READ_ERROR;
}

#endif
