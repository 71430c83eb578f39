#!/usr/bin/python3
"""
chaos.py - the service under load while everything around it, and it itself, is killed, stopped, restarted and cut off.

Starts nginx, workers, Redis and a simulated Coze of its own, lets a crowd of clients talk (crowd.py), hurts all parts at random
(faults.py), lets it settle, and judges each request by what Coze saw (oracle.py defines the terms). Prints a table and exits
with 1 if anything was wrong, lost, doubled, in disorder or hung, if a worker crashed, or if memory or descriptors have grown.

chaos.py [NAME=VALUE]...
    SECONDS=60 or MINUTES=10   how long; 1 minute
    SEED=1                     which faults and messages; when each happens also depends on how fast the machine is
    RATE=60                    messages a second at most
    JSON=FILE                  the result for programs, too
    KEEP=DIRECTORY             if it was not good: the logs, and what the judge knew
"""
import collections
import contextlib
import glob
import json
import os
import random
import re
import shutil
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), 'e2e')]

# pylint: disable=wrong-import-position
import crowd as clients
from crowd import ANSWERED, ERROR, ERROR_EVENT, Crowd, LEFT
from faults import Coze, Faults, LANES, Pulse, name_of, nginx_workers, workers_of
from oracle import Judge
from probe import descriptors, is_instrumented, rss_kib
from redis_server import RedisServer
from stack import Stack, wait_for
from test_metrics import busy_gauges, scrape

LOCK_SECONDS, DRAIN_SECONDS = 8, 5
DEADLINES = {'CHAT_TIMEOUT_SECONDS': '15', 'STREAM_TIMEOUT_SECONDS': '20', 'SESSION_WAIT_SECONDS': '12',
             'COZE_CONNECT_TIMEOUT_SECONDS': '2', 'COZE_FIRST_BYTE_TIMEOUT_SECONDS': '4', 'COZE_IDLE_TIMEOUT_SECONDS': '4',
             'COZE_RATE_WAIT_SECONDS': '5', 'DRAIN_TIMEOUT_SECONDS': str(DRAIN_SECONDS), 'STREAM_HEARTBEAT_SECONDS': '1',
             'SESSION_LOCK_SECONDS': str(LOCK_SECONDS)}
LIMIT = 50         # seconds: the longest deadline, the longest that a worker is stopped or gone, and as much for a slow machine
SETTLE = 60        # seconds in which nothing may be left of any turn
CALM = 4           # seconds of load before the first fault
SOCKETS = 3        # descriptors of the master for each worker
# MiB and descriptors that the largest process of a part may have more in the end than before the first fault, under the
# same load. Redis remembers more sessions then; the others vary with what runs just now.
GROWTH = {'master': (2, 1), 'workers': (16, 50), 'nginx': (16, 80), 'Redis': (16, 10)}
FINAL = ['final-%d' % number for number in range(40)]  # messages that must all be answered afterwards


def held_by(pids):
    """(MiB, descriptors) of the processes of a part; of several the most that one has."""
    held = [(0, 0)]
    for pid in filter(None, pids):
        with contextlib.suppress(OSError, KeyError):
            held.append((rss_kib(pid) / 1024, descriptors(pid)))
    return max(mib for mib, _ in held), max(count for _, count in held)


class Chaos:
    """`result` has it all after run()."""

    LOCK_SECONDS = LOCK_SECONDS

    def __init__(self, seconds, seed, rate=60):
        self.seconds, self.seed, self.rate = seconds, seed, rate
        self.faults = Faults()
        self.service_lock = threading.Lock()  # of those who start, stop and reload parts
        self.problems = []
        self.redis = RedisServer()
        self.stack = Stack(tls=True, REDIS_URL=self.redis.url, WORKERS='2', LOG_FORMAT='text', COZE_CHAT_MODE='stream',
                           COZE_MIN_INTERVAL_MS='4', **DEADLINES)
        for name in ('ASAN_OPTIONS', 'UBSAN_OPTIONS'):  # a worker's last words must not end with its master's log
            self.stack.env.setdefault(name, 'log_path=' + os.path.join(self.stack.home, 'sanitizer'))
        self.coze = Coze(self.stack.sim)
        self.stack.sim = self.coze
        port, tls_port = self.coze.port, self.coze.tls_port
        self.base_urls = ['http://127.0.0.1:%d/v3' % port, 'https://localhost:%d/v3' % tls_port]
        self.crowd = self.pulse = self.verdict = None
        self.instrumented = False
        self.held = []  # by part, before the first fault, then each second, and in the end at rest

    # --- the run ---

    def run(self, keep=None):
        self.redis.start()
        try:
            self.stack.start()
            self.hurt()
            self.settle()
            self.judge()
            if keep and not self.good:
                self.keep(keep)
        finally:
            try:
                self.stack.close()
            except AssertionError as error:  # words of messages in files
                self.problems.append(str(error))
            self.redis.close()
        return self

    def hurt(self):
        conversations = self.coze.conversations(int(self.seconds) + 20)
        lanes = [lane(self, number) for number, lane in enumerate(LANES)]
        with Pulse(self.coze) as self.pulse, \
                Crowd(self.stack.port, self.redis.port, self.seed, self.rate, conversations, LIMIT) as self.crowd:
            time.sleep(CALM)
            self.instrumented = any(is_instrumented(pid) for pid in workers_of(self.stack))
            self.held.append(self.measure())
            for lane in lanes:
                lane.start()
            try:
                self.watch(self.seconds)
            finally:
                for lane in lanes:
                    lane.stopping.set()
                for lane in lanes:
                    lane.join()
            self.watch(CALM)
        self.problems += self.crowd.errors + [lane.error for lane in lanes if lane.error]

    def watch(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(min(1, max(0, end - time.monotonic())))
            self.held.append(self.measure())

    def measure(self):
        pids, workers = self.stack.pids(), workers_of(self.stack)
        mib, count = held_by([pids.get('workers')])
        return {'master': (mib, count - SOCKETS * int(self.stack.env['WORKERS'])), 'workers': held_by(workers),
                'nginx': held_by([pids.get('nginx')] + nginx_workers(self.stack)), 'Redis': held_by([self.redis.process.pid])}

    # --- afterwards ---

    def settle(self):
        """All must end by itself: turns, their places, chats at Coze, processes that were replaced."""
        self.expect(lambda: self.stack.call('up').returncode == 0, 'everything running')
        self.expect(lambda: not self.places(), 'no turn holding or waiting for a session')
        self.expect(lambda: self.coze.stats()['running'] == 0, 'no chat running at Coze')
        workers = int(self.stack.env['WORKERS'])
        self.expect(lambda: self.is_at_rest(workers), 'gauges at rest')
        self.expect(lambda: len(self.worker_processes()) == workers, 'no worker but those of the master')
        for session in self.crowd.sessions:
            session.info = self.stack.get(session.path)
        self.answer_all()
        self.held.append(self.measure())  # at rest: whoever still holds something has lost it

    def is_at_rest(self, workers):
        busy = busy_gauges(scrape(self.stack), workers)
        if any(gauge.startswith('breakers') for gauge in busy):  # only a message finds out that Coze is back
            self.stack.chat(FINAL[0])
        return not busy

    def expect(self, condition, what):
        try:
            wait_for(condition, SETTLE, what)
        except AssertionError:
            self.problems.append('after %d s not come true: %s%s' % (SETTLE, what, self.explain(what)))

    def explain(self, what):
        if 'gauges' in what:
            return ' %s' % busy_gauges(scrape(self.stack), int(self.stack.env['WORKERS']))
        if 'session' in what:
            return ' %s' % self.places()
        return ''

    def places(self):
        """Sessions that a turn holds, and places in their queues, that somebody still vouches for."""
        link = self.redis.link()
        seconds, _ = link.time()
        now = seconds * 1000
        keys = [key.decode() for key in link.keys('coze:{*')]
        held = [key for key in keys if key.endswith(':session') and int(link.hget(key, 'turn_until') or 0) > now]
        return held + [key for key in keys if key.endswith(':tickets') and link.zcount(key, now, '+inf')]

    def worker_processes(self):
        return [pid for pid in self.stack.processes() if name_of(pid).startswith('chatd worker')]

    def answer_all(self):
        statuses = collections.Counter(self.stack.chat(word).status_code for word in FINAL)
        if statuses != {200: len(FINAL)}:
            self.problems.append('afterwards messages were not all answered: %s' % dict(statuses))

    def growth(self):
        if self.instrumented:
            return []
        before, after = self.held[0], self.held[-1]
        return ['%s has grown: %.1f MiB, %d descriptors, before %.1f, %d' % (part, *after[part], *before[part])
                for part, (mib, count) in GROWTH.items()
                if after[part][0] > before[part][0] + mib or after[part][1] > before[part][1] + count]

    def judge(self):
        self.problems += self.growth() + self.crashes()
        for session in self.crowd.sessions:
            session.info = (session.info[0], json.loads(session.info[2]))
        self.verdict = Judge(self.crowd, self.faults, self.coze.log(), self.coze.chats(), self.carried(),
                             LOCK_SECONDS, DRAIN_SECONDS, self.pulse.silences).judge(FINAL)

    def crashes(self):
        """Ends of workers that were not our doing."""
        found = []
        for line in self.stack.api_log().splitlines():
            if 'worker_ended' not in line:
                continue
            told = {name: int(re.search(r'\b%s"?[=:](\d+)' % name, line).group(1)) for name in ('worker', 'exit', 'signal')}
            ours = (told['worker'], told['signal']) in self.faults.killed
            if told['exit'] != 0 or told['signal'] != 0 and not ours:
                found.append('a worker crashed: ' + line)
        for name in [os.path.join(self.stack.run_dir, 'logs', 'coze-chatd.stderr')] + glob.glob(self.stack.home + '/sanitizer*'):
            with open(name, encoding='utf-8', errors='replace') as file:
                said = file.read()
            if said:
                found.append('%s: %s' % (os.path.basename(name), said[:4000]))
        return found

    def carried(self):
        """{word: numbers of the workers that nginx gave it to}"""
        carried = {}
        with open(os.path.join(self.stack.run_dir, 'logs', 'nginx_access.log'), encoding='utf-8', errors='replace') as file:
            for line in file:
                word = re.search(r'\breq"?[=:]"?([mxh]\d+)', line)
                if word:
                    carried[word.group(1)] = {int(number) for number in re.findall(r'worker-(\d+)\.sock', line)}
        return carried

    def keep(self, directory):
        """For whoever wants to know why."""
        os.makedirs(directory, exist_ok=True)
        for name in glob.glob(self.stack.run_dir + '/logs/*') + glob.glob(self.stack.home + '/sanitizer*'):
            shutil.copy(name, directory)
        for name, facts in {'coze': self.coze.log(), 'chats': self.coze.chats(), 'faults': [vars(fault) for fault in self.faults.all],
                            'calls': [vars(call) for call in self.crowd.messages + self.crowd.calls],
                            'sessions': [dict(vars(session), changes=[vars(change) for change in session.changes],
                                              messages=[message.word for message in session.messages])
                                         for session in self.crowd.sessions]}.items():
            with open(os.path.join(directory, name + '.json'), 'w', encoding='utf-8') as file:
                file.write('[%s]\n' % ',\n'.join(json.dumps(fact, ensure_ascii=False, default=str) for fact in facts))

    @property
    def good(self):
        return self.verdict is not None and self.verdict.good and not self.problems


# --- what it comes to ------------------------------------------------------------------------------------------------

def kind_of_error(message):
    """Coze's own words and codes, and ours, without what differs from message to message."""
    status = 'event' if message.outcome == ERROR_EVENT else message.status
    return '%s %s' % (status, re.sub(r'\d{6,}', '…', message.detail)[:70])


def recovery(fault, healthy):
    """
    Seconds from the end of a fault until a message that was sent after it was answered, and until a second began in which
    answers came and no errors; None when that was not seen. healthy: (sent, ended, answered) of messages, by `ended`.
    """
    first = next((ended - fault.end for sent, ended, answered in healthy if answered and sent >= fault.end), None)
    begin = fault.end
    for sent, ended, answered in healthy:
        if ended <= begin:
            continue
        if not answered:
            begin = ended
        elif ended > begin + 1:
            return first, begin - fault.end
    return first, None


def recoveries(chaos):
    """{kind: [(first answer, first second without errors)]} of those faults after which no other one struck too soon."""
    healthy = sorted((message.sent, message.ended, message.outcome == ANSWERED) for message in chaos.crowd.messages
                     if message.is_healthy and message.ended)
    healthy.sort(key=lambda one: one[1])
    found = collections.defaultdict(list)
    for fault in chaos.faults.all:
        first, calm = recovery(fault, healthy)
        until = fault.end + max(first or 0, calm or 0)
        alone = not any(other is not fault and other.overlaps(fault.begin, until) for other in chaos.faults.all)
        found[fault.kind].append((first, calm) if alone and calm is not None else None)
    return found


def by_clients(chaos):
    """The faults that clients and single messages were."""
    counts = collections.Counter()
    for message in chaos.crowd.messages:
        if message.outcome == LEFT:
            counts['client left %s' % ('early' if message.leave_chunks is None else 'in the middle')] += 1
        if message.pause_s and message.began_answer:
            counts['client stopped reading'] += 1
        if clients.fails(message.sim):
            counts['one chat failed by Coze'] += 1
    for session in chaos.crowd.sessions:
        for change in session.changes:
            counts['session cleared' if change.kind == 'clear' else 'session bound'] += 1
    return counts


def result_of(chaos):
    """All figures, for JSON."""
    crowd = chaos.crowd
    outcomes = collections.Counter(message.outcome for message in crowd.messages)
    found = recoveries(chaos)
    before, after = chaos.held[0], chaos.held[-1]
    return {
        'seconds': chaos.seconds, 'seed': chaos.seed, 'good': chaos.good, 'messages': len(crowd.messages),
        'sessions': len(crowd.sessions), 'other_requests': len(crowd.calls) + sum(len(s.changes) for s in crowd.sessions),
        'outcomes': dict(outcomes), **{kind: len(findings) for kind, findings in chaos.verdict.findings.items()},
        'findings': chaos.verdict.findings, 'problems': chaos.problems, 'open': dict(chaos.verdict.open),
        'faults': {kind: {'count': len(times), 'recovered_alone': [time for time in times if time]} for kind, times in found.items()},
        'faults_of_clients': dict(by_clients(chaos)),
        'errors': dict(collections.Counter(kind_of_error(message) for message in crowd.messages
                                           if message.outcome in (ERROR, ERROR_EVENT)).most_common()),
        'memory': {part: {'mib': [round(held[part][0], 1) for held in (before, after)] + [round(max(h[part][0] for h in chaos.held), 1)],
                          'descriptors': [held[part][1] for held in (before, after)] + [max(h[part][1] for h in chaos.held)]}
                   for part in GROWTH},
        'late_s': round(crowd.late, 2),
    }


def middle_and_most(values):
    values = sorted(values)
    return '%6.2f %6.2f' % (values[len(values) // 2], values[-1]) if values else '     -      -'


def print_table(result, out=sys.stdout):
    def say(text=''):
        print(text, file=out)

    outcomes, count = result['outcomes'], result['messages']
    say('chaos for %g s, seed %s: %d messages of %d sessions, %.0f a second, and %d other requests' % (
        result['seconds'], result['seed'], count, result['sessions'], count / (result['seconds'] + 2 * CALM), result['other_requests']))
    say('  ' + ', '.join('%s %d' % (kind, outcomes[kind]) for kind in sorted(outcomes, key=outcomes.get, reverse=True)))
    say()
    for kind in ('wrong', 'lost', 'doubled', 'disorder', 'hung'):
        say('%-10s %6d' % (kind, result[kind]))
        for finding in result['findings'][kind][:10]:
            say('    ' + finding)
    say('left open: ' + (', '.join('%s %d' % pair for pair in sorted(result['open'].items())) or 'nothing'))
    say()
    faults = result['faults']
    say('%d faults                       count   recovered: next answer   without errors' % sum(f['count'] for f in faults.values()))
    say('%-30s %5s   %14s %18s' % ('', '', 'median    max', 'median    max  s'))
    for kind in sorted(faults):
        alone = faults[kind]['recovered_alone']
        say('%-30s %5d    %s     %s' % (kind, faults[kind]['count'], middle_and_most([first for first, _ in alone if first is not None]),
                                        middle_and_most([calm for _, calm in alone])))
    for kind, number in sorted(result['faults_of_clients'].items()):
        say('%-30s %5d' % (kind, number))
    say()
    say('errors')
    for kind, number in result['errors'].items():
        say('%7d  %s' % (number, kind))
    say()
    say('held by the largest process    MiB: before   in the end   at most    descriptors: before   in the end   at most')
    for part, held in result['memory'].items():
        say('%-10s %32.1f %12.1f %9.1f %22d %12d %9d' % (part, *held['mib'], *held['descriptors']))
    say('the load itself was %.2f s late at worst' % result['late_s'])
    for problem in result['problems']:
        say('PROBLEM: ' + problem)
    say()
    say('good' if result['good'] else 'NOT GOOD')


def main():
    much = dict(word.split('=', 1) for word in sys.argv[1:])
    seconds = float(much.get('SECONDS') or 60 * float(much.get('MINUTES') or 1))
    seed = much.get('SEED') or str(random.SystemRandom().randrange(10 ** 6))
    print('seed %s (SEED=%s repeats its faults and messages)' % (seed, seed), flush=True)
    chaos = Chaos(seconds, seed, float(much.get('RATE') or 60)).run(much.get('KEEP'))
    result = result_of(chaos)
    if much.get('JSON'):
        with open(much['JSON'], 'w', encoding='utf-8') as file:
            json.dump(result, file, ensure_ascii=False, indent=1)
    print_table(result)
    sys.exit(0 if result['good'] else 1)


if __name__ == '__main__':
    main()
