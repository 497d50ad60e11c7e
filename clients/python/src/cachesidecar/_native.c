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

/* What the keys of a msgpack value's maps are, or why bytes are no value that is read; the same as in _encode.py. */
enum { KEYS_PLAIN, KEYS_MIXED, KEYS_UNFIT, CUT, REST, DEEP, MANY };

#define LEVELS 64	   /* of arrays and maps, at most */
#define ELEMENTS (1 << 20) /* items of arrays, keys and values of maps, at most */

/* number reads n bytes, the first one first. */
static size_t number(const uint8_t *at, size_t n) {
	size_t v = 0;
	for (size_t i = 0; i < n; i++)
		v = v << 8 | at[i];
	return v;
}

/*
 * look says whether all keys of a value's maps are text or integers: KEYS_MIXED, if a map has both; KEYS_UNFIT, if
 * there is another one, or __proto__. CUT and REST: the bytes are fewer or more than a value; DEEP and MANY: it is
 * beyond the bounds. Lengths are constants where they can be, so that the processor need not wait for them.
 */
static int look(const uint8_t *data, size_t end) {
	static const uint8_t widths[] = {1, 2, 4, 1, 2, 4, [0x15] = 1, 2, 4, 2, 4, 2, 4}; /* of lengths, from 0xc4 on */
	enum { OTHER, INTEGER, TEXT, LIST, MAP } what;
	struct {
		size_t left; /* elements that follow what is within; of a map keys and values */
		unsigned map, texts, integers;
	} levels[LEVELS + 1], *l = levels;
	size_t at = 0, elements = 0, left = 1, n, width;
	unsigned map = 0;
	int found = KEYS_PLAIN;
	for (;;) {
		while (left == 0) {
			if (l == levels)
				return at == end ? found : REST;
			if (l->texts && l->integers && found == KEYS_PLAIN)
				found = KEYS_MIXED;
			l--, left = l->left, map = l->map;
		}
		if (at == end)
			return CUT;
		uint8_t c = data[at++];
		unsigned key = map & ~(unsigned)left;
		left--, what = OTHER;
		switch (c) {
		case 0x00 ... 0x7f: case 0xe0 ... 0xff: what = INTEGER, n = 0; break;
		case 0xcc: case 0xd0: what = INTEGER, n = 1; break;
		case 0xcd: case 0xd1: what = INTEGER, n = 2; break;
		case 0xce: case 0xd2: what = INTEGER, n = 4; break;
		case 0xcf: case 0xd3: what = INTEGER, n = 8; break;
		case 0x80 ... 0x8f: what = MAP, n = c & 0x0f; break;
		case 0x90 ... 0x9f: what = LIST, n = c & 0x0f; break;
		case 0xa0 ... 0xbf: what = TEXT, n = c & 0x1f; break;
		case 0xc0: case 0xc2: case 0xc3: n = 0; break;
		case 0xca: n = 4; break;
		case 0xcb: n = 8; break;
		case 0xd4 ... 0xd8: n = 1 + (1u << (c - 0xd4)); break; /* the type of an extension, and its bytes */
		case 0xc1: return CUT;
		default:
			width = widths[c - 0xc4];
			if (end - at < width)
				return CUT;
			n = number(data + at, width) + (c >= 0xc7 && c <= 0xc9);
			at += width;
			what = c >= 0xde ? MAP : c >= 0xdc ? LIST : c >= 0xd9 ? TEXT : OTHER;
		}
		if (what >= LIST) {
			n <<= what == MAP;
			if ((elements += n) > ELEMENTS)
				return MANY;
			if (l == levels + LEVELS)
				return DEEP;
			if (key)
				found = KEYS_UNFIT;
			l->left = left, l->map = map;
			left = n, map = what == MAP;
			l++, l->texts = l->integers = 0;
			continue;
		}
		if (end - at < n)
			return CUT;
		if (key) {
			l->texts |= what == TEXT, l->integers |= what == INTEGER;
			if (what == OTHER || (n == 9 && what == TEXT && memcmp(data + at, "__proto__", n) == 0))
				found = KEYS_UNFIT;
		}
		at += n;
		if (map || what > INTEGER || (c >= 0xc4 && c <= 0xc9))
			continue;
		/* Lists of numbers are long, and soon decoded: what is alike is passed over at once. */
		if (n == 0)
			for (; left > 0 && at < end && (uint8_t)(data[at] + 0x20) < 0xa0; left--)
				at++; /* a small integer */
		else
			for (; left > 0 && end - at > n && data[at] == c; left--)
				at += 1 + n;
	}
}

static PyObject *look_at(PyObject *module, PyObject *data) {
	char *at;
	Py_ssize_t n;
	(void)module;
	if (PyBytes_AsStringAndSize(data, &at, &n) < 0)
		return NULL;
	return PyLong_FromLong(look((const uint8_t *)at, (size_t)n));
}

/*
 * glance is look for bytes that are to be decoded: KEYS_PLAIN also where a decoder makes room for at most ELEMENTS,
 * whatever the bytes claim, since there are few arrays and maps, or none that is large.
 */
static PyObject *glance(PyObject *module, PyObject *data) {
	char *at;
	Py_ssize_t n;
	size_t heads = 0; /* of arrays and maps, at most */
	(void)module;
	if (PyBytes_AsStringAndSize(data, &at, &n) < 0)
		return NULL;
	for (Py_ssize_t i = 0; heads <= LEVELS && heads * (size_t)n <= ELEMENTS; i += 128) {
		uint8_t some = 0; /* a byte, so that many are counted at once */
		if (i >= n)
			return PyLong_FromLong(KEYS_PLAIN);
		for (int k = 0, end = n - i < 128 ? (int)(n - i) : 128; k < end; k++) {
			uint8_t c = (uint8_t)at[i + k];
			some += ((c & 0xe0) == 0x80) | ((c & 0xfc) == 0xdc);
		}
		heads += some;
	}
	return PyLong_FromLong(look((const uint8_t *)at, (size_t)n));
}

/* crowded says whether a dict looks at many places for each of n keys. It looks as CPython's do, as it grows. */
static int crowded(const uint64_t *hashes, size_t n, uint8_t *taken) {
	for (size_t some = 0, places = 1024; some < n; places *= 2) {
		some = places * 2 / 3 < n ? places * 2 / 3 : n;
		size_t looks = 16 * some, mask = places - 1;
		memset(taken, 0, places);
		for (size_t k = 0; k < some; k++) {
			uint64_t h = hashes[k];
			size_t i = h & mask;
			for (; taken[i]; i = (i * 5 + (h >>= 5) + 1) & mask)
				if (looks-- == 0)
					return 1;
			taken[i] = 1;
		}
	}
	return 0;
}

static PyObject *collide(PyObject *module, PyObject *pairs) {
	Py_ssize_t n = PyList_Size(pairs);
	size_t size = 1024;
	PyObject *result = NULL;
	(void)module;
	if (n < 0)
		return NULL;
	while (size * 2 / 3 < (size_t)n)
		size *= 2;
	uint64_t *hashes = malloc((size_t)n * sizeof *hashes + size);
	if (hashes == NULL)
		return PyErr_NoMemory();
	for (Py_ssize_t i = 0; i < n; i++) {
		PyObject *key = PyTuple_GetItem(PyList_GetItem(pairs, i), 0);
		if (key == NULL || (hashes[i] = (uint64_t)PyObject_Hash(key)) == (uint64_t)-1)
			goto end;
	}
	result = PyBool_FromLong(crowded(hashes, (size_t)n, (uint8_t *)(hashes + n)));
end:
	free(hashes);
	return result;
}

static PyMethodDef functions[] = {
	{"collide", collide, METH_O, "collide(pairs, /): whether a dict of them looks at many places for each key."},
	{"glance", glance, METH_O, "glance(data, /): look, as far as a decoder needs it."},
	{"look", look_at, METH_O, "look(data, /): what the keys of a msgpack value's maps are, or why it is none."},
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
