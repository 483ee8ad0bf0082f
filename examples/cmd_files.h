/* cmd_files.h - files that are whole or absent, and the pictures in files and folders */
#ifndef GFL_CMD_FILES_H
#define GFL_CMD_FILES_H

#include "cmd.h"
#include "cmd_os.h"

/* ---- files to write (cmd_files.c) ------------------------------------------------------------ */

/* An os_output with messages, which may be standard output: its name is "-" then. */
typedef struct out_file {
    const char *name;
    os_output output;
    FILE *f; /* to write to; NULL: not open */
} out_file;

bool out_open(out_file *o, const char *name); /* false after a message */
/* All is written: false after a message, and then the file that was there is as it was. */
bool out_commit(out_file *o);
/* What is written is a part only: it becomes NAME.partial, and a message says so. */
void out_keep_part(out_file *o);
void out_abandon(out_file *o); /* also of one that is not open */

/* "FOLDER/NAME", from take(). */
char *join_path(const char *folder, const char *name);

/* ---- pictures to read (cmd_pictures.c) ------------------------------------------------------- */

typedef struct picture {
    char *path;        /* to open */
    const char *shown; /* in lists: the path, or "-" for standard input */
    const char *name;  /* within its folder; points into path */
    char *drawing;     /* the name of its drawing within --out; NULL without */
    os_file file;
} picture;

typedef struct picture_list {
    picture *items;
    int n;
    int unreadable; /* files and folders that cannot be opened, said already */
} picture_list;

/* Add a file, whatever it is ("-" is standard input), or the pictures of a folder and of the
 * folders in it, in the order of their names.  Each folder is looked at once, however many links
 * lead to it, and the one called `except` not at all.  What is left out is counted and named.  An
 * exit code. */
int add_pictures(picture_list *list, char *argument, const char *except);
/* CMD_OK where no two have one name in results. */
int check_names(const picture_list *list);
/* Choose the name of each drawing: no two share one, and no drawing replaces a picture. */
int name_drawings(picture_list *list, const char *out);
void free_pictures(picture_list *list);

/* A file's name in JSON.  Names are bytes, JSON is UTF-8: a name that is not is percent-encoded,
 * and a member percent_encoded says so, so that every name can be found again. */
void write_name(gfl_json_writer *json, const char *key, const char *name);

#endif
