"""
.env is read by env/service, and what it says goes on to the workers in a file that they read themselves: both must
understand every line alike.
"""
import os
import subprocess

import pytest

from service import SCRIPT, TOP

CHATD = os.environ.get('CHATD') or os.path.join(TOP, 'build', 'coze-chatd')
QUOTED = ['', 'x', ' ', '#', ' #', '\\', '\\\\', '\\\\\\', '\\"', '\\$', '\\\\$', '\\\\\\$', '$', "'", '"', '\\n', 'é', '\\ ']
# What stands right of COZE_USER_ID=, which takes any text.
VALUES = ['x', '#x', ' # x', 'a#b', 'a #b', 'a # b # c', 'a # b "c', "a # 'b", 'a=b', ' a b ', '\ta\t', 'a\\', '$a', '`a`',
          '"a', "'a", 'a"', "a'", '"a"b', "'a'b", '"a" b', '"a" #b', '"a"#b', "'a'#b", '"a" # "b"', "'a' # 'b'", '"a\' # b',
          '""', "''", '"" ""', '用户', '"用户" # 😀', 'a\r', '"a"\r', 'a\x0b', '\x0ca', '"a"\x0b', '\x0b"a"', '# # a', '  #']
VALUES += ['"%s"' % text for text in QUOTED] + ["'%s'" % text for text in QUOTED]
VALUES += ['"%s%s"' % (one, two) for one in QUOTED[4:12] for two in QUOTED[4:12]]
# Whole lines.
LINES = ['export COZE_USER_ID=x', 'export\tCOZE_USER_ID=x', 'exportCOZE_USER_ID=x', 'export  COZE_USER_ID = x',
         '\x0bCOZE_USER_ID=x', 'COZE_USER_ID\x0c=x', 'export\x0bCOZE_USER_ID=x', 'COZE USER_ID=x', 'COZE_USER_ID',
         'COZE_USER_ID:x', '1=x', '=x', 'ü=x',
         ' # COZE_USER_ID=x', '\x0b# COZE_USER_ID=x', '\x0b', '\r', '# x\rCOZE_USER_ID=x', '\ufeffCOZE_USER_ID=x', '\ufeff',
         'COZE_USER_ID=x\nCOZE_USER_ID=y', 'COZE_USER_ID=x\n\ufeffCOZE_USER_ID=y', 'COZE_USER_ID=x\nCOZE_USER_ID=']


def by_the_worker(text, home):
    """The user id that the text sets, or None when it is refused."""
    path = os.path.join(home, 'settings')
    with open(path, 'wb') as file:
        file.write(text)
    done = subprocess.run([CHATD, '--print-config'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                          env={'PATH': os.environ['PATH'], 'SETTINGS_FILE': path, 'COZE_API_TOKEN': 'pat', 'COZE_BOT_ID': '1',
                               'REDIS_URL': 'redis://localhost'})
    assert done.returncode in (0, 78), done.stderr
    if done.returncode:
        return None
    lines = [line for line in done.stdout.split(b'\n') if line.startswith(b'COZE_USER_ID=')]
    assert len(lines) == 1
    return lines[0][len(b"COZE_USER_ID='"):-1].replace(b"'\\''", b"'")


def functions():
    """env/service without its command."""
    with open(SCRIPT, encoding='utf-8') as file:
        return file.read().rpartition('\ncommand=${1:-}\n')[0].replace('${BASH_SOURCE[0]}', SCRIPT)


def by_the_script(texts, home):
    """The same by env/service, all texts in one shell."""
    names = []
    for number, text in enumerate(texts):
        names.append(os.path.join(home, 'env-%d' % number))
        with open(names[-1], 'wb') as file:
            file.write(text)
    script = functions() + '''
        command=up
        for file in "$@"; do
            (read_env_file "$file" && printf '%s\\0' "=${COZE_USER_ID-}") 2>/dev/null || printf 'refused\\0'
        done'''
    done = subprocess.run(['bash', '-c', script, 'test', *names], stdout=subprocess.PIPE, check=True, stdin=subprocess.DEVNULL,
                          env={'PATH': os.environ['PATH']})
    answers = done.stdout.split(b'\0')[:-1]
    assert len(answers) == len(texts)
    return [answer[1:] if answer.startswith(b'=') else None for answer in answers]


def agree(script, worker):
    """An empty value is as good as none; what the worker finds wrong with the value itself is another matter."""
    if script is None or worker is None:
        return script is worker
    return (script or b'default_user') == worker


@pytest.mark.parametrize('end', ['', '\n', '\r\n'], ids=['no end', 'LF', 'CRLF'])
def test_both_readers_understand_every_line_alike(tmp_path, end):
    values = VALUES if end == '\n' else VALUES[::5]
    texts = [('COZE_USER_ID=%s%s' % (value, end)).encode() for value in values] + [(line + end).encode() for line in LINES]
    differ = []
    for text, script in zip(texts, by_the_script(texts, str(tmp_path))):
        worker = by_the_worker(text, str(tmp_path))
        if not agree(script, worker) and not (worker is None and any(byte < 32 for byte in script or b'')):
            differ.append((text, script, worker))
    assert not differ, '\n'.join('%r: env/service says %r, the worker %r' % one for one in differ)


def test_what_the_script_writes_the_worker_reads(tmp_path):
    """env/service quotes each value for SETTINGS_FILE: it must come out as it went in."""
    values = [value for value in VALUES if not any(ord(letter) < 32 for letter in value)]
    values += ['\\', '\\\\', '\\"\\$', '$(id)', 'a\\"b']
    script = functions() + '\nfor value in "$@"; do print_setting COZE_USER_ID "$value"; done'
    done = subprocess.run(['bash', '-c', script, 'test', *values], stdout=subprocess.PIPE, check=True,
                          env={'PATH': os.environ['PATH']})
    texts = done.stdout.splitlines()
    assert len(texts) == len(values)
    for value, text in zip(values, texts):
        assert by_the_worker(text, str(tmp_path)) == value.encode(), text
