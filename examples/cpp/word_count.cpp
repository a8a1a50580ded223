// Counts words: runs of ASCII letters and digits in `text`, in lower case.
#include "aviary.hpp"

AVIARY_MAP(doc)
{
    std::string word;
    auto end_word = [&] {
        if (!word.empty())
            aviary::emit(word, 1);
        word.clear();
    };
    for (char c : doc["text"].text()) {
        char letter = c | 0x20;
        if (letter >= 'a' && letter <= 'z')
            word += letter;
        else if (c >= '0' && c <= '9')
            word += c;
        else
            end_word();
    }
    end_word();
}

AVIARY_REDUCE(key, values)
{
    int64_t sum = 0;
    for (aviary::Value value : values)
        sum += value.integer();
    aviary::emit(key, sum);
}
