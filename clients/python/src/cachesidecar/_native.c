/*
 * _native: xxh3, the reader of the shared memory, and a look at msgpack, for Python.
 *
 * The reader is cachesidecar.h; this file hands it to Python, and keeps where namespaces are.
 * Every call holds the GIL from its begin to its end, so two threads are never inside.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "cachesidecar.h"

#define PLACES 16		  /* namespaces that a region remembers */
#define NAME 64			  /* bytes of a name, at most */
#define AGAIN 10000000u		  /* ns for which a namespace that is not in the region is not looked for */
#define MILLISECOND 1000000u	  /* ns */

typedef struct {
	char name[NAME];
	Py_ssize_t length; /* zero: the place is free */
	int found;
	uint64_t again; /* not looked for before, if it is not found */
	cs_space space;
} place;

typedef struct {
	PyObject_HEAD
	cs_region region;
	int mapped;
	uint64_t id, epoch;
	place places[PLACES];
	unsigned next; /* place to be given to another name */
} reader;

static PyObject *absent; /* the empty tuple */

/* find returns where a namespace is, or NULL if it is not in the region. */
static place *find(reader *self, const char *name, Py_ssize_t n, uint64_t now) {
	place *p = NULL;
	if (n == 0 || n > NAME)
		return NULL;
	for (int i = 0; i < PLACES && p == NULL; i++)
		if (self->places[i].length == n && memcmp(self->places[i].name, name, (size_t)n) == 0)
			p = &self->places[i];
	if (p != NULL && (p->found || now < p->again))
		return p->found ? p : NULL;
	if (p == NULL) {
		p = &self->places[self->next++ % PLACES];
		memcpy(p->name, name, (size_t)n);
		p->length = n;
	}
	p->found = cs_find(&self->region, name, (size_t)n, &p->space) == 0;
	p->again = now + AGAIN;
	return p->found ? p : NULL;
}

/* result makes what Python gets of a value. */
static PyObject *result(const char *value, const cs_found *f, uint64_t now) {
	uint64_t left = 0;
	if (f->ends != 0 && (left = (f->ends - now) / MILLISECOND) == 0)
		left = 1;
	PyObject *t = PyTuple_New(4), *items[4] = {
		PyBytes_FromStringAndSize(value, (Py_ssize_t)f->length), PyLong_FromUnsignedLong(f->flags),
		PyLong_FromUnsignedLongLong(f->version), PyLong_FromUnsignedLongLong(left),
	};
	for (int i = 0; i < 4; i++) {
		if (t == NULL || items[i] == NULL || PyTuple_SetItem(t, i, items[i]) != 0) {
			for (int j = t == NULL || items[i] == NULL ? i : i + 1; j < 4; j++)
				Py_XDECREF(items[j]);
			Py_XDECREF(t);
			return NULL;
		}
	}
	return t;
}

static PyObject *reader_get(PyObject *object, PyObject *const *args, Py_ssize_t count) {
	reader *self = (reader *)object;
	uint64_t now = cs_now(); /* before all that follows */
	char *name, *key, value[CS_MAX_VALUE];
	Py_ssize_t name_length, key_length;
	if (count < 2 || count > 3) {
		PyErr_SetString(PyExc_TypeError, "get takes a namespace, a key and now_ns, all by position");
		return NULL;
	}
	if (PyBytes_AsStringAndSize(args[0], &name, &name_length) < 0 ||
	    PyBytes_AsStringAndSize(args[1], &key, &key_length) < 0)
		return NULL;
	if (count == 3 && args[2] != Py_None) {
		now = PyLong_AsUnsignedLongLong(args[2]);
		if (now == (uint64_t)-1 && PyErr_Occurred())
			return NULL;
	}
	place *p = self->mapped ? find(self, name, name_length, now) : NULL;
	if (p == NULL)
		Py_RETURN_NONE;
	cs_found f;
	switch (cs_get(&self->region, &p->space, key, (size_t)key_length, now, value, &f)) {
	case CS_HIT:
		return result(value, &f, now);
	case CS_ABSENT:
		Py_INCREF(absent);
		return absent;
	case CS_GONE:
		p->length = 0; /* the next read looks it up again */
	}
	Py_RETURN_NONE;
}

static int reader_map(reader *self, int fd, uint64_t id, uint64_t counter) {
	if (cs_map(fd, &self->region) != 0) {
		PyErr_SetString(PyExc_ValueError, "the shared memory is no region of layout 1");
		return -1;
	}
	self->mapped = 1;
	(void)madvise(self->region.mem, self->region.size, MADV_DONTDUMP); /* best effort */
	self->id = cs_id(&self->region);
	self->epoch = cs_epoch(&self->region);
	if (self->id != id || cs_counter(&self->region) < counter) {
		PyErr_Format(PyExc_ValueError, "the shared memory is region %llu at %llu, not region %llu at %llu or later",
			     self->id, cs_counter(&self->region), id, counter);
		return -1;
	}
	return 0;
}

static PyObject *reader_new(PyTypeObject *type, PyObject *args, PyObject *names) {
	int fd;
	unsigned long long id, counter;
	if (names != NULL && PyDict_Size(names) != 0) {
		PyErr_SetString(PyExc_TypeError, "Region takes fd, id and counter, all by position");
		return NULL;
	}
	if (!PyArg_ParseTuple(args, "iKK", &fd, &id, &counter))
		return NULL;
	allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
	reader *self = (reader *)alloc(type, 0); /* all zero */
	if (self != NULL && reader_map(self, fd, id, counter) != 0) {
		Py_DECREF(self);
		return NULL;
	}
	return (PyObject *)self;
}

static PyObject *reader_close(PyObject *object, PyObject *none) {
	reader *self = (reader *)object;
	(void)none;
	if (self->mapped)
		cs_unmap(&self->region);
	self->mapped = 0;
	Py_RETURN_NONE;
}

static void reader_free(PyObject *object) {
	PyTypeObject *type = Py_TYPE(object);
	Py_XDECREF(reader_close(object, NULL));
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
	release(object);
	Py_DECREF(type);
}

static PyObject *reader_closed(PyObject *object, void *none) {
	reader *self = (reader *)object;
	(void)none;
	return PyBool_FromLong(!self->mapped || cs_closed(&self->region));
}

static PyObject *reader_id(PyObject *object, void *none) {
	(void)none;
	return PyLong_FromUnsignedLongLong(((reader *)object)->id);
}

static PyObject *reader_epoch(PyObject *object, void *none) {
	(void)none;
	return PyLong_FromUnsignedLongLong(((reader *)object)->epoch);
}

static PyMethodDef reader_methods[] = {
	{"get", (PyCFunction)(void (*)(void))reader_get, METH_FASTCALL, "get(namespace, key, now_ns=None, /)"},
	{"close", reader_close, METH_NOARGS, "Unmaps the region."},
	{NULL, NULL, 0, NULL},
};

static PyGetSetDef reader_fields[] = {
	{"closed", reader_closed, NULL, "Whether nothing is found in the region any more.", NULL},
	{"id", reader_id, NULL, "The region's id.", NULL},
	{"epoch", reader_epoch, NULL, "The epoch of the sidecar's process.", NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot reader_slots[] = {
	{Py_tp_new, (void *)reader_new},	   {Py_tp_dealloc, (void *)reader_free},
	{Py_tp_methods, (void *)reader_methods}, {Py_tp_getset, (void *)reader_fields},
	{Py_tp_doc, (void *)"Region(fd, id, counter, /): a mapped region."},
	{0, NULL},
};

static PyType_Spec reader_spec = {"cachesidecar._native.Region", sizeof(reader), 0, Py_TPFLAGS_DEFAULT, reader_slots};

static PyObject *hash(PyObject *module, PyObject *const *args, Py_ssize_t count) {
	char *data;
	Py_ssize_t n;
	uint64_t seed = 0;
	(void)module;
	if (count < 1 || count > 2) {
		PyErr_SetString(PyExc_TypeError, "xxh3_64 takes data and a seed, by position");
		return NULL;
	}
	if (PyBytes_AsStringAndSize(args[0], &data, &n) < 0)
		return NULL;
	if (count == 2) {
		seed = PyLong_AsUnsignedLongLong(args[1]);
		if (seed == (uint64_t)-1 && PyErr_Occurred())
			return NULL;
	}
	return PyLong_FromUnsignedLongLong(cs_hash(data, (size_t)n, seed));
}

/* What the keys of a msgpack value's maps are. */
enum { KEYS_PLAIN, KEYS_MIXED, KEYS_UNFIT };

#define DEEP 1024 /* of arrays and maps; msgpack writes fewer */

/* number reads n bytes, the first one first. */
static uint64_t number(const uint8_t *at, int n) {
	uint64_t v = 0;
	for (int i = 0; i < n; i++)
		v = v << 8 | at[i];
	return v;
}

/*
 * keys_of says whether all keys of a value's maps are text or integers: KEYS_MIXED, if a map has both; KEYS_UNFIT, if
 * there is another one, or __proto__. Bytes that are no whole value are KEYS_UNFIT.
 */
static int keys_of(const uint8_t *at, const uint8_t *end) {
	static const int8_t widths[] = {0, -9, 0, 0, 1, 2, 4, 1, 2, 4, 4, 8, 1, 2, 4, 8, 1,
					2, 4, 8, 1, 2, 4, 8, 16, 1, 2, 4, 2, 4, 2, 4}; /* from 0xc0 on */
	struct {
		uint64_t left; /* elements; of a map keys and values */
		int map, texts, integers;
	} levels[DEEP], *l = levels;
	int found = KEYS_PLAIN;
	l->left = 1, l->map = 0;
	for (;;) {
		while (l->left == 0) {
			if (l == levels)
				return at == end ? found : KEYS_UNFIT;
			l--;
		}
		if (at == end)
			return KEYS_UNFIT;
		uint8_t c = *at++;
		int key = l->map && l->left % 2 == 0, text = 0, integer = c < 0x80 || c >= 0xe0, map = 0, list = 0;
		uint64_t n = 0; /* elements of a map or a list; else bytes */
		l->left--;
		if (c >= 0x80 && c < 0xc0) {
			map = c < 0x90, list = c >= 0x90 && c < 0xa0, text = c >= 0xa0;
			n = text ? c & 0x1f : c & 0x0f;
		} else if (c >= 0xc0 && c < 0xe0) {
			int width = widths[c - 0xc0], sized = (c >= 0xc4 && c <= 0xc9) || c >= 0xd9;
			if (width < 0 || end - at < width)
				return KEYS_UNFIT;
			integer = c >= 0xcc && c <= 0xd3, text = c >= 0xd9 && c <= 0xdb;
			list = c == 0xdc || c == 0xdd, map = c >= 0xde;
			n = sized ? number(at, width) : (uint64_t)width;
			at += sized ? width : 0;
			n += (c >= 0xc7 && c <= 0xc9) || (c >= 0xd4 && c <= 0xd8); /* the type of an extension */
		}
		if (key && (integer || text)) {
			l->texts |= text, l->integers |= integer;
			if (l->texts && l->integers)
				found = KEYS_MIXED;
		} else if (key) {
			return KEYS_UNFIT;
		}
		if (map || list) {
			if (++l == levels + DEEP)
				return KEYS_UNFIT;
			l->left = map ? 2 * n : n, l->map = map, l->texts = l->integers = 0;
			continue;
		}
		if ((uint64_t)(end - at) < n || (key && n == 9 && memcmp(at, "__proto__", 9) == 0))
			return KEYS_UNFIT;
		at += n;
	}
}

static PyObject *keys(PyObject *module, PyObject *data) {
	char *at;
	Py_ssize_t n;
	(void)module;
	if (PyBytes_AsStringAndSize(data, &at, &n) < 0)
		return NULL;
	return PyLong_FromLong(keys_of((const uint8_t *)at, (const uint8_t *)at + n));
}

static PyMethodDef functions[] = {
	{"keys", keys, METH_O, "keys(data, /): what the keys of a msgpack value's maps are."},
	{"xxh3_64", (PyCFunction)(void (*)(void))hash, METH_FASTCALL, "xxh3_64(data, seed=0, /)"},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT, "_native", "xxh3, the reader of the shared memory, and a look at msgpack.", -1, functions, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void) {
	PyObject *module = PyModule_Create(&definition), *type = PyType_FromSpec(&reader_spec);
	absent = PyTuple_New(0);
	if (module == NULL || type == NULL || absent == NULL || PyModule_AddObject(module, "Region", type) != 0) {
		Py_XDECREF(module);
		Py_XDECREF(type);
		return NULL;
	}
	return module;
}
