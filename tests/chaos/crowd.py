"""
The clients of a chaos run: who asks what, how they behave, and what became of each request.

A session has one user, and its messages are all different: the first word of each names it, here, in every log and at
Coze. There are three kinds of session:
  solo   one client, each message after the answer to the one before
  crowd  several clients at once, each of them as above
  line   many messages at once in a known order: the next is sent when the one before is seen to have its place in Redis
Most clients read what comes; some leave early or in the middle, some stop reading for a while and then go on or leave.
Some sessions are cleared, or bound to another conversation, while messages run. A message may make Coze fail at it.
"""
import asyncio
import contextlib
import itertools
import json
import random
import socket
import struct
import threading
import time
import urllib.parse

import redis.asyncio

from load import Client, read_chunks, request

# What became of a request.
ANSWERED = 'answered'      # 200, or a stream that ended by `complete`
ERROR = 'error'            # {"detail"} of a worker
ERROR_EVENT = 'error event'
GATEWAY = 'gateway'        # nginx' own 502 or 504
BROKEN = 'broken'          # the connection was refused, or ended before the answer did
LEFT = 'left'              # the client left, as it meant to
HUNG = 'hung'              # neither an end nor an answer in time
MALFORMED = 'malformed'    # an answer that breaks the rules

REFUSED = (ERROR, GATEWAY, BROKEN)
AGAIN = (0.2, 1)     # seconds after which who was refused asks again
SMALL_BUFFER = 4096  # of a client that stops reading: else the kernel reads in its place
ODD_TEXTS = ['', '你好', '它说：“收到”。', 'a "quoted" \\ path\\n', '第一行\n第二行\r\n\ttab', '😀👩‍👩‍👧 e\u0301', '<b>&amp;</b> %20 {"x":1}']


class Malformed(Exception):
    """What no client should get to see."""


class Call:
    """One request. Times are Unix time; `ended` is when its outcome was known."""

    def __init__(self, word, path, body=None, limit=60):
        self.word, self.path, self.body, self.limit = word, path, body, limit
        self.sent = self.ended = None
        self.outcome, self.status, self.detail, self.answer = None, None, '', None
        self.began_answer = None  # when its status line came

    def end(self, outcome, detail=''):
        self.outcome, self.detail, self.ended = outcome, detail, time.time()

    def take_json(self, data):
        try:
            answer = json.loads(data)
        except ValueError:
            raise Malformed('not JSON: %r' % data[:80]) from None
        if self.status in (502, 504):
            self.end(GATEWAY, answer.get('detail', ''))
        elif self.status == 503 and self.path == '/health':
            self.end(ERROR, answer['status'])
        elif self.status >= 400:
            if not isinstance(answer.get('detail'), str) or answer['detail'] == '':
                raise Malformed('an error without detail: %r' % data[:80])
            self.end(ERROR, answer['detail'])
        else:
            self.answer = answer
            self.end(ANSWERED)

    def __repr__(self):
        return '%s %s %s %s %s %s' % (self.word, self.path, self.sent and '%.3f-%.3f' % (self.sent, self.ended or 0),
                                      self.outcome, self.status, self.detail[:100])


class Message(Call):
    """
    sim: the directive for the simulator, or {}. leave_s, leave_chunks: when its client leaves; pause_s: how long it stops
    reading behind the first chunk.
    """

    def __init__(self, word, session, text, sim, streams, **plan):
        super().__init__(word, '/chat/stream' if streams else '/chat')
        self.session, self.text, self.sim, self.streams = session, (word + ' ' + text).rstrip(), sim, streams
        self.leave_s, self.leave_chunks = plan.get('leave_s'), plan.get('leave_chunks')
        self.pause_s, self.hard = plan.get('pause_s'), plan.get('hard', False)
        self.padding = plan.get('padding', 0)
        self.placed = None  # when it was seen to have its place
        self.conversation = self.message_id = None
        self.heard = ''  # the text of the answer

    @property
    def content(self):
        text = self.text + ' ' + '长' * self.padding if self.padding else self.text
        return text + (' sim:' + json.dumps(self.sim, ensure_ascii=False) if self.sim else '')

    @property
    def fields(self):
        return {'message': self.content, 'session_id': self.session.id, 'user_id': self.session.user}

    @property
    def is_healthy(self):
        """Neither its client nor its directive stands in the way of a good answer."""
        return not fails(self.sim) and self.leave_s is None and self.leave_chunks is None

    def take_whole(self, data):
        self.take_json(data)
        if self.outcome == ANSWERED:
            if set(self.answer) != {'response', 'session_id', 'message_id', 'timestamp', 'conversation_id'}:
                raise Malformed('members %s' % sorted(self.answer))
            self.take_answer(self.answer, self.answer['response'])

    def take_answer(self, answer, text):
        if answer['session_id'] != self.session.id:
            raise Malformed('the session of somebody else: %r' % answer['session_id'])
        self.conversation, self.message_id, self.heard = answer['conversation_id'], answer['message_id'], text

    def take_stream(self, data, whole):
        """Holds the events so far against the rules; the last one ends the message, if the stream is whole."""
        events = parse_events(data)
        chunks = [event['data'] for event in events if event['type'] == 'chunk']
        self.heard = ''.join(chunk['content'] for chunk in chunks)
        if [chunk['chunk_index'] for chunk in chunks] != list(range(len(chunks))):
            raise Malformed('chunk_index %s' % [chunk['chunk_index'] for chunk in chunks])
        ends = [event for event in events if event['type'] != 'chunk']
        if len(ends) > 1 or ends and events[-1] is not ends[0]:
            raise Malformed('more than one end, or something behind it')
        if not ends:
            if whole:  # when a worker dies nginx ends what it had begun as if all was well
                self.end(BROKEN, 'a stream without its last event')
            return
        end = ends[0]['data']
        if ends[0]['type'] == 'error':
            self.end(ERROR_EVENT, end['message'])
            return
        if end['full_content'] != self.heard or end['total_chunks'] != len(chunks):
            raise Malformed('full_content is not what the chunks said')
        self.take_answer(end, self.heard)
        self.end(ANSWERED)


def parse_events(data):
    """The events of a stream; a piece at its end that is not complete is left out."""
    events = []
    for line in filter(None, data.split(b'\n')[:-1]):
        try:
            if line[:6] != b'data: ':
                raise ValueError
            event = json.loads(line[6:].decode())
        except ValueError:
            raise Malformed('neither event nor blank line: %r' % line[:80]) from None
        if event.get('type') not in ('chunk', 'complete', 'error'):
            raise Malformed('an event of no type: %r' % line[:80])
        events.append(event)
    return events


class Change(Call):
    """A clear, or a bind to a conversation, of a session."""

    def __init__(self, word, session, conversation):
        kind = 'clear' if conversation is None else 'bind'
        super().__init__(word, '/session/%s/%s' % (urllib.parse.quote(session.id, safe=''), kind),
                         {} if conversation is None else {'conversation_id': conversation}, limit=30)
        self.kind, self.conversation = kind, conversation


class Session:
    def __init__(self, number, odd, kind):
        self.id = 'chaos-%d%s' % (number, ' 会话/%?#&' if odd else '')
        self.user, self.kind = 'user-%d' % number, kind
        self.messages, self.changes = [], []
        self.info = None  # what the service says of it in the end: (status, answer)

    @property
    def path(self):
        return '/session/%s/info' % urllib.parse.quote(self.id, safe='')


# --- what messages make the simulator do -----------------------------------------------------------------------------

def spelling(rng):
    """A stream as it may be spelled, or as it may dawdle; the answer is good."""
    return rng.choice([
        {'crlf': True}, {'comments': True, 'space': False}, {'multi_data': True}, {'unknown_events': True, 'reasoning': True},
        {'escape_unicode': True}, {'split': rng.randint(1, 9)}, {'completed_only': True}, {'noise': False, 'done': 'none'},
        {'done': 'bare'}, {'huge_line_bytes': 100000}, {'fault': 'json_chat', 'gen_ms': rng.randint(1, 1500)},
        {'fault': 'stall', 'stall_ms': 1500}, {'fault': 'stall_done', 'stall_ms': 700}, {'last_error_null': True}])


def failing(rng):
    """A chat that does not end well, whatever is tried."""
    after = {'cut_after': rng.randint(0, 6), 'gap_ms': rng.choice([0, 20])}
    return rng.choice([
        {'fault': 'http', 'http_status': rng.choice([500, 502, 503, 504])}, {'fault': 'http', 'http_status': 502, 'html': True},
        {'fault': 'http', 'http_status': 429, 'retry_after': 1}, {'fault': 'json_error', 'code': rng.choice([4013, 4020, 5000])},
        {'fault': 'json_error', 'code': rng.choice([4014, 4100, 4008])}, {'fault': 'sse_error', 'code': rng.choice([4013, 4020])},
        {'fault': 'raw_json_line', 'code': 4008}, {'fault': 'chat_failed'}, {'fault': 'chat_failed_after_text', **after},
        {'fault': 'cut', **after}, {'fault': 'cut', 'cut_how': 'fin', **after}, {'fault': 'cut', 'cut_after': -1},
        {'fault': 'eof', **after}, {'fault': 'bad_json', **after}, {'fault': 'canceled', **after},
        {'fault': 'stall', 'stall_ms': 9000, **after}, {'fault': 'stall_header', 'stall_ms': 9000}, {'fault': 'empty'},
        {'fault': 'requires_action', **after}, {'fault': 'empty_answer'}])


def fails(sim):
    if sim.get('fault') in ('stall', 'stall_header'):
        return sim['stall_ms'] > 4000
    return sim.get('fault') not in (None, 'json_chat', 'stall_done')


def good(rng):
    return rng.choices([{}, {'gap_ms': rng.randint(1, 40)}, {'gap_ms': rng.randint(50, 120), 'chunks': rng.randint(20, 40)},
                        {'first_ms': rng.randint(100, 2000)}, {'answer_bytes': rng.randint(3000, 200000)}, spelling(rng)],
                       [40, 25, 6, 6, 3, 12])[0]


def plan(rng):
    """(directive, whether it streams, the rest of a message's plan)."""
    streams = rng.random() < 0.5
    kind = rng.choices(['good', 'failing', 'early', 'middle', 'paused', 'paused, gone', 'large'], [78, 8, 5, 5, 1, 1, 2])[0]
    hard = rng.random() < 0.5
    if kind == 'failing':
        return failing(rng), streams, {}
    if kind == 'early':
        return ({'first_ms': rng.randint(0, 1500), 'gap_ms': rng.randint(0, 200)}, streams,
                {'leave_s': rng.random() * rng.choice([0.02, 0.3, 2]), 'hard': hard})
    if kind == 'middle':
        return ({'gap_ms': rng.randint(20, 150), 'chunks': 30}, True,
                {'leave_chunks': rng.randint(1, 12), 'hard': hard})
    if kind.startswith('paused'):
        more = {'leave_chunks': 2, 'hard': hard} if 'gone' in kind else {}
        return {'answer_bytes': rng.randint(500000, 1500000), 'chunks': 60}, True, {'pause_s': rng.uniform(0.5, 4), **more}
    if kind == 'large':
        return {'answer': '答：%d' % rng.getrandbits(60)}, streams, {'padding': rng.randint(20000, 100000)}
    return good(rng), streams, {}


# --- one client ------------------------------------------------------------------------------------------------------

class Connection(Client):
    """As load.Client; `small`: the kernel reads next to nothing ahead."""

    def __init__(self, port, small=False):
        super().__init__(port)
        self.small = small

    async def connect(self):
        link = socket.socket()
        link.setblocking(False)
        if self.small:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        try:
            await asyncio.get_running_loop().sock_connect(link, (self.host, self.port))
            self.reader, self.writer = await asyncio.open_connection(sock=link, limit=SMALL_BUFFER if self.small else 65536)
        except BaseException:
            link.close()
            raise

    async def begin(self, path, body, headers):
        """(status, headers) of an answer whose body is still to be read. Nothing is ever sent twice."""
        if self.writer is None or self.reader.at_eof():
            await self.connect()
        self.writer.write(request(path, body, headers))
        head = await self.reader.readuntil(b'\r\n\r\n')
        if not head.startswith(b'HTTP/1.1 '):
            raise Malformed('no HTTP answer: %r' % head[:200])
        lines = head.decode('latin-1').split('\r\n')
        return int(lines[0].split(' ')[1]), dict(line.lower().split(': ', 1) for line in lines[1:] if ': ' in line)

    async def rest(self, head):
        """The whole body."""
        if head.get('transfer-encoding') == 'chunked':
            return b''.join([chunk async for chunk in read_chunks(self.reader)])
        return await self.reader.readexactly(int(head.get('content-length', 0)))

    def leave(self, hard):
        """Closes: with a reset, or as one who is done."""
        if self.writer is not None and hard:
            with contextlib.suppress(OSError):  # it has been closed by the other side
                self.writer.get_extra_info('socket').setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            self.writer.transport.abort()
        self.close()


BROKEN_BY = (OSError, asyncio.IncompleteReadError, EOFError)


async def perform(connection, call):
    """Sends a request and reads its answer; how it ended is in the call, and nothing is thrown."""
    call.sent = time.time()
    kept = False
    try:
        kept = await asyncio.wait_for(converse(connection, call), call.limit)
    except asyncio.TimeoutError:
        call.end(HUNG, 'no end after %d s' % call.limit)
    except Malformed as why:
        call.end(MALFORMED, str(why))
    except BROKEN_BY as why:
        call.end(BROKEN, '%s %s' % (type(why).__name__, why))
    except (ValueError, KeyError, TypeError, asyncio.LimitOverrunError) as why:
        call.end(MALFORMED, '%s: %s' % (type(why).__name__, why))
    if not kept:
        connection.leave(getattr(call, 'hard', False))


async def converse(connection, call):
    """True when the connection can be used again."""
    leave_s = getattr(call, 'leave_s', None)
    if leave_s is None:
        return await converse_on(connection, call)
    try:
        return await asyncio.wait_for(converse_on(connection, call), leave_s)
    except asyncio.TimeoutError:
        call.end(LEFT)
        return False


async def converse_on(connection, call):
    body = call.fields if isinstance(call, Message) else call.body
    call.status, head = await connection.begin(call.path, body, ['X-Request-ID: ' + call.word])
    call.began_answer = time.time()
    whole = True
    if head.get('content-type', '').startswith('text/event-stream'):
        whole = await listen(connection, call)
    elif isinstance(call, Message):
        call.take_whole(await connection.rest(head))
    else:
        call.take_json(await connection.rest(head))
    return whole and head.get('connection') != 'close'


async def listen(connection, message):
    """True when all has been read."""
    body, count = [], 0
    try:
        async for chunk in read_chunks(connection.reader):
            body.append(chunk)
            count += 1
            if count == 1 and message.pause_s:
                await asyncio.sleep(message.pause_s)
            if count == message.leave_chunks:
                message.take_stream(b''.join(body), whole=False)
                if message.outcome is None:
                    message.end(LEFT)
                return False
    except BROKEN_BY:
        message.take_stream(b''.join(body), whole=False)
        if message.outcome is None:
            raise
        return False
    message.take_stream(b''.join(body), whole=True)
    return True


# --- all of them -----------------------------------------------------------------------------------------------------

class Pacer:
    """At most `rate` turns a second, evenly."""

    def __init__(self, rate):
        self.step, self.next = 1 / rate, 0

    async def turn(self):
        now = time.monotonic()
        self.next = max(self.next + self.step, now)
        await asyncio.sleep(self.next - now)


class Crowd:
    """
    with Crowd(...) as crowd: - clients come and go until the block ends; then `sessions`, `calls` have all that happened.
    conversations: ids of Coze's, one for each bind. limit: within so many seconds each request must have ended.
    """

    SOLO, CROWDS, CROWD, LINES = 26, 4, 3, 4

    def __init__(self, port, redis_port, seed, rate, conversations, limit):
        self.port, self.seed, self.limit = port, seed, limit
        self.redis = redis.asyncio.Redis(port=redis_port, socket_timeout=1, socket_connect_timeout=1)
        self.pacer = Pacer(rate)
        self.conversations = list(conversations)
        self.sessions, self.calls = [], []  # calls: whatever is no message
        self.numbers = itertools.count(1)
        self.stopping, self.tasks, self.errors = False, [], []
        self.late = 0  # seconds that this side itself was late at worst
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)

    messages = property(lambda self: [message for session in self.sessions for message in session.messages])

    def __enter__(self):
        self.thread.start()
        for number in range(self.SOLO):
            self.begin(self.solo, 'solo %d' % number)
        for number in range(self.CROWDS):
            self.begin(self.crowd, 'crowd %d' % number)
        for number in range(self.LINES):
            self.begin(self.line, 'line %d' % number)
        self.begin(self.watch_health, 'health')
        self.begin(self.watch_clock, 'clock')
        return self

    def begin(self, actor, name):
        rng = random.Random('%s:%s' % (self.seed, name))

        async def act():
            try:
                await actor(rng)
            except Exception as error:  # told where the block ends: a bug of this file's
                self.errors.append('%s: %r' % (name, error))
                raise
        self.loop.call_soon_threadsafe(lambda: self.tasks.append(self.loop.create_task(act())))

    def __exit__(self, *_):
        self.stopping = True
        asyncio.run_coroutine_threadsafe(self.finish(), self.loop).result(self.limit + 60)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def finish(self):
        await asyncio.wait(self.tasks)
        await self.redis.close()

    # --- actors ---

    async def solo(self, rng):
        while not self.stopping:
            session = self.new_session(rng, 'solo')
            connection = Connection(self.port)
            for _ in range(rng.randint(4, 16)):
                await self.say(rng, session, connection)
                await self.maybe_change(rng, session)
            connection.close()

    async def crowd(self, rng):
        while not self.stopping:
            session = self.new_session(rng, 'crowd')

            async def member(own):
                connection = Connection(self.port)
                for _ in range(own.randint(3, 8)):
                    await self.say(own, session, connection)
                    await self.maybe_change(own, session)
                connection.close()
            await asyncio.gather(*(member(random.Random(rng.random())) for _ in range(self.CROWD)))

    async def line(self, rng):
        while not self.stopping:
            session, known = self.new_session(rng, 'line'), set()
            for _ in range(rng.randint(2, 4)):
                if not await self.say_in_line(rng, session, rng.randint(2, 6), known):
                    break

    async def say(self, rng, session, connection):
        await self.pacer.turn()
        if self.stopping:
            return
        message = self.new_message(rng, session)
        if message.pause_s or rng.random() < 0.2:
            connection = Connection(self.port, small=message.pause_s is not None)
            await perform(connection, message)
            connection.close()
        else:
            await perform(connection, message)
        if message.outcome in REFUSED:
            await asyncio.sleep(rng.uniform(*AGAIN))

    async def say_in_line(self, rng, session, count, known):
        """known: tickets of the session that were seen. False when nobody can tell any more whose a new one will be."""
        under_way, clear = [], True
        while len(under_way) < count and not self.stopping and clear:
            await self.pacer.turn()
            message = self.new_message(rng, session)
            connection = Connection(self.port, small=message.pause_s is not None)
            under_way.append(asyncio.create_task(perform(connection, message)))
            clear = await self.see_placed(session, message, under_way[-1], known)
        if under_way:
            await asyncio.wait(under_way)
        return clear

    async def see_placed(self, session, message, task, known):
        """Until a new ticket waits for the session, or has it, or the message is over. False when its ticket may still come."""
        while not task.done():
            tickets = await self.tickets(session)
            if tickets is not None and not tickets <= known and not task.done():
                message.placed = time.time()
                known |= tickets
                return True
            await asyncio.wait([task], timeout=0.01)
        tickets = await self.tickets(session)
        return message.outcome in (ANSWERED, ERROR_EVENT) and tickets is not None and tickets <= known

    async def tickets(self, session):
        """Of the session's messages that wait, or run; None when Redis does not say."""
        key = 'coze:{%s}:' % session.id
        try:
            tickets = set(await self.redis.lrange(key + 'waiting', 0, -1))
            turn, until = await self.redis.hmget(key + 'session', 'turn', 'turn_until')
            return tickets | ({turn} if int(until or 0) > 0 else set())
        except (redis.exceptions.RedisError, OSError, asyncio.TimeoutError):
            return None

    async def maybe_change(self, rng, session):
        if rng.random() > 0.06 or self.stopping:
            return
        conversation = self.conversations.pop() if self.conversations and rng.random() < 0.5 else None
        change = Change('x%06d' % next(self.numbers), session, conversation)
        session.changes.append(change)
        connection = Connection(self.port)
        await perform(connection, change)
        connection.close()

    async def watch_health(self, _):
        connection = Connection(self.port)
        while not self.stopping:
            call = Call('h%06d' % next(self.numbers), '/health', limit=30)
            self.calls.append(call)
            await perform(connection, call)
            await asyncio.sleep(0.25)
        connection.close()

    async def watch_clock(self, _):
        while not self.stopping:
            began = time.monotonic()
            await asyncio.sleep(0.1)
            self.late = max(self.late, time.monotonic() - began - 0.1)

    # --- what they need ---

    def new_session(self, rng, kind):
        session = Session(next(self.numbers), kind == 'solo' and rng.random() < 0.1, kind)
        self.sessions.append(session)
        return session

    def new_message(self, rng, session):
        sim, streams, more = plan(rng)
        message = Message('m%06d' % next(self.numbers), session, rng.choice(ODD_TEXTS), sim, streams, **more)
        message.limit = self.limit
        session.messages.append(message)
        return message
