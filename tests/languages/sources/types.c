/* Reads a value of each type and writes it again. */
#include "aviary.h"

static void again(Writer *w, const char *name, Field f)
{
    uint32_t len;
    uint8_t subtype;
    const char *text, *options;
    const uint8_t *bytes;
    Field inside;
    switch (f.type) {
    case BSON_DOUBLE: put_double(w, name, number(f)); break;
    case BSON_INT32: put_int32(w, name, (int32_t)integer(f)); break;
    case BSON_INT64: put_int64(w, name, integer(f)); break;
    case BSON_STRING: text = text_of(f, &len); put_text(w, name, text, len); break;
    case BSON_DOCUMENT:
        put_document(w, name);
        for (const uint8_t *p = NULL; next(inner(f), &p, &inside);)
            again(w, inside.name, inside);
        put_end(w);
        break;
    case BSON_ARRAY:
        put_array(w, name);
        for (const uint8_t *p = NULL; next(inner(f), &p, &inside);)
            again(w, NULL, inside);
        put_end(w);
        break;
    case BSON_BINARY: bytes = binary(f, &len, &subtype); put_binary(w, name, bytes, len, subtype); break;
    case BSON_OBJECT_ID: put_object_id(w, name, object_id(f)); break;
    case BSON_BOOL: put_bool(w, name, boolean(f)); break;
    case BSON_DATE: put_date_ms(w, name, date_ms(f)); break;
    case BSON_NULL: put_null(w, name); break;
    case BSON_REGEX: text = regex(f, &options); put_regex(w, name, text, options); break;
    case BSON_CODE: text = code(f, &len); put_code(w, name, text, len); break;
    case BSON_SYMBOL: text = code(f, &len); put_symbol(w, name, text, len); break;
    case BSON_CODE_W_SCOPE:
        text = code(f, &len);
        if (len != 1 || *text != 'f' || integer(need(code_scope(f), "n", BSON_INT32)) != 1)
            fail("code with a scope is read as something else");
        put_field(w, name, f);
        break;
    case BSON_TIMESTAMP: put_timestamp(w, name, timestamp(f)); break;
    case BSON_DECIMAL: put_decimal(w, name, decimal(f)); break;
    case BSON_MIN_KEY: case BSON_MAX_KEY: put_raw(w, name, f.type, NULL, 0); break;
    default: put_field(w, name, f);
    }
}

AVIARY_MAP(doc)
{
    static Writer w;
    write_begin(&w, BSON_DOCUMENT);
    again(&w, "v", find(doc, "v"));
    put_field(&w, "none", find(doc, "none"));
    emit_written(find(doc, "_id"), &w);
}
