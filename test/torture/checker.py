"""
checker

The promises, as questions to the truth in the database and to what came out.
After each cycle it returns what was broken, in words; nothing, if all holds.
"""
from collections import Counter, defaultdict

ACCOUNTS = "load.account"


class Checker:
    """What one consumer must see; remembers where its streams are."""

    def __init__(self, server, consumer):
        self.server = server
        self.consumer = consumer
        self.seqs = defaultdict(int)        # the last one, by stream
        self.positions = defaultdict(int)
        self.numbers = defaultdict(int)     # of the last event, by topic and key
        self.accounts = {}
        self.counts = Counter()

    def check(self, cycle):
        arrivals = self.consumer.take()
        truth = {row[0]: row[1:] for row in self.server.query(
            "SELECT id, topic, key, n, txn, size FROM load.truth WHERE cycle = %s", cycle)}
        broken = []
        self.check_order(arrivals, broken)
        self.check_set(arrivals, truth, broken)
        self.check_accounts(broken)
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
            if a.topic == ACCOUNTS:
                self.change_account(a)
                continue
            key = (a.topic, a.key)
            self.numbers[key] += 1
            if a.payload["n"] != self.numbers[key]:
                broken.append("event %d of key %s came for %d" % (a.payload["n"], key, self.numbers[key]))
                self.numbers[key] = a.payload["n"]

    def change_account(self, arrival):
        if arrival.payload is None:
            self.accounts.pop(arrival.key, None)
        else:
            self.accounts[arrival.key] = arrival.payload

    def check_set(self, arrivals, truth, broken):
        made = [a for a in arrivals if a.topic != ACCOUNTS]
        came = Counter(self.name_of(a) for a in made)
        lost = truth.keys() - came.keys()
        phantoms = (came.keys() - truth.keys()) | set(self.consumer.phantoms)
        self.consumer.phantoms = []
        self.counts["lost"] += len(lost)
        self.counts["phantoms"] += len(phantoms)
        if lost:
            broken.append("%d events lost: %s" % (len(lost), " ".join(sorted(lost)[:10])))
        if phantoms:
            broken.append("%d phantoms: %s" % (len(phantoms), " ".join(sorted(phantoms)[:10])))
        twice = [event for event, count in came.items() if count > 1]
        self.counts["duplicates"] += len(twice)
        if twice:
            broken.append("%d events came twice: %s" % (len(twice), " ".join(sorted(twice)[:10])))
        for a in made:
            if self.name_of(a) in truth and (a.topic, a.key, a.payload["n"]) != truth[self.name_of(a)][:3]:
                broken.append("event %s is not what was made" % self.name_of(a))
        for txn, count in Counter(a.payload["txn"] for a in made).items():
            size = next(a.payload["size"] for a in made if a.payload["txn"] == txn)
            if count != size:
                broken.append("%d of %d events of transaction %s came" % (count, size, txn))

    @staticmethod
    def name_of(arrival):
        """What truth calls it: a marker is one event of each topic."""
        name = arrival.payload["id"]
        return "%s %s" % (name, arrival.topic) if ".marker." in name else name

    def check_accounts(self, broken):
        table = {str(row[0]): row[1] for row in self.server.query("SELECT id, to_jsonb(a) FROM load.account AS a")}
        if self.accounts != table:
            keys = sorted(k for k in self.accounts.keys() | table.keys() if self.accounts.get(k) != table.get(k))
            broken.append("accounts differ from their changelog: %s" % " ".join(keys[:10]))
            self.accounts = table


def check_database(server, load, cycle):
    """What the database itself must say: acknowledged commits, effects, answers."""
    broken = []
    acknowledged = [txn for txn, synchronous in load.acknowledged if synchronous]
    kept = {row[0] for row in server.query("SELECT txn FROM load.kept WHERE cycle = %s", cycle)}
    missing = [txn for txn in acknowledged if txn not in kept]
    if missing:
        broken.append("%d acknowledged commits are gone: %s" % (len(missing), " ".join(missing[:10])))
    for what, table, column in (("message", "effect", "message"), ("request", "answered", "request")):
        twice = [row[0] for row in server.query(
            "SELECT %s FROM load.%s WHERE cycle = %%s GROUP BY 1 HAVING count(*) > 1" % (column, table), cycle)]
        if twice:
            broken.append("%d %ss had effects twice: %s" % (len(twice), what, " ".join(twice[:10])))
    return broken
