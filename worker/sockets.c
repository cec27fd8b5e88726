/* The sockets of connections: made by accept and dial, without what Python's have besides.
 *
 * sockets.py says what these functions do, and does the same with Python's sockets. A Socket here
 * is a descriptor and its family, with those methods that a connection uses, by the same names
 * and with the same errors. None gives up the GIL, and to make one asks the kernel for nothing.
 */

#define _GNU_SOURCE /* accept4 */
#include "calls.h"

#include <structmember.h>

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <unistd.h>

typedef struct {
    PyObject_HEAD
    int fd; /* -1: it is closed */
    int family;
} Socket;

static PyTypeObject SocketType;

/* The descriptor is its own from here on, also where this fails. */
static PyObject *socket_of(int fd, int family) {
    Socket *made = PyObject_New(Socket, &SocketType);
    if (made == NULL) {
        close(fd);
        return NULL;
    }
    made->fd = fd;
    made->family = family;
    return (PyObject *)made;
}

static PyObject *failed(void) { return PyErr_SetFromErrno(PyExc_OSError); }

static PyObject *done(int result) {
    if (result < 0)
        return failed();
    Py_RETURN_NONE;
}

/* -- addresses, as the module socket of Python has them -- */

static PyObject *address_of(const struct sockaddr_storage *peer) {
    char text[INET6_ADDRSTRLEN] = "";
    if (peer->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)peer;
        inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
        return Py_BuildValue("(si)", text, (int)ntohs(v4->sin_port));
    }
    if (peer->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)peer;
        inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
        return Py_BuildValue("(siII)", text, (int)ntohs(v6->sin6_port),
                             (unsigned int)ntohl(v6->sin6_flowinfo) & 0xfffff,
                             (unsigned int)v6->sin6_scope_id);
    }
    return PyUnicode_FromString(text); /* what a Unix socket is bound to concerns nobody here */
}

/* Size of what was written to ``to``: 0 where the text is no address of the family. */
static socklen_t ip_address(int family, const char *host, int port, struct sockaddr_storage *to) {
    if (family == AF_INET) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)to;
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        return inet_pton(AF_INET, host, &v4->sin_addr) == 1 ? sizeof *v4 : 0;
    }
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)to;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons((uint16_t)port);
    return inet_pton(AF_INET6, host, &v6->sin6_addr) == 1 ? sizeof *v6 : 0;
}

/* Likewise of a path; one that begins with a NUL is abstract, unix(7). -1 with an exception. */
static int unix_address(PyObject *path, struct sockaddr_storage *to) {
    PyObject *bytes = PyUnicode_EncodeFSDefault(path);
    if (bytes == NULL)
        return -1;
    struct sockaddr_un *local = (struct sockaddr_un *)to;
    size_t size = (size_t)PyBytes_GET_SIZE(bytes);
    int found = 0;
    if (size > 0 && size < sizeof local->sun_path) {
        local->sun_family = AF_UNIX;
        memcpy(local->sun_path, PyBytes_AS_STRING(bytes), size);
        int is_abstract = local->sun_path[0] == '\0';
        found = (int)(offsetof(struct sockaddr_un, sun_path) + size + (is_abstract ? 0 : 1));
    }
    Py_DECREF(bytes);
    return found;
}

static int to_address(int family, PyObject *given, struct sockaddr_storage *to) {
    memset(to, 0, sizeof *to);
    if (PyUnicode_Check(given) && family == AF_UNIX)
        return unix_address(given, to);
    if (!PyTuple_Check(given) || PyTuple_GET_SIZE(given) != 2 ||
        (family != AF_INET && family != AF_INET6)) {
        PyErr_SetString(PyExc_TypeError, "no address of this family");
        return -1;
    }
    const char *host = PyUnicode_AsUTF8(PyTuple_GET_ITEM(given, 0));
    int port = host == NULL ? -1 : number_of(PyTuple_GET_ITEM(given, 1));
    if (PyErr_Occurred())
        return -1;
    if (port < 0 || port > 65535) {
        PyErr_SetString(PyExc_OverflowError, "a port is 0 to 65535");
        return -1;
    }
    return (int)ip_address(family, host, port, to);
}

/* -- what makes sockets -- */

/* accept(socket, descriptor) */
static PyObject *accept_one(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    int fd = has_count(count, 2) ? number_of(args[1]) : -1;
    if (PyErr_Occurred())
        return NULL;
    struct sockaddr_storage peer = {0};
    int found;
    do {
        socklen_t size = sizeof peer;
        found = accept4(fd, (struct sockaddr *)&peer, &size, SOCK_CLOEXEC);
    } while (found < 0 && errno == EINTR);
    if (found < 0 && is_for_later(errno))
        Py_RETURN_NONE;
    if (found < 0)
        return failed();
    PyObject *sock = socket_of(found, peer.ss_family);
    PyObject *address = sock == NULL ? NULL : address_of(&peer);
    if (address == NULL) {
        Py_XDECREF(sock);
        return NULL;
    }
    return Py_BuildValue("(NiN)", sock, found, address);
}

/* dial(family, address) */
static PyObject *dial(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    int family = has_count(count, 2) ? number_of(args[0]) : -1;
    if (PyErr_Occurred())
        return NULL;
    struct sockaddr_storage address;
    int size = to_address(family, args[1], &address);
    if (size < 0)
        return NULL;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return failed();
    int one = 1;
    if (family != AF_UNIX)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    int code = EINVAL; /* no such address */
    if (size > 0)
        code = connect(fd, (struct sockaddr *)&address, (socklen_t)size) < 0 ? errno : 0;
    PyObject *sock = socket_of(fd, family);
    return sock == NULL ? NULL : Py_BuildValue("(Nii)", sock, fd, code);
}

/* -- methods, each as that of a socket of Python -- */

static PyObject *sock_close(Socket *self, PyObject *unused) {
    (void)unused;
    int fd = self->fd;
    self->fd = -1;
    if (fd >= 0)
        (void)close(fd); /* on Linux it is gone whatever this says, close(2) */
    Py_RETURN_NONE;
}

static PyObject *sock_fileno(Socket *self, PyObject *unused) {
    (void)unused;
    return PyLong_FromLong(self->fd);
}

static PyObject *sock_send(Socket *self, PyObject *const *args, Py_ssize_t count) {
    int flags = has_count(count, 2) ? number_of(args[1]) : -1;
    Py_buffer data;
    if (PyErr_Occurred() || PyObject_GetBuffer(args[0], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    ssize_t sent = send_once(self->fd, data.buf, (size_t)data.len, flags);
    PyBuffer_Release(&data);
    return sent < 0 ? failed() : PyLong_FromSsize_t(sent);
}

/* recv_into(buffer, 0, flags): as much as it has room for */
static PyObject *sock_recv_into(Socket *self, PyObject *const *args, Py_ssize_t count) {
    int flags = has_count(count, 3) ? number_of(args[2]) : -1;
    Py_buffer room;
    if (PyErr_Occurred() || PyObject_GetBuffer(args[0], &room, PyBUF_WRITABLE) < 0)
        return NULL;
    ssize_t found = recv_once(self->fd, room.buf, (size_t)room.len, flags);
    PyBuffer_Release(&room);
    return found < 0 ? failed() : PyLong_FromSsize_t(found);
}

static PyObject *sock_shutdown(Socket *self, PyObject *how) {
    int number = number_of(how);
    return PyErr_Occurred() ? NULL : done(shutdown(self->fd, number));
}

static PyObject *sock_setblocking(Socket *self, PyObject *wanted) {
    int is_nonblocking = !PyObject_IsTrue(wanted);
    return done(ioctl(self->fd, FIONBIO, &is_nonblocking));
}

static PyObject *sock_setsockopt(Socket *self, PyObject *const *args, Py_ssize_t count) {
    int level = has_count(count, 3) ? number_of(args[0]) : -1;
    int option = PyErr_Occurred() ? -1 : number_of(args[1]);
    int value = PyErr_Occurred() ? -1 : number_of(args[2]);
    if (PyErr_Occurred())
        return NULL;
    return done(setsockopt(self->fd, level, option, &value, sizeof value));
}

static PyObject *sock_getsockopt(Socket *self, PyObject *const *args, Py_ssize_t count) {
    int level = has_count(count, 2) ? number_of(args[0]) : -1;
    int option = PyErr_Occurred() ? -1 : number_of(args[1]);
    if (PyErr_Occurred())
        return NULL;
    int value = 0;
    socklen_t size = sizeof value;
    if (getsockopt(self->fd, level, option, &value, &size) < 0)
        return failed();
    return PyLong_FromLong(value);
}

static PyObject *sock_getsockname(Socket *self, PyObject *unused) {
    (void)unused;
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    if (getsockname(self->fd, (struct sockaddr *)&address, &size) < 0)
        return failed();
    return address_of(&address);
}

static void sock_free(Socket *self) {
    if (self->fd >= 0) { /* as Python does: whoever made it should have closed it */
        PyObject *type, *error, *trace;
        PyErr_Fetch(&type, &error, &trace);
        if (PyErr_ResourceWarning(NULL, 1, "unclosed socket, descriptor %d", self->fd) < 0)
            PyErr_WriteUnraisable(NULL);
        PyErr_Restore(type, error, trace);
        (void)close(self->fd);
    }
    PyObject_Free(self);
}

static PyMethodDef socket_methods[] = {
    {"close", (PyCFunction)sock_close, METH_NOARGS, "Give the descriptor back."},
    {"fileno", (PyCFunction)sock_fileno, METH_NOARGS, "The descriptor; -1: it is closed."},
    {"send", FAST(sock_send), METH_FASTCALL, "send(data, flags)"},
    {"recv_into", FAST(sock_recv_into), METH_FASTCALL, "recv_into(buffer, 0, flags)"},
    {"shutdown", (PyCFunction)sock_shutdown, METH_O, "shutdown(how)"},
    {"setblocking", (PyCFunction)sock_setblocking, METH_O, "setblocking(wanted)"},
    {"setsockopt", FAST(sock_setsockopt), METH_FASTCALL, "setsockopt(level, option, number)"},
    {"getsockopt", FAST(sock_getsockopt), METH_FASTCALL, "getsockopt(level, option)"},
    {"getsockname", (PyCFunction)sock_getsockname, METH_NOARGS, "Its own address."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef socket_members[] = {
    {"family", T_INT, offsetof(Socket, family), READONLY, "AF_INET, AF_INET6 or AF_UNIX"},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject SocketType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "worker.sockets.Socket",
    .tp_basicsize = sizeof(Socket),
    .tp_dealloc = (destructor)sock_free,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "A socket of a connection, made by accept or dial.",
    .tp_methods = socket_methods,
    .tp_members = socket_members,
};

static PyMethodDef functions[] = {
    {"accept", FAST(accept_one), METH_FASTCALL, "As in sockets.py."},
    {"dial", FAST(dial), METH_FASTCALL, "As in sockets.py."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "worker.sockets",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit_sockets(void) {
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && PyModule_AddType(module, &SocketType) < 0)
        Py_CLEAR(module); /* PyModule_AddType makes the type ready */
    return module;
}
