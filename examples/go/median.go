// The median of `total` for each customer. It takes all values of a key together, so it is streamed.
package main

import (
	"slices"

	"aviary"
)

var totals []float64

func Map(doc aviary.Doc, emit aviary.Emit) {
	emit(doc.Get("customer"), doc.Get("total"))
}

func ReduceBegin(key aviary.Value) {
	totals = totals[:0]
}

func ReduceNext(value aviary.Value) {
	totals = append(totals, value.Float())
}

func ReduceEnd() any {
	slices.Sort(totals)
	middle := len(totals) / 2
	if len(totals)%2 == 1 {
		return totals[middle]
	}
	return (totals[middle-1] + totals[middle]) / 2
}
