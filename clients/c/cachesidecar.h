/*
 * cachesidecar.h: reads the memory that a cachesidecar shares with the apps on its host.
 *
 * The layout, and the order of the loads, are in clients/c/README.md. This file is the
 * reference for readers in other languages: gcc or clang with -std=gnu11, little-endian, Linux,
 * no dependency.
 *
 *	cs_region r;
 *	cs_space users;
 *	cs_found f;
 *	char value[CS_MAX_VALUE];
 *	if (cs_map(fd, &r) == 0 && cs_find(&r, "users", 5, &users) == 0 &&
 *	    cs_get(&r, &users, key, key_length, cs_now(), value, &f) == CS_HIT)
 *		... f.length bytes of value
 *
 * fd is what the answer to SHARED brings. Compare cs_id and cs_counter with that answer, and
 * cs_epoch with the answer to HELLO. If a later HELLO answers another epoch, unmap the region
 * before you use an answer of that connection: see clients/c/README.md.
 * Anything but CS_HIT and CS_ABSENT means: ask the sidecar over the socket. The sidecar does not
 * see what is read here: count it, and report it with HITS (docs/PROTOCOL.md), so that its hit
 * ratio has it and it keeps what you read.
 */
#ifndef CACHESIDECAR_H
#define CACHESIDECAR_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#define CS_MAX_VALUE 16384
#define CS_MAX_KEY 1024

/* ---- xxh3, 64 bits ---- */

static const unsigned char cs_secret[192] = {
	0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
	0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
	0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
	0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
	0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
	0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
	0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
	0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
	0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
	0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
	0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
	0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

#define CS_P32_1 0x9E3779B1u
#define CS_P32_2 0x85EBCA77u
#define CS_P32_3 0xC2B2AE3Du
#define CS_P64_1 0x9E3779B185EBCA87u
#define CS_P64_2 0xC2B2AE3D27D4EB4Fu
#define CS_P64_3 0x165667B19E3779F9u
#define CS_P64_4 0x85EBCA77C2B2AE63u
#define CS_P64_5 0x27D4EB2F165667C5u

static inline uint32_t cs_32(const unsigned char *p) {
	uint32_t v;
	memcpy(&v, p, sizeof v);
	return v;
}

static inline uint64_t cs_64(const unsigned char *p) {
	uint64_t v;
	memcpy(&v, p, sizeof v);
	return v;
}

static inline uint64_t cs_rotate(uint64_t v, int n) { return v << n | v >> (64 - n); }

static inline uint64_t cs_fold(uint64_t a, uint64_t b) {
	__extension__ unsigned __int128 product = (unsigned __int128)a * b;
	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t cs_avalanche(uint64_t h) {
	h = (h ^ h >> 37) * 0x165667919E3779F9u;
	return h ^ h >> 32;
}

static inline uint64_t cs_avalanche64(uint64_t h) {
	h = (h ^ h >> 33) * CS_P64_2;
	h = (h ^ h >> 29) * CS_P64_3;
	return h ^ h >> 32;
}

static inline uint64_t cs_mix(const unsigned char *in, const unsigned char *secret, uint64_t seed) {
	return cs_fold(cs_64(in) ^ (cs_64(secret) + seed), cs_64(in + 8) ^ (cs_64(secret + 8) - seed));
}

static inline uint64_t cs_hash_short(const unsigned char *in, size_t n, uint64_t seed) {
	const unsigned char *s = cs_secret;
	if (n > 8) {
		uint64_t low = cs_64(in) ^ ((cs_64(s + 24) ^ cs_64(s + 32)) + seed);
		uint64_t high = cs_64(in + n - 8) ^ ((cs_64(s + 40) ^ cs_64(s + 48)) - seed);
		return cs_avalanche(n + __builtin_bswap64(low) + high + cs_fold(low, high));
	}
	if (n >= 4) {
		seed ^= (uint64_t)__builtin_bswap32((uint32_t)seed) << 32;
		uint64_t v = cs_32(in + n - 4) + ((uint64_t)cs_32(in) << 32);
		uint64_t h = v ^ ((cs_64(s + 8) ^ cs_64(s + 16)) - seed);
		h = (h ^ cs_rotate(h, 49) ^ cs_rotate(h, 24)) * 0x9FB21C651E98DF25u;
		h = (h ^ ((h >> 35) + n)) * 0x9FB21C651E98DF25u;
		return h ^ h >> 28;
	}
	if (n > 0) {
		uint32_t v = (uint32_t)in[0] << 16 | (uint32_t)in[n >> 1] << 24 | in[n - 1] | (uint32_t)n << 8;
		return cs_avalanche64(v ^ ((uint64_t)(cs_32(s) ^ cs_32(s + 4)) + seed));
	}
	return cs_avalanche64(seed ^ cs_64(s + 56) ^ cs_64(s + 64));
}

static inline void cs_stripe(uint64_t acc[8], const unsigned char *in, const unsigned char *secret) {
	for (int i = 0; i < 8; i++) {
		uint64_t v = cs_64(in + 8 * i), k = v ^ cs_64(secret + 8 * i);
		acc[i ^ 1] += v;
		acc[i] += (k & 0xffffffffu) * (k >> 32);
	}
}

static inline uint64_t cs_hash_long(const unsigned char *in, size_t n, uint64_t seed) {
	unsigned char secret[192];
	for (int i = 0; i < 192; i += 16) {
		uint64_t low = cs_64(cs_secret + i) + seed, high = cs_64(cs_secret + i + 8) - seed;
		memcpy(secret + i, &low, 8);
		memcpy(secret + i + 8, &high, 8);
	}
	uint64_t acc[8] = {CS_P32_3, CS_P64_1, CS_P64_2, CS_P64_3, CS_P64_4, CS_P32_2, CS_P64_5, CS_P32_1};
	size_t stripes = (n - 1) / 64;
	for (size_t i = 0; i < stripes; i++) {
		cs_stripe(acc, in + 64 * i, secret + 8 * (i % 16));
		if (i % 16 == 15)
			for (int j = 0; j < 8; j++)
				acc[j] = (acc[j] ^ acc[j] >> 47 ^ cs_64(secret + 128 + 8 * j)) * CS_P32_1;
	}
	cs_stripe(acc, in + n - 64, secret + 121);
	uint64_t h = n * CS_P64_1;
	for (int i = 0; i < 4; i++)
		h += cs_fold(acc[2 * i] ^ cs_64(secret + 11 + 16 * i), acc[2 * i + 1] ^ cs_64(secret + 19 + 16 * i));
	return cs_avalanche(h);
}

/* cs_hash is xxh3 of n bytes, with a seed. */
static inline uint64_t cs_hash(const void *bytes, size_t n, uint64_t seed) {
	const unsigned char *in = bytes, *s = cs_secret;
	if (n <= 16)
		return cs_hash_short(in, n, seed);
	if (n > 240)
		return cs_hash_long(in, n, seed);
	uint64_t h = n * CS_P64_1;
	if (n <= 128) {
		for (int i = (int)(n - 1) / 32; i >= 0; i--)
			h += cs_mix(in + 16 * i, s + 32 * i, seed) + cs_mix(in + n - 16 * (i + 1), s + 32 * i + 16, seed);
		return cs_avalanche(h);
	}
	for (size_t i = 0; i < 8; i++)
		h += cs_mix(in + 16 * i, s + 16 * i, seed);
	h = cs_avalanche(h);
	for (size_t i = 8; i < n / 16; i++)
		h += cs_mix(in + 16 * i, s + 16 * (i - 8) + 3, seed);
	return cs_avalanche(h + cs_mix(in + n - 16, s + 119, seed));
}

/* ---- the region ---- */

enum { CS_MISS = 0, CS_HIT = 1, CS_ABSENT = 2, CS_GONE = -1 }; /* GONE: find the namespace again */

typedef struct {
	unsigned char *mem;
	size_t size;
	uint64_t buckets, lines;
} cs_region;

typedef struct {
	uint32_t slot;
	uint64_t incarnation, seed;
} cs_space;

typedef struct {
	uint32_t length, flags;
	uint64_t version, ends; /* ends: ns of the boot clock, zero for never */
} cs_found;

#define CS_NAMES 4096u
#define CS_OWNERS 36864u
#define CS_PARTITIONS 40960u
#define CS_INDEX 172032u
#define CS_HEAD 88u
#define CS_POSITION 0xffffffffffffu
#define CS_CLOCKS 2000000u /* ns by which two clocks may differ */

static inline uint64_t cs_load(const cs_region *r, size_t at) {
	return atomic_load((_Atomic uint64_t *)(void *)(r->mem + at));
}

/* cs_now is the boot clock in ns. Read it before cs_get, for each read. */
static inline uint64_t cs_now(void) {
	struct timespec t;
	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t cs_epoch(const cs_region *r) { return cs_load(r, 40); }
static inline uint64_t cs_id(const cs_region *r) { return cs_load(r, 48); }
static inline uint64_t cs_counter(const cs_region *r) { return cs_load(r, 192); }
static inline int cs_closed(const cs_region *r) { return cs_load(r, 128) != 1; }

static inline void cs_unmap(cs_region *r) { munmap(r->mem, r->size); }

/* cs_map maps a region. It returns 0, or -1 if the file is no region of this layout. */
static inline int cs_map(int fd, cs_region *r) {
	struct stat st;
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size < 1 << 20 || st.st_size > (off_t)1 << 40)
		return -1;
	r->size = (size_t)st.st_size;
	void *m = mmap(NULL, r->size, PROT_READ, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED)
		return -1;
	r->mem = m;
	r->buckets = cs_load(r, 24);
	r->lines = cs_load(r, 32);
	const uint64_t most = (uint64_t)1 << 34;
	if (cs_load(r, 0) != 0x0a0d6d656d687363u || cs_load(r, 8) != 1 || cs_load(r, 16) != r->size ||
	    r->buckets == 0 || (r->buckets & (r->buckets - 1)) != 0 || r->buckets > most || r->lines < 4096 ||
	    r->lines > most || CS_INDEX + r->buckets * 64 + r->lines * 64 > r->size) {
		cs_unmap(r);
		return -1;
	}
	return 0;
}

/* cs_find looks a namespace up. It returns 0, or -1 if it is not shared. */
static inline int cs_find(const cs_region *r, const char *name, size_t n, cs_space *s) {
	unsigned char have[64];
	for (s->slot = 0; n <= sizeof have && s->slot < 256; s->slot++) {
		size_t at = CS_NAMES + 128 * (size_t)s->slot;
		s->incarnation = cs_load(r, at);
		s->seed = cs_load(r, at + 24);
		if (s->incarnation == 0 || cs_load(r, at + 32) != n)
			continue;
		for (size_t i = 0; i < sizeof have; i += 8) {
			uint64_t word = cs_load(r, at + 40 + i);
			memcpy(have + i, &word, 8);
		}
		if (memcmp(have, name, n) == 0 && cs_load(r, at) == s->incarnation)
			return 0;
	}
	return -1;
}

/* cs_current says whether an entry that has been copied may be served. */
static inline int cs_current(const cs_region *r, const unsigned char *head, uint64_t hash, uint64_t now) {
	uint32_t owner = cs_32(head + 60);
	size_t names = CS_NAMES + 128 * (size_t)cs_32(head + 56);
	if (owner >= 256)
		return 0;
	uint64_t certified = cs_load(r, CS_OWNERS + 8 * (size_t)owner); /* before all that follows */
	uint64_t bound = owner == 0 ? cs_load(r, 56) : cs_load(r, names + 16);
	if (certified == 0 || certified > INT64_MAX || bound > INT64_MAX)
		return 0;
	int64_t age = (int64_t)(now - certified);
	if (age < -(int64_t)CS_CLOCKS || age >= (int64_t)bound - (int64_t)CS_CLOCKS)
		return 0;
	uint64_t ends = cs_64(head + 40);
	return cs_load(r, CS_PARTITIONS + 8 * (size_t)(hash >> 50)) == cs_64(head + 32) &&
	       cs_load(r, names + 8) == cs_64(head + 24) && cs_load(r, names) == cs_64(head + 16) &&
	       !cs_closed(r) && (ends == 0 || (ends <= INT64_MAX && now + CS_CLOCKS < ends));
}

/* cs_get reads a key at a moment of the boot clock. value has room for CS_MAX_VALUE bytes. */
static inline int cs_get(const cs_region *r, const cs_space *s, const void *key, size_t n, uint64_t now,
			 void *value, cs_found *f) {
	if (cs_load(r, CS_NAMES + 128 * (size_t)s->slot) != s->incarnation)
		return CS_GONE;
	uint64_t hash = cs_hash(key, n, s->seed), word = 0;
	size_t at = CS_INDEX + 64 * (size_t)(hash & (r->buckets - 1)), end = at + 64;
	for (; at < end; at += 8)
		if ((word = cs_load(r, at)) != 0 && word >> 48 == (hash >> 32 & 0xffff))
			break;
	if (at == end)
		return CS_MISS;
	uint64_t position = word & CS_POSITION;
	size_t from = CS_INDEX + 64 * (size_t)r->buckets + 64 * (size_t)(position % r->lines);
	unsigned char head[CS_HEAD];
	if (r->size - from < CS_HEAD)
		return CS_MISS;
	memcpy(head, r->mem + from, CS_HEAD);
	uint32_t length = cs_32(head + 72);
	if (cs_64(head) != position || cs_64(head + 8) != hash || cs_64(head + 16) != s->incarnation ||
	    cs_32(head + 56) != s->slot || cs_32(head + 68) != n || length > CS_MAX_VALUE)
		return CS_MISS;
	from += CS_HEAD;
	if (r->size - from < n + length || memcmp(r->mem + from, key, n) != 0)
		return CS_MISS;
	memcpy(value, r->mem + from + n, length);
	atomic_thread_fence(memory_order_acquire);
	if (!cs_current(r, head, hash, now) || cs_load(r, at) != word || cs_load(r, 256) > position)
		return CS_MISS;
	if (cs_hash(value, length, cs_hash(key, n, cs_hash(head, 80, 0))) != cs_64(head + 80))
		return CS_MISS;
	f->length = length;
	f->flags = cs_32(head + 64);
	f->version = cs_64(head + 48);
	f->ends = cs_64(head + 40);
	return cs_32(head + 76) == 1 ? CS_ABSENT : CS_HIT;
}

#endif
