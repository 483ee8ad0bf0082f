/* fuzz_main.c - replays inputs through a fuzz target, where there is no fuzzer
 *
 *     fuzz_json file... folder...
 *
 * Linked with one fuzz_*.c; each file, and each file of a folder, goes to LLVMFuzzerTestOneInput.
 * The target itself finds what is wrong, with the help of the sanitizers. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int n_inputs;

static int replay_file(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0) {
        if (f) fclose(f);
        fprintf(stderr, "%s: cannot be read\n", path);
        return 1;
    }
    long end = ftell(f);
    size_t size = end > 0 ? (size_t)end : 0;
    rewind(f);
    /* Exactly as large as the input, so that a sanitizer sees the first byte beyond it. */
    uint8_t *data = (uint8_t *)malloc(size ? size : 1);
    int failed = !data || fread(data, 1, size, f) != size;
    fclose(f);
    if (!failed) LLVMFuzzerTestOneInput(data, size);
    free(data);
    n_inputs++;
    return failed;
}

static int replay(const char *path) {
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)) return replay_file(path);
    DIR *dir = opendir(path);
    if (!dir) return 1;
    int failed = 0;
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        char name[4096];
        if (e->d_name[0] == '.') continue;
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        failed |= replay(name);
    }
    closedir(dir);
    return failed;
}

int main(int argc, char **argv) {
    int failed = 0;
    for (int i = 1; i < argc; i++) {
        struct stat info;
        if (argc == 2 && stat(argv[i], &info) != 0) {
            printf("skipped: no %s\n", argv[i]);
            return 77;
        }
        failed |= replay(argv[i]);
    }
    printf("%d inputs replayed\n", n_inputs);
    return failed;
}
