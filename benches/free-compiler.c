/* A compiler that costs nothing: copies the object that the real one made earlier, and its list of dependencies, which
 * kbuild's fixdep reads every file of. What is left of a build's CPU is then make's own. Used by build-cost.sh; anything but
 * a compile to an object that is known goes to the real compiler.
 * It may be called the way rdcc is, so that no build system takes it for another compiler.
 *   FREE_OBJECTS  where objects and lists are, by their path in the tree
 *   FREE_REAL     the real compiler
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

static int copy(const char *from, const char *to)
{
	struct stat st;
	int in = open(from, O_RDONLY), out, ok;
	if (in < 0 || fstat(in, &st)) return 0;
	out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (out < 0) return 0;
	ok = sendfile(out, in, NULL, st.st_size) == st.st_size;
	close(in);
	close(out);
	return ok;
}

int main(int argc, char **argv)
{
	const char *objects = getenv("FREE_OBJECTS"), *real = getenv("FREE_REAL"), *out = NULL, *dep = NULL;
	int compile = 0;
	char path[PATH_MAX];
	while (argc > 2 && (!strcmp(argv[1], "--toolchain") || !strcmp(argv[1], "--driver"))) argv += 2, argc -= 2;
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-c")) compile = 1;
		else if (!strcmp(argv[i], "-o") && i + 1 < argc) out = argv[++i];
		else if (!strcmp(argv[i], "-MF") && i + 1 < argc) dep = argv[++i];
		else if (!strncmp(argv[i], "-Wp,-M", 6) && strrchr(argv[i], ',')) dep = strrchr(argv[i], ',') + 1;
	}
	if (compile && out && objects) {
		snprintf(path, sizeof path, "%s/%s", objects, out);
		if (copy(path, out)) {
			if (dep) {
				snprintf(path, sizeof path, "%s/%s", objects, dep);
				if (!copy(path, dep)) return 1;
			}
			return 0;
		}
	}
	argv[0] = (char *)real;
	execv(real, argv);
	perror(real);
	return 127;
}
