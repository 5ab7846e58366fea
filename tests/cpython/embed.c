/* Begins and ends Python several times in one process: embed ROUNDS CODE. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdlib.h>

int main(int argc, char **argv)
{
    int rounds = argc == 3 ? atoi(argv[1]) : 0, failed = !rounds;

    while (!failed && rounds-- > 0) {
        Py_Initialize();
        failed = PyRun_SimpleString(argv[2]) < 0;
        failed |= Py_FinalizeEx() < 0;
    }
    return failed;
}
