// Reads a value of each type and writes it again.
package main

import "aviary"

func Map(doc aviary.Doc, emit aviary.Emit) {
	emit(doc.Get("_id"), aviary.D{{"v", again(doc.Get("v"))}, {"none", doc.Get("none")}})
}

func again(v aviary.Value) any {
	switch v.Type() {
	case aviary.Double:
		return v.Float()
	case aviary.Int32:
		return int32(v.Int())
	case aviary.Int64:
		return v.Int()
	case aviary.String:
		return v.Text()
	case aviary.Document:
		fields := aviary.D{}
		for name, value := range v.Doc().Fields() {
			fields = append(fields, aviary.Field{name, again(value)})
		}
		return fields
	case aviary.Array:
		items := aviary.A{}
		for value := range v.Items() {
			items = append(items, again(value))
		}
		return items
	case aviary.BinaryData:
		return v.Binary()
	case aviary.ObjectIDType:
		return v.ID()
	case aviary.Boolean:
		return v.Bool()
	case aviary.Date:
		return v.Time()
	case aviary.Null:
		return nil
	case aviary.RegexType:
		return v.Regex()
	case aviary.JavaScript:
		return aviary.Code(v.Text())
	case aviary.SymbolType:
		return aviary.Symbol(v.Text())
	case aviary.TimestampType:
		return v.Timestamp()
	case aviary.Decimal128:
		return v.Decimal()
	case aviary.MinKeyType:
		return aviary.MinKey{}
	case aviary.MaxKeyType:
		return aviary.MaxKey{}
	}
	return v
}
