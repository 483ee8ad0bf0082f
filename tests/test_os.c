/* test_os.c - what no test outside can see of the system's calls: their order, and limits of CPUs
 *
 * The implementation is in this program, with its seam, so that its file-local functions can be
 * called and fsync is counted. */
#define GFLI_OS_SEAM
#define GFL_IMPLEMENTATION
#include "data.h"

static char done[4096]; /* "create sync rename" and so on, in order */
static const char *failing;
static int syncs;

int gfli_os_seam(const char *operation, const char *path) {
    const size_t n = strlen(done);
    if (!strstr(path, "durable")) return 0;
    snprintf(done + n, sizeof done - n, "%s%s", n ? ", " : "", operation);
    return failing && strcmp(operation, failing) == 0 ? EIO : 0;
}

/* In place of the C library's: the data of this file need not reach a disk. */
int fsync(int fd) {
    syncs += fd >= 0;
    return 0;
}

static gfl_status replace(gfl_context *context, const char *text) {
    gfli_file file;
    done[0] = 0;
    syncs = 0;
    gfl_status status = gfli_file_create(context, gfli_to_file("durable.txt"), &file);
    if (status != GFL_OK) return status;
    status = gfli_file_write(&file, text, strlen(text));
    if (status == GFL_OK) return gfli_file_commit(&file);
    gfli_file_abandon(&file);
    return status;
}

static bool holds(const char *text) {
    size_t size;
    uint8_t *bytes = data_read("durable.txt", &size);
    const bool same = size == strlen(text) && memcmp(bytes, text, size) == 0;
    free(bytes);
    return same;
}

/* A rename that reaches the disk before the data would leave an empty file after a power cut. */
static void data_reach_the_disk_before_the_name(void) {
    gfl_context *context = test_context(1);
    CHECK_OK(context, replace(context, "old"));
    CHECK(strcmp(done, "create, write, sync, rename, sync folder") == 0);
    CHECK(syncs == 2 && holds("old")); /* the file's and the folder's */
    gfl_context_destroy(context);
}

static void what_fails_before_the_rename_leaves_the_old_file(void) {
    static const char *const operations[] = {"create", "write", "sync", "rename"};
    gfl_context *context = test_context(1);
    CHECK_OK(context, replace(context, "old"));
    for (int i = 0; i < 4; i++) {
        failing = operations[i];
        CHECK_ERROR(context, replace(context, "new"), GFL_E_IO, "durable.txt");
        CHECK(strstr(done, failing) && !strstr(done, "sync folder") && holds("old"));
        CHECK(i == 3 || !strstr(done, "rename"));
        CHECK(i == 0 || strstr(done, "remove"));
        failing = NULL;
    }
    CHECK_OK(context, replace(context, "new"));
    CHECK(holds("new"));
    gfl_context_destroy(context);
}

static int cgroup_of(const char *text) {
    FILE *f = fopen("cpu.max", "w");
    fputs(text, f);
    fclose(f);
    return gfli_cgroup_cpus("cpu.max");
}

/* Kernel documentation, admin-guide/cgroup-v2: "$MAX $PERIOD", "max" for no limit. */
static void a_control_group_limits_the_threads(void) {
    CHECK(cgroup_of("max 100000\n") == 0);
    CHECK(cgroup_of("100000 100000\n") == 1);
    CHECK(cgroup_of("100001 100000\n") == 2); /* part of a CPU needs a thread */
    CHECK(cgroup_of("50000 100000\n") == 1);
    CHECK(cgroup_of("400000 100000\n") == 4);
    CHECK(cgroup_of("200000 50000\n") == 4);
    CHECK(cgroup_of("") == 0 && cgroup_of("0 0\n") == 0 && cgroup_of("-1 100000\n") == 0);
    CHECK(gfli_cgroup_cpus("no/such/file") == 0);
}

static void the_smallest_limit_counts(void) {
    CHECK(gfli_least_cpus(8, 0, 0) == 8);
    CHECK(gfli_least_cpus(8, 4, 0) == 4 && gfli_least_cpus(8, 0, 3) == 3);
    CHECK(gfli_least_cpus(8, 4, 3) == 3 && gfli_least_cpus(8, 2, 3) == 2);
    CHECK(gfli_least_cpus(2, 64, 64) == 2 && gfli_least_cpus(-1, 0, 0) == 1);
    gfl_context *context = test_context(0);
    CHECK(gfl_context_count_threads(context) <= sysconf(_SC_NPROCESSORS_ONLN));
    gfl_context_destroy(context);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(data_reach_the_disk_before_the_name),
        TEST(what_fails_before_the_rename_leaves_the_old_file),
        TEST(a_control_group_limits_the_threads),
        TEST(the_smallest_limit_counts),
        {0},
    };
    return test_main(argc, argv, cases);
}
