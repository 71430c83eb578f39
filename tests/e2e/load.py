"""
A bounded load for tests: requests at a steady rate over kept connections, and streams that stay open. One event loop in
a thread of its own, so that the test can do its worst meanwhile. What went wrong is kept, not thrown.
"""
import asyncio
import json
import threading
import time


class Failure(Exception):
    """What a client would call an error."""


async def read_head(reader):
    head = await reader.readuntil(b'\r\n\r\n')
    lines = head.decode('latin-1').split('\r\n')
    headers = dict(line.lower().split(': ', 1) for line in lines[1:] if ': ' in line)
    return int(lines[0].split(' ')[1]), headers


async def read_chunks(reader):
    """Yields the chunks of a chunked body."""
    while True:
        size = int((await reader.readuntil(b'\r\n')).split(b';')[0], 16)
        data = await reader.readexactly(size + 2)
        if size == 0:
            return
        yield data[:-2]


def request(path, body, headers=()):
    lines = ['POST %s HTTP/1.1' % path if body is not None else 'GET %s HTTP/1.1' % path, 'Host: localhost']
    lines.extend(headers)
    if body is not None:
        body = json.dumps(body).encode()
        lines += ['Content-Type: application/json', 'Content-Length: %d' % len(body)]
    return '\r\n'.join(lines).encode() + b'\r\n\r\n' + (body or b'')


class Client:
    """
    One kept connection; a new one is made when nginx has closed it between two requests. With `again`, a request that met
    just this close, without a byte of an answer, is sent once more, as curl and browsers do.
    """

    def __init__(self, port, host='127.0.0.1', source=None, again=False):
        self.host, self.port, self.source, self.again = host, port, source, again
        self.reader = self.writer = None

    async def connect(self):
        local = (self.source, 0) if self.source else None
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port, local_addr=local)

    async def send(self, path, body=None, headers=()):
        """(status, headers); the body is left to be read."""
        if self.writer is None or self.reader.at_eof():
            await self.connect()
            reused = False
        else:
            reused = True
        try:
            self.writer.write(request(path, body, headers))
            return await read_head(self.reader)
        except (asyncio.IncompleteReadError, ConnectionResetError) as error:
            if not (reused and self.again) or getattr(error, 'partial', b''):
                raise
        await self.connect()
        self.writer.write(request(path, body, headers))
        return await read_head(self.reader)

    async def call(self, path, body=None, headers=()):
        """(status, body) of a whole answer."""
        status, head = await self.send(path, body, headers)
        if head.get('transfer-encoding') == 'chunked':
            data = b''.join([chunk async for chunk in read_chunks(self.reader)])
        else:
            data = await self.reader.readexactly(int(head.get('content-length', 0)))
        if head.get('connection') == 'close':
            self.close()
        return status, data

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


class Load:
    """
    with Load(port) as load: load.steady(...); load.streams(...) - both begin at once and go on until the block ends, or as
    long as they are told. Afterwards: load.times (seconds of each good answer), load.statuses, load.failures, and
    load.answers: (begin, end, status) of each one, by time.monotonic().
    """

    def __init__(self, port, host='127.0.0.1', again=False):
        self.host, self.port, self.again = host, port, again
        self.times, self.failures, self.statuses, self.answers = [], [], {}, []
        self.finished_streams = self.open_streams = 0
        self.stopping = False
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.tasks = []

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self, seconds=60):
        """Lets what is under way end, and gives up after `seconds`."""
        if self.stopping:
            return
        self.stopping = True
        done = asyncio.run_coroutine_threadsafe(self.finish(seconds), self.loop)
        done.result(seconds + 10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def finish(self, seconds):
        _, pending = await asyncio.wait(self.tasks, timeout=seconds) if self.tasks else ((), ())
        for task in pending:
            self.failures.append('still not done when the test was')
            task.cancel()

    def run(self, coroutine):
        self.loop.call_soon_threadsafe(lambda: self.tasks.append(self.loop.create_task(coroutine)))

    def fail(self, what):
        if len(self.failures) < 1000:
            self.failures.append('%.3f %s' % (time.monotonic(), what))

    def steady(self, rate, clients=32, path='/chat', body=lambda number: {'message': 'hi %d' % number}):
        """`rate` requests per second, whatever the answers take, over at most `clients` connections at a time."""
        self.run(self._steady(rate, clients, path, body))

    async def _steady(self, rate, clients, path, body):
        free = asyncio.LifoQueue()
        for _ in range(clients):
            free.put_nowait(Client(self.port, self.host, again=self.again))
        began, number, tasks = time.monotonic(), 0, set()
        while not self.stopping:
            client = await free.get()
            pause = began + number / rate - time.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
            task = asyncio.ensure_future(self._one(client, free, path, body(number)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        if tasks:
            await asyncio.wait(tasks)
        while not free.empty():
            free.get_nowait().close()

    async def _one(self, client, free, path, body):
        began = time.monotonic()
        try:
            status, data = await client.call(path, body)
            self.statuses[status] = self.statuses.get(status, 0) + 1
            self.answers.append((began, time.monotonic(), status))
            if status == 200:
                self.times.append(time.monotonic() - began)
            else:
                self.fail('%d %s' % (status, data[:200].decode('utf-8', 'replace')))
        except (OSError, asyncio.IncompleteReadError, ValueError, EOFError) as error:
            self.fail('%s: %s' % (path, error or type(error).__name__))
            client.close()
        free.put_nowait(client)

    def streams(self, count, message, path='/chat/stream', again=True):
        """`count` streams; each is followed by another, until the end, if `again`."""
        for number in range(count):
            self.run(self._streams(number, message, path, again))

    async def _streams(self, number, message, path, again):
        while True:
            try:
                await self._stream(number, message, path)
                self.finished_streams += 1
            except (OSError, asyncio.IncompleteReadError, ValueError, EOFError, Failure) as error:
                self.fail('stream: %s' % (error or type(error).__name__))
            if self.stopping or not again:
                return

    async def _stream(self, number, message, path):
        client = Client(self.port, self.host)
        text, ends = '', []
        try:
            status, _ = await client.send(path, {'message': message, 'session_id': 'stream-%d' % number})
            if status != 200:
                raise Failure('status %d' % status)
            self.open_streams += 1
            try:
                body = b''.join([chunk async for chunk in read_chunks(client.reader)]).decode()
            finally:
                self.open_streams -= 1
            for line in body.split('\n'):
                if line:
                    event = json.loads(line[6:])
                    if event['type'] == 'chunk':
                        text += event['data']['content']
                    else:
                        ends.append(event)
            if [end['type'] for end in ends] != ['complete'] or ends[0]['data']['full_content'] != text:
                raise Failure('ended by %s' % [end['type'] for end in ends])
        finally:
            client.close()

    def percentile(self, share):
        times = sorted(self.times)
        return times[min(int(len(times) * share), len(times) - 1)]
