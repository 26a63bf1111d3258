// poller takes rows out of an outbox table and gives them to Kafka: the relay
// that many services in Go have of their own.
//
//	poller BROKERS TOPIC QUERY POLL_MILLISECONDS
//
// One transaction a batch: DELETE ... SKIP LOCKED, produce, wait for all
// acknowledgements, commit.  QUERY returns id, key and payload.
package main

import (
	"context"
	"log"
	"os"
	"os/signal"
	"sort"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

type row struct {
	id      int64
	key     *string
	payload []byte
}

func fetch(ctx context.Context, tx pgx.Tx, query string) ([]row, error) {
	result, err := tx.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	rows, err := pgx.CollectRows(result, func(one pgx.CollectableRow) (row, error) {
		var r row
		err := one.Scan(&r.id, &r.key, &r.payload)
		return r, err
	})
	// RETURNING has no order of its own.
	sort.Slice(rows, func(i, j int) bool { return rows[i].id < rows[j].id })
	return rows, err
}

// produce returns when all records are acknowledged.
func produce(ctx context.Context, client *kgo.Client, topic string, rows []row) error {
	records := make([]*kgo.Record, len(rows))
	for i, r := range rows {
		records[i] = &kgo.Record{Topic: topic, Value: r.payload}
		if r.key != nil {
			records[i].Key = []byte(*r.key)
		}
	}
	return client.ProduceSync(ctx, records...).FirstErr()
}

// batch moves one batch, and returns how many rows it had.
func batch(ctx context.Context, conn *pgx.Conn, client *kgo.Client, topic, query string) (int, error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback(context.Background())
	rows, err := fetch(ctx, tx, query)
	if err != nil {
		return 0, err
	}
	if len(rows) > 0 {
		if err = produce(ctx, client, topic, rows); err != nil {
			return 0, err
		}
	}
	return len(rows), tx.Commit(ctx)
}

func connect(brokers string) *kgo.Client {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(brokers),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		// The library's own choices: idempotent, no lingering, as many
		// requests in flight as an idempotent producer may have.
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		log.Fatal(err)
	}
	return client
}

func main() {
	if len(os.Args) != 5 {
		log.Fatal("usage: poller BROKERS TOPIC QUERY POLL_MILLISECONDS")
	}
	topic, query := os.Args[2], os.Args[3]
	pause, _ := strconv.Atoi(os.Args[4])
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	client := connect(os.Args[1])
	defer client.Close()
	conn, err := pgx.Connect(ctx, "")
	if err != nil {
		log.Fatal(err)
	}
	for ctx.Err() == nil {
		count, err := batch(ctx, conn, client, topic, query)
		if err != nil && ctx.Err() == nil {
			log.Fatal(err) // whoever started it starts it again
		}
		if count == 0 {
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(pause) * time.Millisecond):
			}
		}
	}
}
