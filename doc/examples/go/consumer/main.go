// Books payments, each of them once, however often it is delivered.
//
// Takes events from standard input, one a line, as eo_outbox publishes them to
// a file, and prints the number of each once it is done for good. That is the
// acknowledgement: a source begins again after the last number it has read.
//
//	tail -n +1 -F /tmp/events.jsonl | go run ./consumer
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

type event struct {
	ID   string  `json:"id"`
	Data balance `json:"data"`
}

type balance struct {
	Account string `json:"account"`
	Amount  int    `json:"amount"`
}

func book(ctx context.Context, conn *pgx.Conn, messageID string, headers json.RawMessage, payload balance) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var first bool
		err := tx.QueryRow(ctx, "SELECT eo.receive('booking', $1, $2)", messageID, headers).Scan(&first)
		if err != nil || !first {
			return err
		}
		var b balance
		err = tx.QueryRow(ctx,
			`INSERT INTO balance AS b (account, amount) VALUES ($1, $2)
			ON CONFLICT (account) DO UPDATE SET amount = b.amount + EXCLUDED.amount
			RETURNING account, amount`, payload.Account, payload.Amount).Scan(&b.Account, &b.Amount)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "SELECT eo.enqueue('balances', $1, key => $2)", b, b.Account)
		return err
	})
}

func mayRetry(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == "40001" || e.Code == "40P01")
}

func main() {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, "")
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close(ctx)

	source := json.NewDecoder(os.Stdin)
	for number := 1; ; number++ {
		// All of the event may stand for its headers: those of interest are taken.
		var headers json.RawMessage
		if err := source.Decode(&headers); err == io.EOF {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		var e event
		if err := json.Unmarshal(headers, &e); err != nil {
			log.Fatal(err)
		}
		err := book(ctx, conn, e.ID, headers, e.Data)
		for mayRetry(err) {
			err = book(ctx, conn, e.ID, headers, e.Data)
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(number)
	}
}
