// Does all that a map may do besides emitting: parameters, counters, lines, a record that fails.
package main

import "aviary"

func Map(doc aviary.Doc, emit aviary.Emit) {
	id, job := doc.Get("_id").Int(), aviary.Scope()
	label, worth := job.Get("label").Text(), id*job.Get("factor").Int()
	if id == job.Get("bad").Int() {
		aviary.Fail("%s %d is bad", label, id)
	}
	aviary.Count(label, worth)
	aviary.Log("%s %d", label, id)
	aviary.LogAt(aviary.LevelWarn, "100%")
	emit(doc.Get("_id"), worth)
}
