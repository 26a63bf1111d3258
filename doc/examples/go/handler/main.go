// Takes payments over HTTP; a request that is repeated gets the same answer.
//
//	go run ./handler 8080
//	curl -H 'Idempotency-Key: 7f3a' -d '{"account": "a", "amount": 5}' localhost:8080/payments
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

type payment struct {
	Account string `json:"account"`
	Amount  int    `json:"amount"`
}

func pay(ctx context.Context, pool *pgxpool.Pool, key string, request payment) (code int, response []byte, err error) {
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		var state string
		var stored *int
		err := tx.QueryRow(ctx,
			`SELECT state, code, response
			FROM eo.idempotency_begin('payments', $1, $2, wait => false)`,
			key, request).Scan(&state, &stored, &response)
		if err != nil {
			return err
		}
		if state == "replay" {
			code = *stored
			return nil
		}
		code = http.StatusCreated
		err = tx.QueryRow(ctx,
			`INSERT INTO payment (account, amount) VALUES ($1, $2)
			RETURNING jsonb_build_object('payment', id)`,
			request.Account, request.Amount).Scan(&response)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "SELECT eo.enqueue('payments', $1, key => $2)", request, request.Account)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "SELECT eo.idempotency_complete('payments', $1, $2, $3)", key, response, code)
		return err
	})
	return code, response, err
}

func sqlState(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func main() {
	pool, err := pgxpool.New(context.Background(), "")
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/payments", func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("Idempotency-Key")
		var request payment
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil || key == "" {
			http.Error(w, `{"error": "Idempotency-Key or payment is missing"}`, http.StatusBadRequest)
			return
		}
		code, response, err := pay(r.Context(), pool, key, request)
		for sqlState(err) == "40001" || sqlState(err) == "40P01" {
			code, response, err = pay(r.Context(), pool, key, request)
		}
		switch {
		case sqlState(err) == "EO409":
			code, response = http.StatusConflict, []byte(`{"error": "the request is being processed"}`)
		case sqlState(err) == "EO422":
			code, response = http.StatusUnprocessableEntity, []byte(`{"error": "the key was used for another request"}`)
		case err != nil:
			log.Print(err)
			code, response = http.StatusInternalServerError, []byte(`{"error": "internal error"}`)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		w.Write(response)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(http.Serve(listener, nil))
}
