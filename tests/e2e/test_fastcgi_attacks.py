"""
What normal clients notice of peers that misuse a worker's own socket, unix or TCP: nothing. Such peers send what no nginx
would (fastcgi_attacks.py) to the only worker, while neighbours chat, stream and ask for /health through nginx. Afterwards it is the same
process, answers what is well-formed, and holds no more memory or descriptors than before.
"""
import json
import resource

import pytest

import fastcgi
import probe
import test_attacks
from fastcgi_attacks import mutants
from neighbours import Attacker
from redis_server import RedisServer
from service import Service, free_port
from stack import Stack, wait_for
from test_attacks import KEY, attack, skip_slow_workers

pytestmark = pytest.mark.alone

neighbours = test_attacks.neighbours  # the fixture, for this file's stack

SEED = 20260  # of everything that is made by chance here
CASES = 10000
SIM = {'SIM_PLAIN': 1, 'SIM_LOG': 0}


class TcpStack(Stack):
    """nginx and its one worker, which listens on TCP: as on two machines."""

    def __init__(self, **settings):
        port = free_port()
        super().__init__(WORKER_ADDRESSES='127.0.0.1:%d' % port, **settings)
        self.redis = RedisServer().start()
        self.machine = Service(name='cz-', WORKERS='1', WORKER_LISTEN='127.0.0.1:%d' % port, REDIS_URL=self.redis.tcp_url,
                               API_KEYS=KEY, **self.sim.settings)
        self.worker_port = port

    def start(self):
        self.sim.start()
        self.machine.up()
        self.up()
        return self

    def stop_all(self):
        self.down()
        self.machine.close()
        self.sim.stop()
        self.redis.close()

    def pids(self):
        return {**self.machine.pids(), **super().pids()}


@pytest.fixture(scope='module', params=['unix', 'tcp'])
def stack(request):
    """With `peer`: how an attacker reaches its worker, as path or port."""
    kind = Stack if request.param == 'unix' else TcpStack
    with kind(sim=SIM, WORKERS='1', API_KEYS=KEY, CLIENT_EXEMPT_NETWORKS='none').start() as stack:
        stack.pid, = stack.worker_pids()
        stack.transport = request.param
        stack.peer = fastcgi.worker_socket(stack) if request.param == 'unix' else stack.worker_port
        yield stack


@pytest.fixture
def worker(stack):
    """The stack. Afterwards its worker is the same and well."""
    yield stack
    assert stack.worker_pids() == [stack.pid], 'the worker died'
    assert_serves(stack)


@pytest.fixture
def others(worker, neighbours):  # pylint: disable=redefined-outer-name
    """Its neighbours, whom nothing may happen."""
    skip_slow_workers(worker)
    yield neighbours
    assert neighbours.failures == []


def assert_serves(stack):
    for method, uri, body, right in (('GET', '/health', b'', 200), ('POST', '/chat', b'{"message":"hi"}', 200),
                                     ('POST', '/chat', b'{', 400), ('GET', '/nothing', b'', 404)):
        with fastcgi.Link(stack.peer) as link:
            link.send(fastcgi.request(method, uri, body, HTTP_X_API_KEY=KEY))
            status, headers, answer = link.answer()
        assert status == right, answer
        assert headers['Content-Type'] == 'application/json' and json.loads(answer)


def kind(stack, name, **much):
    """The words of an attack, see attack()."""
    path = stack.transport == 'unix'
    return 'fastcgi_attacks.' + name, 0 if path else stack.peer, {**({'path': stack.peer} if path else {}), 'key': KEY, **much}


def throw(stack, count, **more):
    """What became of so many mutants, as fast as they go; they have ended."""
    name, port, much = kind(stack, 'Mutants', seed=SEED, count=count, rate=10000, nice=0, **more)
    with Attacker(name, port, 200, **much) as mutated:
        mutated.process.wait(240)
    assert mutated.met['cases'] == count and mutated.met['open at the end'] == 0, mutated.met
    assert not [status for status in mutated.met if status.startswith('5')], mutated.met
    return mutated.met


def test_requests_with_something_wrong(worker):
    """Ten thousand different ones, by chance; a part of them over TCP, too."""
    count = CASES if worker.transport == 'unix' else CASES // 5
    met = throw(worker, count)
    print('\nseed %d: %s' % (SEED, met))
    assert met['closed'] > count / 2
    assert {status for status in met if status.isdigit()} >= {'200', '400', '401', '404', '405'}


def test_nobody_notices_them(worker, others):
    with attack(worker, others, 'mutants, ' + worker.transport,
                kind(worker, 'Mutants', seed=SEED + 1, count=CASES, rate=1000)) as (mutated,):
        pass
    assert mutated.met['closed'] > 100


def test_the_same_seed_gives_the_same_cases():
    once, again, other = [list(mutants(seed, 300)) for seed in (SEED, SEED, SEED + 1)]
    assert once == again != other
    assert len({data for data, _ in once}) == 300


def test_thousands_of_connections(worker, others):
    """At once, and left: silent ones, parts of a request, and kept ones."""
    count = min(4000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 1000)
    before = probe.rss_kib(worker.pid)
    with attack(worker, others, 'idle, ' + worker.transport, kind(worker, 'Idle', count=count, nice=0),
                seconds=7) as (idle,):
        wait_for(lambda: probe.descriptors(worker.pid) > count * 0.9, 20, 'all accepted')
        assert probe.rss_kib(worker.pid) - before < count * 4
    assert idle.met['open at the end'] == count and idle.met['200'] >= count // 4
    assert idle.met['closed'] > 100, 'parts of requests were not given up'


def test_requests_by_the_byte(worker, others):
    with attack(worker, others, 'drip, ' + worker.transport, kind(worker, 'Drip', count=300), seconds=6) as (drip,):
        pass
    assert drip.met['bytes'] > 1000
    assert drip.met['closed'] > 20, 'they were waited for'


def test_peers_that_leave(worker, others):
    with attack(worker, others, 'leavers, ' + worker.transport, kind(worker, 'Leavers', rate=300)) as (leavers,):
        pass
    assert leavers.met['left'] > 300


def test_heavy_heads_and_bodies(worker, others):
    with attack(worker, others, 'bombs, ' + worker.transport, kind(worker, 'Bombs', rate=50)) as (bombs,):
        pass
    assert bombs.met['closed'] > 50
    assert not [status for status in bombs.met if status.startswith('5')], bombs.met


def test_nothing_is_left(worker):
    """Of the attacks above, nor of more of the same."""
    def again():
        throw(worker, 1000, silent=0)
        # Some are nginx', for the neighbours; of a round's none may stay.
        wait_for(lambda: probe.descriptors(worker.pid) < 300, 20, 'the closing of descriptors')
        return probe.rss_kib(worker.pid)

    first = max(again() for _ in range(3))
    last = min(again() for _ in range(5))
    assert last - first < 512 or probe.is_instrumented(worker.pid), (first, last)
