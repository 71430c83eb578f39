"""
The normal clients beside an attack, and what they notice of it: chats at a steady rate, streams whose chunks come at a
steady pace, and somebody who looks at /health. Each chats from an address of its own, as real ones do.
"""
import asyncio
import json
import os
import subprocess
import sys
import time

from load import Client, Failure, Load, read_chunks
from stack import directive, wait_for

ATTACKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'attacker.py')
GAP = 0.025  # seconds between the chunks of a stream


SLICE = 0.4  # seconds


class Figures:
    """What one kind of client saw in a while: `seen` are (time, seconds)."""

    def __init__(self, seen):
        self.times = sorted(seconds for _, seconds in seen)
        slices = {}
        for at, seconds in seen:
            slices.setdefault(int(at / SLICE), []).append(seconds)
        self.worst = sorted(max(times) for times in slices.values())

    def ms(self, share):
        return 1e3 * self.times[min(int(len(self.times) * share), len(self.times) - 1)]

    @property
    def usual_ms(self):
        """
        The longest time of the usual 0.4 s (the median of these): without accidents about the 98th percentile. What others do
        on this machine now and then lengthens some of them, an attack that is felt lengthens all.
        """
        return 1e3 * self.worst[len(self.worst) // 2]

    def __str__(self):
        return '%6.1f %6.1f %6.1f' % (self.ms(0.5), self.ms(0.99), self.usual_ms) if self.times else '  none'


class Neighbours(Load):
    """with Neighbours(port, headers) as neighbours: calm = neighbours.watch(3) - see `watch`."""

    def __init__(self, port, headers=(), rate=100, streams=20):
        super().__init__(port)
        self.headers, self.rate, self.stream_count = headers, rate, streams
        self.seen = {'chat': [], 'gap': [], 'health': []}
        self.begun = {}  # when each request that is under way began, by client

    def __enter__(self):
        super().__enter__()
        self.run(self.chats())
        for number in range(self.stream_count):
            self.run(self.chunks(number))
        self.run(self.health())
        return self

    def watch(self, seconds):
        """
        What the next `seconds` are like: {'chat', 'gap', 'health': Figures}. Only of what began in them, and also of what has not
        ended: an answer that came late now may have been held up by what was before.
        """
        began = time.monotonic()
        time.sleep(seconds)
        end = began + seconds
        wait_for(lambda: min(list(self.begun.values()), default=end) >= end, 60, 'the end of what began meanwhile')
        return {kind: Figures([one for one in list(times) if began <= one[0] < end])
                for kind, times in self.seen.items()}

    async def chats(self):
        if not self.rate:
            return
        free = asyncio.Queue()
        for number in range(64):
            free.put_nowait(Client(self.port, source='127.0.1.%d' % (1 + number)))
        began, number, tasks = time.monotonic(), 0, set()
        while not self.stopping:
            client = await free.get()
            await asyncio.sleep(max(0, began + number / self.rate - time.monotonic()))
            task = asyncio.ensure_future(self.chat(client, free, number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        if tasks:
            await asyncio.wait(tasks)
        while not free.empty():
            free.get_nowait().close()

    async def chat(self, client, free, number):
        await self.timed('chat', client, '/chat', {'message': 'hi %d' % number})
        free.put_nowait(client)

    async def timed(self, kind, client, path, body=None):
        began = self.begun[client] = time.monotonic()
        try:
            status, data = await client.call(path, body, self.headers)
            self.statuses[status] = self.statuses.get(status, 0) + 1
            if status == 200:
                self.seen[kind].append((began, time.monotonic() - began))
            else:
                self.fail('%s %d %s' % (kind, status, data[:200].decode('utf-8', 'replace')))
        except (OSError, asyncio.IncompleteReadError, ValueError, EOFError) as error:
            self.fail('%s: %s' % (kind, error or type(error).__name__))
            client.close()
        finally:
            del self.begun[client]

    async def health(self):
        client = Client(self.port)
        began, number = time.monotonic(), 0
        while not self.stopping:
            number += 1
            await self.timed('health', client, '/health')
            await asyncio.sleep(max(0, began + number * 0.05 - time.monotonic()))
        client.close()

    async def chunks(self, number):
        """Streams one after the other; how far from one chunk to the next."""
        await asyncio.sleep(number * GAP / self.stream_count)
        message = directive('stream', chunks=40, gap_ms=round(1000 * GAP))
        while not self.stopping:
            client = Client(self.port, source='127.0.1.%d' % (101 + number))
            try:
                status, _ = await client.send('/chat/stream', {'message': message}, self.headers)
                if status != 200:
                    raise Failure('status %d' % status)
                last, end = None, b''
                async for chunk in read_chunks(client.reader):
                    now = time.monotonic()
                    if last is not None and b'"chunk"' in chunk:
                        self.seen['gap'].append((last, now - last))
                    last, end = now, chunk
                if b'"complete"' not in end:
                    raise Failure('ended by %r' % end[:80])
                self.finished_streams += 1
            except (OSError, asyncio.IncompleteReadError, ValueError, EOFError, Failure) as error:
                self.fail('stream: %s' % (error or type(error).__name__))
            finally:
                client.close()


class Attacker:
    """with Attacker('Idle', port, 30, count=1000) as attacker: ...; afterwards `met` says what the attacker met."""

    def __init__(self, kind, port, seconds, **much):
        self.words = [kind, str(port), str(seconds)] + ['%s=%s' % pair for pair in much.items()]
        self.met = None

    def __enter__(self):
        self.process = subprocess.Popen([sys.executable, ATTACKER, *self.words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b'ready\n'
        return self

    def __exit__(self, *_):
        try:
            out = self.process.communicate(timeout=60)[0]
            self.met = json.loads(out)
        finally:
            self.process.kill()
            self.process.wait()
