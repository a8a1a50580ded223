/* Counts words: runs of ASCII letters and digits in `text`, in lower case. */
#include "aviary.h"

AVIARY_MAP(doc)
{
    uint32_t len;
    const char *text = text_of(need(doc, "text", BSON_STRING), &len);
    static char *lower;
    static uint32_t room;
    if (len > room) {
        lower = aviary_resize(lower, room, len * 2);
        room = len * 2;
    }
    uint32_t size = 0;
    for (uint32_t i = 0; i <= len; i++) {
        /* The NUL behind the text ends its last word. */
        char c = text[i], letter = c | 0x20;
        if (letter >= 'a' && letter <= 'z') {
            lower[size++] = letter;
        } else if (c >= '0' && c <= '9') {
            lower[size++] = c;
        } else if (size) {
            emit_text_int32(lower, size, 1);
            size = 0;
        }
    }
}

AVIARY_REDUCE(key, values)
{
    int64_t sum = 0;
    Field value;
    for (const uint8_t *p = NULL; next(values, &p, &value);)
        sum += integer(value);
    emit_int64(key, sum);
}
