"""
checker

The promises, as questions to the truth in the database and to what came out.
After each cycle it returns what was broken, in words; nothing, if all holds.
"""
import math
from collections import Counter, defaultdict

from captured import MODES, Table


class Ledger:
    """Which event a number belongs to, and which number an event has: the same for all consumers of a rig.  Of one cycle."""

    def __init__(self):
        self.cycle = None

    def begin(self, cycle):
        if cycle != self.cycle:
            self.cycle = cycle
            self.events = {}        # by seq
            self.numbers = {}       # by event_id

    def enter(self, a):
        """What it contradicts, in words."""
        event = (a.event_id, a.topic, a.type, a.key, a.digest)
        if self.events.setdefault(a.seq, event) != event:
            return "seq %d is %s, and to another consumer it was %s" % (a.seq, event, self.events[a.seq])
        if self.numbers.setdefault(a.event_id, a.seq) != a.seq:
            return "event %s has the seq %d and %d" % (a.event_id, a.seq, self.numbers[a.event_id])
        return None


class Checker:
    """What one consumer must see; remembers where its streams are."""

    def __init__(self, server, consumer, ledger):
        self.server = server
        self.consumer = consumer
        self.ledger = ledger
        self.seqs = defaultdict(int)        # the last one, by stream
        self.positions = defaultdict(int)
        self.numbers = defaultdict(int)     # of the last event, by topic and key
        self.tables = {topic: Table(topic) for topic in MODES}
        self.counts = Counter()

    def check(self, cycle):
        arrivals = self.consumer.take()
        truth = {row[0]: row[1:] for row in self.server.query(
            "SELECT id, topic, key, n, txn, size, event_id::text, digest FROM load.truth WHERE cycle = %s", cycle)}
        broken = ["it got: " + text for text in self.consumer.take_surprises()[:5]]
        self.check_order(arrivals, broken)
        self.check_identity(cycle, arrivals, broken)
        self.check_set(arrivals, truth, broken)
        self.check_tables(broken)
        self.counts["events"] += len(arrivals)
        return ["%s: %s" % (self.consumer.name, text) for text in broken]

    def check_order(self, arrivals, broken):
        """seq rises, position is dense for each topic, n is dense for each key."""
        for a in arrivals:
            if a.seq <= self.seqs[a.stream]:
                self.counts["duplicates"] += 1
                broken.append("seq %d came after %d" % (a.seq, self.seqs[a.stream]))
                continue
            self.seqs[a.stream] = a.seq
            self.positions[a.topic] += 1
            if a.position != self.positions[a.topic]:
                broken.append("position %d of %s came for %d" % (a.position, a.topic, self.positions[a.topic]))
                self.positions[a.topic] = a.position
            if a.topic in self.tables:
                wrong = self.tables[a.topic].change(a)
                if wrong:
                    broken.append(wrong)
                continue
            if a.made:
                self.check_number(a, broken)

    def check_number(self, a, broken):
        key = (a.topic, a.key)
        self.numbers[key] += 1
        if a.payload["n"] != self.numbers[key]:
            broken.append("event %s of key %s came for %d" % (a.payload["n"], key, self.numbers[key]))
            self.numbers[key] = int(a.payload["n"])

    def check_identity(self, cycle, arrivals, broken):
        """It is the same event under the same number for everybody."""
        self.ledger.begin(cycle)
        wrong = [text for text in map(self.ledger.enter, arrivals) if text]
        if wrong:
            broken.append("%d events are not the same for all: %s" % (len(wrong), "; ".join(wrong[:3])))

    def check_set(self, arrivals, truth, broken):
        made = [a for a in arrivals if a.made]
        came = Counter(self.name_of(a) for a in made)
        lost = truth.keys() - came.keys()
        phantoms = (came.keys() - truth.keys()) | set(self.consumer.phantoms)
        self.consumer.phantoms = []
        twice = [event for event, count in came.items() if count > 1]
        self.counts["lost"] += len(lost)
        self.counts["phantoms"] += len(phantoms)
        self.counts["duplicates"] += len(twice)
        complain(broken, "events that nobody made", [a.event_id for a in arrivals if not a.made and a.topic not in self.tables])
        complain(broken, "events lost", lost)
        complain(broken, "phantoms", phantoms)
        complain(broken, "events came twice", twice)
        complain(broken, "events are not what was made", [
            self.name_of(a) for a in made if truth.get(self.name_of(a), self.facts(a)) != self.facts(a)])
        sizes = {a.payload["txn"]: a.payload["size"] for a in made}
        for txn, count in Counter(a.payload["txn"] for a in made).items():
            if count != sizes[txn]:
                broken.append("%d of %d events of transaction %s came" % (count, sizes[txn], txn))

    @staticmethod
    def facts(a):
        """What is compared with the truth."""
        return a.topic, a.key, a.payload["n"], a.payload["txn"], a.payload["size"], a.event_id, a.digest

    @staticmethod
    def name_of(arrival):
        """What truth calls it: a marker is one event of each topic."""
        name = arrival.payload["id"]
        return "%s %s" % (name, arrival.topic) if ".marker." in name else name

    def check_tables(self, broken):
        for topic, table in self.tables.items():
            complain(broken, "rows of %s differ from what its events say" % topic, table.differences(self.rows_of(topic)))

    def rows_of(self, topic):
        return dict(self.server.query("SELECT id::text, to_jsonb(a) FROM %s AS a" % topic))

    def begin_afresh(self):
        """From what the database holds now; of the log that led to it nothing is there."""
        self.numbers.update({(topic, key): n for topic, key, n in self.server.query("SELECT topic, key, n FROM load.key")})
        for topic, table in self.tables.items():
            table.rows = self.rows_of(topic)


def check_database(server, load, cycle, undone=math.inf):
    """
    What the database itself must say: commits that were acknowledged, but not
    asynchronous ones from before `undone`, the last crash; effects, answers.
    """
    broken = []
    done = [one for one in load.acknowledged if one.synchronous or one.at > undone]
    kept = {row[0] for row in server.query("SELECT txn FROM load.kept WHERE cycle = %s", cycle)}
    complain(broken, "acknowledged commits are gone", [one.txn for one in done if one.txn not in kept])
    effects = gather(server.query(
        "SELECT message, txn FROM load.effect WHERE cycle = %s UNION ALL SELECT 'posted ' || message, txn FROM load.posted WHERE cycle = %s",
        cycle, cycle))
    answers = gather(server.query("SELECT request, response FROM load.answered WHERE cycle = %s", cycle))
    complain(broken, "messages had effects twice", [message for message, txns in effects.items() if len(txns) > 1])
    complain(broken, "requests had effects twice", [request for request, responses in answers.items() if len(responses) > 1])
    for one in done:
        complain(broken, "messages received by %s had no effect" % one.txn, [
            message for message, new in one.received if message not in effects or (new and one.txn not in effects[message])])
        complain(broken, "requests were answered otherwise to %s" % one.txn, [
            request for request, response in one.answered if response not in answers.get(request, ())])
    check_again(server, load, cycle, effects, answers, broken)
    return broken


def check_again(server, load, cycle, effects, answers, broken):
    """What is known of a message or a request if it came once more, and what it did, belong together."""
    fresh, replayed = server.query("SELECT fresh, answers FROM load.ask_again(%s, %s)", load.messages(cycle), load.requests(cycle))[0]
    complain(broken, "messages with an effect would be received again", [message for message in fresh if message in effects])
    complain(broken, "messages without an effect would not be received",
             [message for message in load.messages(cycle) if message not in effects and message not in fresh])
    complain(broken, "requests would be answered otherwise if they came again", [
        request for request in load.requests(cycle)
        if (request in replayed) != (request in answers) or (request in replayed and replayed[request] not in answers[request])])


def gather(rows):
    """{first: [second, ...]}"""
    found = defaultdict(list)
    for first, second in rows:
        found[first].append(second)
    return found


def complain(broken, what, names):
    """Of some, if there are any."""
    if names:
        broken.append("%d %s: %s" % (len(names), what, " ".join(sorted(names)[:10])))
