"""The installed units under a real systemd: they work with all of their sandbox, and start, reload, restart and stop as told."""
import json
import os
import re
import shutil
import tempfile

import pytest

from install import read
from machine import Machine, why_not
from service import TOP
from stack import BOT, TOKEN, wait_for

SIM_PORT = 21999  # the machine's own: nobody else is there
SETTINGS = '/etc/coze-chat/coze-chat.env'


@pytest.fixture(scope='module')
def machine():
    if why_not():
        pytest.skip(why_not())
    home = tempfile.mkdtemp(prefix='cz-')
    machine = Machine(home)
    try:
        if not machine.boot():
            pytest.skip('systemd does not boot here: ' + machine.output()[-300:].strip())
        machine.install()
        machine.run('systemctl', 'start', 'redis-server')
        machine.run('env', 'SIM_DIR=/tmp/sim', 'SIM_PORT=%d' % SIM_PORT, 'SIM_TOKEN=' + TOKEN, 'SIM_GAP_MS=20',
                    os.path.join(TOP, 'tests/coze_sim/sim'), 'start')
        change(machine, COZE_API_TOKEN=TOKEN, COZE_BOT_ID=BOT, COZE_BASE_URL='http://127.0.0.1:%d/v3' % SIM_PORT,
               COZE_MIN_INTERVAL_MS=0, WORKERS=2, SERVER_PORT=80)
        machine.run('systemctl', 'start', 'coze-chat', 'coze-chat-nginx')
        wait_for(lambda: status(machine, '/health') == 200, what='health')
        yield machine
    finally:
        machine.close()
        shutil.rmtree(home, ignore_errors=True)


def change(machine, **settings):
    path = machine.path(SETTINGS)
    with open(path) as file:
        text = file.read()
    for name, value in settings.items():
        line = '%s=%s\n' % (name, value)
        text, found = re.subn(r'(?m)^%s=.*\n' % name, line, text)
        text += '' if found else line
    with open(path, 'w') as file:
        file.write(text)


def status(machine, path, *words, port=80):
    """The HTTP status of an answer; 0 when there is none."""
    return int(machine.run('curl', '-s', '-m', '30', '-o', '/dev/null', '-w', '%{http_code}', *words,
                           'http://127.0.0.1:%d%s' % (port, path), check=False).stdout)


def chat(machine, message='你好', port=80):
    answer = machine.run('curl', '-sS', '-m', '30', '-H', 'Content-Type: application/json', '-d',
                         json.dumps({'message': message}), 'http://127.0.0.1:%d/chat' % port).stdout
    return json.loads(answer)


def processes(machine, unit):
    """{pid: fields of its status}, pids as the machine counts them."""
    group = machine.property(unit, 'ControlGroup')
    pids = machine.run('sh', '-c', 'cat /sys/fs/cgroup/systemd%s/cgroup.procs || cat /sys/fs/cgroup%s/cgroup.procs'
                       % (group, group)).stdout
    found = {}
    for pid in re.findall(r'^\d+$', pids, re.M):
        told = machine.run('cat', '/proc/%s/status' % pid, check=False)  # it may have ended since
        if told.returncode == 0:
            found[int(pid)] = dict(re.findall(r'^(\w+):\s*(.*)$', told.stdout, re.M))
    return found


def test_a_chat_is_answered_on_a_privileged_port(machine):
    assert '你好' in chat(machine)['response']


def test_a_large_body_waits_in_the_cache(machine):
    assert status(machine, '/chat', '-H', 'Content-Type: application/json', '--data-binary',
                  '@/usr/local/bin/coze-chatd') == 400
    assert os.path.isdir(machine.path('/var/cache/coze-chat/body'))


def test_large_bodies_weigh_less_than_answers(machine):
    """A thread that parses one has a lower priority, which the sandbox must let it take."""
    assert status(machine, '/chat', '-H', 'Content-Type: application/json', '--data-binary',
                  '@/usr/local/bin/coze-chatd') == 400
    nices = set()
    for pid in processes(machine, 'coze-chat'):
        stats = machine.run('sh', '-c', 'cat /proc/%d/task/*/stat' % pid, check=False).stdout
        nices |= {line.rsplit(') ', 1)[1].split()[16] for line in stats.splitlines()}
    assert nices == {str(os.nice(0)), '10'}


def test_no_process_has_privileges(machine):
    for unit, count, capabilities in (('coze-chat', 3, 0), ('coze-chat-nginx', 3, 1 << 10)):
        found = processes(machine, unit)
        assert len(found) >= count
        for fields in found.values():
            assert fields['Uid'].split()[0] != '0' and len(set(fields['Uid'].split())) == 1
            assert int(fields['CapEff'], 16) == capabilities == int(fields['CapBnd'], 16)
            assert (fields['NoNewPrivs'], fields['Seccomp']) == ('1', '2')


def test_the_sandbox_forbids_nothing_that_is_needed(machine):
    """No complaint in any log, and the workers see each other in /proc."""
    chat(machine)
    metrics = machine.run('curl', '-s', 'http://127.0.0.1/metrics').stdout
    assert len(re.findall(r'(?m)^coze_chat_worker_resident_bytes\{worker="\d"\} \d{6,}$', metrics)) == 2
    logs = machine.path('/var/log/coze-chat')
    for name in os.listdir(logs):
        text = read(logs, name).decode()
        assert not re.search(r'\[(alert|emerg|crit)\]|level=error|not permitted|Permission denied', text), text
    journal = machine.run('journalctl', '--no-pager', '-u', 'coze-chat', '-u', 'coze-chat-nginx').stdout
    assert not re.search(r'not permitted|denied|failed', journal, re.I), journal


def test_logrotate_rotates_as_the_service_user(machine):
    chat(machine)
    inode = os.stat(machine.path('/var/log/coze-chat/api_server.log')).st_ino
    machine.run('logrotate', '-f', '/etc/logrotate.d/coze-chat')
    chat(machine)
    for name in ('api_server.log', 'nginx_access.log'):
        wait_for(lambda: os.path.getsize(machine.path('/var/log/coze-chat/' + name)) > 0, what=name)
    assert os.stat(machine.path('/var/log/coze-chat/api_server.log')).st_ino != inode
    assert os.stat(machine.path('/var/log/coze-chat/api_server.log.1')).st_ino == inode


def test_one_reload_takes_new_settings_into_use_on_both_sides(machine):
    masters = [machine.property(unit, 'MainPID') for unit in ('coze-chat', 'coze-chat-nginx')]
    change(machine, SERVER_PORT=81, WORKERS=3)
    machine.run('systemctl', 'reload', 'coze-chat')
    wait_for(lambda: status(machine, '/health', port=81) == 200, what='the new port')
    wait_for(lambda: len(processes(machine, 'coze-chat')) == 4, what='the third worker')
    assert [machine.property(unit, 'MainPID') for unit in ('coze-chat', 'coze-chat-nginx')] == masters
    change(machine, SERVER_PORT=80, WORKERS=2)
    machine.run('systemctl', 'reload', 'coze-chat')
    wait_for(lambda: status(machine, '/health') == 200, what='the old port')


def test_bad_settings_fail_the_reload_and_nothing_else(machine):
    change(machine, SERVER_PORT='no-port')
    assert machine.run('systemctl', 'reload', 'coze-chat', check=False).returncode != 0
    assert machine.run('systemctl', 'reload', 'coze-chat-nginx', check=False).returncode != 0
    assert 'response' in chat(machine)
    wait_for(lambda: 'SERVER_PORT=no-port' in machine.run('journalctl', '--no-pager', '-u', 'coze-chat').stdout, what='the journal')
    change(machine, SERVER_PORT=80)
    machine.run('systemctl', 'reload', 'coze-chat')
    assert 'response' in chat(machine)


def test_a_start_with_bad_settings_is_not_tried_again(machine):
    change(machine, WORKERS='many')
    machine.run('systemctl', 'stop', 'coze-chat')
    machine.run('systemctl', 'start', 'coze-chat', check=False)
    wait_for(lambda: machine.property('coze-chat', 'ActiveState') == 'failed', what='the failure')
    assert machine.property('coze-chat', 'ExecMainStatus') == '78'
    assert machine.property('coze-chat', 'NRestarts') == '0'
    assert status(machine, '/health') == 502  # nginx goes on
    change(machine, WORKERS=2)
    machine.run('systemctl', 'start', 'coze-chat')
    wait_for(lambda: status(machine, '/health') == 200, what='health')


def test_a_killed_master_is_replaced(machine):
    master = machine.property('coze-chat', 'MainPID')
    machine.run('kill', '-9', master)
    wait_for(lambda: machine.property('coze-chat', 'MainPID') not in (master, '0'), 20, 'the new master')
    wait_for(lambda: status(machine, '/health') == 200, what='health')


def test_stopping_both_waits_for_a_running_stream(machine):
    stream = machine.start('curl', '-sSN', '-H', 'Content-Type: application/json', '-d', json.dumps(
        {'message': 'sim:' + json.dumps({'chunks': 30, 'gap_ms': 100})}), 'http://127.0.0.1/chat/stream')
    first = stream.stdout.readline()
    assert '"chunk"' in first, first
    machine.run('systemctl', 'stop', 'coze-chat', 'coze-chat-nginx')
    rest = stream.communicate(timeout=10)[0]
    assert '"type": "complete"' in rest
    assert {machine.property(unit, 'Result') for unit in ('coze-chat', 'coze-chat-nginx')} == {'success'}
    machine.run('systemctl', 'start', 'coze-chat', 'coze-chat-nginx')
    wait_for(lambda: status(machine, '/health') == 200, what='health')
