import java.sql.Connection;
import java.sql.SQLException;

/** Runs work in a transaction, again if it could not be serialized or was chosen to end a deadlock. */
final class Transactions {
    interface Work<T> {
        T run() throws SQLException;
    }

    static <T> T run(Connection connection, Work<T> work) throws SQLException {
        connection.setAutoCommit(false);
        for (;;) {
            try {
                T result = work.run();
                connection.commit();
                return result;
            } catch (SQLException e) {
                connection.rollback();
                if (!"40001".equals(e.getSQLState()) && !"40P01".equals(e.getSQLState())) {
                    throw e;
                }
            }
        }
    }

    private Transactions() {
    }
}
