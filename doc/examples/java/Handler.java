import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.concurrent.Executors;

/**
 * Takes payments over HTTP; a request that is repeated gets the same answer.
 *
 * <pre>
 * javac *.java
 * java -cp .:/usr/share/java/postgresql.jar Handler 8080 'jdbc:postgresql://localhost/shop?user=shop'
 * curl -H 'Idempotency-Key: 7f3a' -d '{"account": "a", "amount": 5}' localhost:8080/payments
 * </pre>
 */
public final class Handler {
    private static final String BEGIN =
            "SELECT state, code, response"
            + " FROM eo.idempotency_begin('payments', ?, CAST(? AS jsonb), wait => false)";
    private static final String PAY =
            "INSERT INTO payment (account, amount)"
            + " SELECT account, amount"
            + " FROM jsonb_to_record(CAST(? AS jsonb)) AS request (account text, amount integer)"
            + " RETURNING jsonb_build_object('payment', id)";
    private static final String ENQUEUE =
            "SELECT eo.enqueue('payments', r, key => r ->> 'account') FROM CAST(? AS jsonb) AS r";
    private static final String COMPLETE =
            "SELECT eo.idempotency_complete('payments', ?, CAST(? AS jsonb), 201)";

    record Answer(int code, String response) {
    }

    static Answer pay(Connection connection, String key, String request) throws SQLException {
        try (PreparedStatement begin = connection.prepareStatement(BEGIN);
                PreparedStatement pay = connection.prepareStatement(PAY);
                PreparedStatement enqueue = connection.prepareStatement(ENQUEUE);
                PreparedStatement complete = connection.prepareStatement(COMPLETE)) {
            ResultSet begun = query(begin, key, request);
            if (begun.getString("state").equals("replay")) {
                return new Answer(begun.getInt("code"), begun.getString("response"));
            }
            String response = query(pay, request).getString(1);
            query(enqueue, request);
            query(complete, key, response);
            return new Answer(201, response);
        }
    }

    private static ResultSet query(PreparedStatement statement, String... arguments) throws SQLException {
        for (int i = 0; i < arguments.length; i++) {
            statement.setString(i + 1, arguments[i]);
        }
        ResultSet row = statement.executeQuery();
        row.next();
        return row;
    }

    static Answer answer(String url, String key, String request) {
        if (key == null) {
            return new Answer(400, "{\"error\": \"Idempotency-Key is missing\"}");
        }
        // One connection a request keeps this short; a pool is for real.
        try (Connection connection = DriverManager.getConnection(url)) {
            return Transactions.run(connection, () -> pay(connection, key, request));
        } catch (SQLException e) {
            switch (String.valueOf(e.getSQLState())) {
                case "EO409":
                    return new Answer(409, "{\"error\": \"the request is being processed\"}");
                case "EO422":
                    return new Answer(422, "{\"error\": \"the key was used for another request\"}");
                case "22P02":
                    return new Answer(400, "{\"error\": \"not a payment\"}");
                default:
                    System.err.println(e);
                    return new Answer(500, "{\"error\": \"internal error\"}");
            }
        }
    }

    static void handle(HttpExchange exchange, String url) throws IOException {
        try (exchange) {
            String request = new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8);
            Answer answer = answer(url, exchange.getRequestHeaders().getFirst("Idempotency-Key"), request);
            byte[] body = answer.response().getBytes(StandardCharsets.UTF_8);
            exchange.getResponseHeaders().set("Content-Type", "application/json");
            exchange.sendResponseHeaders(answer.code(), body.length);
            exchange.getResponseBody().write(body);
        }
    }

    public static void main(String[] args) throws IOException {
        HttpServer server =
                HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])), 0);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/payments", exchange -> handle(exchange, args[1]));
        server.start();
        System.out.println("listening on " + server.getAddress().getPort());
    }
}
