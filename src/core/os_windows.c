/* os_windows.c - the operating system where it is Windows, Vista and later */
#pragma once
#if defined(_WIN32)

/* ---- files ----------------------------------------------------------------------------------- */

enum { GFLI_WIDE = 4096 };

static int gfli_windows_error(void) {
    return (int)GetLastError();
}

/* Paths are UTF-8 everywhere in this library; this is where they become what Windows takes. */
static int gfli_windows_path(const char *path, wchar_t out[GFLI_WIDE]) {
    if (MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, out, GFLI_WIDE)) return 0;
    return gfli_windows_error();
}

/* Handles made here are not inherited by programs that the host starts. */
static int gfli_windows_open(const char *path, DWORD access, DWORD how, gfli_handle *out) {
    wchar_t wide[GFLI_WIDE];
    *out = GFLI_NO_HANDLE;
    int e = gfli_windows_path(path, wide);
    if (e) return e;
    /* With backup semantics folders open too, and can be told. */
    HANDLE file = CreateFileW(wide, access, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                              NULL, how, FILE_ATTRIBUTE_NORMAL | FILE_FLAG_BACKUP_SEMANTICS, NULL);
    if (file == INVALID_HANDLE_VALUE) return gfli_windows_error();
    *out = (gfli_handle)file;
    return 0;
}

int gfli_sys_open(const char *path, gfli_handle *out) {
    return gfli_windows_open(path, GENERIC_READ, OPEN_EXISTING, out);
}

int gfli_sys_open_stdin(gfli_handle *out) {
    HANDLE own = GetCurrentProcess(), copy = INVALID_HANDLE_VALUE;
    if (!DuplicateHandle(own, GetStdHandle(STD_INPUT_HANDLE), own, &copy, 0, FALSE,
                         DUPLICATE_SAME_ACCESS))
        return gfli_windows_error();
    *out = (gfli_handle)copy;
    return 0;
}

int gfli_sys_open_in_place(const char *path, gfli_handle *out) {
    return gfli_windows_open(path, GENERIC_WRITE, OPEN_EXISTING, out);
}

/* Permissions come from the folder here. */
int gfli_sys_create(const char *path, int mode, gfli_handle *out) {
    (void)mode;
    return gfli_windows_open(path, GENERIC_WRITE, CREATE_NEW, out);
}

int gfli_sys_describe(gfli_handle file, gfli_os_info *out) {
    BY_HANDLE_FILE_INFORMATION info;
    memset(out, 0, sizeof *out);
    const DWORD type = GetFileType((HANDLE)file);
    out->kind = type == FILE_TYPE_PIPE ? GFLI_OS_PIPE : GFLI_OS_DEVICE;
    if (type != FILE_TYPE_DISK) return 0;
    if (!GetFileInformationByHandle((HANDLE)file, &info)) return gfli_windows_error();
    const bool folder = (info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
    out->kind = folder ? GFLI_OS_FOLDER : GFLI_OS_FILE;
    if (!folder) out->size = (uint64_t)info.nFileSizeHigh << 32 | info.nFileSizeLow;
    return 0;
}

int gfli_sys_look(const char *path, gfli_os_info *out) {
    gfli_handle file;
    int e = gfli_windows_open(path, 0, OPEN_EXISTING, &file);
    if (e) return e;
    e = gfli_sys_describe(file, out);
    (void)gfli_sys_close(file);
    return e;
}

/* The end of a pipe, and of a file that is read at an offset, come as errors. */
static int gfli_windows_read(gfli_handle file, void *out, size_t size, OVERLAPPED *at,
                             size_t *got) {
    DWORD n = 0;
    *got = 0;
    if (!ReadFile((HANDLE)file, out, (DWORD)size, &n, at)) {
        const int e = gfli_windows_error();
        return e == ERROR_HANDLE_EOF || e == ERROR_BROKEN_PIPE ? 0 : e;
    }
    *got = n;
    return 0;
}

int gfli_sys_read(gfli_handle file, void *out, size_t size, size_t *got) {
    return gfli_windows_read(file, out, size, NULL, got);
}

int gfli_sys_read_at(gfli_handle file, uint64_t offset, void *out, size_t size, size_t *got) {
    OVERLAPPED at;
    memset(&at, 0, sizeof at);
    at.Offset = (DWORD)offset;
    at.OffsetHigh = (DWORD)(offset >> 32);
    return gfli_windows_read(file, out, size, &at, got);
}

int gfli_sys_write(gfli_handle file, const void *data, size_t size, size_t *done) {
    DWORD n = 0;
    const BOOL good = WriteFile((HANDLE)file, data, (DWORD)size, &n, NULL);
    *done = n;
    if (good && n == 0) return ERROR_WRITE_FAULT;
    return good ? 0 : gfli_windows_error();
}

int gfli_sys_sync(gfli_handle file) {
    return FlushFileBuffers((HANDLE)file) ? 0 : gfli_windows_error();
}

int gfli_sys_close(gfli_handle file) {
    return CloseHandle((HANDLE)file) ? 0 : gfli_windows_error();
}

int gfli_sys_rename(const char *from, const char *to) {
    wchar_t wide_from[GFLI_WIDE], wide_to[GFLI_WIDE];
    int e = gfli_windows_path(from, wide_from);
    if (!e) e = gfli_windows_path(to, wide_to);
    if (e) return e;
    return MoveFileExW(wide_from, wide_to, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH)
               ? 0
               : gfli_windows_error();
}

int gfli_sys_remove(const char *path) {
    wchar_t wide[GFLI_WIDE];
    const int e = gfli_windows_path(path, wide);
    return e || DeleteFileW(wide) ? e : gfli_windows_error();
}

/* MOVEFILE_WRITE_THROUGH has done it. */
int gfli_sys_sync_folder(const char *folder) {
    (void)folder;
    return 0;
}

static bool gfli_windows_has_drive(const char *path) {
    return ((path[0] >= 'a' && path[0] <= 'z') || (path[0] >= 'A' && path[0] <= 'Z')) &&
           path[1] == ':';
}

size_t gfli_os_folder_length(const char *path) {
    size_t n = gfli_windows_has_drive(path) ? 2 : 0;
    for (size_t i = n; path[i]; i++)
        if (path[i] == '/' || path[i] == '\\') n = i + 1;
    return n;
}

bool gfli_os_is_absolute(const char *path) {
    return path[0] == '/' || path[0] == '\\' || gfli_windows_has_drive(path);
}

bool gfli_os_link_target(const char *path, char *out, size_t capacity) {
    (void)path;
    (void)out;
    (void)capacity;
    return false;
}

bool gfli_sys_is_memory(int e) {
    return e == ERROR_NOT_ENOUGH_MEMORY || e == ERROR_OUTOFMEMORY || e == ERROR_COMMITMENT_LIMIT;
}

bool gfli_sys_is_exists(int e) {
    return e == ERROR_FILE_EXISTS || e == ERROR_ALREADY_EXISTS;
}

void gfli_sys_text(int e, char *out, size_t size) {
    wchar_t wide[256];
    DWORD n = FormatMessageW(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, NULL,
                             (DWORD)e, 0, wide, GFLI_COUNT(wide), NULL);
    while (n > 0 && (wide[n - 1] <= L' ' || wide[n - 1] == L'.')) n--;
    const int bytes = WideCharToMultiByte(CP_UTF8, 0, wide, (int)n, out, (int)size - 1, NULL, NULL);
    out[bytes > 0 ? bytes : 0] = 0;
    if (bytes <= 0) snprintf(out, size, "error %d of the system", e);
}

/* ---- processes, processors, time ------------------------------------------------------------- */

long gfli_os_process(void) {
    return (long)GetCurrentProcessId();
}

double gfli_seconds(void) {
    LARGE_INTEGER frequency, now;
    QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&now);
    return (double)now.QuadPart / (double)frequency.QuadPart;
}

void gfli_os_sleep(double seconds) {
    Sleep((DWORD)(seconds * 1000) + 1);
}

int gfli_os_cpus(void) {
    DWORD_PTR own = 0, all = 0;
    int n = 0;
    if (!GetProcessAffinityMask(GetCurrentProcess(), &own, &all)) return 1;
    for (; own; own &= own - 1) n++;
    return gfli_max(n, 1);
}

/* ---- threads --------------------------------------------------------------------------------- */

static DWORD WINAPI gfli_windows_thread(void *p) {
    gfli_thread *thread = (gfli_thread *)p;
    thread->run(thread->arg);
    return 0;
}

int gfli_sys_thread_start(gfli_thread *thread) {
    thread->handle = CreateThread(NULL, 0, gfli_windows_thread, thread, 0, NULL);
    return thread->handle ? 0 : gfli_windows_error();
}

void gfli_thread_join(gfli_thread *thread) {
    if (!thread->running) return;
    WaitForSingleObject(thread->handle, INFINITE);
    CloseHandle(thread->handle);
    thread->running = false;
}

void gfli_mutex_init(gfli_mutex *mutex) {
    InitializeSRWLock(mutex);
}

void gfli_mutex_lock(gfli_mutex *mutex) {
    AcquireSRWLockExclusive(mutex);
}

void gfli_mutex_unlock(gfli_mutex *mutex) {
    ReleaseSRWLockExclusive(mutex);
}

void gfli_mutex_destroy(gfli_mutex *mutex) {
    (void)mutex;
}

void gfli_condition_init(gfli_condition *condition) {
    InitializeConditionVariable(condition);
}

void gfli_condition_wait(gfli_condition *condition, gfli_mutex *mutex) {
    SleepConditionVariableSRW(condition, mutex, INFINITE, 0);
}

void gfli_condition_signal(gfli_condition *condition) {
    WakeConditionVariable(condition);
}

void gfli_condition_broadcast(gfli_condition *condition) {
    WakeAllConditionVariable(condition);
}

void gfli_condition_destroy(gfli_condition *condition) {
    (void)condition;
}
#endif
