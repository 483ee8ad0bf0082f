/* test_file.c - files are whole or absent, and a full disk is told */
#define _XOPEN_SOURCE 700 /* setitimer */
#include "test.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
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
    CHECK_OK(context, gfli_file_create(context, gfli_to_file(path), &file));
    CHECK_OK(context, gfli_file_write(&file, text, strlen(text)));
    CHECK_OK(context, gfli_file_commit(&file));
}

static void a_file_appears_when_it_is_whole(void) {
    enter_folder();
    gfl_context *context = test_context(1);
    gfli_file file;
    const char *path = in_folder("a.txt");
    CHECK_OK(context, gfli_file_create(context, gfli_to_file(path), &file));
    CHECK_OK(context, gfli_file_write(&file, "42 things", 9));
    CHECK(access(path, F_OK) != 0);
    CHECK_OK(context, gfli_file_commit(&file));
    CHECK(holds(path, "42 things") && files_in_folder() == 1);
    CHECK_OK(context, gfli_file_create(context, gfli_to_file(path), &file));
    CHECK_OK(context, gfli_file_write(&file, "new", 3));
    CHECK(holds(path, "42 things") && files_in_folder() == 2);
    gfli_file_abandon(&file);
    gfli_file_abandon(&file);
    CHECK(holds(path, "42 things") && files_in_folder() == 1);
    write_text(context, path, "");
    CHECK(holds(path, "") && files_in_folder() == 1);
    /* Two at a time do not meet. */
    gfli_file other;
    CHECK_OK(context, gfli_file_create(context, gfli_to_file(path), &file));
    CHECK_OK(context, gfli_file_create(context, gfli_to_file(path), &other));
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
        CHECK_OK(context, gfli_file_create(context, gfli_to_file(path), &file));
        gfl_status status = gfli_file_write(&file, bytes, n);
        /* The write may still be in the stream's buffer. */
        if (status == GFL_OK)
            status = gfli_file_commit(&file);
        else
            gfli_file_abandon(&file);
        CHECK(status == GFL_E_IO);
        CHECK(strstr(gfl_context_get_error(context), path) != NULL);
        CHECK(strstr(gfl_context_get_error(context), strerror(EFBIG)) != NULL);
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
        CHECK_OK(context, gfli_file_create(context, gfli_to_file("/dev/full"), &file));
        CHECK_OK(context, gfli_file_write(&file, "x", 1));
        CHECK_ERROR(context, gfli_file_commit(&file), GFL_E_IO, strerror(ENOSPC));
        CHECK_OK(context, gfli_file_create(context, gfli_to_file("/dev/null"), &file));
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
    CHECK_ERROR(context, gfli_file_create(context, gfli_to_file(folder), &file), GFL_E_IO,
                "cannot be created: it is a folder");
    CHECK_ERROR(context, gfli_file_create(context, gfli_to_file(in_folder("no/file")), &file),
                GFL_E_IO, strerror(ENOENT));
    CHECK_ERROR(context, gfli_file_create(context, gfli_to_file(""), &file), GFL_E_ARG, "no name");
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
    CHECK(bytes == NULL);
    gfl_context_destroy(context);
    leave_folder();
}

/* POSIX calls a file regular or not; mkfifo(1) and the kernel's devices are the others. */
static void only_regular_files_are_opened_for_reading(void) {
    enter_folder();
    gfl_context *context = test_context(1);
    uint8_t *bytes = NULL;
    size_t size = 1;
    const char *fifo = in_folder("fifo");
    CHECK(mkfifo(fifo, 0600) == 0);
    const struct {
        const char *path, *says;
    } rows[] = {{fifo, "it is a FIFO"},
                {folder, "it is a folder"},
                {"/dev/zero", "it is a device"},
                {"/dev/tty", ""}};
    for (size_t i = 0; i < GFLI_COUNT(rows); i++) {
        gfli_json *json = NULL;
        gfli_blob blob;
        gfl_pixels pixels;
        gfl_model *model = NULL;
        const char *path = rows[i].path, *says = rows[i].says;
        CHECK_ERROR(context, gfli_file_read(context, path, 100, &bytes, &size), GFL_E_IO, says);
        CHECK(bytes == NULL && size == 0);
        CHECK_ERROR(context, gfli_json_open(context, path, &json), GFL_E_IO, says);
        CHECK_ERROR(context, gfli_blob_open(context, path, &blob), GFL_E_IO, says);
        CHECK_ERROR(context, gfl_image_read(context, path, &pixels), GFL_E_IO, says);
        CHECK_ERROR(context, gfl_model_load(context, path, NULL, &model), GFL_E_IO, says);
        CHECK_ERROR(context, gfl_model_import(context, path, NULL, &model), GFL_E_IO, says);
        CHECK(strstr(gfl_context_get_error(context), path) != NULL);
    }
    gfl_context_destroy(context);
    leave_folder();
}

/* With standard input a pipe; the test's own is put back. */
static void standard_input_may_be_a_pipe_where_bytes_are_taken_in_order(void) {
    gfl_context *context = test_context(1);
    uint8_t *bytes = NULL;
    size_t size = 0;
    gfli_json *json = NULL;
    gfli_blob blob;
    int ends[2], before = dup(STDIN_FILENO);
    for (int i = 0; i < 3; i++) {
        CHECK(pipe(ends) == 0 && write(ends[1], "[1, 2]", 6) == 6);
        CHECK(dup2(ends[0], STDIN_FILENO) == STDIN_FILENO);
        close(ends[0]), close(ends[1]);
        if (i == 0) {
            CHECK_OK(context, gfli_file_read(context, "/dev/stdin", 6, &bytes, &size));
            CHECK(size == 6 && !memcmp(bytes, "[1, 2]", 6));
            gfli_free(context, bytes);
        } else if (i == 1) {
            CHECK_ERROR(context, gfli_file_read(context, "/dev/stdin", 5, &bytes, &size),
                        GFL_E_FORMAT, "larger than 5 bytes");
        } else {
            CHECK_ERROR(context, gfli_blob_open(context, "/dev/stdin", &blob), GFL_E_IO,
                        "it is a FIFO");
            CHECK_OK(context, gfli_json_open(context, "/dev/stdin", &json));
            CHECK(gfli_json_next(json) == GFLI_JSON_ARRAY && gfli_json_as_number(json) == 0);
            CHECK(gfli_json_next(json) == GFLI_JSON_NUMBER && gfli_json_as_number(json) == 1);
            gfli_json_close(json);
        }
    }
    CHECK(before < 0 || dup2(before, STDIN_FILENO) == STDIN_FILENO);
    if (before >= 0) close(before);
    gfl_context_destroy(context);
}

static void on_alarm(int number) {
    (void)number;
}

/* Signals without SA_RESTART end read(2) with EINTR, as POSIX says; here one comes every 5 ms while
 * another process takes its time to write. */
static void interruptions_are_not_errors(void) {
    gfl_context *context = test_context(1);
    struct sigaction action, old;
    struct itimerval often = {{0, 5000}, {0, 5000}}, never = {{0, 0}, {0, 0}};
    int ends[2], before = dup(STDIN_FILENO), ended = 0;
    uint8_t *bytes = NULL;
    size_t size = 0;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_alarm;
    CHECK(sigaction(SIGALRM, &action, &old) == 0);
    CHECK(pipe(ends) == 0);
    const pid_t child = fork();
    if (child == 0) {
        const struct timespec pause = {0, 60000000};
        for (int i = 0; i < 3; i++) {
            nanosleep(&pause, NULL);
            if (write(ends[1], "abc", 3) != 3) _exit(1);
        }
        _exit(0);
    }
    CHECK(child > 0 && dup2(ends[0], STDIN_FILENO) == STDIN_FILENO);
    close(ends[0]), close(ends[1]);
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    CHECK_OK(context, gfli_file_read(context, "/dev/stdin", 100, &bytes, &size));
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    CHECK(size == 9 && !memcmp(bytes, "abcabcabc", 9));
    CHECK(waitpid(child, &ended, 0) == child && ended == 0);
    gfli_free(context, bytes);
    CHECK(sigaction(SIGALRM, &old, NULL) == 0);
    CHECK(before < 0 || dup2(before, STDIN_FILENO) == STDIN_FILENO);
    if (before >= 0) close(before);
    gfl_context_destroy(context);
}

static void lack_of_memory_is_said_as_such(void) {
    gfl_context *context = test_context(1);
    CHECK_ERROR(context, gfli_os_error(context, "a.json", "cannot be read", ENOMEM), GFL_E_MEMORY,
                "a.json cannot be read: ");
    CHECK_ERROR(context, gfli_os_error(context, "a.json", "cannot be read", EIO), GFL_E_IO,
                strerror(EIO));
    gfl_context_destroy(context);
}

/* What exec would inherit: F_GETFD is POSIX's word for it. */
static void descriptors_are_closed_on_exec(void) {
    gfl_context *context = test_context(1);
    enter_folder();
    gfli_file file;
    gfli_blob blob;
    CHECK_OK(context, gfli_file_create(context, gfli_to_file(in_folder("x")), &file));
    CHECK(fcntl((int)file.handle, F_GETFD) & FD_CLOEXEC);
    CHECK_OK(context, gfli_file_write(&file, "x", 1));
    CHECK_OK(context, gfli_file_commit(&file));
    CHECK_OK(context, gfli_blob_open_bare(context, in_folder("x"), &blob));
    CHECK(fcntl((int)blob.file, F_GETFD) & FD_CLOEXEC);
    gfli_blob_close(&blob);
    gfl_context_destroy(context);
    leave_folder();
}

/* Every way through the buffer: what fits, what fills it exactly, what passes it by. */
static void pieces_of_any_size_arrive_in_order(void) {
    enter_folder();
    gfl_context *context = test_context(1);
    static const size_t sizes[] = {1, 65535, 1, 65536, 3, 65537, 131072, 0, 511, 512, 513};
    char *all = (char *)calloc(1, 500000);
    size_t n = 0, size;
    gfli_file file;
    uint8_t *bytes = NULL;
    CHECK_OK(context, gfli_file_create(context, gfli_to_file(in_folder("x")), &file));
    for (size_t i = 0; i < GFLI_COUNT(sizes); i++) {
        for (size_t k = 0; k < sizes[i]; k++) all[n + k] = (char)('a' + (n + k) * 7 % 26);
        CHECK_OK(context, gfli_file_write(&file, all + n, sizes[i]));
        n += sizes[i];
    }
    CHECK_OK(context, gfli_file_commit(&file));
    CHECK_OK(context, gfli_file_read(context, in_folder("x"), n, &bytes, &size));
    CHECK(size == n && !memcmp(bytes, all, n));
    gfli_free(context, bytes);
    free(all);
    gfl_context_destroy(context);
    leave_folder();
}

int main(int argc, char **argv) {
    static const test_case cases[] = {
        TEST(a_file_appears_when_it_is_whole),
        TEST(a_full_disk_leaves_the_old_file),
        TEST(devices_are_written_in_place),
        TEST(links_and_permissions_survive),
        TEST(impossible_places_are_told),
        TEST(a_file_is_read_up_to_its_limit),
        TEST(only_regular_files_are_opened_for_reading),
        TEST(standard_input_may_be_a_pipe_where_bytes_are_taken_in_order),
        TEST(interruptions_are_not_errors),
        TEST(lack_of_memory_is_said_as_such),
        TEST(descriptors_are_closed_on_exec),
        TEST(pieces_of_any_size_arrive_in_order),
        {0}};
    return test_main(argc, argv, cases);
}
