"""
Workers on other machines: nginx here, two machines of workers that share a Redis and nothing else, and one that is cut
off. The machines are network namespaces.
"""
import collections
import json
import time

import pytest

import machines
from load import Load
from redis_server import RedisServer
from service import Service, free_port
from stack import BOT, TOKEN, Sim, directive, wait_for

pytestmark = pytest.mark.skipif(not machines.possible(), reason='needs root and network namespaces')

LIMITS = {'CHAT_TIMEOUT_SECONDS': '5', 'STREAM_TIMEOUT_SECONDS': '20', 'SESSION_LOCK_SECONDS': '2'}


class Site:
    """nginx, Redis and the simulator here, two machines with two workers each."""

    def __init__(self):
        self.network = machines.Network()
        here = self.network.address
        self.names = [self.network.add(), self.network.add()]
        self.redis = RedisServer(requirepass='site-password')
        self.redis.bind = ['127.0.0.1', here]
        self.redis.start()
        self.front = Service(name='cz-', METRICS_LISTEN='127.0.0.1:%d' % free_port())
        self.sim = Sim(self.front.home, SIM_HOST=here, SIM_GAP_MS='5')
        self.sim.control = 'http://%s:%d/_sim' % (here, self.sim.port)
        self.sim.start()
        self.workers = []
        for name in self.names:
            worker = machines.Remote(
                name, WORKERS='2', WORKER_LISTEN='%s:9000' % self.network.address_of(name), COZE_API_TOKEN=TOKEN,
                COZE_BOT_ID=BOT, COZE_BASE_URL='http://%s:%d/v3' % (here, self.sim.port), COZE_MIN_INTERVAL_MS='0',
                REDIS_URL='redis://:site-password@%s:%d' % (here, self.redis.port), **LIMITS)
            self.workers.append(worker)
            worker.up()
        self.addresses = ['%s:%d' % (self.network.address_of(name), port) for name in self.names for port in (9000, 9001)]
        self.front.set(WORKER_ADDRESSES=','.join(self.addresses), **LIMITS)
        self.front.up()

    def served(self):
        """{worker's address: requests to /chat that were answered}, of those that answer."""
        counts = collections.Counter()
        for address in self.addresses:
            status, text = self.metrics(address)
            if status == 200:
                counts[address.split(':')[0]] = sum(int(line.split(' ')[1]) for line in text.splitlines() if
                                                    line.startswith('coze_chat_requests_total{route="/chat",'))
        return counts

    def metrics(self, address):
        front = Service.__new__(Service)  # the same reader, on the port that is for a Prometheus inside
        front.port = int(self.front.env['METRICS_LISTEN'].split(':')[1])
        status, _, body = front.get('/metrics/' + address)
        return status, body.decode()

    def close(self):
        self.sim.stop()  # its directory is within the front's
        for service in [self.front] + self.workers:
            service.close()
        self.redis.close()
        self.network.close()


@pytest.fixture
def site():
    made = Site()
    yield made
    made.close()


def test_all_workers_of_all_machines_serve_every_session(site):
    with Load(site.front.port) as load:
        load.steady(100, clients=32, body=lambda number: {'message': 'hi', 'session_id': 's%d' % (number % 20)})
        load.streams(20, directive('stream', chunks=10, gap_ms=20))
        wait_for(lambda: len(load.times) > 300, 30, 'requests')
        load.stop()
    assert load.failures == []
    served = site.served()
    assert min(served.values()) > sum(served.values()) * 0.2, served
    # Each of the forty sessions has one conversation, wherever its messages went.
    assert len({chat['conversation_id'] for chat in site.sim.chats()}) == 40
    infos = [json.loads(site.front.get('/session/s%d/info' % number)[2]) for number in range(20)]
    assert sum(info['message_count'] for info in infos) == len(load.times)


@pytest.mark.alone  # how much is on its way depends on how long each takes
def test_one_machine_is_cut_off_and_comes_back(site):
    cut, address = site.names[1], site.network.address_of(site.names[1])
    with Load(site.front.port) as load:
        load.steady(100, clients=200)
        wait_for(lambda: len(load.times) > 200, 30, 'requests')
        usual = sorted(load.times)[int(len(load.times) * 0.9)]
        site.network.pull(cut)
        pulled = time.monotonic()
        # Those on their way are lost with the machine, and so is what is sent on kept connections before nginx knows.
        wait_for(lambda: time.monotonic() > pulled + 6, 30, 'six seconds')
        before = len(load.times)
        wait_for(lambda: len(load.times) >= before + 300, 30, 'three hundred more')
        late = sorted(load.times[before:])
        assert late[int(len(late) * 0.99)] < 1.5 + 4 * usual  # one in fail_timeout tries the lost machine for a second
        site.network.plug(cut)
        wait_for(lambda: site.served()[address] > 0, 30, 'its metrics')
        had = site.served()[address]
        wait_for(lambda: site.served()[address] > had + 20, 40, 'its being used again')
        load.stop(60)
    lost = len(load.failures)
    print('lost with the machine: %d of %d' % (lost, len(load.times) + lost))
    assert lost <= 30, load.failures[:5]


def test_a_session_of_a_lost_machine_is_free_within_its_lock_time(site):
    with Load(site.front.port) as load:
        load.streams(8, directive('stream', chunks=60, gap_ms=100), again=False)
        wait_for(lambda: load.open_streams == 8, 20, 'open streams')
        site.network.pull(site.names[1])
        began, taken = time.monotonic(), []
        # The same sessions' next messages: those of the living machine wait for streams of six seconds, those of the lost
        # one for its lock, and for the second that it takes nginx to find out.
        with Load(site.front.port) as other:
            other.streams(8, directive('next', chunks=2, gap_ms=10), again=False)
            while other.finished_streams < 8 and time.monotonic() < began + 30:
                if len(taken) < other.finished_streams:
                    taken.append(time.monotonic() - began)
                time.sleep(0.01)
            other.stop(30)
        assert other.failures == []
        assert taken[0] < 2 + 1 + 3  # lock time, connecting, and some
        site.network.plug(site.names[1])
        load.stop(60)


def test_a_machine_reloads_under_load(site):
    with Load(site.front.port) as load:
        load.steady(100, clients=64)
        load.streams(10, directive('stream', chunks=20, gap_ms=50))
        wait_for(lambda: len(load.times) > 100, 30, 'requests')
        for worker in site.workers * 2:
            worker.reload()
        wait_for(lambda: len(load.times) > 400, 30, 'requests')
        load.stop()
    assert load.failures == []
