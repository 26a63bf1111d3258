"""
network

What lies between a publisher and its broker: a proxy on the way that holds
everything up, or one direction of it, refuses connections, is slow, or cuts them
in the middle of a message.  Where test/torture/run could begin a network
namespace, a proxy's address can be taken away, too: what is sent to it or from it
vanishes, and nobody is told.
"""
import itertools
import os
import socket
import struct
import subprocess
import threading
import time
from contextlib import contextmanager

CHUNK = 65536
UP, DOWN = "up", "down"         # to the broker, and back
RESET = struct.pack("ii", 1, 0)

NAMESPACE = "EO_NAMESPACE" in os.environ    # is ours
NETWORK = "10.77.0.0/16"


def ip(*arguments):
    subprocess.run(("ip", *arguments), check=True)


def open_namespace():
    """
    What is sent to an address of the network that is not there comes back and is
    dropped.  With a source, or a connection that is begun then could never be made.
    """
    ip("link", "set", "lo", "up")
    ip("route", "add", NETWORK, "dev", "lo", "src", "127.0.0.1")


def end(connection, reset=False):
    try:
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    connection.close()


def bound(host, port):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))
    return listener


class Link:
    """A connection through the proxy, which is two."""

    def __init__(self, proxy, client, broker):
        self.proxy = proxy
        self.ends = (client, broker)
        self.open = {UP: threading.Event(), DOWN: threading.Event()}
        self.running = 2
        for one in self.ends:
            one.settimeout(None)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for way, (source, sink) in ((UP, (client, broker)), (DOWN, (broker, client))):
            if way not in proxy.closed:
                self.open[way].set()
            threading.Thread(target=self.pump, args=(source, sink, way), daemon=True).start()

    def pump(self, source, sink, way):
        """What was sent before an end arrives before it, also when it was held up."""
        try:
            while True:
                data = source.recv(self.proxy.chunk)
                self.open[way].wait()
                if not data:
                    break
                if self.proxy.delay:
                    time.sleep(self.proxy.delay)
                sink.sendall(self.proxy.measure(data))
                if self.proxy.left == 0:
                    self.proxy.cut()
            sink.shutdown(socket.SHUT_WR)
            with self.proxy.lock:
                self.running -= 1
            if not self.running:
                self.end()
        except OSError:
            self.end()

    def end(self, reset=False):
        self.proxy.links.discard(self)
        for one in self.ends:
            end(one, reset)
        for way in self.open.values():
            way.set()


class Proxy:
    numbers = itertools.count(1)

    def __init__(self):
        self.host = "127.0.0.1"
        if NAMESPACE:
            self.host = "10.77.%d.%d" % divmod(next(self.numbers), 256)
            self.plug("add")
        self.target = None      # the broker's port
        self.links = set()
        self.closed = set()     # ways
        self.delay = 0.0        # s, for each piece
        self.chunk = CHUNK
        self.left = None        # bytes until everything is cut; None: it is not
        self.lock = threading.Lock()
        self.holder = bound(self.host, 0)   # never listens: the port stays ours when nobody else does
        self.port = self.holder.getsockname()[1]
        self.address = "%s:%d" % (self.host, self.port)
        self.listen()

    def listen(self):
        self.listener = bound(self.host, self.port)
        self.listener.listen(64)
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(("127.0.0.1", self.target), 10)
            except OSError:
                end(client, reset=True)
                continue
            self.links.add(Link(self, client, broker))

    def plug(self, how):
        ip("address", how, self.host + "/32", "dev", "lo")

    def answers(self):
        """Whether somebody who connects is told anything at once, be it a refusal."""
        try:
            socket.create_connection((self.host, self.port), 0.3).close()
        except OSError as error:
            return not isinstance(error, TimeoutError)
        return True

    def measure(self, data):
        """What may still pass before the cut."""
        with self.lock:
            if self.left is not None:
                data = data[:self.left]
                self.left -= len(data)
        return data

    def cut(self):
        """Ends all that there is; new ones are welcome."""
        self.left = None
        for link in list(self.links):
            link.end(reset=True)

    def close(self):
        end(self.listener)
        self.holder.close()
        self.cut()
        if NAMESPACE:
            self.plug("del")

    # ---- disturbances --------------------------------------------------------

    @contextmanager
    def held(self, *ways, later=True):
        """Nothing passes there meanwhile, and nobody is told; then it arrives.  Those who connect later are held, too, or not."""
        if later:
            self.closed.update(ways)
        links = list(self.links)
        for link in links:
            for way in ways:
                link.open[way].clear()
        try:
            yield
        finally:
            self.closed.clear()
            for link in links + list(self.links):
                for way in ways:
                    link.open[way].set()

    @contextmanager
    def refusing(self):
        """Nobody is there."""
        end(self.listener)
        self.cut()
        try:
            yield
        finally:
            self.listen()

    @contextmanager
    def unplugged(self):
        """Nothing arrives anywhere, the first packet of a connection included; the kernel sends it again some time."""
        self.plug("del")
        try:
            if self.answers():
                raise RuntimeError("%s is reached without its address" % self.address)
            yield
        finally:
            self.plug("add")

    @contextmanager
    def slow(self, delay, chunk):
        """Each piece takes that long, and is no larger."""
        self.delay, self.chunk = delay, chunk
        try:
            yield
        finally:
            self.delay, self.chunk = 0.0, CHUNK

    def cut_after(self, size):
        """In the middle of whatever comes then."""
        self.left = size
