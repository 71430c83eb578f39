"""The example settings, the README, the program's own help and the compose files name the same variables."""
import os
import re
import subprocess

import pytest

from service import TOP

CHATD = os.environ.get('CHATD', os.path.join(TOP, 'build', 'coze-chatd'))


def read(*path):
    with open(os.path.join(TOP, *path), encoding='utf-8') as file:
        return file.read()


def helped():
    """{name: default} of --help; the default is what its last parentheses hold."""
    text = subprocess.run([CHATD, '--help'], stdout=subprocess.PIPE, text=True, check=True).stdout
    lines = re.findall(r'^  ([A-Z_]+) +(.*)$', text, re.M)
    return {name: (re.search(r' \(([^()]*)\)$', line) or [None, ''])[1] for name, line in lines}


def test_the_example_has_every_setting_and_no_other():
    example = dict(re.findall(r'^#?([A-Z_]+)=(.*)$', read('env', 'example.env'), re.M))
    assert sorted(example) == sorted(helped())
    assert {name: value for name, value in example.items() if value} == \
        {name: value for name, value in helped().items() if value}


def test_the_readme_names_only_settings_that_exist():
    table = re.search(r'\n## Configuration\n(.*?)\n## ', read('README.md'), re.S)[1]
    named = set(re.findall(r'`([A-Z]+_[A-Z_]+|WORKERS)`', ''.join(re.findall(r'^\|.*\|$', table, re.M))))
    assert named and named <= set(helped())


def test_containers_get_every_setting():
    """As a variable, as a secret (for files: the file itself), or by what docker-compose.yml makes of it."""
    services = read('env', 'compose', 'services.yml')
    compose = read('docker-compose.yml') + read('env', 'compose', 'tls.yml')
    variables = set(re.findall(r'^ +([A-Z][A-Z_]+):', services, re.M))
    assert variables - set(helped()) == {'TLS_WANTED', 'TZ'}
    secrets = {name.upper() for name in re.findall(r'^  ([a-z_]+):\n    file: ', compose, re.M)}
    assert set(helped()) - variables - secrets == {'WORKERS'}
    assert '    scale: ${WORKERS:-' in compose and '      - ${SERVER_HOST:-0.0.0.0}:${SERVER_PORT:-6001}:' in compose


@pytest.mark.parametrize('mode', ['--help', '--print-config', '--openapi'])
def test_a_text_that_could_not_be_written_whole_is_a_failure(mode):
    """env/service takes the settings from it: half of them must not pass for all."""
    env = {'COZE_API_TOKEN': 'pat_test_token_0123456789', 'COZE_BOT_ID': '1', 'RUN_DIR': '/tmp', 'REDIS_URL': 'redis://localhost'}
    with open('/dev/full', 'w') as full:
        done = subprocess.run([CHATD, mode], env=env, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (os.EX_IOERR, 'coze-chatd: cannot write standard output: No space left on device\n')
    assert subprocess.run([CHATD, mode], env=env, stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize('words', [['--no-such'], ['--check', 'more'], ['worker']])
def test_arguments_that_it_does_not_know_are_refused(words):
    done = subprocess.run([CHATD, *words], env={}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (os.EX_USAGE, '')
    assert done.stderr == 'coze-chatd: unknown argument %s; see --help\n' % words[-1]
