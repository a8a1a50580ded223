// Counts words: runs of ASCII letters and digits in `text`, in lower case.
package main

import (
	"strings"

	"aviary"
)

func Map(doc aviary.Doc, emit aviary.Emit) {
	words := strings.FieldsFunc(doc.Get("text").Text(), func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9')
	})
	for _, word := range words {
		emit(strings.ToLower(word), 1)
	}
}

func Reduce(key aviary.Value, values []aviary.Value) any {
	var sum int64
	for _, count := range values {
		sum += count.Int()
	}
	return sum
}
