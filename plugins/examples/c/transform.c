/* Trims text columns and writes them in lower case. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wctype.h>

#include "pipewright.h"

typedef pipewright_string_t string;
typedef exports_pipewright_transform_plugin_binding_t binding;
typedef pipewright_transform_types_field_t field;

/* An instance is configured once, before any table is bound. */
static string *names;
static size_t name_count;

struct exports_pipewright_transform_plugin_binding_t {
    uint32_t *reads;
    field *fields;
};

static string text(const char *words) {
    string made;
    pipewright_string_dup(&made, words);
    return made;
}

static string copy(string from) {
    string made;
    pipewright_string_dup_n(&made, (char *)from.ptr, from.len);
    return made;
}

static bool equal(string one, string other) {
    return one.len == other.len && memcmp(one.ptr, other.ptr, one.len) == 0;
}

void exports_pipewright_transform_plugin_describe(exports_pipewright_transform_plugin_info_t *ret) {
    ret->name = text("tidy");
    ret->version = text("0.1.0");
    ret->config_schema.is_some = false;
}

/* What of the configuration, {"columns": ["a", "b"]}, is not yet read. */
static char *rest;

static bool take(char wanted) {
    rest += strspn(rest, " \t\r\n");
    if (*rest != wanted) {
        return false;
    }
    rest += 1;
    return true;
}

/* A string without escapes; none of the names here needs them. */
static bool take_string(string *taken) {
    if (!take('"')) {
        return false;
    }
    size_t length = strcspn(rest, "\"\\");
    if (rest[length] != '"') {
        return false;
    }
    *taken = copy((string){(uint8_t *)rest, length});
    rest += length + 1;
    return true;
}

static bool take_columns(void) {
    if (!take('[')) {
        return false;
    }
    do {
        names = realloc(names, (name_count + 1) * sizeof *names);
        if (!take_string(&names[name_count])) {
            return false;
        }
        name_count += 1;
    } while (take(','));
    return take(']');
}

static bool problem(exports_pipewright_transform_plugin_list_problem_t *err, const char *path, const char *message) {
    err->len = 1;
    err->ptr = malloc(sizeof *err->ptr);
    err->ptr[0].path = text(path);
    err->ptr[0].message = text(message);
    return false;
}

bool exports_pipewright_transform_plugin_configure(
    string *json, exports_pipewright_transform_plugin_list_problem_t *err) {
    char *config = malloc(json->len + 1);
    memcpy(config, json->ptr, json->len);
    config[json->len] = 0;
    pipewright_string_free(json);
    rest = config;
    bool found = false;
    string key;
    if (take('{') && !take('}')) {
        do {
            if (!take_string(&key) || !take(':')) {
                return problem(err, "", "is not understood");
            }
            if (!equal(key, (string){(uint8_t *)"columns", 7})) {
                char path[80];
                snprintf(path, sizeof path, "/%.*s", (int)key.len, (char *)key.ptr);
                return problem(err, path, "is no setting of this plugin");
            }
            found = take_columns();
        } while (found && take(','));
    }
    free(config);
    return found || problem(err, "/columns", "name at least one column");
}

static bool unsupported(exports_pipewright_transform_plugin_failure_t *err, const char *format, string column) {
    char message[300];
    snprintf(message, sizeof message, format, (int)column.len, (char *)column.ptr);
    err->tag = PIPEWRIGHT_TRANSFORM_TYPES_FAILURE_UNSUPPORTED;
    err->val.unsupported = text(message);
    return false;
}

static field copy_field(const field *from) {
    field made = *from;
    made.name = copy(from->name);
    made.source_type = copy(from->source_type);
    return made;
}

bool exports_pipewright_transform_plugin_bind_table(
    exports_pipewright_transform_plugin_table_t *table,
    exports_pipewright_transform_plugin_own_binding_t *ret,
    exports_pipewright_transform_plugin_failure_t *err) {
    binding *made = malloc(sizeof *made);
    made->reads = calloc(name_count, sizeof *made->reads);
    made->fields = calloc(name_count, sizeof *made->fields);
    for (size_t place = 0; place < name_count; place += 1) {
        size_t index = 0;
        while (index < table->fields.len && !equal(table->fields.ptr[index].name, names[place])) {
            index += 1;
        }
        if (index == table->fields.len) {
            return unsupported(err, "column `%.*s` does not exist in the table", names[place]);
        }
        const field *column = &table->fields.ptr[index];
        if (column->data_type.tag != PIPEWRIGHT_TRANSFORM_TYPES_DATA_TYPE_PLAIN ||
            column->data_type.val.plain.tag != PIPEWRIGHT_TRANSFORM_TYPES_SCALAR_UTF8) {
            return unsupported(err, "column `%.*s` is not text", names[place]);
        }
        made->reads[place] = index;
        made->fields[place] = copy_field(column);
    }
    exports_pipewright_transform_plugin_table_free(table);
    *ret = exports_pipewright_transform_plugin_binding_new(made);
    return true;
}

void exports_pipewright_transform_plugin_binding_destructor(binding *self) {
    for (size_t place = 0; place < name_count; place += 1) {
        pipewright_transform_types_field_free(&self->fields[place]);
    }
    free(self->fields);
    free(self->reads);
    free(self);
}

/* What is returned is freed by the caller, so each answer is a copy. */
void exports_pipewright_transform_plugin_method_binding_shape(
    exports_pipewright_transform_plugin_borrow_binding_t self, exports_pipewright_transform_plugin_shape_t *ret) {
    memset(ret, 0, sizeof *ret);
    ret->cardinality = PIPEWRIGHT_TRANSFORM_TYPES_CARDINALITY_SAME_ROWS;
    ret->reads.len = name_count;
    ret->reads.ptr = malloc(name_count * sizeof *ret->reads.ptr);
    ret->writes.len = name_count;
    ret->writes.ptr = malloc(name_count * sizeof *ret->writes.ptr);
    for (size_t place = 0; place < name_count; place += 1) {
        ret->reads.ptr[place] = self->reads[place];
        ret->writes.ptr[place].f0.is_some = true;
        ret->writes.ptr[place].f0.val = self->reads[place];
        ret->writes.ptr[place].f1 = copy_field(&self->fields[place]);
    }
}

/* The host has checked that it is UTF-8. */
static const uint8_t *decode(const uint8_t *at, wint_t *character) {
    int more = *at < 0x80 ? 0 : *at < 0xe0 ? 1 : *at < 0xf0 ? 2 : 3;
    *character = more == 0 ? *at : *at & (0x3f >> more);
    for (at += 1; more > 0; more -= 1, at += 1) {
        *character = *character << 6 | (*at & 0x3f);
    }
    return at;
}

static uint8_t *encode(uint8_t *at, wint_t character) {
    if (character < 0x80) {
        *at++ = character;
        return at;
    }
    int more = character < 0x800 ? 1 : character < 0x10000 ? 2 : 3;
    *at++ = (0xff00 >> (more + 1) & 0xff) | character >> 6 * more;
    while (more > 0) {
        more -= 1;
        *at++ = 0x80 | (character >> 6 * more & 0x3f);
    }
    return at;
}

static uint8_t *tidy(const uint8_t *from, const uint8_t *end, uint8_t *to) {
    uint8_t *start = to, *last = to;
    while (from < end) {
        wint_t character;
        from = decode(from, &character);
        if (iswspace(character) && to == start) {
            continue;
        }
        to = encode(to, towlower(character));
        if (!iswspace(character)) {
            last = to;
        }
    }
    return last;
}

/* A NULL has no bytes, so it stays as it is: only lengths and bytes change. */
static void tidy_column(pipewright_transform_types_column_t *from, uint32_t rows, pipewright_transform_types_column_t *to) {
    memset(to, 0, sizeof *to);
    to->validity = from->validity;
    from->validity.is_some = false;
    const uint32_t *offsets = (const uint32_t *)from->offsets.val.ptr;
    uint32_t *ends = malloc((rows + 1) * sizeof *ends);
    /* A letter of two bytes may have one of three in lower case. */
    uint8_t *values = malloc(2 * from->values.len + 1);
    uint8_t *at = values;
    ends[0] = 0;
    for (uint32_t row = 0; row < rows; row += 1) {
        at = tidy(from->values.ptr + offsets[row], from->values.ptr + offsets[row + 1], at);
        ends[row + 1] = at - values;
    }
    to->offsets.is_some = true;
    to->offsets.val.ptr = (uint8_t *)ends;
    to->offsets.val.len = (rows + 1) * sizeof *ends;
    to->values.ptr = values;
    to->values.len = at - values;
}

bool exports_pipewright_transform_plugin_method_binding_transform(
    exports_pipewright_transform_plugin_borrow_binding_t self,
    exports_pipewright_transform_plugin_batch_t *batch,
    exports_pipewright_transform_plugin_outcome_t *ret,
    exports_pipewright_transform_plugin_failure_t *err) {
    (void)self, (void)err;
    memset(ret, 0, sizeof *ret);
    ret->verdict.tag = PIPEWRIGHT_TRANSFORM_TYPES_VERDICT_ROWS;
    ret->verdict.val.rows.columns.len = name_count;
    ret->verdict.val.rows.columns.ptr = malloc(name_count * sizeof *ret->verdict.val.rows.columns.ptr);
    for (size_t write = 0; write < name_count; write += 1) {
        ret->verdict.val.rows.columns.ptr[write].f0 = write;
        tidy_column(&batch->columns.ptr[write], batch->row_count, &ret->verdict.val.rows.columns.ptr[write].f1);
    }
    exports_pipewright_transform_plugin_batch_free(batch);
    return true;
}
