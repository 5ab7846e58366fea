/* Python's address tuples, and the system's addresses. */
#ifndef ADDRESS_H
#define ADDRESS_H

#include "binding.h"

/* The address in o, in the family of s; names are looked up without the interpreter's lock. caller:
   for messages. -1 with an exception. */
int address_from_object(binding_socket *s, PyObject *o, pysock_addr *addr, const char *caller);

/* Python's tuple, str or bytes for an address; None if there is none. proto: the socket's, which
   determines the form of a Bluetooth address. */
PyObject *address_to_object(const pysock_addr *addr, int proto);

/* A host name as text: ASCII as it is (all of it through the codec where strict), other str by
   Python's idna codec, bytes and bytearray as they are; None, where allowed, as NULL. *keep owns
   the text. -1 with an exception. */
int host_from_object(PyObject *o, int none_allowed, int strict, const char **text, PyObject **keep);

/* The headers that define the families and constants. */
#include <net/if.h>
#include <netinet/udp.h>
#include <sys/ioctl.h>
#ifdef __linux__
#include <linux/can.h>
#include <linux/can/bcm.h>
#include <linux/can/isotp.h>
#include <linux/can/j1939.h>
#include <linux/can/raw.h>
#include <linux/if_alg.h>
#include <linux/netlink.h>
#include <linux/qrtr.h>
#include <linux/tipc.h>
#include <linux/vm_sockets.h>
#include <netpacket/packet.h>
#endif

#endif
