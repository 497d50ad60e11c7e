/* read answers the lines of its input: "hash SEED LENGTH", or "FILE NAMESPACE NOW KEY". */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../cachesidecar.h"

static void hash(uint64_t seed, size_t n) {
	unsigned char *b = malloc(n + 1); /* its own size, so that a read behind it is found */
	for (size_t i = 0; i < n; i++)
		b[i] = (unsigned char)(i * 131 + 7);
	printf("%016" PRIx64 "\n", cs_hash(b, n, seed));
	free(b);
}

static void get(const char *file, const char *space, uint64_t now, const char *key) {
	cs_region r;
	cs_space s;
	cs_found f;
	int fd = open(file, O_RDONLY), mapped = fd < 0 ? -1 : cs_map(fd, &r);
	if (fd >= 0)
		close(fd);
	if (mapped != 0) {
		puts("refused");
		return;
	}
	char *value = malloc(CS_MAX_VALUE);
	int got = cs_find(&r, space, strlen(space), &s) != 0 ? CS_GONE
							      : cs_get(&r, &s, key, strlen(key), now, value, &f);
	switch (got) {
	case CS_HIT:
		printf("hit %" PRIu64 " %" PRIu32 " %" PRIu32 " %016" PRIx64 "\n", f.version, f.flags, f.length,
		       cs_hash(value, f.length, 0));
		break;
	case CS_ABSENT:
		puts("absent");
		break;
	case CS_GONE:
		puts("gone");
		break;
	default:
		puts("miss");
	}
	free(value);
	cs_unmap(&r);
}

int main(void) {
	static char line[4096], a[1100], b[1100], c[1100], d[1100];
	while (fgets(line, sizeof line, stdin)) {
		int n = sscanf(line, "%1099s %1099s %1099s %1099s", a, b, c, d);
		if (n == 3 && strcmp(a, "hash") == 0)
			hash(strtoull(b, NULL, 10), strtoull(c, NULL, 10));
		else if (n == 4)
			get(a, b, strtoull(c, NULL, 10), d);
		else
			puts("?");
	}
	return 0;
}
