/* pysock 0.2.0: Python's socket, select and ssl modules in one C header, over BearSSL.
   MIT or public domain, at your choice; see the end of the file.

   In ONE source file, before any other #include:

       #define PYSOCK_IMPLEMENTATION
       #include "pysock.h"

   and in all others just the #include. Link with -lbearssl -pthread.


   Quick start
   -----------
   A complete program, an HTTPS client (cc -o get get.c -lbearssl -pthread):

       #define PYSOCK_IMPLEMENTATION
       #include "pysock.h"
       #include <stdio.h>

       int main(void)
       {
           static const char ask[] = "GET / HTTP/1.0\r\nHost: example.org\r\n\r\n";
           pysock_ssl_context *tls = pysock_ssl_client_context();
           pysock *s = pysock_create_connection("example.org", 443, 10.0);
           char buf[4096];
           ptrdiff_t n = -1;

           if (tls && s && pysock_ssl_wrap_socket(s, tls, "example.org") == 0
               && pysock_sendall(s, ask, sizeof ask - 1, 0) == 0)
               while ((n = pysock_recv(s, buf, sizeof buf, 0)) > 0)
                   fwrite(buf, 1, (size_t)n, stdout);
           if (n < 0)
               fprintf(stderr, "%s\n", pysock_error_message());
           pysock_close(s);
           pysock_ssl_context_release(tls);
           return n < 0;
       }

   A server that speaks TLS to any number of clients in one thread is the same with
   pysock_create_server(), pysock_ssl_wrap_socket() on the listening socket, a poller and
   pysock_setblocking(s, 0): see examples/. Each public block below begins with a usage example.


   Table of contents
   -----------------
   The public part comes first, a block for each job: configuration, errors, buffers, states,
   names, certificates, contexts, sockets, TLS on sockets, select, pollers, files, conveniences.
   Then the implementation, each section using only those above it (search for the word with its
   arrows):

   >>platform          threads, clocks, descriptors, wakers: what differs between systems
   >>system-calls      the same of sockets, names, files
   >>memory            allocation, arrays, lists
   >>errors            the thread's last error
   >>buffers           counted bytes, queues of them, memory BIOs
   >>states            interpreters: closers, hooks, the epoch that ends every wait
   >>resolver          lookups of names, on worker threads
   >>reactor           wakers, and the thread that finishes what no call waits for
   >>names             addresses as text, getaddrinfo and its family
   >>crypto            what RFCs compose of BearSSL's primitives: RSASSA-PSS
   >>der               files with certificates and keys: PEM and DER
   >>x509              certificates, revocation lists, host names
   >>certificate-info  certificates as people read them
   >>trust             trust stores
   >>keys              private keys, and chains with their keys
   >>verifier          from a chain to an anchor
   >>ciphers           cipher suites, and the language that chooses them
   >>tls-errors        BearSSL's errors and alerts, in words
   >>contexts          SSLContext and sessions
   >>tls-keys          keys at work
   >>tls               a TLS connection, without a descriptor
   >>hellos            reading ClientHello and its like
   >>tls-records       what goes into the engine and comes out of it
   >>sockets           handles, phases, calls, and where they sleep
   >>io                output, handshakes, TLS input and output
   >>life              sockets are made and closed; cleanup, fork
   >>socket-io         recv, send and their like
   >>socket-api        connect, accept and the rest of Python's socket
   >>ssl-api           what Python's ssl adds to a socket
   >>select            Python's select and poll
   >>pollers           descriptors that stay registered, epoll
   >>files             makefile, fdopen
   >>conveniences      create_connection, create_server, sendfile
   >>without-ssl       what PYSOCK_NO_SSL leaves


   How it works
   ------------
   A call does its own work: a blocking recv reads, decrypts and, if necessary, finishes the
   handshake on the calling thread. A reactor thread does what no call waits for: handshakes of
   non-blocking sockets, records that the kernel did not accept, output that is queued or left over
   at close. It starts when the first of these occurs. So no call ever reports WANT_READ or
   WANT_WRITE, and a non-blocking call never waits for a handshake's arithmetic.

   select and pollers report what recv and send would do, which is not always what the kernel
   reports for the descriptor:

       socket                    readable                      writable
       connecting                when it failed                when it connected or failed
       plain                     as the kernel reports it      as the kernel reports it
       TLS, handshaking          when the handshake failed     when it finished or failed
       TLS, open                 bytes, the end or an error    no record is stuck, and the kernel
                                 can be received               has room
       listening                 a connection waits            never
       with queued output        as above                      below the low watermark

   pysock_select() and pysock_poll() cost what is asked about, a poller what is ready: descriptors
   stay registered with it. A poller from pysock_poller_new() is level-triggered; one from
   pysock_poller_new_epoll() follows epoll's rules, with edges and a descriptor of its own.


   Configuration
   -------------
   Macros, to be defined before the #include (those below PYSOCK_NO_EPOLL only where the
   implementation is):

       PYSOCK_IMPLEMENTATION    compile the implementation here
       PYSOCK_STATIC            all functions static: a private copy for this file
       PYSOCKDEF                extern: what stands before each function (dllexport ...)
       PYSOCK_NO_SSL            without BearSSL; TLS calls fail with ENOTSUP
       PYSOCK_NO_THREADS        without threads: select, pollers and calls do the reactor's work,
                                and a name is looked up inside connect()
       PYSOCK_NO_EPOLL          pollers use poll(2) on Linux too
       PYSOCK_IDN2              international host names by libidn2 (link with -lidn2); without it
                                glibc looks them up, but TLS needs them as xn--...
       PYSOCK_NO_ATEXIT         pysock_cleanup() does not run by itself at exit
       PYSOCK_MALLOC(size), PYSOCK_REALLOC(p, size), PYSOCK_FREE(p)
       PYSOCK_ASSERT(condition) assert
       PYSOCK_MAX_SOCKETS       65535: open at a time (24 bytes of address space each)
       PYSOCK_MAX_LOOKUPS       64: names looked up at a time, a thread for each; others wait
       PYSOCK_MAX_PBKDF2_ITERATIONS   10000000: of an encrypted key; some seconds
       PYSOCK_CLOSE_TIMEOUT     5.0: seconds that output left at close may take
       PYSOCK_TRACE(event, socket)    nothing: called with a string at steps of the core, for tests


   Errors
   ------
   A call that fails returns -1 or NULL, stores an error for its thread, and sets errno. The error
   has a kind, which is Python's exception (pysock_error()); a code; a reason in one word
   ("ECONNREFUSED", "CERTIFICATE_VERIFY_FAILED"); and a message that says what failed, on what, why,
   and often what to do. A question (pysock_is_ssl(), pysock_getblocking() ...) answers 0 or 1; it
   answers 0, with the error set, if it cannot be answered. Would-block is errno EAGAIN, or
   EINPROGRESS from connect, do_handshake and unwrap, which go on by themselves; a timeout is
   PYSOCK_TIMEOUT_ERROR with ETIMEDOUT. A failure outside a call, such as a handshake in the
   reactor, is reported by the next call on that socket; a failed handshake is reported by every
   call.


   Ownership
   ---------
   A pysock * is a handle, not a pointer: one that is closed, or never was one, is recognised, and
   every call on it fails with EBADF. Close each with pysock_close(). What is counted (contexts,
   sessions, pollers, memory BIOs, buffers) has a release; what is not has a free or a close.
   Sockets keep their context alive, files keep their socket open, pollers keep nothing open. Data
   that is sent is copied or sent before the call returns, except by pysock_send_buf(), which takes
   a reference. Strings that are returned belong to the library and are static or the thread's own;
   what the resolver returns has a free function of its own. A pysock_ssl_cert is one block with all
   that it points to, owned by the caller: pysock_ssl_cert_free(). Structs with options begin with
   their size, which an INIT macro sets: they may grow in later versions.


   Names
   -----
   connect and sendto without a timeout look a name up on the calling thread, as bind and
   getaddrinfo() always do. With a timeout, 0 included, a worker thread does (PYSOCK_MAX_LOOKUPS at
   most; each ends with its lookups), so that the deadline holds and a non-blocking call never
   waits; closing the socket abandons the lookup. Calls that end in _addr take an address of any
   family and never look anything up.


   Threads and locks
   -----------------
   Every call may be made from any thread, on the same socket too, unless a *Thread safety* line
   limits it: one thread may read while another writes or closes (calls that wait then fail with
   EBADF). Two threads that read one stream each get a part of it, as with the kernel. Signal
   handlers must not make calls; the library's own threads block all signals. No call is a
   cancellation point: pthread_cancel() takes effect at the program's next one; to end a call's
   wait, close the socket or clean up. A callback must not be a cancellation point either; its
   *Callback safety* line says what it may do. No callback may fork, except to exec.

   The library starts threads when they are needed: the reactor's, when there is work that no call
   waits for (a non-blocking handshake, queued output, a close that the peer has not acknowledged),
   and one for each name that is looked up under a deadline, which ends with the lookup. A program
   whose TLS sockets block, and that connects to addresses, or to names without a timeout, has none
   until it closes a socket whose output is still on its way. A forked child inherits the sockets
   without any thread or unfinished work of its parent, and starts threads of its own when it needs
   them; sockets that it never used are closed silently, so that the parent's connections go on.

   Inside, locks are taken in this order: a socket's, a poller's, the reactor's; the others are
   leaves. None is held across poll, a callback, a hook or a handshake's step.

   Two limits. To wake a call that sleeps in the kernel, pysock_close() and pysock_cleanup() use
   shutdown(2), which another process that shares the connection notices. And an epoll set of the
   program's own that holds a TLS socket's descriptor reports what the kernel reports, not the
   level: the wrap option caller_drives is for such programs.


   TLS
   ---
   TLS 1.2 by default, 1.0 and 1.1 if they are allowed; by default suites with forward secrecy and
   AEAD (or CBC with SHA-2 as a last resort), AES-GCM first where the processor has it, else
   ChaCha20. No TLS 1.3, no session tickets, no finite-field DHE: BearSSL has none. Sessions are
   resumed by id, for the same context, host name and port, for two hours. A client accepts a
   server's request for another handshake (with the same certificate); a server refuses those of
   clients. A connection takes 42 KiB; full records touch 36 of them.

   Clients verify the chain and the host name. The verifier is the library's own: it builds a path
   from what the peer sent, in any order, to a trust anchor, and checks it by RFC 5280: signatures
   (RSA from 2,048 bits on, by PKCS#1 and PSS, and ECDSA, with SHA-2), dates, basic constraints, key
   usage, extended key usage, path lengths, name constraints, unknown critical extensions, those of
   the anchor too. What it cannot check it refuses. Revocation is checked where verify_flags ask for
   it, by CRLs in the trust store: complete ones of the issuer itself (no delta, indirect or
   partitioned ones), with a nextUpdate. Nothing is fetched, and there is no OCSP.

   Without a socket: pysock_ssl_wrap_bio() puts TLS between two memory BIOs. Its result is used like
   a socket, but has no descriptor, and reports SSLWantReadError when it needs more bytes.


   Interpreters and hooks
   ----------------------
   An embedder sees and may deny what is about to happen (pysock_set_audit_hook()), decides what
   happens when a signal interrupts a wait (pysock_set_interrupt_hook()), and runs code of its own
   before everything is closed (pysock_register_closer()). Several interpreters in one process each
   take a pysock_state: what a thread makes belongs to its current one, and pysock_state_cleanup()
   ends just that.


   Shutdown
   --------
   pysock_cleanup() runs the closers (last registered first), ends every wait with ESHUTDOWN, gives
   pending output and close_notify 100 ms, joins the threads and closes what is left, in all
   interpreters. It runs at exit, and the library can be used again after it.
*/
#ifndef PYSOCK_H
#define PYSOCK_H

#define PYSOCK_VERSION_MAJOR 0
#define PYSOCK_VERSION_MINOR 2
#define PYSOCK_VERSION_PATCH 0
#define PYSOCK_VERSION "0.2.0"

/* The implementation wants accept4 from glibc; it does without where a header came first. */
#if defined(PYSOCK_IMPLEMENTATION) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1
#endif
#if defined(PYSOCK_IMPLEMENTATION) && defined(__APPLE__) && !defined(_DARWIN_C_SOURCE)
#define _DARWIN_C_SOURCE 1
#endif

/* With these come the names of Python's socket that are the system's own: AF_, SOCK_, SO_, MSG_,
   IPPROTO_, TCP_, AI_, NI_, EAI_, SHUT_, htons(), ntohl() ... */
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ==== public: configuration ==== */

#ifndef PYSOCKDEF
#if defined(PYSOCK_STATIC) && defined(__GNUC__)
#define PYSOCKDEF static __attribute__((unused))
#elif defined(PYSOCK_STATIC)
#define PYSOCKDEF static
#else
#define PYSOCKDEF extern
#endif
#endif

typedef struct pysock pysock;                         /* a socket, plain or TLS */
typedef struct pysock_ssl_context pysock_ssl_context; /* Python's ssl.SSLContext */
typedef struct pysock_ssl_session pysock_ssl_session; /* Python's ssl.SSLSession */
typedef struct pysock_poller pysock_poller;           /* Python's select.poll() */
typedef struct pysock_buf pysock_buf;                 /* reference-counted bytes */
typedef struct pysock_bio pysock_bio;                 /* Python's ssl.MemoryBIO */
typedef struct pysock_file pysock_file;               /* what Python's makefile() returns */
typedef struct pysock_addr pysock_addr;               /* an address of any family, by value */
typedef struct pysock_state pysock_state;             /* one of several interpreters */

#define PYSOCK_NO_TIMEOUT (-1.0)      /* Python's None: wait for as long as it takes */
#define PYSOCK_DEFAULT_TIMEOUT (-1e9) /* for create_connection: what setdefaulttimeout() has set */

/* PYSOCK_VERSION of the implementation that the program runs with, which may be a shared
   library's. */
PYSOCKDEF const char *pysock_version(void);

/* ==== public: errors ====
   Every call that fails returns -1 or NULL, sets the calling thread's error, and sets errno as a
   C programmer expects. A call that succeeds leaves the error alone.

   Usage:

       pysock *s = pysock_create_connection("localhost", 80, 10.0);
       if (!s && pysock_error() == PYSOCK_TIMEOUT_ERROR)
           fprintf(stderr, "nobody answered within ten seconds\n");
       else if (!s)
           fprintf(stderr, "%s: %s\n", pysock_error_name(), pysock_error_message());
   */

/* Python's exceptions. No kind is a number that errno or an EAI_ code could have. */
typedef enum pysock_error_kind {
    PYSOCK_NO_ERROR = 0,
    PYSOCK_OS_ERROR = 1000, /* OSError and its subclasses, which follow from errno */
    PYSOCK_TIMEOUT_ERROR,   /* TimeoutError, errno ETIMEDOUT */
    PYSOCK_GAI_ERROR,       /* socket.gaierror; the code is an EAI_ number */
    PYSOCK_H_ERROR,         /* socket.herror */
    PYSOCK_VALUE_ERROR,     /* ValueError: a wrong argument, errno EINVAL */
    PYSOCK_KEY_ERROR,       /* KeyError: not registered, errno ENOENT */
    PYSOCK_MEMORY_ERROR,    /* MemoryError, errno ENOMEM */
    PYSOCK_SSL_ERROR,       /* ssl.SSLError, errno EPROTO, as for all that follow */
    PYSOCK_SSL_ZERO_RETURN_ERROR,
    PYSOCK_SSL_WANT_READ_ERROR,
    PYSOCK_SSL_WANT_WRITE_ERROR,
    PYSOCK_SSL_SYSCALL_ERROR,
    PYSOCK_SSL_EOF_ERROR,
    PYSOCK_SSL_CERT_VERIFICATION_ERROR
} pysock_error_kind;

/* The calling thread's last error. Strings stay valid until the thread's next failing call. */
PYSOCKDEF pysock_error_kind pysock_error(void);

/* errno's value for OSError; an EAI_ code for gaierror; BearSSL's code for SSLError. */
PYSOCKDEF int pysock_error_code(void);

/* Python's name of the exception, as exact as Python's own: "ConnectionRefusedError". */
PYSOCKDEF const char *pysock_error_name(void);

/* One word for the cause, in the field's terms: "ECONNREFUSED", "EAI_NONAME",
   "CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER". */
PYSOCKDEF const char *pysock_error_reason(void);

/* After SSLError and its subclasses: OpenSSL's name of the part that failed, as Python's
   SSLError.library has it: "SSL", "PEM", "X509"; "" otherwise. */
PYSOCKDEF const char *pysock_error_library(void);

/* A sentence: what failed, on what, why, and where possible what to do. Never NULL. */
PYSOCKDEF const char *pysock_error_message(void);

/* After SSLCertVerificationError: which check failed, as OpenSSL's X509_V_ERR_ number and its text
   ("certificate has expired"); 0 and "" otherwise. */
PYSOCKDEF int pysock_error_verify_code(void);
PYSOCKDEF const char *pysock_error_verify_message(void);

/* Clears the calling thread's error. */
PYSOCKDEF void pysock_error_clear(void);

/* ==== public: buffers ====
   Counted references to bytes; a slice shares the bytes of its buffer. The calls are thread-safe;
   the bytes are the caller's to protect: do not change a buffer that was queued.

   Usage, the same bytes for many peers, without a copy for each:

       pysock_buf *news = pysock_buf_copy("hello", 5);
       if (news && (pysock_send_buf(s, news) < 0 || pysock_send_buf(peer, news) < 0))
           fprintf(stderr, "%s\n", pysock_error_message());
       pysock_buf_release(news); // each queue holds a reference of its own
   */

/* size bytes, zeroed. NULL with MemoryError. The caller owns one reference. */
PYSOCKDEF pysock_buf *pysock_buf_new(size_t size);

/* A copy of size bytes at data. */
PYSOCKDEF pysock_buf *pysock_buf_copy(const void *data, size_t size);

/* A buffer of the caller's own size bytes at data, without a copy. They must stay until
   free_fn(arg, data) is called, which happens when the last reference is released, on the thread
   that releases it. free_fn may be NULL. On failure free_fn is not called.
   Callback safety: without a lock held; it may make any call. */
PYSOCKDEF pysock_buf *pysock_buf_wrap(void *data, size_t size,
                                      void (*free_fn)(void *arg, void *data), void *arg);

/* One more reference; returns b. NULL gives NULL. */
PYSOCKDEF pysock_buf *pysock_buf_retain(pysock_buf *b);

/* One reference less; the last one frees. NULL is fine. */
PYSOCKDEF void pysock_buf_release(pysock_buf *b);

/* A new buffer that shows size bytes of b from start on, without a copy; it keeps b's bytes alive.
   Errors: ValueError (outside b), MemoryError. */
PYSOCKDEF pysock_buf *pysock_buf_slice(pysock_buf *b, size_t start, size_t size);

PYSOCKDEF void *pysock_buf_data(const pysock_buf *b);  /* NULL for NULL */
PYSOCKDEF size_t pysock_buf_size(const pysock_buf *b); /* 0 for NULL */

/* Memory BIOs: bytes in memory between TLS and what carries them; see pysock_ssl_wrap_bio(). */

PYSOCKDEF pysock_bio *pysock_bio_new(void); /* NULL: MemoryError */

/* One reference more, to be released as well (returns bio), and one less; the last one frees. TLS
   between BIOs holds one of each. NULL is fine. */
PYSOCKDEF pysock_bio *pysock_bio_retain(pysock_bio *bio);
PYSOCKDEF void pysock_bio_release(pysock_bio *bio);

/* Takes up to size bytes out; 0 if it is empty. */
PYSOCKDEF ptrdiff_t pysock_bio_read(pysock_bio *bio, void *buf, size_t size);

/* Appends all, and returns size; -1 on error, or after pysock_bio_write_eof(). */
PYSOCKDEF ptrdiff_t pysock_bio_write(pysock_bio *bio, const void *data, size_t size);
PYSOCKDEF int pysock_bio_write_eof(pysock_bio *bio);     /* no more will come */
PYSOCKDEF ptrdiff_t pysock_bio_pending(pysock_bio *bio); /* bytes in it */
PYSOCKDEF int pysock_bio_eof(pysock_bio *bio);           /* 1: empty, and no more will come */

/* ==== public: states ====
   The life of the library, its hooks, and several interpreters in one process, each a scope of its
   own: sockets, pollers, closers, both hooks and the default timeout belong to the state that is
   current in the thread that made or set them. Every thread begins in the main state, NULL.

   Usage, an interpreter with sockets of its own:

       pysock_state *mine = pysock_state_new();
       pysock_state *before = pysock_state_swap(mine);
       pysock *s = pysock_create_connection("localhost", 80, 10.0);
       pysock_state_swap(before);
       if (s)
           pysock_sendall(s, "hello", 5, 0); // from any state
       pysock_state_cleanup(mine); // closes s, and ends every call on it
       pysock_state_free(mine);
   */

/* Registers a function for pysock_cleanup(). They run last registered first, each once, before
   anything is closed. Errors: MemoryError, ValueError (fn is NULL).
   Callback safety: on the thread that calls pysock_cleanup(), without a lock held; it may make any
   call. */
PYSOCKDEF int pysock_register_closer(void (*fn)(void *arg), void *arg);

/* Removes every registration of exactly this pair (Python's atexit.unregister). Returns 0. */
PYSOCKDEF int pysock_unregister_closer(void (*fn)(void *arg), void *arg);

/* Ends everything: runs the closers, makes every blocked call, select and poll fail with
   ESHUTDOWN, gives output that is still on its way and close_notify 100 ms, joins the threads and
   closes every socket. Handles of closed sockets stay safe: calls on them fail with EBADF. The
   library can be used again afterwards. Contexts, pollers and buffers are still to be released by
   their owners. It runs by itself at exit (see PYSOCK_NO_ATEXIT).
   Thread safety: any thread, but no callback other than a closer, where it does nothing; a second
   call at the same time waits for the first. */
PYSOCKDEF void pysock_cleanup(void);

/* The interrupt hook is called when a signal interrupts a call that waits (EINTR): with 0 the call
   goes on with what is left of the timeout (PEP 475), with anything else it fails with EINTR. NULL
   removes the hook.
   Callback safety: on the interrupted thread, without a lock held; it may make any call. */
PYSOCKDEF void pysock_set_interrupt_hook(int (*fn)(void *arg), void *arg);

/* What is about to happen, for the audit hook. What does not apply is NULL or 0. Pointers are valid
   during the call. */
typedef struct pysock_audit_event {
    const char *name; /* Python's: "socket.connect" */
    pysock *socket;
    const pysock_addr *addr; /* the address to connect or send to, to bind, or asked about */
    const char *host;        /* the name that is looked up */
    const char *service;     /* likewise, or a port in digits */
    int family, type, proto;
} pysock_audit_event;

/* The audit hook is called before each of these; anything but 0 denies it with EACCES:
       socket.__new__        a socket is made (family, type, proto), accepted or adopted
       socket.connect        once its address is known; addr
       socket.bind           addr
       socket.listen
       socket.sendto         addr
       socket.sendmsg        addr, where one is given
       socket.getaddrinfo    a name is looked up, for a connect too: host, service, family ...
       socket.getnameinfo    addr
       socket.gethostbyname  host; gethostbyname_ex() too
       socket.gethostbyaddr  host
       socket.getservbyname  service, host (the protocol)
       socket.getservbyport  service (the port), host (the protocol)
       socket.gethostname, socket.sethostname (host)
       pysock.thread         a thread is started; where that is denied the library goes on without,
                             as with PYSOCK_NO_THREADS
   The hook is that of the calling thread's state; for the connect of a socket with a timeout, 0
   included, to a name, that of the socket's state, on the thread that has looked the name up.
   Threads belong to the process: for them it is the main state's. NULL removes the hook.
   Callback safety: on the thread that makes the call, without a lock held; it may make any call. */
PYSOCKDEF void pysock_set_audit_hook(int (*fn)(void *arg, const pysock_audit_event *event),
                                     void *arg);

/* A new state, owned by the caller. Errors: MemoryError. */
PYSOCKDEF pysock_state *pysock_state_new(void);

/* Makes st (NULL: the main state) current in the calling thread; returns the one that was. */
PYSOCKDEF pysock_state *pysock_state_swap(pysock_state *st);

/* What pysock_cleanup() does, for the sockets, waits and closers of st (NULL: the main one) alone.
   The reactor's thread, which all share, goes on. The closers run with st current.
   Thread safety: any thread; a closer may clean up other states, but the closers of two threads
   not each other's. */
PYSOCKDEF void pysock_state_cleanup(pysock_state *st);

/* Cleans st up and frees it. It waits for an audit hook that a worker thread is in, but no longer
   than 100 ms. NULL is fine.
   Thread safety: st must not be current in another thread. */
PYSOCKDEF void pysock_state_free(pysock_state *st);

/* ==== public: names ====
   Addresses as text and by value, and the resolver.

   Usage:

       pysock_addr addr;
       char text[PYSOCK_ADDR_STRLEN];
       if (pysock_addr_resolve(&addr, AF_INET, "localhost", 80) == 0
           && pysock_addr_format(&addr, text, sizeof text) > 0)
           puts(text); // 127.0.0.1:80
   */

/* A socket address of any family, by value: the system's own, for families that the library does
   not know too (AF_NETLINK, AF_PACKET, AF_VSOCK, AF_CAN ...): fill in u and size, and use the calls
   that end in _addr. size is that of the member of u in use, in bytes; 0 where there is no
   address. */
struct pysock_addr {
    socklen_t size;
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
        struct sockaddr_storage storage;
    } u;
};

#define PYSOCK_ADDR_STRLEN 160 /* enough for pysock_addr_format of every address */

/* Reads "127.0.0.1:80", "[::1]:443", "[fe80::1%eth0]:80", "unix:/path" or "unix:@abstract"; names
   are not looked up. Errors: ValueError, with the text. */
PYSOCKDEF int pysock_addr_parse(pysock_addr *addr, const char *text);

/* Writes the same forms (Unix without a name: "unix:"), truncated to size, always terminated.
   Returns the length of the whole text. */
PYSOCKDEF size_t pysock_addr_format(const pysock_addr *addr, char *text, size_t size);

/* The port of an IPv4 or IPv6 address, in host order; -1 for another family. */
PYSOCKDEF int pysock_addr_port(const pysock_addr *addr);

/* A copy of a sockaddr of any family. Errors: ValueError (NULL, longer than any address is). */
PYSOCKDEF int pysock_addr_from_sockaddr(pysock_addr *addr, const struct sockaddr *sa,
                                        socklen_t size);

/* The address that calls with host and port use: numeric, or looked up on the calling thread, in
   family AF_INET, AF_INET6 or AF_UNIX. host "" or NULL: any address of this machine;
   "<broadcast>": 255.255.255.255. Errors: gaierror. */
PYSOCKDEF int pysock_addr_resolve(pysock_addr *addr, int family, const char *host, int port);

/* The resolver. These calls may wait for a name server, on the calling thread, whatever any timeout
   is, and nothing interrupts them. Names may be international ones in UTF-8 where the system's
   resolver accepts them (glibc does), or, with PYSOCK_IDN2, by libidn2. The caller frees what is
   returned with the function named beside it. */

typedef struct pysock_addrinfo {
    int family, type, proto;
    const char *canonname; /* "" except with AI_CANONNAME, and then in the first only */
    pysock_addr addr;
} pysock_addrinfo;

/* Python's getaddrinfo: an array into *list, for pysock_freeaddrinfo(); returns its length. host: a
   name, an address or NULL; service: a name ("http"), digits, or NULL; 0 for what does not matter;
   flags AI_... Errors: gaierror. */
PYSOCKDEF ptrdiff_t pysock_getaddrinfo(const char *host, const char *service, int family, int type,
                                       int proto, int flags, pysock_addrinfo **list);
PYSOCKDEF void pysock_freeaddrinfo(pysock_addrinfo *list); /* NULL is fine */

#define PYSOCK_HOST_STRLEN 1025  /* NI_MAXHOST: enough for every host name */
#define PYSOCK_SERVICE_STRLEN 32 /* NI_MAXSERV */

/* Python's getnameinfo: the names for an address, or its numbers with NI_NUMERICHOST and
   NI_NUMERICSERV; either text may be NULL with size 0. Errors: gaierror. */
PYSOCKDEF int pysock_getnameinfo(const pysock_addr *addr, int flags, char *host, size_t host_size,
                                 char *service, size_t service_size);

/* The IPv4 address of a host, as text into ip of size bytes (16 are enough). Errors: gaierror. */
PYSOCKDEF int pysock_gethostbyname(const char *host, char *ip, size_t size);

/* Python's (hostname, aliaslist, ipaddrlist). */
typedef struct pysock_hostent {
    const char *name;
    const char *const *aliases;
    size_t alias_count;
    const char *const *addresses;
    size_t address_count;
} pysock_hostent;

/* By name (IPv4), and by address or name (IPv4 and IPv6), for pysock_freehostent(). Errors: herror,
   gaierror. */
PYSOCKDEF pysock_hostent *pysock_gethostbyname_ex(const char *host);
PYSOCKDEF pysock_hostent *pysock_gethostbyaddr(const char *host);
PYSOCKDEF void pysock_freehostent(pysock_hostent *h); /* NULL is fine */

/* This machine's name, never truncated: ENAMETOOLONG if it does not fit. */
PYSOCKDEF int pysock_gethostname(char *name, size_t size);
PYSOCKDEF int pysock_sethostname(const char *name);

/* The first name of a host with a dot in it ("" or NULL: of this machine), or its only name; name
   itself if the host is not found. */
PYSOCKDEF int pysock_getfqdn(const char *name, char *text, size_t size);

/* Service and protocol names; proto: "tcp", "udp" or NULL. Errors: OSError ENOENT, ValueError. */
PYSOCKDEF int pysock_getservbyname(const char *service, const char *proto);
PYSOCKDEF int pysock_getservbyport(int port, const char *proto, char *service, size_t size);
PYSOCKDEF int pysock_getprotobyname(const char *name);

/* Python's inet_ calls. pton returns the number of bytes, 4 or 16, that text stands for, in out (16
   bytes of room). aton accepts what the system's does: "127.1" too. Errors: OSError EINVAL (no
   address), EAFNOSUPPORT; ValueError (packed has the wrong size). */
PYSOCKDEF int pysock_inet_aton(const char *text, unsigned char out[4]);
PYSOCKDEF int pysock_inet_ntoa(const void *packed, size_t packed_size, char *text, size_t size);
PYSOCKDEF int pysock_inet_pton(int family, const char *text, void *out);
PYSOCKDEF int pysock_inet_ntop(int family, const void *packed, size_t packed_size, char *text,
                               size_t size);

typedef struct pysock_interface {
    unsigned int index;
    char name[32];
} pysock_interface;

/* The network interfaces: an array into *list, for pysock_if_freenameindex(). Returns how many. */
PYSOCKDEF ptrdiff_t pysock_if_nameindex(pysock_interface **list);
PYSOCKDEF void pysock_if_freenameindex(pysock_interface *list); /* NULL is fine */
PYSOCKDEF int pysock_if_nametoindex(const char *name);          /* Errors: OSError ENODEV */
PYSOCKDEF int pysock_if_indextoname(unsigned int index, char *name, size_t size); /* ENXIO */

/* Python's name.encode("idna"), by IDNA 2008 with the mapping of UTS 46: a host name in UTF-8 as
   ASCII ("xn--..."), terminated, into text. Names that are ASCII already are copied. Returns the
   length. Errors: ValueError (no such name, or it does not fit), ENOTSUP (compiled without
   PYSOCK_IDN2). */
PYSOCKDEF int pysock_idna_encode(const char *name, char *text, size_t size);

/* 1: IPv6 sockets can be made; 1: and one that listens can accept IPv4 too (Python's has_ipv6 and
   has_dualstack_ipv6()). */
PYSOCKDEF int pysock_has_ipv6(void);
PYSOCKDEF int pysock_has_dualstack_ipv6(void);

/* ==== public: certificates ====
   Certificates as people read them, and Python's module functions for them. Functions that return a
   buffer give it to the caller, with a NUL behind the text.

   Usage:

       pysock_ssl_cert *cert = pysock_ssl_getpeercert(s);
       if (cert)
           printf("%s, valid until %s\n", cert->subject[0].value, cert->not_after);
       else
           fprintf(stderr, "%s\n", pysock_error_message());
       pysock_ssl_cert_free(cert);
   */

/* A distinguished name is an array of attributes; those of one RDN have its number. */
typedef struct pysock_ssl_attribute {
    const char *name;  /* OpenSSL's long one, "commonName"; or the OID in digits */
    const char *value; /* UTF-8 */
    size_t value_size; /* bytes, without the last NUL; a hostile value may hold others */
    int rdn;           /* from 0 on */
} pysock_ssl_attribute;

typedef struct pysock_ssl_alt_name {
    const char *type;  /* Python's: "DNS", "IP Address", "email", "URI", "DirName", "Registered ID",
                          "othername" */
    const char *value; /* UTF-8; for DirName "" */
    size_t value_size; /* as above */
    const pysock_ssl_attribute *dirname; /* of DirName */
    size_t dirname_count;
} pysock_ssl_alt_name;

/* A certificate, parsed: the fields of Python's getpeercert(), and some more. All that it points to
   lives as long as it does. What is absent is NULL and 0. */
typedef struct pysock_ssl_cert {
    int version;               /* 1 to 3 */
    const char *serial_number; /* "D0C7BF2E" */
    const pysock_ssl_attribute *subject, *issuer;
    size_t subject_count, issuer_count;
    const char *not_before, *not_after;            /* "Oct 27 23:01:56 2026 GMT" */
    int64_t not_before_seconds, not_after_seconds; /* since 1970 */
    const pysock_ssl_alt_name *subject_alt_names;
    size_t subject_alt_name_count;
    const char *const *ocsp, *const *ca_issuers, *const *crl_distribution_points; /* URIs */
    size_t ocsp_count, ca_issuers_count, crl_distribution_point_count;
    const char *key_type;            /* "RSA", "EC"; NULL: of another kind */
    int key_bits;                    /* 2048, 256 ... */
    const char *signature_algorithm; /* "sha256WithRSAEncryption", or the OID in digits */
    int is_ca;                       /* 1: by its basicConstraints */
    unsigned char sha256[32];        /* the fingerprint */
} pysock_ssl_cert;

/* Parses a certificate in DER; pysock_ssl_cert_free() frees it. NULL: SSLError or MemoryError. */
PYSOCKDEF pysock_ssl_cert *pysock_ssl_cert_parse(const void *der, size_t size);
PYSOCKDEF void pysock_ssl_cert_free(pysock_ssl_cert *cert);

PYSOCKDEF pysock_buf *pysock_ssl_der_cert_to_pem_cert(const void *der, size_t size);
PYSOCKDEF pysock_buf *pysock_ssl_pem_cert_to_der_cert(const char *pem);

/* "Jan  5 09:34:43 2018 GMT" as seconds since 1970. Errors: ValueError. */
PYSOCKDEF int pysock_ssl_cert_time_to_seconds(const char *cert_time, int64_t *seconds);

/* 0 if the certificate (in DER) is for this host: a DNS name, an international one, or an IP
   address as text; else -1 with SSLCertVerificationError. Python's match_hostname(), except that
   the common name does not count. */
PYSOCKDEF int pysock_ssl_match_hostname(const void *der, size_t size, const char *hostname);

/* Python's ssl._ASN1Object, and ssl.Purpose's values. */
typedef struct pysock_ssl_oid {
    int nid;               /* OpenSSL's number; 0: it is not in the table */
    const char *shortname; /* "serverAuth"; static, as the others */
    const char *longname;  /* "TLS Web Server Authentication" */
    const char *oid;       /* "1.3.6.1.5.5.7.3.1" */
} pysock_ssl_oid;

/* By OID, or by name too if names is not 0. Errors: ValueError if it is unknown. */
PYSOCKDEF int pysock_ssl_txt2obj(const char *text, int names, pysock_ssl_oid *out);
PYSOCKDEF int pysock_ssl_nid2obj(int nid, pysock_ssl_oid *out);

/* Random bytes of the best kind that the system has. */
PYSOCKDEF int pysock_ssl_rand_bytes(void *buf, size_t size);

/* ==== public: contexts ====
   Python's SSLContext. Threads may share a context; a setting holds for later connections.

   Usage, a client:

       pysock_ssl_context *tls = pysock_ssl_client_context();
       if (!tls || pysock_ssl_wrap_socket(s, tls, "example.org") < 0)
           fprintf(stderr, "%s\n", pysock_error_message());
       pysock_ssl_context_release(tls); // s keeps it

   Usage, a server, whose accept() then returns sockets with TLS around them:

       pysock_ssl_context *tls = pysock_ssl_server_context();
       if (!tls || pysock_ssl_load_cert_chain(tls, "chain.pem", "key.pem") < 0
           || pysock_ssl_wrap_socket(listener, tls, NULL) < 0)
           fprintf(stderr, "%s\n", pysock_error_message());
       pysock_ssl_context_release(tls);
   */

/* Python's ssl.Purpose: the side that the context verifies. */
typedef enum pysock_ssl_purpose {
    PYSOCK_SERVER_AUTH, /* for a client */
    PYSOCK_CLIENT_AUTH  /* for a server */
} pysock_ssl_purpose;

/* Python's ssl.VerifyMode. */
typedef enum pysock_ssl_verify_mode {
    PYSOCK_CERT_NONE,
    PYSOCK_CERT_OPTIONAL,
    PYSOCK_CERT_REQUIRED
} pysock_ssl_verify_mode;

/* Python's ssl.PROTOCOL_ constants. */
typedef enum pysock_ssl_protocol {
    PYSOCK_PROTOCOL_TLS = 2, /* either side, chosen at wrap; verifies nothing by default */
    PYSOCK_PROTOCOL_TLSv1 = 3,
    PYSOCK_PROTOCOL_TLSv1_1 = 4,
    PYSOCK_PROTOCOL_TLSv1_2 = 5,
    PYSOCK_PROTOCOL_TLS_CLIENT = 16,
    PYSOCK_PROTOCOL_TLS_SERVER = 17
} pysock_ssl_protocol;

/* Python's ssl.TLSVersion. */
typedef enum pysock_ssl_tls_version {
    PYSOCK_MINIMUM_SUPPORTED = -2,
    PYSOCK_MAXIMUM_SUPPORTED = -1,
    PYSOCK_SSLv3 = 0x300, /* not supported, as TLSv1_3 */
    PYSOCK_TLSv1 = 0x301,
    PYSOCK_TLSv1_1 = 0x302,
    PYSOCK_TLSv1_2 = 0x303,
    PYSOCK_TLSv1_3 = 0x304
} pysock_ssl_tls_version;

/* A client's context, which verifies the chain and the host name against the system's trust store
   (SSL_CERT_FILE and SSL_CERT_DIR each replace their own part of it, as in Python), and a server's;
   give that a certificate with pysock_ssl_load_cert_chain(). Both write a key log where
   SSLKEYLOGFILE says, as in Python. NULL on error. The caller owns one reference. */
PYSOCKDEF pysock_ssl_context *pysock_ssl_client_context(void);
PYSOCKDEF pysock_ssl_context *pysock_ssl_server_context(void);

/* The same by Python's name: with PYSOCK_SERVER_AUTH a client's, with PYSOCK_CLIENT_AUTH a
   server's. */
PYSOCKDEF pysock_ssl_context *pysock_ssl_create_default_context(pysock_ssl_purpose purpose);

/* As pysock_ssl_create_default_context(), without any trust anchor or key log: Python's
   SSLContext(PROTOCOL_TLS_CLIENT or _SERVER). */
PYSOCKDEF pysock_ssl_context *pysock_ssl_context_new(pysock_ssl_purpose purpose);

/* Python's SSLContext(protocol). */
PYSOCKDEF pysock_ssl_context *pysock_ssl_context_new_protocol(pysock_ssl_protocol protocol);
PYSOCKDEF pysock_ssl_protocol pysock_ssl_get_protocol(pysock_ssl_context *ctx);

/* One reference less; the last one frees: sockets hold one each. NULL is fine. */
PYSOCKDEF void pysock_ssl_context_release(pysock_ssl_context *ctx);

/* One reference more, to be released as well; returns ctx. */
PYSOCKDEF pysock_ssl_context *pysock_ssl_context_retain(pysock_ssl_context *ctx);

/* The certificate chain (leaf first) and its private key, from files of PEM or DER; keyfile NULL:
   both are in certfile. A context has one chain for each kind of key, RSA and EC; a second one of a
   kind replaces the first. Keys: PKCS#1, SEC1, PKCS#8; an encrypted one needs
   pysock_ssl_load_cert_chain_ex(). Errors name the file, the object in it and the cause, and leave
   the context as it was: what is damaged, or of a kind that may have been meant and is not read, is
   an error (PKCS#12, PKCS#7, OpenSSH's keys and UTF-16 with the command that converts them). */
PYSOCKDEF int pysock_ssl_load_cert_chain(pysock_ssl_context *ctx, const char *certfile,
                                         const char *keyfile);
PYSOCKDEF int pysock_ssl_load_cert_chain_data(pysock_ssl_context *ctx, const void *cert,
                                              size_t cert_size, const void *key, size_t key_size);

typedef struct pysock_ssl_chain_options {
    size_t size;                    /* set by PYSOCK_SSL_CHAIN_OPTIONS_INIT */
    const char *certfile, *keyfile; /* as above */
    const void *cert, *key;         /* each, instead of the file: in memory */
    size_t cert_size, key_size;     /* bytes */
    const char *password;           /* of an encrypted key, at most 1,024 bytes; or NULL */
    /* Or a function that writes the password, at most size bytes, and returns its length, or -1,
       which makes the call fail. It is called only if the key is encrypted.
       Callback safety: on the calling thread, without a lock held; it may make any call. */
    ptrdiff_t (*password_callback)(void *arg, char *buf, size_t size);
    void *arg;
} pysock_ssl_chain_options;

/* clang-format off */
#define PYSOCK_SSL_CHAIN_OPTIONS_INIT \
    {sizeof(pysock_ssl_chain_options), NULL, NULL, NULL, NULL, 0, 0, NULL, NULL, NULL}
/* clang-format on */

/* The same for encrypted keys: PKCS#8 with PBES2 (PBKDF2 with HMAC and AES or 3DES), and the
   traditional form (Proc-Type, DEK-Info with AES or 3DES). The password is needed during the call
   only; copies of it are wiped. Errors: SSLError with the reason BAD_PASSWORD_READ (there is none),
   BAD_DECRYPT (a wrong one) or UNSUPPORTED_ENCRYPTION (the message names it); ValueError if the
   password is too long. A wrong one takes as long as the key's iterations do:
   PYSOCK_MAX_PBKDF2_ITERATIONS at most. */
PYSOCKDEF int pysock_ssl_load_cert_chain_ex(pysock_ssl_context *ctx,
                                            const pysock_ssl_chain_options *options);

/* Adds trust anchors and revocation lists: a file, a directory, or either NULL; or from memory;
   PEM, or DER one after the other. Everything in a file is loaded, or nothing and the error names
   the object (see pysock_ssl_load_cert_chain()); a file without any is an error. The settings in
   OpenSSL's TRUSTED CERTIFICATE hold. In a directory only files with names such as 9d66eef0.0 and
   9d66eef0.r0 count, which "openssl rehash" makes; without any it is an error. They are looked up
   when a certificate's issuer, or its list, is needed, as OpenSSL does: a file with the next number
   is found when it appears, one that changes is not read again. For PYSOCK_PROTOCOL_TLS_SERVER all
   are read at once, as a server names its authorities to its clients. */
PYSOCKDEF int pysock_ssl_load_verify_locations(pysock_ssl_context *ctx, const char *cafile,
                                               const char *capath);
PYSOCKDEF int pysock_ssl_load_verify_data(pysock_ssl_context *ctx, const void *data, size_t size);

/* The same from every file of a directory, whatever its name is, at once. Files without a
   certificate are skipped; a damaged one is an error, and nothing is added. */
PYSOCKDEF int pysock_ssl_load_verify_directory(pysock_ssl_context *ctx, const char *path);

/* The system's trust store: a file, or what SSL_CERT_FILE names in its place, and a directory of
   hashed names, or what SSL_CERT_DIR names (separated by colons). As in Python a missing one is no
   error here; the handshake's error says what was missing or damaged. */
PYSOCKDEF int pysock_ssl_load_default_certs(pysock_ssl_context *ctx);

typedef struct pysock_ssl_verify_paths {
    const char *cafile, *capath; /* what load_default_certs() would read now; NULL: nothing */
    const char *openssl_cafile_env, *openssl_cafile, *openssl_capath_env, *openssl_capath;
} pysock_ssl_verify_paths;

/* Thread safety: as getenv(), whose strings cafile and capath may be. */
PYSOCKDEF int pysock_ssl_get_default_verify_paths(pysock_ssl_verify_paths *paths);

/* The number of trust anchors of the context; -1 with an error for NULL. */
PYSOCKDEF ptrdiff_t pysock_ssl_ca_count(pysock_ssl_context *ctx);

/* The anchors that are CAs, as DER: fills out with up to count buffers, which the caller releases,
   and returns how many there are, -1 on error. Those of a directory are there once used. */
PYSOCKDEF ptrdiff_t pysock_ssl_get_ca_certs(pysock_ssl_context *ctx, pysock_buf **out,
                                            size_t count);

/* Python's cert_store_stats(). */
typedef struct pysock_ssl_store_stats {
    size_t x509, x509_ca, crl;
} pysock_ssl_store_stats;

PYSOCKDEF int pysock_ssl_cert_store_stats(pysock_ssl_context *ctx, pysock_ssl_store_stats *stats);

/* CERT_NONE needs check_hostname off first, as in Python. On a server OPTIONAL and REQUIRED ask for
   the client's certificate. */
PYSOCKDEF int pysock_ssl_set_verify_mode(pysock_ssl_context *ctx, pysock_ssl_verify_mode mode);
PYSOCKDEF pysock_ssl_verify_mode pysock_ssl_get_verify_mode(pysock_ssl_context *ctx);
PYSOCKDEF int pysock_ssl_set_check_hostname(pysock_ssl_context *ctx, int on);
PYSOCKDEF int pysock_ssl_get_check_hostname(pysock_ssl_context *ctx);

/* Whether a certificate whose subjectAltName has neither DNS names nor addresses may name the host
   in its subject (RFC 2818, 3.1): 0 by default, unlike in Python. */
PYSOCKDEF int pysock_ssl_set_hostname_checks_common_name(pysock_ssl_context *ctx, int on);
PYSOCKDEF int pysock_ssl_get_hostname_checks_common_name(pysock_ssl_context *ctx);

/* Python's verify_flags, which have OpenSSL's numbers. */
enum {
    PYSOCK_VERIFY_DEFAULT = 0,
    PYSOCK_VERIFY_CRL_CHECK_LEAF = 0x4,        /* the leaf's issuer must have a CRL in the store */
    PYSOCK_VERIFY_CRL_CHECK_CHAIN = 0xc,       /* so must each CA's in the path */
    PYSOCK_VERIFY_X509_STRICT = 0x20,          /* all that RFC 5280 asks; private CAs fall short */
    PYSOCK_VERIFY_ALLOW_PROXY_CERTS = 0x40,    /* not supported */
    PYSOCK_VERIFY_X509_TRUSTED_FIRST = 0x8000, /* the default, and always so */
    PYSOCK_VERIFY_X509_PARTIAL_CHAIN = 0x80000 /* any loaded certificate ends a path, not roots
                                                  alone */
};

/* flags: any of the above; others are not supported (ENOTSUP). */
PYSOCKDEF int pysock_ssl_set_verify_flags(pysock_ssl_context *ctx, unsigned flags);
PYSOCKDEF unsigned pysock_ssl_get_verify_flags(pysock_ssl_context *ctx);

/* The lowest and the highest version that is accepted, by default TLS 1.2 for both. */
PYSOCKDEF int pysock_ssl_set_minimum_version(pysock_ssl_context *ctx,
                                             pysock_ssl_tls_version version);
PYSOCKDEF pysock_ssl_tls_version pysock_ssl_get_minimum_version(pysock_ssl_context *ctx);
PYSOCKDEF int pysock_ssl_set_maximum_version(pysock_ssl_context *ctx,
                                             pysock_ssl_tls_version version);
PYSOCKDEF pysock_ssl_tls_version pysock_ssl_get_maximum_version(pysock_ssl_context *ctx);

/* Python's options, which have OpenSSL's numbers. Those marked "always" are accepted, and hold
   whether they are set or not. */
#define PYSOCK_OP_LEGACY_SERVER_CONNECT ((uint64_t)0x4)         /* servers without RFC 5746 */
#define PYSOCK_OP_ALL ((uint64_t)0x80000050)                    /* workarounds: none is needed */
#define PYSOCK_OP_IGNORE_UNEXPECTED_EOF ((uint64_t)0x80)        /* a ragged end is a clean one */
#define PYSOCK_OP_ALLOW_CLIENT_RENEGOTIATION ((uint64_t)0x100)  /* on a server */
#define PYSOCK_OP_NO_TICKET ((uint64_t)0x4000)                  /* always */
#define PYSOCK_OP_NO_COMPRESSION ((uint64_t)0x20000)            /* always */
#define PYSOCK_OP_ENABLE_MIDDLEBOX_COMPAT ((uint64_t)0x100000)  /* TLS 1.3's: of no effect */
#define PYSOCK_OP_CIPHER_SERVER_PREFERENCE ((uint64_t)0x400000) /* on a server; default */
#define PYSOCK_OP_NO_SSLv2 ((uint64_t)0)                        /* always */
#define PYSOCK_OP_NO_SSLv3 ((uint64_t)0x2000000)                /* always */
#define PYSOCK_OP_NO_TLSv1 ((uint64_t)0x4000000)
#define PYSOCK_OP_NO_TLSv1_2 ((uint64_t)0x8000000)
#define PYSOCK_OP_NO_TLSv1_1 ((uint64_t)0x10000000)
#define PYSOCK_OP_NO_TLSv1_3 ((uint64_t)0x20000000)       /* always */
#define PYSOCK_OP_NO_RENEGOTIATION ((uint64_t)0x40000000) /* a client refuses it, too */
#define PYSOCK_OP_SINGLE_DH_USE ((uint64_t)0)             /* always */
#define PYSOCK_OP_SINGLE_ECDH_USE ((uint64_t)0)           /* always */
/* Not Python's: one read from the kernel for many records, instead of two for each. What has been
   read ahead is seen by select and pollers, but not by others who share the descriptor, and what
   comes behind a close_notify in the same read is lost to the plain socket after unwrap. */
#define PYSOCK_OP_READ_AHEAD ((uint64_t)1 << 40)
/* Not Python's, but what OpenSSL does by itself: a certificate that was loaded without its chain is
   sent with its issuers, up to the root, as far as they are among the loaded trust anchors. */
#define PYSOCK_OP_COMPLETE_CHAIN ((uint64_t)1 << 41)

/* Options that are not named above are refused (ENOTSUP). Where they leave a gap between versions,
   the versions below it are not accepted, as in OpenSSL. */
PYSOCKDEF int pysock_ssl_set_options(pysock_ssl_context *ctx, uint64_t options);
PYSOCKDEF uint64_t pysock_ssl_get_options(pysock_ssl_context *ctx);

/* The suites that are offered or accepted, in order of preference, in OpenSSL's language
   (ciphers(1)) for the suites that BearSSL has: "ECDHE+AESGCM:!aNULL", "HIGH:!RSA", "@STRENGTH",
   "@SECLEVEL=1". The default has forward secrecy and no SHA-1, AEAD first. Errors: SSLError,
   NO_CIPHER_MATCH. */
PYSOCKDEF int pysock_ssl_set_ciphers(pysock_ssl_context *ctx, const char *ciphers);

/* a row of Python's get_ciphers(). */
typedef struct pysock_ssl_cipher_info {
    const char *name;          /* OpenSSL's: "ECDHE-RSA-AES128-GCM-SHA256" */
    const char *standard_name; /* IANA's: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" */
    const char *protocol;      /* the version that introduced it: "TLSv1.2", "TLSv1.0", "SSLv3" */
    const char *symmetric;     /* "aes-128-gcm" */
    const char *digest;        /* of the MAC: "sha1"; NULL with AEAD */
    const char *kea, *auth;    /* "kx-ecdhe", "auth-rsa" */
    int id;                    /* IANA's number */
    int secret_bits, alg_bits; /* of strength; of the key as it is stored */
    int aead;
} pysock_ssl_cipher_info;

/* Fills out with up to count rows, and returns how many there are. */
PYSOCKDEF ptrdiff_t pysock_ssl_get_ciphers(pysock_ssl_context *ctx, pysock_ssl_cipher_info *out,
                                           size_t count);

/* OpenSSL's security level, 0 to 3, also "@SECLEVEL=n" in set_ciphers: what the verifier accepts.
   2, the default: RSA keys from 2,048 bits on, no SHA-1; 1: from 1,024 bits on; 0: from 512, and
   SHA-1; 3: from 3,072 bits on, suites with forward secrecy. */
PYSOCKDEF int pysock_ssl_set_security_level(pysock_ssl_context *ctx, int level);
PYSOCKDEF int pysock_ssl_get_security_level(pysock_ssl_context *ctx);

/* The curves of ECDHE, by name, separated by colons: X25519, prime256v1 (P-256), secp384r1 (P-384),
   secp521r1 (P-521). Errors: ValueError. */
PYSOCKDEF int pysock_ssl_set_ecdh_curve(pysock_ssl_context *ctx, const char *names);

/* ALPN protocol names, the preferred first; they are copied. A server selects the first of its own
   that the client offers; none in common is tolerated. count 0 removes ALPN. */
PYSOCKDEF int pysock_ssl_set_alpn_protocols(pysock_ssl_context *ctx, const char *const *names,
                                            size_t count);

/* A ClientHello, for a server's sni_callback; valid during the call. */
typedef struct pysock_ssl_client_hello {
    pysock *socket;          /* the server's end of the connection */
    const char *server_name; /* the name that the client asks for by SNI; NULL: none */
} pysock_ssl_client_hello;

/* Calls fn when a ClientHello has arrived. It returns 0, or the alert that refuses the client:
   PYSOCK_ALERT_UNRECOGNIZED_NAME, for example. To go on with another context, with all settings of
   that one, it calls pysock_ssl_set_context(hello->socket, other). fn NULL removes the callback.
   Callback safety: on the thread that drives the handshake, which may be the reactor's, without a
   lock held; it may make any call that does not wait for this handshake. */
PYSOCKDEF int pysock_ssl_set_sni_callback(
    pysock_ssl_context *ctx, int (*fn)(void *arg, const pysock_ssl_client_hello *hello), void *arg);

/* A handshake message, for debugging. */
typedef struct pysock_ssl_message {
    pysock *socket;
    int sent;         /* 1: by this side */
    int version;      /* the record's: 0x0303 is TLS 1.2's */
    int content_type; /* 20 change_cipher_spec, 21 alert, 22 handshake; 256: a record's header */
    int type;         /* the alert, the kind of handshake message; of a header the content type */
    const void *data;
    size_t size;
} pysock_ssl_message;

/* Calls fn with each message that a connection's first handshake sends and receives, except the
   encrypted ones (Finished). fn NULL removes the callback.
   Callback safety: on the thread that drives the handshake, which may be the reactor's, without a
   lock held; it may make any call that does not wait for this handshake. */
PYSOCKDEF int pysock_ssl_set_message_callback(pysock_ssl_context *ctx,
                                              void (*fn)(void *arg, const pysock_ssl_message *m),
                                              void *arg);

/* Python's ssl.AlertDescription (RFC 5246, 7.2; RFC 6066). */
typedef enum pysock_ssl_alert {
    PYSOCK_ALERT_CLOSE_NOTIFY = 0,
    PYSOCK_ALERT_UNEXPECTED_MESSAGE = 10,
    PYSOCK_ALERT_BAD_RECORD_MAC = 20,
    PYSOCK_ALERT_RECORD_OVERFLOW = 22,
    PYSOCK_ALERT_DECOMPRESSION_FAILURE = 30,
    PYSOCK_ALERT_HANDSHAKE_FAILURE = 40,
    PYSOCK_ALERT_BAD_CERTIFICATE = 42,
    PYSOCK_ALERT_UNSUPPORTED_CERTIFICATE = 43,
    PYSOCK_ALERT_CERTIFICATE_REVOKED = 44,
    PYSOCK_ALERT_CERTIFICATE_EXPIRED = 45,
    PYSOCK_ALERT_CERTIFICATE_UNKNOWN = 46,
    PYSOCK_ALERT_ILLEGAL_PARAMETER = 47,
    PYSOCK_ALERT_UNKNOWN_CA = 48,
    PYSOCK_ALERT_ACCESS_DENIED = 49,
    PYSOCK_ALERT_DECODE_ERROR = 50,
    PYSOCK_ALERT_DECRYPT_ERROR = 51,
    PYSOCK_ALERT_PROTOCOL_VERSION = 70,
    PYSOCK_ALERT_INSUFFICIENT_SECURITY = 71,
    PYSOCK_ALERT_INTERNAL_ERROR = 80,
    PYSOCK_ALERT_USER_CANCELLED = 90,
    PYSOCK_ALERT_NO_RENEGOTIATION = 100,
    PYSOCK_ALERT_UNSUPPORTED_EXTENSION = 110,
    PYSOCK_ALERT_CERTIFICATE_UNOBTAINABLE = 111,
    PYSOCK_ALERT_UNRECOGNIZED_NAME = 112,
    PYSOCK_ALERT_BAD_CERTIFICATE_STATUS_RESPONSE = 113,
    PYSOCK_ALERT_BAD_CERTIFICATE_HASH_VALUE = 114,
    PYSOCK_ALERT_UNKNOWN_PSK_IDENTITY = 115
} pysock_ssl_alert;

/* Appends the keys of later connections to a file that Wireshark and others read (NSS's key log
   format), which makes their content readable to everyone who has the file. NULL ends it. Python's
   keylog_filename. */
PYSOCKDEF int pysock_ssl_set_keylog_filename(pysock_ssl_context *ctx, const char *filename);

/* The file's name, as text into name of size bytes. Returns its length, 0 if there is none. Errors:
   ENAMETOOLONG if it does not fit. */
PYSOCKDEF ptrdiff_t pysock_ssl_get_keylog_filename(pysock_ssl_context *ctx, char *name,
                                                   size_t size);

/* How many sessions the context remembers for resumption; 0 disables resumption and forgets them.
   The default is 128 for a client, 1,024 for a server. They last two hours. */
PYSOCKDEF int pysock_ssl_set_session_cache(pysock_ssl_context *ctx, size_t count);

/* Python's session_stats(). */
typedef struct pysock_ssl_session_stats {
    uint64_t number; /* of sessions that a server remembers now */
    uint64_t connect, connect_good, connect_renegotiate; /* handshakes begun, finished, repeated */
    uint64_t accept, accept_good, accept_renegotiate;    /* a server's */
    uint64_t hits, misses, timeouts, cache_full; /* sessions resumed, not found, too old, dropped */
} pysock_ssl_session_stats;

PYSOCKDEF int pysock_ssl_get_session_stats(pysock_ssl_context *ctx,
                                           pysock_ssl_session_stats *stats);

/* Python's ssl.SSLSession: what a client needs to resume one; see pysock_ssl_get_session(). Counted
   and immutable. id: into 32 bytes; returns its length, 0 for a session without one. */
PYSOCKDEF pysock_ssl_session *pysock_ssl_session_retain(pysock_ssl_session *session);
PYSOCKDEF void pysock_ssl_session_release(pysock_ssl_session *session);
PYSOCKDEF ptrdiff_t pysock_ssl_session_id(const pysock_ssl_session *session, unsigned char id[32]);
PYSOCKDEF int64_t pysock_ssl_session_time(const pysock_ssl_session *session); /* since 1970 */
PYSOCKDEF int pysock_ssl_session_timeout(const pysock_ssl_session *session);  /* seconds */

/* ==== public: sockets ====
   Names and meaning are those of Python's socket objects. A pysock * is a handle: NULL, closed and
   made-up handles are recognised.

   The timeout of a socket is PYSOCK_NO_TIMEOUT (blocking, as a new one is), 0 (non-blocking), or
   seconds, a deadline for the whole of each call. Calls return 0, or what their comment says, and
   -1 or NULL with the thread's error set. Besides the kernel's errors that is
       ValueError                    a wrong argument: NULL, a negative size, a port above 65535
       OSError EBADF                 the socket is closed, before or during the call
       OSError EAGAIN                non-blocking, and the call would have to wait
       TimeoutError                  the deadline has passed
       OSError EINTR                 the interrupt hook ended the call
       OSError ESHUTDOWN             pysock_cleanup() ended the call
       SSLError and its subclasses   on TLS sockets: the handshake, or the connection, failed
       MemoryError

   host is a name, an IPv4 or IPv6 address as text, or "" or NULL: any address of this machine for
   bind, localhost for connect. On AF_UNIX sockets it is the path ('@' first: Linux's abstract
   names), and port is ignored. Ports are in host order.

   Usage, a client:

       pysock *s = pysock_create_connection("localhost", 80, 10.0);
       char buf[512];
       ptrdiff_t n = s && pysock_sendall(s, "hello\n", 6, 0) == 0 ? 1 : -1;
       while (n > 0 && (n = pysock_recv(s, buf, sizeof buf, 0)) > 0)
           fwrite(buf, 1, (size_t)n, stdout);
       if (n < 0)
           fprintf(stderr, "%s\n", pysock_error_message());
       pysock_close(s);

   Usage, a server:

       pysock *listener = pysock_create_server("127.0.0.1", 8080, -1), *client;
       while ((client = pysock_accept(listener, NULL)) != NULL) {
           pysock_sendall(client, "hello\n", 6, 0);
           pysock_close(client);
       }
       fprintf(stderr, "%s\n", pysock_error_message());
   */

/* family AF_INET, AF_INET6, AF_UNIX or any that the system has; type SOCK_STREAM, SOCK_DGRAM,
   SOCK_RAW, SOCK_SEQPACKET ...; proto 0. With SOCK_NONBLOCK in the type its timeout is 0, otherwise
   the default timeout; SOCK_CLOEXEC is accepted. It is closed on exec and never raises SIGPIPE. The
   caller owns it, until pysock_close(). */
PYSOCKDEF pysock *pysock_socket(int family, int type, int proto);

/* Two connected sockets (family AF_UNIX), into pair. */
PYSOCKDEF int pysock_socketpair(int family, int type, int proto, pysock *pair[2]);

/* A socket around an existing descriptor: Python's socket(fileno=fd), for descriptors from inetd,
   systemd or pysock_recv_fds(). The system is asked for family, type and proto where they are -1.
   The socket owns the descriptor, unless the call fails. As in Python its timeout is the default
   one, whatever O_NONBLOCK says; see pysock_obey_nonblock(). Errors: ValueError (fd < 0), OSError
   EBADF, ENOTSOCK. */
PYSOCKDEF pysock *pysock_adopt(int fd, int family, int type, int proto);

/* The same around a duplicate of fd, which stays the caller's. */
PYSOCKDEF pysock *pysock_fromfd(int fd, int family, int type, int proto);

/* A second socket on the same connection, with the same timeout; not inheritable. TLS does not
   work twice on one connection: ENOTSUP. */
PYSOCKDEF pysock *pysock_dup(pysock *s);

/* Gives the descriptor up, and returns it: it is the caller's to close. The handle is dead, calls
   that wait fail with EBADF. Queued output is sent first (EAGAIN if that would have to wait); the
   keys of TLS, and what it had decrypted, are lost: unwrap first. EBUSY: another thread's recv or
   send waits in the kernel with it. If output was lost, and no call has reported it yet, detach
   fails once with the reason. */
PYSOCKDEF int pysock_detach(pysock *s);

/* Connects, to the first address of host in the socket's family; on a socket that was wrapped
   before, does the handshake too. A non-blocking socket fails with EINPROGRESS at once, also while
   the name is looked up; select then reports writable when it is connected, or readable and
   writable when it failed, and the next call reports the error. Errors: gaierror for a name. */
PYSOCKDEF int pysock_connect(pysock *s, const char *host, int port);
PYSOCKDEF int pysock_connect_addr(pysock *s, const pysock_addr *addr);

/* The same, but returns 0 or the errno value: ETIMEDOUT at the deadline (CPython says EAGAIN),
   EADDRNOTAVAIL for a name that is not found, of which pysock_error_code() has the EAI_ code. */
PYSOCKDEF int pysock_connect_ex(pysock *s, const char *host, int port);

/* port 0: the system chooses; see pysock_getsockname(). A name is looked up on the calling thread.
   host "" on AF_UNIX: Linux chooses an abstract name. */
PYSOCKDEF int pysock_bind(pysock *s, const char *host, int port);
PYSOCKDEF int pysock_bind_addr(pysock *s, const pysock_addr *addr);

/* backlog: how many connections the kernel keeps waiting; < 0: 128. */
PYSOCKDEF int pysock_listen(pysock *s, int backlog);

/* The next connection, as a new socket with the default timeout (none: blocking, whatever the
   listening socket is); the peer's address in *peer unless peer is NULL. If the listening socket
   was wrapped the child is a TLS server, whose handshake is done by its first call or, when it is
   non-blocking or watched, by the reactor: a slow client never holds up accept(). */
PYSOCKDEF pysock *pysock_accept(pysock *s, pysock_addr *peer);

/* The same, but only the descriptor, which is the caller's and not inheritable: for pysock_adopt(),
   or another process. ENOTSUP if s was wrapped with TLS. */
PYSOCKDEF int pysock_accept_fd(pysock *s, pysock_addr *peer);

/* Reads at most size bytes into buf (Python's recv_into). Returns the number, 0 at the end of the
   stream (and for an empty datagram, which ends nothing). flags: any of the system's on plain
   sockets, 0 or MSG_PEEK on TLS ones. With MSG_DONTWAIT no call waits; with MSG_WAITALL a recv with
   a timeout waits for all too, but recvfrom and recvmsg return what there is. A TLS stream that
   ended without close_notify also returns 0 unless the socket was wrapped with raise_ragged_eofs;
   pysock_ssl_eof_is_clean() tells the two apart. */
PYSOCKDEF ptrdiff_t pysock_recv(pysock *s, void *buf, size_t size, int flags);
PYSOCKDEF ptrdiff_t pysock_recv_into(pysock *s, void *buf, size_t size, int flags);

/* Sends at most size bytes; returns how many were taken: by the kernel, or, on TLS, by the engine
   (then as whole records, which the reactor finishes if the kernel does not accept them at once).
   flags: any of the system's on plain sockets, 0 on TLS ones. */
PYSOCKDEF ptrdiff_t pysock_send(pysock *s, const void *data, size_t size, int flags);

/* Sends all, under one deadline. Returns 0. After an error it is unknown how much was sent. On a
   non-blocking socket it fails with EAGAIN if it would have to wait; see pysock_send_buf() for a
   queue that does not. */
PYSOCKDEF int pysock_sendall(pysock *s, const void *data, size_t size, int flags);

/* Messages, on plain sockets; on TLS ones they fail with ENOTSUP, as there are no messages in a
   stream. Nothing here is queued: what is sent has been taken by the kernel. */

/* As pysock_recv(), with the sender's address in *from (NULL: not wanted; size 0: the kernel does
   not report one, as on streams). A datagram that is larger than size is truncated;
   pysock_recvmsg() reports that. */
PYSOCKDEF ptrdiff_t pysock_recvfrom(pysock *s, void *buf, size_t size, int flags,
                                    pysock_addr *from);
PYSOCKDEF ptrdiff_t pysock_recvfrom_into(pysock *s, void *buf, size_t size, int flags,
                                         pysock_addr *from);

/* Sends a datagram to host and port (AF_UNIX: a path). A name is looked up anew each time; a
   non-blocking call does not wait for that: it may fail with EAGAIN, and succeeds when select
   reports writable again. Errors: gaierror, EMSGSIZE, the kernel's. */
PYSOCKDEF ptrdiff_t pysock_sendto(pysock *s, const void *data, size_t size, int flags,
                                  const char *host, int port);
PYSOCKDEF ptrdiff_t pysock_sendto_addr(pysock *s, const void *data, size_t size, int flags,
                                       const pysock_addr *addr);

/* An item of ancillary data: SOL_SOCKET with SCM_RIGHTS, IPPROTO_IPV6 with IPV6_HOPLIMIT ... */
typedef struct pysock_cmsg {
    int level, type;
    const void *data;
    size_t size; /* of data, in bytes */
} pysock_cmsg;

/* What pysock_recvmsg() takes and gives besides the data. Set it to zero first. */
typedef struct pysock_msg {
    void *control;       /* in: room for ancillary data, or NULL */
    size_t control_size; /* in: its size; out: how much of it is used */
    int flags;           /* out: MSG_TRUNC, MSG_CTRUNC, MSG_EOR, MSG_ERRQUEUE ... */
    pysock_addr addr;    /* out: the sender's; size 0: the kernel does not report one */
} pysock_msg;

/* Python's CMSG_LEN and CMSG_SPACE: the bytes that an item with size bytes of data takes, without
   and with padding. -1 with ValueError if that is more than can be. */
PYSOCKDEF ptrdiff_t pysock_cmsg_len(size_t size);
PYSOCKDEF ptrdiff_t pysock_cmsg_space(size_t size);

/* The items of a received message, one by one: begin with a zeroed *item. 1, or 0 at the end. A
   truncated item (MSG_CTRUNC) has the size that was received. data is not aligned: copy it out. */
PYSOCKDEF int pysock_msg_next(const pysock_msg *msg, pysock_cmsg *item);

/* As pysock_recvfrom(), with ancillary data and the message's flags; into one buffer, or several in
   turn. Descriptors that come by SCM_RIGHTS are the caller's to close; give MSG_CMSG_CLOEXEC. */
PYSOCKDEF ptrdiff_t pysock_recvmsg(pysock *s, void *buf, size_t size, pysock_msg *msg, int flags);
PYSOCKDEF ptrdiff_t pysock_recvmsg_into(pysock *s, const struct iovec *buffers, size_t count,
                                        pysock_msg *msg, int flags);

/* Sends the buffers' bytes, in turn, as one message, with ancillary data, to addr (NULL: the peer).
   Returns how many bytes were taken. */
PYSOCKDEF ptrdiff_t pysock_sendmsg(pysock *s, const struct iovec *buffers, size_t count,
                                   const pysock_cmsg *ancdata, size_t ancdata_count, int flags,
                                   const pysock_addr *addr);

/* Python's sendmsg_afalg: data for the kernel's cryptography, on an accepted AF_ALG socket. op:
   ALG_OP_ENCRYPT, ALG_OP_DECRYPT ...; iv of iv_size bytes, or NULL; assoc_size: how many bytes of
   the data are associated data, < 0 if there is none. Linux; ENOTSUP elsewhere. */
PYSOCKDEF ptrdiff_t pysock_sendmsg_afalg(pysock *s, const struct iovec *buffers, size_t count,
                                         int op, const void *iv, size_t iv_size,
                                         ptrdiff_t assoc_size, int flags);

/* Passes descriptors over an AF_UNIX socket, with at least one byte of data. */
PYSOCKDEF ptrdiff_t pysock_send_fds(pysock *s, const void *data, size_t size, const int *fds,
                                    size_t count, int flags);

/* Receives data and at most *count descriptors into fds; on return *count is how many came. They
   are not inheritable, and the caller's to close; those that did not fit are closed, and *msg_flags
   (which may be NULL) has MSG_CTRUNC. */
PYSOCKDEF ptrdiff_t pysock_recv_fds(pysock *s, void *buf, size_t size, int *fds, size_t *count,
                                    int flags, int *msg_flags);

/* how: SHUT_RD, SHUT_WR or SHUT_RDWR, each after queued output has been sent. On TLS, SHUT_WR sends
   close_notify and then FIN; what the peer still sends can be received, but in TLS 1.2 many peers
   answer by closing too. If output that had been taken was lost, it fails with the reason (EPIPE,
   ECONNRESET ...). */
PYSOCKDEF int pysock_shutdown(pysock *s, int how);

/* Closes. Every call that waits on s, in any thread, fails with EBADF. Output that is on its way,
   close_notify included, is finished by the reactor within PYSOCK_CLOSE_TIMEOUT seconds (without
   threads: by this call, if s blocks or has a timeout). So that unread input does not make the
   kernel reset the connection, which would discard it, the acknowledgement of output over TLS or
   from pysock_send_buf() is also waited for: after a FIN, input is read and dropped until all is
   acknowledged or the peer ends. With SO_LINGER {1, 0} nothing is finished and the connection is
   reset; {1, seconds} makes the close of a blocking socket sleep, as in the kernel. NULL and closed
   sockets are fine. The handle is dead afterwards; if files from pysock_makefile() are open the
   socket is closed with the last of them, as in Python. -1 means that it is closed, but output that
   had been taken before was lost. */
PYSOCKDEF int pysock_close(pysock *s);

/* Closes at once: queued output is dropped, the connection is reset, nothing is waited for, not
   even files of s. After pysock_close() it cuts short what that is still finishing. NULL and closed
   sockets are fine. Returns 0. */
PYSOCKDEF int pysock_abort(pysock *s);

/* The descriptor, for select and pollers; -1 (and an error) for a closed socket. It stays the
   socket's: do not close it, and read or write it only if s is plain. */
PYSOCKDEF int pysock_fileno(pysock *s);

/* The open socket whose descriptor is fd, or NULL; no error is set. */
PYSOCKDEF pysock *pysock_from_fileno(int fd);

/* What it was made as: Python's family, type and proto; the type without SOCK_NONBLOCK and
   SOCK_CLOEXEC. -1 with an error for a closed socket. */
PYSOCKDEF int pysock_family(pysock *s);
PYSOCKDEF int pysock_type(pysock *s);
PYSOCKDEF int pysock_proto(pysock *s);

/* Whether programs that are started inherit the descriptor. They do not, by default. */
PYSOCKDEF int pysock_get_inheritable(pysock *s);
PYSOCKDEF int pysock_set_inheritable(pysock *s, int inheritable);

/* This end's address, and the other's. */
PYSOCKDEF int pysock_getsockname(pysock *s, pysock_addr *addr);
PYSOCKDEF int pysock_getpeername(pysock *s, pysock_addr *addr);

/* on 0 is settimeout(0), anything else settimeout(PYSOCK_NO_TIMEOUT). Either may be called at any
   time, during a handshake or connect too. timeout_seconds: >= 0, or PYSOCK_NO_TIMEOUT. */
PYSOCKDEF int pysock_setblocking(pysock *s, int on);
PYSOCKDEF int pysock_settimeout(pysock *s, double timeout_seconds);
PYSOCKDEF double pysock_gettimeout(pysock *s); /* PYSOCK_NO_TIMEOUT, and an error, if closed */
PYSOCKDEF int pysock_getblocking(pysock *s);   /* 0 if the timeout is 0, else 1 */

/* A pointer of the program's own, kept with s; NULL at first, and for what accept() and dup() make
   of it. The library does not look at it. pysock_userdata() returns NULL, and an error, for a
   closed socket. */
PYSOCKDEF int pysock_set_userdata(pysock *s, void *userdata);
PYSOCKDEF void *pysock_userdata(pysock *s);

/* What O_NONBLOCK means if it was set by another owner of the descriptor, or before it was adopted.
   0, the default: nothing, a socket without a timeout waits. on != 0: its plain calls fail with
   EAGAIN or EINPROGRESS instead of waiting, as Python's do, until a timeout is set. */
PYSOCKDEF int pysock_obey_nonblock(pysock *s, int on);

/* The timeout of sockets that are made from now on: PYSOCK_NO_TIMEOUT unless it was set. */
PYSOCKDEF int pysock_setdefaulttimeout(double timeout_seconds);
PYSOCKDEF double pysock_getdefaulttimeout(void);

/* The system's options: level SOL_SOCKET, IPPROTO_TCP ..., name SO_REUSEADDR, TCP_NODELAY ...; size
   is the value's, in bytes, for getsockopt in and out; setsockopt with value NULL gives the kernel
   NULL and size, as Python's setsockopt(level, name, None, size). SO_ERROR also reports, once, an
   error that the reactor met while connecting. SO_RCVTIMEO and SO_SNDTIMEO hold for calls without a
   timeout over TLS too (EAGAIN). */
PYSOCKDEF int pysock_setsockopt(pysock *s, int level, int name, const void *value, socklen_t size);
PYSOCKDEF int pysock_setsockopt_int(pysock *s, int level, int name, int value);
PYSOCKDEF int pysock_getsockopt(pysock *s, int level, int name, void *value, socklen_t *size);
PYSOCKDEF int pysock_getsockopt_int(pysock *s, int level, int name, int *value);

/* Receives at most size bytes into a new buffer, whose size is what came: 0 at the end of the
   stream. NULL on error. The caller owns the buffer. */
PYSOCKDEF pysock_buf *pysock_recv_buf(pysock *s, size_t size);

/* Queues b after what is queued already, without a copy; the socket takes a reference of its own.
   Sends as much as possible at once; the reactor sends the rest. When the queue is full (at or
   above the high watermark) a non-blocking socket fails with EAGAIN, a blocking one waits.
   Returns 0. Stream sockets only. */
PYSOCKDEF int pysock_send_buf(pysock *s, pysock_buf *b);

/* A socket whose queue reached `high` bytes is not writable until it is below `low` again.
   low <= high, high > 0. The default is 32 KiB and 64 KiB. */
PYSOCKDEF int pysock_set_watermarks(pysock *s, size_t low, size_t high);

/* Bytes queued and not yet taken by the kernel or the TLS engine; -1 on error. */
PYSOCKDEF ptrdiff_t pysock_queued(pysock *s);

/* ==== public: TLS on sockets ====
   Python's SSLSocket, SSLObject and what they know of a connection.

   Usage, from plain to TLS and back on one connection (STARTTLS):

       if (pysock_ssl_wrap_socket(s, tls, "mail.example.org") < 0
           || pysock_sendall(s, "QUIT\r\n", 6, 0) < 0 || pysock_ssl_unwrap(s) < 0)
           fprintf(stderr, "%s\n", pysock_error_message());
   */

/* As initialized it is pysock_ssl_wrap_socket(). */
typedef struct pysock_ssl_wrap_options {
    size_t size;                    /* set by PYSOCK_SSL_WRAP_OPTIONS_INIT */
    const char *server_hostname;    /* what the certificate must be for, and SNI; copied; an
                                       international name as pysock_idna_encode() has it */
    int no_handshake_on_connect;    /* Python's do_handshake_on_connect=False; configuration
                                       errors are then reported by do_handshake() */
    int raise_ragged_eofs;          /* Python's suppress_ragged_eofs=False */
    int server_side;                /* the side, where the context leaves it open */
    pysock_ssl_session *session;    /* to be resumed, if the server agrees; retained */
    int caller_drives;              /* 1: a non-blocking call does as much of the handshake as
                                       needs no waiting, arithmetic too, and the reactor only
                                       helps select and pollers: for event loops that watch the
                                       descriptor themselves. The end of a handshake makes
                                       readable, too, until a call has seen it, as loops that
                                       were made for OpenSSL wait for that */
    int half_close;                 /* 1: the peer's close_notify ends only its own direction,
                                       as with OpenSSL; ours is sent by shutdown, unwrap or
                                       close, after which data may still be received */
    int no_close_notify;            /* 1: close and shutdown send none, as Python's; only
                                       unwrap does, and otherwise the peer sees a truncated
                                       stream */
    int insecure_no_check_hostname; /* 1: the host name is not checked on this connection,
                                       whatever the context says */
} pysock_ssl_wrap_options;

/* clang-format off */
#define PYSOCK_SSL_WRAP_OPTIONS_INIT \
    {sizeof(pysock_ssl_wrap_options), NULL, 0, 0, 0, NULL, 0, 0, 0, 0}
/* clang-format on */

/* Puts TLS around s, in place; the context says which side it is. A connected blocking socket does
   the handshake here; a connected non-blocking one starts it (the reactor finishes it) and returns
   0; one that is not connected does it in connect(); a listening socket makes TLS children. The
   socket keeps the context alive. server_hostname is what a client verifies and sends as SNI (NULL
   only if check_hostname is off), and NULL on a server. If the handshake fails the socket keeps
   that error: close it. Errors: ValueError while a file of the socket holds input that came before,
   in clear: it must not be taken for what the peer said under TLS. */
PYSOCKDEF int pysock_ssl_wrap_socket(pysock *s, pysock_ssl_context *ctx,
                                     const char *server_hostname);
PYSOCKDEF int pysock_ssl_wrap_socket_ex(pysock *s, pysock_ssl_context *ctx,
                                        const pysock_ssl_wrap_options *options);

/* Python's wrap_bio(): TLS without a socket. Records come from incoming and go to outgoing; the
   caller carries them. The result is used as a TLS socket is (pysock_recv(), _send(),
   pysock_ssl_do_handshake(), _unwrap(), _getpeercert() ..., pysock_close()), but it has no
   descriptor, so it cannot be selected on, and nothing happens outside its calls. A call that would
   wait fails with SSLWantReadError: carry the outgoing bytes, bring more, and call again.
   pysock_close() puts nothing into outgoing, pysock_ssl_unwrap() a close_notify. options may be
   NULL. Carried by a TLS socket this is TLS inside TLS. */
PYSOCKDEF pysock *pysock_ssl_wrap_bio(pysock_ssl_context *ctx, pysock_bio *incoming,
                                      pysock_bio *outgoing, const pysock_ssl_wrap_options *options);

/* 0: the handshake is finished. -1 with EINPROGRESS on a non-blocking socket, repeated calls
   included: it goes on by itself; select reports writable when it is finished, readable and
   writable when it failed. -1 with any other error: it failed. */
PYSOCKDEF int pysock_ssl_do_handshake(pysock *s);

/* Sends close_notify, waits for the peer's, and makes s a plain socket again. 0, or -1: on a
   non-blocking socket EINPROGRESS until the peer's has arrived (call again when select reports
   readable), and EAGAIN while output is queued, which goes first. */
PYSOCKDEF int pysock_ssl_unwrap(pysock *s);

PYSOCKDEF int pysock_is_ssl(pysock *s);              /* 1 if TLS is around s */
PYSOCKDEF int pysock_ssl_server_side(pysock *s);     /* 1 on a server */
PYSOCKDEF const char *pysock_ssl_version(pysock *s); /* "TLSv1.2"; NULL before the handshake */

/* The context in force, which an sni_callback may have changed: a reference for the caller, to be
   released with pysock_ssl_context_release(). */
PYSOCKDEF pysock_ssl_context *pysock_ssl_get_context(pysock *s);

/* Puts another context in its place (Python's SSLSocket.context), as if s had been wrapped with it;
   a session to be resumed is forgotten. It works before the handshake and, on a server, in an
   sni_callback; later it fails with EALREADY. If no handshake is possible with the context, the
   socket keeps that error: close it. */
PYSOCKDEF int pysock_ssl_set_context(pysock *s, pysock_ssl_context *ctx);

PYSOCKDEF int pysock_ssl_cipher(pysock *s, pysock_ssl_cipher_info *info);

/* On a server, the suites that both sides have, the preferred first: as pysock_ssl_get_ciphers(). 0
   on a client. */
PYSOCKDEF ptrdiff_t pysock_ssl_shared_ciphers(pysock *s, pysock_ssl_cipher_info *out, size_t count);

PYSOCKDEF const char *pysock_ssl_compression(pysock *s); /* NULL: there is none */

/* The peer's certificate, which the caller frees; whether it was verified depends on the context's
   verify_mode. NULL with an error: before the handshake; or SSLError with the reason
   NO_PEER_CERTIFICATE if the peer sent none. */
PYSOCKDEF pysock_ssl_cert *pysock_ssl_getpeercert(pysock *s);

/* The same in DER (Python's getpeercert(binary_form=True)) in a buffer that the caller owns; an
   empty one if the peer sent none. */
PYSOCKDEF pysock_buf *pysock_ssl_getpeercert_der(pysock *s);

/* The certificates that the peer sent, and the path that was verified, from the leaf to the anchor
   (none with CERT_NONE), in DER: fill out with up to count buffers, which the caller releases, and
   return how many there are. */
PYSOCKDEF ptrdiff_t pysock_ssl_get_unverified_chain(pysock *s, pysock_buf **out, size_t count);
PYSOCKDEF ptrdiff_t pysock_ssl_get_verified_chain(pysock *s, pysock_buf **out, size_t count);

/* Channel bindings of RFC 5929: "tls-unique" or "tls-server-end-point". Writes up to size bytes and
   returns how many there are (at most 64). */
PYSOCKDEF ptrdiff_t pysock_ssl_get_channel_binding(pysock *s, const char *type, void *out,
                                                   size_t size);

/* The protocol that ALPN selected, as text into name of size bytes (256 are enough). Returns its
   length, 0 if none was selected. Errors: ENAMETOOLONG if it does not fit. */
PYSOCKDEF ptrdiff_t pysock_ssl_selected_alpn_protocol(pysock *s, char *name, size_t size);

/* The host name that s was wrapped with or, on a server, that the client asked for by SNI; likewise
   (256 bytes are enough). */
PYSOCKDEF ptrdiff_t pysock_ssl_server_hostname(pysock *s, char *name, size_t size);

/* The session, to be given to another wrap of the same context (the caller releases it). NULL with
   an error before the handshake. A server that keeps no sessions gives one without an id. */
PYSOCKDEF pysock_ssl_session *pysock_ssl_get_session(pysock *s);

/* The session that a client is to resume (it is retained), instead of giving it when wrapping;
   before the handshake has sent anything. Errors: ValueError (a server's socket, another context's
   session, or too late). */
PYSOCKDEF int pysock_ssl_set_session(pysock *s, pysock_ssl_session *session);

PYSOCKDEF int pysock_ssl_session_reused(pysock *s); /* 1 if this handshake resumed a session */
PYSOCKDEF ptrdiff_t pysock_ssl_pending(pysock *s);  /* decrypted bytes in the engine */
PYSOCKDEF int pysock_ssl_eof_is_clean(pysock *s);   /* 1 if the peer's close_notify has come */

/* ==== public: select ====
   Descriptors of sockets, stdin, pipes: any. For TLS sockets readable means that recv returns
   bytes, the end or an error; writable that send takes bytes. Any number of threads may watch one
   socket. Timeouts are in seconds: 0 to test only, PYSOCK_NO_TIMEOUT to wait.

   Usage, a terminal and a socket:

       int fds[] = {0, pysock_fileno(s)};
       size_t count = 2;
       if (pysock_select(fds, &count, NULL, NULL, NULL, NULL, 10.0) > 0)
           printf("%s is readable\n", fds[0] == 0 ? "stdin" : "the socket");
   */

/* Python's select.select. Each list is an array of descriptors and its length; on return it holds
   only those that are ready, in their order. NULL stands for an empty list. Returns how many are
   ready in all, 0 at the timeout. A descriptor that is not open, or is closed meanwhile, is
   EBADF. */
PYSOCKDEF ptrdiff_t pysock_select(int *rlist, size_t *rcount, int *wlist, size_t *wcount,
                                  int *xlist, size_t *xcount, double timeout_seconds);

/* poll(2), once, correct for TLS sockets: events is what to ask for, revents the answer. A negative
   descriptor is skipped, one that is not open is reported as POLLNVAL. POLLRDNORM and POLLWRNORM
   stand for POLLIN and POLLOUT; POLLRDHUP: the peer sends no more. Returns how many have an answer,
   0 at the timeout. */
PYSOCKDEF ptrdiff_t pysock_poll(struct pollfd *fds, size_t count, double timeout_seconds);

/* The same for one socket, by its handle: events is any of POLLIN, POLLPRI, POLLOUT. Returns those
   that are ready, POLLERR and POLLHUP among them; 0 at the timeout. Errors: OSError EBADF (closed,
   before or meanwhile), ENOTSUP (TLS over memory BIOs: there is nothing to wait for). */
PYSOCKDEF int pysock_wait(pysock *s, int events, double timeout_seconds);

/* ==== public: pollers ====
   Descriptors that stay registered: a poll costs what is ready, however many are watched.

   Usage:

       pysock_poller *p = pysock_poller_new();
       pysock_pollevent events[64];
       ptrdiff_t i, n;
       pysock_setblocking(s, 0);
       pysock_poller_register(p, pysock_fileno(s), POLLIN, s);
       while ((n = pysock_poller_poll(p, events, 64, PYSOCK_NO_TIMEOUT)) > 0)
           for (i = 0; i < n; i++)
               serve((pysock *)events[i].userdata); // receives until EAGAIN
       pysock_poller_release(p);
   */

typedef struct pysock_pollevent {
    int fd;
    short events;   /* POLLIN, POLLOUT, POLLPRI, POLLERR, POLLHUP, POLLNVAL */
    void *userdata; /* that of the registration */
} pysock_pollevent;

/* Python's select.poll(), with registrations that stay. The caller owns one reference. Errors:
   MemoryError, OSError EMFILE. */
PYSOCKDEF pysock_poller *pysock_poller_new(void);

/* Python's select.epoll(): a poller that follows epoll's rules, so that programs written for it
   work. Registering twice is EEXIST, a file that is always ready EPERM, a descriptor that is not
   open EBADF, one that was never registered ENOENT; a closed one is forgotten, never reported.
   Events may have (int)EPOLLET, EPOLLONESHOT and EPOLLEXCLUSIVE, for TLS sockets too: an edge is
   reported at least once, seldom more than once. Linux; ENOTSUP elsewhere and with
   PYSOCK_NO_EPOLL. */
PYSOCKDEF pysock_poller *pysock_poller_new_epoll(void);

/* One reference more, to be released as well; returns p. NULL gives NULL. */
PYSOCKDEF pysock_poller *pysock_poller_retain(pysock_poller *p);

/* One reference less; the last one frees. The sockets stay open. NULL is fine.
   Thread safety: the last one must not be released while another thread polls. */
PYSOCKDEF void pysock_poller_release(pysock_poller *p);

/* Closes the poller: pending and later calls fail with EBADF. It must still be released. */
PYSOCKDEF int pysock_poller_close(pysock_poller *p);

/* A descriptor that is readable when a poll may have something to report, for select or another
   poller. It stays the poller's. Linux; ENOTSUP elsewhere and with PYSOCK_NO_EPOLL. */
PYSOCKDEF int pysock_poller_fileno(pysock_poller *p);

/* The open poller that has this descriptor, or of whose descriptor it is a duplicate, as one more
   reference for pysock_poller_release(): Python's epoll.fromfd(). Errors: EINVAL (there is none).
   */
PYSOCKDEF pysock_poller *pysock_poller_from_fileno(int fd);

/* events: any of POLLIN, POLLPRI, POLLOUT; errors are always reported. userdata is handed back with
   each event; the poller does not look at it. Registering again replaces both. A socket that is
   closed is reported as POLLNVAL until it is unregistered; unregister other descriptors before
   closing them. The poller keeps no socket open. */
PYSOCKDEF int pysock_poller_register(pysock_poller *p, int fd, int events, void *userdata);

/* Replaces the events; the userdata stays. Errors: OSError ENOENT (not registered). */
PYSOCKDEF int pysock_poller_modify(pysock_poller *p, int fd, int events);
PYSOCKDEF int pysock_poller_unregister(pysock_poller *p, int fd); /* KeyError if unknown */

/* Fills at most count events; returns how many, 0 at the timeout. Level-triggered: what is still
   true is reported again. When more than count are ready, the next call begins with the rest. */
PYSOCKDEF ptrdiff_t pysock_poller_poll(pysock_poller *p, pysock_pollevent *events, size_t count,
                                       double timeout_seconds);

/* ==== public: files ====
   Buffered reading and writing over a socket.

   Usage:

       pysock_file *f = pysock_makefile(s, "r", -1);
       char line[256];
       while (f && pysock_file_readline(f, line, sizeof line) > 0)
           fputs(line, stdout);
       pysock_file_close(f);
   */

/* Python's socket.makefile(). mode: "r", "w" or "rw", "b" may be added; data is always bytes,
   unchanged. buffering: the size of the buffers; < 0: 8,192; 0: none, each call is one recv or
   send. The socket should block or have a timeout. Any number of files may be made of a socket; see
   pysock_close().

   Reads deliver what is buffered before they fail. When one has timed out, all later ones fail, as
   in Python: "cannot read from timed out object"; what had been received before is not lost. When
   one was interrupted, or would have to wait (EAGAIN), it can simply be repeated: nothing is lost.
   Errors: the socket's own; ValueError (wrong mode, closed); OSError EBADF if the mode does not
   allow the call.
   Thread safety: one thread at a time for each file. */
PYSOCKDEF pysock_file *pysock_makefile(pysock *s, const char *mode, ptrdiff_t buffering);

/* size bytes; fewer only at the end of the stream (unbuffered: what one recv returns). 0 at the
   end. */
PYSOCKDEF ptrdiff_t pysock_file_read(pysock_file *f, void *buf, size_t size);
PYSOCKDEF ptrdiff_t pysock_file_readinto(pysock_file *f, void *buf, size_t size);

/* What is buffered, or what one recv returns: at least a byte, except at the end. */
PYSOCKDEF ptrdiff_t pysock_file_read1(pysock_file *f, void *buf, size_t size);

/* Everything up to the end (Python's read()). The caller owns the buffer. */
PYSOCKDEF pysock_buf *pysock_file_readall(pysock_file *f);

/* A line with its '\n', which only the last may lack; at most size - 1 bytes of it, terminated. The
   rest of a longer one comes with the next call. Returns the length, 0 at the end. size >= 2. */
PYSOCKDEF ptrdiff_t pysock_file_readline(pysock_file *f, char *line, size_t size);

/* Lines, until there have been more than hint bytes (hint <= 0: until the end), as buffers of their
   own in an array for pysock_file_freelines(). Returns how many. */
PYSOCKDEF ptrdiff_t pysock_file_readlines(pysock_file *f, ptrdiff_t hint, pysock_buf ***lines);
PYSOCKDEF void pysock_file_freelines(pysock_buf **lines, size_t count);

/* Takes all of data, or fails: what did not fit the buffer has been sent. After a failure *taken
   (unless it is NULL) is how much was taken. Returns size; unbuffered, what one send took. */
PYSOCKDEF ptrdiff_t pysock_file_write(pysock_file *f, const void *data, size_t size, size_t *taken);

/* Sends what is buffered. What could not be sent stays buffered. */
PYSOCKDEF int pysock_file_flush(pysock_file *f);

/* Flushes and frees, even if flushing fails (which is reported). NULL is fine. */
PYSOCKDEF int pysock_file_close(pysock_file *f);

/* A FILE, for fprintf, fgets and the like; fclose() it. mode: "r" or "w" ("b" may be added); for
   both directions make two. errno has the error (ETIMEDOUT, EPROTO for TLS; then
   pysock_error_message()). The same rule for pysock_close() holds. fclose() or fflush() it before
   the program ends: pysock_cleanup() closes the socket before stdio's own last flush. Errors:
   ENOTSUP if the platform cannot make one. */
PYSOCKDEF FILE *pysock_fdopen(pysock *s, const char *mode);

/* ==== public: conveniences ====
   Connections, servers and transfers of files in one call.

   Usage, a server for IPv4 and IPv6:

       pysock_server_options options = PYSOCK_SERVER_OPTIONS_INIT;
       pysock *listener;
       options.dualstack_ipv6 = pysock_has_dualstack_ipv6();
       listener = pysock_create_server_ex("", 8080, &options);
       if (!listener)
           fprintf(stderr, "%s\n", pysock_error_message());
   */

/* Looks host up and tries each address in turn until one connects; the timeout (seconds,
   PYSOCK_NO_TIMEOUT or PYSOCK_DEFAULT_TIMEOUT) is for all of it, is shared among the addresses, and
   becomes the socket's own. The error is the last address's. */
PYSOCKDEF pysock *pysock_create_connection(const char *host, int port, double timeout_seconds);

/* As initialized it is pysock_create_connection(). */
typedef struct pysock_connection_options {
    size_t size;             /* set by PYSOCK_CONNECTION_OPTIONS_INIT */
    const char *source_host; /* bound before connecting; NULL or "": any */
    int source_port;         /* 0: any */
    int all_errors;          /* the message has every address's error */
    /* NULL, or called for each address that fails; pysock_error() and its like have the reason.
       Callback safety: on the calling thread, without a lock held; it may make any call. */
    void (*failed)(void *arg, const pysock_addr *addr);
    void *arg;
} pysock_connection_options;

/* clang-format off */
#define PYSOCK_CONNECTION_OPTIONS_INIT {sizeof(pysock_connection_options), NULL, 0, 0, NULL, NULL}
/* clang-format on */

PYSOCKDEF pysock *pysock_create_connection_ex(const char *host, int port, double timeout_seconds,
                                              const pysock_connection_options *options);

/* A TCP socket that listens on host ("" or NULL: any IPv4 address) and port (0: a free one), with
   SO_REUSEADDR; IPv6 where host is an IPv6 address. backlog: as of pysock_listen(). */
PYSOCKDEF pysock *pysock_create_server(const char *host, int port, int backlog);

/* As initialized it is pysock_create_server(..., -1). */
typedef struct pysock_server_options {
    size_t size;        /* set by PYSOCK_SERVER_OPTIONS_INIT */
    int family;         /* AF_INET, AF_INET6, AF_UNIX; 0: by host */
    int backlog;        /* as of pysock_listen() */
    int reuse_port;     /* SO_REUSEPORT; ValueError where there is none */
    int dualstack_ipv6; /* one AF_INET6 socket for IPv4 too; ValueError where that
                           cannot be */
} pysock_server_options;

/* clang-format off */
#define PYSOCK_SERVER_OPTIONS_INIT {sizeof(pysock_server_options), 0, -1, 0, 0}
/* clang-format on */

PYSOCKDEF pysock *pysock_create_server_ex(const char *host, int port,
                                          const pysock_server_options *options);

/* Sends count bytes (< 0: all) of a regular file from offset on (< 0: from its position), by the
   kernel's sendfile if there is one, by reading and sending otherwise and over TLS. Returns how
   many were sent: fewer than count if the file is shorter. On return, after an error too, the
   file's position is behind what was sent. A timeout is for each wait on the peer, not for all.
   Stream sockets only, not non-blocking ones (ValueError), as in Python. */
PYSOCKDEF int64_t pysock_sendfile(pysock *s, int fd, int64_t offset, int64_t count);

/* The certificate of a server, in PEM with a NUL behind it, verified by the CAs in ca_certs (a
   file), or not at all if that is NULL. The timeout is for all of it. */
PYSOCKDEF pysock_buf *pysock_ssl_get_server_certificate(const char *host, int port,
                                                        const char *ca_certs,
                                                        double timeout_seconds);

#ifdef __cplusplus
}
#endif

#endif /* PYSOCK_H */
#ifdef PYSOCK_IMPLEMENTATION
#ifndef PYSOCK__IMPLEMENTED
#define PYSOCK__IMPLEMENTED

/* ---- >>platform ----
   Threads, mutexes, atomics, clocks, descriptors, wakers and the kernel's poll set: what differs
   between systems, as small functions that a Win32 version would define too. Calls return >= 0, or
   a negated errno value. The only lock is the one inside the array form of a poll set. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <locale.h>
#include <net/if.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#ifndef PYSOCK_NO_THREADS
#include <pthread.h>
#include <sched.h>
#endif
#ifdef __linux__
#include <linux/sockios.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#endif
#ifdef PYSOCK_IDN2
#include <idn2.h>
#endif
#if defined(__linux__) && !defined(PYSOCK_NO_EPOLL)
#define PYSOCK__EPOLL 1
#include <sys/epoll.h>
#endif
#if defined(__has_include) && !defined(PYSOCK_NO_SSL)
#if !__has_include(<bearssl.h>)
#error "pysock: there is no bearssl.h: apt-get install libbearssl-dev (Debian, Ubuntu), \
dnf install bearssl-devel (Fedora), apk add bearssl-dev (Alpine), pacman -S bearssl (Arch), \
brew install bearssl (macOS); or give its directory with -I, or build without TLS (-DPYSOCK_NO_SSL)"
#define PYSOCK_NO_SSL 1 /* so that this is the only error */
#endif
#endif
#ifndef PYSOCK_NO_SSL
#include <bearssl.h>
#endif

#if defined(__GLIBC__) && !defined(__USE_XOPEN2K)
#error "pysock: include pysock.h before any system header, or compile with -D_GNU_SOURCE"
#endif

#ifndef PYSOCK_MALLOC
#define PYSOCK_MALLOC(size) malloc(size)
#define PYSOCK_REALLOC(p, size) realloc(p, size)
#define PYSOCK_FREE(p) free(p)
#endif
#ifndef PYSOCK_ASSERT
#include <assert.h>
#define PYSOCK_ASSERT(condition) assert(condition)
#endif
#ifndef PYSOCK_MAX_SOCKETS
#define PYSOCK_MAX_SOCKETS 65535
#endif
#ifndef PYSOCK_MAX_LOOKUPS
#define PYSOCK_MAX_LOOKUPS 64
#endif
#ifndef PYSOCK_MAX_PBKDF2_ITERATIONS
#define PYSOCK_MAX_PBKDF2_ITERATIONS 10000000
#endif
#ifndef PYSOCK_CLOSE_TIMEOUT
#define PYSOCK_CLOSE_TIMEOUT 5.0
#endif
#ifndef PYSOCK_TRACE
#define PYSOCK_TRACE(event, socket) ((void)(socket)) /* events for the tests */
#endif

#define PYSOCK__COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Platform: atomics. Loads acquire, stores release, changes are sequentially consistent. */

#define pysock__load(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define pysock__store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define pysock__exchange(p, v) __atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST)
#define pysock__add(p, v) __atomic_add_fetch((p), (v), __ATOMIC_SEQ_CST)
#define pysock__cas(p, expected, desired)                                                          \
    __atomic_compare_exchange_n((p), (expected), (desired), 0, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE)

/* Platform: time. Deadlines are monotonic nanoseconds. */

#define PYSOCK__NEVER INT64_MAX

static int64_t pysock__now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* The time ns from now; PYSOCK__NEVER if ns is negative. */
static int64_t pysock__deadline_in(int64_t ns)
{
    int64_t now;

    if (ns < 0)
        return PYSOCK__NEVER;
    now = pysock__now();
    return ns > PYSOCK__NEVER - now ? PYSOCK__NEVER : now + ns;
}

/* A duration for poll(2): milliseconds, rounded up. */
static int pysock__ms_of(int64_t ns)
{
    int64_t ms = ns <= 0 ? 0 : (ns - 1) / 1000000 + 1;

    return ms > INT_MAX ? INT_MAX : (int)ms;
}

/* Milliseconds until deadline; -1 for never. */
static int pysock__poll_ms(int64_t deadline)
{
    if (deadline == PYSOCK__NEVER)
        return -1;
    return deadline ? pysock__ms_of(deadline - pysock__now()) : 0;
}

/* Platform: mutexes and threads. */

#ifdef PYSOCK_NO_THREADS

#define PYSOCK__THREADS 0
#define PYSOCK__THREAD_LOCAL
/* clang-format off */
#define PYSOCK__MUTEX_INIT {0}
typedef struct { int unused; } pysock__mutex;
typedef struct { int unused; } pysock__thread;

static void pysock__mutex_init(pysock__mutex *m) { m->unused = 0; }
static void pysock__mutex_free(pysock__mutex *m) { (void)m; }
static void pysock__lock(pysock__mutex *m) { (void)m; }
static void pysock__unlock(pysock__mutex *m) { (void)m; }
/* clang-format on */

static int pysock__thread_start(pysock__thread *t, void (*fn)(void *), void *arg)
{
    (void)t, (void)fn, (void)arg;
    return -ENOTSUP;
}

static void pysock__thread_yield(void) {}
static void pysock__thread_join(pysock__thread *t)
{
    (void)t;
}
static void pysock__thread_detach(pysock__thread *t)
{
    (void)t;
}

static void (*pysock__fork_fn)(void);
static pid_t pysock__fork_pid;

static int pysock__atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    (void)prepare, (void)parent;
    pysock__fork_fn = child;
    pysock__fork_pid = getpid();
    return 0;
}

/* Without threads there is no fork handler: each call checks for a fork. */
static void pysock__fork_check(void)
{
    if (!pysock__fork_fn || pysock__fork_pid == getpid())
        return;
    pysock__fork_pid = getpid();
    pysock__fork_fn();
}

static void pysock__at_thread_exit(void (*fn)(void *), void *arg)
{
    (void)fn, (void)arg;
}

#else

#define PYSOCK__THREADS 1
#define PYSOCK__THREAD_LOCAL __thread
/* clang-format off */
#define PYSOCK__MUTEX_INIT {PTHREAD_MUTEX_INITIALIZER}
typedef struct { pthread_mutex_t m; } pysock__mutex;
typedef struct { pthread_t id; } pysock__thread;

static void pysock__mutex_init(pysock__mutex *m) { pthread_mutex_init(&m->m, NULL); }
static void pysock__mutex_free(pysock__mutex *m) { pthread_mutex_destroy(&m->m); }
static void pysock__lock(pysock__mutex *m) { pthread_mutex_lock(&m->m); }
static void pysock__unlock(pysock__mutex *m) { pthread_mutex_unlock(&m->m); }
/* clang-format on */

typedef struct pysock__thread_start_arg {
    void (*fn)(void *);
    void *arg;
} pysock__thread_start_arg;

static void *pysock__thread_main(void *arg)
{
    pysock__thread_start_arg start = *(pysock__thread_start_arg *)arg;
    PYSOCK_FREE(arg);
    start.fn(start.arg);
    return NULL;
}

/* The new thread blocks all signals. */
static int pysock__thread_start(pysock__thread *t, void (*fn)(void *), void *arg)
{
    sigset_t all, before;
    int err;
    pysock__thread_start_arg *start = (pysock__thread_start_arg *)PYSOCK_MALLOC(sizeof *start);

    if (!start)
        return -ENOMEM;
    start->fn = fn;
    start->arg = arg;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    err = pthread_create(&t->id, NULL, pysock__thread_main, start);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err)
        PYSOCK_FREE(start);
    return -err;
}

static void pysock__thread_yield(void)
{
    sched_yield();
}
static void pysock__thread_join(pysock__thread *t)
{
    pthread_join(t->id, NULL);
}
static void pysock__thread_detach(pysock__thread *t)
{
    pthread_detach(t->id);
}

static int pysock__atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    return -pthread_atfork(prepare, parent, child);
}

static void pysock__fork_check(void) {} /* the fork handler does it */

static pthread_key_t pysock__exit_key;
static pthread_once_t pysock__exit_once = PTHREAD_ONCE_INIT;
static void (*pysock__exit_fn)(void *); /* atomic */

static void pysock__exit_key_make(void)
{
    pthread_key_create(&pysock__exit_key, pysock__load(&pysock__exit_fn));
}

/* Calls fn(arg) when the calling thread ends. There is one such fn in the library. */
static void pysock__at_thread_exit(void (*fn)(void *), void *arg)
{
    pysock__store(&pysock__exit_fn, fn);
    pthread_once(&pysock__exit_once, pysock__exit_key_make);
    pthread_setspecific(pysock__exit_key, arg);
}

#endif

/* Platform: cancellation. A thread cancelled inside a call would leave locks held, and waiters on a
   stack that is gone. So no call is a cancellation point: every system call that is one is made
   between these two. */

static int pysock__cancel_off(void)
{
    int before = 0;

#if PYSOCK__THREADS && !defined(__ANDROID__) /* which has no pthread_cancel() */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
#endif
    return before;
}

static void pysock__cancel_restore(int before)
{
#if PYSOCK__THREADS && !defined(__ANDROID__)
    pthread_setcancelstate(before, &before);
#else
    (void)before;
#endif
}

/* Platform: whether a call may sleep in the kernel's recv and send. That requires that MSG_DONTWAIT
   keeps other calls on the same socket from sleeping, and that shutdown(2) wakes the sleeper, as on
   these systems. (XNU's send honours O_NONBLOCK only.) Elsewhere every descriptor has O_NONBLOCK,
   whatever the timeout, and a call polls the descriptor and its waker. */
#ifndef PYSOCK__KERNEL_SLEEPS
#if defined(__linux__) || defined(__FreeBSD__) || defined(__OpenBSD__) || defined(__DragonFly__)
#define PYSOCK__KERNEL_SLEEPS 1
#else
#define PYSOCK__KERNEL_SLEEPS 0
#endif
#endif

/* Counts forks. What must not be shared with the parent records the count when it is made. */
static unsigned pysock__fork_generation;

/* Platform: descriptors. */

static int pysock__neg_errno(void)
{
    return errno == EWOULDBLOCK ? -EAGAIN : -errno;
}

static void pysock__set_errno(int code)
{
    errno = code;
}

static int pysock__get_errno(void)
{
    return errno;
}

static void pysock__fd_close(int fd)
{
    int before = pysock__cancel_off();

    close(fd); /* closed even on EINTR, on every system that matters */
    pysock__cancel_restore(before);
}

static int pysock__fd_set_nonblocking(int fd, int on)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0)
        return pysock__neg_errno();
    if (!(flags & O_NONBLOCK) == !on)
        return 0;
    return fcntl(fd, F_SETFL, flags ^ O_NONBLOCK) < 0 ? pysock__neg_errno() : 0;
}

#if !defined(__linux__) || !defined(SOCK_CLOEXEC) || (defined(__GLIBC__) && !defined(__USE_GNU))
#define PYSOCK__CLOEXEC_BY_HAND 1 /* no call sets it atomically */

static int pysock__fd_cloexec(int fd)
{
    return fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? pysock__neg_errno() : 0;
}
#endif

/* Sets or clears O_NONBLOCK as a socket with this timeout needs it. */
static int pysock__fd_set_mode(int fd, int64_t timeout)
{
    return pysock__fd_set_nonblocking(fd, timeout >= 0 || !PYSOCK__KERNEL_SLEEPS);
}

/* A duplicate with close-on-exec set. */
static int pysock__fd_dup(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    return copy < 0 ? pysock__neg_errno() : copy;
}

static int pysock__fd_inheritable(int fd)
{
    int flags = fcntl(fd, F_GETFD);

    return flags < 0 ? pysock__neg_errno() : !(flags & FD_CLOEXEC);
}

static int pysock__fd_set_inheritable(int fd, int on)
{
    int flags = fcntl(fd, F_GETFD);

    if (flags < 0)
        return pysock__neg_errno();
    flags = on ? flags & ~FD_CLOEXEC : flags | FD_CLOEXEC;
    return fcntl(fd, F_SETFD, flags) < 0 ? pysock__neg_errno() : 0;
}

/* 1 if calls on it may sleep: O_NONBLOCK is clear. */
static int pysock__fd_blocks(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && !(flags & O_NONBLOCK);
}

/* The size of a regular file; -EINVAL for any other. */
static int64_t pysock__fd_size(int fd)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return pysock__neg_errno();
    return S_ISREG(st.st_mode) ? (int64_t)st.st_size : -EINVAL;
}

/* The position in the file, which is set to offset first if offset >= 0. */
static int64_t pysock__fd_seek(int fd, int64_t offset)
{
    off_t at = (off_t)(offset < 0 ? 0 : offset);

    if (offset >= 0 && (int64_t)at != offset)
        return -EOVERFLOW;
    at = lseek(fd, at, offset < 0 ? SEEK_CUR : SEEK_SET);
    return at < 0 ? pysock__neg_errno() : (int64_t)at;
}

static ptrdiff_t pysock__fd_read_at(int fd, void *buf, size_t size, int64_t offset)
{
    int before;
    ssize_t n;

    if ((int64_t)(off_t)offset != offset)
        return -EOVERFLOW;
    before = pysock__cancel_off();
    do
        n = pread(fd, buf, size, (off_t)offset);
    while (n < 0 && errno == EINTR);
    pysock__cancel_restore(before);
    return n < 0 ? pysock__neg_errno() : n;
}

static int pysock__poll(struct pollfd *fds, size_t count, int64_t deadline)
{
    int before = pysock__cancel_off();
    int n = poll(fds, (nfds_t)count, pysock__poll_ms(deadline));

    pysock__cancel_restore(before);
    return n < 0 ? pysock__neg_errno() : n;
}

/* Waits until there is something to receive, for at most ms milliseconds. */
static int pysock__poll_in(int fd, int ms)
{
    struct pollfd p;
    int before = pysock__cancel_off(), n;

    p.fd = fd;
    p.events = POLLIN;
    n = poll(&p, 1, ms);
    pysock__cancel_restore(before);
    return n < 0 ? pysock__neg_errno() : n;
}

/* Platform: wakers. A waker ends a poll() from another thread. If `signaled` is set already,
   pysock__wake() writes nothing. Draining reads first and clears it then, so a thread that finds it
   set can rely on the sleeper to test again. */

typedef struct pysock__waker {
    int rfd, wfd;        /* the same eventfd, or a pipe's ends */
    int signaled;        /* atomic */
    unsigned generation; /* the fork count: a child must not share it */
} pysock__waker;

#define PYSOCK__OWN_FDS 256 /* the lowest number for the library's own descriptors */

/* Wakers are opened and closed as threads sleep, and a program may count on the lowest free number,
   or on one that it has just closed, for its next descriptor. So wakers move to high numbers; if
   none is free they stay. */
static int pysock__fd_out_of_the_way(int fd)
{
    int moved = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, PYSOCK__OWN_FDS);

    if (moved < 0)
        return fd;
    pysock__fd_close(fd);
    return moved;
}

static int pysock__waker_open(pysock__waker *w)
{
    w->signaled = 0;
    w->generation = pysock__fork_generation;
#ifdef __linux__
    w->rfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->rfd < 0) {
        w->wfd = -1;
        return pysock__neg_errno();
    }
    w->rfd = w->wfd = pysock__fd_out_of_the_way(w->rfd);
    return 0;
#else
    {
        int ends[2], err;
        if (pipe(ends) < 0)
            return pysock__neg_errno();
        w->rfd = ends[0] = pysock__fd_out_of_the_way(ends[0]);
        w->wfd = ends[1] = pysock__fd_out_of_the_way(ends[1]);
        if ((err = pysock__fd_cloexec(ends[0])) < 0 || (err = pysock__fd_cloexec(ends[1])) < 0
            || (err = pysock__fd_set_nonblocking(ends[0], 1)) < 0
            || (err = pysock__fd_set_nonblocking(ends[1], 1)) < 0) {
            pysock__fd_close(ends[0]);
            pysock__fd_close(ends[1]);
            w->rfd = w->wfd = -1;
            return err;
        }
        return 0;
    }
#endif
}

static void pysock__waker_close(pysock__waker *w)
{
    if (w->rfd < 0)
        return;
    pysock__fd_close(w->rfd);
    if (w->wfd != w->rfd)
        pysock__fd_close(w->wfd);
    w->rfd = w->wfd = -1;
}

static void pysock__wake(pysock__waker *w)
{
    uint64_t one = 1;
    int before;

    if (pysock__exchange(&w->signaled, 1))
        return;
    before = pysock__cancel_off();
    while (write(w->wfd, &one, sizeof one) < 0 && errno == EINTR)
        ;
    pysock__cancel_restore(before);
}

/* reported: poll() reported it readable. (It can be readable with `signaled` clear, if a drain ran
   between the two steps of pysock__wake().) */
static void pysock__waker_drain(pysock__waker *w, int reported)
{
    uint64_t scratch[8];
    int before;

    if (!reported && !pysock__load(&w->signaled))
        return;
    before = pysock__cancel_off();
    while (read(w->rfd, scratch, sizeof scratch) == (ssize_t)sizeof scratch)
        ;
    pysock__cancel_restore(before);
    pysock__exchange(&w->signaled, 0);
}

/* Platform: a kernel poll set that persists between polls, for pollers. Events are poll's; each
   comes back with its token. On Linux it is an epoll descriptor, elsewhere (and with
   PYSOCK_NO_EPOLL) an array of pollfd. The poller's lock guards set and forget. A wait does not
   hold it, and sees changes of the array only after its waker ends it; *woken is then set. If sleep
   is not NULL, a wait calls it like poll(2), with the waker's descriptor first. */

typedef struct pysock__pset_event {
    uint64_t token;
    short events;
} pysock__pset_event;

typedef int (*pysock__sleep_fn)(pysock__waker *waker, struct pollfd *fds, size_t count,
                                int64_t deadline);

#ifdef PYSOCK__EPOLL

#define PYSOCK__PSET_WAKER UINT64_MAX
#define PYSOCK__EPOLL_ET EPOLLET
#define PYSOCK__EPOLL_ONESHOT EPOLLONESHOT
#ifdef EPOLLEXCLUSIVE
#define PYSOCK__EPOLL_EXCLUSIVE EPOLLEXCLUSIVE
#else
#define PYSOCK__EPOLL_EXCLUSIVE 0u
#endif

typedef struct pysock__pset {
    int epfd;
} pysock__pset;

/* Adds fd or changes its events, which may have epoll's flags; known: it is probably in the set.
   -EPERM: a file that is always ready. */
static int pysock__pset_set(pysock__pset *set, int fd, uint32_t events, uint64_t token, int known)
{
    struct epoll_event ev;

    memset(&ev, 0, sizeof ev);
    ev.events = events; /* the numbers are poll's on Linux */
    ev.data.u64 = token;
    if (events & PYSOCK__EPOLL_EXCLUSIVE) {
        epoll_ctl(set->epfd, EPOLL_CTL_DEL, fd, &ev); /* EPOLL_CTL_MOD does not accept it */
        return epoll_ctl(set->epfd, EPOLL_CTL_ADD, fd, &ev) < 0 ? pysock__neg_errno() : 0;
    }
    if (epoll_ctl(set->epfd, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev) == 0)
        return 0;
    if (errno == (known ? ENOENT : EEXIST)
        && epoll_ctl(set->epfd, known ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &ev) == 0)
        return 0;
    return pysock__neg_errno();
}

/* 0, or -ENOENT or -EBADF if the kernel has removed it already. */
static int pysock__pset_forget(pysock__pset *set, int fd)
{
    struct epoll_event ev;

    memset(&ev, 0, sizeof ev);
    return epoll_ctl(set->epfd, EPOLL_CTL_DEL, fd, &ev) < 0 ? pysock__neg_errno() : 0;
}

/* Whether fd is still in the set: the kernel removes what is closed. */
static int pysock__pset_knows(pysock__pset *set, int fd)
{
    struct epoll_event ev;

    memset(&ev, 0, sizeof ev);
    if (epoll_ctl(set->epfd, EPOLL_CTL_ADD, fd, &ev) == 0) {
        epoll_ctl(set->epfd, EPOLL_CTL_DEL, fd, &ev);
        return 0;
    }
    return errno == EEXIST;
}

static void pysock__pset_close(pysock__pset *set)
{
    pysock__fd_close(set->epfd);
}

static int pysock__pset_fileno(const pysock__pset *set)
{
    return set->epfd;
}

static int pysock__pset_open(pysock__pset *set, pysock__waker *waker)
{
    int err;

    set->epfd = epoll_create1(EPOLL_CLOEXEC);
    if (set->epfd < 0)
        return pysock__neg_errno();
    err = pysock__pset_set(set, waker->rfd, POLLIN, PYSOCK__PSET_WAKER, 0);
    if (err < 0)
        pysock__fd_close(set->epfd);
    return err;
}

static int pysock__pset_replace(int epfd, int with)
{
#ifndef PYSOCK__CLOEXEC_BY_HAND
    return dup3(with, epfd, O_CLOEXEC) < 0 ? pysock__neg_errno() : 0;
#else
    return dup2(with, epfd) < 0 ? pysock__neg_errno() : pysock__fd_cloexec(epfd);
#endif
}

/* Replaces the set with an empty one under the same number. */
static int pysock__pset_renew(pysock__pset *set, pysock__waker *waker)
{
    pysock__pset fresh;
    int err = pysock__pset_open(&fresh, waker);

    if (err < 0)
        return err;
    err = pysock__pset_replace(set->epfd, fresh.epfd);
    pysock__fd_close(fresh.epfd);
    return err;
}

static int pysock__pset_wait(pysock__pset *set, pysock__waker *waker, pysock__sleep_fn sleep,
                             pysock__pset_event *out, size_t max, int64_t deadline, int *woken)
{
    struct epoll_event evs[64];
    struct pollfd fds[2];
    int n, i, before, filled = 0;

    if (sleep && deadline) {
        fds[0].fd = waker->rfd;
        fds[1].fd = set->epfd;
        fds[0].events = fds[1].events = POLLIN;
        n = sleep(waker, fds, 2, deadline);
        if (n < 0)
            return n;
        deadline = 0;
    }
    if (max > PYSOCK__COUNT(evs))
        max = PYSOCK__COUNT(evs);
    before = pysock__cancel_off();
    n = epoll_wait(set->epfd, evs, (int)max, pysock__poll_ms(deadline));
    pysock__cancel_restore(before);
    if (n < 0)
        return pysock__neg_errno();
    for (i = 0; i < n; i++) {
        if (evs[i].data.u64 == PYSOCK__PSET_WAKER) {
            *woken = 1;
            continue;
        }
        out[filled].token = evs[i].data.u64;
        out[filled++].events = (short)(evs[i].events & 0x7fff);
    }
    return filled;
}

#else

#define PYSOCK__EPOLL_ET 0u
#define PYSOCK__EPOLL_ONESHOT 0u
#define PYSOCK__EPOLL_EXCLUSIVE 0u

typedef struct pysock__pset {
    pysock__mutex lock;
    struct pollfd *fds; /* guarded by lock */
    uint64_t *tokens;   /* guarded by lock */
    size_t count, cap;  /* guarded by lock */
    size_t next;        /* guarded by lock; where the last wait stopped, for fairness */
} pysock__pset;

static int pysock__pset_open(pysock__pset *set, pysock__waker *waker)
{
    (void)waker;
    memset(set, 0, sizeof *set);
    pysock__mutex_init(&set->lock);
    return 0;
}

static void pysock__pset_close(pysock__pset *set)
{
    PYSOCK_FREE(set->fds);
    PYSOCK_FREE(set->tokens);
    pysock__mutex_free(&set->lock);
}

static int pysock__pset_renew(pysock__pset *set, pysock__waker *waker)
{
    pysock__pset_close(set);
    return pysock__pset_open(set, waker);
}

static int pysock__pset_fileno(const pysock__pset *set)
{
    (void)set;
    return -ENOTSUP;
}

static int pysock__fd_valid(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static size_t pysock__pset_find_locked(const pysock__pset *set, int fd)
{
    size_t i;

    for (i = 0; i < set->count && set->fds[i].fd != fd; i++)
        ;
    return i;
}

static int pysock__pset_reserve_locked(pysock__pset *set)
{
    size_t cap = set->cap ? set->cap * 2 : 16;
    struct pollfd *fds;
    uint64_t *tokens;

    if (set->count < set->cap)
        return 0;
    fds = (struct pollfd *)PYSOCK_REALLOC(set->fds, cap * sizeof *fds);
    if (!fds)
        return -ENOMEM;
    set->fds = fds;
    tokens = (uint64_t *)PYSOCK_REALLOC(set->tokens, cap * sizeof *tokens);
    if (!tokens)
        return -ENOMEM;
    set->tokens = tokens;
    set->cap = cap;
    return 0;
}

static int pysock__pset_set(pysock__pset *set, int fd, uint32_t events, uint64_t token, int known)
{
    size_t i;
    int err = 0;

    (void)known;
    if (!pysock__fd_valid(fd))
        return -EBADF;
    pysock__lock(&set->lock);
    i = pysock__pset_find_locked(set, fd);
    if (i == set->count && (err = pysock__pset_reserve_locked(set)) == 0)
        set->count++;
    if (!err) {
        set->fds[i].fd = fd;
        set->fds[i].events = (short)(events & 0x7fff);
        set->tokens[i] = token;
    }
    pysock__unlock(&set->lock);
    return err;
}

static int pysock__pset_knows(pysock__pset *set, int fd)
{
    int known;

    pysock__lock(&set->lock);
    known = pysock__pset_find_locked(set, fd) < set->count;
    pysock__unlock(&set->lock);
    return known;
}

static int pysock__pset_forget(pysock__pset *set, int fd)
{
    size_t i;

    pysock__lock(&set->lock);
    i = pysock__pset_find_locked(set, fd);
    if (i < set->count) {
        set->count--;
        set->fds[i] = set->fds[set->count];
        set->tokens[i] = set->tokens[set->count];
    }
    pysock__unlock(&set->lock);
    return 0;
}

/* A copy of the waker's descriptor and the array, to poll without the lock; the tokens follow. */
static struct pollfd *pysock__pset_copy(pysock__pset *set, pysock__waker *waker, size_t *count)
{
    struct pollfd *fds;
    uint64_t *tokens;
    size_t i, k;

    pysock__lock(&set->lock);
    *count = set->count + 1;
    fds = (struct pollfd *)PYSOCK_MALLOC((*count + 1) * (sizeof *fds + sizeof *tokens));
    tokens = fds ? (uint64_t *)(void *)(fds + *count + 1) : NULL;
    for (i = 1; fds && i < *count; i++) {
        k = (set->next + i) % set->count;
        fds[i] = set->fds[k];
        fds[i].revents = 0;
        tokens[i] = set->tokens[k];
    }
    pysock__unlock(&set->lock);
    if (!fds)
        return NULL;
    fds[0].fd = waker->rfd;
    fds[0].events = POLLIN;
    fds[0].revents = 0;
    return fds;
}

static int pysock__pset_wait(pysock__pset *set, pysock__waker *waker, pysock__sleep_fn sleep,
                             pysock__pset_event *out, size_t max, int64_t deadline, int *woken)
{
    size_t count, i, filled = 0;
    struct pollfd *fds = pysock__pset_copy(set, waker, &count);
    uint64_t *tokens;
    int n;

    if (!fds)
        return -ENOMEM;
    tokens = (uint64_t *)(void *)(fds + count + 1);
    n = sleep ? sleep(waker, fds, count, deadline) : pysock__poll(fds, count, deadline);
    for (i = 1; n > 0 && i < count && filled < max; i++) {
        if (!fds[i].revents)
            continue;
        out[filled].token = tokens[i];
        out[filled++].events = fds[i].revents;
    }
    *woken = n > 0 && fds[0].revents;
    PYSOCK_FREE(fds);
    if (n < 0)
        return n;
    pysock__lock(&set->lock);
    set->next = set->count ? (set->next + i - 1) % set->count : 0;
    pysock__unlock(&set->lock);
    return (int)filled;
}

#endif

/* ---- >>system-calls ----
   The other half of the platform: sockets, names, streams and files, a small function for each
   system call. Calls return >= 0, or a negated errno value. The only lock is the one around netdb
   calls that are not reentrant. */

/* Platform: sockets. A wrapper per system call. The caller handles EINTR; SIGPIPE is suppressed. */

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* The flags that a socket's type may carry. */
#ifdef SOCK_CLOEXEC
#define PYSOCK__TYPE_FLAGS (SOCK_CLOEXEC | SOCK_NONBLOCK)
#define PYSOCK__TYPE_NONBLOCK SOCK_NONBLOCK
#else
#define PYSOCK__TYPE_FLAGS 0
#define PYSOCK__TYPE_NONBLOCK 0
#endif

/* With these flags recv and send never wait, even on a blocking socket. */
#ifdef MSG_ERRQUEUE
#define PYSOCK__NEVER_WAITS (MSG_DONTWAIT | MSG_ERRQUEUE)
#else
#define PYSOCK__NEVER_WAITS MSG_DONTWAIT
#endif
#ifdef MSG_CMSG_CLOEXEC
#define PYSOCK__CMSG_CLOEXEC MSG_CMSG_CLOEXEC
#else
#define PYSOCK__CMSG_CLOEXEC 0
#endif

/* Linux's AF_ALG, whose header not every libc has; 0: not available. */
#ifdef __linux__
#define PYSOCK__SOL_ALG 279
#else
#define PYSOCK__SOL_ALG 0
#endif
#define PYSOCK__AF_ALG 38
#define PYSOCK__ALG_SET_IV 2
#define PYSOCK__ALG_SET_OP 3
#define PYSOCK__ALG_SET_AEAD_ASSOCLEN 4

/* Suppresses SIGPIPE by a socket option, where send has no flag for it. */
static void pysock__sys_no_sigpipe(int fd)
{
#if defined(SO_NOSIGPIPE)
    int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &one, sizeof one);
#else
    (void)fd;
#endif
}

static int pysock__sys_prepare(int fd)
{
    int err = 0;

    pysock__sys_no_sigpipe(fd);
#ifndef SOCK_CLOEXEC
    err = pysock__fd_cloexec(fd);
#endif
    return err < 0 ? err : fd;
}

static int pysock__sys_socket(int family, int type, int proto)
{
    int fd;
#ifdef SOCK_CLOEXEC
    type |= SOCK_CLOEXEC;
#endif
    fd = socket(family, type, proto);
    return fd < 0 ? pysock__neg_errno() : pysock__sys_prepare(fd);
}

static int pysock__sys_socketpair(int family, int type, int proto, int fds[2])
{
#ifdef SOCK_CLOEXEC
    type |= SOCK_CLOEXEC;
#endif
    if (socketpair(family, type, proto, fds) < 0)
        return pysock__neg_errno();
    pysock__sys_prepare(fds[0]);
    pysock__sys_prepare(fds[1]);
    return 0;
}

static int pysock__sys_accept(int fd, pysock_addr *peer)
{
    int before = pysock__cancel_off(), child;

    peer->size = sizeof peer->u;
#ifndef PYSOCK__CLOEXEC_BY_HAND
    child = accept4(fd, &peer->u.sa, &peer->size, SOCK_CLOEXEC);
    pysock__cancel_restore(before);
    return child < 0 ? pysock__neg_errno() : pysock__sys_prepare(child);
#else
    child = accept(fd, &peer->u.sa, &peer->size);
    pysock__cancel_restore(before);
    if (child < 0)
        return pysock__neg_errno();
    pysock__fd_cloexec(child);
    pysock__fd_set_nonblocking(child, 0); /* on BSD it inherits the listener's flag */
    return pysock__sys_prepare(child);
#endif
}

static int pysock__sys_connect(int fd, const pysock_addr *addr)
{
    int before = pysock__cancel_off();
    int r = connect(fd, &addr->u.sa, addr->size);

    pysock__cancel_restore(before);
    return r < 0 ? pysock__neg_errno() : 0;
}

static int pysock__sys_bind(int fd, const pysock_addr *addr)
{
    return bind(fd, &addr->u.sa, addr->size) < 0 ? pysock__neg_errno() : 0;
}

static int pysock__sys_listen(int fd, int backlog)
{
    return listen(fd, backlog) < 0 ? pysock__neg_errno() : 0;
}

#ifdef POLLRDHUP
#define PYSOCK__RDHUP POLLRDHUP
#else
#define PYSOCK__RDHUP 0 /* not on this system */
#endif

/* 1 if nothing more will be received. Of a datagram socket only poll() reports it: recv without
   waiting fails with EAGAIN. */
static int pysock__sys_read_ended(int fd)
{
    struct pollfd p;

    p.fd = fd;
    p.events = PYSOCK__RDHUP;
    p.revents = 0;
    return PYSOCK__RDHUP && pysock__poll(&p, 1, 0) > 0 && p.revents & PYSOCK__RDHUP;
}

static int pysock__sys_shutdown(int fd, int how)
{
    return shutdown(fd, how) < 0 ? pysock__neg_errno() : 0;
}

static ptrdiff_t pysock__sys_recv(int fd, void *buf, size_t size, int flags)
{
    int before = pysock__cancel_off();
    ssize_t n = recv(fd, buf, size, flags);

    pysock__cancel_restore(before);
    return n < 0 ? pysock__neg_errno() : n;
}

static ptrdiff_t pysock__sys_send(int fd, const void *data, size_t size, int flags)
{
    int before = pysock__cancel_off();
    ssize_t n = send(fd, data, size, flags | MSG_NOSIGNAL);

    pysock__cancel_restore(before);
    return n < 0 ? pysock__neg_errno() : n;
}

/* A message, to be sent or received. */
typedef struct pysock__msg {
    const struct iovec *iov;
    size_t count;
    void *control;
    size_t control_size; /* received: how much came */
    const pysock_addr *to;
    pysock_addr *from; /* or NULL */
    int flags;         /* received */
    int is_bytes;      /* only the bytes and the address are wanted: recvfrom is cheaper */
} pysock__msg;

static int pysock__sys_msghdr(struct msghdr *h, const pysock__msg *m)
{
    memset(h, 0, sizeof *h);
    if (m->count > 1024 || m->control_size > INT_MAX)
        return -EMSGSIZE; /* as the kernel does with more than IOV_MAX */
    h->msg_iov = (struct iovec *)(uintptr_t)m->iov;
    h->msg_iovlen = (unsigned short)m->count; /* an int or a size_t, by system */
    h->msg_control = m->control_size ? m->control : NULL;
    h->msg_controllen = (unsigned int)m->control_size;
    return 0;
}

static ptrdiff_t pysock__sys_recvmsg(int fd, pysock__msg *m, int flags)
{
    struct msghdr h;
    ssize_t n;
    int before;

    if (m->is_bytes && m->from) {
        socklen_t len = sizeof m->from->u;
        before = pysock__cancel_off();
        n = recvfrom(fd, m->iov->iov_base, m->iov->iov_len, flags, &m->from->u.sa, &len);
        pysock__cancel_restore(before);
        if (n >= 0)
            m->from->size = len < sizeof m->from->u ? len : sizeof m->from->u;
        return n < 0 ? pysock__neg_errno() : n;
    }
    n = pysock__sys_msghdr(&h, m);
    if (n < 0)
        return n;
    if (m->from) {
        memset(m->from, 0, sizeof *m->from);
        h.msg_name = &m->from->u;
        h.msg_namelen = sizeof m->from->u;
    }
    before = pysock__cancel_off();
    n = recvmsg(fd, &h, flags);
    pysock__cancel_restore(before);
    if (n < 0)
        return pysock__neg_errno();
    if (m->from)
        m->from->size = h.msg_namelen < sizeof m->from->u ? h.msg_namelen : sizeof m->from->u;
    m->control_size = m->control ? h.msg_controllen : 0;
    m->flags = h.msg_flags;
    return n;
}

static ptrdiff_t pysock__sys_sendmsg(int fd, const pysock__msg *m, int flags)
{
    struct msghdr h;
    ssize_t n;
    int before;

    if (m->count == 1 && !m->control_size && m->to) {
        before = pysock__cancel_off();
        n = sendto(fd, m->iov->iov_base, m->iov->iov_len, flags | MSG_NOSIGNAL, &m->to->u.sa,
                   m->to->size);
        pysock__cancel_restore(before);
        return n < 0 ? pysock__neg_errno() : n;
    }
    n = pysock__sys_msghdr(&h, m);
    if (n < 0)
        return n;
    if (m->to) {
        h.msg_name = (void *)(uintptr_t)&m->to->u;
        h.msg_namelen = m->to->size;
    }
    before = pysock__cancel_off();
    n = sendmsg(fd, &h, flags | MSG_NOSIGNAL);
    pysock__cancel_restore(before);
    return n < 0 ? pysock__neg_errno() : n;
}

/* The kernel's sendfile, which has no flag against SIGPIPE, so the signal is blocked. -EOPNOTSUPP:
   not available, or not for this file; the caller reads and sends. */
#ifdef __linux__

#ifdef PYSOCK_NO_THREADS
#define pysock__sigmask sigprocmask
#else
#define pysock__sigmask pthread_sigmask
#endif

static ptrdiff_t pysock__sys_sendfile(int fd, int file, int64_t offset, size_t count)
{
    sigset_t sigpipe, before, pending;
    struct timespec zero = {0, 0};
    off_t at = (off_t)offset;
    ptrdiff_t n;
    int cancel;

    if ((int64_t)at != offset)
        return -EOPNOTSUPP;
    sigemptyset(&sigpipe);
    sigaddset(&sigpipe, SIGPIPE);
    sigpending(&pending);
    cancel = pysock__cancel_off();
    pysock__sigmask(SIG_BLOCK, &sigpipe, &before);
    n = sendfile(fd, file, &at, count);
    n = n < 0 ? pysock__neg_errno() : n;
    if (n != (ptrdiff_t)count && !sigismember(&pending, SIGPIPE)) /* also after a partial send */
        while (sigtimedwait(&sigpipe, NULL, &zero) < 0 && errno == EINTR)
            ;
    pysock__sigmask(SIG_SETMASK, &before, NULL);
    pysock__cancel_restore(cancel);
    return n == -EINVAL || n == -ENOSYS || n == -ENOTSOCK ? -EOPNOTSUPP : n;
}

#else

static ptrdiff_t pysock__sys_sendfile(int fd, int file, int64_t offset, size_t count)
{
    (void)fd, (void)file, (void)offset, (void)count;
    return -EOPNOTSUPP;
}

#endif

static int pysock__sys_getsockname(int fd, pysock_addr *addr)
{
    memset(addr, 0, sizeof *addr);
    addr->size = sizeof addr->u;
    return getsockname(fd, &addr->u.sa, &addr->size) < 0 ? pysock__neg_errno() : 0;
}

static int pysock__sys_getpeername(int fd, pysock_addr *addr)
{
    memset(addr, 0, sizeof *addr);
    addr->size = sizeof addr->u;
    return getpeername(fd, &addr->u.sa, &addr->size) < 0 ? pysock__neg_errno() : 0;
}

static int pysock__sys_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    return setsockopt(fd, level, name, value, len) < 0 ? pysock__neg_errno() : 0;
}

static int pysock__sys_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    return getsockopt(fd, level, name, value, len) < 0 ? pysock__neg_errno() : 0;
}

/* The pending error of a connect that has ended, as a negated errno value. */
static int pysock__sys_so_error(int fd)
{
    int err = 0;
    socklen_t len = sizeof err;

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
        return pysock__neg_errno();
    return -err;
}

/* SO_RCVTIMEO or SO_SNDTIMEO in ns; 0: there is none. */
static int64_t pysock__sys_timeo(int fd, int sending)
{
    struct timeval tv = {0, 0};
    socklen_t len = sizeof tv;

    if (getsockopt(fd, SOL_SOCKET, sending ? SO_SNDTIMEO : SO_RCVTIMEO, &tv, &len) < 0)
        return 0;
    return (int64_t)tv.tv_sec * 1000000000 + (int64_t)tv.tv_usec * 1000;
}

static int pysock__sys_int_option(int fd, int level, int name, int otherwise)
{
    int value = 0;
    socklen_t len = sizeof value;

    return getsockopt(fd, level, name, &value, &len) == 0 ? value : otherwise;
}

/* Reads each value that is -1 from fd. 0, or a negated errno value if it is not a socket. */
static int pysock__sys_detect(int fd, int *family, int *type, int *proto)
{
    pysock_addr addr;
    int err = pysock__sys_getsockname(fd, &addr);

    if (err == -EBADF || err == -ENOTSOCK || (err < 0 && *family == -1))
        return err;
    if (*family == -1)
        *family = addr.u.sa.sa_family;
    if (*type == -1)
        *type = pysock__sys_int_option(fd, SOL_SOCKET, SO_TYPE, SOCK_STREAM);
    if (*proto == -1)
#ifdef SO_PROTOCOL
        *proto = pysock__sys_int_option(fd, SOL_SOCKET, SO_PROTOCOL, 0);
#else
        *proto = 0;
#endif
    return 0;
}

static int pysock__sys_listens(int fd)
{
    return pysock__sys_int_option(fd, SOL_SOCKET, SO_ACCEPTCONN, 0) > 0;
}

/* SO_LINGER's seconds. 0: close aborts the connection; more: close may sleep that long; -1: off. */
static int pysock__sys_linger(int fd)
{
    struct linger l;
    socklen_t len = sizeof l;

    return getsockopt(fd, SOL_SOCKET, SO_LINGER, &l, &len) == 0 && l.l_onoff ? l.l_linger : -1;
}

static int pysock__sys_set_linger(int fd, int on, int seconds)
{
    struct linger l;

    memset(&l, 0, sizeof l);
    l.l_onoff = on;
    l.l_linger = seconds;
    return setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l) < 0 ? pysock__neg_errno() : 0;
}

static int pysock__sys_linger_off(int fd)
{
    return pysock__sys_set_linger(fd, 0, 0);
}

/* Ends a connection with a reset: at once on Linux, which also wakes threads that sleep on it;
   elsewhere when the descriptor is closed for the last time. */
static void pysock__sys_reset(int fd)
{
    pysock__sys_set_linger(fd, 1, 0);
#ifdef __linux__
    {
        pysock_addr none;
        memset(&none, 0, sizeof none);
        none.u.sa.sa_family = AF_UNSPEC;
        none.size = sizeof none.u.sa;
        pysock__sys_connect(fd, &none);
    }
#endif
}

/* Bytes sent that the peer has not acknowledged; 0 where the system does not report them. */
static int pysock__sys_unacknowledged(int fd)
{
    int n = 0;
#if defined(SIOCOUTQ)
    return ioctl(fd, SIOCOUTQ, &n) < 0 ? 0 : n;
#elif defined(SO_NWRITE)
    socklen_t len = sizeof n;
    return getsockopt(fd, SOL_SOCKET, SO_NWRITE, &n, &len) < 0 ? 0 : n;
#elif defined(FIONWRITE)
    return ioctl(fd, FIONWRITE, &n) < 0 ? 0 : n;
#else
    (void)fd;
    return n;
#endif
}

/* Platform: names. */

#ifndef AI_NUMERICSERV
#define AI_NUMERICSERV 0
#endif

static int pysock__is_ascii(const char *text)
{
    while (*text && (unsigned char)*text < 0x80)
        text++;
    return !*text;
}

/* Converts an internationalised host name to its ASCII form. Returns the length, -EINVAL (not a
   valid name), -ENAMETOOLONG, -ENOMEM, or -ENOTSUP. */
static int pysock__sys_idna(const char *name, char *text, size_t size)
{
#ifdef PYSOCK_IDN2
    uint8_t *ascii = NULL;
    int flags = IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL;
    int n, err = idn2_lookup_u8((const uint8_t *)name, &ascii, flags);

    if (err != IDN2_OK)
        return err == IDN2_MALLOC ? -ENOMEM : -EINVAL;
    n = snprintf(text, size, "%s", (const char *)ascii);
    idn2_free(ascii);
    return (size_t)n < size ? n : -ENAMETOOLONG;
#else
    (void)name, (void)text, (void)size;
    return -ENOTSUP;
#endif
}

/* getaddrinfo of a name that is not ASCII. glibc converts it (AI_IDN) from the character set of the
   thread's locale. */
static int pysock__sys_getaddrinfo_idn(const char *host, const char *service,
                                       struct addrinfo *hints, struct addrinfo **list)
{
#ifdef PYSOCK_IDN2
    char ascii[NI_MAXHOST];
    int n = pysock__sys_idna(host, ascii, sizeof ascii);

    if (n < 0)
        return n == -ENOMEM ? EAI_MEMORY : EAI_NONAME;
    return getaddrinfo(ascii, service, hints, list);
#elif defined(AI_IDN)
    locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0), before;
    int err, sys;

    if (!utf8)
        utf8 = newlocale(LC_CTYPE_MASK, "en_US.UTF-8", (locale_t)0);
    if (!utf8)
        return EAI_NONAME;
    before = uselocale(utf8);
    hints->ai_flags |= AI_IDN;
    err = getaddrinfo(host, service, hints, list);
    sys = errno;
    uselocale(before);
    freelocale(utf8);
    errno = sys;
    return err;
#else
    (void)host, (void)service, (void)hints, (void)list;
    return EAI_NONAME;
#endif
}

/* Calls each(arg, found) for every address of host and service, until it returns non-zero. Returns
   0 or an EAI_ code; with EAI_SYSTEM, *sys is errno. */
static int pysock__sys_getaddrinfo(const char *host, const char *service,
                                   const struct addrinfo *want,
                                   int (*each)(void *arg, const struct addrinfo *found), void *arg,
                                   int *sys)
{
    struct addrinfo hints, *list = NULL, *ai;
    int before = pysock__cancel_off(), err;

    memset(&hints, 0, sizeof hints);
    hints.ai_family = want->ai_family;
    hints.ai_socktype = want->ai_socktype;
    hints.ai_protocol = want->ai_protocol;
    hints.ai_flags = want->ai_flags;
    if (host && !pysock__is_ascii(host) && hints.ai_flags & AI_NUMERICHOST)
        err = EAI_NONAME; /* a numeric address is ASCII */
    else if (host && !pysock__is_ascii(host))
        err = pysock__sys_getaddrinfo_idn(host, service, &hints, &list);
    else
        err = getaddrinfo(host, service, &hints, &list);
    *sys = err == EAI_SYSTEM ? errno : 0;
    pysock__cancel_restore(before);
    if (err)
        return err;
    for (ai = list; ai; ai = ai->ai_next)
        if (ai->ai_addrlen <= sizeof(struct sockaddr_storage) && each(arg, ai))
            break;
    freeaddrinfo(list);
    return 0;
}

static int pysock__sys_getnameinfo(const pysock_addr *addr, char *host, size_t host_size,
                                   char *service, size_t service_size, int flags, int *sys)
{
    int before = pysock__cancel_off();
    int err = getnameinfo(&addr->u.sa, addr->size, host, (socklen_t)host_size, service,
                          (socklen_t)service_size, flags);

    pysock__cancel_restore(before);
    *sys = err == EAI_SYSTEM ? errno : 0;
    return err;
}

#if !defined(__GLIBC__) || !defined(__USE_MISC)
/* Here the netdb calls have no reentrant form. */
static pysock__mutex pysock__netdb_lock = PYSOCK__MUTEX_INIT;
#endif

/* Calls take(arg, entry) with the system's entry for a name (IPv4), or for addr if name is NULL.
   Returns its result, -ENOMEM, or -1000 minus an h_errno code. */
static int pysock__sys_gethost(const char *name, const pysock_addr *addr,
                               int (*take)(void *arg, const struct hostent *entry), void *arg)
{
    struct hostent *found = NULL;
    const void *raw = NULL;
    socklen_t rawlen = 4;
    int r, before, code = HOST_NOT_FOUND;
#if defined(__GLIBC__) && defined(__USE_MISC)
    struct hostent entry;
    size_t size = 1024;
    char *room = NULL;
    int err = ERANGE;
#endif

    if (!name) {
        raw = addr->u.sa.sa_family == AF_INET ? (const void *)&addr->u.in.sin_addr
                                              : (const void *)&addr->u.in6.sin6_addr;
        rawlen = addr->u.sa.sa_family == AF_INET ? 4 : 16;
    }
#if defined(__GLIBC__) && defined(__USE_MISC)
    while (err == ERANGE && size < ((size_t)1 << 24)) {
        PYSOCK_FREE(room);
        size *= 2;
        room = (char *)PYSOCK_MALLOC(size);
        if (!room)
            return -ENOMEM;
        before = pysock__cancel_off();
        err = name ? gethostbyname2_r(name, AF_INET, &entry, room, size, &found, &code)
                   : gethostbyaddr_r(raw, rawlen, addr->u.sa.sa_family, &entry, room, size, &found,
                                     &code);
        pysock__cancel_restore(before);
    }
    r = found ? take(arg, found) : -1000 - code;
    PYSOCK_FREE(room);
#else
    before = pysock__cancel_off();
    pysock__lock(&pysock__netdb_lock);
    found = name ? gethostbyname(name) : gethostbyaddr(raw, rawlen, addr->u.sa.sa_family);
#ifdef h_errno
    code = h_errno;
#endif
    r = found ? take(arg, found) : -1000 - code;
    pysock__unlock(&pysock__netdb_lock);
    pysock__cancel_restore(before);
#endif
    return r;
}

#if defined(__GLIBC__) && defined(__USE_MISC)
#define PYSOCK__NETDB_ROOM 8192 /* bytes for an entry's strings */
#endif

/* The port, in host order, or -1. */
static int pysock__sys_getservbyname(const char *service, const char *proto)
{
    struct servent *found = NULL;
    int before = pysock__cancel_off();
    int port;
#ifdef PYSOCK__NETDB_ROOM
    struct servent entry;
    char room[PYSOCK__NETDB_ROOM];

    getservbyname_r(service, proto, &entry, room, sizeof room, &found);
    port = found ? ntohs((uint16_t)found->s_port) : -1;
#else
    pysock__lock(&pysock__netdb_lock);
    found = getservbyname(service, proto);
    port = found ? ntohs((uint16_t)found->s_port) : -1;
    pysock__unlock(&pysock__netdb_lock);
#endif
    pysock__cancel_restore(before);
    return port;
}

/* The length of the whole name, which is truncated to size; -1 if there is none. */
static int pysock__sys_getservbyport(int port, const char *proto, char *service, size_t size)
{
    struct servent *found = NULL;
    int before = pysock__cancel_off();
    int n;
#ifdef PYSOCK__NETDB_ROOM
    struct servent entry;
    char room[PYSOCK__NETDB_ROOM];

    getservbyport_r(htons((uint16_t)port), proto, &entry, room, sizeof room, &found);
    n = found ? snprintf(service, size, "%s", found->s_name) : -1;
#else
    pysock__lock(&pysock__netdb_lock);
    found = getservbyport(htons((uint16_t)port), proto);
    n = found ? snprintf(service, size, "%s", found->s_name) : -1;
    pysock__unlock(&pysock__netdb_lock);
#endif
    pysock__cancel_restore(before);
    return n;
}

static int pysock__sys_getprotobyname(const char *name)
{
    struct protoent *found = NULL;
    int before = pysock__cancel_off();
    int proto;
#ifdef PYSOCK__NETDB_ROOM
    struct protoent entry;
    char room[PYSOCK__NETDB_ROOM];

    getprotobyname_r(name, &entry, room, sizeof room, &found);
    proto = found ? found->p_proto : -1;
#else
    pysock__lock(&pysock__netdb_lock);
    found = getprotobyname(name);
    proto = found ? found->p_proto : -1;
    pysock__unlock(&pysock__netdb_lock);
#endif
    pysock__cancel_restore(before);
    return proto;
}

/* 0 or a negated errno value: -ENAMETOOLONG if it does not fit. */
static int pysock__sys_gethostname(char *name, size_t size)
{
    char whole[PYSOCK_HOST_STRLEN + 1];

    if (gethostname(whole, sizeof whole) < 0)
        return pysock__neg_errno();
    whole[sizeof whole - 1] = 0;
    if (strlen(whole) >= size)
        return -ENAMETOOLONG;
    memcpy(name, whole, strlen(whole) + 1);
    return 0;
}

static int pysock__sys_sethostname(const char *name)
{
#if defined(__GLIBC__) && !defined(__USE_MISC)
    (void)name;
    return -ENOTSUP; /* an earlier #include has hidden the call */
#elif defined(__APPLE__)
    return sethostname(name, (int)strlen(name)) < 0 ? pysock__neg_errno() : 0;
#else
    return sethostname(name, strlen(name)) < 0 ? pysock__neg_errno() : 0;
#endif
}

static int pysock__sys_inet_aton(const char *text, unsigned char out[4])
{
    struct in_addr addr;

#if defined(__GLIBC__) && !defined(__USE_MISC)
    addr.s_addr = inet_addr(text);
    if (addr.s_addr == INADDR_NONE && strcmp(text, "255.255.255.255") != 0)
        return -EINVAL;
#else
    if (!inet_aton(text, &addr))
        return -EINVAL;
#endif
    memcpy(out, &addr, 4);
    return 0;
}

/* The number of bytes, -EINVAL (not an address) or -EAFNOSUPPORT. */
static int pysock__sys_inet_pton(int family, const char *text, void *out)
{
    int r = inet_pton(family, text, out);

    if (r < 0)
        return pysock__neg_errno();
    return r == 0 ? -EINVAL : family == AF_INET ? 4 : 16;
}

static int pysock__sys_inet_ntop(int family, const void *packed, char *text, size_t size)
{
    return inet_ntop(family, packed, text, (socklen_t)size) ? 0 : pysock__neg_errno();
}

/* Calls each(arg, index, name) for every interface, until it returns non-zero. */
static int pysock__sys_if_each(int (*each)(void *arg, unsigned int index, const char *name),
                               void *arg)
{
    int before = pysock__cancel_off();
    struct if_nameindex *list = if_nameindex(), *i;

    pysock__cancel_restore(before);
    if (!list)
        return pysock__neg_errno();
    for (i = list; i->if_index || i->if_name; i++)
        if (each(arg, i->if_index, i->if_name))
            break;
    if_freenameindex(list);
    return 0;
}

static int pysock__sys_if_nametoindex(const char *name)
{
    unsigned int index = if_nametoindex(name);

    return index ? (int)index : -ENODEV;
}

static int pysock__sys_if_indextoname(unsigned int index, char name[IF_NAMESIZE])
{
    return if_indextoname(index, name) ? 0 : pysock__neg_errno();
}

static const char *pysock__gai_sentence(int code)
{
    return gai_strerror(code);
}

/* What to add to the message when an international name was not found. */
static const char *pysock__idn_advice(void)
{
#if defined(PYSOCK_IDN2) || defined(AI_IDN)
    return "";
#else
    return "; the system's resolver does not accept international names: define PYSOCK_IDN2 and "
           "link "
           "with -lidn2";
#endif
}

/* Writes the host part of an IPv4 or IPv6 address. */
static void pysock__sys_ntop(const pysock_addr *addr, char *text, size_t size)
{
    char scope[IF_NAMESIZE + 1];
    size_t used;

    text[0] = 0;
    if (addr->u.sa.sa_family == AF_INET)
        inet_ntop(AF_INET, &addr->u.in.sin_addr, text, (socklen_t)size);
    if (addr->u.sa.sa_family != AF_INET6)
        return;
    inet_ntop(AF_INET6, &addr->u.in6.sin6_addr, text, (socklen_t)size);
    if (!addr->u.in6.sin6_scope_id)
        return;
    used = strlen(text);
    if ((IN6_IS_ADDR_LINKLOCAL(&addr->u.in6.sin6_addr) /* only these take a name as scope */
         || IN6_IS_ADDR_MC_LINKLOCAL(&addr->u.in6.sin6_addr))
        && if_indextoname(addr->u.in6.sin6_scope_id, scope))
        snprintf(text + used, size - used, "%%%s", scope);
    else
        snprintf(text + used, size - used, "%%%u", (unsigned)addr->u.in6.sin6_scope_id);
}

static uint16_t pysock__ntohs(uint16_t v)
{
    return ntohs(v);
}

/* Platform: a FILE over callbacks, which return what recv and send do. A NULL callback: that
   direction is not supported. On failure, NULL, and *err is set. */

typedef ptrdiff_t (*pysock__stdio_read_fn)(void *cookie, char *buf, size_t size);
typedef ptrdiff_t (*pysock__stdio_write_fn)(void *cookie, const char *data, size_t size);

#if (defined(__GLIBC__) && defined(__USE_GNU))                                                     \
    || (defined(__linux__) && !defined(__GLIBC__) && !defined(__BIONIC__) && defined(_GNU_SOURCE))

typedef struct pysock__stdio {
    void *cookie;
    pysock__stdio_read_fn read;
    pysock__stdio_write_fn write;
    int (*close)(void *cookie);
} pysock__stdio;

static ssize_t pysock__cookie_read(void *arg, char *buf, size_t size)
{
    pysock__stdio *io = (pysock__stdio *)arg;
    return io->read(io->cookie, buf, size);
}

static ssize_t pysock__cookie_write(void *arg, const char *data, size_t size)
{
    pysock__stdio *io = (pysock__stdio *)arg;
    ptrdiff_t n = io->write(io->cookie, data, size);
#ifdef __GLIBC__
    return n < 0 ? 0 : n; /* 0 is an error; a negative number would be taken for a large one */
#else
    return n < (ptrdiff_t)size ? -1 : n; /* musl: anything else is a success */
#endif
}

static int pysock__cookie_close(void *arg)
{
    pysock__stdio *io = (pysock__stdio *)arg;
    int r = io->close(io->cookie);

    PYSOCK_FREE(io);
    return r;
}

static FILE *pysock__stdio_open(void *cookie, pysock__stdio_read_fn read,
                                pysock__stdio_write_fn write, int (*close_fn)(void *), int *err)
{
    cookie_io_functions_t calls;
    pysock__stdio *io = (pysock__stdio *)PYSOCK_MALLOC(sizeof *io);
    FILE *f;

    if (!io) {
        *err = -ENOMEM;
        return NULL;
    }
    io->cookie = cookie;
    io->read = read;
    io->write = write;
    io->close = close_fn;
    memset(&calls, 0, sizeof calls);
    calls.read = read ? pysock__cookie_read : NULL;
    calls.write = write ? pysock__cookie_write : NULL;
    calls.close = pysock__cookie_close;
    f = fopencookie(io, read ? "rb" : "wb", calls);
    if (!f) {
        *err = pysock__neg_errno();
        PYSOCK_FREE(io);
    } else if (read) {
        setvbuf(f, NULL, _IONBF, 0); /* what it reads from is buffered already */
    }
    return f;
}

#else

static FILE *pysock__stdio_open(void *cookie, pysock__stdio_read_fn read,
                                pysock__stdio_write_fn write, int (*close_fn)(void *), int *err)
{
    (void)cookie, (void)read, (void)write, (void)close_fn;
    *err = -ENOTSUP;
    return NULL;
}

#endif

/* Platform: what only TLS needs: the calendar, addresses as bytes, files. */

#ifndef PYSOCK_NO_SSL

static int64_t pysock__wall_seconds(void)
{
    return (int64_t)time(NULL);
}

/* An address of 4 or 16 bytes as text. */
static const char *pysock__sys_ip_text(const unsigned char *ip, size_t n, char *text, size_t size)
{
    return inet_ntop(n == 4 ? AF_INET : AF_INET6, ip, text, (socklen_t)size) ? text : "?";
}

/* Parses an address: 4 or 16 bytes, or 0 if text is not one. The zone of an IPv6 address (RFC 4007,
   11: "fe80::1%eth0") has a meaning on this machine only, and is dropped. */
static size_t pysock__sys_pton(const char *text, unsigned char out[16])
{
    const char *zone = strchr(text, '%');
    size_t len = zone ? (size_t)(zone - text) : strlen(text);
    char address[INET6_ADDRSTRLEN];

    if (len >= sizeof address || (zone && !zone[1]))
        return 0;
    memcpy(address, text, len);
    address[len] = 0;
    if (!zone && inet_pton(AF_INET, address, out) == 1)
        return 4;
    return inet_pton(AF_INET6, address, out) == 1 ? 16 : 0;
}

/* Calls each(arg, path) for the regular files in dir, until it returns a negative number. */
static int pysock__each_file(const char *dir, int (*each)(void *arg, const char *path), void *arg)
{
    int before = pysock__cancel_off(), err = 0;
    DIR *d = opendir(dir);
    struct dirent *entry = NULL;

    if (!d) {
        err = pysock__neg_errno();
        pysock__cancel_restore(before);
        return err;
    }
    while (err >= 0 && (errno = 0, entry = readdir(d)) != NULL) {
        char path[1024];
        struct stat st;
        int n = snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        if (n > 0 && (size_t)n < sizeof path && stat(path, &st) == 0 && S_ISREG(st.st_mode))
            err = each(arg, path);
    }
    if (!entry && errno)
        err = pysock__neg_errno();
    closedir(d);
    pysock__cancel_restore(before);
    return err;
}

/* What a path is: 'f' a file, 'd' a directory, 0 missing or something else. */
static int pysock__path_kind(const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return 0;
    return S_ISDIR(st.st_mode) ? 'd' : S_ISREG(st.st_mode) ? 'f' : 0;
}

/* Opens a file with close-on-exec set. -1: errno is set. */
static int pysock__fd_open(const char *path, int flags, mode_t mode)
{
    int before = pysock__cancel_off();
    int fd = open(path, flags | O_CLOEXEC, mode);

    pysock__cancel_restore(before);
    return fd;
}

/* Opens a file for reading. On failure, NULL, and *err is set. */
static FILE *pysock__file_open(const char *path, int *err)
{
    int fd = pysock__fd_open(path, O_RDONLY, 0);
    FILE *f;
    struct stat st;

    if (fd < 0) {
        *err = pysock__neg_errno();
        return NULL;
    }
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        pysock__fd_close(fd);
        *err = -EISDIR;
        return NULL;
    }
    f = fdopen(fd, "rb");
    if (!f) {
        *err = pysock__neg_errno();
        pysock__fd_close(fd);
    }
    return f;
}

/* The same for appending; a new file is readable by its owner only. */
static FILE *pysock__file_append(const char *path, int *err)
{
    int fd = pysock__fd_open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "ab");

    if (f)
        return f;
    *err = pysock__neg_errno();
    if (fd >= 0)
        pysock__fd_close(fd);
    return NULL;
}

#endif

/* ---- >>memory ----
   Allocation, growable arrays and bytes, intrusive lists. Every failure is reported; out of memory
   is an error like any other. No locks: each object's owner guards it. */

/* size bytes, zeroed. */
static void *pysock__alloc(size_t size)
{
    void *p = PYSOCK_MALLOC(size ? size : 1);

    if (p)
        memset(p, 0, size);
    return p;
}

static void pysock__free(void *p)
{
    if (p)
        PYSOCK_FREE(p);
}

/* Makes room for want elements of esize bytes in *array; the new ones are zeroed. 0 or -ENOMEM. */
static int pysock__reserve(void *array, size_t *cap, size_t want, size_t esize)
{
    void *old, *extended;
    size_t n = *cap ? *cap : 8;

    if (want <= *cap)
        return 0;
    while (n < want)
        n = n > SIZE_MAX / 2 ? want : n * 2;
    if (n > SIZE_MAX / esize)
        return -ENOMEM;
    memcpy(&old, array, sizeof old);
    extended = PYSOCK_REALLOC(old, n * esize);
    if (!extended)
        return -ENOMEM;
    memset((char *)extended + *cap * esize, 0, (n - *cap) * esize);
    memcpy(array, &extended, sizeof extended);
    *cap = n;
    return 0;
}

static char *pysock__strdup(const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = (char *)pysock__alloc(n);

    if (copy)
        memcpy(copy, text, n);
    return copy;
}

/* A circular list with a head that is not an element. */
typedef struct pysock__list {
    struct pysock__list *next, *prev;
} pysock__list;

/* clang-format off */
#define PYSOCK__LIST_INIT(head) {&(head), &(head)}
#define PYSOCK__ENTRY(link, type, field) ((type *)(void *)((char *)(link) - offsetof(type, field)))
/* clang-format on */

static void pysock__list_init(pysock__list *l)
{
    l->next = l->prev = l;
}

static int pysock__list_empty(const pysock__list *l)
{
    return l->next == l;
}

static void pysock__list_append(pysock__list *head, pysock__list *l)
{
    l->prev = head->prev;
    l->next = head;
    head->prev->next = l;
    head->prev = l;
}

/* An element that is in no list may be removed too, once initialised. */
static void pysock__list_remove(pysock__list *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
    pysock__list_init(l);
}

#ifndef PYSOCK_NO_SSL

typedef struct pysock__bytes {
    unsigned char *data;
    size_t len, cap;
    int out_of_memory;
} pysock__bytes;

/* BearSSL's callback type; a failure sets out_of_memory. */
static void pysock__bytes_append(void *arg, const void *data, size_t n)
{
    pysock__bytes *b = (pysock__bytes *)arg;

    if (b->out_of_memory || pysock__reserve(&b->data, &b->cap, b->len + n, 1) < 0) {
        b->out_of_memory = 1;
        return;
    }
    if (n)
        memcpy(b->data + b->len, data, n);
    b->len += n;
}

/* Wipes the bytes, which may be a key, and frees them. */
static void pysock__bytes_free(pysock__bytes *b)
{
    volatile unsigned char *p = b->data;
    size_t i;

    for (i = 0; i < b->len; i++)
        p[i] = 0;
    pysock__free(b->data);
    memset(b, 0, sizeof *b);
}

/* Wipes a secret. A compiler may omit a memset() of memory that is not used again. */
static void pysock__wipe(void *memory, size_t size)
{
    volatile unsigned char *p = (volatile unsigned char *)memory;

    while (size--)
        *p++ = 0;
}

#endif /* PYSOCK_NO_SSL */

/* ---- >>errors ----
   The calling thread's last error. A failure on another thread is kept as a pysock__fault on its
   object until a call can report it. No lock: each thread has an error of its own. */

typedef struct pysock__fault {
    pysock_error_kind kind;
    int code;
    int verify_code;
    const char *reason;         /* static */
    const char *verify_message; /* static */
    char message[560];
} pysock__fault;

static PYSOCK__THREAD_LOCAL pysock__fault pysock__last;

typedef struct pysock__errno_row {
    int code;
    const char *name, *sentence, *exception;
} pysock__errno_row;

static const pysock__errno_row pysock__errno_table[] = {
    {EACCES, "EACCES", "permission denied", "PermissionError"},
    {EADDRINUSE, "EADDRINUSE", "address already in use", "OSError"},
    {EADDRNOTAVAIL, "EADDRNOTAVAIL", "address not available on this machine", "OSError"},
    {EAFNOSUPPORT, "EAFNOSUPPORT", "address family not supported", "OSError"},
    {EAGAIN, "EAGAIN", "the call would have to wait", "BlockingIOError"},
    {EALREADY, "EALREADY", "a connect is already under way", "BlockingIOError"},
    {EBADF, "EBADF", "the socket or descriptor is closed", "OSError"},
    {EBUSY, "EBUSY", "in use by another call", "OSError"},
    {ECONNABORTED, "ECONNABORTED", "connection aborted", "ConnectionAbortedError"},
    {ECONNREFUSED, "ECONNREFUSED", "connection refused", "ConnectionRefusedError"},
    {ECONNRESET, "ECONNRESET", "connection reset by peer", "ConnectionResetError"},
    {EDESTADDRREQ, "EDESTADDRREQ", "destination address required", "OSError"},
    {EEXIST, "EEXIST", "already exists", "FileExistsError"},
    {EFAULT, "EFAULT", "bad address", "OSError"},
    {EHOSTUNREACH, "EHOSTUNREACH", "no route to host", "OSError"},
    {EINPROGRESS, "EINPROGRESS", "under way, but not finished", "BlockingIOError"},
    {EINTR, "EINTR", "interrupted by a signal", "InterruptedError"},
    {EINVAL, "EINVAL", "invalid argument", "OSError"},
    {EIO, "EIO", "input/output error", "OSError"},
    {EISCONN, "EISCONN", "already connected", "OSError"},
    {EISDIR, "EISDIR", "is a directory", "IsADirectoryError"},
    {EMFILE, "EMFILE", "too many open descriptors in this process", "OSError"},
    {EMSGSIZE, "EMSGSIZE", "message too long", "OSError"},
    {ENAMETOOLONG, "ENAMETOOLONG", "name too long", "OSError"},
    {ENETDOWN, "ENETDOWN", "network is down", "OSError"},
    {ENETUNREACH, "ENETUNREACH", "network is unreachable", "OSError"},
    {ENFILE, "ENFILE", "too many open descriptors in the system", "OSError"},
    {ENOBUFS, "ENOBUFS", "no buffer space in the kernel", "OSError"},
    {ENODEV, "ENODEV", "no such device", "OSError"},
    {ENOENT, "ENOENT", "no such file or directory", "FileNotFoundError"},
    {ENOMEM, "ENOMEM", "out of memory", "OSError"},
    {ENOPROTOOPT, "ENOPROTOOPT", "no such option", "OSError"},
    {ENOTCONN, "ENOTCONN", "not connected", "OSError"},
    {ENOTDIR, "ENOTDIR", "not a directory", "NotADirectoryError"},
    {ENOTSOCK, "ENOTSOCK", "not a socket", "OSError"},
    {ENOTSUP, "ENOTSUP", "not supported", "OSError"},
    {EOPNOTSUPP, "EOPNOTSUPP", "not supported on this kind of socket", "OSError"},
    {ENXIO, "ENXIO", "no such device or address", "OSError"},
    {EOVERFLOW, "EOVERFLOW", "number too large", "OSError"},
    {EPERM, "EPERM", "operation not permitted", "PermissionError"},
    {EPIPE, "EPIPE", "the connection is closed for writing", "BrokenPipeError"},
    {EPROTO, "EPROTO", "protocol error", "OSError"},
    {EPROTONOSUPPORT, "EPROTONOSUPPORT", "protocol not supported", "OSError"},
    {EPROTOTYPE, "EPROTOTYPE", "wrong protocol for this kind of socket", "OSError"},
    {ESHUTDOWN, "ESHUTDOWN", "the library is being cleaned up", "BrokenPipeError"},
    {ESOCKTNOSUPPORT, "ESOCKTNOSUPPORT", "socket type not supported", "OSError"},
    {ETIMEDOUT, "ETIMEDOUT", "timed out", "TimeoutError"},
};

static const pysock__errno_row *pysock__errno_find(int code)
{
    static const pysock__errno_row other = {0, "ERRNO", "system error", "OSError"};
    size_t i;

    for (i = 0; i < PYSOCK__COUNT(pysock__errno_table); i++)
        if (pysock__errno_table[i].code == code)
            return &pysock__errno_table[i];
    return &other;
}

/* The errno value that goes with an error. */
static int pysock__errno_of(pysock_error_kind kind, int code)
{
    switch (kind) {
    case PYSOCK_OS_ERROR:
    case PYSOCK_TIMEOUT_ERROR: return code;
    case PYSOCK_GAI_ERROR:
    case PYSOCK_H_ERROR: return EADDRNOTAVAIL;
    case PYSOCK_VALUE_ERROR: return EINVAL;
    case PYSOCK_KEY_ERROR: return ENOENT;
    case PYSOCK_MEMORY_ERROR: return ENOMEM;
    case PYSOCK_SSL_ZERO_RETURN_ERROR: return EPIPE;
    default: return EPROTO;
    }
}

static void pysock__fault_format(pysock__fault *f, pysock_error_kind kind, int code,
                                 const char *reason, const char *format, va_list args)
{
    f->kind = kind;
    f->code = code;
    f->reason = reason;
    f->verify_code = 0;
    f->verify_message = "";
    vsnprintf(f->message, sizeof f->message, format, args);
}

#ifdef __GNUC__
#define PYSOCK__PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define PYSOCK__PRINTF(text, first)
#endif

PYSOCK__PRINTF(5, 6)
static void pysock__fault_set(pysock__fault *f, pysock_error_kind kind, int code,
                              const char *reason, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    pysock__fault_format(f, kind, code, reason, format, args);
    va_end(args);
}

/* Makes f the thread's error. Returns -1. */
static int pysock__raise(const pysock__fault *f)
{
    if (f != &pysock__last)
        pysock__last = *f;
    pysock__set_errno(pysock__errno_of(f->kind, f->code));
    return -1;
}

PYSOCK__PRINTF(4, 5)
static int pysock__fail(pysock_error_kind kind, int code, const char *reason, const char *format,
                        ...)
{
    va_list args;

    va_start(args, format);
    pysock__fault_format(&pysock__last, kind, code, reason, format, args);
    va_end(args);
    return pysock__raise(&pysock__last);
}

/* The kind of error for an errno value, negated as the platform returns it. */
static pysock_error_kind pysock__os_kind(int err)
{
    return -err == ENOMEM      ? PYSOCK_MEMORY_ERROR
           : -err == ETIMEDOUT ? PYSOCK_TIMEOUT_ERROR
                               : PYSOCK_OS_ERROR;
}

static void pysock__fault_os(pysock__fault *f, int err, const char *what, const char *on)
{
    const pysock__errno_row *row = pysock__errno_find(-err);

    pysock__fault_set(f, pysock__os_kind(err), -err, row->name, "%s%s%s: %s (errno %d)", what,
                      on[0] ? " on " : "", on, row->sentence, -err);
}

/* Fails with a negated errno value: what failed, on what. */
static int pysock__fail_os(int err, const char *what, const char *on)
{
    pysock__fault_os(&pysock__last, err, what, on);
    return pysock__raise(&pysock__last);
}

static int pysock__fail_memory(const char *what)
{
    return pysock__fail(PYSOCK_MEMORY_ERROR, ENOMEM, "ENOMEM", "%s: out of memory", what);
}

static int pysock__fail_value(const char *what, const char *why)
{
    return pysock__fail(PYSOCK_VALUE_ERROR, EINVAL, "EINVAL", "%s: %s", what, why);
}

/* EAGAIN of a non-blocking call, without formatting because it is frequent. */
static int pysock__fail_again(void)
{
    static const char message[] = "the call would have to wait, and the socket is non-blocking";

    pysock__last.kind = PYSOCK_OS_ERROR;
    pysock__last.code = EAGAIN;
    pysock__last.reason = "EAGAIN";
    pysock__last.verify_code = 0;
    pysock__last.verify_message = "";
    memcpy(pysock__last.message, message, sizeof message);
    pysock__set_errno(EAGAIN);
    return -1;
}

PYSOCKDEF pysock_error_kind pysock_error(void)
{
    return pysock__last.kind;
}

PYSOCKDEF int pysock_error_code(void)
{
    return pysock__last.code;
}

PYSOCKDEF const char *pysock_error_name(void)
{
    switch (pysock__last.kind) {
    case PYSOCK_NO_ERROR: return "";
    case PYSOCK_OS_ERROR:
    case PYSOCK_TIMEOUT_ERROR: return pysock__errno_find(pysock__last.code)->exception;
    case PYSOCK_GAI_ERROR: return "gaierror";
    case PYSOCK_H_ERROR: return "herror";
    case PYSOCK_VALUE_ERROR: return "ValueError";
    case PYSOCK_KEY_ERROR: return "KeyError";
    case PYSOCK_MEMORY_ERROR: return "MemoryError";
    case PYSOCK_SSL_ZERO_RETURN_ERROR: return "SSLZeroReturnError";
    case PYSOCK_SSL_WANT_READ_ERROR: return "SSLWantReadError";
    case PYSOCK_SSL_WANT_WRITE_ERROR: return "SSLWantWriteError";
    case PYSOCK_SSL_SYSCALL_ERROR: return "SSLSyscallError";
    case PYSOCK_SSL_EOF_ERROR: return "SSLEOFError";
    case PYSOCK_SSL_CERT_VERIFICATION_ERROR: return "SSLCertVerificationError";
    case PYSOCK_SSL_ERROR: break;
    }
    return "SSLError";
}

PYSOCKDEF const char *pysock_error_reason(void)
{
    return pysock__last.reason ? pysock__last.reason : "";
}

PYSOCKDEF const char *pysock_error_library(void)
{
    static const char *const pem[] = {
        "NO_START_LINE", "BAD_BASE64_DECODE",      "BAD_PASSWORD_READ",
        "BAD_DECRYPT",   "UNSUPPORTED_ENCRYPTION",
    };
    static const char *const x509[] = {"KEY_VALUES_MISMATCH", "NO_CERTIFICATE_OR_CRL_FOUND"};
    const char *reason = pysock_error_reason();
    size_t i;

    if (pysock__last.kind < PYSOCK_SSL_ERROR)
        return "";
    for (i = 0; i < PYSOCK__COUNT(pem); i++)
        if (strcmp(reason, pem[i]) == 0)
            return "PEM";
    for (i = 0; i < PYSOCK__COUNT(x509); i++)
        if (strcmp(reason, x509[i]) == 0)
            return "X509";
    return "SSL";
}

PYSOCKDEF const char *pysock_error_message(void)
{
    return pysock__last.kind ? pysock__last.message : "no error";
}

PYSOCKDEF int pysock_error_verify_code(void)
{
    return pysock__last.verify_code;
}

PYSOCKDEF const char *pysock_error_verify_message(void)
{
    return pysock__last.verify_message ? pysock__last.verify_message : "";
}

PYSOCKDEF void pysock_error_clear(void)
{
    memset(&pysock__last, 0, sizeof pysock__last);
}

PYSOCKDEF const char *pysock_version(void)
{
    return PYSOCK_VERSION;
}

static int pysock__check_memory(const char *what, const void *data, size_t size)
{
    if (size > PTRDIFF_MAX)
        return pysock__fail_value(what, "the size is negative or too large");
    if (!data && size)
        return pysock__fail_value(what, "the buffer is NULL");
    return 0;
}

/* Copies the caller's options, which are as large as the caller's version of this header has them,
   into *out, of known bytes here; what the caller does not have is 0. init: the macro for them. New
   members must leave no padding behind the last one: it would look like a member that is set. */
static int pysock__take_options(void *out, size_t known, const void *given, const char *what,
                                const char *init)
{
    const unsigned char *bytes = (const unsigned char *)given;
    size_t size = 0, i;

    memset(out, 0, known);
    if (!given)
        return pysock__fail_value(what, "options is NULL");
    memcpy(&size, given, sizeof size);
    if (size <= sizeof size || size > 4096)
        return pysock__fail(PYSOCK_VALUE_ERROR, EINVAL, "EINVAL",
                            "%s: the options' size is not set: initialize them with %s", what,
                            init);
    for (i = known; i < size; i++)
        if (bytes[i])
            return pysock__fail(
                PYSOCK_OS_ERROR, ENOTSUP, "ENOTSUP",
                "%s: the options set a member that version " PYSOCK_VERSION " does not have", what);
    memcpy(out, given, size < known ? size : known);
    return 0;
}

/* ---- >>buffers ----
   Reference-counted bytes, the queue of them that is a socket's output, and memory BIOs,
   which are byte pipes. A queue has no lock of its own: the socket's guards it. A BIO's own lock is
   a leaf. */

struct pysock_buf {
    int refs; /* atomic */
    /* set once */
    size_t size;
    unsigned char *data;
    pysock_buf *parent; /* of a slice: owns the bytes */
    void (*free_fn)(void *arg, void *data);
    void *arg;
};

PYSOCKDEF pysock_buf *pysock_buf_new(size_t size)
{
    pysock_buf *b =
        size > PTRDIFF_MAX - sizeof *b ? NULL : (pysock_buf *)pysock__alloc(sizeof *b + size);

    if (!b) {
        pysock__fail_memory("pysock_buf_new");
        return NULL;
    }
    b->refs = 1;
    b->size = size;
    b->data = (unsigned char *)(b + 1);
    return b;
}

PYSOCKDEF pysock_buf *pysock_buf_copy(const void *data, size_t size)
{
    pysock_buf *b;

    if (!data && size) {
        pysock__fail_value("pysock_buf_copy", "data is NULL");
        return NULL;
    }
    b = pysock_buf_new(size);
    if (b && size)
        memcpy(b->data, data, size);
    return b;
}

PYSOCKDEF pysock_buf *pysock_buf_wrap(void *data, size_t size,
                                      void (*free_fn)(void *arg, void *data), void *arg)
{
    pysock_buf *b;

    if ((!data && size) || size > PTRDIFF_MAX) {
        pysock__fail_value("pysock_buf_wrap", data ? "size is too large" : "data is NULL");
        return NULL;
    }
    b = pysock_buf_new(0);
    if (!b)
        return NULL;
    b->size = size;
    b->data = (unsigned char *)data;
    b->free_fn = free_fn;
    b->arg = arg;
    return b;
}

PYSOCKDEF pysock_buf *pysock_buf_retain(pysock_buf *b)
{
    if (b)
        pysock__add(&b->refs, 1);
    return b;
}

PYSOCKDEF void pysock_buf_release(pysock_buf *b)
{
    while (b && pysock__add(&b->refs, -1) == 0) {
        pysock_buf *parent = b->parent;
        if (b->free_fn)
            b->free_fn(b->arg, b->data);
        pysock__free(b);
        b = parent;
    }
}

PYSOCKDEF pysock_buf *pysock_buf_slice(pysock_buf *b, size_t start, size_t size)
{
    pysock_buf *slice;

    if (!b || start > b->size || size > b->size - start) {
        pysock__fail_value("pysock_buf_slice", b ? "the slice is outside the buffer" : "b is NULL");
        return NULL;
    }
    slice = pysock_buf_new(0);
    if (!slice)
        return NULL;
    slice->parent = pysock_buf_retain(b->parent ? b->parent : b);
    slice->data = b->data + start;
    slice->size = size;
    return slice;
}

PYSOCKDEF void *pysock_buf_data(const pysock_buf *b)
{
    return b ? b->data : NULL;
}

PYSOCKDEF size_t pysock_buf_size(const pysock_buf *b)
{
    return b ? b->size : 0;
}

/* A queue of buffers; `offset` bytes of the first are consumed. Consumed buffers wait in `spent`
   until no lock is held, because their free_fn is the user's. */
typedef struct pysock__queue {
    pysock__list items, spent; /* of pysock__link */
    size_t offset, bytes;
} pysock__queue;

typedef struct pysock__link {
    pysock__list link;
    pysock_buf *buf;
} pysock__link;

static void pysock__queue_init(pysock__queue *c)
{
    pysock__list_init(&c->items);
    pysock__list_init(&c->spent);
    c->offset = c->bytes = 0;
}

static int pysock__queue_empty(const pysock__queue *c)
{
    return pysock__list_empty(&c->items);
}

/* Takes a reference of its own. 0 or -ENOMEM. */
static int pysock__queue_append(pysock__queue *c, pysock_buf *b)
{
    pysock__link *l = (pysock__link *)pysock__alloc(sizeof *l);

    if (!l)
        return -ENOMEM;
    l->buf = pysock_buf_retain(b);
    pysock__list_append(&c->items, &l->link);
    c->bytes += b->size;
    return 0;
}

/* The first bytes of the queue, which is not empty. */
static size_t pysock__queue_front(const pysock__queue *c, const unsigned char **data)
{
    const pysock_buf *b = PYSOCK__ENTRY(c->items.next, pysock__link, link)->buf;

    *data = b->data + c->offset;
    return b->size - c->offset;
}

/* Consumes n bytes of what pysock__queue_front() returned. */
static void pysock__queue_consume(pysock__queue *c, size_t n)
{
    pysock__list *first = c->items.next;

    c->offset += n;
    c->bytes -= n;
    if (c->offset < PYSOCK__ENTRY(first, pysock__link, link)->buf->size)
        return;
    c->offset = 0;
    pysock__list_remove(first);
    pysock__list_append(&c->spent, first);
}

/* Drops all buffers. */
static void pysock__queue_drop(pysock__queue *c)
{
    while (!pysock__list_empty(&c->items)) {
        pysock__list *first = c->items.next;
        pysock__list_remove(first);
        pysock__list_append(&c->spent, first);
    }
    c->offset = c->bytes = 0;
}

/* Moves the spent buffers to *out, an initialised list. */
static void pysock__queue_take_spent(pysock__queue *c, pysock__list *out)
{
    while (!pysock__list_empty(&c->spent)) {
        pysock__list *first = c->spent.next;
        pysock__list_remove(first);
        pysock__list_append(out, first);
    }
}

/* Releases spent buffers. No lock is held. */
static void pysock__links_free(pysock__list *links)
{
    while (!pysock__list_empty(links)) {
        pysock__link *l = PYSOCK__ENTRY(links->next, pysock__link, link);
        pysock__list_remove(&l->link);
        pysock_buf_release(l->buf);
        pysock__free(l);
    }
}

#ifndef PYSOCK_NO_SSL

/* Buffers: memory BIOs. */

struct pysock_bio {
    int refs; /* atomic */
    pysock__mutex lock;
    /* guarded by lock */
    unsigned char *data; /* from pos to len */
    size_t pos, len, cap;
    int eof;
};

static void pysock__bio_release(pysock_bio *bio)
{
    if (!bio || pysock__add(&bio->refs, -1))
        return;
    pysock__mutex_free(&bio->lock);
    pysock__free(bio->data);
    pysock__free(bio);
}

/* Takes bytes out. Returns how many; 0 at the end; -EAGAIN if there are none yet. */
static ptrdiff_t pysock__bio_take(pysock_bio *bio, void *buf, size_t size)
{
    ptrdiff_t r;

    pysock__lock(&bio->lock);
    size = size < bio->len - bio->pos ? size : bio->len - bio->pos;
    r = size || bio->eof ? (ptrdiff_t)size : -EAGAIN;
    if (size)
        memcpy(buf, bio->data + bio->pos, size);
    bio->pos += size;
    if (bio->pos == bio->len)
        bio->pos = bio->len = 0;
    pysock__unlock(&bio->lock);
    return r;
}

/* Appends all: size, or -ENOMEM. */
static ptrdiff_t pysock__bio_put(pysock_bio *bio, const void *data, size_t size)
{
    ptrdiff_t r = -ENOMEM;

    pysock__lock(&bio->lock);
    if (bio->pos > bio->len / 2) {
        memmove(bio->data, bio->data + bio->pos, bio->len - bio->pos);
        bio->len -= bio->pos;
        bio->pos = 0;
    }
    if (size < SIZE_MAX / 4 && pysock__reserve(&bio->data, &bio->cap, bio->len + size, 1) == 0) {
        if (size)
            memcpy(bio->data + bio->len, data, size);
        bio->len += size;
        r = (ptrdiff_t)size;
    }
    pysock__unlock(&bio->lock);
    return r;
}

PYSOCKDEF pysock_bio *pysock_bio_new(void)
{
    pysock_bio *bio = (pysock_bio *)pysock__alloc(sizeof *bio);

    if (!bio) {
        pysock__fail_memory("bio_new");
        return NULL;
    }
    bio->refs = 1;
    pysock__mutex_init(&bio->lock);
    return bio;
}

PYSOCKDEF pysock_bio *pysock_bio_retain(pysock_bio *bio)
{
    if (bio)
        pysock__add(&bio->refs, 1);
    return bio;
}

PYSOCKDEF void pysock_bio_release(pysock_bio *bio)
{
    pysock__bio_release(bio);
}

PYSOCKDEF ptrdiff_t pysock_bio_read(pysock_bio *bio, void *buf, size_t size)
{
    ptrdiff_t r;

    if (!bio)
        return pysock__fail_value("bio_read", "bio is NULL");
    if (pysock__check_memory("bio_read", buf, size) < 0)
        return -1;
    r = pysock__bio_take(bio, buf, size);
    return r < 0 ? 0 : r;
}

PYSOCKDEF ptrdiff_t pysock_bio_write(pysock_bio *bio, const void *data, size_t size)
{
    ptrdiff_t r;
    int eof;

    if (!bio)
        return pysock__fail_value("bio_write", "bio is NULL");
    if (pysock__check_memory("bio_write", data, size) < 0)
        return -1;
    pysock__lock(&bio->lock);
    eof = bio->eof;
    pysock__unlock(&bio->lock);
    if (eof)
        return pysock__fail(PYSOCK_SSL_ERROR, 0, "WRITE_AFTER_EOF",
                            "bio_write: cannot write() after write_eof()");
    r = pysock__bio_put(bio, data, size);
    return r < 0 ? pysock__fail_memory("bio_write") : r;
}

PYSOCKDEF int pysock_bio_write_eof(pysock_bio *bio)
{
    if (!bio)
        return pysock__fail_value("bio_write_eof", "bio is NULL");
    pysock__lock(&bio->lock);
    bio->eof = 1;
    pysock__unlock(&bio->lock);
    return 0;
}

PYSOCKDEF ptrdiff_t pysock_bio_pending(pysock_bio *bio)
{
    size_t n;

    if (!bio)
        return pysock__fail_value("bio_pending", "bio is NULL");
    pysock__lock(&bio->lock);
    n = bio->len - bio->pos;
    pysock__unlock(&bio->lock);
    return (ptrdiff_t)n;
}

PYSOCKDEF int pysock_bio_eof(pysock_bio *bio)
{
    int eof;

    if (!bio) {
        pysock__fail_value("bio_eof", "bio is NULL");
        return 0;
    }
    pysock__lock(&bio->lock);
    eof = bio->eof && bio->pos == bio->len;
    pysock__unlock(&bio->lock);
    return eof;
}

#endif /* PYSOCK_NO_SSL */

/* ---- >>states ----
   Interpreters: closers, hooks, and the epoch that ends every wait. A cleanup raises the epoch; a
   call that began in an earlier one fails with ESHUTDOWN. Everything except the wakers belongs to a
   state; sockets and pollers hold a reference to theirs. The lock: pysock__process.lock, a leaf. */

typedef struct pysock__closer {
    pysock__list link;
    void (*fn)(void *);
    void *arg;
} pysock__closer;

/* A waker that pysock__broadcast() wakes. */
typedef struct pysock__sleeper {
    pysock__list link; /* guarded by the process's lock */
    pysock__waker waker;
    void (*after_fork)(struct pysock__sleeper *sl); /* a poller's; NULL: a thread's */
} pysock__sleeper;

struct pysock_state {
    int refs;                   /* atomic */
    unsigned epoch;             /* atomic */
    int ending;                 /* atomic: in its cleanup, new sockets are refused */
    size_t open;                /* atomic: sockets that are not freed yet */
    size_t hooks;               /* atomic: workers that run the audit hook */
    pysock__mutex cleanup_lock; /* one cleanup of it at a time; outermost */
    /* guarded by the process's lock */
    pysock__list link;       /* in pysock__process.states; the main one is not */
    pysock__list closers;    /* the last registered first */
    pysock__waker *cleaner;  /* of the cleanup that waits for the last socket */
    int64_t default_timeout; /* ns; negative: none */
    int (*interrupt)(void *arg);
    void *interrupt_arg;
    int (*audit)(void *arg, const pysock_audit_event *event);
    void *audit_arg;
};

/* clang-format off */
static pysock_state pysock__main_state = {1, 0, 0, 0, 0, PYSOCK__MUTEX_INIT,
                                          PYSOCK__LIST_INIT(pysock__main_state.link),
                                          PYSOCK__LIST_INIT(pysock__main_state.closers),
                                          NULL, -1, NULL, NULL, NULL, NULL};
/* clang-format on */

static struct {
    pysock__mutex lock;
    pysock__list states;        /* guarded by lock; the last made first */
    pysock__list sleepers;      /* guarded by lock */
    unsigned epoch;             /* atomic */
    int ending;                 /* atomic: in pysock_cleanup(), new sockets are refused */
    int audited;                /* atomic: some state has, or has had, an audit hook */
    int at_exit;                /* atomic: pysock_cleanup() runs at exit */
    int deferred;               /* atomic: work was deferred because a lock was held */
    pysock__mutex cleanup_lock; /* one cleanup at a time; outermost of all */
} pysock__process = {PYSOCK__MUTEX_INIT,
                     PYSOCK__LIST_INIT(pysock__process.states),
                     PYSOCK__LIST_INIT(pysock__process.sleepers),
                     0,
                     0,
                     0,
                     0,
                     0,
                     PYSOCK__MUTEX_INIT};

static PYSOCK__THREAD_LOCAL pysock_state *pysock__current; /* NULL: the main one */

static pysock_state *pysock__state(void)
{
    return pysock__current ? pysock__current : &pysock__main_state;
}

static pysock_state *pysock__state_retain(pysock_state *st)
{
    pysock__add(&st->refs, 1);
    return st;
}

static void pysock__state_release(pysock_state *st)
{
    if (!st || st == &pysock__main_state || pysock__add(&st->refs, -1))
        return;
    pysock__mutex_free(&st->cleanup_lock);
    pysock__free(st);
}

#define PYSOCK__EPOCH_OF_ALL 0x10000u /* added by pysock_cleanup(); a state's cleanup adds 1 */

/* Changes when pysock_state_cleanup() or pysock_cleanup() ends the state's waits. */
static unsigned pysock__epoch(const pysock_state *st)
{
    return pysock__load(&pysock__process.epoch) + pysock__load(&st->epoch);
}

/* Fails because the epoch has changed since the call began. */
static int pysock__fail_ended(const char *what, unsigned began, const pysock_state *st)
{
    return pysock__fail(PYSOCK_OS_ERROR, ESHUTDOWN, "ESHUTDOWN", "%s: ended by pysock_%scleanup()",
                        what, (pysock__epoch(st) - began) % PYSOCK__EPOCH_OF_ALL ? "state_" : "");
}

static int pysock__is_ending(const pysock_state *st)
{
    return pysock__load(&pysock__process.ending) || pysock__load(&st->ending);
}

PYSOCKDEF pysock_state *pysock_state_new(void)
{
    pysock_state *st = (pysock_state *)pysock__alloc(sizeof *st);

    if (!st) {
        pysock__fail_memory("state_new");
        return NULL;
    }
    st->refs = 1;
    st->default_timeout = -1;
    pysock__mutex_init(&st->cleanup_lock);
    pysock__list_init(&st->closers);
    pysock__lock(&pysock__process.lock);
    pysock__list_append(pysock__process.states.next, &st->link); /* at the head */
    pysock__unlock(&pysock__process.lock);
    return st;
}

PYSOCKDEF pysock_state *pysock_state_swap(pysock_state *st)
{
    pysock_state *before = pysock__current;

    pysock__current = st == &pysock__main_state ? NULL : st;
    return before;
}

/* Once per process, with the first socket or closer. */
static void pysock__install_exit(void)
{
#ifndef PYSOCK_NO_ATEXIT
    if (!pysock__exchange(&pysock__process.at_exit, 1))
        atexit(pysock_cleanup);
#endif
}

PYSOCKDEF int pysock_register_closer(void (*fn)(void *arg), void *arg)
{
    pysock_state *st = pysock__state();
    pysock__closer *c;

    if (!fn)
        return pysock__fail_value("pysock_register_closer", "fn is NULL");
    c = (pysock__closer *)pysock__alloc(sizeof *c);
    if (!c)
        return pysock__fail_memory("pysock_register_closer");
    c->fn = fn;
    c->arg = arg;
    pysock__install_exit();
    pysock__lock(&pysock__process.lock);
    pysock__list_append(st->closers.next, &c->link); /* before the first: at the head */
    pysock__unlock(&pysock__process.lock);
    return 0;
}

PYSOCKDEF int pysock_unregister_closer(void (*fn)(void *arg), void *arg)
{
    pysock_state *st = pysock__state();
    pysock__list *l, *next;

    pysock__lock(&pysock__process.lock);
    for (l = st->closers.next; l != &st->closers; l = next) {
        pysock__closer *c = PYSOCK__ENTRY(l, pysock__closer, link);
        next = l->next;
        if (c->fn != fn || c->arg != arg)
            continue;
        pysock__list_remove(l);
        pysock__free(c);
    }
    pysock__unlock(&pysock__process.lock);
    return 0;
}

/* The cleanups that the calling thread runs: a closer may clean up another state. */
typedef struct pysock__cleaning {
    const pysock_state *st; /* NULL: everything */
    struct pysock__cleaning *outer;
} pysock__cleaning;

static PYSOCK__THREAD_LOCAL pysock__cleaning *pysock__in_cleanup;

/* Begins a cleanup of st; 0 if the thread is in one already. pysock__cleaning_end() ends it. */
static int pysock__cleaning_begin(pysock__cleaning *me, pysock_state *st)
{
    pysock__cleaning *outer;

    for (outer = pysock__in_cleanup; outer; outer = outer->outer)
        if (outer->st == st)
            return 0;
    me->st = pysock__state_retain(st); /* a closer may free it */
    me->outer = pysock__in_cleanup;
    pysock__in_cleanup = me;
    pysock__lock(&st->cleanup_lock);
    return 1;
}

static void pysock__cleaning_end(pysock__cleaning *me, pysock_state *st)
{
    pysock__unlock(&st->cleanup_lock);
    pysock__in_cleanup = me->outer;
    pysock__state_release(st);
}

/* Runs a state's closers, with that state current. */
static void pysock__run_closers(pysock_state *st)
{
    pysock_state *before = pysock_state_swap(st);

    for (;;) {
        pysock__closer *c = NULL;

        pysock__lock(&pysock__process.lock);
        if (!pysock__list_empty(&st->closers)) {
            c = PYSOCK__ENTRY(st->closers.next, pysock__closer, link);
            pysock__list_remove(&c->link);
        }
        pysock__unlock(&pysock__process.lock);
        if (!c)
            break;
        c->fn(c->arg);
        pysock__free(c);
    }
    pysock_state_swap(before);
}

/* Runs the closers of every state, the newest first, the main one last. A closer may free its own
   state, or another one. */
static void pysock__run_all_closers(void)
{
    pysock__cleaning me;
    pysock_state *st;
    pysock__list *l;

    do {
        st = NULL;
        pysock__lock(&pysock__process.lock);
        for (l = pysock__process.states.next; l != &pysock__process.states && !st; l = l->next)
            if (!pysock__list_empty(&PYSOCK__ENTRY(l, pysock_state, link)->closers))
                st = pysock__state_retain(PYSOCK__ENTRY(l, pysock_state, link));
        pysock__unlock(&pysock__process.lock);
        if (st && pysock__cleaning_begin(&me, st)) {
            pysock__run_closers(st);
            pysock__cleaning_end(&me, st);
        }
        pysock__state_release(st);
    } while (st);
    if (pysock__cleaning_begin(&me, &pysock__main_state)) {
        pysock__run_closers(&pysock__main_state);
        pysock__cleaning_end(&me, &pysock__main_state);
    }
}

PYSOCKDEF void pysock_set_interrupt_hook(int (*fn)(void *arg), void *arg)
{
    pysock_state *st = pysock__state();

    pysock__lock(&pysock__process.lock);
    st->interrupt = fn;
    st->interrupt_arg = arg;
    pysock__unlock(&pysock__process.lock);
}

/* A signal came in a wait: non-zero if the interrupt hook ends the call. */
static int pysock__interrupted(void)
{
    pysock_state *st = pysock__state();
    int (*fn)(void *);
    void *arg;

    pysock__lock(&pysock__process.lock);
    fn = st->interrupt;
    arg = st->interrupt_arg;
    pysock__unlock(&pysock__process.lock);
    return fn && fn(arg);
}

PYSOCKDEF void pysock_set_audit_hook(int (*fn)(void *arg, const pysock_audit_event *event),
                                     void *arg)
{
    pysock_state *st = pysock__state();

    pysock__lock(&pysock__process.lock);
    st->audit = fn;
    st->audit_arg = arg;
    pysock__unlock(&pysock__process.lock);
    if (fn)
        pysock__store(&pysock__process.audited, 1);
}

/* Asks the audit hook: non-zero if the event is denied. No lock is held. */
static int pysock__denied(const pysock_audit_event *event)
{
    pysock_state *st = pysock__state();
    int (*fn)(void *, const pysock_audit_event *);
    void *arg;

    if (!pysock__load(&pysock__process.audited))
        return 0;
    pysock__lock(&pysock__process.lock);
    fn = st->audit;
    arg = st->audit_arg;
    pysock__unlock(&pysock__process.lock);
    return fn && fn(arg, event);
}

/* The same for an event with at most a host and a service; fails if it is denied. */
static int pysock__audit_name(const char *event, const char *what, const char *host,
                              const char *service)
{
    pysock_audit_event e;

    memset(&e, 0, sizeof e);
    e.name = event;
    e.host = host;
    e.service = service;
    if (!pysock__denied(&e))
        return 0;
    return pysock__fail(PYSOCK_OS_ERROR, EACCES, "EACCES", "%s%s%.200s: denied by the audit hook",
                        what, host && host[0] ? " of " : "", host ? host : "");
}

static PYSOCK__THREAD_LOCAL int pysock__asking; /* in the hook for a thread */

/* Threads belong to the process, so the main state's hook is asked. While it runs, its own calls
   start none. */
static int pysock__thread_denied(void)
{
    pysock_state *before;
    pysock_audit_event e;
    int denied;

    if (!PYSOCK__THREADS || pysock__asking || !pysock__load(&pysock__process.audited))
        return pysock__asking;
    before = pysock_state_swap(NULL);
    pysock__asking = 1;
    memset(&e, 0, sizeof e);
    e.name = "pysock.thread";
    denied = pysock__denied(&e);
    pysock__asking = 0;
    pysock_state_swap(before);
    return denied;
}

/* ---- >>resolver ----
   Lookups of host names: numeric addresses at once, names by getaddrinfo, on the calling thread or
   on worker threads, one for each lookup under way, which end when the queue is empty. A lookup has
   two owners, its worker and its caller; either may end first. The lock: pysock__resolver.lock. */

/* What a lookup found. */
typedef struct pysock__addrs {
    pysock_addr *items;
    size_t count, cap;
    int out_of_memory;
} pysock__addrs;

static int pysock__addrs_add(void *arg, const struct addrinfo *found)
{
    pysock__addrs *list = (pysock__addrs *)arg;
    pysock_addr *addr;

    if (pysock__reserve(&list->items, &list->cap, list->count + 1, sizeof *list->items) < 0)
        return list->out_of_memory = 1;
    addr = &list->items[list->count++];
    addr->size = (socklen_t)found->ai_addrlen;
    memcpy(&addr->u, found->ai_addr, found->ai_addrlen);
    return 0;
}

static const char *pysock__gai_name(int code)
{
    switch (code) {
    case EAI_AGAIN: return "EAI_AGAIN";
    case EAI_BADFLAGS: return "EAI_BADFLAGS";
    case EAI_FAIL: return "EAI_FAIL";
    case EAI_FAMILY: return "EAI_FAMILY";
    case EAI_OVERFLOW: return "EAI_OVERFLOW";
    case EAI_MEMORY: return "EAI_MEMORY";
    case EAI_NONAME: return "EAI_NONAME";
    case EAI_SERVICE: return "EAI_SERVICE";
    case EAI_SOCKTYPE: return "EAI_SOCKTYPE";
    case EAI_SYSTEM: return "EAI_SYSTEM";
#ifdef EAI_NODATA
    case EAI_NODATA: return "EAI_NODATA";
#endif
#ifdef EAI_ADDRFAMILY
    case EAI_ADDRFAMILY: return "EAI_ADDRFAMILY";
#endif
#ifdef EAI_IDN_ENCODE
    case EAI_IDN_ENCODE: return "EAI_IDN_ENCODE";
#endif
    default: return "EAI";
    }
}

/* A common mistake in a host's text, as advice for the message, or NULL. */
static const char *pysock__host_advice(const char *host)
{
    const char *colon = strchr(host, ':');

    if (strstr(host, "://"))
        return "; that is a URL: pass only its host";
    if (colon && (host[0] == '[' || !strchr(colon + 1, ':')))
        return "; that is a host with a port: pass them separately, an IPv6 address without "
               "brackets";
    return NULL;
}

/* Sets the fault of a failed lookup of subject; host is the name in it, or NULL. */
static void pysock__fault_gai(pysock__fault *f, int code, int sys, const char *what,
                              const char *subject, const char *host)
{
    const char *advice = host ? pysock__host_advice(host) : NULL;

    if (!advice)
        advice = pysock__is_ascii(subject) ? "" : pysock__idn_advice();
    if (code == EAI_SYSTEM)
        pysock__fault_os(f, -sys, what, subject);
    else if (code == EAI_MEMORY)
        pysock__fault_set(f, PYSOCK_MEMORY_ERROR, ENOMEM, "ENOMEM", "%s: out of memory", what);
    else
        pysock__fault_set(f, PYSOCK_GAI_ERROR, code, pysock__gai_name(code),
                          "%s: looking up '%.200s' failed: %s%s", what, subject,
                          pysock__gai_sentence(code), advice);
}

static int pysock__fail_gai(int code, int sys, const char *what, const char *host)
{
    pysock__fault_gai(&pysock__last, code, sys, what, host, host);
    return pysock__raise(&pysock__last);
}

/* The addresses of host and port. The type is given so that each address comes once; raw sockets
   use the datagram one, because they have no ports. */
static int pysock__resolve_with(const char *host, int port, int family, int type, int flags,
                                pysock__addrs *list, int *sys)
{
    struct addrinfo want;
    char service[16];
    int err;

    memset(&want, 0, sizeof want);
    want.ai_family = family;
    want.ai_socktype = type == SOCK_STREAM ? SOCK_STREAM : SOCK_DGRAM;
    want.ai_flags = flags | AI_NUMERICSERV;
    if (host && pysock__host_advice(host))
        return EAI_NONAME;
    snprintf(service, sizeof service, "%d", port);
    err = pysock__sys_getaddrinfo(host, service, &want, pysock__addrs_add, list, sys);
    if (!err && list->out_of_memory)
        return EAI_MEMORY;
    return err || list->count ? err : EAI_NONAME;
}

/* Only if host is a numeric address already; an EAI_ code otherwise. Never waits. */
static int pysock__resolve_numeric(const char *host, int port, int family, int type,
                                   pysock__addrs *list)
{
    int sys, any = !host || !host[0];

    if (!any && family == AF_INET && strcmp(host, "<broadcast>") == 0)
        host = "255.255.255.255";
    return pysock__resolve_with(any ? NULL : host, port, family, type,
                                AI_NUMERICHOST | (any ? AI_PASSIVE : 0), list, &sys);
}

/* Looks a name up; may wait for the name server. */
static int pysock__resolve(const char *host, int port, int family, int type, pysock__addrs *list,
                           int *sys)
{
    PYSOCK_TRACE("getaddrinfo", NULL);
    return pysock__resolve_with(host, port, family, type, 0, list, sys);
}

/* Asks the audit hook about a name before a call looks it up. */
static int pysock__audit_lookup(const char *what, const char *host, int port, int family, int type)
{
    pysock_audit_event e;
    char service[16];

    if (!pysock__load(&pysock__process.audited))
        return 0;
    memset(&e, 0, sizeof e);
    snprintf(service, sizeof service, "%d", port);
    e.name = "socket.getaddrinfo";
    e.host = host;
    e.service = service;
    e.family = family;
    e.type = type;
    if (!pysock__denied(&e))
        return 0;
    return pysock__fail(PYSOCK_OS_ERROR, EACCES, "EACCES",
                        "%s: looking up '%.200s': denied by the audit hook", what, host);
}

static int pysock__check_host(const char *what, const char *host, int port)
{
    if (host && strlen(host) > 255)
        return pysock__fail(PYSOCK_VALUE_ERROR, EINVAL, "EINVAL",
                            "%s: the host name has %lu bytes; a name has at most 255", what,
                            (unsigned long)strlen(host));
    if (port < 0 || port > 65535)
        return pysock__fail(PYSOCK_VALUE_ERROR, EINVAL, "EINVAL",
                            "%s: port %d is not between 0 and 65535", what, port);
    return 0;
}

/* The families of the calls that take host and port. */
static int pysock__check_family(const char *what, int family)
{
    if (family == AF_INET || family == AF_INET6 || family == AF_UNIX)
        return 0;
    return pysock__fail(PYSOCK_VALUE_ERROR, EINVAL, "EINVAL",
                        "%s: host and port mean nothing in family %d; use the call that takes a "
                        "pysock_addr",
                        what, family);
}

/* A lookup under way. When the result is there the worker sets complete, wakes the thread that
   waits in pysock__lookup_wait(), and calls done(arg, lookup), if given, without a lock. It is
   freed when both owners have released it. getaddrinfo() cannot be cancelled, so a worker finishes
   even a lookup that its caller has abandoned. */
typedef struct pysock__lookup {
    /* guarded by the resolver's lock */
    pysock__list link;
    int refs;
    int complete;
    pysock__waker *waker; /* of the thread that waits for it */
    /* set once */
    char *host;
    int port, family, type;
    void (*done)(void *arg, struct pysock__lookup *lookup);
    void *arg;
    /* set by the worker before it is complete */
    int err, sys;
    pysock__addrs addrs;
} pysock__lookup;

static struct {
    pysock__mutex lock;
    pysock__list queue; /* guarded by lock */
    int workers;        /* guarded by lock; PYSOCK_MAX_LOOKUPS at most */
} pysock__resolver = {PYSOCK__MUTEX_INIT, PYSOCK__LIST_INIT(pysock__resolver.queue), 0};

static void pysock__lookup_free(pysock__lookup *l)
{
    pysock__free(l->host);
    pysock__free(l->addrs.items);
    pysock__free(l);
}

static void pysock__lookup_retain(pysock__lookup *l)
{
    pysock__lock(&pysock__resolver.lock);
    l->refs++;
    pysock__unlock(&pysock__resolver.lock);
}

/* May be called with a socket's lock held. */
static void pysock__lookup_release(pysock__lookup *l)
{
    int refs;

    if (!l)
        return;
    pysock__lock(&pysock__resolver.lock);
    refs = --l->refs;
    pysock__unlock(&pysock__resolver.lock);
    if (!refs)
        pysock__lookup_free(l);
}

/* Whether the result is there. waker: to be woken when it comes; NULL: none any more. May be called
   with a socket's lock held. */
static int pysock__lookup_complete(pysock__lookup *l, pysock__waker *waker)
{
    int complete;

    pysock__lock(&pysock__resolver.lock);
    complete = l->complete;
    l->waker = complete ? NULL : waker;
    pysock__unlock(&pysock__resolver.lock);
    return complete;
}

/* Runs the lookup, unless the caller has abandoned it. */
static void pysock__lookup_run(pysock__lookup *l)
{
    int wanted;

    pysock__lock(&pysock__resolver.lock);
    wanted = l->refs > 1;
    pysock__unlock(&pysock__resolver.lock);
    l->err = EAI_FAIL;
    if (wanted)
        l->err = pysock__resolve(l->host, l->port, l->family, l->type, &l->addrs, &l->sys);
    pysock__lock(&pysock__resolver.lock);
    l->complete = 1;
    if (l->waker)
        pysock__wake(l->waker);
    pysock__unlock(&pysock__resolver.lock);
    if (l->done)
        l->done(l->arg, l);
    pysock__lookup_release(l);
}

/* Works until the queue is empty, so that no idle thread stays behind. The calling thread counts as
   a worker. */
static void pysock__resolver_work_locked(void)
{
    while (!pysock__list_empty(&pysock__resolver.queue)) {
        pysock__lookup *l = PYSOCK__ENTRY(pysock__resolver.queue.next, pysock__lookup, link);
        pysock__list_remove(&l->link);
        pysock__unlock(&pysock__resolver.lock);
        pysock__lookup_run(l);
        pysock__lock(&pysock__resolver.lock);
    }
    pysock__resolver.workers--;
}

static void pysock__resolver_main(void *arg)
{
    (void)arg;
    pysock__lock(&pysock__resolver.lock);
    pysock__resolver_work_locked();
    pysock__unlock(&pysock__resolver.lock);
}

/* Starts a worker for a lookup that has just been queued: all running ones may be stuck. If none
   can be started and none runs, the calling thread does the work. No lock is held. */
static void pysock__resolver_spawn(void)
{
    pysock__thread thread = {0};
    int denied = pysock__thread_denied();

    pysock__lock(&pysock__resolver.lock);
    if (!denied && pysock__resolver.workers < PYSOCK_MAX_LOOKUPS
        && pysock__thread_start(&thread, pysock__resolver_main, NULL) == 0) {
        pysock__thread_detach(&thread);
        pysock__resolver.workers++;
    } else if (!pysock__resolver.workers) {
        pysock__resolver.workers++; /* while this thread works */
        pysock__resolver_work_locked();
    }
    pysock__unlock(&pysock__resolver.lock);
}

/* A lookup with one reference for the caller; NULL when out of memory. */
static pysock__lookup *pysock__lookup_new(const char *host, int port, int family, int type,
                                          void (*done)(void *, pysock__lookup *), void *arg)
{
    pysock__lookup *l = (pysock__lookup *)pysock__alloc(sizeof *l);

    if (!l)
        return NULL;
    pysock__list_init(&l->link);
    l->refs = 1;
    l->host = pysock__strdup(host);
    l->port = port;
    l->family = family;
    l->type = type;
    l->done = done;
    l->arg = arg;
    if (l->host)
        return l;
    pysock__lookup_release(l);
    return NULL;
}

/* Hands the lookup to a worker, or runs it here if there can be none. No lock is held. */
static void pysock__lookup_start(pysock__lookup *l)
{
    pysock__lock(&pysock__resolver.lock);
    l->refs++;
    pysock__list_append(&pysock__resolver.queue, &l->link);
    pysock__unlock(&pysock__resolver.lock);
    pysock__resolver_spawn();
}

/* ---- >>reactor ----
   Waiting. A thread that sleeps has a waker, which cleanup and fork find. The reactor is one thread
   that polls watches: a descriptor, events to wait for, a deadline, a callback. It knows neither
   sockets nor TLS, holds only unfinished work, and starts with the first kick. A kick makes the
   callback run soon; the callback then sets what the watch waits for, if anything. Without a thread
   (PYSOCK_NO_THREADS, or it would not start) the threads that sleep run the turns: one leads, the
   others follow. The lock: pysock__reactor.lock; no callback runs under it. */

/* Registers one with an open waker, so that a cleanup, a fork and other threads find it. */
static void pysock__sleeper_enlist(pysock__sleeper *sl)
{
    pysock__lock(&pysock__process.lock);
    pysock__list_append(&pysock__process.sleepers, &sl->link);
    pysock__unlock(&pysock__process.lock);
}

static void pysock__sleeper_close(pysock__sleeper *sl)
{
    pysock__lock(&pysock__process.lock);
    pysock__list_remove(&sl->link);
    pysock__unlock(&pysock__process.lock);
    pysock__waker_close(&sl->waker);
}

/* Opens a new waker in a forked child. */
static int pysock__sleeper_refresh(pysock__sleeper *sl)
{
    if (sl->waker.generation == pysock__fork_generation && sl->waker.rfd >= 0)
        return 0;
    return pysock__waker_open(&sl->waker);
}

static PYSOCK__THREAD_LOCAL pysock__sleeper *pysock__my_sleeper;

static void pysock__my_sleeper_free(void *arg)
{
    pysock__sleeper *sl = (pysock__sleeper *)arg;

    if (!sl)
        return;
    pysock__my_sleeper = NULL;
    pysock__sleeper_close(sl);
    pysock__free(sl);
}

/* The calling thread's waker, made when it first sleeps and kept while the thread lives. 0 or a
   negated errno value. */
static int pysock__thread_waker(pysock__waker **waker)
{
    pysock__sleeper *sl = pysock__my_sleeper;
    int err;

    if (!sl) {
        sl = (pysock__sleeper *)pysock__alloc(sizeof *sl);
        if (!sl)
            return -ENOMEM;
        err = pysock__waker_open(&sl->waker);
        if (err < 0) {
            pysock__free(sl);
            return err;
        }
        pysock__sleeper_enlist(sl);
        pysock__my_sleeper = sl;
        pysock__at_thread_exit(pysock__my_sleeper_free, sl);
    } else if ((err = pysock__sleeper_refresh(sl)) < 0) {
        return err;
    }
    *waker = &sl->waker;
    return 0;
}

/* In a forked child: the other threads are gone, and so are their wakers. The remaining wakers are
   closed now too, not at their next use: daemons close all descriptors that they find, and the
   number may by then belong to another file. */
static void pysock__sleepers_after_fork(void)
{
    pysock__list *l, *next;

    for (l = pysock__process.sleepers.next; l != &pysock__process.sleepers; l = next) {
        pysock__sleeper *sl = PYSOCK__ENTRY(l, pysock__sleeper, link);
        next = l->next;
        pysock__waker_close(&sl->waker);
        if (sl->after_fork) {
            sl->after_fork(sl);
        } else if (sl != pysock__my_sleeper) {
            pysock__list_remove(l);
            pysock__free(sl);
        }
    }
}

/* Makes every sleeping thread test again. */
static void pysock__wake_sleepers(void)
{
    pysock__list *l;

    pysock__lock(&pysock__process.lock);
    for (l = pysock__process.sleepers.next; l != &pysock__process.sleepers; l = l->next)
        pysock__wake(&PYSOCK__ENTRY(l, pysock__sleeper, link)->waker);
    pysock__unlock(&pysock__process.lock);
}

/* Ends every wait of calls that began before: those of st, or all if it is NULL. */
static void pysock__broadcast(pysock_state *st)
{
    if (st)
        pysock__add(&st->epoch, 1);
    else
        pysock__add(&pysock__process.epoch, PYSOCK__EPOCH_OF_ALL);
    pysock__wake_sleepers();
}

static void pysock__states_after_fork(void)
{
    pysock__list *l;

    for (l = pysock__process.states.next; l != &pysock__process.states; l = l->next) {
        pysock_state *st = PYSOCK__ENTRY(l, pysock_state, link);
        pysock__store(&st->ending, 0);
        pysock__store(&st->hooks, 0);
        pysock__mutex_init(&st->cleanup_lock);
        st->cleaner = NULL;
    }
    pysock__store(&pysock__main_state.ending, 0);
    pysock__mutex_init(&pysock__main_state.cleanup_lock);
    pysock__main_state.cleaner = NULL;
}

/* Counts down when one of the state's sockets is freed, or a worker leaves its hook. The last one
   wakes the state's cleanup. */
static void pysock__state_less_one(pysock_state *st, size_t *count)
{
    if (pysock__add(count, (size_t)-1))
        return;
    pysock__lock(&pysock__process.lock);
    if (st->cleaner)
        pysock__wake(st->cleaner);
    pysock__unlock(&pysock__process.lock);
}

typedef struct pysock__watch {
    /* set once */
    int fd;
    void (*fn)(struct pysock__watch *w, short revents); /* sets events and deadline */
    void (*hold)(struct pysock__watch *w);              /* the reactor begins to refer to it */
    void (*drop)(struct pysock__watch *w);              /* ... and no longer does */
    /* only the thread that runs the turn */
    short events; /* 0 and no deadline: done */
    int64_t deadline;
    /* guarded by the reactor's lock */
    pysock__list member_link, kick_link;
    int member, kicked;
} pysock__watch;

/* A thread that sleeps while another one leads. */
typedef struct pysock__follower {
    pysock__list link;
    pysock__waker *waker;
} pysock__follower;

static struct {
    pysock__mutex lock;
    /* guarded by lock */
    pysock__list members, kicked, followers;
    size_t count; /* of members */
    int started, stopping;
    int allowed;    /* the audit hook has allowed the thread */
    int wanted;     /* deferred work: the hook must be asked */
    int threadless; /* atomic too, so that a sleeper need not lock */
    int64_t stop_deadline;
    pysock__waker waker;
    pysock__thread thread;
    int leading;              /* a thread runs a turn: the reactor's, or, without it, any */
    pysock__waker *leader;    /* what a kick then wakes; NULL: the leader does not sleep */
    struct pollfd *spare_fds; /* from pysock__reactor_reserve(), for the next turn to take */
    pysock__watch **spare_watches;
    size_t spare_cap;
    /* only the thread that runs the turn */
    struct pollfd *fds;
    pysock__watch **watches;
    size_t cap;
    /* clang-format off */
} pysock__reactor = {PYSOCK__MUTEX_INIT,
                     PYSOCK__LIST_INIT(pysock__reactor.members),
                     PYSOCK__LIST_INIT(pysock__reactor.kicked),
                     PYSOCK__LIST_INIT(pysock__reactor.followers),
                     0, 0, 0, 0, 0, 0, 0, {-1, -1, 0, 0}, {0},
                     0, NULL, NULL, NULL, 0, NULL, NULL, 0};
/* clang-format on */

static void pysock__watch_init(pysock__watch *w, int fd, void (*fn)(pysock__watch *, short),
                               void (*hold)(pysock__watch *), void (*drop)(pysock__watch *))
{
    memset(w, 0, sizeof *w);
    w->fd = fd;
    w->fn = fn;
    w->hold = hold;
    w->drop = drop;
    w->deadline = PYSOCK__NEVER;
    pysock__list_init(&w->member_link);
    pysock__list_init(&w->kick_link);
}

/* Makes room for that many watches, so that the reactor's thread never runs out of memory. */
static int pysock__reactor_reserve(size_t count)
{
    struct pollfd *fds;
    pysock__watch **watches;
    size_t cap = 64;
    int err = 0;

    while (cap < count + 2) /* the waker, and one to spare */
        cap *= 2;
    pysock__lock(&pysock__reactor.lock);
    if (cap > pysock__reactor.cap && cap > pysock__reactor.spare_cap) {
        fds = (struct pollfd *)pysock__alloc(cap * sizeof *fds);
        watches = (pysock__watch **)pysock__alloc(cap * sizeof *watches);
        if (fds && watches) {
            pysock__free(pysock__reactor.spare_fds);
            pysock__free(pysock__reactor.spare_watches);
            pysock__reactor.spare_fds = fds;
            pysock__reactor.spare_watches = watches;
            pysock__reactor.spare_cap = cap;
        } else {
            pysock__free(fds);
            pysock__free(watches);
            err = -ENOMEM;
        }
    }
    pysock__unlock(&pysock__reactor.lock);
    return err;
}

static void pysock__reactor_adopt_locked(void)
{
    if (!pysock__reactor.spare_cap)
        return;
    pysock__free(pysock__reactor.fds);
    pysock__free(pysock__reactor.watches);
    pysock__reactor.fds = pysock__reactor.spare_fds;
    pysock__reactor.watches = pysock__reactor.spare_watches;
    pysock__reactor.cap = pysock__reactor.spare_cap;
    pysock__reactor.spare_fds = NULL;
    pysock__reactor.spare_watches = NULL;
    pysock__reactor.spare_cap = 0;
}

/* Runs the callback, and then keeps the watch or drops it. */
static void pysock__watch_call_locked(pysock__watch *w, short revents)
{
    int done;

    pysock__unlock(&pysock__reactor.lock);
    w->fn(w, revents);
    pysock__lock(&pysock__reactor.lock);
    if (w->events || w->deadline != PYSOCK__NEVER)
        return;
    pysock__list_remove(&w->member_link);
    w->member = 0;
    pysock__reactor.count--;
    done = !w->kicked; /* kicked again: keep the reference for that */
    if (!done)
        return;
    pysock__unlock(&pysock__reactor.lock);
    w->drop(w);
    pysock__lock(&pysock__reactor.lock);
}

/* Runs the callbacks of the watches kicked so far; a later kick is for the next turn. */
static void pysock__run_kicked_locked(void)
{
    pysock__list now;

    pysock__list_init(&now);
    while (!pysock__list_empty(&pysock__reactor.kicked)) {
        pysock__list *l = pysock__reactor.kicked.next;
        pysock__list_remove(l);
        pysock__list_append(&now, l);
    }
    while (!pysock__list_empty(&now)) {
        pysock__watch *w = PYSOCK__ENTRY(now.next, pysock__watch, kick_link);
        pysock__list_remove(&w->kick_link);
        w->kicked = 0;
        if (!w->member) {
            w->member = 1;
            pysock__reactor.count++;
            pysock__list_append(&pysock__reactor.members, &w->member_link);
        }
        pysock__watch_call_locked(w, 0);
    }
}

/* Writes the members into fds and watches, from *n on; returns the nearest deadline. */
static int64_t pysock__gather_locked(struct pollfd *fds, pysock__watch **watches, size_t *n)
{
    int64_t nearest = PYSOCK__NEVER;
    pysock__list *l;

    for (l = pysock__reactor.members.next; l != &pysock__reactor.members; l = l->next) {
        pysock__watch *w = PYSOCK__ENTRY(l, pysock__watch, member_link);
        fds[*n].fd = w->events ? w->fd : -1;
        fds[*n].events = w->events;
        fds[*n].revents = 0;
        watches[(*n)++] = w;
        if (w->deadline < nearest)
            nearest = w->deadline;
    }
    return nearest;
}

/* Runs the callbacks of watches that have events or whose deadline has passed. */
static void pysock__dispatch_locked(struct pollfd *fds, pysock__watch **watches, size_t from,
                                    size_t n)
{
    int64_t now = 0;
    size_t i;

    for (i = from; i < n; i++) {
        pysock__watch *w = watches[i];
        if (!fds[i].revents && w->deadline != PYSOCK__NEVER && !now)
            now = pysock__now();
        if (fds[i].revents || (w->deadline != PYSOCK__NEVER && w->deadline <= now))
            pysock__watch_call_locked(w, fds[i].revents);
    }
}

/* Room for a turn over count descriptors: the reactor's arrays, which always suffice for its own
   thread, or memory for this turn. NULL: out of memory. */
static struct pollfd *pysock__turn_room_locked(size_t count, pysock__watch ***watches)
{
    struct pollfd *fds;

    pysock__reactor_adopt_locked();
    if (count <= pysock__reactor.cap) {
        *watches = pysock__reactor.watches;
        return pysock__reactor.fds;
    }
    fds = (struct pollfd *)PYSOCK_MALLOC(count * (sizeof *fds + sizeof **watches));
    *watches = (pysock__watch **)(void *)(fds + count);
    return fds;
}

/* One turn of the leader: runs what was kicked, polls the leader's own descriptors and the watches
   together, and runs the callbacks of watches with events. Returns what pysock__poll() would for
   the leader's own; 0 if only watches had events. */
static int pysock__turn_locked(struct pollfd *own, size_t own_count, int64_t deadline)
{
    struct pollfd *fds;
    pysock__watch **watches;
    int64_t nearest;
    size_t i, n = own_count;
    int r, ready = 0, allocated;

    pysock__run_kicked_locked();
    fds = pysock__turn_room_locked(own_count + pysock__reactor.count + 1, &watches);
    if (!fds)
        return -ENOMEM;
    allocated = fds != pysock__reactor.fds;
    if (own_count)
        memcpy(fds, own, own_count * sizeof *fds);
    nearest = pysock__gather_locked(fds, watches, &n);
    if (!pysock__list_empty(&pysock__reactor.kicked))
        nearest = 0;
    pysock__unlock(&pysock__reactor.lock);
    r = pysock__poll(fds, n, nearest < deadline ? nearest : deadline);
    pysock__lock(&pysock__reactor.lock);
    for (i = 0; r > 0 && i < own_count; i++) {
        own[i].revents = fds[i].revents;
        ready += own[i].revents != 0;
    }
    if (r >= 0)
        pysock__dispatch_locked(fds, watches, own_count, n);
    if (allocated)
        PYSOCK_FREE(fds);
    return r < 0 ? r : ready;
}

/* Leads for one turn; waker: what a kick wakes, or NULL. */
static int pysock__lead_locked(pysock__waker *waker, struct pollfd *fds, size_t count,
                               int64_t deadline)
{
    int r;

    pysock__reactor.leading = 1;
    pysock__reactor.leader = waker;
    r = pysock__turn_locked(fds, count, deadline);
    pysock__reactor.leading = 0;
    pysock__reactor.leader = NULL;
    return r;
}

/* Drops all watches. */
static void pysock__reactor_abandon_locked(void)
{
    while (!pysock__list_empty(&pysock__reactor.members)
           || !pysock__list_empty(&pysock__reactor.kicked)) {
        pysock__list *m = pysock__reactor.members.next;
        pysock__watch *w =
            m != &pysock__reactor.members
                ? PYSOCK__ENTRY(m, pysock__watch, member_link)
                : PYSOCK__ENTRY(pysock__reactor.kicked.next, pysock__watch, kick_link);
        pysock__list_remove(&w->member_link);
        pysock__list_remove(&w->kick_link);
        pysock__reactor.count -= (size_t)w->member;
        w->member = w->kicked = 0;
        pysock__unlock(&pysock__reactor.lock);
        w->drop(w);
        pysock__lock(&pysock__reactor.lock);
    }
}

static int pysock__reactor_idle_locked(void)
{
    return pysock__list_empty(&pysock__reactor.members)
           && pysock__list_empty(&pysock__reactor.kicked);
}

/* A millisecond in which other threads can have the lock. */
static void pysock__reactor_pause_locked(void)
{
    pysock__unlock(&pysock__reactor.lock);
    pysock__poll(NULL, 0, pysock__deadline_in(1000000));
    pysock__lock(&pysock__reactor.lock);
}

/* The reactor's thread is the leader whose own descriptor is its waker. */
static void pysock__reactor_main(void *arg)
{
    pysock__waker *waker = &pysock__reactor.waker;
    struct pollfd own;
    int r;

    (void)arg;
    own.fd = waker->rfd;
    own.events = POLLIN;
    pysock__lock(&pysock__reactor.lock);
    while (!pysock__reactor.stopping
           || (!pysock__reactor_idle_locked() && pysock__now() < pysock__reactor.stop_deadline)) {
        own.revents = 0;
        r = pysock__lead_locked(waker, &own, 1,
                                pysock__reactor.stopping ? pysock__reactor.stop_deadline
                                                         : PYSOCK__NEVER);
        if (r == -ENOMEM)
            pysock__reactor_pause_locked();
        pysock__waker_drain(waker, own.revents); /* a kick from now on is in the list already */
    }
    pysock__unlock(&pysock__reactor.lock);
}

/* There will be no thread: sleeping threads run the turns, so all must wake and sleep again. */
static void pysock__reactor_threadless_locked(void)
{
    pysock__store(&pysock__reactor.threadless, 1);
    pysock__wake_sleepers();
}

static void pysock__reactor_start_locked(void)
{
    if (pysock__reactor.started || pysock__reactor.threadless)
        return;
    if (!pysock__reactor.allowed && pysock__load(&pysock__process.audited)) {
        pysock__reactor.wanted = 1;
        pysock__store(&pysock__process.deferred, 1);
        return;
    }
    pysock__reactor_adopt_locked();
    if (pysock__waker_open(&pysock__reactor.waker) < 0) {
        pysock__reactor_threadless_locked();
        return;
    }
    if (pysock__thread_start(&pysock__reactor.thread, pysock__reactor_main, NULL) < 0) {
        pysock__waker_close(&pysock__reactor.waker);
        pysock__reactor_threadless_locked();
        return;
    }
    pysock__reactor.started = 1;
}

/* Asks the audit hook about the reactor's thread, if the thread is wanted. */
static void pysock__reactor_ask(void)
{
    int wanted, denied;

    pysock__lock(&pysock__reactor.lock);
    wanted = pysock__reactor.wanted;
    pysock__reactor.wanted = 0;
    pysock__unlock(&pysock__reactor.lock);
    if (!wanted)
        return;
    denied = pysock__thread_denied();
    pysock__lock(&pysock__reactor.lock);
    if (!pysock__reactor.started && denied)
        pysock__reactor_threadless_locked();
    pysock__reactor.allowed = !denied;
    if (!pysock__reactor_idle_locked())
        pysock__reactor_start_locked();
    pysock__unlock(&pysock__reactor.lock);
}

/* Runs work deferred because a lock was held: asks the audit hook about the reactor's thread.
   Called before a thread sleeps, and at the end of calls that may have kicked a watch. 1: it ran;
   that may have taken long, and may have drained the thread's waker. The thread's error is kept. */
static int pysock__run_deferred(void)
{
    pysock__fault before;
    int code;

    if (!pysock__load(&pysock__process.deferred) || pysock__asking
        || !pysock__exchange(&pysock__process.deferred, 0))
        return 0;
    code = pysock__get_errno();
    before = pysock__last;
    pysock__reactor_ask();
    pysock__last = before;
    pysock__set_errno(code);
    return 1;
}

/* Schedules the callback. May be called with a socket's lock held. */
static void pysock__kick(pysock__watch *w)
{
    pysock__lock(&pysock__reactor.lock);
    if (!w->kicked) {
        if (!w->member)
            w->hold(w);
        w->kicked = 1;
        pysock__list_append(&pysock__reactor.kicked, &w->kick_link);
    }
    pysock__reactor_start_locked();
    if (pysock__reactor.leader) /* otherwise the next turn finds it in the list */
        pysock__wake(pysock__reactor.leader);
    pysock__unlock(&pysock__reactor.lock);
}

/* The same only if the reactor refers to the watch, so that it drops it. */
static void pysock__kick_if_held(pysock__watch *w)
{
    int held;

    pysock__lock(&pysock__reactor.lock);
    held = w->member;
    pysock__unlock(&pysock__reactor.lock);
    if (held)
        pysock__kick(w);
}

/* If no thread leads, wakes the first follower, which leads when it sleeps again. */
static void pysock__hand_over_locked(void)
{
    if (!pysock__reactor.leading && !pysock__list_empty(&pysock__reactor.followers))
        pysock__wake(PYSOCK__ENTRY(pysock__reactor.followers.next, pysock__follower, link)->waker);
}

/* Sleeps while another thread leads. */
static int pysock__follow_locked(pysock__waker *waker, struct pollfd *fds, size_t count,
                                 int64_t deadline)
{
    pysock__follower me;
    int r;

    me.waker = waker;
    pysock__list_append(&pysock__reactor.followers, &me.link);
    pysock__unlock(&pysock__reactor.lock);
    r = pysock__poll(fds, count, deadline);
    pysock__lock(&pysock__reactor.lock);
    pysock__list_remove(&me.link);
    return r;
}

/* Sleeps like pysock__poll(). Without a reactor thread, the calling thread leads or follows, so
   that unfinished work goes on. fds[0] is the waker's. */
static int pysock__sleep(pysock__waker *waker, struct pollfd *fds, size_t count, int64_t deadline)
{
    int r;

    if (pysock__run_deferred())
        deadline = 0; /* the caller tests again before it sleeps */
    if (!pysock__load(&pysock__reactor.threadless))
        return pysock__poll(fds, count, deadline);
    pysock__lock(&pysock__reactor.lock);
    if (pysock__reactor.leading || !pysock__reactor.threadless) /* a cleanup may have ended */
        r = pysock__follow_locked(waker, fds, count, deadline);
    else
        r = pysock__lead_locked(waker, fds, count, deadline);
    pysock__hand_over_locked();
    pysock__unlock(&pysock__reactor.lock);
    return r;
}

/* Without a reactor thread: runs one turn in a call that does not sleep. */
static void pysock__reactor_assist(void)
{
    if (!pysock__load(&pysock__reactor.threadless))
        return;
    pysock__lock(&pysock__reactor.lock);
    if (pysock__reactor.threadless && !pysock__reactor.leading && !pysock__reactor_idle_locked()) {
        pysock__lead_locked(NULL, NULL, 0, 0);
        pysock__hand_over_locked();
    }
    pysock__unlock(&pysock__reactor.lock);
}

/* Without a reactor thread: waits until no thread leads; the leader's call is ending already. */
static void pysock__await_leader_locked(void)
{
    struct pollfd fd;
    pysock__waker *waker;

    while (pysock__reactor.leading) {
        if (pysock__reactor.leader)
            pysock__wake(pysock__reactor.leader);
        if (pysock__thread_waker(&waker) < 0) {
            pysock__reactor_pause_locked();
            continue;
        }
        fd.fd = waker->rfd;
        fd.events = POLLIN;
        pysock__waker_drain(waker, 0);
        pysock__follow_locked(waker, &fd, 1, pysock__deadline_in(100000000));
    }
}

/* Lets the reactor finish its work until deadline, stops it, and drops what is left. Until the
   arrays are freed this thread is the leader, and no other thread is started. */
static void pysock__reactor_stop(int64_t deadline)
{
    int before, r = 0;

    pysock__lock(&pysock__reactor.lock);
    if (pysock__reactor.started) {
        pysock__reactor.stopping = 1;
        pysock__reactor.stop_deadline = deadline;
        pysock__wake(&pysock__reactor.waker);
        pysock__unlock(&pysock__reactor.lock);
        before = pysock__cancel_off();
        pysock__thread_join(&pysock__reactor.thread);
        pysock__cancel_restore(before);
        pysock__lock(&pysock__reactor.lock);
        pysock__reactor.leading = 1;
    } else {
        pysock__await_leader_locked();
        pysock__reactor.leading = 1;
        while (r != -ENOMEM && !pysock__reactor_idle_locked() && pysock__now() < deadline)
            r = pysock__turn_locked(NULL, 0, deadline);
    }
    pysock__reactor_abandon_locked();
    if (pysock__reactor.started)
        pysock__waker_close(&pysock__reactor.waker);
    pysock__reactor.started = pysock__reactor.stopping = 0;
    pysock__store(&pysock__reactor.threadless, 0);
    pysock__reactor.allowed = pysock__reactor.wanted = 0;
    pysock__reactor_adopt_locked();
    pysock__free(pysock__reactor.fds);
    pysock__free(pysock__reactor.watches);
    pysock__reactor.fds = NULL;
    pysock__reactor.watches = NULL;
    pysock__reactor.cap = 0;
    pysock__reactor.leading = 0;
    pysock__hand_over_locked();
    pysock__unlock(&pysock__reactor.lock);
}

/* In a forked child: the thread is gone, and its unfinished work is the parent's. The caller resets
   the watches. */
static void pysock__reactor_after_fork(void)
{
    if (pysock__reactor.started)
        pysock__waker_close(&pysock__reactor.waker);
    pysock__list_init(&pysock__reactor.members);
    pysock__list_init(&pysock__reactor.kicked);
    pysock__list_init(&pysock__reactor.followers);
    pysock__reactor.count = 0;
    pysock__reactor.started = pysock__reactor.stopping = 0;
    pysock__reactor.allowed = pysock__reactor.wanted = 0;
    pysock__store(&pysock__reactor.threadless, 0);
    pysock__reactor.leading = 0;
    pysock__reactor.leader = NULL;
}

static void pysock__watch_after_fork(pysock__watch *w)
{
    pysock__list_init(&w->member_link);
    pysock__list_init(&w->kick_link);
    w->member = w->kicked = 0;
}

/* ---- >>names ----
   Addresses as text and back, getaddrinfo and similar calls, interfaces, services, protocols. What
   a call returns is one block, freed by its own call. No locks. */

PYSOCKDEF int pysock_addr_port(const pysock_addr *addr)
{
    if (!addr || !addr->size)
        return -1;
    if (addr->u.sa.sa_family == AF_INET)
        return pysock__ntohs(addr->u.in.sin_port);
    return addr->u.sa.sa_family == AF_INET6 ? pysock__ntohs(addr->u.in6.sin6_port) : -1;
}

/* The length of a Unix socket's path or abstract name; 0 if it has none: the address then ends
   before the path (Linux), or the path is all zeros (BSDs, macOS). */
static size_t pysock__unix_length(const pysock_addr *addr)
{
    size_t used = offsetof(struct sockaddr_un, sun_path), n, i;
    const char *path = addr->u.un.sun_path;

    n = (size_t)addr->size > used ? (size_t)addr->size - used : 0;
    if (n > sizeof addr->u.un.sun_path)
        n = sizeof addr->u.un.sun_path;
    for (i = 0; i < n && !path[i]; i++)
        ;
    return i < n || n == 1 ? n : 0; /* one zero is "unix:@" */
}

static size_t pysock__unix_format(const pysock_addr *addr, char *text, size_t size)
{
    size_t n = pysock__unix_length(addr);
    const char *path = addr->u.un.sun_path;
    int abstract = n > 0 && path[0] == 0;

    if (!abstract && n && memchr(path, 0, n))
        n = strlen(path);
    return (size_t)snprintf(text, size, "unix:%s%.*s", abstract ? "@" : "",
                            (int)(abstract ? n - 1 : n), abstract ? path + 1 : path);
}

PYSOCKDEF size_t pysock_addr_format(const pysock_addr *addr, char *text, size_t size)
{
    char host[80];
    char none[1];

    if (!text || !size) {
        text = none;
        size = sizeof none;
    }
    if (!addr || !addr->size)
        return (size_t)snprintf(text, size, "%s", "");
    switch (addr->u.sa.sa_family) {
    case AF_INET:
        pysock__sys_ntop(addr, host, sizeof host);
        return (size_t)snprintf(text, size, "%s:%d", host, pysock_addr_port(addr));
    case AF_INET6:
        pysock__sys_ntop(addr, host, sizeof host);
        return (size_t)snprintf(text, size, "[%s]:%d", host, pysock_addr_port(addr));
    case AF_UNIX: return pysock__unix_format(addr, text, size);
    default: return (size_t)snprintf(text, size, "family %d", (int)addr->u.sa.sa_family);
    }
}

static int pysock__unix_addr(pysock_addr *addr, const char *path, const char *what)
{
    size_t n = strlen(path);

    if (n + (path[0] != '@') > sizeof addr->u.un.sun_path) /* an abstract name needs no NUL */
        return pysock__fail(PYSOCK_OS_ERROR, ENAMETOOLONG, "ENAMETOOLONG",
                            "%s: the Unix socket path has %lu bytes; the system takes at most %lu",
                            what, (unsigned long)n,
                            (unsigned long)(sizeof addr->u.un.sun_path - 1));
    memset(addr, 0, sizeof *addr);
    addr->u.un.sun_family = AF_UNIX;
    memcpy(addr->u.un.sun_path, path, n);
    addr->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    if (path[0] && path[0] != '@')
        addr->size++;
    if (path[0] == '@')
        addr->u.un.sun_path[0] = 0;
    return 0;
}

/* The address of host and port, for bind and similar calls: looked up on the calling thread, as
   Python does. No lock is held. */
static int pysock__local_addr(const char *what, const char *host, int port, int family, int type,
                              pysock_addr *addr)
{
    pysock__addrs list = {NULL, 0, 0, 0};
    int err, sys = 0;

    if (pysock__check_family(what, family) < 0)
        return -1;
    if (family == AF_UNIX)
        return pysock__unix_addr(addr, host ? host : "", what);
    if (pysock__check_host(what, host, port) < 0)
        return -1;
    err = pysock__resolve_numeric(host, port, family, type, &list);
    if (err && !list.out_of_memory && host && host[0]) {
        if (pysock__audit_lookup(what, host, port, family, type) < 0)
            return -1;
        err = pysock__resolve(host, port, family, type, &list, &sys);
    }
    if (!err)
        *addr = list.items[0];
    pysock__free(list.items);
    return err ? pysock__fail_gai(err, sys, what, host ? host : "") : 0;
}

PYSOCKDEF int pysock_addr_resolve(pysock_addr *addr, int family, const char *host, int port)
{
    if (!addr)
        return pysock__fail_value("addr_resolve", "addr is NULL");
    return pysock__local_addr("addr_resolve", host, port, family, SOCK_STREAM, addr);
}

PYSOCKDEF int pysock_addr_from_sockaddr(pysock_addr *addr, const struct sockaddr *sa,
                                        socklen_t size)
{
    if (!addr || !sa)
        return pysock__fail_value("addr_from_sockaddr", addr ? "sa is NULL" : "addr is NULL");
    if (size < sizeof sa->sa_family + offsetof(struct sockaddr, sa_family) || size > sizeof addr->u)
        return pysock__fail_value("addr_from_sockaddr", "the length is not that of an address");
    memset(addr, 0, sizeof *addr);
    memcpy(&addr->u, sa, size);
    addr->size = size;
    return 0;
}

PYSOCKDEF int pysock_addr_parse(pysock_addr *addr, const char *text)
{
    char host[256];
    const char *colon, *end, *start = text;
    char *rest;
    long port = -1;
    pysock__addrs list = {NULL, 0, 0, 0};
    int err = EAI_NONAME;

    if (!addr || !text)
        return pysock__fail_value("pysock_addr_parse", addr ? "text is NULL" : "addr is NULL");
    if (strncmp(text, "unix:", 5) == 0
        && strlen(text + 5) + (text[5] != '@') > sizeof addr->u.un.sun_path)
        return pysock__fail_value("pysock_addr_parse", "the Unix socket path is too long");
    if (strncmp(text, "unix:", 5) == 0)
        return pysock__unix_addr(addr, text + 5, "pysock_addr_parse");
    colon = strrchr(text, ':');
    end = colon;
    if (text[0] == '[' && colon && colon > text && colon[-1] == ']') {
        start = text + 1;
        end = colon - 1;
    }
    if (colon && (size_t)(end - start) < sizeof host) {
        memcpy(host, start, (size_t)(end - start));
        host[end - start] = 0;
        if (colon[1] >= '0' && colon[1] <= '9')
            port = strtol(colon + 1, &rest, 10);
        if (port >= 0 && port <= 65535 && !*rest && host[0])
            err = pysock__resolve_numeric(host, (int)port, start > text ? AF_INET6 : AF_INET,
                                          SOCK_STREAM, &list);
    }
    if (!err && list.count)
        *addr = list.items[0];
    pysock__free(list.items);
    if (list.out_of_memory)
        return pysock__fail_memory("pysock_addr_parse");
    if (err)
        return pysock__fail(
            PYSOCK_VALUE_ERROR, EINVAL, "EINVAL",
            "pysock_addr_parse: '%.100s' is not an address; write 127.0.0.1:80, [::1]:443 "
            "or unix:/path",
            text);
    return 0;
}

/* Names: getaddrinfo and similar calls. A result is one block, with the strings after the array. */

typedef struct pysock__ai_list {
    pysock_addrinfo *items;
    size_t count, cap;
    char canonname[PYSOCK_HOST_STRLEN];
    int out_of_memory;
} pysock__ai_list;

static int pysock__ai_add(void *arg, const struct addrinfo *found)
{
    pysock__ai_list *list = (pysock__ai_list *)arg;
    pysock_addrinfo *info;

    if (pysock__reserve(&list->items, &list->cap, list->count + 1, sizeof *list->items) < 0)
        return list->out_of_memory = 1;
    info = &list->items[list->count++];
    info->family = found->ai_family;
    info->type = found->ai_socktype;
    info->proto = found->ai_protocol;
    info->addr.size = (socklen_t)found->ai_addrlen;
    memcpy(&info->addr.u, found->ai_addr, found->ai_addrlen);
    if (found->ai_canonname && !list->canonname[0])
        snprintf(list->canonname, sizeof list->canonname, "%s", found->ai_canonname);
    return 0;
}

/* Appends the canonical name to the array. 0 or -1. */
static int pysock__ai_finish(pysock__ai_list *list)
{
    size_t bytes = list->count * sizeof *list->items, n = strlen(list->canonname) + 1, i;
    pysock_addrinfo *block = (pysock_addrinfo *)PYSOCK_REALLOC(list->items, bytes + n);
    char *name;

    if (!block)
        return -1;
    name = (char *)block + bytes;
    memcpy(name, list->canonname, n);
    for (i = 0; i < list->count; i++)
        block[i].canonname = i ? name + n - 1 : name;
    list->items = block;
    return 0;
}

/* "host:service", for messages. */
static const char *pysock__ai_subject(const char *host, const char *service, char text[320])
{
    snprintf(text, 320, "%.200s%s%.100s", host ? host : "", service ? ":" : "",
             service ? service : "");
    return text;
}

/* The system accepts numbers modulo 65536, after a sign or white space. These are not accepted
   here: "65616" is not port 80. */
static int pysock__service_fits(const char *service)
{
    size_t digits = strspn(service, "0123456789");

    if (digits && !service[digits])
        return digits <= 9 && strtol(service, NULL, 10) <= 65535;
    return !service[0] || !strchr(" \t\n\v\f\r+-", service[0]);
}

PYSOCKDEF ptrdiff_t pysock_getaddrinfo(const char *host, const char *service, int family, int type,
                                       int proto, int flags, pysock_addrinfo **list)
{
    pysock__ai_list found;
    pysock_audit_event e;
    struct addrinfo want;
    char subject[320];
    int err, sys = 0;

    if (!list)
        return pysock__fail_value("getaddrinfo", "list is NULL");
    *list = NULL;
    if (host && strlen(host) >= PYSOCK_HOST_STRLEN)
        return pysock__fail_value("getaddrinfo", "the host name is too long");
    memset(&e, 0, sizeof e);
    e.name = "socket.getaddrinfo";
    e.host = host;
    e.service = service;
    e.family = family;
    e.type = type;
    e.proto = proto;
    pysock__ai_subject(host, service, subject);
    if (pysock__denied(&e))
        return pysock__fail(PYSOCK_OS_ERROR, EACCES, "EACCES",
                            "getaddrinfo of %s: denied by the audit hook", subject);
    memset(&found, 0, sizeof found);
    memset(&want, 0, sizeof want);
    want.ai_family = family;
    want.ai_socktype = type;
    want.ai_protocol = proto;
    want.ai_flags = flags;
    if (service && !pysock__service_fits(service))
        err = EAI_SERVICE;
    else if (host && pysock__host_advice(host))
        err = EAI_NONAME;
    else
        err = pysock__sys_getaddrinfo(host, service, &want, pysock__ai_add, &found, &sys);
    if (!(flags & AI_CANONNAME))
        found.canonname[0] = 0; /* musl returns one without the flag */
    if (!err && (found.out_of_memory || (found.count && pysock__ai_finish(&found) < 0)))
        err = EAI_MEMORY;
    if (!err) {
        *list = found.items;
        return (ptrdiff_t)found.count;
    }
    pysock__free(found.items);
    pysock__fault_gai(&pysock__last, err, sys, "getaddrinfo", subject, host);
    return pysock__raise(&pysock__last);
}

PYSOCKDEF void pysock_freeaddrinfo(pysock_addrinfo *list)
{
    pysock__free(list);
}

PYSOCKDEF int pysock_getnameinfo(const pysock_addr *addr, int flags, char *host, size_t host_size,
                                 char *service, size_t service_size)
{
    pysock_audit_event e;
    char text[PYSOCK_ADDR_STRLEN];
    int err, sys = 0;

    if (!addr || !addr->size || addr->size > sizeof addr->u)
        return pysock__fail_value("getnameinfo", "the address is NULL or empty");
    if ((!host && host_size) || (!service && service_size) || host_size > INT_MAX
        || service_size > INT_MAX)
        return pysock__fail_value("getnameinfo", "a text is NULL, or its size is too large");
    pysock_addr_format(addr, text, sizeof text);
    memset(&e, 0, sizeof e);
    e.name = "socket.getnameinfo";
    e.addr = addr;
    if (pysock__denied(&e))
        return pysock__fail(PYSOCK_OS_ERROR, EACCES, "EACCES",
                            "getnameinfo of %s: denied by the audit hook", text);
    err = pysock__sys_getnameinfo(addr, host, host_size, service, service_size, flags, &sys);
    if (!err)
        return 0;
    pysock__fault_gai(&pysock__last, err, sys, "getnameinfo", text, NULL);
    return pysock__raise(&pysock__last);
}

/* The first address of a host name or numeric address; Python's gethostby calls begin with it. */
static int pysock__host_addr(const char *what, const char *event, const char *host, int family,
                             pysock_addr *addr)
{
    pysock__addrs list = {NULL, 0, 0, 0};
    int err, sys = 0;

    if (!host)
        return pysock__fail_value(what, "the host is NULL");
    if (pysock__check_host(what, host, 0) < 0 || pysock__audit_name(event, what, host, NULL) < 0)
        return -1;
    err = pysock__resolve_numeric(host, 0, family, SOCK_DGRAM, &list);
    if (err && !list.out_of_memory && host[0])
        err = pysock__resolve(host, 0, family, SOCK_DGRAM, &list, &sys);
    if (!err)
        *addr = list.items[0];
    pysock__free(list.items);
    return err ? pysock__fail_gai(err, sys, what, host) : 0;
}

/* Fails because text does not fit the caller's buffer. */
static int pysock__fail_room(const char *what, const char *text)
{
    return pysock__fail(PYSOCK_OS_ERROR, ENAMETOOLONG, "ENAMETOOLONG",
                        "%s: '%.200s' does not fit the buffer", what, text);
}

/* Copies text into the caller's buffer. */
static int pysock__give_text(const char *what, const char *text, char *out, size_t size)
{
    size_t n = strlen(text) + 1;

    if (n > size)
        return pysock__fail_room(what, text);
    memcpy(out, text, n);
    return 0;
}

#ifndef PYSOCK_NO_SSL
/* The same of a text that may be absent. Its length; 0 without one. */
static ptrdiff_t pysock__give_optional(const char *what, const char *text, char *out, size_t size)
{
    if (pysock__give_text(what, text ? text : "", out, size) < 0)
        return -1;
    return (ptrdiff_t)strlen(out);
}
#endif

static int pysock__check_out(const char *what, const char *out, size_t size)
{
    return out && size ? 0 : pysock__fail_value(what, "there is no buffer for the text");
}

PYSOCKDEF int pysock_gethostbyname(const char *host, char *ip, size_t size)
{
    pysock_addr addr;
    char text[80];

    if (pysock__check_out("gethostbyname", ip, size) < 0
        || pysock__host_addr("gethostbyname", "socket.gethostbyname", host, AF_INET, &addr) < 0)
        return -1;
    pysock__sys_ntop(&addr, text, sizeof text);
    return pysock__give_text("gethostbyname", text, ip, size);
}

static const char *pysock__h_name(int code)
{
    switch (code) {
    case HOST_NOT_FOUND: return "HOST_NOT_FOUND";
    case TRY_AGAIN: return "TRY_AGAIN";
    case NO_RECOVERY: return "NO_RECOVERY";
    case NO_DATA: return "NO_DATA";
    default: return "H_ERRNO";
    }
}

static const char *pysock__h_sentence(int code)
{
    switch (code) {
    case HOST_NOT_FOUND: return "unknown host";
    case TRY_AGAIN: return "the name server did not answer; try again";
    case NO_RECOVERY: return "the name server failed";
    case NO_DATA: return "the name has no address";
    default: return "the resolver failed";
    }
}

static size_t pysock__strings_size(char *const *list, size_t *count)
{
    size_t n = 0;

    for (*count = 0; list && list[*count]; ++*count)
        n += strlen(list[*count]) + 1;
    return n;
}

/* Copies what the system found into one block. 0 or -ENOMEM. */
static int pysock__hostent_take(void *arg, const struct hostent *found)
{
    size_t aliases, addresses = 0, i, size = strlen(found->h_name) + 1;
    pysock_hostent *h;
    pysock_addr addr;
    const char **lists;
    char *text;

    size += pysock__strings_size(found->h_aliases, &aliases);
    while (found->h_addr_list[addresses])
        addresses++;
    size += addresses * 64 + (aliases + addresses) * sizeof *lists + sizeof *h;
    h = (pysock_hostent *)pysock__alloc(size);
    if (!h)
        return -ENOMEM;
    lists = (const char **)(void *)(h + 1);
    text = (char *)(lists + aliases + addresses);
    h->name = text;
    text += snprintf(text, strlen(found->h_name) + 1, "%s", found->h_name) + 1;
    h->aliases = lists;
    h->alias_count = aliases;
    h->addresses = lists + aliases;
    h->address_count = addresses;
    for (i = 0; i < aliases; i++) {
        lists[i] = text;
        text += snprintf(text, strlen(found->h_aliases[i]) + 1, "%s", found->h_aliases[i]) + 1;
    }
    for (i = 0; i < addresses; i++) {
        memset(&addr, 0, sizeof addr);
        addr.u.sa.sa_family = (sa_family_t)found->h_addrtype;
        if (found->h_addrtype == AF_INET)
            memcpy(&addr.u.in.sin_addr, found->h_addr_list[i], 4);
        else
            memcpy(&addr.u.in6.sin6_addr, found->h_addr_list[i], 16);
        lists[aliases + i] = text;
        pysock__sys_ntop(&addr, text, 64);
        text += strlen(text) + 1;
    }
    *(pysock_hostent **)arg = h;
    return 0;
}

static pysock_hostent *pysock__gethost(const char *what, const char *host, const char *name,
                                       const pysock_addr *addr)
{
    pysock_hostent *h = NULL;
    int r = pysock__sys_gethost(name, addr, pysock__hostent_take, &h);

    if (r == -ENOMEM)
        pysock__fail_memory(what);
    else if (r < 0)
        pysock__fail(PYSOCK_H_ERROR, -1000 - r, pysock__h_name(-1000 - r), "%s of '%.200s': %s",
                     what, host, pysock__h_sentence(-1000 - r));
    return h;
}

PYSOCKDEF pysock_hostent *pysock_gethostbyname_ex(const char *host)
{
    char ascii[PYSOCK_HOST_STRLEN];
    pysock_addr addr;

    if (pysock__host_addr("gethostbyname_ex", "socket.gethostbyname", host, AF_INET, &addr) < 0)
        return NULL;
    if (!pysock__is_ascii(host) || !host[0] || host[0] == '<') {
        if (!host[0] || host[0] == '<' || pysock__sys_idna(host, ascii, sizeof ascii) < 0)
            pysock__sys_ntop(&addr, ascii, sizeof ascii); /* looks up the address instead */
        return pysock__gethost("gethostbyname_ex", host, ascii, NULL);
    }
    return pysock__gethost("gethostbyname_ex", host, host, NULL);
}

PYSOCKDEF pysock_hostent *pysock_gethostbyaddr(const char *host)
{
    pysock_addr addr;

    if (pysock__host_addr("gethostbyaddr", "socket.gethostbyaddr", host, AF_UNSPEC, &addr) < 0)
        return NULL;
    return pysock__gethost("gethostbyaddr", host, NULL, &addr);
}

PYSOCKDEF void pysock_freehostent(pysock_hostent *h)
{
    pysock__free(h);
}

PYSOCKDEF int pysock_gethostname(char *name, size_t size)
{
    int r;

    if (pysock__check_out("gethostname", name, size) < 0
        || pysock__audit_name("socket.gethostname", "gethostname", NULL, NULL) < 0)
        return -1;
    r = pysock__sys_gethostname(name, size);
    return r < 0 ? pysock__fail_os(r, "gethostname", "") : 0;
}

PYSOCKDEF int pysock_sethostname(const char *name)
{
    int r;

    if (!name)
        return pysock__fail_value("sethostname", "the name is NULL");
    if (pysock__audit_name("socket.sethostname", "sethostname", name, NULL) < 0)
        return -1;
    r = pysock__sys_sethostname(name);
    return r < 0 ? pysock__fail_os(r, "sethostname", name) : 0;
}

/* Copies name without surrounding blanks; 0 if it is empty or stands for this machine. */
static int pysock__fqdn_name(const char *name, char *text, size_t size)
{
    size_t n;

    name = name ? name : "";
    name += strspn(name, " \t\r\n\f\v");
    n = strlen(name);
    while (n && strchr(" \t\r\n\f\v", name[n - 1]))
        n--;
    snprintf(text, size, "%.*s", (int)(n < size ? n : size), name);
    return n && strcmp(text, "0.0.0.0") != 0 && strcmp(text, "::") != 0;
}

PYSOCKDEF int pysock_getfqdn(const char *name, char *text, size_t size)
{
    pysock__fault before = pysock__last;
    char own[PYSOCK_HOST_STRLEN];
    const char *best;
    pysock_hostent *h;
    size_t i;
    int r;

    if (pysock__check_out("getfqdn", text, size) < 0)
        return -1;
    if (!pysock__fqdn_name(name, own, sizeof own) && pysock_gethostname(own, sizeof own) < 0)
        return -1;
    h = pysock_gethostbyaddr(own);
    if (!h && pysock__last.kind == PYSOCK_MEMORY_ERROR)
        return -1;
    best = h ? h->name : own;
    for (i = 0; h && !strchr(best, '.') && i < h->alias_count; i++)
        if (strchr(h->aliases[i], '.'))
            best = h->aliases[i];
    r = pysock__give_text("getfqdn", best, text, size);
    pysock_freehostent(h);
    if (r == 0)
        pysock__last = before; /* a name that is not found is no failure */
    return r;
}

PYSOCKDEF int pysock_getservbyname(const char *service, const char *proto)
{
    int port;

    if (!service)
        return pysock__fail_value("getservbyname", "the service is NULL");
    if (pysock__audit_name("socket.getservbyname", "getservbyname", proto, service) < 0)
        return -1;
    port = pysock__sys_getservbyname(service, proto);
    if (port >= 0)
        return port;
    return pysock__fail(PYSOCK_OS_ERROR, ENOENT, "ENOENT",
                        "getservbyname: there is no service '%.100s'%s%.50s", service,
                        proto ? " over " : "", proto ? proto : "");
}

PYSOCKDEF int pysock_getservbyport(int port, const char *proto, char *service, size_t size)
{
    char digits[16];
    int n;

    if (pysock__check_out("getservbyport", service, size) < 0
        || pysock__check_host("getservbyport", NULL, port) < 0)
        return -1;
    snprintf(digits, sizeof digits, "%d", port);
    if (pysock__audit_name("socket.getservbyport", "getservbyport", proto, digits) < 0)
        return -1;
    n = pysock__sys_getservbyport(port, proto, service, size);
    if (n >= 0)
        return (size_t)n < size ? 0 : pysock__fail_room("getservbyport", service);
    return pysock__fail(PYSOCK_OS_ERROR, ENOENT, "ENOENT",
                        "getservbyport: port %d is no known service%s%.50s", port,
                        proto ? " over " : "", proto ? proto : "");
}

PYSOCKDEF int pysock_getprotobyname(const char *name)
{
    int proto;

    if (!name)
        return pysock__fail_value("getprotobyname", "the name is NULL");
    proto = pysock__sys_getprotobyname(name);
    if (proto >= 0)
        return proto;
    return pysock__fail(PYSOCK_OS_ERROR, ENOENT, "ENOENT",
                        "getprotobyname: there is no protocol '%.100s'", name);
}

/* Names: inet_ and if_ calls. */

static int pysock__fail_ip(const char *what, const char *text)
{
    return pysock__fail(PYSOCK_OS_ERROR, EINVAL, "EINVAL", "%s: '%.100s' is not an IP address",
                        what, text);
}

PYSOCKDEF int pysock_inet_aton(const char *text, unsigned char out[4])
{
    if (!text || !out)
        return pysock__fail_value("inet_aton", text ? "out is NULL" : "the text is NULL");
    return pysock__sys_inet_aton(text, out) < 0 ? pysock__fail_ip("inet_aton", text) : 0;
}

PYSOCKDEF int pysock_inet_pton(int family, const char *text, void *out)
{
    int r;

    if (!text || !out)
        return pysock__fail_value("inet_pton", text ? "out is NULL" : "the text is NULL");
    r = pysock__sys_inet_pton(family, text, out);
    if (r == -EINVAL)
        return pysock__fail_ip("inet_pton", text);
    return r < 0 ? pysock__fail_os(r, "inet_pton", "") : r;
}

static int pysock__inet_ntop(const char *what, int family, const void *packed, size_t packed_size,
                             char *text, size_t size)
{
    char whole[80];
    int r;

    if (!packed)
        return pysock__fail_value(what, "packed is NULL");
    if (pysock__check_out(what, text, size) < 0)
        return -1;
    if (family != AF_INET && family != AF_INET6)
        return pysock__fail_os(-EAFNOSUPPORT, what, "");
    if (packed_size != (family == AF_INET ? 4 : 16))
        return pysock__fail_value(what, family == AF_INET ? "packed must have 4 bytes"
                                                          : "packed must have 16 bytes");
    r = pysock__sys_inet_ntop(family, packed, whole, sizeof whole);
    return r < 0 ? pysock__fail_os(r, what, "") : pysock__give_text(what, whole, text, size);
}

PYSOCKDEF int pysock_inet_ntop(int family, const void *packed, size_t packed_size, char *text,
                               size_t size)
{
    return pysock__inet_ntop("inet_ntop", family, packed, packed_size, text, size);
}

PYSOCKDEF int pysock_inet_ntoa(const void *packed, size_t packed_size, char *text, size_t size)
{
    return pysock__inet_ntop("inet_ntoa", AF_INET, packed, packed_size, text, size);
}

typedef struct pysock__if_list {
    pysock_interface *items;
    size_t count, cap;
    int out_of_memory;
} pysock__if_list;

static int pysock__if_add(void *arg, unsigned int index, const char *name)
{
    pysock__if_list *list = (pysock__if_list *)arg;
    pysock_interface *item;

    if (pysock__reserve(&list->items, &list->cap, list->count + 1, sizeof *list->items) < 0)
        return list->out_of_memory = 1;
    item = &list->items[list->count++];
    item->index = index;
    snprintf(item->name, sizeof item->name, "%s", name);
    return 0;
}

PYSOCKDEF ptrdiff_t pysock_if_nameindex(pysock_interface **list)
{
    pysock__if_list found = {NULL, 0, 0, 0};
    int r;

    if (!list)
        return pysock__fail_value("if_nameindex", "list is NULL");
    *list = NULL;
    r = pysock__sys_if_each(pysock__if_add, &found);
    if (r < 0 || found.out_of_memory) {
        pysock__free(found.items);
        return r < 0 ? pysock__fail_os(r, "if_nameindex", "") : pysock__fail_memory("if_nameindex");
    }
    *list = found.items;
    return (ptrdiff_t)found.count;
}

PYSOCKDEF void pysock_if_freenameindex(pysock_interface *list)
{
    pysock__free(list);
}

PYSOCKDEF int pysock_if_nametoindex(const char *name)
{
    int index;

    if (!name)
        return pysock__fail_value("if_nametoindex", "the name is NULL");
    index = pysock__sys_if_nametoindex(name);
    return index < 0 ? pysock__fail_os(index, "if_nametoindex", name) : index;
}

PYSOCKDEF int pysock_if_indextoname(unsigned int index, char *name, size_t size)
{
    char whole[32], digits[16];
    int r;

    if (pysock__check_out("if_indextoname", name, size) < 0)
        return -1;
    r = pysock__sys_if_indextoname(index, whole);
    if (r == 0)
        return pysock__give_text("if_indextoname", whole, name, size);
    snprintf(digits, sizeof digits, "%u", index);
    return pysock__fail_os(r, "if_indextoname", digits);
}

PYSOCKDEF int pysock_idna_encode(const char *name, char *text, size_t size)
{
    int n;

    if (!name)
        return pysock__fail_value("idna_encode", "the name is NULL");
    if (pysock__check_out("idna_encode", text, size) < 0)
        return -1;
    if (!pysock__is_ascii(name))
        n = pysock__sys_idna(name, text, size);
    else if (strlen(name) >= size)
        n = -ENAMETOOLONG;
    else
        n = snprintf(text, size, "%s", name);
    if (n >= 0)
        return n;
    if (n == -ENOMEM)
        return pysock__fail_memory("idna_encode");
    if (n == -ENAMETOOLONG)
        return pysock__fail_value("idna_encode", "the name does not fit the buffer");
    if (n == -EINVAL)
        return pysock__fail(PYSOCK_VALUE_ERROR, EINVAL, "EINVAL",
                            "idna_encode: '%.200s' is not a valid international host name in UTF-8",
                            name);
    return pysock__fail(PYSOCK_OS_ERROR, ENOTSUP, "ENOTSUP",
                        "idna_encode: '%.200s' needs libidn2: define PYSOCK_IDN2 and link with "
                        "-lidn2, or give the name as xn--...",
                        name);
}

PYSOCKDEF int pysock_has_ipv6(void)
{
    int fd = pysock__sys_socket(AF_INET6, SOCK_STREAM, 0);

    if (fd >= 0)
        pysock__fd_close(fd);
    return fd >= 0;
}

/* ---- >>crypto ----
   What RFCs compose of BearSSL's primitives: RSASSA-PSS (RFC 8017) with MGF1. The primitives are
   BearSSL's alone. What is verified here is public, so time may depend on it. No state, no lock. */

#ifndef PYSOCK_NO_SSL

#define PYSOCK__RSA_MAX 512 /* bytes of a modulus that BearSSL accepts */

static size_t pysock__hash_size(const br_hash_class *hash)
{
    return (hash->desc >> BR_HASHDESC_OUT_OFF) & BR_HASHDESC_OUT_MASK;
}

/* MGF1 (RFC 8017, B.2.1): XORs the mask that the seed gives into size bytes at data. */
static void pysock__mgf1_xor(const br_hash_class *hash, const unsigned char *seed, size_t seed_size,
                             unsigned char *data, size_t size)
{
    br_hash_compat_context hc;
    unsigned char block[64], counter[4] = {0, 0, 0, 0};
    size_t i, n;

    while (size) {
        hash->init(&hc.vtable);
        hash->update(&hc.vtable, seed, seed_size);
        hash->update(&hc.vtable, counter, sizeof counter);
        hash->out(&hc.vtable, block);
        n = pysock__hash_size(hash);
        n = n < size ? n : size;
        for (i = 0; i < n; i++)
            data[i] ^= block[i];
        data += n;
        size -= n;
        counter[3]++; /* no modulus needs more than 16 blocks */
    }
}

/* EMSA-PSS-VERIFY (RFC 8017, 9.1.2), with a salt as long as the hash: 1 if em, of so many bits,
   encodes the digest. It changes em. */
static int pysock__pss_encodes(const br_hash_class *hash, const unsigned char *digest,
                               unsigned char *em, size_t bits)
{
    static const unsigned char zeros[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    size_t size = (bits + 7) / 8, hash_size = pysock__hash_size(hash), pad, i;
    unsigned char first = (unsigned char)(0xff >> (8 * size - bits)), wanted[64], others;
    br_hash_compat_context hc;
    unsigned char *found, *salt;

    if (size < 2 * hash_size + 2 || em[size - 1] != 0xbc || (em[0] & ~first))
        return 0;
    found = em + size - 1 - hash_size;
    salt = found - hash_size;
    pysock__mgf1_xor(hash, found, hash_size, em, (size_t)(found - em));
    pad = (size_t)(salt - em) - 1;
    others = em[0] & first;
    for (i = 1; i < pad; i++)
        others |= em[i];
    if (pad ? others || em[pad] != 1 : others != 1)
        return 0;
    hash->init(&hc.vtable);
    hash->update(&hc.vtable, zeros, sizeof zeros);
    hash->update(&hc.vtable, digest, hash_size);
    hash->update(&hc.vtable, salt, hash_size);
    hash->out(&hc.vtable, wanted);
    return memcmp(found, wanted, hash_size) == 0;
}

/* RSASSA-PSS-VERIFY (RFC 8017, 8.1.2), MGF1 and salt as of the hash: 1 if it is the digest's
   signature. A modulus of 8k + 1 bits encodes into k bytes, with a zero byte in front. */
static int pysock__pss_verify(const br_rsa_public_key *key, const br_hash_class *hash,
                              const unsigned char *digest, const unsigned char *signature,
                              size_t size)
{
    unsigned char em[PYSOCK__RSA_MAX];
    const unsigned char *n = key->n;
    size_t n_size = key->nlen, bits;
    unsigned first;

    while (n_size && !*n)
        n++, n_size--;
    if (!n_size || n_size > sizeof em || size != n_size)
        return 0;
    bits = 8 * n_size;
    for (first = *n; first < 0x80; first <<= 1)
        bits--;
    memcpy(em, signature, size);
    if (!br_rsa_public_get_default()(em, size, key))
        return 0;
    bits--;
    if (bits % 8)
        return pysock__pss_encodes(hash, digest, em, bits);
    return em[0] == 0 && pysock__pss_encodes(hash, digest, em + 1, bits);
}

#endif /* PYSOCK_NO_SSL */

/* ---- >>der ----
   Files with certificates and keys: PEM and DER as a sequence of objects, and a DER reader (X.690).
   An object that cannot be read is an error that names file and object; it is never skipped. No
   state. */

#ifndef PYSOCK_NO_SSL

#define PYSOCK__FILE_MAX ((size_t)64 << 20) /* bytes of a file with certificates */

/* PEM and DER: files. A file or memory block holds PEM text or DER, each a sequence of objects. */

#define PYSOCK__TEXT_ROOM ((size_t)16 << 10) /* most keys fit: growing would leave a copy behind */

/* Reads a whole file; a newline follows the bytes, not counted in len. 0 or a negated errno
   value. */
static int pysock__read_file(const char *path, pysock__bytes *out)
{
    char chunk[4096];
    size_t n;
    int before, err = 0;
    FILE *f = pysock__file_open(path, &err);

    if (!f)
        return err;
    before = pysock__cancel_off();
    setvbuf(f, NULL, _IONBF, 0); /* a buffer would keep a copy of a key */
    if (pysock__reserve(&out->data, &out->cap, PYSOCK__TEXT_ROOM, 1) < 0)
        out->out_of_memory = 1;
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0 && out->len <= PYSOCK__FILE_MAX)
        pysock__bytes_append(out, chunk, n);
    if (ferror(f))
        err = -EIO;
    else if (out->len > PYSOCK__FILE_MAX)
        err = -EFBIG;
    fclose(f);
    pysock__cancel_restore(before);
    pysock__wipe(chunk, sizeof chunk);
    pysock__bytes_append(out, "\n", 1);
    out->len -= !out->out_of_memory;
    return out->out_of_memory ? -ENOMEM : err;
}

/* The same for bytes in memory. */
static int pysock__copy_bytes(const void *data, size_t size, pysock__bytes *out)
{
    if (pysock__reserve(&out->data, &out->cap, size + 1, 1) < 0)
        out->out_of_memory = 1;
    pysock__bytes_append(out, data, size);
    pysock__bytes_append(out, "\n", 1);
    out->len -= !out->out_of_memory;
    return out->out_of_memory ? -ENOMEM : 0;
}

/* One object of a file. */
typedef struct pysock__object {
    const char *name;    /* PEM's label: "RSA PRIVATE KEY"; for DER the one PEM would use */
    const char *headers; /* RFC 1421's, as lines of the text; usually there are none */
    size_t headers_len;
    int from_der;
    pysock__bytes der;
} pysock__object;

/* Where and why reading has failed, for messages. */
typedef struct pysock__file_fault {
    unsigned number; /* of the object, from 1 on; 0: the whole file */
    char cause[200];
} pysock__file_fault;

static int pysock__file_damaged(pysock__file_fault *fault, unsigned number, const char *cause)
{
    fault->number = number;
    snprintf(fault->cause, sizeof fault->cause, "%s", cause);
    return -EBADMSG;
}

/* The kind of object that has this label, in words; NULL if it is unknown. */
static const char *pysock__label_kind(const char *name)
{
    static const struct {
        const char *end, *kind;
    } known[] = {
        {"OPENSSH PRIVATE KEY", "a private key in OpenSSH's form"},
        {"PRIVATE KEY", "a private key"},
        {"PUBLIC KEY", "a public key"},
        {"PARAMETERS", "parameters"},
        {"CERTIFICATE REQUEST", "a certificate request"},
        {"X509 CRL", "a revocation list"},
        {"CERTIFICATE", "a certificate"},
        {"PKCS7", "PKCS#7"},
        {"PKCS #7 SIGNED DATA", "PKCS#7"},
        {"CMS", "PKCS#7"},
        {"PKCS12", "PKCS#12"},
    };
    size_t i, n = strlen(name), k;

    for (i = 0; i < PYSOCK__COUNT(known); i++) {
        k = strlen(known[i].end);
        if (n >= k && strcmp(name + n - k, known[i].end) == 0 && (n == k || name[n - k - 1] == ' '))
            return known[i].kind;
    }
    return NULL;
}

static int pysock__label_is_certificate(const char *name)
{
    return strcmp(name, "CERTIFICATE") == 0 || strcmp(name, "X509 CERTIFICATE") == 0
           || strcmp(name, "TRUSTED CERTIFICATE") == 0;
}

static int pysock__label_is_key(const char *name)
{
    size_t n = strlen(name);

    return n >= 11 && strcmp(name + n - 11, "PRIVATE KEY") == 0;
}

/* An object of a kind that the caller does not want. 0: it may be skipped; -EBADMSG: the user may
   mean it, so it must not be. */
static int pysock__object_unwanted(const pysock__object *object, pysock__file_fault *fault)
{
    const char *kind = pysock__label_kind(object->name);
    char text[200];

    if (!kind)
        snprintf(text, sizeof text, "its label '%.64s' is unknown", object->name);
    else if (strcmp(kind, "PKCS#7") == 0)
        snprintf(text, sizeof text,
                 "it is PKCS#7, which is not read; convert the file with: openssl pkcs7%s "
                 "-print_certs -in FILE -out NEW",
                 object->from_der ? " -inform DER" : "");
    else if (strcmp(kind, "PKCS#12") == 0)
        snprintf(text, sizeof text,
                 "it is PKCS#12, which is not read; convert the file with: "
                 "openssl pkcs12 -nodes -in FILE -out NEW");
    else if (strcmp(kind, "a certificate") == 0)
        snprintf(text, sizeof text, "a kind of certificate ('%.64s') that is not read",
                 object->name);
    else
        return 0;
    return pysock__file_damaged(fault, fault->number, text);
}

/* PEM and DER: PEM (RFC 7468, read leniently in its layout and strictly in its contents). */

typedef struct pysock__pem_line {
    const char *p;
    size_t n;
} pysock__pem_line;

/* The next line, without trailing blanks or a byte order mark (files may have been concatenated).
   0: the text has ended. */
static int pysock__pem_next_line(const pysock__bytes *text, size_t *pos, pysock__pem_line *line)
{
    const char *start = (const char *)text->data + *pos, *newline;

    if (*pos >= text->len)
        return 0;
    newline = (const char *)memchr(start, '\n', text->len - *pos);
    line->p = start;
    line->n = newline ? (size_t)(newline - start) : text->len - *pos;
    *pos += line->n + 1;
    if (line->n >= 3 && memcmp(line->p, "\xef\xbb\xbf", 3) == 0) {
        line->p += 3;
        line->n -= 3;
    }
    while (line->n && (unsigned char)line->p[line->n - 1] <= ' ')
        line->n--;
    return 1;
}

static int pysock__pem_begins(const pysock__pem_line *line, const char *word)
{
    size_t n = strlen(word);

    return line->n >= n && memcmp(line->p, word, n) == 0;
}

/* The label of a BEGIN or END line, after skip bytes. Its length; 0 if the line is damaged. */
static size_t pysock__pem_label(const pysock__pem_line *line, size_t skip, const char **label)
{
    size_t n;

    if (line->n < skip + 6 || memcmp(line->p + line->n - 5, "-----", 5) != 0)
        return 0;
    *label = line->p + skip;
    n = line->n - skip - 5;
    return n < 64 && !memchr(*label, '-', n) ? n : 0;
}

/* The length of the headers at pos and the empty line that ends them; 0 if there are none. No line
   of base64 has a colon. */
static size_t pysock__pem_headers(const pysock__bytes *text, size_t pos)
{
    pysock__pem_line line;
    size_t start = pos;

    if (!pysock__pem_next_line(text, &pos, &line) || !line.n || *line.p == '-'
        || !memchr(line.p, ':', line.n))
        return 0;
    while (line.n && *line.p != '-')
        if (!pysock__pem_next_line(text, &pos, &line))
            return text->len - start;
    return line.n ? (size_t)(line.p - (const char *)text->data) - start : pos - start;
}

/* An object's base64, collected for BearSSL's decoder, which works in constant time. */
typedef struct pysock__pem_body {
    br_pem_decoder_context decoder;
    char chunk[65];
    size_t n, letters, pads;
} pysock__pem_body;

static int pysock__pem_push(pysock__pem_body *body, const char *data, size_t n)
{
    size_t k;

    while (n) {
        k = br_pem_decoder_push(&body->decoder, data, n);
        data += k;
        n -= k;
        switch (br_pem_decoder_event(&body->decoder)) {
        case BR_PEM_ERROR: return -1;
        default: break;
        }
    }
    return 0;
}

static int pysock__pem_start(pysock__pem_body *body, pysock__bytes *der)
{
    static const char begin[] = "-----BEGIN X-----\n";

    br_pem_decoder_init(&body->decoder);
    body->n = body->letters = body->pads = 0;
    if (pysock__pem_push(body, begin, sizeof begin - 1) < 0)
        return -1;
    br_pem_decoder_setdest(&body->decoder, pysock__bytes_append, der);
    return 0;
}

/* Takes a line of base64, of any length; blanks in it are ignored. -1: it is not base64. */
static int pysock__pem_take_line(pysock__pem_body *body, const pysock__pem_line *line)
{
    size_t i;

    for (i = 0; i < line->n; i++) {
        unsigned char c = (unsigned char)line->p[i];
        if (c <= ' ' && c)
            continue;
        if (c == '=' ? ++body->pads > 2
                     : body->pads
                           || !((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z')
                                || (c >= 'a' && c <= 'z') || c == '+' || c == '/'))
            return -1;
        body->letters++;
        body->chunk[body->n++] = (char)c;
        if (body->n < 64)
            continue;
        body->chunk[64] = '\n';
        if (pysock__pem_push(body, body->chunk, 65) < 0)
            return -1;
        body->n = 0;
    }
    return 0;
}

static int pysock__pem_finish(pysock__pem_body *body)
{
    static const char end[] = "-----END X-----\n";

    if (body->letters % 4)
        return -1;
    body->chunk[body->n] = '\n';
    if (body->n && pysock__pem_push(body, body->chunk, body->n + 1) < 0)
        return -1;
    return pysock__pem_push(body, end, sizeof end - 1);
}

/* A text that is being read, object by object. */
typedef struct pysock__pem_reader {
    const pysock__bytes *text;
    size_t pos;
    char name[64];
    int inside;
    pysock__object object;
    pysock__pem_body body;
} pysock__pem_reader;

/* A BEGIN line: takes the headers after it, and reserves the largest size the object may have. */
static int pysock__pem_begin(pysock__pem_reader *r, const pysock__pem_line *line,
                             pysock__file_fault *fault)
{
    const char *label = NULL, *dash;
    size_t n = pysock__pem_label(line, 11, &label);

    if (r->inside)
        return pysock__file_damaged(fault, fault->number,
                                    "it has no END line before the next BEGIN line");
    fault->number++;
    if (!n)
        return pysock__file_damaged(fault, fault->number, "its BEGIN line is damaged");
    memcpy(r->name, label, n);
    r->name[n] = 0;
    r->inside = 1;
    n = r->pos < r->text->len ? pysock__pem_headers(r->text, r->pos) : 0;
    r->object.headers = (const char *)r->text->data + r->pos;
    r->object.headers_len = n;
    r->pos += n;
    pysock__bytes_free(&r->object.der);
    n = r->pos < r->text->len ? r->text->len - r->pos : 0;
    dash = n ? (const char *)memchr(r->text->data + r->pos, '-', n) : NULL;
    n = dash ? (size_t)(dash - (const char *)r->text->data) - r->pos : n;
    if (pysock__reserve(&r->object.der.data, &r->object.der.cap, n / 4 * 3 + 3, 1) < 0)
        return -ENOMEM;
    return pysock__pem_start(&r->body, &r->object.der) < 0 ? -ENOMEM : 0;
}

/* An END line: the object is complete. */
static int pysock__pem_end(pysock__pem_reader *r, const pysock__pem_line *line,
                           pysock__file_fault *fault)
{
    const char *label = NULL;
    size_t n = pysock__pem_label(line, 9, &label);

    if (!r->inside)
        return pysock__file_damaged(fault, fault->number + 1,
                                    "it has an END line and no BEGIN line");
    if (n != strlen(r->name) || memcmp(label, r->name, n) != 0)
        return pysock__file_damaged(fault, fault->number,
                                    "its END line is damaged, or does not match its BEGIN line");
    if (pysock__pem_finish(&r->body) < 0)
        return pysock__file_damaged(fault, fault->number, "its base64 is damaged");
    r->inside = 0;
    return r->object.der.out_of_memory ? -ENOMEM : 0;
}

typedef int (*pysock__object_fn)(void *arg, const pysock__object *object,
                                 pysock__file_fault *fault);

static int pysock__pem_each(const pysock__bytes *text, pysock__file_fault *fault,
                            pysock__object_fn each, void *arg)
{
    pysock__pem_reader *r = (pysock__pem_reader *)pysock__alloc(sizeof *r);
    pysock__pem_line line;
    int result = 0;

    if (!r)
        return -ENOMEM;
    r->text = text;
    r->object.name = r->name;
    while (result == 0 && pysock__pem_next_line(text, &r->pos, &line)) {
        if (pysock__pem_begins(&line, "-----BEGIN ")
            || (!r->inside && line.n == 10 && pysock__pem_begins(&line, "-----BEGIN"))) {
            result = pysock__pem_begin(r, &line, fault);
        } else if (pysock__pem_begins(&line, "-----END ")) {
            result = pysock__pem_end(r, &line, fault);
            if (result == 0)
                result = each(arg, &r->object, fault);
        } else if (r->inside && pysock__pem_take_line(&r->body, &line) < 0) {
            result = pysock__file_damaged(fault, fault->number, "its base64 is damaged");
        }
    }
    if (r->inside && result == 0)
        result = pysock__file_damaged(fault, fault->number, "the file ends before its END line");
    pysock__bytes_free(&r->object.der);
    pysock__wipe(r, sizeof *r);
    pysock__free(r);
    return result;
}

/* PEM and DER: a DER reader (X.690). Results point into the bytes read. */

typedef struct pysock__der {
    const unsigned char *p, *end;
} pysock__der;

static size_t pysock__der_len(const pysock__der *d)
{
    return (size_t)(d->end - d->p);
}

/* The next element: its tag (low tag numbers only), its contents in *in; -1 if malformed. */
static int pysock__der_next(pysock__der *d, pysock__der *in)
{
    size_t len, n;
    int tag;

    if (d->end - d->p < 2)
        return -1;
    tag = d->p[0];
    len = d->p[1];
    d->p += 2;
    if ((tag & 0x1f) == 0x1f)
        return -1;
    if (len >= 0x80) {
        n = len & 0x7f;
        if (n == 0 || n > 4 || (size_t)(d->end - d->p) < n || !d->p[0])
            return -1;
        for (len = 0; n; n--)
            len = len << 8 | *d->p++;
        if (len < 0x80)
            return -1;
    }
    if ((size_t)(d->end - d->p) < len)
        return -1;
    in->p = d->p;
    in->end = d->p += len;
    return tag;
}

static int pysock__der_expect(pysock__der *d, int tag, pysock__der *in)
{
    return pysock__der_next(d, in) == tag ? 0 : -1;
}

static int pysock__der_is(const pysock__der *in, const void *bytes, size_t n)
{
    return pysock__der_len(in) == n && memcmp(in->p, bytes, n) == 0;
}

static int pysock__der_equal(const pysock__der *a, const pysock__der *b)
{
    return pysock__der_is(a, b->p, pysock__der_len(b));
}

/* BOOLEAN's contents; -1 if malformed, -2 if true is not encoded as DER requires. */
static int pysock__der_bool(const pysock__der *in)
{
    if (pysock__der_len(in) != 1)
        return -1;
    return in->p[0] == 0 ? 0 : in->p[0] == 0xff ? 1 : -2;
}

/* A small INTEGER's contents, not negative; -1 if malformed, INT_MAX if it is larger. */
static int pysock__der_int(const pysock__der *in)
{
    size_t n = pysock__der_len(in), i;
    int value = 0;

    if (!n || in->p[0] & 0x80 || (n > 1 && !in->p[0] && !(in->p[1] & 0x80)))
        return -1;
    if (n > 4)
        return INT_MAX;
    for (i = 0; i < n; i++)
        value = (int)((unsigned)value << 8 | in->p[i]);
    return value < 0 ? INT_MAX : value;
}

/* A positive INTEGER's contents, as bytes without leading zeros. -1 if it is not one. */
static int pysock__der_unsigned(pysock__der *in)
{
    if (!pysock__der_len(in) || in->p[0] & 0x80)
        return -1;
    if (!in->p[0] && pysock__der_len(in) > 1 && !(in->p[1] & 0x80))
        return -1;
    while (in->p < in->end && !in->p[0])
        in->p++;
    return in->p < in->end ? 0 : -1;
}

/* PEM and DER: DER in a file. */

/* The tags of the first elements of a SEQUENCE, as a string of at most 7. */
static void pysock__der_tags(pysock__der in, unsigned char tags[8])
{
    pysock__der value;
    size_t n = 0;
    int tag;

    memset(tags, 0, 8);
    while (n < 7 && in.p < in.end && (tag = pysock__der_next(&in, &value)) >= 0)
        tags[n++] = (unsigned char)tag;
}

/* The PEM label for the contents of a SEQUENCE. */
static const char *pysock__der_label(pysock__der in)
{
    unsigned char tags[8], inner[8];
    pysock__der first = in, value;
    int tag = pysock__der_next(&first, &value);

    if (tag < 0)
        return "CERTIFICATE"; /* its parser will report what is wrong */
    pysock__der_tags(in, tags);
    if (tag == 0x06)
        return "PKCS7";
    if (tag == 0x02 && tags[1] == 0x02)
        return "RSA PRIVATE KEY";
    if (tag == 0x02 && tags[1] == 0x04)
        return "EC PRIVATE KEY";
    if (tag == 0x02 && tags[1] == 0x30)
        return pysock__der_int(&value) == 3 ? "PKCS12" : "PRIVATE KEY";
    if (tag == 0x30 && tags[1] == 0x04)
        return "ENCRYPTED PRIVATE KEY";
    if (tag == 0x30 && tags[1] == 0x03)
        return "PUBLIC KEY";
    pysock__der_tags(value, inner);
    if (inner[0] == 0x02 && inner[1] == 0x30 && inner[2] == 0x30 && inner[3] == 0xa0)
        return "CERTIFICATE REQUEST";
    if (inner[2] == 0x17 || inner[2] == 0x18 || inner[3] == 0x17 || inner[3] == 0x18)
        return "X509 CRL";
    return "CERTIFICATE";
}

/* DER objects one after the other, as in a concatenated file. */
static int pysock__der_each(const pysock__bytes *data, pysock__file_fault *fault,
                            pysock__object_fn each, void *arg)
{
    pysock__object object;
    pysock__der d, in;
    int result = 0;

    memset(&object, 0, sizeof object);
    object.from_der = 1;
    d.p = data->data;
    d.end = d.p + data->len;
    while (d.p < d.end && result == 0) {
        object.der.data = (unsigned char *)(uintptr_t)d.p;
        fault->number++;
        if (pysock__der_expect(&d, 0x30, &in) < 0)
            return pysock__file_damaged(fault, fault->number, "its DER is damaged or cut off");
        object.der.len = (size_t)(d.p - object.der.data);
        object.name = pysock__der_label(in);
        result = each(arg, &object, fault);
    }
    if (result > 0 && d.p < d.end) /* what was looked for has been found */
        return pysock__file_damaged(fault, fault->number, "there are bytes after its DER");
    return result;
}

/* 1 for DER: a SEQUENCE tag, and then bytes that text does not have. */
static int pysock__is_der(const pysock__bytes *data)
{
    size_t i;

    for (i = 1; data->len && data->data[0] == 0x30 && i < 5 && i < data->len; i++)
        if (data->data[i] >= 0x80 || (data->data[i] < ' ' && !memchr("\t\n\r", data->data[i], 3)))
            return 1;
    return 0;
}

/* UTF-16 text: with a byte order mark, or a zero beside an ASCII character. */
static int pysock__is_utf16(const pysock__bytes *data)
{
    const unsigned char *p = data->data;

    return data->len >= 2
           && ((p[0] == 0xff && p[1] == 0xfe) || (p[0] == 0xfe && p[1] == 0xff)
               || (p[0] && p[0] < 0x80 && !p[1]) || (!p[0] && p[1] && p[1] < 0x80));
}

/* Calls each(arg, object, fault) for every object in a file, until it returns non-zero, which is
   then the result. -EBADMSG: *fault has the damaged object's number, and the cause. */
static int pysock__file_each(const pysock__bytes *data, pysock__file_fault *fault,
                             pysock__object_fn each, void *arg)
{
    memset(fault, 0, sizeof *fault);
    if (pysock__is_utf16(data))
        return pysock__file_damaged(fault, 0,
                                    "it is UTF-16; convert the file with: iconv -f UTF-16 -t ASCII "
                                    "FILE >NEW (UTF-16LE or UTF-16BE where it has no mark)");
    return pysock__is_der(data) ? pysock__der_each(data, fault, each, arg)
                                : pysock__pem_each(data, fault, each, arg);
}

/* Fails because of what is in a file. */
static int pysock__fail_in_file(const char *name, const pysock__file_fault *fault,
                                const char *reason)
{
    if (!fault->number)
        return pysock__fail(PYSOCK_SSL_ERROR, 0, reason, "%.160s: %.200s", name, fault->cause);
    return pysock__fail(PYSOCK_SSL_ERROR, 0, reason,
                        "%.160s: object %u in it cannot be read: %.200s", name, fault->number,
                        fault->cause);
}

/* Fails because the wanted object is not in the file; other: the label of one that is, or "". */
static int pysock__fail_not_in_file(const char *name, const char *wanted, const char *label,
                                    const char *other, size_t size, const char *reason)
{
    const char *kind = other[0] ? pysock__label_kind(other) : NULL;

    if (!size)
        return pysock__fail(PYSOCK_SSL_ERROR, 0, reason,
                            "%.200s: there is no %s in it: it is empty", name, wanted);
    if (kind)
        return pysock__fail(PYSOCK_SSL_ERROR, 0, reason, "%.200s: there is no %s in it, but %s",
                            name, wanted, kind);
    return pysock__fail(PYSOCK_SSL_ERROR, 0, reason,
                        "%.200s: there is no %s in it; PEM begins with -----BEGIN %s-----", name,
                        wanted, label);
}

static int64_t pysock__days_from_civil(int64_t y, int64_t m, int64_t d)
{
    int64_t era, yoe, doy, doe;

    y -= m <= 2;
    era = (y >= 0 ? y : y - 399) / 400;
    yoe = y - era * 400;
    doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
    doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return era * 146097 + doe - 719468;
}

/* UTCTime or GeneralizedTime, as RFC 5280 (4.1.2.5) allows them: in Zulu, with seconds. */
static int pysock__der_time(pysock__der *d, int64_t *out)
{
    static const int low[6] = {0, 1, 1, 0, 0, 0}, high[6] = {9999, 12, 31, 23, 59, 59};
    pysock__der in;
    int tag = pysock__der_next(d, &in);
    int field[6], i, digits = tag == 0x18 ? 4 : 2;
    const unsigned char *p;

    if ((tag != 0x17 && tag != 0x18) || in.end - in.p != digits + 11 || in.end[-1] != 'Z')
        return -1;
    for (p = in.p; p < in.end - 1; p++)
        if (*p < '0' || *p > '9')
            return -1;
    p = in.p;
    field[0] = (p[0] - '0') * 10 + p[1] - '0';
    if (digits == 4)
        field[0] = field[0] * 100 + (p[2] - '0') * 10 + p[3] - '0';
    else
        field[0] += field[0] >= 50 ? 1900 : 2000;
    for (p += digits, i = 1; i < 6; i++, p += 2)
        field[i] = (p[0] - '0') * 10 + p[1] - '0';
    for (i = 0; i < 6; i++)
        if (field[i] < low[i] || field[i] > high[i])
            return -1;
    *out = pysock__days_from_civil(field[0], field[1], field[2]) * 86400 + field[3] * 3600
           + field[4] * 60 + field[5];
    return 0;
}

#endif /* PYSOCK_NO_SSL */

/* ---- >>x509 ----
   Certificates and revocation lists (RFC 5280), parsed once and then only read: they point into the
   bytes that they were parsed from. Names, name constraints, host names. No state and no lock. */

#ifndef PYSOCK_NO_SSL

/* Signature algorithms that are verified (SHA-1 only at security level 0), and MD5, which is known
   but always too weak (no hash). RSASSA-PSS has one OID; its parameters name the hash. */
typedef struct pysock__sig_alg {
    const char *oid;
    size_t oid_len;
    int key_type;
    const br_hash_class *hash;
    const char *digest_oid; /* for RSA: its length, then itself */
    int pss;                /* RSASSA-PSS (RFC 4055), not PKCS#1 */
} pysock__sig_alg;

#define PYSOCK__OID_RSA "\x2a\x86\x48\x86\xf7\x0d\x01\x01"
#define PYSOCK__OID_ECDSA "\x2a\x86\x48\xce\x3d\x04"
#define PYSOCK__OID_SHA2 "\x09\x60\x86\x48\x01\x65\x03\x04\x02"

static const pysock__sig_alg pysock__sig_algs[] = {
    {PYSOCK__OID_RSA "\x0b", 9, BR_KEYTYPE_RSA, &br_sha256_vtable, PYSOCK__OID_SHA2 "\x01", 0},
    {PYSOCK__OID_RSA "\x0c", 9, BR_KEYTYPE_RSA, &br_sha384_vtable, PYSOCK__OID_SHA2 "\x02", 0},
    {PYSOCK__OID_RSA "\x0d", 9, BR_KEYTYPE_RSA, &br_sha512_vtable, PYSOCK__OID_SHA2 "\x03", 0},
    {PYSOCK__OID_ECDSA "\x03\x02", 8, BR_KEYTYPE_EC, &br_sha256_vtable, NULL, 0},
    {PYSOCK__OID_ECDSA "\x03\x03", 8, BR_KEYTYPE_EC, &br_sha384_vtable, NULL, 0},
    {PYSOCK__OID_ECDSA "\x03\x04", 8, BR_KEYTYPE_EC, &br_sha512_vtable, NULL, 0},
    {PYSOCK__OID_RSA "\x04", 9, BR_KEYTYPE_RSA, NULL, NULL, 0}, /* MD5 */
    {PYSOCK__OID_RSA "\x05", 9, BR_KEYTYPE_RSA, &br_sha1_vtable, "\x05\x2b\x0e\x03\x02\x1a", 0},
    {PYSOCK__OID_ECDSA "\x01", 7, BR_KEYTYPE_EC, &br_sha1_vtable, NULL, 0},
    {PYSOCK__OID_RSA "\x0a", 9, BR_KEYTYPE_RSA, &br_sha256_vtable, PYSOCK__OID_SHA2 "\x01", 1},
    {PYSOCK__OID_RSA "\x0a", 9, BR_KEYTYPE_RSA, &br_sha384_vtable, PYSOCK__OID_SHA2 "\x02", 1},
    {PYSOCK__OID_RSA "\x0a", 9, BR_KEYTYPE_RSA, &br_sha512_vtable, PYSOCK__OID_SHA2 "\x03", 1},
};

/* Known extensions, as bits. */
enum {
    PYSOCK__EXT_SKI = 1,
    PYSOCK__EXT_AKI = 2,
    PYSOCK__EXT_KEY_USAGE = 4,
    PYSOCK__EXT_SAN = 8,
    PYSOCK__EXT_BASIC = 16,
    PYSOCK__EXT_NAMES = 32,
    PYSOCK__EXT_EKU = 64,
    PYSOCK__EXT_POLICY_CONSTRAINTS = 128,
    PYSOCK__EXT_POLICIES = 256 /* and related ones: no policies are required */
};

#define PYSOCK__KU_SIGN 0x80u      /* KeyUsage's bits: digitalSignature, the first */
#define PYSOCK__KU_ENCIPHER 0x28u  /* keyEncipherment, keyAgreement */
#define PYSOCK__KU_AGREEMENT 0x08u /* keyAgreement alone */
#define PYSOCK__KU_CERT_SIGN 0x04u
#define PYSOCK__KU_CRL_SIGN 0x02u
#define PYSOCK__EXT_MAX 64 /* extensions that a certificate may have */

typedef struct pysock__cert {
    pysock__der all;             /* the certificate, with its header */
    pysock__der tbs;             /* what is signed, with its header */
    pysock__der issuer, subject; /* the contents of the names */
    pysock__der subject_tlv;     /* the subject with its header */
    pysock__der serial, signature;
    pysock__der san, eku, permitted, excluded; /* the contents of the sequences */
    pysock__der ski, aki;                      /* key identifiers */
    const pysock__sig_alg *sig_alg;            /* NULL: unknown */
    br_x509_pkey key;                          /* key_type 0: of a kind that is not supported */
    int64_t not_before, not_after;             /* Unix time */
    unsigned seen, critical;                   /* extensions */
    unsigned key_usage;
    int version, is_ca, pathlen; /* pathlen -1: any */
    int unknown_critical;        /* has a critical extension that is not understood */
    int algorithms_differ;       /* the signature algorithms inside and outside the signed part */
    pysock__der key_oid, curve_oid, sig_oid; /* the algorithms of key and signature */
    size_t rsa_bits;                         /* of an RSA key, supported or not */
    int compressed;                          /* the key's point is in compressed form */
    const char *problem;                     /* after a failure: what is wrong, static */
} pysock__cert;

#define PYSOCK__RSA_EXPONENT_MAX 8 /* bytes: a longer one only slows down verification */

static int pysock__cert_key_rsa(pysock__cert *cert, pysock__der bits)
{
    pysock__der seq, n, e;
    unsigned first;

    if (pysock__der_expect(&bits, 0x30, &seq) < 0 || pysock__der_expect(&seq, 0x02, &n) < 0
        || pysock__der_expect(&seq, 0x02, &e) < 0 || pysock__der_unsigned(&n) < 0
        || pysock__der_unsigned(&e) < 0 || seq.p != seq.end || bits.p != bits.end)
        return -1;
    cert->rsa_bits = pysock__der_len(&n) * 8;
    for (first = n.p[0]; first < 0x80 && cert->rsa_bits; first = first << 1 | 1)
        cert->rsa_bits--;
    if (pysock__der_len(&e) > PYSOCK__RSA_EXPONENT_MAX || cert->rsa_bits > PYSOCK__RSA_MAX * 8)
        return 0;
    cert->key.key_type = BR_KEYTYPE_RSA;
    cert->key.key.rsa.n = (unsigned char *)(uintptr_t)n.p;
    cert->key.key.rsa.nlen = pysock__der_len(&n);
    cert->key.key.rsa.e = (unsigned char *)(uintptr_t)e.p;
    cert->key.key.rsa.elen = pysock__der_len(&e);
    return 0;
}

static void pysock__cert_key_ec(pysock__cert *cert, pysock__der params, pysock__der bits)
{
    pysock__der oid;
    int curve = 0;

    if (pysock__der_expect(&params, 0x06, &oid) < 0)
        return; /* explicit parameters */
    cert->curve_oid = oid;
    cert->compressed = pysock__der_len(&bits) && (bits.p[0] == 2 || bits.p[0] == 3);
    if (pysock__der_is(&oid, "\x2a\x86\x48\xce\x3d\x03\x01\x07", 8))
        curve = BR_EC_secp256r1;
    else if (pysock__der_is(&oid, "\x2b\x81\x04\x00\x22", 5))
        curve = BR_EC_secp384r1;
    else if (pysock__der_is(&oid, "\x2b\x81\x04\x00\x23", 5))
        curve = BR_EC_secp521r1;
    if (!curve || cert->compressed)
        return;
    cert->key.key_type = BR_KEYTYPE_EC;
    cert->key.key.ec.curve = curve;
    cert->key.key.ec.q = (unsigned char *)(uintptr_t)bits.p;
    cert->key.key.ec.qlen = pysock__der_len(&bits);
}

/* subjectPublicKeyInfo's contents. */
static int pysock__cert_key(pysock__cert *cert, pysock__der spki)
{
    pysock__der alg, oid, bits;

    if (pysock__der_expect(&spki, 0x30, &alg) < 0 || pysock__der_expect(&alg, 0x06, &oid) < 0
        || pysock__der_expect(&spki, 0x03, &bits) < 0 || spki.p != spki.end
        || !pysock__der_len(&bits) || *bits.p++ != 0)
        return -1;
    cert->key_oid = oid;
    if (pysock__der_is(&oid, PYSOCK__OID_RSA "\x01", 9))
        return pysock__cert_key_rsa(cert, bits);
    if (pysock__der_is(&oid, "\x2a\x86\x48\xce\x3d\x02\x01", 7))
        pysock__cert_key_ec(cert, alg, bits);
    return 0;
}

static int pysock__ext_basic(pysock__cert *cert, pysock__der value)
{
    pysock__der seq, in;
    int tag;

    if (pysock__der_expect(&value, 0x30, &seq) < 0)
        return -1;
    if (seq.p == seq.end)
        return 0;
    tag = pysock__der_next(&seq, &in);
    if (tag == 0x01) {
        cert->is_ca = pysock__der_bool(&in);
        if (cert->is_ca < 0)
            return cert->is_ca;
        if (seq.p == seq.end)
            return 0;
        tag = pysock__der_next(&seq, &in);
    }
    if (tag != 0x02 || seq.p != seq.end)
        return -1;
    cert->pathlen = pysock__der_int(&in);
    return cert->pathlen < 0 ? -1 : 0;
}

static int pysock__ext_key_usage(pysock__cert *cert, pysock__der value)
{
    pysock__der bits;
    size_t n;

    if (pysock__der_expect(&value, 0x03, &bits) < 0)
        return -1;
    n = pysock__der_len(&bits);
    if (n < 1 || n > 3 || bits.p[0] > 7)
        return -1;
    cert->key_usage = n > 1 ? bits.p[1] : 0;
    return 0;
}

/* authorityKeyIdentifier's key identifier; *keyid stays as it is if there is none. */
static int pysock__ext_aki(pysock__der *keyid, pysock__der value)
{
    pysock__der seq, in;
    int tag;

    if (pysock__der_expect(&value, 0x30, &seq) < 0)
        return -1;
    while (seq.p < seq.end) {
        tag = pysock__der_next(&seq, &in);
        if (tag < 0)
            return -1;
        if (tag == 0x80)
            *keyid = in;
    }
    return 0;
}

/* NameConstraints must not be empty (RFC 5280, 4.2.1.10). */
static int pysock__ext_names(pysock__cert *cert, pysock__der value)
{
    pysock__der seq, in;
    int tag;

    if (pysock__der_expect(&value, 0x30, &seq) < 0 || seq.p == seq.end)
        return -1;
    while (seq.p < seq.end) {
        tag = pysock__der_next(&seq, &in);
        if ((tag != 0xa0 && tag != 0xa1) || in.p == in.end)
            return -1;
        *(tag == 0xa0 ? &cert->permitted : &cert->excluded) = in;
    }
    return 0;
}

static int pysock__ext_list(pysock__der *out, pysock__der value)
{
    return pysock__der_expect(&value, 0x30, out) < 0 || out->p == out->end ? -1 : 0;
}

/* Reads the value of the extension that has this bit. */
static int pysock__cert_extension_value(pysock__cert *cert, unsigned bit, pysock__der value)
{
    switch (bit) {
    case PYSOCK__EXT_SKI: return pysock__der_expect(&value, 0x04, &cert->ski);
    case PYSOCK__EXT_AKI: return pysock__ext_aki(&cert->aki, value);
    case PYSOCK__EXT_KEY_USAGE: return pysock__ext_key_usage(cert, value);
    case PYSOCK__EXT_SAN: return pysock__ext_list(&cert->san, value);
    case PYSOCK__EXT_BASIC: return pysock__ext_basic(cert, value);
    case PYSOCK__EXT_NAMES: return pysock__ext_names(cert, value);
    case PYSOCK__EXT_EKU: return pysock__ext_list(&cert->eku, value);
    default: return 0;
    }
}

static unsigned pysock__extension_bit(const pysock__der *oid)
{
    if (pysock__der_len(oid) != 3 || oid->p[0] != 0x55 || oid->p[1] != 0x1d)
        return 0;
    switch (oid->p[2]) {
    case 14: return PYSOCK__EXT_SKI;
    case 15: return PYSOCK__EXT_KEY_USAGE;
    case 17: return PYSOCK__EXT_SAN;
    case 19: return PYSOCK__EXT_BASIC;
    case 30: return PYSOCK__EXT_NAMES;
    case 32: return PYSOCK__EXT_POLICIES; /* certificatePolicies */
    case 33: return PYSOCK__EXT_POLICIES; /* policyMappings */
    case 35: return PYSOCK__EXT_AKI;
    case 36: return PYSOCK__EXT_POLICY_CONSTRAINTS;
    case 37: return PYSOCK__EXT_EKU;
    case 54: return PYSOCK__EXT_POLICIES; /* inhibitAnyPolicy */
    default: return 0;
    }
}

/* The next extension: its OID, its value, and whether it is critical; -1 if malformed. */
static int pysock__extension_next(pysock__der *exts, pysock__der *oid, pysock__der *value)
{
    pysock__der ext;
    int tag, critical = 0;

    if (pysock__der_expect(exts, 0x30, &ext) < 0 || pysock__der_expect(&ext, 0x06, oid) < 0)
        return -1;
    tag = pysock__der_next(&ext, value);
    if (tag == 0x01) {
        critical = pysock__der_bool(value);
        tag = pysock__der_next(&ext, value);
    }
    return tag == 0x04 && ext.p == ext.end ? critical : -1;
}

/* 1 if the last of these OIDs is among those before it. */
static int pysock__oid_again(const pysock__der *oids, size_t count)
{
    size_t i;

    for (i = 0; i + 1 < count; i++)
        if (pysock__der_equal(&oids[i], &oids[count - 1]))
            return 1;
    return 0;
}

static int pysock__cert_extensions(pysock__cert *cert, pysock__der exts)
{
    pysock__der oid[PYSOCK__EXT_MAX], value;
    size_t count = 0;
    unsigned bit;
    int critical, r;

    while (exts.p < exts.end) {
        if (count == PYSOCK__EXT_MAX)
            return -1;
        critical = pysock__extension_next(&exts, &oid[count], &value);
        if (critical < 0)
            return critical;
        if (pysock__oid_again(oid, count + 1))
            return -1; /* RFC 5280, 4.2: each at most once */
        bit = pysock__extension_bit(&oid[count++]);
        cert->seen |= bit;
        cert->critical |= critical ? bit : 0;
        cert->unknown_critical |= critical && !bit;
        r = pysock__cert_extension_value(cert, bit, value);
        if (r < 0)
            return r;
    }
    return 0;
}

/* The rest after the key: unique identifiers, and the extensions. */
static int pysock__cert_tail(pysock__cert *cert, pysock__der tbs)
{
    pysock__der in, exts;
    int tag, last = 0, r;

    while (tbs.p < tbs.end) {
        tag = pysock__der_next(&tbs, &in);
        if ((tag != 0x81 && tag != 0x82 && tag != 0xa3) || tag <= last)
            return -1;
        last = tag;
        if (tag != 0xa3)
            continue;
        if (cert->version != 3 || pysock__der_expect(&in, 0x30, &exts) < 0 || in.p != in.end)
            return -1;
        r = pysock__cert_extensions(cert, exts);
        if (r < 0)
            return r;
    }
    return 0;
}

/* An AlgorithmIdentifier of a hash: its parameters are NULL or absent (RFC 4055, 2.1). */
static int pysock__hash_alg_is(pysock__der alg, const char *digest_oid)
{
    pysock__der oid, none;

    if (pysock__der_expect(&alg, 0x06, &oid) < 0
        || !pysock__der_is(&oid, digest_oid + 1, (size_t)digest_oid[0]))
        return 0;
    return alg.p == alg.end
           || (pysock__der_expect(&alg, 0x05, &none) == 0 && none.p == none.end
               && alg.p == alg.end);
}

/* RSASSA-PSS-params (RFC 4055, 3.1) with this hash, for MGF1 too, and a salt of its length. All
   that is absent is SHA-1's, so everything except the trailer must be there. */
static int pysock__pss_params_fit(pysock__der alg, const pysock__sig_alg *row)
{
    pysock__der params, field, in, oid;

    if (pysock__der_expect(&alg, 0x30, &params) < 0 || alg.p != alg.end
        || pysock__der_expect(&params, 0xa0, &field) < 0
        || pysock__der_expect(&field, 0x30, &in) < 0 || field.p != field.end
        || !pysock__hash_alg_is(in, row->digest_oid))
        return 0;
    if (pysock__der_expect(&params, 0xa1, &field) < 0 || pysock__der_expect(&field, 0x30, &in) < 0
        || field.p != field.end || pysock__der_expect(&in, 0x06, &oid) < 0
        || !pysock__der_is(&oid, PYSOCK__OID_RSA "\x08", 9)
        || pysock__der_expect(&in, 0x30, &oid) < 0 || in.p != in.end
        || !pysock__hash_alg_is(oid, row->digest_oid))
        return 0;
    if (pysock__der_expect(&params, 0xa2, &field) < 0 || pysock__der_expect(&field, 0x02, &in) < 0
        || field.p != field.end || pysock__der_int(&in) != (int)pysock__hash_size(row->hash))
        return 0;
    return params.p == params.end
           || (pysock__der_expect(&params, 0xa3, &field) == 0 && params.p == params.end
               && pysock__der_expect(&field, 0x02, &in) == 0 && field.p == field.end
               && pysock__der_int(&in) == 1);
}

/* The algorithm of this AlgorithmIdentifier, or NULL. */
static const pysock__sig_alg *pysock__sig_alg_find(pysock__der alg)
{
    pysock__der oid;
    size_t i;

    if (pysock__der_expect(&alg, 0x06, &oid) < 0)
        return NULL;
    for (i = 0; i < PYSOCK__COUNT(pysock__sig_algs); i++)
        if (pysock__der_is(&oid, pysock__sig_algs[i].oid, pysock__sig_algs[i].oid_len)
            && (!pysock__sig_algs[i].pss || pysock__pss_params_fit(alg, &pysock__sig_algs[i])))
            return &pysock__sig_algs[i];
    return NULL;
}

/* tbsCertificate's contents. */
static int pysock__cert_body(pysock__cert *cert, pysock__der tbs, pysock__der *inner_alg)
{
    pysock__der in, number;
    const unsigned char *subject;
    int version, tag = pysock__der_next(&tbs, &in);

    cert->version = 1;
    if (tag == 0xa0) {
        if (pysock__der_expect(&in, 0x02, &number) < 0 || (version = pysock__der_int(&number)) < 0
            || version > 2)
            return -1;
        cert->version = version + 1;
        tag = pysock__der_next(&tbs, &in);
    }
    cert->serial = in;
    if (tag != 0x02 || in.p == in.end || pysock__der_expect(&tbs, 0x30, inner_alg) < 0
        || pysock__der_expect(&tbs, 0x30, &cert->issuer) < 0
        || pysock__der_expect(&tbs, 0x30, &in) < 0 || pysock__der_time(&in, &cert->not_before) < 0
        || pysock__der_time(&in, &cert->not_after) < 0 || in.p != in.end)
        return -1;
    subject = tbs.p;
    if (pysock__der_expect(&tbs, 0x30, &cert->subject) < 0)
        return -1;
    cert->subject_tlv.p = subject;
    cert->subject_tlv.end = tbs.p;
    if (pysock__der_expect(&tbs, 0x30, &in) < 0 || pysock__cert_key(cert, in) < 0)
        return -1;
    return pysock__cert_tail(cert, tbs);
}

/* Reads a certificate; the result points into der. -1 if malformed. */
static int pysock__cert_parse(pysock__cert *cert, const unsigned char *der, size_t len)
{
    pysock__der all, outer, tbs, inner_alg, outer_alg, bits, alg;
    int r;

    memset(cert, 0, sizeof *cert);
    cert->problem = "the certificate is malformed: its DER is damaged, or not as RFC 5280 has it";
    cert->pathlen = -1;
    all.p = cert->all.p = der;
    all.end = cert->all.end = der + len;
    if (pysock__der_expect(&all, 0x30, &outer) < 0 || all.p != all.end)
        return -1;
    cert->tbs.p = outer.p;
    if (pysock__der_expect(&outer, 0x30, &tbs) < 0)
        return -1;
    cert->tbs.end = outer.p;
    if (pysock__der_expect(&outer, 0x30, &outer_alg) < 0
        || pysock__der_expect(&outer, 0x03, &bits) < 0 || outer.p != outer.end
        || !pysock__der_len(&bits) || *bits.p++ != 0)
        return -1;
    r = pysock__cert_body(cert, tbs, &inner_alg);
    if (r == -2)
        cert->problem = "the certificate's encoding is not DER: TRUE is written as BER allows";
    if (r < 0)
        return -1;
    alg = inner_alg;
    pysock__der_expect(&alg, 0x06, &cert->sig_oid);
    cert->signature = bits;
    cert->algorithms_differ = !pysock__der_equal(&inner_alg, &outer_alg);
    cert->sig_alg = pysock__sig_alg_find(inner_alg);
    return 0;
}

/* X.509: distinguished names. Two are the same if their bytes are, or if they differ only as RFC
   5280 (7.1) allows: in the case of letters and in blanks, in strings of any of the usual types. */

static int pysock__lower(int c)
{
    return c >= 'A' && c <= 'Z' ? c + 32 : c;
}

static int pysock__is_text(int tag)
{
    return tag == 0x0c || tag == 0x13 || tag == 0x14 || tag == 0x16 || tag == 0x1a;
}

/* The next character of a string, without blanks around it, runs of them folded; -1 at its end. */
static int pysock__fold_next(pysock__der *s, int *started)
{
    int blank = 0;

    while (s->p < s->end && *s->p == ' ') {
        blank = 1;
        s->p++;
    }
    if (s->p == s->end)
        return -1;
    if (blank && *started)
        return ' ';
    *started = 1;
    return pysock__lower(*s->p++);
}

static int pysock__text_same(pysock__der a, pysock__der b)
{
    int a_started = 0, b_started = 0, c;

    do {
        c = pysock__fold_next(&a, &a_started);
        if (c != pysock__fold_next(&b, &b_started))
            return 0;
    } while (c >= 0);
    return 1;
}

/* 1 if two RDNs have the same attributes in the same order. */
static int pysock__rdn_same(pysock__der a, pysock__der b)
{
    pysock__der x, y, x_oid, y_oid, x_value, y_value;
    int x_tag, y_tag;

    while (a.p < a.end && b.p < b.end) {
        if (pysock__der_expect(&a, 0x30, &x) < 0 || pysock__der_expect(&b, 0x30, &y) < 0
            || pysock__der_expect(&x, 0x06, &x_oid) < 0 || pysock__der_expect(&y, 0x06, &y_oid) < 0
            || !pysock__der_equal(&x_oid, &y_oid))
            return 0;
        x_tag = pysock__der_next(&x, &x_value);
        y_tag = pysock__der_next(&y, &y_value);
        if (pysock__is_text(x_tag) && pysock__is_text(y_tag)) {
            if (!pysock__text_same(x_value, y_value))
                return 0;
        } else if (x_tag < 0 || x_tag != y_tag || !pysock__der_equal(&x_value, &y_value)) {
            return 0;
        }
    }
    return a.p == a.end && b.p == b.end;
}

/* 1 if the RDNs of prefix are the first ones of name. */
static int pysock__name_within(pysock__der name, pysock__der prefix)
{
    pysock__der a, b;

    while (prefix.p < prefix.end)
        if (pysock__der_expect(&prefix, 0x31, &a) < 0 || pysock__der_expect(&name, 0x31, &b) < 0
            || !pysock__rdn_same(a, b))
            return 0;
    return 1;
}

/* 1 if a name is well-formed. */
static int pysock__name_valid(pysock__der name)
{
    pysock__der set, atv, oid, value;

    while (name.p < name.end) {
        if (pysock__der_expect(&name, 0x31, &set) < 0 || set.p == set.end)
            return 0;
        while (set.p < set.end)
            if (pysock__der_expect(&set, 0x30, &atv) < 0 || pysock__der_expect(&atv, 0x06, &oid) < 0
                || pysock__der_next(&atv, &value) < 0 || atv.p != atv.end)
                return 0;
    }
    return 1;
}

static int pysock__name_same(const pysock__der *a, const pysock__der *b)
{
    return pysock__der_equal(a, b) || (pysock__name_within(*a, *b) && pysock__name_within(*b, *a));
}

static int pysock__cert_self_issued(const pysock__cert *cert)
{
    return pysock__name_same(&cert->issuer, &cert->subject);
}

/* As OpenSSL's X509_check_ca(): a CA by its extensions, or a self-issued version 1 certificate. */
static int pysock__cert_is_ca(const pysock__cert *cert)
{
    if (cert->seen & PYSOCK__EXT_KEY_USAGE && !(cert->key_usage & PYSOCK__KU_CERT_SIGN))
        return 0;
    if (cert->seen & PYSOCK__EXT_BASIC)
        return cert->is_ca;
    return cert->seen & PYSOCK__EXT_KEY_USAGE
           || (cert->version == 1 && pysock__cert_self_issued(cert));
}

/* X.509: name constraints (RFC 5280, 4.2.1.10). Where one cannot be checked, the path is
   refused. */

/* Why a path is refused, as OpenSSL's X509_V_ERR_ numbers; 0: it is accepted. */
enum {
    PYSOCK__V_OK = 0,
    PYSOCK__V_MALFORMED = 1,
    PYSOCK__V_NO_ISSUER = 2,
    PYSOCK__V_NO_CRL = 3,
    PYSOCK__V_UNSUPPORTED_KEY = 6,
    PYSOCK__V_BAD_SIGNATURE = 7,
    PYSOCK__V_CRL_SIGNATURE = 8,
    PYSOCK__V_NOT_YET_VALID = 9,
    PYSOCK__V_EXPIRED = 10,
    PYSOCK__V_CRL_NOT_YET_VALID = 11,
    PYSOCK__V_CRL_EXPIRED = 12,
    PYSOCK__V_OUT_OF_MEMORY = 17,
    PYSOCK__V_SELF_SIGNED_LEAF = 18,
    PYSOCK__V_SELF_SIGNED_IN_CHAIN = 19,
    PYSOCK__V_NO_LOCAL_ISSUER = 20,
    PYSOCK__V_CHAIN_TOO_LONG = 22,
    PYSOCK__V_REVOKED = 23,
    PYSOCK__V_PATH_LENGTH = 25,
    PYSOCK__V_PURPOSE = 26,
    PYSOCK__V_REJECTED = 28,
    PYSOCK__V_NO_CERT_SIGN = 32,
    PYSOCK__V_NO_CRL_ISSUER = 33,
    PYSOCK__V_CRITICAL_EXTENSION = 34,
    PYSOCK__V_NO_CRL_SIGN = 35,
    PYSOCK__V_CRITICAL_CRL_EXTENSION = 36,
    PYSOCK__V_INVALID_EXTENSION = 41,
    PYSOCK__V_NO_POLICY = 43,
    PYSOCK__V_CRL_SCOPE = 44,
    PYSOCK__V_NOT_PERMITTED = 47,
    PYSOCK__V_EXCLUDED = 48,
    PYSOCK__V_SUBTREE_MINMAX = 49,
    PYSOCK__V_CONSTRAINT_TYPE = 51,
    PYSOCK__V_CONSTRAINT_SYNTAX = 52,
    PYSOCK__V_NAME_SYNTAX = 53,
    PYSOCK__V_HOSTNAME = 62,
    PYSOCK__V_IP_ADDRESS = 64,
    PYSOCK__V_LEAF_KEY = 66,
    PYSOCK__V_CA_KEY = 67,
    PYSOCK__V_WEAK_HASH = 68,
    PYSOCK__V_UNSUPPORTED_SIGNATURE = 76,
    PYSOCK__V_ALGORITHMS_DIFFER = 78,
    PYSOCK__V_INVALID_CA = 79,
    PYSOCK__V_PATHLEN_OF_NO_CA = 80,
    PYSOCK__V_PATHLEN_NO_CERT_SIGN = 81,
    PYSOCK__V_CERT_SIGN_OF_NO_CA = 82,
    PYSOCK__V_EMPTY_ISSUER = 83,
    PYSOCK__V_EMPTY_SUBJECT = 84,
    PYSOCK__V_NO_AKI = 85,
    PYSOCK__V_NO_SKI = 86,
    PYSOCK__V_SAN_NOT_CRITICAL = 88,
    PYSOCK__V_BASIC_NOT_CRITICAL = 89,
    PYSOCK__V_AKI_CRITICAL = 90,
    PYSOCK__V_SKI_CRITICAL = 91,
    PYSOCK__V_CA_NO_KEY_USAGE = 92,
    PYSOCK__V_VERSION = 93
};

/* GeneralName's tags (RFC 5280, 4.2.1.6). */
enum {
    PYSOCK__GN_OTHER = 0xa0,
    PYSOCK__GN_EMAIL = 0x81,
    PYSOCK__GN_DNS = 0x82,
    PYSOCK__GN_X400 = 0xa3,
    PYSOCK__GN_DIRECTORY = 0xa4,
    PYSOCK__GN_EDI = 0xa5,
    PYSOCK__GN_URI = 0x86,
    PYSOCK__GN_IP = 0x87,
    PYSOCK__GN_ID = 0x88
};

static int pysock__text_equal(const unsigned char *a, const void *b, size_t n)
{
    const unsigned char *q = (const unsigned char *)b;
    size_t i;

    for (i = 0; i < n; i++)
        if (pysock__lower(a[i]) != pysock__lower(q[i]))
            return 0;
    return 1;
}

/* 1 if host is domain, or below it; a domain that begins with a dot means below it only. */
static int pysock__domain_holds(const pysock__der *domain, const pysock__der *host)
{
    size_t d = pysock__der_len(domain), h = pysock__der_len(host);

    if (!d)
        return 1;
    if (h < d || !pysock__text_equal(host->end - d, domain->p, d))
        return 0;
    if (h == d)
        return domain->p[0] != '.';
    return domain->p[0] == '.' || host->end[-(ptrdiff_t)d - 1] == '.';
}

/* 1 if a DNS name can be compared: labels of letters, digits, '-', '_', perhaps after "*.". */
static int pysock__dns_valid(const pysock__der *name)
{
    const unsigned char *p = name->p;
    size_t label = 0;

    if (pysock__der_len(name) > 255 || name->p == name->end)
        return 0;
    if (pysock__der_len(name) > 2 && p[0] == '*' && p[1] == '.')
        p += 2;
    for (; p < name->end; p++) {
        int c = pysock__lower(*p);
        if (c == '.' && label) {
            label = 0;
            continue;
        }
        if (++label > 63
            || !((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_'))
            return 0;
    }
    return label > 0;
}

/* 1 if a constraint's domain is valid: a DNS name, perhaps after a dot. A wildcard or a final dot
   is refused, because it would not match the names that it is meant for. */
static int pysock__domain_valid(const pysock__der *domain)
{
    pysock__der name = *domain;

    if (name.p < name.end && name.p[0] == '.')
        name.p++;
    return name.p < name.end && name.p[0] != '*' && pysock__dns_valid(&name);
}

/* 1 if name is a wildcard that matches a host in domain, but is not in it (CVE-2025-61727). */
static int pysock__wildcard_meets(const pysock__der *domain, const pysock__der *name)
{
    pysock__der parent = *domain, rest = *name;

    if (pysock__der_len(name) < 3 || name->p[0] != '*')
        return 0;
    rest.p += 2;
    while (parent.p < parent.end && *parent.p != '.')
        parent.p++;
    if (parent.p == parent.end)
        return 0;
    parent.p++;
    return pysock__der_len(&parent) == pysock__der_len(&rest)
           && pysock__text_equal(parent.p, rest.p, pysock__der_len(&rest));
}

/* The host part of a URI with an authority; 0 if there is none, or it is an IPv6 address. */
static int pysock__uri_host(const pysock__der *uri, pysock__der *host)
{
    const unsigned char *p = uri->p, *end;

    while (p < uri->end && *p != ':')
        p++;
    if (uri->end - p < 4 || p[1] != '/' || p[2] != '/')
        return 0;
    host->p = p += 3;
    for (end = p; end < uri->end && *end != '/' && *end != '?' && *end != '#'; end++)
        if (*end == '@')
            host->p = end + 1;
    for (host->end = host->p; host->end < end && *host->end != ':'; host->end++)
        ;
    return host->p < host->end && host->p[0] != '[';
}

/* A constraint is a mailbox, a host, or ".domain". */
static int pysock__email_within(const pysock__der *base, const pysock__der *mail)
{
    pysock__der host = *mail, domain = *base;
    const unsigned char *at = NULL, *p;
    size_t n = pysock__der_len(base), local;

    for (p = mail->p; p < mail->end; p++)
        if (*p == '@')
            at = p;
    for (p = base->p; p < base->end; p++)
        if (*p == '@')
            domain.p = p + 1;
    if (!at || at == mail->p)
        return -PYSOCK__V_NAME_SYNTAX;
    if (n
        && (!pysock__domain_valid(&domain)
            || (domain.p > base->p && (domain.p == base->p + 1 || domain.p[0] == '.'))))
        return -PYSOCK__V_CONSTRAINT_SYNTAX;
    host.p = at + 1;
    if (domain.p > base->p) {
        local = (size_t)(at - mail->p) + 1;
        return n == pysock__der_len(mail) && memcmp(base->p, mail->p, local) == 0
               && pysock__text_equal(base->p + local, mail->p + local, n - local);
    }
    if (!n || base->p[0] == '.')
        return pysock__domain_holds(base, &host);
    return n == pysock__der_len(&host) && pysock__text_equal(base->p, host.p, n);
}

/* The constraint is an address and a mask, which must be ones followed by zeros. */
static int pysock__ip_within(const pysock__der *base, const pysock__der *ip)
{
    size_t n = pysock__der_len(base) / 2, i;
    const unsigned char *mask = base->p + n;
    int ended = 0;

    if (pysock__der_len(base) != 8 && pysock__der_len(base) != 32)
        return -PYSOCK__V_CONSTRAINT_SYNTAX;
    for (i = 0; i < n; i++) {
        unsigned inverse = ~(unsigned)mask[i] & 0xff;
        if ((ended && mask[i]) || inverse & (inverse + 1))
            return -PYSOCK__V_CONSTRAINT_SYNTAX;
        ended |= mask[i] != 0xff;
    }
    if (pysock__der_len(ip) != 4 && pysock__der_len(ip) != 16)
        return -PYSOCK__V_NAME_SYNTAX;
    if (pysock__der_len(ip) != n)
        return 0;
    for (i = 0; i < n; i++)
        if ((base->p[i] ^ ip->p[i]) & mask[i])
            return 0;
    return 1;
}

/* 1 if a name of this kind lies in the subtree, 0 if not, a negated V_ code if it cannot be
   checked. */
static int pysock__name_in_subtree(int tag, const pysock__der *base, const pysock__der *name,
                                   int excluding)
{
    pysock__der outer, inner, host;

    switch (tag) {
    case PYSOCK__GN_DNS:
        if (base->p < base->end && !pysock__domain_valid(base))
            return -PYSOCK__V_CONSTRAINT_SYNTAX;
        if (!pysock__dns_valid(name))
            return -PYSOCK__V_NAME_SYNTAX;
        return pysock__domain_holds(base, name)
               || (excluding && pysock__wildcard_meets(base, name));
    case PYSOCK__GN_IP: return pysock__ip_within(base, name);
    case PYSOCK__GN_EMAIL: return pysock__email_within(base, name);
    case PYSOCK__GN_URI:
        if (base->p < base->end && !pysock__domain_valid(base))
            return -PYSOCK__V_CONSTRAINT_SYNTAX;
        if (!pysock__uri_host(name, &host))
            return -PYSOCK__V_NAME_SYNTAX;
        if (base->p < base->end && base->p[0] == '.')
            return pysock__domain_holds(base, &host);
        return pysock__der_len(base) == pysock__der_len(&host)
               && pysock__text_equal(base->p, host.p, pysock__der_len(base));
    case PYSOCK__GN_DIRECTORY:
        outer = *base;
        if (pysock__der_expect(&outer, 0x30, &inner) < 0 || !pysock__name_valid(inner))
            return -PYSOCK__V_CONSTRAINT_SYNTAX;
        return pysock__name_within(*name, inner);
    default: return -PYSOCK__V_CONSTRAINT_TYPE;
    }
}

/* The next subtree's base: its tag, or a negated V_ code. */
static int pysock__subtree_next(pysock__der *list, pysock__der *base)
{
    pysock__der subtree, in;
    int tag;

    if (pysock__der_expect(list, 0x30, &subtree) < 0)
        return -PYSOCK__V_CONSTRAINT_SYNTAX;
    tag = pysock__der_next(&subtree, base);
    if (tag < 0)
        return -PYSOCK__V_CONSTRAINT_SYNTAX;
    if (subtree.p == subtree.end)
        return tag;
    if (pysock__der_next(&subtree, &in) == 0x80 && pysock__der_is(&in, "", 1)
        && subtree.p == subtree.end)
        return tag; /* the default minimum of 0, which DER omits */
    return -PYSOCK__V_SUBTREE_MINMAX;
}

#define PYSOCK__LEAF_OF_SERVER 2   /* 1: a client's */
#define PYSOCK__NAME_CHECKS 250000 /* comparisons with constraints; long names count more */

/* Checks one name of a certificate against one list of subtrees. 0 or a V_ code. */
static int pysock__name_check(pysock__der list, int excluding, int tag, const pysock__der *name,
                              int *budget)
{
    pysock__der base;
    int kind, within, asked = 0;

    while (list.p < list.end) {
        kind = pysock__subtree_next(&list, &base);
        if (kind < 0)
            return -kind;
        *budget -= 1 + (int)(pysock__der_len(name) / 64);
        if (*budget <= 0)
            return PYSOCK__V_CONSTRAINT_TYPE;
        if (kind != tag)
            continue;
        within = pysock__name_in_subtree(tag, &base, name, excluding);
        if (within < 0)
            return -within;
        if (within)
            return excluding ? PYSOCK__V_EXCLUDED : PYSOCK__V_OK;
        asked = 1;
    }
    return asked && !excluding ? PYSOCK__V_NOT_PERMITTED : PYSOCK__V_OK;
}

/* 1 if a client might take this common name for a host name: a DNS name of several labels, or, in a
   server's certificate, of one. Drops a final dot, as the client does. */
static int pysock__cn_is_host(pysock__der *cn, int server)
{
    if (cn->p < cn->end && cn->end[-1] == '.')
        cn->end--;
    return pysock__dns_valid(cn) && (server || memchr(cn->p, '.', pysock__der_len(cn)));
}

/* Calls each(arg, tag, name) for every name that constraints apply to, until it returns non-zero,
   which is the result: subjectAltName's, the subject, e-mail addresses in it, and, in a leaf
   without DNS names, common names that a client might take for one. */
static int pysock__cert_each_name(const pysock__cert *cert, int leaf,
                                  int (*each)(void *arg, int tag, const pysock__der *name),
                                  void *arg)
{
    pysock__der list = cert->san, name, set, atv, oid;
    int tag, result, has_dns = 0;

    while (list.p < list.end) {
        tag = pysock__der_next(&list, &name);
        if (tag < 0)
            return PYSOCK__V_NAME_SYNTAX;
        if (tag == PYSOCK__GN_DIRECTORY) {
            set = name;
            if (pysock__der_expect(&set, 0x30, &name) < 0)
                return PYSOCK__V_NAME_SYNTAX;
        }
        has_dns |= tag == PYSOCK__GN_DNS;
        if ((result = each(arg, tag, &name)) != 0)
            return result;
    }
    list = cert->subject;
    if (list.p < list.end && (result = each(arg, PYSOCK__GN_DIRECTORY, &list)) != 0)
        return result;
    while (list.p < list.end) {
        if (pysock__der_expect(&list, 0x31, &set) < 0)
            return PYSOCK__V_NAME_SYNTAX;
        while (set.p < set.end) {
            if (pysock__der_expect(&set, 0x30, &atv) < 0
                || pysock__der_expect(&atv, 0x06, &oid) < 0)
                return PYSOCK__V_NAME_SYNTAX;
            tag = pysock__der_next(&atv, &name);
            result = 0;
            if (pysock__der_is(&oid, "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01", 9))
                result = each(arg, PYSOCK__GN_EMAIL, &name);
            else if (leaf && !has_dns && pysock__der_is(&oid, "\x55\x04\x03", 3)
                     && pysock__is_text(tag)
                     && pysock__cn_is_host(&name, leaf == PYSOCK__LEAF_OF_SERVER))
                result = each(arg, PYSOCK__GN_DNS, &name);
            if (result)
                return result;
        }
    }
    return 0;
}

typedef struct pysock__constraint_check {
    const pysock__cert *ca;
    int *budget;
} pysock__constraint_check;

static int pysock__constraint_check_name(void *arg, int tag, const pysock__der *name)
{
    pysock__constraint_check *c = (pysock__constraint_check *)arg;
    int code = pysock__name_check(c->ca->excluded, 1, tag, name, c->budget);

    return code ? code : pysock__name_check(c->ca->permitted, 0, tag, name, c->budget);
}

/* Checks all names of a certificate against the constraints of a CA above it. leaf: 0 for a CA, 1
   for a client's, PYSOCK__LEAF_OF_SERVER for a server's. 0 or a V_ code. */
static int pysock__constraints_check(const pysock__cert *ca, const pysock__cert *cert, int leaf,
                                     int *budget)
{
    pysock__constraint_check c;

    c.ca = ca;
    c.budget = budget;
    return pysock__cert_each_name(cert, leaf, pysock__constraint_check_name, &c);
}

/* X.509: host names (RFC 6125 as Python applies it). A wildcard is the whole leftmost label,
   matches exactly one label, and is followed by at least two. */

static int pysock__dns_match(const unsigned char *pattern, size_t plen, const char *host,
                             size_t hlen)
{
    const char *dot;

    if (plen && pattern[plen - 1] == '.')
        plen--;
    if (!plen || !hlen || memchr(pattern, 0, plen))
        return 0;
    if (plen == hlen && pattern[0] != '*')
        return pysock__text_equal(pattern, host, hlen);
    if (plen < 3 || pattern[0] != '*' || pattern[1] != '.' || memchr(pattern + 1, '*', plen - 1)
        || !memchr(pattern + 2, '.', plen - 2))
        return 0;
    dot = (const char *)memchr(host, '.', hlen);
    if (!dot || dot == host)
        return 0;
    hlen -= (size_t)(dot - host);
    return hlen == plen - 1 && pysock__text_equal(pattern + 1, dot, hlen);
}

/* Matches host with the last common name, for certificates without such names in subjectAltName. */
static int pysock__cn_match(pysock__der subject, const char *host, size_t hlen)
{
    pysock__der set, atv, oid, value, cn = {NULL, NULL};
    int tag;

    while (subject.p < subject.end) {
        if (pysock__der_expect(&subject, 0x31, &set) < 0)
            return 0;
        while (set.p < set.end) {
            if (pysock__der_expect(&set, 0x30, &atv) < 0
                || pysock__der_expect(&atv, 0x06, &oid) < 0)
                return 0;
            tag = pysock__der_next(&atv, &value);
            if (pysock__der_is(&oid, "\x55\x04\x03", 3) && pysock__is_text(tag))
                cn = value;
        }
    }
    return cn.p && pysock__dns_match(cn.p, (size_t)(cn.end - cn.p), host, hlen);
}

/* 1 if the certificate is for host: a DNS name, or an IP address as text. If subjectAltName has
   neither kind, a DNS name may match the common name (RFC 2818, 3.1), unless no_common_name. */
static int pysock__cert_matches(const pysock__cert *cert, const char *host, int no_common_name)
{
    unsigned char ip[16];
    size_t iplen = pysock__sys_pton(host, ip);
    size_t hlen = strlen(host);
    pysock__der list = cert->san, name;
    int tag, has_names = 0;

    if (hlen && host[hlen - 1] == '.')
        hlen--;
    while (list.p < list.end) {
        tag = pysock__der_next(&list, &name);
        if (tag < 0)
            return 0;
        if (tag == 0x87 && iplen && pysock__der_is(&name, ip, iplen))
            return 1;
        has_names |= tag == 0x82 || tag == 0x87;
        if (tag == 0x82 && !iplen
            && pysock__dns_match(name.p, (size_t)(name.end - name.p), host, hlen))
            return 1;
    }
    return !no_common_name && !has_names && !iplen && pysock__cn_match(cert->subject, host, hlen);
}

/* X.509: revocation lists (RFC 5280, section 5). A malformed one is not used. */

typedef struct pysock__crl {
    pysock__der all, tbs; /* with their headers */
    pysock__der issuer;   /* the contents of the name */
    pysock__der revoked;  /* the entries */
    pysock__der signature, aki;
    const pysock__sig_alg *sig_alg;   /* NULL: unknown */
    int64_t this_update, next_update; /* Unix time */
    int algorithms_differ;
    int unknown_critical; /* the list, or an entry, has such an extension */
    int is_delta, is_indirect;
    int is_partial; /* by distribution point or reason: others may complement it */
    int only_users, only_cas, only_attributes;
} pysock__crl;

/* issuingDistributionPoint (5.2.5). */
static int pysock__crl_scope_read(pysock__crl *crl, pysock__der value)
{
    pysock__der seq, in;
    int *flag, tag, last = 0;

    if (pysock__der_expect(&value, 0x30, &seq) < 0 || seq.p == seq.end)
        return -1;
    while (seq.p < seq.end) {
        tag = pysock__der_next(&seq, &in);
        if (tag < 0 || (tag & 0x1f) < last)
            return -1;
        last = (tag & 0x1f) + 1;
        switch (tag) {
        case 0xa0:
        case 0x83: crl->is_partial = 1; continue;
        case 0x81: flag = &crl->only_users; break;
        case 0x82: flag = &crl->only_cas; break;
        case 0x84: flag = &crl->is_indirect; break;
        case 0x85: flag = &crl->only_attributes; break;
        default: return -1;
        }
        if ((*flag = pysock__der_bool(&in)) < 0)
            return -1;
    }
    return 0;
}

static int pysock__crl_extension(pysock__crl *crl, const pysock__der *oid, pysock__der value,
                                 int critical)
{
    int known = pysock__der_len(oid) == 3 && oid->p[0] == 0x55 && oid->p[1] == 0x1d;

    switch (known ? oid->p[2] : 0) {
    case 20: /* cRLNumber */ return 0;
    case 27: /* deltaCRLIndicator */ crl->is_delta = 1; return 0;
    case 28: return pysock__crl_scope_read(crl, value);
    case 35: return pysock__ext_aki(&crl->aki, value);
    default: crl->unknown_critical |= critical; return 0;
    }
}

static int pysock__crl_extensions(pysock__crl *crl, pysock__der exts)
{
    pysock__der oid[PYSOCK__EXT_MAX], value;
    size_t count = 0;
    int critical;

    while (exts.p < exts.end) {
        if (count == PYSOCK__EXT_MAX)
            return -1;
        critical = pysock__extension_next(&exts, &oid[count], &value);
        if (critical < 0 || pysock__oid_again(oid, count + 1)
            || pysock__crl_extension(crl, &oid[count], value, critical) < 0)
            return -1;
        count++;
    }
    return count ? 0 : -1;
}

/* An entry's extensions (5.3): a reason or a date has no effect, another issuer does. */
static int pysock__crl_entry_extensions(pysock__crl *crl, pysock__der exts)
{
    pysock__der oid, value;
    int critical;

    while (exts.p < exts.end) {
        critical = pysock__extension_next(&exts, &oid, &value);
        if (critical < 0)
            return -1;
        if (pysock__der_is(&oid, "\x55\x1d\x1d", 3)) /* certificateIssuer */
            crl->is_indirect = 1;
        else if (!pysock__der_is(&oid, "\x55\x1d\x15", 3)     /* reasonCode */
                 && !pysock__der_is(&oid, "\x55\x1d\x18", 3)) /* invalidityDate */
            crl->unknown_critical |= critical;
    }
    return 0;
}

/* Checks every entry, so that pysock__crl_lists() may rely on them. */
static int pysock__crl_entries(pysock__crl *crl, int version)
{
    pysock__der list = crl->revoked, entry, in;
    int64_t date;

    while (list.p < list.end) {
        if (pysock__der_expect(&list, 0x30, &entry) < 0 || pysock__der_expect(&entry, 0x02, &in) < 0
            || in.p == in.end || pysock__der_time(&entry, &date) < 0)
            return -1;
        if (entry.p == entry.end)
            continue;
        if (version != 2 || pysock__der_expect(&entry, 0x30, &in) < 0 || entry.p != entry.end
            || in.p == in.end || pysock__crl_entry_extensions(crl, in) < 0)
            return -1;
    }
    return 0;
}

/* tbsCertList's contents. nextUpdate is required: without it an old list is not recognised. */
static int pysock__crl_body(pysock__crl *crl, pysock__der tbs, pysock__der *inner_alg)
{
    pysock__der in, exts;
    int version = 1, tag = pysock__der_next(&tbs, &in);

    if (tag == 0x02) {
        if (!pysock__der_is(&in, "\1", 1))
            return -1;
        version = 2;
        tag = pysock__der_next(&tbs, &in);
    }
    *inner_alg = in;
    if (tag != 0x30 || pysock__der_expect(&tbs, 0x30, &crl->issuer) < 0
        || !pysock__name_valid(crl->issuer) || pysock__der_time(&tbs, &crl->this_update) < 0
        || pysock__der_time(&tbs, &crl->next_update) < 0)
        return -1;
    if (tbs.p == tbs.end)
        return 0;
    tag = pysock__der_next(&tbs, &in);
    if (tag == 0x30) {
        crl->revoked = in;
        if (pysock__crl_entries(crl, version) < 0)
            return -1;
        if (tbs.p == tbs.end)
            return 0;
        tag = pysock__der_next(&tbs, &in);
    }
    if (tag != 0xa0 || version != 2 || tbs.p != tbs.end || pysock__der_expect(&in, 0x30, &exts) < 0
        || in.p != in.end)
        return -1;
    return pysock__crl_extensions(crl, exts);
}

/* Reads a CRL; the result points into der. -1 if malformed. */
static int pysock__crl_parse(pysock__crl *crl, const unsigned char *der, size_t len)
{
    pysock__der all, outer, tbs, inner_alg, outer_alg, bits;

    memset(crl, 0, sizeof *crl);
    all.p = crl->all.p = der;
    all.end = crl->all.end = der + len;
    if (pysock__der_expect(&all, 0x30, &outer) < 0 || all.p != all.end)
        return -1;
    crl->tbs.p = outer.p;
    if (pysock__der_expect(&outer, 0x30, &tbs) < 0)
        return -1;
    crl->tbs.end = outer.p;
    if (pysock__der_expect(&outer, 0x30, &outer_alg) < 0
        || pysock__der_expect(&outer, 0x03, &bits) < 0 || outer.p != outer.end
        || !pysock__der_len(&bits) || *bits.p++ != 0 || pysock__crl_body(crl, tbs, &inner_alg) < 0)
        return -1;
    crl->signature = bits;
    crl->algorithms_differ = !pysock__der_equal(&inner_alg, &outer_alg);
    crl->sig_alg = pysock__sig_alg_find(inner_alg);
    return 0;
}

/* 1 if the numbers are equal, however many octets encode them. */
static int pysock__serial_same(pysock__der a, pysock__der b)
{
    pysock__der *each[2];
    size_t i;

    each[0] = &a;
    each[1] = &b;
    for (i = 0; i < 2; i++)
        while (pysock__der_len(each[i]) > 1
               && each[i]->p[0] == (each[i]->p[1] & 0x80 ? 0xff : 0x00))
            each[i]->p++;
    return pysock__der_equal(&a, &b);
}

/* 1 if the CRL has an entry for this serial number. */
static int pysock__crl_lists(const pysock__crl *crl, const pysock__der *serial)
{
    pysock__der list = crl->revoked, entry, in;

    while (list.p < list.end)
        if (pysock__der_expect(&list, 0x30, &entry) < 0 || pysock__der_expect(&entry, 0x02, &in) < 0
            || pysock__serial_same(in, *serial))
            return 1;
    return 0;
}

#endif /* PYSOCK_NO_SSL */

/* ---- >>certificate-info ----
   Certificates in readable form: object identifiers, names, dates, extensions as text, in one block
   for pysock_ssl_cert. The verifier uses it only to name things in messages. No state. */

#ifndef PYSOCK_NO_SSL

/* OpenSSL's objects that occur in certificates. */
static const pysock_ssl_oid pysock__oids[] = {
    /* attributes of names */
    {13, "CN", "commonName", "2.5.4.3"},
    {100, "SN", "surname", "2.5.4.4"},
    {105, "serialNumber", "serialNumber", "2.5.4.5"},
    {14, "C", "countryName", "2.5.4.6"},
    {15, "L", "localityName", "2.5.4.7"},
    {16, "ST", "stateOrProvinceName", "2.5.4.8"},
    {660, "street", "streetAddress", "2.5.4.9"},
    {17, "O", "organizationName", "2.5.4.10"},
    {18, "OU", "organizationalUnitName", "2.5.4.11"},
    {106, "title", "title", "2.5.4.12"},
    {107, "description", "description", "2.5.4.13"},
    {859, "searchGuide", "searchGuide", "2.5.4.14"},
    {860, "businessCategory", "businessCategory", "2.5.4.15"},
    {861, "postalAddress", "postalAddress", "2.5.4.16"},
    {661, "postalCode", "postalCode", "2.5.4.17"},
    {862, "postOfficeBox", "postOfficeBox", "2.5.4.18"},
    {863, "physicalDeliveryOfficeName", "physicalDeliveryOfficeName", "2.5.4.19"},
    {864, "telephoneNumber", "telephoneNumber", "2.5.4.20"},
    {865, "telexNumber", "telexNumber", "2.5.4.21"},
    {866, "teletexTerminalIdentifier", "teletexTerminalIdentifier", "2.5.4.22"},
    {867, "facsimileTelephoneNumber", "facsimileTelephoneNumber", "2.5.4.23"},
    {868, "x121Address", "x121Address", "2.5.4.24"},
    {869, "internationaliSDNNumber", "internationaliSDNNumber", "2.5.4.25"},
    {870, "registeredAddress", "registeredAddress", "2.5.4.26"},
    {871, "destinationIndicator", "destinationIndicator", "2.5.4.27"},
    {872, "preferredDeliveryMethod", "preferredDeliveryMethod", "2.5.4.28"},
    {873, "presentationAddress", "presentationAddress", "2.5.4.29"},
    {874, "supportedApplicationContext", "supportedApplicationContext", "2.5.4.30"},
    {875, "member", "member", "2.5.4.31"},
    {876, "owner", "owner", "2.5.4.32"},
    {877, "roleOccupant", "roleOccupant", "2.5.4.33"},
    {878, "seeAlso", "seeAlso", "2.5.4.34"},
    {879, "userPassword", "userPassword", "2.5.4.35"},
    {880, "userCertificate", "userCertificate", "2.5.4.36"},
    {881, "cACertificate", "cACertificate", "2.5.4.37"},
    {882, "authorityRevocationList", "authorityRevocationList", "2.5.4.38"},
    {883, "certificateRevocationList", "certificateRevocationList", "2.5.4.39"},
    {884, "crossCertificatePair", "crossCertificatePair", "2.5.4.40"},
    {173, "name", "name", "2.5.4.41"},
    {99, "GN", "givenName", "2.5.4.42"},
    {101, "initials", "initials", "2.5.4.43"},
    {509, "generationQualifier", "generationQualifier", "2.5.4.44"},
    {503, "x500UniqueIdentifier", "x500UniqueIdentifier", "2.5.4.45"},
    {174, "dnQualifier", "dnQualifier", "2.5.4.46"},
    {885, "enhancedSearchGuide", "enhancedSearchGuide", "2.5.4.47"},
    {886, "protocolInformation", "protocolInformation", "2.5.4.48"},
    {887, "distinguishedName", "distinguishedName", "2.5.4.49"},
    {888, "uniqueMember", "uniqueMember", "2.5.4.50"},
    {889, "houseIdentifier", "houseIdentifier", "2.5.4.51"},
    {890, "supportedAlgorithms", "supportedAlgorithms", "2.5.4.52"},
    {891, "deltaRevocationList", "deltaRevocationList", "2.5.4.53"},
    {892, "dmdName", "dmdName", "2.5.4.54"},
    {510, "pseudonym", "pseudonym", "2.5.4.65"},
    {400, "role", "role", "2.5.4.72"},
    {1089, "organizationIdentifier", "organizationIdentifier", "2.5.4.97"},
    {1090, "c3", "countryCode3c", "2.5.4.98"},
    {1091, "n3", "countryCode3n", "2.5.4.99"},
    {1092, "dnsName", "dnsName", "2.5.4.100"},
    {458, "UID", "userId", "0.9.2342.19200300.100.1.1"},
    {460, "mail", "rfc822Mailbox", "0.9.2342.19200300.100.1.3"},
    {391, "DC", "domainComponent", "0.9.2342.19200300.100.1.25"},
    {484, "associatedDomain", "associatedDomain", "0.9.2342.19200300.100.1.37"},
    {488, "mobileTelephoneNumber", "mobileTelephoneNumber", "0.9.2342.19200300.100.1.41"},
    {490, "friendlyCountryName", "friendlyCountryName", "0.9.2342.19200300.100.1.43"},
    {102, "uid", "uniqueIdentifier", "0.9.2342.19200300.100.1.44"},
    {48, "emailAddress", "emailAddress", "1.2.840.113549.1.9.1"},
    {49, "unstructuredName", "unstructuredName", "1.2.840.113549.1.9.2"},
    {54, "challengePassword", "challengePassword", "1.2.840.113549.1.9.7"},
    {55, "unstructuredAddress", "unstructuredAddress", "1.2.840.113549.1.9.8"},
    {156, "friendlyName", "friendlyName", "1.2.840.113549.1.9.20"},
    {955, "jurisdictionL", "jurisdictionLocalityName", "1.3.6.1.4.1.311.60.2.1.1"},
    {956, "jurisdictionST", "jurisdictionStateOrProvinceName", "1.3.6.1.4.1.311.60.2.1.2"},
    {957, "jurisdictionC", "jurisdictionCountryName", "1.3.6.1.4.1.311.60.2.1.3"},
    {1004, "INN", "INN", "1.2.643.3.131.1.1"},
    {1005, "OGRN", "OGRN", "1.2.643.100.1"},
    {1006, "SNILS", "SNILS", "1.2.643.100.3"},
    {1226, "OGRNIP", "OGRNIP", "1.2.643.100.5"},
    /* extended key usages */
    {910, "anyExtendedKeyUsage", "Any Extended Key Usage", "2.5.29.37.0"},
    {129, "serverAuth", "TLS Web Server Authentication", "1.3.6.1.5.5.7.3.1"},
    {130, "clientAuth", "TLS Web Client Authentication", "1.3.6.1.5.5.7.3.2"},
    {131, "codeSigning", "Code Signing", "1.3.6.1.5.5.7.3.3"},
    {132, "emailProtection", "E-mail Protection", "1.3.6.1.5.5.7.3.4"},
    {294, "ipsecEndSystem", "IPSec End System", "1.3.6.1.5.5.7.3.5"},
    {295, "ipsecTunnel", "IPSec Tunnel", "1.3.6.1.5.5.7.3.6"},
    {296, "ipsecUser", "IPSec User", "1.3.6.1.5.5.7.3.7"},
    {133, "timeStamping", "Time Stamping", "1.3.6.1.5.5.7.3.8"},
    {180, "OCSPSigning", "OCSP Signing", "1.3.6.1.5.5.7.3.9"},
    {1022, "ipsecIKE", "ipsec Internet Key Exchange", "1.3.6.1.5.5.7.3.17"},
    {1025, "secureShellClient", "SSH Client", "1.3.6.1.5.5.7.3.21"},
    {1026, "secureShellServer", "SSH Server", "1.3.6.1.5.5.7.3.22"},
    {134, "msCodeInd", "Microsoft Individual Code Signing", "1.3.6.1.4.1.311.2.1.21"},
    {135, "msCodeCom", "Microsoft Commercial Code Signing", "1.3.6.1.4.1.311.2.1.22"},
    {137, "msSGC", "Microsoft Server Gated Crypto", "1.3.6.1.4.1.311.10.3.3"},
    {138, "msEFS", "Microsoft Encrypted File System", "1.3.6.1.4.1.311.10.3.4"},
    {648, "msSmartcardLogin", "Microsoft Smartcard Login", "1.3.6.1.4.1.311.20.2.2"},
    {139, "nsSGC", "Netscape Server Gated Crypto", "2.16.840.1.113730.4.1"},
    {1032, "pkInitClientAuth", "PKINIT Client Auth", "1.3.6.1.5.2.3.4"},
    {1033, "pkInitKDC", "Signing KDC Response", "1.3.6.1.5.2.3.5"},
    /* extensions, and their contents */
    {769, "subjectDirectoryAttributes", "X509v3 Subject Directory Attributes", "2.5.29.9"},
    {82, "subjectKeyIdentifier", "X509v3 Subject Key Identifier", "2.5.29.14"},
    {83, "keyUsage", "X509v3 Key Usage", "2.5.29.15"},
    {84, "privateKeyUsagePeriod", "X509v3 Private Key Usage Period", "2.5.29.16"},
    {85, "subjectAltName", "X509v3 Subject Alternative Name", "2.5.29.17"},
    {86, "issuerAltName", "X509v3 Issuer Alternative Name", "2.5.29.18"},
    {87, "basicConstraints", "X509v3 Basic Constraints", "2.5.29.19"},
    {88, "crlNumber", "X509v3 CRL Number", "2.5.29.20"},
    {141, "CRLReason", "X509v3 CRL Reason Code", "2.5.29.21"},
    {430, "holdInstructionCode", "Hold Instruction Code", "2.5.29.23"},
    {142, "invalidityDate", "Invalidity Date", "2.5.29.24"},
    {140, "deltaCRL", "X509v3 Delta CRL Indicator", "2.5.29.27"},
    {770, "issuingDistributionPoint", "X509v3 Issuing Distribution Point", "2.5.29.28"},
    {771, "certificateIssuer", "X509v3 Certificate Issuer", "2.5.29.29"},
    {666, "nameConstraints", "X509v3 Name Constraints", "2.5.29.30"},
    {103, "crlDistributionPoints", "X509v3 CRL Distribution Points", "2.5.29.31"},
    {89, "certificatePolicies", "X509v3 Certificate Policies", "2.5.29.32"},
    {747, "policyMappings", "X509v3 Policy Mappings", "2.5.29.33"},
    {90, "authorityKeyIdentifier", "X509v3 Authority Key Identifier", "2.5.29.35"},
    {401, "policyConstraints", "X509v3 Policy Constraints", "2.5.29.36"},
    {126, "extendedKeyUsage", "X509v3 Extended Key Usage", "2.5.29.37"},
    {857, "freshestCRL", "X509v3 Freshest CRL", "2.5.29.46"},
    {748, "inhibitAnyPolicy", "X509v3 Inhibit Any Policy", "2.5.29.54"},
    {402, "targetInformation", "X509v3 AC Targeting", "2.5.29.55"},
    {403, "noRevAvail", "X509v3 No Revocation Available", "2.5.29.56"},
    {177, "authorityInfoAccess", "Authority Information Access", "1.3.6.1.5.5.7.1.1"},
    {286, "qcStatements", "qcStatements", "1.3.6.1.5.5.7.1.3"},
    {398, "subjectInfoAccess", "Subject Information Access", "1.3.6.1.5.5.7.1.11"},
    {663, "proxyCertInfo", "Proxy Certificate Information", "1.3.6.1.5.5.7.1.14"},
    {1020, "tlsfeature", "TLS Feature", "1.3.6.1.5.5.7.1.24"},
    {951, "ct_precert_scts", "CT Precertificate SCTs", "1.3.6.1.4.1.11129.2.4.2"},
    {952, "ct_precert_poison", "CT Precertificate Poison", "1.3.6.1.4.1.11129.2.4.3"},
    {71, "nsCertType", "Netscape Cert Type", "2.16.840.1.113730.1.1"},
    {78, "nsComment", "Netscape Comment", "2.16.840.1.113730.1.13"},
    {746, "anyPolicy", "X509v3 Any Policy", "2.5.29.32.0"},
    {164, "id-qt-cps", "Policy Qualifier CPS", "1.3.6.1.5.5.7.2.1"},
    {165, "id-qt-unotice", "Policy Qualifier User Notice", "1.3.6.1.5.5.7.2.2"},
    {178, "OCSP", "OCSP", "1.3.6.1.5.5.7.48.1"},
    {369, "noCheck", "OCSP No Check", "1.3.6.1.5.5.7.48.1.5"},
    {179, "caIssuers", "CA Issuers", "1.3.6.1.5.5.7.48.2"},
    {363, "ad_timestamping", "AD Time Stamping", "1.3.6.1.5.5.7.48.3"},
    {785, "caRepository", "CA Repository", "1.3.6.1.5.5.7.48.5"},
    {649, "msUPN", "Microsoft User Principal Name", "1.3.6.1.4.1.311.20.2.3"},
    {1209, "id-on-xmppAddr", "XmppAddr", "1.3.6.1.5.5.7.8.5"},
    {1210, "id-on-dnsSRV", "SRVName", "1.3.6.1.5.5.7.8.7"},
    {1211, "id-on-NAIRealm", "NAIRealm", "1.3.6.1.5.5.7.8.8"},
    {1208, "id-on-SmtpUTF8Mailbox", "Smtp UTF8 Mailbox", "1.3.6.1.5.5.7.8.9"},
    /* keys, and signatures by them */
    {6, "rsaEncryption", "rsaEncryption", "1.2.840.113549.1.1.1"},
    {7, "RSA-MD2", "md2WithRSAEncryption", "1.2.840.113549.1.1.2"},
    {396, "RSA-MD4", "md4WithRSAEncryption", "1.2.840.113549.1.1.3"},
    {8, "RSA-MD5", "md5WithRSAEncryption", "1.2.840.113549.1.1.4"},
    {65, "RSA-SHA1", "sha1WithRSAEncryption", "1.2.840.113549.1.1.5"},
    {644, "rsaOAEPEncryptionSET", "rsaOAEPEncryptionSET", "1.2.840.113549.1.1.6"},
    {919, "RSAES-OAEP", "rsaesOaep", "1.2.840.113549.1.1.7"},
    {911, "MGF1", "mgf1", "1.2.840.113549.1.1.8"},
    {935, "PSPECIFIED", "pSpecified", "1.2.840.113549.1.1.9"},
    {912, "RSASSA-PSS", "rsassaPss", "1.2.840.113549.1.1.10"},
    {668, "RSA-SHA256", "sha256WithRSAEncryption", "1.2.840.113549.1.1.11"},
    {669, "RSA-SHA384", "sha384WithRSAEncryption", "1.2.840.113549.1.1.12"},
    {670, "RSA-SHA512", "sha512WithRSAEncryption", "1.2.840.113549.1.1.13"},
    {671, "RSA-SHA224", "sha224WithRSAEncryption", "1.2.840.113549.1.1.14"},
    {1145, "RSA-SHA512/224", "sha512-224WithRSAEncryption", "1.2.840.113549.1.1.15"},
    {1146, "RSA-SHA512/256", "sha512-256WithRSAEncryption", "1.2.840.113549.1.1.16"},
    {408, "id-ecPublicKey", "id-ecPublicKey", "1.2.840.10045.2.1"},
    {416, "ecdsa-with-SHA1", "ecdsa-with-SHA1", "1.2.840.10045.4.1"},
    {793, "ecdsa-with-SHA224", "ecdsa-with-SHA224", "1.2.840.10045.4.3.1"},
    {794, "ecdsa-with-SHA256", "ecdsa-with-SHA256", "1.2.840.10045.4.3.2"},
    {795, "ecdsa-with-SHA384", "ecdsa-with-SHA384", "1.2.840.10045.4.3.3"},
    {796, "ecdsa-with-SHA512", "ecdsa-with-SHA512", "1.2.840.10045.4.3.4"},
    {116, "DSA", "dsaEncryption", "1.2.840.10040.4.1"},
    {113, "DSA-SHA1", "dsaWithSHA1", "1.2.840.10040.4.3"},
    {802, "dsa_with_SHA224", "dsa_with_SHA224", "2.16.840.1.101.3.4.3.1"},
    {803, "dsa_with_SHA256", "dsa_with_SHA256", "2.16.840.1.101.3.4.3.2"},
    {1034, "X25519", "X25519", "1.3.101.110"},
    {1035, "X448", "X448", "1.3.101.111"},
    {1087, "ED25519", "ED25519", "1.3.101.112"},
    {1088, "ED448", "ED448", "1.3.101.113"},
    /* curves */
    {409, "prime192v1", "prime192v1", "1.2.840.10045.3.1.1"},
    {415, "prime256v1", "prime256v1", "1.2.840.10045.3.1.7"},
    {714, "secp256k1", "secp256k1", "1.3.132.0.10"},
    {713, "secp224r1", "secp224r1", "1.3.132.0.33"},
    {715, "secp384r1", "secp384r1", "1.3.132.0.34"},
    {716, "secp521r1", "secp521r1", "1.3.132.0.35"},
    {927, "brainpoolP256r1", "brainpoolP256r1", "1.3.36.3.3.2.8.1.1.7"},
    {931, "brainpoolP384r1", "brainpoolP384r1", "1.3.36.3.3.2.8.1.1.11"},
    {933, "brainpoolP512r1", "brainpoolP512r1", "1.3.36.3.3.2.8.1.1.13"},
    /* hashes */
    {4, "MD5", "md5", "1.2.840.113549.2.5"},
    {64, "SHA1", "sha1", "1.3.14.3.2.26"},
    {672, "SHA256", "sha256", "2.16.840.1.101.3.4.2.1"},
    {673, "SHA384", "sha384", "2.16.840.1.101.3.4.2.2"},
    {674, "SHA512", "sha512", "2.16.840.1.101.3.4.2.3"},
    {675, "SHA224", "sha224", "2.16.840.1.101.3.4.2.4"},
};

/* A pass of a writer into one block of memory; with size 0 it only measures. */
typedef struct pysock__writer {
    char *base;
    size_t used, size;
} pysock__writer;

static void pysock__writer_put(pysock__writer *w, const void *data, size_t n)
{
    if (n && w->used < w->size && n <= w->size - w->used)
        memcpy(w->base + w->used, data, n);
    w->used += n;
}

static void pysock__writer_char(pysock__writer *w, unsigned c)
{
    char byte = (char)c;

    pysock__writer_put(w, &byte, 1);
}

/* Where the next text will begin; NULL while measuring. */
static const char *pysock__writer_here(const pysock__writer *w)
{
    return w->size ? w->base + w->used : NULL;
}

/* Room for count elements; NULL while measuring, and for none. */
static void *pysock__writer_array(pysock__writer *w, size_t count, size_t esize)
{
    void *array;

    if (!count)
        return NULL;
    w->used = (w->used + sizeof(void *) - 1) / sizeof(void *) * sizeof(void *);
    array = w->size ? w->base + w->used : NULL;
    w->used += count * esize;
    return array;
}

/* A number of any size in decimal digits, the lowest first: OIDs made of UUIDs have 128 bits. */
typedef struct pysock__arc {
    unsigned char digit[64];
    size_t count;
} pysock__arc;

/* Appends seven bits. -1: longer than OIDs are. */
static int pysock__arc_push(pysock__arc *arc, unsigned bits)
{
    size_t i;

    for (i = 0; i < arc->count || bits; i++) {
        if (i == sizeof arc->digit)
            return -1;
        if (i == arc->count)
            arc->digit[arc->count++] = 0;
        bits += arc->digit[i] * 128u;
        arc->digit[i] = (unsigned char)(bits % 10);
        bits /= 10;
    }
    return 0;
}

/* Subtracts less, which is not more than the number. */
static void pysock__arc_less(pysock__arc *arc, unsigned less)
{
    size_t i;

    for (i = 0; less; i++) {
        unsigned digit = less % 10;
        less = less / 10 + (arc->digit[i] < digit);
        arc->digit[i] = (unsigned char)((arc->digit[i] + 10u - digit) % 10);
    }
    while (arc->count && !arc->digit[arc->count - 1])
        arc->count--;
}

/* Writes an OBJECT IDENTIFIER's contents in digits. -1 if malformed. */
static int pysock__writer_digits(pysock__writer *w, pysock__der oid)
{
    pysock__arc arc;
    unsigned root;
    size_t i;
    int first = 1;

    if (oid.p == oid.end || oid.end[-1] & 0x80)
        return -1;
    for (; oid.p < oid.end; first = 0) {
        arc.count = 0;
        if (*oid.p == 0x80)
            return -1;
        do {
            if (pysock__arc_push(&arc, *oid.p & 0x7fu) < 0)
                return -1;
        } while (*oid.p++ & 0x80);
        if (first) { /* X.690, 8.19.4: the first two arcs in one */
            root = arc.count > 2 ? 2u : arc.count < 2 ? 0u : arc.digit[1] / 4u;
            pysock__arc_less(&arc, root * 40);
            pysock__writer_char(w, '0' + root);
        }
        pysock__writer_char(w, '.');
        if (!arc.count)
            pysock__writer_char(w, '0');
        for (i = arc.count; i; i--)
            pysock__writer_char(w, '0' + (unsigned)arc.digit[i - 1]);
    }
    return 0;
}

/* The row for an OBJECT IDENTIFIER's contents; NULL if the table has none. */
static const pysock_ssl_oid *pysock__oid_find(pysock__der oid)
{
    char digits[64];
    pysock__writer w = {digits, 0, sizeof digits};
    size_t i;

    if (pysock__writer_digits(&w, oid) < 0 || w.used >= sizeof digits)
        return NULL;
    digits[w.used] = 0;
    for (i = 0; i < PYSOCK__COUNT(pysock__oids); i++)
        if (strcmp(digits, pysock__oids[i].oid) == 0)
            return &pysock__oids[i];
    return NULL;
}

/* An OBJECT IDENTIFIER's short name, or its digits. */
static const char *pysock__oid_words(pysock__der oid, char *text, size_t size)
{
    pysock__writer w;
    const pysock_ssl_oid *known = pysock__oid_find(oid);

    if (known)
        return known->shortname;
    w.base = text;
    w.used = 0;
    w.size = size;
    if (pysock__writer_digits(&w, oid) < 0 || w.used >= size)
        return "(invalid OID)";
    text[w.used] = 0;
    return text;
}

/* A key algorithm other than RSA and EC, in words; NULL if it is unknown. */
static const char *pysock__key_algorithm(const pysock__der *oid)
{
    static const struct {
        const char *oid;
        size_t len;
        const char *name;
    } known[] = {
        {PYSOCK__OID_RSA "\x0a", 9, "an RSA-PSS key"},
        {"\x2b\x65\x6e", 3, "an X25519 key"},
        {"\x2b\x65\x6f", 3, "an X448 key"},
        {"\x2b\x65\x70", 3, "an Ed25519 key"},
        {"\x2b\x65\x71", 3, "an Ed448 key"},
        {"\x2a\x86\x48\xce\x38\x04\x01", 7, "a DSA key"},
        {"\x2a\x86\x48\x86\xf7\x0d\x01\x03\x01", 9, "a Diffie-Hellman key"},
    };
    size_t i;

    for (i = 0; i < PYSOCK__COUNT(known); i++)
        if (pysock__der_is(oid, known[i].oid, known[i].len))
            return known[i].name;
    return NULL;
}

/* What kind of unsupported key a certificate has. */
static const char *pysock__cert_key_kind(const pysock__cert *cert, char *text, size_t size)
{
    const char *known = pysock__key_algorithm(&cert->key_oid);
    char digits[48];

    if (known)
        return known;
    if (cert->rsa_bits > PYSOCK__RSA_MAX * 8)
        snprintf(text, size, "an RSA key of %u bits (more than 4,096)", (unsigned)cert->rsa_bits);
    else if (cert->rsa_bits)
        snprintf(text, size, "an RSA key with an exponent of more than 8 bytes");
    else if (cert->compressed)
        snprintf(text, size, "an EC key whose point is compressed");
    else if (cert->curve_oid.p)
        snprintf(text, size, "an EC key on the curve %s",
                 pysock__oid_words(cert->curve_oid, digits, sizeof digits));
    else if (pysock__der_is(&cert->key_oid, "\x2a\x86\x48\xce\x3d\x02\x01", 7))
        snprintf(text, size, "an EC key with explicit curve parameters");
    else
        snprintf(text, size, "a key for the algorithm %s",
                 pysock__oid_words(cert->key_oid, digits, sizeof digits));
    return text;
}

/* The same for its signature. */
static const char *pysock__cert_signature_kind(const pysock__cert *cert, char *text, size_t size)
{
    static const struct {
        const char *oid;
        size_t len;
        const char *name;
    } known[] = {
        {PYSOCK__OID_RSA "\x0a", 9,
         "an RSASSA-PSS signature whose hash, mask or salt is not supported"},
        {"\x2b\x65\x70", 3, "an Ed25519 signature"},
        {"\x2b\x65\x71", 3, "an Ed448 signature"},
    };
    char digits[48];
    size_t i;

    for (i = 0; i < PYSOCK__COUNT(known); i++)
        if (pysock__der_is(&cert->sig_oid, known[i].oid, known[i].len))
            return known[i].name;
    snprintf(text, size, "a signature by %s",
             cert->sig_oid.p ? pysock__oid_words(cert->sig_oid, digits, sizeof digits)
                             : "an unknown algorithm");
    return text;
}

/* OpenSSL's long name of the object, or its digits. */
static int pysock__writer_oid(pysock__writer *w, pysock__der oid, const char **text)
{
    const pysock_ssl_oid *known = pysock__oid_find(oid);

    *text = known ? known->longname : pysock__writer_here(w);
    if (known)
        return 0;
    if (pysock__writer_digits(w, oid) < 0)
        return -1;
    pysock__writer_char(w, 0);
    return 0;
}

/* The next character of UTF-8 (RFC 3629); -1 if malformed. */
static long pysock__utf8_next(pysock__der *s)
{
    static const long least[4] = {0, 0x80, 0x800, 0x10000};
    int more = *s->p < 0x80 ? 0 : *s->p < 0xc0 ? -1 : *s->p < 0xe0 ? 1 : *s->p < 0xf0 ? 2 : 3, i;
    long c;

    if (more < 0 || *s->p > 0xf4 || s->end - s->p <= more)
        return -1;
    c = more ? *s->p & (0x3f >> more) : *s->p;
    for (s->p++, i = 0; i < more; i++, s->p++) {
        if ((*s->p & 0xc0) != 0x80)
            return -1;
        c = c << 6 | (*s->p & 0x3f);
    }
    return c < least[more] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? -1 : c;
}

static int pysock__utf8_valid(pysock__der s)
{
    while (s.p < s.end)
        if (pysock__utf8_next(&s) < 0)
            return 0;
    return 1;
}

/* The next character of width bytes; -1 if it is not one. */
static long pysock__wide_next(pysock__der *s, int width)
{
    long c = 0;
    int i;

    if (s->end - s->p < width)
        return -1;
    for (i = 0; i < width; i++, s->p++) {
        if (c > 0x10ffff)
            return -1;
        c = c << 8 | *s->p;
    }
    return c > 0x10ffff ? -1 : c;
}

/* BMPString, with surrogates as in UTF-16. */
static long pysock__bmp_next(pysock__der *s)
{
    long high = pysock__wide_next(s, 2), low;

    if (high < 0xd800 || high > 0xdbff)
        return high;
    low = pysock__wide_next(s, 2);
    return low < 0xdc00 || low > 0xdfff ? -1 : 0x10000 + ((high - 0xd800) << 10) + low - 0xdc00;
}

static int pysock__writer_utf8(pysock__writer *w, long c)
{
    unsigned u = (unsigned)c;

    if (c < 0 || (c >= 0xd800 && c < 0xe000))
        return -1;
    if (c >= 0x10000)
        pysock__writer_char(w, 0xf0 | u >> 18);
    else if (c >= 0x800)
        pysock__writer_char(w, 0xe0 | u >> 12);
    else if (c >= 0x80)
        pysock__writer_char(w, 0xc0 | u >> 6);
    else
        pysock__writer_char(w, u);
    if (c >= 0x10000)
        pysock__writer_char(w, 0x80 | (u >> 12 & 0x3f));
    if (c >= 0x800)
        pysock__writer_char(w, 0x80 | (u >> 6 & 0x3f));
    if (c >= 0x80)
        pysock__writer_char(w, 0x80 | (u & 0x3f));
    return 0;
}

static void pysock__writer_hex(pysock__writer *w, pysock__der bytes)
{
    static const char hex[] = "0123456789ABCDEF";

    for (; bytes.p < bytes.end; bytes.p++) {
        pysock__writer_char(w, (unsigned char)hex[*bytes.p >> 4]);
        pysock__writer_char(w, (unsigned char)hex[*bytes.p & 15]);
    }
}

/* The next element as text. If it is not a string, "#" and the element in hexadecimal digits (RFC
   4514, 2.4), except a BIT STRING, which is its bytes as in Python. -1 if malformed. */
static int pysock__writer_string(pysock__writer *w, pysock__der *d)
{
    pysock__der all = *d, in;
    int tag = pysock__der_next(d, &in), r = 0;

    all.end = d->p;
    switch (tag) {
    case -1: return -1;
    case 0x03:
        if (in.p < in.end)
            in.p++;
        pysock__writer_put(w, in.p, pysock__der_len(&in));
        return 0;
    case 0x0c:
        while (in.p < in.end && r == 0)
            r = pysock__writer_utf8(w, pysock__utf8_next(&in));
        return r;
    case 0x12:
    case 0x13:
    case 0x14:
    case 0x16:
    case 0x17:
    case 0x18:
    case 0x1a: /* Latin-1 */
        while (in.p < in.end && r == 0)
            r = pysock__writer_utf8(w, pysock__wide_next(&in, 1));
        return r;
    case 0x1c:
        while (in.p < in.end && r == 0)
            r = pysock__writer_utf8(w, pysock__wide_next(&in, 4));
        return r;
    case 0x1e:
        while (in.p < in.end && r == 0)
            r = pysock__writer_utf8(w, pysock__bmp_next(&in));
        return r;
    default:
        pysock__writer_char(w, '#');
        pysock__writer_hex(w, all);
        return 0;
    }
}

/* The next AttributeTypeAndValue of a set. */
static int pysock__writer_attribute(pysock__writer *w, pysock__der *set, pysock_ssl_attribute *out)
{
    pysock__der atv, oid;
    size_t start;

    if (pysock__der_expect(set, 0x30, &atv) < 0 || pysock__der_expect(&atv, 0x06, &oid) < 0
        || pysock__writer_oid(w, oid, &out->name) < 0)
        return -1;
    start = w->used;
    out->value = pysock__writer_here(w);
    if (pysock__writer_string(w, &atv) < 0 || atv.p != atv.end)
        return -1;
    out->value_size = w->used - start;
    pysock__writer_char(w, 0);
    return 0;
}

/* A Name's contents. -1 if malformed. */
static int pysock__writer_name(pysock__writer *w, pysock__der name,
                               const pysock_ssl_attribute **out, size_t *out_count)
{
    pysock_ssl_attribute *rows, row;
    pysock__der sets = name, set, atv;
    size_t count = 0, i = 0;

    while (sets.p < sets.end) {
        if (pysock__der_expect(&sets, 0x31, &set) < 0)
            return -1;
        for (; set.p < set.end; count++)
            if (pysock__der_next(&set, &atv) < 0)
                return -1;
    }
    rows = (pysock_ssl_attribute *)pysock__writer_array(w, count, sizeof *rows);
    *out = rows;
    *out_count = count;
    for (row.rdn = 0; name.p < name.end; row.rdn++) {
        pysock__der_next(&name, &set);
        while (set.p < set.end) {
            if (pysock__writer_attribute(w, &set, &row) < 0)
                return -1;
            if (rows)
                rows[i++] = row;
        }
    }
    return 0;
}

/* An IP address as Python's dictionary has it: IPv6 with all its groups. */
static void pysock__writer_ip(pysock__writer *w, const pysock__der *ip)
{
    const unsigned char *p = ip->p;
    char text[64];
    int n = 0, i;

    if (pysock__der_len(ip) == 4)
        n = snprintf(text, sizeof text, "%d.%d.%d.%d", p[0], p[1], p[2], p[3]);
    else if (pysock__der_len(ip) == 16)
        for (i = 0; i < 16; i += 2)
            n += snprintf(text + n, sizeof text - (size_t)n, "%s%X", i ? ":" : "",
                          (unsigned)p[i] << 8 | p[i + 1]);
    else
        n = snprintf(text, sizeof text, "<invalid>");
    pysock__writer_put(w, text, (size_t)n);
}

/* An otherName's contents: kind and value, if OpenSSL knows the kind. -1 if malformed. */
static int pysock__writer_other_name(pysock__writer *w, pysock__der in)
{
    static const struct {
        int nid, tag;
        const char *kind;
    } known[] = {
        {649, 0x0c, "UPN:"},      {1208, 0x0c, "SmtpUTF8Mailbox:"}, {1209, 0x0c, "XmppAddr:"},
        {1210, 0x16, "SRVName:"}, {1211, 0x0c, "NAIRealm:"},
    };
    const pysock_ssl_oid *row;
    pysock__der oid, any, value;
    size_t i;
    int tag;

    if (pysock__der_expect(&in, 0x06, &oid) < 0 || pysock__der_expect(&in, 0xa0, &any) < 0
        || in.p != in.end || (tag = pysock__der_next(&any, &value)) < 0 || any.p != any.end)
        return -1;
    row = pysock__oid_find(oid);
    for (i = 0; row && i < PYSOCK__COUNT(known); i++) {
        if (known[i].nid != row->nid || known[i].tag != tag || !pysock__utf8_valid(value))
            continue;
        pysock__writer_put(w, known[i].kind, strlen(known[i].kind));
        pysock__writer_put(w, value.p, pysock__der_len(&value));
        return 0;
    }
    pysock__writer_put(w, "<unsupported>", 13);
    return 0;
}

/* A GeneralName in text; out has its type. -1 if malformed. */
static int pysock__writer_general_name(pysock__writer *w, int tag, pysock__der in,
                                       pysock_ssl_alt_name *out)
{
    pysock__der name;
    const char *longname;

    switch (tag) {
    case PYSOCK__GN_EMAIL:
    case PYSOCK__GN_DNS:
    case PYSOCK__GN_URI:
        out->type = tag == PYSOCK__GN_DNS ? "DNS" : tag == PYSOCK__GN_URI ? "URI" : "email";
        pysock__writer_put(w, in.p, pysock__der_len(&in));
        return pysock__utf8_valid(in) ? 0 : -1;
    case PYSOCK__GN_IP:
        out->type = "IP Address";
        pysock__writer_ip(w, &in);
        return 0;
    case PYSOCK__GN_DIRECTORY:
        out->type = "DirName";
        if (pysock__der_expect(&in, 0x30, &name) < 0 || in.p != in.end)
            return -1;
        return pysock__writer_name(w, name, &out->dirname, &out->dirname_count);
    case PYSOCK__GN_ID:
        out->type = "Registered ID";
        longname = pysock__oid_find(in) ? pysock__oid_find(in)->longname : NULL;
        if (!longname)
            return pysock__writer_digits(w, in);
        pysock__writer_put(w, longname, strlen(longname));
        return 0;
    case PYSOCK__GN_OTHER: out->type = "othername"; return pysock__writer_other_name(w, in);
    case PYSOCK__GN_X400:
    case PYSOCK__GN_EDI:
        out->type = tag == PYSOCK__GN_X400 ? "X400Name" : "EdiPartyName";
        pysock__writer_put(w, "<unsupported>", 13);
        return 0;
    default: return -1;
    }
}

static int pysock__writer_alt_name(pysock__writer *w, pysock__der *list, pysock_ssl_alt_name *out)
{
    pysock__der in;
    size_t start = w->used;
    int tag = pysock__der_next(list, &in);

    memset(out, 0, sizeof *out);
    out->value = pysock__writer_here(w);
    if (pysock__writer_general_name(w, tag, in, out) < 0)
        return -1;
    if (tag == PYSOCK__GN_DIRECTORY)
        out->value = "";
    else
        out->value_size = w->used - start;
    pysock__writer_char(w, 0);
    return 0;
}

static int pysock__writer_alt_names(pysock__writer *w, pysock__der list, pysock_ssl_cert *out)
{
    pysock_ssl_alt_name *rows, row;
    pysock__der all = list, in;
    size_t count, i;

    for (count = 0; all.p < all.end; count++)
        if (pysock__der_next(&all, &in) < 0)
            return -1;
    rows = (pysock_ssl_alt_name *)pysock__writer_array(w, count, sizeof *rows);
    out->subject_alt_names = rows;
    out->subject_alt_name_count = count;
    for (i = 0; i < count; i++) {
        if (pysock__writer_alt_name(w, &list, &row) < 0)
            return -1;
        if (rows)
            rows[i] = row;
    }
    return 0;
}

/* The value of the extension with this OID, or nothing. The certificate has been parsed. */
static pysock__der pysock__cert_extension(const pysock__cert *cert, const char *oid, size_t oid_len)
{
    pysock__der tbs = {cert->subject_tlv.end, cert->tbs.end}, in, exts, ext, id;
    pysock__der value = {NULL, NULL};

    while (tbs.p < tbs.end) {
        if (pysock__der_next(&tbs, &in) != 0xa3 || pysock__der_expect(&in, 0x30, &exts) < 0)
            continue;
        while (exts.p < exts.end) {
            if (pysock__der_expect(&exts, 0x30, &ext) < 0
                || pysock__der_expect(&ext, 0x06, &id) < 0)
                return value;
            if (pysock__der_is(&id, oid, oid_len))
                while (ext.p < ext.end) /* the last element: "critical" may precede it */
                    if (pysock__der_next(&ext, &value) < 0)
                        return value;
        }
    }
    return value;
}

/* The URIs of an extension: of authorityInfoAccess those of one method, of crlDistributionPoints
   (method 0) those of full names. */
typedef struct pysock__uris {
    pysock__der list, names;
    int method;
} pysock__uris;

/* The names of the next entry; none if its method is another. -1 if malformed. */
static int pysock__uris_entry(pysock__uris *u)
{
    pysock__der entry, oid, in, names;
    int tag;

    memset(&u->names, 0, sizeof u->names);
    if (pysock__der_expect(&u->list, 0x30, &entry) < 0)
        return -1;
    if (u->method) {
        if (pysock__der_expect(&entry, 0x06, &oid) < 0)
            return -1;
        if (pysock__der_len(&oid) == 8 && memcmp(oid.p, "\x2b\x06\x01\x05\x05\x07\x30", 7) == 0
            && oid.p[7] == u->method)
            u->names = entry;
        return pysock__der_next(&entry, &in) < 0 || entry.p != entry.end ? -1 : 0;
    }
    if (entry.p == entry.end || *entry.p != 0xa0)
        return 0;
    if (pysock__der_next(&entry, &in) < 0 || (tag = pysock__der_next(&in, &names)) < 0)
        return -1;
    if (tag == 0xa0)
        u->names = names;
    return 0;
}

/* 1: *uri is the next one; 0: there is none; -1: malformed. URIs that are not text are skipped. */
static int pysock__uris_next(pysock__uris *u, pysock__der *uri)
{
    int tag;

    for (;;) {
        while (u->names.p < u->names.end) {
            tag = pysock__der_next(&u->names, uri);
            if (tag < 0)
                return -1;
            if (tag == PYSOCK__GN_URI && pysock__utf8_valid(*uri)
                && !memchr(uri->p, 0, pysock__der_len(uri)))
                return 1;
        }
        if (u->list.p == u->list.end)
            return 0;
        if (pysock__uris_entry(u) < 0)
            return -1;
    }
}

/* As in Python, a malformed extension yields nothing. */
static void pysock__writer_uris(pysock__writer *w, pysock__der value, int method,
                                const char *const **out, size_t *out_count)
{
    pysock__uris all, u;
    pysock__der uri;
    const char **rows;
    size_t count = 0, i;
    int r;

    memset(&all, 0, sizeof all);
    all.method = method;
    if (value.p == value.end || pysock__der_expect(&value, 0x30, &all.list) < 0)
        return;
    for (u = all; (r = pysock__uris_next(&u, &uri)) > 0; count++)
        continue;
    if (r < 0 || !count)
        return;
    rows = (const char **)pysock__writer_array(w, count, sizeof *rows);
    *out = (const char *const *)rows;
    *out_count = count;
    for (u = all, i = 0; i < count && pysock__uris_next(&u, &uri) > 0; i++) {
        if (rows)
            rows[i] = pysock__writer_here(w);
        pysock__writer_put(w, uri.p, pysock__der_len(&uri));
        pysock__writer_char(w, 0);
    }
}

/* An INTEGER as an even number of hexadecimal digits, after a sign if it is negative. -1 if
   malformed. */
static int pysock__writer_serial(pysock__writer *w, pysock__der in)
{
    size_t n = pysock__der_len(&in), last = n, i;
    int negative = n && in.p[0] & 0x80, begun = 0;
    unsigned char byte;
    pysock__der one;

    if (!n || (n > 1 && in.p[0] == (negative ? 0xff : 0) && !(in.p[1] & 0x80) == !negative))
        return -1;
    while (last && !in.p[last - 1])
        last--;
    if (negative)
        pysock__writer_char(w, '-');
    one.p = &byte;
    one.end = one.p + 1;
    for (i = 0; i < n; i++) { /* the two's complement, from its highest byte on */
        byte = in.p[i];
        if (negative && i < last)
            byte = (unsigned char)(i + 1 < last ? ~byte : -byte);
        begun |= byte || i + 1 == n;
        if (begun)
            pysock__writer_hex(w, one);
    }
    pysock__writer_char(w, 0);
    return 0;
}

static const char pysock__months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

/* A date as OpenSSL prints it. */
static void pysock__format_time(int64_t seconds, char *out, size_t size)
{
    int64_t days = seconds / 86400 - (seconds % 86400 < 0), year = 1969 + days / 366, month = 1;
    int second = (int)(seconds - days * 86400);

    if (days < 0)
        year = 1969 + days / 365 - 1;
    while (pysock__days_from_civil(year + 1, 1, 1) <= days)
        year++;
    while (month < 12 && pysock__days_from_civil(year, month + 1, 1) <= days)
        month++;
    snprintf(out, size, "%.3s %2d %02d:%02d:%02d %d GMT", pysock__months + (month - 1) * 3,
             (int)(days - pysock__days_from_civil(year, month, 1)) + 1, second / 3600,
             second / 60 % 60, second % 60, (int)year);
}

static const char *pysock__writer_time(pysock__writer *w, int64_t seconds)
{
    const char *text = pysock__writer_here(w);
    char out[64];

    pysock__format_time(seconds, out, sizeof out);
    pysock__writer_put(w, out, strlen(out) + 1);
    return text;
}

static int pysock__curve_bits(pysock__der oid)
{
    static const short bits[][2] = {{409, 192}, {415, 256}, {713, 224}, {714, 256}, {715, 384},
                                    {716, 521}, {927, 256}, {931, 384}, {933, 512}};
    const pysock_ssl_oid *curve = pysock__oid_find(oid);
    size_t i;

    for (i = 0; curve && i < PYSOCK__COUNT(bits); i++)
        if (bits[i][0] == curve->nid)
            return bits[i][1];
    return 0;
}

/* The kind of key, also of those that the verifier does not support. */
static void pysock__cert_describe_key(const pysock__cert *cert, pysock_ssl_cert *out)
{
    pysock__der tbs = {cert->subject_tlv.end, cert->tbs.end}, spki, alg, oid, bits, seq, n;
    unsigned char top;

    if (pysock__der_expect(&tbs, 0x30, &spki) < 0 || pysock__der_expect(&spki, 0x30, &alg) < 0
        || pysock__der_expect(&alg, 0x06, &oid) < 0 || pysock__der_expect(&spki, 0x03, &bits) < 0)
        return;
    bits.p++; /* the number of unused bits, which the parser has checked */
    if (pysock__der_is(&oid, "\x2a\x86\x48\xce\x3d\x02\x01", 7)) {
        out->key_type = "EC";
        if (pysock__der_expect(&alg, 0x06, &oid) == 0)
            out->key_bits = pysock__curve_bits(oid);
    } else if (pysock__der_is(&oid, PYSOCK__OID_RSA "\x01", 9)
               && pysock__der_expect(&bits, 0x30, &seq) == 0
               && pysock__der_expect(&seq, 0x02, &n) == 0 && pysock__der_unsigned(&n) == 0
               && pysock__der_len(&n) < INT_MAX / 8) {
        out->key_type = "RSA";
        out->key_bits = (int)pysock__der_len(&n) * 8;
        for (top = *n.p; !(top & 0x80); top = (unsigned char)(top << 1))
            out->key_bits--;
    }
}

/* Writes a parsed certificate. -1 if something in it is malformed. */
static int pysock__writer_cert(pysock__writer *w, const pysock__cert *cert, pysock_ssl_cert *out)
{
    pysock__der tbs = {cert->serial.end, cert->tbs.end}, alg, oid;
    pysock__der access = pysock__cert_extension(cert, "\x2b\x06\x01\x05\x05\x07\x01\x01", 8);
    pysock__der points = pysock__cert_extension(cert, "\x55\x1d\x1f", 3);

    out->version = cert->version;
    out->is_ca = cert->is_ca;
    out->not_before_seconds = cert->not_before;
    out->not_after_seconds = cert->not_after;
    pysock__cert_describe_key(cert, out);
    if (pysock__writer_name(w, cert->subject, &out->subject, &out->subject_count) < 0
        || pysock__writer_name(w, cert->issuer, &out->issuer, &out->issuer_count) < 0
        || pysock__writer_alt_names(w, cert->san, out) < 0)
        return -1;
    pysock__writer_uris(w, access, 1, &out->ocsp, &out->ocsp_count);
    pysock__writer_uris(w, access, 2, &out->ca_issuers, &out->ca_issuers_count);
    pysock__writer_uris(w, points, 0, &out->crl_distribution_points,
                        &out->crl_distribution_point_count);
    out->not_before = pysock__writer_time(w, cert->not_before);
    out->not_after = pysock__writer_time(w, cert->not_after);
    out->serial_number = pysock__writer_here(w);
    if (pysock__writer_serial(w, cert->serial) < 0 || pysock__der_expect(&tbs, 0x30, &alg) < 0
        || pysock__der_expect(&alg, 0x06, &oid) < 0)
        return -1;
    return pysock__writer_oid(w, oid, &out->signature_algorithm);
}

/* 0, -EBADMSG or -ENOMEM. */
static int pysock__cert_read(const unsigned char *der, size_t size, pysock_ssl_cert **out)
{
    pysock__writer w = {NULL, sizeof(pysock_ssl_cert), 0};
    pysock_ssl_cert measured;
    pysock__cert cert;
    br_sha256_context hash;

    memset(&measured, 0, sizeof measured);
    if (pysock__cert_parse(&cert, der, size) < 0 || pysock__writer_cert(&w, &cert, &measured) < 0)
        return -EBADMSG;
    w.base = (char *)pysock__alloc(w.used);
    if (!w.base)
        return -ENOMEM;
    *out = (pysock_ssl_cert *)(void *)w.base;
    w.size = w.used;
    w.used = sizeof **out;
    pysock__writer_cert(&w, &cert, *out);
    br_sha256_init(&hash);
    br_sha256_update(&hash, der, size);
    br_sha256_out(&hash, (*out)->sha256);
    return 0;
}

#endif /* PYSOCK_NO_SSL */

/* ---- >>trust ----
   Trust stores: anchors, revocation lists, and directories that are searched by the hash of a name.
   A store that contexts and connections share is never changed, but cloned. No lock: counts are
   atomic. */

#ifndef PYSOCK_NO_SSL

/* Trust: hashes of names, which are file names in a directory of certificates: four octets of SHA-1
   over the name in a canonical form, as in OpenSSL's X509_NAME_hash(). In that form strings are
   UTF-8, ASCII in lower case, without surrounding blanks, runs of blanks folded; and there is no
   header around the RDNs. */

#define PYSOCK__RDN_MAX 16 /* attributes of one RDN; a name with more is not looked up */

static void pysock__put_header(pysock__bytes *out, int tag, size_t len)
{
    unsigned char header[6];
    size_t n = 0, octets = 0, rest;

    header[n++] = (unsigned char)tag;
    for (rest = len; len >= 0x80 && rest; rest >>= 8)
        octets++;
    header[n++] = (unsigned char)(octets ? 0x80 | octets : len);
    while (octets--)
        header[n++] = (unsigned char)(len >> 8 * octets);
    pysock__bytes_append(out, header, n);
}

static void pysock__put_utf8(pysock__bytes *out, uint32_t c)
{
    unsigned char u[4];
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4, i;

    for (i = n - 1; i > 0; i--, c >>= 6)
        u[i] = (unsigned char)(0x80 | (c & 0x3f));
    u[0] = (unsigned char)(n == 1 ? c : (0xf00u >> n & 0xff) | c);
    pysock__bytes_append(out, u, n);
}

/* Bytes per character in a string of this type; 0 if it is not a string, or of a type that is
   compared octet by octet. */
static size_t pysock__text_width(int tag)
{
    return tag == 0x1e ? 2 : tag == 0x1c ? 4 : pysock__is_text(tag) ? 1 : 0;
}

/* 0, or -1 if the text is malformed. */
static int pysock__put_canonical_text(pysock__bytes *out, int tag, pysock__der s)
{
    size_t width = pysock__text_width(tag), i;
    int blank = 0, started = 0;
    uint32_t c;

    if (pysock__der_len(&s) % width)
        return -1;
    while (s.p < s.end) {
        for (c = 0, i = 0; i < width; i++)
            c = c << 8 | *s.p++;
        if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
            return -1;
        if (c == ' ' || (c >= '\t' && c <= '\r')) {
            blank = 1;
            continue;
        }
        if (blank && started)
            pysock__bytes_append(out, " ", 1);
        blank = 0;
        started = 1;
        if (tag == 0x0c && c >= 0x80) {
            pysock__bytes_append(out, s.p - 1, 1); /* UTF-8 already */
            continue;
        }
        pysock__put_utf8(out, (uint32_t)pysock__lower((int)c));
    }
    return 0;
}

/* An AttributeTypeAndValue. 0 or -1. */
static int pysock__put_canonical_attribute(pysock__bytes *out, pysock__der atv)
{
    pysock__bytes inner = {NULL, 0, 0, 0}, text = {NULL, 0, 0, 0};
    pysock__der oid, value, rest;
    int tag, err = 0;

    if (pysock__der_expect(&atv, 0x06, &oid) < 0)
        return -1;
    rest = atv;
    tag = pysock__der_next(&atv, &value);
    if (tag < 0 || atv.p != atv.end)
        return -1;
    pysock__put_header(&inner, 0x06, pysock__der_len(&oid));
    pysock__bytes_append(&inner, oid.p, pysock__der_len(&oid));
    if (pysock__text_width(tag)) {
        err = pysock__put_canonical_text(&text, tag, value);
        pysock__put_header(&inner, 0x0c, text.len);
        pysock__bytes_append(&inner, text.data, text.len);
    } else {
        pysock__bytes_append(&inner, rest.p, pysock__der_len(&rest));
    }
    pysock__put_header(out, 0x30, inner.len);
    pysock__bytes_append(out, inner.data, inner.len);
    out->out_of_memory |= inner.out_of_memory | text.out_of_memory;
    pysock__bytes_free(&inner);
    pysock__bytes_free(&text);
    return err;
}

/* The order of DER's SET OF (X.690, 11.6). */
static int pysock__bytes_after(const pysock__bytes *a, const pysock__bytes *b)
{
    size_t n = a->len < b->len ? a->len : b->len;
    int order = n ? memcmp(a->data, b->data, n) : 0;

    return order ? order > 0 : a->len > b->len;
}

/* An RDN: its attributes, sorted. 0 or -1. */
static int pysock__put_canonical_rdn(pysock__bytes *out, pysock__der set)
{
    pysock__bytes list[PYSOCK__RDN_MAX], moved;
    pysock__der atv;
    size_t count = 0, total = 0, i;
    int err = 0;

    memset(list, 0, sizeof list);
    while (set.p < set.end && err == 0) {
        if (count == PYSOCK__RDN_MAX || pysock__der_expect(&set, 0x30, &atv) < 0) {
            err = -1;
            break;
        }
        err = pysock__put_canonical_attribute(&list[count], atv);
        out->out_of_memory |= list[count].out_of_memory;
        total += list[count++].len;
        for (i = count - 1; i > 0 && pysock__bytes_after(&list[i - 1], &list[i]); i--) {
            moved = list[i];
            list[i] = list[i - 1];
            list[i - 1] = moved;
        }
    }
    pysock__put_header(out, 0x31, total);
    for (i = 0; i < count; i++) {
        pysock__bytes_append(out, list[i].data, list[i].len);
        pysock__bytes_free(&list[i]);
    }
    return err;
}

/* The hash of a name, given its contents. 0, -ENOMEM, or -EBADMSG: it has none. */
static int pysock__name_hash(pysock__der name, uint32_t *hash)
{
    pysock__bytes text = {NULL, 0, 0, 0};
    unsigned char digest[br_sha1_SIZE];
    br_sha1_context sha1;
    pysock__der set;
    int err = 0;

    while (name.p < name.end && err == 0)
        if (pysock__der_expect(&name, 0x31, &set) < 0 || pysock__put_canonical_rdn(&text, set) < 0)
            err = -EBADMSG;
    if (text.out_of_memory)
        err = -ENOMEM;
    br_sha1_init(&sha1);
    br_sha1_update(&sha1, text.data, text.len);
    br_sha1_out(&sha1, digest);
    *hash = digest[0] | (uint32_t)digest[1] << 8 | (uint32_t)digest[2] << 16
            | (uint32_t)digest[3] << 24;
    pysock__bytes_free(&text);
    return err;
}

/* Trust: stores. An anchor is a whole certificate, and its own dates and constraints apply. Anchors
   and CRLs are counted and immutable: stores share them, and a growing store does not move them. */

typedef struct pysock__anchor {
    int refs; /* atomic */
    /* set once */
    pysock_buf *der;
    pysock__cert cert; /* points into der */
    unsigned rejected; /* purposes it is no anchor for, a bit each, from OpenSSL's form */
} pysock__anchor;

typedef struct pysock__revocations {
    int refs; /* atomic */
    /* set once */
    pysock_buf *der;
    pysock__crl crl; /* points into der */
} pysock__revocations;

/* Files of a directory that have been read: those of this hash with numbers below next. */
typedef struct pysock__dir_lookup {
    size_t dir;
    uint32_t hash;
    int is_crl;
    unsigned next;
} pysock__dir_lookup;

typedef struct pysock__store {
    int refs; /* atomic */
    /* modified only while refs is 1 */
    pysock__anchor **items;
    br_x500_name *names; /* the subjects, for a server's request */
    size_t count, cap, names_cap;
    pysock__revocations **crls;
    size_t crl_count, crl_cap;
    pysock_buf **dirs; /* paths, searched when an issuer is wanted */
    size_t dir_count, dir_cap;
    pysock__dir_lookup *dir_lookups;
    size_t dir_lookup_count, dir_lookup_cap;
} pysock__store;

static void pysock__anchor_release(pysock__anchor *a)
{
    if (!a || pysock__add(&a->refs, -1))
        return;
    pysock_buf_release(a->der);
    pysock__free(a);
}

static void pysock__revocations_release(pysock__revocations *r)
{
    if (!r || pysock__add(&r->refs, -1))
        return;
    pysock_buf_release(r->der);
    pysock__free(r);
}

static void pysock__store_release(pysock__store *st)
{
    size_t i;

    if (!st || pysock__add(&st->refs, -1))
        return;
    for (i = 0; i < st->count; i++)
        pysock__anchor_release(st->items[i]);
    for (i = 0; i < st->crl_count; i++)
        pysock__revocations_release(st->crls[i]);
    for (i = 0; i < st->dir_count; i++)
        pysock_buf_release(st->dirs[i]);
    pysock__free(st->items);
    pysock__free(st->names);
    pysock__free(st->crls);
    pysock__free(st->dirs);
    pysock__free(st->dir_lookups);
    pysock__free(st);
}

static int pysock__store_has_anchor(const pysock__store *st, const pysock__anchor *a)
{
    size_t i;

    for (i = 0; i < st->count; i++)
        if (st->items[i]->rejected == a->rejected
            && pysock__der_equal(&st->items[i]->cert.all, &a->cert.all))
            return 1;
    return 0;
}

static int pysock__store_has_revocations(const pysock__store *st, const pysock__revocations *r)
{
    size_t i;

    for (i = 0; i < st->crl_count; i++)
        if (pysock__der_equal(&st->crls[i]->crl.all, &r->crl.all))
            return 1;
    return 0;
}

/* Adds one reference. 0 or -ENOMEM. */
static int pysock__store_add_anchor(pysock__store *st, pysock__anchor *a)
{
    if (pysock__reserve(&st->items, &st->cap, st->count + 1, sizeof *st->items) < 0
        || pysock__reserve(&st->names, &st->names_cap, st->count + 1, sizeof *st->names) < 0)
        return -ENOMEM;
    pysock__add(&a->refs, 1);
    st->items[st->count] = a;
    st->names[st->count].data = (unsigned char *)(uintptr_t)a->cert.subject_tlv.p;
    st->names[st->count++].len = pysock__der_len(&a->cert.subject_tlv);
    return 0;
}

static int pysock__store_add_revocations(pysock__store *st, pysock__revocations *r)
{
    if (pysock__reserve(&st->crls, &st->crl_cap, st->crl_count + 1, sizeof *st->crls) < 0)
        return -ENOMEM;
    pysock__add(&r->refs, 1);
    st->crls[st->crl_count++] = r;
    return 0;
}

/* 1 if a list of key purposes has this one, or any. */
static int pysock__purposes_have(pysock__der list, pysock_ssl_purpose purpose)
{
    const char *want = purpose == PYSOCK_SERVER_AUTH ? "\x2b\x06\x01\x05\x05\x07\x03\x01"
                                                     : "\x2b\x06\x01\x05\x05\x07\x03\x02";
    pysock__der oid;

    while (list.p < list.end && pysock__der_expect(&list, 0x06, &oid) == 0)
        if (pysock__der_is(&oid, want, 8) || pysock__der_is(&oid, "\x55\x1d\x25\x00", 4))
            return 1;
    return 0;
}

#define PYSOCK__PURPOSE_BIT(purpose) (1u << (purpose))

/* The settings after the certificate in a TRUSTED CERTIFICATE (OpenSSL's X509_CERT_AUX: purposes
   that it is trusted for, and rejected for, both optional). *rejected: those it is no anchor for.
   -1: malformed. */
static int pysock__trust_settings(pysock__der aux, unsigned *rejected)
{
    static const pysock_ssl_purpose purposes[] = {PYSOCK_SERVER_AUTH, PYSOCK_CLIENT_AUTH};
    /* trust, reject, alias, key id, other */
    static const int order[] = {0x30, 0xa0, 0x0c, 0x04, 0xa1};
    pysock__der settings, value, trust = {NULL, NULL}, reject = {NULL, NULL};
    size_t i, at = 0;
    int tag;

    *rejected = 0;
    if (aux.p == aux.end)
        return 0;
    if (pysock__der_expect(&aux, 0x30, &settings) < 0 || aux.p != aux.end)
        return -1;
    while (settings.p < settings.end) {
        tag = pysock__der_next(&settings, &value);
        while (at < PYSOCK__COUNT(order) && order[at] != tag)
            at++;
        if (at++ == PYSOCK__COUNT(order))
            return -1;
        if (tag == 0x30)
            trust = value;
        else if (tag == 0xa0)
            reject = value;
    }
    for (i = 0; i < PYSOCK__COUNT(purposes); i++)
        if (pysock__purposes_have(reject, purposes[i])
            || (trust.p && !pysock__purposes_have(trust, purposes[i])))
            *rejected |= PYSOCK__PURPOSE_BIT(purposes[i]);
    return 0;
}

/* Adds a copy of a DER certificate. 0 (also if it is there), -ENOMEM, or -EBADMSG and *problem. */
static int pysock__store_add_der(pysock__store *st, const unsigned char *der, size_t len,
                                 unsigned rejected, const char **problem)
{
    pysock__anchor *a;
    pysock__cert cert;
    int err = -ENOMEM;

    if (pysock__cert_parse(&cert, der, len) < 0) {
        *problem = cert.problem;
        return -EBADMSG;
    }
    a = (pysock__anchor *)pysock__alloc(sizeof *a);
    if (!a)
        return -ENOMEM;
    a->refs = 1;
    a->rejected = rejected;
    a->der = pysock_buf_copy(der, len);
    if (a->der && pysock__cert_parse(&a->cert, a->der->data, len) == 0)
        err = pysock__store_has_anchor(st, a) ? 0 : pysock__store_add_anchor(st, a);
    pysock__anchor_release(a);
    return err;
}

/* The same for a CRL. */
static int pysock__store_add_crl(pysock__store *st, const unsigned char *der, size_t len)
{
    pysock__revocations *r = (pysock__revocations *)pysock__alloc(sizeof *r);
    int err = -ENOMEM;

    if (!r)
        return -ENOMEM;
    r->refs = 1;
    if (pysock__crl_parse(&r->crl, der, len) < 0)
        err = -EBADMSG;
    else if ((r->der = pysock_buf_copy(der, len)) != NULL
             && pysock__crl_parse(&r->crl, r->der->data, len) == 0)
        err = pysock__store_has_revocations(st, r) ? 0 : pysock__store_add_revocations(st, r);
    pysock__revocations_release(r);
    return err;
}

/* Adds the directory, with a reference of its own. Its index, or -ENOMEM. */
static ptrdiff_t pysock__store_add_dir(pysock__store *st, pysock_buf *path)
{
    size_t i;

    for (i = 0; i < st->dir_count; i++)
        if (st->dirs[i]->size == path->size
            && memcmp(st->dirs[i]->data, path->data, path->size) == 0)
            return (ptrdiff_t)i;
    if (pysock__reserve(&st->dirs, &st->dir_cap, st->dir_count + 1, sizeof *st->dirs) < 0)
        return -ENOMEM;
    st->dirs[st->dir_count] = pysock_buf_retain(path);
    return (ptrdiff_t)st->dir_count++;
}

static unsigned pysock__store_next_file(const pysock__store *st, size_t dir, uint32_t hash,
                                        int is_crl)
{
    size_t i;

    for (i = 0; i < st->dir_lookup_count; i++)
        if (st->dir_lookups[i].dir == dir && st->dir_lookups[i].hash == hash
            && st->dir_lookups[i].is_crl == is_crl)
            return st->dir_lookups[i].next;
    return 0;
}

/* Remembers that the files with numbers below next have been read. 0 or -ENOMEM. */
static int pysock__store_note_lookup(pysock__store *st, const pysock__dir_lookup *read)
{
    size_t i;

    for (i = 0; i < st->dir_lookup_count; i++) {
        pysock__dir_lookup *l = &st->dir_lookups[i];
        if (l->dir == read->dir && l->hash == read->hash && l->is_crl == read->is_crl) {
            l->next = l->next > read->next ? l->next : read->next;
            return 0;
        }
    }
    if (pysock__reserve(&st->dir_lookups, &st->dir_lookup_cap, i + 1, sizeof *st->dir_lookups) < 0)
        return -ENOMEM;
    st->dir_lookups[st->dir_lookup_count++] = *read;
    return 0;
}

/* Adds everything in another store. 0 or -ENOMEM. */
static int pysock__store_merge(pysock__store *st, const pysock__store *other)
{
    pysock__dir_lookup read;
    ptrdiff_t dir;
    size_t i;
    int empty = !st->count && !st->crl_count; /* there is nothing to compare with */

    for (i = 0; i < other->count; i++)
        if ((empty || !pysock__store_has_anchor(st, other->items[i]))
            && pysock__store_add_anchor(st, other->items[i]) < 0)
            return -ENOMEM;
    for (i = 0; i < other->crl_count; i++)
        if ((empty || !pysock__store_has_revocations(st, other->crls[i]))
            && pysock__store_add_revocations(st, other->crls[i]) < 0)
            return -ENOMEM;
    for (i = 0; i < other->dir_count; i++)
        if (pysock__store_add_dir(st, other->dirs[i]) < 0)
            return -ENOMEM;
    for (i = 0; i < other->dir_lookup_count; i++) {
        read = other->dir_lookups[i];
        dir = pysock__store_add_dir(st, other->dirs[read.dir]);
        if (dir < 0)
            return -ENOMEM;
        read.dir = (size_t)dir;
        if (pysock__store_note_lookup(st, &read) < 0)
            return -ENOMEM;
    }
    return 0;
}

/* A copy of a store, or an empty one for NULL. */
static pysock__store *pysock__store_clone(const pysock__store *old)
{
    pysock__store *st = (pysock__store *)pysock__alloc(sizeof *st);

    if (!st)
        return NULL;
    st->refs = 1;
    if (old && pysock__store_merge(st, old) < 0) {
        pysock__store_release(st);
        return NULL;
    }
    return st;
}

typedef struct pysock__store_load {
    pysock__store *store;
    size_t found;
    char other[64]; /* the label of another kind of object in the file */
} pysock__store_load;

/* Adds a certificate; in OpenSSL's TRUSTED form, trust settings follow it. */
static int pysock__store_load_cert(pysock__store_load *load, const pysock__object *object,
                                   pysock__file_fault *fault)
{
    const char *problem = "its DER is damaged or cut off";
    pysock__der all, in;
    unsigned rejected = 0;
    size_t len = object->der.len;
    int err;

    all.p = object->der.data;
    all.end = all.p + len;
    if (strcmp(object->name, "TRUSTED CERTIFICATE") == 0) {
        if (pysock__der_expect(&all, 0x30, &in) < 0)
            return pysock__file_damaged(fault, fault->number, problem);
        if (pysock__trust_settings(all, &rejected) < 0)
            return pysock__file_damaged(fault, fault->number,
                                        "the trust settings after the certificate are malformed");
        len = (size_t)(in.end - object->der.data);
    }
    err = pysock__store_add_der(load->store, object->der.data, len, rejected, &problem);
    return err == -EBADMSG ? pysock__file_damaged(fault, fault->number, problem) : err;
}

static int pysock__store_load_object(void *arg, const pysock__object *object,
                                     pysock__file_fault *fault)
{
    pysock__store_load *load = (pysock__store_load *)arg;
    int err;

    if (pysock__label_is_certificate(object->name)) {
        err = pysock__store_load_cert(load, object, fault);
    } else if (strcmp(object->name, "X509 CRL") == 0) {
        err = pysock__store_add_crl(load->store, object->der.data, object->der.len);
        if (err == -EBADMSG)
            err = pysock__file_damaged(fault, fault->number,
                                       "the revocation list is malformed: its DER is damaged");
    } else {
        snprintf(load->other, sizeof load->other, "%s", object->name);
        return pysock__object_unwanted(object, fault);
    }
    load->found += err == 0;
    return err;
}

/* Adds the certificates and CRLs in a file's contents: all, or none and an error. */
static int pysock__store_load_bytes(pysock__store *st, const pysock__bytes *data, const char *name)
{
    pysock__store_load load;
    pysock__file_fault fault;
    int err;

    memset(&load, 0, sizeof load);
    load.store = pysock__store_clone(NULL);
    err = load.store ? pysock__file_each(data, &fault, pysock__store_load_object, &load) : -ENOMEM;
    if (err == 0 && load.found)
        err = pysock__store_merge(st, load.store);
    pysock__store_release(load.store);
    if (err == -ENOMEM)
        return pysock__fail_memory("loading trust anchors");
    if (err < 0)
        return pysock__fail_in_file(name, &fault,
                                    pysock__is_der(data) ? "NOT_ENOUGH_DATA" : "BAD_BASE64_DECODE");
    if (!load.found)
        return pysock__fail_not_in_file(name, "certificate", "CERTIFICATE", load.other, data->len,
                                        "NO_CERTIFICATE_OR_CRL_FOUND");
    return 0;
}

static int pysock__store_load_file(pysock__store *st, const char *path)
{
    pysock__bytes data = {NULL, 0, 0, 0};
    int err = pysock__read_file(path, &data);

    if (err < 0)
        err = pysock__fail_os(err, "reading certificates", path);
    else
        err = pysock__store_load_bytes(st, &data, path);
    pysock__bytes_free(&data);
    return err;
}

/* For hashed directories: a file that cannot be loaded is skipped. */
static int pysock__store_try_file(void *arg, const char *path)
{
    pysock__store_load *load = (pysock__store_load *)arg;

    if (pysock__store_load_file(load->store, path) == 0)
        load->found++;
    else if (pysock__last.kind == PYSOCK_MEMORY_ERROR)
        return -ENOMEM;
    return 0;
}

/* -EEXIST if the file's name is that of a certificate or CRL in a directory with hashes:
   HHHHHHHH.N or HHHHHHHH.rN. */
static int pysock__is_hash_name(void *arg, const char *path)
{
    const char *name = strrchr(path, '/');
    size_t i;

    (void)arg;
    name = name ? name + 1 : path;
    for (i = 0; i < 8; i++)
        if (!((name[i] >= '0' && name[i] <= '9') || (name[i] >= 'a' && name[i] <= 'f')))
            return 0;
    if (name[i++] != '.')
        return 0;
    i += name[i] == 'r';
    if (!name[i])
        return 0;
    while (name[i] >= '0' && name[i] <= '9')
        i++;
    return name[i] ? 0 : -EEXIST;
}

/* Adds a directory, to be searched when something in it is wanted. */
static int pysock__store_keep_dir(pysock__store *st, const char *path)
{
    pysock_buf *copy = pysock_buf_copy(path, strlen(path) + 1);
    ptrdiff_t at = copy ? pysock__store_add_dir(st, copy) : -ENOMEM;

    pysock_buf_release(copy);
    return at < 0 ? pysock__fail_memory("loading trust anchors") : 0;
}

typedef struct pysock__hashed_files {
    int (*each)(void *arg, const char *path);
    void *arg;
} pysock__hashed_files;

static int pysock__try_hashed_file(void *arg, const char *path)
{
    const pysock__hashed_files *h = (const pysock__hashed_files *)arg;

    return pysock__is_hash_name(NULL, path) ? h->each(h->arg, path) : 0;
}

/* Calls each(arg, path) for the files with hashed names. */
static int pysock__each_hashed_file(const char *dir, int (*each)(void *arg, const char *path),
                                    void *arg)
{
    pysock__hashed_files h;

    h.each = each;
    h.arg = arg;
    return pysock__each_file(dir, pysock__try_hashed_file, &h);
}

/* Adds a directory whose files have hashed names, as OpenSSL makes them. It is not read yet unless
   read_all is set. */
static int pysock__store_load_dir(pysock__store *st, const char *path, int read_all)
{
    pysock__store_load load;
    pysock__fault before = pysock__last;
    int err = pysock__each_file(path, pysock__is_hash_name, NULL);

    memset(&load, 0, sizeof load);
    load.store = st;
    if (err == 0)
        return pysock__fail(
            PYSOCK_SSL_ERROR, 0, "NO_CERTIFICATE_OR_CRL_FOUND",
            "%.160s: no file in this directory has a hashed name; make them with "
            "openssl rehash, or take all of it by pysock_ssl_load_verify_directory()",
            path);
    if (err == -EEXIST)
        err = pysock__store_keep_dir(st, path) < 0 ? -ENOMEM : 0;
    if (err == 0 && read_all)
        err = pysock__each_hashed_file(path, pysock__store_try_file, &load);
    if (err == -ENOMEM)
        return pysock__fail_memory("loading trust anchors");
    if (err < 0)
        return pysock__fail_os(err, "reading certificates", path);
    pysock__last = before;
    return 0;
}

/* A file of a directory that is loaded completely: a file without certificates is skipped, a
   damaged one is an error. */
static int pysock__store_take_file(void *arg, const char *path)
{
    pysock__store_load *load = (pysock__store_load *)arg;

    if (pysock__store_load_file(load->store, path) == 0)
        load->found++;
    else if (strcmp(pysock__last.reason, "NO_CERTIFICATE_OR_CRL_FOUND") != 0)
        return -EBADMSG; /* the cause is in the thread's error */
    return 0;
}

/* Loads every file of a directory, whatever its name. */
static int pysock__store_load_every_file(pysock__store *st, const char *path)
{
    pysock__store_load load;
    pysock__fault before = pysock__last;
    int err;

    memset(&load, 0, sizeof load);
    load.store = st;
    err = pysock__each_file(path, pysock__store_take_file, &load);
    if (err == -EBADMSG)
        return -1;
    if (err < 0)
        return pysock__fail_os(err, "reading certificates", path);
    if (!load.found)
        return pysock__fail(PYSOCK_SSL_ERROR, 0, "NO_CERTIFICATE_OR_CRL_FOUND",
                            "%.200s: no file in this directory holds a certificate", path);
    pysock__last = before;
    return 0;
}

#define PYSOCK__FILES_MAX 256 /* of one hash that are read at a time */

/* Reads the files of a directory that have this hash in their names, certificates or CRLs, and have
   not been read. If there are any, *extended becomes a copy of st with their contents. 0 or
   -ENOMEM. */
static int pysock__store_look_in(const pysock__store *st, pysock__store **extended, size_t dir,
                                 uint32_t hash, int is_crl)
{
    unsigned first = pysock__store_next_file(*extended ? *extended : st, dir, hash, is_crl), n;
    pysock__store_load load;
    pysock__dir_lookup read = {0, 0, 0, 0};
    char path[1024];

    memset(&load, 0, sizeof load);
    for (n = first; n < first + PYSOCK__FILES_MAX; n++) {
        int len = snprintf(path, sizeof path, "%s/%08lx.%s%u", (const char *)st->dirs[dir]->data,
                           (unsigned long)hash, is_crl ? "r" : "", n);
        if (len < 0 || (size_t)len >= sizeof path || pysock__path_kind(path) != 'f')
            break;
        if (!*extended && (*extended = pysock__store_clone(st)) == NULL)
            return -ENOMEM;
        load.store = *extended;
        if (pysock__store_try_file(&load, path) < 0)
            return -ENOMEM;
    }
    if (n == first)
        return 0;
    read.dir = dir;
    read.hash = hash;
    read.is_crl = is_crl;
    read.next = n;
    return pysock__store_note_lookup(*extended, &read);
}

#endif /* PYSOCK_NO_SSL */

/* ---- >>keys ----
   Private keys, encrypted or not, and identities: a chain with its key, immutable once made, and
   counted. Memory that held a secret is wiped before it is freed. */

#ifndef PYSOCK_NO_SSL

#define PYSOCK__CHAIN_BYTES ((size_t)160 << 10) /* bytes of a peer's chain */
#define PYSOCK__CHAIN_CERTS 64

/* Keys: private keys, in the forms PKCS#1 (RFC 8017), SEC1 (RFC 5915) and PKCS#8 (RFC 5958).
   BearSSL decodes them; kinds that it would report as damaged are recognised before. */

typedef struct pysock__key_form {
    const char *unsupported; /* the kind of key, in words; NULL: a supported one */
    pysock__der curve;       /* an EC key's parameters */
    int is_sec1;             /* not PKCS#8 */
} pysock__key_form;

#define PYSOCK__RSA_PRIME_MAX 260 /* bytes of a prime that BearSSL takes */

/* RSAPrivateKey's contents. */
static int pysock__key_rsa(pysock__der key, pysock__key_form *form)
{
    pysock__der in[9];
    int version, i;

    if (pysock__der_expect(&key, 0x02, &in[0]) < 0 || (version = pysock__der_int(&in[0])) < 0)
        return -1;
    for (i = 1; i < 9; i++)
        if (pysock__der_expect(&key, 0x02, &in[i]) < 0 || pysock__der_unsigned(&in[i]) < 0)
            return -1;
    if (version == 1)
        form->unsupported = "an RSA key of more than two primes";
    else if (version || key.p != key.end)
        return -1;
    else if (pysock__der_len(&in[1]) > PYSOCK__RSA_MAX)
        form->unsupported = "an RSA key of more than 4,096 bits";
    else if (pysock__der_len(&in[4]) > PYSOCK__RSA_PRIME_MAX
             || pysock__der_len(&in[5]) > PYSOCK__RSA_PRIME_MAX)
        form->unsupported = "an RSA key of two primes that differ much in size";
    return 0;
}

/* The bytes of a scalar on the curve that the parameters name; 0 if they do not name one that is
   supported; -1 if malformed. */
static int pysock__key_curve(pysock__der params, pysock__key_form *form)
{
    static const struct {
        const char *oid;
        size_t len;
        int size;
    } curves[] = {
        {"\x2a\x86\x48\xce\x3d\x03\x01\x07", 8, 32},
        {"\x2b\x81\x04\x00\x22", 5, 48},
        {"\x2b\x81\x04\x00\x23", 5, 66},
    };
    pysock__der in;
    size_t i;
    int tag = pysock__der_next(&params, &in);

    if ((tag != 0x06 && tag != 0x30) || params.p != params.end)
        return -1;
    for (i = 0; i < PYSOCK__COUNT(curves); i++)
        if (tag == 0x06 && pysock__der_is(&in, curves[i].oid, curves[i].len))
            return curves[i].size;
    form->unsupported =
        tag == 0x06 ? "an EC key on another curve" : "an EC key with explicit curve parameters";
    return 0;
}

/* ECPrivateKey's contents. outer: the parameters given outside of it, or nothing. */
static int pysock__key_ec(pysock__der key, pysock__der outer, pysock__key_form *form)
{
    pysock__der version, x, in, params = outer;
    int tag, last = 0, size;

    if (pysock__der_expect(&key, 0x02, &version) < 0 || pysock__der_int(&version) != 1
        || pysock__der_expect(&key, 0x04, &x) < 0)
        return -1;
    while (key.p < key.end) {
        tag = pysock__der_next(&key, &in);
        if ((tag != 0xa0 && tag != 0xa1) || tag <= last)
            return -1;
        last = tag;
        if (tag == 0xa0)
            params = in;
    }
    if (!params.p) {
        form->unsupported = "an EC key that does not name its curve";
        return 0;
    }
    form->curve = params;
    size = pysock__key_curve(params, form);
    if (size > 0 && (x.p == x.end || pysock__der_len(&x) > (size_t)size))
        return -1;
    return size < 0 ? -1 : 0;
}

/* PrivateKeyInfo's contents, after the version. */
static int pysock__key_pkcs8(pysock__der info, pysock__key_form *form)
{
    pysock__der alg, oid, octets, key;

    if (pysock__der_expect(&info, 0x30, &alg) < 0 || pysock__der_expect(&alg, 0x06, &oid) < 0
        || pysock__der_expect(&info, 0x04, &octets) < 0)
        return -1;
    if (!pysock__der_is(&oid, PYSOCK__OID_RSA "\x01", 9)
        && !pysock__der_is(&oid, "\x2a\x86\x48\xce\x3d\x02\x01", 7)) {
        form->unsupported = pysock__key_algorithm(&oid);
        if (!form->unsupported)
            form->unsupported = "a key for an unknown algorithm";
        return 0;
    }
    if (pysock__der_expect(&octets, 0x30, &key) < 0 || octets.p != octets.end)
        return -1;
    if (pysock__der_is(&oid, PYSOCK__OID_RSA "\x01", 9))
        return pysock__key_rsa(key, form);
    if (alg.p == alg.end)
        alg.p = alg.end = NULL;
    return pysock__key_ec(key, alg, form);
}

/* Finds out the kind of key. -1: not a key, or malformed. */
static int pysock__key_parse(const pysock__bytes *der, pysock__der outer, pysock__key_form *form)
{
    pysock__der all, key, rest, in;
    int tag;

    memset(form, 0, sizeof *form);
    all.p = der->data;
    all.end = der->data + der->len;
    if (pysock__der_expect(&all, 0x30, &key) < 0 || all.p != all.end)
        return -1;
    rest = key;
    if (pysock__der_expect(&rest, 0x02, &in) < 0)
        return -1;
    all = rest;
    tag = pysock__der_next(&all, &in);
    if (tag == 0x02)
        return pysock__key_rsa(key, form);
    if (tag == 0x30)
        return pysock__key_pkcs8(rest, form);
    if (tag != 0x04 || pysock__key_ec(key, outer, form) < 0)
        return -1;
    form->is_sec1 = 1;
    return 0;
}

/* Passes a parsed key to BearSSL, which expects the curve inside: SEC1 is wrapped as PKCS#8. */
static int pysock__key_decode(br_skey_decoder_context *dec, const pysock__bytes *der,
                              const pysock__key_form *form)
{
    unsigned char head[64] = {0x30, 0x82, 0,    0,    0x02, 1,    0,    0x30, 0,
                              0x06, 7,    0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 1};
    size_t n = pysock__der_len(&form->curve), total;

    br_skey_decoder_init(dec);
    if (form->is_sec1) {
        total = 18 + n + der->len;
        if (n > 16 || total > 0xffff)
            return 0;
        head[2] = (unsigned char)(total >> 8);
        head[3] = (unsigned char)total;
        head[8] = (unsigned char)(9 + n);
        memcpy(head + 18, form->curve.p, n);
        head[18 + n] = 0x04;
        head[19 + n] = 0x82;
        head[20 + n] = (unsigned char)(der->len >> 8);
        head[21 + n] = (unsigned char)der->len;
        br_skey_decoder_push(dec, head, 22 + n);
    }
    br_skey_decoder_push(dec, der->data, der->len);
    return br_skey_decoder_key_type(dec);
}

/* Keys: encrypted ones. PKCS#8 with PBES2 (RFC 8018), and the traditional form (RFC 1421, with
   OpenSSL's EVP_BytesToKey). The schemes are implemented here, the primitives are BearSSL's. */

#define PYSOCK__PASSWORD_MAX 1024

typedef struct pysock__key_cipher {
    const char *name; /* in DEK-Info */
    const char *oid;
    size_t oid_len, key_len;
    const br_block_cbcdec_class *vtable;
} pysock__key_cipher;

#define PYSOCK__OID_AES "\x60\x86\x48\x01\x65\x03\x04\x01"
#define PYSOCK__OID_PKCS5 "\x2a\x86\x48\x86\xf7\x0d\x01\x05"
#define PYSOCK__OID_HMAC "\x2a\x86\x48\x86\xf7\x0d\x02"

static const pysock__key_cipher pysock__key_ciphers[] = {
    {"AES-128-CBC", PYSOCK__OID_AES "\x02", 9, 16, &br_aes_ct_cbcdec_vtable},
    {"AES-192-CBC", PYSOCK__OID_AES "\x16", 9, 24, &br_aes_ct_cbcdec_vtable},
    {"AES-256-CBC", PYSOCK__OID_AES "\x2a", 9, 32, &br_aes_ct_cbcdec_vtable},
    {"DES-EDE3-CBC", "\x2a\x86\x48\x86\xf7\x0d\x03\x07", 8, 24, &br_des_ct_cbcdec_vtable},
    {"DES-CBC", "\x2b\x0e\x03\x02\x07", 5, 8, &br_des_ct_cbcdec_vtable},
};

/* An encrypted key, and its encryption scheme. */
typedef struct pysock__enc_key {
    const char *unsupported; /* what was used, in words; NULL: a supported scheme */
    char text[48];           /* room for it */
    const pysock__key_cipher *cipher;
    unsigned char iv[16];
    const br_hash_class *prf; /* PBKDF2's; NULL: EVP_BytesToKey with MD5 */
    pysock__der salt;
    int iterations;
    const unsigned char *data;
    size_t len;
} pysock__enc_key;

static void pysock__pbkdf2(const pysock__enc_key *enc_key, const void *password, size_t len,
                           unsigned char *out, size_t out_len)
{
    br_hmac_key_context key;
    br_hmac_context mac;
    unsigned char block[64], sum[64], index[4] = {0, 0, 0, 0};
    size_t n, i;
    int round;

    br_hmac_key_init(&key, enc_key->prf, password, len);
    while (out_len) {
        index[3]++;
        br_hmac_init(&mac, &key, 0);
        br_hmac_update(&mac, enc_key->salt.p, pysock__der_len(&enc_key->salt));
        br_hmac_update(&mac, index, sizeof index);
        n = br_hmac_out(&mac, block);
        memcpy(sum, block, n);
        for (round = 1; round < enc_key->iterations; round++) {
            br_hmac_init(&mac, &key, 0);
            br_hmac_update(&mac, block, n);
            br_hmac_out(&mac, block);
            for (i = 0; i < n; i++)
                sum[i] ^= block[i];
        }
        n = n < out_len ? n : out_len;
        memcpy(out, sum, n);
        out += n;
        out_len -= n;
    }
    pysock__wipe(&key, sizeof key);
    pysock__wipe(&mac, sizeof mac);
    pysock__wipe(block, sizeof block);
    pysock__wipe(sum, sizeof sum);
}

/* EVP_BytesToKey with MD5, one iteration, and 8 bytes of the initialisation vector as salt. */
static void pysock__bytes_to_key(const pysock__enc_key *enc_key, const void *password, size_t len,
                                 unsigned char *out, size_t out_len)
{
    br_md5_context md5;
    unsigned char block[br_md5_SIZE] = {0};
    size_t n = 0;

    while (out_len) {
        br_md5_init(&md5);
        br_md5_update(&md5, block, n);
        br_md5_update(&md5, password, len);
        br_md5_update(&md5, enc_key->iv, 8);
        br_md5_out(&md5, block);
        n = sizeof block;
        memcpy(out, block, out_len < n ? out_len : n);
        out += out_len < n ? out_len : n;
        out_len -= out_len < n ? out_len : n;
    }
    pysock__wipe(&md5, sizeof md5);
    pysock__wipe(block, sizeof block);
}

/* Decrypts into *out, which the caller frees. -EACCES: the padding is wrong. */
static int pysock__key_open(pysock__enc_key *enc_key, const void *password, size_t len,
                            pysock__bytes *out)
{
    union {
        const br_block_cbcdec_class *vtable;
        br_aes_ct_cbcdec_keys aes;
        br_des_ct_cbcdec_keys des;
    } ctx;
    unsigned char key[32];
    size_t block = enc_key->cipher->vtable->block_size, pad, i;

    if (pysock__reserve(&out->data, &out->cap, enc_key->len, 1) < 0)
        return -ENOMEM;
    pysock__bytes_append(out, enc_key->data, enc_key->len);
    if (enc_key->prf)
        pysock__pbkdf2(enc_key, password, len, key, enc_key->cipher->key_len);
    else
        pysock__bytes_to_key(enc_key, password, len, key, enc_key->cipher->key_len);
    enc_key->cipher->vtable->init(&ctx.vtable, key, enc_key->cipher->key_len);
    enc_key->cipher->vtable->run(&ctx.vtable, enc_key->iv, out->data, out->len);
    pysock__wipe(&ctx, sizeof ctx);
    pysock__wipe(key, sizeof key);
    pad = out->data[out->len - 1];
    if (pad < 1 || pad > block)
        return -EACCES;
    for (i = 1; i <= pad; i++)
        if (out->data[out->len - i] != pad)
            return -EACCES;
    out->len -= pad; /* the padding is not secret */
    return 0;
}

/* An AlgorithmIdentifier: its OID, and its parameters if there are any. */
static int pysock__der_algorithm(pysock__der *d, pysock__der *oid, pysock__der *params)
{
    return pysock__der_expect(d, 0x30, params) < 0 ? -1 : pysock__der_expect(params, 0x06, oid);
}

/* PBKDF2's PRF. */
static int pysock__enc_key_prf(pysock__enc_key *enc_key, pysock__der prf)
{
    static const br_hash_class *const hashes[] = {
        &br_sha1_vtable, &br_sha224_vtable, &br_sha256_vtable, &br_sha384_vtable, &br_sha512_vtable,
    };
    pysock__der oid, params;
    size_t n = sizeof PYSOCK__OID_HMAC - 1;

    enc_key->prf = &br_sha1_vtable;
    if (prf.p == prf.end)
        return 0;
    if (pysock__der_algorithm(&prf, &oid, &params) < 0 || prf.p != prf.end)
        return -1;
    if (pysock__der_len(&oid) != n + 1 || memcmp(oid.p, PYSOCK__OID_HMAC, n) != 0 || oid.p[n] < 7
        || oid.p[n] > 11)
        enc_key->unsupported = "PBKDF2 with another PRF than HMAC with SHA-1 or SHA-2";
    else
        enc_key->prf = hashes[oid.p[n] - 7];
    return 0;
}

/* PBKDF2-params' contents. */
static int pysock__enc_key_pbkdf2(pysock__enc_key *enc_key, pysock__der d)
{
    pysock__der in, rest;
    int length = 0;

    if (pysock__der_expect(&d, 0x04, &enc_key->salt) < 0 || pysock__der_expect(&d, 0x02, &in) < 0)
        return -1;
    enc_key->iterations = pysock__der_int(&in);
    if (enc_key->iterations < 1)
        return -1;
    rest = d;
    if (pysock__der_next(&rest, &in) == 0x02) {
        length = pysock__der_int(&in);
        if (length < 1)
            return -1;
        d = rest;
    }
    if (pysock__enc_key_prf(enc_key, d) < 0)
        return -1;
    if (enc_key->iterations > PYSOCK_MAX_PBKDF2_ITERATIONS)
        enc_key->unsupported = "PBKDF2 with more than 10,000,000 iterations";
    if (length && (size_t)length != enc_key->cipher->key_len)
        enc_key->unsupported = "a key length that is not the cipher's";
    return 0;
}

/* PBES2's encryptionScheme. */
static int pysock__enc_key_cipher(pysock__enc_key *enc_key, pysock__der *d)
{
    pysock__der oid, params, iv;
    size_t i;

    if (pysock__der_algorithm(d, &oid, &params) < 0)
        return -1;
    for (i = 0; i < PYSOCK__COUNT(pysock__key_ciphers); i++)
        if (pysock__der_is(&oid, pysock__key_ciphers[i].oid, pysock__key_ciphers[i].oid_len))
            enc_key->cipher = &pysock__key_ciphers[i];
    if (!enc_key->cipher) {
        enc_key->unsupported = pysock__der_is(&oid, "\x2a\x86\x48\x86\xf7\x0d\x03\x02", 8)
                                   ? "RC2"
                                   : "another cipher than AES-CBC and DES-EDE3-CBC";
        return 0;
    }
    if (pysock__der_expect(&params, 0x04, &iv) < 0 || params.p != params.end
        || pysock__der_len(&iv) != enc_key->cipher->vtable->block_size)
        return -1;
    memcpy(enc_key->iv, iv.p, pysock__der_len(&iv));
    return 0;
}

/* PBES2-params. */
static int pysock__enc_key_pbes2(pysock__enc_key *enc_key, pysock__der params)
{
    pysock__der seq, kdf, oid;

    if (pysock__der_expect(&params, 0x30, &seq) < 0 || params.p != params.end
        || pysock__der_algorithm(&seq, &oid, &kdf) < 0 || pysock__enc_key_cipher(enc_key, &seq) < 0
        || seq.p != seq.end)
        return -1;
    if (pysock__der_is(&oid, "\x2b\x06\x01\x04\x01\xda\x47\x04\x0b", 9))
        enc_key->unsupported = "scrypt";
    else if (!pysock__der_is(&oid, PYSOCK__OID_PKCS5 "\x0c", 9))
        enc_key->unsupported = "another key derivation than PBKDF2";
    if (enc_key->unsupported)
        return 0;
    if (pysock__der_expect(&kdf, 0x30, &seq) < 0 || kdf.p != kdf.end)
        return -1;
    return pysock__enc_key_pbkdf2(enc_key, seq);
}

/* -1 if the data is empty, or not a whole number of blocks. */
static int pysock__enc_key_check(const pysock__enc_key *enc_key)
{
    return enc_key->unsupported
                   || (enc_key->len && enc_key->len % enc_key->cipher->vtable->block_size == 0)
               ? 0
               : -1;
}

/* EncryptedPrivateKeyInfo. -1: malformed. */
static int pysock__enc_key_parse_pkcs8(pysock__enc_key *enc_key, const pysock__bytes *der)
{
    pysock__der d, info, oid, params, octets;

    memset(enc_key, 0, sizeof *enc_key);
    d.p = der->data;
    d.end = der->data + der->len;
    if (pysock__der_expect(&d, 0x30, &info) < 0 || d.p != d.end
        || pysock__der_algorithm(&info, &oid, &params) < 0
        || pysock__der_expect(&info, 0x04, &octets) < 0 || info.p != info.end)
        return -1;
    enc_key->data = octets.p;
    enc_key->len = pysock__der_len(&octets);
    if (pysock__der_is(&oid, PYSOCK__OID_PKCS5 "\x0d", 9))
        return pysock__enc_key_pbes2(enc_key, params) < 0 ? -1 : pysock__enc_key_check(enc_key);
    if (pysock__der_len(&oid) == 9 && memcmp(oid.p, PYSOCK__OID_PKCS5, 8) == 0)
        enc_key->unsupported = "PBES1";
    else if (pysock__der_len(&oid) == 10
             && memcmp(oid.p, "\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01", 9) == 0)
        enc_key->unsupported = "PKCS#12's password scheme";
    else
        enc_key->unsupported = "an unknown scheme";
    return 0;
}

/* The value of a header, without surrounding blanks; -1 if there is none. */
static int pysock__pem_header(const pysock__object *object, const char *name, pysock__der *out)
{
    const char *p = object->headers, *end = p + object->headers_len, *line;
    size_t n = strlen(name);

    for (; p < end; p = line + 1) {
        line = (const char *)memchr(p, '\n', (size_t)(end - p));
        if (!line)
            line = end;
        if ((size_t)(line - p) <= n || memcmp(p, name, n) != 0 || p[n] != ':')
            continue;
        out->p = (const unsigned char *)p + n + 1;
        out->end = (const unsigned char *)line;
        while (out->p < out->end && *out->p <= ' ')
            out->p++;
        while (out->p < out->end && out->end[-1] <= ' ')
            out->end--;
        return 0;
    }
    return -1;
}

static int pysock__hex_digit(int c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = pysock__lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* DEK-Info's cipher, in upper or lower case; NULL if it is not supported. */
static const pysock__key_cipher *pysock__enc_key_find(const unsigned char *name, size_t len)
{
    const char *known;
    size_t i, k;

    for (i = 0; i < PYSOCK__COUNT(pysock__key_ciphers); i++) {
        known = pysock__key_ciphers[i].name;
        for (k = 0; k < len && pysock__lower(name[k]) == pysock__lower(known[k]); k++)
            continue;
        if (k == len && !known[k])
            return &pysock__key_ciphers[i];
    }
    return NULL;
}

/* The traditional form, by its DEK-Info. -1: malformed. */
static int pysock__enc_key_parse_headers(pysock__enc_key *enc_key, const pysock__object *object)
{
    pysock__der info;
    const unsigned char *comma;
    size_t i, n;
    int high, low;

    memset(enc_key, 0, sizeof *enc_key);
    if (pysock__pem_header(object, "DEK-Info", &info) < 0)
        return -1;
    comma = (const unsigned char *)memchr(info.p, ',', pysock__der_len(&info));
    if (!comma)
        return -1;
    n = (size_t)(comma - info.p);
    for (i = 0; i < n; i++)
        if (info.p[i] < ' ' || info.p[i] > '~')
            return -1;
    enc_key->cipher = pysock__enc_key_find(info.p, n);
    enc_key->data = object->der.data;
    enc_key->len = object->der.len;
    if (!enc_key->cipher) {
        snprintf(enc_key->text, sizeof enc_key->text, "%.*s", (int)(n < 40 ? n : 40),
                 (const char *)info.p);
        enc_key->unsupported = enc_key->text;
        return 0;
    }
    if ((size_t)(info.end - comma - 1) != 2 * enc_key->cipher->vtable->block_size)
        return -1;
    for (i = 0; i < enc_key->cipher->vtable->block_size; i++) {
        high = pysock__hex_digit(comma[1 + 2 * i]);
        low = pysock__hex_digit(comma[2 + 2 * i]);
        if (high < 0 || low < 0)
            return -1;
        enc_key->iv[i] = (unsigned char)(high << 4 | low);
    }
    return pysock__enc_key_check(enc_key);
}

/* Keys: an identity, a chain and its private key. */

typedef struct pysock__identity {
    int refs; /* atomic */
    /* set once */
    br_x509_certificate chain[PYSOCK__CHAIN_CERTS];
    size_t count;
    int key_type;    /* BR_KEYTYPE_RSA or _EC */
    int signer_type; /* of the key that signed the leaf */
    br_skey_decoder_context key;
    char other[64]; /* while loading: the label of another kind of object */
} pysock__identity;

static void pysock__identity_release(pysock__identity *id)
{
    size_t i;

    if (!id || pysock__add(&id->refs, -1))
        return;
    for (i = 0; i < id->count; i++)
        pysock__free(id->chain[i].data);
    pysock__wipe(&id->key, sizeof id->key);
    pysock__free(id);
}

/* Adds a certificate to the chain that is sent. It must be well-formed. */
static int pysock__identity_add_cert(void *arg, const pysock__object *object,
                                     pysock__file_fault *fault)
{
    pysock__identity *id = (pysock__identity *)arg;
    size_t len = object->der.len;
    unsigned char *copy;
    pysock__der all, in;
    pysock__cert cert;

    if (!pysock__label_is_certificate(object->name)) {
        snprintf(id->other, sizeof id->other, "%s", object->name);
        return pysock__object_unwanted(object, fault);
    }
    if (id->count == PYSOCK__CHAIN_CERTS)
        return -E2BIG;
    all.p = object->der.data;
    all.end = all.p + len;
    if (strcmp(object->name, "TRUSTED CERTIFICATE") == 0
        && pysock__der_expect(&all, 0x30, &in) == 0)
        len = (size_t)(in.end - object->der.data); /* the trust settings after it are not sent */
    if (pysock__cert_parse(&cert, object->der.data, len) < 0)
        return pysock__file_damaged(fault, fault->number, cert.problem);
    copy = (unsigned char *)pysock__alloc(len);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, object->der.data, len);
    id->chain[id->count].data = copy;
    id->chain[id->count++].data_len = len;
    return 0;
}

/* 1 if the certificate's key verifies a signature by this one. BearSSL cannot compute a modulus of
   4,096 bits; and a key whose parts do not match must not sign anything for a peer. */
static int pysock__identity_signs(pysock__identity *id, const br_x509_pkey *pub)
{
    const br_rsa_private_key *sk = br_skey_decoder_get_rsa(&id->key);
    unsigned char signature[PYSOCK__RSA_MAX], hash[br_sha256_SIZE] = {0}, got[br_sha256_SIZE];
    size_t len = ((size_t)sk->n_bitlen + 7) / 8;

    return len <= sizeof signature
           && br_rsa_pkcs1_sign_get_default()(BR_HASH_OID_SHA256, hash, sizeof hash, sk, signature)
           && br_rsa_pkcs1_vrfy_get_default()(signature, len, BR_HASH_OID_SHA256, sizeof got,
                                              &pub->key.rsa, got)
           && memcmp(got, hash, sizeof got) == 0;
}

/* 1 if the private key belongs to the leaf. */
static int pysock__identity_fits(pysock__identity *id, const br_x509_pkey *pub)
{
    unsigned char own[BR_EC_KBUF_PUB_MAX_SIZE];
    const br_ec_private_key *sk;
    br_ec_public_key pk;
    size_t len;

    if (pub->key_type != id->key_type)
        return 0;
    if (id->key_type == BR_KEYTYPE_RSA)
        return pysock__identity_signs(id, pub);
    sk = br_skey_decoder_get_ec(&id->key);
    len = br_ec_compute_pub(br_ec_get_default(), &pk, own, sk);
    return len && sk->curve == pub->key.ec.curve && len == pub->key.ec.qlen
           && memcmp(own, pub->key.ec.q, len) == 0;
}

static int pysock__identity_check(pysock__identity *id, const char *certname, const char *keyname)
{
    pysock__cert leaf;
    char kind[80];

    if (pysock__cert_parse(&leaf, id->chain[0].data, id->chain[0].data_len) < 0)
        return pysock__fail_memory("ssl_load_cert_chain"); /* it has been parsed before */
    if (!leaf.key.key_type)
        return pysock__fail(PYSOCK_SSL_ERROR, 0, "UNSUPPORTED_CERTIFICATE",
                            "%.160s: the first certificate has %s, which this library cannot use",
                            certname, pysock__cert_key_kind(&leaf, kind, sizeof kind));
    if (!pysock__identity_fits(id, &leaf.key))
        return pysock__fail(
            PYSOCK_SSL_ERROR, 0, "KEY_VALUES_MISMATCH",
            "%.160s: the private key does not belong to the first certificate of %.160s", keyname,
            certname);
    id->signer_type = leaf.sig_alg ? leaf.sig_alg->key_type : 0;
    return 0;
}

typedef struct pysock__key_load {
    pysock__identity *id;
    const char *name; /* of the file, for messages */
    const pysock_ssl_chain_options *options;
    int result;           /* once a key is found */
    unsigned number;      /* of the object that is the key */
    char other[64];       /* the label of another kind of object in the file */
    pysock__bytes params; /* of EC PARAMETERS, if there were any */
    char password[PYSOCK__PASSWORD_MAX];
    size_t password_len;
} pysock__key_load;

static int pysock__fail_key_damaged(const pysock__key_load *load)
{
    return pysock__fail(PYSOCK_SSL_ERROR, 0, "PEM_LIB",
                        "%.200s: object %u in it, the private key, is damaged or cut off (its DER "
                        "cannot be read)",
                        load->name, load->number);
}

static int pysock__fail_key_kind(const pysock__key_load *load, const char *kind)
{
    return pysock__fail(PYSOCK_SSL_ERROR, 0, "UNSUPPORTED_PRIVATE_KEY_ALGORITHM",
                        "%.160s: the private key is %s, which is not supported; take an RSA key "
                        "of up to 4,096 bits, or an EC key on P-256, P-384 or P-521",
                        load->name, kind);
}

/* Parses the key and keeps it. -EACCES: it is not a key. */
static int pysock__key_take(pysock__key_load *load, const pysock__bytes *der)
{
    pysock__key_form form;
    pysock__der params = {NULL, NULL};

    if (load->params.len) {
        params.p = load->params.data;
        params.end = load->params.data + load->params.len;
    }
    if (pysock__key_parse(der, params, &form) < 0)
        return -EACCES;
    if (form.unsupported)
        return pysock__fail_key_kind(load, form.unsupported);
    load->id->key_type = pysock__key_decode(&load->id->key, der, &form);
    return load->id->key_type ? 0 : -EACCES;
}

/* Gets the password, only once one is needed. */
static int pysock__key_ask(pysock__key_load *load)
{
    const pysock_ssl_chain_options *o = load->options;
    size_t size = sizeof load->password, n;
    ptrdiff_t got;

    if (o->password) {
        n = strlen(o->password);
        memcpy(load->password, o->password, n < size ? n : size);
    } else if (o->password_callback) {
        got = o->password_callback(o->arg, load->password, size);
        if (got < 0)
            return pysock__fail(PYSOCK_SSL_ERROR, 0, "BAD_PASSWORD_READ",
                                "%.200s: the private key is encrypted, and the callback gave no "
                                "password",
                                load->name);
        n = (size_t)got;
    } else {
        return pysock__fail(PYSOCK_SSL_ERROR, 0, "BAD_PASSWORD_READ",
                            "%.160s: the private key is encrypted, and there is no password; give "
                            "one to pysock_ssl_load_cert_chain_ex(), or decrypt the key with: "
                            "openssl pkey -in KEY -out PLAIN",
                            load->name);
    }
    if (n > size)
        return pysock__fail_value("ssl_load_cert_chain",
                                  "password cannot be longer than 1024 bytes");
    load->password_len = n;
    return 0;
}

static int pysock__key_take_encrypted(pysock__key_load *load, pysock__enc_key *enc_key)
{
    pysock__bytes plain = {NULL, 0, 0, 0};
    int err;

    if (enc_key->unsupported)
        return pysock__fail(PYSOCK_SSL_ERROR, 0, "UNSUPPORTED_ENCRYPTION",
                            "%.160s: the private key is encrypted with %s, which is not supported; "
                            "encrypt it anew: openssl pkcs8 -topk8 -v2 aes-256-cbc -in KEY -out "
                            "NEW",
                            load->name, enc_key->unsupported);
    if (pysock__key_ask(load) < 0)
        return -1;
    err = pysock__key_open(enc_key, load->password, load->password_len, &plain);
    if (err == 0)
        err = pysock__key_take(load, &plain);
    pysock__bytes_free(&plain);
    if (err == -ENOMEM)
        return pysock__fail_memory("ssl_load_cert_chain");
    if (err == -EACCES)
        return pysock__fail(PYSOCK_SSL_ERROR, 0, "BAD_DECRYPT",
                            "%.200s: the private key cannot be decrypted: the password is wrong, "
                            "or the file is damaged",
                            load->name);
    return err;
}

static int pysock__key_load_object(pysock__key_load *load, const pysock__object *object)
{
    static const char openssh[] = "in OpenSSH's form (ssh-keygen -p -m PKCS8 -f KEY changes it)";
    pysock__enc_key enc_key;
    pysock__der type;
    int err;

    if (strcmp(object->name, "DSA PRIVATE KEY") == 0)
        return pysock__fail_key_kind(load, "a DSA key");
    if (strcmp(object->name, "OPENSSH PRIVATE KEY") == 0)
        return pysock__fail_key_kind(load, openssh);
    if (strcmp(object->name, "ENCRYPTED PRIVATE KEY") == 0) {
        err = pysock__enc_key_parse_pkcs8(&enc_key, &object->der);
    } else if (pysock__pem_header(object, "Proc-Type", &type) == 0
               && pysock__der_is(&type, "4,ENCRYPTED", 11)) {
        err = pysock__enc_key_parse_headers(&enc_key, object);
    } else {
        err = pysock__key_take(load, &object->der);
        return err == -EACCES ? pysock__fail_key_damaged(load) : err;
    }
    return err < 0 ? pysock__fail_key_damaged(load) : pysock__key_take_encrypted(load, &enc_key);
}

/* 1 when a key is found, so that the search ends. */
static int pysock__key_load_each(void *arg, const pysock__object *object, pysock__file_fault *fault)
{
    pysock__key_load *load = (pysock__key_load *)arg;

    if (strcmp(object->name, "EC PARAMETERS") == 0) {
        load->params.len = 0;
        pysock__bytes_append(&load->params, object->der.data, object->der.len);
        return load->params.out_of_memory ? -ENOMEM : 0;
    }
    if (!pysock__label_is_key(object->name)) {
        snprintf(load->other, sizeof load->other, "%s", object->name);
        return pysock__label_is_certificate(object->name) ? 0
                                                          : pysock__object_unwanted(object, fault);
    }
    load->number = fault->number;
    load->result = pysock__key_load_object(load, object);
    return 1;
}

static int pysock__fail_chain(int err, const char *name, const pysock__file_fault *fault)
{
    if (err == -ENOMEM)
        return pysock__fail_memory("ssl_load_cert_chain");
    if (err == -E2BIG)
        return pysock__fail(PYSOCK_SSL_ERROR, 0, "CERTIFICATE_CHAIN_TOO_LONG",
                            "%.200s: more than %d certificates", name, PYSOCK__CHAIN_CERTS);
    return pysock__fail_in_file(name, fault, "PEM_LIB");
}

/* Finds and loads the private key. */
static int pysock__identity_load_key(pysock__identity *id, const pysock__bytes *key,
                                     const char *keyname, const pysock_ssl_chain_options *options)
{
    pysock__key_load *load = (pysock__key_load *)pysock__alloc(sizeof *load);
    pysock__file_fault fault;
    int err;

    if (!load)
        return pysock__fail_memory("ssl_load_cert_chain");
    load->id = id;
    load->name = keyname;
    load->options = options;
    err = pysock__file_each(key, &fault, pysock__key_load_each, load);
    if (err < 0 && load->result == 0)
        err = pysock__fail_chain(err, keyname, &fault);
    else if (err)
        err = load->result;
    else
        err = pysock__fail_not_in_file(keyname, "private key", "PRIVATE KEY", load->other, key->len,
                                       "NO_START_LINE");
    pysock__bytes_free(&load->params);
    pysock__wipe(load, sizeof *load);
    pysock__free(load);
    return err;
}

/* Builds an identity from the contents of two files; the names are for messages. NULL on error. */
static pysock__identity *pysock__identity_new(const pysock__bytes *cert, const char *certname,
                                              const pysock__bytes *key, const char *keyname,
                                              const pysock_ssl_chain_options *options)
{
    pysock__identity *id = (pysock__identity *)pysock__alloc(sizeof *id);
    pysock__file_fault fault;
    int err;

    if (!id) {
        pysock__fail_memory("ssl_load_cert_chain");
        return NULL;
    }
    id->refs = 1;
    err = pysock__file_each(cert, &fault, pysock__identity_add_cert, id);
    if (err < 0) {
        pysock__fail_chain(err, certname, &fault);
        goto failed;
    }
    if (!id->count) {
        pysock__fail_not_in_file(certname, "certificate", "CERTIFICATE", id->other, cert->len,
                                 "NO_START_LINE");
        goto failed;
    }
    if (pysock__identity_load_key(id, key, keyname, options) == 0
        && pysock__identity_check(id, certname, keyname) == 0)
        return id;
failed:
    pysock__identity_release(id);
    return NULL;
}

#endif /* PYSOCK_NO_SSL */

/* ---- >>verifier ----
   Paths from a leaf to an anchor, and the verifier that BearSSL's engine streams the peer's chain
   into. Its work is bounded. A verifier belongs to one connection, and to the owner of its engine.
   */

#ifndef PYSOCK_NO_SSL

/* Verifier: paths. A path is built from the leaf upwards, depth first, from what the peer sent, in
   any order, and the anchors. Each link is checked before the next one is searched, the whole path
   when it reaches an anchor. Work is bounded: depth, signatures, names, look-ups. What cannot be
   checked is refused. */

#define PYSOCK__PATH_MAX 12       /* certificates in a path */
#define PYSOCK__SIGNATURES_MAX 48 /* checked in one verification */
#define PYSOCK__LOOKUPS_MAX 32    /* names looked up in directories in one verification */

/* The rules by which a chain is verified. */
typedef struct pysock__verify_rules {
    pysock_ssl_purpose purpose;
    unsigned flags;     /* PYSOCK_VERIFY_ */
    int security_level; /* 0 to 3 */
    int no_common_name; /* hostname_checks_common_name is off */
    const char *host;   /* borrowed; NULL: any */
    int64_t now;        /* seconds since 1970 */
} pysock__verify_rules;

typedef struct pysock__path {
    /* the input */
    const pysock__store *store; /* the extended one, once there is one */
    const pysock__cert *chain;  /* as sent; the first is the leaf */
    size_t chain_count;
    pysock__verify_rules rules;
    /* the path so far, the leaf first */
    const pysock__cert *certs[PYSOCK__PATH_MAX];
    size_t depth;
    /* the remaining work */
    int signatures, names;
    int partial; /* an anchor was found that is not a root */
    /* names looked up in the store's directories, and the store with the results; counted */
    pysock__store *extended;
    struct {
        uint32_t hash;
        int is_crl;
    } dir_lookups[PYSOCK__LOOKUPS_MAX];
    size_t dir_lookup_count;
    int out_of_memory;
    /* the best reason why there is no path, and the certificate at fault */
    int code;
    size_t code_depth;
    const pysock__cert *culprit;
} pysock__path;

/* Records why a path failed; the reason of the longest path is kept. Returns 0: not found. */
static int pysock__path_failed(pysock__path *b, int code, const pysock__cert *culprit)
{
    if (!b->code || b->depth > b->code_depth) {
        b->code = code;
        b->code_depth = b->depth;
        b->culprit = culprit;
    }
    return 0;
}

/* Loads certificates with this subject, or CRLs of this issuer, from the store's directories. 0, or
   -1: the limit is reached. */
static int pysock__path_look_up(pysock__path *b, const pysock__der *name, int is_crl)
{
    const pysock__store *st = b->store;
    pysock__fault before;
    uint32_t hash;
    size_t i;
    int err;

    if (!st->dir_count)
        return 0;
    err = pysock__name_hash(*name, &hash);
    b->out_of_memory |= err == -ENOMEM;
    if (err < 0)
        return 0;
    for (i = 0; i < b->dir_lookup_count; i++)
        if (b->dir_lookups[i].hash == hash && b->dir_lookups[i].is_crl == is_crl)
            return 0;
    if (b->dir_lookup_count == PYSOCK__LOOKUPS_MAX)
        return -1;
    b->dir_lookups[b->dir_lookup_count].hash = hash;
    b->dir_lookups[b->dir_lookup_count++].is_crl = is_crl;
    before = pysock__last;
    for (i = 0; i < st->dir_count; i++)
        b->out_of_memory |= pysock__store_look_in(st, &b->extended, i, hash, is_crl) < 0;
    pysock__last = before;
    if (b->extended)
        b->store = b->extended;
    return 0;
}

/* 1 if a key is too short for this security level. */
static int pysock__key_weak(const br_x509_pkey *key, int level)
{
    static const size_t least[] = {512, 1024, 2048, 3072};
    size_t bits = key->key.rsa.nlen * 8;
    unsigned first;

    if (key->key_type != BR_KEYTYPE_RSA)
        return 0;
    for (first = key->key.rsa.n[0]; first < 0x80 && bits; first = first << 1 | 1)
        bits--;
    return bits < least[level];
}

static int pysock__key_same(const br_x509_pkey *a, const br_x509_pkey *b)
{
    if (a->key_type != b->key_type || !a->key_type)
        return 0;
    if (a->key_type == BR_KEYTYPE_EC)
        return a->key.ec.curve == b->key.ec.curve && a->key.ec.qlen == b->key.ec.qlen
               && memcmp(a->key.ec.q, b->key.ec.q, a->key.ec.qlen) == 0;
    return a->key.rsa.nlen == b->key.rsa.nlen && a->key.rsa.elen == b->key.rsa.elen
           && memcmp(a->key.rsa.n, b->key.rsa.n, a->key.rsa.nlen) == 0
           && memcmp(a->key.rsa.e, b->key.rsa.e, a->key.rsa.elen) == 0;
}

/* 0, or a V_ code: the key did not sign tbs, or the algorithm is too weak for the level. */
static int pysock__signature_check(const pysock__sig_alg *alg, const pysock__der *tbs,
                                   const pysock__der *signature, const br_x509_pkey *key, int level)
{
    br_hash_compat_context hc;
    unsigned char hash[64], claimed[64];
    size_t len = pysock__der_len(signature);
    size_t hash_len;

    if (!alg)
        return PYSOCK__V_UNSUPPORTED_SIGNATURE;
    if (alg->key_type != key->key_type)
        return PYSOCK__V_BAD_SIGNATURE;
    if (!alg->hash || (alg->hash == &br_sha1_vtable && level > 0))
        return PYSOCK__V_WEAK_HASH;
    hash_len = pysock__hash_size(alg->hash);
    alg->hash->init(&hc.vtable);
    alg->hash->update(&hc.vtable, tbs->p, pysock__der_len(tbs));
    alg->hash->out(&hc.vtable, hash);
    if (alg->pss)
        return pysock__pss_verify(&key->key.rsa, alg->hash, hash, signature->p, len)
                   ? 0
                   : PYSOCK__V_BAD_SIGNATURE;
    if (alg->key_type == BR_KEYTYPE_RSA) {
        if (br_rsa_pkcs1_vrfy_get_default()(signature->p, len,
                                            (const unsigned char *)alg->digest_oid, hash_len,
                                            &key->key.rsa, claimed)
            && memcmp(claimed, hash, hash_len) == 0)
            return 0;
    } else if (br_ecdsa_vrfy_asn1_get_default()(br_ec_get_default(), hash, hash_len, &key->key.ec,
                                                signature->p, len)) {
        return 0;
    }
    return PYSOCK__V_BAD_SIGNATURE;
}

/* 1 if extendedKeyUsage is absent, or names the purpose. */
static int pysock__cert_allows(const pysock__cert *cert, pysock_ssl_purpose purpose)
{
    const char *want = purpose == PYSOCK_SERVER_AUTH ? "\x2b\x06\x01\x05\x05\x07\x03\x01"
                                                     : "\x2b\x06\x01\x05\x05\x07\x03\x02";
    pysock__der list = cert->eku, oid;

    if (!(cert->seen & PYSOCK__EXT_EKU))
        return 1;
    while (list.p < list.end && pysock__der_expect(&list, 0x06, &oid) == 0)
        if (pysock__der_is(&oid, want, 8))
            return 1;
    return 0;
}

/* 1 if keyUsage is absent, or allows what TLS needs of the leaf. */
static int pysock__leaf_usage_fits(const pysock__cert *leaf, pysock_ssl_purpose purpose)
{
    unsigned wanted = purpose == PYSOCK_SERVER_AUTH ? PYSOCK__KU_SIGN | PYSOCK__KU_ENCIPHER
                                                    : PYSOCK__KU_SIGN | PYSOCK__KU_AGREEMENT;

    return !(leaf->seen & PYSOCK__EXT_KEY_USAGE) || leaf->key_usage & wanted;
}

/* What RFC 5280 requires of every certificate; OpenSSL checks it only with X509_STRICT. */
static int pysock__cert_check_strict(const pysock__cert *cert, int top)
{
    if (cert->issuer.p == cert->issuer.end)
        return PYSOCK__V_EMPTY_ISSUER;
    if (cert->is_ca && cert->subject.p == cert->subject.end)
        return PYSOCK__V_EMPTY_SUBJECT;
    if (cert->subject.p == cert->subject.end && !(cert->critical & PYSOCK__EXT_SAN))
        return PYSOCK__V_SAN_NOT_CRITICAL;
    if (cert->is_ca && !(cert->critical & PYSOCK__EXT_BASIC))
        return PYSOCK__V_BASIC_NOT_CRITICAL;
    if (cert->is_ca && !(cert->seen & PYSOCK__EXT_KEY_USAGE))
        return PYSOCK__V_CA_NO_KEY_USAGE;
    if (!cert->is_ca && cert->pathlen >= 0)
        return PYSOCK__V_PATHLEN_OF_NO_CA;
    if (cert->pathlen >= 0 && !(cert->key_usage & PYSOCK__KU_CERT_SIGN))
        return PYSOCK__V_PATHLEN_NO_CERT_SIGN;
    if (!cert->is_ca && cert->key_usage & PYSOCK__KU_CERT_SIGN)
        return PYSOCK__V_CERT_SIGN_OF_NO_CA;
    if (cert->is_ca && cert->seen & PYSOCK__EXT_KEY_USAGE
        && !(cert->key_usage & PYSOCK__KU_CERT_SIGN))
        return PYSOCK__V_NO_CERT_SIGN;
    if (cert->critical & PYSOCK__EXT_AKI)
        return PYSOCK__V_AKI_CRITICAL;
    if (cert->critical & PYSOCK__EXT_SKI)
        return PYSOCK__V_SKI_CRITICAL;
    if (cert->version < 3)
        return PYSOCK__V_VERSION;
    if (!cert->aki.p && !top)
        return PYSOCK__V_NO_AKI;
    if (cert->is_ca && !cert->ski.p)
        return PYSOCK__V_NO_SKI;
    return PYSOCK__V_OK;
}

/* The checks of every certificate in a path, whatever its place. 0 or a V_ code. */
static int pysock__cert_check(const pysock__path *b, const pysock__cert *cert, int leaf, int top)
{
    if (cert->unknown_critical)
        return PYSOCK__V_CRITICAL_EXTENSION;
    if (cert->seen & PYSOCK__EXT_POLICY_CONSTRAINTS)
        return cert->critical & PYSOCK__EXT_POLICY_CONSTRAINTS ? PYSOCK__V_NO_POLICY
                                                               : PYSOCK__V_INVALID_EXTENSION;
    if (!cert->key.key_type)
        return PYSOCK__V_UNSUPPORTED_KEY;
    if (pysock__key_weak(&cert->key, b->rules.security_level))
        return leaf ? PYSOCK__V_LEAF_KEY : PYSOCK__V_CA_KEY;
    if (!top && cert->algorithms_differ)
        return PYSOCK__V_ALGORITHMS_DIFFER;
    if (leaf && cert->critical & PYSOCK__EXT_NAMES && !cert->is_ca)
        return PYSOCK__V_INVALID_EXTENSION;
    if (b->rules.now < cert->not_before)
        return PYSOCK__V_NOT_YET_VALID;
    if (b->rules.now > cert->not_after)
        return PYSOCK__V_EXPIRED;
    if (!pysock__cert_allows(cert, b->rules.purpose)
        || (leaf && !pysock__leaf_usage_fits(cert, b->rules.purpose)))
        return PYSOCK__V_PURPOSE;
    return b->rules.flags & PYSOCK_VERIFY_X509_STRICT ? pysock__cert_check_strict(cert, top) : 0;
}

/* Whether issuer, whose name matches, may follow in the path. 0 or a V_ code. */
static int pysock__issuer_check(pysock__path *b, const pysock__cert *issuer, int anchor)
{
    const pysock__cert *child = b->certs[b->depth - 1];
    size_t i;
    int below = 0, code;

    if (child->aki.p && issuer->ski.p && !pysock__der_equal(&child->aki, &issuer->ski))
        return PYSOCK__V_NO_LOCAL_ISSUER; /* another key of the same name */
    if (!issuer->is_ca && !(anchor && issuer->version == 1))
        return PYSOCK__V_INVALID_CA; /* except a version 1 anchor, which cannot state it */
    if (issuer->seen & PYSOCK__EXT_KEY_USAGE && !(issuer->key_usage & PYSOCK__KU_CERT_SIGN))
        return PYSOCK__V_NO_CERT_SIGN;
    code = pysock__cert_check(b, issuer, 0, anchor);
    if (code)
        return code;
    for (i = 1; i < b->depth; i++)
        below += !pysock__cert_self_issued(b->certs[i]);
    if (issuer->pathlen >= 0 && below > issuer->pathlen)
        return PYSOCK__V_PATH_LENGTH;
    if (b->signatures <= 0)
        return PYSOCK__V_CHAIN_TOO_LONG;
    b->signatures--;
    return pysock__signature_check(child->sig_alg, &child->tbs, &child->signature, &issuer->key,
                                   b->rules.security_level);
}

/* Whether a CRL whose issuer matches is valid for cert. 0 or a V_ code. */
static int pysock__crl_check(pysock__path *b, const pysock__crl *crl, const pysock__cert *cert,
                             const pysock__cert *issuer)
{
    int code;

    if (crl->unknown_critical)
        return PYSOCK__V_CRITICAL_CRL_EXTENSION;
    if (crl->is_indirect || crl->only_attributes || (cert->is_ca ? crl->only_users : crl->only_cas))
        return PYSOCK__V_CRL_SCOPE;
    if (b->rules.now < crl->this_update)
        return PYSOCK__V_CRL_NOT_YET_VALID;
    if (b->rules.now > crl->next_update)
        return PYSOCK__V_CRL_EXPIRED;
    if (issuer->seen & PYSOCK__EXT_KEY_USAGE && !(issuer->key_usage & PYSOCK__KU_CRL_SIGN))
        return PYSOCK__V_NO_CRL_SIGN;
    if (crl->algorithms_differ)
        return PYSOCK__V_CRL_SIGNATURE;
    if (b->signatures <= 0)
        return PYSOCK__V_CHAIN_TOO_LONG;
    b->signatures--;
    code = pysock__signature_check(crl->sig_alg, &crl->tbs, &crl->signature, &issuer->key,
                                   b->rules.security_level);
    return code == PYSOCK__V_BAD_SIGNATURE ? PYSOCK__V_CRL_SIGNATURE : code;
}

/* Checks a certificate against the store's CRLs: any valid one can revoke it, and at least one must
   be valid and complete. 0 or a V_ code. */
static int pysock__revocation_check(pysock__path *b, const pysock__cert *cert,
                                    const pysock__cert *issuer)
{
    int code, listed, covered = 0, why = PYSOCK__V_NO_CRL;
    const pysock__crl *crl;
    size_t i;

    if (pysock__path_look_up(b, &issuer->subject, 1) < 0)
        return PYSOCK__V_CHAIN_TOO_LONG;
    for (i = 0; i < b->store->crl_count; i++) {
        crl = &b->store->crls[i]->crl;
        if (crl->is_delta || !pysock__name_same(&crl->issuer, &cert->issuer)
            || (crl->aki.p && issuer->ski.p && !pysock__der_equal(&crl->aki, &issuer->ski)))
            continue;
        listed = pysock__crl_lists(crl, &cert->serial);
        if (covered && !listed)
            continue; /* saves a signature */
        code = pysock__crl_check(b, crl, cert, issuer);
        if (!code && listed)
            return PYSOCK__V_REVOKED;
        if (!code && crl->is_partial)
            code = PYSOCK__V_CRL_SCOPE;
        covered |= !code;
        if (code == PYSOCK__V_CHAIN_TOO_LONG)
            return code; /* it might have been the one that revokes */
        if (code && (why == PYSOCK__V_NO_CRL || why == PYSOCK__V_CRL_EXPIRED))
            why = code;
    }
    return covered ? 0 : why;
}

/* Checks what the flags require: the leaf, or every certificate except a root. 0 or a V_ code. */
static int pysock__path_revocation(pysock__path *b)
{
    const unsigned all = PYSOCK_VERIFY_CRL_CHECK_CHAIN & ~(unsigned)PYSOCK_VERIFY_CRL_CHECK_LEAF;
    size_t i, count = b->rules.flags & all ? b->depth : 1;
    int code;

    if (!(b->rules.flags & PYSOCK_VERIFY_CRL_CHECK_CHAIN))
        return 0;
    for (i = 0; i < count; i++) {
        if (i + 1 == b->depth)
            return pysock__cert_self_issued(b->certs[i]) ? 0 : PYSOCK__V_NO_CRL_ISSUER;
        code = pysock__revocation_check(b, b->certs[i], b->certs[i + 1]);
        if (code)
            return code;
    }
    return 0;
}

/* The path has reached an anchor: checks the constraints of each CA on the certificates below it,
   and revocation. 1: the path is valid. */
static int pysock__path_complete(pysock__path *b)
{
    int code, leaf = b->rules.purpose == PYSOCK_SERVER_AUTH ? PYSOCK__LEAF_OF_SERVER : 1;
    size_t above, i;

    for (above = b->depth - 1; above > 0; above--) {
        const pysock__cert *ca = b->certs[above];
        if (!(ca->seen & PYSOCK__EXT_NAMES))
            continue;
        for (i = 0; i < above; i++) {
            if (i > 0 && pysock__cert_self_issued(b->certs[i]))
                continue; /* RFC 5280, 6.1.3 (b) */
            code = pysock__constraints_check(ca, b->certs[i], i == 0 ? leaf : 0, &b->names);
            if (code)
                return pysock__path_failed(b, code, b->certs[i]);
        }
    }
    code = pysock__path_revocation(b);
    return code ? pysock__path_failed(b, code, NULL) : 1;
}

/* 1 if an anchor ends a path: it is self-issued, or partial chains are allowed. */
static int pysock__anchor_ends(const pysock__path *b, const pysock__cert *anchor)
{
    return b->rules.flags & PYSOCK_VERIFY_X509_PARTIAL_CHAIN || pysock__cert_self_issued(anchor);
}

static int pysock__path_has(const pysock__path *b, const pysock__cert *cert)
{
    size_t i;

    for (i = 0; i < b->depth; i++)
        if (pysock__der_equal(&b->certs[i]->all, &cert->all)
            || (pysock__name_same(&b->certs[i]->subject, &cert->subject)
                && pysock__key_same(&b->certs[i]->key, &cert->key)))
            return 1; /* RFC 4158, 2.4.2: the same name and key again make a loop */
    return 0;
}

/* 1 if the i-th certificate that the peer sent is a copy of an earlier one. */
static int pysock__sent_before(const pysock__path *b, size_t i)
{
    size_t k;

    for (k = 0; k < i; k++)
        if (pysock__der_equal(&b->chain[k].all, &b->chain[i].all))
            return 1;
    return 0;
}

/* 1 if the i-th anchor's trust settings reject it for this purpose. */
static int pysock__anchor_rejected(const pysock__path *b, size_t i)
{
    return (b->store->items[i]->rejected & PYSOCK__PURPOSE_BIT(b->rules.purpose)) != 0;
}

/* The i-th candidate for an issuer, anchors first; NULL after the last. The store may have been
   extended since the previous one. */
static const pysock__cert *pysock__path_candidate(const pysock__path *b, size_t anchors, size_t i)
{
    if (i < anchors)
        return &b->store->items[i]->cert;
    return i - anchors < b->chain_count ? &b->chain[i - anchors] : NULL;
}

/* Extends the path from its last certificate to an anchor. 1: the path is complete. (Recursive, at
   most PYSOCK__PATH_MAX deep.) */
static int pysock__path_extend(pysock__path *b)
{
    const pysock__cert *child = b->certs[b->depth - 1], *issuer;
    size_t i, anchors;
    int code, is_anchor, from_store;

    pysock__path_look_up(b, &child->issuer, 0);
    anchors = b->store->count;
    for (i = 0; (issuer = pysock__path_candidate(b, anchors, i)) != NULL; i++) {
        from_store = i < anchors;
        if (!issuer->all.p || !pysock__name_same(&child->issuer, &issuer->subject)
            || pysock__path_has(b, issuer) || (!from_store && pysock__sent_before(b, i - anchors)))
            continue;
        if (b->depth == PYSOCK__PATH_MAX)
            return pysock__path_failed(b, PYSOCK__V_CHAIN_TOO_LONG, NULL);
        is_anchor = from_store && pysock__anchor_ends(b, issuer);
        code = from_store && pysock__anchor_rejected(b, i)
                   ? PYSOCK__V_REJECTED
                   : pysock__issuer_check(b, issuer, is_anchor);
        if (code) {
            if (code != PYSOCK__V_NO_LOCAL_ISSUER)
                pysock__path_failed(b, code,
                                    code == PYSOCK__V_UNSUPPORTED_SIGNATURE
                                            || code == PYSOCK__V_BAD_SIGNATURE
                                        ? child
                                        : issuer);
            continue;
        }
        b->partial |= from_store && !is_anchor;
        b->certs[b->depth++] = issuer;
        if (is_anchor ? pysock__path_complete(b) : pysock__path_extend(b))
            return 1;
        b->depth--;
    }
    return 0;
}

/* 1 if the leaf itself is an anchor: a self-signed certificate that was loaded. */
static int pysock__leaf_is_anchor(pysock__path *b)
{
    size_t i;

    pysock__path_look_up(b, &b->chain[0].subject, 0);
    for (i = 0; i < b->store->count; i++)
        if (pysock__der_equal(&b->store->items[i]->cert.all, &b->chain[0].all)
            && !pysock__anchor_rejected(b, i) && pysock__anchor_ends(b, &b->chain[0]))
            return 1;
    return 0;
}

/* Why there is no path, if no better reason was found. */
static int pysock__path_missing(pysock__path *b)
{
    size_t i;

    for (i = 1; i < b->chain_count; i++)
        if (!b->chain[i].all.p) {
            b->culprit = &b->chain[i];
            return PYSOCK__V_MALFORMED; /* it may be the missing issuer */
        }
    if (b->partial)
        return PYSOCK__V_NO_ISSUER;
    if (pysock__cert_self_issued(&b->chain[0]))
        return PYSOCK__V_SELF_SIGNED_LEAF;
    for (i = 1; i < b->chain_count; i++)
        if (b->chain[i].all.p && pysock__cert_self_issued(&b->chain[i]))
            return PYSOCK__V_SELF_SIGNED_IN_CHAIN;
    return PYSOCK__V_NO_LOCAL_ISSUER;
}

/* Verifies the chain in *b, and builds the path there. 0 or a V_ code. */
static int pysock__path_verify(pysock__path *b)
{
    const pysock__cert *leaf = &b->chain[0];
    int code;

    b->certs[0] = leaf;
    b->depth = 1;
    b->signatures = PYSOCK__SIGNATURES_MAX;
    b->names = PYSOCK__NAME_CHECKS;
    if (pysock__leaf_is_anchor(b))
        code = pysock__path_revocation(b);
    else
        code = pysock__path_extend(b) ? 0 : b->code ? b->code : pysock__path_missing(b);
    if (b->out_of_memory)
        return PYSOCK__V_OUT_OF_MEMORY; /* a CRL may be missing */
    if (code)
        return code;
    b->culprit = leaf;
    return pysock__cert_check(b, leaf, 1, b->depth == 1);
}

/* Verifier: the engine's side. BearSSL streams the peer's chain into it; it keeps the chain for
   getpeercert(), and verifies it once it is complete. */

/* A certificate of the verified path. */
typedef struct pysock__path_item {
    pysock_buf *anchor; /* its DER, counted, if it is in the trust store; or NULL */
    size_t sent;        /* its index in the peer's chain, if not */
} pysock__path_item;

typedef struct pysock__verifier {
    const br_x509_class *vtable; /* first: BearSSL points to the object by it */
    /* set once */
    pysock__store *store;       /* counted; NULL: do not verify */
    pysock__verify_rules rules; /* except now */
    uint32_t *engine_flags; /* of a server with optional client certificates, borrowed; or NULL */
    /* only the owner of the engine */
    pysock__store *extended; /* counted; the store with what its directories had, or NULL */
    pysock__path_item path[PYSOCK__PATH_MAX]; /* the verified one, the leaf first */
    size_t path_count;                        /* 0: not verified */
    pysock__bytes chain;
    size_t ends[PYSOCK__CHAIN_CERTS];
    size_t count;
    int too_long;
    unsigned usages;
    br_x509_pkey pkey;
    int verify_code;
    const char *verify_message;
    char detail[240];          /* more about the failure; "" if nothing */
    char default_problem[240]; /* the context's */
    pysock_buf *same_leaf;     /* counted: in a renegotiation, the peer's former leaf; or NULL */
} pysock__verifier;

/* Drops the results of a verification. */
static void pysock__verifier_clear(pysock__verifier *v)
{
    while (v->path_count)
        pysock_buf_release(v->path[--v->path_count].anchor);
    memset(v->path, 0, sizeof v->path);
    pysock__store_release(v->extended);
    v->extended = NULL;
}

static void pysock__verifier_start_chain(const br_x509_class **ctx, const char *server_name)
{
    pysock__verifier *v = (pysock__verifier *)(void *)ctx;

    (void)server_name;
    if (v->engine_flags) /* otherwise BearSSL tolerates an invalid one too, without proof of it */
        *v->engine_flags &= ~(uint32_t)BR_OPT_TOLERATE_NO_CLIENT_AUTH;
    pysock__verifier_clear(v);
    v->chain.len = 0;
    v->count = 0;
    v->too_long = 0;
}

static void pysock__verifier_start_cert(const br_x509_class **ctx, uint32_t length)
{
    pysock__verifier *v = (pysock__verifier *)(void *)ctx;

    if (v->count == PYSOCK__CHAIN_CERTS || length > PYSOCK__CHAIN_BYTES - v->chain.len)
        v->too_long = 1;
}

static void pysock__verifier_append(const br_x509_class **ctx, const unsigned char *data, size_t n)
{
    pysock__verifier *v = (pysock__verifier *)(void *)ctx;

    if (!v->too_long)
        pysock__bytes_append(&v->chain, data, n);
}

static void pysock__verifier_end_cert(const br_x509_class **ctx)
{
    pysock__verifier *v = (pysock__verifier *)(void *)ctx;

    if (!v->too_long)
        v->ends[v->count++] = v->chain.len;
}

static unsigned pysock__verifier_refuse(pysock__verifier *v, unsigned err, int code,
                                        const char *message)
{
    v->verify_code = code;
    v->verify_message = message;
    return err;
}

static const char *pysock__verify_sentence(int code)
{
    static const struct {
        int code;
        const char *sentence;
    } table[] = {
        {PYSOCK__V_MALFORMED, "a certificate in the chain is malformed"},
        {PYSOCK__V_NO_ISSUER, "unable to get issuer certificate"},
        {PYSOCK__V_NO_CRL, "unable to get certificate CRL"},
        {PYSOCK__V_UNSUPPORTED_KEY, "unable to decode issuer public key"},
        {PYSOCK__V_BAD_SIGNATURE, "certificate signature failure"},
        {PYSOCK__V_CRL_SIGNATURE, "CRL signature failure"},
        {PYSOCK__V_NOT_YET_VALID, "certificate is not yet valid"},
        {PYSOCK__V_EXPIRED, "certificate has expired"},
        {PYSOCK__V_CRL_NOT_YET_VALID, "CRL is not yet valid"},
        {PYSOCK__V_CRL_EXPIRED, "CRL has expired"},
        {PYSOCK__V_OUT_OF_MEMORY, "out of memory"},
        {PYSOCK__V_SELF_SIGNED_LEAF, "self-signed certificate"},
        {PYSOCK__V_SELF_SIGNED_IN_CHAIN, "self-signed certificate in certificate chain"},
        {PYSOCK__V_NO_LOCAL_ISSUER, "unable to get local issuer certificate"},
        {PYSOCK__V_CHAIN_TOO_LONG, "certificate chain too long"},
        {PYSOCK__V_REVOKED, "certificate revoked"},
        {PYSOCK__V_PATH_LENGTH, "path length constraint exceeded"},
        {PYSOCK__V_PURPOSE, "unsuitable certificate purpose"},
        {PYSOCK__V_REJECTED, "certificate rejected"},
        {PYSOCK__V_NO_CERT_SIGN, "key usage does not include certificate signing"},
        {PYSOCK__V_NO_CRL_ISSUER, "unable to get CRL issuer certificate"},
        {PYSOCK__V_CRITICAL_EXTENSION, "unhandled critical extension"},
        {PYSOCK__V_NO_CRL_SIGN, "key usage does not include CRL signing"},
        {PYSOCK__V_CRITICAL_CRL_EXTENSION, "unhandled critical CRL extension"},
        {PYSOCK__V_INVALID_EXTENSION, "invalid or inconsistent certificate extension"},
        {PYSOCK__V_NO_POLICY, "no explicit policy"},
        {PYSOCK__V_CRL_SCOPE, "different CRL scope"},
        {PYSOCK__V_NOT_PERMITTED, "permitted subtree violation"},
        {PYSOCK__V_EXCLUDED, "excluded subtree violation"},
        {PYSOCK__V_SUBTREE_MINMAX, "name constraints minimum and maximum not supported"},
        {PYSOCK__V_CONSTRAINT_TYPE, "unsupported name constraint type"},
        {PYSOCK__V_CONSTRAINT_SYNTAX, "unsupported or invalid name constraint syntax"},
        {PYSOCK__V_NAME_SYNTAX, "unsupported or invalid name syntax"},
        {PYSOCK__V_HOSTNAME, "Hostname mismatch"},
        {PYSOCK__V_IP_ADDRESS, "IP address mismatch"},
        {PYSOCK__V_LEAF_KEY, "EE certificate key too weak"},
        {PYSOCK__V_CA_KEY, "CA certificate key too weak"},
        {PYSOCK__V_WEAK_HASH, "CA signature digest algorithm too weak"},
        {PYSOCK__V_UNSUPPORTED_SIGNATURE, "cannot find certificate signature algorithm"},
        {PYSOCK__V_ALGORITHMS_DIFFER, "cert info signature and signature algorithm mismatch"},
        {PYSOCK__V_INVALID_CA, "invalid CA certificate"},
        {PYSOCK__V_PATHLEN_OF_NO_CA, "Path length invalid for non-CA cert"},
        {PYSOCK__V_PATHLEN_NO_CERT_SIGN, "Path length given without key usage keyCertSign"},
        {PYSOCK__V_CERT_SIGN_OF_NO_CA, "Key usage keyCertSign invalid for non-CA cert"},
        {PYSOCK__V_EMPTY_ISSUER, "Issuer name empty"},
        {PYSOCK__V_EMPTY_SUBJECT, "Subject empty"},
        {PYSOCK__V_NO_AKI, "Missing Authority Key Identifier"},
        {PYSOCK__V_NO_SKI, "Missing Subject Key Identifier"},
        {PYSOCK__V_SAN_NOT_CRITICAL, "Empty subject and Subject Alt Name extension not critical"},
        {PYSOCK__V_BASIC_NOT_CRITICAL, "Basic Constraints of CA cert not marked critical"},
        {PYSOCK__V_AKI_CRITICAL, "Authority Key Identifier marked critical"},
        {PYSOCK__V_SKI_CRITICAL, "Subject Key Identifier marked critical"},
        {PYSOCK__V_CA_NO_KEY_USAGE, "CA cert does not include key usage extension"},
        {PYSOCK__V_VERSION, "Using cert extension requires at least X509v3"},
    };
    size_t i;

    for (i = 0; i < PYSOCK__COUNT(table); i++)
        if (table[i].code == code)
            return table[i].sentence;
    return "certificate verify failed";
}

/* BearSSL's error code for a V_ code. */
static unsigned pysock__verify_error(int code)
{
    switch (code) {
    case PYSOCK__V_OK: return 0;
    case PYSOCK__V_MALFORMED: return BR_ERR_X509_INVALID_VALUE;
    case PYSOCK__V_NOT_YET_VALID:
    case PYSOCK__V_EXPIRED:
    case PYSOCK__V_CRL_NOT_YET_VALID:
    case PYSOCK__V_CRL_EXPIRED: return BR_ERR_X509_EXPIRED;
    case PYSOCK__V_OUT_OF_MEMORY:
    case PYSOCK__V_CHAIN_TOO_LONG: return BR_ERR_X509_LIMIT_EXCEEDED;
    case PYSOCK__V_HOSTNAME:
    case PYSOCK__V_IP_ADDRESS: return BR_ERR_X509_BAD_SERVER_NAME;
    case PYSOCK__V_BAD_SIGNATURE:
    case PYSOCK__V_CRL_SIGNATURE: return BR_ERR_X509_BAD_SIGNATURE;
    case PYSOCK__V_LEAF_KEY:
    case PYSOCK__V_CA_KEY:
    case PYSOCK__V_WEAK_HASH: return BR_ERR_X509_WEAK_PUBLIC_KEY;
    case PYSOCK__V_UNSUPPORTED_KEY:
    case PYSOCK__V_UNSUPPORTED_SIGNATURE: return BR_ERR_X509_UNSUPPORTED;
    case PYSOCK__V_CRITICAL_EXTENSION:
    case PYSOCK__V_CRITICAL_CRL_EXTENSION: return BR_ERR_X509_CRITICAL_EXTENSION;
    case PYSOCK__V_PURPOSE:
    case PYSOCK__V_NO_CERT_SIGN:
    case PYSOCK__V_NO_CRL_SIGN: return BR_ERR_X509_FORBIDDEN_KEY_USAGE;
    default: return BR_ERR_X509_NOT_TRUSTED;
    }
}

/* Verifies a parsed chain whose first certificate is the leaf. 0 or a V_ code. *b is its work area:
   it has the path, and the extended store, which the caller releases. */
static int pysock__chain_check(pysock__path *b, const pysock__store *store,
                               const pysock__cert *chain, size_t count,
                               const pysock__verify_rules *rules)
{
    unsigned char ip[16];
    int code;

    memset(b, 0, sizeof *b);
    b->store = store;
    b->chain = chain;
    b->chain_count = count;
    b->rules = *rules;
    code = pysock__path_verify(b);
    if (code || !rules->host || pysock__cert_matches(&chain[0], rules->host, rules->no_common_name))
        return code;
    b->culprit = &chain[0];
    return pysock__sys_pton(rules->host, ip) ? PYSOCK__V_IP_ADDRESS : PYSOCK__V_HOSTNAME;
}

/* Parses the peer's chain. A malformed certificate after the leaf is skipped: the path may not need
   it. -1: the leaf is malformed. */
static int pysock__verifier_parse(const pysock__verifier *v, pysock__cert *chain)
{
    size_t i, start = 0;

    for (i = 0; i < v->count; start = v->ends[i++])
        if (pysock__cert_parse(&chain[i], v->chain.data + start, v->ends[i] - start) < 0)
            chain[i].all.p = NULL;
    return chain[0].all.p ? 0 : -1;
}

/* Keeps the verified path. */
static void pysock__verifier_keep_path(pysock__verifier *v, const pysock__path *b)
{
    size_t i, k;

    for (i = 0; i < b->depth; i++) {
        v->path[i].sent = 0;
        for (k = 0; k < b->chain_count; k++)
            if (b->certs[i] == &b->chain[k])
                v->path[i].sent = k;
        for (k = 0; k < b->store->count; k++)
            if (b->certs[i] == &b->store->items[k]->cert)
                v->path[i].anchor = pysock_buf_retain(b->store->items[k]->der);
    }
    v->path_count = b->depth;
}

/* Bytes from a peer, as text for a message. */
static void pysock__printable(char *out, size_t size, const unsigned char *p, size_t n)
{
    size_t i;

    for (i = 0; i < n && i + 1 < size; i++)
        out[i] = p[i] > ' ' && p[i] < 0x7f ? (char)p[i] : '?';
    out[i] = 0;
}

/* Up to four names that a certificate is valid for, as text. */
static void pysock__names_words(const pysock__cert *cert, char *out, size_t size)
{
    char name[64], ip[48];
    pysock__der list = cert->san, value;
    size_t used = 0, more = 0, reported = 0, n;
    int tag;

    out[0] = 0;
    while (list.p < list.end && (tag = pysock__der_next(&list, &value)) >= 0) {
        n = pysock__der_len(&value);
        if (tag == 0x82)
            pysock__printable(name, sizeof name, value.p, n);
        else if (tag == 0x87 && (n == 4 || n == 16))
            snprintf(name, sizeof name, "%s", pysock__sys_ip_text(value.p, n, ip, sizeof ip));
        else
            continue;
        if (reported == 4 || used + strlen(name) + 24 > size) {
            more++;
            continue;
        }
        used += (size_t)snprintf(out + used, size - used, "%s'%s'", reported++ ? ", " : "", name);
    }
    if (more)
        snprintf(out + used, size - used, " and %u more", (unsigned)more);
    else if (!reported)
        snprintf(out, size, "no host");
}

/* Sets detail: which certificate the code is about, and the cause. */
static void pysock__verifier_explain(pysock__verifier *v, const pysock__cert *chain,
                                     const pysock__cert *culprit, int code)
{
    char which[48], text[160], when[64], clock[64];
    size_t i = culprit ? (size_t)(culprit - chain) : 0;

    if (!culprit)
        return;
    if (culprit >= chain && i < v->count)
        snprintf(which, sizeof which, "certificate %u of the peer's chain", (unsigned)i + 1);
    else
        snprintf(which, sizeof which, "the trust anchor");
    switch (code) {
    case PYSOCK__V_MALFORMED:
        snprintf(v->detail, sizeof v->detail, "%s: %s", which, culprit->problem);
        break;
    case PYSOCK__V_UNSUPPORTED_KEY:
        snprintf(v->detail, sizeof v->detail, "%s has %.120s, which this library cannot use", which,
                 pysock__cert_key_kind(culprit, text, sizeof text));
        break;
    case PYSOCK__V_UNSUPPORTED_SIGNATURE:
        snprintf(v->detail, sizeof v->detail, "%s has %.120s, which this library cannot check",
                 which, pysock__cert_signature_kind(culprit, text, sizeof text));
        break;
    case PYSOCK__V_EXPIRED:
    case PYSOCK__V_NOT_YET_VALID:
        pysock__format_time(code == PYSOCK__V_EXPIRED ? culprit->not_after : culprit->not_before,
                            when, sizeof when);
        pysock__format_time(pysock__wall_seconds(), clock, sizeof clock);
        snprintf(v->detail, sizeof v->detail, "%s is valid %s %s; the clock here says %s", which,
                 code == PYSOCK__V_EXPIRED ? "until" : "from", when, clock);
        break;
    case PYSOCK__V_HOSTNAME:
    case PYSOCK__V_IP_ADDRESS:
        pysock__names_words(culprit, text, sizeof text);
        snprintf(v->detail, sizeof v->detail, "it is valid for %s", text);
        break;
    default: break;
    }
}

/* Verifies the chain by the verifier's rules. 0 or a V_ code. */
static int pysock__verifier_check_chain(pysock__verifier *v, const pysock__cert *chain)
{
    pysock__path b;
    int code;

    v->rules.now = pysock__wall_seconds();
    code = pysock__chain_check(&b, v->store, chain, v->count, &v->rules);
    v->extended = b.extended;
    if (!code)
        pysock__verifier_keep_path(v, &b);
    else
        pysock__verifier_explain(v, chain, b.culprit, code);
    return code;
}

/* Parses the chain, takes the leaf's key, and verifies the chain if there is a store. */
static unsigned pysock__verifier_check(pysock__verifier *v)
{
    pysock__cert *chain = (pysock__cert *)pysock__alloc(v->count * sizeof *chain);
    int code = 0;

    if (!chain)
        code = PYSOCK__V_OUT_OF_MEMORY;
    else if (pysock__verifier_parse(v, chain) < 0 && (v->store || !chain[0].key.key_type))
        code = PYSOCK__V_MALFORMED; /* (without verification its extensions do not matter) */
    else if (!chain[0].key.key_type)
        code = PYSOCK__V_UNSUPPORTED_KEY;
    if (code && chain)
        pysock__verifier_explain(v, chain, chain, code);
    else if (!code)
        v->pkey = chain[0].key;
    if (!code && v->store)
        code = pysock__verifier_check_chain(v, chain);
    v->usages = BR_KEYTYPE_KEYX | BR_KEYTYPE_SIGN;
    if (!code && v->store)
        v->usages = chain[0].seen & PYSOCK__EXT_KEY_USAGE
                        ? (chain[0].key_usage & PYSOCK__KU_SIGN ? BR_KEYTYPE_SIGN : 0)
                              | (chain[0].key_usage & PYSOCK__KU_ENCIPHER ? BR_KEYTYPE_KEYX : 0)
                        : BR_KEYTYPE_SIGN | BR_KEYTYPE_KEYX;
    pysock__free(chain);
    if (!code)
        return 0;
    return pysock__verifier_refuse(v, pysock__verify_error(code), code,
                                   pysock__verify_sentence(code));
}

static unsigned pysock__verifier_end_chain(const br_x509_class **ctx)
{
    pysock__verifier *v = (pysock__verifier *)(void *)ctx;

    if (v->chain.out_of_memory)
        return pysock__verifier_refuse(v, BR_ERR_X509_LIMIT_EXCEEDED, PYSOCK__V_OUT_OF_MEMORY,
                                       "out of memory");
    if (v->too_long)
        return pysock__verifier_refuse(v, BR_ERR_X509_LIMIT_EXCEEDED, PYSOCK__V_CHAIN_TOO_LONG,
                                       "certificate chain too long");
    if (!v->count)
        return pysock__verifier_refuse(v, BR_ERR_X509_EMPTY_CHAIN, PYSOCK__V_MALFORMED,
                                       "the peer sent no certificate");
    if (v->same_leaf
        && (pysock_buf_size(v->same_leaf) != v->ends[0]
            || memcmp(pysock_buf_data(v->same_leaf), v->chain.data, v->ends[0]) != 0))
        return pysock__verifier_refuse(v, BR_ERR_X509_NOT_TRUSTED, PYSOCK__V_MALFORMED,
                                       "the peer renegotiated with another certificate");
    return pysock__verifier_check(v);
}

static const br_x509_pkey *pysock__verifier_get_pkey(const br_x509_class *const *ctx,
                                                     unsigned *usages)
{
    const pysock__verifier *v = (const pysock__verifier *)(const void *)ctx;

    if (usages)
        *usages = v->usages;
    return &v->pkey;
}

static const br_x509_class pysock__verifier_class = {
    sizeof(pysock__verifier),  pysock__verifier_start_chain, pysock__verifier_start_cert,
    pysock__verifier_append,   pysock__verifier_end_cert,    pysock__verifier_end_chain,
    pysock__verifier_get_pkey,
};

static void pysock__verifier_free(pysock__verifier *v)
{
    if (!v)
        return;
    pysock__verifier_clear(v);
    pysock__store_release(v->store);
    pysock__bytes_free(&v->chain);
    pysock_buf_release(v->same_leaf);
    pysock__free(v);
}

#endif /* PYSOCK_NO_SSL */

/* ---- >>ciphers ----
   Cipher suites, their parts, and OpenSSL's language that selects and orders them. Tables and
   functions of their arguments: no state. */

#ifndef PYSOCK_NO_SSL

/* The parts of a suite, a bit for each: the key exchange with the authentication, the cipher, and
   the MAC. A keyword of the cipher language has the bits that it selects in each of these fields;
   no bits select all of a field. */
#define PYSOCK__KX_RSA 0x1u
#define PYSOCK__KX_ECDHE_RSA 0x2u
#define PYSOCK__KX_ECDHE_ECDSA 0x4u
#define PYSOCK__KX_ECDH_RSA 0x8u /* a static key, in a certificate signed with RSA */
#define PYSOCK__KX_ECDH_ECDSA 0x10u
#define PYSOCK__KX_ECDHE (PYSOCK__KX_ECDHE_RSA | PYSOCK__KX_ECDHE_ECDSA)
#define PYSOCK__KX_ECDH (PYSOCK__KX_ECDH_RSA | PYSOCK__KX_ECDH_ECDSA)
#define PYSOCK__KX 0xFFu

#define PYSOCK__ENC_AES128 0x100u
#define PYSOCK__ENC_AES256 0x200u
#define PYSOCK__ENC_AES128GCM 0x400u
#define PYSOCK__ENC_AES256GCM 0x800u
#define PYSOCK__ENC_AES128CCM 0x1000u
#define PYSOCK__ENC_AES256CCM 0x2000u
#define PYSOCK__ENC_AES128CCM8 0x4000u
#define PYSOCK__ENC_AES256CCM8 0x8000u
#define PYSOCK__ENC_CHACHA20 0x10000u
#define PYSOCK__ENC_3DES 0x20000u
#define PYSOCK__ENC_CCM8 (PYSOCK__ENC_AES128CCM8 | PYSOCK__ENC_AES256CCM8)
#define PYSOCK__ENC_CCM (PYSOCK__ENC_AES128CCM | PYSOCK__ENC_AES256CCM | PYSOCK__ENC_CCM8)
#define PYSOCK__ENC_GCM (PYSOCK__ENC_AES128GCM | PYSOCK__ENC_AES256GCM)
#define PYSOCK__ENC_ALL_AES128                                                                     \
    (PYSOCK__ENC_AES128 | PYSOCK__ENC_AES128GCM | PYSOCK__ENC_AES128CCM | PYSOCK__ENC_AES128CCM8)
#define PYSOCK__ENC_ALL_AES256                                                                     \
    (PYSOCK__ENC_AES256 | PYSOCK__ENC_AES256GCM | PYSOCK__ENC_AES256CCM | PYSOCK__ENC_AES256CCM8)
#define PYSOCK__ENC_AES (PYSOCK__ENC_ALL_AES128 | PYSOCK__ENC_ALL_AES256)
#define PYSOCK__ENC 0xFFF00u

#define PYSOCK__MAC_SHA1 0x100000u
#define PYSOCK__MAC_SHA256 0x200000u
#define PYSOCK__MAC_SHA384 0x400000u
#define PYSOCK__MAC_AEAD 0x800000u
#define PYSOCK__MAC 0xF00000u

/* In a keyword only: it selects last-resort suites, too. */
#define PYSOCK__LAST_RESORT 0x1000000u

typedef struct pysock__suite {
    uint16_t id; /* IANA's number */
    uint32_t traits;
    int bits;                  /* of strength */
    const char *name;          /* OpenSSL's */
    const char *standard_name; /* IANA's */
} pysock__suite;

#define PYSOCK__IS_AES_256_GCM_SHA384 PYSOCK__ENC_AES256GCM | PYSOCK__MAC_AEAD, 256
#define PYSOCK__IS_AES_128_GCM_SHA256 PYSOCK__ENC_AES128GCM | PYSOCK__MAC_AEAD, 128
#define PYSOCK__IS_CHACHA20_POLY1305_SHA256 PYSOCK__ENC_CHACHA20 | PYSOCK__MAC_AEAD, 256
#define PYSOCK__IS_AES_256_CCM_8 PYSOCK__ENC_AES256CCM8 | PYSOCK__MAC_AEAD, 256
#define PYSOCK__IS_AES_256_CCM PYSOCK__ENC_AES256CCM | PYSOCK__MAC_AEAD, 256
#define PYSOCK__IS_AES_128_CCM_8 PYSOCK__ENC_AES128CCM8 | PYSOCK__MAC_AEAD, 128
#define PYSOCK__IS_AES_128_CCM PYSOCK__ENC_AES128CCM | PYSOCK__MAC_AEAD, 128
#define PYSOCK__IS_AES_256_CBC_SHA384 PYSOCK__ENC_AES256 | PYSOCK__MAC_SHA384, 256
#define PYSOCK__IS_AES_256_CBC_SHA256 PYSOCK__ENC_AES256 | PYSOCK__MAC_SHA256, 256
#define PYSOCK__IS_AES_128_CBC_SHA256 PYSOCK__ENC_AES128 | PYSOCK__MAC_SHA256, 128
#define PYSOCK__IS_AES_256_CBC_SHA PYSOCK__ENC_AES256 | PYSOCK__MAC_SHA1, 256
#define PYSOCK__IS_AES_128_CBC_SHA PYSOCK__ENC_AES128 | PYSOCK__MAC_SHA1, 128
#define PYSOCK__IS_3DES_EDE_CBC_SHA PYSOCK__ENC_3DES | PYSOCK__MAC_SHA1, 112
/* clang-format off */
#define PYSOCK__SUITE(kx, rest, name)                                                              \
    {BR_TLS_##kx##_WITH_##rest, PYSOCK__KX_##kx | PYSOCK__IS_##rest, name,                         \
     "TLS_" #kx "_WITH_" #rest}
/* clang-format on */

/* BearSSL's suites in OpenSSL's order, in which the cipher language selects them: forward secrecy
   with AEAD, forward secrecy, AEAD, and the rest; within these the newer hash first, then strength,
   then ECDSA. 3DES is last of all. */
static const pysock__suite pysock__suites[] = {
    PYSOCK__SUITE(ECDHE_ECDSA, AES_256_GCM_SHA384, "ECDHE-ECDSA-AES256-GCM-SHA384"),
    PYSOCK__SUITE(ECDHE_RSA, AES_256_GCM_SHA384, "ECDHE-RSA-AES256-GCM-SHA384"),
    PYSOCK__SUITE(ECDHE_ECDSA, CHACHA20_POLY1305_SHA256, "ECDHE-ECDSA-CHACHA20-POLY1305"),
    PYSOCK__SUITE(ECDHE_RSA, CHACHA20_POLY1305_SHA256, "ECDHE-RSA-CHACHA20-POLY1305"),
    PYSOCK__SUITE(ECDHE_ECDSA, AES_256_CCM_8, "ECDHE-ECDSA-AES256-CCM8"),
    PYSOCK__SUITE(ECDHE_ECDSA, AES_256_CCM, "ECDHE-ECDSA-AES256-CCM"),
    PYSOCK__SUITE(ECDHE_ECDSA, AES_128_GCM_SHA256, "ECDHE-ECDSA-AES128-GCM-SHA256"),
    PYSOCK__SUITE(ECDHE_RSA, AES_128_GCM_SHA256, "ECDHE-RSA-AES128-GCM-SHA256"),
    PYSOCK__SUITE(ECDHE_ECDSA, AES_128_CCM_8, "ECDHE-ECDSA-AES128-CCM8"),
    PYSOCK__SUITE(ECDHE_ECDSA, AES_128_CCM, "ECDHE-ECDSA-AES128-CCM"),
    PYSOCK__SUITE(ECDHE_ECDSA, AES_256_CBC_SHA384, "ECDHE-ECDSA-AES256-SHA384"),
    PYSOCK__SUITE(ECDHE_RSA, AES_256_CBC_SHA384, "ECDHE-RSA-AES256-SHA384"),
    PYSOCK__SUITE(ECDHE_ECDSA, AES_128_CBC_SHA256, "ECDHE-ECDSA-AES128-SHA256"),
    PYSOCK__SUITE(ECDHE_RSA, AES_128_CBC_SHA256, "ECDHE-RSA-AES128-SHA256"),
    PYSOCK__SUITE(ECDHE_ECDSA, AES_256_CBC_SHA, "ECDHE-ECDSA-AES256-SHA"),
    PYSOCK__SUITE(ECDHE_RSA, AES_256_CBC_SHA, "ECDHE-RSA-AES256-SHA"),
    PYSOCK__SUITE(ECDHE_ECDSA, AES_128_CBC_SHA, "ECDHE-ECDSA-AES128-SHA"),
    PYSOCK__SUITE(ECDHE_RSA, AES_128_CBC_SHA, "ECDHE-RSA-AES128-SHA"),
    PYSOCK__SUITE(ECDH_ECDSA, AES_256_GCM_SHA384, "ECDH-ECDSA-AES256-GCM-SHA384"),
    PYSOCK__SUITE(ECDH_RSA, AES_256_GCM_SHA384, "ECDH-RSA-AES256-GCM-SHA384"),
    PYSOCK__SUITE(RSA, AES_256_GCM_SHA384, "AES256-GCM-SHA384"),
    PYSOCK__SUITE(RSA, AES_256_CCM_8, "AES256-CCM8"),
    PYSOCK__SUITE(RSA, AES_256_CCM, "AES256-CCM"),
    PYSOCK__SUITE(ECDH_ECDSA, AES_128_GCM_SHA256, "ECDH-ECDSA-AES128-GCM-SHA256"),
    PYSOCK__SUITE(ECDH_RSA, AES_128_GCM_SHA256, "ECDH-RSA-AES128-GCM-SHA256"),
    PYSOCK__SUITE(RSA, AES_128_GCM_SHA256, "AES128-GCM-SHA256"),
    PYSOCK__SUITE(RSA, AES_128_CCM_8, "AES128-CCM8"),
    PYSOCK__SUITE(RSA, AES_128_CCM, "AES128-CCM"),
    PYSOCK__SUITE(ECDH_ECDSA, AES_256_CBC_SHA384, "ECDH-ECDSA-AES256-SHA384"),
    PYSOCK__SUITE(ECDH_RSA, AES_256_CBC_SHA384, "ECDH-RSA-AES256-SHA384"),
    PYSOCK__SUITE(RSA, AES_256_CBC_SHA256, "AES256-SHA256"),
    PYSOCK__SUITE(ECDH_ECDSA, AES_128_CBC_SHA256, "ECDH-ECDSA-AES128-SHA256"),
    PYSOCK__SUITE(ECDH_RSA, AES_128_CBC_SHA256, "ECDH-RSA-AES128-SHA256"),
    PYSOCK__SUITE(RSA, AES_128_CBC_SHA256, "AES128-SHA256"),
    PYSOCK__SUITE(ECDH_ECDSA, AES_256_CBC_SHA, "ECDH-ECDSA-AES256-SHA"),
    PYSOCK__SUITE(ECDH_RSA, AES_256_CBC_SHA, "ECDH-RSA-AES256-SHA"),
    PYSOCK__SUITE(RSA, AES_256_CBC_SHA, "AES256-SHA"),
    PYSOCK__SUITE(ECDH_ECDSA, AES_128_CBC_SHA, "ECDH-ECDSA-AES128-SHA"),
    PYSOCK__SUITE(ECDH_RSA, AES_128_CBC_SHA, "ECDH-RSA-AES128-SHA"),
    PYSOCK__SUITE(RSA, AES_128_CBC_SHA, "AES128-SHA"),
    PYSOCK__SUITE(ECDHE_ECDSA, 3DES_EDE_CBC_SHA, "ECDHE-ECDSA-DES-CBC3-SHA"),
    PYSOCK__SUITE(ECDHE_RSA, 3DES_EDE_CBC_SHA, "ECDHE-RSA-DES-CBC3-SHA"),
    PYSOCK__SUITE(ECDH_ECDSA, 3DES_EDE_CBC_SHA, "ECDH-ECDSA-DES-CBC3-SHA"),
    PYSOCK__SUITE(ECDH_RSA, 3DES_EDE_CBC_SHA, "ECDH-RSA-DES-CBC3-SHA"),
    PYSOCK__SUITE(RSA, 3DES_EDE_CBC_SHA, "DES-CBC3-SHA"),
};

static const pysock__suite *pysock__suite_find(uint16_t id)
{
    size_t i;

    for (i = 0; i < PYSOCK__COUNT(pysock__suites); i++)
        if (pysock__suites[i].id == id)
            return &pysock__suites[i];
    return NULL;
}

/* The first of the names that has one of the suite's traits; NULL if none has. */
typedef struct pysock__trait_name {
    uint32_t traits;
    const char *name;
} pysock__trait_name;

static const char *pysock__suite_trait(const pysock__suite *suite, const pysock__trait_name *names,
                                       size_t count)
{
    size_t i;

    for (i = 0; i < count; i++)
        if (suite->traits & names[i].traits)
            return names[i].name;
    return NULL;
}

/* A row of get_ciphers(). The names are the short ones of OpenSSL's objects, as in Python; OpenSSL
   has none for a static ECDH key, so those follow the same pattern. */
static void pysock__suite_info(const pysock__suite *suite, pysock_ssl_cipher_info *info)
{
    static const pysock__trait_name symmetric[] = {
        {PYSOCK__ENC_AES128, "aes-128-cbc"},
        {PYSOCK__ENC_AES256, "aes-256-cbc"},
        {PYSOCK__ENC_AES128GCM, "aes-128-gcm"},
        {PYSOCK__ENC_AES256GCM, "aes-256-gcm"},
        {PYSOCK__ENC_AES128CCM | PYSOCK__ENC_AES128CCM8, "aes-128-ccm"},
        {PYSOCK__ENC_AES256CCM | PYSOCK__ENC_AES256CCM8, "aes-256-ccm"},
        {PYSOCK__ENC_CHACHA20, "chacha20-poly1305"},
        {PYSOCK__ENC_3DES, "des-ede3-cbc"},
    };
    static const pysock__trait_name digest[] = {
        {PYSOCK__MAC_SHA1, "sha1"}, {PYSOCK__MAC_SHA256, "sha256"}, {PYSOCK__MAC_SHA384, "sha384"}};
    static const pysock__trait_name kea[] = {
        {PYSOCK__KX_RSA, "kx-rsa"}, {PYSOCK__KX_ECDHE, "kx-ecdhe"}, {PYSOCK__KX_ECDH, "kx-ecdh"}};
    static const pysock__trait_name auth[] = {{PYSOCK__KX_RSA | PYSOCK__KX_ECDHE_RSA, "auth-rsa"},
                                              {PYSOCK__KX_ECDHE_ECDSA, "auth-ecdsa"},
                                              {PYSOCK__KX_ECDH, "auth-ecdh"}};

    memset(info, 0, sizeof *info);
    info->name = suite->name;
    info->standard_name = suite->standard_name;
    info->protocol = !(suite->traits & PYSOCK__MAC_SHA1) ? "TLSv1.2"
                     : suite->traits & PYSOCK__KX_RSA    ? "SSLv3"
                                                         : "TLSv1.0";
    info->symmetric = pysock__suite_trait(suite, symmetric, PYSOCK__COUNT(symmetric));
    info->digest = pysock__suite_trait(suite, digest, PYSOCK__COUNT(digest));
    info->kea = pysock__suite_trait(suite, kea, PYSOCK__COUNT(kea));
    info->auth = pysock__suite_trait(suite, auth, PYSOCK__COUNT(auth));
    info->id = suite->id;
    info->secret_bits = suite->bits;
    info->alg_bits = suite->traits & PYSOCK__ENC_3DES ? 168 : suite->bits;
    info->aead = (suite->traits & PYSOCK__MAC_AEAD) != 0;
}

static int pysock__has_fast_aes(void)
{
    return br_aes_x86ni_ctr_get_vtable() || br_aes_pwr8_ctr_get_vtable();
}

/* OpenSSL's cipher language (ciphers(1)): rules that move suites within a list. These are its
   keywords for BearSSL's suites; any other selects nothing. */
static const pysock__trait_name pysock__cipher_words[] = {
    {PYSOCK__ENC | PYSOCK__LAST_RESORT, "ALL"},
    {PYSOCK__ENC_AES | PYSOCK__ENC_CHACHA20, "HIGH"},
    {PYSOCK__ENC_3DES | PYSOCK__LAST_RESORT, "MEDIUM"},
    {PYSOCK__ENC_AES & ~PYSOCK__ENC_CCM, "FIPS"},
    {PYSOCK__KX_RSA, "kRSA"},
    {PYSOCK__KX_RSA, "RSA"},
    {PYSOCK__KX_RSA | PYSOCK__KX_ECDHE_RSA, "aRSA"},
    {PYSOCK__KX_ECDHE, "kECDHE"},
    {PYSOCK__KX_ECDHE, "kEECDH"},
    {PYSOCK__KX_ECDHE, "ECDHE"},
    {PYSOCK__KX_ECDHE, "EECDH"},
    {PYSOCK__KX_ECDHE, "ECDH"},
    {PYSOCK__KX_ECDHE_ECDSA, "aECDSA"},
    {PYSOCK__KX_ECDHE_ECDSA, "ECDSA"},
    {PYSOCK__KX_ECDH | PYSOCK__LAST_RESORT, "kECDH"},
    {PYSOCK__KX_ECDH | PYSOCK__LAST_RESORT, "aECDH"},
    {PYSOCK__KX_ECDH_RSA | PYSOCK__LAST_RESORT, "kECDHr"},
    {PYSOCK__KX_ECDH_ECDSA | PYSOCK__LAST_RESORT, "kECDHe"},
    {PYSOCK__ENC_AES, "AES"},
    {PYSOCK__ENC_ALL_AES128, "AES128"},
    {PYSOCK__ENC_ALL_AES256, "AES256"},
    {PYSOCK__ENC_GCM, "AESGCM"},
    {PYSOCK__ENC_CCM, "AESCCM"},
    {PYSOCK__ENC_CCM8, "AESCCM8"},
    {PYSOCK__ENC_CHACHA20, "CHACHA20"},
    {PYSOCK__ENC_3DES | PYSOCK__LAST_RESORT, "3DES"},
    {PYSOCK__ENC_AES128 | PYSOCK__ENC_AES256 | PYSOCK__ENC_3DES, "CBC"},
    {PYSOCK__MAC_SHA1, "SHA1"},
    {PYSOCK__MAC_SHA1, "SHA"},
    {PYSOCK__MAC_SHA256, "SHA256"},
    {PYSOCK__MAC_SHA384, "SHA384"},
    {PYSOCK__MAC_SHA1 | PYSOCK__KX_RSA, "SSLv3"},
    {PYSOCK__MAC_SHA1 | PYSOCK__KX_ECDHE | PYSOCK__KX_ECDH, "TLSv1"},
    {PYSOCK__MAC_SHA1 | PYSOCK__KX_ECDHE | PYSOCK__KX_ECDH, "TLSv1.0"},
    {PYSOCK__MAC & ~PYSOCK__MAC_SHA1, "TLSv1.2"},
};

/* Suites by their places in pysock__suites, a bit each. */
typedef uint64_t pysock__suite_set;

typedef struct pysock__ciphers {
    uint8_t order[PYSOCK__COUNT(pysock__suites)]; /* places in pysock__suites */
    size_t count;
    pysock__suite_set chosen;
    int level; /* -1 if none was named */
} pysock__ciphers;

static int pysock__suite_has(const pysock__suite *suite, uint32_t traits)
{
    return (!(traits & PYSOCK__KX) || suite->traits & traits & PYSOCK__KX)
           && (!(traits & PYSOCK__ENC) || suite->traits & traits & PYSOCK__ENC)
           && (!(traits & PYSOCK__MAC) || suite->traits & traits & PYSOCK__MAC);
}

static pysock__suite_set pysock__suites_with(uint32_t traits)
{
    pysock__suite_set set = 0;
    size_t i;

    for (i = 0; i < PYSOCK__COUNT(pysock__suites); i++)
        if (pysock__suite_has(&pysock__suites[i], traits))
            set |= (pysock__suite_set)1 << i;
    return set;
}

/* OpenSSL 3 is built without them. A general keyword ("HIGH", "AESGCM") does not select static ECDH
   keys or 3DES here, either: they must be named. */
static pysock__suite_set pysock__suites_of_last_resort(void)
{
    return pysock__suites_with(PYSOCK__KX_ECDH) | pysock__suites_with(PYSOCK__ENC_3DES);
}

static int pysock__cipher_is_word(const char *text, size_t n, const char *word)
{
    return strlen(word) == n && memcmp(text, word, n) == 0;
}

/* The suites that a keyword or a suite's name selects; *last_resort is set if these include
   last-resort ones. */
static pysock__suite_set pysock__cipher_word(const char *text, size_t n, int *last_resort)
{
    size_t i;

    for (i = 0; i < PYSOCK__COUNT(pysock__suites); i++) {
        if (!pysock__cipher_is_word(text, n, pysock__suites[i].name)
            && !pysock__cipher_is_word(text, n, pysock__suites[i].standard_name))
            continue;
        *last_resort = 1;
        return (pysock__suite_set)1 << i;
    }
    if (pysock__cipher_is_word(text, n, "COMPLEMENTOFDEFAULT")) {
        *last_resort = 1;
        return pysock__suites_of_last_resort() | pysock__suites_with(PYSOCK__ENC_CCM);
    }
    for (i = 0; i < PYSOCK__COUNT(pysock__cipher_words); i++) {
        if (!pysock__cipher_is_word(text, n, pysock__cipher_words[i].name))
            continue;
        if (pysock__cipher_words[i].traits & PYSOCK__LAST_RESORT)
            *last_resort = 1;
        return pysock__suites_with(pysock__cipher_words[i].traits);
    }
    return 0;
}

/* Applies a rule: 0 selects suites not selected yet and puts them at the end; '+' moves selected
   ones to the end, '-' deselects them and puts them first, and '!' removes them for good. */
static void pysock__ciphers_apply(pysock__ciphers *c, int rule, pysock__suite_set set)
{
    uint8_t hit[PYSOCK__COUNT(pysock__suites)], rest[PYSOCK__COUNT(pysock__suites)];
    size_t i, hits = 0, rests = 0;

    if (!rule)
        set &= ~c->chosen;
    else if (rule != '!')
        set &= c->chosen;
    for (i = 0; i < c->count; i++) {
        if (set >> c->order[i] & 1)
            hit[hits++] = c->order[i];
        else
            rest[rests++] = c->order[i];
    }
    if (rule == '!')
        hits = 0;
    c->count = hits + rests;
    memcpy(c->order + (rule == '-' ? 0 : rests), hit, hits);
    memcpy(c->order + (rule == '-' ? hits : 0), rest, rests);
    if (!rule)
        c->chosen |= set;
    else if (rule != '+')
        c->chosen &= ~set;
}

/* The strongest first; the order is kept otherwise. */
static void pysock__ciphers_sort(pysock__ciphers *c)
{
    static const int strengths[] = {256, 128, 112};
    pysock__suite_set set;
    size_t i, k;

    for (k = 0; k < PYSOCK__COUNT(strengths); k++) {
        set = 0;
        for (i = 0; i < PYSOCK__COUNT(pysock__suites); i++)
            if (pysock__suites[i].bits == strengths[k])
                set |= (pysock__suite_set)1 << i;
        pysock__ciphers_apply(c, '+', set);
    }
}

static size_t pysock__cipher_word_length(const char *text)
{
    size_t n = 0;

    while ((text[n] >= 'A' && text[n] <= 'Z') || (text[n] >= 'a' && text[n] <= 'z')
           || (text[n] >= '0' && text[n] <= '9') || (text[n] && strchr("-._=", text[n])))
        n++;
    return n;
}

/* A command after '@'. -1 if it is unknown, or if the level is higher than BearSSL can ensure. */
static int pysock__ciphers_command(pysock__ciphers *c, const char *text, size_t n)
{
    if (pysock__cipher_is_word(text, n, "STRENGTH")) {
        pysock__ciphers_sort(c);
        return 0;
    }
    if (n != 10 || memcmp(text, "SECLEVEL=", 9) != 0 || text[9] < '0' || text[9] > '3')
        return -1;
    c->level = text[9] - '0';
    return 0;
}

/* Applies one rule, from its sign on, and returns its end; NULL if it is malformed. A rule with an
   unknown keyword, or with ones that exclude each other, is skipped up to the separator. */
static const char *pysock__ciphers_rule(pysock__ciphers *c, const char *text)
{
    pysock__suite_set set = ~(pysock__suite_set)0;
    int rule = strchr("-+!@", *text) ? *text++ : 0, last_resort = 0;
    size_t n = pysock__cipher_word_length(text);

    if (rule == '@')
        return n && pysock__ciphers_command(c, text, n) == 0 ? text + strcspn(text, ":,; ") : NULL;
    for (;;) {
        n = pysock__cipher_word_length(text);
        if (!n)
            return NULL;
        set &= pysock__cipher_word(text, n, &last_resort);
        text += n;
        if (!set)
            return text + strcspn(text, ":,; ");
        if (*text != '+')
            break;
        text++;
    }
    if (!rule && !last_resort)
        set &= ~pysock__suites_of_last_resort();
    pysock__ciphers_apply(c, rule, set);
    return text;
}

static int pysock__ciphers_rules(pysock__ciphers *c, const char *text)
{
    while (text && *(text += strspn(text, ":,; ")))
        text = pysock__ciphers_rule(c, text);
    return text ? 0 : -1;
}

/* All suites, none selected yet. ChaCha20 comes after AES-256-GCM if the processor has AES (AES-GCM
   is then nine times as fast), otherwise before it (and is twice as fast). */
static void pysock__ciphers_init(pysock__ciphers *c, int fast_aes)
{
    size_t i, pass;

    memset(c, 0, sizeof *c);
    c->level = -1;
    for (pass = 0; pass < 2; pass++)
        for (i = 0; i < PYSOCK__COUNT(pysock__suites); i++)
            if ((pass == 0) == (!fast_aes && pysock__suites[i].traits & PYSOCK__ENC_CHACHA20))
                c->order[c->count++] = (uint8_t)i;
}

/* Reads text in the cipher language and writes the ids of the suites that it selects, at most
   BR_MAX_CIPHER_SUITES, in order of preference. Returns how many: 0 if it selects none, -1 if it is
   malformed. *security_level is set if it selects some and has @SECLEVEL. "DEFAULT" and the
   keywords for Suite B are recognised at the beginning only. */
static ptrdiff_t pysock__ciphers_parse(const char *text, uint16_t *out, int *security_level)
{
    static const char *const suite_b[][2] = {
        {"SUITEB128ONLY", "ECDHE-ECDSA-AES128-GCM-SHA256"},
        {"SUITEB128C2", "ECDHE-ECDSA-AES256-GCM-SHA384"},
        {"SUITEB128", "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"},
        {"SUITEB192", "ECDHE-ECDSA-AES256-GCM-SHA384"},
    };
    pysock__ciphers c;
    ptrdiff_t n = 0;
    size_t i;

    pysock__ciphers_init(&c, pysock__has_fast_aes());
    for (i = 0; i < PYSOCK__COUNT(suite_b); i++)
        if (strncmp(text, suite_b[i][0], strlen(suite_b[i][0])) == 0)
            text = suite_b[i][1];
    if (strncmp(text, "DEFAULT", 7) == 0) {
        pysock__ciphers_rules(&c, "ALL:!COMPLEMENTOFDEFAULT");
        text += 7;
    }
    if (pysock__ciphers_rules(&c, text) < 0)
        return -1;
    for (i = 0; i < c.count; i++)
        if (c.chosen >> c.order[i] & 1)
            out[n++] = pysock__suites[c.order[i]].id;
    if (n && c.level >= 0)
        *security_level = c.level;
    return n;
}

/* A context's default: forward secrecy without SHA-1, AEAD first, and AES-128, which is strong
   enough and faster, before AES-256. */
static size_t pysock__suite_list(uint16_t *out)
{
#define PYSOCK__CHACHA20_FIRST "ECDHE+CHACHA20:"
    static const char text[] =
        PYSOCK__CHACHA20_FIRST "ECDHE+AES128+AESGCM:ECDHE+AES256+AESGCM:"
                               "ECDHE+CHACHA20:ECDHE+AES128+SHA256:ECDHE+AES256+SHA384";
    size_t skip = pysock__has_fast_aes() ? sizeof PYSOCK__CHACHA20_FIRST - 1 : 0;
    int level;

    return (size_t)pysock__ciphers_parse(text + skip, out, &level);
#undef PYSOCK__CHACHA20_FIRST
}

#endif /* PYSOCK_NO_SSL */

/* ---- >>tls-errors ----
   BearSSL's errors and the alerts of RFC 5246 as OpenSSL's reasons with a sentence each, and the
   alert to send for an error. Tables: no state. */

#ifndef PYSOCK_NO_SSL

typedef struct pysock__code {
    int code;
    const char *reason, *sentence;
} pysock__code;

/* BearSSL's errors (bearssl_ssl.h). */
static const pysock__code pysock__engine_errors[] = {
    {BR_ERR_BAD_PARAM, "LENGTH_MISMATCH", "a message from the peer is malformed"},
    {BR_ERR_BAD_STATE, "INTERNAL_ERROR", "BearSSL was called in the wrong state"},
    {BR_ERR_UNSUPPORTED_VERSION, "UNSUPPORTED_PROTOCOL",
     "the peer offers no version of TLS that is enabled here"},
    {BR_ERR_BAD_VERSION, "WRONG_VERSION_NUMBER", "a record's version is not the negotiated one"},
    {BR_ERR_BAD_LENGTH, "BAD_LENGTH", "a record has an invalid length"},
    {BR_ERR_TOO_LARGE, "DATA_LENGTH_TOO_LONG", "a record or message is too large"},
    {BR_ERR_BAD_MAC, "DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "a record was damaged or forged"},
    {BR_ERR_NO_RANDOM, "PRNG_NOT_SEEDED", "the system gives no random numbers"},
    {BR_ERR_UNKNOWN_TYPE, "UNEXPECTED_RECORD", "a record has an unknown type"},
    {BR_ERR_UNEXPECTED, "UNEXPECTED_MESSAGE", "a message came out of order"},
    {BR_ERR_BAD_CCS, "BAD_CHANGE_CIPHER_SPEC", "a ChangeCipherSpec message is malformed"},
    {BR_ERR_BAD_ALERT, "BAD_ALERT", "an alert is malformed"},
    {BR_ERR_BAD_HANDSHAKE, "BAD_HANDSHAKE", "a handshake message is malformed"},
    {BR_ERR_OVERSIZED_ID, "SSL_SESSION_ID_TOO_LONG", "the peer's session id is too long"},
    {BR_ERR_BAD_CIPHER_SUITE, "WRONG_CIPHER_RETURNED",
     "the server chose a cipher suite that was not offered, or is not for this version"},
    {BR_ERR_BAD_COMPRESSION, "UNSUPPORTED_COMPRESSION_ALGORITHM", "the peer selected compression"},
    {BR_ERR_BAD_FRAGLEN, "SSL3_EXT_INVALID_MAX_FRAGMENT_LENGTH", "a bad maximum fragment length"},
    {BR_ERR_BAD_SECRENEG, "RENEGOTIATION_MISMATCH", "secure renegotiation does not match"},
    {BR_ERR_EXTRA_EXTENSION, "UNSOLICITED_EXTENSION",
     "the server sent an extension that was not requested"},
    {BR_ERR_BAD_SNI, "BAD_EXTENSION", "the server name extension is malformed"},
    {BR_ERR_BAD_HELLO_DONE, "LENGTH_MISMATCH", "ServerHelloDone is malformed"},
    {BR_ERR_LIMIT_EXCEEDED, "EXCESSIVE_MESSAGE_SIZE", "the peer's key or message is too large"},
    {BR_ERR_BAD_FINISHED, "DIGEST_CHECK_FAILED", "the Finished message does not match"},
    {BR_ERR_RESUME_MISMATCH, "OLD_SESSION_CIPHER_NOT_RETURNED", "the resumed session has changed"},
    {BR_ERR_INVALID_ALGORITHM, "NO_SHARED_SIGNATURE_ALGORITHMS",
     "the peer uses a curve or an algorithm that was not offered"},
    {BR_ERR_BAD_SIGNATURE, "BAD_SIGNATURE", "the peer's signature is wrong"},
    {BR_ERR_WRONG_KEY_USAGE, "UNKNOWN_CERTIFICATE_TYPE",
     "the certificate's key usage forbids this"},
    {BR_ERR_NO_CLIENT_AUTH, "PEER_DID_NOT_RETURN_A_CERTIFICATE", "the client sent no certificate"},
    {BR_ERR_IO, "SYSCALL", "input or output failed"},
    /* bearssl_x509.h: from the decoder that reads a leaf's key */
    {BR_ERR_X509_OK, "INTERNAL_ERROR", "the certificate was verified twice"},
    {BR_ERR_X509_INVALID_VALUE, "BAD_CERTIFICATE", "a certificate holds an invalid value"},
    {BR_ERR_X509_TRUNCATED, "BAD_CERTIFICATE", "a certificate is cut off"},
    {BR_ERR_X509_EMPTY_CHAIN, "NO_CERTIFICATES_RETURNED", "the peer sent no certificate"},
    {BR_ERR_X509_INNER_TRUNC, "BAD_CERTIFICATE", "a part of a certificate is cut off"},
    {BR_ERR_X509_BAD_TAG_CLASS, "BAD_CERTIFICATE", "a certificate has an invalid ASN.1 tag"},
    {BR_ERR_X509_BAD_TAG_VALUE, "BAD_CERTIFICATE", "a certificate has an invalid ASN.1 tag"},
    {BR_ERR_X509_INDEFINITE_LENGTH, "BAD_CERTIFICATE", "a certificate is not in DER"},
    {BR_ERR_X509_EXTRA_ELEMENT, "BAD_CERTIFICATE", "a certificate has an extra element"},
    {BR_ERR_X509_UNEXPECTED, "BAD_CERTIFICATE", "a certificate has an unexpected element"},
    {BR_ERR_X509_NOT_CONSTRUCTED, "BAD_CERTIFICATE", "a certificate is not in DER"},
    {BR_ERR_X509_NOT_PRIMITIVE, "BAD_CERTIFICATE", "a certificate is not in DER"},
    {BR_ERR_X509_PARTIAL_BYTE, "BAD_CERTIFICATE",
     "a certificate has a bit string that is not whole bytes"},
    {BR_ERR_X509_BAD_BOOLEAN, "BAD_CERTIFICATE", "a certificate has an invalid boolean"},
    {BR_ERR_X509_OVERFLOW, "BAD_CERTIFICATE", "a certificate has a number that is too large"},
    {BR_ERR_X509_BAD_DN, "BAD_CERTIFICATE", "a certificate has an invalid name"},
    {BR_ERR_X509_BAD_TIME, "BAD_CERTIFICATE", "a certificate has an invalid date"},
    {BR_ERR_X509_UNSUPPORTED, "UNSUPPORTED_CERTIFICATE", "a certificate's kind is not supported"},
    {BR_ERR_X509_LIMIT_EXCEEDED, "EXCESSIVE_MESSAGE_SIZE", "a certificate or key is too large"},
    {BR_ERR_X509_WRONG_KEY_TYPE, "WRONG_CERTIFICATE_TYPE",
     "the certificate's key does not fit the cipher suite"},
    {BR_ERR_X509_BAD_SIGNATURE, "BAD_SIGNATURE", "a certificate's signature is wrong"},
    {BR_ERR_X509_TIME_UNKNOWN, "INTERNAL_ERROR", "the time is not known"},
    {BR_ERR_X509_EXPIRED, "CERTIFICATE_EXPIRED", "a certificate is not valid at this time"},
    {BR_ERR_X509_DN_MISMATCH, "CERTIFICATE_VERIFY_FAILED", "the chain is not in order"},
    {BR_ERR_X509_BAD_SERVER_NAME, "CERTIFICATE_VERIFY_FAILED",
     "the certificate is not valid for the server's name"},
    {BR_ERR_X509_CRITICAL_EXTENSION, "CERTIFICATE_VERIFY_FAILED",
     "a critical extension is not understood"},
    {BR_ERR_X509_NOT_CA, "CERTIFICATE_VERIFY_FAILED",
     "an issuing certificate is not a CA certificate"},
    {BR_ERR_X509_FORBIDDEN_KEY_USAGE, "CERTIFICATE_VERIFY_FAILED", "a key's usage forbids this"},
    {BR_ERR_X509_WEAK_PUBLIC_KEY, "CERTIFICATE_VERIFY_FAILED", "a key is too weak"},
    {BR_ERR_X509_NOT_TRUSTED, "CERTIFICATE_VERIFY_FAILED", "the chain is not trusted"},
};

/* Alerts (RFC 5246, 7.2, and later), with the names that OpenSSL and Python give them. */
static const pysock__code pysock__alerts[] = {
    {0, "SSLV3_ALERT_CLOSE_NOTIFY", "close_notify"},
    {10, "SSLV3_ALERT_UNEXPECTED_MESSAGE", "unexpected_message"},
    {20, "SSLV3_ALERT_BAD_RECORD_MAC", "bad_record_mac"},
    {21, "TLSV1_ALERT_DECRYPTION_FAILED", "decryption_failed"},
    {22, "TLSV1_ALERT_RECORD_OVERFLOW", "record_overflow"},
    {30, "SSLV3_ALERT_DECOMPRESSION_FAILURE", "decompression_failure"},
    {40, "SSLV3_ALERT_HANDSHAKE_FAILURE", "handshake_failure"},
    {41, "SSLV3_ALERT_NO_CERTIFICATE", "no_certificate"},
    {42, "SSLV3_ALERT_BAD_CERTIFICATE", "bad_certificate"},
    {43, "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE", "unsupported_certificate"},
    {44, "SSLV3_ALERT_CERTIFICATE_REVOKED", "certificate_revoked"},
    {45, "SSLV3_ALERT_CERTIFICATE_EXPIRED", "certificate_expired"},
    {46, "SSLV3_ALERT_CERTIFICATE_UNKNOWN", "certificate_unknown"},
    {47, "SSLV3_ALERT_ILLEGAL_PARAMETER", "illegal_parameter"},
    {48, "TLSV1_ALERT_UNKNOWN_CA", "unknown_ca"},
    {49, "TLSV1_ALERT_ACCESS_DENIED", "access_denied"},
    {50, "TLSV1_ALERT_DECODE_ERROR", "decode_error"},
    {51, "TLSV1_ALERT_DECRYPT_ERROR", "decrypt_error"},
    {60, "TLSV1_ALERT_EXPORT_RESTRICTION", "export_restriction"},
    {70, "TLSV1_ALERT_PROTOCOL_VERSION", "protocol_version"},
    {71, "TLSV1_ALERT_INSUFFICIENT_SECURITY", "insufficient_security"},
    {80, "TLSV1_ALERT_INTERNAL_ERROR", "internal_error"},
    {86, "TLSV1_ALERT_INAPPROPRIATE_FALLBACK", "inappropriate_fallback"},
    {90, "TLSV1_ALERT_USER_CANCELLED", "user_canceled"},
    {100, "TLSV1_ALERT_NO_RENEGOTIATION", "no_renegotiation"},
    {110, "TLSV1_UNSUPPORTED_EXTENSION", "unsupported_extension"},
    {109, "TLSV13_ALERT_MISSING_EXTENSION", "missing_extension"},
    {111, "TLSV1_CERTIFICATE_UNOBTAINABLE", "certificate_unobtainable"},
    {112, "TLSV1_UNRECOGNIZED_NAME", "unrecognized_name"},
    {113, "TLSV1_BAD_CERTIFICATE_STATUS_RESPONSE", "bad_certificate_status_response"},
    {114, "TLSV1_BAD_CERTIFICATE_HASH_VALUE", "bad_certificate_hash_value"},
    {115, "TLSV1_ALERT_UNKNOWN_PSK_IDENTITY", "unknown_psk_identity"},
    {116, "TLSV13_ALERT_CERTIFICATE_REQUIRED", "certificate_required"},
    {120, "TLSV1_ALERT_NO_APPLICATION_PROTOCOL", "no_application_protocol"},
};

static const pysock__code *pysock__code_find(const pysock__code *table, size_t n, int code)
{
    static const pysock__code other = {-1, "UNKNOWN", "unknown"};
    size_t i;

    for (i = 0; i < n; i++)
        if (table[i].code == code)
            return &table[i];
    return &other;
}

/* The fatal alert for a failure that the engine sends none for. */
static int pysock__alert_for(int err, int verify_code)
{
    switch (verify_code) {
    case 0: break;
    case 7:
    case 8: return BR_ALERT_DECRYPT_ERROR;
    case 1:
    case 9:
    case 62:
    case 64: return BR_ALERT_BAD_CERTIFICATE;
    case 10:
    case 11:
    case 12: return BR_ALERT_CERTIFICATE_EXPIRED;
    case 23: return BR_ALERT_CERTIFICATE_REVOKED;
    case 17: return BR_ALERT_INTERNAL_ERROR;
    case 2:
    case 3:
    case 18:
    case 19:
    case 20:
    case 79: return BR_ALERT_UNKNOWN_CA;
    case 6:
    case 26:
    case 76: return BR_ALERT_UNSUPPORTED_CERTIFICATE;
    default: return BR_ALERT_CERTIFICATE_UNKNOWN;
    }
    switch (err) {
    case BR_ERR_UNSUPPORTED_VERSION:
    case BR_ERR_BAD_VERSION: return BR_ALERT_PROTOCOL_VERSION;
    case BR_ERR_BAD_LENGTH:
    case BR_ERR_TOO_LARGE: return BR_ALERT_RECORD_OVERFLOW;
    case BR_ERR_BAD_MAC: return BR_ALERT_BAD_RECORD_MAC;
    case BR_ERR_UNKNOWN_TYPE:
    case BR_ERR_UNEXPECTED:
    case BR_ERR_BAD_CCS: return BR_ALERT_UNEXPECTED_MESSAGE;
    case BR_ERR_NO_CLIENT_AUTH:
    case BR_ERR_BAD_SECRENEG: return BR_ALERT_HANDSHAKE_FAILURE;
    case BR_ERR_BAD_FINISHED:
    case BR_ERR_BAD_SIGNATURE: return BR_ALERT_DECRYPT_ERROR;
    case BR_ERR_EXTRA_EXTENSION: return BR_ALERT_UNSUPPORTED_EXTENSION;
    case BR_ERR_BAD_CIPHER_SUITE:
    case BR_ERR_INVALID_ALGORITHM:
    case BR_ERR_BAD_FRAGLEN:
    case BR_ERR_BAD_COMPRESSION:
    case BR_ERR_RESUME_MISMATCH: return BR_ALERT_ILLEGAL_PARAMETER;
    case BR_ERR_WRONG_KEY_USAGE: return BR_ALERT_UNSUPPORTED_CERTIFICATE;
    case BR_ERR_BAD_STATE:
    case BR_ERR_NO_RANDOM: return BR_ALERT_INTERNAL_ERROR;
    default: return BR_ALERT_DECODE_ERROR;
    }
}

#endif /* PYSOCK_NO_SSL */

/* ---- >>contexts ----
   SSLContext: settings, sessions, key log, and the engine settings that connections copy. A
   context's lock guards its settings and sessions; what connections use of them is counted and
   immutable. */

#ifndef PYSOCK_NO_SSL

/* Contexts: what they share with connections. */

typedef struct pysock__alpn {
    int refs; /* atomic */
    size_t count;
    const char **names; /* in the same block, like the characters */
} pysock__alpn;

static void pysock__alpn_release(pysock__alpn *a)
{
    if (a && pysock__add(&a->refs, -1) == 0)
        pysock__free(a);
}

/* A file that secrets are written to, in NSS's key log format. */
typedef struct pysock__keylog {
    int refs; /* atomic */
    char *name;
    pysock__mutex lock;
    FILE *file; /* guarded by lock */
} pysock__keylog;

static void pysock__keylog_release(pysock__keylog *k)
{
    int before;

    if (!k || pysock__add(&k->refs, -1))
        return;
    before = pysock__cancel_off();
    fclose(k->file);
    pysock__cancel_restore(before);
    pysock__mutex_free(&k->lock);
    pysock__free(k->name);
    pysock__free(k);
}

static void pysock__hex(char *out, const unsigned char *data, size_t n)
{
    static const char digits[] = "0123456789abcdef";

    while (n--) {
        *out++ = digits[*data >> 4];
        *out++ = digits[*data++ & 15];
    }
    *out = 0;
}

/* Writes a connection's line. Errors are ignored: a full disk must not end the connection. */
static void pysock__keylog_write(pysock__keylog *k, const br_ssl_engine_context *eng)
{
    char random[65], secret[97];
    volatile char *wipe = secret;
    int before;
    size_t i;

    pysock__hex(random, eng->client_random, sizeof eng->client_random);
    pysock__hex(secret, eng->session.master_secret, sizeof eng->session.master_secret);
    before = pysock__cancel_off();
    pysock__lock(&k->lock);
    fprintf(k->file, "CLIENT_RANDOM %s %s\n", random, secret);
    fflush(k->file);
    pysock__unlock(&k->lock);
    pysock__cancel_restore(before);
    for (i = 0; i < sizeof secret; i++)
        wipe[i] = 0;
}

/* The peer's chain as it was sent, and the verified path. */
typedef struct pysock__peer {
    int refs; /* atomic */
    size_t sent_count, verified_count;
    pysock_buf *certs[1]; /* first those that were sent */
} pysock__peer;

static void pysock__peer_release(pysock__peer *p)
{
    size_t i;

    if (!p || pysock__add(&p->refs, -1))
        return;
    for (i = 0; i < p->sent_count + p->verified_count; i++)
        pysock_buf_release(p->certs[i]);
    pysock__free(p);
}

static pysock__peer *pysock__peer_retain(pysock__peer *p)
{
    if (p)
        pysock__add(&p->refs, 1);
    return p;
}

/* The chain and path from a verifier. NULL: out of memory. */
static pysock__peer *pysock__peer_new(const pysock__verifier *v)
{
    pysock__peer *p =
        (pysock__peer *)pysock__alloc(sizeof *p + (v->count + v->path_count) * sizeof *p->certs);
    pysock_buf *all = pysock_buf_copy(v->chain.data, v->chain.len);
    size_t i, start = 0;

    if (!p || !all)
        goto failed;
    p->refs = 1;
    for (i = 0; i < v->count; start = v->ends[i++]) {
        p->certs[i] = pysock_buf_slice(all, start, v->ends[i] - start);
        if (!p->certs[i])
            goto failed;
        p->sent_count++;
    }
    for (i = 0; i < v->path_count; i++)
        p->certs[v->count + i] =
            pysock_buf_retain(v->path[i].anchor ? v->path[i].anchor : p->certs[v->path[i].sent]);
    p->verified_count = v->path_count;
    pysock_buf_release(all);
    return p;
failed:
    pysock_buf_release(all);
    if (p)
        p->refs = 1;
    pysock__peer_release(p);
    return NULL;
}

/* Contexts: sessions. */

#define PYSOCK__SESSION_SECONDS 7200 /* how long one lasts */

struct pysock_ssl_session {
    int refs; /* atomic */
    /* set once */
    uint64_t context; /* the serial number of its context */
    unsigned epoch;   /* the context's, when the peer was verified */
    int server;
    int unchecked_host; /* host was not checked against the peer's certificate */
    char *host;         /* a client's: the server, with the port; a server's: the name from SNI */
    int port;
    pysock__peer *peer; /* counted; may be NULL */
    int64_t time;       /* Unix time */
    br_ssl_session_parameters params;
    /* guarded by the lock of the context that caches it */
    pysock__list link;        /* the most recently used last */
    pysock_ssl_session *next; /* in its bucket */
};

static void pysock__session_release(pysock_ssl_session *se)
{
    volatile unsigned char *secret;
    size_t i;

    if (!se || pysock__add(&se->refs, -1))
        return;
    pysock__peer_release(se->peer);
    pysock__free(se->host);
    secret = se->params.master_secret;
    for (i = 0; i < sizeof se->params.master_secret; i++)
        secret[i] = 0;
    pysock__free(se);
}

static int pysock__session_expired(const pysock_ssl_session *se)
{
    int64_t age = pysock__wall_seconds() - se->time;

    return age < 0 || age > PYSOCK__SESSION_SECONDS;
}

/* The sessions that a context caches: a client's by host and port, a server's by id. */
typedef struct pysock__session_cache {
    pysock__list used; /* the most recently used last; holds a reference to each */
    pysock_ssl_session **buckets;
    size_t bucket_count, count;
} pysock__session_cache;

static size_t pysock__hash_bytes(size_t hash, const void *data, size_t n)
{
    const unsigned char *p = (const unsigned char *)data;

    while (n--)
        hash = (hash ^ *p++) * (size_t)16777619u;
    return hash;
}

static size_t pysock__hash_host(const char *host, int port)
{
    return pysock__hash_bytes(pysock__hash_bytes(2166136261u, host, strlen(host)), &port,
                              sizeof port);
}

static size_t pysock__hash_id(const unsigned char *id, size_t n)
{
    return pysock__hash_bytes(2166136261u, id, n);
}

/* Takes a session out of its context's cache, and drops the cache's reference. */
static void pysock__cache_remove_locked(pysock__session_cache *c, pysock_ssl_session *se)
{
    size_t hash = se->server ? pysock__hash_id(se->params.session_id, se->params.session_id_len)
                             : pysock__hash_host(se->host, se->port);
    pysock_ssl_session **at = &c->buckets[hash & (c->bucket_count - 1)];

    while (*at != se)
        at = &(*at)->next;
    *at = se->next;
    pysock__list_remove(&se->link);
    c->count--;
    pysock__session_release(se);
}

static void pysock__cache_clear_locked(pysock__session_cache *c)
{
    while (c->count)
        pysock__cache_remove_locked(c, PYSOCK__ENTRY(c->used.next, pysock_ssl_session, link));
}

/* A client's session with this host and port. */
static pysock_ssl_session *pysock__cache_find_host_locked(pysock__session_cache *c,
                                                          const char *host, int port)
{
    pysock_ssl_session *se = NULL;

    if (host && c->count)
        se = c->buckets[pysock__hash_host(host, port) & (c->bucket_count - 1)];
    while (se && (se->server || se->port != port || strcmp(se->host, host) != 0))
        se = se->next;
    return se;
}

/* A server's session of this id. */
static pysock_ssl_session *pysock__cache_find_id_locked(pysock__session_cache *c,
                                                        const unsigned char *id, size_t n)
{
    pysock_ssl_session *se = NULL;

    if (n && c->count)
        se = c->buckets[pysock__hash_id(id, n) & (c->bucket_count - 1)];
    while (se
           && (!se->server || se->params.session_id_len != n
               || memcmp(se->params.session_id, id, n) != 0))
        se = se->next;
    return se;
}

/* Allocates buckets for limit sessions when the first one comes. 0 or -ENOMEM. */
static int pysock__cache_grow_locked(pysock__session_cache *c, size_t limit)
{
    size_t n = 16;

    while (n < limit)
        n *= 2;
    if (c->bucket_count)
        return 0;
    c->buckets = (pysock_ssl_session **)pysock__alloc(n * sizeof *c->buckets);
    if (!c->buckets)
        return -ENOMEM;
    c->bucket_count = n;
    return 0;
}

/* Caches a session, with a reference of its own; out of memory is ignored. Returns how many older
   ones were dropped. */
static unsigned pysock__cache_add_locked(pysock__session_cache *c, pysock_ssl_session *se,
                                         size_t limit)
{
    pysock_ssl_session *old;
    pysock_ssl_session **at;
    unsigned dropped = 0;
    size_t hash;

    if (!limit || pysock__cache_grow_locked(c, limit) < 0)
        return 0;
    old = se->server
              ? pysock__cache_find_id_locked(c, se->params.session_id, se->params.session_id_len)
              : pysock__cache_find_host_locked(c, se->host, se->port);
    if (old)
        pysock__cache_remove_locked(c, old);
    while (c->count >= limit) {
        pysock__cache_remove_locked(c, PYSOCK__ENTRY(c->used.next, pysock_ssl_session, link));
        dropped++;
    }
    hash = se->server ? pysock__hash_id(se->params.session_id, se->params.session_id_len)
                      : pysock__hash_host(se->host, se->port);
    at = &c->buckets[hash & (c->bucket_count - 1)];
    se->next = *at;
    *at = se;
    pysock__list_append(&c->used, &se->link);
    pysock__add(&se->refs, 1);
    c->count++;
    return dropped;
}

/* Makes a session the most recently used one. */
static void pysock__cache_touch_locked(pysock__session_cache *c, pysock_ssl_session *se)
{
    pysock__list_remove(&se->link);
    pysock__list_append(&c->used, &se->link);
}

/* Contexts: the object. */

enum { PYSOCK__RSA, PYSOCK__EC, PYSOCK__KEY_KINDS };

struct pysock_ssl_context {
    int refs; /* atomic: the user's, and one for each connection */
    /* set once */
    int protocol;
    uint64_t serial;
    pysock__list link; /* guarded by pysock__contexts.lock */
    pysock__mutex lock;
    /* guarded by lock */
    br_ssl_engine_context engine; /* versions, suites and algorithms, to be copied: choosing them
                                     queries the processor, and in a virtual machine that traps */
    pysock__store *store;
    pysock__identity *identities[PYSOCK__KEY_KINDS];
    pysock__alpn *alpn;
    pysock__keylog *keylog;
    int (*sni_callback)(void *arg, const pysock_ssl_client_hello *hello);
    void *sni_arg;
    void (*message_callback)(void *arg, const pysock_ssl_message *m);
    void *message_arg;
    int verify_mode, check_hostname;
    pysock__verify_rules rules; /* without a purpose, a host and a time */
    uint64_t options;
    char default_problem[240]; /* load_default_certs()'s error; "" if none */
    int minimum, maximum;      /* versions, as they were set */
    uint16_t suites[BR_MAX_CIPHER_SUITES];
    size_t suite_count; /* 0: the library's own choice */
    uint32_t curves;    /* a bit for each; 0: all */
    size_t session_limit;
    unsigned session_epoch; /* raised when sessions are dropped: one that is still being verified by
                               the old rules must not be cached */
    pysock__session_cache sessions;
    pysock_ssl_session_stats stats;
};

/* All contexts, so that a forked child can renew their locks. */
static struct {
    pysock__mutex lock;
    pysock__list all;
    uint64_t serial;
} pysock__contexts = {PYSOCK__MUTEX_INIT, PYSOCK__LIST_INIT(pysock__contexts.all), 0};

static void pysock__context_release(pysock_ssl_context *ctx)
{
    size_t i;

    if (!ctx || pysock__add(&ctx->refs, -1))
        return;
    pysock__lock(&pysock__contexts.lock);
    pysock__list_remove(&ctx->link);
    pysock__unlock(&pysock__contexts.lock);
    pysock__store_release(ctx->store);
    for (i = 0; i < PYSOCK__KEY_KINDS; i++)
        pysock__identity_release(ctx->identities[i]);
    pysock__alpn_release(ctx->alpn);
    pysock__keylog_release(ctx->keylog);
    pysock__cache_clear_locked(&ctx->sessions);
    pysock__free(ctx->sessions.buckets);
    pysock__mutex_free(&ctx->lock);
    pysock__free(ctx);
}

/* Drops all cached sessions. */
static void pysock__context_forget_locked(pysock_ssl_context *ctx)
{
    ctx->session_epoch++;
    pysock__cache_clear_locked(&ctx->sessions);
}

/* The enabled versions: the highest that is allowed, and those allowed below it without a gap, as
   in OpenSSL. -1: none. */
static int pysock__context_versions_locked(const pysock_ssl_context *ctx, unsigned *low,
                                           unsigned *high)
{
    static const struct {
        int version;
        uint64_t off;
    } all[] = {{PYSOCK_TLSv1_2, PYSOCK_OP_NO_TLSv1_2},
               {PYSOCK_TLSv1_1, PYSOCK_OP_NO_TLSv1_1},
               {PYSOCK_TLSv1, PYSOCK_OP_NO_TLSv1}};
    int maximum = ctx->maximum == PYSOCK_MAXIMUM_SUPPORTED   ? PYSOCK_TLSv1_2
                  : ctx->maximum == PYSOCK_MINIMUM_SUPPORTED ? PYSOCK_TLSv1
                                                             : ctx->maximum;
    int minimum = ctx->minimum == PYSOCK_MAXIMUM_SUPPORTED ? PYSOCK_TLSv1_2 : ctx->minimum;
    size_t i;

    *low = *high = 0;
    for (i = 0; i < PYSOCK__COUNT(all); i++) {
        if (all[i].version > maximum)
            continue;
        if (all[i].version < minimum || ctx->options & all[i].off) {
            if (*high)
                break;
            continue;
        }
        *low = (unsigned)all[i].version;
        if (!*high)
            *high = *low;
    }
    return *high ? 0 : -1;
}

/* The suites of a context, in order of preference. If versions before TLS 1.2 are enabled, the
   default includes forward-secret ones for them too, with SHA-1. */
static size_t pysock__context_suites_locked(const pysock_ssl_context *ctx, int old_versions,
                                            uint16_t *out)
{
    static const uint16_t old[] = {
        BR_TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, BR_TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
        BR_TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, BR_TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA};
    size_t n, i, kept;

    n = ctx->suite_count;
    if (n) {
        memcpy(out, ctx->suites, n * sizeof *out);
    } else {
        n = pysock__suite_list(out);
        for (i = 0; old_versions && i < PYSOCK__COUNT(old); i++)
            out[n++] = old[i];
    }
    for (i = kept = 0; i < n; i++)
        if (ctx->rules.security_level < 3 || pysock__suite_find(out[i])->traits & PYSOCK__KX_ECDHE)
            out[kept++] = out[i];
    return kept;
}

/* Puts versions, suites and the hash functions that they need into the engine that connections
   copy. Only these hash functions: they are also offered for signatures. */
static void pysock__context_configure_locked(pysock_ssl_context *ctx)
{
    br_ssl_engine_context *eng = &ctx->engine;
    uint16_t suites[BR_MAX_CIPHER_SUITES];
    pysock_ssl_cipher_info info;
    unsigned low, high;
    size_t n, i;
    int old, sha1;

    if (pysock__context_versions_locked(ctx, &low, &high) < 0)
        return; /* reported when a connection is made */
    old = sha1 = low < BR_TLS12;
    n = pysock__context_suites_locked(ctx, old, suites);
    for (i = 0; i < n; i++) {
        pysock__suite_info(pysock__suite_find(suites[i]), &info);
        sha1 |= info.digest && strcmp(info.digest, "sha1") == 0;
    }
    br_ssl_engine_set_versions(eng, low, high);
    br_ssl_engine_set_suites(eng, suites, n);
    br_ssl_engine_set_hash(eng, br_md5_ID, old ? &br_md5_vtable : NULL);
    br_ssl_engine_set_hash(eng, br_sha1_ID, sha1 ? &br_sha1_vtable : NULL);
    br_ssl_engine_set_prf10(eng, &br_tls10_prf);
    br_ssl_engine_remove_flags(eng, BR_OPT_NO_RENEGOTIATION | BR_OPT_ENFORCE_SERVER_PREFERENCES);
    if (ctx->options & PYSOCK_OP_CIPHER_SERVER_PREFERENCE)
        br_ssl_engine_add_flags(eng, BR_OPT_ENFORCE_SERVER_PREFERENCES);
}

/* Selects the best code that BearSSL has for this processor. */
static void pysock__engine_choose(br_ssl_engine_context *eng)
{
    br_ssl_engine_set_default_rsavrfy(eng);
    br_ssl_engine_set_default_ecdsa(eng);
    br_ssl_engine_set_hash(eng, br_sha256_ID, &br_sha256_vtable);
    br_ssl_engine_set_hash(eng, br_sha384_ID, &br_sha384_vtable);
    br_ssl_engine_set_hash(eng, br_sha512_ID, &br_sha512_vtable);
    br_ssl_engine_set_prf_sha256(eng, &br_tls12_sha256_prf);
    br_ssl_engine_set_prf_sha384(eng, &br_tls12_sha384_prf);
    br_ssl_engine_set_default_aes_gcm(eng);
    br_ssl_engine_set_default_aes_ccm(eng);
    br_ssl_engine_set_default_aes_cbc(eng);
    br_ssl_engine_set_default_des_cbc(eng);
    br_ssl_engine_set_default_chapol(eng);
}

static pysock_ssl_context *pysock__context_new(int protocol)
{
    pysock_ssl_context *ctx = (pysock_ssl_context *)pysock__alloc(sizeof *ctx);
    int client = protocol == PYSOCK_PROTOCOL_TLS_CLIENT;

    if (!ctx)
        return NULL;
    ctx->store = pysock__store_clone(NULL);
    if (!ctx->store) {
        pysock__free(ctx);
        return NULL;
    }
    ctx->refs = 1;
    ctx->protocol = protocol;
    ctx->check_hostname = client;
    ctx->verify_mode = client ? PYSOCK_CERT_REQUIRED : PYSOCK_CERT_NONE;
    ctx->rules.flags = PYSOCK_VERIFY_X509_TRUSTED_FIRST;
    ctx->rules.security_level = 2;
    ctx->rules.no_common_name = 1;
    ctx->options = PYSOCK_OP_ALL | PYSOCK_OP_NO_SSLv3 | PYSOCK_OP_NO_COMPRESSION
                   | PYSOCK_OP_CIPHER_SERVER_PREFERENCE;
    ctx->minimum = PYSOCK_TLSv1_2;
    ctx->maximum = PYSOCK_MAXIMUM_SUPPORTED;
    if (protocol >= PYSOCK_PROTOCOL_TLSv1 && protocol <= PYSOCK_PROTOCOL_TLSv1_2)
        ctx->minimum = ctx->maximum = PYSOCK_TLSv1 + protocol - PYSOCK_PROTOCOL_TLSv1;
    ctx->session_limit = client ? 128 : 1024;
    pysock__list_init(&ctx->sessions.used);
    pysock__engine_choose(&ctx->engine);
    pysock__context_configure_locked(ctx);
    pysock__mutex_init(&ctx->lock);
    pysock__lock(&pysock__contexts.lock);
    ctx->serial = ++pysock__contexts.serial;
    pysock__list_append(&pysock__contexts.all, &ctx->link);
    pysock__unlock(&pysock__contexts.lock);
    return ctx;
}

static pysock_ssl_context *pysock__context_retain(pysock_ssl_context *ctx)
{
    if (ctx)
        pysock__add(&ctx->refs, 1);
    return ctx;
}

static void pysock__contexts_after_fork(void)
{
    pysock__list *l;

    for (l = pysock__contexts.all.next; l != &pysock__contexts.all; l = l->next) {
        pysock_ssl_context *ctx = PYSOCK__ENTRY(l, pysock_ssl_context, link);
        pysock__mutex_init(&ctx->lock);
        if (ctx->keylog)
            pysock__mutex_init(&ctx->keylog->lock);
    }
}

/* Replaces base with store, an extended copy of it; if the context has got another store meanwhile,
   merges that one's contents. Existing connections keep theirs. Takes both references. 0 or
   -ENOMEM. */
static int pysock__context_put_store(pysock_ssl_context *ctx, pysock__store *base,
                                     pysock__store *store)
{
    pysock__store *now, *merged;

    for (;;) {
        pysock__lock(&ctx->lock);
        now = ctx->store;
        if (now == base)
            ctx->store = store;
        else
            pysock__add(&now->refs, 1);
        pysock__unlock(&ctx->lock);
        pysock__store_release(base);
        if (now == base) {
            pysock__store_release(base); /* the context's own reference */
            return 0;
        }
        merged = pysock__store_clone(now);
        if (merged && pysock__store_merge(merged, store) < 0) {
            pysock__store_release(merged);
            merged = NULL;
        }
        pysock__store_release(store);
        base = now;
        store = merged;
        if (!store) {
            pysock__store_release(base);
            return -ENOMEM;
        }
    }
}

/* Keeps what a verification has loaded from the store's directories in the context; without memory
   for it, the next one loads it again. */
static void pysock__context_take_found(pysock_ssl_context *ctx, pysock__verifier *v)
{
    if (!v || !v->extended)
        return;
    pysock__add(&v->store->refs, 1);
    pysock__context_put_store(ctx, v->store, v->extended);
    v->extended = NULL;
}

/* Contexts: the calls. */

PYSOCKDEF pysock_ssl_context *pysock_ssl_context_new_protocol(pysock_ssl_protocol protocol)
{
    pysock_ssl_context *ctx;

    if ((protocol < PYSOCK_PROTOCOL_TLS || protocol > PYSOCK_PROTOCOL_TLSv1_2)
        && protocol != PYSOCK_PROTOCOL_TLS_CLIENT && protocol != PYSOCK_PROTOCOL_TLS_SERVER) {
        pysock__fail_value("ssl_context_new_protocol", "this is not a PYSOCK_PROTOCOL_ number");
        return NULL;
    }
    ctx = pysock__context_new((int)protocol);
    if (!ctx)
        pysock__fail_memory("ssl_context_new");
    return ctx;
}

PYSOCKDEF pysock_ssl_context *pysock_ssl_context_new(pysock_ssl_purpose purpose)
{
    if (purpose != PYSOCK_SERVER_AUTH && purpose != PYSOCK_CLIENT_AUTH) {
        pysock__fail_value("ssl_context_new", "purpose is not PYSOCK_SERVER_AUTH or _CLIENT_AUTH");
        return NULL;
    }
    return pysock_ssl_context_new_protocol(
        purpose == PYSOCK_SERVER_AUTH ? PYSOCK_PROTOCOL_TLS_CLIENT : PYSOCK_PROTOCOL_TLS_SERVER);
}

PYSOCKDEF pysock_ssl_context *pysock_ssl_create_default_context(pysock_ssl_purpose purpose)
{
    pysock_ssl_context *ctx = pysock_ssl_context_new(purpose);
    const char *keylog = getenv("SSLKEYLOGFILE");

    if (ctx
        && ((purpose == PYSOCK_SERVER_AUTH && pysock_ssl_load_default_certs(ctx) < 0)
            || (keylog && keylog[0] && pysock_ssl_set_keylog_filename(ctx, keylog) < 0))) {
        pysock_ssl_context_release(ctx);
        return NULL;
    }
    return ctx;
}

PYSOCKDEF pysock_ssl_context *pysock_ssl_client_context(void)
{
    return pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH);
}

PYSOCKDEF pysock_ssl_context *pysock_ssl_server_context(void)
{
    return pysock_ssl_create_default_context(PYSOCK_CLIENT_AUTH);
}

PYSOCKDEF void pysock_ssl_context_release(pysock_ssl_context *ctx)
{
    pysock__context_release(ctx);
}

PYSOCKDEF pysock_ssl_context *pysock_ssl_context_retain(pysock_ssl_context *ctx)
{
    return pysock__context_retain(ctx);
}

PYSOCKDEF pysock_ssl_protocol pysock_ssl_get_protocol(pysock_ssl_context *ctx)
{
    if (!ctx)
        pysock__fail_value("ssl_get_protocol", "ctx is NULL");
    return (pysock_ssl_protocol)(ctx ? ctx->protocol : 0);
}

/* Puts a new chain and key into the context. */
static int pysock__context_identify(pysock_ssl_context *ctx, const pysock__bytes *cert,
                                    const char *certname, const pysock__bytes *key,
                                    const char *keyname, const pysock_ssl_chain_options *options)
{
    pysock__identity *id = pysock__identity_new(cert, certname, key, keyname, options);
    pysock__identity *old, **place;

    if (!id)
        return -1;
    place = &ctx->identities[id->key_type == BR_KEYTYPE_RSA ? PYSOCK__RSA : PYSOCK__EC];
    pysock__lock(&ctx->lock);
    old = *place;
    *place = id;
    pysock__unlock(&ctx->lock);
    pysock__identity_release(old);
    return 0;
}

/* Reads the chain or the key, from memory or from a file. */
static int pysock__chain_text(pysock__bytes *text, const char *what, const void *data, size_t size,
                              const char *path, const char *reading)
{
    int err;

    if (path) {
        err = pysock__read_file(path, text);
        return err < 0 ? pysock__fail_os(err, reading, path) : 0;
    }
    return pysock__copy_bytes(data, size, text) < 0 ? pysock__fail_memory(what) : 0;
}

static int pysock__load_chain(pysock_ssl_context *ctx, const char *what,
                              const pysock_ssl_chain_options *o)
{
    pysock__bytes cert = {NULL, 0, 0, 0}, key = {NULL, 0, 0, 0};
    int own_key = o->key || o->keyfile;
    const char *certname = o->certfile ? o->certfile
                           : own_key   ? "the certificate chain in memory"
                                       : "the certificates in memory";
    const char *keyname = !own_key     ? certname
                          : o->keyfile ? o->keyfile
                                       : "the private key in memory";
    int r;

    if (!o->cert == !o->certfile)
        return pysock__fail_value(what, o->cert ? "cert and certfile cannot both be given"
                                                : "certfile is NULL");
    if (o->key && o->keyfile)
        return pysock__fail_value(what, "key and keyfile cannot both be given");
    if (pysock__check_memory(what, o->cert, o->cert_size) < 0
        || pysock__check_memory(what, o->key, o->key_size) < 0)
        return -1;
    r = pysock__chain_text(&cert, what, o->cert, o->cert_size, o->certfile,
                           "reading the certificate chain");
    if (r == 0 && own_key)
        r = pysock__chain_text(&key, what, o->key, o->key_size, o->keyfile,
                               "reading the private key");
    if (r == 0)
        r = pysock__context_identify(ctx, &cert, certname, own_key ? &key : &cert, keyname, o);
    pysock__bytes_free(&cert);
    pysock__bytes_free(&key);
    return r;
}

PYSOCKDEF int pysock_ssl_load_cert_chain_ex(pysock_ssl_context *ctx,
                                            const pysock_ssl_chain_options *options)
{
    const char *what = "ssl_load_cert_chain_ex";
    pysock_ssl_chain_options o;

    if (!ctx)
        return pysock__fail_value(what, "ctx is NULL");
    if (pysock__take_options(&o, sizeof o, options, what, "PYSOCK_SSL_CHAIN_OPTIONS_INIT") < 0)
        return -1;
    return pysock__load_chain(ctx, what, &o);
}

PYSOCKDEF int pysock_ssl_load_cert_chain(pysock_ssl_context *ctx, const char *certfile,
                                         const char *keyfile)
{
    pysock_ssl_chain_options options = PYSOCK_SSL_CHAIN_OPTIONS_INIT;

    if (!ctx)
        return pysock__fail_value("ssl_load_cert_chain", "ctx is NULL");
    options.certfile = certfile;
    options.keyfile = keyfile;
    return pysock__load_chain(ctx, "ssl_load_cert_chain", &options);
}

PYSOCKDEF int pysock_ssl_load_cert_chain_data(pysock_ssl_context *ctx, const void *cert,
                                              size_t cert_size, const void *key, size_t key_size)
{
    pysock_ssl_chain_options options = PYSOCK_SSL_CHAIN_OPTIONS_INIT;

    if (!ctx)
        return pysock__fail_value("ssl_load_cert_chain_data", "ctx is NULL");
    if (!cert)
        return pysock__fail_value("ssl_load_cert_chain_data", "cert is NULL");
    options.cert = cert;
    options.cert_size = cert_size;
    options.key = key;
    options.key_size = key_size;
    return pysock__load_chain(ctx, "ssl_load_cert_chain_data", &options);
}

/* A copy of the context's store, to be extended and put back; *base is the store itself, retained.
   NULL with an error. */
static pysock__store *pysock__context_copy_store(pysock_ssl_context *ctx, pysock__store **base)
{
    pysock__store *copy;

    pysock__lock(&ctx->lock);
    *base = ctx->store;
    pysock__add(&ctx->store->refs, 1);
    pysock__unlock(&ctx->lock);
    copy = pysock__store_clone(*base);
    if (!copy) {
        pysock__store_release(*base);
        pysock__fail_memory("loading trust anchors");
    }
    return copy;
}

/* Puts the copy back if r, the result of extending it, is 0. Takes both references. */
static int pysock__context_store_loaded(pysock_ssl_context *ctx, pysock__store *base,
                                        pysock__store *store, int r)
{
    int narrower = store->crl_count > base->crl_count;

    if (r < 0) {
        pysock__store_release(store);
        pysock__store_release(base);
        return r;
    }
    if (pysock__context_put_store(ctx, base, store) < 0)
        return pysock__fail_memory("loading trust anchors");
    if (narrower) { /* a revoked peer must not resume a session */
        pysock__lock(&ctx->lock);
        pysock__context_forget_locked(ctx);
        pysock__unlock(&ctx->lock);
    }
    return 0;
}

PYSOCKDEF int pysock_ssl_load_verify_locations(pysock_ssl_context *ctx, const char *cafile,
                                               const char *capath)
{
    pysock__store *store, *base;
    int r = 0;

    if (!ctx || (!cafile && !capath))
        return pysock__fail_value("ssl_load_verify_locations",
                                  ctx ? "cafile and capath are both NULL" : "ctx is NULL");
    store = pysock__context_copy_store(ctx, &base);
    if (!store)
        return -1;
    if (cafile)
        r = pysock__store_load_file(store, cafile);
    if (r == 0 && capath) /* a server sends the names of its CAs to clients */
        r = pysock__store_load_dir(store, capath, ctx->protocol == PYSOCK_PROTOCOL_TLS_SERVER);
    return pysock__context_store_loaded(ctx, base, store, r);
}

PYSOCKDEF int pysock_ssl_load_verify_directory(pysock_ssl_context *ctx, const char *path)
{
    pysock__store *store, *base;

    if (!ctx || !path)
        return pysock__fail_value("ssl_load_verify_directory",
                                  ctx ? "path is NULL" : "ctx is NULL");
    store = pysock__context_copy_store(ctx, &base);
    if (!store)
        return -1;
    return pysock__context_store_loaded(ctx, base, store,
                                        pysock__store_load_every_file(store, path));
}

PYSOCKDEF int pysock_ssl_load_verify_data(pysock_ssl_context *ctx, const void *data, size_t size)
{
    pysock__bytes copy = {NULL, 0, 0, 0};
    pysock__store *store, *base;
    int r;

    if (!ctx)
        return pysock__fail_value("ssl_load_verify_data", "ctx is NULL");
    if (pysock__check_memory("ssl_load_verify_data", data, size) < 0)
        return -1;
    store = pysock__context_copy_store(ctx, &base);
    if (!store)
        return -1;
    if (pysock__copy_bytes(data, size, &copy) < 0)
        r = pysock__fail_memory("loading trust anchors");
    else
        r = pysock__store_load_bytes(store, &copy, "the certificates in memory");
    pysock__bytes_free(&copy);
    return pysock__context_store_loaded(ctx, base, store, r);
}

/* Where systems keep their trust store. */
static const char *const pysock__system_stores[] = {
    "/etc/ssl/certs/ca-certificates.crt", /* Debian, Alpine, Arch */
    "/etc/pki/tls/certs/ca-bundle.crt",   /* Fedora */
    "/etc/ssl/ca-bundle.pem",             /* openSUSE */
    "/etc/ssl/cert.pem",                  /* macOS, OpenBSD, FreeBSD */
    "/usr/local/share/certs/ca-root-nss.crt",
};

/* And directories of hashed names. */
static const char *const pysock__system_dirs[] = {"/etc/ssl/certs", "/etc/pki/tls/certs"};

/* SSL_CERT_FILE and SSL_CERT_DIR replace the defaults, unless they are empty. */
static const char *pysock__default_file(void)
{
    const char *file = getenv("SSL_CERT_FILE");
    size_t i;

    if (file && file[0])
        return file;
    for (i = 0; i < PYSOCK__COUNT(pysock__system_stores); i++)
        if (pysock__path_kind(pysock__system_stores[i]) == 'f')
            return pysock__system_stores[i];
    return NULL;
}

static const char *pysock__default_dirs(void)
{
    const char *dir = getenv("SSL_CERT_DIR");
    size_t i;

    if (dir && dir[0])
        return dir;
    for (i = 0; i < PYSOCK__COUNT(pysock__system_dirs); i++)
        if (pysock__path_kind(pysock__system_dirs[i]) == 'd')
            return pysock__system_dirs[i];
    return NULL;
}

/* As in Python, a missing, empty or damaged default is no error; but a handshake that fails because
   of it reports the damage. -1: out of memory. */
static int pysock__load_default(pysock_ssl_context *ctx, const char *file, const char *dir)
{
    pysock__fault before = pysock__last;
    const char *path = file ? file : dir;

    if (pysock_ssl_load_verify_locations(ctx, file, dir) == 0)
        return 0;
    if (pysock__last.kind == PYSOCK_MEMORY_ERROR)
        return -1;
    if (file && pysock__path_kind(path) == 'f') {
        pysock__lock(&ctx->lock);
        snprintf(ctx->default_problem, sizeof ctx->default_problem, "%.230s", pysock__last.message);
        pysock__unlock(&ctx->lock);
    }
    pysock__last = before;
    return 0;
}

PYSOCKDEF int pysock_ssl_load_default_certs(pysock_ssl_context *ctx)
{
    const char *file = pysock__default_file(), *dirs = pysock__default_dirs();
    char one[1024];
    size_t n;

    if (!ctx)
        return pysock__fail_value("ssl_load_default_certs", "ctx is NULL");
    if (file && pysock__load_default(ctx, file, NULL) < 0)
        return -1;
    for (; dirs && *dirs; dirs += n + (dirs[n] == ':')) {
        n = strcspn(dirs, ":");
        if (!n || n >= sizeof one)
            continue;
        memcpy(one, dirs, n);
        one[n] = 0;
        if (pysock__load_default(ctx, NULL, one) < 0)
            return -1;
    }
    pysock__lock(&ctx->lock);
    if (!ctx->store->count && !ctx->store->dir_count && !ctx->default_problem[0])
        snprintf(ctx->default_problem, sizeof ctx->default_problem,
                 "no CA certificates were found on this system: install the package "
                 "ca-certificates");
    pysock__unlock(&ctx->lock);
    return 0;
}

PYSOCKDEF ptrdiff_t pysock_ssl_ca_count(pysock_ssl_context *ctx)
{
    size_t n;

    if (!ctx)
        return pysock__fail_value("ssl_ca_count", "ctx is NULL");
    pysock__lock(&ctx->lock);
    n = ctx->store->count;
    pysock__unlock(&ctx->lock);
    return (ptrdiff_t)n;
}

PYSOCKDEF ptrdiff_t pysock_ssl_get_ca_certs(pysock_ssl_context *ctx, pysock_buf **out, size_t count)
{
    ptrdiff_t found = 0;
    size_t i;

    if (!ctx || (!out && count))
        return pysock__fail_value("ssl_get_ca_certs", ctx ? "out is NULL" : "ctx is NULL");
    pysock__lock(&ctx->lock);
    for (i = 0; i < ctx->store->count; i++) {
        if (!pysock__cert_is_ca(&ctx->store->items[i]->cert))
            continue;
        if ((size_t)found < count)
            out[found] = pysock_buf_retain(ctx->store->items[i]->der);
        found++;
    }
    pysock__unlock(&ctx->lock);
    return found;
}

PYSOCKDEF int pysock_ssl_cert_store_stats(pysock_ssl_context *ctx, pysock_ssl_store_stats *stats)
{
    size_t i;

    if (!ctx || !stats)
        return pysock__fail_value("ssl_cert_store_stats", ctx ? "stats is NULL" : "ctx is NULL");
    memset(stats, 0, sizeof *stats);
    pysock__lock(&ctx->lock);
    stats->x509 = ctx->store->count;
    stats->crl = ctx->store->crl_count;
    for (i = 0; i < ctx->store->count; i++)
        stats->x509_ca += pysock__cert_is_ca(&ctx->store->items[i]->cert) != 0;
    pysock__unlock(&ctx->lock);
    return 0;
}

PYSOCKDEF int pysock_ssl_set_verify_mode(pysock_ssl_context *ctx, pysock_ssl_verify_mode mode)
{
    int refused;

    if (!ctx || (unsigned)mode > PYSOCK_CERT_REQUIRED)
        return pysock__fail_value("ssl_set_verify_mode", ctx ? "unknown mode" : "ctx is NULL");
    pysock__lock(&ctx->lock);
    refused = mode == PYSOCK_CERT_NONE && ctx->check_hostname;
    if (!refused) {
        ctx->verify_mode = (int)mode;
        pysock__context_forget_locked(ctx); /* they were verified by other rules */
    }
    pysock__unlock(&ctx->lock);
    return refused ? pysock__fail_value("ssl_set_verify_mode",
                                        "disable check_hostname before setting CERT_NONE")
                   : 0;
}

/* An int of the context's, read under its lock. */
static int pysock__context_get(pysock_ssl_context *ctx, size_t offset, int failure,
                               const char *what)
{
    int value;

    if (!ctx) {
        pysock__fail_value(what, "ctx is NULL");
        return failure;
    }
    pysock__lock(&ctx->lock);
    value = *(const int *)(const void *)((const char *)ctx + offset);
    pysock__unlock(&ctx->lock);
    return value;
}

PYSOCKDEF pysock_ssl_verify_mode pysock_ssl_get_verify_mode(pysock_ssl_context *ctx)
{
    return (pysock_ssl_verify_mode)pysock__context_get(
        ctx, offsetof(pysock_ssl_context, verify_mode), 0, "ssl_get_verify_mode");
}

PYSOCKDEF int pysock_ssl_set_check_hostname(pysock_ssl_context *ctx, int on)
{
    if (!ctx)
        return pysock__fail_value("ssl_set_check_hostname", "ctx is NULL");
    pysock__lock(&ctx->lock);
    ctx->check_hostname = on != 0;
    if (on && ctx->verify_mode == PYSOCK_CERT_NONE) /* as Python does */
        ctx->verify_mode = PYSOCK_CERT_REQUIRED;
    pysock__context_forget_locked(ctx);
    pysock__unlock(&ctx->lock);
    return 0;
}

PYSOCKDEF int pysock_ssl_get_check_hostname(pysock_ssl_context *ctx)
{
    return pysock__context_get(ctx, offsetof(pysock_ssl_context, check_hostname), 0,
                               "ssl_get_check_hostname");
}

PYSOCKDEF int pysock_ssl_set_hostname_checks_common_name(pysock_ssl_context *ctx, int on)
{
    if (!ctx)
        return pysock__fail_value("ssl_set_hostname_checks_common_name", "ctx is NULL");
    pysock__lock(&ctx->lock);
    ctx->rules.no_common_name = !on;
    pysock__context_forget_locked(ctx);
    pysock__unlock(&ctx->lock);
    return 0;
}

PYSOCKDEF int pysock_ssl_get_hostname_checks_common_name(pysock_ssl_context *ctx)
{
    return !pysock__context_get(ctx, offsetof(pysock_ssl_context, rules.no_common_name), 1,
                                "ssl_get_hostname_checks_common_name");
}

PYSOCKDEF int pysock_ssl_set_verify_flags(pysock_ssl_context *ctx, unsigned flags)
{
    const unsigned known = PYSOCK_VERIFY_CRL_CHECK_CHAIN | PYSOCK_VERIFY_X509_STRICT
                           | PYSOCK_VERIFY_X509_TRUSTED_FIRST | PYSOCK_VERIFY_X509_PARTIAL_CHAIN;

    if (!ctx)
        return pysock__fail_value("ssl_set_verify_flags", "ctx is NULL");
    if (flags & ~known)
        return pysock__fail(PYSOCK_OS_ERROR, ENOTSUP, "ENOTSUP",
                            "ssl_set_verify_flags: the flags 0x%x are not supported",
                            flags & ~known);
    pysock__lock(&ctx->lock);
    ctx->rules.flags = flags;
    pysock__context_forget_locked(ctx);
    pysock__unlock(&ctx->lock);
    return 0;
}

PYSOCKDEF unsigned pysock_ssl_get_verify_flags(pysock_ssl_context *ctx)
{
    unsigned flags;

    if (!ctx) {
        pysock__fail_value("ssl_get_verify_flags", "ctx is NULL");
        return 0;
    }
    pysock__lock(&ctx->lock);
    flags = ctx->rules.flags;
    pysock__unlock(&ctx->lock);
    return flags;
}

/* Applies changed settings to later connections, and drops sessions made with the old ones. */
static void pysock__context_changed_locked(pysock_ssl_context *ctx)
{
    pysock__context_configure_locked(ctx);
    pysock__context_forget_locked(ctx);
}

static int pysock__context_set_version(pysock_ssl_context *ctx, int version, int maximum,
                                       const char *what)
{
    if (!ctx)
        return pysock__fail_value(what, "ctx is NULL");
    if (ctx->protocol >= PYSOCK_PROTOCOL_TLSv1 && ctx->protocol <= PYSOCK_PROTOCOL_TLSv1_2)
        return pysock__fail_value(what, "the context's protocol has only one version");
    if (version != PYSOCK_MINIMUM_SUPPORTED && version != PYSOCK_MAXIMUM_SUPPORTED
        && (version < PYSOCK_SSLv3 || version > PYSOCK_TLSv1_3))
        return pysock__fail_value(what, "this is not a version of TLS");
    if (version == (maximum ? PYSOCK_SSLv3 : PYSOCK_TLSv1_3))
        return pysock__fail(PYSOCK_OS_ERROR, ENOTSUP, "ENOTSUP",
                            "%s: TLS 1.0, 1.1 and 1.2 are supported", what);
    pysock__lock(&ctx->lock);
    if (maximum)
        ctx->maximum = version;
    else
        ctx->minimum = version;
    pysock__context_changed_locked(ctx);
    pysock__unlock(&ctx->lock);
    return 0;
}

PYSOCKDEF int pysock_ssl_set_minimum_version(pysock_ssl_context *ctx,
                                             pysock_ssl_tls_version version)
{
    return pysock__context_set_version(ctx, version, 0, "ssl_set_minimum_version");
}

PYSOCKDEF pysock_ssl_tls_version pysock_ssl_get_minimum_version(pysock_ssl_context *ctx)
{
    return (pysock_ssl_tls_version)pysock__context_get(ctx, offsetof(pysock_ssl_context, minimum),
                                                       0, "ssl_get_minimum_version");
}

PYSOCKDEF int pysock_ssl_set_maximum_version(pysock_ssl_context *ctx,
                                             pysock_ssl_tls_version version)
{
    return pysock__context_set_version(ctx, version, 1, "ssl_set_maximum_version");
}

PYSOCKDEF pysock_ssl_tls_version pysock_ssl_get_maximum_version(pysock_ssl_context *ctx)
{
    return (pysock_ssl_tls_version)pysock__context_get(ctx, offsetof(pysock_ssl_context, maximum),
                                                       0, "ssl_get_maximum_version");
}

PYSOCKDEF int pysock_ssl_set_options(pysock_ssl_context *ctx, uint64_t options)
{
    const uint64_t known =
        PYSOCK_OP_LEGACY_SERVER_CONNECT | PYSOCK_OP_ALL | PYSOCK_OP_IGNORE_UNEXPECTED_EOF
        | PYSOCK_OP_ALLOW_CLIENT_RENEGOTIATION | PYSOCK_OP_NO_TICKET | PYSOCK_OP_NO_COMPRESSION
        | PYSOCK_OP_ENABLE_MIDDLEBOX_COMPAT | PYSOCK_OP_CIPHER_SERVER_PREFERENCE
        | PYSOCK_OP_NO_SSLv3 | PYSOCK_OP_NO_TLSv1 | PYSOCK_OP_NO_TLSv1_1 | PYSOCK_OP_NO_TLSv1_2
        | PYSOCK_OP_NO_TLSv1_3 | PYSOCK_OP_NO_RENEGOTIATION | PYSOCK_OP_READ_AHEAD
        | PYSOCK_OP_COMPLETE_CHAIN;

    if (!ctx)
        return pysock__fail_value("ssl_set_options", "ctx is NULL");
    if (options & ~known)
        return pysock__fail(PYSOCK_OS_ERROR, ENOTSUP, "ENOTSUP",
                            "ssl_set_options: the options 0x%llx are not supported",
                            (unsigned long long)(options & ~known));
    pysock__lock(&ctx->lock);
    if (ctx->options != options) {
        ctx->options = options;
        pysock__context_changed_locked(ctx);
    }
    pysock__unlock(&ctx->lock);
    return 0;
}

PYSOCKDEF uint64_t pysock_ssl_get_options(pysock_ssl_context *ctx)
{
    uint64_t options;

    if (!ctx) {
        pysock__fail_value("ssl_get_options", "ctx is NULL");
        return 0;
    }
    pysock__lock(&ctx->lock);
    options = ctx->options;
    pysock__unlock(&ctx->lock);
    return options;
}

PYSOCKDEF int pysock_ssl_set_ciphers(pysock_ssl_context *ctx, const char *ciphers)
{
    uint16_t suites[BR_MAX_CIPHER_SUITES];
    int level = -1;
    ptrdiff_t n;

    if (!ctx || !ciphers)
        return pysock__fail_value("ssl_set_ciphers", ctx ? "ciphers is NULL" : "ctx is NULL");
    n = pysock__ciphers_parse(ciphers, suites, &level);
    if (n <= 0)
        return pysock__fail(PYSOCK_SSL_ERROR, 0, n ? "INVALID_COMMAND" : "NO_CIPHER_MATCH",
                            n ? "ssl_set_ciphers: '%.200s' is not in OpenSSL's cipher language, or "
                                "asks for a security level above 3"
                              : "ssl_set_ciphers: No cipher can be selected by '%.200s'",
                            ciphers);
    pysock__lock(&ctx->lock);
    memcpy(ctx->suites, suites, sizeof suites);
    ctx->suite_count = (size_t)n;
    if (level >= 0)
        ctx->rules.security_level = level;
    pysock__context_changed_locked(ctx);
    pysock__unlock(&ctx->lock);
    return 0;
}

/* Rows for the n suites, at most max. Returns n. */
static ptrdiff_t pysock__suites_give(const uint16_t *suites, size_t n, pysock_ssl_cipher_info *out,
                                     size_t max)
{
    size_t i;

    for (i = 0; i < n && i < max; i++)
        pysock__suite_info(pysock__suite_find(suites[i]), &out[i]);
    return (ptrdiff_t)n;
}

PYSOCKDEF ptrdiff_t pysock_ssl_get_ciphers(pysock_ssl_context *ctx, pysock_ssl_cipher_info *out,
                                           size_t count)
{
    uint16_t suites[BR_MAX_CIPHER_SUITES];
    unsigned low, high;
    size_t n;

    if (!ctx || (!out && count))
        return pysock__fail_value("ssl_get_ciphers", ctx ? "out is NULL" : "ctx is NULL");
    pysock__lock(&ctx->lock);
    pysock__context_versions_locked(ctx, &low, &high);
    n = pysock__context_suites_locked(ctx, high && low < BR_TLS12, suites);
    pysock__unlock(&ctx->lock);
    return pysock__suites_give(suites, n, out, count);
}

PYSOCKDEF int pysock_ssl_set_security_level(pysock_ssl_context *ctx, int level)
{
    if (!ctx || level < 0 || level > 3)
        return pysock__fail_value("ssl_set_security_level",
                                  ctx ? "the level is not 0 to 3" : "ctx is NULL");
    pysock__lock(&ctx->lock);
    ctx->rules.security_level = level;
    pysock__context_changed_locked(ctx);
    pysock__unlock(&ctx->lock);
    return 0;
}

PYSOCKDEF int pysock_ssl_get_security_level(pysock_ssl_context *ctx)
{
    return pysock__context_get(ctx, offsetof(pysock_ssl_context, rules.security_level), -1,
                               "ssl_get_security_level");
}

/* The number of a curve by one of its names; -1 if it is not known. */
static int pysock__curve_find(const char *name, size_t n)
{
    static const struct {
        const char *name;
        int curve;
    } table[] = {{"X25519", BR_EC_curve25519},   {"prime256v1", BR_EC_secp256r1},
                 {"P-256", BR_EC_secp256r1},     {"secp256r1", BR_EC_secp256r1},
                 {"secp384r1", BR_EC_secp384r1}, {"P-384", BR_EC_secp384r1},
                 {"secp521r1", BR_EC_secp521r1}, {"P-521", BR_EC_secp521r1}};
    size_t i;

    for (i = 0; i < PYSOCK__COUNT(table); i++)
        if (strlen(table[i].name) == n && memcmp(table[i].name, name, n) == 0)
            return table[i].curve;
    return -1;
}

PYSOCKDEF int pysock_ssl_set_ecdh_curve(pysock_ssl_context *ctx, const char *names)
{
    uint32_t curves = 0;
    int curve;
    size_t n;

    if (!ctx || !names)
        return pysock__fail_value("ssl_set_ecdh_curve", ctx ? "names is NULL" : "ctx is NULL");
    for (;;) {
        n = strcspn(names, ":");
        curve = pysock__curve_find(names, n);
        if (curve < 0)
            return pysock__fail(PYSOCK_VALUE_ERROR, EINVAL, "EINVAL",
                                "ssl_set_ecdh_curve: unknown elliptic curve name '%.*s'; X25519, "
                                "prime256v1, secp384r1 and secp521r1 are supported",
                                n < 100 ? (int)n : 100, names);
        curves |= (uint32_t)1 << curve;
        if (!names[n])
            break;
        names += n + 1;
    }
    pysock__lock(&ctx->lock);
    ctx->curves = curves;
    pysock__unlock(&ctx->lock);
    return 0;
}

PYSOCKDEF int pysock_ssl_set_sni_callback(
    pysock_ssl_context *ctx, int (*fn)(void *arg, const pysock_ssl_client_hello *hello), void *arg)
{
    if (!ctx)
        return pysock__fail_value("ssl_set_sni_callback", "ctx is NULL");
    pysock__lock(&ctx->lock);
    ctx->sni_callback = fn;
    ctx->sni_arg = arg;
    pysock__unlock(&ctx->lock);
    return 0;
}

PYSOCKDEF int pysock_ssl_set_message_callback(pysock_ssl_context *ctx,
                                              void (*fn)(void *arg, const pysock_ssl_message *m),
                                              void *arg)
{
    if (!ctx)
        return pysock__fail_value("ssl_set_message_callback", "ctx is NULL");
    pysock__lock(&ctx->lock);
    ctx->message_callback = fn;
    ctx->message_arg = arg;
    pysock__unlock(&ctx->lock);
    return 0;
}

/* A key log that appends to a file; NULL with an error. */
static pysock__keylog *pysock__keylog_new(const char *filename)
{
    pysock__keylog *k = (pysock__keylog *)pysock__alloc(sizeof *k);
    int before, err = -ENOMEM;

    if (k && (k->name = pysock__strdup(filename)) != NULL)
        k->file = pysock__file_append(filename, &err);
    if (k && k->file) {
        k->refs = 1;
        pysock__mutex_init(&k->lock);
        before = pysock__cancel_off();
        if (fseek(k->file, 0, SEEK_END) == 0 && ftell(k->file) == 0) { /* at once, as Python does */
            fputs("# The keys of TLS connections, in NSS's key log format\n", k->file);
            fflush(k->file);
        }
        pysock__cancel_restore(before);
        return k;
    }
    if (k)
        pysock__free(k->name);
    pysock__free(k);
    pysock__fail_os(err, "opening the key log", filename);
    return NULL;
}

PYSOCKDEF int pysock_ssl_set_keylog_filename(pysock_ssl_context *ctx, const char *filename)
{
    pysock__keylog *k = NULL, *old;

    if (!ctx)
        return pysock__fail_value("ssl_set_keylog_filename", "ctx is NULL");
    if (filename && !(k = pysock__keylog_new(filename)))
        return -1;
    pysock__lock(&ctx->lock);
    old = ctx->keylog;
    ctx->keylog = k;
    pysock__unlock(&ctx->lock);
    pysock__keylog_release(old);
    return 0;
}

PYSOCKDEF ptrdiff_t pysock_ssl_get_keylog_filename(pysock_ssl_context *ctx, char *name, size_t size)
{
    const char *what = "ssl_get_keylog_filename";
    ptrdiff_t n;

    if (!ctx)
        return pysock__fail_value(what, "ctx is NULL");
    if (pysock__check_out(what, name, size) < 0)
        return -1;
    pysock__lock(&ctx->lock);
    n = pysock__give_optional(what, ctx->keylog ? ctx->keylog->name : NULL, name, size);
    pysock__unlock(&ctx->lock);
    return n;
}

/* Copies the names into one counted block. NULL with an error. */
static pysock__alpn *pysock__alpn_new(const char *const *names, size_t count)
{
    size_t i, n, bytes = 0;
    pysock__alpn *a;
    char *at;

    for (i = 0; i < count; i++) {
        n = names[i] ? strlen(names[i]) : 0;
        if (n < 1 || n > 255) {
            pysock__fail_value("ssl_set_alpn_protocols", "a protocol name has 1 to 255 bytes");
            return NULL;
        }
        bytes += n + 1;
    }
    a = (pysock__alpn *)pysock__alloc(sizeof *a + count * sizeof *a->names + bytes);
    if (!a) {
        pysock__fail_memory("ssl_set_alpn_protocols");
        return NULL;
    }
    a->refs = 1;
    a->count = count;
    a->names = (const char **)(void *)(a + 1);
    at = (char *)(a->names + count);
    for (i = 0; i < count; i++) {
        n = strlen(names[i]) + 1;
        memcpy(at, names[i], n);
        a->names[i] = at;
        at += n;
    }
    return a;
}

PYSOCKDEF int pysock_ssl_set_alpn_protocols(pysock_ssl_context *ctx, const char *const *names,
                                            size_t count)
{
    pysock__alpn *a = NULL, *old;

    if (!ctx || (!names && count) || count > 1000)
        return pysock__fail_value("ssl_set_alpn_protocols", !ctx           ? "ctx is NULL"
                                                            : count > 1000 ? "too many names"
                                                                           : "names is NULL");
    if (count && !(a = pysock__alpn_new(names, count)))
        return -1;
    pysock__lock(&ctx->lock);
    old = ctx->alpn;
    ctx->alpn = a;
    pysock__unlock(&ctx->lock);
    pysock__alpn_release(old);
    return 0;
}

PYSOCKDEF int pysock_ssl_set_session_cache(pysock_ssl_context *ctx, size_t count)
{
    if (!ctx || count > 1000000)
        return pysock__fail_value("ssl_set_session_cache",
                                  ctx ? "more than 1,000,000 sessions" : "ctx is NULL");
    pysock__lock(&ctx->lock);
    ctx->session_limit = count;
    pysock__context_forget_locked(ctx);
    pysock__free(ctx->sessions.buckets); /* the next session allocates them for the new limit */
    ctx->sessions.buckets = NULL;
    ctx->sessions.bucket_count = 0;
    pysock__unlock(&ctx->lock);
    return 0;
}

PYSOCKDEF int pysock_ssl_get_session_stats(pysock_ssl_context *ctx, pysock_ssl_session_stats *stats)
{
    const pysock__list *l;

    if (!ctx || !stats)
        return pysock__fail_value("ssl_get_session_stats", ctx ? "stats is NULL" : "ctx is NULL");
    pysock__lock(&ctx->lock);
    *stats = ctx->stats;
    stats->number = 0;
    for (l = ctx->sessions.used.next; l != &ctx->sessions.used; l = l->next)
        stats->number += PYSOCK__ENTRY(l, pysock_ssl_session, link)->server != 0;
    pysock__unlock(&ctx->lock);
    return 0;
}

/* Contexts: the calls of sessions. */

PYSOCKDEF pysock_ssl_session *pysock_ssl_session_retain(pysock_ssl_session *session)
{
    if (session)
        pysock__add(&session->refs, 1);
    return session;
}

PYSOCKDEF void pysock_ssl_session_release(pysock_ssl_session *session)
{
    pysock__session_release(session);
}

PYSOCKDEF ptrdiff_t pysock_ssl_session_id(const pysock_ssl_session *session, unsigned char id[32])
{
    if (!session || !id)
        return pysock__fail_value("ssl_session_id", session ? "id is NULL" : "session is NULL");
    memcpy(id, session->params.session_id, session->params.session_id_len);
    return session->params.session_id_len;
}

PYSOCKDEF int64_t pysock_ssl_session_time(const pysock_ssl_session *session)
{
    return session ? session->time : pysock__fail_value("ssl_session_time", "session is NULL");
}

PYSOCKDEF int pysock_ssl_session_timeout(const pysock_ssl_session *session)
{
    return session ? PYSOCK__SESSION_SECONDS
                   : pysock__fail_value("ssl_session_timeout", "session is NULL");
}

#endif /* PYSOCK_NO_SSL */

/* ---- >>tls-keys ----
   The objects by which BearSSL's engine chooses the chain to send, and signs. They belong to a
   connection, and use identities, which never change. */

#ifndef PYSOCK_NO_SSL

#define PYSOCK__FULL_CHAIN 16 /* certificates at most, when a lone one is completed */

typedef struct pysock__policy {
    union {
        const br_ssl_server_policy_class *server;
        const br_ssl_client_certificate_class *client;
    } vtable;                                        /* first: BearSSL points to the object by it */
    pysock__identity *identities[PYSOCK__KEY_KINDS]; /* counted; NULL where there is none */
    const pysock__identity *chosen;
    uint32_t curves;                              /* of ECDHE, a bit for each; 0: all */
    pysock__store *issuers;                       /* counted; PYSOCK_OP_COMPLETE_CHAIN's, or NULL */
    br_x509_certificate full[PYSOCK__FULL_CHAIN]; /* points into the identity and the issuers */
} pysock__policy;

static const br_hash_class *pysock__hash_class(int id)
{
    static const br_hash_class *const all[] = {&br_sha1_vtable, &br_sha224_vtable,
                                               &br_sha256_vtable, &br_sha384_vtable,
                                               &br_sha512_vtable};

    return id >= br_sha1_ID && id <= br_sha512_ID ? all[id - br_sha1_ID] : NULL;
}

/* Signs the hash in data, in place, with an identity's key. hash_id 0 is TLS 1.0's MD5 and SHA-1.
   Returns the signature's length, 0 on failure. */
static size_t pysock__identity_sign(const pysock__identity *id, int hash_id, unsigned char *data,
                                    size_t hash_len, size_t room)
{
    static const unsigned char *const oids[] = {BR_HASH_OID_SHA1, BR_HASH_OID_SHA224,
                                                BR_HASH_OID_SHA256, BR_HASH_OID_SHA384,
                                                BR_HASH_OID_SHA512};
    const br_hash_class *hash = pysock__hash_class(hash_id);
    const br_rsa_private_key *rsa;
    unsigned char value[64];
    size_t len;

    if (hash_len > sizeof value || (!hash && (hash_id || id->key_type != BR_KEYTYPE_RSA)))
        return 0;
    memcpy(value, data, hash_len);
    if (id->key_type == BR_KEYTYPE_EC) {
        if (room < 139) /* the longest, with P-521 */
            return 0;
        return br_ecdsa_sign_asn1_get_default()(br_ec_get_default(), hash, value,
                                                br_skey_decoder_get_ec(&id->key), data);
    }
    rsa = br_skey_decoder_get_rsa(&id->key);
    len = (rsa->n_bitlen + 7) / 8;
    if (room < len)
        return 0;
    return br_rsa_pkcs1_sign_get_default()(hash ? oids[hash_id - br_sha1_ID] : NULL, value,
                                           hash_len, rsa, data)
               ? len
               : 0;
}

/* The hash function for a signature by this identity, from those that the peer accepts (a bit
   each); -1: none. Before TLS 1.2 there is no choice. */
static int pysock__identity_hash(const pysock__identity *id, unsigned version, unsigned hashes)
{
    static const int order[] = {br_sha256_ID, br_sha384_ID, br_sha512_ID, br_sha224_ID, br_sha1_ID};
    int curve = 0;
    size_t i;

    if (version < BR_TLS12)
        return id->key_type == BR_KEYTYPE_RSA ? 0 : br_sha1_ID;
    if (id->key_type == BR_KEYTYPE_EC)
        curve = br_skey_decoder_get_ec(&id->key)->curve;
    if (curve == BR_EC_secp384r1 && hashes >> br_sha384_ID & 1)
        return br_sha384_ID;
    if (curve == BR_EC_secp521r1 && hashes >> br_sha512_ID & 1)
        return br_sha512_ID;
    for (i = 0; i < PYSOCK__COUNT(order); i++)
        if (hashes >> order[i] & 1)
            return order[i];
    return -1;
}

static const pysock__anchor *pysock__store_issuer(const pysock__store *st, const pysock__cert *cert)
{
    size_t i;

    for (i = 0; i < st->count; i++) {
        const pysock__cert *issuer = &st->items[i]->cert;
        if (pysock__name_same(&cert->issuer, &issuer->subject)
            && (!cert->aki.p || !issuer->ski.p || pysock__der_equal(&cert->aki, &issuer->ski)))
            return st->items[i];
    }
    return NULL;
}

/* The chain to send for the chosen identity. */
static const br_x509_certificate *pysock__policy_chain(pysock__policy *p, size_t *count)
{
    const pysock__identity *id = p->chosen;
    const pysock__anchor *issuer;
    const pysock__cert *last;
    pysock__cert leaf;
    size_t n = 0;

    *count = id->count;
    if (!p->issuers || id->count != 1
        || pysock__cert_parse(&leaf, id->chain[0].data, id->chain[0].data_len) < 0)
        return id->chain;
    p->full[n++] = id->chain[0];
    for (last = &leaf; n < PYSOCK__FULL_CHAIN && !pysock__cert_self_issued(last); n++) {
        issuer = pysock__store_issuer(p->issuers, last);
        if (!issuer)
            break;
        p->full[n].data = (unsigned char *)pysock_buf_data(issuer->der);
        p->full[n].data_len = pysock_buf_size(issuer->der);
        last = &issuer->cert;
    }
    *count = n;
    return p->full;
}

/* Our identity for this kind of key exchange, or NULL. *algorithm is BearSSL's number for the
   algorithm that signs ECDHE's parameters. */
static const pysock__identity *pysock__policy_serves(const pysock__policy *p,
                                                     const br_ssl_server_context *cc, int exchange,
                                                     unsigned *algorithm)
{
    int rsa = exchange == BR_SSLKEYX_RSA || exchange == BR_SSLKEYX_ECDHE_RSA, hash;
    const pysock__identity *id = p->identities[rsa ? PYSOCK__RSA : PYSOCK__EC];
    uint32_t hashes = br_ssl_server_get_client_hashes(cc);

    if (!id)
        return NULL;
    switch (exchange) {
    case BR_SSLKEYX_RSA: return id;
    case BR_SSLKEYX_ECDHE_RSA:
    case BR_SSLKEYX_ECDHE_ECDSA:
        hash =
            pysock__identity_hash(id, cc->eng.session.version, (rsa ? hashes : hashes >> 8) & 0xff);
        *algorithm = 0xff00u + (unsigned)hash;
        return hash >= 0 && br_ssl_server_get_client_curves(cc) ? id : NULL;
    case BR_SSLKEYX_ECDH_RSA: return id->signer_type == BR_KEYTYPE_RSA ? id : NULL;
    case BR_SSLKEYX_ECDH_ECDSA: return id->signer_type == BR_KEYTYPE_EC ? id : NULL;
    default: return NULL;
    }
}

/* Chooses the first suite, in the engine's order, that one of our identities supports. */
static int pysock__policy_choose(const br_ssl_server_policy_class **pctx,
                                 const br_ssl_server_context *cc, br_ssl_server_choices *choices)
{
    pysock__policy *p = (pysock__policy *)(void *)pctx;
    const br_suite_translated *suites;
    size_t i, n;

    if (p->curves) /* the engine is ours; it picks ECDHE's curve from these */
        ((br_ssl_server_context *)(uintptr_t)cc)->curves &= p->curves;
    suites = br_ssl_server_get_client_suites(cc, &n);
    for (i = 0; i < n; i++) {
        p->chosen = pysock__policy_serves(p, cc, suites[i][1] >> 12, &choices->algo_id);
        if (!p->chosen)
            continue;
        choices->cipher_suite = suites[i][0];
        choices->chain = pysock__policy_chain(p, &choices->chain_len);
        return 1;
    }
    return 0;
}

/* BearSSL's multiplication, which records that the peer's point is invalid, or one whose result is
   zero for any key (RFC 8422, 5.11; RFC 7748, 6.1). */
static PYSOCK__THREAD_LOCAL int pysock__point_refused;

static uint32_t pysock__ec_mul(unsigned char *point, size_t len, const unsigned char *x,
                               size_t xlen, int curve)
{
    uint32_t ok = br_ec_get_default()->mul(point, len, x, xlen, curve);
    unsigned char any = curve != BR_EC_curve25519;
    size_t i;

    for (i = 0; i < len; i++)
        any |= point[i];
    if (ok && any)
        return ok;
    pysock__point_refused = 1;
    return 0;
}

/* RSA decryption, or static ECDH. */
static uint32_t pysock__policy_exchange(const br_ssl_server_policy_class **pctx,
                                        unsigned char *data, size_t *len)
{
    const pysock__policy *p = (const pysock__policy *)(void *)pctx;
    const br_ec_impl *ec = br_ec_get_default();
    const br_ec_private_key *key;
    size_t offset, size;
    uint32_t ok;

    if (p->chosen->key_type == BR_KEYTYPE_RSA)
        return br_rsa_ssl_decrypt(br_rsa_private_get_default(),
                                  br_skey_decoder_get_rsa(&p->chosen->key), data, *len);
    key = br_skey_decoder_get_ec(&p->chosen->key);
    ok = pysock__ec_mul(data, *len, key->x, key->xlen, key->curve);
    offset = ec->xoff(key->curve, &size);
    memmove(data, data + offset, size);
    *len = size;
    return ok;
}

static size_t pysock__policy_sign(const br_ssl_server_policy_class **pctx, unsigned algorithm,
                                  unsigned char *data, size_t hash_len, size_t room)
{
    const pysock__policy *p = (const pysock__policy *)(void *)pctx;

    return algorithm < 0xff00u
               ? 0
               : pysock__identity_sign(p->chosen, (int)(algorithm & 0xff), data, hash_len, room);
}

static const br_ssl_server_policy_class pysock__policy_class = {
    sizeof(pysock__policy), pysock__policy_choose, pysock__policy_exchange, pysock__policy_sign};

/* A client's side. The names of CAs that a server sends are ignored, as in OpenSSL. */
static void pysock__ccert_start_list(const br_ssl_client_certificate_class **pctx)
{
    (void)pctx;
}

static void pysock__ccert_start_name(const br_ssl_client_certificate_class **pctx, size_t len)
{
    (void)pctx, (void)len;
}

static void pysock__ccert_append(const br_ssl_client_certificate_class **pctx,
                                 const unsigned char *data, size_t len)
{
    (void)pctx, (void)data, (void)len;
}

static void pysock__ccert_choose(const br_ssl_client_certificate_class **pctx,
                                 const br_ssl_client_context *cc, uint32_t types,
                                 br_ssl_client_certificate *choices)
{
    pysock__policy *p = (pysock__policy *)(void *)pctx;
    unsigned version = cc->eng.session.version;
    size_t i;
    int hash;

    memset(choices, 0, sizeof *choices);
    for (i = 0; i < PYSOCK__KEY_KINDS; i++) {
        unsigned hashes = (i == PYSOCK__RSA ? types : types >> 8) & 0xff;
        if (!p->identities[i] || !hashes)
            continue;
        hash = pysock__identity_hash(p->identities[i], version, hashes);
        if (hash < 0)
            continue;
        p->chosen = p->identities[i];
        choices->auth_type = i == PYSOCK__RSA ? BR_AUTH_RSA : BR_AUTH_ECDSA;
        choices->hash_id = hash;
        choices->chain = pysock__policy_chain(p, &choices->chain_len);
        return;
    }
}

static uint32_t pysock__ccert_exchange(const br_ssl_client_certificate_class **pctx,
                                       unsigned char *data, size_t *len)
{
    (void)pctx, (void)data, (void)len; /* fixed ECDH is never chosen */
    return 0;
}

static size_t pysock__ccert_sign(const br_ssl_client_certificate_class **pctx, int hash_id,
                                 size_t hash_len, unsigned char *data, size_t room)
{
    const pysock__policy *p = (const pysock__policy *)(void *)pctx;

    return pysock__identity_sign(p->chosen, hash_id, data, hash_len, room);
}

static const br_ssl_client_certificate_class pysock__ccert_class = {
    sizeof(pysock__policy), pysock__ccert_start_list, pysock__ccert_start_name,
    pysock__ccert_append,   pysock__ccert_start_list, pysock__ccert_start_list,
    pysock__ccert_choose,   pysock__ccert_exchange,   pysock__ccert_sign,
};

#endif /* PYSOCK_NO_SSL */

/* ---- >>tls ----
   A connection's object: from a context to an engine, resumption, and why it has ended. It has no
   descriptor. A pysock__tls has no lock: only the owner of the engine calls (by its socket's lock,
   or as the handshake's owner). */

#ifndef PYSOCK_NO_SSL

/* TLS: the object. */

#define PYSOCK__AHEAD ((size_t)64 * 1024) /* bytes that are read ahead */

/* Handshake messages (RFC 5246, 7.4). */
/* clang-format off */
enum { PYSOCK__HELLO_REQUEST, PYSOCK__CLIENT_HELLO, PYSOCK__SERVER_HELLO,
       PYSOCK__SESSION_TICKET = 4, PYSOCK__CERTIFICATE = 11, PYSOCK__SERVER_KEY_EXCHANGE,
       PYSOCK__CERTIFICATE_REQUEST, PYSOCK__SERVER_HELLO_DONE, PYSOCK__CERTIFICATE_VERIFY,
       PYSOCK__CLIENT_KEY_EXCHANGE, PYSOCK__FINISHED = 20, PYSOCK__CERTIFICATE_STATUS = 22,
       PYSOCK__NO_MESSAGE = 256 };
/* clang-format on */

/* Input on its way to the engine. */
typedef struct pysock__intake {
    unsigned char header[5]; /* of the record that is being read */
    size_t header_len;
    int direct;            /* its body goes straight to the engine: application data */
    pysock__bytes body;    /* otherwise here */
    pysock__bytes message; /* the handshake message that is being assembled */
    pysock__bytes ready;   /* decrypted records; the engine needs them from ready_pos on */
    size_t ready_pos;
    pysock__bytes early; /* plaintext that came before a renegotiation's ServerHello */
    size_t early_pos;
    int answered; /* ServerHello has come */
    int last;     /* the type of the previous handshake message; PYSOCK__NO_MESSAGE */
    unsigned empty, warnings, requests; /* in a row */
} pysock__intake;

/* One direction's records, for the message callback. */
typedef struct pysock__tracing {
    pysock__bytes record, message; /* as much as there is so far */
    int encrypted;                 /* nothing more can be reported */
} pysock__tracing;

/* How far a connection is. pysock__tls_enter() is its one writer. */
typedef enum pysock__tls_state {
    PYSOCK__TLS_HELLO,     /* nothing has been sent or received: settings may still change */
    PYSOCK__TLS_HANDSHAKE, /* no plaintext flows; the first handshake, or another one */
    PYSOCK__TLS_ABORTED,   /* the handshake was not finished: because of the fault, or, without
                              one, the peer's close_notify */
    PYSOCK__TLS_OPEN,
    PYSOCK__TLS_CLOSE_SENT,  /* our close_notify is queued: the peer may still send */
    PYSOCK__TLS_PEER_CLOSED, /* the peer's has come: with half_close we may still send */
    PYSOCK__TLS_CLOSED,      /* no more in either direction */
    PYSOCK__TLS_FAILED       /* likewise; the fault has the cause */
} pysock__tls_state;

/* Which states may follow each. */
static const unsigned pysock__tls_next[] = {
    /* HELLO */ 1u << PYSOCK__TLS_HANDSHAKE | 1u << PYSOCK__TLS_ABORTED,
    /* HANDSHAKE */ 1u << PYSOCK__TLS_OPEN | 1u << PYSOCK__TLS_ABORTED,
    /* ABORTED */ 0,
    /* OPEN */ 1u << PYSOCK__TLS_HANDSHAKE | 1u << PYSOCK__TLS_CLOSE_SENT
        | 1u << PYSOCK__TLS_PEER_CLOSED | 1u << PYSOCK__TLS_CLOSED | 1u << PYSOCK__TLS_FAILED,
    /* CLOSE_SENT */ 1u << PYSOCK__TLS_CLOSED | 1u << PYSOCK__TLS_FAILED,
    /* PEER_CLOSED */ 1u << PYSOCK__TLS_CLOSED | 1u << PYSOCK__TLS_FAILED,
    /* CLOSED */ 0,
    /* FAILED */ 0,
};

/* The arguments of wrap_socket. The socket has them until a handshake can begin; then the
   connection takes them. */
typedef struct pysock__wrap {
    pysock_ssl_context *ctx;     /* counted; a connection's is atomic: other threads read it */
    pysock_ssl_session *session; /* counted, or NULL: offered, then the one in use */
    char *host;                  /* the server's name, or NULL */
    int server;
    int later; /* the handshake waits for do_handshake() */
    int raise_ragged;
    int unchecked_host; /* this connection ignores the context's check_hostname */
    int half_close;
    int no_close_notify;
} pysock__wrap;

static void pysock__wrap_drop(pysock__wrap *w)
{
    pysock__context_release(w->ctx);
    pysock__session_release(w->session);
    pysock__free(w->host);
    memset(w, 0, sizeof *w);
}

typedef struct pysock__tls {
    union {
        br_ssl_client_context client;
        br_ssl_server_context server;
    } br; /* first: a server's cache finds the connection by it */
    br_ssl_engine_context *eng;
    pysock__wrap wrap; /* the context may be changed by an sni_callback, the session is the engine's
                          owner's, the rest is set once */
    pysock_ssl_context
        *chosen; /* atomic, counted: while an sni_callback runs, what to go on with */
    pysock_ssl_context *former; /* counted: another thread may have just read it from wrap.ctx */
    /* set once */
    pysock *owner; /* for the sni_callback */
    unsigned char *buffers;
    int port;
    /* set once, or by an sni_callback before the engine has seen anything; counted */
    pysock__policy policy;
    pysock__alpn *alpn;
    pysock__keylog *keylog;
    uint64_t options;
    pysock__store *asked;   /* of a server that requests certificates: BearSSL reads names in it */
    br_ec_impl curves;      /* BearSSL's, with a check of the peer's points; may be restricted */
    unsigned session_epoch; /* the context's when the settings were taken */
    const br_ssl_session_cache_class *cache; /* a server's; BearSSL finds the connection by it */
    /* only the owner of the engine */
    pysock__verifier *verifier; /* until the handshake is finished */
    pysock__peer *peer;
    pysock__tls_state state;
    int handshakes; /* finished ones */
    uint16_t suite, version;
    int reused;
    int session_new;      /* a server's engine has made one */
    int mid_record;       /* part of a record has been sent */
    int out_type;         /* the type of that record */
    pysock__bytes flight; /* the handshake's records, sent together: otherwise Nagle's algorithm and
                             a delayed acknowledgement would cost 40 ms */
    size_t flight_pos;
    unsigned char first[8]; /* the peer's first bytes, to recognise HTTP and garbage */
    size_t first_len;
    pysock__intake in;
    int refused;           /* failed by us: earlier output of the engine is still sent */
    int certificate_asked; /* the server has sent a CertificateRequest */
    void (*message_callback)(void *arg, const pysock_ssl_message *m);
    void *message_arg;
    pysock__tracing tracing[2]; /* received, sent */
    char *sni;                  /* the client's name from SNI; atomic: other threads read it */
    unsigned char *ahead;       /* read ahead; valid from ahead_pos to ahead_len */
    size_t ahead_pos, ahead_len;
    unsigned char alert[160]; /* an alert record that we made ourselves */
    size_t alert_pos, alert_end;
    int alert_level; /* of that: 1 is our close_notify, 2 a fatal one, 0 none was made */
    pysock__fault fault;
} pysock__tls;

enum {
    PYSOCK__OUT = 1,     /* records to be sent */
    PYSOCK__IN = 2,      /* room for records */
    PYSOCK__APP_IN = 4,  /* plaintext to be read */
    PYSOCK__APP_OUT = 8, /* room for plaintext */
    PYSOCK__ENDED = 16   /* nothing more will come in */
};

static void pysock__tls_enter(pysock__tls *t, pysock__tls_state next)
{
    PYSOCK_ASSERT(pysock__tls_next[t->state] & 1u << next);
    t->state = next;
}

/* 1 if a handshake is finished and no other is under way; also once the connection has ended. */
static int pysock__tls_established(const pysock__tls *t)
{
    return t->state >= PYSOCK__TLS_OPEN;
}

/* 1 if nothing more can be received or sent. */
static int pysock__tls_is_over(const pysock__tls *t)
{
    return t->state == PYSOCK__TLS_ABORTED || t->state >= PYSOCK__TLS_CLOSED;
}

static int pysock__tls_may_send(const pysock__tls *t)
{
    return t->state == PYSOCK__TLS_OPEN || t->state == PYSOCK__TLS_PEER_CLOSED;
}

static int pysock__tls_may_receive(const pysock__tls *t)
{
    return t->state == PYSOCK__TLS_OPEN || t->state == PYSOCK__TLS_CLOSE_SENT;
}

/* Ends the connection, cleanly or with the fault. */
static void pysock__tls_end(pysock__tls *t, int failed)
{
    if (!pysock__tls_established(t))
        pysock__tls_enter(t, PYSOCK__TLS_ABORTED);
    else
        pysock__tls_enter(t, failed ? PYSOCK__TLS_FAILED : PYSOCK__TLS_CLOSED);
}

/* Releases what was taken from the context. */
static void pysock__tls_drop_settings(pysock__tls *t)
{
    size_t i;

    for (i = 0; i < PYSOCK__KEY_KINDS; i++) {
        pysock__identity_release(t->policy.identities[i]);
        t->policy.identities[i] = NULL;
    }
    pysock__verifier_free(t->verifier);
    pysock__store_release(t->asked);
    pysock__store_release(t->policy.issuers);
    pysock__alpn_release(t->alpn);
    pysock__keylog_release(t->keylog);
    t->verifier = NULL;
    t->asked = NULL;
    t->policy.issuers = NULL;
    t->alpn = NULL;
    t->keylog = NULL;
}

static void pysock__tls_free(pysock__tls *t)
{
    size_t i;

    if (!t)
        return;
    pysock__tls_drop_settings(t);
    pysock__bytes_free(&t->flight);
    pysock__bytes_free(&t->in.body);
    pysock__bytes_free(&t->in.message);
    pysock__bytes_free(&t->in.ready);
    pysock__bytes_free(&t->in.early);
    pysock__peer_release(t->peer);
    pysock__wrap_drop(&t->wrap);
    pysock__context_release(t->former);
    for (i = 0; i < 2; i++) {
        pysock__bytes_free(&t->tracing[i].record);
        pysock__bytes_free(&t->tracing[i].message);
    }
    pysock__free(t->sni);
    pysock__free(t->ahead);
    pysock__free(t->buffers);
    pysock__wipe(t, sizeof *t);
    pysock__free(t);
}

/* TLS: resumption. */

/* BearSSL's server has made a session; pysock__tls_finish() caches it. */
static void pysock__cache_save(const br_ssl_session_cache_class **ctx,
                               br_ssl_server_context *server,
                               const br_ssl_session_parameters *params)
{
    pysock__tls *t = (pysock__tls *)(void *)server;

    (void)ctx, (void)params;
    t->reused = 0;
    t->session_new = 1;
}

/* 1 if a session was made with this name; it serves for no other (RFC 6066, 3). */
static int pysock__session_named(const pysock_ssl_session *se, const char *name)
{
    return se->host && name ? strcmp(se->host, name) == 0 : !se->host && !name;
}

/* BearSSL's server looks up the session whose id is in params. */
static int pysock__cache_load(const br_ssl_session_cache_class **ctx, br_ssl_server_context *server,
                              br_ssl_session_parameters *params)
{
    pysock__tls *t = (pysock__tls *)(void *)server;
    pysock_ssl_context *c = t->wrap.ctx;
    pysock_ssl_session *se;

    (void)ctx;
    t->reused = 0;
    pysock__lock(&c->lock);
    se = pysock__cache_find_id_locked(&c->sessions, params->session_id, params->session_id_len);
    if (se && pysock__session_expired(se)) {
        c->stats.timeouts++;
        pysock__cache_remove_locked(&c->sessions, se);
        se = NULL;
    }
    if (se && se->epoch == t->session_epoch && t->session_epoch == c->session_epoch
        && pysock__session_named(se, t->sni)) {
        pysock__cache_touch_locked(&c->sessions, se);
        pysock__session_release(t->wrap.session);
        pysock__add(&se->refs, 1);
        t->wrap.session = se;
        t->reused = 1;
        *params = se->params;
    } else {
        c->stats.misses++;
    }
    pysock__unlock(&c->lock);
    return t->reused;
}

static const br_ssl_session_cache_class pysock__cache_class = {
    sizeof(const br_ssl_session_cache_class *), pysock__cache_save, pysock__cache_load};

/* 1 if a client may offer this session: its peer was verified by the current rules, and, if it is
   for another host, the certificate is valid for ours as well. */
static int pysock__session_fits(const pysock__tls *t, const pysock_ssl_session *se)
{
    const pysock__verify_rules *rules = t->verifier ? &t->verifier->rules : NULL;
    pysock__cert cert;

    if (se->epoch != t->session_epoch || !se->params.session_id_len || se->server
        || pysock__session_expired(se))
        return 0;
    if (!rules || !rules->host || (pysock__session_named(se, t->wrap.host) && !se->unchecked_host))
        return 1;
    return se->peer && se->peer->sent_count
           && pysock__cert_parse(&cert, (unsigned char *)pysock_buf_data(se->peer->certs[0]),
                                 pysock_buf_size(se->peer->certs[0]))
                  == 0
           && pysock__cert_matches(&cert, rules->host, rules->no_common_name);
}

/* Puts a session to resume into a client's engine: the user's, or the context's for the host. */
static void pysock__session_offer(pysock__tls *t)
{
    pysock_ssl_context *ctx = t->wrap.ctx;
    pysock_ssl_session *se = t->wrap.session;

    if (!se) {
        pysock__lock(&ctx->lock);
        if (t->session_epoch == ctx->session_epoch)
            se = pysock__cache_find_host_locked(&ctx->sessions, t->wrap.host, t->port);
        if (se && pysock__session_expired(se)) {
            ctx->stats.timeouts++;
            pysock__cache_remove_locked(&ctx->sessions, se);
            se = NULL;
        }
        if (se) {
            pysock__cache_touch_locked(&ctx->sessions, se);
            pysock__add(&se->refs, 1);
        }
        pysock__unlock(&ctx->lock);
    }
    t->wrap.session = NULL;
    if (se && pysock__session_fits(t, se)) {
        br_ssl_engine_set_session_parameters(t->eng, &se->params);
        t->wrap.session = se;
    } else {
        pysock__session_release(se);
    }
}

/* The session of a handshake that has just finished; NULL: out of memory. */
static pysock_ssl_session *pysock__session_new(const pysock__tls *t,
                                               const br_ssl_session_parameters *params)
{
    pysock_ssl_session *se = (pysock_ssl_session *)pysock__alloc(sizeof *se);
    const char *host = t->wrap.server ? t->sni : t->wrap.host;

    if (!se)
        return NULL;
    se->refs = 1;
    se->context = t->wrap.ctx->serial;
    se->epoch = t->session_epoch;
    se->server = t->wrap.server;
    se->unchecked_host = t->wrap.unchecked_host;
    se->port = t->port;
    se->peer = pysock__peer_retain(t->peer);
    se->time = pysock__wall_seconds();
    se->params = *params;
    if (t->wrap.server && !t->session_new)
        se->params.session_id_len = 0; /* it is not cached */
    if (!host || (se->host = pysock__strdup(host)) != NULL)
        return se;
    pysock__session_release(se);
    return NULL;
}

/* Counts the handshake, and caches its session if it can be resumed. Out of memory is ignored. */
static void pysock__session_store(pysock__tls *t)
{
    pysock_ssl_context *ctx = t->wrap.ctx;
    pysock_ssl_session *se = t->wrap.session;

    pysock__lock(&ctx->lock);
    if (t->reused)
        ctx->stats.hits++;
    if (t->wrap.server)
        ctx->stats.accept_good++;
    else
        ctx->stats.connect_good++;
    if (se && se->params.session_id_len && (se->server || se->host)
        && !(t->wrap.server && t->reused) && t->session_epoch == ctx->session_epoch
        && !t->wrap.unchecked_host)
        ctx->stats.cache_full += pysock__cache_add_locked(&ctx->sessions, se, ctx->session_limit);
    pysock__unlock(&ctx->lock);
}

/* TLS: from a context to a connection. */

/* The settings of both sides, besides those copied from the context's engine. */
static void pysock__tls_set_engine(pysock__tls *t)
{
    br_ssl_engine_context *eng = t->eng;

    if (t->alpn && !t->wrap.server)
        br_ssl_engine_set_protocol_names(eng, t->alpn->names, t->alpn->count);
    if (t->verifier)
        br_ssl_engine_set_x509(eng, &t->verifier->vtable);
    t->curves = *br_ec_get_default();
    t->curves.mul = pysock__ec_mul;
    br_ssl_engine_set_ec(eng, &t->curves);
}

static void pysock__tls_set_client(pysock__tls *t)
{
    br_ssl_client_context *cc = &t->br.client;

    pysock__tls_set_engine(t);
    br_ssl_client_set_default_rsapub(cc);
    if (t->policy.curves)
        t->curves.supported_curves &= t->policy.curves;
    if (t->options & PYSOCK_OP_NO_RENEGOTIATION)
        br_ssl_engine_add_flags(t->eng, BR_OPT_NO_RENEGOTIATION);
    t->policy.vtable.client = &pysock__ccert_class;
    br_ssl_client_set_client_certificate(cc, &t->policy.vtable.client);
}

static unsigned char pysock__empty_name[] = {0x30, 0x00};
static const br_x500_name pysock__no_name = {pysock__empty_name, sizeof pysock__empty_name};

/* How many of a store's names fit into a CertificateRequest; they are only hints for the client. */
static size_t pysock__names_that_fit(const pysock__store *store)
{
    size_t i, bytes = 0;

    for (i = 0; i < store->count; i++) {
        bytes += store->names[i].len + 2;
        if (bytes > 60000)
            break;
    }
    return i;
}

static void pysock__tls_set_server(pysock__tls *t, int verify_mode)
{
    br_ssl_server_context *sc = &t->br.server;
    pysock__store *store = t->verifier ? t->verifier->store : NULL;

    if (store) {
        pysock__add(&store->refs, 1);
        t->asked = store;
    }
    pysock__tls_set_engine(t);
    if (!(t->options & PYSOCK_OP_ALLOW_CLIENT_RENEGOTIATION)
        || t->options & PYSOCK_OP_NO_RENEGOTIATION)
        br_ssl_engine_add_flags(t->eng, BR_OPT_NO_RENEGOTIATION);
    t->policy.vtable.server = &pysock__policy_class;
    br_ssl_server_set_policy(sc, &t->policy.vtable.server);
    if (store && store->count)
        br_ssl_server_set_trust_anchor_names(sc, store->names, pysock__names_that_fit(store));
    else if (store) /* without a name BearSSL would not request a certificate */
        br_ssl_server_set_trust_anchor_names(sc, &pysock__no_name, 1);
    if (store && verify_mode == PYSOCK_CERT_OPTIONAL) {
        br_ssl_engine_add_flags(t->eng, BR_OPT_TOLERATE_NO_CLIENT_AUTH);
        t->verifier->engine_flags = &t->eng->flags;
    }
    if (t->cache)
        br_ssl_server_set_cache(sc, &t->cache);
}

/* 1 if a host can be sent as SNI: a DNS name, not an address (RFC 6066). */
static int pysock__sni_fits(const char *host)
{
    unsigned char ip[16];

    return host && host[0] && !pysock__sys_pton(host, ip);
}

/* A verifier with the context's rules; NULL: out of memory. */
static pysock__verifier *pysock__verifier_new_locked(const pysock__tls *t)
{
    pysock_ssl_context *ctx = t->wrap.ctx;
    pysock__verifier *v = (pysock__verifier *)pysock__alloc(sizeof *v);

    if (!v)
        return NULL;
    v->vtable = &pysock__verifier_class;
    v->rules = ctx->rules;
    v->rules.purpose = t->wrap.server ? PYSOCK_CLIENT_AUTH : PYSOCK_SERVER_AUTH;
    if (!t->wrap.server && ctx->check_hostname && !t->wrap.unchecked_host)
        v->rules.host = t->wrap.host;
    memcpy(v->default_problem, ctx->default_problem, sizeof v->default_problem);
    v->store = t->asked ? t->asked : ctx->verify_mode == PYSOCK_CERT_NONE ? NULL : ctx->store;
    if (v->store)
        pysock__add(&v->store->refs, 1);
    return v;
}

/* Fails if the context's settings allow no connection; 0 if they do. */
static int pysock__tls_check_settings(const pysock__tls *t, int check_hostname, int versions,
                                      const char *what)
{
    if (versions < 0)
        return pysock__fail(PYSOCK_SSL_ERROR, 0, "NO_PROTOCOLS_AVAILABLE",
                            "%s: the context's minimum, maximum and options leave no version of "
                            "TLS",
                            what);
    if (!t->eng->suites_num)
        return pysock__fail(PYSOCK_SSL_ERROR, 0, "NO_CIPHERS_AVAILABLE",
                            "%s: the context's security level excludes all of its cipher suites",
                            what);
    if (check_hostname && !t->wrap.server && !t->wrap.host)
        return pysock__fail_value(what, "server_hostname is needed because the context's "
                                        "check_hostname is on");
    return 0;
}

/* Takes what the connection needs from the context. 0 or a failure. */
static int pysock__tls_take_settings(pysock__tls *t, const char *what)
{
    pysock_ssl_context *ctx = t->wrap.ctx;
    unsigned low, high;
    int verify_mode, check_hostname, versions, failed = 0;
    size_t i;

    if (t->wrap.server)
        br_ssl_server_zero(&t->br.server);
    else
        br_ssl_client_zero(&t->br.client);
    pysock__lock(&ctx->lock);
    verify_mode = ctx->verify_mode;
    check_hostname = ctx->check_hostname && !t->wrap.unchecked_host;
    versions = pysock__context_versions_locked(ctx, &low, &high);
    *t->eng = ctx->engine;
    br_ssl_engine_set_buffers_bidi(t->eng, t->buffers, BR_SSL_BUFSIZE_INPUT,
                                   t->buffers + BR_SSL_BUFSIZE_INPUT,
                                   BR_SSL_BUFSIZE_OUTPUT); /* from here on it can make an alert */
    t->options = ctx->options;
    t->session_epoch = ctx->session_epoch;
    t->alpn = ctx->alpn;
    t->keylog = ctx->keylog;
    t->message_callback = ctx->message_callback;
    t->message_arg = ctx->message_arg;
    t->policy.curves = ctx->curves;
    for (i = 0; i < PYSOCK__KEY_KINDS; i++) {
        t->policy.identities[i] = ctx->identities[i];
        if (!t->policy.identities[i])
            continue;
        pysock__add(&t->policy.identities[i]->refs, 1);
    }
    if (t->options & PYSOCK_OP_COMPLETE_CHAIN && ctx->store) {
        t->policy.issuers = ctx->store;
        pysock__add(&ctx->store->refs, 1);
    }
    if (t->alpn)
        pysock__add(&t->alpn->refs, 1);
    if (t->keylog)
        pysock__add(&t->keylog->refs, 1);
    if (!t->wrap.server || verify_mode != PYSOCK_CERT_NONE)
        failed = (t->verifier = pysock__verifier_new_locked(t)) == NULL;
    t->cache = t->wrap.server && ctx->session_limit ? &pysock__cache_class : NULL;
    if (t->wrap.server)
        ctx->stats.accept++;
    else
        ctx->stats.connect++;
    pysock__unlock(&ctx->lock);
    if (failed)
        return pysock__fail_memory(what);
    if (pysock__tls_check_settings(t, check_hostname, versions, what) < 0)
        return -1;
    if (t->wrap.server)
        pysock__tls_set_server(t, verify_mode);
    else
        pysock__tls_set_client(t);
    return 0;
}

/* Writes the ClientHello. signature_algorithms is TLS 1.2's (RFC 5246, 7.4.1.4.1); BearSSL sends it
   whenever it has functions to verify signatures. */
static int pysock__client_reset(pysock__tls *t, const char *sni)
{
    br_rsa_pkcs1_vrfy rsa = t->eng->irsavrfy;
    br_ecdsa_vrfy ecdsa = t->eng->iecdsa;
    int ok;

    if (t->eng->version_max < BR_TLS12) {
        t->eng->irsavrfy = 0;
        t->eng->iecdsa = 0;
    }
    ok = br_ssl_client_reset(&t->br.client, sni, t->wrap.session != NULL);
    t->eng->irsavrfy = rsa;
    t->eng->iecdsa = ecdsa;
    return ok;
}

/* Writes the ClientHello, or prepares the server for one. */
static int pysock__tls_reset(pysock__tls *t, const char *what)
{
    char sni[256];
    size_t n;
    int before = pysock__cancel_off(), ok; /* BearSSL opens and reads a file for random bytes */

    if (t->wrap.server) {
        ok = br_ssl_server_reset(&t->br.server);
    } else {
        sni[0] = 0;
        if (pysock__sni_fits(t->wrap.host)) {
            snprintf(sni, sizeof sni, "%s", t->wrap.host);
            n = strlen(sni);
            if (n && sni[n - 1] == '.')
                sni[n - 1] = 0;
        }
        pysock__session_offer(t);
        ok = pysock__client_reset(t, sni[0] ? sni : NULL);
    }
    pysock__cancel_restore(before);
    if (ok)
        return 0;
    return pysock__fail(
        PYSOCK_SSL_ERROR, br_ssl_engine_last_error(t->eng), "PRNG_NOT_SEEDED",
        "%s: BearSSL could not start (error %d): the system gives no random numbers", what,
        br_ssl_engine_last_error(t->eng));
}

/* A connection, ready for its handshake. It takes all of *wrap, or returns NULL on error. owner is
   for the sni_callback, port distinguishes a client's sessions, what is the call, for messages. */
static pysock__tls *pysock__tls_new(pysock__wrap *wrap, pysock *owner, int port, const char *what)
{
    pysock__tls *t = (pysock__tls *)pysock__alloc(sizeof *t);

    if (!t) {
        pysock__fail_memory(what);
        return NULL;
    }
    t->wrap = *wrap;
    pysock_ssl_session_retain(wrap->session); /* session_offer() may replace it */
    t->owner = owner;
    t->port = port;
    t->eng = wrap->server ? &t->br.server.eng : &t->br.client.eng;
    t->in.last = PYSOCK__NO_MESSAGE;
    t->buffers = (unsigned char *)PYSOCK_MALLOC(BR_SSL_BUFSIZE_BIDI); /* untouched: not resident */
    if (!t->buffers) {
        pysock__fail_memory(what);
    } else if (pysock__tls_take_settings(t, what) == 0 && pysock__tls_reset(t, what) == 0) {
        pysock__session_release(wrap->session);
        memset(wrap, 0, sizeof *wrap);
        return t;
    }
    t->wrap.ctx = NULL; /* the rest stays the caller's */
    t->wrap.host = NULL;
    pysock__tls_free(t);
    return NULL;
}

/* 1 if the peer's first bytes look like an HTTP request. */
static int pysock__looks_like_http(const unsigned char *first, size_t n)
{
    static const char *const methods[] = {"GET ",    "POST ",    "HEAD ",  "PUT ",   "OPTIONS ",
                                          "DELETE ", "CONNECT ", "TRACE ", "PATCH ", "PRI "};
    size_t i, k;

    for (i = 0; i < PYSOCK__COUNT(methods); i++) {
        k = strlen(methods[i]);
        if (n >= 3 && memcmp(first, methods[i], k < n ? k : n) == 0)
            return 1;
    }
    return 0;
}

/* A likely reason for a server's alert, and what to do. */
static const char *pysock__alert_hint(const pysock__tls *t, int alert)
{
    int bare = !t->policy.identities[PYSOCK__RSA] && !t->policy.identities[PYSOCK__EC];

    if (t->wrap.server || t->handshakes)
        return "";
    if (alert == BR_ALERT_PROTOCOL_VERSION)
        return t->eng->version_max >= BR_TLS12
                   ? "; the highest version that this library supports is TLSv1.2"
               : t->eng->version_max == BR_TLS11
                   ? "; the highest version that the context allows is TLSv1.1"
                   : "; the highest version that the context allows is TLSv1";
    if (t->certificate_asked && bare)
        return "; it had asked for a client certificate (CertificateRequest), and the context has "
               "none: pysock_ssl_load_cert_chain()";
    if (!t->in.answered
        && (alert == BR_ALERT_HANDSHAKE_FAILURE || alert == BR_ALERT_INSUFFICIENT_SECURITY))
        return "; it takes none of the suites, curves or signatures offered: there is no "
               "finite-field DHE here, and RSA key exchange only if pysock_ssl_set_ciphers() says "
               "so";
    return "";
}

/* Sets the fault for the engine's error, without "on what". */
static void pysock__tls_describe(pysock__tls *t, int err)
{
    pysock__verifier *v = t->verifier;
    const pysock__code *c;
    int client = !t->wrap.server;
    int noise = t->first_len
                && (t->first[0] < 20 || t->first[0] > 23 || (t->first_len > 1 && t->first[1] != 3));

    if (v && v->verify_code == 17) {
        pysock__fault_set(&t->fault, PYSOCK_MEMORY_ERROR, ENOMEM, "ENOMEM", "out of memory");
        return;
    }
    if (v && v->verify_code) {
        int name = v->verify_code == 62 || v->verify_code == 64;
        int trust = v->verify_code == 2 || (v->verify_code >= 18 && v->verify_code <= 20);
        pysock__fault_set(
            &t->fault, PYSOCK_SSL_CERT_VERIFICATION_ERROR, err, "CERTIFICATE_VERIFY_FAILED",
            "certificate verify failed: %s%s%.120s%s%s%s%s%s%s", v->verify_message,
            name ? ", certificate is not valid for '" : "", name ? v->rules.host : "",
            name ? "'" : "", v->detail[0] ? "; " : "", v->detail,
            trust && v->default_problem[0] ? "; " : "", trust ? v->default_problem : "",
            !trust || v->default_problem[0] ? ""
            : v->store->count + v->store->dir_count > 0
                ? "; if you trust its issuer, load it with pysock_ssl_load_verify_locations()"
                : "; the context has no trust anchors at all: load some with "
                  "pysock_ssl_load_verify_locations()");
        t->fault.verify_code = v->verify_code;
        t->fault.verify_message = v->verify_message;
        return;
    }
    if (err >= BR_ERR_SEND_FATAL_ALERT) {
        int bare = t->wrap.server && !t->policy.identities[PYSOCK__RSA]
                   && !t->policy.identities[PYSOCK__EC];
        c = pysock__code_find(pysock__alerts, PYSOCK__COUNT(pysock__alerts), err & 0xff);
        bare = bare && c->code == 40;
        pysock__fault_set(
            &t->fault, PYSOCK_SSL_ERROR, err,
            c->code == 40 && !client ? "NO_SHARED_CIPHER"
            : c->code == 70          ? "UNSUPPORTED_PROTOCOL"
                                     : c->reason,
            "the peer's offer cannot be accepted, and was answered with the alert %s%s",
            c->sentence,
            bare            ? " (the context has no certificate; pysock_ssl_load_cert_chain())"
            : c->code == 40 ? " (no cipher suite, curve or signature algorithm in common)"
            : c->code == 70 ? " (the peer offers no version of TLS that is enabled here)"
                            : "");
        return;
    }
    if (err >= BR_ERR_RECV_FATAL_ALERT) {
        c = pysock__code_find(pysock__alerts, PYSOCK__COUNT(pysock__alerts), err & 0xff);
        pysock__fault_set(&t->fault, PYSOCK_SSL_ERROR, err, c->reason,
                          "the peer refused with the fatal alert %s (%d)%s", c->sentence,
                          err & 0xff, pysock__alert_hint(t, err & 0xff));
        return;
    }
    if (!t->handshakes && noise) {
        int http = !client && pysock__looks_like_http(t->first, t->first_len);
        pysock__fault_set(
            &t->fault, PYSOCK_SSL_ERROR, err, http ? "HTTP_REQUEST" : "WRONG_VERSION_NUMBER",
            http ? "the client sent a plain HTTP request; it must use https"
                 : "the peer does not speak TLS: what it sent first is no TLS record");
        return;
    }
    if (t->handshakes && err == BR_ERR_UNSUPPORTED_VERSION)
        err = BR_ERR_BAD_VERSION; /* not an offered version: garbage between records */
    c = pysock__code_find(pysock__engine_errors, PYSOCK__COUNT(pysock__engine_errors), err);
    pysock__fault_set(&t->fault, PYSOCK_SSL_ERROR, err, c->reason, "%s (BearSSL error %d)",
                      c->sentence, err);
}

/* Makes an alert record of our own, with the current keys (RFC 5246, 7.2): BearSSL sends none when
   it fails, and its close discards what is still coming in. */
static void pysock__tls_make_alert(pysock__tls *t, int level, int description)
{
    const br_sslrec_out_class **out = &t->eng->out.vtable;
    unsigned version = t->eng->session.version;
    unsigned char *record;
    size_t len = 2;

    if ((pysock__tls_is_over(t) && t->mid_record && !t->refused) || t->alert_end)
        return; /* the engine has dropped the rest of a record; or an alert is made already */
    if (!version && !t->wrap.server)
        version = t->eng->version_in; /* the server's choice, though it is refused */
    version = version ? version : BR_TLS12;
    t->alert_level = level;
    t->alert[64] = (unsigned char)level;
    t->alert[65] = (unsigned char)description;
    record = (unsigned char *)(*out)->encrypt(out, 21, version, t->alert + 64, &len);
    t->alert_pos = (size_t)(record - t->alert);
    t->alert_end = t->alert_pos + len;
}

#endif /* PYSOCK_NO_SSL */

/* ---- >>hellos ----
   Parsers of ClientHello, ServerHello and CertificateRequest, which refuse malformed ones with the
   alert that the RFC requires. No state. */

#ifndef PYSOCK_NO_SSL

/* A vector of RFC 5246 (4.3): a length of size bytes, and its contents. BearSSL accepts much that
   is malformed. */

static int pysock__vector(pysock__der *in, int size, pysock__der *out)
{
    size_t len = 0;

    if (in->end - in->p < size)
        return -1;
    while (size--)
        len = len << 8 | *in->p++;
    if ((size_t)(in->end - in->p) < len)
        return -1;
    out->p = in->p;
    out->end = in->p += len;
    return 0;
}

/* A vector that takes up all of in. */
static int pysock__vector_whole(pysock__der *in, int size, pysock__der *out)
{
    return pysock__vector(in, size, out) < 0 || in->p != in->end ? -1 : 0;
}

/* The parts of a ClientHello or ServerHello that are used here; p is NULL if one is missing. */
typedef struct pysock__hello {
    pysock__der name;      /* SNI's host name */
    pysock__der protocols; /* ALPN's list */
    pysock__der versions;  /* supported_versions, which replaces the hello's version */
    pysock__der suites;
    pysock__der renegotiation;     /* renegotiation_info */
    unsigned char seen[65536 / 8]; /* extensions by their number */
} pysock__hello;

/* A server_name extension (RFC 6066, 3): at most one name of each type, none of them empty. The
   alert, or 0. */
static int pysock__read_server_name(pysock__der value, pysock__der *name)
{
    pysock__der list, entry;
    int type;

    if (pysock__vector_whole(&value, 2, &list) < 0 || list.p == list.end)
        return BR_ALERT_DECODE_ERROR;
    while (list.p < list.end) {
        type = *list.p++;
        if (pysock__vector(&list, 2, &entry) < 0 || entry.p == entry.end)
            return BR_ALERT_DECODE_ERROR;
        if (type)
            continue;
        if (name->p)
            return BR_ALERT_DECODE_ERROR;
        if (pysock__der_len(&entry) > 255 || memchr(entry.p, 0, pysock__der_len(&entry)))
            return PYSOCK_ALERT_UNRECOGNIZED_NAME;
        *name = entry;
    }
    return 0;
}

/* A list of elements of size bytes, not empty, after length_size bytes of length: the alert, or
   0. */
static int pysock__read_list(pysock__der value, int length_size, int size, pysock__der *list)
{
    return pysock__vector_whole(&value, length_size, list) < 0 || list->p == list->end
                   || pysock__der_len(list) % (size_t)size
               ? BR_ALERT_DECODE_ERROR
               : 0;
}

/* ALPN's list of names, none of them empty (RFC 7301, 3.1). */
static int pysock__read_protocols(pysock__der value, pysock__der *list)
{
    pysock__der names, name;

    if (pysock__read_list(value, 2, 1, list))
        return BR_ALERT_DECODE_ERROR;
    names = *list;
    while (names.p < names.end)
        if (pysock__vector(&names, 1, &name) < 0 || name.p == name.end)
            return BR_ALERT_DECODE_ERROR;
    return 0;
}

/* Point formats: uncompressed must be among them (RFC 8422, 5.1.2). */
static int pysock__read_point_formats(pysock__der value)
{
    pysock__der list;

    if (pysock__read_list(value, 1, 1, &list))
        return BR_ALERT_DECODE_ERROR;
    return memchr(list.p, 0, pysock__der_len(&list)) ? 0 : BR_ALERT_ILLEGAL_PARAMETER;
}

static int pysock__read_extension(int client, int type, pysock__der value, pysock__hello *out)
{
    pysock__der list;

    switch (type) {
    case 0: /* server_name; the server's answer is empty */
        return client                 ? pysock__read_server_name(value, &out->name)
               : value.p == value.end ? 0
                                      : BR_ALERT_DECODE_ERROR;
    case 1: /* max_fragment_length */ return value.end - value.p != 1 ? BR_ALERT_DECODE_ERROR : 0;
    case 10: /* supported_groups */ return client ? pysock__read_list(value, 2, 2, &list) : 0;
    case 11: return pysock__read_point_formats(value);
    case 13: /* signature_algorithms */ return client ? pysock__read_list(value, 2, 2, &list) : 0;
    case 16: return pysock__read_protocols(value, &out->protocols);
    case 43: return client ? pysock__read_list(value, 1, 2, &out->versions) : 0;
    case 0xff01:
        return pysock__vector_whole(&value, 1, &out->renegotiation) < 0 ? BR_ALERT_DECODE_ERROR : 0;
    default: return 0;
    }
}

/* The extensions at the end of a hello: RFC 5246 (7.4.1.4) allows one of each. */
static int pysock__read_extensions(int client, pysock__der body, pysock__hello *out)
{
    pysock__der extensions, value;
    int type, alert;

    if (body.p == body.end)
        return 0;
    if (pysock__vector_whole(&body, 2, &extensions) < 0)
        return BR_ALERT_DECODE_ERROR;
    while (extensions.p < extensions.end) {
        if (extensions.end - extensions.p < 2)
            return BR_ALERT_DECODE_ERROR;
        type = extensions.p[0] << 8 | extensions.p[1];
        extensions.p += 2;
        if (pysock__vector(&extensions, 2, &value) < 0)
            return BR_ALERT_DECODE_ERROR;
        if (out->seen[type >> 3] & 1 << (type & 7))
            return BR_ALERT_ILLEGAL_PARAMETER;
        out->seen[type >> 3] |= (unsigned char)(1 << (type & 7));
        alert = pysock__read_extension(client, type, value, out);
        if (alert)
            return alert;
    }
    return 0;
}

/* Reads a ClientHello's body. The alert to refuse it with, or 0. */
static int pysock__read_client_hello(pysock__der body, pysock__hello *out)
{
    pysock__der id, compression;

    memset(out, 0, sizeof *out);
    if (body.end - body.p < 34)
        return BR_ALERT_DECODE_ERROR;
    body.p += 34; /* version and random */
    if (pysock__vector(&body, 1, &id) < 0 || pysock__der_len(&id) > 32
        || pysock__vector(&body, 2, &out->suites) < 0 || out->suites.p == out->suites.end
        || pysock__der_len(&out->suites) % 2 || pysock__vector(&body, 1, &compression) < 0
        || compression.p == compression.end)
        return BR_ALERT_DECODE_ERROR;
    if (!memchr(compression.p, 0, pysock__der_len(&compression)))
        return BR_ALERT_ILLEGAL_PARAMETER;
    return pysock__read_extensions(1, body, out);
}

/* Likewise a ServerHello's. */
static int pysock__read_server_hello(pysock__der body, pysock__hello *out)
{
    pysock__der id;

    memset(out, 0, sizeof *out);
    if (body.end - body.p < 34)
        return BR_ALERT_DECODE_ERROR;
    body.p += 34;
    if (pysock__vector(&body, 1, &id) < 0 || pysock__der_len(&id) > 32 || body.end - body.p < 3)
        return BR_ALERT_DECODE_ERROR;
    body.p += 3; /* suite and compression */
    return pysock__read_extensions(0, body, out);
}

/* A CertificateRequest (RFC 5246, 7.4.4): the alert, or 0. */
static int pysock__read_certificate_request(unsigned version, pysock__der body)
{
    pysock__der types, algorithms, names, name;

    if (pysock__vector(&body, 1, &types) < 0 || types.p == types.end)
        return BR_ALERT_DECODE_ERROR;
    if (version >= BR_TLS12
        && (pysock__vector(&body, 2, &algorithms) < 0 || algorithms.p == algorithms.end
            || pysock__der_len(&algorithms) % 2))
        return BR_ALERT_DECODE_ERROR;
    if (pysock__vector_whole(&body, 2, &names) < 0)
        return BR_ALERT_DECODE_ERROR;
    while (names.p < names.end)
        if (pysock__vector(&names, 2, &name) < 0 || name.p == name.end)
            return BR_ALERT_DECODE_ERROR;
    return 0;
}

/* 1 if the client's suites have TLS_EMPTY_RENEGOTIATION_INFO_SCSV (RFC 5746, 3.3). */
static int pysock__signals_renegotiation(const pysock__hello *hello)
{
    const unsigned char *p;

    for (p = hello->suites.p; p < hello->suites.end; p += 2)
        if (p[0] == 0 && p[1] == 0xff)
            return 1;
    return 0;
}

/* 1 if one of our protocols is in the list. */
static int pysock__shares_protocol(const pysock__alpn *ours, pysock__der names)
{
    pysock__der name;
    size_t i;

    while (ours && pysock__vector(&names, 1, &name) == 0)
        for (i = 0; i < ours->count; i++)
            if (pysock__der_is(&name, ours->names[i], strlen(ours->names[i])))
                return 1;
    return 0;
}

/* The highest version from min to max that the client lists; 0: none. The list overrides the
   hello's version (RFC 8446, 4.2.1), which is all that BearSSL reads. */
static unsigned pysock__shared_version(const pysock__hello *hello, unsigned min, unsigned max)
{
    const unsigned char *p = hello->versions.p;
    unsigned version, best = 0;

    for (; p < hello->versions.end; p += 2) {
        version = (unsigned)(p[0] << 8 | p[1]);
        if (version >= min && version <= max && version > best)
            best = version;
    }
    return best;
}

#endif /* PYSOCK_NO_SSL */

/* ---- >>tls-records ----
   The engine as four byte streams: records out and in, plaintext out and in. Every record except
   application data is read here before the engine gets it. The rooms below never call the engine.
   The lock: as for the object. */

#ifndef PYSOCK_NO_SSL

/* 1 if we have made a close_notify ourselves. */
static int pysock__tls_sent_close(const pysock__tls *t)
{
    return t->alert_level == 1;
}

/* The engine's records; NULL if there are none, or they must not be sent any more. */
static unsigned char *pysock__tls_engine_out(const pysock__tls *t, size_t *len)
{
    return t->fault.kind && !t->refused ? NULL : br_ssl_engine_sendrec_buf(t->eng, len);
}

/* The engine has failed: sets the fault, and makes the alert. */
static void pysock__tls_engine_failed(pysock__tls *t, int err)
{
    pysock__tls_end(t, 1);
    pysock__tls_describe(t, err);
    if (err < BR_ERR_RECV_FATAL_ALERT)
        pysock__tls_make_alert(t, 2,
                               pysock__alert_for(err, t->verifier ? t->verifier->verify_code : 0));
}

/* After each step of the engine: checks whether it has ended the connection. shutdown_recv is set
   by the peer's close_notify, before the engine has answered (and by nothing else, because
   br_ssl_engine_close() is not used). */
static void pysock__tls_progress(pysock__tls *t)
{
    int closed = br_ssl_engine_current_state(t->eng) == BR_SSL_CLOSED;
    int err = closed ? br_ssl_engine_last_error(t->eng) : BR_ERR_OK;
    unsigned char *p;
    size_t n;

    if (!pysock__tls_is_over(t) && err != BR_ERR_OK)
        pysock__tls_engine_failed(t, err);
    else if (!pysock__tls_is_over(t) && (closed || t->eng->shutdown_recv))
        pysock__tls_end(t, 0);
    if (pysock__tls_sent_close(t) && !t->mid_record && (p = pysock__tls_engine_out(t, &n)) != NULL
        && p[0] == 21)
        br_ssl_engine_sendrec_ack(t->eng, n); /* the answer to close_notify: ours is enough */
}

/* What can be done now: PYSOCK__ flags. */
static int pysock__tls_flags(const pysock__tls *t)
{
    int opening = t->state <= PYSOCK__TLS_HANDSHAKE, flags = 0;
    unsigned st = br_ssl_engine_current_state(t->eng);
    size_t n;

    if (t->alert_pos < t->alert_end || t->flight_pos < t->flight.len
        || pysock__tls_engine_out(t, &n))
        flags |= PYSOCK__OUT;
    if (t->in.early.len && t->handshakes && !opening)
        flags |= PYSOCK__APP_IN;
    if (pysock__tls_is_over(t))
        return flags | PYSOCK__ENDED;
    if (st & BR_SSL_RECVAPP)
        flags |= PYSOCK__APP_IN;
    if (st & BR_SSL_RECVREC && (opening || pysock__tls_may_receive(t)))
        flags |= PYSOCK__IN;
    if (st & BR_SSL_SENDAPP && (opening || pysock__tls_may_send(t)))
        flags |= PYSOCK__APP_OUT;
    return flags;
}

/* Collects the records of the current flight. Without memory they are sent one by one. */
static void pysock__tls_collect(pysock__tls *t)
{
    unsigned char *p;
    size_t n;

    while (t->state <= PYSOCK__TLS_HANDSHAKE && !t->mid_record && !t->flight.out_of_memory
           && (p = br_ssl_engine_sendrec_buf(t->eng, &n)) != NULL) {
        if (n >= 5 && p[1] == 0) { /* an alert before any version is agreed: BearSSL writes 0.0 */
            p[1] = 3;
            p[2] = 3;
        }
        pysock__bytes_append(&t->flight, p, n);
        if (!t->flight.out_of_memory)
            br_ssl_engine_sendrec_ack(t->eng, n);
    }
    pysock__tls_progress(t);
}

/* Records to be sent: the engine's first, then an alert of our own. */
static const unsigned char *pysock__tls_out(pysock__tls *t, size_t *len)
{
    const unsigned char *p;

    pysock__tls_collect(t);
    if (t->flight_pos < t->flight.len) {
        *len = t->flight.len - t->flight_pos;
        return t->flight.data + t->flight_pos;
    }
    p = pysock__tls_engine_out(t, len);
    if (p)
        return p;
    *len = t->alert_end - t->alert_pos;
    return t->alert + t->alert_pos;
}

static void pysock__tls_report(pysock__tls *t, int sent, int content_type, int type,
                               const unsigned char *data, size_t size)
{
    const unsigned char *header = t->tracing[sent].record.data;
    pysock_ssl_message m;

    m.socket = t->owner;
    m.sent = sent;
    m.version = header[1] << 8 | header[2];
    m.content_type = content_type;
    m.type = type;
    m.data = data;
    m.size = size;
    t->message_callback(t->message_arg, &m);
}

/* Reports the complete messages. */
static void pysock__tls_report_handshake(pysock__tls *t, int sent)
{
    pysock__bytes *b = &t->tracing[sent].message;
    size_t size, reported = 0;

    while (b->len - reported >= 4) {
        const unsigned char *p = b->data + reported;
        size = 4 + ((size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3]);
        if (b->len - reported < size)
            break;
        pysock__tls_report(t, sent, 22, p[0], p, size);
        reported += size;
    }
    if (reported)
        memmove(b->data, b->data + reported, b->len - reported);
    b->len -= reported;
    t->tracing[sent].encrypted |= b->out_of_memory || b->len > PYSOCK__CHAIN_BYTES;
}

static void pysock__tls_report_record(pysock__tls *t, int sent)
{
    pysock__tracing *o = &t->tracing[sent];
    const unsigned char *p = o->record.data;
    size_t n = o->record.len - 5;

    pysock__tls_report(t, sent, 256, p[0], p, 5);
    if (p[0] == 22) {
        pysock__bytes_append(&o->message, p + 5, n);
        pysock__tls_report_handshake(t, sent);
    } else if (p[0] == 21 && n >= 2) {
        pysock__tls_report(t, sent, 21, p[6], p + 5, n);
    } else if (p[0] == 20) {
        pysock__tls_report(t, sent, 20, 0x101, p + 5, n); /* it has no types: OpenSSL's number */
        o->encrypted = 1;
    }
}

/* Traces bytes of records, in pieces of any size. The caller holds no lock. */
static void pysock__tls_trace(pysock__tls *t, int sent, const unsigned char *p, size_t n)
{
    pysock__tracing *o = &t->tracing[sent];
    size_t want, k;

    if (!t->message_callback || t->handshakes)
        return;
    while (n && !o->encrypted) {
        want = o->record.len < 5 ? 5 : 5 + ((size_t)o->record.data[3] << 8 | o->record.data[4]);
        k = n < want - o->record.len ? n : want - o->record.len;
        pysock__bytes_append(&o->record, p, k);
        if (o->record.out_of_memory) {
            o->encrypted = 1;
            return;
        }
        p += k;
        n -= k;
        if (o->record.len < 5
            || o->record.len < 5 + ((size_t)o->record.data[3] << 8 | o->record.data[4]))
            continue;
        pysock__tls_report_record(t, sent);
        o->record.len = 0;
    }
}

/* 1 if records with application data have not been sent completely. */
static int pysock__tls_holds_plaintext(const pysock__tls *t)
{
    const unsigned char *p;
    size_t n;

    if (!pysock__tls_established(t) || t->mid_record)
        return pysock__tls_established(t) && t->out_type == 23;
    p = pysock__tls_engine_out(t, &n);
    return p && p[0] == 23;
}

static void pysock__tls_out_done(pysock__tls *t, size_t n)
{
    const unsigned char *p;
    size_t len;

    if (t->state == PYSOCK__TLS_HELLO)
        pysock__tls_enter(t, PYSOCK__TLS_HANDSHAKE);
    if (t->flight_pos < t->flight.len) {
        t->flight_pos += n;
        if (t->flight_pos == t->flight.len)
            t->flight_pos = t->flight.len = 0;
    } else if ((p = pysock__tls_engine_out(t, &len)) != NULL) {
        t->out_type = t->mid_record ? t->out_type : p[0];
        t->mid_record = n < len;
        br_ssl_engine_sendrec_ack(t->eng, n);
    } else {
        t->alert_pos += n;
    }
    pysock__tls_progress(t);
}

/* TLS records: input. Every record except application data is decrypted and read here before the
   engine gets it: alerts, limits, and complete handshake messages. What is refused here never
   reaches the engine. */

#define PYSOCK__MAX_EMPTY 32                   /* records without contents in a row */
#define PYSOCK__MAX_WARNINGS 5                 /* warning alerts in a row */
#define PYSOCK__MAX_REQUESTS 32                /* for another handshake, without data between */
#define PYSOCK__MAX_EARLY ((size_t)256 * 1024) /* data before a renegotiation's ServerHello */

/* The maximum length of a message of this type; 0 if it has no contents, or must not come here. */
static size_t pysock__message_limit(const pysock__tls *t, int type)
{
    switch (type) {
    case PYSOCK__CERTIFICATE: return (size_t)160 * 1024;
    case PYSOCK__FINISHED: return t->eng->incrypt ? 12 : 0;
    case PYSOCK__CLIENT_HELLO: return t->wrap.server ? (size_t)64 * 1024 : 0;
    case PYSOCK__CERTIFICATE_VERIFY:
    case PYSOCK__CLIENT_KEY_EXCHANGE: return t->wrap.server ? (size_t)16 * 1024 : 0;
    case PYSOCK__SESSION_TICKET: return t->wrap.server ? 0 : (size_t)66 * 1024;
    case PYSOCK__SERVER_HELLO:
    case PYSOCK__SERVER_KEY_EXCHANGE:
    case PYSOCK__CERTIFICATE_REQUEST: return t->wrap.server ? 0 : (size_t)64 * 1024;
    case PYSOCK__CERTIFICATE_STATUS: return t->wrap.server ? 0 : (size_t)160 * 1024;
    default: return 0;
    }
}

/* 1 for messages without contents. */
static int pysock__message_is_bare(const pysock__tls *t, int type)
{
    return !t->wrap.server && (type == PYSOCK__HELLO_REQUEST || type == PYSOCK__SERVER_HELLO_DONE);
}

/* Ends the connection with an alert. Records made before are still sent. */
static void pysock__tls_refuse(pysock__tls *t, int alert, const char *reason, const char *text)
{
    const pysock__code *c = pysock__code_find(pysock__alerts, PYSOCK__COUNT(pysock__alerts), alert);

    if (pysock__tls_is_over(t))
        return;
    t->refused = 1;
    pysock__tls_make_alert(t, 2, alert);
    pysock__tls_end(t, 1);
    pysock__fault_set(&t->fault, PYSOCK_SSL_ERROR, BR_ERR_SEND_FATAL_ALERT + alert, reason,
                      "%s; it was answered with the alert %s (%d)", text, c->sentence, alert);
}

/* Ends the connection with the thread's current error. */
static void pysock__tls_fail_internal(pysock__tls *t)
{
    if (pysock__tls_is_over(t))
        return;
    t->refused = 1;
    pysock__tls_make_alert(t, 2, BR_ALERT_INTERNAL_ERROR);
    pysock__tls_end(t, 1);
    t->fault = pysock__last;
}

static void pysock__tls_fail_memory(pysock__tls *t)
{
    pysock__fail_memory("TLS");
    pysock__tls_fail_internal(t);
}

/* Fails as the engine would if it got the record. */
static void pysock__tls_fail_as_engine(pysock__tls *t, int err)
{
    if (pysock__tls_is_over(t))
        return;
    t->refused = 1;
    pysock__tls_end(t, 1);
    pysock__tls_describe(t, err);
    pysock__tls_make_alert(t, 2, pysock__alert_for(err, 0));
}

static void pysock__tls_refuse_hello(pysock__tls *t, int alert)
{
    const char *peer = t->wrap.server ? "client" : "server";
    char text[160];

    snprintf(text, sizeof text, "the %s's hello %s", peer,
             alert == BR_ALERT_ILLEGAL_PARAMETER ? "has an invalid value, or an extension twice"
             : alert == PYSOCK_ALERT_UNRECOGNIZED_NAME ? "asks for a name that cannot be one"
                                                       : "is malformed");
    pysock__tls_refuse(t, alert,
                       alert == BR_ALERT_DECODE_ERROR            ? "LENGTH_MISMATCH"
                       : alert == PYSOCK_ALERT_UNRECOGNIZED_NAME ? "TLSV1_UNRECOGNIZED_NAME"
                                                                 : "BAD_EXTENSION",
                       text);
}

/* Takes the caller's reference to a context that pysock_ssl_get_context() may be reading. */
static void pysock__tls_keep_former(pysock__tls *t, pysock_ssl_context *ctx)
{
    pysock__context_release(t->former);
    t->former = ctx;
}

/* Continues with another context, which is retained: takes all settings anew. 0 or a failure. */
static int pysock__tls_switch(pysock__tls *t, pysock_ssl_context *ctx, const char *what)
{
    pysock__tls_drop_settings(t);
    pysock__tls_keep_former(t, t->wrap.ctx);
    pysock__store(&t->wrap.ctx, pysock__context_retain(ctx));
    if (pysock__tls_take_settings(t, what) < 0)
        return -1;
    return pysock__tls_reset(t, what);
}

/* Calls the sni_callback, without a lock. Meanwhile t->chosen is the context to go on with, which
   pysock_ssl_set_context() replaces. The engine has seen nothing yet. */
static void pysock__tls_call_sni(pysock__tls *t)
{
    int (*fn)(void *arg, const pysock_ssl_client_hello *hello);
    pysock_ssl_context *chosen;
    pysock_ssl_client_hello hello;
    void *arg;
    int alert;

    pysock__lock(&t->wrap.ctx->lock);
    fn = t->wrap.ctx->sni_callback;
    arg = t->wrap.ctx->sni_arg;
    pysock__unlock(&t->wrap.ctx->lock);
    if (!fn)
        return;
    hello.socket = t->owner;
    hello.server_name = t->sni;
    pysock__store(&t->chosen, pysock__context_retain(t->wrap.ctx));
    alert = fn(arg, &hello);
    chosen = pysock__exchange(&t->chosen, (pysock_ssl_context *)NULL);
    if (alert) {
        pysock__tls_refuse(t, alert > 0 && alert < 256 ? alert : PYSOCK_ALERT_INTERNAL_ERROR,
                           "CALLBACK_FAILED", "the sni_callback refused the client");
        pysock__tls_keep_former(t, chosen);
        return;
    }
    if (chosen != t->wrap.ctx && pysock__tls_switch(t, chosen, "sni_callback") < 0)
        pysock__tls_fail_internal(t);
    pysock__context_release(chosen);
}

/* Makes ctx the one to go on with after the sni_callback. 0: none is running. */
static int pysock__tls_choose(pysock__tls *t, pysock_ssl_context *ctx)
{
    pysock_ssl_context *old = pysock__load(&t->chosen);

    pysock__context_retain(ctx);
    while (old && !pysock__cas(&t->chosen, &old, ctx)) {
    }
    pysock__context_release(old ? old : ctx);
    return old != NULL;
}

/* The first ClientHello: keeps the name, calls the sni_callback, and restricts the version. */
static void pysock__tls_on_first_hello(pysock__tls *t, const pysock__hello *hello)
{
    unsigned version;
    char *name;
    size_t n = pysock__der_len(&hello->name);

    if (n) {
        name = (char *)pysock__alloc(n + 1);
        if (!name) {
            pysock__tls_fail_memory(t);
            return;
        }
        memcpy(name, hello->name.p, n);
        pysock__store(&t->sni, name);
    }
    pysock__tls_call_sni(t);
    if (pysock__tls_is_over(t) || !hello->versions.p)
        return;
    version = pysock__shared_version(hello, t->eng->version_min, t->eng->version_max);
    if (version)
        br_ssl_engine_set_versions(t->eng, t->eng->version_min, version);
    else
        pysock__tls_refuse(t, BR_ALERT_PROTOCOL_VERSION, "UNSUPPORTED_PROTOCOL",
                           "the client lists no version of TLS that is enabled here (this library "
                           "speaks none above TLSv1.2)");
}

static void pysock__tls_on_client_hello(pysock__tls *t, pysock__der body)
{
    pysock__hello *hello = (pysock__hello *)PYSOCK_MALLOC(sizeof *hello);
    int alert;

    if (!hello) {
        pysock__tls_fail_memory(t);
        return;
    }
    alert = pysock__read_client_hello(body, hello);
    if (alert)
        pysock__tls_refuse_hello(t, alert);
    else if (!t->handshakes)
        pysock__tls_on_first_hello(t, hello);
    else if (t->eng->reneg == 2
             && (!hello->renegotiation.p || pysock__signals_renegotiation(hello)))
        pysock__tls_refuse(t, BR_ALERT_HANDSHAKE_FAILURE, "RENEGOTIATION_MISMATCH",
                           "the client renegotiates as if it were its first handshake (RFC 5746)");
    /* BearSSL 0.6 reads outside of its array of names when it tolerates a mismatch: so its engine
       gets the names only if there is a protocol in common. */
    if (!pysock__tls_is_over(t)) {
        int shares = pysock__shares_protocol(t->alpn, hello->protocols);
        br_ssl_engine_set_protocol_names(t->eng, shares ? t->alpn->names : NULL,
                                         shares ? t->alpn->count : 0);
    }
    PYSOCK_FREE(hello);
}

/* Checks of a ServerHello that BearSSL does not make. */
static void pysock__tls_on_server_hello(pysock__tls *t, pysock__der body)
{
    pysock__hello *hello = (pysock__hello *)PYSOCK_MALLOC(sizeof *hello);
    pysock__der names, name;
    int alert;

    if (!hello) {
        pysock__tls_fail_memory(t);
        return;
    }
    alert = pysock__read_server_hello(body, hello);
    names = hello->protocols;
    if (alert) {
        pysock__tls_refuse_hello(t, alert);
    } else if (hello->protocols.p && pysock__vector_whole(&names, 1, &name) < 0) {
        pysock__tls_refuse_hello(t, BR_ALERT_DECODE_ERROR); /* one name (RFC 7301, 3.1) */
    } else if (hello->protocols.p && t->alpn
               && !pysock__shares_protocol(t->alpn, hello->protocols)) {
        pysock__tls_refuse(t, BR_ALERT_ILLEGAL_PARAMETER, "BAD_EXTENSION",
                           "the server chose a protocol by ALPN that was not offered");
    } else if (!hello->renegotiation.p && !t->handshakes
               && !(t->options & PYSOCK_OP_LEGACY_SERVER_CONNECT)) {
        pysock__tls_refuse(t, BR_ALERT_HANDSHAKE_FAILURE, "UNSAFE_LEGACY_RENEGOTIATION_DISABLED",
                           "the server does not know secure renegotiation (RFC 5746); if it is an "
                           "old one that you trust, set PYSOCK_OP_LEGACY_SERVER_CONNECT");
    }
    PYSOCK_FREE(hello);
}

/* 1 if a point has the form of this curve's points. */
static int pysock__point_formed(int curve, const pysock__der *point)
{
    size_t n = pysock__der_len(point);

    switch (curve) {
    case BR_EC_curve25519: return n == 32;
    case BR_EC_secp256r1: return n == 65 && point->p[0] == 4;
    case BR_EC_secp384r1: return n == 97 && point->p[0] == 4;
    case BR_EC_secp521r1: return n == 133 && point->p[0] == 4;
    default: return 0;
    }
}

/* A ServerKeyExchange of ECDHE (RFC 8422, 5.4): the alert, or 0. */
static int pysock__read_key_exchange(const pysock__tls *t, unsigned traits, pysock__der body)
{
    const br_ssl_engine_context *eng = t->eng;
    pysock__der point, signature;
    int curve;

    if (body.end - body.p < 3)
        return BR_ALERT_DECODE_ERROR;
    curve = body.p[1] << 8 | body.p[2];
    if (body.p[0] != 3 || curve >= 32 || !(eng->iec->supported_curves >> curve & 1))
        return BR_ALERT_ILLEGAL_PARAMETER; /* not a named curve, or one that was not offered */
    body.p += 3;
    if (pysock__vector(&body, 1, &point) < 0 || point.p == point.end)
        return BR_ALERT_DECODE_ERROR;
    if (!pysock__point_formed(curve, &point))
        return BR_ALERT_ILLEGAL_PARAMETER;
    if (eng->session.version >= BR_TLS12) {
        if (body.end - body.p < 2)
            return BR_ALERT_DECODE_ERROR;
        if (body.p[0] < br_sha1_ID || body.p[0] > br_sha512_ID
            || !br_multihash_getimpl(&eng->mhash, body.p[0])
            || body.p[1] != (traits & PYSOCK__KX_ECDHE_ECDSA ? 3 : 1))
            return BR_ALERT_ILLEGAL_PARAMETER;
        body.p += 2;
    }
    return pysock__vector_whole(&body, 2, &signature) < 0 ? BR_ALERT_DECODE_ERROR : 0;
}

/* A ClientKeyExchange, by the suite that was chosen: the alert, or 0. */
static int pysock__read_client_key_exchange(const pysock__tls *t, unsigned traits, pysock__der body)
{
    pysock__der value;

    if (traits & PYSOCK__KX_RSA)
        return pysock__vector_whole(&body, 2, &value) < 0 ? BR_ALERT_DECODE_ERROR : 0;
    if (traits & PYSOCK__KX_ECDH && body.p == body.end)
        return 0; /* the client's certificate has the key */
    if (pysock__vector_whole(&body, 1, &value) < 0 || value.p == value.end)
        return BR_ALERT_DECODE_ERROR;
    return traits & PYSOCK__KX_ECDHE && !pysock__point_formed(t->eng->ecdhe_curve, &value)
               ? BR_ALERT_ILLEGAL_PARAMETER
               : 0;
}

/* A client's CertificateVerify: its algorithm must have been in our CertificateRequest. */
static int pysock__read_certificate_verify(const pysock__tls *t, pysock__der body)
{
    pysock__der signature;

    if (t->eng->session.version >= BR_TLS12) {
        if (body.end - body.p < 2)
            return BR_ALERT_DECODE_ERROR;
        if (body.p[0] < br_sha1_ID || body.p[0] > br_sha512_ID
            || !br_multihash_getimpl(&t->eng->mhash, body.p[0])
            || (body.p[1] != 1 && body.p[1] != 3))
            return BR_ALERT_ILLEGAL_PARAMETER;
        body.p += 2;
    }
    return pysock__vector_whole(&body, 2, &signature) < 0 ? BR_ALERT_DECODE_ERROR : 0;
}

/* A server's list must not be empty, nor a certificate in a list (RFC 5246, 7.4.2). The engine
   checks the other lengths. */
static int pysock__read_certificates(pysock__der body, int may_be_empty)
{
    size_t n;

    if (pysock__der_len(&body) == 3 && !may_be_empty)
        return BR_ALERT_DECODE_ERROR;
    for (body.p += pysock__der_len(&body) < 3 ? 0 : 3; pysock__der_len(&body) >= 3; body.p += n) {
        n = (size_t)body.p[0] << 16 | (size_t)body.p[1] << 8 | body.p[2];
        if (!n)
            return BR_ALERT_DECODE_ERROR;
        n = n + 3 < pysock__der_len(&body) ? n + 3 : pysock__der_len(&body);
    }
    return 0;
}

/* Checks a message that comes in order; the engine refuses others. The alert, or 0. */
static int pysock__read_message(const pysock__tls *t, int type, pysock__der body)
{
    const pysock__suite *suite = pysock__suite_find(t->eng->session.cipher_suite);
    unsigned traits = suite ? suite->traits : 0;
    int last = t->in.last;

    switch (type) {
    case PYSOCK__CERTIFICATE: return pysock__read_certificates(body, last != PYSOCK__SERVER_HELLO);
    case PYSOCK__SERVER_KEY_EXCHANGE:
        return last == PYSOCK__CERTIFICATE && traits & PYSOCK__KX_ECDHE
                   ? pysock__read_key_exchange(t, traits, body)
                   : 0;
    case PYSOCK__CERTIFICATE_REQUEST:
        return last
                       == (traits & PYSOCK__KX_ECDHE ? PYSOCK__SERVER_KEY_EXCHANGE
                                                     : PYSOCK__CERTIFICATE)
                   ? pysock__read_certificate_request(t->eng->session.version, body)
                   : 0;
    case PYSOCK__CLIENT_KEY_EXCHANGE:
        return last == (t->asked ? PYSOCK__CERTIFICATE : PYSOCK__CLIENT_HELLO)
                   ? pysock__read_client_key_exchange(t, traits, body)
                   : 0;
    case PYSOCK__CERTIFICATE_VERIFY:
        return last == PYSOCK__CLIENT_KEY_EXCHANGE && t->verifier && t->verifier->count
                   ? pysock__read_certificate_verify(t, body)
                   : 0;
    default: return 0;
    }
}

/* The peer requests another handshake. */
static void pysock__tls_count_request(pysock__tls *t)
{
    if (++t->in.requests > PYSOCK__MAX_REQUESTS)
        pysock__tls_refuse(t, BR_ALERT_UNEXPECTED_MESSAGE, "TOO_MANY_HANDSHAKES",
                           "the peer requests too many handshakes");
}

/* Handles a complete message. 1: it is for the engine. */
static int pysock__tls_on_message(pysock__tls *t, int type, pysock__der body)
{
    int alert = 0, first = t->in.last == PYSOCK__NO_MESSAGE;

    if (type == PYSOCK__HELLO_REQUEST) {
        pysock__tls_count_request(t);
        return t->eng->application_data == 1; /* else ignored, and not hashed (RFC 5246, 7.4.1.1) */
    }
    if (type == PYSOCK__CLIENT_HELLO && (first || pysock__tls_established(t))) {
        if (t->handshakes)
            pysock__tls_count_request(t);
        if (!pysock__tls_is_over(t))
            pysock__tls_on_client_hello(t, body);
    } else if (type == PYSOCK__SERVER_HELLO && first && !pysock__tls_established(t)) {
        pysock__tls_on_server_hello(t, body);
        t->in.answered = 1;
    } else if (type == PYSOCK__CLIENT_HELLO || type == PYSOCK__SERVER_HELLO) {
        alert = BR_ALERT_UNEXPECTED_MESSAGE;
    } else {
        alert = pysock__read_message(t, type, body);
    }
    if (alert == BR_ALERT_UNEXPECTED_MESSAGE)
        pysock__tls_refuse(t, alert, "UNEXPECTED_MESSAGE", "a message came out of order");
    else if (alert == BR_ALERT_DECODE_ERROR)
        pysock__tls_refuse(t, alert, "LENGTH_MISMATCH", "a message from the peer is malformed");
    else if (alert)
        pysock__tls_refuse(t, alert, "BAD_VALUE",
                           "the peer uses a curve or an algorithm that was not offered, or a point "
                           "that is none");
    t->certificate_asked |= type == PYSOCK__CERTIFICATE_REQUEST;
    t->in.last = type;
    return 1;
}

/* Queues decrypted data for the engine, as new records. */
static void pysock__intake_deliver(pysock__tls *t, int type, const unsigned char *data, size_t len)
{
    pysock__bytes *b = &t->in.ready;
    unsigned char header[5];
    size_t n;

    while (len) {
        n = len < 16384 ? len : 16384;
        header[0] = (unsigned char)type;
        memcpy(header + 1, t->in.header + 1, 2);
        header[3] = (unsigned char)(n >> 8);
        header[4] = (unsigned char)n;
        pysock__bytes_append(b, header, 5);
        pysock__bytes_append(b, data, n);
        data += n;
        len -= n;
    }
    if (b->out_of_memory)
        pysock__tls_fail_memory(t);
}

/* Replaces the cipher while the engine gets decrypted records. */
static int pysock__opened_length(const br_sslrec_in_class *const *in, size_t len)
{
    (void)in, (void)len;
    return 1;
}

static unsigned char *pysock__opened_data(const br_sslrec_in_class **in, int type, unsigned version,
                                          void *payload, size_t *len)
{
    (void)in, (void)type, (void)version, (void)len;
    return (unsigned char *)payload;
}

static const br_sslrec_in_class pysock__opened_class = {sizeof(br_sslrec_in_class *),
                                                        pysock__opened_length, pysock__opened_data};

/* Gives the engine bytes of records; it runs a handshake's cryptography here. How many it took. */
static size_t pysock__engine_give(pysock__tls *t, const unsigned char *data, size_t len)
{
    br_ssl_engine_context *eng = t->eng;
    const br_sslrec_in_class *cipher = eng->incrypt ? eng->in.vtable : NULL;
    size_t pos = 0, n;
    unsigned char *p;

    pysock__point_refused = 0;
    if (cipher)
        eng->in.vtable = &pysock__opened_class;
    while (pos < len && (p = br_ssl_engine_recvrec_buf(eng, &n)) != NULL) {
        n = n < len - pos ? n : len - pos;
        memcpy(p, data + pos, n);
        br_ssl_engine_recvrec_ack(eng, n);
        pos += n;
    }
    if (cipher && eng->in.vtable == &pysock__opened_class) /* the keys have not changed */
        eng->in.vtable = cipher;
    if (pysock__point_refused)
        pysock__tls_refuse(t, BR_ALERT_ILLEGAL_PARAMETER, "BAD_ECPOINT",
                           "the peer's public point is not on the curve, or gives no secret");
    return pos;
}

static void pysock__intake_give(pysock__tls *t)
{
    pysock__intake *in = &t->in;

    if (pysock__tls_is_over(t) || in->ready_pos == in->ready.len)
        return;
    in->ready_pos +=
        pysock__engine_give(t, in->ready.data + in->ready_pos, in->ready.len - in->ready_pos);
    if (in->ready_pos == in->ready.len)
        in->ready_pos = in->ready.len = 0;
}

/* A message's header is complete: refuses an invalid one. */
static void pysock__tls_on_message_header(pysock__tls *t, int type, size_t len)
{
    size_t limit = pysock__message_limit(t, type);

    if (!limit && !pysock__message_is_bare(t, type))
        pysock__tls_refuse(t, BR_ALERT_UNEXPECTED_MESSAGE, "UNEXPECTED_MESSAGE",
                           "a message came out of order");
    else if (len > limit && limit <= 12)
        pysock__tls_refuse(t, BR_ALERT_DECODE_ERROR, "LENGTH_MISMATCH",
                           "a message from the peer is malformed");
    else if (len > limit)
        pysock__tls_refuse(t, BR_ALERT_ILLEGAL_PARAMETER, "EXCESSIVE_MESSAGE_SIZE",
                           "a handshake message is too large for its type");
}

/* Decrypted handshake bytes: assembles messages, which may span records. */
static void pysock__intake_handshake(pysock__tls *t, const unsigned char *data, size_t len)
{
    pysock__bytes *m = &t->in.message;
    pysock__der body;
    size_t want, n;
    int type;

    while (len && !pysock__tls_is_over(t)) {
        want = 4;
        if (m->len >= 4)
            want += (size_t)m->data[1] << 16 | (size_t)m->data[2] << 8 | m->data[3];
        n = len < want - m->len ? len : want - m->len;
        pysock__bytes_append(m, data, n);
        if (m->out_of_memory) {
            pysock__tls_fail_memory(t);
            return;
        }
        data += n;
        len -= n;
        if (m->len < 4)
            return;
        want = 4 + ((size_t)m->data[1] << 16 | (size_t)m->data[2] << 8 | m->data[3]);
        type = m->data[0];
        pysock__tls_on_message_header(t, type, want - 4);
        if (!pysock__tls_is_over(t) && m->len == want) {
            body.p = m->data + 4;
            body.end = m->data + m->len;
            if (pysock__tls_on_message(t, type, body) && !pysock__tls_is_over(t))
                pysock__intake_deliver(t, 22, m->data, m->len);
            m->len = 0;
            if (len
                && (type == PYSOCK__CLIENT_HELLO || type == PYSOCK__SERVER_HELLO_DONE
                    || type == PYSOCK__FINISHED))
                pysock__tls_refuse(t, BR_ALERT_UNEXPECTED_MESSAGE, "EXCESS_HANDSHAKE_DATA",
                                   "bytes follow a handshake message that must end its record");
            pysock__intake_give(t);
        }
    }
}

/* A decrypted alert. The engine handles those that end the connection. */
static void pysock__intake_alert(pysock__tls *t, const unsigned char *data, size_t len)
{
    if (len != 2 || data[0] < 1 || data[0] > 2) {
        pysock__tls_refuse(t, BR_ALERT_DECODE_ERROR, "BAD_ALERT", "an alert is malformed");
    } else if (data[0] == 1 && data[1] != 0 && data[1] != 100) {
        if (++t->in.warnings > PYSOCK__MAX_WARNINGS)
            pysock__tls_refuse(t, BR_ALERT_UNEXPECTED_MESSAGE, "TOO_MANY_WARN_ALERTS",
                               "the peer sends too many warning alerts");
    } else if (data[0] == 1 && data[1] == 0 && t->wrap.half_close && t->state == PYSOCK__TLS_OPEN) {
        pysock__tls_enter(t, PYSOCK__TLS_PEER_CLOSED); /* the engine would end our direction, too */
    } else {
        pysock__intake_deliver(t, 21, data, 2);
    }
}

/* Application data before the ServerHello of a renegotiation: the server sent it before it read our
   ClientHello. */
static void pysock__intake_early(pysock__tls *t, const unsigned char *data, size_t len)
{
    pysock__bytes_append(&t->in.early, data, len);
    if (t->in.early.out_of_memory)
        pysock__tls_fail_memory(t);
    else if (t->in.early.len > PYSOCK__MAX_EARLY)
        pysock__tls_refuse(t, BR_ALERT_UNEXPECTED_MESSAGE, "APP_DATA_IN_HANDSHAKE",
                           "the server sends data instead of continuing its renegotiation");
}

/* Handles a complete, decrypted record. */
static void pysock__intake_record(pysock__tls *t, const unsigned char *data, size_t len)
{
    pysock__intake *in = &t->in;
    int type = in->header[0];

    if (!len && (type == 22 || (type == 23 && t->handshakes))) {
        if (++in->empty > PYSOCK__MAX_EMPTY)
            pysock__tls_refuse(t, BR_ALERT_UNEXPECTED_MESSAGE, "RECORD_TOO_SMALL",
                               "the peer sends too many empty records in a row");
        return;
    }
    in->empty = 0;
    if (type != 21)
        in->warnings = 0;
    if (type == 22)
        pysock__intake_handshake(t, data, len);
    else if (type == 21)
        pysock__intake_alert(t, data, len);
    else if (type == 23 && pysock__tls_established(t))
        pysock__intake_deliver(t, 23, data, len); /* the engine had no room when it began */
    else if (type == 23 && t->handshakes && !t->wrap.server && !in->answered)
        pysock__intake_early(t, data, len);
    else if (type != 20 || in->message.len)
        pysock__tls_refuse(t, BR_ALERT_UNEXPECTED_MESSAGE, "UNEXPECTED_RECORD",
                           "a record came out of order");
    else if (len != 1 || data[0] != 1)
        pysock__tls_refuse(t, BR_ALERT_DECODE_ERROR, "BAD_CHANGE_CIPHER_SPEC",
                           "a ChangeCipherSpec message is malformed");
    else
        pysock__intake_deliver(t, 20, data, len);
    pysock__intake_give(t);
}

/* A record's header is complete: checks it, and chooses where the body goes. */
static void pysock__intake_header(pysock__tls *t)
{
    br_ssl_engine_context *eng = t->eng;
    pysock__intake *in = &t->in;
    const unsigned char *h = in->header;
    size_t n, len = (size_t)h[3] << 8 | h[4];
    unsigned char *room = NULL;

    if (h[1] != 3)
        pysock__tls_fail_as_engine(t, BR_ERR_UNSUPPORTED_VERSION);
    else if (eng->version_in && eng->version_in != (h[1] << 8 | h[2]))
        pysock__tls_fail_as_engine(t, BR_ERR_BAD_VERSION);
    else if ((h[0] < 20 || h[0] > 23) && !t->in.answered && t->in.last == PYSOCK__NO_MESSAGE
             && !t->handshakes)
        pysock__tls_fail_as_engine(t, BR_ERR_UNKNOWN_TYPE);
    else if (h[0] < 20 || h[0] > 23)
        pysock__tls_refuse(t, BR_ALERT_UNEXPECTED_MESSAGE, "UNEXPECTED_RECORD",
                           "a record has a type that TLS does not have");
    else if (len > (eng->incrypt ? 16384u + 2048 : 16384u) || len > eng->ibuf_len - 5)
        pysock__tls_fail_as_engine(t, BR_ERR_TOO_LARGE);
    else if (eng->incrypt && !eng->in.vtable->check_length(&eng->in.vtable, len))
        pysock__tls_fail_as_engine(t, len > 16384 ? BR_ERR_TOO_LARGE : BR_ERR_BAD_MAC);
    if (pysock__tls_is_over(t))
        return;
    in->body.len = 0;
    room = h[0] == 23 && pysock__tls_established(t) ? br_ssl_engine_recvrec_buf(eng, &n) : NULL;
    in->direct = room != NULL;
    if (room) {
        memcpy(room, h, 5);
        br_ssl_engine_recvrec_ack(eng, 5);
    } else if (!len) {
        in->header_len = 0;
        pysock__intake_record(t, NULL, 0);
    } else if (pysock__reserve(&in->body.data, &in->body.cap, len, 1) < 0) {
        pysock__tls_fail_memory(t);
    }
}

/* The body of a record is complete: decrypts it. */
static void pysock__intake_open(pysock__tls *t)
{
    br_ssl_engine_context *eng = t->eng;
    pysock__intake *in = &t->in;
    unsigned char *data = in->body.data;
    size_t len = in->body.len;

    in->header_len = 0;
    if (eng->incrypt) {
        data = eng->in.vtable->decrypt(&eng->in.vtable, in->header[0],
                                       (unsigned)(in->header[1] << 8 | in->header[2]), data, &len);
        if (!data) {
            pysock__tls_fail_as_engine(t, BR_ERR_BAD_MAC);
            return;
        }
    }
    pysock__intake_record(t, data, len);
}

/* A record of application data has gone through the engine: limits empty ones. */
static void pysock__intake_check_data(pysock__tls *t)
{
    size_t n;

    t->in.header_len = 0;
    if (br_ssl_engine_recvapp_buf(t->eng, &n)) {
        t->in.empty = t->in.warnings = t->in.requests = 0;
    } else if (++t->in.empty > PYSOCK__MAX_EMPTY
               && br_ssl_engine_current_state(t->eng) != BR_SSL_CLOSED) {
        pysock__tls_refuse(t, BR_ALERT_UNEXPECTED_MESSAGE, "RECORD_TOO_SMALL",
                           "the peer sends too many empty records in a row");
    }
}

/* Room for exactly the bytes that are needed next. NULL: none now. */
static unsigned char *pysock__tls_in(pysock__tls *t, size_t *len)
{
    pysock__intake *in = &t->in;

    pysock__intake_give(t);
    pysock__tls_progress(t);
    if (pysock__tls_is_over(t) || t->state == PYSOCK__TLS_PEER_CLOSED || in->ready.len)
        return NULL;
    if (in->header_len < 5) {
        *len = 5 - in->header_len;
        return in->header + in->header_len;
    }
    if (in->direct)
        return br_ssl_engine_recvrec_buf(t->eng, len);
    *len = ((size_t)in->header[3] << 8 | in->header[4]) - in->body.len;
    return in->body.data + in->body.len;
}

static void pysock__intake_take(pysock__tls *t, size_t n)
{
    pysock__intake *in = &t->in;
    size_t i, ends;

    if (in->header_len < 5) {
        for (i = 0; i < n && !t->handshakes && t->first_len < sizeof t->first; i++)
            t->first[t->first_len++] = in->header[in->header_len + i];
        in->header_len += n;
        if (in->header_len == 5)
            pysock__intake_header(t);
        return;
    }
    if (in->direct) {
        ends = t->eng->ixc == n;
        br_ssl_engine_recvrec_ack(t->eng, n);
        if (ends)
            pysock__intake_check_data(t);
        return;
    }
    in->body.len += n;
    if (in->body.len == ((size_t)in->header[3] << 8 | in->header[4]))
        pysock__intake_open(t);
}

/* n bytes have been put where pysock__tls_in() pointed. A handshake's cryptography runs here. */
static void pysock__tls_in_done(pysock__tls *t, size_t n)
{
    if (t->state == PYSOCK__TLS_HELLO)
        pysock__tls_enter(t, PYSOCK__TLS_HANDSHAKE);
    pysock__intake_take(t, n);
    pysock__tls_progress(t);
}

/* Plaintext to be received: first what came during a renegotiation. */
static const unsigned char *pysock__tls_app_in(const pysock__tls *t, size_t *len)
{
    if (t->in.early_pos < t->in.early.len) {
        *len = t->in.early.len - t->in.early_pos;
        return t->in.early.data + t->in.early_pos;
    }
    return br_ssl_engine_recvapp_buf(t->eng, len);
}

static void pysock__tls_app_in_done(pysock__tls *t, size_t n)
{
    if (t->in.early_pos == t->in.early.len) {
        br_ssl_engine_recvapp_ack(t->eng, n);
        pysock__tls_progress(t);
        return;
    }
    t->in.early_pos += n;
    if (t->in.early_pos == t->in.early.len) {
        pysock__bytes_free(&t->in.early);
        t->in.early_pos = 0;
    }
}

/* Takes plaintext for at most one record. How much; 0 if the engine takes none. */
static size_t pysock__tls_app_out(pysock__tls *t, const void *data, size_t size)
{
    unsigned char *room = NULL;
    size_t n = 0;

    if (pysock__tls_flags(t) & PYSOCK__APP_OUT)
        room = br_ssl_engine_sendapp_buf(t->eng, &n);
    if (!room)
        return 0;
    n = n < size ? n : size;
    memcpy(room, data, n);
    br_ssl_engine_sendapp_ack(t->eng, n);
    br_ssl_engine_flush(t->eng, 0);
    pysock__tls_progress(t);
    return n;
}

/* 1 if the peer's close_notify has come, and nothing has failed. */
static int pysock__tls_closed_cleanly(const pysock__tls *t)
{
    return t->state == PYSOCK__TLS_PEER_CLOSED || (pysock__tls_is_over(t) && !t->fault.kind);
}

/* Sends our close_notify; what the peer still sends can be read (RFC 5246, 7.2.1, read leniently:
   pending data is not discarded). */
static void pysock__tls_close_notify(pysock__tls *t)
{
    if (!pysock__tls_may_send(t))
        return;
    pysock__tls_make_alert(t, 1, 0);
    pysock__tls_enter(t,
                      t->state == PYSOCK__TLS_OPEN ? PYSOCK__TLS_CLOSE_SENT : PYSOCK__TLS_CLOSED);
}

/* The handshake is finished: keeps the peer's chain and the session. 0 or -ENOMEM. */
static int pysock__tls_finish(pysock__tls *t)
{
    br_ssl_session_parameters params;
    pysock__verifier *v = t->verifier;
    pysock__peer *peer = NULL;
    int err = 0;

    br_ssl_engine_get_session_parameters(t->eng, &params);
    t->suite = params.cipher_suite;
    t->version = params.version;
    if (!t->wrap.server)
        t->reused =
            t->wrap.session && t->wrap.session->params.session_id_len == params.session_id_len
            && memcmp(t->wrap.session->params.session_id, params.session_id, params.session_id_len)
                   == 0;
    if (v && v->count)
        err = (peer = pysock__peer_new(v)) == NULL ? -ENOMEM : 0;
    else
        peer = pysock__peer_retain(t->reused ? t->wrap.session->peer : t->peer);
    if (err == 0) {
        pysock__peer_release(t->peer);
        t->peer = peer;
        if (!t->reused) {
            pysock__session_release(t->wrap.session);
            t->wrap.session = pysock__session_new(t, &params);
        }
        pysock__session_store(t);
        if (t->keylog)
            pysock__keylog_write(t->keylog, t->eng);
        pysock__tls_enter(t, PYSOCK__TLS_OPEN);
        t->handshakes++;
    }
    pysock__wipe(&params, sizeof params);
    pysock__context_take_found(t->wrap.ctx, v);
    pysock__verifier_free(v);
    t->verifier = NULL;
    pysock__bytes_free(&t->flight);
    t->flight_pos = 0;
    pysock__bytes_free(&t->in.body);
    pysock__bytes_free(&t->in.message);
    t->in.last = PYSOCK__NO_MESSAGE;
    return err;
}

/* 1 if the peer has requested another handshake, and the engine has accepted. */
static int pysock__tls_renegotiates(const pysock__tls *t)
{
    return t->state == PYSOCK__TLS_OPEN && !t->eng->application_data
           && t->eng->record_type_out == 22 /* handshake */;
}

/* Prepares that handshake. Until it is finished no plaintext flows. */
static void pysock__tls_begin_again(pysock__tls *t)
{
    pysock_ssl_context *ctx = t->wrap.ctx;
    int verifies = !t->wrap.server || t->asked;

    pysock__tls_enter(t, PYSOCK__TLS_HANDSHAKE);
    t->in.answered = t->certificate_asked = 0;
    if (!t->wrap.server)
        t->in.last = PYSOCK__NO_MESSAGE;
    t->reused = t->session_new = 0;
    pysock__lock(&ctx->lock);
    if (t->wrap.server)
        ctx->stats.accept_renegotiate++;
    else
        ctx->stats.connect_renegotiate++;
    if (verifies)
        t->verifier = pysock__verifier_new_locked(t);
    pysock__unlock(&ctx->lock);
    if (t->verifier) {
        if (t->peer && t->peer->sent_count)
            t->verifier->same_leaf = pysock_buf_retain(t->peer->certs[0]);
        t->verifier->engine_flags = t->wrap.server ? &t->eng->flags : NULL;
        br_ssl_engine_set_x509(t->eng, &t->verifier->vtable);
    } else if (verifies) {
        pysock__tls_fail_memory(t);
    }
}

/* TLS records: negotiated parameters. */

/* The ALPN protocol, or NULL; the string lasts as long as t. */
static const char *pysock__tls_alpn(const pysock__tls *t)
{
    return br_ssl_engine_get_selected_protocol(t->eng);
}

/* On a server, the suites that both sides have, the preferred first. How many; 0 on a client. */
static size_t pysock__tls_shared_suites(const pysock__tls *t, uint16_t out[BR_MAX_CIPHER_SUITES])
{
    const br_suite_translated *shared;
    size_t i, n = 0;

    if (!t->wrap.server)
        return 0;
    shared = br_ssl_server_get_client_suites(&t->br.server, &n);
    for (i = 0; i < n; i++)
        out[i] = shared[i][0];
    return n;
}

/* RFC 5929, 3: the first Finished message of the last handshake: the client's, or the server's in a
   resumed one. Its size. */
static size_t pysock__tls_finished(const pysock__tls *t, unsigned char *out)
{
    memcpy(out, t->eng->saved_finished + (t->reused ? 12 : 0), 12);
    return 12;
}

#endif /* PYSOCK_NO_SSL */

/* ---- >>sockets ----
   Handles, phases, waiters and calls. A socket's lock guards all of it except where a field says
   otherwise; while a handshake computes, the engine belongs to the thread that set hs_busy and the
   lock is free. Calls sleep in pysock__wait_asleep_locked(), or, mostly without a timeout, in the
   kernel's own calls (kernel_waits), where shutdown() wakes them. */

typedef enum pysock__phase {
    PYSOCK__NEW,        /* neither connected nor listening; datagram sockets stay here */
    PYSOCK__RESOLVING,  /* a worker looks the name up */
    PYSOCK__CONNECTING, /* the kernel connects */
    PYSOCK__FAILED,     /* connecting failed; the fault is reported once */
    PYSOCK__LISTENING,
    PYSOCK__OPEN,        /* connected, plain */
    PYSOCK__HANDSHAKING, /* TLS, before plaintext can flow */
    PYSOCK__SECURE,      /* TLS, open */
    PYSOCK__UNWRAPPING,  /* our close_notify is out, the peer's is awaited */
    PYSOCK__BROKEN,      /* the handshake failed; the fault stays */
    PYSOCK__CLOSING,     /* closed by the user; the reactor sends what is left */
    PYSOCK__CLOSED
} pysock__phase;

#define PYSOCK__BIT(phase) (1u << (phase))

/* Which phases may follow each. */
static const unsigned pysock__phase_next[] = {
    /* NEW */ PYSOCK__BIT(PYSOCK__RESOLVING) | PYSOCK__BIT(PYSOCK__CONNECTING)
        | PYSOCK__BIT(PYSOCK__FAILED) | PYSOCK__BIT(PYSOCK__LISTENING) | PYSOCK__BIT(PYSOCK__OPEN)
        | PYSOCK__BIT(PYSOCK__HANDSHAKING),
    /* RESOLVING */ PYSOCK__BIT(PYSOCK__NEW) | PYSOCK__BIT(PYSOCK__CONNECTING)
        | PYSOCK__BIT(PYSOCK__FAILED) | PYSOCK__BIT(PYSOCK__OPEN),
    /* CONNECTING */ PYSOCK__BIT(PYSOCK__NEW) | PYSOCK__BIT(PYSOCK__FAILED)
        | PYSOCK__BIT(PYSOCK__OPEN),
    /* FAILED */ PYSOCK__BIT(PYSOCK__NEW),
    /* LISTENING */ 0,
    /* OPEN */ PYSOCK__BIT(PYSOCK__HANDSHAKING) | PYSOCK__BIT(PYSOCK__BROKEN),
    /* HANDSHAKING */ PYSOCK__BIT(PYSOCK__SECURE) | PYSOCK__BIT(PYSOCK__BROKEN),
    /* SECURE */ PYSOCK__BIT(PYSOCK__UNWRAPPING) | PYSOCK__BIT(PYSOCK__HANDSHAKING), /* again */
    /* UNWRAPPING */ PYSOCK__BIT(PYSOCK__OPEN) | PYSOCK__BIT(PYSOCK__SECURE)         /* a BIO's */
        | PYSOCK__BIT(PYSOCK__BROKEN),
    /* BROKEN */ 0,
    /* CLOSING */ PYSOCK__BIT(PYSOCK__CLOSED),
    /* CLOSED */ 0,
};

/* In a socket's list, notified when its levels may have changed. notify is called with the socket's
   lock held; closing: the socket is closing, and the waiter must unlink itself if it outlives the
   call that it belongs to. */
typedef struct pysock__waiter {
    pysock__list link;
    void (*notify)(struct pysock__waiter *w, int closing);
    pysock__waker *waker;
} pysock__waiter;

typedef enum pysock__input_end {
    PYSOCK__GOING_ON,
    PYSOCK__END_CLEAN,  /* the peer's close_notify */
    PYSOCK__END_RAGGED, /* the stream ended without one */
    PYSOCK__END_FAULT   /* an error, in fault */
} pysock__input_end;

#define PYSOCK__SENDTO_NAMES 4 /* lookups for sendto per socket, at a time */

/* What advances an unfinished handshake. */
typedef enum pysock__driver {
    PYSOCK__REACTOR_DRIVES, /* the reactor, or a blocking call while there is one */
    PYSOCK__CALLER_DRIVES,  /* calls alone: memory BIOs, and the wrap option caller_drives */
    PYSOCK__NOTHING_DRIVES  /* nothing has to: no call waits for it */
} pysock__driver;

/* A socket. Some calls release the lock while they work, and count themselves meanwhile, so that
   others know what they must not touch:
       kernel_waits   in the kernel on the descriptor; close and cleanup wake them by shutdown()
       kernel_sends   sending plain bytes; output that is queued meanwhile waits for them
       kernel_writes  the same, and waiting for room; a close then breaks them off
       in_busy        reading TLS records from the kernel; no other call fills the engine
       out_busy       waiting for room for TLS records; no other call flushes the engine
       hs_busy        a handshake's step: the whole engine belongs to its thread
   The last three are 0 or 1, because one engine has one owner. Other threads look at what the owner
   changes only when the flag is 0. */
typedef struct pysock__sock {
    /* set once */
    pysock__watch watch; /* the reactor's and the turn's */
    int fd;              /* closed with the last reference */
    int family, type, proto;
    uintptr_t handle;
    pysock_state *state; /* counted */
    pysock__mutex lock;
    int closers; /* atomic: closes that wait for the lock; calls that work in turns yield it */

    /* guarded by the table's lock */
    uintptr_t older; /* the descriptor's socket before; a handle, weak */

    /* guarded by lock: what every call reads, close together */
    pysock__phase phase;
    int64_t timeout;     /* ns; 0 non-blocking, negative none */
    unsigned generation; /* of fork, when this process last drove it */
    pysock__list waiters;
    int select_waiters; /* how many of them are selects and pollers */
    int notify_wanted;  /* calls that wait only for a notification */
    int kernel_waits;   /* see above, as the other counts of calls without the lock */
    int drained; /* the last recv took all, or asked for little: polling first saves a call */
    int honours_nonblock; /* O_NONBLOCK set by others is honoured */
    int came_nonblocking; /* O_NONBLOCK was set when it was made, and no timeout since */
    void *userdata;

    /* guarded by lock: output */
    pysock__queue queue;
    size_t low, high;
    int queue_full;        /* at or above high, and not yet below low again */
    int queue_used;        /* plain sends must respect the queue */
    int kernel_sends;      /* plain sends that go on without the lock */
    int kernel_writes;     /* those, and calls that sleep until there is room */
    int write_error;       /* a negated errno value, once writing failed */
    int output_lost;       /* accepted output was dropped */
    int loss_reported;     /* a call has failed with write_error since */
    int shut_when_flushed; /* 1: SHUT_WR is due when all is out */
    int64_t close_deadline;
    int64_t lingering; /* ns after which a close that has sent FIN checks again */
    int delivered;     /* at close: the peer has acknowledged all except a close_notify */

#ifndef PYSOCK_NO_SSL
    /* guarded by lock: TLS */
    pysock__wrap wrap; /* for a later connect() or accept(); then in tls */
    pysock__tls *tls;
    pysock__driver driver;        /* set at wrap; see pysock__driver_locked() */
    pysock_bio *bio_in, *bio_out; /* set once; counted: there is no descriptor, fd is -1 */
    pysock__input_end input_end;
    int in_busy;    /* a call reads from the kernel without the lock */
    int out_busy;   /* a call waits for room in the kernel, and flushes when there is some */
    int hs_busy;    /* the engine belongs to a handshake step */
    int hs_callers; /* blocking calls that drive the handshake */
    int hs_asked;   /* the caller drives, and do_handshake() reported EINPROGRESS: the end makes
                       s readable until a call has seen it */
#endif

    /* guarded by lock: what is seldom used */
    int io_refs;      /* files made of it that are open */
    int files_unread; /* atomic: those that hold unread input */
    int close_wanted; /* the user closed it: the last file's close closes s */
    int detached;     /* pysock_detach(): the descriptor is the user's */
    int read_shut;    /* by pysock_shutdown() */
    pysock_addr peer;
    pysock__lookup *lookup;
    pysock__lookup *names[PYSOCK__SENDTO_NAMES]; /* for sendto calls */
    int names_awaited;                           /* how many are under way: s is not writable */
    pysock__fault fault;
} pysock__sock;

/* Sockets: handles. A pysock * is a number: the slot's generation in the upper half, its index + 1
   in the lower. Every handle can be checked, and none is ever dereferenced: another thread may
   close a socket at any moment, and a pointer could not be distinguished from a later one. A slot's
   word has the generation in the upper half, in the lower the count of references: the user's, one
   for each call under way, one of the reactor's. A call takes its reference by a compare-and-swap
   of the word, which fails if the generation is another or the count is 0: the socket is closed. */

#define PYSOCK__HALF (sizeof(uintptr_t) * 4)
#define PYSOCK__LOW ((((uintptr_t)1) << PYSOCK__HALF) - 1)
#define PYSOCK__NO_SLOT 0xffffffffu

typedef struct pysock__slot {
    uintptr_t word;     /* atomic */
    pysock__sock *s;    /* set before the word is */
    uint32_t next_free; /* guarded by the table's lock */
} pysock__slot;

static struct {
    pysock__mutex lock;
    pysock__slot slots[PYSOCK_MAX_SOCKETS];
    /* guarded by lock */
    uint32_t used;      /* slots that have ever been in use */
    uint32_t free_head; /* first free slot plus one; 0: none */
    size_t open;
    uintptr_t *by_fd; /* handles; weak */
    size_t fd_cap;
    int installed; /* atfork and atexit */
} pysock__table = {PYSOCK__MUTEX_INIT, {{0, NULL, 0}}, 0, 0, 0, NULL, 0, 0};

static pysock__sock *pysock__acquire_handle(uintptr_t handle)
{
    uintptr_t index = (handle & PYSOCK__LOW) - 1, word;
    pysock__slot *slot;

    if (index >= PYSOCK_MAX_SOCKETS)
        return NULL;
    slot = &pysock__table.slots[index];
    word = pysock__load(&slot->word);
    do {
        if (word >> PYSOCK__HALF != handle >> PYSOCK__HALF || !(word & PYSOCK__LOW))
            return NULL;
    } while (!pysock__cas(&slot->word, &word, word + 1));
    return slot->s;
}

#ifndef PYSOCK_NO_SSL
/* What s was wrapped with: in tls once there is one. */
static pysock__wrap *pysock__wrap_of(pysock__sock *s)
{
    return s->tls ? &s->tls->wrap : &s->wrap;
}
#endif

static pysock__slot *pysock__slot_of(const pysock__sock *s)
{
    return &pysock__table.slots[(s->handle & PYSOCK__LOW) - 1];
}

static void pysock__retain(pysock__sock *s)
{
    pysock__add(&pysock__slot_of(s)->word, 1);
}

static void pysock__sock_free(pysock__sock *s)
{
    size_t i;

#ifndef PYSOCK_NO_SSL
    pysock__tls_free(s->tls);
    pysock__wrap_drop(&s->wrap);
    pysock__bio_release(s->bio_in);
    pysock__bio_release(s->bio_out);
#endif
    for (i = 0; i < PYSOCK__SENDTO_NAMES; i++)
        pysock__lookup_release(s->names[i]);
    pysock__lookup_release(s->lookup);
    pysock__queue_drop(&s->queue);
    pysock__links_free(&s->queue.spent);
    pysock__mutex_free(&s->lock);
    pysock__state_less_one(s->state, &s->state->open);
    pysock__state_release(s->state);
    pysock__free(s);
}

/* Closes the descriptor and clears its table entry under one lock: otherwise a select() that looks
   the number up in between would treat it as foreign and miss the close. If SO_LINGER makes
   close(2) sleep, only a blocking pysock_close() does (may_sleep), after the unlock; other callers
   turn SO_LINGER off. */
static void pysock__close_fd(pysock__sock *s, int may_sleep)
{
    int sleeps = 0;

    if (s->fd < 0)
        return;
    if (!s->detached)
        sleeps = pysock__sys_linger(s->fd) > 0;
    if (sleeps && !may_sleep)
        sleeps = pysock__sys_linger_off(s->fd) < 0;
    pysock__lock(&pysock__table.lock);
    if ((size_t)s->fd < pysock__table.fd_cap && pysock__table.by_fd[s->fd] == s->handle)
        pysock__table.by_fd[s->fd] = 0;
    if (!s->detached && !sleeps)
        pysock__fd_close(s->fd);
    pysock__unlock(&pysock__table.lock);
    if (!s->detached && sleeps)
        pysock__fd_close(s->fd);
}

/* Drops a reference; the last one closes. */
static void pysock__release_and_sleep(pysock__sock *s, int may_sleep)
{
    pysock__slot *slot = pysock__slot_of(s);
    uintptr_t generation;

    if (pysock__add(&slot->word, (uintptr_t)-1) & PYSOCK__LOW)
        return;
    generation = (s->handle >> PYSOCK__HALF) + 1;
    pysock__close_fd(s, may_sleep);
    pysock__lock(&pysock__table.lock);
    pysock__store(&slot->word, (generation & PYSOCK__LOW ? generation : 1) << PYSOCK__HALF);
    slot->next_free = pysock__table.free_head;
    pysock__table.free_head = (uint32_t)(slot - pysock__table.slots) + 1;
    pysock__table.open--;
    pysock__unlock(&pysock__table.lock);
    pysock__sock_free(s);
}

static void pysock__release(pysock__sock *s)
{
    pysock__release_and_sleep(s, 0);
}

/* Returns the descriptor to the socket from which this one was adopted, if it still exists: Python
   programs adopt a descriptor a second time for a moment, and detach it. */
static void pysock__forget_fd(pysock__sock *s)
{
    uintptr_t *at = NULL;
    pysock__slot *slot;

    pysock__lock(&pysock__table.lock);
    if ((size_t)s->fd < pysock__table.fd_cap)
        at = &pysock__table.by_fd[s->fd];
    while (at && *at && *at != s->handle) {
        slot = &pysock__table.slots[(*at & PYSOCK__LOW) - 1];
        at = pysock__load(&slot->word) >> PYSOCK__HALF == *at >> PYSOCK__HALF ? &slot->s->older
                                                                              : NULL;
    }
    if (at && *at)
        *at = s->older;
    pysock__unlock(&pysock__table.lock);
}

/* The socket behind a descriptor, with a reference, or NULL. */
static pysock__sock *pysock__acquire_fd(int fd)
{
    uintptr_t handle = 0;

    pysock__lock(&pysock__table.lock);
    if (fd >= 0 && (size_t)fd < pysock__table.fd_cap)
        handle = pysock__table.by_fd[fd];
    pysock__unlock(&pysock__table.lock);
    return handle ? pysock__acquire_handle(handle) : NULL;
}

/* Takes a slot for s, with the user's reference and the maker's, and enters its descriptor. epoch:
   its state's when the call began; a cleanup raises that before it goes through the table. 0 or a
   negated errno value. */
static int pysock__table_enter(pysock__sock *s, unsigned epoch)
{
    pysock__slot *slot;
    uintptr_t generation;
    size_t open;
    int err = 0;

    pysock__lock(&pysock__table.lock);
    open = ++pysock__table.open; /* counted first, so that two at once reserve for both */
    pysock__unlock(&pysock__table.lock);
    err = pysock__reactor_reserve(open);
    pysock__lock(&pysock__table.lock);
    if (err == 0 && epoch != pysock__epoch(s->state))
        err = -ESHUTDOWN;
    if (err == 0 && !pysock__table.free_head && pysock__table.used == PYSOCK_MAX_SOCKETS)
        err = -EMFILE;
    if (err == 0 && s->fd >= 0)
        err = pysock__reserve(&pysock__table.by_fd, &pysock__table.fd_cap, (size_t)s->fd + 1,
                              sizeof *pysock__table.by_fd);
    if (err == 0) {
        if (pysock__table.free_head) {
            slot = &pysock__table.slots[pysock__table.free_head - 1];
            pysock__table.free_head = slot->next_free;
        } else {
            slot = &pysock__table.slots[pysock__table.used++];
        }
        generation = pysock__load(&slot->word) >> PYSOCK__HALF;
        generation = generation ? generation : 1;
        s->handle = generation << PYSOCK__HALF | ((uintptr_t)(slot - pysock__table.slots) + 1);
        slot->s = s;
        if (s->fd >= 0) {
            s->older = pysock__table.by_fd[s->fd];
            pysock__table.by_fd[s->fd] = s->handle;
        }
        pysock__store(&slot->word, generation << PYSOCK__HALF | 2);
    }
    pysock__table.open -= err < 0;
    pysock__unlock(&pysock__table.lock);
    return err;
}

/* Sockets: states and notifications. */

/* Notifies every waiter except one that levels may have changed. */
static void pysock__notify_locked(pysock__sock *s, const pysock__waiter *except)
{
    pysock__list *l, *next;
    int closing = s->phase >= PYSOCK__CLOSING;

    for (l = s->waiters.next; l != &s->waiters; l = next) {
        pysock__waiter *w = PYSOCK__ENTRY(l, pysock__waiter, link);
        next = l->next;
        if (w != except)
            w->notify(w, closing);
    }
}

static void pysock__set_phase_locked(pysock__sock *s, pysock__phase next)
{
    PYSOCK_ASSERT(next >= PYSOCK__CLOSING || pysock__phase_next[s->phase] & PYSOCK__BIT(next));
    s->phase = next;
    pysock__notify_locked(s, NULL);
}

static void pysock__notify_thread(pysock__waiter *w, int closing)
{
    (void)closing;
    pysock__wake(w->waker);
}

/* Names the socket in messages: "example.org (192.0.2.1:443)". */
static const char *pysock__describe(pysock__sock *s, char text[512])
{
    char addr[PYSOCK_ADDR_STRLEN];
    const char *host = NULL;
    pysock_addr local;

#ifndef PYSOCK_NO_SSL
    host = pysock__wrap_of(s)->host;
#endif
    if (s->peer.size)
        pysock_addr_format(&s->peer, addr, sizeof addr);
    else if (s->fd < 0)
        snprintf(addr, sizeof addr, "memory BIOs");
    else if (pysock__sys_getsockname(s->fd, &local) == 0)
        pysock_addr_format(&local, addr, sizeof addr);
    else
        snprintf(addr, sizeof addr, "descriptor %d", s->fd);
    if (host)
        snprintf(text, 512, "%.255s (%s)", host, addr);
    else
        snprintf(text, 512, "%s", addr);
    return text;
}

/* Sockets: calls. Each public function begins and ends a call; in between it holds the lock. */

/* How long a call may wait: worked out when it begins, from the socket's timeout and the flags.
   What others have set on the descriptor, O_NONBLOCK and SO_RCVTIMEO or SO_SNDTIMEO, takes a system
   call to know, and is asked when the call is about to wait. */
typedef enum pysock__waits {
    PYSOCK__WAITS_NEVER,
    PYSOCK__WAITS_UNTIL, /* the deadline: the timeout from when it is first needed */
    PYSOCK__WAITS_FOREVER
} pysock__waits;

typedef struct pysock__call {
    pysock__sock *s;
    const char *name;
    pysock__waits waits;
    int64_t timeout;  /* the socket's, in ns */
    int64_t deadline; /* worked out when it is first needed; 0: not yet */
    unsigned epoch;
    int all;      /* sendall: a wait that fails fails the call, whatever was taken before */
    int limited;  /* the deadline is SO_RCVTIMEO's or SO_SNDTIMEO's */
    int reported; /* what poll() reported after the last sleep */
    int backoffs; /* how often it was of no use */
    int alone;    /* it has TLS input, or output, to itself while it waits */
    int hung_up;  /* POLLRDHUP holds already, and so cannot report a close */
} pysock__call;

/* Without a reactor thread, a call that does not wait does some of the reactor's work. */
static int pysock__call_assist(pysock__call *c)
{
    pysock__unlock(&c->s->lock);
    pysock__reactor_assist();
    pysock__lock(&c->s->lock);
    if (c->s->phase < PYSOCK__CLOSING)
        return 0;
    pysock__unlock(&c->s->lock);
    pysock__release(c->s);
    return pysock__fail(PYSOCK_OS_ERROR, EBADF, "EBADF", "%s: the socket was closed meanwhile",
                        c->name);
}

static int pysock__call_begin(pysock__call *c, const pysock *handle, const char *name)
{
    c->name = name;
    c->all = c->limited = c->reported = c->backoffs = c->alone = c->hung_up = 0;
    c->deadline = 0;
    if (!handle)
        return pysock__fail_value(name, "the socket is NULL");
    pysock__fork_check();
    c->s = pysock__acquire_handle((uintptr_t)handle);
    if (!c->s)
        return pysock__fail(PYSOCK_OS_ERROR, EBADF, "EBADF", "%s: the socket is closed", name);
    pysock__lock(&c->s->lock);
    if (c->s->phase >= PYSOCK__CLOSING) {
        pysock__unlock(&c->s->lock);
        pysock__release(c->s);
        return pysock__fail(PYSOCK_OS_ERROR, EBADF, "EBADF", "%s: the socket is closed", name);
    }
    c->epoch = pysock__epoch(c->s->state);
    c->timeout = c->s->timeout;
    c->waits = c->timeout == 0  ? PYSOCK__WAITS_NEVER
               : c->timeout > 0 ? PYSOCK__WAITS_UNTIL
                                : PYSOCK__WAITS_FOREVER;
    if (c->waits == PYSOCK__WAITS_NEVER && pysock__load(&pysock__reactor.threadless))
        return pysock__call_assist(c);
    return 0;
}

/* Releases the lock, then the buffers that must not be released under it. */
static void pysock__unlock_sock(pysock__sock *s)
{
    pysock__list spent;

    if (pysock__list_empty(&s->queue.spent)) {
        pysock__unlock(&s->lock);
        return;
    }
    pysock__list_init(&spent);
    pysock__queue_take_spent(&s->queue, &spent);
    pysock__unlock(&s->lock);
    pysock__links_free(&spent);
}

static void pysock__call_end(pysock__call *c)
{
    pysock__unlock_sock(c->s);
    pysock__release(c->s);
    if (pysock__load(&pysock__process.deferred))
        pysock__run_deferred();
}

/* Fails with a negated errno value, naming the call and the socket. */
static int pysock__call_fail(pysock__call *c, int err)
{
    char text[512];

    if (err == -EAGAIN)
        return pysock__fail_again();
    if (err == -EBADF && c->s->fd < 0)
        err = -ENOTSUP; /* memory BIOs: there is no descriptor */
    return pysock__fail_os(err, c->name, pysock__describe(c->s, text));
}

/* Fails with the error of earlier output. */
static int pysock__call_fail_output(pysock__call *c)
{
    c->s->loss_reported = 1;
    return pysock__call_fail(c, c->s->write_error);
}

static int pysock__call_fail_closed(pysock__call *c)
{
    return pysock__fail(PYSOCK_OS_ERROR, EBADF, "EBADF", "%s: the socket was closed meanwhile",
                        c->name);
}

static int pysock__call_fail_timeout(pysock__call *c)
{
    char text[512];

    return pysock__fail(PYSOCK_TIMEOUT_ERROR, ETIMEDOUT, "ETIMEDOUT",
                        "%s on %s: timed out after %g s", c->name, pysock__describe(c->s, text),
                        (double)c->timeout / 1e9);
}

/* 0 while the call may go on: not closed, not cleaned up. */
static int pysock__call_check_locked(pysock__call *c)
{
    if (c->epoch != pysock__epoch(c->s->state))
        return pysock__fail_ended(c->name, c->epoch, c->s->state);
    if (c->s->phase >= PYSOCK__CLOSING)
        return pysock__call_fail_closed(c);
    return 0;
}

/* After EINTR: calls the interrupt hook without the lock. */
static int pysock__call_interrupted_locked(pysock__call *c)
{
    int stop;

    pysock__unlock(&c->s->lock);
    stop = pysock__interrupted();
    pysock__lock(&c->s->lock);
    if (stop)
        return pysock__fail(PYSOCK_OS_ERROR, EINTR, "EINTR", "%s: interrupted by a signal",
                            c->name);
    return pysock__call_check_locked(c);
}

/* Asks the audit hook about what the call is to do, without the lock. 0: it may go on. */
static int pysock__call_audit_locked(pysock__call *c, const char *event, const pysock_addr *addr)
{
    pysock_audit_event e;
    char on[512];
    int denied;

    if (!pysock__load(&pysock__process.audited))
        return 0;
    memset(&e, 0, sizeof e);
    e.name = event;
    e.socket = (pysock *)c->s->handle;
    e.addr = addr;
    e.family = c->s->family;
    e.type = c->s->type;
    e.proto = c->s->proto;
    pysock__unlock(&c->s->lock);
    denied = pysock__denied(&e);
    pysock__lock(&c->s->lock);
    if (!denied)
        return pysock__call_check_locked(c);
    pysock__describe(c->s, on);
    if (addr)
        pysock_addr_format(addr, on, sizeof on);
    return pysock__fail(PYSOCK_OS_ERROR, EACCES, "EACCES", "%s on %.300s: denied by the audit hook",
                        c->name, on);
}

/* Brackets a system call that may sleep in the kernel, or that needs no lock: the descriptor stays,
   and close and cleanup wake it by shutdown(). */
static void pysock__enter_kernel_locked(pysock__sock *s)
{
    s->kernel_waits++;
    pysock__unlock(&s->lock);
}

static void pysock__leave_kernel_locked(pysock__sock *s)
{
    pysock__lock(&s->lock);
    s->kernel_waits--;
}

/* A connected plain stream: only the kernel, and the shutdown() of a close, end its waits. */
static int pysock__kernel_reports_all(const pysock__sock *s)
{
    return PYSOCK__KERNEL_SLEEPS && s->phase == PYSOCK__OPEN && !s->queue_used
           && s->type == SOCK_STREAM && !pysock__load(&pysock__reactor.threadless);
}

/* The same for one wait. A thread that has only such waits needs no waker, which would cost a
   descriptor. */
static int pysock__kernel_ends_wait(const pysock__call *c, short events)
{
    return PYSOCK__KERNEL_SLEEPS && events
           && (pysock__kernel_reports_all(c->s)
               || ((c->alone || (c->s->phase == PYSOCK__CONNECTING && c->s->type == SOCK_STREAM))
                   && !pysock__load(&pysock__reactor.threadless)));
}

/* Sleeps on the descriptor, and on the waker if not only the kernel can end the wait. */
static int pysock__wait_asleep_locked(pysock__call *c, short events)
{
    pysock__sock *s = c->s;
    pysock__waiter me;
    struct pollfd fds[2];
    int r, writes;

    fds[1].fd = s->fd;
    fds[1].events = events;
    if (pysock__kernel_ends_wait(c, events)) {
        writes = events == POLLOUT && s->phase != PYSOCK__CONNECTING && !c->alone;
        if (events == POLLOUT && c->alone)
            fds[1].events = POLLOUT | PYSOCK__RDHUP; /* a close that still sends shuts input down */
        s->kernel_writes += writes;
        pysock__enter_kernel_locked(s);
        PYSOCK_TRACE("before_sleep", s);
        r = pysock__poll(fds + 1, 1, c->deadline);
        pysock__leave_kernel_locked(s);
        s->kernel_writes -= writes;
        c->reported = r > 0 ? fds[1].revents : 0;
        return r;
    }
    r = pysock__thread_waker(&me.waker);
    if (r < 0)
        return r;
    pysock__waker_drain(me.waker, 0);
    me.notify = pysock__notify_thread;
    pysock__list_append(&s->waiters, &me.link);
    fds[0].fd = me.waker->rfd;
    fds[0].events = POLLIN;
    pysock__unlock(&s->lock);
    PYSOCK_TRACE("before_sleep", s);
    fds[0].revents = 0;
    fds[1].revents = 0;
    r = pysock__sleep(me.waker, fds, events ? 2 : 1, c->deadline);
    c->reported = r > 0 ? fds[1].revents : 0;
    pysock__waker_drain(me.waker, r > 0 && fds[0].revents);
    pysock__lock(&s->lock);
    pysock__list_remove(&me.link);
    return r;
}

/* 1 if O_NONBLOCK, set by others, means that this call must not wait. Asked only when a call would
   wait: one that need not wait makes no system call for it. */
static int pysock__nonblock_honoured(const pysock__call *c)
{
    return c->waits == PYSOCK__WAITS_FOREVER && c->s->honours_nonblock
           && (PYSOCK__KERNEL_SLEEPS ? !pysock__fd_blocks(c->s->fd) : c->s->came_nonblocking);
}

/* Sets the call's deadline when it is first needed. Without a timeout, SO_RCVTIMEO or SO_SNDTIMEO
   limits a wait for the descriptor (limited), which then fails with EAGAIN, as in the kernel. */
static void pysock__set_deadline_locked(pysock__call *c, short events)
{
    int64_t limit = 0;

    if (c->waits == PYSOCK__WAITS_FOREVER && events
        && (!c->deadline || c->deadline == PYSOCK__NEVER || c->limited)) {
        limit = pysock__sys_timeo(c->s->fd, events == POLLOUT);
        if (limit && !c->limited)
            c->deadline = pysock__deadline_in(limit);
        c->limited = limit != 0;
    }
    if (!c->deadline)
        c->deadline = pysock__deadline_in(c->timeout);
}

static int pysock__call_overdue(pysock__call *c)
{
    if (c->deadline == PYSOCK__NEVER || pysock__now() < c->deadline)
        return 0;
    return c->limited ? pysock__fail_again() : pysock__call_fail_timeout(c);
}

/* Sleeps until the descriptor has one of events (0: it is not polled), a notification comes, or the
   deadline passes. The caller has tested its level under the lock and tests again afterwards; the
   waiter is in the list before the lock is released, so that no notification in between is lost.
   0: test again; -1: the call must end. */
static int pysock__wait_locked(pysock__call *c, short events)
{
    int r;

    pysock__set_deadline_locked(c, events);
    r = pysock__wait_asleep_locked(c, events);
    if (pysock__call_check_locked(c) < 0)
        return -1;
    if (r == -EINTR)
        return pysock__call_interrupted_locked(c);
    if (r < 0)
        return pysock__call_fail(c, r);
    return r == 0 ? pysock__call_overdue(c) : 0;
}

/* Between two turns of work that never had to wait: lets other threads have the lock, then checks
   what may end the call. 0: go on; -1: the call must end. */
static int pysock__give_way_locked(pysock__call *c)
{
    pysock__sock *s = c->s;

    pysock__unlock_sock(s);
    pysock__reactor_assist();
    do /* the lock is not fair: a close would not get it from a call that takes it at once again */
        pysock__thread_yield();
    while (pysock__load(&s->closers));
    pysock__lock(&s->lock);
    if (pysock__call_check_locked(c) < 0)
        return -1;
    pysock__set_deadline_locked(c, 0);
    return pysock__call_overdue(c);
}

/* How far work on a socket has got, and what it waits for. Flush, fill, a handshake step and
   connecting all return this, and pysock__await_locked() acts on it. */
typedef enum pysock__progress {
    PYSOCK__DONE,        /* there is nothing left to do, or there is something to report */
    PYSOCK__AGAIN,       /* more can be done at once, in the next turn */
    PYSOCK__WAIT_READ,   /* more, when the descriptor is readable */
    PYSOCK__WAIT_WRITE,  /* more, when it is writable */
    PYSOCK__WAIT_NOTIFY, /* more, when another call or the reactor has notified */
    PYSOCK__STOPPED      /* it will never be done; the socket has latched the error */
} pysock__progress;

/* The events that a watch or a call waits for. */
static short pysock__progress_events(pysock__progress p)
{
    return p == PYSOCK__WAIT_READ ? POLLIN : p == PYSOCK__WAIT_WRITE ? POLLOUT : 0;
}

/* Waits for what p needs. 0: go on with the work; -1: the call must end. */
static int pysock__await_locked(pysock__call *c, pysock__progress p)
{
    int r;

    switch (p) {
    case PYSOCK__AGAIN: return pysock__give_way_locked(c);
    case PYSOCK__WAIT_READ:
    case PYSOCK__WAIT_WRITE: return pysock__wait_locked(c, pysock__progress_events(p));
    case PYSOCK__WAIT_NOTIFY:
        c->s->notify_wanted++;
        r = pysock__wait_locked(c, 0);
        c->s->notify_wanted--;
        return r;
    default: return 0;
    }
}

/* ---- >>io ----
   What moves bytes: output, the handshake's steps, connecting, the reactor's turn, TLS input and
   output. All return pysock__progress, and pysock__await_locked() waits for what that says. The
   lock: the socket's; a handshake step and a sleep in the kernel go on without it. */

/* I/O: output. What has been taken and not yet sent: the engine's records, then the queue. */

static int pysock__is_tls_locked(const pysock__sock *s)
{
#ifndef PYSOCK_NO_SSL
    return s->tls || s->wrap.ctx;
#else
    (void)s;
    return 0;
#endif
}

/* 1 while a handshake keeps plaintext from flowing. */
static int pysock__handshakes_locked(const pysock__sock *s)
{
#ifndef PYSOCK_NO_SSL
    return s->tls && (s->hs_busy || !pysock__tls_established(s->tls)); /* a step owns the state */
#else
    (void)s;
    return 0;
#endif
}

static int pysock__output_waits_locked(pysock__sock *s)
{
#ifndef PYSOCK_NO_SSL
    if (s->tls && !s->hs_busy && (pysock__tls_flags(s->tls) & PYSOCK__OUT))
        return 1;
#endif
    return !pysock__queue_empty(&s->queue);
}

/* 1 if the user's data waits to be sent, not only an alert or handshake records. */
static int pysock__promised_output_locked(const pysock__sock *s)
{
#ifndef PYSOCK_NO_SSL
    if (s->tls && !s->hs_busy && pysock__tls_holds_plaintext(s->tls))
        return 1;
#endif
    return !pysock__queue_empty(&s->queue);
}

/* Writing has failed for good: drops what waits, keeps the error for later calls, notifies. */
static void pysock__output_failed_locked(pysock__sock *s, int err)
{
    if (!s->write_error)
        s->write_error = err;
    s->output_lost |= pysock__promised_output_locked(s);
    pysock__queue_drop(&s->queue);
    s->queue_full = 0;
    pysock__notify_locked(s, NULL);
}

/* Recomputes whether the queue is full: from high on, until it is below low, or empty. */
static void pysock__queue_level_locked(pysock__sock *s)
{
    s->queue_full =
        s->queue_full ? s->queue.bytes && s->queue.bytes >= s->low : s->queue.bytes >= s->high;
}

static void pysock__queue_consume_locked(pysock__sock *s, size_t n)
{
    int was_full = s->queue_full;

    pysock__queue_consume(&s->queue, n);
    pysock__queue_level_locked(s);
    if (was_full && !s->queue_full)
        pysock__notify_locked(s, NULL);
}

/* Writes without waiting: the number of bytes, 0 if nothing is taken now, or an error. */
static ptrdiff_t pysock__write_now(pysock__sock *s, const void *data, size_t n)
{
    ptrdiff_t r;

#ifndef PYSOCK_NO_SSL
    if (s->bio_out)
        return pysock__bio_put(s->bio_out, data, n);
#endif
    do
        r = pysock__sys_send(s->fd, data, n, MSG_DONTWAIT);
    while (r == -EINTR);
    return r == -EAGAIN || r == -ENOBUFS ? 0 : r;
}

#ifndef PYSOCK_NO_SSL

/* Reads TLS's transport without waiting: the number of bytes, 0 at the end, or an error. */
static ptrdiff_t pysock__read_now(pysock__sock *s, void *buf, size_t n)
{
    ptrdiff_t r;

    if (s->bio_in)
        return pysock__bio_take(s->bio_in, buf, n);
    do
        r = pysock__sys_recv(s->fd, buf, n, MSG_DONTWAIT);
    while (r == -EINTR);
    return r;
}

/* The buffer for reading ahead, empty; NULL if it is not wanted, or out of memory, which only costs
   time. */
static unsigned char *pysock__ahead_room(pysock__sock *s)
{
    pysock__tls *t = s->tls;

    if (!(t->options & PYSOCK_OP_READ_AHEAD) || s->bio_in)
        return NULL;
    if (!t->ahead)
        t->ahead = (unsigned char *)PYSOCK_MALLOC(PYSOCK__AHEAD);
    return t->ahead;
}

/* 1 if input is in memory: it is finite, and poll() does not report it, so no budget applies. */
static int pysock__input_ours(const pysock__sock *s)
{
    return s->bio_in || s->tls->ahead_pos < s->tls->ahead_len;
}

/* Reads records for the engine, first those read ahead. The caller owns the engine. */
static ptrdiff_t pysock__read_records(pysock__sock *s, void *buf, size_t n)
{
    pysock__tls *t = s->tls;
    ptrdiff_t r;

    if (t->ahead_pos == t->ahead_len) {
        if (!pysock__ahead_room(s))
            return pysock__read_now(s, buf, n);
        t->ahead_pos = t->ahead_len = 0;
        r = pysock__read_now(s, t->ahead, PYSOCK__AHEAD);
        if (r <= 0)
            return r;
        t->ahead_len = (size_t)r;
    }
    n = n < t->ahead_len - t->ahead_pos ? n : t->ahead_len - t->ahead_pos;
    memcpy(buf, t->ahead + t->ahead_pos, n);
    t->ahead_pos += n;
    return (ptrdiff_t)n;
}

/* Sends the engine's records. */
static pysock__progress pysock__flush_records_locked(pysock__sock *s)
{
    const unsigned char *p;
    ptrdiff_t r;
    size_t n;

    while (pysock__tls_flags(s->tls) & PYSOCK__OUT) {
        p = pysock__tls_out(s->tls, &n);
        r = pysock__write_now(s, p, n);
        if (r == 0)
            return PYSOCK__WAIT_WRITE;
        if (r < 0) {
            pysock__output_failed_locked(s, (int)r);
            return PYSOCK__STOPPED;
        }
        pysock__tls_out_done(s->tls, (size_t)r);
    }
    return PYSOCK__DONE;
}

/* Makes records of the queue's first bytes. 0: there is nothing to do. */
static int pysock__encrypt_queue_locked(pysock__sock *s)
{
    const unsigned char *data;
    size_t n;

    if (pysock__queue_empty(&s->queue))
        return 0;
    n = pysock__queue_front(&s->queue, &data);
    n = pysock__tls_app_out(s->tls, data, n);
    if (n)
        pysock__queue_consume_locked(s, n);
    return n != 0;
}

#endif

#ifndef PYSOCK_NO_SSL
/* One round of a TLS socket's output. */
static pysock__progress pysock__flush_tls_locked(pysock__sock *s)
{
    pysock__tls *t = s->tls;
    pysock__progress p;

    if (s->out_busy)
        return PYSOCK__WAIT_NOTIFY;
    if (s->hs_busy || !pysock__tls_established(t)) /* queued output follows it */
        return t->handshakes || !pysock__queue_empty(&s->queue) ? PYSOCK__WAIT_NOTIFY
                                                                : PYSOCK__DONE;
    p = pysock__flush_records_locked(s);
    if (p != PYSOCK__DONE)
        return p;
    if (pysock__encrypt_queue_locked(s))
        return PYSOCK__AGAIN;
    if (!pysock__queue_empty(&s->queue)) { /* the connection has ended: this will never be sent */
        pysock__output_failed_locked(s, -EPIPE);
        return PYSOCK__STOPPED;
    }
    if (!s->shut_when_flushed || !pysock__tls_may_send(t) || t->wrap.no_close_notify)
        return PYSOCK__DONE;
    pysock__tls_close_notify(t); /* before the FIN */
    return PYSOCK__AGAIN;
}
#endif

/* One round of a plain socket's output. */
static pysock__progress pysock__flush_plain_locked(pysock__sock *s)
{
    const unsigned char *data;
    ptrdiff_t r;
    size_t n;

    if (pysock__queue_empty(&s->queue))
        return PYSOCK__DONE;
    if (s->kernel_sends)
        return PYSOCK__WAIT_NOTIFY; /* a send is under way without the lock; it flushes then */
    n = pysock__queue_front(&s->queue, &data);
    r = pysock__write_now(s, data, n);
    if (r == 0)
        return PYSOCK__WAIT_WRITE;
    if (r < 0) {
        pysock__output_failed_locked(s, (int)r);
        return PYSOCK__STOPPED;
    }
    pysock__queue_consume_locked(s, (size_t)r);
    return PYSOCK__AGAIN;
}

#define PYSOCK__WRITES_AT_ONCE 16 /* so that a queue does not hold the lock for long */

/* Sends what waits, as far as the kernel takes it and for one turn. */
static pysock__progress pysock__flush_locked(pysock__sock *s)
{
    pysock__progress p = PYSOCK__AGAIN;
    int budget = PYSOCK__WRITES_AT_ONCE;

    if (s->write_error)
        return PYSOCK__STOPPED;
    s->generation = pysock__fork_generation;
    while (p == PYSOCK__AGAIN && budget--) {
#ifndef PYSOCK_NO_SSL
        if (s->tls) {
            p = pysock__flush_tls_locked(s);
            continue;
        }
#endif
        p = pysock__flush_plain_locked(s);
    }
    if (p == PYSOCK__DONE && s->shut_when_flushed && !pysock__handshakes_locked(s)) {
        s->shut_when_flushed = 0;
        pysock__sys_shutdown(s->fd, SHUT_WR);
    }
    return p;
}

/* Flushes without waiting, and leaves the rest to the reactor. */
static pysock__progress pysock__flush_or_kick_locked(pysock__sock *s)
{
    pysock__progress p = pysock__flush_locked(s);

    if (p == PYSOCK__WAIT_WRITE || p == PYSOCK__AGAIN)
        pysock__kick(&s->watch);
    return p;
}

#define PYSOCK__READS_AT_ONCE 64 /* so that a flood does not keep the reading thread */

/* I/O: the handshake. The thread that sets hs_busy owns the engine for a step, without the lock. */

#ifndef PYSOCK_NO_SSL

#define PYSOCK__BYTES_AT_ONCE ((size_t)64 * 1024) /* likewise, in a handshake */

/* 1 if accepted output waits for the handshake: queued behind it, or, in a renegotiation, perhaps
   still in the engine. */
static int pysock__output_behind_handshake_locked(const pysock__sock *s)
{
    size_t n;

    return !pysock__queue_empty(&s->queue)
           || (s->tls && s->tls->handshakes && !s->hs_busy && pysock__tls_engine_out(s->tls, &n));
}

/* What is to advance the handshake now. c: the call that asks; NULL: none, and the reactor steps in
   only if no call drives and something waits for it: a non-blocking socket's user, select or a
   poller, or accepted output. */
static pysock__driver pysock__driver_locked(const pysock__sock *s, const pysock__call *c)
{
    if (c && (c->waits != PYSOCK__WAITS_NEVER || s->driver == PYSOCK__CALLER_DRIVES))
        return PYSOCK__CALLER_DRIVES;
    if (s->bio_in
        || (s->phase != PYSOCK__HANDSHAKING && !(s->phase == PYSOCK__CONNECTING && s->wrap.ctx)))
        return PYSOCK__NOTHING_DRIVES;
    if (s->hs_callers)
        return PYSOCK__CALLER_DRIVES;
    if (s->select_waiters || pysock__output_behind_handshake_locked(s)
        || (s->timeout == 0 && s->driver == PYSOCK__REACTOR_DRIVES))
        return PYSOCK__REACTOR_DRIVES;
    return PYSOCK__NOTHING_DRIVES;
}

static void pysock__want_reactor_locked(pysock__sock *s)
{
    if (pysock__driver_locked(s, NULL) == PYSOCK__REACTOR_DRIVES)
        pysock__kick(&s->watch);
}

/* In the reactor: whether it goes on driving. A close drives to its end. */
static int pysock__reactor_drives_locked(const pysock__sock *s)
{
    return s->phase == PYSOCK__CLOSING || pysock__driver_locked(s, NULL) == PYSOCK__REACTOR_DRIVES;
}

/* Advances the handshake as far as it goes without waiting, but for one turn at most; the caller
   owns the engine. STOPPED: *err is the kernel's error, 0 at the end of the stream. */
static pysock__progress pysock__handshake_step(pysock__sock *s, int *err)
{
    size_t n, bytes = PYSOCK__BYTES_AT_ONCE;
    int flags, ahead, reads = PYSOCK__READS_AT_ONCE;
    pysock__tls *t = s->tls;
    ptrdiff_t r;
    void *p;

    *err = 0;
    for (;;) {
        flags = pysock__tls_flags(t);
        if (flags & PYSOCK__OUT) {
            const unsigned char *out = pysock__tls_out(t, &n);
            r = pysock__write_now(s, out, n);
            if (r == 0)
                return PYSOCK__WAIT_WRITE;
            if (r < 0) {
                *err = (int)r;
                return pysock__tls_is_over(t) ? PYSOCK__DONE : PYSOCK__STOPPED;
            }
            pysock__tls_trace(t, 1, out, (size_t)r);
            pysock__tls_out_done(t, (size_t)r);
            continue;
        }
        if (flags & (PYSOCK__ENDED | PYSOCK__APP_OUT | PYSOCK__APP_IN))
            return PYSOCK__DONE;
        ahead = pysock__input_ours(s);
        if (!ahead && (!reads-- || !bytes))
            return PYSOCK__AGAIN;
        p = pysock__tls_in(t, &n);
        if (!p)
            continue; /* it has just failed */
        r = pysock__read_records(s, p, n);
        if (r == -EAGAIN)
            return PYSOCK__WAIT_READ;
        if (r <= 0) {
            *err = (int)r;
            return PYSOCK__STOPPED;
        }
        if (!ahead)
            bytes -= (size_t)r < bytes ? (size_t)r : bytes;
        PYSOCK_TRACE("handshake_step", s);
        pysock__tls_trace(t, 0, (const unsigned char *)p, (size_t)r);
        pysock__tls_in_done(t, (size_t)r);
    }
}

/* The handshake failed: latches the fault, which names the socket. */
static void pysock__handshake_fault_locked(pysock__sock *s, int err)
{
    char on[512];
    pysock__tls *t = s->tls;

    pysock__describe(s, on);
    if (t->fault.kind) {
        pysock__fault_set(&s->fault, t->fault.kind, t->fault.code, t->fault.reason,
                          "TLS handshake with %.120s: %.400s", on, t->fault.message);
        s->fault.verify_code = t->fault.verify_code;
        s->fault.verify_message = t->fault.verify_message;
    } else if (err == 0 || pysock__tls_is_over(t)) {
        pysock__fault_set(&s->fault, PYSOCK_SSL_EOF_ERROR, 8, "UNEXPECTED_EOF",
                          "TLS handshake with %.255s: the peer closed the connection before it was "
                          "finished",
                          on);
    } else {
        pysock__fault_os(&s->fault, err, "TLS handshake", on);
    }
}

/* Applies the result of a step and releases the engine. DONE or STOPPED: the handshake is over. */
static pysock__progress pysock__handshake_apply_locked(pysock__sock *s, pysock__progress p, int err)
{
    pysock__tls *t = s->tls;

    if (p == PYSOCK__DONE && !pysock__tls_is_over(t) && pysock__tls_finish(t) < 0) {
        p = PYSOCK__STOPPED;
        err = -ENOMEM;
    }
    s->hs_busy = 0;
    if (s->phase == PYSOCK__CLOSING)
        pysock__kick(&s->watch); /* the close may have waited for this step */
    if (p != PYSOCK__DONE && p != PYSOCK__STOPPED) {
        if (s->notify_wanted)
            pysock__notify_locked(s, NULL); /* calls that wait for the engine */
        return p;
    }
    if (p == PYSOCK__DONE && pysock__tls_established(t)) {
        if (s->phase == PYSOCK__HANDSHAKING)
            pysock__set_phase_locked(s, PYSOCK__SECURE);
        if (!pysock__queue_empty(&s->queue))
            pysock__kick(&s->watch); /* queued behind the handshake */
        return p;
    }
    pysock__handshake_fault_locked(s, err);
    pysock__output_failed_locked(s, -EPIPE);
    if (s->phase == PYSOCK__HANDSHAKING)
        pysock__set_phase_locked(s, PYSOCK__BROKEN);
    return PYSOCK__STOPPED;
}

/* 1 while a handshake step cannot begin: another one is under way, or a call waits for room to send
   earlier output. */
static int pysock__engine_busy_locked(const pysock__sock *s)
{
    return s->hs_busy || s->out_busy;
}

/* One step. The caller holds the lock, and the engine is free. */
static pysock__progress pysock__handshake_drive_locked(pysock__sock *s)
{
    pysock__progress p;
    int err;

    s->hs_busy = 1;
    s->generation = pysock__fork_generation;
    pysock__unlock(&s->lock);
    p = pysock__handshake_step(s, &err);
    pysock__lock(&s->lock);
    return pysock__handshake_apply_locked(s, p, err);
}

/* Begins the handshake of a wrapped socket, which is connected. */
static int pysock__handshake_begin_locked(pysock__sock *s, const char *what)
{
    s->tls = pysock__tls_new(&s->wrap, (pysock *)s->handle, pysock_addr_port(&s->peer), what);
    if (!s->tls)
        return -1;
    s->input_end = PYSOCK__GOING_ON;
    s->write_error = 0;
    pysock__set_phase_locked(s, PYSOCK__HANDSHAKING);
    return 0;
}

/* The same if a later call or the reactor does the handshake: a failure breaks the socket. */
static void pysock__handshake_prepare_locked(pysock__sock *s, const char *what)
{
    if (pysock__handshake_begin_locked(s, what) == 0)
        return;
    s->fault = pysock__last;
    pysock__set_phase_locked(s, PYSOCK__BROKEN);
}

/* The peer has begun a renegotiation: until it is finished, the socket behaves as it does during
   its first handshake. */
static void pysock__handshake_again_locked(pysock__sock *s)
{
    pysock__tls_begin_again(s->tls);
    pysock__set_phase_locked(s, PYSOCK__HANDSHAKING);
    pysock__want_reactor_locked(s);
}

/* Waits for what a step needs. If no other call drives and nothing is queued, the engine is kept:
   then only the kernel ends the wait. */
static int pysock__handshake_await_locked(pysock__call *c, pysock__progress p)
{
    pysock__sock *s = c->s;
    int r;

    c->alone = p == PYSOCK__WAIT_READ && s->hs_callers == 1 && pysock__queue_empty(&s->queue);
    if (!c->alone)
        return pysock__await_locked(c, p);
    s->hs_busy = 1;
    r = pysock__await_locked(c, p);
    s->hs_busy = c->alone = 0;
    if (s->notify_wanted)
        pysock__notify_locked(s, NULL);
    if (s->phase == PYSOCK__CLOSING)
        pysock__kick(&s->watch);
    return r;
}

/* Drives the handshake to its end, in a call that may wait. 0: the phase has the result; or -1. */
static int pysock__handshake_wait_locked(pysock__call *c)
{
    pysock__sock *s = c->s;
    pysock__progress p;
    int r = 0;

    s->hs_callers++;
    while (r == 0 && s->phase == PYSOCK__HANDSHAKING) {
        p = pysock__engine_busy_locked(s) ? PYSOCK__WAIT_NOTIFY : pysock__handshake_drive_locked(s);
        if (pysock__call_check_locked(c) < 0)
            r = -1;
        else if (s->phase == PYSOCK__HANDSHAKING
                 && pysock__engine_busy_locked(s)) /* by another thread meanwhile */
            r = pysock__await_locked(c, PYSOCK__WAIT_NOTIFY);
        else if (s->phase == PYSOCK__HANDSHAKING)
            r = pysock__handshake_await_locked(c, p);
    }
    s->hs_callers--;
    pysock__want_reactor_locked(s);
    return r;
}

#endif

/* I/O: connecting. */

/* Applies the kernel's result of a connect: err, 0 or a negated errno value. */
static void pysock__connect_apply_locked(pysock__sock *s, int err)
{
    char text[PYSOCK_ADDR_STRLEN];

    if (err == 0) {
        if (s->type != SOCK_STREAM && s->type != SOCK_SEQPACKET)
            pysock__set_phase_locked(s, PYSOCK__NEW);
        else
            pysock__set_phase_locked(s, PYSOCK__OPEN);
        return;
    }
    pysock_addr_format(&s->peer, text, sizeof text);
    pysock__fault_os(&s->fault, err, "connect", text);
    s->peer.size = 0;
    pysock__set_phase_locked(s, PYSOCK__FAILED);
}

/* Checks whether the kernel has finished connecting. */
static void pysock__connect_check_locked(pysock__sock *s)
{
    pysock_addr addr;
    int err = pysock__sys_so_error(s->fd);

    if (err == 0 && pysock__sys_getpeername(s->fd, &addr) == -ENOTCONN)
        return;
    pysock__connect_apply_locked(s, err);
}

#ifndef PYSOCK_NO_SSL
/* Begins the handshake of a wrapped socket, if it is connected now. */
static void pysock__connected_locked(pysock__sock *s)
{
    if (s->phase == PYSOCK__OPEN && s->wrap.ctx)
        pysock__handshake_prepare_locked(s, "TLS handshake");
}
#endif

/* I/O: the reactor's side. */

#ifndef PYSOCK_NO_SSL
/* Drives connecting and the handshake. DONE: neither of them holds output back. */
static pysock__progress pysock__drive_tls_locked(pysock__sock *s, short revents)
{
    pysock__progress p;

    if (s->phase == PYSOCK__CONNECTING && s->wrap.ctx) {
        if (revents)
            pysock__connect_check_locked(s);
        if (s->phase == PYSOCK__CONNECTING)
            return pysock__reactor_drives_locked(s) ? PYSOCK__WAIT_WRITE : PYSOCK__STOPPED;
        pysock__connected_locked(s);
    }
    if (!pysock__handshakes_locked(s) || s->phase == PYSOCK__BROKEN)
        return PYSOCK__DONE;
    if (!pysock__reactor_drives_locked(s))
        return PYSOCK__STOPPED;
    if (pysock__engine_busy_locked(s))
        return PYSOCK__WAIT_NOTIFY; /* its owner kicks if need be */
    p = pysock__handshake_drive_locked(s);
    if (p == PYSOCK__DONE || p == PYSOCK__STOPPED)
        return pysock__handshakes_locked(s) ? PYSOCK__STOPPED : PYSOCK__DONE;
    return pysock__reactor_drives_locked(s) ? p : PYSOCK__STOPPED; /* a caller has taken over */
}

/* All output is sent: after a close, only close_notify is left. 1 if there is more to send. */
static int pysock__closing_notify_locked(pysock__sock *s)
{
    if (!s->tls || pysock__handshakes_locked(s) || !pysock__tls_may_send(s->tls)
        || s->tls->wrap.no_close_notify || s->write_error)
        return 0;
    pysock__tls_close_notify(s->tls);
    return pysock__output_waits_locked(s);
}
#else
static pysock__progress pysock__drive_tls_locked(pysock__sock *s, short revents)
{
    (void)s, (void)revents;
    return PYSOCK__DONE;
}

static int pysock__closing_notify_locked(pysock__sock *s)
{
    (void)s;
    return 0;
}
#endif

/* Sends what is left, of an open or a closing socket. */
static pysock__progress pysock__drive_output_locked(pysock__sock *s)
{
    int waited = pysock__output_waits_locked(s);
    pysock__progress p = pysock__flush_locked(s);

    if (p == PYSOCK__DONE && s->phase == PYSOCK__CLOSING && pysock__closing_notify_locked(s))
        p = pysock__flush_locked(s);
    if (p == PYSOCK__DONE && waited)
        pysock__notify_locked(s, NULL);
    return p;
}

/* Whether a reset could destroy accepted output: that of TLS or the queue. The output of plain
   sends is left to close(2), on which another process may rely. */
static int pysock__lingers_locked(const pysock__sock *s)
{
    return s->type == SOCK_STREAM && s->fd >= 0 && (s->queue_used || pysock__is_tls_locked(s));
}

#define PYSOCK__LINGER_TICK 1000000      /* ns until the unacknowledged output is checked again: */
#define PYSOCK__LINGER_TICK_MAX 50000000 /* no event reports it. Doubled each time up to this */

/* All output is sent. The kernel answers input that is unread at close, or comes later, with a
   reset, which destroys what the peer has not acknowledged: so reads and drops input, and while
   output is unacknowledged and the peer may still send, sends FIN and goes on. */
static pysock__progress pysock__linger_locked(pysock__sock *s)
{
    static const size_t size = 16384;
    int budget = PYSOCK__READS_AT_ONCE;
    unsigned char *drop;
    ptrdiff_t r;

    if (!pysock__lingers_locked(s))
        return PYSOCK__DONE;
    drop = (unsigned char *)PYSOCK_MALLOC(size); /* threads of interpreters have small stacks */
    if (!drop)
        return PYSOCK__DONE;
    do
        r = pysock__sys_recv(s->fd, drop, size, MSG_DONTWAIT);
    while ((r > 0 && --budget) || r == -EINTR);
    PYSOCK_FREE(drop);
    if ((r == 0 && !s->read_shut) || (r < 0 && r != -EAGAIN))
        return PYSOCK__DONE; /* the peer has ended */
    if (s->family == AF_UNIX || s->delivered || pysock__sys_unacknowledged(s->fd) <= 0)
        return PYSOCK__DONE; /* a close here loses nothing */
    if (r > 0)
        return PYSOCK__AGAIN;
    if (!s->lingering) {
        s->lingering = PYSOCK__LINGER_TICK;
        pysock__sys_shutdown(s->fd, SHUT_WR);
    } else if (s->lingering < PYSOCK__LINGER_TICK_MAX) {
        s->lingering *= 2;
    }
    return s->read_shut ? PYSOCK__WAIT_NOTIFY : PYSOCK__WAIT_READ;
}

/* A closing socket: done when there is nothing more to wait for, or at its deadline. */
static pysock__progress pysock__closing_turn_locked(pysock__sock *s, pysock__progress p)
{
    pysock__watch *w = &s->watch;
    int64_t now = pysock__now();

    if (p == PYSOCK__DONE || p == PYSOCK__STOPPED)
        p = pysock__linger_locked(s);
    if (p != PYSOCK__DONE && now < s->close_deadline) {
        w->deadline = s->close_deadline;
        if (s->lingering && now + s->lingering < w->deadline)
            w->deadline = now + s->lingering;
        return p;
    }
    s->phase = PYSOCK__CLOSED;
    if (s->kernel_waits)
        pysock__sys_shutdown(s->fd, SHUT_RDWR);
    return PYSOCK__DONE;
}

/* The callback of a socket's watch: does what is unfinished and sets the events to wait for. */
static void pysock__sock_turn(pysock__watch *w, short revents)
{
    pysock__sock *s = PYSOCK__ENTRY(w, pysock__sock, watch);
    pysock__progress p;

    pysock__lock(&s->lock);
    w->deadline = PYSOCK__NEVER;
    p = pysock__drive_tls_locked(s, revents);
    if (p == PYSOCK__DONE && s->phase >= PYSOCK__OPEN && s->phase < PYSOCK__CLOSED)
        p = pysock__drive_output_locked(s);
    if (s->phase == PYSOCK__CLOSING)
        p = pysock__closing_turn_locked(s, p);
    w->events = pysock__progress_events(p);
    if (p == PYSOCK__AGAIN)
        pysock__kick(w); /* after the others' turns */
    pysock__unlock_sock(s);
}

static void pysock__sock_hold(pysock__watch *w)
{
    pysock__retain(PYSOCK__ENTRY(w, pysock__sock, watch));
}

static void pysock__sock_drop(pysock__watch *w)
{
    pysock__release(PYSOCK__ENTRY(w, pysock__sock, watch));
}

/* I/O: timeouts as arguments. */

/* Seconds of a public argument as ns; -1: never; -2 (and an error): not a time. */
static int64_t pysock__timeout_ns(double seconds, const char *what)
{
    int64_t ns;

    if (seconds == PYSOCK_NO_TIMEOUT)
        return -1;
    if (!(seconds >= 0)) {
        pysock__fail_value(what, "the timeout is negative; PYSOCK_NO_TIMEOUT is -1.0");
        return -2;
    }
    ns = seconds > 9e9 ? INT64_C(9000000000000000000) : (int64_t)(seconds * 1e9 + 0.5);
    return seconds > 0 && ns == 0 ? 1 : ns;
}

static double pysock__timeout_seconds(int64_t ns)
{
    return ns < 0 ? PYSOCK_NO_TIMEOUT : (double)ns / 1e9;
}

/* I/O: getting ready. */

/* Reports a failed connect, once. */
static int pysock__report_failed_locked(pysock__sock *s)
{
    pysock__set_phase_locked(s, PYSOCK__NEW);
    return pysock__raise(&s->fault);
}

/* Waits until connecting has ended. 0: connected. */
static int pysock__connect_wait_locked(pysock__call *c)
{
    pysock__sock *s = c->s;

    while (s->phase == PYSOCK__RESOLVING || s->phase == PYSOCK__CONNECTING) {
        if (pysock__await_locked(c, s->phase == PYSOCK__CONNECTING ? PYSOCK__WAIT_WRITE
                                                                   : PYSOCK__WAIT_NOTIFY)
            < 0)
            return -1;
        if (s->phase == PYSOCK__CONNECTING)
            pysock__connect_check_locked(s);
    }
    return s->phase == PYSOCK__FAILED ? pysock__report_failed_locked(s) : 0;
}

/* I/O: queued output. */

/* Waits for what output needs (p); behind a handshake, the call drives that. 0: go on; -1: the call
   must end. */
static int pysock__await_output_locked(pysock__call *c, pysock__progress p)
{
#ifndef PYSOCK_NO_SSL
    if (p == PYSOCK__WAIT_NOTIFY && c->s->phase == PYSOCK__HANDSHAKING) {
        if (pysock__handshake_wait_locked(c) < 0)
            return -1;
        return c->s->phase == PYSOCK__BROKEN ? pysock__raise(&c->s->fault) : 0;
    }
#endif
    return pysock__await_locked(c, p);
}

/* The same for a call that waits until all is sent. On TLS no other call sends records while it
   waits for room: then only the kernel ends the wait, and the shutdown() of a close, which
   POLLRDHUP reports. */
static int pysock__await_room_locked(pysock__call *c, pysock__progress p)
{
#ifndef PYSOCK_NO_SSL
    pysock__sock *s = c->s;
    int r;

    if (PYSOCK__RDHUP && p == PYSOCK__WAIT_WRITE && s->phase == PYSOCK__SECURE && !c->hung_up) {
        s->out_busy = c->alone = 1;
        r = pysock__await_locked(c, p);
        s->out_busy = c->alone = 0;
        c->hung_up = (c->reported & PYSOCK__RDHUP) != 0;
        if (!pysock__list_empty(&s->waiters))
            pysock__notify_locked(s, NULL); /* calls that found the output busy */
        if (r < 0 || s->phase != PYSOCK__SECURE)
            pysock__kick(&s->watch);
        return r;
    }
#endif
    return pysock__await_output_locked(c, p);
}

/* Sends until nothing waits. 0, or -1 with the deadline's, the hook's or the kernel's error. */
static int pysock__flush_wait_locked(pysock__call *c)
{
    pysock__progress p;

    do {
        p = pysock__flush_locked(c->s);
        if (p == PYSOCK__STOPPED)
            return pysock__call_fail_output(c);
    } while (p != PYSOCK__DONE && pysock__await_room_locked(c, p) == 0);
    return p == PYSOCK__DONE ? 0 : -1;
}

/* Copies into the queue what a non-blocking send on a socket with queued output takes. */
static ptrdiff_t pysock__enqueue_copy_locked(pysock__call *c, const void *data, size_t size)
{
    pysock__sock *s = c->s;
    pysock_buf *b;

    if (s->queue_full)
        return pysock__fail_again();
    size = size < s->high ? size : s->high;
    b = pysock_buf_copy(data, size);
    if (!b)
        return -1;
    if (pysock__queue_append(&s->queue, b) < 0) {
        pysock_buf_release(b);
        return pysock__fail_memory(c->name);
    }
    pysock_buf_release(b);
    pysock__queue_level_locked(s);
    pysock__flush_or_kick_locked(s);
    return (ptrdiff_t)size;
}

#ifndef PYSOCK_NO_SSL

/* Fails a TLS call that would have to wait and may not. */
static int pysock__tls_fail_again(const pysock__call *c)
{
    if (!c->s->bio_in)
        return pysock__fail_again();
    return pysock__fail(PYSOCK_SSL_WANT_READ_ERROR, EAGAIN, "WANT_READ",
                        "%s: more bytes are wanted; carry what is in the outgoing BIO to the peer, "
                        "and its answer into the incoming one",
                        c->name);
}

/* A non-blocking call's part of a handshake that the caller drives. */
static void pysock__step_of_caller_locked(const pysock__call *c)
{
    pysock__sock *s = c->s;

    if (s->phase == PYSOCK__HANDSHAKING && c->waits == PYSOCK__WAITS_NEVER
        && !pysock__engine_busy_locked(s) && pysock__driver_locked(s, c) == PYSOCK__CALLER_DRIVES)
        pysock__handshake_drive_locked(s);
}

/* Begins the handshake if the socket is connected, and finishes it if the call may wait. 0; 1: the
   handshake is not finished yet; or -1. */
static int pysock__start_tls_locked(pysock__call *c)
{
    pysock__sock *s = c->s;

    if (s->phase == PYSOCK__OPEN && s->wrap.ctx && pysock__handshake_begin_locked(s, c->name) < 0)
        return -1;
    pysock__step_of_caller_locked(c);
    if (s->phase == PYSOCK__HANDSHAKING && c->waits == PYSOCK__WAITS_NEVER) {
        pysock__want_reactor_locked(s);
        return 1;
    }
    if (s->phase == PYSOCK__HANDSHAKING && pysock__handshake_wait_locked(c) < 0)
        return -1;
    return s->phase == PYSOCK__BROKEN ? pysock__raise(&s->fault) : 0;
}

/* Connects and finishes the handshake, if the call may wait. 0: plaintext can flow. */
static int pysock__ensure_established_locked(pysock__call *c)
{
    pysock__sock *s = c->s;

    if (pysock__call_check_locked(c) < 0)
        return -1;
    switch (s->phase) {
    case PYSOCK__SECURE: return 0;
    case PYSOCK__NEW:
    case PYSOCK__LISTENING: return pysock__call_fail(c, -ENOTCONN);
    case PYSOCK__FAILED: return pysock__report_failed_locked(s);
    case PYSOCK__UNWRAPPING:
        if (s->tls->wrap.half_close)
            return pysock__fail(PYSOCK_SSL_ERROR, EPIPE, "PROTOCOL_IS_SHUTDOWN",
                                "%s: TLS has been ended by pysock_ssl_unwrap()", c->name);
        return c->waits == PYSOCK__WAITS_NEVER
                   ? pysock__tls_fail_again(c)
                   : pysock__fail(PYSOCK_OS_ERROR, EALREADY, "EALREADY",
                                  "%s: pysock_ssl_unwrap() is under way", c->name);
    case PYSOCK__RESOLVING:
    case PYSOCK__CONNECTING:
        if (c->waits == PYSOCK__WAITS_NEVER) {
            pysock__want_reactor_locked(s);
            return pysock__fail_again();
        }
        if (pysock__connect_wait_locked(c) < 0)
            return -1;
        break;
    default: break;
    }
    switch (pysock__start_tls_locked(c)) {
    case 0:
        if (s->phase == PYSOCK__SECURE)
            return 0;
        return pysock__fail(PYSOCK_OS_ERROR, ENOTCONN, "ENOTCONN",
                            "%s: pysock_ssl_unwrap() has removed TLS meanwhile", c->name);
    case 1: return pysock__tls_fail_again(c);
    default: return -1;
    }
}

/* I/O: TLS input. */

/* Input has ended, as the engine reports it, or the kernel (err: a negated errno value, 0 at the
   end of the stream). */
static void pysock__input_ended_locked(pysock__sock *s, int err)
{
    pysock__tls *t = s->tls;
    char on[512];

    if (pysock__tls_closed_cleanly(t)) {
        s->input_end = PYSOCK__END_CLEAN;
        return;
    }
    s->input_end = err || pysock__tls_is_over(t) ? PYSOCK__END_FAULT : PYSOCK__END_RAGGED;
    pysock__describe(s, on);
    if (pysock__tls_is_over(t))
        pysock__fault_set(&s->fault, t->fault.kind, t->fault.code, t->fault.reason,
                          "TLS with %.120s: %.400s", on, t->fault.message);
    else if (err)
        pysock__fault_os(&s->fault, err, "recv", on);
    else
        pysock__fault_set(&s->fault, PYSOCK_SSL_EOF_ERROR, 8, "UNEXPECTED_EOF",
                          "recv on %.255s: the stream ended without close_notify", on);
}

/* Reads records without waiting. DONE: plaintext, the end or an error can be received. WAIT_NOTIFY:
   another call is reading, or the peer has begun another handshake (see the phase). WAIT_WRITE:
   the engine must send first. Other waiters are notified. */
static pysock__progress pysock__fill_locked(pysock__sock *s, const pysock__waiter *except)
{
    pysock__tls *t = s->tls;
    pysock__progress flushed;
    ptrdiff_t r;
    size_t n;
    void *p;
    int flags, budget = PYSOCK__READS_AT_ONCE;

    s->generation = pysock__fork_generation;
    for (;;) {
        flushed =
            pysock__tls_flags(t) & PYSOCK__OUT ? pysock__flush_or_kick_locked(s) : PYSOCK__DONE;
        flags = pysock__tls_flags(t);
        if (!s->input_end && (flags & PYSOCK__ENDED || pysock__tls_closed_cleanly(t))) {
            pysock__input_ended_locked(s, 0);
            pysock__notify_locked(s, except);
        }
        if (flags & PYSOCK__APP_IN || s->input_end)
            return PYSOCK__DONE;
        if (s->in_busy)
            return PYSOCK__WAIT_NOTIFY;
        p = pysock__tls_in(t, &n);
        if (!p && !s->write_error)
            return flushed == PYSOCK__DONE ? PYSOCK__WAIT_NOTIFY : flushed;
        if (!pysock__input_ours(s) && !budget--)
            return PYSOCK__AGAIN;
        r = p ? pysock__read_records(s, p, n) : s->write_error;
        if (r == -EAGAIN)
            return PYSOCK__WAIT_READ;
        if (r > 0) {
            pysock__tls_in_done(t, (size_t)r);
            if (pysock__tls_renegotiates(t) && s->phase == PYSOCK__SECURE) {
                pysock__handshake_again_locked(s);
                return PYSOCK__WAIT_NOTIFY;
            }
            if (!(pysock__tls_flags(t) & PYSOCK__APP_IN))
                continue;
        } else {
            pysock__input_ended_locked(s, (int)r);
        }
        pysock__notify_locked(s, except);
    }
}

/* If the engine wants a record's header and the socket has no timeout: sleeps in recv(2), without
   an extra call. The bytes go to the stack, or the buffer for reading ahead, because other calls
   use the engine meanwhile. 0: go on; -1: the call must end. */
static int pysock__fill_asleep_locked(pysock__call *c)
{
    pysock__sock *s = c->s;
    unsigned char header[8];
    unsigned char *p, *ahead = pysock__ahead_room(s);
    ptrdiff_t r;
    size_t n;

    pysock__tls_in(s->tls, &n);
    s->generation = pysock__fork_generation;
    s->in_busy = 1;
    pysock__enter_kernel_locked(s);
    r = pysock__sys_recv(s->fd, ahead ? ahead : header, ahead ? PYSOCK__AHEAD : n, 0);
    pysock__leave_kernel_locked(s);
    s->in_busy = 0;
    if (ahead && r > 0) {
        s->tls->ahead_pos = 0;
        s->tls->ahead_len = (size_t)r;
    }
    if (!pysock__list_empty(&s->waiters))
        pysock__notify_locked(s, NULL); /* calls that found the input busy */
    if (pysock__call_check_locked(c) < 0)
        return -1;
    if (r == -EINTR)
        return pysock__call_interrupted_locked(c);
    if (r == -EAGAIN)
        return pysock__sys_timeo(s->fd, 0) ? pysock__fail_again()
                                           : pysock__await_locked(c, PYSOCK__WAIT_READ);
    if (r > 0 && ahead)
        return 0;
    if (r > 0) {
        p = pysock__tls_in(s->tls, &n);
        if (p && n >= (size_t)r) {
            memcpy(p, header, (size_t)r);
            pysock__tls_in_done(s->tls, (size_t)r);
        }
    } else if (!s->input_end) {
        pysock__input_ended_locked(s, (int)r);
        pysock__notify_locked(s, NULL);
    }
    return 0;
}

/* 1 if pysock__fill_asleep_locked() may be used now. */
static int pysock__may_fill_asleep_locked(const pysock__call *c)
{
    pysock__sock *s = c->s;
    size_t n;

    return PYSOCK__KERNEL_SLEEPS && c->waits == PYSOCK__WAITS_FOREVER && !s->in_busy
           && !s->input_end && !s->bio_in && s->tls->ahead_pos == s->tls->ahead_len
           && !pysock__load(&pysock__reactor.threadless)
           && (pysock__tls_flags(s->tls)
               & (PYSOCK__OUT | PYSOCK__IN | PYSOCK__APP_IN | PYSOCK__ENDED))
                  == PYSOCK__IN
           && pysock__tls_in(s->tls, &n) && n <= 5;
}

/* Waits for input and keeps other calls from it meanwhile: then only the kernel ends the wait. */
static int pysock__await_input_locked(pysock__call *c, pysock__progress p)
{
    pysock__sock *s = c->s;
    int r;

    c->alone = p == PYSOCK__WAIT_READ && !s->in_busy;
    if (!c->alone)
        return pysock__await_locked(c, p);
    s->in_busy = 1;
    r = pysock__await_locked(c, p);
    s->in_busy = c->alone = 0;
    if (!pysock__list_empty(&s->waiters))
        pysock__notify_locked(s, NULL); /* calls that found the input busy */
    return r;
}

/* What recv returns at the end of input. */
static ptrdiff_t pysock__tls_end_locked(pysock__sock *s)
{
    if (s->input_end == PYSOCK__END_FAULT
        || (s->input_end == PYSOCK__END_RAGGED && s->tls->wrap.raise_ragged
            && !(s->tls->options & PYSOCK_OP_IGNORE_UNEXPECTED_EOF)))
        return pysock__raise(&s->fault);
    return 0;
}

/* In TLS 1.0 one send() becomes a record of one byte and another with the rest, against an attack
   on CBC (BEAST): if the second one has arrived, one recv returns both. */
static size_t pysock__tls_recv_rest_locked(pysock__sock *s, unsigned char *buf, size_t size)
{
    const unsigned char *p = NULL;
    size_t n;

    if (pysock__fill_locked(s, NULL) == PYSOCK__DONE && s->phase == PYSOCK__SECURE)
        p = pysock__tls_app_in(s->tls, &n);
    if (!p)
        return 0;
    n = n < size ? n : size;
    memcpy(buf, p, n);
    pysock__tls_app_in_done(s->tls, n);
    return n;
}

static ptrdiff_t pysock__tls_recv_locked(pysock__call *c, void *buf, size_t size, int flags)
{
    pysock__sock *s = c->s;
    pysock__progress filled;
    const unsigned char *p;
    size_t n;
    int ending;

    if (flags & ~MSG_PEEK)
        return pysock__fail_value(c->name, "TLS sockets support no flag except MSG_PEEK");
    s->hs_asked = 0;
    for (;;) {
        ending = s->phase == PYSOCK__UNWRAPPING && s->tls->wrap.half_close;
        if (s->phase != PYSOCK__SECURE && !ending && pysock__ensure_established_locked(c) < 0)
            return -1;
        if (s->phase != PYSOCK__SECURE && !ending)
            continue;
        if (!size)
            return 0;
        p = pysock__tls_app_in(s->tls, &n);
        if (p) {
            n = size < n ? size : n;
            memcpy(buf, p, n);
            if (flags & MSG_PEEK)
                return (ptrdiff_t)n;
            pysock__tls_app_in_done(s->tls, n);
            if (n == 1 && size > 1 && s->tls->version == PYSOCK_TLSv1)
                n += pysock__tls_recv_rest_locked(s, (unsigned char *)buf + 1, size - 1);
            return (ptrdiff_t)n;
        }
        if (s->input_end)
            return pysock__tls_end_locked(s);
        if (!ending && pysock__may_fill_asleep_locked(c)) {
            if (pysock__fill_asleep_locked(c) < 0)
                return -1;
            continue;
        }
        filled = pysock__fill_locked(s, NULL);
        if (filled == PYSOCK__DONE)
            continue;
        if (s->phase != PYSOCK__SECURE && !ending)
            continue; /* the peer wants another handshake */
        if (c->waits == PYSOCK__WAITS_NEVER)
            return pysock__tls_fail_again(c);
        if (pysock__await_input_locked(c, filled) < 0)
            return -1;
    }
}

/* I/O: TLS output. */

static int pysock__fail_not_writable(pysock__call *c)
{
    pysock__sock *s = c->s;
    char on[512];

    if (pysock__tls_sent_close(s->tls) && s->bio_in)
        return pysock__fail(PYSOCK_SSL_ERROR, EPIPE, "PROTOCOL_IS_SHUTDOWN",
                            "%s: TLS has been ended by pysock_ssl_unwrap()", c->name);
    if (pysock__tls_sent_close(s->tls))
        return pysock__call_fail(c, -EPIPE);
    if (s->tls->fault.kind)
        return pysock__raise(&s->tls->fault);
    return pysock__fail(PYSOCK_SSL_ZERO_RETURN_ERROR, EPIPE, "ZERO_RETURN",
                        "%s on %.255s: the peer has closed the TLS connection", c->name,
                        pysock__describe(s, on));
}

#define PYSOCK__SEND_AT_ONCE (64u * 1024) /* so that one call does not hold the lock for long */

/* Takes up to size bytes and sends them as records; a blocking call returns when they are sent. */
static ptrdiff_t pysock__tls_send_locked(pysock__call *c, const unsigned char *data, size_t size)
{
    pysock__sock *s = c->s;
    pysock__progress p;
    size_t n, taken = 0;

    s->hs_asked = 0;
    while (taken < size && taken < PYSOCK__SEND_AT_ONCE) {
        if (s->phase != PYSOCK__SECURE && pysock__ensure_established_locked(c) < 0)
            return taken ? (ptrdiff_t)taken : -1;
        if (s->phase != PYSOCK__SECURE)
            continue;
        p = pysock__flush_locked(s);
        if (p == PYSOCK__STOPPED)
            return pysock__call_fail_output(c);
        if (p != PYSOCK__DONE) {
            if (c->waits == PYSOCK__WAITS_NEVER && !taken && !pysock__queue_empty(&s->queue))
                return pysock__enqueue_copy_locked(c, data, size);
            if (c->waits == PYSOCK__WAITS_NEVER) {
                pysock__kick(&s->watch);
                return taken ? (ptrdiff_t)taken : pysock__fail_again();
            }
            if (pysock__flush_wait_locked(c) < 0) {
                if (s->phase < PYSOCK__CLOSING)
                    pysock__kick(&s->watch); /* taken, so the reactor sends it */
                return taken && !c->all ? (ptrdiff_t)taken : -1;
            }
            continue;
        }
        n = pysock__tls_app_out(s->tls, data + taken, size - taken);
        if (!n)
            return taken ? (ptrdiff_t)taken : pysock__fail_not_writable(c);
        taken += n;
    }
    if (!size && s->phase != PYSOCK__SECURE && pysock__ensure_established_locked(c) < 0)
        return -1;
    p = taken ? pysock__flush_or_kick_locked(s) : PYSOCK__DONE;
    if (p == PYSOCK__STOPPED)
        return pysock__call_fail_output(c);
    if (p != PYSOCK__DONE && c->waits != PYSOCK__WAITS_NEVER && pysock__flush_wait_locked(c) < 0
        && c->all)
        return -1; /* send() has taken it: the reactor sends it */
    return (ptrdiff_t)taken;
}

#endif /* PYSOCK_NO_SSL */

/* ---- >>life ----
   Sockets are made, closed, and cleaned up; the whole library after fork. A close leaves accepted
   output to the reactor, until its deadline. The locks: a socket's, then the table's. */

/* Life: fork. The library's own locks are held across fork(), so that the child's lists are
   consistent; those of single sockets and contexts are initialized again, and the work of other
   threads is lost. In the child the reactor and all other threads are gone; the sockets stay,
   without their unfinished work. */

static void pysock__fork_prepare(void)
{
    pysock__lock(&pysock__reactor.lock);
    pysock__lock(&pysock__table.lock);
    pysock__lock(&pysock__process.lock);
    pysock__lock(&pysock__resolver.lock);
#ifndef PYSOCK_NO_SSL
    pysock__lock(&pysock__contexts.lock);
#endif
}

static void pysock__fork_parent(void)
{
#ifndef PYSOCK_NO_SSL
    pysock__unlock(&pysock__contexts.lock);
#endif
    pysock__unlock(&pysock__resolver.lock);
    pysock__unlock(&pysock__process.lock);
    pysock__unlock(&pysock__table.lock);
    pysock__unlock(&pysock__reactor.lock);
}

/* Clears what other threads were doing with s. */
static void pysock__sock_after_fork(pysock__sock *s)
{
    pysock__list *l, *next;

    pysock__mutex_init(&s->lock);
    pysock__watch_after_fork(&s->watch);
    s->select_waiters = 0;
    for (l = s->waiters.next; l != &s->waiters; l = next) {
        next = l->next;
        if (PYSOCK__ENTRY(l, pysock__waiter, link)->notify == pysock__notify_thread)
            pysock__list_remove(l);
        else
            s->select_waiters++;
    }
    s->kernel_waits = s->kernel_sends = s->kernel_writes = s->notify_wanted = 0;
    s->shut_when_flushed = 0;
    s->lookup = NULL;
    memset(s->names, 0, sizeof s->names);
    s->names_awaited = 0;
    pysock__queue_drop(&s->queue); /* the parent sends it */
    if (s->phase == PYSOCK__RESOLVING) {
        pysock__fault_os(&s->fault, -ECONNABORTED, "connect", "a name that the parent looks up");
        s->phase = PYSOCK__FAILED;
    }
#ifndef PYSOCK_NO_SSL
    s->in_busy = s->out_busy = s->hs_busy = s->hs_callers = 0;
#endif
}

static void pysock__fork_child(void)
{
    uint32_t i;

    pysock__fork_generation++;
    pysock__mutex_init(&pysock__process.cleanup_lock); /* the thread that cleans up may be gone */
    pysock__store(&pysock__process.ending, 0);
    pysock__states_after_fork();
    pysock__reactor_after_fork();
    pysock__list_init(&pysock__resolver.queue);
    pysock__resolver.workers = 0;
    pysock__sleepers_after_fork();
#ifndef PYSOCK_NO_SSL
    pysock__contexts_after_fork();
#endif
    for (i = 0; i < pysock__table.used; i++)
        if (pysock__load(&pysock__table.slots[i].word) & PYSOCK__LOW)
            pysock__sock_after_fork(pysock__table.slots[i].s);
    pysock__fork_parent();
    for (i = 0; i < pysock__table.used; i++) {
        pysock__slot *slot = &pysock__table.slots[i];
        if (!(slot->word & PYSOCK__LOW))
            continue;
        slot->word = (slot->word & ~PYSOCK__LOW) | 1; /* other threads' references are gone */
        if (slot->s->phase >= PYSOCK__CLOSING)
            pysock__release(slot->s);
    }
}

/* Once in a process, with the first socket or poller. */
static void pysock__install(void)
{
    int first;

    pysock__lock(&pysock__table.lock);
    first = !pysock__table.installed;
    pysock__table.installed = 1;
    pysock__unlock(&pysock__table.lock);
    if (!first)
        return;
    pysock__atfork(pysock__fork_prepare, pysock__fork_parent, pysock__fork_child);
    pysock__install_exit();
}

/* A call that makes sockets: they belong to the state that was current when it began. A call that
   began before a cleanup of that state must not succeed after it. */
typedef struct pysock__maker {
    const char *what; /* the call, for messages */
    pysock_state *state;
    unsigned epoch;
} pysock__maker;

static pysock__maker pysock__maker_begin(const char *what)
{
    pysock__maker m;

    m.what = what;
    m.state = pysock__state();
    m.epoch = pysock__epoch(m.state);
    return m;
}

/* Makes a socket of a descriptor (-1 for TLS over memory BIOs), which it then owns, or NULL with an
   error. From here on a cleanup may close it; the caller has a reference of its own, for
   pysock__publish(). */
static pysock__sock *pysock__sock_new(const pysock__maker *m, int fd, int family, int type,
                                      int proto)
{
    pysock_state *st = m->state;
    pysock__sock *s;
    int64_t timeout;
    int err, sets, blocks;

    pysock__install();
    if (pysock__is_ending(st)) {
        pysock__fail(PYSOCK_OS_ERROR, ESHUTDOWN, "ESHUTDOWN", "%s: a cleanup is under way",
                     m->what);
        return NULL;
    }
    pysock__lock(&pysock__process.lock);
    timeout = type & PYSOCK__TYPE_NONBLOCK ? 0 : st->default_timeout;
    pysock__unlock(&pysock__process.lock);
    s = (pysock__sock *)pysock__alloc(sizeof *s);
    if (!s) {
        pysock__fail_memory(m->what);
        return NULL;
    }
    s->state = pysock__state_retain(st);
    pysock__add(&st->open, 1);
    s->fd = fd;
    s->family = family;
    s->type = type & ~PYSOCK__TYPE_FLAGS;
    s->proto = proto;
    s->timeout = timeout;
    s->low = 32 * 1024;
    s->high = 64 * 1024;
    s->generation = pysock__fork_generation;
    pysock__mutex_init(&s->lock);
    pysock__list_init(&s->waiters);
    pysock__queue_init(&s->queue);
    pysock__watch_init(&s->watch, fd, pysock__sock_turn, pysock__sock_hold, pysock__sock_drop);
    sets = fd >= 0 && (timeout >= 0 || !PYSOCK__KERNEL_SLEEPS);
    blocks = sets && pysock__fd_blocks(fd);
    s->came_nonblocking = sets && !blocks;
    err = sets ? pysock__fd_set_nonblocking(fd, 1) : 0;
    if (err == 0)
        err = pysock__table_enter(s, m->epoch);
    if (err == 0)
        return s;
    if (blocks)
        pysock__fd_set_nonblocking(fd, 0);
    pysock__sock_free(s);
    if (err == -EMFILE)
        pysock__fail(PYSOCK_OS_ERROR, EMFILE, "EMFILE",
                     "%s: there are %d sockets already; compile with a larger PYSOCK_MAX_SOCKETS",
                     m->what, (int)PYSOCK_MAX_SOCKETS);
    else if (err == -ESHUTDOWN)
        pysock__fail_ended(m->what, m->epoch, st);
    else
        pysock__fail_os(err, m->what, "");
    return NULL;
}

static pysock *pysock__handle(const pysock__sock *s)
{
    return (pysock *)s->handle;
}

/* The same, but closes the descriptor on failure. */
static pysock__sock *pysock__sock_take(const pysock__maker *m, int fd, int family, int type,
                                       int proto)
{
    pysock__sock *s = pysock__sock_new(m, fd, family, type, proto);

    if (!s)
        pysock__fd_close(fd);
    return s;
}

/* The phase of a descriptor that others may have connected or made to listen, and its peer. */
static pysock__phase pysock__phase_of_fd(int fd, pysock_addr *peer)
{
    pysock_addr found;

    if (pysock__sys_getpeername(fd, &found) == 0) {
        *peer = found;
        return PYSOCK__OPEN;
    }
    return pysock__sys_listens(fd) ? PYSOCK__LISTENING : PYSOCK__NEW;
}

/* Updates the phase: other users of the descriptor may have connected it or made it listen. */
static void pysock__refresh_phase_locked(pysock__sock *s)
{
    pysock__phase phase;

    if (s->phase != PYSOCK__NEW || (s->type != SOCK_STREAM && s->type != SOCK_SEQPACKET))
        return;
    phase = pysock__phase_of_fd(s->fd, &s->peer);
    if (phase != PYSOCK__NEW)
        pysock__set_phase_locked(s, phase);
}

/* Sets the phase of a new socket, drops the maker's reference, and returns the user's handle. */
static pysock *pysock__publish(pysock__sock *s, pysock__phase phase)
{
    pysock *handle = pysock__handle(s);

    pysock__lock(&s->lock);
    if (s->phase == PYSOCK__NEW)
        s->phase = phase;
    pysock__unlock(&s->lock);
    pysock__release(s);
    return handle;
}

/* Sends accepted output as far as it can without waiting. DONE: the close has no more to do. */
static pysock__progress pysock__close_begin_locked(pysock__sock *s)
{
    pysock__progress p = PYSOCK__DONE;

    if (s->detached || s->generation != pysock__fork_generation || !pysock__lingers_locked(s))
        return PYSOCK__DONE; /* the parent's, or nothing was promised */
    if (s->kernel_writes || pysock__sys_linger(s->fd) == 0)
        return PYSOCK__DONE; /* after a broken send there is no order; or a reset is wanted */
    if (pysock__handshakes_locked(s) && s->phase != PYSOCK__BROKEN)
        return pysock__queue_empty(&s->queue) ? PYSOCK__DONE : PYSOCK__WAIT_NOTIFY;
    p = pysock__flush_locked(s);
    s->delivered =
        p == PYSOCK__DONE && s->phase < PYSOCK__BROKEN && pysock__sys_unacknowledged(s->fd) <= 0;
    if (p == PYSOCK__DONE && pysock__closing_notify_locked(s))
        p = pysock__flush_locked(s);
    return p == PYSOCK__DONE || p == PYSOCK__STOPPED ? pysock__linger_locked(s) : p;
}

/* Closes: notifies waiters, wakes sleepers in the kernel, and leaves the rest to the reactor until
   close_deadline. The caller then drops the user's reference. */
static void pysock__close_locked(pysock__sock *s, int64_t close_deadline)
{
    int pending = pysock__close_begin_locked(s) != PYSOCK__DONE;
    size_t i;

    if (s->kernel_waits) {
        pysock__sys_shutdown(s->fd, pending ? SHUT_RD : SHUT_RDWR);
        s->read_shut = 1;
    }
    for (i = 0; i < PYSOCK__SENDTO_NAMES; i++) {
        pysock__lookup_release(s->names[i]);
        s->names[i] = NULL;
    }
    pysock__lookup_release(s->lookup);
    s->lookup = NULL;
    s->close_deadline = close_deadline;
    pysock__set_phase_locked(s, pending ? PYSOCK__CLOSING : PYSOCK__CLOSED);
    if (pending)
        pysock__kick(&s->watch);
    else
        pysock__kick_if_held(&s->watch);
}

/* Takes the lock for a close; calls that work in turns yield it. */
static void pysock__lock_to_close(pysock__sock *s)
{
    pysock__add(&s->closers, 1);
    pysock__lock(&s->lock);
    pysock__add(&s->closers, -1);
}

/* Without a reactor thread, the close of a blocking socket finishes the work itself. */
static void pysock__close_await(pysock__sock *s)
{
    struct pollfd fd;
    pysock__waker *waker;
    int64_t tick;
    int closing, r = 0;

    while (pysock__load(&pysock__reactor.threadless) && pysock__thread_waker(&waker) == 0) {
        pysock__lock(&s->lock);
        closing = s->phase == PYSOCK__CLOSING;
        tick = s->close_deadline;
        pysock__unlock(&s->lock);
        if (!closing || pysock__now() >= tick)
            return;
        pysock__waker_drain(waker, r > 0);
        if (tick > pysock__deadline_in(PYSOCK__LINGER_TICK_MAX))
            tick = pysock__deadline_in(PYSOCK__LINGER_TICK_MAX); /* another thread may lead */
        fd.fd = waker->rfd;
        fd.events = POLLIN;
        fd.revents = 0;
        r = pysock__sleep(waker, &fd, 1, tick);
    }
}

/* What pysock_close() does. A caller that holds another socket's lock must not let it wait. */
static int pysock__close_handle(pysock *handle, int may_wait)
{
    pysock__sock *s = handle ? pysock__acquire_handle((uintptr_t)handle) : NULL;
    char on[512];
    int mine, r = 0;

    if (!s)
        return 0;
    pysock__lock_to_close(s);
    mine = s->phase < PYSOCK__CLOSING && !s->io_refs;
    may_wait = may_wait && mine && s->timeout != 0;
    if (mine) {
        pysock__close_locked(s, pysock__deadline_in((int64_t)(PYSOCK_CLOSE_TIMEOUT * 1e9)));
        if (s->output_lost && !s->loss_reported)
            r = pysock__fail_os(s->write_error, "close: accepted output was lost",
                                pysock__describe(s, on));
    } else {
        s->close_wanted = 1; /* by the last file that is closed */
    }
    pysock__unlock_sock(s);
    if (may_wait)
        pysock__close_await(s);
    if (mine)
        pysock__release_and_sleep(s, may_wait); /* the user's reference */
    pysock__release_and_sleep(s, may_wait);
    return r;
}

/* Life: cleanup. */

/* Closes every socket (of st, if not NULL); accepted output has until deadline. */
static void pysock__close_all(const pysock_state *st, int64_t deadline)
{
    uint32_t i, used;

    pysock__lock(&pysock__table.lock);
    used = pysock__table.used;
    pysock__unlock(&pysock__table.lock);
    for (i = 0; i < used; i++) {
        pysock__slot *slot = &pysock__table.slots[i];
        uintptr_t generation = pysock__load(&slot->word) >> PYSOCK__HALF;
        pysock__sock *s = pysock__acquire_handle(generation << PYSOCK__HALF | (i + 1));
        int mine = 0;
        if (!s)
            continue;
        pysock__lock_to_close(s);
        if (st && s->state != st) {
            ; /* another interpreter's */
        } else if (s->phase < PYSOCK__CLOSING) {
            mine = 1;
            pysock__close_locked(s, deadline);
        } else if (s->phase == PYSOCK__CLOSING && s->close_deadline > deadline) {
            s->close_deadline = deadline;
            pysock__kick(&s->watch);
        }
        pysock__unlock_sock(s);
        if (mine)
            pysock__release(s);
        pysock__release(s);
    }
}

PYSOCKDEF void pysock_cleanup(void)
{
    pysock__cleaning me = {NULL, NULL};
    int64_t deadline;

    if (pysock__in_cleanup)
        return; /* called by a closer */
    pysock__fork_check();
    pysock__in_cleanup = &me;
    pysock__lock(&pysock__process.cleanup_lock);
    pysock__run_all_closers();
    pysock__store(&pysock__process.ending, 1);
    pysock__broadcast(NULL);
    deadline = pysock__deadline_in(100000000);
    pysock__close_all(NULL, deadline);
    pysock__reactor_stop(deadline);
    pysock__lock(&pysock__table.lock);
    if (!pysock__table.open) {
        pysock__free(pysock__table.by_fd);
        pysock__table.by_fd = NULL;
        pysock__table.fd_cap = 0;
    }
    pysock__unlock(&pysock__table.lock);
    pysock__my_sleeper_free(pysock__my_sleeper);
    pysock__at_thread_exit(pysock__my_sleeper_free, NULL);
    pysock__store(&pysock__process.ending, 0);
    pysock__unlock(&pysock__process.cleanup_lock);
    pysock__in_cleanup = NULL;
}

/* Waits until the state's sockets are gone and no worker is in its audit hook, or until deadline.
   Calls of other threads may still hold sockets; the broadcast ends those calls. */
static void pysock__state_await(pysock_state *st, int64_t deadline)
{
    pysock__waker *waker;
    struct pollfd fd;
    int r = 0;

    if (pysock__thread_waker(&waker) < 0)
        return;
    pysock__lock(&pysock__process.lock);
    st->cleaner = waker;
    pysock__unlock(&pysock__process.lock);
    while (pysock__load(&st->open) + pysock__load(&st->hooks) && pysock__now() < deadline) {
        pysock__waker_drain(waker, r > 0);
        if (!(pysock__load(&st->open) + pysock__load(&st->hooks)))
            break;
        fd.fd = waker->rfd;
        fd.events = POLLIN;
        r = pysock__sleep(waker, &fd, 1, deadline);
    }
    pysock__lock(&pysock__process.lock);
    st->cleaner = NULL;
    pysock__unlock(&pysock__process.lock);
}

PYSOCKDEF void pysock_state_cleanup(pysock_state *st)
{
    pysock_state *before;
    pysock__cleaning me;
    int64_t deadline;

    st = st ? st : &pysock__main_state;
    pysock__fork_check();
    if (!pysock__cleaning_begin(&me, st))
        return; /* called by a closer of its own */
    before = pysock_state_swap(st);
    pysock__run_closers(st);
    pysock__store(&st->ending, 1);
    pysock__broadcast(st);
    deadline = pysock__deadline_in(100000000);
    pysock__close_all(st, deadline);
    pysock__state_await(st, deadline + 20000000); /* the reactor ends what lingers at deadline */
    pysock__store(&st->ending, 0);
    pysock_state_swap(before);
    pysock__cleaning_end(&me, st);
}

PYSOCKDEF void pysock_state_free(pysock_state *st)
{
    if (!st)
        return;
    pysock_state_cleanup(st);
    if (pysock__current == st)
        pysock__current = NULL;
    pysock__lock(&pysock__process.lock);
    pysock__list_remove(&st->link);
    st->interrupt = NULL;
    st->audit = NULL;
    pysock__unlock(&pysock__process.lock);
    pysock__state_release(st);
}

/* ---- >>socket-io ----
   Python's socket: receiving and sending, buffers, datagrams, ancillary data. Plain calls go to the
   kernel without the lock, TLS calls pump the engine under it (and sleep without it). */

/* Socket I/O: plain. */

/* Before a plain call goes to the kernel: reports a failed connect, or waits for a lookup. */
static int pysock__await_connect_locked(pysock__call *c)
{
    if (c->s->phase == PYSOCK__FAILED)
        return pysock__report_failed_locked(c->s);
    if (c->s->phase != PYSOCK__RESOLVING)
        return 0;
    return c->waits == PYSOCK__WAITS_NEVER ? pysock__fail_again() : pysock__connect_wait_locked(c);
}

#define PYSOCK__BACKOFF 1000000      /* ns: the first one, doubled each time */
#define PYSOCK__BACKOFF_MAX 10000000 /* ns */

/* Backs off when poll() keeps reporting events that this call cannot consume: POLLERR of the error
   queue, which is for MSG_ERRQUEUE; POLLOUT of an unconnected Unix datagram socket, even if the
   receiver's queue is full; input that other threads take first. */
static int pysock__wait_out_locked(pysock__call *c)
{
    int64_t span = PYSOCK__BACKOFF << (c->backoffs < 4 ? c->backoffs : 4);
    pysock__call backoff = *c;
    int r;

    c->reported = 0;
    if (!c->deadline)
        c->deadline = pysock__deadline_in(c->timeout);
    backoff.deadline = pysock__deadline_in(span < PYSOCK__BACKOFF_MAX ? span : PYSOCK__BACKOFF_MAX);
    if (backoff.deadline > c->deadline)
        backoff.deadline = c->deadline;
    PYSOCK_TRACE("backoff", c->s);
    r = pysock__wait_asleep_locked(&backoff, 0);
    if (pysock__call_check_locked(c) < 0)
        return -1;
    if (r == -EINTR)
        return pysock__call_interrupted_locked(c);
    if (r < 0)
        return pysock__call_fail(c, r);
    return pysock__call_overdue(c);
}

/* The call has made progress: what poll() reported was of use. */
static void pysock__call_progress(pysock__call *c)
{
    c->reported = c->backoffs = 0;
}

/* Waits for what the kernel's own call would wait for. */
static int pysock__wait_kernel_locked(pysock__call *c, short events)
{
    if (c->reported && ++c->backoffs && (c->backoffs > 2 || !(c->reported & events)))
        return pysock__wait_out_locked(c);
    return pysock__wait_locked(c, events);
}

/* After a system call on a plain socket that did not succeed: 0 to try again, -1 to end. */
static int pysock__retry_locked(pysock__call *c, ptrdiff_t r, short events)
{
    if (pysock__call_check_locked(c) < 0)
        return -1;
    if (r == -EINTR)
        return pysock__call_interrupted_locked(c);
    if (r != -EAGAIN)
        return pysock__call_fail(c, (int)r);
    if (c->waits == PYSOCK__WAITS_NEVER || pysock__nonblock_honoured(c))
        return pysock__fail_again();
    return pysock__wait_kernel_locked(c, events);
}

/* With these flags a call does not wait, whatever the socket's timeout is. */
static void pysock__call_flags(pysock__call *c, int flags)
{
    if (flags & PYSOCK__NEVER_WAITS)
        c->waits = PYSOCK__WAITS_NEVER;
}

/* Whether the call is a stream's without a timeout; no, if sleepers do the reactor's work. */
static int pysock__may_sleep_in_kernel(const pysock__call *c)
{
    return PYSOCK__KERNEL_SLEEPS && c->waits == PYSOCK__WAITS_FOREVER && c->s->type == SOCK_STREAM
           && !pysock__load(&pysock__reactor.threadless);
}

/* recv(2) has returned r: 0, or an error. 1: the result is 0 bytes; 0: try again; -1: the call must
   end. asleep: recv(2) itself has waited. */
static int pysock__recv_nothing_locked(pysock__call *c, const pysock__msg *msg, ptrdiff_t r,
                                       int asleep, short events)
{
    pysock__sock *s = c->s;

    if (r == 0 && msg && msg->control_size)
        return 1; /* an empty message, with descriptors perhaps: they must not be lost */
    if (r == -EAGAIN && c->waits != PYSOCK__WAITS_NEVER && (s->read_shut || c->reported & POLLIN)
        && s->type != SOCK_STREAM && pysock__sys_read_ended(s->fd))
        r = 0;
    if (r == 0) /* or a close has ended it */
        return pysock__call_check_locked(c) < 0 ? -1 : 1;
    if (r == -EAGAIN && asleep && pysock__sys_timeo(s->fd, 0))
        return pysock__call_check_locked(c) < 0 ? -1 : pysock__fail_again();
    return pysock__retry_locked(c, r, events);
}

/* Receives into buf, or, if msg is not NULL, a message into its buffers, of size bytes. */
static ptrdiff_t pysock__plain_recv_locked(pysock__call *c, void *buf, size_t size,
                                           pysock__msg *msg, int flags)
{
    pysock__sock *s = c->s;
    int asleep = pysock__may_sleep_in_kernel(c), polls_first;
    int kernel_flags = asleep ? flags : flags | MSG_DONTWAIT;
    short events = flags & MSG_OOB && s->type == SOCK_STREAM ? POLLPRI : POLLIN;
    ptrdiff_t r;

    for (;;) {
        if (pysock__await_connect_locked(c) < 0)
            return -1;
        polls_first = s->drained && !flags && c->waits == PYSOCK__WAITS_UNTIL && !c->deadline
                      && pysock__kernel_reports_all(s);
        if (polls_first)
            c->deadline = pysock__deadline_in(c->timeout);
        pysock__enter_kernel_locked(s);
        r = polls_first ? pysock__poll_in(s->fd, pysock__ms_of(c->timeout)) : 0;
        if (r >= 0)
            r = msg ? pysock__sys_recvmsg(s->fd, msg, kernel_flags)
                    : pysock__sys_recv(s->fd, buf, size, kernel_flags);
        pysock__leave_kernel_locked(s);
        s->drained = r > 0 && ((size_t)r < size || size < 4096);
        if (r > 0)
            return r;
        r = pysock__recv_nothing_locked(c, msg, r, asleep, events);
        if (r)
            return r < 0 ? -1 : 0;
    }
}

/* MSG_WAITALL on a stream where the kernel must not wait: repeats recv. If that fails, returns what
   has arrived, as the kernel does. */
static ptrdiff_t pysock__plain_recv_all_locked(pysock__call *c, void *buf, size_t size, int flags)
{
    size_t got = 0;
    ptrdiff_t r;

    do {
        r = pysock__plain_recv_locked(c, (char *)buf + got, size - got, NULL, flags & ~MSG_WAITALL);
        if (r > 0)
            got += (size_t)r;
        pysock__call_progress(c);
    } while (r > 0 && got < size);
    return got ? (ptrdiff_t)got : r;
}

static ptrdiff_t pysock__plain_recv_bytes_locked(pysock__call *c, void *buf, size_t size, int flags)
{
    if (!size)
        return 0; /* as Python: the kernel is not asked */
    if (flags & MSG_WAITALL && !(flags & (MSG_PEEK | MSG_OOB)) && c->waits != PYSOCK__WAITS_NEVER
        && c->s->type == SOCK_STREAM && !pysock__may_sleep_in_kernel(c))
        return pysock__plain_recv_all_locked(c, buf, size, flags);
    return pysock__plain_recv_locked(c, buf, size, NULL, flags);
}

static ptrdiff_t pysock__sys_send_any(int fd, const void *data, size_t size, const pysock__msg *msg,
                                      int flags)
{
    return msg ? pysock__sys_sendmsg(fd, msg, flags) : pysock__sys_send(fd, data, size, flags);
}

/* A send that keeps the order of the queue, under the lock. */
static ptrdiff_t pysock__queued_send_locked(pysock__call *c, const void *data, size_t size,
                                            const pysock__msg *msg, int flags)
{
    pysock__sock *s = c->s;
    pysock__progress p;
    ptrdiff_t r;

    for (;;) {
        p = pysock__flush_locked(s);
        if (p == PYSOCK__STOPPED)
            return pysock__call_fail_output(c);
        if (p != PYSOCK__DONE) {
            if (flags & MSG_OOB)
                return pysock__fail_value(c->name, "MSG_OOB cannot overtake queued output");
            if (c->waits == PYSOCK__WAITS_NEVER)
                return msg ? pysock__fail_again() : pysock__enqueue_copy_locked(c, data, size);
            if (pysock__await_locked(c, p) < 0)
                return -1;
            continue;
        }
        r = pysock__sys_send_any(s->fd, data, size, msg, flags | MSG_DONTWAIT);
        if (r >= 0)
            return r;
        if (pysock__retry_locked(c, r, POLLOUT) < 0)
            return -1;
    }
}

/* Sends data, or, if msg is not NULL, a message. */
static ptrdiff_t pysock__plain_send_locked(pysock__call *c, const void *data, size_t size,
                                           const pysock__msg *msg, int flags)
{
    pysock__sock *s = c->s;
    int asleep = pysock__may_sleep_in_kernel(c);
    ptrdiff_t r;

    for (;;) {
        if (pysock__await_connect_locked(c) < 0)
            return -1;
        if (s->queue_used)
            return pysock__queued_send_locked(c, data, size, msg, flags);
        s->kernel_sends++;
        s->kernel_writes++;
        pysock__enter_kernel_locked(s);
        r = pysock__sys_send_any(s->fd, data, size, msg, asleep ? flags : flags | MSG_DONTWAIT);
        pysock__leave_kernel_locked(s);
        s->kernel_sends--;
        s->kernel_writes--;
        if (!pysock__queue_empty(&s->queue)) {
            pysock__flush_or_kick_locked(s);
            pysock__notify_locked(s, NULL); /* calls that waited for this send */
        }
        if (r >= 0)
            return r;
        if (r == -EAGAIN && asleep && pysock__sys_timeo(s->fd, 1))
            return pysock__call_check_locked(c) < 0 ? -1 : pysock__fail_again();
        if (pysock__retry_locked(c, r, POLLOUT) < 0)
            return -1;
    }
}

static ptrdiff_t pysock__recv(pysock *s, void *buf, size_t size, int flags, const char *what)
{
    pysock__call c;
    ptrdiff_t r;

    if (pysock__check_memory(what, buf, size) < 0 || pysock__call_begin(&c, s, what) < 0)
        return -1;
    pysock__call_flags(&c, flags);
#ifndef PYSOCK_NO_SSL
    if (pysock__is_tls_locked(c.s))
        r = pysock__tls_recv_locked(&c, buf, size, flags);
    else
#endif
        r = pysock__plain_recv_bytes_locked(&c, buf, size, flags);
    pysock__call_end(&c);
    return r;
}

PYSOCKDEF ptrdiff_t pysock_recv(pysock *s, void *buf, size_t size, int flags)
{
    return pysock__recv(s, buf, size, flags, "recv");
}

PYSOCKDEF ptrdiff_t pysock_recv_into(pysock *s, void *buf, size_t size, int flags)
{
    return pysock_recv(s, buf, size, flags);
}

static ptrdiff_t pysock__send_locked(pysock__call *c, const void *data, size_t size, int flags)
{
    if (c->s->shut_when_flushed)
        return pysock__call_fail(c, -EPIPE);
#ifndef PYSOCK_NO_SSL
    if (pysock__is_tls_locked(c->s)) {
        if (flags)
            return pysock__fail_value(c->name, "TLS sockets support no flags for sending");
        return pysock__tls_send_locked(c, (const unsigned char *)data, size);
    }
#endif
    return pysock__plain_send_locked(c, data, size, NULL, flags);
}

static ptrdiff_t pysock__send(pysock *s, const void *data, size_t size, int flags, const char *what)
{
    pysock__call c;
    ptrdiff_t r;

    if (pysock__check_memory(what, data, size) < 0 || pysock__call_begin(&c, s, what) < 0)
        return -1;
    pysock__call_flags(&c, flags);
    r = pysock__send_locked(&c, data, size, flags);
    pysock__call_end(&c);
    return r;
}

PYSOCKDEF ptrdiff_t pysock_send(pysock *s, const void *data, size_t size, int flags)
{
    return pysock__send(s, data, size, flags, "send");
}

/* After a short send: 1 if only a signal can have interrupted the kernel's call. */
static int pysock__stopped_locked(const pysock__call *c)
{
    return c->waits == PYSOCK__WAITS_FOREVER && !pysock__is_tls_locked(c->s)
           && pysock__fd_blocks(c->s->fd);
}

PYSOCKDEF int pysock_sendall(pysock *s, const void *data, size_t size, int flags)
{
    const unsigned char *p = (const unsigned char *)data;
    pysock__call c;
    ptrdiff_t r;

    if (pysock__check_memory("sendall", data, size) < 0 || pysock__call_begin(&c, s, "sendall") < 0)
        return -1;
    pysock__call_flags(&c, flags);
    c.all = 1;
    do {
        r = pysock__send_locked(&c, p, size, flags);
        if (r > 0) {
            p += r;
            size -= (size_t)r;
            pysock__call_progress(&c);
        }
        if (r > 0 && size && pysock__stopped_locked(&c) && pysock__call_interrupted_locked(&c) < 0)
            r = -1;
    } while (size && r >= 0);
    pysock__call_end(&c);
    return r < 0 ? -1 : 0;
}

PYSOCKDEF pysock_buf *pysock_recv_buf(pysock *s, size_t size)
{
    pysock_buf *b;
    ptrdiff_t n;

    if (size > PTRDIFF_MAX / 2) {
        pysock__fail_value("recv_buf", "the size is negative or too large");
        return NULL;
    }
    b = pysock_buf_new(size);
    if (!b)
        return NULL;
    n = pysock__recv(s, b->data, size, 0, "recv_buf");
    if (n < 0) {
        pysock_buf_release(b);
        return NULL;
    }
    b->size = (size_t)n;
    return b;
}

/* Waits, if the call may, until the queue takes more. */
static int pysock__queue_room_locked(pysock__call *c)
{
    pysock__sock *s = c->s;
    pysock__progress p;

    while (s->queue_full) {
        if (c->waits == PYSOCK__WAITS_NEVER)
            return pysock__fail_again();
        p = pysock__flush_locked(s);
        if (p == PYSOCK__STOPPED)
            break;
        if (s->queue_full && pysock__await_output_locked(c, p) < 0)
            return -1;
    }
    return s->write_error ? pysock__call_fail_output(c) : 0;
}

/* Whether output can be queued: connected (waits if it may), or a handshake is under way. */
static int pysock__queue_ready_locked(pysock__call *c)
{
    pysock__sock *s = c->s;

    if (s->type != SOCK_STREAM)
        return pysock__call_fail(c, -EOPNOTSUPP);
    if (s->shut_when_flushed)
        return pysock__call_fail(c, -EPIPE);
#ifndef PYSOCK_NO_SSL
    if (pysock__is_tls_locked(s)) {
        if (s->phase == PYSOCK__HANDSHAKING && c->waits == PYSOCK__WAITS_NEVER) {
            pysock__want_reactor_locked(s);
            return 0;
        }
        if (pysock__ensure_established_locked(c) < 0)
            return -1;
        return pysock__tls_may_send(s->tls) ? 0 : pysock__fail_not_writable(c);
    }
#endif
    if (pysock__await_connect_locked(c) < 0)
        return -1;
    if (s->phase == PYSOCK__CONNECTING)
        pysock__connect_check_locked(s);
    if (s->phase == PYSOCK__FAILED)
        return pysock__report_failed_locked(s);
    if (s->phase == PYSOCK__CONNECTING)
        return c->waits == PYSOCK__WAITS_NEVER ? pysock__fail_again()
                                               : pysock__connect_wait_locked(c);
    pysock__refresh_phase_locked(s);
    return s->phase == PYSOCK__OPEN ? 0 : pysock__call_fail(c, -ENOTCONN);
}

PYSOCKDEF int pysock_send_buf(pysock *s, pysock_buf *b)
{
    pysock__call c;
    int r;

    if (!b)
        return pysock__fail_value("send_buf", "the buffer is NULL");
    if (pysock__call_begin(&c, s, "send_buf") < 0)
        return -1;
    r = pysock__queue_ready_locked(&c);
    if (r == 0)
        r = pysock__queue_room_locked(&c);
    if (r == 0 && b->size) {
        if (pysock__queue_append(&c.s->queue, b) < 0) {
            r = pysock__fail_memory("send_buf");
        } else {
            c.s->queue_used = 1;
            pysock__queue_level_locked(c.s);
            pysock__flush_or_kick_locked(c.s);
            if (c.s->write_error)
                r = pysock__call_fail_output(&c);
        }
    }
    pysock__call_end(&c);
    return r;
}

PYSOCKDEF int pysock_set_watermarks(pysock *s, size_t low, size_t high)
{
    pysock__call c;

    if (!high || low > high || high > PTRDIFF_MAX)
        return pysock__fail_value("set_watermarks",
                                  "high must not be 0, and low must not exceed it");
    if (pysock__call_begin(&c, s, "set_watermarks") < 0)
        return -1;
    c.s->low = low;
    c.s->high = high;
    pysock__queue_level_locked(c.s);
    pysock__notify_locked(c.s, NULL);
    pysock__call_end(&c);
    return 0;
}

PYSOCKDEF ptrdiff_t pysock_queued(pysock *s)
{
    pysock__call c;
    ptrdiff_t n;

    if (pysock__call_begin(&c, s, "queued") < 0)
        return -1;
    n = (ptrdiff_t)c.s->queue.bytes;
    pysock__call_end(&c);
    return n;
}

/* Socket I/O: messages. */

static int pysock__no_messages_locked(pysock__call *c)
{
    if (!pysock__is_tls_locked(c->s))
        return 0;
    return pysock__fail(PYSOCK_OS_ERROR, ENOTSUP, "ENOTSUP",
                        "%s: a TLS socket has a stream and no messages; use recv and send",
                        c->name);
}

static ptrdiff_t pysock__recv_msg(pysock *s, const char *name, pysock__msg *m, size_t size,
                                  int flags)
{
    pysock__call c;
    ptrdiff_t r;

    if (pysock__call_begin(&c, s, name) < 0)
        return -1;
    pysock__call_flags(&c, flags);
    r = pysock__no_messages_locked(&c);
    if (r == 0)
        r = pysock__plain_recv_locked(&c, NULL, size, m, flags);
    pysock__call_end(&c);
    return r;
}

PYSOCKDEF ptrdiff_t pysock_recvfrom(pysock *s, void *buf, size_t size, int flags, pysock_addr *from)
{
    struct iovec iov;
    pysock__msg m;

    if (from)
        memset(from, 0, sizeof *from);
    if (pysock__check_memory("recvfrom", buf, size) < 0)
        return -1;
    memset(&m, 0, sizeof m);
    iov.iov_base = buf;
    iov.iov_len = size;
    m.iov = &iov;
    m.count = 1;
    m.from = from;
    m.is_bytes = 1;
    return pysock__recv_msg(s, "recvfrom", &m, size, flags);
}

PYSOCKDEF ptrdiff_t pysock_recvfrom_into(pysock *s, void *buf, size_t size, int flags,
                                         pysock_addr *from)
{
    return pysock_recvfrom(s, buf, size, flags, from);
}

/* Asks the audit hook about m's address, then sends m. */
static ptrdiff_t pysock__send_msg_locked(pysock__call *c, const char *event, pysock__msg *m,
                                         int flags)
{
    if (c->s->shut_when_flushed)
        return pysock__call_fail(c, -EPIPE);
    if (pysock__call_audit_locked(c, event, m->to) < 0)
        return -1;
    return pysock__plain_send_locked(c, NULL, 0, m, flags);
}

static ptrdiff_t pysock__sendto_locked(pysock__call *c, const void *data, size_t size, int flags,
                                       const pysock_addr *addr)
{
    struct iovec iov;
    pysock__msg m;

    if (pysock__no_messages_locked(c) < 0)
        return -1;
    memset(&m, 0, sizeof m);
    iov.iov_base = (void *)(uintptr_t)data;
    iov.iov_len = size;
    m.iov = &iov;
    m.count = 1;
    m.to = addr;
    return pysock__send_msg_locked(c, "socket.sendto", &m, flags);
}

PYSOCKDEF ptrdiff_t pysock_sendto_addr(pysock *s, const void *data, size_t size, int flags,
                                       const pysock_addr *addr)
{
    pysock__call c;
    ptrdiff_t r;

    if (pysock__check_memory("sendto", data, size) < 0)
        return -1;
    if (!addr || !addr->size || addr->size > sizeof addr->u)
        return pysock__fail_value("sendto", "the address is NULL or empty");
    if (pysock__call_begin(&c, s, "sendto") < 0)
        return -1;
    pysock__call_flags(&c, flags);
    r = pysock__sendto_locked(&c, data, size, flags, addr);
    pysock__call_end(&c);
    return r;
}

/* On a worker: the name of a sendto has been looked up. */
static void pysock__sendto_resolved(void *arg, pysock__lookup *l)
{
    pysock__sock *s = pysock__acquire_handle((uintptr_t)arg);

    (void)l;
    if (!s)
        return;
    pysock__lock(&s->lock);
    s->names_awaited--; /* a call may have taken the result already: complete comes before this */
    pysock__notify_locked(s, NULL);
    pysock__unlock_sock(s);
    pysock__release(s);
}

/* The place of this name's lookup, or an empty one for it; NULL: all places have other lookups
   under way. */
static pysock__lookup **pysock__sendto_place_locked(pysock__sock *s, const char *host, int port)
{
    pysock__lookup **place = NULL;
    size_t i;

    for (i = 0; i < PYSOCK__SENDTO_NAMES; i++) {
        pysock__lookup *l = s->names[i];
        if (l && strcmp(l->host, host) == 0 && l->port == port)
            return &s->names[i];
        if (!l || ((!place || *place) && pysock__lookup_complete(l, NULL)))
            place = &s->names[i];
    }
    if (place && *place) { /* no call came for it */
        pysock__lookup_release(*place);
        *place = NULL;
    }
    return place;
}

/* Begins to look up the name of a sendto. The socket is not writable until that is done. */
static int pysock__sendto_lookup_locked(pysock__call *c, pysock__lookup **place, const char *host,
                                        int port)
{
    pysock__sock *s = c->s;
    pysock__lookup *l = pysock__lookup_new(host, port, s->family, s->type, pysock__sendto_resolved,
                                           (void *)s->handle);
    if (!l)
        return pysock__fail_memory(c->name);
    *place = l;
    s->names_awaited++;
    pysock__lookup_retain(l);
    pysock__unlock(&s->lock);
    pysock__lookup_start(l);
    pysock__lock(&s->lock);
    pysock__lookup_release(l);
    return pysock__call_check_locked(c);
}

/* The address of a name, for a call that must not look it up itself: a worker does. The audit hook
   is asked before each lookup. */
static int pysock__sendto_await_locked(pysock__call *c, const char *host, int port,
                                       pysock_addr *addr)
{
    pysock__sock *s = c->s;
    pysock__lookup **place, *l;
    int r, asked = 0;

    for (;;) {
        place = pysock__sendto_place_locked(s, host, port);
        if (place && *place && pysock__lookup_complete(*place, NULL))
            break;
        if (place && !*place && !asked) {
            pysock__unlock(&s->lock);
            r = pysock__audit_lookup(c->name, host, port, s->family, s->type);
            pysock__lock(&s->lock);
            if (r < 0 || pysock__call_check_locked(c) < 0)
                return -1;
            asked = 1;
            continue; /* another thread may have taken the place */
        }
        if (place && !*place && pysock__sendto_lookup_locked(c, place, host, port) < 0)
            return -1;
        if (place && *place && pysock__lookup_complete(*place, NULL))
            continue;
        if (c->waits == PYSOCK__WAITS_NEVER)
            return pysock__fail_again();
        if (pysock__wait_locked(c, 0) < 0)
            return -1;
    }
    l = *place;
    *place = NULL;
    r = l->err ? pysock__fail_gai(l->err, l->sys, c->name, host) : 0;
    if (r == 0)
        *addr = l->addrs.items[0];
    pysock__lookup_release(l);
    return r;
}

/* The address that a sendto goes to. */
static int pysock__sendto_addr_locked(pysock__call *c, const char *host, int port,
                                      pysock_addr *addr)
{
    pysock__sock *s = c->s;
    pysock__addrs list = {NULL, 0, 0, 0};
    int r;

    if (pysock__check_family(c->name, s->family) < 0)
        return -1;
    if (s->family == AF_UNIX)
        return pysock__unix_addr(addr, host ? host : "", c->name);
    if (pysock__check_host(c->name, host, port) < 0)
        return -1;
    r = pysock__resolve_numeric(host, port, s->family, s->type, &list);
    if (r == 0)
        *addr = list.items[0];
    pysock__free(list.items);
    if (r == 0)
        return 0;
    if (r == EAI_MEMORY)
        return pysock__fail_memory(c->name);
    if (c->waits != PYSOCK__WAITS_FOREVER)
        return pysock__sendto_await_locked(c, host, port, addr);
    pysock__unlock(&s->lock);
    r = pysock__local_addr(c->name, host, port, s->family, s->type, addr);
    pysock__lock(&s->lock);
    return r < 0 ? -1 : pysock__call_check_locked(c);
}

PYSOCKDEF ptrdiff_t pysock_sendto(pysock *s, const void *data, size_t size, int flags,
                                  const char *host, int port)
{
    pysock__call c;
    pysock_addr addr;
    ptrdiff_t r;

    if (pysock__check_memory("sendto", data, size) < 0 || pysock__call_begin(&c, s, "sendto") < 0)
        return -1;
    pysock__call_flags(&c, flags);
    r = pysock__no_messages_locked(&c);
    if (r == 0)
        r = pysock__await_connect_locked(&c);
    if (r == 0)
        r = pysock__sendto_addr_locked(&c, host, port, &addr);
    if (r == 0)
        r = pysock__sendto_locked(&c, data, size, flags, &addr);
    pysock__call_end(&c);
    return r;
}

/* Socket I/O: messages with ancillary data. The items are read and written by bytes, because the
   caller's memory may not be aligned for a struct cmsghdr. */

#define PYSOCK__CMSG_HEAD ((size_t)CMSG_LEN(0))
#define PYSOCK__CMSG_MAX ((size_t)INT_MAX - (size_t)CMSG_SPACE(1)) /* bytes of data, as in Python */

PYSOCKDEF ptrdiff_t pysock_cmsg_len(size_t size)
{
    if (size > (size_t)INT_MAX - PYSOCK__CMSG_HEAD)
        return pysock__fail_value("cmsg_len", "the size exceeds what one item can hold");
    return (ptrdiff_t)CMSG_LEN(size);
}

PYSOCKDEF ptrdiff_t pysock_cmsg_space(size_t size)
{
    if (size > PYSOCK__CMSG_MAX)
        return pysock__fail_value("cmsg_space", "the size exceeds what one item can hold");
    return (ptrdiff_t)CMSG_SPACE(size);
}

PYSOCKDEF int pysock_msg_next(const pysock_msg *msg, pysock_cmsg *item)
{
    const char *base;
    struct cmsghdr head;
    size_t at = 0, left, size;

    if (!msg || !item || !msg->control)
        return 0;
    base = (const char *)msg->control;
    if (item->data)
        at = (size_t)((const char *)item->data - base) - PYSOCK__CMSG_HEAD + CMSG_SPACE(item->size);
    left = at < msg->control_size ? msg->control_size - at : 0;
    if (left < PYSOCK__CMSG_HEAD)
        return 0;
    memcpy(&head, base + at, sizeof head);
    size = (size_t)head.cmsg_len;
    if (size < PYSOCK__CMSG_HEAD)
        return 0;
    item->level = head.cmsg_level;
    item->type = head.cmsg_type;
    item->data = base + at + PYSOCK__CMSG_HEAD;
    item->size = (size < left ? size : left) - PYSOCK__CMSG_HEAD;
    return 1;
}

/* *total: the size of all buffers. Fails if it is too large or a buffer is NULL. */
static int pysock__check_buffers(const char *what, const struct iovec *buffers, size_t count,
                                 size_t *total)
{
    size_t i;

    *total = 0;
    if (!buffers && count)
        return pysock__fail_value(what, "the array of buffers is NULL");
    for (i = 0; i < count; i++) {
        if (pysock__check_memory(what, buffers[i].iov_base, buffers[i].iov_len) < 0)
            return -1;
        if (buffers[i].iov_len > PTRDIFF_MAX - *total)
            return pysock__fail_value(what, "the total size of the buffers is too large");
        *total += buffers[i].iov_len;
    }
    return 0;
}

static ptrdiff_t pysock__recvmsg(pysock *s, const struct iovec *buffers, size_t count,
                                 pysock_msg *msg, int flags, const char *what)
{
    pysock__msg m;
    size_t total;
    ptrdiff_t r;

    if (!msg || (!msg->control && msg->control_size))
        return pysock__fail_value(what, msg ? "msg->control is NULL" : "msg is NULL");
    if (pysock__check_buffers(what, buffers, count, &total) < 0)
        return -1;
    memset(&m, 0, sizeof m);
    memset(&msg->addr, 0, sizeof msg->addr);
    m.iov = buffers;
    m.count = count;
    m.control = msg->control;
    m.control_size = msg->control_size;
    m.from = &msg->addr;
    r = pysock__recv_msg(s, what, &m, total, flags);
    if (r < 0)
        return r;
    msg->control_size = m.control_size;
    msg->flags = m.flags;
    return r;
}

PYSOCKDEF ptrdiff_t pysock_recvmsg_into(pysock *s, const struct iovec *buffers, size_t count,
                                        pysock_msg *msg, int flags)
{
    return pysock__recvmsg(s, buffers, count, msg, flags, "recvmsg_into");
}

PYSOCKDEF ptrdiff_t pysock_recvmsg(pysock *s, void *buf, size_t size, pysock_msg *msg, int flags)
{
    struct iovec iov;

    iov.iov_base = buf;
    iov.iov_len = size;
    return pysock__recvmsg(s, &iov, 1, msg, flags, "recvmsg");
}

/* Writes the items in the kernel's format, into few, or else into *room, to be freed. */
static int pysock__cmsg_build(const pysock_cmsg *items, size_t count, void *few, size_t few_size,
                              void **room, pysock__msg *m, const char *what)
{
    struct cmsghdr head;
    size_t i, total = 0;
    char *at;

    *room = NULL;
    for (i = 0; i < count; i++) {
        if (!items[i].data && items[i].size)
            return pysock__fail_value(what, "an item's data is NULL");
        if (items[i].size > PYSOCK__CMSG_MAX
            || CMSG_SPACE(items[i].size) > PYSOCK__CMSG_MAX - total)
            return pysock__fail_value(what, "the ancillary data is too large");
        total += CMSG_SPACE(items[i].size);
    }
    if (total > few_size && (*room = PYSOCK_MALLOC(total)) == NULL)
        return pysock__fail_memory(what);
    m->control = *room ? *room : few;
    m->control_size = total;
    memset(m->control, 0, total);
    at = (char *)m->control;
    for (i = 0; i < count; i++) {
        memset(&head, 0, sizeof head);
        head.cmsg_len = (unsigned int)CMSG_LEN(items[i].size);
        head.cmsg_level = items[i].level;
        head.cmsg_type = items[i].type;
        memcpy(at, &head, sizeof head);
        if (items[i].size)
            memcpy(at + PYSOCK__CMSG_HEAD, items[i].data, items[i].size);
        at += CMSG_SPACE(items[i].size);
    }
    return 0;
}

static ptrdiff_t pysock__sendmsg(pysock *s, const struct iovec *buffers, size_t count,
                                 const pysock_cmsg *ancdata, size_t anccount, int flags,
                                 const pysock_addr *addr, const char *what)
{
    union {
        struct cmsghdr aligned;
        char bytes[256];
    } few;
    pysock__msg m;
    pysock__call c;
    void *room;
    size_t total;
    ptrdiff_t r;

    if (pysock__check_buffers(what, buffers, count, &total) < 0)
        return -1;
    if (!ancdata && anccount)
        return pysock__fail_value(what, "the array of ancillary data is NULL");
    if (addr && (!addr->size || addr->size > sizeof addr->u))
        return pysock__fail_value(what, "the address is empty");
    memset(&m, 0, sizeof m);
    m.iov = buffers;
    m.count = count;
    m.to = addr;
    if (pysock__cmsg_build(ancdata, anccount, &few, sizeof few, &room, &m, what) < 0)
        return -1;
    r = pysock__call_begin(&c, s, what);
    if (r == 0) {
        pysock__call_flags(&c, flags);
        r = pysock__no_messages_locked(&c);
        if (r == 0)
            r = pysock__send_msg_locked(&c, "socket.sendmsg", &m, flags);
        pysock__call_end(&c);
    }
    pysock__free(room);
    return r;
}

PYSOCKDEF ptrdiff_t pysock_sendmsg(pysock *s, const struct iovec *buffers, size_t count,
                                   const pysock_cmsg *ancdata, size_t ancdata_count, int flags,
                                   const pysock_addr *addr)
{
    return pysock__sendmsg(s, buffers, count, ancdata, ancdata_count, flags, addr, "sendmsg");
}

#define PYSOCK__AFALG_IV 256 /* bytes: more than any cipher has */

PYSOCKDEF ptrdiff_t pysock_sendmsg_afalg(pysock *s, const struct iovec *buffers, size_t count,
                                         int op, const void *iv, size_t iv_size,
                                         ptrdiff_t assoc_size, int flags)
{
    unsigned char packed_iv[sizeof(uint32_t) + PYSOCK__AFALG_IV];
    uint32_t kernel_op = (uint32_t)op, kernel_assoclen = (uint32_t)assoc_size,
             n = (uint32_t)iv_size;
    pysock_cmsg items[3];
    size_t used = 0, i;
    int family;

    if (!PYSOCK__SOL_ALG)
        return pysock__fail_os(-ENOTSUP, "sendmsg_afalg", "this platform");
    if (op < 0 || (!iv && iv_size) || iv_size > PYSOCK__AFALG_IV || assoc_size > INT32_MAX)
        return pysock__fail_value("sendmsg_afalg", op < 0           ? "op is negative"
                                                   : !iv && iv_size ? "iv is NULL"
                                                   : iv_size > PYSOCK__AFALG_IV
                                                       ? "iv is too long"
                                                       : "assoc_size is too large");
    items[used].type = PYSOCK__ALG_SET_OP;
    items[used].data = &kernel_op;
    items[used++].size = sizeof kernel_op;
    if (iv) {
        memcpy(packed_iv, &n, sizeof n);
        memcpy(packed_iv + sizeof n, iv, iv_size);
        items[used].type = PYSOCK__ALG_SET_IV;
        items[used].data = packed_iv;
        items[used++].size = sizeof n + iv_size;
    }
    if (assoc_size >= 0) {
        items[used].type = PYSOCK__ALG_SET_AEAD_ASSOCLEN;
        items[used].data = &kernel_assoclen;
        items[used++].size = sizeof kernel_assoclen;
    }
    for (i = 0; i < used; i++)
        items[i].level = PYSOCK__SOL_ALG;
    family = pysock_family(s);
    if (family < 0)
        return -1;
    if (family != PYSOCK__AF_ALG) /* other families would send plain data */
        return pysock__fail_value("sendmsg_afalg", "the socket's family is not AF_ALG");
    return pysock__sendmsg(s, buffers, count, items, used, flags, NULL, "sendmsg_afalg");
}

#define PYSOCK__FDS_MAX 1024 /* Linux passes 253 at most */

PYSOCKDEF ptrdiff_t pysock_send_fds(pysock *s, const void *data, size_t size, const int *fds,
                                    size_t count, int flags)
{
    struct iovec iov;
    pysock_cmsg item;

    if (!fds && count)
        return pysock__fail_value("send_fds", "fds is NULL");
    if (count > PYSOCK__FDS_MAX)
        return pysock__fail_value("send_fds", "there are too many descriptors");
    if (count && !size && pysock_type(s) == SOCK_STREAM)
        return pysock__fail_value(
            "send_fds", "on a stream, descriptors must be sent with at least one byte of data");
    iov.iov_base = (void *)(uintptr_t)data;
    iov.iov_len = size;
    item.level = SOL_SOCKET;
    item.type = SCM_RIGHTS;
    item.data = fds;
    item.size = count * sizeof *fds;
    return pysock__sendmsg(s, &iov, 1, &item, count ? 1 : 0, flags, NULL, "send_fds");
}

PYSOCKDEF ptrdiff_t pysock_recv_fds(pysock *s, void *buf, size_t size, int *fds, size_t *count,
                                    int flags, int *msg_flags)
{
    size_t room = count ? *count : 0, n, i, got = 0;
    struct iovec iov;
    pysock_cmsg item;
    pysock_msg msg;
    ptrdiff_t r;
    int fd;

    if (!count || (!fds && room))
        return pysock__fail_value("recv_fds", count ? "fds is NULL" : "count is NULL");
    if (room > PYSOCK__FDS_MAX)
        return pysock__fail_value("recv_fds", "*count is too large");
    memset(&msg, 0, sizeof msg);
    /* Not CMSG_SPACE: its padding has room for one more, which would have nowhere to go. */
    msg.control_size = room ? CMSG_LEN(room * sizeof *fds) : 0;
    msg.control = room ? PYSOCK_MALLOC(msg.control_size) : NULL;
    if (room && !msg.control)
        return pysock__fail_memory("recv_fds");
    iov.iov_base = buf;
    iov.iov_len = size;
    r = pysock__recvmsg(s, &iov, 1, &msg, flags | PYSOCK__CMSG_CLOEXEC, "recv_fds");
    memset(&item, 0, sizeof item);
    while (r >= 0 && pysock_msg_next(&msg, &item)) {
        if (item.level != SOL_SOCKET || item.type != SCM_RIGHTS)
            continue;
        n = item.size / sizeof fd;
        for (i = 0; i < n; i++) {
            memcpy(&fd, (const char *)item.data + i * sizeof fd, sizeof fd);
            if (got < room)
                fds[got++] = fd;
            else
                pysock__fd_close(fd);
        }
    }
    for (i = 0; !PYSOCK__CMSG_CLOEXEC && i < got; i++)
        pysock__fd_set_inheritable(fds[i], 0);
    pysock__free(msg.control);
    if (r >= 0)
        *count = got;
    if (r >= 0 && msg_flags)
        *msg_flags = msg.flags;
    return r;
}

/* ---- >>socket-api ----
   Python's socket, call by call: making, connecting, listening, closing, properties. Each call
   begins with pysock__call_begin(), which takes the socket's lock, and ends with
   pysock__call_end(). */

/* Socket API: making, connecting, listening. */

/* Asks the audit hook whether a socket may be made. */
static int pysock__audit_new(const pysock__maker *m, int family, int type, int proto)
{
    pysock_audit_event e;

    memset(&e, 0, sizeof e);
    e.name = "socket.__new__";
    e.family = family;
    e.type = type;
    e.proto = proto;
    if (!pysock__denied(&e))
        return 0;
    return pysock__fail(PYSOCK_OS_ERROR, EACCES, "EACCES", "%s: denied by the audit hook", m->what);
}

static pysock *pysock__socket(const pysock__maker *m, int family, int type, int proto)
{
    pysock__sock *s;
    int fd;

    if (pysock__audit_new(m, family, type, proto) < 0)
        return NULL;
    fd = pysock__sys_socket(family, type, proto);
    if (fd < 0) {
        pysock__fail_os(fd, m->what, "");
        return NULL;
    }
    s = pysock__sock_take(m, fd, family, type, proto);
    return s ? pysock__publish(s, PYSOCK__NEW) : NULL;
}

PYSOCKDEF pysock *pysock_socket(int family, int type, int proto)
{
    pysock__maker m = pysock__maker_begin("socket");

    return pysock__socket(&m, family, type, proto);
}

PYSOCKDEF int pysock_socketpair(int family, int type, int proto, pysock *pair[2])
{
    pysock__maker m = pysock__maker_begin("socketpair");
    pysock__sock *s;
    int fds[2], err;

    if (!pair)
        return pysock__fail_value("socketpair", "pair is NULL");
    pair[0] = pair[1] = NULL;
    if (pysock__audit_new(&m, family, type, proto) < 0)
        return -1;
    err = pysock__sys_socketpair(family, type, proto, fds);
    if (err < 0)
        return pysock__fail_os(err, "socketpair", "");
    s = pysock__sock_take(&m, fds[0], family, type, proto);
    if (!s) {
        pysock__fd_close(fds[1]);
        return -1;
    }
    pair[0] = pysock__publish(s, PYSOCK__OPEN);
    s = pysock__sock_take(&m, fds[1], family, type, proto);
    if (!s) {
        pysock_close(pair[0]);
        pair[0] = NULL;
        return -1;
    }
    pair[1] = pysock__publish(s, PYSOCK__OPEN);
    return 0;
}

/* Whether fd is a socket, where the caller gave the rest: getpeername() reports that and the peer
   in one call. 0: it is connected. -EAGAIN: call pysock__sys_detect(). */
static int pysock__adopt_check(int fd, pysock_addr *peer, int family, int type, int proto)
{
    int err;

    peer->size = 0;
    if (family == -1 || type != SOCK_STREAM || proto == -1)
        return -EAGAIN;
    err = pysock__sys_getpeername(fd, peer);
    if (err == 0)
        return peer->size ? 0 : -EAGAIN;
    peer->size = 0;
    return err == -EBADF || err == -ENOTSOCK ? err : -EAGAIN;
}

/* A socket around fd, which stays the caller's if it fails. */
static pysock *pysock__adopt(const pysock__maker *m, int fd, int family, int type, int proto)
{
    pysock__sock *s;
    pysock_addr peer;
    int err;

    if (fd < 0) {
        pysock__fail_value(m->what, "the descriptor is negative");
        return NULL;
    }
    err = pysock__adopt_check(fd, &peer, family, type, proto);
    if (err == -EAGAIN)
        err = pysock__sys_detect(fd, &family, &type, &proto);
    if (err < 0) {
        char text[32];
        snprintf(text, sizeof text, "descriptor %d", fd);
        pysock__fail_os(err, m->what, text);
        return NULL;
    }
    if (pysock__audit_new(m, family, type, proto) < 0)
        return NULL;
    s = pysock__sock_new(m, fd, family, type, proto);
    if (!s)
        return NULL;
    pysock__sys_no_sigpipe(fd);
    if (peer.size) {
        s->peer = peer; /* not published yet */
        return pysock__publish(s, PYSOCK__OPEN);
    }
    pysock__lock(&s->lock);
    pysock__refresh_phase_locked(s);
    pysock__unlock(&s->lock);
    return pysock__publish(s, PYSOCK__NEW);
}

PYSOCKDEF pysock *pysock_adopt(int fd, int family, int type, int proto)
{
    pysock__maker m = pysock__maker_begin("adopt");

    return pysock__adopt(&m, fd, family, type, proto);
}

/* A socket around copy: a duplicate, closed on failure, or a negated errno value. */
static pysock *pysock__adopt_copy(const pysock__maker *m, int copy, int family, int type, int proto)
{
    pysock__fault fault;
    pysock *s;

    if (copy < 0) {
        pysock__fail_os(copy, m->what, "");
        return NULL;
    }
    s = pysock__adopt(m, copy, family, type, proto);
    if (s)
        return s;
    fault = pysock__last;
    pysock__fd_close(copy);
    pysock__raise(&fault);
    return NULL;
}

PYSOCKDEF pysock *pysock_fromfd(int fd, int family, int type, int proto)
{
    pysock__maker m = pysock__maker_begin("fromfd");

    if (fd < 0) {
        pysock__fail_value("fromfd", "the descriptor is negative");
        return NULL;
    }
    return pysock__adopt_copy(&m, pysock__fd_dup(fd), family, type, proto);
}

PYSOCKDEF pysock *pysock_dup(pysock *s)
{
    pysock__maker m = pysock__maker_begin("dup");
    int family, type, proto, fd;
    pysock__call c;
    pysock *copy;
    double timeout;

    if (pysock__call_begin(&c, s, "dup") < 0)
        return NULL;
    if (pysock__is_tls_locked(c.s)) {
        pysock__fail(PYSOCK_OS_ERROR, ENOTSUP, "ENOTSUP",
                     "dup: two sockets cannot share one TLS connection");
        pysock__call_end(&c);
        return NULL;
    }
    family = c.s->family;
    type = c.s->type;
    proto = c.s->proto;
    timeout = pysock__timeout_seconds(c.s->timeout);
    fd = pysock__fd_dup(c.s->fd);
    pysock__call_end(&c);
    copy = pysock__adopt_copy(&m, fd, family, type, proto);
    if (copy && pysock_settimeout(copy, timeout) < 0) {
        pysock_close(copy);
        return NULL;
    }
    return copy;
}

#define PYSOCK__UNIX_RETRY 5000000 /* ns */

/* connect(2) for AF_UNIX. With a full backlog it would sleep where shutdown() cannot wake it, and
   no event reports room: so it is retried, with sleeps that close and cleanup end. 0 or a negated
   errno value; 1: the call must end. */
static int pysock__connect_unix_locked(pysock__call *c)
{
    pysock__sock *s = c->s;
    pysock__call backoff = *c;
    int r, blocks = s->timeout < 0 && pysock__fd_blocks(s->fd);

    if (!c->deadline)
        c->deadline = pysock__deadline_in(c->timeout);
    for (;;) {
        pysock__fd_set_nonblocking(s->fd, 1);
        r = pysock__sys_connect(s->fd, &s->peer);
        if (blocks)
            pysock__fd_set_nonblocking(s->fd, 0);
        if (r != -EAGAIN || c->waits == PYSOCK__WAITS_NEVER)
            return r;
        backoff.deadline = pysock__deadline_in(PYSOCK__UNIX_RETRY);
        r = pysock__wait_asleep_locked(&backoff, 0);
        if (pysock__call_check_locked(c) < 0
            || (r == -EINTR && pysock__call_interrupted_locked(c) < 0))
            return 1;
        if (pysock__now() >= c->deadline)
            return -ETIMEDOUT;
    }
}

/* connect(2), with a wait if the call may. 0: connected; EINPROGRESS's failure: not yet. */
static int pysock__connect_kernel_locked(pysock__call *c)
{
    pysock__sock *s = c->s;
    int r;

    if (s->phase != PYSOCK__CONNECTING) {
        pysock_addr to = s->peer;
        s->peer.size = 0;
        if (pysock__call_audit_locked(c, "socket.connect", &to) < 0)
            return -1;
        if (s->phase != PYSOCK__NEW)
            return pysock__call_fail(c, -EALREADY); /* another thread was faster */
        s->peer = to;
        pysock__set_phase_locked(s, PYSOCK__CONNECTING);
    }
    if (s->family == AF_UNIX) {
        r = pysock__connect_unix_locked(c);
    } else {
        if (c->waits != PYSOCK__WAITS_FOREVER)
            pysock__fd_set_nonblocking(s->fd, 1); /* shared: others may have cleared it */
        pysock__enter_kernel_locked(s);
        r = pysock__sys_connect(s->fd, &s->peer);
        if (r == -ECONNABORTED) /* Linux: an earlier connect failed */
            r = pysock__sys_connect(s->fd, &s->peer);
        pysock__leave_kernel_locked(s);
    }
    if (r > 0 || pysock__call_check_locked(c) < 0) {
        if (s->phase == PYSOCK__CONNECTING)
            pysock__set_phase_locked(s, PYSOCK__NEW);
        return -1;
    }
    if (s->phase != PYSOCK__CONNECTING) /* it has ended meanwhile, in the reactor */
        return s->phase == PYSOCK__FAILED ? pysock__report_failed_locked(s) : 0;
    if (r == -EISCONN && s->type == SOCK_STREAM) {
        pysock__connect_apply_locked(s, 0);
        return pysock__call_fail(c, r);
    }
    if (r == -EINPROGRESS || r == -EINTR || r == -EALREADY) {
        if (r == -EINTR && pysock__call_interrupted_locked(c) < 0)
            return -1;
        if (c->waits != PYSOCK__WAITS_NEVER)
            return pysock__connect_wait_locked(c);
#ifndef PYSOCK_NO_SSL
        pysock__want_reactor_locked(s);
#endif
        return pysock__call_fail(c, r);
    }
    if (r == -EAGAIN || (r == -ETIMEDOUT && s->family == AF_UNIX)) { /* the backlog is full */
        pysock__set_phase_locked(s, PYSOCK__NEW);
        return r == -EAGAIN ? pysock__call_fail(c, r) : pysock__call_fail_timeout(c);
    }
    pysock__connect_apply_locked(s, r);
    return s->phase == PYSOCK__FAILED ? pysock__report_failed_locked(s) : 0;
}

/* Whether a connect still waits for this lookup. */
static int pysock__resolved_wanted_locked(const pysock__sock *s, const pysock__lookup *l)
{
    return s->lookup == l && s->phase == PYSOCK__RESOLVING;
}

/* Asks the audit hook of the socket's state about an address that a worker has looked up. */
static int pysock__resolved_denied(pysock__sock *s, pysock__lookup *l, const pysock_addr *addr)
{
    pysock_state *before;
    pysock_audit_event e;
    int denied, wanted;

    if (!pysock__load(&pysock__process.audited))
        return 0;
    pysock__lock(&s->lock);
    wanted = pysock__resolved_wanted_locked(s, l);
    if (wanted)
        pysock__add(&s->state->hooks, 1);
    pysock__unlock(&s->lock);
    if (!wanted)
        return 0;
    before = pysock_state_swap(s->state);
    memset(&e, 0, sizeof e);
    e.name = "socket.connect";
    e.socket = pysock__handle(s);
    e.addr = addr;
    e.family = s->family;
    e.type = s->type;
    e.proto = s->proto;
    denied = pysock__denied(&e);
    pysock_state_swap(before);
    pysock__state_less_one(s->state, &s->state->hooks);
    return denied;
}

/* Connects to the looked-up address without waiting. */
static void pysock__connect_resolved_locked(pysock__sock *s, const pysock_addr *addr)
{
    int err, blocks = s->timeout < 0 && pysock__fd_blocks(s->fd);

    s->peer = *addr;
    pysock__fd_set_nonblocking(s->fd, 1); /* the mode may have changed meanwhile */
    err = pysock__sys_connect(s->fd, &s->peer);
    if (blocks)
        pysock__fd_set_nonblocking(s->fd, 0);
    pysock__set_phase_locked(s, PYSOCK__CONNECTING);
    if (err != -EINPROGRESS && err != -EINTR)
        pysock__connect_apply_locked(s, err);
#ifndef PYSOCK_NO_SSL
    if (s->phase == PYSOCK__OPEN && s->wrap.ctx)
        pysock__connected_locked(s);
    pysock__want_reactor_locked(s);
#endif
}

/* On a worker: the name of a connect has been looked up. */
static void pysock__resolved(void *arg, pysock__lookup *l)
{
    pysock__sock *s = pysock__acquire_handle((uintptr_t)arg);
    int denied;

    if (!s)
        return;
    denied = !l->err && pysock__resolved_denied(s, l, &l->addrs.items[0]);
    pysock__lock(&s->lock);
    if (pysock__resolved_wanted_locked(s, l)) {
        s->lookup = NULL;
        pysock__lookup_release(l); /* the socket's; the worker holds its own */
        if (l->err)
            pysock__fault_gai(&s->fault, l->err, l->sys, "connect", l->host, l->host);
        else if (denied)
            pysock__fault_set(&s->fault, PYSOCK_OS_ERROR, EACCES, "EACCES",
                              "connect to %.200s: denied by the audit hook", l->host);
        if (l->err || denied)
            pysock__set_phase_locked(s, PYSOCK__FAILED);
        else
            pysock__connect_resolved_locked(s, &l->addrs.items[0]);
    }
    pysock__unlock_sock(s);
    pysock__release(s);
    pysock__run_deferred();
}

/* A call without a timeout looks the name up itself, without a worker thread. */
static int pysock__connect_name_here_locked(pysock__call *c, const char *host, int port)
{
    pysock__sock *s = c->s;
    pysock__addrs list = {NULL, 0, 0, 0};
    pysock_addr addr;
    int err, sys = 0;

    memset(&addr, 0, sizeof addr);
    pysock__unlock(&s->lock);
    err = pysock__resolve(host, port, s->family, s->type, &list, &sys);
    pysock__lock(&s->lock);
    if (err == 0)
        addr = list.items[0];
    pysock__free(list.items);
    if (pysock__call_check_locked(c) < 0)
        return -1;
    if (err)
        return pysock__fail_gai(err, sys, c->name, host);
    if (s->phase != PYSOCK__NEW)
        return pysock__call_fail(c, -EALREADY); /* another thread was faster */
    s->peer = addr;
    return pysock__connect_kernel_locked(c);
}

/* Otherwise a worker looks it up and begins to connect; the call waits for both if it may. */
static int pysock__connect_name_locked(pysock__call *c, const char *host, int port)
{
    pysock__sock *s = c->s;
    pysock__lookup *l;
    int r;

    l = pysock__lookup_new(host, port, s->family, s->type, pysock__resolved, (void *)s->handle);
    if (!l)
        return pysock__fail_memory(c->name);
    pysock__lookup_release(s->lookup);
    s->lookup = l;
    pysock__set_phase_locked(s, PYSOCK__RESOLVING);
    pysock__lookup_retain(l);
    pysock__unlock(&s->lock);
    pysock__lookup_start(l);
    pysock__lock(&s->lock);
    pysock__lookup_release(l);
    if (pysock__call_check_locked(c) < 0)
        return -1;
    if (c->waits == PYSOCK__WAITS_NEVER)
        return pysock__call_fail(c, -EINPROGRESS);
    r = pysock__connect_wait_locked(c);
    if (r < 0 && s->phase == PYSOCK__RESOLVING) {
        pysock__lookup_release(s->lookup); /* abandoned: its worker will see that */
        s->lookup = NULL;
        pysock__set_phase_locked(s, PYSOCK__NEW);
    }
    return r;
}

/* Asks the audit hook, then looks a name up and connects. */
static int pysock__connect_host_locked(pysock__call *c, const char *host, int port)
{
    pysock__sock *s = c->s;
    int r;

    if (pysock__load(&pysock__process.audited)) {
        pysock__unlock(&s->lock);
        r = pysock__audit_lookup(c->name, host, port, s->family, s->type);
        pysock__lock(&s->lock);
        if (r < 0 || pysock__call_check_locked(c) < 0)
            return -1;
        if (s->phase != PYSOCK__NEW)
            return pysock__call_fail(c, -EALREADY);
    }
    return c->waits == PYSOCK__WAITS_FOREVER ? pysock__connect_name_here_locked(c, host, port)
                                             : pysock__connect_name_locked(c, host, port);
}

/* 0: a connect may begin; 1: continue the one that the kernel has begun. */
static int pysock__connect_allowed_locked(pysock__call *c)
{
    pysock__sock *s = c->s;

    switch (s->phase) {
    case PYSOCK__NEW: return 0;
    case PYSOCK__CONNECTING: return pysock__is_tls_locked(s) ? pysock__call_fail(c, -EALREADY) : 1;
    case PYSOCK__FAILED: return pysock__report_failed_locked(s);
    case PYSOCK__BROKEN: return pysock__raise(&s->fault);
    case PYSOCK__RESOLVING:
    case PYSOCK__HANDSHAKING: return pysock__call_fail(c, -EALREADY);
    default: /* a listening socket too, as on Linux */ return pysock__call_fail(c, -EISCONN);
    }
}

/* Once connected: begins TLS if the socket is wrapped. */
static int pysock__connect_start_tls_locked(pysock__call *c)
{
#ifndef PYSOCK_NO_SSL
    pysock__sock *s = c->s;
    int r;

    if (!s->wrap.ctx && s->phase != PYSOCK__HANDSHAKING)
        return 0;
    if (pysock__wrap_of(s)->later) {
        if (s->phase == PYSOCK__OPEN)
            pysock__handshake_prepare_locked(s, "ssl_do_handshake");
        return 0;
    }
    r = pysock__start_tls_locked(c);
    return r > 0 ? pysock__call_fail(c, -EINPROGRESS) : r;
#else
    (void)c;
    return 0;
#endif
}

/* connect() to AF_UNSPEC: resets the socket's peer address. */
static int pysock__disconnect_locked(pysock__call *c)
{
    pysock_addr none = c->s->peer;
    int r = pysock__call_audit_locked(c, "socket.connect", &none);

    if (r < 0)
        return -1;
    r = pysock__sys_connect(c->s->fd, &none);
    if (r == 0)
        c->s->peer.size = 0;
    return r < 0 ? pysock__call_fail(c, r) : 0;
}

static int pysock__connect_call(pysock__call *c, const pysock_addr *addr, const char *host,
                                int port)
{
    pysock__sock *s = c->s;
    pysock__addrs list = {NULL, 0, 0, 0};
    int r = pysock__connect_allowed_locked(c);

    if (!pysock__is_tls_locked(s) && pysock__nonblock_honoured(c))
        c->waits = PYSOCK__WAITS_NEVER;
    if (r < 0)
        return -1;
    if (r == 0 && addr) {
        s->peer = *addr;
        if (addr->u.sa.sa_family == AF_UNSPEC)
            return pysock__disconnect_locked(c);
    } else if (r == 0 && s->family == AF_UNIX) {
        if (pysock__unix_addr(&s->peer, host ? host : "", c->name) < 0)
            return -1;
    } else if (r == 0) {
        r = pysock__resolve_numeric(host && host[0] ? host : "localhost", port, s->family, s->type,
                                    &list);
        if (r == 0 && list.count)
            s->peer = list.items[0];
        pysock__free(list.items);
        if (list.out_of_memory)
            return pysock__fail_memory(c->name);
        if (r) {
            r = pysock__connect_host_locked(c, host && host[0] ? host : "localhost", port);
            return r < 0 ? r : pysock__connect_start_tls_locked(c);
        }
    }
    r = pysock__connect_kernel_locked(c);
    return r < 0 ? r : pysock__connect_start_tls_locked(c);
}

PYSOCKDEF int pysock_connect(pysock *s, const char *host, int port)
{
    pysock__call c;
    int r;

    if (pysock__call_begin(&c, s, "connect") < 0)
        return -1;
    r = pysock__check_family("connect", c.s->family);
    if (r == 0 && c.s->family != AF_UNIX)
        r = pysock__check_host("connect", host, port);
    if (r == 0)
        r = pysock__connect_call(&c, NULL, host, port);
    pysock__call_end(&c);
    return r;
}

PYSOCKDEF int pysock_connect_addr(pysock *s, const pysock_addr *addr)
{
    pysock__call c;
    int r;

    if (!addr || !addr->size || addr->size > sizeof addr->u)
        return pysock__fail_value("connect", "the address is NULL or empty");
    if (pysock__call_begin(&c, s, "connect") < 0)
        return -1;
    r = pysock__connect_call(&c, addr, NULL, 0);
    pysock__call_end(&c);
    return r;
}

PYSOCKDEF int pysock_connect_ex(pysock *s, const char *host, int port)
{
    if (pysock_connect(s, host, port) == 0)
        return 0;
    return pysock__errno_of(pysock__last.kind, pysock__last.code);
}

PYSOCKDEF int pysock_bind_addr(pysock *s, const pysock_addr *addr)
{
    char text[PYSOCK_ADDR_STRLEN];
    pysock__call c;
    int r;

    if (!addr || !addr->size || addr->size > sizeof addr->u)
        return pysock__fail_value("bind", "the address is NULL or empty");
    if (pysock__call_begin(&c, s, "bind") < 0)
        return -1;
    r = pysock__call_audit_locked(&c, "socket.bind", addr);
    if (r == 0 && (r = pysock__sys_bind(c.s->fd, addr)) < 0) {
        pysock_addr_format(addr, text, sizeof text);
        r = pysock__fail_os(r, "bind", text);
    }
    pysock__call_end(&c);
    return r;
}

PYSOCKDEF int pysock_bind(pysock *s, const char *host, int port)
{
    pysock__call c;
    pysock_addr addr;
    int family, type;

    if (pysock__call_begin(&c, s, "bind") < 0)
        return -1;
    family = c.s->family;
    type = c.s->type;
    pysock__call_end(&c);
    if (pysock__local_addr("bind", host, port, family, type, &addr) < 0)
        return -1;
    return pysock_bind_addr(s, &addr);
}

PYSOCKDEF int pysock_listen(pysock *s, int backlog)
{
    pysock__call c;
    int r;

    if (pysock__call_begin(&c, s, "listen") < 0)
        return -1;
    r = pysock__call_audit_locked(&c, "socket.listen", NULL);
    if (r == 0 && (r = pysock__sys_listen(c.s->fd, backlog < 0 ? 128 : backlog)) < 0)
        r = pysock__call_fail(&c, r);
    if (r == 0 && c.s->phase == PYSOCK__NEW)
        pysock__set_phase_locked(c.s, PYSOCK__LISTENING);
    pysock__call_end(&c);
    return r;
}

/* accept(2): a descriptor, or -1. It polls first, because another process that shares the socket
   may have cleared O_NONBLOCK. */
static int pysock__accept_kernel_locked(pysock__call *c, pysock_addr *peer)
{
    pysock__sock *s = c->s;
    int r, listens = s->phase == PYSOCK__LISTENING;
    int waits = listens && c->waits != PYSOCK__WAITS_NEVER && !pysock__nonblock_honoured(c);

    for (;;) {
        if (waits && pysock__wait_kernel_locked(c, POLLIN) < 0)
            return -1;
        if (waits && !c->reported)
            continue; /* woken, but not by a connection */
        pysock__enter_kernel_locked(s);
        r = listens && !waits ? pysock__poll_in(s->fd, 0) : 1;
        if (r > 0)
            r = pysock__sys_accept(s->fd, peer);
        else if (r == 0)
            r = -EAGAIN;
        pysock__leave_kernel_locked(s);
        if (r >= 0)
            return r;
        if (r == -EAGAIN && waits)
            continue; /* another thread was faster */
        if (r == -EINVAL && pysock__call_check_locked(c) == 0)
            return pysock__fail(PYSOCK_OS_ERROR, EINVAL, "EINVAL",
                                "accept: the socket does not listen; call pysock_listen() first");
        if (r != -ECONNABORTED && pysock__retry_locked(c, r, POLLIN) < 0)
            return -1;
    }
}

/* Wraps an accepted socket as its listener is wrapped. 0 or a failure. */
static int pysock__accept_tls_locked(pysock__call *c, pysock__sock *child)
{
#ifndef PYSOCK_NO_SSL
    pysock__sock *s = c->s;
    int r = 0;

    if (!s->wrap.ctx)
        return 0;
    pysock__lock(&child->lock); /* lock order: the listener's, then the child's */
    if (child->phase == PYSOCK__NEW) {
        child->wrap = s->wrap; /* a server's: it has no session and no host */
        pysock__context_retain(child->wrap.ctx);
        child->driver = s->driver;
        pysock__set_phase_locked(child, PYSOCK__OPEN);
        r = pysock__handshake_begin_locked(child, c->name);
    }
    pysock__unlock(&child->lock);
    return r;
#else
    (void)c, (void)child;
    return 0;
#endif
}

/* Makes a socket of an accepted descriptor, with TLS if the listener has it. */
static pysock *pysock__accept_child_locked(pysock__call *c, const pysock__maker *m, int fd,
                                           const pysock_addr *peer)
{
    pysock__sock *s = c->s;
    pysock__sock *child = pysock__sock_take(m, fd, s->family, s->type, s->proto);
    pysock__fault fault;
    int r;

    if (!child)
        return NULL;
    pysock__lock(&child->lock);
    child->peer = *peer;
    pysock__unlock(&child->lock);
    r = pysock__accept_tls_locked(c, child);
    if (r == 0)
        return pysock__publish(child, PYSOCK__OPEN);
    fault = pysock__last;
    pysock__close_handle(pysock__publish(child, PYSOCK__OPEN), 0);
    pysock__raise(&fault);
    return NULL;
}

/* Asks the audit hook whether the accepted connection may become a socket. */
static int pysock__accept_audit_locked(pysock__call *c, const pysock__maker *m)
{
    int r;

    if (!pysock__load(&pysock__process.audited))
        return 0;
    pysock__unlock(&c->s->lock);
    r = pysock__audit_new(m, c->s->family, c->s->type, c->s->proto);
    pysock__lock(&c->s->lock);
    return r < 0 ? -1 : pysock__call_check_locked(c);
}

PYSOCKDEF pysock *pysock_accept(pysock *s, pysock_addr *peer)
{
    pysock__maker m = pysock__maker_begin("accept");
    pysock__call c;
    pysock_addr addr;
    pysock *child = NULL;
    int fd;

    memset(&addr, 0, sizeof addr);
    if (peer)
        memset(peer, 0, sizeof *peer);
    if (pysock__call_begin(&c, s, "accept") < 0)
        return NULL;
    pysock__refresh_phase_locked(c.s);
    fd = pysock__accept_kernel_locked(&c, &addr);
    if (fd >= 0 && pysock__accept_audit_locked(&c, &m) < 0)
        pysock__fd_close(fd);
    else if (fd >= 0)
        child = pysock__accept_child_locked(&c, &m, fd, &addr);
    pysock__call_end(&c);
    if (child && peer)
        *peer = addr;
    return child;
}

PYSOCKDEF int pysock_accept_fd(pysock *s, pysock_addr *peer)
{
    pysock__call c;
    pysock_addr addr;
    int fd = -1;

    memset(&addr, 0, sizeof addr);
    if (pysock__call_begin(&c, s, "accept") < 0)
        return -1;
    pysock__refresh_phase_locked(c.s);
    if (pysock__is_tls_locked(c.s))
        pysock__fail(PYSOCK_OS_ERROR, ENOTSUP, "ENOTSUP",
                     "accept: a bare descriptor cannot carry TLS; use pysock_accept()");
    else
        fd = pysock__accept_kernel_locked(&c, &addr);
    pysock__call_end(&c);
    if (fd >= 0 && peer)
        *peer = addr;
    return fd;
}

/* Socket API: closing. */

PYSOCKDEF int pysock_shutdown(pysock *s, int how)
{
    pysock__progress p;
    pysock__call c;
    int r = 0;

    if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR)
        return pysock__fail_value("shutdown", "how is not SHUT_RD, SHUT_WR or SHUT_RDWR");
    if (pysock__call_begin(&c, s, "shutdown") < 0)
        return -1;
#ifndef PYSOCK_NO_SSL
    if (how != SHUT_RD && c.s->phase == PYSOCK__SECURE && !c.s->write_error) {
        if (!pysock__queue_empty(&c.s->queue) && c.waits != PYSOCK__WAITS_NEVER)
            r = pysock__flush_wait_locked(&c);
        if (r == 0 && c.s->phase == PYSOCK__SECURE && pysock__queue_empty(&c.s->queue)
            && !c.s->tls->wrap.no_close_notify) /* another thread may have unwrapped meanwhile */
            pysock__tls_close_notify(c.s->tls);
    }
#endif
    if (r == 0 && how != SHUT_RD && pysock__output_waits_locked(c.s)) {
        c.s->shut_when_flushed = 1;
        p = pysock__flush_or_kick_locked(c.s);
        if (p != PYSOCK__DONE && p != PYSOCK__STOPPED && c.waits != PYSOCK__WAITS_NEVER)
            pysock__flush_wait_locked(&c); /* if it fails, the reactor goes on */
        r = how == SHUT_RDWR ? pysock__sys_shutdown(c.s->fd, SHUT_RD) : 0;
    } else if (r == 0) {
        r = pysock__sys_shutdown(c.s->fd, how);
    }
    c.s->read_shut |= r == 0 && how != SHUT_WR;
    if (how != SHUT_RD && c.s->output_lost)
        r = pysock__call_fail_output(&c);
    else if (r < 0 && r != -1)
        r = pysock__call_fail(&c, r);
    pysock__call_end(&c);
    return r;
}

PYSOCKDEF int pysock_close(pysock *handle)
{
    int r;

    pysock__fork_check();
    r = pysock__close_handle(handle, 1);
    pysock__run_deferred();
    return r;
}

/* Resets the connection: at once, or, while a handshake step may be sending, when the descriptor
   is closed. */
static void pysock__reset_locked(pysock__sock *s)
{
#ifndef PYSOCK_NO_SSL
    if (s->hs_busy && !s->kernel_waits) {
        pysock__sys_set_linger(s->fd, 1, 0);
        return;
    }
#endif
    pysock__sys_reset(s->fd);
}

PYSOCKDEF int pysock_abort(pysock *handle)
{
    pysock__sock *s = handle ? pysock__acquire_handle((uintptr_t)handle) : NULL;
    int mine;

    pysock__fork_check();
    if (!s)
        return 0;
    pysock__lock_to_close(s);
    mine = s->phase < PYSOCK__CLOSING;
    if (mine && s->fd >= 0 && s->generation == pysock__fork_generation)
        pysock__reset_locked(s);
    if (mine) {
        pysock__queue_drop(&s->queue);
        pysock__close_locked(s, 0);
    } else if (s->phase == PYSOCK__CLOSING) { /* ends a close that lingers */
        pysock__reset_locked(s);
        s->close_deadline = 0;
        pysock__kick(&s->watch);
    }
    pysock__unlock_sock(s);
    if (mine)
        pysock__release(s); /* the user's reference */
    pysock__release(s);
    pysock__run_deferred();
    return 0;
}

/* Waits, if the call may, until nothing is queued and no handshake step is under way. */
static int pysock__detach_wait_locked(pysock__call *c)
{
    pysock__sock *s = c->s;
    pysock__progress p;

#ifndef PYSOCK_NO_SSL
    while (s->hs_busy && !s->kernel_waits)
        if ((c->waits == PYSOCK__WAITS_NEVER ? pysock__fail_again()
                                             : pysock__await_locked(c, PYSOCK__WAIT_NOTIFY))
            < 0)
            return -1;
#endif
    if (pysock__output_waits_locked(s)) {
        p = pysock__flush_locked(s);
        if (p != PYSOCK__DONE && p != PYSOCK__STOPPED && c->waits == PYSOCK__WAITS_NEVER)
            return pysock__fail_again();
        if (p != PYSOCK__DONE && p != PYSOCK__STOPPED && pysock__flush_wait_locked(c) < 0
            && !s->output_lost)
            return -1;
    }
    if (s->output_lost && !s->loss_reported)
        return pysock__call_fail_output(c); /* once: a second detach succeeds */
    if (s->kernel_waits)
        return pysock__call_fail(c, -EBUSY);
    return 0;
}

PYSOCKDEF int pysock_detach(pysock *handle)
{
    pysock__call c;
    int fd = -1;

    if (pysock__call_begin(&c, handle, "detach") < 0)
        return -1;
    if (c.s->fd < 0) {
        pysock__call_fail(&c, -ENOTSUP); /* memory BIOs */
    } else if (pysock__detach_wait_locked(&c) == 0) {
        fd = c.s->fd;
        c.s->detached = 1;
        if (!PYSOCK__KERNEL_SLEEPS && c.s->timeout < 0 && !c.s->came_nonblocking)
            pysock__fd_set_nonblocking(fd, 0); /* as on other platforms */
        pysock__close_locked(c.s, 0);
        pysock__forget_fd(c.s);
    }
    pysock__call_end(&c);
    if (fd >= 0)
        pysock__release(c.s); /* the user's reference */
    return fd;
}

/* Socket API: properties. */

PYSOCKDEF int pysock_fileno(pysock *s)
{
    pysock__call c;
    int fd;

    if (pysock__call_begin(&c, s, "fileno") < 0)
        return -1;
    fd = c.s->fd;
    if (fd < 0)
        fd = pysock__call_fail(&c, -ENOTSUP); /* memory BIOs */
    pysock__call_end(&c);
    return fd;
}

static int pysock__get_int(pysock *s, const char *name, size_t offset)
{
    pysock__call c;
    int value;

    if (pysock__call_begin(&c, s, name) < 0)
        return -1;
    memcpy(&value, (char *)c.s + offset, sizeof value);
    pysock__call_end(&c);
    return value;
}

PYSOCKDEF int pysock_family(pysock *s)
{
    return pysock__get_int(s, "family", offsetof(pysock__sock, family));
}

PYSOCKDEF int pysock_type(pysock *s)
{
    return pysock__get_int(s, "type", offsetof(pysock__sock, type));
}

PYSOCKDEF int pysock_proto(pysock *s)
{
    return pysock__get_int(s, "proto", offsetof(pysock__sock, proto));
}

PYSOCKDEF int pysock_get_inheritable(pysock *s)
{
    pysock__call c;
    int r;

    if (pysock__call_begin(&c, s, "get_inheritable") < 0)
        return 0;
    r = pysock__fd_inheritable(c.s->fd);
    if (r < 0)
        pysock__call_fail(&c, r);
    pysock__call_end(&c);
    return r > 0;
}

PYSOCKDEF int pysock_set_inheritable(pysock *s, int inheritable)
{
    pysock__call c;
    int r;

    if (pysock__call_begin(&c, s, "set_inheritable") < 0)
        return -1;
    r = pysock__fd_set_inheritable(c.s->fd, inheritable);
    if (r < 0)
        r = pysock__call_fail(&c, r);
    pysock__call_end(&c);
    return r;
}

PYSOCKDEF pysock *pysock_from_fileno(int fd)
{
    pysock__sock *s = pysock__acquire_fd(fd);
    pysock *handle = NULL;

    if (!s)
        return NULL;
    pysock__lock(&s->lock);
    if (s->phase < PYSOCK__CLOSING)
        handle = pysock__handle(s);
    pysock__unlock_sock(s);
    pysock__release(s);
    return handle;
}

static int pysock__get_name(pysock *s, pysock_addr *addr, const char *name,
                            int (*get)(int fd, pysock_addr *addr))
{
    pysock__call c;
    int r;

    if (!addr)
        return pysock__fail_value(name, "addr is NULL");
    if (pysock__call_begin(&c, s, name) < 0)
        return -1;
    r = get(c.s->fd, addr);
    if (r < 0)
        r = pysock__call_fail(&c, r);
    pysock__call_end(&c);
    return r;
}

PYSOCKDEF int pysock_getsockname(pysock *s, pysock_addr *addr)
{
    return pysock__get_name(s, addr, "getsockname", pysock__sys_getsockname);
}

PYSOCKDEF int pysock_getpeername(pysock *s, pysock_addr *addr)
{
    return pysock__get_name(s, addr, "getpeername", pysock__sys_getpeername);
}

static int pysock__settimeout(pysock *s, double seconds, const char *what)
{
    int64_t ns = pysock__timeout_ns(seconds, what);
    pysock__call c;
    int r;

    if (ns == -2)
        return -1;
    if (pysock__call_begin(&c, s, what) < 0)
        return -1;
    if (c.s->fd < 0)
        r = -ENOTSUP; /* memory BIOs */
    else
        r = pysock__fd_set_mode(c.s->fd, ns);
    if (r < 0) {
        r = pysock__call_fail(&c, r);
    } else {
        c.s->timeout = ns;
        c.s->came_nonblocking = 0;
#ifndef PYSOCK_NO_SSL
        pysock__want_reactor_locked(c.s);
#endif
    }
    pysock__call_end(&c);
    return r;
}

PYSOCKDEF int pysock_settimeout(pysock *s, double timeout_seconds)
{
    return pysock__settimeout(s, timeout_seconds, "settimeout");
}

PYSOCKDEF int pysock_set_userdata(pysock *s, void *userdata)
{
    pysock__call c;

    if (pysock__call_begin(&c, s, "set_userdata") < 0)
        return -1;
    c.s->userdata = userdata;
    pysock__call_end(&c);
    return 0;
}

PYSOCKDEF void *pysock_userdata(pysock *s)
{
    pysock__call c;
    void *userdata;

    if (pysock__call_begin(&c, s, "userdata") < 0)
        return NULL;
    userdata = c.s->userdata;
    pysock__call_end(&c);
    return userdata;
}

PYSOCKDEF int pysock_obey_nonblock(pysock *s, int on)
{
    pysock__call c;

    if (pysock__call_begin(&c, s, "obey_nonblock") < 0)
        return -1;
    c.s->honours_nonblock = on != 0;
    pysock__call_end(&c);
    return 0;
}

PYSOCKDEF int pysock_setblocking(pysock *s, int on)
{
    return pysock__settimeout(s, on ? PYSOCK_NO_TIMEOUT : 0.0, "setblocking");
}

PYSOCKDEF double pysock_gettimeout(pysock *s)
{
    pysock__call c;
    int64_t ns;

    if (pysock__call_begin(&c, s, "gettimeout") < 0)
        return PYSOCK_NO_TIMEOUT;
    ns = c.s->timeout;
    pysock__call_end(&c);
    return pysock__timeout_seconds(ns);
}

PYSOCKDEF int pysock_getblocking(pysock *s)
{
    pysock__call c;
    int blocking;

    if (pysock__call_begin(&c, s, "getblocking") < 0)
        return 0;
    blocking = c.s->timeout != 0;
    pysock__call_end(&c);
    return blocking;
}

PYSOCKDEF int pysock_setdefaulttimeout(double timeout_seconds)
{
    int64_t ns = pysock__timeout_ns(timeout_seconds, "setdefaulttimeout");

    if (ns == -2)
        return -1;
    pysock__lock(&pysock__process.lock);
    pysock__state()->default_timeout = ns;
    pysock__unlock(&pysock__process.lock);
    return 0;
}

PYSOCKDEF double pysock_getdefaulttimeout(void)
{
    int64_t ns;

    pysock__lock(&pysock__process.lock);
    ns = pysock__state()->default_timeout;
    pysock__unlock(&pysock__process.lock);
    return pysock__timeout_seconds(ns);
}

PYSOCKDEF int pysock_setsockopt(pysock *s, int level, int name, const void *value, socklen_t size)
{
    pysock__call c;
    int r;

    if (pysock__call_begin(&c, s, "setsockopt") < 0)
        return -1;
    r = pysock__sys_setsockopt(c.s->fd, level, name, value, size);
    if (r < 0)
        r = pysock__call_fail(&c, r);
    pysock__call_end(&c);
    return r;
}

PYSOCKDEF int pysock_setsockopt_int(pysock *s, int level, int name, int value)
{
    return pysock_setsockopt(s, level, name, &value, sizeof value);
}

PYSOCKDEF int pysock_getsockopt(pysock *s, int level, int name, void *value, socklen_t *size)
{
    pysock__call c;
    int r, reported;

    if (!value || !size)
        return pysock__fail_value("getsockopt", value ? "size is NULL" : "value is NULL");
    if (pysock__call_begin(&c, s, "getsockopt") < 0)
        return -1;
    if (level == SOL_SOCKET && name == SO_ERROR && c.s->phase == PYSOCK__CONNECTING)
        pysock__connect_check_locked(c.s); /* the kernel reports an error only once */
    if (level == SOL_SOCKET && name == SO_ERROR && *size >= sizeof(int)
        && (c.s->phase == PYSOCK__FAILED || c.s->phase == PYSOCK__BROKEN)) {
        reported = pysock__errno_of(c.s->fault.kind, c.s->fault.code); /* already taken */
        memcpy(value, &reported, sizeof reported);
        *size = sizeof reported;
        if (c.s->phase == PYSOCK__FAILED)
            pysock__set_phase_locked(c.s, PYSOCK__NEW);
        r = 0;
    } else {
        r = pysock__sys_getsockopt(c.s->fd, level, name, value, size);
        if (r < 0)
            r = pysock__call_fail(&c, r);
    }
    pysock__call_end(&c);
    return r;
}

PYSOCKDEF int pysock_getsockopt_int(pysock *s, int level, int name, int *value)
{
    socklen_t len = sizeof *value;

    return pysock_getsockopt(s, level, name, value, &len);
}

/* ---- >>ssl-api ----
   Python's ssl as it extends a socket: wrapping, the handshake, properties of the connection; and
   the module's functions. Locks: the socket's, then a context's. */

#ifndef PYSOCK_NO_SSL

/* SSL API: wrapping. */

/* 1 if the socket is to be the server. */
static int pysock__wrap_server(const pysock_ssl_context *ctx,
                               const pysock_ssl_wrap_options *options)
{
    if (ctx->protocol == PYSOCK_PROTOCOL_TLS_CLIENT || ctx->protocol == PYSOCK_PROTOCOL_TLS_SERVER)
        return ctx->protocol == PYSOCK_PROTOCOL_TLS_SERVER;
    return options->server_side != 0;
}

/* No empty label (except the root's, after a final dot), no white space, at most 255 bytes. */
static int pysock__host_fits(const char *host)
{
    size_t n = strlen(host);

    return n && n <= 255 && host[0] != '.' && !strstr(host, "..") && !strpbrk(host, " \t\r\n\v\f");
}

/* Reports at once what would make every handshake fail. */
static int pysock__wrap_check(pysock_ssl_context *ctx, const pysock_ssl_wrap_options *options,
                              const char *what)
{
    const char *host = options->server_hostname;
    int client = !pysock__wrap_server(ctx, options), needs_host, has_identity;

    pysock__lock(&ctx->lock);
    needs_host = client && ctx->check_hostname && !options->insecure_no_check_hostname;
    has_identity = ctx->identities[PYSOCK__RSA] || ctx->identities[PYSOCK__EC] || ctx->sni_callback;
    pysock__unlock(&ctx->lock);
    if (client && options->server_side && ctx->protocol == PYSOCK_PROTOCOL_TLS_CLIENT)
        return pysock__fail_value(what, "server_side is set, but the context is a client's");
    if (options->session && !client)
        return pysock__fail_value(what, "session is for clients only; a server finds "
                                        "its sessions by itself");
    if (options->session && options->session->context != ctx->serial)
        return pysock__fail_value(what, "the session belongs to a different context");
    if (host && !client)
        return pysock__fail_value(what,
                                  "server_hostname is for clients only, and this context is a "
                                  "server's; a client's is made for PYSOCK_SERVER_AUTH");
    if (host && pysock__host_advice(host))
        return pysock__fail(PYSOCK_VALUE_ERROR, EINVAL, "EINVAL", "%s: server_hostname '%.200s'%s",
                            what, host, pysock__host_advice(host));
    if (host && !pysock__host_fits(host))
        return pysock__fail_value(what,
                                  "server_hostname is empty, is longer than 255 bytes, or has "
                                  "an empty label or white space");
    if (needs_host && !host)
        return pysock__fail_value(what, "server_hostname is needed because the context's "
                                        "check_hostname is on");
    if (!client && !has_identity && !options->no_handshake_on_connect)
        return pysock__fail(PYSOCK_SSL_ERROR, 0, "NO_CERTIFICATE_SET",
                            "%s: the server's context has no certificate; give it one with "
                            "pysock_ssl_load_cert_chain() (a client's context is made for "
                            "PYSOCK_SERVER_AUTH)",
                            what);
    return 0;
}

/* Whether the socket can be wrapped now. Sends queued plaintext first. 0 or a failure. */
static int pysock__wrap_allowed_locked(pysock__call *c, int server)
{
    pysock__sock *s = c->s;

    if (s->type != SOCK_STREAM)
        return pysock__fail_value(c->name, "only stream sockets can carry TLS");
    pysock__refresh_phase_locked(s);
    if (s->tls || (s->wrap.ctx && s->phase == PYSOCK__LISTENING))
        return pysock__fail_value(c->name, "the socket is already wrapped in TLS");
    if (pysock__load(&s->files_unread))
        return pysock__fail_value(c->name,
                                  "a file made of this socket holds unread input that came in "
                                  "clear: read or close it first, and do not take it for the "
                                  "peer's words under TLS");
    if (s->phase == PYSOCK__LISTENING && !server)
        return pysock__fail_value(c->name, "a listening socket needs a server's context "
                                           "(PYSOCK_CLIENT_AUTH)");
    if (s->phase == PYSOCK__CONNECTING)
        pysock__connect_check_locked(s); /* it may have succeeded or failed */
    if (s->phase == PYSOCK__FAILED)
        return pysock__report_failed_locked(s);
    if (pysock__queue_empty(&s->queue))
        return 0;
    if (c->waits == PYSOCK__WAITS_NEVER)
        return pysock__fail_again();
    return pysock__flush_wait_locked(c) < 0 ? -1 : pysock__wrap_allowed_locked(c, server);
}

/* A copy of the name as certificates and SNI have it: internationalized labels in ASCII. NULL with
   an error. */
static char *pysock__wrap_host(const char *name)
{
    char ascii[256];
    char *host;

    if (pysock_idna_encode(name, ascii, sizeof ascii) < 0)
        return NULL;
    host = pysock__strdup(ascii);
    if (!host)
        pysock__fail_memory("ssl_wrap_socket");
    return host;
}

/* Keeps what a handshake will need. 0 or a failure. */
static int pysock__wrap_take_locked(pysock__sock *s, pysock_ssl_context *ctx,
                                    const pysock_ssl_wrap_options *options)
{
    char *host = NULL;

    if (options->server_hostname && !(host = pysock__wrap_host(options->server_hostname)))
        return -1;
    pysock__wrap_drop(&s->wrap); /* an earlier wrap that was not used */
    s->wrap.ctx = pysock__context_retain(ctx);
    s->wrap.session = pysock_ssl_session_retain(options->session);
    s->wrap.host = host;
    s->wrap.server = pysock__wrap_server(ctx, options);
    s->wrap.later = options->no_handshake_on_connect;
    s->wrap.raise_ragged = options->raise_ragged_eofs;
    s->wrap.unchecked_host = options->insecure_no_check_hostname && !s->wrap.server;
    s->wrap.half_close = options->half_close;
    s->wrap.no_close_notify = options->no_close_notify;
    s->driver =
        options->caller_drives || s->bio_in ? PYSOCK__CALLER_DRIVES : PYSOCK__REACTOR_DRIVES;
    return 0;
}

static int pysock__wrap_locked(pysock__call *c, pysock_ssl_context *ctx,
                               const pysock_ssl_wrap_options *options)
{
    pysock__sock *s = c->s;
    int r;

    if (pysock__wrap_allowed_locked(c, pysock__wrap_server(ctx, options)) < 0
        || pysock__wrap_take_locked(s, ctx, options) < 0)
        return -1;
    if (s->phase == PYSOCK__NEW || s->phase == PYSOCK__LISTENING)
        return 0;
    if (s->phase != PYSOCK__OPEN && c->waits == PYSOCK__WAITS_NEVER) {
        pysock__want_reactor_locked(s);
        return 0;
    }
    if (s->phase != PYSOCK__OPEN && pysock__connect_wait_locked(c) < 0)
        return -1;
    if (pysock__wrap_of(s)->later) {
        if (s->phase == PYSOCK__OPEN)
            pysock__handshake_prepare_locked(s, "ssl_do_handshake");
        return 0;
    }
    r = pysock__start_tls_locked(c);
    return r > 0 ? 0 : r;
}

PYSOCKDEF int pysock_ssl_wrap_socket_ex(pysock *s, pysock_ssl_context *ctx,
                                        const pysock_ssl_wrap_options *options)
{
    pysock_ssl_wrap_options o;
    pysock__call c;
    int r;

    if (!ctx)
        return pysock__fail_value("ssl_wrap_socket", "ctx is NULL");
    if (pysock__take_options(&o, sizeof o, options, "ssl_wrap_socket",
                             "PYSOCK_SSL_WRAP_OPTIONS_INIT")
        < 0)
        return -1;
    if (pysock__call_begin(&c, s, "ssl_wrap_socket") < 0)
        return -1;
    r = pysock__wrap_check(ctx, &o, c.name);
    if (r == 0)
        r = pysock__wrap_locked(&c, ctx, &o);
    pysock__call_end(&c);
    return r;
}

PYSOCKDEF int pysock_ssl_wrap_socket(pysock *s, pysock_ssl_context *ctx,
                                     const char *server_hostname)
{
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;

    options.server_hostname = server_hostname;
    return pysock_ssl_wrap_socket_ex(s, ctx, &options);
}

PYSOCKDEF pysock *pysock_ssl_wrap_bio(pysock_ssl_context *ctx, pysock_bio *incoming,
                                      pysock_bio *outgoing, const pysock_ssl_wrap_options *options)
{
    pysock__maker m = pysock__maker_begin("ssl_wrap_bio");
    pysock_ssl_wrap_options o = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    pysock__fault fault;
    pysock__sock *s;
    pysock *handle;
    int r;

    if (!ctx || !incoming || !outgoing) {
        pysock__fail_value("ssl_wrap_bio", ctx ? "incoming or outgoing is NULL" : "ctx is NULL");
        return NULL;
    }
    if (options
        && pysock__take_options(&o, sizeof o, options, "ssl_wrap_bio",
                                "PYSOCK_SSL_WRAP_OPTIONS_INIT")
               < 0)
        return NULL;
    if (pysock__wrap_check(ctx, &o, "ssl_wrap_bio") < 0)
        return NULL;
    s = pysock__sock_new(&m, -1, AF_UNSPEC, SOCK_STREAM, 0);
    if (!s)
        return NULL;
    pysock__lock(&s->lock);
    s->timeout = 0;
    s->bio_in = pysock_bio_retain(incoming);
    s->bio_out = pysock_bio_retain(outgoing);
    pysock__set_phase_locked(s, PYSOCK__OPEN);
    r = pysock__wrap_take_locked(s, ctx, &o);
    if (r == 0 && o.no_handshake_on_connect)
        pysock__handshake_prepare_locked(s, "ssl_do_handshake");
    else if (r == 0)
        r = pysock__handshake_begin_locked(s, "ssl_wrap_bio");
    pysock__unlock(&s->lock);
    handle = pysock__publish(s, PYSOCK__OPEN);
    if (r == 0)
        return handle;
    fault = pysock__last;
    pysock__close_handle(handle, 0);
    pysock__raise(&fault);
    return NULL;
}

static int pysock__fail_not_tls(const char *what)
{
    return pysock__fail_value(what,
                              "the socket is not wrapped in TLS; see pysock_ssl_wrap_socket()");
}

PYSOCKDEF int pysock_ssl_do_handshake(pysock *s)
{
    pysock__call c;
    int r, goes_on;

    if (pysock__call_begin(&c, s, "ssl_do_handshake") < 0)
        return -1;
    goes_on = c.waits == PYSOCK__WAITS_NEVER
              && !c.s->bio_in; /* between memory BIOs nothing goes on by itself */
    if (goes_on && c.s->driver == PYSOCK__CALLER_DRIVES) {
        if (c.s->phase == PYSOCK__CONNECTING)
            pysock__connect_check_locked(c.s);
        pysock__connected_locked(c.s);
        pysock__step_of_caller_locked(&c);
    }
    if (!pysock__is_tls_locked(c.s)) {
        r = pysock__fail_not_tls(c.name);
    } else if (goes_on
               && (c.s->phase == PYSOCK__HANDSHAKING || c.s->phase == PYSOCK__RESOLVING
                   || c.s->phase == PYSOCK__CONNECTING)) {
        pysock__want_reactor_locked(c.s);
        c.s->hs_asked = c.s->driver == PYSOCK__CALLER_DRIVES;
        r = pysock__call_fail(&c, -EINPROGRESS);
    } else {
        c.s->hs_asked = 0;
        r = pysock__ensure_established_locked(&c);
    }
    pysock__call_end(&c);
    return r;
}

/* Removes TLS: the socket is plain again. Over memory BIOs it stays TLS, at its end. */
static void pysock__unwrapped_locked(pysock__sock *s)
{
    if (s->bio_in) {
        pysock__set_phase_locked(s, PYSOCK__SECURE);
        return;
    }
    pysock__tls_free(s->tls);
    s->tls = NULL;
    s->input_end = PYSOCK__GOING_ON;
    pysock__set_phase_locked(s, PYSOCK__OPEN);
}

/* Sends what is queued, then makes our close_notify. 0; -1: the call must end. */
static int pysock__unwrap_begin_locked(pysock__call *c)
{
    pysock__sock *s = c->s;

    while (s->phase != PYSOCK__UNWRAPPING) {
        if (pysock__ensure_established_locked(c) < 0)
            return -1;
        if (pysock__queue_empty(&s->queue)) {
            pysock__tls_close_notify(s->tls);
            pysock__set_phase_locked(s, PYSOCK__UNWRAPPING);
        } else if (c->waits == PYSOCK__WAITS_NEVER) {
            return pysock__fail_again();
        } else if (pysock__flush_wait_locked(c) < 0) {
            return -1;
        }
    }
    return 0;
}

/* Another thread has finished the unwrap, or it failed. */
static int pysock__unwrap_over_locked(pysock__sock *s)
{
    return s->phase == PYSOCK__BROKEN ? pysock__raise(&s->fault) : 0;
}

/* Sends our close_notify and waits for the peer's. */
static int pysock__unwrap_locked(pysock__call *c)
{
    pysock__sock *s = c->s;
    pysock__progress p;
    size_t n;
    int ended;

    for (;;) {
        if (c->waits != PYSOCK__WAITS_NEVER && pysock__flush_wait_locked(c) < 0)
            return -1;
        if (s->phase != PYSOCK__UNWRAPPING)
            return pysock__unwrap_over_locked(s);
        p = pysock__flush_or_kick_locked(s);
        if (p == PYSOCK__STOPPED)
            return pysock__call_fail_output(c);
        ended = s->input_end == PYSOCK__END_CLEAN
                || (s->tls->wrap.half_close && s->input_end == PYSOCK__END_RAGGED);
        if (p == PYSOCK__DONE && ended && !s->in_busy) {
            pysock__unwrapped_locked(s);
            return 0;
        }
        if (!ended && s->input_end != PYSOCK__GOING_ON)
            return pysock__raise(&s->fault);
        while (pysock__tls_app_in(s->tls, &n)) {
            if (s->tls->wrap.half_close)
                return pysock__fail(
                    PYSOCK_SSL_ERROR, EPROTO, "APPLICATION_DATA_AFTER_CLOSE_NOTIFY",
                    "%s: the peer has sent data before its close_notify: receive it first",
                    c->name);
            pysock__tls_app_in_done(s->tls, n); /* discarded: too late to be read */
        }
        p = pysock__fill_locked(s, NULL);
        if (p == PYSOCK__DONE)
            continue;
        if (c->waits == PYSOCK__WAITS_NEVER)
            return s->bio_in ? pysock__tls_fail_again(c) : pysock__call_fail(c, -EINPROGRESS);
        if (pysock__await_locked(c, p) < 0)
            return -1;
        if (s->phase != PYSOCK__UNWRAPPING)
            return pysock__unwrap_over_locked(s);
    }
}

PYSOCKDEF int pysock_ssl_unwrap(pysock *s)
{
    pysock__call c;
    int r;

    if (pysock__call_begin(&c, s, "ssl_unwrap") < 0)
        return -1;
    if (!pysock__is_tls_locked(c.s))
        r = pysock__fail_not_tls(c.name);
    else if (c.s->phase == PYSOCK__HANDSHAKING && c.s->tls->wrap.half_close
             && pysock__handshakes_locked(c.s))
        r = pysock__fail(PYSOCK_SSL_ERROR, EPROTO, "SHUTDOWN_WHILE_IN_INIT",
                         "%s: the handshake is not finished yet", c.name);
    else
        r = pysock__unwrap_begin_locked(&c);
    if (r == 0)
        r = pysock__unwrap_locked(&c);
    pysock__call_end(&c);
    return r;
}

/* SSL API: what was agreed. */

PYSOCKDEF int pysock_is_ssl(pysock *s)
{
    pysock__call c;
    int r;

    if (pysock__call_begin(&c, s, "is_ssl") < 0)
        return 0;
    r = pysock__is_tls_locked(c.s);
    pysock__call_end(&c);
    return r;
}

/* Begins a call: the TLS connection of s, after a finished handshake; or NULL with an error, and
   the call ended. */
static pysock__tls *pysock__begin_established(pysock__call *c, pysock *s, const char *name)
{
    if (pysock__call_begin(c, s, name) < 0)
        return NULL;
    if (c->s->tls && c->s->tls->handshakes)
        return c->s->tls;
    if (!pysock__is_tls_locked(c->s))
        pysock__fail_not_tls(name);
    else if (c->s->phase == PYSOCK__BROKEN)
        pysock__raise(&c->s->fault);
    else
        pysock__fail_value(name, "the handshake is not finished yet");
    pysock__call_end(c);
    return NULL;
}

PYSOCKDEF int pysock_ssl_server_side(pysock *s)
{
    pysock__call c;
    int server;

    if (pysock__call_begin(&c, s, "ssl_server_side") < 0)
        return 0;
    server = pysock__wrap_of(c.s)->server;
    if (!pysock__is_tls_locked(c.s))
        pysock__fail_not_tls(c.name);
    pysock__call_end(&c);
    return server;
}

PYSOCKDEF pysock_ssl_context *pysock_ssl_get_context(pysock *s)
{
    pysock_ssl_context *ctx;
    pysock__call c;

    if (pysock__call_begin(&c, s, "ssl_get_context") < 0)
        return NULL;
    ctx = c.s->tls ? pysock__load(&c.s->tls->chosen) : NULL;
    if (!ctx)
        ctx = pysock__load(&pysock__wrap_of(c.s)->ctx);
    if (!pysock__context_retain(ctx))
        pysock__fail_not_tls(c.name);
    pysock__call_end(&c);
    return ctx;
}

PYSOCKDEF const char *pysock_ssl_version(pysock *s)
{
    pysock__call c;
    pysock__tls *t = pysock__begin_established(&c, s, "ssl_version");
    int version;

    if (!t)
        return NULL;
    version = t->version;
    pysock__call_end(&c);
    return version == PYSOCK_TLSv1 ? "TLSv1" : version == PYSOCK_TLSv1_1 ? "TLSv1.1" : "TLSv1.2";
}

PYSOCKDEF int pysock_ssl_cipher(pysock *s, pysock_ssl_cipher_info *info)
{
    pysock__call c;
    pysock__tls *t;

    if (!info)
        return pysock__fail_value("ssl_cipher", "info is NULL");
    memset(info, 0, sizeof *info);
    t = pysock__begin_established(&c, s, "ssl_cipher");
    if (!t)
        return -1;
    pysock__suite_info(pysock__suite_find(t->suite), info);
    pysock__call_end(&c);
    return 0;
}

PYSOCKDEF ptrdiff_t pysock_ssl_shared_ciphers(pysock *s, pysock_ssl_cipher_info *out, size_t count)
{
    uint16_t suites[BR_MAX_CIPHER_SUITES];
    pysock__call c;
    pysock__tls *t;
    size_t n;

    if (!out && count)
        return pysock__fail_value("ssl_shared_ciphers", "out is NULL");
    t = pysock__begin_established(&c, s, "ssl_shared_ciphers");
    if (!t)
        return -1;
    n = pysock__tls_shared_suites(t, suites);
    pysock__call_end(&c);
    return pysock__suites_give(suites, n, out, count);
}

PYSOCKDEF const char *pysock_ssl_compression(pysock *s)
{
    pysock__call c;

    if (pysock__begin_established(&c, s, "ssl_compression"))
        pysock__call_end(&c);
    return NULL;
}

static pysock_buf *pysock__peer_der(pysock *s, const char *what)
{
    pysock__call c;
    pysock__tls *t = pysock__begin_established(&c, s, what);
    pysock_buf *b;

    if (!t)
        return NULL;
    b = t->peer && t->peer->sent_count ? pysock_buf_retain(t->peer->certs[0]) : pysock_buf_new(0);
    pysock__call_end(&c);
    return b;
}

PYSOCKDEF pysock_buf *pysock_ssl_getpeercert_der(pysock *s)
{
    return pysock__peer_der(s, "ssl_getpeercert_der");
}

/* Retains up to max of the peer's certificates. Returns how many there are. */
static ptrdiff_t pysock__peer_chain(pysock *s, int verified, pysock_buf **out, size_t max,
                                    const char *what)
{
    pysock__call c;
    pysock__tls *t;
    size_t i, n = 0, start = 0;

    if (!out && max)
        return pysock__fail_value(what, "out is NULL");
    t = pysock__begin_established(&c, s, what);
    if (!t)
        return -1;
    if (t->peer) {
        start = verified ? t->peer->sent_count : 0;
        n = verified ? t->peer->verified_count : t->peer->sent_count;
    }
    for (i = 0; i < n && i < max; i++)
        out[i] = pysock_buf_retain(t->peer->certs[start + i]);
    pysock__call_end(&c);
    return (ptrdiff_t)n;
}

PYSOCKDEF ptrdiff_t pysock_ssl_get_unverified_chain(pysock *s, pysock_buf **out, size_t count)
{
    return pysock__peer_chain(s, 0, out, count, "ssl_get_unverified_chain");
}

PYSOCKDEF ptrdiff_t pysock_ssl_get_verified_chain(pysock *s, pysock_buf **out, size_t count)
{
    return pysock__peer_chain(s, 1, out, count, "ssl_get_verified_chain");
}

/* RFC 5929, 4: the server's certificate, hashed by the function that it is signed with, or SHA-256
   for MD5 and SHA-1. 0: no certificate, or its signature has no such hash. */
static size_t pysock__bind_end_point(const pysock__tls *t, unsigned char *out)
{
    const unsigned char *der = NULL;
    br_hash_compat_context hc;
    const br_hash_class *hash;
    pysock__cert cert;
    size_t len = 0;

    if (t->wrap.server) {
        pysock_ssl_cipher_info suite;
        const pysock__identity *id;
        pysock__suite_info(pysock__suite_find(t->suite), &suite);
        id = t->policy.identities[strcmp(suite.auth, "auth-rsa") == 0 ? PYSOCK__RSA : PYSOCK__EC];
        der = id ? id->chain[0].data : NULL;
        len = id ? id->chain[0].data_len : 0;
    } else if (t->peer && t->peer->sent_count) {
        der = (const unsigned char *)pysock_buf_data(t->peer->certs[0]);
        len = pysock_buf_size(t->peer->certs[0]);
    }
    if (!der || pysock__cert_parse(&cert, der, len) < 0 || !cert.sig_alg)
        return 0;
    hash = cert.sig_alg->hash;
    if (hash != &br_sha384_vtable && hash != &br_sha512_vtable)
        hash = &br_sha256_vtable;
    hash->init(&hc.vtable);
    hash->update(&hc.vtable, der, len);
    hash->out(&hc.vtable, out);
    return pysock__hash_size(hash);
}

PYSOCKDEF ptrdiff_t pysock_ssl_get_channel_binding(pysock *s, const char *type, void *out,
                                                   size_t size)
{
    unsigned char binding[64];
    pysock__call c;
    pysock__tls *t;
    size_t n;

    if (!type || (strcmp(type, "tls-unique") != 0 && strcmp(type, "tls-server-end-point") != 0))
        return pysock__fail_value("ssl_get_channel_binding",
                                  "the type is neither tls-unique nor tls-server-end-point");
    if (pysock__check_memory("ssl_get_channel_binding", out, size) < 0)
        return -1;
    t = pysock__begin_established(&c, s, "ssl_get_channel_binding");
    if (!t)
        return -1;
    n = type[4] == 'u' ? pysock__tls_finished(t, binding) : pysock__bind_end_point(t, binding);
    pysock__call_end(&c);
    if (!n)
        return pysock__fail(PYSOCK_SSL_ERROR, 0, "UNSUPPORTED_SIGNATURE_TYPE",
                            "ssl_get_channel_binding: RFC 5929 knows no binding for the way in "
                            "which the server's certificate is signed");
    memcpy(out, binding, n < size ? n : size);
    return (ptrdiff_t)n;
}

PYSOCKDEF pysock_ssl_session *pysock_ssl_get_session(pysock *s)
{
    pysock__call c;
    pysock__tls *t = pysock__begin_established(&c, s, "ssl_get_session");
    pysock_ssl_session *se;

    if (!t)
        return NULL;
    se = pysock_ssl_session_retain(t->wrap.session);
    if (!se)
        pysock__fail_memory(c.name);
    pysock__call_end(&c);
    return se;
}

PYSOCKDEF int pysock_ssl_set_session(pysock *s, pysock_ssl_session *session)
{
    pysock_ssl_session *old = NULL;
    pysock__call c;
    pysock__tls *t;
    int r = 0;

    if (!session)
        return pysock__fail_value("ssl_set_session", "session is NULL");
    if (pysock__call_begin(&c, s, "ssl_set_session") < 0)
        return -1;
    t = c.s->tls;
    if (!pysock__is_tls_locked(c.s)) {
        r = pysock__fail_not_tls(c.name);
    } else if (pysock__wrap_of(c.s)->server) {
        r = pysock__fail_value(c.name, "a server finds its sessions by itself");
    } else if (session->context != pysock__wrap_of(c.s)->ctx->serial) {
        r = pysock__fail_value(c.name, "the session belongs to a different context");
    } else if (t && (c.s->hs_busy || t->state != PYSOCK__TLS_HELLO)) {
        r = pysock__fail_value(c.name, "the handshake has begun");
    } else {
        old = pysock__wrap_of(c.s)->session;
        pysock__wrap_of(c.s)->session = pysock_ssl_session_retain(session);
        if (t) {
            pysock__bytes_free(&t->flight);
            r = pysock__tls_reset(t, c.name);
        }
    }
    pysock__call_end(&c);
    pysock__session_release(old);
    return r;
}

/* Whether the socket can switch to ctx: 0 or a failure. */
static int pysock__context_fits_locked(pysock__call *c, pysock_ssl_context *ctx)
{
    const pysock__wrap *w = pysock__wrap_of(c->s);
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;

    options.server_side = w->server;
    options.insecure_no_check_hostname = w->unchecked_host;
    options.no_handshake_on_connect = 1;
    options.server_hostname = w->host;
    if (pysock__wrap_server(ctx, &options) != options.server_side)
        return pysock__fail_value(c->name, "the context is for the other role (client or server)");
    return pysock__wrap_check(ctx, &options, c->name);
}

PYSOCKDEF int pysock_ssl_set_context(pysock *s, pysock_ssl_context *ctx)
{
    pysock_ssl_session *session = NULL;
    pysock_ssl_context *old = NULL;
    pysock__call c;
    pysock__tls *t;
    int r, chosen;

    if (!ctx)
        return pysock__fail_value("ssl_set_context", "ctx is NULL");
    if (pysock__call_begin(&c, s, "ssl_set_context") < 0)
        return -1;
    t = c.s->tls;
    if (!pysock__is_tls_locked(c.s))
        r = pysock__fail_not_tls(c.name);
    else if (!t && c.s->phase == PYSOCK__BROKEN)
        r = pysock__call_fail(&c, -EALREADY);
    else if (t && !pysock__load(&t->chosen)
             && (c.s->hs_busy || t->state != PYSOCK__TLS_HELLO
                 || c.s->phase != PYSOCK__HANDSHAKING))
        r = pysock__call_fail(&c, -EALREADY);
    else
        r = pysock__context_fits_locked(&c, ctx);
    chosen = r == 0 && t && pysock__tls_choose(t, ctx);
    if (r == 0 && !chosen && t && c.s->hs_busy)
        r = pysock__call_fail(&c, -EALREADY); /* the sni_callback has just ended */
    if (r == 0 && !chosen) {
        session = pysock__wrap_of(c.s)->session;
        pysock__wrap_of(c.s)->session = NULL;
    }
    if (r == 0 && t && !chosen) {
        pysock__bytes_free(&t->flight);
        r = pysock__tls_switch(t, ctx, c.name);
        if (r < 0) { /* the old one is gone */
            c.s->fault = pysock__last;
            pysock__set_phase_locked(c.s, PYSOCK__BROKEN);
        }
    } else if (r == 0 && !t) {
        old = c.s->wrap.ctx;
        c.s->wrap.ctx = pysock__context_retain(ctx);
    }
    pysock__call_end(&c);
    pysock__session_release(session);
    pysock__context_release(old);
    return r;
}

PYSOCKDEF ptrdiff_t pysock_ssl_selected_alpn_protocol(pysock *s, char *name, size_t size)
{
    const char *what = "ssl_selected_alpn_protocol";
    pysock__call c;
    pysock__tls *t;
    ptrdiff_t n;

    if (pysock__check_out(what, name, size) < 0)
        return -1;
    t = pysock__begin_established(&c, s, what);
    if (!t)
        return -1;
    n = pysock__give_optional(what, pysock__tls_alpn(t), name, size);
    pysock__call_end(&c);
    return n;
}

PYSOCKDEF ptrdiff_t pysock_ssl_server_hostname(pysock *s, char *name, size_t size)
{
    const char *what = "ssl_server_hostname", *host;
    pysock__call c;
    ptrdiff_t n;

    if (pysock__check_out(what, name, size) < 0 || pysock__call_begin(&c, s, what) < 0)
        return -1;
    if (c.s->tls && c.s->tls->wrap.server)
        host = pysock__load(&c.s->tls->sni);
    else
        host = pysock__wrap_of(c.s)->host;
    n = pysock__give_optional(what, host, name, size);
    pysock__call_end(&c);
    return n;
}

PYSOCKDEF int pysock_ssl_session_reused(pysock *s)
{
    pysock__call c;
    pysock__tls *t = pysock__begin_established(&c, s, "ssl_session_reused");
    int reused;

    if (!t)
        return 0;
    reused = t->reused;
    pysock__call_end(&c);
    return reused;
}

PYSOCKDEF ptrdiff_t pysock_ssl_pending(pysock *s)
{
    pysock__call c;
    ptrdiff_t pending = 0;
    size_t n;

    if (pysock__call_begin(&c, s, "ssl_pending") < 0)
        return -1;
    if (!pysock__is_tls_locked(c.s))
        pending = pysock__fail_not_tls(c.name);
    else if (c.s->tls && c.s->tls->handshakes && pysock__tls_app_in(c.s->tls, &n))
        pending = (ptrdiff_t)n;
    pysock__call_end(&c);
    return pending;
}

PYSOCKDEF int pysock_ssl_eof_is_clean(pysock *s)
{
    pysock__call c;
    pysock__tls *t = pysock__begin_established(&c, s, "ssl_eof_is_clean");
    int clean;

    if (!t)
        return 0;
    clean = pysock__tls_closed_cleanly(t);
    pysock__call_end(&c);
    return clean;
}

PYSOCKDEF int pysock_ssl_match_hostname(const void *der, size_t size, const char *hostname)
{
    const char *name = hostname;
    char ascii[256];
    unsigned char ip[16];
    pysock__cert cert;
    int code;

    if (!hostname || !hostname[0])
        return pysock__fail_value("ssl_match_hostname", "hostname is NULL or empty");
    if (pysock__check_memory("ssl_match_hostname", der, size) < 0)
        return -1;
    if (!der || pysock__cert_parse(&cert, (const unsigned char *)der, size) < 0)
        return pysock__fail(PYSOCK_SSL_ERROR, 0, "BAD_CERTIFICATE",
                            "ssl_match_hostname: the certificate cannot be read; it must be in "
                            "DER");
    if (!pysock__is_ascii(hostname)) {
        if (pysock_idna_encode(hostname, ascii, sizeof ascii) < 0)
            return -1;
        name = ascii;
    }
    if (pysock__cert_matches(&cert, name, 1))
        return 0;
    code = pysock__sys_pton(name, ip) ? PYSOCK__V_IP_ADDRESS : PYSOCK__V_HOSTNAME;
    pysock__fail(PYSOCK_SSL_CERT_VERIFICATION_ERROR, (int)pysock__verify_error(code),
                 "CERTIFICATE_VERIFY_FAILED",
                 "certificate verify failed: %s, certificate is not valid for '%.200s'",
                 pysock__verify_sentence(code), hostname);
    pysock__last.verify_code = code;
    pysock__last.verify_message = pysock__verify_sentence(code);
    return -1;
}

/* SSL API: certificates and the module's functions. */

PYSOCKDEF pysock_ssl_cert *pysock_ssl_cert_parse(const void *der, size_t size)
{
    pysock_ssl_cert *cert = NULL;
    int err;

    if (pysock__check_memory("ssl_cert_parse", der, size) < 0)
        return NULL;
    err = pysock__cert_read((const unsigned char *)der, size, &cert);
    if (err == -ENOMEM)
        pysock__fail_memory("ssl_cert_parse");
    else if (err < 0)
        pysock__fail(PYSOCK_SSL_ERROR, 0, "BAD_CERTIFICATE",
                     "ssl_cert_parse: these %lu bytes are no X.509 certificate in DER, or a "
                     "damaged one",
                     (unsigned long)size);
    return cert;
}

PYSOCKDEF void pysock_ssl_cert_free(pysock_ssl_cert *cert)
{
    pysock__free(cert);
}

PYSOCKDEF pysock_ssl_cert *pysock_ssl_getpeercert(pysock *s)
{
    pysock_buf *der = pysock__peer_der(s, "ssl_getpeercert");
    pysock_ssl_cert *cert = NULL;

    if (!der)
        return NULL;
    if (der->size)
        cert = pysock_ssl_cert_parse(der->data, der->size);
    else
        pysock__fail(PYSOCK_SSL_ERROR, 0, "NO_PEER_CERTIFICATE",
                     "ssl_getpeercert: the peer sent no certificate");
    pysock_buf_release(der);
    return cert;
}

#define PYSOCK__PEM_HEADER "-----BEGIN CERTIFICATE-----"
#define PYSOCK__PEM_FOOTER "-----END CERTIFICATE-----"

PYSOCKDEF pysock_buf *pysock_ssl_der_cert_to_pem_cert(const void *der, size_t size)
{
    pysock_buf *b;
    size_t n;

    if (pysock__check_memory("ssl_der_cert_to_pem_cert", der, size) < 0)
        return NULL;
    if (size > PTRDIFF_MAX / 2) {
        pysock__fail_value("ssl_der_cert_to_pem_cert", "the certificate is too large");
        return NULL;
    }
    n = br_pem_encode(NULL, der, size, "CERTIFICATE", BR_PEM_LINE64);
    b = pysock_buf_new(n + 1);
    if (!b)
        return NULL;
    br_pem_encode(b->data, der, size, "CERTIFICATE", BR_PEM_LINE64);
    b->size = n;
    return b;
}

/* Takes the first object, followed by a NUL; fails on a second one. */
static int pysock__pem_take_one(void *arg, const pysock__object *object, pysock__file_fault *fault)
{
    pysock_buf **b = (pysock_buf **)arg;

    (void)fault;
    if (*b || !pysock__label_is_certificate(object->name))
        return -EBADMSG;
    *b = pysock_buf_new(object->der.len + 1);
    if (!*b)
        return -ENOMEM;
    (*b)->size = object->der.len;
    if (object->der.len)
        memcpy((*b)->data, object->der.data, object->der.len);
    return 0;
}

static int pysock__is_blank(int c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

PYSOCKDEF pysock_buf *pysock_ssl_pem_cert_to_der_cert(const char *pem)
{
    static const char header[] = PYSOCK__PEM_HEADER, footer[] = PYSOCK__PEM_FOOTER;
    size_t n = pem ? strlen(pem) : 0, foot = sizeof footer - 1;
    pysock__bytes text = {NULL, 0, 0, 0};
    pysock__file_fault fault;
    pysock_buf *b = NULL;
    int err;

    while (n && pysock__is_blank(pem[n - 1]))
        n--;
    if (n < sizeof header + foot || strncmp(pem, header, sizeof header - 1) != 0
        || memcmp(pem + n - foot, footer, foot) != 0) {
        pysock__fail_value("ssl_pem_cert_to_der_cert",
                           "the text must start with " PYSOCK__PEM_HEADER
                           " and end with " PYSOCK__PEM_FOOTER);
        return NULL;
    }
    err = pysock__copy_bytes(pem, n, &text);
    memset(&fault, 0, sizeof fault);
    if (err == 0)
        err = pysock__pem_each(&text, &fault, pysock__pem_take_one, &b);
    pysock__bytes_free(&text);
    if (err == 0 && b)
        return b;
    pysock_buf_release(b);
    if (err == -ENOMEM)
        pysock__fail_memory("ssl_pem_cert_to_der_cert");
    else
        pysock__fail_value("ssl_pem_cert_to_der_cert",
                           "the text is damaged or contains more than one certificate");
    return NULL;
}

/* Skips white space, at least one character. 0 or -1. */
static int pysock__time_blank(const char **p)
{
    const char *start = *p;

    while (pysock__is_blank((unsigned char)**p))
        ++*p;
    return *p > start ? 0 : -1;
}

/* Reads a number of at most that many digits, from low to high; -1 if there is none. */
static int pysock__time_field(const char **p, int digits, int low, int high)
{
    int value = 0, i;

    for (i = 0; i < digits && **p >= '0' && **p <= '9'; i++)
        value = value * 10 + *(*p)++ - '0';
    return i && value >= low && value <= high ? value : -1;
}

/* Reads the name of a month: 1 to 12, or 0. */
static int pysock__time_month(const char **p)
{
    int i;

    for (i = 0; i < 12; i++)
        if (strlen(*p) >= 3
            && pysock__text_equal((const unsigned char *)*p, pysock__months + i * 3, 3)) {
            *p += 3;
            return i + 1;
        }
    return 0;
}

static int pysock__fail_time(const char *text)
{
    return pysock__fail(PYSOCK_VALUE_ERROR, EINVAL, "EINVAL",
                        "ssl_cert_time_to_seconds: time data '%.100s' does not match format "
                        "\"%%b %%d %%H:%%M:%%S %%Y GMT\"",
                        text);
}

PYSOCKDEF int pysock_ssl_cert_time_to_seconds(const char *cert_time, int64_t *seconds)
{
    static const char *const what = "ssl_cert_time_to_seconds";
    const char *p = cert_time, *year_text;
    int month, day, hour, minute, second, year;

    if (!cert_time || !seconds)
        return pysock__fail_value(what, cert_time ? "seconds is NULL" : "cert_time is NULL");
    month = pysock__time_month(&p);
    if (!month || pysock__time_blank(&p) < 0 || (day = pysock__time_field(&p, 2, 1, 31)) < 0
        || pysock__time_blank(&p) < 0 || (hour = pysock__time_field(&p, 2, 0, 23)) < 0
        || *p++ != ':' || (minute = pysock__time_field(&p, 2, 0, 59)) < 0 || *p++ != ':'
        || (second = pysock__time_field(&p, 2, 0, 61)) < 0 || pysock__time_blank(&p) < 0)
        return pysock__fail_time(cert_time);
    year_text = p;
    year = pysock__time_field(&p, 4, 1, 9999);
    if (year < 0 || p - year_text != 4 || pysock__time_blank(&p) < 0 || strlen(p) != 3
        || !pysock__text_equal((const unsigned char *)p, "GMT", 3))
        return pysock__fail_time(cert_time);
    *seconds = (pysock__days_from_civil(year, month, 1) + day - 1) * 86400 + hour * 3600
               + minute * 60 + second;
    return 0;
}

/* Uses BearSSL's system seeder, as the connections do. Each call seeds its own generator: there is
   nothing to lock, and nothing that a forked child shares. */
PYSOCKDEF int pysock_ssl_rand_bytes(void *buf, size_t size)
{
    br_prng_seeder seeder = br_prng_seeder_system(NULL);
    unsigned char *p = (unsigned char *)buf;
    br_hmac_drbg_context rng;
    int before, seeded;
    size_t n;

    if (pysock__check_memory("ssl_rand_bytes", buf, size) < 0)
        return -1;
    br_hmac_drbg_init(&rng, &br_sha256_vtable, NULL, 0);
    before = pysock__cancel_off();
    seeded = seeder && seeder(&rng.vtable);
    pysock__cancel_restore(before);
    if (!seeded)
        return pysock__fail(PYSOCK_SSL_ERROR, 0, "PRNG_NOT_SEEDED",
                            "ssl_rand_bytes: the system's random source has failed");
    for (; size; size -= n, p += n) {
        n = size < 65536 ? size : 65536; /* one request's limit (NIST SP 800-90A, 10.1) */
        br_hmac_drbg_generate(&rng, p, n);
    }
    return 0;
}

PYSOCKDEF int pysock_ssl_get_default_verify_paths(pysock_ssl_verify_paths *paths)
{
    const char *file = pysock__default_file(), *dirs = pysock__default_dirs();
    size_t i;

    if (!paths)
        return pysock__fail_value("ssl_get_default_verify_paths", "paths is NULL");
    memset(paths, 0, sizeof *paths);
    paths->openssl_cafile_env = "SSL_CERT_FILE";
    paths->openssl_cafile = pysock__system_stores[0];
    for (i = PYSOCK__COUNT(pysock__system_stores); i--;)
        if (pysock__path_kind(pysock__system_stores[i]) == 'f')
            paths->openssl_cafile = pysock__system_stores[i];
    paths->openssl_capath_env = "SSL_CERT_DIR";
    paths->openssl_capath = pysock__system_dirs[0];
    if (file && pysock__path_kind(file) == 'f')
        paths->cafile = file;
    if (dirs && pysock__path_kind(dirs) == 'd')
        paths->capath = dirs;
    return 0;
}

PYSOCKDEF int pysock_ssl_txt2obj(const char *text, int names, pysock_ssl_oid *out)
{
    size_t i, turn;

    if (!text || !out)
        return pysock__fail_value("ssl_txt2obj", text ? "out is NULL" : "text is NULL");
    memset(out, 0, sizeof *out);
    for (turn = 0; turn < (names ? 3 : 1); turn++)
        for (i = 0; i < PYSOCK__COUNT(pysock__oids); i++) {
            const pysock_ssl_oid *row = &pysock__oids[i];
            const char *const have[3] = {row->oid, row->shortname, row->longname};
            if (strcmp(text, have[turn]) == 0) {
                *out = *row;
                return 0;
            }
        }
    return pysock__fail(PYSOCK_VALUE_ERROR, EINVAL, "EINVAL",
                        "ssl_txt2obj: unknown object '%.100s'", text);
}

PYSOCKDEF int pysock_ssl_nid2obj(int nid, pysock_ssl_oid *out)
{
    size_t i;

    if (!out)
        return pysock__fail_value("ssl_nid2obj", "out is NULL");
    memset(out, 0, sizeof *out);
    if (nid < 0)
        return pysock__fail_value("ssl_nid2obj", "NID must be positive.");
    for (i = 0; i < PYSOCK__COUNT(pysock__oids); i++)
        if (pysock__oids[i].nid == nid) {
            *out = pysock__oids[i];
            return 0;
        }
    return pysock__fail(PYSOCK_VALUE_ERROR, EINVAL, "EINVAL", "ssl_nid2obj: unknown NID %d", nid);
}

#endif /* PYSOCK_NO_SSL */

/* ---- >>select ----
   Python's select and poll. The kernel and notifications give edges; the results are levels, always
   tested after an edge. A select that sleeps is registered with its sockets until it returns. The
   lock: a socket's, one at a time. */

/* POLLIN and POLLOUT with their synonyms. */
#define PYSOCK__INPUT ((short)(POLLIN | POLLRDNORM))
#define PYSOCK__OUTPUT ((short)(POLLOUT | POLLWRNORM))

#define PYSOCK__ASK_AGAIN 0x10000 /* input has been left in the kernel: test again at once */

/* Levels. Neither the kernel's events nor notifications are results: they only say that something
   may have changed. The level itself is computed here, under the socket's lock, each time: it reads
   the phase, the engine, the queue and the latched error, so that nothing is lost between a test
   and a wait (the waiter is in the socket's list before the test), and nothing is reported twice.

   Which of want (poll's events) hold for a socket, given the kernel's revents. *ask: the events to
   poll for next, or -1 if only a notification can change the level. except: the caller's own
   waiter, which is not notified. */
static short pysock__levels_locked(pysock__sock *s, short want, short revents, int *ask,
                                   const pysock__waiter *except)
{
    short lost = s->output_lost ? POLLERR : 0;
    short have = (short)((revents & (POLLERR | POLLHUP | POLLNVAL)) | lost);
#ifndef PYSOCK_NO_SSL
    pysock__progress filled;
#endif

    (void)except; /* unused without TLS */
    *ask = -1;
    switch (s->phase) {
    case PYSOCK__CLOSING:
    case PYSOCK__CLOSED: return POLLNVAL;
    case PYSOCK__RESOLVING: return 0;
    case PYSOCK__FAILED:
    case PYSOCK__BROKEN: return (short)(POLLERR | (want & (PYSOCK__INPUT | PYSOCK__OUTPUT)));
    case PYSOCK__LISTENING: want &= (short)~PYSOCK__OUTPUT; break;
    default: break;
    }
#ifndef PYSOCK_NO_SSL
    if (s->phase == PYSOCK__HANDSHAKING || (s->phase == PYSOCK__CONNECTING && s->wrap.ctx))
        return 0; /* the reactor, or a blocking call, will notify */
    if (s->phase == PYSOCK__SECURE) {
        *ask = want & (PYSOCK__INPUT | PYSOCK__RDHUP);
        filled = revents & (PYSOCK__INPUT | PYSOCK__RDHUP | POLLERR | POLLHUP)
                         || s->tls->ahead_pos < s->tls->ahead_len
                     ? pysock__fill_locked(s, except)
                     : PYSOCK__WAIT_READ;
        if (filled == PYSOCK__WAIT_NOTIFY || filled == PYSOCK__WAIT_WRITE)
            *ask = -1; /* a notification will come; the kernel would report it over and over */
        else if (filled == PYSOCK__AGAIN)
            *ask |= PYSOCK__ASK_AGAIN;
        if (s->phase != PYSOCK__SECURE)
            return 0; /* another handshake */
        if (pysock__tls_flags(s->tls) & PYSOCK__APP_IN || s->input_end || s->hs_asked)
            have |= (short)(want & PYSOCK__INPUT);
        have |= (short)(want & (s->input_end ? PYSOCK__RDHUP : revents & PYSOCK__RDHUP));
        want &= PYSOCK__OUTPUT;
        if (s->write_error || !pysock__tls_may_send(s->tls))
            have |= want; /* send fails at once */
        else if (!pysock__output_waits_locked(s))
            *ask = *ask < 0 ? *ask : *ask | want, have |= (short)(revents & want);
        else if (!pysock__queue_empty(&s->queue) && !s->queue_full)
            have |= want;
        return have;
    }
#endif
    if (s->names_awaited)
        want &= (short)~PYSOCK__OUTPUT;
    *ask = want;
    have |= (short)(revents & want);
    if (pysock__queue_empty(&s->queue) && !s->queue_full)
        return have;
    *ask &= ~PYSOCK__OUTPUT;
    have &= (short)~PYSOCK__OUTPUT;
    if (!s->queue_full)
        have |= (short)(want & PYSOCK__OUTPUT);
    return have;
}

/* Adds a select's or poller's waiter: the reactor then drives a handshake that no call drives. */
static void pysock__waiter_begin_locked(pysock__sock *s, pysock__waiter *w)
{
    pysock__list_append(&s->waiters, &w->link);
    s->select_waiters++;
#ifndef PYSOCK_NO_SSL
    pysock__want_reactor_locked(s);
#endif
}

static void pysock__waiter_end_locked(pysock__sock *s, pysock__waiter *w)
{
    pysock__list_remove(&w->link);
    s->select_waiters--;
}

/* A plain socket with nothing queued: its levels are what the kernel reports. */
static int pysock__kernel_knows_levels(const pysock__sock *s)
{
    return (s->phase == PYSOCK__OPEN || s->phase == PYSOCK__NEW || s->phase == PYSOCK__LISTENING)
           && !s->queue_used && !s->names_awaited && !pysock__is_tls_locked(s);
}

/* Select. */

typedef struct pysock__entry {
    pysock__sock *s; /* NULL: a descriptor that is no socket of ours */
    pysock__waiter waiter;
    int fd;
    short want, have;
    short mask;     /* which of the levels count as ready */
    int closed;     /* the number is now the library's own: the caller's file is closed */
    int registered; /* the waiter is in the socket's list */
    int masked;     /* not polled this time: it has a hangup or error that its list ignores */
} pysock__entry;

typedef struct pysock__select_call {
    pysock_state *state; /* whose cleanup ends it */
    pysock__entry *entries;
    struct pollfd *fds; /* count + 1: the waker's is first */
    size_t count;
    pysock__waker *waker; /* NULL: not needed yet, or no descriptor was left for it */
    int waker_error;      /* why there is none */
    int64_t deadline;
    unsigned epoch;
    size_t sockets;    /* how many entries are sockets of ours */
    size_t registered; /* how many sockets have levels that the kernel does not know */
    int unaided;       /* it sleeps without a waker */
    int masked;        /* an entry is: poll() cannot report when it becomes ready */
    int is_poll;       /* POLLNVAL is a result, and errors are reported unasked */
} pysock__select_call;

/* Opens the thread's waker when it is first needed: a call that does not sleep needs none, nor, if
   no descriptor is left, one whose levels only the kernel changes. */
static pysock__waker *pysock__select_waker(pysock__select_call *c)
{
    size_t i;

    if (c->waker)
        return c->waker;
    c->waker_error = pysock__thread_waker(&c->waker);
    for (i = 0; c->waker && i < c->count; i++)
        if (c->entries[i].fd == c->waker->rfd) { /* nothing was open under that number */
            c->entries[i].closed = 1;
            c->entries[i].fd = -1;
        }
    return c->waker;
}

/* s: the open socket whose descriptor is fd, whose reference is taken; or NULL. */
static void pysock__select_add_sock(pysock__select_call *c, int fd, pysock__sock *s, short want,
                                    short mask)
{
    pysock__entry *e = &c->entries[c->count++];

    memset(e, 0, sizeof *e);
    pysock__list_init(&e->waiter.link);
    e->fd = fd; /* the test rejects a negative one */
    e->want = want;
    e->mask = mask;
    e->waiter.notify = pysock__notify_thread;
    e->closed = c->waker && fd == c->waker->rfd;
    if (e->closed)
        e->fd = -1;
    e->s = s;
    if (!s)
        return;
    c->sockets++;
    pysock__lock(&e->s->lock);
    if (!pysock__kernel_knows_levels(e->s) && (e->waiter.waker = pysock__select_waker(c)) != NULL) {
        pysock__waiter_begin_locked(e->s, &e->waiter);
        e->registered = 1;
        c->registered++;
    }
    pysock__unlock(&e->s->lock);
}

static void pysock__select_add(pysock__select_call *c, int fd, short want, short mask)
{
    int mine = c->waker && fd == c->waker->rfd; /* the library's: the asker's file is closed */

    pysock__select_add_sock(c, fd, mine ? NULL : pysock__acquire_fd(fd), want, mask);
}

/* Whether the call may sleep without a waker: only the kernel changes the levels, and the
   shutdown() of a close or cleanup wakes the call (kernel_waits). */
static int pysock__select_unaided(const pysock__select_call *c)
{
    int known = PYSOCK__KERNEL_SLEEPS && c->sockets && !c->registered
                && !pysock__load(&pysock__reactor.threadless);
    size_t i;

    for (i = 0; known && i < c->count; i++) {
        pysock__entry *e = &c->entries[i];
        if (!e->s)
            continue;
        pysock__lock(&e->s->lock);
        known = pysock__kernel_knows_levels(e->s);
        pysock__unlock(&e->s->lock);
    }
    return known;
}

/* Before the call sleeps: opens the waker, and registers with the other sockets. 0 or a negated
   errno value. */
static int pysock__select_register(pysock__select_call *c)
{
    size_t i;

    c->unaided = !pysock__select_waker(c) && pysock__select_unaided(c);
    if (!c->waker && !c->unaided)
        return c->waker_error;
    for (i = 0; i < c->count; i++) {
        pysock__entry *e = &c->entries[i];
        if (!e->s || e->registered)
            continue;
        e->waiter.waker = c->waker;
        pysock__lock(&e->s->lock);
        if (c->unaided)
            e->s->kernel_waits++;
        else
            pysock__waiter_begin_locked(e->s, &e->waiter);
        pysock__unlock(&e->s->lock);
        e->registered = 1;
    }
    return 0;
}

static void pysock__select_add_list(pysock__select_call *c, const int *fds, size_t count,
                                    short want, short mask)
{
    size_t i;

    for (i = 0; i < count; i++)
        pysock__select_add(c, fds[i], want, mask);
}

static void pysock__select_end(pysock__select_call *c)
{
    size_t i;

    for (i = 0; i < c->count; i++) {
        pysock__entry *e = &c->entries[i];
        if (!e->s)
            continue;
        if (e->registered) {
            pysock__lock(&e->s->lock);
            if (c->unaided)
                e->s->kernel_waits--;
            else
                pysock__waiter_end_locked(e->s, &e->waiter);
            pysock__unlock_sock(e->s);
        }
        pysock__release(e->s);
    }
}

/* Tests every level, given what poll() reported, and sets what to poll for next. Returns how many
   are ready; -EBADF: a descriptor is not open. */
static ptrdiff_t pysock__select_test(pysock__select_call *c, int polled)
{
    ptrdiff_t ready = 0;
    size_t i;

    c->masked = 0;
    for (i = 0; i < c->count; i++) {
        pysock__entry *e = &c->entries[i];
        struct pollfd *p = &c->fds[i + 1];
        short revents = polled ? p->revents : 0;
        int ask = e->want;
        if (e->s) {
            pysock__lock(&e->s->lock);
            e->have = pysock__levels_locked(e->s, e->want, revents, &ask, &e->waiter);
            pysock__unlock_sock(e->s);
        } else {
            e->have = e->closed ? POLLNVAL : revents;
        }
        if (!c->is_poll && (e->have & POLLNVAL || e->fd < 0))
            return -EBADF;
        if (!c->is_poll && e->want == POLLIN && !(e->have & POLLIN))
            e->have &= (short)(revents | ~POLLERR); /* lost output is no reason to receive */
        e->have &= e->mask;
        ready += e->have != 0;
        if (polled)
            e->masked = !c->is_poll && revents && !e->have && !(revents & ~(POLLHUP | POLLERR));
        c->masked |= e->masked;
        p->fd = ask < 0 || e->masked ? -1 : e->fd;
        p->events = (short)(ask < 0 ? 0 : ask & 0x7fff);
        p->revents = 0;
    }
    return ready;
}

/* Polls once without registering, if only the kernel changes the levels: most selects of plain
   sockets find something, or do not wait. 0: nothing yet. */
static ptrdiff_t pysock__select_at_once(pysock__select_call *c)
{
    size_t i;
    int r;

    for (i = 0; i < c->count; i++) {
        c->fds[i + 1].fd = c->entries[i].fd;
        c->fds[i + 1].events = c->entries[i].want;
        c->fds[i + 1].revents = 0;
    }
    r = pysock__poll(c->fds + 1, c->count, 0);
    return r < 0 ? r : pysock__select_test(c, 1);
}

#define PYSOCK__SELECT_RETRY 20000000 /* ns, until masked entries are polled again */

/* Sleeps until an event, or until masked entries must be polled again. */
static int pysock__select_sleep(pysock__select_call *c, int64_t deadline)
{
    int64_t retry =
        c->masked && deadline ? pysock__deadline_in(PYSOCK__SELECT_RETRY) : PYSOCK__NEVER;

    c->fds[0].fd = c->waker ? c->waker->rfd : -1;
    c->fds[0].events = POLLIN;
    c->fds[0].revents = 0;
    PYSOCK_TRACE("before_sleep", NULL);
    deadline = retry < deadline ? retry : deadline;
    return c->waker ? pysock__sleep(c->waker, c->fds, c->count + 1, deadline)
                    : pysock__poll(c->fds, c->count + 1, deadline);
}

static ptrdiff_t pysock__select_run(pysock__select_call *c)
{
    ptrdiff_t ready;
    int r = 0;

    if (!c->registered && !pysock__load(&pysock__reactor.threadless)) {
        ready = pysock__select_at_once(c);
        if (ready > 0 || ready == -EBADF || (ready == 0 && !c->deadline))
            return c->epoch != pysock__epoch(c->state) ? -ESHUTDOWN : ready;
    }
    r = pysock__select_register(c);
    if (r < 0)
        return r;
    for (;;) {
        if (c->waker)
            pysock__waker_drain(c->waker, r > 0 && c->fds[0].revents);
        else if (!pysock__select_unaided(c))
            return c->waker_error;
        ready = pysock__select_test(c, 0);
        if (c->epoch != pysock__epoch(c->state))
            return -ESHUTDOWN; /* before any sleep: the drain may have consumed the broadcast */
        if (ready < 0)
            return ready;
        r = pysock__select_sleep(c, ready ? 0 : c->deadline);
        if (r == -EINTR && pysock__interrupted())
            return -EINTR;
        if (r < 0 && r != -EINTR)
            return r;
        ready = pysock__select_test(c, 1); /* without an event, revents is 0 */
        if (c->epoch != pysock__epoch(c->state))
            return -ESHUTDOWN; /* rather than the sockets that it closed */
        if (ready || (c->deadline != PYSOCK__NEVER && pysock__now() >= c->deadline))
            return ready;
    }
}

/* Begins a call, with room for total entries: few if they fit. 0 or -1. */
static int pysock__select_begin(pysock__select_call *c, const char *what, size_t total,
                                double timeout, pysock__entry *few, struct pollfd *few_fds,
                                size_t few_count)
{
    int64_t ns = pysock__timeout_ns(timeout, what);

    memset(c, 0, sizeof *c);
    if (ns == -2)
        return -1;
    pysock__fork_check();
    c->state = pysock__state();
    c->epoch = pysock__epoch(c->state);
    c->deadline = ns ? pysock__deadline_in(ns) : 0;
    if (pysock__my_sleeper)
        c->waker_error = pysock__thread_waker(&c->waker);
    c->entries = total <= few_count
                     ? few
                     : (pysock__entry *)PYSOCK_MALLOC(total * (sizeof *c->entries + sizeof *c->fds)
                                                      + sizeof *c->fds);
    if (!c->entries)
        return pysock__fail_memory(what);
    c->fds = c->entries == few ? few_fds : (struct pollfd *)(void *)(c->entries + total);
    if (ns == 0)
        pysock__reactor_assist();
    return 0;
}

static int pysock__select_fail(const pysock__select_call *c, const char *what, int err)
{
    return err == -ESHUTDOWN ? pysock__fail_ended(what, c->epoch, c->state)
                             : pysock__fail_os(err, what, "");
}

/* Keeps the ready ones of a list, in their order. */
static void pysock__select_keep(int *fds, size_t *count, const pysock__entry *entries)
{
    size_t i, kept = 0;

    for (i = 0; count && i < *count; i++)
        if (entries[i].have)
            fds[kept++] = fds[i];
    if (count)
        *count = kept;
}

PYSOCKDEF ptrdiff_t pysock_select(int *rlist, size_t *rcount, int *wlist, size_t *wcount,
                                  int *xlist, size_t *xcount, double timeout_seconds)
{
    size_t rn = rlist && rcount ? *rcount : 0, wn = wlist && wcount ? *wcount : 0;
    size_t xn = xlist && xcount ? *xcount : 0;
    pysock__entry few[8];
    struct pollfd few_fds[9];
    pysock__select_call c;
    ptrdiff_t ready;

    if ((!rlist && rcount && *rcount) || (!wlist && wcount && *wcount)
        || (!xlist && xcount && *xcount))
        return (ptrdiff_t)pysock__fail_value("select", "a list is NULL, but its count is not 0");
    if (rn > 1u << 24 || wn > 1u << 24 || xn > 1u << 24)
        return (ptrdiff_t)pysock__fail_value("select", "a count is negative or too large");
    if (pysock__select_begin(&c, "select", rn + wn + xn, timeout_seconds, few, few_fds,
                             PYSOCK__COUNT(few))
        < 0)
        return -1;
    pysock__select_add_list(&c, rlist, rn, POLLIN, POLLIN | POLLHUP | POLLERR);
    pysock__select_add_list(&c, wlist, wn, POLLOUT, POLLOUT | POLLERR);
    pysock__select_add_list(&c, xlist, xn, POLLPRI, POLLPRI);
    ready = pysock__select_run(&c);
    pysock__select_end(&c);
    if (ready >= 0) {
        pysock__select_keep(rlist, rlist ? rcount : NULL, c.entries);
        pysock__select_keep(wlist, wlist ? wcount : NULL, c.entries + rn);
        pysock__select_keep(xlist, xlist ? xcount : NULL, c.entries + rn + wn);
    }
    if (c.entries != few)
        PYSOCK_FREE(c.entries);
    return ready < 0 ? pysock__select_fail(&c, "select", (int)ready) : ready;
}

PYSOCKDEF ptrdiff_t pysock_poll(struct pollfd *fds, size_t count, double timeout_seconds)
{
    pysock__entry few[8];
    struct pollfd few_fds[9];
    pysock__select_call c;
    ptrdiff_t ready;
    size_t i;

    if ((!fds && count) || count > 1u << 24)
        return (ptrdiff_t)pysock__fail_value("poll", fds ? "the count is negative or too large"
                                                         : "fds is NULL, but count is not 0");
    if (pysock__select_begin(&c, "poll", count, timeout_seconds, few, few_fds, PYSOCK__COUNT(few))
        < 0)
        return -1;
    c.is_poll = 1;
    for (i = 0; i < count; i++)
        pysock__select_add(&c, fds[i].fd, fds[i].events,
                           (short)(fds[i].events | POLLERR | POLLHUP | POLLNVAL));
    ready = pysock__select_run(&c);
    pysock__select_end(&c);
    for (i = 0; ready >= 0 && i < count; i++)
        fds[i].revents = c.entries[i].have;
    if (c.entries != few)
        PYSOCK_FREE(c.entries);
    return ready < 0 ? pysock__select_fail(&c, "poll", (int)ready) : ready;
}

PYSOCKDEF int pysock_wait(pysock *handle, int events, double timeout_seconds)
{
    pysock__entry entry;
    struct pollfd fds[2];
    pysock__select_call c;
    pysock__call begun;
    pysock__sock *s;
    ptrdiff_t ready;

    if (events < 0 || events > SHRT_MAX)
        return pysock__fail_value("wait", "events is no set of POLLIN, POLLPRI and POLLOUT");
    if (pysock__call_begin(&begun, handle, "wait") < 0)
        return -1;
    s = begun.s;
    pysock__retain(s);
    pysock__call_end(&begun);
    if (s->fd < 0 || pysock__select_begin(&c, "wait", 1, timeout_seconds, &entry, fds, 1) < 0) {
        int bio = s->fd < 0;
        pysock__release(s);
        return bio ? pysock__fail(PYSOCK_OS_ERROR, ENOTSUP, "ENOTSUP",
                                  "wait: TLS over memory BIOs has no descriptor to wait on")
                   : -1;
    }
    pysock__retain(s);
    c.is_poll = 1;
    c.state = s->state; /* as of every call on a socket */
    c.epoch = begun.epoch;
    pysock__select_add_sock(&c, s->fd, s, (short)events,
                            (short)(events | POLLERR | POLLHUP | POLLNVAL));
    ready = pysock__select_run(&c);
    pysock__select_end(&c);
    if (ready >= 0 && entry.have & POLLNVAL)
        ready = -EBADF;
    if (ready < 0)
        pysock__select_fail(&c, "wait", (int)ready);
    pysock__release(s);
    return ready < 0 ? -1 : entry.have;
}

/* ---- >>pollers ----
   Descriptors that stay registered, and epoll on top. A registration is one object; its waiter
   stays in the socket's list. What may be ready without an event of the kernel's is in the poller's
   ready list and is tested at the next poll. Locks: a socket's, then a poller's. */

typedef struct pysock__reg {
    pysock__waiter waiter; /* linked under the socket's lock */
    /* set once */
    pysock_poller *poller;
    int fd;
    uint32_t serial;  /* distinguishes it from a later registration of the descriptor */
    uintptr_t handle; /* 0: a descriptor that is no socket of ours */
    /* guarded by the poller's lock */
    pysock__list ready_link;
    short events;
    void *userdata;
    uint32_t flags;   /* epoll's: edges, once, exclusive */
    int reported;     /* EPOLLONESHOT: nothing more until it is modified */
    int queued;       /* in the ready list */
    int armed;        /* the events that the kernel watches for; -1: none; -2: unknown */
    int invalid;      /* closed, or never open */
    int detached;     /* pysock_detach() has released the descriptor, perhaps to another socket */
    int always;       /* a file that is always ready */
    unsigned poll_id; /* of the poll whose result has it already, at index result */
    size_t result;
} pysock__reg;

struct pysock_poller {
    pysock__mutex lock;
    pysock__sleeper sleeper; /* notifications wake it */
    pysock__pset pset;
    pysock_state *state; /* counted */
    int is_epoll;        /* set once: behaves as epoll */
    int refs;            /* guarded by the process's lock */
    int closed;          /* atomic; the lock is held to set it */
    /* guarded by lock */
    int set_closed; /* the kernel's set is closed too */
    int exported;   /* its descriptor was asked for: readable when something is ready */
    pysock__reg **by_fd;
    size_t fd_cap;
    pysock__list ready;
    size_t ready_count;
    uint32_t serial;
    unsigned poll_id;
    int kernel_first; /* the ready list has filled the last round */
    int polling;      /* how many threads are in a poll */
    int stale;        /* in a forked child: the kernel's set is the parent's */
};

static uint64_t pysock__reg_token(const pysock__reg *reg)
{
    return (uint64_t)reg->serial << 32 | (uint32_t)reg->fd;
}

static pysock__reg *pysock__reg_find_locked(pysock_poller *p, int fd)
{
    return fd >= 0 && (size_t)fd < p->fd_cap ? p->by_fd[fd] : NULL;
}

static pysock__reg *pysock__reg_of_token_locked(pysock_poller *p, uint64_t token)
{
    pysock__reg *reg = pysock__reg_find_locked(p, (int)(uint32_t)token);

    return reg && reg->serial == (uint32_t)(token >> 32) ? reg : NULL;
}

static void pysock__reg_queue_locked(pysock__reg *reg)
{
    if (reg->queued)
        return;
    reg->queued = 1;
    pysock__list_append(&reg->poller->ready, &reg->ready_link);
    reg->poller->ready_count++;
}

/* Something must be tested: wakes sleeping polls. The next poll looks by itself. */
static void pysock__poller_wake_locked(pysock_poller *p)
{
    if (p->polling || p->exported)
        pysock__wake(&p->sleeper.waker);
}

static void pysock__reg_unqueue_locked(pysock__reg *reg)
{
    if (!reg->queued)
        return;
    reg->queued = 0;
    pysock__list_remove(&reg->ready_link);
    reg->poller->ready_count--;
}

/* Whether pysock_detach() closed a socket; the caller holds its lock, and it is closing. */
static int pysock__handle_is_detached(uintptr_t handle)
{
    return pysock__table.slots[(handle & PYSOCK__LOW) - 1].s->detached;
}

/* A registration's notify: the socket's lock is held, then the poller's is taken. */
static void pysock__reg_notify(pysock__waiter *w, int closing)
{
    pysock__reg *reg = PYSOCK__ENTRY(w, pysock__reg, waiter);
    pysock_poller *p = reg->poller;

    if (closing)
        pysock__list_remove(&w->link);
    pysock__lock(&p->lock);
    if (closing) {
        if (reg->armed != -1 && !p->closed)
            pysock__pset_forget(&p->pset, reg->fd);
        reg->armed = -1;
        reg->invalid = 1;
        reg->detached = p->is_epoll && pysock__handle_is_detached(reg->handle);
    } else if (reg->flags & PYSOCK__EPOLL_ET && reg->armed >= 0) {
        reg->armed = -2; /* the kernel may have reported its edge too early to be of use */
    }
    pysock__reg_queue_locked(reg);
    pysock__poller_wake_locked(p);
    pysock__unlock(&p->lock);
}

static void pysock__poller_after_fork(pysock__sleeper *sl)
{
    pysock_poller *p = PYSOCK__ENTRY(sl, pysock_poller, sleeper);

    size_t fd;

    pysock__mutex_init(&p->lock);
    p->polling = 0;
    p->stale = 1;
    for (fd = 0; fd < p->fd_cap; fd++) /* the kernel's set is the parent's: left alone */
        if (p->by_fd[fd])
            p->by_fd[fd]->armed = -1;
}

/* Before each use. -EBADF: it is closed. In a forked child, opens a kernel set of its own. */
static int pysock__poller_renew_locked(pysock_poller *p)
{
    size_t fd;
    int err;

    if (p->closed)
        return -EBADF;
    if (p->sleeper.waker.generation == pysock__fork_generation && !p->stale)
        return 0;
    err = pysock__sleeper_refresh(&p->sleeper);
    if (err < 0)
        return err;
    err = pysock__pset_renew(&p->pset, &p->sleeper.waker);
    if (err < 0)
        return err;
    p->stale = 0;
    for (fd = 0; fd < p->fd_cap; fd++)
        if (p->by_fd[fd])
            pysock__reg_queue_locked(p->by_fd[fd]);
    return 0;
}

PYSOCKDEF pysock_poller *pysock_poller_new(void)
{
    pysock_poller *p = (pysock_poller *)pysock__alloc(sizeof *p);
    int err;

    if (!p) {
        pysock__fail_memory("poller_new");
        return NULL;
    }
    pysock__install();
    pysock__mutex_init(&p->lock);
    pysock__list_init(&p->ready);
    p->sleeper.after_fork = pysock__poller_after_fork;
    err = pysock__waker_open(&p->sleeper.waker);
    if (err == 0 && (err = pysock__pset_open(&p->pset, &p->sleeper.waker)) < 0)
        pysock__waker_close(&p->sleeper.waker);
    if (err < 0) {
        pysock__mutex_free(&p->lock);
        pysock__free(p);
        pysock__fail_os(err, "poller_new", "");
        return NULL;
    }
    p->refs = 1;
    p->state = pysock__state_retain(pysock__state());
    pysock__sleeper_enlist(&p->sleeper); /* from here on others find it */
    return p;
}

PYSOCKDEF pysock_poller *pysock_poller_new_epoll(void)
{
    pysock_poller *p = pysock_poller_new();
    int err = p ? pysock__pset_fileno(&p->pset) : 0;

    if (err >= 0) {
        if (p)
            p->is_epoll = 1;
        return p;
    }
    pysock_poller_release(p);
    pysock__fail_os(err, "poller_new_epoll", "this platform");
    return NULL;
}

PYSOCKDEF int pysock_poller_fileno(pysock_poller *p)
{
    int fd;

    if (!p)
        return pysock__fail_value("poller_fileno", "the poller is NULL");
    pysock__lock(&p->lock);
    fd = pysock__poller_renew_locked(p);
    if (fd == 0)
        fd = pysock__pset_fileno(&p->pset);
    if (fd >= 0 && !p->exported) {
        p->exported = 1;
        if (p->ready_count)
            pysock__wake(&p->sleeper.waker);
    }
    pysock__unlock(&p->lock);
    return fd < 0 ? pysock__fail_os(fd, "poller_fileno", "") : fd;
}

/* Whether fd is the poller's descriptor or, with duplicates, a duplicate of it: no other kernel set
   has the poller's waker in it. */
static int pysock__poller_is_behind(pysock_poller *p, int fd, int duplicates)
{
#ifdef PYSOCK__EPOLL
    pysock__pset set;
#endif

    if (fd < 0 || !p->refs || pysock__load(&p->closed))
        return 0;
#ifdef PYSOCK__EPOLL
    set.epfd = fd;
    if (duplicates)
        return pysock__pset_knows(&set, p->sleeper.waker.rfd);
#endif
    (void)duplicates;
    return pysock__pset_fileno(&p->pset) == fd;
}

static pysock_poller *pysock__poller_behind(int fd, int duplicates)
{
    pysock_poller *p = NULL;
    pysock__list *l;

    pysock__lock(&pysock__process.lock);
    for (l = pysock__process.sleepers.next; l != &pysock__process.sleepers && !p; l = l->next) {
        pysock__sleeper *sl = PYSOCK__ENTRY(l, pysock__sleeper, link);
        if (sl->after_fork != pysock__poller_after_fork)
            continue;
        p = PYSOCK__ENTRY(sl, pysock_poller, sleeper);
        if (!pysock__poller_is_behind(p, fd, duplicates))
            p = NULL;
    }
    if (p)
        p->refs++;
    pysock__unlock(&pysock__process.lock);
    return p;
}

PYSOCKDEF pysock_poller *pysock_poller_from_fileno(int fd)
{
    pysock_poller *p = pysock__poller_behind(fd, 0);

    p = p ? p : pysock__poller_behind(fd, 1);
    if (!p)
        pysock__fail(
            PYSOCK_OS_ERROR, EINVAL, "EINVAL",
            "poller_from_fileno: descriptor %d does not belong to a poller of this process", fd);
    return p;
}

/* Takes the registration of a descriptor out of the poller; the caller frees it with
   pysock__reg_free(). NULL: there is none. */
static pysock__reg *pysock__reg_claim_locked(pysock_poller *p, int fd)
{
    pysock__reg *reg = pysock__reg_find_locked(p, fd);

    if (!reg)
        return NULL;
    p->by_fd[fd] = NULL;
    if (reg->armed != -1 && !p->closed)
        pysock__pset_forget(&p->pset, fd);
    reg->armed = -1;
    return reg;
}

/* Takes a claimed registration out of its socket, and frees it. */
static void pysock__reg_free(pysock_poller *p, pysock__reg *reg)
{
    pysock__sock *s = reg->handle ? pysock__acquire_handle(reg->handle) : NULL;

    if (s) {
        pysock__lock(&s->lock);
        pysock__waiter_end_locked(s, &reg->waiter);
        pysock__unlock_sock(s);
        pysock__release(s);
    }
    pysock__lock(&p->lock); /* no socket can notify it any more */
    pysock__reg_unqueue_locked(reg);
    pysock__unlock(&p->lock);
    pysock__free(reg);
}

/* Closes the kernel's set of a closed poller, once no poll uses it. */
static void pysock__poller_close_set_locked(pysock_poller *p)
{
    if (!p->closed || p->polling || p->set_closed)
        return;
    p->set_closed = 1;
    pysock__pset_close(&p->pset);
}

PYSOCKDEF int pysock_poller_close(pysock_poller *p)
{
    if (!p)
        return pysock__fail_value("poller_close", "the poller is NULL");
    pysock__lock(&p->lock);
    pysock__store(&p->closed, 1);
    if (p->polling)
        pysock__wake(&p->sleeper.waker);
    pysock__poller_close_set_locked(p);
    pysock__unlock(&p->lock);
    return 0;
}

PYSOCKDEF pysock_poller *pysock_poller_retain(pysock_poller *p)
{
    if (!p)
        return NULL;
    pysock__lock(&pysock__process.lock);
    p->refs++;
    pysock__unlock(&pysock__process.lock);
    return p;
}

PYSOCKDEF void pysock_poller_release(pysock_poller *p)
{
    size_t fd;
    int refs;

    if (!p)
        return;
    pysock__lock(&pysock__process.lock);
    refs = --p->refs;
    pysock__unlock(&pysock__process.lock);
    if (refs)
        return;
    for (fd = 0; fd < p->fd_cap; fd++) {
        pysock__reg *reg;
        pysock__lock(&p->lock);
        reg = pysock__reg_claim_locked(p, (int)fd);
        pysock__unlock(&p->lock);
        if (reg)
            pysock__reg_free(p, reg);
    }
    pysock_poller_close(p);
    pysock__sleeper_close(&p->sleeper);
    pysock__mutex_free(&p->lock);
    pysock__state_release(p->state);
    pysock__free(p->by_fd);
    pysock__free(p);
}

/* Has the kernel watch for the events in ask (-1: none). 0 or -ENOMEM; for epoll, any error of the
   kernel's. */
static int pysock__reg_arm_locked(pysock__reg *reg, int ask)
{
    pysock_poller *p = reg->poller;
    int err = 0;

    if (reg->invalid || reg->always || reg->armed == ask || p->closed)
        return 0;
    if (ask < 0) {
        pysock__pset_forget(&p->pset, reg->fd);
    } else {
        err = pysock__pset_set(&p->pset, reg->fd, (uint32_t)ask | reg->flags,
                               pysock__reg_token(reg), reg->armed != -1);
        if (err == -EPERM)
            reg->always = 1;
        else if (err == -EBADF)
            reg->invalid = 1;
    }
    if (err < 0)
        ask = -1;
    reg->armed = ask;
    if (p->is_epoll)
        return err;
    return err == -ENOMEM || err == -ENOSPC ? -ENOMEM : 0;
}

/* Enters a new registration; its socket, if it has one, is s, locked. -EEXIST: there is one. */
static int pysock__reg_enter(pysock_poller *p, pysock__reg *reg, pysock__sock *s)
{
    int err, ask = reg->events;

    if (s)
        pysock__levels_locked(s, reg->events, 0, &ask, &reg->waiter);
    pysock__lock(&p->lock);
    err = pysock__poller_renew_locked(p);
    if (err == 0)
        err = pysock__reserve(&p->by_fd, &p->fd_cap, (size_t)reg->fd + 1, sizeof *p->by_fd);
    if (err == 0 && p->by_fd[reg->fd])
        err = -EEXIST; /* another thread was faster */
    if (err == 0) {
        reg->serial = ++p->serial;
        err = pysock__reg_arm_locked(reg, ask);
    }
    if (err == 0) {
        p->by_fd[reg->fd] = reg;
        pysock__reg_queue_locked(reg); /* tested at the next poll */
        pysock__poller_wake_locked(p);
    }
    pysock__unlock(&p->lock);
    if (err == 0 && s)
        pysock__waiter_begin_locked(s, &reg->waiter);
    return err;
}

/* -EEXIST, without an error set: another thread has registered fd meanwhile. */
static int pysock__reg_new(pysock_poller *p, int fd, uint32_t events, void *userdata)
{
    pysock__reg *reg = (pysock__reg *)pysock__alloc(sizeof *reg);
    pysock__sock *s;
    int err;

    if (!reg)
        return pysock__fail_memory("poller_register");
    s = pysock__acquire_fd(fd);
    pysock__list_init(&reg->waiter.link);
    pysock__list_init(&reg->ready_link);
    reg->waiter.notify = pysock__reg_notify;
    reg->poller = p;
    reg->fd = fd;
    reg->events = (short)(events & 0x7fff);
    reg->userdata = userdata;
    reg->flags = p->is_epoll ? events & ~0x7fffu : 0;
    reg->armed = -1;
    if (s)
        pysock__lock(&s->lock);
    if (s && s->phase < PYSOCK__CLOSING)
        reg->handle = s->handle;
    err = pysock__reg_enter(p, reg, reg->handle ? s : NULL);
    if (s) {
        pysock__unlock_sock(s);
        pysock__release(s);
    }
    if (err == 0)
        return 0;
    pysock__free(reg);
    return err == -EEXIST ? err : pysock__fail_os(err, "poller_register", "");
}

static int pysock__poller_check(const char *what, pysock_poller *p, int fd)
{
    if (!p)
        return pysock__fail_value(what, "the poller is NULL");
    if (fd < 0)
        return pysock__fail_value(what, "the descriptor is negative");
    if (fd > 1 << 24)
        return pysock__fail_value(what, "the descriptor is too large");
    return pysock__load(&p->closed) ? pysock__fail_os(-EBADF, what, "") : 0;
}

/* 1 if the registration was changed, 0 if the descriptor as it is now has none. replace: changes
   userdata too, and drops a registration of the descriptor's earlier socket or file. */
static int pysock__reg_change(pysock_poller *p, int fd, uint32_t events, int replace,
                              void *userdata)
{
    pysock__sock *s = pysock__acquire_fd(fd);
    uintptr_t handle = s ? s->handle : 0;
    pysock__reg *reg;
    int same;

    if (s)
        pysock__release(s);
    pysock__lock(&p->lock);
    reg = pysock__reg_find_locked(p, fd);
    same = reg && reg->handle == handle && !reg->invalid;
    if (reg && !same && replace) {
        reg = pysock__reg_claim_locked(p, fd); /* the number has been used again */
    } else if (reg) {
        reg->events = (short)(events & 0x7fff);
        if (replace)
            reg->userdata = userdata;
        if (!handle && replace && reg->armed >= 0)
            reg->armed = -2; /* perhaps another file of the same number: ask the kernel anew */
        pysock__reg_queue_locked(reg);
        pysock__poller_wake_locked(p);
    }
    pysock__unlock(&p->lock);
    if (reg && !same && replace)
        pysock__reg_free(p, reg);
    return reg && (same || !replace);
}

/* Epoll. A descriptor can change owners while it is registered: its socket may have been detached
   and another have taken it, or it was closed without the library's knowledge. In a forked child
   the first poll fills the set. */
static int pysock__epoll_is_good_locked(pysock_poller *p, const pysock__reg *reg)
{
    if (reg->handle)
        return reg->detached || !reg->invalid;
    if (reg->armed == -1)
        return !reg->invalid && pysock__fd_inheritable(reg->fd) >= 0;
    return pysock__pset_knows(&p->pset, reg->fd);
}

/* The registration of fd if it is still valid, or NULL; *dead: an invalid one, to be freed. */
static pysock__reg *pysock__epoll_find_locked(pysock_poller *p, int fd, pysock__reg **dead)
{
    pysock__reg *reg = pysock__reg_find_locked(p, fd);

    *dead = NULL;
    if (!reg || pysock__epoll_is_good_locked(p, reg))
        return reg;
    *dead = pysock__reg_claim_locked(p, fd);
    return NULL;
}

/* 0 or a negated errno value. */
static int pysock__epoll_change(pysock_poller *p, int fd, uint32_t events)
{
    pysock__reg *reg, *dead = NULL;
    int err;

    pysock__lock(&p->lock);
    err = pysock__poller_renew_locked(p);
    reg = err ? NULL : pysock__epoll_find_locked(p, fd, &dead);
    if (reg && (reg->flags | events) & PYSOCK__EPOLL_EXCLUSIVE) {
        err = -EINVAL; /* as in the kernel */
    } else if (reg) {
        reg->events = (short)(events & 0x7fff);
        reg->flags = events & ~0x7fffu;
        reg->reported = 0;
        if (reg->armed >= 0)
            reg->armed = -2;
        pysock__reg_queue_locked(reg);
        pysock__poller_wake_locked(p);
    } else if (err == 0) {
        err = pysock__fd_inheritable(fd) < 0 ? -EBADF : -ENOENT;
    }
    pysock__unlock(&p->lock);
    if (dead)
        pysock__reg_free(p, dead);
    return err;
}

/* Whether fd is closed as far as the program knows: a closed socket may still be sending its
   output. */
static int pysock__fd_is_closed(int fd)
{
    pysock__sock *s = pysock__acquire_fd(fd);
    int closed;

    if (!s)
        return pysock__fd_inheritable(fd) < 0;
    pysock__lock(&s->lock);
    closed = s->phase >= PYSOCK__CLOSING;
    pysock__unlock(&s->lock);
    pysock__release(s);
    return closed;
}

static int pysock__epoll_unregister(pysock_poller *p, int fd)
{
    pysock__reg *reg, *dead = NULL;
    int err, unknown = 0;

    pysock__lock(&p->lock);
    err = pysock__poller_renew_locked(p);
    reg = err ? NULL : pysock__reg_find_locked(p, fd);
    if (reg && !reg->handle && reg->armed != -1) {
        err = pysock__pset_forget(&p->pset, fd); /* fails if it was closed meanwhile */
        reg->armed = -1;
        pysock__reg_claim_locked(p, fd);
    } else if (reg && pysock__epoll_is_good_locked(p, reg)) {
        pysock__reg_claim_locked(p, fd);
    } else if (err == 0) {
        dead = pysock__reg_claim_locked(p, fd);
        unknown = 1;
        reg = NULL;
    }
    pysock__unlock(&p->lock);
    if (reg || dead)
        pysock__reg_free(p, reg ? reg : dead);
    return !unknown ? err : pysock__fd_is_closed(fd) ? -EBADF : -ENOENT;
}

static int pysock__epoll_register(pysock_poller *p, int fd, uint32_t events, void *userdata)
{
    pysock__reg *reg, *dead = NULL;
    int err;

    pysock__lock(&p->lock);
    err = pysock__poller_renew_locked(p);
    reg = err ? NULL : pysock__epoll_find_locked(p, fd, &dead);
    pysock__unlock(&p->lock);
    if (dead)
        pysock__reg_free(p, dead);
    if (reg)
        err = -EEXIST;
    if (err == 0)
        err = pysock__reg_new(p, fd, events, userdata);
    return err < -1 ? pysock__fail_os(err, "poller_register", "") : err;
}

/* A registration's socket was detached: registers the descriptor anew for its present owner. */
static void pysock__epoll_rebind(pysock_poller *p, uint64_t token)
{
    pysock__fault before = pysock__last;
    uint32_t events = 0;
    void *userdata = NULL;
    pysock__reg *reg;
    int fd = -1;

    pysock__lock(&p->lock);
    reg = pysock__reg_of_token_locked(p, token);
    if (reg) {
        fd = reg->fd;
        events = (uint32_t)reg->events | reg->flags;
        userdata = reg->userdata;
        pysock__reg_claim_locked(p, fd);
    }
    pysock__unlock(&p->lock);
    if (!reg)
        return;
    pysock__reg_free(p, reg);
    if (pysock__reg_new(p, fd, events, userdata) < 0)
        pysock__last = before; /* it is closed, and forgotten */
}

PYSOCKDEF int pysock_poller_register(pysock_poller *p, int fd, int events, void *userdata)
{
    int r;

    if (pysock__poller_check("poller_register", p, fd) < 0)
        return -1;
    if (p->is_epoll) {
        r = pysock__epoll_register(p, fd, (uint32_t)events, userdata);
        pysock__run_deferred();
        return r;
    }
    do {
        r = pysock__reg_change(p, fd, (uint32_t)events, 1, userdata)
                ? 0
                : pysock__reg_new(p, fd, (uint32_t)events, userdata);
    } while (r == -EEXIST);
    pysock__run_deferred();
    return r;
}

PYSOCKDEF int pysock_poller_modify(pysock_poller *p, int fd, int events)
{
    int err;

    if (pysock__poller_check("poller_modify", p, fd) < 0)
        return -1;
    if (p->is_epoll) {
        err = pysock__epoll_change(p, fd, (uint32_t)events);
        return err ? pysock__fail_os(err, "poller_modify", "") : 0;
    }
    if (pysock__reg_change(p, fd, (uint32_t)events, 0, NULL))
        return 0;
    return pysock__fail(PYSOCK_OS_ERROR, ENOENT, "ENOENT",
                        "poller_modify: descriptor %d is not registered", fd);
}

PYSOCKDEF int pysock_poller_unregister(pysock_poller *p, int fd)
{
    pysock__reg *reg;
    int err;

    if (pysock__poller_check("poller_unregister", p, fd) < 0)
        return -1;
    if (p->is_epoll) {
        err = pysock__epoll_unregister(p, fd);
        return err ? pysock__fail_os(err, "poller_unregister", "") : 0;
    }
    pysock__lock(&p->lock);
    reg = pysock__reg_claim_locked(p, fd);
    pysock__unlock(&p->lock);
    if (!reg)
        return pysock__fail(PYSOCK_KEY_ERROR, ENOENT, "ENOENT",
                            "poller_unregister: descriptor %d is not registered", fd);
    pysock__reg_free(p, reg);
    return 0;
}

/* A poll under way. */
typedef struct pysock__poller_call {
    pysock_poller *p;
    pysock_pollevent *out;
    size_t max, filled;
    unsigned id;
    int woken; /* the kernel has reported the waker */
    unsigned epoch;
} pysock__poller_call;

static void pysock__poller_add_locked(pysock__poller_call *c, pysock__reg *reg, short have)
{
    if (reg->poll_id == c->id) {
        c->out[reg->result].events |= have;
        return;
    }
    reg->poll_id = c->id;
    reg->result = c->filled;
    c->out[c->filled].fd = reg->fd;
    c->out[c->filled].userdata = reg->userdata;
    c->out[c->filled++].events = have;
}

/* Applies the result of a test. Level: reported again as long as it holds. Edge: once for each
   event of the kernel's or notification. */
static int pysock__poller_apply_locked(pysock__poller_call *c, pysock__reg *reg, short have,
                                       int ask, int again)
{
    int once = (reg->flags & PYSOCK__EPOLL_ONESHOT) != 0, err = 0;

    if (reg->reported)
        return 0;
    if (ask > 0 && ask & PYSOCK__ASK_AGAIN) {
        ask &= ~PYSOCK__ASK_AGAIN;
        again = 1;
    } else if (reg->flags & (PYSOCK__EPOLL_ET | PYSOCK__EPOLL_ONESHOT)) {
        again = 0;
    }
    if (once && have && !reg->invalid)
        reg->reported = 1; /* and the kernel reports no more either */
    else
        err = pysock__reg_arm_locked(reg, ask);
    if (reg->invalid)
        have = reg->poller->is_epoll ? 0 : POLLNVAL;
    else if (reg->always)
        have = (short)(reg->events & (PYSOCK__INPUT | PYSOCK__OUTPUT));
    if (have)
        pysock__poller_add_locked(c, reg, have);
    if (again || (have && (reg->invalid || reg->always)))
        pysock__reg_queue_locked(reg);
    return reg->poller->is_epoll && err != -ENOMEM ? 0 : err;
}

/* Tests one registration, given the kernel's revents, under the socket's lock and then the
   poller's, so that the kernel always watches for what the level needs now. */
static int pysock__poller_test(pysock__poller_call *c, uint64_t token, short revents)
{
    pysock_poller *p = c->p;
    pysock__reg *reg;
    pysock__sock *s = NULL;
    uintptr_t handle = 0;
    short events = 0, have;
    int ask, again, detached = 0, err = 0;

    pysock__lock(&p->lock);
    reg = pysock__reg_of_token_locked(p, token);
    if (reg) {
        handle = reg->handle;
        events = reg->events;
        detached = reg->detached && !reg->reported;
        if (revents && reg->flags & PYSOCK__EPOLL_ONESHOT && reg->armed >= 0)
            reg->armed = -2; /* the kernel reports no more until it is armed again */
    }
    pysock__unlock(&p->lock);
    if (detached)
        pysock__epoll_rebind(p, token); /* tested when its turn comes */
    if (!reg || detached)
        return 0;
    ask = events;
    have = (short)(revents & (events | POLLERR | POLLHUP | POLLNVAL));
    again = 0;
    if (handle && (s = pysock__acquire_handle(handle)) != NULL) {
        pysock__lock(&s->lock);
        have = pysock__levels_locked(s, events, revents, &ask, &reg->waiter);
        again = have
                && (pysock__is_tls_locked(s) || !pysock__queue_empty(&s->queue)
                    || s->phase == PYSOCK__FAILED);
    } else if (handle) {
        have = POLLNVAL;
        ask = -1;
    }
    pysock__lock(&p->lock);
    reg = pysock__reg_of_token_locked(p, token);
    if (reg && handle == reg->handle)
        err = pysock__poller_apply_locked(c, reg, have, ask, again);
    else if (reg)
        pysock__reg_queue_locked(reg);
    pysock__unlock(&p->lock);
    if (s) {
        pysock__unlock_sock(s);
        pysock__release(s);
    }
    return err;
}

/* Tests what may be ready without an event of the kernel's, each registration once. */
static int pysock__poller_ready(pysock__poller_call *c)
{
    pysock_poller *p = c->p;
    size_t n;
    int err = 0;

    pysock__lock(&p->lock);
    for (n = p->ready_count; n && p->ready_count && c->filled < c->max && err == 0; n--) {
        pysock__reg *reg = PYSOCK__ENTRY(p->ready.next, pysock__reg, ready_link);
        uint64_t token = pysock__reg_token(reg);
        pysock__reg_unqueue_locked(reg);
        pysock__unlock(&p->lock);
        err = pysock__poller_test(c, token, 0);
        pysock__lock(&p->lock);
    }
    pysock__unlock(&p->lock);
    return err;
}

/* Polls the kernel, until deadline if nothing is ready yet, and tests what it reports. */
static int pysock__poller_kernel(pysock__poller_call *c, int64_t deadline)
{
    pysock_poller *p = c->p;
    pysock__pset_event events[64];
    size_t room, before;
    int n, i, err = 0;

    if (pysock__run_deferred())
        deadline = 0; /* the next round sleeps */
    PYSOCK_TRACE("before_sleep", NULL);
    do {
        before = c->filled;
        room = c->max - before;
        room = room < PYSOCK__COUNT(events) ? room : PYSOCK__COUNT(events);
        n = pysock__pset_wait(&p->pset, &p->sleeper.waker,
                              pysock__load(&pysock__reactor.threadless) ? pysock__sleep : NULL,
                              events, room, before ? 0 : deadline, &c->woken);
        for (i = 0; i < n && err == 0; i++)
            err = pysock__poller_test(c, events[i].token, events[i].events);
    } while (n == (int)room && err == 0 && c->filled > before && c->filled < c->max);
    return n < 0 ? n : err;
}

/* One round: the ready list, then the kernel; the other way round when the ready list alone has
   filled the round before, so that neither starves. */
static int pysock__poller_round(pysock__poller_call *c, int64_t deadline)
{
    pysock_poller *p = c->p;
    int err = 0, kernel_first;

    pysock__waker_drain(&p->sleeper.waker, c->woken);
    c->woken = 0;
    if (c->epoch != pysock__epoch(p->state))
        return -ESHUTDOWN; /* the drain may have consumed the broadcast */
    if (pysock__load(&p->closed))
        return -EBADF;
    pysock__lock(&p->lock);
    kernel_first = p->kernel_first;
    pysock__unlock(&p->lock);
    if (kernel_first)
        err = pysock__poller_kernel(c, 0);
    if (err == 0 && c->filled < c->max)
        err = pysock__poller_ready(c);
    pysock__lock(&p->lock);
    p->kernel_first = !kernel_first && c->filled == c->max;
    pysock__unlock(&p->lock);
    if (err < 0 || c->filled == c->max || (kernel_first && c->filled))
        return err;
    return pysock__poller_kernel(c, deadline);
}

static int pysock__poller_begin(pysock__poller_call *c)
{
    pysock_poller *p = c->p;
    int err;

    pysock__fork_check();
    pysock__lock(&p->lock);
    err = pysock__poller_renew_locked(p);
    c->id = ++p->poll_id;
    p->polling++;
    pysock__unlock(&p->lock);
    return err;
}

/* Wakes other threads that sleep in this poller, if this one leaves them something to test. */
static void pysock__poller_end(pysock__poller_call *c)
{
    pysock_poller *p = c->p;

    pysock__lock(&p->lock);
    p->polling--;
    if (p->ready_count || p->closed)
        pysock__poller_wake_locked(p);
    pysock__poller_close_set_locked(p);
    pysock__unlock(&p->lock);
    pysock__run_deferred();
}

PYSOCKDEF ptrdiff_t pysock_poller_poll(pysock_poller *p, pysock_pollevent *events, size_t count,
                                       double timeout_seconds)
{
    int64_t deadline, ns = pysock__timeout_ns(timeout_seconds, "poller_poll");
    pysock__poller_call c;
    int r;

    if (ns == -2)
        return -1;
    if (!p || !events || !count || count > PTRDIFF_MAX / sizeof *events)
        return pysock__fail_value("poller_poll", !p        ? "the poller is NULL"
                                                 : !events ? "events is NULL"
                                                           : "count is 0, negative or too large");
    deadline = ns ? pysock__deadline_in(ns) : 0;
    if (ns == 0)
        pysock__reactor_assist();
    memset(&c, 0, sizeof c);
    c.p = p;
    c.epoch = pysock__epoch(p->state);
    c.out = events;
    c.max = count;
    r = pysock__poller_begin(&c);
    while (r == 0) {
        r = pysock__poller_round(&c, deadline);
        if (c.epoch != pysock__epoch(p->state))
            r = -ESHUTDOWN; /* rather than the sockets that it closed */
        else if (c.filled)
            r = 0;
        else if (r == -EINTR)
            r = pysock__interrupted() ? -EINTR : 0;
        if (c.filled || r < 0
            || (deadline != PYSOCK__NEVER && (!deadline || pysock__now() >= deadline)))
            break;
    }
    pysock__poller_end(&c);
    if (r == 0)
        return (ptrdiff_t)c.filled;
    if (r == -ESHUTDOWN)
        return pysock__fail_ended("poller_poll", c.epoch, p->state);
    return pysock__fail_os(r, "poller_poll", "");
}

/* ---- >>files ----
   makefile and a FILE. A file's buffers belong to the thread that uses it; the socket counts its
   files. The input of a read that fails stays in `in`, so that nothing is lost. No lock of its
   own. */

/* Files: reading and writing. */

#define PYSOCK__FILE_BUFFER 8192

struct pysock_file {
    pysock *s;
    const char *what; /* the call under way, for messages */
    int readable, writable, unbuffered;
    int timed_out; /* a read has: as in Python, every later one fails */
    int unread;    /* the socket counts it among those that hold input */
    size_t size;   /* of the buffers, as asked for; `in` grows with long lines and reads */
    unsigned char *in, *out;
    size_t start, end, in_cap; /* what `in` holds */
    size_t out_len;
};

/* Counts the files of a socket. The last one that is closed closes the socket too, if the user has
   done so already. */
static int pysock__file_attach(pysock *s, const char *what)
{
    pysock__call c;

    if (pysock__call_begin(&c, s, what) < 0)
        return -1;
    c.s->io_refs++;
    pysock__call_end(&c);
    return 0;
}

static void pysock__file_detach(pysock *s)
{
    pysock__sock *sock = pysock__acquire_handle((uintptr_t)s);
    int last;

    if (!sock)
        return;
    pysock__lock(&sock->lock);
    last = --sock->io_refs == 0 && sock->close_wanted;
    pysock__unlock_sock(sock);
    pysock__release(sock);
    if (last)
        pysock_close(s);
}

/* 0 or a failure. mode: of r, w and b, each at most once; without r and w it means reading. */
static int pysock__file_mode(const char *what, const char *mode, int *readable, int *writable)
{
    const char *p;
    int binary = 0;

    *readable = *writable = 0;
    for (p = mode ? mode : "?"; *p; p++) {
        int *flag = *p == 'r' ? readable : *p == 'w' ? writable : *p == 'b' ? &binary : NULL;
        if (!flag || *flag)
            break;
        *flag = 1;
    }
    if (!*p) {
        *readable |= !*writable;
        return 0;
    }
    return pysock__fail(PYSOCK_VALUE_ERROR, EINVAL, "EINVAL",
                        "%s: mode '%.20s' is not one of r, w, rw, with or without b", what,
                        mode ? mode : "(NULL)");
}

static pysock_file *pysock__makefile(pysock *s, const char *mode, ptrdiff_t buffering,
                                     const char *what)
{
    int readable, writable;
    pysock_file *f;

    if (pysock__file_mode(what, mode, &readable, &writable) < 0)
        return NULL;
    if (buffering > (ptrdiff_t)INT_MAX) {
        pysock__fail_value(what, "the buffers are too large");
        return NULL;
    }
    f = (pysock_file *)pysock__alloc(sizeof *f);
    if (!f) {
        pysock__fail_memory(what);
        return NULL;
    }
    f->s = s;
    f->readable = readable;
    f->writable = writable;
    f->unbuffered = buffering == 0;
    f->size = buffering > 0 ? (size_t)buffering : PYSOCK__FILE_BUFFER;
    if (writable && !f->unbuffered)
        f->out = (unsigned char *)PYSOCK_MALLOC(f->size);
    if (writable && !f->unbuffered && !f->out)
        pysock__fail_memory(what);
    else if (pysock__file_attach(s, what) == 0)
        return f;
    pysock__free(f->out);
    pysock__free(f);
    return NULL;
}

PYSOCKDEF pysock_file *pysock_makefile(pysock *s, const char *mode, ptrdiff_t buffering)
{
    return pysock__makefile(s, mode, buffering, "makefile");
}

static int pysock__file_check(pysock_file *f, const char *what, int writing)
{
    if (!f)
        return pysock__fail_value(what, "the file is NULL");
    f->what = what;
    if (writing ? f->writable : f->readable)
        return 0;
    return pysock__fail(PYSOCK_OS_ERROR, EBADF, "EBADF", "%s: the file was not opened for %s", what,
                        writing ? "writing" : "reading");
}

/* The socket must know which files hold input: TLS must not begin before that has been read. */
static void pysock__file_count(pysock_file *f)
{
    pysock__sock *s;
    int unread = f->end > f->start;

    if (unread == f->unread)
        return;
    s = pysock__acquire_handle((uintptr_t)f->s);
    if (!s)
        return; /* a cleanup has closed it */
    pysock__add(&s->files_unread, unread ? 1 : -1);
    f->unread = unread;
    pysock__release(s);
}

/* Makes room for more bytes behind what `in` holds. 0 or -1. */
static int pysock__file_room(pysock_file *f, size_t more)
{
    unsigned char *extended;
    size_t held = f->end - f->start, cap = f->in_cap ? f->in_cap : f->size;

    if (f->in && f->in_cap - f->end >= more)
        return 0;
    if (f->start && f->in_cap - held >= more) {
        memmove(f->in, f->in + f->start, held);
    } else {
        while (cap - held < more)
            cap = cap > SIZE_MAX / 4 ? held + more : cap * 2;
        extended = (unsigned char *)PYSOCK_MALLOC(cap);
        if (!extended)
            return pysock__fail_memory(f->what);
        if (held)
            memcpy(extended, f->in + f->start, held);
        pysock__free(f->in);
        f->in = extended;
        f->in_cap = cap;
    }
    f->start = 0;
    f->end = held;
    return 0;
}

/* One recv: the number, 0 at the end, -1. */
static ptrdiff_t pysock__file_recv(pysock_file *f, void *buf, size_t size)
{
    ptrdiff_t n;

    if (f->timed_out)
        return pysock__fail(PYSOCK_OS_ERROR, EIO, "EIO", "%s: cannot read from timed out object",
                            f->what);
    n = pysock__recv(f->s, buf, size, 0, f->what);
    f->timed_out = n < 0 && pysock__last.kind == PYSOCK_TIMEOUT_ERROR;
    return n;
}

/* One recv of at most want bytes into `in`. */
static ptrdiff_t pysock__file_fill(pysock_file *f, size_t want)
{
    ptrdiff_t n;

    if (pysock__file_room(f, want) < 0)
        return -1;
    n = pysock__file_recv(f, f->in + f->end, want);
    if (n > 0)
        f->end += (size_t)n;
    pysock__file_count(f);
    return n;
}

static size_t pysock__file_take(pysock_file *f, void *buf, size_t size)
{
    size_t n = f->end - f->start;

    n = n < size ? n : size;
    if (n)
        memcpy(buf, f->in + f->start, n);
    f->start += n;
    if (f->start == f->end)
        f->start = f->end = 0;
    pysock__file_count(f);
    return n;
}

/* A read has failed after n bytes: puts them back from the caller's memory into `in`. 0; -1: out of
   memory, so the call must return them. */
static int pysock__file_give_back(pysock_file *f, const void *buf, size_t n)
{
    pysock__fault fault = pysock__last;

    if (pysock__file_room(f, n) < 0)
        return -1;
    memmove(f->in + f->start + n, f->in + f->start, f->end - f->start);
    memcpy(f->in + f->start, buf, n);
    f->end += n;
    pysock__file_count(f);
    pysock__raise(&fault);
    return 0;
}

static ptrdiff_t pysock__file_read1(pysock_file *f, void *buf, size_t size, const char *what)
{
    size_t n;
    ptrdiff_t r;

    if (pysock__file_check(f, what, 0) < 0 || pysock__check_memory(what, buf, size) < 0)
        return -1;
    n = pysock__file_take(f, buf, size);
    if (n || !size)
        return (ptrdiff_t)n;
    if (f->unbuffered || size >= f->size)
        return pysock__file_recv(f, buf, size);
    r = pysock__file_fill(f, f->size);
    return r <= 0 ? r : (ptrdiff_t)pysock__file_take(f, buf, size);
}

PYSOCKDEF ptrdiff_t pysock_file_read1(pysock_file *f, void *buf, size_t size)
{
    return pysock__file_read1(f, buf, size, "file_read1");
}

static ptrdiff_t pysock__file_read(pysock_file *f, void *buf, size_t size, const char *what)
{
    unsigned char *p = (unsigned char *)buf;
    size_t got;
    ptrdiff_t n;

    if (f && f->unbuffered)
        return pysock__file_read1(f, buf, size, what);
    if (pysock__file_check(f, what, 0) < 0 || pysock__check_memory(what, buf, size) < 0)
        return -1;
    for (got = pysock__file_take(f, buf, size); got < size; got += (size_t)n) {
        if (size - got >= f->size) {
            n = pysock__file_recv(f, p + got, size - got);
        } else {
            n = pysock__file_fill(f, f->size);
            if (n > 0)
                n = (ptrdiff_t)pysock__file_take(f, p + got, size - got);
        }
        if (n == 0)
            break;
        if (n < 0)
            return got && pysock__file_give_back(f, buf, got) < 0 ? (ptrdiff_t)got : -1;
    }
    return (ptrdiff_t)got;
}

PYSOCKDEF ptrdiff_t pysock_file_read(pysock_file *f, void *buf, size_t size)
{
    return pysock__file_read(f, buf, size, "file_read");
}

PYSOCKDEF ptrdiff_t pysock_file_readinto(pysock_file *f, void *buf, size_t size)
{
    return pysock__file_read(f, buf, size, "file_readinto");
}

PYSOCKDEF pysock_buf *pysock_file_readall(pysock_file *f)
{
    pysock_buf *all;
    ptrdiff_t n;

    if (pysock__file_check(f, "file_readall", 0) < 0)
        return NULL;
    do
        n = pysock__file_fill(f, f->size);
    while (n > 0);
    if (n < 0)
        return NULL;
    all = pysock_buf_copy(f->end > f->start ? f->in + f->start : NULL, f->end - f->start);
    if (all)
        f->start = f->end = 0;
    pysock__file_count(f);
    return all;
}

/* The length of the line in `in`, with its '\n', or max if it is longer; 0: no end yet. */
static size_t pysock__file_find_line(const pysock_file *f, size_t from, size_t max)
{
    size_t held = f->end - f->start;
    const unsigned char *at;

    held = held < max ? held : max;
    if (from >= held)
        return held == max ? max : 0;
    at = (const unsigned char *)memchr(f->in + f->start + from, '\n', held - from);
    if (at)
        return (size_t)(at - (f->in + f->start)) + 1;
    return held == max ? max : 0;
}

/* Reads until `in` begins with a line (or max bytes of it), or to the end. Its length. */
static ptrdiff_t pysock__file_fill_line(pysock_file *f, size_t max)
{
    size_t seen = 0, len;
    ptrdiff_t n;

    while ((len = pysock__file_find_line(f, seen, max)) == 0) {
        seen = f->end - f->start;
        n = pysock__file_fill(f, f->unbuffered ? 1 : f->size);
        if (n < 0)
            return -1;
        if (n == 0)
            return (ptrdiff_t)(f->end - f->start);
    }
    return (ptrdiff_t)len;
}

PYSOCKDEF ptrdiff_t pysock_file_readline(pysock_file *f, char *line, size_t size)
{
    ptrdiff_t len;

    if (pysock__file_check(f, "file_readline", 0) < 0)
        return -1;
    if (!line || size < 2 || size > PTRDIFF_MAX)
        return pysock__fail_value("file_readline", "the buffer is NULL, or has less than 2 bytes");
    len = pysock__file_fill_line(f, size - 1);
    if (len < 0)
        return -1;
    pysock__file_take(f, line, (size_t)len);
    line[len] = 0;
    return len;
}

PYSOCKDEF void pysock_file_freelines(pysock_buf **lines, size_t count)
{
    size_t i;

    for (i = 0; lines && i < count; i++)
        pysock_buf_release(lines[i]);
    pysock__free(lines);
}

/* Reads lines into `in` until they have more than hint bytes, or to the end. Their size. */
static ptrdiff_t pysock__file_fill_lines(pysock_file *f, size_t hint)
{
    size_t done = 0, seen = 0, held;
    const unsigned char *at;
    ptrdiff_t n = 1;

    while (done <= hint && n > 0) {
        held = f->end - f->start;
        at = held > seen ? (const unsigned char *)memchr(f->in + f->start + seen, '\n', held - seen)
                         : NULL;
        if (at) {
            done = seen = (size_t)(at - (f->in + f->start)) + 1;
            continue;
        }
        seen = held;
        n = pysock__file_fill(f, f->unbuffered ? 1 : f->size);
        if (n == 0)
            done = held;
    }
    return n < 0 ? -1 : (ptrdiff_t)done;
}

PYSOCKDEF ptrdiff_t pysock_file_readlines(pysock_file *f, ptrdiff_t hint, pysock_buf ***lines)
{
    pysock_buf **list = NULL;
    size_t count = 0, cap = 0, at = 0, n;
    const unsigned char *data, *end;
    ptrdiff_t bytes;

    if (pysock__file_check(f, "file_readlines", 0) < 0)
        return -1;
    if (!lines)
        return pysock__fail_value("file_readlines", "lines is NULL");
    *lines = NULL;
    bytes = pysock__file_fill_lines(f, hint > 0 ? (size_t)hint : SIZE_MAX - 1);
    if (bytes < 0)
        return -1;
    for (; at < (size_t)bytes; at += n) {
        data = f->in + f->start + at;
        end = (const unsigned char *)memchr(data, '\n', (size_t)bytes - at);
        n = end ? (size_t)(end - data) + 1 : (size_t)bytes - at;
        if (pysock__reserve(&list, &cap, count + 1, sizeof *list) < 0
            || (list[count] = pysock_buf_copy(data, n)) == NULL) {
            pysock_file_freelines(list, count);
            return pysock__fail_memory("file_readlines");
        }
        count++;
    }
    f->start += (size_t)bytes;
    pysock__file_count(f);
    *lines = list;
    return (ptrdiff_t)count;
}

/* Sends it all, each send with a timeout of its own. *sent: how much was sent. 0 or -1. */
static int pysock__send_rest(pysock *s, const unsigned char *data, size_t size, size_t *sent,
                             const char *what)
{
    unsigned epoch = pysock__epoch(pysock__state());
    ptrdiff_t n;

    for (*sent = 0; *sent < size; *sent += (size_t)n) {
        n = pysock__send(s, data + *sent, size - *sent, 0, what);
        if (n < 0 && epoch != pysock__epoch(pysock__state())) /* the kernel's send was cut short */
            return pysock__fail_ended(what, epoch, pysock__state());
        if (n < 0)
            return -1;
    }
    return 0;
}

static int pysock__file_flush(pysock_file *f, const char *what)
{
    size_t sent;
    int r;

    if (!f)
        return pysock__fail_value(what, "the file is NULL");
    if (!f->out_len)
        return 0;
    r = pysock__send_rest(f->s, f->out, f->out_len, &sent, what);
    f->out_len -= sent;
    if (sent && f->out_len)
        memmove(f->out, f->out + sent, f->out_len);
    return r;
}

PYSOCKDEF int pysock_file_flush(pysock_file *f)
{
    return pysock__file_flush(f, "file_flush");
}

PYSOCKDEF ptrdiff_t pysock_file_write(pysock_file *f, const void *data, size_t size, size_t *taken)
{
    const unsigned char *p = (const unsigned char *)data;
    size_t done = 0, n;
    ptrdiff_t r;

    if (taken)
        *taken = 0;
    if (pysock__file_check(f, "file_write", 1) < 0
        || pysock__check_memory("file_write", data, size) < 0)
        return -1;
    if (f->unbuffered) {
        r = pysock__send(f->s, data, size, 0, f->what);
        if (taken && r > 0)
            *taken = (size_t)r;
        return r;
    }
    r = 0;
    if (f->out_len && size > f->size - f->out_len) { /* fill it up first: full records, and order */
        n = f->size - f->out_len;
        memcpy(f->out + f->out_len, p, n);
        f->out_len += n;
        done = n;
        r = pysock__file_flush(f, f->what);
    }
    if (r == 0 && size - done >= f->size) {
        r = pysock__send_rest(f->s, p + done, size - done, &n, f->what);
        done += n;
    }
    n = r == 0 || size - done <= f->size - f->out_len ? size - done : f->size - f->out_len;
    if (n)
        memcpy(f->out + f->out_len, p + done, n);
    f->out_len += n;
    done += n;
    if (taken)
        *taken = done;
    return r == 0 || (done == size && pysock__last.code == EAGAIN) ? (ptrdiff_t)size : -1;
}

PYSOCKDEF int pysock_file_close(pysock_file *f)
{
    pysock__fault fault;
    int r;

    if (!f)
        return 0;
    r = pysock__file_flush(f, "file_close");
    fault = pysock__last;
    f->start = f->end = 0;
    pysock__file_count(f);
    pysock__file_detach(f->s);
    pysock__free(f->in);
    pysock__free(f->out);
    pysock__free(f);
    return r < 0 ? pysock__raise(&fault) : 0;
}

/* Files: a FILE. Its cookie is the socket's handle for writing, a pysock_file for reading, whose
   buffer is the only one: so wrapping can check whether it holds input. */

static ptrdiff_t pysock__stdio_read(void *cookie, char *buf, size_t size)
{
    pysock_file *f = (pysock_file *)cookie;

    f->timed_out = 0; /* as in stdio: clearerr(), then go on */
    return pysock__file_read1(f, buf, size, "fdopen");
}

static int pysock__stdio_close_reader(void *cookie)
{
    return pysock_file_close((pysock_file *)cookie);
}

/* Sends it all: stdio treats a short count as an error and drops the rest. */
static ptrdiff_t pysock__stdio_write(void *cookie, const char *data, size_t size)
{
    size_t sent;

    if (pysock__send_rest((pysock *)cookie, (const unsigned char *)data, size, &sent, "fdopen")
        == 0)
        return (ptrdiff_t)size;
    return sent ? (ptrdiff_t)sent : -1;
}

static int pysock__stdio_close(void *cookie)
{
    pysock__file_detach((pysock *)cookie);
    return 0;
}

PYSOCKDEF FILE *pysock_fdopen(pysock *s, const char *mode)
{
    int readable, writable, err;
    pysock_file *reader = NULL;
    FILE *f;

    if (pysock__file_mode("fdopen", mode, &readable, &writable) < 0)
        return NULL;
    if ((readable && writable) || !strpbrk(mode, "rw")) {
        pysock__fail_value("fdopen",
                           "a FILE can only read or only write: make one with r and one with w");
        return NULL;
    }
    if (readable && !(reader = pysock__makefile(s, "r", -1, "fdopen")))
        return NULL;
    if (!readable && pysock__file_attach(s, "fdopen") < 0)
        return NULL;
    if (readable)
        f = pysock__stdio_open(reader, pysock__stdio_read, NULL, pysock__stdio_close_reader, &err);
    else
        f = pysock__stdio_open(s, NULL, pysock__stdio_write, pysock__stdio_close, &err);
    if (f)
        return f;
    if (readable)
        pysock_file_close(reader);
    else
        pysock__file_detach(s);
    pysock__fail_os(err, "fdopen", "");
    return NULL;
}

/* ---- >>conveniences ----
   What Python builds on its sockets: create_connection, create_server, sendfile, a server's
   certificate. Locks: the socket's in sendfile, and one for a lookup with a deadline. */

/* Closes s and keeps the error that was the reason. Returns NULL. */
static pysock *pysock__close_failed(pysock *s)
{
    pysock__fault fault = pysock__last;

    pysock_close(s);
    pysock__raise(&fault);
    return NULL;
}

/* Tries one address: a connected socket or NULL. */
static pysock *pysock__try_address(const pysock__maker *m, const pysock_addr *addr, double seconds,
                                   const pysock_connection_options *options)
{
    pysock *s = pysock__socket(m, addr->u.sa.sa_family, SOCK_STREAM, 0);
    int bound = options->source_port || (options->source_host && options->source_host[0]);

    if (!s)
        return NULL;
    if (pysock_settimeout(s, seconds) == 0
        && (!bound || pysock_bind(s, options->source_host, options->source_port) == 0)
        && pysock_connect_addr(s, addr) == 0)
        return s;
    return pysock__close_failed(s);
}

/* Sleeps until the lookup is complete. 0 or a negated errno value. */
static int pysock__lookup_wait(pysock__lookup *l, pysock__waker *waker, int64_t deadline,
                               const pysock__maker *m)
{
    struct pollfd fd;
    int r = 0;

    for (;;) {
        pysock__waker_drain(waker, r > 0);
        if (r >= 0 && m->epoch != pysock__epoch(m->state))
            r = -ESHUTDOWN;
        if (pysock__lookup_complete(l, r < 0 ? NULL : waker))
            return 0;
        if (r < 0)
            return r;
        fd.fd = waker->rfd;
        fd.events = POLLIN;
        r = pysock__sleep(waker, &fd, 1, deadline);
        if (m->epoch != pysock__epoch(m->state))
            r = -ESHUTDOWN;
        else if (r == -EINTR)
            r = pysock__interrupted() ? -EINTR : 0;
        else if (r == 0 && pysock__now() >= deadline)
            r = -ETIMEDOUT;
    }
}

/* Looks a name up on a worker, so that the deadline holds. Fills list, or fails. */
static int pysock__resolve_until(const pysock__maker *m, const char *host, int port,
                                 pysock__addrs *list, int64_t deadline)
{
    pysock__waker *waker;
    pysock__lookup *l;
    int r = pysock__thread_waker(&waker);

    if (r < 0)
        return pysock__fail_os(r, "create_connection", "");
    l = pysock__lookup_new(host, port, AF_UNSPEC, SOCK_STREAM, NULL, NULL);
    if (!l)
        return pysock__fail_memory("create_connection");
    pysock__lookup_start(l);
    r = pysock__lookup_wait(l, waker, deadline, m);
    if (r == -ESHUTDOWN) {
        pysock__fail_ended("create_connection", m->epoch, m->state);
    } else if (r < 0) {
        pysock__fail_os(r, "create_connection: looking up", host);
    } else if (l->err) {
        r = pysock__fail_gai(l->err, l->sys, "create_connection", host);
    } else {
        *list = l->addrs;
        memset(&l->addrs, 0, sizeof l->addrs);
    }
    pysock__lookup_release(l);
    return r < 0 ? -1 : 0;
}

/* Looks up every address of host. 0 or -1. */
static int pysock__resolve_all(const pysock__maker *m, const char *host, int port,
                               pysock__addrs *list, int64_t deadline)
{
    int err = pysock__resolve_numeric(host, port, AF_UNSPEC, SOCK_STREAM, list), sys = 0;

    if (!err)
        return 0;
    if (err == EAI_MEMORY)
        return pysock__fail_memory("create_connection");
    if (pysock__audit_lookup("create_connection", host, port, AF_UNSPEC, SOCK_STREAM) < 0)
        return -1;
    if (deadline != PYSOCK__NEVER)
        return pysock__resolve_until(m, host, port, list, deadline);
    err = pysock__resolve(host, port, AF_UNSPEC, SOCK_STREAM, list, &sys);
    return err ? pysock__fail_gai(err, sys, "create_connection", host) : 0;
}

/* Tries the addresses in turn, each with its share of the time that is left. */
typedef struct pysock__attempt {
    const pysock__maker *maker;
    const char *host;
    int64_t deadline;
    double timeout;
    const pysock_connection_options *options;
    char reported[380]; /* every address's error, for all_errors */
} pysock__attempt;

/* One address's share of the time, in s, when left are to be tried; 0: there is no time left. */
static double pysock__attempt_share(const pysock__attempt *a, size_t left)
{
    int64_t ns = a->deadline - pysock__now();

    if (a->deadline == PYSOCK__NEVER)
        return PYSOCK_NO_TIMEOUT;
    return ns <= 0 ? 0 : (double)ns / 1e9 / (double)left;
}

/* An address has failed: records its error and calls options->failed. */
static void pysock__attempt_failed(pysock__attempt *a, const pysock_addr *addr)
{
    pysock__fault fault = pysock__last;
    size_t used = strlen(a->reported), room = sizeof a->reported - used;

    if ((size_t)snprintf(a->reported + used, room, "%s%s", used ? "; " : "", fault.message) >= room)
        a->reported[sizeof a->reported - 1] = 0; /* truncated */
    if (a->options->failed)
        a->options->failed(a->options->arg, addr);
    pysock__raise(&fault);
}

static pysock *pysock__attempt_all(pysock__attempt *a, const pysock__addrs *list)
{
    pysock *s = NULL;
    size_t i;

    for (i = 0; i < list->count; i++) {
        double share = pysock__attempt_share(a, list->count - i);
        if (share == 0) {
            pysock__fail(PYSOCK_TIMEOUT_ERROR, ETIMEDOUT, "ETIMEDOUT",
                         "create_connection to %.200s: timed out after %g s", a->host, a->timeout);
            return NULL;
        }
        s = pysock__try_address(a->maker, &list->items[i], share, a->options);
        if (s)
            return s;
        pysock__attempt_failed(a, &list->items[i]);
        if (pysock__last.kind == PYSOCK_MEMORY_ERROR || pysock__last.code == ESHUTDOWN
            || pysock__last.code == EINTR)
            return NULL;
    }
    if (a->options->all_errors && list->count > 1) {
        pysock__fault fault = pysock__last;
        snprintf(fault.message, sizeof fault.message, "%s", a->reported);
        pysock__raise(&fault);
    }
    return NULL;
}

PYSOCKDEF pysock *pysock_create_connection_ex(const char *host, int port, double timeout_seconds,
                                              const pysock_connection_options *options)
{
    pysock_connection_options o = PYSOCK_CONNECTION_OPTIONS_INIT;
    pysock__maker m = pysock__maker_begin("create_connection");
    pysock__fault before = pysock__last;
    pysock__addrs list = {NULL, 0, 0, 0};
    pysock__attempt a;
    pysock *s = NULL;
    int64_t ns;

    if (options
        && pysock__take_options(&o, sizeof o, options, "create_connection",
                                "PYSOCK_CONNECTION_OPTIONS_INIT")
               < 0)
        return NULL;
    if (timeout_seconds == PYSOCK_DEFAULT_TIMEOUT)
        timeout_seconds = pysock_getdefaulttimeout();
    ns = pysock__timeout_ns(timeout_seconds, "create_connection");
    if (ns == -2 || pysock__check_host("create_connection", host, port) < 0)
        return NULL;
    if (ns == 0) {
        pysock__fail_value("create_connection",
                           "the timeout is 0; for a connect that does not wait "
                           "use pysock_socket() and pysock_connect()");
        return NULL;
    }
    memset(&a, 0, sizeof a);
    a.maker = &m;
    a.host = host && host[0] ? host : "localhost";
    a.timeout = timeout_seconds;
    a.deadline = pysock__deadline_in(ns);
    a.options = &o;
    pysock__install(); /* a fork must find the resolver's lock free */
    if (pysock__resolve_all(&m, a.host, port, &list, a.deadline) == 0)
        s = pysock__attempt_all(&a, &list);
    pysock__free(list.items);
    if (s && pysock_settimeout(s, timeout_seconds) < 0)
        return pysock__close_failed(s);
    if (s)
        pysock__last = before; /* errors of earlier addresses are no failure */
    return s;
}

PYSOCKDEF pysock *pysock_create_connection(const char *host, int port, double timeout_seconds)
{
    return pysock_create_connection_ex(host, port, timeout_seconds, NULL);
}

PYSOCKDEF int pysock_has_dualstack_ipv6(void)
{
    int fd = pysock__sys_socket(AF_INET6, SOCK_STREAM, 0), off = 0, r;

    if (fd < 0)
        return 0;
    r = pysock__sys_setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    pysock__fd_close(fd);
    return r == 0;
}

/* What must be set before bind. */
static int pysock__server_prepare(pysock *s, int family, const pysock_server_options *options)
{
    if (family != AF_UNIX && pysock_setsockopt_int(s, SOL_SOCKET, SO_REUSEADDR, 1) < 0)
        return -1;
#ifdef SO_REUSEPORT
    if (options->reuse_port && pysock_setsockopt_int(s, SOL_SOCKET, SO_REUSEPORT, 1) < 0)
        return -1;
#else
    if (options->reuse_port)
        return pysock__fail_value("create_server", "there is no SO_REUSEPORT on this platform");
#endif
    if (family != AF_INET6)
        return 0;
    return pysock_setsockopt_int(s, IPPROTO_IPV6, IPV6_V6ONLY, !options->dualstack_ipv6);
}

/* Adds the address to the message of a failed bind, as Python does, and closes s. */
static pysock *pysock__server_failed(pysock *s, const char *host, int port)
{
    pysock__fault fault = pysock__last;

    pysock_close(s);
    pysock__fail(fault.kind, fault.code, fault.reason,
                 "%.280s (while attempting to bind on address '%.80s', %d)", fault.message,
                 host ? host : "", port);
    return NULL;
}

static pysock *pysock__create_server(const char *host, int port,
                                     const pysock_server_options *options)
{
    pysock__maker m = pysock__maker_begin("create_server");
    int family = options->family;
    pysock *s;

    if (!family)
        family = options->dualstack_ipv6 || (host && strchr(host, ':')) ? AF_INET6 : AF_INET;
    if (options->dualstack_ipv6 && (family != AF_INET6 || !pysock_has_dualstack_ipv6())) {
        pysock__fail_value("create_server", family != AF_INET6
                                                ? "dualstack_ipv6 needs family AF_INET6"
                                                : "dualstack_ipv6 is not supported here");
        return NULL;
    }
    if (pysock__check_family("create_server", family) < 0
        || (family != AF_UNIX && pysock__check_host("create_server", host, port) < 0))
        return NULL;
    s = pysock__socket(&m, family, SOCK_STREAM, 0);
    if (!s)
        return NULL;
    if (pysock__server_prepare(s, family, options) < 0)
        return pysock__close_failed(s);
    if (pysock_bind(s, host, port) < 0)
        return pysock__server_failed(s, host, port);
    if (pysock_listen(s, options->backlog) < 0)
        return pysock__close_failed(s);
    return s;
}

PYSOCKDEF pysock *pysock_create_server_ex(const char *host, int port,
                                          const pysock_server_options *options)
{
    pysock_server_options o = PYSOCK_SERVER_OPTIONS_INIT;

    if (options
        && pysock__take_options(&o, sizeof o, options, "create_server",
                                "PYSOCK_SERVER_OPTIONS_INIT")
               < 0)
        return NULL;
    return pysock__create_server(host, port, &o);
}

PYSOCKDEF pysock *pysock_create_server(const char *host, int port, int backlog)
{
    pysock_server_options o = PYSOCK_SERVER_OPTIONS_INIT;

    o.backlog = backlog;
    return pysock__create_server(host, port, &o);
}

/* Conveniences: sendfile. */

#define PYSOCK__SENDFILE_ONCE ((size_t)1 << 30) /* bytes per call of the kernel */

/* One successful sendfile(2), with waits for room within one timeout; queued output goes first. The
   bytes sent, 0 at the end of the file, or -1. *fallback: the kernel cannot do it. */
static ptrdiff_t pysock__sendfile_kernel_locked(pysock__call *c, int file, int64_t offset,
                                                size_t count, int *fallback)
{
    pysock__sock *s = c->s;
    ptrdiff_t r;

    c->deadline = 0;
    pysock__call_progress(c);
    for (;;) {
        if (pysock__await_connect_locked(c) < 0)
            return -1;
        if (!pysock__queue_empty(&s->queue) && pysock__flush_wait_locked(c) < 0)
            return -1;
        s->kernel_sends++;
        s->kernel_writes++;
        pysock__enter_kernel_locked(s);
        r = pysock__sys_sendfile(s->fd, file, offset, count);
        pysock__leave_kernel_locked(s);
        s->kernel_sends--;
        s->kernel_writes--;
        if (!pysock__queue_empty(&s->queue)) {
            pysock__flush_or_kick_locked(s);
            pysock__notify_locked(s, NULL); /* calls that waited for this send */
        }
        *fallback = r == -EOPNOTSUPP;
        if (r >= 0 || *fallback)
            return r;
        if (pysock__retry_locked(c, r, POLLOUT) < 0)
            return -1;
    }
}

/* The same by reading and sending: over TLS, or where the kernel cannot. *sent counts the bytes
   sent, after a failure too. */
static ptrdiff_t pysock__sendfile_copy_locked(pysock__call *c, int file, int64_t offset,
                                              size_t count, int64_t *sent)
{
    char chunk[16384];
    size_t done = 0;
    ptrdiff_t n, r;

    pysock__unlock(&c->s->lock);
    n = pysock__fd_read_at(file, chunk, count < sizeof chunk ? count : sizeof chunk, offset);
    pysock__lock(&c->s->lock);
    if (pysock__call_check_locked(c) < 0)
        return -1;
    if (n < 0)
        return pysock__fail_os((int)n, "sendfile: reading the file", "");
    while (done < (size_t)n) {
        c->deadline = 0;
        pysock__call_progress(c);
        r = pysock__send_locked(c, chunk + done, (size_t)n - done, 0);
        if (r < 0)
            return -1;
        done += (size_t)r;
        *sent += r;
    }
    return n;
}

/* Whether the socket and file may be used. */
static int pysock__sendfile_check_locked(pysock__call *c, int file, int64_t count)
{
    int64_t r = pysock__fd_size(file);

    if (r == -EINVAL)
        return pysock__fail_value("sendfile", "the descriptor is not that of a regular file");
    if (r < 0)
        return pysock__fail_os((int)r, "sendfile", "the file's descriptor");
    if (count == 0)
        return pysock__fail_value("sendfile",
                                  "count is 0; a negative count means the rest of the file");
    if (c->s->type != SOCK_STREAM)
        return pysock__fail_value("sendfile", "only stream sockets are supported");
    if (c->waits == PYSOCK__WAITS_NEVER)
        return pysock__fail_value("sendfile", "non-blocking sockets are not supported");
    if (c->waits == PYSOCK__WAITS_UNTIL)
        pysock__fd_set_nonblocking(c->s->fd, 1); /* shared: others may have cleared it */
    return c->s->shut_when_flushed ? pysock__call_fail(c, -EPIPE) : 0;
}

/* Sends count bytes from offset on (negative: all). *sent counts them, after a failure too. */
static int pysock__sendfile_locked(pysock__call *c, int file, int64_t offset, int64_t count,
                                   int64_t *sent)
{
    int fallback =
        pysock__is_tls_locked(c->s)
        || (c->waits == PYSOCK__WAITS_FOREVER && pysock__load(&pysock__reactor.threadless));
    ptrdiff_t n = 1;
    size_t want;

    while (n > 0 && (count < 0 || *sent < count)) {
        want = PYSOCK__SENDFILE_ONCE;
        if (count >= 0 && count - *sent < (int64_t)want)
            want = (size_t)(count - *sent);
        if (!fallback) {
            n = pysock__sendfile_kernel_locked(c, file, offset + *sent, want, &fallback);
            *sent += n > 0 ? n : 0;
        }
        if (fallback) {
            n = pysock__sendfile_copy_locked(c, file, offset + *sent, want, sent);
        } else if (n > 0 && (size_t)n < want && offset + *sent < pysock__fd_size(file)
                   && pysock__stopped_locked(c) && pysock__call_interrupted_locked(c) < 0) {
            return -1;
        }
    }
    return n < 0 ? -1 : 0;
}

PYSOCKDEF int64_t pysock_sendfile(pysock *s, int fd, int64_t offset, int64_t count)
{
    pysock__call c;
    int64_t sent = 0;
    int r;

    if (pysock__call_begin(&c, s, "sendfile") < 0)
        return -1;
    r = pysock__sendfile_check_locked(&c, fd, count);
    if (r == 0 && offset < 0 && (offset = pysock__fd_seek(fd, -1)) < 0)
        r = pysock__fail_os((int)offset, "sendfile", "the file's descriptor");
    if (r == 0) {
        r = pysock__sendfile_locked(&c, fd, offset, count, &sent);
        pysock__fd_seek(fd, offset + sent);
        if (r < 0)
            pysock__raise(&pysock__last); /* errno is the send's */
    }
    pysock__call_end(&c);
    return r < 0 ? -1 : sent;
}

#ifndef PYSOCK_NO_SSL

/* Conveniences: a server's certificate. */

/* A context that verifies by the CAs in that file, or not at all (NULL); never the host name. */
static pysock_ssl_context *pysock__inspection_context(const char *ca_certs)
{
    pysock_ssl_context *ctx = pysock_ssl_context_new(PYSOCK_SERVER_AUTH);

    if (!ctx)
        return NULL;
    if (pysock_ssl_set_check_hostname(ctx, 0) == 0
        && (ca_certs ? pysock_ssl_load_verify_locations(ctx, ca_certs, NULL)
                     : pysock_ssl_set_verify_mode(ctx, PYSOCK_CERT_NONE))
               == 0)
        return ctx;
    pysock_ssl_context_release(ctx);
    return NULL;
}

/* The peer's certificate in PEM, or NULL; the handshake has until deadline. */
static pysock_buf *pysock__inspect(pysock *s, pysock_ssl_context *ctx, const char *host,
                                   int64_t deadline)
{
    int64_t left = deadline == PYSOCK__NEVER ? 0 : deadline - pysock__now();
    pysock_buf *der, *pem;

    if (left < 0) {
        pysock__fail(PYSOCK_TIMEOUT_ERROR, ETIMEDOUT, "ETIMEDOUT",
                     "ssl_get_server_certificate: timed out before the handshake");
        return NULL;
    }
    if ((left && pysock_settimeout(s, (double)left / 1e9) < 0)
        || pysock_ssl_wrap_socket(s, ctx, host) < 0
        || (der = pysock_ssl_getpeercert_der(s)) == NULL)
        return NULL;
    pem = pysock_ssl_der_cert_to_pem_cert(der->data, der->size);
    pysock_buf_release(der);
    return pem;
}

PYSOCKDEF pysock_buf *pysock_ssl_get_server_certificate(const char *host, int port,
                                                        const char *ca_certs,
                                                        double timeout_seconds)
{
    pysock_ssl_context *ctx;
    pysock_buf *pem = NULL;
    int64_t ns, deadline;
    pysock *s;

    if (timeout_seconds == PYSOCK_DEFAULT_TIMEOUT)
        timeout_seconds = pysock_getdefaulttimeout();
    ns = pysock__timeout_ns(timeout_seconds, "ssl_get_server_certificate");
    deadline = pysock__deadline_in(ns);
    ctx = ns == -2 ? NULL : pysock__inspection_context(ca_certs);
    if (!ctx)
        return NULL;
    s = pysock_create_connection(host, port, timeout_seconds);
    if (s)
        pem = pysock__inspect(s, ctx, host && host[0] ? host : NULL, deadline);
    if (pem)
        pysock_close(s);
    else if (s)
        pysock__close_failed(s);
    pysock_ssl_context_release(ctx);
    return pem;
}

#endif /* PYSOCK_NO_SSL */

/* ---- >>without-ssl ----
   PYSOCK_NO_SSL: every call of the ssl module exists and fails with ENOTSUP. No lock. */

#ifdef PYSOCK_NO_SSL

static int pysock__no_ssl(const char *what)
{
    return pysock__fail(PYSOCK_OS_ERROR, ENOTSUP, "ENOTSUP",
                        "%s: not supported: this program was compiled with PYSOCK_NO_SSL", what);
}

#ifdef __GNUC__
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#endif
#define PYSOCK__STUB(type, name, result, parameters)                                               \
    PYSOCKDEF type pysock_##name parameters                                                        \
    {                                                                                              \
        return pysock__no_ssl(#name), result;                                                      \
    }

/* clang-format off */
PYSOCK__STUB(pysock_bio *, bio_new, NULL, (void))
PYSOCK__STUB(pysock_bio *, bio_retain, NULL, (pysock_bio *bio))
PYSOCK__STUB(ptrdiff_t, bio_read, -1, (pysock_bio *bio, void *buf, size_t size))
PYSOCK__STUB(ptrdiff_t, bio_write, -1, (pysock_bio *bio, const void *data, size_t size))
PYSOCK__STUB(int, bio_write_eof, -1, (pysock_bio *bio))
PYSOCK__STUB(ptrdiff_t, bio_pending, -1, (pysock_bio *bio))
PYSOCK__STUB(int, bio_eof, 0, (pysock_bio *bio))
PYSOCK__STUB(pysock_ssl_cert *, ssl_cert_parse, NULL, (const void *der, size_t size))
PYSOCK__STUB(pysock_buf *, ssl_der_cert_to_pem_cert, NULL, (const void *der, size_t size))
PYSOCK__STUB(pysock_buf *, ssl_pem_cert_to_der_cert, NULL, (const char *pem))
PYSOCK__STUB(int, ssl_cert_time_to_seconds, -1, (const char *cert_time, int64_t *seconds))
PYSOCK__STUB(int, ssl_match_hostname, -1, (const void *der, size_t size, const char *hostname))
PYSOCK__STUB(int, ssl_txt2obj, -1, (const char *text, int names, pysock_ssl_oid *out))
PYSOCK__STUB(int, ssl_nid2obj, -1, (int nid, pysock_ssl_oid *out))
PYSOCK__STUB(int, ssl_rand_bytes, -1, (void *buf, size_t size))
PYSOCK__STUB(pysock_ssl_context *, ssl_client_context, NULL, (void))
PYSOCK__STUB(pysock_ssl_context *, ssl_server_context, NULL, (void))
PYSOCK__STUB(pysock_ssl_context *, ssl_create_default_context, NULL, (pysock_ssl_purpose purpose))
PYSOCK__STUB(pysock_ssl_context *, ssl_context_new, NULL, (pysock_ssl_purpose purpose))
PYSOCK__STUB(pysock_ssl_context *, ssl_context_new_protocol, NULL, (pysock_ssl_protocol protocol))
PYSOCK__STUB(pysock_ssl_protocol, ssl_get_protocol, (pysock_ssl_protocol)0,
             (pysock_ssl_context *ctx))
PYSOCK__STUB(pysock_ssl_context *, ssl_context_retain, NULL, (pysock_ssl_context *ctx))
PYSOCK__STUB(int, ssl_load_cert_chain, -1,
             (pysock_ssl_context *ctx, const char *certfile, const char *keyfile))
PYSOCK__STUB(int, ssl_load_cert_chain_data, -1,
             (pysock_ssl_context *ctx, const void *cert, size_t cert_size, const void *key,
              size_t key_size))
PYSOCK__STUB(int, ssl_load_cert_chain_ex, -1,
             (pysock_ssl_context *ctx, const pysock_ssl_chain_options *options))
PYSOCK__STUB(int, ssl_load_verify_locations, -1,
             (pysock_ssl_context *ctx, const char *cafile, const char *capath))
PYSOCK__STUB(int, ssl_load_verify_data, -1,
             (pysock_ssl_context *ctx, const void *data, size_t size))
PYSOCK__STUB(int, ssl_load_verify_directory, -1, (pysock_ssl_context *ctx, const char *path))
PYSOCK__STUB(int, ssl_load_default_certs, -1, (pysock_ssl_context *ctx))
PYSOCK__STUB(int, ssl_get_default_verify_paths, -1, (pysock_ssl_verify_paths *paths))
PYSOCK__STUB(ptrdiff_t, ssl_ca_count, -1, (pysock_ssl_context *ctx))
PYSOCK__STUB(ptrdiff_t, ssl_get_ca_certs, -1,
             (pysock_ssl_context *ctx, pysock_buf **out, size_t count))
PYSOCK__STUB(int, ssl_cert_store_stats, -1,
             (pysock_ssl_context *ctx, pysock_ssl_store_stats *stats))
PYSOCK__STUB(int, ssl_set_verify_mode, -1, (pysock_ssl_context *ctx, pysock_ssl_verify_mode mode))
PYSOCK__STUB(pysock_ssl_verify_mode, ssl_get_verify_mode, (pysock_ssl_verify_mode)0,
             (pysock_ssl_context *ctx))
PYSOCK__STUB(int, ssl_set_check_hostname, -1, (pysock_ssl_context *ctx, int on))
PYSOCK__STUB(int, ssl_get_check_hostname, 0, (pysock_ssl_context *ctx))
PYSOCK__STUB(int, ssl_set_hostname_checks_common_name, -1, (pysock_ssl_context *ctx, int on))
PYSOCK__STUB(int, ssl_get_hostname_checks_common_name, 0, (pysock_ssl_context *ctx))
PYSOCK__STUB(int, ssl_set_verify_flags, -1, (pysock_ssl_context *ctx, unsigned flags))
PYSOCK__STUB(unsigned, ssl_get_verify_flags, 0, (pysock_ssl_context *ctx))
PYSOCK__STUB(int, ssl_set_minimum_version, -1,
             (pysock_ssl_context *ctx, pysock_ssl_tls_version version))
PYSOCK__STUB(pysock_ssl_tls_version, ssl_get_minimum_version, (pysock_ssl_tls_version)0,
             (pysock_ssl_context *ctx))
PYSOCK__STUB(int, ssl_set_maximum_version, -1,
             (pysock_ssl_context *ctx, pysock_ssl_tls_version version))
PYSOCK__STUB(pysock_ssl_tls_version, ssl_get_maximum_version, (pysock_ssl_tls_version)0,
             (pysock_ssl_context *ctx))
PYSOCK__STUB(int, ssl_set_options, -1, (pysock_ssl_context *ctx, uint64_t options))
PYSOCK__STUB(uint64_t, ssl_get_options, 0, (pysock_ssl_context *ctx))
PYSOCK__STUB(int, ssl_set_ciphers, -1, (pysock_ssl_context *ctx, const char *ciphers))
PYSOCK__STUB(ptrdiff_t, ssl_get_ciphers, -1,
             (pysock_ssl_context *ctx, pysock_ssl_cipher_info *out, size_t count))
PYSOCK__STUB(int, ssl_set_security_level, -1, (pysock_ssl_context *ctx, int level))
PYSOCK__STUB(int, ssl_get_security_level, -1, (pysock_ssl_context *ctx))
PYSOCK__STUB(int, ssl_set_ecdh_curve, -1, (pysock_ssl_context *ctx, const char *names))
PYSOCK__STUB(int, ssl_set_alpn_protocols, -1,
             (pysock_ssl_context *ctx, const char *const *names, size_t count))
PYSOCK__STUB(int, ssl_set_sni_callback, -1,
             ( pysock_ssl_context *ctx, int (*fn)(void *arg, const pysock_ssl_client_hello *hello),
              void *arg))
PYSOCK__STUB(int, ssl_set_message_callback, -1,
             (pysock_ssl_context *ctx, void (*fn)(void *arg, const pysock_ssl_message *m),
              void *arg))
PYSOCK__STUB(int, ssl_set_keylog_filename, -1, (pysock_ssl_context *ctx, const char *filename))
PYSOCK__STUB(ptrdiff_t, ssl_get_keylog_filename, -1,
             (pysock_ssl_context *ctx, char *name, size_t size))
PYSOCK__STUB(int, ssl_set_session_cache, -1, (pysock_ssl_context *ctx, size_t count))
PYSOCK__STUB(int, ssl_get_session_stats, -1,
             (pysock_ssl_context *ctx, pysock_ssl_session_stats *stats))
PYSOCK__STUB(pysock_ssl_session *, ssl_session_retain, NULL, (pysock_ssl_session *session))
PYSOCK__STUB(ptrdiff_t, ssl_session_id, -1,
             (const pysock_ssl_session *session, unsigned char id[32]))
PYSOCK__STUB(int64_t, ssl_session_time, -1, (const pysock_ssl_session *session))
PYSOCK__STUB(int, ssl_session_timeout, -1, (const pysock_ssl_session *session))
PYSOCK__STUB(int, ssl_wrap_socket, -1,
             (pysock *s, pysock_ssl_context *ctx, const char *server_hostname))
PYSOCK__STUB(int, ssl_wrap_socket_ex, -1,
             (pysock *s, pysock_ssl_context *ctx, const pysock_ssl_wrap_options *options))
PYSOCK__STUB(pysock *, ssl_wrap_bio, NULL,
             (pysock_ssl_context *ctx, pysock_bio *incoming, pysock_bio *outgoing,
              const pysock_ssl_wrap_options *options))
PYSOCK__STUB(int, ssl_do_handshake, -1, (pysock *s))
PYSOCK__STUB(int, ssl_unwrap, -1, (pysock *s))
PYSOCK__STUB(int, ssl_server_side, 0, (pysock *s))
PYSOCK__STUB(const char *, ssl_version, NULL, (pysock *s))
PYSOCK__STUB(pysock_ssl_context *, ssl_get_context, NULL, (pysock *s))
PYSOCK__STUB(int, ssl_set_context, -1, (pysock *s, pysock_ssl_context *ctx))
PYSOCK__STUB(int, ssl_cipher, -1, (pysock *s, pysock_ssl_cipher_info *info))
PYSOCK__STUB(ptrdiff_t, ssl_shared_ciphers, -1,
             (pysock *s, pysock_ssl_cipher_info *out, size_t count))
PYSOCK__STUB(const char *, ssl_compression, NULL, (pysock *s))
PYSOCK__STUB(pysock_ssl_cert *, ssl_getpeercert, NULL, (pysock *s))
PYSOCK__STUB(pysock_buf *, ssl_getpeercert_der, NULL, (pysock *s))
PYSOCK__STUB(ptrdiff_t, ssl_get_unverified_chain, -1, (pysock *s, pysock_buf **out, size_t count))
PYSOCK__STUB(ptrdiff_t, ssl_get_verified_chain, -1, (pysock *s, pysock_buf **out, size_t count))
PYSOCK__STUB(ptrdiff_t, ssl_get_channel_binding, -1,
             (pysock *s, const char *type, void *out, size_t size))
PYSOCK__STUB(ptrdiff_t, ssl_selected_alpn_protocol, -1, (pysock *s, char *name, size_t size))
PYSOCK__STUB(ptrdiff_t, ssl_server_hostname, -1, (pysock *s, char *name, size_t size))
PYSOCK__STUB(pysock_ssl_session *, ssl_get_session, NULL, (pysock *s))
PYSOCK__STUB(int, ssl_set_session, -1, (pysock *s, pysock_ssl_session *session))
PYSOCK__STUB(int, ssl_session_reused, 0, (pysock *s))
PYSOCK__STUB(ptrdiff_t, ssl_pending, -1, (pysock *s))
PYSOCK__STUB(int, ssl_eof_is_clean, 0, (pysock *s))
PYSOCK__STUB(pysock_buf *, ssl_get_server_certificate, NULL,
             (const char *host, int port, const char *ca_certs, double timeout_seconds))
/* clang-format on */

PYSOCKDEF void pysock_ssl_context_release(pysock_ssl_context *ctx) {}
PYSOCKDEF void pysock_ssl_session_release(pysock_ssl_session *session) {}
PYSOCKDEF void pysock_ssl_cert_free(pysock_ssl_cert *cert) {}
PYSOCKDEF void pysock_bio_release(pysock_bio *bio) {}

#undef PYSOCK__STUB
#ifdef __GNUC__
#pragma GCC diagnostic pop
#endif

PYSOCKDEF int pysock_is_ssl(pysock *s)
{
    pysock_fileno(s); /* for the error of a closed socket */
    return 0;
}

#endif /* PYSOCK_NO_SSL */

#endif /* PYSOCK__IMPLEMENTED */
#endif /* PYSOCK_IMPLEMENTATION */

/* Licence: at your choice either of the following.

   A. MIT License. Copyright (c) 2026 the pysock authors

   Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
   associated documentation files (the "Software"), to deal in the Software without restriction,
   including without limitation the rights to use, copy, modify, merge, publish, distribute,
   sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
   furnished to do so, subject to the following conditions:

   The above copyright notice and this permission notice shall be included in all copies or
   substantial portions of the Software.

   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
   NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
   NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
   DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
   OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

   B. Public domain (www.unlicense.org)

   This is free and unencumbered software released into the public domain. Anyone is free to copy,
   modify, publish, use, compile, sell, or distribute this software, either in source code form or
   as a compiled binary, for any purpose, commercial or non-commercial, and by any means.

   In jurisdictions that recognize copyright laws, the author or authors of this software dedicate
   any and all copyright interest in the software to the public domain. We make this dedication for
   the benefit of the public at large and to the detriment of our heirs and successors. We intend
   this dedication to be an overt act of relinquishment in perpetuity of all present and future
   rights to this software under copyright law.

   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
   NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
   NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
   LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
   CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE. */
