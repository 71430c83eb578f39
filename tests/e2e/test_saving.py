"""
What a client was told stays true: an answer leaves when its turn's end is in Redis' socket, and from then on the death of
the worker takes nothing back, and no other worker knows less.
"""
import json
import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

import fastcgi
from redis_server import RedisServer
from service import TOP
from stack import directive, wait_for

READS = 1000


@pytest.fixture
def server():
    with RedisServer() as server:
        yield server.start()


def ask(stack, worker, method, path, **body):
    status, _, text = fastcgi.ask(fastcgi.worker_socket(stack, worker), method, path, json.dumps(body).encode() if body else b'')
    assert status == 200, text
    return json.loads(text)


def session_of(server, session):
    return {name.decode(): value.decode() for name, value in server.link().hgetall('coze:{%s}:session' % session).items()}


def gave_up(stack):
    """How often a worker has waited for Redis in vain."""
    return stack.api_log().count('a command was not answered in time')


def answer_while_frozen(stack, server, session, meanwhile=lambda: None, first_ms=2000):
    """
    A whole chat; Redis hears of its beginning and of its first sign of life, and is frozen before it ends. The next sign of
    life is seconds away, so until then nothing waits for Redis.
    """
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, stack, 0, 'POST', '/chat', message=directive('hi', first_ms=first_ms), session_id=session)
        wait_for(lambda: server.link().zscore('coze:{index}:sessions', session), what='the sign of life')
        server.link().ping()  # by now that has been answered, too
        server.freeze()
        meanwhile()
        return answer.result()


def test_a_killed_worker_takes_nothing_back(server, make_stack):
    stack = make_stack(WORKERS='2', REDIS_URL=server.url, SESSION_LOCK_SECONDS='60')
    answer = answer_while_frozen(stack, server, 's')
    assert not gave_up(stack), 'it was told when Redis was given up'
    for worker in stack.worker_pids():
        os.kill(worker, signal.SIGKILL)
    server.thaw()
    wait_for(lambda: session_of(server, 's')['turn_until'] == '0', what='the end')
    saved = session_of(server, 's')
    assert (saved['count'], saved['conversation']) == ('1', answer['conversation_id'])
    wait_for(lambda: stack.get('/health')[0] == 200, what='new workers')
    assert ask(stack, 1, 'POST', '/chat', message='again', session_id='s')['conversation_id'] == answer['conversation_id']


@pytest.mark.parametrize('why', ['Redis is elsewhere', 'Redis has more to answer'])
def test_what_is_not_certain_is_waited_for(server, make_stack, why):
    """
    What was written to a network has not arrived. And a Redis that cannot answer an earlier command of a worker that has died
    closes the connection, whatever else there is to read.
    """
    stack = make_stack(WORKERS='2', REDIS_URL=server.tcp_url if why == 'Redis is elsewhere' else server.url)
    links = []

    def ask_more():
        if why == 'Redis has more to answer':
            links.append(fastcgi.Link(fastcgi.worker_socket(stack, 0)))
            links[0].send(fastcgi.request('GET', '/session/other/info'))

    answer_while_frozen(stack, server, 's', ask_more)
    assert gave_up(stack)
    server.thaw()
    wait_for(lambda: session_of(server, 's').get('count') == '1', what='the count')


def test_other_workers_know_when_redis_wakes(server, make_stack):
    """
    The other worker's connection is served first, as it had something to say before the end came; and what it asks after
    that is there as well.
    """
    stack = make_stack(WORKERS='2', REDIS_URL=server.url)
    links = []

    def send(path):
        links.append(fastcgi.Link(fastcgi.worker_socket(stack, 1)))
        links[-1].send(fastcgi.request('GET', path))

    told = 0
    for number in range(50):
        session, before = 's-%d' % number, gave_up(stack)
        answer = answer_while_frozen(stack, server, session, lambda: send('/session/other/info'), first_ms=700)
        for path in ('/session/%s/info' % session, '/sessions?limit=1', '/conversation/%s/session' % answer['conversation_id']):
            send(path)
        server.thaw()
        _, info, sessions, found = [json.loads(link.answer()[2]) for link in links]
        links.clear()
        if gave_up(stack) > before:  # a machine so busy that Redis was frozen for too long
            wait_for(lambda: {fastcgi.ask(fastcgi.worker_socket(stack, worker), 'GET', '/health')[0] for worker in range(2)} == {200})
            continue
        assert info['message_count'] == 1 and info['conversation_id'] == answer['conversation_id']
        assert [one['session_id'] for one in sessions['sessions']] == [session] == [found['session_id']]
        assert sessions['sessions'][0]['last_activity'] == info['last_activity'] == found['session_info']['last_activity']
        told += 1
        if told == 5:
            break
    assert told == 5


def test_other_workers_know_at_once(make_stack):
    stack = make_stack(WORKERS='2')
    counts = [0] * 20
    choose = random.Random(1)
    for number in range(READS):
        session = choose.randrange(len(counts))
        counts[session] += 1
        answer = ask(stack, number % 2, 'POST', '/chat', message='hi', session_id='s-%d' % session)
        info = ask(stack, 1 - number % 2, 'GET', '/session/s-%d/info' % session)
        assert (info['message_count'], info['conversation_id']) == (counts[session], answer['conversation_id'])
        if number % 10 == 0:
            listed = ask(stack, 1 - number % 2, 'GET', '/sessions?limit=1')
            assert listed['sessions'][0]['session_id'] == 's-%d' % session


# --- the script that saves ---


class Turns:
    """Random histories of one session, told to session_save.lua late, again and in disorder, and what must come of them."""

    def __init__(self, link, choose, session):
        self.link, self.choose = link, choose
        self.keys = ['coze:{%s}:%s' % (session, part) for part in ('session', 'waiting', 'tickets')]
        self.scripts = {}
        for name in ('begin', 'save', 'clear', 'bind'):
            with open(os.path.join(TOP, 'redis', 'session_%s.lua' % name), encoding='utf-8') as file:
                self.scripts[name] = link.register_script(file.read())
        self.made = 0
        self.counted, self.latest, self.conversation, self.epoch = set(), 0, '', None

    def begin(self):
        """A turn that is lost by its worker: the next begins, as if its time had lapsed."""
        self.link.hset(self.keys[0], 'turn_until', 0)
        self.made += 1
        ticket = '%d@nobody' % self.made
        lines = self.scripts['begin'](self.keys, ['', 86400000, ticket, 10000]).decode().split('\n')
        assert lines[0] == 'ok' and int(lines[2]) == self.made
        assert lines[5] == self.conversation
        self.epoch = self.epoch or lines[1]
        assert self.epoch == lines[1]
        return ticket, lines[1], lines[2], 'c%d' % self.choose.randrange(5), lines[3]

    def save(self, turn, over):
        ticket, epoch, number, conversation, now = turn
        self.scripts['save'](self.keys, [ticket, epoch, number, conversation, '', int(now) + 5, 86400000, int(over)])
        if epoch.split('.')[0] != self.epoch.split('.')[0]:
            return
        self.counted.add(number)
        if int(number) > self.latest:
            self.latest = int(number)
            if epoch == self.epoch:
                self.conversation = conversation

    def change(self):
        if self.choose.random() < 0.5:
            self.scripts['clear'](self.keys[:1], [86400000])
            self.counted, self.conversation = set(), ''
        else:
            self.conversation = 'bound'
            self.scripts['bind'](self.keys[:1], ['bound', 86400000])
        self.epoch = self.link.hget(self.keys[0], 'epoch').decode()

    def check(self):
        count, conversation = self.link.hmget(self.keys[0], 'count', 'conversation')
        assert int(count or 0) == len(self.counted)
        assert (conversation or b'').decode() == self.conversation


def test_saving_late_again_and_in_disorder(server):
    """Each accepted message counts once, and the latest turn decides on the conversation, whatever comes when."""
    for seed in range(150):
        choose = random.Random(seed)
        turns = Turns(server.link(), choose, 'seed-%d' % seed)
        open_turns = []
        for _ in range(60):
            if choose.random() < 0.4 or not open_turns:
                open_turns.append(turns.begin())
            else:
                turns.save(choose.choice(open_turns), choose.random() < 0.5)
            if len(open_turns) > 6 or choose.random() < 0.1:
                open_turns.pop(0)  # never accepted, or never said again
            if choose.random() < 0.04:
                turns.change()
            turns.check()


@pytest.mark.parametrize('lost', [1, 3, 19, 21, 500])
@pytest.mark.parametrize('running', [False, True])
def test_saving_to_a_redis_that_has_fallen_back(server, running, lost):
    """
    A replica that lagged, or a file that lacks the last second, does not know the turns that were granted last. What comes in
    of them counts once, and so does each message from then on.
    """
    turns = Turns(server.link(), random.Random(lost), 's')

    def count():
        return int(server.link().hget(turns.keys[0], 'count'))

    for _ in range(5):
        turns.save(turns.begin(), True)
    old = server.link().dump(turns.keys[0])
    for _ in range(lost - 1):
        turns.save(turns.begin(), True)
    late = turns.begin()
    server.link().restore(turns.keys[0], 86400000, old, replace=True)
    turns.made, turns.conversation = 5, server.link().hget(turns.keys[0], 'conversation').decode()
    assert count() == 5
    if running:
        turn = turns.begin()
    turns.save(late, True)
    turns.save(late, True)
    assert count() == 6
    if running and lost > 1:  # else they are one and the same number
        turns.save(turn, True)
        turns.save(turn, True)
        turns.save(late, True)
        assert count() == 7
    before, turns.conversation = count(), server.link().hget(turns.keys[0], 'conversation').decode()
    turns.made = 5 + lost
    for more in range(1, 30):
        turn = turns.begin()
        turns.save(turn, True)
        turns.save(turn, True)
        assert count() == before + more
