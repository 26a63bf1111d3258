/*
 * ChangeStream.java
 *
 * Runs Debezium's connector for PostgreSQL in its embedded engine, and writes
 * what it emits to standard output, a JSON object a line: topic, key, value and
 * headers, each as the connector's JSON converter has made it.
 *
 *     java ChangeStream PROPERTIES LAST_TOPIC
 *
 * PROPERTIES is a file with the connector's options.  Ends after the first
 * record of LAST_TOPIC, or with status 1 when the connector fails.
 */
import io.debezium.embedded.Connect;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.RecordChangeEvent;
import io.debezium.engine.format.ChangeEventFormat;
import java.io.FileReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.connect.header.Header;
import org.apache.kafka.connect.json.JsonConverter;
import org.apache.kafka.connect.source.SourceRecord;

public class ChangeStream {
	private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);
	private static final JsonConverter KEYS = converter(true);
	private static final JsonConverter VALUES = converter(false);
	private static final CountDownLatch DONE = new CountDownLatch(1);
	private static volatile boolean failed;

	private static JsonConverter converter(boolean isKey) {
		JsonConverter converter = new JsonConverter();
		converter.configure(Map.of("schemas.enable", "false"), isKey);
		return converter;
	}

	private static String text(byte[] json) {
		return json == null ? "null" : new String(json, StandardCharsets.UTF_8);
	}

	/** The key is text here, for its bytes are what partitions depend on. */
	private static String quoted(String text) {
		return text.equals("null") ? text
				: '"' + text.replace("\\", "\\\\").replace("\"", "\\\"") + '"';
	}

	private static void write(SourceRecord record) {
		StringBuilder line = new StringBuilder();
		String topic = record.topic();
		String key = text(KEYS.fromConnectData(topic, record.keySchema(), record.key()));
		String value = text(VALUES.fromConnectData(topic, record.valueSchema(), record.value()));
		String comma = "";
		line.append("{\"topic\":").append(quoted(topic)).append(",\"key\":").append(quoted(key))
				.append(",\"value\":").append(value).append(",\"headers\":{");
		for (Header header : record.headers()) {
			line.append(comma).append(quoted(header.key())).append(':').append(
					text(VALUES.fromConnectHeader(topic, header.key(), header.schema(), header.value())));
			comma = ",";
		}
		OUT.println(line.append("}}"));
	}

	private static void take(List<RecordChangeEvent<SourceRecord>> events,
			DebeziumEngine.RecordCommitter<RecordChangeEvent<SourceRecord>> committer, String last)
			throws InterruptedException {
		for (RecordChangeEvent<SourceRecord> event : events) {
			write(event.record());
			committer.markProcessed(event);
			if (event.record().topic().equals(last)) {
				DONE.countDown();
			}
		}
		committer.markBatchFinished();
	}

	private static void finished(boolean success, String message, Throwable error) {
		if (!success) {
			System.err.println("the connector failed: " + message);
			if (error != null) {
				error.printStackTrace();
			}
			failed = true;
		}
		DONE.countDown();
	}

	public static void main(String[] arguments) throws Exception {
		Properties properties = new Properties();
		try (FileReader file = new FileReader(arguments[0], StandardCharsets.UTF_8)) {
			properties.load(file);
		}
		DebeziumEngine<RecordChangeEvent<SourceRecord>> engine =
				DebeziumEngine.create(ChangeEventFormat.of(Connect.class)).using(properties)
						.using(ChangeStream::finished)
						.notifying((events, committer) -> take(events, committer, arguments[1]))
						.build();
		Thread thread = new Thread(engine, "engine");
		thread.setDaemon(true);
		thread.start();
		DONE.await();
		OUT.flush();
		// The slot and the offsets are of no further use: nothing to close.
		Runtime.getRuntime().halt(failed ? 1 : 0);
	}
}
