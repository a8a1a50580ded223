/* Occurrences of each word: every run of ASCII letters of a text, in lower case. */
#include "aviary.h"

AVIARY_MAP(doc)
{
    static uint8_t key[AVIARY_KEY_BYTES_MAX];
    static const uint8_t one[5] = { BSON_INT32, 1 };
    uint32_t len, word = 0;
    const char *text = text_of(need(doc, "text", BSON_STRING), &len);
    key[0] = BSON_STRING;
    for (uint32_t i = 0; i <= len; i++) {
        /* The NUL behind the text ends its last word. */
        uint8_t c = (uint8_t)text[i] | 0x20;
        if (c >= 'a' && c <= 'z') {
            if (word >= sizeof(key) - 6)
                fail("a word is too long");
            key[5 + word++] = c;
        } else if (word) {
            uint32_t with_nul = word + 1;
            __builtin_memcpy(key + 1, &with_nul, 4);
            key[5 + word] = 0;
            aviary_emit(key, word + 6, one, sizeof(one));
            word = 0;
        }
    }
}

AVIARY_REDUCE_SUM
