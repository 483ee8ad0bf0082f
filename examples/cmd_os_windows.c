/* cmd_os_windows.c - the command's own calls of the operating system where it is Windows */
#if defined(_WIN32)
#    define WIN32_LEAN_AND_MEAN
#    define NOMINMAX
#    include <windows.h>
#    include <psapi.h>
#    include <shellapi.h>
#    include "cmd_os_system.h"
#    include "cmd.h"
#    include <errno.h>
#    include <fcntl.h>
#    include <io.h>
#    include <signal.h>
#    include <stdlib.h>
#    include <string.h>
#    include <sys/stat.h>

enum { WIDE = 4096 };

/* ---- texts and errors ------------------------------------------------------------------------ */

static bool fail_with(int e) {
    errno = e;
    return false;
}

/* The system's last error as a value of errno, which has words for it. */
static bool failed(void) {
    switch (GetLastError()) {
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:
    case ERROR_INVALID_DRIVE:
    case ERROR_BAD_NETPATH: return fail_with(ENOENT);
    case ERROR_ACCESS_DENIED:
    case ERROR_SHARING_VIOLATION:
    case ERROR_LOCK_VIOLATION:
    case ERROR_WRITE_PROTECT: return fail_with(EACCES);
    case ERROR_FILE_EXISTS:
    case ERROR_ALREADY_EXISTS: return fail_with(EEXIST);
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_OUTOFMEMORY: return fail_with(ENOMEM);
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL: return fail_with(ENOSPC);
    case ERROR_DIRECTORY: return fail_with(ENOTDIR);
    case ERROR_DIR_NOT_EMPTY: return fail_with(ENOTEMPTY);
    case ERROR_INVALID_NAME:
    case ERROR_NO_UNICODE_TRANSLATION: return fail_with(EINVAL);
    default: return fail_with(EIO);
    }
}

static bool to_wide(const char *path, wchar_t out[WIDE]) {
    return MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, out, WIDE) > 0 || failed();
}

/* free() frees it; NULL: no memory. */
static char *to_utf8(const wchar_t *wide) {
    const int n = WideCharToMultiByte(CP_UTF8, 0, wide, -1, NULL, 0, NULL, NULL);
    char *out = n > 0 ? malloc((size_t)n) : NULL;
    if (out) WideCharToMultiByte(CP_UTF8, 0, wide, -1, out, n, NULL, NULL);
    return out;
}

/* ---- names ----------------------------------------------------------------------------------- */

static HANDLE open_handle(const char *path, DWORD access, DWORD how) {
    wchar_t wide[WIDE];
    if (!to_wide(path, wide)) return INVALID_HANDLE_VALUE;
    HANDLE h = CreateFileW(wide, access, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                           NULL, how, FILE_ATTRIBUTE_NORMAL | FILE_FLAG_BACKUP_SEMANTICS, NULL);
    if (h == INVALID_HANDLE_VALUE) failed();
    return h;
}

static os_kind kind_of_handle(HANDLE h, BY_HANDLE_FILE_INFORMATION *info) {
    memset(info, 0, sizeof *info);
    if (GetFileType(h) != FILE_TYPE_DISK) return OS_OTHER;
    if (!GetFileInformationByHandle(h, info)) return OS_OTHER;
    return info->dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY ? OS_FOLDER : OS_FILE;
}

os_kind os_look(const char *path) {
    wchar_t wide[WIDE];
    const DWORD a = to_wide(path, wide) ? GetFileAttributesW(wide) : INVALID_FILE_ATTRIBUTES;
    if (a == INVALID_FILE_ATTRIBUTES) return OS_NOTHING;
    return a & FILE_ATTRIBUTE_REPARSE_POINT ? OS_LINK
           : a & FILE_ATTRIBUTE_DIRECTORY   ? OS_FOLDER
                                            : OS_FILE;
}

bool os_exists(const char *path) {
    os_file file;
    return os_find(path, &file);
}

bool os_find(const char *path, os_file *out) {
    BY_HANDLE_FILE_INFORMATION info;
    HANDLE h = open_handle(path, 0, OPEN_EXISTING);
    if (h == INVALID_HANDLE_VALUE) return false;
    out->kind = kind_of_handle(h, &info);
    out->size = (uint64_t)info.nFileSizeHigh << 32 | info.nFileSizeLow;
    out->device = info.dwVolumeSerialNumber;
    out->number = (uint64_t)info.nFileIndexHigh << 32 | info.nFileIndexLow;
    CloseHandle(h);
    return true;
}

char *os_resolve(const char *path) {
    wchar_t wide[WIDE], full[WIDE];
    if (!os_exists(path) || !to_wide(path, wide)) return NULL;
    const DWORD n = GetFullPathNameW(wide, WIDE, full, NULL);
    return n > 0 && n < WIDE ? to_utf8(full) : NULL;
}

bool os_list(const char *folder, bool (*each)(void *user, const char *name), void *user) {
    wchar_t wide[WIDE];
    WIN32_FIND_DATAW found;
    char pattern[WIDE];
    if ((size_t)snprintf(pattern, sizeof pattern, "%s/*", folder) >= sizeof pattern)
        return fail_with(ENAMETOOLONG);
    if (!to_wide(pattern, wide)) return false;
    HANDLE h = FindFirstFileW(wide, &found);
    if (h == INVALID_HANDLE_VALUE) return failed();
    bool good = true;
    do {
        if (!wcscmp(found.cFileName, L".") || !wcscmp(found.cFileName, L"..")) continue;
        char *name = to_utf8(found.cFileName);
        errno = name ? 0 : ENOMEM;
        good = name && each(user, name);
        free(name);
    } while (good && FindNextFileW(h, &found));
    if (good) good = GetLastError() == ERROR_NO_MORE_FILES || failed();
    const int e = good ? 0 : errno;
    FindClose(h);
    errno = e;
    return good;
}

static bool is_separator(char c) {
    return c == '/' || c == '\\';
}

static bool has_drive(const char *path) {
    return ((path[0] >= 'a' && path[0] <= 'z') || (path[0] >= 'A' && path[0] <= 'Z')) &&
           path[1] == ':';
}

size_t os_folder_length(const char *path) {
    size_t n = has_drive(path) ? 2 : 0;
    for (size_t i = n; path[i]; i++)
        if (is_separator(path[i])) n = i + 1;
    return n;
}

static bool make_one(const char *path) {
    wchar_t wide[WIDE];
    os_file file;
    if (os_find(path, &file)) return file.kind == OS_FOLDER || fail_with(ENOTDIR);
    if (!os_may("folder", path) || !to_wide(path, wide)) return false;
    return CreateDirectoryW(wide, NULL) || failed();
}

bool os_make_folder(const char *path, char *failing) {
    snprintf(failing, 4096, "%s", path);
    const size_t drive = has_drive(failing) ? 2 : 0;
    for (char *p = failing + drive + 1;; p++) {
        if (*p && !is_separator(*p)) continue;
        const char kept = *p;
        *p = 0;
        if (!make_one(failing)) return false;
        if (!kept) return true;
        *p = kept;
        if (!p[1]) return true;
    }
}

bool os_rename(const char *from, const char *to) {
    wchar_t a[WIDE], b[WIDE];
    if (!os_may("rename", to) || !to_wide(from, a) || !to_wide(to, b)) return false;
    return MoveFileExW(a, b, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH) || failed();
}

bool os_sys_link(const char *from, const char *to) {
    wchar_t a[WIDE], b[WIDE];
    return to_wide(from, a) && to_wide(to, b) && (CreateHardLinkW(b, a, NULL) || failed());
}

bool os_remove(const char *path) {
    wchar_t wide[WIDE];
    if (!os_may("remove", path) || !to_wide(path, wide)) return false;
    if (os_look(path) == OS_FOLDER) return RemoveDirectoryW(wide) || failed();
    return DeleteFileW(wide) || failed();
}

bool os_truncate(const char *path, long long size) {
    if (!os_may("cut", path)) return false;
    LARGE_INTEGER at;
    at.QuadPart = size;
    HANDLE h = open_handle(path, GENERIC_WRITE, OPEN_EXISTING);
    if (h == INVALID_HANDLE_VALUE) return false;
    const bool good = (SetFilePointerEx(h, at, NULL, FILE_BEGIN) && SetEndOfFile(h)) || failed();
    CloseHandle(h);
    return good;
}

/* Renaming has written it through. */
void os_sync_folder(const char *path) {
    (void)os_may("sync folder", path);
}

bool os_full_path(const char *path, char *out, size_t room) {
    wchar_t wide[WIDE], full[WIDE];
    out[0] = 0;
    if (!to_wide(path, wide)) return false;
    const DWORD n = GetFullPathNameW(wide, WIDE, full, NULL);
    if (n == 0) return failed();
    if (n < WIDE && WideCharToMultiByte(CP_UTF8, 0, full, -1, out, (int)room, NULL, NULL) > 0)
        return true;
    return fail_with(ENAMETOOLONG);
}

/* What a link leads to is opened, and renaming replaces it: Windows has few of them. */
char *os_sys_follow(const char *path) {
    const size_t n = strlen(path) + 1;
    char *out = malloc(n);
    return out ? memcpy(out, path, n) : NULL;
}

/* ---- streams --------------------------------------------------------------------------------- */

static FILE *stream(HANDLE h, int flags, const char *mode) {
    if (h == INVALID_HANDLE_VALUE) return NULL;
    const int fd = _open_osfhandle((intptr_t)h, flags | _O_BINARY | _O_NOINHERIT);
    if (fd < 0) CloseHandle(h);
    FILE *f = fd < 0 ? NULL : _fdopen(fd, mode);
    if (!f && fd >= 0) _close(fd);
    return f;
}

FILE *os_sys_open_regular(const char *path, bool *other) {
    BY_HANDLE_FILE_INFORMATION info;
    HANDLE h = open_handle(path, GENERIC_READ, OPEN_EXISTING);
    *other = h != INVALID_HANDLE_VALUE && kind_of_handle(h, &info) != OS_FILE;
    if (!*other) return stream(h, _O_RDONLY, "rb");
    CloseHandle(h);
    return NULL;
}

FILE *os_sys_open(const char *path, os_sys_how how) {
    static const DWORD hows[] = {CREATE_NEW, CREATE_ALWAYS, OPEN_ALWAYS, OPEN_EXISTING};
    const bool append = how == OS_SYS_APPEND;
    const DWORD access = append ? FILE_APPEND_DATA | SYNCHRONIZE : GENERIC_WRITE;
    return stream(open_handle(path, access, hows[how]), append ? _O_APPEND : 0,
                  append ? "ab" : "wb");
}

bool os_sys_sync(FILE *f) {
    return _commit(_fileno(f)) == 0;
}

/* Permissions come from the folder. */
bool os_sys_copy_mode(FILE *f, const char *from) {
    (void)f;
    (void)from;
    return true;
}

long os_sys_process(void) {
    return (long)GetCurrentProcessId();
}

/* ---- one process at a time ------------------------------------------------------------------- */

/* A byte far behind the end is locked, since here nobody else could read what is. */
static os_locked set_lock(HANDLE h, const char *path) {
    OVERLAPPED at;
    if (!os_may("lock", path)) return errno == EAGAIN ? OS_HELD_BY_OTHER : OS_LOCK_FAILED;
    memset(&at, 0, sizeof at);
    at.OffsetHigh = 0x7FFFFFFF;
    if (LockFileEx(h, LOCKFILE_EXCLUSIVE_LOCK | LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &at))
        return OS_LOCKED;
    const DWORD e = GetLastError();
    if (e == ERROR_LOCK_VIOLATION || e == ERROR_IO_PENDING) return OS_HELD_BY_OTHER;
    failed();
    return e == ERROR_INVALID_FUNCTION || e == ERROR_NOT_SUPPORTED ? OS_CANNOT_LOCK
                                                                   : OS_LOCK_FAILED;
}

os_locked os_lock_file(os_lock *lock, const char *path, long *holder) {
    const DWORD access = GENERIC_READ | GENERIC_WRITE;
    *holder = 0; /* Windows does not say */
    lock->fd = -1;
    if (!os_exists(path) && !os_may("create", path)) return OS_LOCK_FAILED;
    HANDLE h = open_handle(path, access, OPEN_ALWAYS);
    if (h == INVALID_HANDLE_VALUE) return OS_LOCK_FAILED;
    lock->made = GetLastError() != ERROR_ALREADY_EXISTS;
    const os_locked result = set_lock(h, path);
    if (result == OS_LOCKED) lock->fd = _open_osfhandle((intptr_t)h, _O_BINARY | _O_NOINHERIT);
    if (lock->fd < 0) CloseHandle(h);
    return result == OS_LOCKED && lock->fd < 0 ? OS_LOCK_FAILED : result;
}

/* Nothing takes the place of an open file: for that moment it is not held. */
bool os_replace_locked(os_lock *lock, const char *from, const char *path) {
    long holder;
    const bool held = lock->fd >= 0;
    os_unlock(lock);
    const bool good = os_rename(from, path);
    const int e = good ? 0 : errno;
    if (held && os_lock_file(lock, path, &holder) != OS_LOCKED && good) return fail_with(EACCES);
    errno = e;
    return good;
}

void os_unlock(os_lock *lock) {
    if (lock->fd >= 0) _close(lock->fd);
    lock->fd = -1;
}

/* ---- the process ----------------------------------------------------------------------------- */

/* The arguments as they were typed: those of main are in the code page of the system. */
static void take_arguments(int *argc, char ***argv) {
    int n = 0;
    wchar_t **wide = CommandLineToArgvW(GetCommandLineW(), &n);
    char **out = wide ? calloc((size_t)n + 1, sizeof *out) : NULL;
    bool good = out != NULL;
    for (int i = 0; good && i < n; i++) good = (out[i] = to_utf8(wide[i])) != NULL;
    if (wide) LocalFree(wide);
    if (!good) return;
    *argc = n;
    *argv = out; /* for as long as the program runs */
}

void os_prepare(int *argc, char ***argv) {
    take_arguments(argc, argv);
    SetConsoleOutputCP(CP_UTF8);
    for (int fd = 0; fd <= 2; fd++) (void)_setmode(fd, _O_BINARY);
}

const char *os_variable(int i) {
    return _environ ? _environ[i] : NULL;
}

long os_peak_megabytes(void) {
    PROCESS_MEMORY_COUNTERS counters;
    memset(&counters, 0, sizeof counters);
    if (!GetProcessMemoryInfo(GetCurrentProcess(), &counters, sizeof counters)) return 0;
    return (long)(counters.PeakWorkingSetSize >> 20);
}

double os_seconds(void) {
    LARGE_INTEGER frequency, now;
    QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&now);
    return (double)now.QuadPart / (double)frequency.QuadPart;
}

bool os_is_terminal(int fd) {
    return _isatty(fd) != 0;
}

/* The system forgets the handler when it calls it: a second Ctrl-C ends the program. */
static void on_signal(int number) {
    static const char text[] = OS_SYS_STOPPING;
    os_sys_signal = number;
    (void)_write(2, text, sizeof text - 1);
}

void catch_signals(void) {
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
}
#else
typedef int cmd_os_is_another; /* a file must have something in it */
#endif
