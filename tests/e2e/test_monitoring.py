"""env/monitoring: Prometheus accepts it, every alert fires when it should, and all that is asked for exists in a live /metrics."""
import glob
import http.server
import json
import os
import re
import subprocess
import threading
import time

import pytest
import requests

from promql import parse, parse_metrics
from service import TOP, free_port
from stack import directive, wait_for

MONITORING = os.path.join(TOP, 'env', 'monitoring')
ALERTS = os.path.join(MONITORING, 'alerts.yml')
ALERTS_TEST = os.path.join(TOP, 'tests', 'e2e', 'alerts_test.yml')
TARGET_LABELS = {'instance', 'job'}  # given by Prometheus
PROMETHEUS_OWN = {'up', 'ALERTS'}


def read(*path):
    with open(os.path.join(*path), encoding='utf-8') as file:
        return file.read()


def promtool(*words, **options):
    done = subprocess.run(['promtool', *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
                          **options)
    assert done.returncode == 0, done.stdout
    return done.stdout


def dashboard():
    return json.loads(read(MONITORING, 'grafana', 'dashboards', 'dashboard.json'))


def panels():
    for panel in dashboard()['panels']:
        yield from panel.get('panels') or []
        yield panel


def plain(expression, interval='1m'):
    """Grafana's variables filled in."""
    return expression.replace('$__rate_interval', interval).replace('$instance', '.+')


def dashboard_queries():
    """[(where, expression, legend)]"""
    found = [(panel['title'], plain(target['expr']), target.get('legendFormat', ''))
             for panel in panels() for target in panel.get('targets', [])]
    found += [('annotation ' + one['name'], plain(one['expr']), one.get('titleFormat', ''))
              for one in dashboard()['annotations']['list'] if 'expr' in one]
    return found


def alert_rules():
    """[(name, expression, everything of it)], as promtool reads the file."""
    rules = re.split(r'(?m)^\s*- alert: ', read(ALERTS))[1:]
    found = []
    for rule in rules:
        match = re.match(r'(\w+)\n\s*expr: (?:>-\n)?(.*?)\n\s*(?:for|labels):', rule, re.S)
        assert match, rule
        found.append((match[1], match[2], rule))
    return found


def test_prometheus_accepts_configuration_and_rules():
    promtool('check', 'config', os.path.join(MONITORING, 'prometheus.yml'))
    assert '%d rules found' % len(alert_rules()) in promtool('check', 'rules', '--lint=all', '--lint-fatal', ALERTS)


def test_prometheus_accepts_the_example_for_one_machine(tmp_path):
    text = read(MONITORING, 'prometheus.yml')
    jobs, one_machine = text.split('  # One machine', 1)
    jobs = jobs.split('scrape_configs:')[0]
    (tmp_path / 'key').write_text('secret')
    (tmp_path / 'alerts.yml').write_text(read(ALERTS))
    example = re.sub(r'(?m)^  # ', '  ', one_machine.split('\n', 1)[1]).replace('/etc/prometheus/admin_api_key', 'key')
    (tmp_path / 'prometheus.yml').write_text(jobs + 'scrape_configs:\n' + example)
    promtool('check', 'config', str(tmp_path / 'prometheus.yml'))


def test_every_alert_fires_when_it_should_and_not_before():
    promtool('test', 'rules', ALERTS_TEST)
    tested = set(re.findall(r'\bCozeChat\w+', read(ALERTS_TEST)))
    assert tested == {name for name, _, _ in alert_rules()}


def test_every_query_of_the_dashboard_is_promql(tmp_path):
    rules = [{'record': 'query:%d' % number, 'expr': query} for number, (_, query, _) in enumerate(dashboard_queries())]
    file = tmp_path / 'rules.yml'
    file.write_text(json.dumps({'groups': [{'name': 'dashboard', 'rules': rules}]}))  # JSON is YAML
    assert '%d rules found' % len(rules) in promtool('check', 'rules', str(file))


def test_the_dashboard_is_in_order():
    """Ids are unique, no panel lies on another, each says its unit and asks the chosen Prometheus."""
    cells, ids = set(), set()
    for panel in panels():
        assert panel['id'] not in ids
        ids.add(panel['id'])
        place = panel['gridPos']
        mine = {(x, y) for x in range(place['x'], place['x'] + place['w']) for y in range(place['y'], place['y'] + place['h'])}
        assert place['x'] + place['w'] <= 24 and not mine & cells, panel['title']
        cells |= mine
        if panel['type'] != 'row':
            assert panel['targets'] and panel['datasource']['uid'] == '${datasource}', panel['title']
            assert 'unit' in panel['fieldConfig']['defaults'] or panel['type'] == 'heatmap', panel['title']
    variables = {variable['name'] for variable in dashboard()['templating']['list']}
    assert {name for name in re.findall(r'\$\{?([a-z]\w*)', json.dumps(dashboard()))} == variables


def test_the_data_source_is_the_one_of_compose():
    assert 'uid: prometheus' in read(MONITORING, 'grafana', 'datasources', 'prometheus.yml')
    assert glob.glob(os.path.join(MONITORING, 'grafana', 'dashboards', '*.yml'))


# --- against a live service ------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def busy(make_module_stack):
    """A stack that has seen good and bad days."""
    stack = make_module_stack(WORKERS='2', COZE_MAX_RETRIES='1', SESSION_WAIT_SECONDS='0.2')
    make_traffic(stack)
    return stack


def make_traffic(stack):
    for number in range(4):
        assert stack.chat('你好', session_id='s%d' % number).status_code == 200
        stack.events('你好', session_id='s%d' % number)
        assert stack.info('s%d' % number).status_code == 200
    assert stack.info('nobody').status_code == 404
    assert stack.chat(directive(code=4100)).status_code == 500
    assert stack.chat(directive(http_status=500)).status_code == 503
    link = stack.connect('/chat/stream', directive(gap_ms=200))
    assert b'"chunk"' in link.recv(65536) + link.recv(65536)
    link.close()
    wait_for(lambda: 'result="left"} 0' not in scrape(stack), what='the client that left')


def scrape(stack):
    answer = requests.get(stack.url + '/metrics', timeout=10)
    assert answer.status_code == 200
    return answer.text


def test_the_metrics_are_as_prometheus_wants_them(busy):
    promtool('check', 'metrics', input=scrape(busy))


@pytest.mark.parametrize('what', ['alerts', 'dashboard'])
def test_whatever_is_asked_for_exists(busy, what):
    """Each metric; each label on every metric that it is asked of; each value that a label is compared with."""
    live = parse_metrics(scrape(busy))
    if what == 'alerts':
        asked = [(name, query, ' '.join(re.findall(r'\$labels\.(\w+)', rule))) for name, query, rule in alert_rules()]
    else:
        asked = [(where, query, ' '.join(re.findall(r'\{\{(\w+)\}\}', legend))) for where, query, legend in dashboard_queries()]
    assert asked
    for where, query, shown in asked:
        metrics, labels = parse(query)
        assert metrics, where
        for metric, matchers in metrics:
            if metric in PROMETHEUS_OWN:
                continue
            assert metric in live, '%s: there is no %s' % (where, metric)
            series = live[metric]
            for label in (labels | {matcher[0] for matcher in matchers} | set(shown.split())) - TARGET_LABELS:
                assert all(label in one for one in series), '%s: %s has no %s' % (where, metric, label)
            for label, operator, value in matchers:
                if label not in TARGET_LABELS:
                    pattern = re.escape(value) if operator in ('=', '!=') else value
                    assert any(re.fullmatch(pattern, one[label]) for one in series), \
                        '%s: no %s has %s=%r' % (where, metric, label, value)


class Prometheus:
    """A real one that asks a stack each second."""

    def __init__(self, directory, config):
        self.port = free_port()
        self.directory = str(directory)
        with open(self.directory + '/prometheus.yml', 'w') as file:
            file.write(config)
        self.log = open(self.directory + '/log', 'wb')
        self.process = subprocess.Popen(
            ['prometheus', '--config.file=%s/prometheus.yml' % directory, '--storage.tsdb.path=%s/data' % directory,
             '--web.listen-address=127.0.0.1:%d' % self.port], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def query(self, expression):
        try:
            answer = requests.post('http://127.0.0.1:%d/api/v1/query' % self.port, data={'query': expression}, timeout=20)
        except requests.ConnectionError:
            assert self.process.poll() is None, read(self.directory, 'log')
            return []
        assert answer.status_code in (200, 503), answer.text
        return answer.json()['data']['result'] if answer.status_code == 200 else []

    def close(self):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


@pytest.fixture
def start_prometheus(tmp_path):
    started = []

    def start(change):
        """With the shipped configuration, but faster, and as `change` makes it."""
        config = read(MONITORING, 'prometheus.yml').replace('15s', '1s').replace('10s', '1s').replace('alerts.yml', ALERTS)
        started.append(Prometheus(tmp_path, change(config)))
        return started[-1]
    yield start
    for prometheus in started:
        prometheus.close()


class FakeNginx(http.server.ThreadingHTTPServer):
    """Where compose's Prometheus asks: keeps the paths, and has one metric to tell."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.paths.add(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'coze_chat_open_streams 7\n')

        def log_message(self, *_):
            pass

    def __init__(self):
        super().__init__(('127.0.0.1', 0), self.Handler)
        self.paths = set()
        threading.Thread(target=self.serve_forever, daemon=True).start()


def test_in_compose_nginx_is_asked_for_each_worker_by_its_address(start_prometheus):
    """What the name `worker` would give is put in its place."""
    with FakeNginx() as nginx:
        def change(config):
            config, found = re.subn(r'dns_sd_configs:\n(?: {6,}.*\n)+', 'static_configs:\n'
                                    '      - targets: ["10.1.0.1:9000", "10.1.0.2:9000"]\n', config)
            assert found == 1 and 'replacement: nginx:9145\n' in config
            return config.replace('nginx:9145', '127.0.0.1:%d' % nginx.server_port)
        prometheus = start_prometheus(change)
        wait_for(lambda: len(prometheus.query('coze_chat_open_streams{job="coze-chat"} == 7')) == 2, 30, 'both workers')
        nginx.shutdown()
        assert nginx.paths == {'/metrics/10.1.0.1:9000', '/metrics/10.1.0.2:9000'}
        instances = {one['metric']['instance'] for one in prometheus.query('coze_chat_open_streams')}
        assert instances == {'10.1.0.1:9000', '10.1.0.2:9000'}


def test_a_real_prometheus_has_an_answer_to_every_panel(busy, start_prometheus):
    prometheus = start_prometheus(lambda config: re.sub(
        r'(?s)scrape_configs:.*', 'scrape_configs: [{job_name: coze-chat, static_configs: [{targets: ["127.0.0.1:%d"]}]}]\n'
        % busy.port, config))
    wait_for(lambda: prometheus.query('up{job="coze-chat"} == 1'), 30, 'the first scrape')
    make_traffic(busy)
    done = time.time()
    wait_for(lambda: prometheus.query('timestamp(up) > %f' % done), 30, 'a scrape after it')
    empty = [where for where, query, _ in dashboard_queries()
             if not where.startswith('annotation') and not prometheus.query(query)]
    assert not empty
    assert not prometheus.query('ALERTS{alertname="CozeChatDown"}')
