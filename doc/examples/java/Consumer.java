import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;

/**
 * Books payments, each of them once, however often it is delivered.
 *
 * <p>Takes events from standard input, one a line, as eo_outbox publishes them to a file, and prints
 * the number of each once it is done for good. That is the acknowledgement: a source begins again
 * after the last number it has read.
 *
 * <pre>
 * javac *.java
 * tail -n +1 -F /tmp/events.jsonl |
 *     java -cp .:/usr/share/java/postgresql.jar Consumer 'jdbc:postgresql://localhost/shop?user=shop'
 * </pre>
 */
public final class Consumer {
    // Java has no JSON of its own: PostgreSQL takes the event apart. All of it may stand for its
    // headers: those of interest are taken.
    private static final String RECEIVE =
            "SELECT eo.receive('booking', e ->> 'id', e) FROM CAST(? AS jsonb) AS e";
    private static final String BOOK =
            "INSERT INTO balance AS b (account, amount)"
            + " SELECT account, amount"
            + " FROM jsonb_to_record(CAST(? AS jsonb) -> 'data') AS payment (account text, amount integer)"
            + " ON CONFLICT (account) DO UPDATE SET amount = b.amount + EXCLUDED.amount"
            + " RETURNING to_jsonb(b)";
    private static final String ENQUEUE =
            "SELECT eo.enqueue('balances', b, key => b ->> 'account') FROM CAST(? AS jsonb) AS b";

    static void book(Connection connection, String event) throws SQLException {
        if ("t".equals(value(connection, RECEIVE, event))) {
            String balance = value(connection, BOOK, event);
            value(connection, ENQUEUE, balance);
        }
    }

    static String value(Connection connection, String sql, String argument) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            statement.setString(1, argument);
            try (ResultSet row = statement.executeQuery()) {
                row.next();
                return row.getString(1);
            }
        }
    }

    public static void main(String[] args) throws SQLException, IOException {
        BufferedReader source =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try (Connection connection = DriverManager.getConnection(args[0])) {
            String line;
            for (int number = 1; (line = source.readLine()) != null; number++) {
                String event = line;
                Transactions.run(connection, () -> {
                    book(connection, event);
                    return null;
                });
                System.out.println(number);
            }
        }
    }
}
