/* What each TLS handshake and record takes, without what Python's ssl puts around OpenSSL: an
 * exception wherever nothing waits, the GIL, copies between Python's objects.
 *
 * openssl.py says what these functions do, and does the same by the methods of ssl. Here the
 * libssl that `_ssl` is linked with is called by its public functions; no header of it is needed.
 * What is no API is where an SSLSocket and a MemoryBIO of CPython keep their pointers: use()
 * checks that before anything is read through them, and the source runs where it is not so.
 */

#include "calls.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* As in openssl.py. */
enum { EMPTY = -1, LOST = -2, ODD = -3, UNSENT = -4, NO_RECORD = -5, PARTLY = -6, FULL = -7 };
enum { ENDED = 1 << 24, ANSWER = 1 << 25, WAS_FULL = 1 << 26, FLAGS = ENDED | ANSWER | WAS_FULL };

/* openssl/ssl.h and openssl/bio.h, the same in 1.1.1 and 3.x */
enum { SSL_ERROR_NONE = 0, SSL_ERROR_WANT_READ = 2, SSL_ERROR_ZERO_RETURN = 6 };
enum { BIO_CTRL_PENDING = 10 };

typedef struct ssl_st SSL;
typedef struct bio_st BIO;

static struct {
    int (*do_handshake)(SSL *);
    int (*read_ex)(SSL *, void *, size_t, size_t *);
    int (*write_ex)(SSL *, const void *, size_t, size_t *);
    int (*shutdown)(SSL *);
    int (*get_error)(const SSL *, int);
    int (*pending)(const SSL *);
    void *(*get_context)(const SSL *);
    BIO *(*get_rbio)(const SSL *);
    BIO *(*get_wbio)(const SSL *);
    long (*verify_result)(const SSL *);
    int (*bio_read)(BIO *, void *, int);
    int (*bio_write)(BIO *, const void *, int);
    long (*bio_ctrl)(BIO *, int, long, void *);
    unsigned long (*peek_error)(void);
    unsigned long (*peek_last_error)(void);
    void (*clear_error)(void);
    const char *(*reason_text)(unsigned long);
    const char *(*verify_text)(long);
} ossl;

static const struct {
    const char *name;
    void *place;
} functions[] = {
    {"SSL_do_handshake", &ossl.do_handshake},
    {"SSL_read_ex", &ossl.read_ex},
    {"SSL_write_ex", &ossl.write_ex},
    {"SSL_shutdown", &ossl.shutdown},
    {"SSL_get_error", &ossl.get_error},
    {"SSL_pending", &ossl.pending},
    {"SSL_get_SSL_CTX", &ossl.get_context},
    {"SSL_get_rbio", &ossl.get_rbio},
    {"SSL_get_wbio", &ossl.get_wbio},
    {"SSL_get_verify_result", &ossl.verify_result},
    {"BIO_read", &ossl.bio_read},
    {"BIO_write", &ossl.bio_write},
    {"BIO_ctrl", &ossl.bio_ctrl},
    {"ERR_peek_error", &ossl.peek_error},
    {"ERR_peek_last_error", &ossl.peek_last_error},
    {"ERR_clear_error", &ossl.clear_error},
    {"ERR_reason_error_string", &ossl.reason_text},
    {"X509_verify_cert_error_string", &ossl.verify_text},
};

/* Of CPython's _ssl.c, each behind its PyObject_HEAD. */
typedef struct {
    PyObject_HEAD
    PyObject *socket;
    SSL *ssl;
} SocketObject;
typedef struct {
    PyObject_HEAD
    void *pointer; /* BIO of a MemoryBIO, SSL_CTX of an SSLContext */
} Holder;

static BIO *incoming, *outgoing;
static PyTypeObject *kind;      /* of the objects */
static PyObject *fail;          /* makes the error of a failure */
static Py_buffer buffer, plain; /* what is received, what was decrypted; held for good */
static char *sealed;            /* records to be sent */
static size_t sealed_room;
static struct {
    long found;         /* size of the payload, and flags */
    size_t from, until; /* what of `sealed` or of the payload found no room */
    const char *sent;
    PyObject *failure;
} last;

static const char *find_functions(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    if (library == NULL)
        return "Python's ssl module is not there to be looked into";
    for (size_t at = 0; at < sizeof functions / sizeof *functions; at++) {
        void *found = dlsym(library, functions[at].name); /* also in what it is linked with */
        if (found == NULL)
            return functions[at].name;
        memcpy(functions[at].place, &found, sizeof found);
    }
    return NULL;
}

/* use(path, sample, context, incoming, outgoing, buffer, plain, fail); the caller has seen that
 * what lies at the place of SSL is a pointer to memory. */
static PyObject *use(PyObject *module, PyObject *args) {
    (void)module;
    const char *path;
    PyObject *sample, *context, *in, *out, *received, *decrypted, *failing;
    if (!PyArg_ParseTuple(args, "sOOOOOOO", &path, &sample, &context, &in, &out, &received,
                          &decrypted, &failing))
        return NULL;
    const char *problem = find_functions(path);
    if (problem != NULL)
        return PyUnicode_FromFormat("%s is missing", problem);
    SSL *ssl = ((SocketObject *)sample)->ssl;
    if (ossl.get_context(ssl) != ((Holder *)context)->pointer ||
        ossl.get_rbio(ssl) != ((Holder *)in)->pointer ||
        ossl.get_wbio(ssl) != ((Holder *)out)->pointer)
        return PyUnicode_FromString("the objects of this Python's ssl are not as expected");
    Py_buffer one, other;
    if (PyObject_GetBuffer(received, &one, PyBUF_WRITABLE) < 0)
        return NULL;
    if (PyObject_GetBuffer(decrypted, &other, PyBUF_WRITABLE) < 0) {
        PyBuffer_Release(&one);
        return NULL;
    }
    if (kind != NULL) {
        PyBuffer_Release(&buffer);
        PyBuffer_Release(&plain);
    }
    buffer = one;
    plain = other;
    incoming = ((Holder *)in)->pointer;
    outgoing = ((Holder *)out)->pointer;
    Py_INCREF(in); /* the BIOs go with them */
    Py_INCREF(out);
    Py_INCREF(failing);
    Py_XSETREF(fail, failing);
    kind = (PyTypeObject *)Py_NewRef((PyObject *)Py_TYPE(sample));
    return PyUnicode_FromString("");
}

/* NULL with an exception for what is none of ours. */
static SSL *ssl_of(PyObject *object) {
    if (kind != NULL && Py_TYPE(object) == kind)
        return ((SocketObject *)object)->ssl;
    PyErr_SetString(PyExc_TypeError, "no object of ssl, or use() was not called");
    return NULL;
}

static void forget_errors(void) {
    if (ossl.peek_error() != 0)
        ossl.clear_error(); /* SSL_get_error(3): what another call has left would be taken for ours */
}

/* The error of what has just failed, made by the function that use() was given. */
static PyObject *failure_of(PyObject *object, SSL *ssl, int code) {
    unsigned long error = ossl.peek_last_error();
    const char *reason = error == 0 ? NULL : ossl.reason_text(error);
    long verified = ossl.verify_result(ssl);
    PyObject *made = PyObject_CallFunction(fail, "Oikzlz", object, code == SSL_ERROR_ZERO_RETURN,
                                           error, reason, verified, ossl.verify_text(verified));
    ossl.clear_error();
    return made;
}

static void raise(PyObject *object, SSL *ssl, int code) {
    PyObject *made = failure_of(object, ssl, code);
    if (made == NULL)
        return;
    PyErr_SetObject((PyObject *)Py_TYPE(made), made);
    Py_DECREF(made);
}

static PyObject *take_all(void) {
    long size = ossl.bio_ctrl(outgoing, BIO_CTRL_PENDING, 0, NULL);
    PyObject *made = PyBytes_FromStringAndSize(NULL, size);
    if (made != NULL && size > 0)
        ossl.bio_read(outgoing, PyBytes_AS_STRING(made), (int)size);
    return made;
}

static int feed(const Py_buffer *data) {
    if (data->len == 0 || ossl.bio_write(incoming, data->buf, (int)data->len) == data->len)
        return 0;
    PyErr_NoMemory();
    return -1;
}

static PyObject *shake(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    SSL *ssl = has_count(count, 2) ? ssl_of(args[0]) : NULL;
    Py_buffer data;
    if (ssl == NULL || PyObject_GetBuffer(args[1], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    int is_fed = feed(&data);
    PyBuffer_Release(&data);
    if (is_fed < 0)
        return NULL;
    forget_errors();
    int result = ossl.do_handshake(ssl);
    int code = result == 1 ? SSL_ERROR_NONE : ossl.get_error(ssl, result);
    if (code != SSL_ERROR_NONE && code != SSL_ERROR_WANT_READ) {
        raise(args[0], ssl, code);
        return NULL;
    }
    PyObject *answer = take_all();
    return answer == NULL ? NULL : Py_BuildValue("(NN)", PyBool_FromLong(result == 1), answer);
}

/* Decrypt all that was fed into `plain`: size and flags, or -1 with an exception. */
static long open_records(PyObject *object, SSL *ssl) {
    size_t size = 0, more = 0;
    long flags = 0;
    forget_errors();
    do {
        int result = ossl.read_ex(ssl, (char *)plain.buf + size, (size_t)plain.len - size, &more);
        if (result <= 0) {
            int code = ossl.get_error(ssl, result);
            if (code == SSL_ERROR_ZERO_RETURN) {
                char rest[512]; /* RFC 8446 section 6.1: what follows a close_notify is ignored */
                while (ossl.bio_read(incoming, rest, sizeof rest) > 0)
                    ;
                flags = ENDED;
            } else if (code != SSL_ERROR_WANT_READ) {
                raise(object, ssl, code);
                return -1;
            }
            break;
        }
        size += more;
    } while (size < (size_t)plain.len &&
             (ossl.bio_ctrl(incoming, BIO_CTRL_PENDING, 0, NULL) > 0 || ossl.pending(ssl) > 0));
    if (ossl.bio_ctrl(outgoing, BIO_CTRL_PENDING, 0, NULL) > 0)
        flags |= ANSWER;
    return (long)size | flags;
}

static PyObject *decrypt(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    SSL *ssl = has_count(count, 2) ? ssl_of(args[0]) : NULL;
    Py_buffer data;
    if (ssl == NULL || PyObject_GetBuffer(args[1], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    int is_fed = feed(&data);
    PyBuffer_Release(&data);
    long found = is_fed < 0 ? -1 : open_records(args[0], ssl);
    return found < 0 ? NULL : PyLong_FromLong(found);
}

/* Encrypt into the outgoing BIO; 0, or the code of what has failed. */
static int seal(SSL *ssl, const char *data, size_t size) {
    forget_errors();
    while (size > 0) { /* a record at a time */
        size_t done = 0;
        int result = ossl.write_ex(ssl, data, size, &done);
        if (result <= 0)
            return ossl.get_error(ssl, result);
        data += done;
        size -= done;
    }
    return SSL_ERROR_NONE;
}

static PyObject *encrypt(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    SSL *ssl = has_count(count, 2) ? ssl_of(args[0]) : NULL;
    Py_buffer data;
    if (ssl == NULL || PyObject_GetBuffer(args[1], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    int code = seal(ssl, data.buf, (size_t)data.len);
    PyBuffer_Release(&data);
    if (code == SSL_ERROR_NONE)
        return take_all();
    raise(args[0], ssl, code);
    return NULL;
}

static PyObject *close_notify(PyObject *module, PyObject *object) {
    (void)module;
    SSL *ssl = ssl_of(object);
    if (ssl == NULL)
        return NULL;
    if (ossl.shutdown(ssl) < 0)
        ossl.clear_error(); /* before the end of a handshake there is nothing to say */
    return take_all();
}

static ssize_t read_once(int fd) {
    ssize_t size = recv_once(fd, buffer.buf, (size_t)buffer.len, 0);
    if (size >= 0)
        return size;
    return is_for_later(errno) ? EMPTY : LOST;
}

static ssize_t write_once(int fd, const void *data, size_t size) {
    ssize_t sent = send_once(fd, data, size, 0);
    if (sent >= 0)
        return sent;
    return is_for_later(errno) ? 0 : LOST;
}

/* All records that wait, in `sealed`: their size, or -1 with an exception. */
static long take_sealed(void) {
    long size = ossl.bio_ctrl(outgoing, BIO_CTRL_PENDING, 0, NULL);
    if ((size_t)size > sealed_room) {
        char *more = realloc(sealed, (size_t)size);
        if (more == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        sealed = more;
        sealed_room = (size_t)size;
    }
    return ossl.bio_read(outgoing, sealed, (int)size);
}

/* Send, and say how it went. */
static long send_on(int fd, const char *data, size_t size, int was_full) {
    ssize_t sent = write_once(fd, data, size);
    if (sent < 0)
        return UNSENT;
    if ((size_t)sent < size) {
        last.sent = data;
        last.from = (size_t)sent;
        last.until = size;
        return PARTLY;
    }
    return was_full ? FULL : last.found;
}

static long relay_once(int fd, PyObject *from, int to_fd, PyObject *to) {
    SSL *in = from == Py_None ? NULL : ssl_of(from), *out = to == Py_None ? NULL : ssl_of(to);
    if (PyErr_Occurred())
        return LOST;
    ssize_t count = read_once(fd);
    if (count <= 0)
        return count;
    int was_full = count == buffer.len;
    const char *data = buffer.buf;
    last.found = count;
    if (in != NULL) {
        Py_buffer fed = {.buf = buffer.buf, .len = count};
        long found = feed(&fed) < 0 ? -1 : open_records(from, in);
        if (found < 0)
            return LOST;
        last.found = found | (was_full ? WAS_FULL : 0);
        if (found == 0 || found >= ENDED)
            return ODD;
        last.found = found;
        data = plain.buf;
    }
    if (out == NULL)
        return send_on(to_fd, data, (size_t)last.found, was_full);
    int code = seal(out, data, (size_t)last.found);
    if (code != SSL_ERROR_NONE) {
        PyObject *made = failure_of(to, out, code);
        Py_XSETREF(last.failure, made);
        return NO_RECORD;
    }
    long size = take_sealed();
    return size < 0 ? LOST : send_on(to_fd, sealed, (size_t)size, was_full);
}

/* relay(socket, descriptor, object, socket, descriptor, object) */
static PyObject *relay(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    if (!has_count(count, 6))
        return NULL;
    int fd = number_of(args[1]), to_fd = PyErr_Occurred() ? -1 : number_of(args[4]);
    if (PyErr_Occurred())
        return NULL;
    long done = relay_once(fd, args[2], to_fd, args[5]);
    return PyErr_Occurred() ? NULL : PyLong_FromLong(done);
}

static PyObject *found(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    return PyLong_FromLong(last.found);
}

static PyObject *rest(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    return PyBytes_FromStringAndSize(last.sent + last.from, (Py_ssize_t)(last.until - last.from));
}

static PyObject *failure(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    PyObject *made = last.failure;
    last.failure = NULL;
    return made == NULL ? Py_NewRef(Py_None) : made;
}

static PyMethodDef methods[] = {
    {"use", use, METH_VARARGS, "As in openssl.py."},
    {"shake", FAST(shake), METH_FASTCALL, "As in openssl.py."},
    {"decrypt", FAST(decrypt), METH_FASTCALL, "As in openssl.py."},
    {"encrypt", FAST(encrypt), METH_FASTCALL, "As in openssl.py."},
    {"close", close_notify, METH_O, "As in openssl.py."},
    {"relay", FAST(relay), METH_FASTCALL, "As in openssl.py."},
    {"found", found, METH_NOARGS, "As in openssl.py."},
    {"rest", rest, METH_NOARGS, "As in openssl.py."},
    {"failure", failure, METH_NOARGS, "As in openssl.py."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "worker.openssl",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit_openssl(void) {
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL)
        return NULL;
    if (PyModule_AddIntMacro(module, EMPTY) < 0 || PyModule_AddIntMacro(module, LOST) < 0 ||
        PyModule_AddIntMacro(module, ODD) < 0 || PyModule_AddIntMacro(module, UNSENT) < 0 ||
        PyModule_AddIntMacro(module, NO_RECORD) < 0 || PyModule_AddIntMacro(module, PARTLY) < 0 ||
        PyModule_AddIntMacro(module, FULL) < 0 || PyModule_AddIntMacro(module, ENDED) < 0 ||
        PyModule_AddIntMacro(module, ANSWER) < 0 || PyModule_AddIntMacro(module, WAS_FULL) < 0 ||
        PyModule_AddIntMacro(module, FLAGS) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
