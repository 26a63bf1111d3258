/*
 * Relay.java
 *
 * What people build who read PostgreSQL with Debezium's embedded engine and
 * write to Kafka: takes the engine's records in batches, gives them to a
 * producer, and tells the engine that they are done when Kafka has acknowledged
 * the batch, as Debezium Server's sink for Kafka does.
 *
 *     java Relay ENGINE.properties PRODUCER.properties
 *
 * A record that Debezium's outbox event router has made goes as it is: topic,
 * key, value and headers.  A logical message goes to the topic that its prefix
 * names; its content is the key, a line feed, and the value.  Heartbeats only
 * move the position.  Ends by SIGTERM after the position is stored, and with
 * status 1 when the engine fails.
 */
import io.debezium.embedded.Connect;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.RecordChangeEvent;
import io.debezium.engine.format.ChangeEventFormat;
import java.io.FileReader;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.header.Header;
import org.apache.kafka.connect.source.SourceRecord;

public class Relay implements DebeziumEngine.ChangeConsumer<RecordChangeEvent<SourceRecord>> {
	private static final String MESSAGE = "io.debezium.connector.postgresql.MessageValue";
	private final KafkaProducer<byte[], byte[]> producer;
	private final String heartbeats;

	Relay(Properties settings, String heartbeats) {
		producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
		this.heartbeats = heartbeats;
	}

	private static byte[] bytes(Object value) {
		if (value == null) {
			return null;
		}
		if (value instanceof ByteBuffer) {
			ByteBuffer buffer = ((ByteBuffer) value).duplicate();
			byte[] copy = new byte[buffer.remaining()];
			buffer.get(copy);
			return copy;
		}
		return value instanceof byte[] ? (byte[]) value
				: value.toString().getBytes(StandardCharsets.UTF_8);
	}

	private static ProducerRecord<byte[], byte[]> logicalMessage(Struct message) {
		byte[] content = bytes(message.get("content"));
		int end = 0;
		while (content[end] != '\n') {
			end++;
		}
		return new ProducerRecord<>(message.getString("prefix"), null,
				Arrays.copyOfRange(content, 0, end),
				Arrays.copyOfRange(content, end + 1, content.length));
	}

	private static ProducerRecord<byte[], byte[]> produced(SourceRecord record) {
		if (record.value() instanceof Struct
				&& MESSAGE.equals(record.valueSchema().name())) {
			return logicalMessage(((Struct) record.value()).getStruct("message"));
		}
		ProducerRecord<byte[], byte[]> made = new ProducerRecord<>(record.topic(),
				record.kafkaPartition(), bytes(record.key()), bytes(record.value()));
		for (Header header : record.headers()) {
			made.headers().add(header.key(), bytes(header.value()));
		}
		return made;
	}

	@Override
	public void handleBatch(List<RecordChangeEvent<SourceRecord>> events,
			DebeziumEngine.RecordCommitter<RecordChangeEvent<SourceRecord>> committer)
			throws InterruptedException {
		AtomicReference<Exception> failed = new AtomicReference<>();
		for (RecordChangeEvent<SourceRecord> event : events) {
			if (!event.record().topic().startsWith(heartbeats)) {
				producer.send(produced(event.record()), (metadata, error) -> {
					if (error != null) {
						failed.compareAndSet(null, error);
					}
				});
			}
		}
		// Without linger.ms: nothing else is to come in this batch.
		producer.flush();
		if (failed.get() != null) {
			throw new RuntimeException("Kafka did not take a record", failed.get());
		}
		for (RecordChangeEvent<SourceRecord> event : events) {
			committer.markProcessed(event);
		}
		committer.markBatchFinished();
	}

	private static Properties properties(String path) throws IOException {
		Properties properties = new Properties();
		try (FileReader file = new FileReader(path, StandardCharsets.UTF_8)) {
			properties.load(file);
		}
		return properties;
	}

	public static void main(String[] arguments) throws Exception {
		Properties settings = properties(arguments[0]);
		Relay relay = new Relay(properties(arguments[1]),
				settings.getProperty("topic.heartbeat.prefix"));
		CountDownLatch ended = new CountDownLatch(1);
		AtomicReference<Boolean> success = new AtomicReference<>(false);
		DebeziumEngine<RecordChangeEvent<SourceRecord>> engine =
				DebeziumEngine.create(ChangeEventFormat.of(Connect.class)).using(settings)
						.using((good, message, error) -> {
							success.set(good);
							if (!good) {
								System.err.println("the engine failed: " + message);
								if (error != null) {
									error.printStackTrace();
								}
							}
							ended.countDown();
						})
						.notifying(relay).build();
		Runtime.getRuntime().addShutdownHook(new Thread(() -> {
			try {
				engine.close();
				ended.await();
			} catch (IOException | InterruptedException | IllegalStateException error) {
				System.err.println("the engine was not closed: " + error);
			}
		}));
		Thread thread = new Thread(engine, "engine");
		thread.setDaemon(true);
		thread.start();
		ended.await();
		relay.producer.close();
		if (!success.get()) {
			Runtime.getRuntime().halt(1);
		}
	}
}
