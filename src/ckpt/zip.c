/* zip.c - the directory of a zip archive whose records are stored as they are */
#pragma once

/* A zip archive is read from its end: the end record, with its 64-bit form where the archive is
 * large, says where the directory is, and the directory says where each record is.  Every number is
 * compared with the size of the file before it is used.  Records must be stored as they are, so
 * that tensors can be read from the file in place. */

enum {
    GFLI_ZIP_END = 22,     /* bytes of the end record */
    GFLI_ZIP_END64 = 56,   /* of its 64-bit form */
    GFLI_ZIP_LOCATOR = 20, /* of what tells where that is */
    GFLI_ZIP_ENTRY = 46,   /* of a directory entry, and */
    GFLI_ZIP_LOCAL = 30,   /* of a record's own header, without names */
    GFLI_ZIP_COMMENT = 65535,
    GFLI_ZIP_DIRECTORY_MAX = 256 << 20
};

uint64_t gfli_zip_number(const uint8_t *at, int n_bytes) {
    uint64_t value = 0;
    for (int i = n_bytes - 1; i >= 0; i--) value = value << 8 | at[i];
    return value;
}

gfl_status gfli_zip_broken(const gfli_zip *zip, const char *what) {
    return gfli_error(zip->blob->context, GFL_E_FORMAT,
                      "%s: %s; the file is damaged or was not copied whole: fetch it again",
                      zip->blob->path, what);
}

/* Where the directory is and how many records it lists, from the end of the file. */
static gfl_status gfli_zip_find_directory(gfli_zip *zip, uint64_t *at, uint64_t *size,
                                          uint64_t *n_records) {
    gfli_blob *b = zip->blob;
    const uint64_t tail = GFLI_ZIP_END + GFLI_ZIP_COMMENT;
    const size_t n = (size_t)(b->size < tail ? b->size : tail);
    uint8_t *end, locator[GFLI_ZIP_LOCATOR], end64[GFLI_ZIP_END64];
    GFLI_TRY(gfli_alloc(b->context, n, 1, "a zip directory", &end));
    gfl_status status = gfli_blob_pread(b, b->size - n, end, n);
    bool found = false;
    uint64_t place = 0;
    for (size_t i = n; status == GFL_OK && !found && i >= GFLI_ZIP_END; i--) {
        const uint8_t *p = end + i - GFLI_ZIP_END;
        if (memcmp(p, "PK\5\6", 4) != 0) continue;
        found = true;
        place = b->size - n + (i - GFLI_ZIP_END);
        *n_records = gfli_zip_number(p + 10, 2);
        *size = gfli_zip_number(p + 12, 4);
        *at = gfli_zip_number(p + 16, 4);
    }
    gfli_free(b->context, end);
    GFLI_TRY(status);
    if (!found) return gfli_zip_broken(zip, "a zip archive without its directory");
    if (place < GFLI_ZIP_LOCATOR) return GFL_OK;
    GFLI_TRY(gfli_blob_pread(b, place - GFLI_ZIP_LOCATOR, locator, sizeof locator));
    if (memcmp(locator, "PK\6\7", 4) != 0) return GFL_OK;
    const uint64_t there = gfli_zip_number(locator + 8, 8);
    if (there > b->size || b->size - there < GFLI_ZIP_END64)
        return gfli_zip_broken(zip, "the zip64 directory lies outside the file");
    GFLI_TRY(gfli_blob_pread(b, there, end64, sizeof end64));
    if (memcmp(end64, "PK\6\6", 4) != 0)
        return gfli_zip_broken(zip, "the zip64 directory is not where it should be");
    *n_records = gfli_zip_number(end64 + 32, 8);
    *size = gfli_zip_number(end64 + 40, 8);
    *at = gfli_zip_number(end64 + 48, 8);
    return GFL_OK;
}

/* Numbers that did not fit into 32 bits stand in the extra field 1, those and no others. */
static bool gfli_zip_wide(const uint8_t *extra, size_t n, uint64_t *const wide[3]) {
    while (n >= 4) {
        const size_t id = (size_t)gfli_zip_number(extra, 2);
        size_t size = (size_t)gfli_zip_number(extra + 2, 2);
        extra += 4;
        n -= 4;
        if (size > n) return false;
        n -= size;
        for (int i = 0; id == 1 && i < 3; i++) {
            if (*wide[i] != 0xFFFFFFFFu) continue;
            if (size < 8) return false;
            *wide[i] = gfli_zip_number(extra, 8);
            extra += 8;
            size -= 8;
        }
        extra += size;
    }
    for (int i = 0; i < 3; i++)
        if (*wide[i] == 0xFFFFFFFFu) return false;
    return true;
}

/* One entry of the directory; *used gets its length. */
static gfl_status gfli_zip_entry(gfli_zip *zip, const uint8_t *entry, size_t left, size_t *used) {
    gfli_blob *b = zip->blob;
    if (left < GFLI_ZIP_ENTRY || memcmp(entry, "PK\1\2", 4) != 0)
        return gfli_zip_broken(zip, "the zip directory is cut off");
    const size_t name = (size_t)gfli_zip_number(entry + 28, 2);
    const size_t extra = (size_t)gfli_zip_number(entry + 30, 2);
    const size_t comment = (size_t)gfli_zip_number(entry + 32, 2);
    if (left - GFLI_ZIP_ENTRY < name + extra + comment)
        return gfli_zip_broken(zip, "the zip directory is cut off");
    *used = GFLI_ZIP_ENTRY + name + extra + comment;
    GFLI_TRY(gfli_grow(b->context, &zip->records, &zip->capacity, (size_t)zip->n_records + 1,
                       sizeof *zip->records, "a zip directory"));
    gfli_zip_record *r = &zip->records[zip->n_records];
    memset(r, 0, sizeof *r);
    uint64_t stored = gfli_zip_number(entry + 20, 4);
    r->crc = (uint32_t)gfli_zip_number(entry + 16, 4);
    r->size = gfli_zip_number(entry + 24, 4);
    r->offset = gfli_zip_number(entry + 42, 4);
    uint64_t *const wide[3] = {&r->size, &stored, &r->offset};
    if (!gfli_zip_wide(entry + GFLI_ZIP_ENTRY + name, extra, wide))
        return gfli_zip_broken(zip, "the zip directory lacks the size of a record");
    /* method 0: stored; bit 0 of the flags: encrypted */
    r->compressed = gfli_zip_number(entry + 10, 2) != 0 || (entry[8] & 1) != 0 || stored != r->size;
    GFLI_TRY(gfli_alloc(b->context, name + 1, 1, "a zip directory", &r->name));
    memcpy(r->name, entry + GFLI_ZIP_ENTRY, name);
    r->name[name] = 0;
    zip->n_records++;
    return GFL_OK;
}

static int gfli_compare_records(const void *a, const void *b) {
    return strcmp(((const gfli_zip_record *)a)->name, ((const gfli_zip_record *)b)->name);
}

static gfl_status gfli_zip_read_directory(gfli_zip *zip) {
    gfli_blob *b = zip->blob;
    uint64_t at = 0, size = 0, n_records = 0;
    GFLI_TRY(gfli_zip_find_directory(zip, &at, &size, &n_records));
    if (at > b->size || size > b->size - at || size > GFLI_ZIP_DIRECTORY_MAX)
        return gfli_zip_broken(zip, "the zip directory lies outside the file");
    if (n_records > size / GFLI_ZIP_ENTRY)
        return gfli_zip_broken(zip, "the zip directory is too short for its records");
    uint8_t *entries;
    GFLI_TRY(gfli_alloc(b->context, (size_t)size, 1, "a zip directory", &entries));
    gfl_status status = gfli_blob_pread(b, at, entries, size);
    size_t used = 0, next = 0;
    for (uint64_t i = 0; i < n_records && status == GFL_OK; i++, used += next)
        status = gfli_zip_entry(zip, entries + used, (size_t)size - used, &next);
    gfli_free(b->context, entries);
    GFLI_TRY(status);
    if (zip->n_records)
        qsort(zip->records, (size_t)zip->n_records, sizeof *zip->records, gfli_compare_records);
    uint64_t left = b->size; /* records that overlap would be checked again and again */
    for (int i = 0; i < zip->n_records; i++) {
        if (zip->records[i].compressed) continue;
        if (zip->records[i].size > left)
            return gfli_zip_broken(zip, "its records are larger than the file");
        left -= zip->records[i].size;
    }
    for (int i = 1; i < zip->n_records; i++)
        if (!strcmp(zip->records[i - 1].name, zip->records[i].name))
            return gfli_error(b->context, GFL_E_FORMAT, "%s: record %.200s is there twice", b->path,
                              zip->records[i].name);
    return GFL_OK;
}

gfl_status gfli_zip_open(gfli_blob *blob, gfli_zip *out) {
    memset(out, 0, sizeof *out);
    out->blob = blob;
    gfli_crc32_tables(out->crc_table);
    gfl_status status = gfli_zip_read_directory(out);
    if (status != GFL_OK) gfli_zip_close(out);
    return status;
}

void gfli_zip_close(gfli_zip *zip) {
    if (!zip->blob) return;
    for (int i = 0; i < zip->n_records; i++) gfli_free(zip->blob->context, zip->records[i].name);
    gfli_free(zip->blob->context, zip->records);
    memset(zip, 0, sizeof *zip);
}

gfli_zip_record *gfli_zip_find(const gfli_zip *zip, const char *name) {
    int low = 0, high = zip->n_records;
    while (low < high) {
        const int middle = low + (high - low) / 2;
        const int order = strcmp(zip->records[middle].name, name);
        if (order == 0) return &zip->records[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* From the record's header to its bytes: the two may have different extra fields. */
static gfl_status gfli_zip_locate(gfli_zip *zip, gfli_zip_record *r) {
    gfli_blob *b = zip->blob;
    uint8_t head[GFLI_ZIP_LOCAL];
    if (r->offset > b->size || b->size - r->offset < GFLI_ZIP_LOCAL)
        return gfli_zip_broken(zip, "a record lies outside the file");
    GFLI_TRY(gfli_blob_pread(b, r->offset, head, sizeof head));
    if (memcmp(head, "PK\3\4", 4) != 0)
        return gfli_zip_broken(zip, "a record is not where the directory says");
    const uint64_t names = gfli_zip_number(head + 26, 2) + gfli_zip_number(head + 28, 2);
    const uint64_t start = r->offset + GFLI_ZIP_LOCAL + names;
    if (start > b->size || r->size > b->size - start)
        return gfli_zip_broken(zip, "a record lies outside the file");
    r->offset = start;
    return GFL_OK;
}

gfl_status gfli_zip_check(gfli_zip *zip, gfli_zip_record *r, const char *use) {
    enum { PIECE = 1 << 16 };
    gfli_blob *b = zip->blob;
    uint32_t crc = 0;
    uint8_t *piece;
    if (r->checked) return GFL_OK;
    if (r->compressed)
        return gfli_error(b->context, GFL_E_UNSUPPORTED,
                          "%s: record %.200s (%.200s) is compressed or encrypted, which torch.save "
                          "never does; write the checkpoint again with torch.save",
                          b->path, r->name, use);
    GFLI_TRY(gfli_zip_locate(zip, r));
    GFLI_TRY(gfli_alloc(b->context, PIECE, 1, "a checkpoint", &piece));
    gfl_status status = GFL_OK;
    for (uint64_t done = 0; done < r->size && status == GFL_OK;) {
        const size_t n = r->size - done < PIECE ? (size_t)(r->size - done) : (size_t)PIECE;
        status = gfli_blob_pread(b, r->offset + done, piece, n);
        if (status == GFL_OK) crc = gfli_crc32(zip->crc_table, crc, piece, n);
        done += n;
    }
    gfli_free(b->context, piece);
    GFLI_TRY(status);
    if (crc != r->crc)
        return gfli_error(b->context, GFL_E_FORMAT,
                          "%s: %.200s (record %.200s) does not fit its checksum; the file is "
                          "damaged: fetch it again",
                          b->path, use, r->name);
    r->checked = true;
    return GFL_OK;
}
