// What each customer spent: the sum of `total`.
package main

import "aviary"

func Map(doc aviary.Doc, emit aviary.Emit) {
	emit(doc.Get("customer"), doc.Get("total"))
}

func Reduce(key aviary.Value, values []aviary.Value) any {
	sum := 0.0
	for _, total := range values {
		sum += total.Float()
	}
	return sum
}
