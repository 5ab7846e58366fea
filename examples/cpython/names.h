/* The functions of _socket that are about names and numbers. */
#ifndef NAMES_H
#define NAMES_H

#include "binding.h"

extern PyMethodDef names_methods[];

/* The module's state. */
typedef struct socket_state {
    binding *b;
    PyObject *keep; /* owns b */
    PyTypeObject *socket_type;
} socket_state;

static inline binding *binding_of_module(PyObject *module)
{
    return ((socket_state *)PyModule_GetState(module))->b;
}

#endif
