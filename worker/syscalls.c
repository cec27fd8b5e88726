/* The system calls of each connection and message, without what Python puts around them.
 *
 * syscalls.py says what these functions do, and does the same where nothing is compiled: they
 * take the descriptors where that one takes the sockets.
 */

#include "calls.h"

#include <sys/epoll.h>
#include <sys/ioctl.h>

enum { UNACKNOWLEDGED = 0x5411 }; /* SIOCOUTQ of linux/sockios.h: a package of its own in places */
enum { EMPTY = -1, LOST = -2, REFUSED = -3 }; /* as in syscalls.py */
enum { LEFT_BITS = 20 }; /* as in syscalls.py */
enum { BATCH = 256 };    /* as in syscalls.py */

static Py_buffer buffer; /* the worker's one buffer, held for good */
static PyObject *ready;  /* the name of a handler's method */

static PyObject *use(PyObject *module, PyObject *shared) {
    (void)module;
    if (buffer.obj != NULL)
        PyBuffer_Release(&buffer);
    if (PyObject_GetBuffer(shared, &buffer, PyBUF_WRITABLE) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Arguments come as (socket, descriptor, ...): the descriptor, or an exception. */
static int descriptor_of(PyObject *const *args, Py_ssize_t count, Py_ssize_t wanted) {
    return has_count(count, wanted) ? number_of(args[1]) : -1;
}

/* Likewise, of what reads into the buffer. */
static int reader_of(PyObject *const *args, Py_ssize_t count, Py_ssize_t wanted) {
    if (buffer.obj != NULL)
        return descriptor_of(args, count, wanted);
    PyErr_SetString(PyExc_TypeError, "use() was not called");
    return -1;
}

static ssize_t read_once(int fd) {
    ssize_t size = recv_once(fd, buffer.buf, (size_t)buffer.len, 0);
    if (size >= 0)
        return size;
    return is_for_later(errno) ? EMPTY : LOST;
}

static ssize_t write_once(int fd, const void *data, Py_ssize_t size, int is_last) {
    ssize_t sent = send_once(fd, data, (size_t)size, is_last ? MSG_MORE : 0);
    if (sent >= 0)
        return sent;
    return is_for_later(errno) ? 0 : LOST;
}

static PyObject *unacknowledged(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    int fd = descriptor_of(args, count, 2);
    if (PyErr_Occurred())
        return NULL;
    int size = 0;
    return PyLong_FromLong(ioctl(fd, UNACKNOWLEDGED, &size) < 0 ? 0 : size);
}

static PyObject *reset_on_close(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    int fd = descriptor_of(args, count, 2);
    if (PyErr_Occurred())
        return NULL;
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now); /* it may be gone */
    Py_RETURN_NONE;
}

static PyObject *receive(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    int fd = reader_of(args, count, 2);
    if (PyErr_Occurred())
        return NULL;
    return PyLong_FromSsize_t(read_once(fd));
}

static PyObject *give(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    int fd = descriptor_of(args, count, 4);
    Py_buffer data;
    if (PyErr_Occurred() || PyObject_GetBuffer(args[2], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    ssize_t sent = write_once(fd, data.buf, data.len, args[3] == Py_True);
    PyBuffer_Release(&data);
    return PyLong_FromSsize_t(sent);
}

static PyObject *pass_on(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    int fd = reader_of(args, count, 5);
    int to_fd = PyErr_Occurred() ? -1 : number_of(args[3]);
    if (PyErr_Occurred())
        return NULL;
    ssize_t size = read_once(fd);
    if (size <= 0)
        return PyLong_FromSsize_t(size);
    /* With a full buffer more may follow: then it is not the last one. */
    int is_last = args[4] == Py_True && size < buffer.len;
    ssize_t sent = write_once(to_fd, buffer.buf, size, is_last);
    if (sent < 0)
        return PyLong_FromSsize_t(REFUSED - size);
    return PyLong_FromSsize_t(size | (size - sent) << LEFT_BITS);
}

/* The handler's exception, to whom it concerns; -1 where that one raises too, or for no error. */
static int tell(PyObject *on_bug, PyObject *handler) {
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return -1;
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    if (trace != NULL)
        PyException_SetTraceback(error, trace);
    PyObject *told = PyObject_CallFunctionObjArgs(on_bug, handler, error, NULL);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(trace);
    Py_XDECREF(told);
    return told == NULL ? -1 : 0;
}

/* Hand one event to whoever the table has for its descriptor. */
static int hand_over(PyObject *table, const struct epoll_event *event, PyObject *on_bug) {
    PyObject *fd = PyLong_FromLong(event->data.fd);
    if (fd == NULL)
        return -1;
    PyObject *handler = PyDict_GetItemWithError(table, fd);
    Py_DECREF(fd);
    if (handler == NULL)
        return PyErr_Occurred() ? -1 : 0;
    PyObject *mask = PyLong_FromUnsignedLong(event->events);
    if (mask == NULL)
        return -1;
    Py_INCREF(handler); /* it may leave the table */
    PyObject *call[] = {handler, mask};
    PyObject *done = PyObject_VectorcallMethod(ready, call, 2, NULL);
    int result = done == NULL ? tell(on_bug, handler) : 0;
    Py_XDECREF(done);
    Py_DECREF(mask);
    Py_DECREF(handler);
    return result;
}

static PyObject *dispatch(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    struct epoll_event events[BATCH]; /* here, for a handler may come back to us */
    int fd = descriptor_of(args, count, 4);
    if (PyErr_Occurred())
        return NULL;
    int found = epoll_wait(fd, events, BATCH, 0);
    if (found < 0 && errno != EINTR)
        return PyErr_SetFromErrno(PyExc_OSError);
    for (int at = 0; at < found; at++)
        if (hand_over(args[2], &events[at], args[3]) < 0)
            return NULL;
    Py_RETURN_NONE;
}

static PyObject *watch(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    int fd = descriptor_of(args, count, 4);
    struct epoll_event event = {0};
    if (!PyErr_Occurred())
        event.data.fd = number_of(args[2]);
    if (!PyErr_Occurred())
        event.events = (uint32_t)PyLong_AsUnsignedLongMask(args[3]);
    if (PyErr_Occurred())
        return NULL;
    if (epoll_ctl(fd, EPOLL_CTL_ADD, event.data.fd, &event) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"use", use, METH_O, "As in syscalls.py."},
    {"unacknowledged", FAST(unacknowledged), METH_FASTCALL, "As in syscalls.py."},
    {"reset_on_close", FAST(reset_on_close), METH_FASTCALL, "As in syscalls.py."},
    {"watch", FAST(watch), METH_FASTCALL, "As in syscalls.py."},
    {"dispatch", FAST(dispatch), METH_FASTCALL, "As in syscalls.py."},
    {"receive", FAST(receive), METH_FASTCALL, "As in syscalls.py."},
    {"give", FAST(give), METH_FASTCALL, "As in syscalls.py."},
    {"pass_on", FAST(pass_on), METH_FASTCALL, "As in syscalls.py."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "worker.syscalls",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit_syscalls(void) {
    ready = PyUnicode_InternFromString("ready");
    PyObject *module = ready == NULL ? NULL : PyModule_Create(&definition);
    if (module == NULL)
        return NULL;
    if (PyModule_AddIntMacro(module, EMPTY) < 0 || PyModule_AddIntMacro(module, LOST) < 0 ||
        PyModule_AddIntMacro(module, REFUSED) < 0 || PyModule_AddIntMacro(module, LEFT_BITS) < 0 ||
        PyModule_AddIntMacro(module, BATCH) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
