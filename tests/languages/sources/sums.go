// Emits each pair that a document lists.
package main

import "aviary"

func Map(doc aviary.Doc, emit aviary.Emit) {
	for pair := range doc.Get("pairs").Items() {
		emit(pair.Get("k"), pair.Get("v"))
	}
}
