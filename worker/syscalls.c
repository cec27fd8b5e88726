/* The system calls that every message makes, without what Python puts around each of them.
 *
 * syscalls.py says what these functions do, and does the same where nothing is compiled: they
 * take the descriptors where that one takes the sockets. No call blocks, so none gives up the GIL.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <sys/socket.h>

enum { EMPTY = -1, LOST = -2, REFUSED = -3 }; /* as in syscalls.py */
enum { ARGUMENTS = 5, SOCKET = 0, FD = 1, TO = 2, TO_FD = 3, LAST = 4 };
enum { LEFT_BITS = 20 }; /* as in syscalls.py */

static Py_buffer buffer; /* the worker's one buffer, held for good */

static int has_no_room(int error) { return error == EAGAIN || error == EWOULDBLOCK; }

static PyObject *use(PyObject *module, PyObject *shared) {
    (void)module;
    if (buffer.obj != NULL)
        PyBuffer_Release(&buffer);
    if (PyObject_GetBuffer(shared, &buffer, PyBUF_WRITABLE) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *pass_on(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    if (count != ARGUMENTS || buffer.obj == NULL) {
        PyErr_SetString(PyExc_TypeError, "pass_on() takes five arguments, after use()");
        return NULL;
    }
    int fd = (int)PyLong_AsLong(args[FD]);
    int to_fd = (int)PyLong_AsLong(args[TO_FD]);
    if (PyErr_Occurred())
        return NULL;
    ssize_t size;
    do {
        size = recv(fd, buffer.buf, (size_t)buffer.len, MSG_DONTWAIT);
    } while (size < 0 && errno == EINTR);
    if (size < 0)
        return PyLong_FromLong(has_no_room(errno) ? EMPTY : LOST);
    if (size == 0)
        return PyLong_FromLong(0);
    /* With a full buffer more may follow: then it is not the last one. */
    int is_last = args[LAST] == Py_True && size < buffer.len;
    int flags = MSG_DONTWAIT | MSG_NOSIGNAL | (is_last ? MSG_MORE : 0);
    ssize_t sent;
    do {
        sent = send(to_fd, buffer.buf, (size_t)size, flags);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        if (!has_no_room(errno))
            return PyLong_FromLong(REFUSED - (long)size);
        sent = 0;
    }
    return PyLong_FromLong((long)size | (long)(size - sent) << LEFT_BITS);
}

static PyMethodDef methods[] = {
    {"use", use, METH_O, "As in syscalls.py."},
    {"pass_on", (PyCFunction)(void (*)(void))pass_on, METH_FASTCALL, "As in syscalls.py."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "worker.syscalls",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit_syscalls(void) {
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL)
        return NULL;
    if (PyModule_AddIntMacro(module, EMPTY) < 0 || PyModule_AddIntMacro(module, LOST) < 0 ||
        PyModule_AddIntMacro(module, REFUSED) < 0 || PyModule_AddIntMacro(module, LEFT_BITS) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
