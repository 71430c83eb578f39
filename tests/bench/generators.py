"""
The load: wrk for whole answers as fast as they come, streams (streams.c) for the times of single chunks. Both look at every
answer, and a measurement in which one was wrong is void.
"""
import json
import os
import subprocess

from servers import BOT, TOKEN, TOP

HERE = os.path.dirname(os.path.abspath(__file__))
STREAMS = os.environ.get('STREAMS_CLIENT') or os.path.join(TOP, 'build', 'bench', 'streams')
COZE_BODY = json.dumps({'bot_id': BOT, 'user_id': 'stream-%', 'stream': True, 'auto_save_history': True, 'additional_messages': [
    {'role': 'user', 'type': 'question', 'content': 'hi', 'content_type': 'text'}]})


class Void(Exception):
    """A measurement that says nothing, and why."""


def wrk(port, path, clients, seconds, sessions=0):
    """
    Messages as fast as `clients` get their answers, each in a new session; or in `sessions` that are used again and again.
    """
    words = ['wrk', '-t%d' % min(clients, 2), '-c%d' % clients, '-d%ds' % seconds, '--timeout', '30s',
             '-s', os.path.join(HERE, 'load.lua'), 'http://127.0.0.1:%d%s' % (port, path), '--', TOKEN, BOT, str(sessions)]
    found = json.loads(run(words).splitlines()[-1])
    errors = found.pop('errors')
    if found['wrong'] or any(errors.values()) or not found['requests']:
        raise Void('%d clients at %s: %d answers, %d wrong (%s), %s' % (
            clients, path, found['requests'], found['wrong'], found['first_wrong'], errors))
    found['per_second'] = found['requests'] / found['seconds']
    return found


def stream_words(port, path, count, *options):
    words = [STREAMS, '-p', port, '-P', path, '-c', count, *options]
    if path == '/v3/chat':
        words += ['-b', COZE_BODY, '-h', 'Authorization: Bearer ' + TOKEN]
    return list(map(str, words))


def check_streams(found):
    bad = {why: count for why, count in found['failed'].items() if count}
    if bad:
        raise Void('of %d streams failed: %s (last status %d)' % (found['streams'], bad, found['last_status']))
    return found


def streams(port, path, count, *options):
    """What streams.c prints, with these options of its own."""
    return check_streams(json.loads(run(stream_words(port, path, count, *options))))


class OpenStreams:
    """`with` holds `count` streams open, each of which has had its first chunk."""

    def __init__(self, port, path, count, *options):
        self.process = subprocess.Popen(stream_words(port, path, count, '-i', *options), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        if self.process.stdout.readline() != 'open\n':
            self.process.communicate()
            raise Void('streams could not open what it should')
        return self

    def __exit__(self, *_):
        output, _ = self.process.communicate(timeout=60)
        check_streams(json.loads(output))


def run(words):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Void('%s: %s' % (os.path.basename(words[0]), done.stderr.strip() or done.stdout.strip()))
    return done.stdout
