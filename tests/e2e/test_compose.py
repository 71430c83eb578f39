"""
docker-compose.yml for real: the images are built, the demo answers, workers come and go under load, Redis comes back with
its data; and the same services as a Swarm stack. Skipped where no Docker Engine can be used. Everything made here has a
project name and an image tag of its own, and is removed at the end.
"""
import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time

import pytest
import requests

from load import Load
from service import TOP, free_port
from stack import directive, parse_stream, wait_for

BASE_IMAGES = ('debian:bookworm-slim', 'redis:7-bookworm')
IMAGES = ('nginx', 'worker', 'redis', 'simulator')
NO_SETTINGS = os.path.join('env', 'compose', 'secrets', 'none')  # in the place of a developer's own .env
GAP_MS = 600
LONG = directive('long', chunks=20, gap_ms=400)
SETTINGS = ('PATH', 'HOME', 'DOCKER_HOST', 'DOCKER_CONFIG', 'DOCKER_CONTEXT')


def run(*command, env=None, seconds=60, check=True, stdin=''):
    """Its output, errors included."""
    done = subprocess.run(command, env=env, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          universal_newlines=True, timeout=seconds, cwd=TOP)
    assert not check or done.returncode == 0, '%s:\n%s' % (' '.join(command), done.stdout[-4000:])
    return done.stdout


def succeeds(*command, seconds=60):
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              timeout=seconds, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def why_not():
    """What is missing for a real run, or None."""
    if 'CHATD_WRAPPER' in os.environ or 'ASAN_OPTIONS' in os.environ:
        return 'the images have a build of their own'
    if os.geteuid() != 0:
        return 'not root'
    if not succeeds('docker', 'info', seconds=10):
        return 'no Docker Engine answers'
    if not composes():
        return 'neither docker-compose nor `docker compose` is installed'
    for image in BASE_IMAGES:
        if not succeeds('docker', 'image', 'inspect', image) and not succeeds('docker', 'pull', '-q', image, seconds=300):
            return 'there is no image %s, and none can be pulled' % image
    return None


def composes():
    """The commands of all Compose versions here, the newest last."""
    commands = (('docker-compose',), ('docker', 'compose'))
    return [command for command in commands if succeeds(*command, 'version', seconds=20)]


@pytest.fixture(scope='module', autouse=True)
def engine():
    reason = why_not()
    if reason:
        pytest.skip(reason)


class Served:
    """Whatever answers at `host` and `port`."""

    host = '127.0.0.1'

    @property
    def url(self):
        return 'http://%s:%d' % (self.host, self.port)

    def chat(self, message='你好', **fields):
        return requests.post(self.url + '/chat', json={'message': message, **fields}, timeout=30)

    def is_up(self):
        try:
            return requests.get(self.url + '/health', timeout=5).status_code == 200
        except requests.RequestException:
            return False


class Project(Served):
    """One docker-compose project with nothing of the caller's settings; `settings` are what .env would say."""

    def __init__(self, tag, compose=None, **settings):
        self.compose = compose or composes()[0]
        self.name = 'cztest%s' % secrets.token_hex(4)
        self.port = free_port()
        self.env = {name: os.environ[name] for name in SETTINGS if name in os.environ}
        self.env.update(COMPOSE_PROJECT_NAME=self.name, IMAGE_TAG=tag, SERVER_HOST='127.0.0.1',
                        SERVER_PORT=str(self.port))
        self.env.update(settings)

    def __call__(self, *words, **options):
        return run(*self.compose, '--env-file', NO_SETTINGS, '--profile', 'demo', *words, env=self.env,
                   **{'seconds': 120, **options})

    def containers(self, service, *words):
        """Ids of a service's containers, the oldest last."""
        return run('docker', 'ps', '-q', '--filter', 'label=com.docker.compose.project=' + self.name,
                   '--filter', 'label=com.docker.compose.service=' + service, *words).split()

    def inspect(self, service):
        return json.loads(run('docker', 'inspect', *self.containers(service)))

    def inside(self, service, *command, check=True):
        return run('docker', 'exec', self.containers(service)[0], *command, check=check)

    def down(self):
        self('down', '-v', '--remove-orphans', '-t', '1', check=False)


@pytest.fixture(scope='module')
def tag():
    """The images of this run, built once."""
    tag = 'test-%s' % secrets.token_hex(4)
    try:
        Project(tag)('build', seconds=600)
        yield tag
    finally:
        run('docker', 'rmi', '-f', *('coze-chat-%s:%s' % (name, tag) for name in IMAGES), check=False)


@pytest.fixture(scope='module')
def password():
    """(path, value) of a secret as README.md says: in a directory that only root can enter, readable by itself."""
    home = tempfile.mkdtemp(prefix='cz-')
    path = os.path.join(home, 'redis_password')
    value = 'p"\\ @:%%/%s' % secrets.token_hex(16)
    with open(path, 'w', encoding='ascii') as file:
        file.write(value + '\n')
    os.chmod(path, 0o444)
    yield path, value
    shutil.rmtree(home)


@pytest.fixture(scope='module')
def project(tag, password):
    """The demo as it is right after a clone, but with a password of its own and no limit on the rate of chats."""
    project = Project(tag, REDIS_PASSWORD_FILE=password[0], COZE_MIN_INTERVAL_MS='0', WORKERS='1')
    try:
        project('up', '-d')
        wait_for(project.is_up, 60, 'the service being up')
        yield project
    except BaseException:
        print(project('logs', '--tail=50', check=False))
        raise
    finally:
        project.down()


# --- what it does ----------------------------------------------------------------------------------------------------

def test_the_demo_answers(project):
    answer = project.chat('第一句', session_id='demo')
    assert answer.status_code == 200, answer.text
    assert '第一句' in answer.json()['response']
    assert '第 2 轮' in project.chat('第二句', session_id='demo').json()['response']


def test_chunks_come_one_by_one(project):
    """Through all the containers, at the pace of Coze."""
    message = directive('慢', gap_ms=GAP_MS, chunks=6)
    with requests.post(project.url + '/chat/stream', json={'message': message}, stream=True, timeout=30) as answer:
        assert answer.status_code == 200
        came, body = [], b''
        for piece in answer.iter_content(chunk_size=None):
            came.append(time.monotonic())
            body += piece
    events = parse_stream(body)
    assert [event['type'] for event in events] == ['chunk'] * 6 + ['complete']
    gaps = [(later - earlier) * 1000 for earlier, later in zip(came, came[1:6])]
    assert len(gaps) == 5 and min(gaps) > GAP_MS / 2, gaps


def test_nobody_has_more_rights_than_needed(project):
    for service in IMAGES:
        for container in project.inspect(service):
            host = container['HostConfig']
            assert container['Config']['User'] not in ('', '0', 'root'), service
            assert host['ReadonlyRootfs'] and host['CapDrop'] == ['ALL'] and not host['CapAdd'], service
            assert 'no-new-privileges:true' in host['SecurityOpt'] and not host['Privileged'], service
            assert host['Memory'] > 0 and host['NanoCpus'] > 0 and host['PidsLimit'] > 0, service
            assert host['RestartPolicy']['Name'] == 'unless-stopped'
            assert set(host['LogConfig']['Config']) == {'max-size', 'max-file'}
            assert (service == 'nginx') == bool(host['PortBindings']), 'only nginx has a published port'
        status = project.inside(service, 'cat', '/proc/1/status')
        fields = dict(line.split(':\t', 1) for line in status.splitlines())
        assert fields['Uid'].split()[0] != '0' and fields['NoNewPrivs'] == '1', status
        assert int(fields['CapEff'], 16) == int(fields['CapBnd'], 16) == 0, status
        assert 'Read-only file system' in project.inside(service, 'touch', '/usr/x', check=False)
    assert project.inspect('nginx')[0]['HostConfig']['PortBindings'] == \
        {'%d/tcp' % project.port: [{'HostIp': '127.0.0.1', 'HostPort': str(project.port)}]}


def test_only_workers_reach_redis(project):
    connect = 'exec 3<>/dev/tcp/redis/6379'
    assert project.inside('worker', 'bash', '-c', connect + ' && echo connected') == 'connected\n'
    for service in ('nginx', 'simulator'):
        assert 'Name or service not known' in project.inside(service, 'bash', '-c', connect, check=False)
        address = list(project.inspect('redis')[0]['NetworkSettings']['Networks'].values())[0]['IPAddress']
        attempt = 'timeout 2 bash -c "exec 3<>/dev/tcp/%s/6379" && echo connected' % address
        assert 'connected' not in project.inside(service, 'bash', '-c', attempt, check=False)
    store, = json.loads(run('docker', 'network', 'inspect', project.name + '_store'))
    assert store['Internal']


def test_the_password_is_asked_for_and_told_nobody(project, password):
    assert 'NOAUTH' in project.inside('redis', 'redis-cli', 'ping')
    seen = project('config') + run('ps', '-eo', 'args') + project('logs')
    for service in IMAGES:
        image = project.inspect(service)[0]['Image']
        seen += json.dumps(project.inspect(service)) + run('docker', 'history', '--no-trunc', image)
        for file in ('/proc/1/cmdline', '/proc/1/environ'):
            seen += project.inside(service, 'cat', file)
    assert len(seen) > 10000 and password[1].split('/')[1] not in seen


def test_all_are_healthy(project):
    def states():
        return {container['State']['Health']['Status'] for service in IMAGES for container in project.inspect(service)}
    wait_for(lambda: states() == {'healthy'}, 40, 'all health checks')


def test_metrics_are_for_the_inside(project):
    """Of each worker, by nginx, on a port that is not published; the others tell nothing without a key."""
    address, = (network['IPAddress'] for name, network in project.inspect('worker')[0]['NetworkSettings']['Networks'].items()
                if name.endswith('_front'))
    ask = "exec 3<>/dev/tcp/nginx/9145 && printf 'GET /metrics/%s:%d HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3"
    assert 'coze_chat_requests_total' in project.inside('simulator', 'bash', '-c', ask % (address, 9000))
    assert ' 404 ' in project.inside('simulator', 'bash', '-c', ask % (address, 22)).splitlines()[0]
    assert requests.get(project.url + '/metrics', timeout=10).status_code in (401, 403)


def test_https(tag, tmp_path):
    """With the file that adds it, and without it nobody believes to have HTTPS."""
    cert, key = str(tmp_path / 'cert.pem'), str(tmp_path / 'key.pem')
    run('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
        '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-out', cert, '-keyout', key)
    os.chmod(key, 0o444)
    port = free_port()
    https = Project(tag, TLS_CERT_FILE=cert, TLS_KEY_FILE=key, TLS_PORT=str(port))
    try:
        said = https('run', '--rm', '--no-deps', '-T', 'nginx', check=False)
        assert 'COMPOSE_FILE=docker-compose.yml:env/compose/tls.yml' in said
        https.env['COMPOSE_FILE'] = 'docker-compose.yml:env/compose/tls.yml'
        https('up', '-d', '--no-deps', 'nginx')
        url = 'https://localhost:%d/' % port

        def answer():
            try:
                return [requests.get(url, verify=cert, timeout=10)]
            except requests.ConnectionError:
                return None
        found, = wait_for(answer, 30, 'an answer over HTTPS')
        assert found.status_code == 502 and found.json()['detail'] and 'Strict-Transport-Security' in found.headers
        moved = requests.get(https.url, allow_redirects=False, timeout=10)
        assert moved.status_code == 308 and ':%d/' % port in moved.headers['Location']
    finally:
        https.down()


# --- workers come and go ---------------------------------------------------------------------------------------------

def message(number):
    """A quick one, in a session of its own."""
    return {'message': directive('load', gap_ms=5), 'session_id': 'load %d' % number}


def served(container):
    """How many messages a worker has answered."""
    return run('docker', 'logs', container).count('route=/chat status=200')


def scale(project, count):
    project('up', '-d', '--scale', 'worker=%d' % count)
    assert len(project.containers('worker')) == count


def test_workers_come_and_go_under_load(project):
    """1 → 4 → 2 workers: nginx is not touched, nobody notices, all four have their share."""
    nginx = project.containers('nginx')
    with Load(project.port) as load:
        load.steady(50, body=message)
        wait_for(lambda: len(load.times) > 100, 20, 'answers from one worker')
        scale(project, 4)
        workers = project.containers('worker')
        wait_for(lambda: all(served(worker) > 50 for worker in workers), 30, 'answers from all four')
        load.streams(24, LONG, again=False)
        wait_for(lambda: load.open_streams == 24, 20, 'the streams having begun')
        scale(project, 2)
        before = len(load.times)
        wait_for(lambda: len(load.times) > before + 150, 20, 'answers from the two that are left')
    assert not load.failures and load.finished_streams == 24
    assert set(load.statuses) == {200} and len(load.times) > 400
    assert max(load.times) < 5
    assert project.containers('nginx') == nginx


# --- Redis goes and comes back ---------------------------------------------------------------------------------------

def test_redis_restarted(project):
    """Errors only while it is away, and nothing is forgotten."""
    for _ in range(3):
        assert project.chat('remember', session_id='kept').status_code == 200
    before = requests.get(project.url + '/session/kept/info', timeout=10).json()
    assert before['message_count'] == 3
    with Load(project.port) as load:
        load.steady(20, body=message)
        wait_for(lambda: len(load.times) > 20, 20, 'answers before')
        left = time.monotonic()
        run('docker', 'restart', *project.containers('redis'))
        wait_for(project.is_up, 20, 'health')
        back = time.monotonic()
        wait_for(lambda: sum(begin > back + 2 for begin, _, _ in load.answers) > 40, 20, 'answers after')
    assert set(load.statuses) <= {200, 503} and len(load.answers) == sum(load.statuses.values()), load.failures[:5]
    assert all(end > left and begin < back + 2 for begin, end, status in load.answers if status == 503)
    assert requests.get(project.url + '/session/kept/info', timeout=10).json() == before
    assert project.chat('once more', session_id='kept').status_code == 200


# --- tokens ----------------------------------------------------------------------------------------------------------

def test_without_token_and_simulator_it_says_what_to_do(tag):
    alone = Project(tag)
    try:
        said = run(*alone.compose, '--env-file', NO_SETTINGS, 'run', '--rm', '--no-deps', '-T', 'worker', env=alone.env,
                   check=False)
        assert 'COZE_API_TOKEN is not set, and there is no simulator' in said
        assert '--profile demo' in said
    finally:
        alone.down()


@pytest.mark.parametrize('how', ['variable', 'secret'])
def test_a_token_always_wins_over_the_simulator(project, tmp_path, how):
    token = tmp_path / 'token'
    token.write_text('pat_0123456789\n')
    token.chmod(0o444)
    words = ['-e', 'COZE_API_TOKEN=pat_0123456789']
    if how == 'secret':
        words = ['-v', '%s:/run/secrets/coze_api_token:ro' % token]
    container = run('docker', 'run', '-d', '--read-only', '-e', 'WORKER_LISTEN=127.0.0.1:9000', '-e', 'LOG_FILE=-',
                    '-e', 'COZE_BOT_ID=1', '-e', 'REDIS_URL=redis://redis:6379', '--network', project.name + '_front',
                    *words, 'coze-chat-worker:' + project.env['IMAGE_TAG']).strip()
    try:
        log = wait_for(lambda: (lambda said: said if ' event=serving ' in said else None)(run('docker', 'logs', container)),
                       30, 'the worker serving')
        assert 'coze=https://api.coze.cn/v3' in log and 'pat_' not in log
    finally:
        run('docker', 'rm', '-f', container)


# --- a Swarm stack ---------------------------------------------------------------------------------------------------

SIMULATOR = """
version: "3.9"
services:
  simulator:
    image: coze-chat-simulator:${IMAGE_TAG}
    networks: [front]
    volumes:
      - type: tmpfs
        target: /run/coze_sim
    deploy:
      endpoint_mode: dnsrr
"""


class Swarm(Served):
    """A Swarm of this machine alone, on loopback, with the stack of env/compose/."""

    def __init__(self, tag, password, home):
        self.port = free_port()
        self.env = {name: os.environ[name] for name in SETTINGS if name in os.environ}
        self.env.update(IMAGE_TAG=tag, SERVER_PORT=str(self.port), COZE_MIN_INTERVAL_MS='0', WORKERS='2')
        self.files = [os.path.join('env', 'compose', 'services.yml'), os.path.join(home, 'swarm.yml'),
                      os.path.join(home, 'simulator.yml')]
        self.name = 'cztest'
        self.password = password
        self.had_bridge = self.has_bridge()

    def write_files(self):
        """Published ports of a stack are those of every address of this machine, so here there are none."""
        with open(os.path.join(TOP, 'env', 'compose', 'swarm.yml'), encoding='utf-8') as file:
            text = file.read()
        ports = '      - target: ${SERVER_PORT:-6001}\n        published: ${SERVER_PORT:-6001}\n        mode: host\n'
        assert '    ports:\n' + ports in text
        with open(self.files[1], 'w', encoding='utf-8') as file:
            file.write(text.replace('    ports:\n' + ports, ''))
        with open(self.files[2], 'w', encoding='utf-8') as file:
            file.write(SIMULATOR)

    def up(self):
        self.write_files()
        run('docker', 'swarm', 'init', '--advertise-addr', '127.0.0.1', '--listen-addr', '127.0.0.1:2377')
        run('docker', 'node', 'update', '--label-add', 'coze-chat.redis=true', run('docker', 'node', 'ls', '-q').strip())
        for name in ('admin-api-keys', 'api-keys', 'api-token', 'redis-password'):
            run('docker', 'secret', 'create', 'coze-chat-' + name, '-',
                stdin=self.password + '\n' if name == 'redis-password' else ' ')
        files = [word for file in self.files for word in ('-c', file)]
        said = run('docker', 'stack', 'deploy', '--resolve-image', 'never', *files, self.name, env=self.env)
        assert 'Ignoring unsupported options: security_opt\n' in said and said.count('gnoring') == 1, said
        self.host = wait_for(self.address, 60, 'nginx in the stack')

    @staticmethod
    def has_bridge():
        return 'docker_gwbridge' in run('docker', 'network', 'ls', '--format', '{{.Name}}').split()

    def tasks(self, service):
        return run('docker', 'ps', '-q', '--no-trunc', '--filter',
                   'label=com.docker.swarm.service.name=%s_%s' % (self.name, service)).split()

    def address(self):
        """Of nginx, on the bridge that this machine shares with the containers."""
        found = run('docker', 'network', 'inspect', '-f', '{{json .Containers}}', 'docker_gwbridge', check=False)
        inside = json.loads(found) if found.startswith('{') else {}
        addresses = [inside[task]['IPv4Address'] for task in self.tasks('nginx') if task in inside]
        return addresses[0].split('/')[0] if addresses else None

    def down(self):
        run('docker', 'stack', 'rm', self.name, check=False)
        label = 'label=com.docker.stack.namespace=' + self.name
        wait_for(lambda: not run('docker', 'ps', '-q', '--filter', label).strip(), 60, 'the end of all tasks')
        run('docker', 'swarm', 'leave', '--force', check=False)
        # What a Swarm leaves behind.
        for kind in ('container', 'volume'):
            left = run('docker', kind, 'ls', '-q', *(['-a'] if kind == 'container' else []), '--filter', label).split()
            if left:
                run('docker', kind, 'rm', '-f', *left)
        if not self.had_bridge:
            run('docker', 'network', 'disconnect', '-f', 'docker_gwbridge', 'gateway_ingress-sbox', check=False)
            run('docker', 'network', 'rm', 'docker_gwbridge', check=False)


def test_a_swarm_replaces_workers_under_load(tag, password, tmp_path):
    """The stack answers, and gets new workers one by one without anybody noticing."""
    if run('docker', 'info', '-f', '{{.Swarm.LocalNodeState}}').strip() != 'inactive':
        pytest.skip('this Docker Engine is part of a Swarm already')
    swarm = Swarm(tag, password[1], str(tmp_path))
    try:
        swarm.up()
        # Each request goes to either worker: this many reach both.
        wait_for(lambda: all(swarm.is_up() for _ in range(30)), 60, 'both workers being ready')
        assert swarm.chat().status_code == 200 and len(swarm.tasks('worker')) == 2
        old = set(swarm.tasks('worker'))
        with Load(swarm.port, swarm.host) as load:
            load.steady(20, body=message)
            load.streams(8, LONG)
            wait_for(lambda: load.open_streams == 8, 20, 'the streams having begun')
            run('docker', 'service', 'update', '--force', '--detach=false', '--quiet', '--update-monitor', '1s',
                swarm.name + '_worker', seconds=120)
            wait_for(lambda: not old & set(swarm.tasks('worker')), 60, 'the end of the old workers')
            before = len(load.times)
            wait_for(lambda: len(load.times) > before + 40, 20, 'answers from the new workers')
        assert not load.failures and load.finished_streams >= 16
        assert set(load.statuses) == {200} and len(load.times) > 200
    finally:
        swarm.down()


# --- the files -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('command', [('docker-compose',), ('docker', 'compose')], ids=' '.join)
def test_every_profile_is_valid_for_both_composes(command, password):
    if command not in composes():
        pytest.skip('%s is not installed' % ' '.join(command))
    project = Project('none', compose=command, REDIS_PASSWORD_FILE=password[0], DRAIN_TIMEOUT_SECONDS='30',
                      SERVER_PORT='', TLS_CERT_FILE='/etc/ssl/none.pem', TLS_KEY_FILE='/etc/ssl/none.key',
                      COMPOSE_FILE='docker-compose.yml:env/compose/tls.yml')
    said = project('--profile', 'monitoring', 'config')
    for name in IMAGES + ('prometheus', 'grafana'):
        assert '  %s:\n' % name in said
    assert 'warn' not in said.lower()
    assert '6001' in said and '6443' in said
