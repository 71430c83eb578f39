"""
Redis behind Sentinels: the workers find the master by their word and follow it wherever it goes. While there is none,
requests are refused at once; running streams go on, and what they must save reaches the next master.
"""
import contextlib
import glob
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from redis_group import NAME, FakeSentinel, RedisGroup, bulk, words_of_a_sentinel
from redis_server import RedisServer
from service import free_port
from stack import Stack, late, wait_for
from test_redis_trouble import LIMIT, STREAMS, Load, expect_back, expect_saved, streams

pytestmark = pytest.mark.alone


@pytest.fixture
def group():
    with RedisGroup() as group:
        yield group


def start(make_stack, group, **settings):
    settings = {'WORKERS': '2', 'REDIS_SENTINELS': group.addresses, 'SESSION_LOCK_SECONDS': '3', **settings}
    return make_stack(**settings)


def served_by(stack, node):
    """Both connections of both workers lead there, and no connection of a worker anywhere else."""
    return len(node.admin().pubsub_channels('coze:wake:*')) == 2 and stack.chat('m').status_code == 200


def connections(stack, node):
    """How many the workers have with a server."""
    theirs = set()
    for pid in stack.worker_pids():
        for fd in glob.glob('/proc/%d/fd/*' % pid):
            with contextlib.suppress(OSError):
                theirs.add(os.readlink(fd))
    with open('/proc/net/tcp', encoding='utf-8') as file:
        sockets = [line.split() for line in list(file)[1:]]
    return len([fields for fields in sockets if int(fields[2].split(':')[1], 16) == node.port and fields[3] == '01'
                and 'socket:[%s]' % fields[9] in theirs])


def counted(stack, sessions):
    return {session: stack.info(session).json()['message_count'] for session in sessions}


def expect_kept(stack, load, kept):
    """
    `kept`: answers of each session when the replicas had everything. What Redis acknowledged later and had not passed on yet
    when it went is lost, as replication is asynchronous; nothing is counted twice, and from now on everything counts.
    """
    for session, count in counted(stack, load.counts).items():
        assert kept[session] <= count <= load.counts[session], session
    before = counted(stack, load.counts)
    assert all(stack.chat('again', session_id=session).status_code == 200 for session in before)
    wait_for(lambda: counted(stack, before) == {session: count + 1 for session, count in before.items()}, LIMIT + late(),
             'the counts after the failover')


def await_accepted(group, word):
    """Their sessions say so at every server."""
    link = group.master.admin()
    wait_for(lambda: all(link.hget('coze:{%s-%d}:session' % (word, number), 'count') == b'1' for number in range(STREAMS)),
             what='the streams being counted')


def outage(load, since):
    """Seconds between the first and the last refusal."""
    refused = [told for told, status, _ in load.outcomes if status == 503 and told > since]
    return max(refused) - min(refused) if refused else 0


def follow(stack, group, word, trouble):
    """Under load, `trouble` befalls the master: the next one is followed. Returns the old one, and a load that has ended."""
    old = group.master
    with Load(stack) as load, streams(stack, word, gap_ms=100, chunks=45, answer='话' * 45):
        await_accepted(group, word)
        kept = dict(load.counts)
        group.keep()
        began = time.monotonic()
        trouble(old)
        new = group.await_other_master(than=old)
        led = time.monotonic()
        wait_for(lambda: connections(stack, new) == 4, LIMIT + late(), 'the workers at the new master')
        expect_back(stack, led)
        back = time.monotonic()
        wait_for(lambda: load.lasted(1, back), what='a second of load')
    load.check()
    assert load.statuses(back) == {200}, 'errors after the failover'
    assert outage(load, began) < led - began + LIMIT + late()
    expect_saved(stack, word)
    expect_kept(stack, load, kept)
    return old, load


# --- it goes elsewhere ----------------------------------------------------------------------------------------------

def test_the_master_dies(group, make_stack):
    stack = start(make_stack, group)
    pids = stack.worker_pids()
    wait_for(lambda: served_by(stack, group.master), LIMIT + late(), 'both workers listening')
    first, load = follow(stack, group, 'long', lambda master: master.kill())
    assert 503 in load.statuses(), 'nothing happened'
    # And it comes back as a replica, which nobody mistakes for the master.
    first.start()
    master = group.master
    wait_for(lambda: first.follows(master.port), 40, 'the old master as a replica')
    wait_for(lambda: served_by(stack, master) and connections(stack, master) == 4, LIMIT + late())
    assert connections(stack, first) == 0
    assert stack.worker_pids() == pids


def test_the_master_freezes(group, make_stack):
    """It wakes as a master, with what was sent to it before, and is made a replica some time later."""
    stack = start(make_stack, group)
    old, _ = follow(stack, group, 'long', lambda master: master.freeze())
    old.thaw()
    wait_for(lambda: connections(stack, old) == 0, what='the old connections being noticed')
    done = old.admin().info('commandstats')['cmdstat_evalsha']
    with Load(stack) as load:
        wait_for(lambda: old.follows(group.master.port), 40, 'the old master as a replica')
        wait_for(lambda: load.lasted(1, load.outcomes[0][0]), what='a second of load')
    assert load.statuses() == {200}
    assert old.admin().info('commandstats')['cmdstat_evalsha'] == done, 'it was written to'
    assert 'READONLY' not in stack.api_log()


def test_a_planned_failover(group, make_stack):
    """Nothing dies: the old master goes on, and is made a replica some time after the Sentinels have named the new one."""
    stack = start(make_stack, group)
    old, load = follow(stack, group, 'long', lambda master: group.sentinels[0].tell('FAILOVER', NAME))
    refused = [status for _, status, _ in load.outcomes if status != 200]
    assert len(refused) < len(load.outcomes) / 2
    wait_for(lambda: old.follows(group.master.port), 40, 'the old master as a replica')
    for number in range(STREAMS):
        session = group.master.admin().hgetall('coze:{long-%d}:session' % number)
        assert session[b'count'] == b'1' and session[b'turn_until'] == b'0', 'the last write of a stream went elsewhere'


def test_a_master_that_only_we_still_reach(group, make_stack):
    """Nothing breaks and nothing is refused there; but the Sentinels have another one, and what is written is lost."""
    stack = start(make_stack, group)
    old = group.master
    wait_for(lambda: connections(stack, old) == 4, LIMIT + late(), 'the connections of both workers')
    assert stack.chat('m').status_code == 200
    admin = old.admin()
    admin.ping()
    # Who has logged in stays; the Sentinels and replicas are thrown out and cannot come back.
    admin.config_set('requirepass', 'closed')
    for client in admin.client_list():
        if set(client['flags']) & set('S') or client['name'].startswith('sentinel-'):
            admin.client_kill_filter(_id=client['id'])
    old.login = 'closed'
    other = group.await_other_master(than=old)
    named = time.monotonic()
    wait_for(lambda: connections(stack, old) == 0 and connections(stack, other) == 4, LIMIT + late(), 'the switch')
    assert time.monotonic() - named < LIMIT + late()
    expect_back(stack, time.monotonic())
    before = old.admin().info('commandstats')['cmdstat_evalsha']
    assert stack.chat('m', session_id='after').status_code == 200
    assert other.admin().exists('coze:{after}:session')
    assert old.admin().info('commandstats')['cmdstat_evalsha'] == before and old.role() == 'master'


# --- whom to ask ----------------------------------------------------------------------------------------------------

def test_some_sentinels_are_dead_or_frozen(group, make_stack):
    frozen = group.sentinels[0]
    frozen.freeze()
    addresses = '127.0.0.1:%d,%s' % (free_port(), group.addresses)
    began = time.monotonic()
    stack = start(make_stack, group, REDIS_SENTINELS=addresses)
    assert time.monotonic() - began < 5 + late()
    assert served_by(stack, group.master)
    old = group.master
    old.kill()
    group.await_other_master(than=old)
    expect_back(stack, time.monotonic())
    # All of them gone is no reason to leave a master that works.
    for sentinel in group.sentinels[1:]:
        sentinel.kill()
    wait_for(lambda: stack.api_log().count('cause="no Sentinel answers"') == 2, what='the loss being noticed')
    assert [stack.chat('m').status_code for _ in range(6)] == [200] * 6


@pytest.fixture
def masters():
    """Two that have nothing to do with each other."""
    with RedisServer() as first, RedisServer() as second:
        yield first.start(), second.start()


@pytest.fixture
def fakes():
    with contextlib.ExitStack() as stays:
        yield [stays.enter_context(FakeSentinel(None)) for _ in range(3)]


def some_rounds(fake):
    asked = fake.asked
    wait_for(lambda: fake.asked > asked + 8, what='some more rounds')  # two questions of two workers


def test_a_sentinel_that_is_behind(make_stack, masters, fakes):
    """It was cut off together with an old master that is alive, and it is asked first."""
    old, new = masters
    fakes[0].answer = words_of_a_sentinel(old.port, 4)
    fakes[1].answer = fakes[2].answer = words_of_a_sentinel(new.port, 5)
    stack = make_stack(WORKERS='2', REDIS_SENTINELS=','.join(fake.address for fake in fakes))
    wait_for(lambda: connections(stack, new) == 4, LIMIT + late(), 'the right master')
    some_rounds(fakes[0])
    assert connections(stack, new) == 4 and connections(stack, old) == 0
    # Alone it is not believed either, also when the master is gone.
    fakes[1].answer = fakes[2].answer = lambda words: b''
    new.kill()
    some_rounds(fakes[0])
    assert stack.chat('m').status_code == 503 and connections(stack, old) == 0
    assert stack.api_log().count('cause="the Sentinels that answer are behind a failover that was known here"') == 2


def test_sentinels_that_were_set_up_anew(make_stack, masters, fakes):
    """Their epochs begin anew, too: what is behind is believed once nobody says any more what was known."""
    first, second = masters
    for fake in fakes:
        fake.answer = words_of_a_sentinel(first.port, 5)
    stack = make_stack(WORKERS='2', REDIS_SENTINELS=','.join(fake.address for fake in fakes))
    wait_for(lambda: connections(stack, first) == 4, LIMIT + late(), 'the connections of both workers')
    fakes[0].answer = fakes[1].answer = words_of_a_sentinel(second.port, 1)
    some_rounds(fakes[2])
    assert connections(stack, first) == 4
    fakes[2].answer = fakes[0].answer
    wait_for(lambda: connections(stack, second) == 4, LIMIT + late(), 'the switch')
    assert stack.chat('m').status_code == 200 and connections(stack, first) == 0


ODD = {
    'not a list': b'+OK\r\n',
    'nothing': b'*-1\r\n',
    'numbers': b'*2\r\n:1\r\n:2\r\n',
    'no port': bulk('127.0.0.1'),
    'a port beyond': bulk('127.0.0.1', '65536'),
    'a negative port': bulk('127.0.0.1', '-1'),
    'a host with a line end': bulk('127.0.0.1\nforged event=x', '6379'),
    'a host with a NUL': bulk('127.0.0.1\0', '6379'),
    'an empty host': bulk('', '6379'),
    'a long host': bulk('a' * 300, '6379'),
    'two answers': bulk('127.0.0.1', '6379') * 2,
    'an error': b'-ERR \x1b[31mforged\r\n',
    'no Redis': b'HTTP/1.1 400 Bad Request\r\n\r\n',
    'a long text': b'$400000000\r\n' + b'x' * 4000000,
    'a long list': b'*2147483647\r\n' + b'$1\r\nx\r\n' * 1000,
    'long lists': b'*9000\r\n' * 1000,
    'many long texts': b'*9000\r\n' + (b'$500000\r\n' + b'x' * 500000 + b'\r\n') * 4,
    'deep lists': b'*1\r\n' * 1000,
}


PEAK_KIB = 64 * 1024  # of a worker; some 20 MiB is what it takes in peace


def test_hostile_sentinels(group, make_stack):
    """One that talks nonsense changes nothing, and stops nobody, whatever it says."""
    said = []

    def answer(words):
        if words[0] == 'PING':
            return b'+PONG\r\n'
        said.append(list(ODD)[len(said) % len(ODD)])
        return ODD[said[-1]]

    with FakeSentinel(answer) as hostile:
        stack = start(make_stack, group, REDIS_SENTINELS='%s,%s' % (hostile.address, group.addresses))
        pids = stack.worker_pids()
        with Load(stack) as load:
            said.clear()
            wait_for(lambda: set(said) == set(ODD), 30, 'all answers')
        assert load.statuses() == {200} and max(seconds for _, _, seconds in load.outcomes) < late()
        assert connections(stack, group.master) == 4 and stack.worker_pids() == pids
        if 'ASAN_OPTIONS' not in os.environ:  # it keeps what was freed
            assert max(peak_kib(pid) for pid in pids) < PEAK_KIB
        log = stack.api_log()
        assert 'event=x' not in re.sub(r'"(\\.|[^"\\])*"', '""', log) and '\x1b' not in log
        assert log.count(' event=master ') == 2, 'other masters were believed in'


def peak_kib(pid):
    with open('/proc/%d/status' % pid, encoding='utf-8') as file:
        return int(re.search(r'VmHWM:\s+(\d+) kB', file.read())[1])


def test_a_wrong_name(group):
    """The start goes on and says why it takes so long; once the Sentinels know the name, it is done."""
    with Stack(WORKERS='2', REDIS_SENTINELS=group.addresses, REDIS_MASTER_NAME='other') as stack, \
            ThreadPoolExecutor(1) as pool:
        started = pool.submit(stack.start)
        wait_for(lambda: health(stack) is not None, what='the start')
        assert health(stack) == (503, 'unhealthy')
        cause = 'name=other cause="no Sentinel that answers knows a master of this name (REDIS_MASTER_NAME)"'
        wait_for(lambda: stack.api_log().count(cause) == 2, what='a line of each worker')
        assert stack.chat('m').status_code == 503
        for sentinel in group.sentinels:
            sentinel.monitor('other', group.master.port)
        started.result()
        wait_for(lambda: {health(stack) for _ in range(4)} == {(200, 'healthy')}, LIMIT + late(), 'both workers')
        assert stack.api_log().count(cause) == 2


def health(stack):
    try:
        answer = requests.get(stack.url + '/health', timeout=10)
    except requests.exceptions.ConnectionError:
        return None
    return answer.status_code, answer.json().get('status')


# --- who may ask ----------------------------------------------------------------------------------------------------

def test_passwords(make_stack):
    """User, password and db are REDIS_URL's, whose host is nobody; the Sentinels have a password of their own."""
    with RedisGroup(password='geheim-eins', sentinel_password='geheim: @/zwei%') as group:
        stack = start(make_stack, group, REDIS_URL='redis://:geheim-eins@unused/3',
                      REDIS_SENTINEL_PASSWORD='geheim: @/zwei%')
        assert stack.chat('m', session_id='db').status_code == 200
        assert group.master.admin(db=3).exists('coze:{db}:session')
        old = group.master
        old.kill()
        group.await_other_master(than=old)
        expect_back(stack, time.monotonic())
        assert stack.chat('m', session_id='db').json()['response'].count('第 2 轮') == 1
        for name in glob.glob(os.path.join(stack.run_dir, 'logs', '*')):
            with open(name, encoding='utf-8', errors='replace') as file:
                assert 'geheim' not in file.read(), name
