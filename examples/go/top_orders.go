// The three dearest orders of each customer, as {top: [{id, total}, …]}: by total, then by id.
package main

import (
	"cmp"
	"slices"

	"aviary"
)

type order struct {
	ID    aviary.Value `bson:"id"`
	Total float64
}

func Map(doc aviary.Doc, emit aviary.Emit) {
	emit(doc.Get("customer"), tops([]order{{doc.Get("_id"), doc.Get("total").Float()}}))
}

func Reduce(key aviary.Value, values []aviary.Value) any {
	var orders []order
	for _, value := range values {
		for one := range value.Get("top").Items() {
			orders = append(orders, order{one.Get("id"), one.Get("total").Float()})
		}
	}
	return tops(orders)
}

func tops(orders []order) any {
	slices.SortFunc(orders, func(a, b order) int {
		return cmp.Or(cmp.Compare(b.Total, a.Total), cmp.Compare(a.ID.Int(), b.ID.Int()))
	})
	return aviary.D{{"top", orders[:min(3, len(orders))]}}
}
