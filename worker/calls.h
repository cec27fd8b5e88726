/* What the modules in C have in common: arguments that are descriptors, and calls that are begun
 * anew after a signal. No call here blocks, so none gives up the GIL. */

#ifndef CALLS_H
#define CALLS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <sys/socket.h>

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static inline int is_for_later(int error) { return error == EAGAIN || error == EWOULDBLOCK; }

/* -1 with an exception for what is no number of C. */
static inline int number_of(PyObject *number) {
    long found = PyLong_AsLong(number);
    if (found == -1 && PyErr_Occurred())
        return -1;
    if (found != (int)found) {
        PyErr_SetString(PyExc_OverflowError, "the number is too large");
        return -1;
    }
    return (int)found;
}

static inline int has_count(Py_ssize_t count, Py_ssize_t wanted) {
    if (count == wanted)
        return 1;
    PyErr_SetString(PyExc_TypeError, "wrong number of arguments");
    return 0;
}

/* recv(2) and send(2) that wait for nothing and raise no signal; -1 with errno. */
static inline ssize_t recv_once(int fd, void *room, size_t size, int flags) {
    ssize_t found;
    do {
        found = recv(fd, room, size, flags | MSG_DONTWAIT);
    } while (found < 0 && errno == EINTR);
    return found;
}

static inline ssize_t send_once(int fd, const void *data, size_t size, int flags) {
    ssize_t sent;
    do {
        sent = send(fd, data, size, flags | MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent;
}

#endif
