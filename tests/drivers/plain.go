// Jobs asked for with the driver of Go alone. Each step that holds is printed.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
)

type request struct {
	State  string
	Error  bson.M
	Result *struct {
		Counters struct{ Input int64 }
		Output   struct{ Collection string }
	}
}

type row struct {
	Key   float64 `bson:"_id"`
	Value float64
}

var (
	ctx      = context.Background()
	name     = os.Args[2]
	db       *mongo.Database
	requests *mongo.Collection
)

func sums(step string, more ...bson.E) bson.D {
	id := name + "-" + step
	return append(bson.D{
		{"_id", id},
		{"v", 1},
		{"input", bson.M{"collection": "orders"}},
		{"map", bson.M{"js": "function () { emit(this.k, this.v); }"}},
		{"reduce", "_sum"},
		{"out", bson.M{"replace": id}},
	}, more...)
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// refused tells whether the server refuses an insert with this code.
func refused(document bson.D, code int) {
	_, err := requests.InsertOne(ctx, document)
	var refusal mongo.ServerError
	if !errors.As(err, &refusal) || !refusal.HasErrorCode(code) {
		log.Fatalf("%v: %v", document, err)
	}
}

// ended looks at a request until it has ended, and checks what it made.
func ended(step string) {
	for until := time.Now().Add(10 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		var found request
		must(requests.FindOne(ctx, bson.M{"_id": name + "-" + step}).Decode(&found))
		if found.Result == nil && found.Error == nil && time.Now().Before(until) {
			continue
		}
		if found.State != "accepted" || found.Result == nil || found.Result.Counters.Input != 100 {
			log.Fatalf("%+v", found)
		}
		check(found.Result.Output.Collection)
		return
	}
}

func check(target string) {
	cursor, err := db.Collection(target).Find(ctx, bson.M{}, options.Find().SetSort(bson.M{"_id": 1}))
	must(err)
	var rows []row
	must(cursor.All(ctx, &rows))
	if len(rows) != 5 {
		log.Fatal(rows)
	}
	for k, found := range rows {
		if found != (row{float64(k), float64(950 + 20*k)}) {
			log.Fatal(rows)
		}
	}
}

func main() {
	client, err := mongo.Connect(ctx, options.Client().ApplyURI(os.Args[1]))
	must(err)
	db = client.Database("test")
	requests = db.Collection("aviary-requests")

	_, err = requests.InsertOne(ctx, sums("units"))
	must(err)
	refused(sums("units"), 11000)
	ended("units")
	fmt.Println("done: run")

	refused(sums("units"), 11000)
	fmt.Println("done: twice")

	refused(sums("typo", bson.E{"mapp", bson.M{"js": "x"}}), 121)
	refused(sums("typo", bson.E{"priority", "high"}), 121)
	refused(sums("typo", bson.E{"limits", bson.M{"memory": 5}}), 121)
	fmt.Println("done: typo")

	session, err := client.StartSession()
	must(err)
	must(session.StartTransaction())
	inside := mongo.NewSessionContext(ctx, session)
	_, err = requests.InsertOne(inside, sums("aborted"))
	must(err)
	must(session.AbortTransaction(ctx))
	_, err = session.WithTransaction(ctx, func(inside mongo.SessionContext) (interface{}, error) {
		return requests.InsertOne(inside, sums("kept"))
	})
	must(err)
	ended("kept")
	fmt.Println("done: transaction")
}
