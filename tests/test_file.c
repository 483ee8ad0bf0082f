/* test_file.c - files are whole or absent, and a full disk is told */
#include "test.h"
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *folder;

static const char *in_folder(const char *name) {
    static char paths[4][700];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void enter_folder(void) {
    folder = test_scratch("file");
    mkdir(folder, 0777);
}

static void leave_folder(void) {
    char command[800];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    CHECK(system(command) == 0);
}

static int files_in_folder(void) {
    int n = 0;
    DIR *dir = opendir(folder);
    CHECK(dir != NULL);
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;) n += e->d_name[0] != '.';
    if (dir) closedir(dir);
    return n;
}

static bool holds(const char *path, const char *wanted) {
    gfl_context *context = test_context(1);
    uint8_t *bytes = NULL;
    size_t size = 0;
    CHECK_OK(context, gfli_file_read(context, path, 1 << 20, &bytes, &size));
    bool same = size == strlen(wanted) && (size == 0 || !memcmp(bytes, wanted, size));
    gfli_free(context, bytes);
    gfl_context_destroy(context);
    return same;
}

static void write_text(gfl_context *context, const char *path, const char *text) {
    gfli_file file;
    CHECK_OK(context, gfli_file_create(context, path, &file));
    CHECK_OK(context, gfli_file_write(&file, text, strlen(text)));
    CHECK_OK(context, gfli_file_commit(&file));
}

static void a_file_appears_when_it_is_whole(void) {
    enter_folder();
    gfl_context *context = test_context(1);
    gfli_file file;
    const char *path = in_folder("a.txt");
    CHECK_OK(context, gfli_file_create(context, path, &file));
    CHECK_OK(context, gfli_file_printf(&file, "%d %s", 42, "things"));
    CHECK(access(path, F_OK) != 0);
    CHECK_OK(context, gfli_file_commit(&file));
    CHECK(holds(path, "42 things") && files_in_folder() == 1);
    CHECK_OK(context, gfli_file_create(context, path, &file));
    CHECK_OK(context, gfli_file_write(&file, "new", 3));
    CHECK(holds(path, "42 things") && files_in_folder() == 2);
    gfli_file_abandon(&file);
    gfli_file_abandon(&file);
    CHECK(holds(path, "42 things") && files_in_folder() == 1);
    write_text(context, path, "");
    CHECK(holds(path, "") && files_in_folder() == 1);
    /* Two at a time do not meet. */
    gfli_file other;
    CHECK_OK(context, gfli_file_create(context, path, &file));
    CHECK_OK(context, gfli_file_create(context, path, &other));
    CHECK_OK(context, gfli_file_write(&file, "one", 3));
    CHECK_OK(context, gfli_file_write(&other, "two", 3));
    CHECK_OK(context, gfli_file_commit(&file));
    CHECK(holds(path, "one"));
    CHECK_OK(context, gfli_file_commit(&other));
    CHECK(holds(path, "two") && files_in_folder() == 1);
    gfl_context_destroy(context);
    leave_folder();
}

/* A limit on the size of files is the full disk that any machine has. */
static void a_full_disk_leaves_the_old_file(void) {
    enter_folder();
    gfl_context *context = test_context(1);
    const char *path = in_folder("b.txt");
    write_text(context, path, "old");
    struct rlimit before, small;
    CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0);
    small = before;
    small.rlim_cur = 100000;
    signal(SIGXFSZ, SIG_IGN);
    CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
    char *bytes = (char *)calloc(1, 200000);
    for (size_t n = 100001; n <= 200000; n += 99999) {
        gfli_file file;
        CHECK_OK(context, gfli_file_create(context, path, &file));
        gfl_status status = gfli_file_write(&file, bytes, n);
        /* The write may still be in the stream's buffer. */
        if (status == GFL_OK)
            status = gfli_file_commit(&file);
        else
            gfli_file_abandon(&file);
        CHECK(status == GFL_E_IO);
        CHECK(strstr(gfl_context_error(context), path) != NULL);
        CHECK(strstr(gfl_context_error(context), strerror(EFBIG)) != NULL);
        CHECK(files_in_folder() == 1);
    }
    CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0);
    free(bytes);
    CHECK(holds(path, "old"));
    gfl_context_destroy(context);
    leave_folder();
}

static void devices_are_written_in_place(void) {
    gfl_context *context = test_context(1);
    gfli_file file;
    if (access("/dev/full", W_OK) != 0) {
        printf("no /dev/full here\n");
    } else {
        CHECK_OK(context, gfli_file_create(context, "/dev/full", &file));
        CHECK_OK(context, gfli_file_write(&file, "x", 1));
        CHECK_ERROR(context, gfli_file_commit(&file), GFL_E_IO, strerror(ENOSPC));
        CHECK_OK(context, gfli_file_create(context, "/dev/null", &file));
        CHECK_OK(context, gfli_file_write(&file, "x", 1));
        CHECK_OK(context, gfli_file_commit(&file));
        struct stat info;
        CHECK(stat("/dev/null", &info) == 0 && S_ISCHR(info.st_mode));
    }
    gfl_context_destroy(context);
}

static void links_and_permissions_survive(void) {
    enter_folder();
    gfl_context *context = test_context(1);
    struct stat info;
    write_text(context, in_folder("target"), "old");
    CHECK(chmod(in_folder("target"), 0640) == 0);
    CHECK(symlink("target", in_folder("link")) == 0);
    CHECK(symlink("link", in_folder("chain")) == 0);
    write_text(context, in_folder("chain"), "new");
    CHECK(holds(in_folder("target"), "new"));
    CHECK(lstat(in_folder("link"), &info) == 0 && S_ISLNK(info.st_mode));
    CHECK(stat(in_folder("target"), &info) == 0 && (info.st_mode & 0777) == 0640);
    CHECK(files_in_folder() == 3);
    gfl_context_destroy(context);
    leave_folder();
}

static void impossible_places_are_told(void) {
    enter_folder();
    gfl_context *context = test_context(1);
    gfli_file file;
    CHECK_ERROR(context, gfli_file_create(context, folder, &file), GFL_E_IO, strerror(EISDIR));
    CHECK_ERROR(context, gfli_file_create(context, in_folder("no/file"), &file), GFL_E_IO,
                strerror(ENOENT));
    CHECK_ERROR(context, gfli_file_create(context, "", &file), GFL_E_ARG, "no name");
    gfli_file_abandon(&file);
    gfl_context_destroy(context);
    leave_folder();
}

static void a_file_is_read_up_to_its_limit(void) {
    enter_folder();
    gfl_context *context = test_context(1);
    const char *path = in_folder("c.bin");
    uint8_t *bytes = NULL;
    size_t size = 1;
    write_text(context, path, "0123456789");
    CHECK_OK(context, gfli_file_read(context, path, 10, &bytes, &size));
    CHECK(size == 10 && !memcmp(bytes, "0123456789", 10));
    gfli_free(context, bytes);
    CHECK_ERROR(context, gfli_file_read(context, path, 9, &bytes, &size), GFL_E_FORMAT,
                "larger than 9 bytes");
    CHECK(bytes == NULL && size == 0);
    CHECK_ERROR(context, gfli_file_read(context, in_folder("none"), 9, &bytes, &size), GFL_E_IO,
                strerror(ENOENT));
    CHECK_ERROR(context, gfli_file_read(context, folder, 9, &bytes, &size), GFL_E_IO, folder);
    if (access("/dev/zero", R_OK) == 0)
        CHECK_ERROR(context, gfli_file_read(context, "/dev/zero", 100000, &bytes, &size),
                    GFL_E_FORMAT, "larger than");
    CHECK(bytes == NULL);
    gfl_context_destroy(context);
    leave_folder();
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(a_file_appears_when_it_is_whole),
                                      TEST(a_full_disk_leaves_the_old_file),
                                      TEST(devices_are_written_in_place),
                                      TEST(links_and_permissions_survive),
                                      TEST(impossible_places_are_told),
                                      TEST(a_file_is_read_up_to_its_limit),
                                      {0}};
    return test_main(argc, argv, cases);
}
