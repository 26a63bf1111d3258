/*
 * KafkaTool.java
 *
 * What the tests ask of a Kafka cluster, through Kafka's own Java client, so
 * that what a test sees does not depend on the client library under test.
 *
 *		KafkaTool BOOTSTRAP [--client FILE] COMMAND ARGUMENT...
 *
 * Commands:
 *		wait SECONDS				returns once the cluster answers
 *		create TOPIC PARTITIONS [name=value...]
 *		alter TOPIC name=value...
 *		delete TOPIC
 *		describe TOPIC				one JSON object
 *		topics						one name a line
 *		offsets GROUP				one JSON object per partition
 *		produce-txn ID TOPIC N		commits N messages as transactional id ID
 *		dump TOPIC ISOLATION		one JSON object per record, to the end of
 *									each partition as it was at the start; waits
 *									for transactions that are ending
 *		follow TOPIC...				committed records as they come, until killed
 *		ends TOPIC ISOLATION		one JSON object: end offset per partition
 */
import java.io.BufferedWriter;
import java.io.FileReader;
import java.io.OutputStreamWriter;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class KafkaTool
{
	static Properties client = new Properties();
	static BufferedWriter out = new BufferedWriter(
		new OutputStreamWriter(System.out, StandardCharsets.UTF_8), 1 << 16);

	public static void main(String[] args) throws Exception
	{
		int first = 1;

		client.put("bootstrap.servers", args[0]);
		if (args[first].equals("--client"))
		{
			try (FileReader reader = new FileReader(args[first + 1]))
			{
				client.load(reader);
			}
			first += 2;
		}

		String command = args[first];
		List<String> rest = new ArrayList<>();

		for (int i = first + 1; i < args.length; i++)
			rest.add(args[i]);
		try
		{
			run(command, rest);
		}
		catch (ExecutionException e)
		{
			System.err.println(command + ": " + e.getCause());
			System.exit(1);
		}
		out.flush();
	}

	static void run(String command, List<String> args) throws Exception
	{
		switch (command)
		{
			case "dump":
				dump(args.get(0), args.get(1));
				return;
			case "follow":
				follow(args);
				return;
			case "ends":
				ends(args.get(0), args.get(1));
				return;
			case "produce-txn":
				produceTransaction(args.get(0), args.get(1), Integer.parseInt(args.get(2)));
				return;
		}
		try (Admin admin = Admin.create(client))
		{
			administer(admin, command, args);
		}
	}

	static void administer(Admin admin, String command, List<String> args) throws Exception
	{
		switch (command)
		{
			case "wait":
				waitReady(admin, Integer.parseInt(args.get(0)));
				break;
			case "create":
				{
					Map<String, String> configs = new HashMap<>();

					for (String pair : args.subList(2, args.size()))
						configs.put(pair.split("=", 2)[0], pair.split("=", 2)[1]);
					admin.createTopics(List.of(
						new NewTopic(args.get(0), Integer.parseInt(args.get(1)), (short) 1)
						.configs(configs))).all().get();
					waitLeaders(admin, args.get(0));
					break;
				}
			case "alter":
				{
					Collection<AlterConfigOp> ops = new ArrayList<>();

					for (String pair : args.subList(1, args.size()))
						ops.add(new AlterConfigOp(
							new ConfigEntry(pair.split("=", 2)[0], pair.split("=", 2)[1]),
							AlterConfigOp.OpType.SET));
					admin.incrementalAlterConfigs(Map.of(
						new ConfigResource(ConfigResource.Type.TOPIC, args.get(0)), ops))
						.all().get();
					break;
				}
			case "delete":
				admin.deleteTopics(List.of(args.get(0))).all().get();
				break;
			case "topics":
				for (String name : admin.listTopics().names().get())
					out.write(name + "\n");
				break;
			case "describe":
				describe(admin, args.get(0));
				break;
			case "offsets":
				for (Map.Entry<TopicPartition, OffsetAndMetadata> e :
					admin.listConsumerGroupOffsets(args.get(0))
					.partitionsToOffsetAndMetadata().get().entrySet())
					out.write("{\"topic\": " + quote(e.getKey().topic())
						+ ", \"partition\": " + e.getKey().partition()
						+ ", \"offset\": " + e.getValue().offset()
						+ ", \"metadata\": " + quote(e.getValue().metadata()) + "}\n");
				break;
			default:
				throw new IllegalArgumentException("no such command: " + command);
		}
	}

	/* Ready means that a broker is registered and the log is writable. */
	static void waitReady(Admin admin, int seconds) throws Exception
	{
		long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(seconds);

		while (true)
		{
			try
			{
				if (!admin.describeCluster().nodes().get(2, TimeUnit.SECONDS).isEmpty())
					return;
			}
			catch (Exception e)
			{
				if (System.nanoTime() > deadline)
					throw e;
			}
		}
	}

	static void waitLeaders(Admin admin, String topic) throws Exception
	{
		while (true)
		{
			KafkaFuture<TopicDescription> future =
				admin.describeTopics(List.of(topic)).topicNameValues().get(topic);

			try
			{
				if (future.get().partitions().stream().allMatch(
					p -> p.leader() != null && !p.leader().isEmpty()))
					return;
			}
			catch (ExecutionException e)
			{
				/* Not yet known to the broker that answered. */
			}
		}
	}

	static void describe(Admin admin, String topic) throws Exception
	{
		TopicDescription description =
			admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
		ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
		StringBuilder json = new StringBuilder();

		for (ConfigEntry entry :
			admin.describeConfigs(List.of(resource)).all().get().get(resource).entries())
			json.append(json.length() == 0 ? "" : ", ").append(quote(entry.name()))
				.append(": ").append(quote(entry.value()));
		out.write("{\"topic\": " + quote(topic) + ", \"partitions\": "
			+ description.partitions().size() + ", \"configs\": {" + json + "}}\n");
	}

	static KafkaConsumer<byte[], byte[]> consumer(String isolation)
	{
		Properties properties = new Properties();

		properties.putAll(client);
		properties.put("isolation.level", isolation);
		properties.put("enable.auto.commit", "false");
		properties.put("auto.offset.reset", "earliest");
		properties.put("max.poll.records", "5000");
		properties.put("allow.auto.create.topics", "false");
		return new KafkaConsumer<>(properties, new ByteArrayDeserializer(),
			new ByteArrayDeserializer());
	}

	static List<TopicPartition> partitions(KafkaConsumer<byte[], byte[]> consumer, String topic)
	{
		List<TopicPartition> result = new ArrayList<>();

		for (PartitionInfo info : consumer.partitionsFor(topic))
			result.add(new TopicPartition(topic, info.partition()));
		return result;
	}

	static void ends(String topic, String isolation) throws Exception
	{
		try (KafkaConsumer<byte[], byte[]> consumer = consumer(isolation))
		{
			Map<Integer, Long> ends = new TreeMap<>();
			StringBuilder json = new StringBuilder();

			consumer.endOffsets(partitions(consumer, topic))
				.forEach((partition, end) -> ends.put(partition.partition(), end));
			for (Map.Entry<Integer, Long> end : ends.entrySet())
				json.append(json.length() == 0 ? "" : ", ")
					.append("\"" + end.getKey() + "\": " + end.getValue());
			out.write("{" + json + "}\n");
		}
	}

	/* How long a dump waits for open transactions to end */
	static final int STABLE_SECONDS = 30;

	/*
	 * A transaction is committed a moment before its messages can be read, and a
	 * publisher that was killed leaves one open: waits until all that is there
	 * now is readable, and returns the ends.
	 */
	static Map<TopicPartition, Long> stableEnds(KafkaConsumer<byte[], byte[]> reader,
		List<TopicPartition> partitions) throws Exception
	{
		long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(STABLE_SECONDS);
		Map<TopicPartition, Long> highest;

		try (KafkaConsumer<byte[], byte[]> other = consumer("read_uncommitted"))
		{
			highest = other.endOffsets(partitions);
		}
		while (true)
		{
			Map<TopicPartition, Long> ends = reader.endOffsets(partitions);

			if (System.nanoTime() > deadline || partitions.stream().allMatch(
				p -> ends.get(p) >= highest.get(p)))
				return ends;
		}
	}

	/*
	 * With read_committed the end of a partition is its last stable offset.
	 * position() passes over control records and aborted batches, so reaching
	 * the end does not depend on a record being there.
	 */
	static void dump(String topic, String isolation) throws Exception
	{
		try (KafkaConsumer<byte[], byte[]> consumer = consumer(isolation))
		{
			List<TopicPartition> partitions = partitions(consumer, topic);

			consumer.assign(partitions);
			consumer.seekToBeginning(partitions);

			Map<TopicPartition, Long> ends = stableEnds(consumer, partitions);

			while (true)
			{
				boolean done = true;

				for (TopicPartition partition : partitions)
					if (consumer.position(partition) < ends.get(partition))
						done = false;
				if (done)
					break;

				ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(500));

				for (ConsumerRecord<byte[], byte[]> record : records)
					if (record.offset() < ends.get(
						new TopicPartition(topic, record.partition())))
						print(record);
			}
		}
	}

	static void follow(List<String> topics) throws Exception
	{
		try (KafkaConsumer<byte[], byte[]> consumer = consumer("read_committed"))
		{
			List<TopicPartition> partitions = new ArrayList<>();

			for (String topic : topics)
				partitions.addAll(partitions(consumer, topic));
			consumer.assign(partitions);
			consumer.seekToBeginning(partitions);
			while (true)
			{
				for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1)))
					print(record);
				out.flush();
			}
		}
	}

	static void print(ConsumerRecord<byte[], byte[]> record) throws Exception
	{
		StringBuilder headers = new StringBuilder();

		for (Header header : record.headers())
			headers.append(headers.length() == 0 ? "" : ", ").append("[")
				.append(quote(header.key())).append(", ")
				.append(text(header.value())).append("]");
		out.write("{\"partition\": " + record.partition()
			+ ", \"offset\": " + record.offset()
			+ ", \"timestamp\": " + record.timestamp()
			+ ", \"key\": " + text(record.key())
			+ ", \"value\": " + text(record.value())
			+ ", \"headers\": [" + headers + "]}\n");
	}

	static void produceTransaction(String id, String topic, int count) throws Exception
	{
		Properties properties = new Properties();

		properties.putAll(client);
		properties.put("transactional.id", id);
		try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(
			properties, new ByteArraySerializer(), new ByteArraySerializer()))
		{
			producer.initTransactions();
			producer.beginTransaction();
			for (int i = 0; i < count; i++)
				producer.send(new ProducerRecord<>(topic, Integer.toString(i).getBytes()));
			producer.commitTransaction();
		}
	}

	/* A string where the bytes are UTF-8, otherwise {"base64": ...}. */
	static String text(byte[] bytes)
	{
		if (bytes == null)
			return "null";
		try
		{
			return quote(StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes))
				.toString());
		}
		catch (CharacterCodingException e)
		{
			return "{\"base64\": \"" + Base64.getEncoder().encodeToString(bytes) + "\"}";
		}
	}

	static String quote(String value)
	{
		StringBuilder json;

		if (value == null)
			return "null";
		json = new StringBuilder("\"");
		for (int i = 0; i < value.length(); i++)
		{
			char c = value.charAt(i);

			if (c == '"' || c == '\\')
				json.append('\\').append(c);
			else if (c < 0x20)
				json.append(String.format("\\u%04x", (int) c));
			else
				json.append(c);
		}
		return json.append('"').toString();
	}
}
