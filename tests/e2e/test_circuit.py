"""
While Coze is down, its circuit is open: nobody waits for it, and one request at a time finds out when it is back.
"""
import threading
from concurrent.futures import ThreadPoolExecutor

import requests

from outcomes import Outcome, starts
from stack import late, wait_for

ROUTES = ['/chat', '/chat/stream']
LATE = 700  # ms that a busy machine may add


def health(stack):
    answer = requests.get(stack.url + '/health', timeout=10)
    return answer.status_code, answer.json()['status']


def open_circuit(stack):
    """Coze answers 503 to all; until one worker's circuit is open."""
    stack.sim.default(http_status=503)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: stack.chat('down'), range(8)))
    assert {answer.status_code for answer in answers} == {503}
    assert health(stack) == (200, 'degraded')


def test_the_circuit_opens_and_answers_come_at_once(make_stack):
    stack = make_stack(WORKERS='1')
    assert stack.chat('before', session_id='kept').status_code == 200
    assert health(stack) == (200, 'healthy')
    open_circuit(stack)
    # 200 messages would take longer than its first pause on a busy machine, and one of them would be a probe.
    before, times = len(starts(stack)), []
    for number in range(20):
        outcome = Outcome(stack, ROUTES[number % 2], 'refused')
        assert outcome.status == 503 and int(outcome.headers['Retry-After']) >= 1 and outcome.detail, outcome
        times.append(outcome.seconds)
    assert sorted(times)[len(times) // 2] < 0.1 * late(), 'half of the refusals took longer: %r' % times
    assert len(starts(stack)) - before <= 1
    # All that does not need Coze goes on.
    assert stack.info('kept').json()['message_count'] == 1
    assert requests.post(stack.url + '/session/kept/clear', timeout=10).status_code == 200


def test_one_probe_at_a_time_closes_it(make_stack):
    """Many clients keep asking; Coze first stays silent, which counts as down, and then is back."""
    stack = make_stack(WORKERS='1', COZE_FIRST_BYTE_TIMEOUT_SECONDS='1.5')
    open_circuit(stack)
    wait_for(lambda: all(entry['status'] for entry in starts(stack)), what='the end of the first requests')
    before = len(starts(stack))
    stack.sim.default(fault='stall_header', stall_ms=6000)
    over = threading.Event()

    def client(number):
        seen = []
        while not over.is_set():
            seen.append(Outcome(stack, ROUTES[number % 2], 'probe'))
        return seen

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client, number) for number in range(8)]
        try:
            wait_for(lambda: any(entry['ended'] for entry in starts(stack)[before:]), 10, 'the end of the first probe')
            assert health(stack) == (200, 'degraded')
            stack.sim.default(first_ms=300)
            wait_for(lambda: health(stack) == (200, 'healthy'), 12, 'the closing of the circuit')
        finally:
            over.set()
        outcomes = [outcome for one in clients for outcome in one.result()]
    assert all(outcome.good or outcome.status == 503 for outcome in outcomes)
    assert max(outcome.seconds for outcome in outcomes) < 2 + late()
    probes = starts(stack)[before:]
    failed, good = probes[0], probes[1]
    # One that failed; after a longer pause one that did not; and only then the others.
    assert 1900 <= failed['t_ms'] - starts(stack)[before - 1]['t_ms'] + LATE
    assert good['t_ms'] - failed['t_ms'] >= 4000
    assert all(entry['t_ms'] - good['t_ms'] >= 290 for entry in probes[2:])
    assert stack.chat('after').status_code == 200


def test_a_probe_whose_client_leaves_is_not_missed(make_stack):
    stack = make_stack(WORKERS='1', COZE_FIRST_BYTE_TIMEOUT_SECONDS='10')
    open_circuit(stack)
    stack.sim.default(fault='stall_header', stall_ms=8000)
    before = len(starts(stack))

    def probe():
        link = stack.connect('/chat', 'probe')
        if len(starts(stack)) > before:
            return link
        link.settimeout(10)
        answered = wait_for(lambda: len(starts(stack)) > before or b' 503 ' in link.recv(65536), what='a refusal')
        assert answered
        if len(starts(stack)) > before:
            return link
        link.close()
        return None

    link = wait_for(probe, 10, 'a probe')
    link.close()
    stack.sim.default()
    wait_for(lambda: stack.chat('next').status_code == 200, 3, 'another probe')
    assert health(stack) == (200, 'healthy')
