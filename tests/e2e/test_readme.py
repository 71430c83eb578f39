"""The client code in README.md works as it is printed there: only the address is another one."""
import os
import re
import subprocess

import pytest

from service import TOP
from test_documented_clients import needs_node

with open(os.path.join(TOP, 'README.md'), encoding='utf-8') as file:
    BLOCKS = re.findall(r'^```(python|javascript|sh)\n(.*?)^```', file.read(), re.M | re.S)

# Of what a shell would run, only what asks the service: other blocks install things.
CLIENTS = [(language, code) for language, code in BLOCKS
           if 'localhost:6001' in code and (language != 'sh' or all(line.startswith('curl ') for line in code.splitlines()))]
RUN = {'python': ['/usr/bin/python3', '-'], 'javascript': ['node', '-'], 'sh': ['bash', '-euo', 'pipefail', '-s']}


def run(stack, language, code):
    code = code.replace('http://localhost:6001', stack.url)
    done = subprocess.run(RUN[language], input=code, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60,
                          encoding='utf-8')
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_is_code_for_each_client():
    assert sorted(language for language, _ in CLIENTS) == 2 * ['javascript'] + 3 * ['python'] + 2 * ['sh']


@needs_node
@pytest.mark.parametrize('language, code', CLIENTS, ids=['%s-%d' % (one[0], number) for number, one in enumerate(CLIENTS)])
def test_it_works_as_printed(stack, language, code):
    """The simulator repeats each message and counts them: whatever way the pieces are printed, its words are in there."""
    shown = re.sub(r'\s', '', run(stack, language, code))
    asked = [message for message in ('Hello', 'And now?', '我最近工作压力很大', '继续') if '"%s"' % message in code]
    assert asked
    for number, message in enumerate(asked, 1):
        assert '收到：“%s”。这是本次会话的第%d轮' % (message.replace(' ', ''), number) in shown
